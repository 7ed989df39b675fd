//! Runs a hundred paused exchanges and a hundred held polls, with little other work. Once all of
//! them wait, counts the wakeups of the host.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use httpstream::{ChainId, Context, Engine, Flow, Mode, Next, Readback, Reply, Request, Response};

use super::program::Job;

/// Number of paused exchanges, and of held polls.
const WAITING: usize = 100;
/// Number of polls that are answered one after the other. The others are held until after the end.
const ANSWERED: u32 = 8;
const ANSWER: Duration = Duration::from_millis(450);
const BEAT: Duration = Duration::from_millis(250);
/// Time between the checks whether everything has settled.
const SETTLE: Duration = Duration::from_secs(1);
const COUNT: Duration = Duration::from_millis(2500);
const HOLD: Duration = Duration::from_secs(60);

pub(super) struct Idle {
    addr: SocketAddr,
    waiting: Vec<ChainId>,
    /// The number of paused exchanges.
    paused: usize,
    /// The number of the host's wakeups when the count began; at the end, those since then.
    wakeups: u64,
    /// The number of responses, and of expired delays, since the count began: the reasons for a
    /// host to wake up.
    reasons: u64,
}

impl Idle {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            waiting: Vec::new(),
            paused: 0,
            wakeups: 0,
            reasons: 0,
        }
    }

    pub(super) fn begin<M: Mode>(&mut self, engine: &mut Engine<Job, M>) {
        for _ in 0..WAITING {
            let flood = engine.submit_to(self.get("/flood"), Pausing);
            self.waiting.push(flood);
        }
        for i in 1..=WAITING as u32 {
            let held = match i {
                0..=ANSWERED => ANSWER * i,
                _ => HOLD,
            };
            let poll = self.get(&format!("/held/{}", held.as_millis()));
            self.waiting.push(engine.submit(poll, on_poll));
        }
        let request = self.get("/beat");
        self.waiting
            .push(engine.start(Next::call(|job, cx| beat(job, cx, request)).after(BEAT)));
        engine.start(Next::call(settle).after(SETTLE));
    }

    fn get(&self, path: &str) -> Request {
        let request = Request::get(format!("http://{}{path}", self.addr));
        request.long_poll(HOLD).build().expect("only numbers vary")
    }

    /// Prints the counts. Returns whether the host woke up no more often than there was a reason
    /// to, and all exchanges that should pause were paused.
    pub(super) fn tell(&self) -> io::Result<bool> {
        let (wakeups, reasons, paused) = (self.wakeups, self.reasons, self.paused);
        writeln!(
            io::stdout(),
            "{wakeups} wakeups, {reasons} reasons, {paused} paused"
        )?;
        Ok(wakeups <= reasons && paused == WAITING)
    }
}

/// Starts the count one second or more after all exchanges have paused.
fn settle(job: &mut Job, _: &mut Context<'_, Job>) -> Next<Job> {
    match job.idle() {
        None => Next::done(),
        Some((idle, _)) if idle.paused < WAITING => Next::call(settle).after(SETTLE),
        Some(_) => Next::call(begin_to_count).after(SETTLE),
    }
}

fn begin_to_count(job: &mut Job, _: &mut Context<'_, Job>) -> Next<Job> {
    if let Some((idle, wakeups)) = job.idle() {
        idle.wakeups = wakeups;
        idle.reasons = 0;
    }
    Next::call(end).after(COUNT)
}

fn end(job: &mut Job, cx: &mut Context<'_, Job>) -> Next<Job> {
    if let Some((idle, wakeups)) = job.idle() {
        idle.wakeups = wakeups - idle.wakeups;
        // This call's own delay is a reason too.
        idle.reasons += 1;
        for id in idle.waiting.drain(..) {
            cx.cancel(id);
        }
    }
    Next::done()
}

fn on_poll(job: &mut Job, reply: Reply<'_>, _: &mut Context<'_, Job>) -> Next<Job> {
    if let (Ok(_), Some((idle, _))) = (reply, job.idle()) {
        idle.reasons += 1;
    }
    Next::done()
}

/// Runs when the delay has expired.
fn beat(job: &mut Job, cx: &mut Context<'_, Job>, request: Request) -> Next<Job> {
    if let Some((idle, _)) = job.idle() {
        idle.reasons += 1;
    }
    cx.send(request).read_by(on_beat)
}

fn on_beat(job: &mut Job, reply: Reply<'_>, _: &mut Context<'_, Job>) -> Next<Job> {
    let (Ok(response), Some((idle, _))) = (reply, job.idle()) else {
        return Next::done();
    };
    idle.reasons += 1;
    let request = response.info().request().clone();
    Next::call(|job: &mut Job, cx| beat(job, cx, request)).after(BEAT)
}

/// Takes one piece and then pauses forever.
struct Pausing;

impl Readback<Job> for Pausing {
    fn on_head(&mut self, _: &mut Job, _: &Response<'_>, _: &mut Context<'_, Job>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, job: &mut Job, _: &[u8], _: &mut Context<'_, Job>) -> Flow {
        if let Some((idle, _)) = job.idle() {
            idle.paused += 1;
        }
        Flow::Pause
    }

    fn on_reply(&mut self, _: &mut Job, _: Reply<'_>, _: &mut Context<'_, Job>) -> Next<Job> {
        Next::done()
    }
}
