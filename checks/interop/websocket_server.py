"""A WebSocket server for checks/tests/interop: websockets.

Sends every message back, in as many frames as the first byte of its path says: /3 for three. It
closes when a text says so: `close 4001 reason`. Prints its port once it listens. The arguments are
the port, or 0 for any, and for TLS the files of a certificate and its key.
"""

import asyncio
import signal
import ssl
import sys
from contextlib import suppress

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedOK


async def handle(socket):
    # It may be closed while a message is sent back.
    with suppress(ConnectionClosedOK):
        await echo(socket)


async def echo(socket):
    frames = int(socket.request.path[1:])
    count = 0
    pongs = []
    async for message in socket:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            # Of several pings, only the last must be answered (RFC 6455 §5.5.3).
            if pongs and not any(pong.done() for pong in pongs):
                code, reason = 4999, "no pong"
            await socket.close(int(code), reason)
            return
        count += 1
        if count % 500 == 0:
            # Waiting for the pong here could take forever: while the handler is busy, only a few
            # messages are read, and the pong comes behind those that are on their way.
            pongs.append(await socket.ping(f"{count}"))
        size = len(message) // frames + 1
        pieces = [message[at:at + size] for at in range(0, len(message), size)]
        await socket.send(pieces if len(pieces) > 1 else message)


async def main():
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[2], sys.argv[3])
    async with serve(
        handle,
        "127.0.0.1",
        int(sys.argv[1]),
        ssl=tls,
        max_size=None,
        subprotocols=["chat", "other"],
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        await server.wait_closed()


asyncio.run(main())
