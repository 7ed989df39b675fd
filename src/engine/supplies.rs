//! The bodies that are being read from their sources: framing, and the bytes that wait to be
//! written.
//!
//! Nothing here knows links. [`supplying`](crate::engine::supplying) writes the bytes and acts on
//! what the sources say.

use std::collections::BTreeMap;
use std::io;
use std::task::Waker;

use crate::body::{BodySource, Factory, Supply};
use crate::engine::chain::ChainKey;
use crate::h1::layout::Layout;
use crate::policy::Fields;
use crate::request::Request;

/// The size of a buffer, and so the most that is read from a source before it is written.
const PIECE: usize = 64 << 10;

/// The size of the buffer once the connection takes full ones at once. Each send has a price of its
/// own: on loopback, sends of 64 KiB take a third more processor time per byte.
const LARGE_PIECE: usize = 256 << 10;

/// A source is not asked for less room than this, or it would be asked for a few bytes at a time.
const LEAST_ROOM: usize = 1 << 10;

/// The most times that a source is read before what it has yielded is written.
const MAX_READS: usize = 32;

/// What precedes the data of a chunk: its size in at most four digits, and CRLF.
const CHUNK_HEAD: usize = 4 + CRLF.len();
const CRLF: &[u8] = b"\r\n";

/// The most empty buffers that are kept.
const MAX_KEPT: usize = 8;

/// The supplies of all requests that are being sent from sources.
#[derive(Default)]
pub(super) struct Supplies {
    /// Boxed, because few requests have a source and all move in the tree.
    by_chain: BTreeMap<ChainKey, Box<Supplied>>,
    buffers: Vec<Box<[u8]>>,
}

/// What is read from one source and waits to be written.
pub(super) struct Supplied {
    /// `None` once it has ended.
    source: Option<Box<dyn BodySource>>,
    framing: Framing,
    /// Bytes of the body that the source has yielded.
    read: u64,
    /// The source has not been asked for anything, so it can serve another attempt.
    is_untouched: bool,
    /// Empty while there is nothing to be written.
    buffer: Box<[u8]>,
    /// The size of the next buffer.
    piece: usize,
    /// The number of bytes of the request that precede those in the buffer.
    base: usize,
    /// Where in the buffer the bytes end.
    end: usize,
    /// The source has said that it has no more.
    has_ended: bool,
    /// The source has nothing yet, and its waker has not been woken since it said so.
    is_waiting: bool,
    /// The waker that the source is given.
    waker: Option<Waker>,
    pub(super) failed: Option<SupplyFailure>,
}

/// Why a body cannot be sent to its end.
#[derive(Debug)]
pub(super) enum SupplyFailure {
    Error(io::Error),
    /// The source panicked.
    Panicked,
}

/// How the end of the body is marked (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// By a Content-Length of so many bytes.
    Length(u64),
    Chunked,
}

impl Supplies {
    pub(super) fn get(&self, key: ChainKey) -> Option<&Supplied> {
        self.by_chain.get(&key).map(|supplied| &**supplied)
    }

    pub(super) fn get_mut(&mut self, key: ChainKey) -> Option<&mut Supplied> {
        self.by_chain.get_mut(&key).map(|supplied| &mut **supplied)
    }

    /// Returns the bytes of a chain's request that can be written before its source is read.
    #[cold]
    pub(super) fn layout(&self, key: ChainKey) -> Layout<'_> {
        let supplied = self.get(key).expect("a request with a source has a supply");
        Layout::of_bytes(supplied.waiting(0))
    }

    pub(super) fn insert(&mut self, key: ChainKey, source: Box<dyn BodySource>) {
        let framing = match source.size() {
            Some(size) => Framing::Length(size),
            None => Framing::Chunked,
        };
        let supplied = Supplied {
            source: Some(source),
            framing,
            read: 0,
            is_untouched: true,
            buffer: Box::default(),
            piece: PIECE,
            base: 0,
            end: 0,
            has_ended: false,
            is_waiting: false,
            waker: None,
            failed: None,
        };
        self.by_chain.insert(key, Box::new(supplied));
    }

    /// Removes the supply of a request that has been sent or has ended. A source that was not read
    /// goes back to `request` if it is the only one. Returns what is the caller's, to be dropped.
    pub(super) fn remove(
        &mut self,
        key: ChainKey,
        request: Option<&Request>,
    ) -> Option<Box<dyn BodySource>> {
        let mut supplied = self.by_chain.remove(&key)?;
        keep(std::mem::take(&mut supplied.buffer), &mut self.buffers);
        let source = supplied.source.take()?;
        match request.and_then(Factory::of) {
            Some(factory) if supplied.is_untouched => factory.put_back(source),
            _ => Some(source),
        }
    }

    /// Reads the source of a chain, once there is nothing more to be written. `written` is how many
    /// bytes of the request have been written.
    pub(super) fn pull(
        &mut self,
        key: ChainKey,
        written: usize,
        request: &Request,
        waker: impl FnOnce() -> Waker,
    ) -> io::Result<()> {
        let supplied = self.by_chain.get_mut(&key);
        let supplied = supplied.expect("a request with a source has a supply");
        supplied.discard_written(written);
        let least = supplied.piece.max(supplied.end + PIECE / 2);
        if supplied.buffer.len() < least {
            let recycled = match (supplied.end, supplied.piece) {
                (0, PIECE) => self.buffers.pop(),
                _ => None,
            };
            keep(supplied.set_buffer(recycled), &mut self.buffers);
        }
        let waker = supplied.waker.get_or_insert_with(waker).clone();
        let pulled = supplied.pull(request, &waker);
        if supplied.end == 0 {
            keep(std::mem::take(&mut supplied.buffer), &mut self.buffers);
        }
        pulled
    }

    /// Takes the buffer of a request whose source has nothing yet. `written` is how many bytes of
    /// the request have been written.
    pub(super) fn on_waiting(&mut self, key: ChainKey, written: usize) {
        let supplied = self.by_chain.get_mut(&key);
        let supplied = supplied.expect("a request with a source has a supply");
        supplied.discard_written(written);
        if supplied.end == 0 {
            keep(std::mem::take(&mut supplied.buffer), &mut self.buffers);
        }
    }
}

/// Keeps a buffer for another request. It is cleared: a faulty source may say that it has written
/// more than it has.
fn keep(mut buffer: Box<[u8]>, buffers: &mut Vec<Box<[u8]>>) {
    if buffer.len() == PIECE && buffers.len() < MAX_KEPT {
        buffer.fill(0);
        buffers.push(buffer);
    }
}

impl Supplied {
    /// Returns whether the source says that there is no body.
    pub(super) fn is_empty(&self) -> bool {
        self.framing == Framing::Length(0)
    }

    /// Begins with the head of the request. `before` and `block` are the slices between which the
    /// field of the framing belongs.
    pub(super) fn begin(&mut self, before: [&[u8]; 2], block: &[u8]) {
        let framing = match self.framing {
            Framing::Length(size) => format!("Content-Length: {size}\r\n"),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let head = [before[0], before[1], framing.as_bytes(), block].concat();
        self.end = head.len();
        self.buffer = head.into_boxed_slice();
    }

    /// Returns how many bytes of the request may be written so far.
    pub(super) fn bytes(&self) -> usize {
        self.base + self.end - self.held_back()
    }

    /// Returns the bytes to write next, given how many have been written.
    pub(super) fn waiting(&self, written: usize) -> &[u8] {
        &self.buffer[written - self.base..self.end - self.held_back()]
    }

    /// Returns whether nothing has been read from the source.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_untouched
    }

    /// Returns whether the source has nothing yet, and is not to be read until it is woken.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Records that the waker of the source has been woken.
    pub(super) fn on_woken(&mut self) {
        self.is_waiting = false;
    }

    /// Returns whether the source has said that it has no more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns how many bytes at the end are not written yet. When the source has yielded as many
    /// bytes as it said, the last one waits until it has ended. Otherwise a source that yields more
    /// would be found out when the server already has a complete request.
    fn held_back(&self) -> usize {
        match self.framing {
            Framing::Length(size) => usize::from(self.read == size && !self.has_ended),
            Framing::Chunked => 0,
        }
    }

    fn discard_written(&mut self, written: usize) {
        let n = written - self.base;
        self.buffer.copy_within(n..self.end, 0);
        self.base += n;
        self.end -= n;
    }

    /// Moves what is left to a buffer with room for a piece. Returns the buffer before.
    fn set_buffer(&mut self, recycled: Option<Box<[u8]>>) -> Box<[u8]> {
        let len = match self.end {
            left if left <= LEAST_ROOM => self.piece,
            left => left + self.piece,
        };
        let mut buffer = recycled.unwrap_or_else(|| vec![0; len].into_boxed_slice());
        buffer[..self.end].copy_from_slice(&self.buffer[..self.end]);
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Returns whether there is no room in the buffer to ask the source for more.
    fn is_full(&self) -> bool {
        self.buffer.len() - self.end < LEAST_ROOM
    }

    /// Records that the connection has taken `n` bytes at once.
    pub(super) fn on_taken(&mut self, n: usize) {
        if n >= PIECE - LEAST_ROOM && n == self.end && self.is_full() {
            self.piece = LARGE_PIECE;
        }
    }

    fn pull(&mut self, request: &Request, waker: &Waker) -> io::Result<()> {
        self.is_untouched = false;
        for _ in 0..MAX_READS {
            if self.is_full() {
                break;
            }
            match self.read_once(waker)? {
                Supply::Bytes(_) => {}
                Supply::Wait => {
                    self.is_waiting = true;
                    // The source is slower than the connection.
                    self.piece = PIECE;
                    break;
                }
                Supply::End => {
                    self.finish(request)?;
                    self.has_ended = true;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the source once, and frames what it yields.
    fn read_once(&mut self, waker: &Waker) -> io::Result<Supply> {
        let source = self.source.as_mut();
        let source = source.expect("a source that has ended is not read");
        let (before, behind) = match self.framing {
            Framing::Length(_) => (0, 0),
            Framing::Chunked => (CHUNK_HEAD, CRLF.len()),
        };
        let start = self.end + before;
        let most = (self.buffer.len() - behind).min(start + 0xffff);
        let room = &mut self.buffer[start..most];
        let len = room.len();
        let supply = source.read(room, waker)?;
        match supply {
            Supply::Bytes(n @ 1..) if n <= len => self.add(n)?,
            Supply::Bytes(n) => {
                let why = format!("the source of the body said {n} bytes for a room of {len}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            Supply::Wait | Supply::End => {}
        }
        Ok(supply)
    }

    /// Frames `n` bytes that the source has written behind the room for the head of a chunk.
    fn add(&mut self, n: usize) -> io::Result<()> {
        self.read += n as u64;
        match self.framing {
            Framing::Length(size) if self.read > size => {
                let why = format!("the source of the body has more than the {size} bytes it said");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            Framing::Length(_) => self.end += n,
            Framing::Chunked => {
                let head = format!("{n:x}\r\n");
                let (start, from) = (self.end + head.len(), self.end + CHUNK_HEAD);
                self.buffer.copy_within(from..from + n, start);
                self.buffer[self.end..start].copy_from_slice(head.as_bytes());
                self.buffer[start + n..start + n + CRLF.len()].copy_from_slice(CRLF);
                self.end = start + n + CRLF.len();
            }
        }
        Ok(())
    }

    /// Ends the body.
    fn finish(&mut self, request: &Request) -> io::Result<()> {
        let source = self.source.as_mut();
        let source = source.expect("a source ends once");
        match self.framing {
            Framing::Length(size) if self.read < size => {
                let read = self.read;
                let why = format!("the source of the body ended after {read} of {size} bytes");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            Framing::Length(_) => {}
            Framing::Chunked => {
                let mut last = b"0\r\n".to_vec();
                let mut trailers = Vec::new();
                source.trailers(&mut Fields::new(&mut trailers, request))?;
                last.append(&mut trailers);
                last.extend_from_slice(CRLF);
                let (start, end) = (self.end, self.end + last.len());
                if self.buffer.len() < end {
                    let longer = [&self.buffer[..start], &last].concat();
                    self.buffer = longer.into_boxed_slice();
                }
                self.buffer[start..end].copy_from_slice(&last);
                self.end = end;
            }
        }
        Ok(())
    }

    /// Takes the source, which has ended.
    pub(super) fn take_source(&mut self) -> Option<Box<dyn BodySource>> {
        self.source.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills every room, `fills` times between two waits.
    struct Filling {
        fills: usize,
        left: usize,
    }

    impl BodySource for Filling {
        fn size(&self) -> Option<u64> {
            None
        }

        fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
            if self.left == 0 {
                self.left = self.fills;
                return Ok(Supply::Wait);
            }
            self.left -= 1;
            Ok(Supply::Bytes(room.len()))
        }
    }

    /// Sends what has been read, as a connection does that takes so many bytes at once. Returns how
    /// many bytes were read.
    fn pull_and_send(supplies: &mut Supplies, written: &mut usize, at_once: usize) -> usize {
        let request = Request::get("http://10.0.0.1/").build().unwrap();
        supplies
            .pull(1, *written, &request, || Waker::noop().clone())
            .unwrap();
        let supplied = supplies.get_mut(1).unwrap();
        supplied.on_woken();
        let read = supplied.waiting(*written).len();
        while *written < supplied.bytes() {
            let n = at_once.min(supplied.waiting(*written).len());
            supplied.on_taken(n);
            *written += n;
        }
        read
    }

    #[test]
    fn a_connection_that_takes_full_pieces_gets_larger_ones() {
        let mut supplies = Supplies::default();
        let (fills, left) = (usize::MAX, usize::MAX);
        supplies.insert(1, Box::new(Filling { fills, left }));
        let mut written = 0;
        for _ in 0..3 {
            let read = pull_and_send(&mut supplies, &mut written, PIECE / 2);
            assert!((PIECE - LEAST_ROOM..=PIECE).contains(&read), "{read}");
        }
        pull_and_send(&mut supplies, &mut written, usize::MAX);
        for _ in 0..3 {
            let read = pull_and_send(&mut supplies, &mut written, usize::MAX);
            assert!(
                (LARGE_PIECE - LEAST_ROOM..=LARGE_PIECE).contains(&read),
                "{read}"
            );
        }
        supplies.remove(1, None);
        // Only small buffers are kept.
        assert!(supplies.buffers.iter().all(|buffer| buffer.len() == PIECE));
    }

    #[test]
    fn while_a_source_waits_it_has_no_buffer_and_then_a_small_one() {
        let mut supplies = Supplies::default();
        supplies.insert(1, Box::new(Filling { fills: 6, left: 6 }));
        let mut written = 0;
        // One read fills the first buffer, four the second; the sixth is followed by a wait.
        pull_and_send(&mut supplies, &mut written, usize::MAX);
        let read = pull_and_send(&mut supplies, &mut written, usize::MAX);
        assert!(read > LARGE_PIECE - LEAST_ROOM, "{read}");
        pull_and_send(&mut supplies, &mut written, usize::MAX);
        assert_eq!(supplies.get(1).unwrap().buffer.len(), LARGE_PIECE);
        supplies.on_waiting(1, written);
        assert_eq!(supplies.get(1).unwrap().buffer.len(), 0);
        let read = pull_and_send(&mut supplies, &mut written, usize::MAX);
        assert!((PIECE - LEAST_ROOM..=PIECE).contains(&read), "{read}");
    }
}
