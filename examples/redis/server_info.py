"""INFO: figures of the server, true where linepool knows them, and constants elsewhere."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property

import script_table
from application import SIZE_MB, app
from db import Db
from key_store import Store
from server_commands import saved_at
from server_config import setting
from server_figures import Look, Pace, started_ticks
from transaction import Txn

from linepool import PubSub, Resp, Session
from linepool.protocols.resp import OK, Status, Verbatim

_UNITS = "BKMGTP"
_NOT_BY_DEFAULT = ("commandstats", "latencystats")
_pace = Pace()


class _Report:
    """What the sections of one INFO are made of."""

    def __init__(self, t: Txn, store: Store, resp: Resp, session: Session, pubsub: PubSub) -> None:
        self.t, self.store = t, store
        self.resp, self.session, self.pubsub = resp, session, pubsub

    @cached_property
    def look(self) -> Look:
        """The state of the server, which is asked for once, by the first section that needs it."""
        return Look.now(self.t)


Fields = Mapping[str, object]


@app.handler(flags="loading stale")
def info(
    resp: Resp, session: Session, store: Store, pubsub: PubSub, db: Db, *sections: str
) -> Verbatim:
    """Describe the server; all sections but COMMANDSTATS and LATENCYSTATS unless some are named."""
    words = {word.lower() for word in sections} or {"default"}
    if words & {"all", "everything"}:
        words |= set(_SECTIONS)
    if "default" in words:
        words |= set(_SECTIONS) - set(_NOT_BY_DEFAULT)
    with db.read() as t:
        report = _Report(t, store, resp, session, pubsub)
        parts = []
        for name, fields in _SECTIONS.items():
            if name in words:
                title = "CPU" if name == "cpu" else name.capitalize()
                lines = [f"{key}:{value}" for key, value in fields(report).items()]
                parts.append("\r\n".join([f"# {title}", *lines, ""]))
    return Verbatim("\r\n".join(parts))


def _server(report: _Report) -> Fields:
    status = report.look.status
    uptime = int(status["uptime_s"])
    pid = status["pid"] or os.getpid()
    port = report.session.listener.rpartition(":")[2]
    seed = f"{pid} {started_ticks(pid)}"
    return {
        "redis_version": report.resp.redis_version,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": "0",
        "redis_mode": "standalone",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64,
        "monotonic_clock": "POSIX clock_gettime",
        "multiplexing_api": "epoll",
        "process_id": pid,
        "process_supervised": "no",
        "run_id": hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest(),
        "tcp_port": port if port.isdigit() else 0,
        "server_time_usec": time.time_ns() // 1000,
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86400,
        "hz": setting(report.t, "hz"),
        "configured_hz": setting(report.t, "hz"),
        "lru_clock": int(time.time()) & 0xFFFFFF,
        "executable": sys.executable,
        "config_file": "",
        "io_threads_active": 0,
        "linepool_workers": len(status["workers"]),
    }


def _clients(report: _Report) -> Fields:
    return {
        "connected_clients": max(1, report.look.clients),
        "cluster_connections": 0,
        "maxclients": setting(report.t, "maxclients"),
        "client_recent_max_input_buffer": 0,
        "client_recent_max_output_buffer": 0,
        "blocked_clients": report.look.status.get("waiters", {}).get("requests", 0),
        "tracking_clients": 0,
        "clients_in_timeout_table": 0,
    }


def _memory(report: _Report) -> Fields:
    used = report.store.used_bytes()
    resident = report.look.resident_bytes
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = SIZE_MB * 2**20
    return {
        "used_memory": used,
        "used_memory_human": human(used),
        "used_memory_rss": resident,
        "used_memory_rss_human": human(resident),
        "used_memory_peak": used,
        "used_memory_peak_human": human(used),
        "used_memory_peak_perc": "100.00%",
        "used_memory_overhead": 0,
        "used_memory_startup": 0,
        "used_memory_dataset": used,
        "used_memory_dataset_perc": "100.00%",
        "total_system_memory": total,
        "total_system_memory_human": human(total),
        "used_memory_lua": 0,
        "used_memory_lua_human": human(0),
        "used_memory_scripts": 0,
        "used_memory_scripts_human": human(0),
        "number_of_cached_scripts": script_table.count(report.t),
        "number_of_functions": 0,
        "number_of_libraries": 0,
        "maxmemory": most,
        "maxmemory_human": human(most),
        "maxmemory_policy": "noeviction",
        "mem_fragmentation_ratio": "1.00",
        "mem_fragmentation_bytes": 0,
        "mem_not_counted_for_evict": 0,
        "mem_replication_backlog": 0,
        "mem_clients_slaves": 0,
        "mem_clients_normal": 0,
        "mem_aof_buffer": 0,
        "mem_allocator": "lmdb",
        "active_defrag_running": 0,
        "lazyfree_pending_objects": 0,
        "lazyfreed_objects": 0,
    }


def _persistence(report: _Report) -> Fields:
    return {
        "loading": 0,
        "async_loading": 0,
        "current_cow_size": 0,
        "rdb_changes_since_last_save": 0,
        "rdb_bgsave_in_progress": 0,
        "rdb_last_save_time": saved_at(report.t),
        "rdb_last_bgsave_status": "ok",
        "rdb_last_bgsave_time_sec": -1,
        "rdb_current_bgsave_time_sec": -1,
        "rdb_saves": 0,
        "rdb_last_cow_size": 0,
        "aof_enabled": 0,
        "aof_rewrite_in_progress": 0,
        "aof_rewrite_scheduled": 0,
        "aof_last_rewrite_time_sec": -1,
        "aof_current_rewrite_time_sec": -1,
        "aof_last_bgrewrite_status": "ok",
        "aof_last_write_status": "ok",
        "aof_last_cow_size": 0,
        "module_fork_in_progress": 0,
    }


def _stats(report: _Report) -> Fields:
    look = report.look
    commands = sum(one.calls for one in look.commands)
    none = (
        *("total_net_input_bytes", "total_net_output_bytes", "instantaneous_input_kbps"),
        *("instantaneous_output_kbps",),
    )
    more = (
        *("sync_full", "sync_partial_ok", "sync_partial_err", "expired_keys", "expired_stale_perc"),
        *("expired_time_cap_reached_count", "evicted_keys", "evicted_clients", "keyspace_hits"),
        *("keyspace_misses",),
    )
    return {
        "total_connections_received": look.counter("connections"),
        "total_commands_processed": commands,
        "instantaneous_ops_per_sec": _pace.at(commands),
        **dict.fromkeys(none, 0),
        "rejected_connections": look.counter("refused") + look.counter("denied"),
        **dict.fromkeys(more, 0),
        "pubsub_channels": len(report.pubsub.channels()),
        "pubsub_patterns": report.pubsub.patterns(),
        "pubsubshard_channels": 0,
        "latest_fork_usec": 0,
        "total_forks": look.counter("spawned"),
        "migrate_cached_sockets": 0,
        "slave_expires_tracked_keys": 0,
        "active_defrag_hits": 0,
        "active_defrag_misses": 0,
        "active_defrag_key_hits": 0,
        "active_defrag_key_misses": 0,
        "tracking_total_keys": 0,
        "tracking_total_items": 0,
        "tracking_total_prefixes": 0,
        "unexpected_error_replies": 0,
        "total_error_replies": look.errors,
        "linepool_worker_deaths": look.counter("crashes") + look.counter("kills"),
        "linepool_timeouts": look.counter("timeouts"),
    }


def _replication(report: _Report) -> Fields:
    return {
        "role": "master",
        "connected_slaves": 0,
        "master_failover_state": "no-failover",
        "master_replid": hashlib.sha1(b"linepool", usedforsecurity=False).hexdigest(),
        "master_replid2": "0" * 40,
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": setting(report.t, "repl-backlog-size"),
        "repl_backlog_first_byte_offset": 0,
        "repl_backlog_histlen": 0,
    }


def _cpu(report: _Report) -> Fields:
    system, user = report.look.processor_seconds()
    return {
        "used_cpu_sys": f"{system:.6f}",
        "used_cpu_user": f"{user:.6f}",
        "used_cpu_sys_children": "0.000000",
        "used_cpu_user_children": "0.000000",
    }


def _command_stats(report: _Report) -> Fields:
    return {
        f"cmdstat_{one.name}": f"calls={one.calls},usec={round(one.seconds * 1e6)},"
        f"usec_per_call={one.seconds * 1e6 / one.calls:.2f},rejected_calls=0,failed_calls={one.errors}"
        for one in report.look.commands
    }


def _error_stats(report: _Report) -> Fields:
    errors = report.look.errors
    return {"errorstat_ERR": f"count={errors}"} if errors else {}


def _latency_stats(report: _Report) -> Fields:
    return {
        f"latency_percentiles_usec_{one.name}": ",".join(
            f"{share}={seconds * 1e6:.3f}" for share, seconds in one.quantiles.items()
        )
        for one in report.look.commands
    }


def _keyspace(report: _Report) -> Fields:
    return {
        f"db{number}": f"keys={keys},expires={expires},avg_ttl=0"
        for number, (keys, expires) in enumerate(report.t.sizes())
        if keys
    }


_SECTIONS: Mapping[str, Callable[[_Report], Fields]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "cpu": _cpu,
    "modules": lambda _report: {},
    "commandstats": _command_stats,
    "errorstats": _error_stats,
    "latencystats": _latency_stats,
    "cluster": lambda _report: {"cluster_enabled": 0},
    "keyspace": _keyspace,
}


def human(size: int) -> str:
    """Return a number of bytes as INFO shows it to people."""
    number, unit = float(size), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.2f}{_UNITS[unit]}" if unit else f"{size}B"


@app.handler("CONFIG|RESETSTAT", flags="admin")
def reset_statistics(db: Db) -> Status:
    """Have the counts of INFO begin at 0 again."""
    with db.write() as t:
        Look.now(t).keep(t)
    return OK
