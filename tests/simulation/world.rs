//! The state of the harness: every chain, request and answer, and the violations found.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use httpstream::sim::{ConnectionId, Network, Random};
use httpstream::{ChainId, ErrorKind, KeepAlive, LowSpeed, Next, Request, Submitter, Timeouts};

use crate::coverage::Coverage;
use crate::lanes::LANES;
use crate::plan::{MS, Plan, SECOND};
use crate::retries::Asked;
use crate::sessions::{Journal, Login, Mark, Nested, Rules};
use crate::sources::Supplied;

/// The keys of chains.
pub(crate) const KEYS: [&str; 3] = ["a", "b", "c"];

pub(crate) type Shared = Rc<RefCell<World>>;

/// The state that is lent to the engine: the world, and parts of it that may be removed.
pub(crate) struct Host {
    pub(crate) world: Shared,
    pub(crate) parts: Vec<Option<Part>>,
}

/// A part of the state, for readbacks made with `within`.
pub(crate) struct Part {
    pub(crate) world: Shared,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) base: Instant,
    pub(crate) chains: Vec<Chain>,
    pub(crate) by_id: HashMap<ChainId, usize>,
    /// The requests by nonce, which is part of their URL.
    pub(crate) wishes: Vec<Wish>,
    /// The answers by serial number, which they carry in a field.
    pub(crate) answers: Vec<Answered>,
    /// The bodies that are passed on with their codings, by serial number.
    pub(crate) coded: HashMap<usize, Vec<u8>>,
    pub(crate) logins: Vec<Login>,
    /// The session that is the engine's policy.
    pub(crate) default: Option<usize>,
    /// What the policies note.
    pub(crate) journal: Journal,
    /// Requests that were built in advance.
    pub(crate) stock: Vec<(usize, Request)>,
    /// The nonces and counts of Digest that the servers have seen.
    pub(crate) digests: HashSet<(Vec<u8>, Vec<u8>)>,
    /// The exchanges that have arrived: see `books`.
    pub(crate) arrived: HashSet<u64>,
    pub(crate) coverage: Coverage,
    /// The violations found so far.
    pub(crate) wrong: Vec<String>,
    pub(crate) submitter: Option<Submitter<Host>>,
    pub(crate) alive: Option<KeepAlive>,
    pub(crate) draining: bool,
    /// No new chains, no follow-ons, and no mischief.
    pub(crate) winding_down: bool,
    /// Whether `stop` was called since the last turn; `None` if not known.
    pub(crate) stop_asked: Option<bool>,
    /// The number of callbacks so far, and of `on_reply` calls.
    pub(crate) calls: u64,
    pub(crate) replies: u64,
    /// How long readbacks have taken since the last turn ended, and at most in any turn.
    pub(crate) spent: (Duration, Duration),
    /// The number of chains that the engine must have counted as submitted.
    pub(crate) submitted: u64,
    /// Connections on which a deadline passed while a response was awaited.
    pub(crate) timed_out: Vec<ConnectionId>,
    /// How long the host was away in all, although a turn may have been due.
    pub(crate) late: Duration,
    pub(crate) verbose: bool,
    pub(crate) log: u64,
}

/// A request, and how its servers are to answer it.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The request itself, and those that redirects lead to. The last one leads to itself if it
    /// has a lead.
    pub(crate) steps: Vec<Step>,
    pub(crate) upload: usize,
    /// How the body is read, if it is not in memory.
    pub(crate) supplied: Option<Supplied>,
    pub(crate) expect: Option<Expectation>,
    /// The session whose rules apply, and the generation that the request belongs to.
    pub(crate) by: Option<usize>,
    pub(crate) mark: Option<Mark>,
    /// When that generation ended, if it ended between two turns.
    pub(crate) ended_at: Option<Duration>,
    /// The number of [`Nested`] policies.
    pub(crate) policies: usize,
    pub(crate) by_hand: ByHand,
    /// The timeouts in force for it, including those of the engine.
    pub(crate) timeouts: Timeouts,
    pub(crate) max_body: Option<u64>,
    /// The caps on the response and on the request, in bytes a second.
    pub(crate) download: Option<u64>,
    pub(crate) upload_rate: Option<u64>,
    /// Its response is slower than its low speed, if nothing else ends it.
    pub(crate) is_too_slow: bool,
    pub(crate) in_lane: bool,
    /// How often a chain has sent it, and how often its head and its end have arrived.
    pub(crate) asked: u32,
    pub(crate) heads: u32,
    pub(crate) arrived: u32,
    /// How often its servers have asked for credentials.
    pub(crate) challenged: u32,
    /// How often the servers' answers have asked for each step.
    pub(crate) ordered: Vec<u32>,
}

/// One request of a [`Wish`].
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) origin: usize,
    pub(crate) method: &'static str,
    pub(crate) idempotent: bool,
    pub(crate) has_body: bool,
    pub(crate) script: Script,
    pub(crate) lead: Option<Lead>,
    /// Its server asks for credentials.
    pub(crate) challenges: bool,
    /// How many of a thousand times its server turns it away.
    pub(crate) trouble: u16,
}

/// A redirect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lead {
    pub(crate) status: u16,
    pub(crate) form: Form,
    /// The session follows it, as long as it does not follow too many.
    pub(crate) is_followed: bool,
}

/// How a Location is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Absolute,
    WithoutScheme,
    Path,
    Relative,
    /// There is none.
    Missing,
    OtherScheme,
}

/// Fields that were set by hand, each with a value of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByHand {
    pub(crate) authorization: bool,
    pub(crate) cookie: bool,
    pub(crate) host: bool,
    /// Accept-Encoding.
    pub(crate) codings: bool,
}

impl Wish {
    /// Returns the request after this many redirects.
    pub(crate) fn step(&self, step: usize) -> &Step {
        &self.steps[step.min(self.steps.len() - 1)]
    }

    /// Returns whether a policy takes part, which may send more than the chain asked for.
    pub(crate) fn is_accompanied(&self) -> bool {
        self.by.is_some() || self.policies > 0
    }

    /// Returns whether no redirect up to this step has led to another origin.
    pub(crate) fn is_at_home(&self, step: usize) -> bool {
        let mut steps = self.steps.iter().take(step + 1);
        steps.all(|step| step.origin == self.steps[0].origin)
    }

    /// Returns whether it leads to more redirects than this.
    pub(crate) fn leads_to_more_than(&self, most: usize) -> bool {
        (0..=most).all(|step| self.step(step).lead.is_some_and(|lead| lead.is_followed))
    }

    pub(crate) fn order(&mut self, step: usize) {
        if self.ordered.len() <= step {
            self.ordered.resize(step + 1, 0);
        }
        self.ordered[step] += 1;
    }
}

/// How a server reacts to `Expect: 100-continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    Continued,
    /// The client has to continue without a 100.
    Ignored,
    Failed,
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) status: u16,
    pub(crate) body: Body,
    pub(crate) len: usize,
    pub(crate) interims: usize,
    pub(crate) hold: Duration,
    pub(crate) drip: Option<(usize, Duration)>,
    /// Whether the connection ends after it, and whether that is announced.
    pub(crate) closes: Option<bool>,
    pub(crate) keep_alive: Option<u8>,
    /// Sent after the head has arrived, before the body.
    pub(crate) early: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length,
    Chunked,
    UntilClose,
    Http10,
    NoContent,
    Garbage,
    BadChunk,
    HugeHead,
    Truncated,
    ClosedAtOnce,
    Nothing,
}

/// What a server sent, or began to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) nonce: usize,
    pub(crate) step: usize,
    /// The session follows the redirect or answers the challenge, so no readback sees it.
    pub(crate) is_replaced: bool,
    pub(crate) status: u16,
    pub(crate) len: usize,
    /// The server has turned the request away, whatever its script says.
    pub(crate) is_refusal: bool,
    /// When it was answered, and the wait that the answer asks for.
    pub(crate) at: Duration,
    pub(crate) asked: Asked,
    pub(crate) coding: Coding,
    /// The error of a readback to which the body is passed on.
    pub(crate) spoiled: Option<ErrorKind>,
}

/// What happens to the codings of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    None,
    /// The session removes them.
    Removed,
    /// The readback gets the body as it was sent.
    Left,
}

/// A time known by its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl Span {
    pub(crate) fn at(time: Duration) -> Self {
        let (from, to) = (time, time);
        Self { from, to }
    }

    pub(crate) fn plus(self, time: Duration) -> Self {
        Self {
            from: self.from.saturating_add(time),
            to: self.to.saturating_add(time),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Queued at a `Submitter`; the engine may not have received it.
    Ordered {
        delay: Duration,
        since: Duration,
    },
    /// It begins at this time.
    Delayed(Span),
    /// It waits without a request, and continues at this time.
    Calling(Span),
    /// It began at this time, and has not been answered.
    Asked(Span),
    Over,
}

/// How the body of the current response is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    NoHead,
    Buffered,
    Streamed,
    Discarded,
}

#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) id: Option<ChainId>,
    pub(crate) part: Option<usize>,
    pub(crate) part_gone: bool,
    pub(crate) nonce: usize,
    pub(crate) stage: Stage,
    /// The number of the readback that is called next.
    pub(crate) readback: u32,
    /// Whether that readback is a closure, which receives only the reply.
    pub(crate) is_closure: bool,
    /// Whether it has had such a readback, which hears of no retries.
    pub(crate) was_closure: bool,
    /// `cancel` returned true, and the readback has not been told.
    pub(crate) cancelled: bool,
    pub(crate) cancel_ordered: bool,
    /// It begins with a call that has not been made. If it is canceled, nothing is told of it.
    pub(crate) is_fresh_call: bool,
    /// Its last request has been answered, and nothing else has begun.
    pub(crate) answered: bool,
    pub(crate) aborted: bool,
    pub(crate) paused: bool,
    /// It was paused, and `on_resume` has not been called yet.
    pub(crate) awaits_on_resume: bool,
    /// It was resumed, and has not continued yet.
    pub(crate) resumed: bool,
    /// A `Submitter` resumes it, perhaps before its next pause, perhaps from that pause.
    pub(crate) resume_ordered: bool,
    pub(crate) reading: Reading,
    pub(crate) serial: Option<usize>,
    pub(crate) last_serial: Option<usize>,
    pub(crate) streamed: usize,
    /// The current response was paused at some time.
    pub(crate) was_paused: bool,
    /// When part of the response was last received.
    pub(crate) last_seen: Duration,
    /// How often the session has sent the current request again.
    pub(crate) retries: u32,
    /// How many more requests the chain may send.
    pub(crate) left: usize,
    /// The generations that its request and its wait belong to.
    pub(crate) mark: Option<Mark>,
    pub(crate) wait_mark: Option<Mark>,
    /// The key that it holds, unless its delay is over and nothing has been heard of that yet.
    pub(crate) key: Option<usize>,
    /// When the deadline of the chain as a whole passes.
    pub(crate) deadline: Option<Duration>,
}

/// What a step sets for its chain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) key: Option<usize>,
    pub(crate) timeout: Option<Duration>,
}

impl Terms {
    pub(crate) fn apply<S>(self, mut next: Next<S>) -> Next<S> {
        if let Some(key) = self.key {
            next = next.key(KEYS[key]);
        }
        if let Some(timeout) = self.timeout {
            next = next.chain_timeout(timeout);
        }
        next
    }
}

impl Chain {
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Returns whether it may have ended without notice.
    pub(crate) fn may_be_gone(&self) -> bool {
        self.part_gone || self.is_fresh_call && self.cancel_ordered
    }

    /// Returns the generation that ends the chain.
    pub(crate) fn current_mark(&self) -> Option<Mark> {
        match self.stage {
            Stage::Calling(_) => self.wait_mark,
            Stage::Ordered { .. } if self.is_fresh_call => None,
            _ => self.mark,
        }
    }

    pub(crate) fn waits_for_resume(&self) -> bool {
        self.paused && !self.resumed && !self.is_over()
    }

    /// Returns whether the deadline of the chain as a whole has passed.
    pub(crate) fn is_past_deadline(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|due| ceil_ms(due) <= now)
    }

    pub(crate) fn begin(&mut self, stage: Stage) {
        self.stage = stage;
        self.key = None;
        self.answered = false;
        self.aborted = false;
        self.paused = false;
        self.awaits_on_resume = false;
        self.was_paused = false;
        self.resumed = false;
        self.reading = Reading::NoHead;
        self.serial = None;
        self.streamed = 0;
        self.retries = 0;
    }

    /// Returns the earliest and the latest time at which its request may have begun, at most `now`.
    pub(crate) fn start(&self, now: Duration) -> Span {
        match self.stage {
            Stage::Asked(start) => start,
            Stage::Delayed(due) => Span {
                from: due.from.min(now),
                to: now,
            },
            Stage::Calling(_) => Span::at(now),
            Stage::Ordered { delay, since } => Span {
                from: since.saturating_add(delay).min(now),
                to: now,
            },
            Stage::Over => Span::at(now),
        }
    }
}

/// Returns the body of an answer, which both the server and the reader can compute.
pub(crate) fn body_bytes(nonce: usize, serial: usize, len: usize) -> Vec<u8> {
    let mut bytes = Random::new((nonce as u64) << 32 | serial as u64).bytes(len);
    if !serial.is_multiple_of(2) {
        // Codings make this shorter.
        bytes.iter_mut().skip(1).for_each(|byte| *byte &= 3);
    }
    bytes
}

pub(crate) fn upload_bytes(nonce: usize, len: usize) -> Vec<u8> {
    Random::new(!(nonce as u64)).bytes(len)
}

/// Rounds up to a whole millisecond.
pub(crate) fn ceil_ms(time: Duration) -> Duration {
    let nanos = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_millis)
}

/// Returns when a call is due that was requested with this delay. Without a delay it is due at
/// once, not at the next millisecond.
pub(crate) fn call_due(asked: Span, delay: Duration) -> Span {
    match delay {
        Duration::ZERO => Span::at(Duration::ZERO),
        delay => asked.plus(delay),
    }
}

macro_rules! check {
    ($world:expr, $holds:expr, $($why:tt)+) => {
        if !$holds {
            let why = format!($($why)+);
            $world.complain(why);
        }
    };
}
pub(crate) use check;

impl World {
    pub(crate) fn complain(&mut self, why: String) {
        let at = self.network.elapsed();
        if self.verbose {
            eprintln!("{at:?} WRONG: {why}");
        }
        self.wrong.push(format!("at {at:?}: {why}"));
    }

    /// Records that a deadline passed while the response to `nonce`, requested at `since`, was
    /// awaited.
    pub(crate) fn note_timed_out(&mut self, nonce: usize, since: Duration) {
        let path = format!("/{nonce}");
        let ledger = self.network.ledger();
        let last = ledger.requests().rfind(|request| request.path() == path);
        // A connection that is still open belonged to another attempt, and requests from before
        // `since` to another exchange. Those of that very moment may belong to either.
        let closed = last
            .filter(|request| request.at > since)
            .map(|request| request.connection)
            .filter(|connection| !self.network.is_open(*connection));
        self.timed_out.extend(closed);
    }

    /// Prints what happens, if the run is verbose.
    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.verbose {
            let at = self.network.elapsed();
            eprintln!("{at:?} {}", what());
        }
    }

    pub(crate) fn digest(&mut self, number: u64) {
        self.log = (self.log.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Returns the time of day that the engine knows at this time.
    pub(crate) fn wall_clock(&self, now: Duration) -> SystemTime {
        self.network.wall_clock() - self.network.elapsed() + now
    }

    pub(crate) fn since_base(&self, now: Instant) -> Duration {
        now.duration_since(self.base)
    }

    /// Creates a chain to be submitted, with its first request.
    pub(crate) fn new_chain(&mut self, part: Option<usize>, stage: Stage) -> (usize, Request) {
        let left = self.random.between(1, 6).min(self.plan.requests.max(1));
        let (nonce, request) = self.wish();
        self.wishes[nonce].asked += 1;
        self.plan.requests = self.plan.requests.saturating_sub(1);
        let is_closure = matches!(stage, Stage::Delayed(_))
            || matches!(stage, Stage::Ordered { delay, .. } if !delay.is_zero());
        self.chains.push(Chain {
            id: None,
            part,
            part_gone: false,
            nonce,
            stage,
            readback: 0,
            is_closure,
            was_closure: is_closure,
            cancelled: false,
            cancel_ordered: false,
            is_fresh_call: false,
            answered: false,
            aborted: false,
            paused: false,
            awaits_on_resume: false,
            resumed: false,
            resume_ordered: false,
            reading: Reading::NoHead,
            serial: None,
            last_serial: None,
            streamed: 0,
            was_paused: false,
            last_seen: Duration::ZERO,
            retries: 0,
            left,
            mark: self.wishes[nonce].mark,
            wait_mark: None,
            key: None,
            deadline: None,
        });
        let chain = self.chains.len() - 1;
        self.tell(|| format!("chain {chain}: nonce {nonce} {stage:?} part {part:?}"));
        (chain, request)
    }

    /// Creates a chain that begins with a call.
    pub(crate) fn new_call(&mut self, part: Option<usize>, stage: Stage) -> (usize, Request) {
        let (chain, request) = self.new_chain(part, stage);
        let known = &mut self.chains[chain];
        (known.is_fresh_call, known.is_closure) = (true, false);
        known.was_closure = false;
        known.mark = None;
        (chain, request)
    }

    pub(crate) fn name(&mut self, chain: usize, id: ChainId) {
        self.chains[chain].id = Some(id);
        self.submitted += 1;
        let before = self.by_id.insert(id, chain);
        check!(self, before.is_none(), "id {id:?} was assigned twice");
    }

    /// Returns a random delay in whole microseconds.
    pub(crate) fn delay(&mut self) -> Duration {
        let most = *self
            .random
            .pick(&[0, 900, 5_000, 1_000_000, 1_000_000, 30_000_000]);
        Duration::from_micros(self.random.between(1, most + 1) as u64)
    }

    /// Returns a chain at random: usually one that is not over.
    pub(crate) fn any_chain(&mut self) -> Option<usize> {
        if self.chains.is_empty() {
            return None;
        }
        let chosen = self.random.below(self.chains.len());
        if self.random.chance(100) {
            return Some(chosen);
        }
        let from_there = (chosen..self.chains.len()).chain(0..chosen);
        from_there
            .into_iter()
            .find(|chain| !self.chains[*chain].is_over())
    }

    pub(crate) fn any_paused(&mut self) -> Option<usize> {
        let paused: Vec<usize> = (0..self.chains.len())
            .filter(|chain| self.chains[*chain].waits_for_resume())
            .collect();
        (!paused.is_empty()).then(|| *self.random.pick(&paused))
    }

    /// Records that `cancel` returned `said` for a chain, which should be true only if there was
    /// something to cancel.
    pub(crate) fn on_cancel(&mut self, chain: usize, said: bool) {
        self.tell(|| format!("chain {chain}: cancel returns {said}"));
        let known = &self.chains[chain];
        // Calls that have not been made end without notice.
        let has_expired =
            known.is_fresh_call && known.is_past_deadline(self.since_base(self.network.now()));
        let unsure = self.draining
            || has_expired
            || known.part_gone
            || known.cancel_ordered
            || self.is_ended(chain)
            || matches!(known.stage, Stage::Ordered { .. });
        let expected = !known.is_over() && !known.cancelled;
        check!(
            self,
            unsure || said == expected,
            "chain {chain}: cancel returned {said} instead of {expected}"
        );
        let waits = said && self.journal.notes().is_in_lane(self.chains[chain].nonce);
        self.coverage.hit_if(waits, "lane", "canceled in it");
        let known = &mut self.chains[chain];
        known.cancelled |= said;
        if said && known.is_fresh_call {
            known.stage = Stage::Over;
        }
    }

    /// Returns random terms for a step, most often none.
    pub(crate) fn terms(&mut self) -> Terms {
        let random = &mut self.random;
        let key = random.chance(250).then(|| random.below(KEYS.len()));
        let timeout = random.chance(120).then(|| {
            let most = *random.pick(&[20_000, 2_000_000, 20_000_000, 90_000_000]);
            match random.chance(100) {
                true => Duration::MAX,
                false => Duration::from_micros(random.between(0, most + 1) as u64),
            }
        });
        Terms { key, timeout }
    }

    /// Records that a chain was started, or goes on, with a step of these terms.
    pub(crate) fn on_terms(&mut self, chain: usize, terms: Terms, from: &'static str) {
        let now = self.network.elapsed();
        self.tell(|| format!("chain {chain}: {terms:?}"));
        if let Some(timeout) = terms.timeout {
            let known = &mut self.chains[chain];
            let former = known.deadline;
            known.deadline = now.checked_add(timeout);
            self.coverage.hit("chain timeout from", from);
            self.coverage
                .hit_if(former.is_some(), "chain timeout", "replaced");
            let is_lifted = former.is_some() && timeout == Duration::MAX;
            self.coverage.hit_if(is_lifted, "chain timeout", "lifted");
        }
        if let Some(key) = terms.key {
            if let Some(holder) = self.holder(key, Some(chain)) {
                self.chains[holder].key = None;
                if self.surely_holds(holder) {
                    self.coverage.hit("key", "replaced");
                    self.tell(|| format!("chain {holder}: replaced by chain {chain}"));
                    self.cancelled(holder);
                } else {
                    self.coverage.hit("key", "perhaps replaced");
                    self.chains[holder].cancel_ordered = true;
                }
            }
            self.coverage.hit("key from", from);
            self.chains[chain].key = Some(key);
        }
    }

    /// Records that `cancel_key` returned `said`.
    pub(crate) fn on_cancel_key(&mut self, key: usize, said: bool) {
        self.tell(|| format!("key {key}: cancel returns {said}"));
        let holder = self.holder(key, None);
        let is_sure = holder.is_some_and(|holder| self.surely_holds(holder));
        check!(
            self,
            said == holder.is_some() || !is_sure && holder.is_some() || self.draining,
            "canceling key {key} returned {said}, but it is held by {holder:?}"
        );
        if let Some(holder) = holder {
            self.chains[holder].key = None;
            if said {
                self.coverage.hit("key", "canceled");
                self.cancelled(holder);
            }
        }
    }

    /// Returns the chain that holds a key, as far as is known.
    fn holder(&self, key: usize, except: Option<usize>) -> Option<usize> {
        let chains = self.chains.iter().enumerate();
        let mut holders = chains
            .filter(|(_, chain)| chain.key == Some(key) && !chain.is_over())
            .filter(|(number, _)| Some(*number) != except);
        let (holder, _) = holders.next()?;
        debug_assert!(holders.next().is_none(), "each step takes it from another");
        Some(holder)
    }

    /// Returns whether a chain that was given a key still holds it: its delay is not over, and
    /// nothing has ended it.
    fn surely_holds(&self, chain: usize) -> bool {
        let now = self.network.elapsed();
        let known = &self.chains[chain];
        let is_delayed = match known.stage {
            Stage::Delayed(due) => ceil_ms(due.from) > now,
            // The call has not been made.
            Stage::Calling(due) => ceil_ms(due.from) > now || !known.part_gone,
            Stage::Ordered { .. } | Stage::Asked(_) | Stage::Over => false,
        };
        let is_ending = known.cancelled || known.cancel_ordered || self.draining;
        is_delayed && !is_ending && !known.is_past_deadline(now) && !self.is_ended(chain)
    }

    /// Records that a chain is canceled. Nobody is told of one that begins with a call.
    fn cancelled(&mut self, chain: usize) {
        let known = &mut self.chains[chain];
        known.cancelled = true;
        if known.is_fresh_call {
            known.stage = Stage::Over;
        }
    }

    pub(crate) fn on_resume(&mut self, chain: usize, said: bool) {
        self.tell(|| format!("chain {chain}: resume returns {said}"));
        let known = &self.chains[chain];
        let possible = known.paused && !known.is_over();
        check!(
            self,
            !said || possible,
            "chain {chain}: resume returned true, but it is not paused"
        );
        self.chains[chain].resumed |= said;
    }

    /// Ends a session: everything that belongs to it so far, except the chain `spared`.
    pub(crate) fn on_end(&mut self, session: usize, spared: Option<usize>, from: &'static str) {
        let now = self.network.elapsed();
        self.tell(|| format!("session {session} ended from {from}, spared {spared:?}"));
        self.coverage.hit("session ended from", from);
        let login = &mut self.logins[session];
        login.ended += 1;
        let ended = login.ended;
        for chain in 0..self.chains.len() {
            let known = &mut self.chains[chain];
            if Some(chain) == spared {
                let renew = |mark: &mut Option<Mark>| {
                    if let Some((of, at)) = mark
                        && *of == session
                    {
                        *at = ended;
                    }
                };
                renew(&mut known.mark);
                renew(&mut known.wait_mark);
                let is_of = known.mark.is_some_and(|(of, _)| of == session);
                if known.mark.is_some() {
                    let wish = &mut self.wishes[known.nonce];
                    (wish.mark, wish.ended_at) = (known.mark, None);
                }
                self.coverage.hit_if(is_of, "session", "spared");
            }
        }
        // An exchange that has begun may still be written in the turn in which a readback ends its
        // session.
        let is_between_turns = !matches!(from, "context" | "readback");
        for wish in &mut self.wishes {
            let is_over = wish
                .mark
                .is_some_and(|(of, at)| of == session && at < ended);
            if is_over && is_between_turns && wish.ended_at.is_none() {
                wish.ended_at = Some(now);
            }
        }
        let mut notes = self.journal.notes();
        let books = notes.books[session].as_ref();
        let lanes = books.and_then(|books| books.lanes.as_ref());
        let waits = lanes.is_some_and(|lanes| lanes.has_waiting());
        self.coverage.hit_if(waits, "lane", "session ended");
        notes.ended[session] = ended;
        notes.marks = self.wishes.iter().map(|wish| wish.mark).collect();
    }

    /// Returns whether a policy takes part in a chain's request. A response that a policy has held
    /// back is complete, so it is not paused.
    pub(crate) fn is_accompanied(&self, chain: usize) -> bool {
        self.wishes[self.chains[chain].nonce].is_accompanied()
    }

    /// Returns whether the session has been ended that the chain belongs to.
    pub(crate) fn is_ended(&self, chain: usize) -> bool {
        self.is_mark_over(self.chains[chain].current_mark())
    }

    pub(crate) fn is_mark_over(&self, mark: Option<Mark>) -> bool {
        mark.is_some_and(|(session, at)| self.logins[session].ended > at)
    }

    /// Returns the rules of the session that a request is sent by.
    pub(crate) fn rules_of(&self, nonce: usize) -> Option<&Rules> {
        let by = self.wishes[nonce].by?;
        Some(&self.logins[by].rules)
    }

    /// Returns a random request: a new one, or one that was built in advance.
    pub(crate) fn wish(&mut self) -> (usize, Request) {
        if !self.logins.is_empty() && self.random.chance(150) {
            let built = self.build_wish();
            self.stock.push(built);
        }
        if self.random.chance(150)
            && let Some(built) = self.stock.pop()
        {
            return built;
        }
        self.build_wish()
    }

    fn build_wish(&mut self) -> (usize, Request) {
        let nonce = self.wishes.len();
        let own = match self.logins.len() {
            0 => None,
            count => (self.random.chance(700)).then(|| self.random.below(count)),
        };
        let by = own.or(self.default);
        let rules = by.map(|by| self.logins[by].rules.clone());
        let random = &mut self.random;
        let base = rules.as_ref().and_then(|rules| rules.base);
        let origin = match base {
            Some(base) if random.chance(600) => base,
            _ => random.below(self.plan.origins.len()),
        };
        let method = *random.pick(&[
            "GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "PATCH",
        ]);
        let upload = match method {
            "POST" | "PUT" | "PATCH" => length(random, self.plan.large),
            _ => 0,
        };
        let expect = (upload > 0 && random.chance(150)).then(|| {
            let all = [
                Expectation::Continued,
                Expectation::Continued,
                Expectation::Ignored,
                Expectation::Failed,
            ];
            *random.pick(&all)
        });
        let mut timeouts = self.plan.timeouts.clone();
        if let Some(total) = rules.as_ref().and_then(|rules| rules.total) {
            timeouts.total = Some(total);
        }
        let idempotent = random
            .chance(100)
            .then_some(matches!(method, "POST" | "PATCH"));
        let first = Step {
            origin,
            method,
            idempotent: idempotent.unwrap_or(!matches!(method, "POST" | "PATCH")),
            has_body: upload > 0,
            script: script(random, &self.plan, &timeouts, upload),
            lead: None,
            challenges: challenges(random, rules.as_ref()),
            trouble: trouble(random, rules.as_ref()),
        };
        let steps = steps(
            random,
            &self.plan,
            &timeouts,
            rules.as_ref(),
            idempotent,
            first,
        );
        let is_laned = rules.as_ref().is_some_and(|rules| rules.lanes.is_some());
        let lane = random.chance(if is_laned { 800 } else { 50 });
        let lane = lane.then(|| *random.pick(&LANES));
        let priority = *random.pick(&[0, 0, 0, 0, 0, 5, -5, 127, -128]);
        let method_of_http = method.parse().unwrap_or_default();
        let url = format!("{}/{nonce}", self.plan.origins[origin].url);
        let is_relative = own.is_some() && base == Some(origin) && random.chance(500);
        let mut builder = match (own, is_relative) {
            (None, _) => Request::builder(method_of_http, &url),
            (Some(own), true) => {
                let session = &self.logins[own].session;
                session.request(method_of_http, format!("{nonce}"))
            }
            (Some(own), false) => self.logins[own].session.request(method_of_http, &url),
        };
        let mark = own.map(|own| (own, self.logins[own].ended));
        let supplied = (upload > 0 && random.chance(400)).then(|| Supplied::new(random));
        let bytes = upload_bytes(nonce, upload);
        builder = match supplied {
            None => builder.body(bytes),
            Some(supplied) => {
                supplied.body(builder, bytes, random.next_u64(), self.journal.clone())
            }
        };
        if let Some(lane) = lane {
            builder = builder.lane(lane);
        }
        builder = builder.priority(priority);
        if expect.is_some() {
            builder = builder.header("Expect", "100-continue");
        }
        if let Some(idempotent) = idempotent {
            builder = builder.idempotent(idempotent);
        }
        let mut policies = usize::from(rules.as_ref().is_some_and(|rules| rules.is_nested));
        if !self.logins.is_empty() && random.chance(300) {
            policies += 1;
            let journal = self.journal.clone();
            builder = builder.policy(Arc::new(Nested { journal }));
        }
        let by_hand = ByHand {
            authorization: random.chance(120),
            cookie: random.chance(120),
            host: random.chance(60),
            codings: random.chance(100),
        };
        if by_hand.authorization {
            builder = builder.header("Authorization", format!("Bearer hand-{nonce}"));
        }
        if by_hand.cookie {
            builder = builder.header("Cookie", format!("hand={nonce}"));
        }
        if by_hand.host {
            builder = builder.header("Host", format!("hand-{nonce}.test"));
        }
        if by_hand.codings {
            builder = builder.header("Accept-Encoding", "identity");
        }
        if random.chance(60) {
            builder = builder.close();
        }
        if random.chance(60) {
            builder = builder.fresh_connection();
        }
        let mut max_body = None;
        if random.chance(80) {
            let most = random.between(0, 3000) as u64;
            max_body = Some(most);
            builder = builder.limits(|limits| limits.max_body_bytes = most);
        }
        if !self.plan.benign && random.chance(100) {
            let silence = random.duration(20 * SECOND);
            let quiet = silence + 10 * SECOND;
            timeouts.first_byte = Some(quiet);
            timeouts.idle = Some(quiet);
            timeouts.total = timeouts.total.map(|total| total.max(quiet + 30 * SECOND));
            builder = builder.long_poll(silence);
            self.coverage.hit("deadline", "hold");
        } else if !self.plan.benign && random.chance(100) {
            let total = random.duration(5 * SECOND) + MS;
            timeouts.total = Some(total);
            builder = builder.timeout(total);
        }
        let rates: &[u64] = match self.plan.large {
            true => &[20_000, 200_000, 2_000_000],
            false => &[300, 1000, 5000, 50_000],
        };
        let download = random.chance(150).then(|| *random.pick(rates));
        let upload_rate = random.chance(150).then(|| *random.pick(rates));
        if let Some(rate) = download {
            builder = builder.download_rate(rate);
        }
        if let Some(rate) = upload_rate {
            builder = builder.upload_rate(rate);
        }
        let slow = slow_low_speed(&steps).filter(|_| download.is_none() && random.chance(900));
        let is_too_slow = slow.is_some();
        if let Some(low_speed) = slow.or_else(|| {
            let chance = random.chance(300);
            chance.then(|| low_speed(random, self.plan.benign))
        }) {
            let LowSpeed {
                bytes_per_second,
                window,
                ..
            } = low_speed;
            timeouts.low_speed = Some(low_speed);
            builder = builder.low_speed(bytes_per_second, window);
        }
        let request = builder.build().expect("the request is valid");
        self.tell(|| format!("nonce {nonce}: {method} {url} upload {upload} {supplied:?} {expect:?} {steps:#?} by {by:?} {mark:?} policies {policies} {by_hand:?} {timeouts:?} max {max_body:?} lane {lane:?} priority {priority} rates {download:?} {upload_rate:?} too slow {is_too_slow}"));
        self.wishes.push(Wish {
            steps,
            upload,
            supplied,
            expect,
            by,
            mark,
            ended_at: None,
            policies,
            by_hand,
            timeouts,
            max_body,
            download,
            upload_rate,
            is_too_slow,
            in_lane: lane.is_some(),
            asked: 0,
            heads: 0,
            arrived: 0,
            challenged: 0,
            ordered: Vec::new(),
        });
        self.journal.notes().marks.push(mark);
        (nonce, request)
    }

    /// Returns how many requests wait in the lanes of all sessions.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = self.logins.iter().map(|login| login.session.waiting());
        waiting.sum()
    }

    /// Notes that a readback takes this long.
    pub(crate) fn spend(&mut self, time: Duration) {
        self.spent.0 += time;
        self.spent.1 = self.spent.1.max(self.spent.0);
    }

    /// Checks that requests wait in their lanes only as long as they must, once the engine has done
    /// all it can.
    pub(crate) fn check_lanes(&mut self, now: Duration) {
        let mut notes = self.journal.notes();
        for (login, books) in self.logins.iter().zip(&mut notes.books) {
            if let Some(lanes) = books.as_mut().and_then(|books| books.lanes.as_mut()) {
                // The engine does not know how long a readback took until it begins something else.
                lanes.check_settled(&login.session, now, self.spent.1);
            }
        }
    }

    /// Checks what the sessions have counted, once everything has ended.
    pub(crate) fn check_sessions(&mut self) {
        let is_unheard = |chain: &Chain| chain.was_closure || chain.part_gone;
        let are_all_heard = !self.chains.iter().any(is_unheard);
        let journal = self.journal.clone();
        let notes = journal.notes();
        for number in 0..self.logins.len() {
            let login = &self.logins[number];
            let session = login.session.clone();
            let stats = session.stats();
            let running = LANES
                .map(|name| session.lane(name))
                .map(|lane| lane.running);
            check!(
                self,
                session.waiting() == 0 && running == [0; LANES.len()],
                "session {number}: {} wait and {running:?} run at the end",
                session.waiting()
            );
            let Some(books) = &notes.books[number] else {
                continue;
            };
            let retried = books.retried..=books.retried + books.unsure;
            check!(
                self,
                books.attempts == stats.attempts && retried.contains(&stats.retried),
                "session {number} counts {stats:?}, but {} attempts and {retried:?} retries",
                books.attempts
            );
            check!(
                self,
                !are_all_heard || books.heard == books.retried,
                "session {number} has retried {} times, and readbacks have heard of {}",
                books.retried,
                books.heard
            );
        }
        for purse in notes.purses.iter().flatten() {
            for why in purse.check() {
                self.complain(format!("{why}, of {purse:?}"));
            }
        }
    }

    /// Returns the body of an answer, as a readback gets it.
    pub(crate) fn body_of(&self, serial: usize) -> Vec<u8> {
        if let Some(coded) = self.coded.get(&serial) {
            return coded.clone();
        }
        let answered = self.answers.get(serial);
        answered.map_or(Vec::new(), |it| body_bytes(it.nonce, serial, it.len))
    }

    /// Returns whether there are servers for all that a request may lead to.
    pub(crate) fn is_served(&self, nonce: usize) -> bool {
        let mut steps = self.wishes[nonce].steps.iter();
        steps.all(|step| !self.plan.origins[step.origin].addrs.is_empty())
    }

    pub(crate) fn addrs_of(&self, nonce: usize, step: usize) -> &[SocketAddr] {
        &self.plan.origins[self.wishes[nonce].step(step).origin].addrs
    }
}

/// Returns the most bytes that a cap at this rate allows within a time, counted from its first
/// byte.
pub(crate) fn most_within(rate: u64, time: Duration) -> u64 {
    let burst = (rate / 8).max(1024);
    burst + (u128::from(rate) * time.as_nanos() / 1_000_000_000) as u64
}

/// Draws a low speed. A benign network is never so slow.
pub(crate) fn low_speed(random: &mut Random, benign: bool) -> LowSpeed {
    let (speed, window) = match benign {
        true => (
            random.between(1, 8),
            2 * SECOND + random.duration(8 * SECOND),
        ),
        false => (
            *random.pick(&[1, 100, 1000, 100_000]),
            random.duration(3 * SECOND),
        ),
    };
    LowSpeed::new(speed as u64, window)
}

/// Returns a low speed that the response to a request falls short of, if it drips.
fn slow_low_speed(steps: &[Step]) -> Option<LowSpeed> {
    let [step] = steps else { return None };
    let (bytes, every) = step.script.drip.filter(|(_, every)| *every > 10 * MS)?;
    let has_body = matches!(
        step.script.body,
        Body::Length | Body::Chunked | Body::UntilClose
    );
    if step.method == "HEAD" || step.challenges || !has_body || step.script.len < 14 * bytes {
        return None;
    }
    // In a window arrive at most six drops, since the latency varies by less than one.
    let speed = 16.0 * bytes as f64 / (4.0 * every.as_secs_f64());
    Some(LowSpeed::new(speed as u64, 4 * every))
}

fn challenges(random: &mut Random, rules: Option<&Rules>) -> bool {
    let has_digest = |rules: &Rules| rules.auth.as_ref().is_some_and(|auth| auth.value.is_none());
    let likely = rules.is_some_and(has_digest);
    random.chance(if likely { 600 } else { 20 })
}

fn trouble(random: &mut Random, rules: Option<&Rules>) -> u16 {
    match rules.is_some_and(|rules| rules.retry.is_some() || rules.lanes.is_some()) {
        true => *random.pick(&[0, 0, 0, 300, 700, 1000]),
        false => *random.pick(&[0, 0, 0, 0, 0, 0, 0, 300]),
    }
}

/// Creates the steps of a request that begins with `first`. A request without a session is
/// redirected rarely, and never led anywhere.
fn steps(
    random: &mut Random,
    plan: &Plan,
    timeouts: &Timeouts,
    rules: Option<&Rules>,
    idempotent: Option<bool>,
    first: Step,
) -> Vec<Step> {
    let mut steps = vec![first];
    if !random.chance(if rules.is_some() { 450 } else { 30 }) {
        return steps;
    }
    let follows = rules.and_then(|rules| rules.follows);
    let count = random.between(1, 4);
    for number in 0..count {
        let loops = number + 1 == count && random.chance(60);
        let last = steps.last_mut().expect("there is a first step");
        let origin = match random.chance(500) || loops {
            true => last.origin,
            false => random.below(plan.origins.len()),
        };
        let status = match loops {
            true => 307,
            false => *random.pick(&[301, 302, 303, 307, 308]),
        };
        let is_same = plan.origins[origin].is_https() == plan.origins[last.origin].is_https();
        let form = match random.below(20) {
            0 => Form::Missing,
            1 => Form::OtherScheme,
            2..7 if origin == last.origin => Form::Path,
            7..12 if origin == last.origin => Form::Relative,
            12..15 if is_same => Form::WithoutScheme,
            _ => Form::Absolute,
        };
        let is_allowed =
            follows.is_some_and(|follows| origin == last.origin || !follows.same_origin);
        let is_followed = is_allowed && !matches!(form, Form::Missing | Form::OtherScheme);
        last.lead = Some(Lead {
            status,
            form,
            is_followed,
        });
        last.script.body = match last.script.body {
            body @ (Body::Chunked | Body::UntilClose | Body::Truncated | Body::ClosedAtOnce) => {
                body
            }
            _ => Body::Length,
        };
        if loops {
            break;
        }
        let keeps = follows.is_some_and(|follows| follows.keeps_method);
        let becomes_get = match status {
            303 => last.method != "HEAD",
            301 | 302 => last.method == "POST" && !keeps,
            _ => false,
        };
        let method = if becomes_get { "GET" } else { last.method };
        let has_body = last.has_body && !becomes_get;
        let next = Step {
            origin,
            method,
            idempotent: idempotent.unwrap_or(!matches!(method, "POST" | "PATCH")),
            has_body,
            script: script(random, plan, timeouts, usize::from(has_body)),
            lead: None,
            challenges: challenges(random, rules),
            trouble: trouble(random, rules),
        };
        steps.push(next);
    }
    steps
}

fn length(random: &mut Random, large: bool) -> usize {
    let most = *random.pick(&[1, 30, 400, 400, 3000]);
    match large && random.chance(150) {
        true => random.between(5_000, 400_000),
        false => random.below(most + 1),
    }
}

fn script(random: &mut Random, plan: &Plan, timeouts: &Timeouts, upload: usize) -> Script {
    let body = match random.below(100) {
        0..40 => Body::Length,
        40..65 => Body::Chunked,
        65..75 => Body::UntilClose,
        75..80 => Body::Http10,
        80..85 => Body::NoContent,
        85..87 => Body::Garbage,
        87..89 => Body::BadChunk,
        89..90 => Body::HugeHead,
        90..94 => Body::Truncated,
        94..97 => Body::ClosedAtOnce,
        _ if timeouts.first_byte.is_some() || timeouts.total.is_some() => Body::Nothing,
        _ => Body::Length,
    };
    let hold = match random.below(10) {
        0..6 => Duration::ZERO,
        6..9 => random.duration(30 * MS),
        _ => random.duration(25 * SECOND),
    };
    let drip = random.chance(80).then(|| {
        let every = random.duration(300 * MS);
        (random.between(40, 400), every)
    });
    Script {
        status: *random.pick(&[200, 200, 200, 201, 404, 500]),
        body,
        len: length(random, plan.large),
        interims: match random.chance(150) {
            true => random.between(1, 3),
            false => 0,
        },
        hold,
        drip: drip.filter(|_| !plan.large),
        closes: random.chance(120).then(|| random.chance(500)),
        keep_alive: random.chance(100).then(|| random.between(0, 4) as u8),
        early: upload > 0 && random.chance(150),
    }
}
