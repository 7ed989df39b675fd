//! Named settings: those that configurations and requests share, and how a number becomes a value.

use std::time::Duration;

use httpstream::{Limits, Timeouts};

use crate::errors::Fault;

/// Means "none" for timeouts and "never" for delays.
pub(crate) const NEVER: u64 = u64::MAX;

/// Returns a timeout; `UINT64_MAX` milliseconds means none.
pub(crate) fn timeout(ms: u64) -> Option<Duration> {
    (ms != NEVER).then(|| Duration::from_millis(ms))
}

/// Returns a delay; `UINT64_MAX` milliseconds means forever.
pub(crate) fn delay(ms: u64) -> Duration {
    timeout(ms).unwrap_or(Duration::MAX)
}

pub(crate) fn count(name: &str, value: u64) -> Result<usize, Fault> {
    usize::try_from(value).map_err(|_| unusable(name, value, "more than fits a size_t"))
}

pub(crate) fn yes(name: &str, value: u64) -> Result<bool, Fault> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unusable(name, value, "neither 0 nor 1")),
    }
}

pub(crate) fn unusable(name: &str, value: u64, why: &str) -> Fault {
    Fault::argument(format!("{name} is {value}: {why}"))
}

pub(crate) fn unknown(name: &str) -> Fault {
    Fault::argument(format!("there is no setting {name:?}"))
}

/// One of the [`Timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Resolve,
    Connect,
    Tls,
    Write,
    FirstByte,
    Idle,
    Total,
}

impl Clock {
    /// Returns the timeout that a setting such as `timeout_connect_ms` names.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("timeout_")?.strip_suffix("_ms")? {
            "resolve" => Clock::Resolve,
            "connect" => Clock::Connect,
            "tls" => Clock::Tls,
            "write" => Clock::Write,
            "first_byte" => Clock::FirstByte,
            "idle" => Clock::Idle,
            "total" => Clock::Total,
            _ => return None,
        })
    }

    pub(crate) fn set(self, timeouts: &mut Timeouts, ms: u64) {
        let place = match self {
            Clock::Resolve => &mut timeouts.resolve,
            Clock::Connect => &mut timeouts.connect,
            Clock::Tls => &mut timeouts.tls,
            Clock::Write => &mut timeouts.write,
            Clock::FirstByte => &mut timeouts.first_byte,
            Clock::Idle => &mut timeouts.idle,
            Clock::Total => &mut timeouts.total,
        };
        *place = timeout(ms);
    }
}

/// One of the [`Limits`], with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    HeadBytes(usize),
    Fields(usize),
    BodyBytes(u64),
    Interim(usize),
    TrailerBytes(usize),
    ChunkExtensionBytes(usize),
    RefuseObsFold(bool),
}

impl Limit {
    /// Returns the limit that a setting such as `limit_max_body_bytes` names; the prefix `limit_`
    /// is optional. Returns `None` if no limit has this name.
    pub(crate) fn of(name: &str, value: u64) -> Option<Result<Self, Fault>> {
        let as_count = |limit: fn(usize) -> Limit| count(name, value).map(limit);
        Some(match name.strip_prefix("limit_").unwrap_or(name) {
            "max_head_bytes" => as_count(Limit::HeadBytes),
            "max_fields" => as_count(Limit::Fields),
            "max_body_bytes" => Ok(Limit::BodyBytes(value)),
            "max_interim" => as_count(Limit::Interim),
            "max_trailer_bytes" => as_count(Limit::TrailerBytes),
            "max_chunk_extension_bytes" => as_count(Limit::ChunkExtensionBytes),
            "refuse_obs_fold" => yes(name, value).map(Limit::RefuseObsFold),
            _ => return None,
        })
    }

    pub(crate) fn set(self, limits: &mut Limits) {
        match self {
            Limit::HeadBytes(bytes) => limits.max_head_bytes = bytes,
            Limit::Fields(fields) => limits.max_fields = fields,
            Limit::BodyBytes(bytes) => limits.max_body_bytes = bytes,
            Limit::Interim(responses) => limits.max_interim = responses,
            Limit::TrailerBytes(bytes) => limits.max_trailer_bytes = bytes,
            Limit::ChunkExtensionBytes(bytes) => limits.max_chunk_extension_bytes = bytes,
            Limit::RefuseObsFold(refuse) => limits.refuse_obs_fold = refuse,
        }
    }
}
