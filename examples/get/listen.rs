//! Event streams (--sse): prints events as they come, over as many connections as it takes.

use std::cell::RefCell;
use std::rc::Rc;

use http::StatusCode;
use httpstream::events::{Event, Events};
use httpstream::{Context, ErrorKind, Flow, Next, Reply, Response};

use crate::hub::{Hub, Job, Rules};
use crate::report::{Ended, Known};

/// The stream of one URL, shared by what is called with each event and with its end.
struct Feed {
    job: Job,
    events: u64,
    /// Why the events cannot be written.
    broken: Option<String>,
}

/// Returns the step that reads the stream of a job.
pub(crate) fn listen(job: Job, rules: &Rules) -> Next<Hub> {
    let request = job.request.clone();
    let feed = Rc::new(RefCell::new(Feed {
        job,
        events: 0,
        broken: None,
    }));
    let same = Rc::clone(&feed);
    let events = Events::new(move |hub: &mut Hub, event, _: &mut Context<'_, Hub>| {
        feed.borrow_mut().on_event(hub, &event)
    });
    let mut events =
        events.then(move |hub: &mut Hub, reply, cx| same.borrow().on_end(hub, reply, cx));
    if let Some(patience) = &rules.retry {
        events = events.retry(patience.retry.clone());
    }
    let open = events.open(request);
    match rules.max_time {
        Some(time) => open.chain_timeout(time),
        None => open,
    }
}

impl Feed {
    fn on_event(&mut self, hub: &mut Hub, event: &Event<'_>) -> Flow {
        match self.print(hub, event) {
            Ok(()) => {
                self.events += 1;
                Flow::Stream
            }
            Err(why) => {
                self.broken = Some(why);
                Flow::Abort
            }
        }
    }

    fn print(&mut self, hub: &mut Hub, event: &Event<'_>) -> Result<(), String> {
        let outlet = &mut self.job.outlet;
        if !outlet.is_open() {
            outlet.open()?;
        }
        outlet.write(&mut hub.stdout, &[], text_of(event).as_bytes())
    }

    fn on_end(&self, hub: &mut Hub, reply: Reply<'_>, cx: &mut Context<'_, Hub>) -> Next<Hub> {
        let ended = match (&self.broken, &reply) {
            (Some(why), _) => Ended::Broken(why.clone()),
            (None, Ok(response)) => self.ended_by(hub, response),
            // How long to listen is for the user to say.
            (None, Err(error)) if error.kind() == ErrorKind::Timeout && self.is_listening() => {
                Ended::Fetched(self.line())
            }
            (None, Err(error)) => Ended::Broken(format!("{error:#}")),
        };
        let response = reply.as_ref().ok();
        let info = response.map(|response| response.info().clone());
        let known = Known {
            timings: info.as_ref().map(|info| info.timings),
            info,
            retries: 0,
        };
        self.job.end(hub, cx, ended, &known);
        // In a chain of its own, whose time begins anew.
        let next = hub.follow(cx);
        cx.start(next);
        Next::done()
    }

    /// Returns how a stream has ended that is not opened again because of this response.
    fn ended_by(&self, hub: &Hub, response: &Response<'_>) -> Ended {
        let status = response.status();
        let content_type = response.header_str("Content-Type").unwrap_or_default();
        match status {
            StatusCode::NO_CONTENT => Ended::Fetched(self.line()),
            StatusCode::OK if content_type.starts_with("text/event-stream") => {
                Ended::Fetched(self.line())
            }
            StatusCode::OK => Ended::Broken(format!("not an event stream but {content_type:?}")),
            _ if status.as_u16() >= 400 && hub.rules.fail.is_some() => Ended::Refused(status),
            _ => Ended::Broken(format!("answered with {status}")),
        }
    }

    /// Whether the stream is open, or was before it is opened again.
    fn is_listening(&self) -> bool {
        self.job.tap.noted().status == Some(StatusCode::OK)
    }

    /// Returns the line about the stream.
    fn line(&self) -> String {
        format!("{} events  {}", self.events, self.job.shown())
    }
}

/// Returns an event as text: `[name] data`, or only the data if the server has not named it. Each
/// event begins a line, and the further lines of its data are indented.
fn text_of(event: &Event<'_>) -> String {
    let data = event.data().replace('\n', "\n  ");
    match event.name() {
        "message" => format!("{data}\n"),
        name => format!("[{name}] {data}\n"),
    }
}
