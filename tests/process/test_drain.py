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


def test_a_drain_is_announced_and_the_server_serves_on_until_then(launch: Launch):
    server = launch("workshop.py", "--workers", "2", "--park-after", "0.01")
    with server.connect() as kept:
        assert linepool("drain", "--after", "1000", "--control", server.control).stdout == (
            "draining in 1000 s\n"
        )
        assert server.status()["state"] == "draining"
        assert kept.ask("ADD 1 2") == "3"
        assert server.ask("ADD 2 2") == "4"
        assert "is draining" in linepool("health", "--control", server.control).stderr

        assert server.order("SCALE +0") == "workers 2"

        assert server.status()["state"] == "ready"
        server.order("DRAIN 1000")
        server.order("DRAIN 0.01")  # the last one counts
        server.wait_for("drained: ")
        assert server.order("DRAIN 5") == "draining"  # it has been, already
        assert server.order("RELOAD").startswith("generation 2")
        assert server.status()["state"] == "ready"
        assert kept.ask("ADD 1 2") == "3"


def test_an_upgrade_ends_an_announced_drain(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    server.order("DRAIN 1000")

    server.order("UPGRADE")

    server.until(lambda state: (state["generation"], state["state"]) == (2, "ready"))


@pytest.mark.parametrize("wrong", ["x", "-1", "nan", "1e7"])
def test_a_wrong_time_is_named(launch: Launch, wrong: str):
    server = launch("workshop.py", "--workers", "1")
    found = linepool("drain", "--after", wrong, "--control", server.control)
    assert (found.returncode, found.stdout) == (2, "")
    assert f"must be a number of seconds up to 1000000, not '{wrong}'" in found.stderr
    with pytest.raises(Exception, match="after"):
        server.order(f"DRAIN {wrong}")
    assert server.status()["state"] == "ready"
