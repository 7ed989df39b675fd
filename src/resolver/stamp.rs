//! Whether a file has changed, without reading it.

use std::fs::Metadata;
use std::time::{Duration, SystemTime};

/// A file younger than this may be written once more without looking any different: there are file
/// systems that count time in steps of two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells one state of a file from another without reading it.
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

    /// Whether no further write can leave it as it is. A file system's clock may be a little ahead
    /// of ours.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let age = match self.modified.map(|modified| now.duration_since(modified)) {
            Some(Ok(age)) => age,
            Some(Err(ahead)) => ahead.duration(),
            None => Duration::ZERO,
        };
        age >= SETTLED
    }
}

/// Number of the file and of its file system, and when anything about it was changed last, in
/// seconds and nanoseconds: what a copy that keeps the time of the original does not share with it.
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
