//! The constructors of [`Tls`] that can fail. They return an [`Error`], which is in a layer above
//! `tls` because it may hold a `tls::Problem`.

use crate::error::Error;
use crate::tls::Tls;

impl Tls {
    /// Trusts these root certificates and no others.
    ///
    /// A certificate in `pem` that is byte for byte the one a server presents is trusted for the
    /// host that it names, whether or not it is a CA certificate. A server's self-signed
    /// certificate, as `openssl req -x509` creates it, can therefore be passed directly.
    ///
    /// `pem` may contain text around its blocks, a byte order mark, any kind of line ends, and may
    /// lack the line end between two blocks. `X509 CERTIFICATE` and OpenSSL's `TRUSTED CERTIFICATE`
    /// blocks count as certificates too; other blocks, such as keys, are skipped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if `pem` contains no
    /// certificate, or one that cannot be read. The error states which one and in which line, both
    /// counted from 1.
    pub fn with_roots_pem(pem: &[u8]) -> Result<Self, Error> {
        Self::trusting_pem(pem).map_err(Error::invalid_config)
    }

    /// Presents this certificate to servers that ask for one. `chain` begins with the certificate
    /// and continues with its issuers; `key` is its private key, unencrypted (PKCS #8, PKCS #1 or
    /// SEC 1). Both are PEM.
    ///
    /// The result is a separate `Tls`: it shares neither connections nor sessions with `self`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if there is no certificate or
    /// no key, if one of them cannot be used, if the key does not belong to the certificate, or if
    /// `self` was created from a [`ClientConfig`](rustls::ClientConfig), which is used unchanged.
    pub fn client_certificate_pem(&self, chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        self.with_identity(chain, key)
            .map_err(Error::invalid_config)
    }

    /// Writes the secrets of each connection to the file named by the environment variable
    /// `SSLKEYLOGFILE`, so that a network analyzer can decrypt the traffic. Without this call the
    /// variable is ignored.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if `self` was created from a
    /// [`ClientConfig`](rustls::ClientConfig), which is used unchanged.
    pub fn key_log_from_env(&self) -> Result<Self, Error> {
        self.with_key_log().map_err(Error::invalid_config)
    }
}
