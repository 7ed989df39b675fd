//! How a host learns that a turn is due, and how it reacts.

use httpstream::Turn;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watching {
    /// Level-triggered, as with poll(2): notified for as long as there are events.
    Level,
    /// Level-triggered, but with only one turn per notification, and one event per turn; time
    /// passes in between.
    OneEvent,
    /// Edge-triggered: notified only when something enters the engine's poll. The host then makes
    /// turns until one reports no events and nothing more to do.
    Edge(Habit),
}

/// How an edge-triggered host misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Sound,
    /// It misses one edge in five.
    Overhears,
    /// It makes one turn for each edge.
    LeavesEarly,
}

impl Habit {
    /// Returns whether the host turns again after this turn; `None` if the turn ended in a panic.
    pub(crate) fn goes_on(self, turn: Option<Turn>) -> bool {
        match self {
            Self::Sound | Self::Overhears => turn.is_none_or(|turn| turn.events > 0 || turn.more),
            Self::LeavesEarly => false,
        }
    }
}
