//! A connection that is older than `Config::max_age` is given no further request.

use std::collections::BTreeSet;
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Error, ErrorKind, Info, Request, Sim};

const AGE: Duration = Duration::from_secs(10);

fn network(answer: fn(&Incoming) -> Answer) -> Network {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve("10.0.0.1:80".parse().unwrap(), answer);
    network
}

fn engine(network: &Network, max_age: Option<Duration>) -> Engine<Vec<Info>, Sim> {
    let mut config = Config::default();
    config.max_age = max_age;
    config.pipeline_without_trial("a.test:81", 4);
    Engine::on_network(network, config).unwrap()
}

fn request(url: &str) -> Request {
    Request::get(url).build().unwrap()
}

/// Sends the request again as soon as it is answered, `times` in all.
fn chain(engine: &mut Engine<Vec<Info>, Sim>, url: &str, times: usize) {
    engine.submit(request(url), move |infos: &mut Vec<Info>, reply, cx| {
        infos.push(reply.unwrap().info().clone());
        if infos.len() < times {
            cx.again()
        } else {
            cx.done()
        }
    });
}

fn connections(infos: &[Info]) -> usize {
    let ids = infos.iter().map(|info| info.connection);
    ids.collect::<BTreeSet<_>>().len()
}

/// Each exchange takes 1.001 s (the network's latency is 0.5 ms), so the eleventh ends beyond the
/// age.
#[test]
fn a_chain_without_pauses_changes_its_connection_at_that_age() {
    let late = |_: &Incoming| Answer::ok("late").after(Duration::from_secs(1));
    for (max_age, expected) in [(None, 1), (Some(AGE), 3), (Some(Duration::MAX), 1)] {
        let network = network(late);
        let mut engine = engine(&network, max_age);
        chain(&mut engine, "http://a.test/", 30);
        let mut infos = Vec::new();
        engine.run(&mut infos).unwrap();
        assert_eq!(connections(&infos), expected, "{max_age:?}");
        assert_eq!(network.misuses(), []);
        if max_age == Some(AGE) {
            assert_eq!(engine.stats().opened, 3);
            let served = |info: &&Info| info.connection == infos[0].connection;
            assert_eq!(infos.iter().filter(served).count(), 10);
        }
    }
}

#[test]
fn an_exchange_in_progress_is_not_cut_short() {
    let network = network(|_| Answer::ok("late").after(2 * AGE));
    let mut engine = engine(&network, Some(AGE));
    let mut infos = Vec::new();
    chain(&mut engine, "http://a.test/", 1);
    engine.run(&mut infos).unwrap();
    assert!(infos[0].timings.done > Some(2 * AGE));
    assert_eq!(
        engine.stats().links_open,
        0,
        "it is closed when its exchange ends"
    );
}

#[test]
fn an_idle_connection_beyond_that_age_is_not_used() {
    let network = network(|_| Answer::ok("hello"));
    let mut engine = engine(&network, Some(AGE));
    let mut infos = Vec::new();
    for (pause, expected) in [(0, 1), (9, 1), (2, 2), (9, 2)] {
        engine
            .advance(&mut infos, Duration::from_secs(pause))
            .unwrap();
        chain(&mut engine, "http://a.test/", 1);
        engine.run(&mut infos).unwrap();
        assert_eq!(connections(&infos), expected, "after another {pause} s");
        assert_eq!(engine.stats().links_open, 1, "the old one is closed");
    }
}

#[test]
fn a_preconnect_replaces_an_idle_connection_beyond_that_age() {
    let network = network(|_| Answer::ok("hello"));
    let mut engine = engine(&network, Some(AGE));
    let mut infos = Vec::new();
    for (pause, expected) in [(1, 1), (8, 1), (2, 2)] {
        engine.preconnect(&"http://a.test".parse().unwrap());
        engine
            .advance(&mut infos, Duration::from_secs(pause))
            .unwrap();
        engine.preconnect(&"http://a.test".parse().unwrap());
        engine
            .advance(&mut infos, Duration::from_millis(10))
            .unwrap();
        assert_eq!(engine.stats().opened, expected, "after another {pause} s");
        assert_eq!(engine.stats().links_open, 1);
    }
}

#[test]
fn a_pipeline_accepts_no_request_beyond_that_age_and_answers_those_it_has() {
    let network = network(|_| Answer::ok("hello"));
    network.serve("10.0.0.1:81".parse().unwrap(), |_: &Incoming| {
        Answer::ok("late").after(Duration::from_secs(6))
    });
    let mut engine = engine(&network, Some(AGE));
    let mut infos = Vec::new();
    for i in 0..3 {
        chain(&mut engine, &format!("http://a.test:81/{i}"), 1);
    }
    engine.advance(&mut infos, Duration::from_secs(11)).unwrap();
    assert_eq!(infos.len(), 1, "two are still on the connection");
    chain(&mut engine, "http://a.test:81/3", 1);
    engine.run(&mut infos).unwrap();
    assert_eq!(infos.len(), 4);
    let last = infos.iter().find(|info| info.url().path() == "/3").unwrap();
    let others: Vec<_> = infos
        .iter()
        .filter(|info| info.url().path() != "/3")
        .collect();
    assert!(
        others
            .iter()
            .all(|info| info.connection == infos[0].connection)
    );
    assert!(others.iter().all(|info| info.attempts == 1));
    assert_ne!(last.connection, infos[0].connection);
    let stats = engine.stats();
    assert_eq!(
        (stats.opened, stats.links_open),
        (2, 1),
        "the old one is closed"
    );
}

#[test]
fn an_age_of_nothing_is_refused() {
    let mut config = Config::default();
    config.max_age = Some(Duration::ZERO);
    let error: Error = Engine::<()>::with_config(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("max_age"), "{error}");
}
