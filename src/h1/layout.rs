//! Where the bytes of requests lie: the one place that lays them out. Nothing is copied; what goes
//! out in one send is a list of slices.

use crate::request::Request;

/// Whether the body goes out with the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Included,
    /// It waits for a 100 (Continue).
    HeldBack,
}

/// A request lies in so many places at most.
pub(crate) const PARTS: usize = 4;

/// The places of one request: head, default fields with the empty line, body. The head is in two
/// parts where its `Expect` line is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a>([&'a [u8]; PARTS]);

impl<'a> Layout<'a> {
    /// `expects`: its `Expect` line is sent, if it has one.
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

    #[inline]
    pub(crate) fn parts(&self) -> &[&'a [u8]; PARTS] {
        &self.0
    }
}

/// Bytes of a request in all, as [`Layout`] has them.
#[inline]
pub(super) fn len_of(request: &Request, block: &[u8], expects: bool) -> usize {
    let omitted = if expects { None } else { request.expect_line() };
    let omitted = omitted.map_or(0, |line| line.len());
    request.wire_head().len() - omitted + block.len() + request.wire_body().len()
}

/// What goes out in one send, from `N` places at most.
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

    /// Puts a request behind the others. False: there is no room for it.
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
