//! How downloads end, and what is said about it.

use std::time::Instant;

use http::StatusCode;
use httpstream::{Context, Info, Response, Timings};

use crate::files::shown;
use crate::hub::{Hub, Job};
use crate::write_out::{Ends, Facts, Stream};

/// How a download ended.
pub(crate) enum Ended {
    /// With a line about the response.
    Fetched(String),
    Refused(StatusCode),
    Broken(String),
}

/// What is known of a download when it has ended, besides how.
pub(crate) struct Known {
    /// The connection of the last response.
    pub(crate) info: Option<Info>,
    /// Those of the whole response, if there is one.
    pub(crate) timings: Option<Timings>,
    pub(crate) retries: usize,
}

impl Job {
    /// Returns the URL for messages.
    pub(crate) fn shown(&self) -> String {
        shown(self.request.uri())
    }

    /// Ends the output of a download, and reports how it has ended.
    pub(crate) fn end(
        &self,
        hub: &mut Hub,
        cx: &mut Context<'_, Hub>,
        mut ended: Ended,
        known: &Known,
    ) {
        hub.board.end(self.number);
        let heads = self.tap.take_heads();
        let finished = self.outlet.finish(&mut hub.stdout, &heads, cx.id());
        if let (Err(why), Ended::Fetched(_) | Ended::Refused(_)) = (finished, &ended) {
            ended = Ended::Broken(why);
        }
        let exit_code = hub.tally.count(&ended, self.outlet.bytes());
        let error = match ended {
            Ended::Fetched(line) => {
                hub.board.say(line);
                None
            }
            Ended::Refused(status) => Some(format!("answered with {status}")),
            Ended::Broken(why) => Some(why + &self.outlet.clean_up()),
        };
        if let Some(error) = &error {
            let url = self.shown();
            hub.board.complain(&format!("{url} failed: {error}"));
        }
        let facts = Facts {
            exit_code,
            error,
            ..self.facts(known, cx.now())
        };
        self.write_out(hub, cx, &facts);
        hub.stdout.leave(cx.id(), cx);
    }

    /// Prints the text of -w.
    fn write_out(&self, hub: &mut Hub, cx: &Context<'_, Hub>, facts: &Facts) {
        let Some(format) = &hub.rules.write_out else {
            return;
        };
        for (stream, text) in format.text(facts) {
            match stream {
                // If it is closed, nobody reads the text.
                Stream::Stdout => drop(hub.stdout.say(cx.id(), text.as_bytes())),
                Stream::Stderr => hub.board.write(&text),
            }
        }
    }

    /// Returns what is known without the outcome.
    fn facts(&self, known: &Known, now: Instant) -> Facts {
        let (noted, outlet) = (self.tap.noted(), &self.outlet);
        let of_head = known.info.as_ref().map(|info| info.timings);
        Facts {
            url: self.url.clone(),
            number: self.number,
            method: self.request.method().clone(),
            effective_url: noted.url.as_ref().map(ToString::to_string),
            status: noted.status,
            version: noted.version,
            fields: noted.fields.clone(),
            ends: known.info.as_ref().and_then(Ends::of),
            file: outlet.file().filter(|_| outlet.is_open()).cloned(),
            size: noted.coded.unwrap_or(outlet.bytes()),
            redirects: noted.redirects,
            retries: known.retries,
            timings: known.timings.or(of_head).unwrap_or_default(),
            lasted: now.saturating_duration_since(noted.began.unwrap_or(now)),
            exit_code: 0,
            error: None,
        }
    }
}

/// Returns the line about a response.
pub(crate) fn line_of(response: &Response<'_>, bytes: u64) -> String {
    let info = response.info();
    format!(
        "{} {:?} {bytes:>10} B  {}  {}  {}",
        response.status().as_u16(),
        response.version(),
        if info.reused { "reused" } else { "fresh " },
        steps(&info.timings),
        shown(info.url()),
    )
}

/// Describes when each step was completed, in milliseconds since the start.
fn steps(timings: &Timings) -> String {
    let steps = [
        ("resolve", timings.resolve),
        ("connect", timings.connect),
        ("TLS", timings.tls),
        ("sent", timings.sent),
        ("first byte", timings.first_byte),
        ("done", timings.done),
    ];
    let steps = steps.map(|(name, at)| match at {
        Some(at) => format!("{name} {:.1}", at.as_secs_f64() * 1e3),
        None => format!("{name} -"),
    });
    steps.join(", ")
}
