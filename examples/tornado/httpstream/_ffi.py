"""The C interface of httpstream, as ctypes sees it: where the library is, its functions, its
structs.

The rule: nothing of ctypes leaves this module but `Library`, the structs and the callback types.
It decides nothing.

Every function is called with the GIL held (`PyDLL`, not `CDLL`). None of them waits: a turn takes
what the kernel has and returns, and calls Python back for each answer. Were the GIL let go for a
turn, each answer would have to fight for it with all other threads, which costs up to a switch
interval (5 ms) apiece.
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
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional

from .errors import Forked, InvalidRequest, LibraryNotFound, StreamError, WrongThread

#: The version of the interface that the structs below are of.
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

#: A duration in ms: none, or never.
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
            "submitted answered failed retried bytes_in bytes_out turns wakeups system_calls"
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
    ]


#: Of a `View`: kind, status, body, body_len, elapsed_us.
unpack_view = struct.Struct("@8xiiPN64xQ").unpack_from
assert (View.kind.offset, View.body.offset, View.elapsed_us.offset) == (8, 16, 96)


class Next(ctypes.Structure):
    _fields_ = [
        ("action", c_int32),
        ("frees_request", c_bool),
        ("request", c_uint64),
        ("delay_ms", c_uint64),
        ("readback", c_void_p),
    ]


#: (user, reply, address of a `Next`). `user` is a number here: the key of a chain.
OnReply = ctypes.CFUNCTYPE(None, c_size_t, c_uint64, c_size_t)
#: (user)
Release = ctypes.CFUNCTYPE(None, c_size_t)


class Readback(ctypes.Structure):
    _fields_ = [
        ("on_reply", OnReply),
        ("on_head", c_void_p),
        ("on_data", c_void_p),
        ("release", Release),
        ("user", c_size_t),
    ]


# Structs are written and read as arrays of words, or unpacked whole: a third of what ctypes'
# attributes cost. Next: action (and frees_request, in the other half of the word), request,
# delay_ms, readback.
assert Next.request.offset == 8 and Next.delay_ms.offset == 16 and ctypes.sizeof(Next) == 32
AGAIN_WORD, SEND_WORD = (
    int.from_bytes(struct.pack("@iI", action, 0), sys.byteorder) for action in (AGAIN, SEND)
)


_next_words: Dict[int, memoryview] = {}
_NextBytes = ctypes.c_char * ctypes.sizeof(Next)


def next_words(address: int) -> memoryview:
    """The `Next` at `address` as an array of words, to be written before the callback returns.

    It lies on the library's stack, nearly always at the same place, so the arrays are kept: an
    address is all that they are.
    """
    words = _next_words.get(address)
    if words is None:
        if len(_next_words) >= 64:
            _next_words.clear()
        words = _next_words[address] = (
            memoryview(_NextBytes.from_address(address)).cast("B").cast("Q")
        )
    return words


#: The bytes at an address, copied.
bytes_at = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)


def octets_of(value: ctypes.Structure) -> memoryview:
    """A struct's bytes, writable; they keep it alive."""
    return memoryview((ctypes.c_char * ctypes.sizeof(value)).from_buffer(value)).cast("B")


def words_of(value: ctypes.Structure) -> memoryview:
    """A struct as an array of 64-bit words."""
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
    "pending": (c_int64, c_uint64),
    "get_stats": (c_int32, c_uint64, _P(Stats)),
    "request_new": (c_int32, c_char_p, c_size_t, c_char_p, c_size_t, _P(c_uint64)),
    "request_free": (c_int32, c_uint64),
    "request_header": (c_int32, c_uint64, c_char_p, c_size_t, c_char_p, c_size_t),
    "request_body": (c_int32, c_uint64, c_char_p, c_size_t),
    "request_timeout_ms": (c_int32, c_uint64, c_uint64),
    "request_hold_ms": (c_int32, c_uint64, c_uint64),
    "request_option": (c_int32, c_uint64, c_char_p, c_uint64),
    # Engine, request, delay, readback, where the id goes: addresses, so that nothing is converted.
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
    """The loaded library: its functions as attributes, without the prefix."""

    def __init__(self, path: str) -> None:
        """Loads `path`. OSError when that cannot be done, LibraryNotFound when it is another
        version's.
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
                f"{path} has version {abi_version()} of the interface, this package speaks "
                f"{ABI_VERSION}: build the library of the same checkout (cargo build --release "
                "-p httpstream-capi)"
            )
        for name, (restype, *argtypes) in _FUNCTIONS.items():
            function = getattr(self._dll, f"httpstream_{name}")
            function.argtypes, function.restype = argtypes, restype
            setattr(self, name, function)

    if TYPE_CHECKING:  # the functions are set by name

        def __getattr__(self, name: str) -> Any: ...

    def words(self) -> str:
        """What the last call that failed on this thread says of itself."""
        return self.last_error().decode("utf-8", "replace")

    def check(self, error: int) -> int:
        """`error`, unless it is one: then the exception for it."""
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


def candidates() -> Iterator[Path]:
    """Where cargo leaves the library: $CARGO_TARGET_DIR or the repository's target directory,
    release before debug.
    """
    targets: List[Path] = []
    if os.environ.get("CARGO_TARGET_DIR"):
        targets.append(Path(os.environ["CARGO_TARGET_DIR"]))
    for parent in Path(__file__).resolve().parents:
        if (parent / "Cargo.lock").exists():
            targets.append(parent / "target")
    for target in targets:
        for profile in ("release", "debug"):
            yield target / profile / _file_name()


def load() -> Library:
    """Loads the library: $HTTPSTREAM_LIBRARY and nothing else if that is set, else cargo's, else
    the system's.

    Raises LibraryNotFound, which says where it looked and how it is built.
    """
    looked: List[str] = []
    named = os.environ.get("HTTPSTREAM_LIBRARY")
    if named:
        # Whoever names a file means that one.
        try:
            return Library(named)
        except OSError as error:
            raise LibraryNotFound(
                f"HTTPSTREAM_LIBRARY is {named!r}, which cannot be loaded: {error}"
            ) from error
    looked.append("$HTTPSTREAM_LIBRARY (not set)")
    for path in candidates():
        if path.exists():
            try:
                return Library(str(path))
            except OSError as error:
                looked.append(f"{path} ({error})")
        else:
            looked.append(f"{path} (no such file)")
    system: Optional[str] = ctypes.util.find_library("httpstream")
    if system:
        try:
            return Library(system)
        except OSError as error:
            looked.append(f"{system}, by the system's linker ({error})")
    else:
        looked.append("libhttpstream, by the system's linker (not known to it)")
    raise LibraryNotFound(
        "libhttpstream is not there; build it with `cargo build --release -p httpstream-capi`, "
        "or name it in HTTPSTREAM_LIBRARY. Looked for:\n  " + "\n  ".join(looked)
    )


library = load()
