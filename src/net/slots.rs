//! Slab keys and generations in tokens: a stale event is recognised here.
//!
//! A slab gives a freed key out again at once, and an event for the old owner may still stand in
//! the batch, or come from a duplicate of its file descriptor. A token therefore carries the slot
//! and a generation; an event whose generation is not the slot's is nobody's.

use std::fmt;
use std::ops::Range;

use mio::Token;
use slab::Slab;

use crate::net::readiness::ALARM;

/// Slab key of a link.
pub(crate) type LinkKey = u32;

/// An `Option` of a slab's key in four bytes: no slab holds so many entries that it would give out
/// the largest key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaybeKey(u32);

impl MaybeKey {
    pub(crate) const NONE: Self = Self(u32::MAX);

    pub(crate) fn get(self) -> Option<u32> {
        (self != Self::NONE).then_some(self.0)
    }
}

impl From<u32> for MaybeKey {
    fn from(key: u32) -> Self {
        Self(key)
    }
}

impl From<Option<u32>> for MaybeKey {
    fn from(key: Option<u32>) -> Self {
        key.map_or(Self::NONE, Self)
    }
}

impl fmt::Debug for MaybeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Makes room for one more, a sixteenth at a time: doubling would waste up to half of what a
/// million waiting entries take.
pub(crate) fn grow<T>(slab: &mut Slab<T>) {
    if slab.len() == slab.capacity() {
        slab.reserve_exact((slab.len() / 16).max(16));
    }
}

/// Puts `value` at `key` of a table that stands beside a slab, under the same keys. It grows as
/// [`grow`] has it; what was never put is as `absent` makes it.
pub(crate) fn put_at<T>(table: &mut Vec<T>, key: u32, value: T, absent: impl FnMut() -> T) {
    let key = key as usize;
    if key >= table.len() {
        let more = key + 1 - table.len();
        if more > table.capacity() - table.len() {
            table.reserve_exact(more + (key / 16).max(64));
        }
        table.resize_with(key + 1, absent);
    }
    table[key] = value;
}

/// Bits of a token that are the slot; the rest is the generation, but for the top bit.
const SLOT_BITS: u32 = usize::BITS / 2;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;

/// Tokens with the top bit set are the resolver's, but for the last two, which are the alarm's and
/// the waker's.
pub(crate) const RESOLVER_TOKENS: Range<usize> = 1 << (usize::BITS - 1)..ALARM.0;
const GENERATION_MASK: usize = (RESOLVER_TOKENS.start - 1) & !SLOT_MASK;

/// How often a slot was given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// What stands in a token.
    pub(crate) fn split(token: Token) -> (LinkKey, Self) {
        let generation = (token.0 & GENERATION_MASK) >> SLOT_BITS;
        ((token.0 & SLOT_MASK) as LinkKey, Self(generation as u32))
    }

    /// As it stands in a token: after as many as fit in there, it begins anew.
    pub(crate) fn number(self) -> usize {
        ((self.0 as usize) << SLOT_BITS & GENERATION_MASK) >> SLOT_BITS
    }

    fn bits(self) -> usize {
        (self.0 as usize) << SLOT_BITS & GENERATION_MASK
    }
}

/// Entries under keys, each with the generation of its slot.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slab: Slab<T>,
    /// Of all slots, vacant ones included.
    generations: Vec<Generation>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self {
            slab: Slab::new(),
            generations: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, entry: T) -> LinkKey {
        grow(&mut self.slab);
        let key = self.slab.insert(entry);
        match self.generations.get_mut(key) {
            Some(generation) => generation.0 = generation.0.wrapping_add(1),
            None => self.generations.push(Generation::default()),
        }
        key as LinkKey
    }

    pub(crate) fn remove(&mut self, key: LinkKey) -> T {
        self.slab.remove(key as usize)
    }

    pub(crate) fn generation(&self, key: LinkKey) -> Generation {
        self.generations[key as usize]
    }

    pub(crate) fn token(&self, key: LinkKey) -> Token {
        Token(self.generation(key).bits() | key as usize)
    }

    /// The key behind `token`, unless its entry is gone.
    pub(crate) fn find(&self, token: Token) -> Option<LinkKey> {
        let key = token.0 & SLOT_MASK;
        let generation = self.generations.get(key)?;
        let is_there = generation.bits() | key == token.0 && self.slab.contains(key);
        is_there.then_some(key as LinkKey)
    }

    pub(crate) fn has(&self, key: LinkKey) -> bool {
        self.slab.contains(key as usize)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, entry)| entry)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slab.iter_mut().map(|(_, entry)| entry)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.slab.drain()
    }
}

impl<T> std::ops::Index<LinkKey> for Slots<T> {
    type Output = T;

    fn index(&self, key: LinkKey) -> &T {
        &self.slab[key as usize]
    }
}

impl<T> std::ops::IndexMut<LinkKey> for Slots<T> {
    fn index_mut(&mut self, key: LinkKey) -> &mut T {
        &mut self.slab[key as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_finds_its_entry_and_not_the_next_owner_of_the_slot() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        let token = slots.token(first);
        assert_eq!(slots.find(token), Some(first));
        slots.remove(first);
        assert_eq!(slots.find(token), None, "gone");
        let second = slots.insert("second");
        assert_eq!(first, second, "the slab gives the slot out again");
        assert_eq!(slots.find(token), None, "of another generation");
        assert_eq!(slots.find(slots.token(second)), Some(second));
    }

    #[test]
    fn generations_that_wrap_stay_within_their_bits() {
        let mut slots = Slots::new();
        let key = slots.insert(());
        slots.remove(key);
        for before in [u32::MAX - 1, u32::MAX, u32::MAX >> 1] {
            slots.generations[0] = Generation(before);
            let key = slots.insert(());
            assert_eq!(slots.find(slots.token(key)), Some(key));
            assert!(!RESOLVER_TOKENS.contains(&slots.token(key).0));
            slots.remove(key);
        }
    }
}
