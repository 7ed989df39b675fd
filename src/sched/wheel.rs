//! A hierarchical timing wheel for deadlines and delayed requests, up to millions of them.
//!
//! Time is a number of ticks, counted by the caller (in the engine, milliseconds since its start).
//! A timer is in the list of its slot, and there are 64 slots per level. At level 0 a slot is one
//! tick; at each higher level it is 64 slots of the level below. The level of a timer is that of
//! the highest group of six bits in which its tick and the wheel's time differ, as in tokio's
//! wheel. This has two consequences, on which everything here relies:
//!
//! - Each timer of a level is due before every timer of the levels above, and within a level the
//!   slots are in order of time. The first timer due is therefore in the lowest occupied slot of
//!   the lowest occupied level, and no slot is ever reused for the next round.
//! - As long as time does not enter a timer's slot, its level and slot do not change: they can be
//!   computed from its tick alone.
//!
//! When time enters a slot above level 0, the timers in it are *cascaded*: each moves to a lower
//! level than before. A timer is therefore moved at most once per level in its life. Only
//! [`Wheel::expire`] cascades. With a million timers spread over an hour, a slot of 2¹⁸ ms holds
//! 70,000 of them, and cascading them takes some 20 ms every four minutes. If a million timers are
//! due within one second, a single slot holds them all. For this reason, no more timers are
//! cascaded than [`Wheel::allow`] permits, and no timer expires until the slot is empty, because an
//! earlier one may still be in it.

use std::num::NonZeroU32;

const BITS_PER_LEVEL: u32 = 6;
const SLOTS: usize = 1 << BITS_PER_LEVEL;

/// Enough for every `u64`, so no tick is too far away or has to be clamped. A level that is never
/// used costs 512 bytes.
const LEVELS: usize = u64::BITS.div_ceil(BITS_PER_LEVEL) as usize;

/// The number of list heads. They take the first ids, and timers are numbered from here.
const HEADS: u32 = (LEVELS * SLOTS) as u32;

/// How many timers of a slot `next_tick` examines to find the first one.
const MAX_WALK: usize = 32;

/// The minimum growth of the columns. Larger columns grow by a sixteenth.
const MIN_GROWTH: usize = 16;

/// Identifies a timer from `arm` until it is canceled or has expired. After that, the id may be
/// reused for another timer, so its owner must drop it.
///
/// An id is never 0, which is the head of the first slot, so `Option<TimerId>` takes four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(NonZeroU32);

impl TimerId {
    /// # Panics
    /// Panics if almost 2³² timers are armed at once, which take 96 GiB.
    fn from_row(row: usize) -> Self {
        let id = u32::try_from(row)
            .ok()
            .and_then(|row| row.checked_add(HEADS))
            // The last number stands for no timer.
            .filter(|&id| id != NONE)
            .and_then(NonZeroU32::new)
            .expect("fewer than 2^32 timers");
        Self(id)
    }

    /// Returns the row of the timer's tick and key.
    fn row(self) -> usize {
        (self.0.get() - HEADS) as usize
    }
}

/// Neighbors in the circular list of a slot, as indexes into `Wheel::links`. The slot's head is
/// part of the list. Hence neither neighbor is ever missing, a timer can be removed without knowing
/// its slot, and the last timer is found from the head, which gives first in, first out.
///
/// A vacant entry has no `prev`, and its `next` is the next vacant entry.
#[derive(Clone, Copy)]
struct Links {
    prev: u32,
    next: u32,
}

/// Stands for no timer. It is out of range, so using it as an index panics.
const NONE: u32 = u32::MAX;

/// The slot that a tick belongs to, relative to the wheel's time.
#[derive(Clone, Copy)]
struct Place {
    level: usize,
    slot: usize,
}

impl Place {
    /// Returns the head of the slot's list.
    fn head(self) -> u32 {
        (self.level * SLOTS + self.slot) as u32
    }

    /// Returns the slot with this list head.
    fn of_head(head: u32) -> Self {
        Self {
            level: head as usize / SLOTS,
            slot: head as usize % SLOTS,
        }
    }
}

/// A set of timers, each with a tick at which it is due and a key that is returned then.
///
/// `arm`, `rearm` and `cancel` take constant time, and do not allocate while there is a vacant
/// entry. Memory is never released.
///
/// A timer is a row in three columns. The links are a column of their own because a cancellation
/// only touches links: for a million timers they take 8 MB, eight to a cache line, and the cost of
/// such a wheel is its cache misses.
pub(crate) struct Wheel<K: Copy> {
    /// Timers have expired up to this tick, which never decreases. No slot that lies entirely
    /// before it is occupied.
    elapsed: u64,
    /// One bit for each slot, set if the slot holds a timer.
    occupied: [u64; LEVELS],
    /// The slots' heads, followed by the timers.
    links: Vec<Links>,
    ticks: Vec<u64>,
    keys: Vec<K>,
    /// The first vacant entry, or `NONE`.
    vacant: u32,
    /// A slot that time has entered and that has not been cascaded completely. Its bit is cleared:
    /// no timer is added to it, but timers may be removed.
    dealing: Option<Place>,
    /// How many more timers may be cascaded.
    allowance: usize,
    /// How often links were read or changed: a measure of work that does not depend on the machine.
    #[cfg(test)]
    touched: std::cell::Cell<u64>,
}

impl<K: Copy> Wheel<K> {
    /// Creates an empty wheel at tick 0.
    pub(crate) fn new() -> Self {
        let alone = |head| Links {
            prev: head,
            next: head,
        };
        Self {
            elapsed: 0,
            occupied: [0; LEVELS],
            links: (0..HEADS).map(alone).collect(),
            ticks: Vec::new(),
            keys: Vec::new(),
            vacant: NONE,
            dealing: None,
            allowance: usize::MAX,
            #[cfg(test)]
            touched: std::cell::Cell::new(0),
        }
    }

    /// Adds a timer that is due at `tick`.
    ///
    /// A tick in the past is treated as the current tick, which is the `now` of the last `expire`
    /// or, if that returned a timer, this timer's tick. The new timer is due at the next `expire`,
    /// even in the same loop. A caller that arms such a timer for each one that expires, and loops
    /// until there are none, never finishes.
    pub(crate) fn arm(&mut self, tick: u64, key: K) -> TimerId {
        let tick = tick.max(self.elapsed);
        let id = match self.take_vacant() {
            Some(id) => {
                self.ticks[id.row()] = tick;
                self.keys[id.row()] = key;
                id
            }
            None => self.grow(tick, key),
        };
        self.link(id, self.place(tick));
        id
    }

    /// Moves a timer to another tick, placed as by `arm`.
    ///
    /// # Panics
    /// May panic if the timer has expired or was canceled. If its id has been reused, the other
    /// timer is moved instead.
    pub(crate) fn rearm(&mut self, id: TimerId, tick: u64) {
        let tick = tick.max(self.elapsed);
        let before = std::mem::replace(&mut self.ticks[id.row()], tick);
        // An idle timeout is extended with each byte that arrives, usually within its slot. In that
        // case leave its neighbors alone: ticks that agree in the slot's number and all higher bits
        // are in the same slot of the same level.
        if (before ^ tick) >> (self.level(before) * BITS_PER_LEVEL) != 0 {
            self.unlink(id);
            self.link(id, self.place(tick));
        }
    }

    /// Removes a timer. Its id is invalid afterwards.
    ///
    /// # Panics
    /// As for `rearm`.
    pub(crate) fn cancel(&mut self, id: TimerId) {
        self.unlink(id);
        self.vacate(id);
    }

    /// Returns the tick at which a timer is due.
    ///
    /// # Panics
    /// As for `rearm`.
    pub(crate) fn tick_of(&self, id: TimerId) -> u64 {
        self.ticks[id.row()]
    }

    /// Returns when to call `expire` next: the tick at which the first timer is due, or an earlier
    /// one. Returns `None` if there are no timers.
    ///
    /// The result is exact if the first timer's slot holds at most 32 timers. Otherwise it is the
    /// start of that slot: an `expire` at that time cascades the slot and may return nothing, and
    /// the next result is later, at most ten times in a row. After an `expire(now)` that returned
    /// nothing, the result is always later than `now`, unless the allowance for cascading was used
    /// up.
    #[inline]
    pub(crate) fn next_tick(&self) -> Option<u64> {
        if self.dealing.is_some() {
            return Some(self.elapsed);
        }
        let place = self.first_place()?;
        let start = self.start_of(place);
        if place.level == 0 {
            return Some(start);
        }
        let head = place.head();
        let mut at = self.links(head).next;
        let mut first = u64::MAX;
        for _ in 0..MAX_WALK {
            first = first.min(self.ticks[(at - HEADS) as usize]);
            at = self.links(at).next;
            if at == head {
                return Some(first);
            }
        }
        Some(start)
    }

    /// Returns whether `expire(now)` would return a timer, or cascade on the way to the next one.
    #[inline]
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.dealing.is_some()
            || self
                .first_place()
                .is_some_and(|place| self.start_of(place) <= now)
    }

    /// Allows `expire` to cascade this many timers from now on, over all calls. When they are used
    /// up, `expire` returns nothing until it is called with a new allowance. A wheel starts without
    /// a limit.
    pub(crate) fn allow(&mut self, timers: usize) {
        self.allowance = timers;
    }

    /// Removes and returns the first timer whose tick is `now` or earlier, never early. Call it
    /// until it returns `None`.
    ///
    /// Timers are returned in the order of their ticks, those armed in the past (see `arm`) with
    /// the current ones. Timers of the same tick are returned in the order in which they were
    /// armed, except that a rearmed timer may come before or after its equals.
    ///
    /// A `now` before that of an earlier call is treated as that one.
    pub(crate) fn expire(&mut self, now: u64) -> Option<K> {
        let now = now.max(self.elapsed);
        if self.dealing.is_some() && !self.deal() {
            return None;
        }
        while let Some(place) = self.first_place() {
            let start = self.start_of(place);
            if start > now {
                break;
            }
            self.elapsed = start;
            if place.level == 0 {
                let first = self.timer(self.links(place.head()).next)?;
                self.unlink(first);
                self.vacate(first);
                return Some(self.keys[first.row()]);
            }
            self.occupied[place.level] &= !(1 << place.slot);
            self.dealing = Some(place);
            if !self.deal() {
                return None;
            }
        }
        self.elapsed = now;
        None
    }

    /// Returns the number of timers.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let vacant = std::iter::successors(self.timer(self.vacant), |id| {
            self.timer(self.links[id.0.get() as usize].next)
        });
        self.ticks.len() - vacant.count()
    }

    /// Continues to cascade a slot that time has entered. Each timer moves to a lower level,
    /// because it now agrees with `elapsed` in the group of bits that was the slot's number.
    /// Returns false if the allowance is used up first.
    fn deal(&mut self) -> bool {
        let Some(place) = self.dealing else {
            return true;
        };
        let head = place.head();
        let mut next = self.links(head).next;
        while let Some(id) = self.timer(next) {
            if self.allowance == 0 {
                self.links_mut(head).next = next;
                self.links_mut(next).prev = head;
                return false;
            }
            self.allowance -= 1;
            next = self.links(next).next;
            self.link(id, self.place(self.ticks[id.row()]));
        }
        *self.links_mut(head) = Links {
            prev: head,
            next: head,
        };
        self.dealing = None;
        true
    }

    /// Appends a timer to a slot. Its links may hold anything.
    fn link(&mut self, id: TimerId, place: Place) {
        self.occupied[place.level] |= 1 << place.slot;
        let (head, id) = (place.head(), id.0.get());
        let last = std::mem::replace(&mut self.links_mut(head).prev, id);
        self.links_mut(last).next = id;
        *self.links_mut(id) = Links {
            prev: last,
            next: head,
        };
    }

    /// Removes a timer from its slot, whichever that is.
    fn unlink(&mut self, id: TimerId) {
        let Links { prev, next } = self.links(id.0.get());
        self.links_mut(prev).next = next;
        self.links_mut(next).prev = prev;
        // Only a head can be on both sides, so the slot is now empty.
        if prev == next && self.timer(next).is_none() {
            let Place { level, slot } = Place::of_head(next);
            self.occupied[level] &= !(1 << slot);
        }
    }

    fn take_vacant(&mut self) -> Option<TimerId> {
        let id = self.timer(self.vacant)?;
        self.vacant = self.links(self.vacant).next;
        Some(id)
    }

    fn vacate(&mut self, id: TimerId) {
        let next = std::mem::replace(&mut self.vacant, id.0.get());
        *self.links_mut(id.0.get()) = Links { prev: NONE, next };
    }

    /// Adds a row that is in no list.
    #[cold]
    fn grow(&mut self, tick: u64, key: K) -> TimerId {
        let row = self.ticks.len();
        let id = TimerId::from_row(row);
        if row == self.ticks.capacity() {
            // Growing by a sixteenth instead of doubling: with a million timers, doubling would
            // waste up to 24 MB.
            let growth = (row / 16).max(MIN_GROWTH);
            self.links.reserve_exact(growth);
            self.ticks.reserve_exact(growth);
            self.keys.reserve_exact(growth);
        }
        self.links.push(Links {
            prev: NONE,
            next: NONE,
        });
        self.ticks.push(tick);
        self.keys.push(key);
        id
    }

    /// Returns the slot for a tick that is not before `elapsed`. An armed timer of this tick is in
    /// that slot.
    fn place(&self, tick: u64) -> Place {
        let level = self.level(tick);
        let slot = (tick >> (level * BITS_PER_LEVEL)) as usize % SLOTS;
        Place {
            level: level as usize,
            slot,
        }
    }

    /// Returns the level: the highest group of bits in which the tick differs from the wheel's
    /// time.
    fn level(&self, tick: u64) -> u32 {
        // Setting the lowest bit does not change the level, and avoids the logarithm of 0.
        ((self.elapsed ^ tick) | 1).ilog2() / BITS_PER_LEVEL
    }

    /// Returns the slot that contains the first timer.
    fn first_place(&self) -> Option<Place> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        Some(Place { level, slot })
    }

    /// Returns the first tick of an occupied slot: `elapsed` with the slot's number in the group of
    /// its level, and zeros below.
    fn start_of(&self, place: Place) -> u64 {
        let shift = place.level as u32 * BITS_PER_LEVEL;
        // The topmost group is cut off by the end of the `u64`, and has nothing above it.
        let above = u64::MAX.checked_shl(shift + BITS_PER_LEVEL).unwrap_or(0);
        (self.elapsed & above) | ((place.slot as u64) << shift)
    }

    /// Returns the timer with these links, or `None` for a head or `NONE`.
    fn timer(&self, at: u32) -> Option<TimerId> {
        match at {
            HEADS..NONE => NonZeroU32::new(at).map(TimerId),
            0..HEADS | NONE => None,
        }
    }

    fn links(&self, at: u32) -> Links {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        self.links[at as usize]
    }

    fn links_mut(&mut self, at: u32) -> &mut Links {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        &mut self.links[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A key like the engine's: the kind of timer, and its owner.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Owner {
        Link(u32),
        Exchange(u32),
    }

    /// splitmix64: a small generator that yields the same numbers on every machine.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, n: u64) -> u64 {
            self.next() % n
        }

        /// Returns a number of at most `max_bits` bits, with every order of magnitude equally
        /// likely.
        fn distance(&mut self, max_bits: u64) -> u64 {
            let bits = self.below(max_bits + 1) as u32;
            self.next().checked_shr(u64::BITS - bits).unwrap_or(0)
        }
    }

    fn drain<K: Copy>(wheel: &mut Wheel<K>, now: u64) -> Vec<K> {
        std::iter::from_fn(|| wheel.expire(now)).collect()
    }

    #[test]
    fn an_empty_wheel_has_nothing_to_wait_for() {
        let mut wheel = Wheel::<u32>::new();
        assert_eq!(wheel.next_tick(), None);
        assert_eq!(wheel.expire(u64::MAX), None);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn a_timer_is_due_at_its_tick_and_not_before() {
        for bit in 0..u64::BITS {
            for tick in [(1 << bit) - 1, 1 << bit, (1 << bit) + 1, u64::MAX << bit] {
                let mut wheel = Wheel::new();
                wheel.arm(tick, 'a');
                assert_eq!(wheel.next_tick(), Some(tick));
                if tick > 0 {
                    assert_eq!(wheel.expire(tick - 1), None, "{tick} is early");
                    assert_eq!(wheel.next_tick(), Some(tick));
                }
                assert_eq!(wheel.expire(tick), Some('a'), "{tick}");
                assert_eq!(wheel.expire(tick), None);
                assert_eq!(wheel.next_tick(), None);
            }
        }
    }

    #[test]
    fn timers_come_in_order_of_their_ticks() {
        let mut wheel = Wheel::new();
        let ticks = [
            5_000_000,
            64,
            3,
            u64::MAX,
            4095,
            63,
            4096,
            0,
            65,
            262_144,
            1 << 47,
        ];
        for tick in ticks {
            wheel.arm(tick, tick);
        }
        let mut sorted = ticks;
        sorted.sort_unstable();
        assert_eq!(drain(&mut wheel, u64::MAX), sorted);
    }

    #[test]
    fn timers_of_one_tick_come_in_order_of_arming() {
        let mut wheel = Wheel::new();
        for key in 0..50 {
            wheel.arm(100_000, key);
        }
        assert_eq!(wheel.expire(99_990), None);
        for key in 50..100 {
            wheel.arm(100_000, key);
        }
        let expected: Vec<i32> = (0..100).collect();
        assert_eq!(drain(&mut wheel, 100_000), expected);
    }

    #[test]
    fn a_tick_of_the_past_is_due_at_once() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.expire(1000), None);
        wheel.arm(7, "past");
        assert_eq!(wheel.next_tick(), Some(1000));
        assert_eq!(wheel.expire(1000), Some("past"));

        let later = wheel.arm(5000, "later");
        wheel.rearm(later, 0);
        assert_eq!(wheel.expire(1000), Some("later"));
    }

    #[test]
    fn time_does_not_go_back() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.expire(1000), None);
        wheel.arm(1000, 'a');
        wheel.arm(1001, 'b');
        assert_eq!(wheel.expire(10), Some('a'));
        assert_eq!(wheel.expire(10), None);
        assert_eq!(wheel.expire(1001), Some('b'));
    }

    #[test]
    fn what_is_armed_while_others_expire_takes_its_turn() {
        let mut wheel = Wheel::new();
        wheel.arm(10, 'a');
        wheel.arm(30, 'c');
        assert_eq!(wheel.expire(40), Some('a'));
        wheel.arm(20, 'b');
        wheel.arm(50, 'd');
        assert_eq!(drain(&mut wheel, 40), ['b', 'c']);
        assert_eq!(wheel.next_tick(), Some(50));
    }

    #[test]
    fn a_timer_which_is_put_off_keeps_its_id_and_key() {
        let mut wheel = Wheel::new();
        let id = wheel.arm(100, Owner::Link(1));
        for now in 0..10_000 {
            wheel.rearm(id, now + 100);
            assert_eq!(wheel.expire(now), None);
            assert_eq!(wheel.next_tick(), Some(now + 100));
        }
        assert_eq!(wheel.expire(10_099), Some(Owner::Link(1)));
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn a_crowded_slot_gives_a_lower_bound_which_moves_on() {
        let mut wheel = Wheel::new();
        for key in 0..1000 {
            wheel.arm(10_000_000, key);
        }
        let mut now = 0;
        let mut calls = 0;
        let first = loop {
            let next = wheel.next_tick().expect("1000 timers");
            assert!(now < next && next <= 10_000_000, "{now} -> {next}");
            now = next;
            calls += 1;
            if let Some(key) = wheel.expire(now) {
                break key;
            }
        };
        assert_eq!((first, now), (0, 10_000_000));
        assert!(calls <= LEVELS, "{calls} calls");
    }

    #[test]
    fn next_tick_is_exact_for_a_slot_of_32() {
        let mut wheel = Wheel::new();
        for n in 0..32 {
            wheel.arm(8000 - n, ());
        }
        assert_eq!(wheel.next_tick(), Some(7969));
        wheel.arm(7950, ());
        assert!(wheel.next_tick() <= Some(7950));
    }

    /// A wheel, next to a slow but obviously correct model.
    struct Pair {
        wheel: Wheel<u64>,
        /// The keys at each tick.
        model: BTreeMap<u64, Vec<u64>>,
        /// The armed timers, to pick one at random.
        alive: Vec<(u64, TimerId, u64)>,
        now: u64,
        next_key: u64,
    }

    impl Pair {
        fn new() -> Self {
            Self {
                wheel: Wheel::new(),
                model: BTreeMap::new(),
                alive: Vec::new(),
                now: 0,
                next_key: 0,
            }
        }

        /// Returns a tick around the current time, possibly in the past.
        fn tick(&self, random: &mut Random) -> u64 {
            match random.below(8) {
                0 => self.now.saturating_sub(random.distance(40)),
                1 => random.distance(64),
                2 => self.now,
                3 => self.now.saturating_add(random.distance(64)),
                4 => (self.now | 63).saturating_add(random.below(3)),
                _ => self.now.saturating_add(random.distance(24)),
            }
        }

        fn arm(&mut self, tick: u64) {
            let key = self.next_key;
            self.next_key += 1;
            let id = self.wheel.arm(tick, key);
            assert!(self.alive.iter().all(|&(_, other, _)| other != id));
            self.add(key, id, tick);
        }

        fn rearm(&mut self, at: usize, tick: u64) {
            let (key, id) = self.remove(at);
            self.wheel.rearm(id, tick);
            self.add(key, id, tick);
        }

        fn cancel(&mut self, at: usize) {
            let (_, id) = self.remove(at);
            self.wheel.cancel(id);
        }

        fn add(&mut self, key: u64, id: TimerId, tick: u64) {
            let tick = tick.max(self.now);
            self.model.entry(tick).or_default().push(key);
            self.alive.push((key, id, tick));
        }

        fn remove(&mut self, at: usize) -> (u64, TimerId) {
            let (key, id, tick) = self.alive.swap_remove(at);
            let keys = self.model.get_mut(&tick).expect("a tick in use");
            keys.retain(|&other| other != key);
            if keys.is_empty() {
                self.model.remove(&tick);
            }
            (key, id)
        }

        /// Calls `expire` once, and returns whether it found a timer.
        fn expire(&mut self, now: u64) -> bool {
            let first = self.model.first_key_value().map(|(&tick, _)| tick);
            let due = first.filter(|&tick| tick <= now.max(self.now));
            let Some(key) = self.wheel.expire(now) else {
                assert_eq!(due, None, "a timer is late");
                self.now = self.now.max(now);
                assert!(self.wheel.next_tick().is_none_or(|next| next > self.now));
                return false;
            };
            let at = self.alive.iter().position(|&(other, ..)| other == key);
            let at = at.expect("a timer which is armed");
            assert_eq!(Some(self.alive[at].2), due, "out of order or early");
            self.now = self.alive[at].2;
            self.remove(at);
            true
        }

        fn check(&self) {
            assert_eq!(self.wheel.len(), self.alive.len());
            let first = self.model.first_key_value().map(|(&tick, _)| tick);
            let next = self.wheel.next_tick();
            if self.alive.len() <= MAX_WALK {
                assert_eq!(next, first);
            } else {
                assert!(Some(self.now) <= next && next <= first);
            }
        }
    }

    #[test]
    fn any_sequence_of_calls_agrees_with_a_sorted_map() {
        for seed in 0..400 {
            let mut random = Random(seed);
            let mut pair = Pair::new();
            // Some seeds keep few timers, where next_tick is exact, and some keep hundreds.
            let crowd = 1 << random.below(10);
            for _ in 0..600 {
                let roll = random.below(16);
                match roll {
                    0..6 if pair.alive.len() < crowd => {
                        let tick = pair.tick(&mut random);
                        pair.arm(tick);
                    }
                    6..9 if !pair.alive.is_empty() => {
                        let at = random.below(pair.alive.len() as u64) as usize;
                        let tick = pair.tick(&mut random);
                        pair.rearm(at, tick);
                    }
                    9..11 if !pair.alive.is_empty() => {
                        let at = random.below(pair.alive.len() as u64) as usize;
                        pair.cancel(at);
                    }
                    // Time stands still, goes back, or stops between two timers.
                    11 => {
                        let now = pair.now.saturating_sub(random.distance(20));
                        pair.expire(now);
                    }
                    // Advance to the wheel's own `next_tick`, as the engine does.
                    12 => {
                        if let Some(next) = pair.wheel.next_tick() {
                            while pair.expire(next) {}
                        }
                    }
                    // A jump, usually over a few slots, occasionally over nearly the whole range.
                    13..15 => {
                        let bits = if random.below(50) == 0 { 63 } else { 26 };
                        let now = pair.now.saturating_add(random.distance(bits));
                        while pair.expire(now) {}
                    }
                    // A jump, after which only some of the due timers are taken.
                    _ => {
                        let now = pair.now.saturating_add(random.distance(16));
                        for _ in 0..random.below(4) {
                            pair.expire(now);
                        }
                    }
                }
                pair.check();
            }
            // Expire the rest by the wheel's own `next_tick`, which must not make its caller spin.
            let enough = pair.alive.len() * LEVELS;
            let mut calls = 0;
            while let Some(next) = pair.wheel.next_tick() {
                while pair.expire(next) {}
                calls += 1;
            }
            assert!(calls <= enough, "{calls} calls, seed {seed}");
            assert!(pair.alive.is_empty() && pair.model.is_empty());
        }
    }

    #[test]
    fn a_slot_that_is_too_full_is_dealt_out_by_and_by() {
        const TIMERS: u32 = 10_000;
        const ALLOWED: usize = 100;
        for (base, spread) in [(5000, 1), (5000, 300), (300_000, 20_000)] {
            let mut wheel = Wheel::new();
            let mut ids: Vec<_> = (0..TIMERS)
                .map(|n| Some(wheel.arm(base + u64::from(n) % spread, n)))
                .collect();
            let mut ticks: Vec<_> = (0..TIMERS).map(|n| base + u64::from(n) % spread).collect();
            let now = base + spread;
            let (mut calls, mut last, mut expired) = (0, 0, 0);
            while expired < TIMERS as usize {
                wheel.allow(ALLOWED);
                wheel.touched.set(0);
                let mut handed = 0;
                while handed < ALLOWED
                    && let Some(n) = wheel.expire(now)
                {
                    handed += 1;
                    expired += 1;
                    assert!(ids[n as usize].take().is_some(), "each timer expires once");
                    assert!(
                        ticks[n as usize] >= last,
                        "timers expire in the order of their ticks"
                    );
                    last = ticks[n as usize];
                }
                let most = (ALLOWED * 20) as u64;
                assert!(wheel.touched.get() <= most, "{}", wheel.touched.get());
                calls += 1;
                if expired < TIMERS as usize {
                    assert!(wheel.is_due(now), "there are more timers due");
                    assert!(wheel.next_tick().is_some_and(|tick| tick <= now));
                }
                // Meanwhile some timers are canceled and others moved, wherever they are.
                let n = (calls * 37 % TIMERS) as usize;
                match ids[n] {
                    Some(id) if calls % 2 == 0 => {
                        wheel.cancel(id);
                        ids[n] = None;
                        expired += 1;
                    }
                    Some(id) => {
                        ticks[n] = now.min(ticks[n] + 1).max(last);
                        wheel.rearm(id, ticks[n]);
                    }
                    None => {}
                }
            }
            assert!(calls as usize >= TIMERS as usize / ALLOWED);
            assert_eq!((wheel.expire(now), wheel.len()), (None, 0));
            assert!(!wheel.is_due(u64::MAX) && wheel.next_tick().is_none());
        }
    }

    /// Returns the links touched per timer: by arming, by rearming, and by expiring all timers.
    fn work_per_timer(timers: u64) -> [f64; 3] {
        const SPAN: u64 = 3_600_000;
        let mut wheel = Wheel::new();
        let mut random = Random(timers);
        let measure = |wheel: &Wheel<u32>| wheel.touched.replace(0) as f64 / timers as f64;

        let ids: Vec<TimerId> = (0..timers)
            .map(|key| wheel.arm(random.below(SPAN), key as u32))
            .collect();
        let arming = measure(&wheel);
        for &id in &ids {
            wheel.rearm(id, random.below(SPAN));
        }
        let rearming = measure(&wheel);
        let mut now = 0;
        while wheel.first_place().is_some() {
            now += SPAN / timers + 1;
            drain(&mut wheel, now);
        }
        [arming, rearming, measure(&wheel)]
    }

    #[test]
    fn the_work_per_timer_does_not_grow_with_their_number() {
        // Adding a timer to a list takes 3 touches, and removing it another 3. An hour of
        // milliseconds has four levels, so each timer is moved at most three times, with one touch
        // more than adding it and two more for its slot. An expired timer was searched for, and
        // becomes vacant.
        let bounds = [3.0, 3.0 + 3.0, 3.0 * (4.0 + 2.0) + 5.0];
        for timers in [1_000, 10_000, 100_000, 1_000_000] {
            let work = work_per_timer(timers);
            for (work, bound) in work.iter().zip(bounds) {
                assert!(*work <= bound, "{work} > {bound}, {timers} timers");
            }
        }
    }

    #[test]
    fn a_timer_is_moved_at_most_once_per_level() {
        let mut wheel = Wheel::new();
        for n in 0..100_000_u64 {
            wheel.arm(u64::MAX - n, ());
        }
        wheel.touched.set(0);
        assert_eq!(drain(&mut wheel, u64::MAX).len(), 100_000);
        let touched = wheel.touched.get() / 100_000;
        assert!(touched <= LEVELS as u64 * 6 + 5, "{touched}");
    }

    #[test]
    fn next_tick_walks_a_bounded_part_of_a_slot() {
        let mut wheel = Wheel::new();
        for _ in 0..100_000 {
            wheel.arm(1 << 40, ());
        }
        wheel.touched.set(0);
        assert_eq!(wheel.next_tick(), Some(1 << 40));
        assert_eq!(wheel.touched.get(), 1 + MAX_WALK as u64);
    }

    #[test]
    fn rearming_within_a_slot_touches_no_neighbour() {
        let mut wheel = Wheel::new();
        let ids: Vec<TimerId> = (0..100).map(|n| wheel.arm(30_000 + n, ())).collect();
        wheel.touched.set(0);
        wheel.rearm(ids[50], 31_000);
        assert_eq!(wheel.touched.get(), 0);
    }

    #[test]
    fn a_million_timers_cost_at_most_26_bytes_each() {
        let heap = |wheel: &Wheel<Owner>| {
            wheel.links.capacity() * size_of::<Links>()
                + wheel.ticks.capacity() * size_of::<u64>()
                + wheel.keys.capacity() * size_of::<Owner>()
        };
        assert_eq!(size_of::<Option<TimerId>>(), 4);

        let mut wheel = Wheel::new();
        let mut growths = 0;
        for n in 1..=1_000_000 {
            let before = heap(&wheel);
            wheel.arm(n as u64, Owner::Exchange(n as u32));
            let after = heap(&wheel);
            growths += usize::from(after != before);
            let most = n + (n / 16).max(MIN_GROWTH);
            assert!(wheel.ticks.capacity() <= most, "{n}");
            assert!(wheel.keys.capacity() <= most, "{n}");
            assert!(wheel.links.capacity() <= most + HEADS as usize, "{n}");
        }
        assert!(heap(&wheel) <= 26 * 1_000_000, "{} bytes", heap(&wheel));
        assert!(growths <= 200, "{growths} growths");
    }

    #[test]
    fn a_timer_that_is_gone_is_not_taken_for_one() {
        let mut wheel = Wheel::new();
        let gone = wheel.arm(1, 'a');
        wheel.arm(1, 'b');
        wheel.cancel(gone);
        let twice = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wheel.cancel(gone)));
        assert!(twice.is_err());
        assert_eq!(drain(&mut wheel, 1), ['b']);
    }

    #[test]
    fn nothing_is_allocated_where_an_entry_is_vacant() {
        let mut wheel = Wheel::new();
        let ids: Vec<TimerId> = (0..1000).map(|n| wheel.arm(n, n)).collect();
        let capacity = wheel.ticks.capacity();
        for &id in &ids[500..] {
            wheel.cancel(id);
        }
        assert_eq!(drain(&mut wheel, 499).len(), 500);
        for n in 0..1000 {
            wheel.arm(n * n, n);
        }
        assert_eq!((wheel.len(), wheel.ticks.capacity()), (1000, capacity));
    }
}
