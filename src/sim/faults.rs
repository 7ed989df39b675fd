//! What can go wrong, and how often.

use super::random::Random;

/// Something that can go wrong on a network, or happen in an order that one does not expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// What a server sends at once arrives in pieces, cut at any byte. Per piece sent.
    Split,
    /// A send takes fewer bytes than there is room for. Per send.
    ShortWrite,
    /// The client's send buffer holds a few bytes only. Per connection.
    SmallSendBuffer,
    /// The client's receive window holds a few bytes only: the server's next bytes wait until the
    /// first are read. Per connection.
    SmallWindow,
    /// What is sent is late by anything up to 40 s, mostly some milliseconds. Per piece, in both
    /// directions.
    Delay,
    /// What is sent arrives in the same instant. Per piece, in both directions.
    NoLatency,
    /// What is due arrives between two system calls of one turn, rather than before all of them.
    /// Per send and receive.
    MidTurn,
    /// The events of one wait come in any order. Per wait.
    Reorder,
    /// An event tells only what has changed, as kqueue's do; epoll's tell the whole state. Per
    /// event.
    BareEvent,
    /// An event for a token which is deregistered by then. Per deregistration.
    Stale,
    /// An event, readable or writable, without a reason. Per wait.
    Spurious,
    /// A signal comes: a wait ends with nothing, a send or receive with `Interrupted`. Per call.
    Interrupted,
    /// The connection is refused. Per connection.
    Refused,
    /// There is no way to that address. Per connection.
    Unreachable,
    /// Nothing answers the attempt to connect, until it times out after 127 s. Per connection.
    BlackHole,
    /// The connection stands when `connect` returns, as it does on the loopback. Per connection.
    ConnectedAtOnce,
    /// The process has no file descriptor left (EMFILE). Per connection.
    NoDescriptor,
    /// The machine has no local port left (EADDRNOTAVAIL). Per connection.
    NoPort,
    /// The poll takes no more sockets (ENOSPC). Per registration.
    NoWatch,
    /// The connection is reset instead of an answer. Per request.
    ResetBefore,
    /// The connection is reset inside the answer. Per request.
    ResetDuring,
    /// The connection is reset at some time after the answer. Per request.
    ResetAfter,
    /// The connection ends without one byte of the answer. Per request.
    CloseBefore,
    /// The connection ends inside the answer; inside one that lasts until the end of the connection
    /// it is reset instead, since its end could not be told from the real one. Per request.
    CloseDuring,
    /// The connection ends, unannounced, at some time after the answer. Per request.
    CloseAfter,
    /// No answer ever comes. Per request.
    Silence,
    /// After the answer the server speaks out of turn. Per request.
    Unsolicited,
    /// When the connection has been at rest for a while, the server sends a whole response to
    /// nobody's question, a few bytes of noise or a 408, or ends the connection. A client that
    /// looks before it uses the connection again loses nothing. Per request.
    Stray,
    /// The end of the connection arrives together with the last bytes before it: one edge for both.
    /// Per end.
    EndWithData,
    /// A reset discards what had arrived and was not yet read; on Linux that stays readable. Per
    /// reset.
    ResetDiscards,
    /// The server reads so many bytes, then no more for ever. Per connection.
    StopsReading,
    /// A look-up takes anything up to 20 s. Per look-up.
    SlowLookup,
    /// A look-up fails. Per look-up.
    FailedLookup,
    /// A look-up cannot be made for want of file descriptors. Per look-up.
    ExhaustedLookup,
}

impl Fault {
    /// Every fault there is, in order of declaration.
    pub const ALL: [Fault; 34] = [
        Fault::Split,
        Fault::ShortWrite,
        Fault::SmallSendBuffer,
        Fault::SmallWindow,
        Fault::Delay,
        Fault::NoLatency,
        Fault::MidTurn,
        Fault::Reorder,
        Fault::BareEvent,
        Fault::Stale,
        Fault::Spurious,
        Fault::Interrupted,
        Fault::Refused,
        Fault::Unreachable,
        Fault::BlackHole,
        Fault::ConnectedAtOnce,
        Fault::NoDescriptor,
        Fault::NoPort,
        Fault::NoWatch,
        Fault::ResetBefore,
        Fault::ResetDuring,
        Fault::ResetAfter,
        Fault::CloseBefore,
        Fault::CloseDuring,
        Fault::CloseAfter,
        Fault::Silence,
        Fault::Unsolicited,
        Fault::Stray,
        Fault::EndWithData,
        Fault::ResetDiscards,
        Fault::StopsReading,
        Fault::SlowLookup,
        Fault::FailedLookup,
        Fault::ExhaustedLookup,
    ];

    /// How often it strikes in [`Faults::storm`], in a thousand cases.
    fn in_a_storm(self) -> u16 {
        match self {
            // These fail nothing: they are only the ways in which a network may work.
            Fault::EndWithData => 500,
            Fault::Split | Fault::Reorder | Fault::ResetDiscards => 300,
            Fault::ConnectedAtOnce | Fault::BareEvent | Fault::MidTurn => 200,
            Fault::Delay | Fault::NoLatency | Fault::ShortWrite | Fault::Stale => 100,
            Fault::Stray => 100,
            Fault::SmallSendBuffer | Fault::SmallWindow | Fault::Spurious => 60,
            Fault::Interrupted | Fault::SlowLookup => 30,
            // Of these a chain of exchanges dies; a storm in which none survives tests little else.
            Fault::Refused | Fault::NoDescriptor => 20,
            Fault::ResetBefore | Fault::ResetDuring | Fault::ResetAfter => 20,
            Fault::CloseBefore | Fault::CloseDuring | Fault::CloseAfter => 20,
            Fault::Unsolicited | Fault::FailedLookup | Fault::ExhaustedLookup => 20,
            Fault::Unreachable | Fault::NoPort | Fault::Silence | Fault::StopsReading => 10,
            Fault::BlackHole | Fault::NoWatch => 5,
        }
    }
}

/// How often each [`Fault`] strikes, in a thousand cases.
///
/// ```
/// use httpstream::sim::{Fault, Faults};
///
/// let rough = Faults::none().with(Fault::Split, 500).with(Fault::CloseAfter, 50);
/// assert_eq!(rough.per_mille(Fault::Split), 500);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    per_mille: [u16; Fault::ALL.len()],
}

impl Faults {
    /// Nothing goes wrong: bytes arrive whole, in order, and on time.
    pub fn none() -> Self {
        Self {
            per_mille: [0; Fault::ALL.len()],
        }
    }

    /// Everything that can go wrong does, each as often as leaves enough unspoiled for a
    /// conversation to go on.
    pub fn storm() -> Self {
        Fault::ALL.into_iter().fold(Self::none(), |faults, fault| {
            faults.with(fault, fault.in_a_storm())
        })
    }

    /// Some of the faults of a storm, up to twice as often, and none of the others.
    ///
    /// Over many seeds this finds more than [`storm`](Self::storm) does: what one fault would show,
    /// another may hide.
    pub fn some(random: &mut Random) -> Self {
        let share = random.between(50, 800) as u16;
        Fault::ALL.into_iter().fold(Self::none(), |faults, fault| {
            let strength = 1 + random.below(2 * usize::from(fault.in_a_storm()));
            if random.chance(share) {
                faults.with(fault, strength as u16)
            } else {
                faults
            }
        })
    }

    /// The same, with `fault` striking in `per_mille` of a thousand cases.
    pub fn with(mut self, fault: Fault, per_mille: u16) -> Self {
        self.per_mille[fault as usize] = per_mille;
        self
    }

    /// How often `fault` strikes in a thousand cases.
    pub fn per_mille(&self, fault: Fault) -> u16 {
        self.per_mille[fault as usize]
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_listed_once_and_at_its_place() {
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place, "{fault:?}");
        }
        assert_eq!(Fault::ExhaustedLookup as usize + 1, Fault::ALL.len());
    }

    #[test]
    fn storm_has_all_of_them_and_none_has_none() {
        for fault in Fault::ALL {
            assert!(Faults::storm().per_mille(fault) > 0, "{fault:?}");
            assert_eq!(Faults::none().per_mille(fault), 0, "{fault:?}");
        }
    }
}
