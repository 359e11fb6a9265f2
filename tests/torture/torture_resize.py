"""Resize the pool all the time while its workers are recycled, under load: no request may be lost.

Nothing is killed. Busy clients send requests in rounds, between which the journals of the workers are
compared with the replies; some idle connections send one request each at the end. ``--requests`` says
how many requests are sent in each scheme.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.servers import ServerProcess
from tests.torture.account import Account, Row, broken, quiet_account
from tests.torture.clients import Outcomes, busy_clients, open_idle, query_idle
from tests.torture.table import show_table

_APP = str(Path(__file__).with_name("journal_app.py"))
_BUSY = 64  # clients
_IDLE = 200  # connections
_ROUND = 50_000  # requests
_NUMBERS = 10**9  # of requests in a round, at most
_PAUSE = 0.15  # seconds between two resizes
_STUCK = 60.0  # seconds without a request
_SIZES = ("8", "2", "1:8", "+2", "6:12", "-3", "1", "4", "12", "3:3", "1:2", "5")
_OPTIONS = (
    *("--workers", "4", "--max-requests", "250", "--max-spawn-rate", "1000"),
    *("--shrink-window", "0.3", "--min-worker-age", "0.1"),  # within bounds it is resized too
)


@pytest.mark.scheme("shared", "dispatch")
def test_resizes_and_recycling_lose_no_request(
    launch: Launch, tmp_path: Path, requests: int, scheme
):
    journals = tmp_path / "journals"
    journals.mkdir()
    server = launch(_APP, *_OPTIONS, environment={"JOURNALS": str(journals)})
    idle = open_idle(server.port, _IDLE)
    rows: Counter[tuple[str, str]] = Counter()
    details: list[str] = []
    resizes = 0
    for begin in range(0, requests, _ROUND):
        until = min(begin + _ROUND, requests)
        with busy_clients(server.port, _BUSY, begin // _ROUND * _NUMBERS + 1) as clients:
            resizes += _resize(server, until)
            account = quiet_account(journals, clients.finish(), Outcomes())
        _add(rows, account, details)
    _add(rows, quiet_account(journals, Outcomes(), query_idle(idle)), details)
    state = server.until(lambda state: state["connections"] == {"hot": 0, "parked": 0})
    counters = state["counters"]
    table: list[Row] = [
        ("resizes", resizes, ""),
        ("workers spawned", counters["spawned"], ""),
        ("workers retired", counters["retired"], ""),
        ("workers recycled", counters["recycled"], ""),
        ("workers killed or crashed", counters["kills"] + counters["crashes"], "0"),
        ("connections dropped by the server", counters["dropped"], "0"),
        *((what, count, must) for (what, must), count in rows.items() if must or count),
    ]
    print(f"\nScheme {scheme}: {_BUSY} busy and {_IDLE} idle connections, nothing is killed\n")
    show_table(["", "count", "must be"], table)
    assert not broken(table), "\n".join(details)


def _resize(server: ServerProcess, requests: int) -> int:
    """Resize the pool until it has served this many requests; return how often."""
    sizes = itertools.cycle(_SIZES)
    served, served_at = 0, time.monotonic()
    for resizes in itertools.count(1):
        server.order(f"SCALE {next(sizes)}")
        time.sleep(_PAUSE)
        now_served = server.status()["counters"]["requests"]
        if now_served >= requests:
            return resizes
        if now_served > served:
            served, served_at = now_served, time.monotonic()
        assert time.monotonic() < served_at + _STUCK, f"no request for {_STUCK:g} s after {served}"
    raise AssertionError


def _add(rows: Counter[tuple[str, str]], account: Account, details: list[str]) -> None:
    for what, count, must_be in account.rows():
        if not what.startswith("...") and what != "other worker crashes":  # those are about kills
            rows[what, must_be] += count
    rows["requests lost", "0"] += len(account.busy.lost) + len(account.idle.lost)
    details += account.details()
