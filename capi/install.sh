#!/bin/sh
# Installs the header, both libraries, the pkg-config file and suppressions for valgrind (Linux).
#
# The shared library is linked from the archive here, because cargo cannot set its soname (which
# follows HTTPSTREAM_ABI_VERSION). Debug information is removed unless --debug is given.
set -eu

usage() {
    cat <<'END'
usage: install.sh [PREFIX] [OPTIONS]

  PREFIX, --prefix DIR   where to install; default: /usr/local
  --libdir DIR           libraries and pkgconfig/, absolute or below PREFIX; default: lib
  --includedir DIR       httpstream.h, absolute or below PREFIX; default: include
  --destdir DIR          stage everything below DIR, for packagers; default: $DESTDIR
  --release DIR          directory with libhttpstream.a; default: build it first
  --debug                keep debug information (31 MB instead of 5 MB)
  --uninstall            remove the files of an install with the same options

CC, STRIP and RUSTC name the tools to use.
END
}

refuse() {
    echo "install.sh: $1" >&2
    exit 2
}

prefix=
libdir=lib
includedir=include
destdir=${DESTDIR:-}
built=
debug=no
action=install
while [ $# -gt 0 ]; do
    case $1 in
    --prefix=* | --libdir=* | --includedir=* | --destdir=* | --release=*)
        option=${1%%=*} value=${1#*=}
        ;;
    --prefix | --libdir | --includedir | --destdir | --release)
        [ $# -ge 2 ] || refuse "$1 needs a directory"
        option=$1 value=$2
        shift
        ;;
    --debug | --uninstall | --help | -h) option=$1 value= ;;
    -*) refuse "there is no option $1 (see --help)" ;;
    *)
        [ -z "$prefix" ] || refuse "two prefixes, $prefix and $1"
        option=--prefix value=$1
        ;;
    esac
    shift
    case $option in
    --debug) debug=yes ;;
    --uninstall) action=uninstall ;;
    --help | -h)
        usage
        exit
        ;;
    *) [ -n "$value" ] || [ "$option" = --destdir ] || refuse "$option is empty" ;;
    esac
    case $option in
    --prefix) prefix=$value ;;
    --libdir) libdir=$value ;;
    --includedir) includedir=$value ;;
    --destdir) destdir=$value ;;
    --release) built=$value ;;
    esac
done

absolute() {
    case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s/%s\n' "$2" "$1" ;;
    esac
}

prefix=$(absolute "${prefix:-/usr/local}" "$PWD")
# "/usr/" and "/usr" are the same prefix, and "/" becomes "".
prefix=${prefix%/}
libdir=$(absolute "$libdir" "$prefix")
includedir=$(absolute "$includedir" "$prefix")
[ -z "$destdir" ] || destdir=$(absolute "$destdir" "$PWD")

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
abi=$(sed -n 's/^#define HTTPSTREAM_ABI_VERSION //p' "$here/include/httpstream.h")
[ -n "$version" ] && [ -n "$abi" ] || refuse "cannot find the version in $here"

lib=$destdir$libdir
include=$destdir$includedir
share=$destdir$prefix/share/httpstream

if [ "$action" = uninstall ]; then
    rm -f "$include/httpstream.h" "$lib/libhttpstream.a" "$lib/libhttpstream.so" \
        "$lib/libhttpstream.so.$abi" "$lib/libhttpstream.so.$version" "$lib/pkgconfig/httpstream.pc" \
        "$share/httpstream.supp"
    [ ! -d "$share" ] || rmdir "$share"
    exit
fi

if [ -z "$built" ]; then
    cargo build --release --locked --manifest-path "$here/Cargo.toml"
    built=${CARGO_TARGET_DIR:-$here/../target}/release
fi
archive=$built/libhttpstream.a
[ -f "$archive" ] || {
    echo "install.sh: there is no $archive; build it with: cargo build --release -p httpstream-capi" >&2
    exit 1
}
native=$(sh "$here/native-libs.sh")
[ -n "$native" ] || {
    echo "install.sh: rustc does not report which libraries to link with" >&2
    exit 1
}

# Everything is built here first, so that a failure leaves the installed files unchanged.
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

cp "$archive" "$made/libhttpstream.a"
strip_debug=
if [ "$debug" = no ]; then
    "${STRIP:-strip}" --strip-debug "$made/libhttpstream.a"
    # Function names are kept, because backtraces and httpstream.supp need them.
    strip_debug=-Wl,--strip-debug
fi

# The whole archive is linked. Code that no exported function reaches is then dropped.
echo '{ global: httpstream_*; local: *; };' >"$made/exports"
# shellcheck disable=SC2086 # a list of options
"${CC:-cc}" -shared -o "$made/libhttpstream.so" -Wl,-soname,"libhttpstream.so.$abi" \
    -Wl,--version-script="$made/exports" -Wl,--gc-sections -Wl,--no-undefined -Wl,-z,relro,-z,now \
    $strip_debug -Wl,--whole-archive "$archive" -Wl,--no-whole-archive $native

# In the pkg-config file, paths below the prefix refer to the prefix, and spaces are escaped. The
# file does not mention DESTDIR, which no longer exists when the file is read.
below_prefix() {
    case $1 in
    "$prefix"/*) printf '${prefix}%s\n' "${1#"$prefix"}" ;;
    *) printf '%s\n' "$1" ;;
    esac
}
for_pc() {
    printf '%s\n' "$1" | sed -e 's/ /\\ /g' -e 's/[\\|&]/\\&/g'
}
# Compilers add the right libgcc themselves; a static program cannot use -lgcc_s.
private=$(echo "$native" | sed 's/-lgcc_s *//')
sed -e "s|@PREFIX@|$(for_pc "$prefix")|" \
    -e "s|@INCLUDEDIR@|$(for_pc "$(below_prefix "$includedir")")|" \
    -e "s|@LIBDIR@|$(for_pc "$(below_prefix "$libdir")")|" \
    -e "s|@VERSION@|$version|" -e "s|@NATIVE_LIBS@|$private|" \
    "$here/httpstream.pc.in" >"$made/httpstream.pc"

# install(1) replaces the old file with a new one, so running programs keep theirs.
install -d "$include" "$lib" "$lib/pkgconfig" "$share"
install -m 644 "$here/include/httpstream.h" "$include/"
install -m 644 "$made/libhttpstream.a" "$lib/"
install -m 755 "$made/libhttpstream.so" "$lib/libhttpstream.so.$version"
ln -sf "libhttpstream.so.$version" "$lib/libhttpstream.so.$abi"
ln -sf "libhttpstream.so.$abi" "$lib/libhttpstream.so"
install -m 644 "$made/httpstream.pc" "$lib/pkgconfig/"
install -m 644 "$here/httpstream.supp" "$share/"
