//! Each rule, broken once: the answer, and the entry in the ledger.

use serde_json::{Value, json};

use super::client::{body, json, retcode, unheld};
use super::{Client, NUMBER, errors, online, stranger};
use crate::server::{Answer, Call, Fault, Step};

fn drop_header(name: &'static str) -> impl Fn(&mut Call) {
    move |call| call.headers.retain(|(n, _)| n != name)
}

fn drop_cookie(name: &'static str) -> impl Fn(&mut Call) {
    move |call| {
        for (_, value) in call.headers.iter_mut().filter(|(n, _)| n == "cookie") {
            let pairs: Vec<&str> = value
                .split("; ")
                .filter(|pair| !pair.starts_with(name))
                .collect();
            *value = pairs.join("; ");
        }
    }
}

fn set_query(name: &'static str, value: &'static str) -> impl Fn(&mut Call) {
    move |call| {
        let pairs = call.query.iter_mut().filter(|(n, _)| n == name);
        pairs.for_each(|(_, v)| *v = value.into());
    }
}

/// Changes the JSON of `r`.
fn set_r(name: &'static str, value: Value) -> impl Fn(&mut Call) {
    move |call| {
        let r = call.form.iter_mut().find(|(n, _)| n == "r").unwrap();
        let mut object: Value = serde_json::from_str(&r.1).unwrap();
        object[name] = value.clone();
        r.1 = object.to_string();
    }
}

type Row = (
    &'static str,
    fn(&mut Client) -> Answer,
    Box<dyn Fn(&mut Call)>,
    i64,
    &'static str,
);

/// Runs each row on a client of its own. A row consists of a step, a change to its call, the
/// retcode or status, and the error.
fn refuse(rows: Vec<Row>) {
    for (why, step, spoil, expected, what) in rows {
        let mut client = online();
        client.alice(); // a client has normally loaded its lists
        client.spoil(spoil);
        let answer = step(&mut client);
        let seen = match retcode(&answer) {
            -1 => i64::from(answer.status),
            code => code,
        };
        assert_eq!(seen, expected, "{why}: {}", body(&answer));
        assert_eq!(errors(&client.server), [(what, false)], "{why}");
    }
}

#[test]
fn calls_of_lists_are_refused() {
    let friends: fn(&mut Client) -> Answer = Client::friends;
    refuse(vec![
        (
            "wrong method",
            friends,
            Box::new(|call| call.method = "PUT".into()),
            405,
            "wrong method",
        ),
        (
            "no Referer",
            friends,
            Box::new(drop_header("referer")),
            100_101,
            "Referer is missing or wrong",
        ),
        (
            "no cookie",
            friends,
            Box::new(drop_cookie("skey")),
            100_101,
            "cookies ptwebqq, skey or p_skey are missing or wrong",
        ),
        (
            "no cookie of CHECKSIG",
            friends,
            Box::new(drop_cookie("p_skey")),
            100_101,
            "cookies ptwebqq, skey or p_skey are missing or wrong",
        ),
        (
            "no lasting cookie",
            friends,
            Box::new(drop_cookie("pt_recent")),
            100_101,
            "cookie pt_recent is missing or wrong",
        ),
        (
            "wrong hash",
            friends,
            Box::new(set_r("hash", json!("00"))),
            100_101,
            "wrong hash of a list",
        ),
        (
            "wrong greeting",
            friends,
            Box::new(set_r("h", json!("hi"))),
            100_000,
            "r has h=\"hi\"",
        ),
        (
            "no JSON",
            friends,
            Box::new(|call| call.form.clear()),
            100_000,
            "r lacks h",
        ),
        (
            "strange code",
            |client| unheld(client.call_members(7)),
            Box::new(|_| {}),
            100_012,
            "gcode is not of this login",
        ),
        (
            "strange vfwebqq",
            |client| unheld(client.call_members(7)),
            Box::new(set_query("vfwebqq", "x")),
            100_101,
            "not a session of this account",
        ),
    ]);
}

#[test]
fn calls_of_the_channel_are_refused() {
    let poll: fn(&mut Client) -> Answer = |client| {
        client.after(60.0).news();
        client.poll_answer()
    };
    let channel = "cookie pt4_token is missing or wrong";
    refuse(vec![
        (
            "no Origin",
            poll,
            Box::new(drop_header("origin")),
            403,
            "Origin is missing or wrong",
        ),
        (
            "no cookie with a path",
            poll,
            Box::new(drop_cookie("pt4_token")),
            108,
            channel,
        ),
        (
            "other clientid",
            poll,
            Box::new(|call| {
                set_r("clientid", json!("1"))(call);
                call.form[1].1 = "1".into();
            }),
            121,
            "clientid is not that of LOGIN2",
        ),
        (
            "form and r differ",
            poll,
            Box::new(set_r("clientid", json!("1"))),
            100_000,
            "r and the form name different sessions",
        ),
        (
            "wrong key",
            poll,
            Box::new(set_r("key", json!(1))),
            100_000,
            "r has key=\"1\"",
        ),
        (
            "strange ptwebqq",
            Client::login2,
            Box::new(set_r("ptwebqq", json!("x"))),
            103,
            "not of this server",
        ),
        (
            "no cookie at LOGIN2",
            Client::login2,
            Box::new(drop_cookie("ptwebqq")),
            108,
            "cookie ptwebqq is not that of r",
        ),
    ]);
}

#[test]
fn sends_are_refused() {
    let send: fn(&mut Client) -> Answer = |client| client.send_buddy(1, "hi");
    let long = json!(["x".repeat(301), ["font", {}]]).to_string();
    let plain = json!(["hi", ["font", {}]]);
    let mut rows: Vec<Row> = vec![(
        "strange uin",
        send,
        Box::new(|_| {}),
        100_012,
        "to is not of this login",
    )];
    rows.push((
        "content is JSON, not a string of it",
        send,
        Box::new(set_r("content", plain)),
        100_012,
        "to is not of this login",
    ));
    rows.push((
        "content is not JSON",
        send,
        Box::new(set_r("content", json!("hi"))),
        100_000,
        "content is not JSON within JSON",
    ));
    rows.push((
        "msg_id stays",
        send,
        Box::new(set_r("msg_id", json!(0))),
        100_001,
        "msg_id does not count upwards",
    ));
    refuse(rows);
    let mut client = online();
    let alice = client.alice();
    client.spoil(set_r("content", json!(long)));
    assert_eq!(retcode(&client.send_buddy(alice, "hi")), 100_001);
    let bob = json!({"to": alice, "group_sig": "x", "face": 549, "service_type": 0});
    assert_eq!(retcode(&client.send("send_sess_msg2", bob, "hi")), 100_012);
    assert_eq!(
        errors(&client.server),
        [
            ("the text is too long", false),
            ("no such recipient", false)
        ]
    );
}

#[test]
fn heartbeats_are_refused() {
    let mut client = online();
    client.heartbeat();
    client.after(29.9).heartbeat();
    client.after(60.0).rc -= 2;
    client.heartbeat();
    client.rc += 5;
    client.heartbeat();
    assert_eq!(
        errors(&client.server),
        [
            ("two heartbeats in less than half their interval", false),
            ("rc does not count upwards", false),
        ]
    );
    client.login2();
    client.rc = u64::MAX - 1;
    client.heartbeat();
    assert_eq!(
        client.server.ledger().errors.len(),
        2,
        "a login begins afresh"
    );
}

#[test]
fn a_call_whose_answer_was_lost_may_come_again() {
    let mut client = online();
    client.server.arm(NUMBER, Step::Heartbeat, Fault::NoByte);
    client.heartbeat();
    client.rc -= 1;
    client.heartbeat();
    client.server.arm(NUMBER, Step::Logout, Fault::Reset);
    for pause in [0.0, 5.0] {
        client
            .after(pause)
            .query("d.web2.qq.com", "/channel/logout2", "ids=");
    }
    let provoked: Vec<bool> = errors(&client.server).iter().map(|&(_, p)| p).collect();
    assert_eq!(provoked, [true, true]);
}

#[test]
fn logins_are_refused() {
    let wrong = |spoil: Box<dyn Fn(&mut Call)>| {
        let mut client = stranger();
        client.sig();
        let code = client.check().unwrap();
        client.spoil(spoil);
        let result = client.ptlogin(&code);
        let what = errors(&client.server)[0].0.to_owned();
        (result.unwrap_err(), what)
    };
    for (why, spoil, code, what) in [
        (
            "hash",
            Box::new(set_query("p", "00")) as Box<dyn Fn(&mut Call)>,
            "3",
            "wrong password hash",
        ),
        (
            "code",
            Box::new(set_query("verifycode", "!abcd")),
            "4",
            "wrong verifycode",
        ),
        (
            "aid",
            Box::new(set_query("aid", "1")),
            "7",
            "query has aid=\"1\"",
        ),
        (
            "sig",
            Box::new(set_query("login_sig", "")),
            "7",
            "login_sig is not that of CHECK",
        ),
        (
            "cookie",
            Box::new(drop_cookie("ptvfsession")),
            "24",
            "cookie ptvfsession is missing or wrong",
        ),
    ] {
        assert_eq!(wrong(spoil), (code.into(), what.into()), "{why}");
    }
    let mut client = stranger();
    client.spoil(set_query("t", "1"));
    assert_eq!(client.sig().status, 400);
    client.login_sig = "made up".into();
    assert_eq!(client.check_answer().status, 403);
    client.sig();
    client.spoil(drop_header("referer"));
    assert_eq!(client.check_answer().status, 403);
    let whats: Vec<&str> = errors(&client.server)
        .iter()
        .map(|&(what, _)| what)
        .collect();
    assert_eq!(
        whats,
        [
            "query has t=\"1\"",
            "not of this server",
            "Referer is missing or wrong"
        ]
    );
}

#[test]
fn what_is_nowhere_or_nobodys_is_refused() {
    let mut client = online();
    assert_eq!(client.get("http://d.web2.qq.com/elsewhere", "").status, 404);
    assert_eq!(client.get("http://qq.example/", "").status, 404);
    client.jar.clear();
    client.psessionid = "null".into();
    assert_eq!(retcode(&client.poll_answer()), 121);
    assert_eq!(client.server.ledger().unprovoked().count(), 3);
    let lines = client.server.ledger().to_json_lines();
    let kinds: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(kinds[0]["kind"], "error");
    assert_eq!(kinds.last().unwrap()["kind"], "totals");
}

#[test]
fn another_accounts_session_is_refused() {
    let mut client = online();
    client
        .server
        .add_account(crate::server::Account::sample(10001));
    let mut other = Client::new(
        std::mem::replace(&mut client.server, super::server()),
        10001,
    );
    other.log_in();
    let session = other.psessionid.clone();
    client.server = other.server;
    client.psessionid = session;
    assert_eq!(
        retcode(&client.poll_answer()),
        108,
        "the cookies belong to another account"
    );
    assert_eq!(json(&client.friends())["retcode"], 0);
    assert!(!client.server.is_online(10001) && client.server.is_online(NUMBER));
}
