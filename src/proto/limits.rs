//! Limits on how much of a response is read before it is refused.

/// Limits on what a peer may send. Exceeding one is a [`Violation`](crate::Violation) and closes
/// the connection.
///
/// Set them for the whole engine with [`Config::limits`](crate::Config::limits), or for one request
/// with [`RequestBuilder::limits`](crate::RequestBuilder::limits).
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, ErrorKind, Next, Request, Sim, Violation};
///
/// let network = Network::new(1);
/// network.host("big.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("x".repeat(5000)));
///
/// let mut config = Config::default();
/// config.limits.max_body_bytes = 1000;
/// let mut engine = Engine::<u32, Sim>::on_network(&network, config)?;
/// engine.submit(Request::get("http://big.test/").build()?, |_, reply, _| {
///     let error = reply.unwrap_err();
///     assert_eq!(error.kind(), ErrorKind::TooLarge);
///     assert!(matches!(error.violation(), Some(Violation::BodyTooLarge { limit: 1000, .. })));
///     Next::done()
/// });
/// // One request may have other limits than its engine.
/// let roomy = Request::get("http://big.test/").limits(|l| l.max_body_bytes = 1 << 20).build()?;
/// engine.submit(roomy, |bytes, reply, _| {
///     *bytes += reply.map_or(0, |response| response.body().len() as u32);
///     Next::done()
/// });
/// let mut bytes = 0;
/// engine.run(&mut bytes)?;
/// assert_eq!(bytes, 5000);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the status line and header section, including those of preceding interim responses.
    /// Default 64 KiB: twice the most that common servers send.
    pub max_head_bytes: usize,
    /// Field lines in one header or trailer section. Default 128.
    pub max_fields: usize,
    /// Bytes of a body that is collected ([`Flow::Buffer`](crate::Flow::Buffer)). Streamed and
    /// discarded bodies are not limited. Default 64 MiB.
    pub max_body_bytes: u64,
    /// Interim (1xx) responses before the final one. Default 16.
    pub max_interim: usize,
    /// Bytes of a trailer section (RFC 9112 §7.1.2). Default 16 KiB.
    pub max_trailer_bytes: usize,
    /// Bytes of chunk extensions in one body (RFC 9112 §7.1.1). Default 16 KiB.
    pub max_chunk_extension_bytes: usize,
    /// Whether to refuse field lines that are folded over several lines (RFC 9112 §5.2), instead of
    /// joining them with a space. Default false.
    pub refuse_obs_fold: bool,
}

impl Limits {
    /// The defaults of a new engine.
    pub(crate) const DEFAULT: Self = Self {
        max_head_bytes: 64 * 1024,
        max_fields: 128,
        max_body_bytes: 64 * 1024 * 1024,
        max_interim: 16,
        max_trailer_bytes: 16 * 1024,
        max_chunk_extension_bytes: 16 * 1024,
        refuse_obs_fold: false,
    };

    /// Represents limits that are not set, when passed to a closure: above the defaults, by an
    /// unlikely amount.
    const PLACEHOLDER: Self = {
        const MORE: usize = 1_000_003;
        let usual = Self::DEFAULT;
        Self {
            max_head_bytes: usual.max_head_bytes + MORE,
            max_fields: usual.max_fields + MORE,
            max_body_bytes: usual.max_body_bytes + MORE as u64,
            max_interim: usual.max_interim + MORE,
            max_trailer_bytes: usual.max_trailer_bytes + MORE,
            max_chunk_extension_bytes: usual.max_chunk_extension_bytes + MORE,
            refuse_obs_fold: false,
        }
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The changes that one request makes to the engine's [`Limits`]. `None` keeps the engine's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitsEdit {
    max_head_bytes: Option<usize>,
    max_fields: Option<usize>,
    max_body_bytes: Option<u64>,
    max_interim: Option<usize>,
    max_trailer_bytes: Option<usize>,
    max_chunk_extension_bytes: Option<usize>,
    /// Refuses obs-fold even if the engine does not.
    refuse_obs_fold: bool,
}

impl LimitsEdit {
    /// Lets `change` edit the limits. Limits that it leaves alone keep their previous setting.
    ///
    /// The closure assigns to plain public fields, which record no assignment, and as an `FnOnce`
    /// it cannot run on two inputs to compare the results. A limit that is not set is therefore
    /// shown as a placeholder, and counts as set if it holds anything else afterwards, even the
    /// default. A `bool` has no spare value for this: if the engine refuses obs-fold, a request
    /// cannot allow it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Limits)) {
        let shown = self.over(&Limits::PLACEHOLDER);
        let mut edited = shown.clone();
        change(&mut edited);
        let Limits {
            max_head_bytes,
            max_fields,
            max_body_bytes,
            max_interim,
            max_trailer_bytes,
            max_chunk_extension_bytes,
            refuse_obs_fold,
        } = edited;
        note(
            &mut self.max_head_bytes,
            max_head_bytes,
            shown.max_head_bytes,
        );
        note(&mut self.max_fields, max_fields, shown.max_fields);
        note(
            &mut self.max_body_bytes,
            max_body_bytes,
            shown.max_body_bytes,
        );
        note(&mut self.max_interim, max_interim, shown.max_interim);
        note(
            &mut self.max_trailer_bytes,
            max_trailer_bytes,
            shown.max_trailer_bytes,
        );
        note(
            &mut self.max_chunk_extension_bytes,
            max_chunk_extension_bytes,
            shown.max_chunk_extension_bytes,
        );
        self.refuse_obs_fold = refuse_obs_fold;
    }

    /// Returns the limits that apply to the request, for an engine with limits `base`.
    pub(crate) fn over(&self, base: &Limits) -> Limits {
        Limits {
            max_head_bytes: self.max_head_bytes.unwrap_or(base.max_head_bytes),
            max_fields: self.max_fields.unwrap_or(base.max_fields),
            max_body_bytes: self.max_body_bytes.unwrap_or(base.max_body_bytes),
            max_interim: self.max_interim.unwrap_or(base.max_interim),
            max_trailer_bytes: self.max_trailer_bytes.unwrap_or(base.max_trailer_bytes),
            max_chunk_extension_bytes: self
                .max_chunk_extension_bytes
                .unwrap_or(base.max_chunk_extension_bytes),
            refuse_obs_fold: self.refuse_obs_fold || base.refuse_obs_fold,
        }
    }
}

fn note<T: PartialEq>(slot: &mut Option<T>, edited: T, shown: T) {
    if edited != shown {
        *slot = Some(edited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_and_left_is_not_set() {
        let mut edit = LimitsEdit::default();
        edit.change(|_| ());
        edit.change(|limits| *limits = limits.clone());
        assert_eq!(edit, LimitsEdit::default());
    }

    #[test]
    fn all_defaults_can_be_set() {
        let mut edit = LimitsEdit::default();
        edit.change(|limits| *limits = Limits::default());
        let engine = Limits {
            max_head_bytes: 1,
            max_fields: 2,
            max_body_bytes: 3,
            max_interim: 4,
            max_trailer_bytes: 5,
            max_chunk_extension_bytes: 6,
            refuse_obs_fold: false,
        };
        assert_eq!(edit.over(&engine), Limits::default());
    }

    #[test]
    fn folding_can_be_refused_and_not_be_allowed() {
        let (allows, refuses) = (
            Limits::default(),
            Limits {
                refuse_obs_fold: true,
                ..Limits::default()
            },
        );
        let mut edit = LimitsEdit::default();
        edit.change(|limits| limits.refuse_obs_fold = false);
        assert!(!edit.over(&allows).refuse_obs_fold && edit.over(&refuses).refuse_obs_fold);
        edit.change(|limits| limits.refuse_obs_fold = true);
        assert!(edit.over(&allows).refuse_obs_fold);
        // A request can revoke its own setting.
        edit.change(|limits| limits.refuse_obs_fold = false);
        assert!(!edit.over(&allows).refuse_obs_fold);
    }
}
