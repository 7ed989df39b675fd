//! What the crate passes to the `log` facade: a line for each step, and nothing that may be secret.

mod common;

use std::cell::RefCell;
use std::sync::Once;
use std::time::Duration;

use common::{Bench, Log, Script, Server, ok};
use httpstream::resolver::{LookupError, Table};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, ErrorKind, Flow, Next, Reply, Request, RequestBuilder, Sim,
};
use log::Level;

thread_local! {
    /// What this thread's engine has logged, without `trace`.
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= Level::Debug && record.target().starts_with("httpstream") {
            let line = (record.level(), record.args().to_string());
            LINES.with_borrow_mut(|lines| lines.push(line));
        }
    }

    fn flush(&self) {}
}

fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Capture).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
    LINES.take();
}

fn lines() -> Vec<(Level, String)> {
    LINES.take()
}

/// An engine whose every request carries a secret.
fn bench() -> Bench {
    Bench::with(|c| {
        c.resolver = Some(common::resolver(Table::new()));
        c.default_headers
            .push(("X-Default".into(), b"s3cret-default".to_vec()));
    })
}

/// A request full of secrets to `base`.
fn secretive(base: &str) -> RequestBuilder {
    Request::post(format!("{base}/s3cret-path?key=s3cret-query"))
        .header("X-Key", "s3cret-header")
        .query([("more", "s3cret-pair")])
        .body("s3cret-body")
}

fn assert_nothing_told(lines: &[(Level, String)], why: &str) {
    for (_, line) in lines {
        assert!(!line.to_lowercase().contains("s3cret"), "{why}: {line}");
    }
}

#[test]
fn each_step_of_a_link_is_a_line_and_names_the_origin() {
    capture();
    let server = Server::answering(ok("s3cret"));
    let mut bench = bench();
    let base = server.url("");
    bench.fetch_ok(secretive(&base).build().unwrap());
    bench.engine.close_idle();
    let lines = lines();
    assert_nothing_told(&lines, "a success");
    let at = |word: &str| {
        let is_meant = |(level, line): &(Level, String)| {
            *level == Level::Debug && line.contains(&base) && line.contains(word)
        };
        let place = lines.iter().position(is_meant);
        place.unwrap_or_else(|| panic!("no {word:?} in {lines:?}"))
    };
    let steps = ["connected", "answered", "idle", "closed"].map(at);
    assert!(steps.is_sorted(), "{lines:?}");
}

#[test]
fn a_failure_is_a_line_without_what_may_be_secret() {
    capture();
    let server = Server::start(|peer| {
        let wire: &[u8] = match peer.request().map(|seen| seen.head) {
            Some(head) if head.contains("reset") => return peer.reset(),
            Some(head) if head.contains("truncated") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nX: s3cret\r\n\r\ns3cret"
            }
            Some(head) if head.contains("status") => b"HTTP/1.1 s3cret OK\r\n\r\n",
            Some(head) if head.contains("field-name") => b"HTTP/1.1 200 OK\r\ns3cret x: y\r\n\r\n",
            Some(head) if head.contains("field-value") => {
                b"HTTP/1.1 200 OK\r\nX: s3cret\x01\r\n\r\n"
            }
            Some(head) if head.contains("length") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: s3cret\r\n\r\n"
            }
            Some(head) if head.contains("coding") => {
                b"HTTP/1.1 200 OK\r\nX: s3cret\r\nTransfer-Encoding: odd, chunked\r\n\r\n"
            }
            Some(head) if head.contains("chunk") => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cret\r\n"
            }
            Some(head) if head.contains("large") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\ns3cret"
            }
            Some(head) if head.contains("aborted") => {
                b"HTTP/1.1 200 OK\r\nX: s3cret\r\nContent-Length: 6\r\n\r\ns3cret"
            }
            Some(head) if head.contains("unsolicited") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nas3cret"
            }
            _ => b"",
        };
        peer.send(wire);
        if wire.is_empty() {
            peer.hold();
        }
    });
    let base = server.url("");
    let refused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    use ErrorKind as Kind;
    // What the server does, its base URL, and the failure, or `None` if the request is answered and
    // a warning is logged.
    let rows = [
        ("refused", &refused, Some(Kind::Connect)),
        (
            "missing",
            &"http://missing.test".to_owned(),
            Some(Kind::Resolve),
        ),
        ("reset", &base, Some(Kind::ClosedBeforeResponse)),
        ("truncated", &base, Some(Kind::Truncated)),
        ("status", &base, Some(Kind::Malformed)),
        ("field-name", &base, Some(Kind::Malformed)),
        ("field-value", &base, Some(Kind::Malformed)),
        ("length", &base, Some(Kind::Malformed)),
        ("coding", &base, Some(Kind::Malformed)),
        ("chunk", &base, Some(Kind::Malformed)),
        ("large", &base, Some(Kind::TooLarge)),
        ("aborted", &base, Some(Kind::Aborted)),
        ("silent", &base, Some(Kind::Timeout)),
        ("cancelled", &base, Some(Kind::Cancelled)),
        ("unsolicited", &base, None),
    ];
    for (what, base, kind) in rows {
        let mut bench = bench();
        let mut request = secretive(base).header("X-Row", what);
        if what == "silent" {
            request = request.timeouts(|t| t.first_byte = Some(Duration::from_millis(5)));
        }
        let head = match what {
            "aborted" => Flow::Abort,
            _ => Flow::Buffer,
        };
        let script = Script {
            head,
            ..Script::default()
        };
        let id = bench.engine.submit_to(request.build().unwrap(), script);
        if what == "cancelled" {
            bench.until("it is in flight", |engine, _| engine.stats().in_flight == 1);
            assert!(bench.engine.cancel(id));
        }
        bench.replies(1);
        let lines = lines();
        assert_nothing_told(&lines, what);
        assert_eq!(bench.log.kinds(), Vec::from_iter(kind), "{what}");
        let authority = base.strip_prefix("http://").unwrap();
        let level = match kind {
            Some(_) => Level::Debug,
            None => Level::Warn,
        };
        let error = bench.log.replies[0]
            .as_ref()
            .err()
            .map(|error| format!("{error:#}"));
        let told = lines.iter().any(|(at, line)| match &error {
            Some(error) => *at == level && line.contains(error) && line.contains(authority),
            None => *at == level,
        });
        assert!(told, "{what}: {error:?} in {lines:?}");
        bench.assert_empty();
        assert_nothing_told(&self::lines(), what);
    }
}

#[test]
fn a_chain_that_goes_on_a_stale_connection_and_a_cancelled_delay_tell_no_secrets() {
    capture();
    // The first connection answers once and is closed at the second request.
    let server = Server::start(|peer| {
        while peer.answer(&ok("s3cret")) && peer.number > 0 {}
        if peer.number == 0 {
            peer.request();
        }
    });
    let mut bench = bench();
    let base = server.url("");
    let next = secretive(&base).idempotent(true).build().unwrap();
    bench.engine.submit(
        secretive(&base).build().unwrap(),
        move |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = common::note(log, reply, cx);
            match log.replies.len() {
                1 => cx.send(next.clone()),
                2 => cx.again(),
                _ => cx.done(),
            }
        },
    );
    bench.replies(3);
    assert!(bench.log.replies.iter().all(Result::is_ok));
    assert_eq!(bench.stats().retried, 1);
    let later = secretive(&base).build().unwrap();
    let id = bench.engine.start(
        bench
            .engine
            .send(later)
            .after(Duration::from_secs(50))
            .read_by(common::note),
    );
    bench.quiet();
    assert!(bench.engine.cancel(id));
    bench.replies(4);
    bench.assert_empty();
    let lines = lines();
    assert_nothing_told(&lines, "a chain");
    assert!(
        lines.iter().any(|(_, line)| line.contains("sent again")),
        "{lines:?}"
    );
}

#[test]
fn what_a_chain_returns_that_has_cancelled_itself_is_dropped_with_a_warning() {
    capture();
    let server = Server::answering(ok("a"));
    let mut bench = bench();
    let base = server.url("");
    type Returned = fn(&Context<'_, Log>) -> Next<Log>;
    let rows: [(Returned, usize); 3] = [
        (|cx| cx.again(), 1),
        (|_| Next::wait(), 1),
        (|cx| cx.done(), 0),
    ];
    for (i, (returned, warnings)) in rows.into_iter().enumerate() {
        bench.engine.submit(
            secretive(&base).build().unwrap(),
            move |log: &mut Log, reply: Reply<'_>, cx| {
                let is_first = reply.is_ok();
                let _ = common::note(log, reply, cx);
                assert_eq!(cx.cancel(cx.id()), is_first);
                returned(cx)
            },
        );
        bench.replies(2 * (i + 1));
        let lines = lines();
        assert_nothing_told(&lines, "a chain that canceled itself");
        let told: Vec<_> = lines
            .iter()
            .filter(|(level, _)| *level == Level::Warn)
            .map(|(_, line)| line.as_str())
            .collect();
        let expected =
            format!("{base}: a chain has canceled itself: what its readback returned is dropped");
        assert_eq!(told, vec![expected.as_str(); warnings], "{i}");
    }
    bench.assert_empty();
}

#[test]
fn a_stale_answer_is_a_warning_once_for_each_time_that_servers_are_left_alone() {
    capture();
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("a")
    });
    let minute = Duration::from_secs(60);
    network.host("h.test", [[10, 0, 0, 1]]).ttl(minute);
    let mut engine = Engine::<Log, Sim>::on_network(&network, Config::default()).unwrap();
    let mut log = Log::default();
    let get = Request::get("http://h.test/").close().build().unwrap();
    let mut fetch = |times: usize| {
        for _ in 0..times {
            engine.submit(get.clone(), common::note);
            engine.run(&mut log).unwrap();
            assert!(log.replies.pop().unwrap().is_ok());
        }
        let lines = lines().into_iter();
        lines
            .filter(|(level, _)| *level == Level::Warn)
            .collect::<Vec<_>>()
    };
    assert_eq!(fetch(2), []);
    let broken = LookupError::Failed("SERVFAIL from 10.0.0.53".to_owned());
    network.host_fails("h.test", broken);
    network.sleep(minute);
    for _ in 0..2 {
        let why =
            "h.test: SERVFAIL from 10.0.0.53; using stale IPv4 addresses whose TTL has expired";
        assert_eq!(fetch(10), [(Level::Warn, why.to_owned())]);
        network.sleep(minute);
    }
}

/// A request that waits for a limit of the configuration is logged while it waits, and its error
/// names the limit.
#[test]
fn a_long_wait_for_a_connection_is_told_with_the_limit() {
    capture();
    let mut bench = Bench::with(|config| {
        config.max_connections_per_origin = 2;
    });
    let (addr, _listener) = common::unresponsive_listener();
    let url = format!("http://{addr}/s3cret-path");
    for _ in 0..2 {
        bench.submit(Request::get(&url).build().unwrap());
    }
    let beat = Request::get(&url).timeout(Duration::from_millis(1300));
    let id = bench.submit(beat.build().unwrap());
    bench.replies(1);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    let limit = "all 2 connections to this origin are in use (max_connections_per_origin)";
    assert!(format!("{error:#}").contains(limit), "{error:#}");
    let warnings: Vec<_> = lines()
        .into_iter()
        .filter(|(level, _)| *level == Level::Warn)
        .map(|(_, line)| line)
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let expected = format!("http://{addr} {id:?}: has waited 10");
    assert!(warnings[0].starts_with(&expected), "{warnings:?}");
    assert!(warnings[0].ends_with(limit), "{warnings:?}");
}

/// An origin that sends unsolicited responses on every connection is logged a few times only, and a
/// truncated response is not logged as a warning.
#[test]
fn warnings_of_one_kind_are_few_and_a_stream_that_ends_is_none() {
    capture();
    let forging = Server::start(|peer| {
        if peer.request().is_some() {
            peer.send(&[ok("a"), ok("forged")].concat());
        }
    });
    let cut = Server::start(|peer| {
        if peer.request().is_some() {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
        }
    });
    let mut bench = bench();
    for _ in 0..100 {
        assert_eq!(bench.fetch_ok(forging.get("/")).text(), "a");
    }
    let error = bench.fetch_err(cut.get("/"));
    assert_eq!(error.kind(), ErrorKind::Truncated);
    let warnings: Vec<_> = lines()
        .into_iter()
        .filter(|(level, _)| *level == Level::Warn)
        .collect();
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    let origin = format!("http://{}: ", forging.addr);
    assert!(
        warnings.iter().all(|(_, line)| line.starts_with(&origin)),
        "{warnings:?}"
    );
}
