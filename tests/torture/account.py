"""What became of every request and connection of torture_churn.py, and what must be true of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from attrs import frozen

from tests.torture.clients import TIMED_OUT, Answered, Lost, Outcomes

_SEEN_WITHIN = 2.0  # seconds until a client knows that its connection ended with a worker
_MAX_DETAILS = 20  # requests described one by one

Row = tuple[str, int, str]
"""What was counted, how many, and what the number must be ("": anything)."""


@frozen
class Kill:
    """A killed worker, with the client ports of the connections that it held."""

    pid: int
    at: float
    ports: frozenset[int]


@frozen
class Journals:
    """(pid, request) of every request that a worker began, and of every one that it ended."""

    began: list[tuple[int, int]]
    ended: set[tuple[int, int]]

    @classmethod
    def read(cls, directory: Path) -> Journals:
        """Return what all workers have written."""
        began: list[tuple[int, int]] = []
        ended: set[tuple[int, int]] = set()
        for path in directory.iterdir():
            for line in path.read_text().split():
                note = (int(path.name), int(line[1:]))
                if line[0] == "+":
                    began.append(note)
                else:
                    ended.add(note)
        return cls(began, ended)


@frozen(kw_only=True, slots=False)
class Account:
    """All requests and connections of one run.

    Attributes:
        counters: As the server's status has them.
        parked: Connections that were parked before the first kill.
        left: Connections that the server had not closed when all clients had.
    """

    busy: Outcomes
    idle: Outcomes
    idle_ports: frozenset[int]
    kills: list[Kill]
    journals: Journals
    counters: dict[str, int]
    resizes: int
    parked: int
    left: int

    def rows(self) -> list[Row]:
        """Return the table."""
        return [*self._events(), *self._replies(), *self._losses(), *self._connections()]

    def _events(self) -> list[Row]:
        # A worker that was killed while it left may not be counted by the server.
        crashed = max(0, self.counters["crashes"] - len(self.kills))
        return [
            ("workers killed", len(self.kills), ""),
            ("... while they held a connection", sum(bool(kill.ports) for kill in self.kills), ""),
            ("workers recycled", self.counters["recycled"], ""),
            ("pool resizes", self.resizes, ""),
            ("other worker crashes", crashed, "0"),
        ]

    def _replies(self) -> list[Row]:
        answered = self.busy.answered + self.idle.answered
        correct = [one for one in answered if one.is_correct]
        began, ended = set(self.journals.began), self.journals.ended
        elsewhere = sum((one.pid, one.request) not in began for one in correct)
        early = sum((one.pid, one.request) not in ended for one in correct)
        requests = len(answered) + len(self.busy.lost) + len(self.idle.lost)
        return [
            ("requests", requests, ""),
            ("correct replies", len(correct), ""),
            ("wrong replies", len(answered) - len(correct), "0"),
            ("replies from a worker that did not begin the request", elsewhere, "0"),
            ("replies from a worker that did not end the request", early, "0"),
        ]

    def _losses(self) -> list[Row]:
        lost = self.busy.lost
        explained = [one for one in lost if self._killers(one)]
        begun = [one for one in explained if one.request in self._begun_by]
        foreign = sum(self._is_foreign(one) for one in begun)
        return [
            ("replies lost by busy clients", len(lost), ""),
            ("... request begun by a killed worker", len(begun), ""),
            ("... connection held by a killed worker, request not begun",
             len(explained) - len(begun), ""),
            ("... connection not held by a killed worker", len(lost) - len(explained), "0"),
            ("... request begun by a worker other than the killed one", foreign, "0"),
            ("... timed out", sum(one.how == TIMED_OUT for one in lost), "0"),
        ]  # fmt: skip

    def _connections(self) -> list[Row]:
        killed = {kill.pid for kill in self.kills}
        cut_off = sum(
            note not in self.journals.ended and note[0] not in killed
            for note in self.journals.began
        )
        twice = len(self.journals.began) - len(self._begun_by)
        idle = len(self.idle.answered) + len(self.idle.lost)
        held = sum(len(kill.ports & self.idle_ports) for kill in self.kills)
        return [
            ("requests begun twice", twice, "0"),
            ("requests cut off in a worker that was not killed", cut_off, "0"),
            ("idle connections", idle, ""),
            ("... parked before the first kill", self.parked, ""),
            ("... held by a worker when it was killed", held, ""),
            ("... dropped", len(self.idle.lost), "0"),
            ("connections open after all clients have left", self.left, "0"),
        ]

    def details(self) -> list[str]:
        """Return what is known of the requests that were lost or begun and should not have been."""
        suspects = {request for request, pids in self._begun_by.items() if len(pids) > 1}
        suspects.update(one.request for one in self.idle.lost)
        suspects.update(
            one.request for one in self.busy.lost if not self._killers(one) or self._is_foreign(one)
        )
        outcomes: dict[int, Answered | Lost] = {}
        for found in (self.busy, self.idle):
            outcomes |= {one.request: one for one in found.answered}
            outcomes |= {one.request: one for one in found.lost}
        return [
            f"{outcomes.get(request)}, begun by {self._fates(request) or 'no worker'}"
            for request in sorted(suspects)[:_MAX_DETAILS]
        ]

    def _fates(self, request: int) -> str:
        killed = {kill.pid: kill.at for kill in self.kills}
        return ", ".join(
            f"{pid} ({'ended' if (pid, request) in self.journals.ended else 'not ended'}"
            f"{f', killed at {killed[pid]}' if pid in killed else ''})"
            for pid in self._begun_by.get(request, ())
        )

    @cached_property
    def _begun_by(self) -> dict[int, list[int]]:
        """The pids of the workers that began a request, by request."""
        begun_by: dict[int, list[int]] = {}
        for pid, request in self.journals.began:
            begun_by.setdefault(request, []).append(pid)
        return begun_by

    @cached_property
    def _kills_by_port(self) -> dict[int, list[Kill]]:
        """The kills of workers that held a connection, by its client's port."""
        by_port: dict[int, list[Kill]] = {}
        for kill in self.kills:
            for port in kill.ports:
                by_port.setdefault(port, []).append(kill)
        return by_port

    def _killers(self, lost: Lost) -> list[int]:
        """Return the workers that held a lost connection when they were killed."""
        # Two, if the first had handed it off and not yet closed its own descriptor.
        return [
            kill.pid
            for kill in self._kills_by_port.get(lost.port, ())
            if lost.opened_at <= kill.at <= lost.lost_at <= kill.at + _SEEN_WITHIN
        ]

    def _is_foreign(self, lost: Lost) -> bool:
        """Whether a worker began a lost request that did not hold its connection when killed."""
        killers = self._killers(lost)
        return bool(killers) and not set(self._begun_by.get(lost.request, ())) <= set(killers)


def quiet_account(journals: Path, busy: Outcomes, idle: Outcomes) -> Account:
    """Return the account of a time in which nothing was killed; no request is in flight any more.

    Args:
        journals: The directory of the journals, which are emptied.
        busy: What became of the requests of busy clients.
        idle: What became of those of idle ones.
    """
    account = Account(
        busy=busy,
        idle=idle,
        idle_ports=frozenset(),
        kills=[],
        journals=Journals.read(journals),
        counters={"crashes": 0, "recycled": 0},
        resizes=0,
        parked=0,
        left=0,
    )
    for path in journals.iterdir():
        os.truncate(path, 0)
    return account


def broken(rows: Sequence[Row]) -> list[str]:
    """Return the rows whose number is not what it must be."""
    return [f"{what}: {count}" for what, count, must_be in rows if must_be not in ("", str(count))]


def how_lost(account: Account) -> dict[str, int]:
    """Return how replies were lost, and how many of them each way."""
    return dict(Counter(one.how for one in account.busy.lost + account.idle.lost))
