//! The servers: they answer as the request's `Wish` specifies, and check that the request arrived
//! as it was sent, with the credentials and cookies that are for them and no others.

use std::collections::HashMap;
use std::time::Duration;

use httpstream::Response;
use httpstream::sim::{Answer, ConnectionId, Incoming, Network, Server};

use crate::books::{ATTEMPT, Attempt};
use crate::codings::{ACCEPTED, Coded, code};
use crate::retries::{Asked, TROUBLES, Until, is_unprocessed, retry_after, wait_in};
use crate::sessions::{Rules, SIGNATURE, masked};
use crate::world::{
    Answered, Body, Coding, Expectation, Form, Shared, Stage, Step, World, body_bytes, check,
    most_within, upload_bytes,
};

/// The number of challenges that a session answers for one request.
const MAX_ANSWERS: u32 = 3;

pub(crate) struct Scripted {
    network: Network,
    world: Shared,
    /// The last request on each connection: nonce and step.
    last: HashMap<ConnectionId, (usize, usize)>,
}

impl Scripted {
    pub(crate) fn new(network: &Network, world: Shared) -> Self {
        Self {
            network: network.clone(),
            world,
            last: HashMap::new(),
        }
    }
}

impl Server for Scripted {
    fn on_head(&mut self, request: &Incoming) -> Option<Answer> {
        let mut world = self.world.borrow_mut();
        let nonce = nonce_of(request, &mut world)?;
        let number = step_in(request.path());
        world.wishes[nonce].heads += 1;
        let wish = &world.wishes[nonce];
        let step = wish.step(number).clone();
        let (method, early, expect) = (step.method, step.script.early, wish.expect);
        check!(
            world,
            request.method == method,
            "nonce {nonce} arrived with method {}",
            request.method
        );
        check_fields(&mut world, request, nonce, number);
        check_attempt(&mut world, request, nonce, number);
        let before = self.last.insert(request.connection, (nonce, number));
        if request.pipelined {
            let may_be = |(nonce, number): (usize, usize)| {
                let wish = &world.wishes[nonce];
                let step = wish.step(number);
                let expects = wish.expect.is_some() && step.has_body;
                world.plan.depth > 1 && step.idempotent && !expects
            };
            let both = may_be((nonce, number)) && before.is_some_and(may_be);
            check!(
                world,
                both,
                "nonce {nonce} arrived before the answer to the request before it, {before:?}"
            );
            world.coverage.hit("pipeline", "pipelined");
        }
        let right = world.addrs_of(nonce, number).contains(&request.server)
            && request.https == world.plan.origins[step.origin].is_https();
        check!(world, right, "nonce {nonce} arrived at {}", request.server);
        if request.header("expect").is_some() {
            match expect {
                Some(Expectation::Continued) => {
                    world.coverage.hit("answer", "continue");
                    self.network
                        .push(request.connection, "HTTP/1.1 100 Continue\r\n\r\n");
                }
                Some(Expectation::Failed) => {
                    world.coverage.hit("answer", "expectation failed");
                    let (serial, status) = (world.answers.len(), 417);
                    let answered = Answered {
                        nonce,
                        step: number,
                        is_replaced: false,
                        status,
                        len: 0,
                        is_refusal: false,
                        at: request.at,
                        asked: Asked::default(),
                        coding: Coding::None,
                        spoiled: None,
                    };
                    note_answer(&mut world, answered);
                    let refusal = Answer::status(status)
                        .header("X-Nonce", nonce.to_string())
                        .header("X-Serial", serial.to_string());
                    return Some(refusal);
                }
                Some(Expectation::Ignored) => {}
                None => world.complain(format!(
                    "nonce {nonce} arrived with an Expect field that was not sent"
                )),
            }
        }
        if early {
            world.coverage.hit("answer", "early");
            return Some(answer(&mut world, request, nonce));
        }
        None
    }

    fn on_close(&mut self, connection: ConnectionId) {
        self.last.remove(&connection);
    }

    fn on_request(&mut self, request: &Incoming) -> Answer {
        let mut world = self.world.borrow_mut();
        let Some(nonce) = nonce_of(request, &mut world) else {
            return Answer::status(400);
        };
        world.wishes[nonce].arrived += 1;
        check_cap(&mut world, request, nonce);
        let wish = &world.wishes[nonce];
        let upload = match wish.step(step_in(request.path())).has_body {
            true => upload_bytes(nonce, wish.upload),
            false => Vec::new(),
        };
        let supplied = wish.supplied.filter(|_| !upload.is_empty());
        if let Some(supplied) = supplied {
            let is_chunked = request.header("transfer-encoding").is_some();
            check!(
                world,
                supplied.fault.is_none() && is_chunked != supplied.has_size,
                "nonce {nonce} arrived, but its source is {supplied:?}"
            );
            let framing = if is_chunked { "chunked" } else { "sized" };
            world.coverage.hit("source", framing);
            let is_again = world.wishes[nonce].arrived > 1;
            world.coverage.hit_if(is_again, "source", "sent again");
        }
        check!(
            world,
            request.body() == upload,
            "nonce {nonce} arrived with a different body"
        );
        world
            .coverage
            .hit_if(!upload.is_empty(), "answer", "upload");
        if request.header("expect").is_some()
            && world.wishes[nonce].expect == Some(Expectation::Continued)
        {
            world.coverage.hit("answer", "continue in time");
        }
        answer(&mut world, request, nonce)
    }
}

/// Returns the nonce in the path of a request, which is `/nonce` or, after redirects,
/// `/nonce/step`.
pub(crate) fn nonce_in(path: &str) -> Option<usize> {
    path.strip_prefix('/')?.split('/').next()?.parse().ok()
}

pub(crate) fn step_in(path: &str) -> usize {
    let step = path.split('/').nth(2);
    step.and_then(|step| step.parse().ok()).unwrap_or(0)
}

pub(crate) fn path_of(nonce: usize, step: usize) -> String {
    match step {
        0 => format!("/{nonce}"),
        step => format!("/{nonce}/{step}"),
    }
}

/// Returns the number of the answer that a response is.
pub(crate) fn serial_of(head: &Response<'_>) -> Option<usize> {
    let value = std::str::from_utf8(head.header("x-serial")?);
    value.ok()?.parse().ok()
}

fn nonce_of(request: &Incoming, world: &mut World) -> Option<usize> {
    let nonce = nonce_in(request.path()).filter(|nonce| *nonce < world.wishes.len());
    check!(
        world,
        nonce.is_some(),
        "{} was never requested",
        request.target
    );
    nonce
}

fn note_answer(world: &mut World, answered: Answered) {
    world.journal.notes().asked.push(answered.asked);
    world.answers.push(answered);
}

/// Returns the attempt that a request is, if the books of its session are kept.
fn attempt_of(world: &World, request: &Incoming) -> Option<Attempt> {
    let number = std::str::from_utf8(request.header(ATTEMPT)?).ok()?;
    let number: usize = number.parse().ok()?;
    world.journal.notes().attempts.get(number).copied()
}

/// Checks that an attempt is not too early, and not one too many.
fn check_attempt(world: &mut World, request: &Incoming, nonce: usize, number: usize) {
    let rules = world.rules_of(nonce).filter(|rules| rules.is_kept).cloned();
    let attempt = attempt_of(world, request);
    let is_right = match (&rules, &attempt) {
        (Some(rules), Some(attempt)) => {
            attempt.session == rules.number && attempt.place == (nonce, number)
        }
        (None, None) => true,
        _ => false,
    };
    check!(
        world,
        is_right,
        "nonce {nonce}, step {number}, arrived as {attempt:?}"
    );
    let (Some(rules), Some(attempt)) = (rules, attempt) else {
        return;
    };
    let now = request.at;
    if let Some(lanes) = world.journal.notes().books_of(rules.number).lanes.as_mut() {
        let times = (attempt.begun, attempt.at, now);
        lanes.on_arrived(attempt.exchange, attempt.lane, times);
    }
    if !attempt.is_retry {
        return;
    }
    let session = rules.number;
    let Some(retry) = rules.retry else {
        world.complain(format!("nonce {nonce} was sent again by session {session}"));
        return;
    };
    check!(
        world,
        retry.allows(attempt.retries),
        "nonce {nonce} arrived after {} retries",
        attempt.retries
    );
    let Some(former) = attempt
        .former
        .1
        .and_then(|serial| world.answers.get(serial).copied())
    else {
        return;
    };
    let is_early = match former.asked.in_head {
        Some(Until::In(wait)) => now < former.at.saturating_add(wait),
        Some(Until::At(date)) => world.wall_clock(now) < date,
        None => false,
    };
    check!(
        world,
        !is_early,
        "nonce {nonce} was sent again {:?} after an answer with {:?}",
        now - former.at,
        former.asked
    );
}

/// Checks that a session does not send again what may have been processed.
fn check_repeated(world: &mut World, request: &Incoming, nonce: usize, number: usize) {
    let Some(attempt) = attempt_of(world, request) else {
        return;
    };
    let wish = &world.wishes[nonce];
    let is_idempotent = wish.step(number).idempotent;
    // Policies inside send again whatever they like.
    let is_strict = attempt.is_retry && !is_idempotent && wish.policies == 0;
    let (exchange, serial) = attempt.former;
    let read = serial.and_then(|serial| world.answers.get(serial).copied());
    // Of an answer that was not read, the client does not know the status.
    let is_unprocessed = read.is_some_and(|answered| is_unprocessed(answered.status));
    let has_arrived = world.arrived.contains(&exchange);
    world.arrived.insert(attempt.exchange);
    check!(
        world,
        !is_strict || !has_arrived || is_unprocessed,
        "nonce {nonce}, step {number}, is not idempotent, and was sent again after {read:?}"
    );
}

/// How a server turns a request away: a status, the fields that say for how long, and what they
/// ask for.
struct Refusal {
    status: u16,
    after: Option<String>,
    date: Option<String>,
    asked: Option<Until>,
}

/// Returns how a request is turned away, if it is.
fn refusal(world: &mut World, step: &Step) -> Option<Refusal> {
    if !world.random.chance(step.trouble) {
        return None;
    }
    let now = world.network.wall_clock();
    let status = *world.random.pick(&TROUBLES);
    let (after, date, asked) = retry_after(&mut world.random, now);
    world.coverage.hit("answer", "refusal");
    Some(Refusal {
        status,
        after,
        date,
        asked,
    })
}

/// Checks the fields by which origins recognize their clients.
fn check_fields(world: &mut World, request: &Incoming, nonce: usize, number: usize) {
    let wish = &world.wishes[nonce];
    let here = wish.step(number).origin;
    let is_at_home = wish.is_at_home(number);
    let by_hand = wish.by_hand;
    let rules = world.rules_of(nonce).cloned();
    let origin = &world.plan.origins[here];
    let host = match by_hand.host && is_at_home {
        true => format!("hand-{nonce}.test"),
        false => origin.authority().to_owned(),
    };
    let has_key =
        |rules: &Rules| rules.has_key && is_at_home && rules.base.is_none_or(|base| base == here);
    let key = rules
        .as_ref()
        .filter(|rules| has_key(rules))
        .map(Rules::key);
    let signatures = wish.policies.min(1);
    let is_own_cookie = by_hand.cookie && is_at_home;
    let jar = rules.as_ref().and_then(|rules| rules.jar);
    let mut wrong = Vec::new();
    let mut expect = |name: &str, expected: Option<Vec<u8>>| {
        let mut lines = request.headers.iter();
        let seen = lines.find(|(line, _)| line.eq_ignore_ascii_case(name));
        if seen.map(|(_, value)| value) != expected.as_ref() {
            wrong.push(format!(
                "nonce {nonce}, step {number}: {name} is {:?}, expected {:?}",
                seen.map(|(_, value)| String::from_utf8_lossy(value)),
                expected.as_deref().map(String::from_utf8_lossy),
            ));
        }
    };
    expect("Host", Some(host.into_bytes()));
    expect("X-Key", key.map(String::into_bytes));
    let decodes = rules.as_ref().is_some_and(|rules| rules.decodes);
    let codings = match (by_hand.codings, decodes) {
        (true, _) => Some("identity"),
        (false, true) => Some(ACCEPTED),
        (false, false) => None,
    };
    expect("Accept-Encoding", codings.map(Into::into));
    let auth = rules.as_ref().and_then(|rules| rules.auth.as_ref());
    let auth = auth.filter(|auth| is_at_home && auth.origin == here);
    let mut digest = None;
    match auth.map(|auth| auth.value.clone()) {
        _ if by_hand.authorization && is_at_home => {
            expect("Authorization", Some(format!("Bearer hand-{nonce}").into()));
        }
        Some(None) => digest = request.header("Authorization"),
        value => expect("Authorization", value.flatten()),
    }
    if is_own_cookie {
        expect("Cookie", Some(format!("hand={nonce}").into()));
    }
    let lines = |name: &str| {
        let lines = request.headers.iter();
        lines
            .filter(|(line, _)| line.eq_ignore_ascii_case(name))
            .count()
    };
    if lines(SIGNATURE) != signatures {
        let lines = lines(SIGNATURE);
        wrong.push(format!("nonce {nonce}: {lines} signatures of {signatures}"));
    }
    for name in ["Host", "X-Key", "Authorization", "Cookie"] {
        if lines(name) > 1 {
            wrong.push(format!("nonce {nonce}: several lines of {name}"));
        }
    }
    let ended = world.is_mark_over(world.wishes[nonce].mark);
    let coverage = &mut world.coverage;
    coverage.hit_if(number > 0 && is_at_home, "session", "redirected at home");
    coverage.hit_if(!is_at_home, "session", "astray");
    let is_back = !is_at_home && here == world.wishes[nonce].steps[0].origin;
    coverage.hit_if(is_back, "session", "astray and back");
    coverage.hit_if(lines("X-Key") > 0, "session", "header");
    coverage.hit_if(lines("Authorization") > 0, "session", "credentials");
    coverage.hit_if(ended, "session", "ended on the way");
    if let Some(digest) = digest {
        let start = rules.as_ref().map(Rules::digest_start).unwrap_or_default();
        let of = |name: &str| parameter(digest, name);
        if !digest.starts_with(start.as_bytes()) || of("uri") != Some(request.target.as_bytes()) {
            let seen = String::from_utf8_lossy(digest);
            wrong.push(format!(
                "nonce {nonce}: credentials {seen:?}, expected {start}"
            ));
        }
        let count = (
            of("nonce").unwrap_or_default(),
            of("nc").unwrap_or_default(),
        );
        if !world.digests.insert((count.0.to_vec(), count.1.to_vec())) {
            wrong.push(format!("nonce {nonce}: a count of Digest was used twice"));
        }
        world.coverage.hit("session", "digest");
    }
    let cookies = request.header("Cookie").filter(|_| !is_own_cookie);
    for cookie in cookies
        .into_iter()
        .flat_map(|line| line.split(|b| *b == b';'))
    {
        world.coverage.hit("session", "cookie");
        if !may_be_sent(world, cookie.trim_ascii(), here, jar, request.path()) {
            let seen = String::from_utf8_lossy(cookie);
            wrong.push(format!(
                "nonce {nonce}, step {number}: cookie {seen} at origin {here}"
            ));
        }
    }
    for why in wrong {
        world.complain(why);
    }
}

/// Checks that a request has not arrived sooner than its cap allows. It has begun at some time
/// since its chain asked for it.
fn check_cap(world: &mut World, request: &Incoming, nonce: usize) {
    let wish = &world.wishes[nonce];
    let chain = world.chains.iter().find(|chain| chain.nonce == nonce);
    // An earlier submission of the same request may have arrived late.
    let chain = chain.filter(|chain| {
        // The chain may have gone on: its request has failed, and arrives nonetheless.
        let is_gone = chain.answered || matches!(chain.stage, Stage::Calling(_) | Stage::Over);
        wish.asked == 1 && !is_gone
    });
    let (Some(rate), Some(chain)) = (wish.upload_rate, chain) else {
        return;
    };
    let (sent, begun) = (request.bytes.len(), chain.start(request.at).from);
    let most = most_within(rate, request.at - begun);
    check!(
        world,
        sent as u64 <= most,
        "nonce {nonce}: {sent} bytes at {:?}, begun at {begun:?}, but {most} are allowed",
        request.at
    );
    let is_held_back = sent as u64 > most_within(rate, Duration::ZERO);
    world
        .coverage
        .hit_if(is_held_back, "speed", "capped upload");
}

/// Returns the value of a parameter of an Authorization field, without quotes.
fn parameter<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let text = std::str::from_utf8(field).ok()?;
    let parts = text.split([' ', ',']).map(str::trim);
    let found = parts
        .filter_map(|part| part.split_once('='))
        .find(|(n, _)| *n == name);
    found.map(|(_, value)| value.trim_matches('"').as_bytes())
}

/// Returns whether a cookie, as [`set_cookie`] has set it, may be sent to an origin by a session
/// with this jar.
fn may_be_sent(world: &World, cookie: &[u8], here: usize, jar: Option<usize>, path: &str) -> bool {
    let text = String::from_utf8_lossy(cookie);
    let Some((_, value)) = text.split_once('=') else {
        return false;
    };
    let parts: Vec<&str> = value.split('.').collect();
    let [kind, origin, from_jar, nonce] = parts[..] else {
        return false;
    };
    let Some(from) = origin
        .parse()
        .ok()
        .and_then(|at: usize| world.plan.origins.get(at))
    else {
        return false;
    };
    let here = &world.plan.origins[here];
    let is_same_host = here.host() == from.host();
    let is_there = match kind {
        "host" => is_same_host,
        "domain" => here.host().ends_with("ride.test") && from.host().ends_with("ride.test"),
        "secure" => is_same_host && here.is_https() && from.is_https(),
        "path" => is_same_host && nonce_in(path).map(|path| path.to_string()) == Some(nonce.into()),
        _ => false,
    };
    is_there && jar.map(|jar| jar.to_string()).as_deref() == Some(from_jar)
}

/// Adds a cookie now and then. Its value says where it may be sent.
fn set_cookie(world: &mut World, answer: Answer, nonce: usize, here: usize) -> Answer {
    if world.logins.is_empty() || !world.random.chance(300) {
        return answer;
    }
    let jar = world.rules_of(nonce).and_then(|rules| rules.jar);
    let jar = jar.map_or_else(|| "none".to_owned(), |jar| jar.to_string());
    let host = world.plan.origins[here].host();
    let name = *world.random.pick(&["a", "b", "c"]);
    let (kind, attributes) = match world.random.below(8) {
        0 if host.ends_with("ride.test") => ("domain", "; Domain=ride.test; Path=/".to_owned()),
        1 => ("secure", "; Secure; Path=/".to_owned()),
        2 => ("path", format!("; Path=/{nonce}")),
        3 => ("foreign", "; Domain=elsewhere.test; Path=/".to_owned()),
        4 => ("foreign", "; Domain=test; Path=/".to_owned()),
        5 => ("expired", "; Max-Age=0; Path=/".to_owned()),
        _ => ("host", "; Path=/; HttpOnly".to_owned()),
    };
    let line = format!("{name}={kind}.{here}.{jar}.{nonce}{attributes}");
    answer.header("Set-Cookie", line)
}

/// Returns the challenge for a request without credentials, or with a nonce that is too old, and
/// whether the session answers it in any case.
fn challenge(
    world: &mut World,
    request: &Incoming,
    nonce: usize,
    number: usize,
) -> Option<(String, bool)> {
    let wish = &world.wishes[nonce];
    let step = wish.step(number);
    if !step.challenges || step.lead.is_some() && world.random.chance(500) {
        return None;
    }
    let origin = step.origin;
    let has_hand = wish.by_hand.authorization && wish.is_at_home(number);
    let auth = world.rules_of(nonce).and_then(|rules| rules.auth.clone());
    let auth = auth.filter(|auth| auth.origin == origin && auth.value.is_none());
    let is_answered = auth.is_some() && wish.is_at_home(number) && !has_hand;
    let is_digest = request
        .header("Authorization")
        .is_some_and(|value| value.starts_with(b"Digest "));
    let is_stale = is_digest && world.random.chance(150);
    if is_digest && !is_stale {
        return None;
    }
    world.wishes[nonce].challenged += 1;
    let is_patient = world.wishes[nonce].challenged <= MAX_ANSWERS;
    if is_answered {
        world.wishes[nonce].order(number);
    }
    world
        .coverage
        .hit_if(!is_stale && is_answered, "session", "challenged");
    world
        .coverage
        .hit_if(is_stale && is_answered, "session", "stale");
    let fresh = world.answers.len();
    let algorithm = *world
        .random
        .pick(&["", ", algorithm=MD5", ", algorithm=SHA-256"]);
    let stale = if is_stale { ", stale=true" } else { "" };
    let field =
        format!("Digest realm=\"r{origin}\", nonce=\"n{fresh}\", qop=\"auth\"{algorithm}{stale}");
    Some((field, is_answered && is_patient && !is_digest))
}

/// Returns the Location for the redirect of a request at this step.
fn location(world: &World, nonce: usize, number: usize, form: Form) -> Option<String> {
    let next = &world.plan.origins[world.wishes[nonce].step(number + 1).origin];
    let path = path_of(nonce, number + 1);
    Some(match form {
        Form::Absolute => format!("{}{path}#part", next.url),
        Form::WithoutScheme => format!("//{}{path}?x=1", next.authority()),
        Form::Path => path,
        Form::Relative if number == 0 => format!("./{nonce}/{}", number + 1),
        Form::Relative => format!("../{nonce}/{}", number + 1),
        Form::Missing => return None,
        Form::OtherScheme => format!("ftp://{}{path}", next.authority()),
    })
}

/// Counts a redirect, and returns whether the session follows it in any case.
fn order_redirect(world: &mut World, nonce: usize, number: usize, step: &Step) -> bool {
    let most = world.rules_of(nonce).and_then(|rules| rules.follows);
    let is_followed = step.lead.is_some_and(|lead| lead.is_followed)
        && most.is_some_and(|follows| number < follows.most);
    if is_followed {
        world.wishes[nonce].order(number + 1);
        world.coverage.hit("session", "redirect");
    }
    is_followed
}

/// Applies codings to a body now and then, and returns what the session does about them.
fn coded(world: &mut World, nonce: usize, body: Body, bytes: &[u8]) -> Option<(Coded, Coding)> {
    let has_body = matches!(
        body,
        Body::Length | Body::Chunked | Body::UntilClose | Body::Http10 | Body::Truncated
    );
    let decodes = world.rules_of(nonce).is_some_and(|rules| rules.decodes);
    let is_removed = decodes && !world.wishes[nonce].by_hand.codings;
    if !has_body || !world.random.chance(if is_removed { 400 } else { 50 }) {
        return None;
    }
    let mut coded = code(&mut world.random, bytes);
    if !is_removed {
        coded.spoiled = None;
        world.coverage.hit("coding", "left");
        return Some((coded, Coding::Left));
    }
    let coverage = &mut world.coverage;
    coverage.hit("coding", "removed");
    coverage.hit_if(coded.layers == 3, "coding", "three layers");
    coverage.hit_if(coded.names.len() > 1, "coding", "several lines");
    Some((coded, Coding::Removed))
}

fn answer(world: &mut World, request: &Incoming, nonce: usize) -> Answer {
    let serial = world.answers.len();
    let number = step_in(request.path());
    let step = world.wishes[nonce].step(number).clone();
    let refusal = refusal(world, &step);
    let challenge = match &refusal {
        Some(_) => None,
        None => challenge(world, request, nonce, number),
    };
    let mut script = step.script.clone();
    let mut is_replaced = false;
    if let Some(refusal) = &refusal {
        script.status = refusal.status;
        script.body = *world.random.pick(&[
            Body::Length,
            Body::Length,
            Body::Length,
            Body::Chunked,
            Body::Truncated,
        ]);
    } else if let Some((_, is_answered)) = &challenge {
        is_replaced = *is_answered;
        script.status = 401;
        script.body = Body::Length;
    } else if let Some(lead) = step.lead {
        script.status = lead.status;
        is_replaced = order_redirect(world, nonce, number, &step);
    }
    let is_head = step.method == "HEAD";
    let len = match script.body {
        Body::NoContent => 0,
        _ => script.len,
    };
    let status = match script.body {
        Body::NoContent => 204,
        Body::Http10 | Body::Garbage | Body::BadChunk | Body::HugeHead => 200,
        _ => script.status,
    };
    let mut bytes = body_bytes(nonce, serial, len);
    // Of two policies, either would decode it.
    let is_masked = world.wishes[nonce].policies == 1 && world.random.chance(300);
    let coded = match is_masked || is_head {
        true => None,
        false => coded(world, nonce, script.body, &bytes),
    };
    let in_body = match &coded {
        Some((coded, Coding::Left)) => wait_in(&coded.bytes),
        _ => wait_in(&bytes),
    };
    let answered = Answered {
        nonce,
        step: number,
        is_replaced,
        status,
        len: if is_head { 0 } else { len },
        is_refusal: refusal.is_some(),
        at: request.at,
        asked: Asked {
            in_head: refusal.as_ref().and_then(|refusal| refusal.asked),
            in_body: in_body.filter(|_| !is_head),
        },
        coding: coded.as_ref().map_or(Coding::None, |(_, coding)| *coding),
        spoiled: coded.as_ref().and_then(|(coded, _)| coded.spoiled),
    };
    note_answer(world, answered);
    check_repeated(world, request, nonce, number);
    if is_masked {
        bytes = masked(&bytes);
    }
    let coverage = &mut world.coverage;
    coverage.hit_if(is_head, "answer", "head");
    coverage.hit_if(len >= 5_000, "answer", "large");
    coverage.hit_if(script.interims > 0, "answer", "interim");
    let mut ids = format!("X-Nonce: {nonce}\r\nX-Serial: {serial}\r\n");
    let mut plain = Answer::status(status)
        .header("X-Nonce", nonce.to_string())
        .header("X-Serial", serial.to_string());
    let mut codings = Vec::from_iter(is_masked.then(|| "mask".to_owned()));
    if let Some((coded, coding)) = coded {
        bytes = coded.bytes;
        codings = coded.names;
        if coding == Coding::Left {
            world.coded.insert(serial, bytes.clone());
        }
    }
    for coding in codings {
        ids += &format!("Content-Encoding: {coding}\r\n");
        plain = plain.header("Content-Encoding", coding);
    }
    let lead = step.lead.filter(|_| refusal.is_none());
    if let Some(Refusal { after, date, .. }) = refusal {
        if let Some(after) = after {
            plain = plain.header("Retry-After", after);
        }
        if let Some(date) = date {
            plain = plain.header("Date", date);
        }
    }
    match (challenge, lead) {
        (Some((field, _)), _) => plain = plain.header("WWW-Authenticate", field),
        (None, Some(lead)) => {
            if let Some(location) = location(world, nonce, number, lead.form) {
                plain = plain.header("Location", location);
            }
        }
        (None, None) => {}
    }
    plain = set_cookie(world, plain, nonce, step.origin);
    let coverage = &mut world.coverage;
    let mut answer = match script.body {
        Body::Length => {
            coverage.hit("answer", "length");
            plain.body(bytes)
        }
        Body::Truncated => plain.body(bytes),
        Body::NoContent => {
            coverage.hit("answer", "no content");
            plain
        }
        Body::Chunked => {
            coverage.hit("answer", "chunked");
            let mut chunks = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = world.random.between(1, rest.len());
                let (chunk, behind) = rest.split_at(most);
                chunks.push(chunk.to_vec());
                rest = behind;
            }
            let chunked = plain.chunked(chunks);
            match world.random.chance(300) {
                true => {
                    world.coverage.hit("answer", "trailers");
                    chunked.trailer("X-Sum", serial.to_string())
                }
                false => chunked,
            }
        }
        Body::UntilClose => {
            coverage.hit("answer", "until close");
            plain.until_close(bytes)
        }
        Body::Http10 => {
            coverage.hit("answer", "http 1.0");
            let mut wire = format!("HTTP/1.0 200 OK\r\n{ids}\r\n").into_bytes();
            if !is_head {
                wire.extend_from_slice(&bytes);
            }
            Answer::raw(wire).close()
        }
        Body::Garbage => Answer::raw("HTTP/1.1 2x0 OK\r\n\r\n"),
        Body::BadChunk => {
            let chunk = if is_head { "" } else { "zz\r\n" };
            let coded = "Transfer-Encoding: chunked\r\n\r\n";
            Answer::raw(format!("HTTP/1.1 200 OK\r\n{ids}{coded}{chunk}"))
        }
        Body::HugeHead => {
            let line = format!("X-Long: {}\r\n", "y".repeat(1000));
            let lines = line.repeat(70);
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\n{ids}{lines}Content-Length: 0\r\n\r\n"
            ))
        }
        Body::ClosedAtOnce => Answer::nothing().close(),
        Body::Nothing => Answer::nothing(),
    };
    for number in 0..script.interims {
        let status = if number == 0 { 103 } else { 102 };
        answer = answer.interim(status, &[("Link", "</style.css>")]);
    }
    if script.hold > Duration::ZERO {
        answer = answer.after(script.hold);
    }
    if let Some((bytes, every)) = script.drip {
        answer = answer.drip(bytes, every);
    }
    if let Some(seconds) = script.keep_alive {
        answer = answer.header("Keep-Alive", format!("timeout={seconds}"));
    }
    match (script.closes, script.body) {
        (Some(true), _) => answer = answer.header("Connection", "close").close(),
        (Some(false), _) => answer = answer.close(),
        (None, Body::Truncated) => answer = answer.close(),
        (None, _) => {}
    }
    match script.body {
        // Cut at any point inside the head or the body.
        Body::Truncated => answer
            .truncate(world.random.between(1, 70 + len / 2))
            .close(),
        _ => answer,
    }
}
