"""The verdict on a server: the first condition that holds, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from linepool.exporter.verdict import Looks, Recent, verdict
from tests.examples.pictures import STATE

TALLY = {"starting": 0, "idle": 0, "busy": 4, "leaving": 0, "total": 4, "min": 2, "max": 4}
SEARCH = {
    "command": "SEARCH",
    "requests": 0,
    "killed": 0,
    "died": 0,
    "server_error": 0,
    "timeout": 0,
}


def state(**changed: Any) -> dict[str, Any]:
    """Return the state of a server."""
    return {**STATE, **changed}


def after(*looks: tuple[float, Mapping[str, Any], Mapping[str, Any]]) -> Recent:
    """Return what has happened of late after looks: when, what of the state and of SEARCH is other."""
    seen = Looks()
    for at, changed, search in looks:
        seen.add(at, state(**changed), [{**SEARCH, **search}])
    return seen.recent(looks[-1][0])


def died(kills: int, crashes: int = 0) -> dict[str, Any]:
    """Return what a state has that counts deaths."""
    return {"counters": {**STATE["counters"], "kills": kills, "crashes": crashes}}


@pytest.mark.parametrize(
    ("changed", "recent", "condition", "sentence", "more"),
    [
        (
            {"state": "draining"},
            Recent(deaths_in_last_minute=9, deaths=9),
            "stopping",
            "The server is draining.",
            "2 workers have a request in flight.",
        ),
        (
            {"state": "starting"},
            Recent(),
            "starting",
            "The server is starting.",
            "No worker is up yet.",
        ),
        (
            {"waiting": 9, "tally": TALLY, "brakes": [{"command": "SEARCH"}]},
            Recent(deaths_in_last_minute=3, deaths=3, lost={"SEARCH": 3}, waiting=9, waiting_s=9),
            "dying",
            "Workers keep dying: 3 in the last minute, all with SEARCH.",
            "Refused for now: SEARCH (poison_deaths). linepool events --stacks shows where.",
        ),
        (
            {"waiting": 9, "tally": TALLY},
            Recent(waiting=9, waiting_s=42, deaths=2),
            "full",
            "9 clients wait, and the pool cannot grow.",
            "For 42 s: 4 of 4 workers are busy, 1 with MEAN. Raise workers (now 2:4), or see with"
            " linepool stacks what they wait for.",
        ),
        (
            {"waiting": 1, "tally": {**TALLY, "max": 8}},
            Recent(waiting=1, waiting_s=3),
            "growing",
            "1 client waits, and the pool grows.",
            "For 3 s: 4 of 4 workers are busy, 1 with MEAN. It may grow to 8; min_spare keeps workers ready"
            " for that.",
        ),
        (
            {},
            Recent(deaths=3, lost={"SEARCH": 2}, last_death_s=119),
            "deaths",
            "3 workers died or had to be killed in the last 5 minutes, most with SEARCH.",
            "The last one 2 minutes ago. No client waits: 2 of 4 workers are busy.",
        ),
        (
            {},
            Recent(deaths=1, last_death_s=20),  # of no request
            "deaths",
            "1 worker died or had to be killed in the last 5 minutes.",
            "The last one 20 s ago. No client waits: 2 of 4 workers are busy.",
        ),
        (
            {},
            Recent(requests=40, failed={"SEARCH": 4}, over_s=60),
            "failing",
            "10 % of requests fail, all with SEARCH.",
            "4 of 40 in the last 60 s. The log says why.",
        ),
        (
            {"waiting": 2, "tally": TALLY},
            Recent(waiting=2, waiting_s=1),  # a burst
            "ok",
            "Now 4 of 4 workers are busy.",
            "The pool is at its maximum.",
        ),
        (
            {"tally": {**TALLY, "min": 4, "busy": 1, "idle": 3}},
            Recent(),
            "ok",
            "No client waits: 1 of 4 workers is busy.",
            "The pool always has 4 workers.",
        ),
        (
            {},
            Recent(requests=12_000, failed={"SEARCH": 40}, over_s=300),
            "ok",
            "No client waits: 2 of 4 workers are busy.",
            "12,000 requests in the last 5 minutes, 40 of them failed. The pool may grow to 8.",
        ),
        (
            {},
            Recent(silent_s=12),
            "silent",
            "The master has not answered for 12 s.",
            "Workers may still serve. What is shown is as of then.",
        ),
    ],
)
def test_it_names_the_first_condition_that_holds(changed, recent, condition, sentence, more):
    found = verdict(state(**changed), recent)

    assert (found.condition, found.sentence, found.more) == (condition, sentence, more)
    assert (found.level == "ok") == (condition == "ok")


def test_looks_tell_what_has_changed():
    looks = [
        (0.0, died(2), {"requests": 100, "killed": 2, "server_error": 7}),
        (30.0, died(3, 1), {"requests": 130, "killed": 3, "died": 1, "server_error": 7}),
        (100.0, died(3, 1), {"requests": 150, "killed": 3, "died": 1, "server_error": 8}),
    ]
    recent = after(*looks)

    assert recent == Recent(
        over_s=100,
        requests=50,
        failed={"SEARCH": 3},
        deaths=2,
        deaths_in_last_minute=0,
        lost={"SEARCH": 2},
        last_death_s=70,
    )
    assert after(*looks[:2]).deaths_in_last_minute == 2


def test_what_is_older_than_five_minutes_is_forgotten():
    looks = [(float(at), died(min(at, 1)), {"requests": at}) for at in range(400)]

    recent = after(*looks)

    assert (recent.deaths, recent.over_s) == (0, 299)
    assert recent.requests == 299


@pytest.mark.parametrize(
    ("counts", "waiting", "waiting_s"),
    [
        ([3], 3, 0),
        ([3, 0], 3, 1),
        ([3, 0, 0], 0, 0),
        ([3, 0, 0, 1, 2], 2, 4),
        ([0, 0, 0, 1, 2, 2, 0, 1], 1, 4),
        ([1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 4], 4, 10),
        ([9, 9, 9, 0, 0, 0, 0, 0], 0, 0),
    ],
)
def test_clients_wait_if_most_of_the_last_looks_found_them_waiting(counts, waiting, waiting_s):
    recent = after(*((at, {"waiting": count}, {}) for at, count in enumerate(counts)))

    assert (recent.waiting, recent.waiting_s) == (waiting, waiting_s)


def test_a_command_that_comes_later_counts_from_its_first_request():
    looks = Looks()
    looks.add(0, state(), [])
    looks.add(5, state(), [{**SEARCH, "requests": 10, "died": 2}])

    assert looks.recent(5).lost == {"SEARCH": 2}
