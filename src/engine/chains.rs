//! Chains: what was submitted, until its readback answers `done`.
//!
//! A chain is in two tables under one key: [`Chains`] has what the engine needs to know of it, and
//! [`Readbacks`] what its caller wrote. A running readback is lent both, as [`Asks`]: it may start
//! chains and mark others, while the links, the pool and the timers stay out of its reach until it
//! returns.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::engine::generations::Generations;
use crate::engine::readback::{Action, Call, Next, Readback, Sink, Unread};
use crate::generation::Mark;
use crate::id::RequestId;
use crate::net::slots::{MaybeKey, grow};
use crate::request::Request;
use crate::sched::wheel::TimerId;

/// Slab key of a chain.
pub(crate) type ChainKey = u32;

/// Where a chain is.
///
/// ```text
/// New ──► Delayed ──► (HeldBack) ──► Queued ──► Running ──► Reading ──► (next request: New's successors, or Waiting) or gone
///    └───────┴───────────┴───────────┴──► Failed ──► Reading
/// Waiting ──► Due ──► Reading
///    └─────────┴──► Failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Submitted; the command queue starts it.
    New,
    /// Waiting for its delay.
    Delayed,
    /// Its policy holds it back; it is asked again when its timer goes off, or it is woken.
    HeldBack,
    /// Waiting for its delay, or for the command queue to start it, without a request: this call follows, or else its
    /// readback is told.
    Waiting { call: MaybeKey },
    /// It has waited; the completion queue holds its place.
    Due { call: MaybeKey },
    /// Waiting for a connection, between these two of its origin's queue.
    Queued { before: MaybeKey, behind: MaybeKey },
    /// Exchanging its request for a response on this link.
    Running { link: u32 },
    /// Failed; the completion queue holds the error for its readback.
    Failed,
    /// Its readback is running.
    Reading,
    /// No chain at all: its slot is not used again.
    Retired,
}

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u16);

impl Marks {
    /// Its readback is to be called once more, with `Cancelled`, and no more after that.
    pub(super) const CANCELLED: Self = Self(1);
    /// Its readback answered `Pause`.
    pub(super) const PAUSED: Self = Self(2);
    /// The next link is to be a fresh one: the last was stale.
    pub(super) const FRESH: Self = Self(4);
    /// The server refused `Expect`: the request goes without it.
    pub(super) const NO_EXPECT: Self = Self(8);
    /// Its id came from a `Submitter`.
    const REMOTE: Self = Self(16);
    /// It waits because this machine ran out of something.
    pub(super) const EXHAUSTED: Self = Self(32);
    /// Its origin is that of its request: so it stays as long as the same one is sent again.
    pub(super) const AT_HOME: Self = Self(64);
    /// The deadline of its phase has passed, and nothing has moved it since.
    pub(super) const LATE: Self = Self(128);
    /// The total deadline of its request has passed, and is being dealt with.
    pub(super) const OVER: Self = Self(256);

    /// What does not hold of the next request any more.
    pub(super) const OF_ONE_REQUEST: Self =
        Self(Self::FRESH.0 | Self::NO_EXPECT.0 | Self::LATE.0 | Self::OVER.0);

    pub(super) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    /// Both: has is then whether there is one of them.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn set(&mut self, mark: Self) {
        self.0 |= mark.0;
    }

    pub(super) fn clear(&mut self, mark: Self) {
        self.0 &= !mark.0;
    }
}

/// A conversation: one submission after another, each the request that is under way together with
/// all that is sent for it, by the engine or by its policy. What is here is all but for what its caller wrote, which is in [`Readbacks`]. A million of
/// them may be delayed: keep it small.
pub(crate) struct Chain {
    /// The one under way, or else the last one. Out while its readback runs, and none before the first.
    pub(super) request: Option<Request>,
    /// When the present submission was made, or its delay was over: microseconds of the engine's life.
    /// What its policy sends does not move it, so the total deadline, `Timings` and the alert of a
    /// long wait count from it over all hops.
    pub(super) submitted: u64,
    pub(super) stage: Stage,
    /// Of its delay, or the deadline of its phase.
    pub(super) timer: Option<TimerId>,
    /// The origin that holds a count for it.
    pub(super) origin: MaybeKey,
    /// What its policy does for the present submission.
    pub(super) visit: MaybeKey,
    /// How often the present request was sent: of what a policy sends in its place, from 0 again.
    pub(super) attempts: u8,
    /// How many exchanges have failed since the last that did not.
    pub(super) failures: u8,
    pub(super) marks: Marks,
}

impl Chain {
    /// An exchange of it is over.
    #[inline]
    pub(super) fn note_outcome(&mut self, has_failed: bool) {
        self.failures = match has_failed {
            true => self.failures.saturating_add(1),
            false => 0,
        };
    }

    /// The request under way, or else the last one.
    ///
    /// # Panics
    /// There was none yet: the chain has only waited.
    #[inline]
    pub(super) fn request(&self) -> &Request {
        self.request
            .as_ref()
            .expect("a chain that sends has a request")
    }
}

/// What is to be done before the next link is touched.
#[derive(Debug)]
pub(super) enum Command {
    Start(ChainKey, Duration),
    Cancel(RequestId),
    Resume(RequestId),
    /// There is something to be written on its tunnel.
    Flush(RequestId),
    /// A chain that waits without a request goes on now.
    Wake(RequestId),
}

/// Bytes that wait to be written on a tunnel.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Up to here they are written.
    written: usize,
    /// A command is on its way that writes them.
    is_noted: bool,
}

impl Outbox {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// The connection has taken `n` more.
    pub(super) fn on_written(&mut self, n: usize) {
        self.written += n;
        // What is written is moved away once it is the larger part, so that a byte is moved twice
        // at most.
        if self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_OUTBOX {
            self.bytes = Vec::new();
        }
    }
}

/// A longer buffer of a tunnel is given back when all of it is written.
const KEPT_OUTBOX: usize = 64 << 10;

/// A longer queue of commands is given back when it is empty.
const KEPT_COMMANDS: usize = 4096;

/// All chains of an engine, and what was asked of it since it last looked.
pub(crate) struct Chains {
    slab: Slab<Chain>,
    /// How often each slot was given out. A slot that was given out 2³¹ times is not used again.
    generations: Vec<u32>,
    retired: usize,
    /// A tree, since a hash table that grows to hold a million moves them all at once, inside some
    /// turn.
    by_remote_id: BTreeMap<RequestId, ChainKey>,
    /// The ids of chains that are marked so, by their keys; of the others whatever was there.
    remote_ids: Vec<RequestId>,
    commands: VecDeque<Command>,
    /// What is to be written on connections whose protocol was switched.
    tunnels: BTreeMap<ChainKey, Outbox>,
    /// The generations that chains wait in, or their requests belong to.
    pub(super) belonging: Generations,
    /// What a chain is stamped with that is submitted now: microseconds of the engine's life.
    pub(super) now: u64,
    pub(super) stopped: bool,
    pub(super) submitted: u64,
}

impl Chains {
    pub(super) fn new(ended: Waker) -> Self {
        Self {
            slab: Slab::new(),
            generations: Vec::new(),
            retired: 0,
            by_remote_id: BTreeMap::new(),
            remote_ids: Vec::new(),
            commands: VecDeque::new(),
            tunnels: BTreeMap::new(),
            belonging: Generations::new(ended),
            now: 0,
            stopped: false,
            submitted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.retired
    }

    /// Begins a chain, which a command is to start.
    fn insert(
        &mut self,
        stage: Stage,
        request: Option<Request>,
        delay: Duration,
        remote: Option<RequestId>,
    ) -> ChainKey {
        let mut marks = Marks::default();
        if remote.is_some() {
            marks.set(Marks::REMOTE);
        }
        let key = self.vacant_key();
        self.slab.insert(Chain {
            request,
            submitted: self.now,
            stage,
            timer: None,
            origin: MaybeKey::NONE,
            visit: MaybeKey::NONE,
            attempts: 0,
            failures: 0,
            marks,
        });
        if let Some(id) = remote {
            self.by_remote_id.insert(id, key);
            self.keep_remote_id(key as usize, id);
        }
        self.submitted += 1;
        self.commands.push_back(Command::Start(key, delay));
        key
    }

    /// The slot that the next insert takes, its generation counted up.
    fn vacant_key(&mut self) -> ChainKey {
        grow(&mut self.slab);
        loop {
            let key = self.slab.vacant_key();
            if key == self.generations.len() {
                if self.generations.len() == self.generations.capacity() {
                    self.generations.reserve_exact((key / 16).max(64));
                }
                self.generations.push(0);
                return key as ChainKey;
            }
            if self.generations[key] < u32::MAX >> 1 {
                self.generations[key] += 1;
                return key as ChainKey;
            }
            // One slot in 2³¹ submissions is the price of ids that are never reused.
            self.retired += 1;
            self.slab.insert(Chain {
                request: None,
                submitted: 0,
                stage: Stage::Retired,
                timer: None,
                origin: MaybeKey::NONE,
                visit: MaybeKey::NONE,
                attempts: 0,
                failures: 0,
                marks: Marks::default(),
            });
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: ChainKey) -> Chain {
        let chain = self.slab.remove(key as usize);
        self.tunnels.remove(&key);
        self.belonging.forget(key);
        if chain.marks.has(Marks::REMOTE) {
            self.by_remote_id.remove(&self.remote_ids[key as usize]);
        }
        chain
    }

    fn keep_remote_id(&mut self, key: usize, id: RequestId) {
        if key >= self.remote_ids.len() {
            let more = key + 1 - self.remote_ids.len();
            if more > self.remote_ids.capacity() - self.remote_ids.len() {
                self.remote_ids.reserve_exact(more + (key / 16).max(64));
            }
            self.remote_ids.resize(key + 1, id);
        }
        self.remote_ids[key] = id;
    }

    #[inline]
    pub(super) fn id(&self, key: ChainKey) -> RequestId {
        match self.slab[key as usize].marks.has(Marks::REMOTE) {
            true => self.remote_ids[key as usize],
            false => RequestId::local(key, self.generations[key as usize]),
        }
    }

    /// The chain of that key, if there is one.
    #[inline]
    pub(super) fn get_mut(&mut self, key: ChainKey) -> Option<&mut Chain> {
        self.slab.get_mut(key as usize)
    }

    /// The chain that `id` names, if it is not over.
    #[inline]
    pub(super) fn find(&self, id: RequestId) -> Option<ChainKey> {
        if id.is_remote() {
            return self.by_remote_id.get(&id).copied();
        }
        let (key, generation) = id.parts();
        let live = self
            .slab
            .get(key as usize)
            .is_some_and(|chain| !chain.marks.has(Marks::REMOTE));
        (live && self.generations[key as usize] == generation).then_some(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ChainKey> + '_ {
        self.slab
            .iter()
            .filter(|(_, chain)| chain.stage != Stage::Retired)
            .map(|(key, _)| key as u32)
    }

    #[inline]
    pub(super) fn next_command(&mut self) -> Option<Command> {
        let command = self.commands.pop_front()?;
        if self.commands.is_empty() && self.commands.capacity() > KEPT_COMMANDS {
            // A million requests submitted at once need not cost their queue as long as they wait.
            self.commands = VecDeque::new();
        }
        Some(command)
    }

    /// Lets a chain go on that waits without a request by the time the command is carried out.
    pub(super) fn wake(&mut self, id: RequestId) {
        self.commands.push_back(Command::Wake(id));
    }

    #[inline]
    pub(super) fn commands_len(&self) -> usize {
        self.commands.len()
    }

    /// Has the chains begin now that were submitted by the commands from number `first` on.
    pub(super) fn stamp(&mut self, first: usize) {
        for command in self.commands.range(first..) {
            if let Command::Start(key, _) = command {
                self.slab[*key as usize].submitted = self.now;
            }
        }
    }

    #[inline]
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }
}

impl std::ops::Index<ChainKey> for Chains {
    type Output = Chain;

    #[inline]
    fn index(&self, key: ChainKey) -> &Chain {
        &self.slab[key as usize]
    }
}

impl std::ops::IndexMut<ChainKey> for Chains {
    #[inline]
    fn index_mut(&mut self, key: ChainKey) -> &mut Chain {
        &mut self.slab[key as usize]
    }
}

impl Chains {
    /// Asks that a chain be ended. False: it is over, or that was asked before.
    pub(super) fn cancel(&mut self, id: RequestId) -> bool {
        let Some(key) = self.find(id) else {
            return false;
        };
        let marks = &mut self[key].marks;
        if marks.has(Marks::CANCELLED) {
            return false;
        }
        marks.set(Marks::CANCELLED);
        self.commands.push_back(Command::Cancel(id));
        true
    }

    /// Asks that a paused exchange go on. False: it is not paused.
    pub(super) fn resume(&mut self, id: RequestId) -> bool {
        let paused = self
            .find(id)
            .is_some_and(|key| self[key].marks.has(Marks::PAUSED));
        if paused {
            self.commands.push_back(Command::Resume(id));
        }
        paused
    }

    /// A chain's connection is a tunnel from now on.
    pub(super) fn open_tunnel(&mut self, key: ChainKey) {
        self.tunnels.insert(key, Outbox::default());
    }

    /// What is to be written on a chain's tunnel, if it has one.
    pub(super) fn outbox(&mut self, key: ChainKey) -> Option<&mut Outbox> {
        let outbox = self.tunnels.get_mut(&key)?;
        outbox.is_noted = false;
        Some(outbox)
    }

    /// The tunnel has ended.
    pub(super) fn close_tunnel(&mut self, key: ChainKey) {
        self.tunnels.remove(&key);
    }

    /// Has bytes written on a chain's tunnel. Answers how many wait now; `None`: it has none.
    pub(super) fn write(&mut self, id: RequestId, bytes: &[u8]) -> Option<usize> {
        let key = self.find(id)?;
        let outbox = self.tunnels.get_mut(&key)?;
        outbox.bytes.extend_from_slice(bytes);
        let waiting = outbox.waiting().len();
        if waiting > 0 && !std::mem::replace(&mut outbox.is_noted, true) {
            self.commands.push_back(Command::Flush(id));
        }
        Some(waiting)
    }

    /// Has a chain end with the generation of a session that it belongs to now, if it belongs to
    /// one.
    pub(super) fn watch(&mut self, id: RequestId, mark: Option<Mark>) {
        let Some(key) = self.find(id) else {
            return;
        };
        match mark {
            None => self.belonging.forget(key),
            Some(mark) => {
                if !self.belonging.watch(key, mark) {
                    self.cancel(id);
                }
            }
        }
    }

    /// Ends chains whose generation is over, as many as a turn looks at.
    pub(super) fn sweep(&mut self) {
        for key in self.belonging.sweep() {
            self.cancel(self.id(key));
        }
    }

    /// Asks that [`Engine::run`](crate::Engine::run) end with this turn.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }
}

/// What callers wrote, by chain: the readback of each, and the calls that are to be made. The only
/// part of an engine that knows the caller's state.
pub(super) struct Readbacks<S> {
    /// `None` where there is no chain, and while it runs.
    by_chain: Vec<Option<Box<dyn Readback<S>>>>,
    calls: Slab<Call<S>>,
}

impl<S> Readbacks<S> {
    pub(super) fn new() -> Self {
        Self {
            by_chain: Vec::new(),
            calls: Slab::new(),
        }
    }

    /// Takes a chain's readback out, to run it or because the chain is over.
    #[inline]
    pub(super) fn take(&mut self, key: ChainKey) -> Option<Box<dyn Readback<S>>> {
        self.by_chain[key as usize].take()
    }

    /// Puts a readback in, and gives back the one that was there.
    #[inline]
    pub(super) fn put(
        &mut self,
        key: ChainKey,
        readback: Box<dyn Readback<S>>,
    ) -> Option<Box<dyn Readback<S>>> {
        self.by_chain[key as usize].replace(readback)
    }

    /// The readback of a chain, unless it is running.
    #[inline]
    pub(super) fn get(&self, key: ChainKey) -> Option<&dyn Readback<S>> {
        self.by_chain[key as usize].as_deref()
    }

    fn insert(&mut self, key: ChainKey, readback: Box<dyn Readback<S>>) {
        let key = key as usize;
        if key >= self.by_chain.len() {
            if key >= self.by_chain.capacity() {
                self.by_chain
                    .reserve_exact(key + 1 - self.by_chain.len() + (key / 16).max(64));
            }
            self.by_chain.resize_with(key + 1, || None);
        }
        self.by_chain[key] = Some(readback);
    }

    /// Keeps a call until it is due.
    pub(super) fn keep_call(&mut self, call: Call<S>) -> MaybeKey {
        grow(&mut self.calls);
        MaybeKey::from(self.calls.insert(call) as u32)
    }

    pub(super) fn take_call(&mut self, key: MaybeKey) -> Option<Call<S>> {
        key.get().map(|key| self.calls.remove(key as usize))
    }
}

/// What a running readback is lent: it may begin chains and mark others, and reach nothing else.
pub(super) struct Asks<'a, S> {
    pub(super) chains: &'a mut Chains,
    pub(super) readbacks: &'a mut Readbacks<S>,
}

impl<S> Asks<'_, S> {
    /// A chain that begins with a request.
    pub(super) fn insert(
        &mut self,
        request: Request,
        readback: Box<dyn Readback<S>>,
        delay: Duration,
        remote: Option<RequestId>,
    ) -> RequestId {
        let mark = request.generation().cloned();
        let key = self.chains.insert(Stage::New, Some(request), delay, remote);
        self.readbacks.insert(key, readback);
        let id = self.chains.id(key);
        if mark.is_some() {
            self.chains.watch(id, mark);
        }
        id
    }

    /// A chain that begins with a call. Its readback is [`Unread`] until the call installs another.
    pub(super) fn insert_call(
        &mut self,
        call: Call<S>,
        delay: Duration,
        remote: Option<RequestId>,
    ) -> RequestId {
        self.insert_waiting(Some(call), Box::new(Unread), delay, remote)
    }

    /// A chain that begins by waiting: then `call` is made, or its readback told.
    fn insert_waiting(
        &mut self,
        call: Option<Call<S>>,
        readback: Box<dyn Readback<S>>,
        delay: Duration,
        remote: Option<RequestId>,
    ) -> RequestId {
        let call = call.map_or(MaybeKey::NONE, |call| self.readbacks.keep_call(call));
        let key = self
            .chains
            .insert(Stage::Waiting { call }, None, delay, remote);
        self.readbacks.insert(key, readback);
        self.chains.id(key)
    }

    /// A chain that begins with `next`. Where that is nothing, the id names no chain.
    pub(super) fn start(&mut self, next: Next<S>, remote: Option<RequestId>) -> RequestId {
        let Next {
            action,
            delay,
            readback,
        } = next;
        let readback = readback.unwrap_or_else(|| Box::new(Unread));
        match action {
            Action::Send(request) => self.insert(request, readback, delay, remote),
            Action::Call(call) => {
                let (call, mark) = *call;
                let id = self.insert_waiting(Some(call), readback, delay, remote);
                self.chains.watch(id, mark);
                id
            }
            Action::Wait(mark) => {
                let id = self.insert_waiting(None, readback, delay, remote);
                self.chains.watch(id, mark.map(|mark| *mark));
                id
            }
            Action::Done | Action::Again | Action::Pend => remote.unwrap_or(RequestId::NONE),
        }
    }
}

impl<S> Sink<S> for Asks<'_, S> {
    fn start(&mut self, next: Next<S>) -> RequestId {
        self.start(next, None)
    }

    fn cancel(&mut self, id: RequestId) -> bool {
        self.chains.cancel(id)
    }

    fn resume(&mut self, id: RequestId) -> bool {
        self.chains.resume(id)
    }

    fn write(&mut self, id: RequestId, bytes: &[u8]) -> Option<usize> {
        self.chains.write(id, bytes)
    }

    fn stop(&mut self) {
        self.chains.stop();
    }
}
