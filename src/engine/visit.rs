//! The state that the engine keeps for one visit.

use crate::h1::exchange::Taking;
use crate::policy::{Decoding, Shown, Visiting};

/// A chain's visit, and the state of the response to its current exchange. It is kept for the
/// chain's next request if the visit allows it.
#[derive(Debug)]
pub(super) struct VisitState {
    pub(super) visiting: Visiting,
    /// The fields that follow the request's own, default ones included. The buffer is kept for the
    /// next exchange.
    pub(super) block: Option<Vec<u8>>,
    pub(super) shown: Shown,
    /// The decoders that the body passes through.
    pub(super) decoding: Option<Decoding>,
    /// Input was left undecoded, because the allowance was used up or a pause held it back.
    pub(super) is_pending: bool,
    /// How the decoded body is handled.
    pub(super) taking: Taking,
    /// The decoded body, if it is collected.
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

    /// Discards the state of the response, before another exchange begins or after one has ended.
    /// Returns the decoding for the caller to drop, because its decoders are user code.
    pub(super) fn clear(&mut self) -> Option<Decoding> {
        self.shown = Shown::AtOnce;
        self.is_pending = false;
        self.taking = Taking::Collect;
        self.body = Vec::new();
        self.decoding.take()
    }
}
