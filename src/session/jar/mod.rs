//! The cookie jar: cookies that servers set, kept for the requests that follow (RFC 6265bis,
//! draft-ietf-httpbis-rfc6265bis).
//!
//! `set_cookie` and `date` parse what a server sends, `cookie` decides whether it may be stored and
//! where it goes, `site` and `store` hold it, `lines` keeps the fields that were sent last, and
//! `file` reads and writes `cookies.txt`. Time is an argument everywhere but in the public methods.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use log::debug;

use crate::error::Error;
use crate::proto::target::{Fault, Target};
use crate::proto::{InvalidPart, Scheme};

mod cookie;
mod date;
mod domain;
mod file;
mod lines;
mod refusal;
mod set_cookie;
mod site;
mod store;
#[cfg(test)]
mod tests;

use cookie::Place;
use store::Store;

/// The cookies of a session, as RFC 6265bis defines their handling. Clones share the cookies.
///
/// A cookie goes to the host that set it, or to all hosts of the domain that it names. A domain
/// under which others can register, a *public suffix* such as `co.uk` or `github.io`, is refused.
/// `Secure` cookies are accepted from https and sent over https only, even on loopback, and http
/// cannot replace them. The prefixes `__Secure-` and `__Host-` are enforced.
///
/// `SameSite` is ignored: it restricts requests that pages of other sites cause, and a client
/// without pages has none. `HttpOnly` is only kept for the file.
///
/// ```
/// use httpstream::session::Jar;
///
/// let jar = Jar::new();
/// jar.set("https://www.example.com/login", "id=31; Domain=example.com; Path=/; Secure")?;
/// assert_eq!(jar.get("https://shop.example.com/", "id").as_deref(), Some("31"));
/// assert_eq!(jar.get("http://shop.example.com/", "id"), None, "it is a Secure cookie");
/// assert!(jar.set("https://example.co.uk/", "id=31; Domain=co.uk").is_err());
/// # Ok::<(), httpstream::Error>(())
/// ```
///
/// # Limits
/// | what | limit | beyond it |
/// |---|---|---|
/// | name and value | 4,096 bytes | the cookie is refused |
/// | path | 1,024 bytes | the cookie is refused |
/// | value of an attribute | 1,024 bytes | the attribute is ignored |
/// | lifetime | 400 days | the cookie expires then |
/// | cookies of a domain | 50 | one of them is removed |
/// | cookies of a site, over all its domains | 180 | one of them is removed |
/// | cookies in all | 3,000 | the expired ones are removed, and others until 2,700 are left |
/// | cookies in a request | 150 | the last ones are left out |
/// | bytes of cookies in a request | 16 KiB | the last ones are left out |
///
/// A site is a public suffix with one more label, such as `example.co.uk`. Of a domain or a site,
/// the least recently used cookie that is not `Secure` is removed first, which may be the one just
/// set; then the least recently used of the others. Of the whole jar, they are the least recently
/// used cookies. A cookie that a request carries again because nothing has changed since does not
/// count as used again.
///
/// In a request, cookies with longer paths come first, then those created earlier.
///
/// # Time
/// An engine passes its own time to the jar, so in a simulation cookies expire in simulated time.
/// `get`, `set`, `remove`, `load` and `save` use the time of the system: a cookie that `set` stores
/// with a lifetime expires relative to the system's clock, and `save` leaves out what has expired
/// by that clock. Cookies without `Max-Age` and `Expires` are not affected.
#[derive(Clone, Default)]
pub struct Jar(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The number of cookies in `store`, readable without locking it.
    len: AtomicUsize,
    store: Mutex<Store>,
}

impl Jar {
    /// Creates an empty jar.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file in Netscape's format, `cookies.txt`, as written by [`save`](Self::save), curl
    /// and others. Cookies that have expired, that are for a public suffix, or that violate another
    /// rule or limit are left out.
    ///
    /// Nothing is loaded or saved by itself.
    ///
    /// ```no_run
    /// use std::io::ErrorKind;
    /// use httpstream::session::Jar;
    ///
    /// let jar = match Jar::load("cookies.txt") {
    ///     // The first start.
    ///     Err(error) if error.kind() == ErrorKind::NotFound => Jar::new(),
    ///     loaded => loaded?,
    /// };
    /// // ... and in the end:
    /// jar.save("cookies.txt")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read, and [`InvalidData`](io::ErrorKind::InvalidData) if a line is
    /// malformed or the file is longer than 64 MiB. The error contains the number of the line and
    /// what is wrong with it, but nothing of its content.
    pub fn load(path: impl AsRef<Path>) -> io::Result<Self> {
        let store = file::parse(&file::read(path.as_ref())?, SystemTime::now())?;
        Ok(Self(Arc::new(Shared {
            len: AtomicUsize::new(store.len()),
            store: Mutex::new(store),
        })))
    }

    /// Writes the cookies to a file in Netscape's format, `cookies.txt`. Cookies without a lifetime
    /// are written too. Cookies that contain a tab are left out, because the format cannot hold
    /// them.
    ///
    /// The file replaces an existing one atomically, and on Unix only its owner may read it. If
    /// `path` is a symbolic link, the file replaces the link. It is written first under a temporary
    /// name in the same folder. The call blocks until the content has reached the disk.
    ///
    /// # Errors
    /// If the file cannot be written, or `path` leads to something that is no file, such as a
    /// device. What exists is then unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let text = self.with(|store| file::format(store, SystemTime::now()));
        file::replace(path.as_ref(), &text)
    }

    /// Returns the value of the cookie of this name that a request to `url` would carry now. If
    /// there are several, it is the first of them, the one with the longest path. Bytes that are
    /// not UTF-8 are replaced by U+FFFD.
    ///
    /// `None` also if `url` is not a valid URL.
    pub fn get(&self, url: &str, name: &str) -> Option<String> {
        let target = Target::parse(url).ok()?;
        self.with(|store| {
            let value = store.value(&place(&target), name.as_bytes(), SystemTime::now())?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }

    /// Stores a cookie as if a response from `url` had set it. `cookie` is the value of a
    /// Set-Cookie field, such as `id=31; Path=/; Max-Age=3600`.
    ///
    /// # Errors
    /// Of the kind [`InvalidRequest`](crate::ErrorKind::InvalidRequest), if `url` is not a valid
    /// URL or the cookie is refused. The error contains the reason, but nothing of the cookie.
    pub fn set(&self, url: &str, cookie: &str) -> Result<(), Error> {
        let target = Target::parse(url).map_err(|fault| InvalidPart::Url.is(fault))?;
        let now = SystemTime::now();
        self.with(|store| store.receive(cookie.as_bytes(), &place(&target), now))
            .map_err(|why| InvalidPart::value_of("Set-Cookie").is(Fault::whole(why.as_str())))?;
        Ok(())
    }

    /// Removes all cookies of this name that a request to `url` would carry now, and returns
    /// whether there were any. `url` must be a valid URL.
    pub fn remove(&self, url: &str, name: &str) -> bool {
        let Ok(target) = Target::parse(url) else {
            return false;
        };
        self.with(|store| store.remove(&place(&target), name.as_bytes(), SystemTime::now()))
    }

    /// Removes all cookies.
    pub fn clear(&self) {
        self.with(Store::clear);
    }

    /// Returns the number of cookies. It may include some that have expired.
    pub fn len(&self) -> usize {
        self.0.len.load(Ordering::Acquire)
    }

    /// Returns whether there are no cookies at all. Takes no lock.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores what the Set-Cookie fields of a response set. What is refused is logged and ignored.
    ///
    /// `host` is as in [`Origin::host`](crate::Origin::host), and `path` may have a query.
    pub(crate) fn store<'v>(
        &self,
        scheme: Scheme,
        host: &str,
        path: &str,
        set_cookie: impl Iterator<Item = &'v [u8]>,
        now: SystemTime,
    ) {
        let from = Place::new(scheme, host, path);
        for field in set_cookie {
            // Logged after the lock is released, since a logger may be anything.
            if let Err(why) = self.with(|store| store.receive(field, &from, now)) {
                debug!("{scheme}://{host}: cookie refused: {}", why.as_str());
            }
        }
    }

    /// Calls `write` with the value of the Cookie field for a request, unless there is none.
    ///
    /// An empty jar costs an atomic load, and an unchanged one neither an allocation nor a search
    /// if the request goes where one of the last ones went. `host` and `path` are as in
    /// [`store`](Self::store).
    pub(crate) fn with_line<R>(
        &self,
        scheme: Scheme,
        host: &str,
        path: &str,
        now: SystemTime,
        write: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let line = self.with(|store| store.line(&Place::new(scheme, host, path), now))?;
        Some(write(&line))
    }

    fn with<R>(&self, act: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut store);
        self.0.len.store(store.len(), Ordering::Release);
        result
    }
}

fn place(target: &Target) -> Place<'_> {
    let origin = target.origin();
    Place::new(origin.scheme(), origin.host(), target.path())
}

/// Shows how many cookies of how many sites there are.
impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cookies, sites) = self.with(|store| (store.len(), store.sites()));
        f.debug_struct("Jar")
            .field("cookies", &cookies)
            .field("sites", &sites)
            .finish()
    }
}
