"""Workers that write garbage: the master and the other workers are not affected."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from linepool.ipc.board import words
from linepool.master.recycler import resident_bytes
from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import (
    PARKING_SCHEMES,
    ask_all,
    clients,
    parker_of,
    until_parked,
)
from tests.servers import ServerProcess


def misbehave(peer: Peer, command: str) -> None:
    """Send a command that may end the worker."""
    with contextlib.suppress(OSError):
        peer.send(command.encode() + b"\n")
        peer.line()


def ask_despite_kills(server: ServerProcess) -> str:
    """Return a sum; a worker that is about to be killed for what it has done drops its client."""
    for _ in range(5):
        with contextlib.suppress(ConnectionError):
            if reply := server.ask("ADD 2 3"):
                return reply
    return "dropped each time"


def assert_healthy(server: ServerProcess, workers: int) -> None:
    """Assert that the pool is complete, and that it serves and stops."""
    server.until(lambda state: state["tally"]["idle"] == state["tally"]["total"] == workers)
    for _ in range(workers * 2):
        assert ask_despite_kills(server) == "5"
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
            assert ask_despite_kills(server) == "5"
    for _ in range(20):
        assert ask_despite_kills(server) == "5"

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


@pytest.mark.both
@pytest.mark.parametrize("what", ["pipe", "channel", "stacks", "wakeup"])
def test_no_client_reads_what_was_meant_for_a_descriptor_that_a_handler_has_closed(
    launch: Launch, what
):
    options = ("--slow-request", "0.05", "--request-timeout", "0.1", "--kill-grace", "0.1")
    server = launch("misbehaving.py", "--workers", "1", "--park-after", "0.005", *options)
    with server.connect() as peer:
        culprit = int(peer.ask("PID"))
        peer.send(f"CLOSE_OWN {what}\n".encode())
        peer.line()
    read = b""
    with server.connect() as one, server.connect() as two:  # the first of them may have its number
        for peer in (one, two, one):
            with contextlib.suppress(OSError):
                peer.send(b"ADD 2 3\nNAP 0.2\nADD 2 3\n")
                read += b"".join(peer.line().encode() + b"\n" for _ in range(3))
        with contextlib.suppress(ProcessLookupError):
            os.kill(culprit, signal.SIGTERM)  # it notes that in a descriptor of its own
        for peer in (one, two):
            with contextlib.suppress(OSError):
                peer.send(b"QUIT\n")
                read += peer.rest()

    others = set(read.split(b"\n")) - {b"", b"5", b"OK", b"awake"}
    assert all(line.startswith(b"SERVER_ERROR ") for line in others), others


# -- the board


HEAD_WORDS = 8
READ_BY_OTHERS = (words.IDLE_SINCE_NS, words.HELD, words.BEGUN_WITH, words.GIVEN, words.UNSTARTED)


@pytest.mark.scheme(*PARKING_SCHEMES)
@pytest.mark.parametrize("what", ["head", "other"])
def test_a_worker_that_writes_to_a_part_of_the_board_that_is_not_its_own_ends(
    launch: Launch, scheme, what
):
    server = launch("misbehaving.py", "--workers", "2", "--poison-deaths", "0")
    with clients(server, 3) as parked:
        ask_all(parked, "ADD 2 3")
        until_parked(server, 3)
        for word in range(HEAD_WORDS):
            with server.connect() as peer:
                misbehave(peer, f"OVERWRITE {what} {word} {2**64 - 1}")
            server.until(lambda state: state["counters"]["crashes"] == word + 1)  # noqa: B023

        assert ask_all(parked, "ADD 2 3") == ["5"] * 3
    assert_healthy(server, 2)


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_nonsense_in_a_workers_own_slot_harms_no_other_client(launch: Launch, scheme):
    server = launch("misbehaving.py", "--workers", "2", "--park-after", "0.005")
    parker = parker_of(server)
    with clients(server, 3) as parked:
        ask_all(parked, "ADD 2 3")
        for word in READ_BY_OTHERS:
            until_parked(server, 3)
            with server.connect() as peer:
                peer.send(f"OVERWRITE_AND_DIE {word} {2**64 - 1}\n".encode())
                assert peer.line() == ""
            assert ask_all(parked, "ADD 2 3") == ["5"] * 3

        assert parker_of(server) == parker
        assert server.status()["counters"]["dropped"] <= len(READ_BY_OTHERS)
    assert_healthy(server, 2)


# -- the channel


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_the_parker_takes_nothing_but_connections(launch: Launch, scheme):
    server = launch("misbehaving.py", "--workers", "2")
    parker = parker_of(server)
    others = ["channel", "file", "pipe", "epoll", "datagram"]
    if scheme == "shared":  # else the workers have no listener
        others.append("listener")
    with clients(server, 3) as parked:
        for count, what in enumerate(others, 1):
            ask_all(parked, "ADD 2 3")
            until_parked(server, 3)

            assert server.ask(f"HAND_OFF {what} 20") == "OK"

            server.until(lambda state: state["counters"]["dropped"] == 20 * count)  # noqa: B023
            for _ in range(20):
                server.wait_for("why='not a connection'")
            assert ask_all(parked, "ADD 2 3") == ["5"] * 3
            assert parker_of(server) == parker
    assert_healthy(server, 2)


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_sockets_that_are_not_connected_harm_no_parked_client(launch: Launch, scheme):
    server = launch("misbehaving.py", "--workers", "2")
    parker = parker_of(server)
    with clients(server, 3) as parked:
        ask_all(parked, "ADD 2 3")
        until_parked(server, 3)

        # The kernel reports each as one whose client has left.
        assert server.ask("HAND_OFF unconnected 20") == "OK"

        assert ask_all(parked, "ADD 2 3") == ["5"] * 3
        assert parker_of(server) == parker
    assert_healthy(server, 2)


@pytest.mark.scheme(*PARKING_SCHEMES)
@pytest.mark.parametrize(
    ("kind", "why"), [("large", "its state is longer than"), ("file", "malformed")]
)
def test_a_state_that_is_too_large_is_not_read(launch: Launch, scheme, kind, why):
    server = launch("misbehaving.py", "--workers", "2")
    parker = parker_of(server)
    with server.connect() as peer:
        assert peer.ask(f"HAND_OFF_STATE {kind}") == "OK"

        server.wait_for(why)
        server.until(lambda state: state["counters"]["dropped"] == 1)
        assert resident_bytes(parker) < 200e6
        assert peer.ask("ADD 2 3") == "5"
    assert_healthy(server, 2)


@pytest.mark.both
@pytest.mark.parametrize("put", ["", "file", "unconnected"])
def test_a_handler_that_closes_a_neighbours_descriptor_costs_that_client_only(launch: Launch, put):
    server = launch("misbehaving.py", "--workers", "1", "--park-after", "0.5")
    with server.connect() as neighbour, server.connect() as peer:
        worker = peer.ask("PID")
        neighbour.send(b"PID\n")
        neighbour.line()
        peer.ask(f"CLOSE_NEIGHBOUR '{put}'")

        server.until(lambda state: state["counters"]["dropped"] == 1)
        assert peer.ask("PID") == worker
    assert_healthy(server, 1)
