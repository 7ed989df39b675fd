//! Chains that belong to a generation of a session and end with it.
//!
//! A chain that sends belongs to the generation of its request, so nothing is recorded for it here.
//! The generations of waits, calls and tasks are. A generation can be ended on any thread, and
//! holds no list of its chains: ending it wakes the engine, which then checks all its chains.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::engine::chain::ChainKey;
use crate::engine::waking::Waking;
use crate::generation::{Mark, Watcher};

/// The most chains that a turn ends after a generation has ended.
pub(super) const MAX_SWEPT: usize = 2048;

/// The most slots of chains that a turn checks after a generation has ended.
pub(super) const MAX_CHECKED: usize = 16 * MAX_SWEPT;

/// The generations that the chains of one engine belong to, apart from those of their requests.
pub(super) struct Generations {
    /// The generations of chains that wait, or run a call or a task.
    waiting: BTreeMap<ChainKey, Mark>,
    /// The generations of chains that have ended the one that their last request was built for.
    /// They override that of the request if it is sent again.
    spared: BTreeMap<ChainKey, Mark>,
    /// Wakes the engine and records that a generation has ended.
    watcher: Weak<dyn Watcher>,
    /// The generation that the engine was last registered with.
    watched: Option<Mark>,
    unchecked: Option<Unchecked>,
}

/// The slots of chains that are still to be checked after a generation has ended.
///
/// Another end adds the slots that were checked before it. The check does not start over, because
/// if sessions end again and again, it would never reach the last slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unchecked {
    /// The next one. All slots from here on are to be checked, ...
    pub(super) next: ChainKey,
    /// ... up to this one if there is one, ...
    end: Option<ChainKey>,
    /// ... and then the first ones, up to this one.
    again: ChainKey,
}

impl Unchecked {
    /// Returns what is left after the next slot of `slots`, if anything is.
    pub(super) fn advanced(self, slots: ChainKey) -> Option<Self> {
        let next = self.next + 1;
        if next < self.end.map_or(slots, |end| end.min(slots)) {
            return Some(Self { next, ..self });
        }
        (self.again > 0).then_some(Self {
            next: 0,
            end: Some(self.again),
            again: 0,
        })
    }
}

/// A flag that is set when a generation ends.
pub(super) struct Ended {
    is_set: AtomicBool,
    waking: Arc<Waking>,
}

impl Ended {
    pub(super) fn new(waking: Arc<Waking>) -> Self {
        Self {
            is_set: AtomicBool::new(false),
            waking,
        }
    }

    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    pub(super) fn take(&self) -> bool {
        self.is_set.swap(false, Ordering::AcqRel)
    }
}

impl Watcher for Ended {
    fn on_end(&self) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            self.waking.announce();
        }
    }
}

impl Generations {
    pub(super) fn new(watcher: Weak<dyn Watcher>) -> Self {
        Self {
            waiting: BTreeMap::new(),
            spared: BTreeMap::new(),
            watcher,
            watched: None,
            unchecked: None,
        }
    }

    /// Has the engine woken when the generation of `mark` ends. Returns false if it has ended.
    #[inline]
    pub(super) fn watch(&mut self, mark: &Mark) -> bool {
        if mark.is_over() {
            return false;
        }
        // Most chains belong to the same session, so this is the usual case.
        if self
            .watched
            .as_ref()
            .is_some_and(|watched| watched.is_same(mark))
        {
            return true;
        }
        let is_there = mark.watch(&self.watcher);
        if is_there {
            self.watched = Some(mark.clone());
        }
        is_there
    }

    /// Sets the generation of a chain that waits. Without one, it belongs to none.
    #[inline]
    pub(super) fn set_waiting(&mut self, key: ChainKey, mark: Option<Mark>) {
        match mark {
            Some(mark) => drop(self.waiting.insert(key, mark)),
            None if self.waiting.is_empty() => {}
            None => drop(self.waiting.remove(&key)),
        }
    }

    /// Returns the generation of a chain that waits, if it belongs to one.
    pub(super) fn of_waiting(&self, key: ChainKey) -> Option<&Mark> {
        self.waiting.get(&key)
    }

    /// Sets the generation that the last request of a chain belongs to from now on.
    pub(super) fn spare(&mut self, key: ChainKey, mark: Mark) {
        self.spared.insert(key, mark);
    }

    /// Returns the generation that overrides that of a chain's request, if there is one.
    #[inline]
    pub(super) fn of_spared(&self, key: ChainKey) -> Option<&Mark> {
        if self.spared.is_empty() {
            return None;
        }
        self.spared.get(&key)
    }

    /// Removes the generation that overrides that of a chain's request, because the chain has
    /// another request now.
    #[inline]
    pub(super) fn forget_spared(&mut self, key: ChainKey) {
        if !self.spared.is_empty() {
            self.spared.remove(&key);
        }
    }

    /// Returns whether generations of chains are recorded here.
    #[inline]
    pub(super) fn has_some(&self) -> bool {
        !self.waiting.is_empty() || !self.spared.is_empty()
    }

    /// Removes what is recorded of a chain.
    #[inline]
    pub(super) fn forget(&mut self, key: ChainKey) {
        if self.has_some() {
            self.waiting.remove(&key);
            self.spared.remove(&key);
        }
    }

    /// Handles the end of a generation: all chains are to be checked.
    pub(super) fn on_ended(&mut self) {
        let next = self.unchecked.map_or(0, |unchecked| unchecked.next);
        self.unchecked = Some(Unchecked {
            next,
            end: None,
            again: next,
        });
    }

    /// Returns whether there are chains still to be checked.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.unchecked.is_some()
    }

    /// Returns which slots of chains are to be checked. The check begins there now, and
    /// [`set_unchecked`](Self::set_unchecked) tells how far it got.
    pub(super) fn take_unchecked(&mut self) -> Option<Unchecked> {
        self.unchecked.take()
    }

    pub(super) fn set_unchecked(&mut self, unchecked: Option<Unchecked>) {
        self.unchecked = unchecked;
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::generation::Generation;
    use crate::sim::{Answer, Incoming, Network};
    use crate::{Config, Context, Engine, Next, Reply, Request, Sim};

    type Told = Vec<String>;

    fn engine() -> (Network, Engine<Told, Sim>) {
        let network = Network::new(1);
        let addr = "192.0.2.1:80".parse().unwrap();
        network.serve(addr, |_: &Incoming| {
            Answer::ok("a").after(Duration::from_secs(1))
        });
        let engine = Engine::on_network(&network, Config::default()).unwrap();
        (network, engine)
    }

    fn request(generation: &Generation) -> Request {
        let request = Request::get("http://192.0.2.1/").marked(generation.mark());
        request.build().unwrap()
    }

    fn note(told: &mut Told, reply: Reply<'_>, _: &mut Context<'_, Told>) -> Next<Told> {
        told.push(match reply {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        });
        // Ignored after a cancellation.
        Next::again()
    }

    #[test]
    fn whatever_belongs_to_a_generation_ends_with_it_wherever_it_is() {
        let (_network, mut engine) = engine();
        let (ended, other) = (Generation::new(), Generation::new());
        let delay = Duration::from_secs(100);
        // A request in flight, a delayed one and one in the inbox; a call, a wait and a task.
        engine.submit(request(&ended), note);
        engine.start(Next::send(request(&ended)).after(delay).read_by(note));
        let submitter = engine.submitter();
        let mut told = Told::new();
        engine
            .advance(&mut told, Duration::from_millis(500))
            .unwrap();
        submitter.submit(request(&ended), note).unwrap();
        let call =
            Next::call(|_: &mut Told, _: &mut Context<'_, Told>| panic!("the generation is over"));
        engine.start(call.after(delay).marked(ended.mark()));
        engine.start(Next::wait().after(delay).marked(ended.mark()).read_by(note));
        let held = Rc::new(());
        let task = Rc::clone(&held);
        let task = async move {
            std::future::pending::<()>().await;
            drop(task);
        };
        engine.start(Next::task(task).marked(ended.mark()));
        // A call of another session.
        let call = Next::call(|told: &mut Told, _: &mut Context<'_, Told>| {
            told.push("other".to_owned());
            Next::done()
        });
        engine.start(call.after(delay).marked(other.mark()));
        engine.advance(&mut told, Duration::from_millis(1)).unwrap();
        assert_eq!(engine.pending(), 7);
        let ends = ended.clone();
        std::thread::spawn(move || ends.end()).join().unwrap();
        engine.advance(&mut told, Duration::from_millis(1)).unwrap();
        assert_eq!(told, ["Cancelled"; 4]);
        assert_eq!(Rc::strong_count(&held), 1, "the task was not dropped");
        assert_eq!(engine.pending(), 1);
        drop(submitter);
        engine.run(&mut told).unwrap();
        assert_eq!(told[4..], ["other"]);
        // A request built before the end is invalid for good; one built now is not.
        let old = request(&ended);
        ended.end();
        engine.submit(old, note);
        let mut left = 2;
        engine.submit(request(&ended), move |told: &mut Told, reply, cx| {
            left -= 1;
            let next = note(told, reply, cx);
            if left > 0 { next } else { cx.done() }
        });
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!(told, ["Cancelled", "ok", "ok"]);
    }

    /// Returns the number of requests that reached the server.
    fn came(network: &Network) -> usize {
        network.ledger().requests().len()
    }

    #[test]
    fn a_request_of_an_ended_generation_is_not_sent_behind_another() {
        let (network, mut engine) = engine();
        let generation = Generation::new();
        let (old, new) = (request(&generation), Request::get("http://192.0.2.1/"));
        let mut next = Some(old);
        engine.submit(new.build().unwrap(), move |told: &mut Told, reply, cx| {
            let _ = note(told, reply, cx);
            // The connection is open and free.
            next.take().map_or_else(Next::done, Next::send)
        });
        generation.end();
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!(told, ["ok", "Cancelled"]);
        assert_eq!((came(&network), engine.pending()), (1, 0));
        assert_eq!(engine.stats().reused, 0, "an exchange began");
    }

    #[test]
    fn what_is_due_in_the_turn_in_which_its_generation_ends_is_not_sent() {
        let (network, mut engine) = engine();
        let generation = Generation::new();
        let many = MAX_SWEPT + 100;
        for _ in 0..many {
            let delayed = Next::send(request(&generation)).after(Duration::from_secs(1));
            engine.start(delayed.read_by(note));
        }
        let mut told = Told::new();
        engine
            .advance(&mut told, Duration::from_millis(500))
            .unwrap();
        network.sleep(Duration::from_secs(1));
        // More chains than a turn checks.
        generation.end();
        engine.run(&mut told).unwrap();
        assert!(told.iter().all(|told| told == "Cancelled"));
        assert_eq!((told.len(), came(&network)), (many, 0));
        assert_eq!(
            network.ledger().attempts().len(),
            0,
            "a connection was attempted"
        );
    }

    #[test]
    fn a_chain_that_has_gone_on_to_something_else_stays() {
        let (_network, mut engine) = engine();
        let generation = Generation::new();
        engine.submit(request(&generation), |_: &mut Told, _, _| {
            Next::call(|told: &mut Told, cx: &mut Context<'_, Told>| {
                told.push("called".to_owned());
                cx.done()
            })
            .after(Duration::from_secs(10))
        });
        let mut told = Told::new();
        engine.advance(&mut told, Duration::from_secs(5)).unwrap();
        generation.end();
        engine.run(&mut told).unwrap();
        assert_eq!(told, ["called"]);
    }

    #[test]
    fn thousands_are_looked_at_a_part_a_turn() {
        let (_network, mut engine) = engine();
        let generation = Generation::new();
        for _ in 0..3 * MAX_SWEPT {
            let wait = Next::wait().after(Duration::MAX).marked(generation.mark());
            engine.start(wait);
        }
        let mut told = Told::new();
        while engine.next_timeout() == Some(Duration::ZERO) {
            engine.turn(&mut told).unwrap();
        }
        generation.end();
        let mut most = 0;
        while engine.pending() > 0 {
            let before = engine.pending();
            engine.turn(&mut told).unwrap();
            most = most.max(before - engine.pending());
        }
        assert!((1..=MAX_SWEPT).contains(&most), "{most}");
    }
}
