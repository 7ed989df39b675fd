//! Messages from a bot: where they go, how fast, and what a lost answer means.

use serde_json::json;

use super::client::{json, retcode};
use super::{NUMBER, errors, online};
use crate::server::{Fault, Manner, Place, Step};

#[test]
fn what_is_sent_is_heard_where_it_was_sent_to() {
    let mut client = online();
    let alice = client.alice();
    let (gid, goran) = client.member("Goran");
    let list = json(&client.query("s.web2.qq.com", "/api/get_discus_list", ""));
    let did = &list["result"]["dnamelist"][0]["did"];
    client.send_buddy(alice, "\"a\" 你");
    client
        .after(0.5)
        .send("send_qun_msg2", json!({"group_uin": gid}), "b");
    client
        .after(0.5)
        .send("send_discu_msg2", json!({"did": did}), "c");
    let sig = json(&client.sess_sig("Goran"))["result"]["value"].clone();
    let to = json!({"to": goran, "group_sig": sig, "face": 549, "service_type": 0});
    client.after(0.5).send("send_sess_msg2", to, "d");
    let answers = client.server.ledger().answers.iter();
    let heard: Vec<_> = answers
        .map(|h| (h.place.clone(), h.to.as_str(), h.text.as_str(), h.accepted))
        .collect();
    assert_eq!(
        heard,
        [
            (Place::Buddy, "Alice", "\"a\" 你", true),
            (Place::Group("Rustaceans".into()), "", "b", true),
            (Place::Discu("Lunch".into()), "", "c", true),
            (Place::Sess("Rustaceans".into()), "Goran", "d", true),
        ]
    );
    assert_eq!(errors(&client.server), []);
}

#[test]
fn sends_keep_their_distance() {
    let mut client = online();
    let alice = client.alice();
    assert_eq!(retcode(&client.send_buddy(alice, "a")), 0);
    assert_eq!(retcode(&client.after(0.499).send_buddy(alice, "b")), 108);
    assert_eq!(retcode(&client.after(0.001).send_buddy(alice, "c")), 0);
    assert_eq!(
        errors(&client.server),
        [("sent too soon after the last one", false)]
    );
}

#[test]
fn retcodes_say_whether_people_have_read_it() {
    for (code, accepted) in [
        (1202, true),
        (100_003, true),
        (100_100, true),
        (108, false),
        (103, false),
        (8, false),
        (100_001, false),
        (100_012, false),
    ] {
        let mut client = online();
        let alice = client.alice();
        client
            .server
            .arm(NUMBER, Step::SendBuddy, Fault::Retcode(code));
        assert_eq!(retcode(&client.send_buddy(alice, "a")), code);
        let heard = &client.server.ledger().answers[0];
        assert_eq!((heard.retcode, heard.accepted), (code, accepted));
        assert_eq!(errors(&client.server), []);
    }
}

#[test]
fn retcode_8_ends_the_session() {
    let mut client = online();
    let alice = client.alice();
    client
        .server
        .arm(NUMBER, Step::SendBuddy, Fault::Retcode(8));
    client.send_buddy(alice, "a");
    assert_eq!(retcode(&client.news().unwrap()), 121);
    assert_eq!(retcode(&client.send_buddy(alice, "b")), 8);
    assert_eq!(
        errors(&client.server),
        [("a session that is not the present one", true)]
    );
    client.login2();
    assert_eq!(retcode(&client.send_buddy(alice, "c")), 0);
}

#[test]
fn a_lost_answer_was_heard_and_is_no_excuse_to_send_again() {
    for fault in [
        Fault::NoByte,
        Fault::Reset,
        Fault::CutShort,
        Fault::Empty,
        Fault::Status(500),
    ] {
        let mut client = online();
        let alice = client.alice();
        client.server.arm(NUMBER, Step::SendBuddy, fault);
        client.send_buddy(alice, "a");
        assert!(client.server.ledger().answers[0].accepted, "{fault:?}");
        client.msg_id -= 1;
        assert_eq!(retcode(&client.after(5.0).send_buddy(alice, "a")), 100_001);
        assert_eq!(
            errors(&client.server),
            [("msg_id does not count upwards", false)]
        );
    }
}

#[test]
fn a_picture_can_be_fetched_by_whom_it_was_sent_to() {
    let mut client = online();
    client
        .server
        .say(client.now, NUMBER, &Place::Buddy, "Alice", "look", true);
    let item = json(&client.news().unwrap())["result"][0]["value"].clone();
    let file = item["content"][2][1]["file_path"]
        .as_str()
        .unwrap()
        .to_owned();
    let more = format!("file_path={file}&f_uin={}", item["from_uin"]);
    let picture = client.query("d.web2.qq.com", "/channel/get_offpic2", &more);
    assert_eq!((picture.status, picture.manner), (200, Manner::Length));
    let fetched = &client.server.ledger().pictures[0];
    assert_eq!((fetched.nonce, fetched.len), (1, picture.body.len()));

    client.hold_poll();
    let place = Place::Group("Rustaceans".into());
    client
        .server
        .say(client.now, NUMBER, &place, "Hana", "look", true);
    let item = json(&client.news().unwrap())["result"][0]["value"].clone();
    let more = format!(
        "type=0&gid={}&uin={}&fid={}",
        item["group_code"], item["send_uin"], item["content"][2][1]["file_id"]
    );
    assert_eq!(
        client
            .query("web2.qq.com", "/cgi-bin/get_group_pic", &more)
            .status,
        200
    );
    assert_eq!(
        client
            .query(
                "web2.qq.com",
                "/cgi-bin/get_group_pic",
                &more.replace("fid=2", "fid=7")
            )
            .status,
        400
    );
    assert_eq!(
        errors(&client.server),
        [("no such picture was sent", false)]
    );
}

#[test]
fn the_weather_is_told_to_anybody_without_cookies() {
    let mut client = online();
    let today = client.get("http://api.weather.example/today?city=Ulm", "");
    assert_eq!(today.body, b"Ulm: sunny, 21 C");
    assert_eq!(
        client
            .get("http://api.weather.example/today?city=nowhere", "")
            .status,
        404
    );
    assert_eq!(errors(&client.server), []);
}
