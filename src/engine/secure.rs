//! What is different about a link with TLS: its handshake, and from ciphertext to what `receive` makes of plaintext.
//!
//! All sessions read into the buffer that all links read into, and decrypt into another that they share; but a body of known length is
//! decrypted to where it stays.

use std::io;

use log::debug;

use crate::config::Clock;
use crate::engine::Engine;
use crate::engine::chains::ChainKey;
use crate::engine::mode::Mode;
use crate::engine::mode::sealed::Sealed;
use crate::engine::receive::{Go, Probe, READ_SIDE};
use crate::net::link::{LinkMarks, State};
use crate::net::slots::LinkKey;
use crate::net::tls::{Problem, Session};
use crate::net::transport;
use crate::net::{Net, Readiness};
use crate::proto::Scheme;

impl<S, M: Mode> Engine<S, M> {
    /// Gives an https link a session, in which nothing has been said. In the simulation https is http by another name.
    pub(super) fn begin_session(&mut self, key: LinkKey) -> Result<(), Problem> {
        let link = &mut self.links[key];
        let entry = &self.pool[link.origin];
        if <M as Sealed>::Net::HAS_TLS && entry.origin.scheme() == Scheme::Https {
            link.session = Some(Session::new(entry.route.tls(), entry.origin.host())?);
        }
        Ok(())
    }

    /// Sends what the handshake has to say. Answers whether it is over, so that the request may follow.
    pub(super) fn shake_hands(&mut self, key: LinkKey, chain_key: ChainKey) -> bool {
        loop {
            let since_start = self.since_start(chain_key);
            let link = &mut self.links[key];
            let (Some(socket), Some(session)) = (&link.socket, &mut link.session) else {
                return false;
            };
            if session.is_established() {
                link.times.tls = since_start;
                link.state = State::Busy {
                    chain: chain_key,
                    written: 0,
                };
                debug!(
                    "{:?} {}: TLS is agreed on",
                    self.links.token(key),
                    self.origin_of(key)
                );
                // What the session has to say last goes out with the request.
                self.arm(chain_key, Some(Clock::Write));
                return true;
            }
            if !session.has_outbound() {
                return false;
            }
            let (net, scratch) = (&mut self.net, &mut self.scratch);
            match transport::write(net, socket, Some(session), &[], 0, scratch) {
                Ok(done) => {
                    self.counts.bytes_out += done.sent as u64;
                    if done.is_blocked {
                        link.readiness = link.readiness.without(Readiness::WRITABLE);
                        return false;
                    }
                }
                Err(trouble) => {
                    self.on_trouble(key, trouble);
                    return false;
                }
            }
        }
    }

    /// Bytes of a TLS link have come, at the front of `buffer` up to `filled`.
    pub(super) fn on_ciphertext(
        &mut self,
        state: &mut S,
        key: LinkKey,
        buffer: &mut [u8],
        filled: usize,
    ) -> Go {
        let link = &mut self.links[key];
        let Some(session) = &mut link.session else {
            return Go::Stop;
        };
        // A body of known length is decrypted to where it stays.
        let collects = !link.marks.has(LinkMarks::STREAM.and(LinkMarks::DISCARD));
        let inbound = link.inbound.as_mut();
        let body = inbound.filter(|_| collects && link.connection.missing().is_some());
        let is_body = body.is_some();
        let mut plaintext = match body {
            Some(inbound) => inbound.body.take(),
            None => {
                debug_assert!(
                    self.plaintext.is_empty(),
                    "the last who used it has cleared it"
                );
                std::mem::take(&mut self.plaintext)
            }
        };
        let start = plaintext.len();
        let received = session.receive(buffer, filled, &mut plaintext, &mut { usize::MAX });
        let grown = plaintext.len() - start;
        if is_body && let Some(inbound) = &mut link.inbound {
            inbound.body = std::mem::take(&mut plaintext).into();
        }
        if session.is_finished() || received.is_err() {
            link.marks.set(LinkMarks::CLOSE);
        }
        // The next message of the handshake, the request behind the last one, or what else the session has to say. An alert that
        // says why it has failed goes out when the link is closed.
        let speaks = matches!(link.state, State::Handshaking { .. }) || link.has_outbound();
        if received.is_ok() && speaks {
            self.flush(key);
        }
        // The end that has come, or the failure, is `go_on`'s: behind what has come before it, and behind a pause.
        if is_body {
            return self.on_body(state, key, grown);
        }
        let mut go = Go::On;
        // Before its handshake is over a link has asked for nothing: a session that fails in the same read answers nothing.
        let is_busy = matches!(self.links[key].state, State::Busy { .. });
        if is_busy && !plaintext.is_empty() {
            go = self.on_bytes(state, key, &mut plaintext);
        }
        plaintext.clear();
        self.plaintext = plaintext;
        go
    }

    /// As [`probe`](Self::probe), where the server may have something to say to the session: tickets for later ones, new keys.
    pub(super) fn probe_session(&mut self, key: LinkKey, buffer: &mut [u8]) -> Probe {
        let link = &mut self.links[key];
        let (Some(socket), Some(session)) = (&link.socket, &mut link.session) else {
            return Probe::Ended;
        };
        loop {
            let kept = session.restore(buffer);
            match self.net.recv(socket, &mut buffer[kept..]) {
                Ok(0) => return Probe::Ended,
                // So much is said by nobody who means well, and would be read for as long as it is said.
                Ok(n) if kept + n == buffer.len() => return Probe::Ended,
                Ok(n) => {
                    self.counts.bytes_in += n as u64;
                    self.plaintext.clear();
                    let received =
                        session.receive(buffer, kept + n, &mut self.plaintext, &mut { usize::MAX });
                    let bytes = self.plaintext.len();
                    // Nobody asked for it, and it must not stand before what somebody did.
                    self.plaintext.clear();
                    match received {
                        _ if bytes > 0 => return Probe::Spoke { bytes },
                        Err(_) => return Probe::Ended,
                        Ok(()) if session.is_finished() => return Probe::Ended,
                        Ok(()) => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.readiness = link.readiness.without(READ_SIDE);
                    return Probe::Open;
                }
                Err(_) => return Probe::Ended,
            }
        }
    }
}
