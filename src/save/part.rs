//! The file that a download is written to until it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many names are tried before the directory counts as unusable. A name is taken only if a
/// process with the same id was killed during a download.
const MOST_NAMES: u32 = 1000;

/// The number of the next file of this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A temporary file beside its target. [`persist`](Self::persist) renames it to the target, and
/// dropping it before that removes it.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    is_persisted: bool,
}

impl PartFile {
    /// Creates a file of its own for `target`, in the same directory, because only there can it be
    /// renamed to the target atomically.
    ///
    /// # Errors
    /// The directory must exist and be writable, and the target must be a regular file or not exist
    /// yet. This is checked now because otherwise it would fail after the download, or replace a
    /// device such as `/dev/null` by a file.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        // The working directory may change before the file is renamed.
        let target = std::path::absolute(target)?;
        let (Some(_), Some(directory)) = (target.file_name(), target.parent()) else {
            let why = "the path to save to has no file name";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        match fs::metadata(&target) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                let why = "the path to save to is not a regular file";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            Ok(_) | Err(_) => {}
        }
        let (file, path) = create_in(directory)?;
        Ok(Self {
            file,
            path,
            target,
            is_persisted: false,
        })
    }

    /// Appends a piece.
    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)
    }

    /// Drops what has been written.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()
    }

    /// Puts the file in the place of its target.
    pub(super) fn persist(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        self.is_persisted = true;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.is_persisted
            && let Err(why) = fs::remove_file(&self.path)
        {
            log::warn!("the file of an unfinished download could not be removed: {why}");
        }
    }
}

/// Creates a file with a name that no other file in `directory` has. The name does not contain that
/// of the target, with which it could become longer than file names may be.
fn create_in(directory: &Path) -> io::Result<(File, PathBuf)> {
    for _ in 0..MOST_NAMES {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".httpstream-{}-{number}.part", process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(why),
        }
    }
    let why = "all names for a temporary file are taken";
    Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed on drop.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("httpstream-part-{}-{name}", process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_takes_the_place_of_its_target_only_when_it_is_persisted() {
        let dir = Dir::new("place");
        let target = dir.0.join("target");
        fs::write(&target, "old").unwrap();
        let mut part = PartFile::create(&target).unwrap();
        part.write(b"one ").unwrap();
        part.write(b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(dir.names().len(), 2);
        part.persist().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"one two");
        assert_eq!(dir.names(), ["target"]);
    }

    #[test]
    fn it_can_start_again_with_less() {
        let dir = Dir::new("restart");
        let target = dir.0.join("target");
        let mut part = PartFile::create(&target).unwrap();
        part.write(b"0123456789").unwrap();
        part.restart().unwrap();
        part.write(b"abc").unwrap();
        part.persist().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abc");
    }

    #[test]
    fn dropped_it_leaves_nothing() {
        let dir = Dir::new("dropped");
        let mut part = PartFile::create(&dir.0.join("target")).unwrap();
        part.write(b"0123456789").unwrap();
        drop(part);
        assert!(dir.names().is_empty());
    }

    #[test]
    fn one_that_cannot_be_renamed_leaves_nothing() {
        let dir = Dir::new("unrenamed");
        let target = dir.0.join("target");
        let part = PartFile::create(&target).unwrap();
        // Meanwhile, somebody creates a directory there.
        fs::create_dir(&target).unwrap();
        part.persist().unwrap_err();
        assert_eq!(dir.names(), ["target"]);
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let dir = Dir::new("taken");
        // Other tests take numbers at the same time, so all of the next ones are taken.
        let next = NEXT.load(Ordering::Relaxed);
        let taken = |n: u64| {
            dir.0
                .join(format!(".httpstream-{}-{n}.part", process::id()))
        };
        for n in next..next + 50 {
            fs::write(taken(n), "").unwrap();
        }
        let part = PartFile::create(&dir.0.join("target")).unwrap();
        assert!((next..next + 50).all(|n| part.path != taken(n)));
        drop(part);
        assert_eq!(dir.names().len(), 50);
    }

    #[test]
    fn targets_that_cannot_be_replaced_are_refused() {
        let dir = Dir::new("refused");
        let kind = |target: &Path| PartFile::create(target).unwrap_err().kind();
        assert_eq!(kind(&dir.0), io::ErrorKind::IsADirectory);
        assert_eq!(kind(&dir.0.join("no/such")), io::ErrorKind::NotFound);
        assert_eq!(kind(Path::new("")), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Path::new("/")), io::ErrorKind::InvalidInput);
        assert_eq!(kind(&dir.0.join("..")), io::ErrorKind::InvalidInput);
        assert!(dir.names().is_empty());
        // Stands for a device, whose replacement would harm the machine.
        #[cfg(unix)]
        {
            let socket = dir.0.join("socket");
            let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            assert_eq!(kind(&socket), io::ErrorKind::InvalidInput);
        }
    }
}
