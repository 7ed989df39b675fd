//! Tests of what is refused, what is sent, and what is never printed.

use std::error::Error as _;

use super::*;
use crate::error::ErrorKind;
use crate::generation::Generation;
use crate::proto::target::Target;
use crate::proto::{Origin, Scheme};
use crate::request::field_bit;
use crate::timeouts::{Millis, TimeoutsEdit};

mod properties;

const URL: &str = "http://example.com/a";

fn built(builder: RequestBuilder) -> Request {
    builder.build().unwrap_or_else(|error| panic!("{error:?}"))
}

fn refused(builder: RequestBuilder) -> Invalid {
    let error = builder.build().expect_err("a mistake");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    error
        .source()
        .and_then(|source| source.downcast_ref::<Invalid>())
        .expect("an Invalid")
        .clone()
}

fn head(request: &Request) -> &str {
    str::from_utf8(request.wire_head()).expect("ASCII")
}

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).expect("a token")
}

#[test]
fn heads_go_out_as_written_here() {
    #[rustfmt::skip]
    let rows: Vec<(&str, RequestBuilder, &str, &[u8])> = vec![
        ("plain", Request::get(URL), "GET /a HTTP/1.1\r\nHost: example.com\r\n", b""),
        (
            "fields keep order, case and number",
            Request::get(URL).header("x-B", "1").header("X-a", "").header("x-b", "2"),
            "GET /a HTTP/1.1\r\nHost: example.com\r\nx-B: 1\r\nX-a: \r\nx-b: 2\r\n",
            b"",
        ),
        (
            "whitespace around a value is removed, whitespace inside it is kept",
            Request::get(URL).header("x", " \t a \t b\t "),
            "GET /a HTTP/1.1\r\nHost: example.com\r\nx: a \t b\r\n",
            b"",
        ),
        ("IPv6", Request::get("http://[::1]:81"), "GET / HTTP/1.1\r\nHost: [::1]:81\r\n", b""),
        ("head", Request::head(URL), "HEAD /a HTTP/1.1\r\nHost: example.com\r\n", b""),
        ("delete", Request::delete(URL), "DELETE /a HTTP/1.1\r\nHost: example.com\r\n", b""),
        ("options", Request::options(URL), "OPTIONS /a HTTP/1.1\r\nHost: example.com\r\n", b""),
        ("post without body", Request::post(URL), "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
        ("put without body", Request::put(URL), "PUT /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
        ("patch without body", Request::patch(URL).body(""), "PATCH /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
        ("delete with body", Request::delete(URL).body("abc"), "DELETE /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\n", b"abc"),
        ("get with an empty body", Request::get(URL).body(""), "GET /a HTTP/1.1\r\nHost: example.com\r\n", b""),
        ("custom method", Request::builder(method("MKCOL"), URL).header("a", "b"), "MKCOL /a HTTP/1.1\r\nHost: example.com\r\na: b\r\n", b""),
        (
            "length and close come last",
            Request::post(URL).close().body("x").header("a", "b"),
            "POST /a HTTP/1.1\r\nHost: example.com\r\na: b\r\nContent-Length: 1\r\nConnection: close\r\n",
            b"x",
        ),
        (
            "an upgrade adds the connection option",
            Request::get(URL).header("Upgrade", "websocket").header("a", "b"),
            "GET /a HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\na: b\r\nConnection: Upgrade\r\n",
            b"",
        ),
        (
            "the option is not added twice",
            Request::get(URL).header("connection", "keep-alive, UPGRADE").header("upgrade", "x/1, y"),
            "GET /a HTTP/1.1\r\nHost: example.com\r\nconnection: keep-alive, UPGRADE\r\nupgrade: x/1, y\r\n",
            b"",
        ),
        (
            "an upgrade that was removed again",
            Request::get(URL).header("Upgrade", "x").without("upgrade"),
            "GET /a HTTP/1.1\r\nHost: example.com\r\n",
            b"",
        ),
        ("close is written once", Request::get(URL).header("connection", "TE, Close").close(), "GET /a HTTP/1.1\r\nHost: example.com\r\nconnection: TE, Close\r\n", b""),
        (
            "a length that agrees is written once",
            Request::post(URL).header("content-length", " 03 ").body("abc"),
            "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\n",
            b"abc",
        ),
        ("length 0 on a get", Request::get(URL).header("Content-Length", "0"), "GET /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n", b""),
        ("own Host comes first", Request::get(URL).header("a", "b").header("host", " Other:8080 "), "GET /a HTTP/1.1\r\nHost: Other:8080\r\na: b\r\n", b""),
        ("queries add up", Request::get("http://a/?x").query([("k", "a b")]).query([(String::from("ü"), "+")]), "GET /?x&k=a%20b&%C3%BC=%2B HTTP/1.1\r\nHost: a\r\n", b""),
        (
            "form",
            Request::post(URL).form([("a b", "c+d&e=f"), ("", "é~*\r\n")]),
            "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 38\r\n",
            b"a+b=c%2Bd%26e%3Df&=%C3%A9%7E*%0D%0A",
        ),
        (
            "form with another content type",
            Request::post(URL).form([("a", "b")]).header("content-type", "x/y"),
            "POST /a HTTP/1.1\r\nHost: example.com\r\ncontent-type: x/y\r\nContent-Length: 3\r\n",
            b"a=b",
        ),
        (
            "a body replaces a form and its content type",
            Request::post(URL).form([("a", "b")]).body("cd"),
            "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n",
            b"cd",
        ),
        (
            "segments go before the query",
            Request::get("http://a/b/?c").segments(["d e", "f/g"]).segment(7).param("h", true),
            "GET /b/d%20e/f%2Fg/7?c&h=true HTTP/1.1\r\nHost: a\r\n",
            b"",
        ),
        (
            "values of any type",
            Request::post(URL).query([("a", 1), ("b", -2)]).form([("c", 0.5)]).param("d", 'e').without("content-type"),
            "POST /a?a=1&b=-2&d=e HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n",
            b"c=0.5",
        ),
        (
            "credentials of the URL",
            Request::get("http://u:p@a:81/b@c").header("x", "y"),
            "GET /b@c HTTP/1.1\r\nHost: a:81\r\nAuthorization: Basic dTpw\r\nx: y\r\n",
            b"",
        ),
        ("empty credentials of the URL", Request::get("http://:@a/"), "GET / HTTP/1.1\r\nHost: a\r\n", b""),
        (
            "the field wins over credentials of the URL",
            Request::get("http://u:p@a/").header("authorization", "x"),
            "GET / HTTP/1.1\r\nHost: a\r\nauthorization: x\r\n",
            b"",
        ),
        (
            "Basic credentials",
            Request::get("http://u:p@a/").basic_auth("Aladdin", "open sesame").header("x", "y"),
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\nx: y\r\n",
            b"",
        ),
        (
            "a Bearer token, the last of four",
            Request::get(URL).header("Authorization", "x").header("authorization", "y").basic_auth("u", "").bearer_auth("abc="),
            "GET /a HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer abc=\r\n",
            b"",
        ),
        (
            "Basic credentials after a token, and then none",
            Request::get(URL).bearer_auth("abc").basic_auth("u", "p").without("authorization"),
            "GET /a HTTP/1.1\r\nHost: example.com\r\n",
            b"",
        ),
        (
            "expectation without body is left out",
            Request::post(URL).header("Expect", "100-continue").header("a", "b"),
            "POST /a HTTP/1.1\r\nHost: example.com\r\na: b\r\nContent-Length: 0\r\n",
            b"",
        ),
    ];
    for (why, builder, expected, body) in rows {
        let request = built(builder);
        let expected = expected.replace(
            "Content-Length: 38",
            &format!("Content-Length: {}", request.wire_body().len()),
        );
        assert_eq!(head(&request), expected, "{why}");
        assert_eq!(request.wire_body(), body, "{why}");
    }
}

#[test]
fn obs_text_goes_out_as_it_is() {
    let request = built(Request::get(URL).header("x", [0x80, b' ', 0xff]));
    assert!(request.wire_head().ends_with(b"x: \x80 \xff\r\n"));
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_place() {
    let part = |name: &str| InvalidPart::header(name);
    let value = |name: &str| InvalidPart::value_of(name);
    let name = |index| InvalidPart::HeaderName { index };
    #[rustfmt::skip]
    let rows: Vec<(&str, RequestBuilder, InvalidPart, Option<usize>)> = vec![
        ("url", Request::get("http://a b/"), InvalidPart::Url, Some(8)),
        ("connect", Request::builder(Method::CONNECT, URL), InvalidPart::Method, None),
        ("method too long", Request::builder(method(&"M".repeat(256)), URL), InvalidPart::Method, Some(255)),
        ("trace with a body", Request::builder(Method::TRACE, URL).body("a"), InvalidPart::Body, None),
        ("query too long", Request::get(URL).query([("a", "b".repeat(70_000))]), InvalidPart::Query, None),
        ("pair too long", Request::get(URL).param("a", "b".repeat(70_000)), InvalidPart::Query, None),
        ("pairs without end", Request::get(URL).query(std::iter::repeat(("a", "b"))), InvalidPart::Query, None),
        ("segments without end", Request::get("http://a/").segments(std::iter::repeat("b")), InvalidPart::Segment { index: 32_757 }, None),
        ("empty segment", Request::get(URL).segment(""), InvalidPart::Segment { index: 0 }, None),
        ("third segment of all", Request::get(URL).segment("a").segments(["b", ".", ".."]), InvalidPart::Segment { index: 2 }, None),
        ("colon in a user", Request::get(URL).basic_auth("a:b", "c"), InvalidPart::Credentials, None),
        ("space in a token", Request::get(URL).bearer_auth("ab c"), InvalidPart::Credentials, Some(2)),
        ("encoded colon in a URL's user", Request::get("http://a%3ab:c@d/"), InvalidPart::Url, None),
        ("control byte in a URL's password", Request::get("http://a:b%00@c/"), InvalidPart::Url, None),
        ("bad encoding in a URL's password", Request::get("http://a:b%@c/"), InvalidPart::Url, Some(10)),
        ("empty name", Request::get(URL).header("", "a"), name(0), None),
        ("space before the colon", Request::get(URL).header("a", "").header("b ", "c"), name(1), Some(1)),
        ("colon in a name", Request::get(URL).header("a:b", "c"), name(0), Some(1)),
        ("name not ASCII", Request::get(URL).header("é", "c"), name(0), Some(0)),
        ("pseudo header", Request::get(URL).header(":path", "/"), name(0), Some(0)),
        ("offset counts the whitespace before", Request::get(URL).header("a", "  \x01"), value("a"), Some(2)),
        ("CR after the value", Request::get(URL).header("a", "b \r"), value("a"), Some(2)),
        ("DEL", Request::get(URL).header("a", "\x7f"), value("a"), Some(0)),
        ("two Hosts", Request::get(URL).header("Host", "a").header("host", "a"), part("host"), None),
        ("malformed Host", Request::get(URL).header("host", " a/"), value("host"), Some(2)),
        ("empty Host", Request::get(URL).header("host", ""), value("host"), Some(0)),
        ("user in Host", Request::get(URL).header("host", "u@a"), value("host"), Some(1)),
        ("two lengths", Request::post(URL).header("content-length", "1").header("Content-Length", "1").body("a"), part("Content-Length"), None),
        ("length too small", Request::post(URL).header("Content-Length", "1").body("ab"), value("Content-Length"), None),
        ("length without body", Request::get(URL).header("Content-Length", "1"), value("Content-Length"), None),
        ("list of lengths", Request::post(URL).header("Content-Length", "1, 1").body("a"), value("Content-Length"), None),
        ("signed length", Request::post(URL).header("Content-Length", "+1").body("a"), value("Content-Length"), None),
        ("empty length", Request::post(URL).header("Content-Length", ""), value("Content-Length"), None),
        ("an upgrade without its field", Request::get(URL).header("Connection", "close, upgrade"), InvalidPart::value_of("Connection"), None),
        ("an upgrade that was removed, but not its option", Request::get(URL).header("Upgrade", "x").header("Connection", "upgrade").without("Upgrade"), InvalidPart::value_of("Connection"), None),
        ("transfer coding", Request::post(URL).header("transfer-encoding", "chunked"), part("transfer-encoding"), None),
        ("connection upgrade", Request::get(URL).header("Connection", "close , UPGRADE"), value("Connection"), None),
        ("other expectation", Request::put(URL).header("Expect", "x").body("a"), value("Expect"), None),
        ("first of two mistakes", Request::get(URL).header("a\n", "b").header("c", "\n"), name(0), Some(1)),
        ("mistake before one of the whole request", Request::get(URL).header("Content-Length", "9").header("a", "\0"), value("a"), Some(0)),
    ];
    for (why, builder, part, offset) in rows {
        let invalid = refused(builder);
        assert_eq!((invalid.part(), invalid.offset()), (&part, offset), "{why}");
    }
}

#[test]
fn no_part_takes_a_line_break() {
    for byte in ['\r', '\n', '\0'] {
        for text in [
            format!("{byte}ab"),
            format!("a{byte}b"),
            format!("ab{byte}"),
        ] {
            let at = text.find(byte);
            let name = refused(Request::get(URL).header(&text, "x"));
            assert_eq!(
                (name.part(), name.offset()),
                (&InvalidPart::HeaderName { index: 0 }, at)
            );
            for header in ["x", "Host", "Expect", "Connection", "Content-Length"] {
                let value = refused(Request::get(URL).header(header, &text));
                assert_eq!(
                    (value.part(), value.offset()),
                    (&InvalidPart::value_of(header), at)
                );
            }
            let url = refused(Request::get(format!("http://a/{text}")));
            assert_eq!(
                (url.part(), url.offset()),
                (&InvalidPart::Url, at.map(|at| at + 9))
            );
            let host = refused(Request::get(format!("http://{text}/")));
            assert_eq!(
                (host.part(), host.offset()),
                (&InvalidPart::Url, at.map(|at| at + 7))
            );
            assert!(Method::from_bytes(text.as_bytes()).is_err());
            // A query and a form may contain any text, since it is encoded.
            let encoded = built(
                Request::post(URL)
                    .query([(&text, &text)])
                    .form([(&text, &text)]),
            );
            assert_eq!(head(&encoded).matches('\n').count(), 4);
            assert!(!encoded.wire_body().contains(&(byte as u8)));
        }
    }
}

#[cfg(not(any(feature = "tls", feature = "sim")))]
#[test]
fn https_is_refused_where_there_is_no_tls() {
    let refused = refused(Request::get("https://a/"));
    let expected = "URL: https needs the feature `tls` (byte 0)";
    assert_eq!(refused.to_string(), expected);
}

#[cfg(feature = "tls")]
#[test]
fn https_is_taken_where_there_is_tls() {
    let request = Request::get("https://a/").build().expect("valid");
    assert_eq!((request.scheme(), request.port()), (Scheme::Https, 443));
}

/// A value that cannot be displayed.
struct Fails;

impl fmt::Display for Fails {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

#[test]
fn mistakes_are_told_in_one_clause() {
    #[rustfmt::skip]
    let rows = [
        (Request::get(URL).header("x-a", "abc\r"), r#"header value of "x-a": CR at byte 3"#),
        (Request::get(URL).header("x a", ""), r#"header name starting with "x": space at byte 1"#),
        (Request::get(URL).header("a(", ""), r#"header name starting with "a": '(' at byte 1"#),
        (Request::get("http://a:0/"), "URL: port is 0 (byte 9)"),
        (Request::get("http://u%:p@a/"), "URL: % in userinfo must precede two hexadecimal digits (byte 8)"),
        (Request::get("http://u%3A:p@a/"), "URL: the user contains a colon, which would end it"),
        (Request::get("http://u:%0a@a/"), "URL: the password contains a control character"),
        (Request::get(URL).basic_auth("u:v", "p"), "credentials: the user contains a colon, which would end it"),
        (Request::get(URL).basic_auth("u", "p\n"), "credentials: the password contains a control character"),
        (Request::get(URL).bearer_auth("a,b"), "credentials: not allowed in a bearer token (byte 1)"),
        (Request::get(URL).bearer_auth(""), "credentials: the bearer token is empty"),
        (Request::get(URL).segments(["a", ""]), "path segment 1: a segment must not be empty"),
        (Request::get(URL).segment(".."), "path segment 0: a segment must not be . or .."),
        (Request::get(URL).segment(Fails), "path segment 0: its Display implementation failed"),
        (Request::get(URL).param("a", Fails), "query: its Display implementation failed"),
        (Request::post(URL).form([("a", Fails)]), "body: its Display implementation failed"),
        (built(Request::get(URL)).resolve("//u:p@a"), "reference: userinfo is refused: credentials belong in an Authorization field (byte 5)"),
        (Request::builder(Method::TRACE, URL).body("x"), "body: a TRACE request has none"),
    ];
    for (builder, expected) in rows {
        assert_eq!(refused(builder).to_string(), expected);
    }
}

#[test]
fn nothing_shows_a_secret() {
    const SECRET: &str = "s3cret";
    #[rustfmt::skip]
    let rows = [
        Request::get("http://example.com/s3cret?k=s3cret"),
        Request::get(URL).query([(SECRET, SECRET)]).header("authorization", SECRET),
        Request::post(URL).form([(SECRET, SECRET)]),
        Request::get(URL).header("Host", "s3cret"),
        Request::get("http://s3cret:s3cret@example.com/"),
        Request::get("http://s3cret:s3cret@s3cret@example.com/"),
        Request::get("http://s3cret%3As3cret:@example.com/"),
        Request::get("http://s3cret:s3cret%0A@example.com/"),
        Request::get("http://s3cret:s3cret%@example.com/"),
        Request::get("http://s3cret:s3cret@example.com:0/"),
        Request::get("http://s3cret:s3cret@/"),
        Request::get(URL).basic_auth(SECRET, SECRET),
        Request::get(URL).basic_auth("s3cret:", SECRET),
        Request::get(URL).basic_auth(SECRET, "s3cret\n"),
        Request::get(URL).bearer_auth(SECRET),
        Request::get(URL).bearer_auth("s3cret\n"),
        Request::get(URL).segments([SECRET, ""]),
        Request::get("http://example.com/s3cret\n"),
        Request::get("s3cret://example.com/"),
        Request::get("http://[s3cret]/"),
        Request::get(URL).header("authorization", "s3cret\n"),
        Request::get(URL).header("authorization: s3cret", ""),
        Request::get(URL).header("host", "s3cret@a"),
        Request::get(URL).header("content-length", SECRET),
        Request::get(URL).header("expect", SECRET),
        Request::get(URL).query([("a", SECRET.repeat(20_000))]),
    ];
    for (i, builder) in rows.into_iter().enumerate() {
        let mut shown = format!("{builder:?} {builder:#?}");
        match builder.build() {
            Ok(request) => shown += &format!("{request:?} {request:#?}"),
            Err(error) => {
                let source = error.source().expect("an Invalid");
                shown += &format!("{error} {error:?} {source} {source:?}");
            }
        }
        assert!(!shown.contains(SECRET), "row {i}: {shown}");
        for text in ["/s", "/a", "k="] {
            assert!(
                !shown.replace("http://", "").contains(text),
                "row {i}: {shown}"
            );
        }
    }
    let shown = format!(
        "{:?}",
        built(Request::builder(method("MKCOL"), "http://[::1]:81/a"))
    );
    assert_eq!(shown, "Request { method: MKCOL, origin: http://[::1]:81 }");
}

#[test]
fn the_engine_is_told_where_to_connect() {
    // URL, Host field, host, port.
    #[rustfmt::skip]
    const ROWS: &[(&str, Option<&str>, &str, u16)] = &[
        ("http://Example.COM", None, "example.com", 80),
        ("http://example.com:81/x", None, "example.com", 81),
        ("http://[::1]:81", None, "::1", 81),
        ("http://[::1]", Some("other:7"), "::1", 80),
        ("http://127.0.0.1:81/", Some("example.com"), "127.0.0.1", 81),
        ("http://[fe80::1%25eth0]:81/", None, "fe80::1%eth0", 81),
        ("http://[fe80::1%25eth0]", Some("other:7"), "fe80::1%eth0", 80),
    ];
    for (url, host_field, host, port) in ROWS {
        let mut builder = Request::get(url);
        if let Some(value) = host_field {
            builder = builder.header("Host", value);
        }
        let request = built(builder);
        assert_eq!(
            (request.scheme(), request.host(), request.port()),
            (Scheme::Http, *host, *port)
        );
        assert_eq!(request.origin(), Origin::new(Scheme::Http, host, *port));
        assert_eq!(request.uri().port_u16().unwrap_or(80), *port);
        let value = host_field.map_or(request.origin().authority().to_string(), str::to_owned);
        assert!(head(&request).contains(&format!("\r\nHost: {value}\r\n")));
        assert!(head(&request).starts_with("GET /"));
    }
}

#[test]
fn a_zone_id_stays_on_this_machine() {
    let request = built(Request::get("http://[FE80::1%25Eth0]:81/a"));
    assert_eq!(request.origin().to_string(), "http://[fe80::1%25Eth0]:81");
    assert_eq!(request.uri(), "http://[fe80::1%25Eth0]:81/a");
    let wire = head(&request);
    assert!(wire.contains("\r\nHost: [fe80::1]:81\r\n"), "{wire}");
    assert!(!wire.contains('%') && !wire.contains("Eth0"), "{wire}");
    let again = Request::try_from(http::Request::get(request.uri()).body("").unwrap()).unwrap();
    assert_eq!(again.origin(), request.origin());
    let shown = format!("{request:?}");
    assert!(shown.contains("http://[fe80::1%25Eth0]:81"), "{shown}");
}

#[test]
fn methods_and_uris_come_back() {
    for name in [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "get",
        "MKCOL",
        "A-METHOD-LONGER-THAN-ANY",
    ] {
        let request =
            built(Request::builder(method(name), "http://[::1]:81/ü?a#f").query([("b", "c")]));
        assert_eq!(request.method().as_str(), name);
        assert_eq!(request.uri(), "http://[::1]:81/%C3%BC?a&b=c");
        assert!(std::ptr::eq(request.uri(), request.clone().uri()));
        assert_eq!(request.is_head(), name == "HEAD");
    }
}

#[test]
fn idempotence_follows_the_method_unless_said() {
    const ROWS: &[(&str, bool)] = &[
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("TRACE", true),
        ("PUT", true),
        ("DELETE", true),
        ("POST", false),
        ("PATCH", false),
        ("MKCOL", false),
        ("get", false),
    ];
    for (name, expected) in ROWS {
        let builder = || Request::builder(method(name), URL);
        assert_eq!(built(builder()).is_idempotent(), *expected, "{name}");
        for said in [true, false] {
            assert_eq!(
                built(builder().idempotent(said)).is_idempotent(),
                said,
                "{name}"
            );
        }
    }
}

#[test]
fn connections_are_asked_for() {
    let plain = built(Request::get(URL).header("Connection", "keep-alive"));
    assert!(!plain.wants_close() && !plain.wants_fresh_connection());
    let fresh = built(Request::get(URL).fresh_connection());
    assert!(!fresh.wants_close() && fresh.wants_fresh_connection());
    for closing in [
        Request::get(URL).close(),
        Request::get(URL).header("CONNECTION", "x,\tcLose"),
    ] {
        let closing = built(closing);
        assert!(closing.wants_close() && !closing.wants_fresh_connection());
    }
}

#[test]
fn expect_line_can_be_cut_out() {
    let request = built(
        Request::put(URL)
            .header("a", "Expect: 1")
            .header("eXpect", "100-Continue")
            .header("expect", "100-continue")
            .header("b", "")
            .body("x"),
    );
    let line = request.expect_line().expect("a line");
    assert_eq!(&head(&request)[line.clone()], "eXpect: 100-Continue\r\n");
    let mut rest = head(&request).to_owned();
    rest.replace_range(line, "");
    assert_eq!(
        rest,
        "PUT /a HTTP/1.1\r\nHost: example.com\r\na: Expect: 1\r\nb: \r\nContent-Length: 1\r\n"
    );
    // With a caller's Host the origin's host is stored before the head; positions still count from
    // the head.
    let request = built(
        Request::put(URL)
            .header("Expect", "100-continue")
            .header("Host", "h")
            .body("x"),
    );
    assert_eq!(
        &head(&request)[request.expect_line().expect("a line")],
        "Expect: 100-continue\r\n"
    );
    assert_eq!(
        built(Request::put(URL).header("Expect", "100-continue")).expect_line(),
        None
    );
}

#[test]
fn fields_are_found_in_any_case() {
    let request = built(
        Request::post("http://example.com/user-agent")
            .header("X-Foo", "bar: baz")
            .form([("a", "b")])
            .close(),
    );
    for present in [
        "x-foo",
        "X-FOO",
        "host",
        "content-length",
        "Content-Type",
        "connection",
    ] {
        assert!(request.has_field(present), "{present}");
        assert_ne!(
            request.field_mask() & field_bit(present.as_bytes()),
            0,
            "{present}"
        );
    }
    for absent in [
        "x-fo",
        "x-foo2",
        "user-agent",
        "bar",
        "POST /user-agent HTTP/1.1",
        "",
    ] {
        assert!(!request.has_field(absent), "{absent}");
    }
    for name in ["", "a", "user-agent", "Accept"] {
        assert_eq!(field_bit(name.as_bytes()).count_ones(), 1);
        assert_eq!(
            field_bit(name.as_bytes()),
            field_bit(name.to_uppercase().as_bytes())
        );
    }
}

/// Returns requests that together use every option of the builder.
fn all_kinds() -> Vec<Request> {
    let route = Arc::new(Route::default());
    #[rustfmt::skip]
    let builders = vec![
        Request::get(URL),
        Request::get("http://[fe80::1%25eth0]:81/ü?a=b#c"),
        Request::get("http://[fe80::1%25eth0]:81/").header("Host", "[fe80::1]:81"),
        Request::get("http://[fe80::1%25eth0]:81/").header("Host", "other"),
        Request::get(URL).header("Host", "example.com"),
        Request::get(URL).header("host", "Other:7").header("a", "b"),
        Request::get(URL).header("x-B", "1").header("X-a", "").header("x-b", "2").header("X-A", [0x80, 0xff]),
        Request::builder(method("MKCOL"), URL).header("a", ": :").query([("b", "c")]),
        Request::post(URL),
        Request::post(URL).body("abc"),
        Request::delete(URL).body("abc").close(),
        Request::get(URL).header("Content-Length", "0"),
        Request::get(URL).header("Content-Length", "0").close().header("X-Content-Length", "0"),
        Request::post(URL).header("Content-Length", "3").body("abc"),
        Request::post(URL).form([("a b", "c&d")]),
        Request::post(URL).form([("a", "b")]).close(),
        Request::post(URL).form([("a", "b")]).header("content-type", "x/y"),
        Request::post(URL).header("Content-Type", "application/x-www-form-urlencoded").body("a=b"),
        Request::get("http://u:p@example.com/").segment("a b").header("a", "b"),
        Request::get(URL).bearer_auth("abc").header("a", "b"),
        #[cfg(feature = "json")]
        Request::post(URL).json(&[1, 2]).close(),
        Request::get(URL).close(),
        Request::get(URL).header("Connection", "close"),
        Request::get(URL).header("Connection", "close").header("a", "b"),
        Request::get(URL).header("connection", "TE, close").header("Connection", "close"),
        Request::post(URL).header("connection", "TE, close").header("Connection", "close").body("a"),
        Request::get(URL).header("X-Connection", "close").header("Connection", "keep-alive"),
        Request::get(URL).header("X-Connection", "close").close(),
        Request::get(URL).fresh_connection(),
        Request::put(URL).header("a", "").header("expect", "100-Continue").header("b", "").body("x"),
        Request::put(URL).header("Expect", "100-continue"),
        Request::get(URL).idempotent(true),
        Request::get(URL).idempotent(false),
        Request::post(URL).idempotent(true).pipeline(7),
        Request::get(URL).pipeline(1),
        Request::get(URL).long_poll(Duration::from_secs(60)).timeout(Duration::from_secs(7)).timeouts(|t| t.idle = None),
        Request::get(URL).limits(|l| l.max_fields = 9).limits(|l| l.refuse_obs_fold = true),
        Request::get(URL).route(Arc::clone(&route)),
        Request::get(URL).header("Upgrade", "websocket").header("a", "b"),
        Request::get(URL).header("Connection", "Upgrade").header("Upgrade", "websocket"),
        Request::get(URL).lane("chat 7").priority(-3),
        Request::get(URL).priority(127),
        Request::get(URL).download_rate(1000).upload_rate(u64::MAX),
        Request::get(URL).low_speed(10, Duration::from_secs(30)),
        Request::get(URL).timeouts(|t| t.low_speed = None).timeouts(|t| t.idle = None),
        Request::get(URL).marked(Generation::new().mark()),
        Request::get(URL).carry(|_| Some(Arc::new("policies"))),
    ];
    builders.into_iter().map(built).collect()
}

#[test]
fn an_edit_without_a_change_gives_an_equal_request() {
    for request in all_kinds() {
        let again = built(request.edit());
        again.assert_same(&request, "edited");
        built(again.edit()).assert_same(&request, "edited twice");
        let body = request.wire_body();
        if !body.is_empty() {
            let twice = built(built(again.edit()).edit());
            assert_eq!(twice.wire_body().as_ptr(), body.as_ptr(), "{request:?}");
        }
        // A change that is reverted leaves no trace.
        let undone = request.edit().header("X-New", "1").without("x-new");
        let undone = built(undone.method(method("X")).method(request.method().clone()));
        undone.assert_same(&request, "changed and changed back");
    }
}

#[test]
fn a_shared_body_outlives_the_request_that_it_came_from() {
    let request = built(Request::post(URL).body("abc"));
    let edited = built(request.edit().header("a", "b"));
    drop(request);
    let twice = built(edited.edit());
    drop(edited);
    assert_eq!(twice.body(), Some(&b"abc"[..]));
}

#[test]
fn edits_change_what_they_say_and_nothing_else() {
    let form = built(Request::post(URL).form([("a", "b")]).close());
    let plain = built(Request::get(URL).header("a", "1").header("b", "2"));
    let put = built(
        Request::put(URL)
            .header("Expect", "100-continue")
            .header("Host", "h")
            .body("x"),
    );
    #[rustfmt::skip]
    let rows: Vec<(&str, RequestBuilder, &str)> = vec![
        ("one more field", plain.edit().header("c", "3"), "GET /a HTTP/1.1\r\nHost: example.com\r\na: 1\r\nb: 2\r\nc: 3\r\n"),
        ("a field replaced", plain.edit().without("A").header("a", "3"), "GET /a HTTP/1.1\r\nHost: example.com\r\nb: 2\r\na: 3\r\n"),
        ("another of the same name", plain.edit().header("A", "3"), "GET /a HTTP/1.1\r\nHost: example.com\r\na: 1\r\nb: 2\r\nA: 3\r\n"),
        ("no such field", plain.edit().without("c").without("").without("a: 1"), "GET /a HTTP/1.1\r\nHost: example.com\r\na: 1\r\nb: 2\r\n"),
        ("a query", plain.edit().query([("q", "x")]), "GET /a?q=x HTTP/1.1\r\nHost: example.com\r\na: 1\r\nb: 2\r\n"),
        ("fields of a form stay before its content type", form.edit().header("c", "3"), "POST /a HTTP/1.1\r\nHost: example.com\r\nc: 3\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\nConnection: close\r\n"),
        ("another body removes the form's content type", form.edit().body("xy"), "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\nConnection: close\r\n"),
        ("a form without its content type", form.edit().without("content-type"), "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\nConnection: close\r\n"),
        ("a form without close", form.edit().without("connection"), "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n"),
        ("a redirect that turns it into a GET", form.edit().method(Method::GET).body("").without("Connection"), "GET /a HTTP/1.1\r\nHost: example.com\r\n"),
        ("the URL's Host again", put.edit().without("HOST"), "PUT /a HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"),
        ("another Host", put.edit().without("Host").header("Host", "i"), "PUT /a HTTP/1.1\r\nHost: i\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"),
        ("no expectation any more", put.edit().without("expect"), "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"),
        ("expectation goes with the body", put.edit().body(""), "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"),
        ("a line before the expectation is removed", put.edit().header("a", "b").without("a"), "PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"),
    ];
    for (why, builder, expected) in rows {
        assert_eq!(head(&built(builder)), expected, "{why}");
    }
    let put = built(put.edit().without("expect"));
    assert!(!put.expects_continue() && put.expect_line().is_none());
    assert!(!built(form.edit().without("connection")).wants_close());
    assert!(!built(form.edit().method(Method::TRACE).body("")).has_field("content-type"));
    // Checks of the request as a whole are repeated.
    let piped = built(Request::get(URL).pipeline(7));
    assert_eq!(
        refused(piped.edit().method(Method::POST)).part(),
        &InvalidPart::Pipeline
    );
    assert_eq!(
        refused(plain.edit().method(Method::CONNECT)).part(),
        &InvalidPart::Method
    );
    assert_eq!(
        refused(put.edit().header("Host", "a").header("host", "b")).part(),
        &InvalidPart::header("Host"),
    );
    assert_eq!(
        refused(put.edit().method(Method::TRACE)).part(),
        &InvalidPart::Body
    );
}

#[cfg(feature = "json")]
#[test]
fn a_body_and_its_content_type_are_replaced_together() {
    let form = || Request::post(URL).form([("a", 1)]);
    let json = || Request::post(URL).json(&[1]);
    let edited = |builder: RequestBuilder| built(builder).edit();
    // Why, builder, Content-Type, body.
    #[rustfmt::skip]
    let rows: Vec<(&str, RequestBuilder, Option<&str>, &str)> = vec![
        ("JSON", json(), Some("application/json"), "[1]"),
        ("JSON of another type", json().header("content-type", "a/b"), Some("a/b"), "[1]"),
        ("JSON of a type set before", Request::post(URL).header("content-type", "a/b").json("c"), Some("a/b"), r#""c""#),
        ("JSON without a type", json().without("Content-Type"), None, "[1]"),
        ("JSON after a form", form().json(&true), Some("application/json"), "true"),
        ("a form after JSON", json().form([("b", 2)]), Some("application/x-www-form-urlencoded"), "b=2"),
        ("a body after JSON", json().body("c"), None, "c"),
        ("JSON, edited", edited(json()), Some("application/json"), "[1]"),
        ("JSON, edited and replaced by a form", edited(json()).form([("b", 2)]), Some("application/x-www-form-urlencoded"), "b=2"),
        ("JSON, edited and replaced by a body", edited(json()).body("c"), None, "c"),
        ("JSON, edited and replaced by none", edited(json()).body(""), None, ""),
        ("JSON, edited and another type set", edited(json()).header("Content-Type", "a/b"), Some("a/b"), "[1]"),
        ("JSON, edited twice", edited(edited(json()).close()).body("c"), None, "c"),
        ("a form, edited and replaced by JSON", edited(form()).json("c"), Some("application/json"), r#""c""#),
        ("a type set before stays", edited(Request::post(URL).header("content-type", "a/b").json("c")).body("d"), Some("a/b"), "d"),
    ];
    for (why, builder, content_type, body) in rows {
        let request = built(builder);
        assert_eq!(request.header_str("Content-Type"), content_type, "{why}");
        assert_eq!(request.body(), Some(body.as_bytes()), "{why}");
    }
}

#[cfg(feature = "json")]
#[test]
fn json_that_cannot_be_serialized_is_refused_without_its_values() {
    use std::collections::HashMap;

    struct Refuses;
    impl serde::Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("s3cret"))
        }
    }
    let keys = HashMap::from([((1, "s3cret"), 1)]);
    for (builder, expected) in [
        (
            Request::post(URL).json(&keys),
            "body: cannot be serialized: key must be a string",
        ),
        (
            Request::post(URL).json(&[Refuses]),
            "body: cannot be serialized: its Serialize implementation failed",
        ),
    ] {
        let invalid = refused(builder);
        assert_eq!(invalid.part(), &InvalidPart::Body);
        assert_eq!(invalid.to_string(), expected);
        assert!(!format!("{invalid:?}").contains("s3cret"));
    }
}

#[test]
fn credentials_stay_with_their_origin() {
    let request = built(Request::get("http://u:p@a/b?c"));
    let basic = Some(&b"Basic dTpw"[..]);
    assert_eq!(built(request.edit()).header("Authorization"), basic);
    let edited = built(request.edit().bearer_auth("abc"));
    assert_eq!(edited.header("Authorization"), Some(&b"Bearer abc"[..]));
    // Location, URL, Authorization.
    type Row = (&'static [u8], &'static str, Option<&'static [u8]>);
    #[rustfmt::skip]
    let rows: [Row; 7] = [
        (b"/d", "http://a/d", basic),
        (b"http://a:80/", "http://a/", basic),
        (b"http://v:q@a/", "http://a/", basic),
        (b"//v:q@x@r", "http://r/", None),
        (b"https://a/", "https://a/", None),
        ("/\u{fc}?\u{fc}".as_bytes(), "http://a/%C3%BC?%C3%BC", basic),
        (b"/\xfc%20 a?\xff\xfe#\xfd", "http://a/%FC%20%20a?%FF%FE", basic),
    ];
    for (location, url, expected) in rows {
        let why = String::from_utf8_lossy(location);
        let led = built(request.follow(location));
        assert_eq!(led.uri(), url, "{why}");
        assert_eq!(led.header("Authorization"), expected, "{why}");
    }
    for (location, expected) in [
        (
            &b"ftp://a/"[..],
            "reference: leads to a scheme other than http and https (byte 0)",
        ),
        (b"/\r\nX: y", "reference: CR at byte 1"),
        (b"//\xfc/", "reference: '%' at byte 2"),
        (
            "//\u{fc}/".as_bytes(),
            "reference: host is not ASCII: use the A-label (xn--) form (byte 2)",
        ),
    ] {
        assert_eq!(refused(request.follow(location)).to_string(), expected);
    }
}

#[test]
fn idempotence_follows_an_edited_method_unless_said() {
    let get = built(Request::get(URL));
    assert!(!built(get.edit().method(Method::POST)).is_idempotent());
    let post = built(Request::post(URL));
    assert!(built(post.edit().method(Method::PUT)).is_idempotent());
    for said in [true, false] {
        let request = built(Request::get(URL).idempotent(said));
        let edited = built(request.edit().method(Method::POST));
        assert_eq!(edited.is_idempotent(), said);
        assert_eq!(
            built(edited.edit().method(Method::GET)).is_idempotent(),
            said
        );
    }
}

#[test]
fn an_edit_belongs_to_the_present_login() {
    let session = Generation::new();
    let request = built(Request::get(URL).marked(session.mark()));
    let is_over = |request: &Request| request.generation().expect("marked").is_over();
    assert!(!is_over(&request) && !is_over(&request.clone()));
    session.end();
    assert!(is_over(&request));
    let edited = built(request.edit());
    assert!(is_over(&request) && !is_over(&edited) && is_over(&request.clone()));
    assert!(built(Request::get(URL)).generation().is_none());
}

#[test]
fn references_keep_what_is_not_the_origins_business() {
    let request = built(
        Request::post("https://a:444/b/c?d")
            .header("Cookie", "e=f")
            .header("cookie", "g=h")
            .header("X-I", "j")
            .header("Authorization", "k")
            .header("Proxy-Authorization", "l")
            .header("Host", "m")
            .lane("n")
            .body("xyz"),
    );
    // Why, reference, URL, whether the fields that belong to the origin stay.
    #[rustfmt::skip]
    let rows = [
        ("the same document", "", "https://a:444/b/c?d", true),
        ("a path", "../o?p#q", "https://a:444/o?p", true),
        ("the same origin in other words", "HTTPS://A:0444/", "https://a:444/", true),
        ("another host", "//r:444/", "https://r:444/", false),
        ("another port", "//a/", "https://a/", false),
        ("another scheme", "http://a:444/", "http://a:444/", false),
        ("a subdomain", "//x.a:444/", "https://x.a:444/", false),
    ];
    for (why, reference, url, stays) in rows {
        let led = built(request.resolve(reference));
        assert_eq!(led.uri(), url, "{why}");
        assert_eq!(led.method(), Method::POST, "{why}");
        assert_eq!(led.wire_body().as_ptr(), request.wire_body().as_ptr());
        assert_eq!(led.header("x-i"), Some(&b"j"[..]), "{why}");
        assert_eq!(led.lane(), Some("n"), "{why}");
        for name in ["Cookie", "Authorization", "Proxy-Authorization"] {
            assert_eq!(led.has_field(name), stays, "{why}: {name}");
        }
        let host = if stays {
            "m".to_owned()
        } else {
            led.origin().authority().to_string()
        };
        assert_eq!(led.header("host"), Some(host.as_bytes()), "{why}");
        assert_eq!(led.headers().count(), if stays { 7 } else { 3 }, "{why}");
        // Going back to the first origin does not restore them.
        let back = built(led.resolve("https://a:444/"));
        assert_eq!(back.has_field("Cookie"), stays, "{why}");
    }
    for reference in ["ftp://a/", "//u@a/", "mailto:x", "http:x", "\n", "//"] {
        let invalid = refused(request.resolve(reference));
        assert_eq!(invalid.part(), &InvalidPart::Reference, "{reference}");
        assert!(invalid.offset().is_some(), "{reference}");
    }
    let secret = refused(request.resolve("//s3cret:s3cret@a"));
    assert!(!format!("{secret} {secret:?}").contains("s3cret"));
}

#[test]
fn speeds_that_are_removed_leave_no_trace() {
    let capped = built(Request::get(URL).download_rate(1).upload_rate(2));
    assert!(capped.speeds().is_some());
    let plain = built(capped.edit().download_rate(0).upload_rate(0));
    plain.assert_same(&built(Request::get(URL)), "without caps");
    assert!(plain.rare().is_none());
    let unchanged = built(Request::get(URL).timeouts(|t| *t = t.clone()));
    assert!(unchanged.rare().is_none(), "nothing is stored for it");
    let pipelined = |request: &Request| request.pipeline(8);
    assert_eq!((pipelined(&plain), pipelined(&capped)), (8, 1));
    let low = built(Request::get(URL).low_speed(1, Duration::from_secs(1)));
    assert_eq!(pipelined(&low), 8);
    assert_eq!(pipelined(&built(capped.edit().pipeline(4))), 4);
}

#[test]
fn what_was_built_can_be_read() {
    let request = built(
        Request::post("http://[::1]:81/ü?a#b")
            .header("X-A", "1")
            .header("x-a", "2")
            .body("xyz"),
    );
    assert_eq!(request.target(), "/%C3%BC?a");
    assert_eq!(request.origin().to_string(), "http://[::1]:81");
    assert_eq!(request.body(), Some(&b"xyz"[..]));
    assert!(request.is_repeatable() && !request.is_idempotent());
    assert_eq!((request.lane(), request.priority()), (None, 0));
    for name in ["X-A", "x-a"] {
        assert_eq!(request.header(name), Some(&b"1"[..]));
    }
    for name in ["", "x", "User-Agent", "POST /%C3%BC?a HTTP/1.1"] {
        assert_eq!(request.header(name), None);
    }
    let fields: Vec<_> = request.headers().collect();
    let expected: [(&str, &[u8]); 4] = [
        ("Host", b"[::1]:81"),
        ("X-A", b"1"),
        ("x-a", b"2"),
        ("Content-Length", b"3"),
    ];
    assert_eq!(fields, expected);
    let laned = built(Request::get(URL).lane("").priority(-1).lane("x"));
    assert_eq!((laned.lane(), laned.priority()), (Some("x"), -1));
    assert_eq!(built(Request::get(URL)).body(), Some(&b""[..]));
}

#[test]
fn a_clone_shares_its_bytes() {
    let request = built(Request::get(URL));
    assert_eq!(
        request.wire_head().as_ptr(),
        request.clone().wire_head().as_ptr()
    );
}

#[test]
fn timeouts_are_the_engines_own_until_set() {
    const S: Duration = Duration::from_secs(1);
    // The engine's timeouts: first_byte 7 s, idle 7 s, total 60 s.
    let mut engine = Timeouts::default();
    (engine.first_byte, engine.idle, engine.total) = (Some(7 * S), Some(7 * S), Some(60 * S));
    let get = || Request::get(URL);
    // Why, request, first_byte, idle, total in seconds.
    type Row = (
        &'static str,
        RequestBuilder,
        Option<u32>,
        Option<u32>,
        Option<u32>,
    );
    #[rustfmt::skip]
    let rows: Vec<Row> = vec![
        ("nothing set", get(), Some(7), Some(7), Some(60)),
        ("nothing changed", get().timeouts(|_| ()), Some(7), Some(7), Some(60)),
        ("total", get().timeout(5 * S), Some(7), Some(7), Some(5)),
        ("total without end", get().timeout(Duration::MAX), Some(7), Some(7), None),
        ("set to the default", get().timeouts(|t| t.idle = Timeouts::default().idle), Some(7), Some(30), Some(60)),
        ("set to never", get().timeouts(|t| t.idle = None), Some(7), None, Some(60)),
        ("changes accumulate", get().timeouts(|t| t.idle = Some(2 * S)).timeouts(|t| t.first_byte = Some(3 * S)), Some(3), Some(2), Some(60)),
        ("long_poll fits into the total", get().long_poll(20 * S), Some(30), Some(30), Some(60)),
        ("long_poll raises the engine's total", get().long_poll(90 * S), Some(100), Some(100), Some(130)),
        ("long_poll raises a total set before", get().timeout(5 * S).long_poll(60 * S), Some(70), Some(70), Some(100)),
        ("long_poll keeps a longer total", get().timeout(500 * S).long_poll(60 * S), Some(70), Some(70), Some(500)),
        ("long_poll keeps an absent total", get().timeouts(|t| t.total = None).long_poll(60 * S), Some(70), Some(70), None),
        ("a later total wins", get().long_poll(90 * S).timeout(5 * S), Some(100), Some(100), Some(5)),
        ("a later change keeps the long poll", get().long_poll(90 * S).timeouts(|t| t.first_byte = Some(S)), Some(1), Some(100), Some(130)),
        ("a second long_poll raises them further", get().long_poll(90 * S).long_poll(100 * S), Some(110), Some(110), Some(140)),
        ("long_poll without end", get().long_poll(Duration::MAX), None, None, None),
    ];
    let engine_ms = Millis::new(&engine);
    for (why, builder, first_byte, idle, total) in rows {
        let request = built(builder);
        let seconds = |clock| {
            request
                .timeouts()
                .get(clock, &engine_ms)
                .map(|ms| ms / 1000)
        };
        assert_eq!(
            [
                seconds(Timeout::FirstByte),
                seconds(Timeout::Idle),
                seconds(Timeout::Total)
            ],
            [first_byte, idle, total],
            "{why}"
        );
    }
    // An engine without a total timeout has none for a long poll either.
    engine.total = None;
    let held = built(get().long_poll(90 * S));
    assert_eq!(
        held.timeouts().get(Timeout::Total, &Millis::new(&engine)),
        None
    );
}

#[test]
fn limits_are_the_engines_own_until_set() {
    let mut engine = Limits::default();
    (
        engine.max_fields,
        engine.max_interim,
        engine.refuse_obs_fold,
    ) = (5, 6, true);
    assert!(built(Request::get(URL)).limits().is_none());
    let request = built(
        Request::get(URL)
            .limits(|l| l.max_fields = Limits::default().max_fields)
            .limits(|l| l.max_body_bytes = 9),
    );
    let mut expected = engine.clone();
    (expected.max_fields, expected.max_body_bytes) = (Limits::default().max_fields, 9);
    assert_eq!(
        request.limits().map(|edit| edit.over(&engine)),
        Some(expected)
    );
}

#[test]
fn a_limit_that_a_request_sets_wins_whatever_the_engines_is() {
    type Set = fn(&mut Limits, usize);
    type Get = fn(&Limits) -> usize;
    let fields: [(&str, Set, Get); 6] = [
        (
            "max_head_bytes",
            |l, n| l.max_head_bytes = n,
            |l| l.max_head_bytes,
        ),
        ("max_fields", |l, n| l.max_fields = n, |l| l.max_fields),
        (
            "max_body_bytes",
            |l, n| l.max_body_bytes = n as u64,
            |l| l.max_body_bytes as usize,
        ),
        ("max_interim", |l, n| l.max_interim = n, |l| l.max_interim),
        (
            "max_trailer_bytes",
            |l, n| l.max_trailer_bytes = n,
            |l| l.max_trailer_bytes,
        ),
        (
            "max_chunk_extension_bytes",
            |l, n| l.max_chunk_extension_bytes = n,
            |l| l.max_chunk_extension_bytes,
        ),
    ];
    for (name, set, get) in fields {
        let default = get(&Limits::default());
        let near = default.saturating_sub(300)..default + 300;
        for value in near.chain([0, 1, usize::MAX / 2, usize::MAX - 1, usize::MAX]) {
            for of_engine in [0, 7, default - 1, default, default + 1, usize::MAX] {
                let mut engine = Limits::default();
                set(&mut engine, of_engine);
                let request = built(Request::get(URL).limits(|l| set(l, value)));
                let over = |request: &Request| request.limits().map(|edit| edit.over(&engine));
                let mut expected = engine.clone();
                set(&mut expected, value);
                assert_eq!(over(&request), Some(expected.clone()), "{name} = {value}");
                // Set twice, the second value wins; a change that assigns nothing keeps it.
                let request = built(
                    Request::get(URL)
                        .limits(|l| set(l, 3))
                        .limits(|l| set(l, value))
                        .limits(|_| ()),
                );
                assert_eq!(over(&request), Some(expected), "{name} = {value}");
                let untouched = built(Request::get(URL).limits(|l| {
                    let shown = get(l);
                    set(l, shown);
                }));
                assert_eq!(over(&untouched), Some(engine.clone()), "{name}");
            }
        }
    }
}

#[test]
fn a_timeout_that_a_request_sets_wins_whatever_the_engines_is() {
    type Slot = fn(&mut Timeouts) -> &mut Option<Duration>;
    let slots: [(Timeout, Slot); 7] = [
        (Timeout::Resolve, |t| &mut t.resolve),
        (Timeout::Connect, |t| &mut t.connect),
        (Timeout::Tls, |t| &mut t.tls),
        (Timeout::Write, |t| &mut t.write),
        (Timeout::FirstByte, |t| &mut t.first_byte),
        (Timeout::Idle, |t| &mut t.idle),
        (Timeout::Total, |t| &mut t.total),
    ];
    let (ms, ns) = (Duration::from_millis, Duration::from_nanos);
    for (clock, slot) in slots {
        let default = slot(&mut Timeouts::default()).unwrap();
        let at = |ms: u128| u32::try_from(ms).ok();
        let rows = [
            (None, None),
            (Some(Duration::MAX), None),
            (Some(ms(u64::MAX)), None),
            (Some(Duration::ZERO), Some(1)),
            (Some(ns(1)), Some(1)),
            (Some(default), at(default.as_millis())),
            (Some(default - ns(1)), at(default.as_millis())),
            (Some(default + ns(1)), at(default.as_millis() + 1)),
            (Some(default + ns(2)), at(default.as_millis() + 1)),
            (Some(default + ms(1)), at(default.as_millis() + 1)),
            (Some(ms((1 << 31) - 1)), Some((1 << 31) - 1)),
            (Some(ms(1 << 31)), None),
            (Some(ms((1 << 32) - 1)), None),
        ];
        for (set, expected) in rows {
            for of_engine in [None, Some(ms(7)), Some(default), Some(Duration::MAX)] {
                let mut engine = Timeouts::default();
                *slot(&mut engine) = of_engine;
                let engine = Millis::new(&engine);
                let request = built(Request::get(URL).timeouts(|t| *slot(t) = set));
                assert_eq!(
                    request.timeouts().get(clock, &engine),
                    expected,
                    "{clock:?} {set:?}"
                );
                let untouched = built(Request::get(URL).timeouts(|t| {
                    let shown = *slot(t);
                    *slot(t) = shown;
                }));
                assert_eq!(
                    untouched.timeouts().get(clock, &engine),
                    TimeoutsEdit::NONE.get(clock, &engine),
                    "{clock:?}"
                );
            }
        }
    }
    // A long poll without end, with and without a total of its own.
    let engine = Millis::new(&Timeouts::default());
    let held = built(Request::get(URL).long_poll(Duration::MAX));
    for clock in [Timeout::FirstByte, Timeout::Idle, Timeout::Total] {
        assert_eq!(held.timeouts().get(clock, &engine), None, "{clock:?}");
    }
    let held = built(Request::get(URL).long_poll(Duration::MAX).timeout(ms(9)));
    assert_eq!(held.timeouts().get(Timeout::Total, &engine), Some(9));
    let total = built(Request::get(URL).timeout(Duration::MAX));
    assert_eq!(total.timeouts().get(Timeout::Total, &engine), None);
}

#[test]
fn requests_of_http_are_taken() {
    let request = http::Request::post("http://example.com:81/a?b")
        .version(http::Version::HTTP_2)
        .header("b", "1")
        .header("a", "2")
        .header("b", "3")
        .body(b"xy".to_vec())
        .expect("valid");
    let request = Request::try_from(request).expect("valid");
    assert_eq!(
        head(&request),
        "POST /a?b HTTP/1.1\r\nHost: example.com:81\r\nb: 1\r\nb: 3\r\na: 2\r\nContent-Length: 2\r\n"
    );
    assert_eq!(request.wire_body(), b"xy");
    for uri in ["/a", "*", "example.com:80", "ftp://a/", "http://u%3a@a/"] {
        let request = http::Request::get(uri).body("").expect("valid");
        assert!(Request::try_from(request).is_err(), "{uri}");
    }
    for (field, expected) in [(None, "Basic dTpw"), (Some("x"), "x")] {
        let mut request = http::Request::get("http://u:p@a/b")
            .body("")
            .expect("valid");
        if let Some(value) = field {
            let value = http::HeaderValue::from_static(value);
            request.headers_mut().insert("Authorization", value);
        }
        let request = Request::try_from(request).expect("valid");
        assert_eq!(request.uri(), "http://a/b");
        assert_eq!(request.header("Authorization"), Some(expected.as_bytes()));
        assert_eq!(request.headers().count(), 2);
    }
    let chunked = http::Request::get(URL)
        .header("transfer-encoding", "chunked")
        .body("")
        .expect("valid");
    assert!(Request::try_from(chunked).is_err());
}
