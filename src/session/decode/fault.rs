//! The errors of decoders, which name their coding.

use std::fmt;
use std::io;

/// The body is not what its coding says.
pub(super) fn malformed(coding: &str, why: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{coding}: {why}"))
}

/// The body ended before its coding did.
pub(super) fn cut_short(coding: &str) -> io::Error {
    let why = format!("{coding}: the body ended before its coding did");
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
