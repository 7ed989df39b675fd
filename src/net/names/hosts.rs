//! The hosts file: names that this machine knows by itself (hosts(5)).
//!
//! A name that stands in it is answered from it alone, in both families: where there is only an
//! IPv4 address, nobody is asked for an IPv6 one. What cannot be read in the file is skipped, and
//! the rest holds. The file is read once at the beginning, while there are file descriptors; when a
//! name is asked for it is looked at again, at most once a second, and read if it has changed. All
//! that is done on the loop: it is a local file. A large one is read [`PIECE`] by piece, one in
//! each turn, and until it is read to its end it is what it was before.
//!
//! Addresses with a zone id are skipped, as macOS's `fe80::1%lo0 localhost`: an answer has no place
//! for it.

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

/// How much of the file is read, in whole pieces. The largest block lists that people keep in it
/// have half of that.
const MAX_BYTES: u64 = 16 << 20;

/// How much of it is read in one turn: in a fraction of a millisecond, or a few of them without
/// optimisation.
const PIECE: usize = 64 << 10;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The hosts file as it was when last looked at.
#[derive(Debug)]
pub(super) struct HostsFile {
    path: Option<PathBuf>,
    looked_at: Option<Instant>,
    seen: Seen,
    entries: Entries,
    reading: Option<Box<Reading>>,
}

/// What was found when the file was last looked at.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing that could be relied on: it is to be read.
    Nothing,
    Missing,
    /// It could not be read. What was read before holds.
    Refused(io::ErrorKind),
    File(Stamp),
}

/// A file that is being read.
#[derive(Debug)]
struct Reading {
    file: File,
    /// What has been seen once it is read.
    seen: Seen,
    parser: Parser,
    /// Room for one.
    piece: Box<[u8]>,
    /// Bytes that have been read.
    done: u64,
}

impl HostsFile {
    /// Reads the file for the first time, to its end. `None`: there is no such file.
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

    /// The addresses of `name`, which is in lower case and has no trailing dot. `None`: it does not
    /// stand in the file.
    pub(super) fn find(&mut self, name: &str, now: Instant) -> Option<&Both<Rc<[IpAddr]>>> {
        let is_due = match self.looked_at {
            Some(last) => now.saturating_duration_since(last) >= LOOK_EVERY,
            None => true,
        };
        if is_due && self.reading.is_none() {
            self.looked_at = Some(now);
            self.look();
            // Most files have no more than this.
            self.read_on();
        }
        self.entries.find(name)
    }

    /// Has it read again when the next name is asked for, whatever it looks like.
    pub(super) fn forget(&mut self) {
        self.looked_at = None;
        self.seen = Seen::Nothing;
        // It may be the file of before that is being read.
        self.reading = None;
    }

    /// A time in the past while there is more to be read.
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

    /// Reads the next piece, if one is being read.
    pub(super) fn read_on(&mut self) {
        let (Some(reading), Some(path)) = (&mut self.reading, &self.path) else {
            return;
        };
        let is_cut = match reading.read_piece() {
            Ok(ReadOn::More) => return,
            Ok(ReadOn::End) => false,
            Ok(ReadOn::Cut) => {
                let path = path.display();
                warn!("{path}: what is behind its first {MAX_BYTES} bytes is not read");
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
            warn!("{path}: {error}; what was read of it before holds");
        }
        self.seen = seen;
    }
}

/// What has become of the file since it was last seen.
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
    // To open a pipe would be to wait until somebody writes into it.
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    // Before it is read: what is written from now on gives it another stamp.
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

    /// The IPv4 addresses of `h` at a time.
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
        assert_eq!(found(&mut hosts, now), None, "there is none yet");
        fs::write(&path, "10.0.0.1 h").unwrap();
        assert_eq!(
            found(&mut hosts, now + second / 2),
            None,
            "it is not looked at all the time"
        );
        assert_eq!(
            found(&mut hosts, now + second).as_deref(),
            Some("[10.0.0.1]")
        );
        assert_eq!(hosts.seen, Seen::Nothing, "so young, it may change unseen");
        // As long as before, and maybe within the same step of the file system's clock.
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
            "the same as before"
        );
        // A copy that keeps the time of the original, and is as long.
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
        // The cut would make another name of it.
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
        assert_eq!(hosts.entries.len(), 50_001, "at first, all of it at once");
        // Another file, so that it is not read anew for being young.
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
