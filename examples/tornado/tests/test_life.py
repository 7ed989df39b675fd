"""How streams begin and end, and that ended chains and closed streams leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from typing import Any, List

import pytest
from conftest import WebServer, descriptors, run, until, wait_until
from tornado.ioloop import IOLoop
from tornado.log import app_log

from httpstream import (
    HTTPStream,
    Kind,
    Request,
    RequestFailed,
    StreamClosed,
    StreamError,
    WrongThread,
    _ffi,
)
from httpstream.stream import KEPT_REQUESTS


def test_there_is_one_instance_for_each_loop(web: WebServer) -> None:
    async def main() -> "HTTPStream":
        stream = HTTPStream.instance()
        assert HTTPStream.instance() is stream
        assert stream.io_loop is IOLoop.current()
        assert (await stream.fetch(web.url + "/1")).body == b"/1"
        stream.close()
        other = HTTPStream.instance()
        assert other is not stream
        assert (await other.fetch(web.url + "/2")).body == b"/2"
        other.close()
        return other

    assert asyncio.run(main()) is not asyncio.run(main())


def test_configure_is_for_instances_made_later(web: WebServer) -> None:
    async def main() -> bytes:
        stream = HTTPStream.instance()
        try:
            return (await stream.fetch("http://bot.example/configured")).body
        finally:
            stream.close()

    HTTPStream.configure(resolve_to={"bot.example": f"127.0.0.1:{web.port}"})
    try:
        assert asyncio.run(main()) == b"/configured"
    finally:
        HTTPStream.configure()


def test_a_closed_stream_says_so_and_answers_what_waits(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        fetched = stream.fetch(web.url + "/held")
        stream.add_request(web.url + "/held", pytest.fail)
        stream.add_request(web.url + "/later", pytest.fail, delay=3600)
        await until(lambda: web.held() == 2)
        stream.close()
        stream.close()
        with pytest.raises(RequestFailed) as caught:
            await fetched
        assert caught.value.kind is Kind.GONE
        for call in (stream.add_request, stream.fetch):
            with pytest.raises(StreamClosed):
                call(web.url)
        for call in (stream.stats, stream.close_idle, stream.network_changed):
            with pytest.raises(StreamClosed):
                call()
        with pytest.raises(StreamClosed):
            stream.cancel(1)
        assert stream.pending == 0

    run(main)


def test_a_readback_may_close_the_stream(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        def read(resp: Any) -> Any:
            read_by.append(resp.code)
            stream.close()
            return web.url + "/dropped", read

        read_by: List[int] = []
        fetched = stream.fetch(web.url + "/held")
        for _ in range(20):
            stream.add_request(web.url + "/1", read)
        with pytest.raises(RequestFailed):
            await fetched
        assert read_by == [200]
        with pytest.raises(StreamClosed):
            stream.fetch(web.url)

    before = descriptors()
    run(main)
    # The server closes its ends a little later.
    wait_until(lambda: descriptors() <= before)
    assert "GET /dropped" not in web.seen.requests


def test_a_loop_closes_its_stream_with_its_descriptors(web: WebServer) -> None:
    before = descriptors()
    io_loop = IOLoop(make_current=False)
    stream = HTTPStream(io_loop)
    assert io_loop.run_sync(lambda: stream.fetch(web.url + "/1")).body == b"/1"
    io_loop.close(all_fds=True)
    with pytest.raises(StreamClosed):
        stream.fetch(web.url)
    wait_until(lambda: descriptors() <= before)


def test_a_stream_goes_with_its_loop(web: WebServer) -> None:
    async def main() -> "weakref.ref[HTTPStream]":
        stream = HTTPStream.instance()
        await stream.fetch(web.url)
        return weakref.ref(stream)

    before = descriptors()
    known = asyncio.run(main())
    # Tornado drops its reference to a loop of asyncio.run when it creates the next one.
    asyncio.run(asyncio.sleep(0, IOLoop))
    IOLoop(make_current=False).close()
    gc.collect()
    assert known() is None
    wait_until(lambda: descriptors() <= before)


def test_a_stream_of_another_thread_is_refused(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        def misuse() -> None:
            for call in (stream.add_request, stream.fetch):
                with pytest.raises(WrongThread, match="add_callback"):
                    call(web.url)
            with pytest.raises(WrongThread):
                stream.close()

        await asyncio.get_running_loop().run_in_executor(None, misuse)
        # The correct way.
        answered: List[bytes] = []
        read = lambda resp: answered.append(resp.body)  # noqa: E731
        await asyncio.get_running_loop().run_in_executor(
            None, stream.io_loop.add_callback, stream.add_request, web.url + "/1", read
        )
        await until(lambda: answered == [b"/1"])

    run(main)


def test_a_stream_is_made_on_the_thread_of_its_loop(web: WebServer) -> None:
    async def main() -> None:
        io_loop = IOLoop.current()
        before = descriptors()

        def misuse() -> None:
            with pytest.raises(WrongThread, match="runs on another thread"):
                HTTPStream(io_loop)

        await asyncio.get_running_loop().run_in_executor(None, misuse)
        assert descriptors() == before

    asyncio.run(main())


class Readback:
    """A readback that can be referenced weakly."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def __call__(self, resp: Any) -> Any:
        answer, self.answer = self.answer, None
        return answer


def test_what_is_over_is_let_go(
    web: WebServer, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Log records reference the exceptions' frames, and pytest keeps the records.
    monkeypatch.setattr(app_log, "disabled", True)

    async def main(stream: HTTPStream) -> None:
        watched: List[weakref.ref] = []

        def watch(thing: Any) -> Any:
            watched.append(weakref.ref(thing))
            return thing

        def raises(resp: Any) -> None:
            raise ValueError

        stream.add_request(watch(Request(web.url + "/done")), watch(Readback()))
        stream.add_request(
            web.url + "/follow",
            watch(Readback((watch(Request(web.url + "/last")), watch(Readback())))),
        )
        stream.add_request(
            web.url + "/unread", watch(Readback((watch(Request(web.url + "/last")), None)))
        )
        stream.add_request(
            watch(Request(refused)), watch(Readback()), watch(lambda errcode, errmsg: None)
        )
        stream.add_request(watch(Request(web.url + "/raises")), watch(lambda resp: raises(resp)))
        stream.cancel(
            stream.add_request(watch(Request(web.url + "/never")), watch(Readback()), delay=3600)
        )
        with pytest.raises(ValueError):
            stream.add_request(watch(Request(web.url)), watch(Readback()), delay=-1)
        await until(lambda: stream.pending == 0)
        await stream.fetch(watch(Request(web.url + "/fetched")))
        stream.fetch(watch(Request(web.url + "/cancelled")), raise_error=False).cancel()
        await until(lambda: stream.pending == 0)
        gc.collect()
        assert [ref() for ref in watched if ref() is not None] == []
        assert not stream._chains and not stream._fetches

        # Closing the stream also drops chains that have not ended.
        stream.add_request(watch(Request(web.url + "/held")), watch(Readback()))
        stream.add_request(watch(Request(web.url + "/later")), watch(Readback()), delay=3600)
        stream.fetch(watch(Request(web.url + "/held"))).add_done_callback(
            lambda future: future.exception()
        )
        await until(lambda: web.held() == 2)
        stream.close()
        await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in watched if ref() is not None] == []

    run(main)


def test_a_request_is_freed_with_its_last_user(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        request = Request(web.url)
        handle = request.handle
        stream.add_request(request, lambda resp: None)
        del request
        await until(lambda: stream.pending == 0)
        await asyncio.sleep(0)
        assert _ffi.library.request_free(handle) == _ffi.ERROR_HANDLE

        # Nothing is kept of a request that the engine rejects.
        broken = Request(web.url)
        assert _ffi.library.request_free(broken.handle) == _ffi.OK
        for call in (stream.fetch, lambda request: stream.add_request(request, pytest.fail)):
            with pytest.raises(StreamError, match="was freed"):
                call(broken)
        assert not stream._chains and not stream._fetches and stream.pending == 0

    run(main)


def test_ten_thousand_requests_leave_nothing(plain: str) -> None:
    async def some(stream: HTTPStream, requests: int) -> None:
        left = requests // 2

        def read(resp: Any) -> Any:
            nonlocal left
            left -= 1
            assert resp.headers["Content-Length"]
            # Every tenth URL is a new one.
            return f"{plain}/{left}" if left % 10 == 0 else plain + "/again" if left > 0 else None

        for _ in range(10):
            stream.add_request(plain + "/again", read)
        for _ in range(requests // 100):
            await asyncio.gather(*(stream.fetch(plain + "/again") for _ in range(50)))
        await until(lambda: stream.pending == 0)

    async def main(stream: HTTPStream) -> None:
        # Fills caches, pools and tables.
        await some(stream, 2000)
        gc.collect()
        opened, stats = descriptors(), stream.stats()
        tracemalloc.start()
        try:
            await some(stream, 1000)
            await asyncio.gather(*(stream.fetch(f"{plain}/new/{n}") for n in range(KEPT_REQUESTS)))
            gc.collect()
            before = tracemalloc.take_snapshot()
            await some(stream, 10_000)
            gc.collect()
            after = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        ours = [tracemalloc.Filter(True, "*/httpstream/*")]
        grown = after.filter_traces(ours).compare_to(before.filter_traces(ours), "filename")
        # Less than one byte per request; dictionaries change their size.
        assert sum(row.size_diff for row in grown) < 8192, [str(row) for row in grown]
        assert descriptors() <= opened + 2
        assert stream.stats()["answered"] - stats["answered"] >= 11_000

    run(main)


def test_the_timer_is_left_alone_by_most_turns(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        loop = asyncio.get_running_loop()
        armed = 0
        call_at = loop.call_at

        def counted(when: float, callback: Any, *args: Any, **options: Any) -> Any:
            nonlocal armed
            armed += callback == stream._on_timer
            return call_at(when, callback, *args, **options)

        loop.call_at = counted  # type: ignore[method-assign]
        before = stream.stats()["turns"]
        for _ in range(200):
            await stream.fetch(web.url)
        assert stream.stats()["turns"] - before >= 200
        # The first deadline, nearer ones, and those that expired meanwhile.
        assert armed < 20

    run(main)


def test_a_delay_before_a_timeout_is_kept(web: WebServer) -> None:
    async def main(stream: HTTPStream) -> None:
        # The timer is set for the poll. A nearer deadline moves it forward, and then it is set for
        # the poll again.
        poll = stream.fetch(web.url + "/held", long_poll=1)
        await until(lambda: web.held() == 1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        await stream.fetch(web.url + "/soon", delay=0.2)
        assert 0.2 <= loop.time() - start < 1 + 10, "the request waited for the poll's deadline"
        assert not poll.done()
        web.answer_held("")
        await poll

    run(main)
