//! Names looked up by the engine itself, over sockets on the host's poll.

#[path = "../dns/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the resolver's own tests, and each uses a part of it"
)]
mod server;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use httpstream::Request;
use httpstream::resolver::{Hickory, HickoryConfig};

use crate::common::{Server, ok};
use crate::host::{Host, Turns};
use server::{NameServer, Question};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn host(server: &NameServer) -> Host {
    let mut names = HickoryConfig::default();
    names.servers = vec![server.addr];
    names.timeout = Duration::from_secs(15);
    names.attempts = 1;
    Host::with(|config| {
        config.hosts_file = None;
        config.keep_names = Duration::ZERO;
        config.resolver = Some(Arc::new(move || {
            Box::new(Hickory::with_config(names.clone()))
        }));
    })
}

fn get(host: &str, server: &Server) -> Request {
    let url = format!("http://{host}:{}/", server.addr.port());
    Request::get(&url).build().unwrap()
}

fn address(question: &Question) -> server::Message {
    question.addresses(60, &[LOOPBACK])
}

#[test]
fn names_are_looked_up_on_the_hosts_poll() {
    let names = NameServer::start(|question, back| back.send(&address(&question)));
    let http = Server::answering(ok("a"));
    let mut host = host(&names);
    host.turns = Turns::WhenTold;
    for i in 0..100 {
        host.submit(get(&format!("host{i}.test"), &http));
    }
    host.until("replies", |host| {
        host.registered_by_engine();
        host.log.replies.len() == 100
    });
    assert!(host.log.kinds().is_empty(), "{:?}", host.log.kinds());
    assert!(
        names.seen().len() >= 200,
        "both address families are looked up"
    );
    host.engine.close_idle();
    host.quiet();
    assert_eq!(host.registered_by_engine(), 0);
}

/// As many lookups as possible are under way, and each datagram is repeated before its answer
/// arrives.
#[test]
fn slow_name_servers_are_asked_within_the_smallest_window() {
    let names = NameServer::start(|question, back| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            back.send(&address(&question));
        });
    });
    let http = Server::answering(ok("a"));
    let mut host = host(&names);
    for i in 0..150 {
        host.submit(get(&format!("host{i}.test"), &http));
    }
    let mut most = 0;
    host.until("replies", |host| {
        most = most.max(host.registered_by_engine());
        host.log.replies.len() == 150
    });
    assert!(host.log.kinds().is_empty(), "{:?}", host.log.kinds());
    assert!(most > 32, "only {most} at once");
}

#[test]
fn what_does_not_fit_into_a_datagram_comes_over_tcp_on_the_hosts_poll() {
    let names = NameServer::start(|question, back| match question.transport {
        server::Transport::Udp => back.send(&question.answer().truncated()),
        server::Transport::Tcp => back.send(&address(&question)),
    });
    let http = Server::answering(ok("a"));
    let mut host = host(&names);
    assert_eq!(host.fetch(get("long.test", &http)).unwrap().text(), "a");
    host.engine.close_idle();
    host.quiet();
}

#[test]
fn a_look_up_under_way_goes_with_the_engine() {
    let names = NameServer::unresponsive();
    let http = Server::answering(ok("a"));
    let mut host = host(&names);
    host.submit(get("never.test", &http));
    host.until("a query", |_| !names.seen().is_empty());
    assert!(host.registered_by_engine() > 0);
    let Host {
        engine,
        poll,
        waker,
        ..
    } = host;
    drop(engine);
    let mut rest = Host::new();
    (rest.poll, rest.waker) = (poll, waker);
    assert_eq!(rest.registered_by_engine(), 0);
}
