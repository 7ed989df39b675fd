//! Sessions over https: cookies that are `Secure`, and redirects between the schemes.

use std::error::Error as _;
use std::sync::Arc;

use httpstream::session::{Auth, Jar, RedirectError, Redirects, Session, SessionBuilder};
use httpstream::{ErrorKind, Request, Route};

use crate::certificates::{Authority, for_servers};
use crate::common::{Bench, Got, Server, ok};
use crate::peer::World;
use crate::servers::Nginx;

/// Repeats what nginx has seen of a request.
const ECHO: &str = r#"
    location / {
        add_header X-Line "$scheme $request_method $request_uri" always;
        add_header X-Auth $http_authorization always;
        add_header X-Cookie $http_cookie always;
        return 200;
    }
"#;

fn field<'g>(got: &'g Got, name: &str) -> &'g str {
    let mut fields = got.fields.iter();
    let value = fields.find(|(other, _)| other == name);
    value.map_or("", |(_, value)| std::str::from_utf8(value).unwrap())
}

/// nginx for http and for https, and an engine that reaches both at all names below `one.test`.
struct Pair {
    plain: Nginx,
    secure: Nginx,
    bench: Bench,
}

impl Pair {
    /// Starts both with these directives, in which `$plain` and `$secure` stand for their ports.
    /// Returns `None` if nginx is not installed.
    fn start(plain: &str, secure: &str) -> Option<Self> {
        let authority = Authority::new();
        let identity = authority.sign(for_servers(&["one.test", "*.one.test", "two.test"]));
        let secure =
            format!("ssl_certificate server.pem; ssl_certificate_key server.key; {ECHO} {secure}");
        let secure = Nginx::serving_with(&secure, "ssl", |prefix| identity.write_to(prefix))?;
        let plain = format!("{ECHO} {plain}").replace("$secure", &secure.addr.port().to_string());
        let plain = Nginx::serving(&plain)?;
        let bench = Bench::with(|config| {
            config.route.tls = authority.tls();
            let mut names = httpstream::resolver::Table::new();
            for name in ["one.test", "www.one.test", "two.test"] {
                names.insert(name, [plain.addr.ip()]);
            }
            config.resolver = Some(crate::common::resolver(names));
        });
        Some(Self {
            plain,
            secure,
            bench,
        })
    }

    fn fetch(&mut self, session: &Session, scheme: &str, rest: &str) -> Got {
        let request = session.get(self.url(scheme, rest)).build().unwrap();
        self.bench.fetch_ok(request)
    }

    /// Returns a URL with the port of the scheme's server, given a host with a path.
    fn url(&self, scheme: &str, rest: &str) -> String {
        let server = if scheme == "https" {
            &self.secure
        } else {
            &self.plain
        };
        let (host, path) = rest.split_once('/').unwrap();
        format!("{scheme}://{host}:{}/{path}", server.addr.port())
    }
}

fn skip() {
    println!("skipped: nginx is not installed");
}

fn following() -> SessionBuilder {
    Session::builder().redirects(Redirects::limited(10))
}

#[test]
fn secure_cookies_are_sent_over_https_only() {
    let sets = r#"location = /set {
        add_header Set-Cookie "s=1; Secure; Path=/; Domain=one.test";
        add_header Set-Cookie "__Host-h=2; Secure; Path=/";
        add_header Set-Cookie "p=3; Path=/"; return 200;
    }"#;
    // http may not replace a Secure cookie, nor set one.
    let spoofs = r#"location = /spoof {
        add_header Set-Cookie "s=0; Path=/; Domain=one.test";
        add_header Set-Cookie "s=0; Path=/spoof";
        add_header Set-Cookie "t=0; Secure; Path=/";
        add_header Set-Cookie "p=4; Path=/"; return 200;
    }"#;
    let Some(mut pair) = Pair::start(spoofs, sets) else {
        return skip();
    };
    let jar = Jar::new();
    let session = following().cookies(jar.clone()).build().unwrap();
    #[rustfmt::skip]
    let steps = [
        ("https", "one.test/set", ""),
        ("https", "one.test/", "s=1; __Host-h=2; p=3"),
        ("http", "one.test/", "p=3"),
        ("https", "www.one.test/", "s=1"),
        ("http", "www.one.test/", ""),
        ("https", "two.test/", ""),
        ("http", "one.test/spoof", ""),
        ("http", "one.test/", "p=4"),
        ("https", "one.test/spoof", "s=1; __Host-h=2; p=4"),
    ];
    for (scheme, rest, expected) in steps {
        let got = pair.fetch(&session, scheme, rest);
        assert_eq!(field(&got, "X-Cookie"), expected, "{scheme} {rest}");
    }
    assert_eq!(jar.len(), 3);
}

#[test]
fn an_upgrade_to_https_is_followed_without_credentials() {
    let up = "location = /up { return 308 https://one.test:$secure/end; }";
    let Some(mut pair) = Pair::start(up, "") else {
        return skip();
    };
    let base = pair.url("http", "one.test/");
    let session = following().base(base).auth(Auth::basic("bot", "s3cret"));
    let session = session
        .redirects(Redirects::limited(1).https_only())
        .build()
        .unwrap();
    let got = pair.fetch(&session, "http", "one.test/plain");
    assert!(field(&got, "X-Auth").starts_with("Basic "));
    let got = pair.fetch(&session, "http", "one.test/up");
    assert_eq!(
        (field(&got, "X-Line"), field(&got, "X-Auth")),
        ("https GET /end", "")
    );
}

/// A session over https, against a server that leads to one without it.
fn downgrade(redirects: Redirects) -> (Result<Got, httpstream::Error>, Vec<String>) {
    let plain = Server::answering(ok("plain"));
    let target = plain.url("/end");
    let world = World::new(move |peer| {
        let location = format!("HTTP/1.1 307 \r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        while peer.request().is_some() {
            peer.send(location.as_bytes());
        }
    });
    let jar = Jar::new();
    jar.set(&world.url("/"), "sid=s3cret; Secure; Path=/")
        .unwrap();
    let session = Session::builder()
        .base(world.url("/"))
        .redirects(redirects)
        .cookies(jar)
        .header("X-Key", "s3cret")
        .auth(Auth::bearer("s3cret"));
    let session = session.build().unwrap();
    let mut bench = world.bench();
    let reply = bench.fetch(session.get("start").build().unwrap());
    let seen = world.server.next();
    for field in [
        "X-Key: s3cret",
        "Authorization: Bearer s3cret",
        "Cookie: sid=s3cret",
    ] {
        assert!(seen.head.contains(field), "{seen:?}");
    }
    // The engine serves on.
    let after = Request::get(plain.url("/after")).build().unwrap();
    assert_eq!(bench.fetch_ok(after).text(), "plain");
    let seen = plain.so_far().into_iter();
    (
        reply,
        seen.map(|seen| seen.head)
            .filter(|head| !head.starts_with("GET /after"))
            .collect(),
    )
}

#[test]
fn a_redirect_from_https_to_http_takes_no_secret_along() {
    let (reply, seen) = downgrade(Redirects::limited(10));
    assert_eq!(reply.unwrap().text(), "plain");
    assert_eq!(seen.len(), 1);
    assert!(
        seen[0].starts_with("GET /end ") && !seen[0].contains("s3cret"),
        "{}",
        seen[0]
    );
}

#[test]
fn a_redirect_from_https_to_http_is_an_error_where_only_https_is_followed() {
    let (reply, seen) = downgrade(Redirects::limited(10).https_only());
    let error = reply.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Policy);
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(source, Some(&RedirectError::NotHttps));
    assert!(!format!("{error:#} {error:?}").contains("s3cret"));
    assert_eq!(seen, Vec::<String>::new());
}

/// Neither that of the configuration's route nor that of a request's own is shown, not even on a
/// resumed session or after a redirect back.
#[test]
fn a_client_certificate_is_shown_at_the_origin_that_it_is_for() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let identity = authority.sign(for_servers(&["one.test", "two.test"]));
    let common = "ssl_certificate server.pem; ssl_certificate_key server.key;
        ssl_client_certificate clients.pem; ssl_verify_client optional;
        add_header X-Client \"$ssl_client_s_dn\" always; location = /end { return 200; }";
    let start = |locations: &str| {
        Nginx::serving_with(&format!("{common} {locations}"), "ssl", |prefix| {
            identity.write_to(prefix);
            std::fs::write(prefix.join("clients.pem"), clients.pem()).unwrap();
        })
    };
    let Some(two) = start("location = /back { return 307 https://one.test:$arg_port/end; }") else {
        return skip();
    };
    let there = format!("https://two.test:{}", two.addr.port());
    let Some(one) = start(&format!(
        "location = /there {{ return 307 {there}/end; }}
        location = /return {{ return 307 {there}/back?port=$server_port; }}"
    )) else {
        return skip();
    };
    let shown = {
        let bot = clients.client("bot 7");
        let (chain, key) = (bot.pem(), bot.key_pem());
        let tls = authority.tls();
        tls.client_certificate_pem(chain.as_bytes(), key.as_bytes())
            .unwrap()
    };
    for is_of_the_request in [false, true] {
        let mut own = Route::default();
        own.tls = shown.clone();
        let mut bench = Bench::with(|config| {
            config.route.tls = match is_of_the_request {
                true => authority.tls(),
                false => shown.clone(),
            };
            let mut names = httpstream::resolver::Table::new();
            for name in ["one.test", "two.test"] {
                names.insert(name, [one.addr.ip()]);
            }
            config.resolver = Some(crate::common::resolver(names));
        });
        let session = Session::new();
        let own = Arc::new(own);
        // Twice, so that the second round resumes the sessions of the first.
        for path in ["end", "there", "return", "end", "there", "return"] {
            let url = format!("https://one.test:{}/{path}", one.addr.port());
            let mut request = session.get(url).close();
            if is_of_the_request {
                request = request.route(Arc::clone(&own));
            }
            let got = bench.fetch_ok(request.build().unwrap());
            assert_eq!(got.status, 200, "{path}");
            let expected = if path == "end" { "CN=bot 7" } else { "" };
            assert_eq!(field(&got, "X-Client"), expected, "{path}");
        }
        bench.assert_empty();
    }
}
