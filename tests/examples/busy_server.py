"""A control socket that answers as that of a busy server, for the picture of ``linepool top``.

Each question for the state is answered with that of 25 seconds later, up to the last one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

_BUSY = [1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 8, 8]  # workers at each look
_WAITING = [0, 0, 0, 0, 0, 0, 0, 0, 2, 5, 9, 14]
_RATES = [52, 55, 60, 58, 61, 57, 49, 44, 38, 31, 28, 26]  # quick requests per second
_STEP_S = 25.0
_MOST = 8
LAST = "14  for"
"""What the frame of the last look has."""
_FAILED = ("client_error", "server_error", "timeout", "killed", "died", "disconnected")
_RAN = (29.0, 26.4, 21.3, 17.8, 12.2, 9.6, 4.1, 2.2)


@contextlib.contextmanager
def answering(path: str) -> Iterator[None]:
    """Answer at the path of a control socket."""
    looks = iter(range(len(_BUSY)))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            number = 0
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # it was shut down
                    return
                with client, client.makefile("rwb") as stream:
                    number = next(looks, number)
                    for line in stream:
                        reply = _REPLIES[line.split()[0].decode()](number)
                        stream.write(json.dumps(reply).encode() + b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _state(number: int) -> dict[str, Any]:
    busy = _BUSY[number]
    return {
        "name": "shop",
        "version": "0.1.0",
        "pid": 4700,
        "uptime_s": 532_800.0 + _STEP_S * number,
        "state": "ready",
        "listeners": [{"address": "127.0.0.1:7000", "backlog": 0, "backlog_max": 1024}],
        "tally": {
            "starting": 0,
            "idle": _MOST - busy,
            "busy": busy,
            "leaving": 0,
            "total": _MOST,
            "min": 2,
            "max": _MOST,
        },
        "waiting": _WAITING[number],
        "counters": {"kills": 2, "crashes": 0, "saturated_s": 0.0},
        "brakes": [],
        "workers": [_worker(slot, busy) for slot in range(_MOST)],
    }


def _worker(slot: int, busy: int) -> dict[str, Any]:
    is_busy = slot < busy
    return {
        "slot": slot,
        "pid": 4711 + slot,
        "state": "busy" if is_busy else "idle",
        "since_s": _RAN[slot],
        "command": ("SEARCH" if slot < 7 else "ORDER") if is_busy else None,
        "request_s": _RAN[slot] if is_busy else None,
        "timeout_s": 30.0 if is_busy else None,
    }


def _stats(number: int) -> dict[str, Any]:
    quick = int(_STEP_S) * sum(_RATES[: number + 1])
    slow = 40 * (number + 1)
    commands = [
        _command("SEARCH", {84: 2 * slow, 92: slow // 4}, 4.0 * slow, timeout=slow // 9),
        _command("STOCK", {46: quick, 54: quick // 20, 74: quick // 90}, 0.006 * quick),
        _command(
            "ORDER", {60: quick // 9, 68: quick // 90}, 0.004 * quick, server_error=quick // 999
        ),
    ]
    queue = {"reads": quick, "waited_s": 1.0, "buckets": [(70, quick), (86, quick // 30)]}
    return {"commands": commands, "queue": queue, "slowest": []}


def _command(name: str, buckets: dict[int, int], took: float, **failed: int) -> dict[str, Any]:
    kinds = dict.fromkeys(_FAILED, 0) | failed
    requests = sum(buckets.values())
    counts = {"command": name, "requests": requests, "ok": requests - sum(kinds.values()), **kinds}
    return {**counts, "handler_s": took, "buckets": list(buckets.items())}


def _events(_number: int) -> list[dict[str, Any]]:
    now = time.time()
    search = {"file": "/srv/shop.py", "line": 31, "function": "search"}
    facts = {"command": "SEARCH", "limit_s": 30.0, "count": 1, "stack": [search]}
    return [
        {**facts, "number": 1, "change": 1, "kind": "timeout", "last": now - 163.3, "ran_s": 30.0},
        {**facts, "number": 2, "change": 2, "kind": "killed", "last": now - 71.3, "ran_s": 31.0},
    ]


_REPLIES = {"STATUS": _state, "STATS": _stats, "EVENTS": _events}
