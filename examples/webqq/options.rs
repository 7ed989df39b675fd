//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::args::Args;
use crate::bot;
use crate::outbox::Long;
use crate::server;
use crate::world::wall_clock;

const USAGE: &str = "\
Usage: webqq [OPTION...]

Runs a WebQQ bot on this crate's engine against a WebQQ server on loopback. Without an option it plays a
scripted conversation in which everything goes wrong that went wrong with the real one, and judges by the
server's ledger whether every message was answered, once and rightly: it ends with 0 if so, or else with 1.

  --time-scale X   divide the protocol's waits (heartbeat and poll 60 s, between two sends 0.5 s) by X;
                   60 if not said, 1 with --serve, --server and --server-only
  --log DIR        keep the server's ledger and the bot's log there, as lines of JSON
  --accounts N     N bots in the one engine, in one thread
  --seed N         for what is drawn by chance
  --long WHAT      split or cut answers that are too long for one message; split if not said
  --max-text N     how long a message may be, in characters, from 120; 300 if not said

  --serve          keep server and bot running, and talk to the bot from this terminal; Ctrl-C ends
  --server-only    run the server alone: people talk to whatever bot logs in; Ctrl-C ends and judges
  --listen ADDR    where the server listens; 127.0.0.1 and any port if not said
  --server ADDR    run the bot alone, with a server that was started elsewhere; Ctrl-C logs out. It is
                   always the same account: one bot at a time
  --seconds N      with one of these: as Ctrl-C after N seconds

ADDR is IP:PORT. Ctrl-C has the bot say what it has to say, for ten seconds at most, and log out; once
more, and the program ends at once.

  -h, --help       this text
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Play,
    Serve,
    ServerOnly,
    BotOnly(SocketAddr),
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) scale: f64,
    pub(crate) log: Option<PathBuf>,
    pub(crate) accounts: usize,
    pub(crate) seed: u64,
    pub(crate) long: Long,
    pub(crate) max_text: usize,
    pub(crate) listen: SocketAddr,
    pub(crate) lasts: Option<Duration>,
}

impl Options {
    /// Ends the program where they make no sense.
    pub(crate) fn read() -> Self {
        let mut args = Args::new("webqq", USAGE);
        let (mut scale, mut modes) = (None, Vec::new());
        let mut options = Self {
            mode: Mode::Play,
            scale: 0.0,
            log: None,
            accounts: 1,
            seed: 1,
            long: Long::Split,
            max_text: 300,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            lasts: None,
        };
        while let Some(arg) = args.next() {
            match &*arg {
                "--time-scale" => {
                    scale = Some(args.value(&arg, "a number from 0.01 to 1000", a_scale))
                }
                "--log" => {
                    options.log =
                        Some(args.value(&arg, "a folder", |text| Some(PathBuf::from(text))))
                }
                "--accounts" => {
                    options.accounts = args.value(&arg, "a number from 1 to 5000", |text| {
                        within(text, 1..=5000)
                    })
                }
                "--seed" => options.seed = args.value(&arg, "a number", |text| text.parse().ok()),
                "--long" => options.long = args.value(&arg, "split or cut", a_long),
                "--max-text" => {
                    options.max_text = args.value(&arg, "a number from 120 to 10000", |text| {
                        within(text, 120..=10_000)
                    })
                }
                "--serve" => modes.push(Mode::Serve),
                "--server-only" => modes.push(Mode::ServerOnly),
                "--server" => {
                    let server = args.value(&arg, "an IP:PORT", |text| text.parse().ok());
                    modes.push(Mode::BotOnly(server));
                }
                "--listen" => {
                    options.listen = args.value(&arg, "an IP:PORT", |text| text.parse().ok())
                }
                "--seconds" => {
                    options.lasts = Some(args.value(&arg, "a number of seconds", seconds))
                }
                _ => args.wrong(&format!("{arg:?}: no such option")),
            }
        }
        match *modes {
            [] => {}
            [mode] => options.mode = mode,
            _ => args.wrong("--serve, --server-only, --server: only one of them"),
        }
        if options.accounts > 1 && options.mode != Mode::Play {
            args.wrong("--accounts goes with the scripted conversation only");
        }
        if options.lasts.is_some() && options.mode == Mode::Play {
            args.wrong("--seconds goes with --serve, --server-only or --server");
        }
        let usual = if options.mode == Mode::Play {
            60.0
        } else {
            1.0
        };
        options.scale = scale.unwrap_or(usual);
        options
    }

    pub(crate) fn bot_settings(&self, account: u64) -> bot::Settings {
        bot::Settings {
            account,
            password: server::Account::sample(account).password,
            scale: self.scale,
            // Many come at once, and the machine may have other things to do. One is to be seen waiting in vain.
            least_patience: Duration::from_secs(if self.accounts > 1 { 20 } else { 3 }),
            refresh: self.refresh(),
            max_text: self.max_text,
            long: self.long,
            seed: self.seed,
            epoch: wall_clock(),
        }
    }

    /// The real bot asked for its lists every hour; in a play of ten minutes they are to be asked for as well.
    fn refresh(&self) -> Duration {
        match self.mode {
            Mode::Play => Duration::from_secs(120),
            _ => Duration::from_secs(3600),
        }
    }

    pub(crate) fn server_settings(&self) -> server::Settings {
        server::Settings {
            scale: self.scale,
            seed: self.seed,
            max_text: self.max_text,
        }
    }
}

fn a_scale(text: &str) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|scale| (0.01..=1000.0).contains(scale))
}

fn within(text: &str, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
    text.parse().ok().filter(|number| range.contains(number))
}

fn a_long(text: &str) -> Option<Long> {
    match text {
        "split" => Some(Long::Split),
        "cut" => Some(Long::Cut),
        _ => None,
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}
