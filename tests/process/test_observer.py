"""The hooks of the server as a whole, which run in the observer."""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import linepool
from linepool.app_hooks import AppHooks
from linepool.errors import SetupError
from tests.servers import TIMEOUT, ServerProcess, children_of


class Journal:
    """What the hooks of a server record."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "journal"
        os.mkfifo(self.path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""

    def next(self, event: str) -> tuple[int, Any]:
        """Return pid and facts of the next line, which must be of this event."""
        got, pid, facts = self.line()
        assert got == event, facts
        return pid, facts

    def line(self) -> tuple[str, int, Any]:
        """Return event, pid and facts of the next line."""
        while b"\n" not in self._unread:
            assert select.select([self._descriptor], [], [], TIMEOUT)[0], self._unread
            self._unread += os.read(self._descriptor, 65536)
        line, _, self._unread = self._unread.partition(b"\n")
        event, pid, facts = json.loads(line)
        return event, pid, facts

    def close(self) -> None:
        os.close(self._descriptor)


def launch(undo: ExitStack, directory: Path, *options: str) -> tuple[ServerProcess, Journal]:
    journal = Journal(directory)
    undo.callback(journal.close)
    environment = {"JOURNAL": str(journal.path)}
    server = ServerProcess(directory, "observed.py", *options, environment=environment)
    return undo.enter_context(server), journal


def provoke(server: ServerProcess, request: str) -> None:
    """Send a request that ends its worker."""
    with server.connect() as peer:
        peer.send(request.encode() + b"\n")
        peer.rest()


def test_hooks_learn_what_happens_to_the_server(tmp_path):
    options = ("--workers", "2", "--kill-grace", "0.05", "--max-requests", "3")
    with ExitStack() as undo:
        server, journal = launch(undo, tmp_path, *options, "--max-requests-jitter", "0")
        observer, facts = journal.next("ready")
        assert facts == {"generation": 1, "workers": 2, "addresses": server.addresses}
        assert (
            server.until(lambda s: s["processes"]["observer"])["processes"]["observer"] == observer
        )
        assert observer in children_of(server.process.pid)
        title = Path(f"/proc/{observer}/comm").read_text()
        assert title.strip() == "linepool observer"[:15]

        provoke(server, "crash")
        _, end = journal.next("end")
        assert (end["how"], end["why"], end["command"]) == ("died", "signal SIGSEGV", "CRASH")
        provoke(server, "leave")
        _, end = journal.next("end")
        assert (end["how"], end["why"], end["command"]) == ("died", "exit status 3", "LEAVE")
        provoke(server, "hang")
        _, end = journal.next("end")
        assert (end["how"], end["why"]) == ("killed", "took longer than 0.05 s")
        server.until(lambda s: s["tally"]["idle"] == 2)
        with server.connect() as peer:
            worker = [peer.ask("pid") for _ in range(3)][-1]
        _, end = journal.next("end")
        assert (end["how"], end["why"], end["pid"]) == ("recycled", "max_requests", int(worker))
        assert (end["command"], end["requests"], end["generation"]) == ("", 3, 1)
        server.until(lambda s: s["tally"]["idle"] == 2)
        server.order("SCALE 1")
        assert journal.next("end")[1]["how"] == "retired"

        (tmp_path / "broken").touch()
        server.send(signal.SIGHUP)
        pid, facts = journal.next("reload")
        assert pid == observer
        assert "RuntimeError: broken" in facts["failure"]
        assert (facts["generation"], facts["workers"]) == (1, 1)
        (tmp_path / "broken").unlink()
        server.send(signal.SIGHUP)
        lines = sorted(journal.line() for _ in range(2))
        assert [event for event, _, _ in lines] == ["end", "reload"]
        assert lines[0][2]["how"] == "replaced"
        assert (lines[1][2]["generation"], lines[1][2]["failure"]) == (2, "")
        assert lines[1][1] != observer
        server.until(lambda s: s["processes"]["observer"] == lines[1][1])
        assert observer not in children_of(server.process.pid)

        server.order("UPGRADE")  # which reloads
        lines = sorted(journal.line() for _ in range(2))
        assert [event for event, _, _ in lines] == ["end", "reload"]
        assert (lines[1][2]["generation"], lines[1][2]["failure"]) == (3, "")

        assert server.stop() == 0
        assert journal.next("end")[1]["how"] == "stopped"
        journal.next("stop")


def test_a_hook_that_misbehaves_costs_only_itself(tmp_path):
    with ExitStack() as undo:
        server, journal = launch(undo, tmp_path, "--workers", "1", "--observer-timeout", "2")
        first, _ = journal.next("ready")
        for how in ("fail", "fork"):
            (tmp_path / "misbehave").write_text(how)
            provoke(server, "leave")
            assert journal.next("end")[0] == first
        assert "function='misbehave at" in server.wait_for("hook failed hook=on_worker_end")

        (tmp_path / "misbehave").write_text("hang")
        provoke(server, "leave")
        assert journal.next("hangs")[0] == first
        second, _ = journal.next("end")
        assert second != first
        server.wait_for(f"observer killed pid={first} hook=on_worker_end function='misbehave at")
        assert "observed.py" in server.wait_for("File ")

        (tmp_path / "misbehave").write_text("die")
        provoke(server, "leave")
        assert journal.next("end")[0] not in (first, second)
        server.wait_for("observer died signal=SIGSEGV hook=on_worker_end function='misbehave at")

        (tmp_path / "misbehave").write_text("hang")
        server.send(signal.SIGQUIT)
        journal.next("hangs")
        assert server.ended() == 0
        assert "observer killed" in server.text


def test_functions_of_the_hooks_are_checked_when_they_are_registered():
    hooks = AppHooks()
    with pytest.raises(SetupError, match=r"on_worker_end f at .* must take \(end\)"):

        @hooks.on_worker_end
        def f(end: object, more: object) -> None: ...

    with pytest.raises(SetupError, match=r"on_stop g at .* must not be a generator"):

        @hooks.on_stop
        def g():
            yield

    calls = []
    hooks.when_ready(lambda: calls.append("nothing"))
    hooks.when_ready(calls.append)
    hooks.call_observing("when_ready", 0, "event")
    hooks.call_observing("when_ready", 1, "event")
    assert calls == ["nothing", "event"]


def test_app_ask_calls_no_hook_of_the_server():
    app, calls = linepool.App(), []
    app.when_ready(lambda: calls.append("ready"))
    app.on_stop(lambda: calls.append("stop"))
    assert app.ask(b"help\n").endswith(b"END\n")
    assert not calls
