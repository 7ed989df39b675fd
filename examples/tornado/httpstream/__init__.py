"""HTTPStream on Tornado's IOLoop, on the httpstream engine.

```python
import urllib.request
from httpstream import HTTPStream

http_stream = HTTPStream.instance()
request = urllib.request.Request("http://www.linuxzen.com")
def read_callback(resp):
    print(resp.read())
http_stream.add_request(request, read_callback)
http_stream.start()
```

`stream` contains the class, `request` and `response` the requests and responses, `errors` the
exceptions. `_ffi` is the only module that uses C.
"""

from .errors import (
    Forked,
    InvalidRequest,
    Kind,
    LibraryNotFound,
    RequestFailed,
    StreamClosed,
    StreamError,
    WrongThread,
)
from .request import Request
from .response import Response
from .stream import HTTPStream

__all__ = [
    "Forked",
    "HTTPStream",
    "InvalidRequest",
    "Kind",
    "LibraryNotFound",
    "Request",
    "RequestFailed",
    "Response",
    "StreamClosed",
    "StreamError",
    "WrongThread",
]
