"""How often each command was served, and how long that took: the data behind ``linepool stats``."""

from __future__ import annotations

import time
from typing import Any

from linepool.ipc.figures import KEPT_NS, CommandFigures, Reader
from linepool.master.master import Master

_MOST_SLOW = 20


def stats(master: Master, *, with_buckets: bool = False) -> dict[str, Any]:
    """Return the figures since the start of the server, with the keys that other programs rely on.

    Args:
        master: Of the server.
        with_buckets: With the histograms of the durations; see ``BOUNDS_NS``. Buckets of none are left out.
    """
    reader, slots = Reader(master.figures), master.board.used
    now_ns = time.monotonic_ns()
    queue = reader.queue(slots)
    commands = sorted(reader.commands(slots), key=lambda one: -one.sum_ns)
    return {
        "commands": [
            {**_of_command(one), **(_buckets(one) if with_buckets else {})}
            for one in commands
            if one.count
        ],
        "queue": {
            "reads": queue.count,
            "waited_s": round(queue.sum_ns / 1e9, 6),
            **_quantiles(queue),
            **(_buckets(queue) if with_buckets else {}),
        },
        "slowest": [
            {
                "command": one.command,
                "client": one.client,
                "result": one.result,
                "took_s": round(one.took_ns / 1e9, 6),
                "ago_s": round((now_ns - one.began_ns - one.took_ns) / 1e9, 3),
            }
            for one in reader.slowest(slots, now_ns - KEPT_NS)[:_MOST_SLOW]
        ],
    }


def _of_command(one: CommandFigures) -> dict[str, Any]:
    return {
        "command": one.name,
        "requests": one.count,
        "ok": one.ok,
        **one.failed,
        "handler_s": round(one.sum_ns / 1e9, 6),
        **_quantiles(one),
    }


def _quantiles(one: CommandFigures) -> dict[str, float]:
    return {f"p{percent}_s": one.quantile_ns(percent / 100) / 1e9 for percent in (50, 95, 99)}


def _buckets(one: CommandFigures) -> dict[str, list[tuple[int, int]]]:
    return {"buckets": [(number, count) for number, count in enumerate(one.buckets) if count]}
