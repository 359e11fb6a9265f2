"""``linepool kill SLOT``: an operator ends one worker."""

from __future__ import annotations

import pytest

from linepool.errors import SetupError
from tests.conftest import Launch
from tests.process.test_control import linepool
from tests.servers import Gate

ENDED = "SERVER_ERROR the request was ended: it was in a worker that an operator killed"


def test_an_operator_kills_one_worker_as_an_overdue_one(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "2", "--poison-deaths", "1")
    with server.connect() as held, server.connect() as other:
        assert other.ask("ADD 1 1") == "2"
        held.send(b"CLING\n")
        gate.wait()
        (worker,) = [row for row in server.status()["workers"] if row["command"] == "CLING"]

        killed = linepool("kill", str(worker["slot"]), "--control", server.control)

        assert killed.stdout == f"killing worker slot={worker['slot']} pid={worker['pid']}\n"
        assert held.line() == ENDED
        assert held.rest() == b""
        assert other.ask("ADD 2 3") == "5"
    line = server.wait_for(f"worker killed pid={worker['pid']} ")
    assert " why='was in a worker that an operator killed' command=CLING " in line
    server.wait_for("in cling")
    state = server.until(lambda state: state["tally"]["idle"] == 2)
    assert (state["counters"]["kills"], state["counters"]["crashes"]) == (1, 0)
    assert state["brakes"] == []

    for slot in (7, -1):
        with pytest.raises(SetupError, match=f"no worker in slot {slot}; slots with workers: 0, 1"):
            server.order(f"KILL {slot}")
    assert linepool("kill", "first").returncode == 2
