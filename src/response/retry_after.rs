//! The Retry-After field (RFC 9110 §10.2.3).

use std::time::{Duration, SystemTime};

/// The longest delay. A number that does not fit stands for this one, as for other fields in
/// delta-seconds (RFC 9111 §1.2.2): about 68 years.
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// Returns the delay that `value` asks for. A date is measured from `date`, the value of the
/// response's Date field, or else from `now`; one in the past means no delay.
pub(super) fn delay(
    value: &[u8],
    date: Option<&[u8]>,
    now: impl FnOnce() -> SystemTime,
) -> Option<Duration> {
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        return Some(seconds(value));
    }
    let until = time(value)?;
    let from = date.and_then(time).unwrap_or_else(now);
    Some(until.duration_since(from).unwrap_or_default().min(LONGEST))
}

/// Reads digits.
fn seconds(digits: &[u8]) -> Duration {
    let number = str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    number.map_or(LONGEST, |secs| Duration::from_secs(secs).min(LONGEST))
}

/// Reads an HTTP-date in any of its three formats (RFC 9110 §5.6.7).
fn time(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn delays_come_as_seconds_or_as_dates() {
        // 1994-11-06 08:49:37, the example of RFC 9110 §5.6.7.
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        const LATER: &str = "Sun, 06 Nov 1994 08:50:07 GMT";
        const DATE: Option<&str> = Some("Sun, 06 Nov 1994 08:50:00 GMT");
        const MOST: Option<u64> = Some(1 << 31);
        #[rustfmt::skip]
        let rows: &[(&str, &str, Option<&str>, Option<u64>)] = &[
            ("seconds", "120", None, Some(120)),
            ("seconds do not depend on Date", "120", DATE, Some(120)),
            ("no delay", "0", None, Some(0)),
            ("leading zeros", "007", None, Some(7)),
            ("the longest", "2147483648", None, MOST),
            ("longer", "2147483649", None, MOST),
            ("too large for any integer", "99999999999999999999999999999999", None, MOST),
            ("date, from the clock", LATER, None, Some(30)),
            ("date, from the response's own Date", LATER, DATE, Some(7)),
            ("a Date that is none is ignored", LATER, Some("today"), Some(30)),
            ("the format of RFC 850", "Sunday, 06-Nov-94 08:50:07 GMT", None, Some(30)),
            ("the format of asctime", "Sun Nov  6 08:50:07 1994", None, Some(30)),
            ("the present", "Sun, 06 Nov 1994 08:49:37 GMT", None, Some(0)),
            ("the past", "Sun, 06 Nov 1994 08:49:36 GMT", None, Some(0)),
            ("the past by the response's own Date", "Sun, 06 Nov 1994 08:49:59 GMT", DATE, Some(0)),
            ("the end of time", "Fri, 31 Dec 9999 23:59:59 GMT", None, MOST),
            ("no such day", "Thu, 30 Feb 2034 00:00:00 GMT", None, None),
            ("before 1970", "Wed, 31 Dec 1969 23:59:59 GMT", None, None),
            ("another zone", "Sun, 06 Nov 1994 08:50:07 CET", None, None),
            ("empty", "", None, None),
            ("negative", "-1", None, None),
            ("a sign", "+1", None, None),
            ("a fraction", "1.5", None, None),
            ("two values", "1, 2", None, None),
            ("space", "1 ", None, None),
            ("digits of another script", "\u{661}", None, None),
            ("text", "soon", None, None),
        ];
        for (why, value, date, expected) in rows {
            let found = delay(value.as_bytes(), date.map(str::as_bytes), || now);
            assert_eq!(found, expected.map(Duration::from_secs), "{why}");
        }
        assert_eq!(delay(b"\xff", None, || now), None);
    }

    #[test]
    fn the_clock_is_read_only_if_it_is_needed() {
        let unread = || -> SystemTime { panic!("the clock was read") };
        let later = b"Sun, 06 Nov 1994 08:50:07 GMT";
        assert_eq!(delay(b"3", None, unread), Some(Duration::from_secs(3)));
        assert_eq!(delay(b"soon", None, unread), None);
        assert_eq!(delay(later, Some(later), unread), Some(Duration::ZERO));
    }
}
