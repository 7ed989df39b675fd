//! Connections whose protocol was switched by a 101 (RFC 9110 §7.8, §15.2.2).

use crate::common;

use std::io::{Read, Write};
use std::time::Duration;

use common::{Bench, Log, Peer, Server, note, ok};
use httpstream::{
    Context, Error, ErrorKind, Flow, Next, Readback, Reply, Request, RequestBuilder, Response,
    Violation,
};

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n";

/// Sends back what it reads in reverse, line by line, until the end.
fn reverse(peer: &mut Peer) {
    let mut line = peer.unread().to_vec();
    let mut stream = peer.stream();
    let mut buf = [0; 4096];
    loop {
        while let Some(end) = line.iter().position(|&b| b == b'\n') {
            let mut said: Vec<u8> = line.drain(..=end).collect();
            said.pop();
            said.reverse();
            said.push(b'\n');
            stream.write_all(&said).unwrap();
        }
        match stream.read(&mut buf) {
            Ok(n) if n > 0 => line.extend_from_slice(&buf[..n]),
            _ => return,
        }
    }
}

fn upgrade(server: &Server, path: &str) -> RequestBuilder {
    Request::get(server.url(path)).header("Upgrade", "echo")
}

/// Sends lines one after another, and records what it receives.
struct Talk {
    lines: Vec<&'static str>,
    heard: String,
}

impl Talk {
    fn say(&mut self, cx: &mut Context<'_, Log>) -> Flow {
        match self.lines.is_empty() {
            true => Flow::Abort,
            false => {
                let line = self.lines.remove(0);
                let waiting = cx.write(cx.id(), line.as_bytes());
                assert!(waiting.is_some_and(|waiting| waiting >= line.len()));
                Flow::Stream
            }
        }
    }
}

impl Readback<Log> for Talk {
    fn on_head(&mut self, log: &mut Log, head: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        log.notes.push(format!("head {}", head.status().as_u16()));
        match head.status().as_u16() {
            101 => self.say(cx),
            _ => Flow::Buffer,
        }
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
        self.heard.push_str(std::str::from_utf8(data).unwrap());
        while let Some((line, rest)) = self.heard.split_once('\n') {
            log.notes.push(line.to_owned());
            self.heard = rest.to_owned();
            if self.say(cx) == Flow::Abort {
                return Flow::Abort;
            }
        }
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        log: &mut Log,
        reply: Reply<'_>,
        cx: &mut Context<'_, Log>,
    ) -> Next<Log> {
        assert_eq!(cx.write(cx.id(), b"too late"), None);
        log.notes.push(match reply {
            Ok(response) => format!("{} {}", response.status().as_u16(), response.body().len()),
            Err(error) => format!("{:?}", error.kind()),
        });
        Next::done()
    }
}

#[test]
fn bytes_go_both_ways_after_a_101_and_those_behind_it_are_delivered() {
    let server = Server::start(|peer| {
        let seen = peer.request().expect("a request");
        assert!(
            seen.head
                .contains("Upgrade: echo\r\nConnection: Upgrade\r\n")
        );
        // Two lines come with the head.
        peer.send(&[SWITCHED, b"first\nsec"].concat());
        peer.send(b"ond\n");
        reverse(peer);
    });
    let mut bench = Bench::new();
    let talk = Talk {
        lines: vec!["abc\n", "def\nghi\n", "x\n", "never\n"],
        heard: String::new(),
    };
    let request = upgrade(&server, "/").build().unwrap();
    bench.engine.submit_to(request, talk);
    bench.engine.run(&mut bench.log).unwrap();
    let expected = ["head 101", "first", "second", "cba", "fed", "Aborted"];
    assert_eq!(bench.log.notes, expected);
    bench.assert_empty();
}

#[test]
fn the_end_of_the_server_is_the_end_of_the_tunnel() {
    let server = Server::start(|peer| {
        if peer.request().is_some() {
            peer.send(&[SWITCHED, b"bye\n"].concat());
        }
    });
    let mut bench = Bench::new();
    let talk = Talk {
        lines: vec!["a\n", "b\n", "c\n"],
        heard: String::new(),
    };
    bench
        .engine
        .submit_to(upgrade(&server, "/").build().unwrap(), talk);
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes[..2], ["head 101", "bye"]);
    // The connection may have been closed before the last line was written.
    let end = &bench.log.notes[2];
    assert!(end == "101 0" || end == "Truncated", "{end}");
    bench.assert_empty();
}

#[test]
fn a_server_that_does_not_switch_answers_as_ever() {
    let server = Server::answering(ok("no"));
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench
            .engine
            .submit(upgrade(&server, "/").build().unwrap(), note);
        bench.engine.run(&mut bench.log).unwrap();
    }
    assert_eq!(bench.log.texts(), ["no", "no"]);
    assert_eq!(bench.stats().opened, 1, "the connection is kept");
}

#[test]
fn a_101_that_was_not_asked_for_or_comes_too_soon_is_refused() {
    let server = Server::start(|peer| {
        if peer.head().is_some() {
            peer.send(SWITCHED);
            peer.hold();
        }
    });
    let mut bench = Bench::new();
    let unasked = Request::get(server.url("/")).build().unwrap();
    // More than a socket buffers, so it is not written completely when the 101 arrives.
    let early = Request::post(server.url("/"))
        .header("Upgrade", "echo")
        .body(vec![b'x'; 64 << 20])
        .build()
        .unwrap();
    for request in [unasked, early] {
        bench
            .engine
            .submit(request, |log: &mut Log, reply: Reply<'_>, _: &mut _| {
                let error: Error = reply.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Malformed);
                assert_eq!(error.violation(), Some(&Violation::SwitchingProtocols));
                log.notes.push("refused".to_owned());
                Next::done()
            });
        bench.engine.run(&mut bench.log).unwrap();
    }
    assert_eq!(bench.log.notes, ["refused", "refused"]);
    bench.assert_empty();
}

#[test]
fn what_a_server_does_not_read_waits_and_is_counted() {
    const PIECE: usize = 1 << 20;
    /// Writes until this much waits, and ends when all of it has been sent.
    struct Fill(usize);
    impl Readback<Log> for Fill {
        fn on_head(&mut self, _: &mut Log, _: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
            let id = cx.id();
            let mut waiting = 0;
            while waiting < 32 * PIECE {
                waiting = cx.write(id, &[b'y'; PIECE]).unwrap();
                self.0 += PIECE;
            }
            Flow::Stream
        }
        fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
            assert_eq!(data, b".", "the server answers when it has read everything");
            assert_eq!(cx.write(cx.id(), b""), Some(0));
            log.notes.push(format!("{} bytes", self.0));
            Flow::Abort
        }
        fn on_reply(&mut self, _: &mut Log, _: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
            Next::done()
        }
    }
    let server = Server::start(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCHED);
            std::thread::sleep(Duration::from_millis(20));
            let (mut left, mut buf) = (32 * PIECE, vec![0; 1 << 16]);
            while left > 0 {
                let n = peer.stream().read(&mut buf).unwrap();
                assert!(n > 0 && buf[..n].iter().all(|&b| b == b'y'));
                left -= n.min(left);
            }
            peer.send(b".");
            peer.hold();
        }
    });
    let mut bench = Bench::new();
    bench
        .engine
        .submit_to(upgrade(&server, "/").build().unwrap(), Fill(0));
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, [format!("{} bytes", 32 * PIECE)]);
    bench.assert_empty();
}

#[test]
fn a_tunnel_that_is_cancelled_is_closed_and_its_chain_told() {
    let server = Server::start(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCHED);
            peer.hold();
        }
    });
    let mut bench = Bench::new();
    let talk = Talk {
        lines: vec!["a\n"],
        heard: String::new(),
    };
    let id = bench
        .engine
        .submit_to(upgrade(&server, "/").build().unwrap(), talk);
    while bench.log.notes.is_empty() {
        bench
            .engine
            .turn(&mut bench.log, Some(common::PATIENCE))
            .unwrap();
    }
    assert!(bench.engine.cancel(id));
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes, ["head 101", "Cancelled"]);
    bench.assert_empty();
}

/// Pauses at each piece, and resumes a little later.
struct Pausing {
    heard: String,
    is_paused: bool,
}

impl Readback<Log> for Pausing {
    fn on_head(&mut self, _: &mut Log, _: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
        assert!(cx.write(cx.id(), b"go on\n").is_some());
        Flow::Stream
    }

    fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
        let was_paused = std::mem::replace(&mut self.is_paused, true);
        // Data that was read before the pause is delivered first, on resumption.
        assert!(
            !was_paused || log.notes.pop().is_some(),
            "data arrived during a pause"
        );
        self.heard.push_str(std::str::from_utf8(data).unwrap());
        let id = cx.id();
        let resume = Next::call(move |log: &mut Log, cx: &mut Context<'_, Log>| {
            log.notes.push("resumed".to_owned());
            assert!(cx.resume(id));
            // Writing is possible all the time.
            assert!(cx.write(id, b"more\n").is_some());
            cx.done()
        });
        cx.start(resume.after(Duration::from_millis(5)));
        match self.heard.ends_with("end\n") {
            true => Flow::Abort,
            false => Flow::Pause,
        }
    }

    fn on_reply(&mut self, log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
        assert_eq!(reply.unwrap_err().kind(), ErrorKind::Aborted);
        log.notes = vec![std::mem::take(&mut self.heard)];
        Next::done()
    }
}

#[test]
fn a_pause_holds_back_what_comes_through_a_tunnel() {
    const LINES: usize = 5;
    let server = Server::start(|peer| {
        if peer.request().is_none() {
            return;
        }
        peer.send(&[SWITCHED, b"0\n"].concat());
        // Answers each line with a line.
        let mut heard = peer.unread().to_vec();
        for line in 1..=LINES {
            let mut buf = [0; 64];
            while !heard.contains(&b'\n') {
                let n = peer.stream().read(&mut buf).unwrap();
                heard.extend_from_slice(&buf[..n]);
            }
            let end = heard.iter().position(|&b| b == b'\n').unwrap();
            heard.drain(..=end);
            let line = if line == LINES {
                "end".to_owned()
            } else {
                line.to_string()
            };
            peer.send(format!("{line}\n").as_bytes());
        }
        peer.hold();
    });
    let mut bench = Bench::new();
    let readback = Pausing {
        heard: String::new(),
        is_paused: false,
    };
    let id = bench
        .engine
        .submit_to(upgrade(&server, "/").build().unwrap(), readback);
    while bench.log.notes.len() != 1 || !bench.log.notes[0].contains("end") {
        let timeout = Some(common::PATIENCE);
        bench.engine.turn(&mut bench.log, timeout).unwrap();
    }
    assert_eq!(bench.log.notes, ["0\n1\n2\n3\n4\nend\n"]);
    assert!(!bench.engine.cancel(id), "the chain is over");
}

#[test]
fn what_is_written_on_a_tunnel_that_is_dead_is_refused() {
    const PIECE: usize = 1 << 20;
    /// The readback gets no event for it, because it is paused.
    struct Paused;
    impl Readback<Log> for Paused {
        fn on_head(&mut self, log: &mut Log, _: &Response<'_>, _: &mut Context<'_, Log>) -> Flow {
            log.notes.push("head".to_owned());
            Flow::Pause
        }
        fn on_reply(
            &mut self,
            log: &mut Log,
            reply: Reply<'_>,
            _: &mut Context<'_, Log>,
        ) -> Next<Log> {
            let error = reply.unwrap_err();
            assert_ne!(error.kind(), ErrorKind::Cancelled);
            log.notes.push("over".to_owned());
            Next::done()
        }
    }
    let server = Server::start(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCHED);
            peer.reset();
        }
    });
    let mut bench = Bench::new();
    let request = upgrade(&server, "/").build().unwrap();
    let id = bench.engine.submit_to(request, Paused);
    let mut written = 0;
    while bench.log.notes.last().is_none_or(|note| note != "refused") {
        let timeout = Some(Duration::from_millis(1));
        bench.engine.turn(&mut bench.log, timeout).unwrap();
        if bench.log.notes.is_empty() {
            continue;
        }
        written += PIECE;
        assert!(written < 64 * PIECE, "the write is never refused");
        bench.engine.call(move |log: &mut Log, cx| {
            if cx.write(id, &[b'x'; PIECE]).is_none() {
                log.notes.push("refused".to_owned());
            }
            cx.done()
        });
    }
    assert!(bench.engine.resume(id));
    bench.engine.run(&mut bench.log).unwrap();
    assert_eq!(bench.log.notes.last().map(String::as_str), Some("over"));
    bench.assert_empty();
}

#[test]
fn a_silent_tunnel_ends_by_its_idle_deadline_and_one_that_speaks_does_not() {
    let server = Server::start(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCHED);
            for _ in 0..8 {
                std::thread::sleep(Duration::from_millis(150));
                peer.send(b"a\n");
            }
            peer.hold();
        }
    });
    let mut bench = Bench::new();
    let talk = Talk {
        lines: vec!["\n"; 9],
        heard: String::new(),
    };
    let timed = upgrade(&server, "/").timeouts(|timeouts| {
        timeouts.idle = Some(Duration::from_secs(1));
    });
    bench.engine.submit_to(timed.build().unwrap(), talk);
    bench.engine.run(&mut bench.log).unwrap();
    let expected = [&["head 101"][..], &["a"; 8], &["Timeout"]].concat();
    assert_eq!(bench.log.notes, expected);
    bench.assert_empty();
}

/// A source that follows a script, and the tunnel that is written from it.
mod sources {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::task::Waker;

    use httpstream::{BodySource, Supply};

    use super::*;

    enum Step {
        Bytes(Vec<u8>),
        Error,
        Panic,
        /// More bytes than there is room for.
        Lie,
        Nothing,
    }

    /// What waits for the source, and the waker of the engine.
    #[derive(Default)]
    struct Feed {
        steps: Vec<Step>,
        waker: Option<Waker>,
        has_ended: bool,
        is_dropped: bool,
    }

    #[derive(Clone, Default)]
    struct Source(Arc<Mutex<Feed>>);

    impl Source {
        fn of(steps: Vec<Step>) -> Self {
            let source = Self::default();
            source.0.lock().unwrap().steps = steps;
            source
        }

        /// Supplies more, from any thread.
        fn supply(&self, bytes: &[u8]) {
            let mut feed = self.0.lock().unwrap();
            feed.steps.push(Step::Bytes(bytes.to_vec()));
            let waker = feed.waker.take();
            drop(feed);
            waker.into_iter().for_each(Waker::wake);
        }

        fn end(&self) {
            let mut feed = self.0.lock().unwrap();
            feed.has_ended = true;
            let waker = feed.waker.take();
            drop(feed);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Dropped by the engine.
    struct Given(Source);

    impl Drop for Given {
        fn drop(&mut self) {
            self.0.0.lock().unwrap().is_dropped = true;
        }
    }

    impl BodySource for Given {
        fn size(&self) -> Option<u64> {
            None
        }

        fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
            let mut feed = self.0.0.lock().unwrap();
            if feed.steps.is_empty() {
                if feed.has_ended {
                    return Ok(Supply::End);
                }
                feed.waker = Some(waker.clone());
                return Ok(Supply::Wait);
            }
            match &mut feed.steps[0] {
                Step::Bytes(bytes) => {
                    let n = bytes.len().min(room.len());
                    room[..n].copy_from_slice(&bytes[..n]);
                    bytes.drain(..n);
                    if bytes.is_empty() {
                        feed.steps.remove(0);
                    }
                    Ok(Supply::Bytes(n))
                }
                Step::Error => Err(io::Error::other("the tape is torn")),
                Step::Panic => {
                    drop(feed);
                    panic!("as told")
                }
                Step::Lie => Ok(Supply::Bytes(room.len() + 1)),
                Step::Nothing => Ok(Supply::Bytes(0)),
            }
        }
    }

    /// Writes from a source, and records what arrives.
    struct Tunnel(Option<Source>);

    impl Readback<Log> for Tunnel {
        fn on_head(&mut self, _: &mut Log, head: &Response<'_>, cx: &mut Context<'_, Log>) -> Flow {
            assert_eq!(head.status().as_u16(), 101);
            let source = self.0.take().unwrap();
            assert!(cx.write_from(cx.id(), Given(source)));
            Flow::Stream
        }

        fn on_data(&mut self, log: &mut Log, data: &[u8], cx: &mut Context<'_, Log>) -> Flow {
            let text = String::from_utf8_lossy(data).into_owned();
            let is_over = text.ends_with("finish\n");
            if text.ends_with("write\n") {
                cx.write(cx.id(), b"written\n");
            }
            if text.ends_with("replace\n") {
                let other = Source::of(vec![Step::Bytes(b"replaced\n".to_vec())]);
                assert!(cx.write_from(cx.id(), Given(other)));
            }
            log.notes.push(text);
            if is_over { Flow::Finish } else { Flow::Stream }
        }

        fn on_reply(
            &mut self,
            log: &mut Log,
            reply: Reply<'_>,
            cx: &mut Context<'_, Log>,
        ) -> Next<Log> {
            assert!(
                !cx.write_from(cx.id(), Given(Source::default())),
                "it is over"
            );
            note(log, reply, cx)
        }
    }

    /// A server that tells what it reads, line by line, and sends what it is told.
    fn telling() -> (Server, Receiver<String>, Sender<&'static str>) {
        let (tell, told) = channel();
        let (say, said) = channel::<&'static str>();
        let said = Arc::new(Mutex::new(said));
        let server = Server::start(move |peer| {
            if peer.request().is_none() || !peer.send(SWITCHED) {
                return;
            }
            let first = peer.unread().to_vec();
            let mut line = first;
            let mut room = [0; 4096];
            loop {
                while let Some(end) = line.iter().position(|b| *b == b'\n') {
                    let rest = line.split_off(end + 1);
                    let text = String::from_utf8(std::mem::replace(&mut line, rest)).unwrap();
                    tell.send(text).unwrap();
                    match said.lock().unwrap().recv() {
                        Ok("") | Err(_) => {}
                        Ok(answer) => {
                            peer.send(answer.as_bytes());
                        }
                    }
                }
                match peer.stream().read(&mut room) {
                    Ok(n) if n > 0 => line.extend_from_slice(&room[..n]),
                    _ => return drop(tell.send("end".to_owned())),
                }
            }
        });
        (server, told, say)
    }

    fn open(bench: &mut Bench, server: &Server, source: &Source) {
        let request = upgrade(server, "/").build().unwrap();
        let request = bench
            .engine
            .submit_to(request, Tunnel(Some(source.clone())));
        let _ = request;
    }

    #[test]
    fn a_source_is_written_as_it_supplies_and_by_other_threads() {
        let (server, told, say) = telling();
        let source = Source::of(vec![
            Step::Bytes(b"one\n".to_vec()),
            Step::Bytes(b"two\n".to_vec()),
        ]);
        let mut bench = Bench::new();
        open(&mut bench, &server, &source);
        let other = source.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut next = |answer| {
                seen.push(told.recv_timeout(common::PATIENCE).unwrap());
                say.send(answer).unwrap();
            };
            next("");
            next("");
            // The engine sleeps.
            other.supply(b"three\n");
            next("write\n");
            next("replace\n");
            next("finish\n");
            assert_eq!(told.recv_timeout(common::PATIENCE).unwrap(), "end");
            seen
        });
        bench.engine.run(&mut bench.log).unwrap();
        let seen = thread.join().unwrap();
        assert_eq!(
            seen,
            ["one\n", "two\n", "three\n", "written\n", "replaced\n"]
        );
        assert_eq!(bench.log.notes, ["write\n", "replace\n", "finish\n"]);
        assert_eq!(bench.log.replies[0].as_ref().unwrap().status, 101);
        assert!(source.0.lock().unwrap().is_dropped);
        bench.assert_empty();
    }

    #[test]
    fn a_source_that_fails_fails_the_exchange() {
        let rows = [
            (Step::Error, "the tape is torn"),
            (Step::Lie, "more bytes than there was room for"),
            (Step::Nothing, "no bytes, but neither waits nor ends"),
        ];
        for (step, expected) in rows {
            let (server, _told, _say) = telling();
            let source = Source::of(vec![Step::Bytes(b"one\n".to_vec()), step]);
            let mut bench = Bench::new();
            open(&mut bench, &server, &source);
            bench.engine.run(&mut bench.log).unwrap();
            let [Err(error)] = &bench.log.replies[..] else {
                panic!("{expected}: no error");
            };
            assert_eq!(error.kind(), ErrorKind::Body);
            assert!(format!("{error:#}").contains(expected), "{error:#}");
            assert!(source.0.lock().unwrap().is_dropped);
            bench.assert_empty();
        }
    }

    #[test]
    fn a_source_that_panics_ends_its_chain_and_leaves_the_engine_usable() {
        let (server, _told, _say) = telling();
        let source = Source::of(vec![Step::Panic]);
        let mut bench = Bench::new();
        open(&mut bench, &server, &source);
        let run = std::panic::AssertUnwindSafe(|| bench.engine.run(&mut bench.log));
        assert!(std::panic::catch_unwind(run).is_err());
        assert!(bench.log.replies.is_empty() && source.0.lock().unwrap().is_dropped);
        let healthy = Server::answering(ok("fine"));
        bench.engine.submit(healthy.get("/"), note);
        bench.engine.run(&mut bench.log).unwrap();
        assert_eq!(bench.log.texts(), ["fine"]);
        bench.assert_empty();
    }

    #[test]
    fn what_comes_after_the_end_of_a_source_is_passed_on() {
        let (server, told, say) = telling();
        let source = Source::of(vec![Step::Bytes(b"first\nlast\n".to_vec())]);
        source.end();
        let mut bench = Bench::new();
        open(&mut bench, &server, &source);
        let thread = std::thread::spawn(move || {
            assert_eq!(told.recv_timeout(common::PATIENCE).unwrap(), "first\n");
            say.send("late\n").unwrap();
            assert_eq!(told.recv_timeout(common::PATIENCE).unwrap(), "last\n");
            say.send("finish\n").unwrap();
        });
        bench.engine.run(&mut bench.log).unwrap();
        thread.join().unwrap();
        assert_eq!(bench.log.notes.concat(), "late\nfinish\n");
        assert_eq!(bench.log.replies.len(), 1);
        assert_eq!(bench.log.replies[0].as_ref().unwrap().status, 101);
        bench.assert_empty();
        drop(server);
    }

    #[test]
    fn a_large_source_is_read_piece_by_piece() {
        const LEN: usize = 20 << 20;
        let server = Server::start(|peer| {
            if peer.request().is_some() && peer.send(SWITCHED) {
                let body = peer.body(LEN);
                let is_same = body.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8);
                assert!(is_same && body.len() == LEN);
                peer.send(b"finish\n");
                peer.hold();
            }
        });
        let bytes: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
        let pieces = bytes
            .chunks(50_000)
            .map(|piece| Step::Bytes(piece.to_vec()));
        let source = Source::of(pieces.collect());
        let mut bench = Bench::new();
        open(&mut bench, &server, &source);
        bench.engine.run(&mut bench.log).unwrap();
        assert_eq!(bench.log.notes, ["finish\n"]);
        bench.assert_empty();
    }
}
