//! Root certificates (feature `tls`).

use httpstream::Config;
use httpstream::tls::Tls;

use crate::errors::Fault;

/// The trusted root certificates.
#[derive(Clone)]
pub(crate) struct Roots(Tls);

impl Roots {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, Fault> {
        let tls = Tls::with_roots_pem(pem);
        tls.map(Self)
            .map_err(|error| Fault::argument(format!("{error:#}")))
    }

    pub(crate) fn set(&self, config: &mut Config) {
        config.route.tls = self.0.clone();
    }
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Roots")
    }
}
