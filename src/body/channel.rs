//! A body that another thread or a task writes while it is sent.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use crate::body::{BodySource, Supply, lock};

/// Creates a body that is written while it is sent. It is sent in chunks, since its length is not
/// known.
///
/// The receiver goes into [`RequestBuilder::body_from`](crate::RequestBuilder::body_from), and the
/// sender to a thread or a task, or into the state. At most `capacity` bytes, at least one, wait to
/// be sent. While there is no room, [`send`](BodySender::send) blocks, [`room`](BodySender::room)
/// waits, and [`try_send`](BodySender::try_send) takes nothing.
///
/// While nothing has been written, the request waits without a deadline, except for its [total
/// timeout](crate::Timeouts::total), five minutes by default: lift it for an upload that takes
/// longer.
///
/// ```
/// use std::io::Write;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim, body};
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
///     Answer::ok(format!("{} bytes", request.body().len()))
/// });
/// let mut engine = Engine::<String, Sim>::on_network(&network, Config::default())?;
///
/// let (mut sender, receiver) = body::channel(64 << 10);
/// let log = Request::post("http://10.0.0.1/log").body_from(receiver).build()?;
/// engine.submit(log, |told: &mut String, reply, _| {
///     told.push_str(reply.unwrap().text().unwrap());
///     Next::done()
/// });
/// // Often on a thread of its own.
/// writeln!(sender, "started").unwrap();
/// writeln!(sender, "stopped").unwrap();
/// sender.finish().unwrap();
///
/// let mut told = String::new();
/// engine.run(&mut told)?;
/// assert_eq!(told, "16 bytes");
/// # Ok::<(), httpstream::Error>(())
/// ```
pub fn channel(capacity: usize) -> (BodySender, BodyReceiver) {
    let shared = Arc::new(Shared {
        pipe: Mutex::new(Pipe {
            bytes: VecDeque::new(),
            capacity: capacity.max(1),
            end: End::Open,
            is_abandoned: false,
            reader: None,
            writer: None,
        }),
        has_room: Condvar::new(),
    });
    (BodySender(Arc::clone(&shared)), BodyReceiver(shared))
}

/// The end of a [`channel`] that bytes are written to.
///
/// Dropped without [`finish`](Self::finish), it breaks the upload off with
/// [`ErrorKind::Body`](crate::ErrorKind::Body), so that what was cut short does not look complete
/// to the server.
///
/// As an [`io::Write`](std::io::Write), it blocks as [`send`](Self::send) does.
pub struct BodySender(Arc<Shared>);

/// The end of a [`channel`] that the engine reads, for
/// [`RequestBuilder::body_from`](crate::RequestBuilder::body_from).
pub struct BodyReceiver(Arc<Shared>);

struct Shared {
    pipe: Mutex<Pipe>,
    /// Notified when there is room again, or the receiver is gone.
    has_room: Condvar,
}

struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    end: End,
    /// The receiver is gone.
    is_abandoned: bool,
    /// Woken when there are bytes, or the end.
    reader: Option<Waker>,
    /// Woken when there is room, or the receiver is gone.
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Finished,
    /// The sender was dropped.
    Broken,
}

impl Pipe {
    fn room(&self) -> io::Result<usize> {
        match self.is_abandoned {
            false => Ok(self.capacity - self.bytes.len()),
            true => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the request has ended, so its body is not read any more",
            )),
        }
    }

    /// Takes as many bytes as there is room for.
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.room()?.min(bytes.len());
        self.bytes.extend(&bytes[..n]);
        Ok(n)
    }
}

impl Shared {
    fn pipe(&self) -> MutexGuard<'_, Pipe> {
        lock(&self.pipe)
    }

    /// Takes as many bytes as there is room for, and tells the engine.
    fn put(&self, mut pipe: MutexGuard<'_, Pipe>, bytes: &[u8]) -> io::Result<usize> {
        let put = pipe.put(bytes);
        let reader = match put {
            Ok(1..) => pipe.reader.take(),
            _ => None,
        };
        drop(pipe);
        wake(reader);
        put
    }
}

/// Wakes the other end. Called without the lock, which it may take at once.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl BodySender {
    /// Sends all of `bytes`, and blocks while there is no room for them. For threads other than the
    /// engine's: inside a turn, no room can be made.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the request has ended.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let mut pipe = self.0.pipe();
            while pipe.room()? == 0 {
                let woken = self.0.has_room.wait(pipe);
                pipe = woken.unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            let n = self.0.put(pipe, left)?;
            left = &left[n..];
        }
        Ok(())
    }

    /// Sends as many of `bytes` as there is room for, and returns how many, which may be none.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the request has ended.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(self.0.pipe(), bytes)
    }

    /// Returns how many bytes there is room for, once there is room for any.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the request has ended.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.pipe();
        match pipe.room() {
            Ok(0) => {
                pipe.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    /// Waits until there is room, and returns for how many bytes. For tasks.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the request has ended.
    pub async fn room(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// Ends the body. What has been written is still sent.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the request has ended before.
    pub fn finish(self) -> io::Result<()> {
        self.end(End::Finished).map(|_| ())
    }

    fn end(&self, end: End) -> io::Result<usize> {
        let mut pipe = self.0.pipe();
        if pipe.end == End::Open {
            pipe.end = end;
        }
        let (room, reader) = (pipe.room(), pipe.reader.take());
        drop(pipe);
        wake(reader);
        room
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        // Has no effect after `finish`.
        let _ = self.end(End::Broken);
    }
}

impl io::Write for BodySender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BodySource for BodyReceiver {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        let mut pipe = self.0.pipe();
        let n = room.len().min(pipe.bytes.len());
        if n == 0 {
            return match pipe.end {
                End::Open => {
                    pipe.reader = Some(waker.clone());
                    Ok(Supply::Wait)
                }
                End::Finished => Ok(Supply::End),
                End::Broken => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the sender of the body was dropped before `finish`",
                )),
            };
        }
        let (first, second) = pipe.bytes.as_slices();
        let of_first = n.min(first.len());
        room[..of_first].copy_from_slice(&first[..of_first]);
        room[of_first..n].copy_from_slice(&second[..n - of_first]);
        pipe.bytes.drain(..n);
        let writer = pipe.writer.take();
        drop(pipe);
        self.0.has_room.notify_one();
        wake(writer);
        Ok(Supply::Bytes(n))
    }
}

impl Drop for BodyReceiver {
    fn drop(&mut self) {
        let mut pipe = self.0.pipe();
        pipe.is_abandoned = true;
        pipe.bytes = VecDeque::new();
        let writer = pipe.writer.take();
        drop(pipe);
        self.0.has_room.notify_all();
        wake(writer);
    }
}

impl fmt::Debug for BodySender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "BodySender", &self.0)
    }
}

impl fmt::Debug for BodyReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "BodyReceiver", &self.0)
    }
}

/// Shows numbers only: bodies may be secret.
fn debug(f: &mut fmt::Formatter<'_>, name: &str, shared: &Shared) -> fmt::Result {
    let pipe = shared.pipe();
    f.debug_struct(name)
        .field("waiting", &pipe.bytes.len())
        .field("capacity", &pipe.capacity)
        .finish_non_exhaustive()
}
