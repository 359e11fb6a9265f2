"""What became of every request of an experiment, and whether that is what was promised; pure but for reading.

A request without its right reply is in one of three classes:

* L1: it was not begun. Its connection was held by a process that was killed; to send it again is safe.
* L2: it was begun, or its worker had taken its connection from the parker to begin it, or had read it
  together with one that was begun, and the worker was killed or the time limit of the request had passed.
* L3: anything else, which is a fault.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from attrs import Factory, define, frozen

from tests.torture.experiments.generator import TIMED_OUT, Request

_MAX_DETAILS = 10


@frozen
class Kill:
    """A killed process.

    Attributes:
        pid: Of the process; 0: all workers.
        at: When (monotonic).
        ports: The clients' ports of the connections that it held; None: any.
        until: When the last process had ended, if several were killed.
    """

    pid: int
    at: float
    ports: frozenset[int] | None
    until: float = 0.0

    def may_explain(self, request: Request) -> bool:
        """Whether the request was under way on a connection that the process held."""
        was_open = request.opened_at <= max(self.at, self.until) and self.at <= request.ended_at
        return was_open and (self.ports is None or request.port in self.ports)


@frozen(slots=False)
class Journals:
    """What the workers have written, by the name of the journal.

    Attributes:
        began: (worker, request) of every request that a worker began.
        ended: Of every one that it ended.
        kills: Of workers that ended themselves.
    """

    began: list[tuple[str, int]]
    ended: set[tuple[str, int]]
    kills: list[Kill]

    @classmethod
    def read(cls, directory: Path) -> Journals:
        """Return what all workers have written."""
        began: list[tuple[str, int]] = []
        ended: set[tuple[str, int]] = set()
        kills: list[Kill] = []
        for path in directory.iterdir():
            for line in path.read_text().split():
                if line[0] == "!":
                    at, _, ports = line[1:].partition(":")
                    held = frozenset(int(port) for port in ports.split(",") if port)
                    kills.append(Kill(int(path.name.partition(".")[0]), float(at), held))
                elif line[0] == "+":
                    began.append((path.name, int(line[1:])))
                elif line[0] == "-":
                    ended.add((path.name, int(line[1:])))
        return cls(began, ended, kills)

    @cached_property
    def begun_by(self) -> dict[int, list[str]]:
        """The workers that began a request."""
        begun: dict[int, list[str]] = {}
        for worker, request in self.began:
            begun.setdefault(request, []).append(worker)
        return begun

    @cached_property
    def _births(self) -> dict[int, list[tuple[float, str]]]:
        """When the workers with a pid were born, in this order, and their names."""
        births: dict[int, list[tuple[float, str]]] = {}
        for name in {worker for worker, _ in self.began}:
            pid, _, at = name.partition(".")
            births.setdefault(int(pid), []).append((int(at) / 1e9, name))
        for those in births.values():
            those.sort()
        return births

    def victim_of(self, kill: Kill) -> str:
        """Return the worker that a kill ended, for a pid may have been used again; "": it began nothing."""
        before = [name for at, name in self._births.get(kill.pid, ()) if at <= kill.at]
        return before[-1] if before else ""

    def is_killed(self, worker: str, kill: Kill) -> bool:
        """Whether a kill was of a worker; one without a pid may have been of any."""
        return not kill.pid or self.victim_of(kill) == worker


@define
class Losses:
    """How many requests were lost, by class, with what is known of those in L3."""

    counts: Counter[str] = Factory(lambda: Counter({"L1": 0, "L2": 0, "L3": 0}))
    details: list[str] = Factory(list)


def losses(
    requests: Iterable[Request],
    journals: Journals,
    kills: Sequence[Kill],
    taken: Iterable[int] = (),
) -> Losses:
    """Put each request without its right reply in its class.

    Args:
        requests: All requests.
        journals: Of the workers.
        kills: All kills.
        taken: Requests that a worker had taken that was killed, or whose time limit had passed.
    """
    found = Losses()
    requests, taken = list(requests), set(taken)
    read = {_burst(one) for one in requests if one.number in journals.begun_by}
    by_port: dict[int | None, list[Kill]] = {}  # None: those that may explain any
    for kill in kills:
        for port in [None] if kill.ports is None else kill.ports:
            by_port.setdefault(port, []).append(kill)
    for request in requests:
        if request.is_right or request.is_wrong:
            continue
        near = [*by_port.get(request.port, ()), *by_port.get(None, ())]
        killers = [kill for kill in near if kill.may_explain(request)]
        kind = _class_of(request, journals, kills, killers, taken)
        if kind == "L1" and _burst(request) in read:
            kind = "L2"
        found.counts[kind] += 1
        if kind == "L3" and len(found.details) < _MAX_DETAILS:
            begun = journals.begun_by.get(request.number)
            found.details.append(f"lost for no reason: {request}, begun by {begun}")
    return found


def _burst(request: Request) -> tuple[int, float, float]:
    """Return what requests share that were sent together."""
    return request.port, request.opened_at, request.sent_at


def _class_of(
    request: Request,
    journals: Journals,
    kills: Sequence[Kill],
    killers: Sequence[Kill],
    taken: set[int],
) -> str:
    workers = journals.begun_by.get(request.number, [])
    if request.how == TIMED_OUT:
        return "L3"
    if request.number in taken:
        return "L2"
    is_error = request.how.startswith("error")  # it was told, so its worker had taken it
    if not workers:
        return "L3" if not killers else "L2" if is_error else "L1"
    # The connection of a request that was told may have come to another worker since.
    suspects = kills if is_error else killers
    is_theirs = all(any(journals.is_killed(one, kill) for kill in suspects) for one in workers)
    return "L2" if is_theirs else "L3"


def p99_ms(requests: Iterable[Request]) -> float:
    """Return how long 99 of 100 right replies took at most; 0: there is none."""
    times = sorted(one.ended_at - one.sent_at for one in requests if one.is_right)
    return round(1000 * times[int(len(times) * 0.99)], 1) if times else 0.0


@define
class Report:
    """What an experiment found.

    Attributes:
        kills: How often a fault was caused: a process killed, a change made.
        recovery_s: How long the pool took to be whole again, after each fault.
        checks: What was counted, with what it must be.
        figures: What is told besides.
        excused: Requests that the server has counted as dropped, which is allowed in this experiment.
    """

    name: str
    seed: int
    n: int = 0
    kills: int = 0
    lost: Mapping[str, int] = Factory(lambda: {"L1": 0, "L2": 0, "L3": 0})
    wrong: int = 0
    p99_ms: float = 0.0
    recovery_s: list[float] = Factory(list)
    checks: dict[str, tuple[object, object]] = Factory(dict)
    figures: dict[str, object] = Factory(dict)
    details: list[str] = Factory(list)
    excused: int = 0

    def check(self, what: str, found: object, must_be: object = 0) -> None:
        """Note what was counted and what it must be; what is counted twice must be right both times."""
        if what not in self.checks or self.checks[what][0] == self.checks[what][1]:
            self.checks[what] = (found, must_be)

    def add(
        self,
        requests: Sequence[Request],
        journals: Journals,
        kills: Sequence[Kill],
        taken: Iterable[int] = (),
    ) -> Losses:
        """Account for requests: nothing in L3, no wrong reply, nothing begun twice or replied by another."""
        kills = [*kills, *journals.kills]
        lost = losses(requests, journals, kills, taken)
        right = [one for one in requests if one.is_right]
        wrong = [one for one in requests if one.is_wrong]
        began = set(journals.began)
        killed = {journals.victim_of(kill) for kill in kills}
        excused = set(taken)
        cut = [
            (worker, number)
            for worker, number in began - journals.ended
            if worker not in killed and number not in excused and all(kill.pid for kill in kills)
        ]
        self.n += len(requests)
        self.kills += len(kills)
        faults = max(0, lost.counts["L3"] - self.excused)
        lost.counts["L3"] = faults
        self.lost = {kind: self.lost[kind] + lost.counts[kind] for kind in self.lost}
        self.wrong += len(wrong)
        self.check("lost for no reason (L3)", faults)
        self.check("wrong replies", len(wrong))
        self.check("begun twice", len(journals.began) - len(journals.begun_by))
        proven = [(one.worker, one.number) for one in right]
        self.check(
            "replies of a worker that did not run the request",
            sum(not (one in began and one in journals.ended) for one in proven),
        )
        self.check("cut off in a worker that was not killed", len(cut))
        self.p99_ms = p99_ms(right)
        self.details += [
            *lost.details,
            *map(str, wrong[:_MAX_DETAILS]),
            *map(str, cut[:_MAX_DETAILS]),
        ]
        return lost

    @property
    def faults(self) -> list[str]:
        """The checks that failed."""
        return [
            f"{what}: {found}, must be {must}"
            for what, (found, must) in self.checks.items()
            if found != must
        ]

    def line(self) -> str:
        """Return the report as one line of JSON."""
        times = sorted(self.recovery_s)
        return json.dumps(
            {
                "name": self.name,
                "seed": self.seed,
                "n": self.n,
                "faults": self.kills,
                "lost": dict(self.lost),
                "wrong": self.wrong,
                "p99_ms": self.p99_ms,
                "recovery_s": {
                    "median": round(times[len(times) // 2], 3),
                    "max": round(times[-1], 3),
                }
                if times
                else None,
                "checks": {what: found for what, (found, _) in self.checks.items()},
                **self.figures,
                "verdict": "FAIL" if self.faults else "pass",
            }
        )
