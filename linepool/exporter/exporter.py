"""The exporter's life: it asks its server for a snapshot each second, and serves what there is to see.

Runs in a process of its own, forked by the master, beside the workers; the master never serves HTTP.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Collection
from http import HTTPStatus

from linepool.exporter import metrics, page, probes
from linepool.exporter.agent import AgentServer, IdleShare, agent_line
from linepool.exporter.history import History
from linepool.exporter.server import Answer, BadQuery, HttpServer, Query, as_json, text
from linepool.exporter.source import Snapshot, Source
from linepool.exporter.verdict import Looks
from linepool.exporter.views import Memory, status_json

log = logging.getLogger("linepool")

_EVERY = 1.0  # seconds
_SAME_AGE = 0.25  # seconds for which an answer stays as it is
_MOST_ANSWERS = 8


class Exporter:
    """The exporter.

    Args:
        source: Where its snapshots come from.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._began = time.monotonic()
        self._last: Snapshot | None = None
        self._has_asked = threading.Event()
        self._memory = Memory(History(), Looks())
        self._answers: dict[tuple[object, ...], Answer] = {}  # of the last snapshot
        self._lock = threading.Lock()  # around all three

    def serve_http(self, sock: socket.socket, hosts: Collection[str]) -> None:
        """Serve HTTP, in a thread of its own; for the arguments, see ``HttpServer``."""
        page_answer = page.page()
        routes = {
            "/": lambda _query: page_answer,
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status.json": self._status,
        }
        _start(HttpServer(sock, routes, hosts).run)

    def answer_agents(self, sock: socket.socket, busy_workers: Callable[[], int]) -> None:
        """Answer agent-checks, in a thread of its own, once the state of the server is known.

        To answer earlier, in place of an exporter that has died, would take the server out of service.

        Args:
            sock: Where; it listens.
            busy_workers: Returns how many workers have a client now.
        """
        share = IdleShare()

        def look() -> None:
            if self._last is not None:
                share.add(self._last.state["tally"], busy_workers(), time.monotonic())

        def answer() -> bytes:
            assert self._last is not None
            return agent_line(self._last, share.value, time.monotonic())

        def run() -> None:
            self._has_asked.wait()
            AgentServer(sock, answer, look).run()

        _start(run)

    def run(self, channel: socket.socket) -> None:
        """Keep the state up to date until the master closes the channel: it ends, or is replaced."""
        due = time.monotonic()
        while not select.select([channel], [], [], max(0.0, due - time.monotonic()))[0]:
            try:
                self._look(self._source.ask())
                self._has_asked.set()
            except EOFError:
                return
            except OSError as error:
                if not isinstance(error, TimeoutError):
                    raise
            due = max(due + _EVERY, time.monotonic())

    def _look(self, snapshot: Snapshot) -> None:
        with self._lock:
            self._memory.add(snapshot)
            self._answers.clear()
            self._last = snapshot

    def _metrics(self, _query: Query) -> Answer:
        if self._last is None:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "the exporter has only begun")
        now = time.monotonic()
        shown = metrics.metrics(
            self._last,
            is_up=not probes.why_not_alive(self._last, now, self._began),
            is_ready=not probes.why_not_ready(self._last, now, self._began),
        )
        return Answer(shown.encode(), metrics.CONTENT_TYPE)

    def _healthz(self, _query: Query) -> Answer:
        why = probes.why_not_alive(self._last, time.monotonic(), self._began)
        return _probe(why)

    def _readyz(self, query: Query) -> Answer:
        try:
            saturated_s = float(query.get("saturated", 0))
        except ValueError:
            saturated_s = -1.0
        if not 0 <= saturated_s < 1e9:
            raise BadQuery("saturated must be a number of seconds, such as /readyz?saturated=10")
        now = time.monotonic()
        return _probe(probes.why_not_ready(self._last, now, self._began, saturated_s))

    def _status(self, query: Query) -> Answer:
        after, change = _number(query, "after"), _number(query, "incidents")
        with self._lock:
            if self._last is None:
                return text(HTTPStatus.SERVICE_UNAVAILABLE, "the exporter has only begun")
            now = time.monotonic()
            # Pages that are open ask for the same, each once a second.
            key = after, change, int((now - self._last.at) / _SAME_AGE)
            if key not in self._answers:
                if len(self._answers) >= _MOST_ANSWERS:
                    self._answers.clear()
                found = status_json(self._last, now, self._memory, after, change)
                self._answers[key] = as_json(found)
            return self._answers[key]


def _number(query: Query, name: str) -> int | None:
    """Return a number of a query; None: it has none of that name."""
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError:
        raise BadQuery(f"{name} must be a whole number, such as /status.json?{name}=0") from None


def _probe(why: str) -> Answer:
    return text(HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK, why or "ok")


def _start(run: Callable[[], None]) -> None:
    """Run a server in a thread; if it fails, so does the process."""

    def serve() -> None:
        try:
            run()
        except Exception:
            log.exception("exporter failed")
        finally:
            os._exit(1)  # the master starts another exporter

    threading.Thread(target=serve, daemon=True).start()
