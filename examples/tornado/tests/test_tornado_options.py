"""Every parameter of Tornado's HTTPRequest either works or is rejected by name."""

from __future__ import annotations

import inspect
import socket
from typing import Any, Callable, Dict, List

import pytest
from conftest import ScriptedServer, WebServer, read_head, run, until
from tornado.httpclient import HTTPClientError, HTTPRequest

from httpstream import HTTPStream, InvalidRequest, Response
from httpstream.request import REQUEST_OPTIONS, TORNADO_OPTIONS

Scripted = Callable[[Callable[[socket.socket, int], None]], ScriptedServer]

#: Values that are not supported.
REFUSED: Dict[str, Any] = {
    "follow_redirects": True,
    "max_redirects": 3,
    "decompress_response": True,
    "use_gzip": True,
    "validate_cert": False,
    "allow_ipv6": False,
    "network_interface": "lo",
    "streaming_callback": print,
    "header_callback": print,
    "prepare_curl_callback": print,
    "proxy_host": "proxy.example",
    "proxy_port": 8080,
    "proxy_username": "me",
    "proxy_password": "secret",
    "proxy_auth_mode": "basic",
    "ca_certs": "/etc/ca.pem",
    "client_key": "/etc/key.pem",
    "client_cert": "/etc/cert.pem",
    "body_producer": print,
    "ssl_options": {},
    "auth_mode": "digest",
    "auth_password": "secret",
}
#: Values that work, and what the server receives.
WORKS: Dict[str, Any] = {
    "follow_redirects": (False, b""),
    "decompress_response": (False, b""),
    "use_gzip": (False, b""),
    "allow_nonstandard_methods": (True, b""),
    "validate_cert": (True, b""),
    "allow_ipv6": (True, b""),
    "connect_timeout": (0, b""),
    "request_timeout": (0, b""),
    "user_agent": ("bot/1", b"User-Agent: bot/1\r\n"),
    "if_modified_since": (1, b"If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n"),
    "auth_username": ("me", b"Authorization: Basic bWU6\r\n"),
    "headers": ({"X-One": "1"}, b"X-One: 1\r\n"),
    "method": ("PATCH", b"PATCH / HTTP/1.1\r\n"),
}


def test_no_parameter_is_forgotten() -> None:
    parameters = set(inspect.signature(HTTPRequest.__init__).parameters) - {"self", "url"}
    assert parameters <= TORNADO_OPTIONS | set(REQUEST_OPTIONS)
    tested = {*REFUSED, *WORKS, "body", "expect_100_continue"}
    assert parameters <= tested


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_left_undone_is_refused_by_name(web: WebServer, name: str) -> None:
    given = {name: REFUSED[name]}

    async def main(stream: HTTPStream) -> None:
        with pytest.raises(InvalidRequest, match=name) as caught:
            stream.fetch(web.url, **given)
        assert "secret" not in str(caught.value)
        if name != "use_gzip":  # another name of decompress_response
            with pytest.raises(InvalidRequest, match=name):
                stream.fetch(HTTPRequest(web.url, **given))
        assert stream.pending == 0

    run(main)
    assert not web.seen.requests


@pytest.mark.parametrize("name", WORKS)
def test_what_works(scripted: Scripted, name: str) -> None:
    value, line = WORKS[name]
    heads: List[bytes] = []

    def script(connection: socket.socket, _number: int) -> None:
        while True:
            heads.append(read_head(connection))
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main(stream: HTTPStream) -> None:
        url = scripted(script).url
        assert (await stream.fetch(url, **{name: value})).code == 204
        assert (await stream.fetch(HTTPRequest(url, **{name: value}))).code == 204

    run(main)
    assert len(heads) == 2
    for head in heads:
        assert line in head
        # No coding is requested, since nothing is decoded.
        assert b"Accept-Encoding" not in head


def test_a_password_goes_with_its_name(scripted: Scripted) -> None:
    heads: List[bytes] = []

    def script(connection: socket.socket, _number: int) -> None:
        heads.append(read_head(connection))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main(stream: HTTPStream) -> None:
        url = scripted(script).url
        await stream.fetch(url, auth_username="me", auth_password="sésame", auth_mode="basic")

    run(main)
    assert b"Authorization: Basic bWU6c8Opc2FtZQ==\r\n" in heads[0]


def test_a_body_waits_for_100_continue(scripted: Scripted) -> None:
    bodies: List[bytes] = []

    def script(connection: socket.socket, _number: int) -> None:
        head = read_head(connection)
        assert b"Expect: 100-continue\r\n" in head and head.endswith(b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        bodies.append(connection.recv(100))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main(stream: HTTPStream) -> None:
        url = scripted(script).url
        await stream.fetch(url, method="POST", body=b"a body", expect_100_continue=True)

    run(main)
    assert bodies == [b"a body"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_that_says_so(scripted: Scripted, code: int) -> None:
    """Tornado follows redirects by default. Here the error says that they are not followed."""

    def script(connection: socket.socket, _number: int) -> None:
        while True:
            read_head(connection)
            connection.sendall(
                b"HTTP/1.1 %d Elsewhere\r\nLocation: /there?token=1\r\n" % code
                + b"Content-Length: 0\r\n\r\n"
            )

    async def main(stream: HTTPStream) -> None:
        url = scripted(script).url
        with pytest.raises(HTTPClientError, match="redirects are not followed") as caught:
            await stream.fetch(HTTPRequest(url))
        assert caught.value.code == code and "token" not in str(caught.value)
        assert caught.value.response is not None
        assert caught.value.response.headers["Location"] == "/there?token=1"
        seen: List[Response] = []
        stream.add_request(url, seen.append)
        await until(lambda: bool(seen))
        assert "redirects are not followed" in str(seen[0].error)
        assert (seen[0].code, seen[0].reason) == (code, "Elsewhere")

    run(main)
