//! The constructors of [`Tls`] that can fail. They return an [`Error`], which stands above `tls`
//! because it may hold a `tls::Problem`.

use crate::error::Error;
use crate::tls::Tls;

impl Tls {
    /// Believes these root certificates and no others.
    ///
    /// A certificate that names its host and is itself among them is believed of that host, byte
    /// for byte the same, whether or not it is an authority's: so the self-signed certificate that
    /// `openssl req -x509` makes can be given for its server.
    ///
    /// `pem` may have text around its blocks, a byte order mark, any line ends, and line ends that
    /// are missing between two blocks. `X509 CERTIFICATE` and OpenSSL's `TRUSTED CERTIFICATE` are
    /// certificates too; blocks of other kinds, such as keys, are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig): there is none in `pem`, or
    /// one cannot be read: which, and in which line, both counted from 1.
    pub fn with_roots_pem(pem: &[u8]) -> Result<Self, Error> {
        Self::believing(pem).map_err(Error::invalid_config)
    }

    /// Shows this certificate to servers that ask for one: `chain` begins with it and goes on with
    /// its issuers; `key` is its private key, not encrypted (PKCS #8, PKCS #1 or SEC 1). Both are
    /// PEM.
    ///
    /// The result is a `Tls` of its own: its connections and sessions are not those of `self`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig): there is no certificate or no
    /// key, one of them cannot be used, the key is not that of the certificate, or `self` was made
    /// from a [`ClientConfig`](rustls::ClientConfig), which is used as it is.
    pub fn client_certificate_pem(&self, chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        self.showing(chain, key).map_err(Error::invalid_config)
    }

    /// Writes the secrets of each connection to the file that the environment variable
    /// `SSLKEYLOGFILE` names, for a network analyser to decrypt with. Without this call the
    /// variable is ignored.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig): `self` was made from a
    /// [`ClientConfig`](rustls::ClientConfig), which is used as it is.
    pub fn key_log_from_env(&self) -> Result<Self, Error> {
        self.logging_keys().map_err(Error::invalid_config)
    }
}
