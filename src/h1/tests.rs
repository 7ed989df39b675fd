//! Drives [`H1`] over byte queues, as an owner with any transport would, and checks that the
//! outcome does not depend on how the bytes are split.

use super::exchange::Exchange;
use super::line::Intake;
use super::reading::Body;
use super::*;
use crate::{Request, RequestBuilder};

/// An empty block of default fields: it only ends the head.
const NO_FIELDS: &[u8] = b"\r\n";

/// A connection without a transport. `wire` holds the bytes written, and `seen` the events produced
/// by the bytes read.
struct Queues {
    h1: H1<u32>,
    /// What happens to response bodies.
    taking: Taking,
    wire: Vec<u8>,
    seen: Vec<String>,
    /// The streamed part of the current response's body.
    streamed: Vec<u8>,
    /// Bytes that were read without a front request.
    unsolicited: usize,
    limits: Limits,
    now: u64,
}

impl Queues {
    /// Puts the first request in front, and the others in line behind it.
    fn new(requests: Vec<Request>, taking: Taking) -> Self {
        let mut h1 = H1::new();
        let is_pipeline = requests.len() > 1;
        for (tag, request) in (0..).zip(requests) {
            let exchange = Exchange::new(tag, request, (0, NO_FIELDS), true, 0);
            if tag == 0 {
                h1.begin(exchange);
                if is_pipeline {
                    let mut line = Box::new(Line::default());
                    line.begin(u16::MAX, Intake::Open);
                    line.hold_nothing_back();
                    h1.begin_line(line);
                }
            } else {
                h1.line_mut().expect("begun").push(exchange, u16::MAX);
            }
        }
        Self {
            h1,
            taking,
            wire: Vec::new(),
            seen: Vec::new(),
            streamed: Vec::new(),
            unsolicited: 0,
            limits: Limits::default(),
            now: 1,
        }
    }

    fn see(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }

    /// Writes everything that may be written now, at most `most` bytes at a time.
    fn write(&mut self, most: usize) {
        while self.h1.has_unwritten() && self.h1.is_writable() {
            let (outgoing, skip) = self.h1.outgoing::<16>(|_, _| NO_FIELDS);
            let bytes = outgoing.parts().concat();
            let taken = most.min(bytes.len() - skip);
            assert!(taken > 0, "there is something to write");
            self.wire.extend_from_slice(&bytes[skip..skip + taken]);
            self.now += 1;
            self.h1.on_written(taken, true, self.now);
        }
    }

    /// Reads `bytes` as one read of a socket, and writes what that allows.
    fn read(&mut self, bytes: &[u8], most: usize) -> Result<(), Violation> {
        let mut data = bytes.to_vec();
        match self.h1.join_kept_head(&data) {
            Some(mut joined) => {
                self.read_in(&mut joined, true, most)?;
                self.h1.put_back_head(joined);
            }
            None => self.read_in(&mut data, false, most)?,
        }
        Ok(())
    }

    fn read_in(
        &mut self,
        mut data: &mut [u8],
        mut is_kept_head: bool,
        most: usize,
    ) -> Result<(), Violation> {
        loop {
            if self.h1.front().is_none() {
                self.unsolicited += data.len();
                return Ok(());
            }
            let mut reading = self.h1.reading(data, Box::default);
            if std::mem::take(&mut is_kept_head) {
                reading = reading.of_kept_head();
            }
            loop {
                match self.h1.next(&mut reading, &self.limits)? {
                    Event::More => {
                        self.h1.keep(reading);
                        return Ok(());
                    }
                    Event::Interim { continues } => {
                        let status = reading.head().0.status;
                        self.see(format!("interim {} {continues}", status.as_u16()));
                        self.write(most);
                    }
                    Event::Head => {
                        let (head, _) = reading.head();
                        let status = head.status.as_u16();
                        // After a switch the bytes belong to the owner.
                        let taking = match self.h1.is_tunnel() {
                            true => Taking::Stream,
                            false => self.taking,
                        };
                        self.h1.take(taking, head, &self.limits)?;
                        self.see(format!("head {status}"));
                    }
                    Event::Data(place) => self.streamed.extend_from_slice(reading.piece(place)),
                    Event::ExpectRefused => {
                        self.see("expect refused");
                        return Ok(());
                    }
                    Event::Complete => break,
                }
            }
            data = self.complete(reading);
        }
    }

    /// Finishes the response, and returns the bytes after it.
    fn complete<'d>(&mut self, mut reading: Reading<'d>) -> &'d mut [u8] {
        let (_, _, trailers, body) = reading.response();
        let bytes = match &body {
            Body::Lent(bytes) => bytes,
            Body::Collected(collected) => collected.as_slice(),
        };
        let body = match self.taking {
            Taking::Stream => format!("streamed {:?}", String::from_utf8_lossy(&self.streamed)),
            _ => format!("body {:?}", String::from_utf8_lossy(bytes)),
        };
        let trailers = trailers.count();
        self.streamed.clear();
        let is_whole = self.h1.is_whole() && !self.h1.ends_behind_front();
        let exchange = self.h1.finish().expect("a response belongs to an exchange");
        self.see(format!(
            "#{} {body}, {trailers} trailers, reusable: {is_whole}",
            exchange.tag
        ));
        if is_whole {
            self.h1.promote();
        }
        reading.into_parts().1
    }

    /// Reports that the peer has closed the connection.
    fn end(&mut self) {
        match self.h1.on_eof() {
            Eof::Complete if self.h1.front().is_some() => {
                let mut nothing = [];
                let mut reading = self.h1.reading(&mut nothing, Box::default);
                let event = self.h1.next(&mut reading, &self.limits);
                assert_eq!(event, Ok(Event::Complete));
                self.complete(reading);
            }
            Eof::Complete => self.see("end"),
            Eof::NothingReceived => self.see("end before a response"),
            Eof::Truncated(violation) => self.see(format!("{violation}")),
        }
    }
}

/// Returns the outcome of `bytes`, after checking that it is the same for every split into two
/// pieces and for single bytes.
fn outcome(
    requests: impl Fn() -> Vec<Request>,
    taking: Taking,
    bytes: &str,
    ends: bool,
) -> (String, Vec<String>) {
    let bytes = bytes.as_bytes();
    let mut splits: Vec<Vec<&[u8]>> = (0..bytes.len())
        .map(|at| vec![&bytes[..at], &bytes[at..]])
        .collect();
    splits.push(bytes.chunks(1).collect());
    let mut expected = None;
    for pieces in splits {
        for most in [1, 7, usize::MAX] {
            let mut queues = Queues::new(requests(), taking);
            queues.write(most);
            let mut come = pieces.iter().filter(|piece| !piece.is_empty());
            match come.try_for_each(|piece| queues.read(piece, most)) {
                Err(violation) => queues.see(format!("{violation}")),
                Ok(()) if ends && queues.h1.front().is_some() => queues.end(),
                Ok(()) => {}
            }
            if queues.unsolicited > 0 {
                queues.see(format!("{} bytes unsolicited", queues.unsolicited));
            }
            if queues.h1.is_tunnel() {
                let streamed = std::mem::take(&mut queues.streamed);
                queues.see(format!("tunnel {:?}", String::from_utf8_lossy(&streamed)));
            }
            let wire = String::from_utf8(queues.wire).unwrap();
            let outcome = (wire, queues.seen);
            let expected = expected.get_or_insert_with(|| outcome.clone());
            assert_eq!(*expected, outcome, "{:?}, {most}", pieces[0]);
        }
    }
    expected.expect("there are bytes")
}

fn get() -> RequestBuilder {
    Request::get("http://a/")
}

fn one(request: RequestBuilder) -> impl Fn() -> Vec<Request> {
    let request = request.build().unwrap();
    move || vec![request.clone()]
}

#[test]
fn a_response_is_the_same_in_whichever_pieces_it_comes() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                           3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nA: b\r\n\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde";
    let until_close = "HTTP/1.0 200 OK\r\n\r\nabc";
    let interim = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 None\r\n\r\n";
    let close = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na";
    let rows: [(&str, Taking, &[&str]); 10] = [
        (
            length,
            Taking::Collect,
            &["head 200", "#0 body \"abcde\", 0 trailers, reusable: true"],
        ),
        (
            length,
            Taking::Stream,
            &[
                "head 200",
                "#0 streamed \"abcde\", 0 trailers, reusable: true",
            ],
        ),
        (
            length,
            Taking::Discard,
            &["head 200", "#0 body \"\", 0 trailers, reusable: true"],
        ),
        (
            CHUNKED,
            Taking::Collect,
            &[
                "head 200",
                "#0 body \"abcdefgh\", 1 trailers, reusable: true",
            ],
        ),
        (
            CHUNKED,
            Taking::Stream,
            &[
                "head 200",
                "#0 streamed \"abcdefgh\", 1 trailers, reusable: true",
            ],
        ),
        (
            CHUNKED,
            Taking::Discard,
            &["head 200", "#0 body \"\", 1 trailers, reusable: true"],
        ),
        (
            until_close,
            Taking::Collect,
            &["head 200", "#0 body \"abc\", 0 trailers, reusable: false"],
        ),
        (
            until_close,
            Taking::Stream,
            &[
                "head 200",
                "#0 streamed \"abc\", 0 trailers, reusable: false",
            ],
        ),
        (
            interim,
            Taking::Collect,
            &[
                "interim 103 false",
                "head 204",
                "#0 body \"\", 0 trailers, reusable: true",
            ],
        ),
        (
            close,
            Taking::Collect,
            &["head 200", "#0 body \"a\", 0 trailers, reusable: false"],
        ),
    ];
    for (bytes, taking, expected) in rows {
        let (wire, seen) = outcome(one(get()), taking, bytes, true);
        assert_eq!(seen, expected, "{bytes}");
        assert_eq!(wire, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // In a response to HEAD, Content-Length describes a body that is not sent.
    let head = Request::builder(http::Method::HEAD, "http://a/");
    let (_, seen) = outcome(
        one(head),
        Taking::Collect,
        &length[..length.len() - 5],
        false,
    );
    let expected = ["head 200", "#0 body \"\", 0 trailers, reusable: true"];
    assert_eq!(seen, expected);
}

#[test]
fn what_ends_or_breaks_a_response_is_the_same_in_whichever_pieces_it_comes() {
    let rows: [(&str, &[&str]); 5] = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            &["head 200", "CUT"],
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            &["head 200", "CUT"],
        ),
        ("HTTP/1.1 200 OK\r\nCont", &["CUT"]),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            &["ERR"],
        ),
        ("nonsense \r\n\r\n", &["ERR"]),
    ];
    for (bytes, expected) in rows {
        let (_, seen) = outcome(one(get()), Taking::Collect, bytes, true);
        assert_eq!(seen.len(), expected.len(), "{bytes}: {seen:?}");
        let last = seen.last().unwrap();
        let is_cut = last.contains("cut short");
        assert_eq!(is_cut, expected.ends_with(&["CUT"]), "{bytes}: {last}");
    }
    let bytes = "HTTP/1.1 204 \r\n\r\nabc";
    let (_, seen) = outcome(one(get()), Taking::Collect, bytes, false);
    assert_eq!(seen[2..], ["3 bytes unsolicited"]);
}

#[test]
fn a_body_waits_for_a_100_and_is_not_sent_behind_a_refusal() {
    let put = || {
        Request::put("http://a/")
            .body("xyz")
            .header("Expect", "100-continue")
    };
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let continued = format!("HTTP/1.1 100 Continue\r\n\r\n{ok}");
    let (wire, seen) = outcome(one(put()), Taking::Collect, &continued, false);
    assert_eq!(sorted(&wire), sorted(&format!("{head}xyz")));
    let expected = [
        "interim 100 true",
        "head 200",
        "#0 body \"\", 0 trailers, reusable: true",
    ];
    assert_eq!(seen, expected);
    // A final response instead of the 100: the body is never sent, and the connection ends.
    let refused = "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n";
    let (wire, seen) = outcome(one(put()), Taking::Collect, refused, false);
    assert_eq!(sorted(&wire), sorted(head));
    let expected = ["head 413", "#0 body \"\", 0 trailers, reusable: false"];
    assert_eq!(seen, expected);
    let refused = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
    let (wire, seen) = outcome(one(put()), Taking::Collect, refused, false);
    assert_eq!(sorted(&wire), sorted(head));
    assert_eq!(seen, ["expect refused"]);
}

/// Returns the lines of a head in sorted order, including whatever follows the head.
fn sorted(wire: &str) -> Vec<&str> {
    let mut lines: Vec<_> = wire.split("\r\n").collect();
    lines.sort_unstable();
    lines
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let requests = || {
        let paths = ["http://a/0", "http://a/1", "http://a/2"];
        let build = |url| Request::get(url).pipeline(8).build().unwrap();
        paths.map(build).into_iter().collect()
    };
    let answer = |body: &str, more: &str| {
        let len = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n{more}\r\n{body}")
    };
    let all = [answer("a", ""), answer("bc", ""), answer("", "")].concat();
    let (wire, seen) = outcome(requests, Taking::Collect, &all, true);
    assert_eq!(wire.matches("HTTP/1.1\r\nHost: a\r\n\r\n").count(), 3);
    let places = ["/0", "/1", "/2"].map(|path| wire.find(path).unwrap());
    assert!(places.is_sorted());
    let expected = [
        "head 200",
        "#0 body \"a\", 0 trailers, reusable: true",
        "head 200",
        "#1 body \"bc\", 0 trailers, reusable: true",
        "head 200",
        "#2 body \"\", 0 trailers, reusable: true",
    ];
    assert_eq!(seen, expected);
    // When a response is the connection's last, the requests behind it stay in line.
    let last = [answer("a", ""), answer("b", "Connection: close\r\n")].concat();
    let (_, seen) = outcome(requests, Taking::Stream, &last, false);
    assert_eq!(seen[3], "#1 streamed \"b\", 0 trailers, reusable: false");
    assert_eq!(seen.len(), 4);
}

#[test]
fn behind_a_switch_bytes_are_the_owners_and_none_are_lost() {
    let upgrade = get().header("Connection", "Upgrade").header("Upgrade", "x");
    let bytes = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n\
                 HTTP/1.1 200 OK\r\n\r\nleftover";
    let (_, seen) = outcome(one(upgrade), Taking::Collect, bytes, false);
    let tunnel = format!("tunnel {:?}", "HTTP/1.1 200 OK\r\n\r\nleftover");
    assert_eq!(seen, ["head 101", &tunnel]);
}
