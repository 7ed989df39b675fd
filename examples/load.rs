//! Sends one request over and over, on as many connections as asked, and says what it cost.
//!
//! ```sh
//! cargo run --release --example load -- --requests 100000 --connections 50
//! cargo run --release --example load -- --url http://127.0.0.1:8080/index.html
//! ```
//!
//! Without `--url` it starts a server of its own, in another process, with the paths /small, /fields, /chunked, /large and /close.

#[path = "../tests/counting/mod.rs"]
mod counting;
#[path = "support/server.rs"]
mod server;

use std::error::Error;
use std::time::Instant;

use httpstream::{Config, Context, Engine, Next, Reply, Request};
use server::Server;

struct Load {
    to_send: u64,
    answered: u64,
    failed: u64,
    body_bytes: u64,
}

impl Load {
    fn on_reply(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) => {
                self.answered += 1;
                self.body_bytes += response.body().len() as u64;
            }
            Err(error) => {
                eprintln!("{error}");
                self.failed += 1;
            }
        }
        match self.to_send {
            0 => Next::done(),
            _ => {
                self.to_send -= 1;
                Next::again()
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    server::serve_if_asked();
    let (mut requests, mut connections) = (10_000, 1);
    let (mut url, mut path) = (None, "/small".to_owned());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} wants a value"))?;
        match &*arg {
            "--requests" => requests = value.parse()?,
            "--connections" => connections = value.parse::<u64>()?,
            "--url" => url = Some(value),
            "--path" => path = value,
            _ => return Err(format!("{arg}: not known; see the head of examples/load.rs").into()),
        }
    }
    let server = match url {
        None => Some(Server::start()?),
        Some(_) => None,
    };
    let url = url.unwrap_or_else(|| {
        let addr = server.as_ref().map(|server| server.addr.to_string());
        format!("http://{}{path}", addr.unwrap_or_default())
    });

    let mut config = Config::default();
    config.max_connections = connections as usize;
    config.max_connections_per_origin = connections as usize;
    let mut engine = Engine::with_config(config)?;
    let request = Request::get(&url).header("Accept", "*/*").build()?;
    let mut load = Load {
        to_send: requests - connections.min(requests),
        answered: 0,
        failed: 0,
        body_bytes: 0,
    };
    for _ in 0..connections.min(requests) {
        engine.submit(request.clone(), Load::on_reply);
    }

    let begin = Instant::now();
    // Buffers that are kept are made by the first requests; what the second half asks for is asked for each time.
    while load.answered + load.failed < requests / 2 {
        engine.turn(&mut load, None)?;
    }
    let (settled, halfway) = (counting::calls(), load.answered);
    engine.run(&mut load)?;
    let allocations = counting::calls() - settled;
    let elapsed = begin.elapsed();

    let stats = engine.stats();
    let per = |count: u64, of: u64| count as f64 / of.max(1) as f64;
    println!("answered     {} ({} failed)", load.answered, load.failed);
    println!("connections  {} opened", stats.opened);
    println!("body bytes   {}", load.body_bytes);
    println!(
        "turns        {:.3} a request",
        per(stats.turns, load.answered)
    );
    println!(
        "allocations  {:.3} a request, in the second half",
        per(allocations, load.answered - halfway)
    );
    println!(
        "time         {:.2} us a request",
        elapsed.as_secs_f64() * 1e6 / load.answered.max(1) as f64
    );
    match load.failed {
        0 => Ok(()),
        n => Err(format!("{n} requests failed").into()),
    }
}
