//! `Engine::origins` counts what exists now of each origin, and forgets an origin of which nothing
//! is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Next, Request, Route, Sim};

const A_WHILE: Duration = Duration::from_millis(20);

/// The counts of each origin: open, idle, dialing, in flight, queued.
fn counts(engine: &Engine<(), Sim>) -> Vec<(String, [usize; 5])> {
    let mut counts: Vec<_> = engine
        .origins()
        .into_iter()
        .map(|it| {
            let counts = [it.open, it.idle, it.dialing, it.in_flight, it.queued];
            (it.origin.to_string(), counts)
        })
        .collect();
    counts.sort();
    counts
}

fn submit(engine: &mut Engine<(), Sim>, host: &str, times: usize) {
    for _ in 0..times {
        let request = Request::get(format!("http://{host}/")).build().unwrap();
        engine.submit(request, |_, _, _| Next::done());
    }
}

#[test]
fn each_origin_has_its_own_counts_for_as_long_as_something_of_it_is_left() {
    let network = Network::new(1);
    for (host, last) in [("a.test", 1), ("b.test", 2), ("silent.test", 3)] {
        network.host(host, [[10, 0, 0, last]]);
        let addr = SocketAddr::from(([10, 0, 0, last], 80));
        network.serve(addr, |_: &Incoming| {
            Answer::ok("late").after(Duration::from_secs(1))
        });
    }
    network.black_hole("10.0.0.3:80".parse().unwrap());
    let mut config = Config::default();
    config.max_connections_per_origin = 2;
    config.timeouts.connect = Some(Duration::from_secs(5));
    let mut engine = Engine::<(), Sim>::on_network(&network, config).unwrap();
    assert_eq!(counts(&engine), []);
    submit(&mut engine, "a.test", 5);
    submit(&mut engine, "b.test", 1);
    submit(&mut engine, "silent.test", 1);
    engine.advance(&mut (), A_WHILE).unwrap();
    let row = |host: &str, counts| (format!("http://{host}"), counts);
    assert_eq!(
        counts(&engine),
        [
            row("a.test", [2, 0, 0, 2, 3]),
            row("b.test", [1, 0, 0, 1, 0]),
            row("silent.test", [0, 0, 1, 1, 0]),
        ]
    );
    let stats = engine.stats();
    assert_eq!((stats.links_open, stats.links_dialing), (4, 1));
    engine.run(&mut ()).unwrap();
    assert_eq!(
        counts(&engine),
        [
            row("a.test", [2, 2, 0, 0, 0]),
            row("b.test", [1, 1, 0, 0, 0])
        ]
    );
    engine.close_idle();
    assert_eq!(counts(&engine), []);
}

#[test]
fn an_origin_has_an_entry_for_each_route() {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("hello")
    });
    let mut engine = Engine::<(), Sim>::on_network(&network, Config::default()).unwrap();
    let mut route = Route::default();
    route.nodelay = true;
    let route = Arc::new(route);
    engine.preconnect(&"http://a.test".parse().unwrap());
    engine.preconnect_by(&"http://a.test".parse().unwrap(), &route);
    engine.advance(&mut (), A_WHILE).unwrap();
    let origins = engine.origins();
    assert_eq!(origins.len(), 2);
    assert!(origins.iter().all(|it| (it.open, it.idle) == (1, 1)));
    assert_eq!(origins.iter().filter(|it| it.route == route).count(), 1);
}
