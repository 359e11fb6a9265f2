"""Latency of calls to three servers, of which one is slow or gone: linepool's client beside round robin.

Calls begin at a fixed rate, whether the ones before them are done or not. A server answers in 1 ms; a slow
one takes 20 ms. The client takes the less busy of two servers that are drawn at random, and avoids those that
cannot be connected; round robin takes them in turn, and what cannot be connected is tried at each turn.

    python -m benchmarks.slow_server
    python -m benchmarks.slow_server --rate 300 --rounds 5
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from benchmarks import harness
from linepool import AsyncClient
from linepool.client import flow

QUICK, SLOW, GONE = "all quick", "one slow", "one gone"
_WORKERS = "4"


@frozen
class Figure:
    """What a run has shown.

    Attributes:
        latencies: In ms.
        share: Of the calls that the third server has answered.
        failed: Calls without a result.
    """

    latencies: Sequence[float]
    share: float
    failed: int

    def quantile(self, part: float) -> float:
        """Return the latency that this part of the calls do not exceed."""
        return sorted(self.latencies)[min(int(part * len(self.latencies)), len(self.latencies) - 1)]


def in_turn() -> Callable[..., object]:
    """Return what chooses servers in turn, in place of ``linepool.client.endpoint.choose``."""
    turns = itertools.count()

    def choose(endpoints: Sequence[object], refused: object) -> object:
        del refused
        return endpoints[next(turns) % len(endpoints)]

    return choose


CHOICES = {"linepool": flow.choose, "round robin": in_turn()}


async def measured(addresses: Sequence[str], rate: float, seconds: float) -> Figure:
    """Call at a rate for some seconds; the last address is that of the third server."""
    latencies: list[float] = []
    answers: list[str] = []
    failed = 0

    async def call(client: AsyncClient, due: float) -> None:
        nonlocal failed
        try:
            answers.append(await client.call("ANSWER"))
        except OSError:
            failed += 1
        latencies.append((time.perf_counter() - due) * 1000)

    async with AsyncClient(*addresses, timeout=5) as client, asyncio.TaskGroup() as tasks:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            tasks.create_task(call(client, due))
    return Figure(latencies, answers.count("slow") / max(len(answers), 1), failed)


@contextlib.contextmanager
def servers(directory: Path) -> Iterator[dict[str, list[str]]]:
    """Start the servers; give the addresses of each case."""
    with contextlib.ExitStack() as stack:

        def serve(name: str, app: str) -> str:
            place = directory / name
            place.mkdir()
            target = Path(f"{harness.TARGETS}/delayed_app.py:{app}")
            server = harness.serving(target, "--workers", _WORKERS, directory=place)
            return f"127.0.0.1:{stack.enter_context(server).port}"

        one, two, three = (serve(name, "quick") for name in ("1", "2", "3"))
        slow = serve("slow", "slow")
        gone = f"127.0.0.1:{harness.free_port()}"
        yield {QUICK: [one, two, three], SLOW: [one, two, slow], GONE: [one, two, gone]}


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="calls/s [%(default)s]")
    harness.add_round_options(parser, 3, 5.0)
    options = parser.parse_args()
    figures: dict[tuple[str, str], list[Figure]] = {}
    with tempfile.TemporaryDirectory() as place, servers(Path(place)) as cases:
        asyncio.run(measured(cases[QUICK], options.rate, 0.5))  # caches, and what is imported late
        for _ in range(options.rounds):
            for case, addresses in cases.items():
                for name, choose in CHOICES.items():
                    flow.choose = choose  # type: ignore[assignment]
                    run = asyncio.run(measured(addresses, options.rate, options.seconds))
                    figures.setdefault((case, name), []).append(run)
    rows = [_row(case, name, found) for (case, name), found in figures.items()]
    runs = f"medians of {options.rounds} runs of {options.seconds:g} s at {options.rate:g} calls/s"
    print(f"{harness.machine()}; {runs}\n")
    headings = [
        "three servers",
        "choice",
        "p50 ms",
        "p99 ms",
        "most ms",
        "to the slow one",
        "failed",
    ]
    print(harness.table(headings, rows))
    return 0


def _row(case: str, name: str, found: Sequence[Figure]) -> list[object]:
    quantiles = [statistics.median(one.quantile(part) for one in found) for part in (0.5, 0.99, 1)]
    share = statistics.median(one.share for one in found)
    shown = [f"{one:.1f}" for one in quantiles]
    return [case, name, *shown, f"{share:.0%}", sum(one.failed for one in found)]


if __name__ == "__main__":
    harness.main(_run)
