//! How far an origin is trusted with pipelines (RFC 9112 §9.3.2).

/// How far an origin is trusted with pipelines.
///
/// A server that answers some of the requests that it finds in a read and drops the others would
/// have every later response taken for the answer to the request before. So an origin is sent one
/// request at a time, and beside that a pair in one send; when both are answered, four, then eight,
/// then sixteen. Nothing goes behind such a batch until all of it is answered.
///
/// ```text
/// Untried ─── its trials are passed ───► Full ─── a pipeline breaks ──► Wary
///    │                                    ◄── a connection is proven ────┘
///    ├── the third connection in a row breaks that was not proven ──► Lost
///    └── it is silent inside of a batch, or speaks HTTP/1.0 ───►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Its requests go one at a time, but for one batch of at most so many. So many connections in
    /// a row broke in that.
    Untried {
        breaks: u8,
        on_trial: bool,
        most: u16,
    },
    Full,
    /// A new connection has to answer a request before it is given a second. So many in a row broke
    /// before they were proven.
    Wary {
        breaks: u8,
    },
    /// Its requests go one at a time.
    Lost,
}

impl Trust {
    /// Whether a connection with requests of a pipeline has broken lately.
    pub(crate) fn is_broken(self) -> bool {
        matches!(
            self,
            Trust::Wary { .. } | Trust::Untried { breaks: 1.., .. }
        )
    }

    const MAX_BREAKS: u8 = 3;

    /// Of an origin of which nothing is known.
    pub(crate) const NEW: Self = Self::Untried {
        breaks: 0,
        on_trial: false,
        most: 2,
    };

    /// A connection ended with requests of a pipeline unanswered. `is_excused`: that says nothing
    /// against pipelining. Answers whether the trust is lost by that.
    #[must_use]
    pub(crate) fn on_broken(&mut self, is_excused: bool) -> bool {
        let before = match *self {
            Trust::Full => 0,
            Trust::Untried { breaks, .. } | Trust::Wary { breaks } => breaks,
            Trust::Lost => return false,
        };
        let breaks = before + u8::from(!is_excused);
        *self = match *self {
            _ if breaks >= Self::MAX_BREAKS => Trust::Lost,
            Trust::Untried { on_trial, most, .. } => Trust::Untried {
                breaks,
                on_trial,
                most,
            },
            _ => Trust::Wary { breaks },
        };
        *self == Trust::Lost
    }

    /// A connection has shown that it can be pipelined.
    pub(crate) fn on_proven(&mut self) {
        if let Trust::Wary { .. } = self {
            *self = Trust::Full;
        }
    }

    /// A trial of so many requests is passed; `is_last`: no more are ever sent at once.
    pub(crate) fn on_passed(&mut self, requests: u16, is_last: bool) {
        if let Trust::Untried { on_trial, most, .. } = self {
            *on_trial = false;
            *most = (*most).max(requests.saturating_mul(2)).min(MOST_IN_TRIAL);
            if is_last {
                *self = Trust::Full;
            }
        }
    }

    /// A trial begins, or ends without a result.
    pub(crate) fn set_on_trial(&mut self, is_on_trial: bool) {
        if let Trust::Untried { on_trial, .. } = self {
            *on_trial = is_on_trial;
        }
    }
}

/// As many as go out in one send, however deep a pipeline is.
pub(super) const MOST_IN_TRIAL: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_lost_by_three_connections_in_a_row() {
        let wary = |breaks| Trust::Wary { breaks };
        let mut trust = Trust::Full;
        for breaks in [1, 2] {
            assert!(!trust.on_broken(false));
            assert_eq!(trust, wary(breaks));
        }
        assert!(!trust.on_broken(true), "it had been proven");
        assert_eq!(trust, wary(2));
        trust.on_proven();
        assert_eq!(trust, Trust::Full);
        let lost: Vec<_> = (0..4).map(|_| trust.on_broken(false)).collect();
        assert_eq!(lost, [false, false, true, false]);
        trust.on_proven();
        assert_eq!(trust, Trust::Lost);
    }
}
