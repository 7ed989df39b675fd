//! Downloads to a disk that is full, or that cannot be written. This runs in a mount namespace of
//! its own, on a file system in memory.

#![cfg(target_os = "linux")]

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use httpstream::session::Retry;
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Error, ErrorKind, Next, Request, Save, Saved, Sim};

const INSIDE: &str = "HTTPSTREAM_TEST_DISK";

/// Runs the test of that name again, with an empty directory in its environment that is a file
/// system of 64 KiB. Returns that directory.
fn inside(test: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return Some(dir.into());
    }
    let dir = std::env::temp_dir().join(format!("httpstream-disk-{}-{test}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let mount = "mount -t tmpfs -o size=64k tmpfs \"$1\"";
    let is_possible = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount, "sh"])
        .arg(&dir)
        .output()
        .is_ok_and(|done| done.status.success());
    if !is_possible {
        println!("skipped: no privilege to create mount namespaces");
        fs::remove_dir(&dir).unwrap();
        return None;
    }
    let done = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!("{mount} && exec \"$0\" --exact {test} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .arg(&dir)
        .env(INSIDE, &dir)
        .output()
        .unwrap();
    fs::remove_dir(&dir).unwrap();
    let told =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}");
    assert!(told.contains("test result: ok. 1 passed"), "{told}");
    None
}

/// Downloads a file of a mebibyte. Returns the outcome and the number of requests.
fn download(path: PathBuf) -> (Result<Saved, Error>, usize) {
    let network = Network::new(1);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok(vec![b'x'; 1 << 20]).header("ETag", "\"v1\"")
    });
    let mut engine =
        Engine::<Option<Result<Saved, Error>>, Sim>::on_network(&network, Config::default())
            .unwrap();
    let save = Save::to(path).resume(true).retry(Retry::forever());
    let save = save.then(|outcome: &mut Option<_>, saved, _| {
        *outcome = Some(saved);
        Next::done()
    });
    engine.submit_to(Request::get("http://10.0.0.1/big").build().unwrap(), save);
    let mut outcome = None;
    engine.run(&mut outcome).unwrap();
    let requests = network.ledger().requests().count();
    (outcome.expect("it has ended"), requests)
}

#[track_caller]
fn assert_failed(outcome: (Result<Saved, Error>, usize), kind: io::ErrorKind) {
    let (error, requests) = (outcome.0.unwrap_err(), outcome.1);
    assert_eq!(error.kind(), ErrorKind::Body, "{error:#}");
    let reason = error
        .source()
        .and_then(|why| why.downcast_ref::<io::Error>());
    assert_eq!(reason.map(io::Error::kind), Some(kind), "{error:#}");
    assert_eq!(requests, 1, "it was attempted again");
}

#[test]
fn a_full_disk_ends_a_download_and_keeps_the_file_from_before() {
    let Some(dir) = inside("a_full_disk_ends_a_download_and_keeps_the_file_from_before") else {
        return;
    };
    let target = dir.join("file");
    fs::write(&target, "old").unwrap();
    assert_failed(download(target.clone()), io::ErrorKind::StorageFull);
    assert_eq!(fs::read(&target).unwrap(), b"old");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    // There is room again.
    fs::write(dir.join("other"), vec![0; 50_000]).unwrap();
}

#[test]
fn a_disk_that_is_mounted_read_only_ends_a_download() {
    let Some(dir) = inside("a_disk_that_is_mounted_read_only_ends_a_download") else {
        return;
    };
    let mounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&dir)
        .status();
    assert!(mounted.unwrap().success());
    let outcome = download(dir.join("file"));
    assert_failed(outcome, io::ErrorKind::ReadOnlyFilesystem);
}
