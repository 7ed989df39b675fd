//! Buffers that all links share, and buffers that a link borrows and returns.

use std::ops::{Deref, DerefMut};

use crate::engine::chain::ChainKey;
use crate::h1::inbound::Inbound;
use crate::h1::line::Line;
use crate::id::ChainId;
use crate::net::tls::Scratch;

/// Shared and recycled buffers. A waiting link holds none of them.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The buffer that all links read into. It is empty while it is taken out.
    pub(super) read: Vec<u8>,
    /// A second read buffer, for a TLS link that has to be read while the first is in use. It is
    /// allocated with the same length when it is first needed.
    pub(super) second: Vec<u8>,
    /// The buffer that TLS states decrypt into.
    pub(super) plaintext: Vec<u8>,
    /// The buffers that TLS states write from.
    pub(super) scratch: Scratch,
    pub(super) inbounds: Inbounds,
    pub(super) lines: Lines,
    pub(super) blocks: Blocks,
    /// The buffer that bodies are decoded into, one piece at a time.
    pub(super) room: Vec<u8>,
    /// The chain whose body was last decoded into `room`.
    pub(super) room_of: Option<ChainId>,
    /// The buffer that the sources of tunnels are read into, one piece at a time.
    pub(super) piece: Vec<u8>,
    /// The chain whose source was last read into `piece`.
    pub(super) piece_of: Option<ChainId>,
}

impl Buffers {
    pub(super) fn new(read: usize) -> Self {
        Self {
            read: vec![0; read],
            ..Self::default()
        }
    }
}

/// Inbound buffers, for responses that arrive in several pieces.
#[derive(Debug, Default)]
pub(super) struct Inbounds {
    #[expect(
        clippy::vec_box,
        reason = "links hold them as boxes, so only a pointer moves"
    )]
    boxes: Vec<Box<Inbound>>,
    bytes: usize,
}

impl Inbounds {
    /// The maximum size of the kept buffers. Buffers beyond it are returned to the allocator.
    const MAX_BYTES: usize = 8 << 20;
    const MAX_BOXES: usize = 1024;

    #[inline]
    pub(super) fn take(&mut self) -> Box<Inbound> {
        let inbound = self.boxes.pop().unwrap_or_default();
        self.bytes -= inbound.capacity();
        inbound
    }

    #[inline]
    pub(super) fn give(&mut self, mut inbound: Box<Inbound>) {
        inbound.clear();
        let bytes = inbound.capacity();
        if self.boxes.len() < Self::MAX_BOXES && self.bytes + bytes <= Self::MAX_BYTES {
            self.bytes += bytes;
            self.boxes.push(inbound);
        }
    }
}

/// Lines of pipelined links.
#[derive(Debug, Default)]
pub(super) struct Lines(
    #[expect(
        clippy::vec_box,
        reason = "links hold them as boxes, so only a pointer moves"
    )]
    Vec<Box<Line<ChainKey>>>,
);

impl Lines {
    /// The maximum number of empty lines. Lines beyond it are returned to the allocator.
    const MAX: usize = 1024;

    pub(super) fn take(&mut self) -> Box<Line<ChainKey>> {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, line: Box<Line<ChainKey>>) {
        if self.0.len() < Self::MAX {
            self.0.push(line);
        }
    }
}

/// Field lines of a request to which a policy adds fields. A visit holds them, so they take one
/// pointer.
#[derive(Debug, Default)]
pub(super) struct Block(Vec<u8>);

impl Deref for Block {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

/// The blocks that are not in use.
#[derive(Debug, Default)]
pub(super) struct Blocks(
    #[expect(
        clippy::vec_box,
        reason = "visits hold them as boxes, so only a pointer moves"
    )]
    Vec<Box<Block>>,
);

impl Blocks {
    /// The maximum number of blocks. Blocks beyond it, and longer ones, are returned to the
    /// allocator.
    const MAX: usize = 256;
    const MAX_BYTES: usize = 16 << 10;

    #[inline]
    pub(super) fn take(&mut self) -> Box<Block> {
        self.0.pop().unwrap_or_default()
    }

    #[inline]
    pub(super) fn give(&mut self, mut block: Box<Block>) {
        if self.0.len() < Self::MAX && block.capacity() <= Self::MAX_BYTES {
            block.clear();
            self.0.push(block);
        }
    }
}
