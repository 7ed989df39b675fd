//! A hierarchical timing wheel: deadlines and delayed requests, a million of them if need be.
//!
//! Time is a number of ticks, which the caller counts (the engine: milliseconds since its start). A
//! timer stands in a list of the others of its slot, and there are 64 slots a level: at level 0 a
//! slot is one tick, at each level above it is 64 slots of the one below. The level of a timer is
//! that of the highest group of six bits in which its tick and the wheel's time differ (tokio's
//! wheel does the same). Two things follow, and everything here rests on them:
//!
//! - Each timer of a level is due before every timer of the levels above, and within a level the
//!   slots are in order of time: the first timer due is in the lowest occupied slot of the lowest
//!   occupied level, and no slot is ever reused for the next round.
//! - As long as time does not enter a timer's slot, its level and slot stay what they were: a tick
//!   is all that is needed to find them.
//!
//! When time enters a slot above level 0, the timers in it are dealt out again, each to a lower
//! level than before: cascaded. So a timer is moved at most once per level in its life. Cascading
//! is done by [`Wheel::expire`] alone. With a million timers spread over an hour, a slot of 2¹⁸ ms
//! holds 70,000 of them, and dealing them out takes some 20 ms every four minutes; with a million
//! of one second it holds them all. So no more are dealt out than [`Wheel::allow`] has said, and
//! until the slot is empty no timer expires: there may be an earlier one in it.

use std::num::NonZeroU32;

const BITS_PER_LEVEL: u32 = 6;
const SLOTS: usize = 1 << BITS_PER_LEVEL;

/// Enough for every `u64`: nothing is too far away, and nothing has to be clamped. The levels which
/// are never used cost 512 bytes each.
const LEVELS: usize = u64::BITS.div_ceil(BITS_PER_LEVEL) as usize;

/// How many list heads there are: the first ids are theirs, and timers are counted from here.
const HEADS: u32 = (LEVELS * SLOTS) as u32;

/// How far `next_tick` looks into a slot for the first of its timers.
const MAX_WALK: usize = 32;

/// The first growth of the columns; later ones are a sixteenth.
const MIN_GROWTH: usize = 16;

/// Names a timer from `arm` until it is cancelled or has expired. After that, the id may name
/// another timer: its owner forgets it.
///
/// It is never 0, which is the head of the first slot, so that `Option<TimerId>` is four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(NonZeroU32);

impl TimerId {
    /// # Panics
    /// With some 2³² timers armed at once, which is 96 GiB of them.
    fn from_row(row: usize) -> Self {
        let id = u32::try_from(row)
            .ok()
            .and_then(|row| row.checked_add(HEADS))
            // The last number is that of no timer.
            .filter(|&id| id != NONE)
            .and_then(NonZeroU32::new)
            .expect("fewer than 2^32 timers");
        Self(id)
    }

    /// Among the timers: where its tick and its key are.
    fn row(self) -> usize {
        (self.0.get() - HEADS) as usize
    }
}

/// Neighbours in the circular list of a slot, as indexes into `Wheel::links`. A slot's head is one
/// of its list, so that neither neighbour is ever missing, a timer is taken out without asking
/// where it stands, and the last one is found from the head: first in, first out.
///
/// A vacant entry has no `prev`, and its `next` is the next vacant one.
#[derive(Clone, Copy)]
struct Links {
    prev: u32,
    next: u32,
}

/// No timer, where the links of one would be: no index, so that using it panics.
const NONE: u32 = u32::MAX;

/// Where a tick belongs, as seen from the wheel's time.
#[derive(Clone, Copy)]
struct Place {
    level: usize,
    slot: usize,
}

impl Place {
    /// The head of its list.
    fn head(self) -> u32 {
        (self.level * SLOTS + self.slot) as u32
    }

    /// The place whose head this is.
    fn of_head(head: u32) -> Self {
        Self {
            level: head as usize / SLOTS,
            slot: head as usize % SLOTS,
        }
    }
}

/// A set of timers, each with a tick at which it is due and a key which is handed out then.
///
/// `arm`, `rearm` and `cancel` take constant time, and allocate nothing while there is a vacant
/// entry. No memory is given back.
///
/// A timer is a row in three columns. The links stand apart, since they are all that a cancellation
/// looks at: of a million timers they are 8 MB, eight to a cache line, and what such a wheel costs
/// is what it misses in the cache.
pub(crate) struct Wheel<K: Copy> {
    /// Up to where timers were handed out; never goes back. No slot which lies wholly before it is
    /// occupied.
    elapsed: u64,
    /// A bit for each slot which holds a timer.
    occupied: [u64; LEVELS],
    /// Of the slots' heads first, then of the timers.
    links: Vec<Links>,
    ticks: Vec<u64>,
    keys: Vec<K>,
    /// The first vacant timer, or `NONE`.
    vacant: u32,
    /// A slot that time has entered and that is not dealt out whole. Its bit is not set: nothing is
    /// put into it, but timers may be taken out.
    dealing: Option<Place>,
    /// How many more timers may be dealt out.
    allowance: usize,
    /// How often links were looked at or changed, a measure of work which does not depend on the
    /// machine.
    #[cfg(test)]
    touched: std::cell::Cell<u64>,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel, at tick 0.
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

    /// Adds a timer which is due at `tick`.
    ///
    /// A tick of the past counts as the present one, that is the `now` of the last `expire` or,
    /// when that handed out a timer, the tick of this timer: it is due at the next `expire`, even
    /// within one run of them. Who arms such a timer for each one that expires, and goes on until
    /// there are none, does not come to an end.
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

    /// Moves a timer to another tick, as `arm` would place it.
    ///
    /// # Panics
    /// May panic when the timer has expired or was cancelled; otherwise it hits whichever timer has
    /// its id now.
    pub(crate) fn rearm(&mut self, id: TimerId, tick: u64) {
        let tick = tick.max(self.elapsed);
        let before = std::mem::replace(&mut self.ticks[id.row()], tick);
        // An idle timeout is put off with each byte that arrives, and mostly within its slot: then
        // its neighbours are left alone. What agrees with it in the slot's number and all above is
        // in the same slot of the same level.
        if (before ^ tick) >> (self.level(before) * BITS_PER_LEVEL) != 0 {
            self.unlink(id);
            self.link(id, self.place(tick));
        }
    }

    /// Removes a timer. The id is then gone.
    ///
    /// # Panics
    /// As `rearm`.
    pub(crate) fn cancel(&mut self, id: TimerId) {
        self.unlink(id);
        self.vacate(id);
    }

    /// The tick at which a timer is due.
    ///
    /// # Panics
    /// As `rearm`.
    pub(crate) fn tick_of(&self, id: TimerId) -> u64 {
        self.ticks[id.row()]
    }

    /// When to call `expire` next: the tick at which the first timer is due, or an earlier one.
    /// `None` without timers.
    ///
    /// It is exact when at most 32 timers share the slot of the first. Else it is where this slot
    /// begins: an `expire` at that time cascades it and may hand out nothing, and the next answer
    /// lies further on, at most ten times in a row. After an `expire(now)` which found nothing the
    /// answer is always later than `now`, unless it had dealt out as many timers as it was allowed.
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

    /// Whether `expire(now)` would hand out a timer, or find work on the way to the next.
    #[inline]
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.dealing.is_some()
            || self
                .first_place()
                .is_some_and(|place| self.start_of(place) <= now)
    }

    /// Lets `expire` deal out so many timers from now on, all calls together. When it has, it hands
    /// out none, and goes on when it is allowed more. A wheel starts without a limit.
    pub(crate) fn allow(&mut self, timers: usize) {
        self.allowance = timers;
    }

    /// Takes out the first timer whose tick is `now` or before; call it until there is none. Never
    /// early.
    ///
    /// Timers come in order of their ticks, those of the past (see `arm`) with the present ones.
    /// Timers of the same tick come in the order in which they were armed, except that one which
    /// was rearmed may come before or after its equals.
    ///
    /// A `now` before that of an earlier call counts as that one.
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

    /// The number of timers.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let vacant = std::iter::successors(self.timer(self.vacant), |id| {
            self.timer(self.links[id.0.get() as usize].next)
        });
        self.ticks.len() - vacant.count()
    }

    /// Goes on with a slot that time has entered. Each timer lands on a lower level: it now agrees
    /// with `elapsed` in the group of bits which was the slot's number. False: there are more than
    /// is allowed now.
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

    /// Appends a timer, whose links mean nothing yet, to a slot.
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

    /// Takes a timer out of its slot, whichever that is.
    fn unlink(&mut self, id: TimerId) {
        let Links { prev, next } = self.links(id.0.get());
        self.links_mut(prev).next = next;
        self.links_mut(next).prev = prev;
        // Only a head can be on both sides: nothing is left in its slot.
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

    /// Adds a row, which is in no list.
    #[cold]
    fn grow(&mut self, tick: u64, key: K) -> TimerId {
        let row = self.ticks.len();
        let id = TimerId::from_row(row);
        if row == self.ticks.capacity() {
            // A sixteenth rather than the double: at a million timers, up to 24 MB would lie idle.
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

    /// Where a timer of this tick, which is not before `elapsed`, belongs; and where it stands, if
    /// it is armed.
    fn place(&self, tick: u64) -> Place {
        let level = self.level(tick);
        let slot = (tick >> (level * BITS_PER_LEVEL)) as usize % SLOTS;
        Place {
            level: level as usize,
            slot,
        }
    }

    /// That of the highest group of bits in which the tick differs from the wheel's time.
    fn level(&self, tick: u64) -> u32 {
        // The lowest bit makes no difference to the level, and there is none to be found in 0.
        ((self.elapsed ^ tick) | 1).ilog2() / BITS_PER_LEVEL
    }

    /// The slot in which the first timer is.
    fn first_place(&self) -> Option<Place> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        Some(Place { level, slot })
    }

    /// The first tick of an occupied slot: `elapsed` with the slot's number in the group of its
    /// level, and zeros below.
    fn start_of(&self, place: Place) -> u64 {
        let shift = place.level as u32 * BITS_PER_LEVEL;
        // The topmost group is cut short by the end of the u64, and has nothing above it.
        let above = u64::MAX.checked_shl(shift + BITS_PER_LEVEL).unwrap_or(0);
        (self.elapsed & above) | ((place.slot as u64) << shift)
    }

    /// The timer of these links; `None` of a head's, and of none.
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

    /// A key such as the engine's: what is due, and whose.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Owner {
        Link(u32),
        Exchange(u32),
    }

    /// splitmix64: a small generator, the same on every machine.
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

        /// A number of at most `max_bits` bits, any order of magnitude as likely as the others.
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

    /// A wheel beside a model which is slow and plainly right.
    struct Pair {
        wheel: Wheel<u64>,
        /// Each key under its tick.
        model: BTreeMap<u64, Vec<u64>>,
        /// Those alive, for picking one at random.
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

        /// A tick somewhere about now, the past included.
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

        /// One call of `expire`; whether it found something.
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
                    // To where the wheel says, as the engine does.
                    12 => {
                        if let Some(next) = pair.wheel.next_tick() {
                            while pair.expire(next) {}
                        }
                    }
                    // A jump, mostly over a few slots, now and then over nearly everything.
                    13..15 => {
                        let bits = if random.below(50) == 0 { 63 } else { 26 };
                        let now = pair.now.saturating_add(random.distance(bits));
                        while pair.expire(now) {}
                    }
                    // A jump with only some of what is due taken out.
                    _ => {
                        let now = pair.now.saturating_add(random.distance(16));
                        for _ in 0..random.below(4) {
                            pair.expire(now);
                        }
                    }
                }
                pair.check();
            }
            // The rest, by the wheel's own word, which must not make its caller spin.
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
                    assert!(ids[n as usize].take().is_some(), "once");
                    assert!(ticks[n as usize] >= last, "in their order");
                    last = ticks[n as usize];
                }
                let most = (ALLOWED * 20) as u64;
                assert!(wheel.touched.get() <= most, "{}", wheel.touched.get());
                calls += 1;
                if expired < TIMERS as usize {
                    assert!(wheel.is_due(now), "there is more");
                    assert!(wheel.next_tick().is_some_and(|tick| tick <= now));
                }
                // Meanwhile some are cancelled, and some put off, wherever they are.
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

    /// Links touched per timer: by arming, by putting off, and by expiry of all.
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
        // A timer is put into a list with 3 touches and taken out with 3; an hour of milliseconds
        // has four levels, so that each timer is moved at most three times, which is one touch more
        // than to put it in and two more for its slot. What expires was looked for, and is vacant
        // afterwards.
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
