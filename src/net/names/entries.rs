//! The names in a hosts file.
//!
//! The file is parsed piece by piece. Only its names are kept, each once, in one buffer with 20
//! bytes of index per name: a block list of a hundred thousand names takes less than twice its
//! size. The hash table is sized by the file's length and never grows, since growing would rehash
//! the whole table in one turn.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::Both;
use crate::resolver::Family;

/// The most addresses that one name can have. Further ones are skipped.
const MAX_ADDRS: u8 = 64;

/// The longest name, as in a URL.
const MAX_NAME: usize = 253;

/// The longest word that is buffered: a name with a trailing dot. Addresses are shorter.
const MAX_WORD: usize = MAX_NAME + 1;

/// Bytes of the file per hash chain. Most names are longer, so there are more chains than names.
const BYTES_PER_CHAIN: usize = 16;

/// The most names whose addresses are kept in the form in which they are returned.
const MAX_FOUND: usize = 256;

/// No entry, or the end of a chain.
const NONE: u32 = u32::MAX;

/// The contents of a hosts file.
#[derive(Debug)]
pub(super) struct Entries {
    /// All names in lower case.
    letters: Vec<u8>,
    names: Vec<Name>,
    /// The first name of each chain. The number of chains is a power of two, or zero in an empty
    /// table.
    chains: Vec<u32>,
    /// Addresses in file order. Consecutive lines with the same address share one entry.
    addresses: Vec<IpAddr>,
    /// The second and further addresses of names that have several.
    more: Vec<More>,
    found: HashMap<Box<str>, Both<Rc<[IpAddr]>>>,
}

#[derive(Debug)]
struct Name {
    /// Offset of its letters.
    start: u32,
    /// The next name in its chain.
    next: u32,
    address: u32,
    /// The second address, if there is one.
    more: u32,
    len: u8,
    /// How many addresses it has.
    count: u8,
}

#[derive(Debug)]
struct More {
    address: u32,
    next: u32,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self::for_file(0)
    }

    fn for_file(len: usize) -> Self {
        let chains = (len / BYTES_PER_CHAIN).next_power_of_two().max(16);
        Self {
            letters: Vec::new(),
            names: Vec::new(),
            chains: vec![NONE; if len == 0 { 0 } else { chains }],
            addresses: Vec::new(),
            more: Vec::new(),
            found: HashMap::new(),
        }
    }

    /// Returns how many names there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns the addresses of `name`, which must be in lower case and without trailing dot.
    pub(super) fn find(&mut self, name: &str) -> Option<&Both<Rc<[IpAddr]>>> {
        // Checked first because a returned borrow of `found` would last to the end of the function.
        if !self.found.contains_key(name) {
            let addrs = self.addresses_of(name)?;
            if self.found.len() == MAX_FOUND {
                self.found.clear();
            }
            self.found.insert(name.into(), addrs);
        }
        self.found.get(name)
    }

    fn addresses_of(&self, name: &str) -> Option<Both<Rc<[IpAddr]>>> {
        let entry = &self.names[self.place_of(name.as_bytes())?];
        let mut all = vec![self.addresses[entry.address as usize]];
        let mut next = entry.more;
        while let Some(more) = self.more.get(next as usize) {
            all.push(self.addresses[more.address as usize]);
            next = more.next;
        }
        let of = |family: Family| all.iter().copied().filter(|ip| family.has(ip)).collect();
        Some(Both {
            v6: of(Family::V6),
            v4: of(Family::V4),
        })
    }

    fn chain_of(&self, name: &[u8]) -> usize {
        // FNV-1a is enough: an attacker who can write this file has other ways to slow down
        // lookups.
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        hash as usize & (self.chains.len() - 1)
    }

    fn place_of(&self, name: &[u8]) -> Option<usize> {
        if self.chains.is_empty() {
            return None;
        }
        let mut next = self.chains[self.chain_of(name)];
        while let Some(entry) = self.names.get(next as usize) {
            let start = entry.start as usize;
            if self.letters[start..start + usize::from(entry.len)] == *name {
                return Some(next as usize);
            }
            next = entry.next;
        }
        None
    }

    /// Adds the address at index `address` to `name`.
    fn insert(&mut self, name: &[u8], address: u32) {
        match self.place_of(name) {
            Some(place) => self.add(place, address),
            None => {
                let chain = self.chain_of(name);
                let place = self.names.len() as u32;
                self.names.push(Name {
                    start: self.letters.len() as u32,
                    next: std::mem::replace(&mut self.chains[chain], place),
                    address,
                    more: NONE,
                    len: name.len() as u8,
                    count: 1,
                });
                self.letters.extend_from_slice(name);
            }
        }
    }

    fn add(&mut self, place: usize, address: u32) {
        let ip = self.addresses[address as usize];
        let entry = &mut self.names[place];
        if entry.count == MAX_ADDRS || self.addresses[entry.address as usize] == ip {
            return;
        }
        let added = self.more.len() as u32;
        let mut last = &mut entry.more;
        // Walk by index, because each `&mut` link borrows the whole vector.
        let mut at = *last;
        while at != NONE {
            let more = &self.more[at as usize];
            if self.addresses[more.address as usize] == ip {
                return;
            }
            if more.next == NONE {
                break;
            }
            at = more.next;
        }
        if at != NONE {
            last = &mut self.more[at as usize].next;
        }
        *last = added;
        entry.count += 1;
        self.more.push(More {
            address,
            next: NONE,
        });
    }

    fn address(&mut self, ip: IpAddr) -> u32 {
        if self.addresses.last() != Some(&ip) {
            self.addresses.push(ip);
        }
        self.addresses.len() as u32 - 1
    }
}

/// Parser for a hosts file that comes in pieces of any length. Accepts any bytes. A line is an
/// address followed by its names, separated by blanks. Several lines for one name add up.
#[derive(Debug)]
pub(super) struct Parser {
    entries: Entries,
    line: Line,
    /// The word that continues from the last piece, truncated where it is too long to be valid.
    word: Vec<u8>,
}

/// The parser's position in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Before the address.
    Address,
    /// After this address, among its names.
    Names(u32),
    /// In a comment, or after an invalid address.
    Rest,
}

impl Parser {
    /// Creates a parser for a file of about `len` bytes. The real length may differ.
    pub(super) fn new(len: usize) -> Self {
        Self {
            entries: Entries::for_file(len.max(1)),
            line: Line::Address,
            word: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        while let Some(first) = piece.first() {
            if self.line == Line::Rest {
                // The rest of the word is not needed either.
                self.word.clear();
                match piece.iter().position(|&b| b == b'\n') {
                    Some(end) => piece = &piece[end..],
                    None => return,
                }
            }
            let is_end = |b: &u8| b.is_ascii_whitespace() || *b == b'#';
            let len = if is_end(first) {
                0
            } else {
                piece.iter().position(is_end).unwrap_or(piece.len())
            };
            let room = (MAX_WORD + 1).saturating_sub(self.word.len());
            self.word.extend_from_slice(&piece[..len.min(room)]);
            let Some(end) = piece.get(len) else {
                return;
            };
            self.end_word();
            match end {
                b'\n' => self.line = Line::Address,
                b'#' => self.line = Line::Rest,
                _ => {}
            }
            piece = &piece[len + 1..];
        }
    }

    /// Ends the file. If it was truncated, its last word is dropped as incomplete.
    pub(super) fn finish(mut self, is_cut: bool) -> Entries {
        if !is_cut {
            self.end_word();
        }
        self.entries.letters.shrink_to_fit();
        self.entries.names.shrink_to_fit();
        self.entries
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        match self.line {
            Line::Address => {
                self.line = match address(&self.word) {
                    Some(ip) => Line::Names(self.entries.address(ip)),
                    None => Line::Rest,
                };
            }
            Line::Names(address) => {
                if let Some(name) = name(&mut self.word) {
                    self.entries.insert(name, address);
                }
            }
            Line::Rest => {}
        }
        self.word.clear();
    }
}

fn address(word: &[u8]) -> Option<IpAddr> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// Normalizes a name to lower case without trailing dot. Returns `None` if no URL can have it as a
/// host.
fn name(word: &mut [u8]) -> Option<&[u8]> {
    word.make_ascii_lowercase();
    let name = word.strip_suffix(b".").unwrap_or(word);
    let is_host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let has_empty_label = name.split(|&b| b == b'.').any(<[u8]>::is_empty);
    (!has_empty_label && name.len() <= MAX_NAME && name.iter().all(is_host)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    fn parse(bytes: &[u8]) -> Entries {
        let mut parser = Parser::new(bytes.len());
        parser.feed(bytes);
        parser.finish(false)
    }

    fn names(entries: &Entries) -> Vec<String> {
        let name = |entry: &Name| {
            let start = entry.start as usize;
            String::from_utf8(entries.letters[start..start + usize::from(entry.len)].to_vec())
        };
        entries
            .names
            .iter()
            .map(|entry| name(entry).unwrap())
            .collect()
    }

    /// Returns the addresses of `name`, IPv6 first.
    fn listed(entries: &mut Entries, name: &str) -> Option<String> {
        let Both { v6, v4 } = entries.find(name)?;
        let addrs = v6.iter().chain(v4.iter()).map(ToString::to_string);
        Some(addrs.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn lines_are_read_as_other_programs_read_them() {
        #[rustfmt::skip]
        let rows: &[(&str, &[u8], &str, Option<&str>)] = &[
            ("an address and its name", b"10.0.0.1 h.test", "h.test", Some("10.0.0.1")),
            ("tabs and blanks, also at the start", b" \t10.0.0.1\t \th.test \n", "h.test", Some("10.0.0.1")),
            ("several names", b"10.0.0.1 a.test b.test c\n", "c", Some("10.0.0.1")),
            ("CRLF", b"10.0.0.1 a.test\r\n10.0.0.2 b.test\r\n", "b.test", Some("10.0.0.2")),
            ("a comment", b"# 10.0.0.1 h.test\n", "h.test", None),
            ("a comment after an entry", b"10.0.0.1 a.test #h.test\n", "h.test", None),
            ("a comment directly after a name", b"10.0.0.1 h.test#b\n", "h.test", Some("10.0.0.1")),
            ("any case", b"10.0.0.1 H.TEST\n", "h.test", Some("10.0.0.1")),
            ("an empty label", b"10.0.0.1 a..b . .. h.test\n", "h.test", Some("10.0.0.1")),
            ("a trailing dot", b"10.0.0.1 h.test.\n", "h.test", Some("10.0.0.1")),
            ("IPv6", b"2001:db8::1 h.test\n", "h.test", Some("2001:db8::1")),
            ("lines add up", b"10.0.0.1 h.test\n::1 h.test\n10.0.0.2 h.test\n", "h.test", Some("::1 10.0.0.1 10.0.0.2")),
            ("a repeated entry counts once", b"10.0.0.1 h.test h.test\n10.0.0.1 h.test\n", "h.test", Some("10.0.0.1")),
            ("a name without address is ignored", b"h.test\n10.0.0.1 b.test\n", "h.test", None),
            ("an address without name is ignored", b"10.0.0.1\n10.0.0.2 h.test\n", "h.test", Some("10.0.0.2")),
            ("a bad address invalidates its line only", b"10.0.0.256 h.test\n10.0.0.2 h.test\n", "h.test", Some("10.0.0.2")),
            ("an address with too few numbers", b"10.1 h.test\n", "h.test", None),
            ("a zone id", b"fe80::1%lo0 h.test\n", "h.test", None),
            ("a bad name is skipped alone", b"10.0.0.1 a/b h\xff.test h.test\n", "h.test", Some("10.0.0.1")),
            ("NUL", b"10.0.0.1\0 h.test\n10.0.0.2 h\0 h.test", "h.test", Some("10.0.0.2")),
            ("no line feed at the end", b"10.0.0.1 h.test", "h.test", Some("10.0.0.1")),
            ("nothing", b"", "h.test", None),
        ];
        for (why, file, name, expected) in rows {
            let mut entries = parse(file);
            assert_eq!(listed(&mut entries, name).as_deref(), *expected, "{why}");
            // In two pieces, split at every byte, and byte by byte.
            for at in 0..file.len() {
                let mut parser = Parser::new(file.len());
                parser.feed(&file[..at]);
                parser.feed(&file[at..]);
                let mut pieces = parser.finish(false);
                assert_eq!(
                    listed(&mut pieces, name).as_deref(),
                    *expected,
                    "{why}: at {at}"
                );
            }
            let mut parser = Parser::new(file.len());
            file.chunks(1).for_each(|byte| parser.feed(byte));
            assert_eq!(names(&parser.finish(false)), names(&entries), "{why}");
        }
    }

    #[test]
    fn a_name_has_64_addresses_at_most() {
        let lines: String = (0..1000)
            .map(|n| format!("10.0.0.1 h\n10.0.{}.{} h\n", n / 256, n % 256))
            .collect();
        let mut entries = parse(lines.as_bytes());
        assert_eq!(entries.find("h").unwrap().v4.len(), usize::from(MAX_ADDRS));
    }

    #[test]
    fn names_are_found_among_many() {
        let lines: String = (0..20_000)
            .map(|n| {
                format!(
                    "10.0.{}.{} Ad-{n}.test\n::1 ad-{n}.test ad-{n}.test\n",
                    n / 256,
                    n % 256
                )
            })
            .collect();
        let mut entries = parse(lines.as_bytes());
        assert_eq!(entries.len(), 20_000);
        for n in 0..20_000 {
            let expected = format!("::1 10.0.{}.{}", n / 256, n % 256);
            assert_eq!(
                listed(&mut entries, &format!("ad-{n}.test")),
                Some(expected)
            );
        }
        assert_eq!(listed(&mut entries, "ad-20000.test"), None);
        assert!(entries.found.len() <= MAX_FOUND);
    }

    #[test]
    fn words_that_are_too_long_are_nothing() {
        let longest = "a".repeat(MAX_NAME);
        let file = format!(
            "10.0.0.1 {longest}. {longest}a {longest}.b {} c\n",
            "x".repeat(10_000)
        );
        for size in [1, 7, 253, 100_000] {
            let mut parser = Parser::new(file.len());
            file.as_bytes()
                .chunks(size)
                .for_each(|piece| parser.feed(piece));
            assert_eq!(names(&parser.finish(false)), [&longest, "c"], "{size}");
        }
    }

    #[test]
    fn of_a_file_that_was_cut_the_last_word_does_not_count() {
        let mut parser = Parser::new(20);
        parser.feed(b"10.0.0.1 a.test b.te");
        assert_eq!(names(&parser.finish(true)), ["a.test"]);
    }

    #[test]
    fn a_block_list_costs_a_small_multiple_of_its_size() {
        let lines: String = (0..100_000)
            .map(|n| format!("0.0.0.0 ad-{n}.tracking.test\n"))
            .collect();
        let entries = parse(lines.as_bytes());
        let bytes = entries.letters.capacity()
            + entries.names.capacity() * size_of::<Name>()
            + entries.chains.capacity() * size_of::<u32>()
            + entries.addresses.capacity() * size_of::<IpAddr>()
            + entries.more.capacity() * size_of::<More>();
        assert!(bytes < 2 * lines.len(), "{bytes} for {}", lines.len());
        assert_eq!(entries.addresses.len(), 1, "all names share one address");
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
            let mut noise = parse(&file);
            for name in names(&noise) {
                assert!(name.split('.').all(|label| !label.is_empty()), "{file:?}");
                assert_eq!(name, name.to_ascii_lowercase(), "{file:?}");
                let addrs = noise.find(&name).unwrap();
                assert!(addrs.v6.len() + addrs.v4.len() > 0, "{file:?}");
                assert!(addrs.v6.iter().all(IpAddr::is_ipv6), "{file:?}");
                assert!(addrs.v4.iter().all(IpAddr::is_ipv4), "{file:?}");
            }
            file.extend_from_slice(b"\n192.0.2.9 whole.test\n");
            let mut entries = parse(&file);
            let found = listed(&mut entries, "whole.test");
            assert_eq!(found.as_deref(), Some("192.0.2.9"), "{file:?}");
            assert_eq!(entries.len(), noise.len() + 1, "{file:?}");
        }
    }
}
