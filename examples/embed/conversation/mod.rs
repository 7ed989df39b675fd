//! A conversation of twenty chains with fifty steps each, which the embed programs run. It goes the
//! same way in every event loop.
//!
//! - here: the client, a plain struct. Its methods read the responses, record a line for each step,
//!   and return the next request.
//! - `script`: the requests and their times; `server`: the responses; `expected`: the expected
//!   lines
//! - `program`: the programs' arguments and the work they select; `idle`: one such kind of work

#![allow(dead_code, reason = "not every program and test uses every part")]

use std::fmt::Write as _;
use std::net::SocketAddr;

use httpstream::{
    ChainId, Context, Engine, ErrorKind, Flow, Mode, Next, Readback, Reply, Request,
    RequestBuilder, Response, Sent, within_call,
};

pub(crate) mod expected;
mod idle;
pub(crate) mod program;
pub(crate) mod script;
pub(crate) mod server;

use script::{Act, CHAINS, Checksum, HOLD, MAX_BODY_BYTES, PATIENCE, PAUSE, Place, STEPS};

/// The client's state: the servers' addresses, and the chains with what they have received.
pub(crate) struct Conversation {
    addr: SocketAddr,
    refused: SocketAddr,
    chains: Vec<Chain>,
}

struct Chain {
    /// The current step.
    place: Place,
    /// The engine's id of this chain, used to cancel it.
    id: Option<ChainId>,
    /// One line for each completed step.
    lines: String,
    /// The part of the current step's line that precedes its outcome.
    so_far: String,
    pieces: Pieces,
}

/// The part of a streamed body that has arrived.
struct Pieces {
    bytes: usize,
    checksum: Checksum,
    pauses: usize,
}

impl Pieces {
    const NONE: Self = Self {
        bytes: 0,
        checksum: Checksum::EMPTY,
        pauses: 0,
    };
}

impl Conversation {
    /// Creates a conversation with the server at `addr`. `refused` is an address that refuses
    /// connections.
    pub(crate) fn new(addr: SocketAddr, refused: SocketAddr) -> Self {
        let chain = |chain| Chain {
            place: Place { chain, step: 0 },
            id: None,
            lines: String::new(),
            so_far: String::new(),
            pieces: Pieces::NONE,
        };
        Self {
            addr,
            refused,
            chains: (0..CHAINS).map(chain).collect(),
        }
    }

    /// Starts all chains. `part` finds the conversation in the host's state.
    pub(crate) fn begin<S: 'static, M: Mode>(
        &mut self,
        engine: &mut Engine<S, M>,
        part: impl Fn(&mut S) -> Option<&mut Self> + Clone + 'static,
    ) {
        for chain in 0..CHAINS {
            let place = Place { chain, step: 0 };
            let first = within_call(part.clone(), self.ask(place));
            self.chains[chain].id = Some(engine.start(Next::call(first).after(place.delay())));
        }
    }

    /// Returns a call that sends the request of a step, with which a chain of the engine begins.
    fn ask(
        &self,
        place: Place,
    ) -> impl FnOnce(&mut Self, &mut Context<'_, Self>) -> Next<Self> + 'static {
        let request = self.request(place);
        move |_, cx| cx.send(request).read_to(Steps { chain: place.chain })
    }

    /// Returns the recorded lines, chain by chain.
    pub(crate) fn transcript(&self) -> String {
        self.chains.iter().map(|chain| &*chain.lines).collect()
    }

    fn request(&self, place: Place) -> Request {
        let Place { chain, step } = place;
        let at = |addr: SocketAddr| format!("http://{addr}/{chain}/{step}");
        let get = || Request::get(at(self.addr));
        let request = match place.act() {
            Act::Whole
            | Act::Chunked
            | Act::Pieces
            | Act::Large
            | Act::Closing
            | Act::UntilClose
            | Act::Interim
            | Act::NoContent
            | Act::NotModified
            | Act::NotFound
            | Act::Busy
            | Act::Elsewhere
            | Act::Paused
            | Act::Abort
            | Act::Malformed
            | Act::Truncated
            | Act::TruncatedChunked
            | Act::Closed => get(),
            Act::Cancelled => get().long_poll(HOLD),
            Act::Head => Request::head(at(self.addr)),
            Act::Echo | Act::ClosedPost => Request::post(at(self.addr)).body(place.body()),
            Act::TooLarge => get().limits(|limits| limits.max_body_bytes = MAX_BODY_BYTES),
            Act::Silence => get().timeouts(|timeouts| timeouts.first_byte = Some(PATIENCE)),
            Act::Refused => Request::get(at(self.refused)),
        };
        build(request)
    }

    fn on_step(
        &mut self,
        chain: usize,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        let place = self.chains[chain].place;
        let outcome = match &reply {
            Ok(response) => self.answered(place, response),
            Err(error) => failed(error),
        };
        self.chains[chain].so_far += &outcome;
        match (place.act(), reply) {
            (Act::Busy, Ok(response)) if response.status() == 503 => {
                self.chains[chain].so_far += ", again: ";
                return Next::again();
            }
            (Act::Elsewhere, Ok(response)) => {
                let Checksum(sum) = Checksum::of(response.body());
                let url = response.info().url().to_string();
                let told = build(Request::post(&url).body(format!("{sum:08x}")));
                self.chains[chain].so_far += ", elsewhere: ";
                return Next::send(told).read_by(move |conversation: &mut Self, reply, cx| {
                    conversation.on_elsewhere(chain, reply, cx)
                });
            }
            (Act::Cancelled, Ok(response)) if response.status() == 200 => {
                let held = place.partner().chain;
                if self.chains[held].id.is_some_and(|id| cx.cancel(id)) {
                    let _ = write!(self.chains[chain].so_far, ", cancelled chain {held:02}");
                }
            }
            _ => {}
        }
        self.next_step(chain, cx)
    }

    fn on_elsewhere(
        &mut self,
        chain: usize,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        let outcome = match &reply {
            Ok(response) => answer(response),
            Err(error) => failed(error),
        };
        self.chains[chain].so_far += &outcome;
        self.next_step(chain, cx).read_to(Steps { chain })
    }

    /// Records the line of the completed step, and returns the next step's request.
    fn next_step(&mut self, chain: usize, cx: &mut Context<'_, Self>) -> Next<Self> {
        let was = &mut self.chains[chain];
        let Place { step, .. } = was.place;
        let after = was.place.delay_ms();
        let outcome = std::mem::take(&mut was.so_far);
        let _ = writeln!(
            was.lines,
            "chain {chain:02} step {step:02} after {after} ms: {outcome}"
        );
        was.pieces = Pieces::NONE;
        if step + 1 == STEPS {
            return Next::done();
        }
        let was_held = was.place.is_held();
        was.place.step += 1;
        let place = was.place;
        if was_held {
            // The canceled chain ends whatever it returns, so the steps continue in a new chain.
            let id = cx.start(Next::call(self.ask(place)).after(place.delay()));
            self.chains[chain].id = Some(id);
            return Next::done();
        }
        Next::send(self.request(place)).after(place.delay())
    }

    /// Describes a response, including what its act adds.
    fn answered(&self, place: Place, response: &Response<'_>) -> String {
        match place.act() {
            Act::Chunked => {
                let mut trailers = response.trailers();
                let step = trailers.find(|(name, _)| name.eq_ignore_ascii_case("x-step"));
                let step = step.map_or("none".into(), |(_, value)| String::from_utf8_lossy(value));
                format!("{}, trailer {step}", answer(response))
            }
            Act::Head => {
                let length = response.content_length().unwrap_or_default();
                format!("{}, length {length}", answer(response))
            }
            Act::Paused => {
                let pieces = &self.chains[place.chain].pieces;
                let Checksum(sum) = pieces.checksum;
                let (status, bytes, pauses) =
                    (response.status().as_u16(), pieces.bytes, pieces.pauses);
                format!("{status} {bytes} bytes {sum:08x}, paused {pauses} times")
            }
            _ => answer(response),
        }
    }

    /// Pauses the stream, and schedules a call that resumes it.
    fn pause(&mut self, chain: usize, cx: &mut Context<'_, Self>) -> Flow {
        self.chains[chain].pieces.pauses += 1;
        let id = cx.id();
        cx.start(
            Next::call(move |_, cx| {
                cx.resume(id);
                cx.done()
            })
            .after(PAUSE),
        );
        Flow::Pause
    }
}

/// Reads a chain's responses, step after step.
struct Steps {
    chain: usize,
}

impl Readback<Conversation> for Steps {
    fn on_head(
        &mut self,
        conversation: &mut Conversation,
        _: &Response<'_>,
        cx: &mut Context<'_, Conversation>,
    ) -> Flow {
        match conversation.chains[self.chain].place.act() {
            Act::Paused => conversation.pause(self.chain, cx),
            Act::Abort => Flow::Abort,
            _ => Flow::Buffer,
        }
    }

    fn on_data(
        &mut self,
        conversation: &mut Conversation,
        data: &[u8],
        cx: &mut Context<'_, Conversation>,
    ) -> Flow {
        let pieces = &mut conversation.chains[self.chain].pieces;
        let is_first = pieces.bytes == 0;
        pieces.bytes += data.len();
        pieces.checksum = pieces.checksum.and(data);
        match is_first {
            true => conversation.pause(self.chain, cx),
            false => Flow::Stream,
        }
    }

    fn on_reply(
        &mut self,
        conversation: &mut Conversation,
        reply: Reply<'_>,
        cx: &mut Context<'_, Conversation>,
    ) -> Next<Conversation> {
        conversation.on_step(self.chain, reply, cx)
    }
}

fn build(request: RequestBuilder) -> Request {
    request.build().expect("only numbers vary")
}

fn answer(response: &Response<'_>) -> String {
    let (status, body) = (response.status().as_u16(), response.body());
    let Checksum(sum) = Checksum::of(body);
    format!("{status} {} bytes {sum:08x}", body.len())
}

/// Describes an error, leaving out what varies between runs, such as times and ports.
fn failed(error: &httpstream::Error) -> String {
    let kind = error.kind();
    let mut text = match kind {
        // The phase depends on whether the body arrived together with the head.
        ErrorKind::TooLarge => format!("{kind:?} over {MAX_BODY_BYTES}"),
        _ => format!("{kind:?} in {:?}", error.phase()),
    };
    text += match error.request_sent() {
        Sent::No => ", not sent",
        Sent::Maybe => ", maybe sent",
        Sent::Yes => ", sent",
    };
    if error.resend_is_safe() {
        text += ", safe to send again";
    }
    if kind == ErrorKind::Truncated {
        let came = error.partial_body();
        let Checksum(sum) = Checksum::of(came);
        let _ = write!(text, ", {} bytes {sum:08x}", came.len());
    }
    text
}
