//! Builds the library from this source, and compiles and runs the programs that use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::common::Server;

#[path = "../../../tests/cargo/mod.rs"]
mod cargo;

/// How a program is linked to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linked {
    Dynamically,
    Statically,
}

/// The files of the library that cargo has built.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) shared: PathBuf,
    pub(crate) archive: PathBuf,
}

pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the directory of this test's profile: TARGET/PROFILE, from TARGET/PROFILE/deps/TEST.
fn profile() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent);
    profile.unwrap().to_owned()
}

/// Builds the library, unless it is up to date, with the same profile, features and target
/// directory as this test.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(
        || match profile().file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => build("dev"),
            Some(name) => build(name),
        },
    )
}

/// Builds the library in the profile in which it is installed.
pub(crate) fn released_library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| build("release"))
}

fn build(name: &str) -> Library {
    let mut cargo = cargo::cargo();
    cargo
        .current_dir(package())
        .args([
            "build",
            "--locked",
            "--package",
            "httpstream-capi",
            "--message-format=json-render-diagnostics",
            "--profile",
            name,
        ])
        .arg("--target-dir")
        .arg(profile().parent().unwrap());
    cargo.arg("--no-default-features");
    for (feature, is_on) in [
        ("hickory", cfg!(feature = "hickory")),
        ("tls", cfg!(feature = "tls")),
    ] {
        if is_on {
            cargo.args(["--features", feature]);
        }
    }
    let built = cargo.stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "{cargo:?}");
    let files = artifacts(&built);
    let named = |end: &str| {
        files
            .iter()
            .find(|file| file.to_string_lossy().ends_with(end))
    };
    Library {
        shared: named(".so").expect("no shared library was built").clone(),
        archive: named(".a").expect("no static library was built").clone(),
    }
}

/// Returns the library's files, taken from cargo's messages.
fn artifacts(built: &Output) -> Vec<PathBuf> {
    let messages = String::from_utf8_lossy(&built.stdout);
    let of_library = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let kinds = message["target"]["kind"].as_array()?;
        kinds.iter().any(|kind| kind == "cdylib").then_some(message)
    });
    let files = of_library.expect("cargo does not report the library");
    let files = files["filenames"].as_array().unwrap();
    files
        .iter()
        .map(|file| file.as_str().unwrap().into())
        .collect()
}

/// Returns the libraries that a program needs besides the archive, as reported by rustc.
pub(crate) fn native_libraries() -> Vec<String> {
    let script = package().join("native-libs.sh");
    let told = Command::new("sh").arg(script).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stdout).unwrap();
    told.split_whitespace().map(str::to_owned).collect()
}

/// Returns a directory for a test's files.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Compiler options under which the header must compile without a warning.
pub(crate) const STRICT: &[&str] = &[
    "-std=c99",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-g",
];

/// Compiles tests/c/NAME.c.
pub(crate) fn compile(name: &str, linked: Linked) -> PathBuf {
    let source = package().join("tests/c").join(name).with_extension("c");
    let program = scratch("programs").join(format!("{name}-{linked:?}"));
    let Library { shared, archive } = library();
    let mut cc = Command::new("cc");
    cc.args(STRICT).arg("-I").arg(package().join("include"));
    cc.arg(source).arg("-o").arg(&program);
    match linked {
        Linked::Dynamically => {
            let dir = shared.parent().unwrap();
            cc.arg("-L")
                .arg(dir)
                .arg(format!("-Wl,-rpath,{}", dir.display()));
            // The archive is in the same directory, but linkers prefer the shared library.
            cc.args(["-lhttpstream", "-lpthread"]);
        }
        Linked::Statically => drop(cc.arg(archive).args(native_libraries())),
    }
    assert_success(&mut cc);
    program
}

pub(crate) fn assert_success(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{told}",
        output.status
    );
    output
}

/// Returns a command that runs a program under valgrind, or `None` if valgrind is not installed.
pub(crate) fn under_valgrind(options: &[&str], program: &Path) -> Option<Command> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return None;
    }
    let mut valgrind = Command::new("valgrind");
    // As a user would run it: all kinds of leaks count, and nothing is suppressed.
    valgrind
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full"])
        .arg("--child-silent-after-fork=yes")
        .args(options)
        .arg(program);
    Some(valgrind)
}

/// Runs a program with a server's URL and these arguments.
pub(crate) fn run(mut command: Command, server: Server, arguments: &[&str]) {
    command
        .arg(format!("http://{}", server.addr))
        .args(arguments);
    run_to_end(command);
}

/// Runs a program to its end.
///
/// # Panics
/// Panics if the program fails, or has not ended after 240 s.
pub(crate) fn run_to_end(mut command: Command) {
    const PATIENCE: Duration = Duration::from_secs(240);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // Read while the program runs; otherwise a full pipe could block it.
    let mut told = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut words = String::new();
        let _ = std::io::Read::read_to_string(&mut told, &mut words);
        words
    });
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > end => break None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        child.kill().unwrap();
    }
    let words = reader.join().unwrap();
    match status {
        Some(status) => assert!(status.success(), "{command:?}: {status}\n{words}"),
        None => panic!("{command:?} does not end\n{words}"),
    }
}
