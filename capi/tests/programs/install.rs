//! Tests of the header, the installed library and the README's program, used as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::common::{Server, ok};
use super::library::{STRICT, assert_success, library, package, released_library, scratch};

/// Returns whether `tool` is installed, and prints a note if it is not.
fn there_is(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        println!("skipped: {tool} is not installed");
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

/// Returns the first block of C in the README.
fn readme_program() -> String {
    let readme = std::fs::read_to_string(package().join("README.md")).unwrap();
    let program = readme
        .split("```c\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    program.expect("the README has no program").to_owned()
}

/// Returns a command that runs install.sh with the library that is already built.
fn install_sh() -> Command {
    let mut install = Command::new("sh");
    install
        .env_remove("DESTDIR")
        .arg(package().join("install.sh"))
        .arg("--release")
        .arg(library().archive.parent().unwrap());
    install
}

/// Writes the README's program to `dir` and returns its path.
fn readme_source(dir: &Path) -> PathBuf {
    let source = dir.join("get.c");
    std::fs::write(&source, readme_program()).unwrap();
    source
}

/// Installs below `dir`; returns the prefix and the source of the README's program, which is next
/// to it.
fn install(dir: &Path) -> (PathBuf, PathBuf) {
    let prefix = dir.join("prefix");
    let _ = std::fs::remove_dir_all(&prefix);
    assert_success(install_sh().arg(&prefix));
    (prefix, readme_source(dir))
}

/// Returns all files and links below `dir`, sorted, with paths relative to it.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    let path = entry.path();
                    let path = path.strip_prefix(dir).unwrap();
                    found.push(path.to_str().unwrap().to_owned());
                }
            }
        }
    }
    found.sort();
    found
}

/// Returns what pkg-config prints for the installed library.
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
        // Links the shared library as well, and in addition the libraries that the archive would
        // need.
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
    // A program looks for the soname, which stays the same across versions.
    std::fs::remove_file(prefix.join("lib/libhttpstream.so")).unwrap();
    fetch(&dir.join("dynamic"), &prefix);
}

/// Installs as a packager does: below DESTDIR, with a distribution's libdir.
#[test]
fn a_staged_install_works_in_its_place_and_can_be_taken_back() {
    if !there_is("pkg-config") {
        return;
    }
    let dir = scratch("packaged");
    let (stage, prefix) = (dir.join("stage"), dir.join("in its place"));
    for old in [&stage, &prefix] {
        let _ = std::fs::remove_dir_all(old);
    }
    let staged = stage.join(prefix.strip_prefix("/").unwrap());
    let install = |option: Option<&str>| {
        let mut install = install_sh();
        install.env("DESTDIR", &stage).arg("--prefix").arg(&prefix);
        install.args(["--libdir=lib/some-linux", "--includedir=include/here"]);
        assert_success(install.args(option));
    };
    let version = env!("CARGO_PKG_VERSION");
    let installed = [
        "include/here/httpstream.h",
        "lib/some-linux/libhttpstream.a",
        "lib/some-linux/libhttpstream.so",
        &format!("lib/some-linux/libhttpstream.so.{version}"),
        "lib/some-linux/libhttpstream.so.1",
        "lib/some-linux/pkgconfig/httpstream.pc",
        "share/httpstream/httpstream.supp",
    ];
    install(None);
    assert_eq!(files(&staged), installed);
    install(None);
    assert_eq!(files(&staged), installed, "the second install");
    assert_eq!(
        files(&stage).len(),
        installed.len(),
        "something was installed elsewhere"
    );
    assert!(!prefix.exists());

    let told = std::fs::read_to_string(staged.join("lib/some-linux/pkgconfig/httpstream.pc"));
    let told = told.unwrap();
    assert!(!told.contains("stage"), "{told}");
    assert!(told.contains("libdir=${prefix}/lib/some-linux\n"), "{told}");

    // The package is unpacked at its destination.
    std::fs::rename(&staged, &prefix).unwrap();
    let source = readme_source(&dir);
    let program = dir.join("get");
    let lib = prefix.join("lib/some-linux");
    // The shell splits pkg-config's output, since there is a space in the path.
    let build = "eval \"set -- $(pkg-config --cflags --libs httpstream)\"; cc -o get get.c \"$@\"";
    let mut cc = Command::new("sh");
    cc.args(["-c", build]).current_dir(&dir);
    cc.env("PKG_CONFIG_PATH", lib.join("pkgconfig"));
    assert_success(&mut cc);
    assert!(source.exists());
    let server = Server::answering(ok("a page"));
    let mut get = Command::new(program);
    get.arg(server.url("/")).env("LD_LIBRARY_PATH", &lib);
    assert_eq!(
        String::from_utf8_lossy(&assert_success(&mut get).stdout),
        FETCHED
    );

    std::fs::create_dir_all(staged.parent().unwrap()).unwrap();
    std::fs::rename(&prefix, &staged).unwrap();
    std::fs::write(staged.join("lib/some-linux/libother.so"), "").unwrap();
    install(Some("--uninstall"));
    assert_eq!(
        files(&stage).len(),
        1,
        "a file of another package was removed"
    );
}

#[test]
fn an_install_that_cannot_be_is_refused_with_a_word() {
    let dir = scratch("refused");
    let rows: [(&[&str], &str); 5] = [
        (&["--libdr", "lib"], "there is no option --libdr"),
        (&["--libdir"], "--libdir needs a directory"),
        (&["--libdir="], "--libdir is empty"),
        (&["one", "two"], "two prefixes, one and two"),
        (
            &["one", "--release", "nowhere"],
            "there is no nowhere/libhttpstream.a",
        ),
    ];
    for (arguments, expected) in rows {
        let mut install = Command::new("sh");
        install.arg(package().join("install.sh")).args(arguments);
        let told = install.current_dir(&dir).output().unwrap();
        let words = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!told.status.success(), "{arguments:?}");
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
    assert_eq!(files(&dir), [""; 0]);
}

#[test]
fn what_is_installed_has_no_debugging_information() {
    let dir = scratch("small");
    let prefix = dir.join("prefix");
    let _ = std::fs::remove_dir_all(&prefix);
    let mut install = Command::new("sh");
    install
        .env_remove("DESTDIR")
        .arg(package().join("install.sh"));
    install.arg(&prefix).arg("--release");
    assert_success(install.arg(released_library().archive.parent().unwrap()));
    let size = |name| std::fs::metadata(prefix.join(name)).unwrap().len();
    // It has 5.4 MB, and 31 MB with debug information.
    let shared = size("lib/libhttpstream.so");
    assert!(shared < 8_000_000, "libhttpstream.so has {shared} bytes");
    // It has 34 MB, and 92 MB with debug information.
    let archive = size("lib/libhttpstream.a");
    assert!(archive < 50_000_000, "libhttpstream.a has {archive} bytes");
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
        words.starts_with("httpstream_request_new: URL: space at byte 10"),
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
                "no program uses {name}"
            );
        } else if line.starts_with(|first: char| first.is_ascii_alphabetic())
            && let Some((before, _)) = line.split_once('(')
            && let Some(name) = before.split([' ', '*']).next_back()
            && name.starts_with("httpstream_")
        {
            let is_called = programs.contains(&format!("{name}("));
            assert!(is_called, "no program calls {name}");
            functions += 1;
        }
    }
    assert!(functions > 40, "{functions} functions: is this the header?");
}
