//! Reading and writing Netscape's `cookies.txt`, the format that curl, wget and browser extensions
//! exchange cookies in.
//!
//! A line holds one cookie in seven fields with tabs between them: domain, whether the cookie goes
//! to its subdomains, path, whether it is Secure, when it expires in seconds since 1970 (0 for the
//! end of the session), name, value. The prefix `#HttpOnly_` marks an HttpOnly cookie; other lines
//! that begin with `#` are comments.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::cookie::{Cookie, Scope};
use super::domain;
use super::set_cookie::{seconds, trim};
use super::store::Store;
use crate::proto::{Origin, Scheme};

const HEADER: &[u8] = b"# Netscape HTTP Cookie File\n";
const HTTP_ONLY: &[u8] = b"#HttpOnly_";
const YES: &[u8] = b"TRUE";
const NO: &[u8] = b"FALSE";

/// What is wrong with a line. Contains nothing of the line.
type Malformed = &'static str;

/// Reads a file's content. Cookies that have expired, or that no host may set, are left out.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if a line is malformed. The error contains its number and what is
/// wrong with it.
pub(super) fn parse(text: &[u8], now: SystemTime) -> io::Result<Store> {
    let mut store = Store::default();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let cookie = cookie(line).map_err(|what| malformed(number, what))?;
        if let Some(cookie) = cookie.and_then(|cookie| cookie.checked(now).ok()) {
            // A saved jar has already applied the rule for insecure origins, the only one that may
            // refuse a cookie here.
            let _ = store.put(cookie, Scheme::Https, now);
        }
    }
    Ok(store)
}

fn malformed(number: usize, what: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {what}"))
}

/// Reads a line; `None` if it holds no cookie.
fn cookie(line: &[u8]) -> Result<Option<Cookie>, Malformed> {
    let (http_only, line) = match line.strip_prefix(HTTP_ONLY) {
        Some(line) => (true, line),
        None => (false, line),
    };
    if !http_only && (line.starts_with(b"#") || trim(line).is_empty()) {
        return Ok(None);
    }
    let mut fields = line.split(|&byte| byte == b'\t');
    let mut next = || {
        fields
            .next()
            .ok_or("fewer than 6 fields with tabs between them")
    };
    let (host, subdomains, path) = (next()?, next()?, next()?);
    let (secure, expiry, name) = (next()?, next()?, next()?);
    // Some programs leave out the last tab if the value is empty.
    let value = next().unwrap_or_default();
    if fields.next().is_some() {
        return Err("more than 7 fields with tabs between them");
    }
    let domain = canonical(host).ok_or("the domain is not a valid host")?;
    let is_domain = flag(subdomains).ok_or("the second field is neither TRUE nor FALSE")?;
    let scope = if is_domain && !domain::is_address(&domain) {
        Scope::Domain
    } else {
        Scope::Host
    };
    if !path.starts_with(b"/") {
        return Err("the path does not begin with a slash");
    }
    let (name, value) = (trim(name), trim(value));
    // Such a cookie would be sent as several, or under another name.
    if name.contains(&b'=') || [name, value].iter().any(|text| text.contains(&b';')) {
        return Err("a delimiter in the name or the value");
    }
    if [path, name, value]
        .iter()
        .any(|text| text.iter().any(u8::is_ascii_control))
    {
        return Err("a control character in the path, the name or the value");
    }
    Ok(Some(Cookie {
        name: name.into(),
        value: value.into(),
        domain: domain.into(),
        scope,
        path: path.into(),
        secure: flag(secure).ok_or("the fourth field is neither TRUE nor FALSE")?,
        http_only,
        expires: expires(expiry)?,
        created: 0,
        used: 0,
    }))
}

fn flag(field: &[u8]) -> Option<bool> {
    let is = |name: &[u8]| field.eq_ignore_ascii_case(name);
    if is(YES) {
        Some(true)
    } else {
        is(NO).then_some(false)
    }
}

/// Returns when a cookie expires; `None` if it lasts as long as the session. A time that the
/// system cannot represent counts as never, and is then cut to the longest lifetime.
fn expires(field: &[u8]) -> Result<Option<SystemTime>, Malformed> {
    match seconds(field).ok_or("the expiry is not a number of seconds")? {
        0 => Ok(None),
        seconds => {
            let far = Duration::from_secs(u32::MAX.into());
            let at = |since| SystemTime::UNIX_EPOCH.checked_add(since);
            Ok(at(Duration::from_secs(seconds)).or_else(|| at(far)))
        }
    }
}

/// Returns the host as in [`Origin::host`]. A leading dot is dropped.
fn canonical(host: &[u8]) -> Option<String> {
    let host = str::from_utf8(host).ok()?;
    let host = host.strip_prefix('.').unwrap_or(host);
    let url = if host.contains(':') {
        format!("http://[{}]", host.replacen('%', "%25", 1))
    } else {
        format!("http://{host}")
    };
    let origin: Origin = url.parse().ok()?;
    Some(origin.host().to_owned())
}

/// Writes a file's content. Cookies with a tab, which the format cannot hold, are left out.
pub(super) fn format(store: &Store, now: SystemTime) -> Vec<u8> {
    let mut text = HEADER.to_vec();
    for cookie in store.cookies(now) {
        let has_tab = |text: &[u8]| text.contains(&b'\t');
        if !has_tab(&cookie.name) && !has_tab(&cookie.value) && !has_tab(&cookie.path) {
            write(cookie, &mut text);
        }
    }
    text
}

fn write(cookie: &Cookie, out: &mut Vec<u8>) {
    let yes_or_no = |flag| if flag { YES } else { NO };
    let is_domain = cookie.scope == Scope::Domain;
    let since = cookie
        .expires
        .map(|at| at.duration_since(SystemTime::UNIX_EPOCH));
    // 0 would make it a cookie of the session.
    let expiry = since.map_or(0, |since| since.map_or(1, |since| since.as_secs().max(1)));
    if cookie.http_only {
        out.extend_from_slice(HTTP_ONLY);
    }
    if is_domain {
        out.push(b'.');
    }
    out.extend_from_slice(cookie.domain.as_bytes());
    let expiry = expiry.to_string();
    for field in [
        yes_or_no(is_domain),
        &cookie.path,
        yes_or_no(cookie.secure),
        expiry.as_bytes(),
        &cookie.name,
        &cookie.value,
    ] {
        out.push(b'\t');
        out.extend_from_slice(field);
    }
    out.push(b'\n');
}

/// The longest file that is read, in bytes. One with as many cookies as a jar holds is a quarter of
/// that at most.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a file.
///
/// # Errors
/// If it cannot be read or is too long.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more shows that there are more. The length of a pipe is not known beforehand.
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        let why = format!("the file is longer than {MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// Writes a file that only its owner may read. Whoever opens `path` finds either the old content or
/// the new one, also after a crash.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // A rename would replace a device by a file, for all programs of the machine.
    if fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
        let why = "the path leads to something that is no file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let (temporary, mut file) = create_beside(path)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Creates a file in the same folder, because a rename is atomic only within a file system. Its
/// name differs from those of all other saves of this process and of others.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    /// The most names that are tried.
    const MOST: usize = 1000;
    static SAVES: AtomicU32 = AtomicU32::new(0);
    if path.file_name().is_none() {
        let why = "the path names no file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut last = None;
    for _ in 0..MOST {
        // Without the file's own name, which may be as long as names can be.
        let save = SAVES.fetch_add(1, Ordering::Relaxed);
        let name = format!(".cookies.{}.{save}.tmp", process::id());
        let temporary = path.with_file_name(name);
        match create(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            // Of a process that has crashed, or that has the same number in another container.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.expect("at least one name was tried"))
}

/// Creates a file. It must not exist: whoever has put a file or a link there may read it.
#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    /// Reading and writing for the owner, nothing for others.
    const PRIVATE: u32 = 0o600;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(path)
}

/// Creates a file. It must not exist.
#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}
