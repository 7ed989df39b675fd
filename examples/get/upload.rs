//! The files of -T, which are read while they are sent.
//!
//! A regular file is read by the loop: it is on a disk, which answers soon. Stdin and other pipes
//! may be silent for long, so a thread reads them and hands over what comes; the loop goes on with
//! other transfers meanwhile.

use std::fs::{self, File};
use std::io::{self, Read, Take};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::task::Waker;
use std::thread;

use httpstream::body::{BodyReceiver, BodySender, channel};
use httpstream::{BodySource, Error, Request, RequestBuilder, Supply};

use crate::body::percent_encode;
use crate::values::Value;

/// How much of a pipe is read ahead of what is sent.
const AHEAD: usize = 64 * 1024;

/// What is sent for one URL.
pub(crate) enum Upload {
    /// A regular file, of this length when the command line was read.
    File(PathBuf, u64),
    /// A pipe or a device. It can be read once.
    Pipe(PathBuf),
    Stdin,
}

impl Upload {
    /// # Errors
    /// There is no such file.
    pub(crate) fn new(value: &Value) -> Result<Self, String> {
        if value.raw() == "-" {
            return Ok(Self::Stdin);
        }
        let path = value.path();
        let wrong =
            |why: &dyn std::fmt::Display| format!("{} {}: {why}", value.name(), path.display());
        let found = fs::metadata(&path).map_err(|error| wrong(&error))?;
        if found.is_dir() {
            return Err(wrong(&"it is a directory"));
        }
        Ok(match found.is_file() {
            true => Self::File(path, found.len()),
            false => Self::Pipe(path),
        })
    }

    pub(crate) fn is_stdin(&self) -> bool {
        matches!(self, Self::Stdin)
    }

    /// Returns the length, if it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::File(_, length) => Some(*length),
            Self::Pipe(_) | Self::Stdin => None,
        }
    }

    pub(crate) fn send_by(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::File(path, _) => request.body_file(path),
            Self::Pipe(path) => request.body_from(Pipe::new(Some(path))),
            Self::Stdin => request.body_from(Pipe::new(None)),
        }
    }

    /// Appends the name of the file to a URL that ends with a slash.
    pub(crate) fn name(&self, request: &Request) -> Result<Request, Error> {
        let name = match self {
            Self::File(path, _) | Self::Pipe(path) => path.file_name(),
            Self::Stdin => None,
        };
        let url = request.uri();
        let (Some(name), true) = (name, url.path().ends_with('/')) else {
            return Ok(request.clone());
        };
        let mut reference = percent_encode(name.as_encoded_bytes());
        if let Some(query) = url.query() {
            reference = format!("{reference}?{query}");
        }
        request.resolve(reference).build()
    }
}

/// A regular file as a part of a form, which is sent under another name or type than its own.
pub(crate) struct Opened {
    file: Take<File>,
    length: u64,
}

impl Opened {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file: file.take(length),
            length,
        })
    }
}

impl BodySource for Opened {
    fn size(&self) -> Option<u64> {
        Some(self.length)
    }

    fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
        Ok(match self.file.read(room)? {
            0 => Supply::End,
            n => Supply::Bytes(n),
        })
    }
}

/// A body that a thread reads from a pipe. The thread begins with the first read, so nothing is
/// taken from the pipe before the body is wanted.
struct Pipe {
    /// `None` is stdin.
    path: Option<PathBuf>,
    reading: Option<Reading>,
}

struct Reading {
    receiver: BodyReceiver,
    /// Why the thread could not go on.
    failure: Receiver<io::Error>,
}

impl Pipe {
    fn new(path: Option<&Path>) -> Self {
        Self {
            path: path.map(Path::to_owned),
            reading: None,
        }
    }

    fn begin(&mut self) -> io::Result<&mut Reading> {
        match &mut self.reading {
            Some(reading) => Ok(reading),
            unread => {
                let (mut body, receiver) = channel(AHEAD);
                let (told, failure) = mpsc::channel();
                let path = self.path.take();
                thread::Builder::new().spawn(move || match copy(path.as_deref(), &mut body) {
                    // If the request has ended, its body is not needed.
                    Ok(_) => drop(body.finish()),
                    // Told before the body breaks off, which dropping it does.
                    Err(error) => drop((told.send(error), body)),
                })?;
                Ok(unread.insert(Reading { receiver, failure }))
            }
        }
    }
}

impl BodySource for Pipe {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        let reading = self.begin()?;
        let read = reading.receiver.read(room, waker);
        read.map_err(|error| reading.failure.try_recv().unwrap_or(error))
    }
}

/// Copies a pipe, as it comes, into a body. Opening a named pipe may block as well.
fn copy(path: Option<&Path>, body: &mut BodySender) -> io::Result<u64> {
    let Some(path) = path else {
        return io::copy(&mut io::stdin().lock(), body);
    };
    let copied = File::open(path).and_then(|mut file| io::copy(&mut file, body));
    copied.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
