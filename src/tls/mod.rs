//! TLS: how https connections are made (feature `tls`).
//!
//! A [`Tls`] value determines which server certificates are accepted and which client certificate
//! is presented; an engine takes it from its configuration. Nothing is installed for the whole
//! process, so two engines of one program may differ. TLS 1.2 and 1.3 are supported (RFC 5246, RFC
//! 8446), `http/1.1` is offered by ALPN (RFC 7301), and sessions are resumed.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ConfigBuilder, InconsistentKeys, KeyLogFile, SignatureScheme};

/// The TLS library, whose types appear in this module's interface.
pub use rustls;

use crate::tls::info::Chains;
use crate::tls::roots::Roots;
use crate::tls::verifier::Verifier;

mod der;
mod info;
mod pem;
mod problem;
mod roots;
mod verifier;

pub(crate) use info::CertificateChain;
pub use info::TlsInfo;
pub use problem::{CertificateProblem, Problem};

/// The number of servers, by name, whose sessions are kept for resumption; the oldest goes first.
/// Each takes some kilobytes: up to eight tickets, and the certificates.
const RESUMABLE_SERVERS: usize = 256;

/// The only protocol that is offered (RFC 7301 §6).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// How https connections are made: which servers are trusted, and which certificate they are shown.
///
/// Clones share the root certificates, the sessions that can be resumed, and the place in an
/// engine's pool. Two values are equal only if one is a clone of the other, so connections made
/// under different rules are never mixed.
///
/// ```
/// use httpstream::tls::Tls;
///
/// # fn pem_files() -> (Vec<u8>, Vec<u8>, Vec<u8>) { Default::default() }
/// # fn main() {
/// let everyday = Tls::default();
/// assert_eq!(everyday, everyday.clone());
///
/// let (roots, chain, key) = pem_files();
/// let internal = Tls::with_roots_pem(&roots)
///     .and_then(|tls| tls.client_certificate_pem(&chain, &key));
///
/// let mut config = httpstream::Config::default();
/// config.route.tls = internal.unwrap_or(everyday);
/// # }
/// ```
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    source: Source,
    /// Built for the first connection, then kept.
    config: OnceLock<Arc<ClientConfig>>,
    chains: Mutex<Chains>,
    /// The same without a client certificate, once it has been needed.
    anonymous: OnceLock<Tls>,
}

/// Where the rustls configuration comes from.
#[derive(Clone)]
enum Source {
    /// Provided by the caller.
    Caller(Arc<ClientConfig>),
    Settings(Settings),
}

#[derive(Clone)]
struct Settings {
    roots: Trust,
    identity: Option<Arc<CertifiedKey>>,
    key_log: KeyLogging,
}

#[derive(Clone)]
enum Trust {
    Platform,
    Roots(Roots),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyLogging {
    Never,
    FromEnv,
}

impl Tls {
    /// Trusts the root certificates of the machine. This is the default. They are those of
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` if these are set, otherwise the platform's own: the files
    /// that OpenSSL would read, or the system's store on Windows and macOS.
    ///
    /// The files are read like the text of [`with_roots_pem`](Self::with_roots_pem), except that
    /// what cannot be read in them is skipped, with a `warn!` that names the file and the line. A
    /// server's own certificate among them is trusted, too, since anyone who can put it there could
    /// also have put the authority there that signs it.
    ///
    /// They are read at the first https connection and then kept: files of some hundred kilobytes,
    /// once, on the engine's thread. If there are none, that connection fails with
    /// [`Problem::NoRoots`], and they are looked for again at the next. All calls return clones of
    /// one value, which share roots and sessions even if their engines run on different threads.
    ///
    /// Certificates are verified by `rustls-webpki` and not by the operating system. The system's
    /// verifier may use the network to look for missing certificates and revocations, and while an
    /// engine waits for that, all of its connections wait.
    pub fn platform() -> Self {
        static PLATFORM: OnceLock<Tls> = OnceLock::new();
        PLATFORM
            .get_or_init(|| Self::from_roots(Trust::Platform))
            .clone()
    }

    /// Believes Mozilla's root certificates, as they were when the crate `webpki-roots` was
    /// published: for machines without their own.
    #[cfg(feature = "webpki-roots")]
    /// Trusts Mozilla's root certificates, as of the release of the crate `webpki-roots`. For
    /// machines without root certificates of their own.
    pub fn webpki_roots() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self::from_roots(Trust::Roots(Roots::of_anchors(roots)))
    }

    /// See [`with_roots_pem`](Self::with_roots_pem). It and its two siblings below are public in
    /// `config::tls`, where these reasons become errors, because [`Error`](crate::Error) is in a
    /// layer above this module.
    pub(crate) fn trusting_pem(pem: &[u8]) -> Result<Self, String> {
        let roots = Roots::from_pem(pem)?;
        Ok(Self::from_roots(Trust::Roots(roots)))
    }

    /// See [`client_certificate_pem`](Self::client_certificate_pem).
    pub(crate) fn with_identity(&self, chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let identity = identity(chain, key)?;
        self.change("client certificate", |settings| {
            settings.identity = Some(Arc::new(identity));
        })
    }

    /// See [`key_log_from_env`](Self::key_log_from_env).
    pub(crate) fn with_key_log(&self) -> Result<Self, String> {
        self.change("key log", |settings| settings.key_log = KeyLogging::FromEnv)
    }

    /// Returns the same settings without a client certificate, or `None` if there is none. All
    /// calls return clones of one value, whose connections can therefore be shared.
    ///
    /// It resumes no session in which the certificate was shown.
    pub(crate) fn without_identity(&self) -> Option<Self> {
        if !self.has_identity() {
            return None;
        }
        let anonymous = self.0.anonymous.get_or_init(|| {
            Self::new(match &self.0.source {
                Source::Settings(settings) => Source::Settings(Settings {
                    identity: None,
                    ..settings.clone()
                }),
                Source::Caller(config) => {
                    let mut config = ClientConfig::clone(config);
                    config.client_auth_cert_resolver = Arc::new(NoIdentity);
                    config.resumption = resumption();
                    Source::Caller(Arc::new(config))
                }
            })
        });
        Some(anonymous.clone())
    }

    fn has_identity(&self) -> bool {
        match &self.0.source {
            Source::Settings(settings) => settings.identity.is_some(),
            Source::Caller(config) => config.client_auth_cert_resolver.has_certs(),
        }
    }

    /// Returns the rustls configuration of all connections.
    ///
    /// # Errors
    /// [`Problem::NoRoots`] while the machine has no root certificate.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, Problem> {
        if let Some(config) = self.0.config.get() {
            return Ok(config.clone());
        }
        let config = match &self.0.source {
            Source::Caller(config) => config.clone(),
            Source::Settings(settings) => Arc::new(settings.build()?),
        };
        // Another thread may have been first. All must use the same configuration, because it
        // contains the sessions that can be resumed.
        Ok(self.0.config.get_or_init(|| config).clone())
    }

    /// Returns the one copy of the chain that all connections that were shown it share.
    pub(crate) fn intern(&self, chain: &[CertificateDer<'static>]) -> CertificateChain {
        let chains = self.0.chains.lock();
        chains.unwrap_or_else(PoisonError::into_inner).intern(chain)
    }

    fn new(source: Source) -> Self {
        Self(Arc::new(Shared {
            source,
            config: OnceLock::new(),
            chains: Mutex::default(),
            anonymous: OnceLock::new(),
        }))
    }

    fn from_roots(roots: Trust) -> Self {
        Self::new(Source::Settings(Settings {
            roots,
            identity: None,
            key_log: KeyLogging::Never,
        }))
    }

    fn change(&self, what: &str, change: impl FnOnce(&mut Settings)) -> Result<Self, String> {
        match &self.0.source {
            Source::Caller(_) => Err(format!(
                "a rustls::ClientConfig is used as it is: the {what} has to be part of it"
            )),
            Source::Settings(settings) => {
                let mut settings = settings.clone();
                change(&mut settings);
                Ok(Self::new(Source::Settings(settings)))
            }
        }
    }
}

impl Settings {
    fn build(&self) -> Result<ClientConfig, Problem> {
        let provider = provider();
        let roots = match &self.roots {
            Trust::Platform => Roots::of_platform()?,
            Trust::Roots(roots) => roots.clone(),
        };
        let verifier = Arc::new(Verifier::new(roots, provider.clone())?);
        let builder: ConfigBuilder<ClientConfig, _> = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            Some(identity) => {
                let resolver = SingleCertAndKey::from(identity.clone());
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config.resumption = resumption();
        if self.key_log == KeyLogging::FromEnv {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}

fn resumption() -> Resumption {
    let sessions = ClientSessionMemoryCache::new(RESUMABLE_SERVERS);
    Resumption::store(Arc::new(sessions))
}

/// Presents no client certificate.
#[derive(Debug)]
struct NoIdentity;

impl ResolvesClientCert for NoIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Returns the cryptography provider. rustls can have a default for the whole process, too; here it
/// is passed to each configuration, which then does not depend on what others have installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn identity(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let cut = |part: &str, fault: pem::Fault| format!("{part}: the PEM cannot be read: {fault}");
    let certificates: Vec<_> = pem::certificates(chain)
        .into_iter()
        .map(|found| found.map(|found| found.what))
        .collect::<Result<_, _>>()
        .map_err(|fault| cut("client certificate", fault))?;
    if certificates.is_empty() {
        let instead = pem::describe(chain);
        return Err(format!(
            "client certificate: no certificate found in the PEM: {instead}"
        ));
    }
    let keys: Vec<_> = pem::keys(key)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|fault| cut("client key", fault))?;
    if keys.is_empty() {
        let instead = pem::describe(key);
        return Err(format!(
            "client key: no private key found in the PEM: {instead}"
        ));
    }
    // A file may hold several keys. Use the first that fits the certificate.
    let mut refused = None;
    for key in keys {
        let line = key.line;
        match identity_with(&certificates, key) {
            Ok(identity) => return Ok(identity),
            Err(why) => {
                refused = refused.or(Some(format!("{why} (in line {line} of the key's PEM)")))
            }
        }
    }
    Err(refused.unwrap_or_default())
}

fn identity_with(
    chain: &[CertificateDer<'static>],
    key: pem::Found<PrivateKeyDer<'static>>,
) -> Result<CertifiedKey, String> {
    let key = provider()
        .key_provider
        .load_private_key(key.what)
        .map_err(|error| format!("client key cannot be used: {error}"))?;
    let identity = CertifiedKey::new(chain.to_vec(), key);
    match identity.keys_match() {
        // `Unknown`: the key cannot provide its public half.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("client key does not belong to the first certificate of the chain".to_owned())
        }
        Err(error) => Err(format!("client certificate cannot be read: {error}")),
    }
}

/// Returns [`Tls::platform`].
impl Default for Tls {
    fn default() -> Self {
        Self::platform()
    }
}

/// The configuration is used exactly as it is: its roots or verifier, its provider, its ALPN
/// protocols, its session store. If a server chooses a protocol other than `http/1.1` by ALPN, the
/// connection fails with [`Problem::Protocol`].
impl From<Arc<ClientConfig>> for Tls {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self::new(Source::Caller(config))
    }
}

impl From<ClientConfig> for Tls {
    fn from(config: ClientConfig) -> Self {
        Arc::new(config).into()
    }
}

/// Two values are equal if one is a clone of the other.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::hash(Arc::as_ptr(&self.0), state);
    }
}

/// Shows where the configuration comes from, but no keys and no certificates.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.source {
            Source::Caller(_) => f.write_str("Tls(rustls::ClientConfig)"),
            Source::Settings(settings) => {
                let roots: &dyn fmt::Display = match &settings.roots {
                    Trust::Platform => &"platform",
                    Trust::Roots(roots) => &roots.anchors.len(),
                };
                f.debug_struct("Tls")
                    .field("roots", &format_args!("{roots}"))
                    .field("client_certificate", &settings.identity.is_some())
                    .field("key_log", &settings.key_log)
                    .finish()
            }
        }
    }
}

#[cfg(test)]
mod tests;
