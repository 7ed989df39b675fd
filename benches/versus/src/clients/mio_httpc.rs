//! mio_httpc on a mio poll of its own: its simple calls for collected bodies, its streaming calls
//! for the others.
//!
//! A call lasts for one request and is found by its reference, for which the documentation
//! recommends a map with a fast hash. The client keeps one idle connection per host, so a
//! connection is reused only if its next request follows at once. That is the case here except for
//! delayed requests: with more of these than hosts, most would connect again. Body buffers are
//! returned to the client, and timeouts are checked as often as its documentation recommends.

use std::collections::HashMap;
use std::error::Error;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use ::mio_httpc::{
    Call, CallBuilder, CallRef, Httpc, RecvState, ResponseBody, SendState, SimpleCall,
};
use mio::{Events, Poll, Registry};

use super::ask::{self, Holding, Resting, Tally, not_applicable};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The first of its 65,536 tokens.
const FIRST_TOKEN: usize = 0;

/// The interval between checks of timeouts.
const TIMEOUTS: Duration = Duration::from_millis(100);

pub(crate) fn run(job: &Job) -> Result<Cost> {
    match job.workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close => ask(job),
        Workload::Delayed if job.connections <= job.servers.len() => ask(job),
        Workload::Delayed => not_applicable("it keeps one idle connection for each host"),
        Workload::Held => hold(job),
        Workload::Tls => not_applicable("built without TLS; hyper with rustls is measured instead"),
        Workload::Pipelined { .. } => not_applicable("it does not pipeline"),
    }
}

fn ask(job: &Job) -> Result<Cost> {
    let mut asking = Asking::new(job)?;
    let mut events = Events::with_capacity(1024);
    for connection in 0..job.connections {
        asking.go_on(connection)?;
    }
    while !asking.tally.is_over() {
        let rested = asking.resting.next_deadline();
        asking.turn(&mut events, rested)?;
        while let Some(connection) = asking.resting.take_due(Instant::now()) {
            asking.go_on(connection)?;
        }
    }
    asking.tally.cost()
}

fn hold(job: &Job) -> Result<Cost> {
    let mut asking = Asking::new(job)?;
    let mut events = Events::with_capacity(1024);
    let mut holding = Holding::new(job, job.connections)?;
    let meter = Meter::start();
    for connection in 0..job.connections {
        asking.start(connection)?;
    }
    let mut next = Instant::now();
    loop {
        if next <= Instant::now() {
            if holding.is_complete()? {
                break;
            }
            next = Instant::now() + Holding::PAUSE;
        }
        asking.turn(&mut events, Some(next))?;
    }
    Ok(meter.stop(job.connections as u64))
}

struct Asking {
    workload: Workload,
    tally: Tally,
    poll: Poll,
    httpc: Httpc,
    /// By server; requests alternate between them.
    urls: Vec<String>,
    /// Each call with its connection number.
    calls: HashMap<CallRef, (usize, Running), BuildHasherDefault<Multiply>>,
    resting: Resting,
    next_timeouts: Instant,
}

impl Asking {
    fn new(job: &Job) -> Result<Self> {
        Ok(Self {
            workload: job.workload,
            tally: Tally::new(job),
            poll: Poll::new()?,
            httpc: Httpc::new(FIRST_TOKEN, None),
            urls: (0..job.servers.len())
                .map(|server| ask::url(job, server))
                .collect(),
            calls: HashMap::default(),
            resting: Resting::default(),
            next_timeouts: Instant::now() + TIMEOUTS,
        })
    }

    /// Starts the next request, if there is one.
    fn go_on(&mut self, connection: usize) -> Result<()> {
        match self.tally.send() {
            true => self.start(connection),
            false => Ok(()),
        }
    }

    fn start(&mut self, connection: usize) -> Result<()> {
        let url = &self.urls[connection % self.urls.len()];
        let mut builder = CallBuilder::get();
        builder.url(url).map_err(said)?.gzip(false);
        let registry = self.poll.registry();
        let running = match self.workload {
            Workload::HugeStreamed => builder
                .call(&mut self.httpc, registry)
                .map(|call| Running::Streamed(Streamed::new(call))),
            _ => builder
                .simple_call(&mut self.httpc, registry)
                .map(Running::Collected),
        };
        let running = running.map_err(said)?;
        let call = running.call_ref();
        self.calls.insert(call, (connection, running));
        // A reused connection takes the request at once.
        self.perform(call)
    }

    /// Waits for events, at most until `until`.
    fn turn(&mut self, events: &mut Events, until: Option<Instant>) -> Result<()> {
        let until = until.map_or(self.next_timeouts, |until| until.min(self.next_timeouts));
        self.poll.poll(
            events,
            Some(until.saturating_duration_since(Instant::now())),
        )?;
        for event in events.iter() {
            if let Some(call) = self.httpc.event(event) {
                self.perform(call)?;
            }
        }
        let now = Instant::now();
        if self.next_timeouts <= now {
            self.next_timeouts = now + TIMEOUTS;
            if !self.httpc.timeout().is_empty() {
                return Err("a request timed out".into());
            }
        }
        Ok(())
    }

    fn perform(&mut self, call: CallRef) -> Result<()> {
        let Some((connection, running)) = self.calls.get_mut(&call) else {
            return Ok(());
        };
        let connection = *connection;
        match running.perform(&mut self.httpc, self.poll.registry()) {
            Ok(None) => return Ok(()),
            Ok(Some(answer)) => self.tally.on_answer(answer.status, answer.body_len),
            Err(error) => self.tally.on_error(&error),
        }
        self.calls.remove(&call);
        if self.workload == Workload::Delayed {
            self.resting.push(connection);
            return Ok(());
        }
        self.go_on(connection)
    }
}

/// How a call ended.
struct Answer {
    status: u16,
    body_len: usize,
}

/// A call, by what happens to its body.
enum Running {
    Collected(SimpleCall),
    Streamed(Streamed),
}

impl Running {
    fn call_ref(&self) -> CallRef {
        match self {
            Self::Collected(call) => call.call().get_ref(),
            Self::Streamed(streamed) => streamed.call.get_ref(),
        }
    }

    fn perform(&mut self, httpc: &mut Httpc, registry: &Registry) -> Result<Option<Answer>> {
        match self {
            Self::Collected(call) => {
                if !call.perform(httpc, registry).map_err(said)? {
                    return Ok(None);
                }
                let (response, body) = call.finish_inplace().ok_or("no response")?;
                let body_len = body.len();
                httpc.reuse(body);
                Ok(Some(Answer {
                    status: response.status,
                    body_len,
                }))
            }
            Self::Streamed(streamed) => streamed.perform(httpc, registry),
        }
    }
}

/// Follows its example `get_streaming`, except for the end: if a whole body arrives with its head,
/// 0.10.6 returns it again and again, and reports the end only if called without a buffer.
struct Streamed {
    call: Call,
    state: State,
    /// Emptied after each piece.
    piece: Vec<u8>,
    body_len: usize,
}

enum State {
    Sending,
    AwaitingHead,
    Receiving { status: u16, left: usize },
}

impl Streamed {
    fn new(call: Call) -> Self {
        Self {
            call,
            state: State::Sending,
            piece: Vec::new(),
            body_len: 0,
        }
    }

    fn perform(&mut self, httpc: &mut Httpc, registry: &Registry) -> Result<Option<Answer>> {
        if let State::Sending = self.state {
            match httpc.call_send(registry, &mut self.call, None) {
                SendState::Wait => return Ok(None),
                SendState::Receiving => self.state = State::AwaitingHead,
                SendState::Error(error) => return Err(said(error)),
                SendState::SentBody(_) | SendState::WaitReqBody | SendState::Done => {
                    return Err("a request without a body sends one".into());
                }
            }
        }
        loop {
            let whole = matches!(self.state, State::Receiving { left: 0, .. });
            self.piece.clear();
            let into = (!whole).then_some(&mut self.piece);
            let received = httpc.call_recv(registry, &mut self.call, into);
            // Even if this returns `Wait`, it may have returned bytes that came with the head.
            if let State::Receiving { left, .. } = &mut self.state {
                *left = left.checked_sub(self.piece.len()).ok_or("too long")?;
                self.body_len += self.piece.len();
            }
            match received {
                RecvState::Wait => return Ok(None),
                RecvState::ReceivedBody(_) => {}
                RecvState::Response(response, ResponseBody::Sized(left)) => {
                    let status = response.status;
                    self.state = State::Receiving { status, left };
                }
                RecvState::Done | RecvState::DoneWithBody(_) => {
                    let State::Receiving { status, .. } = self.state else {
                        return Err("done without a response".into());
                    };
                    return Ok(Some(Answer {
                        status,
                        body_len: self.body_len,
                    }));
                }
                RecvState::Error(error) => return Err(said(error)),
                RecvState::Response(_, ResponseBody::Streamed) | RecvState::Sending => {
                    return Err("neither chunked nor redirected is asked for".into());
                }
            }
        }
    }
}

/// Its errors do not implement `std::error::Error`.
fn said(error: ::mio_httpc::Error) -> Box<dyn Error> {
    error.to_string().into()
}

/// A fast hash for references, which are consecutive numbers: they are multiplied by the golden
/// ratio, so that the upper bits differ, too.
#[derive(Default)]
struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
