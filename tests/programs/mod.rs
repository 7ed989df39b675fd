//! Runs programs to their end, and returns their output. Also used by the tests of other packages
//! of this repository.

#![allow(dead_code, reason = "not every test wants every part")]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if it was killed by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A child that is killed on drop, so it does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // If it has ended, there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// If it cannot be started, or is still running after `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Ended {
    let until = Instant::now() + limit;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = Killed(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let stdout = read_all(child.0.stdout.take().expect("it is piped"));
    let stderr = read_all(child.0.stderr.take().expect("it is piped"));
    let said = |stream: Receiver<String>| {
        let left = until.saturating_duration_since(Instant::now());
        match stream.recv_timeout(left) {
            Ok(text) => text,
            Err(RecvTimeoutError::Timeout) => panic!("still running after {limit:?}: {command:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("its output cannot be read: {command:?}")
            }
        }
    };
    let (stdout, stderr) = (said(stdout), said(stderr));
    // It has closed its streams, so it is about to end.
    let status = child.0.wait().expect("a child");
    Ended {
        code: status.code(),
        stdout,
        stderr,
    }
}

/// Reads the whole output, until the end.
fn read_all(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).is_ok() {
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        }
    });
    receiver
}
