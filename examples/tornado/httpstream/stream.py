"""The stream: one engine on one IOLoop, driven by its descriptor and one timer.

The host has little to do (docs/ARCHITECTURE.md): it watches the engine's descriptor for reading,
keeps one timer for its deadline, and calls ``turn`` when either fires, and once after requests
were submitted outside of a turn. Readbacks run inside a turn, on the IOLoop's thread.

The cost of a request is dominated by calls through ctypes, so there are few of them: one to submit
it, and for the response one callback, one ``reply_view``, and one copy each of head and body. No
ctypes object is created per request.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
import urllib.parse
import urllib.request
import weakref
from http.cookiejar import CookieJar
from itertools import count
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple, Union

from tornado.ioloop import IOLoop
from tornado.log import app_log

from . import _ffi
from ._ffi import AGAIN_WORD, SEND_WORD, library
from .cookies import add_cookies, take_cookies
from .errors import (
    Forked,
    InvalidRequest,
    Kind,
    RequestFailed,
    StreamClosed,
    StreamError,
    WrongThread,
)
from .request import Request, Sendable, milliseconds, prepare, with_tornado_options
from .response import Response, reader
from .settings import check_names, new_engine

Params = Union[Mapping[str, Any], Sequence[Tuple[str, Any]]]
#: The return value of a readback: None, a request for the same readback, (request, readback), or
#: (request, readback, delay in seconds).
Answer = Union[None, Sendable, Tuple[Sendable, Any], Tuple[Sendable, Any, float]]
ReadCallback = Callable[[Response], Answer]
ErrorCallback = Callable[..., Answer]

#: The maximum number of turns of the engine per callback of the IOLoop, so that its other
#: callbacks run too.
TURNS_AT_ONCE = 4
#: URLs passed as text are prepared once, and this many are cached.
KEPT_REQUESTS = 512
#: A timer is not moved for a deadline that precedes it by no more than this, because the two
#: clocks are not read at the same instant.
TIMER_SLACK_SECONDS = 0.0015


class _Chain:
    """A request of ``add_request`` and its follow-ons, until a readback returns None."""

    __slots__ = ("request", "readback", "errorback")

    def __init__(
        self, request: Request, readback: ReadCallback, errorback: Optional[ErrorCallback]
    ) -> None:
        self.request = request
        self.readback = readback
        self.errorback = errorback


class _Fetch(asyncio.Future):
    """The future that ``fetch`` returns. Canceling it, as ``asyncio.wait_for`` may, cancels its
    request.
    """

    __slots__ = ("stream", "request", "id", "raise_error")
    stream: "HTTPStream"
    request: Request
    id: int
    raise_error: bool

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        self.stream._cancel_fetch(self.id)
        return True


class _Watched:
    """The engine's descriptor as registered with the IOLoop. Through it,
    ``IOLoop.close(all_fds=True)`` closes the stream, not just the descriptor.
    """

    def __init__(self, fd: int, stream: "HTTPStream") -> None:
        self._fd = fd
        self._stream = weakref.ref(stream)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        stream = self._stream()
        if stream is not None:
            stream.close()


class HTTPStream:
    """An HTTP client on an IOLoop: requests with readbacks, and ``await``.

    A stream may be used only by the thread of its IOLoop. Other threads must use
    ``io_loop.add_callback(stream.add_request, …)``.

    The settings have the names of the engine's ``Config``: numbers such as
    ``max_connections_per_origin=50``; durations in seconds, without a unit in the name
    (``timeout_connect=3.0``, ``idle_timeout=None``); ``limit_max_body_bytes=…``. In addition:
    ``user_agent="…"``, ``headers={…}`` for every request, ``resolve_to={"*.example.com":
    "127.0.0.1:8080"}``, ``ca_file="…"``. An unknown setting raises TypeError.
    """

    _instances: "weakref.WeakKeyDictionary[IOLoop, weakref.ref[HTTPStream]]" = (
        weakref.WeakKeyDictionary()
    )
    _instances_lock = threading.Lock()
    _settings: Dict[str, Any] = {}

    def __init__(self, io_loop: Optional[IOLoop] = None, **settings: Any) -> None:
        self.io_loop = io_loop if io_loop is not None else IOLoop.current()
        #: For urllib.request.Request only: filled from responses, and sent with later requests.
        self.cookiejar = CookieJar()
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        # The thread that may use the stream; 0 once it is closed.
        self._owner = 0
        self._loop: asyncio.AbstractEventLoop = self.io_loop.asyncio_loop  # type: ignore[attr-defined]
        if self._loop.is_running() and self._loop is not _running_loop():
            # The engine would belong to this thread, but be turned on the other one.
            raise WrongThread("this IOLoop runs on another thread; create its stream there")
        self._engine = new_engine(settings)
        self._chains: Dict[int, _Chain] = {}
        self._fetches: Dict[int, _Fetch] = {}
        self._requests: Dict[str, Request] = {}
        # The request that a callback returns; the engine takes it after the callback has returned.
        self._handed: Optional[Request] = None
        self._keys = count(1)
        self._turning = False
        self._turn_is_due = False
        self._raised: Optional[BaseException] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self._id = ctypes.c_uint64()
        self._id_at = ctypes.addressof(self._id)
        self._read_by(self._chains, self._fetches)
        self._watched = _Watched(library.check(library.fd(self._engine)), self)
        self.io_loop.add_handler(self._watched, self._on_event, IOLoop.READ)  # type: ignore[arg-type]
        self._owner = self._thread
        _alive.add(self)

    # Instances

    @classmethod
    def configure(cls, **settings: Any) -> None:
        """Sets the settings of the instances that `instance` creates from now on.

        Raises TypeError for an unknown setting.
        """
        check_names("configure", settings)
        cls._settings = settings

    @classmethod
    def instance(cls) -> "HTTPStream":
        """Returns the stream of the current IOLoop, and creates it on first use: one per loop, and
        so one for each thread that has a loop.

        Raises Forked in a process that was forked with the loop of its parent.
        """
        io_loop = IOLoop.current()
        with cls._instances_lock:
            known = cls._instances.get(io_loop)
            stream = known() if known is not None else None
            if stream is not None and stream._pid != os.getpid():
                raise stream._refusal()
            if stream is None or stream._owner == 0:
                stream = cls(io_loop, **cls._settings)
                # The loop references the stream through its handler; a strong reference here would
                # keep both alive forever.
                cls._instances[io_loop] = weakref.ref(stream)
            return stream

    # Requests, as in 2013

    def add_request(
        self,
        request: Sendable,
        readback: Optional[ReadCallback] = None,
        errorback: Optional[ErrorCallback] = None,
        delay: float = 0,
    ) -> int:
        """Sends a request after `delay` seconds; `readback` reads the response. Returns a number
        for `cancel`.

        ``readback(response)`` is called once for each request. It returns None to end the chain,
        or what is to be sent next: a request, which it reads as well, ``(request, readback)``, or
        ``(request, readback, delay)``. If `readback` is None, the response is read to its end and
        dropped.

        If there is no response, ``errorback(errcode=…, errmsg=…)`` is called instead of the
        readback, and returns the same values. Without an `errorback`, the readback is called with
        a response whose ``error`` gives the reason and whose ``read()`` raises it.

        Exceptions raised by either are logged like those of Tornado's callbacks, and end only that
        chain.

        Raises InvalidRequest if the request cannot be sent, WrongThread, StreamClosed, Forked.
        """
        if threading.get_ident() != self._owner:
            raise self._refusal()
        prepared = self._prepared(request)
        delay_ms = milliseconds(delay) if delay else 0
        _check_readback(readback)
        if readback is None:
            error = library.submit(
                self._engine, prepared.handle, delay_ms, self._unread_at, self._id_at
            )
        else:
            key = next(self._keys)
            self._chains[key] = _Chain(prepared, readback, errorback)
            self._chain_words[4] = key
            error = library.submit(
                self._engine, prepared.handle, delay_ms, self._chain_at, self._id_at
            )
            if error:
                self._chains.pop(key, None)
        if error:
            raise library.exception(error)
        if not self._turn_is_due:
            self._turn_soon()
        return self._id.value

    def add_delay_request(
        self,
        request: Sendable,
        readback: Optional[ReadCallback] = None,
        delay: float = 60,
        errorback: Optional[ErrorCallback] = None,
    ) -> int:
        """Calls `add_request` with a delay in seconds. In 2013 each delay was a thread; now it is
        an entry in the engine's timing wheel.
        """
        return self.add_request(request, readback, errorback, delay)

    def make_get_url(self, url: str, params: Params) -> str:
        return f"{url}?{urllib.parse.urlencode(params)}"

    def make_get_request(
        self, url: str, params: Optional[Params] = None
    ) -> urllib.request.Request:
        """Returns a urllib request with the parameters in its query. Cookies are added when it is
        submitted.
        """
        return urllib.request.Request(self.make_get_url(url, params) if params else url)

    def make_post_request(self, url: str, params: Params) -> urllib.request.Request:
        """Returns a urllib request with the parameters as a form."""
        return urllib.request.Request(url, urllib.parse.urlencode(params).encode("ascii"))

    def get(
        self,
        url: str,
        params: Optional[Params] = None,
        *,
        headers: Optional[Mapping[str, str]] = None,
        readback: Optional[ReadCallback] = None,
        errorback: Optional[ErrorCallback] = None,
        delay: float = 0,
    ) -> int:
        return self._add_with(
            self.make_get_request(url, params), headers, readback, errorback, delay
        )

    def post(
        self,
        url: str,
        params: Params = (),
        *,
        headers: Optional[Mapping[str, str]] = None,
        readback: Optional[ReadCallback] = None,
        errorback: Optional[ErrorCallback] = None,
        delay: float = 0,
    ) -> int:
        return self._add_with(
            self.make_post_request(url, params), headers, readback, errorback, delay
        )

    def _add_with(
        self, request: urllib.request.Request, headers: Optional[Mapping[str, str]], *rest: Any
    ) -> int:
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        return self.add_request(request, *rest)

    def start(self) -> None:
        """Runs the IOLoop until `stop` is called."""
        self.io_loop.start()

    def stop(self) -> None:
        """Stops the IOLoop. The stream resumes when the loop is started again."""
        self.io_loop.stop()

    # Requests, awaited

    def fetch(
        self, request: Union[Sendable, str], raise_error: bool = True, **options: Any
    ) -> "asyncio.Future[Response]":
        """Sends a request: ``response = await stream.fetch(url)``, as with Tornado's
        AsyncHTTPClient.

        ``delay`` is in seconds. For a URL, the other options are those of `Request` (``method``,
        ``headers``, ``body``, ``timeout``, ``long_poll``, …) and those of Tornado's
        ``HTTPRequest``.

        Redirects are not followed, whereas Tornado follows them by default. A 3xx is a response
        like any other, and so an error; its message says that it is a redirect.
        ``follow_redirects=True`` is rejected.

        Raises RequestFailed if there is no response, and HTTPClientError for a status that is not
        2xx; with ``raise_error=False``, either is the ``error`` of the response. Raises TypeError
        for an unknown option, and InvalidRequest for an option of Tornado's that is not supported
        here. Canceling the returned future cancels the request.
        """
        if threading.get_ident() != self._owner:
            raise self._refusal()
        delay_ms = 0
        if options:
            delay = options.pop("delay", 0)
            delay_ms = milliseconds(delay) if delay else 0
        # The options without `delay`, which is not part of a request.
        prepared = self._prepared_with(request, options) if options else self._prepared(request)
        future = _Fetch(loop=self._loop)
        future.stream = self
        future.request = prepared
        future.raise_error = raise_error
        key = next(self._keys)
        self._fetches[key] = future
        self._fetch_words[4] = key
        error = library.submit(
            self._engine, prepared.handle, delay_ms, self._fetch_at, self._id_at
        )
        if error:
            self._fetches.pop(key, None)
            raise library.exception(error)
        future.id = self._id.value
        if not self._turn_is_due:
            self._turn_soon()
        return future

    def cancel(self, chain: int) -> bool:
        """Ends a chain. Returns True if its readback (or errorback) is called once more, with an
        error of `Kind.CANCELLED`, and False if the chain had ended.
        """
        if threading.get_ident() != self._owner:
            raise self._refusal()
        cancelled = library.check(library.cancel(self._engine, chain))
        if not self._turn_is_due:
            self._turn_soon()
        return cancelled == 1

    def _cancel_fetch(self, chain: int) -> None:
        # A future may be canceled late: when the interpreter exits, or by another thread, which
        # may not touch the engine.
        if threading.get_ident() == self._owner:
            library.cancel(self._engine, chain)
            self._turn_soon()

    def _prepared_with(self, request: Any, options: Dict[str, Any]) -> Request:
        if not isinstance(request, str):
            raise InvalidRequest("options can be passed with a URL only; a request has its own")
        return with_tornado_options(request, options)

    def _prepared(self, request: Any) -> Request:
        if type(request) is Request:
            return request
        if type(request) is str:
            known = self._requests.get(request)
            if known is None:
                known = Request(request)
                if len(self._requests) >= KEPT_REQUESTS:
                    # Drop the oldest: dictionaries keep their order.
                    del self._requests[next(iter(self._requests))]
                self._requests[request] = known
            return known
        if isinstance(request, urllib.request.Request):
            prepared = prepare(add_cookies(self.cookiejar, request))
            prepared.source = request
            return prepared
        return prepare(request)

    # State

    @property
    def pending(self) -> int:
        """The number of chains that have not ended: queued, in flight or delayed."""
        return library.check(library.pending(self._engine)) if self._owner else 0

    def stats(self) -> Dict[str, int]:
        """Returns counts of connections, requests, bytes and turns: the engine's ``Stats``, by
        name. Not callable inside a readback.
        """
        if threading.get_ident() != self._owner:
            raise self._refusal()
        stats = _ffi.Stats(size=ctypes.sizeof(_ffi.Stats))
        library.check(library.get_stats(self._engine, stats))
        return {name: getattr(stats, name) for name, *_ in stats._fields_ if name != "size"}

    def network_changed(self) -> None:
        """Tells the engine that the network changed: an interface came up, a VPN connected or the
        machine woke from sleep.

        Idle connections are closed. Cached names, and the addresses and name servers noted as
        failing, are forgotten; resolv.conf and the hosts file are read again. Requests in flight
        go on.
        """
        if threading.get_ident() != self._owner:
            raise self._refusal()
        library.check(library.network_changed(self._engine))
        self._turn_soon()

    def close_idle(self) -> None:
        """Closes idle connections. After a change of the network, call `network_changed`, which
        does this and more.
        """
        if threading.get_ident() != self._owner:
            raise self._refusal()
        library.check(library.close_idle(self._engine))
        self._turn_soon()

    # Closing

    def close(self) -> None:
        """Closes every connection. No readback runs any more; a fetch that has no response yet
        raises `RequestFailed` (`Kind.GONE`).

        Inside a readback, the connections are closed at the end of the turn. Closing twice does
        nothing. In a forked child, closing drops the stream and leaves the parent's connections
        alone.
        """
        if self._owner == 0:
            return
        if threading.get_ident() != self._owner:
            raise self._refusal()
        self._owner = 0
        self.io_loop.remove_handler(self._watched)  # type: ignore[arg-type]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fetches = list(self._fetches.values())
        self._fetches.clear()
        self._chains.clear()
        self._requests.clear()
        for future in fetches:
            if not future.done() and not self._loop.is_closed():
                future.set_exception(
                    RequestFailed("the stream was closed", Kind.GONE, request=future.request)
                )
        if not self._turning:
            library.check(library.free(self._engine))

    def __del__(self, _thread: Any = threading.get_ident, _free: Any = library.free) -> None:
        # The IOLoop was dropped without closing the stream. On another thread nothing can be done:
        # the engine may not be touched there. The parameters have defaults because, when the
        # interpreter exits, the module's names may be gone.
        if getattr(self, "_owner", 0) == _thread():
            _free(self._engine)

    def _refusal(self) -> StreamError:
        if self._pid != os.getpid():
            return Forked(
                f"this HTTPStream was created by process {self._pid}, before {os.getpid()} was "
                "forked: its connections belong to the parent. Create one after the fork, on an "
                "IOLoop created after it"
            )
        if self._owner == 0:
            return StreamClosed("this HTTPStream is closed")
        return WrongThread(
            "this HTTPStream belongs to the thread of its IOLoop; from others, use "
            "io_loop.add_callback(stream.add_request, …)"
        )

    def _forget_parent(self) -> None:
        """In a forked child: prevents all further calls to the engine and its descriptor, which
        the parent shares.
        """
        self._owner = 0

    # Turns

    def _turn_soon(self) -> None:
        """Schedules a turn in the loop's next iteration: one for all requests submitted in this
        one.
        """
        if not self._turning and not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._on_due)

    def _on_due(self) -> None:
        self._turn_is_due = False
        self._turn()

    def _on_event(self, _fd: Any, _events: int) -> None:
        self._turn()

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    def _turn(self) -> None:
        if self._owner == 0 or self._turning:
            return
        self._turning = True
        try:
            error = library.turn(self._engine, TURNS_AT_ONCE, None)
        finally:
            self._turning = False
            self._handed = None
        if self._owner == 0:
            # A readback closed the stream.
            library.check(library.free(self._engine))
        elif error:
            app_log.error("HTTPStream: %s", library.exception(error))
            if error == _ffi.ERROR_CALLBACK:
                # That chain has ended; all others were handled.
                self._arm()
            else:
                # Poll failed, or the library panicked. The next turn would fail the same way, and
                # the descriptor stays readable.
                self.close()
        else:
            self._arm()
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    def _arm(self) -> None:
        """Sets the timer. A timer that fires early may stay: it finds nothing due and is set
        again, so most turns need not touch it.
        """
        ms = library.timeout_ms(self._engine)
        if ms == 0:
            self._turn_soon()
        elif ms > 0:
            due = self._loop.time() + ms / 1000
            timer = self._timer
            if timer is None:
                self._timer = self._loop.call_at(due, self._on_timer)
            elif due < timer.when() - TIMER_SLACK_SECONDS:
                timer.cancel()
                self._timer = self._loop.call_at(due, self._on_timer)
        elif ms < -1:
            app_log.error("HTTPStream: %s", library.exception(ms))

    # Responses

    def _read_by(self, chains: Dict[int, _Chain], fetches: Dict[int, _Fetch]) -> None:
        """Creates the callbacks, once per stream. Chains differ only in the key passed to them.
        """
        read = reader()
        answered = self._answered
        follow = self._follow

        def on_reply(key: int, reply: int, next_at: int) -> None:
            chain = chains.get(key)
            if chain is None:
                return  # closed in this turn
            callback: Callable[..., Answer] = chain.readback
            try:
                request = chain.request
                response = read(reply, request)
                if request.source is not None:
                    answered(response, request)
                if response._failure is not None and chain.errorback is not None:
                    failure, callback = response._failure, chain.errorback
                    answer = callback(errcode=failure.errcode(), errmsg=str(failure))
                else:
                    answer = callback(response)
                if answer is not None and self._owner:
                    follow(chain, answer, next_at)
            except (KeyboardInterrupt, SystemExit) as error:
                self._raised = error
            except BaseException:
                # Logged as IOLoop logs the exceptions of its callbacks.
                app_log.error("Exception in callback %r", callback, exc_info=True)

        def on_fetched(key: int, reply: int, _next_at: int) -> None:
            future = fetches.get(key)
            if future is None or future.done():
                return
            try:
                request = future.request
                response = read(reply, request)
                if request.source is not None:
                    answered(response, request)
                if future.raise_error and not (200 <= response.code < 300):
                    future.set_exception(response.error)  # type: ignore[arg-type]
                else:
                    future.set_result(response)
            except (KeyboardInterrupt, SystemExit) as error:
                self._raised = error
                asyncio.Future.cancel(future)
            except BaseException as error:
                future.set_exception(error)

        def drop_chain(key: int) -> None:
            chains.pop(key, None)

        def drop_fetch(key: int) -> None:
            fetches.pop(key, None)

        self._chain_readback = _ffi.Readback(
            on_reply=_ffi.OnReply(on_reply), release=_ffi.Release(drop_chain)
        )
        self._fetch_readback = _ffi.Readback(
            on_reply=_ffi.OnReply(on_fetched), release=_ffi.Release(drop_fetch)
        )
        self._unread_readback = _ffi.Readback()
        self._chain_at = ctypes.addressof(self._chain_readback)
        self._fetch_at = ctypes.addressof(self._fetch_readback)
        self._unread_at = ctypes.addressof(self._unread_readback)
        # The fifth word is `user`.
        self._chain_words = _ffi.words_of(self._chain_readback)
        self._fetch_words = _ffi.words_of(self._fetch_readback)

    def _answered(self, response: Response, request: Request) -> None:
        if isinstance(request.source, urllib.request.Request):
            take_cookies(self.cookiejar, response, request.source)

    def _follow(self, chain: _Chain, answer: Any, next_at: int) -> None:
        """Writes the value that a readback returned into the engine's `next`. Raises
        InvalidRequest if the value is not valid.
        """
        readback: Optional[ReadCallback] = chain.readback
        delay_ms = 0
        if isinstance(answer, (tuple, list)):
            if len(answer) == 3:
                request, readback, delay = answer
                delay_ms = milliseconds(delay) if delay else 0
            elif len(answer) == 2:
                request, readback = answer
            else:
                raise InvalidRequest(
                    "a readback returns (request, readback) or (request, readback, delay), "
                    f"not {len(answer)} values"
                )
            _check_readback(readback)
        else:
            request = answer
        prepared = self._prepared(request)
        words = _ffi.next_words(next_at)
        if prepared is chain.request:
            words[0] = AGAIN_WORD
        else:
            words[0] = SEND_WORD
            words[1] = prepared.handle
            # The engine takes it after the callback has returned.
            self._handed = prepared
        words[2] = delay_ms
        if readback is None:
            words[3] = self._unread_at
        else:
            chain.request = prepared
            chain.readback = readback


def _running_loop() -> Optional[asyncio.AbstractEventLoop]:
    """Returns the loop that is running on this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _check_readback(readback: Any) -> None:
    # Raised to the caller; later, the mistake would only be logged.
    if readback is not None and not callable(readback):
        raise InvalidRequest(f"a readback must be callable; {type(readback).__name__} is not")


#: All streams, for the child of a fork.
_alive: "weakref.WeakSet[HTTPStream]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # A thread that does not exist in the child may have held the old lock.
    HTTPStream._instances_lock = threading.Lock()
    for stream in list(_alive):
        stream._forget_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
