//! A week of a bot in well under a second. The bot logs in, polls without end and sends a heartbeat
//! once a minute, on a simulated network that fails at random.
//!
//! ```text
//! cargo run --release --features sim --example sim [SEED]
//! ```
//!
//! The same bot would run on an `Engine::new()`; none of its code depends on the simulation. Two
//! runs with the same seed are identical to the byte, so a failure can be reproduced as often as
//! needed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use httpstream::sim::{Answer, Fault, Faults, Incoming, Network, Random};
use httpstream::{ChainId, Config, Context, Engine, Error, ErrorKind, Next, Reply, Request, Sim};

#[path = "support/args.rs"]
mod args;

const USAGE: &str = "\
Usage: sim [SEED]

Runs a bot for a week of simulated time. SEED, a whole number (default 2013), determines all
random events.
";

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

// ---- the bot ----

#[derive(Default)]
struct Bot {
    heart: Option<ChainId>,
    today: Day,
    /// How often each kind of failure occurred.
    failures: BTreeMap<String, u32>,
}

#[derive(Default)]
struct Day {
    logins: u32,
    polls: u32,
    beats: u32,
    failures: u32,
}

fn request(path: &str) -> Result<Request, Error> {
    Request::post(format!("https://chat.test{path}"))
        .long_poll(MINUTE)
        .build()
}

impl Bot {
    fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        let session = match &reply {
            Ok(response) if response.status() == 200 => response.text().ok(),
            _ => None,
        };
        let Some(session) = session else {
            return self.retry(reply, 10 * MINUTE);
        };
        let requests = (
            request(&format!("/beat?{session}")),
            request(&format!("/poll?{session}")),
        );
        let (Ok(beat), Ok(poll)) = requests else {
            return Next::done();
        };
        self.today.logins += 1;
        self.heart = Some(cx.start(cx.send(beat).after(MINUTE).read_by(Self::on_beat)));
        Next::send(poll).read_by(Self::on_poll)
    }

    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status() == 200 => {
                self.today.polls += 1;
                // The pause is for a server that does not hold polls.
                Next::again().after(Duration::from_millis(100))
            }
            Ok(response) if response.status() == 401 => {
                // The session is over: stop its heartbeat, and log in again.
                if let Some(heart) = self.heart.take() {
                    cx.cancel(heart);
                }
                match request("/login") {
                    Ok(login) => Next::send(login)
                        .read_by(Self::on_login)
                        .after(Duration::from_secs(5)),
                    Err(_) => Next::done(),
                }
            }
            reply => self.retry(reply, Duration::from_secs(5)),
        }
    }

    fn on_beat(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status().is_success() => {
                self.today.beats += 1;
                Next::again().after(MINUTE)
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Next::done(),
            reply => self.retry(reply, MINUTE),
        }
    }

    /// Counts a failure, and sends the same request again after `pause`.
    fn retry(&mut self, reply: Reply<'_>, pause: Duration) -> Next<Self> {
        let why = match reply {
            Ok(response) => format!("status {}", response.status()),
            Err(error) => format!("{:?} in {:?}", error.kind(), error.phase()),
        };
        self.today.failures += 1;
        *self.failures.entry(why).or_default() += 1;
        Next::again().after(pause)
    }
}

// ---- the server and the network ----

/// Adds a chat server. Its sessions last half a day, three polls in ten bring news within half a
/// minute, and the others are answered without news after 50 s.
fn serve(network: &Network, seed: u64) {
    let mut random = Random::new(seed);
    let mut session = 0;
    let mut began = Duration::ZERO;
    let server = move |request: &Incoming| {
        let stale =
            request.query() != Some(&format!("session-{session}")) || request.at > began + DAY / 2;
        match request.path() {
            "/login" => {
                (session, began) = (session + 1, request.at);
                Answer::ok(format!("session-{session}"))
            }
            _ if stale => Answer::status(401),
            "/beat" => Answer::status(204),
            "/poll" if random.chance(300) => Answer::ok("news").after(random.duration(MINUTE / 2)),
            "/poll" => Answer::ok("").after(Duration::from_secs(50)),
            _ => Answer::status(404),
        }
    };
    network.host("chat.test", [[10, 0, 0, 1]]);
    network
        .serve(([10, 0, 0, 1], 443).into(), server)
        .idle_timeout(Duration::from_secs(15));
    // Faults that a real network may show once a month, per thousand cases.
    network.set_faults(
        Faults::none()
            .with(Fault::ResetBefore, 4)
            .with(Fault::CloseAfter, 10)
            .with(Fault::Silence, 2)
            .with(Fault::Refused, 20)
            .with(Fault::Delay, 5)
            .with(Fault::Split, 100),
    );
}

fn main() -> ExitCode {
    let mut args = args::Args::new("sim", USAGE);
    let seed = match args.next() {
        Some(seed) => args.parsed("SEED", &seed, "a number from 0 to 2^64 - 1", |seed| {
            seed.parse().ok()
        }),
        None => 2013,
    };
    if let Some(more) = args.next() {
        args.wrong(&format!("{more:?}: only one SEED is accepted"));
    }
    match run(seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(seed: u64) -> Result<(), Error> {
    let network = Network::new(seed);
    serve(&network, seed);

    let mut bot = Bot::default();
    let mut engine = Engine::<Bot, Sim>::on_network(&network, Config::default())?;
    engine.submit(request("/login")?, Bot::on_login);

    let started = Instant::now();
    for day in 1..=7 {
        engine.advance(&mut bot, DAY)?;
        let Day {
            logins,
            polls,
            beats,
            failures,
        } = std::mem::take(&mut bot.today);
        println!(
            "day {day}: {logins} logins, {polls:4} polls answered, {beats:4} beats, {failures:3} failures"
        );
        assert_eq!(
            engine.pending(),
            2,
            "the poll and the heartbeat continue after every failure"
        );
        // The simulation has no TLS, but its ledger shows that everything was sent as https.
        let ledger = network.ledger();
        assert!(ledger.requests().all(|request| request.https));
        // Cleared every day, so the ledger does not hold the requests of the whole week.
        network.clear_ledger();
    }
    let stats = engine.stats();
    println!(
        "the week took {:.1} s: {} requests on {} connections; failures, each followed by another attempt:",
        started.elapsed().as_secs_f64(),
        stats.answered + stats.failed,
        stats.opened
    );
    for (why, count) in &bot.failures {
        println!("  {count:4} × {why}");
    }
    assert!(network.misuses().is_empty());
    Ok(())
}
