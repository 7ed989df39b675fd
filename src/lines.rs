//! Bodies that consist of lines: newline-delimited JSON, and the like.
//!
//! [`Lines`] is the readback of such a body, for programs that have a state, and [`Stream`] is for
//! tasks.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::backlog::{Rest, Taker, broken_off, queue};
use crate::engine::{Context, Flow, Local, Next, Readback, Unread};
use crate::error::Error;
use crate::policy::Outcome;
use crate::proto::Violation;
use crate::request::Request;
use crate::response::{Reply, Response};

/// The readback of a body that consists of lines, each of which is passed on as soon as it has
/// arrived.
///
/// A line ends with LF or CRLF, which are not part of it. Empty lines are passed on, too. If the
/// body does not end with a line end, its last line is what follows the last one; if the body is
/// cut off, that is dropped, because it may be incomplete, and so are lines that a pause holds back
/// then. A response whose status is not 2xx has no lines: it goes to [`then`](Self::then), with its
/// body.
///
/// What the function that is called with each line returns says how the body goes on:
///
/// - [`Flow::Stream`]: with the next line.
/// - [`Flow::Pause`]: not before [`resume`](Context::resume). Further lines that have arrived
///   already are kept, and nothing more is read.
/// - [`Flow::Discard`]: the rest is read to its end and dropped.
/// - [`Flow::Finish`]: it ends here, without an error.
/// - [`Flow::Abort`]: the connection is closed.
///
/// A body without an end, such as a watch, needs other [timeouts](crate::Timeouts) than the
/// defaults: `total` is to be lifted, and `idle` to be longer than the longest silence.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Flow, Lines, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
///     Answer::status(200).chunked(["{\"id\": 1}\n{\"i", "d\": 2}\r\n", "{\"id\": 3}"])
/// });
/// let mut engine = Engine::<Vec<String>, Sim>::on_network(&network, Config::default())?;
/// let lines = Lines::new(|seen: &mut Vec<String>, line, _| {
///     seen.push(String::from_utf8_lossy(line).into_owned());
///     Flow::Stream
/// });
/// let lines = lines.then(|seen: &mut Vec<String>, reply, _| {
///     seen.push(reply.map_or_else(|error| error.to_string(), |_| "the end".to_owned()));
///     Next::done()
/// });
/// let watch = Request::get("http://10.0.0.1/watch").timeouts(|t| t.total = None).build()?;
/// engine.submit_to(watch, lines);
/// let mut seen = Vec::new();
/// engine.run(&mut seen)?;
/// assert_eq!(seen, ["{\"id\": 1}", "{\"id\": 2}", "{\"id\": 3}", "the end"]);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[must_use = "it reads nothing unless it is passed on, for example to `submit_to`"]
pub struct Lines<F, R = Unread> {
    on_line: F,
    then: R,
    splitter: Splitter,
    /// The part of the last piece that a pause holds back.
    rest: Option<Box<Rest>>,
    reading: Reading,
}

/// What is being read.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Nothing,
    Lines,
    /// A body that is aborted, because a line was too long.
    TooLong {
        seen: usize,
    },
    /// A response that has no lines, and goes to `then`.
    Other,
}

impl<F> Lines<F> {
    /// Creates a readback that calls `on_line` with each line.
    pub fn new<S>(on_line: F) -> Self
    where
        F: FnMut(&mut S, &[u8], &mut Context<'_, S>) -> Flow + 'static,
    {
        Self {
            on_line,
            then: Unread,
            splitter: Splitter::new(),
            rest: None,
            reading: Reading::Nothing,
        }
    }
}

impl<F, R> Lines<F, R> {
    /// Sets the most bytes that a line may have, without its end. By default 1 MiB. A longer one
    /// ends the chain's exchange with [`TooLarge`](crate::ErrorKind::TooLarge) and
    /// [`LineTooLong`](crate::Violation::LineTooLong).
    pub fn max_bytes(mut self, most: usize) -> Self {
        self.splitter.most = most;
        self
    }

    /// Sets what is called when the body is over, and returns the chain's next step: with the head
    /// of the response, or with a response that has no lines and its body, or with an error. By
    /// default, the chain ends.
    pub fn then<S, T>(self, then: T) -> Lines<F, T>
    where
        T: FnMut(&mut S, Reply<'_>, &mut Context<'_, S>) -> Next<S> + 'static,
    {
        self.then_to(then)
    }

    /// [`then`](Self::then) for a type that implements [`Readback`]. It also chooses what happens
    /// to the body of a response that has no lines, and may wait without a request.
    pub fn then_to<T>(self, then: T) -> Lines<F, T> {
        Lines {
            on_line: self.on_line,
            then,
            splitter: self.splitter,
            rest: self.rest,
            reading: self.reading,
        }
    }

    /// Delivers the lines of a piece, until one of them pauses or ends the body. What is left of
    /// `input` is to be delivered later.
    fn deliver<S>(&mut self, state: &mut S, input: &mut &[u8], cx: &mut Context<'_, S>) -> Flow
    where
        F: FnMut(&mut S, &[u8], &mut Context<'_, S>) -> Flow,
    {
        loop {
            let flow = match self.splitter.next(input) {
                Step::NeedsInput => return Flow::Stream,
                Step::Line(line) => (self.on_line)(state, line, cx),
                Step::TooLong { seen } => {
                    self.begin(Reading::TooLong { seen });
                    return Flow::Abort;
                }
            };
            match flow {
                // A canceled chain gets no more lines.
                Flow::Stream | Flow::Buffer if !cx.is_cancelled() => {}
                flow => return flow,
            }
        }
    }

    /// Delivers what is left at the end of a body: the lines that a pause has held back, if the
    /// policy has shown the body only at its end, and a last line without an end.
    fn deliver_rest<S>(&mut self, state: &mut S, cx: &mut Context<'_, S>)
    where
        F: FnMut(&mut S, &[u8], &mut Context<'_, S>) -> Flow,
    {
        if let Some(rest) = self.rest.take() {
            let mut input = rest.bytes();
            loop {
                match self.deliver(state, &mut input, cx) {
                    Flow::Pause => {}
                    Flow::Stream | Flow::Buffer => break,
                    Flow::Discard | Flow::Abort | Flow::Finish => return,
                }
            }
        }
        if let Some(line) = self.splitter.last_line()
            && !cx.is_cancelled()
        {
            // Nothing is left that it could end.
            let _ = (self.on_line)(state, &line, cx);
        }
    }

    /// Begins to read a response.
    fn begin(&mut self, reading: Reading) {
        self.splitter.begin();
        self.rest = None;
        self.reading = reading;
    }
}

impl<S, F, R> Readback<S> for Lines<F, R>
where
    F: FnMut(&mut S, &[u8], &mut Context<'_, S>) -> Flow,
    R: Readback<S>,
{
    fn on_interim(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) {
        if self.then.reads_heads() {
            self.then.on_interim(state, head, cx);
        }
    }

    fn on_head(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        if head.status().is_success() {
            self.begin(Reading::Lines);
            return Flow::Stream;
        }
        self.begin(Reading::Other);
        if self.then.reads_heads() {
            self.then.on_head(state, head, cx)
        } else {
            Flow::Buffer
        }
    }

    fn on_data(&mut self, state: &mut S, data: &[u8], cx: &mut Context<'_, S>) -> Flow {
        match self.reading {
            Reading::Lines => {
                let mut input = data;
                let flow = self.deliver(state, &mut input, cx);
                if flow == Flow::Pause {
                    self.rest = Rest::of(input);
                }
                if let Flow::Discard | Flow::Finish = flow {
                    self.begin(Reading::Nothing);
                }
                flow
            }
            Reading::Other => self.then.on_data(state, data, cx),
            Reading::Nothing | Reading::TooLong { .. } => Flow::Stream,
        }
    }

    fn on_resume(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Flow {
        if let Reading::Other = self.reading {
            return self.then.on_resume(state, cx);
        }
        let Some(rest) = self.rest.take() else {
            return Flow::Stream;
        };
        let mut input = rest.bytes();
        let flow = self.deliver(state, &mut input, cx);
        let left = input.len();
        if flow == Flow::Pause {
            self.rest = rest.leave(left);
        }
        if let Flow::Discard | Flow::Finish = flow {
            self.begin(Reading::Nothing);
        }
        flow
    }

    fn on_due(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        self.then.on_due(state, cx)
    }

    fn on_retry(
        &mut self,
        state: &mut S,
        why: Outcome<'_>,
        after: Duration,
        cx: &mut Context<'_, S>,
    ) {
        self.then.on_retry(state, why, after, cx);
    }

    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        if reply.is_ok() {
            self.deliver_rest(state, cx);
        }
        let reply = match self.reading {
            Reading::TooLong { seen } => {
                let limit = self.splitter.most;
                broken_off(reply, Violation::LineTooLong { limit, seen })
            }
            _ => reply,
        };
        self.begin(Reading::Nothing);
        self.then.on_reply(state, reply, cx)
    }
}

impl<F, R> fmt::Debug for Lines<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("max_bytes", &self.splitter.most)
            .finish_non_exhaustive()
    }
}

/// What follows in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    /// The input is used up.
    NeedsInput,
    Line(&'a [u8]),
    /// A line exceeds the limit. Its part so far has this many bytes.
    TooLong {
        seen: usize,
    },
}

/// Divides pieces of a body into lines. The result does not depend on where the pieces end.
struct Splitter {
    /// The part of a line that earlier pieces contained. Freed when there is none.
    line: Vec<u8>,
    /// `line` is a whole line, which has been lent.
    is_lent: bool,
    most: usize,
}

impl Splitter {
    fn new() -> Self {
        Self {
            line: Vec::new(),
            is_lent: false,
            most: 1 << 20,
        }
    }

    fn begin(&mut self) {
        (self.line, self.is_lent) = (Vec::new(), false);
    }

    /// Consumes input up to the end of a line.
    fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Step<'a> {
        if std::mem::take(&mut self.is_lent) {
            self.line.clear();
        }
        let end = input.iter().position(|&b| b == b'\n');
        let (piece, after) = input.split_at(end.unwrap_or(input.len()));
        let seen = self.line.len() + piece.len();
        // A CR may belong to the end of the line.
        let last = piece.last().or(self.line.last());
        let len = seen - usize::from(last == Some(&b'\r'));
        if len > self.most {
            return Step::TooLong { seen };
        }
        let Some((_, after)) = after.split_first() else {
            *input = after;
            if seen == 0 {
                // An idle body keeps no buffer.
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(piece);
            }
            return Step::NeedsInput;
        };
        *input = after;
        if self.line.is_empty() {
            return Step::Line(&piece[..len]);
        }
        self.line.extend_from_slice(piece);
        self.is_lent = true;
        Step::Line(&self.line[..len])
    }

    /// Returns the last line of a body, if it has no end.
    fn last_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let is_new = !std::mem::take(&mut self.is_lent);
        (is_new && !line.is_empty()).then_some(line)
    }
}

/// The lines of a body, for a task.
///
/// What counts as a line is described at [`Lines`]. The lines that the task has not taken wait in a
/// queue. When it is full, the body is read no further until the task has taken them. Dropping the
/// `Stream` ends the chain that reads it.
///
/// ```
/// use httpstream::lines::Stream;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Error, Local, Request, Sim};
///
/// async fn count(http: Local<usize>) -> Result<(), Error> {
///     let log = Request::get("http://10.0.0.1/log").timeouts(|t| t.total = None).build()?;
///     let mut lines = Stream::open(&http, log);
///     while let Some(line) = lines.next().await {
///         let bytes = line?.len();
///         http.with(move |seen, _| *seen += bytes).await?;
///     }
///     Ok(())
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("one\ntwo\nthree\n"));
/// let mut engine = Engine::<usize, Sim>::on_network(&network, Config::default())?;
/// let http = engine.local();
/// engine.spawn(async {
///     if let Err(error) = count(http).await {
///         eprintln!("{error:#}");
///     }
/// });
/// let mut seen = 0;
/// engine.run(&mut seen)?;
/// assert_eq!(seen, 11);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping the stream ends it"]
pub struct Stream {
    lines: Taker<Vec<u8>>,
}

impl Stream {
    /// Sends `request` and reads the lines of its response, which may have up to 1 MiB each.
    pub fn open<S: 'static>(local: &Local<S>, request: Request) -> Self {
        Self::builder().open(local, request)
    }

    /// Begins a stream with other settings than the defaults.
    pub fn builder() -> StreamBuilder {
        StreamBuilder { max_bytes: None }
    }

    /// Waits for the next line. Returns `None` after the last one, and after an error. No line is
    /// lost if the future is dropped.
    ///
    /// # Errors
    /// - Those of the exchange; [`Cancelled`](crate::ErrorKind::Cancelled) if the chain was
    ///   canceled.
    /// - [`Status`](crate::ErrorKind::Status) if the status of the response is not 2xx.
    /// - [`TooLarge`](crate::ErrorKind::TooLarge) if a line is longer than
    ///   [`max_bytes`](StreamBuilder::max_bytes).
    /// - [`Gone`](crate::ErrorKind::Gone) if the engine has been dropped.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        self.lines.next().await
    }
}

/// The settings of a [`Stream`].
///
/// ```
/// use httpstream::lines::Stream;
/// use httpstream::{Local, Request};
///
/// fn read(http: &Local<()>, log: Request) -> Stream {
///     Stream::builder().max_bytes(4096).open(http, log)
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a stream is opened by `open`"]
pub struct StreamBuilder {
    max_bytes: Option<usize>,
}

impl StreamBuilder {
    /// Sets the most bytes that a line may have; see [`Lines::max_bytes`].
    pub fn max_bytes(mut self, most: usize) -> Self {
        self.max_bytes = Some(most);
        self
    }

    /// Opens the stream; see [`Stream::open`].
    pub fn open<S: 'static>(self, local: &Local<S>, request: Request) -> Stream {
        let lines = queue(local, |feeder| {
            let feeder = Rc::new(feeder);
            let end = Rc::clone(&feeder);
            let on_line = move |_: &mut S, line: &[u8], _: &mut Context<'_, S>| {
                feeder.push(line.to_vec(), line.len())
            };
            let then = move |_: &mut S, reply: Reply<'_>, _: &mut Context<'_, S>| {
                end.end(match reply {
                    Ok(response) if response.status().is_success() => None,
                    Ok(response) => Some(Error::of_status(&response)),
                    Err(error) => Some(error),
                });
                Next::done()
            };
            let mut lines = Lines::new(on_line).then(then);
            if let Some(most) = self.max_bytes {
                lines = lines.max_bytes(most);
            }
            local.start(Next::send(request).read_to(lines))
        });
        Stream { lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines of pieces, or how many bytes a line had that was too long.
    fn lines<'p>(
        pieces: impl IntoIterator<Item = &'p [u8]>,
        most: usize,
    ) -> Result<Vec<Vec<u8>>, ()> {
        let mut splitter = Splitter::new();
        splitter.most = most;
        let mut found = Vec::new();
        for piece in pieces {
            let mut input = piece;
            loop {
                match splitter.next(&mut input) {
                    Step::NeedsInput => break,
                    Step::Line(line) => found.push(line.to_vec()),
                    Step::TooLong { seen } => {
                        assert!(seen > most);
                        return Err(());
                    }
                }
            }
            assert!(input.is_empty());
        }
        found.extend(splitter.last_line());
        Ok(found)
    }

    /// Calls `check` with the pieces of `wire` in every division into three, and byte by byte.
    fn every_split(wire: &[u8], mut check: impl FnMut(&[&[u8]])) {
        for i in 0..=wire.len() {
            for j in i..=wire.len() {
                check(&[&wire[..i], &wire[i..j], &wire[j..]]);
            }
        }
        check(&wire.chunks(1).collect::<Vec<_>>());
    }

    type Row = (&'static str, &'static [u8], &'static [&'static [u8]]);

    #[test]
    fn lines_end_with_lf_or_crlf() {
        #[rustfmt::skip]
        let rows: &[Row] = &[
            ("nothing", b"", &[]),
            ("a line", b"abc\n", &[b"abc"]),
            ("two lines", b"abc\nde\n", &[b"abc", b"de"]),
            ("CRLF", b"abc\r\nde\r\n", &[b"abc", b"de"]),
            ("the last line without an end", b"abc\nde", &[b"abc", b"de"]),
            ("empty lines", b"\n\r\na\n\n", &[b"", b"", b"a", b""]),
            ("a CR alone is no end", b"a\rb\n\rc\n", &[b"a\rb", b"\rc"]),
            ("one CR belongs to the end", b"a\r\r\n", &[b"a\r"]),
            ("a CR at the end of the body", b"a\r", &[b"a\r"]),
            ("bytes that are not UTF-8", b"\xff\0\n\x80\n", &[b"\xff\0", b"\x80"]),
        ];
        for (why, wire, expected) in rows {
            every_split(wire, |pieces| {
                let found = lines(pieces.iter().copied(), 1 << 20);
                assert_eq!(
                    found.as_deref(),
                    Ok(&expected
                        .iter()
                        .map(|line| line.to_vec())
                        .collect::<Vec<_>>()[..]),
                    "{why}: {pieces:?}"
                );
            });
        }
    }

    #[test]
    fn the_end_of_a_line_does_not_count() {
        #[rustfmt::skip]
        let rows: &[(&str, &[u8], bool)] = &[
            ("as long as allowed", b"abcd\n", true),
            ("with CRLF", b"abcd\r\n", true),
            ("without an end", b"abcd", true),
            ("each by itself", b"abcd\nabcd\r\nabcd", true),
            ("too long", b"abcde\n", false),
            ("too long with CRLF", b"abcde\r\n", false),
            ("too long without an end", b"abcde", false),
            ("a CR that does not end it", b"abcd\r\r\n", false),
            ("a CR within", b"abcd\rx", false),
            ("the second line", b"a\nbcdef", false),
        ];
        for (why, wire, is_right) in rows {
            every_split(wire, |pieces| {
                let found = lines(pieces.iter().copied(), 4);
                assert_eq!(found.is_ok(), *is_right, "{why}: {pieces:?}");
            });
        }
    }

    #[test]
    fn random_bytes_are_divided_as_by_a_model() {
        for seed in 1..2000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut below = |most: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 16) as usize % most
            };
            let len = below(40);
            let wire: Vec<u8> = (0..len).map(|_| b"\r\n\nab"[below(5)]).collect();
            // Ends with an LF, or has one more line.
            let mut expected: Vec<&[u8]> = wire.split(|&b| b == b'\n').collect();
            let last = expected.pop().unwrap();
            let mut expected: Vec<&[u8]> = expected
                .into_iter()
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
                .collect();
            expected.extend((!last.is_empty()).then_some(last));

            let mut pieces = Vec::new();
            let mut rest = &wire[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + below(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let found = lines(pieces, 1000).unwrap();
            assert_eq!(found, expected, "seed {seed}");
        }
    }

    #[test]
    fn no_buffer_is_kept_between_lines() {
        let mut splitter = Splitter::new();
        for piece in [&b"abc"[..], b"def\n"] {
            let mut input = piece;
            while splitter.next(&mut input) != Step::NeedsInput {}
        }
        assert_eq!(splitter.line.capacity(), 0);
    }
}
