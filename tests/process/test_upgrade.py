"""Upgrade in place: another program takes over a running server under the same pid, or does not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import linepool
from linepool.errors import SetupError
from tests.servers import Gate, ServerProcess

PACKAGE = Path(linepool.__file__).parent


class Releases:
    """Copies of linepool; a link, which servers have as PYTHONPATH, leads to one of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.link = directory / "current"

    def add(self, name: str, file: str = "", old: str = "", new: str = "") -> None:
        """Make a release, with a change in one of its files.

        Args:
            name: Of the release.
            file: The file, by its path in the package; "": no change.
            old: What is replaced, once; "": the change is an appendix.
            new: By what.
        """
        # Times stay the same, so the compiled modules are good.
        shutil.copytree(PACKAGE, self.directory / name / "linepool")
        if file:
            path = self.directory / name / "linepool" / file
            text = path.read_text()
            assert not old or text.count(old) == 1
            path.write_text(text.replace(old, new) if old else text + new)

    def switch(self, name: str) -> None:
        """Have the link lead to a release from now on."""
        link = self.directory / "next"
        link.symlink_to(name)
        link.rename(self.link)


@pytest.fixture
def releases(tmp_path) -> Releases:
    return Releases(tmp_path / "releases")


@pytest.fixture
def gate(tmp_path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as gate:
        yield gate


def launch(directory: Path, releases: Releases, *options: str, **more) -> ServerProcess:
    releases.add("first")
    releases.switch("first")
    environment = {"PYTHONPATH": str(releases.link)}
    return ServerProcess(directory, "moving.py", *options, environment=environment, **more)


def upgrade(server: ServerProcess) -> str:
    return server.order("UPGRADE")


def refusal(server: ServerProcess) -> str:
    """Return why there is no upgrade."""
    with pytest.raises(SetupError) as caught:
        upgrade(server)
    return str(caught.value)


def test_a_new_version_takes_over_and_all_connections_stay(  # noqa: PLR0915 - one server for all
    tmp_path, releases, gate
):
    options = ("--workers", "3", "--park-after", "0.01", "--graceful-timeout", "5")
    with launch(tmp_path, releases, *options, gate=gate) as server:
        with (
            server.connect() as active,
            server.connect() as parked,
            server.connect() as known,
            server.connect() as busy,
            socket.socket(socket.AF_UNIX) as operator,
        ):
            operator.connect(server.control)
            operator.sendall(b"STATUS json\nSTA")
            assert b'"version"' in operator.makefile("rb").readline()
            assert parked.ask("add 1 2") == "3"
            assert known.ask("remember ann") == "OK"
            server.until(lambda state: state["connections"]["parked"] == 4)
            victim = int(server.ask("pid"))
            server.order(f"KILL {server.pids().index(victim)}")
            before = server.until_gone(victim)
            pid = server.status()["pid"]

            # A program that does not start is not waited for.
            releases.add("broken", "master/office.py", new="\nimport no_such_module\n")
            releases.switch("broken")
            assert refusal(server) == "ModuleNotFoundError: No module named 'no_such_module'"
            assert "upgrade failed, linepool" in server.wait_for("no_such_module")

            # One that shares memory in another way says so.
            releases.add("wider", "ipc/board/words.py", new="\nANOTHER_WORD = 99\n")
            releases.switch("wider")
            assert "shares memory with workers in another way" in refusal(server)
            assert parked.ask("add 1 2") == "3"
            assert server.status()["generation"] == 1
            operator.sendall(b"TUS json\n")
            assert b'"version"' in operator.makefile("rb").readline()

            # One that fails when it has become the master gives the place back.
            line = "        inherited.settle()\n"
            fault = "        raise RuntimeError('on purpose')\n"
            releases.add("failing", "operate/replaced.py", line, fault)
            releases.switch("failing")
            busy.send(b"hold\nadd 2 2\n")
            gate.wait()
            assert "could not take over: RuntimeError: on purpose" in refusal(server)
            assert active.ask("add 1 2") == "3"
            assert parked.ask("add 1 2") == "3"
            assert server.status()["generation"] == 1

            # And one that takes over.
            releases.add("second", "version.py", f'"{linepool.__version__}"', '"99.0"')
            releases.switch("second")
            active.send(b"add 3 ")
            reply = upgrade(server)
            assert reply.startswith("linepool 99.0: generation 2, 3 workers, ")
            server.wait_for("upgraded to linepool 99.0")
            active.send(b"4\n")
            assert active.line() == "7"
            assert parked.ask("add 1 2") == "3"
            assert known.ask("recall") == "ann"
            gate.open()
            assert busy.line() == "let go"
            assert busy.line() == "4"
            state = server.status()
            assert (state["version"], state["pid"], state["generation"]) == ("99.0", pid, 2)
            assert state["counters"]["kills"] == 1
            assert state["counters"]["requests"] > before["counters"]["requests"]
            assert state["counters"]["dropped"] == before["counters"]["dropped"]
            assert state["uptime_s"] > before["uptime_s"]
            operator.sendall(b"SCALE +0\n")
            assert operator.makefile("rb").readline() == b"workers 3\n"

            # A worker that dies now is replaced, and a child of this process as ever.
            victim = int(active.ask("pid"))
            os.kill(victim, signal.SIGKILL)
            assert server.until_gone(victim)["counters"]["crashes"] == 1
            server.until(lambda state: state["tally"]["idle"] == 3)
        server.order("STOP")
        assert server.ended() == 0
        assert not os.path.exists(server.control)
