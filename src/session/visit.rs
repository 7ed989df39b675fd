//! The visit of a request in a session: what is done at each step on its way.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use log::debug;

use crate::error::{Error, ErrorKind};
use crate::policy::{Fields, Moment, Policy, Screening, Start, Verdict, Visit};
use crate::proto::Headers;
use crate::request::Request;
use crate::response::{Reply, Response};
use crate::session::auth::Used;
use crate::session::pacing::Place;
use crate::session::redirects::Lead;
use crate::session::retry::Judged;
use crate::session::rules::Rules;

/// The policy of a session.
pub(super) struct Visits(pub(super) Arc<Rules>);

/// A request's visit. As long as nothing special happens, it only refers to the rules: ten thousand
/// requests of a session may wait at once.
struct InSession {
    rules: Arc<Rules>,
    progress: Option<Box<Progress>>,
}

/// What has happened to the request so far.
#[derive(Default)]
struct Progress {
    /// The request's place in its lane, if the session has rates or lanes.
    place: Option<Place>,
    /// The number of redirects followed.
    followed: usize,
    /// A redirect has led to another origin than the one that the visit began at.
    is_astray: bool,
    /// Another policy asks for codings or for a range, so the response is not decoded.
    is_left_coded: bool,
    /// What the credentials of the current exchange depend on, if they are the session's and answer
    /// challenges.
    used: Option<Used>,
    /// The number of exchanges that have failed and were retried.
    retried: u32,
    /// How far the last retry has come.
    retry: Retrying,
    /// The current response may be retried, which its body decides. It is held back until then.
    undecided: Option<Undecided>,
    /// The wait that the head of the current response asks for, if it is not retried for its
    /// status.
    asked: Option<Duration>,
    /// What follows the current exchange. A policy nested inside may decide otherwise and have the
    /// request sent again, so nothing counts before the exchange has ended.
    next: Option<Next>,
}

/// The request to send in place of the current one.
struct Next {
    request: Request,
    why: Why,
}

#[derive(Clone, Copy)]
enum Why {
    Challenged,
    Redirected { is_elsewhere: bool },
    Retried { after: Duration },
}

impl Why {
    fn after(self) -> Duration {
        match self {
            Why::Challenged | Why::Redirected { .. } => Duration::ZERO,
            Why::Retried { after } => after,
        }
    }
}

/// A retry on its way.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Retrying {
    /// The current exchange is none.
    #[default]
    No,
    /// The next exchange will be one. It may have been taken from the budget.
    Taken { is_charged: bool },
    /// The current exchange is one.
    Sent,
}

/// A response that may be retried.
struct Undecided {
    status: StatusCode,
    /// The wait that its head asks for.
    asked: Option<Duration>,
}

impl Policy for Visits {
    fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
        Box::new(InSession {
            rules: Arc::clone(&self.0),
            progress: None,
        })
    }
}

impl InSession {
    fn progress(&mut self) -> &mut Progress {
        self.progress.get_or_insert_default()
    }

    fn place(&mut self) -> Option<&mut Place> {
        self.progress.as_mut()?.place.as_mut()
    }

    fn is_astray(&self) -> bool {
        self.progress
            .as_ref()
            .is_some_and(|progress| progress.is_astray)
    }

    /// Adds the session's credentials, if they are for the request's origin.
    fn add_credentials(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        let Some(auth) = self.rules.auth_for(request) else {
            return Ok(());
        };
        if fields.has("Authorization") {
            // Those of the request or of another policy, who answers challenges itself.
            if let Some(progress) = &mut self.progress {
                progress.used = None;
            }
            return Ok(());
        }
        let (method, target) = (request.method().as_str(), request.target());
        let mut random = || at.random();
        let mut unused = Used::default();
        let used = if auth.is_challenged() {
            let progress = self.progress.get_or_insert_default();
            progress.used.get_or_insert_default()
        } else {
            &mut unused
        };
        match auth.authorize(used, method, target, &mut random) {
            Some(value) => fields.add("Authorization", value),
            None => Ok(()),
        }
    }

    /// Asks for the codings that the session decodes, unless the request or another policy asks for
    /// others, or for a range: parts of a coded body cannot be decoded (RFC 9110 §14.1.2).
    fn add_codings(&mut self, request: &Request, fields: &mut Fields<'_>) -> Result<(), Error> {
        let Some(codings) = &self.rules.codings else {
            return Ok(());
        };
        let is_left = fields.has("Accept-Encoding") || fields.has("Range");
        let is_left_by_another = is_left && !is_left_coded(request);
        if is_left_by_another || self.progress.is_some() {
            self.progress.get_or_insert_default().is_left_coded = is_left_by_another;
        }
        match is_left {
            true => Ok(()),
            false => fields.add("Accept-Encoding", codings.accepted()),
        }
    }

    /// Adds the decoders of a response's codings to its screening.
    fn decode(
        &self,
        request: &Request,
        head: &Response<'_>,
        screening: Screening,
    ) -> Result<Screening, Error> {
        let Some(codings) = &self.rules.codings else {
            return Ok(screening);
        };
        let is_left_by_another = self.progress.as_ref().is_some_and(|it| it.is_left_coded);
        if is_left_by_another || is_left_coded(request) || has_coding_of_another(request, head) {
            return Ok(screening);
        }
        codings.screen(screening, head.header_all("Content-Encoding"))
    }

    /// Returns whether the request is to be sent again with other credentials.
    fn is_challenged(&mut self, request: &Request, head: &Response<'_>) -> bool {
        if self.is_astray() || !request.is_repeatable() {
            return false;
        }
        let used = self.progress.as_mut().and_then(|it| it.used.as_mut());
        let (Some(auth), Some(used)) = (self.rules.auth_for(request), used) else {
            return false;
        };
        auth.on_unauthorized(used, head.header_all("WWW-Authenticate"))
    }

    /// Returns what to send in place of `request`, whose response begins with `head`.
    fn next(&mut self, request: &Request, head: &Response<'_>) -> Result<Option<Next>, Error> {
        if head.status() == StatusCode::UNAUTHORIZED {
            if !self.is_challenged(request, head) {
                return Ok(None);
            }
            return Ok(Some(Next {
                request: request.clone(),
                why: Why::Challenged,
            }));
        }
        let Some(redirects) = &self.rules.redirects else {
            return Ok(None);
        };
        let followed = self
            .progress
            .as_ref()
            .map_or(0, |progress| progress.followed);
        let Lead::To(next) = redirects.lead(request, head, followed)? else {
            return Ok(None);
        };
        let is_elsewhere = !request.has_origin_of(&next);
        Ok(Some(Next {
            request: next,
            why: Why::Redirected { is_elsewhere },
        }))
    }

    /// Returns what is known of whether to retry a request whose response begins with `head`.
    fn judge_head(&mut self, request: &Request, head: &Response<'_>, at: &Moment<'_>) -> Held {
        let (status, asked) = (head.status(), head.retry_after());
        let Some(retry) = &self.rules.retry else {
            self.hold_lane(status, asked, at);
            return Held::No;
        };
        let judged = retry.judge_head(self.failures(), head, request.is_idempotent(), at);
        let is_again = matches!(judged, Judged::Again(_));
        // The body says how long to wait: this request, and in any case its lane.
        let holds_lane = status == StatusCode::TOO_MANY_REQUESTS && self.has_place();
        if retry.reads_bodies() && retry.has_status(status) && (is_again || holds_lane) {
            // At least for what the head says, and until the body says more.
            self.hold_lane(status, asked, at);
            self.progress().undecided = Some(Undecided { status, asked });
            return Held::Undecided;
        }
        let wait = self.take(request, judged, (status, asked), at);
        self.hold_lane(status, wait.max(asked), at);
        match wait {
            Some(wait) => Held::Again(wait),
            None => {
                if asked.is_some() {
                    self.progress().asked = asked;
                }
                Held::No
            }
        }
    }

    /// Returns how long to wait before the request is sent again, if it is.
    fn judge_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        at: &Moment<'_>,
    ) -> Option<Duration> {
        let undecided = self.progress.as_mut().and_then(|it| it.undecided.take());
        let is_safe = request.is_idempotent();
        let of_head = self.progress.as_mut().and_then(|it| it.asked.take());
        let (retry, failures) = (self.rules.retry.as_ref()?, self.failures());
        let (judged, status, asked) = match (reply, undecided) {
            (Ok(response), Some(Undecided { status, .. })) => {
                let judged = retry.judge_response(failures, response, is_safe, at);
                (judged, status, retry.asked(response))
            }
            (Ok(_), None) => return None,
            // The status has decided that it is to be retried; only how long to wait was to come.
            (Err(_), Some(Undecided { status, asked })) => {
                (retry.judge_wait(failures, asked, at), status, asked)
            }
            // Its head was shown.
            (Err(_), None) if at.is_shown() => return None,
            (Err(error), None) => {
                let is_safe = is_safe || error.resend_is_safe();
                let judged = match retry.judge_error(failures, error, is_safe, at) {
                    // The response has broken off, but its head stands.
                    Judged::Again(_) if of_head.is_some() => {
                        retry.judge_wait(failures, of_head, at)
                    }
                    judged => judged,
                };
                (judged, StatusCode::OK, None)
            }
        };
        let wait = self.take(request, judged, (status, asked), at);
        self.hold_lane(status, wait.max(asked), at);
        wait
    }

    /// Lets a request that was refused with 429 wait for as long as its lane is held back, whose
    /// later requests it would otherwise be lost to, unless the longest wait was set.
    fn outlast(&self, judged: Judged, status: StatusCode, at: &Moment<'_>) -> Judged {
        let holds_lane = || self.has_place() && !self.is_astray();
        let retry = self.rules.retry.as_ref();
        match judged {
            Judged::TooLong(wait)
                if status == StatusCode::TOO_MANY_REQUESTS
                    && wait <= MAX_HOLD
                    && !is_late(wait, at)
                    && retry.is_some_and(|it| !it.has_longest())
                    && holds_lane() =>
            {
                Judged::Again(wait)
            }
            judged => judged,
        }
    }

    /// Takes a retry, and returns how long to wait before it.
    fn take(
        &mut self,
        request: &Request,
        judged: Judged,
        (status, asked): (StatusCode, Option<Duration>),
        at: &Moment<'_>,
    ) -> Option<Duration> {
        let given_up = |why: fmt::Arguments<'_>| {
            debug!("{}: not sent again, {why}", request.origin());
        };
        let wait = match self.outlast(judged, status, at) {
            Judged::Again(wait) => wait,
            Judged::Final => return None,
            Judged::Spent => {
                given_up(format_args!("after {} attempts", self.failures()));
                return None;
            }
            Judged::TooLong(wait) => {
                given_up(format_args!("since a wait of {wait:?} is too long"));
                return None;
            }
        };
        // A lane that is held back sends no more than the server allows.
        let is_429 = status == StatusCode::TOO_MANY_REQUESTS;
        let is_held = is_429 && self.has_place() && !self.is_astray();
        let is_charged = !(is_held && asked.is_some_and(|asked| !asked.is_zero()));
        let retry = self.rules.retry.as_ref()?;
        let (wait, is_charged) = if is_charged {
            let Some(taken) = retry.take(wait, at) else {
                given_up(format_args!("since the budget for retries is spent"));
                return None;
            };
            taken
        } else {
            (wait, false)
        };
        self.progress().retry = Retrying::Taken { is_charged };
        Some(wait)
    }

    /// Gives back a retry that was taken and is not sent.
    fn give_back(&mut self) {
        let Some(progress) = &mut self.progress else {
            return;
        };
        if let Retrying::Taken { is_charged } = progress.retry {
            progress.retry = Retrying::No;
            if let Some(retry) = self.rules.retry.as_ref().filter(|_| is_charged) {
                retry.give_back();
            }
        }
    }

    /// Forgets what the current exchange was to lead to.
    fn forget_next(&mut self) {
        let Some(progress) = &mut self.progress else {
            return;
        };
        (progress.undecided, progress.asked) = (None, None);
        if progress.next.take().is_some() {
            self.give_back();
        }
    }

    /// Notes that the request is sent.
    fn note_sent(&mut self) {
        self.rules.counts.attempts.add_one();
        // A policy nested inside may have sent the request again, whatever its response led to.
        self.forget_next();
        let Some(retry) = &self.rules.retry else {
            return;
        };
        match self.progress.as_mut().map(|progress| &mut progress.retry) {
            Some(state @ Retrying::Taken { .. }) => {
                *state = Retrying::Sent;
                self.rules.counts.retried.add_one();
            }
            Some(Retrying::Sent) => {}
            Some(Retrying::No) | None => retry.earn(),
        }
    }

    /// Returns the number of failures in a row, if the current exchange fails.
    fn failures(&self) -> u32 {
        let retried = self.progress.as_ref().map_or(0, |it| it.retried);
        retried.saturating_add(1)
    }

    fn has_place(&self) -> bool {
        let progress = self.progress.as_ref();
        progress.is_some_and(|progress| progress.place.is_some())
    }

    /// Holds back the lane of a request that was answered with 429, by the wait that the server has
    /// asked for or that the retry takes, whichever is longer.
    fn hold_lane(&mut self, status: StatusCode, wait: Option<Duration>, at: &Moment<'_>) {
        // The server of another origin has no say in it.
        if !self.is_astray()
            && let Some(place) = self.place()
            && let Some(wait) = wait
            && status == StatusCode::TOO_MANY_REQUESTS
        {
            place.hold(wait.min(MAX_HOLD), at);
        }
    }

    /// Notes that another request is sent in place of the current one.
    fn note_next(&mut self, why: Why) {
        match why {
            Why::Retried { .. } => {
                let progress = self.progress();
                progress.retried = progress.retried.saturating_add(1);
            }
            Why::Challenged => {
                self.rules.counts.challenged.add_one();
                self.progress().retry = Retrying::No;
            }
            Why::Redirected { is_elsewhere } => {
                self.rules.counts.redirected.add_one();
                let progress = self.progress();
                progress.retry = Retrying::No;
                progress.followed += 1;
                progress.is_astray |= is_elsewhere;
                // The next exchange is another one, which may be in another realm.
                progress.used = None;
            }
        }
    }
}

/// Whether a response is held back for a retry.
enum Held {
    No,
    /// The request is sent again after this wait.
    Again(Duration),
    /// Its body decides.
    Undecided,
}

/// The longest time that a response holds back a lane. If the server is still not ready then, the
/// next response says so.
const MAX_HOLD: Duration = Duration::from_secs(3600);

/// Whether the request itself asks for codings or for a range.
fn is_left_coded(request: &Request) -> bool {
    request.has_field("Accept-Encoding") || request.has_field("Range")
}

/// Whether Content-Encoding describes something else than this body: there is none, or it is a
/// part.
fn has_coding_of_another(request: &Request, head: &Response<'_>) -> bool {
    use StatusCode as Status;
    let status = head.status();
    request.method() == Method::HEAD
        || matches!(
            status,
            Status::NO_CONTENT | Status::PARTIAL_CONTENT | Status::NOT_MODIFIED
        )
}

/// Whether the request times out before this wait is over.
fn is_late(wait: Duration, at: &Moment<'_>) -> bool {
    let left = |end: Instant| end.saturating_duration_since(at.now());
    at.deadline().is_some_and(|end| wait >= left(end))
}

fn is_error(status: StatusCode) -> bool {
    status.as_u16() >= 400
}

/// A visit that ends without [`Visit::reset`], because of a panic or with its engine, sends no
/// retry either.
impl Drop for InSession {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Visit for InSession {
    fn total(&self) -> Option<Duration> {
        self.rules.total
    }

    fn holds_back(&self) -> bool {
        self.rules.pacing.is_some()
    }

    fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        if self.place().is_none()
            && let Some(pacing) = &self.rules.pacing
            && let Some(place) = pacing.enter(request.lane(), request.priority())
        {
            self.progress().place = Some(place);
        }
        match self.place() {
            Some(place) => place.start(at).map_err(|full| {
                self.rules.counts.failed.add_one();
                Error::policy(full)
            }),
            None => Ok(Start::Now),
        }
    }

    fn reads_head(&self, status: StatusCode, fields: &Headers<'_>) -> bool {
        // Only these concern rates, cookies, codings, credentials, redirects, retries and errors.
        status.as_u16() >= 300
            || self.progress.is_some()
            || self.rules.jar.is_some() && fields.find("Set-Cookie").is_some()
            || self.rules.codings.is_some() && fields.find("Content-Encoding").is_some()
    }

    fn reads_shown(&self) -> bool {
        false
    }

    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        self.note_sent();
        if let Some(place) = self.place() {
            place.on_sent(at);
        }
        if let Some(user_agent) = &self.rules.user_agent
            && !fields.has("User-Agent")
        {
            fields.add("User-Agent", &**user_agent)?;
        }
        if !self.is_astray() {
            for (name, value) in self.rules.headers_for(request) {
                if !fields.has(name) {
                    fields.add(name, value)?;
                }
            }
            self.add_credentials(request, fields, at)?;
        }
        if let Some(jar) = &self.rules.jar
            && !jar.is_empty()
            && !fields.has("Cookie")
        {
            let (scheme, host, path) = (request.scheme(), request.host(), request.target());
            let add = |line: &[u8]| fields.add("Cookie", line);
            jar.with_line(scheme, host, path, at.wall_clock(), add)
                .unwrap_or(Ok(()))?;
        }
        self.add_codings(request, fields)
    }

    fn on_head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        at: &Moment<'_>,
    ) -> Result<Screening, Error> {
        if let Some(place) = self.place() {
            place.on_answered(at);
        }
        if let Some(jar) = &self.rules.jar
            && head.header("Set-Cookie").is_some()
        {
            let (scheme, host, path) = (request.scheme(), request.host(), request.target());
            let cookies = head.header_all("Set-Cookie");
            jar.store(scheme, host, path, cookies, at.wall_clock());
        }
        if let Some(used) = self.progress.as_ref().and_then(|it| it.used.as_ref())
            && let Some(auth) = self.rules.auth_for(request)
            && let Some(info) = head.header("Authentication-Info")
        {
            auth.on_info(used, info);
        }
        if let Some(next) = self.next(request, head)? {
            self.progress().next = Some(next);
            return Ok(Screening::discard());
        }
        let mut is_held = false;
        if is_error(head.status()) {
            match self.judge_head(request, head, at) {
                Held::No => {}
                Held::Again(after) => {
                    self.progress().next = Some(Next {
                        request: request.clone(),
                        why: Why::Retried { after },
                    });
                    return Ok(Screening::discard());
                }
                Held::Undecided => is_held = true,
            }
            is_held |= self.rules.error_for_status;
        }
        let screening = if is_held {
            Screening::collect()
        } else {
            Screening::show()
        };
        self.decode(request, head, screening)
    }

    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        at: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        // An exchange that failed after its head led on all the same, but what a policy nested
        // inside has refused stands. Without a head, what is known is of an earlier exchange, and
        // that policy has sent the request again.
        let (is_refused, has_head) = match reply {
            Ok(_) => (false, true),
            Err(error) => (
                matches!(error.kind(), ErrorKind::Policy | ErrorKind::Status),
                error.status().is_some(),
            ),
        };
        if is_refused || !has_head {
            self.forget_next();
        }
        if let Some(next) = self.progress.as_mut().and_then(|it| it.next.take()) {
            let Next { request, why } = next;
            let after = why.after();
            if matches!(why, Why::Challenged | Why::Redirected { .. }) || !is_late(after, at) {
                self.note_next(why);
                return Ok(Verdict::Resend { request, after });
            }
            // There was time for a retry when the head arrived. The body has taken the rest of it,
            // and was dropped.
            return match reply {
                Ok(response) => Err(Error::of_status(response)),
                Err(_) => {
                    self.rules.counts.failed.add_one();
                    Ok(Verdict::Deliver)
                }
            };
        }
        if !is_refused && let Some(after) = self.judge_end(request, reply, at) {
            self.note_next(Why::Retried { after });
            let request = request.clone();
            return Ok(Verdict::Resend { request, after });
        }
        match reply {
            Ok(response) if self.rules.error_for_status && is_error(response.status()) => {
                return Err(Error::of_status(response));
            }
            Ok(_) => {}
            Err(_) => self.rules.counts.failed.add_one(),
        }
        Ok(Verdict::Deliver)
    }

    fn reset(&mut self) -> bool {
        self.rules.counts.ended.add_one();
        self.give_back();
        self.progress = None;
        true
    }
}
