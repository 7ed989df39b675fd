//! Turns bytes into responses: feeds received bytes to the link's [`H1`](crate::h1::H1), and passes
//! the resulting heads, body pieces and responses to readbacks.

use std::num::NonZeroU16;
use std::sync::OnceLock;

use crate::engine::Engine;
use crate::engine::body::Fed;
use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::engine::finish::Go;
use crate::engine::mode::Mode;
use crate::engine::readback::{Context, Flow, Readback};
use crate::engine::receive::{Allowance, Received};
use crate::error::Sent;
use crate::h1::Event;
use crate::h1::exchange::{Exchange, Taking};
use crate::h1::reading::{Body, Reading};
use crate::net::link::Reach;
use crate::net::slots::LinkKey;
use crate::net::{Net, Readiness};
use crate::policy::Shown;
use crate::proto::Limits;
use crate::response::{Response, no_fields};
use crate::timeouts::Timeout;

/// A readback panicked, so the turn has to end.
struct Panicked;

impl<S, M: Mode> Engine<S, M> {
    /// Processes a link that has an event or is on the run queue.
    pub(super) fn on_link(&mut self, state: &mut S, key: LinkKey, budget: &mut usize) {
        self.core.catch_up();
        self.core.clock.since = Since::Links;
        let link = &self.core.links[key];
        match link.reach {
            Reach::Idle(..) => {
                self.core.check_idle(key);
                *budget = budget.saturating_sub(std::mem::take(&mut self.core.quiet.cost));
            }
            Reach::Waiting { .. } | Reach::Closed => {}
            Reach::Dialing(..) | Reach::Connecting(..) | Reach::Shaking(..) | Reach::Open(..) => {
                let woken = Readiness::WRITABLE.with(Readiness::ERROR);
                // A link that is opened ahead has nothing to write when it is connected.
                let has_unwritten =
                    || link.has_unwritten() || link.h1.is_tunnel() || link.chain().is_none();
                if link.readiness.has_any(woken) && has_unwritten() {
                    let token = self.core.links.token(key);
                    self.core.flush(key);
                    // A failed connect or handshake has closed the link.
                    if self.core.links.find(token).is_none() {
                        return;
                    }
                }
                self.go_on(state, key, budget);
            }
        }
    }

    /// Feeds the bytes that a pause held back, then continues reading while there is input and the
    /// budget lasts.
    fn go_on(&mut self, state: &mut S, key: LinkKey, budget: &mut usize) {
        if self.feed_held(state, key) == Go::Stop {
            return;
        }
        let share = self.core.settings.turn_bytes;
        let mut allowed = Allowance {
            share,
            budget,
            at_once: usize::MAX,
        };
        loop {
            let mut buffer = std::mem::take(&mut self.core.buffers.read);
            let received = self.core.receive(key, &mut buffer, &mut allowed);
            let go = match received {
                Received::Bytes(n) => self.on_bytes(state, key, &mut buffer[..n]),
                Received::Plaintext => self.on_plaintext(state, key),
                Received::Body(grown) => self.on_body(state, key, grown),
                Received::End => {
                    self.on_end(state, key);
                    Go::Stop
                }
                Received::Nothing => Go::On,
                Received::Stop => Go::Stop,
            };
            self.core.buffers.read = buffer;
            if go == Go::Stop {
                return;
            }
        }
    }

    fn feed_held(&mut self, state: &mut S, key: LinkKey) -> Go {
        let h1 = &mut self.core.links[key].h1;
        let Some(inbound) = h1.inbound_mut() else {
            return Go::On;
        };
        let has_held = !inbound.held.is_empty();
        let was_paused = inbound.is_paused;
        let is_complete = h1.response().is_complete();
        let Some(chain) = h1.tag() else {
            return Go::On;
        };
        if self.core.chains[chain].marks.has(Marks::PAUSED) {
            return Go::On;
        }
        if was_paused {
            if let Some(inbound) = h1.inbound_mut() {
                inbound.is_paused = false;
            }
            if let Some(fed) = self.on_resume(state, key, chain) {
                return self.on_held_stopped(state, key, chain, fed);
            }
            // From here on, the exchange waits for the peer again.
            self.core.catch_up();
            self.core.arm(chain, Some(Timeout::Idle));
        }
        if !is_complete
            && self
                .core
                .visit_mut(chain)
                .and_then(|visit| visit.rare_mut())
                .is_some_and(|rare| rare.is_pending)
        {
            // Bytes left undecoded, by a pause or because the allowance was used up, come before
            // new bytes.
            if let Some(fed) = self.decode(state, key, chain, &[]) {
                return self.on_held_stopped(state, key, chain, fed);
            }
            // From here on, the exchange waits for the peer again.
            self.core.catch_up();
            self.core.arm(chain, Some(Timeout::Idle));
        }
        // The response may have been complete with the piece after which it was paused.
        if !has_held && !is_complete {
            return Go::On;
        }
        let held = self.core.links[key].h1.inbound_mut();
        let mut held = held.map_or_else(Vec::new, |inbound| std::mem::take(&mut inbound.held));
        self.feed(state, key, &mut held, false)
    }

    /// Stops or ends a response before all of its held-back bytes were fed.
    #[cold]
    #[inline(never)]
    fn on_held_stopped(&mut self, state: &mut S, key: LinkKey, chain: ChainKey, fed: Fed) -> Go {
        let Core { links, buffers, .. } = &mut self.core;
        let held = links[key].h1.inbound_mut();
        let mut held = held.map_or_else(Vec::new, |inbound| std::mem::take(&mut inbound.held));
        let reading = links[key].h1.reading(&mut held, || buffers.inbounds.take());
        if !matches!(fed, Fed::Complete) {
            self.on_stopped(key, chain, reading, fed);
            return Go::Stop;
        }
        match self.finish(state, key, reading) {
            (Some(line), rest) => match self.next_in_line(line, rest) {
                Ok(key) => self.feed(state, key, rest, false),
                Err(go) => go,
            },
            (None, _) => Go::Stop,
        }
    }

    fn on_end(&mut self, state: &mut S, key: LinkKey) {
        if self.core.on_end(key) {
            // Nothing follows on a connection that has ended.
            self.feed(state, key, &mut [], false);
        }
    }

    fn on_plaintext(&mut self, state: &mut S, key: LinkKey) -> Go {
        let mut plaintext = std::mem::take(&mut self.core.buffers.plaintext);
        let go = self.on_bytes(state, key, &mut plaintext);
        plaintext.clear();
        self.core.buffers.plaintext = plaintext;
        go
    }

    #[inline]
    fn on_bytes(&mut self, state: &mut S, key: LinkKey, data: &mut [u8]) -> Go {
        if !self.core.admits(key, data.len()) {
            return Go::Stop;
        }
        let Some(mut joined) = self.core.links[key].h1.join_kept_head(data) else {
            return self.feed(state, key, data, false);
        };
        let token = self.core.links.token(key);
        let go = self.feed(state, key, &mut joined, true);
        if let Some(key) = self.core.links.find(token) {
            self.core.links[key].h1.put_back_head(joined);
        }
        go
    }

    /// Handles `grown` bytes of a collected body of known length. The bytes are already in place.
    fn on_body(&mut self, state: &mut S, key: LinkKey, grown: usize) -> Go {
        let core = &mut self.core;
        let h1 = &mut core.links[key].h1;
        // The bytes after the response.
        let mut rest = match h1.on_body(grown, &core.settings.limits) {
            Ok(rest) => rest,
            Err(violation) => {
                core.fail(key, Failure::Violation(violation));
                return Go::Stop;
            }
        };
        if !h1.response().is_complete() {
            let chain = h1.tag().expect("a link that is read has an exchange");
            core.arm(chain, Some(Timeout::Idle));
            return Go::On;
        }
        let inbound = h1
            .take_inbound()
            .expect("a body that was read into is kept");
        let reading = Reading::of_kept(inbound, &mut rest);
        match self.finish(state, key, reading) {
            (Some(line), rest) => match self.next_in_line(line, rest) {
                Ok(key) => self.feed(state, key, rest, false),
                Err(go) => go,
            },
            (None, _) => Go::Stop,
        }
    }

    /// Feeds bytes to the link's parser, and the results to the readback. Bytes after a response go
    /// to the next exchange in line. With `is_kept_head`, the bytes begin with an incomplete head
    /// that was kept.
    fn feed(
        &mut self,
        state: &mut S,
        mut key: LinkKey,
        mut data: &mut [u8],
        mut is_kept_head: bool,
    ) -> Go {
        loop {
            let Core { links, buffers, .. } = &mut self.core;
            let h1 = &mut links[key].h1;
            let chain = h1.tag().expect("a link that is read has an exchange");
            let mut reading = h1.reading(data, || buffers.inbounds.take());
            if std::mem::take(&mut is_kept_head) {
                reading = reading.of_kept_head();
            }
            match self.parse(state, key, chain, &mut reading) {
                Fed::Complete => {
                    let (line, rest) = self.finish(state, key, reading);
                    let Some(line) = line else {
                        return Go::Stop;
                    };
                    key = match self.next_in_line(line, rest) {
                        Ok(next) => next,
                        Err(go) => return go,
                    };
                    data = rest;
                }
                Fed::More => return self.on_more(key, chain, reading),
                fed => {
                    self.on_stopped(key, chain, reading, fed);
                    return Go::Stop;
                }
            }
        }
    }

    /// Handles the end of the bytes: the response continues with the next read.
    fn on_more(&mut self, key: LinkKey, chain: ChainKey, reading: Reading<'_>) -> Go {
        let core = &mut self.core;
        let between = reading.rest().is_empty();
        core.keep(key, reading);
        let h1 = &core.links[key].h1;
        let front = h1.front();
        // After an interim response, the wait for the final one continues.
        let clock = match h1.response().has_head() || !between {
            _ if front.is_some_and(Exchange::waits_for_supply) => None,
            true => Some(Timeout::Idle),
            false if front.is_some_and(Exchange::is_sent) => Some(Timeout::FirstByte),
            false => Some(Timeout::Write),
        };
        // Interim responses other than 100 (Continue) do not extend the wait for a 100.
        if !front.is_some_and(Exchange::awaits_continue) {
            core.catch_up();
            core.arm(chain, clock);
        }
        Go::On
    }

    /// Handles all reasons for not reading a response any further for now.
    fn on_stopped(&mut self, key: LinkKey, chain: ChainKey, mut reading: Reading<'_>, fed: Fed) {
        let core = &mut self.core;
        match fed {
            Fed::More | Fed::Complete => unreachable!("this response has not stopped"),
            Fed::Paused => {
                reading.note_paused();
                reading.hold_rest();
                core.keep(key, reading);
                core.arm(chain, None);
            }
            Fed::Yielded => {
                reading.hold_rest();
                core.keep(key, reading);
                // The exchange is not waiting for the peer, so no phase deadline runs.
                core.arm(chain, None);
                core.run_later(key);
            }
            Fed::Cancelled => core.keep(key, reading),
            Fed::Failed(failure) => {
                core.keep(key, reading);
                match failure {
                    Failure::Violation(violation) => core.fail(key, Failure::Violation(violation)),
                    failure => core.fail(key, failure),
                }
            }
            Fed::ExpectRefused => {
                core.buffers.inbounds.give(reading.into_parts().0);
                core.disarm(chain);
                core.end_metering(chain);
                core.close(key);
                // The 417 is an answer, so the server has seen this attempt (RFC 9110 §10.1.1).
                core.chains[chain].note_sent(Sent::Yes);
                core.chains[chain].marks.set(Marks::NO_EXPECT);
                core.chains[chain].stage = Stage::New;
                core.agenda.restarts.push_back(chain);
            }
            Fed::Panicked => {
                core.buffers.inbounds.give(reading.into_parts().0);
                core.close(key);
                self.end_chain(chain);
            }
        }
    }

    fn parse(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        reading: &mut Reading<'_>,
    ) -> Fed {
        if self.core.chains[chain].marks.has(Marks::CANCELLED) {
            return Fed::Cancelled;
        }
        let request = self.core.chains[chain].request();
        let limits = self.core.settings.limits_of(request);
        loop {
            let event = self.core.links[key].h1.next(reading, &limits);
            let fed = match event {
                Ok(Event::More) => return Fed::More,
                Ok(Event::Complete) if self.core.is_visited(chain) => {
                    let fed = self.end_decoding(state, key, chain);
                    return fed.unwrap_or(Fed::Complete);
                }
                Ok(Event::Complete) => return Fed::Complete,
                Ok(Event::ExpectRefused) => return Fed::ExpectRefused,
                Ok(Event::Interim { continues }) => {
                    if continues {
                        self.core.flush(key);
                    }
                    self.on_interim(state, key, chain, reading)
                }
                Ok(Event::Head) => {
                    if self.core.links[key].h1.is_tunnel() {
                        self.core.chains.open_tunnel(chain);
                        self.core.begin_tunnel(key);
                    }
                    self.on_head(state, key, chain, reading, &limits)
                }
                Ok(Event::Data(place)) if self.core.is_visited(chain) => {
                    self.on_visited_data(state, key, chain, reading.piece(place))
                }
                Ok(Event::Data(place)) => self.on_data(state, key, chain, reading.piece(place)),
                Err(violation) => return Fed::Failed(Failure::Violation(violation)),
            };
            if let Some(fed) = fed {
                return fed;
            }
            if self.core.chains[chain].marks.has(Marks::CANCELLED) {
                return Fed::Cancelled;
            }
        }
    }

    fn on_interim(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        reading: &Reading<'_>,
    ) -> Option<Fed> {
        let shown = self.show(state, key, chain, reading, |readback, state, head, cx| {
            readback.on_interim(state, head, cx);
        });
        shown.err().map(|Panicked| Fed::Panicked)
    }

    /// Handles the final head: chooses how the body is handled.
    #[inline]
    fn on_head(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        reading: &mut Reading<'_>,
        limits: &Limits,
    ) -> Option<Fed> {
        if let Some(seconds) = reading.head().0.keep_alive_timeout {
            let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
            self.core.links[key].keep_alive = NonZeroU16::new(seconds.max(1));
        }
        if self.core.is_visited(chain) {
            match self.screen(key, chain, reading) {
                Ok(Shown::AtOnce) => {}
                Ok(Shown::AtTheEnd) => {
                    return self.take(key, chain, Taking::Collect, reading, limits);
                }
                Ok(Shown::WithoutBody) => return self.skip(key),
                Err(fed) => return Some(fed),
            }
        }
        let shown = self.show(state, key, chain, reading, |readback, state, head, cx| {
            readback.on_head(state, head, cx)
        });
        let flow = match shown {
            Ok(Some(flow)) => {
                if let Some(visit) = self.core.visit_mut(chain) {
                    visit.visiting.note_seen();
                }
                flow
            }
            Ok(None) => Flow::Buffer,
            Err(Panicked) => return Some(Fed::Panicked),
        };
        let taking = match flow {
            Flow::Buffer => Taking::Collect,
            Flow::Stream => Taking::Stream,
            Flow::Discard => Taking::Discard,
            Flow::Pause | Flow::Finish | Flow::Abort => {
                return self.stop_at_head(key, chain, flow, reading, limits);
            }
        };
        self.take(key, chain, taking, reading, limits)
    }

    /// Acts on the flow of a readback that pauses, finishes or aborts the response at its head.
    #[cold]
    #[inline(never)]
    fn stop_at_head(
        &mut self,
        key: LinkKey,
        chain: ChainKey,
        flow: Flow,
        reading: &Reading<'_>,
        limits: &Limits,
    ) -> Option<Fed> {
        let taking = match flow {
            Flow::Abort => return Some(Fed::Failed(Failure::Aborted)),
            Flow::Finish => Taking::Discard,
            _ => Taking::Stream,
        };
        if let Some(fed) = self.take(key, chain, taking, reading, limits) {
            return Some(fed);
        }
        if flow == Flow::Pause {
            return Some(self.core.pause(chain));
        }
        let is_complete = self.core.links[key].h1.response().is_complete();
        (!is_complete).then_some(Fed::Complete)
    }

    /// Calls a readback with a head. Returns `None` if the readback reads no heads.
    #[inline]
    fn show<R>(
        &mut self,
        state: &mut S,
        key: LinkKey,
        chain: ChainKey,
        reading: &Reading<'_>,
        call: impl FnOnce(&mut dyn Readback<S>, &mut S, &Response<'_>, &mut Context<'_, S>) -> R,
    ) -> Result<Option<R>, Panicked> {
        if !self.reads_heads(chain).ok_or(Panicked)? {
            return Ok(None);
        }
        let about = self.core.about(key);
        let (head, section) = reading.head();
        let response = Response {
            head,
            section,
            trailers: no_fields(),
            body: Body::Lent(&[]),
            about: &about,
            info: &OnceLock::new(),
        };
        let shown = self.run_readback(chain, about.id, |readback, mut cx| {
            call(readback, state, &response, &mut cx)
        });
        shown.map(Some).ok_or(Panicked)
    }
}

impl<N: Net> Core<N> {
    fn keep(&mut self, key: LinkKey, reading: Reading<'_>) {
        if let Some(unused) = self.links[key].h1.keep(reading) {
            self.buffers.inbounds.give(unused);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::Request;
    use crate::engine::Next;

    #[test]
    fn a_head_that_comes_byte_by_byte_is_examined_at_most_three_times() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut engine = Engine::<Option<usize>>::new().unwrap();
        engine.submit(Request::get(&url).build().unwrap(), |answered, reply, _| {
            *answered = Some(reply.unwrap().headers().len());
            Next::done()
        });
        let mut answered = None;
        engine.turn(&mut answered, Some(Duration::ZERO)).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_nodelay(true).unwrap();
        assert!(peer.read(&mut [0; 1024]).unwrap() > 0, "the request");

        let fields = "X-Field: with a value of some length\r\n".repeat(100);
        let long = "y".repeat(24 * 1024);
        let head = format!("HTTP/1.1 204 No Content\r\n{fields}Set-Cookie: {long}\r\n\r\n");
        let before = crate::proto::head::examined();
        for (i, byte) in head.bytes().enumerate() {
            peer.write_all(&[byte]).unwrap();
            while engine.core.counts.bytes_in == i as u64 {
                engine.turn(&mut answered, None).unwrap();
            }
        }
        assert_eq!(answered, Some(101));
        let examined = crate::proto::head::examined() - before;
        let most = 3 * head.len();
        assert!(examined <= most, "{examined} of {}", head.len());
    }
}
