//! The parameters that each step's request must carry.

use super::step::Step;
use super::wire::Call;
use serde_json::Value;

/// A parameter's name, and its value if that is always the same.
type Wanted = (&'static str, &'static str);

/// Any value is accepted, except an empty one.
const ANY: &str = "";
/// Any value is accepted, even an empty one.
const EVEN_EMPTY: &str = "?";

/// The required parameters in the query, in the form, and in the JSON of the form's `r`.
struct Parameters {
    query: &'static [Wanted],
    form: &'static [Wanted],
    r: &'static [Wanted],
}

const NONE: Parameters = Parameters {
    query: &[],
    form: &[],
    r: &[],
};

const fn query(query: &'static [Wanted]) -> Parameters {
    Parameters { query, ..NONE }
}

/// A call of s.web2.qq.com: everything is in `r`.
const fn r(r: &'static [Wanted]) -> Parameters {
    Parameters { r, ..NONE }
}

/// A call of d.web2.qq.com names the session twice.
const fn channel(r: &'static [Wanted]) -> Parameters {
    Parameters {
        r,
        form: &[("clientid", ANY), ("psessionid", ANY)],
        ..NONE
    }
}

const fn of(step: Step) -> Parameters {
    match step {
        Step::Sig => query(&[
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
        ]),
        Step::Check => query(&[
            ("uin", ANY),
            ("appid", "1003903"),
            ("u1", ANY),
            ("login_sig", EVEN_EMPTY),
            ("js_ver", "10040"),
            ("js_type", "0"),
            ("r", ANY),
        ]),
        Step::Captcha => query(&[("aid", "1003903"), ("r", ANY), ("uin", ANY)]),
        Step::PtLogin => query(&[
            ("u", ANY),
            ("p", ANY),
            ("verifycode", ANY),
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
            ("dumy", EVEN_EMPTY),
            ("fp", "loginerroralert"),
            ("action", ANY),
            ("mibao_css", "m_webqq"),
            ("t", "1"),
            ("g", "1"),
            ("js_type", "0"),
            ("js_ver", "10040"),
            ("login_sig", EVEN_EMPTY),
        ]),
        Step::CheckSig => query(&[("uin", ANY), ("ptsigx", ANY)]),
        Step::Login2 => channel(&[
            ("status", "online"),
            ("ptwebqq", ANY),
            ("passwd_sig", EVEN_EMPTY),
            ("clientid", ANY),
            ("psessionid", EVEN_EMPTY),
        ]),
        Step::Friends => r(&[("h", "hello"), ("hash", ANY), ("vfwebqq", ANY)]),
        Step::Groups => r(&[("hash", ANY), ("vfwebqq", ANY)]),
        Step::OnlineBuddies => query(&[("clientid", ANY), ("psessionid", ANY), ("t", ANY)]),
        Step::Members => query(&[
            ("gcode", ANY),
            ("vfwebqq", ANY),
            ("cb", "undefined"),
            ("t", ANY),
        ]),
        Step::Discus => query(&[
            ("clientid", ANY),
            ("psessionid", ANY),
            ("vfwebqq", ANY),
            ("t", ANY),
        ]),
        Step::DiscuInfo => query(&[
            ("did", ANY),
            ("clientid", ANY),
            ("psessionid", ANY),
            ("vfwebqq", ANY),
            ("t", ANY),
        ]),
        Step::Poll => channel(&[
            ("clientid", ANY),
            ("psessionid", ANY),
            ("key", "0"),
            ("ids", EVEN_EMPTY),
        ]),
        Step::Heartbeat => query(&[
            ("uin", EVEN_EMPTY),
            ("tp", "1"),
            ("id", "0"),
            ("retype", "1"),
            ("rc", ANY),
            ("lv", ANY),
            ("t", ANY),
        ]),
        Step::SendBuddy => channel(&[
            ("to", ANY),
            ("face", ANY),
            ("content", ANY),
            ("clientid", ANY),
            ("msg_id", ANY),
            ("psessionid", ANY),
        ]),
        Step::SendGroup => channel(&[
            ("group_uin", ANY),
            ("content", ANY),
            ("msg_id", ANY),
            ("clientid", ANY),
            ("psessionid", ANY),
        ]),
        Step::SendDiscu => channel(&[
            ("did", ANY),
            ("content", ANY),
            ("msg_id", ANY),
            ("clientid", ANY),
            ("psessionid", ANY),
        ]),
        Step::SessSig => query(&[
            ("id", ANY),
            ("to_uin", ANY),
            ("service_type", "0"),
            ("clientid", ANY),
            ("psessionid", ANY),
            ("t", ANY),
        ]),
        Step::SendSess => channel(&[
            ("to", ANY),
            ("group_sig", ANY),
            ("face", ANY),
            ("content", ANY),
            ("msg_id", ANY),
            ("service_type", "0"),
            ("clientid", ANY),
            ("psessionid", ANY),
        ]),
        Step::FriendUin => query(&[("tuin", ANY), ("type", ANY), ("vfwebqq", ANY)]),
        Step::LongNick => r(&[("nlk", EVEN_EMPTY), ("vfwebqq", ANY)]),
        Step::AllowAdd => r(&[
            ("account", ANY),
            ("gid", "0"),
            ("mname", EVEN_EMPTY),
            ("vfwebqq", ANY),
        ]),
        Step::Offpic => query(&[
            ("file_path", ANY),
            ("f_uin", ANY),
            ("clientid", ANY),
            ("psessionid", ANY),
        ]),
        Step::GroupPic => query(&[
            ("gid", ANY),
            ("uin", ANY),
            ("fid", ANY),
            ("vfwebqq", ANY),
            ("t", ANY),
        ]),
        Step::File => query(&[
            ("lcid", ANY),
            ("to", ANY),
            ("clientid", ANY),
            ("psessionid", ANY),
        ]),
        Step::Logout => query(&[
            ("ids", EVEN_EMPTY),
            ("clientid", ANY),
            ("psessionid", ANY),
            ("t", ANY),
        ]),
        Step::Weather => query(&[("city", ANY)]),
    }
}

/// Returns which parameter of `call` is missing, or has a value that real clients never sent. `r`
/// is the JSON of the form's `r`.
pub(crate) fn flaw(step: Step, call: &Call, r: &Value) -> Option<String> {
    let wanted = of(step);
    let in_query = |name: &str| call.query(name).map(str::to_owned);
    let in_form = |name: &str| call.form(name).map(str::to_owned);
    let in_r = |name: &str| r.get(name).map(text);
    flaw_in("query", wanted.query, in_query)
        .or_else(|| flaw_in("form", wanted.form, in_form))
        .or_else(|| flaw_in("r", wanted.r, in_r))
}

fn flaw_in(what: &str, wanted: &[Wanted], get: impl Fn(&str) -> Option<String>) -> Option<String> {
    wanted.iter().find_map(|&(name, expected)| {
        let Some(value) = get(name) else {
            return Some(format!("{what} lacks {name}"));
        };
        let is_good = match expected {
            EVEN_EMPTY => true,
            ANY => !value.is_empty(),
            expected => value == expected,
        };
        (!is_good).then(|| format!("{what} has {name}={value:?}"))
    })
}

/// Returns a JSON value as text: clients wrote numbers with and without quotes.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
