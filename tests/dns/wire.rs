//! The whole engine with a scripted name server. Each kind of answer is tested in the resolver's
//! own tests; this file tests the effect on requests.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use httpstream::resolver::LookupError;
use httpstream::{ErrorKind, Phase, Sent};

use super::server::{A, Back, Message, NXDOMAIN, NameServer, Question, SERVFAIL, Transport};
use super::*;

/// A server that resolves every name to loopback.
fn honest() -> NameServer {
    NameServer::start(|question, back| back.send(&question.addresses(60, &[LOOPBACK])))
}

#[test]
fn a_name_is_asked_for_in_both_families_and_found() {
    let (http, names) = (http(), honest());
    let mut bench = bench(&[names.addr], |_| {});
    let got = bench.fetch_ok(get("h.test", &http));
    assert_eq!(got.text(), "a");
    let mut kinds: Vec<_> = names.seen().iter().map(|q| (q.name(), q.kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            ("h.test".to_owned(), A),
            ("h.test".to_owned(), server::AAAA)
        ]
    );
    bench.assert_empty();
}

#[test]
fn fifty_names_at_once_lead_each_to_its_own_server() {
    let servers: Vec<_> = (1..=50)
        .map(|n| {
            Server::on(&format!("127.0.1.{n}:0"), move |peer| {
                while peer.answer(&ok(&n.to_string())) {}
            })
        })
        .collect();
    let names = NameServer::start(|question, back| {
        let number: u8 = question.name()[1..]
            .split('.')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        back.send(&question.addresses(60, &[IpAddr::from([127, 0, 1, number])]));
    });
    let mut bench = bench(&[names.addr], |_| {});
    for (n, server) in (1..=50).zip(&servers) {
        bench.submit(get(&format!("h{n}.test"), server));
    }
    bench.replies(50);
    let mut texts: Vec<u32> = bench
        .log
        .texts()
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    texts.sort_unstable();
    assert_eq!(texts, (1..=50).collect::<Vec<_>>());
    bench.assert_empty();
}

#[test]
fn what_is_known_of_a_failure_is_in_the_error() {
    let names = NameServer::start(|question, back| {
        back.send(&match question.name().as_str() {
            "missing.test" => question.answer().rcode(NXDOMAIN).soa("test", 60, 60),
            "empty.test" => question.answer().soa("test", 60, 60),
            _ => question.answer().rcode(SERVFAIL),
        });
    });
    let http = http();
    let mut bench = bench(&[names.addr], |_| {});
    for (host, expected) in [
        ("missing.test", LookupError::NotFound),
        ("empty.test", LookupError::NoAddress),
        (
            "broken.test",
            LookupError::Failed(format!("SERVFAIL from {}", names.addr)),
        ),
    ] {
        let error = bench.fetch_err(get(host, &http));
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Resolve, Phase::Resolve)
        );
        assert_eq!(error.request_sent(), Sent::No);
        assert_eq!(error.lookup(), Some(&expected));
        assert!(
            format!("{error:#}").contains(&expected.to_string()),
            "{error:#}"
        );
    }
    bench.assert_empty();
}

#[test]
fn servers_that_are_all_unresponsive_are_named_before_the_deadline_comes() {
    let (http, servers) = (
        http(),
        [NameServer::unresponsive(), NameServer::unresponsive()],
    );
    let both = [servers[0].addr, servers[1].addr];
    let mut bench = bench(&both, |names| {
        names.timeout = Duration::from_millis(700);
    });
    let error = bench.fetch_err(get("h.test", &http));
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Resolve)
    );
    let expected = LookupError::Timeout(format!("{}, {}", both[0], both[1]));
    assert_eq!(error.lookup(), Some(&expected));
    bench.assert_empty();
}

#[test]
fn the_resolve_deadline_names_the_servers_it_waited_for() {
    let (http, unresponsive) = (http(), NameServer::unresponsive());
    let mut bench = bench(&[unresponsive.addr], |names| {
        names.timeout = Duration::from_secs(60);
    });
    let url = format!("http://h.test:{}/", http.addr.port());
    let request = Request::get(&url)
        .timeouts(|t| t.resolve = Some(Duration::from_millis(100)))
        .build()
        .unwrap();
    let error = bench.fetch_err(request);
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Resolve)
    );
    let expected = format!("no answer from {}", unresponsive.addr);
    assert!(format!("{error:#}").contains(&expected), "{error:#}");
    bench.assert_empty();
}

#[test]
fn a_family_that_is_never_answered_does_not_hold_up_the_other() {
    let http = http();
    let names = NameServer::start(|question, back| {
        if question.kind == A {
            back.send(&question.addresses(60, &[LOOPBACK]));
        }
    });
    let mut bench = bench(&[names.addr], |names| {
        names.timeout = Duration::from_secs(60);
    });
    // Waiting for it would take longer than the test may.
    assert_eq!(bench.fetch_ok(get("h.test", &http)).text(), "a");
    bench.assert_empty();
}

#[test]
fn answers_over_tcp_lead_as_far() {
    let http = http();
    let names = NameServer::start(|question, back| {
        back.send(&match question.transport {
            Transport::Udp => question.answer().truncated(),
            Transport::Tcp => question.addresses(60, &[LOOPBACK]),
        });
    });
    let mut bench = bench(&[names.addr], |_| {});
    for n in 0..20 {
        bench.submit(get(&format!("h{n}.test"), &http));
    }
    bench.replies(20);
    assert!(
        bench.log.replies.iter().all(Result::is_ok),
        "{:?}",
        bench.log
    );
    bench.assert_empty();
}

#[test]
fn a_forged_answer_leads_nowhere() {
    let http = http();
    // A server on the same port, which only a forged answer leads to.
    let liar = Server::on(&format!("127.0.0.66:{}", http.addr.port()), |peer| {
        while peer.answer(&ok("lie")) {}
    });
    let names = NameServer::start(|question, back| {
        let lie = question.addresses(60, &[IpAddr::from([127, 0, 0, 66])]);
        back.send_from_elsewhere(&lie);
        back.send(&Message {
            id: lie.id.wrapping_add(1),
            ..lie.clone()
        });
        back.send(&Message {
            question: Some(("other.test".into(), A)),
            ..lie.clone()
        });
        back.send_bytes(b"lies");
        back.send(&question.addresses(60, &[LOOPBACK]));
    });
    let mut bench = bench(&[names.addr], |_| {});
    assert_eq!(bench.fetch_ok(get("h.test", &http)).text(), "a");
    assert!(liar.so_far().is_empty());
    bench.assert_empty();
}

#[test]
fn a_thousand_requests_cancelled_while_names_are_asked_for_leave_nothing() {
    let (http, unresponsive) = (http(), NameServer::unresponsive());
    let mut bench = bench(&[unresponsive.addr], |names| {
        names.timeout = Duration::from_secs(60);
    });
    let ids: Vec<_> = (0..1000)
        .map(|n| bench.submit(get(&format!("h{n}.test"), &http)))
        .collect();
    bench.until("questions", |_, _| !unresponsive.seen().is_empty());
    for id in ids {
        assert!(bench.engine.cancel(id));
    }
    bench.replies(1000);
    for reply in &bench.log.replies {
        assert_eq!(reply.as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
    }
    bench.assert_empty();
}

#[test]
fn engines_on_one_thread_and_on_others_have_each_their_own_resolver() {
    let names = honest();
    let both = || {
        let http = http();
        let mut benches = [bench(&[names.addr], |_| {}), bench(&[names.addr], |_| {})];
        for n in 0..20 {
            for bench in &mut benches {
                bench.submit(get(&format!("h{n}.test"), &http));
            }
        }
        for mut bench in benches {
            bench.replies(20);
            assert!(
                bench.log.replies.iter().all(Result::is_ok),
                "{:?}",
                bench.log
            );
            bench.assert_empty();
        }
    };
    thread::scope(|scope| {
        scope.spawn(both);
        both();
    });
}

#[test]
fn an_engine_that_is_dropped_with_questions_in_flight_is_not_missed() {
    let (http, unresponsive) = (http(), NameServer::unresponsive());
    let mut bench = bench(&[unresponsive.addr], |_| {});
    for n in 0..10 {
        bench.submit(get(&format!("h{n}.test"), &http));
    }
    bench.until("questions", |_, _| !unresponsive.seen().is_empty());
    drop(bench);
}

#[test]
fn an_answer_that_comes_after_its_request_is_gone_is_nobodys() {
    let http = http();
    let held: Arc<Mutex<Vec<(Question, Back)>>> = Arc::default();
    let holds = Arc::clone(&held);
    let names = NameServer::start(move |question, back| match question.name().as_str() {
        "late.test" => holds.lock().unwrap().push((question, back)),
        _ => back.send(&question.addresses(60, &[LOOPBACK])),
    });
    let mut bench = bench(&[names.addr], |_| {});
    let late = bench.submit(get("late.test", &http));
    bench.until("a question", |_, _| !held.lock().unwrap().is_empty());
    bench.engine.cancel(late);
    bench.replies(1);
    for (question, back) in held.lock().unwrap().drain(..) {
        back.send(&question.addresses(60, &[LOOPBACK]));
    }
    assert_eq!(bench.fetch_ok(get("h.test", &http)).text(), "a");
    bench.assert_empty();
}

/// Set in the child, to the addresses of the name server and of the HTTP server.
const CHILD: &str = "HTTPSTREAM_TEST_DNS";

#[test]
fn a_hundred_names_are_found_by_a_process_with_forty_descriptors() {
    if let Ok(addrs) = std::env::var(CHILD) {
        return with_few_descriptors(&addrs);
    }
    let (http, names) = (http(), honest());
    let child = Command::new("sh")
        .arg("-c")
        .arg("ulimit -n 40 && exec \"$0\" --exact wire::a_hundred_names_are_found_by_a_process_with_forty_descriptors --nocapture")
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, format!("{} {}", names.addr, http.addr.port()))
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && out.contains("completed"), "{out}");
}

fn with_few_descriptors(addrs: &str) {
    let (names, port) = addrs.split_once(' ').unwrap();
    let mut bench = bench(&[names.parse().unwrap()], |_| {});
    for n in 0..100 {
        let url = format!("http://h{n}.test:{port}/");
        bench.submit(Request::get(&url).build().unwrap());
    }
    bench.replies(100);
    for reply in &bench.log.replies {
        assert!(reply.is_ok(), "{reply:?}");
    }
    bench.assert_empty();
    println!("completed: {:?}", bench.stats());
}
