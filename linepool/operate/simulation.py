"""``linepool simulate``: read a trace, and show the results of the simulated pool."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

from linepool.errors import SetupError
from linepool.pool.policy import SETTINGS
from linepool.pool.simulate import Result, Sample
from linepool.pool.traces import Arrival, parse
from linepool.settings import Settings, written

_PERCENTILES = (50, 90, 99)
_ROWS = 24


def load(path: str) -> list[Arrival]:
    """Return the trace in a file; ``-``: standard input.

    Raises:
        SetupError: The file cannot be read, or one of its lines is not an arrival.
    """
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            return parse(sys.stdin)
        with open(path, encoding="utf-8") as lines:
            return parse(lines)
    except OSError as error:
        raise SetupError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{name} is not UTF-8 text") from None
    except SetupError as error:
        raise SetupError(f"{name}: {error}") from None


def as_json(result: Result, settings: Settings) -> dict[str, Any]:
    """Return all results, in seconds, for JSON output."""
    return {
        "settings": {name: written(name, getattr(settings, name)) for name in SETTINGS},
        "clients": len(result.waits),
        "served_at_s": result.served_at,
        "waited_s": {
            **{f"p{percent}": result.percentile(percent) for percent in _PERCENTILES},
            "max": result.waits[-1],
        },
        "workers": {
            "mean": round(result.mean_workers, 3),
            "mean_busy": round(result.mean_busy, 3),
            "max": result.largest.workers,
            "max_at_s": result.largest.at,
        },
        "forks": result.forks,
        "retirements": result.retirements,
        "saturated_s": result.saturated,
        "changes": [
            {
                "at_s": change.at_ns / 1e9,
                "spawned": change.spawned,
                "retired": change.retired,
                "workers": change.tally.total,
                "why": change.why,
            }
            for change in result.changes
        ],
        "samples": [
            {
                "at_s": sample.at,
                "workers": sample.workers,
                "busy": sample.busy,
                "idle": sample.idle,
                "backlog": sample.backlog,
                "waited_s": sample.waited,
            }
            for sample in result.samples
        ],
    }


def as_lines(result: Result, settings: Settings) -> list[str]:
    """Return a summary, then the pool over time, for a terminal."""
    pool = " ".join(f"{name}={written(name, getattr(settings, name))}" for name in SETTINGS)
    waited = ", ".join(
        f"{percent} % up to {_duration(result.percentile(percent))}" for percent in _PERCENTILES
    )
    steps = sum(1 for change in result.changes if change.retired)
    return [
        f"settings   {pool}",
        f"clients    {len(result.waits)}, the last one done after {_duration(result.served_at)}",
        f"waited     {waited}, at most {_duration(result.waits[-1])}",
        f"workers    {result.mean_workers:.1f} on average, {result.mean_busy:.1f} of them busy;"
        f" at most {result.largest.workers}, first after {_duration(result.largest.at)}",
        f"changes    {result.forks} forks, {result.retirements} retirements"
        f" in {steps} step{'' if steps == 1 else 's'}",
        f"saturated  {_duration(result.saturated)} at the maximum with connections waiting",
        "",
        f"{'from':>8} {'workers':>9} {'busy':>6} {'idle':>6} {'backlog':>8} {'waited':>9}",
        *_rows(result),
    ]


def plot(result: Result, settings: Settings, path: str) -> None:
    """Draw the pool, the backlog and the waiting time over time; the file name sets the format.

    Raises:
        SetupError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - heavy; only needed for --plot
    except ImportError:
        raise SetupError(
            "--plot needs matplotlib; install it with: pip install 'linepool[plot]'"
        ) from None
    figure = Figure(figsize=(9, 7), layout="constrained")
    pool, backlog, waited = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    at = [sample.at for sample in result.samples]

    def steps(name: str) -> list[float]:
        return [getattr(sample, name) for sample in result.samples]

    pool.fill_between(at, steps("workers"), step="post", color="#c6dbef", label="workers")
    pool.fill_between(at, steps("busy"), step="post", color="#3182bd", label="busy")
    for bound in {settings.workers.min, settings.workers.max}:
        pool.axhline(bound, color="black", linewidth=0.8, linestyle="--")
    pool.legend(loc="upper right")
    pool.set_ylabel("workers")
    pool.set_ylim(bottom=0)
    backlog.step(at, steps("backlog"), where="post", color="#e6550d")
    backlog.set_ylabel("backlog")
    waited.step(at, steps("waited"), where="post", color="#756bb1")
    waited.set_ylabel("longest wait (s)")
    waited.set_xlabel("seconds since the first client")
    try:
        figure.savefig(path)
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from None
    except ValueError as error:  # unknown format
        raise SetupError(f"cannot write {path}: {error}") from None


def _rows(result: Result) -> Iterator[str]:
    """Yield one row per span of time; consecutive equal rows become one."""
    step = _span(result.samples[-1].at / _ROWS)
    rows: dict[int, list[Sample]] = {}
    for sample, following in pairwise([*result.samples, result.samples[-1]]):
        last = max(sample.at, following.at - 1e-9)  # exclude the start of the next span
        for number in range(int(sample.at / step), int(last / step) + 1):
            rows.setdefault(number, []).append(sample)
    seen = ((number * step, _row(samples)) for number, samples in sorted(rows.items()))
    for row, same in groupby(seen, key=lambda timed: timed[1]):
        yield f"{_duration(next(same)[0]):>8} {row}"


def _row(samples: list[Sample]) -> str:
    sizes = [sample.workers for sample in samples]
    size = f"{min(sizes)}-{max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    busy = max(sample.busy for sample in samples)
    idle = min(sample.idle for sample in samples)
    backlog = max(sample.backlog for sample in samples)
    waited = _duration(max(sample.waited for sample in samples))
    return f"{size:>9} {busy:>6} {idle:>6} {backlog:>8} {waited:>9}"


def _span(least: float) -> float:
    """Return a round length of time of at least ``least``."""
    for exponent in range(-2, 10):
        for digit in (1.0, 2.0, 5.0):
            if digit * 10.0**exponent >= least:
                return digit * 10.0**exponent
    return least


def _duration(seconds: float) -> str:
    """Return a duration with three digits and a unit."""
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"
