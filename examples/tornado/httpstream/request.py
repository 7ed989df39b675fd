"""Requests: checked and serialised once, by the library, and sent as often as you like.

`Request` is the package's own, and the cheapest to send again. `prepare` makes one of what Python
programs have: a URL, an ``urllib.request.Request``, a Tornado ``HTTPRequest``.
"""

from __future__ import annotations

import base64
import ctypes
import difflib
import math
import urllib.request
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from tornado.httpclient import HTTPRequest
from tornado.httputil import format_timestamp

from ._ffi import NEVER, library
from .errors import InvalidRequest

Headers = Union[Mapping[str, str], Iterable[Tuple[str, str]]]
#: What can be given where a request is wanted.
Sendable = Union["Request", str, urllib.request.Request, HTTPRequest]


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up; infinity, and what is too long to be counted, is never.

    Raises InvalidRequest for what is no duration: a negative number, NaN, text.
    """
    try:
        if seconds < 0:
            raise InvalidRequest(f"{seconds!r} seconds is less than none")
        if seconds >= _FOREVER_SECONDS:
            return NEVER
        return math.ceil(seconds * 1000)
    except InvalidRequest:
        raise
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{seconds!r} is no number of seconds") from None


#: 2^64 milliseconds, which C has no number for.
_FOREVER_SECONDS = 2.0**64 / 1000


def _limit(seconds: float) -> int:
    """A timeout in milliseconds; 0 is Tornado's word for no limit."""
    return milliseconds(seconds) or NEVER


def unexpected(function: str, name: str, known: Iterable[str]) -> TypeError:
    """What Python raises for a keyword argument that a function does not have."""
    words = f"{function}() got an unexpected keyword argument {name!r}"
    near = difflib.get_close_matches(name, list(known), 1)
    return TypeError(f"{words}; did you mean {near[0]!r}?" if near else words)


def number(name: str, value: Any) -> int:
    """A number as C takes it. Raises InvalidRequest for those that it would take for another."""
    if not isinstance(value, int) or not 0 <= value <= NEVER:
        raise InvalidRequest(f"{name} is {value!r}: no whole number from 0 to {NEVER}")
    return value


def _octets(text: Union[str, bytes]) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else bytes(text)


class Request:
    """A request to be sent any number of times, by any stream of the process.

    * ``timeout``: seconds from submission to the end of the body, delays not counted. None: the
      stream's ``timeout_total``, 300 unless set; 0 or ``math.inf``: no limit
    * ``connect_timeout``: seconds for an address to answer; likewise, with ``timeout_connect``, 10
    * ``long_poll``: a long poll: seconds for which the server may stay silent
    * ``idempotent``: whether it may be sent again when it may have been received (None: as its
      method says)
    * ``fresh_connection``: on a connection of its own, ``close``: which is closed after it
    * ``max_body_bytes``: the largest body that is accepted

    Raises InvalidRequest, which names what cannot be sent. Redirects are not followed. The fields
    are what it was made from: changing them changes nothing.
    """

    __slots__ = ("url", "method", "source", "handle", "__weakref__")

    def __init__(
        self,
        url: str,
        method: str = "GET",
        headers: Optional[Headers] = None,
        body: Union[bytes, str, None] = None,
        *,
        timeout: Optional[float] = None,
        connect_timeout: Optional[float] = None,
        long_poll: Optional[float] = None,
        idempotent: Optional[bool] = None,
        fresh_connection: bool = False,
        close: bool = False,
        max_body_bytes: Optional[int] = None,
        source: Any = None,
    ) -> None:
        self.handle = 0
        self.url = url
        self.method = method
        #: What `prepare` made it of.
        self.source = source
        made = ctypes.c_uint64()
        method_octets, url_octets = _octets(method), _octets(url)
        check = library.check
        check(
            library.request_new(
                method_octets, len(method_octets), url_octets, len(url_octets), made
            )
        )
        self.handle = handle = made.value
        if headers is not None:
            for name, value in _pairs(headers):
                name_octets, value_octets = _octets(name), _octets(value)
                check(
                    library.request_header(
                        handle, name_octets, len(name_octets), value_octets, len(value_octets)
                    )
                )
        if body is not None:
            body_octets = _octets(body)
            check(library.request_body(handle, body_octets, len(body_octets)))
        if timeout is not None:
            check(library.request_timeout_ms(handle, _limit(timeout)))
        if long_poll is not None:
            check(library.request_long_poll_ms(handle, milliseconds(long_poll)))
        if connect_timeout is not None:
            self._option("timeout_connect_ms", _limit(connect_timeout))
        if idempotent is not None:
            self._option("idempotent", int(idempotent))
        if fresh_connection:
            self._option("fresh_connection", 1)
        if close:
            self._option("close", 1)
        if max_body_bytes is not None:
            self._option("max_body_bytes", max_body_bytes)

    def _option(self, name: str, value: int) -> None:
        library.check(library.request_option(self.handle, name.encode(), number(name, value)))

    def __del__(self, _free: Any = library.request_free) -> None:
        # A default argument: at the interpreter's end, the module's names may be gone. And it may
        # never have got as far as a handle.
        handle = getattr(self, "handle", 0)
        if handle:
            _free(handle)

    def __repr__(self) -> str:
        # The path may carry secrets.
        origin = "/".join(self.url.split("?")[0].split("/")[:3])
        return f"<Request {self.method} {origin}>"


#: Parameters of Tornado's HTTPRequest that Request has too, by the same name.
_SHARED = ("url", "method", "headers", "body", "connect_timeout")
#: Those of which nothing is left undone, with the values for which that is so; None always is,
#: since it is the default.
_HARMLESS: Dict[str, Tuple[Any, ...]] = {
    "follow_redirects": (False,),
    # Of no use without redirects.
    "max_redirects": (),
    # Nothing is asked for in compressed form, and nothing is decompressed.
    "decompress_response": (False,),
    "use_gzip": (False,),
    # Any method can be sent.
    "allow_nonstandard_methods": (True, False),
    "validate_cert": (True,),
    "allow_ipv6": (True,),
}
#: Why a value is refused, where the name alone does not say it.
_WHY = {
    "follow_redirects": "redirects are not followed. Leave it out or pass False, and look at "
    "the Location of a 3xx response",
    "max_redirects": "redirects are not followed",
    "decompress_response": "nothing is asked for in compressed form, and nothing is decompressed",
    "use_gzip": "nothing is asked for in compressed form, and nothing is decompressed",
    "validate_cert": "certificates are always checked; HTTPStream(ca_file=…) names the roots",
    "ca_certs": "HTTPStream(ca_file=…) names the roots of all requests",
    "ssl_options": "HTTPStream(ca_file=…) names the roots of all requests",
    "allow_ipv6": "addresses of both families are tried",
    "streaming_callback": "a response is read whole",
    "header_callback": "a response is read whole; response.headers has its fields",
    "body_producer": "a body is bytes that are there",
}
#: Parameters that work, though Request has them by no such name.
_TRANSLATED = (
    "request_timeout",
    "user_agent",
    "if_modified_since",
    "expect_100_continue",
    "auth_username",
    "auth_password",
    "auth_mode",
)
#: Parameters that cannot work here; whatever is passed is refused.
_REFUSED = (
    "network_interface",
    "streaming_callback",
    "header_callback",
    "prepare_curl_callback",
    "proxy_host",
    "proxy_port",
    "proxy_username",
    "proxy_password",
    "proxy_auth_mode",
    "ca_certs",
    "client_key",
    "client_cert",
    "body_producer",
    "ssl_options",
)
#: All that Tornado's HTTPRequest has and Request has not.
TORNADO_OPTIONS = frozenset((*_HARMLESS, *_TRANSLATED, *_REFUSED))


def _translated(values: Mapping[str, Any]) -> Tuple[Dict[str, Any], List[Tuple[str, str]]]:
    """Options and header fields for `Request`, of what Tornado's HTTPRequest has by other names.

    Raises InvalidRequest, which names what would be left undone.
    """
    for name, value in values.items():
        if value is None or name in _TRANSLATED:
            continue
        if name in _REFUSED or value not in _HARMLESS[name]:
            if name == "max_redirects" and values.get("follow_redirects") is False:
                continue
            why = _WHY.get(name, "there is nothing like it here")
            shown = value if isinstance(value, (bool, int)) else "…"
            raise InvalidRequest(f"{name}={shown} is not supported: {why}")
    options: Dict[str, Any] = {}
    headers: List[Tuple[str, str]] = []
    if values.get("request_timeout") is not None:
        options["timeout"] = values["request_timeout"]
    if values.get("user_agent"):
        headers.append(("User-Agent", values["user_agent"]))
    if values.get("if_modified_since"):
        headers.append(("If-Modified-Since", format_timestamp(values["if_modified_since"])))
    if values.get("expect_100_continue"):
        headers.append(("Expect", "100-continue"))
    headers.extend(_authorization(values))
    return options, headers


def _authorization(values: Mapping[str, Any]) -> List[Tuple[str, str]]:
    mode, user, password = (
        values.get(f"auth_{name}") for name in ("mode", "username", "password")
    )
    if mode not in (None, "basic"):
        raise InvalidRequest(f"auth_mode={mode!r} is not supported: basic is, and nothing else")
    if user is None:
        if password is not None:
            raise InvalidRequest("auth_password without auth_username is not supported")
        return []
    secret = base64.b64encode(_octets(user) + b":" + _octets(password or ""))
    return [("Authorization", f"Basic {secret.decode()}")]


def _pairs(headers: Optional[Headers]) -> List[Tuple[str, str]]:
    if headers is None:
        return []
    # HTTPHeaders has several fields of one name.
    all_of_them = getattr(headers, "get_all", None)
    if all_of_them is not None:
        return list(all_of_them())
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def with_tornado_options(url: str, options: Mapping[str, Any]) -> Request:
    """A `Request` with options of its own and of Tornado's HTTPRequest, mixed as they come.

    Raises TypeError for an option that neither has, InvalidRequest for one that would be left
    undone.
    """
    own: Dict[str, Any] = {}
    of_tornado: Dict[str, Any] = {}
    for name, value in options.items():
        if name in TORNADO_OPTIONS:
            of_tornado[name] = value
        elif name in REQUEST_OPTIONS:
            own[name] = value
        else:
            raise unexpected("fetch", name, (*REQUEST_OPTIONS, *TORNADO_OPTIONS, "delay"))
    more, headers = _translated(of_tornado)
    if headers:
        own["headers"] = [*_pairs(own.get("headers")), *headers]
    return Request(url, **{**own, **more})


#: What `Request` takes beside a URL.
REQUEST_OPTIONS = (
    "method",
    "headers",
    "body",
    "timeout",
    "connect_timeout",
    "long_poll",
    "idempotent",
    "fresh_connection",
    "close",
    "max_body_bytes",
)


def _of_tornado(request: HTTPRequest) -> Request:
    options, headers = _translated(
        # Older Tornados have fewer; and `if_modified_since` is among the headers.
        {name: getattr(request, name, None) for name in TORNADO_OPTIONS}
    )
    return Request(
        request.url,
        request.method,
        [*_pairs(request.headers), *headers],
        request.body,
        connect_timeout=request.connect_timeout,
        source=request,
        **options,
    )


def _of_urllib(request: urllib.request.Request) -> Request:
    body = request.data
    if body is not None and not isinstance(body, (bytes, bytearray)):
        raise InvalidRequest(
            f"the data of an urllib Request has to be bytes, not {type(body).__name__}"
        )
    headers = request.header_items()
    if body is not None and not request.has_header("Content-type"):
        # As urllib does when it sends one.
        headers.append(("Content-type", "application/x-www-form-urlencoded"))
    # `timeout` is there once urlopen has seen it.
    timeout = getattr(request, "timeout", None)
    return Request(
        # Its fragment is none of the server's business.
        request.full_url.split("#")[0],
        request.get_method(),
        headers,
        bytes(body) if body is not None else None,
        timeout=timeout if isinstance(timeout, (int, float)) else None,
        source=request,
    )


def prepare(request: Sendable) -> Request:
    """A `Request` of whatever is given. Raises InvalidRequest."""
    if isinstance(request, Request):
        return request
    if isinstance(request, str):
        return Request(request)
    if isinstance(request, urllib.request.Request):
        return _of_urllib(request)
    if isinstance(request, HTTPRequest):
        return _of_tornado(request)
    raise InvalidRequest(
        "a URL, a Request, an urllib.request.Request or a tornado.httpclient.HTTPRequest "
        f"is wanted, not {type(request).__name__}"
    )
