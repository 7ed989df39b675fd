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
