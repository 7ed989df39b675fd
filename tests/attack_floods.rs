//! Floods against sessions: the longest turn.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use httpstream::session::{Auth, Jar, Redirects, Session};
use httpstream::{Config, Context, Engine, Next, Reply};

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

const BOUND: Duration = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 25 });

/// `links` requests wait; their answers all arrive between two turns.
fn flood(why: &str, session: &Session, links: usize, answer: &[u8]) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(4096).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut config = Config::default();
    config.max_connections = links + 10;
    config.max_connections_per_origin = links + 10;
    config.resolve_to("*", addr);
    let mut engine = Engine::<u64>::with_config(config).unwrap();
    for link in 0..links {
        let host = match why.starts_with("sites") {
            true => format!("h{link}.com"),
            false => "a.test".to_owned(),
        };
        let request = session.get(format!("http://{host}/")).build().unwrap();
        engine.submit(
            request,
            |n: &mut u64, _: Reply<'_>, _: &mut Context<'_, u64>| {
                *n += 1;
                Next::done()
            },
        );
    }
    let mut n = 0;
    let mut peers: Vec<TcpStream> = Vec::new();
    listener.set_nonblocking(true).unwrap();
    while peers.len() < links {
        engine.turn(&mut n, Some(Duration::from_millis(1))).unwrap();
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            peers.push(stream);
        }
    }
    for _ in 0..20 {
        engine.turn(&mut n, Some(Duration::from_millis(1))).unwrap();
    }
    let mut buf = [0; 4096];
    for peer in &mut peers {
        assert!(peer.read(&mut buf).unwrap() > 0);
        peer.set_nonblocking(true).unwrap();
        let _ = peer.write(answer);
    }
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let before = cpu();
        engine.turn(&mut n, Some(Duration::ZERO)).unwrap();
        longest = longest.max(cpu() - before);
    }
    println!(
        "{why}: longest {longest:?}, {n} done, {:?}",
        session.stats()
    );
    longest
}

fn main_rows() -> Vec<Duration> {
    let mut all = Vec::new();
    let plain = Session::builder().build().unwrap();
    all.push(flood(
        "200",
        &plain,
        1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ));
    let follows = Session::builder()
        .redirects(Redirects::limited(10))
        .build()
        .unwrap();
    all.push(flood(
        "302",
        &follows,
        1000,
        b"HTTP/1.1 302 F\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
    ));
    let long = format!(
        "HTTP/1.1 302 F\r\nLocation: /{}\r\nContent-Length: 0\r\n\r\n",
        "a/../".repeat(10_000)
    );
    all.push(flood("long Location", &follows, 1000, long.as_bytes()));
    let long = format!(
        "HTTP/1.1 302 F\r\nLocation: /{}\r\nContent-Length: 0\r\n\r\n",
        "\u{e9}".repeat(10_000)
    );
    all.push(flood(
        "long Location to encode",
        &follows,
        1000,
        long.as_bytes(),
    ));
    let hosts = format!(
        "HTTP/1.1 302 F\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        "h.".repeat(100)
    );
    all.push(flood("another host", &follows, 1000, hosts.as_bytes()));
    let jarred = || Session::builder().cookies(full_jar()).build().unwrap();
    let mut set = String::from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    for n in 0..90 {
        set += &format!("Set-Cookie: c{n}=1; Path=/{n}; Domain=a.test; Max-Age=100\r\n");
    }
    set += "\r\n";
    all.push(flood("Set-Cookie", &jarred(), 1000, set.as_bytes()));
    let mut set = String::from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    for n in 0..60 {
        set += &format!(
            "Set-Cookie: c{n}=1; Max-Age=100; Expires={}\r\n",
            "Wed, 09 Jun 2027 10:18:14 GMT; ".repeat(20)
        );
    }
    set += "\r\n";
    all.push(flood("long Set-Cookie", &jarred(), 1000, set.as_bytes()));
    let mut set = String::from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    for n in 0..10 {
        set += &format!("Set-Cookie: c{n}=1; Max-Age=100\r\n");
    }
    set += "\r\n";
    all.push(flood(
        "sites that set ten cookies each",
        &jarred(),
        1000,
        set.as_bytes(),
    ));
    let digest = Session::builder()
        .auth(Auth::digest("u", &"p".repeat(1000)).at("http://a.test"))
        .build()
        .unwrap();
    let challenge = format!(
        "HTTP/1.1 401 U\r\nContent-Length: 0\r\nWWW-Authenticate: {}Digest realm=\"{}\", nonce=\"{}\", opaque=\"{}\", qop=auth, algorithm=SHA-512-256-sess\r\n\r\n",
        "Basic realm=x, Digest realm=y, ".repeat(1000),
        "r".repeat(1024),
        "n".repeat(1024),
        "o".repeat(4096)
    );
    all.push(flood("401", &digest, 1000, challenge.as_bytes()));
    all
}

fn full_jar() -> Jar {
    let jar = Jar::new();
    for site in 0..61 {
        for n in 0..50 {
            jar.set(
                &format!("http://s{site}.com/"),
                &format!("n{n}=1; Max-Age=1000"),
            )
            .unwrap();
        }
    }
    println!("{jar:?}");
    jar
}

#[test]
#[ignore = "turns are bounded in events, not in the time that a session takes for each"]
fn floods() {
    let all = main_rows();
    assert!(all.iter().all(|longest| *longest <= BOUND), "{all:?}");
}
