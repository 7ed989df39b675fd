//! Downloads to files: a readback that writes the body of a response to a file, and asks for the
//! rest of it if the connection breaks.
//!
//! This is an edge, on the public interface, except that it keeps its chain in the generation of
//! its session. [`answer`] judges the head of each response, and [`part`] is the temporary file.
//! Here, a [`Download`] decides what follows the end of a response.

use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use log::{debug, warn};

use crate::session::Retry;
use crate::{Context, Error, ErrorKind, Flow, Next, Readback, Reply, Request, Response};

mod answer;
mod part;

use answer::{Answer, Here, judge_rest, judge_whole};
use part::PartFile;

/// How many attempts in a row may fail without progress, if a download is resumed by default.
const ATTEMPTS: u32 = 5;

/// An attempt that gets a download this much further is worth its request. 1 MiB.
const WORTH: u64 = 1 << 20;

/// How many attempts a download may have that were not worth it, over all of its life. Without this
/// bound, a server that sends a few bytes more each time would never be given up.
const MOST_SLIGHT: u32 = 1000;

/// The longest body of a useless response that is read to its end, so that the connection can be
/// used again.
const WORTH_READING: u64 = 64 << 10;

/// Receives how many bytes of a file are here, and how many it has.
type Progress = Box<dyn FnMut(u64, Option<u64>) + Send>;

/// A readback that saves the response to a file.
///
/// The body is written as it arrives to a temporary file in the same directory, which is renamed to
/// the target when it is complete. The target is thus never seen half-written: until the download
/// has succeeded, it stays as it was. [`then`](Self::then) says what follows. Without it, the chain
/// ends, and a failure is only logged.
///
/// A download takes longer than other requests. [`Timeouts::total`](crate::Timeouts::total), five
/// minutes by default, covers the whole body, so lift it with `.timeouts(|t| t.total = None)`. The
/// idle timeout still ends a download that stalls. In a session, the same applies to
/// [`SessionBuilder::total`](crate::session::SessionBuilder::total).
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Context, Engine, Error, Next, Request, Save, Saved, Sim};
///
/// #[derive(Default)]
/// struct Bot { saved: Vec<Saved> }
///
/// impl Bot {
///     fn on_saved(
///         &mut self,
///         saved: Result<Saved, Error>,
///         _: &mut Context<'_, Self>,
///     ) -> Next<Self> {
///         match saved {
///             Ok(saved) => self.saved.push(saved),
///             Err(error) => eprintln!("{error:#}"),
///         }
///         Next::done()
///     }
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
///     match request.header("Range") {
///         // The connection breaks inside the body...
///         None => Answer::ok("hello world").header("ETag", "\"v1\"").truncate(60).reset(),
///         // ... and the rest is asked for.
///         Some(range) => {
///             assert_eq!(request.header("If-Range"), Some(&b"\"v1\""[..]));
///             let from = std::str::from_utf8(range).unwrap();
///             let from = from.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
///             let rest = Answer::status(206).body(&b"hello world"[from..]);
///             let rest = rest.header("Content-Range", format!("bytes {from}-10/11"));
///             rest.header("ETag", "\"v1\"")
///         }
///     }
/// });
/// let mut engine = Engine::<Bot, Sim>::on_network(&network, Config::default())?;
///
/// let path = std::env::temp_dir().join(format!("httpstream-save-{}", std::process::id()));
/// let request = Request::get("http://10.0.0.1/big").timeouts(|t| t.total = None).build()?;
/// let save = Save::to(&path).resume(true).progress(|seen, total| println!("{seen} of {total:?}"));
/// engine.submit_to(request, save.then(Bot::on_saved));
///
/// let mut bot = Bot::default();
/// engine.run(&mut bot)?;
/// assert_eq!((bot.saved[0].bytes, bot.saved[0].resumed), (11, 1));
/// assert_eq!(std::fs::read(&path)?, b"hello world");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is saved
/// The body of a response with status 200 (OK) or 203 (Non-Authoritative Information), after
/// redirects if the request is in a [session](crate::session) that follows them. If the session
/// decodes the body, the decoded one is saved. A body that has neither a length nor chunks lasts
/// until the connection ends, so it is unknown whether it is complete. All other responses are
/// errors of the kind
/// [`Status`](ErrorKind::Status) with that [status](Error::status), among them:
///
/// - 204 (No Content) and 205, which have nothing to save;
/// - 206 (Partial Content), if the request itself asks for a range: only whole files are saved;
/// - 304 (Not Modified), if the request itself is conditional: the file from before is current;
/// - 412 (Precondition Failed), if the request has an `If-Match`: the file has changed.
///
/// A response to HEAD is an error of the kind [`Body`](ErrorKind::Body), since it would replace the
/// target by an empty file.
///
/// # The file
/// The temporary file is called `.httpstream-1234-1.part`, with the id of the process and a number.
/// It is created when the first response arrives, and is removed if the download fails or is
/// canceled, and when the engine is dropped. It remains only if the process is killed, and no later
/// process uses it. Several downloads to one target do not disturb each other: the last one to
/// complete stays.
///
/// An existing target is replaced, not overwritten: the new file has the permissions of a new file,
/// and a symbolic link is replaced by the file itself. A target that exists and is not a regular
/// file is refused.
///
/// The loop waits while a piece is written, as for any work in a readback. Each piece is bounded by
/// what the engine reads at once, or decodes at once. Nothing is flushed to the disk
/// ([`sync_all`](std::fs::File::sync_all)) before the rename, because that may take seconds; do it
/// on another thread where it matters.
///
/// If the file cannot be created, written or renamed, the error has the kind
/// [`Body`](ErrorKind::Body), and its [source](std::error::Error::source) is the [`io::Error`]: of
/// the kind [`StorageFull`](io::ErrorKind::StorageFull) if the disk is full,
/// [`QuotaExceeded`](io::ErrorKind::QuotaExceeded), [`NotFound`](io::ErrorKind::NotFound) if there
/// is no such directory, and so on. Such a download is not attempted again.
///
/// # Afterwards
/// A `Save` whose chain goes on saves the next response, too: what [`then`](Self::then) returns may
/// be [`Next::again`], or another request. It is saved to the same path.
#[must_use = "a readback does nothing until it is submitted with a request"]
pub struct Save(Box<Saving>);

/// The settings of a [`Save`], and its state. Boxed, because a [`Submitter`](crate::Submitter)
/// returns what it does not accept, and errors should be small.
struct Saving {
    path: PathBuf,
    resumes: bool,
    retry: Option<Retry>,
    max_bytes: Option<u64>,
    progress: Option<Progress>,
    download: Download,
    /// The Range field of the last request for the rest of a file. The request remains the last one
    /// of its chain, so `again` sends it once more when nothing is here that it could continue.
    asked: Option<String>,
}

/// A file that was saved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Saved {
    /// The path, as given to [`Save::to`].
    pub path: PathBuf,
    /// The length of the file.
    pub bytes: u64,
    /// How many requests it took.
    pub attempts: u32,
    /// How many of the responses continued where the one before had ended; see [`Save::resume`].
    pub resumed: u32,
}

/// A [`Save`] with what follows it. Made by [`Save::then`].
#[must_use = "a readback does nothing until it is submitted with a request"]
pub struct SaveThen<F> {
    save: Save,
    then: F,
}

impl Save {
    /// Saves the response to this path. A relative path is resolved when the first response
    /// arrives.
    pub fn to(path: impl AsRef<Path>) -> Self {
        Self(Box::new(Saving {
            path: path.as_ref().to_owned(),
            resumes: false,
            retry: None,
            max_bytes: None,
            progress: None,
            download: Download::default(),
            asked: None,
        }))
    }

    /// Sets whether a download that breaks off is attempted again, and continued where it broke
    /// off. False by default.
    ///
    /// When an attempt fails, for example because the connection breaks or a timeout passes, the
    /// request is sent again, after a wait. The rules are those of [`retry`](Self::retry), which
    /// are `Retry::attempts(5)` unless they are set.
    ///
    /// # Where it continues
    /// If the file can be identified, the new request asks for the rest only, with `Range` and
    /// `If-Range` (RFC 9110 §13.1.5, §14.2). That requires:
    ///
    /// - a GET request, answered with 200 and a strong `ETag`; a weak one or a date does not prove
    ///   that two parts belong together;
    /// - a body without content coding, since ranges count the bytes before decoding. From the
    ///   second attempt on, the request has `Accept-Encoding: identity`, unless it has such a field
    ///   itself;
    /// - a `Content-Length`, or an `Accept-Encoding` of the request's own: otherwise, a policy may
    ///   have decoded the body.
    ///
    /// If any of this is missing, the next attempt starts from the beginning. A session that
    /// decodes asks for codings in the first attempt. To be able to continue after that one as
    /// well, give the request the field `Accept-Encoding: identity`.
    ///
    /// The rest is used only if it is proven to be of the same file: a 206 with the same `ETag`,
    /// with a valid `Content-Range` that begins where the file ends and names the same length, and
    /// without content coding. If it is less than the rest, the next request follows at once. If
    /// the file has changed, or the server sends no ranges, it answers with 200 and the whole file,
    /// which replaces what was here. After anything else with status 206 or 416, the whole file is
    /// asked for; a 416 whose `Content-Range` and `ETag` prove that nothing is missing completes
    /// the file.
    ///
    /// # When it is given up
    /// Each time the download gets further than ever before, the rules of [`retry`](Self::retry)
    /// begin anew. A server that breaks off at the same place every time is therefore given up
    /// after five attempts. In any case, the download is given up after 1000 attempts that gained
    /// less than 1 MiB each. It also ends with the chain's
    /// [`chain_timeout`](crate::Next::chain_timeout), and when the engine
    /// [drains](crate::Engine::drain). The error is that of the last attempt.
    ///
    /// While a download is resumed, [`Context::request`] and [`Error::request`] return the request
    /// for the rest of the file.
    pub fn resume(mut self, yes: bool) -> Self {
        self.0.resumes = yes;
        self
    }

    /// Sets when and how often a failed attempt is repeated: after which errors and statuses, only
    /// if that is safe, and after which wait. Its attempts are those in a row without progress; its
    /// [budget](Retry::budget) does not apply.
    ///
    /// By default, [`resume`](Self::resume) sets `Retry::attempts(5)`, and without it, nothing is
    /// repeated. With `retry` and without `resume`, each attempt starts from the beginning.
    ///
    /// In a session that retries, its own retries come first. They end when the first byte of a
    /// file has arrived.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = Some(retry);
        self
    }

    /// Sets the longest file that is saved. By default, there is no limit. The error for a longer
    /// one is of the kind [`Body`](ErrorKind::Body), and its source of the kind
    /// [`FileTooLarge`](io::ErrorKind::FileTooLarge). If the server says the length in advance,
    /// nothing is written.
    pub fn max_bytes(mut self, most: u64) -> Self {
        self.0.max_bytes = Some(most);
        self
    }

    /// Sets a function that is called with the progress: how many bytes are here, and how many the
    /// file has, if that is known. It is called when a response begins and after each piece.
    ///
    /// The first number only grows, unless the download starts from the beginning.
    ///
    /// `Send`, so that a `Save` can be submitted through a [`Submitter`](crate::Submitter), too.
    pub fn progress(mut self, told: impl FnMut(u64, Option<u64>) + Send + 'static) -> Self {
        self.0.progress = Some(Box::new(told));
        self
    }

    /// Sets what follows: a closure, a function, or a method of the state. It is called once for
    /// each request of the chain, with the file or with the reason why there is none, and returns
    /// the next step as a readback does.
    pub fn then<S, F>(self, then: F) -> SaveThen<F>
    where
        F: FnMut(&mut S, Result<Saved, Error>, &mut Context<'_, S>) -> Next<S> + 'static,
    {
        SaveThen { save: self, then }
    }
}

/// A download, from its first request to the end of its last response.
#[derive(Debug, Default)]
struct Download {
    stage: Stage,
    /// From the first response on.
    file: Option<PartFile>,
    /// The number of bytes in the file.
    here: u64,
    /// The length of the whole file, if it is known.
    total: Option<u64>,
    /// The strong validator of the file, if it can be continued.
    etag: Option<String>,
    resumed: u32,
    attempts: Attempts,
}

/// What a download waits for.
///
/// ```text
///  AskedWhole ──────────► Receiving ──────────► the end
///   ▲    ▲                 │    ▲                 ▲
///   │    └── a break, ─────┤    │                 │
///   │       unproven       ▼    │                 │
///   └── StartingOver ◄── AskedRest ──► Complete ──┘
/// ```
///
/// From both `Asked`, a status leads to `Refused`, and trouble with the file to `Failed`. So does
/// trouble in `Receiving`.
#[derive(Debug, Default)]
enum Stage {
    /// The response to a request for the whole file.
    #[default]
    AskedWhole,
    /// The response to a request for the rest of the file.
    AskedRest,
    /// The end of a body that is written to the file from offset `from` on. If the response says
    /// so, it ends at `end`.
    Receiving { from: u64, end: Option<u64> },
    /// The end of a response that is of no use. The whole file is asked for next.
    StartingOver,
    /// The end of a response that proves that nothing is missing.
    Complete,
    /// The end of a response that is no file.
    Refused,
    /// The end of a response that cannot be saved.
    Failed(io::Error),
}

/// The attempts of a download.
#[derive(Debug, Default)]
struct Attempts {
    all: u32,
    /// Those that were not [worth](WORTH) it.
    slight: u32,
    /// The failures in a row without progress.
    failures: u32,
    /// The most bytes that have ever been here. Progress is measured against this rather than
    /// against the last attempt: a server that starts over and breaks off early, again and again,
    /// makes none.
    best: u64,
}

impl Attempts {
    /// Counts an attempt, at whose end so many bytes are here.
    fn count(&mut self, here: u64) {
        let gain = here.saturating_sub(self.best);
        self.all += 1;
        self.slight += u32::from(gain < WORTH);
        if gain > 0 {
            self.best = here;
            self.failures = 0;
        }
    }

    fn are_exhausted(&self) -> bool {
        self.slight >= MOST_SLIGHT
    }
}

/// What follows a response.
enum Step {
    Ask(Request, Duration),
    End(Result<Saved, Error>),
}

/// What is asked for next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Rest,
}

impl Saving {
    /// Takes the head of a response to `request`.
    fn take_head(&mut self, head: &Response<'_>, request: Option<&Request>) -> Flow {
        self.download.stage = match self.judge(head, request) {
            _ if head.status() == 101 => refuse("a tunnel is not a file"),
            Answer::Whole { .. } if request.is_some_and(|it| it.method() == Method::HEAD) => {
                refuse("a response to HEAD has no body to save")
            }
            Answer::Whole { total, etag } => {
                let is_get = request.is_some_and(|it| it.method() == Method::GET);
                self.download.etag = etag.filter(|_| self.resumes && is_get);
                self.begin(total)
            }
            Answer::Rest { end, total } => {
                let from = self.download.here;
                self.download.total = total;
                self.download.resumed += 1;
                let end = Some(end);
                self.check_total(Stage::Receiving { from, end })
            }
            Answer::Complete => Stage::Complete,
            Answer::Useless(why) => {
                if let Some(request) = request {
                    let origin = request.origin();
                    debug!("{origin}: a download starts from the beginning, since {why}");
                }
                Stage::StartingOver
            }
            Answer::Refused => Stage::Refused,
        };
        match self.download.stage {
            Stage::Receiving { .. } => {
                self.tell_progress();
                Flow::Stream
            }
            // The body says why.
            Stage::Refused => Flow::Buffer,
            Stage::StartingOver | Stage::Complete
                if head.content_length().is_some_and(|n| n <= WORTH_READING) =>
            {
                Flow::Discard
            }
            _ => Flow::Abort,
        }
    }

    fn judge(&self, head: &Response<'_>, request: Option<&Request>) -> Answer {
        let Download {
            stage,
            here,
            total,
            etag,
            ..
        } = &self.download;
        match (stage, etag) {
            (Stage::AskedRest, Some(etag)) => judge_rest(
                head,
                Here {
                    bytes: *here,
                    total: *total,
                    etag,
                },
            ),
            _ if matches!(head.status().as_u16(), 206 | 416) && self.is_left_over(request) => {
                Answer::Useless("the range was asked for by an earlier download")
            }
            _ => {
                let has_codings = |it: &Request| it.header("Accept-Encoding").is_some();
                judge_whole(head, request.is_some_and(has_codings))
            }
        }
    }

    /// Whether a request asks for the rest of a file that a former download has asked for.
    fn is_left_over(&self, request: Option<&Request>) -> bool {
        let range = request.and_then(|request| request.header_str("Range"));
        range.is_some() && range == self.asked.as_deref()
    }

    /// Begins to receive a whole file.
    fn begin(&mut self, total: Option<u64>) -> Stage {
        let Download { file, here, .. } = &mut self.download;
        let opened = match file {
            Some(file) => file.restart(),
            None => PartFile::create(&self.path).map(|new| *file = Some(new)),
        };
        *here = 0;
        self.download.total = total;
        match opened {
            Ok(()) => self.check_total(Stage::Receiving {
                from: 0,
                end: total,
            }),
            Err(why) => Stage::Failed(why),
        }
    }

    /// Returns the stage, or the failure of a file that is too large.
    fn check_total(&self, stage: Stage) -> Stage {
        match self.download.total {
            Some(total) if self.exceeds_limit(total) => Stage::Failed(too_large()),
            _ => stage,
        }
    }

    fn exceeds_limit(&self, bytes: u64) -> bool {
        self.max_bytes.is_some_and(|most| bytes > most)
    }

    /// Takes a piece of the body.
    fn take_piece(&mut self, piece: &[u8]) -> Flow {
        let Stage::Receiving { end, .. } = self.download.stage else {
            return Flow::Abort;
        };
        let here = self.download.here.saturating_add(piece.len() as u64);
        if end.is_some_and(|end| here > end) {
            // A chunked part that is longer than its Content-Range.
            self.download.stage = Stage::StartingOver;
            return Flow::Abort;
        }
        let is_too_large = self.exceeds_limit(here);
        let written = match &mut self.download.file {
            _ if is_too_large => Err(too_large()),
            Some(file) => file.write(piece),
            None => unreachable!("a file is opened before its body is received"),
        };
        if let Err(why) = written {
            self.download.stage = Stage::Failed(why);
            return Flow::Abort;
        }
        self.download.here = here;
        self.tell_progress();
        Flow::Stream
    }

    fn tell_progress(&mut self) {
        if let Some(told) = &mut self.progress {
            told(self.download.here, self.download.total);
        }
    }

    /// Takes the end of a response, and returns what follows.
    fn take_end<S>(&mut self, reply: Reply<'_>, cx: &Context<'_, S>) -> Step {
        let stage = mem::take(&mut self.download.stage);
        self.download.attempts.count(self.download.here);
        let Download { here, total, .. } = self.download;
        match (stage, reply) {
            (Stage::Failed(why), reply) => Step::End(Err(Error::of_file(why, reply))),
            (Stage::Complete, reply) if !is_cancelled(&reply) => self.finish(reply),
            (Stage::StartingOver, reply) => self.ask(Part::Whole, Duration::ZERO, reply, cx),
            (Stage::Receiving { from, end }, Ok(response)) if end.is_none_or(|it| it == here) => {
                // A server may send less than was asked for (RFC 9110 §15.3.7). If it does not say
                // how long the file is, only a 416 shows that nothing is missing.
                match total.map_or(from == 0, |total| here >= total) {
                    true => self.finish(Ok(response)),
                    false => self.ask(Part::Rest, Duration::ZERO, Ok(response), cx),
                }
            }
            (Stage::Receiving { from: 0, .. }, Ok(response)) => {
                // The engine has checked the length, so a policy has taken the body away.
                let why = "a policy has discarded the body";
                let why = io::Error::new(io::ErrorKind::UnexpectedEof, why);
                Step::End(Err(Error::of_file(why, Ok(response))))
            }
            // A chunked part that is shorter than its Content-Range.
            (Stage::Receiving { .. }, Ok(response)) => {
                self.ask(Part::Whole, Duration::ZERO, Ok(response), cx)
            }
            // Only the end of the chunked coding is missing, after the last byte of the file.
            (Stage::Receiving { .. }, Err(error))
                if total == Some(here) && is_break(error.kind()) =>
            {
                self.finish(Err(error))
            }
            (Stage::AskedWhole | Stage::AskedRest, Err(error))
                if self.is_unsatisfied(&error, cx.request()) =>
            {
                self.ask(Part::Whole, Duration::ZERO, Err(error), cx)
            }
            (_, reply) => self.ask_again(reply, cx),
        }
    }

    /// Whether a session has turned a 416 into an error, which does not contain the fields that
    /// could prove anything.
    fn is_unsatisfied(&self, error: &Error, request: Option<&Request>) -> bool {
        let is_416 = error.status().is_some_and(|status| status == 416);
        error.kind() == ErrorKind::Status && is_416 && self.is_left_over(request)
    }

    /// Repeats a failed attempt, if it may be repeated.
    fn ask_again<S>(&mut self, reply: Reply<'_>, cx: &Context<'_, S>) -> Step {
        let attempts = &mut self.download.attempts;
        attempts.failures += 1;
        let wait = match (&self.retry, self.resumes) {
            (Some(retry), _) => retry.wait(attempts.failures, &reply, &cx.moment()),
            (None, true) => Retry::attempts(ATTEMPTS).wait(attempts.failures, &reply, &cx.moment()),
            (None, false) => None,
        };
        match wait {
            Some(wait) => self.ask(Part::Rest, wait, reply, cx),
            None => Step::End(Err(error_of(reply))),
        }
    }

    /// Asks for a part of the file after the exchange that ended with `reply`: for the rest only if
    /// it can be identified.
    fn ask<S>(
        &mut self,
        part: Part,
        wait: Duration,
        reply: Reply<'_>,
        cx: &Context<'_, S>,
    ) -> Step {
        if cx.is_ending() || self.download.attempts.are_exhausted() {
            return Step::End(Err(error_of(reply)));
        }
        let Some(request) = cx.request() else {
            return Step::End(Err(error_of(reply)));
        };
        let Download { here, etag, .. } = &self.download;
        let rest = etag.as_deref().filter(|_| part == Part::Rest && *here > 0);
        let mut next = request.edit().without("Range").without("If-Range");
        if let Some(etag) = rest {
            let range = format!("bytes={here}-");
            next = next.header("Range", &range).header("If-Range", etag);
            self.asked = Some(range);
        }
        let has_codings = request.header("Accept-Encoding").is_some();
        if self.resumes && request.method() == Method::GET && !has_codings {
            next = next.header("Accept-Encoding", "identity");
        }
        self.download.stage = match rest {
            Some(_) => Stage::AskedRest,
            None => {
                // What is here is not continued even if this request fails.
                self.download.etag = None;
                Stage::AskedWhole
            }
        };
        match next.build() {
            Ok(next) => Step::Ask(next, wait),
            Err(error) => Step::End(Err(error)),
        }
    }

    /// Puts the complete file in its place.
    fn finish(&mut self, reply: Reply<'_>) -> Step {
        let file = self.download.file.take();
        let file = file.expect("a file is opened before it is complete");
        if let Err(why) = file.persist() {
            return Step::End(Err(Error::of_file(why, reply)));
        }
        Step::End(Ok(Saved {
            path: self.path.clone(),
            bytes: self.download.here,
            attempts: self.download.attempts.all,
            resumed: self.download.resumed,
        }))
    }
}

fn refuse(why: &'static str) -> Stage {
    Stage::Failed(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn too_large() -> io::Error {
    let why = "the file is larger than max_bytes";
    io::Error::new(io::ErrorKind::FileTooLarge, why)
}

/// Whether an exchange ended because its connection did, rather than because it was ended here.
fn is_break(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Truncated | ErrorKind::Io | ErrorKind::Tls | ErrorKind::Timeout
    )
}

fn is_cancelled(reply: &Reply<'_>) -> bool {
    let error = reply.as_ref().err();
    error.is_some_and(|error| error.kind() == ErrorKind::Cancelled)
}

fn error_of(reply: Reply<'_>) -> Error {
    match reply {
        Ok(response) => Error::of_status(&response),
        Err(error) => error,
    }
}

impl<S> Readback<S> for Save {
    fn on_head(&mut self, _: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        self.0.take_head(head, cx.request())
    }

    fn on_data(&mut self, _: &mut S, data: &[u8], _: &mut Context<'_, S>) -> Flow {
        self.0.take_piece(data)
    }

    fn on_reply(&mut self, _: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        match self.0.take_end(reply, cx) {
            Step::Ask(request, wait) => Next::instead(request).after(wait),
            Step::End(saved) => {
                self.0.download = Download::default();
                if let Err(error) = saved {
                    warn!("a download has failed: {error:#}");
                }
                Next::done()
            }
        }
    }
}

impl<S, F> Readback<S> for SaveThen<F>
where
    F: FnMut(&mut S, Result<Saved, Error>, &mut Context<'_, S>) -> Next<S>,
{
    fn on_head(&mut self, _: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        self.save.0.take_head(head, cx.request())
    }

    fn on_data(&mut self, _: &mut S, data: &[u8], _: &mut Context<'_, S>) -> Flow {
        self.save.0.take_piece(data)
    }

    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        match self.save.0.take_end(reply, cx) {
            Step::Ask(request, wait) => Next::instead(request).after(wait),
            Step::End(saved) => {
                // Drops the temporary file, if there still is one, before the outcome is delivered.
                self.save.0.download = Download::default();
                (self.then)(state, saved, cx)
            }
        }
    }
}

impl fmt::Debug for Save {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Saving {
            path,
            resumes,
            retry,
            max_bytes,
            download,
            ..
        } = &*self.0;
        f.debug_struct("Save")
            .field("path", path)
            .field("resumes", resumes)
            .field("retry", retry)
            .field("max_bytes", max_bytes)
            .field("here", &download.here)
            .field("total", &download.total)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for SaveThen<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaveThen")
            .field("save", &self.save)
            .finish_non_exhaustive()
    }
}
