"""Draining: all workers leave, the listeners stay open, and clients wait until the pool is filled again."""

from __future__ import annotations

import signal

import pytest

from tests.conftest import Launch
from tests.process.test_control import linepool
from tests.servers import Gate


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_clients_of_a_drained_server_wait_until_it_is_filled_again(
    launch: Launch, gate: Gate, scheme: str
):
    server = launch("workshop.py", "--workers", "2:4", "--park-after", "0.01")
    with server.connect() as held, server.connect() as quiet:
        assert quiet.ask("ADD 1 2") == "3"
        held.send(b"HOLD it\n")
        gate.wait()

        drained = linepool("drain", "--control", server.control)

        assert drained.stdout == "draining\n"
        server.until(lambda state: state["tally"]["total"] == 1)
        assert server.status()["state"] == "draining"
        assert server.order("DRAIN") == "draining"  # no harm
        gate.open()
        assert held.line() == "it"
        state = server.until(lambda state: state["tally"]["total"] == 0)
        assert (state["state"], state["counters"]["kills"]) == ("drained", 0)
        server.wait_for("drained: clients wait until the pool is filled again")

        if scheme == "accept":
            assert quiet.line() == ""
        else:
            quiet.send(b"ADD 2 2\n")
        with server.connect() as late:
            late.send(b"ADD 2 3\n")
            # Its client would have been heard of, and had a worker, if the pool could grow.
            if scheme == "dispatch":
                server.until(lambda state: state["connections"]["parked"] == 3)
            else:
                server.until(lambda state: state["listeners"][0]["backlog"] == 1)
            server.send(signal.SIGTTOU)  # there is no worker less
            assert server.status()["tally"]["total"] == 0

            server.send(signal.SIGTTIN)

            assert late.line() == "5"
            assert scheme == "accept" or quiet.line() == "4"
        server.until(lambda state: (state["state"], state["tally"]["idle"]) == ("ready", 3))
        assert server.order("SCALE 3") == "workers 3"


def test_winch_drains_and_a_worker_that_stays_too_long_is_killed(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1", "--graceful-timeout", "0.1")
    with server.connect() as held:
        held.send(b"CLING\n")
        gate.wait()

        server.send(signal.SIGWINCH)

        why = "it did not end before the pool was drained"
        assert held.line() == f"SERVER_ERROR the request was ended: {why}"
    server.wait_for("drained: ")
    with server.connect() as waits:
        waits.send(b"ADD 2 3\n")
        assert server.order("SCALE +0") == "workers 1"
        assert waits.line() == "5"

    server.send(signal.SIGWINCH)
    server.wait_for("drained: ")
    assert server.stop() == 0
