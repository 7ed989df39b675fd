"""The servers that the tests run against, each on a thread of its own. Every test is limited in
time, by pyproject.toml and by the timeouts of its own waits.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator, List, Optional, TypeVar

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from httpstream import HTTPStream

#: Long enough for a busy machine. Only a test that hangs waits this long.
WAIT_SECONDS = 60

T = TypeVar("T")


def run(main: Callable[[HTTPStream], Awaitable[T]], **settings: Any) -> T:
    """Runs `main` on a new IOLoop with a new stream, which is closed at the end."""

    async def bounded_main() -> T:
        stream = HTTPStream(IOLoop.current(), **settings)
        try:
            return await asyncio.wait_for(main(stream), WAIT_SECONDS)
        finally:
            stream.close()

    return asyncio.run(bounded_main())


class Seen:
    """What a server has received; written by its thread."""

    def __init__(self) -> None:
        self.requests: List[str] = []
        self.connections = 0


class WebServer:
    """Tornado's own HTTPServer. `/held` is answered when `answer_held` is called."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.port = 0
        self.io_loop: Optional[IOLoop] = None
        self._started = threading.Event()
        self._held: List[asyncio.Future] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(WAIT_SECONDS)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        server = self
        self.io_loop = IOLoop.current()
        self._stop = asyncio.Event()

        class Handler(RequestHandler):
            def prepare(self) -> None:
                server.seen.requests.append(f"{self.request.method} {self.request.uri}")

        class Echo(Handler):
            def get(self) -> None:
                self.set_header("X-Cookies", self.request.headers.get("Cookie", ""))
                self.write(self.request.uri or "")

            def post(self) -> None:
                self.set_header("X-Content-Type", self.request.headers.get("Content-Type", ""))
                self.set_header("X-Field", self.request.headers.get("X-Field", ""))
                self.write(self.request.body)

            put = post

        class Cookie(Handler):
            def get(self) -> None:
                self.set_cookie("ptwebqq", "0123")
                self.write("set")

        class Many(Handler):
            def get(self) -> None:
                self.add_header("X-Many", "one")
                self.add_header("X-Many", "two")
                self.set_header("X-Long", "x" * 20_000)

        class Status(Handler):
            def get(self, code: str) -> None:
                self.set_status(int(code), "As it was asked")
                if code != "304":
                    self.write("words")

        class Large(Handler):
            def get(self) -> None:
                self.write(b"0123456789abcdef" * 65536)

        class Held(Handler):
            async def get(self) -> None:
                future: asyncio.Future = asyncio.Future()
                server._held.append(future)
                self.write(await future)

        application = Application(
            [
                ("/cookie", Cookie),
                ("/many", Many),
                (r"/status/(\d+)", Status),
                ("/large", Large),
                ("/held.*", Held),
                ("/.*", Echo),
            ]
        )
        http = HTTPServer(application, idle_connection_timeout=3600)
        sockets = bind_sockets(0, "127.0.0.1", backlog=2048)
        http.add_sockets(sockets)
        accept = http.handle_stream

        def counted(stream: Any, address: Any) -> Any:
            self.seen.connections += 1
            return accept(stream, address)

        http.handle_stream = counted  # type: ignore[method-assign]
        self.port = sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        http.stop()
        await http.close_all_connections()

    def held(self) -> int:
        return len(self._held)

    def answer_held(self, words: str) -> None:
        """Answers all requests that are waiting at `/held`."""

        def answer() -> None:
            held, self._held = self._held, []
            for future in held:
                if not future.done():
                    future.set_result(words)

        assert self.io_loop is not None
        self.io_loop.add_callback(answer)

    def close(self) -> None:
        assert self.io_loop is not None
        self.answer_held("")
        self.io_loop.add_callback(self._stop.set)
        self._thread.join(WAIT_SECONDS)


class ScriptedServer:
    """Accepts connections one after the other and runs the script on each:
    `script(connection, number of the connection)`.
    """

    def __init__(self, script: Callable[[socket.socket, int], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._script = script
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(WAIT_SECONDS)
            with connection:
                try:
                    self._script(connection, number)
                except OSError:
                    pass  # the peer closed first
            number += 1

    def close(self) -> None:
        # Shutdown wakes the thread; close alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_SECONDS)


def read_head(connection: socket.socket) -> bytes:
    """Reads up to the empty line and returns everything that was read."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("closed before the head was complete")
        data += piece
    return data


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def plain() -> Iterator[str]:
    """The URL of the benchmark's server in its own process, for many cheap requests."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve().parent.parent / "bench_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    server.stdin.close()
    server.wait(WAIT_SECONDS)
    server.stdout.close()


@pytest.fixture
def scripted() -> Iterator[Callable[[Callable[[socket.socket, int], None]], ScriptedServer]]:
    servers: List[ScriptedServer] = []

    def start(script: Callable[[socket.socket, int], None]) -> ScriptedServer:
        servers.append(ScriptedServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def refused() -> str:
    """A URL that refuses connections: its port was free a moment ago, and has no listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key next to it."""
    if shutil.which("openssl") is None:
        print("skipped: openssl is not installed")
        pytest.skip("openssl is not installed")
    made = tmp_path / "server.pem"
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
        "-addext subjectAltName=IP:127.0.0.1 "
        f"-addext basicConstraints=critical,CA:FALSE -keyout {made}.key -out {made}".split(),
        check=True,
        capture_output=True,
        timeout=WAIT_SECONDS,
    )
    return made


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], bool]) -> None:
    """Waits for another thread's work. The test's own time limit applies."""
    while not condition():
        await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], bool]) -> None:
    """The same without a running loop, which would have descriptors of its own."""
    while not condition():
        time.sleep(0.005)
