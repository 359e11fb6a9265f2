"""Runs schedules of a world, and shows one that fails in its shortest form."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterable, Iterator

from attrs import define, field

from tests.simulation.choices import Choices, shrink
from tests.simulation.faults import FAULTS, Fault
from tests.simulation.installed import simulated_kernel
from tests.simulation.world import KINDS, World

_MOST_TRIES = 60
_COLLECT_EVERY = 5  # schedules: what is older is in no cache of the processor any more
_NUMBERS = re.compile(r"\d+")


@define
class Found:
    """What a search has found.

    Attributes:
        count: How many schedules were run.
        failed: What did not hold, by seed.
    """

    count: int = 0
    failed: dict[int, list[str]] = field(factory=dict)


@contextlib.contextmanager
def _running(fault: Fault | None = None) -> Iterator[None]:
    """Have schedules run fast, perhaps with a fault."""
    gc.collect()  # what real objects close when they are collected is closed in the real kernel
    with simulated_kernel(), fault.put_back() if fault else contextlib.nullcontext():
        gc.freeze()
        gc.disable()  # a schedule leaves many circles; they are looked for now and then
        try:
            yield
        finally:
            gc.enable()
            gc.unfreeze()


def search(name: str, seeds: Iterable[int], most: int = 5, fault: Fault | None = None) -> Found:
    """Run the schedules of seeds until some fail.

    Args:
        name: Of the world.
        seeds: Of the schedules.
        most: How many are to fail.
        fault: It is put back; None: none is.
    """
    found = Found()
    with _running(fault):
        for seed in seeds:
            found.count += 1
            if failures := World(KINDS[name], Choices(seed)).run():
                found.failed[seed] = failures
                if len(found.failed) >= most:
                    break
            if found.count % _COLLECT_EVERY == 0:
                gc.collect()
    return found


def replay(
    name: str,
    seed: int,
    *,
    verbose: bool = False,
    fault: Fault | None = None,
    tries: int = _MOST_TRIES,
) -> str:
    """Run one schedule; return what happens, and if it fails, that of its shortest form.

    Args:
        name: Of the world.
        seed: Of the schedule.
        verbose: Return what happens in its long form too.
        fault: It is put back; None: none is.
        tries: How many schedules to try for a shorter form.
    """
    lines: list[str] = []
    with _running(fault):
        choices = Choices(seed)
        failures = World(KINDS[name], choices, lines.append if verbose else None).run()
        if not failures:
            return "\n".join([*lines, f"seed {seed} of the world {name}: all is well"])
        before, after = choices.taken, shortest(name, choices.taken, failures[0], tries)
        shrunk: list[str] = []
        World(KINDS[name], Choices(recorded=after), shrunk.append).run()
    kept = f"{sum(map(bool, after))} of {sum(map(bool, before))} choices that are not plain"
    return "\n".join([*lines, f"seed {seed} of the world {name}, shortened: {kept}", *shrunk])


def shown_fault(name: str, most: int, tries: int) -> tuple[int, str]:
    """Put a fault back; return the first seed that finds it, -1 if none does, and a shorter form.

    Args:
        name: Of the fault.
        most: How many schedules to run.
        tries: How many schedules to try for a shorter form.
    """
    fault = FAULTS[name]
    found = search(fault.world, range(fault.seed, fault.seed + most), most=1, fault=fault)
    for seed in found.failed:
        return seed, replay(fault.world, seed, fault=fault, tries=tries)
    return -1, ""


def shortest(name: str, taken: list[int], failure: str, tries: int) -> list[int]:
    """Return simpler choices with which a schedule fails in the same way."""
    kind = _NUMBERS.sub("N", failure)

    def fails(recorded: list[int]) -> bool:
        failures = World(KINDS[name], Choices(recorded=recorded)).run()
        return bool(failures) and _NUMBERS.sub("N", failures[0]) == kind

    return shrink(taken, fails, tries)
