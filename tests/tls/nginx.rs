//! The engine with nginx: versions, resumption, client certificates, many connections, and reloads
//! under load.

use std::fs;
use std::path::Path;
use std::time::Duration;

use httpstream::{ErrorKind, Next, Reply, Request, Sent};

use crate::bodies::{SIZES, assert_same, body_of};
use crate::certificates::Authority;
use crate::common::{Bench, Log};
use crate::peer::note;
use crate::servers::{Nginx, OpensslServer, TempDir};

fn skip(tool: &str) {
    println!("skipped: {tool} is not installed");
}

/// nginx with a certificate of `authority`, serving the folder `www` in its prefix.
fn nginx(authority: &Authority, directives: &str, prepare: impl Fn(&Path)) -> Option<Nginx> {
    let identity = authority.server();
    let server = format!(
        "ssl_certificate server.pem; ssl_certificate_key server.key; root www;
        add_header X-Reused $ssl_session_reused always; {directives}"
    );
    Nginx::serving_with(&server, "ssl", |prefix| {
        identity.write_to(prefix);
        fs::create_dir(prefix.join("www")).unwrap();
        prepare(&prefix.join("www"));
    })
}

fn url(nginx: &Nginx, path: &str) -> String {
    format!("https://{}{path}", nginx.addr)
}

fn bench_of(authority: &Authority) -> Bench {
    Bench::with(|config| config.route.tls = authority.tls())
}

#[test]
fn sessions_are_resumed_where_the_server_lets_them_be() {
    const CONNECTIONS: usize = 10;
    // Version, directives, and whether sessions can be resumed.
    const ROWS: &[(&str, &str, bool)] = &[
        (
            "TLSv1.2",
            "ssl_session_tickets on; ssl_session_cache off;",
            true,
        ),
        (
            "TLSv1.2",
            "ssl_session_tickets off; ssl_session_cache shared:s:1m;",
            true,
        ),
        (
            "TLSv1.2",
            "ssl_session_tickets off; ssl_session_cache off;",
            false,
        ),
        (
            "TLSv1.3",
            "ssl_session_tickets on; ssl_session_cache off;",
            true,
        ),
        (
            "TLSv1.3",
            "ssl_session_tickets off; ssl_session_cache shared:s:1m;",
            true,
        ),
        (
            "TLSv1.3",
            "ssl_session_tickets off; ssl_session_cache off;",
            false,
        ),
    ];
    for (version, directives, can_be_resumed) in ROWS {
        let authority = Authority::new();
        let directives = format!("ssl_protocols {version}; {directives}");
        let page = |www: &Path| fs::write(www.join("page"), "page").unwrap();
        let Some(nginx) = nginx(&authority, &directives, page) else {
            return skip("nginx");
        };
        let mut bench = bench_of(&authority);
        let get = Request::get(url(&nginx, "/page")).close().build().unwrap();
        for _ in 0..CONNECTIONS {
            bench.engine.submit(get.clone(), note);
            bench.replies(bench.log.replies.len() + 1);
        }
        for (i, reply) in bench.log.replies.iter().enumerate() {
            let got = reply.as_ref().unwrap();
            assert_eq!(got.text(), "page");
            let resumed = i > 0 && *can_be_resumed;
            let (kind, flag) = if resumed {
                ("resumed", "r")
            } else {
                ("full", ".")
            };
            assert_eq!(
                bench.log.notes[i],
                format!("{version} {kind}"),
                "{directives}"
            );
            let said = got.fields.iter().find(|(name, _)| name == "X-Reused");
            let said = said.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
            assert_eq!(said.as_deref(), Some(flag), "{directives}, connection {i}");
        }
        assert_eq!(bench.stats().opened, CONNECTIONS as u64);
        bench.assert_empty();
    }
}

#[test]
fn client_certificates_are_shown_to_who_asks_for_them() {
    let (authority, clients) = (Authority::new(), Authority::new());
    for version in ["TLSv1.2", "TLSv1.3"] {
        let directives = format!(
            "ssl_protocols {version}; ssl_client_certificate www/clients.pem; ssl_verify_client on;
            add_header X-Client \"$ssl_client_s_dn\" always;"
        );
        let Some(nginx) = nginx(&authority, &directives, |www| {
            fs::write(www.join("clients.pem"), clients.pem()).unwrap();
        }) else {
            return skip("nginx");
        };
        let shown = |issuer: &Authority| {
            let identity = issuer.client("bot 7");
            let (chain, key) = (identity.pem(), identity.key_pem());
            let tls = authority.tls();
            tls.client_certificate_pem(chain.as_bytes(), key.as_bytes())
                .unwrap()
        };
        // nginx reports its verdict on a certificate over HTTP.
        let rows = [
            ("given", shown(&clients), 200, "CN=bot 7"),
            (
                "missing",
                authority.tls(),
                400,
                "No required SSL certificate was sent",
            ),
            (
                "of another issuer",
                shown(&authority),
                400,
                "The SSL certificate error",
            ),
        ];
        for (why, tls, status, said) in rows {
            let mut bench = Bench::with(|config| config.route.tls = tls);
            let get = Request::get(url(&nginx, "/clients.pem")).build().unwrap();
            let got = bench.fetch_ok(get);
            assert_eq!(got.status, status, "{version}, {why}: {}", got.text());
            let all = format!(
                "{:?} {}",
                got.fields
                    .iter()
                    .map(|(_, value)| String::from_utf8_lossy(value))
                    .collect::<Vec<_>>(),
                got.text()
            );
            assert!(all.contains(said), "{version}, {why}: {all}");
            bench.assert_empty();
        }
    }
}

#[test]
fn a_server_that_insists_on_a_client_certificate_says_so_by_an_alert() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let dir = TempDir::new();
    authority.server().write_to(dir.path());
    fs::write(dir.path().join("clients.pem"), clients.pem()).unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let args = [
            "-cert",
            "server.pem",
            "-key",
            "server.key",
            "-CAfile",
            "clients.pem",
            "-Verify",
            "1",
            "-verify_return_error",
            "-www",
            version,
        ];
        let Some(server) = OpensslServer::start(dir.path(), &args) else {
            return skip("openssl");
        };
        let stranger = authority.client("a stranger");
        let shown = authority
            .tls()
            .client_certificate_pem(stranger.pem().as_bytes(), stranger.key_pem().as_bytes())
            .unwrap();
        let missing = match version {
            // TLS 1.2 has no alert for that.
            "-tls1_2" => "handshake_failure",
            _ => "certificate_required",
        };
        for (tls, alert) in [(authority.tls(), missing), (shown, "unknown_ca")] {
            let mut bench = Bench::with(|config| config.route.tls = tls);
            let url = format!("https://127.0.0.1:{}/", server.port);
            let error = bench.fetch_err(Request::get(&url).build().unwrap());
            assert_eq!(error.kind(), ErrorKind::Tls, "{version}: {error:#}");
            let expected = format!("server sent the alert {alert}");
            assert!(
                format!("{error:#}").ends_with(&expected),
                "{version}: {error:#}"
            );
            bench.assert_empty();
        }
    }
}

#[test]
fn a_thousand_requests_are_answered_over_fifty_connections() {
    const REQUESTS: usize = 1000;
    const AT_ONCE: usize = 50;
    let authority = Authority::new();
    let files = |www: &Path| {
        for i in 0..AT_ONCE {
            fs::write(www.join(i.to_string()), body_of(i * 700)).unwrap();
        }
    };
    for version in ["TLSv1.2", "TLSv1.3"] {
        let directives = format!("ssl_protocols {version}; keepalive_requests 10000;");
        let Some(nginx) = nginx(&authority, &directives, files) else {
            return skip("nginx");
        };
        let mut bench = Bench::with(|config| {
            config.route.tls = authority.tls();
            config.max_connections_per_origin = AT_ONCE;
        });
        for i in 0..REQUESTS {
            let size = i % AT_ONCE * 700;
            let get = Request::get(url(&nginx, &format!("/{}", i % AT_ONCE)));
            bench.engine.submit(
                get.build().unwrap(),
                move |log: &mut Log, reply: Reply<'_>, _: &mut _| {
                    let response = reply.unwrap();
                    assert_same(response.body(), &body_of(size), &format!("request {i}"));
                    log.notes.push(String::new());
                    Next::done()
                },
            );
        }
        bench.until("all answers", |_, log| log.notes.len() == REQUESTS);
        let stats = bench.stats();
        assert!(stats.opened <= AT_ONCE as u64, "{stats:?}");
        assert_eq!(stats.answered, REQUESTS as u64);
        bench.assert_empty();
    }
}

#[test]
fn files_of_all_sizes_come_as_they_are() {
    let authority = Authority::new();
    let files = |www: &Path| {
        for size in SIZES {
            fs::write(www.join(size.to_string()), body_of(size)).unwrap();
        }
    };
    for version in ["TLSv1.2", "TLSv1.3"] {
        let directives = format!("ssl_protocols {version};");
        let Some(nginx) = nginx(&authority, &directives, files) else {
            return skip("nginx");
        };
        let mut bench = bench_of(&authority);
        for size in SIZES {
            let get = Request::get(url(&nginx, &format!("/{size}")));
            let get = get.limits(|l| l.max_body_bytes = 32 << 20);
            let got = bench.fetch_ok(get.build().unwrap());
            assert_same(&got.body, &body_of(size), &format!("{size} bytes"));
        }
        assert_eq!(bench.stats().opened, 1);
        bench.assert_empty();
    }
}

/// The results of a run with reloads.
#[derive(Default)]
struct Load {
    answered: usize,
    posts_failed: usize,
    is_over: bool,
}

impl Load {
    fn on_get(&mut self, reply: Reply<'_>, _: &mut httpstream::Context<'_, Self>) -> Next<Self> {
        let response = reply.unwrap_or_else(|error| panic!("a GET failed: {error:#}"));
        assert_eq!(response.body(), b"page");
        self.answered += 1;
        self.next()
    }

    fn on_post(&mut self, reply: Reply<'_>, _: &mut httpstream::Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(_) => self.answered += 1,
            Err(error) => {
                // A request that may have been processed is not sent again, and the error says so.
                assert_eq!(error.request_sent(), Sent::Maybe, "{error:#}");
                assert!(!error.resend_is_safe(), "{error:#}");
                self.posts_failed += 1;
            }
        }
        self.next()
    }

    fn next(&self) -> Next<Self> {
        match self.is_over {
            true => Next::done(),
            false => Next::again(),
        }
    }
}

#[test]
fn reloads_under_load_lose_no_request_that_may_be_sent_again() {
    const CHAINS: usize = 50;
    const POSTING: usize = 5;
    /// After each reload, connections are made anew with fifty handshakes at once. This leaves time
    /// to use them.
    const PACE: Duration = Duration::from_millis(500);
    const RELOADS: u32 = 4;
    let authority = Authority::new();
    // For this test, a 405 to a POST is an answer like any other.
    let page = |www: &Path| fs::write(www.join("page"), "page").unwrap();
    let Some(nginx) = nginx(&authority, "keepalive_requests 100000;", page) else {
        return skip("nginx");
    };
    let mut config = httpstream::Config::default();
    config.route.tls = authority.tls();
    config.max_connections_per_origin = CHAINS + POSTING;
    let mut engine = httpstream::Engine::<Load>::with_config(config).unwrap();
    let mut load = Load::default();
    let reloads = nginx.reload_every(PACE, || {
        for _ in 0..CHAINS {
            let get = Request::get(url(&nginx, "/page")).build().unwrap();
            engine.submit(get, Load::on_get);
        }
        for _ in 0..POSTING {
            let post = Request::post(url(&nginx, "/page")).body("once");
            engine.submit(post.build().unwrap(), Load::on_post);
        }
        let end = std::time::Instant::now() + PACE * (RELOADS + 2);
        while engine.pending() > 0 {
            load.is_over = std::time::Instant::now() > end;
            engine
                .turn(&mut load, Some(Duration::from_millis(20)))
                .unwrap();
        }
    });
    let stats = engine.stats();
    println!(
        "{} answered, {} posts failed, {reloads} reloads, {stats:?}",
        load.answered, load.posts_failed
    );
    assert!(reloads >= RELOADS, "{reloads} reloads");
    assert!(
        stats.opened > (CHAINS + POSTING) as u64,
        "the reloads closed no connection: {stats:?}"
    );
    assert!(stats.reused > stats.opened, "{stats:?}");
}
