"""What a worker holds that dies at any moment: others continue with the connections that it did not serve."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.process.connections import all_of, ask_all, clients
from tests.servers import Gate, ServerProcess, freeze, has_ended

pytestmark = [pytest.mark.both, pytest.mark.scheme("shared")]

_ONE = ("--workers", "1", "--park-after", "60")


def holder_of(worker: int) -> int:
    """Return the pid of the process that shares a worker's descriptors."""
    pids = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    (holder,) = (pid for pid in pids if _name_of(pid) == "linepool holder")
    return int(holder)


def _name_of(pid: str) -> str:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/comm").read_text().rstrip()
    return ""


def idle_worker(server: ServerProcess) -> int:
    """Return the pid of the only worker, once its last turn is over."""
    state = server.until(lambda state: state["tally"]["idle"] == state["tally"]["total"] == 1)
    return int(state["workers"][0]["pid"])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_between_two_requests_costs_no_connection(
    launch: Launch, how: signal.Signals
):
    server = launch("moving.py", *_ONE)
    with clients(server, 4) as peers:
        for _ in range(3):
            assert ask_all(peers, "ADD 2 3") == ["5"] * 4
            worker = idle_worker(server)
            freeze(worker)
            for peer in peers[:2]:  # what has come and was not read is served too
                peer.send(b"ADD 1 1\nADD 2 2\n")
            os.kill(worker, how)
            with contextlib.suppress(ProcessLookupError):  # it is dead already, if it was killed
                os.kill(worker, signal.SIGCONT)

            assert [peer.line() for peer in peers[:2]] == ["2"] * 2
            assert [peer.line() for peer in peers[:2]] == ["4"] * 2
            assert str(worker) not in ask_all(peers, "PID")
            assert f"pid={worker} saved=4 lost=0" in server.wait_for("connections of a dead worker")
    assert server.status()["counters"]["dropped"] == 0
    assert server.stop() == 0


def test_a_worker_that_dies_within_a_request_costs_that_client_only(launch: Launch, gate: Gate):
    server = launch("moving.py", *_ONE, "--hand-off-after", "60", gate=gate)
    with clients(server, 3) as peers:
        stuck, quiet, waiting = peers
        assert ask_all(peers, "ADD 2 3") == ["5"] * 3
        stuck.send(b"STUCK_IN_C\n")
        (worker,) = gate.wait()
        waiting.send(b"ADD 1 1\n")

        os.kill(worker, signal.SIGKILL)

        assert all_of(stuck) == b""
        assert waiting.line() == "2"
        assert quiet.ask("ADD 2 3") == "5"
    assert f"pid={worker} saved=2 lost=1" in server.wait_for("connections of a dead worker")


def test_what_only_the_dead_worker_knew_of_a_client_ends_its_connection(launch: Launch):
    server = launch("moving.py", *_ONE)
    with clients(server, 3) as peers:
        plain, remembered, half = peers
        assert ask_all(peers, "ADD 2 3") == ["5"] * 3
        assert remembered.ask("REMEMBER a") == "OK"
        half.send(b"ADD 2 3\nADD 2")
        assert half.line() == "5"
        worker = idle_worker(server)

        os.kill(worker, signal.SIGKILL)

        assert all_of(remembered) == all_of(half) == b""
        assert plain.ask("ADD 2 3") == "5"


def test_the_holder_ends_with_its_worker(launch: Launch):
    server = launch("moving.py", *_ONE)
    worker = idle_worker(server)
    with contextlib.ExitStack() as stack:

        def watched(pid: int) -> int:
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            return pidfd

        first = watched(holder_of(worker))
        os.kill(worker, signal.SIGKILL)
        assert has_ended(first)
        server.until_gone(worker)
        second = watched(holder_of(idle_worker(server)))
        assert server.stop() == 0
        assert has_ended(second)


def test_the_holder_ends_though_no_master_takes_anything_from_it(launch: Launch):
    server = launch("moving.py", *_ONE)
    worker = idle_worker(server)
    pidfd = os.pidfd_open(holder_of(worker))
    with contextlib.closing(os.fdopen(pidfd)), server.connect() as peer:
        assert peer.ask("ADD 2 3") == "5"
        freeze(worker)
        server.send(signal.SIGKILL)
        server.ended()

        os.kill(worker, signal.SIGKILL)

        assert has_ended(pidfd)
        assert all_of(peer) == b""


def test_a_worker_without_a_holder_costs_what_it_holds(launch: Launch):
    server = launch("moving.py", *_ONE)
    with clients(server, 2) as peers:
        assert ask_all(peers, "ADD 2 3") == ["5"] * 2
        worker = idle_worker(server)
        pidfd = os.pidfd_open(holder_of(worker))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert has_ended(pidfd)
        os.close(pidfd)

        os.kill(worker, signal.SIGKILL)

        assert [all_of(peer) for peer in peers] == [b""] * 2
        assert server.ask("ADD 2 3") == "5"


def test_the_code_of_the_app_has_no_child_that_it_has_not_started(launch: Launch):
    server = launch("forking.py", *_ONE)
    assert server.ask("WAIT_FOR_CHILD") == "there is none"
