//! How a host hears that a turn is due, and what it does then.

use httpstream::Turn;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watching {
    /// As poll(2) tells it: as long as something is there.
    Level,
    /// The same, but it makes one turn for each time it is told, and that with one event; meanwhile
    /// time goes on.
    OneEvent,
    /// Only when something enters the engine's poll. It then turns until nothing was told and
    /// nothing is left.
    Edge(Habit),
}

/// What is wrong with a host that watches for edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Sound,
    /// It overhears one edge in five.
    Overhears,
    /// It makes one turn for each edge.
    LeavesEarly,
}

impl Habit {
    /// Whether it turns again after such a turn; `None`: that ended in a panic.
    pub(crate) fn goes_on(self, turn: Option<Turn>) -> bool {
        match self {
            Self::Sound | Self::Overhears => turn.is_none_or(|turn| turn.events > 0 || turn.more),
            Self::LeavesEarly => false,
        }
    }
}
