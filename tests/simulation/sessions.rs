//! The sessions of a run, the policies nested inside them, and what the servers may see of both.
//!
//! Everything secret names the session, the request or the origin that it is for, so a server can
//! tell from a request alone whether it got what belongs to another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use httpstream::policy::{
    Decoder, Fields, Policy, Progress, Screening, Start, Verdict, Visit, both,
};
use httpstream::session::{Auth, Decode, Jar, Redirects, Retry, Session};
use httpstream::sim::Random;
use httpstream::{Error, ErrorKind, Moment, Reply, Request, Response};

use crate::books::{Attempt, Books, Keeper};
use crate::lanes::LaneRules;
use crate::plan::{MS, Plan, SECOND};
use crate::retries::{Asked, Purse, RetryRules};
use crate::server::{nonce_in, step_in};

/// The number of jars, which sessions may share.
const JARS: usize = 2;

/// The field by which a [`Nested`] policy signs.
pub(crate) const SIGNATURE: &str = "X-Sign";

/// A session, and what has become of it.
pub(crate) struct Login {
    pub(crate) session: Session,
    pub(crate) rules: Rules,
    /// How often it has been ended.
    pub(crate) ended: u64,
}

/// What a session does, as the servers and the readbacks need to know it.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) number: usize,
    /// The origin of its base.
    pub(crate) base: Option<usize>,
    pub(crate) has_key: bool,
    pub(crate) auth: Option<Credentials>,
    pub(crate) jar: Option<usize>,
    pub(crate) follows: Option<Follows>,
    pub(crate) error_for_status: bool,
    pub(crate) total: Option<Duration>,
    pub(crate) retry: Option<RetryRules>,
    pub(crate) lanes: Option<LaneRules>,
    /// Whether it removes codings.
    pub(crate) decodes: bool,
    /// Whether it has a [`Nested`] policy.
    pub(crate) is_nested: bool,
    /// Whether a [`Keeper`] keeps its books.
    pub(crate) is_kept: bool,
}

/// The credentials of a session.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) origin: usize,
    /// The value of the Authorization field. `None` for Digest, whose value varies.
    pub(crate) value: Option<Vec<u8>>,
}

/// Which redirects a session follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Follows {
    pub(crate) most: usize,
    pub(crate) same_origin: bool,
    /// POST stays POST after 301 and 302.
    pub(crate) keeps_method: bool,
}

impl Rules {
    fn draw(random: &mut Random, plan: &Plan, number: usize) -> Self {
        let origin = |random: &mut Random| random.below(plan.origins.len());
        let base = random.chance(700).then(|| origin(random));
        // Without a base, the credentials name their origin.
        let at = base.filter(|_| random.chance(700));
        let auth = random.chance(700).then(|| Credentials {
            origin: at.unwrap_or_else(|| origin(random)),
            value: match random.below(4) {
                0 => Some(basic(number)),
                1 => Some(format!("Bearer token-{number}").into_bytes()),
                _ => None,
            },
        });
        let follows = random.chance(850).then(|| Follows {
            most: *random.pick(&[0, 1, 2, 5, 5, 5]),
            same_origin: random.chance(150),
            keeps_method: random.chance(250),
        });
        let retry = random.chance(500).then(|| RetryRules::draw(random, number));
        let is_endless = retry.as_ref().is_some_and(|retry| retry.attempts.is_none());
        let total = (is_endless || random.chance(300)).then(|| match plan.benign && !is_endless {
            true => 300 * SECOND,
            false => random.duration(20 * SECOND) + MS,
        });
        let lanes = random.chance(450).then(|| LaneRules::draw(random));
        Self {
            number,
            base,
            has_key: random.chance(700),
            auth,
            jar: random.chance(700).then(|| random.below(JARS)),
            follows,
            error_for_status: random.chance(300),
            total,
            is_nested: random.chance(400),
            is_kept: (retry.is_some() || lanes.is_some()) && random.chance(800),
            retry,
            lanes,
            decodes: random.chance(400),
        }
    }

    /// Returns the value of the session's own field.
    pub(crate) fn key(&self) -> String {
        format!("key-{}", self.number)
    }

    fn user(&self) -> String {
        format!("user-{}", self.number)
    }

    /// Returns how the Authorization field of Digest begins.
    pub(crate) fn digest_start(&self) -> String {
        format!("Digest username=\"{}\"", self.user())
    }

    fn build(&self, plan: &Plan, jars: &[Jar], journal: &Journal, retry: Option<Retry>) -> Session {
        let mut builder = Session::builder().error_for_status(self.error_for_status);
        if let Some(base) = self.base {
            builder = builder.base(plan.origins[base].url);
        }
        if self.has_key {
            builder = builder.header("X-Key", self.key());
        }
        if let Some(auth) = &self.auth {
            let secret = format!("token-{}", self.number);
            let credentials = match &auth.value {
                Some(value) if value.starts_with(b"Bearer") => Auth::bearer(&secret),
                Some(_) => Auth::basic(&self.user(), "secret"),
                None => Auth::digest(&self.user(), "secret"),
            };
            let credentials = match self.base == Some(auth.origin) {
                true => credentials,
                false => credentials.at(plan.origins[auth.origin].url),
            };
            builder = builder.auth(credentials);
        }
        if let Some(jar) = self.jar {
            builder = builder.cookies(jars[jar].clone());
        }
        if let Some(follows) = self.follows {
            let mut redirects = Redirects::limited(follows.most);
            if follows.same_origin {
                redirects = redirects.same_origin();
            }
            if follows.keeps_method {
                redirects = redirects.keep_method([301, 302]);
            }
            builder = builder.redirects(redirects);
        }
        if let Some(total) = self.total {
            builder = builder.total(total);
        }
        if let Some(retry) = retry {
            builder = builder.retry(retry);
        }
        if self.decodes {
            builder = builder.decode(Decode::all());
        }
        if let Some(lanes) = &self.lanes {
            builder = lanes.add_to(builder);
        }
        let nested = || -> Arc<dyn Policy> {
            let journal = journal.clone();
            Arc::new(Nested { journal })
        };
        let keeper = || -> Arc<dyn Policy> {
            let (journal, session) = (journal.clone(), self.number);
            Arc::new(Keeper { journal, session })
        };
        builder = match (self.is_kept, self.is_nested) {
            (true, true) => builder.policy(both(keeper(), nested())),
            (true, false) => builder.policy(keeper()),
            (false, true) => builder.policy(nested()),
            (false, false) => builder,
        };
        builder.build().expect("the session is valid")
    }
}

/// Returns the field value that a session with Basic sends.
fn basic(number: usize) -> Vec<u8> {
    let request = Request::get("http://localhost/").basic_auth(&format!("user-{number}"), "secret");
    let request = request.build().expect("the request is valid");
    let value = request.header("Authorization");
    value.expect("there are credentials").to_vec()
}

/// Creates the sessions of a run. About half of the runs have none.
pub(crate) fn logins(random: &mut Random, plan: &Plan, journal: &Journal) -> Vec<Login> {
    let count = match random.chance(550) {
        true => random.between(1, 3),
        false => 0,
    };
    let jars: Vec<Jar> = (0..JARS).map(|_| Jar::new()).collect();
    let mut logins: Vec<(Login, Option<Retry>)> = Vec::new();
    for number in 0..count {
        let mut rules = Rules::draw(random, plan, number);
        let mut retry = rules.retry.as_ref().map(RetryRules::build);
        // Some share the budget of the one before.
        if let (Some((last, Some(shared))), Some(_)) = (logins.last(), &retry)
            && last.rules.total.is_some() == rules.total.is_some()
            && random.chance(300)
        {
            retry = Some(shared.clone());
            rules.retry = last.rules.retry.clone();
            rules.is_kept = last.rules.is_kept;
        }
        let login = Login {
            session: rules.build(plan, &jars, journal, retry.clone()),
            rules,
            ended: 0,
        };
        logins.push((login, retry));
    }
    let logins: Vec<Login> = logins.into_iter().map(|(login, _)| login).collect();
    let mut notes = journal.notes();
    let retries = logins.iter().map(|login| login.rules.retry.as_ref());
    notes.purses = retries.map(|rules| rules.map(Purse::new)).collect();
    let kept = logins
        .iter()
        .map(|login| login.rules.is_kept.then(|| Books::new(&login.rules)));
    notes.books = kept.collect();
    logins
}

/// A generation of a session: its number, and how often it had been ended.
pub(crate) type Mark = (usize, u64);

/// What the policies have done, and what they have to know. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Notes>>);

#[derive(Default)]
pub(crate) struct Notes {
    /// How often each session has been ended.
    pub(crate) ended: Vec<u64>,
    /// The generation that each request belongs to, by nonce.
    pub(crate) marks: Vec<Option<Mark>>,
    /// The requests that policies have sent again, and sessions whose books are kept: nonce and
    /// step.
    pub(crate) resent: Vec<(usize, usize)>,
    /// Of the visits and sources that wait.
    pub(crate) wakers: Vec<Waker>,
    pub(crate) reached_by_sources: Vec<&'static str>,
    pub(crate) wrong: Vec<String>,
    pub(crate) reached: Vec<&'static str>,
    /// When the run began.
    pub(crate) base: Option<Instant>,
    pub(crate) verbose: bool,
    /// The books of the sessions that have a [`Keeper`].
    pub(crate) books: Vec<Option<Books>>,
    /// The budgets, by the session that has it first.
    pub(crate) purses: Vec<Option<Purse>>,
    pub(crate) attempts: Vec<Attempt>,
    /// The requests that another engine sends, by nonce.
    pub(crate) guests: BTreeSet<usize>,
    /// The waits that the servers' answers have asked for, by serial number.
    pub(crate) asked: Vec<Asked>,
    /// The waits before retries that readbacks have heard of, by nonce.
    pub(crate) announced: BTreeMap<usize, Duration>,
    /// The last retry of each request that may have been taken from a budget, by nonce.
    pub(crate) last_taken: BTreeMap<usize, u64>,
    /// The last answer with an error status to each request, by nonce.
    pub(crate) last_refusal: BTreeMap<usize, usize>,
    /// The last request that has left its lane without having been let through.
    pub(crate) left: Option<usize>,
    /// The last request that a [`Nested`] policy has sent again.
    resent_last: Option<usize>,
    numbers: u64,
}

impl Notes {
    pub(crate) fn reached_source(&mut self, what: &'static str) {
        self.reached_by_sources.push(what);
    }

    /// Returns a number that was not returned before.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Returns the time since the run began.
    pub(crate) fn time(&self, at: &Moment<'_>) -> Duration {
        let base = self.base.expect("set before the run");
        at.now().saturating_duration_since(base)
    }

    /// Prints what happens, if the run is verbose.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{}", what());
        }
    }

    pub(crate) fn complain(&mut self, now: Duration, why: String) {
        self.wrong.push(format!("at {now:?}: {why}"));
    }

    /// Returns the books of a session.
    ///
    /// # Panics
    /// If nobody keeps them.
    pub(crate) fn books_of(&mut self, session: usize) -> &mut Books {
        let books = self.books.get_mut(session).and_then(Option::as_mut);
        books.expect("the session has a keeper")
    }

    /// Returns the budget of a session that retries, and whose books are kept.
    pub(crate) fn purse_of(&mut self, session: usize) -> Option<&mut Purse> {
        let purse = self.books_of(session).purse()?;
        self.purses.get_mut(purse)?.as_mut()
    }

    /// Returns the wait that an answer has asked for.
    pub(crate) fn asked_in(&self, serial: Option<usize>) -> Asked {
        let asked = serial.and_then(|serial| self.asked.get(serial));
        asked.copied().unwrap_or_default()
    }

    /// Returns whether a request waits in its lane.
    pub(crate) fn is_in_lane(&self, nonce: usize) -> bool {
        let lanes = self
            .books
            .iter()
            .flatten()
            .filter_map(|books| books.lanes.as_ref());
        lanes.into_iter().any(|lanes| lanes.is_waiting(nonce))
    }

    /// Returns whether a [`Nested`] policy, and not the session, sends this request again.
    pub(crate) fn is_resent(&self, nonce: usize) -> bool {
        self.resent_last == Some(nonce)
    }

    pub(crate) fn is_over(&self, mark: Option<Mark>) -> bool {
        mark.is_some_and(|(session, at)| self.ended[session] > at)
    }

    pub(crate) fn mark_of(&self, nonce: usize) -> Option<Mark> {
        self.marks.get(nonce).copied().flatten()
    }
}

impl Journal {
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().expect("no policy panics")
    }
}

/// A policy that holds requests back, signs, decodes, holds responses back, and sends again.
#[derive(Clone)]
pub(crate) struct Nested {
    pub(crate) journal: Journal,
}

struct NestedVisit {
    journal: Journal,
    random: Random,
    /// How often the request may still be held back, and sent again.
    waits: usize,
    resends: usize,
    /// The response that has begun is to be replaced.
    resends_this: bool,
}

impl Policy for Nested {
    fn visit(&self, _: &Request, at: &Moment<'_>) -> Box<dyn Visit> {
        let mut visit = NestedVisit {
            journal: self.journal.clone(),
            random: Random::new(at.random()),
            waits: 0,
            resends: 0,
            resends_this: false,
        };
        visit.renew();
        Box::new(visit)
    }
}

/// Returns the nonce and the step in a request's URL.
pub(crate) fn place(request: &Request) -> (usize, usize) {
    let path = request.target().split('?').next().unwrap_or_default();
    (nonce_in(path).unwrap_or(usize::MAX), step_in(path))
}

impl NestedVisit {
    fn renew(&mut self) {
        self.waits = *self.random.pick(&[0, 0, 0, 1, 2]);
        self.resends = *self.random.pick(&[0, 0, 1, 2]);
        self.resends_this = false;
    }

    fn reach(&self, what: &'static str) {
        self.journal.notes().reached.push(what);
    }

    /// Checks that the request does not belong to a session that has been ended.
    fn check_alive(&self, request: &Request, what: &str) {
        let (nonce, step) = place(request);
        let mut notes = self.journal.notes();
        if notes.is_over(notes.mark_of(nonce)) {
            notes.wrong.push(format!(
                "nonce {nonce}, step {step}: {what} after its session was ended"
            ));
        }
    }

    fn resend(&mut self, request: &Request) -> Verdict {
        self.resends -= 1;
        let place = place(request);
        let mut notes = self.journal.notes();
        notes.resent.push(place);
        notes.resent_last = Some(place.0);
        drop(notes);
        self.reach("resend");
        let after = match self.random.chance(500) {
            true => Duration::ZERO,
            false => self.random.duration(20 * MS),
        };
        Verdict::Resend {
            request: request.clone(),
            after,
        }
    }
}

impl Visit for NestedVisit {
    fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        self.check_alive(request, "begun");
        if self.waits == 0 {
            return Ok(Start::Now);
        }
        self.waits -= 1;
        if self.random.chance(500) {
            self.reach("after");
            return Ok(Start::After(self.random.duration(30 * MS)));
        }
        self.journal.notes().wakers.push(at.waker());
        self.reach("wait");
        Ok(Start::Wait)
    }

    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        _: &Moment<'_>,
    ) -> Result<(), Error> {
        self.check_alive(request, "sent");
        if fields.has(SIGNATURE) {
            return Ok(());
        }
        fields.add_fmt(SIGNATURE, format_args!("{}", place(request).0))
    }

    fn on_head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        self.resends_this = self.resends > 0 && request.is_repeatable() && self.random.chance(300);
        let screening = match self.random.below(3) {
            0 if self.resends_this => Screening::discard(),
            1 if !self.resends_this => Screening::show(),
            _ => Screening::collect(),
        };
        Ok(match head.header("Content-Encoding") {
            Some(b"mask") => {
                self.reach("decode");
                screening.decode(Unmask)
            }
            Some(_) | None => screening,
        })
    }

    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        _: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        let resends_this = std::mem::take(&mut self.resends_this);
        self.journal.notes().resent_last = None;
        let is_over = matches!(reply, Err(error) if error.kind() == ErrorKind::Cancelled);
        let retries = reply.is_err() && self.resends > 0 && self.random.chance(200);
        if !is_over && (resends_this || retries && request.is_repeatable()) {
            return Ok(self.resend(request));
        }
        Ok(Verdict::Deliver)
    }

    fn reset(&mut self) -> bool {
        self.renew();
        self.random.chance(500)
    }
}

/// The coding that [`Nested`] removes.
pub(crate) fn masked(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0x5a).collect()
}

struct Unmask;

impl Decoder for Unmask {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        let n = input.len().min(room.len());
        room[..n].copy_from_slice(&masked(&input[..n]));
        Ok(Progress {
            consumed: n,
            produced: n,
        })
    }
}
