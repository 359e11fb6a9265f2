"""What a well-behaved client notices of hostile ones: how long its requests take, and nothing else.

For each load a server of its own runs for a few seconds. One client sends a small request after the
other, half of them on connections of their own; every reply must be right, no worker may die, and the
table shows how long requests took, how much memory the server used at most and how much it logged.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import Factory, define

from linepool.testing import Peer
from tests.servers import ServerProcess
from tests.torture.hostile_clients import Load, attack
from tests.torture.table import show_table

_APP = str(Path(__file__).with_name("hostile_app.py"))
_SECONDS = 3.0  # of each load
_PAUSE = 0.01  # seconds between two requests of the well-behaved client
_GOAL = 0.5  # seconds; shown beside the 99th percentile
_MOST = 2.0  # seconds; more than a busy machine explains

_PLUS = {
    "line": (b"PLUS 2 3\r\n", "5"),
    "memcache": (b"plus 2 3\r\n", "5"),
    "resp": (b"PLUS 2 3\r\n", ":5"),
    "jsonrpc": (
        b'{"jsonrpc":"2.0","method":"plus","params":[2,3],"id":1}\n',
        '{"jsonrpc":"2.0","result":5,"id":1}',
    ),
    "dialogue": (b"PLUS 2 3\r\n", "250 5"),
}
_PING = b"*1\r\n$4\r\nPING\r\n"
_BIG_WORD = b"*2\r\n$4\r\nECHO\r\n$1000000\r\n"
_BATCH = b"[" + b"0," * 500_000 + b"0]\n"

LOADS = [
    Load(name="none", protocol="line", connections=0),
    Load(name="blank lines", protocol="line", more=b"\r\n" * 32768),
    Load(name="lone CRs", protocol="line", more=b"\r" * 4096 + b"\n"),
    Load(name="unterminated quotes", protocol="line", more=b'"\r\n' * 20000),
    Load(
        name="unknown commands, replies not read",
        protocol="line",
        more=b"X\r\n" * 9999,
        reads=False,
    ),
    Load(name="empty lines", protocol="memcache", more=b"\r\n" * 32768),
    Load(name="empty arrays", protocol="resp", more=b"*0\r\n" * 16384),
    Load(name="empty lines", protocol="jsonrpc", more=b"\n" * 65536),
    Load(name="empty lines", protocol="dialogue", more=b"\r\n" * 32768),
    Load(
        name="8 streams not read", protocol="line", connections=8, head=b"STREAM\r\n", reads=False
    ),
    Load(name="batches of 500,000", protocol="jsonrpc", connections=2, more=_BATCH),
    Load(name="empty batches", protocol="jsonrpc", more=b"[]\n" * 20000),
    Load(
        name="MULTI without EXEC",
        protocol="resp",
        connections=2,
        head=b"*1\r\n$5\r\nMULTI\r\n",
        more=_PING * 300,
        pause=0.002,
    ),
    Load(
        name="100 dripped bodies",
        protocol="line",
        connections=100,
        head=b"PUT 1000000\r\n" + b"x" * 100_000,
        more=b"x",
        pause=0.005,
    ),
    Load(
        name="100 dripped blocks",
        protocol="dialogue",
        connections=100,
        head=b"DATA\r\n" + b"x" * 100_000,
        more=b"x\r\n",
        pause=0.005,
    ),
    Load(
        name="100 dripped words",
        protocol="resp",
        connections=100,
        head=_BIG_WORD + b"x" * 100_000,
        more=b"x",
        pause=0.005,
    ),
    Load(
        name="300 half-sent bodies",
        protocol="line",
        connections=300,
        head=b"PUT 1000000\r\n" + b"x" * 999_999,
    ),
    Load(
        name="4000 connections, 2000 allowed",
        protocol="line",
        connections=4000,
        options=("--max-connections", "2000"),
    ),
    Load(name="failures that are logged", protocol="line", more=b'WORD "a\\nb"\r\n' * 2000),
    Load(name="huge exponents", protocol="line", more=b"FRACTION 1e1000000000\r\n"),
]


@define
class Seen:
    """What the well-behaved client saw: seconds per request, and what was not the right reply."""

    seconds: list[float] = Factory(list)
    wrong: list[str] = Factory(list)

    def percentile(self, percent: float) -> float:
        """Return a percentile, in seconds."""
        return sorted(self.seconds)[
            min(len(self.seconds) - 1, int(len(self.seconds) * percent / 100))
        ]


@pytest.mark.scheme("shared", "dispatch")
def test_hostile_clients_cost_others_time_at_most(tmp_path: Path, scheme):
    rows: list[list[object]] = []
    faults: list[str] = []
    for load in LOADS:
        row, wrong = _try(load, tmp_path, scheme)
        rows.append(row)
        faults += [f"{load.protocol}, {load.name}: {fault}" for fault in wrong]
    print(f"\nScheme {scheme}; times in ms, goal of p99 {_GOAL * 1000:.0f} ms; memory in MiB\n")
    show_table(
        [
            "load",
            "requests",
            "p50",
            "p99",
            "max",
            "parker",
            "worker",
            "log lines",
            "deaths",
            "wrong",
        ],
        rows,
    )
    assert not faults, "\n".join(faults)


def _try(load: Load, directory: Path, scheme: str) -> tuple[list[object], list[str]]:
    """Return the row of the table for a load, and what is wrong."""
    environment = {"PROTOCOL": load.protocol}
    options = ("--workers", "4", "--log-limit", "6", *load.options)
    with ServerProcess(directory, _APP, *options, scheme=scheme, environment=environment) as server:
        with _counted_log(server) as written, attack(load, server.port):
            seen = _ask_for(server, load.protocol, _SECONDS)
        counters = server.status()["counters"]
        peaks = _peaks(server)
    deaths = counters["crashes"] + counters["kills"]
    times = [seen.percentile(percent) for percent in (50, 99, 100)]
    row = [
        f"{load.protocol}: {load.name}",
        len(seen.seconds),
        *(f"{seconds * 1000:.1f}" for seconds in times),
        *peaks,
        written[0],
        deaths,
        len(seen.wrong),
    ]
    faults = seen.wrong[:3]
    if deaths:
        faults.append(f"{deaths} workers died")
    if times[1] > _MOST:
        faults.append(f"p99 {times[1]:.2f} s")
    return row, faults


def _ask_for(server: ServerProcess, protocol: str, seconds: float) -> Seen:
    """Send one request after the other for some seconds, in turn on a kept and on a new connection."""
    seen = Seen()
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as kept:
        peer: Peer | None = None
        while time.monotonic() < end:
            with contextlib.ExitStack() as own:
                began = time.monotonic()
                try:
                    if peer is None:
                        peer = _opened(kept.enter_context(server.connect()), protocol)
                        got = _ask(peer, protocol)
                    elif len(seen.seconds) % 2:
                        own_peer = own.enter_context(server.connect())
                        got = _ask(_opened(own_peer, protocol), protocol)
                    else:
                        got = _ask(peer, protocol)
                except OSError as error:
                    got = type(error).__name__
                seen.seconds.append(time.monotonic() - began)
            if got != _PLUS[protocol][1]:
                seen.wrong.append(f"got {got!r} after {seen.seconds[-1]:.2f} s")
                peer = None
            time.sleep(_PAUSE)
    return seen


def _opened(peer: Peer, protocol: str) -> Peer:
    if protocol == "dialogue":
        peer.line()  # the greeting
    return peer


def _ask(peer: Peer, protocol: str) -> str:
    peer.send(_PLUS[protocol][0])
    return peer.line()


@contextlib.contextmanager
def _counted_log(server: ServerProcess) -> Iterator[list[int]]:
    """Read the log while the block runs; give the number of its lines, which is right at the end."""
    assert server.process.stderr is not None
    descriptor = server.process.stderr.fileno()
    count = [0]
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.01):
            count[0] += _read_away(descriptor)

    os.set_blocking(descriptor, False)
    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()
        count[0] += _read_away(descriptor)


def _read_away(descriptor: int) -> int:
    """Return how many lines a pipe had."""
    lines = 0
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(descriptor, 1 << 20):
            lines += chunk.count(b"\n")
    return lines


def _peaks(server: ServerProcess) -> tuple[int, int]:
    """Return the most memory that the parker and a worker have used, in MiB (proc(5), VmHWM)."""
    state = server.status()
    workers = {worker["pid"] for worker in state["workers"]}
    parkers = {state["processes"]["parker"]} - {None}
    return tuple(  # type: ignore[return-value]
        max((_peak(pid) for pid in pids), default=0) for pids in (parkers, workers)
    )


def _peak(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) // 1024 if found else 0
    return 0
