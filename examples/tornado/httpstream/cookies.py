"""Cookies of urllib requests, as in 2013: added when a request is submitted, and taken from its
response.

Requests of other kinds get no cookies: the standard library's jar costs more than everything else
in a request combined.
"""

from __future__ import annotations

import urllib.request
from http.cookiejar import CookieJar

from .response import Response


def add_cookies(jar: CookieJar, request: urllib.request.Request) -> urllib.request.Request:
    """Returns a copy of the request with the current cookies. The request itself is not changed,
    so it gets new cookies the next time.
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
    """Stores the cookies that a response sets."""
    if response.sets_cookies():
        jar.extract_cookies(response, request)  # type: ignore[arg-type]
