//! Replaces `alarm` where there is no timer that a poll could watch. The host then keeps track of
//! deadlines itself.

use std::io;
use std::time::Instant;

use mio::Registry;

use crate::net::readiness::Ready;

/// A timer on a poll. There is none, so it has no values.
#[derive(Debug)]
pub(super) enum Alarm {}

impl Alarm {
    pub(super) fn new(_: &Registry) -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub(super) fn set(&mut self, _: Instant, _: Instant) {
        match *self {}
    }

    pub(super) fn on_events(&mut self, _: &[Ready]) {
        match *self {}
    }
}
