// A WebSocket server for checks/tests/interop: ws. Does what websocket_server.py does, and splits
// texts also inside of characters.

const { readFileSync } = require("node:fs");
const http = require("node:http");
const https = require("node:https");
// From NODE_PATH.
const { WebSocketServer } = require("ws");

const [port, cert, key] = process.argv.slice(2);
const server = cert
    ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) })
    : http.createServer();
const sockets = new WebSocketServer({
    server,
    maxPayload: 0,
    handleProtocols: (offered) => (offered.has("chat") ? "chat" : false),
});

sockets.on("connection", (socket, request) => {
    const frames = Number(request.url.slice(1));
    let count = 0;
    let pongs = 0;
    socket.on("pong", () => (pongs += 1));
    socket.on("message", (message, binary) => {
        const text = binary ? "" : message.toString("utf8", 0, 100);
        if (text.startsWith("close ")) {
            const [, code, reason] = text.match(/^close (\d+) (.*)$/);
            // Of several pings, only the last must be answered (RFC 6455 §5.5.3).
            const answered = count < 500 || pongs > 0;
            return answered ? socket.close(Number(code), reason) : socket.close(4999, "no pong");
        }
        count += 1;
        if (count % 500 === 0) {
            socket.ping(String(count));
        }
        const size = Math.floor(message.length / frames) + 1;
        let at = 0;
        do {
            const fin = at + size >= message.length;
            socket.send(message.subarray(at, at + size), { binary, fin });
            at += size;
        } while (at < message.length);
    });
    socket.on("error", (error) => console.error(String(error)));
});

server.listen(Number(port), "127.0.0.1", () => console.log(server.address().port));
