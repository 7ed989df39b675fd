//! The addresses of this process's server, how a bot reaches them, and the certificate file that
//! bots in other processes need.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use httpstream::tls::Tls;

use crate::options::{Elsewhere, Options};
use crate::server::Step;
use crate::server::http::tls::Identity;
use crate::server::http::{self, Doors};
use crate::world::Reach;

/// The listeners of a server that is about to start.
pub(crate) struct Opened {
    pub(crate) doors: Doors,
    pub(crate) reach: Reach,
    /// The root certificate that a bot must trust.
    root_pem: Option<String>,
}

/// Opens the listeners. With `--tls`, the server impersonates all hosts that have https, with
/// certificates of its own root.
pub(crate) fn open(options: &Options) -> Result<Opened, Box<dyn Error>> {
    let listener = http::listen(options.listen)?;
    let http = listener.local_addr()?;
    let doors = Doors::from(listener);
    let Some(addr) = options.listen_tls else {
        let reach = Reach { http, https: None };
        return Ok(Opened {
            doors,
            reach,
            root_pem: None,
        });
    };
    let identity = Identity::new(Step::https_hosts())?;
    let root_pem = identity.root_pem().to_owned();
    let listener = http::listen(addr)?;
    let https = listener.local_addr()?;
    let tls = Tls::with_roots_pem(root_pem.as_bytes())?;
    Ok(Opened {
        doors: doors.with_https(listener, identity),
        reach: Reach {
            http,
            https: Some((https, tls)),
        },
        root_pem: Some(root_pem),
    })
}

impl Opened {
    /// Returns the addresses as text, for people who connect other programs, and the root's file,
    /// which exists while the server runs.
    pub(crate) fn announce(&self) -> io::Result<(String, Option<RootFile>)> {
        let Reach { http, https } = &self.reach;
        let (Some((https, _)), Some(root_pem)) = (https, &self.root_pem) else {
            return Ok((http.to_string(), None));
        };
        let file = RootFile::save(root_pem, https.port())?;
        let text = format!(
            "{http}, for https at {https}; its root certificate is in {}",
            file.0.display()
        );
        Ok((text, Some(file)))
    }
}

/// A file with a root certificate. It is removed on drop, when the server and its key are gone.
pub(crate) struct RootFile(PathBuf);

impl RootFile {
    fn save(pem: &str, port: u16) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("webqq-root-{port}.pem"));
        let named = |error: io::Error| named(&path, error);
        // A server that was killed leaves its file behind.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            Ok(()) | Err(_) => {}
        }
        // `create_new` does not follow a link that another user has put there.
        let mut file = fs::File::create_new(&path).map_err(named)?;
        file.write_all(pem.as_bytes()).map_err(named)?;
        Ok(Self(path))
    }
}

impl Drop for RootFile {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns how to reach a server that was started in another process.
///
/// # Errors
/// If the root certificate's file cannot be read or is invalid.
pub(crate) fn reach(elsewhere: &Elsewhere) -> Result<Reach, Box<dyn Error>> {
    let https = match &elsewhere.tls {
        Some((https, cacert)) => {
            let pem = fs::read(cacert).map_err(|error| named(cacert, error))?;
            let tls = Tls::with_roots_pem(&pem)
                .map_err(|error| format!("{}: {error:#}", cacert.display()))?;
            Some((*https, tls))
        }
        None => None,
    };
    Ok(Reach {
        http: elsewhere.http,
        https,
    })
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
