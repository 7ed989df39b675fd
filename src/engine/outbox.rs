//! What is to be written on a tunnel: bytes, and the source that supplies more once these are
//! written.

use std::fmt;
use std::io;
use std::task::Waker;

use crate::body::{BodySource, Supply};
use crate::engine::supplies::SupplyFailure;
use crate::sched::wheel::TimerId;

/// What is to be written on a tunnel.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// The number of bytes at the front that have been written.
    written: usize,
    /// Whether a command that writes the bytes is already queued.
    is_noted: bool,
    source: Option<Source>,
    /// Why the source cannot be read any more, until the exchange has been ended for it.
    pub(super) failed: Option<SupplyFailure>,
    pub(super) deadline: Option<Deadline>,
}

/// By when the server has to do something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) until: Until,
    pub(super) timer: TimerId,
    /// The deadline has passed, and what has arrived by then is looked at first.
    pub(super) has_passed: bool,
}

/// A source that a tunnel is written from.
struct Source {
    supply: Box<dyn BodySource>,
    state: SourceState,
    /// Created when the source is first read.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceState {
    /// It may have something to send.
    Ready,
    /// It has nothing to send until its waker is woken.
    Waiting,
    /// Nothing more is sent on the tunnel.
    Ended,
}

/// What a tunnel with a source waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// To accept more bytes.
    Accepts,
    /// To close the connection, because the source has ended.
    Closes,
}

impl Outbox {
    /// Adds bytes. Returns whether the caller has to queue a command that writes them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        !self.waiting().is_empty() && self.note()
    }

    /// Sets the source, and returns the one that it replaces.
    pub(super) fn set_source(&mut self, supply: Box<dyn BodySource>) -> Option<impl Sized> {
        self.source.replace(Source {
            supply,
            state: SourceState::Ready,
            waker: None,
        })
    }

    /// Records that the source has failed, and returns it.
    pub(super) fn fail(&mut self, why: SupplyFailure) -> impl Sized + use<> {
        self.failed = Some(why);
        self.source.take()
    }

    /// Returns whether a command has to be queued.
    pub(super) fn note(&mut self) -> bool {
        !std::mem::replace(&mut self.is_noted, true)
    }

    /// Records that the waiting bytes are being written now. Bytes added later need another
    /// command.
    pub(super) fn on_looked_at(&mut self) {
        self.is_noted = false;
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Returns whether there is a source, and it has not ended.
    pub(super) fn has_source(&self) -> bool {
        let state = self.source.as_ref().map(|source| source.state);
        matches!(state, Some(SourceState::Ready | SourceState::Waiting))
    }

    /// Records that the source may have something to send again.
    pub(super) fn wake(&mut self) {
        if let Some(source) = &mut self.source
            && source.state == SourceState::Waiting
        {
            source.state = SourceState::Ready;
        }
    }

    /// Returns whether the source is to be read: everything else is written, and it does not wait.
    pub(super) fn wants_source(&self) -> bool {
        let state = self.source.as_ref().map(|source| source.state);
        state == Some(SourceState::Ready) && self.waiting().is_empty()
    }

    /// Reads a piece of the source into `room`. `waker` is called to create the source's waker.
    ///
    /// # Errors
    /// Those of the source, and a length that is longer than the room.
    pub(super) fn read(
        &mut self,
        room: &mut [u8],
        waker: impl FnOnce() -> Waker,
    ) -> io::Result<Supply> {
        let Some(source) = &mut self.source else {
            return Ok(Supply::Wait);
        };
        let waker = source.waker.get_or_insert_with(waker);
        let supply = source.supply.read(room, waker)?;
        match supply {
            Supply::Bytes(n) if n > room.len() => {
                let why = "a source has supplied more bytes than there was room for";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            // Asked again and again, a source that supplies nothing would block the loop.
            Supply::Bytes(0) => {
                let why = "a source has supplied no bytes, but neither waits nor ends";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            Supply::Bytes(_) => {}
            Supply::Wait => source.state = SourceState::Waiting,
            Supply::End => source.state = SourceState::Ended,
        }
        Ok(supply)
    }

    /// Records that the connection has accepted `n` more bytes.
    pub(super) fn on_written(&mut self, n: usize) {
        self.written += n;
        // Written bytes are removed once they are more than half, so each byte is moved at most
        // twice.
        if self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_OUTBOX {
            self.bytes = Vec::new();
        }
    }
}

/// The capacity above which a buffer is freed when all of it is written. Thousands of tunnels may
/// be silent.
const KEPT_OUTBOX: usize = 1 << 10;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
