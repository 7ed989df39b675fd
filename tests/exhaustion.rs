//! A process that runs out of file descriptors: idle connections are closed, requests wait, and all
//! of them are answered.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Server, ok};
use httpstream::resolver::System;
use httpstream::{ErrorKind, Phase, Request, Sent};

/// Set in the child, to the URLs that it requests.
const CHILD: &str = "HTTPSTREAM_TEST_URLS";
const REQUESTS: usize = 1000;

/// Runs the test `child` of this file in a process of its own, with 64 file descriptors.
fn in_a_child(urls: &[String], resolve_to: Option<&str>) {
    let child = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 64 && exec \"$0\" --exact child --nocapture --test-threads 1",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, urls.join(" "))
        .env("HTTPSTREAM_TEST_RESOLVE_TO", resolve_to.unwrap_or_default())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    assert!(
        child.status.success() && out.contains("completed"),
        "{}: {out}",
        urls[0]
    );
}

#[test]
fn child() {
    let Ok(urls) = std::env::var(CHILD) else {
        return;
    };
    let resolve_to = std::env::var("HTTPSTREAM_TEST_RESOLVE_TO").unwrap_or_default();
    let mut bench = Bench::with(|c| {
        c.max_connections = 1000;
        c.max_connections_per_origin = 1000;
        c.max_idle_per_origin = 1000;
        // Names in the hosts file are resolved by the system here, through the resolver with the
        // least information about shortages: `getaddrinfo` does not report that descriptors ran
        // out.
        c.hosts_file = None;
        c.resolver = Some(Arc::new(|| Box::new(System::new())));
        if !resolve_to.is_empty() {
            c.resolve_to("*.test", resolve_to.parse().unwrap());
        }
    });
    let urls: Vec<_> = urls.split(' ').collect();
    for i in 0..REQUESTS {
        let request = Request::get(urls[i % urls.len()]).build().unwrap();
        bench.submit(request);
    }
    bench.replies(REQUESTS);
    for reply in &bench.log.replies {
        assert!(
            reply.as_ref().is_ok_and(|got| got.text() == "a"),
            "{reply:?}"
        );
    }
    bench.assert_empty();
    println!("completed: {:?}", bench.stats());
}

fn servers(host: &str, bind: &str, count: usize) -> (Vec<Server>, Vec<String>) {
    let serve = || Server::on(bind, |peer| while peer.answer(&ok("a")) {});
    let servers: Vec<_> = (0..count).map(|_| serve()).collect();
    let urls = servers
        .iter()
        .map(|server| format!("http://{host}:{}/", server.addr.port()));
    let urls = urls.collect();
    (servers, urls)
}

#[test]
fn a_thousand_requests_by_address_complete_on_64_descriptors() {
    for origins in [1, 100] {
        let (_servers, urls) = servers("127.0.0.1", "127.0.0.1:0", origins);
        in_a_child(&urls, None);
    }
}

#[test]
fn a_thousand_requests_to_localhost_complete_on_64_descriptors() {
    for origins in [1, 100] {
        let (_servers, urls) = servers("localhost", "127.0.0.1:0", origins);
        in_a_child(&urls, None);
    }
}

#[test]
fn a_thousand_requests_by_a_name_of_the_system_complete_on_64_descriptors() {
    let Some((name, ip)) = common::hosts_name() else {
        println!("skipped: this machine has no name except localhost");
        return;
    };
    for origins in [1, 100] {
        let bind = std::net::SocketAddr::new(ip, 0).to_string();
        let (_servers, urls) = servers(&name, &bind, origins);
        in_a_child(&urls, None);
    }
}

#[test]
fn a_thousand_requests_to_a_hundred_overridden_names_complete_on_64_descriptors() {
    let (servers, _) = servers("", "127.0.0.1:0", 1);
    let urls: Vec<_> = (0..100).map(|i| format!("http://bot-{i}.test/")).collect();
    in_a_child(&urls, Some(&servers[0].addr.to_string()));
}

/// Opens all remaining descriptors of this process.
fn hold_all() -> Vec<std::fs::File> {
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    held
}

#[test]
fn without_any_descriptor_a_request_waits_and_goes_on_when_some_are_free() {
    // In a process of its own, since other tests would lack descriptors as well.
    if std::env::var("HTTPSTREAM_TEST_STARVE").is_err() {
        let server = Server::answering(ok("a"));
        let child = Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --exact without_any_descriptor_a_request_waits_and_goes_on_when_some_are_free --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .env("HTTPSTREAM_TEST_STARVE", server.url("/"))
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&child.stdout).into_owned()
            + &String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && out.contains("completed"), "{out}");
        return;
    }
    let url = std::env::var("HTTPSTREAM_TEST_STARVE").unwrap();
    let mut bench = Bench::new();
    let held = hold_all();
    let get = Request::get(&url).timeout(Duration::from_millis(250));
    let error = bench.fetch_err(get.build().unwrap());
    assert_eq!(
        common::facts(&error),
        (ErrorKind::Exhausted, Phase::Queue, Sent::No)
    );
    assert!(format!("{error:#}").contains("open files"), "{error:#}");
    assert_eq!((bench.engine.pending(), bench.stats().queued), (0, 0));
    let id = bench.submit(Request::get(&url).build().unwrap());
    bench.submit(Request::get(&url).build().unwrap());
    bench.quiet();
    assert_eq!(bench.stats().queued, 2);
    assert!(
        bench.engine.next_timeout().unwrap() <= Duration::from_millis(101),
        "it is tried again soon"
    );
    bench.engine.cancel(id);
    bench.replies(1);
    drop(held);
    bench.replies(2);
    assert_eq!(bench.log.texts(), ["Cancelled", "a"]);
    bench.assert_empty();
    println!("completed");
}
