//! In place of `alarm`, where there is no timer that a poll could watch: deadlines are the host's
//! to look after.

use std::io;
use std::time::Instant;

use mio::Registry;

use crate::net::readiness::Ready;

/// A timer on a poll, which there is none of.
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
