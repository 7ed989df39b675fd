//! A process that is forked off does not harm its parent's engine by dropping it, and may have engines of its own. A file of its own, since a
//! process with other tests in it is no place to fork.
#![cfg(unix)]
#![allow(unsafe_code, reason = "fork")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Gate, Log, Server, ok};
use httpstream::{Config, Engine};

/// Has names looked up at a server that never answers.
#[cfg(feature = "hickory")]
fn ask_nobody(config: &mut Config) {
    use httpstream::resolver::{Hickory, HickoryConfig};

    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut names = HickoryConfig::default();
    names.servers = vec![mute.local_addr().unwrap()];
    config.resolver = Some(Box::new(Hickory::with_config(names)));
    // As long as the process is there.
    std::mem::forget(mute);
}

#[cfg(not(feature = "hickory"))]
fn ask_nobody(config: &mut Config) {
    config.resolver = Some(Box::new(httpstream::resolver::Table::new()));
}

/// What the child did, by its exit status.
const FINE: i32 = 0;
const NO_ANSWER: i32 = 1;

#[test]
fn a_child_may_drop_the_engine_and_the_parents_goes_on() {
    let gate = Arc::new(Gate::new());
    let server = {
        let gate = Arc::clone(&gate);
        Server::start(move |peer| {
            while let Some(seen) = peer.request() {
                if seen.path == "/held" {
                    gate.pass();
                }
                peer.send(&ok(&seen.path));
            }
        })
    };
    let mut bench = Bench::with(ask_nobody);
    for _ in 0..10 {
        bench.submit(server.get("/held"));
    }
    bench.until("all are held", |engine, _| engine.stats().in_flight == 10);
    // A look-up under way, which has sockets in the poll too.
    let lookup = httpstream::Request::get("http://name.test/").timeout(Duration::from_secs(1));
    bench.submit(lookup.build().unwrap());
    bench
        .engine
        .turn(&mut bench.log, Some(Duration::ZERO))
        .unwrap();
    let of_the_child = server.get("/child");

    // SAFETY: the child does nothing but drop the engine, run one of its own and leave by _exit: what it needs of the allocator and of
    // thread-locals is its own, and no lock of another thread's is asked for.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        drop(bench);
        let mut engine = Engine::<Log>::new().unwrap();
        let mut log = Log::default();
        engine.submit(of_the_child, common::note);
        let ran = engine.run(&mut log);
        let code = match ran.is_ok() && log.texts() == ["/child"] {
            true => FINE,
            false => NO_ANSWER,
        };
        // SAFETY: ends this process without running what belongs to the parent.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status), "{status:#x}");
    assert_eq!(libc::WEXITSTATUS(status), FINE);

    gate.open(10);
    bench.replies(11);
    let texts = bench.log.texts();
    let held = texts.iter().filter(|text| *text == "/held").count();
    assert_eq!(held, 10, "nothing was taken from the parent: {texts:?}");
    assert_eq!(bench.fetch_ok(server.get("/after")).text(), "/after");
}
