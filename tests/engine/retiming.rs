//! `Context::timeouts`: a readback changes the timeouts of the response that it is reading.

use std::time::Duration;

use httpstream::session::Session;
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Flow, LowSpeed, Next, Readback, Reply, Request, Response, Sim,
    Timeouts, within_to,
};

const SECOND: Duration = Duration::from_secs(1);

/// How each response ended, and the second in which it did.
type Log = Vec<(u64, String)>;

/// Changes the timeouts at the head, streams the body, and sends the request as often as it says.
struct Changes<F> {
    network: Network,
    change: F,
    at_data: bool,
    pauses: bool,
    more: u32,
}

impl<F: Fn(&mut Timeouts)> Changes<F> {
    fn new(network: &Network, change: F) -> Self {
        Self {
            network: network.clone(),
            change,
            at_data: false,
            pauses: false,
            more: 0,
        }
    }
}

impl<F: Fn(&mut Timeouts)> Readback<Log> for Changes<F> {
    fn on_head(&mut self, _: &mut Log, _: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        if !self.at_data {
            cx.timeouts(&self.change);
        }
        if self.pauses {
            Flow::Pause
        } else {
            Flow::Stream
        }
    }

    fn on_data(&mut self, _: &mut Log, _: &[u8], cx: &mut Context<'_, Log>) -> Flow {
        if self.at_data {
            cx.timeouts(&self.change);
        }
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        log: &mut Log,
        reply: Reply<'_>,
        cx: &mut Context<'_, Log>,
    ) -> Next<Log> {
        let outcome = match reply {
            Ok(response) => response.status().as_str().to_owned(),
            Err(error) => std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), |source| source.to_string()),
        };
        log.push((self.network.elapsed().as_secs(), outcome));
        // It has no effect here.
        cx.timeouts(|t| (t.first_byte, t.idle) = (Some(SECOND), Some(SECOND)));
        match self.more.checked_sub(1) {
            Some(left) => {
                self.more = left;
                Next::again()
            }
            None => Next::done(),
        }
    }
}

/// Sends a byte of the body every ten seconds, for ten minutes.
fn dripping() -> Network {
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 61\r\n\r\n";
        let wire = head.to_owned() + &"x".repeat(61);
        let drips = (1..=60).map(|i| head.len() + i);
        match request.path() {
            "/stuck" => Answer::raw(head),
            "/late" => Answer::raw(wire).after(5 * SECOND),
            _ => drips.fold(Answer::raw(wire), |answer, at| {
                answer.pause(at, 10 * SECOND)
            }),
        }
    });
    network
}

fn get(path: &str) -> Request {
    Request::get(format!("http://10.0.0.1{path}"))
        .build()
        .unwrap()
}

fn engine<S>(network: &Network) -> Engine<S, Sim> {
    Engine::on_network(network, Config::default()).unwrap()
}

fn run(network: &Network, request: Request, readback: impl Readback<Log> + 'static) -> Log {
    let mut engine = engine(network);
    engine.submit_to(request, readback);
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    log
}

fn end(at: u64, outcome: &str) -> Log {
    vec![(at, outcome.to_owned())]
}

#[test]
fn the_total_timeout_is_lifted_shortened_or_left() {
    let network = dripping();
    let log = run(&network, get("/"), Changes::new(&network, |_| ()));
    assert_eq!(log, end(300, "total timeout of 300s"));
    let network = dripping();
    let log = run(
        &network,
        get("/"),
        Changes::new(&network, |t| t.total = None),
    );
    assert_eq!(log, end(600, "200"));
    let network = dripping();
    let log = run(
        &network,
        get("/"),
        Changes::new(&network, |t| t.total = Some(100 * SECOND)),
    );
    assert_eq!(log, end(100, "total timeout of 100s"));
    // A total that is over already ends the response at once.
    let network = dripping();
    let mut changes = Changes::new(&network, |t| t.total = Some(SECOND));
    changes.at_data = true;
    let request = get("/").edit().timeouts(|t| t.idle = None).build().unwrap();
    assert_eq!(
        run(&network, request, changes),
        end(1, "total timeout of 1s")
    );
}

#[test]
fn the_idle_timeout_changes_from_here_on() {
    let network = dripping();
    let log = run(
        &network,
        get("/"),
        Changes::new(&network, |t| t.idle = Some(9 * SECOND)),
    );
    assert_eq!(log, end(9, "idle timeout of 9s"));
    let network = dripping();
    let changes = Changes::new(&network, |t| (t.idle, t.total) = (None, None));
    let mut engine = engine(&network);
    engine.submit_to(get("/stuck"), changes);
    let mut log = Log::new();
    assert!(!engine.advance(&mut log, 1_000_000 * SECOND).unwrap());
    assert_eq!((log, engine.pending()), (Log::new(), 1));
    // Those of the request are the ones that change.
    let network = dripping();
    let request = get("/stuck")
        .edit()
        .timeouts(|t| t.idle = Some(7 * SECOND))
        .build()
        .unwrap();
    let changes = Changes::new(&network, |t| t.idle = t.idle.map(|idle| 2 * idle));
    assert_eq!(
        run(&network, request, changes),
        end(14, "idle timeout of 14s")
    );
}

#[test]
fn the_next_request_has_its_own_timeouts() {
    let network = dripping();
    let mut changes = Changes::new(&network, |t| t.idle = Some(2 * SECOND));
    changes.at_data = true;
    changes.more = 1;
    // The head of the second response takes five seconds, and so does its body.
    let log = run(&network, get("/"), changes);
    assert_eq!(log[0], (2, "idle timeout of 2s".to_owned()));
    assert_eq!(log[1], (4, "idle timeout of 2s".to_owned()));

    let network = dripping();
    let request = get("/stuck")
        .edit()
        .timeouts(|t| t.idle = Some(7 * SECOND))
        .build()
        .unwrap();
    let mut changes = Changes::new(&network, |_| ());
    changes.more = 1;
    // `on_reply` sets shorter ones, which apply to nothing.
    let log = run(&network, request, changes);
    assert_eq!(log[0], (7, "idle timeout of 7s".to_owned()));
    assert_eq!(log[1], (14, "idle timeout of 7s".to_owned()));

    let network = dripping();
    let mut changes = Changes::new(&network, |t| t.first_byte = Some(SECOND));
    changes.more = 2;
    let log = run(&network, get("/late"), changes);
    let times: Vec<u64> = log.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [5, 10, 15], "{log:?}");
}

#[test]
fn a_pause_suspends_the_new_idle_timeout_too() {
    let network = dripping();
    let mut changes = Changes::new(&network, |t| (t.idle, t.total) = (Some(3 * SECOND), None));
    changes.pauses = true;
    let mut engine = engine(&network);
    let id = engine.submit_to(get("/stuck"), changes);
    let mut log = Log::new();
    engine.advance(&mut log, 1000 * SECOND).unwrap();
    assert_eq!(log, Log::new());
    engine.resume(id);
    engine.run(&mut log).unwrap();
    assert_eq!(log, end(1003, "idle timeout of 3s"));
}

#[test]
fn the_low_speed_is_lifted_set_or_left() {
    let slow = |bytes| Some(LowSpeed::new(bytes, 30 * SECOND));
    let with_low_speed = |network: &Network, change: fn(&mut Timeouts)| {
        let mut config = Config::default();
        config.timeouts.low_speed = Some(LowSpeed::new(100, 30 * SECOND));
        let mut engine = Engine::<Log, Sim>::on_network(network, config).unwrap();
        engine.submit_to(get("/"), Changes::new(network, change));
        let mut log = Log::new();
        engine.run(&mut log).unwrap();
        log.remove(0)
    };
    let network = dripping();
    let (at, why) = with_low_speed(&network, |_| ());
    assert_eq!(at, 30);
    assert!(why.starts_with("slower than 100 bytes/s over 30s"), "{why}");
    let network = dripping();
    let (at, why) = with_low_speed(&network, |t| t.total = None);
    assert_eq!(at, 30);
    assert!(why.starts_with("slower than 100 bytes/s over 30s"), "{why}");
    let network = dripping();
    let (at, why) = with_low_speed(&network, |t| (t.low_speed, t.total) = (None, None));
    assert_eq!((at, &why[..]), (600, "200"));
    let network = dripping();
    let (at, why) = with_low_speed(&network, |t| {
        t.low_speed = Some(LowSpeed::new(1, 50 * SECOND));
    });
    assert_eq!(at, 50);
    assert!(why.starts_with("slower than 1 bytes/s over 50s"), "{why}");

    // An engine without one, and a request with its own.
    let network = dripping();
    let log = run(
        &network,
        get("/"),
        Changes::new(&network, move |t| t.low_speed = slow(7)),
    );
    assert_eq!(log[0].0, 30);
    assert!(
        log[0].1.starts_with("slower than 7 bytes/s over 30s"),
        "{log:?}"
    );
    let network = dripping();
    let request = get("/").edit().low_speed(9, 20 * SECOND).build().unwrap();
    let log = run(
        &network,
        request,
        Changes::new(&network, |t| {
            (t.low_speed, t.total) = (None, None);
        }),
    );
    assert_eq!(log, end(600, "200"));
}

#[test]
fn a_session_and_a_part_of_the_state_change_nothing_about_it() {
    let network = dripping();
    let session = Session::builder().total(60 * SECOND).build().unwrap();
    let mut engine = engine::<Vec<Log>>(&network);
    let request = get("/").edit().session(&session).build().unwrap();
    let changes = Changes::new(&network, |t| t.total = None);
    engine.submit_to(
        request,
        within_to(|logs: &mut Vec<Log>| logs.get_mut(0), changes),
    );
    let request = get("/").edit().session(&session).build().unwrap();
    let changes = Changes::new(&network, |t| t.idle = None);
    engine.submit_to(
        request,
        within_to(|logs: &mut Vec<Log>| logs.get_mut(1), changes),
    );
    let mut logs = vec![Log::new(), Log::new()];
    engine.run(&mut logs).unwrap();
    assert_eq!(logs, [end(600, "200"), end(60, "total timeout of 60s")]);
}

#[test]
fn a_call_has_nothing_to_change() {
    let network = dripping();
    let mut engine = engine::<Log>(&network);
    let request = get("/late");
    engine.call(move |_, cx| {
        cx.timeouts(|t| t.first_byte = Some(SECOND));
        Next::send(request).read_by(|log: &mut Log, reply, _| {
            log.push((0, reply.unwrap().status().as_str().to_owned()));
            Next::done()
        })
    });
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    assert_eq!(log, end(0, "200"));
}
