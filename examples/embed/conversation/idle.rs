//! A hundred paused exchanges and a hundred held polls, beside which next to nothing happens. What
//! the host wakes up for is counted, once all of them wait.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use httpstream::{ChainId, Context, Engine, Flow, Mode, Next, Readback, Reply, Request, Response};

use super::program::Job;

/// Of each kind.
const WAITING: usize = 100;
/// Polls that are answered one after the other; the others are held for longer than all lasts.
const ANSWERED: u32 = 8;
const ANSWER: Duration = Duration::from_millis(450);
const BEAT: Duration = Duration::from_millis(250);
/// How long all that comes at first may take, asked again until it has come.
const SETTLE: Duration = Duration::from_secs(1);
const COUNT: Duration = Duration::from_millis(2500);
const HOLD: Duration = Duration::from_secs(60);

pub(super) struct Idle {
    addr: SocketAddr,
    waiting: Vec<ChainId>,
    /// Exchanges that are paused.
    paused: usize,
    /// The host's wakeups before it was counted; after that, those which were counted.
    wakeups: u64,
    /// The answers, and the deadlines of delays, since it is counted: what a host may wake up for.
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
        let request = Request::get(&format!("http://{}{path}", self.addr));
        request.long_poll(HOLD).build().expect("only numbers vary")
    }

    /// Says what was counted: whether the host woke up for no more than there was reason to, with
    /// all there that should have waited.
    pub(super) fn tell(&self) -> io::Result<bool> {
        let (wakeups, reasons, paused) = (self.wakeups, self.reasons, self.paused);
        writeln!(
            io::stdout(),
            "{wakeups} wakeups, {reasons} reasons, {paused} paused"
        )?;
        Ok(wakeups <= reasons && paused == WAITING)
    }
}

/// Begins to count when all that is to pause has paused, a second ago or longer.
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
        // The deadline of this call.
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

/// When its delay is over.
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

/// Takes one piece and pauses for good.
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
