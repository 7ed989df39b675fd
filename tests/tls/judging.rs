//! Certificates made by `openssl`, valid and invalid, and the errors about them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use httpstream::tls::Tls;
use httpstream::{Config, ErrorKind, Request};

use crate::common::Bench;
use crate::servers::{OpensslServer, TempDir};

/// Runs openssl in `dir`. Returns `None` if it is not installed.
fn openssl(dir: &Path, args: &str) -> Option<()> {
    let status = Command::new("openssl")
        .args(args.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    assert!(status.success(), "openssl {args}");
    Some(())
}

const SUBJECT: &str = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";

/// A self-signed certificate, which is also the root.
fn one_liner(dir: &Path, key: &str) -> Option<()> {
    openssl(
        dir,
        &format!(
            "req -x509 -nodes -days 30 -newkey {key} -keyout server.key -out server.pem {SUBJECT}"
        ),
    )?;
    fs::copy(dir.join("server.pem"), dir.join("root.pem")).unwrap();
    Some(())
}

/// A certificate signed by an authority with a key of kind `key`, with `options`.
fn signed(dir: &Path, key: &str, options: &str) -> Option<()> {
    openssl(
        dir,
        &format!(
            "req -x509 -nodes -days 30 -newkey {key} -keyout root.key -out root.pem -subj /CN=authority"
        ),
    )?;
    openssl(
        dir,
        &format!("req -nodes -newkey rsa:2048 -keyout server.key -out server.csr {SUBJECT}"),
    )?;
    fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        dir,
        &format!(
            "x509 -req -days 30 -in server.csr -CA root.pem -CAkey root.key -CAcreateserial -out server.pem {options}"
        ),
    )
}

/// Sends a request to a server with this certificate. Returns its status, or the error about the
/// certificate.
fn fetch(dir: &Path, version: &str) -> Option<Result<u16, String>> {
    let args = [
        "-cert",
        "server.pem",
        "-key",
        "server.key",
        "-cipher",
        "ALL:@SECLEVEL=0",
        "-www",
        version,
    ];
    let server = OpensslServer::start(dir, &args)?;
    let roots = fs::read(dir.join("root.pem")).unwrap();
    let tls = Tls::with_roots_pem(&roots).unwrap();
    let mut bench = Bench::with(|config: &mut Config| config.route.tls = tls);
    let url = format!("https://127.0.0.1:{}/", server.port);
    let got = bench.fetch(Request::get(&url).build().unwrap());
    Some(match got {
        Ok(got) => Ok(got.status),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Tls, "{error:#}");
            let said = format!("{error:#}");
            Err(said.split_once("handshake failed: ").unwrap().1.to_owned())
        }
    })
}

#[test]
fn certificates_of_openssl_are_believed_or_called_by_what_is_wrong() {
    type Make = fn(&Path) -> Option<()>;
    const BY: &str = "certificate or handshake is signed with an";
    let rows: [(&str, Make, Result<u16, String>); 9] = [
        ("RSA", |dir| one_liner(dir, "rsa:2048"), Ok(200)),
        (
            "P-256",
            |dir| one_liner(dir, "ec -pkeyopt ec_paramgen_curve:P-256"),
            Ok(200),
        ),
        // The signature of a trusted root is not checked.
        (
            "self-signed with SHA-1",
            |dir| one_liner(dir, "rsa:2048 -sha1"),
            Ok(200),
        ),
        (
            "a short key",
            |dir| one_liner(dir, "rsa:1024"),
            Err(format!(
                "{BY} RSA key of 1024 bits, which is too short: the minimum is 2048"
            )),
        ),
        (
            "an authority's short key",
            |dir| signed(dir, "rsa:1024", "-extfile server.ext"),
            Err(format!(
                "{BY} RSA key of 1024 bits, which is too short: the minimum is 2048"
            )),
        ),
        (
            "SHA-1",
            |dir| signed(dir, "rsa:2048", "-sha1 -extfile server.ext"),
            Err(format!("{BY} unsupported algorithm: RSA with SHA-1")),
        ),
        (
            "P-521",
            |dir| {
                signed(
                    dir,
                    "ec -pkeyopt ec_paramgen_curve:P-521",
                    "-sha512 -extfile server.ext",
                )
            },
            Err(format!("{BY} unsupported algorithm: ECDSA with SHA-512")),
        ),
        (
            "Ed448",
            |dir| signed(dir, "ed448", "-extfile server.ext"),
            Err(format!("{BY} unsupported algorithm: Ed448")),
        ),
        (
            "version 1",
            |dir| signed(dir, "rsa:2048", ""),
            Err(
                "certificate was refused: its X.509 version is not 3, so it has no host names"
                    .to_owned(),
            ),
        ),
    ];
    for (why, make, expected) in rows {
        let dir = TempDir::new();
        for version in ["-tls1_2", "-tls1_3"] {
            if make(dir.path()).is_none() {
                return println!("skipped: openssl is not installed");
            }
            let found = fetch(dir.path(), version).expect("openssl is installed");
            assert_eq!(found, expected, "{why}, {version}");
        }
    }
}

#[test]
fn a_trusted_certificate_is_believed_of_what_it_is_trusted_for() {
    let dir = TempDir::new();
    let dir = dir.path();
    if one_liner(dir, "rsa:2048").is_none() {
        return println!("skipped: openssl is not installed");
    }
    for (options, expected) in [
        ("", true),
        ("-setalias name", true),
        ("-addtrust serverAuth", true),
        ("-addtrust clientAuth -addtrust serverAuth", true),
        ("-addtrust anyExtendedKeyUsage", true),
        ("-addtrust clientAuth", false),
        ("-addreject serverAuth", false),
        ("-addreject clientAuth", true),
    ] {
        openssl(
            dir,
            &format!("x509 -in server.pem -trustout {options} -out root.pem"),
        )
        .unwrap();
        let roots = fs::read(dir.join("root.pem")).unwrap();
        assert!(roots.starts_with(b"-----BEGIN TRUSTED CERTIFICATE-----"));
        match expected {
            true => assert_eq!(fetch(dir, "-tls1_3"), Some(Ok(200)), "{options}"),
            false => {
                let error = Tls::with_roots_pem(&roots).unwrap_err();
                let said = format!("{error:#}");
                assert!(
                    said.contains("do not allow its use for servers"),
                    "{options}: {said}"
                );
            }
        }
    }
}
