//! Low speeds and caps over TLS, where a record may be longer than what a cap allows at once, and
//! take longer than any window.

use std::time::{Duration, Instant};

use httpstream::{ErrorKind, Phase, Request};

use crate::bodies::{assert_same, body_of};
use crate::common::ok;
use crate::peer::{VERSIONS, World};

const MS: Duration = Duration::from_millis(1);

#[test]
fn capped_bodies_arrive_whole_and_not_too_soon() {
    const SIZE: usize = 100_000;
    const RATE: u64 = 300_000;
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            while let Some((_, body)) = peer.request() {
                assert_same(&body, &body_of(SIZE), "upload");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
                peer.send(&[head.as_bytes(), &body].concat());
            }
        });
        let mut bench = world.bench();
        let put = Request::put(world.url("/")).body(body_of(SIZE));
        let put = put.upload_rate(RATE).download_rate(RATE).build().unwrap();
        for reused in [false, true] {
            let begun = Instant::now();
            let got = bench.fetch_ok(put.clone());
            // An eighth of a second's worth goes at once in each direction.
            let least = (SIZE as u64 - RATE / 8) * 1000 / RATE;
            assert!(begun.elapsed() >= 2 * Duration::from_millis(least));
            assert_same(&got.body, &body_of(SIZE), "download");
            assert_eq!(got.reused, reused);
        }
        bench.assert_empty();
    }
}

#[test]
fn a_record_that_a_cap_delays_is_no_silence() {
    let world = World::new(|peer| while peer.answer(&ok(&"x".repeat(16_000))) {});
    let mut bench = world.bench();
    // The response is in one record, which takes 0.7 s.
    let get = world.at("/").download_rate(20_000);
    let get = get.timeouts(|t| {
        let short = Some(300 * MS);
        (t.first_byte, t.idle) = (short, short);
    });
    let get = get.low_speed(1 << 20, 300 * MS).build().unwrap();
    let begun = Instant::now();
    assert_eq!(bench.fetch_ok(get).text(), "x".repeat(16_000));
    assert!(begun.elapsed() >= 600 * MS);
    bench.assert_empty();
}

#[test]
fn the_bytes_of_a_record_count_before_it_is_complete() {
    for (step, is_slow) in [(250, false), (1, true)] {
        let world = World::new(move |peer| {
            peer.request();
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n");
            let record = peer.seal(&body_of(10_000));
            for piece in record.chunks(step) {
                if !peer.send_raw(piece) {
                    return;
                }
                std::thread::sleep(25 * MS);
            }
            peer.tcp.hold();
        });
        let mut bench = world.bench();
        let get = world.at("/").low_speed(1000, 400 * MS).build().unwrap();
        let begun = Instant::now();
        let reply = bench.fetch(get);
        match is_slow {
            // The record takes a second, with about 10,000 bytes a second.
            false => assert_same(&reply.unwrap().body, &body_of(10_000), "body"),
            true => {
                let error = reply.unwrap_err();
                let seen = (error.kind(), error.phase());
                assert_eq!(seen, (ErrorKind::Timeout, Phase::Body), "{error:#}");
                let why = "slower than 1000 bytes/s over 400ms (";
                assert!(format!("{error:#}").contains(why), "{error:#}");
                assert!(begun.elapsed() >= 400 * MS);
            }
        }
        bench.assert_empty();
    }
}
