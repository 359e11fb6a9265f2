"""What ``/status.json`` shows, with the keys that other programs rely on. Pure: no I/O."""

from __future__ import annotations

from typing import Any

from attrs import asdict, evolve, frozen

from linepool.exporter.history import COLUMNS, History
from linepool.exporter.source import Snapshot
from linepool.exporter.verdict import Looks, verdict
from linepool.ipc.figures import BOUNDS_NS, CommandFigures


@frozen
class Memory:
    """What is kept of the snapshots before the last one."""

    history: History
    looks: Looks

    def add(self, snapshot: Snapshot) -> None:
        """Take note of a snapshot."""
        self.history.add(snapshot)
        self.looks.add(snapshot.at, snapshot.state, [_counts(one) for one in snapshot.commands])


def status_json(
    snapshot: Snapshot,
    now: float,
    memory: Memory,
    after: int | None = None,
    change: int | None = None,
) -> dict[str, Any]:
    """Return a snapshot as a JSON object.

    Args:
        snapshot: The last one.
        now: On the monotonic clock, in seconds.
        memory: What was before it.
        after: Show the rows of the history after this one; None: show none.
        change: Show the incidents that have changed since this change; None: show none.
    """
    queue = snapshot.queue
    recent = memory.looks.recent(snapshot.at)
    over_s, commands = memory.history.recent()
    found: dict[str, Any] = {
        "at": round(snapshot.wall, 3),
        "age_s": round(now - snapshot.at, 3),
        "saturated_s": round(snapshot.saturated_s, 3),
        "waiting_s": round(recent.waiting_s, 3),
        "verdict": asdict(verdict(snapshot.state, evolve(recent, silent_s=now - snapshot.at))),
        "server": snapshot.state,
        "commands": [
            _command(one)
            for one in sorted(snapshot.commands, key=lambda one: -one.sum_ns)
            if one.count
        ],
        "queue": {"reads": queue.count, "waited_s": queue.sum_ns / 1e9, **_quantiles(queue)},
        "slowest": [
            {
                "command": one.command,
                "client": one.client,
                "result": one.result,
                "took_s": one.took_ns / 1e9,
                "ended_at": round(
                    snapshot.wall - snapshot.at + (one.began_ns + one.took_ns) / 1e9, 3
                ),
            }
            for one in snapshot.slowest
        ],
        "recent": {
            "over_s": round(over_s, 3),
            "commands": [
                {**_command(one), "buckets": _buckets(one)}
                for one in sorted(commands, key=lambda one: -one.sum_ns)
            ],
        },
    }
    if after is not None:
        history = memory.history
        rows = history.after(after)
        found["history"] = {"newest": history.newest, "columns": COLUMNS, "rows": rows}
    if change is not None:
        newest = max((one["change"] for one in snapshot.incidents), default=0)
        since = change if change <= newest else 0  # that change was of another memory
        found["incidents"] = [one for one in snapshot.incidents if one["change"] > since]
    return found


def _command(one: CommandFigures) -> dict[str, Any]:
    return {**_counts(one), "handler_s": one.sum_ns / 1e9, **_quantiles(one)}


def _counts(one: CommandFigures) -> dict[str, Any]:
    return {"command": one.name, "requests": one.count, "ok": one.ok, **one.failed}


def _buckets(one: CommandFigures) -> list[tuple[float | None, int]]:
    """Return the upper bound of each bucket in which there are requests, in seconds, and how many."""
    bounds = [*(bound / 1e9 for bound in BOUNDS_NS), None]
    return [(bounds[number], count) for number, count in enumerate(one.buckets) if count]


def _quantiles(one: CommandFigures) -> dict[str, float]:
    return {f"p{percent}_s": one.quantile_ns(percent / 100) / 1e9 for percent in (50, 95, 99)}
