"""Many schedules of a world, on all processors: each process has seeds of its own."""

from __future__ import annotations

import itertools
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from tests.simulation.run import Found, search

_AT_ONCE = 500  # schedules of one task of a process: it begins with half a second of preparation


def search_many(name: str, first: int, most: int, ends: float) -> Found:
    """Run schedules until one fails, or there were enough, or time is up.

    Args:
        name: Of the world.
        first: The first seed.
        most: How many schedules to run, at most.
        ends: When time is up, on the monotonic clock.
    """
    found, processors = Found(), os.cpu_count() or 1
    seeds = itertools.count(first, _AT_ONCE)
    with ProcessPoolExecutor(processors, get_context("spawn")) as pool:
        tasks: set[Future[Found]] = set()
        ordered = 0
        while True:
            while len(tasks) < processors and ordered < most and time.monotonic() < ends:
                if found.failed:
                    break
                begin, count = next(seeds), min(_AT_ONCE, most - ordered)
                tasks.add(pool.submit(search, name, range(begin, begin + count), 1))
                ordered += count
            if not tasks:
                return found
            done, tasks = wait(tasks, return_when=FIRST_COMPLETED)
            for task in done:
                one = task.result()
                found.count += one.count
                found.failed.update(one.failed)
