//! Measures thousands of concurrent DNS lookups, by hickory on the engine's own loop, with at most
//! 256 file descriptors.
//!
//! ```sh
//! cargo run --release --example lookups                  # 10,000 names, five times
//! cargo run --release --example lookups -- --names 2000 --runs 1 --window 256
//! ```
//!
//! Each name is looked up in both address families, at a name server on a thread of this program.
//! Every other name exists, and has an address at which nothing listens, so its request fails to
//! connect. The requests for the other names fail because the name does not exist. Thus every
//! request ends with its lookup, and nothing else is measured. The duration of a turn is this
//! thread's processor time, which other programs hardly affect.

#[path = "support/args.rs"]
mod args;

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httpstream::resolver::{Hickory, HickoryConfig, LookupError};
use httpstream::{Config, Engine, ErrorKind, Next, Request};
use rustix::process::{Resource, getrlimit, setrlimit};

const USAGE: &str = "\
Usage: lookups [--names N] [--runs N] [--window N]

Looks up N names at once, and prints how long this took, the longest turn of the loop, and the
number of file descriptors in use. The exit code is 1 if a lookup has an unexpected result, if a
descriptor or connection is left open, or if the median of the longest turns is over 25 ms.

  --names N     names looked up at once (default 10000)
  --runs N      number of runs (default 5)
  --window N    concurrent DNS queries (default: the engine's)
";

/// The limit for the median, over the runs, of the longest turn.
const LONGEST_TURN: Duration = Duration::from_millis(25);

/// The limit of open files that this process sets for itself.
const FILES: u64 = 256;

fn main() -> ExitCode {
    let (mut names, mut runs, mut window) = (10_000, 5, Config::default().max_lookups);
    let mut args = args::Args::new("lookups", USAGE);
    while let Some(arg) = args.next() {
        let number = |text: &str| text.parse().ok().filter(|n: &usize| *n > 0);
        match &*arg {
            "--names" => names = args.value(&arg, "a number", number),
            "--runs" => runs = args.value(&arg, "a number", number),
            "--window" => window = args.value(&arg, "a number", number),
            _ => args.wrong(&format!("{arg:?}: no such option")),
        }
    }
    run(names, runs, window).unwrap_or_else(|error| {
        eprintln!("lookups: {error}");
        ExitCode::FAILURE
    })
}

fn run(names: usize, runs: usize, window: usize) -> Result<ExitCode, Box<dyn Error>> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.map_or(FILES, |hard| FILES.min(hard)));
    setrlimit(Resource::Nofile, limit)?;
    let server = serve()?;
    println!(
        "{:>8} {:>8} {:>10} {:>10} {:>12} {:>8} {:>8}",
        "names", "window", "ms", "names/s", "longest turn", "turns", "files"
    );
    let mut longest = Vec::new();
    for _ in 0..runs {
        let files = open_files()?;
        let seen = look_up(names, window, server)?;
        let left = open_files()?;
        if left != files {
            return Err(format!(
                "{left} files are open after a run, but {files} were open before it"
            )
            .into());
        }
        println!(
            "{names:>8} {window:>8} {:>10.0} {:>10.0} {:>9.2} ms {:>8} {:>8}",
            seen.took.as_secs_f64() * 1e3,
            names as f64 / seen.took.as_secs_f64(),
            seen.longest_turn.as_secs_f64() * 1e3,
            seen.turns,
            seen.most_files,
        );
        longest.push(seen.longest_turn);
    }
    longest.sort();
    let median = longest[longest.len() / 2];
    println!(
        "median of the longest turns: {:.2} ms, limit {:.0} ms",
        median.as_secs_f64() * 1e3,
        LONGEST_TURN.as_secs_f64() * 1e3
    );
    Ok(match median <= LONGEST_TURN {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The measurements of one run.
struct Seen {
    took: Duration,
    longest_turn: Duration,
    turns: usize,
    most_files: usize,
}

/// How the lookups ended.
#[derive(Default)]
struct Ends {
    found: usize,
    unknown: usize,
    other: Option<String>,
}

fn look_up(names: usize, window: usize, server: SocketAddr) -> Result<Seen, Box<dyn Error>> {
    let mut asked = HickoryConfig::default();
    asked.servers = vec![server];
    let mut config = Config::default();
    config.resolver = Some(Arc::new(move || {
        Box::new(Hickory::with_config(asked.clone()))
    }));
    config.hosts_file = None;
    config.max_lookups = window;
    // So many links wait for their names at once. A link has no socket before its name is resolved.
    config.max_connections = names;
    // On a slow or busy computer so many lookups take a while, and none of them should time out.
    config.timeouts.resolve = Some(Duration::from_secs(120));
    let mut engine = Engine::<Ends>::with_config(config)?;
    // A port on which nothing listens, so connections to it are refused.
    let closed = closed_port()?;
    for n in 0..names {
        let request = Request::get(format!("http://name{n}.test:{closed}/")).build()?;
        engine.submit(request, |ends, reply, _| {
            match reply {
                Err(error) if error.kind() == ErrorKind::Connect => ends.found += 1,
                Err(error) if error.lookup() == Some(&LookupError::NotFound) => ends.unknown += 1,
                Err(error) => ends.other = Some(format!("{error:#}")),
                Ok(_) => ends.other = Some("a response from a closed port".to_owned()),
            }
            Next::done()
        });
    }
    let mut ends = Ends::default();
    let begin = Instant::now();
    let mut seen = Seen {
        took: Duration::ZERO,
        longest_turn: Duration::ZERO,
        turns: 0,
        most_files: 0,
    };
    while engine.pending() > 0 {
        let before = computed()?;
        engine.turn(&mut ends, None)?;
        seen.longest_turn = seen.longest_turn.max(computed()?.saturating_sub(before));
        seen.turns += 1;
        if seen.turns.is_multiple_of(16) {
            seen.most_files = seen.most_files.max(open_files()?);
        }
    }
    seen.took = begin.elapsed();
    if let Some(other) = ends.other {
        return Err(other.into());
    }
    if (ends.found, ends.unknown) != (names.div_ceil(2), names / 2) {
        let (found, unknown) = (ends.found, ends.unknown);
        return Err(
            format!("wrong results: {found} names were found, and {unknown} were not").into(),
        );
    }
    if engine.stats().links_open > 0 {
        return Err("connections were left open".into());
    }
    Ok(seen)
}

/// Returns a port of 127.0.0.1 that refuses connections.
fn closed_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Returns the processor time of this thread.
fn computed() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos))
}

fn open_files() -> std::io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

// ---- the name server ----

/// Starts a name server for `name<N>.test`. If N is even, the name has the address 127.0.0.1 and no
/// IPv6 address. If N is odd, the name does not exist.
fn serve() -> std::io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((n, peer)) = socket.recv_from(&mut query) {
            if let Some(response) = answer(&query[..n]) {
                // An error means that the client is gone and no longer needs the response.
                let _ = socket.send_to(&response, peer);
            }
        }
    });
    Ok(addr)
}

/// Returns the response to a query with one question (RFC 1035 §4).
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const A: [u8; 2] = [0, 1];
    let label = query.get(13..13 + usize::from(*query.get(12)?))?;
    let is_even = matches!(label.last()?, b'0' | b'2' | b'4' | b'6' | b'8');
    let name = query[12..].iter().position(|&byte| byte == 0)? + 13;
    let question = query.get(12..name + 4)?;
    let has_address = is_even && question.ends_with(&[A, [0, 1]].concat());
    let mut response = query[..2].to_vec();
    // Flags: a response, authoritative, recursion desired and available; NOERROR or NXDOMAIN.
    response.extend_from_slice(&[0x85, if is_even { 0x80 } else { 0x83 }]);
    let (answers, authorities) = (u8::from(has_address), u8::from(!has_address));
    response.extend_from_slice(&[0, 1, 0, answers, 0, authorities, 0, 0]);
    response.extend_from_slice(question);
    if has_address {
        // The question's name (a pointer to it), A, IN, a TTL of 60 s, four bytes of address.
        response.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    } else {
        // `test`, SOA, IN, a TTL of 60 s. The data are two names, both `.`, and five numbers, of
        // which the last tells for how many seconds to cache the negative response (RFC 2308 §4).
        response.extend_from_slice(b"\x04test\0\0\x06\0\x01\0\0\0\x3c\0\x16\0\0");
        for number in [1_u32, 60, 60, 60, 60] {
            response.extend_from_slice(&number.to_be_bytes());
        }
    }
    Some(response)
}
