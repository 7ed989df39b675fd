//! What one read has brought, on its way to a response: parsed in place, lent from there where it
//! is whole, and kept where it is not.

use std::ops::Range;

use crate::h1::exchange::Taking;
use crate::h1::inbound::Inbound;
use crate::proto::chunked::Joined;
use crate::proto::head::{self, Head};
use crate::proto::{Headers, Limits, Violation};

/// A longer body is not reserved for on its server's word alone.
pub(super) const RESERVE: usize = 64 << 10;

/// The bytes of one read, and what a response has left in them.
#[derive(Debug)]
pub(crate) struct Reading<'d> {
    pub(super) data: &'d mut [u8],
    /// Up to here the parser has taken it.
    pub(super) taken: usize,
    /// Where the head's bytes are in `data`, unless they are spilled.
    pub(super) section: Range<usize>,
    /// The body decoded in place in `data`, unless it is spilled.
    pub(super) body: Range<usize>,
    /// The head as read, trailers, and what is spilled.
    pub(super) inbound: Box<Inbound>,
    /// Whether the bytes of head and body are kept in `inbound`, since an earlier read.
    pub(super) spilled: bool,
    /// Whether `data` is an incomplete head that was kept, and goes back as it is.
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

    /// Of a response that is complete in what was kept, with `rest` behind it.
    pub(crate) fn of_kept(inbound: Box<Inbound>, rest: &'d mut [u8]) -> Self {
        Self::new(rest, inbound, true)
    }

    /// The data are an incomplete head that was kept, with more behind it.
    pub(crate) fn of_kept_head(mut self) -> Self {
        self.is_kept_head = true;
        self
    }

    /// What is behind the bytes that the response has taken.
    #[inline]
    pub(crate) fn rest(&self) -> &[u8] {
        &self.data[self.taken..]
    }

    /// A piece of the data.
    #[inline]
    pub(crate) fn piece(&self, place: Range<usize>) -> &[u8] {
        &self.data[place]
    }

    /// The head that was read last, and the bytes that its fields stand in.
    #[inline]
    pub(crate) fn head(&self) -> (&Head, &[u8]) {
        let section = if self.spilled {
            &self.inbound.section[..]
        } else {
            &self.data[self.section.clone()]
        };
        (&self.inbound.head, section)
    }

    /// Takes the fields of these names out of the head that was read last, which are not true of it
    /// any more, and the length of its body with them.
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

    /// A response that is complete: its head with the bytes of its fields, its trailers and body.
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

    /// Gives the buffers back, and the data from where the response has ended.
    #[inline]
    pub(crate) fn into_parts(self) -> (Box<Inbound>, &'d mut [u8]) {
        (self.inbound, &mut self.data[self.taken..])
    }

    /// A piece of the body has come, decoded, at `place`: answers it where it is streamed.
    ///
    /// # Errors
    /// It is collected, and passes the limit.
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
            // Chunks, which have framing between them, are collected otherwise.
            false => {
                debug_assert_eq!(place.start, self.body.end, "it follows what is there");
                self.body.end = place.end;
            }
        }
        self.check_body(limits)?;
        Ok(None)
    }

    /// Chunks were moved together behind the body so far.
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

    /// Reads the trailer section of a response that is complete.
    #[inline]
    pub(super) fn read_trailers(&mut self, limits: &Limits) -> Result<(), Violation> {
        let inbound = &mut *self.inbound;
        if inbound.trailers.is_empty() {
            Ok(())
        } else {
            head::parse_trailers(&mut inbound.trailers, &mut inbound.trailer_fields, limits)
        }
    }

    /// Whether what has been collected is no more than may be.
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

    /// What is left may not be looked at before a pause is over.
    pub(crate) fn hold_rest(&mut self) {
        self.inbound.held = self.data[self.taken..].to_vec();
    }

    /// Keeps an incomplete head.
    ///
    /// # Errors
    /// Interim responses, to the end of the last one, leave nothing to be kept.
    pub(super) fn keep_head(mut self) -> Result<Box<Inbound>, Box<Inbound>> {
        let rest = &self.data[self.taken..];
        if rest.is_empty() {
            return Err(self.inbound);
        }
        self.inbound.section.clear();
        // One that was kept before goes back as it is.
        if !self.is_kept_head || self.taken > 0 {
            self.inbound.section.extend_from_slice(rest);
        }
        Ok(self.inbound)
    }

    /// Keeps the head, and the body so far, of which so much is `missing`, where that is known and
    /// it is collected.
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

/// Where a body lies.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// In a buffer that is read into again.
    Lent(&'a [u8]),
    /// In a buffer of its own, which may be taken.
    Collected(&'a mut crate::h1::collected::Collected),
}
