"""What linepool survives: the experiments of docs/reliability.md, each of which prints a line of JSON.

``--seed`` repeats one; ``--write`` writes the figures into the page. The small ones are in
test_experiments.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.experiments.ground import Size
from tests.torture.experiments.table import EXPERIMENTS, Experiment, remember, run

_ALL = [(one, variant) for one in EXPERIMENTS for variant in one.variants]


@pytest.mark.parametrize(
    ("experiment", "variant"), _ALL, ids=[f"{one.number}-{variant}" for one, variant in _ALL]
)
def test_what_is_promised_holds(
    tmp_path: Path, experiment: Experiment, variant: str, seed: int, factor: int, write: bool
) -> None:
    report = run(experiment, variant, Size("normal", factor), tmp_path, seed)

    print("\n" + report.line())
    assert not report.faults, "\n".join([*report.faults, *report.details])
    if write:
        remember([report.line()])
