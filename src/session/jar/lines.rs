//! The values of the Cookie fields that were sent last, so that a request to the same place need
//! not put them together again.

use std::sync::Arc;
use std::time::SystemTime;

use super::cookie::Place;
use crate::proto::Scheme;

/// The most values that are kept. A lookup compares the place with each of them.
const MAX_LINES: usize = 16;

/// The last lines, valid as long as no cookie changes.
#[derive(Default)]
pub(super) struct Lines {
    lines: Vec<Line>,
    /// Which line is replaced next.
    next: usize,
}

/// The value for one place. The absence of cookies is kept too.
pub(super) struct Line {
    scheme: Scheme,
    host: Box<str>,
    paths: Paths,
    value: Option<Arc<[u8]>>,
    /// When the first of its cookies expires.
    until: Option<SystemTime>,
}

/// The paths that a line is for.
pub(super) enum Paths {
    /// All of them, since every cookie of the host has the path `/`.
    All,
    One(Box<str>),
}

impl Line {
    pub(super) fn new(
        place: &Place<'_>,
        paths: Paths,
        value: Option<Arc<[u8]>>,
        until: Option<SystemTime>,
    ) -> Self {
        Self {
            scheme: place.scheme,
            host: place.host.into(),
            paths,
            value,
            until,
        }
    }

    pub(super) fn value(&self) -> Option<Arc<[u8]>> {
        self.value.clone()
    }

    fn is_for(&self, place: &Place<'_>, now: SystemTime) -> bool {
        let is_path = match &self.paths {
            Paths::All => true,
            Paths::One(path) => **path == *place.path,
        };
        is_path
            && self.scheme == place.scheme
            && *self.host == *place.host
            && self.until.is_none_or(|until| now < until)
    }
}

impl Lines {
    /// Returns the value for a request to `place`; `Some(None)` if there are no cookies for it.
    pub(super) fn find(&self, place: &Place<'_>, now: SystemTime) -> Option<Option<Arc<[u8]>>> {
        let line = self.lines.iter().find(|line| line.is_for(place, now))?;
        Some(line.value())
    }

    pub(super) fn keep(&mut self, line: Line) {
        if self.lines.len() < MAX_LINES {
            self.lines.push(line);
        } else {
            self.lines[self.next] = line;
            self.next = (self.next + 1) % MAX_LINES;
        }
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.next = 0;
    }
}
