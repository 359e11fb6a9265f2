"""The commands of lines_app.py over HTTP, for gunicorn and uWSGI: /add?a=1&b=2 and /sleep?ms=2000."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer one request."""
    query = parse_qs(environ["QUERY_STRING"])
    status = "200 OK"
    if environ["PATH_INFO"] == "/add" and query.keys() == {"a", "b"}:
        body = b"%d\n" % (int(query["a"][0]) + int(query["b"][0]))
    elif environ["PATH_INFO"] == "/sleep" and query.keys() == {"ms"}:
        time.sleep(int(query["ms"][0]) / 1000)
        body = b"OK\n"
    else:
        status, body = "404 Not Found", b"unknown command\n"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
