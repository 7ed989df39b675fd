"""An HTTP server that checks Digest credentials (RFC 7616) and keeps cookies.

It uses nothing but Python's standard library: `urllib.request` parses the credentials, `hashlib`
computes the responses and `http.cookies` reads and writes cookies.

The first segment of a path is the name of a mode, which says how to challenge. `/log` returns what
was asked for since the last time, one request a line.
"""

import hashlib
import http.cookies
import http.server
import json
import secrets
import threading
import urllib.parse
import urllib.request

USERS = {"Mufasa": "Circle of Life", "J\u00e4s\u00f8n Doe": "Secret, or not?", 'q"u\\o': ""}

# The settings of each mode, in place of the defaults.
DEFAULTS = {"realm": "all", "algorithm": "MD5", "qop": "auth", "uses": None, "says_stale": True}
MODES = {
    "md5": {},
    "md5-sess": {"algorithm": "MD5-sess"},
    "sha-256": {"algorithm": "SHA-256"},
    "sha-256-sess": {"algorithm": "SHA-256-sess"},
    "sha-512-256": {"algorithm": "SHA-512-256"},
    "sha-512-256-sess": {"algorithm": "SHA-512-256-sess"},
    "unnamed": {"algorithm": None},
    "legacy": {"algorithm": None, "qop": None},
    "either": {"qop": "auth-int, auth"},
    "once": {"uses": 1},
    "thrice": {"uses": 3},
    "thrice-unsaid": {"uses": 3, "says_stale": False},
    "next": {"uses": 1, "next": True},
    "next-sess": {"uses": 1, "next": True, "algorithm": "SHA-256-sess"},
    "hashed": {"algorithm": "SHA-256", "userhash": True, "charset": True},
    "utf-8": {"algorithm": "SHA-256", "charset": True},
    "commas": {"realm": 'one, two="three", four\\', "qop": "auth-int,auth"},
    "several": {
        "algorithm": "SHA-256",
        "before": [
            'Negotiate, Basic realm="a, b", NTLM',
            'Digest realm="all", nonce="x", algorithm=MD4',
        ],
        "after": ['Digest realm="all", nonce="weak", algorithm=MD5, qop="auth"'],
    },
}

lock = threading.Lock()
log = []
# By nonce: the mode and the counts seen so far.
nonces = {}
# By opaque: H(A1) of an authentication session.
sessions = {}


def digest(algorithm, *parts):
    name = (algorithm or "MD5").removesuffix("-sess").lower().replace("-", "_")
    name = {"sha_256": "sha256", "sha_512_256": "sha512_256"}.get(name, name)
    data = b":".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.new(name, data).hexdigest()


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def new_nonce(mode):
    nonce = secrets.token_urlsafe(16)
    nonces[nonce] = (mode, set())
    return nonce


def challenge(mode, settings, stale):
    parameters = [("realm", quoted(settings["realm"])), ("nonce", quoted(new_nonce(mode)))]
    parameters.append(("opaque", quoted(secrets.token_hex(8))))
    if settings["qop"]:
        parameters.append(("qop", quoted(settings["qop"])))
    if settings["algorithm"]:
        parameters.append(("algorithm", settings["algorithm"]))
    if settings.get("userhash"):
        parameters.append(("userhash", "true"))
    if settings.get("charset"):
        parameters.append(("charset", "UTF-8"))
    if stale and settings["says_stale"]:
        parameters.append(("stale", "true"))
    return "Digest " + ", ".join(f"{name}={value}" for name, value in parameters)


def user_of(given, settings):
    """Returns the user and the password that the credentials name."""
    algorithm, realm = settings["algorithm"], settings["realm"]
    for user, password in USERS.items():
        if given.get("userhash") == "true":
            if settings.get("userhash") and given.get("username") == digest(algorithm, user, realm):
                return user, password
        elif "username*" in given:
            charset, _, value = given["username*"].split("'", 2)
            if settings.get("charset") and urllib.parse.unquote(value, charset) == user:
                return user, password
        # A field is read as Latin-1.
        elif given.get("username", "").encode("latin-1").decode("utf-8", "replace") == user:
            return user, password
    return None, None


def judge(request, mode, settings):
    """Returns what is wrong with the credentials of a request, or nothing, and whether the nonce
    was used up."""
    field = request.headers.get("Authorization")
    if field is None:
        return "no credentials", False
    scheme, _, rest = field.partition(" ")
    if scheme != "Digest":
        return f"scheme {scheme}", False
    given = urllib.request.parse_keqv_list(urllib.request.parse_http_list(rest))
    user, password = user_of(given, settings)
    if user is None:
        return "unknown user", False
    if given["realm"] != settings["realm"]:
        return "another realm", False
    if given["uri"] != request.path:
        return "another uri", False
    if given.get("algorithm") != settings["algorithm"]:
        return "another algorithm", False
    of_mode, counts = nonces.get(given["nonce"], (None, None))
    if of_mode != mode:
        return "unknown nonce", False
    algorithm = settings["algorithm"]
    a1 = digest(algorithm, user, settings["realm"], password)
    if (algorithm or "").endswith("-sess"):
        # The key is that of the first request, whatever nonces follow (RFC 7616 section 3.4.2).
        first = digest(algorithm, a1, given["nonce"], given["cnonce"])
        a1 = sessions.setdefault(given["opaque"], first)
    a2 = digest(algorithm, request.command, request.path)
    if settings["qop"]:
        if given.get("qop") != "auth":
            return "another qop", False
        parts = (a1, given["nonce"], given["nc"], given["cnonce"], "auth", a2)
    else:
        if "qop" in given or "cnonce" in given or "nc" in given:
            return "a qop that was not offered", False
        parts = (a1, given["nonce"], a2)
    if given["response"] != digest(algorithm, *parts):
        return "wrong response", False
    count = given.get("nc", len(counts))
    if count in counts:
        return "replay", False
    if settings["uses"] is not None and len(counts) >= settings["uses"]:
        return "stale", True
    counts.add(count)
    return None, False


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The head of a response and its body are two writes.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urllib.parse.urlsplit(self.path)
        mode = path.path.split("/")[1]
        if mode == "log":
            with lock:
                lines, log[:] = "\n".join(log), []
            return self.reply(200, lines)
        if mode == "cookies":
            return self.keep_cookies(dict(urllib.parse.parse_qsl(path.query)))
        settings = {**DEFAULTS, **MODES[mode]}
        fields = []
        with lock:
            wrong, is_stale = judge(self, mode, settings)
            log.append(f"{self.command} {self.path} {len(body)} {wrong or 'ok'}")
            if wrong:
                for value in settings.get("before", []):
                    fields.append(("WWW-Authenticate", value))
                fields.append(("WWW-Authenticate", challenge(mode, settings, is_stale)))
                for value in settings.get("after", []):
                    fields.append(("WWW-Authenticate", value))
            elif settings.get("next"):
                fields.append(("Authentication-Info", f'qop=auth, nextnonce="{new_nonce(mode)}"'))
        if wrong:
            return self.reply(401, wrong, fields)
        if path.query.startswith("to="):
            return self.reply(307, "", [*fields, ("Location", path.query.removeprefix("to="))])
        self.reply(200, f"{self.command} {body.decode()}", fields)

    def keep_cookies(self, wanted):
        """Sets the wanted cookies, and returns those that came as JSON."""
        came = http.cookies.SimpleCookie(self.headers.get("Cookie", ""))
        setting = http.cookies.SimpleCookie(wanted)
        fields = [("Set-Cookie", morsel.OutputString()) for morsel in setting.values()]
        values = {name: morsel.value for name, morsel in came.items()}
        self.reply(200, json.dumps(values, sort_keys=True), fields)

    def reply(self, status, text, fields=()):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1])
server.serve_forever()
