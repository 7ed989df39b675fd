//! The expected transcript, derived from the script alone, without a client.

use super::script::{Act, CHAINS, CHUNK, Checksum, MAX_BODY_BYTES, Place, STEPS, TRUNCATED_AT};

/// Returns all lines of all chains.
pub(crate) fn transcript() -> String {
    let steps = |chain| (0..STEPS).map(move |step| Place { chain, step });
    (0..CHAINS).flat_map(steps).map(line).collect()
}

fn line(place: Place) -> String {
    let Place { chain, step } = place;
    let after = place.delay_ms();
    let outcome = outcome(place);
    format!("chain {chain:02} step {step:02} after {after} ms: {outcome}\n")
}

fn outcome(place: Place) -> String {
    let body = place.body();
    let whole = answer(200, &body);
    match place.act() {
        Act::Whole
        | Act::Pieces
        | Act::Large
        | Act::Closing
        | Act::UntilClose
        | Act::Interim
        | Act::Echo => whole,
        Act::Chunked => format!("{whole}, trailer {}", place.step),
        Act::NoContent => answer(204, b""),
        Act::NotModified => answer(304, b""),
        Act::Head => format!("{}, length {}", answer(200, b""), body.len()),
        Act::NotFound => answer(404, &body),
        Act::Busy => format!("{}, again: {whole}", answer(503, b"")),
        Act::Elsewhere => {
            let Checksum(sum) = Checksum::of(&body);
            let told = format!("{sum:08x}");
            format!("{whole}, elsewhere: {}", answer(200, told.as_bytes()))
        }
        Act::Paused => format!("{whole}, paused 2 times"),
        Act::Abort => "Aborted in Body, sent, safe to send again".to_owned(),
        Act::Cancelled if place.is_held() => {
            "Cancelled in FirstByte, maybe sent, safe to send again".to_owned()
        }
        Act::Cancelled => format!("{whole}, cancelled chain {:02}", place.partner().chain),
        Act::Malformed => "Malformed in Head, sent, safe to send again".to_owned(),
        Act::TooLarge => format!("TooLarge over {MAX_BODY_BYTES}, sent, safe to send again"),
        Act::Truncated => truncated(&body[..TRUNCATED_AT]),
        Act::TruncatedChunked => truncated(&body[..CHUNK]),
        Act::Closed => {
            "ClosedBeforeResponse in FirstByte, maybe sent, safe to send again".to_owned()
        }
        Act::ClosedPost => "ClosedBeforeResponse in FirstByte, maybe sent".to_owned(),
        Act::Silence => "Timeout in FirstByte, maybe sent, safe to send again".to_owned(),
        Act::Refused => "Connect in Connect, not sent, safe to send again".to_owned(),
    }
}

fn answer(status: u16, body: &[u8]) -> String {
    let Checksum(sum) = Checksum::of(body);
    format!("{status} {} bytes {sum:08x}", body.len())
}

fn truncated(came: &[u8]) -> String {
    let Checksum(sum) = Checksum::of(came);
    format!(
        "Truncated in Body, sent, safe to send again, {} bytes {sum:08x}",
        came.len()
    )
}
