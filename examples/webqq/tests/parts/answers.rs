//! Parsing of the server's answers: literals and JSON, as the real server wrote them and as no
//! server should.

use std::panic::{AssertUnwindSafe, catch_unwind};

use httpstream::sim::Random;
use serde_json::{Value, json};

use crate::answers::{
    self, From, Item, Message, Picture, Poll, Trouble, arguments, bytes_of, login_sig, poll,
};

/// As it was documented, with the number in ASCII escapes.
const CHECK: &str = r"ptui_checkVC('0','!PTH','\x00\x00\x00\x00\x64\x74\x8b\x05');";
const PTLOGIN: &str = "ptuiCB('0','0','http://ptlogin4.web2.qq.com/check_sig?uin=1685359365&f_url=','0','登录成功！', '企鹅');\r\n";
const SIG: &str =
    r#"<script>var g_appid=1003903,g_login_sig=encodeURIComponent("7eT-*xQ9");</script>"#;
const FRIENDS: &str = r#"{"retcode":0,"result":{
    "friends":[{"uin":11,"categories":0,"flag":0},{"uin":12,"categories":0,"flag":0},{"uin":13,"categories":0,"flag":0}],
    "info":[{"uin":11,"nick":"Alice","face":0,"flag":0},{"uin":12,"nick":"Bob","face":0,"flag":0}],
    "marknames":[{"uin":12,"markname":"Bob from work","type":0}],
    "vipinfo":[{"u":11,"is_vip":0,"vip_level":0}],"categories":[{"index":0,"sort":0,"name":"我的好友"}]}}"#;
const GROUPS: &str = r#"{"retcode":0,"result":{
    "gnamelist":[{"name":"Rustaceans","gid":301,"code":401,"flag":1}],"gmasklist":[],"gmarklist":[]}}"#;
const MEMBERS: &str = r#"{"retcode":0,"result":{
    "ginfo":{"code":401,"gid":301,"name":"Rustaceans","owner":11,"members":[{"muin":11,"mflag":0}]},
    "minfo":[{"uin":11,"nick":"Alice","province":""},{"uin":12,"nick":"Bob"}],
    "stats":[{"uin":11,"stat":10,"client_type":41}],"cards":[{"muin":12,"card":"花"}],"vipinfo":[]}}"#;
const DISCUS: &str = r#"{"retcode":0,"result":{"dnamelist":[{"did":501,"name":"Lunch"}]}}"#;
const LOGIN2: &str = r#"{"retcode":0,"result":{"uin":1685359365,"cip":2005,"index":1075,"port":43332,
    "status":"online","vfwebqq":"f2ad","psessionid":"8368046764","user_state":0,"f":0}}"#;
/// Newest first.
const NEWS: &str = r#"{"retcode":0,"result":[
    {"poll_type":"group_message","value":{"msg_id":3,"msg_id2":33,"from_uin":301,"to_uin":1,"msg_type":43,"reply_ip":1,
        "group_code":401,"send_uin":12,"seq":1,"time":1400000003,"info_seq":9,
        "content":[["font",{"size":10,"color":"000000","style":[0,0,0],"name":"宋体"}],"look ",
            ["cface",{"name":"a.jpg","file_id":7,"key":"k","server":"10.1.2.3:8000"}]," here "]}},
    {"poll_type":"buddies_status_change","value":{"uin":11,"status":"away","client_type":1}},
    {"poll_type":"message","value":{"msg_id":2,"msg_id2":22,"from_uin":11,"to_uin":1,"msg_type":9,"reply_ip":1,
        "time":1400000002,"content":[["font",{"size":10}],"ping ",["face",14]]}}]}"#;

// ---- calls of literals ----

#[test]
fn the_documented_check_answer_gives_the_number_in_eight_bytes() {
    let found = arguments(CHECK, "ptui_checkVC").unwrap();
    assert_eq!(found[..2], ["0", "!PTH"]);
    assert_eq!(
        bytes_of(&found[2]),
        Some(1_685_359_365_u64.to_be_bytes().to_vec())
    );
    assert_eq!(bytes_of("\u{ff}"), Some(vec![0xff]));
    assert_eq!(bytes_of("\u{100}"), None);
}

#[test]
fn the_documented_ptlogin_answer_has_an_odd_space_and_text_in_utf_8() {
    let found = arguments(PTLOGIN, "ptuiCB").unwrap();
    let url = "http://ptlogin4.web2.qq.com/check_sig?uin=1685359365&f_url=";
    assert_eq!(found, ["0", "0", url, "0", "登录成功！", "企鹅"]);
}

#[test]
fn a_call_with_string_literals_is_read() {
    #[rustfmt::skip]
    let rows: &[(&str, &str, &[&str])] = &[
        ("one argument",                        "f('a')",                       &["a"]),
        ("an empty argument",                   "f('')",                        &[""]),
        ("quotes may be double",                r#"f("a","b")"#,                &["a", "b"]),
        ("each kind of quote may contain the other", r#"f("a'b",'a"b')"#,            &["a'b", "a\"b"]),
        ("space does not matter",               "\r\n f \t( 'a' ,\n'b' ) ; \n", &["a", "b"]),
        ("text that looks like code is text",   "f('a,b)+g(1);')",              &["a,b)+g(1);"]),
        ("a quote may be escaped",              r"f('it\'s')",                  &["it's"]),
        ("a backslash may be escaped",          r"f('a\\','b')",                &["a\\", "b"]),
        ("a slash may be escaped, as in JSON",  r"f('http:\/\/a.b\/')",         &["http://a.b/"]),
        ("a character in two hex digits",       r"f('\x41\xe9\xE9')",           &["Aéé"]),
        ("a character in four hex digits",      r"f('\u4f01\u9E45')",           &["企鹅"]),
        ("digits after an escape are text",     r"f('\x411')",                  &["A1"]),
        ("line ends",                           r"f('a\r\n\tb')",               &["a\r\n\tb"]),
        ("half a surrogate pair is invalid",    r"f('a\ud83db')",               &["a\u{fffd}b"]),
    ];
    for (why, text, expected) in rows {
        assert_eq!(arguments(text, "f").unwrap(), *expected, "{why}");
    }
}

#[test]
fn what_is_no_call_of_literals_is_refused() {
    #[rustfmt::skip]
    let rows: &[(&str, &str)] = &[
        ("the name alone",                      "f"),
        ("another name",                        "g('a')"),
        ("a longer name",                       "ff('a')"),
        ("something before it",                 "x=f('a')"),
        ("no argument",                         "f()"),
        ("no parenthesis at the end",           "f('a'"),
        ("no quote at the end",                 "f('a)"),
        ("the other quote at the end",          "f('a\")"),
        ("a backslash at the end",              r"f('a\"),
        ("a comma at the end",                  "f('a',)"),
        ("no comma",                            "f('a' 'b')"),
        ("a number",                            "f(0)"),
        ("a name",                              "f('a',b)"),
        ("null",                                "f(null)"),
        ("a sum",                               "f('a'+'b')"),
        ("a call",                              "f(g('a'))"),
        ("a function",                          "f(function(){}())"),
        ("a template",                          "f(`a`)"),
        ("a comment",                           "f(/**/'a')"),
        ("one hex digit",                       r"f('\x4')"),
        ("letters that are no hex digits",      r"f('\xgg')"),
        ("a sign",                              r"f('\x+1')"),
        ("three hex digits",                    r"f('\u123')"),
        ("a letter of two bytes",               r"f('\xé')"),
        ("a letter of three bytes",             r"f('\u1企')"),
        ("a method called on it",               "f('a').g('b')"),
        ("a sum with it",                       "f('a')+g()"),
        ("a second statement",                  "f('a');g('b');"),
        ("a page",                              "<html><body>f('a')</body></html>"),
    ];
    for (why, text) in rows {
        let found = arguments(text, "f");
        assert!(
            matches!(found, Err(Trouble::Garbled(_))),
            "{why}: {found:?}"
        );
    }
    for empty in ["", " \r\n"] {
        assert_eq!(arguments(empty, "f"), Err(Trouble::Empty));
    }
}

#[test]
fn what_was_not_understood_is_shown_by_its_beginning() {
    let page = "企".repeat(10_000);
    let trouble = arguments(&page, "ptuiCB").unwrap_err().to_string();
    assert!(trouble.contains("ptuiCB"), "{trouble}");
    assert!(trouble.chars().count() < 100, "{trouble}");
}

#[test]
fn login_sig_is_found_in_its_page() {
    #[rustfmt::skip]
    let rows: &[(&str, &str, Option<&str>)] = &[
        ("among other things",          SIG,                                                Some("7eT-*xQ9")),
        ("in single quotes",            "g_login_sig=encodeURIComponent( 'a')",             Some("a")),
        ("an empty one counts",         "g_login_sig=encodeURIComponent(\"\")",             Some("")),
        ("a page may have none",        "<html>g_login_sig</html>",                         None),
        ("an empty page",               "",                                                 None),
        ("a name is not looked up",     "g_login_sig=encodeURIComponent(document.cookie)",  None),
        ("a literal that never ends",   "g_login_sig=encodeURIComponent(\"a",               None),
    ];
    for (why, page, expected) in rows {
        assert_eq!(login_sig(page).as_deref(), *expected, "{why}");
    }
}

// ---- JSON ----

/// A successful answer with this result.
fn good(result: &Value) -> String {
    json!({ "retcode": 0, "result": result }).to_string()
}

fn pairs(found: Result<Vec<(u64, String)>, Trouble>) -> String {
    let found = found.unwrap();
    let found: Vec<String> = found
        .iter()
        .map(|(uin, name)| format!("{uin} {name}").trim().to_owned())
        .collect();
    found.join(", ")
}

#[test]
fn an_answer_is_an_object_whose_retcode_is_0() {
    #[rustfmt::skip]
    let rows: &[(&str, &str, Result<Value, Trouble>)] = &[
        ("the result is returned",          r#"{"retcode":0,"result":"ok"}"#,   Ok(json!("ok"))),
        ("the retcode may be missing",      r#"{"result":{"dnamelist":[]}}"#,   Ok(json!({"dnamelist":[]}))),
        ("the result may be missing",       r#"{"retcode":0}"#,                 Ok(Value::Null)),
        ("spaces around it do not matter",  "\r\n {\"retcode\":0} \n",          Ok(Value::Null)),
        ("another retcode is trouble",      r#"{"retcode":103,"errmsg":""}"#,   Err(Trouble::Retcode(103))),
        ("a retcode is trouble even with a result", r#"{"retcode":8,"result":"ok"}"#,   Err(Trouble::Retcode(8))),
        ("a retcode may be negative",       r#"{"retcode":-1}"#,                Err(Trouble::Retcode(-1))),
        ("an empty answer",                 "",                                 Err(Trouble::Empty)),
        ("white space only",                "\r\n",                             Err(Trouble::Empty)),
    ];
    for (why, answer, expected) in rows {
        assert_eq!(answers::result(answer), *expected, "{why}");
    }
    let deep = "[".repeat(100_000);
    for (why, answer) in [
        ("an HTML page", "<html><body>busy</body></html>"),
        ("half an object", r#"{"retcode":0,"res"#),
        ("a list", "[0]"),
        ("a number", "0"),
        ("a script", r#"cb({"retcode":0})"#),
        ("nesting is limited", &*deep),
    ] {
        let found = answers::result(answer);
        assert!(
            matches!(found, Err(Trouble::Garbled(_))),
            "{why}: {found:?}"
        );
    }
}

#[test]
fn login2_gives_both_keys_or_says_which_is_missing() {
    let keys = answers::keys(LOGIN2).ok().unwrap();
    assert_eq!((&*keys.vfwebqq, &*keys.psessionid), ("f2ad", "8368046764"));
    for (why, missing, result) in [
        ("absent", "vfwebqq", json!({"psessionid": "a"})),
        (
            "null",
            "psessionid",
            json!({"vfwebqq": "a", "psessionid": null}),
        ),
        (
            "empty",
            "vfwebqq",
            json!({"vfwebqq": "", "psessionid": "a"}),
        ),
        (
            "a number",
            "vfwebqq",
            json!({"vfwebqq": 1, "psessionid": "a"}),
        ),
        ("no object", "vfwebqq", json!("ok")),
    ] {
        match answers::keys(&good(&result)) {
            Err(Trouble::Garbled(what)) => assert!(what.contains(missing), "{why}: {what}"),
            _ => panic!("{why}"),
        }
    }
}

#[test]
fn friends_are_read_whatever_their_list_lacks() {
    assert_eq!(
        pairs(answers::friends(FRIENDS)),
        "11 Alice, 12 Bob from work, 13"
    );
    #[rustfmt::skip]
    let rows = [
        ("numbers may be strings",
            json!({"friends": [{"uin": "11"}], "info": [{"uin": 11, "nick": "Alice"}]}),                    "11 Alice"),
        ("a nick may be null",
            json!({"friends": [{"uin": 11}], "info": [{"uin": 11, "nick": null}]}),                         "11"),
        ("an empty markname does not count",
            json!({"friends": [{"uin": 11}], "info": [{"uin": 11, "nick": "Alice"}], "marknames": [{"uin": 11, "markname": ""}]}), "11 Alice"),
        ("a ghost has at most a markname",
            json!({"friends": [{"uin": 11}], "marknames": [{"uin": 11, "markname": "Al"}]}),                "11 Al"),
        ("somebody who is named but not a friend is left out",
            json!({"friends": [{"uin": 11}], "info": [{"uin": 11, "nick": "Alice"}, {"uin": 12, "nick": "Bob"}]}), "11 Alice"),
        ("an entry without a number is left out",
            json!({"friends": [{}, null, {"uin": null}, {"uin": "x"}, {"uin": -1}, 7, {"uin": 11}]}),       "11"),
        ("lists may be null",
            json!({"friends": [{"uin": 11}], "info": null, "marknames": null}),                             "11"),
        ("lists may have another type",
            json!({"friends": {"uin": 11}, "info": 3}),                                                     ""),
        ("there may be no friends",             json!({}),                                                  ""),
        ("there may be no result",              Value::Null,                                                ""),
        ("the result may have another type",    json!("ok"),                                                ""),
    ];
    for (why, result, expected) in rows {
        assert_eq!(pairs(answers::friends(&good(&result))), expected, "{why}");
    }
    let refused = answers::friends(r#"{"retcode":100101}"#);
    assert_eq!(refused, Err(Trouble::Retcode(100101)));
}

#[test]
fn groups_have_a_gid_and_a_code() {
    let show = |answer: &str| {
        let groups = answers::groups(answer).ok().unwrap();
        let groups: Vec<String> = groups
            .iter()
            .map(|g| format!("{}/{} {}", g.gid, g.code, g.name))
            .collect();
        groups.join(", ")
    };
    assert_eq!(show(GROUPS), "301/401 Rustaceans");
    let odd = json!({"gnamelist": [
        {"gid": "301", "code": "401", "name": null},
        {"gid": 302, "name": "no code"},
        {"code": 402, "name": "no gid"},
    ]});
    assert_eq!(show(&good(&odd)), "301/401 ");
    for none in [json!({}), json!({"gnamelist": null}), Value::Null] {
        assert_eq!(show(&good(&none)), "");
    }
}

#[test]
fn members_wear_their_cards() {
    assert_eq!(pairs(answers::members(MEMBERS)), "11 Alice, 12 花");
    let minfo = json!([{"uin": 11, "nick": "Alice"}, {"uin": "12", "nick": null}]);
    #[rustfmt::skip]
    let rows = [
        ("cards may be absent",         json!({"minfo": minfo}),                                            "11 Alice, 12"),
        ("cards may be null",           json!({"minfo": minfo, "cards": null}),                             "11 Alice, 12"),
        ("an empty card does not count", json!({"minfo": minfo, "cards": [{"muin": 11, "card": ""}]}),       "11 Alice, 12"),
        ("a null card does not count",  json!({"minfo": minfo, "cards": [{"muin": 11, "card": null}]}),     "11 Alice, 12"),
        ("a card's number may be a string", json!({"minfo": minfo, "cards": [{"muin": "12", "card": "Bob"}]}),  "11 Alice, 12 Bob"),
        ("a ghost's card does not count", json!({"minfo": [], "cards": [{"muin": 13, "card": "Ghost"}]}),     ""),
    ];
    for (why, result, expected) in rows {
        assert_eq!(pairs(answers::members(&good(&result))), expected, "{why}");
    }
}

#[test]
fn discussions_need_no_retcode_and_no_names() {
    assert_eq!(pairs(answers::discus(DISCUS)), "501 Lunch");
    let bare = r#"{"result":{"dnamelist":[{"did":"501","name":null},{"name":"no did"}]}}"#;
    assert_eq!(pairs(answers::discus(bare)), "501");
    let people = r#"{"result":{"info":{},"mem_info":[{"uin":11,"nick":"Alice"},{"uin":12}],"mem_status":[]}}"#;
    assert_eq!(pairs(answers::discu_people(people)), "11 Alice, 12");
}

#[test]
fn an_account_is_a_number_and_a_signature_a_string() {
    let account = |value| answers::account(&good(&json!({ "uiuin": "", "account": value })));
    assert_eq!(account(json!(10_001)), Ok(10_001));
    assert_eq!(account(json!("10001")), Ok(10_001));
    assert!(matches!(account(Value::Null), Err(Trouble::Garbled(_))));
    let signature = |value| answers::signature(&good(&json!({ "type": 0, "value": value })));
    assert_eq!(signature(json!("a2b")), Ok("a2b".to_owned()));
    assert!(matches!(signature(json!(7)), Err(Trouble::Garbled(_))));
    assert!(matches!(signature(Value::Null), Err(Trouble::Garbled(_))));
}

// ---- the poll ----

fn items(answer: &str) -> Vec<Item> {
    match poll(answer) {
        Ok(Poll::Items(items)) => items,
        Ok(Poll::NewPtwebqq(_)) => panic!("116"),
        Err(trouble) => panic!("{trouble}"),
    }
}

/// The only item of a poll with this value.
fn item(kind: &str, value: &Value) -> Item {
    let mut items = items(&good(&json!([{ "poll_type": kind, "value": value }])));
    assert_eq!(items.len(), 1);
    items.remove(0)
}

fn message(kind: &str, value: &Value) -> Option<Message> {
    match item(kind, value) {
        Item::Message(message) => Some(message),
        Item::Kick(_) | Item::Other => None,
    }
}

#[test]
fn news_are_told_oldest_first() {
    let [Item::Message(first), Item::Other, Item::Message(last)] = &*items(NEWS) else {
        panic!("expected three items, the second of which is not a message");
    };
    assert_eq!(first.from, From::Buddy { uin: 11 });
    assert_eq!((first.id.msg_id, &*first.text), (2, "ping"));
    assert_eq!(first.picture, None);
    assert_eq!(last.from, From::Group { gid: 301, uin: 12 });
    assert_eq!((last.id.msg_id, &*last.text), (3, "look  here"));
    let picture = Picture::Group {
        gid: 301,
        uin: 12,
        file_id: 7,
        name: "a.jpg".to_owned(),
        server: "10.1.2.3:8000".to_owned(),
    };
    assert_eq!(last.picture, Some(picture));
}

#[test]
fn a_poll_may_bring_nothing() {
    for answer in [
        r#"{"retcode":0,"result":"ok"}"#,
        r#"{"retcode":0,"result":[]}"#,
        r#"{"retcode":0,"result":null}"#,
        r#"{"retcode":0}"#,
    ] {
        assert!(items(answer).is_empty(), "{answer}");
    }
}

#[test]
fn retcode_116_brings_a_cookie_and_others_are_trouble() {
    match poll(r#"{"retcode":116,"p":"2c14c3"}"#) {
        Ok(Poll::NewPtwebqq(value)) => assert_eq!(value, "2c14c3"),
        _ => panic!("not a new ptwebqq"),
    }
    #[rustfmt::skip]
    let rows = [
        (r#"{"retcode":102,"errmsg":""}"#,      Trouble::Retcode(102)),
        (r#"{"retcode":121,"t":"0"}"#,          Trouble::Retcode(121)),
        (r#"{"retcode":103,"result":[]}"#,      Trouble::Retcode(103)),
        ("",                                    Trouble::Empty),
    ];
    for (answer, expected) in rows {
        assert_eq!(poll(answer).err(), Some(expected), "{answer}");
    }
    for answer in ["<html>busy</html>", "{}", r#"{"retcode":null}"#, "[]"] {
        let trouble = poll(answer).err();
        assert!(
            matches!(trouble, Some(Trouble::Garbled(_))),
            "{answer}: {trouble:?}"
        );
    }
}

/// Otherwise the bot would continue with an empty cookie.
#[test]
fn retcode_116_without_its_cookie_is_not_understood() {
    for answer in [
        r#"{"retcode":116}"#,
        r#"{"retcode":116,"p":""}"#,
        r#"{"retcode":116,"p":7}"#,
    ] {
        let trouble = poll(answer).err();
        assert!(
            matches!(trouble, Some(Trouble::Garbled(_))),
            "{answer}: {trouble:?}"
        );
    }
}

#[test]
fn a_kick_says_why_if_it_likes() {
    let value = json!({"way": "poll", "show_reason": 1, "reason": "logged in elsewhere"});
    let kick = |value: &Value| match item("kick_message", value) {
        Item::Kick(reason) => reason,
        Item::Message(_) | Item::Other => panic!("not a kick"),
    };
    assert_eq!(kick(&value), "logged in elsewhere");
    assert_eq!(kick(&json!({"way": "poll", "show_reason": 0})), "");
    assert_eq!(kick(&Value::Null), "");
}

#[test]
fn each_kind_of_message_says_who_speaks_and_where() {
    let more = |more: Value| {
        let mut value = json!({"msg_id": 1, "msg_id2": 2, "time": 3, "content": ["a"]});
        let (Value::Object(all), Value::Object(more)) = (&mut value, more) else {
            unreachable!()
        };
        all.extend(more);
        value
    };
    #[rustfmt::skip]
    let rows = [
        ("message",         json!({"from_uin": 11}),                    Some(From::Buddy { uin: 11 })),
        ("message",         json!({"from_uin": "11"}),                  Some(From::Buddy { uin: 11 })),
        ("message",         json!({"from_uin": null}),                  None),
        ("group_message",   json!({"from_uin": 301, "send_uin": 12, "group_code": 401}), Some(From::Group { gid: 301, uin: 12 })),
        ("group_message",   json!({"from_uin": 301}),                   None),
        ("discu_message",   json!({"did": 501, "send_uin": 12, "from_uin": 501}), Some(From::Discu { did: 501, uin: 12 })),
        ("discu_message",   json!({"send_uin": 12}),                    None),
        ("sess_message",    json!({"id": 301, "from_uin": 13, "ruin": 10_001}), Some(From::Sess { gid: 301, uin: 13 })),
        ("sess_message",    json!({"from_uin": 13}),                    None),
        ("shake_message",   json!({"from_uin": 11}),                    None),
        ("system_message",  json!({"from_uin": 11, "type": "verify_required"}), None),
        ("file_message",    json!({"from_uin": 11}),                    None),
        ("",                json!({"from_uin": 11}),                    None),
    ];
    for (kind, value, expected) in rows {
        let found = message(kind, &more(value.clone()));
        assert_eq!(found.map(|m| m.from), expected, "{kind} {value}");
    }
}

#[test]
fn a_message_needs_an_id_and_a_content() {
    #[rustfmt::skip]
    let rows = [
        ("both",                        json!({"msg_id": 1, "content": ["a"]}),     Some("a")),
        ("the id may be a string",      json!({"msg_id": "1", "content": ["a"]}),   Some("a")),
        ("no id",                       json!({"content": ["a"]}),                  None),
        ("a null id",                   json!({"msg_id": null, "content": ["a"]}),  None),
        ("no content",                  json!({"msg_id": 1}),                       None),
        ("null content",                json!({"msg_id": 1, "content": null}),      None),
        ("content without text",        json!({"msg_id": 1, "content": []}),        Some("")),
        ("parts of other kinds",        json!({"msg_id": 1, "content": [null, 3, {}, [], [[]], ["font", {}], " a ", "b ", ["face", 14], "c "]}), Some("a b c")),
    ];
    for (why, mut value, expected) in rows {
        value["from_uin"] = json!(11);
        let found = message("message", &value);
        assert_eq!(found.as_ref().map(|m| &*m.text), expected, "{why}");
    }
}

#[test]
fn a_message_is_the_same_in_another_login_and_none_other_is() {
    let id = |uin: u64, msg_id: u64, msg_id2: u64, time: u64| {
        let value = json!({"from_uin": uin, "msg_id": msg_id, "msg_id2": msg_id2, "time": time, "content": []});
        message("message", &value).unwrap().id
    };
    assert_eq!(id(11, 1, 2, 3), id(99, 1, 2, 3));
    assert_ne!(id(11, 1, 2, 3), id(11, 9, 2, 3));
    assert_ne!(id(11, 1, 2, 3), id(11, 1, 9, 3));
    assert_ne!(id(11, 1, 2, 3), id(11, 1, 2, 9));
}

#[test]
fn pictures_are_those_their_place_has() {
    let offpic = json!(["offpic", {"success": 1, "file_path": "/a b"}]);
    let cface = json!(["cface", {"file_id": "7", "key": "k"}]);
    let offline = |from_uin| Picture::Offline {
        file_path: "/a b".to_owned(),
        from_uin,
    };
    // Missing values stay empty: whether to accept them is up to the server.
    let group = |gid| Picture::Group {
        gid,
        uin: 12,
        file_id: 7,
        name: String::new(),
        server: String::new(),
    };
    #[rustfmt::skip]
    let rows = [
        ("message",         json!({"from_uin": 11}),                    &offpic, Some(offline(11))),
        ("sess_message",    json!({"id": 301, "from_uin": 13}),         &offpic, Some(offline(13))),
        ("group_message",   json!({"from_uin": 301, "send_uin": 12}),   &cface,  Some(group(301))),
        ("discu_message",   json!({"did": 501, "send_uin": 12}),        &cface,  Some(group(501))),
        ("message",         json!({"from_uin": 11}),                    &cface,  None),
        ("group_message",   json!({"from_uin": 301, "send_uin": 12}),   &offpic, None),
    ];
    for (kind, mut value, part, expected) in rows {
        value["msg_id"] = json!(1);
        value["content"] = json!(["look", part]);
        let found = message(kind, &value).unwrap();
        assert_eq!(
            (&*found.text, found.picture),
            ("look", expected),
            "{kind} {part}"
        );
    }
}

// ---- properties ----

fn read_as_everything(text: &str) {
    let _ = (arguments(text, "ptuiCB"), arguments(text, "ptui_checkVC"));
    let _ = (login_sig(text), bytes_of(text));
    let _ = (answers::keys(text).is_ok(), answers::friends(text));
    let _ = (answers::groups(text).is_ok(), answers::members(text));
    let _ = (answers::discus(text), answers::discu_people(text));
    let _ = (answers::account(text), answers::signature(text));
    if let Err(trouble) = poll(text) {
        let _ = trouble.to_string();
    }
}

/// Changes, removes, doubles and truncates bytes.
fn spoil_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.between(1, 4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let end = random.between(at, bytes.len().min(at + 9));
        match random.below(5) {
            0 => bytes[at] = random.next_u64() as u8,
            1 => bytes[at] = *random.pick(br#""'\,:{}[]()0xu-e"#),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.truncate(at),
        }
    }
}

/// Replaces or removes a value in it.
fn spoil_value(value: &mut Value, random: &mut Random) {
    let inside = match value {
        Value::Array(items) if !items.is_empty() => {
            let at = random.below(items.len());
            items.get_mut(at)
        }
        Value::Object(fields) if !fields.is_empty() => {
            let at = random.below(fields.len());
            fields.values_mut().nth(at)
        }
        _ => None,
    };
    match inside {
        Some(inside) if random.chance(800) => spoil_value(inside, random),
        _ => {
            let odd = [
                Value::Null,
                json!([]),
                json!({}),
                json!(""),
                json!("企鹅"),
                json!(-1),
                json!(1.5e300),
                json!(u64::MAX),
                json!(u64::MAX.to_string() + "0"),
                json!([[], {}]),
            ];
            *value = random.pick(&odd).clone();
        }
    }
}

#[test]
fn no_answer_makes_a_panic() {
    let real = [
        CHECK, PTLOGIN, SIG, FRIENDS, GROUPS, MEMBERS, DISCUS, LOGIN2, NEWS,
    ];
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let real = *random.pick(&real);
        let text = match (random.below(3), serde_json::from_str::<Value>(real)) {
            (0, _) => {
                let count = random.below(60);
                String::from_utf8_lossy(&random.bytes(count)).into_owned()
            }
            (1, Ok(mut value)) => {
                spoil_value(&mut value, &mut random);
                value.to_string()
            }
            _ => {
                let mut bytes = real.as_bytes().to_vec();
                spoil_bytes(&mut bytes, &mut random);
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        let read = catch_unwind(AssertUnwindSafe(|| read_as_everything(&text)));
        assert!(read.is_ok(), "seed {seed}: {text}");
    }
}

#[test]
fn a_word_too_long_for_a_request_is_not_taken() {
    let long = "x".repeat(70_000);
    assert_eq!(
        login_sig(&format!("g_login_sig=encodeURIComponent(\"{long}\")")),
        None
    );
    let check = format!("ptui_checkVC('0','{long}','\\x00');");
    assert!(matches!(
        arguments(&check, "ptui_checkVC"),
        Err(Trouble::Garbled(_))
    ));
    for name in ["vfwebqq", "psessionid"] {
        let mut result = json!({ "vfwebqq": "v", "psessionid": "p" });
        result[name] = long.clone().into();
        let answer = json!({ "retcode": 0, "result": result }).to_string();
        assert!(
            matches!(answers::keys(&answer), Err(Trouble::Garbled(_))),
            "{name}"
        );
    }
    let answer = json!({ "retcode": 116, "p": long }).to_string();
    assert!(matches!(poll(&answer), Err(Trouble::Garbled(_))));
    let answer = json!({ "retcode": 0, "result": { "value": long } }).to_string();
    assert!(matches!(
        answers::signature(&answer),
        Err(Trouble::Garbled(_))
    ));
}
