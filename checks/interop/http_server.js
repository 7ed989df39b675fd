// An HTTP server for checks/tests/interop: Node's own, with busboy for forms. Prints its port once
// it listens.

const { createHash } = require("node:crypto");
const { createServer } = require("node:http");
// From NODE_PATH.
const busboy = require("busboy");

function answer(request, response) {
    if (request.url === "/upload") {
        return upload(request, response);
    }
    form(request, response);
}

// Answers with what has arrived.
function upload(request, response) {
    const hash = createHash("sha256");
    let length = 0;
    request.on("data", (piece) => {
        hash.update(piece);
        length += piece.length;
    });
    request.on("end", () => {
        const field = (name) => request.headers[name] ?? null;
        send(response, {
            "length": length,
            "sha256": hash.digest("hex"),
            "content-length": field("content-length"),
            "transfer-encoding": field("transfer-encoding"),
            "expect": field("expect"),
            "trailer": request.trailers["x-checksum"] ?? null,
        });
    });
}

// Answers with the parts of a form. Contents are compared by their checksums.
function form(request, response) {
    const parts = [];
    const parser = busboy({
        headers: request.headers,
        defParamCharset: "utf8",
        preservePath: true,
    });
    parser.on("field", (name, value) => {
        const content = Buffer.from(value);
        const hash = createHash("sha256").update(content);
        parts.push(describe(name, null, null, content.length, hash));
    });
    parser.on("file", (name, stream, { filename, mimeType }) => {
        const part = {};
        parts.push(part);
        const hash = createHash("sha256");
        let length = 0;
        stream.on("data", (piece) => {
            hash.update(piece);
            length += piece.length;
        });
        stream.on("end", () => {
            Object.assign(part, describe(name, filename, mimeType, length, hash));
        });
    });
    parser.on("close", () => send(response, parts));
    parser.on("error", (error) => {
        response.writeHead(400);
        response.end(String(error));
    });
    request.pipe(parser);
}

function describe(name, file, type, length, hash) {
    // busboy passes an empty name as undefined.
    return { name: name ?? "", file, type, length, sha256: hash.digest("hex") };
}

function send(response, value) {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(value));
}

const server = createServer(answer);
// Called instead for a request with Expect: 100-continue.
server.on("checkContinue", (request, response) => {
    if (request.url === "/refuse") {
        response.writeHead(413);
        return response.end("too large");
    }
    response.writeContinue();
    answer(request, response);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
