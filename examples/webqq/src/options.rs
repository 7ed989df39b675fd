//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
scripted conversation in which everything goes wrong that went wrong with the real one, and checks in the
server's ledger that every message was answered correctly and exactly once. It exits with 0 if so, else 1.

  --time-scale X   divide the protocol's waits (heartbeat and poll 60 s, between two sends 0.5 s) by X;
                   default 60, or 1 with --serve, --server and --server-only
  --log DIR        write the server's ledger and the bot's log there, as JSON lines
  --accounts N     run N bots in one engine, on one thread
  --seed N         seed of the random numbers
  --long WHAT      what to do with answers too long for one message: split (the default) or cut
  --max-text N     longest message in characters, at least 120; default 300

  --tls            serve https as well as http, with a root certificate generated at startup that the bot
                   trusts: the protocol's https steps go over TLS, all others over http

  --serve          keep server and bot running, and chat with the bot from this terminal; Ctrl-C ends
  --server-only    run the server alone: simulated people talk to any bot that logs in; Ctrl-C ends and judges
  --listen ADDR    address of the server; default 127.0.0.1 and any port
  --server ADDR    run the bot alone, against a server started elsewhere; Ctrl-C logs out. The account is
                   always the same, so run one bot at a time
  --https ADDR     with --tls: address for https, default 127.0.0.1 and any port; with --server, the https
                   address of that server
  --cacert FILE    with --tls and --server: the root certificate whose file name the server printed
  --seconds N      with --serve, --server-only or --server: act as on Ctrl-C after N seconds

ADDR is IP:PORT. On Ctrl-C the bot sends its pending messages, for ten seconds at most, and logs out. A
second Ctrl-C ends the program at once.

  -h, --help       this text
";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Play,
    Serve,
    ServerOnly,
    BotOnly(Elsewhere),
}

/// A server that was started in another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    pub(crate) http: SocketAddr,
    /// Its https address, and the file with its root certificate.
    pub(crate) tls: Option<(SocketAddr, PathBuf)>,
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
    /// The https address of this process's server, if it serves https.
    pub(crate) listen_tls: Option<SocketAddr>,
    pub(crate) lasts: Option<Duration>,
}

impl Options {
    /// Reads the command line, and ends the program if the options are invalid.
    pub(crate) fn read() -> Self {
        let mut args = Args::new("webqq", USAGE);
        let (mut scale, mut modes) = (None, Vec::new());
        let mut tls = TlsWords::default();
        let mut options = Self {
            mode: Mode::Play,
            scale: 0.0,
            log: None,
            accounts: 1,
            seed: 1,
            long: Long::Split,
            max_text: 300,
            listen: ANY_PORT,
            listen_tls: None,
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
                    let http = args.value(&arg, "an IP:PORT", an_address);
                    modes.push(Mode::BotOnly(Elsewhere { http, tls: None }));
                }
                "--listen" => options.listen = args.value(&arg, "an IP:PORT", an_address),
                "--tls" => tls.is_wanted = true,
                "--https" => tls.https = Some(args.value(&arg, "an IP:PORT", an_address)),
                "--cacert" => {
                    tls.cacert = Some(args.value(&arg, "a file", |text| Some(PathBuf::from(text))))
                }
                "--seconds" => {
                    options.lasts = Some(args.value(&arg, "a number of seconds", seconds))
                }
                _ => args.wrong(&format!("{arg:?}: no such option")),
            }
        }
        match &*modes {
            [] => {}
            [mode] => options.mode = mode.clone(),
            _ => args.wrong("--serve, --server-only and --server exclude each other"),
        }
        if let Err(wrong) = options.take_tls(tls) {
            args.wrong(wrong);
        }
        if options.accounts > 1 && options.mode != Mode::Play {
            args.wrong("--accounts works with the scripted conversation only");
        }
        if options.lasts.is_some() && options.mode == Mode::Play {
            args.wrong("--seconds requires --serve, --server-only or --server");
        }
        let usual = if options.mode == Mode::Play {
            60.0
        } else {
            1.0
        };
        options.scale = scale.unwrap_or(usual);
        options
    }

    /// Applies the TLS options to the mode.
    ///
    /// # Errors
    /// Which options do not go together.
    fn take_tls(&mut self, words: TlsWords) -> Result<(), &'static str> {
        let TlsWords {
            is_wanted,
            https,
            cacert,
        } = words;
        if !is_wanted {
            return match (https, cacert) {
                (None, None) => Ok(()),
                _ => Err("--https and --cacert require --tls"),
            };
        }
        match (&mut self.mode, https, cacert) {
            (Mode::BotOnly(server), Some(https), Some(cacert)) => {
                server.tls = Some((https, cacert));
            }
            (Mode::BotOnly(_), _, _) => {
                return Err(
                    "--tls with --server requires --https and --cacert: the server prints both",
                );
            }
            (Mode::Play | Mode::Serve | Mode::ServerOnly, _, Some(_)) => {
                return Err(
                    "--cacert requires --server: a server in this process generates its own root",
                );
            }
            (Mode::Play | Mode::Serve | Mode::ServerOnly, https, None) => {
                self.listen_tls = Some(https.unwrap_or(ANY_PORT));
            }
        }
        Ok(())
    }

    fn has_tls(&self) -> bool {
        match &self.mode {
            Mode::BotOnly(server) => server.tls.is_some(),
            Mode::Play | Mode::Serve | Mode::ServerOnly => self.listen_tls.is_some(),
        }
    }

    pub(crate) fn bot_settings(&self, account: u64) -> bot::Settings {
        bot::Settings {
            account,
            password: server::Account::sample(account).password,
            scale: self.scale,
            // Many bots start at once, and the machine may be busy. A single bot should be seen to
            // time out.
            least_patience: Duration::from_secs(if self.accounts > 1 { 20 } else { 3 }),
            refresh: self.refresh(),
            max_text: self.max_text,
            long: self.long,
            seed: self.seed,
            epoch: wall_clock(),
            https: match self.has_tls() {
                true => bot::Https::OverTls,
                false => bot::Https::AsHttp,
            },
        }
    }

    /// The real bot refreshed its lists every hour. A ten-minute play should refresh them, too.
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
            https: match self.has_tls() {
                true => server::Https::OverTls,
                false => server::Https::AsHttp,
            },
        }
    }
}

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The TLS options of the command line.
#[derive(Default)]
struct TlsWords {
    is_wanted: bool,
    https: Option<SocketAddr>,
    cacert: Option<PathBuf>,
}

fn an_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
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
