"""Exceptions.

There are two kinds: a request that got no response (`RequestFailed`, one per request, which never
ends the loop), and a call that failed (`StreamError`: an invalid URL, the wrong thread, a closed
stream).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Optional

from tornado.httpclient import HTTPClientError

if TYPE_CHECKING:
    from .response import Response


class Kind(enum.IntEnum):
    """Why there is no response: Rust's `ErrorKind`, with the numbers of the C interface."""

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
        # A newer library may have more kinds.
        return cls.OTHER


class RequestFailed(HTTPClientError):
    """A request failed: there is no response, or only a part of it.

    This is a Tornado `HTTPClientError` with code 599, so code that catches those catches this too.

    * ``kind``: a `Kind`
    * ``phase``: the phase in which it failed, such as ``"Connect"``, ``"FirstByte"``, ``"Body"``
    * ``request_sent``: ``"no"``, ``"maybe"`` (written, but not answered: the server may have acted
      on it) or ``"yes"``
    * ``resend_is_safe``: whether the request can be sent again without taking effect twice
    * ``status``: the status received before the failure, or 0; the part of the body that arrived
      is in ``response.body``
    * ``request``: the request that was passed in, or a `Request` made from a URL; ``method`` and
      ``url``: its method and URL. A URL may contain secrets, so the message shows only the origin
    * ``attempts``: how often the request was assigned a connection, established or not; 0 if it
      never left the queue
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
        # The package's own `Request`; its `source` is the object that was passed in.
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

    # The base class defines a different one.
    __repr__ = __str__

    def errcode(self) -> int:
        """Returns the number that ``errorback`` got in 2013: -1 timeout, -2 no response at all,
        -3 an invalid response, 0 an error of the socket.
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
    """A call failed; the message says why."""


class WrongThread(StreamError):
    """A stream was used outside the thread of its IOLoop. Other threads must use
    ``io_loop.add_callback``.
    """


class StreamClosed(StreamError):
    """The stream, or its IOLoop, was closed."""


class Forked(StreamError):
    """The stream was created before this process was forked; its sockets belong to the parent."""


class InvalidRequest(StreamError, ValueError):
    """The request, or one of its options, is invalid and cannot be sent."""


class LibraryNotFound(ImportError):
    """libhttpstream could not be loaded; the message lists the places that were searched."""
