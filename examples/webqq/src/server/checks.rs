//! The checks that each step's calls must pass.

use std::time::Duration;

use super::Https;
use super::breach::{Breach, Checked, Rule};
use super::cookies::brought;
use super::hashes;
use super::login::Code;
use super::mint::{Kind, Token};
use super::parameters;
use super::seat::{How, Keys, Seat};
use super::send;
use super::step::Step;
use super::visit::Visit;
use super::wire::{Answer, Scheme};

/// How long a call that was in flight during a change is excused.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

impl Visit<'_> {
    /// Checks the scheme. Nothing excuses a wrong one: a call meant for https must never be
    /// readable on the network.
    pub(crate) fn check_scheme(&self) -> Checked {
        let came = self.call.scheme;
        let meant = match self.house.settings.https {
            Https::AsHttp => Some(Scheme::Http),
            Https::OverTls => self.step.scheme(),
        };
        match meant {
            Some(meant) if meant != came => {
                Err(Rule::Scheme.broken(format!("is {meant}, but came over {came}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks what does not depend on the account.
    pub(crate) fn check_form(&self) -> Checked {
        let method = self.step.method();
        Rule::Method.unless(self.call.method == method, "wrong method")?;
        self.check_referer()?;
        let flaw = parameters::flaw(self.step, self.call, &self.r);
        flaw.map_or(Ok(()), |flaw| Err(Rule::Parameter.broken(flaw)))?;
        let is_strange = self.step == Step::Weather && self.call.header("cookie").is_some();
        Rule::Cookie.unless(
            !is_strange,
            "the weather service gets a cookie of another site",
        )
    }

    fn check_referer(&self) -> Checked {
        let referer = self.call.header("referer").unwrap_or_default();
        let host = host_of(referer);
        let is_web2 = matches!(host, "s.web2.qq.com" | "d.web2.qq.com");
        // After a redirect a client may omit it, or name the last hop.
        let is_first = self.call.query("hop").is_none();
        let is_good = match self.step {
            Step::CheckSig => !referer.is_empty() || !is_first,
            Step::Check => host == "ui.ptlogin2.qq.com",
            _ if self.call.host.ends_with(".web2.qq.com") => is_web2,
            _ => true,
        };
        Rule::Referer.unless(is_good, "Referer is missing or wrong")?;
        let origin = self.call.header("origin").unwrap_or_default();
        let is_due = self.call.host == "d.web2.qq.com" && self.call.method == "POST";
        let is_good = matches!(host_of(origin), "s.web2.qq.com" | "d.web2.qq.com");
        Rule::Origin.unless(!is_due || is_good, "Origin is missing or wrong")
    }
}

/// Returns the host of an http or https URL.
fn host_of(url: &str) -> &str {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    rest.and_then(|rest| rest.split('/').next())
        .unwrap_or_default()
}

impl Seat {
    /// Runs all checks that precede a step's work, in this order.
    pub(crate) fn admit(&self, visit: &Visit<'_>) -> Checked {
        visit.check_form()?;
        match visit.step {
            Step::Sig | Step::Weather => return Ok(()),
            Step::Check => return self.check_login_sig(visit),
            Step::Captcha => return self.check_attempt(),
            Step::PtLogin => return self.check_ptlogin(visit),
            Step::CheckSig => return self.check_ptsigx(visit),
            Step::Login2 => return self.check_login2(visit),
            Step::Heartbeat => {
                self.check_cookies(visit)?;
                return self.check_heartbeat(visit);
            }
            Step::GroupPic => self.check_vfwebqq(visit)?,
            _ if visit.call.host == "s.web2.qq.com" => self.check_vfwebqq(visit)?,
            _ => self.check_psessionid(visit)?,
        }
        self.check_cookies(visit)?;
        match visit.step {
            Step::Poll => self.check_only_poll(),
            Step::Friends | Step::Groups => self.check_list_hash(visit),
            step if step.is_send() => self.check_send(visit),
            _ => self.check_numbers(visit),
        }
    }

    fn check_login_sig(&self, visit: &Visit<'_>) -> Checked {
        let sig = visit.call.query("login_sig").unwrap_or_default();
        if sig.is_empty() {
            return Rule::Parameter.unless(visit.house.has_left_out_sig, "login_sig is empty");
        }
        let read = self.read_of(visit, Kind::LoginSig, sig, 0)?;
        let own = self.attempt.as_ref().and_then(|attempt| attempt.sig);
        let is_good = own == Some(read) || visit.house.sigs.contains(&read);
        Rule::Parameter.unless(is_good, "login_sig was not handed out to this client")
    }

    fn check_attempt(&self) -> Checked {
        let breach = || Rule::Parameter.broken("no CHECK came before");
        match &self.attempt {
            Some(_) => Ok(()),
            None => Err(breach().provoked_if(!self.was_online)),
        }
    }

    fn check_ptlogin(&self, visit: &Visit<'_>) -> Checked {
        self.check_attempt()?;
        let Some(attempt) = &self.attempt else {
            return Ok(());
        };
        let mint = &visit.house.mint;
        let number = self.account.number;
        let sig = attempt
            .sig
            .map(|serial| mint.token(Kind::LoginSig, 0, serial));
        let is_same = visit.call.query("login_sig") == Some(&sig.unwrap_or_default());
        Rule::Parameter.unless(is_same, "login_sig is not that of CHECK")?;
        let confirmed = brought(visit.call, "confirmuin") == Some(&number.to_string());
        Rule::Cookie.unless(confirmed, "cookie confirmuin is missing or wrong")?;
        let given = mint.token(Kind::CheckCookie, number, attempt.serial);
        let is_given = brought(visit.call, "ptvfsession") == Some(&given);
        Rule::Cookie.unless(is_given, "cookie ptvfsession is missing or wrong")?;
        let code = match &attempt.code {
            Code::Wanted => return Err(Rule::Code.broken("a captcha is required")),
            Code::Given(code) => code,
            Code::Picture { text, serial, .. } => {
                let given = mint.token(Kind::CaptchaCookie, number, *serial);
                let is_given = brought(visit.call, "verifysession") == Some(&given);
                Rule::Cookie.unless(is_given, "cookie verifysession is missing or wrong")?;
                text
            }
        };
        let typed = visit.call.query("verifycode").unwrap_or_default();
        Rule::Code.unless(typed == code.to_lowercase(), "wrong verifycode")?;
        let p = hashes::password(number, &self.account.password, code);
        Rule::Hash.unless(visit.call.query("p") == Some(&p), "wrong password hash")
    }

    fn check_ptsigx(&self, visit: &Visit<'_>) -> Checked {
        let sig = visit.call.query("ptsigx").unwrap_or_default();
        let read = self.read_of(visit, Kind::PtSig, sig, self.account.number)?;
        let is_good = self.keys.is_some_and(|keys| keys.login == read);
        let breach = Rule::Keys.unless(is_good, "ptsigx is not of the present login");
        breach.map_err(|breach| breach.provoked_if(self.is_revoked))?;
        let hop = visit.number("hop");
        let is_on_the_way = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| hop <= attempt.hops);
        Rule::Parameter.unless(hop == 0 || is_on_the_way, "this redirect was never given")?;
        let shelf = self.shelf.check(visit.call, read);
        shelf.map_err(|what| Rule::Cookie.broken(what))
    }

    fn check_login2(&self, visit: &Visit<'_>) -> Checked {
        self.check_twins(visit)?;
        let ptwebqq = visit.parameter("ptwebqq").unwrap_or_default();
        let read = self.read_of(visit, Kind::PtWebQq, &ptwebqq, self.account.number)?;
        let is_good = self.keys.is_some_and(|keys| keys.ptwebqq == read);
        let kept = Rule::Keys.unless(is_good, "ptwebqq is not the present one");
        kept.map_err(|breach| breach.provoked_if(self.is_revoked))?;
        let in_jar = brought(visit.call, "ptwebqq") == Some(&ptwebqq);
        Rule::Cookie.unless(in_jar, "cookie ptwebqq is not that of r")?;
        self.check_cookies(visit)
    }

    /// `clientid` and `psessionid` must be the same in the form and in `r`.
    fn check_twins(&self, visit: &Visit<'_>) -> Checked {
        let is_twin = |name: &str| visit.call.form(name) == visit.parameter(name).as_deref();
        Rule::Parameter.unless(
            visit.call.method == "GET" || is_twin("clientid") && is_twin("psessionid"),
            "r and the form name different sessions",
        )
    }

    fn check_psessionid(&self, visit: &Visit<'_>) -> Checked {
        self.check_twins(visit)?;
        let psessionid = visit.parameter("psessionid").unwrap_or_default();
        self.check_session(visit, Kind::Session, &psessionid)?;
        let clientid = visit.parameter("clientid");
        let own = self
            .session
            .as_ref()
            .map(|session| session.clientid.clone());
        Rule::Session.unless(clientid == own, "clientid is not that of LOGIN2")?;
        match visit.call.query("vfwebqq") {
            Some(_) => self.check_vfwebqq(visit),
            None => Ok(()),
        }
    }

    fn check_vfwebqq(&self, visit: &Visit<'_>) -> Checked {
        let vfwebqq = visit.parameter("vfwebqq").unwrap_or_default();
        self.check_session(visit, Kind::Vfwebqq, &vfwebqq)
    }

    /// Whether `token` belongs to the present session.
    fn check_session(&self, visit: &Visit<'_>, kind: Kind, token: &str) -> Checked {
        let read = visit.house.mint.read(kind, token);
        let Some(token) = read.filter(|token| token.account == self.account.number) else {
            return Err(Rule::Session.broken("not a session of this account"));
        };
        match &self.session {
            Some(session) if token.is_ours && session.serial == token.serial => Ok(()),
            _ => {
                let what = "a session that is not the present one";
                let excuse = self.excuses_session(visit, token);
                Err(Rule::Session.broken(what).provoked_if(excuse))
            }
        }
    }

    /// Whether the client could not have known that the session is over.
    fn excuses_session(&self, visit: &Visit<'_>, token: Token) -> bool {
        if !token.is_ours {
            return !self.was_online; // it logged in before this server began
        }
        let sent = visit.under_way_since();
        let is_fresh = |since: Duration| sent.saturating_sub(since) < GRACE;
        match (&self.session, &self.ending) {
            (Some(session), _) => match session.announced {
                Some(since) => is_fresh(since) && !visit.step.is_loop(),
                None => true,
            },
            (None, Some(ending)) if ending.how == How::LoggedOut => is_fresh(ending.at),
            (None, _) => true,
        }
    }

    /// Returns the keys of the present login, and those of the previous one while calls that carry
    /// them may be in flight.
    fn good_keys(&self, now: Duration) -> impl Iterator<Item = Keys> {
        let former = self.former_keys.filter(|&(_, until)| now < until);
        self.keys.into_iter().chain(former.map(|(keys, _)| keys))
    }

    /// Checks the cookies that the login set: each must come with the requests it belongs to, and
    /// with no others.
    fn check_cookies(&self, visit: &Visit<'_>) -> Checked {
        let number = self.account.number;
        let has = |name: &str, kind, serial| {
            let token = visit.house.mint.token(kind, number, serial);
            brought(visit.call, name) == Some(&token)
        };
        let is_web2 = visit.call.host.ends_with("web2.qq.com");
        let is_good = self.good_keys(visit.under_way_since()).any(|keys| {
            has("ptwebqq", Kind::PtWebQq, keys.ptwebqq)
                && has("skey", Kind::Skey, keys.login)
                && (!is_web2 || has("p_skey", Kind::Jar, keys.login))
        });
        if !is_good {
            let what = "cookies ptwebqq, skey or p_skey are missing or wrong";
            let is_between = visit.step == Step::Heartbeat && self.attempt.is_some();
            let excuse = self.is_revoked || is_between || self.is_from_before(visit);
            return Err(Rule::Cookie.broken(what).provoked_if(excuse));
        }
        let login = self.keys.map_or(0, |keys| keys.login);
        let shelf = self.shelf.check(visit.call, login);
        shelf.map_err(|what| Rule::Cookie.broken(what))
    }

    /// Whether the cookies are from an earlier run of the server.
    fn is_from_before(&self, visit: &Visit<'_>) -> bool {
        let cookie = brought(visit.call, "ptwebqq").unwrap_or_default();
        let read = visit.house.mint.read(Kind::PtWebQq, cookie);
        read.is_some_and(|token| !token.is_ours) && !self.was_online
    }

    fn check_heartbeat(&self, visit: &Visit<'_>) -> Checked {
        let rc: Option<u64> = visit.call.query("rc").and_then(|rc| rc.parse().ok());
        Rule::Parameter.unless(rc.is_some(), "rc is not a number")?;
        match (&self.session, &self.ending) {
            (None, None) => return Err(Rule::Session.broken("a heartbeat before the login")),
            (None, Some(ending)) if ending.how == How::LoggedOut => {
                let is_fresh = visit.now.saturating_sub(ending.at) < GRACE;
                let breach = Rule::Session.broken("a heartbeat after the logout");
                return Err(breach.provoked_if(is_fresh));
            }
            _ => {}
        }
        let Some(heart) = self.heart else {
            return Ok(());
        };
        // Gaps are beats that were lost on the way.
        Rule::Order.unless(rc > Some(heart.rc), "rc does not count upwards")?;
        let is_paced = visit.now.saturating_sub(heart.at) >= visit.house.settings.beat() / 2;
        Rule::Pace.unless(is_paced, "two heartbeats in less than half their interval")
    }

    pub(crate) fn check_only_poll(&self) -> Checked {
        Rule::SecondPoll.unless(self.poll.is_none(), "a second poll of one session")
    }

    fn check_list_hash(&self, visit: &Visit<'_>) -> Checked {
        let hash = visit.parameter("hash").unwrap_or_default();
        let number = self.account.number;
        let is_good = self.good_keys(visit.now).any(|keys| {
            let ptwebqq = visit.house.mint.token(Kind::PtWebQq, number, keys.ptwebqq);
            hash == hashes::list(number, &ptwebqq)
        });
        Rule::Hash.unless(is_good, "wrong hash of a list")
    }

    fn check_send(&self, visit: &Visit<'_>) -> Checked {
        let settings = &visit.house.settings;
        let content = visit.parameter("content").unwrap_or_default();
        let Some(text) = send::text_of(&content) else {
            return Err(Rule::Parameter.broken("content is not JSON within JSON"));
        };
        let is_new = visit.number("msg_id") > self.last_msg_id;
        Rule::Order.unless(is_new, "msg_id does not count upwards")?;
        if self.place_of(visit).is_none() {
            return self
                .check_numbers(visit)
                .and(Err(Rule::Number.broken("no such recipient")));
        }
        let is_short = text.chars().count() <= settings.max_text;
        Rule::Length.unless(is_short, "the text is too long")?;
        let since = self.last_send.map(|last| visit.now.saturating_sub(last));
        let is_paced = since.is_none_or(|since| since >= settings.pause());
        Rule::Pace.unless(is_paced, "sent too soon after the last one")
    }

    /// Checks that the numbers in a call are those of the present login.
    fn check_numbers(&self, visit: &Visit<'_>) -> Checked {
        let numbers = &self.numbers;
        let known = |name: &str, is_known: bool| {
            let breach = || Rule::Number.broken(format!("{name} is not of this login"));
            let is_dropped = self.dropped.has(visit.number(name));
            if is_known {
                Ok(())
            } else {
                Err(breach().provoked_if(is_dropped))
            }
        };
        let n = |name: &str| visit.number(name);
        match visit.step {
            Step::Members => known("gcode", numbers.group_by_code(n("gcode")).is_some()),
            Step::DiscuInfo | Step::SendDiscu => {
                known("did", numbers.discussion(n("did")).is_some())
            }
            Step::SendGroup => known("group_uin", numbers.group(n("group_uin")).is_some()),
            Step::SendBuddy | Step::SendSess => known("to", numbers.who(n("to")).is_some()),
            Step::SessSig => {
                known("id", numbers.group(n("id")).is_some())?;
                known("to_uin", numbers.who(n("to_uin")).is_some())
            }
            Step::FriendUin => known("tuin", numbers.has(n("tuin"))),
            Step::Offpic => {
                known("f_uin", numbers.who(n("f_uin")).is_some()).and(self.check_picture(visit))
            }
            Step::GroupPic => known("gid", numbers.has(n("gid"))).and(self.check_picture(visit)),
            _ => Ok(()),
        }
    }

    fn check_picture(&self, visit: &Visit<'_>) -> Checked {
        let is_known = self.picture_of(visit).is_some();
        Rule::Number.unless(is_known, "no such picture was sent")
    }

    /// Returns the serial number of a token that this server made for `account`.
    fn read_of(
        &self,
        visit: &Visit<'_>,
        kind: Kind,
        token: &str,
        account: u64,
    ) -> Result<u64, Breach> {
        let read = visit.house.mint.read(kind, token);
        match read.filter(|token| token.account == account) {
            Some(token) if token.is_ours => Ok(token.serial),
            // It may be from an earlier run of the server.
            Some(_) => Err(Rule::Keys
                .broken("not of this server")
                .provoked_if(!self.was_online)),
            None => Err(Rule::Keys.broken("not of this server")),
        }
    }

    /// Records a breach, and answers as the real server did.
    pub(crate) fn refuse(&mut self, visit: &mut Visit<'_>, breach: Breach) -> Answer {
        let is_again = self.struck.remove(&visit.step) && excuses(visit.step, breach.rule);
        let answer = breach.answer(visit.step);
        let provoked = breach.provoked || is_again;
        visit.note_error(Some(self.account.number), breach.what, provoked);
        answer
    }
}

/// Whether the loss of `step`'s last answer excuses the breach. Sends are never excused, since a
/// send must not be repeated. Neither are second polls, or polls of a session that is over.
fn excuses(step: Step, rule: Rule) -> bool {
    match step {
        Step::Poll => !matches!(rule, Rule::Session | Rule::SecondPoll),
        step => !step.is_send(),
    }
}
