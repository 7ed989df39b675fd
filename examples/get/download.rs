//! The readback of one download: streams the body to its target, has the request sent again after a
//! failure, and reports how it ended.

use std::mem;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use httpstream::{Context, Flow, Info, Next, Outcome, Readback, Reply, Response};

use crate::board::Board;
use crate::hub::{Hub, Job};
use crate::options::Fail;
use crate::report::{Ended, Known, line_of};
use crate::rest::Rest;

/// The longest body of an unwanted response that is read to its end, so that its connection can be
/// used again. A longer one costs its connection.
const WORTH_READING: u64 = 64 * 1024;

pub(crate) struct Download {
    job: Job,
    /// The connection of the last response.
    info: Option<Info>,
    retries: usize,
    /// When the request was first sent, if it was sent again.
    since: Option<Instant>,
    decided: Decided,
}

/// What the head or the body of the response has decided.
enum Decided {
    Nothing,
    /// The request is sent again.
    Again {
        after: Duration,
        why: String,
    },
    /// The status is a failure.
    Refused(StatusCode),
    /// The body is not wanted. Contains the line about the response.
    Enough(String),
    /// The download cannot go on here.
    Broken(String),
}

impl Readback<Hub> for Download {
    fn on_interim(&mut self, _: &mut Hub, head: &Response<'_>, _: &mut Context<'_, Hub>) {
        self.job.tap.keep_head(head);
    }

    fn on_head(&mut self, hub: &mut Hub, head: &Response<'_>, cx: &mut Context<'_, Hub>) -> Flow {
        self.info = Some(head.info().clone());
        self.decided = self.decide(hub, head, cx);
        match &self.decided {
            Decided::Nothing | Decided::Enough(_) => {}
            // Its head is wanted all the same, if heads are.
            Decided::Refused(_) if hub.rules.fail == Some(Fail::WithBody) => {}
            Decided::Refused(_) if self.job.tap.has_heads() => {}
            Decided::Again { .. } | Decided::Refused(_) => return drop_body(head),
            Decided::Broken(_) => return Flow::Abort,
        }
        if let Err(why) = self.job.outlet.open() {
            return self.break_off(why);
        }
        if !self.job.outlet.may_write(&mut hub.stdout, cx.id()) {
            return Flow::Pause;
        }
        match self.write(hub, &[]) {
            Flow::Stream if !self.wants_body(hub) => drop_body(head),
            flow => flow,
        }
    }

    fn on_data(&mut self, hub: &mut Hub, data: &[u8], _: &mut Context<'_, Hub>) -> Flow {
        // Of a response that waited for its turn.
        if !self.wants_body(hub) {
            return Flow::Abort;
        }
        let flow = self.write(hub, data);
        let (seen, total) = self.progress();
        hub.board.advance(self.job.number, seen, total);
        flow
    }

    fn on_reply(
        &mut self,
        hub: &mut Hub,
        reply: Reply<'_>,
        cx: &mut Context<'_, Hub>,
    ) -> Next<Hub> {
        let timings = reply.as_ref().ok().map(|response| response.info().timings);
        let ended = match mem::replace(&mut self.decided, Decided::Nothing) {
            Decided::Again { after, why } => return self.again(hub, after, &why, cx),
            Decided::Broken(why) => Ended::Broken(why),
            Decided::Refused(status) => Ended::Refused(status),
            Decided::Enough(line) if reply.is_err() => Ended::Fetched(line),
            Decided::Nothing | Decided::Enough(_) => match &reply {
                Ok(response) => Ended::Fetched(line_of(response, self.job.outlet.bytes())),
                Err(error) => match self.wait(hub, error, cx) {
                    Some(after) => return self.again(hub, after, &format!("{error:#}"), cx),
                    None => Ended::Broken(format!("{error:#}")),
                },
            },
        };
        let known = Known {
            info: self.info.take(),
            timings,
            retries: self.retries,
        };
        self.job.end(hub, cx, ended, &known);
        hub.follow(cx)
    }
}

impl Download {
    pub(crate) fn new(job: Job) -> Self {
        Self {
            job,
            info: None,
            retries: 0,
            since: None,
            decided: Decided::Nothing,
        }
    }

    /// Shows the bar of the download.
    pub(crate) fn show(&self, board: &mut Board) {
        match self.job.outlet.file() {
            Some(file) => board.begin(self.job.number, &file.shown),
            None => board.begin(self.job.number, &self.job.shown()),
        }
    }

    /// Decides what becomes of the response that begins with `head`.
    fn decide(&self, hub: &Hub, head: &Response<'_>, cx: &Context<'_, Hub>) -> Decided {
        let status = head.status();
        if let Some(after) = self.wait(hub, head, cx) {
            let why = format!("answered with {status}");
            return Decided::Again { after, why };
        }
        // The session has followed those that it can.
        if hub.rules.follows && is_redirect(head) {
            return Decided::Broken("redirect that cannot be followed".to_owned());
        }
        let is_all = matches!(Rest::of(head, self.job.offset), Rest::None);
        if hub.rules.fail.is_some() && status.as_u16() >= 400 && !is_all {
            return Decided::Refused(status);
        }
        match hub.rules.only_head {
            true => Decided::Enough(line_of(head, 0)),
            false => self.decide_rest(head),
        }
    }

    /// Decides about the rest of a body (-C).
    fn decide_rest(&self, head: &Response<'_>) -> Decided {
        match Rest::of(head, self.job.offset) {
            Rest::Follows => Decided::Nothing,
            Rest::None => Decided::Enough(line_of(head, 0)),
            Rest::Other(why) => Decided::Broken(why),
        }
    }

    /// Whether the body of the current response goes to the outlet, as its head does.
    fn wants_body(&self, hub: &Hub) -> bool {
        match self.decided {
            Decided::Nothing => true,
            Decided::Refused(_) => hub.rules.fail == Some(Fail::WithBody),
            Decided::Again { .. } | Decided::Enough(_) | Decided::Broken(_) => false,
        }
    }

    /// Returns how long to wait before the request is sent again, if it is.
    fn wait<'o>(
        &self,
        hub: &Hub,
        why: impl Into<Outcome<'o>>,
        cx: &Context<'_, Hub>,
    ) -> Option<Duration> {
        let patience = hub.rules.retry.as_ref()?;
        let can_begin_anew = self.job.outlet.can_begin_anew();
        can_begin_anew.then(|| patience.wait(self.retries + 1, self.since(cx.now()), why, cx))?
    }

    /// Returns when the request was first sent.
    fn since(&self, now: Instant) -> Instant {
        self.since.or(self.job.tap.noted().began).unwrap_or(now)
    }

    /// Sends the request again.
    fn again(
        &mut self,
        hub: &mut Hub,
        after: Duration,
        why: &str,
        cx: &Context<'_, Hub>,
    ) -> Next<Hub> {
        let (url, seconds) = (self.job.shown(), after.as_secs_f64());
        hub.board
            .say(format!("get: {url}: {why}; again in {seconds:.1} s"));
        self.since = Some(self.since(cx.now()));
        self.retries += 1;
        hub.tally.retried += 1;
        self.info = None;
        self.job.outlet.begin_anew();
        self.job.tap.reset();
        self.show(&mut hub.board);
        Next::again().after(after)
    }

    /// Writes the heads that have not been written, and a piece of the body.
    fn write(&mut self, hub: &mut Hub, data: &[u8]) -> Flow {
        let heads = self.job.tap.take_heads();
        match self.job.outlet.write(&mut hub.stdout, &heads, data) {
            Ok(()) => Flow::Stream,
            Err(why) => self.break_off(why),
        }
    }

    fn break_off(&mut self, why: String) -> Flow {
        self.decided = Decided::Broken(why);
        Flow::Abort
    }

    /// Returns the bytes that have arrived, and how many there will be, both before the body is
    /// decoded.
    fn progress(&self) -> (u64, Option<u64>) {
        let noted = self.job.tap.noted();
        let bytes = noted.coded.unwrap_or(self.job.outlet.bytes());
        (bytes, noted.length)
    }
}

/// Returns how to pass over a body that nobody wants: one that is short is read, so that its
/// connection can be used again.
fn drop_body(head: &Response<'_>) -> Flow {
    if head.info().request().method() == Method::HEAD {
        return Flow::Discard;
    }
    match head.content_length() {
        Some(0..=WORTH_READING) => Flow::Discard,
        _ => Flow::Abort,
    }
}

/// Whether a response asks for another request to be sent.
fn is_redirect(head: &Response<'_>) -> bool {
    let leads_on = matches!(head.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    leads_on
        && head
            .header("Location")
            .is_some_and(|location| !location.is_empty())
}
