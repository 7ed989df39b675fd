"""Cookies of urllib requests, as in 2013: added when a request is submitted, taken from its
answer.

Requests of other kinds are sent as they are: the jar of the standard library costs more than the
rest of a request together.
"""

from __future__ import annotations

import urllib.request
from http.cookiejar import CookieJar

from .response import Response


def add_cookies(jar: CookieJar, request: urllib.request.Request) -> urllib.request.Request:
    """The request with the cookies of now. It is itself left as it is, so that it gets new ones
    the next time.
    """
    if not len(jar):
        return request
    copy = urllib.request.Request(
        request.full_url,
        request.data,
        dict(request.headers),
        request.origin_req_host,
        request.unverifiable,
        request.get_method(),
    )
    copy.unredirected_hdrs.update(request.unredirected_hdrs)
    jar.add_cookie_header(copy)
    return copy


def take_cookies(jar: CookieJar, response: Response, request: urllib.request.Request) -> None:
    """Keeps what the answer sets."""
    if response.sets_cookies():
        jar.extract_cookies(response, request)  # type: ignore[arg-type]
