//! -F and --form-string: forms with files.

use std::io::Write;
use std::process::Stdio;

use super::scripted::{Answer, Scripted};
use super::{run_with, same_as_curl, without_variables};
use crate::servers::example;

const FILES: &[(&str, &[u8])] = &[
    ("small", b"hello"),
    ("empty", b""),
    ("text.txt", b"two\r\nlines, \xc3\xbc\n"),
    ("picture.PNG", b"\x89PNG\r\n\x1a\n\0"),
    ("semi;colon, \"quoted\"", b"odd"),
    ("data.json", b"{}"),
];

#[test]
fn forms_are_those_of_curl() {
    let server = Scripted::always(Answer::ok("fine"));
    let large = vec![b'x'; 3 << 20];
    let given = [FILES, &[("large", &large)]].concat();
    #[rustfmt::skip]
    let rows: &[&[&str]] = &[
        &["-F", "a=b"],
        &["-F", "a=b", "--form", "a=c", "-F", "\u{fc}=\u{fc}"],
        &["-F", "a="],
        &["-F", "a= x y "],
        &["-F", "a=b=c"],
        &["-F", "a\"b=c"],
        &["-F", "a=b;type=application/json"],
        &["-F", "a=b ; type=text/plain; charset=utf-8 ;filename=c.txt"],
        &["-F", "a=b;filename=c.gif;type=text/plain;charset=utf-8"],
        &["-F", "a=b;filename=c.html"],
        &["-F", "a=\"x;type=y/z \\\"q\\\" \\\\ \\n\" ;type=a/b"],
        &["-F", "a=\"not closed"],
        &["--form-string", "a=@small;type=a/b"],
        &["--form-string", "a=<small", "--form-string", "b=\"q\""],
        &["-F", "f=@small"],
        &["-F", "f=@./empty", "-F", "g=@text.txt", "-F", "h=@picture.PNG"],
        &["-F", "f=@small;type=text/html"],
        &["-F", "f=@small;filename=other.jpg"],
        &["-F", "f=@small;filename=\"a;b \\\"c\\\" \\\\d\""],
        &["-F", "f=@text.txt;filename=other;type=a/b"],
        &["-F", "f=@text.txt;filename=text.txt"],
        &["-F", "f=@\"semi;colon, \\\"quoted\\\"\""],
        &["-F", "a=<text.txt"],
        &["-F", "a=<text.txt;type=text/markdown"],
        &["-F", "a=<picture.PNG;type=image/png"],
        &["-F", "f=@large", "-F", "a=b"],
        &["-X", "PUT", "-F", "a=b"],
        &["-F", "a=b", "-u", "u:p", "-H", "X-A: b"],
    ];
    let url = server.url("/x");
    for row in rows {
        let args = [*row, &["-sS", &*url]].concat();
        let ran = same_as_curl(&server, &given, &args);
        assert_eq!(ran.ended.code(), Some(0), "{row:?}: {ran:?}");
        let body = String::from_utf8_lossy(&ran.only().body);
        assert!(
            body.contains("\r\nContent-Disposition: form-data; name="),
            "{row:?}"
        );
    }
}

#[test]
fn a_form_is_sent_for_each_url() {
    let server = Scripted::always(Answer::ok("fine"));
    let (one, two) = (server.url("/1"), server.url("/2"));
    let ran = same_as_curl(&server, FILES, &["-F", "f=@small", "-F", "a=b", &one, &two]);
    assert_eq!(ran.lines(), ["POST /1", "POST /2"]);
}

/// Where `get` does something else than curl: it knows more types, no file is without one, and a
/// text from a file can be given a name.
#[test]
fn files_have_a_type() {
    let server = Scripted::always(Answer::ok("fine"));
    for (part, expected) in [
        (
            "f=@data.json",
            "name=\"f\"; filename=\"data.json\"\r\nContent-Type: application/json",
        ),
        (
            "f=b;filename=c",
            "name=\"f\"; filename=\"c\"\r\nContent-Type: application/octet-stream",
        ),
        (
            "f=<small;filename=c.txt",
            "name=\"f\"; filename=\"c.txt\"\r\nContent-Type: text/plain",
        ),
        (
            "f=@/dev/null",
            "name=\"f\"; filename=\"null\"\r\nContent-Type: application/octet-stream",
        ),
    ] {
        let ran = run_with(&server, FILES, &["-F", part, &server.url("/")]);
        let body = String::from_utf8_lossy(&ran.only().body).into_owned();
        assert!(body.contains(expected), "{part}: {body}");
    }
}

/// As with curl, the form has a length nevertheless.
#[test]
fn stdin_is_a_file_without_a_name() {
    let server = Scripted::always(Answer::ok("fine"));
    let args = ["-F", "f=@-;type=text/plain", "-F", "a=b", &server.url("/")];
    let mut child = without_variables(&mut example("get"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"from stdin").expect("it is read");
    drop(stdin);
    assert!(child.wait().expect("our child").success());
    let seen = server.take();
    assert!(seen[0].field("content-length").is_some(), "{seen:?}");
    let body = String::from_utf8_lossy(&seen[0].body);
    let part = "name=\"f\"; filename=\"-\"\r\nContent-Type: text/plain\r\n\r\nfrom stdin\r\n--";
    assert!(body.contains(part), "{body}");
}
