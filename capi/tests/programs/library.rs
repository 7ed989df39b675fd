//! The library as the tests' programs are built with it: the one that cargo has made of this
//! source.

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

/// Where cargo has put the library.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) shared: PathBuf,
    pub(crate) archive: PathBuf,
}

pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of this test's profile: TARGET/PROFILE, of TARGET/PROFILE/deps/TEST.
fn profile() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent);
    profile.unwrap().to_owned()
}

/// Builds it, or finds it built: of the same profile and features as this test, in the same
/// directory.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(
        || match profile().file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => build("dev"),
            Some(name) => build(name),
        },
    )
}

/// The library as it is meant to be installed.
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
        shared: named(".so").expect("a cdylib").clone(),
        archive: named(".a").expect("a staticlib").clone(),
    }
}

/// The files of the library among cargo's messages.
fn artifacts(built: &Output) -> Vec<PathBuf> {
    let messages = String::from_utf8_lossy(&built.stdout);
    let of_library = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let kinds = message["target"]["kind"].as_array()?;
        kinds.iter().any(|kind| kind == "cdylib").then_some(message)
    });
    let files = of_library.expect("cargo tells of the library");
    let files = files["filenames"].as_array().unwrap();
    files
        .iter()
        .map(|file| file.as_str().unwrap().into())
        .collect()
}

/// What a program needs beside the archive, as rustc tells it.
pub(crate) fn native_libraries() -> Vec<String> {
    let script = package().join("native-libs.sh");
    let told = Command::new("sh").arg(script).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stdout).unwrap();
    told.split_whitespace().map(str::to_owned).collect()
}

/// A directory for what a test makes.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// The strictness that the header has to bear.
pub(crate) const STRICT: &[&str] = &[
    "-std=c99",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-g",
];

/// Builds tests/c/NAME.c.
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
            // The archive lies beside it, and a linker takes the shared one first.
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

/// valgrind before a program; `None`: there is none.
pub(crate) fn under_valgrind(options: &[&str], program: &Path) -> Option<Command> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: no valgrind");
        return None;
    }
    let mut valgrind = Command::new("valgrind");
    // As a user would run it: no kind of leak is left out, and nothing is suppressed.
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

/// Runs a program to its end, which has to be a good one and to come.
pub(crate) fn run_to_end(mut command: Command) {
    const PATIENCE: Duration = Duration::from_secs(240);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // Read while it runs, or it might wait for room.
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
