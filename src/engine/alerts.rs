//! Rate-limited warnings. Whatever peers do, the log grows by no more than a few lines of each kind
//! in ten seconds.

use std::fmt;

/// The kind of a warning. Each kind is limited separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alert {
    /// Bytes that answer no request.
    Unsolicited,
    /// A response that violates the protocol.
    Violation,
    /// The pipelines of an origin.
    Pipelining,
    /// This machine is out of descriptors, memory or ports.
    Exhaustion,
    /// A request waits because of a limit in the configuration.
    Limit,
    /// Something a readback returned was dropped.
    Dropped,
}

/// The maximum number of lines of one kind per period.
const MOST: u32 = 5;

/// The length of a period, in ticks of the wheel (milliseconds).
const PERIOD: u64 = 10_000;

#[derive(Clone, Copy, Debug, Default)]
struct Period {
    /// The tick at which the period ends.
    end: u64,
    told: u32,
    left_out: u64,
}

/// The current period of each kind.
#[derive(Debug, Default)]
pub(super) struct Alerts([Period; 6]);

/// The number of lines that were left out before this one. It is printed at the end of the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " ({n} more lines of this kind were left out)"),
        }
    }
}

impl Alerts {
    /// Admits a line of this kind at tick `now`, and returns the note to append to it. Returns
    /// `None` if the line is to be left out.
    pub(super) fn admit(&mut self, alert: Alert, now: u64) -> Option<LeftOut> {
        let period = &mut self.0[alert as usize];
        if now >= period.end {
            period.end = now.saturating_add(PERIOD);
            period.told = 0;
        }
        if period.told == MOST {
            period.left_out += 1;
            return None;
        }
        period.told += 1;
        Some(LeftOut(std::mem::take(&mut period.left_out)))
    }
}

/// Logs a warning of an engine, unless too many of its kind were logged recently.
macro_rules! alert {
    ($engine:expr, $alert:ident, $($text:tt)+) => {
        if log::log_enabled!(log::Level::Warn)
            && let Some(left_out) = $engine
                .alerts
                .admit(crate::engine::alerts::Alert::$alert, $engine.clock.tick())
        {
            log::warn!("{}{left_out}", format_args!($($text)+));
        }
    };
}
pub(super) use alert;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_told_a_few_times_and_hides_no_other() {
        let mut alerts = Alerts::default();
        let told = |alerts: &mut Alerts, alert, times: u64, now| {
            (0..times)
                .filter_map(|_| alerts.admit(alert, now))
                .collect::<Vec<_>>()
        };
        let none = || LeftOut(0);
        let first = told(&mut alerts, Alert::Unsolicited, 1000, 5);
        assert_eq!(first, [none(), none(), none(), none(), none()]);
        assert_eq!(told(&mut alerts, Alert::Limit, 1, 5), [none()]);
        assert_eq!(
            told(&mut alerts, Alert::Unsolicited, 10, 5 + PERIOD - 1),
            []
        );
        let next = told(&mut alerts, Alert::Unsolicited, 2, 5 + PERIOD);
        assert_eq!(next, [LeftOut(1005), none()]);
        assert_eq!(
            next[0].to_string(),
            " (1005 more lines of this kind were left out)"
        );
        assert_eq!(next[1].to_string(), "");
    }
}
