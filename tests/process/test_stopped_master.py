"""A master that was itself stopped: no request waits for it, and it kills none for the pause."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import ServerProcess

# In the other schemes a worker that soon finds work writes no record, and clients are handed off.
pytestmark = pytest.mark.scheme("accept")

PIPE_RECORDS = 2048  # that a status pipe holds
ENDED = "SERVER_ERROR the request was ended: it took longer than 0.5 s"


@pytest.fixture
def server(launch: Launch) -> ServerProcess:
    """Give a server with short timeouts."""
    limits = ("--request-timeout", "0.5", "--kill-grace", "0.2")
    return launch("stuck_for_good.py", "--workers", "4", *limits, bind=("unix:sock",))


@contextlib.contextmanager
def stopped(server: ServerProcess) -> Iterator[None]:
    """Keep the master of a server stopped until the block ends."""
    server.send(signal.SIGSTOP)
    yield
    server.send(signal.SIGCONT)


def totals(state: dict[str, Any]) -> tuple[int, ...]:
    """Return the counters of what can go wrong."""
    return tuple(state["counters"][name] for name in ("errors", "timeouts", "kills", "crashes"))


def test_healthy_requests_outlive_a_stop_of_the_master(server: ServerProcess):
    with server.connect() as one, server.connect() as other:
        workers = [one.ask("PID"), other.ask("PID")]
        with stopped(server):
            for _ in range(9):
                one.send(b"NAP 0.2\n")
                other.send(b"NAP 0.2\n")
                assert [one.line(), other.line()] == ["awake", "awake"]
            one.send(b"NAP 0.4\n")
            assert other.ask("NAP 0.1") == "awake"

        assert one.line() == "awake"
        assert [one.ask("PID"), other.ask("PID")] == workers
        assert totals(server.status()) == (0, 0, 0, 0)
    assert "the master did not run for" in server.wait_for("WARNING")


@pytest.mark.linux("the client of a killed worker reads no error line")
def test_requests_that_hang_before_or_during_the_stop_are_killed_after_it(
    server: ServerProcess,
):
    with server.connect() as before, server.connect() as during, server.connect() as clock:
        before.send(b"STUCK_IN_C\n")
        server.until(lambda state: "STUCK_IN_C" in [one["command"] for one in state["workers"]])
        with stopped(server):
            during.send(b"STUCK_BEHIND_EXCEPT\n")
            for _ in range(5):
                assert clock.ask("NAP 0.3") == "awake"

        assert [before.line(), during.line()] == [ENDED, ENDED]
        assert [before.line(), during.line()] == ["", ""]
        assert clock.ask("NAP 0.3") == "awake"
    state = server.until(lambda state: state["tally"]["idle"] == 4)
    assert totals(state) == (0, 0, 2, 0)


def test_requests_do_not_wait_for_a_stopped_master_which_counts_them_all_afterwards(
    server: ServerProcess,
):
    count = 4 * PIPE_RECORDS
    with contextlib.ExitStack() as open_ones:
        with stopped(server):
            for number in range(count):
                with server.connect() as peer:
                    peer.send(f"ADD {number} 1\n".encode())
                    assert peer.line() == str(number + 1)
            kept = [open_ones.enter_context(server.connect()) for _ in range(3)]
            holders = {int(peer.ask("PID")) for peer in kept}
        state = server.until(lambda state: state["tally"]["busy"] == 3)

        assert max(worker["connections"] for worker in state["workers"]) * 2 > PIPE_RECORDS
        assert {worker["pid"]: worker["state"] for worker in state["workers"]} == {
            worker["pid"]: "busy" if worker["pid"] in holders else "idle"
            for worker in state["workers"]
        }
        assert state["counters"]["connections"] == count + 3
        assert state["counters"]["requests"] == count + 3
        assert totals(state) == (0, 0, 0, 0)
    server.until(lambda state: state["tally"]["idle"] == 4)


def test_a_master_that_is_stopped_repeatedly_under_load_kills_no_worker(server: ServerProcess):
    with server.connect() as clock:
        for _ in range(3):
            with stopped(server):
                for _ in range(2 * PIPE_RECORDS):
                    assert server.ask("ADD 2 3") == "5"
            assert clock.ask("NAP 0.1") == "awake"
        assert totals(server.status()) == (0, 0, 0, 0)


def test_a_master_that_is_not_scheduled_while_it_catches_up_kills_no_worker(launch: Launch):
    server = launch("stuck_master.py", "--workers", "1", bind=("unix:sock",))
    enough = threading.Event()
    replies: list[str] = []

    def ask_until_enough() -> None:
        while not enough.is_set():
            replies.append(server.ask("ADD 2 3"))

    client = threading.Thread(target=ask_until_enough)
    with stopped(server):
        client.start()
        while len(replies) < PIPE_RECORDS and client.is_alive():  # each connection writes two
            client.join(0.01)
    state = server.until(lambda state: state["counters"]["requests"] > 2 * PIPE_RECORDS)
    enough.set()
    client.join()

    assert set(replies) == {"5"}
    assert totals(state) == (0, 0, 0, 0)


def test_a_worker_that_died_while_the_master_was_stopped_is_replaced(server: ServerProcess):
    with server.connect() as peer, stopped(server):
        assert ends(peer, "DIE abort")

    state = server.until(lambda state: state["tally"]["idle"] == 4)
    assert state["counters"]["crashes"] == 1


def ends(peer: Peer, command: str) -> bool:
    """Send a command; return whether the connection ends without a reply."""
    return peer.ask(command) == ""
