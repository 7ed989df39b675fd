//! Ends links: closes the socket, and places the requests behind the front again.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use log::debug;

use crate::engine::core::{Core, close_socket};
use crate::error::Sent;
use crate::h1::line::{Extent, Intake};
use crate::net::Net;
use crate::net::link::Reach;
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::proto::Origin;

impl<N: Net> Core<N> {
    /// Ends a link that is not in the pool. Its slot and its socket are freed here and nowhere
    /// else.
    ///
    /// The requests behind the front are placed again, and requests waiting for a connection are
    /// served, but only in the next [`settle`](Core::settle). So this function touches no other
    /// link and runs no user code.
    pub(super) fn close(&mut self, key: LinkKey) {
        let token = self.links.token(key);
        self.leave_ahead(key);
        self.give_up_line(key);
        self.end_dialing(key, 0);
        let mut link = self.links.remove(key);
        if let Some((socket, Some(tls))) = link.reach.wire() {
            // RFC 8446 §6.1: each side sends close_notify, and need not wait for the peer's.
            let last = tls.close();
            if !last.is_empty() {
                let _ = self.net.send(socket, &[io::IoSlice::new(&last)]);
            }
        }
        match link.reach.take() {
            Reach::Connecting(socket, _)
            | Reach::Shaking(socket, _)
            | Reach::Open(socket, _)
            | Reach::Idle(socket, ..) => self.let_go(socket),
            Reach::Dialing(mut dial, _) => {
                for attempt in dial.take_attempts() {
                    self.let_go(attempt.socket);
                }
            }
            Reach::Waiting { .. } | Reach::Closed => {}
        }
        if let Some(inbound) = link.h1.take_inbound() {
            self.buffers.inbounds.give(inbound);
        }
        debug!("{token:?} {}: closed", self.pool[link.origin].origin);
        // `on_closed` comes last, because the pool drops an origin with its last user.
        self.pool.serve_soon(link.origin);
        self.forget_turned_away(link.origin);
        self.pool.on_closed(link.origin);
    }

    /// Closes a socket. Its descriptor may end a shortage on this machine, so new connections are
    /// tried again.
    pub(super) fn let_go(&mut self, socket: N::Socket) {
        close_socket(&mut self.net, socket);
        if let Some(exhausted) = self.exhausted.take() {
            self.timers.cancel(exhausted.retry);
        }
    }

    /// Ends all attempts to connect a link. The addresses of attempts before `place` are marked as
    /// doubtful, because a later attempt was faster.
    pub(super) fn end_dialing(&mut self, key: LinkKey, place: usize) {
        let token = self.links.token(key);
        let link = &mut self.links[key];
        let dial = match &mut link.reach {
            Reach::Dialing(dial, _) => dial,
            Reach::Waiting { retry, .. } => {
                if let Some(retry) = retry.take() {
                    self.timers.cancel(retry);
                }
                return;
            }
            Reach::Connecting(..)
            | Reach::Shaking(..)
            | Reach::Open(..)
            | Reach::Idle(..)
            | Reach::Closed => return,
        };
        if dial.is_asking() {
            let host = self.pool[link.origin].origin.host();
            self.lookups.names.forget(host, token);
        }
        if let Some(timer) = dial.timer.take() {
            self.timers.cancel(timer);
        }
        for (i, attempt) in dial.take_attempts().into_iter().enumerate() {
            if i < place {
                self.lookups.doubt(attempt.addr, self.clock.now());
            }
            self.let_go(attempt.socket);
        }
    }

    /// Removes the line of a link that has no requests behind the front. The link is a plain one
    /// again.
    pub(super) fn end_line(&mut self, key: LinkKey) {
        let link = &mut self.links[key];
        if let Some(line) = link.h1.line_mut() {
            line.intake = Intake::Shut;
            if line.is_on_trial() {
                self.pool[link.origin].trust.set_on_trial(false);
            }
        }
        self.pool.note_room(&mut self.links, key);
        if let Some(line) = self.links[key].h1.end_line() {
            self.buffers.lines.give(line);
        }
    }

    /// Places the requests behind the front again, because the link is about to be closed.
    fn give_up_line(&mut self, key: LinkKey) {
        if self.links[key].h1.has_line() {
            self.send_elsewhere(key, 0);
            self.end_line(key);
        }
    }

    /// Moves the requests in line from `place` on back to the head of their origin's queue.
    pub(super) fn send_elsewhere(&mut self, key: LinkKey, place: usize) {
        let origin = self.links[key].origin;
        // From the last to the first, which preserves their order at the head of the queue.
        while let Some(line) = self.links[key].h1.line_mut()
            && line.len() > place
            && let Some((last, progress)) = line.take_last()
        {
            let chain = &mut self.chains[last.tag];
            match progress {
                Extent::Whole | Extent::Partly => {
                    self.counts.retried += 1;
                    chain.note_sent(Sent::Maybe);
                }
                Extent::Unwritten => chain.attempts = chain.attempts.saturating_sub(1),
            }
            debug!(
                "{:?} {}: ends; a request behind the front is sent elsewhere",
                self.links.token(key),
                self.origin_of(key)
            );
            self.enqueue_first(origin, last.tag);
        }
    }

    /// Returns how long a link may be idle, in milliseconds.
    pub(super) fn idle_millis(&self, key: LinkKey) -> u64 {
        // RFC 9112 §9.3: the server's own timeout, if it announced one, less one second, because
        // the server counts from when it sent the response.
        let told = self.links[key]
            .keep_alive
            .map(|seconds| (u64::from(seconds.get()) - 1) * 1000);
        told.map_or(self.settings.idle_timeout, |ms| {
            ms.min(self.settings.idle_timeout)
        })
    }

    /// Closes the idle links of an origin that were parked before tick `since` and have received
    /// nothing since then.
    ///
    /// A request that was sent on such a link at that tick has timed out without receiving a byte,
    /// as happens when the path to the server is gone. Links that received a response later still
    /// work.
    pub(super) fn close_silent_since(&mut self, origin: OriginKey, since: u64) {
        // The oldest links come first, so all links after the first one that is kept are younger.
        while let Some(oldest) = self.pool.oldest_idle(origin)
            && let timer = self.pool.timer_of(oldest)
            && let parked = self.timers.tick_of(timer) - self.idle_millis(oldest)
            && parked <= since
        {
            debug!(
                "{:?} {}: closed, because another connection as old did not answer",
                self.links.token(oldest),
                self.origin_of(oldest)
            );
            self.close_idle_link(oldest);
        }
    }

    /// See [`Engine::close_idle`](crate::Engine::close_idle).
    pub(super) fn close_idle(&mut self) {
        while let Some(key) = self.pool.oldest_idle_of_all() {
            self.close_idle_link(key);
        }
        // Links that are opened ahead would be idle next.
        while let Some(key) = self.ahead.any() {
            self.close(key);
        }
        for link in self.links.iter_mut() {
            link.h1.end_behind_front();
        }
    }

    /// Takes a link out of the pool and closes it.
    pub(super) fn close_idle_link(&mut self, key: LinkKey) {
        let timer = self.pool.take(&mut self.links, key);
        self.timers.cancel(timer);
        self.close(key);
    }

    pub(super) fn origin_of(&self, key: LinkKey) -> &Origin {
        &self.pool[self.links[key].origin].origin
    }

    /// Formats `what`, with the path of the unix socket if the link's route leads through one.
    pub(super) fn with_path(&self, key: LinkKey, what: impl fmt::Display) -> String {
        let route = &self.pool[self.links[key].origin].route;
        let path = route.unix_path().unwrap_or(Path::new("")).display();
        format!("{path}: {what}")
    }

    /// Returns the address of a link's only attempt. `None` means the unix socket of its route.
    pub(super) fn dialed_address(&self, key: LinkKey) -> Option<SocketAddr> {
        let link = &self.links[key];
        let is_unix = self.pool[link.origin].route.unix_path().is_some();
        (!is_unix).then(|| link.ends.peer())
    }
}
