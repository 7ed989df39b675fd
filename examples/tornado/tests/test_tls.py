"""https against Tornado's own server, with a certificate made by the test."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from conftest import run
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.testing import bind_unused_port

from httpstream import HTTPStream, Kind, RequestFailed


def answer(request: HTTPServerRequest) -> None:
    body = request.protocol.encode()
    assert request.connection is not None
    request.connection.write_headers(
        ResponseStartLine("HTTP/1.1", 200, "OK"),
        HTTPHeaders({"Content-Length": str(len(body))}),
        body,
    )
    request.connection.finish()


def test_https(certificate: Path) -> None:
    async def main(trusting: HTTPStream) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, f"{certificate}.key")
        server = HTTPServer(answer, ssl_options=context)
        listener, port = bind_unused_port()
        server.add_socket(listener)
        url = f"https://127.0.0.1:{port}/"
        responses = await asyncio.gather(*(trusting.fetch(url) for _ in range(20)))
        assert {response.body for response in responses} == {b"https"}
        suspicious = HTTPStream()
        with pytest.raises(RequestFailed) as caught:
            await suspicious.fetch(url)
        assert (caught.value.kind, caught.value.phase) == (Kind.TLS, "Tls")
        suspicious.close()
        server.stop()
        await server.close_all_connections()

    run(main, ca_file=str(certificate))
