//! `Readback::on_resume`: a readback delivers what it kept during a pause before more data comes.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use httpstream::session::{Decode, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Flow, Next, Readback, Reply, Request, Response, Sim, within_to,
};

const SECOND: Duration = Duration::from_secs(1);

/// What was called, and the second in which it was.
type Log = Vec<(u64, String)>;

/// Returns what its script says from each call with a name, and resumes a pause after a second.
struct Script {
    network: Network,
    flows: Vec<(&'static str, Flow)>,
    cancels: bool,
}

impl Script {
    fn new(network: &Network, flows: impl Into<Vec<(&'static str, Flow)>>) -> Self {
        Self {
            network: network.clone(),
            flows: flows.into(),
            cancels: false,
        }
    }

    fn call(&mut self, name: &str, log: &mut Log, cx: &mut Context<'_, Log>) -> Flow {
        log.push((self.network.elapsed().as_secs(), name.to_owned()));
        let flow = match self.flows.first() {
            Some((next, flow)) if *next == name => {
                let flow = *flow;
                self.flows.remove(0);
                flow
            }
            _ => Flow::Stream,
        };
        if flow == Flow::Pause {
            let id = cx.id();
            let resume = Next::<Log>::call(move |_, cx| {
                cx.resume(id);
                Next::done()
            });
            cx.start(resume.after(SECOND));
        }
        flow
    }
}

impl Readback<Log> for Script {
    fn on_head(&mut self, log: &mut Log, _: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        self.call("head", log, cx)
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
        self.call(&String::from_utf8_lossy(data), log, cx)
    }

    fn on_resume(&mut self, log: &mut Log, cx: &mut Context<'_, Log>) -> Flow {
        if self.cancels {
            cx.cancel(cx.id());
        }
        self.call("resume", log, cx)
    }

    fn on_reply(
        &mut self,
        log: &mut Log,
        reply: Reply<'_>,
        cx: &mut Context<'_, Log>,
    ) -> Next<Log> {
        let outcome = match reply {
            Ok(response) => response.status().as_str().to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        self.call(&outcome, log, cx);
        Next::done()
    }
}

fn serve(answer: impl Fn() -> Answer + 'static) -> Network {
    let network = Network::new(1);
    let server = move |_: &Incoming| answer();
    network.serve("10.0.0.1:80".parse().unwrap(), server);
    network
}

fn get() -> Request {
    let request = Request::get("http://10.0.0.1/").timeouts(|t| t.total = None);
    request.build().unwrap()
}

fn run(answer: impl Fn() -> Answer + 'static, flows: &[(&'static str, Flow)]) -> Vec<String> {
    let network = serve(answer);
    let mut engine = Engine::<Log, Sim>::on_network(&network, Config::default()).unwrap();
    engine.submit_to(get(), Script::new(&network, flows));
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    assert_eq!(engine.pending(), 0);
    let line = |(at, name)| format!("{at} {name}");
    log.into_iter().map(line).collect()
}

fn chunks() -> Answer {
    Answer::status(200).chunked(["a", "b", "c"])
}

#[test]
fn it_is_called_before_more_data() {
    assert_eq!(
        run(chunks, &[("a", Flow::Pause)]),
        ["0 head", "0 a", "1 resume", "1 b", "1 c", "1 200"]
    );
    let flows = [
        ("head", Flow::Pause),
        ("b", Flow::Pause),
        ("c", Flow::Pause),
    ];
    assert_eq!(
        run(chunks, &flows),
        [
            "0 head", "1 resume", "1 a", "1 b", "2 resume", "2 c", "3 resume", "3 200"
        ]
    );
    let closes = || Answer::status(200).until_close("a");
    assert_eq!(
        run(closes, &[("a", Flow::Pause)]),
        ["0 head", "0 a", "1 resume", "1 200"]
    );
    let whole = || Answer::ok("a");
    assert_eq!(
        run(whole, &[("a", Flow::Pause)]),
        ["0 head", "0 a", "1 resume", "1 200"]
    );
}

#[test]
fn it_may_pause_again() {
    let flows = [
        ("a", Flow::Pause),
        ("resume", Flow::Pause),
        ("resume", Flow::Pause),
    ];
    assert_eq!(
        run(chunks, &flows),
        [
            "0 head", "0 a", "1 resume", "2 resume", "3 resume", "3 b", "3 c", "3 200"
        ]
    );
    let flows = [("c", Flow::Pause), ("resume", Flow::Pause)];
    assert_eq!(
        run(chunks, &flows),
        [
            "0 head", "0 a", "0 b", "0 c", "1 resume", "2 resume", "2 200"
        ]
    );
}

#[test]
fn it_decides_what_happens_to_the_rest() {
    let flows = |last| [("a", Flow::Pause), ("resume", last)];
    assert_eq!(
        run(chunks, &flows(Flow::Abort)),
        ["0 head", "0 a", "1 resume", "1 Aborted"]
    );
    assert_eq!(
        run(chunks, &flows(Flow::Discard)),
        ["0 head", "0 a", "1 resume", "1 200"]
    );
    assert_eq!(
        run(chunks, &flows(Flow::Buffer)),
        ["0 head", "0 a", "1 resume", "1 b", "1 c", "1 200"]
    );
}

#[test]
fn the_idle_deadline_begins_with_it() {
    let stuck = || Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\na");
    let log = run(stuck, &[("a", Flow::Pause), ("resume", Flow::Pause)]);
    assert_eq!(log.last().unwrap(), "32 Timeout");
}

#[test]
fn it_is_not_called_without_a_pause_or_after_the_end() {
    assert_eq!(run(chunks, &[]), ["0 head", "0 a", "0 b", "0 c", "0 200"]);

    let network = serve(chunks);
    let mut engine = Engine::<Log, Sim>::on_network(&network, Config::default()).unwrap();
    let id = engine.submit_to(get(), Script::new(&network, [("a", Flow::Pause)]));
    engine.start(
        Next::call(move |_: &mut Log, cx: &mut Context<'_, Log>| {
            cx.resume(id);
            cx.cancel(id);
            Next::done()
        })
        .after(SECOND / 2),
    );
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    let names: Vec<_> = log.iter().map(|(_, name)| &name[..]).collect();
    assert_eq!(names, ["head", "a", "Cancelled"]);
}

#[test]
fn a_chain_may_cancel_itself_in_it() {
    let network = serve(chunks);
    let mut engine = Engine::<Log, Sim>::on_network(&network, Config::default()).unwrap();
    let mut script = Script::new(&network, [("a", Flow::Pause)]);
    script.cancels = true;
    engine.submit_to(get(), script);
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    let names: Vec<_> = log.iter().map(|(_, name)| &name[..]).collect();
    assert_eq!(names, ["head", "a", "resume", "Cancelled"]);
}

#[test]
fn a_panic_in_it_ends_the_chain() {
    struct Panics(Script);
    impl Readback<Log> for Panics {
        fn on_head(&mut self, log: &mut Log, _: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
            self.0.call("head", log, cx)
        }
        fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
            self.0.on_data(log, data, cx)
        }
        fn on_resume(&mut self, _: &mut Log, _: &mut Context<'_, Log>) -> Flow {
            panic!("on purpose")
        }
        fn on_reply(&mut self, _: &mut Log, _: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
            unreachable!("the chain has ended")
        }
    }
    let network = serve(chunks);
    let mut engine = Engine::<Log, Sim>::on_network(&network, Config::default()).unwrap();
    engine.submit_to(get(), Panics(Script::new(&network, [("a", Flow::Pause)])));
    let mut log = Log::new();
    let panic = catch_unwind(AssertUnwindSafe(|| engine.run(&mut log))).unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "on purpose");
    engine.run(&mut log).unwrap();
    assert_eq!(engine.pending(), 0);
    assert!(network.connections().iter().all(|it| !network.is_open(*it)));
}

#[test]
fn decoded_bytes_wait_for_it() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&[b'x'; 200_000]).unwrap();
    let zipped = encoder.finish().unwrap();
    let network = serve(move || Answer::ok(zipped.clone()).header("Content-Encoding", "gzip"));
    /// Pauses after each piece.
    struct Pieces {
        script: Script,
        is_paused: bool,
        bytes: usize,
    }
    impl Readback<Log> for Pieces {
        fn on_head(&mut self, _: &mut Log, _: &Response<'_>, _: &mut Context<'_, Log>) -> Flow {
            Flow::Stream
        }
        fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
            assert!(
                !std::mem::replace(&mut self.is_paused, true),
                "during a pause"
            );
            self.bytes += data.len();
            self.script.flows = vec![("data", Flow::Pause)];
            self.script.call("data", log, cx)
        }
        fn on_resume(&mut self, _: &mut Log, _: &mut Context<'_, Log>) -> Flow {
            assert!(std::mem::take(&mut self.is_paused), "without a pause");
            Flow::Stream
        }
        fn on_reply(
            &mut self,
            log: &mut Log,
            reply: Reply<'_>,
            _: &mut Context<'_, Log>,
        ) -> Next<Log> {
            assert!(!self.is_paused);
            assert_eq!(reply.unwrap().status(), 200);
            log.push((0, self.bytes.to_string()));
            Next::done()
        }
    }
    let mut engine = Engine::<Log, Sim>::on_network(&network, Config::default()).unwrap();
    let session = Session::builder().decode(Decode::all()).build().unwrap();
    let request = get().edit().session(&session).build().unwrap();
    let script = Script::new(&network, []);
    engine.submit_to(
        request,
        Pieces {
            script,
            is_paused: false,
            bytes: 0,
        },
    );
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    assert_eq!(log.pop().unwrap().1, "200000");
    assert!(log.len() > 3, "{log:?}");
}

#[test]
fn a_part_of_the_state_gets_it() {
    let network = serve(chunks);
    let mut engine = Engine::<Vec<Log>, Sim>::on_network(&network, Config::default()).unwrap();
    let script = Script::new(&network, [("a", Flow::Pause), ("resume", Flow::Pause)]);
    engine.submit_to(
        get(),
        within_to(|logs: &mut Vec<Log>| logs.get_mut(0), script),
    );
    // The part of this one is gone when it is resumed.
    let script = Script::new(&network, [("a", Flow::Pause)]);
    engine.submit_to(
        get(),
        within_to(|logs: &mut Vec<Log>| logs.get_mut(1), script),
    );
    let mut logs = vec![Log::new(), Log::new()];
    engine.advance(&mut logs, SECOND / 2).unwrap();
    assert_eq!(logs.pop().unwrap().len(), 2);
    engine.run(&mut logs).unwrap();
    let names: Vec<_> = logs[0]
        .iter()
        .map(|(at, name)| format!("{at} {name}"))
        .collect();
    assert_eq!(
        names,
        [
            "0 head", "0 a", "1 resume", "2 resume", "2 b", "2 c", "2 200"
        ]
    );
}
