//! Chains run without help from their host: the same request again, another one, after a delay,
//! with another readback, concurrently with others.

use crate::common;

use std::time::{Duration, Instant};

use common::{Bench, Log, Script, Server, note, ok};
use httpstream::{
    Context, Engine, Flow, Next, Readback, Reply, Request, Response, within, within_to,
};

fn echoing() -> Server {
    Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    })
}

#[test]
fn again_sends_the_same_request_to_the_same_readback() {
    let server = echoing();
    let mut bench = Bench::new();
    let id = bench.engine.submit(
        server.post("/a", "body"),
        |log: &mut Log, reply: Reply<'_>, cx| {
            log.notes.push(cx.id().to_u64().to_string());
            let _ = note(log, reply, cx);
            if log.replies.len() < 4 {
                Next::again()
            } else {
                Next::done()
            }
        },
    );
    bench.replies(4);
    assert_eq!(bench.log.texts(), ["/a"; 4]);
    assert_eq!(
        bench.log.notes,
        [
            id.to_u64().to_string(),
            id.to_u64().to_string(),
            id.to_u64().to_string(),
            id.to_u64().to_string()
        ]
    );
    assert!(
        server
            .so_far()
            .iter()
            .all(|seen| seen.body == b"body" && seen.connection == 0)
    );
    assert_eq!((bench.stats().submitted, bench.stats().answered), (1, 4));
    bench.assert_empty();
}

#[test]
fn send_changes_the_request_and_again_repeats_the_last_one() {
    let server = echoing();
    let mut bench = Bench::new();
    let next = server.get("/next");
    bench.engine.submit(
        server.get("/first"),
        move |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = note(log, reply, cx);
            match log.replies.len() {
                1 => cx.send(next.clone()),
                2 => cx.again(),
                _ => cx.done(),
            }
        },
    );
    bench.replies(3);
    assert_eq!(bench.log.texts(), ["/first", "/next", "/next"]);
    bench.assert_empty();
}

#[test]
fn a_chain_goes_from_origin_to_origin() {
    let (one, two) = (echoing(), Server::answering(ok("two")));
    let mut bench = Bench::new();
    let (to_one, to_two) = (one.get("/one"), two.get("/"));
    bench.engine.submit(
        one.get("/one"),
        move |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = note(log, reply, cx);
            match log.replies.len() {
                6.. => cx.done(),
                n if n % 2 == 1 => cx.send(to_two.clone()),
                _ => cx.send(to_one.clone()),
            }
        },
    );
    bench.replies(6);
    assert_eq!(
        bench.log.texts(),
        ["/one", "two", "/one", "two", "/one", "two"]
    );
    assert_eq!(bench.stats().opened, 2);
    bench.assert_empty();
}

#[test]
fn after_waits_and_delays_add_up() {
    let server = echoing();
    let mut bench = Bench::new();
    let started = Instant::now();
    bench
        .engine
        .submit(server.get("/a"), |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = note(log, reply, cx);
            match log.replies.len() {
                1 => cx
                    .again()
                    .after(Duration::from_millis(30))
                    .after(Duration::from_millis(30)),
                _ => cx.done().after(Duration::from_secs(100)),
            }
        });
    bench.until("it is delayed", |engine, _| engine.stats().delayed == 1);
    assert_eq!((bench.engine.pending(), bench.stats().in_flight), (1, 0));
    bench.replies(2);
    assert!(started.elapsed() >= Duration::from_millis(60));
    bench.assert_empty();
}

#[test]
fn never_is_never_and_can_be_cancelled() {
    let server = echoing();
    let mut bench = Bench::new();
    let id = bench
        .engine
        .submit(server.get("/a"), |log: &mut Log, reply: Reply<'_>, cx| {
            let _ = note(log, reply, cx);
            cx.again().after(Duration::MAX).after(Duration::MAX)
        });
    bench.until("it is delayed", |engine, _| engine.stats().delayed == 1);
    bench.engine.close_idle();
    bench.quiet();
    assert_eq!(
        (bench.engine.pending(), bench.engine.next_deadline()),
        (1, None)
    );
    assert!(bench.engine.cancel(id));
    bench.replies(2);
    bench.assert_empty();
}

#[test]
fn read_by_and_read_to_change_the_readback_for_good() {
    let server = echoing();
    let mut bench = Bench::new();
    let next = server.get("/next");
    bench.engine.submit(
        server.get("/first"),
        move |_: &mut Log, _: Reply<'_>, cx| {
            let last = next.clone();
            cx.send(next.clone()).read_by(move |log, reply, cx| {
                let _ = note(log, reply, cx);
                match log.replies.len() {
                    1 => cx.again(),
                    _ => cx.send(last.clone()).read_to(Script {
                        head: Flow::Stream,
                        ..Script::default()
                    }),
                }
            })
        },
    );
    bench.replies(3);
    assert_eq!(bench.log.texts(), ["/next", "/next", ""]);
    assert_eq!(bench.log.notes, ["head 200", "data /next"]);
    bench.assert_empty();
}

#[test]
fn a_readback_starts_other_chains() {
    let server = echoing();
    let mut bench = Bench::new();
    let (now, later) = (server.get("/now"), server.get("/later"));
    let started = Instant::now();
    bench.engine.submit(
        server.get("/first"),
        move |log: &mut Log, reply: Reply<'_>, cx| {
            let ids = [
                cx.submit(now.clone(), note),
                cx.submit_to(now.clone(), Script::default()),
                cx.start(
                    cx.send(later.clone())
                        .after(Duration::from_millis(40))
                        .read_by(note),
                ),
                cx.id(),
            ];
            assert!(ids.iter().enumerate().all(|(i, id)| !ids[..i].contains(id)));
            note(log, reply, cx)
        },
    );
    bench.replies(4);
    assert!(started.elapsed() >= Duration::from_millis(40));
    assert_eq!(bench.log.texts().last().unwrap(), "/later");
    assert_eq!(bench.stats().submitted, 4);
    bench.assert_empty();
}

#[test]
fn a_failure_may_be_followed_by_another_try() {
    let server = Server::start(|peer| {
        peer.request();
        if peer.number == 2 {
            peer.send(&ok("at last"));
        }
    });
    let mut bench = Bench::new();
    bench
        .engine
        .submit(server.get("/"), |log: &mut Log, reply: Reply<'_>, cx| {
            let failed = reply.is_err();
            let _ = note(log, reply, cx);
            match failed {
                true => cx.again().after(Duration::from_millis(5)),
                false => cx.done(),
            }
        });
    bench.replies(3);
    assert_eq!(
        bench.log.texts(),
        ["ClosedBeforeResponse", "ClosedBeforeResponse", "at last"]
    );
    bench.assert_empty();
}

#[test]
fn run_ends_with_the_last_chain() {
    let server = echoing();
    let mut engine = Engine::<Log>::new().unwrap();
    let mut log = Log::default();
    for i in 0..20 {
        engine.start(
            engine
                .send(server.get("/"))
                .after(Duration::from_millis(i))
                .read_by(note),
        );
    }
    engine.run(&mut log).unwrap();
    assert_eq!((log.replies.len(), engine.pending()), (20, 0));
}

/// A bot that is unaware of other bots.
#[derive(Default)]
struct Bot {
    seen: Vec<String>,
    next: Option<Request>,
}

impl Bot {
    fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.see(reply);
        let side = self.next.clone().unwrap();
        cx.submit(side.clone(), Self::on_side);
        cx.start(
            cx.send(side.clone())
                .after(Duration::from_millis(1))
                .read_by(Self::on_side),
        );
        cx.send(side).read_by(Self::on_poll)
    }

    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.see(reply);
        if self.seen.len() < 6 {
            cx.again()
        } else {
            cx.done()
        }
    }

    fn on_side(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        self.see(reply);
        Next::done()
    }

    fn see(&mut self, reply: Reply<'_>) {
        self.seen.push(reply.unwrap().text().unwrap().to_owned());
    }
}

impl Readback<Bot> for Script {
    fn on_head(&mut self, bot: &mut Bot, _: &Response<'_>, _: &mut Context<'_, Bot>) -> Flow {
        bot.seen.push("head".into());
        self.head
    }

    fn on_data(&mut self, bot: &mut Bot, _: &[u8], _: &mut Context<'_, Bot>) -> Flow {
        bot.seen.push("data".into());
        self.data.pop_front().unwrap_or(Flow::Stream)
    }

    fn on_reply(&mut self, bot: &mut Bot, reply: Reply<'_>, _: &mut Context<'_, Bot>) -> Next<Bot> {
        bot.seen.push(format!("{}", reply.is_ok()));
        Next::done()
    }
}

struct World {
    bots: Vec<Bot>,
}

#[test]
fn each_bot_in_a_world_sees_its_own_responses() {
    let server = echoing();
    let mut world = World { bots: Vec::new() };
    let mut engine = Engine::<World>::new().unwrap();
    for i in 0..20 {
        let next = Some(server.get(&format!("/{i}")));
        world.bots.push(Bot {
            next,
            ..Bot::default()
        });
        engine.submit_to(
            server.get(&format!("/{i}")),
            within(move |w: &mut World| w.bots.get_mut(i), Bot::on_login),
        );
    }
    engine.run(&mut world).unwrap();
    for (i, bot) in world.bots.iter().enumerate() {
        assert!(
            bot.seen.len() >= 6 && bot.seen.iter().all(|path| *path == format!("/{i}")),
            "{:?}",
            bot.seen
        );
    }
}

#[test]
fn a_part_that_is_gone_ends_its_chains_wherever_they_are() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        peer.hold();
    });
    // Ends before the head.
    let mut engine = Engine::<World>::new().unwrap();
    let mut world = World { bots: Vec::new() };
    let script = Script::default();
    engine.submit_to(
        server.get("/"),
        within_to(|w: &mut World| w.bots.first_mut(), script),
    );
    engine.run(&mut world).unwrap();
    assert_eq!(engine.stats().failed, 1, "aborted at its head");
    assert_eq!(engine.stats().links_open, 0);

    // Ends between the head and the rest of the body.
    world.bots.push(Bot::default());
    let script = Script {
        head: Flow::Pause,
        ..Script::default()
    };
    let id = engine.submit_to(
        server.get("/"),
        within_to(|w: &mut World| w.bots.first_mut(), script),
    );
    while engine.stats().paused == 0 {
        engine
            .turn(&mut world, Some(Duration::from_millis(20)))
            .unwrap();
    }
    let bot = world.bots.pop().unwrap();
    engine.resume(id);
    engine.run(&mut world).unwrap();
    assert_eq!(bot.seen, ["head"]);
    assert_eq!(
        (
            engine.stats().failed,
            engine.stats().links_open,
            engine.pending()
        ),
        (2, 0, 0)
    );
}

#[test]
fn a_part_may_come_back_while_its_chain_is_delayed() {
    let server = echoing();
    let mut engine = Engine::<World>::new().unwrap();
    let mut world = World {
        bots: vec![Bot::default()],
    };
    let readback = within(
        |w: &mut World| w.bots.first_mut(),
        |bot: &mut Bot, reply: Reply<'_>, cx: &mut Context<'_, Bot>| {
            bot.see(reply);
            if bot.seen.len() < 2 {
                cx.again().after(Duration::from_millis(20))
            } else {
                cx.done()
            }
        },
    );
    engine.submit_to(server.get("/a"), readback);
    while engine.stats().delayed == 0 {
        engine
            .turn(&mut world, Some(Duration::from_millis(20)))
            .unwrap();
    }
    let bot = world.bots.pop().unwrap();
    world.bots.push(bot);
    engine.run(&mut world).unwrap();
    assert_eq!(world.bots[0].seen, ["/a", "/a"]);
}
