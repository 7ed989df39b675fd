//! -T: files and pipes that are sent.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::consent::refuse;
use super::scripted::{Answer, Scripted, Seen};
use super::{get, get_in, run_with, same_as_curl, without_variables};
use crate::servers::{Ended, LIMIT, TempDir, example, run, tool};

const FILES: &[(&str, &[u8])] = &[
    ("small", b"hello"),
    ("empty", b""),
    ("two words & 1.txt", b"a\r\nb\0c"),
];

fn started(dir: &Path, command: &mut Command) -> Child {
    let command = without_variables(command).current_dir(dir);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().expect("it starts")
}

/// Runs a program with these pieces on its stdin, each a while after the one before.
fn piped(command: &mut Command, pieces: &[&str]) -> Ended {
    let dir = TempDir::new();
    let mut child = started(dir.path(), command);
    let mut stdin = child.stdin.take().expect("piped");
    for piece in pieces {
        stdin.write_all(piece.as_bytes()).expect("it is read");
        thread::sleep(Duration::from_millis(50));
    }
    drop(stdin);
    let output = child.wait_with_output().expect("our child");
    Ended {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn uploads_are_those_of_curl() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/moved" => Answer::new("307 Temporary Redirect", &["Location: /there"], ""),
        _ => Answer::ok("fine"),
    });
    let url = |path: &str| server.url(path);
    let words = "two words & 1.txt";
    #[rustfmt::skip]
    let rows: &[(&[&str], &[&str], &[&str])] = &[
        (&["-T", "small"], &["/x"], &["PUT /x"]),
        (&["-T", "small"], &["/x?q=1"], &["PUT /x?q=1"]),
        (&["-T", "small"], &["/d/"], &["PUT /d/small"]),
        (&["-T", "small"], &["/d/?q=1#f"], &["PUT /d/small?q=1"]),
        (&["-T", "./small"], &[""], &["PUT /small"]),
        (&["-T", "small"], &["/a/.."], &["PUT /small"]),
        (&["-T", words], &["/d/"], &["PUT /d/two%20words%20%26%201.txt"]),
        (&["--upload-file", "empty"], &["/x"], &["PUT /x"]),
        (&["-X", "POST", "-T", "small"], &["/x"], &["POST /x"]),
        (&["-T", "small", "-H", "Content-Type: a/b", "-u", "a:b"], &["/x"], &["PUT /x"]),
        (&["-T", "small", "-T", "empty"], &["/1/", "/2/"], &["PUT /1/small", "PUT /2/empty"]),
        (&["-T", "small"], &["/1", "/2/"], &["PUT /1", "GET /2/"]),
        (&["-L", "-T", "small"], &["/moved"], &["PUT /moved", "PUT /there"]),
    ];
    for (args, paths, expected) in rows {
        let urls: Vec<_> = paths.iter().map(|path| url(path)).collect();
        let urls = urls.iter().map(String::as_str);
        let args: Vec<_> = args.iter().copied().chain(urls).collect();
        let ran = same_as_curl(&server, FILES, &args);
        assert_eq!(ran.lines(), *expected, "{args:?}");
        assert_eq!(ran.ended.code(), Some(0), "{args:?}: {ran:?}");
    }
    let ran = run_with(&server, FILES, &["-T", words, &url("/x")]);
    assert_eq!(ran.only().body, b"a\r\nb\0c");
    assert_eq!(ran.only().all("content-length"), ["6"]);
    // curl refuses this.
    let args = ["-T", "small", "-G", "-d", "a=b", &url("/x")];
    assert_eq!(run_with(&server, FILES, &args).lines(), ["PUT /x?a=b"]);
}

#[test]
fn stdin_is_sent_in_chunks_as_by_curl() {
    let server = Scripted::always(Answer::ok("fine"));
    let args = ["-sS", "-T", "-", &server.url("/d/")];
    let ended = piped(example("get").args(args), &["part", "", "and more"]);
    assert_eq!((ended.code(), &*ended.text()), (Some(0), "fine"));
    let seen = server.take();
    assert_eq!(seen[0].line(), "PUT /d/");
    assert_eq!(seen[0].body, b"partand more");
    assert_eq!(seen[0].all("transfer-encoding"), ["chunked"]);
    assert_eq!(seen[0].field("content-length"), None);
    if let Some(curl) = tool("curl") {
        piped(
            Command::new(curl).arg("-q").args(args),
            &["part", "and more"],
        );
        let of_curl = server.take();
        assert_eq!(seen[0].comparable(), of_curl[0].comparable());
    }
}

/// The transfer that waits for its pipe holds back no other.
#[test]
fn a_silent_pipe_holds_back_nobody_else() {
    let server = Scripted::start(|seen, _| Answer::ok(&seen.target));
    let (one, two) = (server.url("/1"), server.url("/2"));
    let dir = TempDir::new();
    let args = ["-Z", "-T", "-", "-o", "one", "-o", "two", &one, &two];
    let mut child = started(dir.path(), example("get").args(args));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"part").expect("it is read");
    let end = Instant::now() + LIMIT;
    while fs::read(dir.path().join("two")).unwrap_or_default() != b"/2" {
        assert!(
            Instant::now() < end,
            "the second transfer waits for the first"
        );
        thread::sleep(Duration::from_millis(5));
    }
    // The first is not complete, so it cannot have been answered.
    assert!(!dir.path().join("one").exists());
    stdin.write_all(b" and more").expect("it is read");
    drop(stdin);
    let output = child.wait_with_output().expect("our child");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let seen = server.take();
    let put = seen.iter().find(|seen| seen.method == "PUT");
    assert_eq!(put.expect("an upload").body, b"part and more");
}

#[test]
fn a_named_pipe_is_read_as_it_comes() {
    let server = Scripted::always(Answer::ok("fine"));
    let dir = TempDir::new();
    let pipe = dir.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo is there").success());
    let writer = thread::spawn(move || fs::write(pipe, "from a pipe"));
    let ended = get_in(dir.path(), &["-T", "pipe", &server.url("/d/")]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    writer.join().expect("no panic").expect("it is read");
    let seen = server.take();
    assert_eq!(
        (seen[0].line(), &*seen[0].body),
        ("PUT /d/pipe".into(), &b"from a pipe"[..])
    );
    // A socket cannot be opened as a file, which only the thread that reads it finds out.
    let _socket = UnixListener::bind(dir.path().join("socket")).expect("a free name");
    let ended = get_in(dir.path(), &["-T", "socket", &server.url("/")]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("socket: No such device or address"),
        "{ended:?}"
    );
}

#[test]
fn a_pipe_cannot_be_sent_twice() {
    let server = Scripted::always(Answer::new("307 Again", &["Location: /there"], ""));
    let args = ["-L", "-T", "-", "-H", "Expect:", &server.url("/")];
    let ended = piped(example("get").args(args), &["part"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("redirect that cannot be followed"),
        "{ended:?}"
    );
    assert_eq!(server.take().len(), 1);
}

#[test]
fn an_upload_is_sent_again_from_its_beginning() {
    let server = Scripted::start(|_, count| match count {
        0 => Answer::new("503 Busy", &[], ""),
        _ => Answer::ok("fine"),
    });
    let args = ["--retry", "1", "--retry-delay", "0.01", "-T", "small"];
    let ran = run_with(&server, FILES, &[&args[..], &[&server.url("/")]].concat());
    assert_eq!(ran.ended.code(), Some(0), "{ran:?}");
    assert_eq!(ran.lines(), ["PUT /small", "PUT /small"]);
    assert!(ran.seen.iter().all(|seen| seen.body == b"hello"), "{ran:?}");
}

/// A file of 300 MiB, sent with an address space of 200 MB.
#[test]
fn a_file_is_not_loaded_into_memory() {
    const SIZE: u64 = 300 << 20;
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let (mut room, mut bytes) = (vec![0; 1 << 20], 0);
        while bytes < SIZE {
            let n = stream.read(&mut room).expect("a body");
            assert_ne!(n, 0, "the body ends after {bytes} bytes");
            bytes += n as u64;
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine";
        stream.write_all(answer.as_bytes()).expect("it is read");
    });
    let dir = TempDir::new();
    let file = fs::File::create(dir.path().join("large")).expect("writable");
    file.set_len(SIZE).expect("it is sparse");
    let mut command = Command::new("sh");
    let limited = r#"ulimit -v 200000 && exec "$0" -T large -H Expect: "$1""#;
    let command = command
        .args(["-c", limited])
        .arg(example("get").get_program());
    let ended = run(without_variables(command).arg(url).current_dir(dir.path()));
    assert_eq!(
        (ended.code(), &*ended.text()),
        (Some(0), "fine"),
        "{ended:?}"
    );
    server.join().expect("no panic");
}

#[test]
fn a_file_that_is_gone_is_named() {
    let server = Scripted::always(Answer::ok("fine"));
    let ended = get(&["-T", "/nowhere/file", &server.url("/")]);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("-T /nowhere/file: No such file"),
        "{ended:?}"
    );
    assert_eq!(server.take(), Vec::<Seen>::new());
}

/// A server may answer before it has all of a body, and a pipe may never have all of it.
#[test]
fn an_early_answer_does_not_wait_for_the_pipe() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let server = thread::spawn(move || refuse(&listener, "413 Too Large"));
    let dir = TempDir::new();
    let args = ["-f", "-T", "-", "-H", "Expect:", &url];
    let mut child = started(dir.path(), example("get").args(args));
    // Open until the program has ended.
    let stdin = child.stdin.take();
    let end = Instant::now() + LIMIT;
    while child.try_wait().expect("our child").is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    let has_ended = child.try_wait().expect("our child").is_some();
    drop(stdin);
    let output = child.wait_with_output().expect("our child");
    assert!(has_ended, "it waits for the pipe: {output:?}");
    assert_eq!(output.status.code(), Some(22), "{output:?}");
    server.join().expect("no panic");
}
