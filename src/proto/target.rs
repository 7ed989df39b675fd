//! The one URL parser, used for validation, for the connection and for the request line.
//!
//! A URL check can be bypassed if two readers disagree about the URL (RFC 3986 §7.6). URLs about
//! which readers are known to disagree are therefore refused: a backslash in the authority, and
//! control bytes anywhere. Userinfo is separated from the URL here and never part of a [`Target`];
//! it is refused except where a program itself gives a URL ([`Target::parse_with_userinfo`]). The
//! rest is written in origin-form (RFC 9112 §3.2.1). Host names are ASCII here: IDNA is left to the
//! caller. Fields and bodies are handled elsewhere.
//!
//! A host whose last label is a number is an address, in a single accepted notation
//! ([`ends_in_a_number`]). A `.onion` name must not be looked up in the DNS ([`is_onion`]). Both
//! are checked here on behalf of all resolvers.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::percent::{self, Place, is_unreserved, percent_decode, percent_encode};
use super::reference::Reference;
use super::{Origin, Scheme};

/// The longest absolute form in bytes that [`http::Uri`] accepts.
pub(crate) const MAX_URI: usize = u16::MAX as usize - 1;

/// The longest host name in bytes, without its trailing dot (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// The longest zone id in bytes. Interface names have up to 15 bytes on Linux, and under 50 on
/// Windows.
const MAX_ZONE: usize = 64;

const USERINFO: &str = "userinfo is refused: credentials belong in an Authorization field";

/// The rule for a value whose `Display` returned an error.
pub(crate) const UNDISPLAYABLE: &str = "its Display implementation failed";

/// What is wrong with a part of a request, and at which byte. Does not contain the part, which may
/// be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Option<usize>,
    pub(crate) why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// This byte is not allowed here.
    Byte(u8),
    Rule(&'static str),
    /// The host ends in a number but is not an IPv4 address. Contains the rule, and the address
    /// that some readers would take the host for.
    Number(&'static str, Option<Ipv4Addr>),
}

impl Fault {
    pub(crate) fn byte(at: usize, byte: u8) -> Self {
        Self {
            at: Some(at),
            why: Why::Byte(byte),
        }
    }

    pub(crate) fn rule(at: usize, rule: &'static str) -> Self {
        Self {
            at: Some(at),
            why: Why::Rule(rule),
        }
    }

    /// A fault of the part as a whole.
    pub(crate) fn whole(rule: &'static str) -> Self {
        Self {
            at: None,
            why: Why::Rule(rule),
        }
    }
}

/// Shows `CR at byte 3`, or the rule, followed by the position if there is one.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.why, self.at) {
            (Why::Byte(byte), at) => {
                match byte {
                    0 => f.write_str("NUL"),
                    b'\t' => f.write_str("tab"),
                    b'\n' => f.write_str("LF"),
                    b'\r' => f.write_str("CR"),
                    b' ' => f.write_str("space"),
                    0x21..=0x7e => write!(f, "{:?}", char::from(byte)),
                    _ => write!(f, "{byte:#04x}"),
                }?;
                write!(f, " at byte {}", at.unwrap_or_default())
            }
            (Why::Rule(rule), Some(at)) => write!(f, "{rule} (byte {at})"),
            (Why::Rule(rule), None) => f.write_str(rule),
            (Why::Number(rule, meant), at) => {
                f.write_str(rule)?;
                match meant {
                    Some(meant) => write!(f, ": write {meant}")?,
                    None => f.write_str(": an IPv4 address is written like 192.0.2.1")?,
                }
                write!(f, " (byte {})", at.unwrap_or_default())
            }
        }
    }
}

/// The target of a request: the origin to connect to, and the path and query to request.
pub(crate) struct Target {
    origin: Origin,
    /// `/path?query`, percent-encoded where RFC 3986 requires it.
    path: String,
}

/// The credentials of a URL (RFC 3986 §3.2.1), decoded. They are secret, so this type has no
/// `Debug`.
pub(crate) struct Userinfo {
    pub(crate) user: Vec<u8>,
    /// Empty if there is no colon.
    pub(crate) password: Vec<u8>,
}

impl Target {
    /// Parses an absolute `http` or `https` URL without userinfo. Its fragment is dropped, and its
    /// port may be omitted or empty.
    ///
    /// # Errors
    /// Returns a fault whose position is an index in `url`.
    pub(crate) fn parse(url: &str) -> Result<Self, Fault> {
        let parts = Parts::split(url)?;
        match parts.userinfo {
            Some(userinfo) => Err(Fault::rule(parts.authority + userinfo.len(), USERINFO)),
            None => parts.target(),
        }
    }

    /// Like [`parse`](Self::parse), but accepts userinfo, and returns it beside the target.
    ///
    /// The authority is split at its last `@` and the userinfo at its first `:`, as browsers and
    /// curl do; the rest of the userinfo may contain both. Empty userinfo is no userinfo.
    ///
    /// # Errors
    /// Like [`parse`](Self::parse), and if the userinfo is badly encoded. Whether it can be sent is
    /// left to the caller.
    pub(crate) fn parse_with_userinfo(url: &str) -> Result<(Self, Option<Userinfo>), Fault> {
        let parts = Parts::split(url)?;
        let userinfo = match parts.userinfo {
            None | Some([] | [b':']) => None,
            Some(bytes) => Some(userinfo(bytes, parts.authority)?),
        };
        Ok((parts.target()?, userinfo))
    }

    /// Restores a target that was parsed before. `path` must be a value returned by
    /// [`path`](Self::path).
    pub(crate) fn restored(origin: Origin, path: &str) -> Self {
        Self {
            origin,
            path: path.to_owned(),
        }
    }

    /// Resolves `reference` against this target (RFC 3986 §5), and drops its fragment.
    ///
    /// # Errors
    /// Like [`parse`](Self::parse), but the position is an index in `reference`.
    pub(crate) fn resolve(&self, reference: &str) -> Result<Self, Fault> {
        self.resolve_with(reference, Self::parse)
    }

    /// Like [`resolve`](Self::resolve), but ignores userinfo: a server cannot choose credentials
    /// for its clients.
    ///
    /// # Errors
    /// As of [`resolve`](Self::resolve), except for userinfo.
    pub(crate) fn follow(&self, reference: &str) -> Result<Self, Fault> {
        self.resolve_with(reference, |url| Parts::split(url)?.target())
    }

    fn resolve_with(
        &self,
        reference: &str,
        parse: impl FnOnce(&str) -> Result<Self, Fault>,
    ) -> Result<Self, Fault> {
        let bytes = reference.as_bytes();
        if let Some(at) = bytes.iter().position(u8::is_ascii_control) {
            return Err(Fault::byte(at, bytes[at]));
        }
        let base = format!("{}{}", self.origin, self.path);
        let (base, parts) = (Reference::split(&base), Reference::split(reference));
        if parts.scheme.is_some_and(|scheme| !is_http(scheme)) {
            return Err(Fault::rule(
                0,
                "leads to a scheme other than http and https",
            ));
        }
        // Scheme and authority come from the reference if it has them. In the result they are then
        // preceded by the base's scheme and colon, or by nothing.
        let before = match parts.scheme {
            Some(_) => 0,
            None => base.scheme.map_or(0, |scheme| scheme.len() + 1),
        };
        parse(&parts.against(base)).map_err(|fault| Fault {
            at: fault.at.and_then(|at| at.checked_sub(before)),
            ..fault
        })
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the request target in origin-form: `/path?query`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Appends `name=value` to the query, with everything but unreserved characters percent-encoded
    /// (RFC 3986 §2.3).
    ///
    /// # Errors
    /// If the value's own `Display` fails, or if the target becomes too long.
    pub(crate) fn push_query(&mut self, name: &str, value: impl fmt::Display) -> Result<(), Fault> {
        let separator = match self.path.find('?') {
            None => "?",
            Some(_) if self.path.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        self.path.push_str(separator);
        percent_encode(&mut self.path, name.as_bytes(), is_unreserved);
        self.path.push('=');
        let written = percent::encode(&mut self.path, Place::Component, value);
        written.map_err(|_| Fault::whole(UNDISPLAYABLE))?;
        self.check_length()
    }

    /// Appends a segment to the path, before the query, with everything but unreserved characters
    /// percent-encoded. RFC 3986 §3.3 would permit more characters, but some servers give them a
    /// meaning of their own.
    ///
    /// # Errors
    /// If the segment is empty, or is a dot segment, which readers of the URL would resolve
    /// (§5.2.4). Dots need no encoding, so no other text encodes to one. Also if the value's own
    /// `Display` fails, or if the target becomes too long.
    pub(crate) fn push_segment(&mut self, segment: impl fmt::Display) -> Result<(), Fault> {
        let end = self.path.find('?').unwrap_or(self.path.len());
        let query = self.path.split_off(end);
        if !self.path.ends_with('/') {
            self.path.push('/');
        }
        let start = self.path.len();
        let written = percent::encode(&mut self.path, Place::Component, segment);
        written.map_err(|_| Fault::whole(UNDISPLAYABLE))?;
        match &self.path[start..] {
            "" => return Err(Fault::whole("a segment must not be empty")),
            "." | ".." => return Err(Fault::whole("a segment must not be . or ..")),
            _ => {}
        }
        self.path.push_str(&query);
        self.check_length()
    }

    /// Refuses a target that [`http::Uri`] would refuse for its length. Encoding and added queries
    /// make a URL longer than it was given.
    fn check_length(&self) -> Result<(), Fault> {
        // Counts "https://", the "[]:65535" around the host and the "25" of a zone id even if they
        // are absent: the limit need not be exact.
        if self.path.len() + self.origin.host().len() + 18 > MAX_URI {
            Err(Fault::whole("longer than 65534 bytes in absolute form"))
        } else {
            Ok(())
        }
    }
}

/// Refuses a value that is invalid in the Host field of a request with an authority (RFC 9110
/// §7.2).
pub(crate) fn check_host_value(value: &[u8]) -> Result<(), Fault> {
    authority(value)?;
    match value.iter().position(|&b| b == b'%') {
        Some(at) => Err(Fault::rule(at, "a zone id has no meaning on another host")),
        None => Ok(()),
    }
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Returns the scheme, and where the authority begins.
fn scheme(url: &str) -> Result<(Scheme, usize), Fault> {
    let end = url.find(':').unwrap_or_default();
    let scheme = match &url[..end] {
        s if s.eq_ignore_ascii_case("http") => Scheme::Http,
        s if s.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => {
            return Err(Fault::rule(
                0,
                "not an absolute URL with the scheme http or https",
            ));
        }
    };
    if url[end + 1..].starts_with("//") {
        Ok((scheme, end + 3))
    } else {
        Err(Fault::rule(end + 1, "missing // after the scheme"))
    }
}

/// A URL, split at its delimiters.
struct Parts<'a> {
    scheme: Scheme,
    /// Where the authority begins.
    authority: usize,
    userinfo: Option<&'a [u8]>,
    /// Where the host begins.
    host: usize,
    /// `host`, `host:port` or `host:`.
    host_and_port: &'a [u8],
    path_and_query: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(url: &'a str) -> Result<Self, Fault> {
        let bytes = url.as_bytes();
        // No control bytes anywhere, even in the fragment: a URL that contains one was assembled
        // from something else.
        if let Some(at) = bytes.iter().position(u8::is_ascii_control) {
            return Err(Fault::byte(at, bytes[at]));
        }
        let (scheme, start) = scheme(url)?;
        let end = find(bytes, start, |b| matches!(b, b'/' | b'?' | b'#'));
        let authority = &bytes[start..end];
        // Browsers treat a backslash as a slash, while RFC 3986 does not treat it as a delimiter.
        if let Some(at) = authority.iter().position(|&b| b == b'\\') {
            return Err(Fault::byte(start + at, b'\\'));
        }
        // At the last `@`, since a reader that takes the first one sees another host.
        let at_sign = authority.iter().rposition(|&b| b == b'@');
        let host = at_sign.map_or(start, |at| start + at + 1);
        Ok(Self {
            scheme,
            authority: start,
            userinfo: at_sign.map(|at| &authority[..at]),
            host,
            host_and_port: &bytes[host..end],
            path_and_query: &bytes[end..find(bytes, end, |b| b == b'#')],
        })
    }

    /// Parses all parts but the userinfo.
    fn target(&self) -> Result<Target, Fault> {
        let from_start = |fault: Fault| Fault {
            at: fault.at.map(|at| self.host + at),
            ..fault
        };
        let mut authority = authority(self.host_and_port).map_err(from_start)?;
        check_host(&mut authority.host).map_err(from_start)?;
        let port = authority.port.unwrap_or(self.scheme.default_port());
        let mut path = String::with_capacity(self.path_and_query.len() + 1);
        if self.path_and_query.first() != Some(&b'/') {
            path.push('/');
        }
        percent_encode(&mut path, self.path_and_query, stands_in_target);
        let target = Target {
            origin: Origin::new(self.scheme, &authority.host, port),
            path,
        };
        target.check_length()?;
        Ok(target)
    }
}

/// Decodes the userinfo of a URL, which begins at `start`. No fault shows a byte of it.
fn userinfo(bytes: &[u8], start: usize) -> Result<Userinfo, Fault> {
    let colon = find(bytes, 0, |b| b == b':');
    let decoded = |part: &[u8], start: usize| {
        let rule = "% in userinfo must precede two hexadecimal digits";
        percent_decode(part).map_err(|at| Fault::rule(start + at, rule))
    };
    Ok(Userinfo {
        user: decoded(&bytes[..colon], start)?,
        password: decoded(
            bytes.get(colon + 1..).unwrap_or_default(),
            start + colon + 1,
        )?,
    })
}

struct Authority {
    /// In lower case. An IPv6 address is in its canonical form (RFC 5952) without brackets, and its
    /// zone id follows `%` as given.
    host: String,
    port: Option<u16>,
}

/// Parses `host`, `host:port` or `host:`. The host is a name, or an IPv6 address in brackets (RFC
/// 3986 §3.2).
fn authority(bytes: &[u8]) -> Result<Authority, Fault> {
    // URLs have been split at their last `@` before. A value of Host has not.
    if let Some(at) = bytes.iter().rposition(|&b| b == b'@') {
        return Err(Fault::rule(at, USERINFO));
    }
    let (host, end) = match bytes.strip_prefix(b"[") {
        Some(inner) => {
            let len = find(inner, 0, |b| b == b']');
            if len == inner.len() {
                return Err(Fault::rule(0, "missing ] after the IPv6 address"));
            }
            (ipv6(&inner[..len])?, len + 2)
        }
        None => {
            let end = find(bytes, 0, |b| b == b':');
            (name(&bytes[..end])?, end)
        }
    };
    let port = match &bytes[end..] {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits, end + 1)?),
        [other, ..] => return Err(Fault::byte(end, *other)),
    };
    Ok(Authority { host, port })
}

/// Parses an IPv6 address after its bracket, with or without a zone id.
fn ipv6(bytes: &[u8]) -> Result<String, Fault> {
    let end = find(bytes, 0, |b| b == b'%');
    let addr = str::from_utf8(&bytes[..end])
        .ok()
        .and_then(|text| text.parse::<Ipv6Addr>().ok())
        .ok_or(Fault::rule(1, "not an IPv6 address"))?;
    match &bytes[end..] {
        [] => Ok(addr.to_string()),
        [_percent, b'2', b'5', id @ ..] => Ok(format!("{addr}%{}", zone(id, end + 4)?)),
        // `[fe80::1%251]` would be zone 1 to one reader and zone 251 to another, so a bare % is
        // refused.
        [..] => Err(Fault::rule(end + 1, "a zone id must follow %25")),
    }
}

/// Parses a zone id: the name or number of a network interface of this host, in unreserved
/// characters (RFC 6874 §2, which RFC 9844 withdrew without defining another form for URLs; curl
/// accepts the same). It is case-sensitive.
///
/// Interfaces whose names contain other characters can be given by number. `%XX` in a zone id is
/// refused, since `%2525` and the like can be read in more than one way.
fn zone(bytes: &[u8], start: usize) -> Result<&str, Fault> {
    if bytes.is_empty() {
        return Err(Fault::rule(start, "zone id is empty"));
    }
    if bytes.len() > MAX_ZONE {
        return Err(Fault::rule(
            start + MAX_ZONE,
            "zone id longer than 64 bytes",
        ));
    }
    match bytes.iter().position(|&b| !is_unreserved(b)) {
        Some(at) => Err(Fault::byte(start + at, bytes[at])),
        None => Ok(str::from_utf8(bytes).unwrap_or_default()),
    }
}

fn name(bytes: &[u8]) -> Result<String, Fault> {
    if bytes.is_empty() {
        return Err(Fault::rule(0, "host is empty"));
    }
    let undotted = bytes.strip_suffix(b".").unwrap_or(bytes);
    if undotted.len() > MAX_HOST {
        return Err(Fault::rule(MAX_HOST, "host longer than 253 bytes"));
    }
    let mut host = String::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'.' if at == 0 || bytes[at - 1] == b'.' => {
                return Err(Fault::rule(at, "empty label in the host"));
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                host.push(byte.to_ascii_lowercase().into());
            }
            0x80.. => {
                return Err(Fault::rule(
                    at,
                    "host is not ASCII: use the A-label (xn--) form",
                ));
            }
            _ => return Err(Fault::byte(at, byte)),
        }
    }
    Ok(host)
}

/// Refuses hosts about which readers may disagree, and hosts that must not be looked up.
fn check_host(host: &mut String) -> Result<(), Fault> {
    if host.contains(':') {
        // IPv6.
        return Ok(());
    }
    if is_onion(host) {
        return Err(Fault::rule(
            0,
            "a .onion name is reached through Tor and never looked up in the DNS (RFC 7686)",
        ));
    }
    if !ends_in_a_number(host) {
        return Ok(());
    }
    let undotted = host.strip_suffix('.').unwrap_or(host);
    match undotted.parse::<Ipv4Addr>() {
        Ok(_) => {
            host.truncate(undotted.len());
            Ok(())
        }
        Err(_) => Err(Fault {
            at: Some(0),
            why: number_fault(undotted),
        }),
    }
}

/// Returns whether `host`, with or without a trailing dot, is `onion` or a name below it.
pub(crate) fn is_onion(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let top = host.rsplit('.').next().unwrap_or_default();
    top.eq_ignore_ascii_case("onion")
}

/// Returns whether the last label is a number, decimal or hexadecimal (WHATWG URL, "ends in a
/// number checker"). Since `inet_aton`, some readers have treated such hosts as addresses and
/// others as names: `127.1` could pass a check as a name, and then connect to loopback.
pub(crate) fn ends_in_a_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    match last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Returns why `host`, which ends in a number, is not an address, and which address may have been
/// meant.
fn number_fault(host: &str) -> Why {
    let parts: Vec<_> = host.split('.').map(Part::parse).collect();
    // As in `inet_aton`, the last number fills the remaining bytes.
    let meant = || {
        let (last, first) = parts.split_last()?;
        if first.len() > 3 {
            return None;
        }
        let mut bits = u32::try_from(last.value?).ok()?;
        if u64::from(bits) >> (8 * (4 - first.len())) != 0 {
            return None;
        }
        for (i, part) in first.iter().enumerate() {
            let byte = u8::try_from(part.value?).ok()?;
            bits |= u32::from(byte) << (24 - 8 * i);
        }
        Some(Ipv4Addr::from_bits(bits))
    };
    if parts.iter().any(|part| part.kind == PartKind::Text) {
        return Why::Number(
            "the last label of a host name must not be a number, and an address consists of numbers only",
            None,
        );
    }
    if parts.iter().any(|part| part.kind == PartKind::Hexadecimal) {
        return Why::Number("the numbers of an IPv4 address must be decimal", meant());
    }
    if parts.len() > 4 {
        return Why::Number("an IPv4 address has four numbers, not more", None);
    }
    if parts.iter().any(|part| part.kind == PartKind::Octal) {
        let rule = "a number with a leading zero is octal to some readers and decimal to others";
        return Why::Number(rule, meant());
    }
    if parts.len() < 4 {
        return Why::Number("an IPv4 address has four numbers, not fewer", meant());
    }
    Why::Number("the numbers of an IPv4 address go up to 255", None)
}

/// A label of a host that ends in a number.
struct Part {
    kind: PartKind,
    /// `None` if the label has no value, or not the same one to all readers.
    value: Option<u64>,
}

#[derive(PartialEq, Eq)]
enum PartKind {
    Decimal,
    /// With a leading zero.
    Octal,
    Hexadecimal,
    Text,
}

impl Part {
    fn parse(label: &str) -> Self {
        let hex = label
            .strip_prefix("0x")
            .or_else(|| label.strip_prefix("0X"));
        let (kind, value) = match hex {
            Some("") => (PartKind::Hexadecimal, Some(0)),
            Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                (PartKind::Hexadecimal, u64::from_str_radix(digits, 16).ok())
            }
            _ if !label.bytes().all(|b| b.is_ascii_digit()) => (PartKind::Text, None),
            _ if label.len() > 1 && label.starts_with('0') => {
                let decimal = label.parse().ok();
                let octal = u64::from_str_radix(label, 8).ok();
                (PartKind::Octal, decimal.filter(|_| decimal == octal))
            }
            _ => (PartKind::Decimal, label.parse().ok()),
        };
        Self { kind, value }
    }
}

fn port(digits: &[u8], start: usize) -> Result<u16, Fault> {
    let mut port = 0_u16;
    for (i, &byte) in digits.iter().enumerate() {
        if !byte.is_ascii_digit() {
            return Err(Fault::byte(start + i, byte));
        }
        port = port
            .checked_mul(10)
            .and_then(|port| port.checked_add(u16::from(byte - b'0')))
            .ok_or(Fault::rule(start, "port greater than 65535"))?;
    }
    match port {
        0 => Err(Fault::rule(start, "port is 0")),
        _ => Ok(port),
    }
}

/// Returns the index of the first byte from `start` on that satisfies `is`, or the end.
fn find(bytes: &[u8], start: usize, is: impl Fn(u8) -> bool) -> usize {
    let found = bytes[start..].iter().position(|&b| is(b));
    found.map_or(bytes.len(), |n| start + n)
}

/// Returns whether a byte of a path or query is written as it is. `%` is, because the URL may be
/// encoded already, and encoding it twice would change its meaning. So are brackets, which RFC 3986
/// reserves but servers accept bare.
fn stands_in_target(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'|' | b'\\' | b'^'
        )
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    fn parsed(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|fault| panic!("{url:?}: {fault}"))
    }

    #[test]
    fn accepted_urls_reach_the_wire_as_written_here() {
        // Description, URL, request target, host, port, Host value.
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, &str, &str, u16, &str)] = &[
            ("plain", "http://example.com/a/b?c=d", "/a/b?c=d", "example.com", 80, "example.com"),
            ("empty path", "http://example.com", "/", "example.com", 80, "example.com"),
            ("query without path", "http://example.com?q", "/?q", "example.com", 80, "example.com"),
            ("empty query stays", "http://example.com/?", "/?", "example.com", 80, "example.com"),
            ("fragment is dropped", "http://example.com/a#b?c", "/a", "example.com", 80, "example.com"),
            ("fragment without path", "http://example.com#/b", "/", "example.com", 80, "example.com"),
            ("fragment after a query", "http://example.com?q#b", "/?q", "example.com", 80, "example.com"),
            ("scheme and host in any case", "HttP://ExAmple.COM/A", "/A", "example.com", 80, "example.com"),
            ("https", "HTTPS://example.com/", "/", "example.com", 443, "example.com"),
            ("https on port 80 includes it", "https://example.com:80/", "/", "example.com", 80, "example.com:80"),
            ("http on port 443 includes it", "http://example.com:443/", "/", "example.com", 443, "example.com:443"),
            ("default port is omitted", "http://example.com:80/", "/", "example.com", 80, "example.com"),
            ("empty port", "http://example.com:/a", "/a", "example.com", 80, "example.com"),
            ("port with leading zeros", "http://example.com:0008080/", "/", "example.com", 8080, "example.com:8080"),
            ("highest port", "http://example.com:65535", "/", "example.com", 65535, "example.com:65535"),
            ("underscore and hyphen", "http://_a-b.c_/", "/", "_a-b.c_", 80, "_a-b.c_"),
            ("one trailing dot", "http://example.com./", "/", "example.com.", 80, "example.com."),
            ("IPv4", "http://127.0.0.1:8080/", "/", "127.0.0.1", 8080, "127.0.0.1:8080"),
            ("IPv6", "http://[::1]/", "/", "::1", 80, "[::1]"),
            ("IPv6 with port", "http://[::1]:8080/", "/", "::1", 8080, "[::1]:8080"),
            ("zone id", "http://[fe80::1%25eth0]/", "/", "fe80::1%eth0", 80, "[fe80::1]"),
            ("zone id and port", "http://[FE80:0::1%25Eth0.1~-_]:8080/a", "/a", "fe80::1%Eth0.1~-_", 8080, "[fe80::1]:8080"),
            ("zone id that is a number", "https://[fe80::1%252]/", "/", "fe80::1%2", 443, "[fe80::1]"),
            ("IPv6 has one canonical form", "http://[0:0:0:0:0:0:0:A]:/", "/", "::a", 80, "[::a]"),
            ("at sign in the path", "http://a/@b@c", "/@b@c", "a", 80, "a"),
            ("at sign in the query", "http://a?u=x@y", "/?u=x@y", "a", 80, "a"),
            ("colon in the path", "http://a/b:c", "/b:c", "a", 80, "a"),
            ("two slashes", "http://a//b", "//b", "a", 80, "a"),
            ("dot segments are left to the server", "http://a/../b/.", "/../b/.", "a", 80, "a"),
            ("space", "http://a/b c?d e", "/b%20c?d%20e", "a", 80, "a"),
            ("encoded bytes stay", "http://a/%2f%zz%", "/%2f%zz%", "a", 80, "a"),
            ("UTF-8", "http://a/é?ü=\u{1f600}", "/%C3%A9?%C3%BC=%F0%9F%98%80", "a", 80, "a"),
            ("characters not allowed in a URL", "http://a/\"<>`{}|\\^", "/%22%3C%3E%60%7B%7D%7C%5C%5E", "a", 80, "a"),
            ("the same in the query", "http://a/?\"<>`{}|\\^", "/?%22%3C%3E%60%7B%7D%7C%5C%5E", "a", 80, "a"),
            ("characters that stay bare", "http://a/!$&'()*+,-.;=_~[]", "/!$&'()*+,-.;=_~[]", "a", 80, "a"),
        ];
        for (why, url, target, host, port, host_value) in ROWS {
            let parsed = parsed(url);
            assert_eq!(parsed.path(), *target, "{why}");
            assert_eq!(parsed.origin().host(), *host, "{why}");
            assert_eq!(parsed.origin().port(), *port, "{why}");
            assert_eq!(
                parsed.origin().authority().to_string(),
                *host_value,
                "{why}"
            );
            let uri: Uri = format!("{}{}", parsed.origin(), target).parse().expect(why);
            assert_eq!(
                uri.path_and_query().map(|p| p.as_str()),
                Some(*target),
                "{why}"
            );
        }
    }

    #[test]
    fn refused_urls_name_the_byte() {
        const NO_SCHEME: &str = "not an absolute URL with the scheme http or https";
        const NOT_ASCII: &str = "host is not ASCII: use the A-label (xn--) form";
        #[rustfmt::skip]
        let rows: &[(&str, &str, Fault)] = &[
            ("empty", "", Fault::rule(0, NO_SCHEME)),
            ("path alone", "/a", Fault::rule(0, NO_SCHEME)),
            ("host alone", "example.com", Fault::rule(0, NO_SCHEME)),
            ("host and port", "example.com:80", Fault::rule(0, NO_SCHEME)),
            ("other scheme", "ftp://a/", Fault::rule(0, NO_SCHEME)),
            ("space before", " http://a/", Fault::rule(0, NO_SCHEME)),
            ("no slashes", "http:a", Fault::rule(5, "missing // after the scheme")),
            ("one slash", "http:/a", Fault::rule(5, "missing // after the scheme")),
            ("backslashes for slashes", "http:\\\\a", Fault::rule(5, "missing // after the scheme")),
            ("no host", "http://", Fault::rule(7, "host is empty")),
            ("path for a host", "http:///a", Fault::rule(7, "host is empty")),
            ("port without host", "http://:80/", Fault::rule(7, "host is empty")),
            ("bare IPv6", "http://::1/", Fault::rule(7, "host is empty")),
            ("user", "http://u@a/", Fault::rule(8, USERINFO)),
            ("user and password", "http://u:p@a/", Fault::rule(10, USERINFO)),
            ("last of two at signs", "http://a@b@c/", Fault::rule(10, USERINFO)),
            ("empty user", "http://@a/", Fault::rule(7, USERINFO)),
            ("backslash", "http://a\\b/", Fault::byte(8, b'\\')),
            ("backslash before an at sign", "http://a\\@b/", Fault::byte(8, b'\\')),
            ("space in the host", "http://a b/", Fault::byte(8, b' ')),
            ("encoded byte in the host", "http://a%2eb/", Fault::byte(8, b'%')),
            ("quote in the host", "http://a'b/", Fault::byte(8, b'\'')),
            ("not ASCII", "http://b\u{fc}cher.de/", Fault::rule(8, NOT_ASCII)),
            ("ideographic full stop", "http://a\u{3002}b/", Fault::rule(8, NOT_ASCII)),
            ("dot alone", "http://./", Fault::rule(7, "empty label in the host")),
            ("dot in front", "http://.a/", Fault::rule(7, "empty label in the host")),
            ("two dots", "http://a..b/", Fault::rule(9, "empty label in the host")),
            ("two trailing dots", "http://a../", Fault::rule(9, "empty label in the host")),
            ("port 0", "http://a:0/", Fault::rule(9, "port is 0")),
            ("port 65536", "http://a:65536/", Fault::rule(9, "port greater than 65535")),
            ("endless port", "http://a:99999999999999999999/", Fault::rule(9, "port greater than 65535")),
            ("port with a sign", "http://a:+80/", Fault::byte(9, b'+')),
            ("port not a number", "http://a:8o/", Fault::byte(10, b'o')),
            ("two ports", "http://a:1:2/", Fault::byte(10, b':')),
            ("IPv6 without end", "http://[::1/", Fault::rule(7, "missing ] after the IPv6 address")),
            ("not IPv6", "http://[a.b]/", Fault::rule(8, "not an IPv6 address")),
            ("empty brackets", "http://[]/", Fault::rule(8, "not an IPv6 address")),
            ("IPv4 in brackets", "http://[127.0.0.1]/", Fault::rule(8, "not an IPv6 address")),
            ("text after IPv6", "http://[::1]a/", Fault::byte(12, b'a')),
            ("zone id after a bare percent sign", "http://[fe80::1%eth0]/", Fault::rule(15, "a zone id must follow %25")),
            ("half of %25", "http://[fe80::1%2]/", Fault::rule(15, "a zone id must follow %25")),
            ("percent sign without zone id", "http://[fe80::1%]/", Fault::rule(15, "a zone id must follow %25")),
            ("empty zone id", "http://[fe80::1%25]/", Fault::rule(18, "zone id is empty")),
            ("encoded byte in a zone id", "http://[fe80::1%25a%2Fb]/", Fault::byte(19, b'%')),
            ("slash in a zone id", "http://[fe80::1%25a/b]/", Fault::rule(7, "missing ] after the IPv6 address")),
            ("colon in a zone id", "http://[fe80::1%25a:b]/", Fault::byte(19, b':')),
            ("not ASCII in a zone id", "http://[fe80::1%25\u{fc}]/", Fault::byte(18, 0xc3)),
            ("zone id of an IPv4 address", "http://[127.0.0.1%25eth0]/", Fault::rule(8, "not an IPv6 address")),
            ("zone id of a name", "http://a%25eth0/", Fault::byte(8, b'%')),
            ("DEL", "http://a/\x7f", Fault::byte(9, 0x7f)),
            ("control byte in the fragment", "http://a/#\x01", Fault::byte(10, 1)),
        ];
        for (why, url, expected) in rows {
            assert_eq!(Target::parse(url).err(), Some(*expected), "{why}");
        }
    }

    #[test]
    fn hosts_that_end_in_a_number_are_dotted_quads() {
        // Host, and the expected result: the host to connect to, or the error.
        #[rustfmt::skip]
        const ROWS: &[(&str, Result<&str, &str>)] = &[
            ("127.0.0.1", Ok("127.0.0.1")),
            ("127.0.0.1.", Ok("127.0.0.1")),
            ("0.0.0.0", Ok("0.0.0.0")),
            ("255.255.255.255", Ok("255.255.255.255")),
            ("1e3", Ok("1e3")),
            ("1.a", Ok("1.a")),
            ("0xg", Ok("0xg")),
            ("0x", Err("the numbers of an IPv4 address must be decimal: write 0.0.0.0 (byte 7)")),
            ("1.2.3.4a", Ok("1.2.3.4a")),
            ("127.0.0.1.test", Ok("127.0.0.1.test")),
            ("1-2", Ok("1-2")),
            ("127.1", Err("an IPv4 address has four numbers, not fewer: write 127.0.0.1 (byte 7)")),
            ("127.1.", Err("an IPv4 address has four numbers, not fewer: write 127.0.0.1 (byte 7)")),
            ("10.1.2", Err("an IPv4 address has four numbers, not fewer: write 10.1.0.2 (byte 7)")),
            ("10.1.65535", Err("an IPv4 address has four numbers, not fewer: write 10.1.255.255 (byte 7)")),
            ("10.1.65536", Err("an IPv4 address has four numbers, not fewer: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("256.1", Err("an IPv4 address has four numbers, not fewer: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("2130706433", Err("an IPv4 address has four numbers, not fewer: write 127.0.0.1 (byte 7)")),
            ("4294967296", Err("an IPv4 address has four numbers, not fewer: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("99999999999999999999999", Err("an IPv4 address has four numbers, not fewer: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("0", Err("an IPv4 address has four numbers, not fewer: write 0.0.0.0 (byte 7)")),
            ("0x7f.1", Err("the numbers of an IPv4 address must be decimal: write 127.0.0.1 (byte 7)")),
            ("0X7F000001", Err("the numbers of an IPv4 address must be decimal: write 127.0.0.1 (byte 7)")),
            ("0x7f.0.0.0x1", Err("the numbers of an IPv4 address must be decimal: write 127.0.0.1 (byte 7)")),
            ("1.2.3.0x", Err("the numbers of an IPv4 address must be decimal: write 1.2.3.0 (byte 7)")),
            ("256.256.256.256", Err("the numbers of an IPv4 address go up to 255: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("1.2.3.256", Err("the numbers of an IPv4 address go up to 255: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("1.2.3.4.5", Err("an IPv4 address has four numbers, not more: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("01.2.3.4", Err("a number with a leading zero is octal to some readers and decimal to others: write 1.2.3.4 (byte 7)")),
            ("010.2.3.4", Err("a number with a leading zero is octal to some readers and decimal to others: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("127.0.0.01", Err("a number with a leading zero is octal to some readers and decimal to others: write 127.0.0.1 (byte 7)")),
            ("1.2.3.09", Err("a number with a leading zero is octal to some readers and decimal to others: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("h.1", Err("the last label of a host name must not be a number, and an address consists of numbers only: an IPv4 address is written like 192.0.2.1 (byte 7)")),
            ("h.0x1f", Err("the last label of a host name must not be a number, and an address consists of numbers only: an IPv4 address is written like 192.0.2.1 (byte 7)")),
        ];
        for (host, expected) in ROWS {
            for port in ["", ":8080"] {
                let found = Target::parse(&format!("http://{host}{port}/"));
                let found = found
                    .map(|target| target.origin().host().to_owned())
                    .map_err(|fault| fault.to_string());
                let found = found.as_deref().map_err(String::as_str);
                assert_eq!(found, *expected, "{host}");
            }
        }
    }

    #[test]
    fn onion_names_are_refused_and_names_that_look_alike_are_not() {
        for (host, is_refused) in [
            ("abcdefghij.onion", true),
            ("www.abcdefghij.onion", true),
            ("abcdefghij.ONION.", true),
            ("AbC.OnIoN", true),
            ("onion", true),
            ("onion.", true),
            ("onion.test", false),
            ("xonion", false),
            ("a.xonion", false),
        ] {
            let fault = Target::parse(&format!("https://{host}/")).err();
            assert_eq!(fault.is_some(), is_refused, "{host}");
            if let Some(fault) = fault {
                assert!(fault.to_string().contains("Tor"), "{fault}");
            }
        }
        // Such a host is only sent in a field to the server that the URL names, and never looked
        // up.
        assert_eq!(check_host_value(b"abcdefghij.onion"), Ok(()));
        assert_eq!(check_host_value(b"127.1"), Ok(()));
    }

    #[test]
    fn control_bytes_are_refused_wherever_they_stand() {
        let url = "http://example.com:80/a?b#c";
        for byte in (0..0x20).chain([0x7f_u8]) {
            for at in 0..=url.len() {
                let mut injected = url.to_owned();
                injected.insert(at, byte.into());
                assert_eq!(Target::parse(&injected).err(), Some(Fault::byte(at, byte)));
            }
        }
    }

    #[test]
    fn hosts_have_253_bytes_and_a_dot_at_most() {
        let longest = "a".repeat(MAX_HOST);
        assert_eq!(
            parsed(&format!("http://{longest}./")).origin().host().len(),
            254
        );
        let fault = Target::parse(&format!("http://{longest}a/")).err();
        assert_eq!(
            fault,
            Some(Fault::rule(7 + MAX_HOST, "host longer than 253 bytes"))
        );
    }

    #[test]
    fn zone_ids_have_64_bytes_at_most() {
        let longest = "z".repeat(MAX_ZONE);
        let host = format!("fe80::1%{longest}");
        let target = parsed(&format!("http://[fe80::1%25{longest}]/"));
        assert_eq!(target.origin().host(), host);
        let fault = Target::parse(&format!("http://[fe80::1%25{longest}z]/")).err();
        let expected = Fault::rule(18 + MAX_ZONE, "zone id longer than 64 bytes");
        assert_eq!(fault, Some(expected));
    }

    #[test]
    fn urls_too_long_for_a_uri_are_refused() {
        for (path, accepted) in [
            ("a".repeat(65_000), true),
            ("a".repeat(65_600), false),
            ("é".repeat(20_000), false),
        ] {
            assert_eq!(Target::parse(&format!("http://a/{path}")).is_ok(), accepted);
        }
        let longest = (65_480..65_534).rev().find_map(|n| {
            Target::parse(&format!("https://[::1%25lo]:8080/{}", "a".repeat(n))).ok()
        });
        let longest = longest.expect("some length is accepted");
        format!("{}{}", longest.origin(), longest.path())
            .parse::<Uri>()
            .expect("the limit is below that of the http crate");
    }

    #[test]
    fn references_lead_where_the_rfc_says() {
        // Base, reference, origin, request target.
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, &str, &str)] = &[
            ("http://a/b/c?d", "", "http://a", "/b/c?d"),
            ("http://a/b/c?d", "#e", "http://a", "/b/c?d"),
            ("http://a/b/c?d", "e f", "http://a", "/b/e%20f"),
            ("http://a/b/c?d", "ü#ß", "http://a", "/b/%C3%BC"),
            ("http://a/b/c?d", "?", "http://a", "/b/c?"),
            ("http://a/b", "//C:081", "http://c:81", "/"),
            ("https://a:444/b", "//a", "https://a", "/"),
            ("https://a:444/b", "c", "https://a:444", "/c"),
            ("http://[fe80::1%25eth0]:81/b", "/c", "http://[fe80::1%25eth0]:81", "/c"),
            ("http://a/b", "HTTP://a:80/c/../d", "http://a", "/d"),
            ("http://a/b", "\\\\c\\d", "http://a", "/%5C%5Cc%5Cd"),
            ("http://a/b", "/\\c", "http://a", "/%5Cc"),
            ("http://a/b", "/@c", "http://a", "/@c"),
            ("http://a/b", "/.//c", "http://a", "//c"),
        ];
        for (base, reference, origin, path) in ROWS {
            let found = parsed(base).resolve(reference).expect(reference);
            assert_eq!(found.origin().to_string(), *origin, "{reference}");
            assert_eq!(found.path(), *path, "{reference}");
            let again = Target::restored(found.origin().clone(), found.path());
            assert_eq!(again.path(), parsed(&format!("{origin}{path}")).path());
        }
    }

    #[test]
    fn references_that_lead_nowhere_name_their_byte() {
        const OTHER: &str = "leads to a scheme other than http and https";
        #[rustfmt::skip]
        let rows: &[(&str, Fault)] = &[
            ("ftp://a/", Fault::rule(0, OTHER)),
            ("mailto:u@a", Fault::rule(0, OTHER)),
            ("javascript:x", Fault::rule(0, OTHER)),
            ("ws://a/", Fault::rule(0, OTHER)),
            ("//u@c/", Fault::rule(3, USERINFO)),
            ("//u:p@c", Fault::rule(5, USERINFO)),
            ("http://u:p@c/", Fault::rule(10, USERINFO)),
            ("http:g", Fault::rule(5, "missing // after the scheme")),
            ("http:", Fault::rule(5, "missing // after the scheme")),
            ("//", Fault::rule(2, "host is empty")),
            ("///c", Fault::rule(2, "host is empty")),
            ("//c\\d", Fault::byte(3, b'\\')),
            ("//c:0", Fault::rule(4, "port is 0")),
            ("/\r\nX: y", Fault::byte(1, b'\r')),
            ("c#\n", Fault::byte(2, b'\n')),
            ("\t", Fault::byte(0, b'\t')),
        ];
        for (reference, expected) in rows {
            let found = parsed("https://a/b").resolve(reference).err();
            assert_eq!(found, Some(*expected), "{reference:?}");
        }
        let endless = "a".repeat(MAX_URI);
        assert!(parsed("https://a/b").resolve(&endless).is_err());
    }

    #[test]
    fn userinfo_is_split_off_and_decoded() {
        // Description, URL, user and password, request target.
        type Pair = Option<(&'static [u8], &'static [u8])>;
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, Pair, &str)] = &[
            ("none", "http://h/a", None, "/a"),
            ("at sign in the path", "http://h/u:p@h", None, "/u:p@h"),
            ("at sign in the query", "http://h?u:p@h", None, "/?u:p@h"),
            ("at sign in the fragment", "http://h#u:p@h", None, "/"),
            ("user", "http://u@h/a", Some((b"u", b"")), "/a"),
            ("user and password", "http://u:p@h/a", Some((b"u", b"p")), "/a"),
            ("user and empty password", "http://u:@h", Some((b"u", b"")), "/"),
            ("password alone", "http://:p@h/", Some((b"", b"p")), "/"),
            ("empty", "http://@h/", None, "/"),
            ("colon alone", "http://:@h/", None, "/"),
            ("percent-encoded", "http://u%40:pa%20ss%3a@h/", Some((b"u@", b"pa ss:")), "/"),
            ("encoded twice", "http://u:%2541@h/", Some((b"u", b"%41")), "/"),
            ("split at the first colon", "http://u:p:q@h/", Some((b"u", b"p:q")), "/"),
            ("split at the last at sign", "http://u:p@q@h/", Some((b"u", b"p@q")), "/"),
            ("at sign in the user", "http://u@v:p@h/", Some((b"u@v", b"p")), "/"),
            ("before an empty path and a query", "http://u:p@h?q@r", Some((b"u", b"p")), "/?q@r"),
            ("UTF-8", "http://\u{fc}:%C3%BC@h/", Some(("\u{fc}".as_bytes(), "\u{fc}".as_bytes())), "/"),
            ("not UTF-8", "http://u:%ff@h/", Some((b"u", b"\xff")), "/"),
            ("control bytes are left to the caller", "http://u:%0d@h/", Some((b"u", b"\r")), "/"),
            ("characters that need no encoding", "http://a!$&'()*+,;=:a b@h/", Some((b"a!$&'()*+,;=", b"a b")), "/"),
        ];
        for (why, url, expected, path) in ROWS {
            let (target, userinfo) =
                Target::parse_with_userinfo(url).unwrap_or_else(|fault| panic!("{why}: {fault}"));
            let pair = userinfo.map(|Userinfo { user, password }| (user, password));
            let pair = pair
                .as_ref()
                .map(|(user, password)| (&user[..], &password[..]));
            assert_eq!(pair, *expected, "{why}");
            assert_eq!(target.origin().to_string(), "http://h", "{why}");
            assert_eq!(target.path(), *path, "{why}");
            // Without an at sign in the authority, both parsers accept the same.
            let has_at_sign = Parts::split(url).unwrap().userinfo.is_some();
            assert_eq!(Target::parse(url).is_err(), has_at_sign, "{why}");
        }
        let (target, _) = Target::parse_with_userinfo("http://u:p@[fe80::1%25lo]:81/").unwrap();
        assert_eq!(target.origin().to_string(), "http://[fe80::1%25lo]:81");
    }

    #[test]
    fn bad_userinfo_is_refused_and_faults_behind_it_keep_their_position() {
        const HEX: &str = "% in userinfo must precede two hexadecimal digits";
        #[rustfmt::skip]
        let rows: &[(&str, Fault)] = &[
            ("http://u%@h/", Fault::rule(8, HEX)),
            ("http://u%4@h/", Fault::rule(8, HEX)),
            ("http://u:1%zz@h/", Fault::rule(10, HEX)),
            ("http://evil.test\\@h/", Fault::byte(16, b'\\')),
            ("http://u:p\\q@h/", Fault::byte(10, b'\\')),
            ("http://u:p@h\\i/", Fault::byte(12, b'\\')),
            ("http://u:p\n@h/", Fault::byte(10, b'\n')),
            ("http://u:p@", Fault::rule(11, "host is empty")),
            ("http://u:p@/h", Fault::rule(11, "host is empty")),
            ("http://u:p@h:0/", Fault::rule(13, "port is 0")),
            ("http://u:p@h i/", Fault::byte(12, b' ')),
            ("ftp://u:p@h/", Fault::rule(0, "not an absolute URL with the scheme http or https")),
        ];
        for (url, expected) in rows {
            let found = Target::parse_with_userinfo(url).err();
            assert_eq!(found, Some(*expected), "{url:?}");
        }
    }

    #[test]
    fn a_location_cannot_set_credentials() {
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, &str)] = &[
            ("//u:p@c/d", "https://c", "/d"),
            ("http://u:p@q@c:81?d@e", "http://c:81", "/?d@e"),
            ("//%zz:%@c", "https://c", "/"),
            ("//@c", "https://c", "/"),
            ("d@e", "https://a", "/d@e"),
            ("\u{fc}?\u{fc}#\u{fc}", "https://a", "/%C3%BC?%C3%BC"),
        ];
        for (location, origin, path) in ROWS {
            let found = parsed("https://a/b").follow(location).expect(location);
            assert_eq!(found.origin().to_string(), *origin, "{location}");
            assert_eq!(found.path(), *path, "{location}");
        }
        #[rustfmt::skip]
        let rows: &[(&str, Fault)] = &[
            ("//evil.test\\@c/", Fault::byte(11, b'\\')),
            ("//u:p@", Fault::rule(6, "host is empty")),
            ("ftp://u@c/", Fault::rule(0, "leads to a scheme other than http and https")),
        ];
        for (location, expected) in rows {
            let found = parsed("https://a/b").follow(location).err();
            assert_eq!(found, Some(*expected), "{location:?}");
        }
    }

    #[test]
    fn segments_are_appended_to_the_path() {
        // URL, segments, request target.
        #[rustfmt::skip]
        const ROWS: &[(&str, &[&str], &str)] = &[
            ("http://h", &[], "/"),
            ("http://h", &["a"], "/a"),
            ("http://h/", &["a"], "/a"),
            ("http://h/a/b", &["c"], "/a/b/c"),
            ("http://h/a/b/", &["c"], "/a/b/c"),
            ("http://h/a//", &["c"], "/a//c"),
            ("http://h/a", &["b", "c", "d"], "/a/b/c/d"),
            ("http://h?q/r", &["a"], "/a?q/r"),
            ("http://h/a/?q", &["b", "c"], "/a/b/c?q"),
            ("http://h/a#f", &["b"], "/a/b"),
            ("http://h/a", &["/"], "/a/%2F"),
            ("http://h/a", &["../b", "./", "..\\"], "/a/..%2Fb/.%2F/..%5C"),
            ("http://h/a", &["?", "#", "%", ";", ":@!$&'()*+,="], "/a/%3F/%23/%25/%3B/%3A%40%21%24%26%27%28%29%2A%2B%2C%3D"),
            ("http://h/a", &["%2e", "%2E%2e", ".%2e"], "/a/%252e/%252E%252e/.%252e"),
            ("http://h/a", &["...", ".a", "a.", ". "], "/a/.../.a/a./.%20"),
            ("http://h/a", &["\u{e9} \r\n\0"], "/a/%C3%A9%20%0D%0A%00"),
            ("http://h/a", &["aZ09-._~"], "/a/aZ09-._~"),
        ];
        for (url, segments, expected) in ROWS {
            let mut target = parsed(url);
            for segment in *segments {
                target.push_segment(segment).expect(segment);
            }
            assert_eq!(target.path(), *expected, "{url} {segments:?}");
            // A reader of the URL finds the same segments, and resolves none of them.
            let url = format!("http://h{expected}");
            assert_eq!(parsed("http://h").resolve(&url).unwrap().path(), *expected);
        }
        for (segment, expected) in [
            ("", "a segment must not be empty"),
            (".", "a segment must not be . or .."),
            ("..", "a segment must not be . or .."),
        ] {
            let found = parsed("http://h/a").push_segment(segment).err();
            assert_eq!(found, Some(Fault::whole(expected)), "{segment:?}");
        }
        let endless = "a".repeat(MAX_URI);
        assert!(parsed("http://h/a").push_segment(endless).is_err());
    }

    /// Whatever a segment or a pair consists of, the target keeps its shape.
    #[test]
    fn no_character_of_a_segment_or_a_pair_separates() {
        let fullwidth = 0xff00..0xffff;
        for c in (0..0x300).chain(fullwidth).filter_map(char::from_u32) {
            for text in [
                format!("{c}"),
                format!("{c}{c}"),
                format!(".{c}"),
                format!("{c}."),
            ] {
                let mut target = parsed("http://h/x/");
                if target.push_segment(&text).is_err() {
                    assert!([".", ".."].contains(&text.as_str()), "{text:?}");
                    continue;
                }
                target.push_query(&text, &text).unwrap();
                let (path, query) = target.path().split_once('?').unwrap();
                let segment = path.strip_prefix("/x/").unwrap();
                let pair: Vec<&str> = query.split('=').collect();
                assert_eq!(pair.len(), 2, "{text:?}");
                let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
                assert!(
                    [segment, pair[0], pair[1]]
                        .iter()
                        .all(|it| it.bytes().all(is_safe)),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn query_pairs_are_appended() {
        // URL, pairs, request target.
        type Pairs = &'static [(&'static str, &'static str)];
        #[rustfmt::skip]
        const ROWS: &[(&str, Pairs, &str)] = &[
            ("http://a", &[("q", "x y")], "/?q=x%20y"),
            ("http://a/b?c=d", &[("e", "f")], "/b?c=d&e=f"),
            ("http://a/b?", &[("e", "f"), ("g", "")], "/b?e=f&g="),
            ("http://a/b?c&", &[("e", "f")], "/b?c&e=f"),
            ("http://a/b#frag", &[("e", "f")], "/b?e=f"),
            ("http://a/", &[("&=+%#?/", "\r\n\0é~-._")], "/?%26%3D%2B%25%23%3F%2F=%0D%0A%00%C3%A9~-._"),
            ("http://a/?", &[], "/?"),
        ];
        for (url, pairs, expected) in ROWS {
            let mut target = parsed(url);
            for (name, value) in *pairs {
                target.push_query(name, value).unwrap();
            }
            assert_eq!(target.path(), *expected);
        }
    }

    #[test]
    fn host_values_follow_the_rules_of_authorities() {
        for good in [
            "a",
            "A.b:80",
            "a:",
            "[::1]",
            "[::1]:8080",
            "127.0.0.1",
            "a.",
        ] {
            assert_eq!(check_host_value(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "u@a",
            "a:0",
            "a:x",
            "[::1",
            "::1",
            "http://a",
            "a,b",
            "a\\b",
            "[fe80::1%25eth0]",
        ] {
            assert!(check_host_value(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
