//! -u, with Basic and Digest; and that no message contains a secret.

use std::fs;

use super::scripted::{Answer, Scripted};
use super::{get, get_in, run_with};
use crate::servers::{Lighttpd, TempDir, free_addr};

#[test]
fn digest_answers_the_challenges_of_lighttpd_as_curl_does() {
    let settings = r#"
        server.document-root = var.CWD + "/files"
        server.modules = ("mod_auth", "mod_authn_file", "mod_accesslog")
        accesslog.format = "%s %m %U %u"
        auth.backend = "plain"
        auth.backend.plain.userfile = var.CWD + "/users"
        auth.require = ("" => ("method" => "digest", "realm" => "here", "require" => "valid-user"))
    "#;
    let Some(server) = Lighttpd::start(settings, |dir| {
        fs::create_dir(dir.join("files")).expect("writable");
        fs::write(dir.join("files/page"), "the page").expect("writable");
        fs::write(dir.join("users"), "bot:s3:cret\n").expect("writable");
    }) else {
        return println!("skipped: lighttpd is not installed");
    };
    let url = format!("http://{}/page", server.addr);
    let dir = TempDir::new();
    let right = ["--digest", "-fu", "bot:s3:cret", &url];
    let wrong = ["--digest", "-fu", "bot:wrong", &url];
    let ended = get_in(dir.path(), &right);
    assert_eq!(
        (ended.code(), &*ended.text()),
        (Some(0), "the page"),
        "{ended:?}"
    );
    assert_eq!(get_in(dir.path(), &wrong).code(), Some(22));
    // The second request needs no challenge.
    let ended = get_in(dir.path(), &["--digest", "-ubot:s3:cret", &url, &url]);
    assert_eq!(ended.text(), "the pagethe page");
    let curl = super::curl_in(dir.path(), &right);
    let log = server.stop();
    let expected = [
        "401 GET /page -",
        "200 GET /page bot",
        "401 GET /page -",
        "401 GET /page -",
        "401 GET /page -",
        "200 GET /page bot",
        "200 GET /page bot",
        "401 GET /page -",
        "200 GET /page bot",
    ];
    let count = expected.len() - if curl.is_some() { 0 } else { 2 };
    let without_reason: Vec<_> = log.iter().map(|line| line.trim_end()).collect();
    assert_eq!(without_reason, expected[..count]);
}

#[test]
fn each_url_gets_the_credentials() {
    let servers = [(); 2].map(|()| Scripted::always(Answer::ok("fine")));
    let [one, two] = &servers;
    let urls = [one.url("/a"), two.url("/b"), one.url("/c")];
    let [a, b, c] = &urls;
    assert_eq!(get(&["-u", "a:b", a, b, c]).code(), Some(0));
    for (server, count) in [(one, 2), (two, 1)] {
        let seen = server.take();
        assert_eq!(seen.len(), count);
        assert!(
            seen.iter()
                .all(|it| it.field("authorization") == Some("Basic YTpi"))
        );
    }
}

#[test]
fn digest_never_sends_the_password() {
    let challenge = "WWW-Authenticate: Basic realm=\"x\"";
    let server = Scripted::always(Answer::new("401 Unauthorized", &[challenge], ""));
    let ran = run_with(&server, &[], &["--digest", "-ubot:pass", &server.url("/")]);
    assert_eq!(ran.only().field("authorization"), None);
    let with_user = server.url("/").replace("http://", "http://bot:s3cret@");
    let ended = get(&["--digest", "-ubot:pass", &with_user]);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("credentials for --digest are those of -u"),
        "{ended:?}"
    );
    assert_eq!(server.take(), []);
    // --basic takes it back.
    let ran = run_with(
        &server,
        &[],
        &["--digest", "--basic", "-ua:b", &server.url("/")],
    );
    assert_eq!(ran.only().field("authorization"), Some("Basic YTpi"));
}

#[test]
fn no_message_contains_a_secret() {
    let server = Scripted::start(|seen, _| match &*seen.target {
        "/refused" => Answer::new("503 Unavailable", &["Set-Cookie: a=S3CRET"], "S3CRET"),
        "/leads?S3CRET" => Answer::new("302 Found", &["Location: /leads?S3CRET"], ""),
        "/user" => Answer::new("302 Found", &["Location: http://u:S3CRET@[/"], ""),
        _ => Answer::cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nS3CRET"),
    });
    let (gone, cut) = (
        format!("http://{}/?S3CRET", free_addr()),
        server.url("/?S3CRET"),
    );
    let with_user = cut.replace("http://", "http://u:S3CRET@");
    let bad_user = "http://u:S3CRET@a b/";
    let rows: &[&[&str]] = &[
        &["-u", "user:S3CRET", &cut],
        &["-u", "user:S3CRET\n", &cut],
        &["-u", "S3CRET", &cut],
        &["-uS3CRET", &cut],
        &["--user=a:S3CRET", &cut],
        &["-zS3CRET", &cut],
        &["-H", "Authorization: S3CRET", &cut],
        &["-H", "Authorization: S3CRET\r", &cut],
        &["-H", "S3CRET", &cut],
        &["-HS3CRET cookie: S3CRET", &cut],
        &["-b", "a=S3CRET", &cut],
        &["-b", "a=S3CRET\n", &cut],
        &["-c", "-", "-b", "__Host-a=S3CRET", &cut],
        &["-A", "S3CRET\n", &cut],
        &["-d", "S3CRET", "-G", &cut],
        &["-d", "S3CRET", "-X", "TRACE", &cut],
        &[
            "--json",
            "S3CRET",
            "--retry",
            "1",
            "--retry-delay",
            "0.01",
            &gone,
        ],
        &["--retry", "1", "--retry-delay", "0.01", &cut],
        &["-L", &server.url("/leads?S3CRET")],
        &["-L", &server.url("/user")],
        &["-f", &server.url("/refused")],
        &[
            "-f",
            "--retry",
            "1",
            "--retry-delay",
            "0.01",
            &server.url("/refused"),
        ],
        &[&with_user],
        &[bad_user],
        &["--tree", "out", &cut, &cut],
        &["--digest", "-ua:b", &with_user],
    ];
    for row in rows {
        let ended = get_in(TempDir::new().path(), row);
        assert_ne!(ended.code(), Some(0), "{row:?}");
        assert!(
            !ended.stderr.contains("S3CRET"),
            "{row:?}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.starts_with("get: "),
            "{row:?}: {}",
            ended.stderr
        );
    }
}
