//! `get`, run as users run it, with nginx and `openssl s_server`.

use std::fs;
use std::process::Command;

use crate::certificates::{Authority, Identity, for_servers};
use crate::servers::{Ended, Nginx, OpensslServer, TempDir, example, run};

/// `get`, without environment variables that name root certificates.
fn get() -> Command {
    let mut command = example("get");
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"] {
        command.env_remove(variable);
    }
    command
}

/// nginx with the certificate of `identity`, serving `page`.
fn nginx(identity: &Identity) -> Option<Nginx> {
    let server = "ssl_certificate server.pem; ssl_certificate_key server.key; root .;";
    let nginx = Nginx::serving_with(server, "ssl", |prefix| {
        identity.write_to(prefix);
        fs::write(prefix.join("page"), "the page\n").unwrap();
    });
    if nginx.is_none() {
        println!("skipped: nginx is not installed");
    }
    nginx
}

/// Writes a file that contains `pem`.
fn file(dir: &TempDir, name: &str, pem: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, pem).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[track_caller]
fn assert_page(ended: &Ended) {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, b"the page\n", "{ended:?}");
}

#[test]
fn get_prints_a_page_of_nginx() {
    let authority = Authority::new();
    let Some(nginx) = nginx(&authority.server()) else {
        return;
    };
    let dir = TempDir::new();
    let roots = file(&dir, "ca.pem", &authority.pem());
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/page", nginx.addr.port());
        assert_page(&run(get().args(["--cacert", &roots, &url])));
    }
}

#[test]
fn get_prints_a_page_of_openssl() {
    let authority = Authority::new();
    let dir = TempDir::new();
    authority.server().write_to(dir.path());
    fs::write(dir.path().join("page"), "the page\n").unwrap();
    let roots = file(&dir, "ca.pem", &authority.pem());
    for version in ["-tls1_2", "-tls1_3"] {
        // HTTP/1.0, with bodies that last until the end.
        let args = ["-cert", "server.pem", "-key", "server.key", "-WWW", version];
        let Some(server) = OpensslServer::start(dir.path(), &args) else {
            return println!("skipped: openssl is not installed");
        };
        let url = format!("https://localhost:{}/page", server.port);
        assert_page(&run(get().args(["--cacert", &roots, &url])));
    }
}

#[test]
fn get_says_what_is_wrong_with_a_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let dated = |from, until| {
        let mut params = for_servers(&["localhost"]);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params
    };
    let rows = [
        (
            authority.sign(dated(2000, 2001)),
            "certificate expired on 2001-01-01 00:00:00 UTC",
        ),
        (
            authority.sign(dated(2100, 2101)),
            "certificate is not valid before 2100-01-01 00:00:00 UTC",
        ),
        (
            authority.sign(for_servers(&["other.example", "more.example"])),
            "certificate is not valid for localhost: it is valid for other.example, more.example",
        ),
        (
            Identity::self_signed(for_servers(&["localhost"])),
            "certificate is self-signed",
        ),
        (
            stranger.server(),
            "certificate has an unknown issuer: its chain leads to no trusted root",
        ),
    ];
    let dir = TempDir::new();
    let roots = file(&dir, "ca.pem", &authority.pem());
    for (identity, why) in rows {
        let Some(nginx) = nginx(&identity) else {
            return;
        };
        let url = format!("https://localhost:{}/page", nginx.addr.port());
        let ended = run(get().args(["--cacert", &roots, &url]));
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        let expected = format!(
            "get: {url} failed: https://localhost:{}: TLS handshake failed: {why}\n",
            nginx.addr.port()
        );
        assert_eq!(ended.stderr, expected);
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn get_believes_the_roots_of_the_machine_where_it_is_given_none() {
    let authority = Authority::new();
    let Some(nginx) = nginx(&authority.server()) else {
        return;
    };
    let dir = TempDir::new();
    let url = format!("https://localhost:{}/page", nginx.addr.port());
    let with = |roots: &str| run(get().env("SSL_CERT_FILE", roots).arg(&url));
    assert_page(&with(&file(&dir, "ca.pem", &authority.pem())));
    for (roots, why) in [
        (
            file(&dir, "other.pem", &Authority::new().pem()),
            "certificate has an unknown issuer",
        ),
        (file(&dir, "empty.pem", ""), "no root certificates found"),
        ("/nowhere/ca.pem".to_owned(), "no root certificates found"),
    ] {
        let ended = with(&roots);
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        let expected = format!("TLS handshake failed: {why}");
        assert!(ended.stderr.contains(&expected), "{ended:?}");
    }
}

#[test]
fn get_shows_a_client_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let identity = authority.server();
    let server = "ssl_certificate server.pem; ssl_certificate_key server.key; root .;
        ssl_client_certificate clients.pem; ssl_verify_client on;";
    let Some(nginx) = Nginx::serving_with(server, "ssl", |prefix| {
        identity.write_to(prefix);
        fs::write(prefix.join("clients.pem"), clients.pem()).unwrap();
        fs::write(prefix.join("page"), "the page\n").unwrap();
    }) else {
        return println!("skipped: nginx is not installed");
    };
    let dir = TempDir::new();
    let client = clients.client("somebody");
    let roots = file(&dir, "ca.pem", &authority.pem());
    let certificate = file(&dir, "client.pem", &client.pem());
    let key = file(&dir, "client.key", &client.key_pem());
    let both = file(&dir, "both.pem", &(client.pem() + &client.key_pem()));
    let url = format!("https://localhost:{}/page", nginx.addr.port());
    let base = ["--cacert", &roots, &url];
    assert_page(&run(get().args(base).args([
        "--cert",
        &certificate,
        "--key",
        &key,
    ])));
    assert_page(&run(get().args(base).args(["--cert", &both])));
    let ended = run(get().arg("-f").args(base));
    assert_eq!(ended.code(), Some(22));
    assert!(ended.stderr.contains("400 Bad Request"), "{ended:?}");
    let ended = run(get()
        .args(base)
        .args(["--cert", &certificate, "--key", &roots]));
    assert_eq!(ended.code(), Some(2), "{ended:?}");
}

#[test]
fn get_logs_no_secrets_because_a_variable_is_set() {
    let authority = Authority::new();
    let Some(nginx) = nginx(&authority.server()) else {
        return;
    };
    let dir = TempDir::new();
    let roots = file(&dir, "ca.pem", &authority.pem());
    let log = dir.path().join("secrets");
    let url = format!("https://localhost:{}/page", nginx.addr.port());
    let ended = run(get()
        .env("SSLKEYLOGFILE", &log)
        .args(["--cacert", &roots, &url]));
    assert_page(&ended);
    assert!(!log.exists());
}
