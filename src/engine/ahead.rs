//! Opens a link before there is a request for it, and gives it to the first request that comes.
//!
//! Such a link has no exchange, so its deadlines have a timer of their own, and its failure is only
//! logged: nobody waits for it. When it is open, it is put into the pool by
//! [`keep_ahead`](Core::keep_ahead).

use std::sync::Arc;

use log::debug;

use crate::engine::chain::ChainKey;
use crate::engine::core::Core;
use crate::net::Net;
use crate::net::link::{Link, Reach};
use crate::net::pool::{OriginKey, OriginRef};
use crate::net::slots::LinkKey;
use crate::proto::Origin;
use crate::route::Route;
use crate::timeouts::Timeout;

impl<N: Net> Core<N> {
    /// See [`Engine::preconnect`](crate::Engine::preconnect).
    // None of these functions is inlined: engines that never use them should not pay for them.
    #[inline(never)]
    pub(super) fn preconnect(&mut self, origin: &Origin, route: Option<Arc<Route>>) {
        let route = route.unwrap_or_else(|| Arc::clone(&self.settings.route));
        let parts = OriginRef {
            scheme: origin.scheme(),
            host: origin.host(),
            port: origin.port(),
            route: &route,
        };
        // Entered until the end, because a link that fails at once would be the only user.
        let origin = self.pool.enter(None, parts);
        if !self.has_link_for_next(origin) && self.may_open_ahead(origin) {
            let key = self.links.insert(Link::new(origin));
            self.pool.on_opened(origin);
            self.ahead.begin(origin, key);
            debug!(
                "{:?} {}: opened ahead of a request",
                self.links.token(key),
                self.origin_of(key)
            );
            self.begin_dialing(key);
        }
        self.pool.leave(origin);
    }

    /// Returns whether the next request of an origin finds a free link, or one that is being opened
    /// ahead.
    fn has_link_for_next(&mut self, origin: OriginKey) -> bool {
        while let Some(idle) = self.pool.newest_idle(origin)
            && self.ages.is_over(idle, self.clock.micros())
        {
            self.close_idle_link(idle);
        }
        let rests = |link: LinkKey| self.links[link].origin == origin;
        self.agenda.resting.is_some_and(rests)
            || self.pool.newest_idle(origin).is_some()
            || self.ahead.of_origin(origin).is_some()
    }

    /// Returns whether the limits allow a link that no request has asked for, and would keep it. No
    /// other link is closed to make room for it, and it does not overtake requests that wait.
    fn may_open_ahead(&self, origin: OriginKey) -> bool {
        let (entry, settings) = (&self.pool[origin], &self.settings);
        let has_room =
            self.links.len() < settings.max_links && entry.links < settings.max_links_per_origin;
        let is_short = self.exhausted.is_some() || entry.turned_away.is_some();
        let is_awaited = entry.waiting.is_some() || self.pool.has_waiting_for_room();
        let is_kept = settings.max_idle_per_origin > 0 && settings.idle_timeout > 0;
        has_room && !is_short && !is_awaited && is_kept
    }

    /// Puts a request on a link that is being opened ahead. From here on, the link is like one that
    /// was opened for the request.
    #[inline(never)]
    pub(super) fn take_up(&mut self, key: LinkKey, chain_key: ChainKey) {
        if !self.load(key, chain_key) {
            // The policy refused. The link stays as it is, for the next request.
            return;
        }
        let has_begun = self.leave_ahead(key);
        let now = self.clock.micros();
        let link = &mut self.links[key];
        let phase = match link.reach {
            Reach::Shaking(..) => Timeout::Tls,
            _ if has_begun => Timeout::Connect,
            _ => Timeout::Resolve,
        };
        if has_begun && let Some(exchange) = link.h1.front_mut() {
            exchange.times.resolve = exchange.since(now);
        }
        self.arm(chain_key, Some(phase));
        // The socket may have connected meanwhile.
        self.flush(key);
    }

    /// Closes a link that was not opened in time. The timer has already been removed.
    #[inline(never)]
    pub(super) fn on_ahead_timer(&mut self, key: LinkKey) {
        let origin = self.links[key].origin;
        if let Some(ahead) = self.ahead.get_mut(origin, key) {
            ahead.deadline = None;
        }
        debug!(
            "{:?} {}: not opened in time, and no request waits for it",
            self.links.token(key),
            self.origin_of(key)
        );
        self.close(key);
    }
}
