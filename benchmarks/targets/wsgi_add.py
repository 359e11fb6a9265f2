"""The sum over HTTP, for gunicorn and uWSGI: GET /add?a=1&b=2 is answered with 3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer one request."""
    query = parse_qs(environ["QUERY_STRING"])
    if environ["PATH_INFO"] == "/add" and query.keys() == {"a", "b"}:
        status, body = "200 OK", b"%d\n" % (int(query["a"][0]) + int(query["b"][0]))
    else:
        status, body = "404 Not Found", b"unknown command\n"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
