//! The hosts file: names and addresses configured on this host (hosts(5)).
//!
//! A name in the file is answered from it alone, for both families: if it has only an IPv4 address
//! there, no IPv6 address is looked up. Parts of the file that cannot be parsed are skipped, and
//! the rest applies.
//!
//! The file is first read when the engine is created, while file descriptors are available. When a
//! name is asked for, at most once a second, the file is checked and read again if it has changed.
//! All of this runs on the loop, since it is a local file. A large file is read [`PIECE`] by piece,
//! one in each turn, and its old contents apply until it has been read to the end.
//!
//! Addresses with a zone id are skipped, such as macOS's `fe80::1%lo0 localhost`, because an answer
//! cannot hold a zone.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, warn};

use super::Both;
use super::entries::{Entries, Parser};
use crate::resolver::Stamp;

/// How much of the file is read, in whole pieces. The largest block lists in use are half of that.
const MAX_BYTES: u64 = 16 << 20;

/// How much of the file is read in one turn. This takes a fraction of a millisecond, or a few
/// milliseconds in an unoptimized build.
const PIECE: usize = 64 << 10;

/// How often the file is checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The hosts file as of the last check.
#[derive(Debug)]
pub(super) struct HostsFile {
    path: Option<PathBuf>,
    looked_at: Option<Instant>,
    seen: Seen,
    entries: Entries,
    reading: Option<Box<Reading>>,
}

/// The result of the last check.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing reliable: the file has to be read.
    Nothing,
    Missing,
    /// The file could not be read. Its previous contents apply.
    Refused(io::ErrorKind),
    File(Stamp),
}

/// A file that is being read.
#[derive(Debug)]
struct Reading {
    file: File,
    /// The value of `HostsFile::seen` once the file has been read.
    seen: Seen,
    parser: Parser,
    /// Buffer for one piece.
    piece: Box<[u8]>,
    /// Bytes read so far.
    done: u64,
}

impl HostsFile {
    /// Reads the whole file for the first time. `None` means that there is no file.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        let mut file = Self {
            path,
            looked_at: None,
            seen: Seen::Nothing,
            entries: Entries::new(),
            reading: None,
        };
        file.look();
        while file.reading.is_some() {
            file.read_on();
        }
        file
    }

    /// Returns the addresses of `name`, which must be in lower case and without trailing dot.
    /// `None` means that the file does not contain it.
    pub(super) fn find(&mut self, name: &str, now: Instant) -> Option<&Both<Rc<[IpAddr]>>> {
        let is_due = match self.looked_at {
            Some(last) => now.saturating_duration_since(last) >= LOOK_EVERY,
            None => true,
        };
        if is_due && self.reading.is_none() {
            self.looked_at = Some(now);
            self.look();
            // Most files are no larger than one piece.
            self.read_on();
        }
        self.entries.find(name)
    }

    /// Makes the next lookup read the file again, even if it appears unchanged.
    pub(super) fn forget(&mut self) {
        self.looked_at = None;
        self.seen = Seen::Nothing;
        // A read in progress may be of the old file.
        self.reading = None;
    }

    /// Returns a time in the past while there is more to read.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.reading.as_ref().and(self.looked_at)
    }

    fn look(&mut self) {
        let Some(path) = &self.path else {
            return;
        };
        match open(path, &self.seen) {
            Ok(Opened::Same) => {}
            Ok(Opened::Missing) => (self.seen, self.entries) = (Seen::Missing, Entries::new()),
            Ok(Opened::Changed(reading)) => self.reading = Some(reading),
            Err(error) => self.refuse(&error),
        }
    }

    /// Reads the next piece, if the file is being read.
    pub(super) fn read_on(&mut self) {
        let (Some(reading), Some(path)) = (&mut self.reading, &self.path) else {
            return;
        };
        let is_cut = match reading.read_piece() {
            Ok(ReadOn::More) => return,
            Ok(ReadOn::End) => false,
            Ok(ReadOn::Cut) => {
                let path = path.display();
                warn!("{path}: ignoring everything after the first {MAX_BYTES} bytes");
                true
            }
            Err(error) => {
                self.reading = None;
                return self.refuse(&error);
            }
        };
        if let Some(reading) = self.reading.take() {
            let Reading { seen, parser, .. } = *reading;
            (self.seen, self.entries) = (seen, parser.finish(is_cut));
            debug!("{}: {} names", path.display(), self.entries.len());
        }
    }

    fn refuse(&mut self, error: &io::Error) {
        let seen = Seen::Refused(error.kind());
        if let (Some(path), true) = (&self.path, self.seen != seen) {
            let path = path.display();
            warn!("{path}: {error}; keeping its previous contents");
        }
        self.seen = seen;
    }
}

/// How the file has changed since the last check.
enum Opened {
    Same,
    Missing,
    Changed(Box<Reading>),
}

fn open(path: &Path, seen: &Seen) -> io::Result<Opened> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(match seen {
                Seen::Missing => Opened::Same,
                _ => Opened::Missing,
            });
        }
        Err(error) => return Err(error),
    };
    // Opening a pipe would block until a writer opens it.
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    // Taken before reading, so a write from now on changes the stamp.
    let stamp = Stamp::new(&metadata);
    let is_settled = stamp.is_settled(SystemTime::now());
    let len = usize::try_from(stamp.len.min(MAX_BYTES)).unwrap_or_default();
    let now_seen = Seen::File(stamp);
    if now_seen == *seen {
        return Ok(Opened::Same);
    }
    let reading = Reading {
        file: File::open(path)?,
        seen: if is_settled { now_seen } else { Seen::Nothing },
        parser: Parser::new(len),
        piece: vec![0; PIECE].into(),
        done: 0,
    };
    Ok(Opened::Changed(Box::new(reading)))
}

/// How far a file has been read.
enum ReadOn {
    More,
    End,
    /// As far as files are read.
    Cut,
}

impl Reading {
    fn read_piece(&mut self) -> io::Result<ReadOn> {
        let mut len = 0;
        while len < PIECE {
            match self.file.read(&mut self.piece[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.done >= MAX_BYTES && len > 0 {
            return Ok(ReadOn::Cut);
        }
        self.parser.feed(&self.piece[..len]);
        self.done += len as u64;
        Ok(if len == PIECE {
            ReadOn::More
        } else {
            ReadOn::End
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::net::names::tests::Scratch;

    /// Returns the IPv4 addresses of `h` at time `now`.
    fn found(hosts: &mut HostsFile, now: Instant) -> Option<String> {
        hosts.find("h", now).map(|addrs| format!("{:?}", addrs.v4))
    }

    #[test]
    fn a_file_that_changes_is_read_anew_within_a_second() {
        let scratch = Scratch::new();
        let path = scratch.path("hosts");
        let mut hosts = HostsFile::new(Some(path.clone()));
        let now = Instant::now();
        let second = LOOK_EVERY;
        assert_eq!(found(&mut hosts, now), None, "there is no file yet");
        fs::write(&path, "10.0.0.1 h").unwrap();
        assert_eq!(
            found(&mut hosts, now + second / 2),
            None,
            "the file is checked once a second only"
        );
        assert_eq!(
            found(&mut hosts, now + second).as_deref(),
            Some("[10.0.0.1]")
        );
        assert_eq!(
            hosts.seen,
            Seen::Nothing,
            "a file this recent may change without a new stamp"
        );
        // As long as before, and perhaps within the same tick of the file system's clock.
        fs::write(&path, "10.0.0.2 h").unwrap();
        assert_eq!(
            found(&mut hosts, now + 2 * second).as_deref(),
            Some("[10.0.0.2]")
        );
        let other = scratch.path("other");
        fs::write(&other, "10.0.0.3 h").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(
            found(&mut hosts, now + 3 * second).as_deref(),
            Some("[10.0.0.3]")
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(
            found(&mut hosts, now + 4 * second),
            None,
            "a missing file is an empty one"
        );
    }

    #[test]
    fn a_file_that_stays_the_same_is_not_read_again() {
        let scratch = Scratch::new();
        let path = scratch.path("hosts");
        fs::write(&path, "10.0.0.1 h").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let date = |modified| {
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(modified)
        };
        date(long_ago).unwrap();
        let mut hosts = HostsFile::new(Some(path.clone()));
        let now = Instant::now();
        assert!(found(&mut hosts, now).is_some());
        let kept = Rc::clone(&hosts.entries.find("h").unwrap().v4);
        assert!(found(&mut hosts, now + LOOK_EVERY).is_some());
        assert!(
            Rc::ptr_eq(&hosts.entries.find("h").unwrap().v4, &kept),
            "the entries are the same as before"
        );
        // A copy with the original's modification time and length.
        fs::write(&path, "10.0.0.2 h").unwrap();
        date(long_ago).unwrap();
        let changed = found(&mut hosts, now + 2 * LOOK_EVERY);
        if cfg!(unix) {
            assert_eq!(changed.as_deref(), Some("[10.0.0.2]"));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_what_was_read_before() {
        let scratch = Scratch::new();
        let path = scratch.path("hosts");
        fs::write(&path, "10.0.0.1 h").unwrap();
        let mut hosts = HostsFile::new(Some(path.clone()));
        let now = Instant::now();
        assert!(found(&mut hosts, now).is_some());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(
            found(&mut hosts, now + LOOK_EVERY).as_deref(),
            Some("[10.0.0.1]")
        );
        assert!(matches!(hosts.seen, Seen::Refused(_)), "{:?}", hosts.seen);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "10.0.0.2 h").unwrap();
        assert_eq!(
            found(&mut hosts, now + 2 * LOOK_EVERY).as_deref(),
            Some("[10.0.0.2]")
        );
    }

    #[test]
    fn a_file_that_is_too_long_is_cut_behind_a_whole_line() {
        let scratch = Scratch::new();
        let path = scratch.path("hosts");
        let mut file = b"10.0.0.1 h\n".to_vec();
        let max = MAX_BYTES as usize;
        file.resize(max - 7, b'#');
        file.push(b'\n');
        // A plain cut would turn the name into another one.
        file.extend_from_slice(b"10.0.0.2 cut.test\n10.0.0.3 behind\n");
        fs::write(&path, file).unwrap();
        let mut hosts = HostsFile::new(Some(path));
        let now = Instant::now();
        assert_eq!(found(&mut hosts, now).as_deref(), Some("[10.0.0.1]"));
        assert_eq!(hosts.entries.len(), 1);
    }

    #[test]
    fn a_large_file_is_read_in_pieces_and_is_what_it_was_until_then() {
        let scratch = Scratch::new();
        let path = scratch.path("hosts");
        let names: String = (0..50_000)
            .map(|n| format!("0.0.0.0 ad-{n}.test\n"))
            .collect();
        fs::write(&path, format!("10.0.0.1 h\n{names}")).unwrap();
        let mut hosts = HostsFile::new(Some(path.clone()));
        let now = Instant::now();
        assert_eq!(
            hosts.entries.len(),
            50_001,
            "the first read takes the whole file"
        );
        // Another file, with an old date, so it is not read again for being recent.
        let other = scratch.path("other");
        fs::write(&other, format!("{names}10.0.0.2 h\n")).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let file = File::options().write(true).open(&other).unwrap();
        file.set_modified(long_ago).unwrap();
        fs::rename(&other, &path).unwrap();
        let mut turns = 0;
        let end = loop {
            let now = now + LOOK_EVERY + turns * Duration::from_millis(1);
            if found(&mut hosts, now).as_deref() != Some("[10.0.0.1]") {
                break now;
            }
            assert!(hosts.deadline().unwrap() <= now, "a turn is due");
            hosts.read_on();
            turns += 1;
        };
        assert_eq!(found(&mut hosts, end).as_deref(), Some("[10.0.0.2]"));
        assert_eq!(hosts.deadline(), None);
        assert!(turns > 10, "{turns}");
    }

    #[test]
    fn a_file_that_is_forgotten_is_read_again() {
        let scratch = Scratch::new();
        let path = scratch.path("hosts");
        fs::write(&path, "10.0.0.1 h").unwrap();
        let mut hosts = HostsFile::new(Some(path.clone()));
        let now = Instant::now();
        assert_eq!(found(&mut hosts, now).as_deref(), Some("[10.0.0.1]"));
        fs::write(&path, "10.0.0.2 h").unwrap();
        assert_eq!(found(&mut hosts, now).as_deref(), Some("[10.0.0.1]"));
        hosts.forget();
        assert_eq!(found(&mut hosts, now).as_deref(), Some("[10.0.0.2]"));
    }

    #[test]
    fn without_a_file_no_name_is_known() {
        assert_eq!(found(&mut HostsFile::new(None), Instant::now()), None);
    }
}
