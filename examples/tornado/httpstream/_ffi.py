"""The C interface of httpstream through ctypes: finding the library, its functions and its
structs.

The rule: other modules see nothing of ctypes but `Library`, the structs and the callback types.
This module makes no decisions.

Every function is called with the GIL held (`PyDLL`, not `CDLL`). None of them blocks: a turn takes
what the kernel has ready, calls Python for each response, and returns. If the GIL were released
during a turn, each callback would have to compete for it with all other threads, which takes up to
one switch interval (5 ms) each time.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
import sys
from ctypes import (
    POINTER,
    c_bool,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List

from .errors import Forked, InvalidRequest, LibraryNotFound, StreamError, WrongThread

#: The version of the interface that the structs below belong to.
ABI_VERSION = 1

OK = 0
ERROR_NULL = -2
ERROR_HANDLE = -3
ERROR_THREAD = -4
ERROR_FORKED = -5
ERROR_BUSY = -6
ERROR_ARGUMENT = -7
ERROR_IO = -8
ERROR_CALLBACK = -9
ERROR_PANIC = -10

DONE = 0
AGAIN = 1
SEND = 2

#: A duration in milliseconds that means "none" or "never".
NEVER = 2**64 - 1


class Turned(ctypes.Structure):
    _fields_ = [
        ("events", c_uint64),
        ("answered", c_uint64),
        ("more", c_bool),
        ("stopped", c_bool),
    ]


class Stats(ctypes.Structure):
    _fields_ = [("size", c_size_t)] + [
        (name, c_uint64)
        for name in (
            "links_open links_idle links_dialing in_flight queued delayed paused opened reused "
            "submitted answered failed retried bytes_in bytes_out turns wakeups"
        ).split()
    ]


class View(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("kind", c_int32),
        ("status", c_int32),
        ("body", c_void_p),
        ("body_len", c_size_t),
        ("id", c_uint64),
        ("phase", c_int32),
        ("request_sent", c_int32),
        ("resend_is_safe", c_int32),
        ("attempts", c_int32),
        ("reused", c_int32),
        ("minor", c_int32),
        ("reason", c_char_p),
        ("reason_len", c_size_t),
        ("header_count", c_size_t),
        ("trailer_count", c_size_t),
        ("elapsed_us", c_uint64),
        ("method", c_char_p),
        ("method_len", c_size_t),
        ("peer_address", c_uint8 * 16),
        ("peer_address_len", c_uint32),
        ("peer_port", c_uint32),
        ("resolve_us", c_uint64),
        ("connect_us", c_uint64),
        ("tls_us", c_uint64),
        ("sent_us", c_uint64),
        ("first_byte_us", c_uint64),
        ("done_us", c_uint64),
    ]


#: Unpacks kind, status, body, body_len and elapsed_us from a `View`.
unpack_view = struct.Struct("@8xiiPN64xQ").unpack_from
assert (View.kind.offset, View.body.offset, View.elapsed_us.offset) == (8, 16, 96)

#: Unpacks the rarely used members of a `View` on demand: attempts, reused; the peer's address, its
#: length and port; the times of lookup, connection, TLS handshake, sent request and first byte.
unpack_facts = struct.Struct("=ii60x16sII5Q").unpack_from
assert (View.attempts.offset, View.peer_address.offset) == (52, 120)
assert (View.resolve_us.offset, View.first_byte_us.offset) == (144, 176)


def facts_of(octets: memoryview) -> bytes:
    """Returns the part of a view's bytes that `unpack_facts` unpacks."""
    return octets[52:184].tobytes()


class Next(ctypes.Structure):
    _fields_ = [
        ("action", c_int32),
        ("frees_request", c_bool),
        ("request", c_uint64),
        ("delay_ms", c_uint64),
        ("readback", c_void_p),
    ]


#: Parameters: user, reply, address of a `Next`. `user` is a number here: the key of a chain.
OnReply = ctypes.CFUNCTYPE(None, c_size_t, c_uint64, c_size_t)
#: Parameter: user.
Release = ctypes.CFUNCTYPE(None, c_size_t)


class Readback(ctypes.Structure):
    _fields_ = [
        ("on_reply", OnReply),
        ("on_head", c_void_p),
        ("on_data", c_void_p),
        ("release", Release),
        ("user", c_size_t),
    ]


# Structs are written and read as arrays of words, or unpacked in one call, which takes a third of
# the time of ctypes' attributes. The words of Next are: action (with frees_request in the other
# half of the word), request, delay_ms, readback.
assert Next.request.offset == 8 and Next.delay_ms.offset == 16 and ctypes.sizeof(Next) == 32
AGAIN_WORD, SEND_WORD = (
    int.from_bytes(struct.pack("@iI", action, 0), sys.byteorder) for action in (AGAIN, SEND)
)


_next_words: Dict[int, memoryview] = {}
_NextBytes = ctypes.c_char * ctypes.sizeof(Next)


def next_words(address: int) -> memoryview:
    """Returns the `Next` at `address` as an array of words, to be written before the callback
    returns.

    It is on the library's stack, nearly always at the same address. The arrays are therefore
    cached; they contain nothing but an address.
    """
    words = _next_words.get(address)
    if words is None:
        if len(_next_words) >= 64:
            _next_words.clear()
        words = _next_words[address] = (
            memoryview(_NextBytes.from_address(address)).cast("B").cast("Q")
        )
    return words


#: Copies the bytes at an address.
bytes_at = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)


def octets_of(value: ctypes.Structure) -> memoryview:
    """Returns a struct's bytes, writable. They keep the struct alive."""
    return memoryview((ctypes.c_char * ctypes.sizeof(value)).from_buffer(value)).cast("B")


def words_of(value: ctypes.Structure) -> memoryview:
    """Returns a struct as an array of 64-bit words."""
    return octets_of(value).cast("Q")


_P = POINTER
_FUNCTIONS: Any = {
    "last_error": (c_char_p,),
    "error_name": (c_char_p, c_int32),
    "version": (c_char_p,),
    "config_new": (c_int32, _P(c_uint64)),
    "config_free": (c_int32, c_uint64),
    "config_set": (c_int32, c_uint64, c_char_p, c_uint64),
    "config_user_agent": (c_int32, c_uint64, c_char_p, c_size_t),
    "config_header": (c_int32, c_uint64, c_char_p, c_size_t, c_char_p, c_size_t),
    "config_resolve_to": (c_int32, c_uint64, c_char_p, c_char_p),
    "config_ca_file": (c_int32, c_uint64, c_char_p),
    "new": (c_int32, c_uint64, _P(c_uint64)),
    "free": (c_int32, c_uint64),
    "fd": (c_int32, c_uint64),
    "timeout_ms": (c_int32, c_uint64),
    "turn": (c_int32, c_uint64, c_uint32, c_void_p),
    "wakeup": (c_int32, c_uint64),
    "close_idle": (c_int32, c_uint64),
    "network_changed": (c_int32, c_uint64),
    "pending": (c_int64, c_uint64),
    "get_stats": (c_int32, c_uint64, _P(Stats)),
    "request_new": (c_int32, c_char_p, c_size_t, c_char_p, c_size_t, _P(c_uint64)),
    "request_free": (c_int32, c_uint64),
    "request_header": (c_int32, c_uint64, c_char_p, c_size_t, c_char_p, c_size_t),
    "request_body": (c_int32, c_uint64, c_char_p, c_size_t),
    "request_timeout_ms": (c_int32, c_uint64, c_uint64),
    "request_long_poll_ms": (c_int32, c_uint64, c_uint64),
    "request_option": (c_int32, c_uint64, c_char_p, c_uint64),
    # Engine, request, delay, readback, place for the id. The last two are addresses, so nothing is
    # converted.
    "submit": (c_int32, c_uint64, c_uint64, c_uint64, c_void_p, c_void_p),
    "cancel": (c_int32, c_uint64, c_uint64),
    # Reply, address of a `View`.
    "reply_view": (c_int32, c_uint64, c_void_p),
    # Reply, address of a buffer, its size.
    "reply_head": (c_size_t, c_uint64, c_void_p, c_size_t),
    "reply_message": (c_char_p, c_uint64),
    "phase_name": (c_char_p, c_int32),
}


class Library:
    """The loaded library, with its functions as attributes, without their prefix."""

    def __init__(self, path: str) -> None:
        """Loads `path`. Raises OSError if that fails, and LibraryNotFound if the library does not
        match this package.
        """
        self.path = path
        self._dll = ctypes.PyDLL(path)
        try:
            abi_version = self._dll.httpstream_abi_version
        except AttributeError:
            raise LibraryNotFound(
                f"{path} is not libhttpstream: it has no httpstream_abi_version"
            ) from None
        abi_version.argtypes, abi_version.restype = (), c_uint32
        if abi_version() != ABI_VERSION:
            raise LibraryNotFound(
                f"{path} has version {abi_version()} of the interface, this package needs "
                f"{ABI_VERSION}: build the library of the same checkout (cargo build --release "
                "-p httpstream-capi)"
            )
        for name, (restype, *argtypes) in _FUNCTIONS.items():
            try:
                function = getattr(self._dll, f"httpstream_{name}")
            except AttributeError:
                raise LibraryNotFound(
                    f"{path} has no httpstream_{name}: it is older than this package. Build the "
                    "library of the same checkout (cargo build --release -p httpstream-capi)"
                ) from None
            function.argtypes, function.restype = argtypes, restype
            setattr(self, name, function)

    if TYPE_CHECKING:  # the functions are set by name

        def __getattr__(self, name: str) -> Any: ...

    def words(self) -> str:
        """Returns the message of the last call that failed on this thread."""
        return self.last_error().decode("utf-8", "replace")

    def check(self, error: int) -> int:
        """Returns `error` if it is not negative. Otherwise raises the exception for it."""
        if error >= 0:
            return error
        raise self.exception(error)

    def exception(self, error: int) -> StreamError:
        words = self.words() or self.error_name(error).decode()
        if error == ERROR_ARGUMENT:
            return InvalidRequest(words)
        if error == ERROR_THREAD:
            return WrongThread(words)
        if error == ERROR_FORKED:
            return Forked(words)
        return StreamError(f"{self.error_name(error).decode()}: {words}")


def _file_name() -> str:
    if sys.platform == "darwin":
        return "libhttpstream.dylib"
    return "libhttpstream.so"


#: The name by which programs load the library, derived from the version of the interface.
_SONAME = f"libhttpstream.so.{ABI_VERSION}"


def candidates() -> Iterator[Path]:
    """Yields the files to try, in this order: the copy that ``pip install`` puts next to this
    module; cargo's output, release before debug, in $CARGO_TARGET_DIR and in the ``target`` of the
    repository that contains this file; and ``lib`` in this Python's prefix.
    """
    here = Path(__file__).resolve()
    yield here.parent / _file_name()
    targets: List[Path] = []
    if os.environ.get("CARGO_TARGET_DIR"):
        targets.append(Path(os.environ["CARGO_TARGET_DIR"]))
    for parent in here.parents:
        if (parent / "Cargo.lock").exists():
            targets.append(parent / "target")
    for target in targets:
        for profile in ("release", "debug"):
            yield target / profile / _file_name()
    yield Path(sys.prefix) / "lib" / _file_name()


def load() -> Library:
    """Loads the library: $HTTPSTREAM_LIBRARY and nothing else if that is set, otherwise the first
    of `candidates` that exists, otherwise the one that the system's loader finds.

    Raises LibraryNotFound, whose message says what was tried and what to do.
    """
    named = os.environ.get("HTTPSTREAM_LIBRARY")
    if named:
        # An explicitly named file has no fallback.
        try:
            return Library(named)
        except OSError as error:
            raise LibraryNotFound(
                f"HTTPSTREAM_LIBRARY is {named!r}, which cannot be loaded: {error}"
            ) from error
    looked = []
    for path in candidates():
        if path.exists():
            try:
                return Library(str(path))
            except OSError as error:
                looked.append(f"{path} ({error})")
        else:
            looked.append(f"{path} (no such file)")
    # The loader's own rules come first, since they include LD_LIBRARY_PATH.
    for name in (_SONAME, ctypes.util.find_library("httpstream")):
        if not name:
            looked.append("libhttpstream (not known to the system's linker)")
            continue
        try:
            return Library(name)
        except OSError:
            looked.append(f"{name} (not known to the system's loader)")
    raise LibraryNotFound(
        "libhttpstream was not found. Tried:\n  "
        + "\n  ".join(looked)
        + "\nBuild it in a checkout of httpstream (cargo build --release -p httpstream-capi) and "
        "install this package from there (pip install examples/tornado), install the library "
        "(capi/install.sh), or set HTTPSTREAM_LIBRARY to the path of libhttpstream.so."
    )


library = load()
