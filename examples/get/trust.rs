//! The PEM files that https uses: the root certificates to trust, and the client certificate.

use httpstream::tls::Tls;

use crate::values::Value;

#[derive(Default)]
pub(crate) struct Trust {
    pub(crate) roots: Option<Value>,
    pub(crate) certificate: Option<Value>,
    pub(crate) key: Option<Value>,
}

impl Trust {
    pub(crate) fn into_tls(self) -> Result<Tls, String> {
        let read = |file: &Value| file.read(file.raw());
        let of = |file: &Value, error: httpstream::Error| {
            file.wrong(format_args!("{}: {error:#}", file.raw().display()))
        };
        let tls = match &self.roots {
            None => Tls::platform(),
            Some(file) => Tls::with_roots_pem(&read(file)?).map_err(|error| of(file, error))?,
        };
        let Some(file) = &self.certificate else {
            return match self.key {
                Some(key) => Err(key.wrong("requires --cert")),
                None => Ok(tls),
            };
        };
        let chain = read(file)?;
        let key = match &self.key {
            Some(key) => read(key)?,
            None => chain.clone(),
        };
        tls.client_certificate_pem(&chain, &key)
            .map_err(|error| of(file, error))
    }
}
