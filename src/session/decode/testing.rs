//! Runs decoders as the engine does, and makes bodies for them.

use crate::error::{Circumstances, Phase, Sent};
use crate::policy::{Decoding, ROOM, Screening, Step};
use crate::proto::testing::{Random, feeds};
use crate::session::decode::Decode;

/// Without a limit.
pub(super) const ALL: u64 = u64::MAX;

/// The sizes of the room for a piece, and after how many pieces the rest is kept, as in a pause.
const AROUND: [(usize, usize); 5] = [(1, 0), (7, 1), (64, 0), (64, 2), (ROOM, 0)];

/// Decodes a body with this Content-Encoding that arrives in these pieces. Returns what was decoded
/// and, if that is not all of it, the text of the error.
pub(super) fn decode(
    codings: &str,
    feed: &[&[u8]],
    max_bytes: u64,
    (room, pause): (usize, usize),
) -> (Vec<u8>, Option<String>) {
    let mut body = Vec::new();
    let mut decoding = decoding(codings, max_bytes);
    let mut room = vec![0; room];
    let mut run = || {
        let mut pieces = 0;
        let inputs = feed.iter().map(|piece| (*piece, false));
        for (mut input, is_end) in inputs.chain([(&[][..], true)]) {
            if is_end {
                decoding.end_input();
            }
            loop {
                match decoding.decode(&mut input, &mut room)? {
                    Step::Piece(n) => {
                        body.extend_from_slice(&room[..n]);
                        pieces += 1;
                        if pause > 0 && pieces % pause == 0 {
                            decoding.keep(input);
                            input = &[];
                        }
                    }
                    Step::Busy => {}
                    Step::NeedsInput | Step::Done => break,
                }
            }
        }
        Ok(())
    };
    let error = run().err().map(|why| {
        let at = Circumstances {
            phase: Phase::Body,
            sent: Sent::Yes,
            resend_is_safe: true,
            reused: false,
            attempts: 1,
            origin: None,
            request: None,
            status: None,
            partial_body: Vec::new(),
        };
        let why: crate::policy::Undecodable = why;
        format!("{:#}", why.into_error(at))
    });
    (body, error)
}

/// Installs the decoders of these codings.
pub(super) fn decoding(codings: &str, max_bytes: u64) -> Decoding {
    let all = Decode::all().max_bytes(max_bytes).check();
    let all = all.expect("valid").expect("some are on");
    let values = [codings.as_bytes()];
    let screening = all.screen(Screening::show(), values.into_iter());
    let (_, decoders, max_bytes) = screening.expect("not too many").into_parts();
    assert!(!decoders.is_empty(), "{codings}");
    Decoding::new(decoders, max_bytes).expect("not too many")
}

/// The error of a body that is cut short.
pub(super) const CUT_SHORT: &str = "response cut short";

/// Why, a body, and what it decodes to. The error is `CUT_SHORT` or why the body is malformed.
type Row<'a> = (&'a str, &'a [u8], Result<&'a [u8], &'a str>);

/// Checks a table of bodies, each at every split.
pub(super) fn check(coding: &str, rows: &[Row<'_>]) {
    for (why, wire, expected) in rows {
        for feed in feeds(wire) {
            for around in AROUND {
                let (body, error) = decode(coding, &feed, ALL, around);
                let found = match &error {
                    None => Ok(&*body),
                    Some(error) => Err(&**error),
                };
                let is_expected = match (found, expected) {
                    (Ok(found), Ok(expected)) => found == *expected,
                    (Err(found), Err(CUT_SHORT)) => found.starts_with(CUT_SHORT),
                    (Err(found), Err(expected)) => found
                        .strip_prefix("malformed response while reading the body: ")
                        .is_some_and(|why| why.starts_with(expected)),
                    _ => false,
                };
                let shown = found.map(String::from_utf8_lossy);
                assert!(is_expected, "{why}: {shown:?} in {feed:?} {around:?}");
            }
        }
    }
}

/// Checks that every beginning of a body is cut short.
pub(super) fn check_cuts(coding: &str, wire: &[u8], expected: &[u8]) {
    for end in 1..wire.len() {
        for feed in [vec![&wire[..end]], wire[..end].chunks(1).collect()] {
            let (body, error) = decode(coding, &feed, ALL, (64, 0));
            let error = error.unwrap_or_default();
            assert!(error.starts_with(CUT_SHORT), "{end}: {error:?}");
            assert!(expected.starts_with(&body), "{end}");
        }
    }
}

/// Checks a long body in pieces of many sizes.
pub(super) fn check_pieces(codings: &str, wire: &[u8], expected: &[u8]) {
    let mut random = Random::new(wire.len() as u64);
    for round in 0..12 {
        let feed: Vec<_> = match round {
            0 => vec![wire],
            1 => wire.chunks(1).collect(),
            2 => random.cut(wire),
            _ => wire.chunks(1 + random.below(wire.len())).collect(),
        };
        let room = 1 + random.below(2 * ROOM);
        let found = decode(codings, &feed, ALL, (room, round % 3));
        assert!(
            found.1.is_none() && found.0 == expected,
            "{codings} {round}: {} bytes of {}, {:?}",
            found.0.len(),
            expected.len(),
            found.1
        );
    }
}

/// Decodes mutations of a body and bytes at random. Nothing may panic, and everything must end.
pub(super) fn check_mutations(coding: &str, wires: &[&[u8]]) {
    const MAX: u64 = 1 << 20;
    let mut random = Random::new(wires.len() as u64);
    for round in 0..4000 {
        let wire = wires[random.below(wires.len())];
        let mut hostile = match round % 8 {
            0 => (0..1 + random.below(200)).map(|_| random.byte()).collect(),
            // The rest of a valid beginning is random.
            1 => {
                let start = &wire[..1 + random.below(wire.len())];
                let rest = (0..random.below(200)).map(|_| random.byte());
                start.iter().copied().chain(rest).collect()
            }
            _ => random.mutate(wire),
        };
        if round % 3 == 0 {
            let bit = random.below(8 * hostile.len());
            hostile[bit / 8] ^= 1 << (bit % 8);
        }
        let feed = match round % 2 {
            0 => vec![&*hostile],
            _ => random.cut(&hostile),
        };
        let (body, error) = decode(coding, &feed, MAX, (ROOM, 0));
        let error = error.unwrap_or_default();
        assert!(!error.contains("panicked"), "{round}: {hostile:02x?}");
        assert!(body.len() as u64 <= MAX, "{round}");
    }
}

const WORDS: [&str; 16] = [
    "a", "the", "engine", "reads", "what", "server", "sends", "and", "answers", "42", "links",
    "turn", "body", "decoded", "été", "\n",
];

/// The text in the files `fixtures/words.*`.
pub(super) fn words() -> Vec<u8> {
    text(1, 20_000)
}

/// The text in the files `fixtures/repeated*`.
pub(super) fn repeated() -> Vec<u8> {
    let mut random = Random::new(2);
    let mut out = text(2, 10_000);
    while out.len() < 600_000 {
        let start = random.below(out.len());
        let n = 1 + random.below(20_000);
        out.extend_from_within(start..out.len().min(start + n));
        out.push(random.below(256) as u8);
    }
    out.truncate(600_000);
    out
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut out = Vec::new();
    while out.len() < len {
        out.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes());
        out.push(b' ');
    }
    out.truncate(len);
    out
}

/// Bytes that no coding can compress.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new(len as u64);
    (0..len).map(|_| random.byte()).collect()
}
