//! Unsolicited datagrams, as fast as two threads can send them. A turn stays short, a lookup ends
//! in time, and the log is not flooded, either.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Instant;

use httpstream::{ErrorKind, Phase};

use super::common::PATIENCE;
use super::server::{A, Back, Message, NameServer, Question, Transport};
use super::*;

/// The processor time that a turn may take.
const LONGEST_TURN: Duration = Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 25 });

/// The number of log lines at `warn` and above, in the whole process.
static LINES: AtomicUsize = AtomicUsize::new(0);

struct Count;

impl log::Log for Count {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

fn count_lines() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Count).expect("no other logger");
        log::set_max_level(log::LevelFilter::Warn);
    });
}

/// Returns the processor time of this thread.
fn computed() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Makes a datagram to send instead of an answer.
type Lie = fn(&Question) -> Vec<u8>;

fn lie(question: &Question) -> Message {
    question.addresses(60, &[IpAddr::from([127, 0, 0, 66])])
}

#[rustfmt::skip]
const LIES: &[(&str, Lie)] = &[
    ("the right identifier and another question", |q| Message { question: Some(("other.test".into(), A)), ..lie(q) }.bytes()),
    ("a long one", |q| {
        let mut message = Message { question: Some(("other.test".into(), A)), ..lie(q) };
        for _ in 0..100 { message = message.address("other.test", 60, LOOPBACK); }
        message.bytes()
    }),
    ("another identifier", |q| Message { id: q.id ^ 1, ..lie(q) }.bytes()),
    ("no question", |q| Message { question: None, ..lie(q) }.bytes()),
    ("noise", |q| vec![!(q.id >> 8) as u8; 60]),
    ("nothing", |_| Vec::new()),
];

/// A server that sends lies, from two threads, to each socket that has sent a question, until it is
/// stopped.
struct Liar {
    server: NameServer,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Liar {
    /// With `truth`, it also sends the true answer repeatedly, after this many lies.
    fn start(lie: Lie, truth: Option<usize>) -> Self {
        let asked: Arc<Mutex<Vec<(Question, Back)>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (asked, stop, sent) = (Arc::clone(&asked), Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || {
                let end = Instant::now() + PATIENCE;
                while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    let targets = asked.lock().unwrap().clone();
                    if targets.is_empty() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    for (question, back) in &targets {
                        let wire = lie(question);
                        for _ in 0..200 {
                            back.send_bytes(&wire);
                        }
                        let before = sent.fetch_add(200, Ordering::Relaxed);
                        if truth.is_some_and(|after| before >= after) {
                            back.send(&question.addresses(60, &[LOOPBACK]));
                        }
                    }
                }
            });
        }
        let server = NameServer::start(move |question, back| {
            if question.transport == Transport::Udp {
                asked.lock().unwrap().push((question, back));
            }
        });
        Self { server, stop, sent }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Turns until there is a reply, and returns the longest turn.
fn longest_turn(bench: &mut Bench) -> Duration {
    let end = Instant::now() + PATIENCE;
    let mut longest = Duration::ZERO;
    while bench.log.replies.is_empty() {
        assert!(Instant::now() < end, "the flood delays the reply");
        let before = computed();
        let wait = Some(Duration::from_millis(100));
        bench.engine.turn(&mut bench.log, wait).unwrap();
        longest = longest.max(computed() - before);
    }
    longest
}

#[test]
fn a_flood_neither_holds_a_turn_up_nor_a_deadline_back() {
    count_lines();
    let http = http();
    for (why, lie) in LIES {
        let liar = Liar::start(*lie, None);
        let mut bench = bench(&[liar.server.addr], |_| {});
        let lines = LINES.load(Ordering::Relaxed);
        let url = format!("http://h.test:{}/", http.addr.port());
        let request = Request::get(&url)
            .timeouts(|t| t.resolve = Some(Duration::from_secs(1)))
            .build()
            .unwrap();
        bench.submit(request);
        let longest = longest_turn(&mut bench);
        assert!(longest <= LONGEST_TURN, "{why}: {longest:?}");
        let sent = liar.sent.load(Ordering::Relaxed);
        assert!(sent > 1000, "{why}: no flood, {sent} datagrams");
        let error = bench.log.replies.remove(0).unwrap_err();
        let seen = (error.kind(), error.phase());
        assert_eq!(seen, (ErrorKind::Timeout, Phase::Resolve), "{why}");
        let lines = LINES.load(Ordering::Relaxed) - lines;
        assert!(lines < 50, "{why}: {lines} lines");
        bench.assert_empty();
    }
}

#[test]
fn the_truth_is_found_in_a_flood() {
    let http = http();
    for (why, lie) in LIES {
        let liar = Liar::start(*lie, Some(2000));
        let mut bench = bench(&[liar.server.addr], |_| {});
        bench.submit(get("h.test", &http));
        let longest = longest_turn(&mut bench);
        assert!(longest <= LONGEST_TURN, "{why}: {longest:?}");
        let got = bench.log.replies.remove(0).unwrap();
        assert_eq!(got.text(), "a", "{why}");
        bench.assert_empty();
    }
}

#[test]
fn a_connection_that_floods_does_not_hold_a_turn_up() {
    let http = http();
    let stop = Arc::new(AtomicBool::new(false));
    let stops = Arc::clone(&stop);
    let sent = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&sent);
    let server = NameServer::start(move |question, back| {
        if question.transport == Transport::Udp {
            return back.send(&question.answer().truncated());
        }
        let lie = Message {
            id: question.id ^ 1,
            ..lie(&question)
        };
        let framed = lie.bytes();
        let (stop, sent) = (Arc::clone(&stops), Arc::clone(&counts));
        thread::spawn(move || {
            let end = Instant::now() + PATIENCE;
            while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                back.send_bytes(&framed);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    let mut bench = bench(&[server.addr], |_| {});
    let url = format!("http://h.test:{}/", http.addr.port());
    let request = Request::get(&url)
        .timeouts(|t| t.resolve = Some(Duration::from_secs(1)))
        .build()
        .unwrap();
    bench.submit(request);
    let longest = longest_turn(&mut bench);
    stop.store(true, Ordering::Relaxed);
    assert!(longest <= LONGEST_TURN, "{longest:?}");
    assert!(sent.load(Ordering::Relaxed) > 1000, "no flood");
    let error = bench.log.replies.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
