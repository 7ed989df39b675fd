//! -w.

use serde_json::Value;

use super::scripted::{Answer, Scripted};
use super::{get, run_with, same_as_curl};
use crate::servers::free_addr;

fn server() -> Scripted {
    Scripted::start(|seen, _| match &*seen.target {
        "/moved" => Answer::new("302 Found", &["Location: /page"], "moved"),
        "/old" => Answer::cut("HTTP/1.0 200 OK\r\n\r\nto the end"),
        "/404" => Answer::new("404 Not Found", &["Content-Type: text/html"], "nope"),
        "/cut" => Answer::cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        _ => Answer::new(
            "200 OK",
            &[
                "Content-Type: text/plain; charset=utf-8",
                "X-A: b",
                "x-a: c",
            ],
            "page",
        ),
    })
}

#[test]
fn variables_are_those_of_curl() {
    let server = server();
    let stable = "\n%{content_type}|%{filename_effective}|%{http_code}|%{http_version}|\
        %{local_ip}|%{method}|%{num_headers}|%{num_redirects}|%{remote_ip}|%{remote_port}|\
        %{response_code}|%{size_download}|%{time_appconnect}|%{url}|%{url_effective}|%{urlnum}|\
        %header{x-a}|%header{nope}|100%|%|%%|%x|\\n\\r\\t\\q\\";
    for path in ["/page", "/moved", "/old", "/404", "/cut"] {
        let url = server.url(path);
        for args in [
            &[][..],
            &["-L"],
            &["-f"],
            &["-o", "file"],
            &["-I"],
            &["-d", "a"],
        ] {
            let ran = same_as_curl(&server, &[], &[args, &["-w", stable, &*url]].concat());
            assert!(ran.ended.text().contains("|127.0.0.1|"), "{path} {args:?}");
        }
    }
    let two = [server.url("/page"), server.url("/moved")];
    same_as_curl(
        &server,
        &[],
        &["-w", "<%{urlnum} %{http_code}>", &two[0], &two[1]],
    );
    let format: &[(&str, &[u8])] = &[("format", b"%{http_code}\n")];
    same_as_curl(&server, format, &["-w", "@format", &two[0]]);
}

#[test]
fn a_failure_is_described_as_by_curl() {
    let url = format!("http://{}/x", free_addr());
    let server = server();
    for url in [url, server.url("/cut")] {
        let format = "|%{http_code}|%{size_download}|%{num_redirects}|%{content_type}|%{url}";
        let ran = same_as_curl(&server, &[], &["-s", "-w", format, &url]);
        assert_eq!(ran.ended.code(), Some(1));
        let ended = get(&["-s", "-w", "|%{exitcode}|%{errormsg}|%{time_total}", &url]);
        let text = ended.text();
        let parts: Vec<_> = text.split('|').collect();
        assert_eq!(parts[1], "1", "{text}");
        assert!(
            parts[2].starts_with(&url[..url.rfind('/').unwrap()]),
            "{text}"
        );
        assert!(parts[3].parse::<f64>().unwrap() > 0.0, "{text}");
    }
    let ended = get(&["-sf", "-w", "%{exitcode} %{errormsg}", &server.url("/404")]);
    assert_eq!(ended.text(), "22 answered with 404 Not Found");
}

#[test]
fn times_follow_one_another() {
    let server = server();
    let format = "%{time_namelookup} %{time_connect} %{time_starttransfer} %{time_total} \
        %{speed_download}";
    let ended = get(&["-o/dev/null", "-w", format, &server.url("/page")]);
    let text = ended.text();
    let numbers: Vec<f64> = text.split(' ').map(|part| part.parse().unwrap()).collect();
    let [lookup, connect, first, total, speed] = numbers[..] else {
        panic!("{text}");
    };
    assert!(
        lookup <= connect && connect <= first && first <= total,
        "{text}"
    );
    assert!(first > 0.0 && speed > 0.0, "{text}");
}

#[test]
fn json_has_what_curls_has() {
    let server = server();
    let url = server.url("/moved");
    let ran = same_as_curl(&server, &[], &["-sLo", "file", &url]);
    assert_eq!(ran.file("file"), b"page");
    let args = ["-sLo", "file", "-w", "%{json}", &url];
    let ours: Value = serde_json::from_str(&run_with(&server, &[], &args).ended.text()).unwrap();
    assert_eq!(ours["http_code"], 200);
    assert_eq!(ours["num_retries"], 0);
    assert_eq!(ours["errormsg"], Value::Null);
    let dir = crate::servers::TempDir::new();
    let Some(curl) = super::curl_in(dir.path(), &args) else {
        return;
    };
    let curl: Value = serde_json::from_str(&curl.text()).unwrap();
    for (name, value) in ours.as_object().unwrap() {
        let is_stable = !name.starts_with("time_")
            && !["local_port", "num_retries", "speed_download"].contains(&&**name);
        if is_stable {
            assert_eq!(*value, curl[name], "{name}");
        }
    }
}

#[test]
fn text_goes_where_it_is_directed() {
    let server = server();
    let url = server.url("/page");
    let format = "one%{stderr}two\\n%{stdout}three";
    let ended = get(&["-s", "-w", format, &url]);
    assert_eq!((&*ended.text(), &*ended.stderr), ("pageonethree", "two\n"));
    server.take();
    same_as_curl(&server, &[], &["-s", "-w", format, &url]);
}
