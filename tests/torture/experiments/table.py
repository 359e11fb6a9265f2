"""The experiments, how one is run, and the page that has what they found."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from linepool import core
from tests.servers import ROOT
from tests.torture.experiments import (
    apps,
    calls,
    careless,
    changes,
    clocks,
    deaths,
    links,
    outside,
    stalls,
    waiting,
)
from tests.torture.experiments.account import Report
from tests.torture.experiments.ground import Ground, Size

PAGE = ROOT / "docs" / "reliability.md"
LINES = ROOT / "docs" / "reliability.jsonl"
_BEGIN, _END = "<!-- experiments -->\n", "<!-- end of experiments -->\n"
_HEADINGS = ("experiment", "requests", "faults", "L1", "L2", "L3", "wrong", "p99 ms", "recovery s")


@frozen
class Experiment:
    """An experiment.

    Attributes:
        variants: Words that say how it is run: a scheme, then what is added, such as "tls".
        small: Those that are run in every test.
    """

    number: str
    run: Callable[[Ground], None]
    variants: tuple[str, ...]
    small: tuple[str, ...] = ("shared",)

    @property
    def name(self) -> str:
        """Its name."""
        return f"{self.number} {self.run.__name__.replace('_', ' ')}"


EXPERIMENTS = [
    Experiment("T1", deaths.worker_death, ("shared", "dispatch", "shared pure")),
    Experiment("T2", deaths.hand_over, ("dispatch", "dispatch pure"), ("dispatch",)),
    Experiment("T3", stalls.stuck_requests, ("shared", "dispatch")),
    Experiment("T4", deaths.master_death, ("shared", "dispatch")),
    Experiment("T5", stalls.frozen_processes, ("shared", "dispatch")),
    Experiment("T6", changes.storm, ("shared", "dispatch", "shared tls", "shared proxied")),
    Experiment("T6b", changes.restarts, ("shared",)),
    Experiment("T7", outside.shortages, ("shared", "dispatch")),
    Experiment("T8", outside.hostile_clients, ("shared", "dispatch")),
    Experiment("T10", outside.late_readers, ("shared", "shared pure")),
    Experiment("T11", outside.logs, ("shared",)),
    Experiment("T13", waiting.waiters, ("shared", "dispatch", "shared pure")),
    Experiment("T14", apps.several_apps, ("shared", "dispatch")),
    Experiment("T15", clocks.clock_steps, ("shared", "dispatch")),
    Experiment("T16", calls.failing_calls, ("shared", "dispatch")),
    Experiment("T17", links.half_open_links, ("shared", "dispatch")),
    Experiment("T18", careless.careless_handlers, ("shared", "dispatch"), ("dispatch",)),
]
SOAK = Experiment("T12", changes.soak, ("shared",))


def run(experiment: Experiment, variant: str, size: Size, directory: Path, seed: int) -> Report:
    """Run an experiment; its report says whether it went as it must."""
    scheme, _, more = variant.partition(" ")
    report = Report(f"{experiment.name}, {variant}", seed)
    with contextlib.ExitStack() as stack:
        experiment.run(Ground(directory, report, size, scheme, more, stack))
    return report


# The page.


def remember(lines: Iterable[str]) -> None:
    """Put new lines in the place of those of the same experiments, and write the page's table."""
    found = {one["name"]: one for one in _remembered()}
    found |= {one["name"]: one | {"core": core.about} for one in map(json.loads, lines)}
    order = [f"{one.name}, {variant}" for one in (*EXPERIMENTS, SOAK) for variant in one.variants]
    rows = sorted(found.values(), key=lambda one: order.index(one["name"]))
    LINES.write_text("".join(json.dumps(one) + "\n" for one in rows))
    text = PAGE.read_text()
    before, _, rest = text.partition(_BEGIN)
    PAGE.write_text(before + _BEGIN + page_table() + _END + rest.partition(_END)[2])


def _remembered() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def page_table() -> str:
    """Return the table of the page, from the lines of the last runs."""
    rows = [_row(one) for one in _remembered()]
    head = [" | ".join(_HEADINGS), "|".join(["---", *["---:"] * (len(_HEADINGS) - 1)])]
    return "".join(f"| {line} |\n" for line in [*head, *(" | ".join(row) for row in rows)])


def shown_table() -> str:
    """Return the table that the page has."""
    return PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0]


def _row(line: Mapping[str, Any]) -> list[str]:
    recovery = line["recovery_s"]
    return [
        line["name"],
        f"{line['n']:,}",
        f"{line['faults']:,}",
        *(f"{line['lost'][kind]:,}" for kind in ("L1", "L2", "L3")),
        str(line["wrong"]),
        f"{line['p99_ms']:g}",
        f"{recovery['median']:g} (max {recovery['max']:g})" if recovery else "",
    ]
