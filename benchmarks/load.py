"""Compile generator/lineload.c if needed, run it, and return what it measured.

As a script, it takes the options of lineload: ``python -m benchmarks.load -c 64 127.0.0.1 7000``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import fields, frozen

from benchmarks import harness

SOURCE = harness.HERE / "generator" / "lineload.c"
_BINARY = SOURCE.parent / "build" / "lineload"
_LIMIT = 90.0  # seconds for a run, besides warm-up, settling and measuring


@frozen
class Latency:
    """Latency of the replies, in microseconds."""

    count: int
    min: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    mean: float


@frozen(kw_only=True)
class Figures:
    """What one run measured; the comment at the top of lineload.c defines the figures.

    Attributes:
        latency: Of the quick requests.
        slow: Of the slow requests, if any were sent.
        late: How late requests were sent, in the open loop.
    """

    requests: int
    answered: int
    wrong: int
    errors: int
    dropped_idle: int
    seconds: float
    rps: float
    cpu_s: float
    latency: Latency
    slow: Latency | None = None
    late: Latency | None = None


@frozen(kw_only=True)
class Load:
    """The load to generate: the options of lineload by name.

    Attributes:
        mode: closed, connect or open.
        idle: Additional connections that send nothing.
        reset: Close with RST, in connect mode.
        request: With lineload's escapes; empty: ``ADD a b``, whose reply is the sum.
        slow: Each request is the slow one with probability 1/slow; 0: never.
    """

    connections: int = 1
    seconds: float = 2.0
    warm_up: float = 0.3
    depth: int = 1
    mode: str = "closed"
    rate: float = 0.0
    reset: bool = False
    idle: int = 0
    settle: float = 0.0
    request: str = ""
    reply: str = ""
    reply_bytes: int = 0
    reply_prefix: str = ""
    slow: int = 0
    slow_request: str = ""
    slow_reply: str = ""

    def arguments(self) -> list[str]:
        """Return lineload's options."""
        values = [
            ("-c", self.connections),
            ("-t", self.seconds),
            ("-w", self.warm_up),
            ("-P", self.depth),
            ("-m", self.mode),
            ("-r", self.rate or None),
            ("-i", self.idle),
            ("--settle", self.settle),
            ("--request", self.request or None),
            ("--reply", self.reply or None),
            ("--reply-bytes", self.reply_bytes or None),
            ("--reply-prefix", self.reply_prefix or None),
            ("--slow", self.slow or None),
            ("--slow-request", self.slow_request or None),
            ("--slow-reply", self.slow_reply or None),
        ]
        given = [str(part) for name, value in values if value is not None for part in (name, value)]
        return [*given, *(["-R"] if self.reset else [])]


def build() -> Path:
    """Return lineload, compiled if its source is newer.

    Raises:
        BenchmarkError: It does not compile.
    """
    if _BINARY.exists() and _BINARY.stat().st_mtime >= SOURCE.stat().st_mtime:
        return _BINARY
    compiler = shutil.which("cc")
    if not compiler:
        raise harness.BenchmarkError("cc is not installed (Debian: gcc)")
    _BINARY.parent.mkdir(exist_ok=True)
    (_BINARY.parent / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=_BINARY.parent) as name:
        made = Path(name) / "lineload"
        command = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-o", str(made), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise harness.BenchmarkError(f"lineload.c does not compile:\n{done.stderr}")
        made.replace(_BINARY)  # another benchmark may be running the old one
    return _BINARY


def run(port: int, load: Load, on_phase: Callable[[str], None] | None = None) -> Figures:
    """Load a server on 127.0.0.1.

    Args:
        port: The port of the server.
        load: The load to generate.
        on_phase: Called at the start of each phase: settle (the idle connections are open), load,
            measure, and end (of the measured time).

    Raises:
        BenchmarkError: The load could not be generated, a reply was wrong, or there was none.
    """
    command = [str(build()), "--phases", *load.arguments(), "127.0.0.1", str(port)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    watchdog = threading.Timer(load.settle + load.warm_up + load.seconds + _LIMIT, process.kill)
    watchdog.start()
    said = []
    try:
        for line in process.stderr:  # until it exits; its output fits into the other pipe
            if line.startswith("phase "):
                if on_phase:
                    on_phase(line.split()[1])
            else:
                said.append(line.removeprefix("lineload: "))
        output = process.stdout.read()
        status = process.wait()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    if status:
        message = "".join(said) or output or f"exit status {status}"
        raise harness.BenchmarkError(f"lineload {' '.join(command[2:])}\n  {message.strip()}")
    return _figures(json.loads(output))


def _figures(found: dict[str, Any]) -> Figures:
    latencies = {"latency", "slow", "late"}
    values = {one.name: found[one.name] for one in fields(Figures) if one.name not in latencies}
    for name in latencies:
        values[name] = Latency(**found[f"{name}_us"]) if f"{name}_us" in found else None
    return Figures(**values)


def _run() -> int:
    binary = build()
    os.execv(binary, [str(binary), *sys.argv[1:]])


if __name__ == "__main__":
    harness.main(_run)
