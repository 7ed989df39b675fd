//! Event streams of sse-starlette, whose server is restarted in the middle.

use std::time::Duration;

use httpstream::events::Event;
use httpstream::session::Retry;
use httpstream::{Context, Engine, Events, Flow, Next, Reply, Request};

use crate::common::PATIENCE;
use crate::programs;

#[derive(Default)]
struct Log {
    /// The id, the name, and the data of each event.
    events: Vec<(String, String, String)>,
    end: Option<u16>,
}

impl Log {
    fn on_event(&mut self, event: Event<'_>, _: &mut Context<'_, Self>) -> Flow {
        let event = (event.id().into(), event.name().into(), event.data().into());
        self.events.push(event);
        Flow::Stream
    }

    fn on_end(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        let response = reply.unwrap_or_else(|error| panic!("{error:#}"));
        self.end = Some(response.status().as_u16());
        Next::done()
    }
}

/// Turns until `is_done`, or panics if that takes too long.
fn until(engine: &mut Engine<Log>, log: &mut Log, is_done: impl Fn(&Log) -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !is_done(log) {
        assert!(std::time::Instant::now() < end, "{:?}", log.events.last());
        engine.turn(log, Some(Duration::from_millis(50))).unwrap();
    }
}

/// The server is killed once, and once asked to end. Each connection has another kind of line ends.
#[test]
fn no_event_is_lost_or_doubled_when_the_server_is_restarted() {
    for turn in 0..3 {
        let start = |port: u16| programs::python("http_server.py", [port.to_string(), ".".into()]);
        let Some(server) = start(0) else {
            return;
        };
        let port = server.addr.port();
        let request = Request::get(server.url(&format!("/events?turn={turn}"))).accept_events();
        let events = Events::new(Log::on_event).then(Log::on_end);
        let wait = Duration::from_millis(20);
        let events = events.retry(Retry::forever().backoff(wait, wait));
        let mut engine = Engine::<Log>::new().unwrap();
        engine.start(events.open(request.build().unwrap()));
        let mut log = Log::default();

        until(&mut engine, &mut log, |log| log.events.len() >= 200);
        drop(server);
        let server = start(port).unwrap();
        until(&mut engine, &mut log, |log| log.events.len() >= 600);
        server.terminate();
        server.wait();
        let _server = start(port).unwrap();
        until(&mut engine, &mut log, |log| log.end.is_some());

        assert_eq!(log.end, Some(204));
        let mut openings = vec![0];
        for (i, (id, name, data)) in (1..).zip(&log.events) {
            let (head, from) = data.rsplit_once("\nfrom ").unwrap();
            let from: usize = from.parse().unwrap();
            if openings.last() != Some(&from) {
                assert_eq!(from, i - 1, "opened again from the last event");
                openings.push(from);
            }
            let event = (id.as_str(), name.as_str(), head);
            let expected_id = i.to_string();
            let line = format!("event {i}\n\n  line ü: {}", "x".repeat(i % 300));
            let expected_name = if i % 2 == 0 { "even" } else { "message" };
            assert_eq!(event, (&*expected_id, expected_name, &*line));
        }
        assert_eq!(log.events.len(), 1000);
        assert_eq!(openings.len(), 3, "{openings:?}");
        assert_eq!(engine.pending(), 0);
    }
}
