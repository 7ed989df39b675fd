"""`await stream.fetch(…)`: responses and errors like those of Tornado's client, long polls,
canceling.
"""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any, Callable, List

import pytest
from conftest import ScriptedServer, WebServer, read_head, run, until
from tornado.httpclient import HTTPClientError, HTTPRequest

from httpstream import HTTPStream, InvalidRequest, Kind, Request, RequestFailed, Response

Scripted = Callable[[Callable[[socket.socket, int], None]], ScriptedServer]


def test_a_response_is_as_tornado_has_it(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        url = web.url + "/path?q=1"
        response = await stream.fetch(url)
        assert (response.code, response.reason, response.body) == (200, "OK", b"/path?q=1")
        assert response.buffer.read() == b"/path?q=1"
        assert response.effective_url == url and response.request.url == url
        assert response.headers["content-length"] == "9" and "X-Nothing" not in response.headers
        assert response.error is None and response.rethrow() is None
        assert (
            0 < response.request_time < 60 and response.time_info["total"] == response.request_time
        )
        many = await stream.fetch(web.url + "/many")
        assert many.headers.get_list("x-many") == ["one", "two"]
        assert len(many.headers["X-Long"]) == 20_000, (
            "a head longer than the buffer was cut off"
        )
        assert many.body == b""
        large = await stream.fetch(web.url + "/large")
        assert large.body == b"0123456789abcdef" * 65536
        # The response refers to the object that was passed in.
        request = HTTPRequest(web.url + "/given")
        assert (await stream.fetch(request)).request is request

    run(main)


def test_a_response_says_who_answered_and_when(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        first = await stream.fetch(web.url, delay=0.01)
        assert first.peer == ("127.0.0.1", web.port)
        assert (first.reused, first.attempts) == (False, 1)
        times = first.time_info
        assert list(times) == ["namelookup", "connect", "sent", "starttransfer", "total"]
        assert list(times.values()) == sorted(times.values()) and times["total"] < 60
        second = await stream.fetch(web.url)
        assert (second.peer, second.reused, second.attempts) == (first.peer, True, 1)
        assert list(second.time_info) == ["sent", "starttransfer", "total"]

    run(main)


def test_a_request_that_is_sent_twice_says_so(scripted: Scripted) -> None:
    def script(connection: socket.socket, number: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if number == 0:
            # The second request on this connection gets no response.
            read_head(connection)

    async def main(stream: HTTPStream) -> None:
        url = scripted(script).url
        await stream.fetch(url)
        response = await stream.fetch(url)
        assert (response.attempts, response.reused) == (2, False)

    run(main)


def test_after_a_change_of_the_network_no_connection_is_used_again(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        await stream.fetch(web.url)
        stream.network_changed()
        assert not (await stream.fetch(web.url)).reused
        inside: List[bool] = []

        def on_reply(_response: Response) -> None:
            stream.network_changed()
            inside.append(True)

        stream.add_request(web.url, on_reply)
        await until(lambda: bool(inside))
        assert not (await stream.fetch(web.url)).reused

    run(main)


def test_a_failure_says_of_what(refused: str) -> None:
    async def main(stream: HTTPStream) -> None:
        given = HTTPRequest(refused + "path?token=1", method="PUT", body=b"")
        with pytest.raises(RequestFailed) as caught:
            await stream.fetch(given)
        error = caught.value
        assert error.request is given
        assert (error.method, error.url) == ("PUT", refused + "path?token=1")
        assert refused.rstrip("/") in str(error) and "token" not in str(error)
        assert error.response is not None and error.response.peer is None
        assert error.attempts == 1
        assert set(error.response.time_info) == {"total"}
        with pytest.raises(RequestFailed) as caught:
            await stream.fetch(refused)
        assert isinstance(caught.value.request, Request) and caught.value.request.url == refused
        future = stream.fetch(refused, method="DELETE")
        stream.close()
        with pytest.raises(RequestFailed) as caught:
            await future
        assert (caught.value.kind, caught.value.method) == (Kind.GONE, "DELETE")

    run(main)


#: The longest durations.
LONG = [math.inf, 1e300, 1e308, 2**64 / 1000, (2**64 - 1) / 1000, 1e12, 10**400]


@pytest.mark.parametrize("seconds", [None, *LONG])
def test_an_idle_connection_is_kept_however_long(web: WebServer, seconds: Any) -> None:
    async def main(stream: HTTPStream) -> None:
        for i in range(3):
            assert (await stream.fetch(web.url)).reused == (i > 0)
        assert stream.stats()["opened"] == 1

    run(main, idle_timeout=seconds)


@pytest.mark.parametrize("seconds, is_kept", [(0, False), (0.0, False), (60, True), (True, True)])
def test_an_idle_connection_is_kept_as_long_as_it_is_said(
    web: WebServer, seconds: Any, is_kept: bool
) -> None:
    async def main(stream: HTTPStream) -> None:
        await stream.fetch(web.url)
        assert (await stream.fetch(web.url)).reused == is_kept

    run(main, idle_timeout=seconds)


@pytest.mark.parametrize("seconds", LONG)
def test_what_is_long_is_not_short(web: WebServer, seconds: Any) -> None:
    async def main(stream: HTTPStream) -> None:
        for option in ("timeout", "request_timeout", "connect_timeout", "long_poll"):
            assert (await stream.fetch(web.url, **{option: seconds})).code == 200
        request = HTTPRequest(web.url, connect_timeout=seconds, request_timeout=seconds)
        assert (await stream.fetch(request)).code == 200
        later = stream.add_request(web.url, None, delay=seconds)
        await stream.fetch(web.url)
        assert stream.pending == 1 and stream.cancel(later)

    durations = ("resolve", "connect", "tls", "write", "first_byte", "idle", "total")
    settings = {f"timeout_{name}": seconds for name in durations}
    run(main, keep_names=seconds, keep_stale_names=seconds, **settings)


@pytest.mark.parametrize("option", ["timeout", "request_timeout", "connect_timeout"])
def test_no_seconds_are_no_limit(web: WebServer, option: str) -> None:
    """As in Tornado, 0 means no limit."""

    async def main(stream: HTTPStream) -> None:
        assert (await stream.fetch(web.url, **{option: 0})).code == 200

    run(main, timeout_total=None)


@pytest.mark.parametrize("seconds", [-1, -1e-9, -math.inf, math.nan, "1", "soon", b"1", [], 1j])
def test_what_is_no_duration_is_refused(web: WebServer, seconds: Any) -> None:
    async def main(stream: HTTPStream) -> None:
        for option in ("timeout", "request_timeout", "connect_timeout", "long_poll", "delay"):
            if option != "delay" or seconds:
                with pytest.raises(InvalidRequest, match="seconds"):
                    stream.fetch(web.url, **{option: seconds})
        for setting in ("idle_timeout", "timeout_total", "keep_names"):
            with pytest.raises(InvalidRequest, match="seconds"):
                HTTPStream(stream.io_loop, **{setting: seconds})
        assert stream.pending == 0

    run(main)


def test_options_go_with_a_url(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        response = await stream.fetch(
            web.url,
            method="POST",
            headers={"X-Field": "here"},
            body=b"bytes",
            request_timeout=10,
            connect_timeout=5,
        )
        assert response.body == b"bytes" and response.headers["X-Field"] == "here"
        head = await stream.fetch(web.url + "/head", method="HEAD", raise_error=False)
        assert head.code == 405 and head.body == b""
        before = asyncio.get_running_loop().time()
        await stream.fetch(Request(web.url), delay=0.1)
        assert asyncio.get_running_loop().time() - before >= 0.1
        with pytest.raises(InvalidRequest):
            stream.fetch(Request(web.url), method="POST")

    run(main)


@pytest.mark.parametrize("code", [301, 304, 404, 500])
def test_a_status_that_is_not_2xx_is_an_error(web: WebServer, code: int) -> None:
    async def main(stream: HTTPStream) -> None:
        url = f"{web.url}/status/{code}"
        with pytest.raises(HTTPClientError) as caught:
            await stream.fetch(url)
        error = caught.value
        assert (error.code, error.message) == (code, "As it was asked")
        assert not isinstance(error, RequestFailed)
        response = await stream.fetch(url, raise_error=False)
        assert response.code == code and isinstance(response.error, HTTPClientError)
        assert error.response is not None and error.response.body == response.body
        # There is a response, so it can be read.
        assert response.read() == response.body

    run(main)


def test_no_response_is_an_error_of_tornado_too(refused: str) -> None:
    async def main(stream: HTTPStream) -> None:
        with pytest.raises(HTTPClientError) as caught:
            await stream.fetch(refused)
        error = caught.value
        assert isinstance(error, RequestFailed)
        assert (error.code, error.kind, error.phase, error.request_sent) == (
            599,
            Kind.CONNECT,
            "Connect",
            "no",
        )
        assert error.resend_is_safe and "127.0.0.1" in str(error)
        response = await stream.fetch(refused, raise_error=False)
        assert (
            response.code == 599
            and isinstance(response.error, RequestFailed)
            and response.body == b""
        )

    run(main)


def test_a_timeout_names_its_phase(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        # Opens the connection first, so that connecting takes no part of the timeout.
        await stream.fetch(web.url)
        with pytest.raises(RequestFailed) as caught:
            await stream.fetch(web.url + "/held", timeout=0.5)
        assert (caught.value.kind, caught.value.phase, caught.value.request_sent) == (
            Kind.TIMEOUT,
            "FirstByte",
            "maybe",
        )

    run(main)


def test_a_long_poll_waits_longer_than_the_timeout_for_others(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        poll = stream.fetch(web.url + "/held", long_poll=60)
        other = stream.fetch(web.url + "/held")
        with pytest.raises(RequestFailed) as caught:
            await other
        assert caught.value.kind is Kind.TIMEOUT and not poll.done()
        web.answer_held("message")
        assert (await poll).body == b"message"

    run(main, timeout_first_byte=0.3)


def test_a_hundred_held_polls_cost_no_turns(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        polls = [stream.fetch(web.url + "/held", long_poll=60) for _ in range(100)]
        await until(lambda: web.held() == 100)
        await asyncio.sleep(0.1)
        before = stream.stats()["turns"]
        await asyncio.sleep(1)
        # A few turns may come from timers that were left to fire early.
        assert stream.stats()["turns"] - before <= 3
        web.answer_held("message")
        assert {(await poll).body for poll in polls} == {b"message"}

    run(main)


def test_a_cancelled_fetch_closes_its_connection(scripted: Scripted) -> None:
    asked, closed = [], []

    def script(connection: socket.socket, _: int) -> None:
        asked.append(read_head(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        closed.append(connection.recv(1))

    async def main(stream: HTTPStream) -> None:
        url = scripted(script).url
        waiting = asyncio.ensure_future(asyncio.wait_for(stream.fetch(url), 3600))
        await until(lambda: len(asked) == 1)
        waiting.cancel()
        await until(lambda: closed == [b""])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.fetch(url, delay=3600), 0.01)
        task = asyncio.ensure_future(stream.fetch(url, delay=3600))
        future = stream.fetch(url, delay=3600)
        await asyncio.sleep(0)
        assert task.cancel() and future.cancel() and not future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: stream.pending == 0)
        assert future.cancelled() and not stream._fetches

    run(main)


def test_a_fetch_cancelled_with_its_answer_on_the_way_is_quiet(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        futures = [stream.fetch(f"{web.url}/{n}") for n in range(50)]
        # Each response cancels another fetch, whose response may arrive in the same turn.
        for n in range(25):
            futures[n].add_done_callback(lambda _, n=n: futures[49 - n].cancel())
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(
            isinstance(result, asyncio.CancelledError) or result.code == 200 for result in results
        )
        assert [result.body for result in results[:25]] == [b"/%d" % n for n in range(25)]
        await until(lambda: stream.pending == 0)

    run(main)


def test_a_thousand_at_once(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        responses = await asyncio.gather(*(stream.fetch(f"{web.url}/{n}") for n in range(1000)))
        assert [response.body for response in responses] == [b"/%d" % n for n in range(1000)]
        assert stream.stats()["answered"] == 1000
        assert len(stream._requests) <= 512

    run(main)
    assert len(web.seen.requests) == 1000


def test_names_are_resolved(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        assert (await stream.fetch(f"http://localhost:{web.port}/name")).body == b"/name"
        assert (await stream.fetch("http://www.linuxzen.com/seed")).body == b"/seed"

    run(main, resolve_to={"www.linuxzen.com": f"127.0.0.1:{web.port}"})


def test_settings(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> Any:
        response = await stream.fetch(web.url, method="POST", body=b"")
        assert response.headers["X-Field"] == "always"
        return stream.stats()

    run(
        main,
        headers={"X-Field": "always"},
        user_agent="bot/1",
        max_connections=4,
        idle_timeout=1.5,
        timeout_connect=None,
    )


NO_SETTINGS = [
    ("no_such_setting", r"unexpected keyword argument 'no_such_setting'$"),
    ("idle_timout", "did you mean 'idle_timeout'"),
    # Python has seconds where C has milliseconds.
    ("timeout_connect_ms", "did you mean 'timeout_connect'"),
]


@pytest.mark.parametrize("name, words", NO_SETTINGS)
def test_a_setting_that_there_is_not_is_a_type_error(name: str, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        HTTPStream(**{name: 1})
    with pytest.raises(TypeError, match=words):
        HTTPStream.configure(**{name: 1})
    assert HTTPStream._settings == {}


def test_an_option_that_there_is_not_is_a_type_error(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        with pytest.raises(TypeError, match="'timout'; did you mean 'timeout'"):
            stream.fetch(web.url, timout=1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'source'"):
            stream.fetch(web.url, source=1)
        with pytest.raises(TypeError):
            Request(web.url, timout=1)  # type: ignore[call-arg]
        assert stream.pending == 0

    run(main)


@pytest.mark.parametrize("number", [-1, 2**64, 1.5, "many", None])
def test_a_number_is_not_taken_for_another(web: WebServer, number: Any) -> None:
    async def main(stream: HTTPStream) -> None:
        if number is not None:  # the default
            with pytest.raises(InvalidRequest, match="max_body_bytes is"):
                stream.fetch(web.url, max_body_bytes=number)
        with pytest.raises(InvalidRequest, match="max_connections is"):
            HTTPStream(stream.io_loop, max_connections=number)

    run(main)


@pytest.mark.parametrize("user_agent, sent", [(None, None), ("", None), ("bot/1", b"bot/1")])
def test_the_user_agent_is_as_it_was_set(scripted: Scripted, user_agent: Any, sent: Any) -> None:
    heads: List[bytes] = []

    def script(connection: socket.socket, _number: int) -> None:
        heads.append(read_head(connection))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main(stream: HTTPStream) -> None:
        assert (await stream.fetch(scripted(script).url)).code == 204

    run(main, user_agent=user_agent)
    lines = [line for line in heads[0].split(b"\r\n") if line.lower().startswith(b"user-agent:")]
    assert lines == ([] if sent is None else [b"User-Agent: " + sent])
