//! Forms with files, as python-multipart and busboy read them.

use std::io;
use std::net::SocketAddr;
use std::task::Waker;

use httpstream::{BodySource, Form, Request, Supply};
use serde_json::{Value, json};

use crate::common::Bench;
use crate::servers::{Random, TempDir};
use crate::{described, programs, sha256};

/// Names as they are given and as they arrive: browsers escape in the same way, and the servers
/// undo nothing.
const NAMES: [(&str, &str); 9] = [
    ("plain", "plain"),
    ("", ""),
    ("a \"quoted\" one", "a %22quoted%22 one"),
    ("two\r\nlines", "two%0D%0Alines"),
    ("a\nb\rc", "a%0Ab%0Dc"),
    ("Müßiggang für 你好 🦀", "Müßiggang für 你好 🦀"),
    ("100%22; a=b; c", "100%22; a=b; c"),
    ("it's {here}; filename=x", "it's {here}; filename=x"),
    (" spaces  around ", " spaces  around "),
];

/// A source that does not know its length.
struct Endless(io::Cursor<Vec<u8>>);

impl BodySource for Endless {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
        Ok(match io::Read::read(&mut self.0, room)? {
            0 => Supply::End,
            read => Supply::Bytes(read),
        })
    }
}

fn part(name: &str, file: Option<(&str, &str)>, content: &[u8]) -> Value {
    let (file, kind) = file.unzip();
    json!({
        "name": name, "file": file, "type": kind,
        "length": content.len(), "sha256": sha256(content),
    })
}

/// Contents of files: empty, short, like a delimiter, and long.
fn contents() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"x".to_vec(),
        b"\r\n".to_vec(),
        b"\r\n--\r\n----\r\n--".to_vec(),
        b"--".repeat(1000),
        b"\r\n--".repeat(20_000),
        Random(3).bytes(65_536),
        Random(4).bytes(1_000_000),
    ]
}

/// Sends forms to a server, and compares what it has read.
fn send_forms(addr: SocketAddr) {
    let mut bench = Bench::new();
    let mut compare = |form: Form, expected: Vec<Value>| {
        let post = Request::post(format!("http://{addr}/form")).multipart(form);
        let told = described(&mut bench, post.build().unwrap());
        assert_eq!(told, Value::from(expected));
    };

    let (mut form, mut expected) = (Form::new(), Vec::new());
    for (name, arriving) in NAMES {
        form = form.text(name, name);
        expected.push(part(arriving, None, name.as_bytes()));
        if !name.is_empty() {
            form = form.bytes(arriving, name, "text/plain", name);
            let file = Some((arriving, "text/plain"));
            expected.push(part(arriving, file, name.as_bytes()));
        }
    }
    compare(form, expected);

    let folder = TempDir::new();
    let (mut form, mut expected) = (Form::new(), Vec::new());
    let (mut unsized_form, mut of_unsized) = (Form::new(), Vec::new());
    for (i, content) in contents().iter().enumerate() {
        let path = folder.path().join(format!("Föto {i}.jpeg"));
        std::fs::write(&path, content).unwrap();
        let file = Some((path.file_name().unwrap().to_str().unwrap(), "image/jpeg"));
        form = form.file("file", &path);
        expected.push(part("file", file, content));
        form = form.bytes("bytes", "b", "application/x-b", content.clone());
        expected.push(part("bytes", Some(("b", "application/x-b")), content));

        let bytes = content.clone();
        let make = move || Ok(Endless(io::Cursor::new(bytes.clone())));
        unsized_form = unsized_form.source("s", "source", "text/x-s", make);
        of_unsized.push(part("s", Some(("source", "text/x-s")), content));
    }
    compare(form, expected);
    compare(unsized_form, of_unsized);
    assert_eq!(bench.stats().opened, 1, "{:?}", bench.stats());
    bench.assert_empty();
}

#[test]
fn python_multipart_reads_forms() {
    if let Some(server) = programs::python("http_server.py", ["0", "."]) {
        send_forms(server.addr);
    }
}

#[test]
fn busboy_reads_forms() {
    if let Some(server) = programs::node("http_server.js", [""; 0]) {
        send_forms(server.addr);
    }
}
