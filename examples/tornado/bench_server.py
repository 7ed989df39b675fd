"""The server of the benchmark: sends the same response to every request, as cheaply as Python can,
in a process of its own.

It prints its port, and serves until its standard input ends. It only counts heads, which is enough
for GET requests: one response per empty line, connections kept open, and one write for the
requests of one read.
"""

from __future__ import annotations

import select
import socket
import sys

BODY = (
    b'{"retcode":0,"result":[{"poll_type":"message",'
    b'"value":{"msg_id":1,"from_uin":2,"content":["hello"]}}]}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: bench\r\n"
    b"Date: Sat, 21 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json; charset=utf-8\r\n"
    b"Cache-Control: no-store\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    halves: dict[int, bytes] = {}
    while True:
        for fd, _ in poll.poll():
            peer = peers.get(fd)
            if peer is None:
                if fd != listener.fileno():
                    return
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            try:
                data = peer.recv(65536)
            except OSError:
                data = b""
            if not data:
                poll.unregister(peer)
                peers.pop(fd).close()
                halves.pop(fd, None)
                continue
            data = halves.pop(fd, b"") + data
            heads = data.count(b"\r\n\r\n")
            if not data.endswith(b"\r\n\r\n"):
                halves[fd] = data[data.rfind(b"\r\n\r\n") + 4 :] if heads else data
            if heads:
                peer.sendall(ANSWER * heads)


if __name__ == "__main__":
    main()
