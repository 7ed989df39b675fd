//! Everything a peer can do wrong.

use std::fmt;

/// What a peer did wrong, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The connection ended inside the response.
    Truncated {
        /// Bytes of body that were still to come, where known.
        missing: Option<u64>,
    },
}

impl Violation {
    /// Whether a limit was passed, rather than a rule broken.
    pub(crate) fn is_limit(&self) -> bool {
        match self {
            Violation::Truncated { .. } => false,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Truncated { .. } => f.write_str("cut short"),
        }
    }
}

impl std::error::Error for Violation {}
