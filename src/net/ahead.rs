//! Links that are being opened ahead of any request for them, at most one for each origin.

use std::collections::BTreeMap;

use crate::net::pool::OriginKey;
use crate::net::slots::LinkKey;
use crate::sched::wheel::TimerId;

/// The links that are being opened ahead. They have no exchange, and are neither resting nor idle.
///
/// A link leaves this list when a request takes it, when it is open and goes to the pool, or when
/// it is closed.
#[derive(Debug, Default)]
pub(crate) struct AheadLinks {
    by_origin: BTreeMap<OriginKey, Ahead>,
}

/// A link that is being opened ahead.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) link: LinkKey,
    /// The deadline of its lookup, connect or handshake. Other links use the timer of their chain.
    pub(crate) deadline: Option<TimerId>,
    /// The first attempt to connect has begun.
    pub(crate) has_begun: bool,
}

impl AheadLinks {
    /// Adds a link of an origin that has none here.
    pub(crate) fn begin(&mut self, origin: OriginKey, link: LinkKey) {
        let ahead = Ahead {
            link,
            deadline: None,
            has_begun: false,
        };
        let other = self.by_origin.insert(origin, ahead);
        debug_assert!(other.is_none(), "an origin has one such link at most");
    }

    /// Returns the link of an origin.
    #[inline]
    pub(crate) fn of_origin(&self, origin: OriginKey) -> Option<LinkKey> {
        // Most engines never have any, and this is asked for each request that needs a connection.
        if self.by_origin.is_empty() {
            return None;
        }
        self.by_origin.get(&origin).map(|ahead| ahead.link)
    }

    /// Returns what is known of a link of this origin, if it is here.
    pub(crate) fn get_mut(&mut self, origin: OriginKey, link: LinkKey) -> Option<&mut Ahead> {
        let ahead = self.by_origin.get_mut(&origin);
        ahead.filter(|ahead| ahead.link == link)
    }

    /// Removes a link of this origin, if it is here.
    #[inline]
    pub(crate) fn take(&mut self, origin: OriginKey, link: LinkKey) -> Option<Ahead> {
        if self.of_origin(origin) != Some(link) {
            return None;
        }
        self.by_origin.remove(&origin)
    }

    /// Returns one of the links.
    pub(crate) fn any(&self) -> Option<LinkKey> {
        self.by_origin.values().next().map(|ahead| ahead.link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_by_its_origin_until_it_is_taken() {
        let mut links = AheadLinks::default();
        assert_eq!((links.of_origin(1), links.any()), (None, None));
        links.begin(1, 10);
        links.begin(2, 20);
        assert_eq!(links.of_origin(1), Some(10));
        assert_eq!(links.of_origin(3), None);
        assert!(links.get_mut(1, 20).is_none(), "a link of another origin");
        assert!(links.take(1, 20).is_none(), "a link of another origin");
        links.get_mut(1, 10).unwrap().has_begun = true;
        assert!(links.take(1, 10).unwrap().has_begun);
        assert!(links.take(1, 10).is_none(), "it has been taken");
        assert_eq!(links.any(), Some(20));
    }
}
