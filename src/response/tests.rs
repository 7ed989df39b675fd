//! Tests of what responses turn into: errors, delays, text and JSON.

use super::*;

#[test]
fn an_error_of_a_status_has_what_the_response_had() {
    let request = Request::post("http://a:81/secret").build().unwrap();
    let wire = "HTTP/1.1 429 Slow Down\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\n";
    let error = testing::lend(&request, wire, b"wait", |response| {
        Error::of_status(&response)
    });
    assert_eq!(error.kind(), ErrorKind::Status);
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(error.partial_body(), b"wait");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(
        (error.phase(), error.request_sent()),
        (Phase::Body, Sent::Yes)
    );
    assert!(!error.resend_is_safe() && error.reused_connection());
    assert_eq!(error.request().map(Request::target), Some("/secret"));
    let expected = "http://a:81: answered with 429 Too Many Requests";
    assert_eq!(format!("{error}"), expected);
    assert_eq!(format!("{error:#}"), expected);
    assert!(!format!("{error:?}").contains("secret"));
}

const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";

fn request() -> Request {
    Request::get("http://a:81/s3cret").build().unwrap()
}

/// The same response as an engine lends it and as a future resolves to it.
fn both<T>(
    wire: &str,
    body: &[u8],
    lent: impl FnOnce(Response<'_>) -> T,
    owned: impl FnOnce(http::Response<Vec<u8>>) -> T,
) -> [T; 2] {
    let mut copy = None;
    let first = testing::lend(&request(), wire, body, |response| {
        let mut owned = response.to_http();
        owned.extensions_mut().insert(response.info().clone());
        copy = Some(owned);
        lent(response)
    });
    [first, owned(copy.expect("a copy"))]
}

#[test]
fn statuses_from_400_on_are_errors() {
    #[rustfmt::skip]
    const ROWS: &[(&str, Option<&str>)] = &[
        ("200 OK", None),
        ("204 No Content", None),
        ("304 Not Modified", None),
        ("399 x", None),
        ("400 x", Some("http://a:81: answered with 400 Bad Request")),
        ("404 x", Some("http://a:81: answered with 404 Not Found")),
        ("503 x", Some("http://a:81: answered with 503 Service Unavailable")),
        ("999 x", Some("http://a:81: answered with 999 <unknown status code>")),
    ];
    for (line, expected) in ROWS {
        let wire = format!("HTTP/1.1 {line}\r\nRetry-After: 8\r\n\r\n");
        let found = both(
            &wire,
            b"s3cret",
            |response| response.error_for_status().map(Response::into_body),
            |response| response.error_for_status().map(http::Response::into_body),
        );
        for found in found {
            match (found, expected) {
                (Ok(body), None) => assert_eq!(body, b"s3cret", "{line}"),
                (Err(error), Some(expected)) => {
                    assert_eq!(error.to_string(), *expected);
                    assert_eq!(error.kind(), ErrorKind::Status);
                    assert_eq!(error.partial_body(), b"s3cret");
                    assert_eq!(error.retry_after(), Some(Duration::from_secs(8)));
                    assert_eq!(
                        error.status().map(|it| it.as_u16().to_string()),
                        Some(line[..3].into())
                    );
                    assert_eq!(error.request().map(Request::target), Some("/s3cret"));
                    assert_eq!(
                        (error.phase(), error.request_sent()),
                        (Phase::Body, Sent::Yes)
                    );
                    assert!(error.resend_is_safe() && error.reused_connection());
                    assert_eq!(error.attempts(), 1);
                    assert!(!format!("{error:#} {error:?}").contains("s3cret"));
                }
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
    }
}

#[test]
fn a_response_from_elsewhere_has_no_exchange() {
    let response = |status: u16, body: &[u8]| {
        http::Response::builder()
            .status(status)
            .body(body.to_vec())
            .unwrap()
    };
    assert!(response(200, b"").info().is_none());
    assert_eq!(response(200, b"a").text().ok(), Some("a"));
    let error = response(500, b"b").error_for_status().unwrap_err();
    assert_eq!(error.to_string(), "answered with 500 Internal Server Error");
    assert_eq!(error.partial_body(), b"b");
    assert_eq!(error.retry_after(), None);
    assert!(error.request().is_none() && error.origin().is_none());
    assert!(!error.resend_is_safe() && error.attempts() == 0);
    // Without a simulation the time is that of the system.
    let mut later = response(503, b"");
    let minute = SystemTime::now() + Duration::from_secs(60);
    let value = httpdate::fmt_http_date(minute).parse().unwrap();
    later.headers_mut().insert("Retry-After", value);
    let found = later.retry_after().unwrap().as_secs();
    assert!((50..=60).contains(&found), "{found}");
}

#[test]
fn delays_count_from_the_servers_date_or_else_from_the_time_of_day() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, Option<u64>)] = &[
        ("no field", "", None),
        ("seconds", "Retry-After: 7\r\n", Some(7)),
        ("the first of two", "retry-after: 8\r\nRetry-After: 7\r\n", Some(8)),
        ("a date", "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", Some(30)),
        ("a date and Date", "Date: Sun, 06 Nov 1994 08:50:00 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", Some(7)),
        ("a date in the past", "Retry-After: Sun, 06 Nov 1994 08:49:07 GMT\r\n", Some(0)),
        ("neither", "Retry-After: later\r\n", None),
    ];
    for (why, fields, expected) in ROWS {
        let wire = format!("HTTP/1.1 503 x\r\n{fields}\r\n");
        let found = both(
            &wire,
            b"",
            |response| response.retry_after(),
            |response| response.retry_after(),
        );
        assert_eq!(found, [expected.map(Duration::from_secs); 2], "{why}");
    }
}

#[test]
fn text_that_is_none_names_the_byte_and_the_coding() {
    const GZIP: &str = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n";
    #[rustfmt::skip]
    let rows: &[(&str, &[u8], Result<&str, &str>)] = &[
        (OK, "\u{fc}".as_bytes(), Ok("\u{fc}")),
        (OK, b"", Ok("")),
        (OK, b"ab\xff", Err("body is not UTF-8 at byte 2")),
        (GZIP, b"\x1f\x8b", Err("body is not UTF-8 at byte 1, and has the content coding \"gzip\"")),
    ];
    for (wire, body, expected) in rows {
        let text = |found: Result<&str, Error>| found.map(str::to_owned);
        let found = both(wire, body, |it| text(it.text()), |it| text(it.text()));
        for found in found {
            let found = found.map_err(|error| {
                assert_eq!(error.kind(), ErrorKind::Malformed);
                let text = format!("{error:#}");
                let start = "http://a:81: malformed response while reading the body: ";
                text.strip_prefix(start).expect("a reason").to_owned()
            });
            assert_eq!(found.as_deref().map_err(String::as_str), *expected);
        }
    }
}

#[cfg(feature = "json")]
#[test]
fn json_comes_back_or_the_mistake_without_the_body() {
    type Wanted = std::collections::BTreeMap<String, u8>;
    const GZIP: &str = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n";
    #[rustfmt::skip]
    let rows: &[(&str, &[u8], Result<u8, &str>)] = &[
        (OK, br#" {"s3cret": 7} "#, Ok(7)),
        (OK, b"", Err("body is not JSON: EOF while parsing a value at line 1 column 0")),
        (OK, b"{\n\"s3cret\": 7", Err("body is not JSON: EOF while parsing an object at line 2 column 11")),
        (OK, b"<s3cret>", Err("body is not JSON: expected value at line 1 column 1")),
        (OK, b"{} s3cret", Err("body is not JSON: trailing characters at line 1 column 4")),
        (GZIP, b"\x1f", Err("body is not JSON: expected value at line 1 column 1, and has the content coding \"gzip\"")),
        (OK, br#""s3cret""#, Err("body is JSON of another shape: invalid type, expected a map at line 1 column 8")),
        (OK, br#"", expected s3cret""#, Err("body is JSON of another shape: invalid type, expected a map at line 1 column 19")),
        (OK, br#"{"a": "s3cret"}"#, Err("body is JSON of another shape: invalid type, expected u8 at line 1 column 14")),
        (OK, br#"{"a": 256}"#, Err("body is JSON of another shape: invalid value, expected u8 at line 1 column 9")),
    ];
    for (wire, body, expected) in rows {
        let found = both(
            wire,
            body,
            |it| it.json::<Wanted>(),
            |it| it.json::<Wanted>(),
        );
        for found in found {
            let found = found.map(|map| map["s3cret"]).map_err(|error| {
                assert_eq!(error.kind(), ErrorKind::Malformed);
                assert_eq!(error.status(), Some(StatusCode::OK));
                assert!(!format!("{error:?}").contains("s3cret"));
                let text = format!("{error:#}");
                let start = "http://a:81: malformed response while reading the body: ";
                text.strip_prefix(start).expect("a reason").to_owned()
            });
            assert_eq!(
                found.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|it| *it)
            );
        }
    }
}
