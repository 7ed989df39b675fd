//! The root certificates that servers are verified against.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::tls::der;
use crate::tls::pem;
use crate::tls::problem::Problem;

/// Root certificates.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    /// The trust anchors of certificate chains. webpki keeps only their names and keys, not the
    /// certificates.
    pub(super) anchors: Arc<RootCertStore>,
    /// The root certificates that name a host and may therefore be a server's own. Most
    /// authorities' certificates do not.
    servers: Arc<HashSet<Vec<u8>>>,
}

impl Roots {
    /// Creates a set of anchors for which no certificates are known.
    #[cfg(feature = "webpki-roots")]
    pub(super) fn of_anchors(anchors: RootCertStore) -> Self {
        Self {
            anchors: Arc::new(anchors),
            servers: Arc::default(),
        }
    }

    /// Returns whether exactly this certificate is one of the roots, byte for byte.
    pub(super) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.servers.contains(certificate.as_ref())
    }

    /// Reads the root certificates in a PEM text supplied by the caller.
    ///
    /// # Errors
    /// Fails if there is no certificate, or if anything in `pem` cannot be read. The message says
    /// what and on which line.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let mut found = Gathered::new();
        for (i, certificate) in pem::certificates(pem).into_iter().enumerate() {
            let certificate = certificate
                .map_err(|fault| format!("root certificates: the PEM cannot be read: {fault}"))?;
            let line = certificate.line;
            found.add(certificate.what).map_err(|error| {
                let number = i + 1;
                format!("root certificate {number} cannot be read: {error} (in line {line})")
            })?;
        }
        if found.anchors.is_empty() {
            let instead = pem::describe(pem);
            return Err(format!(
                "root certificates: no certificate found in the PEM: {instead}"
            ));
        }
        Ok(found.into())
    }

    /// Loads the platform's root certificates.
    ///
    /// # Errors
    /// [`Problem::NoRoots`] if there is no usable one.
    pub(super) fn of_platform() -> Result<Self, Problem> {
        let mut found = Gathered::new();
        let mut problems = match Places::from_env() {
            Some(places) => places.read(&mut found),
            None => read_platform(&mut found),
        };
        if found.unusable > 0 {
            problems.push(format!("{} certificates cannot be read", found.unusable));
        }
        log::debug!(
            "tls: {} platform root certificates loaded, {} cannot be read",
            found.anchors.len(),
            found.unusable
        );
        if found.anchors.is_empty() {
            return Err(Problem::NoRoots(problems.join("; ")));
        }
        Ok(found.into())
    }
}

/// Root certificates being collected for a [`Roots`], without duplicates.
struct Gathered {
    anchors: RootCertStore,
    servers: HashSet<Vec<u8>>,
    seen: HashSet<Vec<u8>>,
    unusable: usize,
}

impl Gathered {
    fn new() -> Self {
        Self {
            anchors: RootCertStore::empty(),
            servers: HashSet::new(),
            seen: HashSet::new(),
            unusable: 0,
        }
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), rustls::Error> {
        if self.seen.contains(certificate.as_ref()) {
            return Ok(());
        }
        self.anchors.add(certificate.clone())?;
        let names_host = der::Certificate::read(&certificate).is_some_and(|c| c.names_host());
        if names_host {
            self.servers.insert(certificate.to_vec());
        }
        self.seen.insert(certificate.to_vec());
        Ok(())
    }

    /// Adds a certificate, and only counts it if it cannot be parsed. Platforms ship some that
    /// cannot (older than X.509 version 3), which does not affect the others.
    fn add_if_usable(&mut self, certificate: CertificateDer<'static>) {
        if self.add(certificate).is_err() {
            self.unusable += 1;
        }
    }
}

impl From<Gathered> for Roots {
    fn from(found: Gathered) -> Self {
        Self {
            anchors: Arc::new(found.anchors),
            servers: Arc::new(found.servers),
        }
    }
}

/// Reads the platform's own certificate store.
#[cfg(any(windows, target_os = "macos"))]
fn read_platform(found: &mut Gathered) -> Vec<String> {
    let native = rustls_native_certs::load_native_certs();
    native
        .certs
        .into_iter()
        .for_each(|certificate| found.add_if_usable(certificate));
    native.errors.iter().map(ToString::to_string).collect()
}

/// Reads the files that OpenSSL would use on this host.
#[cfg(not(any(windows, target_os = "macos")))]
fn read_platform(found: &mut Gathered) -> Vec<String> {
    let likely = openssl_probe::probe();
    let places = Places {
        file: likely.cert_file,
        directories: likely.cert_dir,
    };
    places.read(found)
}

/// Locations of PEM files with root certificates.
struct Places {
    file: Option<PathBuf>,
    /// All files in these directories are read; subdirectories are not.
    directories: Vec<PathBuf>,
}

impl Places {
    /// Returns the locations given by `SSL_CERT_FILE` and `SSL_CERT_DIR`, if either is set. The
    /// latter may list several directories.
    fn from_env() -> Option<Self> {
        let file = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let directories: Vec<_> = env::var_os("SSL_CERT_DIR")
            .iter()
            .flat_map(env::split_paths)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        let is_said = file.is_some() || !directories.is_empty();
        is_said.then_some(Self { file, directories })
    }

    /// Reads the certificates at these locations. Returns what went wrong and also logs it, since
    /// the log is where one looks for the reason when a certificate is missing.
    fn read(&self, found: &mut Gathered) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        if let Some(path) = &self.file {
            is_new(path, &mut seen);
            let said = problems.len();
            let count = read_file(path, found, &mut problems);
            if count == 0 && problems.len() == said {
                let instead = fs::read(path).map(|text| pem::describe(&text));
                let instead = instead.unwrap_or_default();
                problems.push(format!(
                    "{}: no certificate found: {instead}",
                    path.display()
                ));
            }
        }
        for directory in &self.directories {
            read_directory(directory, found, &mut seen, &mut problems);
        }
        for problem in &problems {
            log::warn!("tls: root certificates: {problem}");
        }
        problems
    }
}

fn read_directory(
    directory: &Path,
    found: &mut Gathered,
    seen: &mut HashSet<PathBuf>,
    problems: &mut Vec<String>,
) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return problems.push(format!("{}: {error}", directory.display())),
    };
    // Sorted, so that problems are reported in the same order each time.
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        // Links are followed: `openssl rehash` creates one for each certificate. A link may be
        // dangling.
        if path.is_file() && is_new(&path, seen) {
            let _ = read_file(&path, found, problems);
        }
    }
}

/// Returns whether the file behind `path` has not been read yet.
fn is_new(path: &Path, seen: &mut HashSet<PathBuf>) -> bool {
    match path.canonicalize() {
        Ok(file) => seen.insert(file),
        Err(_) => true,
    }
}

/// Reads a file and returns the number of certificates in it.
fn read_file(path: &Path, found: &mut Gathered, problems: &mut Vec<String>) -> usize {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(format!("{}: {error}", path.display()));
            return 0;
        }
    };
    let mut count = 0;
    for certificate in pem::certificates(&text) {
        match certificate {
            Ok(certificate) => {
                found.add_if_usable(certificate.what);
                count += 1;
            }
            Err(fault) => problems.push(format!("{}, {fault}", path.display())),
        }
    }
    count
}
