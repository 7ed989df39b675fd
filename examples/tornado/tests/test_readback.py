"""Requests with readbacks, as in the class of 2013: chains, delays, errors, exceptions raised by
readbacks, cancel.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
import urllib.request
from typing import Any, Callable, List

import pytest
from conftest import ScriptedServer, WebServer, read_head, run, until
from tornado.httpclient import HTTPRequest
from tornado.ioloop import IOLoop

from httpstream import (
    HTTPStream,
    InvalidRequest,
    Kind,
    Request,
    RequestFailed,
    Response,
    StreamError,
)

Scripted = Callable[[Callable[[socket.socket, int], None]], ScriptedServer]


async def idle(stream: HTTPStream) -> None:
    """Waits until every chain has ended."""
    await until(lambda: stream.pending == 0)


def test_a_readback_reads_the_response(web: WebServer) -> None:
    seen: List[Any] = []

    async def main(stream: HTTPStream) -> None:
        def read(resp: Response) -> None:
            seen.extend(
                [
                    resp.read(),
                    resp.getcode(),
                    resp.code,
                    resp.msg,
                    resp.geturl(),
                    resp.info()["content-type"],
                    resp.error,
                ]
            )

        stream.add_request(urllib.request.Request(web.url + "/hello?a=1"), read)
        await idle(stream)

    run(main)
    assert seen == [
        b"/hello?a=1",
        200,
        200,
        "OK",
        web.url + "/hello?a=1",
        "text/html; charset=UTF-8",
        None,
    ]


def test_a_chain_runs_by_itself_on_one_connection(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        polls = []

        def on_check(resp: Response) -> Any:
            return urllib.request.Request(web.url + "/login?" + resp.read().decode()[1:]), on_login

        def on_login(resp: Response) -> Any:
            return [web.url + "/poll", on_poll, 0.01]

        def on_poll(resp: Response) -> Any:
            polls.append(resp.body)
            # The same request again with the same readback, then another request with it.
            return (
                web.url + "/poll"
                if len(polls) < 3
                else web.url + "/last"
                if len(polls) < 4
                else None
            )

        stream.add_request(web.url + "/check", on_check)
        await idle(stream)
        assert polls == [b"/poll", b"/poll", b"/poll", b"/last"]

    run(main)
    assert web.seen.requests == [
        "GET /check",
        "GET /login?check",
        "GET /poll",
        "GET /poll",
        "GET /poll",
        "GET /last",
    ]
    assert web.seen.connections == 1


def test_delays_are_never_early(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> List[float]:
        now = asyncio.get_running_loop().time
        times = [now()]

        def read(resp: Response) -> Any:
            times.append(now())
            return (web.url + "/2", read, 0.15) if len(times) == 2 else None

        stream.add_delay_request(web.url + "/1", read, 0.1)
        stream.add_request(web.url + "/never", lambda resp: None, delay=math.inf)
        await until(lambda: stream.pending == 1)
        return times

    start, first, second = run(main)
    assert first - start >= 0.1
    assert second - first >= 0.15
    assert web.seen.requests == ["GET /1", "GET /2"]


def test_without_a_readback_the_answer_is_thrown_away(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        stream.add_request(web.url + "/large")
        await idle(stream)
        # A follow-on without a readback.
        stream.add_request(web.url + "/a", lambda resp: (web.url + "/large", None))
        await idle(stream)
        stream.add_request(
            web.url + "/b",
            lambda resp: (Request(web.url + "/c", "POST", body="words"), None, 0.01),
        )
        await idle(stream)

    run(main)
    assert web.seen.requests == ["GET /large", "GET /a", "GET /large", "GET /b", "POST /c"]
    assert web.seen.connections == 1


def test_every_kind_of_request_can_be_sent(web: WebServer) -> None:
    answers: List[Any] = []

    async def main(stream: HTTPStream) -> None:
        requests = [
            urllib.request.Request(web.url + "/urllib#part", b"a=1", {"X-Field": "one"}),
            stream.make_post_request(web.url + "/form", {"name": "w x", "n": 2}),
            HTTPRequest(web.url + "/tornado", "PUT", {"X-Field": "two"}, b"bytes"),
            Request(
                web.url + "/own",
                "POST",
                [("X-Field", "three"), ("Content-Type", "text/plain")],
                "wörds",
            ),
        ]
        for request in requests:
            stream.add_request(
                request,
                lambda resp: answers.append(
                    (resp.body.decode(), resp.headers["X-Content-Type"], resp.headers["X-Field"])
                ),
            )
            await idle(stream)
        stream.get(
            web.url + "/get",
            {"q": "ü"},
            headers={"X-Field": "x"},
            readback=lambda resp: answers.append(resp.body),
        )
        await idle(stream)
        stream.post(
            web.url + "/post",
            {"q": "1"},
            headers={"X-Field": "x"},
            readback=lambda resp: answers.append(resp.headers["x-field"]),
        )
        await idle(stream)

    run(main)
    form = "application/x-www-form-urlencoded"
    assert answers == [
        ("a=1", form, "one"),
        ("name=w+x&n=2", form, ""),
        ("bytes", "", "two"),
        ("wörds", "text/plain", "three"),
        b"/get?q=%C3%BC",
        "x",
    ]
    assert web.seen.requests[0] == "POST /urllib"


NO_REQUESTS = [
    (None, "HTTPRequest, not NoneType"),
    (b"http://127.0.0.1/", "HTTPRequest, not bytes"),
    ("nothing", "not an absolute URL"),
    ("ftp://127.0.0.1/", "http or https"),
    (HTTPRequest("http://127.0.0.1/", streaming_callback=print), "streaming_callback"),
    (HTTPRequest("http://127.0.0.1/", validate_cert=False), "validate_cert"),
    (HTTPRequest("http://127.0.0.1/", follow_redirects=True), "follow_redirects"),
    (urllib.request.Request("http://127.0.0.1/", data=iter([b"x"])), "bytes"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("request_, words", NO_REQUESTS)
def test_what_cannot_be_sent_is_refused_with_words(request_: Any, words: str) -> None:
    async def main(stream: HTTPStream) -> None:
        with pytest.raises(InvalidRequest, match=words):
            stream.add_request(request_, lambda resp: None)
        with pytest.raises(InvalidRequest):
            stream.fetch(request_)
        assert stream.pending == 0
        assert not stream._chains and not stream._fetches

    run(main)


@pytest.mark.parametrize("delay", [-1, math.nan, "soon"])
def test_what_is_no_delay_is_refused(web: WebServer, delay: Any) -> None:
    async def main(stream: HTTPStream) -> None:
        with pytest.raises(InvalidRequest):
            stream.add_request(web.url, lambda resp: None, delay=delay)
        assert stream.pending == 0

    run(main)


@pytest.mark.parametrize("name, value", [("X-Bad\r\n", "x"), ("X", "a\r\nb"), ("", "x")])
def test_a_field_that_would_break_the_message_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest):
        Request("http://127.0.0.1/", headers={name: value})
        # Checked when it is sent, at the latest.
        run(lambda stream: stream.fetch(Request("http://127.0.0.1/", headers={name: value})))


def test_cookies_of_urllib_requests_come_back(web: WebServer) -> None:
    cookies: List[str] = []

    async def main(stream: HTTPStream) -> None:
        def on_set(resp: Response) -> Any:
            return echo, on_echo

        def on_echo(resp: Response) -> Any:
            cookies.append(resp.headers["X-Cookies"])
            # The same request again: it gets the cookies of the time when it is sent again.
            stream.cookiejar.clear()
            return (echo, lambda resp: cookies.append(resp.headers["X-Cookies"]))

        echo = stream.make_get_request(web.url + "/echo")
        stream.add_request(stream.make_get_request(web.url + "/cookie"), on_set)
        await idle(stream)

    run(main)
    assert cookies == ["ptwebqq=0123", ""]


# Errors


def reset(connection: socket.socket, _: int) -> None:
    read_head(connection)
    # Closes with a RST instead of a FIN.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def truncated(connection: socket.socket, _: int) -> None:
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-Field: here\r\n\r\nhalf")


def closed(connection: socket.socket, _: int) -> None:
    read_head(connection)


def malformed(connection: socket.socket, _: int) -> None:
    read_head(connection)
    connection.sendall(b"SMTP ready\r\n\r\n")


def silent(connection: socket.socket, _: int) -> None:
    # Until the peer closes.
    while connection.recv(65536):
        pass


#: What the server does, the kind of failure, and the errcode that errorback gets.
FAILURES = [
    (closed, Kind.CLOSED_BEFORE_RESPONSE, -2),
    (truncated, Kind.TRUNCATED, -3),
    (malformed, Kind.MALFORMED, -3),
    (silent, Kind.TIMEOUT, -1),
]


def patience(script: Any) -> float:
    """Returns a timeout: short if it is to expire, long if it is not what is tested."""
    return 0.3 if script is silent else 60


@pytest.mark.parametrize("script, kind, errcode", FAILURES)
def test_an_errorback_gets_number_and_words(
    scripted: Scripted, script: Any, kind: Kind, errcode: int
) -> None:
    got: List[Any] = []

    async def main(stream: HTTPStream) -> None:
        request = Request(scripted(script).url, timeout=patience(script), idempotent=False)
        stream.add_request(
            request, pytest.fail, lambda errcode, errmsg: got.append((errcode, errmsg))
        )
        await idle(stream)

    run(main)
    [(code, words)] = got
    assert code == errcode
    assert words.startswith(f"{kind.name}: ") and len(words) > len(kind.name) + 4


@pytest.mark.parametrize("script, kind, _errcode", FAILURES)
def test_without_an_errorback_the_readback_is_told(
    scripted: Scripted, script: Any, kind: Kind, _errcode: int
) -> None:
    got: List[Response] = []

    async def main(stream: HTTPStream) -> None:
        stream.add_request(Request(scripted(script).url, timeout=patience(script)), got.append)
        await idle(stream)

    run(main)
    [response] = got
    assert isinstance(response.error, RequestFailed)
    assert (response.code, response.error.kind, response.error.response) == (599, kind, response)
    with pytest.raises(RequestFailed):
        response.read()
    with pytest.raises(RequestFailed):
        response.rethrow()
    if kind is Kind.TRUNCATED:
        assert (response.error.status, response.body, response.error.phase) == (
            200,
            b"half",
            "Body",
        )


def test_a_refused_connection_is_an_error_of_that_request(refused: str, web: WebServer) -> None:
    got: List[Any] = []

    async def main(stream: HTTPStream) -> None:
        # A request that an errorback returns is sent as well.
        stream.add_request(
            refused,
            lambda resp: got.append(resp.body),
            lambda errcode, errmsg: (
                got.append((errcode, errmsg.partition(":")[0])) or web.url + "/instead"
            ),
        )
        await idle(stream)

    run(main)
    assert got == [(0, "CONNECT"), b"/instead"]


def test_a_reset_is_told(scripted: Scripted) -> None:
    async def main(stream: HTTPStream) -> None:
        with pytest.raises(RequestFailed) as caught:
            await stream.fetch(Request(scripted(reset).url, idempotent=False))
        assert caught.value.kind in (Kind.CLOSED_BEFORE_RESPONSE, Kind.IO)
        assert caught.value.request_sent == "maybe" and not caught.value.resend_is_safe

    run(main)


# What readbacks raise and return


def test_what_a_readback_raises_is_logged_and_ends_its_chain_alone(
    web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    answered: List[bytes] = []

    async def main(stream: HTTPStream) -> None:
        def raises(resp: Response) -> None:
            raise ZeroDivisionError("in a readback")

        def cancelled(resp: Response) -> None:
            raise asyncio.CancelledError

        for _ in range(3):
            stream.add_request(web.url + "/bad", raises)
            stream.add_request(web.url + "/good", lambda resp: answered.append(resp.body))
        stream.add_request(web.url + "/bad", cancelled)
        stream.add_request("http://127.0.0.1:1/", pytest.fail, lambda errcode, errmsg: 1 / 0)
        await idle(stream)
        assert not stream._chains
        assert (await stream.fetch(web.url + "/after")).body == b"/after"

    with caplog.at_level(logging.ERROR, "tornado.application"):
        run(main)
    assert answered == [b"/good"] * 3
    assert len(caplog.records) == 5
    first = caplog.records[0]
    assert first.name == "tornado.application"
    assert first.getMessage().startswith("Exception in callback <function")
    assert first.exc_info is not None and isinstance(
        first.exc_info[1], (ZeroDivisionError, asyncio.CancelledError)
    )


NO_ANSWERS = [
    17,
    (),
    ("http://127.0.0.1/",),
    ("a", "b", 0, 1),
    ("nothing", print),
    ("http://127.0.0.1/", "not a readback"),
    (None, print),
    object(),
]


@pytest.mark.parametrize("answer", NO_ANSWERS)
def test_what_is_no_answer_is_logged_and_ends_the_chain(
    web: WebServer, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    async def main(stream: HTTPStream) -> None:
        stream.add_request(web.url + "/1", lambda resp: answer)
        await idle(stream)
        assert (await stream.fetch(web.url + "/2")).code == 200

    with caplog.at_level(logging.ERROR, "tornado.application"):
        run(main)
    [record] = caplog.records
    assert record.exc_info is not None and isinstance(record.exc_info[1], StreamError)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_a_readback_can_end_the_program(web: WebServer, raised: Any) -> None:
    io_loop = IOLoop(make_current=False)
    others: List[bytes] = []

    def ends(resp: Response) -> None:
        raise raised()

    # The stream belongs to this thread's loop, which is not running yet.
    stream = HTTPStream(io_loop)
    try:
        stream.add_request(web.url + "/1", ends)
        with pytest.raises(raised):
            io_loop.start()
        # The stream can go on if the caller wants that.
        stream.add_request(web.url + "/2", lambda resp: others.append(resp.body) or stream.stop())
        stream.start()
        assert others == [b"/2"]
    finally:
        stream.close()
        io_loop.close()


# Cancel


def test_cancel_is_told_once(web: WebServer) -> None:
    got: List[Any] = []

    async def main(stream: HTTPStream) -> None:
        def read(resp: Response) -> str:
            got.append(resp.error.kind)  # type: ignore[union-attr]
            return web.url + "/dropped"

        delayed = stream.add_request(web.url + "/delayed", read, delay=3600)
        held = stream.add_request(web.url + "/held", read)
        queued = stream.add_request(
            web.url + "/queued", lambda resp: None, lambda errcode, errmsg: got.append(errmsg)
        )
        assert stream.cancel(queued)
        await until(lambda: web.held() == 1)
        assert stream.cancel(delayed) and stream.cancel(held)
        assert not stream.cancel(held)
        assert got == [] or got[0].startswith("CANCELLED")  # never inside cancel
        await idle(stream)
        assert not stream.cancel(delayed) and not stream.cancel(0xFFFF) and not stream.cancel(0)

    run(main)
    assert len(got) == 3
    assert [kind for kind in got if isinstance(kind, Kind)] == [Kind.CANCELLED] * 2
    assert web.seen.requests == ["GET /held"]


def test_a_readback_cancels_itself_and_others(web: WebServer) -> None:
    got: List[Any] = []

    async def main(stream: HTTPStream) -> None:
        def read(resp: Response) -> str:
            got.append(resp.error.kind if resp.error else resp.body)  # type: ignore[union-attr]
            if resp.error is None:
                assert stream.cancel(other) and stream.cancel(own)
            return web.url + "/dropped"

        other = stream.add_request(web.url + "/other", read, delay=3600)
        own = stream.add_request(web.url + "/own", read)
        await idle(stream)
        assert not stream._chains

    run(main)
    assert got == [b"/own", Kind.CANCELLED, Kind.CANCELLED]
    assert web.seen.requests == ["GET /own"]


def test_a_readback_submits(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        inner: List[bytes] = []

        def read(resp: Response) -> None:
            for n in range(10):
                stream.add_request(f"{web.url}/{n}", lambda resp: inner.append(resp.body))

        stream.add_request(web.url + "/outer", read)
        await idle(stream)
        assert sorted(inner) == [b"/%d" % n for n in range(10)]

    run(main)
