"""Workers that take and finish work all the time need not tell the master each time; it knows what counts."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import Gate, ServerProcess

QUICK = ("--grow-delay", "0.05", "--max-spawn-rate", "1000", "--min-worker-age", "0")
_PAUSE = 0.002  # seconds; a worker is idle after one millisecond


@contextlib.contextmanager
def many_edges(server: ServerProcess) -> Iterator[None]:
    """Have a client send a request whenever its worker has been idle, until the block ends."""
    ended = threading.Event()
    warm = threading.Event()

    def ask(peer: Peer) -> None:
        number = 0
        while not ended.is_set():
            peer.ask("ADD 1 1")
            number += 1
            if number == 200:
                warm.set()
            select.select([], [], [], _PAUSE)

    with server.connect() as peer:
        thread = threading.Thread(target=ask, args=(peer,))
        thread.start()
        try:
            assert warm.wait(30)
            yield
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("scheme", ["shared", "accept"])
def test_a_pool_grows_for_requests_that_take_long_and_shrinks_again(
    launch: Launch, gate: Gate, scheme
):
    options = ("--workers", "1:6", "--max-spare", "1", "--shrink-window", "0.8", *QUICK)
    server = launch("workshop.py", *options, "--scheme", scheme)
    with many_edges(server), contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(4)]
        for number, peer in enumerate(peers):
            peer.send(f"HOLD {number}\n".encode())

        gate.wait(4)
        server.until(lambda state: state["tally"]["busy"] >= 4)

        gate.open(4)
        assert [peer.line() for peer in peers] == ["0", "1", "2", "3"]
        for peer in peers:
            peer.close()
        server.until(lambda state: state["tally"]["total"] <= 3)


def test_a_fixed_pool_knows_its_busy_workers_and_those_that_are_stuck(launch: Launch, gate: Gate):
    options = ("--workers", "3", "--request-timeout", "0.3", "--kill-grace", "0.1")
    server = launch("workshop.py", *options)
    with many_edges(server), server.connect() as held:
        held.send(b"HOLD x\n")
        (worker,) = gate.wait()

        server.until(lambda state: worker in [one["pid"] for one in busy(state)])

        assert held.line().startswith("SERVER_ERROR")
    server.until(lambda state: state["tally"]["idle"] == 3)


def busy(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the workers that are busy."""
    return [one for one in state["workers"] if one["state"] == "busy"]
