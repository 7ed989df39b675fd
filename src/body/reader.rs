//! Sources that are files and other readers.

use std::fs::File;
use std::io::{self, Read, Take};
use std::path::Path;
use std::task::Waker;

use crate::body::{BodySource, Supply};

/// A reader as a source.
pub(super) struct Reader<R> {
    reader: R,
    size: Option<u64>,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(reader: R, size: Option<u64>) -> Self {
        Self { reader, size }
    }
}

impl<R: Read + Send> BodySource for Reader<R> {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
        loop {
            match self.reader.read(room) {
                Ok(0) => return Ok(Supply::End),
                Ok(n) => return Ok(Supply::Bytes(n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A file, whose errors name its path.
pub(super) struct Opened {
    file: Reader<Take<File>>,
    path: Box<Path>,
}

/// Opens a file, of which as much is sent as it contains now.
pub(super) fn open(path: &Path) -> io::Result<Opened> {
    let (file, size) = open_regular(path).map_err(|error| at(path, &error))?;
    Ok(Opened {
        file: Reader::new(file.take(size), Some(size)),
        path: path.into(),
    })
}

fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    check_regular(path)?;
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Returns the length of a regular file. Opening a named pipe would block until it has a
/// writer.
pub(super) fn check_regular(path: &Path) -> io::Result<u64> {
    let metadata = path.metadata()?;
    match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

/// Returns the error with the path that it concerns.
pub(super) fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl BodySource for Opened {
    fn size(&self) -> Option<u64> {
        self.file.size()
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        let read = self.file.read(room, waker);
        read.map_err(|error| at(&self.path, &error))
    }
}
