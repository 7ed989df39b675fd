//! A brain behind the front-end: what changes it, and who is notified of changes.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::visitor::{ACCOUNT, Visitor};
use super::{Client, Ended, LOOPBACK, PATIENCE};
use crate::server::http::{HttpServer, listen};
use crate::server::{Account, Direct, Director, Fault, Place, Server, Settings, Step, Wish};

/// A director made of a function.
struct Plays<F>(F);

impl<F: FnMut(&mut Server, Duration) -> Direct + Send> Director for Plays<F> {
    fn direct(&mut self, server: &mut Server, now: Duration) -> Direct {
        self.0(server, now)
    }
}

fn brain(scale: f64) -> Server {
    let mut brain = Server::new(Settings {
        scale,
        ..Settings::default()
    });
    brain.add_account(Account::sample(ACCOUNT));
    brain
}

fn start_at(addr: SocketAddr, brain: Server) -> HttpServer {
    let nobody = Plays(|_: &mut Server, _| Direct::Wait(None));
    HttpServer::start(listen(addr).unwrap(), brain, Box::new(nobody), |_| {}).unwrap()
}

fn logged_in(server: &HttpServer) -> Visitor {
    let mut visitor = Visitor::connect(server.addr());
    visitor.log_in();
    visitor
}

/// Waits until a poll is held, or until none is.
fn wait_held(server: &HttpServer, is_held: bool) {
    let since = Instant::now();
    while server.with(|brain, _| brain.is_waiting(ACCOUNT)) != is_held {
        assert!(
            since.elapsed() < PATIENCE,
            "the poll was not held, or still is"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

fn say(server: &HttpServer, text: &str) {
    server.with(|brain, now| brain.say(now, ACCOUNT, &Place::Buddy, "Alice", text, false));
}

fn assert_no_errors(server: HttpServer) {
    let brain = server.stop();
    assert_eq!(
        brain.ledger().unprovoked().count(),
        0,
        "{:?}",
        brain.ledger().errors
    );
}

#[test]
fn a_login_goes_over_one_connection() {
    let server = start_at(LOOPBACK, brain(1.0));
    let mut visitor = Visitor::connect(server.addr());
    let sig = visitor.sig();
    assert!(!sig.is_empty());
    visitor.check(&sig);
    visitor.log_in();
    server.with(|brain, _| {
        let ledger = brain.ledger();
        assert_eq!(
            (ledger.connections, ledger.requests, ledger.logins),
            (1, 7, 1)
        );
    });
    assert_no_errors(server);
}

#[test]
fn a_held_poll_is_answered_when_somebody_says_something() {
    let server = start_at(LOOPBACK, brain(1.0));
    let mut visitor = logged_in(&server);
    for text in ["hello", "你好"] {
        visitor.poll();
        wait_held(&server, true);
        say(&server, text);
        let body = visitor.body();
        assert!(body.contains(text), "{body}");
    }
    assert_no_errors(server);
}

#[test]
fn a_held_poll_is_answered_when_its_time_is_over() {
    let server = start_at(LOOPBACK, brain(1000.0));
    let mut visitor = logged_in(&server);
    visitor.poll();
    let body = visitor.body();
    assert!(body.contains("102"), "{body}");
    assert_no_errors(server);
}

#[test]
fn a_fault_strikes_when_a_held_poll_is_answered() {
    for (fault, ended) in [(Fault::NoByte, Ended::Closed), (Fault::Reset, Ended::Reset)] {
        let server = start_at(LOOPBACK, brain(1.0));
        let mut visitor = logged_in(&server);
        server.with(|brain, _| brain.arm(ACCOUNT, Step::Poll, fault));
        visitor.poll();
        wait_held(&server, true);
        say(&server, "hello");
        assert_eq!(visitor.client.rest(), (String::new(), ended));
        // The lost message comes with the next poll.
        let mut visitor = visitor.again(server.addr());
        visitor.poll();
        assert!(visitor.body().contains("hello"));
        assert_no_errors(server);
    }
}

#[test]
fn a_held_poll_ends_with_its_client() {
    let server = start_at(LOOPBACK, brain(1.0));
    let mut visitor = logged_in(&server);
    visitor.poll();
    wait_held(&server, true);
    let mut again = visitor.again(server.addr());
    drop(visitor);
    wait_held(&server, false);
    say(&server, "hello");
    again.poll();
    let body = again.body();
    assert!(body.contains("#1 hello"), "{body}");
    assert_no_errors(server);
}

#[test]
fn a_poll_right_behind_the_end_of_the_last_one_is_held() {
    let server = start_at(LOOPBACK, brain(1.0));
    let mut visitor = logged_in(&server);
    for _ in 0..10 {
        let mut again = visitor.again(server.addr());
        visitor.poll();
        wait_held(&server, true);
        drop(visitor);
        again.poll();
        visitor = again;
        say(&server, "hello");
        let body = visitor.body();
        assert!(body.contains("hello"), "{body}");
    }
    assert_no_errors(server);
}

#[test]
fn a_second_poll_is_refused_and_the_first_one_stays() {
    let server = start_at(LOOPBACK, brain(1.0));
    let mut visitor = logged_in(&server);
    visitor.poll();
    wait_held(&server, true);
    let mut second = visitor.again(server.addr());
    second.poll();
    let body = second.body();
    assert!(body.contains("121"), "{body}");
    say(&server, "hello");
    let body = visitor.body();
    assert!(body.contains("hello"), "{body}");
    assert_eq!(server.stop().ledger().unprovoked().count(), 1);
}

#[test]
fn a_server_that_stops_closes_its_connections_and_its_port_is_free() {
    let server = start_at(LOOPBACK, brain(1.0));
    let addr = server.addr();
    let mut idle = Client::connect(addr);
    let mut visitor = logged_in(&server);
    visitor.poll();
    wait_held(&server, true);
    let brain = server.stop();
    assert_eq!(visitor.client.rest(), (String::new(), Ended::Closed));
    assert_eq!(idle.rest(), (String::new(), Ended::Closed));
    assert!(brain.is_waiting(ACCOUNT), "no client has gone");
    let server = start_at(addr, self::brain(1.0));
    logged_in(&server);
    assert_no_errors(server);
}

#[test]
fn the_director_sees_every_change() {
    let (requests_seen, seen): (Sender<u64>, Receiver<u64>) = mpsc::channel();
    let director = Plays(move |server: &mut Server, _| {
        let _ = requests_seen.send(server.ledger().requests);
        Direct::Wait(None)
    });
    let server = HttpServer::start(
        listen(LOOPBACK).unwrap(),
        brain(1.0),
        Box::new(director),
        |_| {},
    )
    .unwrap();
    assert_eq!(seen.recv_timeout(PATIENCE), Ok(0), "at the start");
    let mut visitors = [(); 3].map(|()| Visitor::connect(server.addr()));
    for visitor in &mut visitors {
        visitor.sig();
    }
    for requests in 1..=3 {
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(requests));
    }
    server.with(|_, _| ());
    assert_eq!(seen.recv_timeout(PATIENCE), Ok(3));
    drop(server);
    assert!(seen.recv_timeout(PATIENCE).is_err(), "the director is gone");
}

#[test]
fn the_director_is_called_when_it_asked_to_be_until_it_is_over() {
    let mut times = 0;
    let mut due = Duration::ZERO;
    let director = Plays(move |_: &mut Server, now| {
        assert!(now >= due, "{now:?} is before {due:?}");
        times += 1;
        due = now + Duration::from_millis(2);
        match times {
            1..5 => Direct::Wait(Some(due)),
            5 => Direct::Over,
            _ => panic!("called when it was over"),
        }
    });
    let server = HttpServer::start(
        listen(LOOPBACK).unwrap(),
        brain(1.0),
        Box::new(director),
        |_| {},
    )
    .unwrap();
    assert!(server.wait_over(PATIENCE) && server.is_over());
    logged_in(&server);
    assert_no_errors(server);
}

#[test]
fn a_director_that_waits_is_not_over() {
    let server = start_at(LOOPBACK, brain(1.0));
    assert!(!server.wait_over(Duration::from_millis(1)) && !server.is_over());
}

#[test]
fn wishes_are_handed_out() {
    let (wished, wishes) = mpsc::channel();
    let director = Plays(|_: &mut Server, _| Direct::Wait(None));
    let tell = move |wish| wished.send(wish).unwrap();
    let server = HttpServer::start(
        listen(LOOPBACK).unwrap(),
        brain(1.0),
        Box::new(director),
        tell,
    )
    .unwrap();
    for wish in [
        Wish::Login { account: ACCOUNT },
        Wish::Logout { account: ACCOUNT },
    ] {
        server.with(|brain, _| brain.wish(wish.clone()));
        assert_eq!(wishes.recv_timeout(PATIENCE), Ok(wish));
    }
}

/// Makes the director panic after this many requests: none, or one. Waiting for the director must
/// then panic, too.
fn wait_for_one_that_panics(requests: u64) {
    let director = Plays(move |server: &mut Server, _| {
        assert!(
            server.ledger().requests < requests,
            "the director panics on purpose"
        );
        Direct::Wait(None)
    });
    let server = HttpServer::start(
        listen(LOOPBACK).unwrap(),
        brain(1.0),
        Box::new(director),
        |_| {},
    )
    .unwrap();
    // A server whose director has panicked may accept no connection any more.
    let _client = (requests > 0).then(|| {
        let mut client = Client::connect(server.addr());
        client.send("GET / HTTP/1.1\r\n\r\n");
        client
    });
    server.wait_over(PATIENCE * 10);
}

#[test]
#[should_panic(expected = "the brain has not panicked")]
fn a_director_that_panics_in_the_timer_is_not_waited_for() {
    wait_for_one_that_panics(0);
}

#[test]
#[should_panic(expected = "the brain has not panicked")]
fn a_director_that_panics_behind_a_call_is_not_waited_for() {
    wait_for_one_that_panics(1);
}
