//! Without feature `tls`: there are no root certificates to believe.

use std::convert::Infallible;

use httpstream::Config;

use crate::errors::Fault;

/// None can be had.
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
