//! Decides how far an origin is trusted with pipelining (RFC 9112 §9.3.2).

/// How far an origin is trusted with pipelining.
///
/// If a server answered only some of the requests that it finds in one read and dropped the others,
/// every later response would be matched to the wrong request. A new origin is therefore sent one
/// request at a time, and on one connection a trial of two requests in one send. When both are
/// answered, trials of four, eight and sixteen follow. Nothing is sent after such a batch until
/// all of it has been answered.
///
/// ```text
/// Untried ─── all trials passed ──► Full ─── a pipeline breaks ──► Wary
///                                     ◄── a connection is proven ───┘
///
/// any ─── three unproven connections in a row break ──────► Lost
///     └── no response within a batch, or HTTP/1.0 ─────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Requests go one at a time, except for one trial of at most `most` requests. `breaks`
    /// connections in a row broke in this state.
    Untried {
        breaks: u8,
        on_trial: bool,
        most: u16,
    },
    Full,
    /// A new connection has to answer one request before it is given a second. `breaks` connections
    /// in a row broke before they were proven.
    Wary {
        breaks: u8,
    },
    /// Requests go one at a time.
    Lost,
}

impl Trust {
    /// Returns whether a connection with pipelined requests has broken recently.
    pub(crate) fn is_broken(self) -> bool {
        matches!(
            self,
            Trust::Wary { .. } | Trust::Untried { breaks: 1.., .. }
        )
    }

    const MAX_BREAKS: u8 = 3;

    /// The state of an origin about which nothing is known.
    pub(crate) const NEW: Self = Self::Untried {
        breaks: 0,
        on_trial: false,
        most: 2,
    };

    /// Records that a connection ended with pipelined requests unanswered. `is_excused` means that
    /// the break says nothing against pipelining. Returns whether trust is lost as a result.
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

    /// Records that a connection has shown that it can be pipelined.
    pub(crate) fn on_proven(&mut self) {
        if let Trust::Wary { .. } = self {
            *self = Trust::Full;
        }
    }

    /// Records that a trial of `requests` requests was passed. `is_last` means that no larger batch
    /// is ever sent.
    pub(crate) fn on_passed(&mut self, requests: u16, is_last: bool) {
        if let Trust::Untried { on_trial, most, .. } = self {
            *on_trial = false;
            *most = (*most).max(requests.saturating_mul(2)).min(MOST_IN_TRIAL);
            if is_last {
                *self = Trust::Full;
            }
        }
    }

    /// Records that a trial begins, or ends without a result.
    pub(crate) fn set_on_trial(&mut self, is_on_trial: bool) {
        if let Trust::Untried { on_trial, .. } = self {
            *on_trial = is_on_trial;
        }
    }
}

/// The most requests in one trial, however deep a pipeline is.
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
        assert!(!trust.on_broken(true), "an excused break does not count");
        assert_eq!(trust, wary(2));
        trust.on_proven();
        assert_eq!(trust, Trust::Full);
        let lost: Vec<_> = (0..4).map(|_| trust.on_broken(false)).collect();
        assert_eq!(lost, [false, false, true, false]);
        trust.on_proven();
        assert_eq!(trust, Trust::Lost);
    }
}
