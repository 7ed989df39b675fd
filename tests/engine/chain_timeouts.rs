//! Deadlines of whole chains (`Next::chain_timeout`), at their exact virtual times.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use httpstream::policy::{Screening, Start, Verdict, Visit};
use httpstream::session::Session;
use httpstream::sim::{Answer, Incoming, Network, Random};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, Moment, Next, Phase, Readback, Reply, Request,
    Response, Sent, Sim, within,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The timeout of the chains here, unless a test says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a readback was told, and when.
#[derive(Debug)]
struct Told {
    at: Duration,
    outcome: Result<u16, Error>,
}

impl Told {
    #[track_caller]
    fn error(&self) -> &Error {
        self.outcome.as_ref().expect_err("it has failed")
    }

    /// Checks that the deadline of the chain was reported at this time, and in this phase.
    #[track_caller]
    fn assert_expired(&self, at: Duration, phase: Phase) {
        let error = self.error();
        let text = format!("{error:#}");
        let facts = (self.at, error.kind(), error.phase());
        assert_eq!(facts, (at, ErrorKind::Timeout, phase), "{text}");
        assert!(is_of_chain(error), "{text}");
    }
}

fn is_of_chain(error: &Error) -> bool {
    let text = format!("{error:#}");
    text.contains("the deadline of the chain has passed (chain_timeout of ")
}

struct Log {
    base: Instant,
    told: Vec<Told>,
}

impl Log {
    fn note(&mut self, reply: Reply<'_>, cx: &Context<'_, Self>) {
        let at = cx.now() - self.base;
        let outcome = reply.map(|response| response.status().as_u16());
        self.told.push(Told { at, outcome });
        // Without a limit, a test of what is to be ignored would run forever if it were not.
        assert!(self.told.len() < 50, "the chain goes on");
    }

    /// Returns when a readback was told of a status.
    fn answered_at(&self) -> Vec<Duration> {
        let answered = self.told.iter().filter(|told| told.outcome.is_ok());
        answered.map(|told| told.at).collect()
    }
}

struct Lab {
    network: Network,
    engine: Engine<Log, Sim>,
    log: Log,
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A network without latency. `/nothing` gets no answer, `/head` and `/body` a part of one, and
    /// `/slow` one after four seconds. No timeout but that of the chain is set.
    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let network = Network::new(1);
        let server = |seen: &Incoming| match seen.path() {
            "/nothing" => Answer::nothing(),
            "/head" => Answer::ok("all").truncate(9),
            "/body" => Answer::ok("all of it").truncate(40),
            "/slow" => Answer::ok("slow").after(4 * SECOND),
            "/503" => Answer::status(503),
            _ => Answer::ok("all of it"),
        };
        let addr = |last| ([10, 0, 0, last], 80).into();
        network.serve(addr(1), server);
        network.black_hole(addr(2));
        let _ = network
            .serve(addr(3), server)
            .reads_at_most(0)
            .send_buffer(10);
        let _ = network
            .host("slow.test", [[10, 0, 0, 1]])
            .after(1000 * SECOND);
        Self::on(network, change)
    }

    fn on(network: Network, change: impl FnOnce(&mut Config)) -> Self {
        network.set_latency(Duration::ZERO);
        let mut config = Config::default();
        config.timeouts.resolve = None;
        config.timeouts.connect = None;
        config.timeouts.write = None;
        config.timeouts.first_byte = None;
        config.timeouts.idle = None;
        config.timeouts.total = None;
        change(&mut config);
        let engine = Engine::on_network(&network, config).unwrap();
        let base = network.now();
        let told = Vec::new();
        Self {
            network,
            engine,
            log: Log { base, told },
        }
    }

    fn start(&mut self, next: Next<Log>) -> httpstream::ChainId {
        self.engine.start(next.chain_timeout(TIMEOUT))
    }

    fn advance(&mut self, time: Duration) {
        self.engine.advance(&mut self.log, time).unwrap();
    }

    /// Lets time pass until nothing is pending, and checks that nothing is left.
    fn run(&mut self) {
        // Without a limit, a chain that does not end would run forever.
        let end = self.network.elapsed() + 100 * SECOND;
        self.advance(Duration::ZERO);
        while self.engine.pending() > 0 && self.network.elapsed() < end {
            self.advance(MS);
        }
        assert_eq!(self.engine.pending(), 0);
        self.engine.close_idle();
        self.advance(Duration::ZERO);
        assert_eq!(self.engine.next_deadline(), None, "a timer is left");
        assert_eq!(self.network.open_fds(), 0);
        assert!(self.network.misuses().is_empty());
    }
}

fn get(url: &str) -> Request {
    Request::get(url).build().unwrap()
}

/// A step with the type of the state, for the closures that follow.
fn send(url: &str) -> Next<Log> {
    Next::send(get(url))
}

/// Notes what it is told, and would send the request again forever.
fn obstinate(log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>) -> Next<Log> {
    log.note(reply, cx);
    Next::again()
}

fn note(log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>) -> Next<Log> {
    log.note(reply, cx);
    Next::done()
}

/// Runs a policy of one method.
#[derive(Clone)]
struct OnStart<F>(F);

impl<F: FnMut() -> Start> Visit for OnStart<F> {
    fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
        Ok((self.0)())
    }
}

const NOTHING: &str = "http://10.0.0.1/nothing";

#[test]
fn whatever_the_chain_does_it_ends_at_its_deadline() {
    let post = |url: &str| {
        let request = Request::post(url).body(vec![b'x'; 3000]);
        Next::send(request.build().unwrap())
    };
    let held_back = |start: fn() -> Start| {
        let request = Request::get(NOTHING).policy(Arc::new(OnStart(start)));
        Next::send(request.build().unwrap())
    };
    let late = || Start::After(100 * SECOND);
    let expecting = Request::post("http://10.0.0.1/nothing").header("Expect", "100-continue");
    let expecting = expecting.body("x").build().unwrap();
    let rows: Vec<(Next<Log>, Phase, Sent)> = vec![
        (send("http://slow.test/"), Phase::Resolve, Sent::No),
        (send("http://10.0.0.2/"), Phase::Connect, Sent::No),
        (post("http://10.0.0.3/"), Phase::Write, Sent::Maybe),
        (send(NOTHING), Phase::FirstByte, Sent::Maybe),
        (Next::send(expecting), Phase::FirstByte, Sent::Maybe),
        (send("http://10.0.0.1/head"), Phase::Head, Sent::Yes),
        (send("http://10.0.0.1/body"), Phase::Body, Sent::Yes),
        (send(NOTHING).after(11 * SECOND), Phase::Queue, Sent::No),
        (send(NOTHING).after(Duration::MAX), Phase::Queue, Sent::No),
        // In the same tick, nothing begins.
        (send(NOTHING).after(TIMEOUT), Phase::Queue, Sent::No),
        (Next::wait().after(11 * SECOND), Phase::Queue, Sent::No),
        (Next::wait().after(TIMEOUT), Phase::Queue, Sent::No),
        (held_back(late), Phase::Queue, Sent::No),
        (held_back(|| Start::After(TIMEOUT)), Phase::Queue, Sent::No),
    ];
    for (number, (next, phase, sent)) in rows.into_iter().enumerate() {
        let mut lab = Lab::new();
        lab.start(next.read_by(obstinate));
        lab.advance(TIMEOUT - MS);
        assert!(lab.log.told.is_empty(), "row {number}: {:?}", lab.log.told);
        let deadline = lab.engine.next_deadline();
        assert_eq!(deadline, Some(lab.log.base + TIMEOUT), "row {number}");
        lab.run();
        assert_eq!(lab.log.told.len(), 1, "row {number}: {:?}", lab.log.told);
        lab.log.told[0].assert_expired(TIMEOUT, phase);
        assert_eq!(lab.log.told[0].error().request_sent(), sent, "row {number}");
        let requests = usize::from(matches!(
            phase,
            Phase::FirstByte | Phase::Head | Phase::Body
        ));
        assert_eq!(
            lab.network.ledger().requests().len(),
            requests,
            "row {number}"
        );
        assert_eq!(lab.network.elapsed(), TIMEOUT, "row {number}");
    }
}

#[test]
fn a_request_in_the_queue_ends_and_its_error_names_the_limit() {
    let mut lab = Lab::with(|config| config.max_connections_per_origin = 1);
    lab.engine.submit(get("http://10.0.0.1/nothing"), note);
    lab.start(send("http://10.0.0.1/").read_by(note));
    lab.advance(20 * SECOND);
    assert_eq!(lab.log.told.len(), 1);
    lab.log.told[0].assert_expired(TIMEOUT, Phase::Queue);
    let text = format!("{:#}", lab.log.told[0].error());
    assert_eq!(
        text,
        "http://10.0.0.1: timed out while waiting to be sent: the deadline of the chain has passed \
         (chain_timeout of 10s); all 1 connections to this origin are in use \
         (max_connections_per_origin)"
    );
    lab.engine.cancel_all();
    lab.run();
    // A delayed one does not wait for a connection.
    let mut lab = Lab::with(|config| config.max_connections_per_origin = 1);
    lab.start(send("http://10.0.0.1/").read_by(|log, reply, cx| {
        log.note(reply, cx);
        cx.submit(get(NOTHING), note);
        cx.again().after(Duration::MAX)
    }));
    lab.advance(TIMEOUT);
    let text = format!("{:#}", lab.log.told[1].error());
    assert!(
        text.ends_with("has passed (chain_timeout of 10s)"),
        "{text}"
    );
    lab.engine.cancel_all();
    lab.run();
}

#[test]
fn a_body_that_waits_for_a_100_is_not_sent_any_more() {
    let mut lab = Lab::new();
    let post = Request::post(NOTHING).header("Expect", "100-continue");
    let post = post.body("not to be sent").build().unwrap();
    let next = Next::send(post).read_by(obstinate);
    lab.engine.start(next.chain_timeout(SECOND / 2));
    lab.run();
    assert_eq!(lab.log.told.len(), 1);
    lab.log.told[0].assert_expired(SECOND / 2, Phase::Write);
    assert_eq!(lab.network.ledger().requests().len(), 0);
}

#[test]
fn a_request_whose_connection_ends_at_the_deadline_ends_where_it_is_placed_again() {
    let network = Network::new(1);
    // Answers the first request of a connection, and closes it four seconds after the second.
    let server = |seen: &Incoming| match (seen.path(), seen.number) {
        ("/stale", 1) => Answer::nothing().after(4 * SECOND).close(),
        ("/stale", _) if seen.at > SECOND => Answer::nothing(),
        ("/other", _) => Answer::ok("").after(3 * SECOND),
        _ => Answer::ok(""),
    };
    for last in [1, 4] {
        network.serve(([10, 0, 0, last], 80).into(), server);
    }
    // The first event of a late turn is that of another connection.
    let mut lab = Lab::on(network, |config| config.turn_events = 1);
    lab.engine.submit(get("http://10.0.0.4/stale"), note);
    lab.advance(SECOND / 2);
    lab.engine.submit(get("http://10.0.0.1/other"), note);
    lab.start(send("http://10.0.0.4/stale").read_by(obstinate));
    lab.advance(SECOND);
    lab.network.sleep(20 * SECOND);
    lab.run();
    let at = 21 * SECOND + SECOND / 2;
    assert_eq!(lab.log.answered_at(), [Duration::ZERO, at]);
    let expired = lab.log.told.iter().find(|told| told.outcome.is_err());
    expired
        .unwrap()
        .assert_expired(at, expired.unwrap().error().phase());
    assert_eq!(lab.log.told.len(), 3);
    assert_eq!(lab.engine.stats().retried, 1, "it was not placed again");
}

#[test]
fn a_request_that_finds_its_connection_closed_ends_once() {
    let network = Network::new(1);
    let server = |_: &Incoming| Answer::ok("").after(4 * SECOND).close();
    network.serve(([10, 0, 0, 1], 80).into(), server);
    let mut lab = Lab::on(network, |config| {
        config.max_connections_per_origin = 1;
        config.pipeline_without_trial("*", 8);
    });
    lab.engine.submit(get("http://10.0.0.1/"), note);
    lab.start(send("http://10.0.0.1/").read_by(obstinate));
    lab.advance(SECOND);
    // In one turn, the connection is given to the second request, which is placed again since the
    // server has closed the connection, and the deadline passes.
    lab.network.sleep(20 * SECOND);
    lab.run();
    assert_eq!(lab.log.answered_at(), [21 * SECOND]);
    lab.log.told[1].assert_expired(21 * SECOND, Phase::Queue);
    assert_eq!(lab.log.told.len(), 2);
    assert_eq!(lab.engine.stats().retried, 1, "it was not placed again");
    assert_eq!(lab.network.ledger().requests().len(), 1);
}

#[test]
fn a_request_behind_others_in_a_pipeline_ends_and_the_others_stay() {
    let mut lab = Lab::with(|config| {
        config.max_connections_per_origin = 1;
        config.pipeline_without_trial("*", 8);
    });
    let slow = |timeout| {
        let request = send("http://10.0.0.1/slow");
        request.read_by(note).chain_timeout(timeout)
    };
    for timeout in [20 * SECOND, 6 * SECOND, 20 * SECOND] {
        lab.engine.start(slow(timeout));
    }
    lab.run();
    let mut times: Vec<_> = lab
        .log
        .told
        .iter()
        .map(|told| (told.at, told.outcome.is_ok()))
        .collect();
    times.sort();
    // The server answers in order, and the second request was written.
    assert_eq!(
        times,
        [(4 * SECOND, true), (6 * SECOND, false), (10 * SECOND, true)]
    );
    let expired = lab
        .log
        .told
        .iter()
        .find(|told| told.outcome.is_err())
        .unwrap();
    expired.assert_expired(6 * SECOND, Phase::FirstByte);
}

#[test]
fn the_deadline_stays_through_all_steps() {
    let mut lab = Lab::new();
    lab.start(send("http://10.0.0.1/").read_by(|log, reply, cx| {
        log.note(reply, cx);
        match log.told.len() {
            1 => Next::again().after(2 * SECOND),
            2 => cx.send(get("http://10.0.0.1/slow")),
            // A call, a wait that is woken by no one, and then a request.
            3 => Next::call(|_: &mut Log, cx: &mut Context<'_, Log>| {
                cx.send(get("http://10.0.0.1/slow")).after(SECOND)
            })
            .after(SECOND)
            .read_by(obstinate),
            _ => Next::done(),
        }
    }));
    lab.run();
    let answered = [0, 2, 6].map(|at| at * SECOND);
    assert_eq!(lab.log.answered_at(), answered);
    assert_eq!(lab.log.told.len(), 4);
    lab.log.told[3].assert_expired(TIMEOUT, Phase::FirstByte);
}

#[test]
fn a_deadline_that_a_readback_returns_counts_from_there() {
    let mut lab = Lab::new();
    let slow = get("http://10.0.0.1/slow");
    lab.engine.submit(slow, |log, reply, cx| {
        log.note(reply, cx);
        cx.send(get(NOTHING))
            .chain_timeout(TIMEOUT)
            .read_by(obstinate)
    });
    lab.run();
    assert_eq!(lab.log.answered_at(), [4 * SECOND]);
    lab.log.told[1].assert_expired(4 * SECOND + TIMEOUT, Phase::FirstByte);
    // From the end of the readback, however long it takes; and likewise for what it starts.
    let mut lab = Lab::new();
    let clock = lab.network.clone();
    lab.engine.submit(get("http://10.0.0.1/"), move |_, _, cx| {
        let never = || {
            Next::wait()
                .after(Duration::MAX)
                .chain_timeout(TIMEOUT)
                .read_by(note)
        };
        cx.start(never());
        clock.sleep(3 * SECOND);
        never()
    });
    lab.run();
    assert_eq!(lab.log.told.len(), 2);
    for told in &lab.log.told {
        told.assert_expired(3 * SECOND + TIMEOUT, Phase::Queue);
    }
}

#[test]
fn a_later_timeout_replaces_the_deadline() {
    for (later, ends) in [
        (2 * SECOND, Some(6)),
        (20 * SECOND, Some(24)),
        (Duration::MAX, None),
    ] {
        let mut lab = Lab::new();
        let slow = send("http://10.0.0.1/slow");
        lab.start(slow.read_by(move |log, reply, cx| {
            log.note(reply, cx);
            let next = cx.send(get(NOTHING)).read_by(obstinate);
            // Of several in one step, the last counts.
            next.chain_timeout(MS).chain_timeout(later)
        }));
        lab.advance(100 * SECOND);
        assert_eq!(lab.log.answered_at(), [4 * SECOND]);
        match ends {
            Some(ends) => lab.log.told[1].assert_expired(ends * SECOND, Phase::FirstByte),
            None => {
                assert_eq!((lab.log.told.len(), lab.engine.pending()), (1, 1));
                assert_eq!(lab.engine.next_deadline(), None, "the timer is gone");
                lab.engine.cancel_all();
            }
        }
        lab.run();
    }
}

#[test]
fn it_is_never_early_and_late_by_less_than_a_tick() {
    let mut random = Random::new(3);
    for _ in 0..200 {
        let mut lab = Lab::new();
        let begins = random.duration(20 * MS);
        let timeout = random.duration(3 * SECOND);
        lab.network.sleep(begins);
        let never = send(NOTHING).read_by(obstinate);
        lab.engine.start(never.chain_timeout(timeout));
        lab.run();
        let at = lab.log.told[0].at;
        lab.log.told[0].assert_expired(at, Phase::FirstByte);
        let waited = at - begins;
        assert!(waited >= timeout, "early by {:?}", timeout - waited);
        assert!(
            waited < timeout + MS + Duration::from_micros(2),
            "{waited:?}, not {timeout:?}"
        );
    }
}

#[test]
fn calls_and_tasks_end_silently() {
    let mut lab = Lab::new();
    let dropped = Rc::new(Cell::new(Vec::new()));
    struct Guard(Network, Rc<Cell<Vec<Duration>>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let mut dropped = self.1.take();
            dropped.push(self.0.elapsed());
            self.1.set(dropped);
        }
    }
    let guard = || Guard(lab.network.clone(), dropped.clone());
    let (in_call, in_task, in_late_task) = (guard(), guard(), guard());
    let call = Next::call(move |_: &mut Log, _: &mut Context<'_, Log>| -> Next<Log> {
        let _guard = &in_call;
        panic!("the call was made");
    });
    let http = lab.engine.local();
    let task = Next::task(async move {
        let _guard = in_task;
        http.sleep(100 * SECOND).await;
        unreachable!("the task went on");
    });
    let late = Next::task(async move {
        let _guard = in_late_task;
        unreachable!("the task began");
    });
    lab.start(call.after(TIMEOUT));
    lab.start(task);
    lab.start(late.after(20 * SECOND));
    lab.advance(TIMEOUT - MS);
    assert_eq!(lab.engine.pending(), 4);
    lab.run();
    assert_eq!(dropped.take(), [TIMEOUT; 3]);
    assert!(lab.log.told.is_empty());
    assert_eq!(lab.network.elapsed(), TIMEOUT);
}

#[test]
fn a_call_that_sent_something_before_tells_its_readback() {
    let mut lab = Lab::new();
    lab.start(send("http://10.0.0.1/").read_by(|log, reply, cx| {
        log.note(reply, cx);
        Next::call(|_: &mut Log, _: &mut Context<'_, Log>| panic!("the call was made"))
            .after(TIMEOUT)
    }));
    lab.run();
    assert_eq!(lab.log.told.len(), 2);
    lab.log.told[1].assert_expired(TIMEOUT, Phase::Queue);
    assert!(lab.log.told[1].error().request().is_some());
}

#[test]
fn a_paused_response_and_one_that_trickles_end() {
    struct Read(Flow);

    impl Readback<Log> for Read {
        fn on_head(&mut self, _: &mut Log, _: &Response<'_>, _: &mut Context<'_, Log>) -> Flow {
            self.0
        }

        fn on_reply(
            &mut self,
            log: &mut Log,
            reply: Reply<'_>,
            cx: &mut Context<'_, Log>,
        ) -> Next<Log> {
            obstinate(log, reply, cx)
        }
    }

    for flow in [Flow::Pause, Flow::Stream, Flow::Buffer, Flow::Discard] {
        let network = Network::new(1);
        network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
            Answer::ok("x".repeat(1000)).drip(1, SECOND / 10)
        });
        let mut lab = Lab::on(network, |_| {});
        lab.start(send("http://10.0.0.1/").read_to(Read(flow)));
        lab.run();
        assert_eq!(lab.log.told.len(), 1, "{flow:?}");
        lab.log.told[0].assert_expired(TIMEOUT, Phase::Body);
    }
}

#[test]
fn a_tunnel_ends() {
    struct Tunnel;

    impl Readback<Log> for Tunnel {
        fn on_head(&mut self, _: &mut Log, head: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
            assert_eq!(head.status(), 101);
            cx.write(cx.id(), b"hello");
            Flow::Stream
        }

        fn on_reply(
            &mut self,
            log: &mut Log,
            reply: Reply<'_>,
            cx: &mut Context<'_, Log>,
        ) -> Next<Log> {
            obstinate(log, reply, cx)
        }
    }

    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        let fields = "Connection: upgrade\r\nUpgrade: echo\r\n";
        Answer::raw(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"))
    });
    let mut lab = Lab::on(network, |_| {});
    let upgrade = Request::get("http://10.0.0.1/").header("Upgrade", "echo");
    let upgrade = upgrade.build().unwrap();
    lab.start(Next::send(upgrade).read_to(Tunnel));
    lab.run();
    assert_eq!(lab.log.told.len(), 1);
    lab.log.told[0].assert_expired(TIMEOUT, Phase::Body);
}

#[test]
fn a_deadline_that_passes_while_the_readback_runs_lets_nothing_begin() {
    type Step = fn(&mut Context<'_, Log>) -> Next<Log>;
    let steps: [Step; 6] = [
        |_| Next::again(),
        |cx| cx.send(get("http://10.0.0.1/other")),
        |cx| cx.again().after(SECOND),
        |_| Next::call(|_: &mut Log, _: &mut Context<'_, Log>| panic!("the call was made")),
        |_| Next::wait(),
        |_| Next::wait().after(SECOND),
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let mut lab = Lab::new();
        let clock = lab.network.clone();
        let slow = send("http://10.0.0.1/slow");
        lab.start(slow.read_by(move |log, reply, cx| {
            log.note(reply, cx);
            clock.sleep(20 * SECOND);
            step(cx)
        }));
        lab.run();
        assert_eq!(lab.log.answered_at(), [4 * SECOND]);
        assert_eq!(lab.log.told.len(), 2, "step {number}");
        lab.log.told[1].assert_expired(24 * SECOND, Phase::Queue);
        let request = lab.log.told[1].error().request().unwrap();
        let path = if number == 1 { "/other" } else { "/slow" };
        assert_eq!(request.target(), path, "step {number}");
        assert_eq!(lab.network.ledger().requests().len(), 1, "step {number}");
    }
    // The end of the chain is its end, and a new deadline a new one.
    for (is_done, told) in [(true, 1), (false, 3)] {
        let mut lab = Lab::new();
        let clock = lab.network.clone();
        lab.start(send("http://10.0.0.1/").read_by(move |log, reply, cx| {
            log.note(reply, cx);
            clock.sleep(if log.told.len() == 1 { 20 * SECOND } else { MS });
            let next = cx
                .send(get("http://10.0.0.1/slow"))
                .chain_timeout(6 * SECOND);
            if is_done {
                cx.done()
            } else {
                next.read_by(obstinate)
            }
        }));
        lab.run();
        assert_eq!(lab.log.told.len(), told);
        if !is_done {
            assert_eq!(lab.log.answered_at(), [Duration::ZERO, 24 * SECOND]);
            lab.log.told[2].assert_expired(26 * SECOND, Phase::FirstByte);
        }
    }
}

#[test]
fn a_response_that_arrived_before_a_late_turn_is_delivered() {
    type Step = fn(&mut Context<'_, Log>) -> Next<Log>;
    let steps: [Step; 4] = [
        |cx| cx.again(),
        |cx| cx.again().after(SECOND),
        |_| Next::wait(),
        |_| Next::wait().after(SECOND),
    ];
    for step in steps {
        // Each turn processes one event and one deadline. The last request has the first deadline,
        // so some responses are found by their event, and some because the deadline has passed.
        let mut lab = Lab::with(|config| config.turn_events = 1);
        for number in 0..5 {
            let slow = send("http://10.0.0.1/slow").read_by(move |log, reply, cx| {
                log.note(reply, cx);
                step(cx)
            });
            lab.engine.start(slow.chain_timeout(TIMEOUT - number * MS));
        }
        lab.advance(SECOND);
        lab.network.sleep(20 * SECOND);
        lab.run();
        assert_eq!(lab.log.answered_at(), [21 * SECOND; 5]);
        let is_expired = |told: &&Told| told.outcome.is_err();
        let expired: Vec<_> = lab.log.told.iter().filter(is_expired).collect();
        assert_eq!(expired.len(), 5);
        for told in expired {
            told.assert_expired(21 * SECOND, Phase::Queue);
        }
        let requests = lab.network.ledger().requests().len();
        assert_eq!(requests, 5, "one was sent again");
    }
}

#[test]
fn a_failure_from_before_is_delivered() {
    /// Refuses every request.
    #[derive(Clone)]
    struct Refuse;

    impl Visit for Refuse {
        fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
            Err(Error::policy("no"))
        }
    }

    // All of them fail in the first turn, each turn delivers one failure and has one deadline, and
    // each readback takes four seconds. The deadlines pass before the fourth failure is delivered,
    // that of the last request first.
    type Step = fn(&mut Context<'_, Log>) -> Next<Log>;
    let steps: [Step; 3] = [
        |cx| cx.again().after(50 * SECOND),
        |_| Next::wait().after(50 * SECOND),
        |_| Next::wait(),
    ];
    for step in steps {
        let mut lab = Lab::with(|config| config.turn_events = 1);
        for number in 0..5 {
            let clock = lab.network.clone();
            let refused = Request::get(NOTHING).policy(Arc::new(Refuse));
            let refused = Next::<Log>::send(refused.build().unwrap());
            let refused = refused.read_by(move |log, reply, cx| {
                log.note(reply, cx);
                clock.sleep(4 * SECOND);
                step(cx)
            });
            lab.engine
                .start(refused.chain_timeout(TIMEOUT - number * MS));
        }
        lab.run();
        let told = std::mem::take(&mut lab.log.told).into_iter();
        let (refused, expired): (Vec<_>, Vec<_>) =
            told.partition(|told| told.error().kind() == ErrorKind::Policy);
        let times: Vec<_> = refused.iter().map(|told| told.at.as_secs()).collect();
        assert_eq!(times, [0, 4, 8, 12, 16]);
        assert!((2..=5).contains(&expired.len()), "{expired:?}");
        for told in expired {
            told.assert_expired(told.at, Phase::Queue);
            // Five readbacks and then these, each of which takes four seconds.
            assert!(9 * SECOND < told.at && told.at <= 40 * SECOND, "{told:?}");
        }
    }
}

#[test]
fn a_call_that_is_due_is_not_made_after_the_deadline() {
    // All of them are due at once, each turn makes one, and each takes four seconds.
    let mut lab = Lab::with(|config| config.turn_events = 1);
    let made = Rc::new(Cell::new(0));
    for _ in 0..5 {
        let (clock, made) = (lab.network.clone(), made.clone());
        let call = Next::call(move |_: &mut Log, _: &mut Context<'_, Log>| {
            made.set(made.get() + 1);
            clock.sleep(4 * SECOND);
            Next::done()
        });
        lab.start(call);
    }
    lab.run();
    assert_eq!(made.get(), 3, "at 0, 4 and 8 s");
    assert!(lab.log.told.is_empty());
}

#[test]
fn other_deadlines_are_apart_and_in_the_same_tick_the_chains_is_told() {
    let with = |set: fn(&mut Config)| {
        let mut lab = Lab::with(set);
        let mut times = 0;
        lab.start(send(NOTHING).read_by(move |log, reply, cx| {
            log.note(reply, cx);
            times += 1;
            if times < 10 { cx.again() } else { cx.done() }
        }));
        lab.run();
        lab.log.told
    };
    // Each request has a total of its own, ...
    let told = with(|config| config.timeouts.total = Some(4 * SECOND));
    assert_eq!(told.len(), 3);
    for (told, at) in told[..2].iter().zip([4, 8]) {
        assert_eq!(
            (told.at, told.error().kind()),
            (at * SECOND, ErrorKind::Timeout)
        );
        assert!(!is_of_chain(told.error()), "{:#}", told.error());
    }
    told[2].assert_expired(TIMEOUT, Phase::FirstByte);
    // ... and in the same tick, the chain ends.
    for set in [
        |config: &mut Config| config.timeouts.total = Some(TIMEOUT),
        |config: &mut Config| config.timeouts.first_byte = Some(TIMEOUT),
        |config: &mut Config| config.timeouts.first_byte = Some(5 * SECOND),
    ] {
        let told = with(set);
        told.last()
            .unwrap()
            .assert_expired(TIMEOUT, Phase::FirstByte);
    }
    // A request in the queue has its total.
    let mut lab = Lab::with(|config| {
        config.timeouts.total = Some(TIMEOUT);
        config.max_connections_per_origin = 1;
    });
    let long = get(NOTHING)
        .edit()
        .timeouts(|t| t.total = None)
        .build()
        .unwrap();
    let id = lab.engine.submit(long, note);
    lab.start(send(NOTHING).read_by(obstinate));
    lab.advance(TIMEOUT);
    lab.log.told[0].assert_expired(TIMEOUT, Phase::Queue);
    lab.engine.cancel(id);
    lab.run();
}

#[test]
fn what_is_canceled_before_hears_of_that_only() {
    let mut lab = Lab::new();
    let id = lab.start(send(NOTHING).read_by(obstinate));
    lab.start(
        Next::wait()
            .after(Duration::MAX)
            .key("k")
            .read_by(obstinate),
    );
    lab.advance(9 * SECOND);
    assert!(lab.engine.cancel(id) && lab.engine.cancel_key("k"));
    lab.run();
    let kinds: Vec<_> = lab
        .log
        .told
        .iter()
        .map(|told| told.error().kind())
        .collect();
    assert_eq!(kinds, [ErrorKind::Cancelled; 2]);
    assert_eq!(lab.network.elapsed(), 9 * SECOND);
    // Canceled before its first turn.
    let id = lab.start(send(NOTHING).read_by(obstinate));
    assert!(lab.engine.cancel(id));
    lab.run();
    // Canceled after the deadline, which no turn has seen.
    let id = lab.start(send(NOTHING).read_by(obstinate));
    lab.advance(SECOND);
    lab.network.sleep(20 * SECOND);
    assert!(lab.engine.cancel(id));
    lab.run();
    assert!(!lab.engine.cancel(id));
    assert_eq!(lab.log.told.len(), 4);
    let is_cancelled = |told: &Told| told.error().kind() == ErrorKind::Cancelled;
    assert!(lab.log.told.iter().all(is_cancelled));
}

#[test]
fn in_its_last_call_there_is_nothing_left_to_cancel() {
    let mut lab = Lab::new();
    lab.start(send(NOTHING).read_by(|log, reply, cx| {
        log.note(reply, cx);
        assert!(!cx.cancel(cx.id()));
        // What it returns is ignored: a new deadline, and a key that another chain holds.
        Next::again().chain_timeout(SECOND).key("k")
    }));
    let key = Next::wait().after(2 * TIMEOUT).key("k");
    lab.engine.start(key.read_by(note));
    lab.advance(TIMEOUT);
    assert_eq!((lab.log.told.len(), lab.engine.pending()), (1, 1));
    assert!(lab.engine.cancel_key("k"));
    lab.run();
}

#[test]
fn an_expired_chain_holds_its_key_no_longer() {
    let mut lab = Lab::new();
    // Two chains expire in one turn, and the readback of the first takes the key of the second.
    let delayed = |next: Next<Log>| next.after(Duration::MAX).chain_timeout(TIMEOUT);
    let first = send(NOTHING).read_by(|log, reply, cx| {
        log.note(reply, cx);
        cx.start(Next::wait().key("k"));
        assert!(cx.cancel_key("k"));
        Next::done()
    });
    lab.engine.start(delayed(first));
    lab.engine
        .start(delayed(send(NOTHING).read_by(obstinate)).key("k"));
    lab.run();
    assert_eq!(lab.log.told.len(), 2);
    for told in &lab.log.told {
        told.assert_expired(TIMEOUT, Phase::Queue);
    }
}

#[test]
fn a_drain_an_ended_session_and_a_panic_leave_no_deadline() {
    let mut lab = Lab::new();
    lab.start(send(NOTHING).read_by(obstinate));
    lab.start(send("http://10.0.0.1/slow").read_by(obstinate));
    lab.start(send(NOTHING).after(SECOND).read_by(obstinate));
    lab.advance(SECOND / 2);
    // The delayed one is canceled, the slow one is answered, and the third has its deadline.
    let cancelled = lab.engine.drain(&mut lab.log, 100 * SECOND).unwrap();
    assert_eq!(cancelled, 1);
    lab.run();
    assert_eq!(lab.log.told[0].error().kind(), ErrorKind::Cancelled);
    assert_eq!(lab.log.answered_at(), [4 * SECOND]);
    lab.log.told[2].assert_expired(TIMEOUT, Phase::FirstByte);
    assert_eq!(lab.network.elapsed(), TIMEOUT);

    let mut lab = Lab::new();
    let session = Session::new();
    let poll = session.get(NOTHING).build().unwrap();
    lab.start(Next::send(poll).read_by(obstinate));
    lab.advance(SECOND);
    lab.engine.end(&session);
    lab.run();
    assert_eq!(lab.log.told[0].error().kind(), ErrorKind::Cancelled);
    assert_eq!(lab.network.elapsed(), SECOND);

    let mut lab = Lab::new();
    lab.start(send("http://10.0.0.1/slow").read_by(|_, _, _| panic!("on purpose")));
    let Lab { engine, log, .. } = &mut lab;
    assert!(catch_unwind(AssertUnwindSafe(|| engine.run(log))).is_err());
    lab.run();
    assert_eq!(lab.network.elapsed(), 4 * SECOND);
    // In the last call of the readback as well.
    lab.start(send(NOTHING).read_by(|_, _, _| panic!("on purpose")));
    let Lab { engine, log, .. } = &mut lab;
    assert!(catch_unwind(AssertUnwindSafe(|| engine.run(log))).is_err());
    lab.run();
}

#[test]
fn a_policy_that_always_retries_does_not_keep_the_chain() {
    /// Counts how often it is asked for a verdict.
    #[derive(Clone)]
    struct Retry(Arc<AtomicU32>, Duration);

    impl Visit for Retry {
        fn on_head(
            &mut self,
            _: &Request,
            _: &Response<'_>,
            _: &Moment<'_>,
        ) -> Result<Screening, Error> {
            Ok(Screening::discard())
        }

        fn on_end(
            &mut self,
            request: &Request,
            _: &Reply<'_>,
            _: &Moment<'_>,
        ) -> Result<Verdict, Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let (request, after) = (request.clone(), self.1);
            Ok(Verdict::Resend { request, after })
        }
    }

    // The last hold-back ends in the tick of the deadline.
    for (url, after, asked, phase) in [
        (NOTHING, SECOND, 0, Phase::FirstByte),
        ("http://10.0.0.1/503", SECOND, 10, Phase::Queue),
        ("http://10.0.0.1/503", 3 * SECOND, 4, Phase::Queue),
        ("http://10.0.0.1/slow", Duration::ZERO, 2, Phase::FirstByte),
    ] {
        let mut lab = Lab::new();
        let count = Arc::new(AtomicU32::new(0));
        let policy = Arc::new(Retry(count.clone(), after));
        let request = Request::get(url).policy(policy).build().unwrap();
        lab.start(Next::send(request).read_by(obstinate));
        lab.run();
        assert_eq!(lab.log.told.len(), 1, "{url}");
        lab.log.told[0].assert_expired(TIMEOUT, phase);
        assert_eq!(count.load(Ordering::Relaxed), asked, "{url}");
    }
}

#[test]
fn parts_tasks_and_threads_set_deadlines() {
    // A part of the state.
    let mut lab = Lab::new();
    fn part(log: &mut Log) -> Option<&mut Vec<Told>> {
        Some(&mut log.told)
    }
    type Part = Vec<Told>;
    let base = lab.log.base;
    let readback = move |told: &mut Part, reply: Reply<'_>, cx: &mut Context<'_, Part>| {
        let outcome = reply.map(|response| response.status().as_u16());
        let at = cx.now() - base;
        told.push(Told { at, outcome });
        cx.send(get(NOTHING)).chain_timeout(TIMEOUT)
    };
    let slow = get("http://10.0.0.1/slow");
    lab.engine.submit_to(slow, within(part, readback));
    lab.run();
    assert_eq!(lab.log.told.len(), 2);
    lab.log.told[1].assert_expired(4 * SECOND + TIMEOUT, Phase::FirstByte);

    // A task, through a `Local`; the deadline counts from when the engine takes the chain.
    let mut lab = Lab::new();
    let http = lab.engine.local();
    lab.engine.spawn(async move {
        http.sleep(SECOND).await;
        let poll = send(NOTHING).read_by(obstinate);
        http.start(poll.chain_timeout(TIMEOUT));
    });
    lab.run();
    lab.log.told[0].assert_expired(SECOND + TIMEOUT, Phase::FirstByte);

    // Another thread, whose call returns the step.
    let mut lab = Lab::new();
    let submitter = lab.engine.submitter();
    let thread = thread::spawn(move || {
        let begin = |_: &mut Log, _: &mut Context<'_, Log>| {
            let poll = send(NOTHING).read_by(obstinate);
            poll.chain_timeout(TIMEOUT)
        };
        submitter.call_after(SECOND, begin).map_err(drop).unwrap();
    });
    thread.join().unwrap();
    lab.run();
    lab.log.told[0].assert_expired(SECOND + TIMEOUT, Phase::FirstByte);
}

#[test]
fn it_does_not_count_against_the_server() {
    let mut lab = Lab::new();
    // Two idle connections, one of which is used again and stays silent.
    for _ in 0..2 {
        lab.engine.submit(get("http://10.0.0.1/"), note);
    }
    lab.advance(SECOND);
    assert_eq!(lab.engine.stats().links_idle, 2);
    lab.start(send(NOTHING).read_by(obstinate));
    lab.advance(TIMEOUT);
    lab.log.told[2].assert_expired(SECOND + TIMEOUT, Phase::FirstByte);
    assert_eq!(
        lab.engine.stats().links_idle,
        1,
        "the other one may be as good as ever"
    );
    lab.run();
}

#[test]
fn timeouts_that_are_zero_or_end_the_chain_at_once() {
    let mut lab = Lab::new();
    lab.engine.start(
        send(NOTHING)
            .read_by(obstinate)
            .chain_timeout(Duration::ZERO),
    );
    lab.run();
    assert_eq!(lab.log.told.len(), 1);
    lab.log.told[0].assert_expired(Duration::ZERO, Phase::Queue);
    // What starts nothing has no deadline.
    lab.start(Next::done());
    lab.start(Next::again());
    lab.run();
    assert!(Next::<()>::done().chain_timeout(SECOND).is_done());
}
