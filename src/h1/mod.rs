//! The HTTP/1.1 state of one connection, without its socket: requests go out and responses come in,
//! one at a time or pipelined (RFC 9112 §9).
//!
//! ```text
//!            ┌─ front ─┐ ┌────────── line ──────────┐
//!  bytes out │ Upload  │ │ Upload │ Upload │ Upload │   one write position across all of them
//!  bytes in  │ Taking  │ └──────────────────────────┘   bytes read are the front's response
//!            └─────────┘
//! ```
//!
//! An [`H1`] has no socket, no clock and no callback. Its owner asks it for [the bytes to
//! write](H1::outgoing) and reports [how many were written](H1::on_written). Bytes that were read
//! are passed in as a [`Reading`], and [`H1::next`] returns the events they produce. Nothing is
//! copied in either direction unless a response arrives in more than one read.

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
    /// The exchange whose response is being read. `None` means that the connection is free.
    front: Option<Exchange<T>>,
    /// The requests behind the front one. Present only while every request on the connection may be
    /// pipelined.
    line: Option<Box<Line<T>>>,
    /// How far the response has been read.
    response: Connection,
    /// The parts of a response that have to be kept because it did not arrive whole.
    inbound: Option<Box<Inbound>>,
    write_side: WriteSide,
    /// The connection closes after the front exchange: see
    /// [`end_behind_front`](Self::end_behind_front).
    ends: bool,
    past: Past,
    /// The protocol was switched: bytes flow both ways and are not interpreted here.
    is_tunnel: bool,
}

/// What an open connection has been through before its current exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Nothing,
    /// It was kept, but has served no exchange.
    Idleness,
    /// It has served an exchange.
    Exchange,
}

/// Whether bytes can still be written to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteSide {
    Open,
    /// A write failed. Bytes that the peer has already sent may still be read (RFC 9112 §9.6).
    Broken,
    /// A write failed with a connection reset. An end of stream that is read afterwards was not
    /// intended by the peer, so it completes no body.
    Reset,
}

/// An event produced by bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// More bytes are needed.
    More,
    /// An interim (1xx) head. `continues` is true if the request's body was waiting for it.
    Interim { continues: bool },
    /// The final head. The owner must [choose](H1::take) what happens to the body before it calls
    /// [`H1::next`] again.
    Head,
    /// A piece of a streamed body, at this range of the [`Reading`]'s data.
    Data(Range<usize>),
    /// The response is complete.
    Complete,
    /// The server refused `Expect` (RFC 9110 §10.1.1) before the body was sent. The request should
    /// be resent without `Expect`, on another connection.
    ExpectRefused,
}

impl<T: Copy + PartialEq> H1<T> {
    /// Creates the state of a new connection.
    pub(crate) fn new() -> Self {
        Self {
            front: None,
            line: None,
            response: Connection::new(),
            inbound: None,
            write_side: WriteSide::Open,
            ends: false,
            past: Past::Nothing,
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

    /// Sets the front exchange, which must be absent. `forget` spares the drop of the old value,
    /// which the compiler cannot prove to be `None`.
    #[inline(always)]
    fn set_front(&mut self, exchange: Exchange<T>) {
        let none = self.front.replace(exchange);
        debug_assert!(none.is_none(), "the previous exchange has finished");
        std::mem::forget(none);
    }

    /// Allows further requests to queue behind the one just passed to [`begin`](Self::begin).
    pub(crate) fn begin_line(&mut self, line: Box<Line<T>>) {
        self.line = Some(line);
    }

    /// Returns the exchange whose response is being read.
    #[inline]
    pub(crate) fn front(&self) -> Option<&Exchange<T>> {
        self.front.as_ref()
    }

    #[inline]
    pub(crate) fn front_mut(&mut self) -> Option<&mut Exchange<T>> {
        self.front.as_mut()
    }

    /// Returns the tag of the exchange whose response is being read.
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

    /// Removes the line. It must be empty, or the caller must empty it.
    pub(crate) fn end_line(&mut self) -> Option<Box<Line<T>>> {
        self.line.take()
    }

    // ---- what is written ----

    /// Returns whether the bytes to be written now follow unanswered requests or precede further
    /// ones.
    pub(crate) fn follows_others(&self) -> bool {
        let is_behind = self.front.as_ref().is_some_and(Exchange::is_sent);
        matches!(&self.line, Some(line) if is_behind || !line.is_empty())
    }

    /// Returns whether part of a request can be written now.
    #[inline]
    pub(crate) fn has_unwritten(&self) -> bool {
        // If the connection is about to close, the requests in line go out on another one.
        let line = self.line.as_ref().filter(|_| !self.ends);
        self.write_side == WriteSide::Open
            && (self.front.as_ref().is_some_and(Exchange::has_unwritten)
                || line.is_some_and(|line| line.has_unwritten()))
    }

    /// Returns whether the connection accepts bytes at all.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.write_side == WriteSide::Open
            && !matches!(&self.front, Some(front) if front.going() == Going::Refused)
    }

    /// Returns the bytes to write now, as at most `N` slices, and how many of them have already
    /// been written. `block` returns the fields that follow a request's own, given the exchange's
    /// tag and the block's number.
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
                // A body that is held back also holds back the requests behind it.
                return (outgoing, skip);
            }
        }
        // If the connection is about to close, these go out on another one.
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

    /// Records that `bytes` more of [`outgoing`](Self::outgoing) have been written. `is_flushed`
    /// means that none of them are still buffered on the way to the socket. Returns the progress of
    /// the front request, and how many of the requests behind it were written completely.
    #[inline(always)]
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

    /// Records that nothing can be written any more. `by_reset` means that the write failed with a
    /// connection reset.
    pub(crate) fn on_write_failed(&mut self, by_reset: bool) {
        self.ends = true;
        self.write_side = if by_reset || self.write_side == WriteSide::Reset {
            WriteSide::Reset
        } else {
            WriteSide::Broken
        };
    }

    pub(crate) fn write_side(&self) -> WriteSide {
        self.write_side
    }

    // ---- what is read ----

    /// Parses more of one read, as part of the response to the front request.
    ///
    /// # Errors
    /// Returns what the peer did wrong. The connection is then unusable.
    ///
    /// # Panics
    /// Panics if there is no front request.
    #[inline(always)]
    pub(crate) fn next(
        &mut self,
        reading: &mut Reading<'_>,
        limits: &Limits,
    ) -> Result<Event, Violation> {
        let front = self.front.as_mut().expect("there is a front request");
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
                        // A server cannot mean a request that it has not received in full.
                        if !front.is_sent() {
                            return Err(Violation::SwitchingProtocols);
                        }
                        (self.ends, self.is_tunnel) = (true, true);
                        return Ok(Event::Head);
                    }
                    match front.on_head(reading.inbound.head.status) {
                        Early::No => {}
                        // RFC 9112 §9.3: a server that responds before the end of the request may
                        // not read the rest of it.
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

    /// Sets what happens to the body that follows `head`.
    ///
    /// # Errors
    /// Returns an error if the body is to be collected and its declared length exceeds the limit.
    /// Such a body is refused without being read.
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
        self.set_taking(taking);
        Ok(())
    }

    /// Sets what happens to the body of the response, without a check of its length.
    #[inline]
    pub(crate) fn set_taking(&mut self, taking: Taking) {
        if let Some(front) = &mut self.front {
            front.taking = taking;
        }
    }

    /// Discards the rest of a body that is being streamed.
    ///
    /// # Panics
    /// Panics if there is no front request.
    pub(crate) fn discard_rest(&mut self) {
        let front = self.front.as_mut();
        front.expect("a body belongs to a request").taking = Taking::Discard;
    }

    /// Returns a [`Reading`] of `data` that continues with what was kept, or with the buffers from
    /// `fresh` if nothing was.
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

    /// Appends `data` to an incomplete head that was kept, and returns both, or `None` if no head
    /// was kept. The caller reads the result in place of `data`, as a reading [of a kept
    /// head](Reading::of_kept_head), and afterwards [puts it back](Self::put_back_head).
    #[inline]
    pub(crate) fn join_kept_head(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let has_head = self.response.has_head();
        let kept = self.inbound.as_mut().filter(|_| !has_head)?;
        kept.section.extend_from_slice(data);
        Some(std::mem::take(&mut kept.section))
    }

    /// Keeps the bytes of a [joined head](Self::join_kept_head) without copying if the head is
    /// still incomplete. Copying them at each read would take quadratic time. Does nothing if the
    /// bytes ended with an interim head, which needs no keeping.
    pub(crate) fn put_back_head(&mut self, joined: Vec<u8>) {
        if self.response.is_inside_head()
            && let Some(inbound) = &mut self.inbound
            && inbound.section.is_empty()
        {
            inbound.section = joined;
        }
    }

    /// Keeps what the next read needs: the head, or the part of it that has arrived, and the body
    /// so far. Returns the buffers if there is nothing to keep.
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

    /// Returns room for a read of at most `most` bytes, directly in the collected body. `None`
    /// unless the body has begun, is collected, and has a known length. The caller reports the
    /// bytes read with [`on_body`](Self::on_body).
    #[inline]
    pub(crate) fn room_in_body(&mut self, most: usize) -> Option<&mut [u8]> {
        // Not on a pipelined connection: the read would split off the first byte of the next
        // response.
        if self.has_line() || !self.collects() {
            return None;
        }
        let inbound = self.inbound.as_mut()?;
        let missing = self.response.missing()?;
        // One byte more than the body needs: a read that leaves this byte free has drained the
        // socket, which saves another read to find out.
        let wanted =
            usize::try_from(missing).map_or(most, |missing| most.min(missing.saturating_add(1)));
        Some(inbound.body.room(reading::RESERVE, wanted))
    }

    /// Returns the collected body, to be appended to, if it has begun and has a known length.
    pub(crate) fn body_mut(&mut self) -> Option<&mut collected::Collected> {
        if !self.collects() || self.response.missing().is_none() {
            return None;
        }
        self.inbound.as_mut().map(|inbound| &mut inbound.body)
    }

    /// Records that the body grew by its last `grown` bytes. Returns the bytes that follow its end.
    ///
    /// # Errors
    /// See [`next`](Self::next).
    ///
    /// # Panics
    /// Panics if no body of known length is being collected.
    pub(crate) fn on_body(&mut self, grown: usize, limits: &Limits) -> Result<Vec<u8>, Violation> {
        let inbound = self.inbound.as_mut().expect("a body is being collected");
        let start = inbound.body.len() - grown;
        let bytes = inbound.body.last_mut(grown);
        let step = self.response.receive(bytes, &mut inbound.head, limits)?;
        Ok(inbound.body.split_off(start + step.consumed))
    }

    /// Returns what is kept of the response.
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

    /// Records the end of the connection, and returns what it means for the response.
    pub(crate) fn on_eof(&mut self) -> Eof {
        self.ends = true;
        self.response.on_eof()
    }

    /// Returns how far the response has been read.
    #[inline]
    pub(crate) fn response(&self) -> &Connection {
        &self.response
    }

    // ---- one exchange after another ----

    /// Returns whether the front exchange is finished, response and request, and the connection can
    /// be reused.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.response.is_reusable() && self.front.as_ref().is_some_and(Exchange::is_sent)
    }

    /// Removes the front exchange, which has finished.
    #[inline]
    pub(crate) fn finish(&mut self) -> Option<Exchange<T>> {
        self.past = Past::Exchange;
        self.front.take()
    }

    /// Moves the next request in line to the front, which must be free, and returns it.
    pub(crate) fn promote(&mut self) -> Option<&mut Exchange<T>> {
        let next = self.line.as_mut()?.take_next()?;
        self.response.expect_response(next.request.is_head());
        self.set_front(next);
        self.front.as_mut()
    }

    /// Makes the connection close after the front exchange. Requests in line go out on another
    /// connection, except those that have been written completely, whose responses may still
    /// arrive. A connection that should first serve the requests in line, but accept no others,
    /// uses [`Intake::Shut`] instead.
    ///
    /// [`Intake::Shut`]: line::Intake::Shut
    #[inline]
    pub(crate) fn end_behind_front(&mut self) {
        self.ends = true;
    }

    /// Returns whether the connection closes after the front exchange.
    #[inline]
    pub(crate) fn ends_behind_front(&self) -> bool {
        self.ends
    }

    /// Returns whether a 101 switched the protocol. Bytes read then go to the readback, and bytes
    /// written come from the caller.
    #[inline]
    pub(crate) fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }

    /// Returns whether the connection has served an exchange before the current one.
    #[inline]
    pub(crate) fn is_reused(&self) -> bool {
        self.past == Past::Exchange
    }

    /// Records that a connection without an exchange is kept for a later one.
    pub(crate) fn on_kept(&mut self) {
        if self.past == Past::Nothing {
            self.past = Past::Idleness;
        }
    }

    /// Returns whether the connection was open and free before the current exchange. The peer may
    /// have closed it then.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.past != Past::Nothing
    }
}
