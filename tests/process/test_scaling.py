"""The size of the pool, changed by commands and signals."""

from __future__ import annotations

import signal

import pytest

from linepool.errors import SetupError
from tests.conftest import Launch
from tests.servers import Gate


def test_scale_sets_the_size_up_and_down(launch: Launch):
    server = launch("workshop.py", "--workers", "2")

    assert server.order("SCALE 5") == "workers 5"
    up = server.until(lambda state: state["tally"]["idle"] == 5)
    assert server.order("SCALE 1") == "workers 1"
    down = server.until(lambda state: state["tally"]["total"] == 1)

    assert (up["tally"]["min"], up["tally"]["max"]) == (5, 5)
    assert (down["tally"]["min"], down["tally"]["max"]) == (1, 1)
    assert (down["counters"]["spawned"], down["counters"]["retired"]) == (5, 4)
    assert down["counters"]["kills"] == down["counters"]["crashes"] == 0
    assert server.ask("ADD 2 3") == "5"


def test_scale_sets_or_shifts_both_bounds(launch: Launch):
    server = launch("workshop.py", "--workers", "2:4")

    for order, bounds, low in [
        ("SCALE +2", "4:6", 4),
        ("SCALE -1", "3:5", 3),
        ("SCALE 2:2", "2", 2),
        ("scale 1:9", "1:9", 1),
    ]:
        assert server.order(order) == f"workers {bounds}"
        server.until(lambda state: state["tally"]["idle"] >= low)  # noqa: B023 - called at once


def test_an_invalid_size_is_refused_and_changes_nothing(launch: Launch):
    server = launch("workshop.py", "--workers", "2")

    for size in ("0", "-2", "+1000", "3:2", "many", "1:1001", "", "+", "1 2"):
        with pytest.raises(SetupError):
            server.order(f"SCALE {size}")

    tally = server.status()["tally"]
    assert (tally["min"], tally["max"], tally["idle"]) == (2, 2, 2)


def test_ttin_and_ttou_move_the_bounds_by_one(launch: Launch):
    server = launch("workshop.py", "--workers", "1")

    server.send(signal.SIGTTIN)
    server.until(lambda state: state["tally"]["idle"] == 2)
    server.send(signal.SIGTTOU)
    server.until(lambda state: state["tally"]["total"] == 1)
    server.send(signal.SIGTTOU)  # one is the minimum
    server.status()  # two signals that wait together are taken by number, not by time
    tally = server.status()["tally"]
    assert (tally["min"], tally["max"]) == (1, 1)
    server.send(signal.SIGTTIN)
    server.until(lambda state: state["tally"]["idle"] == 2)


@pytest.mark.scheme("accept")
def test_a_busy_worker_that_is_retired_serves_its_client_to_the_end(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "2")
    with server.connect() as one, server.connect() as other:
        one.send(b"HOLD one\n")
        other.send(b"HOLD other\n")
        gate.wait(2)

        server.order("SCALE 1")
        server.until(lambda state: state["tally"]["leaving"] == 1)
        gate.open(2)

        assert [one.line(), other.line()] == ["one", "other"]
        assert [one.ask("ADD 1 1"), other.ask("ADD 1 1")] == ["2", "2"]
    state = server.until(lambda state: state["tally"]["total"] == 1)
    assert state["counters"]["kills"] == 0


@pytest.mark.scheme("accept")
def test_a_retired_worker_waits_for_its_quiet_client(launch: Launch):
    server = launch("workshop.py", "--workers", "2")
    with server.connect() as one, server.connect() as other:
        assert one.ask("PID") != other.ask("PID")

        server.order("SCALE 1")
        server.until(lambda state: state["tally"]["leaving"] == 1)

        assert [one.ask("ADD 1 1"), other.ask("ADD 1 1")] == ["2", "2"]
    assert server.until(lambda state: state["tally"]["total"] == 1)["counters"]["dropped"] == 0


def test_idle_workers_are_retired_before_busy_ones(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "4")
    with server.connect() as busy:
        busy.send(b"HOLD x\n")
        (worker,) = gate.wait()

        server.order("SCALE 1")

        server.until(lambda state: [one["pid"] for one in state["workers"]] == [worker])
        gate.open()
        assert busy.line() == "x"


def test_scaling_while_workers_boot_and_exit_ends_at_the_last_size(launch: Launch):
    server = launch("workshop.py", "--workers", "1")

    for size in (30, 2, 25, 1, 12, 3, 7):
        server.order(f"SCALE {size}")

    state = server.until(lambda state: state["tally"]["total"] == state["tally"]["idle"] == 7)
    assert state["counters"]["crashes"] == state["counters"]["kills"] == 0
