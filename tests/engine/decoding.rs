//! Bodies that a policy decodes: their share of a turn, and their effect on deadlines and on each
//! other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use httpstream::policy::{Decoder, Progress, Screening, Visit};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, Moment, Next, Readback, Reply, Request,
    RequestBuilder, Response, Sim,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// The bytes that readbacks received, and how each response ended.
#[derive(Default)]
struct Told {
    bytes: Vec<usize>,
    ends: Vec<Result<String, ErrorKind>>,
}

fn simulated(
    change: impl FnOnce(&mut Config),
    server: impl Fn(&Incoming) -> Answer + 'static,
) -> (Network, Engine<Told, Sim>) {
    let network = Network::new(1);
    let addr: SocketAddr = "192.0.2.1:80".parse().unwrap();
    network.serve(addr, move |incoming: &Incoming| server(incoming));
    let mut config = Config::default();
    change(&mut config);
    let engine = Engine::on_network(&network, config).unwrap();
    (network, engine)
}

fn get(path: &str) -> RequestBuilder {
    Request::get(format!("http://192.0.2.1{path}"))
}

fn coded(body: &str) -> Answer {
    Answer::ok(body).header("Content-Encoding", "x")
}

/// Decodes bodies with a decoder that `make` returns.
#[derive(Clone)]
struct Decodes<M>(M);

impl<D: Decoder + 'static, M: Fn() -> D> Visit for Decodes<M> {
    fn on_head(
        &mut self,
        _: &Request,
        head: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        Ok(match head.header("Content-Encoding") {
            Some(_) => Screening::show().decode((self.0)()),
            None => Screening::show(),
        })
    }
}

fn decoded<D: Decoder + 'static>(
    request: RequestBuilder,
    make: impl Fn() -> D + Clone + Send + Sync + 'static,
) -> Request {
    request.policy(Arc::new(Decodes(make))).build().unwrap()
}

/// Turns each byte into many, and calls `works` each time.
struct Many<W> {
    times: usize,
    left: usize,
    works: W,
}

impl<W: FnMut()> Many<W> {
    fn new(times: usize, works: W) -> Self {
        let left = 0;
        Self { times, left, works }
    }
}

impl<W: FnMut()> Decoder for Many<W> {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        let consumed = usize::from(self.left == 0 && !input.is_empty());
        self.left += consumed * self.times;
        let produced = self.left.min(room.len());
        if produced > 0 {
            (self.works)();
        }
        room[..produced].fill(b'y');
        self.left -= produced;
        Ok(Progress { consumed, produced })
    }
}

/// Streams, and counts the bytes.
struct Counts(usize);

impl Readback<Told> for Counts {
    fn on_head(&mut self, _: &mut Told, _: &Response<'_>, _: &mut Context<'_, Told>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, told: &mut Told, data: &[u8], _: &mut Context<'_, Told>) -> Flow {
        let at_least = told.bytes.len().max(self.0 + 1);
        told.bytes.resize(at_least, 0);
        told.bytes[self.0] += data.len();
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        told: &mut Told,
        reply: Reply<'_>,
        cx: &mut Context<'_, Told>,
    ) -> Next<Told> {
        note(told, reply, cx)
    }
}

fn note(told: &mut Told, reply: Reply<'_>, _: &mut Context<'_, Told>) -> Next<Told> {
    told.ends.push(match reply {
        Ok(response) => Ok(response.text().unwrap().to_owned()),
        Err(error) => Err(error.kind()),
    });
    Next::done()
}

thread_local! {
    /// The network on whose clock a decoder spends time.
    static NETWORK: std::cell::RefCell<Option<Network>> = const { std::cell::RefCell::new(None) };
}

/// Takes ten milliseconds of simulated time.
fn works() {
    NETWORK.with_borrow(|network| network.as_ref().unwrap().sleep(10 * MILLI));
}

#[test]
fn a_server_is_not_silent_while_what_it_has_sent_is_decoded() {
    const TIMES: usize = 16 << 20;
    type Make = fn() -> Answer;
    let rows: [(&str, Make); 3] = [
        ("all at once", || coded("a")),
        ("the body a little later", || {
            coded("a").pause(60, 50 * MILLI)
        }),
        ("in pieces", || coded("abcd").drip(1, 80 * MILLI)),
    ];
    for (why, make) in rows {
        let (network, mut engine) = simulated(
            |config| {
                config.turn_bytes = 64 << 10;
                config.timeouts.first_byte = Some(100 * MILLI);
                config.timeouts.idle = Some(100 * MILLI);
            },
            move |_| make(),
        );
        NETWORK.set(Some(network.clone()));
        let request = decoded(get("/"), || Many::new(TIMES, works));
        engine.submit_to(request, Counts(0));
        let mut told = Told::default();
        engine.run(&mut told).unwrap();
        assert_eq!(told.ends, [Ok(String::new())], "{why}");
        assert_eq!(told.bytes[0] % TIMES, 0, "{why}");
        assert!(network.elapsed() > 5 * SECOND, "{why}: decoding takes time");
    }
    // After the decoding, the server gets no more time than usual.
    let (network, mut engine) = simulated(
        |config| {
            config.turn_bytes = 64 << 10;
            config.timeouts.idle = Some(100 * MILLI);
        },
        |_| coded("ab").pause(60, 100 * SECOND),
    );
    NETWORK.set(Some(network.clone()));
    let request = decoded(get("/"), || Many::new(TIMES / 64, works));
    engine.submit_to(request, Counts(0));
    let mut told = Told::default();
    engine.run(&mut told).unwrap();
    assert_eq!(told.ends, [Err(ErrorKind::Timeout)]);
    assert!(network.elapsed() < 20 * SECOND, "{:?}", network.elapsed());
    NETWORK.set(None);
}

#[test]
fn each_of_many_bodies_has_its_share_of_the_turns() {
    const MANY: usize = 11;
    let change = |config: &mut Config| {
        config.turn_bytes = 32 << 10;
        config.max_connections_per_origin = MANY;
    };
    let big = "z".repeat(8 << 20);
    type Serve = Box<dyn Fn(&Incoming) -> Answer>;
    let rows: [(&str, Serve); 2] = [
        ("decoded", Box::new(|_| coded("a"))),
        ("as they are", Box::new(move |_| Answer::ok(big.as_str()))),
    ];
    for (why, server) in rows {
        let (network, mut engine) = simulated(change, server);
        for i in 0..MANY {
            let request = decoded(get("/"), || Many::new(8 << 20, || ()));
            engine.submit_to(request, Counts(i));
        }
        let mut told = Told::default();
        told.bytes.resize(MANY, 0);
        let (mut turns, mut is_over) = (0, false);
        while !is_over {
            if !engine.turn(&mut told).unwrap().more {
                network.sleep(MILLI);
            }
            turns += 1;
            assert!(turns < 10_000, "{why}: {:?}", told.bytes);
            is_over = told.bytes.iter().any(|bytes| *bytes > 2 << 20);
        }
        let least = told.bytes.iter().min().unwrap();
        assert!(*least > 1 << 20, "{why}: {:?}", told.bytes);
    }
}

#[test]
fn a_decoder_that_gives_a_byte_at_a_time_holds_up_no_turn() {
    struct Bytewise(usize);
    impl Decoder for Bytewise {
        fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
            let consumed = input.len();
            self.0 += consumed * 1_000_000;
            let produced = self.0.min(1);
            room[..produced].fill(b'y');
            self.0 -= produced;
            Ok(Progress { consumed, produced })
        }
    }
    let (network, mut engine) = simulated(|_| (), |_| coded("a"));
    engine.submit_to(decoded(get("/"), || Bytewise(0)), Counts(0));
    let mut told = Told::default();
    let (mut most, mut seen) = (0, 0);
    while engine.pending() > 0 {
        if !engine.turn(&mut told).unwrap().more {
            network.sleep(MILLI);
        }
        let now = told.bytes.first().copied().unwrap_or(0);
        most = most.max(now - seen);
        seen = now;
    }
    assert_eq!(seen, 1_000_000);
    assert!(most <= 50_000, "{most} pieces in a turn");
}

/// A decoder that needs at least one byte, like every format with a header.
#[derive(Default)]
struct NotEmpty {
    has_begun: bool,
}

impl Decoder for NotEmpty {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        self.has_begun |= !input.is_empty();
        let n = input.len().min(room.len());
        room[..n].copy_from_slice(&input[..n]);
        Ok(Progress {
            consumed: n,
            produced: n,
        })
    }

    fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.has_begun {
            true => Ok(0),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[test]
fn a_response_without_a_body_is_not_decoded_and_keeps_its_fields() {
    let bare = |status: u16| {
        let head =
            format!("HTTP/1.1 {status} \r\nContent-Encoding: x\r\nContent-Length: 5\r\n\r\n");
        Answer::raw(head)
    };
    let (_network, mut engine) = simulated(
        |_| (),
        move |seen| match seen.path() {
            "/head" => bare(200),
            "/304" => bare(304),
            "/length" => coded(""),
            "/chunks" => Answer::status(200)
                .chunked([""; 0])
                .header("Content-Encoding", "x"),
            _ => coded("hello"),
        },
    );
    // The path, whether the fields of the coding are present, and the body.
    let rows = [
        ("/head", true, ""),
        ("/304", true, ""),
        ("/length", true, ""),
        ("/chunks", false, ""),
        ("/", false, "hello"),
    ];
    for (path, has_fields, body) in rows {
        let request = match path {
            "/head" => Request::builder(httpstream::http::Method::HEAD, "http://192.0.2.1/head"),
            path => get(path),
        };
        let request = decoded(request, NotEmpty::default);
        engine.submit(request, move |told: &mut Told, reply, cx| {
            let response = reply.as_ref().unwrap();
            let coding = response.header("Content-Encoding").is_some();
            assert_eq!(coding, has_fields, "{path}");
            if matches!(path, "/head" | "/304") {
                assert_eq!(response.header("Content-Length"), Some(&b"5"[..]), "{path}");
            }
            note(told, reply, cx)
        });
        let mut told = Told::default();
        engine.run(&mut told).unwrap();
        assert_eq!(told.ends, [Ok(body.to_owned())], "{path}");
    }
}

#[test]
fn what_a_decoder_claims_to_have_written_shows_nothing_of_another_response() {
    struct Claims;
    impl Decoder for Claims {
        fn decode(&mut self, input: &[u8], _: &mut [u8]) -> io::Result<Progress> {
            let consumed = input.len();
            let produced = consumed.min(1) * 12;
            Ok(Progress { consumed, produced })
        }
    }
    let (_network, mut engine) = simulated(|_| (), |_| coded("token=secret"));
    let mut told = Told::default();
    engine.submit(decoded(get("/"), NotEmpty::default), note);
    engine.run(&mut told).unwrap();
    engine.submit(decoded(get("/"), || Claims), note);
    engine.run(&mut told).unwrap();
    assert_eq!(told.ends[0], Ok("token=secret".to_owned()));
    assert_eq!(told.ends[1], Ok("\0".repeat(12)));
}
