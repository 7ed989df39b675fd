//! The header, the installed library, and the README's program, as a user meets them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::common::{Server, ok};
use super::library::{STRICT, assert_success, library, package, scratch};

/// Whether `tool` is there; says so where it is not.
fn there_is(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        println!("skipped: no {tool}");
    }
    there
}

#[test]
fn the_header_is_c99_and_cpp() {
    let header = package().join("include/httpstream.h");
    let mut c = Command::new("cc");
    c.args(STRICT)
        .args(["-fsyntax-only", "-x", "c"])
        .arg(&header);
    assert_success(&mut c);
    if there_is("c++") {
        let mut cpp = Command::new("c++");
        cpp.args(STRICT.iter().filter(|option| !option.starts_with("-std")));
        cpp.args(["-std=c++11", "-fsyntax-only", "-x", "c++"])
            .arg(&header);
        assert_success(&mut cpp);
    }
}

#[test]
fn a_cpp_program_links() {
    if !there_is("c++") {
        return;
    }
    let dir = scratch("cpp");
    let source = dir.join("version.cpp");
    std::fs::write(
        &source,
        "#include <httpstream.h>\n#include <cstdio>\nint main() { std::puts(httpstream_version()); return httpstream_free(1) == HTTPSTREAM_ERROR_HANDLE ? 0 : 1; }\n",
    )
    .unwrap();
    let lib = library().shared.parent().unwrap();
    let program = dir.join("version");
    let mut cpp = Command::new("c++");
    cpp.args(["-std=c++11", "-Wall", "-Werror"])
        .arg(&source)
        .arg("-o")
        .arg(&program);
    cpp.arg("-I")
        .arg(package().join("include"))
        .arg("-L")
        .arg(lib)
        .arg("-lhttpstream");
    assert_success(&mut cpp);
    let told = assert_success(Command::new(program).env("LD_LIBRARY_PATH", lib));
    assert_eq!(
        told.stdout,
        concat!(env!("CARGO_PKG_VERSION"), "\n").as_bytes()
    );
}

/// The first block of C in the README.
fn readme_program() -> String {
    let readme = std::fs::read_to_string(package().join("README.md")).unwrap();
    let program = readme
        .split("```c\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    program.expect("the README has a program").to_owned()
}

/// Installs into a directory of its own; the source of the README's program lies beside.
fn install(dir: &Path) -> (PathBuf, PathBuf) {
    let prefix = dir.join("prefix");
    let _ = std::fs::remove_dir_all(&prefix);
    let built = library().archive.parent().unwrap();
    let mut install = Command::new("sh");
    install
        .arg(package().join("install.sh"))
        .arg(&prefix)
        .arg("--release")
        .arg(built);
    assert_success(&mut install);
    let source = dir.join("get.c");
    std::fs::write(&source, readme_program()).unwrap();
    (prefix, source)
}

/// What pkg-config says of the installed library.
fn pkg_config(prefix: &Path, options: &[&str]) -> Vec<String> {
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let told = assert_success(pkg_config.args(options).arg("httpstream"));
    let told = String::from_utf8(told.stdout).unwrap();
    told.split_whitespace().map(str::to_owned).collect()
}

/// Runs the README's program against a server.
fn fetch(program: &Path, prefix: &Path) -> Output {
    let server = Server::answering(ok("a page"));
    let mut command = Command::new(program);
    command
        .arg(server.url("/"))
        .env("LD_LIBRARY_PATH", prefix.join("lib"));
    assert_success(&mut command)
}

const FETCHED: &str = "200, 6 bytes: a page\n200, 6 bytes: a page\n200, 6 bytes: a page\n";

#[test]
fn the_readmes_program_builds_on_the_installed_library_and_runs() {
    if !there_is("pkg-config") {
        return;
    }
    let dir = scratch("installed");
    let (prefix, source) = install(&dir);
    let builds: [(&str, &[&str], &[&str]); 3] = [
        ("dynamic", &[], &["--cflags", "--libs"]),
        // The shared library all the same, and what the archive would need beside it.
        (
            "with-private-libraries",
            &[],
            &["--static", "--cflags", "--libs"],
        ),
        ("static", &["-static"], &["--static", "--cflags", "--libs"]),
    ];
    for (name, options, asked) in builds {
        let program = dir.join(name);
        let mut cc = Command::new("cc");
        cc.args(STRICT)
            .args(options)
            .arg(&source)
            .arg("-o")
            .arg(&program);
        assert_success(cc.args(pkg_config(&prefix, asked)));
        let fetched = fetch(&program, &prefix);
        assert_eq!(String::from_utf8_lossy(&fetched.stdout), FETCHED, "{name}");
    }
    let version = pkg_config(&prefix, &["--modversion"]);
    assert_eq!(version, [env!("CARGO_PKG_VERSION")]);
    // A program asks for the soname, which outlives versions.
    std::fs::remove_file(prefix.join("lib/libhttpstream.so")).unwrap();
    fetch(&dir.join("dynamic"), &prefix);
}

#[test]
fn a_program_says_what_is_wrong_with_its_url() {
    if !there_is("pkg-config") {
        return;
    }
    let dir = scratch("complaining");
    let (prefix, source) = install(&dir);
    let program = dir.join("get");
    let mut cc = Command::new("cc");
    cc.args(STRICT).arg(&source).arg("-o").arg(&program);
    assert_success(cc.args(pkg_config(&prefix, &["--cflags", "--libs"])));
    let mut get = Command::new(program);
    get.env("LD_LIBRARY_PATH", prefix.join("lib"))
        .arg("http://exa mple.com/");
    let told = get.output().unwrap();
    assert_eq!(told.status.code(), Some(2));
    let words = String::from_utf8_lossy(&told.stderr);
    assert!(
        words.starts_with("httpstream_request_new: url: byte 10"),
        "{words}"
    );
}

#[test]
fn every_function_and_every_error_is_in_some_program() {
    let header = std::fs::read_to_string(package().join("include/httpstream.h")).unwrap();
    let programs: String = std::fs::read_dir(package().join("tests/c"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let mut functions = 0;
    for line in header.lines().filter(|line| !line.starts_with("//")) {
        if let Some(name) = line
            .strip_prefix("#define ")
            .and_then(|line| line.split(' ').next())
        {
            let of_calls = name.starts_with("HTTPSTREAM_ERROR_");
            assert!(
                !of_calls || programs.contains(name),
                "{name} is in no program"
            );
        } else if line.starts_with(|first: char| first.is_ascii_alphabetic())
            && let Some((before, _)) = line.split_once('(')
            && let Some(name) = before.split([' ', '*']).next_back()
            && name.starts_with("httpstream_")
        {
            let is_called = programs.contains(&format!("{name}("));
            assert!(is_called, "{name} is in no program");
            functions += 1;
        }
    }
    assert!(functions > 40, "{functions} functions: is this the header?");
}
