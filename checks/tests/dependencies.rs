//! The crate depends on few others: its direct dependencies, and what these need.
//!
//! A new name here is a decision (see CONTRIBUTING.md), not an accident of a version update.

use std::collections::BTreeSet;

/// The dependencies in `Cargo.toml`, without optional and dev-dependencies.
const DIRECT: &[&str] = &[
    "http", "httparse", "httpdate", "log", "mio", "slab", "socket2",
];

/// Their dependencies, on every platform.
const INDIRECT: &[&str] = &["bytes", "itoa"];

/// What the feature `tls` adds on every platform.
const TLS: &[&str] = &[
    "cfg-if",
    "getrandom",
    "once_cell",
    "ring",
    "rustls",
    "rustls-pki-types",
    "rustls-webpki",
    "subtle",
    "untrusted",
    "zeroize",
];

/// What the feature `cookies` adds: the list of public suffixes.
const COOKIES: &[&str] = &["psl", "psl-types"];

/// What the feature `digest` adds.
const DIGEST: &[&str] = &[
    "block-buffer",
    "cfg-if",
    "cpufeatures",
    "crypto-common",
    "digest",
    "hybrid-array",
    "md-5",
    "sha2",
    "typenum",
];

/// What the feature `gzip` adds.
const GZIP: &[&str] = &["flate2", "zlib-rs"];

/// What the feature `brotli` adds.
const BROTLI: &[&str] = &["alloc-no-stdlib", "brotli-decompressor"];

/// What the feature `zstd` adds, for checksums.
const ZSTD: &[&str] = &["twox-hash"];

/// What the feature `json` adds.
const JSON: &[&str] = &["memchr", "serde", "serde_core", "serde_json", "zmij"];

/// What the feature `websocket` adds: the SHA-1 of the handshake.
///
/// Frames are read and written by the crate. tungstenite has sixteen dependencies without its
/// handshake, draws the masks itself, so that a simulation could not repeat a run, and copies what
/// it reads into a buffer of each connection.
const WEBSOCKET: &[&str] = &[
    "block-buffer",
    "cfg-if",
    "cpufeatures",
    "crypto-common",
    "digest",
    "hybrid-array",
    "sha1",
    "typenum",
];

/// What the feature `timerfd` adds, on Linux.
#[cfg(target_os = "linux")]
const TIMERFD: &[&str] = &["bitflags", "linux-raw-sys", "rustix"];

/// What the feature `calloop` adds: the crate itself, and what a program that uses calloop has
/// anyway.
const CALLOOP: &[&str] = &[
    "bitflags",
    "calloop",
    "cfg-if",
    "linux-raw-sys",
    "pin-project-lite",
    "polling",
    "rustix",
    "tracing",
    "tracing-core",
];

/// What the feature `tokio` adds.
const TOKIO: &[&str] = &["pin-project-lite", "tokio"];

/// What the feature `hickory` adds. The list is long because of two parts of hickory that cannot be
/// left out: names that are not ASCII (from `idna` down, some thirty crates), which the host of a
/// URL never is, and its cache (`moka`), which is switched off.
const HICKORY: &[&str] = &[
    "async-trait",
    "cfg-if",
    "chacha20",
    "cpufeatures",
    "critical-section",
    "crossbeam-channel",
    "crossbeam-epoch",
    "crossbeam-utils",
    "data-encoding",
    "displaydoc",
    "either",
    "equivalent",
    "form_urlencoded",
    "futures-channel",
    "futures-core",
    "futures-io",
    "futures-macro",
    "futures-task",
    "futures-util",
    "getrandom",
    "hickory-net",
    "hickory-proto",
    "hickory-resolver",
    "icu_collections",
    "icu_locale_core",
    "icu_normalizer",
    "icu_normalizer_data",
    "icu_properties",
    "icu_properties_data",
    "icu_provider",
    "idna",
    "idna_adapter",
    "ipnet",
    "litemap",
    "lock_api",
    "moka",
    "num-traits",
    "once_cell",
    "parking_lot",
    "parking_lot_core",
    "percent-encoding",
    "pin-project-lite",
    "portable-atomic",
    "potential_utf",
    "prefix-trie",
    "proc-macro2",
    "quote",
    "rand",
    "rand_core",
    "scopeguard",
    "serde",
    "serde_core",
    "serde_derive",
    "smallvec",
    "stable_deref_trait",
    "syn",
    "synstructure",
    "tagptr",
    "thiserror",
    "thiserror-impl",
    "tinystr",
    "tinyvec",
    "tracing",
    "tracing-core",
    "unicode-ident",
    "url",
    "utf8_iter",
    "utf_types",
    "uuid",
    "writeable",
    "yoke",
    "yoke-derive",
    "zerofrom",
    "zerofrom-derive",
    "zerotrie",
    "zerovec",
    "zerovec-derive",
];

/// Crates that find the platform's root certificates, each on some platforms only, and further
/// bindings to the operating system that they use.
const TLS_SYSTEM: &[&str] = &[
    "openssl-probe",
    "rustls-native-certs",
    "schannel",
    "security-framework",
];

/// Bindings to the operating system, each on some platforms only.
const SYSTEM: &[&str] = &["libc", "wasi", "windows-link", "windows-sys"];

fn expected() -> BTreeSet<&'static str> {
    [DIRECT, INDIRECT].concat().into_iter().collect()
}

/// Returns the crates that `cargo tree` lists for this platform, without the root.
fn tree(args: &[&str]) -> BTreeSet<String> {
    let output = checks::cargo()
        .args(["tree", "--locked", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(args)
        .output()
        .expect("cargo can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {complaint}");
    names(&String::from_utf8_lossy(&output.stdout))
        .filter(|name| name != "httpstream")
        .collect()
}

/// Returns the first word of each non-empty line.
fn names(lines: &str) -> impl Iterator<Item = String> {
    lines
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
}

/// Checks that with `args` the crate depends on the core's crates and `more`, and on nothing else.
fn check(args: &[&str], more: &[&str]) {
    let mut found = tree(args);
    found.retain(|name| ![SYSTEM, TLS_SYSTEM].concat().contains(&name.as_str()));
    let mut expected = expected();
    expected.extend(more);
    assert!(
        found.iter().map(String::as_str).eq(expected),
        "{args:?} depends on {found:?}"
    );
}

#[test]
fn the_crate_depends_on_nothing_unexpected() {
    check(&["--no-default-features"], &[]);
    check(&["--no-default-features", "--features", "tls"], TLS);
    check(
        &["--no-default-features", "--features", "webpki-roots"],
        &[TLS, &["webpki-roots"]].concat(),
    );
    check(&["--no-default-features", "--features", "hickory"], HICKORY);
    check(&[], &[HICKORY, TLS].concat());
    check(&["--no-default-features", "--features", "calloop"], CALLOOP);
    check(&["--no-default-features", "--features", "tokio"], TOKIO);
    check(&["--no-default-features", "--features", "cookies"], COOKIES);
    check(&["--no-default-features", "--features", "digest"], DIGEST);
    check(&["--no-default-features", "--features", "gzip"], GZIP);
    check(&["--no-default-features", "--features", "brotli"], BROTLI);
    check(&["--no-default-features", "--features", "zstd"], ZSTD);
    check(&["--no-default-features", "--features", "json"], JSON);
    check(
        &["--no-default-features", "--features", "websocket"],
        WEBSOCKET,
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_timer_in_the_poll_takes_rustix() {
    check(&["--no-default-features", "--features", "timerfd"], TIMERFD);
}

#[test]
fn the_core_has_at_most_twelve_crates() {
    let found = tree(&["--no-default-features"]);
    assert!(found.len() <= 12, "{found:?}");
}

#[test]
fn no_default_feature_brings_a_runtime_along() {
    for runtime in ["async-std", "smol", "tokio"] {
        assert!(!tree(&[]).contains(runtime));
    }
}

#[test]
fn the_direct_dependencies_are_seven() {
    let found = tree(&["--no-default-features", "--depth", "1"]);
    assert!(
        found.iter().map(String::as_str).eq(DIRECT.iter().copied()),
        "{found:?}"
    );
}

#[test]
fn the_simulation_depends_on_nothing_more() {
    let with = tree(&["--no-default-features", "--features", "sim"]);
    assert_eq!(with, tree(&["--no-default-features"]));
}

/// Other platforms' crates are not installed here, but `Cargo.lock` lists all of them.
#[test]
fn no_platform_brings_a_runtime_along() {
    let found = locked(DIRECT);
    let mut allowed = expected();
    allowed.extend(SYSTEM);
    assert!(
        found.iter().map(String::as_str).eq(allowed),
        "Cargo.lock has {found:?}"
    );
}

/// In hickory, most features depend on tokio.
#[test]
fn no_platform_brings_a_runtime_along_with_hickory() {
    let found = locked(&["hickory-resolver"]);
    assert!(
        found.contains("ipconfig"),
        "the crates of other platforms are missing: {found:?}"
    );
    for runtime in ["async-std", "smol", "tokio"] {
        assert!(!found.contains(runtime), "{found:?}");
    }
}

/// Returns the crates that `Cargo.lock` lists below `roots`, including these.
fn locked(roots: &[&str]) -> BTreeSet<String> {
    let path = checks::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(path).expect("Cargo.lock is part of the repository");
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = roots.iter().map(|&name| name.to_owned()).collect();
    while let Some(package) = open.pop() {
        if seen.insert(package.clone()) {
            open.extend(locked_dependencies(&lock, &package));
        }
    }
    seen.iter().flat_map(|package| names(package)).collect()
}

/// Returns the contents of a locked package's `dependencies = [..]`: names, with their version if
/// there are several.
fn locked_dependencies(lock: &str, package: &str) -> Vec<String> {
    let (name, version) = package.split_once(' ').unwrap_or((package, ""));
    let is_named = |line: &str| line == format!("name = \"{name}\"");
    let is_versioned = |line: &str| line == format!("version = \"{version}\"");
    lock.split("[[package]]")
        .filter(|package| package.lines().any(is_named))
        .filter(|package| version.is_empty() || package.lines().any(is_versioned))
        .filter_map(|package| package.split_once("dependencies = [")?.1.split_once(']'))
        .flat_map(|(list, _)| list.lines())
        .map(|line| line.trim_matches([' ', '"', ',']).to_owned())
        .filter(|dependency| !dependency.is_empty())
        .collect()
}
