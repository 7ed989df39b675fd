//! The bot's side of the WebQQ protocol, outgoing: a login's variables, and the request of each
//! step.
//!
//! The steps are numbered as in the protocol's table: SIG, CHECK, CAPTCHA, PTLOGIN, CHECKSIG,
//! LOGIN2, then the lists, then the poll, the heartbeat and the sends. `answers.rs` parses the
//! answers.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use httpstream::session::Session;
use httpstream::{Error, Request, RequestBuilder};
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::answers::{Keys, Picture};
use crate::clock::{Clock, HOLD, Random};
use crate::roster::Address;
use crate::sessions::{OUTBOX, Sessions, is_of_qq};
use crate::settings::Https;

const APP: &str = "1003903";
const DOMAIN_APP: &str = "164";
const JS_VERSION: &str = "10040";

const HOME: &str = "http://qq.com/";
const LOGIN_PAGE: &str = "https://ui.ptlogin2.qq.com/cgi-bin/login";
const LISTS: &str = "http://s.web2.qq.com/api/";
const CHANNEL: &str = "http://d.web2.qq.com/channel/";
const SAFE_CHANNEL: &str = "https://d.web2.qq.com/channel/";
const LISTS_REFERER: &str = "http://s.web2.qq.com/proxy.html?v=20110412001&callback=1&id=3";
const CHANNEL_REFERER: &str = "https://d.web2.qq.com/cfproxy.html?v=20110331002&callback=1";

/// The state of a login, from which all requests are made.
pub(crate) struct Login {
    /// The number of this login. Uins of an earlier one are no longer valid.
    pub(crate) number: u32,
    /// Whether one of its polls has delivered something.
    pub(crate) was_polled: bool,
    pub(crate) account: u64,
    password: String,
    pub(crate) sessions: Sessions,
    clientid: u32,
    msg_id: u32,
    beats: u32,
    pub(crate) login_sig: String,
    pub(crate) verify_code: String,
    /// The account's number as CHECK returns it, in eight bytes.
    pub(crate) huin: Vec<u8>,
    pub(crate) ptwebqq: String,
    pub(crate) vfwebqq: String,
    pub(crate) psessionid: String,
    random: Random,
    clock: Clock,
    https: Https,
}

impl Login {
    pub(crate) fn new(account: u64, password: &str, clock: Clock, https: Https, seed: u64) -> Self {
        let mut random = Random::new(seed ^ account);
        Self {
            number: 0,
            was_polled: false,
            account,
            password: password.to_owned(),
            sessions: Sessions::new(&clock),
            clientid: 10_000_000 + random.below(90_000_000),
            msg_id: 10_000_000 + random.below(80_000_000),
            beats: random.below(100),
            login_sig: String::new(),
            verify_code: String::new(),
            huin: Vec::new(),
            ptwebqq: String::new(),
            vfwebqq: String::new(),
            psessionid: String::new(),
            random,
            clock,
            https,
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.clock.set_now(now);
    }

    /// Adds up to `share` of `wait`, so that a thousand bots do not return at the same moment.
    pub(crate) fn jitter(&mut self, wait: Duration, share: f64) -> Duration {
        wait.mul_f64(1.0 + share * f64::from(self.random.below(1000)) / 1000.0)
    }

    /// Begins another login. Messages of the previous one no longer belong to it.
    pub(crate) fn begin_another(&mut self) {
        self.number += 1;
        self.was_polled = false;
    }

    pub(crate) fn set_keys(&mut self, keys: Keys) {
        self.vfwebqq = keys.vfwebqq;
        self.psessionid = keys.psessionid;
    }

    /// Sets the value from retcode 116: a cookie, and a part of LOGIN2 and of the lists' hash.
    pub(crate) fn set_ptwebqq(&mut self, value: String) {
        let cookie = format!("ptwebqq={value}; Domain=qq.com; Path=/");
        // A value that is no cookie cannot be sent as one. The next LOGIN2 will be refused then.
        let _ = self.sessions.jar.set(HOME, &cookie);
        self.ptwebqq = value;
    }

    /// Forgets the login, but keeps the account, its clientid and its counters.
    pub(crate) fn forget(&mut self) {
        self.sessions.jar.clear();
        for text in [
            &mut self.login_sig,
            &mut self.verify_code,
            &mut self.ptwebqq,
        ] {
            text.clear();
        }
        self.vfwebqq.clear();
        self.psessionid.clear();
    }

    /// Takes the cookie that PTLOGIN has set.
    pub(crate) fn take_ptwebqq(&mut self) {
        let cookie = self.sessions.jar.get(HOME, "ptwebqq");
        self.ptwebqq = cookie.unwrap_or_default();
    }

    // ---- the login ----

    /// 1, SIG.
    pub(crate) fn sig(&self) -> Request {
        let query = [
            ("daid", DOMAIN_APP),
            ("target", "self"),
            ("style", "5"),
            ("mibao_css", "m_webqq"),
            ("appid", APP),
            ("enable_qlogin", "0"),
            ("no_verifyimg", "1"),
            ("s_url", "http://web2.qq.com/loginproxy.html"),
            ("f_url", "loginerroralert"),
            ("strong_login", "1"),
            ("login_state", "10"),
            ("t", "20130723001"),
        ];
        finish(self.get(&self.sessions.again, LOGIN_PAGE, &query))
    }

    /// 2, CHECK: whether the login requires a captcha.
    pub(crate) fn check(&mut self) -> Request {
        let (uin, r) = (self.account.to_string(), self.random.fraction());
        let query = [
            ("uin", &*uin),
            ("appid", APP),
            ("u1", "http://web2.qq.com/loginproxy.html"),
            ("login_sig", &self.login_sig),
            ("js_ver", JS_VERSION),
            ("js_type", "0"),
            ("r", &r),
        ];
        let url = "http://check.ptlogin2.qq.com/check";
        let request = self.get(&self.sessions.again, url, &query);
        finish(request.header("Referer", LOGIN_PAGE))
    }

    /// 3, CAPTCHA: fetches its picture.
    pub(crate) fn captcha(&mut self) -> Request {
        let (uin, r) = (self.account.to_string(), self.random.fraction());
        let query = [("aid", APP), ("r", &*r), ("uin", &uin)];
        let url = "https://ssl.captcha.qq.com/getimage";
        finish(self.get(&self.sessions.again, url, &query))
    }

    /// 4, PTLOGIN.
    pub(crate) fn ptlogin(&self) -> Request {
        let uin = self.account.to_string();
        let p = password_hash(&self.password, &self.huin, &self.verify_code);
        let code = self.verify_code.to_lowercase();
        let query = [
            ("u", &*uin),
            ("p", &p),
            ("verifycode", &code),
            ("webqq_type", "10"),
            ("remember_uin", "1"),
            ("login2qq", "1"),
            ("aid", APP),
            (
                "u1",
                "http://www.qq.com/loginproxy.html?login2qq=1&webqq_type=10",
            ),
            ("h", "1"),
            ("ptredirect", "0"),
            ("ptlang", "2052"),
            ("daid", DOMAIN_APP),
            ("from_ui", "1"),
            ("pttype", "1"),
            ("dumy", ""),
            ("fp", "loginerroralert"),
            ("action", "4-5-8246"),
            ("mibao_css", "m_webqq"),
            ("t", "1"),
            ("g", "1"),
            ("js_type", "0"),
            ("js_ver", JS_VERSION),
            ("login_sig", &self.login_sig),
        ];
        let url = "https://ssl.ptlogin2.qq.com/login";
        let request = self.get(&self.sessions.once, url, &query);
        // It uses up the code.
        finish(request.header("Referer", LOGIN_PAGE).idempotent(false))
    }

    /// 5, CHECKSIG: goes to a URL chosen by the server. Returns `None` if it leads out of the
    /// server's domain.
    pub(crate) fn checksig(&self, url: &str) -> Option<Request> {
        let request = self.get(&self.sessions.again, url, &[]);
        let request = request.header("Referer", LOGIN_PAGE).build().ok()?;
        // The server must not choose credentials, which the request would carry.
        let has_credentials = request.header("Authorization").is_some();
        (is_of_qq(request.uri()) && !has_credentials).then_some(request)
    }

    /// 6, LOGIN2: after the login, and again for a lost session.
    pub(crate) fn login2(&self) -> Request {
        let r = json!({
            "status": "online",
            "ptwebqq": self.ptwebqq,
            "passwd_sig": "",
            "clientid": self.clientid.to_string(),
            "psessionid": null,
        });
        let clientid = self.clientid.to_string();
        let form = [
            ("r", &*r.to_string()),
            ("clientid", &clientid),
            ("psessionid", "null"),
        ];
        finish(
            self.channel_post(&self.sessions.once, CHANNEL, "login2")
                .form(form),
        )
    }

    // ---- the lists ----

    /// 7, FRIENDS.
    pub(crate) fn friends(&self) -> Request {
        let hash = list_hash(self.account, &self.ptwebqq);
        let r = json!({ "h": "hello", "hash": hash, "vfwebqq": self.vfwebqq });
        finish(self.list_post("get_user_friends2", &r))
    }

    /// 8, ONLINE_BUDDIES.
    pub(crate) fn online_buddies(&self) -> Request {
        finish(self.channel_get(&self.sessions.again, "get_online_buddies2", &[]))
    }

    /// 9, GROUPS.
    pub(crate) fn groups(&self) -> Request {
        let hash = list_hash(self.account, &self.ptwebqq);
        let r = json!({ "vfwebqq": self.vfwebqq, "hash": hash });
        finish(self.list_post("get_group_name_list_mask2", &r))
    }

    /// 10, MEMBERS of a group.
    pub(crate) fn members(&self, code: u64) -> Request {
        let (code, t) = (code.to_string(), self.millis());
        let query = [
            ("gcode", &*code),
            ("vfwebqq", &self.vfwebqq),
            ("cb", "undefined"),
            ("t", &t),
        ];
        finish(self.list_get("get_group_info_ext2", &query))
    }

    /// 11, DISCUS.
    pub(crate) fn discus(&self) -> Request {
        let (clientid, t) = (self.clientid.to_string(), self.millis());
        let query = [
            ("clientid", &*clientid),
            ("psessionid", &self.psessionid),
            ("vfwebqq", &self.vfwebqq),
            ("t", &t),
        ];
        finish(self.list_get("get_discus_list", &query))
    }

    /// 11, DISCUS: the members of one.
    pub(crate) fn discu_info(&self, did: u64) -> Request {
        let did = did.to_string();
        let query = [("did", &*did), ("vfwebqq", &self.vfwebqq)];
        finish(self.channel_get(&self.sessions.again, "get_discu_info", &query))
    }

    /// 19, FRIEND_UIN: the account number behind a uin. Uins change with every login.
    pub(crate) fn friend_uin(&self, uin: u64) -> Request {
        let (uin, t) = (uin.to_string(), self.millis());
        let query = [
            ("tuin", &*uin),
            ("verifysession", ""),
            ("type", "1"),
            ("code", ""),
            ("vfwebqq", &self.vfwebqq),
            ("t", &t),
        ];
        finish(self.list_get("get_friend_uin2", &query))
    }

    // ---- online ----

    /// 12, POLL.
    pub(crate) fn poll(&self) -> Request {
        let r = json!({
            "clientid": self.clientid.to_string(),
            "psessionid": self.psessionid,
            "key": 0,
            "ids": [],
        });
        let patience = self.clock.poll_patience();
        let poll = self.channel_form(&self.sessions.once, CHANNEL, "poll2", &r);
        // Messages whose delivery failed are delivered by the next poll.
        let poll = poll.idempotent(true).long_poll(self.clock.wait(HOLD));
        finish(poll.timeouts(|t| (t.first_byte, t.total) = (Some(patience), Some(patience * 2))))
    }

    /// 13, HEARTBEAT.
    pub(crate) fn heartbeat(&mut self) -> Request {
        self.beats += 1;
        let (uin, rc, t) = (
            self.account.to_string(),
            self.beats.to_string(),
            self.millis(),
        );
        let query = [
            ("uin", &*uin),
            ("tp", "1"),
            ("id", "0"),
            ("retype", "1"),
            ("rc", &rc),
            ("lv", "3"),
            ("t", &t),
        ];
        let url = "http://web.qq.com/web2/get_msg_tip";
        let request = self.get(&self.sessions.once, url, &query);
        finish(request.header("Referer", "http://web.qq.com/"))
    }

    /// 14 to 16 and 18, SEND. A session with a stranger requires `sig`.
    pub(crate) fn send(&mut self, to: Address, text: &str, sig: &str) -> Request {
        self.msg_id += 1;
        // A JSON string inside of the JSON.
        let font =
            json!({ "name": "Monospace", "size": 10, "style": [0, 0, 0], "color": "000000" });
        let content = json!([text, ["font", font]]).to_string();
        let mut r = json!({
            "content": content,
            "msg_id": self.msg_id,
            "clientid": self.clientid.to_string(),
            "psessionid": self.psessionid,
        });
        let mut add = |name: &str, value: Value| r[name] = value;
        let (origin, action) = match to {
            Address::Buddy { uin } => {
                add("to", uin.into());
                add("face", 564.into());
                (CHANNEL, "send_buddy_msg2")
            }
            Address::Group { gid } => {
                add("group_uin", gid.into());
                (CHANNEL, "send_qun_msg2")
            }
            Address::Discu { did } => {
                add("did", did.into());
                (SAFE_CHANNEL, "send_discu_msg2")
            }
            Address::Sess { uin, .. } => {
                add("to", uin.into());
                add("group_sig", sig.into());
                add("face", 549.into());
                add("service_type", 0.into());
                (SAFE_CHANNEL, "send_sess_msg2")
            }
        };
        let request = self.channel_form(&self.sessions.outbox, origin, action, &r);
        finish(request.lane(OUTBOX))
    }

    /// 17, SESS SIG: the signature with which a session with a stranger begins.
    pub(crate) fn sess_sig(&self, gid: u64, uin: u64) -> Request {
        let (gid, uin) = (gid.to_string(), uin.to_string());
        let query = [("id", &*gid), ("to_uin", &uin), ("service_type", "0")];
        finish(self.channel_get(&self.sessions.again, "get_c2cmsg_sig2", &query))
    }

    /// 19, the picture in a message.
    pub(crate) fn picture(&self, picture: &Picture) -> Request {
        match picture {
            Picture::Offline {
                file_path,
                from_uin,
            } => {
                let from_uin = from_uin.to_string();
                let query = [("file_path", &**file_path), ("f_uin", &from_uin)];
                finish(self.channel_get(&self.sessions.again, "get_offpic2", &query))
            }
            Picture::Group {
                gid,
                uin,
                file_id,
                name,
                server,
            } => {
                let (gid, uin, file_id) = (gid.to_string(), uin.to_string(), file_id.to_string());
                let (host, port) = server.split_once(':').unwrap_or((server, "80"));
                let t = self.millis();
                let query = [
                    ("type", "0"),
                    ("gid", &*gid),
                    ("uin", &uin),
                    ("rip", host),
                    ("rport", port),
                    ("fid", &file_id),
                    ("pic", name),
                    ("vfwebqq", &self.vfwebqq),
                    ("t", &t),
                ];
                let url = "http://web2.qq.com/cgi-bin/get_group_pic";
                let request = self.get(&self.sessions.again, url, &query);
                finish(request.header("Referer", LISTS_REFERER))
            }
        }
    }

    /// 19, LOGOUT.
    pub(crate) fn logout(&self) -> Request {
        finish(self.channel_get(&self.sessions.once, "logout2", &[("ids", "")]))
    }

    // ---- other sites ----

    /// Returns the request for a page of another site.
    ///
    /// # Errors
    /// The URL is not valid.
    pub(crate) fn page(&self, url: &str) -> Result<Request, Error> {
        self.patient(self.sessions.web.get(url)).build()
    }

    // ---- common parts ----

    fn list_get(&self, action: &str, query: &[(&str, &str)]) -> RequestBuilder {
        self.get(&self.sessions.again, &format!("{LISTS}{action}"), query)
            .header("Referer", LISTS_REFERER)
    }

    fn list_post(&self, action: &str, r: &Value) -> RequestBuilder {
        let request = self.sessions.again.post(format!("{LISTS}{action}"));
        self.patient(request)
            .header("Referer", LISTS_REFERER)
            .header("Origin", "http://s.web2.qq.com")
            .form([("r", r.to_string())])
            .idempotent(true)
    }

    /// Adds the parameters that identify the session.
    fn channel_get(
        &self,
        session: &Session,
        action: &str,
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let (clientid, t) = (self.clientid.to_string(), self.millis());
        let keys = [
            ("clientid", &*clientid),
            ("psessionid", &self.psessionid),
            ("t", &t),
        ];
        let query = [query, &keys].concat();
        self.get(session, &format!("{SAFE_CHANNEL}{action}"), &query)
            .header("Referer", CHANNEL_REFERER)
    }

    fn channel_form(
        &self,
        session: &Session,
        origin: &str,
        action: &str,
        r: &Value,
    ) -> RequestBuilder {
        let (r, clientid) = (r.to_string(), self.clientid.to_string());
        let form = [
            ("r", &r),
            ("clientid", &clientid),
            ("psessionid", &self.psessionid),
        ];
        self.channel_post(session, origin, action).form(form)
    }

    fn channel_post(&self, session: &Session, origin: &str, action: &str) -> RequestBuilder {
        let request = session.post(self.https.carried(&format!("{origin}{action}")));
        self.patient(request)
            .header("Referer", CHANNEL_REFERER)
            .header("Origin", "http://d.web2.qq.com")
    }

    fn get(&self, session: &Session, url: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let request = session.get(self.https.carried(url));
        self.patient(request.query(query.iter().copied()))
    }

    /// Sets how long each attempt waits for an answer. The session limits them all together.
    fn patient(&self, request: RequestBuilder) -> RequestBuilder {
        let patience = Some(self.clock.patience());
        request.timeouts(|t| (t.first_byte, t.idle) = (patience, patience))
    }

    fn millis(&self) -> String {
        self.clock.wall().as_millis().to_string()
    }
}

impl Https {
    /// Returns `url` as it is requested: with http in place of https if the server has no TLS.
    fn carried<'a>(self, url: &'a str) -> Cow<'a, str> {
        match (self, url.strip_prefix("https://")) {
            (Https::AsHttp, Some(rest)) => format!("http://{rest}").into(),
            (Https::AsHttp, None) | (Https::OverTls, _) => url.into(),
        }
    }
}

fn finish(request: RequestBuilder) -> Request {
    // Values from the server were bounded when they were parsed.
    request
        .build()
        .expect("variable parts are encoded and bounded")
}

/// Computes the field `p` of PTLOGIN.
pub(crate) fn password_hash(password: &str, huin: &[u8], verify_code: &str) -> String {
    let hex = |bytes: &[u8]| upper_hex(&Md5::digest(bytes));
    let inner = hex(&[&Md5::digest(password)[..], huin].concat());
    hex(format!("{inner}{}", verify_code.to_uppercase()).as_bytes())
}

/// Computes the field `hash` of the lists, in its third version.
pub(crate) fn list_hash(uin: u64, ptwebqq: &str) -> String {
    let text = format!("{ptwebqq}password error");
    let uin = uin.to_string();
    let mixed: Vec<u8> = text
        .bytes()
        .zip(uin.bytes().cycle())
        .map(|(a, k)| a ^ k)
        .collect();
    upper_hex(&mixed)
}

fn upper_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
