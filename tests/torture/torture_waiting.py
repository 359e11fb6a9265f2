"""Kill workers and reload while 2,000 requests wait, clients come and leave, and items come; account for all.

An item is delivered once, or it was taken by a worker that was killed, or for a client that had left. After
each round nothing happens any more but what is due: no item may lie where a request waits for it, and as many
requests wait as clients do.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.servers import ServerProcess
from tests.torture import proc
from tests.torture.clients import raise_descriptor_limit
from tests.torture.table import show_table
from tests.torture.waiting_clients import Crowd

_APP = str(Path(__file__).with_name("waiting_app.py"))
_WORKERS = 4
_CLIENTS = 2000
_QUEUES = [f"q{number}" for number in range(20)]
_ROUNDS = 5
_KILLS = 5  # in each round but the last; so 50 are killed in both schemes
_SETTLED_WITHIN = 60.0  # seconds; only there to fail
_CHANGES = 20  # between two kills


class Pusher:
    """Puts items, on a connection that a kill may end."""

    def __init__(self, server: ServerProcess, rng: random.Random) -> None:
        self.acknowledged: list[int] = []
        self._server = server
        self._rng = rng
        self._peer: Peer | None = None
        self._last = 0

    def close(self) -> None:
        """Leave."""
        if self._peer is not None:
            self._peer.close()

    def put(self, count: int, command: str = "") -> None:
        """Put some items into random queues, and have as many requests woken, or all of these queues."""
        items = range(self._last + 1, self._last + 1 + count)
        self._last += count
        words = [f"{self._rng.choice(_QUEUES)}:{item}" for item in items]
        command = command or self._rng.choice(["PUT", "PUT", "PUT", "SHOUT"])
        self._peer = self._peer or self._server.connect()
        reply = ""
        with contextlib.suppress(ConnectionError):
            self._peer.send(" ".join([command, *words]).encode() + b"\n")
            reply = self._peer.line()
        if reply == str(count):
            self.acknowledged += items
        else:
            assert not reply, reply
            self._peer.close()
            self._peer = None


class Run:
    """A server with its clients."""

    def __init__(self, server: ServerProcess, directory: Path, rng: random.Random) -> None:
        self.server = server
        self.rng = rng
        self.crowd = Crowd(server.port, _QUEUES, rng)
        self.pusher = Pusher(server, rng)
        self.killed: list[int] = []
        self._items = sqlite3.connect(f"file:{directory}/items?mode=ro", uri=True)

    def close(self) -> None:
        """Have all clients leave."""
        self.crowd.close()
        self.pusher.close()

    def start(self) -> None:
        """Have all clients come."""
        self.crowd.come(_CLIENTS)

    def churn(self, kills: int) -> None:
        """Put items while clients come and leave and workers are killed."""
        for _ in range(kills):
            for _ in range(_CHANGES):
                self.pusher.put(self.rng.choice([1, 1, 2, 5]))
                number = self.rng.randrange(20)
                self.crowd.leave(number)
                self.crowd.come(number)
                self.crowd.step(0.0)
            self.kill_one()

    def kill_one(self) -> None:
        """Kill a worker at a random moment of what it does."""
        self.pusher.put(20)
        give_up_at = time.monotonic() + _SETTLED_WITHIN
        while True:
            self.crowd.step(self.rng.uniform(0.0, 0.02))
            assert time.monotonic() < give_up_at, "there is no worker to kill"
            pids = [pid for pid in self.server.pids() if pid in self._children()]
            with contextlib.suppress(ProcessLookupError, IndexError):
                pid = self.rng.choice(pids)
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
                return

    def reload(self) -> None:
        """Replace all workers, while items come."""
        generation = self.server.status()["generation"]
        self.server.send(signal.SIGHUP)
        give_up_at = time.monotonic() + _SETTLED_WITHIN
        while (state := self.server.status())["generation"] == generation or state["tally"][
            "idle"
        ] < _WORKERS:
            assert time.monotonic() < give_up_at, f"the reload never ended: {state['tally']}"
            self.pusher.put(2)
            self.crowd.step(0.01)

    def settle(self) -> None:
        """Wait until all that is due has happened: each item has gone to a request that waits."""
        self._until(lambda: not self.left_lying(), "items lie where requests wait for them")
        self.crowd.goes_on = False
        counts: list[int] = []

        def is_right() -> bool:
            counts[:] = self._count(), self.crowd.waiting
            return counts[0] == counts[1]

        self._until(is_right, "the server counts other requests that wait than there are:", counts)
        self.crowd.goes_on = True

    def end(self) -> None:
        """Give each request that waits an item; have all clients leave."""
        self.crowd.goes_on = False
        deadline = time.monotonic() + _SETTLED_WITHIN
        while self.crowd.waiting:
            assert time.monotonic() < deadline, f"{self.crowd.waiting} requests are not woken"
            self.pusher.put(100, "PUT")
            self.crowd.step(0.05)
        self.crowd.leave_all()
        self._until(lambda: not self._count(), "requests wait whose clients have left")

    def left_lying(self) -> int:
        """Return how many items nobody has taken."""
        return int(
            self._items.execute("select count(*) from items where pid is null").fetchone()[0]
        )

    def account(self) -> list[tuple[str, int, str]]:
        """Return what was counted, and what it must be."""
        crowd = self.crowd
        rows = self._items.execute("select id, pid, client from items").fetchall()
        taken = {item: (pid, client) for item, pid, client in rows if pid is not None}
        got = crowd.received
        lost = {item: by for item, by in taken.items() if item not in got}
        killed = [item for item, (pid, _) in lost.items() if pid in self.killed]
        gone = [
            item
            for item, (pid, client) in lost.items()
            if pid not in self.killed and client in crowd.left
        ]
        stored = {row[0] for row in rows}
        wrong = sum(taken.get(item, (0, 0))[1] != clients[0] for item, clients in got.items())
        return [
            ("workers killed", len(self.killed), ""),
            ("items", len(rows), ""),
            ("items delivered", len(got), ""),
            ("... more than once", sum(len(clients) > 1 for clients in got.values()), "0"),
            ("... to another client than they were taken for", wrong, "0"),
            ("items lost with a killed worker", len(killed), ""),
            ("items lost with a client that had left", len(gone), ""),
            ("items lost otherwise", len(lost) - len(killed) - len(gone), "0"),
            ("acknowledged items that are not stored", len(set(self.pusher.acknowledged) - stored), "0"),
            ("clients that have left", len(crowd.left), ""),
            ("clients that were cut off", len(crowd.ended), ""),
            ("times that were up", crowd.none, ""),
            ("wrong answers", len(crowd.wrong), "0"),
        ]  # fmt: skip

    def _until(self, holds, what: str, details: object = "") -> None:
        give_up_at = time.monotonic() + _SETTLED_WITHIN
        while True:
            self.crowd.step(0.02)
            if holds():
                return
            assert time.monotonic() < give_up_at, f"{what} {details}"

    def _count(self) -> int:
        """Return how many requests wait, as the server has it."""
        return int(self.server.status()["waiters"]["requests"])

    def _children(self) -> list[int]:
        return proc.children(self.server.process.pid)


@pytest.mark.scheme("shared", "dispatch")
def test_no_item_is_lost_or_stuck_while_workers_are_killed(launch, tmp_path, scheme):
    raise_descriptor_limit(_CLIENTS)
    seed = int(os.environ.get("SEED", "0")) or time.time_ns() % 1_000_000
    options = ["--workers", str(_WORKERS), "--poison-deaths", "0", "--request-timeout", "30"]
    options += ["--max-connections", str(2 * _CLIENTS)]
    server = launch(_APP, *options)
    run = Run(server, tmp_path, random.Random(seed))
    print(f"\nScheme {scheme}, {_CLIENTS} clients, SEED={seed}")
    with contextlib.closing(run):
        _torture(run)
    rows = run.account()
    show_table(["", "count", "must be"], rows)
    assert not [row for row in rows if row[2] and row[1] != int(row[2])], run.crowd.wrong[:20]


def _torture(run: Run) -> None:
    began = time.monotonic()
    run.start()
    for number in range(_ROUNDS):
        run.churn(_KILLS)
        if number == _ROUNDS // 2:
            run.reload()
        run.settle()
        print(f"round {number + 1} has settled after {time.monotonic() - began:.1f} s")
    run.end()
