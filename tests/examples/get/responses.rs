//! What is done with heads and bodies: -i, -I, --compressed.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::scripted::{Answer, Scripted};
use super::{get, get_in, run_with, same_as_curl, without_variables};
use crate::servers::{TempDir, example, run, serve_once};

#[test]
fn one_body_goes_to_stdout_and_the_rest_to_stderr() {
    let addr = serve_once(b"HTTP/1.1 200 Fine\r\nX-A: b\r\nContent-Length: 3\r\n\r\n\0\n\xff");
    let ended = get(&[&format!("http://{addr}/a")]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, b"\0\n\xff");
    assert!(ended.stderr.starts_with("200 HTTP/1.1 "), "{ended:?}");
}

#[test]
fn heads_are_printed_as_they_came() {
    let addr = serve_once(b"HTTP/1.1 200 Fine\r\nX-A: b\r\nx-a:\tc \r\nContent-Length: 1\r\n\r\nz");
    let ended = get(&["-i", &format!("http://{addr}/a")]);
    let expected = b"HTTP/1.1 200 Fine\r\nX-A: b\r\nx-a: c\r\nContent-Length: 1\r\n\r\nz";
    assert_eq!(
        ended.stdout.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

#[test]
fn all_heads_on_the_way_are_printed_as_by_curl() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/start" => Answer::new("302 Found", &["Location: /hint", "X-A: 1"], "moved"),
        "/hint" => Answer::default()
            .then("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n")
            .then("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend"),
        _ => Answer::new("404 Not Found", &["X-B: 2"], "nowhere"),
    });
    for row in [
        &["-i"][..],
        &["-iL"],
        &["-iLo", "file"],
        &["-IL"],
        &["-I", "-X", "GET"],
    ] {
        for path in ["/start", "/else"] {
            // HEAD is answered with the first piece only, which would be the interim response.
            if row.contains(&"-IL") && path == "/start" {
                continue;
            }
            same_as_curl(&server, &[], &[row, &[&*server.url(path)]].concat());
        }
    }
}

#[test]
fn a_body_after_an_unwanted_head_is_not_waited_for() {
    let endless = Answer::default()
        .then("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        .later(Duration::from_secs(100), "never");
    let server = Scripted::always(endless);
    let ended = get(&["-IXGET", &server.url("/")]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(
        ended.text(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    );
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn coded_bodies_are_decoded_as_by_curl() {
    let text = "all work and no play ".repeat(10_000);
    let server = Scripted::start(move |seen, _| match &*seen.target {
        "/gzip" => Answer::new("200 OK", &["Content-Encoding: gzip"], gzip(text.as_bytes())),
        "/deflate" => Answer::new(
            "200 OK",
            &["Content-Encoding: deflate"],
            deflate(text.as_bytes()),
        ),
        "/twice" => Answer::new(
            "200 OK",
            &["Content-Encoding: gzip, gzip"],
            gzip(&gzip(text.as_bytes())),
        ),
        "/cut" => {
            let body = gzip(text.as_bytes());
            Answer::new(
                "200 OK",
                &["Content-Encoding: gzip"],
                &body[..body.len() / 2],
            )
        }
        _ => Answer::ok(&text),
    });
    let sizes = "%{size_download} %header{content-encoding}\n";
    for path in ["/gzip", "/deflate", "/twice", "/plain"] {
        let url = server.url(path);
        let args = ["--compressed", "-o", "file", "-w", sizes, &url];
        let ran = same_as_curl(&server, &[], &args);
        assert_eq!(ran.file("file").len(), 210_000);
        let accepted = ran.only().field("accept-encoding");
        assert_eq!(accepted, Some("gzip, deflate, br, zstd"));
        // The head is that of the coded body.
        same_as_curl(&server, &[], &["--compressed", "-Iw", sizes, &url]);
        same_as_curl(&server, &[], &["--compressed", "-iofile", &url]);
        // As it is.
        same_as_curl(&server, &[], &["-o", "file", "-w", sizes, &url]);
    }
    let ran = run_with(&server, &[], &["--compressed", "-of", &server.url("/cut")]);
    assert_eq!(ran.ended.code(), Some(1), "{ran:?}");
    assert!(ran.ended.stderr.contains("gzip"), "{ran:?}");
}

/// A body that would not fit into memory is streamed to a file, a pipe, or nowhere.
#[test]
fn bodies_are_not_kept_in_memory() {
    const SIZE: usize = 300 << 20;
    let server = Scripted::start(|_, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        let body = Answer::default().then(head);
        body.repeated(SIZE >> 20, Duration::ZERO, vec![b'x'; 1 << 20])
    });
    let get = example("get").get_program().to_owned();
    // Address space, in KiB.
    let limited = r#"ulimit -v 150000 && exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", limited]).arg(get);
    let args = [
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        &server.url("/"),
    ];
    let ended = run(without_variables(&mut command).args(args));
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.text(), SIZE.to_string());
}

#[test]
fn an_empty_body_makes_an_empty_file_as_with_curl() {
    let server = Scripted::always(Answer::ok(""));
    let ran = same_as_curl(&server, &[], &["-o", "file", &server.url("/")]);
    assert_eq!(ran.file("file"), b"");
    let server = Scripted::always(Answer::cut("HTTP/1.0 200 OK\r\n\r\nto the end"));
    let ran = same_as_curl(&server, &[], &["-o", "file", &server.url("/")]);
    assert_eq!(ran.file("file"), b"to the end");
}

#[test]
fn get_connects_where_it_is_told() {
    let server = Scripted::always(Answer::ok("here"));
    let port = server.addr.port();
    let resolve = format!("name.invalid:{port}:127.0.0.1");
    let url = format!("http://name.invalid:{port}/");
    let ran = same_as_curl(&server, &[], &["--resolve", &resolve, &url]);
    assert_eq!(ran.ended.text(), "here");
    let dir = TempDir::new();
    let ended = get_in(dir.path(), &["--public-only", &server.url("/")]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
}
