//! An origin for which no port is left does not delay others. This runs in a network namespace of
//! its own, with twenty ports.

#![cfg(target_os = "linux")]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Bench, Gate, Server, ok};
use httpstream::{ErrorKind, Request};

const INSIDE: &str = "HTTPSTREAM_TEST_NAMESPACE";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Runs the test of that name again, in a namespace.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let set_up = format!(
        "ip link set lo up && echo 40000 40019 >{RANGE} && exec \"$0\" --exact {test} --nocapture"
    );
    let is_possible = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up"])
        .output()
        .is_ok_and(|done| done.status.success());
    if !is_possible {
        println!("skipped: no privilege to create network namespaces");
        return false;
    }
    let done = Command::new("unshare")
        .args(["--net", "sh", "-c", &set_up])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}");
    assert!(told.contains("test result: ok. 1 passed"), "{told}");
    false
}

/// Answers when its gate is open, and counts its connections.
fn held() -> (Server, Gate, Arc<AtomicUsize>) {
    let (gate, connections) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (at, count) = (gate.clone(), Arc::clone(&connections));
    let server = Server::start(move |peer| {
        count.fetch_add(1, Ordering::SeqCst);
        while let Some(seen) = peer.request() {
            at.pass();
            peer.send(&ok(&seen.path));
        }
    });
    (server, gate, connections)
}

#[test]
fn an_origin_without_ports_keeps_no_other_waiting() {
    if !inside("an_origin_without_ports_keeps_no_other_waiting") {
        return;
    }
    let (a, gate, connections) = held();
    let b = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    });
    let mut bench = Bench::new();
    // An idle connection to the other origin stays.
    bench.fetch_ok(b.get("/idle"));
    for i in 0..40 {
        bench.submit(a.get(&format!("/a{i}")));
    }
    bench.until("all ports are taken", |engine, _| {
        engine.stats().in_flight >= 15
    });
    bench.quiet();
    let stats = bench.stats();
    assert!(stats.queued >= 15, "{stats:?}");
    // One at a time, then all at once.
    for i in 0..28 {
        assert_eq!(bench.fetch_ok(b.get("/b")).text(), "/b", "{i}");
    }
    assert_eq!(
        bench.stats().opened,
        stats.opened,
        "the idle connection is used"
    );
    // This also opens new connections.
    let opened = bench.stats().opened;
    for _ in 0..12 {
        bench.submit(b.get("/b"));
    }
    bench.replies(12);
    assert_eq!(bench.log.texts(), ["/b"; 12]);
    assert!(bench.stats().opened > opened + 5, "{:?}", bench.stats());
    assert_eq!(
        bench.stats().queued,
        stats.queued,
        "the other requests still wait"
    );
    bench.log.replies.clear();
    gate.open(40);
    bench.replies(40);
    let texts = bench.log.texts();
    let mut of_a: Vec<_> = texts.iter().filter(|text| text.starts_with("/a")).collect();
    of_a.sort_unstable();
    of_a.dedup();
    assert_eq!(of_a.len(), 40);
    assert!(connections.load(Ordering::SeqCst) <= 20);
    bench.assert_empty();
}

#[test]
fn what_waits_for_a_port_to_the_end_says_so() {
    if !inside("what_waits_for_a_port_to_the_end_says_so") {
        return;
    }
    let (a, _gate, _) = held();
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.submit(a.get("/"));
    }
    bench.until("all ports are taken", |engine, _| {
        engine.stats().in_flight >= 19
    });
    let late = Request::get(a.url("/late"))
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let mut errors = Vec::new();
    bench.submit(late.clone());
    bench.submit(late);
    bench.replies(2);
    errors.extend(bench.log.kinds());
    assert_eq!(errors, [ErrorKind::Exhausted; 2], "{:?}", bench.log.replies);
}
