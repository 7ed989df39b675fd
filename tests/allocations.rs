//! The number of allocations for a request and for a wait. It is the same on every machine, however
//! busy.

mod counting;
#[path = "../examples/support/server.rs"]
mod server;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use httpstream::resolver::{Family, LookupAnswer, LookupId, Resolve, Table, Wake};
use httpstream::session::{Decode, Jar, Rate, Redirects, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Flow, LowSpeed, Next, Readback, Reply, Request, Response, Sim,
};

/// Starts a server on another thread, whose allocations are counted separately.
fn start_server() -> SocketAddr {
    let listener = server::listen().expect("a port on loopback");
    let addr = listener.local_addr().expect("it listens");
    std::thread::spawn(move || server::serve(listener));
    addr
}

#[derive(Default)]
struct Answered {
    requests: usize,
    body_bytes: usize,
}

impl Answered {
    fn on_reply(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        self.requests += 1;
        self.body_bytes += reply.expect("an answer").body().len();
        Next::again()
    }
}

/// Like `Answered::on_reply`, with each body in pieces.
struct Streaming;

impl Readback<Answered> for Streaming {
    fn on_head(
        &mut self,
        _: &mut Answered,
        _: &Response<'_>,
        _: &mut Context<'_, Answered>,
    ) -> Flow {
        Flow::Stream
    }

    fn on_data(
        &mut self,
        answered: &mut Answered,
        data: &[u8],
        _: &mut Context<'_, Answered>,
    ) -> Flow {
        answered.body_bytes += data.len();
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        answered: &mut Answered,
        reply: Reply<'_>,
        cx: &mut Context<'_, Answered>,
    ) -> Next<Answered> {
        answered.on_reply(reply, cx)
    }
}

/// Returns the fewest allocations among ten runs of `requests` each. The first runs allocate the
/// buffers that are kept, as many as there are ever incomplete responses at once. The cost of every
/// request shows in every run.
fn least_allocations(path: &str, connections: usize, requests: usize, body_bytes: usize) -> u64 {
    let url = format!("http://{}{path}", start_server());
    least_allocations_at(&url, Config::default(), connections, requests, body_bytes)
}

fn least_allocations_at(
    url: &str,
    config: Config,
    connections: usize,
    requests: usize,
    body_bytes: usize,
) -> u64 {
    let request = Request::get(url).build().expect("a request");
    least_allocations_of(&request, config, connections, requests, body_bytes)
}

fn least_allocations_of(
    request: &Request,
    mut config: Config,
    connections: usize,
    requests: usize,
    body_bytes: usize,
) -> u64 {
    config.max_connections = connections;
    config.max_connections_per_origin = connections;
    let mut engine = Engine::with_config(config).expect("an engine");
    for _ in 0..connections {
        engine.submit(request.clone(), Answered::on_reply);
    }
    let mut run = || {
        let mut answered = Answered::default();
        let before = counting::calls();
        while answered.requests < requests {
            engine.turn(&mut answered, None).expect("a turn");
        }
        assert_eq!(answered.body_bytes, answered.requests * body_bytes);
        counting::calls() - before
    };
    run();
    (0..10).map(|_| run()).min().unwrap_or(u64::MAX)
}

#[test]
fn sending_again_allocates_nothing() {
    for (path, body_bytes) in [("/small", 128), ("/chunked", 128), ("/large", 64 * 1024)] {
        for connections in [1, 50] {
            let least = least_allocations(path, connections, 400, body_bytes);
            assert_eq!(least, 0, "{path} on {connections} connections");
        }
    }
}

/// Each large response is held back once: 60,000 bytes are allowed at once.
#[test]
fn limiting_the_speed_allocates_nothing() {
    for (path, body_bytes) in [("/small", 128), ("/chunked", 128), ("/large", 64 * 1024)] {
        for connections in [1, 50] {
            let url = format!("http://{}{path}", start_server());
            let mut config = Config::default();
            let low_speed = LowSpeed::new(1, Duration::from_secs(60));
            config.timeouts.low_speed = Some(low_speed);
            let request = Request::get(&url).download_rate(480_000);
            let request = request.upload_rate(480_000).build().expect("a request");
            let least = least_allocations_of(&request, config, connections, 20, body_bytes);
            assert_eq!(least, 0, "{path} on {connections} connections");
        }
    }
}

/// As in a session that follows redirects, decodes and keeps cookies, whether the jar is empty or
/// not.
#[test]
fn sending_again_in_a_session_allocates_nothing() {
    let url = format!("http://{}/small", start_server());
    for cookie in [None, Some("id=1")] {
        let jar = Jar::new();
        if let Some(cookie) = cookie {
            jar.set(&url, cookie).expect("a cookie");
        }
        let session = Session::builder()
            .user_agent("bot")
            .redirects(Redirects::limited(10))
            .decode(Decode::all())
            .cookies(jar)
            .build();
        let get = session.expect("a session").get(&url);
        let request = get.build().expect("a request");
        let itself = request.edit().header("Accept-Encoding", "identity");
        let asks_itself = itself.build().expect("a request");
        for connections in [1, 50] {
            for request in [&request, &asks_itself] {
                let config = Config::default();
                let least = least_allocations_of(request, config, connections, 400, 128);
                assert_eq!(least, 0, "{cookie:?} on {connections} connections");
            }
        }
    }
}

/// A request that is redirected often allocates as much for its last hop as for its first.
#[test]
fn hops_are_not_copied_at_each_redirect() {
    let allocated = |count: usize| {
        let network = Network::new(1);
        network.host("a.test", [[10, 0, 0, 1]]);
        let addr = "10.0.0.1:80".parse().expect("an address");
        network.serve(addr, |request: &Incoming| match request.path() {
            "/0" => Answer::ok("end"),
            path => {
                let left: usize = path[1..].parse().expect("a number");
                Answer::status(302).header("Location", format!("/{}", left - 1))
            }
        });
        let session = Session::builder()
            .redirects(Redirects::limited(count))
            .build();
        let request = session
            .expect("a session")
            .get(format!("http://a.test/{count}"));
        let mut engine = Engine::<usize, Sim>::on_network(&network, Config::default());
        let engine = engine.as_mut().expect("an engine");
        engine.submit(
            request.build().expect("a request"),
            |hops: &mut usize, reply, _| {
                *hops = reply.expect("an answer").info().hops().len();
                Next::done()
            },
        );
        let (mut hops, before) = (0, counting::bytes());
        engine.run(&mut hops).expect("a run");
        assert_eq!(hops, count);
        counting::bytes() - before
    };
    // Four times as many would allocate sixteen times as much if each copied all before it.
    let (few, many) = (allocated(500), allocated(2000));
    assert!(many < 6 * few, "{few} and {many} bytes");
}

#[test]
fn a_body_of_a_megabyte_allocates_nothing_collected_or_streamed() {
    const MEGABYTE: usize = 1 << 20;
    let least = least_allocations("/huge", 1, 20, MEGABYTE);
    assert_eq!(least, 0, "collected");
    let url = format!("http://{}/huge", start_server());
    let mut engine = Engine::new().expect("an engine");
    engine.submit_to(Request::get(&url).build().expect("a request"), Streaming);
    let mut answered = Answered::default();
    let least = (0..11).map(|_| {
        let (before, until) = (counting::calls(), answered.requests + 20);
        while answered.requests < until {
            engine.turn(&mut answered, None).expect("a turn");
        }
        counting::calls() - before
    });
    // The first responses allocate the buffers that are kept.
    assert_eq!(least.skip(1).min(), Some(0), "streamed");
    // The next request is under way.
    assert_eq!(answered.body_bytes / MEGABYTE, answered.requests);
}

#[test]
fn pipelining_allocates_nothing() {
    for (path, body_bytes) in [("/small", 128), ("/chunked", 128)] {
        let url = format!("http://{}{path}", start_server());
        for depth in [2, 16, 100] {
            let mut engine = {
                let mut config = Config::default();
                config.max_connections = 3;
                config.pipeline("*", depth);
                Engine::with_config(config).expect("an engine")
            };
            let request = Request::get(&url).build().expect("a request");
            for _ in 0..3 * depth {
                engine.submit(request.clone(), Answered::on_reply);
            }
            let mut run = || {
                let mut answered = Answered::default();
                let before = counting::calls();
                while answered.requests < 2000 {
                    engine.turn(&mut answered, None).expect("a turn");
                }
                assert_eq!(answered.body_bytes, answered.requests * body_bytes);
                counting::calls() - before
            };
            run();
            let least = (0..10).map(|_| run()).min();
            assert_eq!(least, Some(0), "{path}, {depth} deep");
            let stats = engine.stats();
            assert!(stats.pipelined * 2 > stats.answered, "{stats:?}");
        }
    }
}

#[test]
fn a_connection_per_request_allocates_nothing() {
    for connections in [1, 50] {
        let least = least_allocations("/close", connections, 200, 128);
        assert_eq!(least, 0, "on {connections} connections at once");
    }
}

/// A table whose answers may be cached.
#[derive(Clone, Debug)]
struct KeptTable(Table);

impl Resolve for KeptTable {
    fn attach(&mut self, wake: Wake) {
        self.0.attach(wake);
    }
    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        self.0.start(host, family, id);
    }
    fn cancel(&mut self, id: LookupId) {
        self.0.cancel(id);
    }
    fn on_tick(&mut self, now: Instant) {
        self.0.on_tick(now);
    }
    fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }
    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        let (id, answer) = self.0.take()?;
        Some((id, answer.kept_for(Duration::from_secs(3600))))
    }
}

#[test]
fn a_connection_to_a_known_name_allocates_nothing() {
    let addr = start_server();
    let mut overridden = Config::default();
    overridden.resolve_to("*.test", addr);
    let mut kept = Config::default();
    let mut table = Table::new();
    table.insert("h.test", [addr.ip()]);
    kept.resolver = Some(std::sync::Arc::new(move || {
        Box::new(KeptTable(table.clone()))
    }));
    for (why, config) in [("overridden", overridden), ("kept", kept)] {
        let url = format!("http://h.test:{}/close", addr.port());
        assert_eq!(least_allocations_at(&url, config, 1, 200, 128), 0, "{why}");
    }
}

/// What a session keeps of a lane until its tokens are back, and of a message that waits.
#[test]
fn lanes_and_messages_that_wait_are_small() {
    let session = || {
        Session::builder()
            .base("http://192.0.2.1/")
            .lane_rate(Rate::per_minute(20).burst(20))
            .lane_concurrency(1)
            .build()
            .expect("a session")
    };
    /// Sends messages to all lanes, and returns the bytes that are kept for each lane.
    fn kept(session: &Session, lanes: usize, messages: usize, sent: &mut usize) -> f64 {
        let before = counting::live_bytes();
        let network = Network::new(1);
        network.serve("192.0.2.1:80".parse().unwrap(), |_: &Incoming| {
            Answer::ok("")
        });
        let mut engine = Engine::<usize, Sim>::on_network(&network, Config::default()).unwrap();
        for number in 0..lanes * messages {
            let lane = format!("chat {}", number % lanes);
            let request = session.post("send").lane(lane).build().expect("a request");
            engine.submit(request, |sent, reply, _| {
                *sent += usize::from(reply.is_ok());
                Next::done()
            });
        }
        engine.run(sent).expect("a run");
        drop((engine, network));
        (counting::live_bytes() - before) as f64 / lanes as f64
    }
    for (lanes, messages, limit) in [(10_000, 1, 480.0), (1000, 20, 680.0)] {
        let (session, mut sent) = (session(), 0);
        let bytes = kept(&session, lanes, messages, &mut sent);
        println!("a lane after {messages} messages within a minute: {bytes:.0} bytes");
        assert_eq!(sent, lanes * messages);
        assert!(bytes > 0.0 && bytes <= limit, "{bytes}");
    }
}
