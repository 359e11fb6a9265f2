"""Upgrade in place: another program takes over a running server under the same pid, or does not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import linepool
from linepool.errors import SetupError
from linepool.testing import Peer
from tests.servers import TIMEOUT, Gate, ServerProcess
from tests.service_manager import NotifyReceiver

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

            # So does one that fails even before that.
            fault = (
                "\nimport json, os\n"
                "told = json.loads(os.environ.get('LINEPOOL_TAKEOVER', '{}'))\n"
                "assert not told or told.get('dry'), 'late'\n"
            )
            releases.add("late", "cli.py", new=fault)
            releases.switch("late")
            assert "could not take over: AssertionError: late" in refusal(server)
            assert active.ask("add 1 2") == "3"

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


# Becomes a script in the same process, with a socket as systemd passes one.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
SCRIPT = """
import os
import linepool

@linepool.handler
def pid() -> int:
    return os.getpid()

@linepool.handler
def passed() -> list[str]:
    return [name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_", "LINEPOOL_"))]

if __name__ == "__main__":
    linepool.run(workers=2, log_level="debug")
"""


def wait_in(path: Path, text: str, count: int = 1) -> None:
    """Wait until a text is in a file, as many times as that."""
    give_up_at = time.monotonic() + TIMEOUT
    while path.read_text().count(text) < count:
        assert time.monotonic() < give_up_at, path.read_text()


def test_what_a_supervisor_has_passed_stays_and_what_happens_meanwhile_is_noticed(tmp_path):
    (tmp_path / "service.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "activate.py").write_text(ACTIVATE)
    log, trace, pid_file = (tmp_path / name for name in ("log", "trace", "pid"))
    options = ("--log-file", str(log), "--record", str(trace), "--pid-file", str(pid_file))
    with (
        NotifyReceiver(tmp_path / "notify") as receiver,
        socket.create_server(("127.0.0.1", 0)) as listener,
        ServerProcess(
            tmp_path,
            "service.py",
            *options,
            bind=(),
            command=("activate.py", str(listener.fileno())),
            scheme="dispatch",
            environment={"NOTIFY_SOCKET": receiver.path},
            pass_fds=[listener.fileno()],
        ) as server,
        Peer(f"127.0.0.1:{listener.getsockname()[1]}") as peer,
    ):
        receiver.until("READY", "1")
        victim = int(peer.ask("pid"))
        log.rename(tmp_path / "old_log")
        server.order("REOPEN")

        # A worker dies while there is no master.
        server.send(signal.SIGUSR2)
        wait_in(log, "becoming the new program")
        os.kill(victim, signal.SIGKILL)
        server.wait_for("upgraded to linepool")
        receiver.until("RELOADING", "1")
        receiver.until("READY", "1")
        state = server.until_gone(victim)
        assert (state["generation"], state["pid"]) == (2, server.process.pid)
        assert state["counters"]["crashes"] == 1
        server.until(lambda state: state["tally"]["idle"] == state["tally"]["total"] == 2)
        assert int(peer.ask("pid")) in server.pids()
        assert peer.ask("passed") == "END"
        lines = trace.read_text().splitlines()
        assert lines[0] == "at_s,service_s"
        assert len(lines) == len({line.partition(",")[0] for line in lines}) >= 2
        assert int(pid_file.read_text()) == server.process.pid
        assert "generation=1" in log.read_text()

        # A signal comes while there is no master.
        server.send(signal.SIGUSR2)
        wait_in(log, "becoming the new program", 2)
        server.send(signal.SIGTERM)
        assert server.ended() == 0
        assert "stopping: waiting for in-flight requests" in log.read_text()
        assert not pid_file.exists()
        assert not os.path.exists(server.control)
        receiver.until("STOPPING", "1")
        assert "without a meaning" not in log.read_text()
