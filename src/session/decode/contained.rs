//! Turns a panic of a decoder into an error.
//!
//! Decoders run code that indexes and asserts, much of it that of other crates, on whatever a
//! server sends. None is known to panic, but a panic would end the turn of all chains.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::policy::{Decoder, Progress};
use crate::session::decode::fault::malformed;

pub(super) struct Contained<D> {
    coding: &'static str,
    decoder: D,
}

impl<D: Decoder> Contained<D> {
    pub(super) fn new(coding: &'static str, decoder: D) -> Self {
        Self { coding, decoder }
    }

    fn run<R>(&mut self, work: impl FnOnce(&mut D) -> io::Result<R>) -> io::Result<R> {
        // After an error, the decoder is dropped and not called again.
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut self.decoder)));
        done.unwrap_or_else(|_| Err(malformed(self.coding, "the decoder panicked")))
    }
}

impl<D: Decoder> Decoder for Contained<D> {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        self.run(|decoder| decoder.decode(input, room))
    }

    fn finish(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.run(|decoder| decoder.finish(room))
    }
}
