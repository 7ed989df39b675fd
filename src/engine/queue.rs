//! Finds a link for a request: an idle one of its origin, one that carries other pipelined
//! requests, a new one if the limits allow it, or else a place in its origin's queue.
//!
//! A link that becomes free *rests* on the agenda until its chain's next step. If that step does
//! not take it, the link is *parked* in the pool, and is *idle* from then on.

use log::debug;

use crate::engine::chain::{ChainKey, Marks};
use crate::engine::core::{Core, Timer};
use crate::error::ErrorKind;
use crate::net::Net;
use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::net::tls::TlsState;
use crate::request::Request;
use crate::timeouts::Timeout;

/// Whether a request comes from the head of its queue or is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InLine {
    First,
    Last,
}

/// The result of `obtain`.
enum Grant {
    /// An open link of the origin without an exchange.
    Reuse(LinkKey),
    /// A link of the origin with pipelined requests. The request goes behind them.
    Join(LinkKey),
    /// A link that is being opened ahead of any request.
    TakeUp(LinkKey),
    /// No link, but a new one may be opened.
    Open,
    /// None of these, so the request waits.
    Wait,
}

impl<N: Net> Core<N> {
    /// Finds a link for the chain's request, or a place in the queue.
    pub(super) fn place(&mut self, key: ChainKey) {
        let origin = self.chains[key].origin_key();
        // First in, first out: a new request does not overtake those already waiting.
        let grant = match self.pool[origin].waiting {
            Some(_) => Grant::Wait,
            // Nor does it overtake requests of other origins that wait for room; see `obtain`.
            None => self.obtain(origin, key, InLine::Last),
        };
        match grant {
            Grant::Reuse(link) => self.assign(link, key),
            Grant::Join(link) => self.join(link, key),
            Grant::TakeUp(link) => self.take_up(link, key),
            Grant::Open => self.open(origin, key),
            Grant::Wait => {
                self.enqueue(origin, key);
                self.arm(key, None);
            }
        }
    }

    /// Does what [`place`](Self::place) does, for a request that is sent again. The request keeps
    /// its place in line: at the end, it would wait behind everything that was submitted after it.
    pub(super) fn place_again(&mut self, key: ChainKey) {
        if self.chain_is_over(key) {
            return self.fail_unlinked(key, ErrorKind::Timeout);
        }
        let origin = self.chains[key].origin_key();
        match self.obtain(origin, key, InLine::First) {
            Grant::Reuse(link) => self.assign(link, key),
            Grant::Join(link) => self.join(link, key),
            Grant::TakeUp(link) => self.take_up(link, key),
            Grant::Open => self.open(origin, key),
            Grant::Wait => {
                self.enqueue_first(origin, key);
                self.arm(key, None);
            }
        }
    }

    /// Puts a request on a resting link.
    #[inline(always)]
    pub(super) fn assign(&mut self, key: LinkKey, chain_key: ChainKey) {
        if !self.load(key, chain_key) {
            return self.park(key);
        }
        let h1 = &mut self.links[key].h1;
        self.counts.reused += u64::from(h1.is_reused());
        if let Some(line) = h1.line_mut() {
            // The request is written later. Until then, more requests may join it, and bytes may
            // arrive that answer none of them.
            line.is_unsure = true;
            self.note_unwritten(key);
            return self.arm(chain_key, Some(Timeout::Write));
        }
        self.write(key);
        let h1 = &self.links[key].h1;
        if h1.front().is_some_and(|front| front.has_unwritten()) {
            self.arm(chain_key, Some(Timeout::Write));
        }
    }

    /// Writes the requests that have been put on links since the last call, and puts links into the
    /// pool that were opened ahead.
    pub(super) fn flush_noted(&mut self) {
        let mut noted = std::mem::take(&mut self.agenda.unwritten);
        for token in noted.drain(..) {
            match self.links.find(token) {
                Some(key) if self.is_open_ahead(key) => self.keep_ahead(key),
                Some(key) => self.flush(key),
                None => {}
            }
        }
        self.agenda.unwritten = noted;
    }

    /// Finds the cheapest way to send a request, in this order: the resting link, which has just
    /// been read; the newest idle one, which is the least likely to have been closed; one to be
    /// joined, so that pipelines fill before connections are opened; one that is being opened
    /// ahead; a new one.
    // Inlined into its few callers, which keeps the common path short in each.
    #[inline(always)]
    fn obtain(&mut self, origin: OriginKey, key: ChainKey, place: InLine) -> Grant {
        let chain = &self.chains[key];
        let wants_fresh = chain
            .request
            .as_ref()
            .is_some_and(Request::wants_fresh_connection);
        if !wants_fresh && !chain.marks.has(Marks::FRESH) {
            if let Some(link) = self
                .agenda
                .resting
                .filter(|link| self.links[*link].origin == origin)
            {
                self.agenda.resting = None;
                if self.is_fit(link) {
                    return Grant::Reuse(link);
                }
            }
            if let Some(link) = self.ahead.of_origin(origin)
                && self.is_open_ahead(link)
            {
                self.keep_ahead(link);
            }
            if let Some(link) = self.take_idle(origin) {
                return Grant::Reuse(link);
            }
            if let Some(link) = self.link_to_join(origin, key) {
                return Grant::Join(link);
            }
        }
        if let Some(link) = self.ahead.of_origin(origin)
            && !self.links[link].is_open()
        {
            return Grant::TakeUp(link);
        }
        if self.pool[origin].links >= self.settings.max_links_per_origin {
            // The request needs a fresh connection, so an idle one makes room for it.
            match self.pool.oldest_idle(origin) {
                Some(idle) => self.close_idle_link(idle),
                None => return Grant::Wait,
            }
        }
        if self.pool[origin].turned_away.is_some() {
            return Grant::Wait;
        }
        let overtakes = place == InLine::Last && self.pool.has_waiting_for_room();
        if overtakes || !self.make_room() {
            self.pool.wait_for_room(origin);
            return Grant::Wait;
        }
        Grant::Open
    }

    /// Returns whether a link may be opened, perhaps after closing an idle one.
    pub(super) fn has_room(&self) -> bool {
        let free = self.exhausted.is_none() && self.links.len() < self.settings.max_links;
        free || self.pool.oldest_idle_of_all().is_some() || self.ahead.any().is_some()
    }

    /// Makes room for one more link, if necessary by closing the oldest idle one, or one that no
    /// request has asked for. Returns whether there is room.
    fn make_room(&mut self) -> bool {
        if self.exhausted.is_none() && self.links.len() < self.settings.max_links {
            return true;
        }
        if let Some(idle) = self.pool.oldest_idle_of_all() {
            self.close_idle_link(idle);
            return true;
        }
        let ahead = self.ahead.any();
        if let Some(ahead) = ahead {
            self.close(ahead);
        }
        ahead.is_some()
    }

    /// Takes the newest idle link of an origin that has not expired, is not too old and has no
    /// unread data.
    fn take_idle(&mut self, origin: OriginKey) -> Option<LinkKey> {
        let now = self.clock.tick();
        loop {
            let key = self.pool.newest_idle(origin)?;
            let timer = self.pool.take(&mut self.links, key);
            let expires = self.timers.tick_of(timer);
            self.timers.cancel(timer);
            if expires > now && !self.ages.is_over(key, self.clock.micros()) {
                if self.is_idle_fit(key) {
                    return Some(key);
                } else {
                    continue;
                }
            }
            // Its timer is due in this turn, or it has exceeded its age. Older links have expired
            // as well, unless a server granted them more time.
            self.close(key);
        }
    }

    /// Starts the requests at the head of an origin's queue, as long as there are links or room for
    /// them.
    pub(super) fn serve_queue(&mut self, origin: OriginKey) {
        while self.serve_first(origin) {
            if self.agenda.has_carried_out_enough() || self.panic.is_some() {
                return self.pool.serve_soon(origin);
            }
        }
    }

    /// Starts the first request in an origin's queue, if there is a link or room for it.
    pub(super) fn serve_first(&mut self, origin: OriginKey) -> bool {
        let Some((first, _)) = self.pool[origin].waiting else {
            return false;
        };
        match self.obtain(origin, first, InLine::First) {
            Grant::Reuse(link) => {
                self.dequeue(first);
                self.assign(link, first);
            }
            Grant::Join(link) => {
                self.dequeue(first);
                self.join(link, first);
            }
            Grant::TakeUp(link) => {
                self.dequeue(first);
                self.take_up(link, first);
            }
            Grant::Open => {
                self.dequeue(first);
                self.open(origin, first);
            }
            Grant::Wait => return false,
        }
        true
    }

    /// Puts a resting link that no step of its chain has taken into the pool, if there is a place
    /// for it. [`release`](Core::release) has already decided that the link may be reused.
    pub(super) fn park(&mut self, key: LinkKey) {
        if self.keep_idle(key) {
            self.quiet.on_parked(key);
        }
    }

    /// Returns whether a link was opened ahead, is open now, and is not in the pool yet.
    #[inline(never)]
    fn is_open_ahead(&self, key: LinkKey) -> bool {
        let link = &self.links[key];
        link.is_open() && self.ahead.of_origin(link.origin) == Some(key)
    }

    /// Puts a link that was opened ahead into the pool, or closes it if no request may use it.
    #[inline(never)]
    fn keep_ahead(&mut self, key: LinkKey) {
        self.leave_ahead(key);
        let link = &mut self.links[key];
        let has_pending = link.tls_state().is_some_and(TlsState::has_pending);
        if has_pending || link.h1.ends_behind_front() {
            // The server has ended it, or has sent something before the first request.
            return self.close(key);
        }
        link.h1.on_kept();
        // What is known of the slot is about its last owner.
        self.quiet.forget_link(key);
        if self.keep_idle(key) {
            self.check_idle(key);
        }
    }

    /// Puts an open link into the pool. Returns false if it was closed, because there is no place
    /// for it.
    fn keep_idle(&mut self, key: LinkKey) -> bool {
        let origin = self.links[key].origin;
        let millis = self.idle_millis(key);
        // While descriptors are exhausted and requests wait for room, a link is closed instead of
        // kept idle.
        let wanted_elsewhere = self.pool.has_waiting_for_room() && self.exhausted.is_some();
        if millis == 0 || wanted_elsewhere || self.settings.max_idle_per_origin == 0 {
            self.close(key);
            return false;
        }
        let expires = self.clock.tick_from_now().saturating_add(millis);
        let timer = self.timers.arm(expires, Timer::Idle(key));
        debug!("{:?} {}: idle", self.links.token(key), self.origin_of(key));
        let most = self.settings.max_idle_per_origin;
        if self.pool.put(&mut self.links, key, timer, most)
            && let Some(oldest) = self.pool.oldest_idle(origin)
        {
            self.close_idle_link(oldest);
        }
        self.pool.serve_soon(origin);
        true
    }
}
