//! A client of the server that logs in step by step, over one connection, without an engine.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use form_urlencoded::Serializer;
use serde_json::{Value, json};

use super::Client;
use crate::server::hashes;

pub(super) const ACCOUNT: u64 = 1_685_359_365;
const PASSWORD: &str = "password123";
const CLIENTID: &str = "12345678";

/// The cookies for LOGIN2 and all later requests to d.web2.qq.com.
const CHANNEL_COOKIES: &[&str] = &["ptwebqq", "skey", "p_skey", "pt4_token", "pt_recent"];

pub(super) struct Visitor {
    pub(super) client: Client,
    cookies: BTreeMap<String, String>,
    /// Set by LOGIN2.
    psessionid: String,
}

impl Visitor {
    pub(super) fn connect(addr: SocketAddr) -> Self {
        Self {
            client: Client::connect(addr),
            cookies: BTreeMap::new(),
            psessionid: "null".into(),
        }
    }

    /// The same client on a new connection.
    pub(super) fn again(&self, addr: SocketAddr) -> Self {
        Self {
            client: Client::connect(addr),
            cookies: self.cookies.clone(),
            psessionid: self.psessionid.clone(),
        }
    }

    /// From SIG to LOGIN2.
    pub(super) fn log_in(&mut self) {
        let sig = self.sig();
        let code = self.check(&sig);
        let url = self.ptlogin(&sig, &code);
        self.checksig(&url);
        self.login2();
    }

    pub(super) fn sig(&mut self) -> String {
        let query = [
            ("daid", "164"),
            ("target", "self"),
            ("style", "5"),
            ("mibao_css", "m_webqq"),
            ("appid", "1003903"),
            ("enable_qlogin", "0"),
            ("no_verifyimg", "1"),
            ("s_url", "http://web2.qq.com/loginproxy.html"),
            ("f_url", "loginerroralert"),
            ("strong_login", "1"),
            ("login_state", "10"),
            ("t", "20130723001"),
        ];
        self.get("ui.ptlogin2.qq.com", "/cgi-bin/login", &query, &[]);
        between(&self.body(), "g_login_sig=encodeURIComponent(\"", "\"")
    }

    pub(super) fn check(&mut self, sig: &str) -> String {
        let query = [
            ("uin", &*ACCOUNT.to_string()),
            ("appid", "1003903"),
            ("u1", "http://web2.qq.com/loginproxy.html"),
            ("login_sig", sig),
            ("js_ver", "10040"),
            ("js_type", "0"),
            ("r", "0.5"),
        ];
        self.get("check.ptlogin2.qq.com", "/check", &query, &[]);
        between(&self.body(), "ptui_checkVC('0','", "'")
    }

    fn ptlogin(&mut self, sig: &str, code: &str) -> String {
        let query = [
            ("u", &*ACCOUNT.to_string()),
            ("p", &hashes::password(ACCOUNT, PASSWORD, code)),
            ("verifycode", &code.to_lowercase()),
            ("webqq_type", "10"),
            ("remember_uin", "1"),
            ("login2qq", "1"),
            ("aid", "1003903"),
            (
                "u1",
                "http://www.qq.com/loginproxy.html?login2qq=1&webqq_type=10",
            ),
            ("h", "1"),
            ("ptredirect", "0"),
            ("ptlang", "2052"),
            ("daid", "164"),
            ("from_ui", "1"),
            ("pttype", "1"),
            ("dumy", ""),
            ("fp", "loginerroralert"),
            ("action", "4-5-8246"),
            ("mibao_css", "m_webqq"),
            ("t", "1"),
            ("g", "1"),
            ("js_type", "0"),
            ("js_ver", "10040"),
            ("login_sig", sig),
        ];
        let cookies = ["confirmuin", "ptvfsession"];
        self.get("ssl.ptlogin2.qq.com", "/login", &query, &cookies);
        between(&self.body(), "ptuiCB('0','0','", "'")
    }

    fn checksig(&mut self, url: &str) {
        let target = url.strip_prefix("http://web2.qq.com").unwrap();
        self.send("GET", "web2.qq.com", target, "", &["ptwebqq", "skey"]);
        self.body();
    }

    fn login2(&mut self) {
        let ptwebqq = self.cookies["ptwebqq"].clone();
        let r = json!({
            "status": "online", "ptwebqq": ptwebqq, "passwd_sig": "",
            "clientid": CLIENTID, "psessionid": null,
        });
        self.post("/channel/login2", &r);
        let answer: Value = serde_json::from_str(&self.body()).unwrap();
        assert_eq!(answer["retcode"], 0, "{answer}");
        self.psessionid = answer["result"]["psessionid"].as_str().unwrap().into();
    }

    /// Sends a poll without reading its answer.
    pub(super) fn poll(&mut self) {
        let psessionid = &self.psessionid;
        let r = json!({"clientid": CLIENTID, "psessionid": psessionid, "key": 0, "ids": []});
        self.post("/channel/poll2", &r);
    }

    fn get(&mut self, host: &str, path: &str, query: &[(&str, &str)], cookies: &[&str]) {
        let query = encoded(query);
        self.send("GET", host, &format!("{path}?{query}"), "", cookies);
    }

    fn post(&mut self, path: &str, r: &Value) {
        let form = encoded(&[
            ("r", &r.to_string()),
            ("clientid", CLIENTID),
            ("psessionid", &self.psessionid),
        ]);
        self.send("POST", "d.web2.qq.com", path, &form, CHANNEL_COOKIES);
    }

    fn send(&mut self, method: &str, host: &str, target: &str, form: &str, cookies: &[&str]) {
        let mut cookie = String::new();
        for name in cookies {
            let _ = write!(cookie, "{name}={}; ", self.cookies[*name]);
        }
        let referer = match host {
            "d.web2.qq.com" => "http://d.web2.qq.com/proxy.html?v=20110331002&callback=1&id=2",
            _ => "http://ui.ptlogin2.qq.com/cgi-bin/login",
        };
        self.client.send(&format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nReferer: {referer}\r\nOrigin: http://d.web2.qq.com\r\n\
             Cookie: {}\r\nContent-Length: {}\r\n\r\n{form}",
            cookie.trim_end_matches("; "),
            form.len()
        ));
    }

    /// Reads an answer, stores its cookies, and returns its body.
    pub(super) fn body(&mut self) -> String {
        let (head, body) = self.client.answer();
        for line in head.lines() {
            if let Some(cookie) = line.strip_prefix("Set-Cookie: ") {
                let (name, rest) = cookie.split_once('=').unwrap();
                let (value, _) = rest.split_once(';').unwrap();
                self.cookies.insert(name.into(), value.into());
            }
        }
        body
    }
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn between(text: &str, before: &str, after: &str) -> String {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("{text}")).0.into()
}
