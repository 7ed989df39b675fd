//! Reads PEM (RFC 7468) as it occurs in practice: copied, concatenated, edited.
//!
//! Nothing is dropped silently: whatever looks like a block is either read as one or reported as a
//! [`Fault`] with its line number. The reader therefore accepts more than RFC 7468 requires, like
//! OpenSSL and partly beyond it: text before, between and after blocks, byte order marks,
//! indentation, line ends of LF, CRLF or CR, and missing line ends. A line end is missing, for
//! instance, after `cat a.pem b.pem` if the first file does not end with one:
//!
//! ```text
//! -----END CERTIFICATE----------BEGIN CERTIFICATE-----
//! ```
//!
//! The contents of a block are decoded by `rustls-pki-types`, which decodes keys in constant time.

use std::fmt;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use crate::tls::der;

/// What is wrong in a PEM text, and on which line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    line: usize,
    why: String,
}

impl Fault {
    fn new(line: usize, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { line, why }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// Something found in a PEM text, and the line on which it begins.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) line: usize,
    pub(super) what: T,
}

/// Returns all certificates in `pem`, in order. Other kinds of blocks are skipped.
pub(super) fn certificates(pem: &[u8]) -> Vec<Result<Found<CertificateDer<'static>>, Fault>> {
    let read = |block: Result<Block<'_>, Bad<'_>>| {
        let block = match block {
            Ok(block) => block,
            Err(bad) => return may_be_certificate(bad.label).then_some(Err(bad.fault)),
        };
        let line = block.line;
        let found = match block.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => block.decode(SectionKind::Certificate),
            // OpenSSL's own format: a certificate, followed by the purposes it is trusted for.
            "TRUSTED CERTIFICATE" => block
                .decode(SectionKind::Certificate)
                .and_then(|trusted| trusted_for_servers(trusted, line)),
            other if may_be_certificate(other) => {
                let why = format!(
                    "a \"{other}\" block is not supported here, only a \"CERTIFICATE\" block"
                );
                Err(Fault::new(line, why))
            }
            _ => return None,
        };
        Some(found.map(|der| Found {
            line,
            what: CertificateDer::from(der),
        }))
    };
    blocks(pem).into_iter().filter_map(read).collect()
}

/// Returns all private keys in `pem`, in order. Other kinds of blocks are skipped.
pub(super) fn keys(pem: &[u8]) -> Vec<Result<Found<PrivateKeyDer<'static>>, Fault>> {
    let may_be_key = |label: &str| label.is_empty() || label.ends_with("PRIVATE KEY");
    let read = |block: Result<Block<'_>, Bad<'_>>| {
        let block = match block {
            Ok(block) => block,
            Err(bad) => return may_be_key(bad.label).then_some(Err(bad.fault)),
        };
        let line = block.line;
        let is_key = may_be_key(block.label);
        if is_key && (block.is_encrypted || block.label.contains("ENCRYPTED")) {
            let why = "the key is encrypted; use `openssl pkey` to decrypt it";
            return Some(Err(Fault::new(line, why)));
        }
        let found = match block.label {
            "PRIVATE KEY" => block
                .decode(SectionKind::PrivateKey)
                .map(|der| PrivatePkcs8KeyDer::from(der).into()),
            "RSA PRIVATE KEY" => block
                .decode(SectionKind::RsaPrivateKey)
                .map(|der| PrivatePkcs1KeyDer::from(der).into()),
            "EC PRIVATE KEY" => block
                .decode(SectionKind::EcPrivateKey)
                .map(|der| PrivateSec1KeyDer::from(der).into()),
            other if is_key => {
                let why = format!("a key of type \"{other}\" is not supported");
                Err(Fault::new(line, why))
            }
            _ => return None,
        };
        Some(found.map(|what| Found { line, what }))
    };
    blocks(pem).into_iter().filter_map(read).collect()
}

/// Describes what `pem` contains instead of what was searched for.
pub(super) fn describe(pem: &[u8]) -> String {
    if pem.is_empty() {
        return "the text is empty".to_owned();
    }
    if der::is_sequence(pem) {
        return "it is DER; `openssl x509 -inform der` or `openssl pkey -inform der` converts it to PEM"
            .to_owned();
    }
    let labels: Vec<_> = blocks(pem)
        .into_iter()
        .flatten()
        .map(|block| format!("\"{}\" on line {}", block.label, block.line))
        .take(5)
        .collect();
    if labels.is_empty() {
        "no line begins with \"-----BEGIN \"".to_owned()
    } else {
        format!("it contains {}", labels.join(", "))
    }
}

/// Returns whether a block with this label may contain certificates. A block without a label may.
fn may_be_certificate(label: &str) -> bool {
    let upper = label.to_ascii_uppercase();
    let names_one = upper.contains("CERT") || upper.contains("PKCS7") || upper == "CMS";
    label.is_empty() || names_one && !upper.ends_with("REQUEST")
}

/// Returns the certificate of a `TRUSTED CERTIFICATE`, provided that it is trusted for servers.
fn trusted_for_servers(trusted: Vec<u8>, line: usize) -> Result<Vec<u8>, Fault> {
    match der::split_trusted(&trusted) {
        Some((certificate, der::Trust::Servers)) => Ok(certificate.to_vec()),
        Some((_, der::Trust::Others)) => {
            let why = "the certificate's trust settings do not allow its use for servers; \
                `openssl x509 -clrtrust -clrreject` removes these settings";
            Err(Fault::new(line, why))
        }
        None => Err(Fault::new(line, "the trusted certificate cannot be parsed")),
    }
}

/// The content between two markers.
struct Block<'p> {
    label: &'p str,
    line: usize,
    /// The data to decode: base64 characters and white space.
    body: &'p [u8],
    /// Whether the header lines say so (RFC 1421 §4.6.1.1).
    is_encrypted: bool,
}

impl Block<'_> {
    fn decode(&self, kind: SectionKind) -> Result<Vec<u8>, Fault> {
        let label = match kind {
            SectionKind::PrivateKey => "PRIVATE KEY",
            SectionKind::RsaPrivateKey => "RSA PRIVATE KEY",
            SectionKind::EcPrivateKey => "EC PRIVATE KEY",
            _ => "CERTIFICATE",
        };
        let (begin, end) = (
            format!("{BEGIN}{label}-----\n"),
            format!("\n-----END {label}-----\n"),
        );
        let mut clean = Vec::with_capacity(begin.len() + self.body.len() + end.len());
        clean.extend_from_slice(begin.as_bytes());
        let is_data = |byte: &u8| !byte.is_ascii_whitespace();
        clean.extend(self.body.iter().copied().filter(is_data));
        clean.extend_from_slice(end.as_bytes());
        match <(SectionKind, Vec<u8>)>::from_pem_slice(&clean) {
            Ok((_, der)) if !der.is_empty() => Ok(der),
            Ok(_) => Err(Fault::new(self.line, "the block that begins here is empty")),
            Err(_) => {
                let why = "the base64 data of the block that begins here is truncated or ends incorrectly";
                Err(Fault::new(self.line, why))
            }
        }
    }
}

/// A malformed block, with the label of what it was apparently meant to be, if any.
struct Bad<'p> {
    label: &'p str,
    fault: Fault,
}

/// Only this much of a line is examined: no meaningful line is longer.
const LONGEST: usize = 256;
const BEGIN: &str = "-----BEGIN ";
const DASHES: &[u8] = b"-----";

/// Returns all blocks of a text, and the malformed ones.
fn blocks(pem: &[u8]) -> Vec<Result<Block<'_>, Bad<'_>>> {
    if pem.starts_with(b"\xff\xfe") || pem.starts_with(b"\xfe\xff") {
        let why = "the text is UTF-16, but PEM is ASCII; save it as UTF-8";
        return vec![Err(Bad {
            label: "",
            fault: Fault::new(1, why),
        })];
    }
    let mut reader = Reader {
        pem,
        at: 0,
        line: 1,
    };
    let mut found = Vec::new();
    while let Some(block) = reader.next_block() {
        found.push(block);
    }
    found
}

/// A line that is, or was meant to be, the first or last of a block.
enum Marker<'p> {
    /// The label, and the length of the marker.
    Begin(&'p str, usize),
    End(&'p str, usize),
    /// Almost a marker, but malformed.
    Broken,
}

struct Reader<'p> {
    pem: &'p [u8],
    at: usize,
    /// The line on which `at` is.
    line: usize,
}

impl<'p> Reader<'p> {
    /// Searches for the next block, starting outside of any.
    fn next_block(&mut self) -> Option<Result<Block<'p>, Bad<'p>>> {
        loop {
            self.skip_blanks();
            let rest = self.rest();
            if rest.is_empty() {
                return None;
            }
            match marker(rest) {
                Some(Marker::Begin(label, len)) => {
                    let line = self.line;
                    self.skip(len);
                    let block = self.read_block(label, line);
                    return Some(block.map_err(|fault| Bad { label, fault }));
                }
                Some(Marker::End(label, len)) => {
                    let fault = Fault::new(
                        self.line,
                        format!(
                            "\"-----END {label}-----\" without a matching \"-----BEGIN {label}-----\""
                        ),
                    );
                    self.skip(len);
                    return Some(Err(Bad { label: "", fault }));
                }
                Some(Marker::Broken) => {
                    let fault = Fault::new(self.line, BROKEN);
                    self.skip_line();
                    return Some(Err(Bad { label: "", fault }));
                }
                None => {}
            }
            // Plain text. A block may follow it without a line end in between, but a marker that is
            // quoted or commented out begins no block.
            let line_len = line_len(rest);
            let begins = find(&rest[..line_len], BEGIN.as_bytes()).filter(|&place| {
                let Some(Marker::Begin(label, len)) = marker(&rest[place..]) else {
                    return false;
                };
                let mut ahead = Reader {
                    pem: self.pem,
                    at: self.at + place + len,
                    line: self.line,
                };
                ahead.read_block(label, self.line).is_ok()
            });
            match begins {
                Some(place) => self.skip(place),
                None => self.skip_line(),
            }
        }
    }

    /// Reads from after the line that begins a block to after the line that ends it.
    fn read_block(&mut self, label: &'p str, line: usize) -> Result<Block<'p>, Fault> {
        let is_encrypted = self.skip_headers();
        let start = self.at;
        let rest = self.rest();
        let dash = rest.iter().position(|&byte| byte == b'-');
        let data = &rest[..dash.unwrap_or(rest.len())];
        if let Some(bad) = data.iter().position(|&byte| !is_base64(byte)) {
            self.skip(bad);
            let text = &rest[bad..];
            let fault = Fault::new(self.line, stray(text, label, line));
            // Otherwise, the rest would be taken for text with a block in the middle.
            self.skip_to_marker();
            return Err(fault);
        }
        self.skip(data.len());
        let body = &self.pem[start..self.at];
        match marker(self.rest()) {
            Some(Marker::End(end, len)) if end == label => {
                self.skip(len);
                Ok(Block {
                    label,
                    line,
                    body,
                    is_encrypted,
                })
            }
            Some(Marker::End(end, len)) => {
                let why = format!("the \"{label}\" block from line {line} ends as \"{end}\"");
                let fault = Fault::new(self.line, why);
                self.skip(len);
                Err(fault)
            }
            // The block that begins here is read by the next call.
            Some(Marker::Begin(..)) => {
                let why =
                    format!("the \"{label}\" block from line {line} has no end before this line");
                Err(Fault::new(self.line, why))
            }
            Some(Marker::Broken) => {
                let fault = Fault::new(self.line, BROKEN);
                self.skip_line();
                self.skip_to_marker();
                Err(fault)
            }
            None if self.rest().is_empty() => {
                let why = format!(
                    "the \"{label}\" block that begins here is truncated: there is no \"-----END {label}-----\""
                );
                Err(Fault::new(line, why))
            }
            None => {
                let fault = Fault::new(self.line, stray(self.rest(), label, line));
                self.skip(1);
                self.skip_to_marker();
                Err(fault)
            }
        }
    }

    /// Skips header lines (RFC 1421 §4.6) and the empty line after them. Returns whether they
    /// declare the block encrypted.
    fn skip_headers(&mut self) -> bool {
        let mut is_encrypted = false;
        let mut ahead = Reader {
            pem: self.pem,
            at: self.at,
            line: self.line,
        };
        ahead.skip_blanks();
        const MOST: usize = 32;
        for _ in 0..MOST {
            let rest = ahead.rest();
            let line = &rest[..line_len(&rest[..rest.len().min(LONGEST)])];
            if !line.contains(&b':') || line.starts_with(DASHES) {
                break;
            }
            is_encrypted |= line.starts_with(b"Proc-Type:") && find(line, b"ENCRYPTED").is_some();
            ahead.skip_line();
            ahead.skip_blanks();
            (self.at, self.line) = (ahead.at, ahead.line);
        }
        is_encrypted
    }

    fn rest(&self) -> &'p [u8] {
        &self.pem[self.at..]
    }

    /// Skips bytes, counting the lines among them. CRLF ends one line, not two.
    fn skip(&mut self, len: usize) {
        let end = self.at + len;
        while self.at < end {
            let next = self.pem.get(self.at + 1);
            match self.pem[self.at] {
                b'\n' => self.line += 1,
                b'\r' if next != Some(&b'\n') => self.line += 1,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        self.skip(line_len(self.rest()));
        self.skip(usize::from(!self.rest().is_empty()));
    }

    /// Skips white space, line ends and byte order marks. Concatenated files have byte order marks
    /// in the middle too.
    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            match rest.first() {
                Some(byte) if byte.is_ascii_whitespace() => self.skip(1),
                Some(_) if rest.starts_with(b"\xef\xbb\xbf") => self.skip(3),
                _ => return,
            }
        }
    }

    /// Skips the rest of a malformed block: up to the next line that begins a block, or past the
    /// line that ends this one.
    fn skip_to_marker(&mut self) {
        while let Some(dash) = self.rest().iter().position(|&byte| byte == b'-') {
            self.skip(dash);
            match marker(self.rest()) {
                Some(Marker::Begin(..)) => return,
                Some(Marker::End(_, len)) => return self.skip(len),
                Some(Marker::Broken) | None => {
                    let hyphens = self.rest().iter().take_while(|&&byte| byte == b'-').count();
                    self.skip(hyphens);
                }
            }
        }
        self.skip(self.rest().len());
    }
}

const BROKEN: &str = "malformed marker: a block begins with \"-----BEGIN …-----\" and ends with \"-----END …-----\", in capitals, with five hyphens on each side";

/// Describes a character in a block that is not base64.
fn stray(text: &[u8], label: &str, line: usize) -> String {
    let what = match text {
        [b'\\', b'n' | b'r', ..] => {
            return format!(
                "literal \"\\n\" instead of a line end, in the \"{label}\" block from line {line}"
            );
        }
        [byte @ b' '..=b'~', ..] => format!("'{}'", char::from(*byte)),
        [byte, ..] => format!("byte {byte:#04x}"),
        [] => "nothing".to_owned(),
    };
    format!("{what} is not base64, in the \"{label}\" block from line {line}")
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') || byte.is_ascii_whitespace()
}

fn line_len(text: &[u8]) -> usize {
    let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    end.unwrap_or(text.len())
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Returns the marker at the start of `text`.
fn marker(text: &[u8]) -> Option<Marker<'_>> {
    let text = &text[..text.len().min(LONGEST)];
    let line = &text[..line_len(text)];
    if let Some((label, len)) = labelled(line, BEGIN.as_bytes()) {
        return Some(Marker::Begin(label, len));
    }
    if let Some((label, len)) = labelled(line, b"-----END ") {
        return Some(Marker::End(label, len));
    }
    // Too few or too many hyphens, lower case, or dashes that an editor substituted for hyphens.
    let line = String::from_utf8_lossy(line);
    let is_dash = |c: char| matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ad}');
    let word = line.trim_start_matches(is_dash);
    let is_marked = word.len() < line.len();
    let mut words = word.split_ascii_whitespace();
    let is_keyword = words
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("begin") || word.eq_ignore_ascii_case("end"));
    let has_label = words.next().is_some();
    (is_marked && is_keyword && has_label).then_some(Marker::Broken)
}

/// Parses a marker that begins with `keyword`. Returns its label, and its length including the
/// hyphens that close it: five, and any more that follow unless they open the next marker.
fn labelled<'l>(line: &'l [u8], keyword: &[u8]) -> Option<(&'l str, usize)> {
    let rest = line.strip_prefix(keyword)?;
    let label = &rest[..find(rest, DASHES)?];
    let behind = &rest[label.len() + DASHES.len()..];
    let hyphens = behind.iter().take_while(|&&byte| byte == b'-').count();
    let is_glued = [&b"BEGIN "[..], b"END "]
        .iter()
        .any(|word| behind[hyphens..].starts_with(word));
    let extra = if is_glued { 0 } else { hyphens };
    let len = keyword.len() + label.len() + DASHES.len() + extra;
    let label = std::str::from_utf8(label).ok()?;
    (!label.is_empty()).then_some((label, len))
}

#[cfg(test)]
mod tests;
