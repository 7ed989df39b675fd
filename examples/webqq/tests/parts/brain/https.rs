//! The https steps arrive over TLS and all others do not. Secure cookies come with the former only.

use std::time::Duration;

use serde_json::json;

use super::client::{body, retcode};
use super::{Client, NUMBER, errors, server, stranger};
use crate::server::{Account, Answer, Call, Fault, Https, Scheme, Server, Settings, Step};

const D: &str = "d.web2.qq.com";

/// A client that is online, at a server that has TLS.
fn online() -> Client {
    let mut server = Server::new(Settings {
        https: Https::OverTls,
        ..Settings::default()
    });
    server.add_account(Account::sample(NUMBER));
    let mut client = Client::new(server, NUMBER);
    client.log_in();
    client.hold_poll();
    client
}

fn online_buddies(client: &mut Client) -> Answer {
    client.query(D, "/channel/get_online_buddies2", "")
}

fn log_out(client: &mut Client) -> Answer {
    client.query(D, "/channel/logout2", "ids=")
}

fn drop_cookie(name: &'static str) -> impl Fn(&mut Call) {
    move |call| {
        for (_, value) in call.headers.iter_mut().filter(|(n, _)| n == "cookie") {
            let pairs = value.split("; ").filter(|pair| !pair.starts_with(name));
            *value = pairs.collect::<Vec<_>>().join("; ");
        }
    }
}

#[test]
fn a_session_that_keeps_the_schemes_breaks_no_rule() {
    let mut client = online();
    client.friends();
    client.groups();
    client.heartbeat();
    assert_eq!(retcode(&online_buddies(&mut client)), 0);
    client.after(1.0);
    client.send("send_discu_msg2", json!({"did": 0}), "hi");
    assert_eq!(retcode(&log_out(&mut client)), 0);
    let [(what, false)] = errors(&client.server)[..] else {
        panic!("{:?}", errors(&client.server));
    };
    assert_eq!(what, "did is not of this login");
    let ledger = client.server.ledger();
    let by_step: Vec<_> = ledger.over_tls.iter().map(|(s, n)| (*s, *n)).collect();
    let expected = [
        Step::Sig,
        Step::PtLogin,
        Step::OnlineBuddies,
        Step::SendDiscu,
        Step::Logout,
    ];
    assert_eq!(by_step, expected.map(|step| (step, 1)));
    assert_eq!(ledger.requests_over_tls(), 5);
}

#[test]
fn a_call_by_the_other_scheme_is_refused() {
    type Row = (
        &'static str,
        fn(&mut Client) -> Answer,
        Scheme,
        &'static str,
    );
    let (plain, tls) = (Scheme::Http, Scheme::Https);
    let (wants_tls, wants_none) = (
        "is https, but came over http",
        "is http, but came over https",
    );
    let rows: &[Row] = &[
        ("sig", Client::sig, plain, wants_tls),
        ("captcha", Client::captcha, plain, wants_tls),
        ("ptlogin", |c| c.ptlogin_answer("!ABC"), plain, wants_tls),
        ("online buddies", online_buddies, plain, wants_tls),
        ("logout", log_out, plain, wants_tls),
        ("check", Client::check_answer, tls, wants_none),
        ("login2", Client::login2, tls, wants_none),
        ("friends", Client::friends, tls, wants_none),
        ("poll", Client::poll_answer, tls, wants_none),
        ("heartbeat", Client::heartbeat, tls, wants_none),
    ];
    for (why, step, scheme, what) in rows {
        let mut client = online();
        let before = client.server.ledger().logins;
        let scheme = *scheme;
        client.spoil(move |call| call.scheme = scheme);
        assert_eq!(step(&mut client).status, 403, "{why}");
        assert_eq!(errors(&client.server), [(*what, false)], "{why}");
        assert_eq!(client.server.ledger().logins, before, "{why}");
    }
}

#[test]
fn a_step_whose_scheme_is_not_known_comes_by_either() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let mut client = online();
        client.spoil(move |call| call.scheme = scheme);
        client.query(D, "/channel/get_offpic2", "file_path=/1&f_uin=7");
        let whats = errors(&client.server);
        assert!(
            whats.iter().all(|(what, _)| !what.contains("came over")),
            "{whats:?}"
        );
    }
}

#[test]
fn no_fault_excuses_the_wrong_scheme() {
    let mut client = online();
    let server = &mut client.server;
    server.arm(NUMBER, Step::OnlineBuddies, Fault::NoByte);
    online_buddies(&mut client);
    client.spoil(|call| call.scheme = Scheme::Http);
    online_buddies(&mut client);
    let what = "is https, but came over http";
    assert_eq!(errors(&client.server), [(what, false)]);
}

#[test]
fn a_call_that_waited_for_its_handshake_may_be_of_the_session_before() {
    // The connection was opened before the next login, shortly after it, long after it, and for an
    // earlier call.
    for (opened, provoked) in [
        (Some(0.0), true),
        (Some(5.1), true),
        (Some(6.0), false),
        (None, false),
    ] {
        let mut client = online();
        client.after(5.0);
        let old = client.psessionid.clone();
        client.login2();
        client.after(10.0);
        let present = std::mem::replace(&mut client.psessionid, old);
        let began = client.now.as_secs_f64() - 15.0;
        client.spoil(move |call| {
            call.opened = opened.map(|at| Duration::from_secs_f64(began + at));
        });
        online_buddies(&mut client);
        client.psessionid = present;
        let what = "a session that is not the present one";
        assert_eq!(errors(&client.server), [(what, provoked)], "{opened:?}");
    }
}

#[test]
fn a_server_without_tls_is_asked_over_http() {
    let mut client = stranger();
    client.spoil(|call| call.scheme = Scheme::Https);
    assert_eq!(client.sig().status, 403);
    let what = "is http, but came over https";
    assert_eq!(errors(&client.server), [(what, false)]);
}

#[test]
fn a_secure_cookie_is_set_over_tls_and_wanted_there_only() {
    let mut client = online();
    let safe_key = client.cookie("safe_key");
    assert!(!safe_key.is_empty());
    client.spoil(drop_cookie("safe_key"));
    assert_eq!(retcode(&online_buddies(&mut client)), 103);
    client.spoil(move |call| {
        let cookies = call.headers.iter_mut().find(|(n, _)| n == "cookie");
        let (_, value) = cookies.unwrap();
        assert!(!value.contains("safe_key"), "{value}");
        *value = format!("{value}; safe_key={safe_key}");
    });
    let refused = client.friends();
    assert_eq!(retcode(&refused), 100_101, "{}", body(&refused));
    assert_eq!(
        errors(&client.server),
        [
            ("cookie safe_key is missing or wrong", false),
            (
                "cookie safe_key does not belong to s.web2.qq.com/api/get_user_friends2",
                false
            ),
        ]
    );
}

#[test]
fn a_server_without_tls_sets_no_secure_cookie() {
    let mut client = Client::new(server(), NUMBER);
    client.log_in();
    assert_eq!(client.cookie("safe_key"), "");
    assert_eq!(client.server.ledger().requests_over_tls(), 0);
}
