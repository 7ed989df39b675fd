//! Request bodies that are read while they are sent: sources of bytes, files, readers, channels and
//! forms.
//!
//! A [`BodySource`] is pulled: the engine asks it for a piece when the connection accepts one, so a
//! body of any size takes a constant amount of memory.

use std::io;
use std::task::Waker;

use crate::policy::Fields;

/// A source of bytes that the engine reads when the connection has room for them: the body of a
/// request, or what is sent on a tunnel.
///
/// A source is `Send`, since a request goes between threads, but it is used by one thread at a
/// time. Its methods run inside a turn of the engine, so they must not block for long.
pub trait BodySource: Send {
    /// Returns the length of the body in bytes, which is sent as Content-Length (RFC 9112 §6.2).
    /// `None` if it is not known: the body is then sent in chunks (RFC 9112 §7.1).
    ///
    /// A source that yields more or fewer bytes than this fails the exchange with
    /// [`ErrorKind::Body`](crate::ErrorKind::Body), and the server does not receive a complete
    /// request. No byte beyond the length is sent.
    fn size(&self) -> Option<u64>;

    /// Writes the next bytes to the beginning of `room`, which is never empty.
    ///
    /// [`Supply::Wait`] means that there is nothing to send yet. The source is then asked again
    /// once `waker` or a clone of it has been woken, from any thread.
    ///
    /// # Errors
    /// An error fails the exchange with [`ErrorKind::Body`](crate::ErrorKind::Body) and becomes the
    /// source of that error.
    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply>;

    /// Adds trailer fields (RFC 9112 §7.1.2). Called once, after [`Supply::End`], for a body sent in
    /// chunks; what can only be known by then, such as a checksum, goes here.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn trailers(&mut self, fields: &mut Fields<'_>) -> io::Result<()> {
        let _ = fields;
        Ok(())
    }
}

/// What a [`BodySource`] has to send; returned by [`BodySource::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// This many bytes, at the beginning of the room. At least one, at most the length of the room.
    Bytes(usize),
    /// Nothing yet. The source is asked again once its waker has been woken.
    Wait,
    /// The body is over.
    End,
}

impl BodySource for Box<dyn BodySource> {
    fn size(&self) -> Option<u64> {
        (**self).size()
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        (**self).read(room, waker)
    }

    fn trailers(&mut self, fields: &mut Fields<'_>) -> io::Result<()> {
        (**self).trailers(fields)
    }
}
