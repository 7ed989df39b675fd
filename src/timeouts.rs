//! How long each phase of an exchange may take.

use std::num::NonZeroU32;
use std::time::Duration;

/// Timeouts by phase, each counted from the start of its phase, and the lowest speed. `None` means
/// no deadline.
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
    /// The longest time during which not a single byte of the request can be written. It is
    /// suspended while an [`upload_rate`](crate::RequestBuilder::upload_rate) holds the request
    /// back. Default 30 s.
    pub write: Option<Duration>,
    /// From the last byte of the request to the first byte of the response, and from one interim
    /// response to the next. Default 30 s; see
    /// [`RequestBuilder::long_poll`](crate::RequestBuilder::long_poll) for long polls.
    pub first_byte: Option<Duration>,
    /// The longest silence within a response. It is suspended while the exchange is paused, and
    /// while a cap on its speed holds it back. Default 30 s.
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
    /// The lowest speed at which a response may arrive, or a request be accepted. Default none.
    ///
    /// [`LowSpeed`] says what is measured and when. It ends a transfer that never stops and never
    /// gets anywhere, for which [`idle`](Self::idle) and [`write`](Self::write) start anew with
    /// each byte.
    pub low_speed: Option<LowSpeed>,
}

/// The lowest speed at which a peer may send its response, or accept a request.
///
/// Time is divided into consecutive windows. An exchange fails at the end of a window in which
/// fewer bytes went over its connection than the speed requires, with
/// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and a reason such as "slower than 100 bytes/s
/// over 30s (12 bytes/s)". Within a window, the speed may vary, and bytes are not carried over to
/// the next one. So a transfer that becomes too slow fails after at most two windows, and one that
/// is too slow from the beginning after one.
///
/// - *What counts:* all bytes of the message as they go over the connection: head, framing, body
///   and trailers, before any decoding. With TLS these are the bytes of its records. Bytes of a
///   request count when the system accepts them, so up to a send buffer (some megabytes) counts at
///   once. If a response begins before its request has been written, bytes in both directions
///   count.
/// - *When time counts:* while the request is being written, and from the first byte of the
///   response to its end. It does not count while the engine waits for the response, so a long poll
///   may be held for as long as its other timeouts allow, nor while a body waits for a 100
///   (Continue). It does not count while the engine itself does not read or write either: while the
///   readback has [paused](crate::Flow::Pause) the response, and while a
///   [`download_rate`](crate::RequestBuilder::download_rate) or
///   [`upload_rate`](crate::RequestBuilder::upload_rate) holds it back. Nor does it count in a
///   tunnel, after a 101 (Switching Protocols).
/// - *A late host:* what has arrived is read before a window is judged, however late that is. If
///   the turn comes more than a second after the end of the window, and what has arrived does not
///   suffice, the next window decides: the peer may have had to wait for the host. Two windows in a
///   row are not excused.
///
/// ```
/// use std::time::Duration;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, ErrorKind, LowSpeed, Next, Phase, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("slow.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
///     // A byte a second: never silent, and never done.
///     Answer::ok("x".repeat(100_000)).drip(1, Duration::from_secs(1))
/// });
/// let mut config = Config::default();
/// config.timeouts.low_speed = Some(LowSpeed::new(100, Duration::from_secs(30)));
/// let mut engine = Engine::<String, Sim>::on_network(&network, config)?;
/// engine.submit(Request::get("http://slow.test/").build()?, |why, reply, _| {
///     let error = reply.unwrap_err();
///     assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, Phase::Head));
///     *why = std::error::Error::source(&error).unwrap().to_string();
///     Next::done()
/// });
/// let mut why = String::new();
/// engine.run(&mut why)?;
/// assert_eq!(why, "slower than 100 bytes/s over 30s (1 bytes/s)");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LowSpeed {
    /// The speed in bytes a second, on average over each window. 0 is always reached, so it turns
    /// the check off.
    pub bytes_per_second: u64,
    /// The length of a window, rounded up to whole milliseconds, and zero to one. From 24 days on
    /// there is no check.
    pub window: Duration,
}

impl LowSpeed {
    /// Creates a value with this speed, in bytes a second, and this length of a window.
    pub const fn new(bytes_per_second: u64, window: Duration) -> Self {
        Self {
            bytes_per_second,
            window,
        }
    }
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
        low_speed: None,
    };

    /// Stands for a low speed that is not set, in what a closure is shown. It checks nothing, and
    /// nobody would ask for it.
    const LOW_SPEED_PLACEHOLDER: LowSpeed = LowSpeed::new(0, Duration::from_nanos(577_215));

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

/// A [`LowSpeed`] that can be fallen short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) bytes_per_second: u64,
    pub(crate) window: Ms,
}

impl Floor {
    /// Returns `None` if there is nothing to check.
    pub(crate) fn new(low_speed: Option<LowSpeed>) -> Option<Self> {
        let low_speed = low_speed.filter(|low_speed| low_speed.bytes_per_second > 0)?;
        let window = milliseconds(Some(low_speed.window))?;
        Some(Self {
            bytes_per_second: low_speed.bytes_per_second,
            window,
        })
    }

    fn shown(self) -> LowSpeed {
        LowSpeed::new(self.bytes_per_second, duration(self.window))
    }

    /// Returns the least number of bytes in a window.
    pub(crate) fn quota(self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * u128::from(self.window.get());
        u64::try_from(bytes.div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// Formats what a window was in which `bytes` came within `micros`.
    pub(crate) fn text(self, bytes: u64, micros: u64) -> String {
        let speed = u128::from(bytes) * 1_000_000 / u128::from(micros.max(1));
        let (least, window) = (self.bytes_per_second, duration(self.window));
        format!("slower than {least} bytes/s over {window:?} ({speed} bytes/s)")
    }
}

/// What one request sets for [`Timeouts::low_speed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LowSpeedEdit {
    /// The engine's applies.
    #[default]
    Nothing,
    Exactly(Option<Floor>),
}

impl LowSpeedEdit {
    pub(crate) fn set(low_speed: Option<LowSpeed>) -> Self {
        Self::Exactly(Floor::new(low_speed))
    }

    /// Returns what applies to the request, for an engine whose own is `engine`.
    #[inline]
    pub(crate) fn over(self, engine: Option<Floor>) -> Option<Floor> {
        match self {
            Self::Nothing => engine,
            Self::Exactly(floor) => floor,
        }
    }
}

/// The timeouts of a response that its readback has changed, in place of those of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retimed {
    pub(crate) timeouts: TimeoutsEdit,
    pub(crate) low_speed: LowSpeedEdit,
}

impl Retimed {
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Timeouts)) {
        self.timeouts.change(&mut self.low_speed, change);
    }
}

/// What one request changes in the engine's [`Timeouts`], except for the low speed.
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

    /// Lets `change` edit the timeouts; those that it does not assign stay as they are. The low
    /// speed is stored apart, because few requests set one.
    ///
    /// The closure assigns plain public fields, which leave no record of an assignment, and as an
    /// `FnOnce` it cannot run on two inputs to compare the results. A timeout that is not set is
    /// therefore shown as a placeholder, and counts as set if it holds anything else afterwards,
    /// including the default.
    pub(crate) fn change(
        &mut self,
        low_speed: &mut LowSpeedEdit,
        change: impl FnOnce(&mut Timeouts),
    ) {
        let mut shown = Timeouts::DEFAULT;
        shown.low_speed = match *low_speed {
            LowSpeedEdit::Nothing => Some(Timeouts::LOW_SPEED_PLACEHOLDER),
            LowSpeedEdit::Exactly(floor) => floor.map(Floor::shown),
        };
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
        if edited.low_speed != shown.low_speed {
            *low_speed = LowSpeedEdit::set(edited.low_speed);
        }
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
            let (unchanged, mut low) = (edit, LowSpeedEdit::Nothing);
            edit.change(&mut low, |_| ());
            assert_eq!(edit, unchanged, "{said:?}");
            edit.change(&mut low, |timeouts| *timeouts = timeouts.clone());
            assert_eq!(
                edit, unchanged,
                "{said:?}: assigning the shown values is no change"
            );
            for set in [None, usual, seconds(1), seconds(40), Some(Duration::MAX)] {
                let mut edit = unchanged;
                edit.change(&mut low, |timeouts| timeouts.idle = set);
                let mut expected = TimeoutsEdit::NONE;
                expected.set(Timeout::Idle, set);
                assert_eq!(edit, expected, "{said:?}, then {set:?}");
            }
            assert_eq!(low, LowSpeedEdit::Nothing);
        }
    }

    #[test]
    fn a_change_of_the_low_speed_is_told_from_none() {
        let second = Duration::from_secs(1);
        let floor = |bytes_per_second, window| Floor {
            bytes_per_second,
            window: ms(window),
        };
        let engine = Some(floor(7, 7));
        let mut edit = TimeoutsEdit::NONE;
        for (set, applies) in [
            (Some(LowSpeed::new(100, second)), Some(floor(100, 1000))),
            (Some(LowSpeed::new(1, Duration::ZERO)), Some(floor(1, 1))),
            (Some(LowSpeed::new(0, second)), None),
            (Some(LowSpeed::new(1, Duration::MAX)), None),
            (None, None),
        ] {
            let mut low = LowSpeedEdit::Nothing;
            edit.change(&mut low, |timeouts| timeouts.low_speed = set);
            assert_eq!(low.over(engine), applies, "{set:?}");
            let before = low;
            edit.change(&mut low, |timeouts| *timeouts = timeouts.clone());
            assert_eq!(
                low, before,
                "{set:?}: assigning the shown value is no change"
            );
        }
        let mut low = LowSpeedEdit::Nothing;
        edit.change(&mut low, |timeouts| *timeouts = timeouts.clone());
        assert_eq!((low, low.over(engine)), (LowSpeedEdit::Nothing, engine));
        assert_eq!(edit, TimeoutsEdit::NONE);
    }

    #[test]
    fn the_quota_of_a_window_is_rounded_up_and_its_speed_down() {
        let floor = |bytes_per_second, window| Floor {
            bytes_per_second,
            window: ms(window),
        };
        for (bytes_per_second, window, quota) in [
            (100, 30_000, 3000),
            (1, 1, 1),
            (1, 1001, 2),
            (999, 1, 1),
            (u64::MAX, MAX_MS, u64::MAX),
        ] {
            let floor = floor(bytes_per_second, window);
            assert_eq!(floor.quota(), quota, "{floor:?}");
        }
        assert_eq!(
            floor(100, 1500).text(149, 1_500_001),
            "slower than 100 bytes/s over 1.5s (99 bytes/s)"
        );
        let text = floor(u64::MAX, 1).text(u64::MAX, 0);
        assert!(
            text.ends_with("over 1ms (18446744073709551615000000 bytes/s)"),
            "{text}"
        );
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
