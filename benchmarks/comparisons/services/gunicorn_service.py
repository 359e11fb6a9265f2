"""The service over HTTP: gunicorn --bind 127.0.0.1:8000 gunicorn_service:application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

import work

VERSION = 1


def answer(path: str, query: dict[str, str]) -> tuple[str, str]:
    """Return the status and the text of a reply."""
    try:
        match path, query:
            case "/collatz", {"n": n}:
                return "200 OK", str(work.collatz(int(n)))
            case "/sleep", {"seconds": seconds}:
                time.sleep(float(seconds))
                return "200 OK", "OK"
            case "/crash", _:
                work.crash()
            case "/version", _:
                return "200 OK", str(VERSION)
    except ValueError as error:
        return "400 Bad Request", str(error)
    return "404 Not Found", "unknown path"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request (PEP 3333)."""
    status, text = answer(environ["PATH_INFO"], dict(parse_qsl(environ["QUERY_STRING"])))
    body = f"{text}\n".encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
