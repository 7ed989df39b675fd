//! Reads a link: the bytes in its socket, or the bytes that its TLS state has kept.
//!
//! All links read into one shared buffer, and all TLS states decrypt into another. The exception is
//! a body of known length, which is read or decrypted directly into its final place.

use std::io;

use crate::engine::chain::{ChainKey, Marks};
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::h1::WriteSide;
use crate::net::link::{Link, Reach};
use crate::net::slots::LinkKey;
use crate::net::tls::TlsState;
use crate::net::{Net, Readiness};
use crate::proto::connection::Eof;

/// The outcome of one read.
#[derive(Debug)]
pub(super) enum Received {
    /// This many bytes, at the start of the buffer.
    Bytes(usize),
    /// Decrypted bytes, in [`Buffers::plaintext`](crate::engine::buffers::Buffers).
    Plaintext,
    /// This many more bytes of a body of known length, already in place.
    Body(usize),
    /// The peer ended the connection.
    End,
    /// Nothing for the response, but there may be more to read.
    Nothing,
    /// The link has failed, or is not to be read any further for now.
    Stop,
}

/// The number of bytes that may be read before other links get their turn.
#[derive(Debug)]
pub(super) struct Allowance<'a> {
    /// The limit for this link.
    pub(super) share: usize,
    /// The limit for all links together.
    pub(super) budget: &'a mut usize,
    /// The limit for one read.
    pub(super) at_once: usize,
}

impl Allowance<'_> {
    fn is_used_up(&self) -> bool {
        self.share == 0 || *self.budget == 0
    }

    fn spend(&mut self, bytes: usize) {
        self.share = self.share.saturating_sub(bytes);
        *self.budget = self.budget.saturating_sub(bytes);
    }
}

/// The place that a socket's bytes are read into.
#[derive(Clone, Copy)]
enum Place {
    /// The buffer that all links share.
    Shared,
    /// The shared buffer, after ciphertext that the TLS state kept from the previous read.
    Ciphertext { kept: usize },
    /// The link's own body, which is being collected.
    Body,
}

impl<N: Net> Core<N> {
    /// Reads once, if there is something to read and `allowed` is not used up. `buffer` is the
    /// buffer that all links share.
    #[inline(always)]
    pub(super) fn receive(
        &mut self,
        key: LinkKey,
        buffer: &mut [u8],
        allowed: &mut Allowance<'_>,
    ) -> Received {
        let link = &self.links[key];
        let Some(chain) = link.chain() else {
            return self.receive_ahead(key, buffer, allowed);
        };
        let may_read = matches!(link.reach, Reach::Open(..) | Reach::Shaking(..));
        // A canceled exchange is ended by a command that is already queued. Nothing is read for it
        // in the meantime.
        let marks = self.chains[chain].marks;
        // One test covers both, because most chains are neither.
        if !may_read || marks.has_any(Marks::STANDS_STILL_OR_METERED) {
            if !may_read || marks.has_any(Marks::STANDS_STILL) {
                return Received::Stop;
            }
            return self.receive_metered(key, chain, buffer, allowed);
        }
        self.receive_more(key, buffer, allowed)
    }

    /// Does what [`receive`](Self::receive) does, for a chain whose speed is limited.
    #[inline(never)]
    fn receive_metered(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        buffer: &mut [u8],
        allowed: &mut Allowance<'_>,
    ) -> Received {
        if !self.links[key].is_open() {
            // Handshakes are not part of the exchange.
            return self.receive_more(key, buffer, allowed);
        }
        let Some(most) = self.room_to_read(key, chain) else {
            return Received::Stop;
        };
        allowed.at_once = most;
        let before = self.counts.bytes_in;
        let received = self.receive_more(key, buffer, allowed);
        allowed.at_once = usize::MAX;
        let bytes = self.counts.bytes_in - before;
        // The exchange may have failed with the read.
        if bytes > 0 && self.chains[chain].marks.has(Marks::METERED) {
            self.note_read(chain, bytes);
        }
        received
    }

    /// Returns how many bytes may be read from a link's socket, or `None` if the cap holds the
    /// exchange back.
    fn room_to_read(&mut self, key: LinkKey, chain: ChainKey) -> Option<usize> {
        let link = &self.links[key];
        let missing = link.h1.response().missing();
        // Records that have been read before have been counted.
        let has_pending = link.tls_state().is_some_and(TlsState::has_pending);
        if has_pending || !link.readiness.has_any(Readiness::READ_SIDE) {
            return Some(usize::MAX);
        }
        let now = self.nanos();
        let Some(cap) = &mut self.meter(chain).download else {
            return Some(usize::MAX);
        };
        let was_holding = cap.is_holding();
        let room = cap.ask(missing, now);
        if room.is_none() && !was_holding {
            self.arm_again(key, chain, true);
        }
        room.map(|room| usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Does what [`receive`](Self::receive) does, for a link without an exchange, which reads only
    /// its handshakes.
    #[inline(never)]
    fn receive_ahead(
        &mut self,
        key: LinkKey,
        buffer: &mut [u8],
        allowed: &mut Allowance<'_>,
    ) -> Received {
        match self.links[key].reach {
            Reach::Shaking(..) => self.receive_more(key, buffer, allowed),
            _ => Received::Stop,
        }
    }

    #[inline(always)]
    fn receive_more(
        &mut self,
        key: LinkKey,
        buffer: &mut [u8],
        allowed: &mut Allowance<'_>,
    ) -> Received {
        let link = &self.links[key];
        match link.tls_state() {
            None => {}
            // The end was read earlier, so no event will report it.
            Some(tls) if tls.is_finished() => return Received::End,
            Some(tls) => {
                if let Some(problem) = tls.failure() {
                    let problem = problem.clone();
                    self.fail(key, Failure::Tls(problem));
                    return Received::Stop;
                }
                if tls.has_pending() {
                    if allowed.is_used_up() {
                        self.run_later(key);
                        return Received::Stop;
                    }
                    return self.on_pending(key, buffer, allowed);
                }
            }
        }
        if !link.readiness.has_any(Readiness::READ_SIDE) {
            return Received::Stop;
        }
        if allowed.is_used_up() {
            self.run_later(key);
            return Received::Stop;
        }
        self.read(key, buffer, allowed)
    }

    #[inline(always)]
    fn read(&mut self, key: LinkKey, buffer: &mut [u8], allowed: &mut Allowance<'_>) -> Received {
        let Link {
            reach,
            h1,
            readiness,
            ..
        } = &mut self.links[key];
        let (socket, tls) = reach.wire().expect("a link that is read has a socket");
        let most = buffer.len();
        let (place, room) = match tls {
            Some(tls) => {
                let kept = tls.restore(buffer);
                (Place::Ciphertext { kept }, &mut buffer[kept..])
            }
            None => match h1.room_in_body(most) {
                Some(room) => (Place::Body, room),
                None => (Place::Shared, &mut buffer[..]),
            },
        };
        let at_once = room.len().min(allowed.at_once);
        let room = &mut room[..at_once];
        let room_len = room.len();
        match self.net.recv(socket, room) {
            Ok(0) => Received::End,
            Ok(n) => {
                // A short read means that the socket is drained, unless an end of file follows the
                // data. Data and FIN together may have caused only one edge, so the link is then
                // read to its end.
                if n < room_len && !readiness.has_any(Readiness::ENDING) {
                    *readiness = readiness.without(Readiness::READABLE);
                    self.quiet.on_drained(key, self.clock.micros());
                }
                allowed.spend(n);
                self.counts.bytes_in += n as u64;
                match place {
                    Place::Shared => Received::Bytes(n),
                    Place::Ciphertext { kept } => {
                        self.on_ciphertext(key, buffer, kept + n, allowed)
                    }
                    Place::Body => {
                        let inbound = self.links[key].h1.inbound_mut();
                        inbound
                            .expect("a body that was read into is kept")
                            .body
                            .on_received(n);
                        Received::Body(n)
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Nothing,
            Err(error) => {
                self.on_nothing_read(key, error);
                Received::Stop
            }
        }
    }

    /// Continues with ciphertext that was read earlier.
    #[inline(never)]
    fn on_pending(
        &mut self,
        key: LinkKey,
        buffer: &mut [u8],
        allowed: &mut Allowance<'_>,
    ) -> Received {
        let (_, tls) = self.links[key]
            .reach
            .wire()
            .expect("a link with pending ciphertext has a socket");
        let kept = tls.map_or(0, |tls| tls.restore(buffer));
        self.on_ciphertext(key, buffer, kept, allowed)
    }

    /// Handles a read that returned no bytes: the socket is drained, or has failed.
    #[inline(never)]
    fn on_nothing_read(&mut self, key: LinkKey, error: io::Error) {
        let link = &mut self.links[key];
        if error.kind() != io::ErrorKind::WouldBlock {
            let missing = link.h1.response().missing();
            return self.fail(key, Failure::from_socket(error, missing));
        }
        let is_dead = !link.h1.is_writable() && link.readiness.has(Readiness::ERROR);
        link.readiness = link.readiness.without(Readiness::READ_SIDE);
        if is_dead {
            // Writing failed earlier, and no response explains why.
            let missing = None;
            let error = Some(io::ErrorKind::BrokenPipe.into());
            self.fail(key, Failure::Closed { missing, error });
        }
    }

    /// Decrypts the bytes at the start of `buffer`, up to `filled`. They have just arrived, or were
    /// kept because decrypting them exceeded the allowance. Records cost more than their bytes; the
    /// surcharge is also taken from `allowed`.
    #[inline(always)]
    fn on_ciphertext(
        &mut self,
        key: LinkKey,
        buffer: &mut [u8],
        filled: usize,
        allowed: &mut Allowance<'_>,
    ) -> Received {
        let link = &mut self.links[key];
        let was_open = link.is_open();
        let (_, tls) = link.reach.wire().expect("a link that is read has a socket");
        let tls = tls.expect("only TLS links receive ciphertext");
        // A body of known length is decrypted directly into its final place.
        let body = link.h1.body_mut();
        let is_body = body.is_some();
        let mut plaintext = match body {
            Some(body) => body.take(),
            None => {
                debug_assert!(
                    self.buffers.plaintext.is_empty(),
                    "the plaintext buffer is cleared after each use"
                );
                std::mem::take(&mut self.buffers.plaintext)
            }
        };
        let start = plaintext.len();
        let most = allowed.share.min(*allowed.budget);
        let mut left = most;
        let received = tls.receive(buffer, filled, &mut plaintext, &mut left);
        allowed.spend(most - left);
        let grown = plaintext.len() - start;
        let is_over = tls.is_finished() || received.is_err();
        match link.h1.body_mut() {
            Some(body) => *body = plaintext.into(),
            None => self.buffers.plaintext = plaintext,
        }
        if is_over {
            link.h1.end_behind_front();
        }
        // Sends the next handshake message, the request after the last one, or anything else that
        // the TLS state has to send. The alert of a failed state is sent when the link is closed.
        if received.is_ok() && (!was_open || link.has_outbound()) {
            self.flush(key);
        }
        // An end or a failure is left to the next call, so it takes effect after the bytes before
        // it, and after a pause.
        if is_body {
            return Received::Body(grown);
        }
        // No request is sent before the end of the handshake. If the TLS state fails in the same
        // read, the bytes before the failure answer nothing.
        let link = &mut self.links[key];
        if grown == 0 || !link.is_busy() {
            if grown > 0 {
                link.h1.end_behind_front();
            }
            self.buffers.plaintext.clear();
            return Received::Nothing;
        }
        if !was_open {
            // The server sent these bytes before the request arrived: see `connect_on`.
            link.h1.end_behind_front();
        }
        Received::Plaintext
    }

    /// Handles the end of the connection. Returns true if it completes the response; otherwise the
    /// exchange has failed.
    pub(super) fn on_end(&mut self, key: LinkKey) -> bool {
        let link = &mut self.links[key];
        link.h1.end_behind_front();
        let is_cut = link.tls_state().is_some_and(|s| !s.is_finished());
        if is_cut && link.h1.response().is_until_close() {
            // RFC 9112 §9.8: without close_notify, anyone able to cut the connection could truncate
            // the body.
            let why = "the connection ended without a TLS close_notify";
            let error = Some(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            let missing = None;
            self.fail(key, Failure::Closed { missing, error });
            return false;
        }
        if link.h1.write_side() == WriteSide::Reset {
            // A socket reports a reset only once, and the send received that report. Reads return
            // an end of file from then on. If that counted as the end of a body that lasts until
            // the close, a truncated response would appear complete.
            let missing = link.h1.response().missing();
            let error = Some(io::ErrorKind::ConnectionReset.into());
            self.fail(key, Failure::Closed { missing, error });
            return false;
        }
        match link.h1.on_eof() {
            Eof::Complete => return true,
            Eof::NothingReceived => {
                let (missing, error) = (None, None);
                self.fail(key, Failure::Closed { missing, error });
            }
            Eof::Truncated(violation) => self.fail(key, Failure::Violation(violation)),
        }
        false
    }

    /// Returns whether bytes that have arrived may be the response to the request in front. On a
    /// pipelined link, that request may not be written at all yet; then the bytes answer nothing,
    /// and the request is placed again.
    #[inline]
    pub(super) fn admits(&mut self, key: LinkKey, bytes: usize) -> bool {
        let now = self.clock.micros();
        let h1 = &mut self.links[key].h1;
        let has_line = h1.has_line();
        let front = h1.front_mut().expect("a link that is read has an exchange");
        if front.is_answered() {
            return true;
        }
        if has_line && front.written() == 0 {
            self.warn_of_unsolicited(key, bytes);
            let (missing, error) = (None, None);
            self.fail(key, Failure::Closed { missing, error });
            return false;
        }
        front.on_answered(now);
        true
    }
}
