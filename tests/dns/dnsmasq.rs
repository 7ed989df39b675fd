//! A real server: dnsmasq, on a port of its own, configured only by its command line.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use httpstream::resolver::LookupError;
use httpstream::{ErrorKind, Phase};

use super::common::PATIENCE;
use super::*;

/// A running dnsmasq, stopped on drop.
struct Dnsmasq {
    child: Child,
    addr: SocketAddr,
}

impl Dnsmasq {
    /// Starts it with records for `test`; other names are refused. Returns `None` if it is not
    /// installed.
    fn start(records: &[&str]) -> Option<Self> {
        let program = program()?;
        // Another process may take the port before dnsmasq does.
        let started = (0..5).find_map(|_| Self::start_at(&program, records, free_port()));
        Some(started.expect("dnsmasq starts on a free port"))
    }

    fn start_at(program: &PathBuf, records: &[&str], addr: SocketAddr) -> Option<Self> {
        let child = Command::new(program)
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
            ])
            // Uses nothing from this machine's configuration. If it is started by root, it stays
            // root.
            .args([
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--log-facility=-",
            ])
            .args(["--bind-interfaces", "--listen-address=127.0.0.1"])
            .arg(format!("--port={}", addr.port()))
            .args(["--local=/test/", "--local-ttl=60"])
            .args(records)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq can be started");
        let mut dnsmasq = Self { child, addr };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if dnsmasq.child.try_wait().expect("our child").is_some() {
                return None;
            }
            if dnsmasq.answers() {
                return Some(dnsmasq);
            }
        }
        panic!("dnsmasq neither answers nor exits");
    }

    /// Whether it answers a question for the root's address, with any result.
    fn answers(&self) -> bool {
        let asked = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.connect(self.addr)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            socket.send(&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1])?;
            socket.recv(&mut [0; 512])
        });
        if asked.is_err() {
            // A closed port returns an error at once.
            std::thread::sleep(Duration::from_millis(5));
        }
        asked.is_ok()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds dnsmasq in `PATH`, or in the directories where Debian keeps servers.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join("dnsmasq"))
        .find(|path| path.is_file())
}

/// Returns a port that was just free, both in UDP and in TCP.
fn free_port() -> SocketAddr {
    let both = |_| {
        let addr = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
        TcpListener::bind(addr).ok()?.local_addr().ok()
    };
    (0..100).find_map(both).expect("no port is free in both")
}

fn skip() {
    println!("skipped: dnsmasq is not installed");
}

#[test]
fn what_dnsmasq_knows_is_found() {
    let Some(dnsmasq) = Dnsmasq::start(&[
        "--host-record=h.test,127.0.0.1",
        "--host-record=both.test,127.0.0.1,::1",
        "--host-record=h.sub.test,127.0.0.1",
        "--cname=alias.test,h.test",
        "--cname=alias2.test,alias.test",
    ]) else {
        return skip();
    };
    let http = http();
    let mut bench = bench(&[dnsmasq.addr], |names| {
        names.search = vec!["sub.test".into(), "test".into()];
    });
    for host in [
        "h.test",
        "h.test.",
        "H.Test",
        "both.test",
        "alias.test",
        "alias2.test",
        "h",
        "both",
    ] {
        assert_eq!(bench.fetch_ok(get(host, &http)).text(), "a", "{host}");
    }
    bench.assert_empty();
}

#[test]
fn what_dnsmasq_does_not_know_is_said_as_it_is() {
    let Some(dnsmasq) = Dnsmasq::start(&["--txt-record=txt.test,there is only this"]) else {
        return skip();
    };
    let http = http();
    let mut bench = bench(&[dnsmasq.addr], |_| {});
    let refused = format!("REFUSED from {}", dnsmasq.addr);
    for (host, expected) in [
        ("missing.test", LookupError::NotFound),
        ("txt.test", LookupError::NoAddress),
        ("elsewhere.example", LookupError::Failed(refused)),
    ] {
        let error = bench.fetch_err(get(host, &http));
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Resolve, Phase::Resolve)
        );
        assert_eq!(error.lookup(), Some(&expected), "{host}");
    }
    bench.assert_empty();
}

#[test]
fn dnsmasq_hands_out_over_tcp_what_does_not_fit_into_a_datagram() {
    // The server's address is the last; the others have a closed port there. The engine must try
    // all of them to reach it.
    let records: Vec<_> = (0..100)
        .map(|n| format!("--host-record=many.test,127.0.{}.1", 99 - n))
        .collect();
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    let Some(dnsmasq) = Dnsmasq::start(&records) else {
        return skip();
    };
    let http = http();
    let mut bench = bench(&[dnsmasq.addr], |_| {});
    assert_eq!(bench.fetch_ok(get("many.test", &http)).text(), "a");
    bench.assert_empty();
}

#[test]
fn a_hundred_names_are_asked_of_dnsmasq_at_once() {
    let records: Vec<_> = (0..100)
        .map(|n| format!("--host-record=h{n}.test,127.0.0.1"))
        .collect();
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    let Some(dnsmasq) = Dnsmasq::start(&records) else {
        return skip();
    };
    let http = http();
    let mut bench = bench(&[dnsmasq.addr], |names| {
        names.attempts = 5;
    });
    for n in 0..100 {
        bench.submit(get(&format!("h{n}.test"), &http));
    }
    bench.replies(100);
    assert!(
        bench.log.replies.iter().all(Result::is_ok),
        "{:?}",
        bench.log
    );
    bench.assert_empty();
}

#[test]
fn behind_an_unresponsive_server_dnsmasq_answers() {
    let Some(dnsmasq) = Dnsmasq::start(&["--host-record=h.test,127.0.0.1"]) else {
        return skip();
    };
    let (http, unresponsive) = (http(), server::NameServer::unresponsive());
    let mut bench = bench(&[unresponsive.addr, dnsmasq.addr], |_| {});
    assert_eq!(bench.fetch_ok(get("h.test", &http)).text(), "a");
    assert!(
        !unresponsive.seen().is_empty(),
        "the unresponsive server was not asked first"
    );
    bench.assert_empty();
}
