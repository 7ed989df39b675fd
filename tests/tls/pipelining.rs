//! Pipelines in records: several requests share a record, and answers are cut at record boundaries.

use httpstream::{Config, ErrorKind, Request};
use rustls::SupportedProtocolVersion;

use crate::common::{Bench, ok};
use crate::peer::{Pieces, TlsPeer, VERSIONS, World};

const DEPTH: usize = 8;

fn bench(world: &World) -> Bench {
    Bench::with(|config: &mut Config| {
        config.route.tls = world.authority.tls();
        config.max_connections = 1;
        config.pipeline_without_trial("*", DEPTH);
    })
}

fn paths(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("/{i}")).collect()
}

/// Reads `count` requests and answers them together, repeatedly until the client closes.
fn answer_together(peer: &mut TlsPeer<'_>, count: usize) {
    loop {
        let mut answers = Vec::new();
        for _ in 0..count {
            let Some((path, _)) = peer.request() else {
                return;
            };
            answers.extend(ok(&path));
        }
        if !peer.send(&answers) {
            return;
        }
    }
}

fn get_all(version: &'static SupportedProtocolVersion, pieces: Pieces) {
    let world = World::with(
        &[version],
        |_| (),
        pieces,
        |peer| {
            answer_together(peer, DEPTH);
        },
    );
    let mut bench = bench(&world);
    for i in 0..5 * DEPTH {
        bench.submit(world.get(&format!("/{i}")));
    }
    bench.replies(5 * DEPTH);
    assert_eq!(bench.log.texts(), paths(0..5 * DEPTH));
    let stats = bench.stats();
    assert_eq!((stats.opened, stats.retried), (1, 0));
    // The last request to be queued finds the pipeline empty.
    assert!(stats.pipelined >= 4 * DEPTH as u64, "{}", stats.pipelined);
    bench.assert_empty();
}

#[test]
fn answers_come_in_the_order_of_the_requests_however_records_are_cut() {
    for version in VERSIONS {
        get_all(version, Pieces::Whole);
        get_all(version, Pieces::Bytes);
    }
}

#[test]
fn answers_before_a_closure_alert_in_the_same_read_are_all_heard() {
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            let answered = if peer.number() == 0 { 5 } else { DEPTH };
            let mut answers = Vec::new();
            for i in 0..DEPTH {
                let Some((path, _)) = peer.request() else {
                    break;
                };
                if i < answered {
                    answers.extend(ok(&path));
                }
                if peer.number() > 0 && !peer.send(&ok(&path)) {
                    break;
                }
            }
            if peer.number() == 0 {
                let wire = [peer.seal(&answers), peer.close_notify()].concat();
                peer.send_raw(&wire);
            }
        });
        let mut bench = bench(&world);
        for i in 0..DEPTH {
            bench.submit(world.get(&format!("/{i}")));
        }
        bench.replies(DEPTH);
        assert_eq!(bench.log.texts(), paths(0..DEPTH));
        let seen = world.server.so_far();
        for (i, path) in paths(0..DEPTH).into_iter().enumerate() {
            let times = seen.iter().filter(|seen| seen.path == path).count();
            assert_eq!(times, if i < 5 { 1 } else { 2 }, "{path}");
        }
        assert_eq!(bench.stats().retried, DEPTH as u64 - 5);
        bench.assert_empty();
    }
}

#[test]
fn long_bodies_go_both_ways_in_a_pipeline() {
    const LONG: usize = 200_000;
    for version in VERSIONS {
        let world = World::speaking(version, |peer| {
            while let Some((path, body)) = peer.request() {
                assert_eq!(body.len(), LONG);
                if !peer.send(&ok(&path.repeat(LONG / 2))) {
                    return;
                }
            }
        });
        let mut bench = bench(&world);
        for i in 0..DEPTH {
            let put = Request::put(world.url(&format!("/{i}"))).body(vec![b'x'; LONG]);
            bench.submit(put.build().unwrap());
        }
        bench.replies(DEPTH);
        for (i, text) in bench.log.texts().into_iter().enumerate() {
            assert!(
                text == format!("/{i}").repeat(LONG / 2),
                "the {i}th: {}",
                text.len()
            );
        }
        assert_eq!(bench.stats().opened, 1);
        bench.assert_empty();
    }
}

#[test]
fn a_broken_record_fails_the_one_in_front_and_sends_the_others_again() {
    let world = World::new(|peer| {
        for i in 0..DEPTH {
            let Some((path, _)) = peer.request() else {
                return;
            };
            let mut wire = peer.seal(&ok(&path));
            if peer.number() == 0 && i == 3 {
                let last = wire.len() - 1;
                wire[last] ^= 1;
            }
            if !peer.send_raw(&wire) {
                return;
            }
        }
        peer.hold();
    });
    let mut bench = bench(&world);
    for i in 0..DEPTH {
        bench.submit(world.get(&format!("/{i}")));
    }
    bench.replies(DEPTH);
    // The request whose answer could not be read had a second attempt, as on any connection that
    // has served others.
    assert_eq!(bench.log.kinds(), [ErrorKind::Tls; 0]);
    assert_eq!(bench.log.texts(), paths(0..DEPTH));
    let seen = world.server.so_far();
    for path in paths(0..3) {
        assert_eq!(seen.iter().filter(|seen| seen.path == path).count(), 1);
    }
    bench.assert_empty();
}
