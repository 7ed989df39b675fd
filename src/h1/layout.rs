//! The order of a request's bytes on the wire. Nothing is copied: one send takes a list of slices.

use crate::request::Request;

/// Whether the body is sent with the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Included,
    /// The body waits for a 100 (Continue).
    HeldBack,
}

/// The most slices that one request takes.
pub(crate) const PARTS: usize = 4;

/// The slices of one request: head, default fields with the empty line, body. The head takes two
/// slices if its `Expect` line is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a>([&'a [u8]; PARTS]);

impl<'a> Layout<'a> {
    /// Lays out `request`. `expects` is whether its `Expect` line, if it has one, is sent.
    #[inline(always)]
    pub(crate) fn new(request: &'a Request, block: &'a [u8], expects: bool, body: Body) -> Self {
        let head = request.wire_head();
        let (front, back) = match request.expect_line() {
            Some(line) if !expects => (&head[..line.start], &head[line.end..]),
            _ => (head, &head[..0]),
        };
        let body = match body {
            Body::Included => request.wire_body(),
            Body::HeldBack => &[],
        };
        Self([front, back, block, body])
    }

    /// Lays out a request whose owner holds its bytes.
    pub(crate) fn of_bytes(bytes: &'a [u8]) -> Self {
        Self([bytes, &[], &[], &[]])
    }

    /// Leaves out everything after the first `most` bytes.
    pub(crate) fn up_to(self, most: usize) -> Self {
        let mut left = most;
        Self(self.0.map(|part| {
            let kept = part.len().min(left);
            left -= kept;
            &part[..kept]
        }))
    }

    #[inline]
    pub(crate) fn parts(&self) -> &[&'a [u8]; PARTS] {
        &self.0
    }
}

/// Returns the total length of a request in bytes, as laid out by [`Layout`].
#[inline]
pub(super) fn len_of(request: &Request, block: &[u8], expects: bool) -> usize {
    let omitted = if expects { None } else { request.expect_line() };
    let omitted = omitted.map_or(0, |line| line.len());
    request.wire_head().len() - omitted + block.len() + request.wire_body().len()
}

/// The bytes of one send, in at most `N` slices.
#[derive(Debug)]
pub(crate) struct Outgoing<'a, const N: usize> {
    parts: [&'a [u8]; N],
    len: usize,
}

impl<'a, const N: usize> Outgoing<'a, N> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            parts: [&[]; N],
            len: 0,
        }
    }

    /// Appends a request. Returns false if there is no room for it.
    #[inline]
    pub(crate) fn push(&mut self, layout: &Layout<'a>) -> bool {
        if self.len + PARTS > N {
            return false;
        }
        for part in layout.parts() {
            if !part.is_empty() {
                self.parts[self.len] = part;
                self.len += 1;
            }
        }
        true
    }

    #[inline]
    pub(crate) fn parts(&self) -> &[&'a [u8]] {
        &self.parts[..self.len]
    }
}
