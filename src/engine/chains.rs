//! All chains of an engine, and what was asked of it since it last looked.
//!
//! A chain is in two tables under one key: [`Chains`] has what the engine needs to know of it, and
//! [`Readbacks`](super::asks::Readbacks) what its caller wrote.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use slab::Slab;

use crate::engine::chain::{Chain, ChainKey, Marks, Stage, When};
use crate::engine::generations::Generations;
use crate::engine::outbox::Outbox;
use crate::generation::Mark;
use crate::id::ChainId;
use crate::net::slots::{MaybeKey, grow, put_at};
use crate::policy::Rung;
use crate::request::Request;

/// What is to be done before the next link is touched.
#[derive(Debug)]
pub(super) enum Command {
    Start(ChainKey, When),
    Cancel(ChainId),
    Resume(ChainId),
    /// There is something to be written on its tunnel.
    Flush(ChainId),
    /// A chain that waits goes on now, if it waits so.
    Wake(Rung),
}

/// A longer queue of commands is given back when it is empty.
const KEPT_COMMANDS: usize = 4096;

/// All chains of an engine, and what was asked of it since it last looked.
pub(crate) struct Chains {
    slab: Slab<Chain>,
    /// How often each slot was given out. A slot that was given out 2³¹ times is not used again.
    given_out: Vec<u32>,
    retired: usize,
    /// A tree, since a hash table that grows to hold a million moves them all at once, inside some
    /// turn.
    by_remote_id: BTreeMap<ChainId, ChainKey>,
    /// The ids of chains that are marked so, by their keys; of the others whatever was there.
    remote_ids: Vec<ChainId>,
    /// The visits of chains that are marked so, likewise. Most programs have none.
    visits: Vec<u32>,
    commands: VecDeque<Command>,
    /// What is to be written on connections whose protocol was switched.
    tunnels: BTreeMap<ChainKey, Outbox>,
    /// The generations that chains wait in, or their requests belong to.
    pub(super) generations: Generations,
    /// What a chain is stamped with that is submitted now: microseconds of the engine's life.
    pub(super) now: u64,
    pub(super) stopped: bool,
    pub(super) submitted: u64,
}

impl Chains {
    pub(super) fn new(ended: Waker) -> Self {
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
            now: 0,
            stopped: false,
            submitted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.retired
    }

    /// Begins a chain, which a command is to start.
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

    /// The slot that the next insert takes, its generation counted up.
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
            // One slot in 2³¹ submissions is the price of ids that are never reused.
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
        self.tunnels.remove(&key);
        self.generations.forget(key);
        if chain.marks.has(Marks::REMOTE) {
            self.by_remote_id.remove(&self.remote_ids[key as usize]);
        }
        chain
    }

    /// Which visit a policy has of a chain, if it has one.
    #[inline]
    pub(super) fn visit_of(&self, key: ChainKey) -> Option<usize> {
        let is_visited = self[key].marks.has(Marks::VISITED);
        is_visited.then(|| self.visits[key as usize] as usize)
    }

    /// A policy sees to a chain's requests from now on.
    pub(super) fn set_visit(&mut self, key: ChainKey, visit: usize) {
        put_at(&mut self.visits, key, visit as u32, || 0);
        self[key].marks.set(Marks::VISITED);
    }

    /// It sees to them no longer.
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

    /// The chain of that key, if there is one.
    #[inline]
    pub(super) fn get_mut(&mut self, key: ChainKey) -> Option<&mut Chain> {
        self.slab.get_mut(key as usize)
    }

    /// The chain that `id` names, if it is not over.
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
            // A million requests submitted at once need not cost their queue as long as they wait.
            self.commands = VecDeque::new();
        }
        Some(command)
    }

    /// Lets a chain go on that waits by the time the command is carried out.
    pub(super) fn wake(&mut self, rung: Rung) {
        self.commands.push_back(Command::Wake(rung));
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

    /// Asks that all chains but one be ended; returns how many.
    pub(super) fn cancel_others(&mut self, id: ChainId) -> usize {
        let own = self.find(id);
        let others = self.keys().filter(|key| Some(*key) != own);
        let ids: Vec<ChainId> = others.map(|key| self.id(key)).collect();
        ids.into_iter().filter(|id| self.cancel(*id)).count()
    }

    /// Asks that a paused exchange go on. False: it is not paused.
    pub(super) fn resume(&mut self, id: ChainId) -> bool {
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
        outbox.on_looked_at();
        Some(outbox)
    }

    /// The tunnel has ended.
    pub(super) fn close_tunnel(&mut self, key: ChainKey) {
        self.tunnels.remove(&key);
    }

    /// Has bytes written on a chain's tunnel. Answers how many wait now; `None`: it has none.
    pub(super) fn write(&mut self, id: ChainId, bytes: &[u8]) -> Option<usize> {
        let key = self.find(id)?;
        let outbox = self.tunnels.get_mut(&key)?;
        if outbox.put(bytes) {
            self.commands.push_back(Command::Flush(id));
        }
        Some(outbox.waiting().len())
    }

    /// Has a chain end with the generation that its request belongs to, if it belongs to one.
    #[cold]
    pub(super) fn watch_request(&mut self, key: ChainKey) {
        let mark = self[key].request().generation().cloned();
        self.watch(self.id(key), mark);
    }

    /// Has a chain end with the generation of a session that it belongs to now, if it belongs to
    /// one.
    pub(super) fn watch(&mut self, id: ChainId, mark: Option<Mark>) {
        let Some(key) = self.find(id) else {
            return;
        };
        match mark {
            None => self.generations.forget(key),
            Some(mark) => {
                if !self.generations.watch(key, mark) {
                    self.cancel(id);
                }
            }
        }
    }

    /// Ends chains whose generation is over, as many as a turn looks at.
    pub(super) fn sweep(&mut self) {
        for key in self.generations.sweep() {
            self.cancel(self.id(key));
        }
    }

    /// Asks that [`Engine::run`](crate::Engine::run) end with this turn.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }
}
