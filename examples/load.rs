//! Sends one request over and over, on as many connections as asked, and says what it cost.
//!
//! ```sh
//! cargo run --release --example load -- --requests 100000 --connections 50
//! cargo run --release --example load -- --pipeline 16
//! cargo run --release --example load -- --tls
//! cargo run --release --example load -- --url http://127.0.0.1:8080/index.html
//! cargo run --release --example load -- --url http://localhost/ --unix /run/server.sock
//! ```
//!
//! Without `--url` it starts a server of its own, in another process, with the paths /small,
//! /fields, /chunked, /large (64 KiB), /huge (1 MiB) and /close.

#[path = "support/args.rs"]
mod args;
#[path = "../tests/counting/mod.rs"]
mod counting;
#[path = "support/server.rs"]
mod server;
#[path = "support/tls_server.rs"]
mod tls_server;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use httpstream::tls::Tls;
use httpstream::{
    Config, Context, Engine, Flow, Keepalive, Next, Readback, Reply, Request, Response, Route,
};
use server::Server;
use tls_server::TlsServer;

const USAGE: &str = "\
Usage: load [--requests N] [--connections N] [--pipeline DEPTH] [--path PATH [--tls] | --url URL] [--unix SOCKET | --options] [--stream]

Sends one request over and over, and prints what it cost.

  --requests N      requests in all (default 10000)
  --connections N   connections at once (default 1)
  --pipeline DEPTH  requests unanswered at once on each (default 1)
  --path PATH       what the program's own server is asked for: /small (default), /fields, /chunked, /large, /huge, /close
  --tls             over https
  --url URL         send to another server
  --unix SOCKET     through this unix socket
  --stream          take bodies piece by piece
  --options         with what can be set on a TCP socket set, and from 127.0.0.2
";
const PATHS: [&str; 6] = ["/small", "/fields", "/chunked", "/large", "/huge", "/close"];

struct Load {
    to_send: u64,
    answered: u64,
    failed: u64,
    body_bytes: u64,
}

/// Takes bodies piece by piece, as they come.
struct Streaming;

impl Readback<Load> for Streaming {
    fn on_head(&mut self, _: &mut Load, _: &Response<'_>, _: &mut Context<'_, Load>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, load: &mut Load, data: &[u8], _: &mut Context<'_, Load>) -> Flow {
        load.body_bytes += data.len() as u64;
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        load: &mut Load,
        reply: Reply<'_>,
        cx: &mut Context<'_, Load>,
    ) -> Next<Load> {
        load.on_reply(reply, cx)
    }
}

/// What is to become of bodies.
#[derive(Clone, Copy)]
enum Bodies {
    Collected,
    Streamed,
}

impl Load {
    fn on_reply(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) => {
                self.answered += 1;
                self.body_bytes += response.body().len() as u64;
            }
            Err(error) => {
                eprintln!("{error:#}");
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

/// What the request is sent to.
enum Target {
    Own(String),
    Other(Request),
}

/// How its own server is spoken to.
#[derive(Clone, Copy)]
enum Scheme {
    Http,
    Https,
}

/// A server in a process of its own, which lives as long as this.
enum Running {
    Plain { _server: Server },
    Tls { _server: TlsServer },
}

fn main() -> ExitCode {
    server::serve_if_asked();
    tls_server::serve_if_asked();
    let (mut requests, mut connections, mut depth) = (10_000, 1, 1);
    let mut scheme = Scheme::Http;
    let mut target = Target::Own(PATHS[0].to_owned());
    let mut route = Route::default();
    let mut bodies = Bodies::Collected;
    let mut args = args::Args::new("load", USAGE);
    let number = |text: &str| text.parse().ok().filter(|&n: &u64| n > 0);
    let path = |text: &str| PATHS.contains(&text).then(|| text.to_owned());
    while let Some(arg) = args.next() {
        match &*arg {
            "--requests" => requests = args.value(&arg, "a number above 0", number),
            "--connections" => connections = args.value(&arg, "a number above 0", number),
            "--pipeline" => depth = args.value(&arg, "a number above 0", number),
            "--path" => target = Target::Own(args.value(&arg, "a path of the server", path)),
            "--stream" => bodies = Bodies::Streamed,
            "--tls" => scheme = Scheme::Https,
            "--url" => {
                let url = args.value(&arg, "a URL", |text| Some(text.to_owned()));
                match request(&url) {
                    Ok(request) => target = Target::Other(request),
                    Err(error) => args.wrong(&format!("--url {url:?}: {error:#}")),
                }
            }
            "--unix" => {
                route = Route::unix(args.value(&arg, "a path", |path| Some(path.to_owned())))
            }
            "--options" => route = with_options(),
            _ => args.wrong(&format!("{arg:?}: no such option")),
        }
    }
    match run(requests, connections, depth, target, scheme, route, bodies) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn request(url: &str) -> Result<Request, httpstream::Error> {
    Request::get(url).header("Accept", "*/*").build()
}

/// What can be set on a socket on every system.
fn with_options() -> Route {
    let mut keepalive = Keepalive::after(Duration::from_secs(60));
    keepalive.interval = Some(Duration::from_secs(10));
    keepalive.probes = Some(3);
    let mut route = Route::default();
    route.bind_v4 = Some([127, 0, 0, 2].into());
    route.keepalive = Some(keepalive);
    route.nodelay = true;
    route.send_buffer = Some(64 * 1024);
    route.receive_buffer = Some(64 * 1024);
    route
}

fn run(
    requests: u64,
    connections: u64,
    depth: u64,
    target: Target,
    scheme: Scheme,
    route: Route,
    bodies: Bodies,
) -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.route = route;
    let (_server, request) = match (target, scheme) {
        (Target::Own(path), Scheme::Http) => {
            let server = Server::start()?;
            let request = request(&format!("http://{}{path}", server.addr))?;
            (Some(Running::Plain { _server: server }), request)
        }
        (Target::Own(path), Scheme::Https) => {
            let server = TlsServer::start()?;
            config.route.tls = Tls::with_roots_pem(server.root_pem.as_bytes())?;
            let request = request(&format!("https://{}{path}", server.addr()))?;
            (Some(Running::Tls { _server: server }), request)
        }
        (Target::Other(request), _) => (None, request),
    };
    config.max_connections = connections as usize;
    config.max_connections_per_origin = connections as usize;
    config.pipeline("*", depth as usize);
    let at_once = connections.saturating_mul(depth).min(requests);
    let mut engine = Engine::with_config(config)?;
    let mut load = Load {
        to_send: requests - at_once,
        answered: 0,
        failed: 0,
        body_bytes: 0,
    };
    for _ in 0..at_once {
        match bodies {
            Bodies::Collected => engine.submit(request.clone(), Load::on_reply),
            Bodies::Streamed => engine.submit_to(request.clone(), Streaming),
        };
    }

    let begin = Instant::now();
    // Buffers that are kept are made by the first requests; what the second half asks for is asked
    // for each time.
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
    println!("pipelined    {}", stats.pipelined);
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
