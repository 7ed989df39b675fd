//! Sessions with nginx: redirects, Basic, cookies, and content codings. Downloads that continue.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use httpstream::session::{Auth, Decode, Jar, RedirectError, Redirects, Retry};
use httpstream::{Engine, Error, ErrorKind, Next, Request, Save, Saved};

use super::{field, following, skip, storing};
use crate::common::{Bench, PATIENCE};
use crate::servers::{Nginx, Random, lines_of};

/// Repeats a request in the response: `X-Line` has its line and user, `X-Body` its body, and
/// `X-Cookie` its cookies. The body of a request is known only after it was passed on.
const ECHO: &str = r#"
    access_log access.log combined;
    location /echo {
        proxy_pass http://$server_addr:$server_port/sink;
        add_header X-Line "$request_method $request_uri $remote_user" always;
        add_header X-Body $request_body always;
        add_header X-Type $content_type always;
        add_header X-Cookie $http_cookie always;
    }
    location = /sink { access_log off; return 204; }
"#;

/// Waits until the log has this many lines, which nginx writes after the response, and returns from
/// each the user, the request without its version, and the status.
fn logged(nginx: &Nginx, count: usize) -> Vec<String> {
    let path = nginx.prefix().join("access.log");
    let end = Instant::now() + PATIENCE;
    let mut lines = lines_of(&path);
    while lines.len() < count && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
        lines = lines_of(&path);
    }
    fs::write(&path, "").unwrap();
    // 127.0.0.1 - user [30/Nov/2026:11:06:31 +0000] "GET / HTTP/1.1" 200 ...
    let brief = |line: String| {
        let user = line.split(' ').nth(2).unwrap().to_owned();
        let mut quoted = line.split('"').skip(1);
        let request = quoted.next().unwrap().replace(" HTTP/1.1", "");
        let status = quoted.next().unwrap().split_whitespace().next().unwrap();
        format!("{user} {request} {status}")
    };
    lines.into_iter().map(brief).collect()
}

#[test]
fn redirects_of_all_statuses_arrive_with_the_right_method_and_body() {
    const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
    // By default nginx makes a path absolute.
    let mut server = ECHO.to_owned();
    for status in STATUSES {
        write!(
            server,
            "location = /absolute/{status} {{ return {status} /echo?q; }}
             location = /path/{status} {{ absolute_redirect off; return {status} /echo?q; }}
             location = /relative/{status} {{ return {status} ../echo?q; }}"
        )
        .unwrap();
    }
    let Some(nginx) = Nginx::serving(&server) else {
        return skip("nginx");
    };
    let session = following().build().unwrap();
    let mut bench = Bench::new();
    for status in STATUSES {
        for (form, method) in ["absolute", "path", "relative"]
            .into_iter()
            .flat_map(|form| ["GET", "HEAD", "POST", "PUT"].map(|method| (form, method)))
        {
            let why = format!("{method} {form} {status}");
            let url = format!("http://{}/{form}/{status}", nginx.addr);
            let sent = http::Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = session.request(sent, &url);
            let has_body = matches!(method, "POST" | "PUT");
            if has_body {
                request = request.form([("a", 1)]);
            }
            let got = bench.fetch_ok(request.build().unwrap());
            let (last, keeps_body) = match (status, method) {
                (303, "POST" | "PUT") | (301 | 302, "POST") => ("GET", false),
                _ => (method, has_body),
            };
            assert_eq!(field(&got, "X-Line"), format!("{last} /echo?q"), "{why}");
            let (body, kind) = match keeps_body {
                true => ("a=1", "application/x-www-form-urlencoded"),
                false => ("", ""),
            };
            assert_eq!(
                (field(&got, "X-Body"), field(&got, "X-Type")),
                (body, kind),
                "{why}"
            );
            let expected = [
                format!("- {method} /{form}/{status} {status}"),
                format!("- {last} /echo?q 204"),
            ];
            assert_eq!(logged(&nginx, 2), expected, "{why}");
        }
    }
    // The pages of the redirects were read, and so were their bodies by nginx.
    assert_eq!(bench.stats().opened, 1, "{:?}", bench.stats());
    bench.assert_empty();
}

#[test]
fn large_bodies_survive_a_redirect() {
    let server = format!(
        "{ECHO} client_max_body_size 8m; client_body_buffer_size 8m;
        location = /start {{ return 307 /sized; }}
        location = /sized {{ proxy_pass http://$server_addr:$server_port/sink;
            add_header X-Length $content_length always;
            add_header X-Tail $request_length always; }}"
    );
    let Some(nginx) = Nginx::serving(&server) else {
        return skip("nginx");
    };
    let session = following().build().unwrap();
    let mut bench = Bench::new();
    for len in [1, 100_000, 4 << 20] {
        let post = session.post(format!("http://{}/start", nginx.addr));
        let got = bench.fetch_ok(post.body(vec![b'x'; len]).build().unwrap());
        assert_eq!(field(&got, "X-Length"), len.to_string());
        let read: usize = field(&got, "X-Tail").parse().unwrap();
        assert!(read > len, "{read} bytes of {len} were read");
        // The first one is logged when the rest of its body has been discarded, which may be later.
        let mut lines = logged(&nginx, 2);
        lines.sort();
        assert_eq!(lines, ["- POST /sized 204", "- POST /start 307"], "{len}");
    }
}

#[test]
fn chains_are_followed_up_to_the_limit() {
    let server = format!(
        "{ECHO} location ~ ^/chain/x(x*)$ {{ return 302 /chain/$1; }}
        location = /chain/ {{ return 200 end; }}"
    );
    let Some(nginx) = Nginx::serving(&server) else {
        return skip("nginx");
    };
    let session = following().build().unwrap();
    let mut bench = Bench::new();
    let chain = |hops: usize| {
        let url = format!("http://{}/chain/{}", nginx.addr, "x".repeat(hops));
        session.get(url).build().unwrap()
    };
    for hops in [0, 1, 10] {
        assert_eq!(bench.fetch_ok(chain(hops)).text(), "end");
        assert_eq!(logged(&nginx, hops + 1).len(), hops + 1);
    }
    let error = bench.fetch_err(chain(11));
    assert_eq!(error.kind(), ErrorKind::Policy);
    let source = std::error::Error::source(&error).unwrap().downcast_ref();
    assert!(
        matches!(source, Some(RedirectError::TooMany { seen: 11, .. })),
        "{error:#}"
    );
    assert_eq!(logged(&nginx, 11).len(), 11);
    assert_eq!(bench.stats().opened, 1, "{:?}", bench.stats());
}

/// Two servers on ports of their own are two origins.
fn two(first: &str, second: &str) -> Option<(Nginx, Nginx)> {
    let second = Nginx::serving(second)?;
    let first = first.replace("$second", &second.addr.to_string());
    Some((Nginx::serving(&first)?, second))
}

#[test]
fn basic_credentials_open_what_they_are_for_and_stay_there() {
    let first = format!(
        "{ECHO} location /echo/secret {{
            auth_basic \"closed\"; auth_basic_user_file users;
            proxy_pass http://$server_addr:$server_port/sink;
            add_header X-User $remote_user always; add_header X-Body $request_body always;
        }}
        location = /away {{ return 307 http://$second/echo; }}"
    );
    let users = |prefix: &std::path::Path| {
        fs::write(prefix.join("users"), "bot:{PLAIN}pass w\u{f6}rd\n").unwrap();
    };
    let Some(second) = Nginx::serving(ECHO) else {
        return skip("nginx");
    };
    let first = first.replace("$second", &second.addr.to_string());
    let first = Nginx::serving_with(&first, "", users).unwrap();
    let mut bench = Bench::new();
    let session_of = |password: &str| {
        let session = following().base(format!("http://{}/", first.addr));
        session.auth(Auth::basic("bot", password)).build().unwrap()
    };
    let (right, wrong) = (session_of("pass w\u{f6}rd"), session_of("pass"));

    let post = right.post("echo/secret").body("text").build().unwrap();
    let got = bench.fetch_ok(post);
    assert_eq!(
        (got.status, field(&got, "X-User"), field(&got, "X-Body")),
        (204, "bot", "text")
    );
    assert_eq!(
        logged(&first, 1),
        ["bot POST /echo/secret 204"],
        "without a 401 before it"
    );

    let got = bench.fetch_ok(wrong.get("echo/secret").build().unwrap());
    assert_eq!(got.status, 401);
    assert_eq!(
        logged(&first, 1),
        ["bot GET /echo/secret 401"],
        "and not again"
    );

    let got = bench.fetch_ok(right.post("away").body("text").build().unwrap());
    assert_eq!(field(&got, "X-Body"), "text");
    assert_eq!(logged(&first, 1), ["bot POST /away 307"]);
    assert_eq!(
        logged(&second, 1),
        ["- POST /echo 204"],
        "another port is another origin"
    );
}

#[test]
fn what_leads_to_another_origin_is_delivered_where_only_the_same_is_followed() {
    let Some((first, second)) = two("location / { return 302 http://$second/; }", ECHO) else {
        return skip("nginx");
    };
    let session = following().redirects(Redirects::limited(3).same_origin());
    let session = session.build().unwrap();
    let mut bench = Bench::new();
    let got = bench.fetch_ok(
        session
            .get(format!("http://{}/", first.addr))
            .build()
            .unwrap(),
    );
    assert_eq!(got.status, 302);
    assert_eq!(field(&got, "Location"), format!("http://{}/", second.addr));
    assert!(lines_of(&second.prefix().join("access.log")).is_empty());
}

#[test]
fn cookies_come_back_where_they_belong() {
    /// What a step asks for, and the cookies that nginx then sees.
    type Step = (&'static str, &'static str, &'static str);
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &[Step])] = &[
        ("a plain one comes back to its host", "a=1",
            &[("one.test", "/echo/set", ""), ("one.test", "/echo", "a=1"),
                ("two.test", "/echo", ""), ("www.one.test", "/echo", "")]),
        ("without a path it is for its folder", "a=1",
            &[("one.test", "/echo/x/set", ""), ("one.test", "/echo", ""),
                ("one.test", "/echo/x", "a=1"),
                ("one.test", "/echo/x/y?z", "a=1"), ("one.test", "/echo/xy", "")]),
        ("one for a path", "a=1; Path=/echo/p",
            &[("one.test", "/echo/set", ""), ("one.test", "/echo/p/q", "a=1"),
                ("one.test", "/echo/pq", ""), ("one.test", "/echo", "")]),
        ("one for a domain", "a=1; Domain=.one.test; Path=/",
            &[("www.one.test", "/echo/set", ""), ("one.test", "/echo", "a=1"),
                ("x.one.test", "/echo", "a=1"), ("notone.test", "/echo", "")]),
        ("one for a foreign domain", "a=1; Domain=two.test; Path=/",
            &[("one.test", "/echo/set", ""), ("two.test", "/echo", ""), ("one.test", "/echo", "")]),
        ("Secure over http", "a=1; Secure; Path=/",
            &[("one.test", "/echo/set", ""), ("one.test", "/echo", "")]),
        ("one that has expired", "a=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Path=/",
            &[("one.test", "/echo/set", ""), ("one.test", "/echo", "")]),
        ("one that lasts a while", "a=1; Max-Age=100; HttpOnly; SameSite=Strict; Path=/",
            &[("one.test", "/echo/set", ""), ("one.test", "/echo", "a=1")]),
        ("one that is removed", "a=1; Path=/",
            &[("one.test", "/echo/set", ""), ("one.test", "/echo/remove", "a=1"),
                ("one.test", "/echo", "")]),
        ("several, longer paths first", "a=1; Path=/",
            &[("one.test", "/echo/set", ""), ("one.test", "/echo/more", "a=1"),
                ("one.test", "/echo/m/x", "c=3; b=2; a=1")]),
        ("one that a redirect sets", "a=1; Path=/", &[("one.test", "/hop", "a=1")]),
    ];
    for (why, cookie, steps) in ROWS {
        let answers = "add_header X-Cookie $http_cookie; return 200;";
        let server = format!(
            "location /echo {{ {answers} }}
            location ~ ^/echo(/x)?/set$ {{ add_header Set-Cookie \"{cookie}\"; {answers} }}
            location = /echo/remove {{ add_header Set-Cookie \"a=; Max-Age=0; Path=/\"; {answers} }}
            location = /echo/more {{
                add_header Set-Cookie \"b=2; Path=/echo\";
                add_header Set-Cookie \"c=3; Path=/echo/m\";
                {answers}
            }}
            location = /hop {{ add_header Set-Cookie \"{cookie}\" always; return 302 /echo; }}"
        );
        let Some(nginx) = Nginx::serving(&server) else {
            return skip("nginx");
        };
        let session = storing(&Jar::new());
        let addr = nginx.addr;
        let mut bench = Bench::with(|config| config.resolve_to("*.test", addr));
        for (host, path, expected) in *steps {
            let get = session.get(format!("http://{host}{path}")).build().unwrap();
            let got = bench.fetch_ok(get);
            let step = format!("{why}: {host}{path}");
            assert_eq!(
                (got.status, field(&got, "X-Cookie")),
                (200, *expected),
                "{step}"
            );
        }
    }
}

/// Cookies do not distinguish ports (RFC 6265bis §8.5).
#[test]
fn ports_of_a_host_share_cookies() {
    let sets =
        format!("{ECHO} location = /set {{ add_header Set-Cookie \"a=1; Path=/\"; return 200; }}");
    let Some((first, second)) = two(&sets, ECHO) else {
        return skip("nginx");
    };
    let session = storing(&Jar::new());
    let mut bench = Bench::new();
    let get = |addr, path: &str| session.get(format!("http://{addr}{path}")).build().unwrap();
    bench.fetch_ok(get(first.addr, "/set"));
    let got = bench.fetch_ok(get(second.addr, "/echo"));
    assert_eq!(field(&got, "X-Cookie"), "a=1");
    // A request without the session carries none.
    let plain = Request::get(format!("http://{}/echo", second.addr))
        .build()
        .unwrap();
    assert_eq!(field(&bench.fetch_ok(plain), "X-Cookie"), "");
}

#[test]
fn compressed_files_arrive_as_they_are_on_disk() {
    let files: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("tiny", b"x".to_vec()),
        (
            "text",
            "the server compresses what it sends, "
                .repeat(20_000)
                .into(),
        ),
        ("noise", Random(7).bytes(300_000)),
        ("zeros", vec![0; 8 << 20]),
    ];
    let server = "root docs; gzip on; gzip_types *; gzip_min_length 1; gzip_comp_level 4;
        error_page 404 /text;";
    let prepare = |prefix: &std::path::Path| {
        fs::create_dir(prefix.join("docs")).unwrap();
        for (name, content) in &files {
            fs::write(prefix.join("docs").join(name), content).unwrap();
        }
    };
    let Some(nginx) = Nginx::serving_with(server, "", prepare) else {
        return skip("nginx");
    };
    let session = following().decode(Decode::all()).build().unwrap();
    let mut bench = Bench::new();
    let get = |name: &str| session.get(format!("http://{}/{name}", nginx.addr));
    for (name, content) in &files {
        let before = bench.stats().bytes_in;
        let got = bench.fetch_ok(get(name).build().unwrap());
        let received = bench.stats().bytes_in - before;
        assert!(got.body == *content, "{name}: {} bytes", got.body.len());
        assert_eq!(field(&got, "Content-Encoding"), "", "{name}");
        let is_coded = !content.is_empty();
        let length = field(&got, "Content-Length");
        assert_eq!(length, if is_coded { "" } else { "0" }, "{name}");
        if matches!(*name, "text" | "zeros") {
            assert!(received < content.len() as u64 / 50, "{name}: {received}");
        }
        // A request that asks for the coding itself gets it.
        let coded = get(name).header("Accept-Encoding", "gzip").build().unwrap();
        let got = bench.fetch_ok(coded);
        let coding = field(&got, "Content-Encoding");
        assert_eq!(coding, if is_coded { "gzip" } else { "" }, "{name}");
        assert_eq!(got.body.starts_with(b"\x1f\x8b"), is_coded, "{name}");
    }
    let text = &files[2].1;
    let got = bench.fetch_ok(get("missing").build().unwrap());
    assert!(got.status == 404 && got.body == *text);
    let part = get("text").header("Range", "bytes=3-7").build().unwrap();
    let got = bench.fetch_ok(part);
    assert_eq!((got.status, &*got.body), (206, &text[3..8]));
    let head = session.head(format!("http://{}/text", nginx.addr));
    let got = bench.fetch_ok(head.build().unwrap());
    assert_eq!((got.status, &*got.body), (200, &b""[..]));
    assert_eq!(bench.stats().opened, 1, "{:?}", bench.stats());
    bench.assert_empty();
}

/// Each attempt is cut off by its total timeout, which its capped speed cannot meet.
#[test]
fn a_download_continues_with_the_ranges_of_nginx() {
    let content = Random(7).bytes(1_000_000);
    let prepare = |prefix: &std::path::Path| {
        fs::create_dir(prefix.join("docs")).unwrap();
        fs::write(prefix.join("docs/file"), &content).unwrap();
    };
    let Some(nginx) = Nginx::serving_with("root docs;", "", prepare) else {
        return skip("nginx");
    };
    let request = Request::get(format!("http://{}/file", nginx.addr))
        .download_rate(2_000_000)
        .timeout(Duration::from_millis(150));
    // A busy machine may let an attempt time out before its first byte.
    let retry = Retry::attempts(100).backoff(Duration::from_millis(1), Duration::from_millis(1));
    let path = nginx.prefix().join("saved");
    let save = Save::to(&path).resume(true).retry(retry);
    let save = save.then(|outcome: &mut Option<Result<Saved, Error>>, saved, _| {
        *outcome = Some(saved);
        Next::done()
    });
    let mut engine = Engine::new().unwrap();
    engine.submit_to(request.build().unwrap(), save);
    let mut outcome = None;
    engine.run(&mut outcome).unwrap();
    let saved = outcome.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(saved.bytes, 1_000_000);
    assert!(saved.resumed > 0, "{saved:?}");
    assert!(fs::read(&path).unwrap() == content, "other bytes");
}
