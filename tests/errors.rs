//! The contents of errors: which request failed, how often it was sent, what is wrong and why, and
//! nothing that may be secret.

mod common;

use std::io;
use std::time::Duration;

use common::{Bench, Server, ok};
use httpstream::resolver::Table;
use httpstream::session::{Retry, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Engine, Error, ErrorKind, Next, Phase, Reply, Request, RequestBuilder, Sent, Sim,
};

/// A request that is identified by its path, which is as secret as its query.
fn secretive(base: &str) -> Request {
    let url = format!("{base}/s3cret-path?key=s3cret-query");
    Request::get(&url).build().unwrap()
}

fn bench() -> Bench {
    Bench::with(|c| {
        c.resolver = Some(common::resolver(Table::new()));
        c.max_connections_per_origin = 1;
    })
}

/// Checks that the error contains the request, but shows only its method and origin.
fn assert_tells(why: &str, error: &Error, base: &str) {
    let request = error
        .request()
        .unwrap_or_else(|| panic!("{why}: {error:?}"));
    assert_eq!(request.uri().path(), "/s3cret-path", "{why}");
    assert_eq!(error.origin().unwrap().to_string(), base, "{why}");
    let shown = format!("{error} {error:#} {error:?} {error:#?} {request:?} {request:#?}");
    assert!(!shown.contains("s3cret"), "{why}: {shown}");
    for form in [
        format!("{error}"),
        format!("{error:#}"),
        format!("{error:?}"),
    ] {
        assert!(form.contains(base), "{why}: {form}");
    }
    assert!(format!("{error:?}").contains("GET"), "{why}");
}

#[test]
fn it_has_the_request_that_failed_in_whichever_phase() {
    let server = Server::start(|peer| {
        let wire: &[u8] = match peer.request().map(|seen| seen.head) {
            Some(head) if head.contains("X-Row: reset") => return peer.reset(),
            Some(head) if head.contains("X-Row: closed") => return,
            Some(head) if head.contains("X-Row: truncated") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
            }
            Some(head) if head.contains("X-Row: malformed") => b"HTTP/1.1 2x0 OK\r\n\r\n",
            Some(head) if head.contains("X-Row: large") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
            }
            _ => b"",
        };
        peer.send(wire);
        if wire.is_empty() {
            peer.hold();
        }
    });
    let base = server.url("");
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    use ErrorKind as Kind;
    let rows = [
        ("refused", closed.as_str(), Kind::Connect),
        ("missing", "http://missing.test", Kind::Resolve),
        ("reset", &base, Kind::ClosedBeforeResponse),
        ("closed", &base, Kind::ClosedBeforeResponse),
        ("truncated", &base, Kind::Truncated),
        ("malformed", &base, Kind::Malformed),
        ("large", &base, Kind::TooLarge),
        ("silent", &base, Kind::Timeout),
    ];
    for (why, base, kind) in rows {
        let mut bench = bench();
        let url = format!("{base}/s3cret-path?key=s3cret-query");
        let request = Request::get(&url)
            .header("X-Row", why)
            .limits(|l| l.max_body_bytes = 100)
            .timeouts(|t| {
                t.first_byte = Some(Duration::from_millis(if why == "silent" {
                    5
                } else {
                    9999
                }))
            });
        let error = bench.fetch_err(request.build().unwrap());
        assert_eq!(error.kind(), kind, "{why}");
        assert_eq!(error.attempts(), 1, "{why}");
        assert!(
            !format!("{error:#}").contains("(sent"),
            "{why}: the text mentions a single attempt"
        );
        assert_tells(why, &error, base);
    }
}

#[test]
fn it_has_the_request_where_none_was_sent() {
    let server = Server::start(|peer| {
        peer.request();
        peer.hold();
    });
    let base = server.url("");
    let mut bench = bench();
    let held = bench.submit(server.get("/held"));
    bench.until("it is sent", |engine, _| engine.stats().in_flight == 1);
    // In the queue, canceled and timed out; delayed; waiting to continue after a request.
    let queued = bench.submit(secretive(&base));
    let short = Request::get(format!("{base}/s3cret-path?key=s3cret-query"));
    bench.submit(short.timeout(Duration::from_millis(5)).build().unwrap());
    let delayed = bench.engine.start(
        bench
            .engine
            .send(secretive(&base))
            .after(Duration::MAX)
            .read_by(common::note),
    );
    bench.replies(1);
    for id in [queued, delayed] {
        assert!(bench.engine.cancel(id));
    }
    bench.replies(3);
    for (why, reply) in bench.log.replies.drain(..).enumerate() {
        let error = reply.unwrap_err();
        assert_tells(&format!("{why}"), &error, &base);
        assert_eq!(
            (error.phase(), error.attempts(), error.request_sent()),
            (Phase::Queue, 0, Sent::No)
        );
    }
    bench.engine.cancel(held);
    bench.replies(1);
    // A chain that has sent a request is canceled while it waits to send it again.
    let mut bench = self::bench();
    let answered = Server::answering(ok("a"));
    let base = answered.url("");
    let again = |log: &mut common::Log, reply: Reply<'_>, cx: &mut httpstream::Context<'_, _>| {
        let _ = common::note(log, reply, cx);
        cx.again().after(Duration::MAX)
    };
    let id = bench.engine.submit(secretive(&base), again);
    bench.replies(1);
    bench.quiet();
    assert!(bench.engine.cancel(id));
    bench.replies(2);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    assert_tells("again", &error, &base);
    assert_eq!(
        error.attempts(),
        0,
        "the attempts of the next request count"
    );
}

#[test]
fn of_what_is_no_exchange_there_is_no_request() {
    let error = Request::get("http://h.test/")
        .header("A B", "c")
        .build()
        .unwrap_err();
    assert!(error.request().is_none() && error.attempts() == 0);
    let mut config = httpstream::Config::default();
    config.max_inbox = 0;
    let error = httpstream::Engine::<()>::with_config(config).unwrap_err();
    assert!(error.request().is_none());
    assert_eq!(
        error.to_string(),
        "configuration cannot be used: max_inbox is 0: nothing could ever be sent"
    );
}

/// Answers the first request of a connection, and closes it at the second one.
fn fickle() -> Server {
    Server::start(|peer| {
        peer.answer(&ok("a"));
        peer.request();
    })
}

#[test]
fn it_says_how_often_the_request_was_sent() {
    // The second connection is closed at its first request.
    let server = Server::start(|peer| {
        if peer.number == 0 {
            peer.answer(&ok("a"));
        }
        peer.request();
    });
    let mut bench = bench();
    bench.fetch_ok(server.get("/"));
    let error = bench.fetch_err(secretive(&server.url("")));
    assert_eq!(error.kind(), ErrorKind::ClosedBeforeResponse);
    assert_eq!((error.attempts(), error.request_sent()), (2, Sent::Maybe));
    assert_tells("twice", &error, &server.url(""));
    for text in [format!("{error}"), format!("{error:#}")] {
        assert!(text.ends_with(" (sent 2 times)"), "{text}");
    }

    // The filter refuses the connection for the second attempt, so the request was sent once.
    let server = fickle();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let mut bench = Bench::with(|c| {
        c.address_filter = Some(std::sync::Arc::new(move |_| {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0
        }));
    });
    bench.fetch_ok(server.get("/"));
    let error = bench.fetch_err(secretive(&server.url("")));
    assert_eq!(
        (error.kind(), error.attempts(), error.request_sent()),
        (ErrorKind::Connect, 2, Sent::Maybe),
        "the first attempt may have been received"
    );
    assert!(error.resend_is_safe(), "a GET may be sent again");
    let text = format!("{error:#}");
    assert!(text.ends_with(" (sent once before)"), "{text}");
}

#[test]
fn a_request_that_waits_to_be_sent_again_has_been_sent() {
    let network = Network::new(1);
    network.serve(([10, 0, 0, 1], 80).into(), |_: &Incoming| {
        Answer::status(503).header("Retry-After", "9")
    });
    let mut engine = Engine::<Option<Error>, Sim>::on_network(&network, Config::default()).unwrap();
    let retry = Retry::attempts(3);
    let session = Session::builder().retry(retry).build().unwrap();
    let request = session.get("http://10.0.0.1/").build().unwrap();
    let chain = engine.submit(request, |error, reply, _| {
        *error = reply.err();
        Next::done()
    });
    let mut error = None;
    engine.advance(&mut error, Duration::from_secs(1)).unwrap();
    assert!(error.is_none() && engine.cancel(chain));
    engine.run(&mut error).unwrap();
    let error = error.unwrap();
    assert_eq!(
        (error.kind(), error.attempts(), error.request_sent()),
        (ErrorKind::Cancelled, 1, Sent::Yes)
    );
    let expected = "http://10.0.0.1: canceled while waiting to be sent (sent once before)";
    assert_eq!(format!("{error:#}"), expected);
}

#[test]
fn what_cannot_be_built_says_why_at_once() {
    type Row = (RequestBuilder, &'static str);
    let rows: [Row; 3] = [
        (Request::get("ftp://h.test/s3cret"), "URL"),
        (
            Request::get("http://h.test/").header("X-A", "s3cret\n"),
            "LF at byte 6",
        ),
        (
            Request::post("http://h.test/").pipeline(4),
            "not idempotent",
        ),
    ];
    for (builder, why) in rows {
        let error = builder.build().unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("request cannot be sent: ") && text.contains(why),
            "{text}"
        );
        assert_eq!(format!("{error:#}"), text, "the text repeats itself");
        assert!(!format!("{text}{error:?}").contains("s3cret"));
    }
}

#[test]
fn a_port_of_another_protocol_is_guessed() {
    // A fatal alert, unexpected_message, with which a TLS server answers bytes that are not a
    // handshake (RFC 8446 §6.2).
    let server = Server::once(b"\x15\x03\x03\x00\x02\x02\x0a");
    let error = Bench::new().fetch_err(server.get("/"));
    assert_eq!(error.kind(), ErrorKind::Malformed);
    for text in [format!("{error}"), format!("{error:#}")] {
        assert!(text.ends_with("; is it an https port?"), "{text}");
    }
    let server = Server::once(b"SSH-2.0-OpenSSH_9.2\r\n");
    let error = Bench::new().fetch_err(server.get("/"));
    assert!(!format!("{error:#}").contains('?'), "{error:#}");
    if cfg!(feature = "tls") {
        let server = Server::start(|peer| {
            // The first bytes on the wire are not a request.
            while peer.unread().is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        });
        let url = format!("https://{}/", server.addr);
        let error = Bench::new().fetch_err(Request::get(&url).build().unwrap());
        assert_eq!(error.kind(), ErrorKind::Tls, "{error:#}");
        assert!(
            format!("{error:#}").contains("is it a plain http port?"),
            "{error:#}"
        );
    }
}

#[test]
fn words_are_said_once_and_name_the_limit() {
    let server = Server::once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
    let error = Bench::new().fetch_err(server.get("/"));
    let origin = server.url("");
    assert_eq!(
        format!("{error:#}"),
        format!("{origin}: response cut short while reading the body: 7 bytes missing")
    );
    let server = Server::once(b"HTTP/1.1 200");
    let error = Bench::new().fetch_err(server.get("/"));
    assert_eq!(
        format!("{error:#}").matches("cut short").count(),
        1,
        "{error:#}"
    );
    let server = Server::once(b"HTTP/1.1 200 OK\r\nContent-Length: 3145728\r\n\r\n");
    let request = Request::get(server.url("/")).limits(|l| l.max_body_bytes = 1_048_576);
    let error = Bench::new().fetch_err(request.build().unwrap());
    let text = format!("{error:#}");
    for word in ["max_body_bytes", "1048576", "3145728", "Content-Length"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_text_that_is_none_says_of_which_request() {
    let server = Server::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na\xff");
    let mut bench = Bench::new();
    bench.engine.submit(
        secretive(&server.url("")),
        |log: &mut common::Log, reply: Reply<'_>, cx| {
            log.replies.push(Err(reply.unwrap().text().unwrap_err()));
            cx.done()
        },
    );
    bench.replies(1);
    let error = bench.log.replies.pop().unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.request_sent()),
        (ErrorKind::Malformed, Sent::Yes)
    );
    assert_tells("text", &error, &server.url(""));
}

#[test]
fn it_becomes_an_io_error_of_its_kind() {
    let refused = Request::get("http://127.0.0.1:1/").build().unwrap();
    let error = io::Error::from(Bench::new().fetch_err(refused));
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let inner = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(inner.kind(), ErrorKind::Connect);
    let invalid = Request::get("http://").build().unwrap_err();
    assert_eq!(io::Error::from(invalid).kind(), io::ErrorKind::InvalidInput);
    assert_eq!(ErrorKind::Timeout.to_string(), "timed out");
}

#[test]
fn debug_begins_with_the_message() {
    let error = Request::get("nonsense").build().unwrap_err();
    let start = format!("Error {{ message: {:?}, kind: ", format!("{error:#}"));
    let found = format!("{error:?}");
    assert!(found.starts_with(&start), "{found}");
}

#[test]
fn ids_schemes_and_mistakes_convert_as_documented() {
    let mut engine = Engine::<()>::new().unwrap();
    let id = engine.call(|_, cx| cx.done());
    assert_eq!(id.to_string(), id.to_u64().to_string());
    assert_eq!(httpstream::Scheme::Https.to_string(), "https");

    fn origin(url: &str) -> Result<httpstream::Origin, Error> {
        Ok(url.parse::<httpstream::Origin>()?)
    }
    let error = origin("http://a.test/b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(
        error.to_string().contains("an origin has no path"),
        "{error}"
    );
}

#[test]
fn little_of_a_wrong_header_name_is_shown() {
    // Name and value, mixed up.
    let secret = "dXNlcjpzM2NyM3RwYXNzd29yZA==";
    let error = Request::get("http://a.test/")
        .header(secret, "Authorization")
        .build()
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("starting with \"dXNlcjpzM2NyM3Rw\": '=' at byte 26"),
        "{text}"
    );
    assert!(
        !format!("{error:?}").contains("dXNlcjpzM2NyM3RwY"),
        "{error:?}"
    );
    let error = Request::get("http://a.test/")
        .header("A", "1")
        .header(" B", "2")
        .build()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("name of header 1: space at byte 0"),
        "{error}"
    );
}

#[test]
fn text_that_is_not_utf8_names_its_content_coding() {
    use std::io::{Read, Write};
    let coded = "Content-Encoding: gzip\r\n".to_owned();
    let long = format!("Content-Encoding: {}\r\n", "\u{e9}".repeat(200));
    for (field, expected) in [
        (String::new(), "body is not UTF-8 at byte 1".to_owned()),
        (
            coded,
            "body is not UTF-8 at byte 1, and has the content coding \"gzip\"".to_owned(),
        ),
        (
            long,
            format!("and has the content coding {:?}", "\u{e9}".repeat(32)),
        ),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let _ = peer.read(&mut [0; 4096]).unwrap();
            let head =
                format!("HTTP/1.1 200 OK\r\n{field}X-Text: \u{e9}a\r\nContent-Length: 3\r\n\r\n");
            peer.write_all(&[head.as_bytes(), b"\x1f\x8b\0"].concat())
                .unwrap();
        });
        let mut engine = Engine::<Vec<String>>::new().unwrap();
        engine.submit(Request::get(url).build().unwrap(), |log, reply, _| {
            let response = reply.unwrap();
            assert_eq!(response.header_str("content-length"), Some("3"));
            assert_eq!(response.header_str(httpstream::http::header::ETAG), None);
            assert_eq!(response.header_str("x-text"), Some("\u{e9}a"));
            log.push(format!("{:#}", response.text().unwrap_err()));
            Next::done()
        });
        let mut log = Vec::new();
        engine.run(&mut log).unwrap();
        serving.join().unwrap();
        assert!(log[0].ends_with(&expected), "{log:?}");
    }
}
