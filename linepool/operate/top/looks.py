"""What a server says of itself at one moment. All texts in it are safe to write to a terminal."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from linepool.errors import SetupError
from linepool.operate import remote
from linepool.operate.events_at_terminal import ran_of, whose_of, why_of
from linepool.operate.shown_at_terminal import clean, waiters_in_words

_LOST = ("killed", "died")
_FAILED = ("server_error", "timeout", *_LOST)
_MOST_INCIDENTS = 100
_PATIENCE_S = 3.0  # for the server's reply
_KINDS = ("starting", "idle", "busy", "leaving", "total", "min", "max")


WRONG = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What may be raised if a reply is not what a server says."""


@frozen
class Worker:
    """A worker.

    Attributes:
        state: starting, idle, busy or leaving.
        command: Of the request that it runs; "": none.
        ran_s: For how long it has run that, or has been in its state.
        limit_s: The time limit of the request; 0: none.
    """

    slot: int
    pid: int
    state: str
    command: str
    ran_s: float
    limit_s: float

    @property
    def nearness(self) -> float:
        """How much of its time the request has used: 1 is all of it."""
        return self.ran_s / self.limit_s if self.command and self.limit_s else 0.0


@frozen
class Command:
    """What has happened with a command since the start of the server.

    Attributes:
        seconds: The time that all its requests took together.
        failed: How many ended with an error of the server's, out of time, or with their worker.
        killed: How many of them ended with their worker.
        buckets: How many took how long; see ``BOUNDS_NS``. Those of none are left out.
    """

    name: str
    requests: int
    seconds: float
    failed: int
    killed: int
    buckets: Mapping[int, int]

    def since(self, before: Command | None) -> Command:
        """Return what has happened since an earlier look; None: the command was not there."""
        if before is None:
            return self
        return Command(
            self.name,
            max(0, self.requests - before.requests),
            max(0.0, self.seconds - before.seconds),
            max(0, self.failed - before.failed),
            max(0, self.killed - before.killed),
            {
                number: count - before.buckets.get(number, 0)
                for number, count in self.buckets.items()
            },
        )


@frozen
class Incident:
    """An incident.

    Attributes:
        last: When it happened last, in seconds since the epoch.
        count: How often.
        text: The rest that is known, on one line.
        whose: The client, the worker and the like.
        stack: The calls, the most recent first: each its function and its place.
    """

    number: int
    kind: str
    last: float
    count: int
    command: str
    text: str
    whose: str
    stack: tuple[tuple[str, str], ...]


@frozen
class Look:
    """A server at one moment.

    Attributes:
        at: The server's uptime in seconds: the clock by which looks are compared.
        wall: When, in seconds since the epoch.
        phase: starting, ready, draining, drained or stopping.
        waiting: Connections that wait for a worker.
        waiters: Which requests wait without a worker, in words; "": none does.
        queue: What has waited for a worker.
        judged: What the verdict is made of: as ``linepool status --json`` shows it.
        counted: Likewise, of the commands of ``linepool stats --json``.
    """

    at: float
    wall: float
    name: str
    version: str
    pid: int
    phase: str
    addresses: tuple[str, ...]
    tally: Mapping[str, int]
    waiting: int
    waiters: str
    workers: tuple[Worker, ...]
    commands: Mapping[str, Command]
    queue: Command
    incidents: tuple[Incident, ...]
    judged: Mapping[str, Any]
    counted: Sequence[Mapping[str, Any]]


class Asker:
    """Looks at a server.

    Args:
        find: Returns the path of its control socket, or raises SetupError.
    """

    def __init__(self, find: Callable[[], str]) -> None:
        self._find = find
        self._path = ""
        self._events: dict[int, Mapping[str, Any]] = {}
        self._change = 0
        self._pid = 0

    def look(self) -> Look:
        """Return the server as it is now.

        Raises:
            SetupError: It is not there, or not a server of linepool.
        """
        path = self._path or self._find()
        questions = ["STATUS json", "STATS json buckets", f"EVENTS json {self._change}"]
        try:
            state, stats, events = remote.replies(path, questions, _PATIENCE_S)
        except SetupError:
            self._forget()
            raise
        for reply in (state, stats):
            word, _, text = reply.partition(" ")
            if word in remote.ERRORS:
                raise SetupError(f"the server does not tell: {text}")
        try:
            found = remote.parsed(path, state, dict)
            if (
                found["pid"] != self._pid
            ):  # another server has other incidents: those of the next look
                is_first, self._pid = not self._pid, found["pid"]
                if not is_first:
                    self._forget()
                    events = "[]"
            if events.partition(" ")[0] not in remote.ERRORS:  # else it has none: it is older
                self._take(remote.parsed(path, events, list))
            look = look_of(
                found,
                remote.parsed(path, stats, dict),
                [self._events[number] for number in sorted(self._events)],
                time.time(),
            )
        except WRONG:
            self._forget()
            raise SetupError(f"not the state of a linepool server: {state[:80]}") from None
        self._path = path
        return look

    def stacks(self) -> list[dict[str, Any]]:
        """Return what each worker does, with its stack; as ``remote.stacks``.

        Raises:
            SetupError: The server is not there.
        """
        return remote.stacks(self._path or self._find(), "quiet")

    def _forget(self) -> None:
        """Look for the server anew: another one may have another path, and has incidents of its own."""
        self._path, self._change = "", 0
        self._events = {}

    def _take(self, changed: Sequence[Mapping[str, Any]]) -> None:
        for row in changed:
            self._change = max(self._change, int(row["change"]))
            self._events[int(row["number"])] = row
        for number in sorted(self._events)[:-_MOST_INCIDENTS]:
            del self._events[number]


def look_of(
    state: Mapping[str, Any],
    stats: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    wall: float,
) -> Look:
    """Return what a server has said.

    Args:
        state: The reply to ``STATUS json``.
        stats: The reply to ``STATS json buckets``.
        events: The records of ``EVENTS json``.
        wall: When that was, in seconds since the epoch.

    Raises:
        Exception: One of ``WRONG``: it is not what a server says.
    """
    tally = {kind: int(state["tally"].get(kind, 0)) for kind in _KINDS}
    commands = [_command(row) for row in stats["commands"]]
    queue = stats["queue"]
    waiting = int(state.get("waiting", sum(one["backlog"] for one in state["listeners"])))
    return Look(
        at=_finite(state["uptime_s"]),
        wall=wall,
        name=clean(state["name"]),
        version=clean(state["version"]),
        pid=int(state["pid"]),
        phase=clean(state["state"]),
        addresses=tuple(clean(one["address"]) for one in state["listeners"]),
        tally=tally,
        waiting=waiting,
        waiters=", ".join(waiters_in_words(state)),
        workers=tuple(_worker(row) for row in state["workers"]),
        commands={one.name: one for one in commands},
        queue=Command("", int(queue["reads"]), _finite(queue["waited_s"]), 0, 0, _buckets(queue)),
        incidents=tuple(_incident(row) for row in events),
        judged=_judged(state, tally, waiting),
        counted=[_counted(row) for row in stats["commands"]],
    )


def _judged(state: Mapping[str, Any], tally: Mapping[str, int], waiting: int) -> dict[str, Any]:
    """Return a state whose parts that the verdict is made of are known to be right.

    An older server does not say how many clients wait.
    """
    return {
        **state,
        "state": clean(state["state"]),
        "tally": tally,
        "waiting": waiting,
        "counters": {
            **state["counters"],
            **{kind: int(state["counters"][kind]) for kind in ("kills", "crashes")},
        },
        "brakes": [{**one, "command": clean(one["command"])} for one in state.get("brakes", [])],
        "workers": [{**one, "command": clean(one["command"] or "")} for one in state["workers"]],
    }


def _counted(row: Mapping[str, Any]) -> dict[str, Any]:
    kinds = ("requests", *_FAILED)
    return {**row, "command": clean(row["command"]), **{kind: int(row[kind]) for kind in kinds}}


def _worker(row: Mapping[str, Any]) -> Worker:
    ran = row.get("request_s")
    return Worker(
        slot=int(row["slot"]),
        pid=int(row["pid"]),
        state=clean(row["state"]),
        command=clean(row["command"] or ""),
        ran_s=_finite(row["since_s"] if ran is None else ran),
        limit_s=_finite(row.get("timeout_s") or 0.0),
    )


def _command(row: Mapping[str, Any]) -> Command:
    return Command(
        name=clean(row["command"]),
        requests=int(row["requests"]),
        seconds=_finite(row["handler_s"]),
        failed=sum(int(row[kind]) for kind in _FAILED),
        killed=sum(int(row[kind]) for kind in _LOST),
        buckets=_buckets(row),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def _buckets(row: Mapping[str, Any]) -> dict[int, int]:
    return {int(number): int(count) for number, count in row["buckets"]}


def _incident(row: Mapping[str, Any]) -> Incident:
    known: defaultdict[str, Any] = defaultdict(lambda: None, row)
    known["stack"] = row.get("stack") or ()
    ran, why = ran_of(known), why_of(known).partition("\n")[0]
    facts = ["" if ran == "-" else f"{'for' if row['kind'] == 'saturated' else 'ran'} {ran}", why]
    return Incident(
        number=int(row["number"]),
        kind=clean(str(row["kind"]).replace("_", " ")),
        last=_finite(row["last"]),
        count=int(row["count"]),
        command=clean(row.get("command") or ""),
        text=clean(", ".join(filter(None, facts))),
        whose=clean(whose_of(known)),
        stack=tuple(
            (clean(one["function"]), clean(f"{one['file']}:{one['line']}"))
            for one in known["stack"]
        ),
    )
