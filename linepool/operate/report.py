"""The state of a server: the data behind ``linepool status``."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

from attrs import asdict

from linepool import core
from linepool.facts import CommandFacts
from linepool.ipc.board import SlotSnapshot
from linepool.kernel.cgroups import memory_limit
from linepool.kernel.cpus import available_cpus
from linepool.master.generation import Generation
from linepool.master.master import Master
from linepool.master.recycler import resident_bytes
from linepool.pool.scoreboard import WorkerState
from linepool.version import __version__

_LIMITS_NS = 5_000_000_000  # for which limits are taken to stay as they were


def status(master: Master) -> dict[str, Any]:
    """Return the state of the server, with the keys that other programs rely on."""
    master.drain()
    now_ns = time.monotonic_ns()
    workers = [worker for worker in master.scoreboard.workers.values() if worker.pid]
    workers.sort(key=lambda worker: worker.slot)
    slots = {worker.slot: master.board.slot(worker.slot).snapshot() for worker in workers}
    tally = master.scoreboard.tally()
    counters = master.pool.counters.plus(list(slots.values()))
    bounds = master.settings.workers
    return {
        "name": master.generation.facts.name,
        "version": __version__,
        "pid": master.pid,
        "uptime_s": round(time.monotonic() - master.started_at, 3),
        "state": _phase(master),
        "core": "compiled" if core.compiled else "pure",
        "generation": master.generation.number,
        "processes": {
            "master": master.pid,
            "loader": master.generation.loader.process.pid,
            **master.helpers,
        },
        "scheme": master.settings.scheme,
        "listeners": [
            dict(zip(("address", "backlog", "backlog_max"), (one.name, *one.queue()), strict=True))
            for one in master.listeners
        ],
        "limits": _limits(now_ns // _LIMITS_NS),
        "tally": {**asdict(tally), "total": tally.total, "min": bounds.min, "max": bounds.max},
        "connections": {
            "hot": sum(slot.held for slot in slots.values()),
            "parked": master.board.parked,
        },
        "counters": {
            **counters,
            "refused": counters["refused"] + master.board.refused_by_parker,
            "dropped": counters["dropped"] + master.pool.dropped_by_parker,
            "saturated_s": round(master.load.saturated_s, 3),
        },
        "brakes": [
            {
                "command": command,
                "deaths": master.pool.brake.deaths(command),
                "left_s": round(max(0.0, until - now_ns / 1e9), 3),
            }
            for command, until in master.pool.brake.braked.items()
        ],
        "workers": [
            _worker(worker, slots[worker.slot], master.pool.workers[worker.slot].generation, now_ns)
            for worker in workers
        ],
    }


@functools.lru_cache(maxsize=1)
def _limits(_period: int) -> dict[str, float | None]:
    """Return what machine or container allow, as of the beginning of a period: to read that takes 1 ms."""
    memory = memory_limit()
    return {
        "cpus": available_cpus(),
        "memory_bytes": None if memory == math.inf else int(memory),
    }


def _phase(master: Master) -> str:
    if master.stopping:
        return "stopping"
    if master.is_drained:
        return "draining" if master.scoreboard.workers else "drained"
    return "ready" if master.was_ready else "starting"


def _limit(generation: Generation, command: CommandFacts | None) -> float | None:
    """Return the seconds that a request may take; None: without limit."""
    own = command.timeout if command else None
    return (generation.settings.request_timeout if own is None else own) or None


def _worker(
    worker: WorkerState, slot: SlotSnapshot, generation: Generation, now_ns: int
) -> dict[str, Any]:
    age_ns = max(1, now_ns - worker.spawned_ns)
    request = generation.logged(slot.command, slot.line) if slot.started_ns else None
    return {
        "slot": worker.slot,
        "pid": worker.pid,
        "generation": worker.generation,
        "state": worker.shown,
        "since_s": round((now_ns - worker.since_ns) / 1e9, 3),
        "requests": slot.requests,
        "connections": slot.connections,
        "busy_ratio": round(min(1.0, slot.handler_ns / age_ns), 4),
        "rss_bytes": resident_bytes(worker.pid),
        "command": request.name if request else None,
        "timeout_s": _limit(generation, request.command) if request else None,
    }
