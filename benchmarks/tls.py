"""TLS in the workers, beside plain text, proxies in front of plain text, and uvloop: requests/s and CPU.

redis-benchmark sends PING in 32 connections; openssl s_time makes one new connection after the other. All
servers run side by side, linepool's with one worker; in each round each has the load for a moment, in turn.
CPU is that of all processes of a server, its proxy included; a ratio is that to TLS in the worker in the same
round. HAProxy and stunnel are left out if they are not installed.

    python -m benchmarks.tls
    python -m benchmarks.tls --rounds 9
"""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks import harness, meter
from linepool import core

CONNECTIONS = 32
REQUESTS = 20_000  # of one moment
HANDSHAKE_S = 2  # seconds, likewise
TLS = "linepool, TLS"
_RATE = re.compile(r"([0-9.]+) requests per second")
_COUNT = re.compile(r"(\d+) connections in (\d+) real seconds")
_HAPROXY = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen lines
    bind 127.0.0.1:{front} ssl crt {pair}
    server one 127.0.0.1:{back}
"""
_STUNNEL = """\
foreground = yes
pid =
[lines]
accept = 127.0.0.1:{front}
connect = 127.0.0.1:{back}
cert = {pair}
"""


@frozen
class Server:
    """A server.

    Attributes:
        port: Where it listens.
        programs: Its programs, for their processor time.
        has_tls: Whether clients speak TLS.
    """

    port: int
    programs: list[harness.Program]
    has_tls: bool


Load = Callable[[Server, Path], tuple[float, int]]
"""Loads a server; returns how many requests or handshakes a second, and how many in all."""


def certificate(place: Path) -> Path:
    """Return a new certificate for localhost with its key, PEM."""
    key, pair = place / "key.pem", place / "pair.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-out", pair, "-keyout", key),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    pair.write_bytes(pair.read_bytes() + key.read_bytes())
    return pair


def run(place: Path, name: str, *command: object, pure: bool = False) -> harness.Program:
    variables = {core.VARIABLE: "1"} if pure else {}
    return harness.Program([str(word) for word in command], place / f"{name}.log", None, variables)


def linepool(place: Path, name: str, *options: object, pure: bool = False) -> Server:
    """Start linepool with one worker."""
    port = harness.free_port()
    command = [sys.executable, "-m", "linepool", "run", harness.TARGETS / "pong_app.py"]
    command += ["--bind", f"127.0.0.1:{port}", "--control", "off", "--workers", "1", *options]
    program = run(place, name, *command, pure=pure)
    harness.until("linepool is ready", lambda: program.said("ready:"))
    return Server(port, [program], bool(options))


def behind(place: Path, name: str, config: str, *command: object) -> Server:
    """Start a proxy with TLS in front of linepool in plain text."""
    back = linepool(place, f"behind-{name}")
    front = harness.free_port()
    file = place / f"{name}.conf"
    file.write_text(config.format(front=front, back=back.port, pair=place / "pair.pem"))
    program = run(place, name, *command, file)
    harness.until(f"{name} listens", lambda: _answers(front))
    return Server(front, [program, *back.programs], True)


def _answers(port: int) -> bool:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def uvloop(place: Path, pair: Path) -> Server:
    """Start uvloop with TLS."""
    port = harness.free_port()
    program = run(place, "uvloop", sys.executable, harness.TARGETS / "pong.py", port, pair)
    harness.until("uvloop serves", lambda: program.said("ready"))
    return Server(port, [program], True)


def starters(place: Path, pair: Path) -> Iterator[tuple[str, Callable[[], Server]]]:
    """Yield the servers that can be measured here."""
    yield TLS, lambda: linepool(place, "tls", "--tls-cert", pair)
    yield "linepool, plain text", lambda: linepool(place, "plain")
    yield "the same in pure Python", lambda: linepool(place, "pure", pure=True)
    if haproxy := shutil.which("haproxy"):
        yield "plain behind HAProxy", lambda: behind(place, "haproxy", _HAPROXY, haproxy, "-f")
    if stunnel := shutil.which("stunnel"):
        yield "plain behind stunnel", lambda: behind(place, "stunnel", _STUNNEL, stunnel)
    if not harness.module_missing("uvloop"):
        yield "uvloop, TLS", lambda: uvloop(place, pair)


def requests(server: Server, pair: Path) -> tuple[float, int]:
    """Send requests in connections that are kept; return requests/s, and how many these were."""
    command = ["redis-benchmark", "-p", str(server.port), "-t", "ping_mbulk", "-q"]
    command += ["-c", str(CONNECTIONS), "-n", str(REQUESTS)]
    if server.has_tls:
        command += ["--tls", "--cacert", str(pair), "--sni", "localhost"]
    return float(_found(_RATE, command)[-1]), REQUESTS


def handshakes(server: Server, pair: Path) -> tuple[float, int]:
    """Shake hands again and again; return handshakes/s, and how many these were."""
    where = f"127.0.0.1:{server.port}"
    command = ["openssl", "s_time", "-connect", where, "-new", "-time", str(HANDSHAKE_S)]
    count, seconds = _found(_COUNT, [*command, "-CAfile", str(pair)])[-1]
    return int(count) / max(1, int(seconds)), int(count)


def _found(pattern: re.Pattern[str], command: list[str]) -> list[Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = pattern.findall(done.stdout)
    if done.returncode or not found:
        raise harness.BenchmarkError(f"{command[0]} has failed: {done.stdout}{done.stderr}")
    return found


def measure(load: Load, server: Server, pair: Path) -> tuple[float, float]:
    """Return how many a second, and the processor time of the server for each, in microseconds."""
    before = sum(meter.cpu_seconds(program.pid) for program in server.programs)
    rate, count = load(server, pair)
    spent = sum(meter.cpu_seconds(program.pid) for program in server.programs) - before
    return rate, 1e6 * spent / count


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--rounds", type=harness.at_least_one, default=5)
    options = parser.parse_args()
    harness.find("redis-benchmark")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        place = Path(directory)
        pair = certificate(place)
        servers = {}
        for name, start in starters(place, pair):
            servers[name] = server = start()
            for program in server.programs:
                stack.callback(program.stop)
        rows = []
        for load in (requests, handshakes):
            names = [name for name, one in servers.items() if one.has_tls or load is requests]
            figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for number in range(options.rounds):
                for name in names if number % 2 else reversed(names):
                    figures[name].append(measure(load, servers[name], pair))
            rows += [_row(load.__name__, name, figures) for name in names]
            print(f"{load.__name__} are measured", file=sys.stderr)
    print(f"{harness.machine()}; {core.about}")
    print(
        f"{CONNECTIONS} connections of redis-benchmark; medians of {options.rounds} rounds side by side."
    )
    print(harness.table(["load", "server", "per second", "CPU us", "CPU to TLS"], rows))
    return 0


def _row(load: str, name: str, figures: dict[str, list[tuple[float, float]]]) -> list[object]:
    ratios = [ours[1] / base[1] for ours, base in zip(figures[name], figures[TLS], strict=True)]
    rate = statistics.median(one[0] for one in figures[name])
    cost = statistics.median(one[1] for one in figures[name])
    return [load, name, f"{rate:,.0f}", f"{cost:.1f}", f"{statistics.median(ratios):.2f}"]


if __name__ == "__main__":
    harness.main(_run)
