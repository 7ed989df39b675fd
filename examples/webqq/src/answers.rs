//! The bot's side of the WebQQ protocol, incoming: parses the server's answers.
//!
//! Server text is parsed and never evaluated. Decoding is tolerant, since real answers had fields
//! that were missing, null, or named people who were in no list. If something essential is missing,
//! the error quotes what was there instead.

use std::fmt;
use std::str::Chars;

use serde_json::Value;

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There was no response, or only a part of one.
    Lost(String),
    /// The server's certificate could not be verified; no request was sent.
    Unverified(String),
    Status(u16),
    Empty,
    /// The answer does not have the expected form.
    Garbled(String),
    Retcode(i64),
    /// PTLOGIN's code and message.
    Refused(String, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Lost(why) | Trouble::Unverified(why) => f.write_str(why),
            Trouble::Status(status) => write!(f, "status {status}"),
            Trouble::Empty => f.write_str("an empty answer"),
            Trouble::Garbled(what) => write!(f, "not understood: {what}"),
            Trouble::Retcode(code) => write!(f, "retcode {code}"),
            Trouble::Refused(code, why) => write!(f, "login refused ({code}): {why}"),
        }
    }
}

/// The longest server value that goes into one of our requests, in bytes. A URL made of several
/// stays within every limit.
const LONGEST_WORD: usize = 1024;

fn is_usable(word: &str) -> bool {
    !word.is_empty() && word.len() <= LONGEST_WORD
}

fn garbled(what: &str, text: &str) -> Trouble {
    let start: String = text.chars().take(40).collect();
    Trouble::Garbled(format!("{what} in {start:?}"))
}

// ---- the login's scripts ----

/// Returns the string behind `g_login_sig=encodeURIComponent(` in SIG's page. The login continues
/// without one.
pub(crate) fn login_sig(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("g_login_sig=encodeURIComponent(")?;
    string_literal(&mut rest.trim_start().chars())
}

/// Parses the arguments of `name('a','b',…)`: a call with string literals and nothing else.
pub(crate) fn arguments(text: &str, name: &str) -> Result<Vec<String>, Trouble> {
    let parse = || {
        let mut chars = text
            .trim_start()
            .strip_prefix(name)?
            .trim_start()
            .strip_prefix('(')?
            .chars();
        let mut found = Vec::new();
        loop {
            skip_space(&mut chars);
            found.push(string_literal(&mut chars)?);
            skip_space(&mut chars);
            match chars.next()? {
                ',' => {}
                // Nothing may follow that would have to be evaluated.
                ')' => return matches!(chars.as_str().trim(), "" | ";").then_some(found),
                _ => return None,
            }
        }
    };
    match text.trim().is_empty() {
        true => Err(Trouble::Empty),
        false => parse().ok_or_else(|| garbled(&format!("no {name}('…')"), text)),
    }
}

fn skip_space(chars: &mut Chars<'_>) {
    let text = chars.as_str();
    *chars = text.trim_start().chars();
}

/// Parses a quoted string with the escapes `\xHH`, `\uHHHH` and `\n`; a backslash before any other
/// character stands for that character.
fn string_literal(chars: &mut Chars<'_>) -> Option<String> {
    let quote = chars.next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut text = String::new();
    loop {
        match chars.next()? {
            c if c == quote => return (text.len() <= LONGEST_WORD).then_some(text),
            '\\' => text.push(match chars.next()? {
                'x' => hex_digits(chars, 2)?,
                'u' => hex_digits(chars, 4)?,
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                c => c,
            }),
            c => text.push(c),
        }
    }
}

fn hex_digits(chars: &mut Chars<'_>, count: usize) -> Option<char> {
    let digits = chars.as_str().get(..count)?;
    *chars = chars.as_str()[count..].chars();
    let valid = digits.bytes().all(|b| b.is_ascii_hexdigit());
    // Half of a surrogate pair is not a character.
    valid.then(|| char::from_u32(u32::from_str_radix(digits, 16).ok()?).or(Some('\u{fffd}')))?
}

/// Converts characters below 256 to one byte each: CHECK's `\x00\x00…`.
pub(crate) fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect()
}

// ---- JSON ----

/// Returns the `result` of an answer whose retcode is 0 or missing.
pub(crate) fn result(text: &str) -> Result<Value, Trouble> {
    let answer = object(text)?;
    match answer.get("retcode").and_then(Value::as_i64) {
        Some(0) => Ok(answer["result"].clone()),
        Some(code) => Err(Trouble::Retcode(code)),
        None => Ok(answer["result"].clone()),
    }
}

fn object(text: &str) -> Result<Value, Trouble> {
    if text.trim().is_empty() {
        return Err(Trouble::Empty);
    }
    match serde_json::from_str(text) {
        Ok(answer @ Value::Object(_)) => Ok(answer),
        _ => Err(garbled("no JSON object", text)),
    }
}

/// Reads each item of `list[name]`, leaving out incomplete ones.
fn each<T>(list: &Value, name: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let items = list[name].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(read).collect()
}

/// Reads a number. Servers sent numbers or strings, depending on the server and the year.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn named(
    number_at: &'static str,
    name_at: &'static str,
) -> impl Fn(&Value) -> Option<(u64, String)> {
    move |item| Some((number(&item[number_at])?, text(&item[name_at])))
}

/// The keys that LOGIN2 returns.
pub(crate) struct Keys {
    pub(crate) vfwebqq: String,
    pub(crate) psessionid: String,
}

pub(crate) fn keys(answer: &str) -> Result<Keys, Trouble> {
    let result = result(answer)?;
    let key = |name: &str| match result[name].as_str() {
        Some(key) if is_usable(key) => Ok(key.to_owned()),
        _ => Err(garbled(&format!("no {name}"), answer)),
    };
    Ok(Keys {
        vfwebqq: key("vfwebqq")?,
        psessionid: key("psessionid")?,
    })
}

/// Returns uins and names. A name given by the bot's owner takes precedence over the friend's own.
/// Ghosts, which `info` does not list, may have none.
pub(crate) fn friends(answer: &str) -> Result<Vec<(u64, String)>, Trouble> {
    let result = result(answer)?;
    let nicks = each(&result, "info", named("uin", "nick"));
    let marks = each(&result, "marknames", named("uin", "markname"));
    let name = |uin: u64| {
        let mut all = marks.iter().chain(&nicks);
        let found = all.find(|(other, name)| *other == uin && !name.is_empty());
        found.map(|(_, name)| name.clone()).unwrap_or_default()
    };
    Ok(each(&result, "friends", |friend| number(&friend["uin"]))
        .into_iter()
        .map(|uin| (uin, name(uin)))
        .collect())
}

pub(crate) struct GroupEntry {
    pub(crate) gid: u64,
    pub(crate) code: u64,
    pub(crate) name: String,
}

pub(crate) fn groups(answer: &str) -> Result<Vec<GroupEntry>, Trouble> {
    Ok(each(&result(answer)?, "gnamelist", |group| {
        let (gid, code) = (number(&group["gid"])?, number(&group["code"])?);
        Some(GroupEntry {
            gid,
            code,
            name: text(&group["name"]),
        })
    }))
}

/// Returns uins and names. A member's card in the group takes precedence over the nick.
pub(crate) fn members(answer: &str) -> Result<Vec<(u64, String)>, Trouble> {
    let result = result(answer)?;
    let cards = each(&result, "cards", named("muin", "card"));
    let mut members = each(&result, "minfo", named("uin", "nick"));
    for (uin, name) in &mut members {
        if let Some((_, card)) = cards
            .iter()
            .find(|(muin, card)| muin == uin && !card.is_empty())
        {
            name.clone_from(card);
        }
    }
    Ok(members)
}

pub(crate) fn discus(answer: &str) -> Result<Vec<(u64, String)>, Trouble> {
    Ok(each(&result(answer)?, "dnamelist", named("did", "name")))
}

pub(crate) fn discu_people(answer: &str) -> Result<Vec<(u64, String)>, Trouble> {
    Ok(each(&result(answer)?, "mem_info", named("uin", "nick")))
}

pub(crate) fn account(answer: &str) -> Result<u64, Trouble> {
    number(&result(answer)?["account"]).ok_or_else(|| garbled("no account", answer))
}

pub(crate) fn signature(answer: &str) -> Result<String, Trouble> {
    let result = result(answer)?;
    let value = result["value"].as_str().filter(|value| is_usable(value));
    let value = value.map(str::to_owned);
    value.ok_or_else(|| garbled("no value", answer))
}

// ---- the poll ----

/// What a poll returned.
pub(crate) enum Poll {
    /// In chronological order.
    Items(Vec<Item>),
    /// Retcode 116: the new value of the cookie `ptwebqq`.
    NewPtwebqq(String),
}

pub(crate) enum Item {
    Message(Message),
    /// The account logged in elsewhere.
    Kick(String),
    /// Statuses, typing, files: nothing to answer.
    Other,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) from: From,
    pub(crate) text: String,
    pub(crate) picture: Option<Picture>,
}

/// What identifies a message across deliveries. Its uins are not part of that: they change with the
/// login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageId {
    pub(crate) msg_id: u64,
    msg_id2: u64,
    time: u64,
}

/// The sender and the place, in the session's uins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Buddy { uin: u64 },
    Group { gid: u64, uin: u64 },
    Discu { did: u64, uin: u64 },
    Sess { gid: u64, uin: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Picture {
    Offline {
        file_path: String,
        from_uin: u64,
    },
    Group {
        gid: u64,
        uin: u64,
        file_id: u64,
        name: String,
        server: String,
    },
}

pub(crate) fn poll(answer: &str) -> Result<Poll, Trouble> {
    let answer_value = object(answer)?;
    match answer_value["retcode"].as_i64() {
        Some(0) => {}
        Some(116) => {
            return match answer_value["p"].as_str() {
                Some(value) if is_usable(value) => Ok(Poll::NewPtwebqq(value.to_owned())),
                _ => Err(garbled("no p", answer)),
            };
        }
        Some(code) => return Err(Trouble::Retcode(code)),
        None => return Err(garbled("no retcode", answer)),
    }
    // Newest first, or the string "ok".
    let items = answer_value["result"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    Ok(Poll::Items(items.iter().rev().map(item).collect()))
}

fn item(item: &Value) -> Item {
    let kind = text(&item["poll_type"]);
    let value = &item["value"];
    if kind == "kick_message" {
        return Item::Kick(text(&value["reason"]));
    }
    match from(&kind, value).and_then(|from| message(from, value)) {
        Some(message) => Item::Message(message),
        None => Item::Other,
    }
}

fn from(kind: &str, value: &Value) -> Option<From> {
    let at = |name: &str| number(&value[name]);
    Some(match kind {
        "message" => From::Buddy {
            uin: at("from_uin")?,
        },
        "group_message" => From::Group {
            gid: at("from_uin")?,
            uin: at("send_uin")?,
        },
        "discu_message" => From::Discu {
            did: at("did")?,
            uin: at("send_uin")?,
        },
        "sess_message" => From::Sess {
            gid: at("id")?,
            uin: at("from_uin")?,
        },
        _ => return None,
    })
}

fn message(from: From, value: &Value) -> Option<Message> {
    let id = MessageId {
        msg_id: number(&value["msg_id"])?,
        msg_id2: number(&value["msg_id2"]).unwrap_or_default(),
        time: number(&value["time"]).unwrap_or_default(),
    };
    let content = value["content"].as_array()?;
    let words: String = content.iter().filter_map(Value::as_str).collect();
    let picture = content.iter().find_map(|part| picture(from, part));
    Some(Message {
        id,
        from,
        text: words.trim().to_owned(),
        picture,
    })
}

fn picture(from: From, part: &Value) -> Option<Picture> {
    let about = &part[1];
    let words = [&about["file_path"], &about["name"], &about["server"]];
    let mut words = words.iter().filter_map(|word| word.as_str());
    if words.any(|word| word.len() > LONGEST_WORD) {
        return None;
    }
    match (part[0].as_str()?, from) {
        ("offpic", From::Buddy { uin } | From::Sess { uin, .. }) => Some(Picture::Offline {
            file_path: text(&about["file_path"]),
            from_uin: uin,
        }),
        ("cface", From::Group { gid, uin } | From::Discu { did: gid, uin }) => {
            Some(Picture::Group {
                gid,
                uin,
                file_id: number(&about["file_id"]).unwrap_or_default(),
                name: text(&about["name"]),
                server: text(&about["server"]),
            })
        }
        _ => None,
    }
}
