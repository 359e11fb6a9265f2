"""The pool recovers from failed boots and forks, from lack of descriptors, deaths and garbage."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.conftest import OTHER_USER, Launch
from tests.process.connections import lowest_free_descriptor
from tests.servers import ServerProcess, children_of


def state_of(pid: int) -> str:
    """Return the state of a process, Z for a zombie (proc(5), stat)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- boots


def test_a_server_without_workers_recovers_when_boots_succeed_again(tmp_path: Path, launch: Launch):
    boot = tmp_path / "boot"
    backoff = ("--respawn-backoff", "0.05")
    server = launch("stuck_boots.py", "--workers", "4", *backoff, environment={"BOOT": str(boot)})
    boot.write_text("fail")
    for worker in server.pids():
        os.kill(worker, signal.SIGKILL)
    for _ in range(4):
        server.wait_for("signal=SIGKILL")
    with server.connect() as waiting:
        waiting.send(b"PID\n")
        for _ in range(3):
            server.wait_for("RuntimeError: no database")
            server.wait_for("worker died")
        # It spawns one worker at a time, however many are missing.
        assert server.status()["tally"]["total"] <= 1

        boot.unlink()

        assert int(waiting.line())
        state = server.until(lambda state: state["tally"]["idle"] == 4)
    failures = state["counters"]["spawned"] - 4 - 4
    assert state["counters"]["crashes"] == 4 + failures
    assert 3 <= failures < 10


# -- limits


def test_timeouts_of_years_work(launch: Launch):
    names = "spawn", "request", "idle", "read", "write", "graceful"
    options = [f"--{name}-timeout=100000000" for name in names]
    server = launch("stuck_for_good.py", "--workers", "2", "--shrink-window=100000000", *options)
    with server.connect() as peer:
        assert peer.ask("NAP 0.3") == "awake"
        assert len(peer.ask("BIG 10000000")) == 10_000_000
        assert server.ask("NAP 0.4") == "awake"
        assert peer.ask("ADD 2 3") == "5"
    assert server.stop() == 0


# -- forks


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without processes")
def test_a_fork_that_the_kernel_refuses_is_tried_again(other_users_directory: Path):
    with ServerProcess(
        other_users_directory,
        "stuck_for_good.py",
        *("--workers", "3", "--respawn-backoff", "0.05"),
        bind=("unix:sock",),
        environment={"USER_ID": str(OTHER_USER)},
    ) as server:
        loader = server.status()["processes"]["loader"]  # which forks
        before = server.ask(f"LIMIT_PROCESSES 1 {loader}")
        assert server.ask("DIE exit") == ""

        for _ in range(3):
            assert "cannot fork: Resource temporarily unavailable" in server.wait_for("cannot fork")
        assert server.ask("ADD 2 3") == "5"

        assert server.ask(f"LIMIT_PROCESSES {before} {loader}") == "1"
        state = server.until(lambda state: state["tally"]["idle"] == 3)
        workers = {worker["pid"] for worker in state["workers"]}
        assert len(set(children_of(server.process.pid)) - workers) == 2  # loader and parker


def test_a_fork_for_which_there_are_no_descriptors_is_tried_again(launch: Launch):
    server = launch("stuck_for_good.py", "--workers", "2", "--respawn-backoff", "0.05")
    master = server.process.pid
    free = lowest_free_descriptor(master)
    hard = resource.prlimit(master, resource.RLIMIT_NOFILE)[1]
    # With the descriptors of the worker that dies, enough for a part of what another one needs.
    for room in (0, -1, -2):
        limits = resource.prlimit(master, resource.RLIMIT_NOFILE, (free + room, hard))
        os.kill(server.pids()[0], signal.SIGKILL)

        server.wait_for("cannot fork: Too many open files")
        assert server.ask("ADD 2 3") == "5"

        resource.prlimit(master, resource.RLIMIT_NOFILE, limits)
        server.until(lambda state: state["tally"]["idle"] == 2)


# -- descriptors


@pytest.mark.parametrize("listeners", [1, 2])
def test_a_worker_without_descriptors_is_replaced_and_its_clients_are_served(
    launch: Launch, listeners
):
    bind = ("127.0.0.1:0", "unix:sock")[:listeners]
    server = launch("stuck_for_good.py", "--workers", "1", bind=bind)
    (worker,) = server.pids()
    free = lowest_free_descriptor(worker)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (free, free))

    # A worker that waits in accept() already has the descriptor for the next connection.
    served = [int(server.ask("PID")) for _ in range(3)]

    assert served[-1] != worker
    assert set(served) <= {worker, served[-1]}
    state = server.until(lambda state: state["tally"]["idle"] == state["tally"]["total"] == 1)
    assert state["workers"][0]["pid"] == served[-1]
    assert (state["counters"]["crashes"], state["counters"]["kills"]) == (0, 0)
    server.stop()
    pauses = [line for line in server.log if "cannot accept: Too many open files" in line]
    assert len(pauses) == 3


# -- deaths


def test_after_a_hundred_deaths_at_once_the_pool_is_complete_and_no_zombie_is_left(
    launch: Launch,
):
    options = ("--workers", "100", "--max-spawn-rate", "1000")
    server = launch("stuck_for_good.py", *options, bind=("unix:sock",))
    victims = server.pids()

    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    for _ in victims:
        server.wait_for("worker died")
    state = server.until(
        lambda state: state["counters"]["crashes"] == 100 and state["tally"]["idle"] == 100
    )

    workers = {worker["pid"] for worker in state["workers"]}
    children = children_of(server.process.pid)
    assert len(set(children) - workers) == 2  # loader and parker
    assert len(workers) == 100
    assert not workers & set(victims)
    assert "Z" not in [state_of(child) for child in children]
    assert server.ask("ADD 2 3") == "5"


# -- garbage


@pytest.mark.scheme("accept")
@pytest.mark.linux("one of its pipes is only to read")
def test_a_worker_that_writes_garbage_into_every_pipe_is_replaced(launch: Launch):
    server = launch("stuck_for_good.py", "--workers", "2")
    with server.connect() as peer, server.connect() as other:
        culprit = int(peer.ask("PID"))
        bystander = other.ask("PID")

        peer.send(b"BABBLE\n")

        line = server.wait_for("worker killed")
        why = "was in a worker that wrote malformed records"
        assert f"pid={culprit} why='{why}' command=BABBLE" in line
        assert peer.line() == f"SERVER_ERROR the request was ended: it {why}"
        assert peer.line() == ""
        assert other.ask("PID") == bystander
    state = server.until(lambda state: state["tally"]["idle"] == 2)
    assert culprit not in [worker["pid"] for worker in state["workers"]]
    assert (state["counters"]["kills"], state["counters"]["crashes"]) == (1, 0)
