//! `cargo bench --bench embedding [-- HOST …]`: the cost of each event loop that the engine can be
//! embedded in, compared with the engine's own `run`.
//!
//! Each program of `examples/embed` gets the same small answer repeatedly, in two ways: one at a
//! time from a server that takes a millisecond, so that the host sleeps before each answer; and
//! fifty at once from a server that is as fast as possible, so that many arrive in a turn. Two runs
//! of different lengths are counted, and the difference is the cost of a request: instructions in
//! user space by callgrind, system calls by strace. Nothing here is a time, so neither the machine
//! nor its load matters. Of three counts the least is used, since a response may arrive at an
//! unfortunate moment. This needs valgrind and strace, and the libraries of the hosts that are
//! written in C; hosts that cannot be built are reported.

#[path = "../examples/support/server.rs"]
mod server;

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use server::Server;

/// How a program is built.
enum Program {
    /// An example of this package, with features.
    Example(&'static str, &'static [&'static str]),
    /// A package of this workspace, and its program.
    Package(&'static str, &'static str),
    /// A file of `examples/embed/c`, and the library that it is linked with besides the C
    /// interface.
    C(&'static str, &'static str),
}

const HOSTS: &[(&str, Program)] = &[
    ("`Engine::run`", Program::Example("embed_run", &[])),
    ("mio, shared poll", Program::Example("embed_shared", &[])),
    ("mio, nested, edges", Program::Example("embed_nested", &[])),
    ("poll(2)", Program::Example("embed_poll", &[])),
    (
        "poll(2), `timerfd`",
        Program::Example("embed_timerfd", &["timerfd"]),
    ),
    ("calloop", Program::Example("embed_calloop", &["calloop"])),
    ("tokio", Program::Example("embed_tokio", &["tokio"])),
    ("GLib", Program::Package("embed-glib", "embed_glib")),
    ("C, epoll", Program::C("epoll", "")),
    ("C, libuv", Program::C("uv", "libuv")),
];

/// How requests are made.
struct Load {
    url: String,
    at_once: u64,
    few: u64,
    many: u64,
}

/// The cost of a request.
#[derive(Clone, Copy)]
struct Cost {
    instructions: f64,
    system_calls: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    server::serve_if_asked();
    let quick = Server::start()?;
    let one = Load {
        url: format!("http://{}/", serve_slowly()?),
        at_once: 1,
        few: 200,
        many: 1200,
    };
    let many = Load {
        url: format!("http://{}/small", quick.addr),
        at_once: 50,
        few: 1000,
        many: 4000,
    };
    println!(
        "| host | instructions, each awaited | of `run` | system calls | instructions, 50 at once | of `run` | system calls |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut own: Option<[Cost; 2]> = None;
    let asked: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| name.contains(asked));
    // The reference is always counted.
    let is_first = |name: &str| name == HOSTS[0].0;
    for (name, program) in HOSTS {
        if !is_first(name) && !is_asked(name) {
            continue;
        }
        let costs = program
            .build()
            .and_then(|path| Ok([cost(&path, &one)?, cost(&path, &many)?]));
        let costs = match costs {
            Ok(costs) => costs,
            Err(why) => {
                println!("| {name} | – | – | – | – | – | – |");
                eprintln!("{name}: {why}");
                continue;
            }
        };
        let of_run = own.get_or_insert(costs);
        let cells = costs
            .iter()
            .zip(of_run)
            .map(|(cost, own)| Cells(*cost, *own));
        let [one, many] = cells
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_else(|_| unreachable!("there are two costs"));
        println!("| {name} | {one} | {many} |");
    }
    Ok(())
}

/// A cost next to that of the engine's own loop, as three cells of a table.
struct Cells(Cost, Cost);

impl fmt::Display for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost {
            instructions,
            system_calls,
        } = self.0;
        let ratio = instructions / self.1.instructions;
        write!(f, "{instructions:.0} | {ratio:.2} | {system_calls:.2}")
    }
}

impl Program {
    fn build(&self) -> Result<PathBuf, Box<dyn Error>> {
        match self {
            Self::Example(name, features) => {
                let features = features.join(",");
                built(&["--example", name, "--features", &features], name)
            }
            Self::Package(package, name) => built(&["-p", package], name),
            Self::C(name, library) => compiled(name, library),
        }
    }
}

/// Builds an executable with cargo, and returns its path.
fn built(args: &[&str], name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let messages = cargo_build(args)?;
    let executable = messages
        .iter()
        .filter(|message| message["target"]["name"] == *name)
        .find_map(|message| message["executable"].as_str())
        .ok_or("cargo did not build the program")?;
    Ok(executable.into())
}

/// Compiles a C program against the C interface.
fn compiled(name: &str, library: &str) -> Result<PathBuf, Box<dyn Error>> {
    let messages = cargo_build(&["-p", "httpstream-capi"])?;
    let archive = messages
        .iter()
        .filter_map(|message| message["filenames"].as_array())
        .flatten()
        .filter_map(Value::as_str)
        .find(|file| file.ends_with(".a"))
        .ok_or("cargo did not build the C library")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(archive).with_file_name(format!("embed_{name}"));
    let mut flags = Vec::new();
    if !library.is_empty() {
        let found = output(Command::new("pkg-config").args(["--cflags", "--libs", library]))?;
        flags = String::from_utf8(found.stdout)?
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    }
    let mut compiler = Command::new("cc");
    compiler
        .arg("-O2")
        .arg("-I")
        .arg(root.join("capi/include"))
        .arg(root.join(format!("examples/embed/c/{name}.c")))
        .arg(archive)
        .args(flags)
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program);
    output(&mut compiler)?;
    Ok(program)
}

fn cargo_build(args: &[&str]) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--offline", "--release", "--message-format=json"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let messages = String::from_utf8(output(&mut cargo)?.stdout)?;
    Ok(messages
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

/// Counts something in a program that sends this many requests.
type Count = fn(&Path, &Load, u64) -> Result<u64, Box<dyn Error>>;

/// Returns the cost of a request in the program.
fn cost(program: &Path, load: &Load) -> Result<Cost, Box<dyn Error>> {
    // The least of each length is used: if only the shorter run were disturbed, a request would
    // seem cheap.
    let least = |count: Count, n| {
        let counts: Result<Vec<_>, _> = (0..3).map(|_| count(program, load, n)).collect();
        counts.map(|counts| counts.into_iter().min().unwrap_or(u64::MAX) as f64)
    };
    let per_request = |count: Count| {
        let requests = (load.many - load.few) as f64;
        Ok::<_, Box<dyn Error>>((least(count, load.many)? - least(count, load.few)?) / requests)
    };
    Ok(Cost {
        instructions: per_request(instructions)?,
        system_calls: per_request(system_calls)?,
    })
}

fn instructions(program: &Path, load: &Load, n: u64) -> Result<u64, Box<dyn Error>> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let said = output(fetch(valgrind.arg(program), load, n))?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .ok_or("no count from callgrind")?;
    Ok(collected.1.trim().parse()?)
}

fn system_calls(program: &Path, load: &Load, n: u64) -> Result<u64, Box<dyn Error>> {
    let mut strace = Command::new("strace");
    let said = output(fetch(strace.args(["-f", "-c"]).arg(program), load, n))?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    // The total at the end of the table: percent, seconds, microseconds per call, calls, perhaps
    // errors.
    let total = said
        .lines()
        .rfind(|line| line.trim_end().ends_with("total"))
        .and_then(|line| line.split_whitespace().nth(3))
        .ok_or("no total from strace")?;
    Ok(total.parse()?)
}

fn fetch<'a>(program: &'a mut Command, load: &Load, n: u64) -> &'a mut Command {
    program
        .args(["--fetch", &n.to_string()])
        .args(["--at-once", &load.at_once.to_string()])
        .arg(&load.url)
}

/// A server that takes a millisecond for each answer.
fn serve_slowly() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            // The thread ends with its connection.
            std::thread::spawn(move || answer_slowly(peer));
        }
    });
    Ok(addr)
}

fn answer_slowly(mut peer: TcpStream) -> io::Result<()> {
    let answer = "HTTP/1.1 200 OK\r\nServer: slow\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n\
                  Cache-Control: no-store\r\nVary: Accept\r\nContent-Length: 128\r\n\r\n";
    let answer = format!("{answer}{}", "a".repeat(128));
    let mut buffer = [0; 4096];
    let mut request = Vec::new();
    loop {
        match peer.read(&mut buffer)? {
            0 => return Ok(()),
            n => request.extend_from_slice(&buffer[..n]),
        }
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            std::thread::sleep(Duration::from_millis(1));
            peer.write_all(answer.as_bytes())?;
        }
    }
}

fn output(command: &mut Command) -> Result<Output, Box<dyn Error>> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {} {said}", output.status).into())
        }
    }
}
