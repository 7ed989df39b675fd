//! The steps of a login: SIG, CHECK, CAPTCHA, PTLOGIN, CHECKSIG and LOGIN2.

use std::time::Duration;

use serde_json::json;

use super::checks::GRACE;
use super::cookies::{Cookie, Life, Scope};
use super::fault::Fault;
use super::mint::Kind;
use super::numbers::Numbers;
use super::seat::{How, Keys, Seat, Session};
use super::step::Step;
use super::visit::{Due, House, Visit};
use super::wire::{Answer, Scheme, Wish};

/// A login between CHECK and LOGIN2.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) serial: u64,
    /// The login signature that CHECK carried.
    pub(crate) sig: Option<u64>,
    pub(crate) code: Code,
    /// The number of redirects that CHECKSIG makes.
    pub(crate) hops: u64,
    /// The fault that makes them. It counts once the client has followed all of them.
    redirecting: Option<Fault>,
}

/// The code to type.
#[derive(Debug)]
pub(crate) enum Code {
    /// CHECK's answer contained it.
    Given(String),
    /// A captcha must be fetched.
    Wanted,
    /// A person reads it from a picture.
    Picture {
        text: String,
        serial: u64,
        made: Duration,
        is_expired: bool,
    },
}

/// The lifetime of the cookies that CHECKSIG sets and a jar should keep: 30 days.
const LONG_LIFE_SECONDS: u32 = 2_592_000;

impl Seat {
    pub(crate) fn check(&mut self, visit: &mut Visit<'_>) -> Answer {
        let number = self.account.number;
        let house = &mut *visit.house;
        let serial = house.next_serial();
        let given = visit.call.query("login_sig").unwrap_or_default();
        let sig = house
            .mint
            .read(Kind::LoginSig, given)
            .map(|token| token.serial);
        house.sigs.retain(|&waiting| Some(waiting) != sig);
        forget_captcha(house, number);
        let wants_captcha = visit.fault == Some(Fault::Captcha);
        let given = format!("!{}", letters(house, 3));
        let head = if wants_captcha {
            format!("'1','{}'", house.mint.token(Kind::CheckCookie, number, 0))
        } else {
            format!("'0','{given}'")
        };
        self.end_attempt();
        self.attempt = Some(Attempt {
            serial,
            sig,
            code: if wants_captcha {
                Code::Wanted
            } else {
                Code::Given(given)
            },
            hops: 0,
            redirecting: None,
        });
        let bytes = number.to_be_bytes();
        let uin: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let scope = Scope::Domain("ptlogin2.qq.com");
        let ptvfsession = house.mint.token(Kind::CheckCookie, number, serial);
        Answer::text(format!("ptui_checkVC({head},'{uin}');"))
            .cookie(Cookie::new("confirmuin", number.to_string(), scope).line())
            .cookie(Cookie::new("ptvfsession", ptvfsession, scope).line())
    }

    /// Returns a captcha's picture. A person will read it and type its text.
    pub(crate) fn captcha(&mut self, visit: &mut Visit<'_>) -> Answer {
        let number = self.account.number;
        let house = &mut *visit.house;
        let serial = house.next_serial();
        forget_captcha(house, number);
        if !visit.fault.is_some_and(Fault::loses_answer) {
            let read_at = visit.now + house.settings.reading();
            house.agenda.insert((read_at, Due::CaptchaIsRead(number)));
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.code = Code::Picture {
                text: letters(house, 4),
                serial,
                made: visit.now,
                is_expired: visit.fault == Some(Fault::Expired),
            };
        }
        let cookie = house.mint.token(Kind::CaptchaCookie, number, serial);
        let cookie = Cookie::new("verifysession", cookie, Scope::Domain("qq.com"));
        Answer::jpeg(picture(serial)).cookie(cookie.line())
    }

    /// A person has read the captcha.
    pub(crate) fn on_captcha_read(&mut self, house: &mut House) {
        if let Some(Code::Picture { text, .. }) = self.attempt.as_ref().map(|attempt| &attempt.code)
        {
            house.wishes.push(Wish::Code {
                account: self.account.number,
                code: text.clone(),
            });
        }
    }

    pub(crate) fn ptlogin(&mut self, visit: &mut Visit<'_>) -> Answer {
        if let Some(Fault::Ptui(code)) = visit.fault {
            return Answer::ptui(code, "", "登录失败", "");
        }
        let life = visit.house.settings.captcha_life();
        if let Some(attempt) = &mut self.attempt
            && attempt.code.has_expired(visit.now, life)
        {
            attempt.code = Code::Wanted;
            return Answer::ptui(4, "", "验证码已失效", "");
        }
        let number = self.account.number;
        let serial = visit.house.next_serial();
        let keys = Keys {
            login: serial,
            ptwebqq: serial,
            is_fresh: true,
        };
        // A client that cannot read the new keys continues with its old ones.
        if !visit.is_lost() {
            self.change_keys(visit.now, visit.house.settings.hold(), keys);
        }
        let mint = &visit.house.mint;
        let sig = mint.token(Kind::PtSig, number, serial);
        let url = format!(
            "http://web2.qq.com/check_sig?pttype=1&uin={number}&service=ptlogin&ptsigx={sig}"
        );
        let scope = Scope::Domain(".qq.com");
        let ptwebqq = mint.token(Kind::PtWebQq, number, serial);
        let skey = mint.token(Kind::Skey, number, serial);
        let safe_key = Cookie::new("safe_key", mint.token(Kind::Jar, number, serial), scope);
        let answer = Answer::ptui(0, &url, "登录成功！", &self.account.nick)
            .cookie(Cookie::new("ptwebqq", ptwebqq, scope).line())
            .cookie(Cookie::new("skey", skey, scope).line());
        match visit.call.scheme {
            Scheme::Http => answer,
            // Must come with https requests only.
            Scheme::Https => self.hand_out(visit, answer, &safe_key.secure()),
        }
    }

    /// Sets a cookie of the present login, which the client must keep as RFC 6265 says.
    fn hand_out(&mut self, visit: &Visit<'_>, answer: Answer, cookie: &Cookie) -> Answer {
        if !visit.is_lost() {
            let login = self.keys.map_or(0, |keys| keys.login);
            self.shelf.put(login, cookie);
        }
        answer.cookie(cookie.line())
    }

    pub(crate) fn change_keys(&mut self, now: Duration, hold: Duration, keys: Keys) {
        // The answer with the new keys may take long to arrive.
        let until = now + (hold / 2).max(GRACE);
        self.former_keys = self.keys.map(|former| (former, until));
        self.keys = Some(keys);
        self.is_revoked = false;
    }

    /// Sets cookies, and redirects the client if a fault says so.
    pub(crate) fn checksig(&mut self, visit: &mut Visit<'_>) -> Answer {
        let hop = visit.number("hop");
        if hop == 0 {
            // It begins anew, perhaps because the answer to the last try was lost.
            self.end_redirects();
        }
        let fault = visit.fault;
        if let Some(fault @ (Fault::Redirects(_) | Fault::SubdomainCookies)) = fault {
            visit.fault = None;
            match hop {
                0 => self.set_hops(fault),
                _ => self.rearm(Step::CheckSig, fault), // this login is being redirected already
            }
        }
        let hops = self.attempt.as_ref().map_or(0, |attempt| attempt.hops);
        let with_sub_domains = fault == Some(Fault::SubdomainCookies) && hop == 0;
        let mut cookies = Vec::new();
        let answer = if hop < hops {
            cookies.push(Cookie::new(
                format!("hop{}", hop + 1),
                "1",
                Scope::Domain("web2.qq.com"),
            ));
            Answer::redirect(location(visit, hop + 1, with_sub_domains))
        } else {
            cookies.extend(self.last_cookies(visit));
            if let (None, Some(attempt)) = (visit.fault, &mut self.attempt) {
                visit.fault = attempt.redirecting.take();
            }
            Answer::html("<html><body>welcome</body></html>")
        };
        if with_sub_domains {
            cookies.extend(sub_domain_cookies());
        }
        cookies.iter().fold(answer, |answer, cookie| {
            self.hand_out(visit, answer, cookie)
        })
    }

    fn set_hops(&mut self, fault: Fault) {
        if let Some(attempt) = &mut self.attempt {
            attempt.redirecting = Some(fault);
            attempt.hops = match fault {
                Fault::Redirects(hops) => hops.into(),
                _ => 1,
            };
        }
    }

    /// Ends the redirects of an attempt. If the client has not followed them, their fault is due
    /// again.
    fn end_redirects(&mut self) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        attempt.hops = 0;
        if let Some(fault) = attempt.redirecting.take() {
            self.rearm(Step::CheckSig, fault);
        }
    }

    fn end_attempt(&mut self) {
        self.end_redirects();
        self.attempt = None;
    }

    /// The cookies for whose sake CHECKSIG exists.
    fn last_cookies(&self, visit: &Visit<'_>) -> [Cookie; 4] {
        let login = self.keys.map_or(0, |keys| keys.login);
        let token = visit
            .house
            .mint
            .token(Kind::Jar, self.account.number, login);
        let scope = Scope::Domain("web2.qq.com");
        let cookie = |name: &str| Cookie::new(name, token.clone(), scope);
        [
            cookie("p_skey"),
            cookie("pt4_token").path("/channel"),
            cookie("pt_gone").life(Life::Gone),
            cookie("pt_recent").life(Life::MaxAge(LONG_LIFE_SECONDS)),
        ]
    }

    /// Begins a session, and ends the previous one.
    pub(crate) fn login2(&mut self, visit: &mut Visit<'_>) -> Answer {
        let is_full = self.keys.is_some_and(|keys| keys.is_fresh);
        if is_full && visit.fault == Some(Fault::DropUins) {
            visit.fault = None; // a full login drops them anyway
            self.rearm(Step::Login2, Fault::DropUins);
        }
        self.end_session(visit.house, visit.now, How::Succeeded);
        self.draw_numbers(visit, is_full);
        if is_full {
            self.last_msg_id = 0;
            visit.house.ledger.logins += 1;
        } else {
            visit.house.ledger.relinks += 1;
        }
        self.keys = self.keys.map(|keys| Keys {
            is_fresh: false,
            ..keys
        });
        self.heart = None;
        let serial = visit.house.next_serial();
        self.session = Some(Session {
            serial,
            clientid: visit.parameter("clientid").unwrap_or_default(),
            announced: (!visit.is_lost()).then_some(visit.now),
            was_polled: false,
            refusals: 0,
        });
        if !visit.is_lost() {
            self.was_online = true;
            self.end_attempt();
            visit.house.ready.append(&mut self.late);
        }
        let mint = &visit.house.mint;
        let number = self.account.number;
        Answer::result(json!({
            "uin": number, "cip": 2130706433, "index": 1075, "port": 43332, "status": "online",
            "vfwebqq": mint.token(Kind::Vfwebqq, number, serial),
            "psessionid": mint.token(Kind::Session, number, serial), "user_state": 0, "f": 0,
        }))
    }

    fn draw_numbers(&mut self, visit: &mut Visit<'_>, is_full: bool) {
        self.dropped = Numbers::default();
        if is_full || visit.fault == Some(Fault::DropUins) {
            let fresh = Numbers::draw(&self.account, &mut visit.house.mint);
            let old = std::mem::replace(&mut self.numbers, fresh);
            if !is_full {
                self.dropped = old;
            }
        }
    }
}

impl Code {
    fn has_expired(&self, now: Duration, life: Duration) -> bool {
        match self {
            Code::Picture {
                made, is_expired, ..
            } => *is_expired || now.saturating_sub(*made) > life,
            Code::Given(_) | Code::Wanted => false,
        }
    }
}

/// The login page, with the signature that CHECK and PTLOGIN must repeat.
pub(crate) fn sig(visit: &mut Visit<'_>) -> Answer {
    let sig = match visit.fault {
        Some(Fault::NoSig) => {
            visit.house.has_left_out_sig = true;
            String::new()
        }
        _ => {
            let serial = visit.house.hand_out_sig();
            visit.house.mint.token(Kind::LoginSig, 0, serial)
        }
    };
    Answer::html(format!(
        "<html><head><script>var g_version=encodeURIComponent(\"201307230001\"),\
         g_login_sig=encodeURIComponent(\"{sig}\");</script></head><body></body></html>"
    ))
}

/// Returns the target of redirect number `hop`: each kind of Location in turn.
fn location(visit: &Visit<'_>, hop: u64, to_channel: bool) -> String {
    let query = |name: &str| visit.call.query(name).unwrap_or_default();
    let (uin, sig) = (query("uin"), query("ptsigx"));
    let page = format!("check_sig?uin={uin}&ptsigx={sig}&hop={hop}");
    match hop % 4 {
        _ if to_channel => format!("http://d.web2.qq.com/{page}"),
        1 => format!("/{page}"),
        2 => format!("http://s.web2.qq.com/{page}"),
        3 => page,
        _ => format!("//d.web2.qq.com/{page}"),
    }
}

/// Cookies for some hosts only, and cookies that web2.qq.com may not set.
fn sub_domain_cookies() -> [Cookie; 5] {
    [
        Cookie::new("wide", "1", Scope::Domain("web2.qq.com")),
        Cookie::new("alone", "1", Scope::Host("web2.qq.com")),
        Cookie::new("deep", "1", Scope::Domain("web2.qq.com")).path("/api"),
        Cookie::new("below", "1", Scope::Barred("d.web2.qq.com")),
        Cookie::new("elsewhere", "1", Scope::Barred("weather.example")),
    ]
}

fn forget_captcha(house: &mut House, account: u64) {
    house
        .agenda
        .retain(|&(_, due)| due != Due::CaptchaIsRead(account));
}

fn letters(house: &mut House, count: usize) -> String {
    let letters = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
    let mut letter = || {
        let index = house.mint.draw_below(letters.len() as u64);
        letters[index as usize] as char
    };
    (0..count).map(|_| letter()).collect()
}

/// Returns bytes that begin and end like a JPEG. The length, up to 5 KB, is derived from `seed`.
pub(crate) fn picture(seed: u64) -> Vec<u8> {
    let len = 300 + seed.wrapping_mul(997) % 4700;
    let middle = (0..len).map(|k| (k.wrapping_mul(seed + 7) % 251) as u8);
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe0];
    bytes.extend(middle);
    bytes.extend([0xff, 0xd9]);
    bytes
}
