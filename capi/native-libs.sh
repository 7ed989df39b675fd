#!/bin/sh
# Prints the libraries that a program must be linked with besides libhttpstream.a: those that Rust's
# standard library needs, as rustc reports them. No dependency needs more.
set -eu
command -v "${RUSTC:-rustc}" >/dev/null || {
    echo "native-libs.sh: ${RUSTC:-rustc} is needed and was not found: add it to PATH, or set RUSTC" >&2
    exit 1
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
: >"$dir/empty.rs"
"${RUSTC:-rustc}" --crate-type staticlib --print native-static-libs --out-dir "$dir" "$dir/empty.rs" 2>&1 |
    sed -n 's/^note: native-static-libs: //p'
