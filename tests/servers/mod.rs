//! The foundation of the tests of the example programs: the programs, a tree of files, and the real
//! servers that serve it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "../cargo/mod.rs"]
mod cargo;

/// A program that runs longer than this hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

// ---- programs ----

/// Returns an example's command. `cargo test` has built the examples next to this test; if only
/// some tests were selected, they are built now.
pub(crate) fn example(name: &str) -> Command {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build_examples);
    let program = built.get(name);
    Command::new(program.unwrap_or_else(|| panic!("no example {name} with these features")))
}

/// The features of the tests, which the examples use as well: other features would mean to build
/// everything again.
const FEATURES: &[&str] = &[
    #[cfg(feature = "default")]
    "default",
    #[cfg(feature = "hickory")]
    "hickory",
    #[cfg(feature = "tls")]
    "tls",
    #[cfg(feature = "webpki-roots")]
    "webpki-roots",
    #[cfg(feature = "timerfd")]
    "timerfd",
    #[cfg(feature = "tokio")]
    "tokio",
    #[cfg(feature = "calloop")]
    "calloop",
];

/// Builds the examples with the cargo that runs this, offline, and returns them by name.
fn build_examples() -> BTreeMap<String, PathBuf> {
    let mut cargo = cargo::cargo();
    cargo
        .args(["build", "--offline", "--examples", "--message-format=json"])
        .arg("--no-default-features")
        .arg(format!("--features={}", FEATURES.join(",")))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{cargo:?}: {complaint}");
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.into()))
    };
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    messages.lines().filter_map(program).collect()
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a program to its end, and panics if that takes longer than [`LIMIT`].
pub(crate) fn run(command: &mut Command) -> Ended {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = read_all(child.stdout.take().expect("piped"));
    let stderr = read_all(child.stderr.take().expect("piped"));
    let end = Instant::now() + LIMIT;
    let mut wait = |output: mpsc::Receiver<Vec<u8>>| {
        let left = end.saturating_duration_since(Instant::now());
        output.recv_timeout(left).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("{command:?} is still running after {LIMIT:?}")
        })
    };
    let (stdout, stderr) = (wait(stdout), wait(stderr));
    Ended {
        status: child.wait().expect("it is our child"),
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// Finds a tool in `PATH`, or in the directories where Debian keeps servers.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

// ---- files ----

/// A directory that is removed on drop.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("servers-{}-{count}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("the target directory can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A tree of files of all sizes. Contents and sizes are derived from one seed.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: TempDir,
    files: Vec<(String, Vec<u8>)>,
}

impl Tree {
    const FILES: usize = 1000;
    const LARGEST: usize = 2 << 20;
    /// Near the sizes of pages, buffers and segments.
    const EDGES: &[usize] = &[
        0,
        1,
        2,
        1447,
        1448,
        1449,
        4095,
        4096,
        4097,
        65_535,
        65_536,
        65_537,
        131_071,
        131_072,
        131_073,
        Self::LARGEST,
    ];

    /// Returns the tree that other tests are using, or makes a new one.
    pub(crate) fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Tree>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let tree = Arc::new(Self::grow());
            *shared = Arc::downgrade(&tree);
            tree
        })
    }

    fn grow() -> Self {
        let dir = TempDir::new();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let files: Vec<_> = (0..Self::FILES)
            .map(|i| {
                let size = Self::EDGES.get(i).copied();
                let size = size.unwrap_or_else(|| Self::any_size(&mut random));
                let name = match i % 4 {
                    0 => format!("{i}"),
                    1 => format!("some/{i}.bin"),
                    2 => format!("some/more/{i}"),
                    _ => format!("d{}/{i}.txt", i % 30),
                };
                (name, random.bytes(size))
            })
            .collect();
        for (name, content) in &files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
            fs::write(path, content).expect("writable");
        }
        Self { dir, files }
    }

    /// Most files are small, and most of the bytes are in large ones.
    fn any_size(random: &mut Random) -> usize {
        let u = random.next() as f64 / u64::MAX as f64;
        (Self::LARGEST as f64).powf(u * u) as usize - 1
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(|(_, content)| content.len()).sum()
    }

    /// Returns the URL of each file on a server whose root is this tree.
    pub(crate) fn urls(&self, server: SocketAddr) -> String {
        let urls = self
            .files
            .iter()
            .map(|(name, _)| format!("http://{server}/{name}\n"));
        urls.collect()
    }

    /// Panics unless `copy` has all files, byte for byte.
    pub(crate) fn compare(&self, copy: &Path) {
        for (name, content) in &self.files {
            let path = copy.join(name);
            let found = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.len(), content.len(), "length of {name}");
            // Compared byte by byte only for the message, which is slow without optimization.
            let differs = || found.iter().zip(content).position(|(a, b)| a != b);
            assert!(found == *content, "{name} differs at byte {:?}", differs());
        }
    }
}

/// xorshift64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

// ---- servers ----

/// Returns an address without a listener: the port was free a moment ago.
pub(crate) fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("bound")
}

/// Answers the first connection with `response`, whatever the request, and closes it.
pub(crate) fn serve_once(response: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while request.read_line(&mut line)? > 2 {
            line.clear();
        }
        stream.write_all(response)
    });
    addr
}

/// nginx, master and workers, serving a tree.
#[derive(Debug)]
pub(crate) struct Nginx {
    program: PathBuf,
    prefix: TempDir,
    master: Child,
    pub(crate) addr: SocketAddr,
}

impl Nginx {
    /// Returns `None` if nginx is not installed.
    pub(crate) fn start(tree: &Tree) -> Option<Self> {
        let root = tree.path().display();
        // Slow enough for a reload to find responses half sent.
        Self::serving(&format!("root \"{root}\"; limit_rate 8m;"))
    }

    /// Starts nginx with these directives for its only server, besides the address. Relative file
    /// names refer to [`prefix`](Self::prefix). Returns `None` if nginx is not installed.
    pub(crate) fn serving(server: &str) -> Option<Self> {
        Self::serving_with(server, "", |_| ())
    }

    /// Like [`serving`](Self::serving), with `options` after the address, and with files that
    /// `prepare` puts into the prefix.
    pub(crate) fn serving_with(
        server: &str,
        options: &str,
        prepare: impl Fn(&Path),
    ) -> Option<Self> {
        let program = tool("nginx")?;
        // Another process may take the port before nginx does.
        let started = (0..5).find_map(|_| {
            let (prefix, addr) = (TempDir::new(), free_addr());
            prepare(prefix.path());
            let server = format!("listen {addr} {options}; {server}");
            Self::start_in(&program, prefix, &server, addr)
        });
        Some(started.expect("nginx starts on a free port"))
    }

    fn start_in(program: &Path, prefix: TempDir, server: &str, addr: SocketAddr) -> Option<Self> {
        let conf = Self::conf(prefix.path(), server);
        fs::write(prefix.path().join("nginx.conf"), conf).expect("writable");
        let master = Self::command(program, prefix.path())
            .spawn()
            .expect("nginx can be started");
        let mut nginx = Self {
            program: program.to_owned(),
            prefix,
            master,
            addr,
        };
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if nginx.master.try_wait().expect("our child").is_some() {
                return None;
            }
            // `nginx -s` needs the pid file.
            let has_pid = fs::read(nginx.prefix.path().join("nginx.pid"));
            if has_pid.is_ok_and(|pid| !pid.is_empty()) && TcpStream::connect(addr).is_ok() {
                return Some(nginx);
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("nginx neither listens nor exits");
    }

    /// The directory that nginx runs in.
    pub(crate) fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    fn conf(prefix: &Path, server: &str) -> String {
        use std::os::unix::fs::MetadataExt;
        // If the master runs as root, the workers would otherwise switch to a user who may not read
        // the tree.
        let owner = fs::metadata(prefix).expect("the prefix exists").uid();
        let user = if owner == 0 { "user root;" } else { "" };
        let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path temp-{kind};\n"))
            .concat();
        format!(
            "daemon off; master_process on; worker_processes 2; {user} pid nginx.pid;
            error_log error.log notice;
            events {{ worker_connections 512; }}
            http {{
                access_log off; {temps}
                server {{ {server} }}
            }}\n"
        )
    }

    fn command(program: &Path, prefix: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("-p").arg(prefix).args(["-c", "nginx.conf"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn signal(&self, signal: &str) -> bool {
        let sent = Self::command(&self.program, self.prefix.path())
            .args(["-s", signal])
            .status();
        sent.is_ok_and(|status| status.success())
    }

    /// Runs `work` while nginx reloads repeatedly, and returns how often it reloaded.
    pub(crate) fn reload_during(&self, work: impl FnOnce()) -> u32 {
        self.reload_every(Duration::from_millis(40), work)
    }

    /// Like [`reload_during`](Self::reload_during), at this interval.
    pub(crate) fn reload_every(&self, pace: Duration, work: impl FnOnce()) -> u32 {
        thread::scope(|scope| {
            let (stop, stopped) = mpsc::channel::<()>();
            let reloads = scope.spawn(move || {
                let mut reloads = 0;
                while stopped.recv_timeout(pace) == Err(mpsc::RecvTimeoutError::Timeout) {
                    reloads += u32::from(self.signal("reload"));
                }
                reloads
            });
            work();
            drop(stop);
            reloads.join().expect("the thread did not panic")
        })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killing the master would leave its workers running.
        if !self.signal("stop") {
            let _ = self.master.kill();
        }
        let _ = self.master.wait();
    }
}

/// lighttpd, in the foreground.
#[derive(Debug)]
pub(crate) struct Lighttpd {
    dir: TempDir,
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Lighttpd {
    /// Starts lighttpd with these settings, besides the address and the log files. `prepare` puts
    /// files into its directory, whose path the settings contain as `var.CWD`. Returns `None` if
    /// lighttpd is not installed.
    pub(crate) fn start(settings: &str, prepare: impl Fn(&Path)) -> Option<Self> {
        let program = tool("lighttpd")?;
        // Another process may take the port before lighttpd does.
        let started = (0..5).find_map(|_| {
            let dir = TempDir::new();
            prepare(dir.path());
            Self::start_in(&program, dir, settings, free_addr())
        });
        Some(started.expect("lighttpd starts on a free port"))
    }

    fn start_in(program: &Path, dir: TempDir, settings: &str, addr: SocketAddr) -> Option<Self> {
        let conf = format!(
            "server.bind = \"{}\"\n server.port = {}
            server.errorlog = var.CWD + \"/error.log\"
            accesslog.filename = var.CWD + \"/access.log\"
            {settings}\n",
            addr.ip(),
            addr.port()
        );
        fs::write(dir.path().join("lighttpd.conf"), conf).expect("writable");
        let child = Command::new(program)
            .args(["-D", "-f", "lighttpd.conf"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("lighttpd can be started");
        let mut lighttpd = Self { dir, child, addr };
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if lighttpd.child.try_wait().expect("our child").is_some() {
                return None;
            }
            if TcpStream::connect(addr).is_ok() {
                return Some(lighttpd);
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("lighttpd neither listens nor exits");
    }

    /// Ends lighttpd, which writes the rest of its log, and returns the lines of `access.log`.
    pub(crate) fn stop(mut self) -> Vec<String> {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It ends once its connections are closed.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our child");
        let _ = self.child.wait();
        lines_of(&self.dir.path().join("access.log"))
    }
}

impl Drop for Lighttpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn lines_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A program in Python that serves on a port of its choice, which it prints.
#[derive(Debug)]
pub(crate) struct PythonProgram {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl PythonProgram {
    /// Runs this source. Returns `None` if Python is not installed.
    pub(crate) fn start(source: &str) -> Option<Self> {
        let mut child = Command::new(tool("python3")?)
            .args(["-u", "-c", source])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("python3 can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the program prints its port");
        let port = line.trim().parse();
        let port = port.unwrap_or_else(|_| panic!("no port in {line:?}"));
        Some(Self {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
        })
    }
}

impl Drop for PythonProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `python3 -m http.server`, serving a tree.
#[derive(Debug)]
pub(crate) struct Python {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// Whether it supports HTTP/1.1, as it does since Python 3.11.
    pub(crate) keeps_alive: bool,
}

impl Python {
    /// Returns `None` if Python is not installed.
    pub(crate) fn start(tree: &Tree) -> Option<Self> {
        let python = tool("python3")?;
        let help = run(Command::new(&python).args(["-m", "http.server", "--help"]));
        let keeps_alive = String::from_utf8_lossy(&help.stdout).contains("--protocol");
        let mut command = Command::new(&python);
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
        if keeps_alive {
            command.args(["--protocol", "HTTP/1.1"]);
        }
        let mut child = command
            .arg("--directory")
            .arg(tree.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout
            .read_line(&mut line)
            .expect("python3 prints its address");
        // Serving HTTP on 127.0.0.1 port 12345 (http://127.0.0.1:12345/) ...
        let port = line
            .split(' ')
            .skip_while(|word| *word != "port")
            .nth(1)
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("no port in {line:?}"));
        Some(Self {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            keeps_alive,
        })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `openssl s_server`.
#[derive(Debug)]
pub(crate) struct OpensslServer {
    child: Child,
    pub(crate) port: u16,
}

impl OpensslServer {
    /// Starts it in `dir`, which has the files that `args` name. Returns `None` if it is not
    /// installed.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Option<Self> {
        let mut child = Command::new(tool("openssl")?)
            .args(["s_server", "-accept", "127.0.0.1:0"])
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl can be started");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        // ACCEPT 127.0.0.1:12345
        let mut lines = stdout.lines().map_while(Result::ok);
        let accept = lines.find(|line| line.starts_with("ACCEPT"));
        let port = accept.and_then(|line| line.rsplit(':').next()?.trim().parse().ok());
        // Its output about connections must be read, or it would block.
        thread::spawn(move || lines.for_each(drop));
        let port = port.expect("openssl prints its address");
        Some(Self { child, port })
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
