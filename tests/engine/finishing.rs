//! Responses that their readback ends with `Flow::Finish`.

use std::time::Duration;

use httpstream::session::{Decode, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Events, Flow, Lines, Next, Readback, Reply, Request, Response, Sim,
};

use crate::common::{Log, note};

/// Ends a response at its head, or after this many pieces, perhaps after a pause.
#[derive(Clone, Copy)]
struct Finish {
    at_head: bool,
    pieces: usize,
    pauses: bool,
}

impl Finish {
    fn flow(&mut self, cx: &mut Context<'_, Log>) -> Flow {
        if self.pieces > 0 {
            return Flow::Stream;
        }
        if !self.pauses {
            return Flow::Finish;
        }
        let id = cx.id();
        let resume = Next::<Log>::call(move |_, cx| {
            cx.resume(id);
            Next::done()
        });
        cx.start(resume.after(Duration::from_millis(1)));
        Flow::Pause
    }
}

impl Readback<Log> for Finish {
    fn on_head(&mut self, _: &mut Log, _: &Response<'_>, _: &mut Context<'_, Log>) -> Flow {
        match self.at_head {
            true => Flow::Finish,
            false => Flow::Stream,
        }
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
        log.notes.push(String::from_utf8_lossy(data).into_owned());
        self.pieces -= 1;
        self.flow(cx)
    }

    fn on_resume(&mut self, log: &mut Log, _: &mut Context<'_, Log>) -> Flow {
        log.notes.push("resumed".to_owned());
        Flow::Finish
    }

    fn on_reply(
        &mut self,
        log: &mut Log,
        reply: Reply<'_>,
        cx: &mut Context<'_, Log>,
    ) -> Next<Log> {
        note(log, reply, cx)
    }
}

fn network() -> Network {
    let network = Network::new(1);
    let pause = Duration::from_millis(100);
    network.serve("10.0.0.1:80".parse().unwrap(), move |request: &Incoming| {
        let answer = Answer::status(200);
        match request.path() {
            "/chunked" => answer.chunked(["one", "two", "three"]).pause(60, pause),
            "/until-close" => answer.until_close("one-two-three").pause(42, pause),
            "/empty" => answer.body(""),
            "/lines" => answer.chunked(["a\nb\nc\nd", "\ne\n"]),
            "/events" => answer
                .header("Content-Type", "text/event-stream")
                .chunked(["data: a\n\ndata: b\n\ndata: c\n\n"]),
            "/gzip" => {
                use std::io::Write as _;
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(&[b'x'; 200_000]).unwrap();
                answer
                    .header("Content-Encoding", "gzip")
                    .body(encoder.finish().unwrap())
            }
            _ => answer.body("0123456789").pause(45, pause),
        }
    });
    network
}

fn engine(network: &Network) -> Engine<Log, Sim> {
    Engine::on_network(network, Config::default()).unwrap()
}

fn get(path: &str) -> Request {
    let url = format!("http://10.0.0.1{path}");
    Request::get(url).build().unwrap()
}

#[test]
fn a_response_ends_where_its_readback_says() {
    let after = |pieces| Finish {
        at_head: false,
        pieces,
        pauses: false,
    };
    let paused = Finish {
        pauses: true,
        ..after(1)
    };
    let at_head = Finish {
        at_head: true,
        ..after(0)
    };
    for path in ["/chunked", "/until-close", "/length"] {
        for (finish, notes) in [(after(1), 1), (paused, 2), (at_head, 0)] {
            let network = network();
            let mut engine = engine(&network);
            engine.submit_to(get(path), finish);
            let mut log = Log::default();
            engine.run(&mut log).unwrap();
            assert_eq!(log.notes.len(), notes, "{path}: {:?}", log.notes);
            let [Ok(got)] = &log.replies[..] else {
                panic!("{path}: {:?}", log.replies);
            };
            assert_eq!((got.status, &*got.body), (200, &b""[..]));
            // There was more to come.
            assert_eq!(network.connections(), [], "{path}");
            assert!(network.elapsed() < Duration::from_millis(90), "{path}");
        }
    }
}

#[test]
fn a_response_without_a_body_keeps_its_connection() {
    let network = network();
    let mut engine = engine(&network);
    let mut log = Log::default();
    for _ in 0..2 {
        let at_head = Finish {
            at_head: true,
            pieces: 0,
            pauses: false,
        };
        engine.submit_to(get("/empty"), at_head);
        engine.run(&mut log).unwrap();
    }
    assert_eq!(log.texts(), ["", ""]);
    assert_eq!(engine.stats().opened, 1);
}

#[test]
fn a_body_that_is_decoded_ends_as_well() {
    for pauses in [false, true] {
        let network = network();
        let mut engine = engine(&network);
        let session = Session::builder().decode(Decode::all()).build().unwrap();
        let request = session.get("http://10.0.0.1/gzip").build().unwrap();
        let finish = Finish {
            at_head: false,
            pieces: 1,
            pauses,
        };
        engine.submit_to(request, finish);
        let mut log = Log::default();
        engine.run(&mut log).unwrap();
        assert!(log.notes[0].len() < 200_000);
        assert_eq!(log.notes.len(), 1 + usize::from(pauses));
        assert_eq!(log.texts(), [""]);
    }
}

#[test]
fn a_pipeline_goes_on_elsewhere() {
    let network = network();
    let mut engine = engine(&network);
    let finish = Finish {
        at_head: false,
        pieces: 1,
        pauses: false,
    };
    let pipelined = |path: &str| {
        let url = format!("http://10.0.0.1{path}");
        Request::get(url).pipeline(8).build().unwrap()
    };
    let mut log = Log::default();
    for _ in 0..5 {
        engine.submit(pipelined("/empty"), note);
        engine.submit_to(pipelined("/chunked"), finish);
        engine.submit(pipelined("/empty"), note);
        engine.run(&mut log).unwrap();
    }
    assert_eq!(log.replies.len(), 15);
    assert!(log.replies.iter().all(Result::is_ok), "{:?}", log.replies);
}

#[test]
fn lines_and_events_end_where_their_program_says() {
    let network = network();
    let mut engine = engine(&network);
    let line = |log: &mut Log, line: &[u8], _: &mut Context<'_, Log>| {
        log.notes.push(String::from_utf8_lossy(line).into_owned());
        if line == b"b" {
            Flow::Finish
        } else {
            Flow::Stream
        }
    };
    let event = |log: &mut Log, event: httpstream::events::Event<'_>, _: &mut Context<'_, Log>| {
        log.notes.push(event.data().to_owned());
        if event.data() == "b" {
            Flow::Finish
        } else {
            Flow::Stream
        }
    };
    engine.submit_to(get("/lines"), Lines::new(line).then(note));
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    assert_eq!(log.notes, ["a", "b"]);
    // It is not opened again.
    engine.submit_to(get("/events"), Events::new(event).then(note));
    engine.run(&mut log).unwrap();
    assert_eq!(log.notes, ["a", "b", "a", "b"]);
    assert_eq!(log.texts(), ["", ""]);
    assert_eq!(network.ledger().requests().count(), 2);
}
