"""The experiments of torture_experiments.py, small: what is promised holds, by what is counted.

A seed is chosen anew for each run, and printed if an experiment fails.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.torture.experiments.ground import Size
from tests.torture.experiments.table import EXPERIMENTS, Experiment, page_table, run, shown_table

_SMALL = [(one, variant) for one in EXPERIMENTS for variant in one.small]


@pytest.mark.parametrize(
    ("experiment", "variant"), _SMALL, ids=[f"{one.number}-{variant}" for one, variant in _SMALL]
)
def test_what_is_promised_holds_in_a_small_experiment(
    tmp_path: Path, experiment: Experiment, variant: str
) -> None:
    report = run(experiment, variant, Size("small"), tmp_path, secrets.randbelow(10**6))

    print(report.line())
    assert not report.faults, "\n".join([*report.faults, *report.details])


def test_the_page_shows_what_the_last_experiments_have_found() -> None:
    assert shown_table() == page_table()
