"""Requests: checked and serialised once, by the library, and sent as often as you like.

`Request` is the package's own, and the cheapest to send again. `prepare` makes one of what Python
programs have: a URL, an ``urllib.request.Request``, a Tornado ``HTTPRequest``.
"""

from __future__ import annotations

import ctypes
import math
import urllib.request
from typing import Any, Iterable, Mapping, Optional, Tuple, Union

from tornado.httpclient import HTTPRequest

from ._ffi import NEVER, library
from .errors import InvalidRequest

Headers = Union[Mapping[str, str], Iterable[Tuple[str, str]]]
#: What can be given where a request is wanted.
Sendable = Union["Request", str, urllib.request.Request, HTTPRequest]


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up; infinity is never. Raises InvalidRequest for what is no
    duration.
    """
    try:
        if seconds == math.inf:
            return NEVER
        ms = math.ceil(seconds * 1000)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{seconds!r} is no number of seconds") from None
    if ms < 0:
        raise InvalidRequest(f"{seconds!r} seconds is less than none")
    return min(ms, NEVER)


def number(name: str, value: Any) -> int:
    """A number as C takes it. Raises InvalidRequest for those that it would take for another."""
    if not isinstance(value, int) or not 0 <= value <= NEVER:
        raise InvalidRequest(f"{name} is {value!r}: no whole number from 0 to {NEVER}")
    return value


def _octets(text: Union[str, bytes]) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else bytes(text)


class Request:
    """A request to be sent any number of times, by any stream of the process.

    * ``timeout``: seconds from submission to the end of the body, delays not counted
    * ``connect_timeout``: seconds for an address to answer
    * ``hold``: a long poll: seconds for which the server may stay silent
    * ``idempotent``: whether it may be sent again when it may have been received (None: as its
      method says)
    * ``fresh_connection``: on a connection of its own, ``close``: which is closed after it
    * ``max_body_bytes``: the largest body that is accepted

    Raises InvalidRequest, which names what cannot be sent. The fields are what it was made from:
    changing them changes nothing.
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
        hold: Optional[float] = None,
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
            for name, value in headers.items() if isinstance(headers, Mapping) else headers:
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
            check(library.request_timeout_ms(handle, milliseconds(timeout)))
        if hold is not None:
            check(library.request_hold_ms(handle, milliseconds(hold)))
        if connect_timeout is not None:
            self._option("timeout_connect_ms", milliseconds(connect_timeout))
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


#: Of Tornado's HTTPRequest: what would be left undone if it were passed over in silence, and what
#: it is when it is not asked for.
_NOT_HERE = {
    "streaming_callback": None,
    "header_callback": None,
    "body_producer": None,
    "proxy_host": None,
    "auth_username": None,
    "network_interface": None,
    "ca_certs": None,
    "client_key": None,
    "client_cert": None,
    "ssl_options": None,
    "prepare_curl_callback": None,
}


def _of_tornado(request: HTTPRequest) -> Request:
    for name, absent in _NOT_HERE.items():
        if getattr(request, name) is not absent:
            raise InvalidRequest(f"HTTPRequest.{name} is not done here")
    if request.follow_redirects:
        raise InvalidRequest(
            "redirects are not followed: HTTPRequest.follow_redirects is not done here"
        )
    if request.validate_cert is False:
        raise InvalidRequest(
            "certificates are always checked: validate_cert=False is not done here"
        )
    # HTTPHeaders, though nothing makes sure of it.
    headers = list(getattr(request.headers, "get_all", request.headers.items)())
    if request.user_agent:
        headers.append(("User-Agent", request.user_agent))
    return Request(
        request.url,
        request.method,
        headers,
        request.body,
        # None is Tornado's default; 0 is its word for no limit.
        timeout=math.inf if request.request_timeout == 0 else request.request_timeout,
        connect_timeout=math.inf if request.connect_timeout == 0 else request.connect_timeout,
        source=request,
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
