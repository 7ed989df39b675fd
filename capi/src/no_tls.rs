//! Stands in for `tls.rs` without feature `tls`: no root certificates can be set.

use std::convert::Infallible;

use httpstream::Config;

use crate::errors::Fault;

/// Root certificates, of which no value can exist.
#[derive(Clone, Debug)]
pub(crate) struct Roots(Infallible);

impl Roots {
    pub(crate) fn from_pem(_: &[u8]) -> Result<Self, Fault> {
        Err(Fault::argument("this library was built without TLS"))
    }

    pub(crate) fn set(&self, _: &mut Config) {
        match self.0 {}
    }
}
