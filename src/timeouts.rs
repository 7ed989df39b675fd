//! How long each phase of an exchange may take.

use std::num::NonZeroU32;
use std::time::Duration;

/// Timeouts by phase, each counted from the start of its phase. `None` means no deadline.
///
/// Durations are rounded up to whole milliseconds, the tick of the timing wheel, and zero to one.
/// From 24 days on there is no deadline.
///
/// [`Config::timeouts`](crate::Config::timeouts) holds those of an engine;
/// [`RequestBuilder::timeouts`](crate::RequestBuilder::timeouts),
/// [`timeout`](crate::RequestBuilder::timeout) and [`long_poll`](crate::RequestBuilder::long_poll)
/// change them for one request.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, ErrorKind, Next, Phase, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("slow.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
///     Answer::ok("late").after(Duration::from_secs(20))
/// });
/// let mut config = Config::default();
/// config.timeouts.first_byte = Some(Duration::from_secs(5));
/// let mut engine = Engine::<u32, Sim>::on_network(&network, config)?;
///
/// // This one uses the engine's timeouts, ...
/// engine.submit(Request::get("http://slow.test/").build()?, |_, reply, _| {
///     let error = reply.unwrap_err();
///     assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, Phase::FirstByte));
///     Next::done()
/// });
/// // ... and this one has more patience.
/// let patient = Request::get("http://slow.test/").timeouts(|t| t.first_byte = None).build()?;
/// engine.submit(patient, |answered, reply, _| {
///     *answered += u32::from(reply.is_ok());
///     Next::done()
/// });
/// let mut answered = 0;
/// engine.run(&mut answered)?;
/// assert_eq!(answered, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// The lookup of the host's addresses. Default 10 s.
    pub resolve: Option<Duration>,
    /// Connecting, over all addresses. Default 10 s: a SYN is retransmitted after 1, 3 and 7 s.
    pub connect: Option<Duration>,
    /// The TLS handshake. Default 10 s.
    pub tls: Option<Duration>,
    /// The longest time during which not a single byte of the request can be written. Default 30 s.
    pub write: Option<Duration>,
    /// From the last byte of the request to the first byte of the response, and from one interim
    /// response to the next. Default 30 s; see
    /// [`RequestBuilder::long_poll`](crate::RequestBuilder::long_poll) for long polls.
    pub first_byte: Option<Duration>,
    /// The longest silence within a response. It is suspended while the exchange is paused. Default
    /// 30 s.
    pub idle: Option<Duration>,
    /// From the submission to the end of the response. Default 5 min, to bound a peer that sends a
    /// byte now and then.
    ///
    /// The time in the queue is included, so a program that submits many requests at once, and lets
    /// the connection limits hold them back, sets [`first_byte`](Self::first_byte) and
    /// [`idle`](Self::idle) instead: they begin when the request has been sent. Also included is
    /// everything that a [policy](crate::policy) sends in the request's place, with the policy's
    /// waits. The delay of a delayed request is not included, and each request of a chain has a
    /// total of its own. [`Next::chain_timeout`](crate::Next::chain_timeout) sets a deadline for a
    /// chain as a whole, with all its requests and delays.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// The defaults of a new engine.
    pub(crate) const DEFAULT: Self = Self {
        resolve: Some(Duration::from_secs(10)),
        connect: Some(Duration::from_secs(10)),
        tls: Some(Duration::from_secs(10)),
        write: Some(Duration::from_secs(30)),
        first_byte: Some(Duration::from_secs(30)),
        idle: Some(Duration::from_secs(30)),
        total: Some(Duration::from_secs(300)),
    };

    /// Stands for a timeout that is not set, in what a closure is shown. It is close to the
    /// default, so that comparisons with it make sense, but has an unlikely
    /// fraction of a millisecond.
    fn placeholder(usual: Duration) -> Duration {
        usual + Duration::from_nanos(577_215)
    }

    fn slots_mut(&mut self) -> [&mut Option<Duration>; Timeout::COUNT] {
        [
            &mut self.resolve,
            &mut self.connect,
            &mut self.tls,
            &mut self.write,
            &mut self.first_byte,
            &mut self.idle,
            &mut self.total,
        ]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Names one of the [`Timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    Resolve,
    Connect,
    Tls,
    Write,
    FirstByte,
    Idle,
    Total,
}

impl Timeout {
    /// Each timeout takes four bytes in every waiting request, and `request::Inner` is full: parts
    /// that few requests use belong in its `Rare`.
    const COUNT: usize = 7;

    /// Returns the name of the field of [`Timeouts`] that sets it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Timeout::Resolve => "resolve",
            Timeout::Connect => "connect",
            Timeout::Tls => "tls",
            Timeout::Write => "write",
            Timeout::FirstByte => "first_byte",
            Timeout::Idle => "idle",
            Timeout::Total => "total",
        }
    }
}

/// A timeout in whole milliseconds, from 1 to [`MAX_MS`].
pub(crate) type Ms = NonZeroU32;

/// The longest timeout in milliseconds; a longer one means no deadline.
const MAX_MS: u32 = u32::MAX >> 1;

/// Rounds up. `None` means no deadline.
pub(crate) fn milliseconds(timeout: Option<Duration>) -> Option<Ms> {
    let ms = timeout?.as_nanos().div_ceil(1_000_000).max(1);
    let ms = u32::try_from(ms).ok().filter(|ms| *ms <= MAX_MS);
    ms.and_then(Ms::new)
}

fn duration(ms: Ms) -> Duration {
    Duration::from_millis(ms.get().into())
}

/// An engine's [`Timeouts`] in milliseconds. `None` means no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis([Option<Ms>; Timeout::COUNT]);

impl Millis {
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let mut timeouts = timeouts.clone();
        Self(timeouts.slots_mut().map(|timeout| milliseconds(*timeout)))
    }

    /// Returns the timeout `which` in milliseconds. `None` means no deadline.
    pub(crate) fn get(&self, which: Timeout) -> Option<u32> {
        self.0[which as usize].map(Ms::get)
    }
}

/// What one request changes in the engine's [`Timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeoutsEdit([Packed; Timeout::COUNT]);

/// What a request sets for one timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// The engine's timeout applies.
    Nothing,
    Never,
    Exactly(Ms),
    /// The engine's timeout applies, or this one if it is longer.
    AtLeast(Ms),
}

impl Setting {
    fn set(timeout: Option<Duration>) -> Self {
        milliseconds(timeout).map_or(Setting::Never, Setting::Exactly)
    }

    fn lifted(self, least: Option<Ms>) -> Self {
        match (self, least) {
            (Setting::Never, _) | (_, None) => Setting::Never,
            (Setting::Nothing, Some(least)) => Setting::AtLeast(least),
            (Setting::Exactly(ms), Some(least)) => Setting::Exactly(ms.max(least)),
            (Setting::AtLeast(ms), Some(least)) => Setting::AtLeast(ms.max(least)),
        }
    }
}

/// A [`Setting`] in four bytes. The enum itself takes eight, and each waiting request has seven of
/// them.
///
/// Milliseconds leave the top bit free. If it is set, it marks `AtLeast`, or `Never` if there are
/// no milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u32);

impl Packed {
    const TOP: u32 = MAX_MS + 1;

    const fn new(setting: Setting) -> Self {
        match setting {
            Setting::Nothing => Self(0),
            Setting::Never => Self(Self::TOP),
            Setting::Exactly(ms) => Self(ms.get()),
            Setting::AtLeast(ms) => Self(Self::TOP | ms.get()),
        }
    }

    #[inline]
    fn setting(self) -> Setting {
        let has_top = self.0 & Self::TOP != 0;
        match (has_top, Ms::new(self.0 & MAX_MS)) {
            (false, None) => Setting::Nothing,
            (true, None) => Setting::Never,
            (false, Some(ms)) => Setting::Exactly(ms),
            (true, Some(ms)) => Setting::AtLeast(ms),
        }
    }
}

impl TimeoutsEdit {
    pub(crate) const NONE: Self = Self([Packed::new(Setting::Nothing); Timeout::COUNT]);

    /// Lets `change` edit the timeouts; those that it does not assign stay as they are.
    ///
    /// The closure assigns plain public fields, which leave no record of an assignment, and as an
    /// `FnOnce` it cannot run on two inputs to compare the results. A timeout that is not set is
    /// therefore shown as a placeholder, and counts as set if it holds anything else afterwards,
    /// including the default.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Timeouts)) {
        let mut shown = Timeouts::DEFAULT;
        for (slot, packed) in shown.slots_mut().into_iter().zip(self.0) {
            let usual = slot.unwrap_or_default();
            *slot = match packed.setting() {
                Setting::Nothing => Some(Timeouts::placeholder(usual)),
                Setting::AtLeast(ms) => Some(Timeouts::placeholder(usual.max(duration(ms)))),
                Setting::Exactly(ms) => Some(duration(ms)),
                Setting::Never => None,
            };
        }
        let mut edited = shown.clone();
        change(&mut edited);
        let pairs = edited.slots_mut().into_iter().zip(shown.slots_mut());
        for (packed, (edited, shown)) in self.0.iter_mut().zip(pairs) {
            if edited != shown {
                *packed = Packed::new(Setting::set(*edited));
            }
        }
    }

    /// Sets one timeout.
    pub(crate) fn set(&mut self, which: Timeout, timeout: Option<Duration>) {
        self.0[which as usize] = Packed::new(Setting::set(timeout));
    }

    /// Raises one timeout to at least `least`. If it is not set, `get` compares `least` with the
    /// engine's timeout, which is not known here.
    pub(crate) fn lift(&mut self, which: Timeout, least: Duration) {
        let slot = &mut self.0[which as usize];
        *slot = Packed::new(slot.setting().lifted(milliseconds(Some(least))));
    }

    /// Returns the timeout `which` in milliseconds, for an engine whose own timeouts are `engine`.
    /// `None` means no deadline.
    #[inline]
    pub(crate) fn get(&self, which: Timeout, engine: &Millis) -> Option<u32> {
        self.resolve(which, engine.0[which as usize])
    }

    /// Returns the total timeout in milliseconds, where `policy` is that of the request's policy,
    /// which replaces the engine's.
    #[inline]
    pub(crate) fn total(&self, policy: Option<Ms>, engine: &Millis) -> Option<u32> {
        let which = Timeout::Total;
        self.resolve(which, policy.or(engine.0[which as usize]))
    }

    #[inline]
    fn resolve(&self, which: Timeout, default: Option<Ms>) -> Option<u32> {
        let ms = match self.0[which as usize].setting() {
            Setting::Nothing => default,
            Setting::Never => None,
            Setting::Exactly(ms) => Some(ms),
            Setting::AtLeast(ms) => default.map(|default| default.max(ms)),
        };
        ms.map(Ms::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: usize = Timeout::Idle as usize;

    fn ms(ms: u32) -> Ms {
        Ms::new(ms).unwrap()
    }

    #[test]
    fn all_that_can_be_said_fits_into_four_bytes() {
        assert_eq!(size_of::<TimeoutsEdit>(), 4 * Timeout::COUNT);
        let mut seen = std::collections::HashSet::new();
        let numbers = [1, 2, 30_000, MAX_MS - 1, MAX_MS].map(ms);
        let all = numbers
            .into_iter()
            .flat_map(|ms| [Setting::Exactly(ms), Setting::AtLeast(ms)])
            .chain([Setting::Nothing, Setting::Never]);
        for said in all {
            let packed = Packed::new(said);
            assert_eq!(packed.setting(), said);
            assert!(
                seen.insert(packed.0),
                "{said:?} has the encoding of another value"
            );
        }
    }

    #[test]
    fn durations_round_up_to_milliseconds_or_are_never() {
        let (millis, nano) = (Duration::from_millis, Duration::from_nanos(1));
        let most = millis(MAX_MS.into());
        for (timeout, expected) in [
            (Some(Duration::ZERO), Some(1)),
            (Some(nano), Some(1)),
            (Some(millis(1)), Some(1)),
            (Some(millis(1) + nano), Some(2)),
            (Some(most - nano), Some(MAX_MS)),
            (Some(most), Some(MAX_MS)),
            (Some(most + nano), None),
            (Some(Duration::MAX), None),
            (None, None),
        ] {
            assert_eq!(milliseconds(timeout).map(Ms::get), expected, "{timeout:?}");
        }
    }

    #[test]
    fn what_is_lifted_is_no_shorter_and_never_stays_never() {
        let (one, most) = (Some(ms(1)), Some(ms(MAX_MS)));
        for (said, least, expected) in [
            (Setting::Nothing, one, Setting::AtLeast(ms(1))),
            (Setting::Nothing, most, Setting::AtLeast(ms(MAX_MS))),
            (Setting::Nothing, None, Setting::Never),
            (Setting::AtLeast(ms(5)), one, Setting::AtLeast(ms(5))),
            (Setting::AtLeast(ms(5)), most, Setting::AtLeast(ms(MAX_MS))),
            (Setting::Exactly(ms(5)), one, Setting::Exactly(ms(5))),
            (Setting::Exactly(ms(5)), most, Setting::Exactly(ms(MAX_MS))),
            (Setting::Exactly(ms(5)), None, Setting::Never),
            (Setting::Never, one, Setting::Never),
        ] {
            assert_eq!(said.lifted(least), expected, "{said:?} {least:?}");
        }
    }

    #[test]
    fn a_change_says_what_it_sets_and_nothing_else() {
        let seconds = |s| Some(Duration::from_secs(s));
        let usual = Timeouts::DEFAULT.idle;
        let before = [
            Setting::Nothing,
            Setting::Never,
            Setting::Exactly(ms(30_000)),
            Setting::Exactly(ms(MAX_MS)),
            Setting::AtLeast(ms(1)),
            Setting::AtLeast(ms(30_000)),
            Setting::AtLeast(ms(MAX_MS)),
        ];
        for said in before {
            let mut edit = TimeoutsEdit::NONE;
            edit.0[IDLE] = Packed::new(said);
            let unchanged = edit;
            edit.change(|_| ());
            assert_eq!(edit, unchanged, "{said:?}");
            edit.change(|timeouts| *timeouts = timeouts.clone());
            assert_eq!(
                edit, unchanged,
                "{said:?}: assigning the shown values is no change"
            );
            for set in [None, usual, seconds(1), seconds(40), Some(Duration::MAX)] {
                let mut edit = unchanged;
                edit.change(|timeouts| timeouts.idle = set);
                let mut expected = TimeoutsEdit::NONE;
                expected.set(Timeout::Idle, set);
                assert_eq!(edit, expected, "{said:?}, then {set:?}");
            }
        }
    }

    #[test]
    fn the_engine_decides_what_is_left_to_it() {
        let with_idle = |idle| {
            let usual = Timeouts::default();
            Millis::new(&Timeouts { idle, ..usual })
        };
        let longest = with_idle(Some(duration(ms(MAX_MS))));
        let never = with_idle(None);
        for (said, of_longest, of_never) in [
            (Setting::Nothing, Some(MAX_MS), None),
            (Setting::Never, None, None),
            (Setting::Exactly(ms(1)), Some(1), Some(1)),
            (Setting::AtLeast(ms(1)), Some(MAX_MS), None),
            (Setting::AtLeast(ms(MAX_MS)), Some(MAX_MS), None),
        ] {
            let mut edit = TimeoutsEdit::NONE;
            edit.0[IDLE] = Packed::new(said);
            assert_eq!(edit.get(Timeout::Idle, &longest), of_longest, "{said:?}");
            assert_eq!(edit.get(Timeout::Idle, &never), of_never, "{said:?}");
        }
    }
}
