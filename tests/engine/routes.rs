//! Routes: the address or interface that a connection is made from, the options of its socket, and
//! unix sockets.
#![cfg(unix)]

use crate::common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, Gate, Server, facts, ok};
use httpstream::resolver::Table;
use httpstream::session::Session;
use httpstream::{ErrorKind, Keepalive, Phase, Request, ResolverFactory, Route, Sent};
use socket2::{Domain, Socket, Type};

/// A server that answers with its client's address.
fn mirror(addr: &str) -> Server {
    Server::on(addr, |peer| {
        let client = peer.stream().peer_addr().unwrap().ip().to_string();
        while peer.answer(&ok(&client)) {}
    })
}

/// A server that answers with the number of the connection.
fn counter() -> Server {
    Server::start(|peer| {
        let number = peer.number.to_string();
        while peer.answer(&ok(&number)) {}
    })
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped: no IPv6 on loopback");
    }
    has
}

fn route(change: impl FnOnce(&mut Route)) -> Route {
    let mut route = Route::default();
    change(&mut route);
    route
}

fn get_by(url: &str, route: Route) -> Request {
    Request::get(url).route(route).build().unwrap()
}

/// `both.test` is a loopback address in both families.
fn both_families() -> ResolverFactory {
    let mut table = Table::new();
    let (v6, v4) = (Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
    table.insert("both.test", [IpAddr::from(v6), IpAddr::from(v4)]);
    common::resolver(table)
}

// ---- source addresses ----

#[test]
fn the_server_sees_the_address_that_the_route_binds() {
    let server = mirror("127.0.0.1:0");
    let mut bench = Bench::new();
    for from in [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 1, 2, 3)] {
        let request = get_by(&server.url("/"), route(|r| r.bind_v4 = Some(from)));
        assert_eq!(bench.fetch_ok(request).text(), from.to_string());
    }
    assert_eq!(bench.fetch_ok(server.get("/")).text(), "127.0.0.1");
    bench.assert_empty();
    if has_ipv6() {
        let server = mirror("[::1]:0");
        let request = get_by(
            &server.url("/"),
            route(|r| r.bind_v6 = Some(Ipv6Addr::LOCALHOST)),
        );
        assert_eq!(bench.fetch_ok(request).text(), "::1");
        bench.assert_empty();
    }
}

#[test]
fn the_engines_route_is_that_of_requests_without_one() {
    let server = mirror("127.0.0.1:0");
    let mut bench = Bench::with(|c| c.route.bind_v4 = Some([127, 0, 0, 2].into()));
    assert_eq!(bench.fetch_ok(server.get("/")).text(), "127.0.0.2");
    // A request's own route replaces the engine's; they are not merged.
    let own = get_by(&server.url("/"), Route::default());
    assert_eq!(bench.fetch_ok(own).text(), "127.0.0.1");
    bench.assert_empty();
}

#[test]
fn a_family_without_a_source_is_not_dialled() {
    if !has_ipv6() {
        return;
    }
    // Another test may use the port in the other family.
    let (server, v6) = (0..100)
        .map(|_| mirror("127.0.0.1:0"))
        .find_map(|server| {
            let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, server.addr.port())).ok()?;
            Some((server, v6))
        })
        .expect("no port is free in both families");
    v6.set_nonblocking(true).unwrap();
    let mut bench = Bench::with(|c| c.resolver = Some(both_families()));
    let url = format!("http://both.test:{}/", server.addr.port());
    let from = Ipv4Addr::new(127, 0, 0, 2);
    let from_v4 = || get_by(&url, route(|r| r.bind_v4 = Some(from)));
    assert_eq!(bench.fetch_ok(from_v4()).text(), "127.0.0.2");
    let dialled = v6.accept().map(drop).unwrap_err().kind();
    assert_eq!(dialled, std::io::ErrorKind::WouldBlock);

    // This does not make the address doubtful: other routes still dial it first.
    let id = bench.submit(Request::get(&url).build().unwrap());
    bench.until("IPv6 is dialed", |_, _| v6.accept().is_ok());
    bench.engine.cancel(id);
    bench.replies(1);
    bench.log.replies.clear();

    // In the opposite case no address is left to dial.
    let url = server.url("/");
    let from_v6 = get_by(&url, route(|r| r.bind_v6 = Some(Ipv6Addr::LOCALHOST)));
    let error = bench.fetch_err(from_v6);
    assert_eq!(
        facts(&error),
        (ErrorKind::Connect, Phase::Connect, Sent::No)
    );
    let why = "the route has no address of this family to connect from";
    let text = format!("{error:#}");
    assert!(text.contains(&format!("{}: {why}", server.addr)), "{text}");
    bench.assert_empty();
}

#[test]
fn a_source_that_is_not_this_machines_is_an_error_and_no_want_of_room() {
    let server = mirror("127.0.0.1:0");
    let mut bench = Bench::new();
    let request = get_by(
        &server.url("/"),
        route(|r| r.bind_v4 = Some([192, 0, 2, 77].into())),
    );
    bench.submit(request);
    bench.submit(server.get("/"));
    bench.replies(2);
    assert_eq!(
        bench.log.kinds(),
        [ErrorKind::Connect],
        "the other request is answered at once"
    );
    let error = bench.log.replies.iter().find_map(|r| r.as_ref().err());
    let text = format!("{:#}", error.unwrap());
    assert!(text.contains("cannot connect from 192.0.2.77"), "{text}");
    assert!(text.contains(&server.addr.to_string()), "{text}");
    bench.assert_empty();
}

#[cfg(target_os = "linux")]
#[test]
fn a_route_may_name_its_interface() {
    let server = mirror("127.0.0.1:0");
    let mut bench = Bench::new();
    let through = |name: &str| get_by(&server.url("/"), route(|r| r.interface = Some(name.into())));
    match bench.fetch(through("lo")) {
        Ok(got) => assert_eq!(got.text(), "127.0.0.1"),
        Err(error) if format!("{error:#}").contains("not permitted") => {
            println!("skipped: no privilege to bind to an interface ({error:#})");
            return;
        }
        Err(error) => panic!("{error:#}"),
    }
    for name in ["nosuch0", "", "an interface with far too long a name"] {
        let error = bench.fetch_err(through(name));
        assert_eq!(
            facts(&error),
            (ErrorKind::Connect, Phase::Connect, Sent::No)
        );
        let text = format!("{error:#}");
        assert!(
            text.contains(&format!("cannot use interface {name:?}")),
            "{text}"
        );
    }
    bench.assert_empty();
}

// ---- socket options ----

/// Set in the child that runs under strace, to the URL that it requests.
const CHILD: &str = "HTTPSTREAM_TEST_OPTIONS";

/// A route with every option that can be set on a TCP socket.
#[cfg(target_os = "linux")]
fn all_options() -> Route {
    route(|r| {
        let mut keepalive = Keepalive::after(Duration::from_secs(61));
        keepalive.interval = Some(Duration::from_secs(17));
        keepalive.probes = Some(3);
        r.keepalive = Some(keepalive);
        r.user_timeout = Some(Duration::from_micros(23_456_700));
        r.nodelay = true;
        r.send_buffer = Some(50_000);
        r.receive_buffer = Some(60_000);
        r.bind_v4 = Some([127, 0, 0, 2].into());
    })
}

#[cfg(target_os = "linux")]
#[test]
fn options_are_set_before_the_socket_connects() {
    if let Ok(url) = std::env::var(CHILD) {
        let mut bench = Bench::new();
        assert_eq!(
            bench.fetch_ok(get_by(&url, all_options())).text(),
            "127.0.0.2"
        );
        return bench.assert_empty();
    }
    if Command::new("strace").arg("--version").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let server = mirror("127.0.0.1:0");
    let child = Command::new("strace")
        .args(["-f", "-e", "signal=none"])
        .args(["-e", "trace=socket,bind,setsockopt,connect", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "routes::options_are_set_before_the_socket_connects",
        ])
        .env(CHILD, server.url("/"))
        .output()
        .unwrap();
    let trace = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{trace}");
    let calls: Vec<_> = trace
        .lines()
        // A line begins with the thread's number, and ends with the kernel's result.
        .filter_map(|line| {
            line.split_once("] ")
                .map_or(Some(line), |(_, call)| Some(call))
        })
        .filter_map(|call| call.split_once('(').map(|(name, rest)| (name.trim(), rest)))
        .collect();
    let connect = calls
        .iter()
        .position(|(name, rest)| *name == "connect" && rest.contains("AF_INET"))
        .unwrap_or_else(|| panic!("{trace}"));
    let expected = [
        ("setsockopt", "SO_SNDBUF, [50000]"),
        ("setsockopt", "SO_RCVBUF, [60000]"),
        ("bind", "inet_addr(\"127.0.0.2\")"),
        ("setsockopt", "SO_KEEPALIVE, [1]"),
        ("setsockopt", "TCP_KEEPIDLE, [61]"),
        ("setsockopt", "TCP_KEEPINTVL, [17]"),
        ("setsockopt", "TCP_KEEPCNT, [3]"),
        ("setsockopt", "TCP_USER_TIMEOUT, [23457]"),
        ("setsockopt", "TCP_NODELAY, [1]"),
    ];
    for (name, what) in expected {
        let found = calls[..connect]
            .iter()
            .any(|(call, rest)| *call == name && rest.contains(what) && rest.ends_with("= 0"));
        assert!(found, "{name} of {what} before connecting:\n{trace}");
    }
}

#[test]
fn a_small_receive_buffer_does_not_keep_a_large_body_out() {
    let body = "b".repeat(3 << 20);
    let server = Server::answering(ok(&body));
    let mut bench = Bench::new();
    let small = route(|r| {
        r.receive_buffer = Some(1);
        r.send_buffer = Some(1);
    });
    let request = Request::post(server.url("/"))
        .body(vec![0; 1 << 20])
        .route(small);
    assert_eq!(
        bench.fetch_ok(request.build().unwrap()).body.len(),
        body.len()
    );
    assert_eq!(server.next().body.len(), 1 << 20);
    bench.assert_empty();
}

// ---- choice of the connection ----

#[test]
fn routes_that_differ_share_no_connection_and_equal_ones_do() {
    let server = counter();
    let url = server.url("/");
    let mut bench = Bench::new();
    let from = |last| route(|r| r.bind_v4 = Some([127, 0, 0, last].into()));
    let shared = Arc::new(from(2));
    let plain = || server.get("/");
    // Each with the number of the connection that must serve it.
    let rows = [
        ("the first", plain(), "0"),
        ("another address", get_by(&url, from(2)), "1"),
        ("yet another", get_by(&url, from(3)), "2"),
        ("an equal route", get_by(&url, from(2)), "1"),
        (
            "an equal route elsewhere in memory",
            Request::get(&url)
                .route(Arc::clone(&shared))
                .build()
                .unwrap(),
            "1",
        ),
        (
            "the very same route",
            Request::get(&url).route(shared).build().unwrap(),
            "1",
        ),
        ("none", plain(), "0"),
        ("an empty one", get_by(&url, Route::default()), "0"),
        (
            "another option",
            get_by(&url, route(|r| r.nodelay = true)),
            "3",
        ),
        (
            "another number",
            get_by(&url, route(|r| r.send_buffer = Some(1 << 16))),
            "4",
        ),
        (
            "the same number",
            get_by(&url, route(|r| r.send_buffer = Some(1 << 16))),
            "4",
        ),
        (
            "another number again",
            get_by(&url, route(|r| r.send_buffer = Some(1 << 17))),
            "5",
        ),
    ];
    for (why, request, connection) in rows {
        assert_eq!(bench.fetch_ok(request).text(), connection, "{why}");
    }
    assert_eq!(bench.stats().opened, 6);
    bench.assert_empty();
}

#[test]
fn a_chain_may_change_its_route() {
    let server = mirror("127.0.0.1:0");
    let mut bench = Bench::new();
    let url = server.url("/");
    let second = get_by(&url, route(|r| r.bind_v4 = Some([127, 0, 0, 2].into())));
    bench
        .engine
        .submit(server.get("/"), move |log: &mut common::Log, reply, cx| {
            log.notes.push(reply.unwrap().text().unwrap().to_owned());
            cx.send(second.clone()).read_by(common::note)
        });
    bench.replies(1);
    assert_eq!(bench.log.notes, ["127.0.0.1"]);
    assert_eq!(bench.log.texts(), ["127.0.0.2"]);
    bench.assert_empty();
}

// ---- connections to itself ----

/// If a port of the ephemeral range has no listener, the system sooner or later assigns it to the
/// very socket that dials it.
#[cfg(target_os = "linux")]
#[test]
fn a_connection_to_itself_is_refused() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    // `connect` prefers ports with the parity of the first one.
    let mut ports = (first..u16::MAX)
        .step_by(2)
        .skip(100)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let mut bench = Bench::new();
    // The unspecified address refers to this machine as well.
    for host in ["127.0.0.1", "0.0.0.0"] {
        // It usually takes thousands of tries. They take a second, or ten on a busy machine.
        let end = Instant::now() + 3 * common::PATIENCE;
        let mut tries = 0;
        let text = 'found: loop {
            let request = Request::get(format!("http://{host}:{}/", ports.next().unwrap()));
            let request = request.build().unwrap();
            // Another test may have started to listen there: take another port.
            while let Err(error) = bench.fetch(request.clone())
                && error.kind() == ErrorKind::Connect
            {
                tries += 1;
                assert_eq!(
                    (error.phase(), error.request_sent()),
                    (Phase::Connect, Sent::No)
                );
                let text = format!("{error:#}");
                if text.contains("connected to itself") {
                    break 'found text;
                }
                assert!(text.contains("refused"), "{text}");
                assert!(Instant::now() < end, "no such connection in {tries} tries");
            }
            bench.engine.close_idle();
            assert!(Instant::now() < end, "no such connection in {tries} tries");
        };
        println!("after {tries} tries: {text}");
    }
    bench.assert_empty();
}

// ---- unix sockets ----

/// A path for a socket of this name, unique to this process and test. The file is removed on drop.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        let file = format!("httpstream-{}-{name}.sock", std::process::id());
        let path = std::env::temp_dir().join(file);
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn route(&self) -> Route {
        Route::unix(&self.0)
    }

    fn get(&self, url: &str) -> Request {
        get_by(url, self.route())
    }

    /// Answers every request with the number of its connection and its Host; `requests` of them on
    /// each connection.
    fn serve(&self, requests: usize) {
        let listener = UnixListener::bind(&self.0).unwrap();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, number, requests));
            }
        });
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn serve(mut stream: UnixStream, number: usize, requests: usize) {
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    for _ in 0..requests {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let host = head.lines().find_map(|line| line.strip_prefix("Host: "));
        let answer = ok(&format!("{number} {}", host.unwrap()));
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

#[test]
fn a_unix_socket_serves_any_host_and_is_kept() {
    let path = SocketPath::new("kept");
    path.serve(usize::MAX);
    // No resolver can resolve these names, and the filter applies to addresses, of which there are
    // none.
    let mut bench = Bench::with(|c| {
        c.resolver = Some(common::resolver(Table::new()));
        c.address_filter = Some(Arc::new(|_| false));
    });
    let got = bench.fetch_ok(path.get("http://docker.invalid/v1/info"));
    assert_eq!((got.text(), got.reused), ("0 docker.invalid", false));
    let got = bench.fetch_ok(path.get("http://docker.invalid/v1/info"));
    assert_eq!((got.text(), got.reused), ("0 docker.invalid", true));
    // Another host is another origin, even over the same socket.
    let got = bench.fetch_ok(path.get("http://other.invalid:99/"));
    assert_eq!((got.text(), got.reused), ("1 other.invalid:99", false));
    bench.assert_empty();
}

/// Another origin has nothing to do with the socket.
#[test]
fn a_redirect_is_followed_through_a_unix_socket_to_the_same_origin_only() {
    let path = SocketPath::new("redirect");
    let listener = UnixListener::bind(&path.0).unwrap();
    std::thread::spawn(move || {
        // To the same origin, and from there to another.
        for location in ["/next", "http://other.invalid/"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).unwrap() > 0);
            let fields = format!("Location: {location}\r\nConnection: close\r\n");
            let answer = format!("HTTP/1.1 302 \r\n{fields}Content-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let mut bench = Bench::new();
    let request = path.get("http://h.invalid/").edit();
    let got = bench.fetch_ok(request.session(&Session::new()).build().unwrap());
    assert_eq!(got.status, 302);
    bench.assert_empty();
}

/// The address 0.0.0.0 does not make a connection one through a unix socket.
#[test]
fn a_redirect_from_the_unspecified_address_is_followed() {
    let end = Server::start(|peer| while peer.answer(&ok("end")) {});
    let location = format!("HTTP/1.1 302 \r\nLocation: http://{}/\r\n", end.addr);
    let start = Server::start(move |peer| {
        let answer = format!("{location}Content-Length: 0\r\n\r\n");
        while peer.answer(answer.as_bytes()) {}
    });
    let mut bench = Bench::new();
    let url = format!("http://0.0.0.0:{}/", start.addr.port());
    let got = bench.fetch_ok(Session::new().get(url).build().unwrap());
    assert_eq!((got.status, got.text()), (200, "end"));
}

#[test]
fn a_stale_unix_connection_is_tried_once_more() {
    let path = SocketPath::new("stale");
    path.serve(1);
    let mut bench = Bench::new();
    for number in 0..5 {
        let got = bench.fetch_ok(path.get("http://h.invalid/"));
        assert_eq!(got.text(), format!("{number} h.invalid"));
    }
    bench.assert_empty();
}

#[test]
fn what_is_wrong_with_a_unix_socket_is_told_with_its_path() {
    let missing = SocketPath::new("missing");
    let deserted = SocketPath::new("deserted");
    drop(UnixListener::bind(&deserted.0).unwrap());
    let file = SocketPath::new("file");
    std::fs::write(&file.0, "no socket").unwrap();
    let long = SocketPath(format!("/tmp/{}", "long/".repeat(40)).into());
    let mut bench = Bench::new();
    for (path, why) in [
        (&missing, "No such file"),
        (&deserted, "refused"),
        (&file, "refused"),
        (&long, "SUN_LEN"),
    ] {
        let error = bench.fetch_err(path.get("http://h.invalid/"));
        assert_eq!(
            facts(&error),
            (ErrorKind::Connect, Phase::Connect, Sent::No)
        );
        let text = format!("{error:#}");
        assert!(text.contains(&path.0.display().to_string()), "{text}");
        assert!(text.contains(why), "{why}: {text}");
    }
    bench.assert_empty();
}

/// Returns a listener whose queue is full: connections are refused until some are accepted.
fn full_listener(path: &SocketPath) -> (UnixListener, Vec<Socket>) {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let addr = socket2::SockAddr::unix(&path.0).unwrap();
    socket.bind(&addr).unwrap();
    socket.listen(0).unwrap();
    let mut fillers = Vec::new();
    loop {
        let filler = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        match filler.connect(&addr) {
            Ok(()) => fillers.push(filler),
            Err(_) => {
                return (
                    UnixListener::from(std::os::fd::OwnedFd::from(socket)),
                    fillers,
                );
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_queue_is_waited_for_and_holds_up_nobody_else() {
    let path = SocketPath::new("full");
    let (listener, fillers) = full_listener(&path);
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.submit(path.get("http://full.invalid/"));
    }
    bench.quiet();
    assert_eq!(bench.stats().links_dialing, 10);
    // New connections to other origins are still opened.
    let server = Server::once(ok("elsewhere"));
    for _ in 0..5 {
        bench.submit(server.get("/"));
    }
    bench.replies(5);
    assert_eq!(bench.log.texts(), ["elsewhere"; 5]);
    assert_eq!(bench.stats().links_dialing, 10, "they still wait");
    bench.log.replies.clear();

    // The server begins to accept.
    let accepted = Arc::new(AtomicUsize::new(0));
    let (count, gate) = (Arc::clone(&accepted), Gate::new());
    let held = fillers.len();
    let opened = gate.clone();
    std::thread::spawn(move || {
        opened.pass();
        for stream in listener.incoming() {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if number >= held {
                std::thread::spawn(move || serve(stream.unwrap(), number, 1));
            }
        }
    });
    gate.open(1);
    bench.replies(10);
    for reply in &bench.log.replies {
        assert!(reply.as_ref().unwrap().text().ends_with("full.invalid"));
    }
    assert_eq!(accepted.load(Ordering::Relaxed), held + 10);
    bench.assert_empty();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_queue_is_waited_for_until_the_connect_deadline() {
    let path = SocketPath::new("ever-full");
    let _kept = full_listener(&path);
    let mut bench = Bench::new();
    let brief = Request::get("http://h.invalid/")
        .route(path.route())
        .timeouts(|t| t.connect = Some(Duration::from_millis(150)));
    let begin = Instant::now();
    let error = bench.fetch_err(brief.build().unwrap());
    assert!(
        begin.elapsed() >= Duration::from_millis(150),
        "the deadline is early"
    );
    assert_eq!(
        facts(&error),
        (ErrorKind::Timeout, Phase::Connect, Sent::No)
    );
    let text = format!("{error:#}");
    assert!(text.contains(&path.0.display().to_string()), "{text}");
    assert!(text.contains("connect timeout of 150ms"), "{text}");

    // Canceling the request or dropping the engine releases everything as well.
    let id = bench.submit(path.get("http://h.invalid/"));
    bench.quiet();
    assert!(bench.engine.cancel(id));
    bench.replies(1);
    assert_eq!(bench.log.kinds(), [ErrorKind::Cancelled]);
    bench.assert_empty();
    bench.submit(path.get("http://h.invalid/"));
    bench.quiet();
}

#[test]
fn a_crowd_on_a_unix_socket_is_answered() {
    let path = SocketPath::new("crowd");
    path.serve(usize::MAX);
    let mut bench = Bench::with(|c| c.max_connections_per_origin = 40);
    for _ in 0..400 {
        bench.submit(path.get("http://h.invalid/"));
    }
    bench.replies(400);
    assert!(bench.log.replies.iter().all(Result::is_ok));
    let stats = bench.stats();
    assert!(stats.opened <= 40 && stats.reused >= 360, "{stats:?}");
    bench.assert_empty();
}

#[test]
fn a_unix_socket_and_an_address_are_different_routes() {
    let path = SocketPath::new("apart");
    path.serve(usize::MAX);
    let server = counter();
    let mut bench = Bench::new();
    let url = server.url("/");
    let host = SocketAddr::to_string(&server.addr);
    for _ in 0..2 {
        assert_eq!(bench.fetch_ok(path.get(&url)).text(), format!("0 {host}"));
        assert_eq!(bench.fetch_ok(server.get("/")).text(), "0");
    }
    assert_eq!(bench.stats().opened, 2);
    bench.assert_empty();
}
