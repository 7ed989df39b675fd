"""What can go wrong, as exceptions.

Two kinds: a request that got no response (`RequestFailed`, one per request, never ends the loop),
and a call that cannot be done (`StreamError`: a URL that is none, the wrong thread, a stream that
is closed).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Optional

from tornado.httpclient import HTTPClientError

if TYPE_CHECKING:
    from .response import Response


class Kind(enum.IntEnum):
    """Why there is no response: Rust's `ErrorKind`, by the numbers of the C interface."""

    INVALID_REQUEST = 1
    INVALID_CONFIG = 2
    RESOLVE = 3
    CONNECT = 4
    TLS = 5
    CLOSED_BEFORE_RESPONSE = 6
    TRUNCATED = 7
    IO = 8
    MALFORMED = 9
    TOO_LARGE = 10
    TIMEOUT = 11
    EXHAUSTED = 12
    CANCELLED = 13
    ABORTED = 14
    GONE = 15
    OTHER = 99

    @classmethod
    def _missing_(cls, value: object) -> "Kind":
        # A newer library may know more of them.
        return cls.OTHER


class RequestFailed(HTTPClientError):
    """A request without a response, or without all of it.

    It is a Tornado `HTTPClientError` with code 599, so that what catches those catches this.

    * ``kind``: a `Kind`
    * ``phase``: where it was, as words: ``"Connect"``, ``"FirstByte"``, ``"Body"``
    * ``request_sent``: ``"no"``, ``"maybe"`` (written, no answer: the server may have acted on
      it), ``"yes"``
    * ``resend_is_safe``: whether sending it again cannot do anything twice
    * ``status``: the status that was received before it failed, or 0; what came of the body is in
      ``response.body``
    * ``request``: the request as it was given, a URL as a `Request`; ``method`` and ``url``: what
      was asked of whom. A URL may hold secrets, so the words of the error have the origin alone
    * ``attempts``: how often the request was given a connection, or the making of one; 0 if it
      never left its queue
    """

    def __init__(
        self,
        message: str,
        kind: Kind,
        phase: str = "",
        request_sent: str = "no",
        resend_is_safe: bool = True,
        status: int = 0,
        response: Optional["Response"] = None,
        request: Any = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(599, message, response)  # type: ignore[arg-type]
        self.kind = kind
        self.phase = phase
        self.request_sent = request_sent
        self.resend_is_safe = resend_is_safe
        self.status = status
        self.attempts = attempts
        # The package's own, of which a response has the one that it was made of.
        self._request = request

    @property
    def request(self) -> Any:
        request = self._request
        source = getattr(request, "source", None)
        return request if source is None else source

    @property
    def method(self) -> str:
        return getattr(self._request, "method", "")

    @property
    def url(self) -> str:
        return getattr(self._request, "url", "")

    def __str__(self) -> str:
        return f"{self.kind.name}: {self.message}"

    # The base class has one of its own.
    __repr__ = __str__

    def errcode(self) -> int:
        """The number that 2013's ``errorback`` got: -1 timeout, -2 no response at all, -3 a bad
        one, 0 the socket.
        """
        return _ERRCODES.get(self.kind, 0)


_ERRCODES = {
    Kind.TIMEOUT: -1,
    Kind.CLOSED_BEFORE_RESPONSE: -2,
    Kind.TRUNCATED: -3,
    Kind.MALFORMED: -3,
    Kind.TOO_LARGE: -3,
    Kind.ABORTED: -3,
}


class StreamError(RuntimeError):
    """A call that cannot be done; the words say why."""


class WrongThread(StreamError):
    """A stream is used by the thread of its IOLoop alone; others go through
    ``io_loop.add_callback``.
    """


class StreamClosed(StreamError):
    """The stream, or its IOLoop, was closed."""


class Forked(StreamError):
    """The stream was made before this process was forked off: its sockets are the parent's."""


class InvalidRequest(StreamError, ValueError):
    """What was given as a request cannot be sent."""


class LibraryNotFound(ImportError):
    """libhttpstream could not be loaded; the words list where it was looked for."""
