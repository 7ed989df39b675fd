//! The dates of `Expires`, read by the lenient algorithm of RFC 6265bis §5.1.1.
//!
//! Servers have sent cookie dates in many forms, so the algorithm has no grammar for the whole. It
//! splits the text into tokens, takes the first that looks like a time, a day, a month and a year,
//! and ignores the others, such as the weekday and the time zone. All dates are in UTC.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

const MONTHS: [&[u8; 3]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

/// The first year that a cookie date may have: the first full cycle of leap years in the Gregorian
/// calendar begins with it.
const FIRST_YEAR: u32 = 1601;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Reads a date. Returns `None` if a part is missing or out of range, or if there is no such day.
/// Dates before 1970 are returned as the beginning of 1970.
pub(super) fn parse(text: &[u8]) -> Option<SystemTime> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|&byte| is_delimiter(byte)) {
        if let (None, Some(found)) = (time, time_of_day(token)) {
            time = Some(found);
        } else if let (None, Some((found, _))) = (day, number(token, 1..=2)) {
            day = Some(found);
        } else if let (None, Some(found)) = (month, month_of(token)) {
            month = Some(found);
        } else if let (None, Some((found, _))) = (year, number(token, 2..=4)) {
            year = Some(found);
        }
    }
    let days = days_since_1970(full_year(year?), month?, day?)?;
    let time = seconds_since_midnight(time?)?;
    let seconds = u64::try_from(days).map_or(0, |days| days * SECONDS_PER_DAY + time);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e)
}

/// Reads hour, minute and second from `hh:mm:ss`, with one or two digits each. A time that is out
/// of range is still the time of the date, which is then invalid.
fn time_of_day(token: &[u8]) -> Option<(u32, u32, u32)> {
    let (hour, rest) = number(token, 1..=2)?;
    let (minute, rest) = number(rest.strip_prefix(b":")?, 1..=2)?;
    let (second, _) = number(rest.strip_prefix(b":")?, 1..=2)?;
    Some((hour, minute, second))
}

fn seconds_since_midnight((hour, minute, second): (u32, u32, u32)) -> Option<u64> {
    let is_time = hour <= 23 && minute <= 59 && second <= 59;
    is_time.then_some(u64::from((hour * 60 + minute) * 60 + second))
}

fn month_of(token: &[u8]) -> Option<u32> {
    let name = token.get(..3)?;
    let is_name = |month: &&[u8; 3]| name.eq_ignore_ascii_case(*month);
    (1..)
        .zip(&MONTHS)
        .find(|(_, month)| is_name(month))
        .map(|(number, _)| number)
}

/// Reads the digits that `text` begins with, if there are as many as `digits` allows, and returns
/// the number and the rest.
fn number(text: &[u8], digits: RangeInclusive<usize>) -> Option<(u32, &[u8])> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !digits.contains(&count) {
        return None;
    }
    let (read, rest) = text.split_at(count);
    let value = read
        .iter()
        .fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some((value, rest))
}

/// Completes a year of two digits (§5.1.1).
fn full_year(year: u32) -> u32 {
    match year {
        70..=99 => year + 1900,
        0..=69 => year + 2000,
        _ => year,
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the days from 1970-01-01 to this date of the Gregorian calendar, or `None` if there is
/// no such date.
fn days_since_1970(year: u32, month: u32, day: u32) -> Option<i64> {
    if year < FIRST_YEAR || day < 1 || day > days_in(year, month) {
        return None;
    }
    let before = |year: u32| {
        let years = i64::from(year - 1);
        years * 365 + years / 4 - years / 100 + years / 400
    };
    let months: u32 = (1..month).map(|month| days_in(year, month)).sum();
    Some(before(year) - before(1970) + i64::from(months + day - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        let since = parse(text.as_bytes())?.duration_since(SystemTime::UNIX_EPOCH);
        Some(since.unwrap().as_secs())
    }

    #[test]
    fn dates_are_read_leniently() {
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, Option<u64>)] = &[
            ("the form of RFC 9110", "Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("the form of RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("the form of asctime", "Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("parts in any order", "1994 08:49:37 nov 6", Some(784_111_777)),
            ("three letters of the month count", "6 NOVEMBRE 1994 8:49:37", Some(784_111_777)),
            ("a day with an ordinal", "Nov 6th 1994 08:49:37", Some(784_111_777)),
            ("the zone is ignored", "06 Nov 1994 08:49:37 -0800", Some(784_111_777)),
            ("text behind the seconds", "06 Nov 1994 08:49:37.5Z", Some(784_111_777)),
            ("year 70 is 1970", "1 jan 70 0:0:1", Some(1)),
            ("year 69 is 2069", "1 jan 69 0:0:0", Some(3_124_224_000)),
            ("a leap day", "29 feb 2000 00:00:00", Some(951_782_400)),
            ("a leap day in a year divisible by 100", "29 feb 2100 00:00:00", None),
            ("not a leap year", "29 feb 2023 00:00:00", None),
            ("before 1970", "31 dec 1969 23:59:59", Some(0)),
            ("the first year", "1 jan 1601 00:00:00", Some(0)),
            ("too early a year", "31 dec 1600 23:59:59", None),
            ("the last year", "31 dec 9999 23:59:59", Some(253_402_300_799)),
            ("five digits are not a year", "31 dec 10000 23:59:59", None),
            ("day 0", "0 jan 2000 00:00:00", None),
            ("day 32", "32 jan 2000 00:00:00", None),
            ("April has 30 days", "31 apr 2000 00:00:00", None),
            ("hour 24", "1 jan 2000 24:00:00", None),
            ("only the first time counts", "24:00:00 1 jan 2000 10:00:00", None),
            ("minute 60", "1 jan 2000 00:60:00", None),
            ("second 60", "1 jan 2000 00:00:60", None),
            ("three digits are not seconds", "1 jan 2000 00:00:000", None),
            ("without a time", "1 jan 2000", None),
            ("without a month", "1 2000 00:00:00", None),
            ("without a year", "1 jan 00:00:00", None),
            ("the first of each part counts", "1 jan 2000 0:0:0 2 feb 2001", Some(946_684_800)),
            ("empty", "", None),
            ("a number", "0", None),
        ];
        for (why, text, expected) in ROWS {
            assert_eq!(seconds(text), *expected, "{why}: {text}");
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let mut expected = days_since_1970(FIRST_YEAR, 1, 1).unwrap();
        for year in FIRST_YEAR..=2420 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    assert_eq!(days_since_1970(year, month, day), Some(expected));
                    expected += 1;
                }
            }
        }
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
    }
}
