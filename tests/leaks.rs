//! After ten thousand failures of every kind, in every phase, everything is as before: descriptors,
//! links, chains, timers.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, Script, Server};
use httpstream::resolver::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};
use httpstream::{ErrorKind, Flow, Phase, Request, RequestBuilder, Timeouts};

/// How often each row is run; there are 30 rows and more.
const TIMES: usize = 340;
/// How many run at a time.
const CROWD: usize = 20;

/// A resolver that only answers that some names do not exist.
#[derive(Clone, Debug, Default)]
struct Partial(Vec<LookupId>);

impl Resolve for Partial {
    fn attach(&mut self, _: Wake) {}
    fn start(&mut self, host: &str, _: Family, id: LookupId) {
        if host.starts_with("missing") {
            self.0.push(id);
        }
    }
    fn cancel(&mut self, id: LookupId) {
        self.0.retain(|asked| *asked != id);
    }
    fn on_tick(&mut self, _: Instant) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        Some((self.0.pop()?, LookupAnswer::failed(LookupError::NotFound)))
    }
}

/// Does what the path says.
fn server(unread: Arc<AtomicUsize>) -> Server {
    Server::start(move |peer| {
        while let Some(head) = peer.head() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            if path != "/unread" {
                let length = head
                    .lines()
                    .find_map(|l| l.strip_prefix("Content-Length: ")?.parse().ok());
                peer.body(length.unwrap_or(0));
            }
            let wire: &[u8] = match path.as_str() {
                "/reset" => return peer.reset(),
                "/close" => return,
                "/truncated/head" => b"HTTP/1.1 200",
                "/truncated/body" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
                "/truncated/chunk" => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"
                }
                "/malformed/head" => b"garbage\r\n\r\n",
                "/malformed/body" => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd"
                }
                "/large" => b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
                "/interim" => b"HTTP/1.1 103 x\r\n\r\n",
                "/half" => b"HTTP/1.1 200 OK\r\nContent-",
                "/ok" => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                "/silent" | "/unread" => b"",
                _ => unreachable!("{path}"),
            };
            peer.send(wire);
            if path.starts_with("/truncated") {
                return;
            }
            if path == "/unread" {
                // The client's close does not end this connection: bytes that the server has not
                // read keep it open.
                let crowd = unread.load(Ordering::Relaxed);
                while unread.load(Ordering::Relaxed) == crowd {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return;
            }
        }
    })
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What is done to an exchange that would otherwise continue.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Wait,
    Cancel,
    CancelInBody,
    CancelAtOnce,
}

/// What the readbacks of a row get in the end.
#[derive(Clone, Copy)]
enum Expected {
    Answered,
    Fails(ErrorKind, Phase),
    /// Nothing, because it has panicked.
    Nothing,
}

#[test]
fn nothing_is_left_of_ten_thousand_failed_exchanges() {
    let unread = Arc::new(AtomicUsize::new(0));
    let server = server(Arc::clone(&unread));
    let (unresponsive, _kept) = common::unresponsive_listener();
    let refused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().contains("on purpose") {
            eprintln!("{info}");
        }
    }));
    let at = |path: &str| Request::get(server.url(path));
    let soon = |set: fn(&mut Timeouts) -> &mut Option<Duration>| {
        move |t: &mut Timeouts| *set(t) = Some(Duration::from_millis(5))
    };
    let upload = || Request::post(server.url("/unread")).body(vec![0; 8 << 20]);
    let url = |addr: std::net::SocketAddr| Request::get(format!("http://{addr}/"));
    use ErrorKind as Kind;
    use Expected::{Answered, Fails, Nothing};
    type Row<'a> = (&'a str, RequestBuilder, fn() -> Script, Then, Expected);
    let rows: Vec<Row<'_>> = vec![
        (
            "refused",
            url(refused),
            buffer,
            Then::Wait,
            Fails(Kind::Connect, Phase::Connect),
        ),
        (
            "no such name",
            Request::get("http://missing.test/"),
            buffer,
            Then::Wait,
            Fails(Kind::Resolve, Phase::Resolve),
        ),
        (
            "reset",
            at("/reset"),
            buffer,
            Then::Wait,
            Fails(Kind::ClosedBeforeResponse, Phase::FirstByte),
        ),
        (
            "closed",
            at("/close"),
            buffer,
            Then::Wait,
            Fails(Kind::ClosedBeforeResponse, Phase::FirstByte),
        ),
        (
            "cut in the head",
            at("/truncated/head"),
            buffer,
            Then::Wait,
            Fails(Kind::Truncated, Phase::Head),
        ),
        (
            "cut in the body",
            at("/truncated/body"),
            buffer,
            Then::Wait,
            Fails(Kind::Truncated, Phase::Body),
        ),
        (
            "cut in a chunk",
            at("/truncated/chunk"),
            buffer,
            Then::Wait,
            Fails(Kind::Truncated, Phase::Body),
        ),
        (
            "malformed head",
            at("/malformed/head"),
            buffer,
            Then::Wait,
            Fails(Kind::Malformed, Phase::Head),
        ),
        (
            "malformed body",
            at("/malformed/body"),
            buffer,
            Then::Wait,
            Fails(Kind::Malformed, Phase::Body),
        ),
        (
            "too large",
            at("/large"),
            buffer,
            Then::Wait,
            Fails(Kind::TooLarge, Phase::Body),
        ),
        (
            "resolve deadline",
            Request::get("http://unresponsive.test/").timeouts(soon(|t| &mut t.resolve)),
            buffer,
            Then::Wait,
            Fails(Kind::Timeout, Phase::Resolve),
        ),
        (
            "connect deadline",
            url(unresponsive).timeouts(soon(|t| &mut t.connect)),
            buffer,
            Then::Wait,
            Fails(Kind::Timeout, Phase::Connect),
        ),
        (
            "write deadline",
            upload().timeouts(soon(|t| &mut t.write)),
            buffer,
            Then::Wait,
            Fails(Kind::Timeout, Phase::Write),
        ),
        (
            "first byte deadline",
            at("/silent").timeouts(soon(|t| &mut t.first_byte)),
            buffer,
            Then::Wait,
            Fails(Kind::Timeout, Phase::FirstByte),
        ),
        (
            "first byte deadline after an interim response",
            at("/interim").timeouts(soon(|t| &mut t.first_byte)),
            buffer,
            Then::Wait,
            Fails(Kind::Timeout, Phase::FirstByte),
        ),
        (
            "idle deadline",
            at("/half").timeouts(soon(|t| &mut t.idle)),
            buffer,
            Then::Wait,
            Fails(Kind::Timeout, Phase::Head),
        ),
        (
            "total deadline",
            at("/large").timeout(Duration::from_millis(100)),
            stream,
            Then::Wait,
            Fails(Kind::Timeout, Phase::Body),
        ),
        (
            "total deadline in a pause",
            at("/ok").timeout(Duration::from_millis(100)),
            pause,
            Then::Wait,
            Fails(Kind::Timeout, Phase::Body),
        ),
        (
            "canceled new",
            at("/silent"),
            buffer,
            Then::CancelAtOnce,
            Fails(Kind::Cancelled, Phase::Queue),
        ),
        (
            "canceled resolving",
            Request::get("http://unresponsive.test/"),
            buffer,
            Then::Cancel,
            Fails(Kind::Cancelled, Phase::Resolve),
        ),
        (
            "canceled connecting",
            url(unresponsive),
            buffer,
            Then::Cancel,
            Fails(Kind::Cancelled, Phase::Connect),
        ),
        (
            "canceled writing",
            upload(),
            buffer,
            Then::Cancel,
            Fails(Kind::Cancelled, Phase::Write),
        ),
        (
            "canceled waiting",
            at("/silent"),
            buffer,
            Then::Cancel,
            Fails(Kind::Cancelled, Phase::FirstByte),
        ),
        (
            "canceled in the body",
            at("/large"),
            stream,
            Then::CancelInBody,
            Fails(Kind::Cancelled, Phase::Body),
        ),
        (
            "canceled paused",
            at("/ok"),
            pause,
            Then::CancelInBody,
            Fails(Kind::Cancelled, Phase::Body),
        ),
        (
            "canceled by its head",
            at("/ok"),
            cancel_in_head,
            Then::Wait,
            Fails(Kind::Cancelled, Phase::Body),
        ),
        (
            "canceled by its data",
            at("/ok"),
            cancel_in_data,
            Then::Wait,
            Fails(Kind::Cancelled, Phase::Body),
        ),
        (
            "aborted at the head",
            at("/ok"),
            abort,
            Then::Wait,
            Fails(Kind::Aborted, Phase::Body),
        ),
        (
            "aborted in the body",
            at("/ok"),
            abort_later,
            Then::Wait,
            Fails(Kind::Aborted, Phase::Body),
        ),
        (
            "panicked in the interim response",
            at("/interim"),
            panic_in_interim,
            Then::Wait,
            Nothing,
        ),
        (
            "panicked in the head",
            at("/ok"),
            panic_in_head,
            Then::Wait,
            Nothing,
        ),
        (
            "panicked in the body",
            at("/ok"),
            panic_in_data,
            Then::Wait,
            Nothing,
        ),
        (
            "panicked in the reply",
            at("/ok"),
            panic_in_reply,
            Then::Wait,
            Answered,
        ),
        (
            "panicked at its failure",
            at("/malformed/head"),
            panic_in_error,
            Then::Wait,
            Fails(Kind::Malformed, Phase::Head),
        ),
    ];
    assert!(rows.len() * TIMES >= 10_000);
    let mut bench = Bench::with(|c| c.resolver = Some(common::resolver(Partial::default())));
    assert_eq!(bench.fetch_ok(at("/ok").build().unwrap()).text(), "abc");
    bench.assert_empty();
    let before = descriptors();
    for (why, builder, script, then, expected) in rows {
        let request = builder.build().unwrap();
        for _ in 0..TIMES / CROWD {
            let ids: Vec<_> = (0..CROWD)
                .map(|_| bench.engine.submit_to(request.clone(), script()))
                .collect();
            if then == Then::Cancel {
                let waits = |e: &httpstream::Engine<_>| e.stats().in_flight == CROWD;
                bench.until(why, |engine, _| waits(engine));
                bench.quiet();
            }
            if then == Then::CancelInBody {
                let heads = |log: &common::Log| {
                    let notes = log.notes.iter();
                    notes.filter(|note| *note == "head 200").count()
                };
                bench.until(why, |_, log| heads(log) == CROWD);
            }
            if then != Then::Wait {
                assert_eq!(
                    ids.iter().filter(|id| bench.engine.cancel(**id)).count(),
                    CROWD,
                    "{why}"
                );
            }
            let end = Instant::now() + common::PATIENCE;
            while bench.engine.pending() > 0 {
                assert!(Instant::now() < end, "{why}: {:?}", bench.stats());
                let turn = || {
                    bench
                        .engine
                        .turn(&mut bench.log, Some(Duration::from_millis(50)))
                        .map(drop)
                };
                if let Ok(result) = catch_unwind(AssertUnwindSafe(turn)) {
                    result.unwrap();
                }
            }
            let replies = std::mem::take(&mut bench.log.replies);
            let told = match expected {
                Expected::Nothing => 0,
                _ => CROWD,
            };
            assert_eq!(replies.len(), told, "{why}: each gets one reply");
            for reply in replies {
                match expected {
                    Expected::Answered => assert_eq!(reply.unwrap().status, 200, "{why}"),
                    Expected::Fails(kind, phase) => {
                        let error = reply.unwrap_err();
                        assert_eq!(
                            (error.kind(), error.phase()),
                            (kind, phase),
                            "{why}: {error}"
                        );
                    }
                    Expected::Nothing => unreachable!(),
                }
            }
            bench.log.notes.clear();
            unread.fetch_add(1, Ordering::Relaxed);
            let stats = bench.stats();
            let left = (
                stats.in_flight,
                stats.queued,
                stats.delayed,
                stats.paused,
                stats.links_dialing,
            );
            assert_eq!(left, (0, 0, 0, 0, 0), "{why}");
        }
        bench.assert_empty();
        descriptors_come_back_to(before, why, &unread);
    }
}

/// The server's ends of connections are in this process, too, and take some time to close.
fn descriptors_come_back_to(before: usize, why: &str, unread: &AtomicUsize) {
    let end = Instant::now() + common::PATIENCE;
    while descriptors() > before {
        unread.fetch_add(1, Ordering::Relaxed);
        assert!(
            Instant::now() < end,
            "{why}: {} descriptors, {before} before",
            descriptors()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn with_head(head: Flow) -> Script {
    Script {
        head,
        ..Script::default()
    }
}

fn buffer() -> Script {
    with_head(Flow::Buffer)
}

fn stream() -> Script {
    with_head(Flow::Stream)
}

fn pause() -> Script {
    with_head(Flow::Pause)
}

fn abort() -> Script {
    with_head(Flow::Abort)
}

fn abort_later() -> Script {
    Script {
        data: [Flow::Abort].into(),
        ..Script::default()
    }
}

fn cancel_in_head() -> Script {
    Script {
        cancel_in: Some("head"),
        ..Script::default()
    }
}

fn cancel_in_data() -> Script {
    Script {
        cancel_in: Some("data"),
        ..Script::default()
    }
}

fn panic_in_interim() -> Script {
    Script {
        panic_in: Some("interim"),
        ..Script::default()
    }
}

fn panic_in_head() -> Script {
    Script {
        panic_in: Some("head"),
        ..Script::default()
    }
}

fn panic_in_data() -> Script {
    Script {
        panic_in: Some("data"),
        ..Script::default()
    }
}

fn panic_in_reply() -> Script {
    Script {
        panic_in: Some("reply"),
        ..Script::default()
    }
}

fn panic_in_error() -> Script {
    Script {
        panic_in: Some("error"),
        ..Script::default()
    }
}
