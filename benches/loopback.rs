//! `cargo bench --bench loopback`: the engine's overhead for a request on loopback, as a ratio.
//!
//! The reference is a blocking socket that writes the same bytes and reads until the answer is
//! complete. It alternates with the engine, so both run under the same conditions. Counts, which do
//! not depend on conditions, are in `checks/tests/counts.rs`; parts of a request are measured
//! separately in `checks/benches/micro.rs`.

#[path = "../examples/support/server.rs"]
mod server;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use httpstream::{Context, Engine, Next, Reply, Request};
use server::Server;

const ROUNDS: usize = 9;
const REQUESTS: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    server::serve_if_asked();
    let server = Server::start()?;
    println!(
        "{:28} {:>10} {:>10} {:>6}",
        "one connection", "engine us", "socket us", "ratio"
    );
    for path in ["/small", "/fields", "/chunked", "/large"] {
        let length = answer_length(server.addr, path)?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push((
                by_engine(server.addr, path)?,
                by_socket(server.addr, path, length)?,
            ));
        }
        let median = |of: fn(&(Duration, Duration)) -> Duration| {
            let mut times = rounds.iter().map(of).collect::<Vec<_>>();
            times.sort_unstable();
            times[ROUNDS / 2].as_secs_f64() * 1e6 / REQUESTS as f64
        };
        let (engine, socket) = (median(|round| round.0), median(|round| round.1));
        let ratio = engine / socket;
        println!("{path:28} {engine:>10.2} {socket:>10.2} {ratio:>6.2}");
    }
    Ok(())
}

/// Runs a chain of [`REQUESTS`] requests, one after another. The state is the number left.
fn by_engine(addr: SocketAddr, path: &str) -> Result<Duration, httpstream::Error> {
    fn again(left: &mut usize, reply: Reply<'_>, _: &mut Context<'_, usize>) -> Next<usize> {
        black_box(reply.expect("an answer").body());
        *left -= 1;
        match *left {
            0 => Next::done(),
            _ => Next::again(),
        }
    }
    let mut engine = Engine::new()?;
    let request = Request::get(format!("http://{addr}{path}")).build()?;
    engine.submit(request, again);
    let begin = Instant::now();
    engine.run(&mut REQUESTS.clone())?;
    Ok(begin.elapsed())
}

fn by_socket(addr: SocketAddr, path: &str, length: usize) -> std::io::Result<Duration> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    let mut socket = TcpStream::connect(addr)?;
    let mut buffer = vec![0; 128 * 1024];
    let begin = Instant::now();
    for _ in 0..REQUESTS {
        socket.write_all(request.as_bytes())?;
        let mut left = length;
        while left > 0 {
            left -= socket.read(&mut buffer)?;
        }
    }
    Ok(begin.elapsed())
}

/// Returns the number of bytes in an answer, by reading until nothing more arrives.
fn answer_length(addr: SocketAddr, path: &str) -> std::io::Result<usize> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    Ok(answer.len())
}
