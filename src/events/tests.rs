//! The parser against tables of streams, and against a model that reads a whole stream at once.

use super::parser::{Parser, Step};
use super::*;

/// What comes of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Id, name and data of each event.
    events: Vec<(String, String, String)>,
    retries: Vec<u32>,
    last_id: Option<String>,
    is_too_large: bool,
}

fn read<'p>(parser: &mut Parser, pieces: impl IntoIterator<Item = &'p [u8]>, most: usize) -> Seen {
    let mut seen = Seen::default();
    'pieces: for piece in pieces {
        let mut input = piece;
        loop {
            match parser.next(&mut input, most) {
                Step::NeedsInput => break,
                Step::Event => {
                    let Event { id, name, data } = parser.event();
                    let owned = (id.into_owned(), name.into_owned(), data.into_owned());
                    seen.events.push(owned);
                    parser.clear_event();
                }
                Step::Retry { millis } => seen.retries.push(millis),
                Step::TooLarge { seen: bytes } => {
                    assert!(bytes > most, "{bytes}");
                    seen.is_too_large = true;
                    break 'pieces;
                }
            }
        }
        assert!(input.is_empty(), "a piece is read to its end");
        parser.free();
    }
    seen.last_id = parser.last_id().map(str::to_owned);
    seen
}

/// Calls `check` with the pieces of `wire` in every division into three, and byte by byte.
fn every_split(wire: &[u8], mut check: impl FnMut(&[&[u8]])) {
    for i in 0..=wire.len() {
        for j in i..=wire.len() {
            check(&[&wire[..i], &wire[i..j], &wire[j..]]);
        }
    }
    check(&wire.chunks(1).collect::<Vec<_>>());
}

type Row = (
    &'static str,
    &'static [u8],
    &'static [(&'static str, &'static str, &'static str)],
    Option<&'static str>,
);

#[test]
fn streams_are_read_as_the_standard_says() {
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("nothing", b"", &[], None),
        ("blank lines", b"\n\n\r\r\n\n", &[], None),
        ("one event", b"data: hi\n\n", &[("", "message", "hi")], None),
        ("CR ends lines", b"data: hi\r\r", &[("", "message", "hi")], None),
        ("CRLF ends lines", b"data: hi\r\n\r\n", &[("", "message", "hi")], None),
        ("mixed line ends", b"data: a\rdata: b\ndata: c\r\n\ndata: d\r\r\n",
            &[("", "message", "a\nb\nc"), ("", "message", "d")], None),
        ("LF CR are two ends", b"data: a\n\rdata: b\n\r",
            &[("", "message", "a"), ("", "message", "b")], None),
        ("the standard's first example", b": test stream\n\ndata: first event\nid: 1\n\n\
            data:second event\nid\n\ndata:  third event\n\n",
            &[("1", "message", "first event"), ("", "message", "second event"),
              ("", "message", " third event")], Some("")),
        ("its second: empty data, and an incomplete event", b"data\n\ndata\ndata\n\ndata:",
            &[("", "message", ""), ("", "message", "\n")], None),
        ("its third: one space is removed", b"data:test\n\ndata: test\n\n",
            &[("", "message", "test"), ("", "message", "test")], None),
        ("a name", b"event: add\ndata: 73857293\n\n", &[("", "add", "73857293")], None),
        ("the last name counts", b"event: a\nevent: b\ndata\n\n", &[("", "b", "")], None),
        ("an empty name", b"event: a\nevent:\ndata\n\n", &[("", "message", "")], None),
        ("the name is for one event", b"event: a\ndata\n\ndata\n\n",
            &[("", "a", ""), ("", "message", "")], None),
        ("the name of an event without data is forgotten", b"event: a\n\ndata: x\n\n",
            &[("", "message", "x")], None),
        ("an id stays", b"id: 1\ndata: a\n\ndata: b\n\n",
            &[("1", "message", "a"), ("1", "message", "b")], Some("1")),
        ("an id without data counts", b"id: 1\n\ndata: b\n\n", &[("1", "message", "b")], Some("1")),
        ("an id of an incomplete event does not", b"id: 1\ndata: a\n\nid: 2\ndata: b\n",
            &[("1", "message", "a")], Some("1")),
        ("an id with NUL is ignored", b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n",
            &[("1", "message", "a"), ("1", "message", "b")], Some("1")),
        ("an id may have spaces and colons", b"id:  a: b \ndata\n\n",
            &[(" a: b ", "message", "")], Some(" a: b ")),
        ("comments", b":\n: data: a\n:data: b\ndata: c\n:\n\n", &[("", "message", "c")], None),
        ("unknown fields", b"foo: 1\nDATA: 2\ndata : 3\n data: 4\ndata: 5\nbar\n\n",
            &[("", "message", "5")], None),
        ("a colon in the data", b"data: a: b\ndata::\ndata: :\n\n",
            &[("", "message", "a: b\n:\n:")], None),
        ("a byte order mark", b"\xef\xbb\xbfdata: a\n\n", &[("", "message", "a")], None),
        ("a byte order mark and a blank line", b"\xef\xbb\xbf\ndata: a\n\n",
            &[("", "message", "a")], None),
        ("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
            &[("", "message", "b")], None),
        ("a late byte order mark", b"\n\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbf\n\n",
            &[("", "message", "\u{feff}")], None),
        ("half a byte order mark", b"\xef\xbbdata: a\n\ndata: b\n\n", &[("", "message", "b")], None),
        ("UTF-8", "event: naïve\nid: é\ndata: 你好\ndata: 🦀\n\n".as_bytes(),
            &[("é", "naïve", "你好\n🦀")], Some("é")),
        ("bytes that are not UTF-8 are replaced",
            b"data: \xff\xe4\xbd\ndata: \xa0a\xf0\x9f\x92b\nevent: \xc3\nid: \x80\n\n",
            &[("\u{fffd}", "\u{fffd}", "\u{fffd}\u{fffd}\n\u{fffd}a\u{fffd}b")], Some("\u{fffd}")),
        ("NUL in data and name", b"event: a\0\ndata: \0\n\n", &[("", "a\0", "\0")], None),
        ("an incomplete line", b"data: a\n\ndata: b", &[("", "message", "a")], None),
        ("an incomplete event", b"data: a\n\ndata: b\n", &[("", "message", "a")], None),
    ];
    for (why, wire, events, last_id) in rows {
        let owned = |(id, name, data): &(&str, &str, &str)| {
            ((*id).to_owned(), (*name).to_owned(), (*data).to_owned())
        };
        let expected = Seen {
            events: events.iter().map(owned).collect(),
            last_id: last_id.map(str::to_owned),
            ..Seen::default()
        };
        every_split(wire, |pieces| {
            let seen = read(&mut Parser::default(), pieces.iter().copied(), 1 << 20);
            assert_eq!(seen, expected, "{why}: {pieces:?}");
        });
    }
}

#[test]
fn a_retry_consists_of_digits() {
    for (value, expected) in [
        ("1000", Some(1000)),
        ("0", Some(0)),
        ("007", Some(7)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", Some(u32::MAX)),
        ("99999999999999999999999999999999999999999", Some(u32::MAX)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1 ", None),
        (" 1", None),
        ("1s", None),
        ("0x10", None),
        ("\u{661}", None),
    ] {
        let wire = format!("retry: {value}\ndata\n\n");
        every_split(wire.as_bytes(), |pieces| {
            let seen = read(&mut Parser::default(), pieces.iter().copied(), 1 << 20);
            assert_eq!(
                seen.retries,
                expected.into_iter().collect::<Vec<_>>(),
                "{value:?}"
            );
            assert_eq!(seen.events.len(), 1, "{value:?}");
        });
    }
    let seen = read(
        &mut Parser::default(),
        [&b"retry:5\nretry\nretry: 6"[..]],
        100,
    );
    assert_eq!(seen.retries, [5], "the last line has no end");
}

#[test]
fn name_data_and_line_of_an_event_are_bounded() {
    #[rustfmt::skip]
    let rows: &[(&str, &[u8], usize, bool)] = &[
        ("a line as long as allowed", b"data: 6789\n\n", 1, false),
        ("a longer line", b"data: 67890\n\n", 0, true),
        ("a line without an end", b"xxxxxxxxxxx", 0, true),
        ("a comment without an end", b":xxxxxxxxxx", 0, true),
        // 2 and 8 bytes.
        ("data and a line", b"data:1\ndata:123\n\n", 1, false),
        ("data and a longer line", b"data:1\ndata:1234\n\n", 0, true),
        ("a name and a line", b"event:1\ndata:1234\n\n", 1, false),
        ("a name and a longer line", b"event:1\ndata:12345\n\n", 0, true),
        ("data and a comment", b"data:1\n:xxxxxxxx\n\n", 0, true),
        ("what is ignored does not add up", b":xxxxxxxxx\n:xxxxxxxxx\nfoo: 1\nid: 1\ndata\n\n", 1, false),
        ("one event does not count for the next", b"data:12345\n\ndata:12345\n\n", 2, false),
        ("nor does an event without data", b"event:1\n\ndata:12345\n\n", 1, false),
    ];
    for (why, wire, events, is_too_large) in rows {
        every_split(wire, |pieces| {
            let seen = read(&mut Parser::default(), pieces.iter().copied(), 10);
            assert_eq!(seen.events.len(), *events, "{why}: {pieces:?}");
            assert_eq!(seen.is_too_large, *is_too_large, "{why}: {pieces:?}");
        });
    }
}

#[test]
fn an_id_outlives_its_stream_and_nothing_else_does() {
    let mut parser = Parser::default();
    parser.set_last_id("0");
    let seen = read(
        &mut parser,
        [&b"data: a\n\nid: 1\n\nevent: e\ndata: b\nid: 2\r"[..]],
        100,
    );
    assert_eq!(seen.events, [("0".into(), "message".into(), "a".into())]);
    parser.begin();
    // The LF does not belong to the CR of the last stream, and the mark is skipped again.
    let seen = read(&mut parser, [&b"\n"[..]], 100);
    assert_eq!(seen.events, []);
    parser.begin();
    let seen = read(&mut parser, ["\u{feff}data: c\n\n".as_bytes()], 100);
    assert_eq!(seen.events, [("1".into(), "message".into(), "c".into())]);
}

#[test]
fn an_idle_stream_keeps_no_buffers() {
    let mut parser = Parser::default();
    let event = format!("event: a\ndata: {}\n\n", "x".repeat(10_000));
    for piece in event.as_bytes().chunks(99) {
        read(&mut parser, [piece], 1 << 20);
    }
    assert!(parser.has_no_buffers());
    read(&mut parser, [&b": ping\n"[..]], 1 << 20);
    assert!(parser.has_no_buffers());
    read(&mut parser, [&b": pi"[..]], 1 << 20);
    assert!(!parser.has_no_buffers());
}

/// Reads a whole stream by the letter of the standard: decodes it, divides it into lines, and
/// follows the steps for each.
fn model(wire: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(wire);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    let mut seen = Seen::default();
    let (mut data, mut name, mut id) = (String::new(), String::new(), None::<String>);
    for line in lines {
        if line.is_empty() {
            seen.last_id = id.clone();
            let (data, name) = (std::mem::take(&mut data), std::mem::take(&mut name));
            if !data.is_empty() {
                let name = if name.is_empty() {
                    "message".to_owned()
                } else {
                    name
                };
                let data = data.strip_suffix('\n').unwrap().to_owned();
                seen.events
                    .push((id.clone().unwrap_or_default(), name, data));
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data = data + value + "\n",
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                let millis = value.bytes().fold(0_u64, |sum, digit| {
                    (10 * sum + u64::from(digit - b'0')).min(u32::MAX.into())
                });
                seen.retries.push(millis as u32);
            }
            _ => {}
        }
    }
    seen
}

#[test]
fn random_streams_are_read_as_by_the_model() {
    #[rustfmt::skip]
    const WORDS: &[&[u8]] = &[
        b"data", b"data:", b"data: ", b"id", b"id:", b"event", b"event:", b"retry:", b"retry: 1",
        b":", b" ", b"\n", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\r", b"a", b"9", b"0", b"\0",
        b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xe4\xbd\xa0", b"\xf0\x9f", b"\xff", b"xyz",
    ];
    for seed in 1..20_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |most: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % most
        };
        let mut wire = Vec::new();
        for _ in 0..below(40) {
            wire.extend_from_slice(WORDS[below(WORDS.len())]);
        }
        let mut pieces = Vec::new();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let most = rest.len().min(1 + below(12));
            let (piece, after) = rest.split_at(1 + below(most));
            pieces.push(piece);
            rest = after;
        }
        let seen = read(&mut Parser::default(), pieces, 1 << 20);
        let shown = || format!("seed {seed}: {:?}", String::from_utf8_lossy(&wire));
        assert_eq!(seen, model(&wire), "{}", shown());
    }
}

#[test]
fn the_readback_of_an_idle_stream_is_small() {
    // Ten thousand streams may be idle at once.
    assert!(size_of::<Reader>() <= 104, "{}", size_of::<Reader>());
}
