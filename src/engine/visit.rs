//! The state that the engine keeps for one visit.

use std::sync::Arc;

use http::StatusCode;

use crate::engine::buffers::Block;
use crate::h1::exchange::Taking;
use crate::policy::{Decoding, Held, Visiting};
use crate::request::Request;
use crate::response::Way;

/// A chain's visit, and the state of the response to its current exchange. It is kept for the
/// chain's next request if the visit allows it.
///
/// Ten thousand requests of a session may wait at once, so what few of them need is boxed.
#[derive(Debug)]
pub(super) struct VisitState {
    pub(super) visiting: Visiting,
    /// The fields that follow the request's own, default ones included, until they are written.
    pub(super) block: Option<Box<Block>>,
    rare: Option<Box<Rare>>,
}

/// What few visits need.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// The wakers that the visit has taken.
    pub(super) held: Held,
    /// The decoders that the body passes through.
    pub(super) decoding: Option<Box<Decoding>>,
    /// Input was left undecoded, because the allowance was used up or a pause held it back.
    pub(super) is_pending: bool,
    /// How the decoded body is handled.
    pub(super) taking: Taking,
    /// The decoded body, if it is collected.
    pub(super) body: Vec<u8>,
    /// Bytes of a discarded body of unknown length that were read.
    pub(super) unwanted: u64,
    /// The request that the visit began with, if it has sent another since.
    pub(super) first: Option<Request>,
    /// The visit has sent a request with other policies, so it serves no further request.
    pub(super) is_foreign: bool,
    /// The status of the response that has begun, if it is a redirect.
    pub(super) redirect: Option<StatusCode>,
    pub(super) way: Option<Arc<Way>>,
    /// Since when the request is held back, in microseconds of the engine's life.
    pub(super) held_back_at: Option<u64>,
}

impl VisitState {
    pub(super) fn new(visiting: Visiting) -> Self {
        Self {
            visiting,
            block: None,
            rare: None,
        }
    }

    /// Returns the state that few visits need, which is created here.
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Returns the state that few visits need, if there is any.
    #[inline]
    pub(super) fn rare_mut(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    #[inline]
    pub(super) fn take_rare(&mut self) -> Option<Box<Rare>> {
        self.rare.take()
    }

    /// Returns the wakers that the visit has taken, to lend them to it.
    #[inline]
    pub(super) fn take_held(&mut self) -> Held {
        let rare = self.rare.as_mut();
        rare.map_or_else(Held::default, |rare| std::mem::take(&mut rare.held))
    }

    /// Keeps the wakers that the visit has taken, if one of them is alive.
    #[inline]
    pub(super) fn keep_held(&mut self, held: Held) {
        if held.is_held() {
            self.rare().held = held;
        }
    }

    /// Returns the status of the response that has begun, if it is a redirect.
    pub(super) fn redirect(&self) -> Option<StatusCode> {
        self.rare.as_ref()?.redirect
    }

    #[inline]
    pub(super) fn decoding(&mut self) -> Option<&mut Decoding> {
        self.rare.as_mut()?.decoding.as_deref_mut()
    }

    #[inline]
    pub(super) fn is_decoding(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| rare.decoding.is_some())
    }

    #[inline]
    pub(super) fn way(&self) -> Option<&Arc<Way>> {
        self.rare.as_ref()?.way.as_ref()
    }

    pub(super) fn way_mut(&mut self) -> &mut Way {
        Arc::make_mut(self.rare().way.get_or_insert_default())
    }

    /// Discards the state of the response, before another exchange begins or after one has ended.
    /// Returns the decoding for the caller to drop, because its decoders are user code.
    #[inline]
    pub(super) fn clear_response(&mut self) -> Option<Box<Decoding>> {
        let rare = self.rare.as_mut()?;
        rare.is_pending = false;
        rare.taking = Taking::Collect;
        rare.body = Vec::new();
        rare.unwanted = 0;
        rare.redirect = None;
        rare.decoding.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_waiting_visit_is_small() {
        // Each poll of a session that is held open has one of these.
        assert!(size_of::<VisitState>() <= 40, "{}", size_of::<VisitState>());
    }
}
