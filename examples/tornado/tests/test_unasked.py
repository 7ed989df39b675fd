"""Data that arrives on an idle connection while no response is outstanding is never the response
to the next request, which is sent on another connection.

The host does nothing wrong in these tests: its callbacks only take some time, as callbacks do.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from conftest import WAIT_SECONDS, read_head, run, until

from httpstream import HTTPStream, Request, Response

#: By name: the data to send, and whether a FIN follows.
UNASKED: Dict[str, Any] = {
    "nothing": (b"", False),
    "fin": (b"", True),
    "408": (
        b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate",
        True,
    ),
    "200": (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked", False),
    "crlf": (b"\r\n", False),
    "last-chunk": (b"0\r\n\r\n", False),
    "close_notify": (b"", True),
}


class Server:
    """Answers each request with "CONNECTION PATH", the connections counted from 1.

    After its first response, the first connection reads nothing until `send` has set the
    unsolicited data to send. With `hold`, responses wait for `answer`.
    """

    def __init__(self, context: Optional[ssl.SSLContext] = None, hold: bool = False) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        #: Requests that arrived on a connection that had sent unsolicited data.
        self.stale: List[bytes] = []
        self.held = threading.Event()
        self._hold = hold
        self._answers: "queue.Queue[None]" = queue.Queue()
        self._orders: "queue.Queue[str]" = queue.Queue()
        self._done: "queue.Queue[None]" = queue.Queue()
        threading.Thread(target=self._accept, daemon=True).start()

    def send(self, unasked: str) -> None:
        """Sends the data on the first connection, and waits until it must have arrived."""
        self._orders.put(unasked)
        self._done.get(timeout=WAIT_SECONDS)
        time.sleep(0.005)

    def answer(self) -> None:
        self._answers.put(None)
        self._done.get(timeout=WAIT_SECONDS)
        time.sleep(0.005)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            number = self.connections
            connection.settimeout(WAIT_SECONDS)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self._converse(connection, number)
        except OSError:
            pass  # the peer closed first

    def _converse(self, connection: socket.socket, number: int) -> None:
        spoilt = False
        count = 0
        while True:
            head = read_head(connection)
            count += 1
            if spoilt:
                self.stale.append(head)
            if self._hold:
                self.held.set()
                self._answers.get(timeout=WAIT_SECONDS)
            path = head.split(b" ")[1].lstrip(b"/")
            body = b"%d %s" % (number, path)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            if self._hold:
                self._done.put(None)
            elif (number, count) == (1, 1):
                unasked = self._orders.get(timeout=WAIT_SECONDS)
                spoilt = unasked != "nothing"
                self._send(connection, unasked)
                self._done.put(None)

    def _send(self, connection: socket.socket, unasked: str) -> None:
        data, ends = UNASKED[unasked]
        connection.sendall(data)
        if unasked == "close_notify":
            assert isinstance(connection, ssl.SSLSocket)
            # unwrap would wait for the client's close_notify, which does not come.
            connection.settimeout(0)
            try:
                connection.unwrap()
            except OSError:
                pass
            connection.settimeout(WAIT_SECONDS)
        if ends:
            # With TLS, this shuts down the underlying socket.
            socket.socket.shutdown(connection, socket.SHUT_WR)


@pytest.fixture
def other() -> Iterator[Server]:
    server = Server(hold=True)
    yield server
    server.close()


class Test:
    """A first request, the server's unsolicited data, and a second request with its response."""

    __test__ = False

    def __init__(self, stream: HTTPStream, server: Server, other: Server, unasked: str) -> None:
        self.stream, self.server, self.other, self.unasked = stream, server, other, unasked
        self.second = Request(server.url)
        self.answers: List[Response] = []

    def on_second(self, response: Response) -> None:
        self.answers.append(response)

    def submit(self, _response: Response) -> None:
        self.stream.add_request(self.second, self.on_second)

    def follow(self, _response: Response) -> Any:
        return self.second, self.on_second

    def working(self, readback: Callable[[Response], Any]) -> Callable[[Response], Any]:
        """Returns a readback that blocks, like a database call, while the server sends."""

        def slow(response: Response) -> Any:
            assert response.code == 200
            self.server.send(self.unasked)
            time.sleep(0.05)
            return readback(response)

        return slow

    async def first(self) -> None:
        response = await self.stream.fetch(f"{self.server.url}/first")
        assert response.body == b"1 first"

    async def beside(self, readback: Callable[[Response], Any]) -> None:
        """Leaves a request to another origin outstanding; `readback` will read its response."""
        self.stream.add_request(self.other.url, readback)
        await until(self.other.held.is_set)


async def between_turns(test: Test) -> None:
    await test.first()
    test.server.send(test.unasked)
    test.stream.add_request(test.second, test.on_second)


async def submitted_in_a_turn(test: Test) -> None:
    await test.first()
    await test.beside(test.submit)
    test.other.answer()
    test.server.send(test.unasked)


async def returned_in_a_turn(test: Test) -> None:
    await test.first()
    await test.beside(test.follow)
    test.other.answer()
    test.server.send(test.unasked)


async def returned_in_a_turn_that_was_told_before(test: Test) -> None:
    await test.first()
    await test.beside(test.follow)
    test.server.send(test.unasked)
    test.other.answer()


async def submitted_after_work(test: Test) -> None:
    await test.first()
    await test.beside(test.working(test.submit))
    test.other.answer()


async def returned_after_work(test: Test) -> None:
    await test.first()
    await test.beside(test.working(test.follow))
    test.other.answer()


async def submitted_after_work_on_its_own_connection(test: Test) -> None:
    test.stream.add_request(f"{test.server.url}/first", test.working(test.submit))


async def returned_after_work_on_its_own_connection(test: Test) -> None:
    test.stream.add_request(f"{test.server.url}/first", test.working(test.follow))


async def fetched_after_blocking(test: Test) -> None:
    await test.first()
    test.server.send(test.unasked)
    time.sleep(0.05)
    test.on_second(await test.stream.fetch(test.second, raise_error=False))


WAYS = [
    between_turns,
    submitted_in_a_turn,
    returned_in_a_turn,
    returned_in_a_turn_that_was_told_before,
    submitted_after_work,
    returned_after_work,
    submitted_after_work_on_its_own_connection,
    returned_after_work_on_its_own_connection,
    fetched_after_blocking,
]


def check(
    server: Server, other: Server, unasked: str, method: str, way: Any, **settings: Any
) -> None:
    async def main(stream: HTTPStream) -> None:
        test = Test(stream, server, other, unasked)
        body = b"a body" if method == "POST" else None
        test.second = Request(f"{server.url}/second", method, body=body)
        await way(test)
        await until(lambda: bool(test.answers))
        (answer,) = test.answers
        assert answer.error is None
        if unasked == "nothing":
            assert (answer.body, answer.reused) == (b"1 second", True)
        else:
            assert (answer.body, answer.reused) == (b"2 second", False)
        assert not server.stale

    run(main, **settings)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("unasked", [name for name in UNASKED if name != "close_notify"])
def test_over_http(other: Server, unasked: str, method: str, way: Any) -> None:
    server = Server()
    try:
        check(server, other, unasked, method, way)
    finally:
        server.close()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("unasked", UNASKED)
def test_over_https(certificate: Path, other: Server, unasked: str, method: str, way: Any) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, f"{certificate}.key")
    server = Server(context)
    try:
        check(server, other, unasked, method, way, ca_file=str(certificate))
    finally:
        server.close()
