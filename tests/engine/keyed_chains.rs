//! Keys of chains (`Next::key`): a delayed step with a key replaces the one before it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use httpstream::policy::{Start, Visit};
use httpstream::session::Session;
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, Moment, Next, Readback, Reply, Request, Sim, within,
    within_call,
};

const SECOND: Duration = Duration::from_secs(1);

/// What happened, and when.
struct Log {
    base: Instant,
    told: Vec<(Duration, String)>,
}

impl Log {
    fn note(&mut self, what: impl Into<String>, cx: &Context<'_, Self>) {
        self.told.push((cx.now() - self.base, what.into()));
    }

    /// Takes what has happened, in whole seconds.
    fn take(&mut self) -> Vec<(u64, String)> {
        let told = std::mem::take(&mut self.told);
        let whole = |at: Duration| {
            assert_eq!(at.subsec_nanos(), 0, "{told:?}");
            at.as_secs()
        };
        told.iter()
            .map(|(at, what)| (whole(*at), what.clone()))
            .collect()
    }

    /// Takes what has happened, without the times.
    fn texts(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.told);
        told.into_iter().map(|(_, what)| what).collect()
    }
}

struct Lab {
    network: Network,
    engine: Engine<Log, Sim>,
    log: Log,
}

impl Lab {
    /// A network without latency, whose server answers after 30 s at `/slow` and at once elsewhere.
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let network = Network::new(1);
        network.set_latency(Duration::ZERO);
        let server = |seen: &Incoming| match seen.path() {
            "/slow" => Answer::ok("slow").after(30 * SECOND),
            path => Answer::ok(path.to_owned()),
        };
        network.serve("10.0.0.1:80".parse().unwrap(), server);
        let engine = Engine::on_network(&network, config).unwrap();
        let base = network.now();
        let told = Vec::new();
        let log = Log { base, told };
        Self {
            network,
            engine,
            log,
        }
    }

    fn advance(&mut self, seconds: u32) {
        let time = seconds * SECOND;
        self.engine.advance(&mut self.log, time).unwrap();
    }

    fn run(&mut self) {
        self.engine.run(&mut self.log).unwrap();
        assert_eq!(self.engine.pending(), 0);
    }
}

fn get(path: &str) -> Request {
    Request::get(format!("http://10.0.0.1{path}"))
        .build()
        .unwrap()
}

/// A call that notes `what`.
fn call(what: &'static str) -> Next<Log> {
    Next::call(move |log: &mut Log, cx: &mut Context<'_, Log>| {
        log.note(what, cx);
        Next::done()
    })
}

/// A readback that notes what it gets, and would go on forever.
fn obstinate(log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>) -> Next<Log> {
    log.note(outcome(reply), cx);
    Next::again().after(SECOND).key("again")
}

fn note(log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>) -> Next<Log> {
    log.note(outcome(reply), cx);
    Next::done()
}

fn outcome(reply: Reply<'_>) -> String {
    match reply {
        Ok(response) => response.text().unwrap().to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn told(of: &[(u64, &str)]) -> Vec<(u64, String)> {
    of.iter().map(|(at, what)| (*at, (*what).into())).collect()
}

#[test]
fn of_calls_started_again_and_again_the_last_one_is_made() {
    let mut lab = Lab::new();
    for what in ["first", "second", "third"] {
        lab.engine
            .start(call(what).after(10 * SECOND).key("refresh"));
        lab.advance(3);
        assert_eq!(lab.engine.pending(), 1);
    }
    // From inside a readback as well.
    lab.engine.call(|_, cx| {
        cx.start(call("fourth").after(10 * SECOND).key("refresh"));
        cx.start(call("fifth").after(10 * SECOND).key("refresh"));
        Next::done()
    });
    lab.run();
    assert_eq!(lab.log.take(), told(&[(19, "fifth")]));
    // The key is free again, for a step that nothing replaces.
    lab.engine
        .start(call("sixth").after(10 * SECOND).key("refresh"));
    lab.run();
    assert_eq!(lab.log.take(), told(&[(29, "sixth")]));
}

#[test]
fn a_replaced_request_hears_of_its_cancellation_once() {
    let mut lab = Lab::new();
    let delayed = |path: &str, after: u32| {
        let request = Next::send(get(path)).after(after * SECOND);
        request.key("k").read_by(obstinate)
    };
    lab.engine.start(delayed("/first", 10));
    lab.advance(9);
    let second = lab.engine.start(delayed("/second", 5));
    lab.advance(1);
    assert_eq!(lab.log.take(), told(&[(9, "Cancelled")]));
    assert_eq!(lab.engine.pending(), 1);
    // The former holder is gone: this one is canceled by its own id only.
    assert!(lab.engine.cancel(second));
    lab.run();
    assert_eq!(lab.log.take(), told(&[(10, "Cancelled")]));
    assert_eq!(lab.network.ledger().requests().len(), 0);
}

#[test]
fn waits_and_calls_replace_requests_and_the_reverse() {
    struct Due(&'static str);

    impl Readback<Log> for Due {
        fn on_due(&mut self, log: &mut Log, cx: &mut Context<'_, Log>) -> Next<Log> {
            log.note(self.0, cx);
            Next::done()
        }

        fn on_reply(
            &mut self,
            log: &mut Log,
            reply: Reply<'_>,
            cx: &mut Context<'_, Log>,
        ) -> Next<Log> {
            log.note(format!("{} {}", self.0, outcome(reply)), cx);
            Next::done()
        }
    }

    let mut lab = Lab::new();
    lab.engine
        .start(Next::wait().read_to(Due("a")).after(SECOND).key("k"));
    lab.engine
        .start(Next::send(get("/b")).read_by(note).after(SECOND).key("k"));
    lab.engine.start(call("c").after(SECOND).key("k"));
    lab.engine
        .start(Next::wait().read_to(Due("d")).after(SECOND).key("k"));
    lab.run();
    let expected = told(&[(0, "a Cancelled"), (0, "Cancelled"), (1, "d")]);
    assert_eq!(lab.log.take(), expected);
}

#[test]
fn a_request_that_is_under_way_is_not_replaced() {
    /// Holds each request back for ten seconds.
    #[derive(Clone, Default)]
    struct Late {
        is_over: bool,
    }

    impl Visit for Late {
        fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
            match std::mem::replace(&mut self.is_over, true) {
                false => Ok(Start::After(10 * SECOND)),
                true => Ok(Start::Now),
            }
        }
    }

    let mut config = Config::default();
    config.max_connections_per_origin = 1;
    let mut lab = Lab::with(config);
    let start = |lab: &mut Lab, request: Request| {
        let request = Next::send(request).after(SECOND).key("k");
        lab.engine.start(request.read_by(note));
        lab.advance(1);
    };
    // In flight, in the queue, and held back; each under way when the next one takes the key.
    start(&mut lab, get("/slow"));
    start(&mut lab, get("/queued"));
    let held_back = get("/held").edit().policy(Arc::new(Late::default()));
    start(&mut lab, held_back.build().unwrap());
    start(&mut lab, get("/last"));
    let stats = lab.engine.stats();
    assert_eq!((stats.in_flight, stats.queued, stats.delayed), (1, 3, 0));
    assert!(!lab.engine.cancel_key("k"), "nothing is delayed");
    lab.run();
    let expected = [(31, "slow"), (31, "/queued"), (31, "/last"), (31, "/held")];
    assert_eq!(lab.log.take(), told(&expected));
}

#[test]
fn a_request_without_a_delay_replaces_and_is_not_replaced() {
    let mut lab = Lab::new();
    let later = |what| call(what).after(100 * SECOND).key("k");
    lab.engine.start(later("first"));
    lab.engine.call(move |_, cx| {
        cx.start(later("second"));
        // Returned: it begins before anything else can take the key.
        Next::send(get("/slow")).key("k").read_by(note)
    });
    lab.advance(1);
    assert_eq!(lab.engine.stats().delayed, 0);
    lab.engine.start(later("third"));
    lab.advance(1);
    assert_eq!(lab.engine.pending(), 2);
    lab.run();
    let expected = told(&[(30, "slow"), (101, "third")]);
    assert_eq!(lab.log.take(), expected);
}

#[test]
fn a_call_is_replaced_until_it_runs_and_not_while_it_runs() {
    let mut lab = Lab::new();
    lab.engine.call(|_, cx| {
        // All of them are due at once.
        for what in ["first", "second", "third"] {
            cx.start(call(what).key("k"));
        }
        Next::done()
    });
    lab.run();
    assert_eq!(lab.log.take(), told(&[(0, "third")]));
    // The holder replaces itself from inside, and goes on: its step has begun.
    let running = Next::call(|log: &mut Log, cx: &mut Context<'_, Log>| {
        assert!(!cx.cancel_key("k"), "a running call holds no key");
        cx.start(call("successor").after(5 * SECOND).key("k"));
        log.note("runs", cx);
        Next::send(get("/on")).read_by(note)
    });
    lab.engine.start(running.key("k"));
    lab.run();
    let expected = told(&[(0, "runs"), (0, "/on"), (5, "successor")]);
    assert_eq!(lab.log.take(), expected);
}

#[test]
fn a_due_call_is_replaced_by_a_call_that_is_made_before_it() {
    let mut lab = Lab::new();
    // Both are due in the same turn, in this order.
    let early = Next::call(|_: &mut Log, cx: &mut Context<'_, Log>| {
        cx.start(call("new").key("k"));
        Next::done()
    });
    lab.engine.start(early.after(SECOND));
    lab.engine.start(call("old").after(SECOND).key("k"));
    lab.run();
    assert_eq!(lab.log.take(), told(&[(1, "new")]));
}

#[test]
fn a_chain_that_takes_its_own_key_again_goes_on() {
    struct Heart;

    impl Heart {
        fn beat(log: &mut Log, reply: Reply<'_>, cx: &mut Context<'_, Log>) -> Next<Log> {
            log.note(outcome(reply), cx);
            Next::again().after(10 * SECOND).key("heart")
        }
    }

    let mut lab = Lab::new();
    let beat = || Next::send(get("/beat")).read_by(Heart::beat);
    lab.engine.start(beat().key("heart"));
    lab.advance(35);
    let expected = [(0, "/beat"), (10, "/beat"), (20, "/beat"), (30, "/beat")];
    assert_eq!(lab.log.take(), told(&expected));
    // Another one takes its place in the middle of a delay.
    lab.engine.start(beat().key("heart"));
    lab.advance(25);
    let expected = [
        (35, "/beat"),
        (35, "Cancelled"),
        (45, "/beat"),
        (55, "/beat"),
    ];
    let mut seen = lab.log.take();
    seen.sort();
    assert_eq!(seen, told(&expected));
    assert!(lab.engine.cancel_key("heart"));
    lab.run();
    assert_eq!(lab.log.take(), told(&[(60, "Cancelled")]));
}

#[test]
fn what_a_readback_returns_replaces_what_it_has_started() {
    let mut lab = Lab::new();
    lab.engine.submit(get("/"), |_, _, cx| {
        cx.start(call("started").after(SECOND).key("k"));
        call("returned").after(2 * SECOND).key("k")
    });
    lab.run();
    assert_eq!(lab.log.take(), told(&[(2, "returned")]));
}

#[test]
fn the_last_name_counts_and_names_are_apart() {
    let mut lab = Lab::new();
    let name = String::from("b");
    lab.engine.start(call("a").after(SECOND).key("a"));
    lab.engine.start(call("b").key("a").after(SECOND).key(name));
    lab.engine.start(call("none").after(SECOND).key(""));
    lab.engine.start(call("B").after(SECOND).key("B"));
    lab.run();
    let expected = [(1, "a"), (1, "b"), (1, "none"), (1, "B")];
    assert_eq!(lab.log.take(), told(&expected));
}

#[test]
fn what_starts_nothing_takes_no_key() {
    let mut lab = Lab::new();
    lab.engine.start(call("stays").after(SECOND).key("k"));
    lab.engine.start(Next::done().key("k"));
    lab.engine.start(Next::again().key("k"));
    assert!(Next::<()>::done().key("k").is_done());
    // A chain that has sent nothing cannot send again, and one that ends holds nothing.
    lab.engine.call(|_, _| Next::again().after(SECOND).key("k"));
    lab.engine.submit(get("/"), |_, _, cx| cx.done().key("k"));
    lab.run();
    assert_eq!(lab.log.take(), told(&[(1, "stays")]));
}

#[test]
fn cancel_key_tells_whether_there_was_something_to_cancel() {
    let mut lab = Lab::new();
    assert!(!lab.engine.cancel_key("k"));
    lab.engine.start(
        Next::send(get("/"))
            .after(SECOND)
            .key("k")
            .read_by(obstinate),
    );
    assert!(!lab.engine.cancel_key("K"));
    assert!(lab.engine.cancel_key("k"));
    assert!(
        lab.engine.next_timeout().unwrap().is_zero(),
        "a turn is due"
    );
    assert!(!lab.engine.cancel_key("k"), "it was canceled before");
    lab.engine.call(|_, cx| {
        assert!(!cx.cancel_key("k"));
        cx.start(call("never").after(SECOND).key("k"));
        assert!(cx.cancel_key("k") && !cx.cancel_key("k"));
        Next::done()
    });
    lab.run();
    assert_eq!(lab.log.take(), told(&[(0, "Cancelled")]));
    // A holder that was canceled by its id holds nothing, for a successor or for `cancel_key`.
    let id = lab.engine.start(call("never").after(SECOND).key("k"));
    assert!(lab.engine.cancel(id) && !lab.engine.cancel_key("k"));
    lab.engine.start(call("k").after(SECOND).key("k"));
    lab.run();
    assert_eq!(lab.log.take(), told(&[(1, "k")]));
}

#[test]
fn parts_of_the_state_share_the_keys_of_the_engine() {
    #[derive(Default)]
    struct Bot {
        number: usize,
        saved: Vec<&'static str>,
    }

    impl Bot {
        fn on_change(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
            // One key for both bots, and one for each.
            cx.start(Next::call(Self::save_shared).after(SECOND).key("save"));
            let own = Next::call(Self::save_own).after(SECOND);
            own.key(format!("save {}", self.number))
        }

        fn save_shared(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
            self.saved.push("shared");
            assert!(cx.cancel_key("of the whole") && !cx.cancel_key("of the whole"));
            Next::done()
        }

        fn save_own(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
            self.saved.push("own");
            Next::done()
        }
    }

    fn first(bots: &mut [Bot; 2]) -> Option<&mut Bot> {
        bots.first_mut()
    }

    fn last(bots: &mut [Bot; 2]) -> Option<&mut Bot> {
        bots.last_mut()
    }

    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("")
    });
    let mut engine = Engine::<[Bot; 2], Sim>::on_network(&network, Config::default()).unwrap();
    let mut bots = [0, 1].map(|number| Bot {
        number,
        saved: Vec::new(),
    });
    for part in [first, last, first, last] {
        engine.submit_to(get("/"), within(part, Bot::on_change));
    }
    let never = within_call(first, |_: &mut Bot, _| panic!("a part has canceled it"));
    engine.start(Next::call(never).after(10 * SECOND).key("of the whole"));
    engine.run(&mut bots).unwrap();
    let mut saved = bots.map(|bot| bot.saved);
    saved.iter_mut().for_each(|saved| saved.sort());
    assert_eq!(saved, [vec!["own"], vec!["own", "shared"]]);
}

#[test]
fn a_task_is_replaced_before_it_is_first_polled() {
    let mut lab = Lab::new();
    let http = lab.engine.local();
    let polled = Rc::new(Cell::new(0));
    let task = |number: u32| {
        let (http, polled) = (http.clone(), polled.clone());
        Next::task(async move {
            polled.set(polled.get() + number);
            http.sleep(10 * SECOND).await;
            http.with(move |log, cx| log.note(format!("task {number}"), cx))
                .await
                .unwrap();
        })
    };
    lab.engine.start(task(1).after(SECOND).key("task"));
    lab.engine.start(task(2).after(SECOND).key("task"));
    lab.advance(2);
    assert_eq!(polled.get(), 2);
    // It is running now, and has given its key up.
    assert!(!lab.engine.cancel_key("task"));
    lab.engine.start(task(4).after(SECOND).key("task"));
    lab.run();
    assert_eq!(polled.get(), 6);
    assert_eq!(lab.log.take(), told(&[(11, "task 2"), (13, "task 4")]));
}

#[test]
fn tasks_start_and_cancel_through_a_local_in_their_order() {
    let mut lab = Lab::new();
    let http = lab.engine.local();
    let start = |http: &httpstream::Local<Log>, what| {
        http.start(call(what).after(SECOND).key("k"));
    };
    // Between turns: the cancellation is for what was started before it.
    start(&http, "first");
    http.cancel_key("k");
    start(&http, "second");
    lab.run();
    assert_eq!(lab.log.take(), told(&[(1, "second")]));
    // In a task.
    let task = http.clone();
    http.spawn(async move {
        start(&task, "third");
        start(&task, "fourth");
        task.sleep(SECOND / 2).await;
        task.cancel_key("k");
        task.cancel_key("k");
        task.sleep(SECOND / 2).await;
        start(&task, "fifth");
    });
    lab.run();
    assert_eq!(lab.log.take(), told(&[(3, "fifth")]));
    drop(lab.engine);
    http.cancel_key("k");
}

#[test]
fn threads_replace_each_others_steps_by_calls() {
    let mut lab = Lab::new();
    let submitter = lab.engine.submitter();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let submitter = submitter.clone();
            thread::spawn(move || {
                let refresh = move |log: &mut Log, cx: &mut Context<'_, Log>| {
                    log.note("refresh", cx);
                    Next::done()
                };
                let take = move |_: &mut Log, _: &mut Context<'_, Log>| {
                    Next::call(refresh).after(10 * SECOND).key("refresh")
                };
                submitter.call_after(number * SECOND, take).map_err(drop)
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    drop(submitter);
    lab.advance(8);
    assert_eq!(lab.engine.pending(), 1);
    lab.run();
    assert_eq!(lab.log.take(), told(&[(17, "refresh")]));
}

#[test]
fn a_drain_and_the_end_of_a_session_free_the_key() {
    let mut lab = Lab::new();
    let delayed = |path: &str| Next::send(get(path)).after(100 * SECOND).key("k");
    lab.engine.start(delayed("/a").read_by(note));
    // It returns a step with the key during the drain, which is dropped.
    lab.engine.submit(get("/slow"), |log, reply, cx| {
        log.note(outcome(reply), cx);
        cx.again().after(SECOND).key("k")
    });
    lab.advance(1);
    let cancelled = lab.engine.drain(&mut lab.log, 100 * SECOND).unwrap();
    assert_eq!((cancelled, lab.engine.pending()), (1, 0));
    assert_eq!(lab.log.take(), told(&[(1, "Cancelled"), (30, "slow")]));
    assert!(!lab.engine.cancel_key("k"));

    let session = Session::new();
    let login = session.get("http://10.0.0.1/").build().unwrap();
    let poll = Next::send(login).after(100 * SECOND).key("k");
    lab.engine.start(poll.read_by(note));
    let call = call("never").after(100 * SECOND).key("other");
    lab.engine.start(call.session(&session));
    lab.advance(1);
    lab.engine.end(&session);
    lab.advance(1);
    assert_eq!(lab.log.take(), told(&[(31, "Cancelled")]));
    assert!(!lab.engine.cancel_key("k") && !lab.engine.cancel_key("other"));
    lab.engine.start(delayed("/b").read_by(note));
    lab.run();
    assert_eq!(lab.log.take(), told(&[(132, "/b")]));
}

#[test]
fn a_panic_leaves_the_key_free() {
    let mut lab = Lab::new();
    let panics = Next::call(|_: &mut Log, cx: &mut Context<'_, Log>| -> Next<Log> {
        cx.start(call("successor").after(SECOND).key("k"));
        panic!("on purpose");
    });
    lab.engine.start(panics.after(SECOND).key("k"));
    let Lab { engine, log, .. } = &mut lab;
    let run = catch_unwind(AssertUnwindSafe(|| engine.run(log)));
    assert!(run.is_err());
    lab.advance(0);
    assert!(lab.engine.cancel_key("k"), "held by the successor only");
    lab.run();
    assert!(lab.log.texts().is_empty());
}
