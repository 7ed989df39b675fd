//! What the head of a response says about the file that is being downloaded (RFC 9110 §14, §15.3.7,
//! §15.5.17).

use crate::Response;

/// The part of a file that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Here<'a> {
    pub(super) bytes: u64,
    /// The length of the whole file, if it is known.
    pub(super) total: Option<u64>,
    /// The strong validator of the file that these bytes are from.
    pub(super) etag: &'a str,
}

/// What a response is to a download.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The whole file. Without an `etag`, a part of it cannot be continued.
    Whole {
        total: Option<u64>,
        etag: Option<String>,
    },
    /// What follows the bytes that are here, up to `end`.
    Rest { end: u64, total: Option<u64> },
    /// Nothing follows the bytes that are here.
    Complete,
    /// It neither continues the bytes that are here nor replaces them.
    Useless(&'static str),
    /// It is no file.
    Refused,
}

/// Judges the response to a request for a whole file. `is_uncoded` is whether a body without
/// Content-Length can be taken for the representation itself rather than for what a policy has
/// decoded.
pub(super) fn judge_whole(head: &Response<'_>, is_uncoded: bool) -> Answer {
    let status = head.status().as_u16();
    if !matches!(status, 200 | 203) {
        return Answer::Refused;
    }
    let total = head.content_length();
    // 203 (Non-Authoritative Information): a proxy has changed the body, but perhaps not its tag.
    let is_itself = status == 200 && !is_coded(head) && (is_uncoded || total.is_some());
    let etag = only(head, "ETag").and_then(strong).filter(|_| is_itself);
    Answer::Whole {
        total,
        etag: etag.map(str::to_owned),
    }
}

/// Judges the response to a request for what follows the bytes that are here.
pub(super) fn judge_rest(head: &Response<'_>, here: Here<'_>) -> Answer {
    match head.status().as_u16() {
        206 => judge_part(head, here),
        416 => {
            let length = only(head, "Content-Range").and_then(unsatisfied_length);
            if length != Some(here.bytes) || here.total.is_some_and(|total| total != here.bytes) {
                Answer::Useless("the range does not exist")
            } else if only(head, "ETag") != Some(here.etag) {
                Answer::Useless("the end of the file is not proven to be that of the same file")
            } else {
                Answer::Complete
            }
        }
        // The file has changed, or the server does not send ranges (RFC 9110 §13.1.5, §14.2). This
        // response was to a request with an Accept-Encoding or a Range of its own, which sessions
        // leave alone.
        _ => judge_whole(head, true),
    }
}

/// Judges a 206 (Partial Content). It must repeat the validator (RFC 9110 §15.3.7), and be exactly
/// what was asked for or the beginning of that.
fn judge_part(head: &Response<'_>, here: Here<'_>) -> Answer {
    // Several parts (multipart/byteranges) have no Content-Range of their own.
    let Some(range) = only(head, "Content-Range").and_then(ContentRange::parse) else {
        return Answer::Useless("the part has no valid Content-Range");
    };
    let Some(end) = range.last.checked_add(1) else {
        return Answer::Useless("the part has no valid Content-Range");
    };
    let len = end - range.first;
    let has_other_total = range.total.zip(here.total).is_some_and(|(a, b)| a != b);
    let exceeds_total = here.total.is_some_and(|total| range.last >= total);
    if range.first != here.bytes {
        Answer::Useless("the part begins elsewhere")
    } else if has_other_total || exceeds_total {
        Answer::Useless("the part is of a file of another length")
    } else if only(head, "ETag") != Some(here.etag) {
        Answer::Useless("the part is not proven to be of the same file")
    } else if is_coded(head) {
        Answer::Useless("the part has a content coding")
    } else if head.content_length().is_some_and(|length| length != len) {
        Answer::Useless("the part is not as long as its Content-Range")
    } else {
        Answer::Rest {
            end,
            total: range.total.or(here.total),
        }
    }
}

/// Returns the value of a field that occurs once.
fn only<'a>(head: &Response<'a>, name: &'static str) -> Option<&'a str> {
    let mut values = head.header_all(name);
    let value = values.next()?;
    match values.next() {
        Some(_) => None,
        None => str::from_utf8(value).ok(),
    }
}

fn is_coded(head: &Response<'_>) -> bool {
    head.header("Content-Encoding").is_some()
}

/// Returns an entity tag if it is a valid strong one (RFC 9110 §8.8.3).
fn strong(tag: &str) -> Option<&str> {
    let opaque = tag.strip_prefix('"')?.strip_suffix('"')?;
    let is_valid = opaque.bytes().all(|b| b == 0x21 || b > 0x22 && b != 0x7f);
    is_valid.then_some(tag)
}

/// A Content-Range of a part (RFC 9110 §14.4): `bytes 5-9/20`, or `bytes 5-9/*`.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    /// At least `first`.
    last: u64,
    /// More than `last`.
    total: Option<u64>,
}

impl ContentRange {
    fn parse(value: &str) -> Option<Self> {
        let (range, total) = in_bytes(value)?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (digits(first)?, digits(last)?);
        let total = match total {
            "*" => None,
            total => Some(digits(total)?),
        };
        let is_valid = first <= last && total.is_none_or(|total| last < total);
        is_valid.then_some(Self { first, last, total })
    }
}

/// Returns the length in the Content-Range of a 416 (RFC 9110 §15.5.17): `bytes */20`.
fn unsatisfied_length(value: &str) -> Option<u64> {
    digits(in_bytes(value)?.strip_prefix("*/")?)
}

/// Returns what follows the range unit `bytes`, which is case-insensitive (RFC 9110 §14.1).
fn in_bytes(value: &str) -> Option<&str> {
    let (unit, rest) = value.split_once(' ')?;
    unit.eq_ignore_ascii_case("bytes").then_some(rest)
}

/// Parses digits only: `parse` alone would accept a plus sign.
fn digits(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|b| b.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;
    use crate::response::testing::lend;

    fn judged(wire: &str, judge: impl FnOnce(&Response<'_>) -> Answer) -> Answer {
        let request = Request::get("http://a/").build().unwrap();
        lend(&request, &format!("HTTP/1.1 {wire}\r\n\r\n"), b"", |head| {
            judge(&head)
        })
    }

    #[test]
    fn a_whole_file_can_be_continued_by_its_strong_tag() {
        const TAG: Option<&str> = Some("\"a\"");
        let rows = [
            ("strong", "200 \r\nETag: \"a\"\r\nContent-Length: 9", TAG),
            ("none", "200 \r\nContent-Length: 9", None),
            ("weak", "200 \r\nETag: W/\"a\"\r\nContent-Length: 9", None),
            ("unquoted", "200 \r\nETag: a\r\nContent-Length: 9", None),
            ("half", "200 \r\nETag: \"\r\nContent-Length: 9", None),
            ("quote", "200 \r\nETag: \"a\"b\"\r\nContent-Length: 9", None),
            ("space", "200 \r\nETag: \"a b\"\r\nContent-Length: 9", None),
            (
                "two",
                "200 \r\nETag: \"a\"\r\nETag: \"a\"\r\nContent-Length: 9",
                None,
            ),
            (
                "coded",
                "200 \r\nETag: \"a\"\r\nContent-Length: 9\r\nContent-Encoding: gzip",
                None,
            ),
            (
                "changed by a proxy",
                "203 \r\nETag: \"a\"\r\nContent-Length: 9",
                None,
            ),
        ];
        for (why, wire, expected) in rows {
            for is_uncoded in [true, false] {
                let etag = expected.map(str::to_owned);
                let total = Some(9);
                let answer = judged(wire, |head| judge_whole(head, is_uncoded));
                assert_eq!(answer, Answer::Whole { total, etag }, "{why}");
            }
        }
        for (is_uncoded, expected) in [(true, TAG), (false, None)] {
            let wire = "200 \r\nETag: \"a\"\r\nTransfer-Encoding: chunked";
            let etag = expected.map(str::to_owned);
            let answer = judged(wire, |head| judge_whole(head, is_uncoded));
            let total = None;
            assert_eq!(answer, Answer::Whole { total, etag }, "chunked");
        }
    }

    #[test]
    fn only_200_and_203_are_files() {
        for status in 100..=999 {
            if !matches!(status, 200 | 203) {
                let answer = judged(&format!("{status} "), |head| judge_whole(head, true));
                assert_eq!(answer, Answer::Refused, "{status}");
            }
        }
    }

    /// Ten bytes are here.
    fn rest(wire: &str, total: Option<u64>) -> Answer {
        judged(wire, |head| {
            let (bytes, etag) = (10, "\"a\"");
            judge_rest(head, Here { bytes, total, etag })
        })
    }

    #[test]
    fn a_part_is_checked_in_all_that_it_says() {
        let ok = |end, total| Some((end, total));
        let known = Some(20);
        let rows = [
            ("the rest", "bytes 10-19/20", known, ok(20, known)),
            ("unit in capitals", "BYTES 10-19/20", known, ok(20, known)),
            ("a beginning of it", "bytes 10-10/20", known, ok(11, known)),
            ("length left open", "bytes 10-19/*", known, ok(20, known)),
            ("length now known", "bytes 10-19/20", None, ok(20, known)),
            ("length unknown", "bytes 10-19/*", None, ok(20, None)),
            ("another unit", "lines 10-19/20", known, None),
            ("no unit", "10-19/20", known, None),
            ("no range", "bytes */20", known, None),
            ("before it", "bytes 9-19/20", known, None),
            ("after it", "bytes 11-19/20", known, None),
            ("the whole", "bytes 0-19/20", known, None),
            ("longer file", "bytes 10-20/21", known, None),
            ("shorter file", "bytes 10-18/19", known, None),
            ("beyond the file", "bytes 10-20/*", known, None),
            ("beyond what it says", "bytes 10-20/20", None, None),
            ("backwards", "bytes 10-9/20", known, None),
            ("signed", "bytes +10-19/20", known, None),
            ("spaced", "bytes 10 - 19/20", known, None),
            ("open", "bytes 10-/20", known, None),
            ("empty", "", known, None),
            ("words", "bytes ten-nineteen/twenty", known, None),
            (
                "too large",
                "bytes 10-99999999999999999999/999999999999999999999",
                None,
                None,
            ),
            (
                "all there is",
                "bytes 10-18446744073709551615/*",
                None,
                None,
            ),
        ];
        for (why, range, total, expected) in rows {
            let wire = format!("206 \r\nETag: \"a\"\r\nContent-Range: {range}");
            match (rest(&wire, total), expected) {
                (Answer::Rest { end, total }, Some(right)) => assert_eq!((end, total), right),
                (Answer::Useless(_), None) => {}
                (answer, _) => panic!("{why}: {answer:?}"),
            }
        }
    }

    #[test]
    fn a_part_without_proof_is_useless() {
        let range = "Content-Range: bytes 10-19/20";
        let rows = [
            format!("206 \r\n{range}"),
            format!("206 \r\n{range}\r\nETag: \"b\""),
            format!("206 \r\n{range}\r\nETag: W/\"a\""),
            format!("206 \r\n{range}\r\nETag: \"a\"\r\nETag: \"b\""),
            format!("206 \r\n{range}\r\n{range}\r\nETag: \"a\""),
            format!("206 \r\n{range}\r\nETag: \"a\"\r\nContent-Encoding: gzip"),
            format!("206 \r\n{range}\r\nETag: \"a\"\r\nContent-Length: 9"),
            "206 \r\nETag: \"a\"\r\nContent-Type: multipart/byteranges; boundary=x".to_owned(),
        ];
        for wire in rows {
            let answer = rest(&wire, Some(20));
            assert!(matches!(answer, Answer::Useless(_)), "{wire}: {answer:?}");
        }
    }

    #[test]
    fn a_range_that_does_not_exist_can_prove_the_end() {
        let complete = "416 \r\nETag: \"a\"\r\nContent-Range: bytes */10";
        for total in [None, Some(10)] {
            assert_eq!(rest(complete, total), Answer::Complete);
        }
        let rows = [
            (complete, Some(20)),
            ("416 \r\nETag: \"b\"\r\nContent-Range: bytes */10", None),
            ("416 \r\nContent-Range: bytes */10", None),
            ("416 \r\nETag: \"a\"\r\nContent-Range: bytes */9", None),
            ("416 \r\nETag: \"a\"\r\nContent-Range: bytes */*", None),
            ("416 \r\nETag: \"a\"", None),
        ];
        for (wire, total) in rows {
            let answer = rest(wire, total);
            assert!(matches!(answer, Answer::Useless(_)), "{wire}: {answer:?}");
        }
    }

    #[test]
    fn another_answer_to_a_range_is_a_new_beginning_or_none() {
        let answer = rest("200 \r\nETag: \"b\"\r\nContent-Length: 9", Some(20));
        let (total, etag) = (Some(9), Some("\"b\"".to_owned()));
        assert_eq!(answer, Answer::Whole { total, etag });
        for status in [204, 302, 304, 404, 412, 503] {
            assert_eq!(rest(&format!("{status} "), None), Answer::Refused);
        }
    }
}
