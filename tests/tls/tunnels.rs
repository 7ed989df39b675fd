//! Connections whose protocol was switched by a 101, inside of TLS.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use httpstream::{BodySource, Context, Flow, Next, Readback, Reply, Response, Supply};

use crate::bodies::{assert_same, body_of};
use crate::common::{Gate, Log};
use crate::peer::{Pieces, VERSIONS, World};

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n";

/// Sends pieces one after another, each after the previous one was echoed.
struct Echo {
    pieces: Vec<Vec<u8>>,
    heard: Vec<u8>,
}

impl Echo {
    fn say(&self, cx: &mut Context<'_, Log>) -> Flow {
        match self.pieces.first() {
            Some(piece) => {
                assert!(cx.write(cx.id(), piece).is_some());
                Flow::Stream
            }
            None => Flow::Abort,
        }
    }
}

impl Readback<Log> for Echo {
    fn on_head(&mut self, _: &mut Log, head: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        assert_eq!(head.status().as_u16(), 101);
        self.say(cx)
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
        self.heard.extend_from_slice(data);
        if self.heard.len() < self.pieces[0].len() {
            return Flow::Stream;
        }
        let said = self.pieces.remove(0);
        assert_same(&std::mem::take(&mut self.heard), &said, "echo");
        log.notes.push(said.len().to_string());
        self.say(cx)
    }

    fn on_reply(&mut self, log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
        log.notes.push(format!("{:?}", reply.unwrap_err().kind()));
        Next::done()
    }
}

#[test]
fn bytes_go_both_ways_through_tls() {
    let sizes = [1, 5, 16 << 10, 70_000, 1 << 20];
    for version in VERSIONS {
        for pieces in [Pieces::Whole, Pieces::Bytes] {
            let sizes = match pieces {
                Pieces::Whole => &sizes[..],
                Pieces::Bytes => &sizes[..2],
            };
            let world = World::with(
                &[version],
                |_| (),
                pieces,
                |peer| {
                    if peer.request().is_none() {
                        return;
                    }
                    // Bytes that arrive with the head go to the readback.
                    if !peer.send(SWITCHED) {
                        return;
                    }
                    loop {
                        let said = peer.body(1);
                        if said.is_empty() || !peer.send(&said) {
                            return;
                        }
                        let rest = peer.unread_len();
                        let said = peer.body(rest);
                        if !peer.send(&said) {
                            return;
                        }
                    }
                },
            );
            let mut bench = world.bench();
            let request = world.at("/").header("Upgrade", "echo").build().unwrap();
            let echo = Echo {
                pieces: sizes.iter().map(|size| body_of(*size)).collect(),
                heard: Vec::new(),
            };
            bench.engine.submit_to(request, echo);
            bench.engine.run(&mut bench.log).unwrap();
            let mut expected: Vec<_> = sizes.iter().map(usize::to_string).collect();
            expected.push("Aborted".to_owned());
            assert_eq!(bench.log.notes, expected, "{pieces:?}");
            bench.assert_empty();
        }
    }
}

/// Sends without end until the flag is set, and then fails or panics.
struct Endless {
    fails: Arc<AtomicBool>,
    panics: bool,
}

impl BodySource for Endless {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
        if self.fails.load(Ordering::SeqCst) {
            assert!(!self.panics, "a source of a tunnel panics");
            return Err(io::Error::other("the source has failed"));
        }
        room.fill(b'x');
        Ok(Supply::Bytes(room.len()))
    }
}

struct FromSource(Option<Endless>);

impl Readback<Log> for FromSource {
    fn on_head(&mut self, _: &mut Log, _: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        let source = self.0.take().expect("there is one head");
        assert!(cx.write_from(cx.id(), source));
        Flow::Stream
    }

    fn on_reply(&mut self, log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
        log.notes.push(format!("{:#}", reply.unwrap_err()));
        Next::done()
    }
}

/// Encrypted bytes are waiting when the server sends something. What the engine has read then leads
/// to a write, in which the source fails.
#[test]
fn a_source_that_fails_while_the_link_is_read_ends_its_tunnel_only() {
    for version in VERSIONS {
        for panics in [false, true] {
            let fails = Arc::new(AtomicBool::new(false));
            let (blocked, over) = (Gate::new(), Gate::new());
            let (failing, at, end) = (Arc::clone(&fails), blocked.clone(), over.clone());
            let world = World::with(
                &[version],
                |_| (),
                Pieces::Whole,
                move |peer| {
                    if peer.request().is_none() || !peer.send(SWITCHED) {
                        return;
                    }
                    at.pass();
                    failing.store(true, Ordering::SeqCst);
                    peer.send(b"x");
                    // Nothing is read, so the socket stays full.
                    end.pass();
                },
            );
            let mut bench = world.bench();
            let request = world.at("/").header("Upgrade", "echo").build().unwrap();
            let source = Endless {
                fails: Arc::clone(&fails),
                panics,
            };
            bench.engine.submit_to(request, FromSource(Some(source)));
            let mut last = 0;
            bench.until("the socket is full", |engine, _| {
                let sent = engine.stats().bytes_out;
                std::mem::replace(&mut last, sent) == sent && sent > 100_000
            });
            blocked.open(1);
            while !fails.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let ran = catch_unwind(AssertUnwindSafe(|| bench.engine.run(&mut bench.log)));
            match panics {
                true => assert!(ran.is_err() && bench.log.notes.is_empty()),
                false => {
                    ran.unwrap().unwrap();
                    let notes = bench.log.notes.join("");
                    assert!(notes.contains("the source has failed"), "{notes}");
                }
            }
            over.open(1);
            bench.engine.run(&mut bench.log).unwrap();
            assert_eq!(bench.engine.stats().links_open, 0);
        }
    }
}
