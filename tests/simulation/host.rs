//! One run: the host decides when to make turns, and checks the invariants between them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use httpstream::sim::{Closed, Network, Random};
use httpstream::{Engine, Error, Next, Sim, Stats, Turn, within_call};

use crate::coverage::Coverage;
use crate::lanes::LANES;
use crate::neighbor::Neighbor;
use crate::plan::{MOST_REQUESTS, MS, Plan, SECOND, SERVED};
use crate::probe::{Planned, Probe, lose, of_part, part_of, start};
use crate::server::{nonce_in, step_in};
use crate::sessions::{Journal, Login, logins};
use crate::watching::{Habit, Watching};
use crate::world::{
    Body, Expectation, Host, KEYS, Part, Shared, Span, Stage, Terms, World, call_due, ceil_ms,
    check,
};

/// The maximum number of turns at one instant.
const SPIN: usize = 20_000;

pub(crate) struct Report {
    pub(crate) fingerprint: (u64, u64),
    pub(crate) coverage: Coverage,
    pub(crate) wrong: Vec<String>,
}

/// The length of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Small,
    Full,
}

struct Run {
    engine: Engine<Host, Sim>,
    watching: Watching,
    /// An edge or a deadline has been reported, and the host has not finished turning since.
    told: bool,
    host: Host,
    /// It is turned whenever the engine is.
    neighbor: Option<Neighbor>,
    world: Shared,
    network: Network,
    /// The host's own source of randomness; the world has another.
    random: Random,
    benign: bool,
    max_connections: usize,
    /// Some origin has several addresses. Their sockets share the token of their link, so an event
    /// for one may be attributed to the next. The result is one needless call, which is harmless.
    has_alternatives: bool,
    most_open: usize,
}

pub(crate) fn run(seed: u64, verbose: bool) -> Report {
    run_as(seed, Watching::Level, Scope::Full, verbose)
}

pub(crate) fn run_as(seed: u64, watching: Watching, scope: Scope, verbose: bool) -> Report {
    let mut random = Random::new(seed);
    let network = Network::new(random.next_u64());
    let mut plan = Plan::draw(&mut random);
    if scope == Scope::Small {
        plan.shorten(&mut random);
    }
    let (benign, steps) = (plan.benign, plan.steps);
    let world = Rc::new(RefCell::new(World {
        random: random.fork(),
        plan,
        network: network.clone(),
        base: network.now(),
        chains: Vec::new(),
        by_id: HashMap::new(),
        wishes: Vec::new(),
        answers: Vec::new(),
        coded: HashMap::new(),
        logins: Vec::new(),
        default: None,
        journal: Journal::default(),
        stock: Vec::new(),
        digests: HashSet::new(),
        arrived: HashSet::new(),
        coverage: Coverage::default(),
        wrong: Vec::new(),
        submitter: None,
        alive: None,
        draining: false,
        winding_down: false,
        stop_asked: Some(false),
        calls: 0,
        replies: 0,
        spent: (Duration::ZERO, Duration::ZERO),
        submitted: 0,
        timed_out: Vec::new(),
        late: Duration::ZERO,
        verbose,
        log: 0,
    }));
    let (config, neighbors) = {
        let mut borrowed = world.borrow_mut();
        let plan = &mut borrowed.plan;
        plan.furnish(&network, &mut random, &world);
        let journal = borrowed.journal.clone();
        borrowed.logins = logins(&mut random, &borrowed.plan, &journal);
        let mut notes = journal.notes();
        notes.ended = vec![0; borrowed.logins.len()];
        (notes.base, notes.verbose) = (Some(borrowed.base), verbose);
        drop(notes);
        if !borrowed.logins.is_empty() && random.chance(300) {
            borrowed.default = Some(random.below(borrowed.logins.len()));
        }
        let plan = &borrowed.plan;
        if verbose {
            eprintln!("{plan:#?}");
            for login in &borrowed.logins {
                eprintln!("{:#?}", login.rules);
            }
        }
        let mut config = plan.config(&mut random);
        let default = borrowed.default.map(|number| &borrowed.logins[number]);
        config.policy = default.map(|login| (&login.session).into());
        let shares = |login: &Login| login.rules.lanes.is_some() || login.rules.retry.is_some();
        let neighbors = borrowed.logins.iter().any(shares) && random.chance(350);
        let neighbors = neighbors.then(|| {
            let mut its = plan.config(&mut random);
            its.policy = config.policy.clone();
            its
        });
        match watching {
            Watching::Level => {}
            Watching::OneEvent => config.turn_events = 1,
            // Often leaves more in the poll than one turn takes.
            Watching::Edge(_) => config.turn_events = config.turn_events.min(4),
        }
        (config, neighbors)
    };
    if verbose {
        eprintln!("{config:#?} {neighbors:#?}");
    }
    let max_connections = config.max_connections;
    let has_alternatives = world
        .borrow()
        .plan
        .origins
        .iter()
        .any(|origin| origin.has_alternatives());
    let engine = Engine::on_network(&network, config).expect("the configuration is valid");
    let submitter = engine.submitter();
    world.borrow_mut().alive = seed.is_multiple_of(2).then(|| submitter.keep_alive());
    world.borrow_mut().submitter = Some(submitter);
    let part = || {
        let world = world.clone();
        Some(Part { world })
    };
    let host = Host {
        world: world.clone(),
        parts: (0..4).map(|_| part()).collect(),
    };
    let neighbor = neighbors.map(|config| Neighbor::new(&network, config, world.clone()));
    let mut run = Run {
        engine,
        watching,
        told: false,
        host,
        neighbor,
        world,
        network,
        random,
        benign,
        max_connections,
        has_alternatives,
        most_open: 0,
    };
    for _ in 0..steps {
        run.step();
        if !run.world.borrow().wrong.is_empty() {
            break;
        }
    }
    run.wind_down();
    run.end()
}

impl Run {
    fn hit(&self, group: &'static str, thing: &'static str) {
        self.world.borrow_mut().coverage.hit(group, thing);
    }

    fn now(&self) -> Duration {
        self.network.elapsed()
    }

    /// Returns whether the next deadline of an engine has passed.
    fn is_past_deadline(&self) -> bool {
        let deadline = self.next_deadline();
        deadline.is_some_and(|deadline| deadline <= self.network.now())
    }

    /// Returns the next deadline of the engine and its neighbor.
    fn next_deadline(&self) -> Option<Instant> {
        let its = self
            .neighbor
            .as_ref()
            .and_then(|it| it.engine.next_deadline());
        let own = self.engine.next_deadline();
        its.into_iter().chain(own).min()
    }

    /// Returns whether the engine's interface indicates that a turn is due.
    fn is_due(&self) -> bool {
        self.is_past_deadline() || self.network.has_events()
    }

    /// Returns whether the host is notified of the engine's poll.
    fn hears(&mut self) -> bool {
        match self.watching {
            Watching::Level | Watching::OneEvent => self.network.has_events(),
            Watching::Edge(habit) => {
                let heard = self.network.take_edge()
                    && !(habit == Habit::Overhears && self.random.chance(200));
                self.told |= heard;
                self.told
            }
        }
    }

    /// Returns whether the host has been notified that a turn is due.
    fn is_told(&mut self) -> bool {
        self.hears() || self.is_past_deadline()
    }

    fn step(&mut self) {
        if self.random.chance(300) {
            self.wake();
        }
        match self.random.below(100) {
            0..25 => self.submit(),
            25..30 => self.order(),
            30..34 => self.cancel(),
            34..40 => self.resume(),
            40..42 => {
                self.hit("host", "close idle");
                self.engine.close_idle();
            }
            42..46 => self.meddle(),
            46 => self.end_session(),
            48 if self.neighbor.is_some() && self.random.chance(200) => {
                self.hit("host", "neighbor gone");
                self.neighbor = None;
            }
            47 => {
                let part = self.random.below(4);
                lose(&mut self.host, part);
            }
            49..51 => self.drain(),
            51..54 => self.advance(),
            54..62 => {
                // A single turn, whether due or not.
                let due = self.is_due();
                self.hit("turn", if due { "in time" } else { "early" });
                self.turn();
            }
            62..70 => {
                let most = *self.random.pick(&[MS, 50 * MS, 5 * SECOND]);
                let time = self.random.duration(most);
                if self.benign {
                    self.settle();
                }
                if self.benign && self.watching == Watching::OneEvent {
                    // If it had to wait for further turns, data that arrived in time would be
                    // overtaken by a deadline.
                    self.pass(time);
                } else {
                    self.network.sleep(time);
                    self.world.borrow_mut().late += time;
                }
                if self.is_due() {
                    self.hit("turn", "late");
                }
                if self.random.chance(400) {
                    // No turn has seen what has arrived in the meantime.
                    self.hit("host", "submit before a late turn");
                    self.submit();
                }
                self.settle();
            }
            _ => {
                let most = *self.random.pick(&[MS, 100 * MS, 3 * SECOND, 30 * SECOND]);
                let time = self.random.duration(most);
                self.pass(time);
            }
        }
    }

    /// Ends a session, from this thread or another one.
    fn end_session(&mut self) {
        let mut world = self.world.borrow_mut();
        if world.logins.is_empty() {
            return;
        }
        let number = self.random.below(world.logins.len());
        let session = world.logins[number].session.clone();
        let from = match self.random.below(3) {
            0 => {
                self.engine.end(&session);
                "host"
            }
            1 if world.submitter.is_some() => {
                let submitter = world.submitter.as_ref().expect("it is there");
                submitter.end(&session).expect("the engine exists");
                "submitter"
            }
            _ => {
                let ending = std::thread::spawn(move || session.end());
                ending.join().expect("ending a session does not panic");
                "thread"
            }
        };
        world.on_end(number, None, from);
    }

    /// Wakes the policies and sources that wait.
    fn wake(&self) {
        let wakers = std::mem::take(&mut self.world.borrow().journal.notes().wakers);
        for waker in wakers {
            waker.wake();
        }
    }

    fn new_chain(
        &mut self,
        part: Option<usize>,
        delay: Option<Duration>,
    ) -> (usize, httpstream::Request) {
        let now = self.now();
        let stage = match delay {
            None => Stage::Asked(Span::at(now)),
            Some(delay) => Stage::Delayed(Span::at(now.saturating_add(delay))),
        };
        self.world.borrow_mut().new_chain(part, stage)
    }

    fn submit(&mut self) {
        for _ in 0..self.random.between(1, 5) {
            if self.world.borrow().plan.requests == 0 {
                return;
            }
            if let Some(neighbor) = &mut self.neighbor
                && self.random.chance(300)
            {
                neighbor.submit();
                continue;
            }
            let part = self.random.chance(400).then(|| self.random.below(4));
            let part = part.filter(|part| self.host.parts[*part].is_some());
            let delay = self
                .random
                .chance(200)
                .then(|| self.world.borrow_mut().delay());
            if self.random.chance(150) {
                self.call(part, delay);
                continue;
            }
            let delay = delay.filter(|_| part.is_none());
            let (chain, request) = self.new_chain(part, delay);
            let probe = Probe::new(chain);
            let id = match (delay, part) {
                (Some(delay), _) => {
                    self.hit("submit from", "host after");
                    let next = self.engine.send(request).after(delay);
                    let terms = self.terms(chain);
                    let next = terms.apply(next.read_by(probe.into_closure()));
                    self.engine.start(next)
                }
                (None, None) if self.random.chance(200) => {
                    let terms = self.terms(chain);
                    let next = terms.apply(self.engine.send(request));
                    self.engine.start(next.read_to(probe))
                }
                (None, Some(part)) => self.engine.submit_to(request, of_part(chain, part)),
                (None, None) => {
                    self.hit("submit from", "host");
                    self.engine.submit_to(request, probe)
                }
            };
            self.world.borrow_mut().name(chain, id);
        }
    }

    /// Returns the terms on which a chain starts now.
    fn terms(&mut self, chain: usize) -> Terms {
        let mut world = self.world.borrow_mut();
        let terms = world.terms();
        world.on_terms(chain, terms, "host");
        terms
    }

    /// Starts a chain that begins with a call.
    fn call(&mut self, part: Option<usize>, delay: Option<Duration>) {
        let asked = Span::at(self.now());
        let due = call_due(asked, delay.unwrap_or_default());
        let (chain, request) = self.world.borrow_mut().new_call(part, Stage::Calling(due));
        let name = match (part, delay) {
            (Some(_), _) => "host over a part",
            (None, Some(_)) => "host after",
            (None, None) => "host",
        };
        self.hit("call from", name);
        let after = delay.unwrap_or_default();
        let session = {
            let mut world = self.world.borrow_mut();
            let count = world.logins.len();
            let number = (count > 0 && self.random.chance(400)).then(|| self.random.below(count));
            let ended = number.map(|number| (number, world.logins[number].ended));
            world.chains[chain].wait_mark = ended;
            number.map(|number| world.logins[number].session.clone())
        };
        let marked = |call: Next<Host>| match &session {
            Some(session) => call.session(session),
            None => call,
        };
        let id = match (part, delay) {
            (Some(part), _) => {
                let call = within_call(part_of(part), start(chain, request));
                let terms = self.terms(chain);
                let call = terms.apply(Next::call(call).after(after));
                self.engine.start(marked(call))
            }
            (None, None) if session.is_none() => self.engine.call(start(chain, request)),
            (None, _) => {
                let terms = self.terms(chain);
                let call = marked(Next::call(start(chain, request)));
                self.engine.start(terms.apply(call.after(after)))
            }
        };
        self.world.borrow_mut().name(chain, id);
    }

    /// Issues an order through the submitter, as another thread would.
    fn order(&mut self) {
        let now = self.now();
        let mut world = self.world.borrow_mut();
        let Some(submitter) = world.submitter.clone() else {
            return;
        };
        match self.random.below(4) {
            0 | 1 if world.plan.requests > 0 => {
                let delay = self.random.chance(400).then(|| world.delay());
                let since = now;
                let after = delay.unwrap_or_default();
                let stage = Stage::Ordered {
                    delay: after,
                    since,
                };
                if self.random.chance(300) {
                    let (chain, request) = world.new_call(None, stage);
                    let id = match delay {
                        None => submitter.call(start(chain, request)),
                        Some(delay) => submitter.call_after(delay, start(chain, request)),
                    };
                    world.coverage.hit("call from", "submitter");
                    world.name(chain, id.expect("the engine exists"));
                    return;
                }
                let (chain, request) = world.new_chain(None, stage);
                let probe = Probe::new(chain);
                let id = match delay {
                    None => submitter.submit_to(request, probe).ok(),
                    Some(delay) => {
                        let probe = probe.into_closure();
                        submitter.submit_after(delay, request, probe).ok()
                    }
                };
                let name = if delay.is_some() {
                    "submitter after"
                } else {
                    "submitter"
                };
                world.coverage.hit("submit from", name);
                world.name(chain, id.expect("the engine exists"));
            }
            2 => {
                if let Some(chain) = world.any_chain()
                    && let Some(id) = world.chains[chain].id
                {
                    world.coverage.hit("cancel from", "submitter");
                    world.chains[chain].cancel_ordered = true;
                    world.tell(|| format!("chain {chain}: cancel ordered"));
                    submitter.cancel(id).expect("the engine exists");
                }
            }
            _ => {
                if let Some(chain) = world.any_paused()
                    && let Some(id) = world.chains[chain].id
                {
                    world.coverage.hit("resume from", "submitter");
                    world.chains[chain].resumed = true;
                    world.chains[chain].resume_ordered = true;
                    world.tell(|| format!("chain {chain}: resume ordered"));
                    submitter.resume(id).expect("the engine exists");
                }
            }
        }
    }

    fn cancel(&mut self) {
        let mut world = self.world.borrow_mut();
        if self.random.chance(250) {
            let key = self.random.below(KEYS.len());
            let said = self.engine.cancel_key(KEYS[key]);
            world.coverage.hit_if(said, "key canceled from", "host");
            return world.on_cancel_key(key, said);
        }
        if let Some(chain) = world.any_chain()
            && let Some(id) = world.chains[chain].id
        {
            let said = self.engine.cancel(id);
            world.coverage.hit_if(said, "cancel from", "host");
            world.on_cancel(chain, said);
        }
    }

    fn resume(&mut self) {
        let mut world = self.world.borrow_mut();
        let paused = world.any_paused();
        let chain = paused.or_else(|| world.any_chain());
        if let Some(chain) = chain
            && let Some(id) = world.chains[chain].id
        {
            let said = self.engine.resume(id);
            world.coverage.hit_if(said, "resume from", "host");
            world.on_resume(chain, said);
        }
    }

    /// Interferes with a connection from outside.
    fn meddle(&mut self) {
        let connections = self.network.connections();
        if self.benign || connections.is_empty() {
            return;
        }
        if self.engine.stats().in_flight == 0 && self.random.chance(500) {
            // With nothing in flight, the bytes cannot be taken for part of an answer.
            self.hit("host", "push");
            self.network.push(connections[0], "\0\0");
            return;
        }
        let connection = *self.random.pick(&connections);
        match self.random.below(3) {
            0 => {
                self.hit("host", "reset");
                self.network.reset(connection);
            }
            // If the close may delimit a body, the body would seem to be complete.
            1 if !self.may_end_a_body() => {
                self.hit("host", "close");
                self.network.close(connection);
            }
            1 | 2 => {
                self.network.close_idle_peers();
            }
            _ => {}
        }
    }

    fn may_end_a_body(&self) -> bool {
        let world = self.world.borrow();
        world.answers.iter().any(|answered| {
            let wish = &world.wishes[answered.nonce];
            let body = wish.step(answered.step).script.body;
            matches!(body, Body::UntilClose | Body::Http10)
        })
    }

    /// Calls the engine, and catches the intentional panics of readbacks. Returns `None` after one.
    fn guarded<R>(
        &mut self,
        call: impl FnOnce(&mut Engine<Host, Sim>, &mut Host) -> Result<R, Error>,
    ) -> Option<R> {
        let Self { engine, host, .. } = self;
        let result = catch_unwind(AssertUnwindSafe(|| call(engine, host)));
        match result {
            Ok(result) => Some(result.expect("the simulated poll never fails")),
            Err(panic) if panic.is::<Planned>() => {
                self.hit("turn", "after a panic");
                None
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Makes one turn, and checks what has to hold before and after it.
    fn turn(&mut self) -> Option<Turn> {
        let its_turn = self.neighbor.as_mut().map(Neighbor::turn);
        let its_turn = its_turn.map(|turn| turn.expect("the simulated poll never fails"));
        let due = self.is_due();
        let turn_at = self.now();
        let spurious = self.network.struck(httpstream::sim::Fault::Spurious);
        let before = self.standing();
        let turn = self.guarded(|engine, host| engine.turn(host));
        let after = self.standing();
        self.most_open = self.most_open.max(self.network.open_fds());
        let made_up = self.network.struck(httpstream::sim::Fault::Spurious) > spurious;
        let mut world = self.world.borrow_mut();
        world.spent.0 = Duration::ZERO;
        world.tell(|| format!("turn, due {due}: {turn:?}"));
        // While the addresses of a link race, it has a socket for each. A name here has at most
        // five.
        let most = |engine: &Stats, most: usize| most + 4 * engine.links_dialing;
        let its = self.neighbor.as_ref();
        let its = its.map_or(0, |it| most(&it.engine.stats(), it.max_connections));
        let most = its + most(&self.engine.stats(), self.max_connections);
        let open = self.network.open_fds();
        check!(
            world,
            open <= most,
            "{open} sockets are open, the maximum is {most}"
        );
        if !due {
            // After a spurious event, a send may find room for a byte that the poll did not
            // consider worth reporting.
            check!(
                world,
                before == after || made_up,
                "a turn that was not due did something: {before:?} {after:?}"
            );
            let answered = turn.is_none_or(|turn| turn.answered > 0);
            check!(
                world,
                !answered,
                "a turn that was not due delivered an answer: {turn:?}"
            );
        }
        if let Watching::Edge(habit) = self.watching {
            self.told =
                habit.goes_on(turn) || its_turn.is_some_and(|turn| habit.goes_on(Some(turn)));
        }
        if let Some(turn) = turn {
            // After a panic, the stop is reported by the next turn.
            let asked = world.stop_asked.replace(false);
            let as_asked = asked.is_none_or(|asked| asked == turn.stopped);
            check!(
                world,
                as_asked,
                "turn reports stopped {}, requested {asked:?}",
                turn.stopped
            );
            world.coverage.hit_if(turn.stopped, "turn", "stopped");
            world.coverage.hit_if(turn.more, "turn", "more");
            let next = self.engine.next_deadline().map(|at| world.since_base(at));
            let late = next.is_some_and(|next| next <= turn_at);
            check!(
                world,
                turn.more || !late,
                "the turn reports nothing more to do, but a turn has been due since {next:?}"
            );
        }
        turn
    }

    /// Returns everything that a turn may change, except the numbers of turns and of their waits.
    fn standing(&self) -> (Stats, usize, u64, u64) {
        let mut stats = self.engine.stats();
        let socket_calls = match self.has_alternatives {
            true => 0,
            false => self.network.system_calls().wrapping_sub(stats.turns),
        };
        (stats.turns, stats.wakeups) = (0, 0);
        let calls = self.world.borrow().calls;
        (stats, self.engine.pending(), socket_calls, calls)
    }

    /// Makes turns until none is due.
    fn settle(&mut self) {
        for turns in 0.. {
            if !self.is_told() {
                break;
            }
            if turns > 0 && self.watching == Watching::OneEvent && self.random.chance(200) {
                self.network.sleep(self.random.duration(MS / 5));
            }
            if turns > 0 {
                self.hit("turn", "repeated");
            }
            self.turn();
            if turns > SPIN || self.world.borrow().wrong.len() > 3 {
                let mut world = self.world.borrow_mut();
                check!(
                    world,
                    turns <= SPIN,
                    "still due after {turns} turns at one instant"
                );
                return;
            }
        }
        let lost = self.is_due() && !self.is_told();
        check!(
            self.world.borrow_mut(),
            !lost,
            "a turn is due, but the host is not notified"
        );
        self.check_settled();
        if self.random.chance(100) {
            self.turn();
        }
    }

    /// Checks what has to hold when the engine has done everything it can do at this time.
    fn check_settled(&mut self) {
        let now = self.now();
        let stats = self.engine.stats();
        let pending = self.engine.pending();
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let (mut delayed_least, mut delayed_most) = (0, 0);
        let (mut pending_least, mut pending_most) = (0, 0);
        let mut wrong = Vec::new();
        let over: Vec<bool> = (0..world.chains.len())
            .map(|chain| world.is_ended(chain))
            .collect();
        for (number, chain) in world.chains.iter_mut().enumerate() {
            if chain.is_over() {
                continue;
            }
            if over[number] {
                // Calls that have not been made end without notice.
                if !chain.is_fresh_call && !chain.part_gone {
                    wrong.push(format!(
                        "chain {number}: its session was ended, and its readback was not told"
                    ));
                }
                chain.stage = Stage::Over;
                continue;
            }
            chain.resume_ordered = false;
            if chain.is_past_deadline(now) {
                // Calls that have not been made end without notice.
                let is_silent = chain.is_fresh_call || chain.part_gone;
                if !is_silent {
                    wrong.push(format!(
                        "chain {number} outlives its deadline: {:?}",
                        chain.deadline
                    ));
                }
                world.coverage.hit_if(is_silent, "chain timeout", "silent");
                chain.stage = Stage::Over;
                continue;
            }
            pending_most += 1;
            pending_least += usize::from(!chain.may_be_gone());
            if chain.cancelled && !chain.part_gone {
                wrong.push(format!(
                    "chain {number} is canceled, and its readback was not told"
                ));
            }
            if chain.cancelled {
                // There is no readback left to tell.
                chain.stage = Stage::Over;
                pending_most -= 1;
                continue;
            }
            if let Stage::Ordered { delay, since } = chain.stage {
                // The engine has received it by now, since an order makes a turn due.
                let heard = Span {
                    from: since,
                    to: now,
                };
                chain.stage = match delay {
                    delay if chain.is_fresh_call => Stage::Calling(call_due(heard, delay)),
                    Duration::ZERO => Stage::Asked(heard),
                    delay => Stage::Delayed(heard.plus(delay)),
                };
                if chain.cancel_ordered {
                    // It may have been canceled before the engine received it.
                    delayed_most += 1;
                    continue;
                }
            }
            match chain.stage {
                Stage::Delayed(due) if ceil_ms(due.to) > now => {
                    delayed_most += 1;
                    delayed_least += usize::from(ceil_ms(due.from) > now && !chain.part_gone);
                }
                Stage::Delayed(due) => {
                    let (from, to) = (due.from, now);
                    chain.stage = Stage::Asked(Span { from, to });
                    chain.key = None;
                }
                Stage::Calling(due) if ceil_ms(due.to) > now => {
                    let here = ceil_ms(due.from) > now && !chain.may_be_gone();
                    delayed_most += 1;
                    delayed_least += usize::from(here);
                }
                Stage::Calling(due) if !chain.may_be_gone() => {
                    wrong.push(format!("chain {number} should have continued at {due:?}"));
                }
                _ => {}
            }
            if let Stage::Asked(start) = chain.stage
                && let Some(total) = world.wishes[chain.nonce].timeouts.total
            {
                let due = ceil_ms(start.to) + ceil_ms(total).max(MS);
                if due <= now && !chain.part_gone {
                    wrong.push(format!(
                        "chain {number}, begun {start:?}, is late: its total deadline passed at {due:?}"
                    ));
                }
            }
        }
        for why in wrong {
            world.complain(why);
        }
        world.check_lanes(now);
        let delayed = stats.delayed;
        let fits = (delayed_least..=delayed_most).contains(&delayed);
        check!(
            world,
            fits,
            "{delayed} chains are delayed, expected {delayed_least} to {delayed_most}"
        );
        let fits = (pending_least..=pending_most).contains(&pending);
        check!(
            world,
            fits,
            "{pending} chains are pending, expected {pending_least} to {pending_most}"
        );
        let coverage = &mut world.coverage;
        coverage.hit_if(stats.links_dialing > 0, "state", "dialing");
        coverage.hit_if(stats.links_idle > 0, "state", "idle");
        coverage.hit_if(stats.queued > 0, "state", "queued");
        coverage.hit_if(stats.delayed > 0, "state", "delayed");
        coverage.hit_if(stats.in_flight > 0, "state", "in flight");
        coverage.hit_if(stats.paused > 0, "state", "paused");
    }

    /// Lets time pass as a well-behaved host does: it makes a turn whenever one is due, and no
    /// other.
    fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        loop {
            self.settle();
            if self.now() >= end || !self.world.borrow().wrong.is_empty() {
                return;
            }
            self.hit("turn", "in time");
            self.wait(end);
        }
    }

    /// Sleeps until a turn is due, at most until `end`.
    fn wait(&mut self, end: Duration) {
        let base = self.world.borrow().base;
        let deadline = self
            .next_deadline()
            .map(|at| at.saturating_duration_since(base));
        let until = deadline.map_or(end, |deadline| deadline.min(end));
        while !self.hears() && self.now() < until {
            let next = self
                .network
                .next_event_at()
                .map(|at| at.saturating_duration_since(base));
            let next = next.map_or(until, |next| next.min(until));
            self.network.sleep(next.saturating_sub(self.now()));
        }
    }

    fn drain(&mut self) {
        if self.random.chance(600) {
            return;
        }
        let within = self.random.duration(40 * SECOND);
        self.hit("host", "drain");
        let outbox = self.world.borrow().waiting();
        self.world.borrow_mut().draining = true;
        let cancelled = self.guarded(|engine, host| engine.drain(host, within));
        {
            let mut world = self.world.borrow_mut();
            world.draining = false;
            let unheard = cancelled.is_none();
            for chain in &mut world.chains {
                // After a drain that was cut short by a panic, chains may or may not be canceled.
                chain.cancel_ordered |= unheard;
            }
            world.tell(|| format!("drained within {within:?}: {cancelled:?}"));
            let pending = self.engine.pending();
            if let Some(cancelled) = cancelled {
                check!(
                    world,
                    pending == 0,
                    "{pending} chains are left after a drain"
                );
                world.coverage.hit("turn", "in drain");
                world
                    .coverage
                    .hit_if(cancelled > 0, "host", "drain that cancels");
                world.coverage.hit_if(cancelled < outbox, "lane", "drained");
                let world = &mut *world;
                for (number, chain) in world.chains.iter_mut().enumerate() {
                    // Chains of a part that no longer exists end without notice. Orders may still
                    // be queued at the submitter.
                    let is_ordered = matches!(chain.stage, Stage::Ordered { .. });
                    if chain.part_gone || chain.is_fresh_call && !is_ordered {
                        chain.stage = Stage::Over;
                    }
                    chain.cancel_ordered |= chain.is_fresh_call;
                    if !chain.is_over() && !matches!(chain.stage, Stage::Ordered { .. }) {
                        world.wrong.push(format!(
                            "chain {number} was drained, and its readback was not told"
                        ));
                    }
                }
            }
        }
        self.forget_stop();
        self.settle();
    }

    /// After several turns in one call, it is not known which of them saw a `stop`.
    fn forget_stop(&mut self) {
        self.world.borrow_mut().stop_asked = None;
    }

    fn advance(&mut self) {
        let most = *self.random.pick(&[50 * MS, SECOND, 20 * SECOND]);
        let time = self.random.duration(most);
        self.hit("host", "advance");
        self.guarded(|engine, host| engine.advance(host, time));
        self.forget_stop();
        self.settle();
    }

    /// Starts nothing new, and lets everything come to its end.
    fn wind_down(&mut self) {
        self.world.borrow_mut().winding_down = true;
        if self.random.chance(200) {
            self.world.borrow_mut().alive = None;
            self.world.borrow_mut().submitter = None;
            self.hit("host", "submitter gone");
        }
        for round in 0..200 {
            self.wake();
            self.settle();
            let its = self.neighbor.as_ref().map_or(0, |it| it.engine.pending());
            if self.engine.pending() + its == 0 || !self.world.borrow().wrong.is_empty() {
                break;
            }
            self.check_stuck();
            while let Some(chain) = self.paused_one() {
                let id = self.world.borrow().chains[chain].id;
                let said = id.is_some_and(|id| self.engine.resume(id));
                self.world.borrow_mut().on_resume(chain, said);
                self.world.borrow_mut().chains[chain].resumed = true;
            }
            if round > 100 {
                self.cancel_all();
            }
            self.pass(SECOND * if round < 50 { 1 } else { 20 });
        }
        if self.random.chance(100) && self.world.borrow().submitter.is_none() {
            self.hit("host", "run");
            self.hit("turn", "in run");
            self.guarded(|engine, host| engine.run(host));
        }
    }

    fn paused_one(&self) -> Option<usize> {
        let world = self.world.borrow();
        (0..world.chains.len()).find(|chain| world.chains[*chain].waits_for_resume())
    }

    /// Checks that no request waits in its lane if nothing is left to happen.
    fn check_stuck(&mut self) {
        if self.next_deadline().is_some() || self.network.next_event_at().is_some() {
            return;
        }
        let mut world = self.world.borrow_mut();
        // With a rate of the session, a request in another lane may keep them waiting.
        let has_rate = |login: &&Login| {
            let lanes = login.rules.lanes.as_ref();
            lanes.is_some_and(|lanes| lanes.rate.is_some())
        };
        let logins = world.logins.iter().filter(|login| !has_rate(login));
        let lanes = logins.flat_map(|login| {
            let lane = |name| (login.rules.number, name, login.session.lane(name));
            LANES.map(lane)
        });
        let stuck: Vec<_> = lanes
            .filter(|(_, _, lane)| lane.waiting > 0 && lane.running == 0)
            .collect();
        check!(
            world,
            stuck.is_empty(),
            "nothing is left to happen, but requests wait: {stuck:?}"
        );
    }

    fn cancel_all(&mut self) {
        if let Some(neighbor) = &mut self.neighbor {
            neighbor.cancel_all();
        }
        let mut world = self.world.borrow_mut();
        for chain in 0..world.chains.len() {
            if let Some(id) = world.chains[chain].id
                && !world.chains[chain].is_over()
                && !world.chains[chain].cancelled
            {
                let said = self.engine.cancel(id);
                world.on_cancel(chain, said);
            }
        }
    }

    /// Everything has been answered; checks that nothing is left.
    fn end(mut self) -> Report {
        if self.world.borrow().wrong.is_empty() {
            self.settle();
            self.engine.close_idle();
            if let Some(neighbor) = &mut self.neighbor {
                neighbor.engine.close_idle();
            }
            // Covers the last of the timers: another attempt after exhaustion.
            self.pass(200 * MS);
            self.pass(MS);
            if let Some(neighbor) = &self.neighbor {
                neighbor.check_end();
            }
            self.check_end();
            self.check_ledger();
        }
        let Self {
            engine,
            host,
            neighbor,
            world,
            network,
            ..
        } = self;
        drop(neighbor);
        let submitter = world.borrow_mut().submitter.take();
        drop(engine);
        let mut world = world.borrow_mut();
        if let Some(submitter) = submitter {
            let (chain, request) = world.new_chain(None, Stage::Over);
            let gone = submitter.submit_to(request, Probe::new(chain)).is_err();
            check!(world, gone, "a dropped engine accepted a request");
        }
        check!(
            world,
            network.open_fds() == 0,
            "the engine was dropped, but its sockets are still open"
        );
        let mut notes = std::mem::take(&mut *world.journal.notes());
        for what in std::mem::take(&mut notes.reached) {
            world.coverage.hit("policy", what);
        }
        for what in std::mem::take(&mut notes.reached_by_sources) {
            world.coverage.hit("source", what);
        }
        for mut lanes in notes
            .books
            .drain(..)
            .flatten()
            .filter_map(|books| books.lanes)
        {
            lanes.check_arrivals();
            for (group, thing) in std::mem::take(&mut lanes.log.reached) {
                world.coverage.hit(group, thing);
            }
            notes.wrong.append(&mut lanes.log.wrong);
        }
        // Dropped here, because a waker may be the last that refers to its engine.
        drop(std::mem::take(&mut notes.wakers));
        for why in notes.wrong {
            world.complain(why);
        }
        for misuse in network.misuses() {
            world.complain(format!("{misuse:?}"));
        }
        drop(host);
        world.coverage.take_faults(&network);
        let report = Report {
            fingerprint: (network.fingerprint(), world.log),
            coverage: std::mem::take(&mut world.coverage),
            wrong: std::mem::take(&mut world.wrong),
        };
        drop(world);
        // Servers and network own each other. Without this, a hundred thousand runs would not fit
        // into memory.
        for addr in SERVED {
            network.refuse(addr.parse().expect("a valid address"));
        }
        report
    }

    fn check_end(&mut self) {
        let stats = self.engine.stats();
        let (pending, deadline) = (self.engine.pending(), self.engine.next_deadline());
        let fds = self.network.open_fds();
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        check!(
            world,
            pending == 0,
            "{pending} chains are pending at the end"
        );
        for number in 0..world.chains.len() {
            let chain = &world.chains[number];
            let told = chain.is_over() || chain.may_be_gone();
            check!(
                world,
                told,
                "chain {number} never received a reply: {:?}",
                world.chains[number]
            );
        }
        let nothing = (
            stats.links_open,
            stats.in_flight,
            stats.queued,
            stats.delayed,
            stats.paused,
        );
        check!(
            world,
            nothing == (0, 0, 0, 0, 0),
            "left at the end: {stats:?}"
        );
        check!(world, fds == 0, "{fds} sockets are open at the end");
        check!(
            world,
            deadline.is_none(),
            "a timer is left at the end, for {deadline:?}"
        );
        world.check_sessions();
        let lost = world.chains.iter().any(|chain| chain.part_gone);
        let told = stats.answered + stats.failed;
        let replies = world.replies;
        // Responses that a policy replaced are counted as well.
        let is_replaced = !world.logins.is_empty() && told > replies;
        check!(
            world,
            told == replies || lost || is_replaced,
            "the engine counts {told} replies, but {replies} were received"
        );
        let submitted = world.submitted;
        check!(
            world,
            stats.submitted == submitted,
            "the engine counts {} submissions instead of {submitted}",
            stats.submitted
        );
        world
            .coverage
            .hit_if(stats.retried > 0, "stale connection", "sent again");
        let depth = world.plan.depth;
        check!(
            world,
            depth > 1 || stats.pipelined == 0,
            "{} requests were pipelined at depth 1",
            stats.pipelined
        );
        world
            .coverage
            .hit_if(stats.opened as usize > self.most_open, "state", "fd reused");
        world
            .coverage
            .hit_if(stats.turns > 0, "state", "bounded turn");
    }

    /// Checks what the servers saw: no request may have arrived more often than it was sent, except
    /// for the one retry of idempotent requests.
    fn check_ledger(&mut self) {
        let ledger = self.network.ledger();
        let mut world = self.world.borrow_mut();
        let opened: HashMap<_, _> = ledger
            .connections()
            .map(|served| (served.id, served.opened))
            .collect();
        let mut arrived = HashMap::new();
        for request in ledger.requests() {
            if let Some(nonce) = nonce_in(request.path()).filter(|n| *n < world.wishes.len()) {
                *arrived.entry((nonce, step_in(request.path()))).or_insert(0) += 1;
                let ended_at = world.wishes[nonce].ended_at;
                let opened = opened.get(&request.connection);
                check!(
                    world,
                    ended_at.is_none_or(|ended| opened.is_none_or(|opened| *opened <= ended)),
                    "nonce {nonce} arrived on a connection opened at {opened:?}, but its session was ended at {ended_at:?}"
                );
            }
        }
        // Policies knowingly send again.
        let resent = std::mem::take(&mut world.journal.notes().resent);
        for (nonce, step) in resent {
            world.wishes[nonce].order(step);
        }
        for ((nonce, step), arrived) in arrived {
            let wish = &world.wishes[nonce];
            // A server that answers 417 has refused the request, although its body may already be
            // on its way.
            let refused = wish.expect == Some(Expectation::Failed);
            let again = match wish.step(step).idempotent {
                true if world.plan.depth > 1 => MOST_REQUESTS,
                idempotent => u32::from(idempotent),
            };
            let each = 1 + again + u32::from(refused);
            let asked = if step == 0 { wish.asked } else { 0 };
            let asked = asked + wish.ordered.get(step).copied().unwrap_or(0);
            // The retries of a session whose books are not kept are not known.
            let retry = world.rules_of(nonce).filter(|rules| !rules.is_kept);
            let retry = retry.and_then(|rules| rules.retry.as_ref());
            let tries = retry.map_or(1, |rules| rules.attempts.unwrap_or(1000));
            let asked = asked * tries;
            check!(
                world,
                arrived <= asked * each,
                "nonce {nonce}, step {step}, was requested {asked} times, and arrived {arrived} times"
            );
        }
        for served in ledger.connections() {
            check!(
                world,
                served.unread == 0 || !world.timed_out.contains(&served.id),
                "connection {:?} timed out with {} bytes unread",
                served.id,
                served.unread
            );
            let how = match served.closed {
                Some((_, Closed::ByClient)) => "closed by client",
                Some((_, Closed::ResetByClient)) => "reset by client",
                Some((_, Closed::ByServer)) => "closed by server",
                Some((_, Closed::ResetByServer)) => "reset by server",
                _ => continue,
            };
            world.coverage.hit("connection", how);
        }
    }
}
