//! Bodies of requests that are read from sources: in pieces, with waits, and now and then with a
//! fault.

use std::io;
use std::task::Waker;

use httpstream::sim::Random;
use httpstream::{BodySource, RequestBuilder, Supply};

use crate::sessions::Journal;

/// What a source does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Opening,
    Reading,
    Short,
    Long,
}

/// How the body of a request is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supplied {
    pub(crate) has_size: bool,
    /// How many of a thousand times the source waits.
    waits: u16,
    pub(crate) fault: Option<Fault>,
}

impl Supplied {
    pub(crate) fn new(random: &mut Random) -> Self {
        let faults = [Fault::Opening, Fault::Reading, Fault::Short, Fault::Long];
        let has_size = random.chance(500);
        Self {
            has_size,
            waits: *random.pick(&[0, 100, 500]),
            fault: random
                .chance(80)
                .then(|| *random.pick(&faults))
                // Only what has a length can be too short or too long.
                .filter(|it| has_size || !matches!(it, Fault::Short | Fault::Long)),
        }
    }

    /// Gives a request this body.
    pub(crate) fn body(
        self,
        builder: RequestBuilder,
        bytes: Vec<u8>,
        seed: u64,
        journal: Journal,
    ) -> RequestBuilder {
        builder.body_with(move || {
            journal.notes().reached_source("opened");
            if self.fault == Some(Fault::Opening) {
                return Err(io::Error::other("cannot be opened"));
            }
            Ok(Source {
                how: self,
                bytes: bytes.clone(),
                read: 0,
                random: Random::new(seed),
                journal: journal.clone(),
                has_waited: false,
            })
        })
    }
}

struct Source {
    how: Supplied,
    bytes: Vec<u8>,
    read: usize,
    random: Random,
    journal: Journal,
    has_waited: bool,
}

impl BodySource for Source {
    fn size(&self) -> Option<u64> {
        let len = self.bytes.len() as u64;
        self.how.has_size.then_some(match self.how.fault {
            Some(Fault::Short) => len + 1,
            Some(Fault::Long) => len - 1,
            _ => len,
        })
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        if !self.has_waited && self.random.chance(self.how.waits) {
            self.has_waited = true;
            let mut notes = self.journal.notes();
            notes.wakers.push(waker.clone());
            notes.reached_source("waits");
            return Ok(Supply::Wait);
        }
        self.has_waited = false;
        let left = &self.bytes[self.read..];
        if self.how.fault == Some(Fault::Reading) && self.read * 2 > self.bytes.len() {
            return Err(io::Error::other("cannot be read"));
        }
        if left.is_empty() {
            if self.how.fault == Some(Fault::Reading) {
                return Err(io::Error::other("cannot be read"));
            }
            return Ok(Supply::End);
        }
        let most = left.len().min(room.len());
        let n = self.random.between(1, most);
        room[..n].copy_from_slice(&left[..n]);
        self.read += n;
        Ok(Supply::Bytes(n))
    }
}
