//! The body of a response for a task that reads it as it arrives.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use http::HeaderMap;

use crate::body::lock;
use crate::error::Error;

/// The number of bytes that wait for the task before the engine stops reading, and so how far a
/// server can get ahead. The engine goes on when half of them have been taken.
///
/// Twice as much costs more than it saves: when the task frees the pieces, the C library's
/// allocator returns memory to the system (mallopt(3), `M_TRIM_THRESHOLD`), and each new piece then
/// takes page faults, which double the processor time of a download.
const CAPACITY: usize = 128 << 10;

/// The body of a response, read by a task as it arrives: the body of what
/// [`Submitter::open`](crate::Submitter::open), [`Local::open`](crate::Local::open) and
/// `tokio::Client::open` return.
///
/// When 128 KiB wait for the task, the engine reads no further until the task has taken some, and
/// TCP holds the server back. The last read may add up to
/// [`read_buffer`](crate::Config::read_buffer) to that. Dropped before the end, the stream cancels
/// the request.
///
/// With feature `tokio`, it is an `AsyncRead`. For the stream traits of other crates, wrap
/// [`poll_next`](Self::poll_next).
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Request, Sim};
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
///     Answer::status(200).chunked(["one ", "two ", "three"])
/// });
/// let mut engine = Engine::<String, Sim>::on_network(&network, Config::default())?;
/// let http = engine.local();
/// engine.spawn(async move {
///     let request = Request::get("http://10.0.0.1/").build().unwrap();
///     let mut response = http.open(request).await.unwrap();
///     assert_eq!(response.status(), 200);
///     while let Some(piece) = response.body_mut().next().await {
///         let piece = String::from_utf8(piece.unwrap()).unwrap();
///         http.with(move |text: &mut String, _| text.push_str(&piece)).await.unwrap();
///     }
/// });
/// let mut text = String::new();
/// engine.run(&mut text)?;
/// assert_eq!(text, "one two three");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[must_use = "dropping the body cancels the request"]
pub struct BodyStream {
    pipe: Arc<StreamPipe>,
    chain: Box<dyn Control>,
    /// What an `AsyncRead` has not taken of a piece.
    rest: VecDeque<u8>,
    /// Keeps the engine running.
    alive: Option<Box<dyn Any + Send + Sync>>,
}

/// Reaches the chain that a body belongs to.
pub(crate) trait Control: Send + Sync {
    fn resume(&self);
    fn cancel(&self);
}

/// What the engine has read for a [`BodyStream`].
#[derive(Default)]
pub(crate) struct StreamPipe(Mutex<Pieces>);

#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    /// The costs of the pieces.
    bytes: usize,
    /// The engine reads no further until it is resumed.
    is_paused: bool,
    is_over: bool,
    /// Why the body is not complete, until the task has been told.
    error: Option<Error>,
    trailers: HeaderMap,
    waker: Option<Waker>,
}

/// Returns what a piece counts for: its bytes, and what it takes to keep it. A server may send a
/// byte at a time.
fn cost_of(piece: &[u8]) -> usize {
    piece.len() + 64
}

impl StreamPipe {
    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        lock(&self.0)
    }

    /// Adds a piece. Returns whether there is room for more.
    pub(crate) fn push(&self, piece: &[u8]) -> bool {
        let mut pieces = self.pieces();
        pieces.bytes += cost_of(piece);
        pieces.pieces.push_back(piece.to_vec());
        pieces.is_paused = pieces.bytes >= CAPACITY;
        let (has_room, waker) = (!pieces.is_paused, pieces.waker.take());
        drop(pieces);
        waker.into_iter().for_each(Waker::wake);
        has_room
    }

    /// Ends the body. Only the first end counts.
    pub(crate) fn end(&self, end: Result<HeaderMap, Error>) {
        let mut pieces = self.pieces();
        if pieces.is_over {
            return;
        }
        pieces.is_over = true;
        match end {
            Ok(trailers) => pieces.trailers = trailers,
            Err(error) => pieces.error = Some(error),
        }
        let waker = pieces.waker.take();
        drop(pieces);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl BodyStream {
    pub(crate) fn new(pipe: Arc<StreamPipe>, chain: Box<dyn Control>) -> Self {
        Self {
            pipe,
            chain,
            rest: VecDeque::new(),
            alive: None,
        }
    }

    /// Keeps `alive` until the body is dropped.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "for tokio::Client")
    )]
    pub(crate) fn keeping(mut self, alive: impl Any + Send + Sync) -> Self {
        self.alive = Some(Box::new(alive));
        self
    }

    /// Returns the next piece, as soon as there is one; `None` at the end of the body. The
    /// boundaries between pieces carry no meaning. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of the exchange, such as [`ErrorKind::Truncated`](crate::ErrorKind::Truncated). An
    /// error comes last, after all that had arrived before.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Does what [`next`](Self::next) does, for futures written by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest).into())));
        }
        let mut pieces = self.pipe.pieces();
        let Some(piece) = pieces.pieces.pop_front() else {
            return match (pieces.error.take(), pieces.is_over) {
                (Some(error), _) => Poll::Ready(Some(Err(error))),
                (None, true) => Poll::Ready(None),
                (None, false) => {
                    pieces.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        pieces.bytes -= cost_of(&piece);
        let resumes = pieces.is_paused && pieces.bytes <= CAPACITY / 2;
        if resumes {
            pieces.is_paused = false;
        }
        drop(pieces);
        if resumes {
            self.chain.resume();
        }
        Poll::Ready(Some(Ok(piece)))
    }

    /// Returns the trailer fields (RFC 9112 §7.1.2), which have arrived when [`next`](Self::next)
    /// has returned `None`.
    pub fn trailers(&self) -> HeaderMap {
        self.pipe.pieces().trailers.clone()
    }
}

impl Drop for BodyStream {
    fn drop(&mut self) {
        if !self.pipe.pieces().is_over {
            self.chain.cancel();
        }
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = self.pipe.pieces();
        f.debug_struct("BodyStream")
            .field("waiting", &pieces.bytes)
            .field("is_over", &pieces.is_over)
            .finish_non_exhaustive()
    }
}

#[cfg(all(unix, feature = "tokio"))]
impl tokio::io::AsyncRead for BodyStream {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match std::task::ready!(this.poll_next(cx)) {
                Some(Ok(piece)) => this.rest = piece.into(),
                Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let (first, _) = this.rest.as_slices();
        let n = first.len().min(room.remaining());
        room.put_slice(&first[..n]);
        this.rest.drain(..n);
        Poll::Ready(Ok(()))
    }
}
