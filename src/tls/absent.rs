//! Stands in for `tls` in a build without that feature: the types that a route and an error name.

use std::fmt;

/// TLS settings of a route. There are none in this build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls;

impl Tls {
    /// Returns the same settings without a client certificate, or `None` if there is none.
    pub(crate) fn without_identity(&self) -> Option<Self> {
        None
    }
}

/// How a connection is protected. Uninhabited, since no connection in this build is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsInfo {}

/// The error of a request that needs TLS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("built without the feature `tls`")
    }
}

impl std::error::Error for Problem {}
