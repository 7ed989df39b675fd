//! The hosts file: names that this machine knows by itself (hosts(5)).
//!
//! A name that stands in it is answered from it alone, in both families: where there is only an IPv4 address, nobody is asked for
//! an IPv6 one. What cannot be read in the file is skipped, and the rest holds. The file is read once at the beginning, while there are
//! file descriptors; when a name is asked for it is looked at again, at most once a second, and read if it has changed. All that is
//! done on the loop: it is a small local file.
//!
//! Addresses with a zone id are skipped, as macOS's `fe80::1%lo0 localhost`: an answer has no place for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, warn};

use super::Both;
use crate::resolver::Family;

/// How much of the file is read. The large block lists that people keep in it have half of that.
const MAX_BYTES: usize = 4 << 20;

/// How many addresses one name can have; more are skipped.
const MAX_ADDRS: usize = 64;

/// The longest name, as in a URL.
const MAX_NAME: usize = 253;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file younger than this may be written once more without looking any different: there are file systems that count time in
/// steps of two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// The hosts file as it was when last looked at.
#[derive(Debug)]
pub(super) struct HostsFile {
    path: Option<PathBuf>,
    looked_at: Option<Instant>,
    seen: Seen,
    entries: Entries,
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

/// What tells one state of a file from another without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    identity: Identity,
}

impl HostsFile {
    /// Reads the file for the first time. `None`: there is no such file.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        let mut file = Self {
            path,
            looked_at: None,
            seen: Seen::Nothing,
            entries: Entries::default(),
        };
        file.refresh();
        file
    }

    /// The addresses of `name`, which is in lower case and has no trailing dot. `None`: it does not stand in the file.
    pub(super) fn find(&mut self, name: &str, now: Instant) -> Option<&Both<Rc<[IpAddr]>>> {
        let is_due = match self.looked_at {
            Some(last) => now.saturating_duration_since(last) >= LOOK_EVERY,
            None => true,
        };
        if is_due {
            self.looked_at = Some(now);
            self.refresh();
        }
        self.entries.find(name)
    }

    fn refresh(&mut self) {
        let Some(path) = &self.path else {
            return;
        };
        match self.look(path) {
            Ok(None) => {}
            Ok(Some((seen, entries))) => {
                debug!("{}: {} names", path.display(), entries.names.len());
                (self.seen, self.entries) = (seen, entries);
            }
            Err(error) => {
                let seen = Seen::Refused(error.kind());
                if self.seen != seen {
                    let path = path.display();
                    warn!("{path}: {error}; what was read of it before holds");
                }
                self.seen = seen;
            }
        }
    }

    /// What the file says. `None`: the same as before.
    fn look(&self, path: &Path) -> io::Result<Option<(Seen, Entries)>> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_new = self.seen != Seen::Missing;
                return Ok(is_new.then(|| (Seen::Missing, Entries::default())));
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
        let seen = Seen::File(stamp);
        if seen == self.seen {
            return Ok(None);
        }
        let entries = Entries::parse(&read(path)?);
        let seen = if is_settled { seen } else { Seen::Nothing };
        Ok(Some((seen, entries)))
    }
}

/// Reads whole lines, [`MAX_BYTES`] at most.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(MAX_BYTES);
    let mut bytes = Vec::with_capacity(len.min(MAX_BYTES) + 1);
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        warn!(
            "{}: what is behind its first {MAX_BYTES} bytes is not read",
            path.display()
        );
        let whole = bytes[..MAX_BYTES].iter().rposition(|&b| b == b'\n');
        bytes.truncate(whole.unwrap_or_default());
    }
    Ok(bytes)
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            len: metadata.len(),
            identity: identity(metadata),
        }
    }

    /// Whether no further write can leave it as it is. A file system's clock may be a little ahead of ours.
    fn is_settled(&self, now: SystemTime) -> bool {
        let age = match self.modified.map(|modified| now.duration_since(modified)) {
            Some(Ok(age)) => age,
            Some(Err(ahead)) => ahead.duration(),
            None => Duration::ZERO,
        };
        age >= SETTLED
    }
}

/// Number of the file and of its file system, and when anything about it was changed last, in seconds and nanoseconds: what a copy
/// that keeps the time of the original does not share with it.
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

/// What a hosts file says, name by name. A hundred thousand names that are blocked by one address share it.
#[derive(Debug, Default)]
struct Entries {
    /// Where in `sets` a name's addresses are.
    names: HashMap<Box<str>, usize>,
    sets: Vec<Both<Rc<[IpAddr]>>>,
}

impl Entries {
    /// Takes any bytes. A line is an address and its names, parted by blanks; several lines for one name add up.
    fn parse(bytes: &[u8]) -> Self {
        let mut names: HashMap<Box<str>, usize> = HashMap::new();
        let mut sets = Sets::default();
        for line in bytes.split(|&b| b == b'\n') {
            let line = line.split(|&b| b == b'#').next().unwrap_or_default();
            let mut words = line
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            let Some(addr) = words.next().and_then(address) else {
                continue;
            };
            for name in words.filter_map(name) {
                match names.entry(name) {
                    Entry::Vacant(entry) => drop(entry.insert(sets.with(None, addr))),
                    Entry::Occupied(mut entry) => {
                        *entry.get_mut() = sets.with(Some(*entry.get()), addr)
                    }
                }
            }
        }
        Self {
            names,
            sets: sets.sets,
        }
    }

    fn find(&self, name: &str) -> Option<&Both<Rc<[IpAddr]>>> {
        self.names.get(name).map(|set| &self.sets[*set])
    }
}

/// Sets of addresses, each there once.
#[derive(Default)]
struct Sets {
    sets: Vec<Both<Rc<[IpAddr]>>>,
    /// Which set another one becomes, or none, with one address more.
    grown: HashMap<(Option<usize>, IpAddr), usize>,
}

impl Sets {
    /// The set that `set` is with `addr` in it.
    fn with(&mut self, set: Option<usize>, addr: IpAddr) -> usize {
        let before = set.map(|set| (set, &self.sets[set]));
        if let Some((set, Both { v6, v4 })) = before
            && (v6.contains(&addr) || v4.contains(&addr) || v6.len() + v4.len() == MAX_ADDRS)
        {
            return set;
        }
        if let Some(grown) = self.grown.get(&(set, addr)) {
            return *grown;
        }
        let of = |family: Family| {
            let before = before.map_or(&[][..], |(_, addrs)| addrs.of(family));
            let more = Some(addr).filter(|ip| family.has(ip));
            before.iter().copied().chain(more).collect()
        };
        let grown = Both {
            v6: of(Family::V6),
            v4: of(Family::V4),
        };
        self.sets.push(grown);
        self.grown.insert((set, addr), self.sets.len() - 1);
        self.sets.len() - 1
    }
}

fn address(word: &[u8]) -> Option<IpAddr> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// A name as it is asked for: in lower case, without trailing dot. `None`: no URL can have it for a host.
fn name(word: &[u8]) -> Option<Box<str>> {
    let name = word.strip_suffix(b".").unwrap_or(word);
    let is_host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let has_empty_label = name.split(|&b| b == b'.').any(<[u8]>::is_empty);
    if has_empty_label || name.len() > MAX_NAME || !name.iter().all(is_host) {
        return None;
    }
    Some(str::from_utf8(name).ok()?.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::net::names::tests::Scratch;
    use crate::proto::testing::Random;

    /// `name addr addr`, the families in turn.
    fn listed(entries: &Entries, name: &str) -> Option<String> {
        let Both { v6, v4 } = entries.find(name)?;
        let addrs = v6.iter().chain(v4.iter()).map(ToString::to_string);
        Some(addrs.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn lines_are_read_as_other_programs_read_them() {
        #[rustfmt::skip]
        let rows: &[(&str, &[u8], &str, Option<&str>)] = &[
            ("an address and its name", b"10.0.0.1 h.test", "h.test", Some("10.0.0.1")),
            ("tabs and blanks, before it too", b" \t10.0.0.1\t \th.test \n", "h.test", Some("10.0.0.1")),
            ("several names", b"10.0.0.1 a.test b.test c\n", "c", Some("10.0.0.1")),
            ("CRLF", b"10.0.0.1 a.test\r\n10.0.0.2 b.test\r\n", "b.test", Some("10.0.0.2")),
            ("a comment", b"# 10.0.0.1 h.test\n", "h.test", None),
            ("a comment behind an entry", b"10.0.0.1 a.test #h.test\n", "h.test", None),
            ("one that touches the name", b"10.0.0.1 h.test#b\n", "h.test", Some("10.0.0.1")),
            ("any case", b"10.0.0.1 H.TEST\n", "h.test", Some("10.0.0.1")),
            ("an empty label", b"10.0.0.1 a..b . .. h.test\n", "h.test", Some("10.0.0.1")),
            ("a trailing dot", b"10.0.0.1 h.test.\n", "h.test", Some("10.0.0.1")),
            ("IPv6", b"2001:db8::1 h.test\n", "h.test", Some("2001:db8::1")),
            ("lines add up", b"10.0.0.1 h.test\n::1 h.test\n10.0.0.2 h.test\n", "h.test", Some("::1 10.0.0.1 10.0.0.2")),
            ("what is said twice counts once", b"10.0.0.1 h.test h.test\n10.0.0.1 h.test\n", "h.test", Some("10.0.0.1")),
            ("a name alone is nothing", b"h.test\n10.0.0.1 b.test\n", "h.test", None),
            ("an address alone is nothing", b"10.0.0.1\n10.0.0.2 h.test\n", "h.test", Some("10.0.0.2")),
            ("a bad address spoils its line only", b"10.0.0.256 h.test\n10.0.0.2 h.test\n", "h.test", Some("10.0.0.2")),
            ("an address without some of its numbers", b"10.1 h.test\n", "h.test", None),
            ("a zone id", b"fe80::1%lo0 h.test\n", "h.test", None),
            ("a bad name spoils itself only", b"10.0.0.1 a/b h\xff.test h.test\n", "h.test", Some("10.0.0.1")),
            ("NUL", b"10.0.0.1\0 h.test\n10.0.0.2 h\0 h.test", "h.test", Some("10.0.0.2")),
            ("no line feed at the end", b"10.0.0.1 h.test", "h.test", Some("10.0.0.1")),
            ("nothing", b"", "h.test", None),
        ];
        for (why, file, name, expected) in rows {
            let entries = Entries::parse(file);
            assert_eq!(listed(&entries, name).as_deref(), *expected, "{why}");
        }
    }

    #[test]
    fn a_name_has_64_addresses_at_most() {
        let lines: String = (0..1000)
            .map(|n| format!("10.0.{}.{} h\n", n / 256, n % 256))
            .collect();
        let entries = Entries::parse(lines.as_bytes());
        assert_eq!(entries.find("h").unwrap().v4.len(), MAX_ADDRS);
    }

    #[test]
    fn names_of_one_address_share_it() {
        let lines: String = (0..1000)
            .map(|n| format!("0.0.0.0 ad-{n}.test\n"))
            .collect();
        let entries = Entries::parse(lines.as_bytes());
        assert_eq!(entries.names.len(), 1000);
        let first = &entries.find("ad-0.test").unwrap().v4;
        let last = &entries.find("ad-999.test").unwrap().v4;
        assert!(Rc::ptr_eq(first, last) && entries.sets.len() == 1);
    }

    #[test]
    fn any_bytes_are_taken_and_whole_lines_among_them_hold() {
        const PIECES: &[&[u8]] = &[
            b"10.0.0.1",
            b"::1",
            b"h.test",
            b" ",
            b"\t",
            b"\r",
            b"\n",
            b"#",
            b".",
            b"\0",
            b"\xff",
            b"%",
            b"fe80::1%lo",
            b"999",
        ];
        let mut random = Random::new(5);
        for _ in 0..5000 {
            let mut file = Vec::new();
            for _ in 0..random.below(30) {
                match random.below(4) {
                    0 => file.push(random.below(256) as u8),
                    _ => file.extend_from_slice(PIECES[random.below(PIECES.len())]),
                }
            }
            let noise = Entries::parse(&file);
            for name in noise.names.keys() {
                let addrs = noise.find(name).unwrap();
                assert!(name.split('.').all(|label| !label.is_empty()), "{file:?}");
                assert_eq!(**name, name.to_ascii_lowercase(), "{file:?}");
                assert!(addrs.v6.len() + addrs.v4.len() > 0, "{file:?}");
                assert!(addrs.v6.iter().all(IpAddr::is_ipv6), "{file:?}");
                assert!(addrs.v4.iter().all(IpAddr::is_ipv4), "{file:?}");
            }
            file.extend_from_slice(b"\n192.0.2.9 whole.test\n");
            let entries = Entries::parse(&file);
            assert_eq!(
                listed(&entries, "whole.test").as_deref(),
                Some("192.0.2.9"),
                "{file:?}"
            );
            assert_eq!(entries.names.len(), noise.names.len() + 1, "{file:?}");
        }
    }

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
        while file.len() < MAX_BYTES - 5 {
            file.extend_from_slice(b"#\n");
        }
        // The cut would make another name of it.
        file.extend_from_slice(b"10.0.0.2 cut.test\n10.0.0.3 behind\n");
        fs::write(&path, file).unwrap();
        let mut hosts = HostsFile::new(Some(path));
        let now = Instant::now();
        assert_eq!(found(&mut hosts, now).as_deref(), Some("[10.0.0.1]"));
        assert_eq!(
            hosts.entries.names.len(),
            1,
            "{:?}",
            hosts.entries.names.keys()
        );
    }

    #[test]
    fn without_a_file_no_name_is_known() {
        assert_eq!(found(&mut HostsFile::new(None), Instant::now()), None);
    }
}
