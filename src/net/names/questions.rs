//! The questions put to the resolver: each is put once for all links that ask it, and a limited
//! number is in flight at a time.
//!
//! ```text
//!            waits for room in the window ──► in flight ──► answered
//!                         └───────────────────────┴───────► dropped by its last link, or given up
//! ```
//!
//! Questions that wait for room are put first in, first out. A question is only put for a link, and
//! is canceled when the last link forgets it. A question that was put before the network changed
//! is *outdated*: its links still wait for it, but no others join them. If stale addresses stand in
//! for a late answer, the question is *left behind* by its links. It stays in flight for the cache
//! alone, until it is answered or given up.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Instant;

use mio::Token;

use super::Both;
use crate::resolver::{Family, LookupId};

#[derive(Debug)]
pub(super) struct Questions {
    open: HashMap<LookupId, Question>,
    by_name: HashMap<Rc<str>, Both<Option<LookupId>>>,
    /// Open, but no longer listed under their names.
    outdated: BTreeSet<LookupId>,
    /// Open, but not put to the resolver yet. Ids increase, so the first has waited longest.
    waiting: BTreeSet<LookupId>,
    timers: BTreeSet<(Instant, LookupId)>,
    last_id: LookupId,
    /// How many may be in flight at once.
    window: usize,
}

#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: Rc<str>,
    pub(super) family: Family,
    /// The links that wait for it, in the order of their tokens: roughly, the first to ask is the
    /// first to be answered.
    links: BTreeSet<Token>,
    /// With links: when they have waited long enough. Left behind: when the question is given up.
    timer: Option<Instant>,
    is_outdated: bool,
}

impl Question {
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    pub(super) fn is_left_behind(&self) -> bool {
        self.links.is_empty()
    }

    pub(super) fn into_links(self) -> Vec<Token> {
        self.links.into_iter().collect()
    }
}

/// A question that has been removed.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) question: Question,
    /// Whether it was put to the resolver.
    pub(super) was_asked: bool,
}

impl Questions {
    pub(super) fn new(window: usize) -> Self {
        Self {
            open: HashMap::new(),
            by_name: HashMap::new(),
            outdated: BTreeSet::new(),
            waiting: BTreeSet::new(),
            timers: BTreeSet::new(),
            last_id: LookupId(0),
            window,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn get(&self, id: LookupId) -> Option<&Question> {
        self.open.get(&id)
    }

    /// Lets a link wait for a question. If the question is new, it is added, and its timer is set
    /// to `timer`.
    pub(super) fn join(&mut self, name: &str, family: Family, link: Token, timer: Option<Instant>) {
        let id = match self.by_name.get(name).and_then(|ids| *ids.of(family)) {
            Some(id) => id,
            None => self.put(name, family, timer),
        };
        if let Some(question) = self.open.get_mut(&id) {
            question.links.insert(link);
        }
    }

    fn put(&mut self, name: &str, family: Family, timer: Option<Instant>) -> LookupId {
        self.last_id = LookupId(self.last_id.0 + 1);
        let id = self.last_id;
        let name = match self.by_name.get_key_value(name) {
            Some((name, _)) => Rc::clone(name),
            None => name.into(),
        };
        *self
            .by_name
            .entry(Rc::clone(&name))
            .or_default()
            .of_mut(family) = Some(id);
        let question = Question {
            name,
            family,
            links: BTreeSet::new(),
            timer,
            is_outdated: false,
        };
        self.open.insert(id, question);
        self.waiting.insert(id);
        self.timers.extend(timer.map(|at| (at, id)));
        id
    }

    /// Returns the next question to put to the resolver, if the window has room. It counts as in
    /// flight from now on.
    pub(super) fn next_to_ask(&mut self) -> Option<(LookupId, &Question)> {
        if !self.has_room() {
            return None;
        }
        let id = self.waiting.pop_first()?;
        self.open.get(&id).map(|question| (id, question))
    }

    /// Outdated questions may fill a window of their own: their servers may have become
    /// unreachable, and they must not block the others.
    fn has_room(&self) -> bool {
        let asked = self.open.len() - self.waiting.len();
        asked - self.outdated.len().min(self.window) < self.window
    }

    /// Removes a link from the questions for `name`. Returns those without any link left, which are
    /// still open.
    pub(super) fn forget(&mut self, name: &str, token: Token) -> Both<Option<LookupId>> {
        let ids = self.by_name.get(name).copied().unwrap_or_default();
        ids.map(|id| {
            let question = self.open.get_mut(&id?)?;
            let was_last = question.links.remove(&token) && question.links.is_empty();
            was_last.then_some(id?)
        })
    }

    /// Closes the questions in flight to further links. Questions that still wait for room will be
    /// put to the new servers.
    pub(super) fn outdate(&mut self) {
        for (id, question) in &mut self.open {
            if !self.waiting.contains(id) && self.outdated.insert(*id) {
                question.is_outdated = true;
                if let Some(ids) = self.by_name.get_mut(&question.name) {
                    *ids.of_mut(question.family) = None;
                    if ids.of(question.family.other()).is_none() {
                        self.by_name.remove(&question.name);
                    }
                }
            }
        }
    }

    /// Like [`forget`](Self::forget), for outdated questions. Returns one question without links
    /// per call.
    pub(super) fn forget_outdated(&mut self, name: &str, token: Token) -> Option<LookupId> {
        self.outdated.iter().copied().find(|id| {
            let question = self.open.get_mut(id);
            question.is_some_and(|question| {
                *question.name == *name
                    && question.links.remove(&token)
                    && question.links.is_empty()
            })
        })
    }

    /// Removes a question. Returns `None` if it has been removed already.
    pub(super) fn close(&mut self, id: LookupId) -> Option<Closed> {
        let question = self.open.remove(&id)?;
        let was_asked = !self.waiting.remove(&id);
        if let Some(at) = question.timer {
            self.timers.remove(&(at, id));
        }
        if self.outdated.remove(&id) {
            // Its name may already list a newer question.
        } else if let Some(ids) = self.by_name.get_mut(&question.name) {
            *ids.of_mut(question.family) = None;
            if ids.of(question.family.other()).is_none() {
                self.by_name.remove(&question.name);
            }
        }
        Some(Closed {
            question,
            was_asked,
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns a question whose timer has expired, and clears that timer.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<LookupId> {
        let (at, id) = *self.timers.first()?;
        if now < at {
            return None;
        }
        self.timers.pop_first();
        if let Some(question) = self.open.get_mut(&id) {
            question.timer = None;
        }
        Some(id)
    }

    /// If a question with links waits for room, returns the first question in flight that was left
    /// behind.
    pub(super) fn next_to_make_way(&self) -> Option<LookupId> {
        let is_left_behind =
            |id: &LookupId| self.open.get(id).is_some_and(Question::is_left_behind);
        if is_left_behind(self.waiting.first()?) {
            return None;
        }
        let asked = self.timers.iter().map(|(_, id)| *id);
        let mut asked = asked.filter(|id| !self.waiting.contains(id));
        asked.find(is_left_behind)
    }

    /// Takes the links from a question, which stays in flight without them until `given_up`.
    pub(super) fn leave_behind(&mut self, id: LookupId, given_up: Instant) -> Vec<Token> {
        let Some(question) = self.open.get_mut(&id) else {
            return Vec::new();
        };
        question.timer = Some(given_up);
        self.timers.insert((given_up, id));
        std::mem::take(&mut question.links).into_iter().collect()
    }
}

#[cfg(test)]
impl Questions {
    /// Checks the invariants that hold between any two calls.
    pub(super) fn assert_sound(&self) {
        let named = self.by_name.iter().flat_map(|(name, ids)| {
            assert_ne!(*ids, Both::default(), "{name} is listed without a question");
            let ids = [(Family::V6, ids.v6), (Family::V4, ids.v4)];
            ids.into_iter()
                .filter_map(move |(family, id)| Some((id?, name, family)))
        });
        let mut count = 0;
        for (id, name, family) in named {
            let question = &self.open[&id];
            assert_eq!((&question.name, question.family), (name, family));
            count += 1;
        }
        for id in &self.outdated {
            assert!(self.open[id].is_outdated() && !self.waiting.contains(id));
        }
        let found = count + self.outdated.len();
        assert_eq!(
            found,
            self.open.len(),
            "each question is listed under its name or as outdated"
        );
        assert!(self.waiting.iter().all(|id| self.open.contains_key(id)));
        let asked = self.open.len() - self.waiting.len();
        let all = self.window + self.outdated.len().min(self.window);
        assert!(asked == all || asked < all && self.waiting.is_empty());
        let timers = self
            .open
            .iter()
            .filter_map(|(id, question)| Some((question.timer?, *id)));
        assert_eq!(self.timers, timers.collect());
        for question in self
            .open
            .values()
            .filter(|question| question.is_left_behind())
        {
            assert!(
                question.timer.is_some(),
                "{question:?} would stay in flight forever"
            );
        }
    }
}
