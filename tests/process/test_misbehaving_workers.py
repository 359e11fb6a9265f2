"""Workers that write garbage: the master and the other workers are not affected."""

from __future__ import annotations

import contextlib

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import ServerProcess


def misbehave(peer: Peer, command: str) -> None:
    """Send a command that may end the worker."""
    peer.send(command.encode() + b"\n")
    with contextlib.suppress(OSError):
        peer.line()


def assert_healthy(server: ServerProcess, workers: int) -> None:
    """Assert that the pool is complete, and that it serves and stops."""
    server.until(lambda state: state["tally"]["idle"] == state["tally"]["total"] == workers)
    for _ in range(workers * 2):
        assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert "Traceback" not in server.text


def test_a_worker_that_writes_garbage_into_its_status_pipe_is_replaced(launch: Launch):
    server = launch("misbehaving.py", "--workers", "2")
    for size in (31, 32, 320, 4096, 60_000):
        with server.connect() as peer:
            culprit = int(peer.ask("PID"))
            for seed in range(5):
                misbehave(peer, f"BABBLE {seed} {size}")
        server.until_gone(culprit)

    assert_healthy(server, 2)


def test_a_worker_that_writes_garbage_without_end_is_replaced(launch: Launch):
    server = launch("misbehaving.py", "--workers", "2")
    with server.connect() as peer:
        culprit = int(peer.ask("PID"))

        peer.send(b"BABBLE_WITHOUT_END\n")

        server.until_gone(culprit)
    assert_healthy(server, 2)


@pytest.mark.scheme("accept")
@pytest.mark.parametrize("at_ns", [0, 2**63, 2**64 - 1])
def test_a_worker_that_reports_false_states_harms_only_itself(launch: Launch, at_ns):
    server = launch("misbehaving.py", "--workers", "2")
    for state in (1, 2, 3, 4):
        with server.connect() as peer:
            for _ in range(6):
                misbehave(peer, f"LIE {state} {at_ns} {2**64 - 1}")
            with server.connect() as other:
                assert other.ask("ADD 2 3") == "5"
    for _ in range(20):
        with contextlib.suppress(ConnectionError):  # with a worker that is being killed
            server.ask("ADD 2 3")

    assert_healthy(server, 2)


def test_a_record_in_the_name_of_another_worker_ends_only_its_writer(launch: Launch):
    server = launch("misbehaving.py", "--workers", "2")
    with server.connect() as peer:
        culprit = int(peer.ask("PID"))
        workers = server.status()["workers"]
        other = next(worker for worker in workers if worker["pid"] != culprit)

        misbehave(peer, f"POSE {other['slot']}")

        server.until_gone(culprit)
    assert other["pid"] in server.pids()
    assert_healthy(server, 2)


@pytest.mark.scheme("accept")
@pytest.mark.parametrize("command", ["SCRIBBLE", "SCRIBBLE_EVERYWHERE"])
def test_a_server_recovers_from_garbage_on_the_board(launch: Launch, command):
    server = launch("misbehaving.py", "--workers", "3")
    for seed in range(6):
        with server.connect() as peer, server.connect() as neighbour:
            assert neighbour.ask("ADD 2 3") == "5"
            misbehave(peer, f"{command} {seed}")
            assert server.status()["pid"] == server.process.pid
            if command == "SCRIBBLE":
                assert neighbour.ask("ADD 2 3") == "5"
        server.until(lambda state: state["tally"]["idle"] == 3)

    assert_healthy(server, 3)


@pytest.mark.parametrize("command", ["HUSH", "CLOSE_ALL"])
def test_a_worker_that_closes_its_descriptors_is_replaced(launch: Launch, command):
    server = launch("misbehaving.py", "--workers", "2")
    with server.connect() as peer:
        culprit = int(peer.ask("PID"))
        misbehave(peer, command)

    server.until_gone(culprit)
    server.until(lambda state: state["tally"]["idle"] == 2)
    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
