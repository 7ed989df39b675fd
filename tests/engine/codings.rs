//! Content codings in sessions, on the simulated network: which are asked for, what is decoded, and
//! where a body that grows without end is stopped.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compress, Compression, FlushCompress};
use httpstream::policy::both;
use httpstream::session::{Auth, Decode, Redirects, Session, SessionBuilder};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    ChainId, Config, Context, Engine, Error, ErrorKind, Flow, Next, Readback, Reply, Request,
    RequestBuilder, Response, Sim, Violation,
};

use crate::visits::on_send;

const HELLO: &str = "hello, hello!";

/// `HELLO`, by the package brotli of PyPI.
const HELLO_BR: &[u8] = b"\x0b\x06\x80hello, hello!\x03";

/// `HELLO`, by the package zstandard of PyPI.
const HELLO_ZSTD: &[u8] = b"(\xb5/\xfd \x0di\x00\x00hello, hello!";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A frame of zstd with this many blocks of 128 KiB, each a repeated byte.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    let mut frame = b"\x28\xb5\x2f\xfd\x00\x58".to_vec();
    for i in 1..=blocks {
        let is_last = u32::from(i == blocks);
        let header = 128 << 10 << 3 | 1 << 1 | is_last;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b'x');
    }
    frame
}

fn coded(coding: &str, body: impl Into<Vec<u8>>) -> Answer {
    Answer::ok(body.into()).header("Content-Encoding", coding)
}

/// What the readbacks have received.
#[derive(Default)]
struct Told {
    /// Status, Content-Encoding, Content-Length and the body, or the error.
    ends: Vec<Result<(u16, bool, bool, String), String>>,
    kinds: Vec<ErrorKind>,
    violations: Vec<Option<Violation>>,
    /// Bytes that were streamed.
    bytes: usize,
    pieces: usize,
}

impl Told {
    fn end(&mut self, reply: Reply<'_>) -> Next<Self> {
        self.ends.push(match reply {
            Ok(response) => Ok((
                response.status().as_u16(),
                response.header("Content-Encoding").is_some(),
                response.header("Content-Length").is_some(),
                String::from_utf8_lossy(response.body()).into_owned(),
            )),
            Err(error) => {
                self.kinds.push(error.kind());
                self.violations.push(error.violation().cloned());
                Err(format!("{error:#}"))
            }
        });
        Next::done()
    }
}

fn note(told: &mut Told, reply: Reply<'_>, _: &mut Context<'_, Told>) -> Next<Told> {
    told.end(reply)
}

/// Streams, and pauses after each of so many pieces.
struct Streams {
    pause: Option<usize>,
}

impl Readback<Told> for Streams {
    fn on_head(&mut self, _: &mut Told, _: &Response<'_>, _: &mut Context<'_, Told>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, told: &mut Told, data: &[u8], cx: &mut Context<'_, Told>) -> Flow {
        told.bytes += data.len();
        told.pieces += 1;
        match self.pause {
            Some(every) if told.pieces.is_multiple_of(every) => {
                let id = cx.id();
                cx.start(Next::call(move |_: &mut Told, cx| resume(cx, id)).after(MILLI));
                Flow::Pause
            }
            _ => Flow::Stream,
        }
    }

    fn on_reply(
        &mut self,
        told: &mut Told,
        reply: Reply<'_>,
        _: &mut Context<'_, Told>,
    ) -> Next<Told> {
        told.end(reply)
    }
}

const MILLI: Duration = Duration::from_millis(1);

fn resume(cx: &mut Context<'_, Told>, id: ChainId) -> Next<Told> {
    cx.resume(id);
    Next::done()
}

/// The fields of each request that matter here.
type Seen = Rc<RefCell<Vec<String>>>;

fn simulated(
    change: impl FnOnce(&mut Config),
    server: impl Fn(&Incoming) -> Answer + 'static,
) -> (Network, Engine<Told, Sim>, Seen) {
    let network = Network::new(1);
    let seen = Seen::default();
    let noted = Rc::clone(&seen);
    network.serve(
        "192.0.2.1:80".parse().unwrap(),
        move |request: &Incoming| {
            let value = |name| request.header(name).map(String::from_utf8_lossy);
            let accept = value("Accept-Encoding").unwrap_or("-".into());
            noted
                .borrow_mut()
                .push(format!("{} {accept}", request.path()));
            server(request)
        },
    );
    let mut config = Config::default();
    change(&mut config);
    let engine = Engine::on_network(&network, config).unwrap();
    (network, engine, seen)
}

fn url(path: &str) -> String {
    format!("http://192.0.2.1{path}")
}

fn decoding() -> SessionBuilder {
    Session::builder().decode(Decode::all())
}

/// Sends one request, and returns what came of it and the requests that the server saw.
fn exchange(
    request: RequestBuilder,
    server: impl Fn(&Incoming) -> Answer + 'static,
) -> (Told, Vec<String>) {
    let (_network, mut engine, seen) = simulated(|_| (), server);
    let mut told = Told::default();
    engine.submit(request.build().unwrap(), note);
    engine.run(&mut told).unwrap();
    (told, seen.take())
}

/// Sends one request whose response is streamed, and returns what came of it.
fn streamed(
    request: RequestBuilder,
    pause: Option<usize>,
    server: impl Fn(&Incoming) -> Answer + 'static,
) -> Told {
    let (_network, mut engine, _seen) = simulated(|_| (), server);
    let mut told = Told::default();
    engine.submit_to(request.build().unwrap(), Streams { pause });
    engine.run(&mut told).unwrap();
    told
}

const ALL: &str = "gzip, deflate, br, zstd";

#[test]
fn codings_are_asked_for_where_nothing_else_is() {
    let session = decoding().build().unwrap();
    let some = Decode::all().gzip(false).zstd(false);
    let some = Session::builder().decode(some).build().unwrap();
    let none = Decode::all().gzip(false).brotli(false).zstd(false);
    let none = Session::builder().decode(none).build().unwrap();
    let nothing = Session::builder().build().unwrap();
    let get = |session: &Session| session.get(url("/"));
    let rows = [
        ("all", get(&session), ALL),
        ("a new session", get(&Session::new()), ALL),
        ("some", get(&some), "br"),
        ("none", get(&none), "-"),
        ("a session that is told nothing", get(&nothing), "-"),
        ("no session", Request::get(url("/")), "-"),
        ("its own", get(&session).header("accept-encoding", "x"), "x"),
        ("a range", get(&session).header("Range", "bytes=1-"), "-"),
    ];
    for (why, request, expected) in rows {
        let (_, seen) = exchange(request, |_| Answer::ok(""));
        assert_eq!(seen, [format!("/ {expected}")], "{why}");
    }
}

#[test]
fn bodies_of_each_coding_are_decoded() {
    let gz = gzip(HELLO.as_bytes());
    let raw = zlib(HELLO.as_bytes())[2..].to_vec();
    type Row = (&'static str, Vec<(&'static str, &'static str)>, Vec<u8>);
    let rows: Vec<Row> = vec![
        ("gzip", vec![("Content-Encoding", "gzip")], gz.clone()),
        ("an alias", vec![("content-encoding", "X-GZIP")], gz.clone()),
        (
            "zlib",
            vec![("Content-Encoding", "deflate")],
            zlib(HELLO.as_bytes()),
        ),
        (
            "without its header",
            vec![("Content-Encoding", "deflate")],
            raw,
        ),
        ("br", vec![("Content-Encoding", "br")], HELLO_BR.into()),
        (
            "zstd",
            vec![("Content-Encoding", "zstd")],
            HELLO_ZSTD.into(),
        ),
        (
            "three layers on two lines",
            vec![
                ("Content-Encoding", "br, gzip"),
                ("Content-Encoding", "deflate"),
            ],
            zlib(&gzip(HELLO_BR)),
        ),
    ];
    for (why, fields, body) in rows {
        for chunk in [None, Some(1), Some(7)] {
            let (fields, body) = (fields.clone(), body.clone());
            let server = move |_: &Incoming| {
                let answer = match chunk {
                    None => Answer::ok(body.clone()),
                    Some(n) => Answer::status(200).chunked(body.chunks(n).map(<[u8]>::to_vec)),
                };
                let fields = fields.iter();
                fields.fold(answer, |answer, (name, value)| answer.header(name, *value))
            };
            let session = decoding().build().unwrap();
            let (told, _) = exchange(session.get(url("/")), server.clone());
            let expected = Ok((200, false, false, HELLO.to_owned()));
            assert_eq!(told.ends, [expected], "{why} {chunk:?}");
            for pause in [None, Some(1)] {
                let told = streamed(session.get(url("/")), pause, server.clone());
                let expected = Ok((200, false, false, String::new()));
                assert_eq!(told.ends, [expected], "{why} {chunk:?}");
                assert_eq!(told.bytes, HELLO.len(), "{why} {chunk:?} {pause:?}");
            }
        }
    }
}

#[test]
fn what_is_not_to_be_decoded_stays_as_it_is() {
    let session = decoding().build().unwrap();
    let only_br = Decode::all().gzip(false).zstd(false);
    let only_br = Session::builder().decode(only_br).build().unwrap();
    let get = |session: &Session| session.get(url("/"));
    let head = session.head(url("/"));
    let with = |coding: &'static str| move || coded(coding, "body");
    let bare = |status: u16, rest: &'static str| {
        move || {
            Answer::raw(format!(
                "HTTP/1.1 {status} \r\nContent-Encoding: gzip, gzip, gzip, gzip\r\n{rest}\r\n"
            ))
        }
    };
    type Make = Box<dyn Fn() -> Answer>;
    let rows: Vec<(&str, RequestBuilder, Make, u16, &str)> = vec![
        (
            "unknown",
            get(&session),
            Box::new(with("x-compress")),
            200,
            "body",
        ),
        (
            "one of them",
            get(&session),
            Box::new(with("gzip, x")),
            200,
            "body",
        ),
        (
            "not chosen",
            get(&only_br),
            Box::new(with("gzip")),
            200,
            "body",
        ),
        (
            "identity",
            get(&session),
            Box::new(with("identity")),
            200,
            "body",
        ),
        (
            "its own",
            get(&session).header("Accept-Encoding", "gzip"),
            Box::new(with("gzip")),
            200,
            "body",
        ),
        (
            "a range",
            get(&session).header("Range", "bytes=1-"),
            Box::new(with("gzip")),
            200,
            "body",
        ),
        (
            "a part",
            get(&session),
            Box::new(|| {
                Answer::status(206)
                    .header("Content-Encoding", "gzip")
                    .body("body")
            }),
            206,
            "body",
        ),
        (
            "HEAD",
            head,
            Box::new(bare(200, "Content-Length: 5\r\n")),
            200,
            "",
        ),
        ("204", get(&session), Box::new(bare(204, "")), 204, ""),
        (
            "304",
            get(&session),
            Box::new(bare(304, "Content-Length: 5\r\n")),
            304,
            "",
        ),
        (
            "no session",
            Request::get(url("/")),
            Box::new(with("gzip")),
            200,
            "body",
        ),
    ];
    for (why, request, make, status, body) in rows {
        let (told, _) = exchange(request, move |_| make());
        let length = why != "204";
        assert_eq!(
            told.ends,
            [Ok((status, true, length, body.to_owned()))],
            "{why}"
        );
    }
    // An empty body has no coding.
    for length in [true, false] {
        let server = move |_: &Incoming| match length {
            true => coded("gzip", ""),
            false => Answer::status(200)
                .chunked([""; 0])
                .header("Content-Encoding", "gzip"),
        };
        let (told, _) = exchange(get(&session), server);
        assert_eq!(told.ends, [Ok((200, length, length, String::new()))]);
    }
}

#[test]
fn another_policy_that_asks_for_codings_gets_them_coded() {
    // The outer policy comes first on the way out.
    for field in [
        Some(("Accept-Encoding", "gzip")),
        Some(("Range", "bytes=0-")),
        None,
    ] {
        let asks = on_send(move |_, fields| match field {
            Some((name, value)) => fields.add(name, value),
            None => Ok(()),
        });
        let session = decoding().build().unwrap();
        let policy = both(asks, Arc::from(&session));
        let request = Request::get(url("/")).policy(policy);
        let server = |_: &Incoming| coded("br", HELLO_BR);
        let (told, seen) = exchange(request, server);
        let (body, is_coded) = match field {
            Some(_) => (String::from_utf8_lossy(HELLO_BR).into_owned(), true),
            None => (HELLO.to_owned(), false),
        };
        assert_eq!(
            told.ends,
            [Ok((200, is_coded, is_coded, body))],
            "{field:?}"
        );
        let accepted = match field {
            Some(("Accept-Encoding", value)) => value,
            Some(_) => "-",
            None => ALL,
        };
        assert_eq!(seen, [format!("/ {accepted}")]);
    }
    // Only for the attempt in which it asks: the next one is decoded.
    let times = Rc::new(RefCell::new(0));
    let count = Rc::clone(&times);
    let (_network, mut engine, seen) = simulated(
        |_| (),
        move |request| match request.path() {
            "/" => Answer::status(302).header("Location", "/next"),
            _ => {
                *count.borrow_mut() += 1;
                coded("br", HELLO_BR)
            }
        },
    );
    let asks = on_send(|request, fields| match request.target() {
        "/" => fields.add("Accept-Encoding", "x"),
        _ => Ok(()),
    });
    let session = decoding().redirects(Redirects::limited(3)).build().unwrap();
    let request = Request::get(url("/")).policy(both(asks, Arc::from(&session)));
    let mut told = Told::default();
    engine.submit(request.build().unwrap(), note);
    engine.run(&mut told).unwrap();
    assert_eq!(told.ends, [Ok((200, false, false, HELLO.to_owned()))]);
    assert_eq!(seen.take(), ["/ x".to_owned(), format!("/next {ALL}")]);
    assert_eq!(*times.borrow(), 1);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let both = decoding().header("accept-encoding", "gzip").build();
    let error = both.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(
        format!("{error:#}").ends_with("decode: there is an Accept-Encoding header as well"),
        "{error:#}"
    );
}

#[test]
fn bodies_that_cannot_be_decoded_are_errors_that_name_the_coding() {
    let cut = |body: Vec<u8>| body[..body.len() - 1].to_vec();
    let mut wrong_sum = gzip(b"x");
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    let many = "gzip, deflate, br, gzip";
    #[rustfmt::skip]
    let rows = [
        ("gzip", b"plain".to_vec(), ErrorKind::Malformed, "gzip: it begins with the bytes 70 6c"),
        ("deflate", b"\xff\xff".to_vec(), ErrorKind::Malformed, "deflate: "),
        ("br", b"\xff\xff".to_vec(), ErrorKind::Malformed, "br: "),
        ("zstd", b"plain".to_vec(), ErrorKind::Malformed, "zstd: a frame begins with the bytes"),
        ("gzip", wrong_sum, ErrorKind::Malformed, "gzip: wrong checksum"),
        ("gzip, br", b"\x3b".to_vec(), ErrorKind::Truncated, "gzip: the body ended before its coding did"),
        ("gzip", cut(gzip(b"x")), ErrorKind::Truncated, "the body ended within its coding"),
        ("deflate", cut(zlib(b"x")), ErrorKind::Truncated, "deflate: the body ended before its coding did"),
        ("br", cut(HELLO_BR.to_vec()), ErrorKind::Truncated, "br: the body ended before its coding did"),
        ("zstd", cut(HELLO_ZSTD.to_vec()), ErrorKind::Truncated, "zstd: the body ended before its coding did"),
        (many, gzip(b"x"), ErrorKind::Malformed, "the body has 4 content codings, more than 3"),
    ];
    for (coding, body, kind, expected) in rows {
        let session = decoding().build().unwrap();
        let server = move |_: &Incoming| coded(coding, body.clone());
        let (told, _) = exchange(session.get(url("/")), server.clone());
        assert_eq!(told.kinds, [kind], "{coding} {:?}", told.ends);
        let error = told.ends[0].as_ref().unwrap_err();
        assert!(error.contains(expected), "{error}");
        let told = streamed(session.get(url("/")), None, server);
        assert_eq!(told.kinds, [kind], "{coding} {:?}", told.ends);
    }
}

const BOMB: usize = 16 << 20;

/// Bodies of a few kilobytes that decode to `BOMB` bytes, with their codings.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let plain = vec![0; BOMB];
    let zstd = zstd_bomb(BOMB / (128 << 10));
    vec![
        ("gzip", gzip(&plain)),
        ("deflate", zlib(&plain)),
        ("br", ZEROS_BR.to_vec()),
        ("zstd", zstd.clone()),
        ("gzip, gzip", gzip(&gzip(&plain))),
        ("deflate, gzip, gzip", gzip(&gzip(&zlib(&plain)))),
        ("zstd, gzip, gzip", gzip(&gzip(&zstd))),
    ]
}

/// 16 MiB of zeros, by the package brotli of PyPI.
const ZEROS_BR: &[u8] =
    b"\xcb\xff\xff?\xf8'\x00\xe2\xb1@ \xf7\xfe\x8f\xff\xff\x7f\xf0O\x00\xc4a\x11\x80\xee\xfd\xdf";

#[test]
fn a_body_that_grows_without_end_is_stopped_at_the_limit() {
    const MOST: u64 = 1 << 20;
    let decode = Decode::all().max_bytes(MOST);
    let session = Session::builder().decode(decode).build().unwrap();
    for (coding, wire) in bombs() {
        assert!(wire.len() < BOMB / 500, "{coding}: {}", wire.len());
        let server = move |_: &Incoming| coded(coding, wire.clone());
        for pause in [None, Some(3)] {
            let told = streamed(session.get(url("/")), pause, server.clone());
            // Pieces are delivered until one would exceed the limit.
            assert_eq!(told.bytes as u64, MOST, "{coding}");
            assert_eq!(told.kinds, [ErrorKind::TooLarge], "{coding}");
            let Some(Violation::DecodedTooLarge { limit, seen }) = told.violations[0] else {
                panic!("{coding}: {:?}", told.ends);
            };
            assert!(
                limit == MOST && seen > MOST && seen <= MOST + (16 << 10),
                "{coding} {seen}"
            );
        }
        // A collected body has the limit of collected bodies.
        let request = session
            .get(url("/"))
            .limits(|limits| limits.max_body_bytes = MOST / 2);
        let (told, _) = exchange(request, server.clone());
        let Some(Violation::BodyTooLarge { limit, .. }) = told.violations[0] else {
            panic!("{coding}: {:?}", told.ends);
        };
        assert_eq!((limit, told.bytes), (MOST / 2, 0), "{coding}");
        let request = session
            .get(url("/"))
            .limits(|limits| limits.max_body_bytes = BOMB as u64);
        let (told, _) = exchange(request, server);
        let (_, _, _, body) = told.ends[0].as_ref().unwrap();
        assert_eq!(body.len(), BOMB, "{coding}");
    }
}

/// Ten gigabytes of zeros in ten megabytes of gzip, without the sums behind them, which nobody
/// reaches.
fn ten_gigabytes() -> Vec<u8> {
    let plain = vec![0; 1 << 20];
    let mut megabyte = Vec::with_capacity(16 << 10);
    let mut deflate = Compress::new(Compression::best(), false);
    // Each piece can be decoded by itself, so it can be repeated.
    let flush = FlushCompress::Full;
    deflate.compress_vec(&plain, &mut megabyte, flush).unwrap();
    assert_eq!(deflate.total_in(), 1 << 20);
    let header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff";
    [header, &megabyte.repeat(10 << 10)[..]].concat()
}

#[test]
fn ten_gigabytes_are_stopped_at_the_limit_as_well() {
    const MOST: usize = 1 << 20;
    let gigabytes = ten_gigabytes();
    assert!(gigabytes.len() < 20 << 20, "{}", gigabytes.len());
    let session = Session::builder().decode(Decode::all().max_bytes(MOST as u64));
    let session = session.build().unwrap();
    let rows = [
        ("gzip, gzip", gzip(&gigabytes)),
        ("gzip, gzip, gzip", gzip(&gzip(&gigabytes))),
        ("gzip", gigabytes),
        ("zstd", zstd_bomb(80 << 10)),
        ("zstd, gzip", gzip(&zstd_bomb(80 << 10))),
    ];
    for (coding, wire) in rows {
        let server = move |_: &Incoming| coded(coding, wire.clone());
        let told = streamed(session.get(url("/")), None, server.clone());
        assert_eq!(
            (told.bytes, &*told.kinds),
            (MOST, &[ErrorKind::TooLarge][..]),
            "{coding}"
        );
        let (told, _) = exchange(session.get(url("/")), server);
        assert_eq!(
            (told.bytes, &*told.kinds),
            (0, &[ErrorKind::TooLarge][..]),
            "{coding}"
        );
    }
}

#[test]
fn a_layer_that_grows_behind_one_that_shrinks_it_is_stopped_too() {
    // The outer layers produce megabytes, of which the innermost makes nothing: empty members.
    let members = gzip(b"").repeat(200_000);
    let wire = gzip(&gzip(&members));
    let decode = Decode::all().max_bytes(1 << 20);
    let session = Session::builder().decode(decode).build().unwrap();
    let server = move |_: &Incoming| coded("gzip, gzip, gzip", wire.clone());
    let told = streamed(session.get(url("/")), None, server);
    assert_eq!((told.bytes, &*told.kinds), (0, &[ErrorKind::TooLarge][..]));
    // The same as it is received: a coding that never yields anything.
    let server = move |_: &Incoming| coded("gzip", members.clone());
    let told = streamed(session.get(url("/")), None, server);
    assert_eq!((told.bytes, &*told.kinds), (0, &[ErrorKind::TooLarge][..]));
}

#[test]
fn one_turn_decodes_a_bounded_amount_of_a_bomb() {
    const SHARE: usize = 64 << 10;
    for (coding, wire) in bombs() {
        let (network, mut engine, _seen) = simulated(
            |config| config.turn_bytes = SHARE,
            move |_| coded(coding, wire.clone()),
        );
        let session = decoding().build().unwrap();
        let request = session.get(url("/")).build().unwrap();
        engine.submit_to(request, Streams { pause: None });
        let mut told = Told::default();
        let (mut seen, mut most) = (0, 0);
        while engine.pending() > 0 {
            if !engine.turn(&mut told).unwrap().more {
                network.sleep(MILLI);
            }
            most = most.max(told.bytes - seen);
            seen = told.bytes;
        }
        assert_eq!(told.bytes, BOMB, "{coding} {:?}", told.ends);
        // The last piece may exceed it.
        assert!(most <= SHARE + (16 << 10), "{coding}: {most}");
    }
}

#[test]
fn a_body_inside_bodies_counts_in_the_turn_with_all_its_layers() {
    // Many bodies whose outer layers yield megabytes and the innermost nothing.
    const MANY: usize = 20;
    const SHARE: usize = 64 << 10;
    let wire = gzip(&gzip(&gzip(b"").repeat(100_000)));
    let (network, mut engine, _seen) = simulated(
        |config| {
            config.turn_bytes = SHARE;
            config.max_connections_per_origin = MANY;
        },
        move |_| coded("gzip, gzip, gzip", wire.clone()),
    );
    let session = decoding().build().unwrap();
    let request = session.get(url("/")).build().unwrap();
    for _ in 0..MANY {
        engine.submit_to(request.clone(), Streams { pause: None });
    }
    let mut told = Told::default();
    let mut turns = 0;
    while engine.pending() > 0 {
        if !engine.turn(&mut told).unwrap().more {
            network.sleep(MILLI);
        }
        turns += 1;
    }
    assert_eq!(told.ends.len(), MANY);
    // The middle layer yields two megabytes for each of them.
    let least = MANY * 100_000 * 20 / (3 * 4 * SHARE);
    assert!(turns > least, "{turns} turns, at least {least}");
}

#[test]
fn input_that_yields_nothing_is_decoded_over_many_turns() {
    // The members have tables and checksums, but no content; the blocks have tables, but no
    // literals.
    const MANY: usize = 20_000;
    let block = b"\x02\xc0\x00\x80\x10\x01\x00";
    let header = |is_last: u32| ((block.len() as u32) << 3 | 2 << 1 | is_last).to_le_bytes();
    let blocks = [&header(0)[..3], block].concat().repeat(MANY);
    let last = [&header(1)[..3], block].concat();
    let frame = [b"(\xb5/\xfd\x00\x58", &*blocks, &last].concat();
    for (coding, wire) in [("gzip", gzip(b"").repeat(MANY)), ("zstd", frame)] {
        let (network, mut engine, _seen) = simulated(|_| (), move |_| coded(coding, wire.clone()));
        let session = decoding().build().unwrap();
        let request = session.get(url("/")).build().unwrap();
        engine.submit_to(request, Streams { pause: None });
        let mut told = Told::default();
        let mut turns = 0;
        while engine.pending() > 0 {
            if !engine.turn(&mut told).unwrap().more {
                network.sleep(MILLI);
            }
            turns += 1;
        }
        assert_eq!(
            told.ends,
            [Ok((200, false, false, String::new()))],
            "{coding}"
        );
        assert!(turns > MANY / 40, "{coding}: {turns} turns");
    }
}

#[test]
fn flushed_pieces_are_there_at_once() {
    // Each part is flushed by its encoder, and arrives a second before the next.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(b"first").unwrap();
    encoder.flush().unwrap();
    let first = encoder.get_ref().clone();
    encoder.write_all(b"second").unwrap();
    let whole = encoder.finish().unwrap();
    let rest = whole[first.len()..].to_vec();
    #[rustfmt::skip]
    let rows = [
        ("gzip", first, rest, 5),
        ("br", b"\x0b\x03\x80hello, (\x00\x08".to_vec(), b"hello!\x03".to_vec(), 7),
        ("zstd", b"(\xb5/\xfd\x00X8\x00\x00hello, ".to_vec(), b"1\x00\x00hello!".to_vec(), 7),
    ];
    for (coding, first, rest, len) in rows {
        let chunk = |bytes: &[u8]| {
            let size = format!("{:x}\r\n", bytes.len());
            [size.as_bytes(), bytes, b"\r\n"].concat()
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: {coding}\r\n\r\n"
        );
        let first = [head.as_bytes(), &chunk(&first)].concat();
        let wire = [&*first, &chunk(&rest), b"0\r\n\r\n"].concat();
        let (network, mut engine, _seen) = simulated(
            |_| (),
            move |_| Answer::raw(wire.clone()).pause(first.len(), Duration::from_secs(1)),
        );
        let session = decoding().build().unwrap();
        engine.submit_to(
            session.get(url("/")).build().unwrap(),
            Streams { pause: None },
        );
        let mut told = Told::default();
        while told.bytes < len {
            assert!(network.elapsed() < Duration::from_secs(1), "{coding}");
            if !engine.turn(&mut told).unwrap().more {
                network.sleep(MILLI);
            }
        }
        assert!(told.bytes == len && told.ends.is_empty(), "{coding}");
        engine.run(&mut told).unwrap();
        assert_eq!(
            told.ends,
            [Ok((200, false, false, String::new()))],
            "{coding}"
        );
    }
}

#[test]
fn codings_work_with_the_other_steps_of_a_request() {
    let server = |request: &Incoming| match request.path() {
        // Not a body that anybody reads: it is not even gzip.
        "/start" => Answer::status(302)
            .header("Location", "/end")
            .header("Content-Encoding", "gzip")
            .body("no gzip"),
        "/missing" => Answer::status(404)
            .header("Content-Encoding", "br")
            .body(HELLO_BR),
        _ => coded("gzip", gzip(HELLO.as_bytes())),
    };
    let session = decoding()
        .redirects(Redirects::limited(3))
        .base(url("/"))
        .auth(Auth::bearer("token"))
        .error_for_status(true)
        .build()
        .unwrap();
    let (told, seen) = exchange(session.get("start"), server);
    assert_eq!(told.ends, [Ok((200, false, false, HELLO.to_owned()))]);
    assert_eq!(seen, [format!("/start {ALL}"), format!("/end {ALL}")]);
    // The body of an error status is decoded.
    let (_network, mut engine, _seen) = simulated(|_| (), server);
    let failed: Rc<RefCell<Option<Error>>> = Rc::default();
    let slot = Rc::clone(&failed);
    engine.submit(
        session.get("missing").build().unwrap(),
        move |_: &mut Told, reply, _| {
            *slot.borrow_mut() = reply.err();
            Next::done()
        },
    );
    engine.run(&mut Told::default()).unwrap();
    let failed = failed.take().unwrap();
    assert_eq!(
        (failed.kind(), failed.partial_body()),
        (ErrorKind::Status, HELLO.as_bytes())
    );
}

#[test]
fn tasks_receive_decoded_bodies() {
    let (_network, mut engine, _seen) = simulated(|_| (), |_| coded("zstd", HELLO_ZSTD));
    let session = decoding().build().unwrap();
    let request = session.get(url("/")).build().unwrap();
    let local = engine.local();
    let body: Rc<RefCell<Vec<u8>>> = Rc::default();
    let slot = Rc::clone(&body);
    engine.spawn(async move {
        let response = local.fetch(request).await.unwrap();
        assert!(!response.headers().contains_key("Content-Encoding"));
        *slot.borrow_mut() = response.into_body();
    });
    engine.run(&mut Told::default()).unwrap();
    assert_eq!(*body.borrow(), HELLO.as_bytes());
}

#[test]
fn a_session_of_the_configuration_decodes_all_requests() {
    let (_network, mut engine, seen) = simulated(
        |config| config.policy = Some(decoding().build().unwrap().into()),
        |_| coded("br", HELLO_BR),
    );
    let mut told = Told::default();
    engine.submit(Request::get(url("/")).build().unwrap(), note);
    engine.run(&mut told).unwrap();
    assert_eq!(told.ends, [Ok((200, false, false, HELLO.to_owned()))]);
    assert_eq!(seen.take(), [format!("/ {ALL}")]);
}
