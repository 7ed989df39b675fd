//! The simulated network on its own, driven through the system calls of an engine.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Token;

use super::socket::Socket;
use super::*;
use crate::net::{Net, Readiness, Ready, WAKE};
use crate::resolver::{Family, LookupAnswer, LookupError, LookupId};
use crate::route::Route;

const MS: Duration = Duration::from_millis(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const R: Readiness = Readiness::READABLE;
const W: Readiness = Readiness::WRITABLE;

fn addr() -> SocketAddr {
    ([10, 0, 0, 1], 80).into()
}

/// A network with one server, driven by the system calls of one client.
struct Bench {
    network: Network,
    net: SimNet,
}

impl Bench {
    fn new(server: impl Server + 'static) -> Self {
        Self::with_faults(1, Faults::none(), server)
    }

    fn with_faults(seed: u64, faults: Faults, server: impl Server + 'static) -> Self {
        let network = Network::new(seed);
        network.set_faults(faults);
        network.serve(addr(), server);
        let net = SimNet::new(network.clone());
        Self { network, net }
    }

    fn wait(&mut self) -> Vec<(usize, Readiness)> {
        self.wait_for(100)
    }

    fn wait_for(&mut self, max: usize) -> Vec<(usize, Readiness)> {
        let mut ready = Vec::new();
        self.net.wait(&mut ready, max, None).unwrap();
        ready
            .into_iter()
            .map(|Ready { token, readiness }| (token.0, readiness))
            .collect()
    }

    /// Lets `time` pass without stopping, and returns the events since then.
    fn wait_after(&mut self, time: Duration) -> Vec<(usize, Readiness)> {
        self.network.sleep(time);
        self.wait()
    }

    fn connect(&mut self, token: usize) -> Socket {
        let mut socket = self.net.connect(addr(), &Route::default()).unwrap();
        self.net.register(&mut socket, Token(token)).unwrap();
        socket
    }

    /// Returns an established connection whose first edge has been fetched.
    fn connected(&mut self, token: usize) -> Socket {
        let socket = self.connect(token);
        assert_eq!(self.wait_after(10 * MS), [(token, W)]);
        socket
    }

    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let sent = self.net.send(socket, &[IoSlice::new(bytes)]);
        sent.map_err(|error| error.kind())
    }

    fn recv(&mut self, socket: &Socket, size: usize) -> Result<Vec<u8>, ErrorKind> {
        let mut buf = vec![0; size];
        let n = self.net.recv(socket, &mut buf).map_err(|e| e.kind())?;
        buf.truncate(n);
        Ok(buf)
    }

    fn close(&mut self, mut socket: Socket) {
        self.net.deregister(&mut socket).unwrap();
        self.net.close(socket);
    }

    /// Reads everything the server sends on `socket` within ten minutes, up to the end of file.
    fn read_to_end(&mut self, socket: &Socket) -> Result<Vec<u8>, ErrorKind> {
        let mut all = Vec::new();
        for _ in 0..6_000 {
            match self.recv(socket, 512) {
                Ok(bytes) if bytes.is_empty() => return Ok(all),
                Ok(bytes) => all.extend(bytes),
                Err(ErrorKind::WouldBlock) => self.network.sleep(100 * MS),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

fn hello(_: &Incoming) -> Answer {
    Answer::raw("hello")
}

// ---- connecting ----

#[test]
fn connection_takes_a_round_trip_and_tells_once_that_it_is_writable() {
    let mut bench = Bench::new(hello);
    let socket = bench.connect(7);
    assert_eq!(bench.wait(), []);
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::WouldBlock));
    assert_eq!(bench.recv(&socket, 9), Err(ErrorKind::WouldBlock));
    assert_eq!(bench.wait_after(MS), [(7, W)]);
    assert_eq!(bench.wait_after(MS), []);
    assert_eq!(bench.network.connections().len(), 1);
}

#[test]
fn refusal_is_one_edge_and_is_reported_once() {
    let mut bench = Bench::new(hello);
    bench.network.refuse(addr());
    let socket = bench.connect(7);
    let all = R
        .with(W)
        .with(Readiness::READ_CLOSED)
        .with(Readiness::ERROR);
    assert_eq!(bench.wait_after(10 * MS), [(7, all)]);
    assert_eq!(bench.wait_after(10 * MS), []);
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::ConnectionRefused));
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::BrokenPipe));
    assert_eq!(bench.recv(&socket, 9), Ok(vec![]));
    bench.close(socket);
    assert_eq!(bench.network.ledger().connections().len(), 0);
}

#[test]
fn address_without_a_server_refuses() {
    let mut bench = Bench::new(hello);
    let socket = bench
        .net
        .connect(([10, 0, 0, 2], 80).into(), &Route::default())
        .unwrap();
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 9), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn black_hole_times_out_after_what_linux_takes() {
    let mut bench = Bench::new(hello);
    bench.network.black_hole(addr());
    let socket = bench.connect(7);
    assert_eq!(bench.wait_after(Duration::from_secs(126)), []);
    assert_eq!(bench.wait_after(Duration::from_secs(1)).len(), 1);
    assert_eq!(bench.recv(&socket, 9), Err(ErrorKind::TimedOut));
}

#[test]
fn unreachable_address_is_told_by_connect_or_later() {
    let mut seen = Vec::new();
    for seed in 0..20 {
        let mut bench = Bench::with_faults(seed, Faults::none(), hello);
        bench.network.unreachable(addr());
        seen.push(match bench.net.connect(addr(), &Route::default()) {
            Err(error) => error.kind(),
            Ok(socket) => {
                bench.network.sleep(MS);
                bench.recv(&socket, 9).unwrap_err()
            }
        });
    }
    assert!(seen.contains(&ErrorKind::NetworkUnreachable));
    assert!(seen.contains(&ErrorKind::HostUnreachable));
}

#[test]
fn connection_that_stands_at_once_takes_a_send_before_it_is_registered() {
    let faults = Faults::none().with(Fault::ConnectedAtOnce, 1000);
    let mut bench = Bench::with_faults(1, faults, hello);
    let mut socket = bench.net.connect(addr(), &Route::default()).unwrap();
    assert_eq!(bench.send(&socket, GET), Ok(GET.len()));
    bench.network.sleep(10 * MS);
    bench.net.register(&mut socket, Token(7)).unwrap();
    assert_eq!(
        bench.wait(),
        [(7, R.with(W))],
        "a socket that is ready when it is registered causes an edge"
    );
}

#[test]
fn lowest_free_number_is_used_next() {
    let mut bench = Bench::new(hello);
    let [a, b, c] = [1, 2, 3].map(|token| bench.connect(token));
    assert_eq!([a.fd(), b.fd(), c.fd()], [3, 4, 5]);
    bench.close(b);
    bench.close(a);
    assert_eq!(bench.network.open_fds(), 1);
    let [a, b, d] = [1, 2, 4].map(|token| bench.connect(token));
    assert_eq!([a.fd(), b.fd(), d.fd()], [3, 4, 6]);
}

#[test]
fn descriptors_run_out_and_come_back() {
    let mut bench = Bench::new(hello);
    bench.network.limit_fds(1);
    let first = bench.connect(1);
    let error = bench.net.connect(addr(), &Route::default()).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(if cfg!(windows) { 10024 } else { 24 })
    );
    bench.close(first);
    assert!(bench.net.connect(addr(), &Route::default()).is_ok());
}

#[test]
fn calls_are_counted_as_on_linux() {
    let mut bench = Bench::new(hello);
    bench.network.limit_fds(1);
    let socket = bench.connect(1);
    let calls = |bench: &Bench| bench.network.system_calls();
    assert_eq!(calls(&bench), 3, "socket, connect, epoll_ctl");
    bench.net.connect(addr(), &Route::default()).unwrap_err();
    assert_eq!(
        calls(&bench),
        4,
        "without a socket there is nothing to connect or close"
    );
    bench.wait();
    bench.send(&socket, GET).unwrap_err();
    bench.recv(&socket, 1).unwrap_err();
    assert_eq!(calls(&bench), 7, "failed calls count");
    bench.close(socket);
    assert_eq!(calls(&bench), 9, "epoll_ctl, close");
    let socket = bench.connect(1);
    assert_eq!(calls(&bench), 12, "socket, connect, epoll_ctl");
    let own = bench.net.local_addr(&socket).unwrap();
    assert_ne!(own, addr(), "the client is another host");
    assert_eq!(calls(&bench), 13, "getsockname");
    drop(bench.net);
    assert_eq!(
        bench.network.system_calls(),
        14,
        "dropping the engine closes its socket"
    );
}

#[test]
fn a_connection_that_fails_at_once_is_counted_with_its_close() {
    // The fault and the calls counted: `socket` alone, or `socket`, `connect` and `close`.
    for (fault, expected) in [(Fault::NoDescriptor, 1), (Fault::NoPort, 3)] {
        let mut bench = Bench::with_faults(1, Faults::none().with(fault, 1000), hello);
        bench.net.connect(addr(), &Route::default()).unwrap_err();
        assert_eq!(bench.network.system_calls(), expected, "{fault:?}");
    }
    let mut bench = Bench::new(hello);
    bench.network.unreachable(addr());
    let mut calls = 0;
    for _ in 0..20 {
        let connected = bench.net.connect(addr(), &Route::default());
        calls += if connected.is_err() { 3 } else { 2 };
        assert_eq!(bench.network.system_calls(), calls, "{connected:?}");
    }
}

// ---- edges ----

#[test]
fn arrivals_before_a_wait_are_one_event() {
    let mut bench = Bench::new(|_: &Incoming| Answer::raw("abcd").drip(1, MS));
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    assert_eq!(bench.wait_after(50 * MS), [(7, R.with(W))]);
    assert_eq!(bench.recv(&socket, 99), Ok(b"abcd".to_vec()));
    assert_eq!(bench.recv(&socket, 99), Err(ErrorKind::WouldBlock));
    assert_eq!(bench.wait_after(50 * MS), []);
}

#[test]
fn each_arrival_after_a_wait_is_an_event_read_or_not() {
    let mut bench = Bench::new(|_: &Incoming| Answer::raw("abc").drip(1, 10 * MS));
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.wait_after(10 * MS), [(7, R.with(W))]);
        assert_eq!(bench.wait(), []);
    }
    assert_eq!(bench.recv(&socket, 99), Ok(b"abc".to_vec()));
}

#[test]
fn what_is_left_unread_is_not_told_again() {
    let mut bench = Bench::new(hello);
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    assert_eq!(bench.wait_after(10 * MS), [(7, R.with(W))]);
    assert_eq!(bench.recv(&socket, 2), Ok(b"he".to_vec()));
    assert_eq!(bench.wait_after(Duration::from_secs(99)), []);
    assert_eq!(bench.recv(&socket, 9), Ok(b"llo".to_vec()));
}

#[test]
fn what_was_read_before_the_wait_is_not_told() {
    let faults = Faults::none().with(Fault::BareEvent, 1000);
    let mut bench = Bench::with_faults(1, faults, hello);
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 9), Ok(b"hello".to_vec()));
    assert_eq!(bench.wait(), []);
}

#[test]
fn end_that_comes_with_data_is_one_edge() {
    let faults = Faults::none().with(Fault::EndWithData, 1000);
    let mut bench = Bench::with_faults(1, faults, |_: &Incoming| Answer::raw("hello").close());
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    let closed = R.with(W).with(Readiness::READ_CLOSED);
    assert_eq!(bench.wait_after(10 * MS), [(7, closed)]);
    assert_eq!(bench.recv(&socket, 99), Ok(b"hello".to_vec()));
    assert_eq!(bench.wait_after(10 * MS), []);
    assert_eq!(bench.recv(&socket, 99), Ok(vec![]));
    assert_eq!(
        bench.recv(&socket, 99),
        Ok(vec![]),
        "the end of file is permanent"
    );
}

#[test]
fn end_that_comes_later_is_an_edge_of_its_own() {
    let mut bench = Bench::new(|_: &Incoming| Answer::raw("hello").close());
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    bench.net.advance_to(bench.net.now() + 10 * MS);
    assert_eq!(bench.wait(), [(7, R.with(W))]);
    let closed = R.with(W).with(Readiness::READ_CLOSED);
    bench.net.advance_to(bench.net.now() + 10 * MS);
    assert_eq!(bench.wait(), [(7, closed)]);
}

#[test]
fn full_send_buffer_tells_when_a_third_of_it_is_free() {
    let mut bench = Bench::new(hello);
    bench.network.serve(addr(), hello).send_buffer(30);
    let socket = bench.connected(7);
    let request = [
        &b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n"[..],
        &[b'b'; 60],
    ]
    .concat();
    let mut sent = 0;
    while sent < request.len() {
        let n = bench.send(&socket, &request[sent..]).unwrap();
        assert_eq!(n, 30.min(request.len() - sent));
        sent += n;
        if sent < request.len() {
            assert_eq!(bench.send(&socket, b"x"), Err(ErrorKind::WouldBlock));
            assert_eq!(bench.wait_after(MS), [(7, W)]);
        }
    }
    assert_eq!(bench.wait_after(10 * MS), [(7, R.with(W))]);
    assert_eq!(
        bench.network.ledger().requests().next().unwrap().bytes,
        request
    );
}

#[test]
fn short_write_is_followed_by_an_edge() {
    let faults = Faults::none().with(Fault::ShortWrite, 1000);
    let mut bench = Bench::with_faults(1, faults, hello);
    let socket = bench.connected(7);
    let n = bench.send(&socket, GET).unwrap();
    assert!(n < GET.len());
    assert_eq!(bench.wait_after(MS), [(7, W)]);
}

#[test]
fn server_that_stops_reading_blocks_the_client() {
    let mut bench = Bench::new(hello);
    bench
        .network
        .serve(addr(), hello)
        .send_buffer(40)
        .reads_at_most(10);
    let socket = bench.connected(7);
    assert_eq!(bench.send(&socket, &[b'x'; 100]), Ok(40));
    bench.network.sleep(MS);
    assert_eq!(bench.send(&socket, &[b'x'; 100]), Ok(10));
    bench.network.sleep(Duration::from_secs(99));
    assert_eq!(
        bench.send(&socket, &[b'x'; 100]),
        Err(ErrorKind::WouldBlock)
    );
    assert_eq!(bench.wait(), []);
}

#[test]
fn server_that_reads_slowly_frees_the_send_buffer_as_it_reads() {
    let mut bench = Bench::new(hello);
    let second = Duration::from_secs(1);
    bench
        .network
        .serve(addr(), hello)
        .send_buffer(GET.len())
        .reads_slowly(10, second);
    let socket = bench.connected(7);
    assert_eq!(bench.send(&socket, GET), Ok(GET.len()));
    assert_eq!(bench.send(&socket, b"x"), Err(ErrorKind::WouldBlock));
    bench.network.sleep(second);
    assert_eq!(bench.send(&socket, b"x"), Err(ErrorKind::WouldBlock));
    bench.network.sleep(MS);
    assert_eq!(bench.send(&socket, &[b'x'; 20]), Ok(10), "the first ten");
    let reads = GET.len().div_ceil(10) as u32;
    bench.network.sleep((reads - 2) * second);
    assert_eq!(bench.network.ledger().requests().count(), 0);
    bench.network.sleep(second);
    let ledger = bench.network.ledger();
    let arrived: Vec<Duration> = ledger.requests().map(|request| request.at).collect();
    assert_eq!(arrived.len(), 1, "after {reads} reads");
    assert!(arrived[0] >= reads * second, "{arrived:?}");
}

#[test]
fn window_holds_back_what_is_not_read() {
    let body: Vec<u8> = (0..100).collect();
    let expected = body.clone();
    let mut bench = Bench::new(hello);
    let server = move |_: &Incoming| Answer::raw(body.clone()).close();
    bench.network.serve(addr(), server).window(30);
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    assert_eq!(bench.wait_after(10 * MS), [(7, R.with(W))]);
    assert_eq!(bench.recv(&socket, 10).unwrap().len(), 10);
    assert_eq!(
        bench.wait_after(10 * MS),
        [],
        "less than half of the window is free"
    );
    assert_eq!(bench.recv(&socket, 99).unwrap().len(), 20);
    assert_eq!(bench.wait_after(10 * MS), [(7, R.with(W))]);
    assert_eq!(bench.read_to_end(&socket).unwrap(), expected[30..]);
}

#[test]
fn wait_takes_no_more_than_asked_for_and_keeps_the_rest() {
    let mut bench = Bench::new(hello);
    let _sockets = [1, 2, 3].map(|token| bench.connect(token));
    bench.network.sleep(10 * MS);
    assert_eq!(bench.wait_for(2), [(1, W), (2, W)]);
    assert!(bench.net.has_events());
    assert_eq!(bench.wait_for(2), [(3, W)]);
    assert!(!bench.net.has_events());
}

#[test]
fn waker_is_an_event_once() {
    let mut bench = Bench::new(hello);
    let waker = bench.net.waker();
    std::thread::spawn(move || waker.wake()).join().unwrap();
    assert!(bench.net.has_events());
    assert_eq!(bench.wait(), [(WAKE.0, R)]);
    assert_eq!(bench.wait(), []);
}

// ---- resets and closing ----

#[test]
fn reset_leaves_what_had_arrived_and_is_reported_once() {
    let mut bench = Bench::new(|_: &Incoming| Answer::raw("hel").reset());
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    let all = R
        .with(W)
        .with(Readiness::READ_CLOSED)
        .with(Readiness::ERROR);
    assert_eq!(bench.wait_after(10 * MS), [(7, all)]);
    assert_eq!(bench.recv(&socket, 99), Ok(b"hel".to_vec()));
    assert_eq!(bench.recv(&socket, 99), Err(ErrorKind::ConnectionReset));
    assert_eq!(bench.recv(&socket, 99), Ok(vec![]));
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::BrokenPipe));
}

#[test]
fn reset_may_discard_what_had_arrived() {
    let faults = Faults::none().with(Fault::ResetDiscards, 1000);
    let mut bench = Bench::with_faults(1, faults, |_: &Incoming| Answer::raw("hel").reset());
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(10 * MS);
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::ConnectionReset));
    assert_eq!(bench.recv(&socket, 99), Ok(vec![]));
}

#[test]
fn reset_that_discards_what_had_arrived_discards_the_end_as_well() {
    let faults = Faults::none().with(Fault::ResetDiscards, 1000);
    let mut bench = Bench::with_faults(1, faults, |_: &Incoming| Answer::raw("hel").close());
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(10 * MS);
    assert_eq!(
        bench.send(&socket, GET),
        Ok(GET.len()),
        "the end has arrived"
    );
    bench.network.sleep(10 * MS);
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::ConnectionReset));
    assert_eq!(bench.recv(&socket, 99), Ok(vec![]));
}

#[test]
fn request_to_a_server_that_has_closed_is_taken_and_reset() {
    let mut bench = Bench::new(hello);
    let socket = bench.connected(7);
    assert_eq!(bench.network.close_idle_peers(), 1);
    assert_eq!(
        bench.send(&socket, GET),
        Ok(GET.len()),
        "the client has not learned of the close yet"
    );
    bench.network.sleep(MS / 2);
    assert_eq!(bench.recv(&socket, 99), Ok(vec![]));
    bench.network.sleep(MS / 2);
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::BrokenPipe));
    assert_eq!(
        bench.recv(&socket, 99),
        Ok(vec![]),
        "the end of file is permanent"
    );
    assert_eq!(bench.network.ledger().requests().len(), 0);
}

#[test]
fn closing_with_something_unread_resets() {
    let mut bench = Bench::new(hello);
    let [a, b] = [1, 2].map(|token| bench.connect(token));
    bench.network.sleep(10 * MS);
    for socket in [&a, &b] {
        bench.send(socket, GET).unwrap();
    }
    bench.network.sleep(10 * MS);
    bench.recv(&a, 99).unwrap();
    bench.close(a);
    bench.close(b);
    bench.network.sleep(10 * MS);
    let ledger = bench.network.ledger();
    let ends: Vec<Closed> = ledger.connections().map(|c| c.closed.unwrap().1).collect();
    assert_eq!(ends, [Closed::ByClient, Closed::ResetByClient]);
}

#[test]
fn server_that_closes_with_something_unread_resets() {
    struct Hasty;
    impl Server for Hasty {
        fn on_request(&mut self, _: &Incoming) -> Answer {
            panic!("a request answered at its head is not passed to on_request")
        }
        fn on_head(&mut self, _: &Incoming) -> Option<Answer> {
            Some(Answer::raw("413").after(5 * MS).close())
        }
    }
    let mut bench = Bench::new(Hasty);
    let socket = bench.connected(7);
    bench
        .send(
            &socket,
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        )
        .unwrap();
    bench.network.sleep(MS);
    bench.send(&socket, b"123456789").unwrap();
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 99), Ok(b"413".to_vec()));
    assert_eq!(bench.recv(&socket, 99), Err(ErrorKind::ConnectionReset));
}

// ---- misuse ----

#[test]
fn misuse_is_noticed() {
    let mut bench = Bench::new(hello);
    let mut socket = bench.connect(7);
    let fd = socket.fd();
    assert!(bench.net.register(&mut socket, Token(8)).is_err());
    let copy = Socket::new(fd, socket.id());
    bench.net.close(socket);
    assert!(bench.recv(&copy, 9).is_err());
    bench.net.close(copy);
    let mut next = bench.net.connect(addr(), &Route::default()).unwrap();
    assert_eq!(next.fd(), fd, "the descriptor is reused");
    assert!(bench.net.deregister(&mut next).is_err());
    let call = |call| Misuse::ClosedSocket { fd, call };
    let expected = [
        Misuse::RegisteredTwice { fd },
        Misuse::ClosedWhileRegistered { fd },
        call("recv"),
        call("close"),
        Misuse::NotRegistered { fd },
    ];
    assert_eq!(bench.network.misuses(), expected);
    assert_eq!(bench.network.open_fds(), 1);
}

#[test]
fn malformed_request_is_noticed() {
    let mut bench = Bench::new(hello);
    let socket = bench.connected(7);
    bench.send(&socket, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 9), Err(ErrorKind::ConnectionReset));
    let why = "0 Host fields".to_owned();
    let connection = ConnectionId(1);
    let expected = [Misuse::MalformedRequest { connection, why }];
    assert_eq!(bench.network.misuses(), expected);
}

#[test]
fn dropped_engine_leaves_nothing_open() {
    let mut bench = Bench::new(hello);
    let socket = bench.connected(7);
    let network = bench.network.clone();
    drop((bench, socket));
    network.sleep(10 * MS);
    assert_eq!(network.open_fds(), 0);
    assert_eq!(network.misuses(), []);
    assert_eq!(
        network
            .ledger()
            .connections()
            .next()
            .unwrap()
            .closed
            .unwrap()
            .1,
        Closed::ByClient
    );
}

#[test]
fn wakers_of_a_dropped_engine_wake_nobody() {
    let bench = Bench::new(hello);
    let network = bench.network.clone();
    let wakers = [bench.net.waker(), bench.net.waker()];
    wakers[0].wake();
    assert!(network.has_events() && network.take_edge());
    drop(bench);
    wakers[1].wake();
    assert!(!network.has_events() && !network.take_edge());
}

// ---- servers ----

#[test]
fn requests_are_answered_in_order_and_seen_by_the_ledger() {
    let mut bench = Bench::new(|request: &Incoming| match request.path() {
        "/slow" => Answer::raw("slow ").after(MS * 50),
        _ => Answer::raw("fast"),
    });
    let socket = bench.connected(7);
    bench
        .send(&socket, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /")
        .unwrap();
    bench.network.sleep(MS);
    bench
        .send(&socket, b"?q HTTP/1.1\r\nHost: x\r\n\r\nGET")
        .unwrap();
    bench.network.sleep(60 * MS);
    assert_eq!(bench.recv(&socket, 99), Ok(b"slow fast".to_vec()));
    bench.close(socket);
    bench.network.sleep(MS);

    let ledger = bench.network.ledger();
    let seen: Vec<_> = ledger
        .requests()
        .map(|r| (r.number, r.target.as_str(), r.pipelined, r.at))
        .collect();
    let at = 10 * MS + MS / 2;
    assert_eq!(seen, [(0, "/slow", false, at), (1, "/?q", true, at + MS)]);
    let served = ledger.connections().next().unwrap();
    assert_eq!((served.requests, served.unfinished), (2, 3));
    assert_eq!(served.opened, MS);

    bench.network.clear_ledger();
    assert_eq!(bench.network.ledger(), Ledger::default());
}

#[test]
fn idle_connections_are_closed_by_their_server() {
    let mut bench = Bench::new(hello);
    bench
        .network
        .serve(addr(), hello)
        .idle_timeout(Duration::from_secs(5));
    let socket = bench.connected(7);
    bench.network.sleep(Duration::from_secs(4));
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(Duration::from_secs(4));
    assert_eq!(bench.recv(&socket, 99), Ok(b"hello".to_vec()));
    assert_eq!(bench.recv(&socket, 99), Err(ErrorKind::WouldBlock));
    bench.network.sleep(Duration::from_secs(2));
    assert_eq!(bench.recv(&socket, 99), Ok(vec![]));
}

#[test]
fn host_acts_as_the_server_at_any_time() {
    let mut bench = Bench::new(|_: &Incoming| Answer::raw("never").after(Duration::from_secs(60)));
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(MS);
    let [connection] = bench.network.connections()[..] else {
        panic!("expected exactly one connection")
    };
    assert_eq!(
        bench.network.close_idle_peers(),
        0,
        "the server is answering"
    );
    assert!(bench.network.push(connection, "noise"));
    assert!(bench.network.close(connection));
    assert!(!bench.network.close(connection));
    bench.network.sleep(MS);
    assert_eq!(bench.recv(&socket, 99), Ok(b"noise".to_vec()));
    assert_eq!(bench.recv(&socket, 99), Ok(vec![]));
}

#[test]
fn server_may_use_the_network_while_it_is_asked() {
    let network = Network::new(1);
    let handle = network.clone();
    network.serve(addr(), move |request: &Incoming| {
        handle.reset(request.connection);
        Answer::ok(format!("{:?} {}", handle.elapsed(), handle.has_events()))
    });
    let net = SimNet::new(network.clone());
    let mut bench = Bench { network, net };
    let socket = bench.connected(7);
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(MS);
    assert_eq!(bench.recv(&socket, 99), Err(ErrorKind::ConnectionReset));
    bench.network.refuse(addr());
}

#[test]
fn every_fault_of_a_server_strikes_as_it_says() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    type Expected = fn(Result<Vec<u8>, ErrorKind>, &[u8]) -> bool;
    let rows: [(Fault, Expected); 10] = [
        (Fault::Split, |read, all| read.as_deref() == Ok(all)),
        (Fault::Delay, |read, all| read.as_deref() == Ok(all)),
        (Fault::SmallWindow, |read, all| read.as_deref() == Ok(all)),
        (Fault::Silence, |read, _| read == Ok(vec![])),
        (Fault::ResetBefore, |read, _| {
            read == Err(ErrorKind::ConnectionReset)
        }),
        (Fault::ResetDuring, |read, _| {
            read == Err(ErrorKind::ConnectionReset)
        }),
        (Fault::ResetAfter, |read, _| {
            read == Err(ErrorKind::ConnectionReset)
        }),
        (Fault::CloseBefore, |read, _| read == Ok(vec![])),
        (Fault::CloseDuring, |read, all| {
            read.is_ok_and(|read| {
                read.len() < all.len() && all.starts_with(&read) && !read.is_empty()
            })
        }),
        (Fault::Unsolicited, |read, all| {
            read.is_ok_and(|read| read.len() > all.len() && read.starts_with(all))
        }),
    ];
    for (fault, expected) in rows {
        for seed in 0..30 {
            let faults = Faults::none().with(fault, 1000);
            let mut bench = Bench::with_faults(seed, faults, |_: &Incoming| Answer::ok("hi"));
            let socket = bench.connect(7);
            while bench.send(&socket, GET).is_err() {
                bench.network.sleep(100 * MS);
            }
            let read = bench.read_to_end(&socket);
            assert!(
                expected(read.clone(), answer.as_bytes()),
                "{fault:?}: {read:?}"
            );
            assert!(bench.network.struck(fault) > 0, "{fault:?}");
        }
    }
}

// ---- made-up events ----

#[test]
fn stale_event_comes_after_its_deregistration() {
    let faults = Faults::none().with(Fault::Stale, 1000);
    let mut bench = Bench::with_faults(1, faults, hello);
    let socket = bench.connected(7);
    bench.close(socket);
    assert!(!bench.net.has_events(), "a stale event does not count");
    let events: Vec<_> = (0..5).flat_map(|_| bench.wait()).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].0, 7);
}

#[test]
fn spurious_event_is_of_a_live_token() {
    let faults = Faults::none().with(Fault::Spurious, 1000);
    let mut bench = Bench::with_faults(1, faults, hello);
    assert_eq!(bench.wait(), [], "no token is registered");
    let _socket = bench.connect(7);
    assert_eq!(bench.wait()[0].0, 7);
}

#[test]
fn interrupted_call_does_nothing() {
    let mut bench = Bench::new(hello);
    let socket = bench.connect(7);
    bench.network.sleep(10 * MS);
    let faults = Faults::none().with(Fault::Interrupted, 1000);
    bench.network.set_faults(faults);
    assert_eq!(bench.wait(), []);
    assert_eq!(bench.send(&socket, GET), Err(ErrorKind::Interrupted));
    assert_eq!(bench.recv(&socket, 9), Err(ErrorKind::Interrupted));
    bench.network.set_faults(Faults::none());
    assert_eq!(bench.wait(), [(7, W)]);
}

// ---- time and names ----

#[test]
fn advance_stops_where_there_is_something_to_do() {
    let mut bench = Bench::new(hello);
    let start = bench.net.now();
    let _socket = bench.connect(7);
    assert_eq!(bench.net.next_event_at(), Some(start + MS));
    let far = start + Duration::from_secs(3600);
    assert_eq!(bench.net.advance_to(far), start + MS);
    assert_eq!(
        bench.net.advance_to(far),
        start + MS,
        "the clock stays until the event is fetched"
    );
    bench.wait();
    assert_eq!(bench.net.advance_to(far), far);
    assert_eq!(bench.net.advance_to(start), far, "time never goes back");
    bench.net.waker().wake();
    assert_eq!(bench.net.advance_to(far + MS), far);
}

#[test]
fn names_are_looked_up_in_virtual_time() {
    let bench = Bench::new(hello);
    bench.network.host("a.test", [[10, 0, 0, 1], [10, 0, 0, 2]]);
    bench
        .network
        .host("b.test", [[10, 0, 0, 3]])
        .after(Duration::ZERO);
    let broken = LookupError::Failed("broken".to_owned());
    bench
        .network
        .host_fails("c.test", broken.clone())
        .after(2 * MS);
    let mut names = bench.net.resolver();
    let start = bench.net.now();
    names.start("a.test", Family::V4, LookupId(1));
    names.start("a.test", Family::V6, LookupId(2));
    names.start("b.test", Family::V4, LookupId(3));
    names.start("c.test", Family::V4, LookupId(4));
    names.start("d.test", Family::V4, LookupId(5));
    names.start("a.test", Family::V4, LookupId(6));
    names.cancel(LookupId(6));

    let found = |ips: &[[u8; 4]]| LookupAnswer::found(ips.iter().map(|ip| (*ip).into()));
    let at_once = names.take();
    assert_eq!(at_once, Some((LookupId(3), found(&[[10, 0, 0, 3]]))));
    assert_eq!(names.take(), None);
    assert_eq!(names.deadline(), Some(start + MS));
    names.on_tick(start + MS);
    let both = found(&[[10, 0, 0, 1], [10, 0, 0, 2]]);
    assert_eq!(names.take(), Some((LookupId(1), both)));
    assert_eq!(names.take(), Some((LookupId(2), found(&[]))));
    let unknown = LookupAnswer::failed(LookupError::NotFound);
    assert_eq!(names.take(), Some((LookupId(5), unknown)));
    assert_eq!(names.take(), None);
    names.on_tick(start + 2 * MS);
    assert_eq!(
        names.take(),
        Some((LookupId(4), LookupAnswer::failed(broken)))
    );
    assert_eq!(names.deadline(), None);
}

// ---- determinism ----

/// A client that makes random system calls for a while.
fn storm(seed: u64, faults: Faults) -> (Network, Vec<String>) {
    let mut chance = Random::new(seed);
    let mut bench = Bench::with_faults(seed, faults, |request: &Incoming| {
        Answer::ok(request.target.clone()).after(MS * request.number as u32)
    });
    let mut sockets: Vec<(Socket, bool)> = Vec::new();
    let mut log = Vec::new();
    let mut token = 0;
    for round in 0..300 {
        match chance.below(6) {
            0 => {
                if let Ok(mut socket) = bench.net.connect(addr(), &Route::default()) {
                    token += 1;
                    let watched = bench.net.register(&mut socket, Token(token)).is_ok();
                    sockets.push((socket, watched));
                }
            }
            1 if !sockets.is_empty() => {
                let (mut socket, watched) = sockets.swap_remove(chance.below(sockets.len()));
                if watched {
                    bench.net.deregister(&mut socket).unwrap();
                }
                bench.net.close(socket);
            }
            2 | 3 if !sockets.is_empty() => {
                let request = format!("GET /{round} HTTP/1.1\r\nHost: x\r\n\r\n");
                let (socket, _) = chance.pick(&sockets);
                log.push(format!("{:?}", bench.send(socket, request.as_bytes())));
            }
            4 => {
                let until = bench.net.now() + chance.duration(5 * MS);
                bench.net.advance_to(until);
            }
            _ => {
                let mut ready = Vec::new();
                let told = bench.net.wait(&mut ready, 3, None);
                log.push(format!("{told:?} {ready:?}"));
                for (socket, _) in &sockets {
                    log.push(format!("{:?}", bench.recv(socket, 20)));
                }
            }
        }
    }
    log.push(format!("{:?}", bench.net.now() - start_of(&bench)));
    (bench.network.clone(), log)
}

fn start_of(bench: &Bench) -> Instant {
    bench.net.now() - bench.network.elapsed()
}

#[test]
fn equal_seeds_give_equal_runs() {
    let mut fingerprints = Vec::new();
    for seed in 0..50 {
        let (a, log_of_a) = storm(seed, Faults::storm());
        let (b, log_of_b) = storm(seed, Faults::storm());
        assert_eq!(log_of_a, log_of_b, "seed {seed}");
        assert_eq!(a.ledger(), b.ledger(), "seed {seed}");
        assert_eq!(a.fingerprint(), b.fingerprint(), "seed {seed}");
        fingerprints.push(a.fingerprint());
    }
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(
        fingerprints.len(),
        50,
        "different seeds give different runs"
    );
}

#[test]
fn storm_of_everything_leaks_and_breaks_nothing() {
    let mut struck = [0; Fault::ALL.len()];
    for seed in 0..200 {
        let faults = match seed % 2 {
            0 => Faults::storm(),
            _ => Faults::some(&mut Random::new(seed)),
        };
        let (network, _) = storm(seed, faults);
        network.sleep(Duration::from_secs(600));
        assert_eq!(network.open_fds(), 0, "seed {seed}");
        let malformed = |m: &Misuse| matches!(m, Misuse::MalformedRequest { .. });
        // A short write loses the rest of the request here, so the next request is malformed. There
        // is no other misuse.
        assert!(network.misuses().iter().all(malformed), "seed {seed}");
        for (count, fault) in struck.iter_mut().zip(Fault::ALL) {
            *count += network.struck(fault);
        }
    }
    for (count, fault) in struck.into_iter().zip(Fault::ALL) {
        let of_names = matches!(
            fault,
            Fault::SlowLookup | Fault::FailedLookup | Fault::ExhaustedLookup
        );
        assert_eq!(count > 0, !of_names, "{fault:?}");
    }
}

/// A server that holds its answers and records which clients close.
struct Holding(Rc<RefCell<Vec<ConnectionId>>>);

impl Server for Holding {
    fn on_request(&mut self, request: &Incoming) -> Answer {
        match request.path() {
            "/now" => Answer::raw("now"),
            _ => Answer::held(),
        }
    }

    fn on_close(&mut self, connection: ConnectionId) {
        self.0.borrow_mut().push(connection);
    }
}

#[test]
fn held_request_is_answered_when_the_network_is_told_to() {
    let mut bench = Bench::new(Holding(Rc::default()));
    let socket = bench.connected(1);
    let connection = bench.network.connections()[0];
    assert!(!bench.network.answer(connection, Answer::raw("early")));
    bench.send(&socket, GET).unwrap();
    assert_eq!(bench.wait_after(1000 * MS), []);
    assert_eq!(
        bench.network.close_idle_peers(),
        0,
        "a held request is not idle"
    );
    assert!(bench.network.answer(connection, Answer::held()));
    assert!(
        bench
            .network
            .answer(connection, Answer::raw("late").after(MS))
    );
    assert!(!bench.network.answer(connection, Answer::raw("twice")));
    assert_eq!(bench.wait_after(MS), []);
    assert_eq!(bench.wait_after(MS), [(1, R.with(W))]);
    assert_eq!(bench.recv(&socket, 100).unwrap(), b"late");
}

#[test]
fn answers_behind_a_held_one_wait_for_it() {
    let mut bench = Bench::new(Holding(Rc::default()));
    let socket = bench.connected(1);
    bench.send(&socket, GET).unwrap();
    let now = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n";
    bench.send(&socket, now).unwrap();
    bench.send(&socket, GET).unwrap();
    assert_eq!(bench.wait_after(10 * MS), []);
    let connection = bench.network.connections()[0];
    assert!(bench.network.answer(connection, Answer::raw("one,")));
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 100).unwrap(), b"one,now");
    assert!(
        bench
            .network
            .ledger()
            .requests()
            .all(|r| r.pipelined == (r.number > 0))
    );
    assert!(bench.network.answer(connection, Answer::raw("two")));
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 100).unwrap(), b"two");
}

#[test]
fn idle_timeout_begins_behind_the_answer_that_was_held() {
    let network = Network::new(1);
    let _ = network
        .serve(addr(), Holding(Rc::default()))
        .idle_timeout(50 * MS);
    let net = SimNet::new(network.clone());
    let mut bench = Bench { network, net };
    let socket = bench.connected(1);
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(1000 * MS);
    let connection = bench.network.connections()[0];
    assert!(bench.network.answer(connection, Answer::ok("late")));
    bench.network.sleep(40 * MS);
    assert_eq!(bench.network.connections(), [connection]);
    bench.network.sleep(20 * MS);
    assert_eq!(bench.network.connections(), []);
    assert!(!bench.network.answer(connection, Answer::ok("gone")));
}

#[test]
fn faults_strike_an_answer_that_was_held() {
    let faults = Faults::none().with(Fault::CloseBefore, 1000);
    let mut bench = Bench::with_faults(1, faults, Holding(Rc::default()));
    let socket = bench.connected(1);
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(10 * MS);
    let connection = bench.network.connections()[0];
    assert!(bench.network.answer(connection, Answer::ok("lost")));
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 100).unwrap(), b"");
    assert_eq!(bench.network.struck(Fault::CloseBefore), 1);
}

#[test]
fn server_hears_when_a_client_closes_on_a_held_answer() {
    let closed = Rc::new(RefCell::new(Vec::new()));
    let mut bench = Bench::new(Holding(closed.clone()));
    let mut socket = bench.connected(1);
    let connection = bench.network.connections()[0];
    bench.send(&socket, GET).unwrap();
    bench.network.sleep(10 * MS);
    bench.net.deregister(&mut socket).unwrap();
    bench.net.close(socket);
    bench.network.sleep(10 * MS);
    assert_eq!(*closed.borrow(), [connection]);
    assert!(!bench.network.answer(connection, Answer::ok("too late")));
    assert_eq!(bench.network.misuses(), []);
}

/// A server that records the ids of the connections that end.
#[derive(Clone, Default)]
struct Ends(Rc<RefCell<Vec<ConnectionId>>>);

impl Server for Ends {
    fn on_request(&mut self, _: &Incoming) -> Answer {
        Answer::held()
    }

    fn on_close(&mut self, connection: ConnectionId) {
        self.0.borrow_mut().push(connection);
    }
}

#[test]
fn a_server_that_is_stopped_resets_its_connections_and_tells_its_successor_nothing() {
    let mut bench = Bench::new(hello);
    let socket = bench.connected(7);
    assert_eq!(bench.network.stop(addr()), 1);
    assert_eq!(bench.network.stop(addr()), 0);
    let ends = Ends::default();
    let _ = bench.network.serve(addr(), ends.clone());
    bench.network.sleep(10 * MS);
    assert_eq!(bench.recv(&socket, 99), Err(ErrorKind::ConnectionReset));
    bench.close(socket);
    bench.network.sleep(10 * MS);
    assert!(ends.0.borrow().is_empty());
}
