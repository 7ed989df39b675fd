//! The code that the embed programs share: their arguments, and the work that these select. Each
//! program adds only its loop.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use httpstream::{Config, Context, Engine, Mode, Next, Reply, Request};

use super::Conversation;
use super::expected::transcript;
use super::idle::Idle;
use super::script::{CHAINS, STEPS};
use super::server::Server;

#[path = "../../support/args.rs"]
mod args;

const USAGE: &str = "\
Usage: embed_… [--transcript | --idle] [ADDR REFUSED]
       embed_… --fetch N [--at-once C] URL
       embed_… --serve

Runs a conversation of 20 chains with 50 steps each inside the event loop that the program is named
after, and reports whether it went as the script says. ADDR is the address on which `--serve` of
another embed program listens, and REFUSED one that refuses connections. Without them the program
starts its own server.

  --transcript   print a line for each step, and nothing else
  --idle         let 200 requests wait instead of the conversation, and count the loop's wakeups
  --fetch N      get URL N times, and print `done N`
  --at-once C    number of concurrent requests (default 1)
  --serve        print ADDR and REFUSED, and serve until standard input ends
";

/// Maximum number of unexpected lines to print.
const SHOWN: usize = 10;

/// The work that the arguments select. It is the state that the engine's readbacks are lent.
pub(crate) struct Job {
    work: Work,
    begun: Instant,
    /// How often the host's own wait has returned.
    wakeups: u64,
    // Kept only so that it stays open.
    _server: Option<Server>,
}

enum Work {
    Converse {
        conversation: Conversation,
        show: Show,
    },
    Fetch(Fetch),
    Idle(Idle),
}

#[derive(Clone, Copy)]
enum Show {
    Summary,
    Transcript,
}

impl Job {
    /// Parses the arguments. Exits the program if they are invalid, and for `--serve`.
    pub(crate) fn from_args(program: &'static str) -> io::Result<Self> {
        let mut args = args::Args::new(program, USAGE);
        let number = |word: &str| word.parse().ok().filter(|n: &u64| *n > 0);
        let (mut show, mut is_idle, mut fetch, mut at_once) = (Show::Summary, false, None, 1);
        let mut places = Vec::new();
        while let Some(arg) = args.next() {
            match &*arg {
                "--transcript" => show = Show::Transcript,
                "--idle" => is_idle = true,
                "--fetch" => fetch = Some(args.value(&arg, "a number above 0", number)),
                "--at-once" => at_once = args.value(&arg, "a number above 0", number),
                "--serve" => serve()?,
                _ if arg.starts_with('-') => args.wrong(&format!("{arg:?}: no such option")),
                _ => places.push(arg),
            }
        }
        if let Some(to_do) = fetch {
            let [url] = places.as_slice() else {
                args.wrong("--fetch: needs one URL");
            };
            let request = Request::get(url).build();
            let request = request.unwrap_or_else(|error| args.wrong(&format!("{error:#}")));
            return Ok(Self::new(
                Work::Fetch(Fetch::new(request, to_do, at_once)),
                None,
            ));
        }
        let server = match places.is_empty() {
            true => Some(Server::open()?),
            false => None,
        };
        let (addr, refused) = match (&server, places.as_slice()) {
            (Some(server), _) => (server.addr, server.refused),
            (None, [addr, refused]) => {
                let parsed = |place: &str| args.parsed("an argument", place, "HOST:PORT", address);
                (parsed(addr), parsed(refused))
            }
            (None, _) => args.wrong("give both ADDR and REFUSED, or neither"),
        };
        let work = match is_idle {
            true => Work::Idle(Idle::new(addr)),
            false => Work::Converse {
                conversation: Conversation::new(addr, refused),
                show,
            },
        };
        Ok(Self::new(work, server))
    }

    fn new(work: Work, server: Option<Server>) -> Self {
        Self {
            work,
            begun: Instant::now(),
            wakeups: 0,
            _server: server,
        }
    }

    /// Returns the configuration for the engine.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        if let Work::Converse { .. } = self.work {
            // With so few events per turn, turns often leave work, none of which a host may lose.
            config.turn_events = 2;
        }
        config
    }

    /// Submits the first requests.
    pub(crate) fn begin<M: Mode>(&mut self, engine: &mut Engine<Self, M>) {
        match &mut self.work {
            Work::Converse { conversation, .. } => conversation.begin(engine, Self::conversation),
            Work::Fetch(fetch) => {
                for _ in 0..fetch.at_once {
                    engine.submit(fetch.request.clone(), Self::on_fetched);
                }
            }
            Work::Idle(idle) => idle.begin(engine),
        }
    }

    /// Counts a wakeup. Call it whenever the host's own wait has returned.
    pub(crate) fn woke(&mut self) {
        self.wakeups += 1;
    }

    /// Sets the number of wakeups, for a host that counts them itself instead of calling
    /// [`woke`](Self::woke).
    pub(crate) fn has_woken(&mut self, times: u64) {
        self.wakeups = times;
    }

    /// Reports the result. Call it when nothing is pending any more.
    pub(crate) fn end(self) -> ExitCode {
        let went_well = match &self.work {
            Work::Converse { conversation, show } => self.judge(conversation, *show),
            Work::Fetch(fetch) => fetch.tell(),
            Work::Idle(idle) => idle.tell(),
        };
        match went_well {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("cannot write to standard output: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn judge(&self, conversation: &Conversation, show: Show) -> io::Result<bool> {
        let (found, expected) = (conversation.transcript(), transcript());
        let mut out = io::stdout().lock();
        match show {
            Show::Transcript => out.write_all(found.as_bytes())?,
            Show::Summary => {
                let (steps, wakeups) = (CHAINS * STEPS, self.wakeups);
                let time = self.begun.elapsed().as_secs_f64();
                writeln!(
                    out,
                    "{steps} steps in {time:.2} s, {wakeups} wakeups of the host"
                )?;
                let lines = found.lines().zip(expected.lines());
                let mut wrong = lines.filter(|(found, expected)| found != expected);
                for (found, expected) in wrong.by_ref().take(SHOWN) {
                    writeln!(out, "unexpected: {found}")?;
                    writeln!(out, "  expected: {expected}")?;
                }
                match wrong.count() {
                    0 => {}
                    more => writeln!(out, "... and {more} more")?,
                }
            }
        }
        out.flush()?;
        Ok(found == expected)
    }

    fn conversation(&mut self) -> Option<&mut Conversation> {
        match &mut self.work {
            Work::Converse { conversation, .. } => Some(conversation),
            Work::Fetch(_) | Work::Idle(_) => None,
        }
    }

    fn on_fetched(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match &mut self.work {
            Work::Fetch(fetch) => fetch.next(&reply),
            Work::Converse { .. } | Work::Idle(_) => Next::done(),
        }
    }

    /// Returns the idle work, and how often the host has woken up so far.
    pub(super) fn idle(&mut self) -> Option<(&mut Idle, u64)> {
        match &mut self.work {
            Work::Idle(idle) => Some((idle, self.wakeups)),
            Work::Converse { .. } | Work::Fetch(_) => None,
        }
    }
}

fn address(word: &str) -> Option<SocketAddr> {
    word.parse().ok()
}

/// Serves until standard input ends. Does not return unless serving fails.
fn serve() -> io::Result<()> {
    let server = Server::open()?;
    println!("{} {}", server.addr, server.refused);
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    std::process::exit(0);
}

/// Sends the same request repeatedly, for measurements.
struct Fetch {
    request: Request,
    at_once: u64,
    /// The number of requests not sent yet.
    left: u64,
    done: u64,
    failed: u64,
}

impl Fetch {
    fn new(request: Request, to_do: u64, at_once: u64) -> Self {
        let at_once = at_once.min(to_do);
        Self {
            request,
            at_once,
            left: to_do - at_once,
            done: 0,
            failed: 0,
        }
    }

    fn next(&mut self, reply: &Reply<'_>) -> Next<Job> {
        match reply {
            Ok(response) if response.status() == 200 => self.done += 1,
            Ok(_) | Err(_) => self.failed += 1,
        }
        if self.left == 0 {
            return Next::done();
        }
        self.left -= 1;
        Next::again()
    }

    fn tell(&self) -> io::Result<bool> {
        writeln!(io::stdout(), "done {}", self.done)?;
        if self.failed > 0 {
            eprintln!("{} failed", self.failed);
        }
        Ok(self.failed == 0)
    }
}
