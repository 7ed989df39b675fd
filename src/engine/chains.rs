//! All chains of an engine, and the commands that are not carried out yet.
//!
//! A chain has an entry in two tables, under the same key: [`Chains`] holds the engine's part of
//! it, and [`Readbacks`](super::asks::Readbacks) holds the caller's code.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use slab::Slab;

use crate::body::BodySource;
use crate::engine::chain::{Chain, ChainKey, Marks, Stage, Terms, When};
use crate::engine::chain_deadlines::ChainDeadlines;
use crate::engine::generations::{Generations, MAX_CHECKED, MAX_SWEPT};
use crate::engine::keys::Keys;
use crate::engine::outbox::Outbox;
use crate::generation::{Generation, Mark, Watcher};
use crate::id::ChainId;
use crate::net::slots::{MaybeKey, grow, put_at};
use crate::policy::Woken;
use crate::proto::Origin;
use crate::request::Request;
use crate::route::Route;
use crate::timeouts::{LowSpeedEdit, Retimed, TimeoutsEdit};

/// Work to do before the next link is processed.
#[derive(Debug)]
pub(super) enum Command {
    Start(ChainKey, When),
    Cancel(ChainId),
    Resume(ChainId),
    /// The chain's tunnel has something to be written.
    Flush(ChainId),
    /// The source of the chain's request has failed.
    FailBody(ChainId),
    /// The readback has changed the timeouts of the response that it is reading.
    Retime(ChainId),
    /// Continues a waiting chain now, if it is waiting for its waker.
    Wake(Woken),
    /// Opens a connection to the origin, by this route or the default one.
    Preconnect(Box<(Origin, Option<Arc<Route>>)>),
}

/// The capacity above which a command queue is freed once it is empty.
const KEPT_COMMANDS: usize = 4096;

/// All chains of an engine, and the commands that are not carried out yet.
pub(crate) struct Chains {
    slab: Slab<Chain>,
    /// How often each slot was reused. A slot is retired after 2³¹ uses.
    given_out: Vec<u32>,
    retired: usize,
    /// A tree instead of a hash table: while growing to a million entries, a hash table would move
    /// all of them in a single turn.
    by_remote_id: BTreeMap<ChainId, ChainKey>,
    /// The ids of chains marked `REMOTE`, by key. Entries of other chains are outdated.
    remote_ids: Vec<ChainId>,
    /// The visits of chains marked `VISITED`, by key. In most programs there are none.
    visits: Vec<u32>,
    commands: VecDeque<Command>,
    /// What is to be written on connections that switched protocols.
    tunnels: BTreeMap<ChainKey, Box<Outbox>>,
    /// The generations that chains belong to, apart from those of their requests.
    pub(super) generations: Generations,
    /// The keys that delayed chains hold.
    pub(super) keys: Keys,
    /// The deadlines of whole chains.
    pub(super) deadlines: ChainDeadlines,
    /// The timeouts that readbacks have changed, until their chains begin the next request.
    retimed: BTreeMap<ChainKey, Retimed>,
    /// The time stamp of new chains, in microseconds of the engine's life.
    pub(super) now: u64,
    pub(super) stopped: bool,
    pub(super) submitted: u64,
}

impl Chains {
    pub(super) fn new(ended: Weak<dyn Watcher>) -> Self {
        Self {
            slab: Slab::new(),
            given_out: Vec::new(),
            retired: 0,
            by_remote_id: BTreeMap::new(),
            remote_ids: Vec::new(),
            visits: Vec::new(),
            commands: VecDeque::new(),
            tunnels: BTreeMap::new(),
            generations: Generations::new(ended),
            keys: Keys::default(),
            deadlines: ChainDeadlines::default(),
            retimed: BTreeMap::new(),
            now: 0,
            stopped: false,
            submitted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.retired
    }

    /// Inserts a chain, and queues the command that starts it.
    pub(super) fn insert(
        &mut self,
        stage: Stage,
        request: Option<Request>,
        when: When,
        remote: Option<ChainId>,
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
            attempts: 0,
            failures: 0,
            marks,
        });
        if let Some(id) = remote {
            self.by_remote_id.insert(id, key);
            put_at(&mut self.remote_ids, key, id, || ChainId::NONE);
        }
        self.submitted += 1;
        self.commands.push_back(Command::Start(key, when));
        key
    }

    /// Returns the slot that the next insert takes, with its generation advanced.
    fn vacant_key(&mut self) -> ChainKey {
        grow(&mut self.slab);
        loop {
            let key = self.slab.vacant_key();
            if key == self.given_out.len() {
                if self.given_out.len() == self.given_out.capacity() {
                    self.given_out.reserve_exact((key / 16).max(64));
                }
                self.given_out.push(0);
                return key as ChainKey;
            }
            if self.given_out[key] < u32::MAX >> 1 {
                self.given_out[key] += 1;
                return key as ChainKey;
            }
            // Losing one slot in 2³¹ submissions is the cost of ids that are never reused.
            self.retired += 1;
            self.slab.insert(Chain {
                request: None,
                submitted: 0,
                stage: Stage::Retired,
                timer: None,
                origin: MaybeKey::NONE,
                attempts: 0,
                failures: 0,
                marks: Marks::default(),
            });
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: ChainKey) -> Chain {
        let chain = self.slab.remove(key as usize);
        debug_assert!(
            !self.tunnels.contains_key(&key),
            "tunnels end before their chains"
        );
        if chain.marks.has(Marks::METERED) {
            self.forget_retimed(key);
        }
        self.generations.forget(key);
        debug_assert!(
            !self.keys.has_one(key) && self.deadlines.get(key).is_none(),
            "both are given up before the chain ends"
        );
        if chain.marks.has(Marks::REMOTE) {
            self.by_remote_id.remove(&self.remote_ids[key as usize]);
        }
        chain
    }

    /// Returns the key of a chain's visit, if it has one.
    #[inline]
    pub(super) fn visit_of(&self, key: ChainKey) -> Option<usize> {
        let is_visited = self[key].marks.has(Marks::VISITED);
        is_visited.then(|| self.visits[key as usize] as usize)
    }

    /// Sets the key of a chain's visit.
    pub(super) fn set_visit(&mut self, key: ChainKey, visit: usize) {
        put_at(&mut self.visits, key, visit as u32, || 0);
        self[key].marks.set(Marks::VISITED);
    }

    /// Removes the key of a chain's visit, and returns it.
    pub(super) fn take_visit(&mut self, key: ChainKey) -> Option<usize> {
        let visit = self.visit_of(key);
        self[key].marks.clear(Marks::VISITED);
        visit
    }

    #[inline]
    pub(super) fn id(&self, key: ChainKey) -> ChainId {
        if self.slab[key as usize].marks.has(Marks::REMOTE) {
            self.remote_ids[key as usize]
        } else {
            ChainId::local(key, self.given_out[key as usize])
        }
    }

    /// Returns the chain with that key, if there is one.
    #[inline]
    pub(super) fn get_mut(&mut self, key: ChainKey) -> Option<&mut Chain> {
        self.slab.get_mut(key as usize)
    }

    /// Returns the key of the chain with this id, unless the chain has ended.
    #[inline]
    pub(super) fn find(&self, id: ChainId) -> Option<ChainKey> {
        if id.is_remote() {
            return self.by_remote_id.get(&id).copied();
        }
        let (key, generation) = id.parts();
        let live = self
            .slab
            .get(key as usize)
            .is_some_and(|chain| !chain.marks.has(Marks::REMOTE));
        (live && self.given_out[key as usize] == generation).then_some(key)
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
            // A queue that has grown for a million submissions would otherwise keep its memory
            // while they wait.
            self.commands = VecDeque::new();
        }
        Some(command)
    }

    /// Wakes a chain, if it is still waiting when the command is carried out.
    pub(super) fn wake(&mut self, woken: Woken) {
        self.commands.push_back(Command::Wake(woken));
    }

    /// Queues the end of a chain's exchange, because the source of its body has failed.
    pub(super) fn fail_body(&mut self, key: ChainKey) {
        let id = self.id(key);
        self.commands.push_back(Command::FailBody(id));
    }

    #[inline]
    pub(super) fn commands_len(&self) -> usize {
        self.commands.len()
    }

    /// Stamps the chains that are started by the commands from number `first` on with the current
    /// time.
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
    /// Queues the cancellation of a chain. Returns false if the chain has ended or was canceled
    /// before.
    pub(super) fn cancel(&mut self, id: ChainId) -> bool {
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

    /// Returns whether a chain was canceled or its deadline has passed.
    pub(super) fn is_ending(&self, id: ChainId) -> bool {
        let key = self.find(id);
        key.is_some_and(|key| self[key].marks.has_any(Marks::ENDS))
    }

    /// Returns whether a chain was canceled, and has not ended yet.
    pub(super) fn is_cancelled(&self, id: ChainId) -> bool {
        self.find(id)
            .is_some_and(|key| self[key].marks.has(Marks::CANCELLED))
    }

    /// Queues the cancellation of the chain that holds a key. Returns false if no chain does.
    pub(super) fn cancel_key(&mut self, name: &str) -> bool {
        let holder = self.keys.holder(name);
        holder.is_some_and(|key| self.cancel(self.id(key)))
    }

    /// Sets what the current step of a chain sets for the chain. The former holder of its key is
    /// canceled. The deadline is not armed yet.
    pub(super) fn set_terms(&mut self, key: ChainKey, terms: Terms) {
        let Terms {
            key: name,
            chain_timeout,
        } = terms;
        if let Some(former) = name.and_then(|name| self.keys.take(key, name)) {
            self.cancel(self.id(former));
        }
        if let Some(timeout) = chain_timeout {
            self.deadlines.set(key, timeout);
        }
    }

    /// Returns whether any chain holds a key or has a deadline.
    #[inline]
    pub(super) fn has_terms(&self) -> bool {
        !(self.keys.is_empty() && self.deadlines.is_empty())
    }

    /// Returns the timeouts of the response that a chain's readback is reading, to be changed.
    /// They begin as those of `request`. Returns `None` if the chain has ended.
    pub(super) fn retime(&mut self, id: ChainId, request: &Request) -> Option<&mut Retimed> {
        let key = self.find(id)?;
        self.commands.push_back(Command::Retime(id));
        self[key].marks.set(Marks::METERED);
        let of_request = || Retimed {
            timeouts: *request.timeouts(),
            low_speed: request.speeds().map_or(LowSpeedEdit::Nothing, |it| it.low),
        };
        Some(self.retimed.entry(key).or_insert_with(of_request))
    }

    /// Returns the timeouts that a chain's readback has changed for the response it is reading.
    #[inline]
    pub(super) fn retimed(&self, key: ChainKey) -> Option<&Retimed> {
        if self.retimed.is_empty() {
            return None;
        }
        self.retimed.get(&key)
    }

    /// Removes the timeouts of a chain's last response: the next request has its own.
    #[cold]
    pub(super) fn forget_retimed(&mut self, key: ChainKey) {
        self.retimed.remove(&key);
    }

    /// Returns the timeouts that apply to a chain's exchange, if the chain has a request.
    #[inline]
    pub(super) fn timeouts(&self, key: ChainKey) -> Option<&TimeoutsEdit> {
        let chain = &self[key];
        let request = chain.request.as_ref()?;
        // Tested first, because the chain is at hand.
        if !chain.marks.has(Marks::METERED) {
            return Some(request.timeouts());
        }
        Some(match self.retimed(key) {
            Some(retimed) => &retimed.timeouts,
            None => request.timeouts(),
        })
    }

    /// Queues the opening of a connection to `origin`, by `route` or the default one.
    pub(super) fn preconnect(&mut self, origin: Origin, route: Option<Arc<Route>>) {
        let preconnect = Command::Preconnect(Box::new((origin, route)));
        self.commands.push_back(preconnect);
    }

    /// Returns the ids of the chains for which `is_meant` holds.
    pub(super) fn ids_where(&self, is_meant: impl Fn(ChainKey) -> bool) -> Vec<ChainId> {
        let meant = self.keys().filter(|key| is_meant(*key));
        meant.map(|key| self.id(key)).collect()
    }

    /// Queues the cancellation of chains, and returns how many were neither over nor canceled
    /// before.
    pub(super) fn cancel_each(&mut self, ids: &[ChainId]) -> usize {
        ids.iter().filter(|id| self.cancel(**id)).count()
    }

    /// [`cancel_each`](Self::cancel_each) of every chain except `own`.
    pub(super) fn cancel_others(&mut self, own: ChainId) -> usize {
        let own = self.find(own);
        let others = self.ids_where(|key| Some(key) != own);
        self.cancel_each(&others)
    }

    /// [`cancel_each`](Self::cancel_each) of every chain.
    pub(super) fn cancel_all(&mut self) -> usize {
        let all = self.ids_where(|_| true);
        self.cancel_each(&all)
    }

    /// Queues the resumption of a paused exchange. Returns false if it is not paused.
    pub(super) fn resume(&mut self, id: ChainId) -> bool {
        let paused = self
            .find(id)
            .is_some_and(|key| self[key].marks.has(Marks::PAUSED));
        if paused {
            self.commands.push_back(Command::Resume(id));
        }
        paused
    }

    /// Turns a chain's connection into a tunnel.
    pub(super) fn open_tunnel(&mut self, key: ChainKey) {
        self.tunnels.insert(key, Box::default());
    }

    /// Returns what is to be written on a chain's tunnel, if it has one.
    pub(super) fn outbox(&mut self, key: ChainKey) -> Option<&mut Outbox> {
        self.tunnels.get_mut(&key).map(|outbox| &mut **outbox)
    }

    /// Removes a tunnel that has ended, or on which nothing can be written any more.
    pub(super) fn close_tunnel(&mut self, key: ChainKey) -> Option<Box<Outbox>> {
        self.tunnels.remove(&key)
    }

    /// Sets the source that a chain's tunnel is written from. Returns false if the chain has no
    /// tunnel.
    pub(super) fn write_from(&mut self, id: ChainId, source: Box<dyn BodySource>) -> bool {
        let key = self.find(id);
        let Some(outbox) = key.and_then(|key| self.tunnels.get_mut(&key)) else {
            return false;
        };
        outbox.set_source(source);
        if outbox.note() {
            self.commands.push_back(Command::Flush(id));
        }
        true
    }

    /// Queues bytes to be written on a chain's tunnel. Returns how many bytes are waiting now, or
    /// `None` if the chain has no tunnel.
    pub(super) fn write(&mut self, id: ChainId, bytes: &[u8]) -> Option<usize> {
        let key = self.find(id)?;
        let outbox = self.tunnels.get_mut(&key)?;
        if outbox.put(bytes) {
            self.commands.push_back(Command::Flush(id));
        }
        Some(outbox.waiting().len())
    }

    /// Returns the generation that a chain's request belongs to, if any.
    #[inline]
    pub(super) fn mark_of_request(&self, key: ChainKey) -> Option<&Mark> {
        self.generations
            .of_spared(key)
            .or_else(|| self[key].request.as_ref()?.generation())
    }

    /// Returns whether the generation has ended that a chain's request belongs to, but no sweep has
    /// reached the chain yet.
    #[inline]
    pub(super) fn is_request_over(&self, key: ChainKey) -> bool {
        self.mark_of_request(key).is_some_and(Mark::is_over)
    }

    /// Keeps a chain in the generation of its request when `next` is sent in its place.
    pub(super) fn keep_generation(&mut self, key: ChainKey, next: &Request) {
        let Some(mark) = self.mark_of_request(key) else {
            return;
        };
        // Usually the request was edited, and has the same mark.
        if !next.generation().is_some_and(|next| next.is_same(mark)) {
            let mark = mark.clone();
            self.generations.spare(key, mark);
        }
    }

    /// Makes a chain that sends end with the generation of its request, if that belongs to one.
    #[inline(never)]
    pub(super) fn watch_request(&mut self, key: ChainKey) {
        self.generations.set_waiting(key, None);
        let is_there = match self.generations.of_spared(key).cloned() {
            Some(spared) => self.generations.watch(&spared),
            None => match self.slab[key as usize]
                .request
                .as_ref()
                .and_then(Request::generation)
            {
                Some(mark) => self.generations.watch(mark),
                None => true,
            },
        };
        if !is_there {
            self.cancel(self.id(key));
        }
    }

    /// Makes a chain that waits end with the generation that `mark` belongs to. Without a mark, it
    /// belongs to no generation.
    pub(super) fn watch_wait(&mut self, key: ChainKey, mark: Option<Mark>) {
        let is_over = mark
            .as_ref()
            .is_some_and(|mark| !self.generations.watch(mark));
        self.generations.set_waiting(key, mark);
        if is_over {
            self.cancel(self.id(key));
        }
    }

    /// Ends the generation of a session, but not for the chain `own`, whose last request is
    /// `request`: if it belongs to the session, it belongs to the next generation from now on.
    pub(super) fn end_generation(
        &mut self,
        generation: &Generation,
        own: ChainId,
        request: Option<&Request>,
    ) {
        generation.end();
        if let Some(key) = self.find(own) {
            self.spare(key, generation, request);
        }
        // At once, as `cancel` does: the response to another of these chains may have arrived
        // already, and must not look like one of the next generation. What this does not reach is
        // left to the next turns.
        self.generations.on_ended();
        self.sweep();
    }

    /// Moves a chain to the current generation of its session, if it belongs to an earlier one.
    fn spare(&mut self, key: ChainKey, generation: &Generation, request: Option<&Request>) {
        let is_of = |mark: &&Mark| mark.is_of(generation);
        let mark = self.generations.of_spared(key);
        let mark = mark.or_else(|| request?.generation());
        if mark.filter(is_of).is_some() {
            let renewed = generation.mark();
            self.generations.watch(&renewed);
            self.generations.spare(key, renewed);
        }
        if self.generations.of_waiting(key).filter(is_of).is_some() {
            let renewed = generation.mark();
            self.generations.watch(&renewed);
            self.generations.set_waiting(key, Some(renewed));
        }
    }

    /// Cancels chains whose generation has ended, among those that one turn checks.
    pub(super) fn sweep(&mut self) {
        let slots = self.given_out.len() as ChainKey;
        let mut unchecked = self.generations.take_unchecked();
        let (mut over, mut checked) = (Vec::new(), 0);
        while let Some(at) = unchecked
            && over.len() < MAX_SWEPT
            && checked < MAX_CHECKED
        {
            if self.is_over(at.next) {
                over.push(self.id(at.next));
            }
            checked += 1;
            unchecked = at.advanced(slots);
        }
        self.generations.set_unchecked(unchecked);
        self.cancel_each(&over);
    }

    /// Returns whether the generation of the chain in this slot has ended.
    pub(super) fn is_over(&self, key: ChainKey) -> bool {
        let Some(chain) = self.slab.get(key as usize) else {
            return false;
        };
        match chain.stage {
            Stage::Retired => false,
            // Its request is the last one, which may have ended long ago.
            Stage::Waiting { .. } | Stage::Due { .. } => {
                self.generations.of_waiting(key).is_some_and(Mark::is_over)
            }
            // Its readback or call is running, and decides whether it goes on with that request.
            Stage::Reading if chain.request.is_none() => false,
            // It has ended already, perhaps out of a wait.
            Stage::Failed if chain.marks.has(Marks::EXPIRED) => false,
            _ => self.is_request_over(key),
        }
    }

    /// Makes [`Engine::run`](crate::Engine::run) return at the end of this turn.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }
}
