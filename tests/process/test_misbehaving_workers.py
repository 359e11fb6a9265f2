"""Workers that write nonsense: the master and the other workers go on."""

from __future__ import annotations

import contextlib

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import ServerProcess


def go_mad(peer: Peer, order: str) -> None:
    """Give an order that may well end the worker."""
    peer.send(order.encode() + b"\n")
    with contextlib.suppress(OSError):
        peer.line()


def assert_sane(server: ServerProcess, workers: int) -> None:
    """Assert that the pool is complete, serves and stops."""
    server.until(lambda state: state["tally"]["idle"] == state["tally"]["total"] == workers)
    for _ in range(workers * 2):
        assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert "Traceback" not in server.text


def test_a_worker_that_babbles_is_replaced(launch: Launch):
    server = launch("misbehaving.py", "--workers", "2")
    for size in (31, 32, 320, 4096, 60_000):
        with server.connect() as peer:
            mad = int(peer.ask("PID"))
            for seed in range(5):
                go_mad(peer, f"BABBLE {seed} {size}")
        server.until(lambda state: mad not in [one["pid"] for one in state["workers"]])  # noqa: B023

    assert_sane(server, 2)


def test_a_worker_that_babbles_without_end_is_replaced(launch: Launch):
    server = launch("misbehaving.py", "--workers", "2")
    with server.connect() as peer:
        mad = int(peer.ask("PID"))

        peer.send(b"BABBLE_WITHOUT_END\n")

        server.until(lambda state: mad not in [worker["pid"] for worker in state["workers"]])
    assert_sane(server, 2)


@pytest.mark.scheme("accept")
@pytest.mark.parametrize("at_ns", [0, 2**63, 2**64 - 1])
def test_a_worker_that_lies_about_itself_harms_only_itself(launch: Launch, at_ns):
    server = launch("misbehaving.py", "--workers", "2")
    for state in (1, 2, 3, 4):
        with server.connect() as peer:
            for _ in range(6):
                go_mad(peer, f"LIE {state} {at_ns} {2**64 - 1}")
            with server.connect() as other:
                assert other.ask("ADD 2 3") == "5"
    for _ in range(20):
        with contextlib.suppress(ConnectionError):  # of who is with a worker that is being killed
            server.ask("ADD 2 3")

    assert_sane(server, 2)


def test_a_worker_that_writes_in_the_name_of_another_is_not_believed(launch: Launch):
    server = launch("misbehaving.py", "--workers", "2")
    with server.connect() as peer:
        mad = int(peer.ask("PID"))
        workers = server.status()["workers"]
        other = next(worker for worker in workers if worker["pid"] != mad)

        go_mad(peer, f"POSE {other['slot']}")

        server.until(lambda state: mad not in [worker["pid"] for worker in state["workers"]])
    assert other["pid"] in server.pids()
    assert_sane(server, 2)


@pytest.mark.scheme("accept")
@pytest.mark.parametrize("order", ["SCRIBBLE", "SCRIBBLE_EVERYWHERE"])
def test_nonsense_on_the_board_stops_nobody_for_long(launch: Launch, order):
    server = launch("misbehaving.py", "--workers", "3")
    for seed in range(6):
        with server.connect() as peer, server.connect() as neighbour:
            assert neighbour.ask("ADD 2 3") == "5"
            go_mad(peer, f"{order} {seed}")
            assert server.status()["pid"] == server.process.pid
            if order == "SCRIBBLE":
                assert neighbour.ask("ADD 2 3") == "5"
        server.until(lambda state: state["tally"]["idle"] == 3)

    assert_sane(server, 3)


@pytest.mark.parametrize("order", ["HUSH", "CLOSE_ALL"])
def test_a_worker_that_closes_its_descriptors_is_replaced(launch: Launch, order):
    server = launch("misbehaving.py", "--workers", "2")
    with server.connect() as peer:
        mad = int(peer.ask("PID"))
        go_mad(peer, order)

    server.until(lambda state: mad not in [worker["pid"] for worker in state["workers"]])
    server.until(lambda state: state["tally"]["idle"] == 2)
    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
