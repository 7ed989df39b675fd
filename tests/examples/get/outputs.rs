//! -o, -O, --tree, and the names of files.

use super::scripted::{Answer, Scripted};
use super::{run_with, same_as_curl};

/// Answers with its target.
fn echo() -> Scripted {
    Scripted::start(|seen, _| Answer::ok(&seen.target))
}

#[test]
fn files_are_named_as_by_curl() {
    let server = echo();
    let (a, b) = (server.url("/dir/a?x=1"), server.url("/b%20c"));
    let rows: &[(&[&str], &[&str])] = &[
        (&["-o", "file", &a], &["file"]),
        (&["-ofile", &a, "-O", &b], &["b%20c", "file"]),
        (&[&a, &b, "-o", "1", "-o", "2"], &["1", "2"]),
        (&[&a, "-O", &b], &["a"]),
        (&["-o", "-", "-o", "2", &a, &b], &["2"]),
        (&["--remote-name-all", "-o", "1", &a, &b], &["1", "b%20c"]),
        (
            &["-OO", "--output-dir", "sub", "--create-dirs", &a, &b],
            &["sub/a", "sub/b%20c"],
        ),
        (&["--create-dirs", "-o", "x/y/z", &a], &["x/y/z"]),
        (&["-o", "/dev/null", "-o", "/dev/null", &a, &b], &[]),
        (&["-o", "existing", &a], &["existing"]),
    ];
    for (args, expected) in rows {
        let existing: &[(&str, &[u8])] = match args.contains(&"existing") {
            true => &[("existing", b"of some length, and all of it goes")],
            false => &[],
        };
        let ran = same_as_curl(&server, existing, &[&["-s"], *args].concat());
        let names: Vec<_> = ran.files.keys().map(String::as_str).collect();
        assert_eq!(names, *expected, "{args:?}");
    }
}

/// The name of a file is the user's choice, or part of the URL; servers have no say in it.
#[test]
fn no_name_leads_out_of_the_directory() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/moved" => Answer::new("302 Found", &["Location: /../../evil"], ""),
        _ => Answer::new(
            "200 OK",
            &["Content-Disposition: attachment; filename=\"../evil\""],
            "content",
        ),
    });
    for (path, expected) in [
        ("/moved", "moved"),
        ("/a/..%2f..%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd"),
        ("/a?x=/../../evil", "a"),
        ("/a/../../b", "b"),
        ("/a/%2e%2e", "%2e%2e"),
        ("/a/...", "..."),
        ("/~a:b;c", "~a:b;c"),
        ("/a%00b", "a%00b"),
    ] {
        let ran = same_as_curl(&server, &[], &["-sLO", &server.url(path)]);
        let names: Vec<_> = ran.files.keys().map(String::as_str).collect();
        assert_eq!(names, [expected], "{path}");
        let tree = run_with(&server, &[], &["-L", "--tree", "out", &server.url(path)]);
        assert_eq!(tree.files.len(), 1, "{path}: {tree:?}");
        assert!(
            tree.files.keys().all(|name| name.starts_with("out/")),
            "{tree:?}"
        );
    }
    // A backslash separates directories on some systems. It is sent encoded.
    let ran = run_with(&server, &[], &["-sO", &server.url("/a\\..\\b")]);
    assert_eq!(ran.files.keys().collect::<Vec<_>>(), ["a%5C..%5Cb"]);
}

#[test]
fn a_url_without_a_name_is_refused_as_by_curl() {
    let server = echo();
    for path in ["", "/", "/dir/", "/dir/?name", "/a/..", "/a/.", "/.."] {
        let ran = same_as_curl(&server, &[], &["-sO", &server.url(path)]);
        assert_ne!(ran.ended.code(), Some(0));
        assert!(
            ran.seen.is_empty() && ran.files.is_empty(),
            "{path}: {ran:?}"
        );
        let ran = run_with(&server, &[], &["-O", &server.url(path)]);
        assert_eq!(ran.ended.code(), Some(2), "{path}");
        assert!(ran.ended.stderr.contains("names no file for -O"), "{ran:?}");
    }
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let server = echo();
    let url = server.url("/a");
    let long = "x".repeat(300);
    let given: &[(&str, &[u8])] = &[("file", b"")];
    for (args, expected) in [
        (
            &["-o", "no/such/file"][..],
            "no/such/file: No such file or directory",
        ),
        (&["-o", &long], "File name too long"),
        (&["-o", "file/below"], "file/below: Not a directory"),
    ] {
        let ran = same_as_curl(&server, given, &[args, &[&*url]].concat());
        assert_eq!(ran.ended.code(), Some(1), "{ran:?}");
        assert!(ran.ended.stderr.contains(expected), "{ran:?}");
    }
    let args = ["--create-dirs", "-o", "file/below/it", &url];
    let ran = run_with(&server, given, &args);
    assert_eq!(ran.ended.code(), Some(1), "{ran:?}");
    let expected = " failed: file/below/it: ";
    assert!(ran.ended.stderr.contains(expected), "{ran:?}");
    let ran = run_with(&server, &[], &["-O", &server.url(&format!("/{long}"))]);
    assert!(ran.ended.stderr.contains("File name too long"), "{ran:?}");
}

#[test]
fn a_tree_has_the_paths_of_its_urls() {
    let (one, two) = (echo(), echo());
    let ran = run_with(
        &one,
        &[],
        &[
            "--tree",
            "out",
            &one.url("/"),
            &one.url("/a/b?c=/d"),
            &one.url("/a/"),
            &one.url("/x"),
        ],
    );
    let names: Vec<_> = ran.files.keys().map(String::as_str).collect();
    let expected = [
        "out/a/b?c=%2Fd",
        "out/a/index.html",
        "out/index.html",
        "out/x",
    ];
    assert_eq!(names, expected, "{ran:?}");
    let ran = run_with(
        &one,
        &[],
        &["--tree", "out", &one.url("/x"), &two.url("/x")],
    );
    let origin = |server: &Scripted| format!("out/127.0.0.1_{}/x", server.addr.port());
    for server in [&one, &two] {
        assert_eq!(ran.file(&origin(server)), b"/x");
    }
}
