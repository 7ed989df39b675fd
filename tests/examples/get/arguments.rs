//! Arguments that are wrong, and help.

use std::fs;

use super::{get, get_in};
use crate::servers::TempDir;

#[test]
fn the_argument_that_is_wrong_is_named_and_nothing_is_sent() {
    let dir = TempDir::new();
    fs::write(dir.path().join("list"), "http://a/\n\nhttp://\u{e9}/\n").expect("writable");
    fs::write(dir.path().join("lines"), "X-A: b\n\nno colon\n").expect("writable");
    #[rustfmt::skip]
    let rows: &[(&[&str], &str)] = &[
        (&[], "no URL given"),
        (&["-sS"], "no URL given"),
        (&["http://a b/"], "URL number 1: request cannot be sent: URL: space at byte 8"),
        (&["http://a/", "ftp://b/"], "URL number 2: "),
        (&[""], "URL number 1: "),
        (&["--list", "list"], "--list: list: line 3: request cannot be sent: URL: host is not ASCII"),
        (&["--list", "/nowhere/list", "http://a/"], "--list /nowhere/list: No such file"),
        (&["--frobnicate", "http://a/"], "--frobnicate: no such option"),
        (&["--retry=3", "http://a/"], "--retry=: no such option; a value is a separate argument"),
        (&["-sq", "http://a/"], "-q: no such option"),
        (&["http://a/", "-o"], "-o: a value is missing"),
        (&["http://a/", "-sSo"], "-o: a value is missing"),
        (&["http://a/", "--output"], "--output: a value is missing"),
        (&["-H", "no colon", "http://a/"], "-H number 1: no colon"),
        (&["-H", "X: y", "-H", ": b", "http://a/"], "-H number 2: no valid header name"),
        (&["-H", "a: b\nc", "http://a/"], "-H number 1: header value of \"a\": LF at byte 2"),
        (&["-H", "@lines", "http://a/"], "-H number 1: line 3: no colon"),
        (&["-H", "@/nowhere/lines", "http://a/"], "-H /nowhere/lines: No such file"),
        (&["-H", "Host:", "http://a/"], "-H number 1: the field \"host\" cannot be left out"),
        (&["-H", "Content-Length: 3", "-d", "a", "http://a/"], "URL number 1: request cannot be sent: "),
        (&["-A", "a\nb", "http://a/"], "-A: header value of \"User-Agent\": LF at byte 1"),
        (&["-e", "x;auto", "http://a/"], "-e: \";auto\" is not supported"),
        (&["-X", "CONNECT", "http://a/"], "-X \"CONNECT\": "),
        (&["-X", "a b", "http://a/"], "-X \"a b\": "),
        (&["-d", "@/nowhere/data", "http://a/"], "-d /nowhere/data: No such file"),
        (&["--data-urlencode", "@/nowhere/data", "http://a/"], "--data-urlencode /nowhere/data: "),
        (&["-d", "a", "-I", "http://a/"], "-I: cannot be combined with -d, -F and -T, except"),
        (&["-d", "a", "-F", "a=b", "http://a/"], "only one of -d, -F and -T can be given"),
        (&["-T", "list", "-F", "a=b", "http://a/"], "only one of -d, -F and -T can be given"),
        (&["-T", "list", "-I", "http://a/"], "-I: cannot be combined with -d, -F and -T, except"),
        (&["-T", "list", "-T", "lines", "http://a/"], "there are more -T than URLs"),
        (&["-T", "-", "-T", "-", "http://a/", "http://b/"], "-T: stdin can be sent once only"),
        (&["-T", "/nowhere/file", "http://a/"], "-T /nowhere/file: No such file"),
        (&["-T", ".", "http://a/"], "-T .: it is a directory"),
        (&["--expect100-timeout", "a", "http://a/"], "--expect100-timeout \"a\": not a number"),
        (&["-F", "a", "http://a/"], "-F: not NAME=CONTENT"),
        (&["-F", "=a", "http://a/"], "-F: not NAME=CONTENT"),
        (&["--form-string", "a", "http://a/"], "--form-string: not NAME=CONTENT"),
        (&["-F", "a=@/nowhere/file", "http://a/"], "-F /nowhere/file: No such file"),
        (&["-F", "a=</nowhere/file", "http://a/"], "-F /nowhere/file: No such file"),
        (&["-F", "a=@list,lines", "http://a/"], "-F: one file for each option"),
        (&["-F", "a=(;type=multipart/mixed", "http://a/"], "-F: forms in forms are not supported"),
        (&["-F", "a=b;c", "http://a/"], "-F: \";\" begins \"type=\" or \"filename=\""),
        (&["-F", "a=b;headers=\"X: y\"", "http://a/"], "-F: \";\" begins \"type=\" or"),
        (&["-F", "a=b;type=text", "http://a/"], "-F: no content type after \"type=\""),
        (&["-F", "a=\"b\"c", "http://a/"], "-F: characters after a quoted word"),
        (&["-F", "a=b;type=a/b\nc", "http://a/"], "URL number 1: request cannot be sent: "),
        (&["-F", "a=b", "-H", "Content-Type: a/b", "http://a/"], "-F: sets Content-Type itself"),
        (&["-F", "a=b", "-G", "http://a/"], "-G: cannot be combined with -F"),
        (&["-C", "-1", "http://a/"], "-C \"-1\": not a number of bytes"),
        (&["-C", "-", "-d", "a", "http://a/"], "-C: continues downloads only"),
        (&["-C", "-", "-T", "list", "http://a/"], "-C: continues downloads only"),
        (&["-C", "-", "-H", "Range: bytes=1-", "http://a/"], "-C: sets Range itself"),
        (&["-C", "-", "--compressed", "http://a/"], "-C: cannot be combined with --compressed"),
        (&["-C", "-", "--remove-on-error", "http://a/"], "-C: cannot be combined with --remove-"),
        (&["--sse", "-i", "http://a/"], "--sse: cannot be combined with -C, -i and -I"),
        (&["-u", "name", "http://a/"], "-u: not USER:PASSWORD"),
        (&["-u", "a\n:b", "http://a/"], "-u: "),
        (&["--digest", "http://a/"], "--digest: requires -u"),
        (&["--compressed", "-H", "Accept-Encoding: br", "http://a/"], "--compressed: sets Accept-Encoding itself"),
        (&["--compressed", "-H", "Accept-Encoding:", "http://a/"], "--compressed: sets Accept-Encoding itself"),
        (&["--connections", "0", "http://a/"], "--connections \"0\": "),
        (&["--max-redirs", "-2", "http://a/"], "--max-redirs \"-2\": "),
        (&["--retry", "255", "http://a/"], "--retry \"255\": not a number from 0 to 254"),
        (&["--retry-delay", "-1", "http://a/"], "--retry-delay \"-1\": not a number of seconds"),
        (&["--retry-max-time", "inf", "http://a/"], "--retry-max-time \"inf\": not a number of seconds"),
        (&["--parallel-max", "301", "http://a/"], "--parallel-max \"301\": not a number from 1 to 300"),
        (&["--timeout", "soon", "http://a/"], "--timeout \"soon\": "),
        (&["-m", "nan", "http://a/"], "-m \"nan\": "),
        (&["--limit-rate", "fast", "http://a/"], "--limit-rate \"fast\": not a number of bytes"),
        (&["--limit-rate", "99999999P", "http://a/"], "--limit-rate \"99999999P\": not a number"),
        (&["-Y", "-1", "http://a/"], "-Y \"-1\": not a number of bytes"),
        (&["--resolve", "a:80", "http://a/"], "--resolve \"a:80\": not HOST:PORT:ADDR"),
        (&["-w", "%{frob}", "http://a/"], "-w: %{frob}: no such variable"),
        (&["-w", "%{url", "http://a/"], "-w: a variable without its closing brace"),
        (&["-w", "@/nowhere/format", "http://a/"], "-w /nowhere/format: No such file"),
        (&["-o", "x", "-o", "y", "http://a/"], "there are more -o and -O than URLs"),
        (&["-o", ".", "http://a/"], "\".\" is not the name of a file; --tree writes into a directory"),
        (&["-o", "", "http://a/"], "\"\" is not the name of a file"),
        (&["-o", "x", "-o", "x", "http://a/", "http://b/"], "http://b/: x is already the file of another URL"),
        (&["-OO", "http://a/x", "http://b/x?y"], "http://b/x?...: x is already the file of another URL"),
        (&["--tree", "out", "-O", "http://a/x"], "--tree: cannot be combined with -o and -O"),
        (&["--tree", "out", "http://a/x", "http://a/x"], "http://a/x: out/x is already the file of another URL"),
        (&["--key", "key", "http://a/"], "--key: requires --cert"),
        (&["--cacert", "list", "http://a/"], "--cacert: list: "),
        (&["--cacert", "/nowhere/ca", "http://a/"], "--cacert /nowhere/ca: No such file"),
    ];
    for (args, expected) in rows {
        let ended = get_in(dir.path(), args);
        assert_eq!(ended.code(), Some(2), "{args:?}: {ended:?}");
        let line = ended.stderr.lines().next().unwrap_or_default();
        let line = line.strip_prefix("get: ");
        assert!(
            line.is_some_and(|line| line.starts_with(expected)),
            "{args:?}: {line:?}"
        );
        assert!(ended.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(super::files(dir.path()).len(), 2, "nothing was written");
}

#[test]
fn options_may_follow_urls_and_be_combined() {
    for args in [&["-h"][..], &["--help"], &["http://a/", "-sSh"]] {
        let ended = get(args);
        assert_eq!(ended.code(), Some(0), "{args:?}");
        assert!(ended.stdout.starts_with(b"Usage: get [options] URL..."));
    }
    // Here it is a URL.
    let ended = get(&["--unix-socket", "/nowhere/socket", "--", "-h"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.starts_with("get: http://-h/ failed: "),
        "{ended:?}"
    );
}

/// The list of options and the help do not drift apart.
#[test]
fn the_help_names_every_option() {
    let source = include_str!("../../../examples/get/args.rs");
    let help = include_str!("../../../examples/get/help.txt");
    let rows = source.lines().filter_map(|line| {
        let (short, rest) = line.trim().strip_prefix("(\"")?.split_once("\", \"")?;
        let (long, _) = rest.split_once('"')?;
        Some((short, long))
    });
    let mut count = 0;
    for (short, long) in rows {
        count += 1;
        if long == "data-ascii" {
            continue; // An old name of --data.
        }
        assert!(help.contains(&format!("--{long}")), "--{long}");
        assert!(
            short.is_empty() || help.contains(&format!("-{short}, ")),
            "-{short}"
        );
    }
    assert!(count > 45, "only {count} options were found");
    assert!(help.lines().all(|line| line.len() <= 100));
}
