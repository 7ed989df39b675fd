//! Sessions against servers that misuse redirects, cookies and challenges, on loopback sockets.
//!
//! Whatever such a server sends, its clients send a bounded number of requests, credentials and
//! cookies reach nobody else, and the engine serves other requests afterwards. What was sent is
//! judged by the bytes that the servers read.

use crate::common;

use std::error::Error as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, Got, PATIENCE, Peer, Seen, Server, ok};
use httpstream::http::Method;
use httpstream::session::{Auth, Jar, RedirectError, Redirects, Session, SessionBuilder};
use httpstream::{Config, Error, ErrorKind, Request, Violation, public_only};

/// The most redirects that these sessions follow.
const HOPS: usize = 10;

/// The most challenges that are answered for one request.
const ANSWERS: usize = 3;

const USER: &str = "Mufasa";
const PASSWORD: &str = "Circle of Life";

/// What [`Auth::basic`] sends for them.
const BASIC: &str = "TXVmYXNhOkNpcmNsZSBvZiBMaWZl";

/// Starts a server that answers each request with `answer`, except that `/after` is a 200.
fn serving(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Server {
    Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            let is_sent = match seen.path.as_str() {
                "/after" => peer.send(&ok("after")),
                _ => peer.send(&answer(&seen)),
            };
            if !is_sent {
                return;
            }
        }
    })
}

/// A response without a body that has these field lines.
fn head(status: u16, fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} \r\nContent-Length: 0\r\n{fields}\r\n").into_bytes()
}

fn found(status: u16, location: &str) -> Vec<u8> {
    head(status, &format!("Location: {location}\r\n"))
}

fn challenge(value: &str) -> Vec<u8> {
    head(401, &format!("WWW-Authenticate: {value}\r\n"))
}

/// An engine that reaches `a.test` and `b.test` at these servers, and any other name at the first.
fn between(a: &Server, b: &Server) -> Bench {
    let (a, b) = (a.addr, b.addr);
    Bench::with(|config| reach(config, a, b))
}

fn reach(config: &mut Config, a: SocketAddr, b: SocketAddr) {
    config.resolve_to("b.test", b);
    config.resolve_to("*", a);
}

/// A session that knows everything that must not leave `a.test`.
fn loaded() -> SessionBuilder {
    let jar = Jar::new();
    jar.set("http://a.test/", "sid=s3cret; Path=/").unwrap();
    Session::builder()
        .base("http://a.test/")
        .header("X-Key", "s3cret")
        .auth(Auth::basic(USER, PASSWORD))
        .cookies(jar)
        .redirects(Redirects::limited(HOPS))
}

fn digest() -> Session {
    let session = Session::builder()
        .base("http://a.test/")
        .auth(Auth::digest(USER, PASSWORD))
        .redirects(Redirects::limited(HOPS));
    session.build().unwrap()
}

fn get(session: &Session, url: &str) -> Request {
    session.get(url).build().unwrap()
}

/// Checks that the engine and the session still serve a request to the first server.
fn assert_serves_on(bench: &mut Bench, session: &Session) {
    let got = bench.fetch_ok(get(session, "http://a.test/after"));
    assert_eq!((got.status, got.text()), (200, "after"));
}

/// Checks that the texts of an error contain no secret.
fn assert_discreet(error: &Error) {
    let text = format!("{error} {error:#} {error:?}");
    for secret in [PASSWORD, BASIC, "s3cret"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Checks that a server has seen nothing of what is meant for another one.
fn assert_innocent(seen: &[Seen]) {
    for seen in seen {
        let head = seen.head.to_ascii_lowercase();
        for field in ["authorization:", "cookie:", "x-key:"] {
            assert!(!head.contains(field), "{head}");
        }
        assert!(!head.contains("s3cret"), "{head}");
    }
}

fn has_field(seen: &Seen, name: &str) -> bool {
    let prefix = format!("{}:", name.to_ascii_lowercase());
    let mut lines = seen.head.lines();
    lines.any(|line| line.to_ascii_lowercase().starts_with(&prefix))
}

fn field<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    let prefix = format!("{name}: ");
    seen.head
        .lines()
        .find_map(|line| line.strip_prefix(&prefix))
}

fn redirect_error(error: &Error) -> &RedirectError {
    assert_eq!(error.kind(), ErrorKind::Policy, "{error:#}");
    let source = error.source().and_then(|source| source.downcast_ref());
    source.unwrap_or_else(|| panic!("not about a redirect: {error:#}"))
}

fn too_many() -> RedirectError {
    RedirectError::TooMany {
        limit: HOPS,
        seen: HOPS + 1,
    }
}

/// A listener that must not be connected to.
struct Trap(TcpListener);

impl Trap {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn assert_untouched(&self, why: &str) {
        assert!(self.0.accept().is_err(), "{why}: it was connected to");
    }
}

// ---- redirects ----

#[test]
fn a_chain_of_redirects_without_an_end_is_an_error_at_the_limit() {
    type Answer = fn(&Seen, usize) -> Vec<u8>;
    #[rustfmt::skip]
    let rows: [(&str, Answer); 7] = [
        ("to itself", |seen, _| found(302, &seen.path)),
        ("back and forth", |seen, _| found(302, if seen.path == "/a" { "/b" } else { "/a" })),
        ("to a new URL each time", |_, n| found(301, &format!("/{n}"))),
        ("to a longer URL each time",
            |seen, _| found(302, &format!("{}{}", seen.path, "x".repeat(5000)))),
        ("by all statuses", |_, n| found([301, 302, 303, 307, 308][n % 5], "/again")),
        ("to another host each time", |_, n| found(307, &format!("http://h{n}.test/"))),
        ("with a challenge as well", |_, n| {
            head(302, &format!("Location: /{n}\r\nWWW-Authenticate: Basic realm=a\r\n"))
        }),
    ];
    for (why, answer) in rows {
        let count = AtomicUsize::new(0);
        let server = serving(move |seen| answer(seen, count.fetch_add(1, Ordering::Relaxed)));
        let session = loaded().build().unwrap();
        let mut bench = between(&server, &server);
        let error = bench.fetch_err(get(&session, "start"));
        assert_eq!(redirect_error(&error), &too_many(), "{why}");
        assert_discreet(&error);
        let seen = server.so_far();
        assert_eq!(seen.len(), HOPS + 1, "{why}");
        for seen in &seen {
            let is_home = field(seen, "Host") == Some("a.test");
            assert_eq!(has_field(seen, "Authorization"), is_home, "{why}: {seen:?}");
            assert_eq!(has_field(seen, "Cookie"), is_home, "{why}: {seen:?}");
        }
        assert_serves_on(&mut bench, &session);
    }
}

/// However a request is sent, a redirect that leads back to it is followed up to the limit.
#[test]
fn a_redirect_that_leads_to_itself_ends_in_every_way_of_sending() {
    const BODY: usize = 100_000;
    let server = Server::start(|peer| {
        while let Some(head) = peer.head() {
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            let has_body = head.starts_with("PUT");
            let body = peer.body(if has_body { BODY } else { 0 });
            peer.tell(head, body);
            peer.send(&found(307, "/"));
        }
    });
    let session = Session::builder().redirects(Redirects::limited(HOPS));
    let session = session.build().unwrap();
    let url = server.url("/");
    let get = || session.get(&url);
    let body = || vec![b'x'; BODY];
    let rows = [
        ("on a connection of its own", get().fresh_connection()),
        ("on one that is closed", get().close()),
        ("pipelined", get().pipeline(16)),
        ("HEAD", session.head(&url)),
        ("TRACE", session.request(Method::TRACE, &url)),
        ("a body", session.put(&url).body(body())),
        (
            "an expectation",
            session
                .put(&url)
                .header("Expect", "100-continue")
                .body(body()),
        ),
        (
            "an upgrade",
            get()
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket"),
        ),
    ];
    for (why, request) in rows {
        let mut bench = Bench::new();
        let error = bench.fetch_err(request.build().unwrap());
        assert_eq!(redirect_error(&error), &too_many(), "{why}");
        assert_eq!(server.so_far().len(), HOPS + 1, "{why}");
        bench.assert_empty();
    }
}

#[test]
fn two_origins_that_pass_a_request_to_each_other_get_no_credentials_after_the_first() {
    let a = serving(|_| found(307, "http://b.test/"));
    let b = serving(|_| found(307, "http://a.test/"));
    let session = loaded().cookies(Jar::new()).build().unwrap();
    let mut bench = between(&a, &b);
    let error = bench.fetch_err(get(&session, "start"));
    assert_eq!(redirect_error(&error), &too_many());
    let (of_a, of_b) = (a.so_far(), b.so_far());
    assert_eq!(of_a.len() + of_b.len(), HOPS + 1);
    assert!(has_field(&of_a[0], "Authorization") && has_field(&of_a[0], "X-Key"));
    assert_innocent(&of_a[1..]);
    assert_innocent(&of_b);
    assert_serves_on(&mut bench, &session);
}

#[test]
fn a_post_is_not_passed_on_for_ever() {
    for status in [307, 308] {
        let server = serving(move |_| found(status, "/again"));
        let session = loaded().build().unwrap();
        let mut bench = between(&server, &server);
        let post = session.post("start").body("once").build().unwrap();
        let error = bench.fetch_err(post);
        assert_eq!(redirect_error(&error), &too_many());
        let seen = server.so_far();
        assert_eq!(seen.len(), HOPS + 1);
        assert!(seen.iter().all(|seen| seen.body == b"once"), "{status}");
        assert_serves_on(&mut bench, &session);
    }
}

#[test]
fn a_redirect_leads_to_no_address_that_the_filter_refuses() {
    let trap = Trap::new();
    let port = trap.port();
    #[rustfmt::skip]
    let rows = [
        ("loopback", format!("http://127.0.0.1:{port}/")),
        ("loopback, by its name", format!("http://localhost:{port}/")),
        ("loopback in IPv6", format!("http://[::1]:{port}/")),
        ("loopback in IPv4-mapped IPv6", format!("http://[::ffff:127.0.0.1]:{port}/")),
        ("a name that leads to loopback", "http://inner.test/".to_owned()),
        ("another scheme", format!("https://127.0.0.1:{port}/")),
        ("a private network", "http://10.0.0.1/".to_owned()),
        ("the metadata of a cloud", "http://169.254.169.254/latest/meta-data/".to_owned()),
        ("this host", format!("http://0.0.0.0:{port}/")),
    ];
    for (why, location) in rows {
        let server = serving(move |_| found(302, &location));
        let session = loaded().build().unwrap();
        let (addr, inner) = (server.addr, trap.0.local_addr().unwrap());
        let mut bench = Bench::with(|config| {
            config.resolve_to("a.test", addr);
            config.resolve_to("inner.test", inner);
            let allowed = move |to: &SocketAddr| *to == addr || public_only(to);
            config.address_filter = Some(Arc::new(allowed));
        });
        let error = bench.fetch_err(get(&session, "start"));
        let expected = if why == "another scheme" && cfg!(not(feature = "tls")) {
            ErrorKind::Tls
        } else {
            ErrorKind::Connect
        };
        assert_eq!(error.kind(), expected, "{why}: {error:#}");
        assert_discreet(&error);
        assert_eq!(server.so_far().len(), 1, "{why}");
        trap.assert_untouched(why);
        assert_serves_on(&mut bench, &session);
    }
}

#[test]
fn a_redirect_to_another_scheme_is_delivered() {
    let trap = Trap::new();
    let port = trap.port();
    for scheme in [
        "ftp",
        "ws",
        "wss",
        "gopher",
        "unix",
        "httpx",
        "http+unix",
        "view-source",
    ] {
        let location = format!("{scheme}://127.0.0.1:{port}/");
        let server = serving(move |_| found(302, &location));
        let session = loaded().build().unwrap();
        let mut bench = between(&server, &server);
        let got = bench.fetch_ok(get(&session, "start"));
        assert_eq!(got.status, 302, "{scheme}");
        assert_eq!(server.so_far().len(), 1, "{scheme}");
        assert_serves_on(&mut bench, &session);
        trap.assert_untouched(scheme);
    }
}

/// Readers of URLs disagree about these. A request that goes to a host that nobody checked is worse
/// than an error.
#[test]
fn a_location_that_can_be_read_in_two_ways_is_an_error() {
    let trap = Trap::new();
    let port = trap.port();
    #[rustfmt::skip]
    let rows = [
        ("an address as one number", format!("http://2130706433:{port}/")),
        ("an address in hexadecimal", format!("http://0x7f.0.0.1:{port}/")),
        ("an address in octal", format!("http://0177.0.0.1:{port}/")),
        ("a short address", format!("http://127.1:{port}/")),
        ("an encoded host", format!("http://127.0.0%2e1:{port}/")),
        ("a backslash before the at sign", format!("http://b.test\\@127.0.0.1:{port}/")),
        ("a bracket that stays open", format!("http://[::1:{port}/")),
        ("port 0", "http://b.test:0/".to_owned()),
        ("a port of many digits", format!("http://b.test:{}/", "9".repeat(50))),
        ("a host of full-width characters", format!("http://\u{ff11}27.0.0.1:{port}/")),
    ];
    for (why, location) in rows {
        let server = serving(move |_| found(302, &location));
        let session = loaded().build().unwrap();
        let mut bench = between(&server, &server);
        let error = bench.fetch_err(get(&session, "start"));
        assert!(
            matches!(redirect_error(&error), RedirectError::Location(_)),
            "{why}: {error:#}"
        );
        assert_discreet(&error);
        assert_eq!(server.so_far().len(), 1, "{why}");
        assert_serves_on(&mut bench, &session);
        trap.assert_untouched(why);
    }
}

#[test]
fn credentials_in_a_location_are_ignored() {
    for location in [
        "http://Mufasa:s3cret@b.test/end",
        "http://s3cret@b.test/end",
        "http://a.test@b.test/end",
        "//x:s3cret@b.test/end",
    ] {
        let a = serving(move |_| found(302, location));
        let b = serving(|_| ok("end"));
        let session = loaded().build().unwrap();
        let mut bench = between(&a, &b);
        let got = bench.fetch_ok(get(&session, "start"));
        assert_eq!(got.text(), "end", "{location}");
        let seen = b.so_far();
        assert_innocent(&seen);
        assert_eq!((seen.len(), field(&seen[0], "Host")), (1, Some("b.test")));
        // They do not appear in an error either.
        drop(b);
        let error = bench.fetch(get(&session, "start"));
        if let Err(error) = error {
            assert_discreet(&error);
        }
        assert_serves_on(&mut bench, &session);
    }
}

/// Whatever stands in a Location, the next request has no line that the client did not write.
#[test]
fn line_breaks_in_a_location_reach_no_request() {
    /// What becomes of the redirect.
    enum Fate {
        /// It is followed, to this target.
        To(&'static str),
        /// The response is malformed.
        Malformed,
    }
    use Fate::{Malformed, To};
    #[rustfmt::skip]
    let rows: [(&str, &str, Fate); 9] = [
        ("CR", "/a\rX-Injected: 1", Malformed),
        ("CR at the end", "/a\r", Malformed),
        ("NUL", "/a\0X-Injected: 1", Malformed),
        ("LF, which ends the field line", "/a\nX-Injected: 1", To("/a")),
        ("a folded line", "/a\r\n X-Injected: 1", To("/a%20X-Injected:%201")),
        ("CR LF, encoded", "/a%0d%0aX-Injected:%201", To("/a%0d%0aX-Injected:%201")),
        ("NUL, encoded", "/a%00", To("/a%00")),
        ("the end of a request, encoded", "/a%20HTTP/1.1%0D%0A%0D%0AGET%20/b",
            To("/a%20HTTP/1.1%0D%0A%0D%0AGET%20/b")),
        ("the end of a request line", "/a HTTP/1.1", To("/a%20HTTP/1.1")),
    ];
    for (why, location, fate) in rows {
        let server = serving(move |seen| match seen.path.as_str() {
            "/start" => found(302, location),
            _ => ok("end"),
        });
        let session = loaded().build().unwrap();
        let mut bench = between(&server, &server);
        let reply = bench.fetch(get(&session, "start"));
        let seen = server.so_far();
        match fate {
            To(target) => {
                assert_eq!(reply.expect(why).text(), "end", "{why}");
                assert_eq!(seen[1].path, target, "{why}");
            }
            Malformed => {
                let error = reply.expect_err(why);
                assert_eq!(error.kind(), ErrorKind::Malformed, "{why}: {error:#}");
                assert_eq!(seen.len(), 1, "{why}");
            }
        }
        assert!(
            !seen.iter().any(|seen| has_field(seen, "X-Injected")),
            "{why}"
        );
        assert_serves_on(&mut bench, &session);
    }
}

#[test]
fn a_location_is_as_long_as_a_head_may_be() {
    let server = serving(|seen| match seen.path.as_str() {
        "/long" => found(302, &format!("/{}", "x".repeat(60_000))),
        "/longer" => found(302, &format!("/{}", "x".repeat(70_000))),
        _ => ok("end"),
    });
    let session = loaded().build().unwrap();
    let mut bench = between(&server, &server);
    assert_eq!(bench.fetch_ok(get(&session, "long")).text(), "end");
    let seen = server.so_far();
    assert_eq!((seen.len(), seen[1].path.len()), (2, 60_001));
    let error = bench.fetch_err(get(&session, "longer"));
    assert!(
        matches!(error.violation(), Some(Violation::HeadTooLarge { .. })),
        "{error:#}"
    );
    assert_eq!(server.so_far().len(), 1);
    assert_serves_on(&mut bench, &session);
}

/// Sends `piece` at this interval until the client closes.
fn send_for_ever(peer: &mut Peer, piece: &[u8], interval: Duration) {
    let end = Instant::now() + PATIENCE;
    while peer.send(piece) && Instant::now() < end {
        std::thread::sleep(interval);
    }
}

#[test]
fn the_body_of_a_redirect_or_a_challenge_need_not_end() {
    const MOVED: &str = "HTTP/1.1 302 \r\nLocation: /end\r\n";
    const REFUSED: &str =
        "HTTP/1.1 401 \r\nWWW-Authenticate: Digest realm=r, nonce=n, qop=auth\r\n";
    // Framing of the body, and a piece of it.
    let rows = [
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n", "1000\r\n"),
        (
            "of a huge length",
            "Content-Length: 9999999999999\r\n\r\n",
            "",
        ),
        ("until the close", "\r\n", ""),
    ];
    let zeros = "0".repeat(4096);
    for (why, framing, chunk) in rows {
        for start in [MOVED, REFUSED] {
            let piece = format!(
                "{chunk}{zeros}{}",
                if chunk.is_empty() { "" } else { "\r\n" }
            );
            let wire = format!("{start}{framing}");
            let server = Server::start(move |peer| {
                while let Some(seen) = peer.request() {
                    if seen.path == "/start" && !has_field(&seen, "Authorization") {
                        peer.send(wire.as_bytes());
                        return send_for_ever(peer, piece.as_bytes(), Duration::ZERO);
                    }
                    peer.send(&ok("after"));
                }
            });
            let session = if start == MOVED {
                Session::new()
            } else {
                digest()
            };
            let mut bench = between(&server, &server);
            let began = Instant::now();
            let got = bench.fetch_ok(get(&session, "http://a.test/start"));
            assert_eq!(got.text(), "after", "{why}");
            assert!(began.elapsed() < Duration::from_secs(2), "{why}");
            let stats = bench.stats();
            assert!(stats.bytes_in < 4 << 20, "{why}: {stats:?}");
            assert_eq!(server.so_far().len(), 2, "{why}");
            assert_serves_on(&mut bench, &session);
        }
    }
}

#[test]
fn a_redirect_that_drips_is_given_up_with_the_request() {
    let server = Server::start(|peer| {
        while let Some(seen) = peer.request() {
            if seen.path == "/start" {
                peer.send(b"HTTP/1.1 302 \r\nLocation: /end\r\nContent-Length: 60000\r\n\r\n");
                return send_for_ever(peer, b"x", Duration::from_millis(10));
            }
            peer.send(&ok("after"));
        }
    });
    let session = Session::builder()
        .redirects(Redirects::limited(HOPS))
        .total(Duration::from_millis(300));
    let session = session.build().unwrap();
    let mut bench = between(&server, &server);
    let began = Instant::now();
    let error = bench.fetch_err(get(&session, "http://a.test/start"));
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:#}");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(server.so_far().len(), 1);
    assert_serves_on(&mut bench, &session);
}

// ---- cookies ----

/// A session with redirects and this jar.
fn storing(jar: &Jar) -> Session {
    let session = Session::builder()
        .cookies(jar.clone())
        .redirects(Redirects::limited(HOPS));
    session.build().unwrap()
}

fn cookies_of(seen: &Seen) -> Vec<&str> {
    field(seen, "Cookie").map_or(Vec::new(), |line| line.split("; ").collect())
}

/// Field lines that set cookies with these numbers, each with a value of this length.
fn set_cookies(numbers: std::ops::Range<usize>, len: usize) -> String {
    let value = "v".repeat(len);
    let lines = numbers.map(|n| format!("Set-Cookie: c{n:06}={value}; Path=/\r\n"));
    lines.collect()
}

#[test]
fn a_thousand_cookies_in_one_response_are_too_many_fields() {
    let server = serving(|_| head(200, &set_cookies(0..1000, 1)));
    let jar = Jar::new();
    let session = storing(&jar);
    let mut bench = between(&server, &server);
    let error = bench.fetch_err(get(&session, "http://a.test/start"));
    let violation = error.violation();
    assert!(
        matches!(violation, Some(Violation::TooManyFields { limit: 128, .. })),
        "{error:#}"
    );
    assert!(jar.is_empty(), "nothing of a refused response is stored");
    // A request that allows so many fields stores as many cookies as a domain may have.
    let many = session
        .get("http://a.test/start")
        .limits(|limits| limits.max_fields = 2000)
        .build()
        .unwrap();
    assert_eq!(bench.fetch_ok(many).status, 200);
    assert_eq!(jar.len(), 50);
    server.so_far();
    assert_serves_on(&mut bench, &session);
    let seen = server.so_far();
    let cookies = cookies_of(&seen[0]);
    assert_eq!(cookies.len(), 50);
    assert_eq!((cookies[0], cookies[49]), ("c000950=v", "c000999=v"));
}

#[test]
fn cookies_over_many_responses_stay_within_all_limits() {
    const SITES: usize = 80;
    const PER_RESPONSE: usize = 100;
    // Each host is a site of its own, and `x` is at most as large as a cookie may be.
    let server = serving(|seen| {
        let host = field(seen, "Host").unwrap_or_default();
        match seen.path.as_str() {
            "/large" => head(200, &set_cookies(0..12, 4096 - "c000000".len())),
            "/too-large" => head(200, &set_cookies(0..12, 4096)),
            _ if host.starts_with("www.") => head(200, "Set-Cookie: shared=1; Domain=one.test\r\n"),
            _ => head(200, &set_cookies(0..PER_RESPONSE, 1)),
        }
    });
    let jar = Jar::new();
    let session = storing(&jar);
    let mut bench = between(&server, &server);
    let began = Instant::now();
    for n in 0..SITES {
        bench.fetch_ok(get(&session, &format!("http://s{n}.test/start")));
        // Once there are too many, 2,700 are left.
        let least = (50 * (n + 1)).min(2700);
        assert!((least..=3000).contains(&jar.len()), "{n}: {}", jar.len());
    }
    // The first sites gave way.
    server.so_far();
    bench.fetch_ok(get(&session, "http://s0.test/after"));
    bench.fetch_ok(get(&session, &format!("http://s{}.test/after", SITES - 1)));
    let seen = server.so_far();
    assert_eq!(
        [&seen[0], &seen[1]].map(|seen| cookies_of(seen).len()),
        [0, 50]
    );

    // The Cookie field is limited in bytes: twelve cookies of 4 KiB do not fit.
    bench.fetch_ok(get(&session, "http://large.test/large"));
    bench.fetch_ok(get(&session, "http://large.test/after"));
    bench.fetch_ok(get(&session, "http://huge.test/too-large"));
    bench.fetch_ok(get(&session, "http://huge.test/after"));
    let seen = server.so_far();
    let lines = [1, 3].map(|at| field(&seen[at], "Cookie").unwrap_or_default());
    assert!(
        (12_000..=16 * 1024).contains(&lines[0].len()),
        "{}",
        lines[0].len()
    );
    assert_eq!(lines[1], "", "cookies of more than 4 KiB are refused");

    // One site with many subdomains does not crowd out the others.
    for n in 0..20 {
        bench.fetch_ok(get(&session, &format!("http://h{n}.one.test/start")));
    }
    bench.fetch_ok(get(&session, &format!("http://s{}.test/after", SITES - 1)));
    assert_eq!(cookies_of(server.so_far().last().unwrap()).len(), 50);
    assert!(jar.len() <= 3000);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_serves_on(&mut bench, &session);
}

#[test]
fn a_cookie_for_someone_else_is_refused() {
    // The host that sets it, the field's value, another host, and what each is sent afterwards.
    #[rustfmt::skip]
    let rows = [
        ("one for the whole registered domain",
            "a.one.test", "x=1; Domain=one.test", "b.one.test", "x=1", "x=1"),
        ("a public suffix", "a.co.uk", "x=1; Domain=co.uk", "b.co.uk", "", ""),
        ("a top-level domain", "a.com", "x=1; Domain=com", "b.com", "", ""),
        ("a suffix of a provider", "a.github.io", "x=1; Domain=github.io", "b.github.io", "", ""),
        ("a suffix above a provider's",
            "a.s3.amazonaws.com", "x=1; Domain=amazonaws.com", "b.s3.amazonaws.com", "", ""),
        ("an unknown top-level domain", "a.test", "x=1; Domain=test", "b.test", "", ""),
        ("another domain", "a.test", "x=1; Domain=b.test", "b.test", "", ""),
        ("a subdomain", "one.test", "x=1; Domain=a.one.test", "a.one.test", "", ""),
        ("a name that ends in the same letters",
            "evil-one.test", "x=1; Domain=one.test", "one.test", "", ""),
        ("the suffix of an address", "127.0.0.1", "x=1; Domain=0.0.1", "128.0.0.1", "", ""),
        ("the address itself, for it alone",
            "127.0.0.1", "x=1; Domain=127.0.0.1", "1.127.0.0.1.test", "x=1", ""),
        ("only a dot, which is for the host alone", "a.test", "x=1; Domain=.", "b.test", "x=1", ""),
        ("a final dot", "a.one.test", "x=1; Domain=one.test.", "b.one.test", "", ""),
        ("two domains, of which the last counts",
            "a.one.test", "x=1; Domain=one.test; Domain=two.test", "b.one.test", "", ""),
        ("Secure over http", "a.test", "x=1; Secure", "b.test", "", ""),
        ("__Host- over http", "a.test", "__Host-x=1; Path=/", "b.test", "", ""),
        ("__Secure- over http, in other letters", "a.test", "__SECURE-x=1", "b.test", "", ""),
        ("a prefix hidden in a value without a name", "a.test", "=__Host-x=1", "b.test", "", ""),
    ];
    for (why, host, cookie, other, own, others) in rows {
        let server = serving(move |_| head(200, &format!("Set-Cookie: {cookie}\r\n")));
        let session = storing(&Jar::new());
        let mut bench = between(&server, &server);
        for path in [
            format!("{host}/start"),
            format!("{host}/after"),
            format!("{other}/after"),
        ] {
            bench.fetch_ok(get(&session, &format!("http://{path}")));
        }
        let seen = server.so_far();
        let sent = |at: usize| field(&seen[at], "Cookie").unwrap_or_default();
        assert_eq!((sent(1), sent(2)), (own, others), "{why}");
    }
}

#[test]
fn cookies_of_a_redirect_stay_with_their_origin() {
    let a = serving(|_| {
        head(
            302,
            "Location: http://b.test/end\r\n\
             Set-Cookie: a=s3cret\r\nSet-Cookie: b=s3cret; Domain=b.test\r\n",
        )
    });
    let b = serving(|_| {
        head(
            200,
            "Set-Cookie: sid=stolen; Domain=a.test\r\nSet-Cookie: c=3\r\n",
        )
    });
    let session = loaded().build().unwrap();
    let mut bench = between(&a, &b);
    bench.fetch_ok(get(&session, "start"));
    assert_innocent(&b.so_far());
    a.so_far();
    assert_serves_on(&mut bench, &session);
    let seen = a.so_far();
    assert_eq!(cookies_of(&seen[0]), ["sid=s3cret", "a=s3cret"]);
}

#[test]
fn a_cookie_cannot_break_out_of_its_field() {
    #[rustfmt::skip]
    let rows = [
        ("a folded line", "x=1\r\n Y: 2", "x=1 Y: 2"),
        ("a tab", "x=1\t2", "x=1\t2"),
        ("a control character", "x=1\u{1}2", ""),
        ("DEL", "x=1\u{7f}2", ""),
        ("a comma", "x=1,y=2", "x=1,y=2"),
        ("a quote that stays open", "x=\"1", "x=\"1"),
        ("nothing", "", ""),
        ("only separators", ";;;=;", ""),
    ];
    for (why, cookie, expected) in rows {
        let server = serving(move |_| head(200, &format!("Set-Cookie: {cookie}\r\n")));
        let session = storing(&Jar::new());
        let mut bench = between(&server, &server);
        // A response with a control character in a field may be refused as a whole.
        let _ = bench.fetch(get(&session, "http://a.test/start"));
        server.so_far();
        assert_serves_on(&mut bench, &session);
        let seen = server.so_far();
        assert_eq!(
            field(&seen[0], "Cookie").unwrap_or_default(),
            expected,
            "{why}"
        );
        assert!(!has_field(&seen[0], "Y"), "{why}");
    }
}

// ---- challenges ----

/// What the server makes of a client of Digest: the replies of `/start`, and what was sent for it.
fn challenged(
    answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> (Result<Got, Error>, Vec<Seen>) {
    let count = AtomicUsize::new(0);
    let server = serving(move |_| answer(count.fetch_add(1, Ordering::Relaxed)));
    let session = digest();
    let mut bench = between(&server, &server);
    let began = Instant::now();
    let reply = bench.fetch(get(&session, "start"));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let seen = server.so_far();
    for seen in &seen {
        assert!(
            !seen.head.contains(PASSWORD) && !seen.head.contains(BASIC),
            "{seen:?}"
        );
    }
    if let Err(error) = &reply {
        assert_discreet(error);
    }
    assert_serves_on(&mut bench, &session);
    (reply, seen)
}

/// Parameters that make a challenge complete but for its nonce.
const REST: &str = "realm=\"r\", qop=\"auth\"";

#[test]
fn a_challenge_that_cannot_be_answered_is_delivered() {
    let long = |n| "x".repeat(n);
    #[rustfmt::skip]
    let rows = [
        ("an empty field", String::new()),
        ("garbage", "\u{ff}\",,,==\"\\,=,\"".to_owned()),
        ("only a scheme", "Digest".to_owned()),
        ("Basic, which would send the password", "Basic realm=\"r\"".to_owned()),
        ("other schemes", "Negotiate, NTLM, Bearer realm=r".to_owned()),
        ("an unknown algorithm", format!("Digest {REST}, nonce=n, algorithm=SHA3-512")),
        ("an empty algorithm", format!("Digest {REST}, nonce=n, algorithm=\"\"")),
        ("integrity only", "Digest realm=r, nonce=n, qop=auth-int".to_owned()),
        ("an unknown quality", "Digest realm=r, nonce=n, qop=\"auth-conf,x\"".to_owned()),
        ("no nonce", format!("Digest {REST}")),
        ("no realm", "Digest nonce=n, qop=auth".to_owned()),
        ("a nonce twice, the last one empty", format!("Digest {REST}, nonce=n, nonce=\"\"")),
        ("a quality twice, the last one unknown", format!("Digest {REST}, nonce=n, qop=x")),
        ("a quote that stays open", format!("Digest {REST}, nonce=\"n")),
        ("an escape at the end", format!("Digest {REST}, nonce=\"n\\\"")),
        ("no commas", "Digest realm=r nonce=n qop=auth".to_owned()),
        ("a session key without a cnonce",
            "Digest realm=r, nonce=n, algorithm=MD5-sess".to_owned()),
        ("a nonce of 60 KB", format!("Digest {REST}, nonce=\"{}\"", long(60_000))),
        ("a realm of 60 KB", format!("Digest realm={}, nonce=n, qop=auth", long(60_000))),
        ("an opaque of 60 KB", format!("Digest {REST}, nonce=n, opaque={}", long(60_000))),
        ("a thousand parameters", {
            let parameters: String = (0..1000).map(|n| format!(", p{n}=1")).collect();
            format!("Digest {REST}, nonce=n{parameters}")
        }),
        ("ten thousand challenges", "Digest realm=r,".repeat(4000)),
        ("commas", ",".repeat(60_000)),
        ("quotes", "\"".repeat(60_000)),
        ("backslashes in quotes", format!("Digest realm=\"{}", "\\".repeat(60_000))),
    ];
    for (why, value) in rows {
        let (reply, seen) = challenged(move |_| challenge(&value));
        assert_eq!(reply.unwrap().status, 401, "{why}");
        assert_eq!(seen.len(), 1, "{why}");
    }
    let (reply, seen) = challenged(|_| head(401, ""));
    assert_eq!(
        (reply.unwrap().status, seen.len()),
        (401, 1),
        "no field at all"
    );
}

#[test]
fn the_last_of_several_parameters_with_one_name_counts() {
    #[rustfmt::skip]
    let rows = [
        ("a nonce", format!("Digest {REST}, nonce=n, nonce=m"), "realm=\"r\"", "nonce=\"m\""),
        ("a realm", format!("Digest {REST}, nonce=n, realm=x"), "realm=\"x\"", "nonce=\"n\""),
        ("an unknown one", format!("Digest {REST}, nonce=n, x=1, X=2"),
            "realm=\"r\"", "nonce=\"n\""),
        ("a thousand", format!("Digest {REST}{}", ", nonce=n".repeat(1000)),
            "realm=\"r\"", "nonce=\"n\""),
    ];
    for (why, value, realm, nonce) in rows {
        let (reply, seen) = challenged(move |_| challenge(&value));
        assert_eq!((reply.unwrap().status, seen.len()), (401, 2), "{why}");
        let sent = field(&seen[1], "Authorization").unwrap();
        for name in ["realm=", "nonce="] {
            // The space tells `nonce` from `cnonce`.
            assert_eq!(
                sent.matches(&format!(" {name}")).count(),
                1,
                "{why}: {sent}"
            );
        }
        assert!(sent.contains(&format!(" {realm}, ")), "{why}: {sent}");
        assert!(sent.contains(&format!(" {nonce}, ")), "{why}: {sent}");
    }
}

#[test]
fn a_server_that_refuses_for_ever_is_answered_so_many_times() {
    type Answer = fn(usize) -> Vec<u8>;
    #[rustfmt::skip]
    let rows: [(&str, usize, Answer); 8] = [
        ("the same nonce", 2, |_| challenge(&format!("Digest {REST}, nonce=n"))),
        ("a new nonce each time", 2, |n| challenge(&format!("Digest {REST}, nonce=n{n}"))),
        ("a stale nonce each time", 1 + ANSWERS,
            |n| challenge(&format!("Digest {REST}, nonce=n{n}, stale=true"))),
        ("the same nonce, stale", 1 + ANSWERS,
            |_| challenge(&format!("Digest {REST}, nonce=n, stale=true"))),
        ("a new realm each time", 2,
            |n| challenge(&format!("Digest realm=r{n}, nonce=n{n}, qop=auth"))),
        ("a new realm and a stale nonce each time", 1 + ANSWERS,
            |n| challenge(&format!("Digest realm=r{n}, nonce=n{n}, qop=auth, stale=true"))),
        ("a new algorithm each time", 1 + ANSWERS, |n| {
            let algorithm = ["MD5", "SHA-256", "SHA-512-256", "MD5-sess"][n % 4];
            challenge(&format!("Digest {REST}, nonce=n{n}, algorithm={algorithm}, stale=true"))
        }),
        ("a nextnonce with each refusal", 2, |n| {
            let next = format!("Authentication-Info: nextnonce=m{n}\r\n");
            head(401, &format!("WWW-Authenticate: Digest {REST}, nonce=n\r\n{next}"))
        }),
    ];
    for (why, requests, answer) in rows {
        let (reply, seen) = challenged(answer);
        assert_eq!(reply.unwrap().status, 401, "{why}");
        assert_eq!(seen.len(), requests, "{why}");
        assert!(!has_field(&seen[0], "Authorization"), "{why}");
        for seen in &seen[1..] {
            assert!(
                field(seen, "Authorization").unwrap().starts_with("Digest "),
                "{why}"
            );
        }
    }
}

#[test]
fn a_challenge_of_a_megabyte_costs_no_time() {
    let megabyte = |piece: &str| piece.repeat((1 << 20) / piece.len());
    #[rustfmt::skip]
    let rows = [
        ("a nonce", format!("Digest {REST}, nonce=\"{}\"", megabyte("n"))),
        ("schemes", megabyte("a,")),
        ("parameters", format!("Digest {REST}, {}", megabyte("a=1,"))),
        ("quoted commas", format!("Digest realm=\"{}\"", megabyte(","))),
        ("quoted strings", format!("Digest {}", megabyte("\"\","))),
        ("escapes", format!("Digest realm=\"{}\"", megabyte("\\\""))),
    ];
    for (why, value) in rows {
        let wire = challenge(&value);
        let server = serving(move |_| wire.clone());
        let session = digest();
        let mut bench = between(&server, &server);
        let error = bench.fetch_err(get(&session, "start"));
        let is_large = matches!(error.violation(), Some(Violation::HeadTooLarge { .. }));
        assert!(is_large, "{why}: {error:#}");
        assert_serves_on(&mut bench, &session);
        // With other limits it is read, and cannot be answered.
        let roomy = session
            .get("start")
            .limits(|limits| limits.max_head_bytes = 4 << 20);
        let began = Instant::now();
        let got = bench.fetch_ok(roomy.build().unwrap());
        assert_eq!(got.status, 401, "{why}");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{why}: {:?}",
            began.elapsed()
        );
        assert_eq!(server.so_far().len(), 3, "{why}");
        assert_serves_on(&mut bench, &session);
    }
}

#[test]
fn values_of_a_challenge_cannot_break_out_of_their_field() {
    let value = format!("Digest {REST}, nonce=\"a\\\", b=\\\\\", opaque=\"c\r\n X-Injected: 1\"");
    let (reply, seen) = challenged(move |n| match n {
        0 => challenge(&value),
        _ => ok("in"),
    });
    assert_eq!(reply.unwrap().text(), "in");
    let sent = field(&seen[1], "Authorization").unwrap();
    assert!(sent.contains("nonce=\"a\\\", b=\\\\\""), "{sent}");
    assert!(sent.contains("opaque=\"c X-Injected: 1\""), "{sent}");
    assert!(!has_field(&seen[1], "X-Injected"));
}

#[test]
fn garbage_in_authentication_info_is_ignored() {
    for info in [
        "",
        ",,,",
        "nextnonce",
        "nextnonce=\"",
        "nextnonce=a, nextnonce",
        "nextnonce=a, nextnonce=\"\"",
        "=",
        "\u{ff}",
    ] {
        let server = serving(move |seen| match has_field(seen, "Authorization") {
            false => challenge(&format!("Digest {REST}, nonce=first")),
            true => head(200, &format!("Authentication-Info: {info}\r\n")),
        });
        let session = digest();
        let mut bench = between(&server, &server);
        for _ in 0..2 {
            assert_eq!(bench.fetch_ok(get(&session, "start")).status, 200, "{info}");
        }
        let seen = server.so_far();
        assert_eq!(seen.len(), 3, "{info}");
        assert!(
            seen[2].head.contains("nonce=\"first\", nc=00000002"),
            "{info}: {seen:?}"
        );
        assert_serves_on(&mut bench, &session);
    }
}

/// Another origin that knows the realm, and even the nonce, gets no proof that the password is
/// known.
#[test]
fn a_challenge_of_another_origin_is_not_answered() {
    let wire = format!("Digest {REST}, nonce=n");
    let (of_a, of_b) = (wire.clone(), wire);
    let a = serving(
        move |seen| match (seen.path.as_str(), has_field(seen, "Authorization")) {
            ("/back", _) | (_, false) => challenge(&of_a),
            (path, true) => found(307, &format!("http://b.test{path}")),
        },
    );
    let b = serving(move |seen| match seen.path.as_str() {
        "/return" => found(307, "http://a.test/back"),
        _ => challenge(&of_b),
    });
    let session = digest();
    let mut bench = between(&a, &b);
    for path in ["start", "return"] {
        let post = session.post(path).body("text").build().unwrap();
        assert_eq!(bench.fetch_ok(post).status, 401, "{path}");
    }
    assert_innocent(&b.so_far());
    let seen = a.so_far();
    let signed: Vec<_> = seen
        .iter()
        .map(|seen| (seen.path.as_str(), has_field(seen, "Authorization")))
        .collect();
    assert_eq!(
        signed,
        [
            ("/start", false),
            ("/start", true),
            ("/return", true),
            ("/back", false)
        ]
    );
    assert_serves_on(&mut bench, &session);
}

/// Each redirect begins with no answers given, so the limit on redirects ends it.
#[test]
fn challenges_and_redirects_in_turn_end() {
    let count = AtomicUsize::new(0);
    let server = serving(move |seen| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        match n % 2 {
            0 => challenge(&format!("Digest {REST}, nonce=n{n}, stale=true")),
            _ => found(307, &format!("{}x", seen.path)),
        }
    });
    let session = digest();
    let mut bench = between(&server, &server);
    let error = bench.fetch_err(get(&session, "start"));
    assert_eq!(redirect_error(&error), &too_many());
    assert_eq!(server.so_far().len(), 2 * (HOPS + 1));
    assert_serves_on(&mut bench, &session);
}

/// A 401 with a Location is a challenge, and a redirect with a challenge is a redirect.
#[test]
fn a_401_is_not_a_redirect() {
    let (reply, seen) = challenged(|_| {
        head(
            401,
            "Location: /elsewhere\r\nWWW-Authenticate: Basic realm=r\r\n",
        )
    });
    assert_eq!((reply.unwrap().status, seen.len()), (401, 1));
    let (reply, seen) = challenged(|n| match n {
        0 => head(
            302,
            &format!("Location: /next\r\nWWW-Authenticate: Digest {REST}, nonce=n\r\n"),
        ),
        _ => ok("end"),
    });
    assert_eq!(reply.unwrap().status, 200);
    assert!(!has_field(&seen[1], "Authorization"));
}

/// A server may not make a client send the body of a failed login again and again.
#[test]
fn a_hundred_clients_of_a_server_that_refuses_send_two_requests_each_at_most() {
    const CLIENTS: usize = 100;
    let server = serving(|_| challenge(&format!("Digest {REST}, nonce=n")));
    let session = digest();
    let mut bench = between(&server, &server);
    for _ in 0..CLIENTS {
        bench.submit(session.post("start").body("text").build().unwrap());
    }
    bench.replies(CLIENTS);
    let is_401 = |reply: &Result<Got, Error>| reply.as_ref().is_ok_and(|got| got.status == 401);
    assert!(bench.log.replies.iter().all(is_401));
    bench.log.replies.clear();
    let requests = server.so_far().len();
    assert!((CLIENTS..=2 * CLIENTS).contains(&requests), "{requests}");
    assert_serves_on(&mut bench, &session);
    bench.assert_empty();
}
