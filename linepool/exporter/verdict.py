"""The verdict on a server: one sentence that says how it is, and one that says more. Pure: no I/O.

It is made of what ``linepool status --json`` and ``linepool stats --json`` show; looks at them, one after the
other, tell what has changed meanwhile. What a server sends may lack a key: it may be of another version.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

RECENT_S = 300.0
"""For how long a death, or a failed request, counts."""
KEEPS_DYING = 3
"""So many deaths within a minute."""
ERROR_SHARE = 0.05
_LEAST_FAILED = 3  # fewer failed requests are no share
_LASTING_S = 2.0  # clients that wait for less are those of a short burst
_FLICKERS_S = 5.0
_SILENT_S = 3.0
_EVERY_S = 5.0  # between two looks that are kept
FAILURES = ("server_error", "timeout", "killed", "died")
"""Ways to end that are no mistake of the client's."""

Level = Literal["ok", "note", "bad"]
Condition = Literal[
    "silent", "stopping", "starting", "dying", "full", "growing", "deaths", "failing", "ok"
]


@frozen
class Verdict:
    """How a server is.

    Attributes:
        condition: What the sentence is about: the first of ``Condition`` that holds.
        level: Whether that is bad.
        sentence: How the server is.
        more: Since when, with which command, and which setting would help.
    """

    condition: Condition
    level: Level
    sentence: str
    more: str


@frozen
class Recent:
    """What has happened of late.

    Attributes:
        over_s: The time that it covers, at most ``RECENT_S``.
        requests: How many were served.
        failed: How many of them failed, by command; a client's mistake is no failure.
        deaths: Workers that were killed or that died.
        deaths_in_last_minute: Likewise.
        lost: The requests that they took with them, by command.
        last_death_s: How long ago the last one was.
        waiting: How many clients waited when some did last; 0: none did at most of the last looks.
        waiting_s: For how long clients have been waiting.
        silent_s: For how long the server has not answered.
    """

    over_s: float = 0.0
    requests: int = 0
    failed: Mapping[str, int] = {}
    deaths: int = 0
    deaths_in_last_minute: int = 0
    lost: Mapping[str, int] = {}
    last_death_s: float = 0.0
    waiting: int = 0
    waiting_s: float = 0.0
    silent_s: float = 0.0


def verdict(state: Mapping[str, Any], recent: Recent) -> Verdict:
    """Return how a server is.

    Args:
        state: As ``linepool status --json`` shows it.
        recent: What has happened of late.
    """
    condition, tally, waiting = state["state"], state["tally"], recent.waiting
    lasting = waiting > 0 and recent.waiting_s >= _LASTING_S
    bounds = f"{tally['min']}:{tally['max']}"
    if recent.silent_s > _SILENT_S:
        return Verdict(
            "silent",
            "bad",
            f"The master has not answered for {_seconds(recent.silent_s)}.",
            "Workers may still serve. What is shown is as of then.",
        )
    if condition in ("stopping", "draining", "drained"):
        return Verdict("stopping", "note", f"The server is {condition}.", _in_flight(tally))
    if condition == "starting":
        return Verdict("starting", "note", "The server is starting.", "No worker is up yet.")
    if recent.deaths_in_last_minute >= KEEPS_DYING:
        return Verdict(
            "dying",
            "bad",
            f"Workers keep dying: {recent.deaths_in_last_minute} in the last minute"
            f"{_mostly(recent.lost, recent.deaths)}.",
            f"{_refused(state)}linepool events --stacks shows where.",
        )
    if lasting and tally["total"] >= tally["max"]:
        return Verdict(
            "full",
            "bad",
            f"{_clients(waiting)}, and the pool cannot grow.",
            f"For {_seconds(recent.waiting_s)}: {_all_busy(state)}."
            f" Raise workers (now {bounds}), or see with linepool stacks what they wait for.",
        )
    if lasting:
        return Verdict(
            "growing",
            "note",
            f"{_clients(waiting)}, and the pool grows.",
            f"For {_seconds(recent.waiting_s)}: {_all_busy(state)}. It may grow to {tally['max']};"
            " min_spare keeps workers ready for that.",
        )
    if recent.deaths:
        return Verdict(
            "deaths",
            "note",
            f"{_counted(recent.deaths, 'worker')} died or had to be killed"
            f" in the last 5 minutes{_mostly(recent.lost, recent.deaths)}.",
            f"The last one {_seconds(recent.last_death_s)} ago. {_refused(state)}{_calm(state)}",
        )
    failed = sum(recent.failed.values())
    if failed >= _LEAST_FAILED and failed > ERROR_SHARE * recent.requests:
        share = max(1, round(100 * failed / recent.requests))
        return Verdict(
            "failing",
            "note",
            f"{share} % of requests fail{_mostly(recent.failed, failed)}.",
            f"{failed} of {recent.requests} in the last {_seconds(recent.over_s)}. The log says why.",
        )
    return Verdict("ok", "ok", _calm(state), _served(recent, failed, tally))


class Looks:
    """Looks at a server, one after the other."""

    def __init__(self) -> None:
        self._kept: deque[_Look] = deque()
        self._deaths: deque[float] = deque()
        self._last: _Look | None = None
        self._waiting: deque[tuple[float, int]] = deque()
        self._waiting_since = 0.0

    def add(
        self, at: float, state: Mapping[str, Any], commands: Sequence[Mapping[str, Any]]
    ) -> None:
        """Look at a server.

        Args:
            at: When, on the monotonic clock in seconds.
            state: As ``linepool status --json`` shows it.
            commands: The commands of ``linepool stats --json``.
        """
        counters, last = state["counters"], self._last
        look = _Look(
            at,
            counters["kills"] + counters["crashes"],
            {
                one["command"]: (
                    one["requests"],
                    sum(one[key] for key in FAILURES),
                    one["killed"] + one["died"],
                )
                for one in commands
            },
        )
        self._last = look
        if last:
            self._deaths.extend([at] * max(0, look.deaths - last.deaths))
        while self._deaths and self._deaths[0] < at - RECENT_S:
            self._deaths.popleft()
        if not self._kept or at - self._kept[-1].at >= _EVERY_S:
            self._kept.append(look)
        while self._kept[0].at < at - RECENT_S:
            self._kept.popleft()
        were_waiting = self._clients_waiting()
        self._waiting.append((at, state.get("waiting", 0)))
        while self._waiting[0][0] < at - _FLICKERS_S:
            self._waiting.popleft()
        if not were_waiting:
            self._waiting_since = next((when for when, count in self._waiting if count), at)

    def _clients_waiting(self) -> int:
        """Return how many clients wait: of a pool that keeps up just about, not every look finds some."""
        counts = [count for _, count in self._waiting if count]
        return counts[-1] if counts and 2 * len(counts) >= len(self._waiting) else 0

    def recent(self, now: float) -> Recent:
        """Return what has happened of late; there must have been a look."""
        last, first = self._last, self._kept[0]
        assert last
        differences = {
            name: tuple(
                now - then
                for now, then in zip(counts, first.commands.get(name, (0, 0, 0)), strict=True)
            )
            for name, counts in last.commands.items()
        }
        waiting = self._clients_waiting()
        return Recent(
            over_s=last.at - first.at,
            requests=sum(one[0] for one in differences.values()),
            failed={name: one[1] for name, one in differences.items() if one[1]},
            deaths=len(self._deaths),
            deaths_in_last_minute=sum(died >= now - 60 for died in self._deaths),
            lost={name: one[2] for name, one in differences.items() if one[2]},
            last_death_s=now - self._deaths[-1] if self._deaths else 0.0,
            waiting=waiting,
            waiting_s=now - self._waiting_since if waiting else 0.0,
        )


@frozen
class _Look:
    at: float
    deaths: int
    commands: Mapping[str, tuple[int, int, int]]  # requests, failed, lost with their worker


def _clients(waiting: int) -> str:
    return "1 client waits" if waiting == 1 else f"{waiting} clients wait"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _all_busy(state: Mapping[str, Any]) -> str:
    found = Counter(one["command"] for one in state["workers"] if one["command"])
    with_it = "".join(f", {count} with {name}" for name, count in found.most_common(1))
    return f"{_busy(state['tally'])}{with_it}"


def _busy(tally: Mapping[str, Any]) -> str:
    verb = "is" if tally["busy"] == 1 else "are"
    return f"{tally['busy']} of {_counted(tally['total'], 'worker')} {verb} busy"


def _calm(state: Mapping[str, Any]) -> str:
    busy = _busy(state["tally"])
    return f"Now {busy}." if state.get("waiting", 0) else f"No client waits: {busy}."


def _in_flight(tally: Mapping[str, Any]) -> str:
    verb = "has" if tally["busy"] == 1 else "have"
    return f"{_counted(tally['busy'], 'worker')} {verb} a request in flight."


def _mostly(counts: Mapping[str, int], total: int) -> str:
    """Return with which command all or most of that was, for the end of a sentence; "": with none."""
    name, most = max(counts.items(), key=lambda one: one[1], default=("", 0))
    if not most or 2 * most <= total:
        return ""
    return f", {'all' if most >= total else 'most'} with {name}"


def _refused(state: Mapping[str, Any]) -> str:
    names = [one["command"] for one in state.get("brakes", [])]
    return f"Refused for now: {', '.join(names)} (poison_deaths). " if names else ""


def _served(recent: Recent, failed: int, tally: Mapping[str, Any]) -> str:
    over = f"in the last {_seconds(recent.over_s)}"
    bad = f"{failed} of them failed" if failed else "none failed"
    served = f"{_counted(recent.requests, 'request')} {over}, {bad}"
    most = tally["max"]
    grows = f"The pool may grow to {most}."
    if tally["min"] == most:
        grows = f"The pool always has {_counted(most, 'worker')}."
    elif tally["total"] >= most:
        grows = "The pool is at its maximum."
    if not recent.requests and recent.over_s < 1:  # two looks that are nearly one
        return grows
    return f"{served if recent.requests else f'No request {over}'}. {grows}"


def _seconds(value: float) -> str:
    """Return a duration as a person says it."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} minutes" if value < 5400 else f"{value / 3600:.0f} hours"
