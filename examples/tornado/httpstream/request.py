"""Requests: checked and serialized once by the library, and sent any number of times.

`Request` is the package's own class, and the cheapest to send again. `prepare` converts what other
Python code uses: a URL, a ``urllib.request.Request``, a Tornado ``HTTPRequest``.
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
#: Types accepted as a request.
Sendable = Union["Request", str, urllib.request.Request, HTTPRequest]


def milliseconds(seconds: float) -> int:
    """Returns whole milliseconds, rounded up. Infinity, and anything too long for C's integer,
    means never.

    Raises InvalidRequest if `seconds` is not a duration: a negative number, NaN, text.
    """
    try:
        if seconds < 0:
            raise InvalidRequest(f"{seconds!r} seconds is negative")
        if seconds >= _FOREVER_SECONDS:
            return NEVER
        return math.ceil(seconds * 1000)
    except InvalidRequest:
        raise
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{seconds!r} is not a number of seconds") from None


#: 2^64 milliseconds, which does not fit into C's integer.
_FOREVER_SECONDS = 2.0**64 / 1000


def _limit(seconds: float) -> int:
    """Returns a timeout in milliseconds. 0 means no limit, as in Tornado."""
    return milliseconds(seconds) or NEVER


def unexpected(function: str, name: str, known: Iterable[str]) -> TypeError:
    """Returns the TypeError that Python raises for an unknown keyword argument."""
    words = f"{function}() got an unexpected keyword argument {name!r}"
    near = difflib.get_close_matches(name, list(known), 1)
    return TypeError(f"{words}; did you mean {near[0]!r}?" if near else words)


def number(name: str, value: Any) -> int:
    """Returns `value` if it fits C's integer; raises InvalidRequest if it would be converted."""
    if not isinstance(value, int) or not 0 <= value <= NEVER:
        raise InvalidRequest(f"{name} is {value!r}: not a whole number from 0 to {NEVER}")
    return value


def _octets(text: Union[str, bytes]) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else bytes(text)


class Request:
    """A request that any stream of the process can send, any number of times.

    * ``timeout``: seconds from the submission, without a delay, to the end of the body. None: the
      stream's ``timeout_total``, 300 by default; 0 or ``math.inf``: no limit
    * ``connect_timeout``: seconds to connect to one address; as above, with ``timeout_connect``
      and 10
    * ``long_poll``: for a long poll: seconds for which the server may be silent
    * ``idempotent``: whether the request may be sent again after the server may have received it
      (None: depends on the method)
    * ``fresh_connection``: send it on a new connection; ``close``: close the connection after the
      response
    * ``max_body_bytes``: the largest body that is accepted

    Raises InvalidRequest, which names the invalid part. Redirects are not followed. Changing the
    attributes has no effect on what is sent.
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
        #: The object that `prepare` converted.
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
        # The parameter has a default because, when the interpreter exits, the module's names may
        # be gone. If __init__ failed early, there is no handle.
        handle = getattr(self, "handle", 0)
        if handle:
            _free(handle)

    def __repr__(self) -> str:
        # The path may contain secrets.
        origin = "/".join(self.url.split("?")[0].split("/")[:3])
        return f"<Request {self.method} {origin}>"


#: Parameters of Tornado's HTTPRequest that Request has under the same name.
_SHARED = ("url", "method", "headers", "body", "connect_timeout")
#: Parameters that need no action for these values. None is always accepted, since it is the
#: default.
_HARMLESS: Dict[str, Tuple[Any, ...]] = {
    "follow_redirects": (False,),
    # Has no effect without redirects.
    "max_redirects": (),
    # No Accept-Encoding is sent, and nothing is decompressed.
    "decompress_response": (False,),
    "use_gzip": (False,),
    # Any method can be sent.
    "allow_nonstandard_methods": (True, False),
    "validate_cert": (True,),
    "allow_ipv6": (True,),
}
#: Why a value is rejected, where the name alone does not say so.
_WHY = {
    "follow_redirects": "redirects are not followed. Leave it out or pass False, and look at "
    "the Location of a 3xx response",
    "max_redirects": "redirects are not followed",
    "decompress_response": "no Accept-Encoding is sent, and nothing is decompressed",
    "use_gzip": "no Accept-Encoding is sent, and nothing is decompressed",
    "validate_cert": "certificates are always verified; HTTPStream(ca_file=…) sets the roots",
    "ca_certs": "HTTPStream(ca_file=…) sets the root certificates of all requests",
    "ssl_options": "HTTPStream(ca_file=…) sets the root certificates of all requests",
    "allow_ipv6": "addresses of both families are tried",
    "streaming_callback": "a response is delivered as a whole",
    "header_callback": "a response is delivered as a whole; response.headers has its fields",
    "body_producer": "a body has to be complete, as bytes",
}
#: Parameters that work, but that Request does not have under this name.
_TRANSLATED = (
    "request_timeout",
    "user_agent",
    "if_modified_since",
    "expect_100_continue",
    "auth_username",
    "auth_password",
    "auth_mode",
)
#: Parameters that cannot work here; any value is rejected.
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
#: All parameters of Tornado's HTTPRequest that Request does not have.
TORNADO_OPTIONS = frozenset((*_HARMLESS, *_TRANSLATED, *_REFUSED))


def _translated(values: Mapping[str, Any]) -> Tuple[Dict[str, Any], List[Tuple[str, str]]]:
    """Converts parameters of Tornado's HTTPRequest that Request lacks to options and header fields
    of `Request`.

    Raises InvalidRequest, which names the parameter that is not supported.
    """
    for name, value in values.items():
        if value is None or name in _TRANSLATED:
            continue
        if name in _REFUSED or value not in _HARMLESS[name]:
            if name == "max_redirects" and values.get("follow_redirects") is False:
                continue
            why = _WHY.get(name, "there is no equivalent here")
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
        raise InvalidRequest(f"auth_mode={mode!r} is not supported, only basic is")
    if user is None:
        if password is not None:
            raise InvalidRequest("auth_password without auth_username is not supported")
        return []
    secret = base64.b64encode(_octets(user) + b":" + _octets(password or ""))
    return [("Authorization", f"Basic {secret.decode()}")]


def _pairs(headers: Optional[Headers]) -> List[Tuple[str, str]]:
    if headers is None:
        return []
    # HTTPHeaders can contain several fields of the same name.
    all_of_them = getattr(headers, "get_all", None)
    if all_of_them is not None:
        return list(all_of_them())
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def with_tornado_options(url: str, options: Mapping[str, Any]) -> Request:
    """Returns a `Request` from a mixture of its own options and those of Tornado's HTTPRequest.

    Raises TypeError for an option that neither has, and InvalidRequest for one that is not
    supported.
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


#: The options that `Request` takes in addition to a URL.
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
        # Older Tornados have fewer; `if_modified_since` is already among the headers.
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
            f"the data of a urllib Request has to be bytes, not {type(body).__name__}"
        )
    headers = request.header_items()
    if body is not None and not request.has_header("Content-type"):
        # urllib adds this field too when it sends a body.
        headers.append(("Content-type", "application/x-www-form-urlencoded"))
    # `timeout` exists once urlopen has processed the request.
    timeout = getattr(request, "timeout", None)
    return Request(
        # The fragment is not sent.
        request.full_url.split("#")[0],
        request.get_method(),
        headers,
        bytes(body) if body is not None else None,
        timeout=timeout if isinstance(timeout, (int, float)) else None,
        source=request,
    )


def prepare(request: Sendable) -> Request:
    """Converts any accepted type to a `Request`. Raises InvalidRequest."""
    if isinstance(request, Request):
        return request
    if isinstance(request, str):
        return Request(request)
    if isinstance(request, urllib.request.Request):
        return _of_urllib(request)
    if isinstance(request, HTTPRequest):
        return _of_tornado(request)
    raise InvalidRequest(
        "a request has to be a URL, a Request, a urllib.request.Request or a "
        f"tornado.httpclient.HTTPRequest, not {type(request).__name__}"
    )
