//! Measures what waiting costs: the heap bytes of each long poll that is held open, and of each
//! request that waits for its delay.
//!
//! ```sh
//! # 10,000 polls and 1,000,000 delayed requests
//! cargo run --release --example hold
//! cargo run --release --example hold -- --polls 2000 --delayed 0 --own
//! # https polls, compared with rustls alone
//! cargo run --release --example hold -- --polls 2000 --delayed 0 --tls
//! ```
//!
//! All bytes that the engine has allocated are counted, including the unused capacity of its slabs.
//! Deadlines are armed. Everything is measured twice, with clones of one request and with requests
//! that are built individually; `--own` skips the former. The exit code is 1 if a limit is
//! exceeded. The server that holds the polls runs in a separate process.

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

use httpstream::session::{Jar, Redirects, Session};
use httpstream::tls::Tls;
use httpstream::{Config, Context, Engine, Next, Reply, Request};
use server::Server;
use tls_server::TlsServer;

const USAGE: &str = "\
Usage: hold [--polls N] [--delayed N] [--own | --tls]

Prints the heap bytes of each long poll that is held open and of each delayed request.

  --polls N     number of long polls: 0, or at least 1000 (default 10000)
  --delayed N   number of delayed requests: 0, or at least 10000 (default 1000000)
  --own         measure only individual requests, not clones of one request
  --tls         measure only https polls, which are clones of one request
";

/// With fewer polls or requests, the engine's fixed costs would make up too much of each figure.
const FEWEST_POLLS: usize = 1_000;
const FEWEST_DELAYED: usize = 10_000;

/// Bytes for each poll or delayed request; individual requests may take their serialized length on
/// top.
struct Bar {
    /// The limit, which must not be exceeded.
    bar: f64,
    /// The target.
    goal: f64,
}

const POLL: Bar = Bar {
    bar: 512.0,
    goal: 200.0,
};
/// Most of a TLS poll is memory of rustls. The goal is this much in addition to that.
const TLS_POLL_BAR: f64 = 10.0 * 1024.0;
const TLS_POLL_GOAL_BESIDE_RUSTLS: f64 = 512.0;
const DELAYED: Bar = Bar {
    bar: 160.0,
    goal: 96.0,
};
/// What a poll may take in addition if it belongs to a session.
const IN_SESSION: f64 = 64.0;
/// What an individual request may take in addition to its serialized length.
const OWN: f64 = 64.0;

/// Descriptors that are needed besides those of the connections.
const SPARE_FILES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Requests {
    Clones,
    /// Clones of a request of a session that follows redirects and keeps cookies.
    ClonesInSession,
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
    let what =
        format!("0 or at least {fewest} (with fewer, fixed costs would distort the figures)");
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
        Subject::Both => &[Requests::Clones, Requests::ClonesInSession, Requests::Own][..],
        Subject::Own => &[Requests::Own],
        Subject::Tls => &[],
    };
    println!(
        "{:38} {:>9} {:>8} {:>8} {:>8} {:>11}",
        "", "number", "B each", "limit", "goal", "B total"
    );
    let mut kept = true;
    if subject == Subject::Tls && polls > 0 {
        kept &= hold_tls(polls)?;
    }
    let mut without_session = None;
    for kind in kinds.iter().filter(|_| polls > 0) {
        let bar = match (kind, without_session) {
            (Requests::ClonesInSession, Some(each)) => Bar {
                bar: each + IN_SESSION,
                goal: each + IN_SESSION,
            },
            (..) => POLL,
        };
        let (each, is_kept) = hold(polls, *kind, &bar)?;
        without_session.get_or_insert(each);
        kept &= is_kept;
    }
    let delayed_kinds = kinds
        .iter()
        .filter(|kind| **kind != Requests::ClonesInSession);
    for kind in delayed_kinds.filter(|_| delayed > 0) {
        kept &= delay(delayed, *kind)?;
    }
    println!("limit: must not be exceeded; goal: the target (both in bytes each)");
    Ok(match kept {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// If the limit of open files is too low, runs this program once more with the highest limit that
/// is allowed, and returns its exit code. The limit also has to suffice for the server, which
/// inherits it and needs as many descriptors as the engine.
fn with_files_for(polls: usize) -> Result<Option<ExitCode>, Box<dyn Error>> {
    const RAISED: &str = "HOLD_HAS_RAISED_ITS_LIMIT";
    let wanted = polls.saturating_add(SPARE_FILES);
    let limit = Command::new("sh").args(["-c", "ulimit -n"]).output()?;
    let limit = String::from_utf8(limit.stdout)?.trim().to_owned();
    // "unlimited" does not parse, and is enough.
    if limit.parse().map_or(true, |limit: usize| limit >= wanted) {
        return Ok(None);
    }
    if std::env::var_os(RAISED).is_some() {
        let advice = "raise the hard limit (ulimit -Hn), or use fewer --polls";
        return Err(format!(
            "{polls} polls need {wanted} file descriptors, but the limit is {limit}: {advice}"
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

/// Reads the response and ends the chain.
fn nothing(_: &mut (), reply: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    if let Err(error) = reply {
        eprintln!("{error:#}");
    }
    Next::done()
}

/// Returns the request of one bot among many.
fn request(addr: SocketAddr, bot: usize) -> Result<Request, httpstream::Error> {
    request_by("http", addr, bot)
}

fn request_by(scheme: &str, addr: SocketAddr, bot: usize) -> Result<Request, httpstream::Error> {
    Request::get(format!("{scheme}://{addr}/hold?bot={bot:07}"))
        .header("Accept", "application/json")
        .header("Cookie", format!("session={bot:032x}"))
        .long_poll(Duration::from_secs(3600))
        .build()
}

/// Creates an engine that adds no fields, so it sends exactly the serialized request and the empty
/// line.
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

/// Returns the bytes of each poll, and whether the limit is met.
fn hold(polls: usize, kind: Requests, bar: &Bar) -> Result<(f64, bool), Box<dyn Error>> {
    /// Connections opened at once. A server's backlog is certain to have room for as many.
    const AT_ONCE: usize = 256;
    let server = Server::start()?;
    let start = counting::live_bytes();
    let mut engine = engine(polls)?;
    let mut model = request(server.addr, 0)?;
    if kind == Requests::ClonesInSession {
        let session = Session::builder().redirects(Redirects::limited(10));
        let session = session.cookies(Jar::new()).build()?;
        model = model.edit().session(&session).build()?;
    }
    let made = counting::live_bytes();
    while engine.pending() < polls {
        for _ in 0..AT_ONCE.min(polls - engine.pending()) {
            let request = match kind {
                Requests::Clones | Requests::ClonesInSession => model.clone(),
                Requests::Own => request(server.addr, engine.pending())?,
            };
            engine.submit(request, nothing);
        }
        engine.turn(&mut (), Some(Duration::from_millis(1)))?;
    }
    // Each request is followed by an empty line.
    let (serialized, patience) = (serialized(server.addr), Instant::now());
    while engine.stats().bytes_out < (polls * (serialized + 2)) as u64 {
        engine.turn(&mut (), Some(Duration::from_millis(100)))?;
        if patience.elapsed() > Duration::from_secs(60) {
            return Err(format!("not all polls could be sent: {:?}", engine.stats()).into());
        }
    }
    let held = counting::live_bytes();
    let stats = engine.stats();
    if stats.in_flight != polls || stats.failed + stats.answered > 0 {
        return Err(format!("not all polls are held open: {stats:?}").into());
    }
    let what = match kind {
        Requests::Clones => "held polls, clones of one request".to_owned(),
        Requests::ClonesInSession => "the same, in a session".to_owned(),
        Requests::Own => format!("held polls, individual {serialized} B requests"),
    };
    let grown = held - made;
    let is_kept = report(&what, polls, made - start, grown, kind, serialized, bar);
    Ok((grown as f64 / polls as f64, is_kept))
}

/// Like [`hold`], but over https. Also measures what rustls alone keeps for such a connection.
fn hold_tls(polls: usize) -> Result<bool, Box<dyn Error>> {
    /// Connections of rustls alone. A few are enough, because all take the same memory, and each
    /// costs a handshake.
    const BARE: usize = 100;
    /// Concurrent handshakes. With many more, some would wait for the processor until their
    /// deadline.
    const AT_ONCE: usize = 64;
    let server = TlsServer::start()?;
    let config = tls_server::client_config(&server)?;
    // The first connection allocates what all of them share.
    let first = tls_server::bare_connections(&server, &config, 1)?;
    let before = counting::live_bytes();
    let bare = tls_server::bare_connections(&server, &config, BARE)?;
    let own = (counting::live_bytes() - before) as f64 / BARE as f64;
    println!(
        "{:38} {BARE:>9} {own:>8.1}",
        "rustls alone, after a handshake"
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
            return Err(format!("not all polls could be sent: {:?}", engine.stats()).into());
        }
    }
    let held = counting::live_bytes();
    let stats = engine.stats();
    if stats.in_flight != polls || stats.failed + stats.answered > 0 {
        return Err(format!("not all polls are held open: {stats:?}").into());
    }
    let each = (held - made) as f64 / polls as f64;
    println!(
        "{:38} {:>9} {:>8.1}",
        "in addition to rustls",
        "",
        each - own
    );
    let bar = Bar {
        bar: TLS_POLL_BAR,
        goal: own + TLS_POLL_GOAL_BESIDE_RUSTLS,
    };
    let kind = Requests::Clones;
    let (what, serialized) = ("held https polls, clones of one request", 0);
    Ok(report(
        what,
        polls,
        made - start,
        held - made,
        kind,
        serialized,
        &bar,
    ))
}

fn delay(delayed: usize, kind: Requests) -> Result<bool, Box<dyn Error>> {
    // No connection is made to this address.
    let addr = SocketAddr::from(([127, 0, 0, 1], 9));
    let start = counting::live_bytes();
    let mut engine = engine(1)?;
    let model = request(addr, 0)?;
    let made = counting::live_bytes();
    let hour = Duration::from_secs(3600);
    for i in 0..delayed {
        let request = match kind {
            Requests::Clones | Requests::ClonesInSession => model.clone(),
            Requests::Own => request(addr, i)?,
        };
        engine.start(
            engine
                .send(request)
                .after(hour + Duration::from_millis(i as u64))
                .read_by(nothing),
        );
    }
    // One turn does not start so many.
    while engine.turn(&mut (), Some(Duration::ZERO))?.more {}
    let held = counting::live_bytes();
    let stats = engine.stats();
    if stats.delayed != delayed {
        return Err(format!("not all requests are delayed: {stats:?}").into());
    }
    let serialized = serialized(addr);
    let what = match kind {
        Requests::Clones | Requests::ClonesInSession => "delayed, clones of one request".to_owned(),
        Requests::Own => format!("delayed, individual {serialized} B requests"),
    };
    Ok(report(
        &what,
        delayed,
        made - start,
        held - made,
        kind,
        serialized,
        &DELAYED,
    ))
}

/// Returns the length of a [`request`] as it is stored, without the empty line after its head.
fn serialized(addr: SocketAddr) -> usize {
    format!(
        "GET /hold?bot={:07} HTTP/1.1\r\nHost: {addr}\r\nAccept: application/json\r\nCookie: session={:032x}\r\n",
        0, 0
    )
    .len()
}

/// Prints a row of the table. Returns whether the limit is met.
fn report(
    what: &str,
    number: usize,
    fixed: isize,
    grown: isize,
    kind: Requests,
    serialized: usize,
    of: &Bar,
) -> bool {
    let more = match kind {
        Requests::Clones | Requests::ClonesInSession => 0.0,
        Requests::Own => serialized as f64 + OWN,
    };
    let each = grown as f64 / number as f64;
    let (bar, goal) = (of.bar + more, of.goal + more);
    let verdict = match each {
        each if each <= goal => "goal reached",
        each if each <= bar => "within the limit",
        _ => "OVER THE LIMIT",
    };
    let all = fixed + grown;
    println!("{what:38} {number:>9} {each:>8.1} {bar:>8.0} {goal:>8.0} {all:>11}  {verdict}");
    each <= bar
}
