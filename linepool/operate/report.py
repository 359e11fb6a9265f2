"""The state of a server: the data behind ``linepool status``."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

from attrs import asdict

from linepool import core
from linepool.ipc.board import SlotSnapshot
from linepool.kernel.cgroups import memory_limit
from linepool.kernel.cpus import available_cpus
from linepool.kernel.listeners import Listener
from linepool.master.generation import Generation
from linepool.master.master import Master
from linepool.master.recycler import resident_bytes
from linepool.pool.scoreboard import WorkerState
from linepool.settings import Settings
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
        "listeners": [_listener(one, master.settings) for one in master.listeners],
        "limits": _limits(now_ns // _LIMITS_NS),
        "tally": {**asdict(tally), "total": tally.total, "min": bounds.min, "max": bounds.max},
        "connections": {
            "hot": sum(slot.held for slot in slots.values()),
            "parked": master.board.parked,
        },
        "waiting": master.load.waiting(tally),
        "waiters": waiters(master),
        "counters": {
            **counters,
            "refused": counters["refused"] + master.board.refused_by_parker,
            "dropped": counters["dropped"] + master.pool.dropped_by_parker,
            "denied": counters["denied"] + master.board.denied_by_parker,
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
        "bans": [
            {
                "network": network,
                "left_s": None if until == math.inf else round(max(0.0, until - now_ns / 1e9), 3),
            }
            for network, until in master.board.bans.items()
        ],
        "workers": [
            _worker(worker, slots[worker.slot], master.pool.workers[worker.slot].generation, now_ns)
            for worker in workers
        ],
    }


def waiters(master: Master) -> dict[str, Any]:
    """Return which requests wait without a worker, with keys that other programs rely on."""
    now_ns = time.monotonic_ns()
    awaited = master.board.awaited
    topics: list[dict[str, Any]] = [
        {
            "topic": _text(one.topic),
            "command": _text(one.command),
            "requests": one.requests,
            "oldest_s": round(max(0, now_ns - one.since_ns) / 1e9, 3),
        }
        for one in awaited.read()
    ]
    oldest_s = max((one["oldest_s"] for one in topics), default=None)
    return {"requests": awaited.requests, "oldest_s": oldest_s, "topics": topics}


def _text(name: bytes) -> str:
    """Return a name for people: UTF-8, with escapes for all that is not printable."""
    text = name.decode(errors="backslashreplace")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _listener(listener: Listener, settings: Settings) -> dict[str, Any]:
    backlog, backlog_max = listener.queue()
    facts: dict[str, Any] = {
        "address": listener.name,
        "backlog": backlog,
        "backlog_max": backlog_max,
    }
    if table := settings.table_of(listener.key):
        facts |= {"app": table.app, "name": table.name or table.app}
    own = settings.of_listener(listener.key)
    if own.tls_cert:
        facts["tls"] = "starttls" if own.starttls else "on"
    if own.proxy_from:
        facts["proxy"] = True
    return facts


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
    if master.planned_drain:
        return "draining"
    if master.is_drained:
        return "draining" if master.scoreboard.workers else "drained"
    return "ready" if master.was_ready else "starting"


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
        "request_s": round((now_ns - slot.started_ns) / 1e9, 3) if request else None,
        "timeout_s": (slot.limit_ns / 1e9 or None) if request else None,
    }
