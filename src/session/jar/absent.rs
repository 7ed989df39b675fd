//! Stands in for `jar` in a build without the feature `cookies`: a jar that holds nothing.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::error::Error;
use crate::proto::target::{Fault, Target};
use crate::proto::{InvalidPart, Scheme};

const ABSENT: &str = "built without the feature `cookies`";

/// The cookies of a session. In a build without the feature `cookies`, a jar holds nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Jar;

impl Jar {
    /// Creates an empty jar.
    pub fn new() -> Self {
        Self
    }

    /// Reads a file in Netscape's format, with the feature `cookies`.
    ///
    /// # Errors
    /// [`Unsupported`](io::ErrorKind::Unsupported) without it.
    pub fn load(_: impl AsRef<Path>) -> io::Result<Self> {
        Err(unsupported())
    }

    /// Writes the cookies to a file in Netscape's format, with the feature `cookies`.
    ///
    /// # Errors
    /// [`Unsupported`](io::ErrorKind::Unsupported) without it.
    pub fn save(&self, _: impl AsRef<Path>) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns the value of a cookie, with the feature `cookies`; `None` without it.
    pub fn get(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    /// Stores a cookie, with the feature `cookies`.
    ///
    /// # Errors
    /// Always of the kind [`InvalidRequest`](crate::ErrorKind::InvalidRequest) without it.
    pub fn set(&self, url: &str, _: &str) -> Result<(), Error> {
        Target::parse(url).map_err(|fault| InvalidPart::Url.is(fault))?;
        Err(InvalidPart::header("Set-Cookie")
            .is(Fault::whole(ABSENT))
            .into())
    }

    /// Removes the cookies of a name, with the feature `cookies`; returns false without it.
    pub fn remove(&self, _: &str, _: &str) -> bool {
        false
    }

    /// Removes all cookies. In this build there are none.
    pub fn clear(&self) {}

    /// Returns the number of cookies, which is 0 in this build.
    pub fn len(&self) -> usize {
        0
    }

    /// Returns whether there are no cookies, which is true in this build.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Does nothing.
    pub(crate) fn store<'v>(
        &self,
        _: Scheme,
        _: &str,
        _: &str,
        _: impl Iterator<Item = &'v [u8]>,
        _: SystemTime,
    ) {
    }

    /// Returns `None`.
    pub(crate) fn with_line<R>(
        &self,
        _: Scheme,
        _: &str,
        _: &str,
        _: SystemTime,
        _: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        None
    }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, ABSENT)
}
