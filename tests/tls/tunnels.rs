//! Connections whose protocol was switched by a 101, inside of TLS.

use httpstream::{Context, Flow, Next, Readback, Reply, Response};

use crate::bodies::{assert_same, body_of};
use crate::common::Log;
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
