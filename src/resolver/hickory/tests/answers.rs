//! How genuine and forged answers are interpreted.

use std::net::Ipv4Addr;

use super::server::{A, FORMERR, Message, NXDOMAIN, Question, REFUSED, SERVFAIL, Transport};
use super::*;

#[test]
fn each_answer_has_its_verdict() {
    type Script = fn(&Question) -> Message;
    let rows: &[(&str, Script, LookupAnswer)] = &[
        (
            "addresses with their TTL",
            |q| q.addresses(60, &[ip("192.0.2.1"), ip("192.0.2.2")]),
            found(&["192.0.2.1", "192.0.2.2"], 60),
        ),
        (
            "the smallest TTL of several",
            |q| {
                q.addresses(60, &[ip("192.0.2.1")])
                    .address(&q.spelled, 7, ip("192.0.2.2"))
            },
            found(&["192.0.2.1", "192.0.2.2"], 7),
        ),
        (
            "a TTL of zero",
            |q| q.addresses(0, &[ip("192.0.2.1")]),
            found(&["192.0.2.1"], 0),
        ),
        (
            "the largest TTL there is",
            |q| q.addresses(i32::MAX as u32, &[ip("192.0.2.1")]),
            found(&["192.0.2.1"], i32::MAX as u64),
        ),
        (
            "a TTL above it counts as zero",
            |q| q.addresses(1 << 31, &[ip("192.0.2.1")]),
            found(&["192.0.2.1"], 0),
        ),
        (
            "a chain of aliases within the answer, with the smallest TTL on it",
            |q| {
                q.answer()
                    .alias(&q.spelled, 50, "b.test")
                    .alias("b.test", 40, "c.test")
                    .address("c.test", 60, ip("192.0.2.1"))
            },
            found(&["192.0.2.1"], 40),
        ),
        (
            "a chain out of order",
            |q| {
                q.answer()
                    .address("c.test", 30, ip("192.0.2.1"))
                    .alias(&q.spelled, 50, "c.test")
            },
            found(&["192.0.2.1"], 30),
        ),
        (
            "addresses of other names are ignored",
            |q| {
                q.addresses(60, &[ip("192.0.2.1")])
                    .address("victim.test", 60, ip("192.0.2.66"))
            },
            found(&["192.0.2.1"], 60),
        ),
        (
            "NXDOMAIN is kept for the SOA's minimum",
            |q| q.answer().rcode(NXDOMAIN).soa("test", 300, 30),
            LookupAnswer::failed(LookupError::NotFound).kept_for(Duration::from_secs(30)),
        ),
        (
            "NXDOMAIN is kept for the SOA's own TTL, if smaller",
            |q| q.answer().rcode(NXDOMAIN).soa("test", 20, 30),
            LookupAnswer::failed(LookupError::NotFound).kept_for(Duration::from_secs(20)),
        ),
        (
            "NXDOMAIN without an SOA is not kept",
            |q| q.answer().rcode(NXDOMAIN),
            LookupAnswer::failed(LookupError::NotFound),
        ),
        (
            "NODATA",
            |q| q.answer().soa("test", 300, 30),
            found(&[], 30),
        ),
        (
            "NODATA without an SOA is not kept",
            |q| q.answer(),
            found(&[], 0),
        ),
        (
            "NODATA at the end of an alias",
            |q| match q.name().as_str() {
                "h.test" => q.answer().alias(&q.spelled, 50, "b.test"),
                _ => q.answer().soa("test", 300, 30),
            },
            found(&[], 30),
        ),
        (
            "an alias to a name that does not exist",
            |q| match q.name().as_str() {
                "h.test" => q.answer().rcode(NXDOMAIN).alias(&q.spelled, 50, "b.test"),
                _ => q.answer().rcode(NXDOMAIN).soa("test", 300, 30),
            },
            LookupAnswer::failed(LookupError::NotFound).kept_for(Duration::from_secs(30)),
        ),
        (
            "a chain that the server does not follow",
            |q| match q.name().as_str() {
                "h.test" => q.answer().alias(&q.spelled, 20, "b.test"),
                "b.test" => q.answer().alias(&q.spelled, 40, "c.test"),
                _ => q.addresses(60, &[ip("192.0.2.1")]),
            },
            found(&["192.0.2.1"], 20),
        ),
        (
            "circular aliases have no address",
            |q| {
                q.answer()
                    .alias(&q.spelled, 50, "b.test")
                    .alias("b.test", 50, &q.spelled)
            },
            found(&[], 0),
        ),
        (
            "an alias to itself has no address",
            |q| q.answer().alias(&q.spelled, 50, &q.spelled),
            found(&[], 0),
        ),
        (
            "an endless chain has no address",
            |q| {
                q.answer()
                    .alias(&q.spelled, 50, &format!("x{}", &q.spelled))
            },
            found(&[], 0),
        ),
    ];
    for (why, script, expected) in rows {
        let script = *script;
        let server = NameServer::start(move |question, back| back.send(&script(&question)));
        let mut names = Loop::asking(&[&server]);
        assert_eq!(names.look_up("h.test", Family::V4), *expected, "{why}");
    }
}

#[test]
fn a_refusal_names_the_server_and_its_reason() {
    let referral = 0xffff;
    let rows = [
        (SERVFAIL, "SERVFAIL from"),
        (REFUSED, "REFUSED from"),
        (FORMERR, "FORMERR from"),
        (4, "NOTIMP from"),
        (9, "NOTAUTH from"),
        (6, "RCODE 6 from"),
        (12, "RCODE 12 from"),
        (referral, "a referral from"),
    ];
    for (code, why) in rows {
        let server = NameServer::start(move |question, back| {
            back.send(&match code == referral {
                true => question.answer().ns("test", 60, "ns.test"),
                false => question.answer().rcode(code),
            });
        });
        let mut names = Loop::asking(&[&server]);
        let expected = failed(format!("{why} {}", server.addr));
        assert_eq!(names.look_up("h.test", Family::V4), expected);
    }
}

#[test]
fn forgeries_are_not_seen_and_the_truth_is_taken() {
    type Forge = fn(&Back, &Question, Message);
    let forgeries: &[(&str, Forge)] = &[
        ("another identifier", |back, _, lie| {
            back.send(&Message {
                id: lie.id ^ 1,
                ..lie
            });
        }),
        ("another question", |back, _, lie| {
            back.send(&Message {
                question: Some(("other.test".into(), A)),
                ..lie
            });
        }),
        ("another type", |back, q, lie| {
            back.send(&Message {
                question: Some((q.spelled.clone(), 16)),
                ..lie
            });
        }),
        ("no question", |back, _, lie| {
            back.send(&Message {
                question: None,
                ..lie
            })
        }),
        ("another port", |back, _, lie| {
            back.send_from_elsewhere(&lie)
        }),
        ("noise", |back, _, _| {
            back.send_bytes(b"noise, with an identifier that does not fit")
        }),
        ("one byte", |back, _, _| back.send_bytes(b"?")),
        ("nothing", |back, _, _| back.send_bytes(b"")),
    ];
    for (why, forge) in forgeries {
        let forge = *forge;
        let server = NameServer::start(move |question, back| {
            forge(
                &back,
                &question,
                question.addresses(60, &[ip("192.0.2.66")]),
            );
            back.send(&question.addresses(60, &[ip("192.0.2.1")]));
        });
        let mut names = Loop::asking(&[&server]);
        let answer = names.look_up("h.test", Family::V4);
        assert_eq!(answer, found(&["192.0.2.1"], 60), "{why}");
    }
}

#[test]
fn garbage_from_the_server_itself_ends_the_attempt_and_not_the_look_up() {
    type Spoil = fn(Message) -> Vec<u8>;
    let spoil: &[(&str, Spoil)] = &[
        ("a question", |m| {
            Message {
                flags: m.flags & 0x7fff,
                ..m
            }
            .bytes()
        }),
        ("a header alone", |m| m.bytes()[..12].to_vec()),
        ("cut short", |m| {
            let bytes = m.bytes();
            bytes[..bytes.len() - 2].to_vec()
        }),
    ];
    for (why, spoil) in spoil {
        let spoil = *spoil;
        let script = move |question: Question, back: Back, spoiled: bool| {
            let answer = question.addresses(60, &[ip("192.0.2.1")]);
            if spoiled {
                back.send_bytes(&spoil(answer))
            } else {
                back.send(&answer)
            }
        };
        let always = NameServer::start(move |question, back| script(question, back, true));
        let mut names = Loop::asking(&[&always]);
        let LookupAnswer {
            addresses: Err(LookupError::Failed(words)),
            ..
        } = names.look_up("h.test", Family::V4)
        else {
            panic!("{why}: expected a failure")
        };
        let expected = format!("unusable answer from {}: ", always.addr);
        assert!(words.starts_with(&expected), "{why}: {words}");

        let asked = std::sync::atomic::AtomicUsize::new(0);
        let once = NameServer::start(move |question, back| {
            let before = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            script(question, back, before == 0);
        });
        let mut names = Loop::new(HickoryConfig {
            attempts: 2,
            ..config(&[&once])
        });
        let answer = names.look_up("h.test", Family::V4);
        assert_eq!(answer, found(&["192.0.2.1"], 60), "{why}, once");
    }
}

#[test]
fn questions_have_a_spelling_of_their_own() {
    let server = honest();
    let mut names = Loop::asking(&[&server]);
    let host = "a-name-of-many-letters.in-the-zone.test";
    for _ in 0..8 {
        assert_eq!(names.look_up(host, Family::V4), found(&["192.0.2.1"], 60));
    }
    let seen = server.seen();
    assert!(seen.iter().all(|question| question.name() == host));
    let mut spellings: Vec<_> = seen.iter().map(|question| &question.spelled).collect();
    spellings.sort_unstable();
    spellings.dedup();
    assert!(spellings.len() > 4, "{spellings:?}");
    let mut ids: Vec<_> = seen.iter().map(|question| question.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 4, "{ids:?}");
}

#[test]
fn an_answer_in_another_spelling_is_asked_for_again_over_tcp() {
    let server = NameServer::start(|mut question, back| {
        question.spelled = question.name();
        back.send(&question.addresses(60, &[ip("192.0.2.1")]));
    });
    let mut names = Loop::asking(&[&server]);
    let host = "a-name-of-many-letters.in-the-zone.test";
    assert_eq!(names.look_up(host, Family::V4), found(&["192.0.2.1"], 60));
    let mut transports: Vec<_> = server.seen().iter().map(|q| q.transport).collect();
    // On a busy host a question may be repeated.
    transports.dedup();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp]);
}

#[test]
fn what_does_not_fit_into_a_datagram_comes_over_tcp() {
    let ips: Vec<IpAddr> = (0..1000u32)
        .map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)))
        .collect();
    let many = ips.clone();
    let server = NameServer::start(move |question, back| {
        back.send(&match question.transport {
            Transport::Udp => question.answer().truncated(),
            Transport::Tcp => question.addresses(60, &many),
        });
    });
    let mut names = Loop::asking(&[&server]);
    for _ in 0..3 {
        let answer = names.look_up("h.test", Family::V4);
        assert_eq!(answer.addresses.as_ref(), Ok(&ips));
        assert_eq!(answer.ttl, Duration::from_secs(60));
    }
    assert_eq!(names.counts().sockets, 1, "one connection for all of them");
}

#[test]
fn a_name_is_told_apart_from_the_way_to_it_where_tcp_is_refused() {
    let server = NameServer::udp_only(|question, back| back.send(&question.answer().truncated()));
    let mut names = Loop::asking(&[&server]);
    let LookupAnswer {
        addresses: Err(LookupError::Failed(why)),
        ..
    } = names.look_up("h.test", Family::V4)
    else {
        panic!("expected a failure, since the answer is truncated and TCP is refused")
    };
    let start = format!(
        "unusable answer from {}: truncated, and TCP failed: ",
        server.addr
    );
    assert!(why.starts_with(&start), "{why}");
}

#[test]
fn a_server_that_does_not_know_edns_is_asked_without() {
    for code in [FORMERR, 4] {
        let server = NameServer::start(move |question, back| {
            back.send(&match question.edns {
                true => question.answer().rcode(code),
                false => question.addresses(60, &[ip("192.0.2.1")]),
            });
        });
        let mut names = Loop::asking(&[&server]);
        for _ in 0..3 {
            assert_eq!(
                names.look_up("h.test", Family::V4),
                found(&["192.0.2.1"], 60)
            );
        }
        let mut with_edns: Vec<_> = server.seen().iter().map(|q| q.edns).collect();
        // On a busy host a question may be repeated.
        with_edns.dedup();
        assert_eq!(with_edns, [true, false], "EDNS is not tried again");
    }
}

#[test]
fn a_server_that_stumbles_over_edns_is_asked_without() {
    type Script = fn(&Question, &Back);
    #[rustfmt::skip]
    let rows: &[(&str, Script)] = &[
        ("no answer", |_, _| {}),
        ("SERVFAIL", |q, back| back.send(&q.answer().rcode(SERVFAIL))),
        ("REFUSED", |q, back| back.send(&q.answer().rcode(REFUSED))),
        ("FORMERR", |q, back| back.send(&q.answer().rcode(FORMERR))),
        ("NOTIMP", |q, back| back.send(&q.answer().rcode(4))),
        ("NOTAUTH", |q, back| back.send(&q.answer().rcode(9))),
        ("a bare header", |q, back| back.send_bytes(&Message { question: None, ..q.answer().rcode(FORMERR) }.bytes())),
        ("a bare header that says SERVFAIL", |q, back| back.send_bytes(&Message { question: None, ..q.answer().rcode(SERVFAIL) }.bytes())),
        ("BADVERS", |q, back| back.send_bytes(&behind_opt(q, 1, false))),
        ("the answer after the OPT record", |q, back| back.send_bytes(&behind_opt(q, 0, true))),
        ("noise", |q, back| back.send_bytes(&[&q.answer().bytes()[..6], &[0xff; 40]].concat())),
        ("cut short", |q, back| { let bytes = q.addresses(60, &[ip("192.0.2.66")]).bytes(); back.send_bytes(&bytes[..bytes.len() - 3]) }),
        ("the question echoed", |q, back| back.send_bytes(&Message { flags: 0x0100, ..q.answer() }.bytes())),
    ];
    for (why, script) in rows {
        let script = *script;
        let server = NameServer::start(move |question, back| {
            if question.edns {
                script(&question, &back)
            } else {
                back.send(&question.addresses(60, &[ip("192.0.2.1")]))
            }
        });
        let mut names = Loop::asking(&[&server]);
        for _ in 0..3 {
            let answer = names.look_up("h.test", Family::V4);
            assert_eq!(answer, found(&["192.0.2.1"], 60), "{why}");
        }
        let mut with_edns: Vec<_> = server.seen().iter().map(|q| q.edns).collect();
        with_edns.dedup();
        assert_eq!(with_edns, [true, false], "{why}: EDNS is not tried again");
    }
}

/// A response whose additional OPT record precedes its answer, as sent by a server that appends to
/// the question it received.
fn behind_opt(question: &Question, extended_code: u8, has_answer: bool) -> Vec<u8> {
    let mut message = question.answer().bytes();
    let opt = [0, 0, 41, 4, 208, extended_code, 0, 0, 0, 0, 0];
    message.extend(opt);
    message[11] = 1;
    if has_answer {
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    }
    message
}

#[test]
fn a_server_that_speaks_edns_is_not_suspected_of_stumbling_over_it() {
    let server = NameServer::start(|question, back| {
        back.send(&match question.name().as_str() {
            "broken.test" => question.answer().rcode(SERVFAIL),
            _ => question.addresses(60, &[ip("192.0.2.1")]),
        });
    });
    let mut names = Loop::asking(&[&server]);
    for _ in 0..3 {
        assert_eq!(
            names.look_up("h.test", Family::V4),
            found(&["192.0.2.1"], 60)
        );
        let expected = failed(format!("SERVFAIL from {}", server.addr));
        assert_eq!(names.look_up("broken.test", Family::V4), expected);
    }
    let broken = server
        .seen()
        .into_iter()
        .filter(|q| q.name() == "broken.test");
    let mut repeated: Vec<_> = broken.collect();
    // On a busy host a question may be repeated without an OPT record.
    repeated.retain(|q| q.edns);
    assert_eq!(repeated.len(), 3);
}

#[test]
fn of_a_truncated_answer_the_records_are_used_where_there_is_no_other() {
    let truncated = |q: &Question| q.addresses(60, &[ip("192.0.2.1")]).truncated();
    type OverTcp = fn(&Question, &Back);
    let answers: &[(&str, OverTcp)] = &[
        ("closed", |_, back| back.close()),
        ("no answer", |_, _| {}),
        ("SERVFAIL", |q, back| back.send(&q.answer().rcode(SERVFAIL))),
        ("truncated again", |q, back| {
            back.send(&q.answer().truncated())
        }),
        ("noise", |_, back| back.send_bytes(&[0xff; 30])),
    ];
    let mut servers = vec![(
        "refused",
        NameServer::udp_only(move |question, back| back.send(&truncated(&question))),
    )];
    for (why, tcp) in answers {
        let tcp = *tcp;
        let server = NameServer::start(move |question, back| match question.transport {
            Transport::Udp => back.send(&truncated(&question)),
            Transport::Tcp => tcp(&question, &back),
        });
        servers.push((why, server));
    }
    for (why, server) in servers {
        let mut names = Loop::asking(&[&server]);
        let answer = names.look_up("h.test", Family::V4);
        assert_eq!(answer, found(&["192.0.2.1"], 60), "{why}");
    }
}

#[test]
fn an_answer_that_was_cut_within_a_record_comes_over_tcp() {
    let server = NameServer::start(|question, back| match question.transport {
        Transport::Udp => {
            let bytes = question
                .addresses(60, &[ip("192.0.2.1")])
                .truncated()
                .bytes();
            back.send_bytes(&bytes[..bytes.len() - 2]);
        }
        Transport::Tcp => back.send(&question.addresses(60, &[ip("192.0.2.2")])),
    });
    let mut names = Loop::asking(&[&server]);
    assert_eq!(
        names.look_up("h.test", Family::V4),
        found(&["192.0.2.2"], 60)
    );
}

#[test]
fn everything_goes_over_tcp_where_that_is_wanted() {
    let server = NameServer::start(|question, back| match question.transport {
        Transport::Udp => panic!("no question is asked over UDP"),
        Transport::Tcp => back.send(&question.addresses(60, &[ip("192.0.2.1")])),
    });
    let mut names = Loop::new(HickoryConfig {
        tcp_only: true,
        ..config(&[&server])
    });
    for _ in 0..3 {
        assert_eq!(
            names.look_up("h.test", Family::V4),
            found(&["192.0.2.1"], 60)
        );
    }
    assert_eq!(names.counts().sockets, 1, "one connection for all of them");
    assert!(
        server
            .seen()
            .iter()
            .all(|q| q.transport == Transport::Tcp && !q.edns)
    );
}

#[test]
fn a_server_that_keeps_no_letters_and_has_no_tcp_is_asked_in_plain_ones() {
    let server = NameServer::udp_only(|mut question, back| {
        question.spelled = question.name();
        back.send(&question.addresses(60, &[ip("192.0.2.1")]));
    });
    let mut names = Loop::asking(&[&server]);
    let host = "a-name-of-many-letters.in-the-zone.test";
    for _ in 0..3 {
        assert_eq!(names.look_up(host, Family::V4), found(&["192.0.2.1"], 60));
    }
    let plain = server.seen().iter().filter(|q| q.spelled == host).count();
    assert!(plain >= 3, "the given spelling is used from then on");
}

#[test]
fn an_answer_that_is_larger_than_was_asked_for_is_read() {
    let ips: Vec<IpAddr> = (0..100)
        .map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)))
        .collect();
    let many = ips.clone();
    let server = NameServer::udp_only(move |question, back| {
        if !question.edns {
            back.send(&question.addresses(60, &many));
        }
    });
    let mut names = Loop::asking(&[&server]);
    assert_eq!(names.look_up("h.test", Family::V4).addresses, Ok(ips));
}

#[test]
fn nothing_is_kept_here() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let server = NameServer::start(move |question, back| {
        let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        back.send(&match question.name().as_str() {
            "h.test" => question.addresses(60 + n, &[ip("192.0.2.1")]),
            _ => question.answer().rcode(NXDOMAIN).soa("test", 60 + n, 600),
        });
    });
    let mut names = Loop::asking(&[&server]);
    let mut last = Duration::ZERO;
    for host in [
        "h.test", "h.test", "h.test", "no.test", "no.test", "no.test",
    ] {
        let answer = names.look_up(host, Family::V4);
        assert!(answer.ttl > last, "{host} is asked for again");
        last = answer.ttl;
    }
}
