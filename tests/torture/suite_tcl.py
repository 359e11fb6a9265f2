"""Redis' own tests, in Tcl, on a server that runs already."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.torture.suite_results import Outcome

UNITS = (
    *(f"unit/type/{kind}" for kind in ("string", "incr", "list", "list-2", "list-3", "set")),
    *(f"unit/type/{kind}" for kind in ("zset", "hash", "stream", "stream-cgroups")),
    *("unit/keyspace", "unit/expire", "unit/scan", "unit/sort", "unit/dump", "unit/bitops"),
    *("unit/bitfield", "unit/multi", "unit/pubsub", "unit/protocol", "unit/scripting"),
    *("unit/other", "unit/introspection", "unit/introspection-2", "unit/info", "unit/auth"),
    *("unit/quit", "unit/slowlog", "unit/latency-monitor", "unit/pause", "unit/querybuf"),
    *("unit/hyperloglog", "unit/geo"),  # not functions, tracking and acl: these are not served
)
DENIED = {
    "needs:debug": "DEBUG looks into Redis' own memory",
    "needs:pfdebug": "PFDEBUG looks into Redis' own memory",
    "needs:repl": "replication",
    "needs:save": "Redis' dump file",
    "needs:config-maxmemory": "eviction",
    "cluster": "cluster",
    "repl": "replication",
    "aofrw": "Redis' append-only file",
}
_STALLED_S = 60
_LIMIT_S = 900
_MOST_STALLS = 12
_LINE = re.compile(r"\[(ok|err|ignore|exception|TIMEOUT)\]: (.*)")
_IN_PROGRESS = re.compile(r"\(IN PROGRESS\) (.*)")
_SPOILED = ("'QUEUED'", "blocked clients")
_STATUS = {"ok": "passed", "err": "failed", "ignore": "ignored"}

Start = Callable[[], AbstractContextManager[int]]


def run_unit(source: Path, unit: str, start: Start) -> dict[str, Outcome]:
    """Run one unit, and again without tests that count as failed and spoil others.

    These are one at which the unit stalls, and those that have left a MULTI or waiting clients behind.

    Args:
        source: Redis' sources.
        unit: Such as ``unit/type/list``.
        start: Starts a server and gives its port.
    """
    skipped: dict[str, Outcome] = {}
    stalls = 0
    while True:
        with start() as port:
            said = _run(source, unit, port, list(skipped))
        outcomes, stalled_at = parse(said)
        again: dict[str, Outcome] = {}
        if stalled_at is not None and stalls < _MOST_STALLS:
            again = {stalled_at: Outcome("failed", "it waits without end")}
            stalls += 1
        else:
            again = culprits(outcomes)
        if again.keys() <= skipped.keys():
            return {**outcomes, **skipped}
        skipped.update(again)


def culprits(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Return the failed tests before one that failed because a MULTI was open, or clients were waiting."""
    found: dict[str, Outcome] = {}
    for name, outcome in outcomes.items():
        if outcome.status == "failed":
            if any(sign in outcome.text for sign in _SPOILED):
                return found
            found[name] = outcome
    return {}


def parse(said: str) -> tuple[dict[str, Outcome], str | None]:
    """Return the outcome of each test, and the one at which the unit stalled."""
    outcomes: dict[str, Outcome] = {}
    stalled_at = None
    blocks = re.split(r"^(?=\[)", said, flags=re.M)
    for block in blocks:
        head, _, rest = block.partition("\n")
        if not (found := _LINE.match(head)):
            if progress := _IN_PROGRESS.search(head):
                stalled_at = progress[1].strip()
            continue
        if found[1] == "TIMEOUT" and (progress := _IN_PROGRESS.search(rest)):
            stalled_at = progress[1].strip()
        if found[1] in _STATUS:
            name = re.sub(r" \(\d+ ms\)$| in tests/unit\S*$|: Tag: .*$|: Not supp.*$", "", found[2])
            outcomes[_free(name, outcomes)] = Outcome(_STATUS[found[1]], rest or found[2])
    return outcomes, stalled_at


def _free(name: str, taken: dict[str, Outcome]) -> str:
    """Return the name, with a number if several tests have it."""
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} #{number}", number + 1
    return free


def _run(source: Path, unit: str, port: int, skipped: list[str]) -> str:
    command = ["tclsh", "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--single", unit, "--durable", "--timeout", str(_STALLED_S)]
    command += [
        "--baseport",
        str(random.randrange(20_000, 30_000)),
    ]  # of itself; it finds a free one
    command += os.environ.get("SUITES_OPTIONS", "").split()
    command += ["--tags", " ".join(f"-{tag}" for tag in DENIED)]
    command += [word for name in skipped for word in ("--skiptest", name)]
    environment = {**os.environ, "TERM": "dumb"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=source, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LIMIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its client too
            process.wait()
        said.seek(0)
        return said.read().decode("latin-1")
