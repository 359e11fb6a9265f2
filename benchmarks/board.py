"""What the status records and the board cost: server CPU for each request, with and without.

linepool serves twice, with two workers each: as it is, and from targets/lines_unwatched.py, whose
workers note no request on the board and send no status records. In each round both are started anew,
and one is loaded after the other, in another order each time. CPU is of all processes of the server,
so what the master does with the records counts too; figures are medians over the rounds. The share
is what the watching takes of the CPU of linepool as it is, in the median of the rounds' shares.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import harness
import load
import speed_load
import speed_meter
from attrs import frozen
from speed_load import Outcome
from speed_servers import PROCESSES, SUM, Case

_GOAL = 0.05  # share of the CPU, at most
_SETTLE = 1.0  # seconds
_BUILDS = {"watched": "lines_app.py", "unwatched": "lines_unwatched.py"}
_CASES = [
    Case("pp64", "ping-pong, 64 connections", "lines", 64),
    Case("pl16", "16 deep, 16 connections", "lines", 16, depth=16),
    Case("conn4", "a connection per request, 4 clients", "lines", 4, mode="connect"),
]


@frozen
class Pair:
    """Both builds under the same load, one after the other."""

    watched: Outcome
    unwatched: Outcome

    @property
    def saved_us(self) -> float:
        """CPU for a request that it takes less without the watching."""
        return self.watched.cpu_us - self.unwatched.cpu_us

    @property
    def share(self) -> float:
        """What the watching takes of the CPU."""
        return self.saved_us / self.watched.cpu_us


def _measure(number: int, case: Case, seconds: float) -> Pair:
    """Start both, load them in turn, and stop them."""
    outcomes: dict[str, Outcome] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, target in _BUILDS.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="linepool-bench-"))
            options = ["--workers", str(PROCESSES), "--graceful-timeout", "2"]
            serving = harness.serving(harness.TARGETS / target, *options, directory=Path(directory))
            servers[name] = stack.enter_context(serving)
        for name in list(_BUILDS)[:: -1 if number % 2 else 1]:
            server = servers[name]
            for one in servers.values():
                speed_meter.settle(one.pid, _SETTLE)
            job = speed_load.Job(case, SUM, server.port, server.pid, seconds)
            outcomes[name] = speed_load.measure(job)
            noted = sum(one["requests"] for one in server.status()["workers"])
            if outcomes[name].errors or bool(noted) != (name == "watched"):
                raise harness.BenchmarkError(
                    f"{name}, {case.title}: {outcomes[name].errors} requests or connections were"
                    f" lost, {noted} of {outcomes[name].requests} requests are on the board"
                )
    return Pair(**outcomes)


def _row(case: Case, pairs: Sequence[Pair]) -> list[str]:
    shares = [pair.share for pair in pairs]
    share = statistics.median(shares)
    return [
        case.title,
        f"{statistics.median(pair.watched.cpu_us for pair in pairs):.2f}",
        f"{statistics.median(pair.unwatched.cpu_us for pair in pairs):.2f}",
        f"{statistics.median(pair.saved_us for pair in pairs):.2f}",
        f"{share:.1%}",
        f"{min(shares):.1%} to {max(shares):.1%}",
        "yes" if share <= _GOAL else "no",
        f"{max(max(pair.watched.foreign, pair.unwatched.foreign) for pair in pairs):.2f}",
    ]


def _run() -> int:
    parser = harness.parser(__doc__)
    harness.ask_for_rounds(parser, 16, 1.0)
    options = parser.parse_args()
    load.build()
    pairs: dict[Case, list[Pair]] = {case: [] for case in _CASES}
    for number in range(options.rounds):
        for case in _CASES:
            pairs[case].append(_measure(number, case, options.seconds))
    print(
        f"CPU of the server for a request, us; {PROCESSES} workers; {options.rounds} rounds of"
        f" {options.seconds:g} s; {harness.machine()}\n"
    )
    headings = ["", "linepool", "unwatched", "difference", "share", "min to max"]
    headings += [f"<= {_GOAL:.0%}", "others, at most"]
    print(harness.table(headings, [_row(case, pairs[case]) for case in _CASES]))
    return 0


if __name__ == "__main__":
    harness.main(_run)
