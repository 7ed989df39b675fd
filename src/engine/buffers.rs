//! Buffers that all links share, and those that are lent to a link and come back.

use crate::engine::chain::ChainKey;
use crate::h1::inbound::Inbound;
use crate::h1::line::Line;
use crate::id::ChainId;
use crate::net::tls::Scratch;

/// Shared and recycled buffers: a link that waits holds none of them.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// All links read into this. Empty while it is out.
    pub(super) read: Vec<u8>,
    /// Another, for the TLS link that has to be read while the first is in use; as long as that,
    /// once it is needed.
    pub(super) second: Vec<u8>,
    /// What TLS states decrypt into, and write from.
    pub(super) plaintext: Vec<u8>,
    pub(super) scratch: Scratch,
    pub(super) inbounds: Inbounds,
    pub(super) lines: Lines,
    pub(super) blocks: Blocks,
    /// What a body is decoded into, a piece at a time.
    pub(super) room: Vec<u8>,
    /// Whose body was decoded there last.
    pub(super) room_of: Option<ChainId>,
}

impl Buffers {
    pub(super) fn new(read: usize) -> Self {
        Self {
            read: vec![0; read],
            ..Self::default()
        }
    }
}

/// Inbound buffers for the next responses that do not arrive whole.
#[derive(Debug, Default)]
pub(super) struct Inbounds {
    #[expect(
        clippy::vec_box,
        reason = "links hold them as boxes: what moves is a pointer"
    )]
    boxes: Vec<Box<Inbound>>,
    bytes: usize,
}

impl Inbounds {
    /// More than this is given back to the allocator.
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

/// Lines for the next links that are pipelined.
#[derive(Debug, Default)]
pub(super) struct Lines(
    #[expect(
        clippy::vec_box,
        reason = "links hold them as boxes: what moves is a pointer"
    )]
    Vec<Box<Line<ChainKey>>>,
);

impl Lines {
    /// More than these are given back to the allocator when they have run empty.
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

/// Field lines that policies add, for the next requests that have some.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<Vec<u8>>);

impl Blocks {
    /// More than these, and longer ones, are given back to the allocator.
    const MAX: usize = 256;
    const MAX_BYTES: usize = 16 << 10;

    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, mut block: Vec<u8>) {
        if self.0.len() < Self::MAX && block.capacity() <= Self::MAX_BYTES {
            block.clear();
            self.0.push(block);
        }
    }
}
