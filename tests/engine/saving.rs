//! Downloads to files (`Save`): what is written, how they continue after a break, and what remains
//! of those that fail.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use httpstream::policy::{Screening, Visit};
use httpstream::session::{Redirects, Retry, Session};
use httpstream::sim::{Answer, Faults, Incoming, Network, Random};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Moment, Next, Request, Response, Save, SaveThen,
    Saved, Sim, within_to,
};

const SECOND: Duration = Duration::from_secs(1);

/// A directory for the files of one test, which is removed on drop.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (id, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("httpstream-saving-{id}-{n}-{test}");
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("file")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The state of the engine: how the downloads ended.
#[derive(Default)]
struct World {
    saved: Vec<Result<Saved, Error>>,
}

impl World {
    fn on_saved(&mut self, saved: Result<Saved, Error>, _: &mut Context<'_, Self>) -> Next<Self> {
        self.saved.push(saved);
        Next::done()
    }

    /// Returns the only outcome so far.
    #[track_caller]
    fn outcome(&mut self) -> Result<Saved, Error> {
        assert_eq!(self.saved.len(), 1);
        self.saved.pop().unwrap()
    }
}

/// What `progress` was told.
type Told = Arc<Mutex<Vec<(u64, Option<u64>)>>>;

struct Lab {
    dir: Dir,
    network: Network,
    engine: Engine<World, Sim>,
    world: World,
    told: Told,
}

impl Lab {
    fn new(test: &str, server: impl FnMut(&Incoming) -> Answer + 'static) -> Self {
        Self::with(test, Config::default(), server)
    }

    fn with(test: &str, config: Config, server: impl FnMut(&Incoming) -> Answer + 'static) -> Self {
        let network = Network::new(1);
        network.serve("10.0.0.1:80".parse().unwrap(), server);
        let engine = Engine::on_network(&network, config).unwrap();
        Self {
            dir: Dir::new(test),
            network,
            engine,
            world: World::default(),
            told: Told::default(),
        }
    }

    fn save(&self) -> Save {
        let told = Arc::clone(&self.told);
        Save::to(self.dir.file())
            .progress(move |seen, total| told.lock().unwrap().push((seen, total)))
    }

    fn run(&mut self) {
        self.engine.run(&mut self.world).unwrap();
        assert_eq!(self.engine.pending(), 0);
    }

    /// Downloads a file.
    fn fetch(&mut self, save: Save) -> Result<Saved, Error> {
        self.fetch_by(get(), save)
    }

    fn fetch_by(&mut self, request: Request, save: Save) -> Result<Saved, Error> {
        self.engine.submit_to(request, save.then(World::on_saved));
        self.run();
        self.world.outcome()
    }

    /// Checks that the file is complete, and the only one in its directory.
    #[track_caller]
    fn assert_saved(&self, outcome: Result<Saved, Error>, body: &[u8]) -> Saved {
        let saved = outcome.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(saved.path, self.dir.file());
        assert_eq!(saved.bytes, body.len() as u64);
        assert!(fs::read(&saved.path).unwrap() == body, "other bytes");
        assert_eq!(self.dir.names(), ["file"]);
        saved
    }

    /// Checks that the download has failed and left nothing.
    #[track_caller]
    fn assert_failed(&self, outcome: Result<Saved, Error>, kind: ErrorKind) -> Error {
        let error = outcome.expect_err("it is not saved");
        assert_eq!(error.kind(), kind, "{error:#}");
        assert!(self.dir.names().is_empty(), "{:?}", self.dir.names());
        error
    }

    /// Checks that what `progress` was told never falls, ends with the whole, and has only these
    /// totals.
    #[track_caller]
    fn assert_progress(&self, bytes: u64, totals: &[Option<u64>]) {
        let told = self.told.lock().unwrap();
        assert!(told.is_sorted_by_key(|(seen, _)| *seen), "{told:?}");
        assert_eq!(told.last().unwrap().0, bytes);
        let mut seen: Vec<_> = told.iter().map(|(_, total)| *total).collect();
        seen.dedup();
        assert_eq!(seen, totals);
    }

    /// Returns the Range fields of the requests that the server has received.
    fn ranges(&self) -> Vec<Option<String>> {
        let ledger = self.network.ledger();
        let ranges = ledger.requests().map(|seen| field(seen, "Range"));
        ranges.collect()
    }
}

fn get() -> Request {
    Request::get("http://10.0.0.1/file").build().unwrap()
}

fn field(request: &Incoming, name: &str) -> Option<String> {
    let value = request.header(name)?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

/// Returns the offset from which a request asks for the rest.
fn from(request: &Incoming) -> Option<usize> {
    let range = field(request, "Range")?;
    let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
    Some(from.parse().unwrap())
}

fn bytes(len: usize) -> Vec<u8> {
    Random::new(len as u64).bytes(len)
}

/// Returns the response of a server that does everything right (RFC 9110 §13.1.5, §14.2) and has
/// one file: its head, and its body.
fn response<'a>(request: &Incoming, body: &'a [u8], etag: &str) -> (String, &'a [u8]) {
    let condition = field(request, "If-Range");
    let is_same = condition.is_none_or(|tag| tag == etag);
    let len = body.len();
    let (status, range, body) = match from(request).filter(|_| is_same) {
        None => ("200 OK", String::new(), body),
        Some(from) if from >= len => ("416 Range Not Satisfiable", format!("*/{len}"), &body[..0]),
        Some(from) => (
            "206 Partial Content",
            format!("{from}-{}/{len}", len - 1),
            &body[from..],
        ),
    };
    let mut head = format!("HTTP/1.1 {status}\r\nETag: {etag}\r\n");
    if !range.is_empty() {
        head += &format!("Content-Range: bytes {range}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    (head, body)
}

/// Serves the file.
fn serve(request: &Incoming, body: &[u8], etag: &str) -> Answer {
    serve_part(request, body, etag, usize::MAX)
}

/// Serves the file, but only the next `bytes` of its body.
fn serve_part(request: &Incoming, body: &[u8], etag: &str, bytes: usize) -> Answer {
    let (head, body) = response(request, body, etag);
    Answer::raw([head.as_bytes(), &body[..bytes.min(body.len())]].concat())
}

#[test]
fn the_target_is_replaced_when_the_file_is_complete() {
    let body = bytes(300_000);
    let file = body.clone();
    let mut lab = Lab::new("replaced", move |_: &Incoming| {
        Answer::ok(file.clone()).drip(1000, Duration::from_millis(1))
    });
    let target = lab.dir.file();
    fs::write(&target, "old").unwrap();
    let told = Arc::clone(&lab.told);
    let path = target.clone();
    let save = Save::to(&target).progress(move |seen, total| {
        assert_eq!(fs::read(&path).unwrap(), b"old");
        told.lock().unwrap().push((seen, total));
    });
    let outcome = lab.fetch(save);
    let saved = lab.assert_saved(outcome, &body);
    assert_eq!((saved.attempts, saved.resumed), (1, 0));
    lab.assert_progress(300_000, &[Some(300_000)]);
    assert_eq!(lab.told.lock().unwrap()[0].0, 0);
    assert!(lab.told.lock().unwrap().len() > 250);
}

#[test]
fn bodies_of_every_framing_are_saved() {
    let body = bytes(100_000);
    let chunks: Vec<_> = body.chunks(777).map(<[u8]>::to_vec).collect();
    let rows = [
        ("length", Answer::ok(body.clone()), &body[..]),
        ("chunked", Answer::status(200).chunked(chunks), &body),
        (
            "close",
            Answer::status(200).until_close(body.clone()),
            &body,
        ),
        ("empty", Answer::ok(""), b""),
        ("203", Answer::status(203).body("x"), b"x"),
    ];
    for (why, answer, body) in rows {
        let mut lab = Lab::new(why, move |_: &Incoming| answer.clone());
        let save = lab.save();
        let outcome = lab.fetch(save);
        lab.assert_saved(outcome, body);
        let total = matches!(why, "length" | "empty" | "203").then_some(body.len() as u64);
        lab.assert_progress(body.len() as u64, &[total]);
    }
}

#[test]
fn five_breaks_anywhere_leave_the_same_bytes() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let body = random.bytes(100_000);
        let mut ends: Vec<_> = (0..5).map(|_| random.below(body.len())).collect();
        ends.sort_unstable();
        ends.dedup();
        let breaks = ends.len();
        let file = body.clone();
        let mut next = 0;
        let mut lab = Lab::new(&format!("breaks-{seed}"), move |request: &Incoming| {
            let begun = from(request).unwrap_or(0);
            // Where the last attempt broke off, unless that was before its first byte.
            let expected = ends[..next].last().copied().unwrap_or(0);
            assert_eq!(begun, expected);
            let is_rest = begun > 0;
            let condition = field(request, "If-Range");
            assert_eq!(condition.as_deref(), is_rest.then_some("\"v1\""));
            let codings = field(request, "Accept-Encoding");
            assert_eq!(codings.as_deref(), (next > 0).then_some("identity"));
            let end = ends.get(next);
            next += 1;
            match end {
                None => serve(request, &file, "\"v1\""),
                Some(end) => {
                    let part = serve_part(request, &file, "\"v1\"", end - begun);
                    match next % 3 {
                        0 => part.close(),
                        1 => part.drip(1000, Duration::from_millis(1)).reset(),
                        // It stalls, until the idle timeout.
                        _ => part,
                    }
                }
            }
        });
        let save = lab.save().resume(true);
        let outcome = lab.fetch(save);
        let saved = lab.assert_saved(outcome, &body);
        assert_eq!(saved.attempts as usize, breaks + 1, "seed {seed}");
        lab.assert_progress(100_000, &[Some(100_000)]);
    }
}

/// Without a length, a body may be one that a policy has decoded, unless the request has asked for
/// codings of its own.
#[test]
fn a_chunked_body_is_continued_once_identity_was_asked_for() {
    let body = bytes(10_000);
    for (codings, expected) in [
        (
            Some("identity"),
            vec![None, Some("bytes=4000-"), Some("bytes=8000-")],
        ),
        (
            None,
            vec![None, None, Some("bytes=4000-"), Some("bytes=8000-")],
        ),
    ] {
        let file = body.clone();
        let mut lab = Lab::new("chunked", move |request: &Incoming| {
            match from(request) {
            None => Answer::raw(
                [
                    b"HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nTransfer-Encoding: chunked\r\n\r\n1770\r\n",
                    &file[..4000],
                ]
                .concat(),
            )
            .close(),
            Some(4000) => serve_part(request, &file, "\"v1\"", 4000).reset(),
            Some(_) => serve(request, &file, "\"v1\""),
        }
        });
        let mut request = get().edit();
        if let Some(codings) = codings {
            request = request.header("Accept-Encoding", codings);
        }
        let save = lab.save().resume(true);
        let outcome = lab.fetch_by(request.build().unwrap(), save);
        let saved = lab.assert_saved(outcome, &body);
        assert_eq!(saved.resumed, 2);
        let ranges = lab.ranges();
        let ranges: Vec<_> = ranges.iter().map(Option::as_deref).collect();
        assert_eq!(ranges, expected);
        // The length became known with the first part.
        let told = lab.told.lock().unwrap();
        assert_eq!(told[0], (0, None));
        assert_eq!(told.last(), Some(&(10_000, Some(10_000))));
    }
}

#[test]
fn without_a_strong_tag_it_starts_from_the_beginning() {
    let body = bytes(10_000);
    for fields in [
        "",
        "ETag: W/\"v1\"\r\n",
        "ETag: v1\r\n",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "ETag: \"v1\"\r\nETag: \"v2\"\r\n",
        "ETag: \"v1\"\r\nContent-Encoding: gzip\r\n",
    ] {
        let file = body.clone();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 10000\r\n\r\n");
        let mut sent = 0;
        let mut lab = Lab::new("unproven", move |_: &Incoming| {
            sent += 1;
            let end = if sent < 3 { 5000 } else { 10_000 };
            Answer::raw([head.as_bytes(), &file[..end]].concat()).close()
        });
        let save = lab.save().resume(true);
        let outcome = lab.fetch(save);
        let saved = lab.assert_saved(outcome, &body);
        assert_eq!((saved.attempts, saved.resumed), (3, 0), "{fields}");
        assert_eq!(lab.ranges(), [None, None, None]);
    }
}

#[test]
fn a_part_is_only_asked_for_with_get_and_with_resume() {
    let body = bytes(10_000);
    let broken = |method: &str, save: fn(Save) -> Save| {
        let file = body.clone();
        let mut lab = Lab::new("not-asked", move |request: &Incoming| {
            match request.number {
                0 if request.at < SECOND / 20 => serve_part(request, &file, "\"v1\"", 4000).close(),
                _ => serve(request, &file, "\"v1\""),
            }
        });
        let method = method.parse().unwrap();
        let request = Request::builder(method, "http://10.0.0.1/file")
            .build()
            .unwrap();
        let save = save(lab.save());
        let outcome = lab.fetch_by(request, save);
        (lab, outcome)
    };
    // Nothing is repeated.
    let (lab, outcome) = broken("GET", |save| save);
    lab.assert_failed(outcome, ErrorKind::Truncated);
    assert_eq!(lab.ranges(), [None]);
    // Not without harm.
    let (lab, outcome) = broken("POST", |save| save.resume(true));
    lab.assert_failed(outcome, ErrorKind::Truncated);
    assert_eq!(lab.ranges(), [None]);
    // A method that has no ranges (RFC 9110 §14.2).
    let (lab, outcome) = broken("PUT", |save| save.resume(true));
    lab.assert_saved(outcome, &body);
    assert_eq!(lab.ranges(), [None, None]);
    // Repeated, but not continued.
    let (lab, outcome) = broken("GET", |save| save.retry(Retry::attempts(2)));
    lab.assert_saved(outcome, &body);
    assert_eq!(lab.ranges(), [None, None]);
    let (lab, outcome) = broken("GET", |save| save.resume(true));
    lab.assert_saved(outcome, &body);
    assert_eq!(lab.ranges(), [None, Some("bytes=4000-".to_owned())]);
}

#[test]
fn a_file_that_changes_in_between_is_replaced() {
    // The second version is shorter than what is here of the first.
    let versions = [bytes(10_000), bytes(3000), bytes(20_000)];
    let files = versions.clone();
    let mut sent = 0;
    let mut lab = Lab::new("changed", move |request: &Incoming| {
        sent += 1;
        match sent {
            1 => serve_part(request, &files[0], "\"1\"", 5000).close(),
            2 => serve_part(request, &files[1], "\"2\"", 2000).close(),
            3 => serve_part(request, &files[1], "\"2\"", 500).close(),
            // Its tag would match, but it does not do ranges.
            4 => Answer::ok(files[2].clone()).header("ETag", "\"2\""),
            _ => unreachable!(),
        }
    });
    let save = lab.save().resume(true);
    let outcome = lab.fetch(save);
    let saved = lab.assert_saved(outcome, &versions[2]);
    assert_eq!((saved.attempts, saved.resumed), (4, 1));
    let ranges = [
        None,
        Some("bytes=5000-"),
        Some("bytes=2000-"),
        Some("bytes=2500-"),
    ];
    assert_eq!(lab.ranges(), ranges.map(|it| it.map(str::to_owned)));
    let told = lab.told.lock().unwrap();
    let begun: Vec<_> = told.iter().filter(|(seen, _)| *seen == 0).collect();
    assert_eq!(
        begun,
        [&(0, Some(10_000)), &(0, Some(3000)), &(0, Some(20_000))]
    );
}

#[test]
fn a_part_that_lies_is_not_appended() {
    let body = bytes(1000);
    let part = |fields: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 206 Partial Content\r\n{fields}\r\n");
        [head.as_bytes(), body].concat()
    };
    let length = |n: usize| format!("Content-Length: {n}\r\n");
    let (tag, range) = ("ETag: \"v1\"\r\n", "Content-Range: bytes 400-999/1000\r\n");
    let other = bytes(600);
    let chunked = |fields: &str, len: usize| {
        let body = bytes(len);
        let fields = format!("{fields}Transfer-Encoding: chunked\r\n");
        let body = [format!("{len:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        part(&fields, &body)
    };
    let ranges = [
        ("no range", ""),
        ("another unit", "Content-Range: words 400-999/1000\r\n"),
        ("begins earlier", "Content-Range: bytes 399-998/1000\r\n"),
        ("begins later", "Content-Range: bytes 401-1000/1001\r\n"),
        ("another length", "Content-Range: bytes 400-999/1001\r\n"),
        ("ends later", "Content-Range: bytes 400-1000/1001\r\n"),
        ("longer than it is", "Content-Range: bytes 400-998/1000\r\n"),
        (
            "ends before it begins",
            "Content-Range: bytes 400-399/1000\r\n",
        ),
        ("a sign", "Content-Range: bytes 400-+999/1000\r\n"),
        ("unsatisfied", "Content-Range: bytes */1000\r\n"),
        (
            "overflow",
            "Content-Range: bytes 400-18446744073709551615/*\r\n",
        ),
        (
            "several parts",
            "Content-Type: multipart/byteranges; boundary=x\r\n",
        ),
        (
            "two ranges",
            "Content-Range: bytes 400-999/1000\r\nContent-Range: bytes 400-999/1000\r\n",
        ),
    ];
    let mut rows: Vec<(&str, Vec<u8>)> = Vec::new();
    for (why, range) in ranges {
        let fields = format!("{tag}{range}{}", length(600));
        rows.push((why, part(&fields, &other)));
    }
    for (why, fields) in [
        (
            "another file",
            format!("ETag: \"v2\"\r\n{range}{}", length(600)),
        ),
        (
            "a weak tag",
            format!("ETag: W/\"v1\"\r\n{range}{}", length(600)),
        ),
        ("no tag", format!("{range}{}", length(600))),
        (
            "a coding",
            format!("{tag}{range}Content-Encoding: gzip\r\n{}", length(600)),
        ),
    ] {
        rows.push((why, part(&fields, &other)));
    }
    let fields = format!("{tag}{range}");
    rows.push(("a chunked part that is shorter", chunked(&fields, 599)));
    rows.push(("a chunked part that is longer", chunked(&fields, 601)));
    for (why, wire) in rows {
        let file = body.clone();
        let mut sent = 0;
        let mut lab = Lab::new("lies", move |request: &Incoming| {
            sent += 1;
            match sent {
                1 => serve_part(request, &file, "\"v1\"", 400).close(),
                2 => Answer::raw(wire.clone()),
                _ => serve(request, &file, "\"v1\""),
            }
        });
        let save = lab.save().resume(true);
        let outcome = lab.fetch(save);
        let saved = lab.assert_saved(outcome, &body);
        assert_eq!(saved.attempts, 3, "{why}");
        let ranges = [None, Some("bytes=400-".to_owned()), None];
        assert_eq!(lab.ranges(), ranges, "{why}");
        // What exceeds the part is not written even for a moment.
        let told = lab.told.lock().unwrap();
        assert!(told.iter().all(|(seen, _)| *seen <= 1000), "{why}");
    }
}

#[test]
fn a_server_may_send_less_than_the_rest() {
    let body = bytes(100_000);
    for total in ["100000", "*"] {
        let file = body.clone();
        let mut lab = Lab::new("less", move |request: &Incoming| {
            let Some(from) = from(request) else {
                return serve_part(request, &file, "\"v1\"", 500).close();
            };
            if from == file.len() {
                // Only asked for if the length is unknown.
                return serve(request, &file, "\"v1\"");
            }
            let end = (from + 7000).min(file.len());
            Answer::status(206)
                .header("Content-Range", format!("bytes {from}-{}/{total}", end - 1))
                .header("ETag", "\"v1\"")
                .body(&file[from..end])
        });
        let save = lab.save().resume(true);
        let outcome = lab.fetch(save);
        let saved = lab.assert_saved(outcome, &body);
        assert_eq!(saved.resumed, 15);
        lab.assert_progress(100_000, &[Some(100_000)]);
        // One wait, after the break; the next part is asked for at once.
        assert!(lab.network.elapsed() < 2 * SECOND);
    }
}

/// The first response had no length, and neither has any part.
#[test]
fn a_file_of_unknown_length_is_complete_when_nothing_follows() {
    let body = bytes(10_000);
    let file = body.clone();
    let mut lab = Lab::new("unknown", move |request: &Incoming| match from(request) {
        None => {
            let head =
                "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nTransfer-Encoding: chunked\r\n\r\n1770\r\n";
            Answer::raw([head.as_bytes(), &file[..4000]].concat()).close()
        }
        Some(4000) => Answer::status(206)
            .header("Content-Range", "bytes 4000-8999/*")
            .header("ETag", "\"v1\"")
            .body(&file[4000..9000]),
        Some(9000) => Answer::status(206)
            .header("Content-Range", "bytes 9000-9999/*")
            .header("ETag", "\"v1\"")
            .body(&file[9000..]),
        Some(_) => serve(request, &file, "\"v1\""),
    });
    let request = get().edit().header("Accept-Encoding", "identity");
    let save = lab.save().resume(true);
    let outcome = lab.fetch_by(request.build().unwrap(), save);
    let saved = lab.assert_saved(outcome, &body);
    assert_eq!((saved.attempts, saved.resumed), (4, 2));
    assert_eq!(lab.ranges()[3].as_deref(), Some("bytes=10000-"));
}

#[test]
fn a_range_that_does_not_exist_completes_the_file_if_that_is_proven() {
    let body = bytes(4000);
    let unsatisfied = |fields: &str| {
        let head = "HTTP/1.1 416 Range Not Satisfiable\r\n";
        Answer::raw(format!("{head}{fields}Content-Length: 4\r\n\r\nnone"))
    };
    let rows = [
        (
            "proven",
            "ETag: \"v1\"\r\nContent-Range: bytes */4000\r\n",
            2,
        ),
        ("no tag", "Content-Range: bytes */4000\r\n", 3),
        (
            "another file",
            "ETag: \"v2\"\r\nContent-Range: bytes */4000\r\n",
            3,
        ),
        (
            "shorter",
            "ETag: \"v1\"\r\nContent-Range: bytes */3999\r\n",
            3,
        ),
        (
            "longer",
            "ETag: \"v1\"\r\nContent-Range: bytes */4001\r\n",
            3,
        ),
        ("not said", "ETag: \"v1\"\r\n", 3),
    ];
    for (why, fields, attempts) in rows {
        let file = body.clone();
        let answer = unsatisfied(fields);
        let mut sent = 0;
        let mut lab = Lab::new("416", move |_: &Incoming| {
            sent += 1;
            let head =
                "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nTransfer-Encoding: chunked\r\n\r\nfa0\r\n";
            let whole = [head.as_bytes(), &file].concat();
            match sent {
                // The last chunk is missing.
                1 => Answer::raw(whole).close(),
                2 => answer.clone(),
                _ => Answer::raw([&whole[..], b"\r\n0\r\n\r\n"].concat()),
            }
        });
        let request = get().edit().header("Accept-Encoding", "identity");
        let save = lab.save().resume(true);
        let outcome = lab.fetch_by(request.build().unwrap(), save);
        let saved = lab.assert_saved(outcome, &body);
        assert_eq!(saved.attempts, attempts, "{why}");
        assert_eq!(lab.ranges()[1].as_deref(), Some("bytes=4000-"), "{why}");
    }
}

#[test]
fn what_is_not_proven_is_not_asked_for_again() {
    let body = bytes(4000);
    let file = body.clone();
    let mut sent = 0;
    let mut lab = Lab::new("proven", move |request: &Incoming| {
        sent += 1;
        match sent {
            1 => serve_part(request, &file, "\"v1\"", 2000).close(),
            2 => Answer::status(206),
            3 => Answer::status(503),
            _ => serve(request, &file, "\"v1\""),
        }
    });
    let save = lab.save().resume(true);
    let outcome = lab.fetch(save);
    lab.assert_saved(outcome, &body);
    let rest = Some("bytes=2000-".to_owned());
    assert_eq!(lab.ranges(), [None, rest, None, None]);
}

#[test]
fn a_session_that_makes_errors_of_statuses_hides_what_a_416_proves() {
    let body = bytes(4000);
    let file = body.clone();
    let mut sent = 0;
    let mut lab = Lab::new("hidden", move |request: &Incoming| {
        sent += 1;
        match sent {
            1 => serve_part(request, &file, "\"v1\"", 2000).close(),
            2 => Answer::status(416),
            _ => serve(request, &file, "\"v1\""),
        }
    });
    let session = Session::builder().error_for_status(true).build().unwrap();
    let request = get().edit().session(&session).build().unwrap();
    let save = lab.save().resume(true);
    let outcome = lab.fetch_by(request, save);
    lab.assert_saved(outcome, &body);
    let rest = Some("bytes=2000-".to_owned());
    assert_eq!(lab.ranges(), [None, rest, None]);
}

/// The last byte is here, and only the end of the chunked coding is missing.
#[test]
fn a_part_with_the_last_byte_of_the_file_completes_it() {
    let body = bytes(4000);
    let file = body.clone();
    let mut lab = Lab::new("last-byte", move |request: &Incoming| match from(request) {
        None => serve_part(request, &file, "\"v1\"", 2000).close(),
        Some(from) => {
            let head = format!(
                "HTTP/1.1 206 \r\nETag: \"v1\"\r\nContent-Range: bytes {from}-3999/4000\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                4000 - from
            );
            Answer::raw([head.as_bytes(), &file[from..], b"\r\n"].concat()).close()
        }
    });
    let save = lab.save().resume(true);
    let outcome = lab.fetch(save);
    let saved = lab.assert_saved(outcome, &body);
    assert_eq!((saved.attempts, saved.resumed), (2, 1));
}

/// A policy that presents responses in its own way.
#[derive(Clone)]
struct Present(fn() -> Screening);

impl Visit for Present {
    fn on_head(
        &mut self,
        _: &Request,
        _: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        Ok((self.0)())
    }
}

#[test]
fn a_body_that_a_policy_collects_is_saved_and_one_that_it_drops_is_missed() {
    let mut lab = Lab::new("policy", |_: &Incoming| Answer::ok("hello"));
    let by = |screening| {
        let request = get().edit().policy(Arc::new(Present(screening)));
        request.build().unwrap()
    };
    let save = lab.save();
    let outcome = lab.fetch_by(by(Screening::collect), save);
    lab.assert_saved(outcome, b"hello");
    fs::remove_file(lab.dir.file()).unwrap();
    let save = lab.save().resume(true);
    let outcome = lab.fetch_by(by(Screening::discard), save);
    let error = lab.assert_failed(outcome, ErrorKind::Body);
    assert_eq!(reason(&error).kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_download_for_a_part_that_is_gone_leaves_no_file() {
    let (dir, network) = (Dir::new("gone"), Network::new(1));
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok(bytes(10_000)).drip(100, SECOND)
    });
    let mut engine = Engine::<Vec<World>, Sim>::on_network(&network, Config::default()).unwrap();
    let mut worlds = vec![World::default()];
    let save = Save::to(dir.file()).then(World::on_saved);
    engine.submit_to(
        get(),
        within_to(|worlds: &mut Vec<World>| worlds.first_mut(), save),
    );
    engine.advance(&mut worlds, 20 * SECOND).unwrap();
    assert_eq!(dir.names().len(), 1);
    worlds.clear();
    engine.run(&mut worlds).unwrap();
    assert!(dir.names().is_empty());
}

/// A server that may break off, be busy, lie about its parts, and change its file, on a network
/// with faults. Whatever is saved is one version of the file.
#[test]
fn whatever_happens_only_whole_files_are_saved() {
    let (mut complete, mut resumed, mut failed) = (0, 0, 0);
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let len = random.between(1, 5000);
        let versions: Vec<_> = (0..3).map(|_| random.bytes(len)).collect();
        let files = versions.clone();
        let faults = Faults::some(&mut random);
        let mut chance = random.fork();
        let mut version = 0;
        let mut lab = Lab::new(&format!("seed-{seed}"), move |request: &Incoming| {
            version = (version + usize::from(chance.chance(50))).min(2);
            let (file, etag) = (&files[version], format!("\"{version}\""));
            let end = chance.below(2 * file.len());
            match chance.below(10) {
                0 => Answer::status(503),
                1 => Answer::nothing().reset(),
                // A part of any version, from anywhere.
                2 => {
                    let (at, other) = (chance.below(len), chance.below(3));
                    let range = format!("bytes {at}-{}/{len}", len - 1);
                    let part = Answer::status(206).header("Content-Range", range);
                    let part = part.header("ETag", format!("\"{other}\""));
                    part.body(&files[other][at..])
                }
                3 => Answer::status(416)
                    .header("Content-Range", format!("bytes */{end}"))
                    .header("ETag", etag),
                4 => {
                    let pieces: Vec<_> = file.chunks(100).map(<[u8]>::to_vec).collect();
                    Answer::status(200)
                        .header("ETag", etag)
                        .chunked(pieces)
                        .truncate(end)
                        .close()
                }
                5..8 => serve_part(request, file, &etag, end).close(),
                _ => serve_part(request, file, &etag, end)
                    .drip(100, SECOND / 100)
                    .reset(),
            }
        });
        lab.network.set_faults(faults);
        let save = lab.save().resume(true);
        match lab.fetch(save) {
            Ok(saved) => {
                let file = fs::read(lab.dir.file()).unwrap();
                assert!(versions.contains(&file), "seed {seed}");
                assert_eq!(lab.dir.names(), ["file"], "seed {seed}");
                complete += 1;
                resumed += saved.resumed;
            }
            Err(error) => {
                assert!(lab.dir.names().is_empty(), "seed {seed}: {error:#}");
                failed += 1;
            }
        }
    }
    assert!(
        complete > 100 && resumed > 50 && failed > 10,
        "{complete} {resumed} {failed}"
    );
}

#[test]
fn an_endless_body_of_a_useless_response_is_not_read() {
    let body = bytes(4000);
    let file = body.clone();
    let mut sent = 0;
    let mut lab = Lab::new("endless", move |request: &Incoming| {
        sent += 1;
        match sent {
            1 => serve_part(request, &file, "\"v1\"", 2000).close(),
            2 => Answer::status(206).body(vec![0; 1 << 20]).drip(100, SECOND),
            _ => serve(request, &file, "\"v1\""),
        }
    });
    let save = lab.save().resume(true);
    let outcome = lab.fetch(save);
    lab.assert_saved(outcome, &body);
    assert!(lab.network.elapsed() < 2 * SECOND);
}

#[test]
fn a_server_that_starts_over_each_time_is_given_up() {
    let body = bytes(10_000);
    for etag in ["\"v1\"", "W/\"v1\""] {
        let file = body.clone();
        let mut lab = Lab::new("starts-over", move |_: &Incoming| {
            // It ignores the range.
            let head = format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 10000\r\n\r\n");
            Answer::raw([head.as_bytes(), &file[..3]].concat()).close()
        });
        let save = lab.save().resume(true);
        let outcome = lab.fetch(save);
        let error = lab.assert_failed(outcome, ErrorKind::Truncated);
        assert!(error.request().is_some());
        assert_eq!(lab.ranges().len(), 5);
        let told = lab.told.lock().unwrap();
        assert!(told.iter().all(|(seen, _)| *seen <= 3));
    }
}

#[test]
fn a_server_that_sends_a_little_more_each_time_is_given_up() {
    let body = bytes(100_000);
    for is_resuming in [true, false] {
        let file = body.clone();
        let mut sent = 0;
        let mut lab = Lab::new("little", move |request: &Incoming| {
            sent += 1;
            match is_resuming {
                true => serve_part(request, &file, "\"v1\"", 1).close(),
                false => serve_part(request, &file, "W/\"v1\"", sent).close(),
            }
        });
        let save = lab.save().retry(Retry::forever()).resume(true);
        let outcome = lab.fetch(save);
        lab.assert_failed(outcome, ErrorKind::Truncated);
        assert_eq!(lab.ranges().len(), 1000);
        let best = lab.told.lock().unwrap().iter().map(|(seen, _)| *seen).max();
        assert_eq!(best, Some(1000));
    }
}

#[test]
fn progress_renews_the_attempts() {
    // Each part is preceded by three failures.
    let body = bytes(10_000);
    let file = body.clone();
    let mut sent = 0;
    let mut lab = Lab::new("renews", move |request: &Incoming| {
        sent += 1;
        match sent % 4 {
            0 => serve_part(request, &file, "\"v1\"", 1000).close(),
            1 => Answer::nothing().close(),
            2 => Answer::status(503),
            _ => serve_part(request, &file, "\"v1\"", 0).reset(),
        }
    });
    let save = lab.save().resume(true);
    let outcome = lab.fetch(save);
    let saved = lab.assert_saved(outcome, &body);
    assert_eq!(saved.attempts, 40);
    lab.assert_progress(10_000, &[Some(10_000)]);
}

#[test]
fn a_server_that_is_busy_says_how_long_to_wait() {
    let body = bytes(10_000);
    let file = body.clone();
    let times = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&times);
    let mut lab = Lab::new("busy", move |request: &Incoming| {
        seen.borrow_mut().push(request.at);
        let count = seen.borrow().len();
        match count {
            1 => serve_part(request, &file, "\"v1\"", 4000).close(),
            2 => Answer::status(503)
                .header("Retry-After", "30")
                .body("later"),
            _ => serve(request, &file, "\"v1\""),
        }
    });
    let save = lab.save().resume(true);
    let outcome = lab.fetch(save);
    lab.assert_saved(outcome, &body);
    let times = times.borrow();
    assert!(times[1] - times[0] < SECOND);
    assert!(times[2] - times[1] >= 30 * SECOND);
    let rest = || Some("bytes=4000-".to_owned());
    assert_eq!(lab.ranges(), [None, rest(), rest()]);
}

#[test]
fn what_is_no_file_is_an_error_with_its_status() {
    let rows = [
        (201, "created"),
        (202, "not yet"),
        (204, ""),
        (205, ""),
        (206, "a part that was not asked for"),
        (301, "elsewhere"),
        (304, ""),
        (403, "not for you"),
        (404, "no such file"),
        (412, "it has changed"),
        (416, ""),
        (501, "what?"),
    ];
    for (status, body) in rows {
        let mut lab = Lab::new("status", move |_: &Incoming| {
            Answer::status(status).body(body)
        });
        fs::write(lab.dir.file(), "old").unwrap();
        let save = lab.save().resume(true);
        let error = lab.fetch(save).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
        assert_eq!(error.status().map(|it| it.as_u16()), Some(status));
        assert_eq!(error.partial_body(), body.as_bytes());
        assert_eq!(lab.dir.names(), ["file"]);
        assert_eq!(fs::read(lab.dir.file()).unwrap(), b"old");
        assert_eq!(lab.ranges().len(), 1);
        assert!(lab.told.lock().unwrap().is_empty());
    }
}

#[test]
fn a_status_ends_a_download_that_is_continued() {
    let body = bytes(10_000);
    for status in [404, 412, 304, 302] {
        let file = body.clone();
        let mut lab = Lab::new("ends", move |request: &Incoming| match from(request) {
            None => serve_part(request, &file, "\"v1\"", 4000).close(),
            Some(_) => Answer::status(status),
        });
        let save = lab.save().resume(true);
        let outcome = lab.fetch(save);
        let error = lab.assert_failed(outcome, ErrorKind::Status);
        assert_eq!(error.status().map(|it| it.as_u16()), Some(status));
        assert_eq!(lab.ranges().len(), 2);
    }
}

#[test]
fn a_response_to_head_replaces_nothing() {
    let mut lab = Lab::new("head", |_: &Incoming| Answer::ok("hello"));
    let request = Request::head("http://10.0.0.1/file").build().unwrap();
    let save = lab.save().resume(true);
    let outcome = lab.fetch_by(request, save);
    let error = lab.assert_failed(outcome, ErrorKind::Body);
    assert!(format!("{error:#}").ends_with("a response to HEAD has no body to save"));
    assert_eq!(lab.ranges().len(), 1);
}

#[test]
fn a_tunnel_is_not_saved() {
    let mut lab = Lab::new("tunnel", |_: &Incoming| {
        Answer::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nhello")
    });
    let request = get().edit().header("Upgrade", "echo").build().unwrap();
    let save = lab.save().resume(true);
    let outcome = lab.fetch_by(request, save);
    lab.assert_failed(outcome, ErrorKind::Body);
}

/// Returns the reason of an error about a file.
fn reason(error: &Error) -> &io::Error {
    let source = std::error::Error::source(error).expect("there is a reason");
    source.downcast_ref().expect("it is an I/O error")
}

#[test]
fn trouble_with_the_file_is_told_apart_and_not_repeated() {
    let body = bytes(10_000);
    type Target = fn(&Path) -> PathBuf;
    let rows: &[(&str, Target, io::ErrorKind)] = &[
        (
            "missing",
            |dir| dir.join("no/file"),
            io::ErrorKind::NotFound,
        ),
        (
            "a directory",
            |dir| dir.to_owned(),
            io::ErrorKind::IsADirectory,
        ),
        ("no name", |_| PathBuf::new(), io::ErrorKind::InvalidInput),
        ("parent", |dir| dir.join(".."), io::ErrorKind::InvalidInput),
    ];
    for (why, target, kind) in rows {
        let file = body.clone();
        let mut lab = Lab::new("trouble", move |_: &Incoming| Answer::ok(file.clone()));
        let target = target(&lab.dir.0);
        let save = Save::to(target).resume(true).retry(Retry::forever());
        let outcome = lab.fetch(save);
        let error = lab.assert_failed(outcome, ErrorKind::Body);
        assert_eq!(reason(&error).kind(), *kind, "{why}: {error:#}");
        assert_eq!(error.status().map(|it| it.as_u16()), Some(200));
        assert!(error.request().is_some() && error.origin().is_some());
        assert_eq!(io::Error::from(error).kind(), *kind);
        assert_eq!(lab.ranges().len(), 1, "{why}");
    }
}

/// Stands for a device, whose replacement would harm the machine.
#[cfg(unix)]
#[test]
fn a_socket_is_not_replaced() {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixListener;

    let mut lab = Lab::new("socket", |_: &Incoming| Answer::ok("hello"));
    let target = lab.dir.file();
    let _listener = UnixListener::bind(&target).unwrap();
    let save = lab.save().resume(true);
    let error = lab.fetch(save).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert_eq!(reason(&error).kind(), io::ErrorKind::InvalidInput);
    let found = fs::symlink_metadata(&target).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(lab.dir.names(), ["file"]);
}

#[test]
fn a_target_that_became_a_directory_fails_at_the_end() {
    let mut lab = Lab::new("became", |_: &Incoming| Answer::ok("hello"));
    let target = lab.dir.file();
    let save = Save::to(&target).progress(move |_, _| _ = fs::create_dir(&target));
    let error = lab.fetch(save.resume(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body, "{error:#}");
    assert_eq!(reason(&error).kind(), io::ErrorKind::IsADirectory);
    // The directory itself, without a temporary file beside it.
    assert_eq!(lab.dir.names(), ["file"]);
    assert_eq!(lab.ranges().len(), 1);
}

#[test]
fn files_that_are_too_large_are_refused() {
    let body = bytes(1001);
    let chunks = [&body[..1000], &body[1000..]];
    let rows = [
        ("said in advance", Answer::ok(body.clone()), None),
        (
            "found out",
            Answer::status(200).chunked(chunks).drip(100, SECOND),
            Some(1000),
        ),
    ];
    for (why, answer, seen) in rows {
        let mut lab = Lab::new("too-large", move |_: &Incoming| answer.clone());
        let save = lab.save().max_bytes(1000).resume(true);
        let outcome = lab.fetch(save);
        let error = lab.assert_failed(outcome, ErrorKind::Body);
        assert_eq!(reason(&error).kind(), io::ErrorKind::FileTooLarge, "{why}");
        let most = lab.told.lock().unwrap().iter().map(|(seen, _)| *seen).max();
        assert!(most <= seen, "{why}: {most:?}");
    }
    let mut lab = Lab::new("large-enough", move |_: &Incoming| {
        Answer::ok(body[..1000].to_vec())
    });
    let save = lab.save().max_bytes(1000);
    assert_eq!(lab.fetch(save).unwrap().bytes, 1000);
}

/// A download that has got half-way.
fn halfway(test: &str) -> (Lab, httpstream::ChainId) {
    let mut lab = Lab::new(test, |_: &Incoming| {
        Answer::ok(bytes(10_000))
            .header("ETag", "\"v1\"")
            .drip(100, SECOND)
    });
    let save = lab.save().resume(true).then(World::on_saved);
    let chain = lab.engine.submit_to(get(), save);
    lab.engine.advance(&mut lab.world, 20 * SECOND).unwrap();
    assert_eq!(lab.dir.names().len(), 1);
    assert!(lab.dir.names()[0].ends_with(".part"));
    (lab, chain)
}

#[test]
fn a_canceled_download_leaves_no_file() {
    let (mut lab, chain) = halfway("canceled");
    lab.engine.cancel(chain);
    lab.run();
    let outcome = lab.world.outcome();
    lab.assert_failed(outcome, ErrorKind::Cancelled);
}

#[test]
fn a_download_canceled_while_it_waits_leaves_no_file() {
    let mut lab = Lab::new("canceled-waiting", |request: &Incoming| {
        match from(request) {
            None => serve_part(request, &bytes(10_000), "\"v1\"", 4000).close(),
            Some(_) => Answer::status(503).header("Retry-After", "50"),
        }
    });
    let save = lab.save().resume(true).then(World::on_saved);
    let chain = lab.engine.submit_to(get(), save);
    lab.engine.advance(&mut lab.world, 20 * SECOND).unwrap();
    assert_eq!(lab.dir.names().len(), 1);
    lab.engine.cancel(chain);
    lab.run();
    let outcome = lab.world.outcome();
    lab.assert_failed(outcome, ErrorKind::Cancelled);
}

#[test]
fn a_dropped_engine_leaves_no_file() {
    let (lab, _) = halfway("dropped");
    let Lab { dir, engine, .. } = lab;
    drop(engine);
    assert!(dir.names().is_empty());
}

#[test]
fn a_panic_leaves_no_file() {
    let mut lab = Lab::new("panic", |_: &Incoming| {
        Answer::ok(bytes(10_000)).drip(100, SECOND)
    });
    let save = Save::to(lab.dir.file()).progress(|seen, _| assert!(seen < 5000, "enough"));
    lab.engine.submit_to(get(), save.then(World::on_saved));
    let run = std::panic::AssertUnwindSafe(|| lab.engine.run(&mut lab.world));
    std::panic::catch_unwind(run).unwrap_err();
    assert!(lab.world.saved.is_empty());
    assert!(lab.dir.names().is_empty());
}

/// The server breaks off again and again, so an attempt follows whenever the chain may go on.
fn breaking(test: &str) -> Lab {
    Lab::new(test, |request: &Incoming| {
        serve_part(request, &bytes(10_000), "\"v1\"", 100)
            .after(SECOND)
            .close()
    })
}

#[test]
fn the_deadline_of_the_chain_ends_a_download() {
    let mut lab = breaking("deadline");
    let save = lab.save().resume(true).then(World::on_saved);
    let next = Next::send(get()).read_to(save);
    lab.engine.start(next.chain_timeout(20 * SECOND));
    lab.run();
    assert_eq!(lab.network.elapsed(), 20 * SECOND);
    let outcome = lab.world.outcome();
    let error = lab.assert_failed(outcome, ErrorKind::Timeout);
    assert!(format!("{error:#}").contains("chain_timeout"));
    assert!(lab.ranges().len() > 10);
}

#[test]
fn a_drain_ends_a_download_at_its_next_break() {
    let mut lab = breaking("drained");
    let save = lab.save().resume(true).then(World::on_saved);
    lab.engine.submit_to(get(), save);
    // The second attempt is under way.
    lab.engine
        .advance(&mut lab.world, 1700 * SECOND / 1000)
        .unwrap();
    let before = lab.ranges().len();
    assert_eq!(before, 2);
    lab.engine.drain(&mut lab.world, 60 * SECOND).unwrap();
    let outcome = lab.world.outcome();
    lab.assert_failed(outcome, ErrorKind::Truncated);
    assert_eq!(lab.ranges().len(), before);
}

/// The rest is asked for in the login that the download belongs to.
#[test]
fn the_end_of_its_login_ends_a_download() {
    let mut lab = Lab::new("login", |request: &Incoming| match from(request) {
        None => serve_part(request, &bytes(10_000), "\"v1\"", 4000).close(),
        Some(4000) => Answer::status(206)
            .header("Content-Range", "bytes 4000-4999/10000")
            .header("ETag", "\"v1\"")
            .body(&bytes(10_000)[4000..5000]),
        Some(_) => serve(request, &bytes(10_000), "\"v1\""),
    });
    let session = Session::builder().build().unwrap();
    let request = get().edit().session(&session).build().unwrap();
    // In the turn in which the next part is asked for.
    let ended = session.clone();
    let save = Save::to(lab.dir.file()).resume(true);
    let save = save.progress(move |seen, _| {
        if seen == 5000 {
            ended.end();
        }
    });
    let outcome = lab.fetch_by(request, save);
    lab.assert_failed(outcome, ErrorKind::Cancelled);
    assert_eq!(lab.ranges(), [None, Some("bytes=4000-".to_owned())]);
}

#[test]
fn two_downloads_to_one_target_do_not_mix() {
    for seed in 0..10 {
        let mut lab = Lab::new("two", move |request: &Incoming| {
            let mut random = Random::new(seed);
            let (one, two) = (random.between(1, 50), random.between(1, 50));
            let millis = Duration::from_millis;
            match request.query() {
                Some("1") => Answer::ok(vec![1; 10_000]).drip(500, millis(one as u64)),
                _ => Answer::ok(vec![2; 8000]).drip(500, millis(two as u64)),
            }
        });
        for url in ["http://10.0.0.1/file?1", "http://10.0.0.1/file?2"] {
            let request = Request::get(url).build().unwrap();
            let save = lab.save().then(World::on_saved);
            lab.engine.submit_to(request, save);
        }
        lab.run();
        let mut lengths = lab.world.saved.iter().map(|it| it.as_ref().unwrap().bytes);
        let last = lengths.next_back().unwrap();
        let expected = if last == 10_000 {
            vec![1; 10_000]
        } else {
            vec![2; 8000]
        };
        assert_eq!(lab.world.saved.len(), 2);
        assert!(fs::read(lab.dir.file()).unwrap() == expected);
        assert_eq!(lab.dir.names(), ["file"]);
    }
}

/// The last request of the chain is then the one for the rest of the file.
#[test]
fn the_same_request_again_saves_the_whole_file_again() {
    let body = bytes(10_000);
    for is_error_for_status in [false, true] {
        let file = body.clone();
        let mut sent = 0;
        let mut lab = Lab::new("again", move |request: &Incoming| {
            sent += 1;
            match sent {
                1 => serve_part(request, &file, "\"v1\"", 4000).close(),
                // There is no rest any more when it is asked for again.
                3 if is_error_for_status => Answer::status(416),
                _ => serve(request, &file, "\"v1\""),
            }
        });
        let session = Session::builder()
            .error_for_status(is_error_for_status)
            .build()
            .unwrap();
        let path = lab.dir.file();
        let save = lab
            .save()
            .resume(true)
            .then(move |world: &mut World, saved, _| {
                world.saved.push(saved);
                let bytes = fs::read(&path).unwrap();
                assert_eq!(bytes.len(), 10_000);
                fs::remove_file(&path).unwrap();
                match world.saved.len() {
                    1 => Next::again().after(SECOND),
                    _ => Next::done(),
                }
            });
        let request = get().edit().session(&session).build().unwrap();
        lab.engine.submit_to(request, save);
        lab.run();
        let facts = |saved: &Result<Saved, Error>| {
            let saved = saved.as_ref().unwrap();
            (saved.bytes, saved.attempts, saved.resumed)
        };
        let facts: Vec<_> = lab.world.saved.iter().map(facts).collect();
        assert_eq!(facts, [(10_000, 2, 1), (10_000, 2, 0)]);
        let rest = || Some("bytes=4000-".to_owned());
        assert_eq!(lab.ranges(), [None, rest(), rest(), None]);
        assert!(lab.dir.names().is_empty());
    }
}

#[test]
fn another_request_of_the_chain_is_saved_too() {
    let mut lab = Lab::new("another", |request: &Incoming| match request.path() {
        "/file" => Answer::ok("one"),
        _ => Answer::ok("second"),
    });
    let path = lab.dir.file();
    let save = lab.save().then(move |world: &mut World, saved, cx| {
        world.saved.push(saved);
        match world.saved.len() {
            1 => {
                assert_eq!(fs::read(&path).unwrap(), b"one");
                cx.send(Request::get("http://10.0.0.1/other").build().unwrap())
            }
            _ => cx.done(),
        }
    });
    lab.engine.submit_to(get(), save);
    lab.run();
    assert_eq!(lab.world.saved.len(), 2);
    assert_eq!(fs::read(lab.dir.file()).unwrap(), b"second");
    assert_eq!(lab.dir.names(), ["file"]);
}

#[test]
fn nobody_has_to_wait_for_it() {
    let mut lab = Lab::new("nobody", |request: &Incoming| match request.path() {
        "/file" => Answer::ok("hello"),
        _ => Answer::status(404),
    });
    let save = lab.save();
    lab.engine.submit_to(get(), save);
    let missing = Request::get("http://10.0.0.1/missing").build().unwrap();
    lab.engine
        .submit_to(missing, Save::to(lab.dir.0.join("missing")));
    lab.run();
    assert_eq!(fs::read(lab.dir.file()).unwrap(), b"hello");
    assert_eq!(lab.dir.names(), ["file"]);
}

#[test]
fn it_runs_in_a_part_of_the_state_and_comes_from_other_threads() {
    let (dir, network) = (Dir::new("parts"), Network::new(1));
    let body = bytes(10_000);
    let file = body.clone();
    network.serve(
        "10.0.0.1:80".parse().unwrap(),
        move |request: &Incoming| match from(request) {
            None => serve_part(request, &file, "\"v1\"", 4000).close(),
            Some(_) => serve(request, &file, "\"v1\""),
        },
    );
    let mut engine = Engine::<Vec<World>, Sim>::on_network(&network, Config::default()).unwrap();
    let mut worlds = vec![World::default(), World::default()];
    let save = Save::to(dir.0.join("part"))
        .resume(true)
        .then(World::on_saved);
    let save = within_to(|worlds: &mut Vec<World>| worlds.get_mut(1), save);
    engine.submit_to(get(), save);

    let submitter = engine.submitter();
    let path = dir.0.join("thread");
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let save = Save::to(path)
            .resume(true)
            .progress(move |seen, _| _ = tell.send(seen));
        let save = save.then(|worlds: &mut Vec<World>, saved, _| {
            worlds[0].saved.push(saved);
            Next::done()
        });
        submitter.submit_to(get(), save).map(|_| ())
    });
    thread
        .join()
        .unwrap()
        .unwrap_or_else(|_| panic!("it is accepted"));
    engine.run(&mut worlds).unwrap();
    for world in &mut worlds {
        assert_eq!(world.outcome().unwrap().resumed, 1);
    }
    assert_eq!(told.try_iter().last(), Some(10_000));
    assert_eq!(dir.names(), ["part", "thread"]);
    for name in dir.names() {
        assert!(fs::read(dir.0.join(name)).unwrap() == body);
    }
}

#[test]
fn a_save_goes_between_threads() {
    fn check<T: Send + 'static>() {}
    check::<Save>();
    check::<Saved>();
    check::<SaveThen<fn()>>();
}

#[test]
fn what_lies_behind_a_redirect_is_saved_and_continued() {
    let body = bytes(10_000);
    let file = body.clone();
    let mut lab = Lab::new("redirect", move |request: &Incoming| {
        match (request.path(), from(request)) {
            ("/file", _) => Answer::status(302)
                .header("Location", "/moved")
                .header("ETag", "\"v0\"")
                .body("this is not the file"),
            (_, None) => serve_part(request, &file, "\"v1\"", 4000).close(),
            (_, Some(_)) => serve(request, &file, "\"v1\""),
        }
    });
    let session = Session::builder()
        .redirects(Redirects::limited(3))
        .build()
        .unwrap();
    let request = get().edit().session(&session).build().unwrap();
    let save = lab.save().resume(true);
    let outcome = lab.fetch_by(request, save);
    let saved = lab.assert_saved(outcome, &body);
    assert_eq!((saved.attempts, saved.resumed), (2, 1));
    lab.assert_progress(10_000, &[Some(10_000)]);
}

#[cfg(feature = "gzip")]
#[test]
fn a_session_decodes_what_is_saved_and_the_rest_is_not_asked_for() {
    use flate2::Compression;
    use httpstream::session::Decode;
    use std::io::Write;

    let body = b"to be or not to be, ".repeat(5000);
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    coder.write_all(&body).unwrap();
    let coded = coder.finish().unwrap();
    for breaks in [false, true] {
        let (file, coded) = (body.clone(), coded.clone());
        let mut sent = 0;
        let mut lab = Lab::new("gzip", move |request: &Incoming| {
            sent += 1;
            let codings = field(request, "Accept-Encoding").unwrap();
            if !codings.contains("gzip") {
                assert_eq!(codings, "identity");
                return match sent {
                    2 => serve_part(request, &file, "\"v1\"", 4000).close(),
                    _ => serve(request, &file, "\"v1\""),
                };
            }
            let head = "HTTP/1.1 200 OK\r\nETag: \"v1-gzip\"\r\nContent-Encoding: gzip\r\n";
            let head = format!("{head}Content-Length: {}\r\n\r\n", coded.len());
            let len = if breaks {
                coded.len() - 30
            } else {
                coded.len()
            };
            Answer::raw([head.as_bytes(), &coded[..len]].concat()).close()
        });
        let session = Session::builder().decode(Decode::all()).build().unwrap();
        let request = get().edit().session(&session).build().unwrap();
        let save = lab.save().resume(true);
        let outcome = lab.fetch_by(request, save);
        let saved = lab.assert_saved(outcome, &body);
        let (attempts, resumed) = if breaks { (3, 1) } else { (1, 0) };
        assert_eq!((saved.attempts, saved.resumed), (attempts, resumed));
    }
}

#[test]
fn a_turn_writes_no_more_than_it_reads() {
    const SHARE: usize = 40_000;
    let mut config = Config::default();
    config.turn_bytes = SHARE;
    config.read_buffer = SHARE;
    let mut lab = Lab::with("turns", config, |_: &Incoming| Answer::ok(bytes(2_000_000)));
    let save = lab.save().then(World::on_saved);
    lab.engine.submit_to(get(), save);
    let (mut before, mut turns) = (0, 0);
    while lab.world.saved.is_empty() {
        lab.engine.turn(&mut lab.world).unwrap();
        let here = lab.told.lock().unwrap().last().map_or(0, |(seen, _)| *seen);
        // Its share, once for the event and once from the run queue.
        assert!(here - before <= 2 * SHARE as u64, "{}", here - before);
        turns += u64::from(here > before);
        before = here;
        lab.network.sleep(Duration::from_millis(1));
    }
    assert!(turns > 2_000_000 / (2 * SHARE as u64), "{turns}");
    let outcome = lab.world.outcome();
    lab.assert_saved(outcome, &bytes(2_000_000));
}

#[test]
fn the_total_timeout_covers_an_attempt_and_may_be_lifted() {
    for total in [Some(300 * SECOND), None] {
        let mut lab = Lab::new("total", |request: &Incoming| match from(request) {
            None => Answer::ok(bytes(10_000))
                .header("ETag", "\"v1\"")
                .drip(100, 10 * SECOND),
            Some(_) => serve(request, &bytes(10_000), "\"v1\""),
        });
        let request = get().edit().timeouts(|t| t.total = total).build().unwrap();
        let save = lab.save().resume(true);
        let outcome = lab.fetch_by(request, save);
        let saved = lab.assert_saved(outcome, &bytes(10_000));
        assert_eq!(saved.resumed, u32::from(total.is_some()));
    }
}
