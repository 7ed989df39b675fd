"""Responses: Tornado's ``HTTPResponse`` and the file-like response of 2013 in one object.

Body and head are copied out of the engine when the response arrives, because the engine only lends
them. Everything else is created on first use. A response may be kept for any length of time.
"""

from __future__ import annotations

import ctypes
import email.message
import email.parser
import http.client
import io
import ipaddress
from typing import Any, Callable, Dict, List, Optional, Tuple

from tornado.httpclient import HTTPClientError
from tornado.httputil import HTTPHeaders
from tornado.httputil import responses as reasons

from ._ffi import NEVER, View, bytes_at, facts_of, library, octets_of, unpack_facts, unpack_view
from .errors import Kind, RequestFailed
from .request import Request


class Response:
    """The response that a readback gets and that ``await stream.fetch(…)`` returns.

    From Tornado: ``request``, ``code``, ``reason``, ``headers``, ``body``, ``buffer``,
    ``effective_url``, ``error``, ``request_time``, ``time_info``, ``rethrow()``. From 2013:
    ``read()``, ``getcode()``, ``info()``, ``geturl()``, ``status``, ``msg``. From the engine:
    ``peer``, ``reused``, ``attempts``.

    If the request failed, ``code`` is 599, ``error`` is a `RequestFailed`, and ``read()`` raises
    it.
    """

    __slots__ = (
        "_request",
        "code",
        "body",
        "request_time",
        "_head",
        "_failure",
        "_headers",
        "_buffer",
        "_facts",
    )

    def __init__(
        self,
        request: Request,
        code: int,
        body: bytes,
        head: bytes,
        request_time: float,
        facts: bytes,
        failure: Optional[RequestFailed] = None,
    ) -> None:
        self._request = request
        self.code = code
        self.body = body
        # Status line and field lines, as text; empty if none arrived.
        self._head = head
        self.request_time = request_time
        self._failure = failure
        self._headers: Optional[HTTPHeaders] = None
        self._buffer: Optional[io.BytesIO] = None
        # Unpacked on first use.
        self._facts = facts

    # Tornado's interface

    @property
    def request(self) -> Any:
        """The request that was passed in."""
        source = self._request.source
        return self._request if source is None else source

    @property
    def reason(self) -> str:
        """The reason phrase of the status line, or the standard phrase for the code."""
        if self._failure is not None:
            return self._failure.message or ""
        status_line = self._head.partition(b"\r\n")[0].decode("latin-1")
        return status_line.partition(" ")[2].partition(" ")[2] or reasons.get(self.code, "Unknown")

    @property
    def headers(self) -> HTTPHeaders:
        """The field lines as received; names are case-insensitive."""
        if self._headers is None:
            self._headers = headers = HTTPHeaders()
            for name, value in self._lines():
                headers.add(name, value)
        return self._headers

    def _fields(self) -> str:
        return self._head.partition(b"\r\n")[2].decode("latin-1")

    def _lines(self) -> List[Tuple[str, str]]:
        lines = (line.partition(":") for line in self._fields().split("\r\n"))
        return [(name, value.strip(" \t")) for name, colon, value in lines if colon]

    def sets_cookies(self) -> bool:
        """Returns whether the response has a Set-Cookie field."""
        return b"\r\nset-cookie:" in self._head.lower()

    @property
    def effective_url(self) -> str:
        """The URL of the request, since redirects are not followed."""
        return self._request.url

    @property
    def error(self) -> Optional[HTTPClientError]:
        """The error: a `RequestFailed` if there is no response, an HTTPClientError for a status
        that is not 2xx, or None for a 2xx.
        """
        if self._failure is not None:
            return self._failure
        if 200 <= self.code < 300:
            return None
        words = self.reason
        if self.code in _REDIRECTS and "Location" in self.headers:
            words += " (redirects are not followed; response.headers has the Location)"
        return HTTPClientError(self.code, words, self)  # type: ignore[arg-type]

    def rethrow(self) -> None:
        """Raises `error`, if there is one."""
        error = self.error
        if error is not None:
            raise error

    @property
    def buffer(self) -> io.BytesIO:
        """The body as a file object."""
        if self._buffer is None:
            self._buffer = io.BytesIO(self.body)
        return self._buffer

    @property
    def time_info(self) -> Dict[str, float]:
        """Seconds from the submission, or the end of the delay, to each step that took place.

        Names are Tornado's where it has them: ``namelookup``, ``connect``, ``appconnect`` (the TLS
        handshake), ``sent`` (the last byte of the request), ``starttransfer`` (the first byte of
        the response), ``total``. On a reused connection, the first three are missing.
        """
        steps = zip(_STEPS, unpack_facts(self._facts)[5:])
        times = {name: us / 1e6 for name, us in steps if us != NEVER}
        return {**times, "total": self.request_time}

    # The engine's additions

    @property
    def peer(self) -> Optional[Tuple[str, int]]:
        """The address and port that the response came from; None if there is no response."""
        _, _, address, length, port, *_ = unpack_facts(self._facts)
        return (str(ipaddress.ip_address(address[:length])), port) if length else None

    @property
    def reused(self) -> bool:
        """Whether the connection had served another request before."""
        return unpack_facts(self._facts)[1] != 0

    @property
    def attempts(self) -> int:
        """How many times the request was sent: 2 after a retry on a fresh connection."""
        return unpack_facts(self._facts)[0]

    # The interface of urllib and of the readbacks of 2013

    def read(self, amount: int = -1) -> bytes:
        """Returns the body, or its next `amount` bytes. Raises the `RequestFailed` if there is no
        response.

        A readback that does not check for errors thus ends its own chain, and the error is logged.
        """
        if self._failure is not None:
            raise self._failure
        return self.buffer.read(amount)

    def getcode(self) -> int:
        return self.code

    @property
    def status(self) -> int:
        return self.code

    @property
    def msg(self) -> str:
        return self.reason

    def geturl(self) -> str:
        return self._request.url

    @property
    def url(self) -> str:
        return self._request.url

    def info(self) -> email.message.Message:
        """The field lines as an ``http.client.HTTPMessage``."""
        parser = email.parser.Parser(_class=http.client.HTTPMessage)
        return parser.parsestr(self._fields() + "\r\n", headersonly=True)

    def __repr__(self) -> str:
        return f"<Response {self.code} {self.reason}, {len(self.body)} bytes>"


#: Statuses of redirects. 304 is not one.
_REDIRECTS = (301, 302, 303, 307, 308)
_STEPS = ("namelookup", "connect", "appconnect", "sent", "starttransfer")
_SENT = {0: "no", 1: "maybe", 2: "yes"}
#: The initial size of the buffer, which grows for the rare head that is longer.
_HEAD_BYTES = 4096


def reader() -> Callable[[int, Request], Response]:
    """Returns a function that copies a reply out of the engine. It runs for each response, so
    everything it uses is created once, here.

    It makes two calls into the library, whatever the number of field lines, and one into CPython
    for a body.
    """
    view = View(size=ctypes.sizeof(View))
    view_at = ctypes.addressof(view)
    octets = octets_of(view)
    reply_view, reply_head = library.reply_view, library.reply_head
    buffer = ctypes.create_string_buffer(_HEAD_BYTES)
    head_at, head_bytes, head = ctypes.addressof(buffer), _HEAD_BYTES, memoryview(buffer).cast("B")

    def read(reply: int, request: Request) -> Response:
        nonlocal buffer, head_at, head_bytes, head
        reply_view(reply, view_at)
        kind, status, body_at, body_bytes, elapsed_us = unpack_view(octets)
        wanted = reply_head(reply, head_at, head_bytes)
        if wanted > head_bytes:
            head_bytes = wanted
            buffer = ctypes.create_string_buffer(head_bytes)
            head_at, head = ctypes.addressof(buffer), memoryview(buffer).cast("B")
            reply_head(reply, head_at, head_bytes)
        response = Response(
            request,
            status,
            bytes_at(body_at, body_bytes) if body_bytes else b"",
            head[:wanted].tobytes(),
            elapsed_us / 1e6,
            facts_of(octets),
        )
        if kind:
            _fail(response, kind, view, reply)
        return response

    return read


def _fail(response: Response, kind: int, view: View, reply: int) -> None:
    """Turns `response` into that of a failed request."""
    message = (library.reply_message(reply) or b"").decode("utf-8", "replace")
    phase = library.phase_name(view.phase).decode()
    response._failure = RequestFailed(
        message,
        Kind(kind),
        phase,
        _SENT.get(view.request_sent, "maybe"),
        bool(view.resend_is_safe),
        view.status,
        response,
        response._request,
        view.attempts,
    )
    response.code = 599
