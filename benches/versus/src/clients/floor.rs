//! The floor, which no client can be far below: a slab, one edge-triggered registration,
//! pre-serialized bytes, one send and one recv per request, httparse, and nothing more: no
//! deadlines, no queue, no retry, no limits.
//!
//! A body is counted where it was read, except for collected bodies that do not arrive with their
//! head: the rest of these is read straight to its place, into memory that is reused.

use std::error::Error;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::ask::{self, Holding, Resting, Tally, not_applicable};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One buffer for all connections. 64 to 256 KiB perform equally well.
const READ_BUFFER: usize = 128 << 10;
const MAX_FIELDS: usize = 64;

pub(crate) fn run(job: &Job) -> Result<Cost> {
    match job.workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Delayed => ask(job),
        Workload::Held => hold(job),
        Workload::Tls => not_applicable("it has no TLS"),
        Workload::Pipelined { .. } => not_applicable("unpipelined it is the measure"),
    }
}

fn ask(job: &Job) -> Result<Cost> {
    let mut floor = Floor::new(job, job.workload)?;
    let mut beside = Floor::new(job, Workload::Held)?;
    beside.open_and_hold(job, job.held)?;
    for connection in 0..job.connections {
        floor.ask_anew(connection)?;
    }
    let mut events = Events::with_capacity(1024);
    while !floor.tally.is_over() {
        let timeout = floor.resting.next_deadline();
        let timeout = timeout.map(|due| due.saturating_duration_since(Instant::now()));
        floor.turn(&mut events, timeout)?;
    }
    floor.tally.cost()
}

fn hold(job: &Job) -> Result<Cost> {
    let mut floor = Floor::new(job, Workload::Held)?;
    let meter = Meter::start();
    floor.open_and_hold(job, job.connections)?;
    Ok(meter.stop(job.connections as u64))
}

struct Floor {
    workload: Workload,
    tally: Tally,
    poll: Poll,
    links: Slab<Link>,
    /// The bytes to send, by server.
    requests: Vec<(SocketAddr, Vec<u8>)>,
    buffer: Box<[u8]>,
    /// Memory for collected bodies: as many as are ever under way at once.
    spare: Vec<Vec<u8>>,
    resting: Resting,
}

struct Link {
    socket: TcpStream,
    state: State,
    /// Which of the servers it is connected to.
    server: u32,
}

enum State {
    /// The socket has not taken the request yet.
    Connecting,
    /// A head, or chunks, that arrived incompletely; almost always empty.
    Head(Vec<u8>),
    Counting {
        left: usize,
    },
    Collecting {
        body: Vec<u8>,
        filled: usize,
    },
}

/// The result of parsing the bytes that a link has read.
enum Read1 {
    More(State),
    Whole { status: u16, body_len: usize },
}

impl Floor {
    fn new(job: &Job, workload: Workload) -> Result<Self> {
        let requests = job.servers.iter().map(|server| {
            let path = ask::path(workload);
            let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nAccept: */*\r\n\r\n");
            (*server, request.into_bytes())
        });
        Ok(Self {
            workload,
            tally: Tally::new(job),
            poll: Poll::new()?,
            links: Slab::new(),
            requests: requests.collect(),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            spare: Vec::new(),
            resting: Resting::default(),
        })
    }

    /// Opens `count` connections, each with a request that is not answered.
    fn open_and_hold(&mut self, job: &Job, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let mut holding = Holding::new(job, count)?;
        let mut events = Events::with_capacity(1024);
        for connection in 0..count {
            self.open(connection)?;
        }
        while !holding.is_complete()? {
            self.turn(&mut events, Some(Holding::PAUSE))?;
        }
        Ok(())
    }

    /// Sends the next request on a new connection, if there is one.
    fn ask_anew(&mut self, connection: usize) -> Result<()> {
        match self.tally.send() {
            true => self.open(connection),
            false => Ok(()),
        }
    }

    fn open(&mut self, connection: usize) -> Result<()> {
        let server = connection % self.requests.len();
        let mut socket = TcpStream::connect(self.requests[server].0)?;
        let entry = self.links.vacant_entry();
        // Sent before the connection is established, which usually succeeds on loopback.
        let state = match send(&mut socket, &self.requests[server].1)? {
            true => State::Head(Vec::new()),
            false => State::Connecting,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, Token(entry.key()), interest)?;
        entry.insert(Link {
            socket,
            state,
            server: server as u32,
        });
        Ok(())
    }

    fn turn(&mut self, events: &mut Events, timeout: Option<std::time::Duration>) -> Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in events.iter() {
            self.on_event(event.token().0)?;
        }
        if self.workload == Workload::Delayed {
            let now = Instant::now();
            while let Some(key) = self.resting.take_due(now) {
                self.ask_again(key)?;
            }
        }
        Ok(())
    }

    fn on_event(&mut self, key: usize) -> Result<()> {
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
        if let State::Connecting = link.state {
            if !send(&mut link.socket, &self.requests[link.server as usize].1)? {
                return Ok(());
            }
            link.state = State::Head(Vec::new());
        }
        while let Some(link) = self.links.get_mut(key) {
            let (room, place) = match &mut link.state {
                State::Collecting { body, filled } => (body.len() - *filled, &mut body[*filled..]),
                _ => (self.buffer.len(), &mut self.buffer[..]),
            };
            let n = match link.socket.read(place) {
                Ok(0) => return self.on_closed(key),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                n => n?,
            };
            self.on_bytes(key, n)?;
            // A short read: the socket is empty, and the next edge will signal more.
            if n < room {
                return Ok(());
            }
        }
        Ok(())
    }

    fn on_bytes(&mut self, key: usize, n: usize) -> Result<()> {
        let link = &mut self.links[key];
        let state = std::mem::replace(&mut link.state, State::Counting { left: 0 });
        let read = match state {
            State::Connecting => return Err("bytes before the request".into()),
            State::Head(kept) if kept.is_empty() => {
                read_head(&self.buffer[..n], self.workload, &mut self.spare)?
            }
            State::Head(mut kept) => {
                kept.extend_from_slice(&self.buffer[..n]);
                read_head(&kept, self.workload, &mut self.spare)?
            }
            State::Counting { left } if left > n => Read1::More(State::Counting { left: left - n }),
            State::Counting { .. } => Read1::whole(self.workload),
            State::Collecting { body, filled } if filled + n < body.len() => {
                let filled = filled + n;
                Read1::More(State::Collecting { body, filled })
            }
            State::Collecting { body, .. } => {
                self.spare.push(body);
                Read1::whole(self.workload)
            }
        };
        match read {
            Read1::More(state) => {
                link.state = state;
                Ok(())
            }
            Read1::Whole { status, body_len } => {
                link.state = State::Head(Vec::new());
                self.tally.on_answer(status, body_len);
                self.on_whole(key)
            }
        }
    }

    fn on_whole(&mut self, key: usize) -> Result<()> {
        match self.workload {
            Workload::Close => {
                let link = self.links.remove(key);
                self.ask_anew(link.server as usize)
            }
            Workload::Delayed => {
                self.resting.push(key);
                Ok(())
            }
            _ => self.ask_again(key),
        }
    }

    fn ask_again(&mut self, key: usize) -> Result<()> {
        if !self.tally.send() {
            return Ok(());
        }
        let link = &mut self.links[key];
        match send(&mut link.socket, &self.requests[link.server as usize].1)? {
            true => Ok(()),
            false => Err("the socket does not take a request".into()),
        }
    }

    fn on_closed(&mut self, key: usize) -> Result<()> {
        self.links.remove(key);
        Err("the server closed the connection".into())
    }
}

impl Read1 {
    /// Ends an answer whose head was good, or whose body was not awaited.
    fn whole(workload: Workload) -> Self {
        Self::Whole {
            status: 200,
            body_len: ask::body_len(workload),
        }
    }
}

/// Returns whether the socket took the request.
fn send(socket: &mut TcpStream, request: &[u8]) -> Result<bool> {
    match socket.write(request) {
        Ok(n) if n == request.len() => Ok(true),
        Ok(_) => Err("the socket took a part of a request".into()),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => Ok(false),
            _ => Err(error.into()),
        },
    }
}

/// Parses the head of an answer, and the part of its body that has arrived.
fn read_head(bytes: &[u8], workload: Workload, spare: &mut Vec<Vec<u8>>) -> Result<Read1> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut fields,
    )?;
    let incomplete = || Ok(Read1::More(State::Head(bytes.to_vec())));
    let httparse::Status::Complete(head_len) = parsed else {
        return incomplete();
    };
    let status = response.code.unwrap_or(0);
    let body = &bytes[head_len..];
    let length = match body_length(response.headers)? {
        Length::Bytes(length) => length,
        Length::Chunked => {
            return match chunks(body)? {
                Some(body_len) => Ok(Read1::Whole { status, body_len }),
                None => incomplete(),
            };
        }
    };
    if status != 200 {
        return Err(format!("status {status}").into());
    }
    if body.len() >= length {
        return Ok(Read1::Whole {
            status,
            body_len: length,
        });
    }
    let state = match workload {
        Workload::Large | Workload::Huge => {
            let mut collected = spare.pop().unwrap_or_default();
            // This allocates only the first time, since all bodies have the same length.
            collected.resize(length, 0);
            collected[..body.len()].copy_from_slice(body);
            State::Collecting {
                body: collected,
                filled: body.len(),
            }
        }
        _ => State::Counting {
            left: length - body.len(),
        },
    };
    Ok(Read1::More(state))
}

enum Length {
    Bytes(usize),
    Chunked,
}

/// Compares the length of names first.
fn body_length(fields: &[httparse::Header<'_>]) -> Result<Length> {
    for field in fields {
        if field.name.len() == 14 && field.name.eq_ignore_ascii_case("content-length") {
            return Ok(Length::Bytes(std::str::from_utf8(field.value)?.parse()?));
        }
        if field.name.len() == 17 && field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Length::Chunked);
        }
    }
    Err("an answer without a length".into())
}

/// Returns the length of the body, if all chunks have arrived.
fn chunks(mut bytes: &[u8]) -> Result<Option<usize>> {
    let mut body_len = 0;
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(bytes) else {
            return Ok(None);
        };
        let size = usize::try_from(size)?;
        // The chunk, or the trailer section, which is empty; and CRLF.
        let Some(rest) = bytes.get(line + size + 2..) else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body_len));
        }
        body_len += size;
        bytes = rest;
    }
}
