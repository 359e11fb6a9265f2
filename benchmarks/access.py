"""What rules of access cost: server CPU per connection and per request, and an attack beside a client.

All servers run side by side, with one worker each, and have the load in turn; a ratio is that to the server
without rules in the same round. Then one address wants 5,000 connections and sends 50,000 requests per
second, from a process of its own, beside a client of another address: without an attack, and with and
without limits; the requests cost the server next to nothing, or about 0.1 ms each.

    ./dev bench access
    ./dev bench access --rounds 20
    ./dev bench access --only attack
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from benchmarks import harness, load
from benchmarks.compare import ROOT, cpu_us
from benchmarks.meter import sample
from linepool import core

_NOTHING = "nothing"
_MANY = " ".join(f"10.{number >> 8}.{number & 255}.0/25" for number in range(1000))
_HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 7000\r\n"
_VARIANTS: dict[str, list[str]] = {
    _NOTHING: [],
    "nothing, again": [],
    "allow, 1 network": ["--allow", "127.0.0.0/8"],
    "deny, 1,000 networks": ["--deny", _MANY],
    "PROXY header": ["--proxy-from", "127.0.0.1"],
    "requests per second": ["--max-requests-per-second", "1000000"],
}
_CONNECTIONS = 1000  # in each round
_DEPTH = 16  # requests in a row, where they are pipelined
_ATTACK_SECONDS = 10.0
_BEFORE = 2.0  # seconds that the attack has run before the client is measured
_PAUSE = 0.005  # seconds between two requests of the client
_WAIT = 10.0  # seconds after which a request of the client has failed
_LIMITS = ["--max-requests-per-second", "1000", "--max-connections-per-address", "100"]


def _start(
    options: list[str], directory: Path, app: Path = harness.EXAMPLES / "sums.py"
) -> harness.Program:
    directory.mkdir()
    command = [sys.executable, "-m", "linepool", "run", str(app)]
    command += ["--bind", "127.0.0.1:0", "--control", "off", "--workers", "1", *options]
    program = harness.Program(command, directory / "log", ROOT)
    harness.until("linepool is ready", lambda: program.said("ready:"))
    return program


def _port(program: harness.Program) -> int:
    return int(program.said("listening on ").rpartition(":")[2])


def _connection_us(program: harness.Program, header: bytes) -> float:
    """Return the server CPU of a connection with one request, in us."""
    address = ("127.0.0.1", _port(program))
    began = sample(program.pid)
    for _ in range(_CONNECTIONS):
        with socket.create_connection(address) as sock:
            sock.sendall(header + b"ADD 1 2\n")
            sock.recv(100)
    return (sample(program.pid).server - began.server) / _CONNECTIONS * 1e6


def _row(kind: str, name: str, figures: dict[str, list[float]]) -> list[object]:
    ratios = [new / old for old, new in zip(figures[_NOTHING], figures[name], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    middle = statistics.median(figures[name])
    return [
        kind,
        name,
        f"{middle:.2f}",
        f"{statistics.median(ratios):.2f}",
        f"{low:.2f} to {high:.2f}",
    ]


def _beside_an_attack(options: list[str], directory: Path, request: str) -> list[object]:
    """Return what a client, and an attacker if it has a request, notice of each other."""
    app = harness.TARGETS / "costly_app.py"
    program = _start(["--workers", "2", *options], directory, app)
    port, got = _port(program), dict[str, int]()
    command = [sys.executable, "-m", "benchmarks.attacker", str(port), "--address", "127.0.0.2"]
    command += ["--seconds", str(_BEFORE + _ATTACK_SECONDS), "--request", request]
    try:
        with contextlib.ExitStack() as stack:
            attacker = None
            if request:
                attacker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
                stack.callback(attacker.wait)
                time.sleep(_BEFORE)
            used = sample(program.pid)
            asked, connected, failures = _client(port)
            cores = (sample(program.pid).server - used.server) / _ATTACK_SECONDS
            if attacker is not None:
                got = json.loads(attacker.communicate()[0])
    finally:
        program.stop()
    total = len(asked) + len(connected)
    return [
        f"{100 * (1 - failures / total):.2f} % of {total}",
        _quantiles(asked),
        _quantiles(connected),
        f"{cores:.2f}",
        *(f"{got[name]:,}" if got else "" for name in ("most_held", "sent", "served", "refused")),
        f"{got['refused_connections']:,}" if got else "",
    ]


def _client(port: int) -> tuple[list[float], list[float], int]:
    """Return the seconds of requests on an open connection and on new ones, and how many have failed."""
    asked, connected, failures = list[float](), list[float](), 0
    give_up_at = time.monotonic() + _ATTACK_SECONDS
    with socket.create_connection(("127.0.0.1", port), _WAIT) as kept:
        while (began := time.monotonic()) < give_up_at:
            try:
                kept.sendall(b"ADD 1 2\n")
                failures += kept.recv(100) != b"3\n"
            except OSError:
                failures += 1
            asked.append(time.monotonic() - began)
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", port), _WAIT) as sock:
                    sock.sendall(b"ADD 1 2\n")
                    failures += sock.recv(100) != b"3\n"
            except OSError:
                failures += 1
            connected.append(time.monotonic() - began)
            time.sleep(_PAUSE)
    return asked, connected, failures


def _quantiles(seconds: Sequence[float]) -> str:
    times = sorted(seconds)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return f"{p50 * 1e3:.1f} / {p99 * 1e3:.1f}"


def _costs(rounds: int, seconds: float, place: Path) -> str:
    """Return the table of what rules cost."""
    names, rows = list(_VARIANTS), []
    kinds = {
        "request": load.Load(connections=2, seconds=seconds),
        f"request, {_DEPTH} in a row": load.Load(connections=2, seconds=seconds, depth=_DEPTH),
    }
    figures: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in names} for kind in ("connection", *kinds)
    }
    with contextlib.ExitStack() as stack:
        programs = {}
        for number, name in enumerate(names):
            programs[name] = _start(_VARIANTS[name], place / str(number))
            stack.callback(programs[name].stop)
        for number in range(rounds):
            for name in names if number % 2 else reversed(names):
                header = _HEADER if name == "PROXY header" else b""
                figures["connection"][name].append(_connection_us(programs[name], header))
                for kind, job in kinds.items():
                    if not header:
                        figures[kind][name].append(cpu_us(programs[name], evolve(job)))
    for kind, found in figures.items():
        rows += [_row(kind, name, found) for name in names if found[name]]
    return harness.table(["per", "rules", "us", "ratio", "its quartiles"], rows)


def _attacks(place: Path) -> str:
    """Return the table of what an attack does."""
    cases: dict[str, tuple[list[str], str]] = {
        "none": ([], ""),
        "quick requests": ([], "ADD 1 2"),
        "quick requests, limits": (_LIMITS, "ADD 1 2"),
        "costly requests": ([], "COSTLY"),
        "costly requests, limits": (_LIMITS, "COSTLY"),
    }
    rows = [
        [name, *_beside_an_attack(options, place / name, request)]
        for name, (options, request) in cases.items()
    ]
    heads = ["attack", "client: served", "ms open p50/p99", "ms new p50/p99", "cores"]
    heads += ["attacker: held", "sent", "served", "refused", "connections refused"]
    return harness.table(heads, rows)


def _run() -> int:
    parser = harness.parser(__doc__)
    harness.add_round_options(parser, 8, 1.0)
    parser.add_argument("--only", choices=("costs", "attack"), help="one of the two tables")
    options = parser.parse_args()
    print(f"{harness.machine()}; {core.about}")
    with tempfile.TemporaryDirectory() as place:
        if options.only != "attack":
            print(f"Server CPU in us, medians of {options.rounds} rounds side by side.")
            print(_costs(options.rounds, options.seconds, Path(place)))
        if options.only != "costs":
            print(
                f"5,000 connections and 50,000 requests/s from 127.0.0.2; limits: {' '.join(_LIMITS)}"
            )
            print(_attacks(Path(place)))
    return 0


if __name__ == "__main__":
    harness.main(_run)
