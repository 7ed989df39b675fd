//! Which servers are asked for which names, and in which order.

use std::net::{SocketAddr, UdpSocket};

use super::server::{NXDOMAIN, Question, SERVFAIL};
use super::*;

/// Returns addresses without a listener: the ports were free a moment ago.
fn closed<const N: usize>() -> [SocketAddr; N] {
    let sockets = [(); N].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

fn refusing() -> NameServer {
    NameServer::start(|question, back| back.send(&question.answer().rcode(SERVFAIL)))
}

/// Names to look up one after another. On a busy host a server may be silent for long enough to be
/// passed over, but not for all of them.
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
fn behind_an_unresponsive_server_the_next_one_answers_and_is_asked_first_from_then_on() {
    let (mutes, live) = (
        [NameServer::unresponsive(), NameServer::unresponsive()],
        honest(),
    );
    let mut names = Loop::asking(&[&mutes[0], &mutes[1], &live]);
    for host in MANY {
        assert_eq!(names.look_up(host, Family::V4), found(&["192.0.2.1"], 60));
    }
    for unresponsive in &mutes {
        let asked = unresponsive.names();
        assert_eq!(asked[0], MANY[0], "unresponsive servers are asked at first");
        assert!(asked.len() < MANY.len(), "and are then passed over");
    }
}

#[test]
fn servers_that_are_passed_over_are_asked_when_the_others_fail() {
    // Silent only for the first name.
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
fn servers_that_are_all_unresponsive_are_named() {
    let servers = [NameServer::unresponsive(), NameServer::unresponsive()];
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
        // Each attempt sends one datagram, and perhaps a repetition.
        let seen = server.seen().len();
        assert!((2..=4).contains(&seen), "{seen} datagrams");
    }
}

#[test]
fn each_server_says_why_it_failed() {
    let (refuses, unresponsive) = (refusing(), NameServer::unresponsive());
    let [closed] = closed();
    let servers = vec![refuses.addr, unresponsive.addr, closed];
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
        why.contains(&format!("no answer from {}", unresponsive.addr)),
        "{why}"
    );
    assert!(why.contains(&format!("{closed}: ")), "{why}");
    assert_eq!(why.matches("; ").count(), 2, "each failure once: {why}");
    assert!(
        refuses.seen().len() >= 3,
        "a server that failed is asked again in every round"
    );
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
            "enough dots: the name as given first",
            "h.x",
            1,
            &["h.x", "h.x.a.test", "h.x.b.test"],
        ),
        (
            "more dots required",
            "h.x",
            2,
            &["h.x.a.test", "h.x.b.test", "h.x"],
        ),
        ("no dots required", "h", 0, &["h", "h.a.test", "h.b.test"]),
        ("a fully qualified name is used as given", "h.", 1, &["h"]),
        ("a fully qualified name needs no dots", "h.x.", 9, &["h.x"]),
    ];
    for (why, host, ndots, expected) in rows {
        let server = NameServer::start(|question, back| {
            back.send(&question.answer().rcode(NXDOMAIN).soa("test", 60, 60));
        });
        let mut names = Loop::new(HickoryConfig {
            // `..` is not a domain name and is skipped.
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

/// A server's answer for one candidate.
type Script = fn(&Question) -> super::server::Message;

/// All kinds of answers without addresses.
const NO_ADDRESS: &[(&str, Script)] = &[
    ("NXDOMAIN", |q| q.answer().rcode(NXDOMAIN)),
    ("NODATA", |q| q.answer().soa("test", 60, 60)),
    ("NODATA without an SOA", |q| q.answer()),
    ("a referral", |q| q.answer().ns("test", 60, "ns.test")),
    ("FORMERR", |q| q.answer().rcode(1)),
    ("SERVFAIL", |q| q.answer().rcode(SERVFAIL)),
    ("NOTIMP", |q| q.answer().rcode(4)),
    ("REFUSED", |q| q.answer().rcode(5)),
    ("NOTAUTH", |q| q.answer().rcode(9)),
    ("an address of another name", |q| {
        q.answer().address("x.test", 60, ip("192.0.2.66"))
    }),
    ("an alias that leads nowhere", |q| {
        q.answer().alias(&q.spelled, 60, "nowhere.test")
    }),
];

#[test]
fn whatever_a_candidate_ends_in_but_addresses_leads_on_in_the_search_list() {
    for (why, script) in NO_ADDRESS {
        for exists in ["h.a.test", "h.b.test", "h.c.test", "h", ""] {
            let server = NameServer::start(move |question, back| {
                back.send(&match question.name() {
                    name if name == exists => question.addresses(60, &[ip("192.0.2.1")]),
                    name if name == "nowhere.test" => question.answer().rcode(NXDOMAIN),
                    _ => script(&question),
                });
            });
            let mut names = Loop::new(HickoryConfig {
                search: ["a.test", "b.test", "c.test"].map(str::to_owned).into(),
                ..config(&[&server])
            });
            let answer = names.look_up("h", Family::V4).addresses;
            match exists {
                "" => assert_ne!(answer, Ok(vec![ip("192.0.2.1")]), "{why}"),
                _ => assert_eq!(answer, Ok(vec![ip("192.0.2.1")]), "{why} before {exists}"),
            }
        }
    }
}

#[test]
fn a_failure_is_told_only_if_no_candidate_has_an_address_and_as_glibc_chooses() {
    // The answers for the host as given and for its candidate below `a.test`, `ndots`, the expected
    // result, and its TTL in seconds.
    type Told = Result<(), Option<LookupError>>;
    let failed = || Err(None);
    let not_found = || Err(Some(LookupError::NotFound));
    let no_name: Script = |q| q.answer().rcode(NXDOMAIN).soa("test", 60, 60);
    let no_data: Script = |q| q.answer().soa("test", 60, 60);
    let broken: Script = |q| q.answer().rcode(SERVFAIL);
    let rows: &[(Script, Script, u8, Told, u64)] = &[
        (no_name, no_name, 1, not_found(), 60),
        (no_name, no_name, 5, not_found(), 60),
        (no_name, broken, 1, not_found(), 0),
        (no_name, broken, 5, failed(), 0),
        (broken, no_name, 1, failed(), 0),
        (broken, no_name, 5, failed(), 0),
        (no_data, broken, 1, Ok(()), 0),
        (no_data, broken, 5, Ok(()), 0),
        (broken, no_data, 1, failed(), 0),
        (broken, no_data, 5, Ok(()), 0),
        (no_name, no_data, 5, Ok(()), 60),
    ];
    for (n, (as_is, below, ndots, told, ttl)) in rows.iter().enumerate() {
        let (as_is, below) = (*as_is, *below);
        let server = NameServer::start(move |question, back| {
            back.send(&match question.name() == "h.x" {
                true => as_is(&question),
                false => below(&question),
            });
        });
        let mut names = Loop::new(HickoryConfig {
            search: vec!["a.test".to_owned()],
            ndots: *ndots,
            ..config(&[&server])
        });
        let answer = names.look_up("h.x", Family::V4);
        match (&answer.addresses, told) {
            (Ok(addrs), Ok(())) => assert!(addrs.is_empty(), "row {n}"),
            (Err(error), Err(Some(told))) => assert_eq!(error, told, "row {n}"),
            (Err(LookupError::Failed(why)), Err(None)) => {
                assert!(why.contains("SERVFAIL from"), "row {n}: {why}");
            }
            other => panic!("row {n}: {other:?}"),
        }
        assert_eq!(answer.ttl, Duration::from_secs(*ttl), "row {n}");
    }
}

#[test]
fn a_candidate_that_nobody_answers_for_does_not_hold_up_the_others() {
    for (attempts, at_last) in [(1, false), (2, true)] {
        let asked = std::sync::atomic::AtomicU32::new(0);
        let server = NameServer::start(move |question, back| match question.name().as_str() {
            "h" => back.send(&question.addresses(60, &[ip("192.0.2.1")])),
            // An attempt is three datagrams.
            "late.a.test" if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 2 => {
                back.send(&question.addresses(60, &[ip("192.0.2.2")]));
            }
            "h.a.test" | "late.a.test" => {}
            _ => back.send(&question.answer().rcode(NXDOMAIN)),
        });
        let mut names = Loop::new(HickoryConfig {
            search: vec!["a.test".to_owned()],
            timeout: Duration::from_millis(900),
            attempts,
            ..config(&[&server])
        });
        assert_eq!(names.look_up("h", Family::V4), found(&["192.0.2.1"], 60));
        assert_eq!(
            server.names(),
            ["h.a.test", "h"],
            "the next candidate is tried at once"
        );
        let answer = names.look_up("late", Family::V4).addresses;
        assert_eq!(answer.ok(), at_last.then(|| vec![ip("192.0.2.2")]));
    }
}

#[test]
fn the_root_may_stand_in_the_search_list_and_no_tld_be_asked_for() {
    type Names<'a> = &'a [&'a str];
    #[rustfmt::skip]
    let rows: &[(&str, Names<'_>, u8, bool, Names<'_>)] = &[
        ("h", &["."], 1, false, &["h"]),
        ("h", &[".", "a.test"], 1, false, &["h", "h.a.test"]),
        ("h", &["a.test", "."], 1, false, &["h.a.test", "h"]),
        ("h.x", &["a.test", "."], 1, false, &["h.x", "h.x.a.test"]),
        ("h.x", &["a.test", "a.test"], 2, false, &["h.x.a.test", "h.x"]),
        ("h", &["a.test"], 1, true, &["h.a.test"]),
        ("h.x", &["a.test"], 2, true, &["h.x.a.test", "h.x"]),
        ("h", &[], 1, true, &["h"]),
        ("h.", &["a.test"], 1, true, &["h"]),
    ];
    for (host, search, ndots, no_tld_query, expected) in rows {
        let server =
            NameServer::start(|question, back| back.send(&question.answer().rcode(NXDOMAIN)));
        let mut names = Loop::new(HickoryConfig {
            search: search.iter().map(|domain| (*domain).to_owned()).collect(),
            ndots: *ndots,
            no_tld_query: *no_tld_query,
            ..config(&[&server])
        });
        let answer = names.look_up(host, Family::V4).addresses;
        assert_eq!(answer, Err(LookupError::NotFound));
        assert_eq!(server.names(), *expected, "{host} {search:?}");
    }
}

#[test]
fn both_families_end_at_one_candidate() {
    // The family that `h.a.test` has, and the answer for the other one.
    let no_data: Script = |q| q.answer();
    let broken: Script = |q| q.answer().rcode(SERVFAIL);
    for (has, otherwise) in [
        (Family::V4, no_data),
        (Family::V4, broken),
        (Family::V6, no_data),
        (Family::V6, broken),
    ] {
        let server = NameServer::start(move |question, back| {
            let is_v4 = question.kind == super::server::A;
            back.send(&match question.name().as_str() {
                "h.a.test" if is_v4 != (has == Family::V4) => otherwise(&question),
                _ => question.addresses(60, &[ip("192.0.2.1"), ip("2001:db8::1")]),
            });
        });
        let config = HickoryConfig {
            search: vec!["a.test".to_owned()],
            ..config(&[&server])
        };
        // Both families concurrently, as the engine asks for them, and then each alone.
        let mut names = Loop::new(config.clone());
        let ids = [Family::V6, Family::V4].map(|family| (names.start("h", family), family));
        let mut answers = Vec::new();
        while answers.len() < 2 {
            let (id, answer) = names.turn_until(|this| this.hickory.take());
            let family = ids.iter().find(|(of, _)| *of == id).unwrap().1;
            answers.push((family, answer.addresses));
        }
        for family in [Family::V6, Family::V4] {
            answers.push((family, names.look_up("h", family).addresses));
        }
        for (family, answer) in answers {
            let is_there = answer.is_ok_and(|addrs| !addrs.is_empty());
            assert_eq!(is_there, family == has, "{has:?}");
        }
        assert_eq!(
            server.names().last().unwrap(),
            "h.a.test",
            "the name as given is not asked for"
        );
        assert_eq!(names.counts(), Counts::default());
    }
}

#[test]
fn a_family_whose_look_up_is_cancelled_is_waited_for_no_longer() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let answers_v6 = Arc::new(AtomicBool::new(false));
    let may_answer = Arc::clone(&answers_v6);
    let server = NameServer::start(move |question, back| match question.kind {
        super::server::A => back.send(&match question.name().as_str() {
            "h" => question.addresses(60, &[ip("192.0.2.1")]),
            _ => question.answer(),
        }),
        _ if may_answer.load(Ordering::Relaxed) => back.send(&question.answer()),
        _ => {}
    });
    let mut names = Loop::new(HickoryConfig {
        search: vec!["a.test".to_owned()],
        ..config(&[&server])
    });
    let v6 = names.start("h", Family::V6);
    let v4 = names.start("h", Family::V4);
    names.turn_until(|_| (server.seen().len() >= 3).then_some(()));
    assert!(
        names.hickory.take().is_none(),
        "the V4 lookup waits for the V6 lookup"
    );
    assert_eq!(server.names(), ["h.a.test"]);
    answers_v6.store(true, Ordering::Relaxed);
    names.hickory.cancel(v6);
    // The V4 lookup now asks for itself.
    let (id, answer) = names.turn_until(|this| this.hickory.take());
    assert_eq!((id, answer), (v4, found(&["192.0.2.1"], 60)));
}

#[test]
fn servers_are_asked_again_whatever_they_said() {
    for (why, script) in NO_ADDRESS.iter().filter(|(why, _)| {
        !matches!(
            *why,
            "NXDOMAIN" | "NODATA" | "NODATA without an SOA" | "an alias that leads nowhere"
        )
    }) {
        for attempts in 1..4 {
            let asked = std::sync::atomic::AtomicU32::new(0);
            let server = NameServer::start(move |question, back| {
                let before = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // The first attempt may take two datagrams, one of them without an OPT record.
                back.send(&match before < 2 * (attempts - 1) {
                    true => script(&question),
                    false => question.addresses(60, &[ip("192.0.2.1")]),
                });
            });
            // A second server that fails too, so that each round runs to its end.
            let other = refusing();
            let mut names = Loop::new(HickoryConfig {
                attempts: 2 * attempts,
                ..config(&[&server, &other])
            });
            let answer = names.look_up("h.test", Family::V4);
            assert_eq!(answer, found(&["192.0.2.1"], 60), "{why} {attempts}");
        }
    }
}

#[test]
fn servers_take_turns_where_that_is_wanted() {
    let servers = [honest(), honest(), honest()];
    let mut names = Loop::new(HickoryConfig {
        rotate: true,
        ..config(&[&servers[0], &servers[1], &servers[2]])
    });
    for host in MANY {
        assert_eq!(names.look_up(host, Family::V4), found(&["192.0.2.1"], 60));
    }
    assert!(servers.iter().all(|server| server.names().len() >= 2));
}

#[test]
fn ipv6_is_not_asked_for_where_that_is_not_wanted() {
    let server = honest();
    let mut names = Loop::new(HickoryConfig {
        ipv6: false,
        ..config(&[&server])
    });
    assert_eq!(names.look_up("h.test", Family::V6), found(&[], 0));
    assert_eq!(
        names.look_up("h.test", Family::V4),
        found(&["192.0.2.1"], 60)
    );
    assert!(
        server
            .seen()
            .iter()
            .all(|question| question.kind == super::server::A)
    );
}

#[test]
fn what_cannot_be_a_name_is_refused_and_nobody_asked() {
    let server = honest();
    let mut names = Loop::asking(&[&server]);
    let (label, long) = ("l".repeat(64), vec!["l".repeat(60); 5].join("."));
    for host in ["", ".", "a..b", ".a", "a..", &label, &long] {
        let answer = names.look_up(host, Family::V4);
        let why = format!("{host:?} is not a valid DNS name");
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
