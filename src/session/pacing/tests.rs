//! Requests of two engines that share a session, in simulated time.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::*;
use crate::id::ChainId;
use crate::policy::{Present, Wakeups};
use crate::proto::testing::Random;

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// It is about to ask.
    Asks,
    /// It asks again at this time.
    Timer(u64),
    /// It asks again when it is woken.
    Asleep,
    /// It was let through, and is sent at this time.
    Connecting(u64),
    /// It is answered at this time.
    Sent(u64),
    /// It begins its next exchange at this time.
    BetweenExchanges(u64),
}

struct Req {
    place: Place,
    engine: usize,
    lane: Option<usize>,
    priority: i8,
    at: At,
    has_begun: bool,
}

/// Requests, and what drives them.
struct World {
    pacing: Arc<Pacing>,
    start: Instant,
    now: u64,
    presents: [Present; 2],
    wakeups: [Arc<Wakeups>; 2],
    requests: BTreeMap<u64, Req>,
    /// The requests that were let through, in order.
    let_through: Vec<u64>,
    calls: usize,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let start = Instant::now();
        Self {
            pacing: Arc::new(Pacing::new(bounds)),
            start,
            now: 0,
            presents: [1, 2].map(|seed| Present::simulated(start, UNIX_EPOCH, seed)),
            wakeups: [(); 2].map(|()| Arc::new(Wakeups::new(|| ()))),
            requests: BTreeMap::new(),
            let_through: Vec::new(),
            calls: 0,
        }
    }

    fn enter(&mut self, number: u64, lane: Option<usize>, priority: i8) {
        let name = lane.map(|lane| lane.to_string());
        let place = self.pacing.enter(name.as_deref(), priority);
        let request = Req {
            place: place.expect("it is held back"),
            engine: number as usize % 2,
            lane,
            priority,
            at: At::Asks,
            has_begun: false,
        };
        self.requests.insert(number, request);
    }

    fn pass_to(&mut self, now: u64) {
        assert!(now >= self.now);
        self.now = now;
        for present in &self.presents {
            present.advance(self.start + Duration::from_micros(now));
        }
        for request in self.requests.values_mut() {
            if matches!(request.at, At::Timer(at) if at <= now) {
                request.at = At::Asks;
            }
        }
    }

    fn with<R>(&mut self, number: u64, call: impl FnOnce(&mut Place, &Moment<'_>) -> R) -> R {
        let request = self.requests.get_mut(&number).unwrap();
        let engine = request.engine;
        let chain = Some(ChainId::from_u64(number));
        let at = Moment::new(&self.presents[engine], &self.wakeups[engine], chain);
        call(&mut request.place, &at)
    }

    /// Has a request ask, and returns where it is then.
    fn ask(&mut self, number: u64) -> At {
        self.calls += 1;
        let start = self.with(number, |place, at| place.start(at)).unwrap();
        let at = match start {
            Start::Now => {
                self.let_through.push(number);
                At::Connecting(self.now)
            }
            // As the engine's timers do.
            Start::After(wait) => {
                let due = self.now + wait.as_micros() as u64;
                At::Timer(due.div_ceil(MS) * MS)
            }
            Start::Wait => At::Asleep,
        };
        let request = self.requests.get_mut(&number).unwrap();
        request.has_begun |= start == Start::Now;
        request.at = at;
        at
    }

    /// Takes what has been woken, and has it ask. Wakes of requests that have gone on are ignored,
    /// as the engine does.
    fn take_woken(&mut self) -> bool {
        let mut any = false;
        for engine in [0, 1] {
            let mut woken = Vec::new();
            self.wakeups[engine].take(&mut woken, usize::MAX);
            for woken in woken {
                let number = woken.chain.to_u64();
                if let Some(request) = self.requests.get_mut(&number)
                    && request.at == At::Asleep
                {
                    request.at = At::Asks;
                    any = true;
                }
            }
        }
        any
    }

    fn find(&self, is_wanted: impl Fn(&Req) -> bool) -> Vec<u64> {
        let found = self.requests.iter().filter(|(_, it)| is_wanted(it));
        found.map(|(number, _)| *number).collect()
    }

    /// Has all ask that can.
    fn settle(&mut self) {
        loop {
            let asking = self.find(|it| it.at == At::Asks);
            for number in &asking {
                self.ask(*number);
            }
            if !self.take_woken() && asking.is_empty() {
                return;
            }
        }
    }

    /// Returns the time of the next event.
    fn next_at(&self) -> Option<u64> {
        let times = self.requests.values().filter_map(|it| match it.at {
            At::Asks => Some(self.now),
            At::Timer(at) | At::Connecting(at) | At::Sent(at) | At::BetweenExchanges(at) => {
                Some(at)
            }
            At::Asleep => None,
        });
        times.min()
    }

    fn state(&self) -> (usize, usize, usize) {
        let state = self.pacing.state();
        (state.waiting, state.lanes.len(), state.line.len())
    }
}

fn bounds(rate: Option<Rate>, lane_rate: Option<Rate>, most: Option<usize>) -> Bounds {
    Bounds::new(rate, lane_rate, most, None)
}

/// Has all requests that are let through be answered at once, until none is left. Returns the order
/// in which they were let through.
fn order(mut world: World) -> Vec<u64> {
    loop {
        world.settle();
        let through = world.find(|it| matches!(it.at, At::Connecting(_)));
        for number in &through {
            world.with(*number, |place, at| {
                place.on_sent(at);
                place.on_answered(at);
            });
            world.requests.remove(number);
        }
        if !through.is_empty() {
            continue;
        }
        match world.next_at() {
            Some(next) => world.pass_to(next),
            None => break,
        }
    }
    assert!(world.requests.is_empty(), "some wait for ever");
    world.let_through
}

#[test]
fn lanes_take_turns() {
    let mut world = World::new(bounds(Some(Rate::per_second(10)), None, None));
    // Five for one lane, and then one each for three others, and two without a lane.
    let lanes = [
        Some(1),
        Some(1),
        Some(1),
        Some(1),
        Some(1),
        Some(2),
        Some(3),
        Some(4),
        None,
        None,
    ];
    for (number, lane) in (0..).zip(lanes) {
        world.enter(number, lane, 0);
    }
    // The second one had asked before those of the other lanes did.
    assert_eq!(order(world), [0, 1, 5, 6, 7, 8, 2, 9, 3, 4]);
}

#[test]
fn within_a_lane_priorities_come_first() {
    let mut world = World::new(bounds(None, None, Some(1)));
    for (number, priority) in (0..).zip([0, 0, 5, -5, 5, 0]) {
        world.enter(number, Some(1), priority);
        world.settle();
    }
    assert_eq!(
        world.pacing.lane("1"),
        LaneStats {
            waiting: 5,
            running: 1
        }
    );
    assert_eq!(world.pacing.lane("2"), LaneStats::default());
    assert_eq!(world.pacing.waiting(), 5);
    assert_eq!(order(world), [0, 2, 4, 1, 5, 3]);
}

#[test]
fn a_request_that_has_begun_goes_before_all_others() {
    let mut world = World::new(bounds(None, Some(Rate::per_second(1)), Some(1)));
    world.enter(1, Some(1), 0);
    world.settle();
    world.enter(2, Some(1), 100);
    world.settle();
    // Its next exchange.
    world.with(1, |place, at| {
        place.on_sent(at);
        place.on_answered(at);
    });
    world.requests.get_mut(&1).unwrap().at = At::Asks;
    assert_eq!(order(world), [1, 1, 2]);
}

#[test]
fn a_refusal_holds_back_its_lane_only() {
    let mut world = World::new(bounds(None, None, Some(2)));
    world.enter(1, Some(1), 0);
    world.settle();
    world.with(1, |place, at| place.hold(Duration::from_secs(7), at));
    world.enter(2, Some(1), 0);
    world.enter(3, Some(2), 0);
    world.settle();
    let at = |world: &World, number| world.requests[&number].at;
    assert_eq!(at(&world, 2), At::Timer(7 * SECOND));
    assert_eq!(at(&world, 3), At::Connecting(0));
    // A shorter wait does not end a longer one.
    world.with(1, |place, at| place.hold(Duration::from_secs(1), at));
    world.enter(4, Some(1), 1);
    world.settle();
    assert_eq!(at(&world, 4), At::Timer(7 * SECOND));
    // The lane is remembered until then, though no request is in it.
    world.requests.clear();
    world.enter(5, Some(1), 0);
    world.settle();
    assert_eq!(at(&world, 5), At::Timer(7 * SECOND));
}

#[test]
fn a_full_lane_refuses_what_would_wait() {
    let full = Bounds::new(None, None, Some(1), Some(2));
    let mut world = World::new(full);
    for number in 0..3 {
        world.enter(number, Some(1), 0);
    }
    world.settle();
    for priority in [-1, 0, 1] {
        world.enter(3, Some(1), priority);
        let refused = world.with(3, |place, at| place.start(at)).unwrap_err();
        let expected = "2 requests wait in its lane already (max_waiting)";
        assert_eq!(refused.to_string(), expected);
        world.requests.remove(&3);
    }
    // Another lane has room.
    world.enter(4, Some(2), 0);
    world.settle();
    assert_eq!(order(world), [0, 4, 1, 2]);
}

#[test]
fn requests_that_are_not_sent_keep_others_from_being_let_through() {
    let mut world = World::new(bounds(Some(Rate::per_second(2).burst(2)), None, None));
    for number in 0..4 {
        world.enter(number, None, 0);
    }
    world.settle();
    assert_eq!(world.let_through, [0, 1]);
    // They wait for connections. The server sees nothing of them.
    world.pass_to(9 * SECOND);
    world.settle();
    assert_eq!(world.let_through, [0, 1]);
    // One cannot connect, and the other is sent.
    world.requests.remove(&0);
    world.with(1, |place, at| place.on_sent(at));
    world.pass_to(92 * SECOND / 10);
    world.settle();
    assert_eq!(world.let_through, [0, 1, 2]);
    // The token of the one that was sent comes back in a second, unless the other one gives its
    // token back before.
    assert_eq!(world.requests[&3].at, At::Timer(93 * SECOND / 10));
    // Those that wait for long keep nobody else waiting.
    world.pass_to(20 * SECOND);
    world.settle();
    assert_eq!(world.let_through, [0, 1, 2, 3]);
}

#[test]
fn idle_lanes_are_forgotten() {
    let mut world = World::new(bounds(None, Some(Rate::per_second(1)), None));
    for number in 0..100 {
        world.enter(number, Some(number as usize), 0);
        world.settle();
        world.with(number, |place, at| place.on_sent(at));
        world.requests.remove(&number);
    }
    assert_eq!(world.state(), (0, 100, 0));
    world.pass_to(10 * SECOND);
    for number in 100..160 {
        world.enter(number, Some(1000), 0);
        world.settle();
        world.requests.remove(&number);
    }
    let (_, lanes, _) = world.state();
    assert!(lanes <= 1, "{lanes} lanes are left");
}

#[test]
fn without_tokens_a_lane_is_forgotten_at_once() {
    let mut world = World::new(bounds(None, None, Some(1)));
    for number in 0..100 {
        world.enter(number, Some(number as usize), 0);
        world.settle();
        world.requests.remove(&number);
        assert_eq!(world.state(), (0, 0, 0));
    }
}

/// A message costs the same however many lanes there are, and however many requests wait.
#[test]
fn the_work_for_a_request_does_not_grow() {
    let calls = |lanes: u64| {
        let rates = (
            Rate::per_second(1000).burst(10),
            Rate::per_minute(20).burst(20),
        );
        let mut world = World::new(bounds(Some(rates.0), Some(rates.1), Some(1)));
        for number in 0..lanes * 3 {
            world.enter(number, Some((number % lanes) as usize), 0);
        }
        let count = world.requests.len();
        let mut ended = 0;
        // `order`, but only for the requests that something happens to.
        while ended < count {
            world.settle();
            for number in world.find(|it| matches!(it.at, At::Connecting(_))) {
                world.with(number, |place, at| {
                    place.on_sent(at);
                    place.on_answered(at);
                });
                world.requests.remove(&number);
                ended += 1;
            }
            if let Some(next) = world.next_at() {
                world.pass_to(next);
            }
        }
        world.calls as f64 / count as f64
    };
    let (few, many) = (calls(10), calls(300));
    assert!(few < 4.0 && many < 4.0, "{few} and {many} calls a request");
}

/// Requests that come, are sent late, fail to connect, are retried, held back and canceled, in any
/// order and in two engines. No limit is exceeded, none waits for ever, and nothing is left.
#[test]
fn whatever_happens_no_limit_is_exceeded_and_nothing_waits_for_ever() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut some = |most: usize| 1 + random.below(most) as u32;
        let rate = Rate::new(some(5), Duration::from_millis(200)).burst(some(5));
        let lane_rate = Rate::new(some(4), Duration::from_millis(500)).burst(some(4));
        let has = |bit: u64| seed & bit != 0 || seed & 7 == 0;
        let places = has(4).then(|| some(2) as usize);
        let mut world = World::new(bounds(
            has(1).then_some(rate),
            has(2).then_some(lane_rate),
            places,
        ));
        let (mut last, mut held) = (0, BTreeMap::<usize, u64>::new());
        let mut arrived = Vec::new();
        loop {
            for number in world.find(|it| it.at == At::Asks) {
                let request = &world.requests[&number];
                let (lane, key) = (request.lane, request.priority);
                let begun = request.has_begun;
                if let At::Connecting(_) = world.ask(number) {
                    let until = lane.and_then(|lane| held.get(&lane));
                    assert!(until.is_none_or(|until| *until <= world.now), "seed {seed}");
                    // None that could go before it waits.
                    let overtaken = world.find(|it| {
                        lane.is_some()
                            && it.lane == lane
                            && !it.has_begun
                            && it.priority > key
                            && matches!(it.at, At::Asleep | At::Timer(_))
                    });
                    assert!(begun || overtaken.is_empty(), "seed {seed}: {overtaken:?}");
                    let late = random.below(4) as u64 * 50 * MS;
                    world.requests.get_mut(&number).unwrap().at = At::Connecting(world.now + late);
                }
            }
            if world.take_woken() {
                continue;
            }
            if last < 60 && random.below(3) > 0 {
                let lane = (random.below(5) > 0 || !has(1)).then(|| random.below(4));
                if lane.is_some() || has(1) {
                    world.enter(last, lane, random.below(3) as i8);
                    last += 1;
                    continue;
                }
            }
            if random.below(20) == 0 && !world.requests.is_empty() {
                let all = world.find(|_| true);
                world.requests.remove(&all[random.below(all.len())]);
                continue;
            }
            let Some(next) = world.next_at() else {
                assert!(world.requests.is_empty(), "seed {seed}: some wait for ever");
                if last == 60 {
                    break;
                }
                continue;
            };
            world.pass_to(next);
            let due = world.find(|it| match it.at {
                At::Connecting(at) | At::Sent(at) | At::BetweenExchanges(at) => at <= next,
                At::Asks | At::Timer(_) | At::Asleep => false,
            });
            for number in due {
                let at = match world.requests[&number].at {
                    At::Connecting(_) if random.below(8) == 0 => {
                        // It cannot connect, and is retried.
                        At::BetweenExchanges(next + random.below(300) as u64 * MS)
                    }
                    At::Connecting(_) => {
                        world.with(number, |place, at| place.on_sent(at));
                        // The lane's window is the longer one; both have a slack of a tenth.
                        let way = random.below(20) as u64 * MS;
                        arrived.push((next + way, world.requests[&number].lane));
                        At::Sent(next + way + random.below(400) as u64 * MS)
                    }
                    At::Sent(_) => {
                        world.with(number, |place, at| place.on_answered(at));
                        match random.below(6) {
                            0 => At::BetweenExchanges(next + random.below(300) as u64 * MS),
                            1 => {
                                let wait = random.below(400) as u64 * MS;
                                let hold = Duration::from_micros(wait);
                                world.with(number, |place, at| place.hold(hold, at));
                                if let Some(lane) = world.requests[&number].lane {
                                    let until = held.entry(lane).or_default();
                                    *until = (*until).max(next + wait);
                                }
                                At::BetweenExchanges(next + wait)
                            }
                            _ => {
                                world.requests.remove(&number);
                                continue;
                            }
                        }
                    }
                    At::BetweenExchanges(_) => At::Asks,
                    at => at,
                };
                world.requests.get_mut(&number).unwrap().at = at;
            }
            for lane in 0..4 {
                let of_lane = |it: &Req| it.lane == Some(lane) && it.has_begun;
                let running = world.find(of_lane).len();
                assert!(places.is_none_or(|most| running <= most), "seed {seed}");
            }
        }
        arrived.sort_unstable();
        let check = |rate: Rate, arrived: &[u64]| {
            let (most, window) = (rate.most as usize, rate.window.as_micros() as u64);
            for some in arrived.windows(most + 1) {
                assert!(some[most] - some[0] > window, "seed {seed}: {some:?}");
            }
        };
        if has(1) {
            let all: Vec<_> = arrived.iter().map(|(at, _)| *at).collect();
            check(rate, &all);
        }
        if has(2) {
            for lane in 0..4 {
                let its = arrived.iter().filter(|(_, of)| *of == Some(lane));
                let its: Vec<_> = its.map(|(at, _)| *at).collect();
                check(lane_rate, &its);
            }
        }
        let state = world.pacing.state();
        assert_eq!(state.waiting, 0);
        assert!(state.lanes.iter().all(|(_, lane)| {
            lane.members == 0 && lane.running == 0 && lane.waiting.is_empty()
        }));
    }
}
