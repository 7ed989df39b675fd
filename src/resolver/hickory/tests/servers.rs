//! Which servers are asked for which names, and in which order.

use std::net::{SocketAddr, UdpSocket};

use super::server::{NXDOMAIN, Question, SERVFAIL};
use super::*;

/// Addresses where nobody listens: the ports were free just now.
fn closed<const N: usize>() -> [SocketAddr; N] {
    let sockets = [(); N].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

fn refusing() -> NameServer {
    NameServer::start(|question, back| back.send(&question.answer().rcode(SERVFAIL)))
}

/// Names to look up one after the other. On a busy machine a server may be silent for long enough to lose its turn, but not for all of them.
const MANY: [&str; 10] = [
    "a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test", "h.test", "i.test",
    "j.test",
];

#[test]
fn the_first_server_is_asked_and_the_second_is_not() {
    let (first, second) = (honest(), honest());
    let mut names = Loop::asking(&[&first, &second]);
    for host in MANY {
        assert_eq!(names.look_up(host, Family::V4), found(&["192.0.2.1"], 60));
    }
    assert!(
        first.names().len() > second.names().len(),
        "{:?}",
        second.names()
    );
}

#[test]
fn what_the_first_server_says_is_believed_even_if_the_second_knew_better() {
    let first = NameServer::start(|question, back| back.send(&question.answer().rcode(NXDOMAIN)));
    let second = honest();
    let mut names = Loop::asking(&[&first, &second]);
    let believed = MANY.iter().filter(|host| {
        let answer = names.look_up(host, Family::V4);
        answer == LookupAnswer::failed(LookupError::NotFound)
    });
    assert!(believed.count() > 0);
    assert!(second.names().len() < MANY.len());
}

#[test]
fn behind_a_mute_server_the_next_one_answers_and_is_asked_first_from_then_on() {
    let (mutes, live) = ([NameServer::mute(), NameServer::mute()], honest());
    let mut names = Loop::asking(&[&mutes[0], &mutes[1], &live]);
    for host in MANY {
        assert_eq!(names.look_up(host, Family::V4), found(&["192.0.2.1"], 60));
    }
    for mute in &mutes {
        let asked = mute.names();
        assert_eq!(asked[0], MANY[0], "it was its turn");
        assert!(asked.len() < MANY.len(), "then it was passed over");
    }
}

#[test]
fn servers_that_are_passed_over_are_asked_when_the_others_fail() {
    // Silent at first only.
    let slow = NameServer::start(|question, back| {
        if question.name() != "a.test" {
            back.send(&question.addresses(60, &[ip("192.0.2.7")]));
        }
    });
    let once = NameServer::start(|question, back| match question.name().as_str() {
        "a.test" => back.send(&question.addresses(60, &[ip("192.0.2.1")])),
        _ => back.send(&question.answer().rcode(SERVFAIL)),
    });
    let mut names = Loop::asking(&[&slow, &once]);
    assert_eq!(
        names.look_up("a.test", Family::V4),
        found(&["192.0.2.1"], 60)
    );
    assert_eq!(
        names.look_up("b.test", Family::V4),
        found(&["192.0.2.7"], 60)
    );
}

#[test]
fn behind_closed_ports_and_refusals_the_next_server_answers() {
    let (refuses, live) = (refusing(), honest());
    let [a, b, c] = closed();
    let servers = vec![a, b, refuses.addr, c, live.addr];
    let mut names = Loop::new(HickoryConfig {
        servers,
        ..config(&[])
    });
    assert_eq!(
        names.look_up("h.test", Family::V4),
        found(&["192.0.2.1"], 60)
    );
    assert!(!refuses.seen().is_empty());
}

#[test]
fn servers_that_are_all_mute_are_named() {
    let servers = [NameServer::mute(), NameServer::mute()];
    let timeout = Duration::from_millis(600);
    let config = HickoryConfig {
        timeout,
        attempts: 2,
        ..config(&[&servers[0], &servers[1]])
    };
    let mut names = Loop::new(config);
    let both = format!("{}, {}", servers[0].addr, servers[1].addr);
    assert_eq!(names.hickory.servers(), both);
    let answer = names.look_up("h.test", Family::V4);
    assert_eq!(answer, LookupAnswer::failed(LookupError::Timeout(both)));
    for server in &servers {
        // Of each attempt a datagram, and one that repeats it.
        let seen = server.seen().len();
        assert!((2..=4).contains(&seen), "{seen} datagrams");
    }
}

#[test]
fn each_server_says_why_it_failed() {
    let (refuses, mute) = (refusing(), NameServer::mute());
    let [closed] = closed();
    let servers = vec![refuses.addr, mute.addr, closed];
    let mut names = Loop::new(HickoryConfig {
        servers,
        timeout: Duration::from_millis(600),
        attempts: 3,
        ..config(&[])
    });
    let answer = names.look_up("h.test", Family::V4);
    let Err(LookupError::Failed(why)) = answer.addresses else {
        panic!("{answer:?}")
    };
    assert!(
        why.contains(&format!("SERVFAIL from {}", refuses.addr)),
        "{why}"
    );
    assert!(
        why.contains(&format!("no answer from {}", mute.addr)),
        "{why}"
    );
    assert!(why.contains(&format!("{closed}: ")), "{why}");
    assert_eq!(why.matches("; ").count(), 2, "each once: {why}");
    assert!(refuses.seen().len() < 3, "it would say so again");
}

#[test]
fn without_servers_every_look_up_fails() {
    let mut names = Loop::asking(&[]);
    let answer = names.look_up("h.test", Family::V4);
    assert_eq!(answer, failed("no name server is configured".into()));
}

#[test]
fn a_server_may_have_an_ipv6_address() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return println!("skipped: there is no IPv6 on loopback");
    }
    let server = NameServer::on("::1", |question, back| {
        back.send(&match question.transport {
            super::server::Transport::Udp => question.answer().truncated(),
            super::server::Transport::Tcp => question.addresses(60, &[ip("2001:db8::1")]),
        });
    });
    let mut names = Loop::asking(&[&server]);
    assert_eq!(
        names.look_up("h.test", Family::V6),
        found(&["2001:db8::1"], 60)
    );
}

#[test]
fn the_search_list_is_tried_in_the_order_that_dots_ask_for() {
    let rows: &[(&str, &str, u8, &[&str])] = &[
        (
            "few dots: the list first",
            "h",
            1,
            &["h.a.test", "h.b.test", "h"],
        ),
        (
            "enough dots: as it stands first",
            "h.x",
            1,
            &["h.x", "h.x.a.test", "h.x.b.test"],
        ),
        (
            "more dots are asked for",
            "h.x",
            2,
            &["h.x.a.test", "h.x.b.test", "h.x"],
        ),
        ("none are", "h", 0, &["h", "h.a.test", "h.b.test"]),
        ("a name that is complete stands for itself", "h.", 1, &["h"]),
        ("with however few dots", "h.x.", 9, &["h.x"]),
    ];
    for (why, host, ndots, expected) in rows {
        let server = NameServer::start(|question, back| {
            back.send(&question.answer().rcode(NXDOMAIN).soa("test", 60, 60));
        });
        let mut names = Loop::new(HickoryConfig {
            // What is no domain is left out.
            search: ["a.test", "..", "b.test."].map(str::to_owned).into(),
            ndots: *ndots,
            ..config(&[&server])
        });
        let answer = names.look_up(host, Family::V4);
        assert_eq!(answer.addresses, Err(LookupError::NotFound), "{why}");
        assert_eq!(answer.ttl, Duration::from_secs(60), "{why}");
        assert_eq!(server.names(), *expected, "{why}");
    }
}

#[test]
fn only_a_name_that_does_not_exist_leads_on_in_the_search_list() {
    type Script = fn(&Question) -> super::server::Message;
    /// `None`: it fails.
    type Addresses = Option<Vec<IpAddr>>;
    let rows: &[(&str, Script, Addresses)] = &[
        (
            "one that is found does not",
            |q| q.addresses(60, &[ip("192.0.2.1")]),
            Some(vec![ip("192.0.2.1")]),
        ),
        (
            "one that exists without an address does not",
            |q| q.answer(),
            Some(vec![]),
        ),
        (
            "one of which nothing is known does not",
            |q| q.answer().rcode(SERVFAIL),
            None,
        ),
    ];
    for (why, script, expected) in rows {
        let script = *script;
        let server = NameServer::start(move |question, back| {
            back.send(&match question.name().as_str() {
                "h.a.test" => question.answer().rcode(NXDOMAIN).soa("test", 1, 1),
                _ => script(&question),
            });
        });
        let mut names = Loop::new(HickoryConfig {
            search: ["a.test", "b.test", "c.test"].map(str::to_owned).into(),
            ..config(&[&server])
        });
        let answer = names.look_up("h", Family::V4);
        assert_eq!(answer.addresses.ok(), *expected, "{why}");
        assert_eq!(server.names(), ["h.a.test", "h.b.test"], "{why}");
    }
}

#[test]
fn what_cannot_be_a_name_is_refused_and_nobody_asked() {
    let server = honest();
    let mut names = Loop::asking(&[&server]);
    let (label, long) = ("l".repeat(64), vec!["l".repeat(60); 5].join("."));
    for host in ["", ".", "a..b", ".a", "a..", &label, &long] {
        let answer = names.look_up(host, Family::V4);
        let why = format!("{host:?} is no name that the DNS could hold");
        assert_eq!(answer, failed(why));
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_name_too_long_for_one_domain_of_the_search_list_is_tried_in_the_others() {
    let server = honest();
    let long = vec!["l".repeat(60); 4].join(".");
    let mut names = Loop::new(HickoryConfig {
        search: ["too-long-for-it.test", "x"].map(str::to_owned).into(),
        ndots: 9,
        ..config(&[&server])
    });
    assert_eq!(names.look_up(&long, Family::V4), found(&["192.0.2.1"], 60));
    assert_eq!(server.names(), [format!("{long}.x")]);
}
