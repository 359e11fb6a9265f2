"""Run schedules: ``./dev python -m tests.simulation --help``."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.faults import FAULTS
from tests.simulation.run import replay, search
from tests.simulation.world import KINDS


def main() -> int:
    """Run what the command line says; return the exit status."""
    parser = argparse.ArgumentParser("tests.simulation", description=__doc__)
    parser.add_argument("--world", "-w", choices=KINDS, default="all", help="its kind [all]")
    parser.add_argument("--seed", "-s", type=int, help="run this schedule only, and shrink it")
    parser.add_argument("--first", type=int, default=0, help="the first seed of many [0]")
    parser.add_argument("--count", "-n", type=int, default=1000, help="how many seeds [1000]")
    parser.add_argument("--verbose", "-v", action="store_true", help="print the trace")
    parser.add_argument("--fault", "-f", choices=FAULTS, help="put it back, in its world")
    options = parser.parse_args()
    fault = FAULTS.get(options.fault)
    world = fault.world if fault else options.world
    if options.seed is not None:
        print(replay(world, options.seed, verbose=options.verbose, fault=fault))
        return 0
    began = time.perf_counter()
    seeds = range(options.first, options.first + options.count)
    found = search(world, seeds, fault=fault)
    spent = time.perf_counter() - began
    print(f"{found.count} schedules of the world {world}: {found.count / spent:.0f}/s")
    for seed, failures in found.failed.items():
        print(f"seed {seed}: {failures[0]}")
    return bool(found.failed)


if __name__ == "__main__":
    sys.exit(main())
