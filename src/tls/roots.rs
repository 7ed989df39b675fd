//! The certificates that servers are believed by.

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
    /// What a chain may lead to. webpki keeps names and keys of them, not the certificates.
    pub(super) anchors: Arc<RootCertStore>,
    /// The certificates among them that name a host, and so may be a server's own; most
    /// authorities' do not.
    servers: Arc<HashSet<Vec<u8>>>,
}

impl Roots {
    /// Of anchors without certificates.
    #[cfg(feature = "webpki-roots")]
    pub(super) fn of_anchors(anchors: RootCertStore) -> Self {
        Self {
            anchors: Arc::new(anchors),
            servers: Arc::default(),
        }
    }

    /// Whether this very certificate is one of them, byte for byte.
    pub(super) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.servers.contains(certificate.as_ref())
    }

    /// Those in a text that somebody gave for this.
    ///
    /// # Errors
    /// There is none, or something in `pem` cannot be read: which, and in which line.
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

    /// Those of this machine.
    ///
    /// # Errors
    /// [`Problem::NoRoots`]: there is none that can be used.
    pub(super) fn of_platform() -> Result<Self, Problem> {
        let mut found = Gathered::new();
        let mut problems = match Places::from_env() {
            Some(places) => places.read(&mut found),
            None => read_platform(&mut found),
        };
        if found.unusable > 0 {
            problems.push(format!("{} that cannot be read", found.unusable));
        }
        log::debug!(
            "tls: {} root certificates of this machine, {} that cannot be read",
            found.anchors.len(),
            found.unusable
        );
        if found.anchors.is_empty() {
            return Err(Problem::NoRoots(problems.join("; ")));
        }
        Ok(found.into())
    }
}

/// Root certificates on their way into a [`Roots`], each once.
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

    /// Platforms carry certificates that cannot be read (of before X.509 version 3): the others are
    /// as good without them.
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

/// Where this machine keeps its root certificates, other than in files.
#[cfg(any(windows, target_os = "macos"))]
fn read_platform(found: &mut Gathered) -> Vec<String> {
    let native = rustls_native_certs::load_native_certs();
    native
        .certs
        .into_iter()
        .for_each(|certificate| found.add_if_usable(certificate));
    native.errors.iter().map(ToString::to_string).collect()
}

/// Where OpenSSL would look on this machine.
#[cfg(not(any(windows, target_os = "macos")))]
fn read_platform(found: &mut Gathered) -> Vec<String> {
    let likely = openssl_probe::probe();
    let places = Places {
        file: likely.cert_file,
        directories: likely.cert_dir,
    };
    places.read(found)
}

/// PEM files with root certificates.
struct Places {
    file: Option<PathBuf>,
    /// All files in them are read; directories in them are not.
    directories: Vec<PathBuf>,
}

impl Places {
    /// What `SSL_CERT_FILE` and `SSL_CERT_DIR` say, if they say something; the latter may name
    /// several.
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

    /// Answers what went wrong, which is also logged: a certificate that is missing is looked for
    /// there.
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
    // In their order, so that what is told of them is the same each time.
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        // Through links, which `openssl rehash` makes of each; one may lead nowhere.
        if path.is_file() && is_new(&path, seen) {
            let _ = read_file(&path, found, problems);
        }
    }
}

/// Whether the file behind `path` has not been read yet.
fn is_new(path: &Path, seen: &mut HashSet<PathBuf>) -> bool {
    match path.canonicalize() {
        Ok(file) => seen.insert(file),
        Err(_) => true,
    }
}

/// Answers how many certificates there were.
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
