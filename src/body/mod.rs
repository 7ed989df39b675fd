//! Request bodies that are read while they are sent: sources of bytes, files, readers, channels and
//! forms.
//!
//! A [`BodySource`] is pulled: the engine asks it for a piece when the connection accepts one, so a
//! body of any size takes a constant amount of memory.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::builder::RequestBuilder;
use crate::policy::Fields;
use crate::request::{CarriedBody, Request};

mod channel;
mod form;
mod reader;
mod stream;

pub use channel::{BodyReceiver, BodySender, channel};
pub use form::Form;
pub use stream::BodyStream;
pub(crate) use stream::{Control, StreamPipe};

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
    /// once `waker` or a clone of it has been woken, from any thread; as a part of a form, it may
    /// be asked earlier.
    ///
    /// # Errors
    /// An error fails the exchange with [`ErrorKind::Body`](crate::ErrorKind::Body) and becomes the
    /// source of that error.
    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply>;

    /// Adds trailer fields (RFC 9112 §7.1.2). Called once, after [`Supply::End`], for a body sent
    /// in chunks; what can only be known by then, such as a checksum, goes here.
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

/// What a request carries of its body: how to get a source for an attempt.
pub(crate) enum Factory {
    /// A new source for each attempt.
    Each(Box<dyn Fn() -> io::Result<Box<dyn BodySource>> + Send + Sync>),
    /// One source, for one attempt.
    Once(Mutex<Option<Box<dyn BodySource>>>),
}

impl Factory {
    /// Returns the factory of a request, if its body has one.
    pub(crate) fn of(request: &Request) -> Option<&Self> {
        let body = request.carried_body()?;
        let factory = body.factory.downcast_ref();
        Some(factory.expect("only this module gives requests a factory"))
    }

    fn carried(self) -> Arc<CarriedBody> {
        let is_repeatable = matches!(self, Self::Each(_));
        Arc::new(CarriedBody {
            factory: Box::new(self),
            is_repeatable,
        })
    }

    /// Returns a source for an attempt.
    pub(crate) fn open(&self) -> io::Result<Box<dyn BodySource>> {
        match self {
            Self::Each(make) => make(),
            Self::Once(slot) => lock(slot).take().ok_or_else(|| {
                io::Error::other(
                    "the body has been sent once and cannot be sent again; with `body_with`, each \
                     attempt gets a source of its own",
                )
            }),
        }
    }

    /// Returns whether there is a source for another attempt.
    pub(crate) fn can_open(&self) -> bool {
        match self {
            Self::Each(_) => true,
            Self::Once(slot) => lock(slot).is_some(),
        }
    }

    /// Takes back a source that has not been read, for another attempt. Returns it if each attempt
    /// gets its own.
    pub(crate) fn put_back(&self, source: Box<dyn BodySource>) -> Option<Box<dyn BodySource>> {
        match self {
            Self::Each(_) => Some(source),
            Self::Once(slot) => lock(slot).replace(source),
        }
    }
}

/// Nothing that is done under these locks leaves their content inconsistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RequestBuilder {
    /// Sets a body that is read from a source while it is sent. `make` is called once for each
    /// attempt, so the body can be sent again: on another connection, after a redirect (307 or
    /// 308), a challenge (401) or a retry.
    ///
    /// The [size](BodySource::size) of the source becomes Content-Length; a body of unknown size is
    /// sent in chunks. An error of `make` fails the attempt with
    /// [`ErrorKind::Body`](crate::ErrorKind::Body) before anything is sent.
    ///
    /// ```
    /// use std::io;
    /// use std::task::Waker;
    /// use httpstream::sim::{Answer, Incoming, Network};
    /// use httpstream::{BodySource, Config, Engine, Next, Request, Sim, Supply};
    ///
    /// /// The numbers from 1 to 1000, a line each.
    /// struct Numbers(u32);
    ///
    /// impl BodySource for Numbers {
    ///     fn size(&self) -> Option<u64> {
    ///         None
    ///     }
    ///     fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
    ///         if self.0 == 1000 {
    ///             return Ok(Supply::End);
    ///         }
    ///         self.0 += 1;
    ///         let line = format!("{}\n", self.0);
    ///         room[..line.len()].copy_from_slice(line.as_bytes());
    ///         Ok(Supply::Bytes(line.len()))
    ///     }
    /// }
    ///
    /// let network = Network::new(1);
    /// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
    ///     let lines = request.body().split(|&byte| byte == b'\n').count() - 1;
    ///     Answer::ok(format!("{lines} lines"))
    /// });
    /// let mut engine = Engine::<String, Sim>::on_network(&network, Config::default())?;
    /// let put = Request::put("http://10.0.0.1/numbers").body_with(|| Ok(Numbers(0)));
    /// engine.submit(put.build()?, |told: &mut String, reply, _| {
    ///     told.push_str(reply.unwrap().text().unwrap());
    ///     Next::done()
    /// });
    /// let mut told = String::new();
    /// engine.run(&mut told)?;
    /// assert_eq!(told, "1000 lines");
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn body_with<B: BodySource + 'static>(
        self,
        make: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Self {
        let make = move || Ok(Box::new(make()?) as Box<dyn BodySource>);
        self.carry_body(Factory::Each(Box::new(make)).carried(), None)
    }

    /// Sets a body that is read from this source while it is sent, once.
    ///
    /// A source cannot be read twice, so the request [is not
    /// repeatable](crate::Request::is_repeatable): redirects that keep the body, challenges and
    /// retries are not followed, and a request on a connection that the server has closed fails.
    /// Sent a second time, it fails with [`ErrorKind::Body`](crate::ErrorKind::Body). A source that
    /// nothing was read from is kept for another attempt; with `Expect: 100-continue`, that
    /// includes a request whose head was refused.
    pub fn body_from(self, source: impl BodySource + 'static) -> Self {
        let source: Box<dyn BodySource> = Box::new(source);
        self.carry_body(Factory::Once(Mutex::new(Some(source))).carried(), None)
    }

    /// Sets a body that is read from `reader` while it is sent, once: see
    /// [`body_from`](Self::body_from). `size` is its length in bytes, if it is known.
    ///
    /// The reader is read inside turns of the engine, a piece at a time, so it must not block for
    /// long: files and memory are fine, pipes and sockets belong on a thread of their own that
    /// writes to a [channel](crate::body::channel).
    pub fn body_reader(self, reader: impl io::Read + Send + 'static, size: Option<u64>) -> Self {
        self.body_from(reader::Reader::new(reader, size))
    }

    /// Sets a body that is read from a file while it is sent. The file is opened for each attempt,
    /// and its length at that time becomes Content-Length. A file that is shorter by the time it
    /// is read fails the attempt; what was appended to it is left out.
    ///
    /// The file is read inside turns of the engine, at most 256 KiB at a time. A file that cannot
    /// be opened or read fails the request with [`ErrorKind::Body`](crate::ErrorKind::Body), whose
    /// source names the path.
    pub fn body_file(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_path_buf();
        self.body_with(move || reader::open(&path))
    }

    /// Sets a form with files as the body, and its Content-Type, `multipart/form-data` (RFC 7578),
    /// which names the boundary between the parts.
    ///
    /// A part that is invalid makes the request invalid. Files that cannot be opened or read fail
    /// it with [`ErrorKind::Body`](crate::ErrorKind::Body).
    pub fn multipart(self, mut form: Form) -> Self {
        if let Some(form::FormFault { fault, name }) = form.take_fault() {
            return self.refuse_body(fault, &format!("part {name:?} of the form"));
        }
        let boundary = form::boundary();
        let body_type = format!("multipart/form-data; boundary={boundary}");
        let make = move || Ok(Box::new(form.open(&boundary)?) as Box<dyn BodySource>);
        self.carry_body(Factory::Each(Box::new(make)).carried(), Some(body_type))
    }
}
