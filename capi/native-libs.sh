#!/bin/sh
# What a program has to be linked with beside libhttpstream.a: what Rust's standard library stands on, as rustc tells it. No dependency adds to it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
: >"$dir/empty.rs"
"${RUSTC:-rustc}" --crate-type staticlib --print native-static-libs --out-dir "$dir" "$dir/empty.rs" 2>&1 |
    sed -n 's/^note: native-static-libs: //p'
