//! More than one core: several threads with an engine each, which share nothing, and one thread
//! that distributes the work among them.
//!
//! ```sh
//! cargo run --release --example cores
//! cargo run --release --example cores -- --threads 4 --requests 400000 --by-key
//! ```
//!
//! An engine stays on the thread that created it; other threads reach it through a `Submitter`.
//! Here the main thread has a `Submitter` for each engine, and submits chains of requests either to
//! the engines in turn or to one chosen by a key. With a key, all requests of an account go to the
//! same engine, so the account's state and connections are in one place and need no lock. The
//! program measures one thread and then many. Each engine has its own server, in a separate
//! process.

#[path = "support/args.rs"]
mod args;
#[path = "support/server.rs"]
mod server;

use std::error::Error;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use httpstream::{
    Config, Context, Engine, KeepAlive, Next, Reply, Request, SubmitError, Submitter,
};
use server::Server;

const USAGE: &str = "\
Usage: cores [--threads N] [--requests N] [--chain N] [--connections N] [--by-key]

Sends requests through one engine, then through one engine on each of N threads.

  --threads N       number of engines, each on its own thread (default 2)
  --requests N      total number of requests (default 200000)
  --chain N         requests per submission, sent one after the other (default 100)
  --connections N   concurrent connections of each engine (default 50)
  --by-key          choose the engine by the account that a submission is for; by default the
                    engines take turns
";

/// The number of accounts. There are many more than threads, so each gets about the same number.
const ACCOUNTS: u64 = 1000;

/// How submissions are distributed among the engines.
#[derive(Clone, Copy)]
enum Spread {
    InTurn,
    /// All submissions for an account go to the same engine.
    ByKey,
}

impl Spread {
    /// Returns the index of the engine, out of `engines`, for the submission of this number.
    fn choose(self, submission: u64, engines: usize) -> usize {
        let number = match self {
            Spread::InTurn => submission,
            Spread::ByKey => {
                let account = format!("account-{}", submission % ACCOUNTS);
                // The hasher has no random key, so each run chooses the same engine.
                BuildHasherDefault::<DefaultHasher>::default().hash_one(account)
            }
        };
        (number % engines as u64) as usize
    }
}

#[derive(Clone, Copy)]
struct Plan {
    requests: u64,
    chain: u64,
    connections: usize,
    spread: Spread,
}

/// The state of one engine. It belongs to that engine alone, so counting needs no lock.
#[derive(Default)]
struct Tally {
    answered: u64,
    failed: u64,
}

/// What one engine has done, and its thread's processor time if the system reports it.
struct Done {
    tally: Tally,
    cpu: Option<Duration>,
}

type Outcome = Result<Done, httpstream::Error>;

/// An engine on its thread, as the main thread sees it.
struct Lane {
    submitter: Submitter<Tally>,
    /// Keeps the engine running. Once this is dropped, the engine finishes its requests and ends.
    alive: KeepAlive,
    thread: JoinHandle<Outcome>,
    request: Request,
    _server: Server,
}

impl Lane {
    fn start(connections: usize) -> Result<Self, Box<dyn Error>> {
        let server = Server::start()?;
        let request = Request::get(format!("http://{}/small", server.addr)).build()?;
        let (sender, submitters) = channel();
        let thread = thread::spawn(move || run_engine(connections, sender));
        match submitters.recv() {
            Ok((alive, submitter)) => Ok(Self {
                submitter,
                alive,
                thread,
                request,
                _server: server,
            }),
            // The thread has ended without creating an engine; its result says why.
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(_)) | Err(_) => Err("an engine's thread ended too early".into()),
            },
        }
    }

    /// Submits a chain of `left` requests.
    fn submit(&self, mut left: u64) -> Result<(), httpstream::Error> {
        let readback = move |tally: &mut Tally, reply: Reply<'_>, _: &mut Context<'_, Tally>| {
            match reply {
                Ok(_) => tally.answered += 1,
                Err(_) => tally.failed += 1,
            }
            left -= 1;
            match left {
                0 => Next::done(),
                _ => Next::again(),
            }
        };
        let mut given = (self.request.clone(), readback);
        loop {
            match self.submitter.submit(given.0, given.1) {
                Ok(_) => return Ok(()),
                // The inbox is full; it has room again after the engine's next turn.
                Err(SubmitError::Full(back)) => given = back,
                Err(error) => return Err(error.into()),
            }
            thread::yield_now();
        }
    }

    /// Lets the engine finish its requests, and waits for its thread to end.
    fn finish(self) -> Result<Done, Box<dyn Error>> {
        drop(self.alive);
        match self.thread.join() {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err("an engine's thread panicked".into()),
        }
    }
}

/// The body of an engine's thread. Creates the engine, sends a submitter and a guard to the main
/// thread, and runs until the guard is dropped and everything is answered.
fn run_engine(connections: usize, submitters: Sender<(KeepAlive, Submitter<Tally>)>) -> Outcome {
    let mut config = Config::default();
    config.max_connections = connections;
    config.max_connections_per_origin = connections;
    let mut engine = Engine::with_config(config)?;
    // If the main thread no longer listens, there is nothing to do, and `run` returns at once.
    let submitter = engine.submitter();
    let _ = submitters.send((submitter.keep_alive(), submitter));
    drop(submitters);
    let mut tally = Tally::default();
    let before = thread_cpu();
    engine.run(&mut tally)?;
    let cpu = thread_cpu()
        .zip(before)
        .map(|(after, before)| after - before);
    Ok(Done { tally, cpu })
}

/// Returns the processor time of this thread, if the kernel is Linux and accounts for it.
fn thread_cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = stat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

fn main() -> ExitCode {
    server::serve_if_asked();
    let mut threads = 2;
    let mut plan = Plan {
        requests: 200_000,
        chain: 100,
        connections: 50,
        spread: Spread::InTurn,
    };
    let mut args = args::Args::new("cores", USAGE);
    let number = |text: &str| text.parse().ok().filter(|&n: &u64| n > 0);
    let size = |text: &str| text.parse().ok().filter(|&n: &usize| n > 0);
    while let Some(arg) = args.next() {
        match &*arg {
            "--threads" => threads = args.value(&arg, "a number above 0", size),
            "--requests" => plan.requests = args.value(&arg, "a number above 0", number),
            "--chain" => plan.chain = args.value(&arg, "a number above 0", number),
            "--connections" => plan.connections = args.value(&arg, "a number above 0", size),
            "--by-key" => plan.spread = Spread::ByKey,
            _ => args.wrong(&format!("{arg:?}: no such option")),
        }
    }
    let measured = measure(1, plan).and_then(|()| match threads {
        1 => Ok(()),
        _ => measure(threads, plan),
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cores: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sends all requests through `threads` engines, and prints the time that this took.
fn measure(threads: usize, plan: Plan) -> Result<(), Box<dyn Error>> {
    let lanes = (0..threads)
        .map(|_| Lane::start(plan.connections))
        .collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let mut left = plan.requests;
    for submission in 0.. {
        let chain = left.min(plan.chain);
        if chain == 0 {
            break;
        }
        lanes[plan.spread.choose(submission, threads)].submit(chain)?;
        left -= chain;
    }
    let done = lanes
        .into_iter()
        .map(Lane::finish)
        .collect::<Result<Vec<_>, _>>()?;
    let seconds = begin.elapsed().as_secs_f64();

    let answered: u64 = done.iter().map(|done| done.tally.answered).sum();
    let failed: u64 = done.iter().map(|done| done.tally.failed).sum();
    let each = done.iter().map(|done| done.tally.answered.to_string());
    println!(
        "threads      {threads}, which answered {}",
        each.collect::<Vec<_>>().join(" + ")
    );
    println!("answered     {answered} ({failed} failed)");
    println!("rate         {:.0} requests/s", answered as f64 / seconds);
    if let Some(cpu) = done.iter().map(|done| done.cpu).sum::<Option<Duration>>() {
        let micros = cpu.as_secs_f64() * 1e6 / answered.max(1) as f64;
        println!("processor    {micros:.2} us per request, on the engines' threads");
    }
    match failed {
        0 => Ok(()),
        n => Err(format!("{n} requests failed").into()),
    }
}
