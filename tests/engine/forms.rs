//! `multipart/form-data`: read here by a strict reader of its own.

use std::io;
use std::path::PathBuf;
use std::task::Waker;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{BodySource, Config, Engine, Error, ErrorKind, Form, Next, Request, Sim, Supply};

/// A part: its name, its file name and type, and its content.
type Part = (String, Option<String>, Option<String>, Vec<u8>);

/// Reads a form by RFC 7578 and RFC 2046 §5.1.1.
fn parts_of(request: &Incoming) -> Vec<Part> {
    let content_type = request.header("content-type").expect("a type");
    let content_type = str::from_utf8(content_type).unwrap();
    let boundary = content_type
        .strip_prefix("multipart/form-data; boundary=")
        .unwrap();
    assert!((20..=70).contains(&boundary.len()));
    let mut rest = request.body();
    let mut parts = Vec::new();
    let delimiter = format!("--{boundary}");
    rest = rest
        .strip_prefix(delimiter.as_bytes())
        .expect("a delimiter");
    loop {
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest
            .strip_prefix(b"\r\n")
            .expect("CRLF behind the delimiter");
        let inner = format!("\r\n{delimiter}");
        let end = find(rest, inner.as_bytes()).expect("another delimiter");
        parts.push(part_of(&rest[..end]));
        rest = &rest[end + inner.len()..];
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|it| it == needle)
}

fn part_of(bytes: &[u8]) -> Part {
    let head = find(bytes, b"\r\n\r\n").expect("an empty line");
    let fields = str::from_utf8(&bytes[..head]).unwrap();
    let mut lines = fields.split("\r\n");
    let disposition = lines.next().unwrap();
    let params = disposition
        .strip_prefix("Content-Disposition: form-data; name=\"")
        .and_then(|it| it.strip_suffix('"'))
        .unwrap_or_else(|| panic!("{disposition}"));
    let (name, file) = match params.split_once("\"; filename=\"") {
        Some((name, file)) => (name, Some(file.to_owned())),
        None => (params, None),
    };
    assert!(!name.contains('"'));
    let content_type = lines.next().map(|line| {
        let value = line.strip_prefix("Content-Type: ").expect("a type");
        value.to_owned()
    });
    assert_eq!(lines.next(), None);
    (
        name.to_owned(),
        file,
        content_type,
        bytes[head + 4..].to_vec(),
    )
}

type Ends = Vec<Result<(), Error>>;

/// Sends a form, and returns its parts and its length as they arrived.
fn send(form: Form) -> Result<(Vec<Part>, Option<usize>), Error> {
    let network = Network::new(1);
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("")
    });
    let mut engine = Engine::<Ends, Sim>::on_network(&network, Config::default())?;
    let request = Request::post("http://10.0.0.1/").multipart(form).build()?;
    // Twice, which needs new sources.
    for _ in 0..2 {
        engine.submit(request.clone(), |ends: &mut Ends, reply, _| {
            ends.push(reply.map(drop));
            Next::done()
        });
    }
    let mut ends = Ends::new();
    engine.run(&mut ends)?;
    assert!(network.misuses().is_empty());
    ends.into_iter().collect::<Result<Vec<()>, Error>>()?;
    let ledger = network.ledger();
    let mut requests = ledger.requests();
    let first = requests.next().unwrap();
    assert_eq!(first.body(), requests.next().unwrap().body());
    let length = first.header("content-length").map(|it| {
        let length = str::from_utf8(it).unwrap().parse().unwrap();
        assert_eq!(first.body().len(), length);
        length
    });
    Ok((parts_of(first), length))
}

fn part(name: &str, file: Option<(&str, &str)>, content: impl Into<Vec<u8>>) -> Part {
    let (file, content_type) = file.unzip();
    (
        name.into(),
        file.map(Into::into),
        content_type.map(Into::into),
        content.into(),
    )
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = format!("httpstream-forms-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Yields `bytes` one at a time, but says a size of its own.
#[derive(Clone)]
struct OneByOne {
    bytes: Vec<u8>,
    size: Option<u64>,
    is_waiting: bool,
}

impl BodySource for OneByOne {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        self.is_waiting = !self.is_waiting;
        if self.is_waiting {
            waker.wake_by_ref();
            return Ok(Supply::Wait);
        }
        if self.bytes.is_empty() {
            return Ok(Supply::End);
        }
        room[0] = self.bytes.remove(0);
        Ok(Supply::Bytes(1))
    }
}

/// Says that it has written so many bytes.
struct Says(usize);

impl BodySource for Says {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, _: &mut [u8], _: &Waker) -> io::Result<Supply> {
        Ok(Supply::Bytes(self.0))
    }
}

fn one_by_one(bytes: &[u8], size: Option<u64>) -> OneByOne {
    OneByOne {
        bytes: bytes.to_vec(),
        size,
        is_waiting: false,
    }
}

#[test]
fn parts_arrive_in_order_with_their_content() {
    let scratch = Scratch::new("order");
    let large: Vec<u8> = (0..300_000_u32).map(|i| (i / 7) as u8).collect();
    let form = Form::new()
        .text("chat_id", 42)
        .text("text", "first line\nsecond line \"quoted\" \u{e9}")
        .typed("about", "application/json", "{}")
        .file("photo", scratch.file("cat.JPG", &large))
        .file("none", scratch.file("empty", ""))
        .bytes(
            "raw",
            "a.bin",
            "application/x-raw",
            b"\0\r\n--\xff".to_vec(),
        )
        .source("slow", "slow.txt", "text/plain", || {
            Ok(one_by_one(b"slow", Some(4)))
        });
    let (parts, length) = send(form).unwrap();
    let about = (
        "about".into(),
        None,
        Some("application/json".into()),
        b"{}".to_vec(),
    );
    let expected = [
        part("chat_id", None, "42"),
        part("text", None, "first line\nsecond line \"quoted\" \u{e9}"),
        about,
        part("photo", Some(("cat.JPG", "image/jpeg")), large),
        part("none", Some(("empty", "application/octet-stream")), ""),
        part(
            "raw",
            Some(("a.bin", "application/x-raw")),
            *b"\0\r\n--\xff",
        ),
        part("slow", Some(("slow.txt", "text/plain")), "slow"),
    ];
    assert!(parts == expected);
    assert!(length.is_some());
}

#[test]
fn a_form_whose_length_is_not_known_is_chunked() {
    let form = Form::new()
        .text("a", "b")
        .source("c", "d", "e", || Ok(one_by_one(b"content", None)));
    let (parts, length) = send(form).unwrap();
    assert_eq!(parts[1], part("c", Some(("d", "e")), "content"));
    assert_eq!(length, None);
}

#[test]
fn an_empty_form_is_a_closing_delimiter() {
    let (parts, length) = send(Form::new()).unwrap();
    assert_eq!(parts, []);
    assert!(length.is_some());
}

#[test]
fn names_are_escaped_as_browsers_do() {
    let name = "a\"b\r\nContent-Type: x\r\n\r\n";
    let form = Form::new()
        .text(name, 1)
        .bytes("\u{fc}\t'\\;=", "x\"\n.txt", "text/plain", "2");
    let (parts, _) = send(form).unwrap();
    let escaped = "a%22b%0D%0AContent-Type: x%0D%0A%0D%0A";
    let file = Some(("x%22%0A.txt", "text/plain"));
    assert_eq!(
        parts,
        [part(escaped, None, "1"), part("\u{fc}\t'\\;=", file, "2")]
    );
}

#[test]
fn what_cannot_be_escaped_is_an_error() {
    struct Undisplayable;
    impl std::fmt::Display for Undisplayable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Err(std::fmt::Error)
        }
    }
    let forms = [
        Form::new().text("nul\0", 1),
        Form::new().bytes("name", "a\x1b", "text/plain", ""),
        Form::new().bytes("name", "a", "text/plain\r\nX: y", ""),
        Form::new().typed("name", "text/plain\r\nX: y", ""),
        Form::new().text("fine", 1).text("name", Undisplayable),
    ];
    for form in forms {
        let built = Request::post("http://10.0.0.1/").multipart(form).build();
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let text = format!("{error:#}");
        assert!(
            text.contains("part \"na") || text.contains("part \"nul"),
            "{text}"
        );
    }
}

#[test]
fn files_and_sources_that_are_not_as_they_said_fail_the_request() {
    let scratch = Scratch::new("lies");
    let shorter = scratch.file("shorter", "hello");
    let shrinks = shorter.clone();
    // Shortens the file when the body has begun.
    let shrink = move || {
        std::fs::write(&shrinks, "").unwrap();
        Ok(one_by_one(b"x", Some(1)))
    };
    let form = || Form::new().text("a", "b");
    let rows = [
        (form().file("f", scratch.0.join("missing")), "missing"),
        (form().file("f", &scratch.0), "not a regular file"),
        (
            form().source("s", "s", "s", || Ok(one_by_one(b"content", Some(8)))),
            "1 bytes are missing",
        ),
        (
            form().source("s", "s", "s", || Ok(one_by_one(b"content", Some(6)))),
            "more bytes",
        ),
        (form().source("s", "s", "s", || Ok(Says(0))), "said 0 bytes"),
        (
            form().source("s", "s", "s", || Ok(Says(usize::MAX))),
            "for a room of",
        ),
        (
            form().file("f", shorter).source("s", "s", "s", shrink),
            "shorter",
        ),
    ];
    for (form, why) in rows {
        let error = send(form).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body, "{why}");
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }
}

#[test]
fn the_type_that_a_caller_sets_wins() {
    let request = Request::post("http://10.0.0.1/")
        .header("Content-Type", "multipart/form-data; boundary=mine")
        .multipart(Form::new())
        .build()
        .unwrap();
    assert_eq!(
        request.header_str("content-type"),
        Some("multipart/form-data; boundary=mine")
    );
    let other = Request::post("http://10.0.0.1/").multipart(Form::new());
    let other = other.build().unwrap();
    let kept = other.edit().build().unwrap();
    assert_eq!(other.header("content-type"), kept.header("content-type"));
    let without = other.edit().body("").build().unwrap();
    assert_eq!(without.header("content-type"), None);
}
