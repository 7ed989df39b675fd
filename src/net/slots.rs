//! Tokens made of slab keys and generations, by which stale events are recognized.
//!
//! A slab reuses a freed key at once, while an event for the old owner may still be in the batch,
//! or come from a duplicate of its file descriptor. A token therefore carries the slot and a
//! generation, and an event whose generation is not the slot's is ignored.

use std::fmt;
use std::ops::Range;

use mio::Token;
use slab::Slab;

use crate::net::readiness::ALARM;

/// Slab key of a link.
pub(crate) type LinkKey = u32;

/// An `Option<u32>` of a slab key, in four bytes. No slab holds so many entries that it would
/// return the largest key.
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

/// Makes room for one more entry, growing by a sixteenth. Doubling would waste up to half the
/// memory of a million waiting entries.
pub(crate) fn grow<T>(slab: &mut Slab<T>) {
    if slab.len() == slab.capacity() {
        slab.reserve_exact((slab.len() / 16).max(16));
    }
}

/// Stores `value` at `key` in a table that parallels a slab. The table grows like [`grow`]; entries
/// that were never set are made by `absent`.
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

/// Bits of a token that hold the slot. The others hold the generation, except the top bit.
const SLOT_BITS: u32 = usize::BITS / 2;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;

/// Tokens with the top bit set belong to the resolver, except the last two, which belong to the
/// alarm and the waker.
pub(crate) const RESOLVER_TOKENS: Range<usize> = 1 << (usize::BITS - 1)..ALARM.0;
const GENERATION_MASK: usize = (RESOLVER_TOKENS.start - 1) & !SLOT_MASK;

/// How many times a slot has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// Splits a token into slot and generation.
    pub(crate) fn split(token: Token) -> (LinkKey, Self) {
        let generation = (token.0 & GENERATION_MASK) >> SLOT_BITS;
        ((token.0 & SLOT_MASK) as LinkKey, Self(generation as u32))
    }

    /// Returns the number as held in a token, where it wraps around.
    pub(crate) fn number(self) -> usize {
        ((self.0 as usize) << SLOT_BITS & GENERATION_MASK) >> SLOT_BITS
    }

    fn bits(self) -> usize {
        (self.0 as usize) << SLOT_BITS & GENERATION_MASK
    }
}

/// Slab entries, each with the generation of its slot.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slab: Slab<T>,
    /// Generations of all slots, including vacant ones.
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

    /// Returns the key that `token` stands for, unless its entry has been removed.
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
        assert_eq!(slots.find(token), None, "the entry has been removed");
        let second = slots.insert("second");
        assert_eq!(first, second, "the slab reuses the slot");
        assert_eq!(slots.find(token), None, "the token has an old generation");
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
