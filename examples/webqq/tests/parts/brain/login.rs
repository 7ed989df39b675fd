//! The login: regular, with a captcha, repeated, and after a restart of the server.

use super::client::{body, json, retcode, unheld};
use super::{Client, NUMBER, errors, online, seconds, server, stranger};
use crate::server::{Account, Fault, Place, Server, Settings, Step, Switch};

#[test]
fn a_login_by_the_book_breaks_no_rule() {
    let mut client = stranger();
    assert!(body(&client.sig()).contains("g_login_sig=encodeURIComponent(\""));
    let check = client.check_answer();
    let uin = r"'\x00\x00\x00\x00\x64\x74\x8b\x05');";
    assert!(body(&check).starts_with("ptui_checkVC('0','!") && body(&check).ends_with(uin));
    client.log_in();
    assert!(!client.server.is_online(NUMBER), "no poll has arrived yet");
    client.hold_poll();
    assert!(client.server.is_online(NUMBER));
    client.friends();
    client.groups();
    client.heartbeat();
    assert_eq!(errors(&client.server), []);
    let ledger = client.server.ledger();
    assert_eq!(
        (
            ledger.logins,
            ledger.relinks,
            ledger.polls,
            ledger.heartbeats
        ),
        (1, 0, 1, 1)
    );
}

#[test]
fn the_lists_tell_who_is_there_and_what_real_ones_left_out() {
    let mut client = online();
    let friends = json(&client.friends());
    let result = &friends["result"];
    assert_eq!(result["friends"].as_array().unwrap().len(), 5);
    assert_eq!(
        result["info"].as_array().unwrap().len(),
        4,
        "one is a ghost"
    );
    assert_eq!(result["info"][2]["nick"], "陈伟");
    assert!(result["info"][3]["nick"].is_null());
    assert_eq!(result["marknames"][0]["markname"], "Bob from work");
    let groups = json(&client.groups())["result"]["gnamelist"].clone();
    let members = |client: &mut Client, k: usize| {
        json(&unheld(
            client.call_members(groups[k]["code"].as_u64().unwrap()),
        ))
    };
    let (rust, chess) = (members(&mut client, 0), members(&mut client, 1));
    assert_eq!(rust["result"]["ginfo"]["gid"], groups[0]["gid"]);
    assert_eq!(
        rust["result"]["minfo"].as_array().unwrap().len(),
        6,
        "five members and the account"
    );
    assert_eq!(
        rust["result"]["minfo"][1]["uin"], result["friends"][0]["uin"],
        "Alice is a friend and a member"
    );
    assert!(rust["result"]["cards"].is_array() && chess["result"].get("cards").is_none());
    let list = json(&client.query("s.web2.qq.com", "/api/get_discus_list", ""));
    let did = &list["result"]["dnamelist"][0]["did"];
    let info = client.query(
        "d.web2.qq.com",
        "/channel/get_discu_info",
        &format!("did={did}"),
    );
    assert_eq!(
        json(&info)["result"]["mem_info"].as_array().unwrap().len(),
        3
    );
    let online = client.query("d.web2.qq.com", "/channel/get_online_buddies2", "");
    assert_eq!(json(&online)["result"].as_array().unwrap().len(), 3);
    let alice = &result["friends"][0]["uin"];
    let number = client.query(
        "s.web2.qq.com",
        "/api/get_friend_uin2",
        &format!("tuin={alice}&type=1"),
    );
    assert!(json(&number)["result"]["account"].is_u64());
    assert_eq!(errors(&client.server), []);
}

#[test]
fn a_captcha_is_read_by_somebody_and_its_code_is_good() {
    let mut client = stranger();
    client.server.arm(NUMBER, Step::Check, Fault::Captcha);
    client.sig();
    assert_eq!(client.check(), None);
    let picture = client.captcha();
    assert!(picture.body.starts_with(&[0xff, 0xd8]) && picture.body.len() < 6000);
    let code = client.read_captcha();
    let url = client.ptlogin(&code).unwrap();
    client.checksig(&url);
    assert_eq!(retcode(&client.login2()), 0);
    assert_eq!(errors(&client.server), []);
}

#[test]
fn a_captcha_expires_by_time_and_by_fault() {
    let mut client = stranger();
    client.server.arm(NUMBER, Step::Check, Fault::Captcha);
    client.sig();
    client.check();
    let code = client.read_captcha();
    client.after(900.0);
    assert_eq!(client.ptlogin(&code), Err("4".into()));
    client.server.arm(NUMBER, Step::Captcha, Fault::Expired);
    let code = client.read_captcha();
    assert_eq!(client.ptlogin(&code), Err("4".into()));
    let code = client.read_captcha();
    assert!(client.ptlogin(&code).is_ok());
    assert_eq!(errors(&client.server), []);
}

#[test]
fn a_page_without_a_signature_lets_the_login_go_on() {
    let mut client = stranger();
    client.server.arm(NUMBER, Step::Sig, Fault::NoSig);
    client.log_in();
    assert_eq!(client.login_sig, "");
    assert_eq!(errors(&client.server), []);
}

#[test]
fn a_signature_is_for_whoever_checks_with_it_first() {
    let mut client = stranger();
    client.server.add_account(Account::sample(10001));
    client.server.arm(10001, Step::Sig, Fault::NoSig);
    client.log_in(); // without a signature: the page's request names no account
    assert_eq!(errors(&client.server), []);
    client.sig();
    client.check();
    client.account = 10001;
    client.check_answer();
    assert_eq!(
        errors(&client.server),
        [("login_sig was not handed out to this client", false)]
    );
}

#[test]
fn a_relink_keeps_uins_and_a_full_login_draws_new_ones() {
    let mut client = online();
    let alice = client.alice();
    client.server.kick(client.now, NUMBER);
    assert_eq!(retcode(&client.login2()), 0);
    assert_eq!(client.alice(), alice);
    client.log_in();
    assert_ne!(client.alice(), alice);
    assert_eq!(retcode(&client.send_buddy(alice, "hi")), 100012);
    assert_eq!(errors(&client.server), [("to is not of this login", false)]);
    let ledger = client.server.ledger();
    assert_eq!((ledger.logins, ledger.relinks), (2, 1));
}

#[test]
fn a_relink_that_drops_uins_excuses_their_use() {
    let mut client = online();
    let alice = client.alice();
    client.server.arm(NUMBER, Step::Login2, Fault::DropUins);
    client.login2();
    assert_ne!(client.alice(), alice);
    assert_eq!(retcode(&client.send_buddy(alice, "hi")), 100012);
    assert_eq!(errors(&client.server), [("to is not of this login", true)]);
}

#[test]
fn redirects_are_followed_with_a_cookie_from_each() {
    let mut client = stranger();
    client
        .server
        .arm(NUMBER, Step::CheckSig, Fault::Redirects(5));
    client.sig();
    let code = client.check().unwrap();
    let url = client.ptlogin(&code).unwrap();
    assert_eq!(client.checksig(&url), 5);
    assert_eq!(
        client
            .jar
            .iter()
            .filter(|kept| kept.name.starts_with("hop"))
            .count(),
        5
    );
    assert_eq!(retcode(&client.login2()), 0);
    assert_eq!(errors(&client.server), []);
}

#[test]
fn redirects_count_once_they_have_been_followed() {
    let redirects = Fault::Redirects(2);
    let name = Switch::Arm(Step::CheckSig, redirects).name();
    let fired = |client: &Client| client.server.ledger().fired.get(&name).copied();
    let mut client = stranger();
    client.server.arm(NUMBER, Step::CheckSig, redirects);
    for _ in 0..2 {
        client.sig();
        let code = client.check().unwrap();
        let url = client.ptlogin(&code).unwrap();
        // Twice in the same login, and then in another one.
        for expected in [302, 200] {
            let answer = client.get(&url, "http://ui.ptlogin2.qq.com/");
            assert_eq!(answer.status, expected);
            assert_eq!(
                (fired(&client), client.server.armed(NUMBER)),
                (None, usize::from(expected == 200))
            );
        }
    }
    client.log_in();
    assert_eq!((fired(&client), client.server.armed(NUMBER)), (Some(1), 0));
    assert_eq!(errors(&client.server), []);
}

#[test]
fn cookies_on_sub_domains_go_where_they_belong() {
    let mut client = stranger();
    client
        .server
        .arm(NUMBER, Step::CheckSig, Fault::SubdomainCookies);
    client.log_in();
    client.friends();
    client.hold_poll();
    client.log_in(); // leftovers of the first login in the jar do no harm
    assert_eq!(errors(&client.server), []);
    // The server detects a jar that keeps cookies that web2.qq.com may not set, or sends one host's
    // cookie to others.
    for (name, domain) in [
        ("below", ".d.web2.qq.com"),
        ("alone", ".web2.qq.com"),
        ("pt_gone", ".qq.com"),
    ] {
        let mut kept = client.jar[0].clone();
        (kept.name, kept.domain) = (name.into(), domain.into());
        client.jar.push(kept);
        client.friends();
        client.poll();
        client.jar.pop();
    }
    let whats: Vec<_> = errors(&client.server)
        .iter()
        .map(|(what, _)| what.to_string())
        .collect();
    assert_eq!(
        whats,
        [
            "cookie below does not belong to d.web2.qq.com/channel/poll2",
            "cookie alone does not belong to s.web2.qq.com/api/get_user_friends2",
            "cookie alone does not belong to d.web2.qq.com/channel/poll2",
            "cookie pt_gone does not belong to s.web2.qq.com/api/get_user_friends2",
            "cookie pt_gone does not belong to d.web2.qq.com/channel/poll2",
        ]
    );
}

#[test]
fn after_a_restart_old_tokens_are_excused_until_the_next_login() {
    let mut client = online();
    let mut fresh = Server::new(Settings {
        seed: 2,
        ..Settings::default()
    });
    fresh.add_account(Account::sample(NUMBER));
    client.server = fresh;
    assert_eq!(retcode(&client.poll_answer()), 121);
    assert_eq!(retcode(&client.friends()), 100101);
    client.heartbeat();
    assert_eq!(retcode(&client.login2()), 103);
    assert_eq!(retcode(&client.send_buddy(1, "hi")), 8);
    let provoked = client
        .server
        .ledger()
        .errors
        .iter()
        .filter(|error| error.provoked);
    assert_eq!(provoked.count(), 5, "{:?}", client.server.ledger().errors);
    let old = client.psessionid.clone();
    client.log_in();
    client.psessionid = old;
    assert_eq!(retcode(&client.poll_answer()), 121);
    assert_eq!(client.server.ledger().unprovoked().count(), 1);
}

#[test]
fn a_late_list_comes_after_the_next_login_as_it_was() {
    let mut client = stranger();
    client.log_in();
    client.server.arm(NUMBER, Step::Friends, Fault::Late);
    let crate::server::Reaction::Hold(hold) = client.call_friends() else {
        panic!("not held");
    };
    client.after(5.0);
    assert!(client.server.take_ready().is_empty());
    client.log_in();
    let ready = client.server.take_ready();
    assert_eq!(ready[0].0, hold);
    assert_ne!(
        json(&ready[0].1),
        json(&client.friends()),
        "the uins are the old ones"
    );
}

#[test]
fn what_a_client_can_call_people_follows_from_the_lists() {
    let account = Account::sample(10001);
    let rust = Place::Group("Rustaceans".into());
    for (place, who, name) in [
        (&Place::Buddy, "Bob", Some("Bob from work")),
        (&Place::Buddy, "Chen Wei", Some("陈伟")),
        (&Place::Buddy, "Dora", None),
        (&Place::Buddy, "Emil", None),
        (&rust, "Hana", Some("花")),
        (&rust, "Goran", Some("Goran")),
    ] {
        assert_eq!(account.shown_name(place, who), name, "{who}");
    }
    assert!(
        account
            .places()
            .iter()
            .all(|(place, who)| account.can_speak(place, who))
    );
    assert!(
        !account.can_speak(&Place::Sess("Rustaceans".into()), "Alice"),
        "Alice is a friend"
    );
}

#[test]
fn nothing_grows_with_requests() {
    let mut client = Client::new(server(), NUMBER);
    client.log_in();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        for _ in 0..1000 {
            client.hold_poll();
            client.after(60.0);
            client.news().unwrap();
            client.heartbeat();
        }
        client.log_in();
        sizes.push(format!("{:?}", client.server).len());
    }
    assert_eq!(errors(&client.server), []);
    assert!(sizes[2] < sizes[0] + 100, "{sizes:?}");
    assert!(client.now > seconds(100_000.0));
}
