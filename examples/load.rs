//! Sends the same request many times, over a given number of connections, and prints what it cost.
//!
//! ```sh
//! cargo run --release --example load -- --requests 100000 --connections 50
//! cargo run --release --example load -- --pipeline 16
//! cargo run --release --example load -- --tls
//! cargo run --release --example load -- --url http://127.0.0.1:8080/index.html
//! cargo run --release --example load -- --url http://localhost/ --unix /run/server.sock
//! ```
//!
//! Without `--url` it starts its own server in a separate process, with the paths /small, /fields,
//! /chunked, /large (64 KiB), /huge (1 MiB) and /close.

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

use httpstream::session::{Jar, Rate, Redirects, Session};
use httpstream::tls::Tls;
use httpstream::{
    Config, Context, Engine, Flow, Keepalive, Next, Readback, Reply, Request, Response, Route,
};
use server::Server;
use tls_server::TlsServer;

const USAGE: &str = "\
Usage: load [--requests N] [--connections N] [--pipeline DEPTH] [--path PATH [--tls] | --url URL]
            [--unix SOCKET | --options] [--stream] [--session | --lanes N]

Sends the same request many times, and prints what it cost.

  --requests N      total number of requests (default 10000)
  --connections N   concurrent connections (default 1)
  --pipeline DEPTH  requests in flight on each connection (default 1)
  --path PATH       path on the program's own server: /small (default), /fields, /chunked, /large,
                    /huge or /close
  --tls             use https
  --url URL         use another server
  --unix SOCKET     connect through this unix socket
  --stream          stream the bodies instead of collecting them
  --session         send the requests in a session that follows redirects and keeps cookies, of
                    which the program's own server sends neither
  --lanes N         send the requests in a session with rates and outboxes, to N of them in turn
  --options         set socket options (keepalive, no delay, buffer sizes), and connect from
                    127.0.0.2
";
const PATHS: [&str; 6] = ["/small", "/fields", "/chunked", "/large", "/huge", "/close"];

struct Load {
    to_send: u64,
    /// A request to each lane, if there are lanes.
    to_lanes: Vec<Request>,
    answered: u64,
    failed: u64,
    body_bytes: u64,
}

/// Streams bodies instead of collecting them.
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

/// How bodies are read.
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
        if self.to_send == 0 {
            return Next::done();
        }
        self.to_send -= 1;
        match self.to_lanes.len() as u64 {
            0 => Next::again(),
            lanes => Next::send(self.to_lanes[(self.to_send % lanes) as usize].clone()),
        }
    }
}

/// The server: a path on the program's own server, or a request to another one.
enum Target {
    Own(String),
    Other(Request),
}

/// The scheme for requests to the program's own server.
#[derive(Clone, Copy)]
enum Scheme {
    Http,
    Https,
}

/// A server in a separate process, which ends when this is dropped.
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
    let (mut session, mut lanes) = (None, 0);
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
            "--session" => session = Some(following_session()),
            "--lanes" => {
                session = Some(session_with_lanes());
                lanes = args.value(&arg, "a number above 0", number);
            }
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
    let counts = (requests, connections, depth);
    match run(counts, target, scheme, route, bodies, session, lanes) {
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

/// Returns a session that follows redirects and keeps cookies.
fn following_session() -> Session {
    let session = Session::builder().redirects(Redirects::limited(10));
    let session = session.cookies(Jar::new()).build();
    session.expect("these settings are valid")
}

/// Returns a session whose lanes are outboxes, with rates that are never reached.
fn session_with_lanes() -> Session {
    let session = Session::builder()
        .rate(Rate::per_second(1_000_000).burst(1_000_000))
        .lane_rate(Rate::per_second(1_000_000).burst(1_000_000))
        .lane_concurrency(1)
        .build();
    session.expect("these settings are valid")
}

/// Returns a route with a source address and all socket options that every system has.
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
    (requests, connections, depth): (u64, u64, u64),
    target: Target,
    scheme: Scheme,
    route: Route,
    bodies: Bodies,
    session: Option<Session>,
    lanes: u64,
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
    let request = match session {
        Some(session) => request.edit().session(&session).build()?,
        None => request,
    };
    let to_lanes: Result<Vec<_>, _> = (0..lanes)
        .map(|lane| request.edit().lane(lane.to_string()).build())
        .collect();
    config.max_connections = connections as usize;
    config.max_connections_per_origin = connections as usize;
    config.pipeline("*", depth as usize);
    let at_once = connections.saturating_mul(depth).min(requests);
    let mut engine = Engine::with_config(config)?;
    let mut load = Load {
        to_send: requests - at_once,
        to_lanes: to_lanes?,
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
    // The first requests allocate buffers that are then kept. What the second half allocates, every
    // request allocates.
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
        "turns        {:.3} per request",
        per(stats.turns, load.answered)
    );
    println!(
        "allocations  {:.3} per request, in the second half",
        per(allocations, load.answered - halfway)
    );
    println!(
        "time         {:.2} us per request",
        elapsed.as_secs_f64() * 1e6 / load.answered.max(1) as f64
    );
    match load.failed {
        0 => Ok(()),
        n => Err(format!("{n} requests failed").into()),
    }
}
