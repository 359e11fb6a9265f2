"""What ``stats`` shows: only what is true of this server."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from items import Totals
from shared import Counters, Settings, uptime

import linepool

_SWITCHES = ("detail_enabled", "lru_crawler", "track_sizes")


def statistics(
    what: bytes, totals: Totals, counters: Counters, settings: Settings
) -> Mapping[str, object] | None:
    """Return the names and values of a group, or None: there is no such group."""
    if what == b"":
        return _general(totals, counters, settings)
    if what == b"settings":
        return _settings(counters, settings)
    if what == b"items":
        return _items(totals, counters) if totals.items else {}
    if what == b"slabs":
        return {"active_slabs": int(totals.items > 0), "total_malloced": totals.size_bytes}
    return {} if what == b"conns" else None


def _general(totals: Totals, counters: Counters, settings: Settings) -> dict[str, object]:
    return {
        "pid": os.getppid(),
        "uptime": uptime(),
        "time": int(time.time()),
        "pointer_size": 64,
        "threads": counters.workers(),
        "accepting_conns": 1,
        **_connections(),
        **counters.sums(),
        "limit_maxbytes": settings["maxbytes"],
        "bytes": totals.size_bytes,
        "curr_items": totals.items,
        "total_items": totals.stored,
        "evictions": totals.evicted,
        "evicted_unfetched": totals.evicted_unfetched,
        "reclaimed": totals.expired,
        "expired_unfetched": totals.expired_unfetched,
    }


def _connections() -> dict[str, object]:
    """Return the figures that the master has; none if the server has no control socket."""
    try:
        status = linepool.server_status()
    except linepool.SetupError:
        return {}
    return {
        "curr_connections": sum(status["connections"].values()),
        "rejected_connections": status["counters"]["refused"],
    }


def _settings(counters: Counters, settings: Settings) -> dict[str, object]:
    return {
        "maxbytes": settings["maxbytes"],
        "verbosity": settings["verbosity"],
        "evictions": "on",
        "cas_enabled": "yes",
        "num_threads": counters.workers(),
        "stat_key_prefix": ":",
        **{name: "yes" if settings[name] else "no" for name in _SWITCHES},
        "flush_enabled": "yes",
        "dump_enabled": "yes",
        "shutdown_command": "no",
        "binding_protocol": "ascii",
    }


def _items(totals: Totals, counters: Counters) -> dict[str, object]:
    """Return ``stats items``: all items are in class 1."""
    found = {
        "number": totals.items,
        "mem_requested": totals.size_bytes,
        "evicted": totals.evicted,
        "evicted_unfetched": totals.evicted_unfetched,
        "outofmemory": counters.sums()["store_no_memory"],
        "reclaimed": totals.expired,
        "expired_unfetched": totals.expired_unfetched,
    }
    return {f"items:1:{name}": value for name, value in found.items()}
