"""Processes of the server that were stopped (SIGSTOP): they are replaced, and their clients served."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from linepool.kernel.pidfd import ChildProcess
from linepool.master.stopped import StoppedChildren
from linepool.pool.deadline import StallLog
from tests.conftest import Launch
from tests.process.connections import parker_of, until_parked
from tests.servers import TIMEOUT, Gate, freeze

SHORT = ("--stopped-timeout", "0.3")
LONG = ("--stopped-timeout", "300")
ENDED = "SERVER_ERROR the request was ended: it was in a worker that was stopped"


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("a worker that is stopped is not noticed")
def test_a_stopped_idle_worker_is_replaced(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1", *SHORT)
    (worker,) = server.pids()

    freeze(worker)

    assert server.ask("ADD 2 3") == "5"
    assert server.until_gone(worker)["counters"]["kills"] == 1


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("a worker that is stopped is not noticed")
def test_the_client_of_a_stopped_worker_gets_an_error(launch: Launch, gate: Gate, scheme):
    server = launch("workshop.py", "--workers", "1", "--request-timeout", "0", *SHORT)
    with server.connect() as peer:
        peer.send(b"HOLD x\n")
        (worker,) = gate.wait()

        freeze(worker)

        assert [peer.line(), peer.line()] == [ENDED, ""]
    assert server.ask("ADD 2 3") == "5"


def test_the_other_connections_of_a_stopped_worker_continue(launch: Launch):
    server = launch("workshop.py", "--workers", "1", "--park-after", "1000", *SHORT)
    with server.connect() as one, server.connect() as other:
        assert [one.ask("ADD 2 3"), other.ask("ADD 2 3")] == ["5", "5"]
        server.until(lambda state: state["tally"]["idle"] == 1)  # it has published both

        freeze(server.pids()[0])

        assert [one.ask("ADD 3 4"), other.ask("ADD 4 5")] == ["7", "9"]
    assert server.status()["counters"]["dropped"] == 0


@pytest.mark.scheme("shared", "dispatch")
def test_a_stopped_parker_is_replaced(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1", *SHORT)
    with server.connect() as parked:
        assert parked.ask("ADD 2 3") == "5"
        until_parked(server, 1)
        parker = parker_of(server)

        freeze(parker)

        assert parked.line() == ""
        assert parker_of(server, besides=parker)
    assert server.ask("ADD 2 3") == "5"
    assert f"parker killed pid={parker} why=stopped" in server.wait_for("parker killed")


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("a loader that is stopped is not noticed")
def test_a_stopped_loader_is_replaced(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1", *SHORT)
    (worker,) = server.pids()
    loader = server.status()["processes"]["loader"]

    freeze(loader)
    server.until(lambda state: state["processes"]["loader"] != loader)
    server.until_gone(worker)  # it was of that loader's generation

    assert server.ask("ADD 2 3") == "5"
    assert f"loader killed pid={loader} why='stopped'" in server.wait_for("loader killed")
    assert server.stop() == 0


def test_a_process_that_continues_in_time_is_not_killed(launch: Launch):
    server = launch("workshop.py", "--workers", "1", *LONG)
    with server.connect() as parked:
        assert parked.ask("ADD 2 3") == "5"
        until_parked(server, 1)
        for pid in (*server.pids(), parker_of(server)):
            freeze(pid)
            server.status()
            os.kill(pid, signal.SIGCONT)
        assert parked.ask("ADD 2 3") == "5"
    assert server.stop() == 0, server.text
    assert "killed" not in server.text


def test_a_stopped_worker_does_not_hold_up_a_stop(launch: Launch):
    server = launch("workshop.py", "--workers", "2", "--graceful-timeout", "300", *SHORT)
    freeze(server.pids()[0])

    assert server.stop() == 0


# -- the clock


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    """Give a child process that is stopped."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        child = ChildProcess(process.pid)
        yield child
        child.send(signal.SIGKILL)
        child.close()


def test_a_child_is_overdue_once(child: ChildProcess):
    stopped = StoppedChildren(1e-9, StallLog())
    stopped.look([child])

    assert stopped.due_at <= time.monotonic()
    assert stopped.take_overdue() == [child]
    assert stopped.take_overdue() == []


def test_time_in_which_the_master_did_not_run_does_not_count(child: ChildProcess):
    stalls = StallLog()
    stopped = StoppedChildren(60, stalls)
    stopped.look([child])
    since_ns = time.monotonic_ns()

    stalls.stalled(since_ns, since_ns + 300_000_000_000)

    assert stopped.due_at - time.monotonic() > 300
    assert stopped.take_overdue() == []


def test_a_child_that_continues_is_forgotten(child: ChildProcess):
    stopped = StoppedChildren(60, StallLog())
    stopped.look([child])
    assert stopped.due_at < float("inf")

    child.send(signal.SIGCONT)
    stopped.look([child])

    assert stopped.due_at == float("inf")


def test_a_child_that_has_ended_is_not_stopped(child: ChildProcess):
    stopped = StoppedChildren(60, StallLog())
    child.send(signal.SIGKILL)
    assert child.is_dead(TIMEOUT)

    stopped.look([child])

    assert stopped.due_at == float("inf")


def test_a_stopped_child_that_was_killed_and_reaped_is_not_overdue(child: ChildProcess):
    stopped = StoppedChildren(1e-9, StallLog())
    known = ChildProcess(child.pid)
    stopped.look([known])
    known.send(signal.SIGKILL)
    assert known.is_dead(TIMEOUT)
    assert known.reap() == -signal.SIGKILL
    known.close()

    assert stopped.take_overdue() == []


def test_no_child_is_overdue_without_a_limit(child: ChildProcess):
    stopped = StoppedChildren(0, StallLog())
    stopped.look([child])

    assert stopped.due_at == float("inf")
    assert stopped.take_overdue() == []
