//! Sessions with lighttpd, which implements Digest on its own.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use httpstream::Request;
use httpstream::session::{Auth, Session};

use super::{following, skip};
use crate::common::Bench;
use crate::servers::Lighttpd;

const USER: &str = "bot";
const PASSWORD: &str = "pa:ss \"w\u{f6}rd\"";

/// The folders of the server, each with the algorithms that it offers.
const FOLDERS: [(&str, &str); 4] = [
    ("md5", "MD5"),
    ("sha256", "SHA-256"),
    ("sha512-256", "SHA-512-256"),
    ("either", "MD5|SHA-256"),
];

/// Starts lighttpd, whose log then has lines like `bot GET 200 /md5/echo.sh`. In each folder,
/// `echo.sh` repeats the method, the user and the body of a request.
fn start() -> Option<Lighttpd> {
    let require = FOLDERS.map(|(folder, algorithm)| {
        format!(
            "\"/{folder}/\" => (\"method\" => \"digest\", \"realm\" => \"a realm, {folder}\",
                \"require\" => \"valid-user\", \"algorithm\" => \"{algorithm}\")"
        )
    });
    let settings = format!(
        "server.modules = (\"mod_auth\", \"mod_authn_file\", \"mod_cgi\", \"mod_accesslog\")
        server.document-root = var.CWD + \"/www\"
        accesslog.format = \"%u %m %s %U\"
        cgi.assign = (\".sh\" => \"/bin/sh\")
        auth.backend = \"plain\"
        auth.backend.plain.userfile = var.CWD + \"/users\"
        auth.require = ({})",
        require.join(", ")
    );
    Lighttpd::start(&settings, |dir| {
        fs::write(dir.join("users"), format!("{USER}:{PASSWORD}\n")).unwrap();
        FOLDERS
            .iter()
            .for_each(|(folder, _)| prepare(&dir.join("www").join(folder)));
    })
}

fn prepare(folder: &Path) {
    const ECHO: &str = r#"
        printf 'Content-Type: text/plain\r\n\r\n%s %s ' "$REQUEST_METHOD" "$REMOTE_USER"
        cat
    "#;
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("echo.sh"), ECHO).unwrap();
}

fn session(addr: SocketAddr, password: &str) -> Session {
    let session = following().base(format!("http://{addr}/"));
    session.auth(Auth::digest(USER, password)).build().unwrap()
}

#[test]
fn each_algorithm_is_accepted_with_any_request() {
    let Some(lighttpd) = start() else {
        return skip("lighttpd");
    };
    let mut bench = Bench::new();
    let mut expected = Vec::new();
    let targets = [
        "echo.sh",
        "echo.sh?",
        "echo.sh?a=b,%22c%22&d=%2f",
        "echo.sh?'%5c&e,f",
    ];
    for (folder, _) in FOLDERS {
        let session = session(lighttpd.addr, PASSWORD);
        expected.push(format!("- GET 401 /{folder}/echo.sh"));
        for target in targets {
            let get = session.get(format!("{folder}/{target}")).build().unwrap();
            let got = bench.fetch_ok(get);
            assert_eq!(
                (got.status, got.text()),
                (200, "GET bot "),
                "{folder}/{target}"
            );
            expected.push(format!("bot GET 200 /{folder}/echo.sh"));
        }
        for len in [0, 1, 100_000] {
            let body = "x".repeat(len);
            let post = session.post(format!("{folder}/echo.sh")).body(body.clone());
            let got = bench.fetch_ok(post.build().unwrap());
            assert_eq!(
                (got.status, got.text()),
                (200, &*format!("POST bot {body}")),
                "{folder}"
            );
            expected.push(format!("bot POST 200 /{folder}/echo.sh"));
        }
        let stats = session.stats();
        assert_eq!(stats.challenged, 1, "{folder}: {stats:?}");
    }
    assert_eq!(lighttpd.stop(), expected);
}

#[test]
fn the_body_of_a_challenged_post_is_sent_again() {
    let Some(lighttpd) = start() else {
        return skip("lighttpd");
    };
    let mut bench = Bench::new();
    for len in [1, 70_000, 1 << 20] {
        let session = session(lighttpd.addr, PASSWORD);
        let body = "x".repeat(len);
        let post = session.post("sha256/echo.sh").body(body.clone());
        let got = bench.fetch_ok(post.build().unwrap());
        assert_eq!(
            (got.status, got.text()),
            (200, &*format!("POST bot {body}")),
            "{len}"
        );
        assert_eq!(session.stats().attempts, 2);
    }
}

#[test]
fn a_wrong_password_is_sent_once() {
    let Some(lighttpd) = start() else {
        return skip("lighttpd");
    };
    let mut bench = Bench::new();
    for (folder, _) in FOLDERS {
        let wrong = session(lighttpd.addr, "pa:ss");
        let post = wrong.post(format!("{folder}/echo.sh")).body("text");
        let got = bench.fetch_ok(post.build().unwrap());
        assert_eq!(got.status, 401, "{folder}");
        assert_eq!(wrong.stats().attempts, 2, "{folder}");
    }
    let expected =
        FOLDERS.map(|(folder, _)| [(); 2].map(|()| format!("- POST 401 /{folder}/echo.sh")));
    assert_eq!(lighttpd.stop(), expected.concat());
}

#[test]
fn fifty_requests_at_once_are_all_let_in() {
    const REQUESTS: usize = 50;
    const AT_ONCE: usize = 10;
    let Some(lighttpd) = start() else {
        return skip("lighttpd");
    };
    let session = session(lighttpd.addr, PASSWORD);
    let mut bench = Bench::with(|config| config.max_connections_per_origin = AT_ONCE);
    for round in 0..2 {
        for n in 0..REQUESTS {
            let post = session.post("sha256/echo.sh").body(format!("{round}.{n}"));
            bench.submit(post.build().unwrap());
        }
        bench.replies(REQUESTS);
        let texts: HashSet<_> = bench.log.texts().into_iter().collect();
        let expected = (0..REQUESTS).map(|n| format!("POST bot {round}.{n}"));
        assert_eq!(texts, expected.collect());
        bench.log.replies.clear();
    }
    // Those that began before the first challenge was there were refused once each.
    let challenged = session.stats().challenged as usize;
    assert!((1..=AT_ONCE).contains(&challenged), "{challenged}");
    let log = lighttpd.stop();
    let of = |status: &str| log.iter().filter(|line| line.contains(status)).count();
    assert_eq!((of(" 200 "), of(" 401 ")), (2 * REQUESTS, challenged));
}

/// Passes connections on to lighttpd. A nonce of lighttpd begins with the time of its creation in
/// seconds; the relay sets that of the first one back.
struct Relay(SocketAddr);

impl Relay {
    fn aging(server: SocketAddr, seconds: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let is_first = Arc::new(AtomicBool::new(true));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else {
                    return;
                };
                let to_server = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || copy(to_server.0, to_server.1, |_| ()));
                let is_first = Arc::clone(&is_first);
                std::thread::spawn(move || {
                    copy(server, client, |bytes| {
                        if let Some(time) = find_nonce(bytes)
                            && is_first.swap(false, Ordering::Relaxed)
                        {
                            set_back(&mut bytes[time..time + 8], seconds);
                        }
                    });
                });
            }
        });
        Self(addr)
    }
}

/// Copies until the sender closes. The head of a short response arrives at once.
fn copy(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut [u8])) {
    let mut buf = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        change(&mut buf[..n]);
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Returns where a nonce begins.
fn find_nonce(bytes: &[u8]) -> Option<usize> {
    const BEFORE: &[u8] = b" nonce=\"";
    let at = bytes
        .windows(BEFORE.len())
        .position(|window| window == BEFORE)?;
    Some(at + BEFORE.len())
}

fn set_back(digits: &mut [u8], seconds: u64) {
    let time = u64::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    digits.copy_from_slice(format!("{:08x}", time - seconds).as_bytes());
}

fn echo(session: &Session) -> Request {
    session.post("md5/echo.sh").body("text").build().unwrap()
}

/// lighttpd accepts a nonce for ten minutes.
#[test]
fn a_stale_nonce_is_replaced() {
    let Some(lighttpd) = start() else {
        return skip("lighttpd");
    };
    let relay = Relay::aging(lighttpd.addr, 700);
    let session = session(relay.0, PASSWORD);
    let mut bench = Bench::new();
    for challenged in [2, 2] {
        assert_eq!(bench.fetch_ok(echo(&session)).text(), "POST bot text");
        assert_eq!(session.stats().challenged, challenged);
    }
    drop(bench);
    let expected = ["- POST 401", "- POST 401", "bot POST 200", "bot POST 200"];
    assert_eq!(
        lighttpd.stop(),
        expected.map(|line| format!("{line} /md5/echo.sh"))
    );
}

/// In the last minute before that, it announces the next one.
#[test]
fn the_next_nonce_is_taken_up() {
    let Some(lighttpd) = start() else {
        return skip("lighttpd");
    };
    let relay = Relay::aging(lighttpd.addr, 570);
    let session = session(relay.0, PASSWORD);
    let mut bench = Bench::new();
    for announces in [true, false] {
        let got = bench.fetch_ok(echo(&session));
        assert_eq!(got.text(), "POST bot text");
        let info = super::field(&got, "Authentication-Info");
        assert_eq!(info.contains("nextnonce"), announces, "{info}");
    }
    assert_eq!(session.stats().challenged, 1);
    drop(bench);
    let expected = ["- POST 401", "bot POST 200", "bot POST 200"];
    assert_eq!(
        lighttpd.stop(),
        expected.map(|line| format!("{line} /md5/echo.sh"))
    );
}
