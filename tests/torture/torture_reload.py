"""Reload the code, and upgrade linepool itself, under load: no request and no connection may be lost.

Busy clients send some 2,000 requests/s, 200 connections are idle, 20 count in their sessions. Two of the
reloads are of code that does not load, one of the upgrades is to a program that does not start.
``--reloads`` says how many reloads there are; a quarter as many upgrades.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import Factory, define

import linepool
from linepool.kernel.process_memory import memory_of
from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import ENVIRONMENT, ServerProcess, has_ended
from tests.torture.account import Row, broken, quiet_account
from tests.torture.clients import busy_clients, open_idle, query_idle
from tests.torture.table import show_table

_HERE = Path(__file__).parent
_BUSY = 150  # clients, each of which pauses for 75 ms on average
_IDLE = 200  # connections
_SESSIONS = 20  # connections
_WORKERS = 8
_BETWEEN = 0.5  # seconds between two reloads
_SESSION_PAUSE = 0.005  # seconds between two requests with a session
_LIMIT = 60.0  # seconds for one reload, its old workers gone
_GROWTH = 1.05  # of an idle worker's memory from the first to the tenth reload, at most
_BROKEN = {
    "syntax error": "NUMBER = (\n",
    "exception at import": 'raise LookupError("no database")\n',
}
_OPTIONS = ("--workers", str(_WORKERS), "--reload-batch", "0.25")


class Deployment:
    """The app in a directory, and the package linepool in another; both can be replaced.

    Attributes:
        number: The version of the app that was released last and that can be loaded.
    """

    def __init__(self, directory: Path) -> None:
        self.app = directory / "app"
        self.app.mkdir()
        for name in ("reload_app.py", "journal_app.py"):
            shutil.copy(_HERE / name, self.app)
        self._packages = directory / "packages"
        self._packages.mkdir()
        self.number = 0
        self._write_number()

    def write(self, text: str) -> None:
        """Replace the module that has the version."""
        new = self.app / "version.new"
        new.write_text(text)
        new.replace(self.app / "version.py")

    def release(self) -> None:
        """Replace the app by its next version."""
        self.number += 1
        self._write_number()

    def _write_number(self) -> None:
        # Python does not see a change within a second to a text of the same length.
        self.write(f"NUMBER = {self.number}  {'#' * (self.number + 1)}\n")

    @property
    def package_path(self) -> Path:
        """The directory that is to be in PYTHONPATH."""
        return self._packages / "current"

    def install(self, version: str, *, broken: bool = False) -> None:
        """Replace linepool by a copy with another version number, or by one that does not start."""
        place = self._packages / version
        package = place / "linepool"
        shutil.copytree(
            Path(linepool.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
        )
        (package / "version.py").write_text(f'"""The version."""\n\n__version__ = "{version}"\n')
        if broken:
            (package / "__init__.py").write_text('raise ImportError("half of it is missing")\n')
        link = self._packages / "next"
        link.symlink_to(place)
        link.replace(self.package_path)


@define
class Sessions:
    """Connections that count in their sessions, in a thread of their own.

    Attributes:
        wrong: Replies that were not the next number.
        dropped: Connections that ended, or on which no reply came.
        newest: The version of the code that each connection saw last.
    """

    port: int
    answered: int = 0
    wrong: list[str] = Factory(list)
    dropped: list[str] = Factory(list)
    newest: dict[int, int] = Factory(dict)
    _over: threading.Event = Factory(threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[Sessions]:
        """Send requests until the block ends."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        peers = {i: Peer(f"127.0.0.1:{self.port}") for i in range(_SESSIONS)}
        counts = dict.fromkeys(peers, 0)
        while not self._over.is_set() or len(set(counts.values())) > 1:
            for i, peer in list(peers.items()):
                try:
                    reply = peer.ask("NEXT")
                except OSError as error:
                    reply = repr(error)
                count, _, version = reply.partition(" ")
                if not count.isdecimal():
                    self.dropped.append(f"connection {i} after {counts[i]}: {reply or 'closed'}")
                    del peers[i], counts[i]
                    continue
                counts[i] += 1
                if int(count) != counts[i]:
                    self.wrong.append(f"connection {i}: {reply} instead of {counts[i]}")
                self.answered += 1
                self.newest[i] = int(version)
                time.sleep(_SESSION_PAUSE)
        for peer in peers.values():
            peer.close()


@define
class Probes:
    """Health checks, in a thread of their own.

    Attributes:
        failed: What the failed ones said.
    """

    control: str
    count: int = 0
    failed: list[str] = Factory(list)
    _over: threading.Event = Factory(threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[Probes]:
        """Check the server until the block ends."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(_BETWEEN):
            done = _command(self.control, "health", "--timeout", "8")
            self.count += 1
            if done.returncode:
                self.failed.append(f"health: {done.stderr or done.stdout}")


@define
class Changes:
    """What reloads or upgrades did.

    Attributes:
        gone: Seconds from the order until the last old worker had gone, of each.
        refused: How many were refused with a reason that names the fault.
        faults: What was not as it should have been.
    """

    gone: list[float] = Factory(list)
    refused: int = 0
    faults: list[str] = Factory(list)


def _command(control: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of linepool; a reload or an upgrade has ended when it returns."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "linepool", *words, "--control", control],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=_LIMIT,
        check=False,
    )


def _change(server: ServerProcess, name: str, number: signal.Signals | None) -> float:
    """Reload or upgrade; return after how many seconds the last old worker had gone.

    Args:
        server: The server.
        name: The command.
        number: The signal to send; None: run the command.
    """
    pidfds = [os.pidfd_open(pid) for pid in server.pids()]
    began = time.monotonic()
    try:
        if number is None:
            done = _command(server.control, name)
            assert done.returncode == 0, done.stderr
        else:
            server.send(number)
        for pidfd in pidfds:
            assert has_ended(pidfd, began + _LIMIT - time.monotonic()), "an old worker stays"
        return time.monotonic() - began
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _refused(server: ServerProcess, name: str, reason: str, changes: Changes) -> None:
    """Reload or upgrade to what does not start: it must fail with a reason, and change nothing."""
    before = server.status()
    done = _command(server.control, name)
    after = server.status()
    changes.refused += done.returncode == 1 and reason in done.stderr
    if done.returncode != 1 or reason not in done.stderr:
        changes.faults.append(f"{name} exited with {done.returncode}: {done.stderr or done.stdout}")
    if (before["generation"], before["version"]) != (after["generation"], after["version"]):
        changes.faults.append(f"{name} changed the server although it failed")


def _torture(
    server: ServerProcess, journals: Path, order: Callable[[Changes], None]
) -> tuple[list[Row], list[str]]:
    """Change a server under load; return the table, and details of what went wrong."""
    changes = Changes()
    idle = open_idle(server.port, _IDLE)
    began = time.monotonic()
    with (
        busy_clients(server.port, _BUSY, eager=0) as clients,
        Sessions(server.port).running() as sessions,
        Probes(server.control).running() as probes,
    ):
        order(changes)
        busy = clients.finish()
    seconds = time.monotonic() - began
    account = quiet_account(journals, busy, query_idle(idle))
    state = server.until(lambda state: state["connections"] == {"hot": 0, "parked": 0})
    counters = state["counters"]
    generations = {worker["generation"] for worker in state["workers"]}
    rows: list[Row] = [
        ("seconds", round(seconds), ""),
        ("requests per second", round(len(busy.answered) / seconds), ""),
        ("changed, until the last old worker had gone", len(changes.gone), ""),
        ("... median ms", round(1000 * statistics.median(changes.gone)), ""),
        ("... shortest ms", round(1000 * min(changes.gone)), ""),
        ("... longest ms", round(1000 * max(changes.gone)), ""),
        ("refused", changes.refused, ""),
        ("other than it should have been", len(changes.faults), "0"),
        ("generations with workers", len(generations), "1"),
        *(
            (what, count, must)
            for what, count, must in account.rows()
            if must or what in ("requests", "correct replies", "idle connections")
        ),
        ("requests lost", len(account.busy.lost) + len(account.idle.lost), "0"),
        ("requests with sessions", sessions.answered, ""),
        ("... wrong", len(sessions.wrong), "0"),
        ("... connections dropped", len(sessions.dropped), "0"),
        ("health checks", probes.count, ""),
        ("... failed", len(probes.failed), "0"),
        ("workers killed or crashed", counters["kills"] + counters["crashes"], "0"),
        ("connections dropped by the server", counters["dropped"], "0"),
        ("connections refused by the server", counters["refused"], "0"),
    ]
    return rows, [
        *changes.faults,
        *sessions.wrong,
        *sessions.dropped,
        *probes.failed,
        *account.details(),
    ]


def _show(title: str, rows: list[Row], details: list[str]) -> None:
    print(f"\n{title}: {_BUSY} busy and {_IDLE} idle connections, {_SESSIONS} with sessions\n")
    show_table(["", "count", "must be"], rows)
    assert not broken(rows), "\n".join([*broken(rows), *details])


@pytest.mark.scheme("shared", "dispatch")
def test_reloads_lose_no_request_and_no_connection(
    launch: Launch, tmp_path: Path, reloads: int, scheme
):
    deployment, journals, environment = _prepare(tmp_path)
    server = launch(deployment.app / "reload_app.py", *_OPTIONS, environment=environment)
    faults = dict(zip((reloads // 3, 2 * reloads // 3), _BROKEN.items(), strict=True))

    def order(changes: Changes) -> None:
        for i in range(reloads):
            time.sleep(_BETWEEN)
            if i in faults:
                reason, code = faults[i]
                deployment.write(code)
                _refused(server, "reload", _names(reason), changes)
                continue
            deployment.release()
            number = signal.SIGHUP if i % 2 else None
            changes.gone.append(_change(server, "reload", number))
            _expect(changes, "version served", server.ask("VERSION"), str(deployment.number))

    rows, details = _torture(server, journals, order)
    rows.append(("generation", server.status()["generation"], str(1 + deployment.number)))
    _show(f"{reloads} reloads, scheme {scheme}", rows, details)


@pytest.mark.scheme("shared")
def test_upgrades_lose_no_request_and_no_connection(
    launch: Launch, tmp_path: Path, reloads: int, scheme
):
    deployment, journals, environment = _prepare(tmp_path)
    deployment.install("1.0")
    environment["PYTHONPATH"] = str(deployment.package_path)
    server = launch(deployment.app / "reload_app.py", *_OPTIONS, environment=environment)
    assert server.status()["version"] == "1.0"
    upgrades = max(2, reloads // 4)

    def order(changes: Changes) -> None:
        for i in range(upgrades):
            time.sleep(_BETWEEN)
            if i == upgrades // 2:
                deployment.install(f"1.{i + 1}", broken=True)
                _refused(server, "upgrade", "half of it is missing", changes)
                continue
            deployment.install(f"1.{i + 1}")
            deployment.release()
            number = signal.SIGUSR2 if i % 2 else None
            changes.gone.append(_change(server, "upgrade", number))
            state = server.status()
            _expect(changes, "version of linepool", state["version"], f"1.{i + 1}")
            _expect(changes, "pid", state["pid"], server.process.pid)
            _expect(changes, "version served", server.ask("VERSION"), str(deployment.number))

    rows, details = _torture(server, journals, order)
    _show(f"{upgrades} upgrades", rows, details)


def test_memory_of_an_idle_worker_does_not_grow_with_reloads(launch: Launch, tmp_path: Path):
    deployment, _, environment = _prepare(tmp_path)
    server = launch(deployment.app / "reload_app.py", *_OPTIONS, environment=environment)
    rows = [("0", *_memory(server))]
    for number in range(1, 11):
        deployment.release()
        _change(server, "reload", None)
        # The old loader stays for a while, so that its generation could come back.
        server.wait_for(f"generation has ended number={number}")
        rows.append((str(number), *_memory(server)))
    print("\nMemory in KiB, after this many reloads\n")
    show_table(["reloads", "PSS of an idle worker", "... its own", "RSS of the master"], rows)

    assert rows[10][1] <= _GROWTH * rows[1][1], rows
    assert rows[10][3] <= _GROWTH * rows[1][3], rows


def _prepare(directory: Path) -> tuple[Deployment, Path, dict[str, str]]:
    journals = directory / "journals"
    journals.mkdir()
    return Deployment(directory), journals, {"JOURNALS": str(journals)}


def _names(fault: str) -> str:
    """Return what the reason names if the code has a fault."""
    return "version.py" if fault == "syntax error" else "no database"


def _expect(changes: Changes, what: str, found: object, expected: object) -> None:
    if found != expected:
        changes.faults.append(f"{what}: {found} instead of {expected}")


def _memory(server: ServerProcess) -> tuple[int, int, int]:
    """Return the mean PSS of the workers, their own memory, and the RSS of the master, in KiB."""
    state = server.until(
        lambda state: state["tally"]["idle"] == state["tally"]["total"] == _WORKERS
    )
    pids = [worker["pid"] for worker in state["workers"]]
    own = [memory.own for pid in pids if (memory := memory_of(pid))]
    master = memory_of(server.process.pid)
    assert master
    pss = statistics.mean(map(_pss, pids))
    return (
        round(pss / 1024),
        round(statistics.mean(own) / 1024),
        (master.own + master.shared) // 1024,
    )


def _pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes: a page that n processes share counts 1/n."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError
