#!/bin/sh
# What a program has to be linked with beside libhttpstream.a: what Rust's standard library stands on, as rustc tells it. No dependency adds to it.
set -eu
command -v "${RUSTC:-rustc}" >/dev/null || {
    echo "native-libs.sh: no ${RUSTC:-rustc}, which knows what to link with: put it on the path, or into RUSTC" >&2
    exit 1
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
: >"$dir/empty.rs"
"${RUSTC:-rustc}" --crate-type staticlib --print native-static-libs --out-dir "$dir" "$dir/empty.rs" 2>&1 |
    sed -n 's/^note: native-static-libs: //p'
