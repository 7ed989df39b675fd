//! What waiting costs: heap bytes of each long poll that a server holds, and of each request that
//! waits for its delay.
//!
//! ```sh
//! cargo run --release --example hold                     # 10,000 polls, 1,000,000 delayed requests
//! cargo run --release --example hold -- --polls 2000 --delayed 0 --own
//! cargo run --release --example hold -- --polls 2000 --delayed 0 --tls    # https polls, beside what rustls keeps by itself
//! ```
//!
//! Every byte that the engine has asked its allocator for is counted, what its slabs hold in
//! reserve included; deadlines are armed. Requests are clones of one, then one of their own each;
//! with `--own` only the latter. The exit status is 1 when a bar is passed. The server that holds
//! the polls is a process of its own.

#[path = "support/args.rs"]
mod args;
#[path = "../tests/counting/mod.rs"]
mod counting;
#[path = "support/server.rs"]
mod server;
#[path = "support/tls_server.rs"]
mod tls_server;

use std::error::Error;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use httpstream::tls::Tls;
use httpstream::{Config, Context, Engine, Next, Reply, Request};
use server::Server;
use tls_server::TlsServer;

const USAGE: &str = "\
Usage: hold [--polls N] [--delayed N] [--own | --tls]

Prints the heap bytes of each held long poll and of each delayed request.

  --polls N     long polls held: 0 for none, or at least 1000 (default 10000)
  --delayed N   requests that wait for their delay: 0 for none, or at least 10000 (default 1000000)
  --own         only requests of their own, not clones of one
  --tls         https polls, clones of one request
";

/// Fewer share the engine's fixed costs among too few: the figure for each would say more about
/// those.
const FEWEST_POLLS: usize = 1_000;
const FEWEST_DELAYED: usize = 10_000;

/// Bytes each, over the serialised length where a request is its own.
struct Bar {
    /// Must not be passed.
    bar: f64,
    /// What is aimed at.
    goal: f64,
}

const POLL: Bar = Bar {
    bar: 512.0,
    goal: 200.0,
};
/// rustls keeps most of it: the goal is no more than this much beside that.
const TLS_POLL_BAR: f64 = 10.0 * 1024.0;
const TLS_POLL_GOAL_BESIDE_RUSTLS: f64 = 512.0;
const DELAYED: Bar = Bar {
    bar: 160.0,
    goal: 96.0,
};
/// What a request may cost beyond its serialised length.
const OWN: f64 = 64.0;

/// Descriptors for other things than connections.
const SPARE_FILES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Requests {
    Clones,
    Own,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Both,
    Own,
    Tls,
}

fn main() -> ExitCode {
    server::serve_if_asked();
    tls_server::serve_if_asked();
    let (mut polls, mut delayed, mut subject) = (10_000, 1_000_000, Subject::Both);
    let mut args = args::Args::new("hold", USAGE);
    while let Some(arg) = args.next() {
        match &*arg {
            "--polls" => polls = number(&mut args, &arg, FEWEST_POLLS),
            "--delayed" => delayed = number(&mut args, &arg, FEWEST_DELAYED),
            "--own" => subject = Subject::Own,
            "--tls" => subject = Subject::Tls,
            _ => args.wrong(&format!("{arg:?}: no such option")),
        }
    }
    run(polls, delayed, subject).unwrap_or_else(|error| {
        eprintln!("hold: {error:#}");
        ExitCode::FAILURE
    })
}

fn number(args: &mut args::Args, option: &str, fewest: usize) -> usize {
    let what = format!("0 or at least {fewest} (of fewer, each would show the fixed costs)");
    args.value(option, &what, |text| {
        let number = text.parse().ok();
        number.filter(|&n: &usize| n == 0 || n >= fewest)
    })
}

fn run(polls: usize, delayed: usize, subject: Subject) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(status) = with_files_for(polls)? {
        return Ok(status);
    }
    let kinds = match subject {
        Subject::Both => &[Requests::Clones, Requests::Own][..],
        Subject::Own => &[Requests::Own],
        Subject::Tls => &[],
    };
    println!(
        "{:38} {:>9} {:>8} {:>8} {:>8} {:>11}",
        "", "number", "B each", "bar", "goal", "B in all"
    );
    let mut kept = true;
    if subject == Subject::Tls && polls > 0 {
        kept &= hold_tls(polls)?;
    }
    for kind in kinds.iter().filter(|_| polls > 0) {
        kept &= hold(polls, *kind)?;
    }
    for kind in kinds.iter().filter(|_| delayed > 0) {
        kept &= delay(delayed, *kind)?;
    }
    println!("bar: must not be passed; goal: what is aimed at (both in B each)");
    Ok(match kept {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Starts this program anew with as many descriptors as may be had, where the present limit is too
/// low: the server, which inherits the limit, needs one for each poll as well as the engine.
/// `Some`: that one has run.
fn with_files_for(polls: usize) -> Result<Option<ExitCode>, Box<dyn Error>> {
    const RAISED: &str = "HOLD_HAS_RAISED_ITS_LIMIT";
    let wanted = polls.saturating_add(SPARE_FILES);
    let limit = Command::new("sh").args(["-c", "ulimit -n"]).output()?;
    let limit = String::from_utf8(limit.stdout)?.trim().to_owned();
    // "unlimited" is no number, and enough.
    if limit.parse().map_or(true, |limit: usize| limit >= wanted) {
        return Ok(None);
    }
    if std::env::var_os(RAISED).is_some() {
        let advice = "raise the hard limit (ulimit -Hn), or ask for fewer --polls";
        return Err(format!(
            "{polls} polls need {wanted} file descriptors, and {limit} is the limit: {advice}"
        )
        .into());
    }
    let status = Command::new("sh")
        .args(["-c", r#"ulimit -S -n "$(ulimit -H -n)"; exec "$0" "$@""#])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(RAISED, "1")
        .status()?;
    Ok(Some(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }))
}

fn nothing(_: &mut (), reply: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    if let Err(error) = reply {
        eprintln!("{error:#}");
    }
    Next::done()
}

/// The request of one bot among many.
fn request(addr: SocketAddr, bot: usize) -> Result<Request, httpstream::Error> {
    request_by("http", addr, bot)
}

fn request_by(scheme: &str, addr: SocketAddr, bot: usize) -> Result<Request, httpstream::Error> {
    Request::get(&format!("{scheme}://{addr}/hold?bot={bot:07}"))
        .header("Accept", "application/json")
        .header("Cookie", format!("session={bot:032x}"))
        .long_poll(Duration::from_secs(3600))
        .build()
}

/// An engine without fields of its own, so that what it sends is what the request holds, and the
/// empty line.
fn engine(connections: usize) -> Result<Engine, httpstream::Error> {
    engine_by(connections, Tls::default())
}

fn engine_by(connections: usize, tls: Tls) -> Result<Engine, httpstream::Error> {
    let mut config = Config::default();
    config.route.tls = tls;
    config.max_connections = connections.max(1);
    config.max_connections_per_origin = connections.max(1);
    config.user_agent = None;
    Engine::with_config(config)
}

fn hold(polls: usize, kind: Requests) -> Result<bool, Box<dyn Error>> {
    /// As many connections at once as the server's backlog is sure to take.
    const AT_ONCE: usize = 256;
    let server = Server::start()?;
    let start = counting::live_bytes();
    let mut engine = engine(polls)?;
    let model = request(server.addr, 0)?;
    let made = counting::live_bytes();
    while engine.pending() < polls {
        for _ in 0..AT_ONCE.min(polls - engine.pending()) {
            let request = match kind {
                Requests::Clones => model.clone(),
                Requests::Own => request(server.addr, engine.pending())?,
            };
            engine.submit(request, nothing);
        }
        engine.turn(&mut (), Some(Duration::from_millis(1)))?;
    }
    // With the empty line behind each.
    let (serialised, patience) = (serialised(server.addr), Instant::now());
    while engine.stats().bytes_out < (polls * (serialised + 2)) as u64 {
        engine.turn(&mut (), Some(Duration::from_millis(100)))?;
        if patience.elapsed() > Duration::from_secs(60) {
            return Err(format!("not all polls can be sent: {:?}", engine.stats()).into());
        }
    }
    let held = counting::live_bytes();
    let stats = engine.stats();
    if stats.in_flight != polls || stats.failed + stats.answered > 0 {
        return Err(format!("not all polls are held: {stats:?}").into());
    }
    let what = match kind {
        Requests::Clones => "held polls, clones of one request".to_owned(),
        Requests::Own => format!("held polls, {serialised} B requests of their own"),
    };
    Ok(report(
        &what,
        polls,
        made - start,
        held - made,
        kind,
        serialised,
        &POLL,
    ))
}

/// As [`hold`], over https; and what rustls keeps for as good a connection that nobody holds a poll
/// on.
fn hold_tls(polls: usize) -> Result<bool, Box<dyn Error>> {
    /// Each costs the processor a handshake, and all are alike.
    const BARE: usize = 100;
    /// Handshakes at once: their deadline passes while a crowd waits for the processor.
    const AT_ONCE: usize = 64;
    let server = TlsServer::start()?;
    let config = tls_server::client_config(&server)?;
    // The first makes what all share.
    let first = tls_server::bare_connections(&server, &config, 1)?;
    let before = counting::live_bytes();
    let bare = tls_server::bare_connections(&server, &config, BARE)?;
    let own = (counting::live_bytes() - before) as f64 / BARE as f64;
    println!(
        "{:38} {BARE:>9} {own:>8.1}",
        "rustls by itself, after a handshake"
    );
    drop((first, bare));

    let start = counting::live_bytes();
    let mut engine = engine_by(polls, Tls::with_roots_pem(server.root_pem.as_bytes())?)?;
    let model = request_by("https", server.addr(), 0)?;
    let made = counting::live_bytes();
    let patience = Instant::now();
    while engine.stats().links_dialing > 0 || engine.pending() < polls {
        let dialing = engine.stats().links_dialing;
        for _ in 0..AT_ONCE
            .saturating_sub(dialing)
            .min(polls - engine.pending())
        {
            engine.submit(model.clone(), nothing);
        }
        engine.turn(&mut (), Some(Duration::from_millis(100)))?;
        if patience.elapsed() > Duration::from_secs(180) {
            return Err(format!("not all polls can be sent: {:?}", engine.stats()).into());
        }
    }
    let held = counting::live_bytes();
    let stats = engine.stats();
    if stats.in_flight != polls || stats.failed + stats.answered > 0 {
        return Err(format!("not all polls are held: {stats:?}").into());
    }
    let each = (held - made) as f64 / polls as f64;
    println!("{:38} {:>9} {:>8.1}", "beside rustls", "", each - own);
    let bar = Bar {
        bar: TLS_POLL_BAR,
        goal: own + TLS_POLL_GOAL_BESIDE_RUSTLS,
    };
    let kind = Requests::Clones;
    let (what, serialised) = ("held https polls, clones of one request", 0);
    Ok(report(
        what,
        polls,
        made - start,
        held - made,
        kind,
        serialised,
        &bar,
    ))
}

fn delay(delayed: usize, kind: Requests) -> Result<bool, Box<dyn Error>> {
    // Never contacted.
    let addr = SocketAddr::from(([127, 0, 0, 1], 9));
    let start = counting::live_bytes();
    let mut engine = engine(1)?;
    let model = request(addr, 0)?;
    let made = counting::live_bytes();
    let hour = Duration::from_secs(3600);
    for i in 0..delayed {
        let request = match kind {
            Requests::Clones => model.clone(),
            Requests::Own => request(addr, i)?,
        };
        engine.start(
            engine
                .send(request)
                .after(hour + Duration::from_millis(i as u64))
                .read_by(nothing),
        );
    }
    // So many are more than one turn sees to.
    while engine.turn(&mut (), Some(Duration::ZERO))?.more {}
    let held = counting::live_bytes();
    let stats = engine.stats();
    if stats.delayed != delayed {
        return Err(format!("not all requests wait for their delay: {stats:?}").into());
    }
    let serialised = serialised(addr);
    let what = match kind {
        Requests::Clones => "delayed, clones of one request".to_owned(),
        Requests::Own => format!("delayed, {serialised} B requests of their own"),
    };
    Ok(report(
        &what,
        delayed,
        made - start,
        held - made,
        kind,
        serialised,
        &DELAYED,
    ))
}

/// The length of a [`request`] as it is kept: without the empty line behind its head.
fn serialised(addr: SocketAddr) -> usize {
    format!(
        "GET /hold?bot={:07} HTTP/1.1\r\nHost: {addr}\r\nAccept: application/json\r\nCookie: session={:032x}\r\n",
        0, 0
    )
    .len()
}

/// Prints a line of the table; whether the bar is kept.
fn report(
    what: &str,
    number: usize,
    fixed: isize,
    grown: isize,
    kind: Requests,
    serialised: usize,
    of: &Bar,
) -> bool {
    let more = match kind {
        Requests::Clones => 0.0,
        Requests::Own => serialised as f64 + OWN,
    };
    let each = grown as f64 / number as f64;
    let (bar, goal) = (of.bar + more, of.goal + more);
    let verdict = match each {
        each if each <= goal => "goal reached",
        each if each <= bar => "within the bar",
        _ => "OVER THE BAR",
    };
    let all = fixed + grown;
    println!("{what:38} {number:>9} {each:>8.1} {bar:>8.0} {goal:>8.0} {all:>11}  {verdict}");
    each <= bar
}
