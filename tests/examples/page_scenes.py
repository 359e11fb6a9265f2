"""Servers that the page is shown with: five minutes of a quiet one, a saturated one, and one after kills.

Played second by second to the exporter's own memory, always the same; ``Played`` serves page and state.
"""

from __future__ import annotations

import math
import random
import socket
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import evolve, frozen

from linepool.exporter.history import History
from linepool.exporter.page import page
from linepool.exporter.server import Answer, HttpServer, Query, as_json
from linepool.exporter.source import Snapshot
from linepool.exporter.usage import Usage
from linepool.exporter.verdict import Looks
from linepool.exporter.views import Memory, status_json
from linepool.ipc.figures import BOUNDS_NS, BUCKETS, CommandFigures, SlowRequest
from tests.examples.pictures import STATE

SECONDS = 300
WALL = 1_795_953_600.0  # when the scenes end, in seconds since the epoch
FAILURES = ("client_error", "server_error", "timeout", "killed", "died", "disconnected")


@frozen
class Kind:
    """Requests of one command: how many per second, and how long they take (log-normal)."""

    name: str
    rate: float
    median_s: float
    spread: float
    busy_share: float  # of the workers that are busy
    failed: float = 0.0


KINDS = (
    Kind("SEARCH", 12, 0.041, 0.9, 0.6, 0.002),
    Kind("STOCK", 58, 0.003, 0.6, 0.25),
    Kind("ORDER", 5, 0.018, 0.7, 0.1, 0.004),
    Kind("PRICE", 22, 0.004, 0.5, 0.05),
    Kind("IMPORT", 0.1, 0.9, 0.4, 0.0),
)
_SEARCHING = [
    {"file": "/srv/shop/search.py", "line": 118, "function": "rank"},
    {"file": "/srv/shop/search.py", "line": 87, "function": "matches"},
    {"file": "/srv/shop/commands.py", "line": 41, "function": "search"},
]
INCIDENT: dict[str, Any] = {
    "number": 3,
    "change": 7,
    "first": WALL - 12,
    "last": WALL - 7,
    "count": 2,
    "kind": "killed",
    "command": "SEARCH",
    "client": "10.1.4.31:40924",
    "pid": 4733,
    "ran_s": 30.2,
    "limit_s": 30.0,
    "signal": None,
    "status": None,
    "why": "took longer than 30 s",
    "stack": _SEARCHING,
}
_DIED = {
    **INCIDENT,
    "number": 1,
    "first": WALL - 4022,
    "last": WALL - 4022,
    "count": 1,
    "kind": "died",
    "command": "IMPORT",
    "client": None,
    "pid": 4702,
    "ran_s": 0.3,
    "limit_s": None,
    "signal": "SIGSEGV",
    "why": None,
}
_FULL = {
    **_DIED,
    "kind": "saturated",
    "command": None,
    "pid": None,
    "ran_s": 57.0,
    "signal": None,
    "why": "33 connections wait, and there are 32 of 32 workers",
    "stack": [],
}
INCIDENTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "quiet": [],
    "saturated": [
        _DIED,
        {**_FULL, "number": 2, "first": WALL - 42, "last": WALL, "ran_s": 42.0},
        INCIDENT,
    ],
    "kills": [
        _DIED,
        {**_FULL, "number": 2, "first": WALL - 176, "last": WALL - 119},
        {**INCIDENT, "first": WALL - 118, "last": WALL - 97, "count": 4},
    ],
}
"""As the master keeps them."""
HOSTILE = Kind('"\n<b>{}', 3, 0.002, 0.3, 0.0)
"""A command with a name of which a page must do nothing but show it."""


class Scene:
    """A server, played for five minutes.

    Args:
        name: ``quiet``, ``saturated`` or ``kills``.
        kinds: Its commands.
    """

    def __init__(self, name: str, kinds: tuple[Kind, ...] = KINDS) -> None:
        self._name, self._kinds = name, kinds
        self._random = random.Random(7)
        self._figures = {kind.name: _Sums(kind.name) for kind in kinds}
        self._queue = _Sums("")
        self._most = 16 if name == "quiet" else 32
        self._workers = 4
        self._kills = 0
        self.memory = Memory(History(), Looks())
        for second in range(SECONDS):
            self.last = self._play(second)
            self.memory.add(self.last)

    def status(self, after: int, change: int) -> dict[str, Any]:
        """Return what ``/status.json`` has of it."""
        return status_json(self.last, self.last.at + 0.2, self.memory, after, change)

    def has_incidents(self, *incidents: dict[str, Any]) -> Scene:
        """Have other incidents than those of the scene from now on."""
        self.last = evolve(self.last, incidents=list(incidents))
        return self

    def _heat(self, second: int) -> float:
        """How much more than the pool can serve is asked for, from 0 to 1."""
        if self._name == "saturated":
            return max(0.0, (second - 190) / 110)
        if self._name == "kills":
            return max(0.0, min(1.0, (second - 120) / 30, (215 - second) / 20))
        return 0.0

    def _play(self, second: int) -> Snapshot:
        heat, chance = self._heat(second), self._random
        need = 2.4 + math.sin(second / 23) * 1.2 + chance.uniform(-0.8, 0.8) + heat * 42
        if need > self._workers - 1:
            self._workers = min(
                self._most, self._workers + math.ceil((need - self._workers + 1) / 3)
            )
        elif second % 60 == 59:
            self._workers = max(4, round(need + 2))
        busy = max(0, min(self._workers, round(need)))
        waiting = max(0, round((need - self._most) * 2.9))
        for kind in self._kinds:
            slower = 1 + heat * 40 * (kind.name == "SEARCH")
            served = kind.rate * (1 - 0.4 * heat) * 4 + chance.random()
            for _ in range(int(served)):
                took = kind.median_s * slower * math.exp(chance.gauss(0, kind.spread))
                failed = chance.random() < kind.failed * (1 + 20 * heat)
                self._figures[kind.name].add(took, "server_error" if failed else "")
        for _ in range(40):
            self._queue.add(max(2e-6, heat * waiting / 12 * chance.random()))
        if self._is_kill(second):
            self._kills += 1
            self._figures["SEARCH"].add(30.2, "killed")
        return self._snapshot(second, busy, waiting)

    def _is_kill(self, second: int) -> bool:
        killed = {"saturated": (280, 292), "kills": (181, 195, 198, 203)}
        return second in killed.get(self._name, ())

    def _snapshot(self, second: int, busy: int, waiting: int) -> Snapshot:
        idle = self._workers - busy
        counters = {**STATE["counters"], "kills": self._kills, "crashes": 0, "saturated_s": 0.0}
        tally = {**STATE["tally"], "busy": busy, "idle": idle, "total": self._workers}
        state = {
            **STATE,
            "name": "shop",
            "uptime_s": 532_800.0 + second,
            "tally": {**tally, "min": 4, "max": self._most},
            "waiting": 0 if idle else waiting,
            "counters": counters,
            "workers": self._rows(busy),
        }
        return Snapshot(
            at=1000.0 + second,
            wall=WALL - SECONDS + 1 + second,
            state=state,
            commands=[one.figures() for one in self._figures.values()],
            queue=self._queue.figures(),
            slowest=self._slowest(second),
            incidents=[dict(one) for one in INCIDENTS[self._name]],
            usage=Usage({}, {}, {}, 1024),
            busy_s=0.0,
            idle_s=0.0,
            saturated_s=0.0,
        )

    def _rows(self, busy: int) -> list[Mapping[str, Any]]:
        hot = self._name == "saturated"
        names = [
            kind.name
            for kind in self._kinds
            if kind.busy_share
            for _ in range(int(kind.busy_share * 20))
        ]
        rows: list[Mapping[str, Any]] = []
        for slot in range(self._workers):
            row = {**STATE["workers"][1], "slot": slot, "pid": 4711 + 3 * slot}
            if (slot * 11) % self._workers < busy:
                name = names[slot % len(names)]
                ran = 29.1 * 0.88**slot if hot and name == "SEARCH" else 0.04 / (slot + 1)
                row |= {"state": "busy", "command": name, "request_s": ran, "timeout_s": 30.0}
            rows.append(row)
        return rows

    def _slowest(self, second: int) -> list[SlowRequest]:
        now_ns = round((1000 + second) * 1e9)
        killed = [
            SlowRequest(
                "SEARCH",
                f"10.1.4.{31 + at}:409{at}4",
                now_ns - round((96 + 5 * at) * 1e9),
                30_200_000_000,
                "killed",
            )
            for at in range(min(self._kills, 4))
        ]
        others = [
            SlowRequest(
                "SEARCH" if at % 3 else "IMPORT",
                f"10.1.4.{17 + at}:40{112 + at}",
                now_ns - round((9 + 31 * at) * 1e9),
                round(2.9e9 * 0.8**at),
                "ok" if at % 4 else "server_error",
            )
            for at in range(8)
        ]
        return killed + others


class _Sums:
    """The figures of a command, added up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._buckets = [0] * BUCKETS
        self._failed = dict.fromkeys(FAILURES, 0)
        self._sum_ns = 0

    def add(self, took_s: float, failure: str = "") -> None:
        took_ns = round(took_s * 1e9)
        self._buckets[bisect_left(BOUNDS_NS, took_ns)] += 1
        self._sum_ns += took_ns
        if failure:
            self._failed[failure] += 1

    def figures(self) -> CommandFigures:
        return CommandFigures(self._name, self._sum_ns, dict(self._failed), tuple(self._buckets))


class Played:
    """An exporter that shows a scene.

    Args:
        scene: The scene; another one can take its place.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.is_silent = threading.Event()
        self.goes_on = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        shown = page()
        routes = {"/": lambda _query: shown, "/status.json": self._status}
        server = HttpServer(self._socket, routes, ())
        threading.Thread(target=server.run, daemon=True).start()

    def _status(self, query: Query) -> Answer:
        if self.is_silent.is_set():
            self.goes_on.wait(30)
        return as_json(self.scene.status(int(query["after"]), int(query["incidents"])))


@contextmanager
def played(scene: Scene) -> Iterator[Played]:
    """Give an exporter that shows a scene."""
    exporter = Played(scene)
    try:
        yield exporter
    finally:
        exporter.goes_on.set()
