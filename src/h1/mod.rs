//! One connection's side of HTTP/1.1, without its socket: requests out, responses in, one after the
//! other or pipelined (RFC 9112 §9).
//!
//! ```text
//!            ┌─ front ─┐ ┌────────── line ──────────┐
//!  bytes out │ Upload  │ │ Upload │ Upload │ Upload │   one write position over all of them
//!  bytes in  │ Taking  │ └──────────────────────────┘   what is read is the response to the front
//!            └─────────┘
//! ```
//!
//! An [`H1`] knows no socket, no clock and no callback. Its owner asks it [what to
//! write](H1::outgoing) and says [how much was](H1::on_written); gives it what was read, as a
//! [`Reading`], and is told [what came of it](H1::next). Nothing is copied on either way unless a
//! response does not come whole.

use std::ops::Range;

use crate::proto::connection::{self, Connection, Eof};
use crate::proto::head::Head;
use crate::proto::{Limits, Violation};

pub(crate) mod collected;
pub(crate) mod exchange;
pub(crate) mod inbound;
pub(crate) mod layout;
pub(crate) mod line;
pub(crate) mod reading;
pub(crate) mod trust;

#[cfg(test)]
mod tests;

pub(crate) use exchange::Advance;
use exchange::{Early, Exchange, Going, Taking};
use inbound::Inbound;
use layout::{Body, Outgoing};
use line::Line;
use reading::Reading;

/// The exchanges of one connection.
#[derive(Debug)]
pub(crate) struct H1<T> {
    /// The one whose response is read. The connection is free without one.
    front: Option<Exchange<T>>,
    /// While all requests are ones that may be pipelined: those behind it.
    line: Option<Box<Line<T>>>,
    /// How far the response has been read.
    response: Connection,
    /// What is kept of a response that did not arrive whole.
    inbound: Option<Box<Inbound>>,
    outlet: Outlet,
    /// It is closed behind the exchange in front: see [`end_behind_front`](Self::end_behind_front).
    ends: bool,
    /// It has served an exchange before the present one.
    is_reused: bool,
    /// The protocol was switched: bytes go both ways, and mean nothing here.
    is_tunnel: bool,
}

/// Whether the connection takes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlet {
    Open,
    /// Writing has failed. What the peer has sent may still be read (RFC 9112 §9.6).
    Broken,
    /// Writing has failed by a reset: what is then read as the end of the connection is no end that
    /// the peer meant, and completes no body.
    Reset,
}

/// What has come of bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// More bytes are needed.
    More,
    /// An interim (1xx) head. `continues`: the body of the request was waiting for it.
    Interim { continues: bool },
    /// The final head; what becomes of the body is to be [said](H1::take) before the next call.
    Head,
    /// A piece of a body that is streamed, at this place of the [`Reading`]'s data.
    Data(Range<usize>),
    /// The response is complete.
    Complete,
    /// The server will not have `Expect` (RFC 9110 §10.1.1), and the body was never sent: the
    /// request is to be sent again without it, elsewhere.
    ExpectRefused,
}

impl<T: Copy + PartialEq> H1<T> {
    /// Of a fresh connection.
    pub(crate) fn new() -> Self {
        Self {
            front: None,
            line: None,
            response: Connection::new(),
            inbound: None,
            outlet: Outlet::Open,
            ends: false,
            is_reused: false,
            is_tunnel: false,
        }
    }

    /// Puts a request on a connection that has none.
    #[inline]
    pub(crate) fn begin(&mut self, exchange: Exchange<T>) {
        debug_assert!(self.front.is_none() && self.line.is_none());
        self.ends |= exchange.request.wants_close();
        self.response.expect_response(exchange.request.is_head());
        if exchange.request.wants_upgrade() {
            self.response.expect_switch();
        }
        self.set_front(exchange);
    }

    /// There is none in front: nothing is left to be dropped, which the compiler cannot know.
    #[inline(always)]
    fn set_front(&mut self, exchange: Exchange<T>) {
        let none = self.front.replace(exchange);
        debug_assert!(none.is_none(), "the one before it is over");
        std::mem::forget(none);
    }

    /// Lets others stand behind the request that was just put on it.
    pub(crate) fn begin_line(&mut self, line: Box<Line<T>>) {
        self.line = Some(line);
    }

    /// The exchange whose response is read.
    #[inline]
    pub(crate) fn front(&self) -> Option<&Exchange<T>> {
        self.front.as_ref()
    }

    #[inline]
    pub(crate) fn front_mut(&mut self) -> Option<&mut Exchange<T>> {
        self.front.as_mut()
    }

    /// Whose response is read.
    #[inline]
    pub(crate) fn tag(&self) -> Option<T> {
        self.front.as_ref().map(|front| front.tag)
    }

    pub(crate) fn line(&self) -> Option<&Line<T>> {
        self.line.as_deref()
    }

    pub(crate) fn line_mut(&mut self) -> Option<&mut Line<T>> {
        self.line.as_deref_mut()
    }

    #[inline]
    pub(crate) fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// Takes the line out, which is empty, or to be emptied.
    pub(crate) fn end_line(&mut self) -> Option<Box<Line<T>>> {
        self.line.take()
    }

    // ---- what is written ----

    /// Whether what is written now follows requests that are not answered yet, or is followed by
    /// others.
    pub(crate) fn follows_others(&self) -> bool {
        let is_behind = self.front.as_ref().is_some_and(Exchange::is_sent);
        matches!(&self.line, Some(line) if is_behind || !line.is_empty())
    }

    /// Whether something of a request is to be written now.
    #[inline]
    pub(crate) fn has_unwritten(&self) -> bool {
        // On a connection that is to end, those in line go out elsewhere.
        let line = self.line.as_ref().filter(|_| !self.ends);
        self.outlet == Outlet::Open
            && (self.front.as_ref().is_some_and(Exchange::has_unwritten)
                || line.is_some_and(|line| line.has_unwritten()))
    }

    /// Whether bytes may be written at all.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.outlet == Outlet::Open
            && !matches!(&self.front, Some(front) if front.going() == Going::Refused)
    }

    /// What is to be written now, from `N` places at most, and how much of it already is. `block`
    /// tells the fields that go behind a request's own, by its tag and their number.
    #[inline]
    pub(crate) fn outgoing<'a, const N: usize>(
        &'a self,
        block: impl Fn(T, u16) -> &'a [u8],
    ) -> (Outgoing<'a, N>, usize) {
        let mut outgoing = Outgoing::new();
        let mut skip = 0;
        let mut is_first = true;
        if let Some(front) = &self.front
            && let Going::Out { body, .. } = front.going()
        {
            outgoing.push(&front.layout(|number| block(front.tag, number)));
            (skip, is_first) = (front.written(), false);
            if body == Body::HeldBack {
                // What follows a body that waits, waits too.
                return (outgoing, skip);
            }
        }
        // On a connection that is to end, they go out elsewhere.
        if let Some(line) = self.line.as_ref().filter(|_| !self.ends) {
            for next in line.writable() {
                if std::mem::take(&mut is_first) {
                    skip = next.written();
                }
                if !outgoing.push(&next.layout(|number| block(next.tag, number))) {
                    break;
                }
            }
        }
        (outgoing, skip)
    }

    /// The connection has taken `bytes` more of what [`outgoing`](Self::outgoing) told. With
    /// `is_flushed`, none of it is on its way to the socket any more. Answers what became of the
    /// request in front, and how many of those behind it were written to their ends.
    #[inline]
    pub(crate) fn on_written(
        &mut self,
        bytes: usize,
        is_flushed: bool,
        now: u64,
    ) -> (Advance, u64) {
        let (taken, advance) = match &mut self.front {
            Some(front) => front.on_written(bytes, is_flushed, now),
            None => (0, Advance::None),
        };
        let left = bytes - taken;
        let behind = match &mut self.line {
            Some(line) if left > 0 => line.on_written(left, now),
            _ => 0,
        };
        (advance, behind)
    }

    /// Nothing can be written any more.
    pub(crate) fn on_write_failed(&mut self, by_reset: bool) {
        self.ends = true;
        self.outlet = if by_reset || self.outlet == Outlet::Reset {
            Outlet::Reset
        } else {
            Outlet::Broken
        };
    }

    pub(crate) fn outlet(&self) -> Outlet {
        self.outlet
    }

    // ---- what is read ----

    /// Reads on in the bytes of one read, which are the response's to the request in front.
    ///
    /// # Errors
    /// What the peer did wrong; the connection is then unusable.
    ///
    /// # Panics
    /// There is no request in front, for which bytes could be read.
    #[inline]
    pub(crate) fn next(
        &mut self,
        reading: &mut Reading<'_>,
        limits: &Limits,
    ) -> Result<Event, Violation> {
        let front = self.front.as_mut().expect("a request is in front");
        loop {
            if self.response.is_complete() {
                reading.read_trailers(limits)?;
                return Ok(Event::Complete);
            }
            let start = reading.taken;
            if let Some(len) = self.response.take_rest(reading.data.len() - start) {
                reading.taken += len;
                let place = start..reading.taken;
                return Ok(match reading.take(front.taking, place, limits)? {
                    Some(place) => Event::Data(place),
                    None => Event::Complete,
                });
            }
            let body = reading.body.end;
            if front.taking == Taking::Collect
                && !reading.spilled
                && let Some((joined, result)) =
                    self.response
                        .collect_chunks(&mut reading.data[body..], start - body, limits)
            {
                reading.on_joined(joined);
                result?;
                reading.check_body(limits)?;
                if reading.taken == reading.data.len() && !self.response.is_complete() {
                    return Ok(Event::More);
                }
                continue;
            }
            let step = self.response.receive(
                &mut reading.data[start..],
                &mut reading.inbound.head,
                limits,
            )?;
            reading.taken += step.consumed;
            match step.event {
                connection::Event::More if self.response.is_complete() => {}
                connection::Event::More => return Ok(Event::More),
                connection::Event::Interim => {
                    reading.section = start..reading.taken;
                    let is_continue = reading.inbound.head.status == http::StatusCode::CONTINUE;
                    let continues = is_continue && front.go_on();
                    return Ok(Event::Interim { continues });
                }
                connection::Event::Head => {
                    reading.section = start..reading.taken;
                    reading.body = reading.taken..reading.taken;
                    if reading.inbound.head.status == http::StatusCode::SWITCHING_PROTOCOLS {
                        // A server that switches before it has the request cannot mean that one.
                        if !front.is_sent() {
                            return Err(Violation::SwitchingProtocols);
                        }
                        (self.ends, self.is_tunnel) = (true, true);
                        return Ok(Event::Head);
                    }
                    match front.on_head(reading.inbound.head.status) {
                        Early::No => {}
                        // RFC 9112 §9.3: who answers before the end of the request may not read it
                        // to its end.
                        Early::Yes => self.ends = true,
                        Early::ExpectRefused => return Ok(Event::ExpectRefused),
                    }
                    return Ok(Event::Head);
                }
                connection::Event::Data(place) => {
                    let place = start + place.start..start + place.end;
                    if let Some(place) = reading.take(front.taking, place, limits)? {
                        return Ok(Event::Data(place));
                    }
                }
                connection::Event::Trailers(place) => {
                    reading.take_trailers(start + place.start..start + place.end);
                }
            }
        }
    }

    /// Says what is to become of the body, whose head is in `reading`.
    ///
    /// # Errors
    /// It is to be collected, and its length is over the limit: so much need not be read to be
    /// refused.
    #[inline]
    pub(crate) fn take(
        &mut self,
        taking: Taking,
        head: &Head,
        limits: &Limits,
    ) -> Result<(), Violation> {
        if taking == Taking::Collect {
            head.check_length(limits)?;
        }
        if let Some(front) = &mut self.front {
            front.taking = taking;
        }
        Ok(())
    }

    /// The rest of a body that is streamed is not wanted.
    ///
    /// # Panics
    /// There is no request in front, whose response it could be.
    pub(crate) fn discard_rest(&mut self) {
        let front = self.front.as_mut();
        front.expect("a body is read for a request").taking = Taking::Discard;
    }

    /// A reading of `data` that goes on with what is kept, or with `fresh`.
    #[inline]
    pub(crate) fn reading<'d>(
        &mut self,
        data: &'d mut [u8],
        fresh: impl FnOnce() -> Box<Inbound>,
    ) -> Reading<'d> {
        let spilled = self.response.has_head();
        let inbound = self.inbound.take().unwrap_or_else(fresh);
        Reading::new(data, inbound, spilled)
    }

    /// An incomplete head that is kept, with `data` behind it: to be read in place of `data`, as a
    /// reading [of a kept head](Reading::of_kept_head), and then [put back](Self::put_back_head).
    /// `None`: there is none.
    #[inline]
    pub(crate) fn join_kept_head(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let has_head = self.response.has_head();
        let kept = self.inbound.as_mut().filter(|_| !has_head)?;
        kept.section.extend_from_slice(data);
        Some(std::mem::take(&mut kept.section))
    }

    /// Keeps the bytes of a [joined head](Self::join_kept_head), as they are, if it is still
    /// incomplete: to copy them at each read would take quadratic time. An interim head that they
    /// ended with is done with.
    pub(crate) fn put_back_head(&mut self, joined: Vec<u8>) {
        if self.response.is_inside_head()
            && let Some(inbound) = &mut self.inbound
            && inbound.section.is_empty()
        {
            inbound.section = joined;
        }
    }

    /// Keeps what the next read cannot do without: the head, or what has come of it, and the body
    /// so far. Gives back the buffers where that is nothing.
    pub(crate) fn keep(&mut self, reading: Reading<'_>) -> Option<Box<Inbound>> {
        let collects = self.collects();
        let missing = self.response.missing().filter(|_| collects);
        let kept = if self.response.has_head() {
            Ok(reading.keep_body(missing))
        } else {
            reading.keep_head()
        };
        match kept {
            Ok(inbound) => {
                self.inbound = Some(inbound);
                None
            }
            Err(inbound) => Some(inbound),
        }
    }

    fn collects(&self) -> bool {
        matches!(&self.front, Some(front) if front.taking == Taking::Collect)
    }

    /// Room in a body of known length that is collected and has begun, for a read of at most `most`
    /// bytes; what is read there is told to [`on_body`](Self::on_body).
    #[inline]
    pub(crate) fn room_in_body(&mut self, most: usize) -> Option<&mut [u8]> {
        // What stands behind the body of a pipelined response is not to be broken at its first
        // byte.
        if self.has_line() || !self.collects() {
            return None;
        }
        let inbound = self.inbound.as_mut()?;
        let missing = self.response.missing()?;
        // A byte more than there should be: a read that leaves it free has drained the socket, and
        // nobody has to ask.
        let wanted =
            usize::try_from(missing).map_or(most, |missing| most.min(missing.saturating_add(1)));
        Some(inbound.body.room(reading::RESERVE, wanted))
    }

    /// The body of known length that is collected and has begun, to be appended to.
    pub(crate) fn body_mut(&mut self) -> Option<&mut collected::Collected> {
        if !self.collects() || self.response.missing().is_none() {
            return None;
        }
        self.inbound.as_mut().map(|inbound| &mut inbound.body)
    }

    /// Such a body has grown by its last `grown` bytes. Answers those that are behind it.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Panics
    /// There is no such body.
    pub(crate) fn on_body(&mut self, grown: usize, limits: &Limits) -> Result<Vec<u8>, Violation> {
        let inbound = self.inbound.as_mut().expect("the body is kept");
        let start = inbound.body.len() - grown;
        let bytes = inbound.body.last_mut(grown);
        let step = self.response.receive(bytes, &mut inbound.head, limits)?;
        Ok(inbound.body.split_off(start + step.consumed))
    }

    /// What is kept of the response.
    pub(crate) fn inbound(&self) -> Option<&Inbound> {
        self.inbound.as_deref()
    }

    pub(crate) fn inbound_mut(&mut self) -> Option<&mut Inbound> {
        self.inbound.as_deref_mut()
    }

    pub(crate) fn take_inbound(&mut self) -> Option<Box<Inbound>> {
        self.inbound.take()
    }

    pub(crate) fn put_inbound(&mut self, inbound: Box<Inbound>) {
        self.inbound = Some(inbound);
    }

    /// The connection has ended: what that means for the response.
    pub(crate) fn on_eof(&mut self) -> Eof {
        self.ends = true;
        self.response.on_eof()
    }

    /// How far the response has been read.
    #[inline]
    pub(crate) fn response(&self) -> &Connection {
        &self.response
    }

    // ---- one after the other ----

    /// Whether the response to the request in front is complete, the request as well, and the
    /// connection good for another.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.response.is_reusable() && self.front.as_ref().is_some_and(Exchange::is_sent)
    }

    /// Takes out the exchange in front, which is over.
    #[inline]
    pub(crate) fn finish(&mut self) -> Option<Exchange<T>> {
        self.is_reused = true;
        self.front.take()
    }

    /// Puts the next in line in front, where there is none. Answers it.
    pub(crate) fn promote(&mut self) -> Option<&mut Exchange<T>> {
        let next = self.line.as_mut()?.take_next()?;
        self.response.expect_response(next.request.is_head());
        self.set_front(next);
        self.front.as_mut()
    }

    /// The connection is to be closed behind the exchange in front. What stands in line goes out
    /// elsewhere, apart from requests that are written to their end: their answers may still come.
    /// A connection that is to serve all those in line, and no others, has [`Intake::Shut`]
    /// instead.
    ///
    /// [`Intake::Shut`]: line::Intake::Shut
    #[inline]
    pub(crate) fn end_behind_front(&mut self) {
        self.ends = true;
    }

    /// Whether it is closed behind the exchange in front.
    #[inline]
    pub(crate) fn ends_behind_front(&self) -> bool {
        self.ends
    }

    /// Whether its protocol was switched by a 101: what is read is the readback's, and what is
    /// written comes from there.
    #[inline]
    pub(crate) fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }

    /// Whether it has served an exchange before the present one.
    #[inline]
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }
}
