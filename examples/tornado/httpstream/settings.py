"""The settings of an engine: those of its ``Config``, by name, with Python's types."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Mapping

from ._ffi import NEVER, library
from .request import milliseconds, number, unexpected

#: Durations: in seconds in Python, in milliseconds in C. None means forever.
_DURATIONS = {"idle_timeout", "keep_names", "keep_stale_names"} | {
    f"timeout_{phase}"
    for phase in ("resolve", "connect", "tls", "write", "first_byte", "idle", "total")
}
#: Numbers and booleans, under the library's names.
_NUMBERS = {
    "max_connections",
    "max_connections_per_origin",
    "max_idle_per_origin",
    "limit_max_head_bytes",
    "limit_max_fields",
    "limit_max_body_bytes",
    "limit_max_interim",
    "limit_max_trailer_bytes",
    "limit_max_chunk_extension_bytes",
    "limit_refuse_obs_fold",
    "turn_events",
    "turn_bytes",
    "read_buffer",
    "max_lookups",
    "hosts_file",
    "system_resolver",
    "public_only",
    "nodelay",
    "timerfd",
}
SETTINGS = frozenset(_DURATIONS | _NUMBERS | {"user_agent", "headers", "resolve_to", "ca_file"})


def check_names(function: str, settings: Mapping[str, Any]) -> None:
    """Raises TypeError for an unknown setting, as Python does for keyword arguments."""
    for name in settings:
        if name not in SETTINGS:
            raise unexpected(function, name, SETTINGS)


def new_engine(settings: Mapping[str, Any]) -> int:
    """Creates an engine for this thread. Raises TypeError for unknown settings and StreamError for
    invalid values.
    """
    check_names("HTTPStream", settings)
    config = ctypes.c_uint64()
    check = library.check
    check(library.config_new(config))
    try:
        for name, value in settings.items():
            _set(config.value, name, value)
        engine = ctypes.c_uint64()
        check(library.new(config.value, engine))
        return engine.value
    finally:
        library.config_free(config.value)


def _set(config: int, name: str, value: Any) -> None:
    check = library.check
    if name == "user_agent":
        # As in Rust, None means that no User-Agent is sent.
        text = (value or "").encode()
        check(library.config_user_agent(config, text, len(text)))
    elif name == "headers":
        for field, text in value.items():
            field, text = field.encode(), text.encode()
            check(library.config_header(config, field, len(field), text, len(text)))
    elif name == "resolve_to":
        for pattern, address in value.items():
            check(library.config_resolve_to(config, pattern.encode(), address.encode()))
    elif name == "ca_file":
        check(library.config_ca_file(config, os.fsencode(value)))
    elif name in _DURATIONS:
        ms = NEVER if value is None else milliseconds(value)
        check(library.config_set(config, f"{name}_ms".encode(), ms))
    else:
        check(library.config_set(config, name.encode(), number(name, value)))
