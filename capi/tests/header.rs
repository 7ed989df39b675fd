//! Checks that the header in the repository is the one generated from the source.

use std::fs;
use std::path::Path;

const REFRESH: &str = "HTTPSTREAM_WRITE_HEADER";

#[test]
fn the_header_is_what_the_source_makes() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = package.join("include/httpstream.h");
    let config = cbindgen::Config::from_root_or_default(package);
    let mut made = Vec::new();
    cbindgen::generate_with_config(package, config)
        .expect("cbindgen cannot parse the source")
        .write(&mut made);
    let made = in_parentheses(&String::from_utf8(made).unwrap());
    if std::env::var_os(REFRESH).is_some() {
        fs::write(&place, &made).unwrap();
    }
    let kept = fs::read_to_string(&place).unwrap_or_default();
    let differs = kept
        .lines()
        .zip(made.lines())
        .find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "include/httpstream.h is out of date, first at {differs:?}; regenerate it: {REFRESH}=1 cargo test -p httpstream-capi --test header"
    );
}

/// Puts negative numbers into parentheses, as is customary in macros; cbindgen does not.
fn in_parentheses(header: &str) -> String {
    let line = |line: &str| match line.rsplit_once(" -") {
        Some((define, number)) if define.starts_with("#define ") => {
            format!("{define} (-{number})\n")
        }
        _ => format!("{line}\n"),
    };
    header.lines().map(line).collect()
}
