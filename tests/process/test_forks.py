"""Handlers, hooks and resources that fork: the new process is a process of the app's, not a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.process.connections import all_of, ask_all, clients, open_files
from tests.servers import ServerProcess, children_of, has_ended

SCHEMES = ("shared", "dispatch", "accept")


@pytest.fixture(scope="module", params=SCHEMES)
def server(
    tmp_path_factory: pytest.TempPathFactory, implementation: None, request: pytest.FixtureRequest
):
    """Give a server that each test leaves as it was."""
    place = tmp_path_factory.mktemp("forks")
    more = {"scheme": request.param, "environment": {"JOURNAL": str(place / "journal")}}
    with ServerProcess(place, "forking.py", "--workers", "1", **more) as server:
        yield server
        assert server.stop() == 0


@contextlib.contextmanager
def living(pid: int) -> Iterator[int]:
    """Give a pidfd of a process that is killed at the end."""
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def status_of(pid: int, name: str) -> int:
    """Return a mask of signals of a process (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith(f"{name}:"))


def shared_bytes(pid: int) -> int:
    """Return the size of the memory that a process shares with others (proc(5), maps)."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "/memfd:" in line]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)


def journal(server: ServerProcess) -> list[str]:
    """Return the lines of the journal."""
    return (server.directory / "journal").read_text().splitlines()


# -- the new process ends where the code of the app's ends


@pytest.mark.parametrize(
    ("way", "status"),
    [("return", 0), ("raise", 1), ("exit", 3), ("refuse", 1), ("overdue", 1)],
)
@pytest.mark.parametrize("command", ["SPLIT", "SPLIT_STREAM"])
def test_a_process_that_a_handler_forks_never_answers_the_client(
    server: ServerProcess, command: str, way: str, status: int
):
    (worker,) = server.pids()

    said = server.converse(f"{command} {way}\nADD 1 2\nPID\nQUIT\n".encode())

    first = ["first"] if command == "SPLIT_STREAM" else []
    last = ["END", "3", str(worker), "OK"] if first else ["3", str(worker), "OK"]
    assert said.decode().split() == [*first, str(status), *last]
    assert server.pids() == [worker]


def test_it_may_use_an_app_of_its_own(server: ServerProcess):
    assert server.ask("ASK_IN_CHILD") == "3"


def test_a_process_forked_while_a_stream_is_closed_ends_there(server: ServerProcess):
    assert server.converse(b"SPLIT_AT_END\nADD 1 2\nQUIT\n").endswith(b" 1\n3\nOK\n")
    assert "end 1" in journal(server)


def test_processes_forked_in_hooks_and_resources_do_not_become_workers(
    launch: Launch, tmp_path: Path
):
    places = "resource,start,exit,connect,disconnect"
    environment = {"FORK_IN": places, "JOURNAL": str(tmp_path / "journal")}
    server = launch("forking.py", "--workers", "1", environment=environment)
    assert server.converse(b"ADD 1 2\nQUIT\n") == b"3\nOK\n"
    assert server.stop() == 0

    noted = [line for line in journal(server) if "child" not in line]
    hooks = ["connect 0 1", "disconnect 0 1"]
    assert noted == ["opened 0", "start 0 1", *hooks, "exit 0 3", "closed 1"]
    assert "worker failed" not in server.text


# -- what it has of the worker's


@pytest.mark.parametrize("command", ["START_PROCESS fork", "FORK_IN_THREAD", "FORK_WITH_EXEC"])
@pytest.mark.linux("it looks for memory files in /proc")
def test_it_has_nothing_of_the_worker_s(server: ServerProcess, command: str):
    (worker,) = server.pids()
    has_parker = server.status()["processes"]["parker"]  # else a worker has one client only
    with clients(server, int(bool(has_parker))) as others, server.connect() as peer:
        for other in others:
            other.send(b"ADD 1 ")
        child = int(peer.ask(command))
        with living(child):
            server.until(lambda _: status_of(child, "SigBlk") == 0)
            ours = ("socket:", "anon_inode:", "/memfd:")
            logs = {"/memfd:linepool-log (deleted)", "anon_inode:[timerfd]"}  # it may log too
            shared = set(open_files(worker)) & set(open_files(child)) - logs
            assert not [link for link in shared if link.startswith(ours)]
            assert shared_bytes(child) < 100_000 < shared_bytes(worker)  # the log's, not the board
            # INT is caught by Python itself; those above 31 are the C library's.
            assert status_of(child, "SigCgt") & 0x7FFFFFFF & ~(1 << (signal.SIGINT - 1)) == 0
            assert peer.ask(f"END {child}") == str(-signal.SIGTERM)
        assert ask_all(others, "2") == ["3"] * len(others)
    assert server.pids() == [worker]


def test_it_cannot_reach_the_client_through_the_live_connection(server: ServerProcess):
    assert server.ask("USE_CONNECTION") == "OSError"


def test_a_client_reads_its_end_though_a_process_lives_on(server: ServerProcess):
    with server.connect() as peer:
        child = int(peer.ask("START_PROCESS fork"))
        with living(child):
            peer.socket.shutdown(socket.SHUT_WR)
            assert all_of(peer) == b""


# -- the worker goes on as before


def test_processes_and_executors_of_multiprocessing_work_in_a_handler(server: ServerProcess):
    assert server.ask("RUN_PROCESS fork") == "0 -15"
    assert server.ask("EXECUTOR fork") == "30"
    assert server.ask("BLOCKED") == "0" * 16


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_multiprocessing_s_other_start_methods_work_in_a_handler(launch: Launch, method: str):
    server = launch("forking.py", "--workers", "1")
    assert server.ask(f"RUN_PROCESS {method}") == "0 -15"
    assert server.ask(f"EXECUTOR {method}") == "30"
    assert server.stop() == 0


def test_pools_do_not_hang(server: ServerProcess):
    assert [server.ask("POOL 2") for _ in range(4)] == ["30"] * 4


@pytest.mark.parametrize(("command", "reply"), [("RAISE_HOOKS_ERROR", "0"), ("FAIL_TO_FORK", "")])
def test_a_fork_that_fails_leaves_no_signal_blocked(
    server: ServerProcess, command: str, reply: str
):
    with server.connect() as peer:
        assert peer.ask(command) in (reply, "BlockingIOError", "0")
        assert peer.ask("BLOCKED") == "0" * 16


def test_request_timeout_reaches_a_handler_that_forks(launch: Launch):
    server = launch("forking.py", "--workers", "1", "--request-timeout", "0.2")
    (worker,) = server.pids()
    with server.connect() as peer:
        for _ in range(4):
            assert "took longer than 0.2 s" in peer.ask("FORK_UNTIL_OVERDUE")
        assert peer.ask("PID") == str(worker)
    server.stop()
    assert "Exception ignored" not in server.text


# -- what ends with the worker


@pytest.mark.scheme("shared", "accept")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_server_unless_it_was_detached(launch: Launch, how: signal.Signals):
    server = launch("forking.py", "--workers", "1")
    with server.connect() as peer, contextlib.ExitStack() as stack:
        commands = ["START_PROCESS fork", "START_PROCESS forkserver", "START_PROCESS spawn"]
        commands += ["FORK_IN_THREAD", "PROGRAM"]
        pidfds = [stack.enter_context(living(int(peer.ask(command)))) for command in commands]
        detached = stack.enter_context(living(int(peer.ask("DETACH"))))
        peer.close()
        server.send(how)
        server.ended()
        assert all(has_ended(pidfd) for pidfd in pidfds)
        assert not has_ended(detached, 0)


@pytest.mark.parametrize("helper", ["helper", "program"])
def test_what_a_worker_has_started_ends_when_it_is_recycled(launch: Launch, helper: str):
    options = ("--workers", "1", "--max-requests", "1", "--max-requests-jitter", "0")
    server = launch("forking.py", *options, environment={"FORK_IN": helper})
    for _ in range(3):
        state = server.until(lambda state: state["tally"]["total"] == state["tally"]["idle"] == 1)
        worker = state["workers"][0]["pid"]
        (child,) = children_of(worker)
        with living(child) as pidfd:
            assert server.ask("ADD 1 2") == "3"
            assert has_ended(pidfd)
    assert server.stop() == 0


def test_an_executor_that_is_not_shut_down_does_not_delay_the_stop(launch: Launch):
    server = launch("forking.py", "--workers", "1", "--graceful-timeout", "60")
    assert server.ask("KEPT_EXECUTOR fork") == "9"
    assert server.stop() == 0
