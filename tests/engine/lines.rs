//! Bodies that consist of lines, on whole engines, in the simulation.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use httpstream::lines::Stream;
use httpstream::policy::Verdict;
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, ErrorKind, Flow, Lines, Next, Reply, Request, Sim, Violation,
    within_to,
};

use crate::visits::at_end;

const SECOND: Duration = Duration::from_secs(1);

type Log = Vec<String>;

fn serve(answer: impl Fn() -> Answer + 'static) -> Network {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    let server = move |_: &Incoming| answer();
    network.serve("10.0.0.1:80".parse().unwrap(), server);
    network
}

fn get() -> Request {
    Request::get("http://a.test/log").build().unwrap()
}

fn engine<S>(network: &Network) -> Engine<S, Sim> {
    Engine::on_network(network, Config::default()).unwrap()
}

fn note_end(log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
    log.push(match reply {
        Ok(response) => format!("{} {:?}", response.status(), response.text().unwrap()),
        Err(error) => format!("{:?}", error.kind()),
    });
    Next::done()
}

/// Reads the lines with what `on_line` returns for each.
fn run(
    answer: impl Fn() -> Answer + 'static,
    mut on_line: impl FnMut(&str, &mut Context<'_, Log>) -> Flow + 'static,
) -> Log {
    let network = serve(answer);
    let mut engine = engine(&network);
    let lines = Lines::new(move |log: &mut Log, line: &[u8], cx| {
        let line = String::from_utf8_lossy(line).into_owned();
        log.push(format!("{line:?}"));
        on_line(&line, cx)
    });
    engine.submit_to(get(), lines.max_bytes(1000).then(note_end));
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    assert_eq!(engine.pending(), 0);
    log
}

#[test]
fn lines_arrive_and_then_the_end() {
    let answer = || Answer::status(200).chunked(["a\nb", "c\r", "\n\nd\n", "e"]);
    let expected = ["\"a\"", "\"bc\"", "\"\"", "\"d\"", "\"e\"", "200 OK \"\""];
    assert_eq!(run(answer, |_, _| Flow::Stream), expected);
    assert_eq!(
        run(move || answer().drip(1, SECOND / 10), |_, _| Flow::Stream),
        expected
    );
    assert_eq!(
        run(|| Answer::status(204), |_, _| Flow::Stream),
        ["204 No Content \"\""]
    );
    let closes = || Answer::status(200).until_close("a\nb\n");
    assert_eq!(
        run(closes, |_, _| Flow::Stream),
        ["\"a\"", "\"b\"", "200 OK \"\""]
    );
}

#[test]
fn a_last_line_that_may_be_incomplete_is_dropped() {
    let whole = run(|| Answer::ok("a\nb\ncdef"), |_, _| Flow::Stream);
    assert_eq!(whole, ["\"a\"", "\"b\"", "\"cdef\"", "200 OK \"\""]);
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na\nb\ncdef";
    let cut = run(move || Answer::raw(raw).close(), |_, _| Flow::Stream);
    assert_eq!(cut, ["\"a\"", "\"b\"", "Truncated"]);
}

#[test]
fn another_status_has_no_lines() {
    for (status, expected) in [
        (404, "404 Not Found \"a\\nb\\n\""),
        (503, "503 Service Unavailable \"a\\nb\\n\""),
        (302, "302 Found \"a\\nb\\n\""),
    ] {
        let answer = move || Answer::status(status).body("a\nb\n");
        assert_eq!(run(answer, |_, _| Flow::Stream), [expected]);
    }
}

#[test]
fn a_pause_holds_back_the_lines_of_its_piece() {
    let paused = |answer: fn() -> Answer| {
        run(answer, |_, cx| {
            let id = cx.id();
            let resume = Next::<Log>::call(move |log, cx| {
                log.push("resume".to_owned());
                // The last line is not followed by anything that could wait.
                cx.resume(id);
                Next::done()
            });
            cx.start(resume.after(SECOND));
            Flow::Pause
        })
    };
    let expected = [
        "\"a\"",
        "resume",
        "\"b\"",
        "resume",
        "\"cd\"",
        "resume",
        "\"e\"",
        "200 OK \"\"",
        "resume",
    ];
    assert_eq!(
        paused(|| Answer::status(200).chunked(["a\nb\r\nc", "d\ne"])),
        expected
    );
    assert_eq!(paused(|| Answer::ok("a\nb\r\ncd\ne")), expected);
}

#[test]
fn a_pause_does_not_stop_what_a_policy_has_held_back() {
    let network = serve(|| Answer::ok("a\nb\nc"));
    let mut engine = engine(&network);
    let request = get().edit().policy(at_end(|_, _| Ok(Verdict::Deliver)));
    let lines = Lines::new(|log: &mut Log, line, _| {
        log.push(String::from_utf8_lossy(line).into_owned());
        Flow::Pause
    });
    engine.submit_to(request.build().unwrap(), lines.then(note_end));
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    assert_eq!(log, ["a", "b", "c", "200 OK \"\""]);
}

#[test]
fn nothing_follows_an_abort_a_cancellation_or_a_discard() {
    let answer = || Answer::status(200).chunked(["a\nb\nc\n", "d\ne"]);
    let aborted = run(answer, |line, _| {
        if line == "b" {
            Flow::Abort
        } else {
            Flow::Stream
        }
    });
    assert_eq!(aborted, ["\"a\"", "\"b\"", "Aborted"]);
    let discarded = run(answer, |line, _| {
        if line == "b" {
            Flow::Discard
        } else {
            Flow::Stream
        }
    });
    assert_eq!(discarded, ["\"a\"", "\"b\"", "200 OK \"\""]);
    let canceled = run(answer, |line, cx| {
        if line == "b" {
            cx.cancel(cx.id());
        }
        Flow::Stream
    });
    assert_eq!(canceled, ["\"a\"", "\"b\"", "Cancelled"]);
}

#[test]
fn a_line_without_an_end_is_refused_by_name() {
    for body in [
        "a\n".to_owned() + &"x".repeat(5000),
        "a\n".to_owned() + &"x".repeat(1001) + "\n",
    ] {
        let network = serve(move || Answer::ok(&body[..]));
        let mut engine = engine(&network);
        let lines = Lines::new(|log: &mut Log, line, _| {
            log.push(String::from_utf8_lossy(line).into_owned());
            Flow::Stream
        });
        let lines = lines.max_bytes(1000).then(|log: &mut Log, reply, _| {
            let error = reply.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            let violation = error.violation();
            let Some(Violation::LineTooLong {
                limit: 1000,
                seen: 1001..,
            }) = violation
            else {
                panic!("{violation:?}");
            };
            log.push(format!("{error:#}"));
            Next::done()
        });
        engine.submit_to(get(), lines);
        let mut log = Log::new();
        engine.run(&mut log).unwrap();
        assert_eq!(log[0], "a");
        assert!(
            log[1].contains("line exceeds max_bytes (1000 bytes; "),
            "{log:?}"
        );
    }
    let long = |len: usize| {
        let network = serve(move || Answer::ok("x".repeat(len)));
        let mut engine = engine(&network);
        engine.submit_to(
            get(),
            Lines::new(|_: &mut Log, _, _| Flow::Stream).then(note_end),
        );
        let mut log = Log::new();
        engine.run(&mut log).unwrap();
        log.remove(0)
    };
    assert_eq!(
        (&*long(1 << 20), &*long((1 << 20) + 1)),
        ("200 OK \"\"", "TooLarge")
    );
}

#[test]
fn lines_work_for_a_part_of_the_state_and_again() {
    let network = serve(|| Answer::status(200).chunked(["a\nb", "c\nd"]));
    let mut engine = engine::<Vec<Log>>(&network);
    let lines = Lines::new(|log: &mut Log, line, cx| {
        log.push(String::from_utf8_lossy(line).into_owned());
        let id = cx.id();
        cx.call(move |_, cx| {
            cx.resume(id);
            Next::done()
        });
        Flow::Pause
    });
    let lines = lines.then(|log: &mut Log, _, _| match log.len() {
        3 => Next::again(),
        _ => Next::done(),
    });
    engine.submit_to(
        get(),
        within_to(|logs: &mut Vec<Log>| logs.get_mut(1), lines),
    );
    let mut logs = vec![Log::new(), Log::new()];
    engine.run(&mut logs).unwrap();
    assert_eq!(logs[0], Log::new());
    assert_eq!(logs[1], ["a", "bc", "d", "a", "bc", "d"]);
}

fn read(network: &Network) -> Log {
    let mut engine = engine::<()>(network);
    let mut lines = Stream::builder()
        .max_bytes(1000)
        .open(&engine.local(), get());
    let seen = Rc::new(RefCell::new(Log::new()));
    let task = Rc::clone(&seen);
    engine.spawn(async move {
        while let Some(line) = lines.next().await {
            task.borrow_mut().push(match line {
                Ok(line) => String::from_utf8_lossy(&line).into_owned(),
                Err(error) => format!("{error:#}"),
            });
        }
        assert!(lines.next().await.is_none(), "after the end");
        task.borrow_mut().push("over".to_owned());
    });
    engine.run(&mut ()).unwrap();
    assert_eq!(engine.pending(), 0);
    seen.take()
}

#[test]
fn a_task_reads_lines_to_their_end() {
    let lines = serve(|| Answer::status(200).chunked(["a\nb", "c\nd"]));
    assert_eq!(read(&lines), ["a", "bc", "d", "over"]);
    let gone = serve(|| Answer::status(404).body("a\n"));
    assert_eq!(
        read(&gone),
        ["http://a.test: answered with 404 Not Found", "over"]
    );
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\na\nb";
    let cut = serve(move || Answer::raw(raw).close());
    assert_eq!(
        read(&cut),
        [
            "a",
            "http://a.test: response cut short while reading the body: 7 bytes missing",
            "over"
        ]
    );
    let long = serve(|| Answer::ok("x".repeat(1001)));
    assert_eq!(
        read(&long),
        [
            "http://a.test: response exceeds a limit while reading the body: \
                line exceeds max_bytes (1000 bytes; 1001 received)",
            "over"
        ]
    );
}

#[test]
fn a_slow_task_reads_no_more_than_it_takes() {
    let line = "x".repeat(999) + "\n";
    let network = serve(move || Answer::ok(line.repeat(5000)));
    let mut engine = engine::<usize>(&network);
    let http = engine.local();
    let request = get().edit().timeouts(|t| t.total = None).build().unwrap();
    let mut lines = Stream::open(&http, request);
    engine.spawn(async move {
        let mut count = 0;
        while let Some(line) = lines.next().await {
            assert_eq!(line.unwrap().len(), 999);
            count += 1;
            http.with(move |seen, _| *seen = count).await.unwrap();
            http.sleep(SECOND / 100).await;
        }
        assert_eq!(count, 5000);
        http.with(|_, cx| cx.stop()).await.unwrap();
    });
    let mut seen = 0;
    while !engine.advance(&mut seen, SECOND).unwrap() {
        let read = engine.stats().bytes_in as usize;
        assert!(
            read <= (seen + 64) * 1000 + (256 << 10),
            "{read} bytes for {seen} lines"
        );
    }
    assert!(network.elapsed() >= 50 * SECOND);
}

#[test]
fn dropping_lines_ends_their_chain() {
    let network = serve(|| Answer::status(200).until_close("a\nb\n").drip(1, SECOND));
    let mut engine = engine::<()>(&network);
    let mut lines = Stream::open(&engine.local(), get());
    let is_read = Rc::new(Cell::new(false));
    let task = Rc::clone(&is_read);
    engine.spawn(async move {
        assert_eq!(lines.next().await.unwrap().unwrap(), b"a");
        task.set(true);
    });
    engine.run(&mut ()).unwrap();
    assert!(is_read.get());
    assert_eq!(engine.pending(), 0);
    assert!(network.connections().iter().all(|it| !network.is_open(*it)));
}
