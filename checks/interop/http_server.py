"""An HTTP server for checks/tests/interop: uvicorn with starlette.

Prints its port once it listens. The port is the first argument, or 0 for any; the second is a
directory of files.
"""

import asyncio
import hashlib
import socket
import sys

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
EVENTS = 1000


async def upload(request):
    """Answers with what has arrived."""
    digest, length = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        length += len(piece)
    return JSONResponse({
        "length": length,
        "sha256": digest.hexdigest(),
        "content-length": request.headers.get("content-length"),
        "transfer-encoding": request.headers.get("transfer-encoding"),
        "expect": request.headers.get("expect"),
    })


async def refuse(request):
    """Answers without reading the body, so uvicorn sends no 100 (Continue)."""
    return PlainTextResponse("too large", 413)


async def form(request):
    """Answers with the parts of a form. Contents are compared by their checksums."""
    parts = []
    async with request.form() as form:
        for name, value in form.multi_items():
            is_text = isinstance(value, str)
            content = value.encode() if is_text else await value.read()
            parts.append({
                "name": name,
                "file": None if is_text else value.filename,
                "type": None if is_text else value.content_type,
                "length": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            })
    return JSONResponse(parts)


async def events(request):
    """Events 1 to 1000, from behind Last-Event-ID on. Then the stream is over for good.

    A response stalls behind some 400 of them, so it is the test that ends it.
    """
    last = int(request.headers.get("last-event-id", 0))
    if last == EVENTS:
        return Response(status_code=204)

    async def following():
        for i in range(last + 1, EVENTS + 1):
            if i % 7 == 0:
                yield ServerSentEvent(comment=f"a comment before {i}\nof two lines", sep=sep)
            if i % 50 == 0:
                yield ServerSentEvent(retry=10 + i % 3, sep=sep)
            data = f"event {i}\n\n  line ü: {'x' * (i % 300)}\nfrom {last}"
            name = "even" if i % 2 == 0 else None
            yield ServerSentEvent(data, event=name, id=str(i), sep=sep)
            await asyncio.sleep(0.0005 if i <= last + 400 else 3600)

    # Each kind of line end has its turn.
    sep = ["\n", "\r\n", "\r"][int(request.query_params["turn"]) % 3]
    return EventSourceResponse(following(), ping=1, sep=sep)


async def file(request):
    return FileResponse(f"{FOLDER}/{request.path_params['name']}")


app = Starlette(routes=[
    Route("/upload", upload, methods=["POST", "PUT"]),
    Route("/refuse", refuse, methods=["PUT"]),
    Route("/form", form, methods=["POST"]),
    Route("/events", events),
    Route("/files/{name}", file),
])

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", PORT))
listener.listen(128)
print(listener.getsockname()[1], flush=True)
# As an error it also logs that a stream was ended by a shutdown.
config = uvicorn.Config(app, log_level="critical", http="h11", timeout_graceful_shutdown=1)
uvicorn.Server(config).run(sockets=[listener])
