//! A response is the same however it is split on its way.
//!
//! Server and engine alternate on one thread: the server writes a piece, and the engine runs turns
//! until it has read the piece.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use httpstream::{Context, Engine, Flow, Next, Readback, Reply, Request, Response};

/// A response, as its readback received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    interim: Vec<u16>,
    heads: usize,
    status: u16,
    fields: usize,
    body: String,
    trailers: Vec<String>,
    error: Option<String>,
}

/// Returns this flow for the head and each piece of the body. After a pause it is resumed before
/// the next turn.
#[derive(Clone, Copy, Debug)]
struct Watcher(Flow);

impl Readback<Seen> for Watcher {
    fn on_interim(&mut self, seen: &mut Seen, head: &Response<'_>, _: &mut Context<'_, Seen>) {
        seen.interim.push(head.status().as_u16());
    }

    fn on_head(&mut self, seen: &mut Seen, _: &Response<'_>, _: &mut Context<'_, Seen>) -> Flow {
        seen.heads += 1;
        self.0
    }

    fn on_data(&mut self, seen: &mut Seen, data: &[u8], _: &mut Context<'_, Seen>) -> Flow {
        seen.body += str::from_utf8(data).expect("ASCII");
        self.0
    }

    fn on_reply(
        &mut self,
        seen: &mut Seen,
        reply: Reply<'_>,
        _: &mut Context<'_, Seen>,
    ) -> Next<Seen> {
        match reply {
            Ok(response) => {
                seen.status = response.status().as_u16();
                seen.fields = response.headers().len();
                seen.body += response.text().expect("ASCII");
                let trailers = response.trailers();
                seen.trailers = trailers
                    .map(|(name, value)| format!("{name}={}", value.escape_ascii()))
                    .collect();
            }
            Err(error) => seen.error = Some(error.to_string()),
        }
        Next::done()
    }
}

/// Returns what a readback receives of a response that arrives in these pieces, followed by the end
/// of the connection.
fn receive(pieces: &[&str], flow: Flow) -> Seen {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let mut engine = Engine::new().expect("a poll");
    let mut seen = Seen::default();
    let request = Request::get(format!("http://{addr}/")).timeout(Duration::from_secs(20));
    let id = engine.submit_to(request.build().expect("valid"), Watcher(flow));

    let turn = |engine: &mut Engine<Seen>, seen: &mut Seen| {
        engine.resume(id);
        engine.turn(seen, None).expect("the turn succeeds");
    };
    // A turn without a wait sends the request, or at least starts to connect.
    engine
        .turn(&mut seen, Some(Duration::ZERO))
        .expect("the turn succeeds");
    let (mut stream, _) = listener.accept().expect("the engine connects");
    while engine.stats().bytes_out == 0 {
        turn(&mut engine, &mut seen);
    }
    read_request(&mut stream);
    stream.set_nodelay(true).expect("a TCP socket");
    let mut written = 0;
    for piece in pieces {
        stream
            .write_all(piece.as_bytes())
            .expect("the engine reads it");
        written += piece.len() as u64;
        while engine.pending() > 0 && engine.stats().bytes_in < written {
            turn(&mut engine, &mut seen);
        }
    }
    drop(stream);
    while engine.pending() > 0 {
        turn(&mut engine, &mut seen);
    }
    seen
}

fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
}

/// Whole, byte by byte, and cut in two at every position.
fn feeds(wire: &str) -> impl Iterator<Item = Vec<&str>> {
    let bytes = (0..wire.len()).map(|i| &wire[i..=i]).collect();
    let cuts = (1..wire.len()).map(|i| vec![&wire[..i], &wire[i..]]);
    [vec![wire], bytes].into_iter().chain(cuts)
}

fn expect(wire: &str, expected: &Seen) {
    for pieces in feeds(wire) {
        for flow in [Flow::Buffer, Flow::Stream, Flow::Pause] {
            assert_eq!(receive(&pieces, flow), *expected, "{flow:?} of {pieces:?}");
        }
    }
}

#[test]
fn interim_responses_are_seen_once() {
    let wire = "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 100\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let expected = Seen {
        interim: vec![103, 100],
        heads: 1,
        status: 200,
        fields: 1,
        body: "hi".to_owned(),
        ..Seen::default()
    };
    expect(wire, &expected);
}

#[test]
fn chunks_and_trailers_are_read_alike() {
    let wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nb: c\r\n\r\n3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nt: u\r\nv: w\r\n\r\n";
    let expected = Seen {
        heads: 1,
        status: 200,
        fields: 2,
        body: "abcde".to_owned(),
        trailers: vec!["t=u".to_owned(), "v=w".to_owned()],
        ..Seen::default()
    };
    expect(wire, &expected);
}

#[test]
fn a_body_may_end_with_the_connection() {
    let expected = Seen {
        heads: 1,
        status: 200,
        body: "to the end".to_owned(),
        ..Seen::default()
    };
    expect("HTTP/1.0 200 OK\r\n\r\nto the end", &expected);
}
