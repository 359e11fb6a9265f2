"""What of a server goes over to another program that takes its place under the same pid (execve(2)).

Runs in the master: the one that hands over, and the one that takes over. The state is JSON, because
another version of linepool or of Python reads it; it names descriptors by their numbers, which an exec
keeps. Whatever is not in it is made anew: the selectors, the pipe of the signals, what was measured.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any
from typing import Protocol as Interface

from attrs import asdict, fields

from linepool.errors import SetupError
from linepool.facts import AppFacts
from linepool.ipc.board import Board, MasterView, layout_hash
from linepool.kernel.listeners import Listener
from linepool.kernel.program import Program
from linepool.kernel.rlimit import open_files, open_files_limit
from linepool.kernel.sealed_file import sealed_size
from linepool.kernel.way_back import VARIABLE
from linepool.master.counters import Counters
from linepool.master.generation import Generation
from linepool.master.loader_handle import LoaderHandle
from linepool.master.orphans import Orphans
from linepool.master.parts import Parts
from linepool.master.planned_drain import PlannedDrain
from linepool.master.reload import Reload
from linepool.master.spawner import Part
from linepool.master.trace import TraceWriter
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.scoreboard import WorkerState
from linepool.settings import as_texts, from_texts, known_texts
from linepool.version import __version__

FORMAT = 1
"""Of the state. Another number says that this program cannot read it, or does not understand what loaders,
parker and workers of the other one say. Unknown keys are ignored, so a new one needs no new number."""

_SPARE = 64  # descriptors for what is made anew
_UNPROTECTED = "pid_file"  # to close any descriptor of this file would release its lock (fcntl(2))


class Server(Interface):
    """The master, as far as it is handed over; see there."""

    generation: Generation
    generations: list[Generation]
    listeners: list[Listener]
    board: MasterView
    started_at: float
    is_drained: bool
    planned_drain: PlannedDrain
    was_ready: bool
    reload: Reload
    orphans: Orphans


def takeover_facts(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a program is told that is to take over, or to try that; None: it is to do neither."""
    with contextlib.suppress(ValueError):
        facts = json.loads(environment.get(VARIABLE, ""))
        if isinstance(facts, dict):
            here = os.getppid() if facts.get("dry") else os.getpid()
            return facts if facts.get("master") == here else None
    return None


def state_of(
    server: Server,
    parts: Parts,
    others: Mapping[str, Part],
    programs: Mapping[str, Program],
) -> dict[str, Any]:
    """Return the state of a server.

    Args:
        server: The master.
        parts: Those of the master.
        others: What the operator's side hands over, by name: facts and descriptors.
        programs: The one that the server was started as, and what its names led to then.
    """
    pieces: dict[str, Part] = {
        **others,
        "board": server.board.page.handed_over(),
        "figures": parts.figures.handed_over(),
        "stack_files": parts.spawner.stack_files.handed_over(),
    }
    for number, listener in enumerate(server.listeners):
        pieces[f"listener {number}"] = listener.handed_over()
    for generation in server.generations:
        pieces[f"loader {generation.number}"] = generation.loader.handed_over()
    for slot, worker in parts.workers.items():
        pieces[f"worker {slot}"] = worker.handed_over()
    pieces["observing"] = parts.observing.handed_over()
    if parts.parker is not None:
        pieces["parker"] = parts.parker.handed_over()
    if bus := parts.spawner.bus_handed_over():
        pieces["bus"] = bus
    if parts.trace is not None:
        pieces["trace"] = parts.trace.handed_over()
    pool = parts.pool
    return {
        "format": FORMAT,
        "version": __version__,
        "layout": layout_hash(),
        "at": time.monotonic(),
        "signal_mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "programs": {name: program.as_json() for name, program in programs.items()},
        "generation": server.generation.number,
        "generations": {one.number: as_texts(one.settings) for one in server.generations},
        "listeners": len(server.listeners),
        "slots": server.board.used,
        "workers": [
            {**parts.scoreboard.workers[slot].as_json(), "span": parts.recycler.span(slot)}
            for slot in parts.workers
        ],
        "counters": asdict(pool.counters),
        "early_deaths": pool.early_deaths,
        "brake": pool.brake.as_json(),
        "saturated_s": parts.load.saturated_s,
        "stalls": parts.watchdog.stalls.periods,
        "reload": server.reload.as_json(),
        "started_at": server.started_at,
        "is_drained": server.is_drained,
        "drain_at": server.planned_drain.due_at if server.planned_drain else None,
        "children_of_the_app": sorted(server.orphans.of_the_app),
        "pieces": pieces,
    }


def descriptors_in(state: Mapping[str, Any]) -> Iterator[int]:
    """Yield all descriptors that a state names."""
    for _, descriptors in state["pieces"].values():
        yield from descriptors


def check(state: Mapping[str, Any]) -> None:
    """Raise SetupError if this program cannot take over a state; touch no descriptor."""
    theirs = state.get("version")
    if state.get("format") != FORMAT:
        raise SetupError(
            f"linepool {__version__} does not read the state of linepool {theirs}: restart the server"
        )
    if state["layout"] != layout_hash():
        raise SetupError(
            f"linepool {__version__} shares memory with workers in another way than linepool {theirs}:"
            " restart the server"
        )
    for number, texts in state["generations"].items():
        facts = state["pieces"][f"loader {number}"][0]
        AppFacts.from_json(facts["facts"])
        from_texts(known_texts(facts["settings"]))
        from_texts(known_texts(texts))


class Inherited:
    """The state that this program has inherited, and what is made of it.

    Until ``settle``, each descriptor has a copy, so that ``restore`` can put all of them back as they were:
    to build something may close them.

    Args:
        descriptor: Of the sealed file with the state.

    Attributes:
        state: All of it. ``check`` it before use.

    Raises:
        OSError, ValueError, KeyError, TypeError: It cannot be read.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._copies: dict[int, int] = {}
        self.state = read(descriptor)
        os.set_inheritable(descriptor, False)
        for number in descriptors_in(self.state):
            os.set_inheritable(number, False)

    def protect(self) -> None:
        """Make the copies, unless there are too few descriptors left; then what is built must not fail."""
        _, unprotected = self.state["pieces"].get(_UNPROTECTED, ({}, []))
        numbers = [one for one in descriptors_in(self.state) if one not in unprotected]
        if open_files() + len(numbers) + _SPARE <= open_files_limit():
            for number in numbers:
                self._copies[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0)

    def restore(self) -> int:
        """Put all descriptors back, for another program to inherit them; return that of the state."""
        for number, copy in self._copies.items():
            os.dup2(copy, number)
        for number in (*descriptors_in(self.state), self._descriptor):
            with contextlib.suppress(OSError):
                os.set_inheritable(number, True)
        return self._descriptor

    def settle(self) -> None:
        """Close the copies and the state: all of it has been taken over."""
        for number in (*self._copies.values(), self._descriptor):
            os.close(number)
        self._copies.clear()

    def piece(self, name: str) -> Part | None:
        """Return what was handed over under a name; None: nothing."""
        if name not in self.state["pieces"]:
            return None
        facts, descriptors = self.state["pieces"][name]
        return facts, descriptors

    def program(self, name: str) -> Program:
        """Return a program by its name in the state."""
        return Program.from_json(self.state["programs"][name])

    def generations(self) -> list[Generation]:
        """Return the generations with their loaders; the last one is in force."""
        current, pieces = str(self.state["generation"]), self.state["pieces"]
        texts = self.state["generations"]
        found = []
        for number in sorted(texts, key=lambda number: (number == current, int(number))):
            loader = LoaderHandle.taken_over(*pieces[f"loader {number}"])
            assert loader.facts is not None
            settings = from_texts(known_texts(texts[number]))
            found.append(Generation(int(number), loader.facts, settings, loader))
        return found

    def listeners(self) -> list[Listener]:
        """Return the listeners, in their order."""
        pieces = self.state["pieces"]
        return [
            Listener.taken_over(*pieces[f"listener {number}"])
            for number in range(self.state["listeners"])
        ]

    def board(self) -> MasterView:
        """Return the board."""
        return MasterView(Board.taken_over(*self.state["pieces"]["board"]), self.state["slots"])

    def trace(self) -> TraceWriter | None:
        """Return the trace that is written, if one is."""
        piece = self.piece("trace")
        return TraceWriter.taken_over(*piece) if piece else None

    def install(self, server: Server, parts: Parts) -> None:
        """Fill a new master and its parts; nothing is sent to any process.

        Raises:
            ValueError: A process is not a child of this one.
            OSError: A descriptor is of something else.
        """
        state, pool = self.state, parts.pool
        parts.spawner.stack_files.take_over(*state["pieces"]["stack_files"])
        parts.figures.take_over(*state["pieces"]["figures"])
        if bus := self.piece("bus"):
            parts.spawner.take_over_bus(bus)
        by_number = {generation.number: generation for generation in server.generations}
        for facts in state["workers"]:
            self._install_worker(parts, facts, by_number)
        if parker := self.piece("parker"):
            assert parts.parker is not None
            parts.parker.take_over(*parker)
        if observing := self.piece("observing"):  # older versions have none
            parts.observing.take_over(*observing, by_number)
        known = {field.name for field in fields(Counters)}
        pool.counters = Counters(**{k: v for k, v in state["counters"].items() if k in known})
        pool.early_deaths.update({int(k): v for k, v in state["early_deaths"].items()})
        pool.brake.load(state["brake"])
        server.reload.load(state["reload"])
        server.started_at, server.is_drained = state["started_at"], state["is_drained"]
        server.planned_drain.due_at = state.get("drain_at") or math.inf  # older versions have none
        server.was_ready = True  # or it would not have handed over
        server.orphans.of_the_app = set(state["children_of_the_app"])
        now_ns = time.monotonic_ns()
        parts.load.resume(parts.scoreboard, state["saturated_s"], now_ns)
        parts.withheld.resume(now_ns)
        for begin_ns, end_ns in state["stalls"]:
            parts.watchdog.stalls.absent(begin_ns, end_ns)
        parts.watchdog.stalls.absent(int(state["at"] * 1e9), now_ns)
        pool.look_for_stopped(server.generation.loader)

    def _install_worker(
        self, parts: Parts, facts: Mapping[str, Any], generations: Mapping[int, Generation]
    ) -> None:
        worker = WorkerState.from_json(facts)
        slot = worker.slot
        parts.scoreboard.workers[slot] = worker
        parts.recycler.load_span(slot, facts["span"])
        piece, descriptors = self.state["pieces"][f"worker {slot}"]
        stack_file = parts.spawner.stack_files.known(slot)
        generation = generations[worker.generation]
        handle = WorkerHandle.taken_over(piece, descriptors, generation, stack_file)
        parts.workers[slot] = handle
        parts.selector.register(handle.process.pidfd, selectors.EVENT_READ, slot)
        parts.reader.add(slot, handle)


def read(descriptor: int) -> dict[str, Any]:
    """Return the state in a sealed file.

    Raises:
        OSError, ValueError, TypeError: The file holds no state.
    """
    state = json.loads(os.pread(descriptor, sealed_size(descriptor), 0))
    if not isinstance(state, dict):
        raise TypeError("the state is not an object")
    return state
