//! The program of `examples/corpus`: a result for each job on its standard input.

use crate::servers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

/// Runs the program on these lines, and returns the results without their order.
fn results(jobs: &[String]) -> Vec<Value> {
    let mut command = servers::example("corpus");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the example has been built");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(jobs.join("\n").as_bytes())
        .expect("it reads its jobs");
    drop(stdin);
    let output = child
        .wait_with_output()
        .expect("it ends after its last job");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a result is JSON"))
        .collect()
}

/// Returns the result of one job.
fn result(job: &Value) -> Value {
    let mut results = results(&[job.to_string()]);
    assert_eq!(results.len(), 1, "{job}");
    results.remove(0)
}

/// Gives each of these responses to a connection of its own, and passes on the request heads.
fn serve<R: AsRef<[u8]> + Sync>(responses: &'static [R]) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let addr = listener.local_addr().expect("it is bound");
    let (sender, heads) = channel();
    thread::spawn(move || {
        for response in responses {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a whole head");
                head.extend(byte);
            }
            let head = String::from_utf8(head).expect("these heads are ASCII");
            // Nobody receives it if the test does not look at requests.
            let _ = sender.send(head);
            stream
                .write_all(response.as_ref())
                .expect("the client reads");
        }
    });
    (addr, heads)
}

#[test]
fn each_job_has_a_result_in_any_order() {
    let jobs: Vec<String> = (0..50)
        .map(|id| json!({"id": id, "kind": "url", "input": format!("http://a/{id}")}).to_string())
        .collect();
    let mut results = results(&jobs);
    results.sort_by_key(|result| result["id"].as_u64());
    let expected: Vec<Value> = (0..50)
        .map(|id| json!({"id": id, "href": format!("http://a/{id}")}))
        .collect();
    assert_eq!(results, expected);
}

#[test]
fn a_response_is_told_in_full() {
    let (addr, _) = serve(&["HTTP/1.1 103 Early Hints\r\n\r\n\
         HTTP/1.1 200 Fine\r\nConnection: close\r\nContent-Length: 4\r\nX-A: b\r\n\r\nbody"]);
    let url = format!("http://{addr}/");
    let job = json!({"id": "r", "kind": "response", "method": "GET", "url": url});
    let headers = [
        ["Connection", "close"],
        ["Content-Length", "4"],
        ["X-A", "b"],
    ];
    let expected = json!({
        "id": "r", "ok": true, "status": 200, "reason": "Fine", "headers": headers,
        "trailers": [], "interim": [103], "body_b64": "Ym9keQ==", "error": null,
    });
    assert_eq!(result(&job), expected);
}

#[test]
fn an_exchange_follows_its_options() {
    let (addr, heads) = serve(&[
        "HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate, Basic realm=\"a\"\r\n\
         Connection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 There\r\nLocation: /there\r\nSet-Cookie: id=7\r\n\
         Connection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 Fine\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 200 Fine\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
    ]);
    let url = format!("http://{addr}/here");
    let auth = json!({"user": "u", "password": "p", "scheme": "any"});
    let options = json!({"follow_redirects": true, "cookie_store": true, "auth": auth});
    let requests = [
        json!({"method": "GET", "url": url, "headers": [["X-A", "b"]], "options": options}),
        json!({"method": "GET", "url": "http://[", "headers": [], "options": {}}),
        json!({"method": "GET", "url": url, "headers": [],
            "options": {"cookie_store": true, "max_body": 3}}),
    ];
    let job = json!({"id": "e", "kind": "exchange", "requests": requests});
    let result = result(&job);
    let results = result["results"].as_array().expect("a list");
    let ok: Vec<_> = results.iter().map(|result| result["ok"] == true).collect();
    assert_eq!(ok, [true, false, false], "{result}");
    assert_eq!(results[0]["status"], 200);

    let heads: Vec<String> = heads.try_iter().collect();
    let lines = |wanted: &str| -> Vec<Option<&str>> {
        let heads = heads.iter();
        heads
            .map(|head| head.lines().find(|line| line.starts_with(wanted)))
            .collect()
    };
    let (here, there) = (Some("GET /here HTTP/1.1"), Some("GET /there HTTP/1.1"));
    assert_eq!(lines("GET"), [here, here, there, here]);
    let basic = Some("Authorization: Basic dTpw");
    assert_eq!(lines("Authorization"), [None, basic, basic, None]);
    let cookie = Some("Cookie: id=7");
    assert_eq!(lines("Cookie"), [None, None, cookie, cookie]);
    assert_eq!(lines("X-A").iter().flatten().count(), 3);
}

#[test]
fn bodies_are_decoded_where_an_option_says_so() {
    // The body is by Python's gzip.
    const CODED: &[u8] =
        b"HTTP/1.1 200 Fine\r\nConnection: close\r\nContent-Encoding: gzip\r\n\r\n\
        \x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcbH\xcd\xc9\xc9\xd7Q\xc8\x00Q\x8a\x00\
        \x9b\xdc\x9a\xb3\x0d\x00\x00\x00";
    let (addr, heads) = serve(&[CODED, CODED]);
    let url = format!("http://{addr}/");
    let request =
        |options: Value| json!({"method": "GET", "url": url, "headers": [], "options": options});
    let requests = [request(json!({"decompress": true})), request(json!({}))];
    let job = json!({"id": "d", "kind": "exchange", "requests": requests});
    let result = result(&job);
    let results = &result["results"];
    assert_eq!(results[0]["body_b64"], "aGVsbG8sIGhlbGxvIQ==", "{result}");
    assert_eq!(results[0]["headers"], json!([["Connection", "close"]]));
    assert_eq!(results[1]["headers"][1][0], "Content-Encoding", "{result}");
    let heads: Vec<String> = heads.try_iter().collect();
    assert!(heads[0].contains("\r\nAccept-Encoding: gzip"), "{heads:?}");
    assert!(!heads[1].contains("Accept-Encoding"), "{heads:?}");
}

#[test]
fn cookies_go_where_they_are_for() {
    const FROM: &str = "https://www.a.test/b/c";
    #[rustfmt::skip]
    const ROWS: &[(&str, &[&str], &str, &str)] = &[
        ("the host that set it", &["x=1"], "http://www.a.test:81/b/", "x=1"),
        ("another host", &["x=1"], "http://a.test/b/", ""),
        ("a domain", &["x=1; Domain=a.test"], "http://a.test/b/", "x=1"),
        ("another path", &["x=1"], "http://www.a.test/", ""),
        ("a secure one, over https", &["x=1; Secure"], "https://www.a.test/b/", "x=1"),
        ("a secure one, over http", &["x=1; Secure"], "http://www.a.test/b/", ""),
        ("two, the longer path first", &["x=1; Path=/", "y=2"], "http://www.a.test/b/", "y=2; x=1"),
        ("a byte that is not ASCII", &["x=\u{e9}"], FROM, "x=\u{e9}"),
    ];
    for (why, received, to, expected) in ROWS {
        let job = json!({"id": 1, "kind": "cookies",
            "received": received, "received_from": FROM, "sent_to": to});
        assert_eq!(result(&job), json!({"id": 1, "cookie": expected}), "{why}");
    }
}

#[test]
fn urls_are_printed_as_the_client_reads_them() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, Option<&str>, Option<&str>)] = &[
        ("an absolute URL", "HTTP://A:80/b c#d", None, Some("http://a/b%20c")),
        ("a reference", "../c", Some("http://a/b/d/e"), Some("http://a/b/c")),
        ("no URL", "a", None, None),
        ("no host", "http://", Some("http://a/"), None),
    ];
    for (why, input, base, expected) in ROWS {
        let job = json!({"id": 1, "kind": "url", "input": input, "base": base});
        let result = result(&job);
        assert_eq!(result["href"].as_str(), *expected, "{why}");
        assert_eq!(result.get("unsupported"), None, "{why}");
    }
}

#[test]
fn what_the_client_cannot_do_is_said() {
    let exchange = |options: Value| {
        let request = json!({"method": "GET", "url": "http://a/", "options": options});
        json!({"id": "a", "kind": "exchange", "requests": [request]}).to_string()
    };
    let url = |input: &str, base: Option<&str>| {
        json!({"id": "a", "kind": "url", "input": input, "base": base}).to_string()
    };
    let rows = [
        ("another kind", r#"{"id": "a", "kind": "mail"}"#.to_owned()),
        ("another scheme", url("ftp://a/", None)),
        ("a host that is not ASCII", url("http://\u{e9}/", None)),
        (
            "credentials in a reference",
            url("//u:p@a/", Some("http://a/")),
        ),
        (
            "a lone surrogate",
            r#"{"id": "a", "kind": "url", "input": "\uD800"}"#.to_owned(),
        ),
        (
            "an option",
            exchange(json!({"proxy": {"url": "http://a/"}})),
        ),
        (
            "credentials of another kind",
            exchange(json!({"auth": {"scheme": "ntlm"}})),
        ),
        (
            "a name for a name",
            exchange(json!({"resolve": [["a", "*", "b", "*"]]})),
        ),
    ];
    for (why, job) in rows {
        let results = results(&[job]);
        assert_eq!(results.len(), 1, "{why}");
        let result = &results[0];
        assert_eq!(
            (&result["id"], &result["unsupported"]),
            (&json!("a"), &json!(true)),
            "{why}"
        );
        assert!(result["why"].is_string(), "{why}");
    }
}
