//! Slab keys and generations in tokens: a stale event is recognised here.
//!
//! A slab gives a freed key out again at once, and an event for the old owner may still stand in the batch, or come from a
//! duplicate of its file descriptor. A token therefore carries the slot and a generation; an event whose generation is not
//! the slot's is nobody's.

use std::fmt;
use std::ops::Range;

use mio::Token;
use slab::Slab;

/// Slab key of a link.
pub(crate) type LinkKey = u32;

/// An `Option` of a slab's key in four bytes: no slab holds so many entries that it would give out the largest key.
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

/// Makes room for one more, a sixteenth at a time: doubling would waste up to half of what a million waiting entries take.
pub(crate) fn grow<T>(slab: &mut Slab<T>) {
    if slab.len() == slab.capacity() {
        slab.reserve_exact((slab.len() / 16).max(16));
    }
}

/// Bits of a token that are the slot; the rest is the generation, but for the top bit.
const SLOT_BITS: u32 = usize::BITS / 2;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;

/// Tokens with the top bit set are the resolver's, but for the last one, which is the waker's.
pub(crate) const RESOLVER_TOKENS: Range<usize> = 1 << (usize::BITS - 1)..usize::MAX;
const GENERATION_MASK: usize = (RESOLVER_TOKENS.start - 1) & !SLOT_MASK;

/// Entries under keys, each with the generation that it was inserted in.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slab: Slab<Slot<T>>,
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    entry: T,
    generation: u32,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
        }
    }

    pub(crate) fn insert(&mut self, entry: T) -> LinkKey {
        grow(&mut self.slab);
        self.generation = self.generation.wrapping_add(1);
        self.slab.insert(Slot {
            entry,
            generation: self.generation,
        }) as LinkKey
    }

    pub(crate) fn remove(&mut self, key: LinkKey) -> T {
        self.slab.remove(key as usize).entry
    }

    pub(crate) fn token(&self, key: LinkKey) -> Token {
        Token(generation_bits(self.slab[key as usize].generation) | key as usize)
    }

    /// The key behind `token`, unless its entry is gone.
    pub(crate) fn find(&self, token: Token) -> Option<LinkKey> {
        let key = token.0 & SLOT_MASK;
        let slot = self.slab.get(key)?;
        (generation_bits(slot.generation) == token.0 & !SLOT_MASK).then_some(key as LinkKey)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, slot)| &slot.entry)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slab.iter_mut().map(|(_, slot)| &mut slot.entry)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.slab.drain().map(|slot| slot.entry)
    }
}

/// A generation as it stands in a token.
fn generation_bits(generation: u32) -> usize {
    (generation as usize) << SLOT_BITS & GENERATION_MASK
}

impl<T> std::ops::Index<LinkKey> for Slots<T> {
    type Output = T;

    fn index(&self, key: LinkKey) -> &T {
        &self.slab[key as usize].entry
    }
}

impl<T> std::ops::IndexMut<LinkKey> for Slots<T> {
    fn index_mut(&mut self, key: LinkKey) -> &mut T {
        &mut self.slab[key as usize].entry
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
        slots.generation = u32::MAX - 1;
        for _ in 0..4 {
            let key = slots.insert(());
            assert_eq!(slots.find(slots.token(key)), Some(key));
            slots.remove(key);
        }
    }
}
