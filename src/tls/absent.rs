//! In place of `tls`, in a build without that feature: the types that a route and an error name.

use std::fmt;

/// What an engine is told about TLS: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls;

/// How a connection is protected: there is none that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsInfo {}

/// Why there is no TLS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("built without the feature `tls`")
    }
}

impl std::error::Error for Problem {}
