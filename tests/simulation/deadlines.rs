//! Every deadline at its exact time, on a network where nothing is random.
//!
//! In the runs of `host`, only the earliest possible time of most deadlines is known. Here, the
//! start of every phase is known, and a host that turns on time has to be told of the deadline in
//! exactly the right tick.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network, Random};
use httpstream::{Config, Engine, ErrorKind, Next, Phase, Request, Sim, Timeouts};

use crate::plan::{MS, SECOND};
use crate::world::ceil_ms;

/// The one-way latency of this network.
const LATENCY: Duration = Duration::from_micros(1300);

/// A request whose exchange gets stuck, the phase in which it does, a setter for that phase's
/// timeout, and how long after the submission the phase begins.
type Row = (
    &'static str,
    Phase,
    fn(&mut Timeouts, Duration),
    fn() -> Duration,
);

const ROWS: &[Row] = &[
    (
        "http://10.0.0.1/total",
        Phase::FirstByte,
        |t, d| t.total = Some(d),
        || Duration::ZERO,
    ),
    (
        "http://slow.test/",
        Phase::Resolve,
        |t, d| t.resolve = Some(d),
        || Duration::ZERO,
    ),
    (
        "http://10.0.0.2/",
        Phase::Connect,
        |t, d| t.connect = Some(d),
        || Duration::ZERO,
    ),
    (
        "http://hole.test/",
        Phase::Connect,
        |t, d| t.connect = Some(d),
        || 7 * MS,
    ),
    // The connection is established and accepts only what fits into its send buffer.
    (
        "http://10.0.0.3/",
        Phase::Write,
        |t, d| t.write = Some(d),
        || 2 * LATENCY,
    ),
    (
        "http://10.0.0.1/silence",
        Phase::FirstByte,
        |t, d| t.first_byte = Some(d),
        || 2 * LATENCY,
    ),
    (
        "http://10.0.0.1/head",
        Phase::Head,
        |t, d| t.idle = Some(d),
        || 4 * LATENCY,
    ),
    (
        "http://10.0.0.1/body",
        Phase::Body,
        |t, d| t.idle = Some(d),
        || 4 * LATENCY,
    ),
];

fn network() -> Network {
    let network = Network::new(1);
    network.set_latency(LATENCY);
    let _ = network
        .host("slow.test", [[10, 0, 0, 1]])
        .after(1000 * SECOND);
    let _ = network.host("hole.test", [[10, 0, 0, 2]]).after(7 * MS);
    let addr = |last| ([10, 0, 0, last], 80).into();
    let server = |request: &Incoming| match request.path() {
        "/head" => Answer::ok("all").truncate(9),
        "/body" => Answer::ok("all of it").truncate(40),
        _ => Answer::nothing(),
    };
    let _ = network.serve(addr(1), server);
    network.black_hole(addr(2));
    let _ = network
        .serve(addr(3), server)
        .reads_at_most(0)
        .send_buffer(10);
    network
}

/// Returns when the exchange failed, counted from its submission, and in which phase.
fn time_out(row: &Row, begins: Duration, timeout: Duration, late: Duration) -> (Duration, Phase) {
    let (url, _, set, _) = row;
    let network = network();
    let mut config = Config::default();
    config.timeouts.resolve = None;
    config.timeouts.connect = None;
    config.timeouts.write = None;
    config.timeouts.first_byte = None;
    config.timeouts.idle = None;
    config.timeouts.total = None;
    set(&mut config.timeouts, timeout);
    let mut engine =
        Engine::<(), Sim>::on_network(&network, config).expect("the configuration is valid");
    network.sleep(begins);
    let failed = Rc::new(RefCell::new(None));
    let (told, clock) = (failed.clone(), network.clone());
    let request = Request::post(url)
        .body(vec![b'x'; 3000])
        .build()
        .expect("the request is valid");
    engine.submit(request, move |(), reply, _| {
        let error = reply.expect_err("no complete response is sent");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        *told.borrow_mut() = Some((clock.elapsed(), error.phase()));
        Next::done()
    });
    if late.is_zero() {
        engine.run(&mut ()).expect("the simulated poll never fails");
    } else {
        while engine.pending() > 0 {
            engine
                .turn(&mut ())
                .expect("the simulated poll never fails");
            network.sleep(late);
        }
    }
    let (at, phase) = failed.borrow_mut().take().expect("the deadline has passed");
    (at - begins, phase)
}

#[test]
fn deadlines_pass_in_the_tick_in_which_they_are_due() {
    let mut random = Random::new(5);
    for row in ROWS {
        for _ in 0..40 {
            let begins = random.duration(20 * MS);
            let timeout = random.duration(2 * SECOND) + 30 * MS;
            let (after, phase) = time_out(row, begins, timeout, Duration::ZERO);
            let (url, expected, _, start) = row;
            assert_eq!(phase, *expected, "{url}");
            let due = ceil_ms(begins + start()) + ceil_ms(timeout) - begins;
            assert_eq!(after, due, "{url} begun at {begins:?}, timeout {timeout:?}");
            let late = after - start() - timeout;
            assert!(late < 2 * MS, "{url}: late by {late:?}");
        }
    }
}

#[test]
fn a_late_host_hears_of_a_deadline_in_its_first_turn_after_it() {
    let mut random = Random::new(6);
    // Only the rows whose phase begins with the submission, regardless of when turns are made.
    for row in &ROWS[..3] {
        for _ in 0..40 {
            let begins = random.duration(20 * MS);
            let timeout = random.duration(SECOND) + 30 * MS;
            let late = random.duration(50 * MS) + MS;
            let (after, _) = time_out(row, begins, timeout, late);
            let url = row.0;
            assert!(after >= timeout, "{url}: early by {:?}", timeout - after);
            assert!(
                after < timeout + late + 2 * MS,
                "{url}: after {after:?}, not {timeout:?}"
            );
        }
    }
}

#[test]
fn delays_are_over_in_the_tick_in_which_they_are_due() {
    let mut random = Random::new(7);
    for _ in 0..200 {
        let network = network();
        let mut engine = Engine::<Option<Duration>, Sim>::on_network(&network, Config::default())
            .expect("the configuration is valid");
        let begins = random.duration(20 * MS);
        let delay = random.duration(3 * SECOND);
        network.sleep(begins);
        let refused = Request::get("http://10.0.0.9/")
            .build()
            .expect("the request is valid");
        let clock = network.clone();
        engine.start(
            engine
                .send(refused)
                .after(delay)
                .read_by(move |done, reply, _| {
                    assert!(reply.is_err());
                    *done = Some(clock.elapsed());
                    Next::done()
                }),
        );
        let mut done = None;
        engine
            .run(&mut done)
            .expect("the simulated poll never fails");
        // The refusal takes one latency in each direction.
        let waited = done.expect("the request was refused") - begins - 2 * LATENCY;
        assert!(waited >= delay, "early by {:?}", delay - waited);
        assert!(
            waited < delay + MS + Duration::from_micros(2),
            "{waited:?} instead of {delay:?}"
        );
    }
}

#[test]
fn a_delay_of_ten_thousand_years_is_exact_too() {
    for years in [1, 500, 700, 10_000] {
        let network = Network::new(1);
        let addr = "10.0.0.1:80".parse().unwrap();
        let _ = network.serve(addr, |_: &Incoming| Answer::ok("late"));
        let mut engine =
            Engine::<Option<Duration>, Sim>::on_network(&network, Config::default()).unwrap();
        let delay = Duration::from_secs(years * 365 * 86_400);
        let request = Request::get("http://10.0.0.1/").build().unwrap();
        let (told, clock) = (&mut None, network.clone());
        engine.start(
            engine
                .send(request)
                .after(delay)
                .read_by(move |told, reply, _| {
                    assert_eq!(reply.unwrap().text().unwrap(), "late");
                    *told = Some(clock.elapsed());
                    Next::done()
                }),
        );
        engine.run(told).unwrap();
        let told = told.expect("the engine ran until the response was read");
        assert!(delay <= told && told < delay + SECOND, "{years}: {told:?}");
    }
}
