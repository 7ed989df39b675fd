//! Origins, their idle links, and the queues of requests that wait for a link.
//!
//! The newest idle link of an origin is used first, because it is the least likely to have been
//! closed. The oldest idle link of all is closed first where room is needed.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use slab::Slab;

use crate::h1::line::Line;
use crate::h1::trust::Trust;
use crate::net::link::{Link, Reach};
use crate::net::pattern::Pattern;
use crate::net::readiness::Readiness;
use crate::net::slots::{LinkKey, MaybeKey, Slots, put_at};
use crate::proto::{Origin, Scheme};
use crate::route::Route;
use crate::sched::wheel::TimerId;

/// Slab key of an origin as reached by one route.
pub(crate) type OriginKey = u32;

/// The state that the pool keeps for one origin.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) origin: Origin,
    pub(crate) route: Arc<Route>,
    /// Chains and links that refer to the origin. It is removed when there are none.
    users: u32,
    /// Links that are not closed, including idle ones.
    pub(crate) links: usize,
    idle: Ends,
    idle_links: usize,
    /// First and last chain in the origin's queue.
    pub(crate) waiting: Option<(u32, u32)>,
    /// The origin is on the pool's list of queues to serve.
    is_to_serve: bool,
    /// The origin is on one of the pool's lists of queues that wait for room.
    is_listed_for_room: bool,
    /// Timer for requests that may wait in the queue for long.
    pub(crate) watch: Option<TimerId>,
    /// No further connection can be opened at the moment.
    pub(crate) turned_away: Option<TurnedAway>,
    /// Pipeline depth of requests that do not set their own.
    pub(crate) depth: u16,
    pub(crate) trust: Trust,
    /// Links whose pipelines accept one more request.
    roomy: Vec<LinkKey>,
}

/// Why an origin's requests have to wait, and the timer for the next attempt.
#[derive(Debug)]
pub(crate) struct TurnedAway {
    pub(crate) why: String,
    pub(crate) retry: TimerId,
}

#[derive(Debug, Default)]
struct Ends {
    newest: Option<LinkKey>,
    oldest: Option<LinkKey>,
}

impl Entry {
    /// Returns whether requests are waiting for room. False for an outdated list item: its key may
    /// belong to another origin by now.
    #[inline]
    fn waits_for_room(&self) -> bool {
        self.is_listed_for_room && self.waiting.is_some()
    }

    /// Marks an origin as no longer listed. It has stopped waiting since it was listed, or has been
    /// removed.
    fn unlist(entry: Option<&mut Self>) {
        if let Some(entry) = entry {
            entry.is_listed_for_room = false;
        }
    }
}

/// All origins in use.
#[derive(Debug)]
pub(crate) struct Pool {
    entries: Slab<Entry>,
    by_key: HashMap<Key, OriginKey>,
    idle: Ends,
    /// The places of idle links, indexed by link key; the values at other keys are stale. A
    /// separate table keeps links that wait for a response smaller.
    spots: Vec<Spot>,
    /// Origins whose queue may move, because one of their links came free or ended.
    to_serve: VecDeque<OriginKey>,
    /// Origins whose queue waits for room under the limit on all links. This list holds origins
    /// that still have a link, and the next one those that have none.
    for_room: VecDeque<OriginKey>,
    for_room_unlinked: VecDeque<OriginKey>,
    /// Which origins are pipelined, and how deep. The first match applies.
    depths: Vec<Depth>,
}

/// An idle link's place in the pool.
#[derive(Clone, Copy, Debug)]
struct Spot {
    /// Among the idle links of its origin.
    of_origin: Neighbours,
    /// Among all idle links.
    of_all: Neighbours,
    /// Fires when the link may no longer be used.
    timer: TimerId,
}

#[derive(Clone, Copy, Debug)]
struct Neighbours {
    newer: MaybeKey,
    older: MaybeKey,
}

/// The pipeline depth of the origins that match a pattern.
#[derive(Debug)]
pub(crate) struct Depth {
    pub(crate) pattern: Pattern,
    pub(crate) depth: u16,
    /// The origins are known to support pipelining and need no trial.
    pub(crate) is_known: bool,
}

/// How many links are compared to find the one with the fewest unanswered requests. A bound,
/// because thousands may have room.
const LOOKED_AT: usize = 8;

/// What makes two connections interchangeable: their origin and their route.
#[derive(Debug)]
struct Key {
    origin: Origin,
    route: Arc<Route>,
}

/// A view of scheme, host, port and route, wherever they are stored. Allows table lookups without
/// building a [`Key`].
trait AsOriginRef {
    fn parts(&self) -> OriginRef<'_>;
}

/// See [`AsOriginRef`].
#[derive(Clone, Copy)]
pub(crate) struct OriginRef<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) route: &'a Arc<Route>,
}

impl PartialEq for OriginRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
            && (Arc::ptr_eq(self.route, other.route) || self.route == other.route)
    }
}

impl AsOriginRef for Key {
    fn parts(&self) -> OriginRef<'_> {
        parts_of(&self.origin, &self.route)
    }
}

impl AsOriginRef for OriginRef<'_> {
    fn parts(&self) -> OriginRef<'_> {
        *self
    }
}

fn parts_of<'a>(origin: &'a Origin, route: &'a Arc<Route>) -> OriginRef<'a> {
    OriginRef {
        scheme: origin.scheme(),
        host: origin.host(),
        port: origin.port(),
        route,
    }
}

/// Hashes the origin only: an origin is rarely reached by many routes.
impl Hash for dyn AsOriginRef + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let OriginRef {
            scheme, host, port, ..
        } = self.parts();
        (scheme, host, port).hash(state);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn AsOriginRef).hash(state);
    }
}

impl PartialEq for dyn AsOriginRef + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn AsOriginRef + '_ {}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl<'a> Borrow<dyn AsOriginRef + 'a> for Key {
    fn borrow(&self) -> &(dyn AsOriginRef + 'a) {
        self
    }
}

impl Pool {
    pub(crate) fn new(depths: Vec<Depth>) -> Self {
        Self {
            entries: Slab::new(),
            by_key: HashMap::new(),
            idle: Ends::default(),
            spots: Vec::new(),
            to_serve: VecDeque::new(),
            for_room: VecDeque::new(),
            for_room_unlinked: VecDeque::new(),
            depths,
        }
    }

    /// Returns all origins with their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (OriginKey, &Entry)> {
        let entries = self.entries.iter();
        entries.map(|(key, entry)| (key as OriginKey, entry))
    }

    /// Counts a user of the origin, and returns its key. `hint` is the key that this user holds
    /// already, if any; if it is a different origin's, the user leaves that one.
    pub(crate) fn enter(&mut self, hint: Option<OriginKey>, parts: OriginRef<'_>) -> OriginKey {
        if let Some(key) = hint
            && let entry = &self.entries[key as usize]
            && parts_of(&entry.origin, &entry.route) == parts
        {
            return key;
        }
        let found = self.by_key.get(&parts as &dyn AsOriginRef).copied();
        if let Some(key) = found {
            self.entries[key as usize].users += 1;
        }
        if let Some(left) = hint {
            self.leave(left);
        }
        found.unwrap_or_else(|| {
            let origin = Origin::new(parts.scheme, parts.host, parts.port);
            let route = Arc::clone(parts.route);
            let fits = |depth: &&Depth| depth.pattern.fits(origin.host(), parts.port);
            let found = self.depths.iter().find(fits);
            let depth = found.map_or(1, |found| found.depth);
            let trust = if found.is_some_and(|found| found.is_known) {
                Trust::Full
            } else {
                Trust::NEW
            };
            let key = self.entries.insert(Entry {
                origin: origin.clone(),
                route: Arc::clone(&route),
                users: 1,
                links: 0,
                idle: Ends::default(),
                idle_links: 0,
                waiting: None,
                is_to_serve: false,
                is_listed_for_room: false,
                watch: None,
                turned_away: None,
                depth,
                trust,
                roomy: Vec::new(),
            }) as OriginKey;
            self.by_key.insert(Key { origin, route }, key);
            key
        })
    }

    /// Removes a user of the origin.
    pub(crate) fn leave(&mut self, key: OriginKey) {
        let entry = &mut self.entries[key as usize];
        entry.users -= 1;
        if entry.users == 0 {
            debug_assert!(entry.waiting.is_none() && entry.idle_links == 0 && entry.links == 0);
            let entry = self.entries.remove(key as usize);
            let parts = parts_of(&entry.origin, &entry.route);
            self.by_key.remove(&parts as &dyn AsOriginRef);
        }
    }

    /// Records that a link to the origin was opened.
    pub(crate) fn on_opened(&mut self, key: OriginKey) {
        let entry = &mut self.entries[key as usize];
        entry.links += 1;
        entry.users += 1;
    }

    /// Records that a link to the origin that was not idle has ended.
    pub(crate) fn on_closed(&mut self, key: OriginKey) {
        let entry = &mut self.entries[key as usize];
        entry.links -= 1;
        if entry.links == 0 && entry.waits_for_room() {
            // It now takes precedence over origins that have a link.
            self.for_room_unlinked.push_back(key);
        }
        self.leave(key);
    }

    /// Keeps a link as the newest idle one, until `timer` fires. Returns whether its origin now has
    /// more than `most` idle links.
    pub(crate) fn put<K>(
        &mut self,
        links: &mut Slots<Link<K>>,
        key: LinkKey,
        timer: TimerId,
        most: usize,
    ) -> bool {
        let entry = &mut self.entries[links[key].origin as usize];
        let behind = |newest: Option<LinkKey>| Neighbours {
            newer: MaybeKey::NONE,
            older: newest.into(),
        };
        let spot = Spot {
            of_origin: behind(entry.idle.newest),
            of_all: behind(self.idle.newest),
            timer,
        };
        if let Some(older) = entry.idle.newest.replace(key) {
            self.spots[older as usize].of_origin.newer = key.into();
        }
        if let Some(older) = self.idle.newest.replace(key) {
            self.spots[older as usize].of_all.newer = key.into();
        }
        entry.idle.oldest.get_or_insert(key);
        self.idle.oldest.get_or_insert(key);
        entry.idle_links += 1;
        let reach = &mut links[key].reach;
        let Reach::Open(socket, layers) = reach.take() else {
            unreachable!("a link that rests is open");
        };
        *reach = Reach::Idle(socket, layers);
        put_at(&mut self.spots, key, spot, || spot);
        entry.idle_links > most
    }

    /// Takes an idle link out of the pool, to rest. Returns its timer.
    pub(crate) fn take<K>(&mut self, links: &mut Slots<Link<K>>, key: LinkKey) -> TimerId {
        let spot = self.spots[key as usize];
        let entry = &mut self.entries[links[key].origin as usize];
        entry.idle_links -= 1;
        match spot.of_origin.newer.get() {
            Some(newer) => self.spots[newer as usize].of_origin.older = spot.of_origin.older,
            None => entry.idle.newest = spot.of_origin.older.get(),
        }
        match spot.of_origin.older.get() {
            Some(older) => self.spots[older as usize].of_origin.newer = spot.of_origin.newer,
            None => entry.idle.oldest = spot.of_origin.newer.get(),
        }
        match spot.of_all.newer.get() {
            Some(newer) => self.spots[newer as usize].of_all.older = spot.of_all.older,
            None => self.idle.newest = spot.of_all.older.get(),
        }
        match spot.of_all.older.get() {
            Some(older) => self.spots[older as usize].of_all.newer = spot.of_all.newer,
            None => self.idle.oldest = spot.of_all.newer.get(),
        }
        let reach = &mut links[key].reach;
        let Reach::Idle(socket, layers) = reach.take() else {
            unreachable!("a link in the pool is idle");
        };
        *reach = Reach::Open(socket, layers);
        spot.timer
    }

    /// Returns the timer of an idle link.
    pub(crate) fn timer_of(&self, key: LinkKey) -> TimerId {
        self.spots[key as usize].timer
    }

    /// Returns the newest idle link of an origin.
    pub(crate) fn newest_idle(&self, key: OriginKey) -> Option<LinkKey> {
        self.entries[key as usize].idle.newest
    }

    /// Returns the oldest idle link of an origin.
    pub(crate) fn oldest_idle(&self, key: OriginKey) -> Option<LinkKey> {
        self.entries[key as usize].idle.oldest
    }

    /// Returns the oldest idle link of all.
    pub(crate) fn oldest_idle_of_all(&self) -> Option<LinkKey> {
        self.idle.oldest
    }

    /// Returns the oldest idle link that is connected to `addr`.
    pub(crate) fn oldest_idle_to<K>(
        &self,
        links: &Slots<Link<K>>,
        addr: SocketAddr,
    ) -> Option<LinkKey> {
        let mut next = self.idle.oldest;
        while let Some(key) = next {
            let link = &links[key];
            if link.ends.peer() == addr {
                return Some(key);
            }
            next = self.spots[key as usize].of_all.newer.get();
        }
        None
    }

    /// Allows new connections to an origin again.
    pub(crate) fn try_again(&mut self, key: OriginKey) {
        if let Some(entry) = self.entries.get_mut(key as usize) {
            entry.turned_away = None;
            self.serve_soon(key);
        }
    }

    /// Adds a link to, or removes it from, its origin's list of links that accept more requests, as
    /// its line requires.
    pub(crate) fn note_room<K>(&mut self, links: &mut Slots<Link<K>>, key: LinkKey) {
        let link = &mut links[key];
        let roomy = &mut self.entries[link.origin as usize].roomy;
        let has_room = link.h1.line().is_some_and(Line::has_room);
        match (has_room, link.roomy.get()) {
            (true, None) => {
                link.roomy = MaybeKey::from(roomy.len() as u32);
                roomy.push(key);
            }
            (false, Some(place)) => {
                link.roomy = MaybeKey::NONE;
                roomy.swap_remove(place as usize);
                if let Some(moved) = roomy.get(place as usize) {
                    links[*moved].roomy = MaybeKey::from(place);
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Returns the origin's link with the fewest unanswered requests, among the last few that were
    /// found to have room for a request of this depth. `was_sent` means that the request was sent
    /// before and its connection broke, so it must not share a connection that has not answered yet
    /// (RFC 9112 §9.3.2). `is_unfit` rules links out, given the chain in front.
    pub(crate) fn roomiest<K>(
        &self,
        links: &Slots<Link<K>>,
        key: OriginKey,
        depth: u16,
        was_sent: bool,
        is_unfit: impl Fn(LinkKey, Option<u32>) -> bool,
    ) -> Option<LinkKey> {
        let roomy = &self.entries[key as usize].roomy;
        let unanswered = |key: &LinkKey| {
            let link = &links[*key];
            let unanswered = link.h1.line()?.unanswered();
            // Unread bytes may be unsolicited, and must not precede the request about to be sent.
            let is_fit = unanswered < usize::from(depth)
                && !link.h1.ends_behind_front()
                && !link.is_queued
                && !link.readiness.has_any(Readiness::READ_SIDE)
                && !is_unfit(*key, link.chain())
                && (!was_sent || link.h1.is_reused());
            is_fit.then_some((unanswered, *key))
        };
        let looked_at = roomy.iter().rev().take(LOOKED_AT);
        looked_at.filter_map(unanswered).min().map(|(_, key)| key)
    }

    /// Schedules a look at the origin's queue, because one of its links came free or ended.
    #[inline]
    pub(crate) fn serve_soon(&mut self, key: OriginKey) {
        let entry = &mut self.entries[key as usize];
        if entry.waiting.is_some() && !std::mem::replace(&mut entry.is_to_serve, true) {
            self.to_serve.push_back(key);
        }
    }

    /// Returns the origin whose queue is to be served next.
    pub(crate) fn next_to_serve(&mut self) -> Option<OriginKey> {
        while let Some(key) = self.to_serve.pop_front() {
            // The origin may have been removed since, and its key given to another.
            if let Some(entry) = self.entries.get_mut(key as usize)
                && std::mem::take(&mut entry.is_to_serve)
            {
                return Some(key);
            }
        }
        None
    }

    /// Schedules a look at the origin's queue for when there is room for one more link.
    pub(crate) fn wait_for_room(&mut self, key: OriginKey) {
        let entry = &mut self.entries[key as usize];
        if !std::mem::replace(&mut entry.is_listed_for_room, true) {
            match entry.links {
                0 => self.for_room_unlinked.push_back(key),
                _ => self.for_room.push_back(key),
            }
        }
    }

    /// Returns the origin that has waited longest for room. Origins without a link come first;
    /// those with one make progress, if slowly.
    pub(crate) fn next_for_room(&mut self) -> Option<OriginKey> {
        while let Some(key) = self.for_room_unlinked.pop_front() {
            match self.entries.get_mut(key as usize) {
                Some(entry) if entry.waits_for_room() && entry.links == 0 => {
                    entry.is_listed_for_room = false;
                    return Some(key);
                }
                // It has obtained a link since: one of its own came free.
                Some(entry) if entry.waits_for_room() => self.for_room.push_back(key),
                entry => Entry::unlist(entry),
            }
        }
        while let Some(key) = self.for_room.pop_front() {
            match self.entries.get_mut(key as usize) {
                Some(entry) if entry.waits_for_room() => {
                    entry.is_listed_for_room = false;
                    return Some(key);
                }
                entry => Entry::unlist(entry),
            }
        }
        None
    }

    /// Returns whether another origin waits for room and has no link at all.
    #[inline]
    pub(crate) fn another_has_none(&mut self, key: OriginKey) -> bool {
        let has_none = |entry: &Entry| entry.waits_for_room() && entry.links == 0;
        while let Some(first) = self.for_room_unlinked.front() {
            match self.entries.get_mut(*first as usize) {
                Some(entry) if has_none(entry) => break,
                Some(entry) if entry.waits_for_room() => self.for_room.push_back(*first),
                entry => Entry::unlist(entry),
            }
            self.for_room_unlinked.pop_front();
        }
        // An origin is listed here at most once, so one of the first two is another.
        self.for_room_unlinked
            .iter()
            .take(2)
            .any(|other| *other != key)
    }

    /// Returns 0 if no queue needs serving.
    #[inline]
    pub(crate) fn unsettled(&self) -> usize {
        self.to_serve.len() | self.for_room.len() | self.for_room_unlinked.len()
    }

    /// Returns whether any origin waits for room.
    #[inline]
    pub(crate) fn has_waiting_for_room(&self) -> bool {
        !self.for_room.is_empty() || !self.for_room_unlinked.is_empty()
    }
}

impl std::ops::Index<OriginKey> for Pool {
    type Output = Entry;

    #[inline]
    fn index(&self, key: OriginKey) -> &Entry {
        &self.entries[key as usize]
    }
}

impl std::ops::IndexMut<OriginKey> for Pool {
    #[inline]
    fn index_mut(&mut self, key: OriginKey) -> &mut Entry {
        &mut self.entries[key as usize]
    }
}
