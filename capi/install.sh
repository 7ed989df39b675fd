#!/bin/sh
# Installs header, libraries and pkg-config file: capi/install.sh PREFIX [--release DIR]
#
# DIR is where cargo has put libhttpstream.a, such as target/release; without it cargo builds it first. The shared library is linked anew
# from the archive: so it gets a soname that follows HTTPSTREAM_ABI_VERSION, which cargo has no place for. For Linux.
set -eu

usage() {
    echo 'usage: install.sh PREFIX [--release DIR]' >&2
    exit 2
}

[ $# -eq 1 ] || [ $# -eq 3 ] || usage
case $1 in -*) usage ;; esac
prefix=$1
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -eq 3 ]; then
    [ "$2" = --release ] || usage
    built=$3
else
    cargo build --release --manifest-path "$here/Cargo.toml"
    built=${CARGO_TARGET_DIR:-$here/../target}/release
fi
archive=$built/libhttpstream.a
[ -f "$archive" ] || { echo "install.sh: no $archive: build it, or say where it is" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
abi=$(sed -n 's/^#define HTTPSTREAM_ABI_VERSION //p' "$here/include/httpstream.h")
native=$(sh "$here/native-libs.sh")
[ -n "$version" ] && [ -n "$abi" ] && [ -n "$native" ] || { echo "install.sh: no version, or no libraries to link with" >&2; exit 1; }

mkdir -p "$prefix/include" "$prefix/lib/pkgconfig"
prefix=$(cd "$prefix" && pwd)
lib=$prefix/lib
cp "$here/include/httpstream.h" "$prefix/include/"
cp "$archive" "$lib/"

# Of the archive everything, but what nothing of ours leads to falls away, since nothing else is seen from outside.
script=$(mktemp)
trap 'rm -f "$script"' EXIT
echo '{ global: httpstream_*; local: *; };' >"$script"
# shellcheck disable=SC2086 # a list of options
"${CC:-cc}" -shared -o "$lib/libhttpstream.so.$version" -Wl,-soname,"libhttpstream.so.$abi" \
    -Wl,--version-script="$script" -Wl,--gc-sections -Wl,--no-undefined -Wl,-z,relro,-z,now \
    -Wl,--whole-archive "$archive" -Wl,--no-whole-archive $native
ln -sf "libhttpstream.so.$version" "$lib/libhttpstream.so.$abi"
ln -sf "libhttpstream.so.$abi" "$lib/libhttpstream.so"

# Compilers bring their libgcc themselves, and of the right kind: of a static one there is no -lgcc_s.
private=$(echo "$native" | sed 's/-lgcc_s *//')
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" -e "s|@NATIVE_LIBS@|$private|" \
    "$here/httpstream.pc.in" >"$lib/pkgconfig/httpstream.pc"
