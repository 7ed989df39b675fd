//! Degraded servers and odd configurations, compared with glibc's results.
//!
//! Each row has its own scripted server, on port 53 of its own address, in a network namespace
//! where these are free. glibc is queried through `getent`, with the row's file mounted over
//! `/etc/resolv.conf`; the engine reads the same file. The engine must connect to an address that
//! glibc finds, and fail if glibc does.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use httpstream::{Config, ErrorKind};

use super::server::Transport::{Tcp, Udp};
use super::server::{A, Back, FORMERR, Message, NXDOMAIN, NameServer, Question, REFUSED, SERVFAIL};
use super::*;

/// Set in the child that runs in the namespace.
const INSIDE: &str = "HTTPSTREAM_TEST_NAMESPACE";

/// The first and the second address in the servers' answers; an HTTP server is at each.
const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

const NOTIMP: u16 = 4;

/// What a server does with a question. The number counts earlier questions for the same name in the
/// same family.
type Script = fn(&Question, &Back, usize);

/// A server; `false` stands for one without TCP.
type Servers = &'static [(Script, bool)];

struct Row {
    why: &'static str,
    /// `resolv.conf` without its name servers.
    conf: &'static str,
    host: &'static str,
    servers: Servers,
    finds: Finds,
}

/// Which resolvers find an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finds {
    Both,
    Neither,
    /// Only the engine, because it tries more than glibc does.
    WeAlone,
}

use Finds::{Both, Neither, WeAlone};

const fn row(
    why: &'static str,
    conf: &'static str,
    host: &'static str,
    servers: Servers,
    finds: Finds,
) -> Row {
    Row {
        why,
        conf,
        host,
        servers,
        finds,
    }
}

fn one(q: &Question, back: &Back) {
    back.send(&q.addresses(60, &[ONE.into()]));
}

fn two(q: &Question, back: &Back) {
    back.send(&q.addresses(60, &[TWO.into()]));
}

fn code(q: &Question, back: &Back, code: u16) {
    back.send(&q.answer().rcode(code));
}

fn no_data(q: &Question, back: &Back) {
    back.send(&q.answer().soa("test", 60, 60));
}

/// Answers without a question, like a server that could not read it.
fn bare(q: &Question, back: &Back, code: u16) {
    let answer = q.answer().rcode(code);
    back.send(&Message {
        question: None,
        ..answer
    });
}

/// Answers for `api.bot.test` as it is, and calls `below` for names below a suffix.
fn as_is(q: &Question, back: &Back, below: impl Fn(&Question, &Back)) {
    match q.name().as_str() {
        "api.bot.test" | "h" => one(q, back),
        _ => below(q, back),
    }
}

/// Answers for `h.b.test`, and calls `below` for all other names.
fn in_b(q: &Question, back: &Back, below: impl Fn(&Question, &Back)) {
    match q.name().as_str() {
        "h.b.test" => one(q, back),
        _ => below(q, back),
    }
}

/// Answers questions without an OPT record, and calls `otherwise` for the others.
fn plain(q: &Question, back: &Back, otherwise: impl Fn(&Question, &Back)) {
    match q.edns {
        true => otherwise(q, back),
        false => one(q, back),
    }
}

/// Puts the answer after the OPT record, like a server that appends it to everything it received.
fn behind_opt(q: &Question, back: &Back) {
    let mut message = q.answer().bytes();
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    // One answer, one additional record.
    (message[7], message[11]) = (1, 1);
    message.extend([0xc0, 12, 0, q.kind as u8, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(ONE.octets());
    back.send_bytes(&message);
}

fn truncated(q: &Question, back: &Back, over_tcp: impl Fn(&Question, &Back)) {
    match q.transport {
        Udp => back.send(&q.addresses(60, &[ONE.into()]).truncated()),
        Tcp => over_tcp(q, back),
    }
}

fn by_family(
    q: &Question,
    back: &Back,
    v4: impl Fn(&Question, &Back),
    v6: impl Fn(&Question, &Back),
) {
    match q.kind == A {
        true => v4(q, back),
        false => v6(q, back),
    }
}

fn loopback_v6(q: &Question, back: &Back) {
    back.send(&q.addresses(60, &[Ipv6Addr::LOCALHOST.into()]));
}

const K8S: &str = "search a.test internal.test\noptions ndots:5 timeout:1";
const QUICK: &str = "search .\noptions timeout:1";
const HOST: &str = "api.bot.test";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // The search list.
    row("NXDOMAIN below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| code(q, b, NXDOMAIN)), true)], Both),
    row("NODATA below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, no_data), true)], Both),
    row("NODATA without an SOA", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| b.send(&q.answer())), true)], Both),
    row("SERVFAIL below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| code(q, b, SERVFAIL)), true)], Both),
    row("REFUSED below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| code(q, b, REFUSED)), true)], Both),
    row("FORMERR below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| code(q, b, FORMERR)), true)], Both),
    row("NOTIMP below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| code(q, b, NOTIMP)), true)], Both),
    row("NOTAUTH below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| code(q, b, 9)), true)], Both),
    row("silence below a suffix", K8S, HOST, &[(|q, b, _| as_is(q, b, |_, _| {}), true)], Both),
    row("SERVFAIL of IPv6, REFUSED of IPv4", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| by_family(q, b, |q, b| code(q, b, REFUSED), |q, b| code(q, b, SERVFAIL))), true)], Both),
    row("NODATA of IPv6, SERVFAIL of IPv4", K8S, HOST, &[(|q, b, _| as_is(q, b, |q, b| by_family(q, b, |q, b| code(q, b, SERVFAIL), no_data)), true)], Both),
    row("everything fails", K8S, HOST, &[(|q, b, _| code(q, b, SERVFAIL), true)], Neither),
    row("nothing exists", K8S, HOST, &[(|q, b, _| code(q, b, NXDOMAIN), true)], Neither),
    row("SERVFAIL before the suffix", "search a.test b.test\noptions timeout:1", "h", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, SERVFAIL)), true)], Both),
    row("NODATA before the suffix", "search a.test b.test", "h", &[(|q, b, _| in_b(q, b, no_data), true)], Both),
    row("NXDOMAIN before the suffix", "search a.test b.test", "h", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, NXDOMAIN)), true)], Both),
    row("the plain name first", "search a.test", "h.b.test", &[(|q, b, _| in_b(q, b, two), true)], Both),
    row("REFUSED for the plain name, then the suffix", "search b.test\noptions ndots:0 timeout:1", "h", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, REFUSED)), true)], Both),
    row("SERVFAIL for the plain name, then the suffix", "search b.test\noptions ndots:0 timeout:1", "h", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, SERVFAIL)), true)], Both),
    row("a trailing dot ends the search", "search b.test", "h.", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, NXDOMAIN)), true)], Neither),
    row("the last search line", "search x.test\nsearch a.test b.test", "h", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, NXDOMAIN)), true)], Both),
    row("a domain line after a search line", "search a.test b.test\ndomain b.test", "h", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, NXDOMAIN)), true)], Both),
    row("an empty search line after another", "search b.test\nsearch", "h", &[(|q, b, _| in_b(q, b, |q, b| code(q, b, NXDOMAIN)), true)], Both),
    row("only the root is searched", "search .", "h", &[(|q, b, _| as_is(q, b, two), true)], Both),
    row("the root is searched first", "search . b.test", "h", &[(|q, b, _| match q.name().as_str() { "h" => one(q, b), _ => two(q, b) }, true)], Both),
    row("names without dots are not queried", "search a.test\noptions no-tld-query", "h", &[(|q, b, _| as_is(q, b, |q, b| code(q, b, NXDOMAIN)), true)], Neither),
    row("one family at one candidate, both at the next", "search a.test", "h", &[(|q, b, _| match q.name().as_str() { "h.a.test" => by_family(q, b, one, no_data), _ => by_family(q, b, two, loopback_v6) }, true)], Both),
    row("one family at one candidate, and SERVFAIL of the other", "search a.test\noptions timeout:1", "h", &[(|q, b, _| match q.name().as_str() { "h.a.test" => by_family(q, b, one, |q, b| code(q, b, SERVFAIL)), _ => by_family(q, b, two, loopback_v6) }, true)], Both),
    // Attempts.
    row("SERVFAIL at first", QUICK, HOST, &[(|q, b, n| if n == 0 { code(q, b, SERVFAIL) } else { one(q, b) }, true)], Both),
    row("REFUSED at first", QUICK, HOST, &[(|q, b, n| if n == 0 { code(q, b, REFUSED) } else { one(q, b) }, true)], Both),
    row("NOTIMP at first", QUICK, HOST, &[(|q, b, n| if n == 0 { code(q, b, NOTIMP) } else { one(q, b) }, true)], Both),
    row("silence at first", QUICK, HOST, &[(|q, b, n| if n > 0 { one(q, b) }, true)], Both),
    row("SERVFAIL four times", "search .\noptions attempts:5 timeout:1", HOST, &[(|q, b, n| if n < 4 { code(q, b, SERVFAIL) } else { one(q, b) }, true)], Both),
    row("a lame server, then an authoritative one", QUICK, HOST, &[(|q, b, _| b.send(&Message { flags: 0x8000, ..q.answer() }), true), (|q, b, _| one(q, b), true)], Both),
    row("SERVFAIL, then the next server", QUICK, HOST, &[(|q, b, _| code(q, b, SERVFAIL), true), (|q, b, _| one(q, b), true)], Both),
    row("REFUSED, then the next server", QUICK, HOST, &[(|q, b, _| code(q, b, REFUSED), true), (|q, b, _| one(q, b), true)], Both),
    row("silence, then the next server", QUICK, HOST, &[(|_, _, _| {}, true), (|q, b, _| one(q, b), true)], Both),
    row("SERVFAIL of both, then an answer of the first", QUICK, HOST, &[(|q, b, n| if n == 0 { code(q, b, SERVFAIL) } else { one(q, b) }, true), (|q, b, _| code(q, b, SERVFAIL), true)], Both),
    row("NXDOMAIN of the first is final", QUICK, HOST, &[(|q, b, _| code(q, b, NXDOMAIN), true), (|q, b, _| one(q, b), true)], Neither),
    row("rotating servers", "search .\noptions rotate timeout:1", HOST, &[(|q, b, _| code(q, b, SERVFAIL), true), (|q, b, _| one(q, b), true)], Both),
    // Families.
    row("IPv4 alone, NODATA of IPv6", QUICK, HOST, &[(|q, b, _| by_family(q, b, one, no_data), true)], Both),
    row("IPv4 alone, NXDOMAIN of IPv6", QUICK, HOST, &[(|q, b, _| by_family(q, b, one, |q, b| code(q, b, NXDOMAIN)), true)], Both),
    row("IPv4 alone, SERVFAIL of IPv6", QUICK, HOST, &[(|q, b, _| by_family(q, b, one, |q, b| code(q, b, SERVFAIL)), true)], Both),
    row("IPv4 alone, NOTIMP of IPv6", QUICK, HOST, &[(|q, b, _| by_family(q, b, one, |q, b| code(q, b, NOTIMP)), true)], Both),
    row("IPv4 alone, FORMERR of IPv6", QUICK, HOST, &[(|q, b, _| by_family(q, b, one, |q, b| code(q, b, FORMERR)), true)], Both),
    row("IPv6 alone, NODATA of IPv4", QUICK, HOST, &[(|q, b, _| by_family(q, b, no_data, loopback_v6), true)], Both),
    row("IPv6 alone, SERVFAIL of IPv4", QUICK, HOST, &[(|q, b, _| by_family(q, b, |q, b| code(q, b, SERVFAIL), loopback_v6), true)], Both),
    row("IPv6 is not queried", "search .\noptions no-aaaa", HOST, &[(|q, b, _| by_family(q, b, one, loopback_v6), true)], Both),
    // EDNS, which glibc uses only if configured.
    row("no answer to EDNS", QUICK, HOST, &[(|q, b, _| plain(q, b, |_, _| {}), true)], Both),
    row("no answer to EDNS, one attempt", "search .\noptions attempts:1 timeout:1", HOST, &[(|q, b, _| plain(q, b, |_, _| {}), true)], Both),
    row("SERVFAIL to EDNS", QUICK, HOST, &[(|q, b, _| plain(q, b, |q, b| code(q, b, SERVFAIL)), true)], Both),
    row("SERVFAIL to EDNS, one attempt", "search .\noptions attempts:1", HOST, &[(|q, b, _| plain(q, b, |q, b| code(q, b, SERVFAIL)), true)], Both),
    row("REFUSED to EDNS", QUICK, HOST, &[(|q, b, _| plain(q, b, |q, b| code(q, b, REFUSED)), true)], Both),
    row("NOTIMP to EDNS", QUICK, HOST, &[(|q, b, _| plain(q, b, |q, b| code(q, b, NOTIMP)), true)], Both),
    row("a bare FORMERR to EDNS", QUICK, HOST, &[(|q, b, _| plain(q, b, |q, b| bare(q, b, FORMERR)), true)], Both),
    row("noise to EDNS", QUICK, HOST, &[(|q, b, _| plain(q, b, |q, b| b.send_bytes(&[&q.answer().bytes()[..], &[0xff; 9]].concat()[..12])), true)], Both),
    row("an answer after the OPT record", QUICK, HOST, &[(|q, b, _| plain(q, b, behind_opt), true)], Both),
    row("SERVFAIL to EDNS, and NXDOMAIN of another server", QUICK, HOST, &[(|q, b, _| plain(q, b, |q, b| code(q, b, SERVFAIL)), true), (|q, b, _| code(q, b, NXDOMAIN), true)], Both),
    row("letter case is not kept, and no TCP", QUICK, HOST, &[(|q, b, _| { let q = Question { spelled: q.name(), ..q.clone() }; one(&q, b) }, false)], Both),
    // TCP.
    row("UDP is dropped, and TCP is configured", "search .\noptions use-vc timeout:1", HOST, &[(|q, b, _| if q.transport == Tcp { one(q, b) }, true)], Both),
    row("UDP is dropped, and TCP is not configured", QUICK, HOST, &[(|q, b, _| if q.transport == Tcp { one(q, b) }, true)], Neither),
    row("TCP is configured, and refused", "search .\noptions use-vc timeout:1", HOST, &[(|q, b, _| one(q, b), false)], Neither),
    row("truncated, and TCP refused", QUICK, HOST, &[(|q, b, _| truncated(q, b, two), false)], WeAlone),
    row("truncated, and TCP closed", QUICK, HOST, &[(|q, b, _| truncated(q, b, |_, b| b.close()), true)], WeAlone),
    row("truncated, and TCP unanswered", QUICK, HOST, &[(|q, b, _| truncated(q, b, |_, _| {}), true)], WeAlone),
    row("truncated, and whole over TCP", QUICK, HOST, &[(|q, b, _| truncated(q, b, two), true)], Both),
];

#[test]
fn what_becomes_of_degraded_servers_is_what_becomes_of_them_with_glibc() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let possible = Command::new("unshare").args(["-m", "-n", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: no privilege to create namespaces");
        return;
    }
    let test = "degraded::what_becomes_of_degraded_servers_is_what_becomes_of_them_with_glibc";
    let child = Command::new("unshare")
        .args(["-m", "-n", "sh", "-c"])
        .arg("ip link set lo up && ip addr add 192.0.2.9/32 dev lo && ip addr add 2001:db8::9/128 dev lo nodad && exec \"$0\" --exact \"$1\" --nocapture")
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1")
        .env_remove("LOCALDOMAIN")
        .env_remove("RES_OPTIONS")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && out.contains("completed"), "{out}");
    // Print both results of each row next to each other.
    for line in out.lines().filter(|line| line.contains(": glibc [")) {
        println!("{line}");
    }
}

/// Files of this test, in a directory that is removed on drop.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let name = format!("httpstream-degraded-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn inside() {
    let files = Files::new();
    files.write("hosts", "");
    files.write("nsswitch.conf", "hosts: files dns\n");
    for addr in ["127.0.0.2:80", "127.0.0.3:80", "[::1]:80"] {
        let name = addr.strip_suffix(":80").unwrap().trim_matches(['[', ']']);
        let server = Server::on(addr, move |peer| while peer.answer(&ok(name)) {});
        std::mem::forget(server);
    }
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = ROWS.get(n) else { break };
                    if let Err(why) = compare(row, n, &files) {
                        wrong.lock().unwrap().push(format!("{}: {why}", row.why));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    a_file_that_changes(&files);
    hosts_that_are_refused(&files);
    println!("completed: {} rows", ROWS.len());
}

/// Hosts that glibc connects to, but for which no request can be built: some programs read them as
/// addresses, others as names.
fn hosts_that_are_refused(files: &Files) {
    let addr = Ipv4Addr::new(127, 4, 0, 1);
    let server = NameServer::at((addr, 53).into(), true, |q, back| one(&q, &back));
    let conf = files.write("refused", &format!("nameserver {addr}\n"));
    for (host, found, advice) in [
        ("127.1", "127.0.0.1", "write 127.0.0.1"),
        ("0x7f.1", "127.0.0.1", "write 127.0.0.1"),
        ("2130706433", "127.0.0.1", "write 127.0.0.1"),
        ("256.256.256.256", "127.0.0.2", "up to 255"),
        ("abcdefghij.onion", "127.0.0.2", "Tor"),
    ] {
        assert_eq!(glibc(&conf, files, host), [found], "{host}: glibc");
        let before = server.seen().len();
        let error = Request::get(format!("http://{host}/")).build().unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(advice), "{host}: {error}");
        assert_eq!(
            server.seen().len(),
            before,
            "{host}: no name server is queried"
        );
        println!("{host}: glibc [{found:?}], ours {error:?}");
    }
}

/// The program starts without a network, and then changes from one network to another.
fn a_file_that_changes(files: &Files) {
    let serve = |addr: Ipv4Addr, answer: fn(&Question, &Back)| {
        NameServer::at((addr, 53).into(), true, move |q, back| answer(&q, &back))
    };
    let (first, second) = (Ipv4Addr::new(127, 3, 0, 1), Ipv4Addr::new(127, 3, 0, 2));
    serve(first, one);
    serve(second, two);
    let conf = files.0.join("changes");
    let mut bench = Bench::with(|config: &mut Config| {
        config.hosts_file = None;
        let conf = conf.clone();
        config.resolver = Some(Arc::new(move || Box::new(Hickory::from_resolv_conf(&conf))));
    });
    let mut fetch = |host: &str| {
        let request = Request::get(format!("http://{host}/"));
        let request = request.fresh_connection().close().build().unwrap();
        bench.fetch(request).map(|got| got.text().to_owned()).ok()
    };
    assert_eq!(
        fetch("h.test"),
        None,
        "there is no file, and no server at 127.0.0.1"
    );
    let texts = [
        (
            "the file appears",
            Some(format!("nameserver {first}\n")),
            Some("127.0.0.2"),
        ),
        (
            "another server",
            Some(format!("nameserver {second}\n")),
            Some("127.0.0.3"),
        ),
        (
            "back again",
            Some(format!("nameserver {first}\n")),
            Some("127.0.0.2"),
        ),
        ("the file disappears", None, None),
        (
            "the file is back",
            Some(format!("nameserver {second}\n")),
            Some("127.0.0.3"),
        ),
    ];
    for (why, text, expected) in texts {
        match &text {
            Some(text) => drop(files.write("changes", text)),
            None => std::fs::remove_file(&conf).unwrap(),
        }
        if let Some(text) = &text {
            let theirs = glibc(&files.write("changes.glibc", text), files, "h.test");
            assert_eq!(theirs, Vec::from_iter(expected), "{why}: glibc");
        }
        let end = std::time::Instant::now() + super::common::PATIENCE;
        // The same name: cached answers for it came from other servers.
        while fetch("h.test").as_deref() != expected {
            assert!(
                std::time::Instant::now() < end,
                "{why}: not noticed within a second"
            );
            thread::sleep(Duration::from_millis(50));
        }
        println!("{why}: {expected:?}");
    }
}

/// Starts the row's servers, at separate addresses for glibc and the engine, so that both find them
/// in their initial state.
fn serve(row: &Row, n: usize, who: u8) -> String {
    let mut conf = String::new();
    for (i, (script, tcp)) in row.servers.iter().enumerate() {
        let addr = Ipv4Addr::new(127, who, n as u8, i as u8 + 1);
        let script = *script;
        let asked: Mutex<std::collections::HashMap<(String, u16), usize>> = Mutex::default();
        let server = NameServer::at((addr, 53).into(), *tcp, move |question, back| {
            let before = {
                let mut asked = asked.lock().unwrap();
                let count = asked.entry((question.name(), question.kind)).or_default();
                *count += 1;
                *count - 1
            };
            script(&question, &back, before);
        });
        drop(server);
        conf += &format!("nameserver {addr}\n");
    }
    conf + row.conf + "\n"
}

fn compare(row: &Row, n: usize, files: &Files) -> Result<(), String> {
    let conf = files.write(&format!("{n}.glibc"), &serve(row, n, 1));
    let theirs = glibc(&conf, files, row.host);
    let conf = files.write(&format!("{n}.ours"), &serve(row, n, 2));
    let ours = ours(&conf, row.host);
    println!("{}: glibc {theirs:?}, ours {ours:?}", row.why);
    let is_right = match (row.finds, &ours, theirs.as_slice()) {
        (Both, Ok(addr), found) => found.contains(addr),
        (Neither, Err(_), []) => true,
        // glibc waits forever for an answer over TCP, so `getent` is stopped.
        (WeAlone, Ok(_), []) => true,
        _ => false,
    };
    match is_right {
        true => Ok(()),
        false => Err(format!("glibc finds {theirs:?}, the engine {ours:?}")),
    }
}

/// Returns the addresses that glibc finds.
fn glibc(conf: &Path, files: &Files, host: &str) -> Vec<String> {
    let mount = "mount --bind \"$0\" /etc/resolv.conf && mount --bind \"$1/hosts\" /etc/hosts && \
                 mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf && exec timeout 8 getent ahosts \"$2\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", mount])
        .arg(conf)
        .arg(&files.0)
        .arg(host)
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(problem.is_empty(), "{problem}");
    let text = String::from_utf8_lossy(&output.stdout);
    let addrs = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut addrs: Vec<_> = addrs.map(str::to_owned).collect();
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// Returns the address that the engine connects to.
fn ours(conf: &Path, host: &str) -> Result<String, String> {
    let conf = conf.to_owned();
    let mut bench = Bench::with(|config: &mut Config| {
        config.hosts_file = None;
        config.resolver = Some(Arc::new(move || Box::new(Hickory::from_resolv_conf(&conf))));
    });
    match bench.fetch(Request::get(format!("http://{host}/")).build().unwrap()) {
        Ok(got) => Ok(got.text().to_owned()),
        Err(error) => {
            let is_name = error.lookup().is_some() || error.kind() == ErrorKind::Resolve;
            assert!(is_name, "{error:#}");
            Err(format!("{error:#}"))
        }
    }
}
