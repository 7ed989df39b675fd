//! The bytes of one read on their way into a response. They are parsed in place, lent from there if
//! the response is whole, and kept otherwise.

use std::ops::Range;

use crate::h1::exchange::Taking;
use crate::h1::inbound::Inbound;
use crate::proto::chunked::Joined;
use crate::proto::head::{self, Head};
use crate::proto::{Headers, Limits, Violation};

/// The most memory that is reserved for a body on the strength of its declared length alone.
pub(super) const RESERVE: usize = 64 << 10;

/// The bytes of one read, and the positions of the response's parts in them.
#[derive(Debug)]
pub(crate) struct Reading<'d> {
    pub(super) data: &'d mut [u8],
    /// The parser has consumed the bytes up to here.
    pub(super) taken: usize,
    /// Where the head's bytes are in `data`, unless they have spilled.
    pub(super) section: Range<usize>,
    /// The body decoded in place in `data`, unless it has spilled.
    pub(super) body: Range<usize>,
    /// The parsed head, the trailers, and everything that has spilled.
    pub(super) inbound: Box<Inbound>,
    /// Whether head and body are kept in `inbound`, since an earlier read.
    pub(super) spilled: bool,
    /// Whether `data` is an incomplete head that was kept and will be put back as it is.
    is_kept_head: bool,
}

impl<'d> Reading<'d> {
    #[inline]
    pub(super) fn new(data: &'d mut [u8], inbound: Box<Inbound>, spilled: bool) -> Self {
        Self {
            data,
            taken: 0,
            section: 0..0,
            body: 0..0,
            inbound,
            spilled,
            is_kept_head: false,
        }
    }

    /// Returns the reading of a response that is already complete in `inbound`, followed by
    /// `rest`.
    pub(crate) fn of_kept(inbound: Box<Inbound>, rest: &'d mut [u8]) -> Self {
        Self::new(rest, inbound, true)
    }

    /// Marks the data as an incomplete head that was kept, followed by new bytes.
    pub(crate) fn of_kept_head(mut self) -> Self {
        self.is_kept_head = true;
        self
    }

    /// Returns the bytes after those that the response has consumed.
    #[inline]
    pub(crate) fn rest(&self) -> &[u8] {
        &self.data[self.taken..]
    }

    /// Returns a range of the data.
    #[inline]
    pub(crate) fn piece(&self, place: Range<usize>) -> &[u8] {
        &self.data[place]
    }

    /// Returns the head that was parsed last, and the bytes that its fields refer to.
    #[inline]
    pub(crate) fn head(&self) -> (&Head, &[u8]) {
        let section = if self.spilled {
            &self.inbound.section[..]
        } else {
            &self.data[self.section.clone()]
        };
        (&self.inbound.head, section)
    }

    /// Removes the fields with these names from the head that was parsed last, along with the
    /// length of its body, because they no longer describe it.
    pub(crate) fn forget_fields(&mut self, names: &[&str]) {
        let Inbound { section, head, .. } = &mut *self.inbound;
        let section = if self.spilled {
            &section[..]
        } else {
            &self.data[self.section.clone()]
        };
        let is_named = |name: &[u8]| {
            names
                .iter()
                .any(|other| other.as_bytes().eq_ignore_ascii_case(name))
        };
        head.fields
            .retain(|field| !is_named(&section[field.name()]));
        head.content_length = None;
    }

    /// Returns a complete response: its head with the bytes of its fields, its trailers and its
    /// body.
    #[inline]
    pub(crate) fn response(&mut self) -> (&Head, &[u8], Headers<'_>, Body<'_>) {
        let inbound = &mut *self.inbound;
        let trailers = Headers::new(&inbound.trailers, &inbound.trailer_fields);
        if self.spilled {
            let body = Body::Collected(&mut inbound.body);
            (&inbound.head, &inbound.section, trailers, body)
        } else {
            let body = Body::Lent(&self.data[self.body.clone()]);
            let section = &self.data[self.section.clone()];
            (&inbound.head, section, trailers, body)
        }
    }

    /// Returns the buffers, and the data after the end of the response.
    #[inline]
    pub(crate) fn into_parts(self) -> (Box<Inbound>, &'d mut [u8]) {
        (self.inbound, &mut self.data[self.taken..])
    }

    /// Takes a decoded piece of the body at `place`. Returns the range if the body is streamed.
    ///
    /// # Errors
    /// Returns an error if the body is collected and exceeds the limit.
    #[inline]
    pub(super) fn take(
        &mut self,
        taking: Taking,
        place: Range<usize>,
        limits: &Limits,
    ) -> Result<Option<Range<usize>>, Violation> {
        match taking {
            Taking::Discard => return Ok(None),
            Taking::Stream => return Ok(Some(place)),
            Taking::Collect => {}
        }
        match self.spilled {
            true => self.inbound.body.extend_from_slice(&self.data[place]),
            // Chunks have framing between them, so they are collected by `on_joined`.
            false => {
                debug_assert_eq!(
                    place.start, self.body.end,
                    "the piece follows the body so far"
                );
                self.body.end = place.end;
            }
        }
        self.check_body(limits)?;
        Ok(None)
    }

    /// Records that chunks were moved together, directly after the body so far.
    #[inline]
    pub(super) fn on_joined(&mut self, joined: Joined) {
        let body = self.body.end;
        self.taken = body + joined.end;
        self.body.end += joined.len;
        let trailers = &self.data[body..][joined.trailers];
        self.inbound.trailers.extend_from_slice(trailers);
    }

    pub(super) fn take_trailers(&mut self, place: Range<usize>) {
        let trailers = &self.data[place];
        self.inbound.trailers.extend_from_slice(trailers);
    }

    /// Parses the trailer section of a complete response.
    #[inline]
    pub(super) fn read_trailers(&mut self, limits: &Limits) -> Result<(), Violation> {
        let inbound = &mut *self.inbound;
        if inbound.trailers.is_empty() {
            Ok(())
        } else {
            head::parse_trailers(&mut inbound.trailers, &mut inbound.trailer_fields, limits)
        }
    }

    /// Checks that the body collected so far is within the limit.
    #[inline]
    pub(super) fn check_body(&self, limits: &Limits) -> Result<(), Violation> {
        let len = if self.spilled {
            self.inbound.body.len()
        } else {
            self.body.len()
        };
        let (limit, seen) = (limits.max_body_bytes, len as u64);
        if seen > limit {
            Err(Violation::BodyTooLarge { limit, seen })
        } else {
            Ok(())
        }
    }

    /// Holds back the unread rest until a pause is over.
    pub(crate) fn hold_rest(&mut self) {
        self.inbound.held = self.data[self.taken..].to_vec();
    }

    /// Records that the readback has paused the response.
    pub(crate) fn note_paused(&mut self) {
        self.inbound.is_paused = true;
    }

    /// Keeps an incomplete head.
    ///
    /// # Errors
    /// Returns the buffers if there is nothing to keep: the data ended exactly with an interim
    /// response.
    pub(super) fn keep_head(mut self) -> Result<Box<Inbound>, Box<Inbound>> {
        let rest = &self.data[self.taken..];
        if rest.is_empty() {
            return Err(self.inbound);
        }
        self.inbound.section.clear();
        // A head that was kept before is put back by `H1::put_back_head`.
        if !self.is_kept_head || self.taken > 0 {
            self.inbound.section.extend_from_slice(rest);
        }
        Ok(self.inbound)
    }

    /// Keeps the head, and the body so far. `missing` is the number of bytes still to come, if the
    /// body is collected and that number is known.
    pub(super) fn keep_body(mut self, missing: Option<u64>) -> Box<Inbound> {
        if self.spilled {
            return self.inbound;
        }
        let (section, body) = (self.section.clone(), self.body.clone());
        self.inbound.section.clear();
        self.inbound.section.extend_from_slice(&self.data[section]);
        if let Some(missing) = missing {
            let missing = usize::try_from(missing).unwrap_or(usize::MAX);
            let expected = body.len().saturating_add(missing);
            self.inbound.body.reserve_exact(expected.min(RESERVE));
        }
        self.inbound.body.extend_from_slice(&self.data[body]);
        self.inbound
    }
}

/// Where the bytes of a body are stored.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// In a buffer that later reads overwrite.
    Lent(&'a [u8]),
    /// In a buffer of its own, which can be moved out.
    Collected(&'a mut crate::h1::collected::Collected),
}
