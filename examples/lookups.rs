//! What a herd of names costs: thousands of look-ups at once, through hickory on the engine's own
//! loop, with 256 file descriptors.
//!
//! ```sh
//! cargo run --release --example lookups                  # 10,000 names, five times
//! cargo run --release --example lookups -- --names 2000 --runs 1 --window 256
//! ```
//!
//! Each name is asked for in both families, of a name server in a thread of this program. Every
//! other name exists, and has an address where nobody listens: its request fails to connect, that
//! of the others for want of a name. So each look-up ends, and nothing else is measured. Turns are
//! measured in the time that this thread computed, which other programs on the machine do not
//! change.

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

Looks up N names at once, and prints how long it took, the longest turn of the loop and the file descriptors in use.
The exit status is 1 when a look-up ends other than it should, when something is left over, or when the median of the
longest turns is over 25 ms.

  --names N     names looked up at once (default 10000)
  --runs N      how often (default 5)
  --window N    questions under way at once (default: the engine's own)
";

/// No turn may take longer.
const LONGEST_TURN: Duration = Duration::from_millis(25);

/// What this process may open.
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
            return Err(format!("{left} files are open afterwards, {files} were before").into());
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
        "median of the longest turns: {:.2} ms, bar {:.0} ms",
        median.as_secs_f64() * 1e3,
        LONGEST_TURN.as_secs_f64() * 1e3
    );
    Ok(match median <= LONGEST_TURN {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

struct Seen {
    took: Duration,
    longest_turn: Duration,
    turns: usize,
    most_files: usize,
}

/// How the look-ups ended.
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
    // So many links wait for their names at once; a socket they have only afterwards.
    config.max_connections = names;
    // A herd takes its time where the machine is slow or busy; none of it counts as lost before
    // this.
    config.timeouts.resolve = Some(Duration::from_secs(120));
    let mut engine = Engine::<Ends>::with_config(config)?;
    // Nobody listens there as long as this is kept, bound and not listening.
    let closed = closed_port()?;
    for n in 0..names {
        let request = Request::get(&format!("http://name{n}.test:{closed}/")).build()?;
        engine.submit(request, |ends, reply, _| {
            match reply {
                Err(error) if error.kind() == ErrorKind::Connect => ends.found += 1,
                Err(error) if error.lookup() == Some(&LookupError::NotFound) => ends.unknown += 1,
                Err(error) => ends.other = Some(format!("{error:#}")),
                Ok(_) => ends.other = Some("an answer, from nobody".to_owned()),
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
        return Err(format!("{found} names were found, {unknown} unknown").into());
    }
    if engine.stats().links_open > 0 {
        return Err("links are left open".into());
    }
    Ok(seen)
}

/// A port of 127.0.0.1 that refuses connections.
fn closed_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// The time that this thread has computed.
fn computed() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos))
}

fn open_files() -> std::io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

// ---- the name server
// -----------------------------------------------------------------------------------------------

/// Answers for `name<N>.test`: where N is even, with 127.0.0.1 or with no address of IPv6, else
/// that there is no such name.
fn serve() -> std::io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((n, peer)) = socket.recv_from(&mut query) {
            if let Some(response) = answer(&query[..n]) {
                // Who asks and is gone by now does not want it.
                let _ = socket.send_to(&response, peer);
            }
        }
    });
    Ok(addr)
}

/// The response to a query with one question (RFC 1035 §4).
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const A: [u8; 2] = [0, 1];
    let label = query.get(13..13 + usize::from(*query.get(12)?))?;
    let is_even = matches!(label.last()?, b'0' | b'2' | b'4' | b'6' | b'8');
    let name = query[12..].iter().position(|&byte| byte == 0)? + 13;
    let question = query.get(12..name + 4)?;
    let has_address = is_even && question.ends_with(&[A, [0, 1]].concat());
    let mut response = query[..2].to_vec();
    // A response, authoritative, recursion asked for and available; NXDOMAIN or not.
    response.extend_from_slice(&[0x85, if is_even { 0x80 } else { 0x83 }]);
    let (answers, authorities) = (u8::from(has_address), u8::from(!has_address));
    response.extend_from_slice(&[0, 1, 0, answers, 0, authorities, 0, 0]);
    response.extend_from_slice(question);
    if has_address {
        // The question's name, A, IN, 60 s, four bytes.
        response.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    } else {
        // `test`, SOA, IN, 60 s: names `.` and five numbers, the last of which is how long to keep
        // this.
        response.extend_from_slice(b"\x04test\0\0\x06\0\x01\0\0\0\x3c\0\x16\0\0");
        for number in [1_u32, 60, 60, 60, 60] {
            response.extend_from_slice(&number.to_be_bytes());
        }
    }
    Some(response)
}
