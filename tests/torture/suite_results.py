"""What the tests of others said of two servers, side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from attrs import frozen

from tests.torture.table import show_table

_UNKNOWN = re.compile(r"unknown (command|subcommand) '?([\w|]+)'?", re.I)

_REFUSED = re.compile(r"([\w ]+) (?:is|are) not served")


@frozen
class Outcome:
    """What became of one test.

    Attributes:
        status: passed, failed or ignored.
        text: What the suite said of it.
    """

    status: str
    text: str = ""


Outcomes = Mapping[str, Outcome]


@frozen
class Compared:
    """One suite on Redis itself and on the example.

    Attributes:
        suite: Its name.
        theirs: The outcome of each test on Redis.
        ours: On the example. A test that is not in it was not reached.
    """

    suite: str
    theirs: Outcomes
    ours: Outcomes

    @property
    def failures(self) -> dict[str, str]:
        """Return the reason of each test that passes only on Redis, and of other errors."""
        wanted = [name for name, outcome in self.theirs.items() if outcome.status == "passed"]
        errors = [
            name
            for name, outcome in self.ours.items()
            if outcome.status == "failed" and name not in self.theirs
        ]
        return {
            name: _reason(outcome)
            for name in [*wanted, *errors]
            if (outcome := self.ours.get(name, _NOT_REACHED)).status != "passed"
        }

    @property
    def row(self) -> list[object]:
        """Return the counts."""
        theirs, ours = (
            Counter(one.status for one in each.values()) for each in (self.theirs, self.ours)
        )
        unserved = sum(reason.startswith("not served") for reason in self.failures.values())
        kinds = ("passed", "failed", "ignored")
        return [
            self.suite,
            *(theirs[kind] for kind in kinds),
            *(ours[kind] for kind in kinds),
            len(self.theirs.keys() - self.ours.keys()),
            unserved,
        ]


_NOT_REACHED = Outcome("failed", "not reached: an error before it ended its block")


def show(compared: list[Compared]) -> None:
    """Print the counts, and every failure with its reason."""
    headings = [
        *("suite", "Redis: passed", "failed", "ignored"),
        *("example: passed", "failed", "ignored", "not reached", "of them, not served"),
    ]
    rows = [one.row for one in compared]
    total = ["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])]
    print()
    show_table(headings, [*rows, total])
    for one in compared:
        for name, reason in one.failures.items():
            print(f"{one.suite}: {name}: {reason}")


def served_share(compared: list[Compared]) -> float:
    """Return which part passes of the tests that pass on Redis and whose commands are served."""
    failures = [reason for one in compared for reason in one.failures.values()]
    failed = sum(not reason.startswith("not served") for reason in failures)
    passed = sum(
        outcome.status == "passed" and one.theirs.get(name, outcome).status == "passed"
        for one in compared
        for name, outcome in one.ours.items()
    )
    return passed / max(1, passed + failed)


def _reason(outcome: Outcome) -> str:
    if unknown := _UNKNOWN.search(outcome.text):
        return f"not served: {unknown[2].upper()}"
    if refused := _REFUSED.search(outcome.text):
        return f"not served: {refused[1].upper()}"
    lines = [line.strip() for line in outcome.text.splitlines() if line.strip()]
    return (lines or [outcome.status])[0][:160]
