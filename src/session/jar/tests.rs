use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use super::cookie::Scope;
use super::site::{MAX_PER_DOMAIN, MAX_PER_SITE, MAX_SENT, MAX_SENT_BYTES};
use super::store::{LEFT_COOKIES, MAX_COOKIES};
use super::*;
use crate::ErrorKind;
use crate::proto::testing::Random;

/// Seconds of a simulated clock, in the year 2001.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds)
}

/// Stores cookies as those of one response from `url`.
fn receive(jar: &Jar, url: &str, cookies: &[impl AsRef<[u8]>], now: SystemTime) {
    let target = Target::parse(url).unwrap();
    let origin = target.origin();
    let cookies = cookies.iter().map(AsRef::as_ref);
    jar.store(origin.scheme(), origin.host(), target.path(), cookies, now);
}

/// Returns the Cookie field of a request to `url`, empty if there is none.
fn bytes(jar: &Jar, url: &str, now: SystemTime) -> Vec<u8> {
    let target = Target::parse(url).unwrap();
    let origin = target.origin();
    let line = jar.with_line(
        origin.scheme(),
        origin.host(),
        target.path(),
        now,
        <[u8]>::to_vec,
    );
    assert!(line.as_ref().is_none_or(|line| !line.is_empty()));
    line.unwrap_or_default()
}

fn line(jar: &Jar, url: &str, now: SystemTime) -> String {
    String::from_utf8(bytes(jar, url, now)).unwrap()
}

#[test]
fn cookies_go_where_the_rfc_sends_them() {
    type Row = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static str,
        &'static str,
    );
    #[rustfmt::skip]
    const ROWS: &[Row] = &[
        // Parsing.
        ("name and value", "http://a.test/", &["k=v"], "http://a.test/", "k=v"),
        ("spaces and tabs around", "http://a.test/", &[" \tk \t=\t v w \t; Path = / "], "http://a.test/", "k=v w"),
        ("an equals sign in the value", "http://a.test/", &["k=v=w"], "http://a.test/", "k=v=w"),
        ("quotes are part of the value", "http://a.test/", &["k=\"v\""], "http://a.test/", "k=\"v\""),
        ("quotes do not protect a semicolon", "http://a.test/", &["k=\"v;w\""], "http://a.test/", "k=\"v"),
        ("an empty value", "http://a.test/", &["k="], "http://a.test/", "k="),
        ("no name", "http://a.test/", &["v", "=w"], "http://a.test/", "w"),
        ("no name and an equals sign in the value", "http://a.test/", &["=v=w"], "http://a.test/", "v=w"),
        ("neither name nor value", "http://a.test/", &["", "=", " ; Path=/"], "http://a.test/", ""),
        ("an unknown attribute", "http://a.test/", &["k=v; Version=1; Partitioned"], "http://a.test/", "k=v"),
        ("SameSite does not matter", "http://a.test/", &["k=v; SameSite=Strict", "l=w; SameSite=None"], "http://a.test/", "k=v; l=w"),
        ("HttpOnly does not matter", "http://a.test/", &["k=v; HttpOnly"], "http://a.test/", "k=v"),
        ("a control character", "http://a.test/", &["k=v\x01", "k\x7f=v", "k=v; Path=/\r\n"], "http://a.test/", ""),
        ("a tab in the value", "http://a.test/", &["k=v\tw"], "http://a.test/", "k=v\tw"),
        ("names differ by case", "http://a.test/", &["k=v", "K=w"], "http://a.test/", "k=v; K=w"),
        ("a later cookie replaces", "http://a.test/", &["k=v", "k=w"], "http://a.test/", "k=w"),
        ("and keeps the place in the order", "http://a.test/", &["k=v", "l=v", "k=w"], "http://a.test/", "k=w; l=v"),
        // Domains.
        ("without Domain for the host alone", "http://a.test/", &["k=v"], "http://b.a.test/", ""),
        ("with its own name as Domain", "http://a.test/", &["k=v; Domain=a.test"], "http://b.a.test/", "k=v"),
        ("with a leading dot", "http://a.test/", &["k=v; domain=.A.Test"], "http://b.a.test/", "k=v"),
        ("to the parent", "http://b.a.test/", &["k=v; Domain=a.test"], "http://a.test/", "k=v"),
        ("to a sibling", "http://b.a.test/", &["k=v; Domain=a.test"], "http://c.a.test/", "k=v"),
        ("for a subdomain", "http://a.test/", &["k=v; Domain=b.a.test"], "http://b.a.test/", ""),
        ("for a sibling", "http://b.a.test/", &["k=v; Domain=c.a.test"], "http://c.a.test/", ""),
        ("for another site", "http://a.test/", &["k=v; Domain=b.test"], "http://b.test/", ""),
        ("for a name that ends alike", "http://ba.test/", &["k=v; Domain=a.test"], "http://a.test/", ""),
        ("an empty Domain", "http://a.test/", &["k=v; Domain="], "http://a.test/", "k=v"),
        ("the last Domain counts", "http://b.a.test/", &["k=v; Domain=a.test; Domain="], "http://a.test/", ""),
        ("a Domain that is not ASCII", "http://a.test/", &["k=v; Domain=é.test"], "http://a.test/", ""),
        ("a Domain with a trailing dot", "http://a.test/", &["k=v; Domain=a.test."], "http://a.test/", ""),
        ("a host with a trailing dot", "http://a.test./", &["k=v; Domain=a.test."], "http://b.a.test./", "k=v"),
        ("which is another host", "http://a.test./", &["k=v; Domain=a.test."], "http://a.test/", ""),
        ("the port does not matter", "http://a.test:81/", &["k=v"], "http://a.test:82/", "k=v"),
        ("the case of the host does not matter", "http://A.test/", &["k=v"], "http://a.TEST/", "k=v"),
        // Public suffixes.
        ("a public suffix", "http://a.co.uk/", &["k=v; Domain=co.uk"], "http://a.co.uk/", ""),
        ("a public suffix with a trailing dot", "http://a.co.uk./", &["k=v; Domain=co.uk."], "http://a.co.uk./", ""),
        ("a top-level domain", "http://a.com/", &["k=v; Domain=com"], "http://a.com/", ""),
        ("an unknown top-level domain", "http://a.test/", &["k=v; Domain=test"], "http://a.test/", ""),
        ("a private suffix", "http://a.github.io/", &["k=v; Domain=github.io"], "http://b.github.io/", ""),
        ("the domain above a private suffix", "http://a.s3.amazonaws.com/", &["k=v; Domain=amazonaws.com"], "http://a.s3.amazonaws.com/", ""),
        ("the domain between private suffixes", "http://a.b.compute.amazonaws.com/", &["k=v; Domain=compute.amazonaws.com"], "http://a.b.compute.amazonaws.com/", ""),
        ("a host that is a public suffix", "http://github.io/", &["k=v; Domain=github.io"], "http://github.io/", "k=v"),
        ("for itself alone", "http://github.io/", &["k=v; Domain=github.io"], "http://a.github.io/", ""),
        ("localhost", "http://localhost/", &["k=v; Domain=localhost"], "http://localhost/", "k=v"),
        ("not for its subdomains", "http://a.localhost/", &["k=v; Domain=localhost"], "http://a.localhost/", ""),
        // Addresses.
        ("an address", "http://192.0.2.1/", &["k=v"], "http://192.0.2.1/", "k=v"),
        ("an address as Domain", "http://192.0.2.1/", &["k=v; Domain=192.0.2.1"], "http://192.0.2.1/", "k=v"),
        ("part of an address", "http://192.0.2.1/", &["k=v; Domain=2.1"], "http://192.0.2.1/", ""),
        ("an IPv6 address", "http://[2001:db8::1]/", &["k=v"], "http://[2001:DB8:0::1]/", "k=v"),
        ("a zone is another host", "http://[fe80::1%25a]/", &["k=v"], "http://[fe80::1%25b]/", ""),
        // Paths.
        ("the folder of the request", "http://a.test/b/c?d/e", &["k=v"], "http://a.test/b/x", "k=v"),
        ("not beside it", "http://a.test/b/c", &["k=v"], "http://a.test/c", ""),
        ("the folder itself without a slash", "http://a.test/b/", &["k=v"], "http://a.test/b", "k=v"),
        ("a name that begins alike", "http://a.test/", &["k=v; Path=/b"], "http://a.test/bc", ""),
        ("a folder below", "http://a.test/", &["k=v; Path=/b"], "http://a.test/b/c", "k=v"),
        ("a path with a slash at its end", "http://a.test/", &["k=v; Path=/b/"], "http://a.test/b/c", "k=v"),
        ("not to the name without the slash", "http://a.test/", &["k=v; Path=/b/"], "http://a.test/b", ""),
        ("a query follows", "http://a.test/", &["k=v; Path=/b"], "http://a.test/b?c", "k=v"),
        ("a relative path is ignored", "http://a.test/b/c", &["k=v; Path=x"], "http://a.test/b/", "k=v"),
        ("paths differ by case", "http://a.test/", &["k=v; Path=/b"], "http://a.test/B", ""),
        ("the last path counts", "http://a.test/", &["k=v; Path=/b; Path=/c"], "http://a.test/c", "k=v"),
        ("longer paths first", "http://a.test/", &["k=1", "k=2; Path=/b", "k=3; Path=/b/c"], "http://a.test/b/c", "k=3; k=2; k=1"),
        // Secure.
        ("Secure over http", "http://a.test/", &["k=v; Secure"], "https://a.test/", ""),
        ("Secure over https", "https://a.test/", &["k=v; Secure=no"], "https://a.test/", "k=v"),
        ("not to http", "https://a.test/", &["k=v; Secure"], "http://a.test/", ""),
        ("not to this machine over http", "http://127.0.0.1/", &["k=v; Secure"], "https://127.0.0.1/", ""),
        ("others go to both", "https://a.test/", &["k=v"], "http://a.test/", "k=v"),
        ("__Secure- with Secure", "https://a.test/", &["__Secure-k=v; Secure"], "https://a.test/", "__Secure-k=v"),
        ("__Secure- without", "https://a.test/", &["__secure-k=v"], "https://a.test/", ""),
        ("__Host- with everything", "https://a.test/", &["__Host-k=v; Secure; Path=/"], "https://a.test/b", "__Host-k=v"),
        ("__Host- without Path", "https://a.test/", &["__host-k=v; Secure"], "https://a.test/", ""),
        ("__Host- with another path", "https://a.test/", &["__Host-k=v; Secure; Path=/b"], "https://a.test/b", ""),
        ("__Host- with a Domain", "https://a.test/", &["__Host-k=v; Secure; Path=/; Domain=a.test"], "https://a.test/", ""),
        ("__Host- without Secure", "https://a.test/", &["__HOST-k=v; Path=/"], "https://a.test/", ""),
        ("a prefix without a name", "https://a.test/", &["__Host-k; Secure; Path=/", "=__SECURE-k=v; Secure"], "https://a.test/", ""),
    ];
    for (why, from, cookies, to, expected) in ROWS {
        let jar = Jar::new();
        receive(&jar, from, cookies, at(0));
        assert_eq!(line(&jar, to, at(0)), *expected, "{why}");
        assert_eq!(
            line(&jar, to, at(0)),
            *expected,
            "{why}, from the last lines"
        );
    }
}

#[test]
fn cookies_expire() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, Option<u64>)] = &[
        ("without a lifetime", "k=v", None),
        ("Max-Age", "k=v; Max-Age=60", Some(60)),
        ("Max-Age before Expires", "k=v; Max-Age=60; Expires=Sun, 09 Sep 2001 01:46:41 GMT", Some(60)),
        ("in any order", "k=v; Expires=Sun, 09 Sep 2001 01:46:41 GMT; Max-Age=60", Some(60)),
        ("Expires", "k=v; Expires=Sun, 09 Sep 2001 01:47:40 GMT", Some(60)),
        ("Expires in the past", "k=v; Expires=Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
        ("Expires that is not a date is ignored", "k=v; Expires=tomorrow", None),
        ("also after one that is", "k=v; Expires=9 Sep 2001 1:47:40; Expires=0", Some(60)),
        ("Max-Age 0", "k=v; Max-Age=0", Some(0)),
        ("a negative Max-Age", "k=v; Max-Age=-60", Some(0)),
        ("Max-Age that is not a number is ignored", "k=v; Max-Age=60s", None),
        ("nor a fraction", "k=v; Max-Age=6.5", None),
        ("nor a plus sign", "k=v; Max-Age=+60", None),
        ("nor a minus sign alone", "k=v; Max-Age=-", None),
        ("an empty Max-Age leaves Expires", "k=v; Max-Age=; Expires=9 Sep 2001 1:47:40", Some(60)),
        ("at most 400 days", "k=v; Max-Age=34560001", Some(34_560_000)),
        ("a number of any length", "k=v; Max-Age=99999999999999999999999", Some(34_560_000)),
        ("also by Expires", "k=v; Expires=31 dec 9999 23:59:59", Some(34_560_000)),
    ];
    const LATE: u64 = 40_000_000;
    for (why, cookie, expected) in ROWS {
        let jar = Jar::new();
        receive(&jar, "http://a.test/", &[cookie], at(0));
        if *expected == Some(0) {
            assert!(jar.is_empty(), "{why}");
            continue;
        }
        let last = expected.map_or(LATE, |end| end - 1);
        for now in [0, last] {
            assert_eq!(line(&jar, "http://a.test/", at(now)), "k=v", "{why}");
        }
        if let Some(end) = *expected {
            assert_eq!(line(&jar, "http://a.test/", at(end)), "", "{why}");
        }
    }
}

#[test]
fn an_expired_cookie_deletes_the_one_it_replaces() {
    let jar = Jar::new();
    receive(
        &jar,
        "http://a.test/",
        &["k=1", "k=2; Path=/b", "l=3"],
        at(0),
    );
    receive(
        &jar,
        "http://a.test/",
        &["k=; Max-Age=0", "l=; Path=/b; Max-Age=0"],
        at(1),
    );
    assert_eq!(line(&jar, "http://a.test/b", at(1)), "k=2; l=3");
    assert_eq!(jar.len(), 2);
}

/// A line that is kept holds until the first of its cookies expires.
#[test]
fn cookies_of_one_line_expire_one_after_the_other() {
    let jar = Jar::new();
    let cookies = ["k=1; Max-Age=10", "l=2; Max-Age=20", "m=3"];
    receive(&jar, "http://a.test/", &cookies, at(0));
    let rows = [
        (0, "k=1; l=2; m=3"),
        (9, "k=1; l=2; m=3"),
        (10, "l=2; m=3"),
        (20, "m=3"),
    ];
    for (now, expected) in rows {
        assert_eq!(line(&jar, "http://a.test/", at(now)), expected, "{now}");
    }
}

#[test]
fn http_leaves_secure_cookies_alone() {
    type Row = (&'static str, &'static str, &'static str, &'static str);
    #[rustfmt::skip]
    const ROWS: &[Row] = &[
        ("the same cookie", "k=v; Secure", "k=w", "k=v"),
        ("its deletion", "k=v; Secure", "k=; Max-Age=0", "k=v"),
        ("for the domain", "k=v; Secure", "k=w; Domain=a.test", "k=v"),
        ("below the domain", "k=v; Secure; Domain=a.test", "k=w; Domain=b.a.test", "k=v"),
        ("a longer path", "k=v; Secure; Path=/", "k=w; Path=/b", "k=v"),
        ("a shorter path", "k=v; Secure; Path=/b", "k=w; Path=/", "k=v; k=w"),
        ("another name", "k=v; Secure", "l=w; Path=/b", "l=w; k=v"),
        ("a cookie that is not Secure", "k=v", "k=w", "k=w"),
    ];
    for (why, https, http, expected) in ROWS {
        let jar = Jar::new();
        receive(&jar, "https://b.a.test/", &[https], at(0));
        receive(&jar, "http://b.a.test/", &[http], at(1));
        assert_eq!(line(&jar, "https://b.a.test/b", at(1)), *expected, "{why}");
    }
    let jar = Jar::new();
    receive(&jar, "https://a.test/", &["k=v; Secure"], at(0));
    receive(&jar, "https://a.test/", &["k=w"], at(1));
    assert_eq!(
        line(&jar, "http://a.test/", at(1)),
        "k=w",
        "https may replace it"
    );

    let jar = Jar::new();
    receive(&jar, "https://a.test/", &["k=v; Secure; Max-Age=1"], at(0));
    receive(&jar, "http://a.test/", &["k=w"], at(1));
    assert_eq!(
        line(&jar, "http://a.test/", at(1)),
        "k=w",
        "the Secure cookie has expired"
    );
}

#[test]
fn values_are_bytes() {
    let jar = Jar::new();
    receive(&jar, "http://a.test/", &[b"k\xe9=v\xff\xfe; Path=/"], at(0));
    assert_eq!(bytes(&jar, "http://a.test/", at(0)), b"k\xe9=v\xff\xfe");
}

#[test]
fn sizes_are_limited() {
    let name_and_value = |len: usize| format!("kk={}", "v".repeat(len - 2));
    let path = |len: usize| format!("k=v; Path=/{}", "p".repeat(len - 1));
    let domain = |len: usize| format!("k=v; Domain={}", "d".repeat(len));
    let rows = [
        ("the longest cookie", name_and_value(4096), true),
        ("one byte more", name_and_value(4097), false),
        ("the longest path", path(1024), true),
        ("a longer path is ignored", path(1025), true),
        (
            "the longest Domain, which is another one",
            domain(1024),
            false,
        ),
        ("a longer Domain is ignored", domain(1025), true),
    ];
    for (why, cookie, expected) in rows {
        let jar = Jar::new();
        receive(&jar, "http://a.test/", &[&cookie], at(0));
        assert_eq!(!jar.is_empty(), expected, "{why}");
    }
    let jar = Jar::new();
    receive(
        &jar,
        &format!("http://a.test/{}/", "p".repeat(1024)),
        &["k=v"],
        at(0),
    );
    assert!(jar.is_empty(), "the folder of the request is too long");
}

#[test]
fn a_request_carries_so_many_cookies_and_bytes() {
    let jar = Jar::new();
    for host in 0..4 {
        let cookies: Vec<String> = (0..MAX_PER_DOMAIN - 5)
            .map(|n| format!("k{host}-{n}=v; Domain={}a.test", "x.".repeat(host)))
            .collect();
        receive(&jar, "http://x.x.x.a.test/", &cookies, at(0));
    }
    assert_eq!(jar.len(), MAX_PER_SITE);
    let sent = line(&jar, "http://x.x.x.a.test/", at(0));
    assert_eq!(sent.split("; ").count(), MAX_SENT);
    assert!(sent.starts_with("k0-0=v; k0-1=v; ") && !sent.contains("k3-44"));

    let jar = Jar::new();
    let cookies: Vec<String> = (0..5)
        .map(|n| format!("k{n}={}", "v".repeat(4093)))
        .collect();
    receive(&jar, "http://a.test/", &cookies, at(0));
    receive(&jar, "http://a.test/", &["l=v"], at(0));
    let sent = line(&jar, "http://a.test/", at(0));
    assert!(sent.len() <= MAX_SENT_BYTES && sent.split("; ").count() == 3);
    assert!(
        !sent.contains("l="),
        "nothing follows the first one that does not fit"
    );
}

#[test]
fn a_full_domain_evicts_the_least_recently_used() {
    let jar = Jar::new();
    receive(&jar, "https://a.test/", &["safe=v; Secure"], at(0));
    for n in 1..MAX_PER_DOMAIN {
        receive(
            &jar,
            "https://a.test/",
            &[format!("k{n}=v; Path=/{n}")],
            at(0),
        );
    }
    assert_eq!(jar.len(), MAX_PER_DOMAIN);
    assert_eq!(line(&jar, "http://a.test/1", at(0)), "k1=v", "used");
    receive(&jar, "http://a.test/", &["new=v"], at(0));
    assert_eq!(jar.len(), MAX_PER_DOMAIN);
    assert_eq!(line(&jar, "https://a.test/1", at(0)), "k1=v; safe=v; new=v");
    assert_eq!(
        line(&jar, "https://a.test/2", at(0)),
        "safe=v; new=v",
        "the first to go"
    );

    let jar = Jar::new();
    for n in 0..MAX_PER_DOMAIN {
        receive(
            &jar,
            "https://a.test/",
            &[format!("safe{n}=v; Secure")],
            at(0),
        );
    }
    receive(&jar, "http://a.test/", &["new=v"], at(0));
    assert_eq!(
        line(&jar, "http://a.test/", at(0)),
        "",
        "none gives way to it"
    );
    receive(&jar, "https://a.test/", &["new=v; Secure; Path=/b"], at(0));
    let sent = line(&jar, "https://a.test/b", at(0));
    assert!(
        sent.starts_with("new=v; safe1=v; "),
        "a Secure one does: {sent}"
    );
}

#[test]
fn expired_cookies_give_way_first() {
    let jar = Jar::new();
    receive(&jar, "http://a.test/", &["old=v"], at(0));
    for n in 1..MAX_PER_DOMAIN {
        receive(
            &jar,
            "http://a.test/",
            &[format!("k{n}=v; Max-Age=1; Path=/b")],
            at(0),
        );
    }
    receive(&jar, "http://a.test/", &["new=v"], at(1));
    assert_eq!(line(&jar, "http://a.test/b", at(1)), "old=v; new=v");
    assert_eq!(jar.len(), 2);
}

#[test]
fn a_full_site_and_a_full_jar_evict() {
    let jar = Jar::new();
    for n in 0..=MAX_PER_SITE {
        receive(&jar, &format!("http://x{n}.a.test/"), &["k=v"], at(0));
    }
    assert_eq!(jar.len(), MAX_PER_SITE);
    assert_eq!(line(&jar, "http://x0.a.test/", at(0)), "");

    let jar = Jar::new();
    for n in 0..MAX_COOKIES {
        receive(&jar, &format!("http://x{n}.test/"), &["k=v"], at(0));
    }
    assert_eq!(jar.len(), MAX_COOKIES);
    assert_eq!(line(&jar, "http://x0.test/", at(0)), "k=v", "used");
    receive(&jar, "http://new.test/", &["k=v"], at(0));
    assert_eq!(jar.len(), LEFT_COOKIES);
    let last_out = MAX_COOKIES - LEFT_COOKIES + 1;
    let hosts = [
        "x0",
        "x1",
        &format!("x{last_out}"),
        &format!("x{}", last_out + 1),
        "new",
    ];
    let lines = hosts.map(|host| line(&jar, &format!("http://{host}.test/"), at(0)));
    assert_eq!(lines, ["k=v", "", "", "k=v", "k=v"]);
}

#[test]
fn the_last_lines_follow_every_change() {
    let jar = Jar::new();
    let url = "http://a.test/b";
    receive(&jar, url, &["k=1", "l=1; Max-Age=10"], at(0));
    assert_eq!(line(&jar, url, at(0)), "k=1; l=1");
    receive(&jar, url, &["l=1; Max-Age=20"], at(5));
    assert_eq!(line(&jar, url, at(15)), "k=1; l=1", "a longer lifetime");
    receive(&jar, url, &["l=1; Max-Age=2"], at(15));
    assert_eq!(line(&jar, url, at(17)), "k=1", "a shorter lifetime");
    receive(&jar, url, &["k=2"], at(17));
    assert_eq!(line(&jar, url, at(17)), "k=2", "another value");
    receive(&jar, url, &["m=1; Path=/b"], at(17));
    assert_eq!(line(&jar, url, at(17)), "m=1; k=2", "another cookie");
    assert_eq!(line(&jar, "http://a.test/c", at(17)), "k=2", "another path");
    receive(&jar, "https://a.test/", &["k=2; Secure"], at(17));
    assert_eq!(line(&jar, url, at(17)), "m=1", "no longer over http");
    assert!(jar.remove(url, "m") && !jar.remove(url, "m"));
    assert_eq!(line(&jar, url, at(17)), "", "removed");
    assert_eq!(
        line(&jar, "https://a.test/", at(17)),
        "k=2",
        "another scheme"
    );
    jar.clear();
    assert_eq!(line(&jar, "https://a.test/", at(17)), "", "cleared");
    assert!(jar.is_empty());
}

#[test]
fn a_line_from_the_last_ones_is_the_same_memory() {
    let jar = Jar::new();
    receive(&jar, "http://a.test/", &["k=v; Path=/"], at(0));
    let address = |path: &str| {
        jar.with_line(Scheme::Http, "a.test", path, at(0), |line| {
            line.as_ptr() as usize
        })
        .unwrap()
    };
    let first = address("/b?c");
    assert!(
        ["/b?c", "/b?d", "/e"]
            .iter()
            .all(|path| address(path) == first)
    );
    receive(&jar, "http://a.test/", &["l=v; Path=/b"], at(0));
    let second = address("/b?c");
    assert_eq!(address("/b?d"), second);
    assert_ne!(address("/e"), second);
}

#[test]
fn a_jar_is_shared_and_may_be_used_while_a_line_is_written() {
    fn shared<T: Clone + Default + Send + Sync + 'static>() {}
    shared::<Jar>();
    let jar = Jar::new();
    let other = jar.clone();
    receive(&jar, "http://a.test/", &["k=v"], at(0));
    let len = other.with_line(Scheme::Http, "a.test", "/", at(0), |line| {
        jar.clear();
        line.len()
    });
    assert_eq!((len, other.is_empty()), (Some(3), true));
}

#[test]
fn get_set_and_remove() {
    let jar = Jar::new();
    jar.set("https://a.test/b/c", "k=1; Secure; Max-Age=60")
        .unwrap();
    jar.set("http://A.test/", "k=2").unwrap();
    jar.set("http://a.test/", "tok").unwrap();
    assert_eq!(
        jar.get("https://a.test/b", "k").as_deref(),
        Some("1"),
        "the first one sent"
    );
    assert_eq!(jar.get("http://a.test/b", "k").as_deref(), Some("2"));
    assert_eq!(
        jar.get("http://a.test/", "").as_deref(),
        Some("tok"),
        "no name"
    );
    assert_eq!(jar.get("http://a.test/", "x"), None);
    assert_eq!(jar.get("http://b.test/", "k"), None);
    assert_eq!(jar.get("a.test", "k"), None, "no URL");
    assert_eq!(format!("{jar:?}"), "Jar { cookies: 3, sites: 1 }");
    jar.set("http://a.test/", "k=2; Max-Age=0").unwrap();
    assert_eq!(jar.get("http://a.test/", "k"), None, "deleted");
    assert!(jar.remove("https://a.test/b", "k"));
    assert!(!jar.remove("https://a.test/b", "k") && !jar.remove("a.test", "k"));
    assert_eq!(jar.len(), 1);
}

#[test]
fn set_tells_why_a_cookie_is_refused() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &str)] = &[
        ("http://a.test/", "k=s3cret\n", "control character"),
        ("http://a.test/", "; Path=/s3cret", "neither a name nor a value"),
        ("http://a.test/", "k=s3cret; Domain=ä.test", "not ASCII"),
        ("http://a.test/", "k=s3cret; Domain=test", "public suffix"),
        ("http://a.test/", "k=s3cret; Domain=b.test", "does not include the host"),
        ("http://a.test/", "k=s3cret; Secure", "over https only"),
        ("http://a.test/", "safe=s3cret", "cannot be replaced over http"),
        ("http://a.test/", "__Secure-k=s3cret", "attribute Secure"),
        ("http://a.test/", "__Host-k=s3cret", "Path=/, and no Domain"),
        ("http://a.test/", "__Host-s3cret", "without a name"),
        ("s3cret", "k=s3cret", "absolute URL"),
    ];
    let jar = Jar::new();
    jar.set("https://a.test/", "safe=s3cret; Secure").unwrap();
    for (url, cookie, why) in ROWS {
        let error = jar.set(url, cookie).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.source());
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(
            error.to_string().contains(why) && !text.contains("s3cret"),
            "{text}"
        );
    }
    assert_eq!(jar.len(), 1);
}

/// Everything that distinguishes cookies, for comparing jars.
fn contents(store: &Store, now: SystemTime) -> Vec<String> {
    let shown = |cookie: &cookie::Cookie| {
        format!(
            "{:?} {:?} {} {:?} {:?} {} {} {:?}",
            cookie.name,
            cookie.value,
            cookie.domain,
            cookie.scope,
            cookie.path,
            cookie.secure,
            cookie.http_only,
            cookie.expires
        )
    };
    store.cookies(now).into_iter().map(shown).collect()
}

#[test]
fn a_file_has_one_line_for_each_cookie() {
    let jar = Jar::new();
    let cookies = [
        "k=v; Domain=a.test; Secure; HttpOnly",
        "l=; Path=/b",
        "tok; Max-Age=60",
    ];
    receive(&jar, "https://www.a.test/", &cookies, at(0));
    receive(&jar, "http://[2001:db8::1]/", &["j=v\tw", "k=w"], at(0));
    receive(
        &jar,
        "http://b.test/",
        &["a\tb=v", "k=v; Path=/\tb", "k=v; Max-Age=1"],
        at(0),
    );
    let text = jar.with(|store| file::format(store, at(1)));
    let expected = "# Netscape HTTP Cookie File\n\
        #HttpOnly_.a.test\tTRUE\t/\tTRUE\t0\tk\tv\n\
        www.a.test\tFALSE\t/b\tFALSE\t0\tl\t\n\
        www.a.test\tFALSE\t/\tFALSE\t1000000060\t\ttok\n\
        2001:db8::1\tFALSE\t/\tFALSE\t0\tk\tw\n";
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, expected);
    let store = file::parse(text.as_bytes(), at(1)).unwrap();
    assert_eq!(
        String::from_utf8(file::format(&store, at(1))).unwrap(),
        expected
    );
}

#[test]
fn lines_of_a_file_are_read() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, Result<usize, &str>)] = &[
        ("empty", "", Ok(0)),
        ("comments and blank lines", "# c\n\n  \t\n#\ta\tb\n", Ok(0)),
        ("a host", "a.test\tFALSE\t/\tFALSE\t0\tk\tv", Ok(1)),
        ("lines that end in CR LF", "a.test\tFALSE\t/\tFALSE\t0\tk\tv\r\n\r\n", Ok(1)),
        ("a domain with a dot", ".a.test\tTRUE\t/\tTRUE\t0\tk\tv\n", Ok(1)),
        ("flags in lower case", "a.test\tfalse\t/\ttrue\t0\tk\tv\n", Ok(1)),
        ("HttpOnly", "#HttpOnly_a.test\tFALSE\t/\tFALSE\t0\tk\tv\n", Ok(1)),
        ("without the last tab", "a.test\tFALSE\t/\tFALSE\t0\tk\n", Ok(1)),
        ("an IPv6 address with a zone", "fe80::1%eth0\tFALSE\t/\tFALSE\t0\tk\tv\n", Ok(1)),
        ("an address and its subdomains", "192.0.2.1\tTRUE\t/\tFALSE\t0\tk\tv\n", Ok(1)),
        ("the same cookie twice", "a.test\tFALSE\t/\tFALSE\t0\tk\tv\na.test\tFALSE\t/\tFALSE\t0\tk\tw\n", Ok(1)),
        ("expired", "a.test\tFALSE\t/\tFALSE\t1000000000\tk\tv\n", Ok(0)),
        ("far in the future", "a.test\tFALSE\t/\tFALSE\t99999999999999999999\tk\tv\n", Ok(1)),
        ("a public suffix", ".co.uk\tTRUE\t/\tFALSE\t0\tk\tv\n", Ok(0)),
        ("a top-level domain", "test\tTRUE\t/\tFALSE\t0\tk\tv\n", Ok(0)),
        ("a host that is a public suffix", "co.uk\tFALSE\t/\tFALSE\t0\tk\tv\n", Ok(1)),
        ("a broken promise of the name", "a.test\tFALSE\t/\tFALSE\t0\t__Secure-k\tv\n", Ok(0)),
        ("neither name nor value", "a.test\tFALSE\t/\tFALSE\t0\t\t\n", Ok(0)),
        ("spaces instead of tabs", "#\na.test FALSE / FALSE 0 k s3cret\n", Err("line 2: fewer than 6")),
        ("five fields", "a.test\tFALSE\t/\tFALSE\t0\n", Err("line 1: fewer than 6")),
        ("eight fields", "a.test\tFALSE\t/\tFALSE\t0\tk\tv\ts3cret\n", Err("line 1: more than 7")),
        ("no host", "\tFALSE\t/\tFALSE\t0\tk\ts3cret\n", Err("the domain is not a valid host")),
        ("a host with a port", "a.test:80\tFALSE\t/\tFALSE\t0\tk\ts3cret\n", Err("the domain is not")),
        ("a host with a path", "a.test/b\tFALSE\t/\tFALSE\t0\tk\ts3cret\n", Err("the domain is not")),
        ("a wrong second field", "a.test\tNO\t/\tFALSE\t0\tk\ts3cret\n", Err("the second field")),
        ("a relative path", "a.test\tFALSE\tb\tFALSE\t0\tk\ts3cret\n", Err("a slash")),
        ("a wrong fourth field", "a.test\tFALSE\t/\t1\t0\tk\ts3cret\n", Err("the fourth field")),
        ("a date", "a.test\tFALSE\t/\tFALSE\t2030-01-01\tk\ts3cret\n", Err("the expiry")),
        ("a negative time", "a.test\tFALSE\t/\tFALSE\t-1\tk\ts3cret\n", Err("the expiry")),
        ("no time", "a.test\tFALSE\t/\tFALSE\t\tk\ts3cret\n", Err("the expiry")),
        ("a control character", "a.test\tFALSE\t/\tFALSE\t0\tk\ts3cret\x01\n", Err("a control character")),
        ("CR inside", "a.test\tFALSE\t/\tFALSE\t0\tk\ts3cret\rx\n", Err("a control character")),
        ("a semicolon", "a.test\tFALSE\t/\tFALSE\t0\tk\ts3cret; x=y\n", Err("a delimiter")),
        ("an equals sign in the name", "a.test\tFALSE\t/\tFALSE\t0\tk=x\ts3cret\n", Err("a delimiter")),
    ];
    for (why, text, expected) in ROWS {
        match (file::parse(text.as_bytes(), at(0)), expected) {
            (Ok(store), Ok(len)) => assert_eq!(store.len(), *len, "{why}"),
            (Err(error), Err(part)) => {
                let text = format!("{error} {error:?}");
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{why}");
                assert!(
                    text.contains(part) && !text.contains("s3cret"),
                    "{why}: {text}"
                );
            }
            (found, _) => panic!("{why}: {:?}", found.map(|store| store.len())),
        }
    }
}

#[test]
fn a_lifetime_from_a_file_is_limited_too() {
    let text = b"a.test\tFALSE\t/\tFALSE\t99999999999\tk\tv\n";
    let store = file::parse(text, at(0)).unwrap();
    assert_eq!(store.cookies(at(34_559_999)).len(), 1);
    assert_eq!(store.cookies(at(34_560_000)).len(), 0);
}

#[test]
fn a_saved_file_is_private_replaces_another_and_loads() {
    let folder = std::env::temp_dir().join(format!("httpstream-jar-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("cookies.txt");
    fs::write(&path, "old").unwrap();
    let jar = Jar::new();
    jar.set("https://a.test/", "k=v; Secure; HttpOnly; Max-Age=60")
        .unwrap();
    jar.set("http://a.test/", "l=w").unwrap();
    jar.save(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        1,
        "no other file remains"
    );
    let loaded = Jar::load(&path).unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded.get("https://a.test/", "k").as_deref(), Some("v"));
    assert_eq!(loaded.get("http://a.test/", "k"), None);

    let missing = folder.join("none").join("cookies.txt");
    assert_eq!(
        jar.save(missing).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        jar.save("..").unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    // A folder cannot be replaced by a file: the temporary file is removed.
    fs::create_dir_all(folder.join("taken/by")).unwrap();
    jar.save(folder.join("taken")).unwrap_err();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(
        Jar::load(&path).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

/// A process that crashed while it saved, with the id of this one, as is usual in containers.
#[test]
fn what_a_crash_left_behind_is_in_nobodys_way() {
    let folder = std::env::temp_dir().join(format!("httpstream-crash-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("cookies.txt");
    // Other tests save at the same time, so the next number is known only roughly.
    let left = |save: usize| format!(".cookies.{}.{save}.tmp", std::process::id());
    for save in 0..200 {
        fs::write(folder.join(left(save)), "left").unwrap();
    }
    Jar::new().save(&path).unwrap();
    assert!(path.exists());
    let is_left = |save| fs::read(folder.join(left(save))).is_ok_and(|text| text == b"left");
    assert!((0..200).all(is_left), "no file of another is touched");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_jar_is_saved_under_a_name_as_long_as_names_can_be() {
    let folder = std::env::temp_dir().join(format!("httpstream-long-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("n".repeat(255));
    let saved = Jar::new().save(&path);
    fs::remove_dir_all(&folder).unwrap();
    saved.unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_is_replaced_and_what_is_no_file_is_not() {
    let folder = std::env::temp_dir().join(format!("httpstream-link-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (target, link) = (folder.join("target"), folder.join("link"));
    fs::write(&target, "kept").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    Jar::new().save(&link).unwrap();
    assert!(!link.is_symlink());
    assert_eq!(fs::read(&target).unwrap(), b"kept");

    let socket = folder.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = Jar::new().save(&socket).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(!fs::metadata(&socket).unwrap().is_file());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_is_too_long_is_not_loaded() {
    let path = std::env::temp_dir().join(format!("httpstream-too-long-{}", std::process::id()));
    // It takes no space on the disk.
    let file = fs::File::create(&path).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let loaded = Jar::load(&path);
    fs::remove_file(path).unwrap();
    let error = loaded.unwrap_err();
    assert_eq!(error.to_string(), "the file is longer than 67108864 bytes");
}

const HOSTS: [&str; 12] = [
    "a.test",
    "b.a.test",
    "c.b.a.test",
    "ba.test",
    "x.co.uk",
    "y.co.uk",
    "co.uk",
    "z.x.co.uk",
    "192.0.2.1",
    "2001:db8::1",
    "a.test.",
    "p.compute.amazonaws.com",
];
const PATHS: [&str; 6] = ["/", "/b", "/b/", "/b/c?d", "/bc", "/b/c/d"];
const SCHEMES: [Scheme; 2] = [Scheme::Http, Scheme::Https];

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len())]
}

/// A Set-Cookie field of parts that mean something, sometimes damaged. The value names the host
/// that sets it.
fn some_field(random: &mut Random, host: &str) -> Vec<u8> {
    const NAMES: &[&str] = &["k", "l", "__Host-k", "__secure-k", "", "m\t", "n"];
    const ATTRIBUTES: &[&str] = &[
        "Path=/",
        "Path=/b",
        "path=/b/c",
        "Secure",
        "secure",
        "HttpOnly",
        "Max-Age=5",
        "Max-Age=0",
        "Expires=Sun, 09 Sep 2001 01:46:50 GMT",
        "SameSite=Lax",
        "Domain=.test",
        "Domain=co.uk",
        "Domain=amazonaws.com",
        "Max-Age=99999999999999999999",
        "=",
        "",
        "Domain=compute.amazonaws.com",
    ];
    let mut field = format!("{}=from {host}", pick(random, NAMES)).into_bytes();
    for _ in 0..random.below(4) {
        field.extend_from_slice(b"; ");
        match random.below(3) {
            0 => field.extend_from_slice(format!("Domain={}", pick(random, &HOSTS)).as_bytes()),
            _ => field.extend_from_slice(pick(random, ATTRIBUTES).as_bytes()),
        }
    }
    if random.below(4) == 0 {
        random.mutate(&field)
    } else {
        field
    }
}

/// Random fields from random hosts must not panic, and whatever happens, the limits hold, cookies
/// stay in their site, and Secure cookies go over https only.
#[test]
fn random_cookies_keep_the_rules() {
    let mut sent_count = 0;
    for seed in 1..=60 {
        let mut random = Random::new(seed);
        let jar = Jar::new();
        let mut now = 0;
        for _ in 0..400 {
            let host = pick(&mut random, &HOSTS);
            let (scheme, path) = (pick(&mut random, &SCHEMES), pick(&mut random, &PATHS));
            let field = some_field(&mut random, host);
            let safe = secure_cookies(&jar, at(now));
            jar.store(scheme, host, path, [&*field].into_iter(), at(now));
            if scheme == Scheme::Http {
                assert_eq!(
                    secure_cookies(&jar, at(now)),
                    safe,
                    "http leaves them alone"
                );
            }
            now += random.below(2) as u64;
            check_limits(&jar);
            sent_count += check_sent(&jar, &mut random, at(now));
        }
        check_file(&jar, at(now));
    }
    assert!(
        sent_count > 5000,
        "the rows above were worth the effort: {sent_count}"
    );
}

fn secure_cookies(jar: &Jar, now: SystemTime) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    jar.with(|store| {
        let cookies = store
            .cookies(now)
            .into_iter()
            .filter(|cookie| cookie.secure);
        cookies
            .map(|cookie| (cookie.name.to_vec(), cookie.value.to_vec()))
            .collect()
    })
}

fn check_limits(jar: &Jar) {
    jar.with(|store| {
        let cookies = store.cookies(UNIX_EPOCH);
        assert_eq!(cookies.len(), store.len());
        let mut domains = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for cookie in cookies {
            *domains.entry(cookie.domain.clone()).or_insert(0) += 1;
            let key = (
                &cookie.name,
                &cookie.domain,
                cookie.scope == Scope::Host,
                &cookie.path,
            );
            assert!(keys.insert(key), "one cookie of each identity");
            assert!(cookie.scope == Scope::Host || !domain::is_public_suffix(&cookie.domain));
            assert!(cookie.path.starts_with(b"/") && cookie.written_len() <= 4097);
        }
        assert!(domains.values().all(|count| *count <= MAX_PER_DOMAIN));
        assert!(store.len() <= MAX_COOKIES);
    });
}

/// Checks what one request carries, and returns whether that is anything.
fn check_sent(jar: &Jar, random: &mut Random, now: SystemTime) -> usize {
    let host = pick(random, &HOSTS);
    let (scheme, path) = (pick(random, &SCHEMES), pick(random, &PATHS));
    let get = || jar.with_line(scheme, host, path, now, <[u8]>::to_vec);
    let sent = get();
    assert_eq!(get(), sent);
    let place = Place::new(scheme, host, path);
    let expected = jar.with(|store| {
        // Selected anew from all cookies, without the index and the last lines.
        let mut cookies = store.cookies(now);
        cookies.retain(|cookie| cookie.goes_to(&place, now));
        cookies.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        for cookie in &cookies {
            assert_eq!(domain::site(&cookie.domain), domain::site(host));
            assert!(!cookie.secure || scheme == Scheme::Https);
        }
        let mut parts = Vec::new();
        for cookie in cookies {
            let mut part = Vec::new();
            cookie.write(&mut part);
            parts.push(part);
        }
        parts.join(&b"; "[..])
    });
    assert_eq!(sent.clone().unwrap_or_default(), expected);
    usize::from(sent.is_some())
}

/// Saves and loads a jar: everything without a tab is kept, to the second.
fn check_file(jar: &Jar, now: SystemTime) {
    jar.with(|store| {
        let text = file::format(store, now);
        let loaded = file::parse(&text, now).unwrap();
        let mut expected = contents(store, now);
        // A tab is the byte 9 in a list of bytes.
        expected.retain(|cookie| {
            !cookie.contains("[9,") && !cookie.contains(" 9,") && !cookie.contains(" 9]")
        });
        assert_eq!(contents(&loaded, now), expected);
    });
}

/// No bytes make the file's reader panic, and what it accepts it writes and reads again.
#[test]
fn random_files_do_not_panic() {
    let jar = Jar::new();
    let cookies = [
        "k=v; Domain=a.test; Secure; HttpOnly",
        "l=; Path=/b",
        "tok; Max-Age=60",
    ];
    receive(&jar, "https://www.a.test/", &cookies, at(0));
    let text = jar.with(|store| file::format(store, at(0)));
    let mut random = Random::new(7);
    let mut accepted = 0;
    for _ in 0..20_000 {
        if let Ok(store) = file::parse(&random.mutate(&text), at(0)) {
            let again = file::parse(&file::format(&store, at(0)), at(0)).unwrap();
            assert_eq!(contents(&again, at(0)), contents(&store, at(0)));
            accepted += 1;
        }
    }
    assert!((1000..19_000).contains(&accepted), "{accepted}");
}

#[test]
fn random_dates_do_not_panic() {
    let mut random = Random::new(3);
    let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
    let read = (0..20_000)
        .filter(|_| date::parse(&random.mutate(date)).is_some())
        .count();
    assert!((1000..20_000).contains(&read), "{read}");
}
