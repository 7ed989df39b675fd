//! Odd places, characters and orders of events around sessions.

mod common;
#[path = "counting/mod.rs"]
mod counting;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::Server;
use httpstream::session::{Jar, Redirects, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, Next, Origin, Readback, Reply, Request, Sim};

fn folder(name: &str) -> PathBuf {
    let path =
        std::env::temp_dir().join(format!("httpstream_corners_{name}_{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_save_does_not_trip_over_a_temporary_file_of_another() {
    let folder = folder("stale");
    let jar = Jar::new();
    jar.set("http://a.test/", "a=b").unwrap();
    let path = folder.join("jar.txt");
    // What a crashed process with the same id (1 in each container) has left.
    for n in 0..200 {
        let name = format!(".cookies.{}.{n}.tmp", std::process::id());
        fs::write(folder.join(name), "another's").unwrap();
    }
    let before = fs::read_dir(&folder).unwrap().count();
    let saved = jar.save(&path);
    let after = fs::read_dir(&folder).unwrap().count();
    fs::remove_dir_all(&folder).unwrap();
    println!("{saved:?}, {before} -> {after} files");
    assert!(after >= before, "a file of another was removed");
    saved.unwrap();
}

#[test]
fn a_jar_can_be_saved_under_the_longest_name() {
    let folder = folder("long");
    let jar = Jar::new();
    let path = folder.join("n".repeat(250));
    fs::write(&path, "").unwrap();
    let saved = jar.save(&path);
    fs::remove_dir_all(&folder).unwrap();
    saved.unwrap();
}

#[test]
fn odd_places_to_save() {
    let folder = folder("odd");
    let jar = Jar::new();
    jar.set("http://a.test/", "a=b").unwrap();
    for name in ["", ".", "..", "/", "/proc/x", "/dev/null/x", "/dev/null"] {
        println!("{name:?}: {:?}", jar.save(name).map_err(|e| e.kind()));
    }
    assert!(jar.save(&folder).is_err());
    let target = folder.join("target");
    fs::write(&target, "keep").unwrap();
    let link = folder.join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    jar.save(&link).unwrap();
    println!(
        "link is link: {}, target {:?}",
        link.is_symlink(),
        fs::read_to_string(&target).unwrap().len()
    );
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_is_too_long_is_not_loaded() {
    let path = folder("too_long").join("cookies.txt");
    // It takes no space on the disk.
    fs::File::create(&path)
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    let error = Jar::load(&path).unwrap_err();
    assert_eq!(error.to_string(), "the file is longer than 67108864 bytes");
    fs::remove_file(path).unwrap();
}

#[test]
fn a_large_file_of_cookies_loads_in_time() {
    let folder = folder("large");
    let path = folder.join("jar.txt");
    let mut text = String::new();
    for n in 0..30_000 {
        text += &format!("d{n}.com\tFALSE\t/\tFALSE\t0\tn{n}\tv\n");
    }
    fs::write(&path, text).unwrap();
    let start = Instant::now();
    let jar = Jar::load(&path).unwrap();
    let took = start.elapsed();
    println!("{jar:?} in {took:?}");
    fs::remove_dir_all(&folder).unwrap();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What `decide` sees (an `http::Uri`) names the same host and port as what is dialed.
#[test]
fn decide_and_dial_agree() {
    let parts = [
        "http://",
        "https://",
        "HTTP://",
        "http:",
        "http:/",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "#",
        "?",
        "a.test",
        "b.test",
        "127.0.0.1",
        "[::1]",
        "[",
        "]",
        "%2e",
        "%00",
        "%40",
        ".",
        "..",
        "0x7f.1",
        "80",
        "443",
        "65536",
        "0",
        " ",
        "\t",
        "\r",
        "\n",
        "\u{e9}",
        "user",
        "pass",
        ";",
        ",",
        "&",
        "=",
        "%",
        "%zz",
        "\u{ff0e}",
        "\u{2025}",
        "xn--",
        "[fe80::1%25eth0]",
        "[::ffff:1.2.3.4]",
        "*",
        "~",
        "{",
        "}",
        "|",
        "^",
        "`",
        "\"",
        "<",
        ">",
        "'",
        "$",
        "!",
        "(",
        ")",
        "+",
        "-",
        "_",
    ];
    let base = Request::get("http://base.test/p/q?r").build().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut fine, mut bad) = (0, 0);
    for _ in 0..60_000 {
        let mut text = String::new();
        for _ in 0..=random.next() % 8 {
            text += parts[(random.next() % parts.len() as u64) as usize];
        }
        for built in [
            base.resolve(&text).build(),
            Request::get(text.as_str()).build(),
        ] {
            match built {
                Err(error) => {
                    bad += 1;
                    let shown = format!("{error} {error:?}");
                    assert!(!shown.contains("pass"), "{text:?}: {shown}");
                }
                Ok(request) => {
                    fine += 1;
                    let uri = request.uri();
                    let origin = request.origin();
                    let host = uri.host().unwrap();
                    let host = host.trim_start_matches('[').trim_end_matches(']');
                    assert!(
                        host.eq_ignore_ascii_case(origin.host()) || host.contains('%'),
                        "{text:?}: {uri} {origin}"
                    );
                    let default = if uri.scheme_str() == Some("https") {
                        443
                    } else {
                        80
                    };
                    assert_eq!(
                        uri.port_u16().unwrap_or(default),
                        origin.port(),
                        "{text:?}: {uri} {origin}"
                    );
                    assert!(
                        !uri.to_string().contains('@')
                            || uri.authority().unwrap().as_str().find('@').is_none(),
                        "{text:?}"
                    );
                    let again: Result<Request, _> = Request::get(uri.to_string()).build();
                    let again = again.unwrap_or_else(|e| panic!("{text:?}: {uri}: {e}"));
                    assert_eq!(again.origin(), origin, "{text:?}");
                    assert_eq!(again.target(), request.target(), "{text:?}");
                    assert!(
                        request.target().bytes().all(|b| b.is_ascii_graphic()),
                        "{text:?}"
                    );
                }
            }
        }
    }
    println!("{fine} fine, {bad} refused");
}

#[test]
fn segments_and_params_of_every_character() {
    for c in (0..=0x2ff_u32)
        .chain(0xff00..0xffff)
        .filter_map(char::from_u32)
    {
        for text in [
            format!("{c}"),
            format!("{c}{c}"),
            format!(".{c}"),
            format!("{c}."),
        ] {
            let built = Request::get("http://a.test/x/")
                .segment(&text)
                .param(&text, &text)
                .build();
            let Ok(request) = built else {
                assert!([".", ".."].contains(&text.as_str()), "{text:?}");
                continue;
            };
            let (path, query) = request.target().split_once('?').unwrap();
            let path = path.strip_prefix("/x/").unwrap();
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
            assert!(path.bytes().all(safe), "{text:?}");
            assert!(query.bytes().all(|b| safe(b) || b == b'='), "{text:?}");
            assert_eq!(query.matches('=').count(), 1);
        }
    }
}

#[test]
fn preconnects_without_an_end() {
    let network = Network::new(1);
    network.host("*", [[10, 0, 0, 1]]);
    let mut config = Config::default();
    config.max_connections = 100;
    let mut engine = Engine::<u64, Sim>::on_network(&network, config).unwrap();
    let live = counting::live_bytes();
    let mut n = 0;
    for round in 0..20 {
        for host in 0..10_000 {
            let origin: Origin = format!("http://h{round}x{host}.test").parse().unwrap();
            engine.preconnect(&origin);
        }
        engine.advance(&mut n, Duration::from_secs(60)).unwrap();
    }
    engine.advance(&mut n, Duration::from_secs(1000)).unwrap();
    println!(
        "{:?} origins {} live {}",
        engine.stats(),
        engine.origins().len(),
        counting::live_bytes() - live
    );
    assert!(engine.origins().len() < 1000);
    assert_eq!(engine.pending(), 0);
}

/// Ends a session from another thread in a loop, while two engines share it and its jar.
#[test]
fn two_engines_share_a_session_that_ends_all_the_time() {
    let server = Server::start(|peer| {
        let mut n = 0;
        while let Some(seen) = peer.request() {
            n += 1;
            let text = match (seen.path.as_str(), n % 3) {
                ("/end", _) => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na".to_owned(),
                (_, 0) => format!(
                    "HTTP/1.1 302 F\r\nLocation: /end\r\nSet-Cookie: c{n}=1\r\nContent-Length: 0\r\n\r\n"
                ),
                (_, 1) => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na".to_owned(),
                _ => format!("HTTP/1.1 307 F\r\nLocation: /x{n}\r\nContent-Length: 0\r\n\r\n"),
            };
            peer.send(text.as_bytes());
        }
    });
    let session = Session::builder()
        .base(format!("http://{}/", server.addr))
        .redirects(Redirects::limited(20))
        .cookies(Jar::new())
        .build()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ends = {
        let (session, over) = (session.clone(), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut ends = 0_u64;
            while !over.load(Ordering::Relaxed) {
                session.end();
                ends += 1;
                if ends.is_multiple_of(64) {
                    std::thread::sleep(Duration::from_micros(300));
                }
            }
            ends
        })
    };
    let run = |seed: usize| {
        let session = session.clone();
        std::thread::spawn(move || {
            let mut engine = Engine::<(u64, u64)>::with_config(Config::default()).unwrap();
            for n in 0..50 {
                let request = session
                    .get(format!("{seed}/{n}"))
                    .pipeline(1 + n % 3)
                    .build()
                    .unwrap();
                let (session, left) = (session.clone(), 60);
                engine.submit_to(request, Again { session, left });
            }
            let mut state = (0, 0);
            engine.run(&mut state).unwrap();
            assert_eq!(engine.pending(), 0);
            state
        })
    };
    let runs = [run(1), run(2)];
    for run in runs {
        println!("{:?}", run.join().unwrap());
    }
    over.store(true, Ordering::Relaxed);
    println!("{} ends, {:?}", ends.join().unwrap(), session.stats());
}

/// Counts responses and errors, and sends the next request of its session in a chain of its own,
/// because a canceled one ends.
struct Again {
    session: Session,
    left: u32,
}

impl Readback<(u64, u64)> for Again {
    fn on_reply(
        &mut self,
        state: &mut (u64, u64),
        reply: Reply<'_>,
        cx: &mut Context<'_, (u64, u64)>,
    ) -> Next<(u64, u64)> {
        match reply {
            Ok(_) => state.0 += 1,
            Err(_) => state.1 += 1,
        }
        if self.left > 0 {
            let request = self.session.get("again").build().unwrap();
            let (session, left) = (self.session.clone(), self.left - 1);
            cx.submit_to(request, Again { session, left });
        }
        Next::done()
    }
}

/// The session ends inside destructors, while a sweep drops what ends.
#[test]
fn ends_in_destructors() {
    struct Ends(Session, Arc<AtomicUsize>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.end();
        }
    }
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("a").after(Duration::from_secs(1))
    });
    network.host("a.test", [[10, 0, 0, 1]]);
    let mut engine = Engine::<u64, Sim>::on_network(&network, Config::default()).unwrap();
    let session = Session::new();
    let drops = Arc::new(AtomicUsize::new(0));
    let mut n = 0;
    for _ in 0..5000 {
        let guard = Ends(session.clone(), Arc::clone(&drops));
        let task = async move {
            std::future::pending::<()>().await;
            drop(guard);
        };
        engine.start(Next::task(task).session(&session));
        let guard = Ends(session.clone(), Arc::clone(&drops));
        let request = session.get("http://a.test/").build().unwrap();
        engine.submit(
            request,
            move |n: &mut u64, _: Reply<'_>, _: &mut Context<'_, u64>| {
                let _ = &guard;
                *n += 1;
                Next::done()
            },
        );
        if drops.load(Ordering::Relaxed) == 0 && engine.pending().is_multiple_of(1000) {
            engine.advance(&mut n, Duration::from_millis(1)).unwrap();
        }
    }
    engine.advance(&mut n, Duration::from_millis(1)).unwrap();
    session.end();
    engine.advance(&mut n, Duration::from_secs(10)).unwrap();
    assert_eq!(
        (engine.pending(), drops.load(Ordering::Relaxed), n),
        (0, 10_000, 5000)
    );
}

/// A redirect that leads to itself, in every way a request can be sent.
#[test]
fn a_loop_of_redirects_in_every_mode() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buf = [0; 65536];
                while let Ok(n @ 1..) = stream.read(&mut buf) {
                    let heads = buf[..n].windows(4).filter(|w| w == b"\r\n\r\n").count();
                    for _ in 0..heads {
                        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 307 F\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
                    }
                }
            });
        }
    });
    let session = Session::builder()
        .redirects(Redirects::limited(30))
        .build()
        .unwrap();
    let mut engine = Engine::<Vec<String>>::with_config(Config::default()).unwrap();
    let url = format!("http://{addr}/");
    let rows: Vec<(&str, httpstream::RequestBuilder)> = vec![
        ("fresh", session.get(&url).fresh_connection()),
        ("close", session.get(&url).close()),
        ("pipeline", session.get(&url).pipeline(16)),
        (
            "expect",
            session
                .put(&url)
                .header("Expect", "100-continue")
                .body("abc"),
        ),
        (
            "upgrade",
            session
                .get(&url)
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket"),
        ),
        ("head", session.head(&url)),
        ("trace", session.request(http::Method::TRACE, &url)),
        (
            "trace with a body",
            session.request(http::Method::TRACE, &url).body("abc"),
        ),
        ("put 100k", session.put(&url).body(vec![b'x'; 100_000])),
    ];
    let mut expected = 0;
    for (why, builder) in rows {
        match builder.build() {
            Ok(request) => {
                expected += 1;
                engine.submit(
                    request,
                    move |told: &mut Vec<String>,
                          reply: Reply<'_>,
                          _: &mut Context<'_, Vec<String>>| {
                        told.push(format!(
                            "{why}: {:?}",
                            reply.map(|r| r.status()).map_err(|e| format!("{e:#}"))
                        ));
                        Next::done()
                    },
                );
            }
            Err(error) => println!("{why}: {error}"),
        }
    }
    let mut told = Vec::new();
    let end = Instant::now() + Duration::from_secs(40);
    while engine.pending() > 0 && Instant::now() < end {
        engine
            .turn(&mut told, Some(Duration::from_millis(100)))
            .unwrap();
    }
    println!("{told:#?}");
    assert_eq!(told.len(), expected);
}

#[test]
fn a_panic_in_decide_leaves_a_usable_engine() {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve(
        "10.0.0.1:80".parse().unwrap(),
        |request: &Incoming| match request.path() {
            "/end" => Answer::ok("a"),
            _ => Answer::status(302)
                .header("Location", "/end")
                .header("Set-Cookie", "a=b"),
        },
    );
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let jar = Jar::new();
    let inner = jar.clone();
    let session = Session::builder()
        .cookies(jar)
        .redirects(Redirects::limited(3).decide(move |_| {
            inner.clear();
            assert!(seen.fetch_add(1, Ordering::Relaxed) % 2 == 1, "odd");
            true
        }))
        .build()
        .unwrap();
    let mut engine = Engine::<u64, Sim>::on_network(&network, Config::default()).unwrap();
    let live = counting::live_bytes();
    let mut n = 0;
    let mut panics = 0;
    for round in 0..2000 {
        let request = session.get("http://a.test/").pipeline(4).build().unwrap();
        engine.submit(
            request,
            |n: &mut u64, reply: Reply<'_>, _: &mut Context<'_, u64>| {
                *n += u64::from(reply.is_ok());
                Next::done()
            },
        );
        if round % 4 == 3 {
            for _ in 0..8 {
                let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    engine.advance(&mut n, Duration::from_secs(1)).unwrap();
                }));
                panics += usize::from(run.is_err());
            }
        }
    }
    println!(
        "{panics} panics {n} ok {:?} live {}",
        engine.stats(),
        counting::live_bytes() - live
    );
    assert_eq!((panics, n, engine.pending()), (1000, 1000, 0));
}
