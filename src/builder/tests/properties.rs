//! What holds for every request, tested with random ones.

use super::*;
use crate::proto::testing::Random;

#[test]
fn any_request_that_can_be_built_survives_an_edit() {
    let mut random = Random::new(21);
    let wires: Vec<_> = all_kinds()
        .iter()
        .map(|request| request.wire_head().to_vec())
        .collect();
    let mut built_ones = 0;
    for round in 0..20_000 {
        let wire = random.mutate(&wires[round % wires.len()]);
        let text = String::from_utf8_lossy(&wire);
        let mut all = text.split("\r\n");
        let first = all.next().unwrap_or_default();
        let mut words = first.split(' ');
        let (verb, path) = (words.next(), words.next());
        let verb = Method::from_bytes(verb.unwrap_or_default().as_bytes());
        let url = format!("http://example.com{}", path.unwrap_or_default());
        let mut builder = Request::builder(verb.unwrap_or(Method::GET), &url);
        for line in all {
            if let Some((name, value)) = line.split_once(':') {
                builder = builder.header(name, value);
            }
        }
        if round % 3 == 0 {
            builder = builder.close();
        }
        builder = match round % 4 {
            0 => builder.form([(&text, "x")]),
            1 => builder.body("x"),
            _ => builder,
        };
        let Ok(request) = builder.build() else {
            continue;
        };
        built_ones += 1;
        built(request.edit()).assert_same(&request, &text);
        for (name, _) in request.headers() {
            assert!(request.has_field(name), "{text}");
            let without = request.edit().without(name).build();
            // The fields that remain come from framing, URL, close and an upgrade.
            let Ok(without) = without else { continue };
            let framing = ["host", "content-length"];
            let upgrades = name.eq_ignore_ascii_case("connection") && without.has_field("upgrade");
            let is_framing = upgrades || framing.iter().any(|it| it.eq_ignore_ascii_case(name));
            assert!(is_framing || !without.has_field(name), "{name} in {text}");
        }
    }
    assert!(built_ones > 2000, "{built_ones} built");
}

/// Whatever the input, the head has exactly the lines that were asked for, as seen by a reader that
/// takes only CRLF for a line end.
#[test]
fn any_input_is_refused_or_keeps_its_lines() {
    #[rustfmt::skip]
    const PIECES: &[&str] = &[
        "http://", "https://", "a", "example.com", ":", "80", "/", "?", "#", "@", "\\", "[", "::1", "]", "%", "é", "\u{1f600}",
        "\r\n", "\r", "\n", "\0", "\t", " ", ".", "..", "\u{7f}", "\"", "{", "|", "x", "100-continue", "0", "3", "close", ",",
        "\u{85}", "\u{2028}", "&", "=", "+",
    ];
    const STARTS: &[&str] = &["http://a", "http://a/", "http://[::1]", "http://", ""];
    const NAMES: &[&str] = &[
        "x",
        "X-Foo",
        "Host",
        "Expect",
        "Content-Length",
        "Connection",
        "",
    ];
    let mut random = Random::new(22);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let url = STARTS[random.below(STARTS.len())];
        let names = [
            NAMES[random.below(NAMES.len())],
            NAMES[random.below(NAMES.len())],
        ];
        let mut after = |start: &str, most: usize| {
            let n = random.below(most + 1);
            (0..n).fold(start.to_owned(), |text, _| {
                text + PIECES[random.below(PIECES.len())]
            })
        };
        let (url, query, body) = (after(url, 3), after("", 3), after("", 1));
        let fields = names.map(|name| (after(name, usize::from(name.is_empty())), after("", 2)));
        let verb = [Method::GET, Method::POST, Method::PUT, method("X")][url.len() % 4].clone();
        let mut builder = Request::builder(verb.clone(), &url)
            .query([(&query, &query)])
            .body(body.clone());
        for (name, value) in &fields {
            builder = builder.header(name, value);
        }
        let Ok(request) = builder.build() else {
            continue;
        };
        accepted += 1;

        let mut lines: Vec<&str> = str::from_utf8(request.wire_head())
            .expect("UTF-8 went in")
            .split("\r\n")
            .collect();
        assert_eq!(lines.pop(), Some(""), "{url:?} {fields:?}");
        assert!(
            lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])),
            "{lines:?}"
        );
        let path_and_query = request.uri().path_and_query().expect("absolute");
        assert_eq!(lines.remove(0), format!("{verb} {path_and_query} HTTP/1.1"));
        assert_eq!(
            request.uri().host().map(|h| h.trim_matches(['[', ']'])),
            Some(request.host())
        );
        let usual = request.scheme().default_port();
        assert_eq!(request.uri().port_u16().unwrap_or(usual), request.port());
        let given = |known: &str| {
            fields
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(known))
        };
        let host = given("host").map_or(request.origin().authority().to_string(), |(_, v)| {
            v.trim().to_owned()
        });
        assert_eq!(lines.remove(0), format!("Host: {host}"));
        let (_, userinfo) = Target::parse_with_userinfo(&url).expect("it was accepted");
        if userinfo.is_some() {
            let line = lines.remove(0);
            assert!(line.starts_with("Authorization: Basic "), "{line}");
        }
        let mut expects = 0;
        for (name, value) in &fields {
            match name.as_str() {
                "Host" | "Content-Length" => continue,
                "Expect" if body.is_empty() || expects > 0 => continue,
                "Expect" => expects += 1,
                _ => {}
            }
            assert_eq!(
                lines.remove(0),
                format!("{name}: {}", value.trim_matches([' ', '\t']))
            );
        }
        let has_length = !body.is_empty()
            || verb == Method::POST
            || verb == Method::PUT
            || given("content-length").is_some();
        if has_length {
            assert_eq!(lines.remove(0), format!("Content-Length: {}", body.len()));
        }
        assert!(lines.is_empty(), "{lines:?}");
    }
    assert!(
        accepted > 1000,
        "only {accepted} accepted: the pieces are too often invalid"
    );
}

/// The URI of a request, which is all that a program is told about where a redirect leads, names
/// what is dialed.
#[test]
fn any_url_or_reference_is_refused_or_its_uri_names_what_is_dialed() {
    #[rustfmt::skip]
    const PIECES: &[&str] = &[
        "http://", "https://", "HTTP://", "http:", "http:/", "//", "/", "\\", "@", ":", "#", "?", "user:s3cret@",
        "a.test", "b.test", "127.0.0.1", "[::1]", "[::ffff:1.2.3.4]", "[fe80::1%25eth0]", "0x7f.1", "[", "]", "xn--",
        "%2e", "%00", "%40", "%", "%zz", ".", "..", "80", "443", "65536", "0", " ", "\t", "\r", "\n", "\u{e9}",
        "\u{ff0e}", "\u{2025}", ";", ",", "&", "=", "*", "~", "{", "}", "|", "^", "`", "\"", "<", ">", "'", "$", "!",
        "(", ")", "+", "-", "_",
    ];
    let base = built(Request::get("http://base.test/p/q?r"));
    let mut random = Random::new(23);
    let mut accepted = 0;
    for _ in 0..30_000 {
        let pieces = (0..=random.below(8)).map(|_| PIECES[random.below(PIECES.len())]);
        let text: String = pieces.collect();
        for builder in [base.resolve(&text), Request::get(&text)] {
            let request = match builder.build() {
                Ok(request) => request,
                Err(error) => {
                    let shown = format!("{error:#} {error:?}");
                    assert!(!shown.contains("s3cret"), "{text:?}: {shown}");
                    continue;
                }
            };
            accepted += 1;
            let (uri, origin) = (request.uri(), request.origin());
            let host = uri.host().expect("absolute").trim_matches(['[', ']']);
            // A zone is written with %25 in a URL (RFC 6874 §2).
            assert_eq!(host.replace("%25", "%"), origin.host(), "{text:?}");
            let usual = request.scheme().default_port();
            assert_eq!(uri.port_u16().unwrap_or(usual), origin.port(), "{text:?}");
            assert!(
                !uri.authority().expect("absolute").as_str().contains('@'),
                "{text:?}"
            );
            assert!(
                request.target().bytes().all(|b| b.is_ascii_graphic()),
                "{text:?}"
            );
            let again = built(Request::get(uri.to_string()));
            assert_eq!(
                (again.origin(), again.target()),
                (origin, request.target()),
                "{text:?}"
            );
        }
    }
    assert!(accepted > 5000, "{accepted} accepted");
}
