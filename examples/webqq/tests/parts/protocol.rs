//! The bot's requests: each step as documented, checked on the bytes that arrive.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, ErrorKind, Next, Request, Sim};
use serde_json::{Value, json};

use crate::answers::{Keys, Picture};
use crate::clock::Clock;
use crate::protocol::{Login, list_hash, password_hash};
use crate::roster::Address;
use crate::server::wire::{Call, Scheme};
use crate::settings::Https;

const ACCOUNT: u64 = 1_685_359_365;
const EPOCH: Duration = Duration::from_secs(1_400_000_000);

const LOGIN_PAGE: &str = "https://ui.ptlogin2.qq.com/cgi-bin/login";
const S: &str = "http://s.web2.qq.com/proxy.html?v=20110412001&callback=1&id=3";
const D: &str = "https://d.web2.qq.com/cfproxy.html?v=20110331002&callback=1";

fn login() -> Login {
    login_at(1.0, 7)
}

fn login_at(scale: f64, seed: u64) -> Login {
    login_with(Https::AsHttp, scale, seed)
}

fn login_with(https: Https, scale: f64, seed: u64) -> Login {
    let clock = Clock::new(Instant::now(), EPOCH, scale, Duration::from_secs(3));
    let mut login = Login::new(ACCOUNT, "password123", clock, https, seed);
    login.login_sig = "sig-*1".to_owned();
    login.verify_code = "!PTH".to_owned();
    login.huin = ACCOUNT.to_be_bytes().to_vec();
    login.ptwebqq = "0123456789abcdef".to_owned();
    login.set_keys(Keys {
        vfwebqq: "vf&1".to_owned(),
        psessionid: "ps=2".to_owned(),
    });
    login
}

/// A network in which one server answers for all hosts.
fn network(answer: impl FnMut(&Incoming) -> Answer + 'static) -> Network {
    let network = Network::new(1);
    for host in [
        "ui.ptlogin2.qq.com",
        "check.ptlogin2.qq.com",
        "ssl.captcha.qq.com",
        "ssl.ptlogin2.qq.com",
        "ptlogin4.web2.qq.com",
        "web.qq.com",
        "web2.qq.com",
        "s.web2.qq.com",
        "d.web2.qq.com",
        "qq.com",
    ] {
        network.host(host, [[10, 0, 0, 1]]);
    }
    network.serve(([10, 0, 0, 1], 80).into(), answer);
    network
}

/// The request as its server receives it.
fn arrival(request: Request) -> Incoming {
    let network = network(|_| Answer::ok("ok"));
    let mut engine = Engine::<(), Sim>::on_network(&network, Config::default()).unwrap();
    engine.submit(request, |(), reply, _| {
        assert!(reply.is_ok());
        Next::done()
    });
    engine.advance(&mut (), Duration::from_secs(1)).unwrap();
    let ledger = network.ledger();
    assert_eq!(ledger.requests().len(), 1);
    ledger.requests().next().unwrap().clone()
}

fn call(request: Request) -> Call {
    let incoming = arrival(request);
    let headers = incoming.headers.iter().map(|(name, value)| {
        let value = String::from_utf8(value.clone()).unwrap();
        (name.to_ascii_lowercase(), value)
    });
    let headers = headers.collect();
    Call::parse(
        0,
        Scheme::Http,
        &incoming.method,
        &incoming.target,
        headers,
        incoming.body(),
    )
}

/// Parses the JSON in a form.
fn r(call: &Call) -> Value {
    serde_json::from_str(call.form("r").expect("the form has an r")).unwrap()
}

// ---- hashes ----

#[test]
fn passwords_hash_as_they_did() {
    let huin = ACCOUNT.to_be_bytes();
    #[rustfmt::skip]
    let rows: &[(&str, &[u8], &str, &str)] = &[
        ("password123", &huin,                      "!PTH", "6B336642C524AB0FE9F08E3D46195C50"),
        ("password123", &huin,                      "ABCD", "EAC20CD82700ABA8059C1444922F9E63"),
        ("password123", &huin,                      "abcd", "EAC20CD82700ABA8059C1444922F9E63"),
        ("secret",      &10_001_u64.to_be_bytes(),  "!ABC", "266B49F9D2365CF41193B08F235CFC28"),
    ];
    for (password, huin, code, expected) in rows {
        assert_eq!(
            password_hash(password, huin, code),
            *expected,
            "{password} {code}"
        );
    }
}

#[test]
fn lists_hash_as_they_did() {
    #[rustfmt::skip]
    let rows = [
        (ACCOUNT, "0123456789abcdef", "01070A0607000F040E0C50545B5156534952454646594A5113504B415947"),
        (10_001,  "0123456789abcdef", "0101020305040607080850525354545740514342465F4254115442425F43"),
        (ACCOUNT, "2c14c3c4c0e5ce5b4e6f8ab3bb6e9f2d0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6",
            "0355090150065A07550554035B5006570D56005309575A0651570F560F530352085102500B55055405540D5605510E560E530806590451075A00520154035E0343544A40415A4352185041475641"),
    ];
    for (uin, ptwebqq, expected) in rows {
        assert_eq!(list_hash(uin, ptwebqq), expected, "{uin} {ptwebqq}");
    }
}

// ---- the steps ----

#[test]
fn https_is_spoken_where_the_table_has_it_and_the_server_too() {
    let url = |request: Request| {
        let uri = request.uri();
        format!("{}://{}", uri.scheme_str().unwrap(), uri.host().unwrap())
    };
    let ask = |https: Https| {
        let mut s = login_with(https, 1.0, 7);
        let discu = Address::Discu { did: 501 };
        let stranger = Address::Sess { gid: 301, uin: 12 };
        let steps = [
            s.sig(),
            s.captcha(),
            s.ptlogin(),
            s.online_buddies(),
            s.discu_info(501),
            s.send(discu, "a", ""),
            s.sess_sig(301, 12),
            s.send(stranger, "a", "sig"),
            s.logout(),
            s.check(),
            s.login2(),
            s.friends(),
            s.groups(),
            s.members(401),
            s.discus(),
            s.friend_uin(11),
            s.poll(),
            s.heartbeat(),
            s.send(Address::Buddy { uin: 11 }, "a", ""),
            s.send(Address::Group { gid: 301 }, "a", ""),
        ];
        steps.map(url)
    };
    let with_tls = ask(Https::OverTls);
    for (i, url) in with_tls.iter().enumerate() {
        assert_eq!(url.starts_with("https://"), i < 9, "{i}: {url}");
    }
    let without = with_tls.map(|url| url.replace("https://", "http://"));
    assert_eq!(ask(Https::AsHttp), without);
}

#[test]
fn checksig_keeps_its_scheme_where_the_server_has_tls() {
    let login = login_with(Https::OverTls, 1.0, 7);
    for url in ["https://ssl.ptlogin2.qq.com/jump?a=b", "http://qq.com/a"] {
        let request = login.checksig(url).expect("the URL is within the domain");
        assert_eq!(request.uri().to_string(), url);
    }
}

#[test]
fn each_step_is_asked_for_as_in_the_table() {
    let mut s = login();
    let offline = Picture::Offline {
        file_path: "/a b".to_owned(),
        from_uin: 11,
    };
    let group = |server: &str| Picture::Group {
        gid: 301,
        uin: 12,
        file_id: 7,
        name: "{A-B}.jpg".to_owned(),
        server: server.to_owned(),
    };
    // Step, method and place, Referer, parameters.
    #[rustfmt::skip]
    let rows: Vec<(Request, &str, &str, &str)> = vec![
        (s.sig(), "GET ui.ptlogin2.qq.com/cgi-bin/login", "",
            "daid=164 target=self style=5 mibao_css=m_webqq appid=1003903 enable_qlogin=0 no_verifyimg=1 \
             s_url=http://web2.qq.com/loginproxy.html f_url=loginerroralert strong_login=1 login_state=10 t=20130723001"),
        (s.check(), "GET check.ptlogin2.qq.com/check", LOGIN_PAGE,
            "uin=1685359365 appid=1003903 u1=http://web2.qq.com/loginproxy.html login_sig=sig-*1 js_ver=10040 js_type=0"),
        (s.captcha(), "GET ssl.captcha.qq.com/getimage", "",
            "aid=1003903 uin=1685359365"),
        (s.ptlogin(), "GET ssl.ptlogin2.qq.com/login", LOGIN_PAGE,
            "u=1685359365 p=6B336642C524AB0FE9F08E3D46195C50 verifycode=!pth webqq_type=10 remember_uin=1 login2qq=1 aid=1003903 \
             u1=http://www.qq.com/loginproxy.html?login2qq=1&webqq_type=10 h=1 ptredirect=0 ptlang=2052 daid=164 from_ui=1 \
             pttype=1 dumy= fp=loginerroralert action=4-5-8246 mibao_css=m_webqq t=1 g=1 js_type=0 js_ver=10040 login_sig=sig-*1"),
        (s.login2(), "POST d.web2.qq.com/channel/login2", D,
            "psessionid=null"),
        (s.friends(), "POST s.web2.qq.com/api/get_user_friends2", S, ""),
        (s.online_buddies(), "GET d.web2.qq.com/channel/get_online_buddies2", D,
            "psessionid=ps=2 t=1400000000000"),
        (s.groups(), "POST s.web2.qq.com/api/get_group_name_list_mask2", S, ""),
        (s.members(401), "GET s.web2.qq.com/api/get_group_info_ext2", S,
            "gcode=401 vfwebqq=vf&1 cb=undefined t=1400000000000"),
        (s.discus(), "GET s.web2.qq.com/api/get_discus_list", S,
            "psessionid=ps=2 vfwebqq=vf&1 t=1400000000000"),
        (s.discu_info(501), "GET d.web2.qq.com/channel/get_discu_info", D,
            "did=501 psessionid=ps=2 vfwebqq=vf&1 t=1400000000000"),
        (s.friend_uin(11), "GET s.web2.qq.com/api/get_friend_uin2", S,
            "tuin=11 type=1 vfwebqq=vf&1"),
        (s.poll(), "POST d.web2.qq.com/channel/poll2", D,
            "psessionid=ps=2"),
        (s.heartbeat(), "GET web.qq.com/web2/get_msg_tip", "http://web.qq.com/",
            "tp=1 id=0 retype=1 lv=3 t=1400000000000"),
        (s.send(Address::Buddy { uin: 11 }, "a", ""), "POST d.web2.qq.com/channel/send_buddy_msg2", D,
            "psessionid=ps=2"),
        (s.send(Address::Group { gid: 301 }, "a", ""), "POST d.web2.qq.com/channel/send_qun_msg2", D,
            "psessionid=ps=2"),
        (s.send(Address::Discu { did: 501 }, "a", ""), "POST d.web2.qq.com/channel/send_discu_msg2", D,
            "psessionid=ps=2"),
        (s.send(Address::Sess { gid: 301, uin: 12 }, "a", "sig"), "POST d.web2.qq.com/channel/send_sess_msg2", D,
            "psessionid=ps=2"),
        (s.sess_sig(301, 12), "GET d.web2.qq.com/channel/get_c2cmsg_sig2", D,
            "id=301 to_uin=12 service_type=0 psessionid=ps=2 t=1400000000000"),
        (s.picture(&offline), "GET d.web2.qq.com/channel/get_offpic2", D,
            "f_uin=11 psessionid=ps=2"),
        (s.picture(&group("10.1.2.3:8000")), "GET web2.qq.com/cgi-bin/get_group_pic", S,
            "gid=301 uin=12 rip=10.1.2.3 rport=8000 fid=7 pic={A-B}.jpg vfwebqq=vf&1"),
        (s.picture(&group("10.1.2.3")), "GET web2.qq.com/cgi-bin/get_group_pic", S,
            "rip=10.1.2.3 rport=80"),
        (s.logout(), "GET d.web2.qq.com/channel/logout2", D,
            "ids= psessionid=ps=2 t=1400000000000"),
    ];
    for (request, step, referer, parameters) in rows {
        let call = call(request);
        let is_post = call.method == "POST";
        assert_eq!(format!("{} {}{}", call.method, call.host, call.path), step);
        assert_eq!(
            call.header("referer").unwrap_or_default(),
            referer,
            "{step}"
        );
        let origin = is_post.then(|| format!("http://{}", call.host));
        assert_eq!(call.header("origin"), origin.as_deref(), "{step}");
        let media_type = is_post.then_some("application/x-www-form-urlencoded");
        assert_eq!(call.header("content-type"), media_type, "{step}");
        // The bot decodes no content coding, so it must not advertise any.
        assert_eq!(call.header("accept-encoding"), None, "{step}");
        for parameter in parameters.split_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap();
            let found = match is_post {
                true => call.form(name),
                false => call.query(name),
            };
            assert_eq!(found, Some(value), "{step}: {name}");
        }
        let mut names: Vec<&String> = call
            .query
            .iter()
            .chain(&call.form)
            .map(|(n, _)| n)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{step}: {names:?}");
    }
}

#[test]
fn the_json_of_a_form_is_that_of_its_step() {
    let mut s = login();
    let hash = "01070A0607000F040E0C50545B5156534952454646594A5113504B415947";
    let font = r#"["font",{"color":"000000","name":"Monospace","size":10,"style":[0,0,0]}]"#;
    let content = format!(r#"["a",{font}]"#);
    #[rustfmt::skip]
    let rows = vec![
        (s.login2(),    json!({"status": "online", "ptwebqq": "0123456789abcdef", "passwd_sig": "", "psessionid": null})),
        (s.friends(),   json!({"h": "hello", "hash": hash, "vfwebqq": "vf&1"})),
        (s.groups(),    json!({"vfwebqq": "vf&1", "hash": hash})),
        (s.poll(),      json!({"psessionid": "ps=2", "key": 0, "ids": []})),
        (s.send(Address::Buddy { uin: 11 }, "a", ""),
            json!({"to": 11, "face": 564, "content": content, "psessionid": "ps=2"})),
        (s.send(Address::Group { gid: 301 }, "a", ""),
            json!({"group_uin": 301, "content": content, "psessionid": "ps=2"})),
        (s.send(Address::Discu { did: 501 }, "a", ""),
            json!({"did": 501, "content": content, "psessionid": "ps=2"})),
        (s.send(Address::Sess { gid: 301, uin: 12 }, "a", "sig"),
            json!({"to": 12, "group_sig": "sig", "face": 549, "content": content, "service_type": 0, "psessionid": "ps=2"})),
    ];
    for (request, expected) in rows {
        let call = call(request);
        let mut found = r(&call);
        // These differ from process to process: see below.
        let clientid = found.as_object_mut().unwrap().remove("clientid");
        found.as_object_mut().unwrap().remove("msg_id");
        assert_eq!(found, expected, "{}", call.path);
        if call.host == "d.web2.qq.com" {
            assert_eq!(
                clientid.unwrap().as_str(),
                call.form("clientid"),
                "{}",
                call.path
            );
        }
    }
}

#[test]
fn whatever_is_said_comes_out_of_json_in_json_in_a_form() {
    let nasty: &[&str] = &[
        "",
        "a b+c&d=e%20f;g#h?i/j",
        r#"she said "it's \n""#,
        r#"["font",{}],"psessionid":"x""#,
        "two\r\nlines\tand\0more\u{1b}\u{7f}",
        "企鹅 🐧 é \u{2028}\u{feff}",
        "\\\\\"\\u0041",
    ];
    let mut login = login();
    for text in nasty {
        let incoming = arrival(login.send(Address::Buddy { uin: 11 }, text, ""));
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"%+-._*~&=".contains(b);
        assert!(incoming.body().iter().all(is_plain), "{text:?}");

        let fields = form_urlencoded::parse(incoming.body()).into_owned();
        let fields: BTreeMap<String, String> = fields.collect();
        assert_eq!(fields.len(), 3, "{text:?}");
        let r: Value = serde_json::from_str(&fields["r"]).unwrap();
        assert_eq!(r["psessionid"], "ps=2", "{text:?}");
        let content: Value = serde_json::from_str(r["content"].as_str().unwrap()).unwrap();
        assert_eq!(content[0], *text);
        assert_eq!(content[1][1]["name"], "Monospace", "{text:?}");
    }
}

#[test]
fn numbers_begin_anywhere_and_go_on_as_they_should() {
    for seed in 0..100 {
        let mut login = login_at(1.0, seed);
        let send = |login: &mut Login| {
            let call = call(login.send(Address::Group { gid: 301 }, "a", ""));
            let msg_id = r(&call)["msg_id"].as_u64().unwrap();
            let clientid = call.form("clientid").unwrap().to_owned();
            (msg_id, clientid)
        };
        let beat = |login: &mut Login| -> u64 {
            let call = call(login.heartbeat());
            call.query("rc").unwrap().parse().unwrap()
        };
        let (first, clientid) = send(&mut login);
        assert_eq!(first.to_string().len(), 8, "seed {seed}");
        assert_eq!(clientid.len(), 8, "seed {seed}");
        let rc = beat(&mut login);
        assert!(rc <= 100, "seed {seed}");
        // Neither a login nor anything else resets them.
        login.forget();
        assert_eq!(
            send(&mut login),
            (first + 1, clientid.clone()),
            "seed {seed}"
        );
        login.poll();
        assert_eq!(send(&mut login), (first + 2, clientid), "seed {seed}");
        assert_eq!(beat(&mut login), rc + 1, "seed {seed}");

        let chance = call(login.check()).query("r").unwrap().to_owned();
        let chance: f64 = chance.parse().unwrap();
        assert!((0.0..1.0).contains(&chance), "seed {seed}");
    }
}

#[test]
fn time_is_told_as_it_is_on_the_wall() {
    let begin = Instant::now();
    let mut login = Login::new(
        1,
        "",
        Clock::new(begin, EPOCH, 60.0, Duration::from_secs(3)),
        Https::AsHttp,
        1,
    );
    login.set_now(begin + Duration::from_millis(1_500));
    assert_eq!(call(login.heartbeat()).query("t"), Some("1400000090000"));
}

#[test]
fn a_login_that_is_forgotten_leaves_nothing_behind() {
    let mut login = login();
    keep(&login, "http://qq.com/", "skey=@a; Domain=qq.com");
    login.forget();
    let mut all = vec![login.sig(), login.check(), login.login2(), login.friends()];
    all.push(login.poll());
    for request in all {
        let incoming = arrival(request);
        let bytes = String::from_utf8(incoming.bytes.clone()).unwrap();
        for old in [
            "sig-*1",
            "0123456789abcdef",
            "vf%261",
            "ps%3D2",
            "skey",
            "Cookie",
        ] {
            assert!(!bytes.contains(old), "{old} in {bytes}");
        }
    }
}

// ---- CHECKSIG ----

#[test]
fn checksig_goes_where_the_server_says_within_its_domain() {
    let login = login();
    #[rustfmt::skip]
    let rows: &[(&str, &str, Option<&str>)] = &[
        ("as PTLOGIN has it",               "http://ptlogin4.web2.qq.com/check_sig?uin=1&f_url=&p=%2F", Some("ptlogin4.web2.qq.com/check_sig?uin=1&f_url=&p=%2F")),
        ("https goes over http",            "https://ssl.ptlogin2.qq.com/jump?a=b",     Some("ssl.ptlogin2.qq.com/jump?a=b")),
        ("without a query",                 "http://web2.qq.com/loginproxy.html",       Some("web2.qq.com/loginproxy.html")),
        ("the domain itself",               "http://qq.com/",                           Some("qq.com/")),
        ("in any case",                     "http://WEB2.QQ.com/x",                     Some("web2.qq.com/x")),
        ("another domain",                  "http://example.com/",                      None),
        ("one that ends alike",             "http://notqq.com/",                        None),
        ("one that begins alike",           "http://qq.com.example.com/",               None),
        ("one in front of an @",            "http://qq.com@example.com/",               None),
        ("credentials",                     "http://a:b@web2.qq.com/",                  None),
        ("an address",                      "http://127.0.0.1/qq.com",                  None),
        ("no host",                         "/check_sig",                               None),
        ("another scheme",                  "ftp://web2.qq.com/",                       None),
        ("a file",                          "file:///etc/passwd",                       None),
        ("a script",                        "javascript:alert(1)",                      None),
        ("nothing",                         "",                                         None),
        ("a line end",                      "http://web2.qq.com/\r\nX-Evil: a",         None),
    ];
    for (why, url, expected) in rows {
        let found = login.checksig(url).map(|request| {
            let incoming = arrival(request);
            assert_eq!(
                incoming.header("referer"),
                Some(LOGIN_PAGE.as_bytes()),
                "{why}"
            );
            let host = String::from_utf8(incoming.header("host").unwrap().to_vec()).unwrap();
            format!("{}{}", host.to_ascii_lowercase(), incoming.target)
        });
        assert_eq!(found.as_deref(), *expected, "{why}");
    }
}

#[test]
fn redirects_are_followed_within_the_domain() {
    #[rustfmt::skip]
    let rows: &[(&str, &str, Option<&str>)] = &[
        ("a URL",                   "http://s.web2.qq.com/x?y=z",   Some("s.web2.qq.com/x?y=z")),
        ("a host",                  "//s.web2.qq.com/x",            Some("s.web2.qq.com/x")),
        ("a path",                  "/x?u1=http://a.example/",      Some("web2.qq.com/x?u1=http://a.example/")),
        ("a relative path",         "x/y?z",                        Some("web2.qq.com/a/x/y?z")),
        ("another domain",          "http://example.com/",          None),
        ("one that ends alike",     "http://notqq.com/",            None),
        ("one in front of an @",    "http://qq.com@example.com/",   None),
    ];
    for (why, location, expected) in rows {
        let location = *location;
        let network = network(move |request| match request.path() {
            "/a/b" => Answer::status(302).header("Location", location),
            _ => Answer::ok("ok"),
        });
        let request = login()
            .checksig("http://web2.qq.com/a/b")
            .expect("it is within the domain");
        let status = status_of(&network, request);
        assert_eq!(
            status,
            Ok(if expected.is_some() { 200 } else { 302 }),
            "{why}"
        );
        let ledger = network.ledger();
        let place = |request: &Incoming| {
            let host = String::from_utf8_lossy(request.header("host").unwrap());
            format!("{host}{}", request.target)
        };
        let second = ledger.requests().nth(1);
        assert_eq!(second.map(place).as_deref(), *expected, "{why}");
        let referer = second.map(|request| request.header("referer"));
        assert!(
            referer.is_none_or(|it| it == Some(LOGIN_PAGE.as_bytes())),
            "{why}"
        );
    }
}

#[test]
fn redirects_that_lead_in_a_ring_come_to_an_end() {
    let network = network(|_| Answer::status(302).header("Location", "/a"));
    let request = login()
        .checksig("http://web2.qq.com/a")
        .expect("it is within the domain");
    assert_eq!(status_of(&network, request), Err(ErrorKind::Policy));
    assert_eq!(network.ledger().requests().len(), 8);
}

/// Returns the status with which a request ends.
fn status_of(network: &Network, request: Request) -> Result<u16, ErrorKind> {
    type End = Option<Result<u16, ErrorKind>>;
    let mut engine = Engine::<End, Sim>::on_network(network, Config::default()).unwrap();
    engine.submit(request, |end, reply, _| {
        let status = reply.map(|response| response.status().as_u16());
        *end = Some(status.map_err(|error| error.kind()));
        Next::done()
    });
    let mut end = None;
    engine.advance(&mut end, Duration::from_secs(300)).unwrap();
    end.expect("it has ended")
}

// ---- cookies ----

/// Has the jar keep a cookie as if a server had set it.
fn keep(login: &Login, url: &str, cookie: &str) {
    login.sessions.jar.set(url, cookie).unwrap();
}

fn cookies(request: Request) -> String {
    call(request)
        .header("cookie")
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn cookies_go_with_the_requests_to_their_hosts() {
    let mut login = login();
    let page = "https://ssl.ptlogin2.qq.com/login";
    keep(&login, page, "ptwebqq=2c14; Domain=.qq.com; Path=/");
    keep(&login, page, "skey=@a; Domain=.qq.com; Path=/; Secure");
    keep(&login, page, "confirmuin=1");
    let captcha = "https://ssl.captcha.qq.com/getimage";
    keep(&login, captcha, "verifysession=h; Domain=.captcha.qq.com");

    // All of them over http here, where the Secure one must not go.
    assert_eq!(cookies(login.ptlogin()), "ptwebqq=2c14; confirmuin=1");
    assert_eq!(cookies(login.captcha()), "ptwebqq=2c14; verifysession=h");
    let discu = login.send(Address::Discu { did: 501 }, "a", "");
    let all = [
        discu,
        login.sess_sig(301, 12),
        login.online_buddies(),
        login.poll(),
        login.friends(),
        login.heartbeat(),
        login.logout(),
    ];
    for request in all {
        assert_eq!(cookies(request), "ptwebqq=2c14");
    }
}

#[test]
fn other_sites_get_no_cookies() {
    let login = login();
    keep(
        &login,
        "http://web2.qq.com/",
        "ptwebqq=2c14; Domain=.qq.com; Path=/",
    );
    let page = login.page("http://web2.qq.com/weather").unwrap();
    assert_eq!(cookies(page), "");
    assert!(login.page("weather").is_err());
}

#[test]
fn a_new_ptwebqq_takes_the_place_of_the_old_one_everywhere() {
    let mut login = login();
    let page = "https://ssl.ptlogin2.qq.com/login";
    keep(&login, page, "ptwebqq=old; Domain=.qq.com; Path=/");
    login.take_ptwebqq();
    assert_eq!(login.ptwebqq, "old");

    login.set_ptwebqq("0123456789abcdef".to_owned());
    assert_eq!(cookies(login.poll()), "ptwebqq=0123456789abcdef");
    assert_eq!(r(&call(login.login2()))["ptwebqq"], "0123456789abcdef");
    let hash = "01070A0607000F040E0C50545B5156534952454646594A5113504B415947";
    assert_eq!(r(&call(login.friends()))["hash"], hash);
}

#[test]
fn what_an_answer_sets_is_kept_for_its_host() {
    let network = network(|_| {
        Answer::ok("ptuiCB('0');")
            .header("Set-Cookie", "ptwebqq=a; Domain=.qq.com; Path=/")
            .header("set-cookie", "confirmuin=1; Path=/")
            .header("Set-Cookie", "stolen=1; Domain=example.com")
    });
    let mut login = login();
    assert_eq!(status_of(&network, login.ptlogin()), Ok(200));
    login.take_ptwebqq();
    assert_eq!(login.ptwebqq, "a");
    assert_eq!(login.sessions.jar.len(), 2);
    assert_eq!(cookies(login.ptlogin()), "ptwebqq=a; confirmuin=1");
    assert_eq!(cookies(login.poll()), "ptwebqq=a");
}

// ---- what is sent again ----

#[test]
fn what_may_be_repeated_is_sent_three_times_and_all_else_once() {
    let network = || network(|_| Answer::status(503));
    let mut login = login();
    let again = [
        login.sig(),
        login.check(),
        login.captcha(),
        login.checksig("http://web2.qq.com/check_sig").unwrap(),
        login.friends(),
        login.groups(),
        login.members(401),
        login.discus(),
        login.discu_info(501),
        login.online_buddies(),
        login.friend_uin(11),
        login.sess_sig(301, 12),
    ];
    let once = [
        login.ptlogin(),
        login.login2(),
        login.poll(),
        login.heartbeat(),
        login.send(Address::Buddy { uin: 11 }, "a", ""),
        login.logout(),
    ];
    let page = login.page("http://web2.qq.com/weather").unwrap();
    let again = again.into_iter().map(|request| (request, 3));
    let once = once.into_iter().map(|request| (request, 1));
    for (request, expected) in again.chain(once) {
        let (network, place) = (network(), request.uri().to_string());
        assert_eq!(
            status_of(&network, request),
            Err(ErrorKind::Status),
            "{place}"
        );
        assert_eq!(network.ledger().requests().len(), expected, "{place}");
    }
    // Whoever asked for it reads what the other site says in the end.
    let network = network();
    assert_eq!(status_of(&network, page), Ok(503));
    assert_eq!(network.ledger().requests().len(), 7);
}

#[test]
fn a_login_that_has_ended_sends_nothing_and_a_message_on_its_way_is_answered() {
    let network = network(|_| Answer::ok("{}").after(Duration::from_secs(1)));
    let mut login = login();
    let requests = [
        login.friends(),
        login.poll(),
        login.send(Address::Buddy { uin: 11 }, "a", ""),
        login.send(Address::Buddy { uin: 11 }, "b", ""),
    ];
    type Ends = Vec<(String, bool)>;
    let mut engine = Engine::<Ends, Sim>::on_network(&network, Config::default()).unwrap();
    for request in requests {
        let path = request.uri().path().to_owned();
        engine.submit(request, move |ends: &mut Ends, reply, _| {
            ends.push((path.clone(), reply.is_ok()));
            Next::done()
        });
    }
    let mut ends = Vec::new();
    engine
        .advance(&mut ends, Duration::from_millis(500))
        .unwrap();
    assert!(login.sessions.is_sending());
    engine.call(move |_: &mut Ends, cx| {
        login.sessions.end_login(cx);
        Next::done()
    });
    engine.advance(&mut ends, Duration::from_secs(10)).unwrap();
    let send = ("/channel/send_buddy_msg2".to_owned(), true);
    let friends = ("/api/get_user_friends2".to_owned(), false);
    let poll = ("/channel/poll2".to_owned(), false);
    ends[..2].sort();
    assert_eq!(ends, [friends, poll, send.clone(), send]);
    // One message at a time.
    let ledger = network.ledger();
    let sends = ledger
        .requests()
        .filter(|request| request.path().contains("send"));
    let at: Vec<Duration> = sends.map(|request| request.at).collect();
    assert!(at[1] - at[0] >= Duration::from_secs(1), "{at:?}");
}

// ---- patience ----

/// How long a request waits for an answer of this kind.
fn patience(request: Request, answer: fn(&Incoming) -> Answer) -> Option<Duration> {
    let network = network(answer);
    let mut engine =
        Engine::<Option<Duration>, Sim>::on_network(&network, Config::default()).unwrap();
    let begun = network.now();
    engine.submit(request, move |ended, reply, cx| {
        *ended = reply.is_err().then(|| cx.now() - begun);
        Next::done()
    });
    let mut ended = None;
    engine
        .advance(&mut ended, Duration::from_secs(600))
        .unwrap();
    assert_eq!(engine.pending(), 0);
    ended
}

/// In whole seconds, since connecting takes some milliseconds.
fn seconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_secs())
}

#[test]
fn a_poll_is_waited_for_longer_than_it_is_held() {
    let silent: fn(&Incoming) -> Answer = |_| Answer::held();
    let held: fn(&Incoming) -> Answer = |_| Answer::ok("{}").after(Duration::from_secs(65));
    let drips: fn(&Incoming) -> Answer =
        |_| Answer::ok([b' '; 400]).drip(1, Duration::from_secs(9));
    assert_eq!(seconds(patience(login().poll(), silent)), Some(70));
    assert_eq!(patience(login().poll(), held), None);
    assert_eq!(seconds(patience(login().poll(), drips)), Some(140));
    // All others get half a minute, whether the answer drips or not.
    assert_eq!(seconds(patience(login().login2(), silent)), Some(30));
    assert_eq!(seconds(patience(login().heartbeat(), drips)), Some(30));
    // With those that are repeated, each time, and three minutes in all.
    let three_times = patience(login().friends(), silent).unwrap();
    let range = Duration::from_secs(90)..Duration::from_secs(94);
    assert!(range.contains(&three_times), "{three_times:?}");
    assert_eq!(seconds(patience(login().friends(), drips)), Some(180));
}

#[test]
fn where_waits_are_compressed_a_machine_may_still_be_slow() {
    let silent: fn(&Incoming) -> Answer = |_| Answer::held();
    // A hold lasts one second.
    let fast = || login_at(60.0, 7);
    assert_eq!(seconds(patience(fast().poll(), silent)), Some(4));
    assert_eq!(seconds(patience(fast().login2(), silent)), Some(3));
}

#[test]
fn sessions_can_be_made_at_any_scale() {
    for scale in [0.01, 1.0, 60.0, 1000.0] {
        login_at(scale, 7);
    }
}

#[test]
fn jitter_makes_a_wait_longer_by_its_share_at_most() {
    let mut login = login();
    let wait = Duration::from_secs(10);
    let waits: Vec<Duration> = (0..1_000).map(|_| login.jitter(wait, 0.2)).collect();
    assert!(waits.iter().all(|w| (wait..=wait.mul_f64(1.2)).contains(w)));
    let spread = *waits.iter().max().unwrap() - *waits.iter().min().unwrap();
    assert!(spread > Duration::from_secs(1), "{spread:?}");
}
