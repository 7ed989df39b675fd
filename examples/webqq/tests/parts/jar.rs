//! The bot's cookie jar: RFC 6265, rule by rule.

use std::collections::BTreeMap;
use std::time::Duration;

use httpstream::sim::Random;

use crate::jar::Jar;

/// 2013-05-01, when the bot's servers were still running.
const NOW: Duration = Duration::from_secs(1_367_366_400);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn store(jar: &mut Jar, host: &str, path: &str, lines: &[&str]) {
    jar.store(host, path, lines.iter().map(|line| line.as_bytes()), NOW);
}

/// Returns a jar with the cookies that `host` has set in its answer to a request for `path`.
fn jar_of(host: &str, path: &str, lines: &[&str]) -> Jar {
    let mut jar = Jar::default();
    store(&mut jar, host, path, lines);
    jar
}

fn sent(jar: &mut Jar, host: &str, path: &str) -> String {
    jar.header(host, path, false, NOW).unwrap_or_default()
}

#[test]
fn lines_are_read_as_section_5_2_says() {
    #[rustfmt::skip]
    let rows: &[(&str, &str, &str)] = &[
        ("a pair alone is a cookie",                "ptwebqq=abc",                  "ptwebqq=abc"),
        ("white space around name and value goes",  "  a \t=  b c \t ",             "a=b c"),
        ("a value may be empty",                    "a=",                           "a="),
        ("a value may have an equals sign",         "a=b=c==; Path=/",              "a=b=c=="),
        ("quotes are kept",                         "a=\"b c\"; Path=/",            "a=\"b c\""),
        ("a quote does not hide a semicolon",       "a=\"b; c\"",                   "a=\"b"),
        ("a comma is like any other byte",          "a=b, c=d",                     "a=b, c=d"),
        ("a value may be UTF-8",                    "nick=企鹅",                    "nick=企鹅"),
        ("a tab is allowed inside",                 "a=b\tc",                       "a=b\tc"),
        ("names keep their case",                   "SKEY=@x",                      "SKEY=@x"),
        ("a line without equals sign is ignored",   "a",                            ""),
        ("one without name is ignored",             "=b",                           ""),
        ("a name of white space is empty",          " \t =b",                       ""),
        ("an attribute's equals sign does not count", "a; b=c",                       ""),
        ("an empty line is ignored",                "",                             ""),
        ("semicolons alone are ignored",            ";;; ;",                        ""),
        ("a carriage return is refused",            "a=b\rc",                       ""),
        ("a line feed is refused",                  "a=b\r\nX-Evil: c",             ""),
        ("a NUL is refused",                        "a=b\0",                        ""),
        ("a control in a name is refused",          "a\x1b=b",                      ""),
        ("DEL is refused",                          "a=b\x7f",                      ""),
        ("a control in an attribute is refused",    "a=b; Comment=\x01",            ""),
        ("unknown attributes are ignored",          "a=b; Version=1; SameSite; x",  "a=b"),
        ("HttpOnly changes nothing",                "a=b; HttpOnly",                "a=b"),
        ("empty attributes are ignored",            "a=b;; ;=;=x; Path=/",          "a=b"),
        ("attribute names have no case",            "a=b; mAX-aGE=0",               ""),
        ("odd spacing in attributes is fine",  "a=b;   Max-Age \t =  0 ;x",    ""),
        ("an attribute may lack its value",         "a=b; Expires; Max-Age; Path; Domain", "a=b"),
        ("attributes may have an empty value",      "a=b; Expires=; Max-Age=; Path=; Domain=", "a=b"),
    ];
    for (why, line, expected) in rows {
        let mut jar = jar_of("web2.qq.com", "/", &[line]);
        assert_eq!(sent(&mut jar, "web2.qq.com", "/"), *expected, "{why}");
        assert_eq!(jar.is_empty(), expected.is_empty(), "{why}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_in_a_pair_and_no_matter_in_attributes() {
    let mut jar = Jar::default();
    jar.store("qq.com", "/", [&b"a=\xff"[..], b"\xc4\xe3=b"], NOW);
    assert!(jar.is_empty());
    jar.store("qq.com", "/", [&b"a=b; Comment=\xff; Path=/"[..]], NOW);
    assert_eq!(sent(&mut jar, "qq.com", "/"), "a=b");
    jar.store("qq.com", "/", [&b"c=d; Domain=\xff.qq.com"[..]], NOW);
    assert_eq!(jar.len(), 1);
}

#[test]
fn domains_match_as_section_5_1_3_says() {
    // The host that sets it, with which Domain, and the host that is then asked.
    #[rustfmt::skip]
    let rows: &[(&str, &str, &str, &str, bool)] = &[
        ("without Domain it goes back",             "d.web2.qq.com", "",                "d.web2.qq.com",    true),
        ("without Domain it goes to no host below", "qq.com",        "",                "web2.qq.com",      false),
        ("nor to a host above",                     "d.web2.qq.com", "",                "web2.qq.com",      false),
        ("an empty Domain does not count",          "qq.com",        "; Domain=",        "web2.qq.com",      false),
        ("a single dot does not count",             "qq.com",        "; Domain=.",       "web2.qq.com",      false),
        ("Domain reaches the host itself",          "qq.com",        "; Domain=qq.com",  "qq.com",           true),
        ("Domain includes the hosts below it",      "qq.com",        "; Domain=qq.com",  "d.web2.qq.com",    true),
        ("Domain may be above the setter",          "ptlogin2.qq.com", "; Domain=qq.com", "d.web2.qq.com",   true),
        ("a leading dot does not matter",           "ptlogin2.qq.com", "; Domain=.qq.com", "qq.com",         true),
        ("case does not matter",                    "PTlogin2.qq.com", "; domain=.QQ.Com", "Web2.Qq.cOM",    true),
        ("the last Domain counts",                  "a.qq.com",      "; Domain=a.qq.com; Domain=qq.com", "b.qq.com", true),
        ("an empty last Domain does not count",     "a.qq.com",      "; Domain=qq.com; Domain=", "b.qq.com", true),
        ("a suffix of a name does not match",       "notqq.com",     "; Domain=qq.com",  "qq.com",           false),
        ("a name that only ends alike gets none",   "qq.com",        "; Domain=qq.com",  "notqq.com",        false),
        ("a Domain below is refused",               "qq.com",        "; Domain=web2.qq.com", "web2.qq.com",  false),
        ("a sibling domain is refused",             "web.qq.com",    "; Domain=web2.qq.com", "web2.qq.com",  false),
        ("a foreign one is refused",                "evil.com",      "; Domain=qq.com",  "qq.com",           false),
        ("a foreign one is not stored for its setter", "evil.com",      "; Domain=qq.com",  "evil.com",         false),
        ("a public suffix is refused",              "qq.com",        "; Domain=com",     "qq.com",           false),
        ("with dots around it as well",             "qq.com",        "; Domain=.com.",   "qq.com",           false),
        ("also for a host with a dot at its end",   "qq.com.",       "; Domain=com.",    "qq.com.",          false),
        ("a host of one label may name itself",     "localhost",     "; Domain=localhost", "localhost",      true),
        ("no host below a single label gets it",    "localhost",     "; Domain=localhost", "a.localhost",    false),
        ("an address gets its own",                 "10.0.0.1",      "",                 "10.0.0.1",         true),
        ("an address may name itself",              "10.0.0.1",      "; Domain=10.0.0.1", "10.0.0.1",        true),
        ("an address has no parent domain",         "10.0.0.1",      "; Domain=0.0.1",   "10.0.0.1",         false),
        ("an address is no parent domain",          "0.0.0.1",       "; Domain=0.0.0.1", "10.0.0.0.1",       false),
        ("short forms are addresses",               "10.0.1",        "; Domain=0.1",     "10.0.1",           false),
        ("IPv6 addresses get their own",            "[::1]",         "; Domain=[::1]",   "[::1]",            true),
        ("IPv6 addresses with dots match exactly",  "[::1.2.3.com]", "; Domain=3.com]",  "[::1.2.3.com]",    false),
    ];
    for (why, setter, domain, asked, expected) in rows {
        let mut jar = jar_of(setter, "/", &[&format!("a=b{domain}")]);
        let found = sent(&mut jar, asked, "/");
        assert_eq!(found, if *expected { "a=b" } else { "" }, "{why}");
    }
}

#[test]
fn paths_match_as_section_5_1_4_says() {
    // The path where it is set, with which Path, and the path that is then requested.
    #[rustfmt::skip]
    let rows: &[(&str, &str, &str, &str, bool)] = &[
        ("the default is the directory",            "/channel/login2", "",              "/channel/poll2",   true),
        ("the directory itself matches",            "/channel/login2", "",              "/channel",         true),
        ("other paths do not get it",               "/channel/login2", "",              "/api/x",           false),
        ("nor do paths above it",                   "/channel/login2", "",              "/",                false),
        ("a directory is its own default",          "/channel/",       "",              "/channel/x/y",     true),
        ("at the root, all get it",                 "/login2",         "",              "/api/x",           true),
        ("a query is not part of the path",         "/a/b?u1=/c/d",    "",              "/a/x",             true),
        ("a query does not count in a request",     "/",               "; Path=/a",     "/a?/b",            true),
        ("a query without a path is the root",      "?a=/b/c",         "",              "/x",               true),
        ("an empty path is the root",               "",                "",              "",                 true),
        ("a path without a slash is the root",      "a/b/c",           "",              "*",                true),
        ("Path overrides the default",              "/x/y",            "; Path=/a",     "/a/b",             true),
        ("Path need not match the request",         "/x/y",            "; Path=/a",     "/x/y",             false),
        ("a path begins with whole segments",       "/",               "; Path=/a",     "/ab",              false),
        ("with a slash at the end as well",         "/",               "; Path=/a/",    "/a/b",             true),
        ("the slash at the end is required",        "/",               "; Path=/a/",    "/a",               false),
        ("case matters",                            "/",               "; Path=/A",     "/a",               false),
        ("a Path without slash is the default",     "/x/y",            "; Path=a",      "/x/z",             true),
        ("an empty Path is the default",            "/x/y",            "; Path=",       "/x/z",             true),
        ("the last one counts",                     "/x/y",            "; Path=/a; Path=/b", "/b",          true),
        ("the last one counts, even the default",   "/x/y",            "; Path=/a; Path=", "/a",            false),
        ("a quoted path is ignored",                "/x/y",            "; Path=\"/a\"", "/x/z",             true),
    ];
    for (why, set_at, path, asked, expected) in rows {
        let mut jar = jar_of("qq.com", set_at, &[&format!("a=b{path}")]);
        let found = sent(&mut jar, "qq.com", asked);
        assert_eq!(found, if *expected { "a=b" } else { "" }, "{why}");
    }
}

#[test]
fn a_cookie_lives_as_long_as_it_says() {
    // Whether it is sent right after it was set, and a day later.
    #[rustfmt::skip]
    let rows: &[(&str, &str, bool, bool)] = &[
        ("without attributes it stays",             "",                                         true,  true),
        ("Max-Age is in seconds",                   "; Max-Age=86401",                          true,  true),
        ("and then over",                           "; Max-Age=86400",                          true,  false),
        ("Max-Age=0 deletes",                       "; Max-Age=0",                              false, false),
        ("a negative Max-Age deletes",              "; Max-Age=-1",                             false, false),
        ("a huge negative Max-Age deletes",         "; Max-Age=-99999999999999999999999999",    false, false),
        ("a huge one lasts forever",                "; Max-Age=99999999999999999999999999",     true,  true),
        ("a sign without digits is ignored",        "; Max-Age=-",                              true,  true),
        ("a plus sign is ignored",                  "; Max-Age=+0",                             true,  true),
        ("letters are not a number",                "; Max-Age=0s",                             true,  true),
        ("digits are ASCII",                        "; Max-Age=\u{660}",                        true,  true),
        ("Expires is a date",                       "; Expires=Thu, 02 May 2013 00:00:01 GMT",  true,  true),
        ("and then over",                           "; Expires=Thu, 02 May 2013 00:00:00 GMT",  true,  false),
        ("Expires now deletes",                     "; Expires=Wed, 01 May 2013 00:00:00 GMT",  false, false),
        ("Expires long ago, too",                   "; Expires=Thu, 01-Jan-1970 00:00:01 GMT",  false, false),
        ("Expires before the epoch deletes",        "; Expires=Mon, 01-Jan-1601 00:00:00 GMT",  false, false),
        ("an invalid date is ignored",              "; Expires=yesterday",                      true,  true),
        ("Max-Age goes before Expires",             "; Max-Age=9999999; Expires=Thu, 01 Jan 1970 00:00:00 GMT", true, true),
        ("Max-Age counts in any order",             "; Expires=Fri, 31 Dec 2099 23:59:59 GMT; Max-Age=0", false, false),
        ("an invalid Max-Age does not count",       "; Max-Age=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", false, false),
        ("the last one counts",                     "; Max-Age=0; Max-Age=9",                   true,  false),
        ("an invalid last Max-Age is ignored",      "; Max-Age=0; Max-Age=x",                   false, false),
        ("an invalid last Expires is ignored",      "; Expires=01 Jan 1970 00:00:00; Expires=x", false, false),
    ];
    for (why, attributes, at_first, next_day) in rows {
        let mut jar = jar_of("qq.com", "/", &[&format!("a=b{attributes}")]);
        let is_sent_at = |now| jar.header("qq.com", "/", false, now).is_some();
        assert_eq!(is_sent_at(NOW), *at_first, "{why}: at first");
        assert_eq!(is_sent_at(NOW + DAY), *next_day, "{why}: a day later");
        jar.store("elsewhere.test", "/", [], NOW + DAY);
        assert_eq!(
            jar.len(),
            usize::from(*next_day),
            "{why}: expired cookies are removed"
        );
    }
}

/// Returns when a cookie with this Expires expires, in seconds since the epoch, found by asking the
/// jar.
fn end_of(date: &str) -> Option<u64> {
    let mut jar = Jar::default();
    let line = format!("a=b; Expires={date}");
    jar.store("qq.com", "/", [line.as_bytes()], Duration::ZERO);
    let is_live_at = |seconds| {
        let now = Duration::from_secs(seconds);
        jar.clone().header("qq.com", "/", false, now).is_some()
    };
    // After the year 9999 only cookies without an expiry are live.
    let (mut low, mut high) = (0, 1 << 40);
    if is_live_at(high) {
        return None;
    }
    while low < high {
        let middle = (low + high) / 2;
        if is_live_at(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Some(low)
}

#[test]
fn dates_are_read_as_section_5_1_1_says() {
    const JAN_2_2020: Option<u64> = Some(1_577_923_200);
    #[rustfmt::skip]
    let rows: &[(&str, &str, Option<u64>)] = &[
        ("IMF-fixdate",                         "Thu, 02 Jan 2020 00:00:00 GMT",        JAN_2_2020),
        ("Netscape's form",                     "Thu, 02-Jan-2020 00:00:00 GMT",        JAN_2_2020),
        ("RFC 850, two digits",                 "Thursday, 02-Jan-20 00:00:00 GMT",     JAN_2_2020),
        ("asctime",                             "Thu Jan  2 00:00:00 2020",             JAN_2_2020),
        ("the weekday is ignored",              "Fri, 02-Jan-2020 00:00:00 GMT",        JAN_2_2020),
        ("the zone is ignored",                 "02 Jan 2020 00:00:00 +0800",           JAN_2_2020),
        ("case does not matter",                "02 jAN 2020 00:00:00",                 JAN_2_2020),
        ("a month may be written out",          "2 January 2020 0:0:0",                 JAN_2_2020),
        ("any order is allowed",                "2020 00:00:00 Jan 02",                 JAN_2_2020),
        ("of two numbers the day is first",     "02 20 Jan 00:00:00",                   JAN_2_2020),
        ("what follows a number is ignored",    "2nd Jan 2020AD 00:00:00.5",            JAN_2_2020),
        ("any punctuation divides",             "(02)/Jan@2020~00:00:00",               JAN_2_2020),
        ("letters of other scripts do not divide", "02\u{e9}Jan 2020 00:00:00",            None),
        ("70 is 1970",                          "02 Jan 70 00:00:05",                   Some(86_405)),
        ("99 is 1999",                          "31 Dec 99 23:59:59",                   Some(946_684_799)),
        ("69 is 2069",                          "01 Jan 69 00:00:00",                   Some(3_124_224_000)),
        ("00 is 2000, a leap year",             "29 Feb 00 00:00:00",                   Some(951_782_400)),
        ("the day after it",                    "01 Mar 2000 00:00:00",                 Some(951_868_800)),
        ("2100 is no leap year",                "29 Feb 2100 00:00:00",                 None),
        ("2019 is no leap year",                "29 Feb 2019 00:00:00",                 None),
        ("the last valid second",               "31 Dec 9999 23:59:59",                 Some(253_402_300_799)),
        ("the epoch",                           "01 Jan 1970 00:00:00",                 Some(0)),
        ("just before the epoch",               "31 Dec 1969 23:59:59",                 Some(0)),
        ("the first valid year",                "01 Jan 1601 00:00:00",                 Some(0)),
        ("the year before it",                  "31 Dec 1600 23:59:59",                 None),
        ("a year of one digit",                 "01 Jan 9 00:00:00",                    None),
        ("a year of three digits",              "01 Jan 199 00:00:00",                  None),
        ("a year of five digits",               "01 Jan 20200 00:00:00",                None),
        ("no day 0",                            "00 Jan 2020 00:00:00",                 None),
        ("no day of three digits",              "002 Jan 2020 00:00:00",                None),
        ("no 31st of April",                    "31 Apr 2020 00:00:00",                 None),
        ("no 32nd",                             "32 Jan 2020 00:00:00",                 None),
        ("no hour 24",                          "02 Jan 2020 24:00:00",                 None),
        ("no minute 60",                        "02 Jan 2020 00:60:00",                 None),
        ("no leap second",                      "31 Dec 2016 23:59:60",                 None),
        ("a later time does not replace a wrong one", "25:00:00 02 Jan 2020 10:00:00",        None),
        ("a time needs its seconds",            "02 Jan 2020 00:00",                    None),
        ("no time has three digits",            "02 Jan 2020 00:00:000",                None),
        ("no day",                              "Jan 2020 00:00:00",                    None),
        ("no month",                            "02 2020 00:00:00",                     None),
        ("no such month",                       "02 Jaan 2020 00:00:00",                None),
        ("no year",                             "02 Jan 00:00:00",                      None),
        ("a number of very many digits",        "99999999999999999999999999 Jan 2020",  None),
        ("words",                               "never",                                None),
        ("nothing",                             "",                                     None),
    ];
    for (why, date, expected) in rows {
        assert_eq!(end_of(date), *expected, "{why}");
    }
}

#[test]
fn every_day_of_two_centuries_is_where_the_calendar_has_it() {
    const NAMES: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    let mut random = Random::new(1);
    let mut midnight = 0;
    for year in 1970..2170_u64 {
        let is_leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
        let lengths = [31, 28 + u64::from(is_leap), 31, 30, 31, 30];
        let lengths = lengths.into_iter().chain([31, 31, 30, 31, 30, 31]);
        for (name, length) in NAMES.split(' ').zip(lengths) {
            for day in 1..=length {
                let second = random.below(24 * 60 * 60) as u64;
                let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
                let date = format!("{day:02} {name} {year} {h:02}:{m:02}:{s:02}");
                // One second before the end and at the end. This is cheaper than `end_of`.
                let end = Duration::from_secs(midnight + second);
                let line = format!("a=b; Expires=Mon, {date} GMT");
                let is_set_at = |now| {
                    let mut jar = Jar::default();
                    jar.store("qq.com", "/", [line.as_bytes()], now);
                    !jar.is_empty()
                };
                assert!(!is_set_at(end), "{date}");
                let before = end.checked_sub(Duration::from_secs(1));
                assert!(before.is_none_or(is_set_at), "{date}");
                midnight += 24 * 60 * 60;
            }
        }
    }
}

#[test]
fn longer_paths_go_first_and_then_the_older() {
    let mut jar = jar_of("qq.com", "/", &["a=1; Path=/", "b=2; Path=/x/y"]);
    store(&mut jar, "qq.com", "/", &["c=3; Path=/x", "d=4; Path=/x/y"]);
    store(&mut jar, "qq.com", "/", &["e=5; Path=/", "b=6; Path=/x/y"]);
    let expected = "b=6; d=4; c=3; a=1; e=5";
    assert_eq!(sent(&mut jar, "qq.com", "/x/y/z"), expected);
}

#[test]
fn a_cookie_that_is_replaced_keeps_its_age_and_nothing_else() {
    let mut jar = jar_of("qq.com", "/", &["a=1; Secure; Max-Age=5", "b=2"]);
    store(&mut jar, "qq.com", "/", &["a=3"]);
    assert_eq!(sent(&mut jar, "qq.com", "/"), "a=3; b=2");
    let later = jar.header("qq.com", "/", false, NOW + DAY);
    assert_eq!(later.as_deref(), Some("a=3; b=2"));
    store(&mut jar, "qq.com", "/", &["a=; Max-Age=0", "a=4"]);
    assert_eq!(
        sent(&mut jar, "qq.com", "/"),
        "b=2; a=4",
        "a new cookie is the youngest"
    );
}

#[test]
fn a_name_may_stand_under_several_domains_and_paths() {
    let lines = ["a=1; Path=/", "a=2; Path=/x", "a=3; Path=/; Domain=qq.com"];
    let mut jar = jar_of("web.qq.com", "/", &lines);
    assert_eq!(jar.len(), 3);
    assert_eq!(sent(&mut jar, "web.qq.com", "/x"), "a=2; a=1; a=3");
    store(&mut jar, "qq.com", "/", &["a=; Path=/; Max-Age=0"]);
    assert_eq!(sent(&mut jar, "web.qq.com", "/x"), "a=2; a=1");
    store(&mut jar, "web.qq.com", "/", &["a=; Path=/y; Max-Age=0"]);
    assert_eq!(jar.len(), 2, "a cookie of another path is not deleted");
    store(&mut jar, "web.qq.com", "/x", &["a=4"]);
    assert_eq!(
        sent(&mut jar, "web.qq.com", "/x"),
        "a=2; a=4",
        "no Path is the same as /"
    );
}

#[test]
fn a_secure_cookie_is_taken_from_anywhere_and_sent_where_it_is_secure() {
    for attribute in ["Secure", "secure=", "SECURE=no", " sEcUrE "] {
        let mut jar = jar_of("qq.com", "/", &[&format!("a=b;{attribute}"), "c=d"]);
        assert_eq!(sent(&mut jar, "qq.com", "/"), "c=d");
        let secure = jar.header("qq.com", "/", true, NOW);
        assert_eq!(secure.as_deref(), Some("a=b; c=d"));
    }
}

#[test]
fn a_cookie_has_at_most_4096_bytes() {
    let [most, more] = [4096, 4097].map(|size| format!("name={}", "x".repeat(size - 4)));
    let mut jar = jar_of("qq.com", "/", &[&more, &format!("{}=", "n".repeat(4097))]);
    assert!(jar.is_empty());
    jar.set("qq.com", "name", &more);
    assert!(jar.is_empty());
    // Attributes have a limit of their own.
    let lines = [format!("{most}; Path=/{}; Max-Age=0", "y".repeat(1024))];
    store(&mut jar, "qq.com", "/", &[&most]);
    assert_eq!(sent(&mut jar, "qq.com", "/"), most);
    store(&mut jar, "qq.com", "/", &[&lines[0]]);
    assert!(jar.is_empty(), "a path that is too long is ignored");
    let path = format!("/{}", "y".repeat(1023));
    store(&mut jar, "qq.com", "/", &[&format!("a=b; Path={path}")]);
    assert_eq!(sent(&mut jar, "qq.com", &path), "a=b");
    assert_eq!(
        sent(&mut jar, "qq.com", "/"),
        "",
        "a path that is one byte shorter counts"
    );
}

#[test]
fn a_domain_has_at_most_50_cookies_and_the_one_not_set_for_longest_goes() {
    let names = |range: std::ops::Range<usize>| range.map(|n| format!("c{n}=x"));
    let mut jar = jar_of("web.qq.com", "/", &["c0=x; Max-Age=5", "other=x"]);
    for line in names(0..50) {
        store(&mut jar, "qq.com", "/", &[&line]);
    }
    assert_eq!(jar.len(), 52, "another domain's cookies are not counted");
    store(&mut jar, "qq.com", "/", &["c0=y", "c50=x"]);
    assert_eq!(jar.len(), 52);
    let expected = ["c0=y".to_owned()].into_iter().chain(names(2..51));
    let expected: Vec<String> = expected.collect();
    assert_eq!(sent(&mut jar, "qq.com", "/"), expected.join("; "));

    store(&mut jar, "qq.com", "/", &["none=; Max-Age=0"]);
    assert_eq!(jar.len(), 52, "a deletion evicts nothing");
    store(&mut jar, "qq.com", "/", &["c9=; Max-Age=1"]);
    jar.store("qq.com", "/", [&b"c51=x"[..]], NOW + DAY);
    let fields = jar.header("qq.com", "/", false, NOW + DAY);
    let fields = fields.unwrap_or_default();
    assert!(fields.contains("c2=x") && fields.contains("c51=x"));
    assert!(!fields.contains("c9="), "expired cookies are evicted first");
}

#[test]
fn get_finds_the_one_written_last_while_it_lives() {
    let mut jar = Jar::default();
    assert_eq!(jar.get("ptwebqq", NOW), None);
    store(&mut jar, "qq.com", "/", &["ptwebqq=1"]);
    store(&mut jar, "web2.qq.com", "/x/y", &["ptwebqq=2; Max-Age=5"]);
    assert_eq!(jar.get("ptwebqq", NOW), Some("2"));
    store(&mut jar, "qq.com", "/", &["ptwebqq=3"]);
    assert_eq!(jar.get("ptwebqq", NOW), Some("3"));
    store(&mut jar, "web2.qq.com", "/x/y", &["ptwebqq=4; Max-Age=5"]);
    assert_eq!(jar.get("ptwebqq", NOW), Some("4"));
    assert_eq!(jar.get("PTWEBQQ", NOW), None);
    assert_eq!(jar.get("ptwebqq", NOW + DAY), Some("3"));
}

#[test]
fn what_an_answer_says_replaces_what_a_server_set() {
    let line = "ptwebqq=old; Domain=.qq.com; Path=/; Max-Age=9; Secure";
    let mut jar = jar_of("ptlogin2.qq.com", "/login", &[line, "skey=@x"]);
    for domain in ["qq.com", ".qq.com", ".QQ.com"] {
        jar.set(domain, "ptwebqq", domain);
        assert_eq!(jar.get("ptwebqq", NOW), Some(domain));
    }
    assert_eq!(jar.len(), 2);
    let field = jar.header("d.web2.qq.com", "/channel/poll2", false, NOW + DAY);
    assert_eq!(field.as_deref(), Some("ptwebqq=.QQ.com"));
}

#[test]
fn what_an_answer_says_cannot_break_out_of_its_cookie() {
    let values = ["x; Max-Age=0", "x;y=z", "x\r\nX-Evil: y", "x\0"];
    let names = ["", " ", "a=b", "a;b", "a\n"];
    let mut jar = Jar::default();
    jar.set("qq.com", "a", "x=y \"企鹅\"");
    for value in values {
        jar.set("qq.com", "a", value);
    }
    for name in names {
        jar.set("qq.com", name, "x");
    }
    assert_eq!(jar.len(), 1);
    assert_eq!(sent(&mut jar, "qq.com", "/"), "a=x=y \"企鹅\"");
}

#[test]
fn set_names_an_address_or_a_host_of_one_label_as_well() {
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        let mut jar = Jar::default();
        jar.set(host, "a", "b");
        assert_eq!(sent(&mut jar, host, "/"), "a=b");
        assert_eq!(sent(&mut jar, &format!("x.{host}"), "/"), "");
        jar.set(&format!(".{host}"), "a", "c");
        assert_eq!(sent(&mut jar, host, "/"), "a=c");
    }
}

#[test]
fn a_cleared_jar_is_like_a_new_one() {
    let mut jar = jar_of("qq.com", "/", &["a=b", "c=d; Path=/x"]);
    assert_eq!((jar.len(), jar.is_empty()), (2, false));
    let copy = jar.clone();
    jar.clear();
    assert_eq!((jar.len(), jar.is_empty()), (0, true));
    assert_eq!(jar.get("a", NOW), None);
    assert_eq!(jar.header("qq.com", "/", true, NOW), None);
    assert_eq!(copy.get("a", NOW), Some("b"), "a copy is independent");
}

#[test]
fn no_value_is_shown() {
    let jar = jar_of("qq.com", "/", &["skey=hidden; Path=/x", "a=hidden"]);
    let shown = format!("{jar:?} {jar:#?}");
    assert!(shown.contains("skey of qq.com/x"), "{shown}");
    assert!(!shown.contains("hidden"), "{shown}");
}

/// Returns a line made of typical pieces and of random bytes.
fn line(random: &mut Random) -> Vec<u8> {
    #[rustfmt::skip]
    let pieces: &[&[u8]] = &[
        b"=", b"; ", b";", b" ", b"\t", b",", b"-", b":", b".", b"/", b"\"", b"\0", b"\r\n", b"\xff", "鹅".as_bytes(), b"a",
        b"a=b", b"Expires=", b"max-age=", b"Domain=", b"Path=", b"Secure", b"HttpOnly", b"qq.com", b".com", b"10.0.0.1", b"[::1]",
        b"/x/y", b"Thu, 02 Jan 2020 00:00:00 GMT", b"Feb", b"0", b"7", b"99", b"2014", b"18446744073709551616", b"12:34:56",
    ];
    let mut line = b"a=b; ".repeat(random.below(2));
    for _ in 0..random.below(24) {
        if random.chance(100) {
            let count = random.below(6);
            line.extend(random.bytes(count));
        } else {
            line.extend_from_slice(pieces[random.below(pieces.len())]);
        }
    }
    line
}

#[test]
fn whatever_is_set_nothing_panics_and_what_is_sent_can_be() {
    let hosts = [
        "qq.com",
        "web.qq.com",
        "10.0.0.1",
        "[::1]",
        "com",
        "",
        ".",
        "鹅.qq.com",
    ];
    let times = [Duration::ZERO, NOW, Duration::MAX];
    let (mut stored, mut sent) = (0_usize, 0_usize);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut jar = Jar::default();
        for _ in 0..100 {
            let lines = [line(&mut random), line(&mut random), random.bytes(40)];
            let path = String::from_utf8_lossy(&line(&mut random)).into_owned();
            let (host, now) = (*random.pick(&hosts), *random.pick(&times));
            jar.store(host, &path, lines.iter().map(Vec::as_slice), now);
            if random.chance(100) {
                let word =
                    |random: &mut Random| String::from_utf8_lossy(&line(random)).into_owned();
                let (domain, name, value) =
                    (word(&mut random), word(&mut random), word(&mut random));
                jar.set(&domain, &name, &value);
            }
            stored += jar.len();
            let asked = *random.pick(&hosts);
            let Some(field) = jar.header(asked, &path, random.chance(500), now) else {
                continue;
            };
            sent += 1;
            let is_control = |c: char| c.is_ascii_control() && c != '\t';
            assert!(!field.contains(is_control), "seed {seed}: {field:?}");
            for pair in field.split("; ") {
                let name = pair.split_once('=').map(|(name, _)| name);
                let is_found = name.is_some_and(|name| jar.get(name, now).is_some());
                assert!(is_found, "seed {seed}: {pair:?} of {field:?}");
            }
        }
    }
    assert!(
        stored > 1000 && sent > 1000,
        "only {stored} were stored and {sent} sent"
    );
}

/// The model of a cookie, for hosts and paths that match only themselves and the root.
#[derive(Clone, Debug)]
struct Known {
    value: String,
    end: Duration,
    age: usize,
}

#[test]
fn a_jar_agrees_with_a_map_by_domain_path_and_name() {
    let (hosts, paths, names) = (["a.test", "b.test"], ["/", "/x", "/y"], ["n", "m", "o"]);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut jar = Jar::default();
        let mut map: BTreeMap<(&str, &str, &str), Known> = BTreeMap::new();
        let mut now = NOW;
        for step in 0..100 {
            now += Duration::from_secs(random.below(4) as u64);
            map.retain(|_, known| known.end > now);
            let (host, path) = (*random.pick(&hosts), *random.pick(&paths));
            let name = *random.pick(&names);
            let max_age = random.between(0, 20);
            let line = format!("{name}={step}; Path={path}; Max-Age={max_age}");
            jar.store(host, "/", [line.as_bytes()], now);
            let age = map.get(&(host, path, name)).map_or(step, |known| known.age);
            let end = now + Duration::from_secs(max_age as u64);
            let value = step.to_string();
            map.insert((host, path, name), Known { value, end, age });
            map.retain(|_, known| known.end > now);

            let (host, asked) = (*random.pick(&hosts), *random.pick(&paths));
            let mut expected: Vec<_> = map
                .iter()
                .filter(|((at, path, _), _)| *at == host && (*path == asked || *path == "/"))
                .map(|((_, path, name), known)| (path.len(), known.age, *name, &known.value))
                .collect();
            expected.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            let expected = expected
                .iter()
                .map(|(.., name, value)| format!("{name}={value}"));
            let expected = expected.collect::<Vec<_>>().join("; ");
            let field = jar.header(host, asked, false, now).unwrap_or_default();
            assert_eq!(field, expected, "seed {seed}, step {step}");
            assert_eq!(jar.len(), map.len(), "seed {seed}, step {step}");
        }
    }
}
