//! Code that all clients share: what is requested, what counts as an answer, and when the meter
//! runs.
//!
//! The meter starts with the answer that ends the warm-up and stops with the last one. Connections
//! keep sending requests in between, as they would anyway. So the steady state is measured, and
//! nothing waits for the meter.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

/// The pause between an answer and the next request, for [`Workload::Delayed`].
pub(crate) const DELAY: Duration = Duration::from_millis(1);

/// The workload does not apply to this client, for this reason.
#[derive(Debug)]
pub(crate) struct NotApplicable(pub(crate) String);

impl std::fmt::Display for NotApplicable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not applicable: {}", self.0)
    }
}

impl Error for NotApplicable {}

pub(crate) fn not_applicable<T>(why: &str) -> Result<T, Box<dyn Error>> {
    Err(NotApplicable(why.to_owned()).into())
}

/// Returns the path of the workload at the server.
pub(crate) fn path(workload: Workload) -> &'static str {
    match workload {
        Workload::Small | Workload::Tls | Workload::Pipelined { .. } | Workload::Delayed => {
            "/small"
        }
        Workload::Chunked => "/chunked",
        Workload::Fields => "/fields",
        Workload::Large => "/large",
        Workload::Huge | Workload::HugeStreamed => "/huge",
        Workload::Close => "/close",
        Workload::Held => "/held",
    }
}

fn scheme(workload: Workload) -> &'static str {
    match workload {
        Workload::Tls => "https",
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Pipelined { .. }
        | Workload::Delayed
        | Workload::Held => "http",
    }
}

/// Returns the length of an answer's body, in bytes. Any other answer is wrong.
pub(crate) fn body_len(workload: Workload) -> usize {
    match workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Close
        | Workload::Tls
        | Workload::Pipelined { .. }
        | Workload::Delayed => 128,
        Workload::Large => 64 * 1024,
        Workload::Huge | Workload::HugeStreamed => 1024 * 1024,
        Workload::Held => 0,
    }
}

/// Returns the URL for connection number `connection`. Connections alternate between the server's
/// addresses.
pub(crate) fn url(job: &Job, connection: usize) -> String {
    url_of(job, job.workload, connection)
}

/// The same for another workload.
pub(crate) fn url_of(job: &Job, workload: Workload, connection: usize) -> String {
    let server = job.servers[connection % job.servers.len()];
    format!("{}://{server}{}", scheme(workload), path(workload))
}

/// Counts requests and answers, and owns the meter.
#[derive(Debug)]
pub(crate) struct Tally {
    body_len: usize,
    to_send: usize,
    /// The number of answers, right or wrong, that are still to come.
    to_come: usize,
    /// How many of them are measured.
    requests: usize,
    right: u64,
    meter: Option<Meter>,
    /// If one request is in flight at a time and timed: when it was sent, and how long the others
    /// took.
    latencies: Option<(Instant, Vec<Duration>)>,
    cost: Option<Cost>,
}

impl Tally {
    pub(crate) fn new(job: &Job) -> Self {
        let all = job.warm_up + job.requests;
        let alone = job.timed && job.connections == 1;
        Self {
            body_len: body_len(job.workload),
            to_send: all,
            to_come: all,
            requests: job.requests,
            right: 0,
            meter: (job.warm_up == 0).then(Meter::start),
            latencies: alone.then(|| (Instant::now(), Vec::with_capacity(job.requests))),
            cost: None,
        }
    }

    /// Returns whether another request is to be sent, and counts it.
    pub(crate) fn send(&mut self) -> bool {
        if self.to_send == 0 {
            return false;
        }
        self.to_send -= 1;
        if let Some((sent, _)) = &mut self.latencies {
            *sent = Instant::now();
        }
        true
    }

    /// Counts an answer with this status and a body of this length.
    pub(crate) fn on_answer(&mut self, status: u16, body_len: usize) {
        self.on_end(status == 200 && body_len == self.body_len);
    }

    /// Counts a failure.
    pub(crate) fn on_error(&mut self, error: &dyn std::fmt::Display) {
        if self.right == 0 {
            eprintln!("{error}");
        }
        self.on_end(false);
    }

    fn on_end(&mut self, right: bool) {
        self.to_come -= 1;
        if self.meter.is_some() {
            self.right += u64::from(right);
            if let Some((sent, taken)) = &mut self.latencies {
                taken.push(sent.elapsed());
            }
        }
        if self.to_come == self.requests {
            self.meter = Some(Meter::start());
        }
        if self.to_come == 0 {
            self.cost = self.meter.take().map(|meter| meter.stop(self.right));
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.to_come == 0
    }

    pub(crate) fn cost(&mut self) -> Result<Cost, Box<dyn Error>> {
        let mut cost = self.cost.ok_or("not all requests have ended")?;
        cost.median_latency_seconds = self.latencies.as_mut().and_then(|(_, taken)| {
            taken.sort_unstable();
            Some(taken.get(taken.len() / 2)?.as_secs_f64())
        });
        Ok(cost)
    }
}

/// Connections that pause for [`DELAY`]. Since the delay is the same for all, they are due in the
/// order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Resting(VecDeque<(Instant, usize)>);

impl Resting {
    pub(crate) fn push(&mut self, connection: usize) {
        self.0.push_back((Instant::now() + DELAY, connection));
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.front().map(|&(due, _)| due)
    }

    /// Returns the next connection that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<usize> {
        let &(due, connection) = self.0.front()?;
        if due > now {
            return None;
        }
        self.0.pop_front();
        Some(connection)
    }
}

/// Asks the server how many requests it holds, on a connection of its own.
#[derive(Debug)]
pub(crate) struct Holding {
    server: TcpStream,
    wanted: usize,
    give_up: Instant,
}

impl Holding {
    /// The pause between two questions.
    pub(crate) const PAUSE: Duration = Duration::from_millis(20);

    /// Waits until `wanted` requests are held.
    pub(crate) fn new(job: &Job, wanted: usize) -> io::Result<Self> {
        Self::at(job.servers[0], wanted)
    }

    fn at(server: SocketAddr, wanted: usize) -> io::Result<Self> {
        Ok(Self {
            server: TcpStream::connect(server)?,
            wanted,
            give_up: Instant::now() + Duration::from_secs(60),
        })
    }

    /// Waits until no request is held: after a process has ended, the server takes a while to see
    /// that its connections are closed.
    pub(crate) fn wait_for_none(server: SocketAddr) -> Result<(), Box<dyn Error>> {
        let mut holding = Self::at(server, 0)?;
        while holding.held()? > 0 {
            if Instant::now() > holding.give_up {
                return Err("the server still holds requests of clients that have ended".into());
            }
            std::thread::sleep(Self::PAUSE);
        }
        Ok(())
    }

    /// Returns whether the server holds all requests. Fails if it does not after a minute.
    pub(crate) fn is_complete(&mut self) -> Result<bool, Box<dyn Error>> {
        let held = self.held()?;
        if held < self.wanted && Instant::now() > self.give_up {
            return Err(format!("only {held} of {} requests are held", self.wanted).into());
        }
        Ok(held >= self.wanted)
    }

    /// Returns how many requests the server holds.
    pub(crate) fn held(&mut self) -> Result<usize, Box<dyn Error>> {
        self.server
            .write_all(b"GET /holding HTTP/1.1\r\nHost: server\r\n\r\n")?;
        // Small answers of this server arrive in one piece.
        let mut answer = [0; 1024];
        let n = self.server.read(&mut answer)?;
        let text = std::str::from_utf8(&answer[..n])?;
        let (_, body) = text.split_once("\r\n\r\n").ok_or("incomplete answer")?;
        Ok(body.trim().parse()?)
    }
}
