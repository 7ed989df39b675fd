//! The example programs, run as users run them, with real servers on loopback.
#![cfg(unix)]

use crate::servers;

use std::fs;
use std::net::SocketAddr;

use servers::{Ended, Nginx, Python, TempDir, Tree, example, free_addr, run, serve_once};

fn get(args: &[&str]) -> Ended {
    run(example("get").args(args))
}

/// Fetches the whole tree, compares it, and returns the last line that `get` printed.
fn fetch(tree: &Tree, server: SocketAddr, args: &[&str]) -> Summary {
    let dir = TempDir::new();
    let (list, copy) = (dir.path().join("list"), dir.path().join("copy"));
    fs::write(&list, tree.urls(server)).expect("writable");
    let mut command = example("get");
    command.args(["--timeout", "40", "--list"]).arg(&list);
    let ended = run(command.arg("-o").arg(&copy).args(args));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    tree.compare(&copy);
    let summary = Summary(ended.last_line());
    println!("{summary:?}");
    assert_eq!(summary.before("bytes in"), tree.bytes(), "{summary:?}");
    summary
}

#[derive(Debug)]
struct Summary(String);

impl Summary {
    /// Returns the number in front of `words`.
    fn before(&self, words: &str) -> usize {
        let (front, _) = self.0.split_once(words).expect("words of the last line");
        let number = front.split_whitespace().last();
        number.and_then(|n| n.parse().ok()).expect("a number")
    }

    fn opened(&self) -> usize {
        self.before("connections opened")
    }

    fn reused(&self) -> usize {
        self.before("requests on reused connections")
    }
}

fn skip(tool: &str) {
    println!("skipped: {tool} is not installed");
}

#[test]
fn nginx_hands_out_a_tree_over_kept_connections_while_it_reloads() {
    let tree = Tree::get();
    let Some(nginx) = Nginx::start(&tree) else {
        return skip("nginx");
    };
    let reloads = nginx.reload_during(|| {
        let summary = fetch(&tree, nginx.addr, &["--connections", "8"]);
        assert!(summary.reused() > summary.opened(), "{summary:?}");
    });
    assert!(reloads >= 3, "only {reloads} reloads");
}

#[test]
fn nginx_hands_out_a_tree_over_closed_connections_while_it_reloads() {
    let tree = Tree::get();
    let Some(nginx) = Nginx::start(&tree) else {
        return skip("nginx");
    };
    let reloads = nginx.reload_during(|| {
        let summary = fetch(&tree, nginx.addr, &["--connections", "8", "--close"]);
        assert_eq!(summary.reused(), 0, "{summary:?}");
    });
    assert!(reloads >= 3, "only {reloads} reloads");
}

/// The length of its listen queue: with more connections, clients would wait for their SYN to be
/// sent again.
const PYTHONS: &[&str] = &["--connections", "5"];

#[test]
fn python_hands_out_a_tree_over_kept_connections() {
    let tree = Tree::get();
    let Some(python) = Python::start(&tree) else {
        return skip("python3");
    };
    let summary = fetch(&tree, python.addr, PYTHONS);
    if python.keeps_alive {
        assert_eq!(summary.opened(), 5, "{summary:?}");
    }
}

#[test]
fn python_hands_out_a_tree_over_closed_connections() {
    let tree = Tree::get();
    let Some(python) = Python::start(&tree) else {
        return skip("python3");
    };
    let summary = fetch(&tree, python.addr, &[PYTHONS, &["--close"]].concat());
    assert_eq!(summary.reused(), 0, "{summary:?}");
}

#[test]
fn get_writes_one_body_to_stdout_and_the_rest_to_stderr() {
    let addr = serve_once(b"HTTP/1.1 200 Fine\r\nX-A: b\r\nContent-Length: 3\r\n\r\n\0\n\xff");
    let ended = get(&[&format!("http://{addr}/a")]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, b"\0\n\xff");
    assert!(ended.stderr.starts_with("200 HTTP/1.1 "), "{ended:?}");
}

#[test]
fn get_shows_the_head_as_it_came() {
    let addr = serve_once(b"HTTP/1.1 200 Fine\r\nX-A: b\r\nx-a:\tc \r\nContent-Length: 1\r\n\r\nz");
    let ended = get(&["-i", &format!("http://{addr}/a")]);
    let expected = b"HTTP/1.1 200 Fine\r\nX-A: b\r\nx-a: c\r\nContent-Length: 1\r\n\r\nz";
    assert_eq!(
        ended.stdout.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

#[test]
fn get_connects_where_it_is_told() {
    let addr = serve_once(b"HTTP/1.1 204 No Content\r\n\r\n");
    let resolve = format!("name.invalid:{}:127.0.0.1", addr.port());
    let ended = get(&[
        "--resolve",
        &resolve,
        &format!("http://name.invalid:{}/", addr.port()),
    ]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[test]
fn get_fails_on_an_error_status() {
    let addr = serve_once(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope");
    let dir = TempDir::new();
    let out = dir.path().to_str().expect("UTF-8");
    let ended = get(&["-o", out, &format!("http://{addr}/a")]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("404 Not Found"), "{ended:?}");
    assert!(!dir.path().join("a").exists());
}

#[test]
fn get_keeps_no_half_of_a_file() {
    let addr = serve_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let dir = TempDir::new();
    let out = dir.path().to_str().expect("UTF-8");
    let ended = get(&["-o", out, &format!("http://{addr}/a/b")]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("response cut short"), "{ended:?}");
    assert!(
        ended.stderr.contains("5 "),
        "the cause names the missing bytes: {ended:?}"
    );
    assert!(dir.path().join("a").exists() && !dir.path().join("a/b").exists());
}

#[test]
fn get_tells_who_refused_and_fetches_the_others() {
    let (gone, there) = (
        free_addr(),
        serve_once(b"HTTP/1.0 200 OK\r\n\r\nto the end"),
    );
    let ended = get(&[&format!("http://{gone}/x"), &format!("http://{there}/y")]);
    assert_eq!(ended.code(), Some(1));
    let expected = format!("get: http://{gone}/x failed: http://{gone}: could not connect: ");
    assert!(ended.stderr.starts_with(&expected), "{ended:?}");
    let stdout = String::from_utf8_lossy(&ended.stdout);
    assert!(
        stdout.starts_with("200 HTTP/1.0         10 B  fresh "),
        "{stdout}"
    );
    assert!(stdout.contains("\n1 of 2 fetched, 10 bytes "), "{stdout}");
}

#[test]
fn get_names_the_argument_that_is_wrong_and_sends_nothing() {
    let dir = TempDir::new();
    let list = dir.path().join("list");
    fs::write(&list, "http://a/\n\nhttp://\u{e9}/\n").expect("writable");
    let list = list.to_str().expect("UTF-8");
    #[rustfmt::skip]
    let rows: &[(&[&str], &str)] = &[
        (&[], "no URL given"),
        (&["http://a b/"], "\"http://a b/\": request cannot be sent: URL: space at byte 8"),
        (&["--list", list], "list: line 3: request cannot be sent: URL: host is not ASCII"),
        (&["--list", "/nowhere/list", "http://a/"], "--list /nowhere/list: "),
        (&["--frobnicate", "http://a/"], "--frobnicate: no such option"),
        (&["http://a/", "-o"], "-o: a value is missing"),
        (&["-H", "no colon", "http://a/"], "-H number 1: no colon"),
        (&["-H", "a: b\nc", "http://a/"], "-H number 1: request cannot be sent: header value of \"a\": LF at byte 2"),
        (&["-X", "CONNECT", "http://a/"], "-X \"CONNECT\": "),
        (&["--connections", "0", "http://a/"], "--connections \"0\": "),
        (&["--timeout", "soon", "http://a/"], "--timeout \"soon\": "),
        (&["--timeout", "nan", "http://a/"], "--timeout \"nan\": "),
        (&["--resolve", "a:80", "http://a/"], "--resolve \"a:80\": not HOST:PORT:ADDR"),
        (&["-o", "out", "http://a/x", "http://a/x"], "http://a/x: out/x is already the file of another URL"),
        (&["-o", "out", "http://a/b/../../../c"], "\"..\" cannot be a file name"),
    ];
    for (args, expected) in rows {
        let ended = get(args);
        assert_eq!(ended.code(), Some(2), "{args:?}: {ended:?}");
        let line = ended.stderr.lines().next().unwrap_or_default();
        assert!(
            line.starts_with("get: ") && line.contains(expected),
            "{args:?}: {line}"
        );
        assert!(ended.stdout.is_empty(), "{args:?}");
    }
    assert!(!fs::exists("out").expect("readable"));
}

#[test]
fn get_explains_itself() {
    let ended = get(&["--help"]);
    assert_eq!(ended.code(), Some(0));
    assert!(ended.stdout.starts_with(b"Usage: get [options] URL..."));
}
