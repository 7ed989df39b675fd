"""Several IOLoops on several threads, each with its own instance; and programs that fork."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import List

from conftest import WAIT_SECONDS, WebServer, descriptors, until, wait_until

from httpstream import HTTPStream

PACKAGE = str(Path(__file__).resolve().parent.parent)


def test_each_thread_has_its_instance(web: WebServer) -> None:
    together = threading.Barrier(4)
    instances: List[HTTPStream] = []
    failures: List[BaseException] = []

    async def main(name: int) -> None:
        stream = HTTPStream.instance()
        instances.append(stream)
        together.wait(WAIT_SECONDS)
        try:
            answers: List[bytes] = []

            def read(resp):
                answers.append(resp.body)
                return f"{web.url}/{name}" if len(answers) < 100 else None

            stream.add_request(f"{web.url}/{name}", read)
            for _ in range(10):
                fetched = await asyncio.gather(
                    *(stream.fetch(f"{web.url}/{name}") for _ in range(20))
                )
                answers.extend(response.body for response in fetched)
            await until(lambda: stream.pending == 0)
            assert set(answers) == {b"/%d" % name} and len(answers) >= 200
            assert HTTPStream.instance() is stream
        finally:
            stream.close()

    def thread(name: int) -> None:
        try:
            asyncio.run(main(name))
        except BaseException as failure:
            failures.append(failure)

    before = descriptors()
    threads = [threading.Thread(target=thread, args=(name,)) for name in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(WAIT_SECONDS)
        assert not each.is_alive()
    assert failures == []
    assert len(set(map(id, instances))) == 4
    # The server closes its ends of the threads' connections a little later.
    wait_until(lambda: descriptors() <= before)


def python(program: str, *args: str) -> str:
    """Runs a program in a process of its own; returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {PACKAGE!r})\n{program}", *args],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKS = """
import asyncio, os, traceback
from tornado.ioloop import IOLoop
from httpstream import Forked, HTTPStream

url = sys.argv[1]
stream = HTTPStream.instance()
loop = stream.io_loop
answers = []
loop.run_sync(lambda: stream.fetch(url + "/warm"))
waiting = []
stream.add_request(url + "/held", lambda resp: waiting.append(resp.body))
loop.call_later(0.05, loop.stop)
loop.start()
child = os.fork()
if child == 0:
    try:
        def instance():
            # Python 3.12 and later give the child a loop of its own, and so its own stream.
            if IOLoop.current() is loop:
                HTTPStream.instance()
            assert HTTPStream.instance() is not stream
            HTTPStream.instance().close()
            stream.stats()

        for call in (
            instance,
            lambda: stream.add_request(url),
            lambda: stream.fetch(url),
            lambda: stream.cancel(1),
            stream.stats,
        ):
            try:
                call()
            except Forked as error:
                assert str(os.getppid()) in str(error) and "after the fork" in str(error), error
            else:
                raise AssertionError(f"{call} was done in the child")
        assert stream.pending == 0
        # Neither of these may affect the parent's descriptors.
        stream.close()
        del stream

        async def main():
            own = HTTPStream.instance()
            response = await own.fetch(url + "/child")
            own.close()
            return response.body

        assert asyncio.run(main()) == b"/child"
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert loop.run_sync(lambda: stream.fetch(url + "/parent")).body == b"/parent"
print("held", flush=True)
loop.run_sync(lambda: stream.fetch(url + "/answer"))


async def answered():
    while not waiting:
        await asyncio.sleep(0.01)


loop.run_sync(answered)
assert waiting == [b"message"], waiting
stream.close()
print("done")
"""


def test_a_child_is_told_and_the_parent_goes_on(web: WebServer) -> None:
    # The server answers the parent's poll after the child has ended.
    stop = threading.Event()

    def answer() -> None:
        while not stop.wait(0.01):
            if "GET /parent" in web.seen.requests:
                web.answer_held("message")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert python(FORKS, web.url).split() == ["held", "done"]
    finally:
        stop.set()
        thread.join()
    assert [request for request in web.seen.requests if request != "GET /held"] == [
        "GET /warm",
        "GET /child",
        "GET /parent",
        "GET /answer",
    ]


PRE_FORKED = """
import asyncio, os
from tornado.process import fork_processes, task_id
import httpstream

def work():
    async def main():
        stream = httpstream.HTTPStream.instance()
        url = f"{sys.argv[1]}/{task_id()}"
        responses = await asyncio.gather(*(stream.fetch(url) for _ in range(10)))
        assert {response.body for response in responses} == {b"/%d" % task_id()}
        stream.close()
    asyncio.run(main())

fork_processes(2, max_restarts=0)
work()
"""


def test_tornados_pre_fork(web: WebServer) -> None:
    # The package is imported before the fork, and the instances are created after it. The parent
    # exits when its children have exited.
    python(PRE_FORKED, web.url)
    assert sorted(web.seen.requests) == ["GET /0"] * 10 + ["GET /1"] * 10
