"""Kill, recycle and reload under load for ``--seconds``, and account for all requests: nothing may grow."""

from __future__ import annotations

from pathlib import Path

from tests.torture.experiments.ground import Size
from tests.torture.experiments.table import SOAK, remember, run


def test_soak(tmp_path: Path, seconds: float, seed: int, write: bool) -> None:
    report = run(SOAK, SOAK.variants[0], Size("soak", seconds=seconds), tmp_path, seed)

    print("\n" + report.line())
    assert not report.faults, "\n".join([*report.faults, *report.details])
    if write:
        remember([report.line()])
