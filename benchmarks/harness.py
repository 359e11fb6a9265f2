"""Helpers of all benchmarks: start a server, list its processes, print a table.

All servers listen on 127.0.0.1. Only processes that were started here are ended.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
TARGETS = HERE / "targets"
EXAMPLES = HERE.parent / "examples"

_START_LIMIT = 20.0  # seconds
_STOP_LIMIT = 10.0  # seconds
_PAUSE = 0.005  # seconds between two polls of a condition


class BenchmarkError(Exception):
    """The measurement failed; the text says why."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a command line parser whose help shows the docstring of a script."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def main(run: Callable[[], int]) -> NoReturn:
    """Run a script and exit; a signal still ends the servers that it has started."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        status = run()
    except BenchmarkError as failure:
        print(f"error: {failure}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def until(what: str, done: Callable[[], Any], limit: float = _START_LIMIT) -> Any:
    """Return the first true value of ``done()``.

    Raises:
        BenchmarkError: It was false for ``limit`` seconds.
    """
    give_up_at = time.monotonic() + limit
    while not (value := done()):
        if time.monotonic() > give_up_at:
            raise BenchmarkError(f"timed out after {limit:g} s, waiting until {what}")
        time.sleep(_PAUSE)
    return value


def module_missing(name: str) -> bool:
    """Whether a module cannot be imported."""
    return importlib.util.find_spec(name) is None


def find(name: str) -> str:
    """Return the path of a program; "" if it is not installed."""
    where = [sysconfig.get_path("scripts"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    return shutil.which(name, path=os.pathsep.join(where)) or ""


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now, for servers that cannot pick one themselves."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Program:
    """A running program; its output goes to a log file.

    Args:
        arguments: The program and its arguments.
        log: The file.
        cwd: The working directory, if not this one.
        environment: Additional environment variables.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=cwd,
                env=os.environ | (environment or {}),
                start_new_session=True,  # so that a ^C reaches this script only, which then stops it
            )
        self.pid = self._process.pid

    def said(self, text: str) -> str:
        """Return the first line of the log that contains a text; "" if there is none.

        Raises:
            BenchmarkError: The program has ended.
        """
        lines = self.log.read_text(errors="replace").splitlines()
        found = next((line for line in lines if text in line), "")
        if not found and self._process.poll() is not None:
            raise BenchmarkError(
                "it exited early; the end of its log:\n  " + "\n  ".join(lines[-10:])
            )
        return found

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the program, kill what is left of it and its children, and return its exit status."""
        if self._process.returncode is None:
            left = _descriptors(children(self.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.send_signal(number)
                self._process.wait(_STOP_LIMIT)
            left += _descriptors(children(self.pid))
            self._process.kill()
            for pidfd in left:  # children that outlive their master hang in a request
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        return self._process.wait()


def _descriptors(pids: Sequence[int]) -> list[int]:
    pidfds = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
    return pidfds


class Server:
    """A linepool server that is ready."""

    def __init__(self, program: Program, control: Path) -> None:
        self.program = program
        self.control = control
        self.pid = program.pid
        self.port = int(program.said("listening on ").rpartition(":")[2])

    def connect(self, limit: float = 30.0) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), limit)

    def workers(self) -> list[int]:
        """Return the pids of the workers; the master has the parker as another child."""
        return linepool_workers(self.control)


def linepool_workers(control: Path) -> list[int]:
    """Return the pids of the workers of a linepool server, from its control socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_START_LIMIT)
        sock.connect(str(control))
        sock.sendall(b"STATUS json\n")
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            return [worker["pid"] for worker in json.loads(file.readline())["workers"]]


@contextlib.contextmanager
def serving(
    target: Path,
    *options: str,
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Serve a target with linepool on a free port while the block runs."""
    control = directory / "control"
    arguments = [sys.executable, "-m", "linepool", "run", str(target)]
    arguments += ["--bind", "127.0.0.1:0", "--control", str(control), *options]
    program = Program(arguments, directory / "linepool.log", environment=environment)
    try:
        until("linepool is ready", lambda: program.said("ready:"))
        yield Server(program, control)
    finally:
        program.stop()


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies included (proc(5))."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headings), *cells]) for i in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(headings), rule, *(line(row) for row in cells)])


def machine() -> str:
    """Return one line that describes the machine."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    release = os.uname().release.partition("-")[0]
    return f"Python {version}, Linux {release}, {os.cpu_count()} CPUs"


def at_least_one(text: str) -> int:
    """Parse a positive whole number from the command line.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number >= 1, not {text!r}")


def seconds(text: str) -> float:
    """Parse a duration in seconds from the command line.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, not {text!r}")


def add_round_options(parser: argparse.ArgumentParser, rounds: int, seconds_each: float) -> None:
    """Add the options --rounds and --seconds, with these defaults."""
    text = "default: %(default)s"
    parser.add_argument("--rounds", type=at_least_one, default=rounds, help=text)
    parser.add_argument("--seconds", type=seconds, default=seconds_each, help=f"per run; {text}")
