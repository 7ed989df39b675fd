//! Bodies that wait for a 100 (Continue).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::scripted::{Answer, Scripted};
use super::{get_in, run_with};

#[test]
fn large_bodies_wait_for_a_100() {
    let server = Scripted::always(Answer::ok("fine"));
    let large = vec![b'x'; (1 << 20) + 1];
    let given: &[(&str, &[u8])] = &[("large", &large), ("limit", &large[1..])];
    #[rustfmt::skip]
    let rows: &[(&[&str], bool)] = &[
        (&["-T", "large"], true),
        (&["-T", "limit"], false),
        (&["-d", "@large"], true),
        (&["-d", "@limit"], false),
        (&["-F", "a=@large"], true),
        (&["-F", "a=@limit"], false),
        (&["-T", "large", "-H", "Expect:"], false),
        (&["-T", "limit", "-H", "Expect: 100-continue"], true),
        (&["-T", "/dev/null"], true),
    ];
    for (args, expects) in rows {
        for path in ["/", "/silent"] {
            let wait = ["--expect100-timeout", "0.05"];
            let url = server.url(path);
            let args = [*args, &wait, &[&*url]].concat();
            let ran = run_with(&server, given, &args);
            assert_eq!(ran.ended.code(), Some(0), "{args:?}: {ran:?}");
            let expected = expects.then_some("100-continue");
            assert_eq!(ran.only().field("expect"), expected, "{args:?}");
            let is_empty = args.contains(&"/dev/null");
            assert_eq!(ran.only().body.len() >= 1 << 20, !is_empty, "{args:?}");
        }
    }
    let args = [
        "-T",
        "large",
        "--expect100-timeout",
        "0",
        &server.url("/silent"),
    ];
    let ran = run_with(&server, given, &args);
    assert_eq!(ran.only().body.len(), large.len(), "{ran:?}");
}

/// Serves one request whose body is never asked for, and returns what came after the head.
pub(super) fn refuse(listener: &TcpListener, status: &str) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("a client");
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        seen.extend(byte);
    }
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).expect("it is read");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it is closed");
    rest
}

#[test]
fn a_body_that_is_refused_is_not_sent() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let server = thread::spawn(move || refuse(&listener, "413 Too Large"));
    let dir = super::directory_with(&[("large", &vec![b'x'; 2 << 20])]);
    let args = ["-f", "-T", "large", "--expect100-timeout", "100", &url];
    let ended = get_in(dir.path(), &args);
    assert_eq!(ended.code(), Some(22), "{ended:?}");
    assert_eq!(server.join().expect("no panic"), b"");
}
