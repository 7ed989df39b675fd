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
        self.give(std::mem::take(&mut supplied.buffer));
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
        if supplied.buffer.len() < supplied.end + PIECE / 2 {
            let buffer = match supplied.end {
                0 => self.buffers.pop(),
                _ => None,
            };
            supplied.set_buffer(buffer);
        }
        let waker = supplied.waker.get_or_insert_with(waker).clone();
        let pulled = supplied.pull(request, &waker);
        if supplied.end == 0 {
            let buffer = std::mem::take(&mut supplied.buffer);
            self.give(buffer);
        }
        pulled
    }

    fn give(&mut self, buffer: Box<[u8]>) {
        if buffer.len() == PIECE && self.buffers.len() < MAX_KEPT {
            self.buffers.push(buffer);
        }
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

    /// Moves what is left to a buffer with room for a piece.
    fn set_buffer(&mut self, recycled: Option<Box<[u8]>>) {
        let len = match self.end {
            left if left <= LEAST_ROOM => PIECE,
            left => left + PIECE,
        };
        let mut buffer = recycled.unwrap_or_else(|| vec![0; len].into_boxed_slice());
        buffer[..self.end].copy_from_slice(&self.buffer[..self.end]);
        self.buffer = buffer;
    }

    fn pull(&mut self, request: &Request, waker: &Waker) -> io::Result<()> {
        self.is_untouched = false;
        for _ in 0..MAX_READS {
            if self.buffer.len() - self.end < LEAST_ROOM {
                break;
            }
            match self.read_once(waker)? {
                Supply::Bytes(_) => {}
                Supply::Wait => {
                    self.is_waiting = true;
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
