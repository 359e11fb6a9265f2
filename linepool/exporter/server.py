"""HTTP: what there is to see, for those that may see it. Runs in the exporter, a thread for each client.

Only GET and HEAD, and nothing changes the state of the server. A client has to send its request, and to
read its reply, within some seconds, and not many are served at once: a slow one costs the probes little.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import frozen

log = logging.getLogger("linepool")

MOST_CLIENTS = 32
"""At once; others wait in the backlog."""
DEADLINE_S = 5.0
"""For a request and its reply."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"


@frozen
class Answer:
    """What a client is sent.

    Attributes:
        policy: The Content-Security-Policy.
    """

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    policy: str = _NO_PAGE


Query = Mapping[str, str]
Routes = Mapping[str, Callable[[Query], Answer]]
"""What answers for each path, given the query; it may raise BadQuery."""


class BadQuery(ValueError):  # noqa: N818 - what it is
    """The query of a request is wrong; the text says what would be right."""


def text(status: HTTPStatus, line: str) -> Answer:
    """Return an answer of one line."""
    return Answer(f"{line}\n".encode(), status=status)


def as_json(value: object) -> Answer:
    """Return a value as JSON."""
    return Answer(json.dumps(value, separators=(",", ":")).encode(), "application/json")


class HttpServer:
    """Serves on a socket, to the end of the process.

    Args:
        sock: Listens.
        routes: What answers.
        hosts: Names that a request may be for, beside this machine's own addresses: else a page of another
            site could read what is here, by a name of its own that leads here (DNS rebinding).
    """

    def __init__(self, sock: socket.socket, routes: Routes, hosts: Collection[str]) -> None:
        self._socket = sock
        self._routes = routes
        self._hosts = frozenset(host.lower() for host in hosts)
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)

    def run(self) -> None:
        """Serve clients."""
        self._socket.setblocking(True)
        while True:
            self._places.acquire()
            try:
                sock, _ = self._socket.accept()
            except OSError:
                self._places.release()
                raise
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        deadline = threading.Timer(DEADLINE_S, _end, (sock,))
        deadline.daemon = True
        try:
            with sock:
                sock.settimeout(DEADLINE_S)
                deadline.start()
                _Exchange(sock, self._routes, self._is_for_us)
        except OSError:
            pass  # the client is gone, or was too slow
        except Exception:
            log.exception("exporter: a request failed")
        finally:
            deadline.cancel()
            self._places.release()

    def _is_for_us(self, host: str) -> bool:
        """Whether a request is for this server, given its Host header."""
        if self._socket.family == socket.AF_UNIX:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:  # an address is no name that DNS could have
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Exchange(BaseHTTPRequestHandler):
    """One request and its reply."""

    server_version = "linepool"
    sys_version = ""
    protocol_version = "HTTP/1.0"  # a connection for each request

    def __init__(
        self, sock: socket.socket, routes: Routes, is_for_us: Callable[[str], bool]
    ) -> None:
        self._routes = routes
        self._is_for_us = is_for_us
        super().__init__(sock, ("", 0), None)  # type: ignore[arg-type] # it serves as it is made

    def do_GET(self) -> None:
        """Answer."""
        self._answer(self._found())

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(self._found())

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: probes come every few seconds."""

    def _found(self) -> Answer:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or not all(self._is_for_us(host) for host in hosts):
            return text(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server does not go by that name; the setting http_hosts names those that it has",
            )
        path, _, query = self.path.partition("?")
        answer = self._routes.get(path)
        if answer is None:
            known = ", ".join(sorted(self._routes))
            return text(HTTPStatus.NOT_FOUND, f"nothing is here; there is {known}")
        try:
            return answer({name: values[-1] for name, values in parse_qs(query).items()})
        except ValueError as error:
            return text(HTTPStatus.BAD_REQUEST, str(error))

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Content-Security-Policy", answer.policy)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
