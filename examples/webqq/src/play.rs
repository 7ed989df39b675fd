//! The scripted conversation, with one bot or many, and its judgment.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use httpstream::Stats;

use crate::counting;
use crate::crowd::{self, Crowd};
use crate::doors;
use crate::events::{Entry, Event};
use crate::options::Options;
use crate::scenes;
use crate::script::{Expectations, Play};
use crate::server::http::HttpServer;
use crate::server::{self, Account, Director, Ledger, Server, Step};
use crate::show::Show;
use crate::verdict::{Evidence, Verdict, judge};
use crate::world::{self, World, drive, grant};

/// The account of the published examples, whose password and hashes are known.
pub(crate) const ACCOUNT: u64 = 1_685_359_365;
/// Only a hang lasts longer than this; at the protocol's own pace the limit is higher.
const LONGEST: Duration = Duration::from_secs(180);
const LONGEST_UNSCALED: Duration = Duration::from_secs(3600);
/// How long the last chains may take. Usually the bots have logged out when the play is over. If
/// the play was given up, they were never told to.
const LAST_CHAINS: Duration = Duration::from_secs(5);

/// The result of a play.
struct Outcome {
    server: Server,
    expectations: Expectations,
    logs: BTreeMap<u64, Vec<Entry>>,
    stats: Stats,
    /// Chains left after all bots had logged out.
    left: usize,
    bytes_per_bot: Option<isize>,
    lasted: Duration,
}

/// Plays, judges, and returns whether the verdict is good.
pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let show = Show::new(options.accounts, options.accounts * crowd::MESSAGES);
    let expectations = Expectations::default();
    let accounts: Vec<u64> = (0..options.accounts as u64).map(|i| ACCOUNT + i).collect();
    let director: Box<dyn Director> = match &*accounts {
        [account] => {
            let scenes = scenes::all(options.long);
            Box::new(Play::new(
                *account,
                scenes,
                expectations.clone(),
                show.scenes(),
            ))
        }
        _ => Box::new(Crowd::new(&accounts, expectations.clone())),
    };
    let outcome = play(options, &accounts, director, expectations, &show)?;
    let switches = match &*accounts {
        [_] => server::all_switches(),
        _ => Vec::new(),
    };
    let over_tls = match (options.listen_tls, &*accounts) {
        (None, _) => Vec::new(),
        (Some(_), [_]) => Step::https().collect(),
        // Only some of the bots get a captcha.
        (Some(_), _) => Step::https().filter(|s| *s != Step::Captcha).collect(),
    };
    let verdict = outcome.judge(&switches, &over_tls);
    if let Some(folder) = &options.log {
        let log = outcome
            .logs
            .iter()
            .flat_map(|(account, log)| log.iter().map(|entry| (*account, entry)));
        write_ledger(folder, outcome.server.ledger())?;
        write_log(folder, log)?;
    }
    show.faults(outcome.server.ledger());
    show.verdict(&verdict);
    outcome.summarise(&verdict, &show);
    Ok(verdict.is_good())
}

fn play(
    options: &Options,
    accounts: &[u64],
    director: Box<dyn Director>,
    expectations: Expectations,
    show: &Show,
) -> Result<Outcome, Box<dyn Error>> {
    let mut brain = Server::new(options.server_settings());
    for account in accounts {
        brain.add_account(Account::sample(*account));
    }
    let opened = doors::open(options)?;
    let before = counting::live_bytes();
    let mut engine = world::engine(accounts.len(), &opened.reach)?;
    let mut world = World::new(
        accounts
            .iter()
            .map(|account| options.bot_settings(*account)),
    );
    let submitter = engine.submitter();
    let server = HttpServer::start(opened.doors, brain, director, move |wish| {
        grant(&submitter, wish)
    })?;

    let longest = LONGEST.max(LONGEST_UNSCALED.div_f64(options.scale));
    let begin = Instant::now();
    let mut logs: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
    let mut bytes_per_bot = None;
    let mut over_since = None;
    drive(&mut engine, &mut world, |world, engine| {
        for (account, entry) in world.take_events() {
            show.event(&entry);
            logs.entry(account).or_default().push(entry);
        }
        if bytes_per_bot.is_none() && world.online() == accounts.len() {
            // Entries that are kept only for the judgment do not count.
            let kept: usize = logs.values().flatten().map(Entry::size).sum();
            let live = counting::live_bytes() - before - kept as isize;
            bytes_per_bot = Some(live / accounts.len() as isize);
        }
        show.progress(world.online(), || {
            server.with(|brain, _| brain.ledger().answers.len())
        });
        if over_since.is_none() && server.is_over() {
            over_since = Some(Instant::now());
        }
        over_since.is_some_and(|at| engine.pending() == 0 || at.elapsed() > LAST_CHAINS)
            || begin.elapsed() > longest
    })?;
    show.end_of_progress();
    Ok(Outcome {
        lasted: begin.elapsed(),
        left: engine.pending(),
        stats: engine.stats(),
        server: server.stop(),
        expectations,
        logs,
        bytes_per_bot,
    })
}

impl Outcome {
    fn judge(&self, switches: &[String], over_tls: &[Step]) -> Verdict {
        let expected = self
            .expectations
            .lock()
            .expect("the director has not panicked");
        let ledger = self.server.ledger();
        let mut verdict = judge(&Evidence {
            ledger,
            expected: &expected,
            logs: &self.logs,
            switches,
            over_tls,
        });
        if self.left > 0 {
            verdict
                .complaints
                .push(format!("{} chains were still alive at the end", self.left));
        }
        if ledger.logouts < self.logs.len() as u64 {
            verdict.complaints.push(format!(
                "{} of {} bots logged out",
                ledger.logouts,
                self.logs.len()
            ));
        }
        verdict
    }

    fn summarise(&self, verdict: &Verdict, show: &Show) {
        let count = |kind: fn(&Event) -> bool| {
            self.logs
                .values()
                .flatten()
                .filter(|entry| kind(&entry.event))
                .count()
        };
        let Stats {
            opened, submitted, ..
        } = self.stats;
        let ledger = self.server.ledger();
        let requests = ledger.requests;
        let of_tls = |count: u64| match count {
            0 => String::new(),
            count => format!(", {count} over TLS"),
        };
        let mut rows = vec![
            ("messages in", verdict.messages.to_string()),
            ("answers out, in parts", verdict.answers.to_string()),
            (
                "logins again",
                count(|event| matches!(event, Event::LoggingInAgain { .. })).to_string(),
            ),
            (
                "troubles and delays",
                count(|event| matches!(event, Event::Delayed { .. } | Event::Trouble { .. }))
                    .to_string(),
            ),
            ("heartbeats", ledger.heartbeats.to_string()),
            (
                "connections opened",
                format!("{opened}{}", of_tls(ledger.tls_connections)),
            ),
            (
                "requests",
                format!(
                    "{requests}{} ({submitted} chains)",
                    of_tls(ledger.requests_over_tls())
                ),
            ),
            ("time", format!("{:.1} s", self.lasted.as_secs_f64())),
        ];
        if let Some(bytes) = self.bytes_per_bot {
            let what = match self.logs.len() {
                1 => "heap, bot and engine",
                _ => "heap per bot",
            };
            rows.push((what, format!("{:.1} KiB", bytes as f64 / 1024.0)));
        }
        show.summary(&rows);
    }
}

/// Writes the server's ledger, as JSON lines.
pub(crate) fn write_ledger(folder: &Path, ledger: &Ledger) -> io::Result<()> {
    fs::write(folder.join("server.jsonl"), ledger.to_json_lines())
}

/// Writes the bots' events, as JSON lines.
pub(crate) fn write_log<'a>(
    folder: &Path,
    log: impl IntoIterator<Item = (u64, &'a Entry)>,
) -> io::Result<()> {
    let lines = log
        .into_iter()
        .map(|(account, entry)| format!("{}\n", entry.to_json(account)));
    fs::write(folder.join("bot.jsonl"), lines.collect::<String>())
}
