//! The readback of every chain: compares what it receives with what was sent, then acts at random.

use std::panic::resume_unwind;
use std::time::Duration;

use httpstream::{
    ChainId, Context, Error, ErrorKind, Flow, Next, Outcome, Phase, Readback, Reply, Response,
    Sent, within_to,
};

use crate::coverage;
use crate::plan::{MOST_REQUESTS, MS, SECOND};
use crate::retries::{Fate, RetryRules, is_transient};
use crate::server::{path_of, serial_of};
use crate::sessions::{Rules, place};
use crate::world::{
    Answered, Body, Chain, Coding, Expectation, Host, KEYS, Part, Reading, Shared, Span, Stage,
    Step, Terms, World, call_due, ceil_ms, check, most_within,
};

/// The payload of intentional panics. They bypass the panic hook, which would print them.
#[derive(Debug)]
pub(crate) struct Planned;

/// The readback of one chain. `number` distinguishes the readbacks of a chain, since a follow-on
/// may install another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) chain: usize,
    pub(crate) number: u32,
}

/// A state that has access to the world: the host itself, or a part of it.
pub(crate) trait State: Sized + 'static {
    fn world(&self) -> Shared;
    /// Removes a part, unless this state is a part itself.
    fn lose(&mut self, part: usize);
    /// Submits a chain, which is read by this state.
    fn submit(
        cx: &mut Context<'_, Self>,
        chain: usize,
        (delay, terms): (Option<Duration>, Terms),
        request: httpstream::Request,
    ) -> ChainId {
        let probe = Probe::new(chain);
        match delay {
            None => cx.submit_to(request, probe),
            Some(delay) => {
                let next = terms.apply(cx.send(request)).after(delay);
                cx.start(next.read_by(probe.into_closure()))
            }
        }
    }
    /// Like [`submit`](Self::submit), for a chain that begins with a call.
    fn call(
        cx: &mut Context<'_, Self>,
        chain: usize,
        (delay, terms): (Option<Duration>, Terms),
        request: httpstream::Request,
    ) -> ChainId {
        match delay {
            None => cx.call(start(chain, request)),
            Some(delay) => {
                let next = Next::call(start(chain, request)).after(delay);
                cx.start(terms.apply(next))
            }
        }
    }
}

/// Returns the call that a chain begins with.
pub(crate) fn start<T: State>(
    chain: usize,
    request: httpstream::Request,
) -> impl FnOnce(&mut T, &mut Context<'_, T>) -> Next<T> + Send + 'static {
    move |state, cx| Probe::new(chain).on_start(state, cx, request)
}

impl State for Host {
    fn world(&self) -> Shared {
        self.world.clone()
    }

    fn lose(&mut self, part: usize) {
        lose(self, part);
    }
}

impl State for Part {
    fn world(&self) -> Shared {
        self.world.clone()
    }

    fn lose(&mut self, _: usize) {}
}

/// Returns the accessor of a part of the host.
pub(crate) fn part_of(part: usize) -> impl Fn(&mut Host) -> Option<&mut Part> + Clone + 'static {
    move |host| host.parts[part].as_mut()
}

pub(crate) fn of_part(chain: usize, part: usize) -> impl Readback<Host> + 'static {
    within_to(part_of(part), Probe::new(chain))
}

/// Removes a part. Its chains end without notice.
pub(crate) fn lose(host: &mut Host, part: usize) {
    host.parts[part] = None;
    let mut world = host.world.borrow_mut();
    let world = &mut *world;
    for chain in &mut world.chains {
        if chain.part == Some(part) && !chain.is_over() && !chain.part_gone {
            chain.part_gone = true;
            let stage = match (chain.stage, chain.reading) {
                (Stage::Calling(_), _) => "calling",
                (Stage::Delayed(_) | Stage::Ordered { .. }, _) => "delayed",
                (_, Reading::NoHead) => "waiting",
                _ => "reading",
            };
            let nonce = chain.nonce;
            world.coverage.hit("part gone while", stage);
            let waits = world.journal.notes().is_in_lane(nonce);
            world.coverage.hit_if(waits, "lane", "part gone in it");
        }
    }
}

impl Probe {
    pub(crate) fn new(chain: usize) -> Self {
        let number = 0;
        Self { chain, number }
    }

    /// Converts the probe into a closure, for functions that take one.
    pub(crate) fn into_closure<T: State>(
        mut self,
    ) -> impl FnMut(&mut T, Reply<'_>, &mut Context<'_, T>) -> Next<T> + Send + 'static {
        move |state, reply, cx| self.on_reply(state, reply, cx)
    }

    /// Checks what has to hold for every callback.
    fn enter<T>(&self, world: &mut World, cx: &Context<'_, T>, call: &'static str) {
        let Self { chain, number } = *self;
        let now = world.since_base(cx.now());
        world.calls += 1;
        world.digest(chain as u64);
        world.digest(now.as_nanos() as u64);
        world.tell(|| format!("chain {chain}: {call}"));
        let known = &world.chains[chain];
        let (over, gone, id, readback) =
            (known.is_over(), known.part_gone, known.id, known.readback);
        let paused = known.paused && !known.resumed && !known.resume_ordered;
        let is_ended = world.is_ended(chain);
        let known_cancelled = known.cancelled || known.cancel_ordered || is_ended;
        let start = known.start(now);
        world
            .coverage
            .hit_if(is_ended && call == "error", "session", "ended");
        // Its response may have been on the way, but nothing else begins.
        check!(
            world,
            !is_ended || call != "call",
            "chain {chain} belongs to a session that was ended, but {call} is called"
        );
        check!(world, !over, "chain {chain} is over, but {call} is called");
        check!(
            world,
            !gone,
            "chain {chain} has lost its part, but {call} is called"
        );
        check!(
            world,
            id == Some(cx.id()),
            "chain {chain} has id {id:?}, but {call} is called for {:?}",
            cx.id()
        );
        check!(
            world,
            readback == number,
            "chain {chain} is read by readback {readback}, but {number} is called"
        );
        let early = match world.chains[chain].stage {
            Stage::Delayed(due) | Stage::Calling(due) => ceil_ms(due.from) > now,
            Stage::Ordered { delay, since } if !delay.is_zero() => {
                ceil_ms(since.saturating_add(delay)) > now
            }
            _ => false,
        };
        let is_late = world.chains[chain].is_past_deadline(now);
        check!(
            world,
            !is_late || call != "call",
            "chain {chain} is past its deadline, but {call} is called"
        );
        let cut_short = call == "error" && (known_cancelled || world.draining || is_late);
        check!(
            world,
            !early || cut_short,
            "chain {chain}: {call} is called before its delay is over"
        );
        check!(
            world,
            !paused || call == "error" || world.is_accompanied(chain),
            "chain {chain} is paused, but {call} is called"
        );
        if !over {
            let known = &mut world.chains[chain];
            known.stage = Stage::Asked(start);
            known.key = None;
            // From now on, the generation of its wait counts no longer.
            known.cancel_ordered |= is_ended && call == "error";
            if (known.resumed || known.resume_ordered) && call != "error" {
                (known.paused, known.resumed) = (false, false);
            }
        }
    }

    /// Checks the fields that identify the response, and returns the answer they name.
    fn identify(&self, world: &mut World, head: &Response<'_>) -> Option<Answered> {
        let chain = self.chain;
        let number = |name| {
            std::str::from_utf8(head.header(name)?)
                .ok()?
                .parse::<usize>()
                .ok()
        };
        let serial = number("x-serial");
        let answered = serial.and_then(|serial| world.answers.get(serial).copied());
        let known = &world.chains[chain];
        let (nonce, last) = (known.nonce, known.last_serial);
        let right = number("x-nonce") == Some(nonce) && answered.is_some_and(|a| a.nonce == nonce);
        check!(
            world,
            right,
            "chain {chain} requested {nonce}, but reads answer {serial:?} to {:?}",
            number("x-nonce")
        );
        check!(
            world,
            last < serial,
            "chain {chain} reads answer {serial:?} after {last:?}"
        );
        let status = head.status().as_u16();
        check!(
            world,
            answered.is_none_or(|a| a.status == status),
            "chain {chain} has status {status}"
        );
        let id = world.chains[chain].id;
        check!(
            world,
            id == Some(head.info().id),
            "chain {chain}: the info is of chain {:?}",
            head.info().id
        );
        let step = answered.map_or(0, |answered| answered.step);
        let (path, hops) = (head.info().url().path(), head.info().hops().len());
        check!(
            world,
            path == path_of(nonce, step) && hops == step,
            "chain {chain}: the info is of {path} after {hops} redirects, expected {step}"
        );
        // A response without a body keeps the coding of a nested policy.
        let has_coding = head.header("Content-Encoding").is_some();
        check!(
            world,
            answered.is_none_or(|it| {
                has_coding == (it.coding == Coding::Left)
                    || it.coding == Coding::None && it.len == 0
            }),
            "chain {chain}: {:?} has Content-Encoding: {has_coding}",
            answered
        );
        let is_replaced = answered.is_some_and(|answered| answered.is_replaced);
        check!(
            world,
            !is_replaced,
            "chain {chain} reads answer {serial:?}, which its session should have followed"
        );
        world
            .coverage
            .hit_if(step > 1, "session", "several redirects");
        check!(
            world,
            world.addrs_of(nonce, step).contains(&head.info().peer),
            "nonce {nonce} was answered by {}",
            head.info().peer
        );
        world.chains[chain].serial = serial;
        answered
    }
}

/// Does something unexpected now and then. May panic, with nothing borrowed.
fn mischief<T: State>(probe: &Probe, state: &mut T, cx: &mut Context<'_, T>, call: &'static str) {
    let shared = state.world();
    let mut world = shared.borrow_mut();
    let chance = world.plan.mischief;
    if world.winding_down || !world.random.chance(chance) {
        return;
    }
    if !world.logins.is_empty() && world.random.chance(150) {
        let count = world.logins.len();
        let number = world.random.below(count);
        let session = world.logins[number].session.clone();
        if world.random.chance(700) {
            cx.end(&session);
            world.on_end(number, Some(probe.chain), "context");
        } else {
            session.end();
            world.on_end(number, None, "readback");
        }
        return;
    }
    match world.random.below(16) {
        0..4 if world.plan.requests > 0 => {
            let part = world.chains[probe.chain].part;
            // The delay of what a readback submits counts from the end of the readback.
            let now = world.since_base(world.network.now());
            let delay = world.random.chance(500).then(|| world.delay());
            let terms = match delay {
                Some(_) => world.terms(),
                None => Terms::default(),
            };
            let at = Span::at(now);
            if world.random.chance(300) {
                let due = call_due(at, delay.unwrap_or_default());
                let (chain, request) = world.new_call(part, Stage::Calling(due));
                world.coverage.hit("call from", "readback");
                world.coverage.hit_if(part.is_some(), "call from", "part");
                world.on_terms(chain, terms, "readback");
                drop(world);
                let id = T::call(cx, chain, (delay, terms), request);
                shared.borrow_mut().name(chain, id);
                return;
            }
            let stage = match delay {
                None => Stage::Asked(at),
                Some(delay) => Stage::Delayed(at.plus(delay)),
            };
            let (chain, request) = world.new_chain(part, stage);
            let from = if delay.is_some() {
                "readback after"
            } else {
                "readback"
            };
            world.coverage.hit("submit from", from);
            world.coverage.hit_if(part.is_some(), "submit from", "part");
            world.on_terms(chain, terms, "readback");
            drop(world);
            let id = T::submit(cx, chain, (delay, terms), request);
            shared.borrow_mut().name(chain, id);
        }
        4 if world.random.chance(500) => {
            let key = world.random.below(KEYS.len());
            let said = cx.cancel_key(KEYS[key]);
            world.coverage.hit_if(said, "key canceled from", "readback");
            world.on_cancel_key(key, said);
        }
        4..6 => {
            if let Some(chain) = world.any_chain()
                && let Some(id) = world.chains[chain].id
            {
                let said = cx.cancel(id);
                world.coverage.hit_if(said, "cancel from", "readback");
                world.on_cancel(chain, said);
            }
        }
        6..9 => {
            let said = cx.cancel(cx.id());
            world.coverage.hit_if(said, "cancels itself in", call);
            world.on_cancel(probe.chain, said);
        }
        9..11 => {
            if let Some(chain) = world.any_paused()
                && let Some(id) = world.chains[chain].id
            {
                let said = cx.resume(id);
                world.coverage.hit_if(said, "resume from", "readback");
                world.on_resume(chain, said);
            }
        }
        11 => {
            cx.stop();
            world.stop_asked = Some(true);
        }
        12 => {
            let part = world.random.below(4);
            drop(world);
            state.lose(part);
        }
        13 => {
            let time = world.random.duration(5 * MS);
            world.spend(time);
            let network = world.network.clone();
            drop(world);
            network.sleep(time);
        }
        _ => {
            world.coverage.hit("panic in", call);
            let chain = probe.chain;
            world.tell(|| format!("chain {chain}: panics in {call}"));
            world.chains[chain].stage = Stage::Over;
            drop(world);
            resume_unwind(Box::new(Planned));
        }
    }
}

/// Sometimes takes a while before the readback returns; the network does not wait for it.
fn work<T: State>(state: &T) {
    let shared = state.world();
    let mut world = shared.borrow_mut();
    let slow = world.plan.slow;
    if world.winding_down || !world.random.chance(slow) {
        return;
    }
    let most = *world.random.pick(&[2 * MS, 500 * MS, 3 * SECOND]);
    let time = world.random.duration(most);
    world.coverage.hit("next", "after slow work");
    world.late += time;
    world.spend(time);
    let network = world.network.clone();
    drop(world);
    network.sleep(time);
}

impl<T: State> Readback<T> for Probe {
    fn on_interim(&mut self, state: &mut T, head: &Response<'_>, cx: &mut Context<'_, T>) {
        let shared = state.world();
        let mut world = shared.borrow_mut();
        self.enter(&mut world, cx, "interim");
        let informational = head.status().is_informational();
        check!(
            world,
            informational,
            "{} is no interim response",
            head.status()
        );
        let had_head = world.chains[self.chain].reading != Reading::NoHead;
        check!(
            world,
            !had_head,
            "chain {}: an interim response after the head",
            self.chain
        );
        drop(world);
        mischief(self, state, cx, "interim");
    }

    fn on_retry(
        &mut self,
        state: &mut T,
        why: Outcome<'_>,
        after: Duration,
        cx: &mut Context<'_, T>,
    ) {
        let shared = state.world();
        let mut world = shared.borrow_mut();
        self.enter(&mut world, cx, "retry");
        let (chain, nonce) = (self.chain, world.chains[self.chain].nonce);
        world.tell(|| format!("chain {chain}: retry after {after:?} of {why:?}"));
        let has_head = world.chains[chain].reading != Reading::NoHead;
        check!(
            world,
            !has_head,
            "chain {chain}: a retry although its readback has seen the head"
        );
        let is_resent = world.journal.notes().is_resent(nonce);
        if !is_resent {
            let now = world.since_base(cx.now());
            self.check_retry(&mut world, why, after, now);
        }
        drop(world);
        mischief(self, state, cx, "retry");
    }

    fn on_head(&mut self, state: &mut T, head: &Response<'_>, cx: &mut Context<'_, T>) -> Flow {
        let shared = state.world();
        let mut world = shared.borrow_mut();
        self.enter(&mut world, cx, "head");
        self.identify(&mut world, head);
        let now = world.since_base(cx.now());
        check!(
            world,
            head.body().is_empty() && head.trailers().len() == 0,
            "a head with a body"
        );
        let again = world.chains[self.chain].reading != Reading::NoHead;
        check!(world, !again, "chain {}: a second head", self.chain);
        let total = world.wishes[world.chains[self.chain].nonce].timeouts.total;
        let flow = match world.random.below(100) {
            0..45 => Flow::Buffer,
            45..75 => Flow::Stream,
            75..85 => Flow::Discard,
            85..95 if total.is_some() => Flow::Pause,
            95..97 => Flow::Abort,
            _ => Flow::Buffer,
        };
        world.coverage.hit("flow", coverage::flow(flow, true));
        let chain = self.chain;
        world.tell(|| format!("chain {chain}: {flow:?}"));
        let known = &mut world.chains[self.chain];
        known.last_seen = now;
        known.reading = match flow {
            Flow::Stream | Flow::Pause => Reading::Streamed,
            Flow::Discard => Reading::Discarded,
            _ => Reading::Buffered,
        };
        drop(world);
        mischief(self, state, cx, "head");
        shared.borrow_mut().chains[self.chain].follow_flow(flow);
        flow
    }

    fn on_data(&mut self, state: &mut T, data: &[u8], cx: &mut Context<'_, T>) -> Flow {
        let shared = state.world();
        let mut world = shared.borrow_mut();
        self.enter(&mut world, cx, "data");
        let now = world.since_base(cx.now());
        let chain = self.chain;
        let known = &mut world.chains[chain];
        known.last_seen = now;
        let (from, reading) = (known.streamed, known.reading);
        known.streamed += data.len();
        let serial = known.serial;
        check!(
            world,
            reading == Reading::Streamed,
            "chain {chain}: data although it is {reading:?}"
        );
        // A response that was held back does not stop in a pause.
        let is_due = !world.chains[chain].awaits_on_resume || world.is_accompanied(chain);
        check!(
            world,
            is_due,
            "chain {chain}: data after a pause, but no `on_resume`"
        );
        check!(world, !data.is_empty(), "chain {chain}: an empty piece");
        let truth = serial.and_then(|serial| Some((world.answers.get(serial)?, serial)));
        if let Some((_, serial)) = truth {
            let body = world.body_of(serial);
            let right = body.get(from..from + data.len()) == Some(data);
            check!(
                world,
                right,
                "chain {chain}: {} bytes at offset {from} differ from those sent",
                data.len()
            );
        }
        self.check_cap(&mut world, from + data.len(), now);
        let total = world.wishes[world.chains[chain].nonce].timeouts.total;
        let flow = match world.random.below(100) {
            0..80 => Flow::Stream,
            80..85 => Flow::Buffer,
            85..88 => Flow::Discard,
            88..97 if total.is_some() => Flow::Pause,
            97..99 => Flow::Abort,
            _ => Flow::Stream,
        };
        world.coverage.hit("flow", coverage::flow(flow, false));
        world.tell(|| format!("chain {chain}: {flow:?}"));
        if flow == Flow::Discard {
            world.chains[chain].reading = Reading::Discarded;
        }
        drop(world);
        mischief(self, state, cx, "data");
        shared.borrow_mut().chains[chain].follow_flow(flow);
        flow
    }

    fn on_resume(&mut self, state: &mut T, cx: &mut Context<'_, T>) -> Flow {
        let shared = state.world();
        let mut world = shared.borrow_mut();
        self.enter(&mut world, cx, "resume");
        let now = world.since_base(cx.now());
        let chain = self.chain;
        let known = &mut world.chains[chain];
        known.last_seen = now;
        let is_due = known.awaits_on_resume;
        check!(world, is_due, "chain {chain}: `on_resume` without a pause");
        let total = world.wishes[world.chains[chain].nonce].timeouts.total;
        let flow = match world.random.below(100) {
            0..5 if total.is_some() => Flow::Pause,
            5..7 => Flow::Abort,
            7..10 => Flow::Discard,
            _ => Flow::Stream,
        };
        world.coverage.hit("flow", coverage::flow(flow, false));
        world.tell(|| format!("chain {chain}: {flow:?}"));
        let known = &mut world.chains[chain];
        if flow == Flow::Discard {
            known.reading = Reading::Discarded;
        }
        known.follow_flow(flow);
        flow
    }

    fn on_due(&mut self, state: &mut T, cx: &mut Context<'_, T>) -> Next<T> {
        self.on_call(state, cx)
    }

    fn on_reply(&mut self, state: &mut T, reply: Reply<'_>, cx: &mut Context<'_, T>) -> Next<T> {
        let shared = state.world();
        let mut world = shared.borrow_mut();
        let call = if reply.is_ok() { "reply" } else { "error" };
        self.enter(&mut world, cx, call);
        world.replies += 1;
        let told = reply.as_ref().is_err_and(ends_chain);
        match reply {
            Ok(response) => {
                let chain = self.chain;
                let is_due = !world.chains[chain].awaits_on_resume || world.is_accompanied(chain);
                check!(
                    world,
                    is_due,
                    "chain {chain}: the end after a pause, but no `on_resume`"
                );
                self.check_response(&mut world, response);
            }
            Err(error) => self.check_error(&mut world, &error, cx),
        }
        let now = world.since_base(cx.now());
        let known = &mut world.chains[self.chain];
        known.last_serial = known.serial.or(known.last_serial);
        // The reply has been received: another request follows, or nothing.
        known.begin(if told {
            Stage::Over
        } else {
            Stage::Asked(Span::at(now))
        });
        known.answered = true;
        drop(world);
        // Done before anything is submitted, since delays count from the end of the readback.
        work(state);
        mischief(self, state, cx, call);
        let mut world = shared.borrow_mut();
        let now = world.since_base(world.network.now());
        self.next(&mut world, now, told)
    }
}

/// Returns whether the deadline of the chain as a whole has passed.
fn is_of_chain(error: &Error) -> bool {
    format!("{error:#}").contains("chain_timeout of ")
}

/// Returns whether there may have been failures of which nobody has heard: redirects and challenges
/// that were cut short.
fn may_have_failed_silently(world: &World, nonce: usize) -> bool {
    let mut answers = world.answers.iter();
    answers.any(|it| it.nonce == nonce && matches!(it.status, 300..=399 | 401))
}

/// Returns whether what the readback returns is ignored.
fn ends_chain(error: &Error) -> bool {
    error.kind() == ErrorKind::Cancelled || is_of_chain(error)
}

/// Returns how many requests wait in a lane that has refused another one.
fn lane_full(error: &Error) -> Option<usize> {
    let text = format!("{error:#}");
    let (before, _) = text.split_once(" requests wait in its lane already")?;
    before.rsplit(' ').next()?.parse().ok()
}

impl Chain {
    fn follow_flow(&mut self, flow: Flow) {
        self.paused = flow == Flow::Pause;
        self.awaits_on_resume = self.paused;
        self.was_paused |= self.paused;
        self.aborted = flow == Flow::Abort;
    }
}

impl Probe {
    /// Continues a chain that has waited without a request.
    fn on_call<T: State>(&mut self, state: &mut T, cx: &mut Context<'_, T>) -> Next<T> {
        self.on_call_made(state, cx);
        let shared = state.world();
        let mut world = shared.borrow_mut();
        let now = world.since_base(world.network.now());
        self.next(&mut world, now, false)
    }

    /// Handles the call that a chain begins with.
    fn on_start<T: State>(
        self,
        state: &mut T,
        cx: &mut Context<'_, T>,
        request: httpstream::Request,
    ) -> Next<T> {
        self.on_call_made(state, cx);
        let shared = state.world();
        let mut world = shared.borrow_mut();
        let now = world.since_base(world.network.now());
        let draining = world.draining;
        let mark = world.wishes[world.chains[self.chain].nonce].mark;
        let known = &mut world.chains[self.chain];
        known.is_fresh_call = false;
        known.mark = mark;
        if draining {
            known.stage = Stage::Over;
        }
        if !known.is_over() {
            known.begin(Stage::Asked(Span::at(now)));
        }
        Next::send(request).read_to(self)
    }

    fn on_call_made<T: State>(&self, state: &mut T, cx: &mut Context<'_, T>) {
        let shared = state.world();
        let mut world = shared.borrow_mut();
        let chain = self.chain;
        let stage = world.chains[chain].stage;
        check!(
            world,
            matches!(stage, Stage::Calling(_) | Stage::Ordered { .. }),
            "chain {chain} is called although it is {stage:?}"
        );
        self.enter(&mut world, cx, "call");
        drop(world);
        mischief(self, state, cx, "call");
    }

    /// Checks that no more of a response has been read than its cap allows. Its exchange has begun
    /// at some time since the chain asked for it.
    fn check_cap(&self, world: &mut World, read: usize, now: Duration) {
        let chain = self.chain;
        let known = &world.chains[chain];
        let rate = world.wishes[known.nonce].download;
        let begun = known.start(now).from;
        // In a pipeline, a response may be read with the end of the one before it. A decoded body
        // is longer than what was read.
        let decodes = world.rules_of(known.nonce).is_some_and(|it| it.decodes);
        let Some(rate) = rate.filter(|_| world.plan.depth == 1 && !decodes) else {
            return;
        };
        let most = most_within(rate, now - begun);
        check!(
            world,
            read as u64 <= most,
            "chain {chain}: {read} bytes at {now:?}, begun at {begun:?}, but {most} are allowed"
        );
        let is_held_back = read as u64 > most_within(rate, Duration::ZERO);
        world
            .coverage
            .hit_if(is_held_back, "speed", "capped download");
    }

    fn check_response(&self, world: &mut World, response: Response<'_>) {
        let chain = self.chain;
        let now = world.since_base(world.network.now());
        self.check_cap(world, response.body().len(), now);
        let known = &world.chains[chain];
        let wish = &world.wishes[known.nonce];
        // Bytes that arrive during a pause, or while the host is away, are read at once. So are
        // those behind a segment that was delayed.
        let is_excused = known.was_paused || world.late > Duration::ZERO || !world.plan.benign;
        let is_too_slow = wish.is_too_slow && !is_excused && !wish.is_accompanied();
        check!(
            world,
            !is_too_slow,
            "chain {chain}: a response although it was slower than its low speed"
        );
        let info = response.info();
        let (attempts, reused, timings) = (info.attempts, info.reused, info.timings);
        let answered = self.identify(world, &response);
        let known = &world.chains[chain];
        let (reading, aborted, streamed, nonce) =
            (known.reading, known.aborted, known.streamed, known.nonce);
        let (cancelled, closure) = (known.cancelled, known.is_closure);
        let (serial, stage) = (known.serial, known.stage);
        check!(
            world,
            closure || reading != Reading::NoHead,
            "chain {chain}: a response without a head"
        );
        check!(
            world,
            !aborted,
            "chain {chain}: a response although it was aborted"
        );
        check!(
            world,
            !cancelled,
            "chain {chain}: a response although it was canceled"
        );
        if let (Some(answered), Some(serial)) = (answered, serial) {
            let truth = world.body_of(serial);
            let is_passed_on = reading != Reading::Discarded;
            check!(
                world,
                answered.spoiled.is_none() || !is_passed_on,
                "chain {chain}: a response although its coding is broken: {:?}",
                answered.spoiled
            );
            match reading {
                Reading::Streamed => {
                    let whole = streamed == truth.len() && response.body().is_empty();
                    check!(
                        world,
                        whole,
                        "chain {chain}: {streamed} of {} bytes were streamed",
                        truth.len()
                    );
                }
                Reading::Discarded => check!(
                    world,
                    response.body().is_empty(),
                    "chain {chain}: a discarded body is not empty"
                ),
                _ => check!(
                    world,
                    response.body() == truth,
                    "chain {chain}: the body differs from the one sent"
                ),
            }
            if let Some((_, sum)) = response.trailers().next() {
                let right = sum == serial.to_string().as_bytes();
                check!(
                    world,
                    right,
                    "chain {chain}: the trailer of another response"
                );
            }
        }
        let wish = world.wishes[nonce].clone();
        let step = wish.step(answered.map_or(0, |answered| answered.step));
        // Each connection that breaks under a pipeline answers, fails or resends the request in
        // front, so there are at most as many of them as requests.
        let is_pipelined = world.plan.depth > 1 && step.idempotent;
        let again = match is_pipelined {
            true => MOST_REQUESTS,
            false => 1,
        };
        let most = 1 + again + u32::from(wish.expect == Some(Expectation::Failed));
        world.coverage.hit_if(
            attempts > 1 && reused,
            "pipeline",
            "sent again behind another",
        );
        // Policies count as well.
        let is_accompanied = wish.is_accompanied();
        check!(
            world,
            attempts >= 1 && (attempts <= most || is_accompanied),
            "chain {chain}: {attempts} attempts"
        );
        let refused = wish.expect == Some(Expectation::Failed);
        check!(
            world,
            attempts == 1 || !reused || refused || is_pipelined || is_accompanied,
            "chain {chain}: {attempts} attempts, the last on a reused connection"
        );
        let steps = [
            timings.resolve,
            timings.connect,
            timings.sent,
            timings.first_byte,
            timings.done,
        ];
        let taken: Vec<Duration> = steps.into_iter().flatten().collect();
        let early = step.script.early || wish.expect.is_some();
        check!(
            world,
            early || taken.is_sorted(),
            "chain {chain}: {timings:?}"
        );
        if let (Stage::Asked(start), Some(done)) = (stage, timings.done) {
            let now = world.network.elapsed();
            let slack = Duration::from_micros(1);
            let longest = now.saturating_sub(start.from) + slack;
            check!(
                world,
                done <= longest,
                "chain {chain}: done after {done:?}, although begun {start:?}"
            );
        }
        let status = response.status().as_u16();
        let meant = match step.script.body {
            Body::Garbage | Body::HugeHead | Body::ClosedAtOnce | Body::Nothing => false,
            Body::BadChunk => step.method == "HEAD",
            _ => true,
        };
        // An expectation is refused before the script begins, and so are missing credentials.
        let refused = matches!(status, 401 | 417);
        let refused = refused || answered.is_some_and(|answered| answered.is_refusal);
        if let Some(answered) = answered {
            let retry = world.rules_of(nonce).and_then(|rules| rules.retry.as_ref());
            let wall = world.wall_clock(answered.at);
            let wait = retry.map_or(Duration::ZERO, |rules| answered.asked.by_all(rules, wall));
            self.check_given_up(world, Some(status), step.idempotent, wait);
        }
        let is_error = world
            .rules_of(nonce)
            .is_some_and(|rules| rules.error_for_status && status >= 400);
        check!(
            world,
            !is_error,
            "chain {chain}: status {status} should have been an error"
        );
        check!(
            world,
            meant || refused,
            "chain {chain}: a response although none was sent"
        );
    }

    /// Checks that the session may send the request again, and does so after a wait that is right.
    fn check_retry(&self, world: &mut World, why: Outcome<'_>, after: Duration, now: Duration) {
        let chain = self.chain;
        let nonce = world.chains[chain].nonce;
        let wish = world.wishes[nonce].clone();
        let by = wish.by;
        let retry = world.rules_of(nonce).and_then(|rules| rules.retry.clone());
        let (Some(by), Some(rules)) = (by, retry) else {
            world.complain(format!("chain {chain}: a retry without rules for retries"));
            return;
        };
        world.chains[chain].retries += 1;
        let failures = world.chains[chain].retries;
        check!(
            world,
            rules.allows(failures),
            "chain {chain}: a retry after {failures} failures"
        );
        let last = world.journal.notes().last_refusal.get(&nonce).copied();
        let (step, status, serial) = match (why.error(), why.response()) {
            (Some(error), _) => {
                let step = error.request().map_or(0, |request| place(request).1);
                let status = error.status().map(|status| status.as_u16());
                let idempotent = wish.step(step).idempotent;
                let is_transient = is_transient(error.kind());
                let is_safe = idempotent || error.resend_is_safe();
                let is_unsent = error.request_sent() == Sent::No;
                // Of what was turned away, it may be known that it was not processed.
                let repeats = status.is_some_and(|status| rules.repeats(status, idempotent));
                check!(
                    world,
                    repeats || is_transient && is_safe,
                    "chain {chain}: a retry after {error:?}"
                );
                check!(
                    world,
                    repeats || idempotent || is_unsent,
                    "chain {chain}: a retry of what may have been processed, after {error:?}"
                );
                let serial = last.filter(|_| status.is_some_and(|status| status >= 400));
                (step, status.filter(|_| repeats), serial)
            }
            (None, Some(response)) => {
                let step = place(response.info().request()).1;
                let status = response.status().as_u16();
                (step, Some(status), serial_of(response))
            }
            (None, None) => return,
        };
        let answered = serial.and_then(|serial| world.answers.get(serial).copied());
        let idempotent = world.wishes[nonce].step(step).idempotent;
        if let Some(status) = status {
            let is_right = answered.is_none_or(|it| (it.nonce, it.step) == (nonce, step));
            check!(
                world,
                is_right && rules.repeats(status, idempotent),
                "chain {chain}: a retry after status {status} of {answered:?}"
            );
        }
        let asked = answered.map(|answered| answered.asked).unwrap_or_default();
        let has_body = why.response().is_some();
        let at = |time: Duration| match has_body {
            true => asked.by_all(&rules, world.wall_clock(time)),
            false => asked.by_head(world.wall_clock(time)),
        };
        // A date was read after the answer was sent, and by now.
        let (wait, most) = (
            at(now),
            answered.map_or(Duration::ZERO, |answered| at(answered.at)),
        );
        // In a lane or not, which only the books know.
        let longest = rules.longest_after(status, true);
        check!(
            world,
            wait <= longest,
            "chain {chain}: a retry although {asked:?} is longer than {longest:?}",
        );
        // What a broken response has asked for is known only if the books are kept.
        let is_known = why
            .error()
            .is_none_or(|error| error.status().is_none() || serial.is_some());
        let is_known = is_known && !may_have_failed_silently(world, nonce);
        let (is_own, is_slow) = rules.is_wait(after, failures, (wait, most));
        check!(
            world,
            is_own || is_slow || !is_known,
            "chain {chain}: a retry {failures} after {after:?}, asked {wait:?}, by {rules:?}"
        );
        let known = &world.chains[chain];
        let start = known.start(now);
        let due = wish
            .timeouts
            .total
            .map(|total| start.to.saturating_add(ceil_ms(total)));
        check!(
            world,
            due.is_none_or(|due| now.saturating_add(after) < ceil_ms(due)),
            "chain {chain}: a retry after {after:?}, begun {start:?}, although it times out at {due:?}"
        );
        let is_kept = world.logins[by].rules.is_kept;
        let twice = world.journal.notes().announced.insert(nonce, after);
        let twice = twice.filter(|_| is_kept);
        world.journal.notes().last_taken.remove(&nonce);
        check!(
            world,
            twice.is_none(),
            "chain {chain}: a retry after {twice:?} and after {after:?}"
        );
        let coverage = &mut world.coverage;
        coverage.hit(
            "retry",
            if status.is_some() {
                "after a status"
            } else {
                "after an error"
            },
        );
        coverage.hit_if(!idempotent && status.is_some(), "retry", "not idempotent");
        coverage.hit_if(wait > Duration::ZERO, "retry", "asked to wait");
        let by_body = has_body && rules.reads_bodies && asked.in_body == Some(wait);
        coverage.hit_if(by_body, "retry", "asked to wait by a body");
        coverage.hit_if(is_slow && !is_own, "retry", "slow");
        coverage.hit_if(step > 0, "retry", "of a redirect");
        coverage.hit_if(rules.purse != by, "retry", "from a shared budget");
    }

    /// Checks that a failure was not to be retried, if the chain has heard of all retries.
    /// `status` and `wait` are those of the response, and `is_safe` is whether the request can be
    /// sent again.
    fn check_given_up(
        &self,
        world: &mut World,
        status: Option<u16>,
        is_safe: bool,
        wait: Duration,
    ) {
        let now = world.since_base(world.network.now());
        let known = &world.chains[self.chain];
        let (chain, nonce, failures) = (self.chain, known.nonce, known.retries + 1);
        let Some(rules) = world.rules_of(nonce).filter(|_| !known.is_closure) else {
            return;
        };
        let is_kept = rules.is_kept;
        // A session without a rate limits only what is in a lane.
        let in_lane = world.wishes[nonce].in_lane;
        let lanes = rules.lanes.as_ref();
        let has_place = lanes.is_some_and(|lanes| in_lane || lanes.rate.is_some());
        let Some(rules) = rules.retry.clone() else {
            return;
        };
        let is_repeated = match status {
            Some(status) => rules.repeats(status, is_safe),
            None => is_safe,
        };
        let is_sure = !may_have_failed_silently(world, nonce);
        let may_be_astray = world.wishes[nonce].steps.len() > 1;
        let coverage = &mut world.coverage;
        coverage.hit_if(!is_repeated, "retry", "not of this failure");
        if !is_repeated {
            return;
        }
        if !rules.allows(failures) {
            coverage.hit("retry", "spent");
            return;
        }
        if !is_sure {
            return;
        }
        if wait > rules.longest_after(status, has_place) {
            coverage.hit("retry", "too long");
            return;
        }
        // At another origin, it holds back no lane.
        if wait > rules.longest() && may_be_astray {
            return;
        }
        let start = known.start(now).from;
        let due = world.wishes[nonce]
            .timeouts
            .total
            .map(|total| start + total);
        let longest = rules.longest_own(failures).max(wait);
        if due.is_some_and(|due| now.saturating_add(longest) >= due) {
            coverage.hit("retry", "too late");
            return;
        }
        coverage.hit("retry", "budget exhausted");
        let of_purse = world.logins.iter().filter(|login| {
            let its = login.rules.retry.as_ref();
            its.is_some_and(|its| its.purse == rules.purse)
        });
        let attempts: u64 = of_purse.map(|login| login.session.stats().attempts).sum();
        let mut notes = world.journal.notes();
        let judged = notes.last_taken.get(&nonce).copied();
        let may_be_empty = match (is_kept, judged) {
            // That it was empty is checked in the end.
            (true, Some(judged)) => {
                if let Some(purse) = notes.purses[rules.purse].as_mut() {
                    purse.settle(judged, Fate::Refused);
                }
                true
            }
            (true, None) => false,
            (false, _) => attempts >= 10,
        };
        drop(notes);
        check!(
            world,
            may_be_empty && rules.attempts.is_some(),
            "chain {chain}: given up after {failures} failures, status {status:?}, wait {wait:?}"
        );
    }

    fn check_error<T>(&self, world: &mut World, error: &Error, cx: &Context<'_, T>) {
        let chain = self.chain;
        let now = world.since_base(cx.now());
        let known = &world.chains[chain];
        let nonce = known.nonce;
        let (cancelled, ordered) = (known.cancelled, known.cancel_ordered);
        let (aborted, serial) = (known.aborted, known.serial);
        let (kind, phase) = (error.kind(), error.phase());
        world.tell(|| format!("chain {chain}: {error:?}"));
        world.coverage.hit("error", coverage::kind(kind));
        match kind {
            ErrorKind::Cancelled => world
                .coverage
                .hit("cancelled while", coverage::phase(phase)),
            ErrorKind::Timeout => {
                world.coverage.hit("timeout while", coverage::phase(phase));
                let left = world.journal.notes().left == Some(nonce);
                world.coverage.hit_if(left, "lane", "timed out in it");
            }
            _ => {}
        }
        if is_of_chain(error) {
            let group = "chain timeout while";
            world.coverage.hit(group, coverage::phase(phase));
            let is_late = world.chains[chain].is_past_deadline(now);
            check!(
                world,
                kind == ErrorKind::Timeout && is_late,
                "chain {chain}: {error:?}, but its deadline has not passed"
            );
        }
        let draining = world.draining;
        check!(
            world,
            (kind == ErrorKind::Cancelled) == cancelled || ordered || draining,
            "chain {chain}: {kind:?}, canceled {cancelled}"
        );
        self.check_policy(world, error);
        self.check_failed(world, error, now);
        self.check_coding(world, error);
        check!(
            world,
            kind != ErrorKind::Aborted || aborted,
            "chain {chain}: an abort that its readback did not request"
        );
        check!(
            world,
            !aborted || matches!(kind, ErrorKind::Aborted | ErrorKind::Cancelled),
            "chain {chain}: {kind:?} although it was aborted"
        );
        if let Some(serial) = serial
            && serial < world.answers.len()
        {
            let truth = world.body_of(serial);
            let part = error.partial_body();
            check!(
                world,
                truth.starts_with(part),
                "chain {chain}: a partial body that was not sent"
            );
        }
        self.check_sent(world, error);
        let slow = std::error::Error::source(error).map(ToString::to_string);
        let slow = slow.filter(|why| why.starts_with("slower than "));
        if let Some(why) = &slow {
            self.check_slow(world, why, phase, now, kind);
        } else if matches!(kind, ErrorKind::Timeout | ErrorKind::Exhausted) && !is_of_chain(error) {
            self.check_deadline(world, phase, now, kind);
        }
        let awaits = matches!(phase, Phase::FirstByte | Phase::Head | Phase::Body);
        // In a pipeline, the exchange in front may be paused.
        let is_paused = world.chains[chain].paused || world.plan.depth > 1;
        // The connection of an earlier exchange may have been closed before its body was read.
        let is_paused = is_paused || world.wishes[nonce].is_accompanied();
        // What a cap has not allowed to be read is unread when the total deadline passes, or that
        // of the chain. So is what is more than one turn reads. No other deadline passes meanwhile.
        let is_rest = world.wishes[nonce].download.is_some() || world.plan.large;
        let is_paused = is_paused || is_rest && (self.is_total(world, now) || is_of_chain(error));
        if kind == ErrorKind::Timeout && awaits && !is_paused {
            let since = world.chains[chain].start(now).from;
            world.note_timed_out(nonce, since);
        }
        let refused = kind == ErrorKind::ClosedBeforeResponse
            && error.reused_connection()
            && error.request_sent() != Sent::No;
        let wish = &world.wishes[nonce];
        let idempotent = wish.steps[0].idempotent && !wish.is_accompanied();
        check!(
            world,
            !refused || !idempotent,
            "nonce {nonce} is idempotent, but was not sent again"
        );
        world
            .coverage
            .hit_if(refused, "stale connection", "not sent again");
        if world.plan.benign {
            self.check_benign(world, error, slow.is_some());
        }
    }

    /// Returns whether the chain's total deadline has passed.
    fn is_total(&self, world: &World, now: Duration) -> bool {
        let known = &world.chains[self.chain];
        let total = world.wishes[known.nonce].timeouts.total;
        total.is_some_and(|total| known.start(now).from.saturating_add(ceil_ms(total)) <= now)
    }

    /// Checks an exchange that failed because it was too slow: that it had a low speed, and at
    /// least one window.
    fn check_slow(
        &self,
        world: &mut World,
        why: &str,
        phase: Phase,
        now: Duration,
        kind: ErrorKind,
    ) {
        let chain = self.chain;
        let known = &world.chains[chain];
        let wish = &world.wishes[known.nonce];
        let begun = known.start(now).from;
        let (low_speed, is_meant) = (wish.timeouts.low_speed, wish.is_too_slow);
        let right = low_speed.is_some_and(|low| {
            let window = ceil_ms(low.window).max(MS);
            why.starts_with(&format!(
                "slower than {} bytes/s over {window:?} (",
                low.bytes_per_second
            )) && begun + window <= now
        });
        let is_transfer = matches!(phase, Phase::Write | Phase::Head | Phase::Body);
        let is_paused = known.waits_for_resume() && phase == Phase::Body && wish.upload == 0;
        check!(
            world,
            right && is_transfer && !is_paused && kind == ErrorKind::Timeout,
            "chain {chain}: {why} in {phase:?} at {now:?}, begun at {begun:?}, expected {low_speed:?}"
        );
        let is_write = phase == Phase::Write;
        world.coverage.hit("deadline", "low speed");
        world
            .coverage
            .hit_if(is_meant, "speed", "meant to be too slow");
        world.coverage.hit_if(is_write, "speed", "slow upload");
        world.coverage.hit_if(!is_write, "speed", "slow download");
    }

    /// Checks that the error of a broken coding names it.
    fn check_coding(&self, world: &mut World, error: &Error) {
        let nonce = world.chains[self.chain].nonce;
        let mut answers = world.answers.iter().rev();
        let spoiled = answers
            .find(|it| it.nonce == nonce)
            .and_then(|it| it.spoiled);
        let text = format!("{error:#}");
        let is_named = ["gzip", "deflate", "content codings"]
            .into_iter()
            .any(|name| text.contains(name));
        if spoiled != Some(error.kind()) || !is_named {
            return;
        }
        world.coverage.hit(
            "coding",
            match error.kind() {
                ErrorKind::Truncated => "cut short",
                _ => "broken",
            },
        );
    }

    /// Checks that an error was not to be retried.
    fn check_failed(&self, world: &mut World, error: &Error, now: Duration) {
        let known = &world.chains[self.chain];
        let nonce = known.nonce;
        let total = world.wishes[nonce].timeouts.total;
        let may_be_over =
            total.is_some_and(|total| known.start(now).from.saturating_add(total) <= now);
        let step = error.request().map_or(0, |request| place(request).1);
        let idempotent = world.wishes[nonce].step(step).idempotent;
        match (error.kind(), error.status()) {
            (ErrorKind::Status, Some(status)) => {
                let status = status.as_u16();
                let mut answers = world.answers.iter().rev();
                let answered = answers.find(|it| (it.nonce, it.status) == (nonce, status));
                let retry = world.rules_of(nonce).and_then(|rules| rules.retry.as_ref());
                let wait = retry.zip(answered).map(|(rules, answered)| {
                    // A date may have been read as soon as the answer was sent.
                    let wall = world.wall_clock(answered.at);
                    answered.asked.by_all(rules, wall)
                });
                let wait = wait.unwrap_or_default();
                self.check_given_up(world, Some(status), idempotent, wait);
            }
            // What the readback has seen of a response stands.
            _ if may_be_over || known.reading != Reading::NoHead || is_of_chain(error) => {}
            (kind, status) if is_transient(kind) => {
                let is_safe = idempotent || error.resend_is_safe();
                let mut answers = world.answers.iter().rev();
                let answered = answers
                    .find(|it| it.nonce == nonce)
                    .filter(|_| status.is_some());
                let wait = answered.map_or(Duration::ZERO, |answered| {
                    answered.asked.by_head(world.wall_clock(answered.at))
                });
                self.check_given_up(world, None, is_safe, wait);
            }
            _ => {}
        }
    }

    fn check_sent(&self, world: &mut World, error: &Error) {
        let chain = self.chain;
        let nonce = world.chains[chain].nonce;
        let wish = &world.wishes[nonce];
        let (asked, arrived) = (wish.asked, wish.arrived);
        let sent = error.request_sent();
        if wish.is_accompanied() {
            let idempotent = wish.steps.iter().all(|step| step.idempotent);
            let seen = asked == 1 && arrived > 0 && !wish.steps[0].idempotent;
            let (safe, answered) = (error.resend_is_safe(), world.chains[chain].answered);
            check!(
                world,
                !(safe && seen) || answered,
                "chain {chain}: reported as safe to resend, but arrived {arrived} times"
            );
            check!(
                world,
                safe || !idempotent,
                "chain {chain}: everything is idempotent, but not safe to resend"
            );
            return;
        }
        let idempotent = wish.steps[0].idempotent;
        let seen = arrived >= asked && !idempotent && !world.chains[chain].answered;
        check!(
            world,
            sent != Sent::No || !seen,
            "chain {chain}: reported as not sent, but arrived {arrived} times"
        );
        let safe = idempotent || sent == Sent::No;
        check!(
            world,
            error.resend_is_safe() == safe,
            "chain {chain}: resend_is_safe returns {}",
            !safe
        );
        let head = world.chains[chain].reading != Reading::NoHead;
        check!(
            world,
            !head || sent == Sent::Yes,
            "chain {chain}: answered, but reported as {sent:?} sent"
        );
    }

    /// Checks that errors of policies, and of a status, are as the session's rules say.
    fn check_policy(&self, world: &mut World, error: &Error) {
        let chain = self.chain;
        let nonce = world.chains[chain].nonce;
        let wish = &world.wishes[nonce];
        let rules = world.rules_of(nonce).cloned();
        let kind = error.kind();
        let meant = match kind {
            ErrorKind::Status => {
                let status = error.status().map_or(0, |status| status.as_u16());
                let is_late = |rules: &Rules| {
                    // Its body has taken the time in which it was to be retried.
                    let retry = rules.retry.as_ref();
                    retry.is_some_and(|it| it.has_status(status) && self.is_late(world, it))
                };
                status >= 400 && rules.is_some_and(|it| it.error_for_status || is_late(&it))
            }
            ErrorKind::Policy => match lane_full(error) {
                Some(waiting) => rules
                    .and_then(|rules| rules.lanes)
                    .and_then(|lanes| lanes.max_waiting)
                    .is_some_and(|most| waiting >= most),
                None => rules
                    .and_then(|rules| rules.follows)
                    .is_some_and(|follows| wish.leads_to_more_than(follows.most)),
            },
            ErrorKind::Body => wish.supplied.is_some_and(|it| it.fault.is_some()),
            _ => return,
        };
        match (kind, lane_full(error)) {
            (ErrorKind::Body, _) => world.coverage.hit("source", "failed"),
            (ErrorKind::Status, _) => world.coverage.hit("session", "status"),
            (_, Some(_)) => world.coverage.hit("lane", "full"),
            (_, None) => world.coverage.hit("session", "too many redirects"),
        }
        check!(world, meant, "chain {chain}: {error:?}");
    }

    /// Returns whether there may be no time left for a retry.
    fn is_late(&self, world: &World, rules: &RetryRules) -> bool {
        let now = world.since_base(world.network.now());
        let known = &world.chains[self.chain];
        let total = world.wishes[known.nonce].timeouts.total;
        let longest = rules.longest_own(known.retries + 1).max(rules.longest());
        total.is_some_and(|total| now + longest >= known.start(now).from + total)
    }

    /// Checks that no deadline is early. That none is late is checked between turns.
    fn check_deadline(&self, world: &mut World, phase: Phase, now: Duration, kind: ErrorKind) {
        let chain = self.chain;
        let known = &world.chains[chain];
        let wish = &world.wishes[known.nonce];
        let timeouts = &wish.timeouts;
        let Stage::Asked(start) = known.stage else {
            return;
        };
        let uploads = wish.upload > 0;
        // What was read of a response that was held back is not known.
        let is_accompanied = wish.is_accompanied();
        let phases = match phase {
            Phase::Resolve => vec![("resolve", start.from, timeouts.resolve)],
            Phase::Connect => vec![("connect", start.from, timeouts.connect)],
            Phase::Write => vec![("write", start.from, timeouts.write)],
            Phase::FirstByte => vec![("first byte", start.from, timeouts.first_byte)],
            // Interim responses, or an early final one, precede the end of the upload.
            Phase::Head => vec![
                ("idle", start.from, timeouts.idle),
                ("first byte", start.from, timeouts.first_byte),
                ("write", start.from, timeouts.write),
            ],
            Phase::Body if uploads => vec![
                ("idle", start.from, timeouts.idle),
                ("write", start.from, timeouts.write),
            ],
            Phase::Body if known.waits_for_resume() => vec![],
            Phase::Body if is_accompanied => vec![("idle", start.from, timeouts.idle)],
            Phase::Body => vec![("idle", known.last_seen, timeouts.idle)],
            _ => vec![],
        };
        let total = (start.from, timeouts.total);
        let due = |(from, timeout): (Duration, Option<Duration>)| {
            timeout.map(|timeout| ceil_ms(timeout).saturating_add(from))
        };
        let is_total = due(total).is_some_and(|due| due <= now);
        let reached = phases
            .iter()
            .find(|(_, from, timeout)| due((*from, *timeout)).is_some_and(|due| due <= now));
        let reached = match (is_total, reached) {
            (_, Some((name, ..))) => Some(*name),
            (true, None) => Some("total"),
            (false, None) => None,
        };
        let exhausted = kind == ErrorKind::Exhausted;
        check!(
            world,
            reached.is_some() && (!exhausted || is_total),
            "chain {chain}: {kind:?} in {phase:?} at {now:?}, begun {start:?}, but no deadline has passed"
        );
        if let Some(reached) = reached {
            world.coverage.hit("deadline", reached);
        }
    }

    /// Checks that, if nothing goes wrong, every exchange ends as its server intended.
    fn check_benign(&self, world: &mut World, error: &Error, is_slow: bool) {
        let chain = self.chain;
        let known = &world.chains[chain];
        let wish = &world.wishes[known.nonce];
        let kind = error.kind();
        if !world.is_served(known.nonce)
            || matches!(kind, ErrorKind::Cancelled | ErrorKind::Aborted)
            || is_of_chain(error)
        {
            return;
        }
        // Errors that no server caused: the total deadline, or a connection that the server had
        // closed.
        let queue = match kind {
            // Of a host that is away twice, a peer may seem too slow.
            ErrorKind::Timeout if wish.is_too_slow || world.late > Duration::ZERO && is_slow => {
                true
            }
            ErrorKind::Timeout | ErrorKind::Exhausted => {
                let start = known.start(Duration::MAX);
                let total = wish.timeouts.total.unwrap_or_default();
                world.since_base(world.network.now()) >= start.from + total
            }
            ErrorKind::ClosedBeforeResponse => {
                error.reused_connection() && wish.steps.iter().any(|step| !step.idempotent)
            }
            // Checked for all plans.
            ErrorKind::Policy | ErrorKind::Status | ErrorKind::Body => true,
            _ => false,
        };
        // A server that answers early and then closes may destroy its answer with a reset. Until it
        // answers, it does not read the rest.
        let early = wish.steps.iter().any(|step| step.script.early)
            && (matches!(kind, ErrorKind::Truncated | ErrorKind::ClosedBeforeResponse)
                || is_slow && error.phase() == Phase::Write);
        // So may a server that closes with pipelined requests unread (RFC 9112 §9.6).
        let idempotent = wish.steps.iter().any(|step| step.idempotent);
        let unread = world.plan.depth > 1 && idempotent && kind == ErrorKind::Truncated;
        let mut answers = world.answers.iter().filter(|it| it.nonce == known.nonce);
        let is_coded = answers.clone().any(|it| it.coding != Coding::None);
        let is_long = |step: &Step| {
            // Codings make some bodies longer.
            let len = step.script.len as u64;
            let most = len + if is_coded { len / 50 + 300 } else { 0 };
            wish.max_body.is_some_and(|limit| most > limit)
        };
        let is_spoiled = answers.any(|it| it.spoiled == Some(kind));
        let too_long = wish.steps.iter().any(is_long);
        let meant = |step: &Step| match (step.script.body, kind) {
            // A server may turn the request away, and break off while it does.
            (_, ErrorKind::Truncated) if step.trouble > 0 => true,
            (Body::Garbage | Body::BadChunk, ErrorKind::Malformed) => true,
            (Body::HugeHead, ErrorKind::TooLarge) => true,
            (Body::Truncated, ErrorKind::Truncated) => true,
            (Body::ClosedAtOnce, ErrorKind::ClosedBeforeResponse) => true,
            (Body::ClosedAtOnce, ErrorKind::Truncated) => {
                step.script.interims > 0 || wish.expect.is_some()
            }
            (Body::Nothing, ErrorKind::Timeout) => true,
            (Body::Nothing, ErrorKind::ClosedBeforeResponse | ErrorKind::Truncated) => true,
            (_, ErrorKind::TooLarge) => too_long,
            _ => false,
        };
        let meant = wish.steps.iter().any(meant);
        let steps = wish.steps.clone();
        check!(
            world,
            queue || early || meant || unread || is_spoiled,
            "chain {chain}: {error:?} for {steps:?}"
        );
    }

    /// Lets the chain wait without a request.
    fn wait<T: State>(
        &mut self,
        world: &mut World,
        now: Duration,
        told: bool,
        dropped: bool,
    ) -> Next<T> {
        let chain = self.chain;
        let mut number = self.number;
        let another = world.random.chance(200);
        number += u32::from(another);
        let probe = Probe { chain, number };
        // A closure has no `on_due`, so it cannot be told that the wait is over.
        let waits = world.random.chance(500) && (another || !world.chains[chain].is_closure);
        let (mut next, name) = match waits {
            true => (Next::wait(), "wait"),
            false => {
                let mut probe = probe;
                let call = move |state: &mut T, cx: &mut Context<'_, T>| probe.on_call(state, cx);
                (Next::call(call), "call")
            }
        };
        if another {
            next = next.read_to(probe);
        }
        let terms = self.terms(world);
        next = terms.apply(next);
        let mut mark = None;
        if !world.logins.is_empty() && world.random.chance(400) {
            let count = world.logins.len();
            let number = world.random.below(count);
            mark = Some((number, world.logins[number].ended));
            next = next.session(&world.logins[number].session);
            world.coverage.hit("next", "wait in session");
        }
        let mut delay = Duration::ZERO;
        if world.random.chance(500) {
            delay = world.delay();
            world.coverage.hit("next", "wait after");
        }
        world.coverage.hit("next", name);
        world.tell(|| format!("chain {chain}: {next:?} (dropped {dropped})"));
        if dropped {
            if !world.chains[chain].cancelled || told {
                world.chains[chain].stage = Stage::Over;
            }
            return next.after(delay);
        }
        let known = &mut world.chains[chain];
        known.is_closure &= !another;
        known.readback = number;
        known.wait_mark = mark;
        known.begin(Stage::Calling(call_due(Span::at(now), delay)));
        known.answered = true;
        world.on_terms(chain, terms, "step");
        next.after(delay)
    }

    /// Returns terms for the step that follows, which have no effect if the step is dropped. If the
    /// chain may have been canceled, this is not known, and the step has none.
    fn terms(&self, world: &mut World) -> Terms {
        let chain = self.chain;
        let terms = world.terms();
        match world.chains[chain].cancel_ordered || world.is_ended(chain) {
            true => Terms::default(),
            false => terms,
        }
    }

    /// Chooses what follows at random, as long as the chain may continue.
    fn next<T: State>(&mut self, world: &mut World, now: Duration, told: bool) -> Next<T> {
        let chain = self.chain;
        let left = world.chains[chain].left;
        let goes_on = (left > 0 && world.plan.requests > 0 && !world.winding_down) || told;
        let dropped = told || world.chains[chain].cancelled || world.draining;
        let choice = if goes_on { world.random.below(12) } else { 9 };
        let nonce = world.chains[chain].nonce;
        if choice > 9 {
            return self.wait(world, now, told, dropped);
        }
        let (nonce, mut next, name, name_after) = match choice {
            0..4 => (nonce, Next::again(), "again", "again after"),
            4..8 => {
                let (nonce, request) = world.wish();
                (nonce, Next::send(request), "send", "send after")
            }
            _ => {
                world.coverage.hit("next", "done");
                if !world.chains[chain].cancelled || told {
                    world.chains[chain].stage = Stage::Over;
                }
                world.tell(|| format!("chain {chain}: done"));
                return Next::done().after(MS);
            }
        };
        let mut delay = Duration::ZERO;
        if world.random.chance(400) {
            delay = world.delay();
            world.coverage.hit("next", name_after);
        } else {
            world.coverage.hit("next", name);
        }
        if world.random.chance(10) {
            delay = Duration::MAX;
            world.coverage.hit("next", "never");
        }
        next = next.after(delay);
        let mut number = self.number;
        if world.random.chance(200) {
            number += 1;
            world.coverage.hit("next", "another readback");
            next = next.read_to(Probe { chain, number });
        }
        let terms = self.terms(world);
        next = terms.apply(next);
        world.tell(|| format!("chain {chain}: {next:?} nonce {nonce} (dropped {dropped})"));
        if dropped {
            if !world.chains[chain].cancelled || told {
                world.chains[chain].stage = Stage::Over;
            }
            return next;
        }
        world.plan.requests = world.plan.requests.saturating_sub(1);
        world.wishes[nonce].asked += 1;
        let stage = match delay {
            Duration::ZERO => Stage::Asked(Span::at(now)),
            delay => Stage::Delayed(Span::at(now.saturating_add(delay))),
        };
        let mark = world.wishes[nonce].mark;
        let known = &mut world.chains[chain];
        known.left -= 1;
        if known.nonce != nonce {
            known.mark = mark;
        }
        known.nonce = nonce;
        known.is_closure &= number == known.readback;
        known.readback = number;
        known.begin(stage);
        world.on_terms(chain, terms, "step");
        next
    }
}
