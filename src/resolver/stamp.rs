//! Detects whether a file has changed, without reading it.

use std::fs::Metadata;
use std::time::{Duration, SystemTime};

/// A file modified more recently than this may be written again without its metadata changing,
/// because some file systems count time in steps of two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// Metadata that tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    pub(crate) len: u64,
    identity: Identity,
}

impl Stamp {
    pub(crate) fn new(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            len: metadata.len(),
            identity: identity(metadata),
        }
    }

    /// Returns whether every further write would change the stamp. The file system's clock may be
    /// slightly ahead of ours.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let age = match self.modified.map(|modified| now.duration_since(modified)) {
            Some(Ok(age)) => age,
            Some(Err(ahead)) => ahead.duration(),
            None => Duration::ZERO,
        };
        age >= SETTLED
    }
}

/// Inode number, device number, and time of the last status change in seconds and nanoseconds. A
/// copy that preserves the modification time of the original differs in these.
#[cfg(unix)]
type Identity = (u64, u64, i64, i64);

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (
        metadata.ino(),
        metadata.dev(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

#[cfg(not(unix))]
type Identity = ();

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {}
