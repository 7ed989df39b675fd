//! When and where a run was made, and with which versions.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::bench::Cores;
use crate::options::Options;

/// The versions that were resolved when this was compiled.
const LOCKED: &str = include_str!("../../../../Cargo.lock");
const PACKAGES: [&str; 12] = [
    "httpstream",
    "mio",
    "httparse",
    "rustls",
    "hyper",
    "hyper-util",
    "reqwest",
    "tokio",
    "tokio-rustls",
    "curl",
    "mio_httpc",
    "ureq",
];

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The day, in UTC.
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) processor: String,
    pub(crate) cores: String,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// Of each package, and of libcurl.
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) repeats: usize,
    /// The duration of the whole run.
    pub(crate) seconds: f64,
}

impl Header {
    pub(crate) fn new(options: &Options, cores: Cores) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let versions = PACKAGES.iter().filter_map(|&name| {
            let version = locked_version(name)?;
            Some((name.to_owned(), version.to_owned()))
        });
        let libcurl = curl::Version::get().version().to_owned();
        Self {
            date: date(now.map_or(0, |since| since.as_secs() / 86_400)),
            command: options.command.clone(),
            processor: processor(&read("/proc/cpuinfo")).to_owned(),
            cores: match cores {
                Cores::Two { server, client } => {
                    format!("the server on core {server}, the clients on core {client}")
                }
                Cores::One => "server and clients on one core".to_owned(),
            },
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: env!("VERSUS_RUSTC").to_owned(),
            versions: versions.chain([("libcurl".to_owned(), libcurl)]).collect(),
            repeats: options.repeats,
            seconds: 0.0,
        }
    }
}

fn locked_version(name: &str) -> Option<&'static str> {
    let (_, after) = LOCKED.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
    after.split('"').next()
}

fn processor(cpuinfo: &str) -> &str {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name)
}

/// Returns `2026-01-31`, from days since 1970-01-01 (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn date(days: u64) -> String {
    // Days of a 400-year era that begins in March, so that the leap day is the last of a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let (month, next_year) = match from_march {
        0..=9 => (from_march + 3, 0),
        _ => (from_march - 9, 1),
    };
    let year = era * 400 + year_of_era + next_year;
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_454, "2026-01-01"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn every_package_is_in_the_lock() {
        for name in PACKAGES {
            let version = locked_version(name).unwrap_or_else(|| panic!("{name}"));
            assert!(version.contains('.'), "{name} {version}");
        }
        assert_eq!(processor("a : b\nmodel name\t: Fast 3000\n"), "Fast 3000");
    }
}
