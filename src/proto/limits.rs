//! How much of a response is read before it is refused.

/// Bounds on what a peer may send; passing one is a [`Violation`](crate::Violation) and closes the link.
///
/// Set for the whole engine in [`Config::limits`](crate::Config::limits), for one request with
/// [`RequestBuilder::limits`](crate::RequestBuilder::limits).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of status line and header section, interim responses before it included. Default 64 KiB:
    /// twice what common servers send at most.
    pub max_head_bytes: usize,
    /// Field lines of one header or trailer section. Default 128.
    pub max_fields: usize,
    /// Bytes of a body that is collected ([`Flow::Buffer`](crate::Flow::Buffer)); streamed and discarded bodies have no bound.
    /// Default 64 MiB.
    pub max_body_bytes: u64,
    /// Interim (1xx) responses before the final one. Default 16.
    pub max_interim: usize,
    /// Bytes of a trailer section (RFC 9112 §7.1.2). Default 16 KiB.
    pub max_trailer_bytes: usize,
    /// Bytes of chunk extensions in one body (RFC 9112 §7.1.1). Default 16 KiB.
    pub max_chunk_extension_bytes: usize,
    /// Refuses a field line folded over several lines (RFC 9112 §5.2) instead of joining it with a space. Default false.
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
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What one request changes of the engine's [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitsEdit {
    max_head_bytes: Option<usize>,
    max_fields: Option<usize>,
    max_body_bytes: Option<u64>,
    max_interim: Option<usize>,
    max_trailer_bytes: Option<usize>,
    max_chunk_extension_bytes: Option<usize>,
    refuse_obs_fold: bool,
}

impl LimitsEdit {
    /// Lets `change` edit the limits; what it leaves alone stays as it is here.
    ///
    /// `change` writes plain numbers, which do not tell whether they were written. So where nothing
    /// is set, it is shown the default and a number more that nobody comes upon: the default
    /// itself, and all that is near it, counts as set. A `bool` has no room for a mark: where the
    /// engine refuses obs-fold, a request cannot allow it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Limits)) {
        const MARK: usize = 1_000_003;
        let d = Limits::DEFAULT;
        let marked = |set: Option<usize>, default: usize| set.unwrap_or(default + MARK);
        let shown = Limits {
            max_head_bytes: marked(self.max_head_bytes, d.max_head_bytes),
            max_fields: marked(self.max_fields, d.max_fields),
            max_body_bytes: self
                .max_body_bytes
                .unwrap_or(d.max_body_bytes + MARK as u64),
            max_interim: marked(self.max_interim, d.max_interim),
            max_trailer_bytes: marked(self.max_trailer_bytes, d.max_trailer_bytes),
            max_chunk_extension_bytes: marked(
                self.max_chunk_extension_bytes,
                d.max_chunk_extension_bytes,
            ),
            refuse_obs_fold: self.refuse_obs_fold,
        };
        let mut edited = shown.clone();
        change(&mut edited);
        fn note<T: PartialEq>(slot: &mut Option<T>, edited: T, shown: T) {
            if edited != shown {
                *slot = Some(edited);
            }
        }
        note(
            &mut self.max_head_bytes,
            edited.max_head_bytes,
            shown.max_head_bytes,
        );
        note(&mut self.max_fields, edited.max_fields, shown.max_fields);
        note(
            &mut self.max_body_bytes,
            edited.max_body_bytes,
            shown.max_body_bytes,
        );
        note(&mut self.max_interim, edited.max_interim, shown.max_interim);
        note(
            &mut self.max_trailer_bytes,
            edited.max_trailer_bytes,
            shown.max_trailer_bytes,
        );
        note(
            &mut self.max_chunk_extension_bytes,
            edited.max_chunk_extension_bytes,
            shown.max_chunk_extension_bytes,
        );
        self.refuse_obs_fold = edited.refuse_obs_fold;
    }

    /// The limits that hold for the request under an engine whose own are `base`.
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
