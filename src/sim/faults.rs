//! What can go wrong, and how often.

use super::random::Random;

/// Something that can go wrong on a network, or happen in an unexpected order.
///
/// Each variant states what the probability set with [`Faults::with`] refers to ("per connection").
///
/// ```
/// use httpstream::sim::{Answer, Fault, Faults, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("bot.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
/// network.set_faults(Faults::none().with(Fault::Refused, 1000));
///
/// let mut engine = Engine::<Option<bool>, Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://bot.test/").build()?, |failed, reply, _| {
///     *failed = Some(reply.is_err());
///     Next::done()
/// });
/// let mut failed = None;
/// engine.run(&mut failed)?;
/// assert_eq!(failed, Some(true));
/// assert!(network.struck(Fault::Refused) > 0);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes that a server sends at once arrive in several pieces, split at any byte. Per piece
    /// sent.
    Split,
    /// A send takes fewer bytes than there is room for. Per send.
    ShortWrite,
    /// The client's send buffer holds only a few bytes. Per connection.
    SmallSendBuffer,
    /// The client's receive window holds only a few bytes, so the server's next bytes wait until
    /// the first ones are read. Per connection.
    SmallWindow,
    /// Bytes arrive up to 40 s late, mostly by a few milliseconds. Per piece, in both directions.
    Delay,
    /// Bytes arrive in the instant in which they are sent. Per piece, in both directions.
    NoLatency,
    /// Whatever is due arrives between two system calls of a turn, rather than before the first
    /// one. Per send and receive.
    MidTurn,
    /// The events of one wait come in random order. Per wait.
    Reorder,
    /// An event reports only what has changed, as kqueue does, instead of the whole state, as epoll
    /// does. Per event.
    BareEvent,
    /// An event arrives for a token that has been deregistered. Per deregistration.
    Stale,
    /// A readable or writable event arrives without a cause. Per wait.
    Spurious,
    /// A signal interrupts a system call: a wait returns no events, and a send or receive fails
    /// with `Interrupted`. Per call.
    Interrupted,
    /// The connection is refused. Per connection.
    Refused,
    /// The address is unreachable. Per connection.
    Unreachable,
    /// The connection attempt gets no reply until it times out after 127 s. Per connection.
    BlackHole,
    /// The connection is established when `connect` returns, as can happen on loopback. Per
    /// connection.
    ConnectedAtOnce,
    /// The process has no file descriptor left (EMFILE). Per connection.
    NoDescriptor,
    /// The client's host has no local port left (EADDRNOTAVAIL). Per connection.
    NoPort,
    /// The poll takes no more sockets (ENOSPC). Per registration.
    NoWatch,
    /// The connection is reset before the first byte of the answer. Per request.
    ResetBefore,
    /// The connection is reset partway through the answer. Per request.
    ResetDuring,
    /// The connection is reset some time after the answer. Per request.
    ResetAfter,
    /// The connection is closed before the first byte of the answer. Per request.
    CloseBefore,
    /// The connection is closed partway through the answer. If the answer is delimited by the end
    /// of the connection, it is reset instead, because the client could not tell this close from
    /// the real one. Per request.
    CloseDuring,
    /// The connection is closed some time after the answer, without announcement. Per request.
    CloseAfter,
    /// No answer ever comes. Per request.
    Silence,
    /// The server sends unsolicited bytes after the answer. Per request.
    Unsolicited,
    /// Some time after the connection has become idle, the server sends an unsolicited response, a
    /// few bytes of noise or a 408, or closes the connection. A client that checks an idle
    /// connection before it reuses it loses nothing. Per request.
    Stray,
    /// The end of the connection arrives together with the last bytes before it, in a single edge.
    /// Per end.
    EndWithData,
    /// A reset discards bytes that have arrived but have not been read. On Linux they stay
    /// readable. Per reset.
    ResetDiscards,
    /// The server reads a random number of bytes and then never reads again. Per connection.
    StopsReading,
    /// A lookup takes up to 20 s longer. Per lookup.
    SlowLookup,
    /// A lookup fails. Per lookup.
    FailedLookup,
    /// A lookup fails because no file descriptor is left. Per lookup.
    ExhaustedLookup,
}

impl Fault {
    /// Every fault, in order of declaration.
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

    /// Returns how often the fault strikes in [`Faults::storm`], per thousand cases.
    fn in_a_storm(self) -> u16 {
        match self {
            // These cause no failure: they are merely ways in which a network may behave.
            Fault::EndWithData => 500,
            Fault::Split | Fault::Reorder | Fault::ResetDiscards => 300,
            Fault::ConnectedAtOnce | Fault::BareEvent | Fault::MidTurn => 200,
            Fault::Delay | Fault::NoLatency | Fault::ShortWrite | Fault::Stale => 100,
            Fault::Stray => 100,
            Fault::SmallSendBuffer | Fault::SmallWindow | Fault::Spurious => 60,
            Fault::Interrupted | Fault::SlowLookup => 30,
            // These end a chain of exchanges. A storm in which no chain survives tests little else.
            Fault::Refused | Fault::NoDescriptor => 20,
            Fault::ResetBefore | Fault::ResetDuring | Fault::ResetAfter => 20,
            Fault::CloseBefore | Fault::CloseDuring | Fault::CloseAfter => 20,
            Fault::Unsolicited | Fault::FailedLookup | Fault::ExhaustedLookup => 20,
            Fault::Unreachable | Fault::NoPort | Fault::Silence | Fault::StopsReading => 10,
            Fault::BlackHole | Fault::NoWatch => 5,
        }
    }
}

/// How often each [`Fault`] strikes, per thousand cases.
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
    /// Creates a network without faults: bytes arrive unsplit, in order, and on time.
    pub fn none() -> Self {
        Self {
            per_mille: [0; Fault::ALL.len()],
        }
    }

    /// Enables every fault, each at a rate low enough for conversations to keep going.
    pub fn storm() -> Self {
        Fault::ALL.into_iter().fold(Self::none(), |faults, fault| {
            faults.with(fault, fault.in_a_storm())
        })
    }

    /// Enables a random selection of faults, each at up to twice its rate in a storm.
    ///
    /// Over many seeds this finds more bugs than [`storm`](Self::storm), because one fault may hide
    /// what another would reveal.
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

    /// Sets `fault` to strike in `per_mille` of a thousand cases.
    pub fn with(mut self, fault: Fault, per_mille: u16) -> Self {
        self.per_mille[fault as usize] = per_mille;
        self
    }

    /// Returns how often `fault` strikes, per thousand cases.
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
