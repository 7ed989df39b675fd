//! What an engine knows of one visit.

use crate::h1::exchange::Taking;
use crate::policy::{Decoding, Shown, Visiting};

/// A chain's visit, and what the response to its present exchange has come to. Kept for the chain's
/// next request, where the visit allows it.
#[derive(Debug)]
pub(super) struct VisitState {
    pub(super) visiting: Visiting,
    /// The fields that go out behind the request's own, default ones included, while its exchange
    /// is under way. Kept for the next.
    pub(super) block: Option<Vec<u8>>,
    pub(super) shown: Shown,
    /// What takes off the body's codings.
    pub(super) decoding: Option<Decoding>,
    /// There is more to be decoded than was allowed, or it was held back by a pause.
    pub(super) is_pending: bool,
    /// What becomes of the decoded body.
    pub(super) taking: Taking,
    /// The decoded body, where it is collected.
    pub(super) body: Vec<u8>,
}

impl VisitState {
    pub(super) fn new(visiting: Visiting) -> Self {
        Self {
            visiting,
            block: None,
            shown: Shown::AtOnce,
            decoding: None,
            is_pending: false,
            taking: Taking::Collect,
            body: Vec::new(),
        }
    }

    /// An exchange is over, or another begins: nothing is left of its response. The decoding, whose
    /// decoders are the user's, is handed out.
    pub(super) fn clear(&mut self) -> Option<Decoding> {
        self.shown = Shown::AtOnce;
        self.is_pending = false;
        self.taking = Taking::Collect;
        self.body = Vec::new();
        self.decoding.take()
    }
}
