"""Requests that wait for items, while workers are killed, the code is reloaded and the pool resized."""

from __future__ import annotations

import contextlib
import re
import select
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator

from attrs import define

from linepool.testing import Peer
from tests.servers import TIMEOUT, ServerProcess
from tests.torture.experiments.account import p99_ms
from tests.torture.experiments.generator import TIMED_OUT, Plan, Request, judged
from tests.torture.experiments.ground import APP, OWN_NUMBERS, WORKERS, Ground

_QUEUES = 5
_SOON = 0.5  # seconds; the time of one request in four is up by then
_LATE = 600.0
_SIZES = (2, 6, 1, 8)
_LOOK = re.compile(r"^\?(\d+):(\S+)$", re.MULTILINE)


@define
class Waiter:
    """A request that waits, on a connection of its own."""

    number: int
    queue: str
    is_patient: bool
    peer: Peer
    opened_at: float
    sent_at: float
    item: str = ""
    is_over: bool = False


def waiters(ground: Ground) -> None:
    """T13: as many items come as requests wait; each request gets one or is told that its time is up."""
    load = ground.load()
    server = ground.serve(target=APP.with_name("patient_app.py"))
    ground.look(server)
    load.start(Plan(address=server.address, clients=4, seed=ground.report.seed))
    changes = 0
    found: list[Waiter] = []
    with contextlib.closing(_Items(ground, server)) as items:
        for turn in range(ground.size.pick(1, 10)):
            with _some_waiting(ground, server, turn) as round_:
                changes += _disturb(ground, server, items, round_)
                _read_all(ground, round_)
                found += round_
        requests = load.finish()
        ground.until_whole(server, 0)
        _account(ground, requests, found, items)
    ground.innocent(server, len(ground.kills))
    ground.look_again(server)
    ground.report.kills = changes


@contextlib.contextmanager
def _some_waiting(ground: Ground, server: ServerProcess, turn: int) -> Iterator[list[Waiter]]:
    """Have requests wait, in queues of this turn's own, until the end of the block."""
    with contextlib.ExitStack() as stack:
        round_ = []
        for index in range(ground.size.pick(24, 80)):
            opened_at = time.monotonic()
            peer = stack.enter_context(server.connect())
            number = ground.next_number()
            ground.own.append(Request(number, TIMED_OUT, "", 0, opened_at, opened_at, 0.0))
            queue, is_patient = f"{turn}-{index % _QUEUES}", index % 4 != 0
            one = Waiter(number, queue, is_patient, peer, opened_at, time.monotonic())
            timeout = _LATE if one.is_patient else _SOON
            peer.send(f"AWAIT {number} {queue} {timeout}\n".encode())
            round_.append(one)
        patient = sum(one.is_patient for one in round_)
        server.until(lambda state: state["waiters"]["requests"] >= patient)
        yield round_


class _Items:
    """Puts items on a connection that a kill may end, and looks into the database."""

    def __init__(self, ground: Ground, server: ServerProcess) -> None:
        self._ground = ground
        self._server = server
        self._base = sqlite3.connect(f"file:{ground.directory}/items?mode=ro", uri=True)
        self._peer: Peer | None = None
        self.acknowledged: list[int] = []
        self.last = 0

    def close(self) -> None:
        """Leave."""
        if self._peer is not None:
            self._peer.close()
        self._base.close()

    def put(self, queue: str) -> None:
        """Put an item into a queue and have a request woken; if a worker dies of it, again."""
        self.last += 1
        self._ground.until(lambda: self._is_put(queue), "the item is stored")

    def _is_put(self, queue: str) -> bool:
        self._peer = self._peer or self._server.connect()
        reply = ""
        with contextlib.suppress(OSError):
            reply = self._peer.ask(f"PUT {queue}:{self.last}")
        if reply == "1":
            self.acknowledged.append(self.last)
            return True
        assert not reply, reply
        self._peer.close()
        self._peer = None
        return bool(self._base.execute("select 1 from items where id = ?", (self.last,)).fetchall())

    def all(self) -> dict[int, tuple[int | None, int | None]]:
        """Return by item the pid of the process that took it, and the request that it was for."""
        rows = self._base.execute("select id, pid, client from items").fetchall()
        return {item: (pid, number) for item, pid, number in rows}


def _disturb(ground: Ground, server: ServerProcess, items: _Items, round_: list[Waiter]) -> int:
    """Put an item for each request; kill, resize and reload meanwhile. Return the number of changes."""
    changes = ["kill"] * (3 if ground.size.name == "small" else 5) + ["resize"] + ["reload"]
    ground.rng.shuffle(changes)
    every = max(1, len(round_) // len(changes))
    todo = list(changes)
    for index, one in enumerate(ground.rng.sample(round_, len(round_))):
        if index % every == 0 and todo:
            _change(ground, server, todo.pop())
        items.put(one.queue)
    for change in todo:
        _change(ground, server, change)
    server.order(f"SCALE {WORKERS}")
    return len(changes)


def _change(ground: Ground, server: ServerProcess, change: str) -> None:
    if change == "kill":
        while not ground.kill(server, ground.rng.choice(server.pids())):
            pass
    elif change == "resize":
        server.order(f"SCALE {ground.rng.choice(_SIZES)}")
    else:
        server.order("RELOAD")


def _read_all(ground: Ground, round_: list[Waiter]) -> None:
    """Read the reply of each request, or the end of its connection."""
    give_up_at = time.monotonic() + TIMEOUT
    waiting = {one.peer.socket: one for one in round_}
    while waiting:
        ready = select.select(list(waiting), [], [], max(0.0, give_up_at - time.monotonic()))[0]
        if not ready:
            return  # what is left is noted as timed out
        for sock in ready:
            _note(ground, waiting.pop(sock))


def _note(ground: Ground, one: Waiter) -> None:
    line = ""
    port = one.peer.socket.getsockname()[1]
    with contextlib.suppress(OSError):
        line = one.peer.line()
    how, worker = judged(one.number, line.encode()) if line else ("closed", "")
    one.is_over = True
    one.item = line.split()[-1] if not how else ""
    ground.own[one.number - OWN_NUMBERS] = Request(
        one.number, how, worker, port, one.opened_at, one.sent_at, time.monotonic()
    )


def _account(ground: Ground, requests: list[Request], found: list[Waiter], items: _Items) -> None:
    report, stored = ground.report, items.all()
    killed = {kill.pid for kill in ground.kills}
    taken_by = {number: pid for pid, number in stored.values() if number is not None}
    ground.taken |= {number for number, pid in taken_by.items() if pid in killed}
    ground.account(requests)
    report.p99_ms = p99_ms(requests)  # of those that do not wait
    got = Counter(int(one.item) for one in found if one.item.isdigit())
    numbers = {one.number: one for one in found}
    given = {number: item for item, (_, number) in stored.items() if number is not None}
    lying = [item for item, (pid, _) in stored.items() if pid is None]
    report.check("items that are not stored", len(set(items.acknowledged) - set(stored)))
    report.check("items that came twice", sum(count > 1 for count in got.values()))
    report.check(
        "items that another request got than took them",
        sum(one.item.isdigit() and given.get(one.number) != int(one.item) for one in found),
    )
    report.check(
        "items lost otherwise than with a killed worker",
        sum(not numbers[number].item and pid not in killed for number, pid in taken_by.items()),
    )
    report.check(
        "requests that wait though an item came for each", sum(not one.is_over for one in found)
    )
    report.check(
        "requests whose time was up early",
        sum(one.is_patient and one.item == "None" for one in found),
    )
    report.check("runs of a handler after its reply", _looks_after(ground, ground.own))
    report.figures.update(
        woken=sum(one.item.isdigit() for one in found),
        timed_out=sum(one.item == "None" for one in found),
        lying=len(lying),
    )


def _looks_after(ground: Ground, requests: list[Request]) -> int:
    """Return how often a handler ran for a request whose client had its reply."""
    ended = {one.number: one.ended_at for one in requests if one.is_right}
    looks = [
        (int(number), float(at))
        for path in ground.journals.iterdir()
        for number, at in _LOOK.findall(path.read_text())
    ]
    return sum(at > ended.get(number, at) for number, at in looks)
