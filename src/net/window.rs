//! The tokens that a host lends to the engine on its poll, and what they stand for.
//!
//! ```text
//! start                 + resolver            + slots               + slots
//!   │ resolver's tokens   │ slots, generation 0 │ slots, generation 1 │ …
//! ```
//! Each slot has as many tokens as fit into the window, used in turn, so that events for its
//! previous owner can be told apart from those for the current one. An event that is as many
//! generations old as a slot has tokens is attributed to the current owner, which causes one
//! superfluous call on its socket.

use std::ops::Range;

use mio::Token;

use crate::net::slots::{Generation, LinkKey, RESOLVER_TOKENS};

/// The division of a range of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    tokens: Range<usize>,
    resolver: usize,
    slots: usize,
    generations: usize,
}

/// What a token of the window stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lent {
    /// One of the resolver's sources, by the engine's token for it.
    Resolver(Token),
    /// The link in this slot, if its generation is one for which [`Window::has`] returns true.
    Link(LinkKey, usize),
}

impl Window {
    /// For the resolver's sockets: the default number of questions in flight.
    const MIN_RESOLVER: usize = 64;
    /// One for the current owner of a slot, and one for the previous owner.
    const MIN_GENERATIONS: usize = 2;
    /// More than any resolver has sockets, even though their tokens are used in turn too.
    const MAX_RESOLVER: usize = 1 << 16;

    /// Divides `tokens` for links in at most `slots` slots.
    ///
    /// # Errors
    /// Returns the number of tokens needed, if there are fewer.
    pub(crate) fn new(tokens: Range<usize>, slots: usize) -> Result<Self, usize> {
        let least = slots
            .saturating_mul(Self::MIN_GENERATIONS)
            .saturating_add(Self::MIN_RESOLVER);
        let Some(spare) = tokens.len().checked_sub(least) else {
            return Err(least);
        };
        let resolver = (Self::MIN_RESOLVER + spare / 2).min(Self::MAX_RESOLVER);
        Ok(Self {
            generations: (tokens.len() - resolver) / slots.max(1),
            tokens,
            resolver,
            slots,
        })
    }

    pub(crate) fn resolver_tokens(&self) -> Range<usize> {
        self.tokens.start..self.tokens.start + self.resolver
    }

    /// Returns the window's token for the engine's `token`.
    pub(crate) fn outer(&self, token: Token) -> Token {
        if RESOLVER_TOKENS.contains(&token.0) {
            return Token(self.tokens.start + (token.0 - RESOLVER_TOKENS.start));
        }
        let (slot, generation) = Generation::split(token);
        let links = self.tokens.start + self.resolver;
        Token(links + self.class(generation) * self.slots + slot as usize)
    }

    /// Returns what a token of the host's poll stands for, or `None` if it is outside the window.
    pub(crate) fn inner(&self, token: Token) -> Option<Lent> {
        let offset = token.0.checked_sub(self.tokens.start)?;
        if offset < self.resolver {
            return Some(Lent::Resolver(Token(RESOLVER_TOKENS.start + offset)));
        }
        let link = offset - self.resolver;
        let is_lent = link < self.slots * self.generations;
        is_lent.then(|| Lent::Link((link % self.slots) as LinkKey, link / self.slots))
    }

    /// Returns whether `generation` is one of those that use the tokens of `class`.
    pub(crate) fn has(&self, class: usize, generation: Generation) -> bool {
        self.class(generation) == class
    }

    fn class(&self, generation: Generation) -> usize {
        generation.number() % self.generations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::slots::Slots;

    #[test]
    fn each_token_of_the_window_is_somebodys_and_no_other_is() {
        for (tokens, slots) in [(0..66, 1), (7..7 + 2 * 5 + 64, 5), (100..1000, 33)] {
            let window = Window::new(tokens.clone(), slots).unwrap();
            let mut seen = std::collections::HashSet::new();
            let mut links = Slots::new();
            for _ in 0..5 {
                let keys: Vec<_> = (0..slots).map(|_| links.insert(())).collect();
                for &key in &keys {
                    let outer = window.outer(links.token(key));
                    assert!(tokens.contains(&outer.0), "{outer:?} of {tokens:?}");
                    assert!(!window.resolver_tokens().contains(&outer.0), "{outer:?}");
                    seen.insert(outer.0);
                    let Some(Lent::Link(slot, class)) = window.inner(outer) else {
                        panic!("{outer:?} belongs to a link");
                    };
                    assert_eq!(slot, key);
                    assert!(window.has(class, links.generation(key)));
                }
                keys.into_iter().for_each(|key| links.remove(key));
            }
            let generations = (tokens.len() - window.resolver_tokens().len()) / slots;
            assert!(generations >= 2, "{tokens:?}");
            assert_eq!(seen.len(), slots * generations.min(5), "{tokens:?}");
            for offset in window.resolver_tokens() {
                let Some(Lent::Resolver(inner)) = window.inner(Token(offset)) else {
                    panic!("{offset} belongs to the resolver");
                };
                assert_eq!(window.outer(inner), Token(offset));
            }
            for foreign in [tokens.start.wrapping_sub(1), tokens.end, usize::MAX] {
                assert_eq!(window.inner(Token(foreign)), None, "{foreign}");
            }
        }
    }

    #[test]
    fn the_next_owner_of_a_slot_has_another_token() {
        let window = Window::new(0..66, 1).unwrap();
        let mut links = Slots::new();
        let mut former = None;
        for _ in 0..9 {
            let key = links.insert(());
            let outer = window.outer(links.token(key));
            assert_ne!(former.replace(outer), Some(outer));
            links.remove(key);
        }
    }

    #[test]
    fn a_window_that_is_too_small_says_how_many_tokens_it_takes() {
        assert_eq!(Window::new(10..10 + 83, 10), Err(84));
        assert!(Window::new(10..10 + 84, 10).is_ok());
        assert_eq!(Window::new(0..100, usize::MAX), Err(usize::MAX));
        #[expect(clippy::reversed_empty_ranges, reason = "a host may pass such a range")]
        let backwards = 20..10;
        assert_eq!(Window::new(backwards, 1), Err(66));
        let all = Window::new(0..usize::MAX, 1024).unwrap();
        assert!(all.resolver_tokens().len() < 1 << 17, "{all:?}");
    }
}
