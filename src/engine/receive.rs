//! Reads a link: what its socket holds, or what its TLS state has kept.
//!
//! All links read into one buffer, and all TLS states decrypt into another that they share; but a
//! body of known length is read, or decrypted, to where it stays.

use std::io;

use crate::engine::chain::Marks;
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::h1::Outlet;
use crate::net::link::{Link, Reach};
use crate::net::slots::LinkKey;
use crate::net::{Net, Readiness};
use crate::proto::connection::Eof;

/// What a read has brought.
#[derive(Debug)]
pub(super) enum Received {
    /// So many bytes, at the front of the buffer.
    Bytes(usize),
    /// The plaintext of records, in [`Buffers::plaintext`](crate::engine::buffers::Buffers).
    Plaintext,
    /// So many bytes more of a body of known length, in place.
    Body(usize),
    /// The peer has ended the connection.
    End,
    /// Nothing for the response; there may be more.
    Nothing,
    /// The link is not to be read on for now, or has failed.
    Stop,
}

/// How much may be read, in bytes, before others have their turn.
#[derive(Debug)]
pub(super) struct Allowance<'a> {
    /// Of this link.
    pub(super) share: usize,
    /// Of all links together.
    pub(super) budget: &'a mut usize,
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

/// Where a socket is read into.
#[derive(Clone, Copy)]
enum Place {
    /// The buffer that all links read into.
    Shared,
    /// The same, behind what the TLS state has kept of the read before.
    Ciphertext { kept: usize },
    /// The link's own body, which is collected.
    Body,
}

impl<N: Net> Core<N> {
    /// Reads once, as far as there is something and `allowed` lasts. `buffer` is the one that all
    /// links read into.
    #[inline]
    pub(super) fn receive(
        &mut self,
        key: LinkKey,
        buffer: &mut [u8],
        allowed: &mut Allowance<'_>,
    ) -> Received {
        let link = &self.links[key];
        let Some(chain) = link.chain() else {
            return Received::Stop;
        };
        let may_read = matches!(link.reach, Reach::Open(..) | Reach::Shaking(..));
        // Cancelled: a command is on its way that ends it, and until then nothing more comes of
        // it.
        if !may_read || self.chains[chain].marks.has_any(Marks::STANDS_STILL) {
            return Received::Stop;
        }
        match link.tls_state() {
            None => {}
            // No event will tell of what has been read already.
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

    #[inline]
    fn read(&mut self, key: LinkKey, buffer: &mut [u8], allowed: &mut Allowance<'_>) -> Received {
        let Link {
            reach,
            h1,
            readiness,
            ..
        } = &mut self.links[key];
        let (socket, tls) = reach.wire().expect("what is read has a socket");
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
        let room_len = room.len();
        match self.net.recv(socket, room) {
            Ok(0) => Received::End,
            Ok(n) => {
                // A short read has emptied the socket, unless the end of file stands behind the
                // data: then read on to it, since data and FIN together gave one edge only.
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
                        inbound.expect("its body had room").body.on_received(n);
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

    /// More is to be done with ciphertext that was read before.
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
            .expect("it was read from a socket");
        let kept = tls.map_or(0, |tls| tls.restore(buffer));
        self.on_ciphertext(key, buffer, kept, allowed)
    }

    /// Nothing was there to be read, or nothing will be any more.
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
            // Writing failed, and there is no response that would explain it.
            let missing = None;
            let error = Some(io::ErrorKind::BrokenPipe.into());
            self.fail(key, Failure::Closed { missing, error });
        }
    }

    /// Bytes of a TLS link have come, at the front of `buffer` up to `filled`; or they had, and
    /// more was to be done with them than was allowed. What the records cost beside their bytes is
    /// taken from `allowed` as well.
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
        let (_, tls) = link.reach.wire().expect("what is read has a socket");
        let tls = tls.expect("ciphertext is of a TLS link");
        // A body of known length is decrypted to where it stays.
        let body = link.h1.body_mut();
        let is_body = body.is_some();
        let mut plaintext = match body {
            Some(body) => body.take(),
            None => {
                debug_assert!(
                    self.buffers.plaintext.is_empty(),
                    "the last who used it has cleared it"
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
        // The next message of the handshake, the request behind the last one, or what else the TLS
        // state has to say. An alert that says why it has failed goes out when the link is closed.
        if received.is_ok() && (!was_open || link.has_outbound()) {
            self.flush(key);
        }
        // The end that has come, or the failure, is the next call's: behind what has come before
        // it, and behind a pause.
        if is_body {
            return Received::Body(grown);
        }
        // Before its handshake is over a link has asked for nothing: a TLS state that fails in the
        // same read answers nothing.
        let link = &mut self.links[key];
        if grown == 0 || !link.is_busy() {
            self.buffers.plaintext.clear();
            return Received::Nothing;
        }
        if !was_open {
            // It was sent before the request was: as in `connect_on`.
            link.h1.end_behind_front();
        }
        Received::Plaintext
    }

    /// The peer has ended the connection. True: that is the end of the response, which is complete.
    /// The exchange has failed if not.
    pub(super) fn on_end(&mut self, key: LinkKey) -> bool {
        let link = &mut self.links[key];
        link.h1.end_behind_front();
        let is_cut = link.tls_state().is_some_and(|s| !s.is_finished());
        if is_cut && link.h1.response().is_until_close() {
            // RFC 9112 §9.8: whoever cuts the connection could cut the body where it likes.
            let why = "the connection ended without TLS's close_notify";
            let error = Some(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            let missing = None;
            self.fail(key, Failure::Closed { missing, error });
            return false;
        }
        if link.h1.outlet() == Outlet::Reset {
            // A socket tells of a reset once, and the send was told. To take the end that it reads
            // as from then on for the end of a body that lasts until the close would be to call
            // whole what was cut off.
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

    /// Whether bytes that have come may be the response to the request in front, of which a byte
    /// has to be written. Otherwise they answer nobody, and it is sent elsewhere.
    #[inline]
    pub(super) fn admits(&mut self, key: LinkKey, bytes: usize) -> bool {
        let now = self.clock.micros();
        let h1 = &mut self.links[key].h1;
        let has_line = h1.has_line();
        let front = h1.front_mut().expect("it is read for an exchange");
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
