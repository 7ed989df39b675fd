//! httpstream with its default features, used as in its README: a method as the readback, and
//! `Next::again`.

use std::error::Error;
use std::fs;

use ::httpstream::tls::Tls;
use ::httpstream::{Config, Context, Engine, Flow, Next, Readback, Reply, Request, Unread};

use super::ask::{self, DELAY, Holding, Tally};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn run(job: &Job) -> Result<Cost> {
    match job.workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Tls
        | Workload::Pipelined { .. }
        | Workload::Delayed => ask(job),
        Workload::Held => hold(job),
    }
}

fn ask(job: &Job) -> Result<Cost> {
    let mut engine = engine(job)?;
    let mut asking = Asking {
        tally: Tally::new(job),
    };
    if job.held > 0 {
        let mut holding = Holding::new(job, job.held)?;
        for connection in 0..job.held {
            let held = ask::url_of(job, Workload::Held, connection);
            engine.submit_to(Request::get(&held).long_poll(POLL).build()?, Unread);
        }
        while !holding.is_complete()? {
            engine.turn(&mut asking, Some(Holding::PAUSE))?;
        }
    }
    let requests = (0..job.servers.len())
        .map(|server| request(job, server))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    for connection in 0..in_flight(job) {
        if !asking.tally.send() {
            break;
        }
        let request = requests[connection % requests.len()].clone();
        match job.workload {
            Workload::HugeStreamed => engine.submit_to(request, Streaming { body_len: 0 }),
            Workload::Delayed => engine.submit(request, Asking::on_reply_and_rest),
            _ => engine.submit(request, Asking::on_reply),
        };
    }
    while !asking.tally.is_over() {
        engine.turn(&mut asking, None)?;
    }
    asking.tally.cost()
}

fn request(job: &Job, server: usize) -> std::result::Result<Request, ::httpstream::Error> {
    let request = Request::get(ask::url(job, server)).header("Accept", "*/*");
    match job.workload {
        Workload::Pipelined { depth } => request.pipeline(depth).build(),
        _ => request.build(),
    }
}

fn in_flight(job: &Job) -> usize {
    match job.workload {
        Workload::Pipelined { depth } => job.connections * depth,
        _ => job.connections,
    }
}

/// Longer than any measurement.
const POLL: std::time::Duration = std::time::Duration::from_secs(600);

fn engine(job: &Job) -> Result<Engine<Asking>> {
    let mut config = Config::default();
    let all = job.connections + job.held;
    config.max_connections = all;
    config.max_connections_per_origin = all;
    // Like the other clients, which keep their connections during a delay.
    config.max_idle_per_origin = all;
    if job.workload == Workload::Tls {
        config.route.tls = Tls::with_roots_pem(&fs::read(&job.root)?)?;
    }
    Ok(Engine::with_config(config)?)
}

struct Asking {
    tally: Tally,
}

impl Asking {
    fn on_reply(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) => {
                let status = response.status().as_u16();
                self.tally.on_answer(status, response.body().len());
            }
            Err(error) => self.tally.on_error(&error),
        }
        self.go_on()
    }

    fn on_reply_and_rest(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.on_reply(reply, cx).after(DELAY)
    }

    fn go_on(&mut self) -> Next<Self> {
        match self.tally.send() {
            true => Next::again(),
            false => Next::done(),
        }
    }
}

/// Takes a body in pieces.
struct Streaming {
    body_len: usize,
}

impl Readback<Asking> for Streaming {
    fn on_head(
        &mut self,
        _: &mut Asking,
        _: &::httpstream::Response<'_>,
        _: &mut Context<'_, Asking>,
    ) -> Flow {
        self.body_len = 0;
        Flow::Stream
    }

    fn on_data(&mut self, _: &mut Asking, data: &[u8], _: &mut Context<'_, Asking>) -> Flow {
        self.body_len += data.len();
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        asking: &mut Asking,
        reply: Reply<'_>,
        _: &mut Context<'_, Asking>,
    ) -> Next<Asking> {
        match reply {
            Ok(response) => asking
                .tally
                .on_answer(response.status().as_u16(), self.body_len),
            Err(error) => asking.tally.on_error(&error),
        }
        asking.go_on()
    }
}

fn hold(job: &Job) -> Result<Cost> {
    let mut asking = Asking {
        tally: Tally::new(job),
    };
    let mut engine = engine(job)?;
    let polls = (0..job.servers.len())
        .map(|server| Request::get(ask::url(job, server)).long_poll(POLL).build())
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let mut holding = Holding::new(job, job.connections)?;
    let meter = Meter::start();
    for connection in 0..job.connections {
        engine.submit(polls[connection % polls.len()].clone(), Asking::on_reply);
    }
    while !holding.is_complete()? {
        engine.turn(&mut asking, Some(Holding::PAUSE))?;
    }
    Ok(meter.stop(job.connections as u64))
}
