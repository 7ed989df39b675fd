//! Sessions on whole engines, in the simulation: what their requests carry, which redirects they
//! follow, and where they end.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use httpstream::policy::{Verdict, Visit};
use httpstream::session::{Auth, RedirectError, Redirects, Session, SessionBuilder};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Moment, Next, Readback, Reply, Request,
    RequestBuilder, Response, Sim,
};

use crate::visits::{at_end, on_send};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The origins of the simulated servers: all of them see the same function.
const HOSTS: [(&str, [u8; 4]); 3] = [
    ("a.test", [192, 0, 2, 1]),
    ("b.test", [192, 0, 2, 2]),
    ("c.test", [192, 0, 2, 3]),
];

pub(crate) type Told = Vec<Result<String, String>>;

/// The requests that the servers have seen: `METHOD http://host/target`, with the values of the
/// fields that sessions add, and the body.
#[derive(Clone, Default)]
pub(crate) struct Seen(Rc<RefCell<Vec<String>>>);

impl Seen {
    fn note(&self, request: &Incoming) {
        let mut line = format!("{} {}{}", request.method, host(request), request.target);
        for name in [
            "Authorization",
            "Cookie",
            "User-Agent",
            "X-Key",
            "Content-Type",
        ] {
            if let Some(value) = request.header(name) {
                let value = String::from_utf8_lossy(value);
                if !(name == "User-Agent" && value.starts_with("httpstream/")) {
                    line += &format!(" {name}={value}");
                }
            }
        }
        if !request.body().is_empty() {
            line += &format!(" body={}", String::from_utf8_lossy(request.body()));
        }
        self.0.borrow_mut().push(line);
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

fn host(request: &Incoming) -> String {
    String::from_utf8_lossy(request.header("Host").unwrap_or(b"-")).into_owned()
}

pub(crate) fn simulated(
    config: Config,
    server: impl Fn(&Incoming) -> Answer + 'static,
) -> (Network, Engine<Told, Sim>, Seen) {
    let network = Network::new(1);
    let (server, seen) = (Rc::new(server), Seen::default());
    for (host, addr) in HOSTS {
        network.host(host, [addr]);
        for port in [80, 443, 8080] {
            let (server, seen) = (Rc::clone(&server), seen.clone());
            let addr = SocketAddr::from((addr, port));
            network.serve(addr, move |request: &Incoming| {
                seen.note(request);
                server(request)
            });
        }
    }
    let engine = Engine::on_network(&network, config).unwrap();
    (network, engine, seen)
}

pub(crate) fn found(status: u16, location: &str) -> Answer {
    Answer::status(status).header("Location", location)
}

/// Notes the outcome: status, target of the answered request and body, or the error.
pub(crate) fn note(told: &mut Told, reply: Reply<'_>, _: &mut Context<'_, Told>) -> Next<Told> {
    told.push(outcome(&reply));
    Next::done()
}

pub(crate) fn outcome(reply: &Reply<'_>) -> Result<String, String> {
    match reply {
        Ok(response) => Ok(format!(
            "{} {} {}",
            response.status().as_u16(),
            response.info().request().target(),
            response.text().unwrap()
        )),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err("canceled".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Sends one request, and returns its outcome and what the servers saw.
fn exchange(
    request: RequestBuilder,
    server: impl Fn(&Incoming) -> Answer + 'static,
) -> (Result<String, String>, Vec<String>) {
    let (_network, mut engine, seen) = simulated(Config::default(), server);
    let mut told = Told::new();
    engine.submit(request.build().unwrap(), note);
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    (told.remove(0), seen.take())
}

fn following() -> SessionBuilder {
    Session::builder().redirects(Redirects::limited(10))
}

#[test]
fn methods_and_bodies_after_each_redirect() {
    const FORM: &str = "application/x-www-form-urlencoded";
    // Status, method, the request at the end.
    let kept = |method: &str| format!("{method} a.test/end Content-Type={FORM} body=a=1");
    let rows = [
        (301, "POST", "GET a.test/end".to_owned()),
        (302, "POST", "GET a.test/end".to_owned()),
        (303, "POST", "GET a.test/end".to_owned()),
        (307, "POST", kept("POST")),
        (308, "POST", kept("POST")),
        (301, "PUT", kept("PUT")),
        (302, "PATCH", kept("PATCH")),
        (303, "PUT", "GET a.test/end".to_owned()),
        (303, "DELETE", "GET a.test/end".to_owned()),
        (303, "HEAD", "HEAD a.test/end".to_owned()),
        (302, "HEAD", "HEAD a.test/end".to_owned()),
        (303, "GET", "GET a.test/end".to_owned()),
        (307, "OPTIONS", kept("OPTIONS")),
    ];
    let session = following().build().unwrap();
    for (status, method, expected) in rows {
        let parsed = http::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = session.request(parsed, "http://a.test/start");
        if !matches!(method, "GET" | "HEAD") {
            request = request.form([("a", 1)]).header("Content-Language", "en");
        }
        let (outcome, seen) = exchange(request, move |seen| match seen.path() {
            "/start" => found(status, "/end"),
            _ => match seen.header("Content-Language") {
                Some(_) => Answer::ok("with language"),
                None => Answer::ok("plain"),
            },
        });
        assert_eq!(
            &seen[1..],
            std::slice::from_ref(&expected),
            "{status} {method}"
        );
        let body = match (method, expected.contains("body")) {
            ("HEAD", _) => "",
            (_, true) => "with language",
            (_, false) => "plain",
        };
        assert_eq!(outcome, Ok(format!("200 /end {body}")), "{status} {method}");
    }
}

#[test]
fn methods_are_kept_where_the_session_says_so() {
    let redirects = Redirects::limited(1).keep_method([301, 303]);
    let session = Session::builder().redirects(redirects).build().unwrap();
    for (status, expected) in [(301, "POST"), (302, "GET"), (303, "GET")] {
        let request = session.post("http://a.test/start").body("text");
        let (_, seen) = exchange(request, move |seen| match seen.path() {
            "/start" => found(status, "end"),
            _ => Answer::ok(""),
        });
        assert!(seen[1].starts_with(expected), "{status}: {seen:?}");
    }
}

#[test]
fn locations_are_resolved() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &str)] = &[
        ("absolute", "http://b.test/x?y", "GET b.test/x?y"),
        ("absolute, in capitals", "HTTP://B.TEST/x", "GET b.test/x"),
        ("another port", "http://a.test:8080/", "GET a.test:8080/"),
        ("authority", "//b.test/x", "GET b.test/x"),
        ("path", "/x", "GET a.test/x"),
        ("relative to the folder", "x", "GET a.test/one/x"),
        ("up", "../../x", "GET a.test/x"),
        ("dots inside", "/x/./y/../z", "GET a.test/x/z"),
        ("query alone", "?q=1", "GET a.test/one/two?q=1"),
        ("fragment", "/x#part", "GET a.test/x"),
        ("fragment alone", "#part", "GET a.test/one/two?q"),
        ("space", "/a b", "GET a.test/a%20b"),
        ("not ASCII", "/\u{fc}", "GET a.test/%C3%BC"),
        ("encoded line break", "/%0d%0aX:%20y", "GET a.test/%0d%0aX:%20y"),
        ("user information is ignored", "http://user:secret@b.test/x", "GET b.test/x"),
        ("user information on the same origin", "http://user:secret@a.test/x", "GET a.test/x"),
    ];
    let session = following().build().unwrap();
    for (why, location, expected) in ROWS {
        let request = session.get("http://a.test/one/two?q");
        let turns = std::cell::Cell::new(0);
        let (outcome, seen) = exchange(request, move |_| {
            turns.set(turns.get() + 1);
            match turns.get() {
                1 => found(302, location),
                _ => Answer::ok("end"),
            }
        });
        assert!(outcome.is_ok(), "{why}: {outcome:?}");
        assert_eq!(seen[1..], [*expected], "{why}");
    }
}

#[test]
fn bytes_of_a_location_that_are_not_text_are_encoded() {
    let wire = b"HTTP/1.1 302 \r\nContent-Length: 0\r\nLocation: /\xff\r\n\r\n";
    let session = following().build().unwrap();
    let (_, seen) = exchange(session.get("http://a.test/start"), |seen| {
        match seen.path() {
            "/start" => Answer::raw(&wire[..]),
            _ => Answer::ok("end"),
        }
    });
    assert_eq!(seen[1], "GET a.test/%FF");
}

#[test]
fn what_is_not_followed_is_delivered() {
    #[rustfmt::skip]
    let rows: &[(&str, u16, &str)] = &[
        ("300 offers a choice", 300, "/x"),
        ("304 is about a cache", 304, "/x"),
        ("305 is deprecated", 305, "/x"),
        ("306 is unused", 306, "/x"),
        ("201 is about what was created", 201, "/x"),
        ("a scheme of an app", 302, "tg://resolve?domain=x"),
        ("mail", 302, "mailto:a@b.test"),
        ("a file", 302, "file:///etc/passwd"),
        ("script", 302, "javascript:alert(1)"),
    ];
    let session = following().build().unwrap();
    for &(why, status, location) in rows {
        let request = session.get("http://a.test/start");
        let (outcome, seen) = exchange(request, move |_| found(status, location));
        assert_eq!(outcome, Ok(format!("{status} /start ")), "{why}");
        assert_eq!(seen.len(), 1, "{why}");
    }
    // Without a Location.
    let (outcome, seen) = exchange(session.get("http://a.test/start"), |_| Answer::status(302));
    assert_eq!((outcome, seen.len()), (Ok("302 /start ".to_owned()), 1));
    // With an empty one, alone or after another.
    let (outcome, seen) = exchange(session.get("http://a.test/start"), |_| found(302, ""));
    assert_eq!((outcome, seen.len()), (Ok("302 /start ".to_owned()), 1));
    let (outcome, seen) = exchange(session.get("http://a.test/start"), |seen| {
        match seen.path() {
            "/start" => found(302, "/first")
                .header("Location", "/last")
                .header("Location", ""),
            _ => Answer::ok("end"),
        }
    });
    assert_eq!((outcome, seen.len()), (Ok("200 /last end".to_owned()), 2));
    // Without redirects.
    let session = Session::builder().build().unwrap();
    let (outcome, seen) = exchange(session.get("http://a.test/"), |_| found(302, "/x"));
    assert_eq!((outcome, seen.len()), (Ok("302 / ".to_owned()), 1));
}

#[test]
fn redirects_that_must_not_be_followed_are_errors_that_say_why() {
    let at_most = |n| Redirects::limited(n);
    #[rustfmt::skip]
    let rows = [
        (at_most(3), "/loop", 4, "redirect 4, and at most 3 are followed"),
        (at_most(0), "/loop", 1, "redirect 1, and at most 0 are followed"),
        (at_most(3).https_only(), "http://b.test/", 1, "redirect to an http URL, and only https is followed"),
        (at_most(3), "http:///x", 1, "redirect with an invalid reference: host is empty (byte 7)"),
        (at_most(3), "http://b.test:99999/", 1, "redirect with an invalid reference: port greater than 65535 (byte 14)"),
        (at_most(3), "http://127.1/", 1, "redirect with an invalid reference: an IPv4 address has four numbers, not fewer: write 127.0.0.1 (byte 7)"),
        (at_most(3), "http://b\\@c.test/", 1, "redirect with an invalid reference"),
    ];
    for (redirects, location, requests, why) in rows {
        let session = Session::builder().redirects(redirects).build().unwrap();
        let request = session.get("http://a.test/loop");
        let (outcome, seen) = exchange(request, move |_| found(302, location));
        let error = outcome.expect_err(location);
        assert!(
            error.starts_with("http://a.test: stopped by its policy"),
            "{error}"
        );
        assert!(error.contains(why), "{location}: {error}");
        assert_eq!(seen.len(), requests, "{location}");
    }
}

#[test]
fn the_source_of_the_error_says_why_a_redirect_was_refused() {
    use std::error::Error as _;
    let (_network, mut engine, _) = simulated(Config::default(), |_| found(302, "/loop"));
    let redirects = Redirects::limited(2);
    let session = Session::builder().redirects(redirects).build().unwrap();
    engine.submit(
        session.get("http://a.test/").build().unwrap(),
        |told: &mut Told, reply, _| {
            let error = reply.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Policy);
            assert_eq!(error.attempts(), 1);
            assert_eq!(error.request().map(Request::target), Some("/loop"));
            let source = error.source().unwrap().downcast_ref::<RedirectError>();
            let expected = RedirectError::TooMany { limit: 2, seen: 3 };
            assert_eq!(source, Some(&expected));
            told.push(Ok(String::new()));
            Next::done()
        },
    );
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 1);
}

#[test]
fn a_redirect_to_another_origin_is_delivered_where_only_the_same_is_followed() {
    let redirects = Redirects::limited(9).same_origin();
    let session = Session::builder().redirects(redirects).build().unwrap();
    for (location, is_followed) in [
        ("/x", true),
        ("http://a.test:80/x", true),
        ("http://a.test:8080/x", false),
        ("http://b.test/x", false),
        ("https://a.test/x", false),
    ] {
        let request = session.get("http://a.test/start");
        let (outcome, seen) = exchange(request, move |seen| match seen.path() {
            "/start" => found(307, location),
            _ => Answer::ok("end"),
        });
        let expected = if is_followed {
            "200 /x end"
        } else {
            "307 /start "
        };
        assert_eq!(outcome, Ok(expected.to_owned()), "{location}");
        assert_eq!(seen.len(), if is_followed { 2 } else { 1 });
    }
}

#[test]
fn the_program_decides_about_redirects() {
    let redirects = Redirects::limited(9).decide(|hop| {
        assert_eq!(hop.status, 302);
        assert_eq!(hop.from.host(), Some("a.test"));
        hop.to.path() != "/forbidden"
    });
    let session = Session::builder().redirects(redirects).build().unwrap();
    let request = session.get("http://a.test/start");
    let (outcome, seen) = exchange(request, |seen| match seen.path() {
        "/start" => found(302, "/next"),
        "/next" => found(302, "/forbidden").body("why"),
        _ => Answer::ok("end"),
    });
    assert_eq!((outcome, seen.len()), (Ok("302 /next why".to_owned()), 2));
}

#[test]
fn the_program_is_not_asked_about_redirects_that_are_errors() {
    let never = |redirects: Redirects| redirects.decide(|_| panic!("it is not followed"));
    let rows = [
        (Redirects::limited(0), "at most 0 are followed"),
        (Redirects::limited(9).https_only(), "only https is followed"),
    ];
    for (redirects, expected) in rows {
        let session = Session::builder().redirects(never(redirects)).build();
        let request = session.unwrap().get("http://a.test/start");
        let (outcome, seen) = exchange(request, |_| found(302, "/next"));
        let why = outcome.unwrap_err();
        assert!(why.ends_with(expected), "{why}");
        assert_eq!(seen.len(), 1);
    }
}

/// Whatever a redirect leads to, what is meant for one origin does not reach another, and does not
/// come back.
#[test]
fn nothing_secret_goes_to_another_origin() {
    let session = following()
        .base("http://a.test/")
        .header("X-Key", "session")
        .auth(Auth::basic("user", "password"))
        .build()
        .unwrap();
    let basic = "Authorization=Basic dXNlcjpwYXNzd29yZA==";
    let chain = |seen: &Incoming| match (host(seen).as_str(), seen.path()) {
        ("a.test", "/start") => found(307, "/same"),
        ("a.test", "/same") => found(307, "http://b.test/there"),
        ("b.test", "/there") => found(307, "/here"),
        ("b.test", "/here") => found(307, "http://a.test/back"),
        ("a.test", "/back") => found(307, "/home"),
        _ => Answer::ok("end"),
    };
    let (outcome, seen) = exchange(session.get("start"), chain);
    assert_eq!(outcome, Ok("200 /home end".to_owned()));
    // A redirect within an origin does not make it the first one.
    let expected = [
        format!("GET a.test/start {basic} X-Key=session"),
        format!("GET a.test/same {basic} X-Key=session"),
        "GET b.test/there".to_owned(),
        "GET b.test/here".to_owned(),
        "GET a.test/back".to_owned(),
        "GET a.test/home".to_owned(),
    ];
    assert_eq!(seen, expected);

    // The same for fields set by hand; other fields of the request stay.
    let session = following().build().unwrap();
    let request = session
        .get("http://a.test/start")
        .header("Authorization", "Bearer x")
        .header("Cookie", "id=1")
        .header("Host", "virtual.test")
        .header("X-Key", "by hand");
    let (_, seen) = exchange(request, |seen| match seen.path() {
        "/start" => found(302, "/same"),
        "/same" => found(302, "http://b.test/there"),
        "/there" => found(302, "http://a.test/back"),
        _ => Answer::ok("end"),
    });
    let expected = [
        "GET virtual.test/start Authorization=Bearer x Cookie=id=1 X-Key=by hand",
        "GET virtual.test/same Authorization=Bearer x Cookie=id=1 X-Key=by hand",
        "GET b.test/there X-Key=by hand",
        "GET a.test/back X-Key=by hand",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_change_of_scheme_or_port_is_another_origin() {
    for location in ["https://a.test/x", "http://a.test:8080/x"] {
        let request = following().build().unwrap().get("http://a.test/");
        let request = request
            .header("Authorization", "Bearer x")
            .header("Cookie", "id=1");
        let (_, seen) = exchange(request, move |seen| match seen.path() {
            "/" => found(302, location),
            _ => Answer::ok("end"),
        });
        assert!(
            !seen[1].contains("Bearer") && !seen[1].contains("id=1"),
            "{seen:?}"
        );
    }
}

#[test]
fn credentials_go_to_their_origin_only() {
    let session = Session::builder()
        .auth(Auth::bearer("token").at("http://b.test:8080"))
        .build()
        .unwrap();
    for (url, is_sent) in [
        ("http://b.test:8080/", true),
        ("http://b.test/", false),
        ("https://b.test:8080/", false),
        ("http://a.test:8080/", false),
    ] {
        let (_, seen) = exchange(session.get(url), |_| Answer::ok(""));
        assert_eq!(seen[0].contains("Bearer token"), is_sent, "{url}");
    }
    // Not even if a server leads there.
    let session = following()
        .auth(Auth::bearer("token").at("http://b.test"))
        .build()
        .unwrap();
    let (_, seen) = exchange(session.get("http://a.test/"), |seen| {
        match host(seen).as_str() {
            "a.test" => found(302, "http://b.test/"),
            _ => Answer::ok(""),
        }
    });
    assert_eq!(seen, ["GET a.test/", "GET b.test/"]);
}

#[test]
fn headers_of_a_session_without_a_base_go_where_a_request_begins() {
    let session = following()
        .header("X-Key", "v")
        .user_agent("bot/1")
        .build()
        .unwrap();
    let server = |seen: &Incoming| match seen.path() {
        "/start" => found(302, "http://c.test/"),
        _ => Answer::ok(""),
    };
    for host in ["a.test", "b.test"] {
        let (_, seen) = exchange(session.get(format!("http://{host}/start")), server);
        let first = format!("GET {host}/start User-Agent=bot/1 X-Key=v");
        assert_eq!(seen, [&first, "GET c.test/ User-Agent=bot/1"]);
    }
    // A request's own fields take precedence.
    let request = session
        .get("http://a.test/")
        .header("x-key", "own")
        .header("User-Agent", "me");
    let (_, seen) = exchange(request, |_| Answer::ok(""));
    assert_eq!(seen, ["GET a.test/ User-Agent=me X-Key=own"]);
    // With a base, only its origin gets them.
    let session = Session::builder()
        .base("http://a.test")
        .header("X-Key", "v")
        .build()
        .unwrap();
    let (_, seen) = exchange(session.get("http://b.test/"), |_| Answer::ok(""));
    assert_eq!(seen, ["GET b.test/"]);
}

#[test]
fn urls_are_relative_to_the_base() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &str)] = &[
        ("http://a.test", "x", "http://a.test/x"),
        ("http://a.test/v1", "x", "http://a.test/v1/x"),
        ("http://a.test/v1/", "x?y=1", "http://a.test/v1/x?y=1"),
        ("http://a.test/v1/", "/x", "http://a.test/x"),
        ("http://a.test/v1/", "../x", "http://a.test/x"),
        ("http://a.test/v1", "", "http://a.test/v1/"),
        ("http://a.test/v1", "?q", "http://a.test/v1/?q"),
        ("http://a.test/v1", "https://b.test/x", "https://b.test/x"),
        ("http://user:pw@a.test/v1", "x", "http://a.test/v1/x"),
    ];
    for (base, url, expected) in ROWS {
        let session = Session::builder().base(*base).build().unwrap();
        let request = session.get(url).build().unwrap();
        assert_eq!(request.uri(), *expected, "{base} {url}");
        assert_eq!(request.header("Authorization"), None);
    }
    let session = Session::new();
    let error = session.get("x").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    // Credentials of the base are the session's.
    let session = Session::builder()
        .base("http://user:pw@a.test/v1")
        .build()
        .unwrap();
    let (_, seen) = exchange(session.get("x"), |_| Answer::ok(""));
    assert_eq!(seen, ["GET a.test/v1/x Authorization=Basic dXNlcjpwdw=="]);
}

#[test]
fn invalid_settings_are_named() {
    let auth = || Auth::basic("user", "s3cret");
    let base = || Session::builder().base("http://a.test/");
    #[rustfmt::skip]
    let rows: Vec<(SessionBuilder, &str)> = vec![
        (Session::builder().base("a.test"), "URL: not an absolute URL"),
        (Session::builder().base("http://a.test/?key=s3cret"), "base: has a query"),
        (Session::builder().base("http://a:s3cret@a.test/").auth(auth()), "base: has credentials, and so has auth"),
        (Session::builder().auth(auth()), "auth: for which origin?"),
        (Session::builder().auth(auth().at("a.test")), "origin of the Basic credentials"),
        (base().auth(Auth::basic("us:er", "s3cret")), "Basic credentials"),
        (base().auth(Auth::bearer("s3cret s3cret")), "Bearer credentials"),
        (base().auth(auth()).header("authorization", "s3cret"), "auth: there is an Authorization header as well"),
        (base().header("Host", "b"), "set by the engine only"),
        (base().header("Content-Length", "1"), "set by the engine only"),
        (base().header("bad name", "s3cret"), "header name starting with \"bad\""),
        (base().header("X-A", "s3cret\r\nX-B: 1"), "CR at byte 6"),
        (base().header("X-A", "1").header("x-a", "2"), "added twice"),
        (base().user_agent("a\nb"), "LF at byte 1"),
    ];
    for (builder, expected) in rows {
        let debug = format!("{builder:?}");
        assert!(!debug.contains("s3cret"), "{debug}");
        let error = format!("{:#}", builder.build().expect_err(expected));
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn a_hop_is_dialed_only_where_the_filter_allows() {
    let mut config = Config::default();
    config.address_filter = Some(Arc::new(|addr| {
        addr.ip() != std::net::IpAddr::from([192, 0, 2, 2])
    }));
    let (network, mut engine, seen) = simulated(config, |_| found(302, "http://b.test/inside"));
    let session = Session::new();
    engine.submit(session.get("http://a.test/").build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let error = told.remove(0).unwrap_err();
    assert!(
        error.starts_with("http://b.test: could not connect"),
        "{error}"
    );
    assert_eq!(seen.take(), ["GET a.test/"]);
    let attempts = network
        .ledger()
        .attempts()
        .filter(|it| it.server.ip() == std::net::IpAddr::from([192, 0, 2, 2]))
        .count();
    assert_eq!(attempts, 0);
}

#[test]
fn one_total_counts_over_all_hops() {
    let slow = |_: &Incoming| found(302, "/next").after(4 * SECOND);
    let session = following().total(10 * SECOND).build().unwrap();
    let (outcome, seen) = exchange(session.get("http://a.test/"), slow);
    let error = outcome.unwrap_err();
    assert!(error.contains("total timeout of 10s"), "{error}");
    assert_eq!(seen.len(), 3);
    // A request's own total comes first, in either order.
    let request = session.get("http://a.test/").timeout(5 * SECOND);
    let (outcome, seen) = exchange(request, slow);
    assert!(outcome.unwrap_err().contains("total timeout of 5s"));
    assert_eq!(seen.len(), 2);
    // A long poll raises it.
    let held = |_: &Incoming| Answer::ok("news").after(30 * SECOND);
    let request = session.get("http://a.test/").long_poll(60 * SECOND);
    assert_eq!(exchange(request, held).0, Ok("200 / news".to_owned()));
    let request = session.get("http://a.test/");
    assert!(
        exchange(request, held)
            .0
            .unwrap_err()
            .contains("total timeout of 10s")
    );
}

#[test]
fn again_sends_the_first_request_of_the_visit() {
    let (_network, mut engine, seen) = simulated(Config::default(), |seen| match seen.path() {
        "/poll" => found(303, "/hop"),
        _ => Answer::ok("x").after(SECOND),
    });
    let session = following().build().unwrap();
    let poll = session
        .post("http://a.test/poll")
        .body("since=1")
        .build()
        .unwrap();
    let expected = poll.clone();
    let mut left = 3;
    engine.submit(poll, move |told: &mut Told, reply, cx| {
        let info = reply.as_ref().unwrap().info();
        assert_eq!(info.request().target(), "/hop");
        assert_eq!(info.hops().len(), 1);
        let hop = &info.hops()[0];
        assert_eq!(
            (hop.status.as_u16(), hop.from.path(), hop.to.path()),
            (303, "/poll", "/hop")
        );
        assert_eq!(info.attempts, 1);
        assert_eq!(cx.request().unwrap().body(), expected.body());
        told.push(outcome(&reply));
        left -= 1;
        if left > 0 {
            Next::again()
        } else {
            Next::done()
        }
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told.len(), 3);
    let round = ["POST a.test/poll body=since=1", "GET a.test/hop"];
    assert_eq!(seen.take(), [round, round, round].concat());
    assert_eq!(engine.stats().opened, 1, "the bodies of the hops were read");
}

#[test]
fn after_a_failed_hop_again_begins_anew() {
    let (_network, mut engine, seen) = simulated(Config::default(), |seen| match seen.path() {
        "/start" => found(302, "/hop"),
        _ => Answer::nothing().close(),
    });
    let session = following().build().unwrap();
    let mut left = 2;
    let start = session
        .get("http://a.test/start")
        .fresh_connection()
        .build()
        .unwrap();
    engine.submit(start, move |told: &mut Told, reply, cx| {
        let error = reply.as_ref().unwrap_err();
        assert_eq!(error.request().map(Request::target), Some("/hop"));
        assert_eq!(cx.request().map(Request::target), Some("/start"));
        told.push(outcome(&reply));
        left -= 1;
        if left > 0 {
            Next::again()
        } else {
            Next::done()
        }
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let round = ["GET a.test/start", "GET a.test/hop"];
    assert_eq!(seen.take(), [round, round].concat());
}

#[test]
fn a_hops_body_is_not_shown_and_the_last_one_streams() {
    /// Notes every call.
    struct Streams;
    impl Readback<Told> for Streams {
        fn on_head(
            &mut self,
            told: &mut Told,
            head: &Response<'_>,
            _: &mut Context<'_, Told>,
        ) -> httpstream::Flow {
            told.push(Ok(format!("head {}", head.status().as_u16())));
            httpstream::Flow::Stream
        }
        fn on_data(
            &mut self,
            told: &mut Told,
            data: &[u8],
            _: &mut Context<'_, Told>,
        ) -> httpstream::Flow {
            told.push(Ok(String::from_utf8_lossy(data).into_owned()));
            httpstream::Flow::Stream
        }
        fn on_reply(
            &mut self,
            told: &mut Told,
            reply: Reply<'_>,
            _: &mut Context<'_, Told>,
        ) -> Next<Told> {
            told.push(outcome(&reply));
            Next::done()
        }
    }
    let (_network, mut engine, _) = simulated(Config::default(), |seen| match seen.path() {
        "/start" => found(302, "/end").body("moved"),
        _ => Answer::ok("end"),
    });
    engine.submit_to(
        Session::new().get("http://a.test/start").build().unwrap(),
        Streams,
    );
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let expected = ["head 200", "end", "200 /end "].map(|told| Ok(told.to_owned()));
    assert_eq!(told, expected);
}

#[test]
fn a_hop_whose_body_never_ends_costs_its_connection_only() {
    let (network, mut engine, _) = simulated(Config::default(), |seen| match seen.path() {
        "/start" => {
            let pieces = std::iter::repeat_n(vec![b'x'; 4096], 4096);
            found(302, "/end")
                .chunked(pieces)
                .drip(4096, Duration::from_millis(1))
        }
        _ => Answer::ok("end"),
    });
    engine.submit(
        Session::new().get("http://a.test/start").build().unwrap(),
        note,
    );
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Ok("200 /end end".to_owned())]);
    assert!(
        engine.stats().bytes_in < 1 << 20,
        "{}",
        engine.stats().bytes_in
    );
    assert!(network.elapsed() < SECOND, "{:?}", network.elapsed());
}

#[test]
fn a_hops_connection_is_kept_if_reading_its_body_is_cheaper() {
    let body = |n| "x".repeat(n);
    type Row = (&'static str, fn(String) -> Answer, usize, u64);
    let rows: [Row; 5] = [
        ("short", |body| found(302, "/end").body(body), 1000, 1),
        ("long", |body| found(302, "/end").body(body), 65_537, 2),
        (
            "short, chunked",
            |body| found(302, "/end").chunked([body]),
            1000,
            1,
        ),
        (
            "long, chunked",
            |body| found(302, "/end").chunked([body]),
            100_000,
            2,
        ),
        (
            "until the close",
            |body| found(302, "/end").until_close(body),
            10,
            2,
        ),
    ];
    for (why, answer, len, opened) in rows {
        let (_network, mut engine, _) =
            simulated(Config::default(), move |seen| match seen.path() {
                "/start" => answer(body(len)),
                _ => Answer::ok("end"),
            });
        engine.submit(
            Session::new().get("http://a.test/start").build().unwrap(),
            note,
        );
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        assert_eq!(told, [Ok("200 /end end".to_owned())], "{why}");
        assert_eq!(engine.stats().opened, opened, "{why}");
    }
}

#[test]
fn a_pipelined_hop_costs_no_other_request() {
    let (_network, mut engine, _) = simulated(Config::default(), |seen| match seen.path() {
        "/0" => found(302, "/end").body("x".repeat(200_000)),
        _ => Answer::ok("x"),
    });
    let session = Session::new();
    for n in 0..4 {
        let request = session
            .get(format!("http://a.test/{n}"))
            .pipeline(8)
            .build()
            .unwrap();
        engine.submit(request, note);
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert!(
        told.len() == 4 && told.iter().all(|told| told.is_ok()),
        "{told:?}"
    );
    assert_eq!((engine.stats().opened, engine.stats().retried), (1, 0));
}

#[test]
fn a_truncated_hop_is_followed_all_the_same() {
    let session = Session::new();
    let (_network, mut engine, seen) = simulated(Config::default(), |seen| match seen.path() {
        "/start" => found(302, "/end")
            .body("x".repeat(100))
            .truncate(90)
            .close(),
        _ => Answer::ok("end"),
    });
    let request = session.get("http://a.test/start").build().unwrap();
    engine.submit(request, |told: &mut Told, reply, cx| {
        let hops = reply.as_ref().map(|reply| reply.info().hops().len());
        assert_eq!(hops.ok(), Some(1));
        note(told, reply, cx)
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Ok("200 /end end".to_owned())]);
    assert_eq!(seen.take().len(), 2);
}

#[test]
fn a_redirect_whose_request_is_sent_again_has_not_been_followed() {
    let mut is_sent_again = false;
    let twice = at_end(move |request, _| {
        if std::mem::replace(&mut is_sent_again, true) {
            return Ok(Verdict::Deliver);
        }
        let (request, after) = (request.clone(), Duration::ZERO);
        Ok(Verdict::Resend { request, after })
    });
    let session = Session::builder()
        .header("X-Key", "key")
        .redirects(Redirects::limited(10))
        .build()
        .unwrap();
    let request = session
        .get("http://a.test/start")
        .policy(twice)
        .build()
        .unwrap();
    let turns = std::cell::Cell::new(0);
    let (_network, mut engine, seen) = simulated(Config::default(), move |_| {
        turns.set(turns.get() + 1);
        match turns.get() {
            1 => found(302, "http://b.test/elsewhere"),
            _ => Answer::status(404).body("end"),
        }
    });
    engine.submit(request, |told: &mut Told, reply, _| {
        let hops = reply.as_ref().map(|reply| reply.info().hops().len());
        assert_eq!(hops.ok(), Some(0));
        told.push(outcome(&reply));
        Next::done()
    });
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    assert_eq!(told, [Ok("404 /start end".to_owned())]);
    assert_eq!(seen.take(), ["GET a.test/start X-Key=key"; 2]);
    assert_eq!(session.stats().redirected, 0);
}

#[test]
fn an_error_status_becomes_an_error_with_its_body() {
    let session = following().error_for_status(true).build().unwrap();
    let (_network, mut engine, _) = simulated(Config::default(), |seen| match seen.path() {
        "/start" => found(302, "/gone"),
        "/gone" => Answer::status(410)
            .header("Retry-After", "9")
            .body("no more"),
        "/created" => Answer::status(201),
        _ => Answer::status(304),
    });
    for path in ["start", "created", "same"] {
        let request = session
            .get(format!("http://a.test/{path}"))
            .build()
            .unwrap();
        engine.submit(request, |told: &mut Told, reply, _| {
            if let Err(error) = &reply {
                assert_eq!(error.kind(), ErrorKind::Status);
                assert_eq!(error.status().map(|it| it.as_u16()), Some(410));
                assert_eq!(error.partial_body(), b"no more");
                assert_eq!(error.retry_after(), Some(9 * SECOND));
                assert_eq!(error.request().map(Request::target), Some("/gone"));
                assert_eq!(error.attempts(), 1);
            }
            told.push(outcome(&reply));
            Next::done()
        });
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    told.sort();
    let error = "http://a.test: answered with 410 Gone".to_owned();
    let ok = ["201 /created ", "304 /same "].map(|told| Ok(told.to_owned()));
    assert_eq!(told, [&ok[..], &[Err(error)]].concat());
    let stats = session.stats();
    assert_eq!((stats.attempts, stats.ended, stats.failed), (4, 3, 0));
    assert_eq!((stats.redirected, stats.challenged), (1, 0));
}

#[test]
fn an_error_of_a_status_counts_as_the_status_does() {
    for makes_errors in [false, true] {
        let session = following().error_for_status(makes_errors).build().unwrap();
        let statuses = RefCell::new(vec![401, 503, 404, 500, 429]);
        let (_network, mut engine, _) = simulated(Config::default(), move |_| {
            Answer::status(statuses.borrow_mut().pop().unwrap_or(200))
        });
        let request = session.get("http://a.test/").build().unwrap();
        engine.submit(request, |told: &mut Told, reply, cx| {
            told.push(Ok(cx.failures().to_string()));
            match reply {
                Ok(response) if response.status() == 200 => Next::done(),
                _ => Next::again(),
            }
        });
        let mut told = Told::new();
        engine.run(&mut told).unwrap();
        let expected = ["1", "2", "0", "1", "0", "0"].map(|n| Ok(n.to_owned()));
        assert_eq!(told, expected, "error_for_status({makes_errors})");
    }
}

#[test]
fn a_policy_inside_a_session_sees_every_exchange() {
    let stamp = |name: &'static str| {
        on_send(move |request, fields| {
            assert!(
                fields.has("User-Agent"),
                "the session adds its fields first"
            );
            fields.add(name, request.target())
        })
    };
    let session = following()
        .user_agent("bot")
        .policy(stamp("X-Key"))
        .build()
        .unwrap();
    let server = |seen: &Incoming| match seen.path() {
        "/start" => found(302, "/end"),
        _ => Answer::ok(""),
    };
    let own = session
        .get("http://a.test/start")
        .policy(stamp("Content-Type"));
    let rows = [
        (session.get("http://a.test/start"), ""),
        (own, " Content-Type"),
    ];
    for (request, own) in rows {
        let (_, seen) = exchange(request, server);
        for (path, seen) in ["/start", "/end"].into_iter().zip(seen) {
            let own = if own.is_empty() {
                String::new()
            } else {
                format!("{own}={path}")
            };
            assert_eq!(
                seen,
                format!("GET a.test{path} User-Agent=bot X-Key={path}{own}")
            );
        }
    }
}

#[cfg(feature = "digest")]
#[test]
fn a_challenge_to_credentials_of_another_is_not_answered() {
    let bearer = on_send(|_, fields| fields.add("Authorization", "Bearer x"));
    let session = following()
        .base("http://a.test/")
        .auth(Auth::digest("user", "password"))
        .build()
        .unwrap();
    let around = httpstream::policy::both(bearer, (&session).into());
    let rows = [
        Request::get("http://a.test/start").policy(around),
        session.get("start").header("Authorization", "Bearer x"),
    ];
    for request in rows {
        let (outcome, seen) = exchange(request, |seen| match seen.path() {
            "/start" => found(302, "/end"),
            _ => {
                Answer::status(401).header("WWW-Authenticate", "Digest realm=a, nonce=b, qop=auth")
            }
        });
        assert_eq!(outcome, Ok("401 /end ".to_owned()));
        let expected =
            ["/start", "/end"].map(|path| format!("GET a.test{path} Authorization=Bearer x"));
        assert_eq!(seen, expected);
    }
}

/// The answers of the request before the redirect do not count for the one after it.
#[cfg(feature = "digest")]
#[test]
fn a_redirect_may_lead_to_another_realm() {
    let session = following()
        .base("http://a.test/")
        .auth(Auth::digest("user", "password"))
        .build()
        .unwrap();
    let (outcome, seen) = exchange(session.get("start"), |seen| {
        let authorization = seen.header("Authorization").unwrap_or_default();
        let has = |text: &str| String::from_utf8_lossy(authorization).contains(text);
        let challenge = |realm: &str| {
            let value = format!("Digest realm={realm}, nonce=of-{realm}, qop=auth");
            Answer::status(401).header("WWW-Authenticate", value)
        };
        match seen.path() {
            "/start" if has("realm=\"one\"") => found(302, "/end"),
            "/start" => challenge("one"),
            _ if has("realm=\"two\"") => Answer::ok("welcome"),
            _ => challenge("two"),
        }
    });
    assert_eq!(outcome, Ok("200 /end welcome".to_owned()));
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(session.stats().challenged, 2);
}

#[cfg(feature = "cookies")]
#[test]
fn a_cookie_header_of_a_session_takes_the_place_of_the_jars_cookies() {
    let jar = httpstream::session::Jar::new();
    for url in ["http://a.test/", "http://b.test/"] {
        jar.set(url, "id=jar").unwrap();
    }
    let session = following().header("Cookie", "id=own").cookies(jar);
    let request = session.build().unwrap().get("http://a.test/");
    let (outcome, seen) = exchange(request, |seen| match host(seen).as_str() {
        "a.test" => found(302, "http://b.test/"),
        _ => Answer::ok("end"),
    });
    assert_eq!(outcome, Ok("200 / end".to_owned()));
    assert_eq!(
        seen,
        ["GET a.test/ Cookie=id=own", "GET b.test/ Cookie=id=jar"]
    );
}

/// A response that a policy nearer to the wire does not accept leads nowhere.
#[test]
fn a_redirect_that_a_policy_refuses_is_not_followed() {
    #[derive(Clone)]
    struct Refuses;
    impl Visit for Refuses {
        fn on_end(
            &mut self,
            _: &Request,
            _: &Reply<'_>,
            _: &Moment<'_>,
        ) -> Result<httpstream::policy::Verdict, Error> {
            Err(Error::policy("not signed"))
        }
    }
    let session = following().policy(Arc::new(Refuses)).build().unwrap();
    let request = session.get("http://a.test/start");
    let (outcome, seen) = exchange(request, |_| found(302, "/end"));
    let expected = "http://a.test: stopped by its policy: not signed";
    assert_eq!((outcome, seen.len()), (Err(expected.to_owned()), 1));
}

#[test]
fn the_configurations_session_serves_requests_without_one() {
    let mut config = Config::default();
    let default = following().user_agent("default").build().unwrap();
    config.policy = Some((&default).into());
    let (_network, mut engine, seen) = simulated(config, |seen| match seen.path() {
        "/start" => found(302, "/end"),
        _ => Answer::ok(""),
    });
    let other = Session::builder().user_agent("other").build().unwrap();
    engine.submit(Request::get("http://a.test/start").build().unwrap(), note);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    engine.submit(other.get("http://a.test/start").build().unwrap(), note);
    engine.run(&mut told).unwrap();
    let expected = [
        "GET a.test/start User-Agent=default",
        "GET a.test/end User-Agent=default",
        "GET a.test/start User-Agent=other",
    ];
    assert_eq!(seen.take(), expected);
    assert_eq!(told[1], Ok("302 /start ".to_owned()));
}

#[test]
fn a_visit_serves_the_next_request_only_with_the_same_policies() {
    // The second request is of another session, and the third of none.
    let (_network, mut engine, seen) = simulated(Config::default(), |seen| match seen.path() {
        "/start" => found(302, "/end"),
        _ => Answer::ok(""),
    });
    let one = following().user_agent("one").build().unwrap();
    let two = Session::builder().user_agent("two").build().unwrap();
    let mut next = vec![
        one.get("http://a.test/x").build().unwrap(),
        Request::get("http://a.test/start").build().unwrap(),
        two.get("http://a.test/start").build().unwrap(),
    ];
    engine.submit(
        one.get("http://a.test/start").build().unwrap(),
        move |told: &mut Told, reply, _| {
            told.push(outcome(&reply));
            next.pop().map_or_else(Next::done, Next::send)
        },
    );
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    let expected = [
        "GET a.test/start User-Agent=one",
        "GET a.test/end User-Agent=one",
        "GET a.test/start User-Agent=two",
        "GET a.test/start",
        "GET a.test/x User-Agent=one",
    ];
    assert_eq!(seen.take(), expected);
}

#[test]
fn pipelined_requests_follow_redirects_and_keep_their_order() {
    let (_network, mut engine, seen) = simulated(Config::default(), |seen| match seen.path() {
        "/1" => found(302, "/hop"),
        _ => Answer::ok("x"),
    });
    let session = following().user_agent("bot").build().unwrap();
    for n in 0..4 {
        let request = session
            .get(format!("http://a.test/{n}"))
            .pipeline(8)
            .build()
            .unwrap();
        engine.submit(request, note);
    }
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    told.sort();
    let expected = ["200 /0 x", "200 /2 x", "200 /3 x", "200 /hop x"];
    assert_eq!(told, expected.map(|told| Ok(told.to_owned())));
    assert!(
        seen.take()
            .iter()
            .all(|seen| seen.ends_with("User-Agent=bot"))
    );
    assert!(engine.stats().pipelined > 0);
}

#[test]
fn futures_and_within_use_a_session() {
    let (_network, mut engine, _) = simulated(Config::default(), |seen| match seen.path() {
        "/start" => found(302, "/end"),
        _ => Answer::ok("end"),
    });
    let session = Session::new();
    let http = engine.local();
    let start = session.get("http://a.test/start").build().unwrap();
    let task_start = start.clone();
    engine.spawn(async move {
        let response = http.fetch(task_start).await.unwrap();
        let info = response.extensions().get::<httpstream::Info>().unwrap();
        assert_eq!(
            (info.hops().len(), response.body().as_slice()),
            (1, &b"end"[..])
        );
        let told = String::from_utf8(response.into_body()).unwrap();
        http.with(|all: &mut Told, _| all.push(Ok(told)))
            .await
            .unwrap();
    });
    let within = httpstream::within(
        |told: &mut Told| Some(told),
        |told: &mut Told, reply: Reply<'_>, cx: &mut Context<'_, Told>| note(told, reply, cx),
    );
    engine.submit_to(start, within);
    let mut told = Told::new();
    engine.run(&mut told).unwrap();
    told.sort();
    assert_eq!(
        told,
        ["200 /end end", "end"].map(|told| Ok(told.to_owned()))
    );
}
