//! A client that follows the protocol exactly, one call at a time. A test may alter one of its
//! calls.

use std::time::Duration;

use serde_json::{Value, json};

use super::jar::{self, Kept};
use crate::server::{Answer, Call, HoldId, Https, Reaction, Scheme, Server, Step, Wish, hashes};

pub(crate) struct Client {
    pub(crate) server: Server,
    pub(crate) now: Duration,
    pub(crate) account: u64,
    pub(crate) password: String,
    /// The connection that calls arrive on.
    pub(crate) connection: u64,
    pub(crate) jar: Vec<Kept>,
    pub(crate) ptwebqq: String,
    pub(crate) vfwebqq: String,
    pub(crate) psessionid: String,
    pub(crate) clientid: String,
    pub(crate) msg_id: u64,
    pub(crate) rc: u64,
    pub(crate) login_sig: String,
    pub(crate) held: Option<HoldId>,
    spoil: Option<Spoil>,
}

type Spoil = Box<dyn Fn(&mut Call)>;

const S: &str = "http://s.web2.qq.com";
const D: &str = "http://d.web2.qq.com";
const LOGIN_PROXY: &str = "http://www.qq.com/loginproxy.html?login2qq=1&webqq_type=10";

/// Whether the step was https in 2013.
fn is_https(host: &str, path: &str) -> bool {
    match host {
        "ui.ptlogin2.qq.com" | "ssl.captcha.qq.com" | "ssl.ptlogin2.qq.com" => true,
        "d.web2.qq.com" => matches!(
            path.strip_prefix("/channel/"),
            Some(
                "get_online_buddies2"
                    | "get_discu_info"
                    | "send_discu_msg2"
                    | "get_c2cmsg_sig2"
                    | "send_sess_msg2"
                    | "logout2"
            )
        ),
        _ => false,
    }
}

impl Client {
    pub(crate) fn new(server: Server, account: u64) -> Self {
        let password = server.account(account).unwrap().password.clone();
        Self {
            server,
            account,
            password,
            now: Duration::from_secs(1),
            connection: 1,
            jar: Vec::new(),
            ptwebqq: String::new(),
            vfwebqq: String::new(),
            psessionid: String::new(),
            clientid: "53999199".into(),
            msg_id: 12_345_678,
            rc: 41,
            login_sig: String::new(),
            held: None,
            spoil: None,
        }
    }

    /// Alters the next call.
    pub(crate) fn spoil(&mut self, spoil: impl Fn(&mut Call) + 'static) {
        self.spoil = Some(Box::new(spoil));
    }

    pub(crate) fn after(&mut self, seconds: f64) -> &mut Self {
        self.now += Duration::from_secs_f64(seconds);
        self.server.on_time(self.now);
        self
    }

    // Steps of a login.

    pub(crate) fn log_in(&mut self) {
        self.sig();
        let code = self.check().expect("no captcha is required");
        let url = self.ptlogin(&code).expect("the code is right");
        self.checksig(&url);
        assert_eq!(retcode(&self.login2()), 0);
    }

    pub(crate) fn sig(&mut self) -> Answer {
        let url = "http://ui.ptlogin2.qq.com/cgi-bin/login?daid=164&target=self&style=5&mibao_css=m_webqq\
                   &appid=1003903&enable_qlogin=0&no_verifyimg=1&s_url=http%3A%2F%2Fweb2.qq.com%2Floginproxy.html\
                   &f_url=loginerroralert&strong_login=1&login_state=10&t=20130723001";
        let page = self.get(url, "");
        let text = body(&page);
        let start = text.split("g_login_sig=encodeURIComponent(\"").nth(1);
        self.login_sig = start
            .and_then(|s| s.split('"').next())
            .unwrap_or_default()
            .into();
        page
    }

    pub(crate) fn check_answer(&mut self) -> Answer {
        let url = format!(
            "http://check.ptlogin2.qq.com/check?uin={}&appid=1003903&u1=http%3A%2F%2Fweb2.qq.com&login_sig={}\
             &js_ver=10040&js_type=0&r=0.5",
            self.account, self.login_sig
        );
        self.get(&url, "http://ui.ptlogin2.qq.com/cgi-bin/login")
    }

    /// Returns the code from CHECK, or `None` if it requires a captcha.
    pub(crate) fn check(&mut self) -> Option<String> {
        let text = body(&self.check_answer());
        let code = text.strip_prefix("ptui_checkVC('0','")?;
        code.split('\'').next().map(str::to_owned)
    }

    pub(crate) fn captcha(&mut self) -> Answer {
        let url = format!(
            "http://ssl.captcha.qq.com/getimage?aid=1003903&r=0.5&uin={}",
            self.account
        );
        self.get(&url, "")
    }

    /// Fetches the picture, and waits until a person has read it.
    pub(crate) fn read_captcha(&mut self) -> String {
        self.captcha();
        self.after(2.0);
        match self.server.take_wishes().pop() {
            Some(Wish::Code { code, .. }) => code,
            other => panic!("no code: {other:?}"),
        }
    }

    pub(crate) fn ptlogin_answer(&mut self, code: &str) -> Answer {
        let p = hashes::password(self.account, &self.password, code);
        let mut query = form_urlencoded::Serializer::new(String::new());
        let uin = self.account.to_string();
        query.extend_pairs([
            ("u", uin.as_str()),
            ("p", &p),
            ("verifycode", &code.to_lowercase()),
            ("u1", LOGIN_PROXY),
            ("login_sig", &self.login_sig),
        ]);
        let rest = "webqq_type=10&remember_uin=1&login2qq=1&aid=1003903&h=1&ptredirect=0&ptlang=2052&daid=164\
                    &from_ui=1&pttype=1&dumy=&fp=loginerroralert&action=4-5-8246&mibao_css=m_webqq&t=1&g=1\
                    &js_type=0&js_ver=10040";
        let url = format!("http://ssl.ptlogin2.qq.com/login?{}&{rest}", query.finish());
        self.get(&url, "")
    }

    /// Returns the URL of CHECKSIG, or the code of the refusal.
    pub(crate) fn ptlogin(&mut self, code: &str) -> Result<String, String> {
        let text = body(&self.ptlogin_answer(code));
        let fields: Vec<&str> = text.split('\'').collect();
        match fields[1] {
            "0" => {
                self.ptwebqq = self.cookie("ptwebqq");
                Ok(fields[5].to_owned())
            }
            code => Err(code.to_owned()),
        }
    }

    /// Follows redirects, and returns how many there were.
    pub(crate) fn checksig(&mut self, url: &str) -> usize {
        let mut url = url.to_owned();
        for hops in 0.. {
            let answer = self.get(&url, "http://ui.ptlogin2.qq.com/");
            if answer.status != 302 {
                return hops;
            }
            let (_, location) = answer
                .headers
                .iter()
                .find(|(name, _)| name == "location")
                .unwrap();
            let host = url.split('/').nth(2).unwrap().to_owned();
            url = match location.as_str() {
                absolute if absolute.starts_with("http:") => absolute.to_owned(),
                other if other.starts_with("//") => format!("http:{other}"),
                other => format!("http://{host}/{}", other.trim_start_matches('/')),
            };
        }
        unreachable!()
    }

    pub(crate) fn login2(&mut self) -> Answer {
        let r = json!({"status": "online", "ptwebqq": self.ptwebqq, "passwd_sig": "",
            "clientid": self.clientid, "psessionid": null});
        let clientid = self.clientid.clone();
        let form = [
            ("r", r.to_string()),
            ("clientid", clientid),
            ("psessionid", "null".into()),
        ];
        let answer = self.post(&format!("{D}/channel/login2"), &form);
        if let Some(result) = json(&answer).get("result") {
            let text = |name: &str| result[name].as_str().unwrap().to_owned();
            (self.vfwebqq, self.psessionid) = (text("vfwebqq"), text("psessionid"));
        }
        answer
    }

    // Steps of a session.

    pub(crate) fn friends(&mut self) -> Answer {
        unheld(self.call_friends())
    }

    pub(crate) fn call_friends(&mut self) -> Reaction {
        let hash = hashes::list(self.account, &self.ptwebqq);
        let r = json!({"h": "hello", "hash": hash, "vfwebqq": self.vfwebqq});
        self.post_call(
            &format!("{S}/api/get_user_friends2"),
            &[("r", r.to_string())],
        )
    }

    pub(crate) fn call_groups(&mut self) -> Reaction {
        let hash = hashes::list(self.account, &self.ptwebqq);
        let r = json!({"hash": hash, "vfwebqq": self.vfwebqq});
        let url = format!("{S}/api/get_group_name_list_mask2");
        self.post_call(&url, &[("r", r.to_string())])
    }

    pub(crate) fn groups(&mut self) -> Answer {
        unheld(self.call_groups())
    }

    pub(crate) fn call_members(&mut self, code: u64) -> Reaction {
        let vfwebqq = &self.vfwebqq;
        let query = format!("gcode={code}&vfwebqq={vfwebqq}&cb=undefined&t=1");
        self.get_call(&format!("{S}/api/get_group_info_ext2?{query}"), S)
    }

    /// A GET to d.web2.qq.com or s.web2.qq.com that names the session, with `more` parameters.
    pub(crate) fn query(&mut self, host: &str, path: &str, more: &str) -> Answer {
        let query = format!(
            "clientid={}&psessionid={}&vfwebqq={}&t=1&{more}",
            self.clientid, self.psessionid, self.vfwebqq
        );
        self.get(&format!("http://{host}{path}?{query}"), S)
    }

    pub(crate) fn poll(&mut self) -> Reaction {
        let r =
            json!({"clientid": self.clientid, "psessionid": self.psessionid, "key": 0, "ids": []});
        let form = self.channel_form(r);
        self.post_call(&format!("{D}/channel/poll2"), &form)
    }

    /// A poll that is answered at once.
    pub(crate) fn poll_answer(&mut self) -> Answer {
        unheld(self.poll())
    }

    pub(crate) fn hold_poll(&mut self) -> HoldId {
        match self.poll() {
            Reaction::Hold(hold) => {
                self.held = Some(hold);
                hold
            }
            Reaction::Answer(answer) => panic!("not held: {}", body(&answer)),
        }
    }

    /// Returns the answer to the held poll.
    pub(crate) fn news(&mut self) -> Option<Answer> {
        let held = self.held?;
        let ready = self
            .server
            .take_ready()
            .into_iter()
            .find(|(hold, _)| *hold == held);
        ready.map(|(_, answer)| {
            self.held = None;
            answer
        })
    }

    pub(crate) fn heartbeat(&mut self) -> Answer {
        self.rc += 1;
        let query = format!("uin=&tp=1&id=0&retype=1&rc={}&lv=3&t=1", self.rc);
        self.get(&format!("http://web.qq.com/web2/get_msg_tip?{query}"), "")
    }

    pub(crate) fn send_buddy(&mut self, to: u64, text: &str) -> Answer {
        self.send("send_buddy_msg2", json!({"to": to, "face": 564}), text)
    }

    pub(crate) fn send(&mut self, path: &str, to: Value, text: &str) -> Answer {
        self.msg_id += 1;
        let font = json!(["font", {"name": "Monospace", "size": 10, "style": [0, 0, 0], "color": "000000"}]);
        let content = json!([text, font]).to_string();
        let mut r = json!({"content": content, "clientid": self.clientid, "msg_id": self.msg_id,
            "psessionid": self.psessionid});
        r.as_object_mut()
            .unwrap()
            .extend(to.as_object().unwrap().clone());
        let form = self.channel_form(r);
        self.post(&format!("{D}/channel/{path}"), &form)
    }

    /// Returns the uin of the first friend, Alice, from the server's list.
    pub(crate) fn alice(&mut self) -> u64 {
        json(&self.friends())["result"]["friends"][0]["uin"]
            .as_u64()
            .unwrap()
    }

    fn channel_form(&self, r: Value) -> [(&'static str, String); 3] {
        [
            ("r", r.to_string()),
            ("clientid", self.clientid.clone()),
            ("psessionid", self.psessionid.clone()),
        ]
    }

    // Lower layers.

    pub(crate) fn get(&mut self, url: &str, referer: &str) -> Answer {
        unheld(self.get_call(url, referer))
    }

    fn get_call(&mut self, url: &str, referer: &str) -> Reaction {
        self.call("GET", url, &[("referer", &format!("{referer}/"))], "")
    }

    pub(crate) fn post(&mut self, url: &str, form: &[(&str, String)]) -> Answer {
        unheld(self.post_call(url, form))
    }

    fn post_call(&mut self, url: &str, form: &[(&str, String)]) -> Reaction {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let headers = [
            ("referer", "http://d.web2.qq.com/proxy.html"),
            ("origin", D),
        ];
        self.call("POST", url, &headers, &body.finish())
    }

    fn call(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Reaction {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, _) = rest.split_once('/').unwrap();
        let target = &rest[host.len()..];
        let path = target.split('?').next().unwrap();
        let mut all = vec![("host".to_owned(), host.to_owned())];
        let headers = headers.iter().filter(|(_, value)| *value != "/");
        all.extend(headers.map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let scheme = match self.server.settings().https {
            Https::OverTls if is_https(host, path) => Scheme::Https,
            Https::OverTls | Https::AsHttp => Scheme::Http,
        };
        let belongs = |kept: &&Kept| kept.belongs_to(scheme, host, path);
        let fitting = self.jar.iter().filter(belongs);
        let cookies: Vec<String> = fitting.map(|c| format!("{}={}", c.name, c.value)).collect();
        if !cookies.is_empty() {
            all.push(("cookie".into(), cookies.join("; ")));
        }
        let mut call = Call::parse(
            self.connection,
            scheme,
            method,
            target,
            all,
            body.as_bytes(),
        );
        if let Some(spoil) = self.spoil.take() {
            spoil(&mut call);
        }
        let reaction = self.server.on_call(self.now, &call);
        if let Reaction::Answer(answer) = &reaction {
            jar::keep(&mut self.jar, host, answer);
        }
        reaction
    }

    pub(crate) fn cookie(&self, name: &str) -> String {
        let kept = self.jar.iter().find(|kept| kept.name == name);
        kept.map_or(String::new(), |kept| kept.value.clone())
    }

    /// Makes a call of `step`, if its switch needs no more than that to take effect.
    pub(crate) fn visit(&mut self, step: Step) {
        match step {
            Step::Friends => drop(self.call_friends()),
            Step::Groups => drop(self.call_groups()),
            Step::Members => {
                let groups = json(&self.groups());
                let code = groups["result"]["gnamelist"][0]["code"].as_u64();
                drop(self.call_members(code.unwrap()));
            }
            Step::Heartbeat => drop(self.heartbeat()),
            Step::Login2 => drop(self.login2()),
            Step::SendBuddy => {
                let alice = self.alice();
                self.send_buddy(alice, "hi");
            }
            Step::SessSig => drop(self.sess_sig("Goran")),
            Step::Weather => drop(self.get("http://api.weather.example/today?city=Ulm", "")),
            other => panic!("{other} needs more than a call"),
        }
    }

    /// Returns the gid of the first group and the uin of one of its members, from the server's
    /// lists.
    pub(crate) fn member(&mut self, nick: &str) -> (u64, u64) {
        let groups = json(&self.groups());
        let group = &groups["result"]["gnamelist"][0];
        let (gid, code) = (
            group["gid"].as_u64().unwrap(),
            group["code"].as_u64().unwrap(),
        );
        let members = json(&unheld(self.call_members(code)));
        let minfo = members["result"]["minfo"].as_array().unwrap();
        let member = minfo.iter().find(|member| member["nick"] == nick).unwrap();
        (gid, member["uin"].as_u64().unwrap())
    }

    pub(crate) fn sess_sig(&mut self, nick: &str) -> Answer {
        let (gid, uin) = self.member(nick);
        let more = format!("id={gid}&to_uin={uin}&service_type=0");
        self.query("d.web2.qq.com", "/channel/get_c2cmsg_sig2", &more)
    }
}

pub(crate) fn unheld(reaction: Reaction) -> Answer {
    match reaction {
        Reaction::Answer(answer) => answer,
        Reaction::Hold(hold) => panic!("held: {hold:?}"),
    }
}

pub(crate) fn body(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

pub(crate) fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Returns -1 if there is none.
pub(crate) fn retcode(answer: &Answer) -> i64 {
    json(answer)["retcode"].as_i64().unwrap_or(-1)
}

/// Returns the texts of the messages in a poll's answer, in its order.
pub(crate) fn texts(answer: &Answer) -> Vec<String> {
    let items = json(answer)["result"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |item: &Value| {
        item["value"]["content"][1]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    items.iter().map(text).collect()
}
