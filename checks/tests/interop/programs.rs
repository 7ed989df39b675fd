//! Servers in Python and for Node, each in a process of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop");

/// A server that has printed its port, and ends on drop.
pub(crate) struct Program {
    child: Child,
    pub(crate) addr: SocketAddr,
}

/// Returns a variable that says where a tool is. If it is not set, prints that the test is skipped.
fn setting(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name);
    if value.is_none() {
        println!("skipped: {name} is not set, see CONTRIBUTING.md");
    }
    value.map(PathBuf::from)
}

/// Starts a script in Python, or prints that the test is skipped.
pub(crate) fn python<A: AsRef<OsStr>>(
    script: &str,
    args: impl IntoIterator<Item = A>,
) -> Option<Program> {
    let python = setting("HTTPSTREAM_INTEROP_PYTHON")?;
    Some(Program::start(Command::new(python).arg("-u"), script, args))
}

/// Starts a script for Node, or prints that the test is skipped.
pub(crate) fn node<A: AsRef<OsStr>>(
    script: &str,
    args: impl IntoIterator<Item = A>,
) -> Option<Program> {
    let modules = setting("HTTPSTREAM_INTEROP_NODE")?.join("node_modules");
    let mut node = Command::new("node");
    Some(Program::start(node.env("NODE_PATH", modules), script, args))
}

impl Program {
    fn start<A: AsRef<OsStr>>(
        command: &mut Command,
        script: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut child = command
            .arg(Path::new(SCRIPTS).join(script))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{script} cannot be started: {error}"));
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("it prints its port");
        let mut program = Self {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let port = line.trim().parse();
        program
            .addr
            .set_port(port.unwrap_or_else(|_| panic!("{script}: no port in {line:?}")));
        program
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Asks the program to end, as a service manager does.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("our child");
    }

    /// Waits until the program has ended by itself.
    pub(crate) fn wait(mut self) {
        self.child.wait().expect("our child");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
