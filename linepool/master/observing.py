"""Observing: the master queues what happens to the server, for the hooks of the app, and keeps an observer.

Runs in the master. Events are given to one observer after the other, in their order, and to each function
once: what an observer was running when it died is not run again. An observer is there if the app of the
generation in force has such hooks.
"""

from __future__ import annotations

import logging
import math
import selectors
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict

from linepool.events import ServerReady
from linepool.ipc.board import SlotSnapshot
from linepool.master import unfinished
from linepool.master.endings import end_of
from linepool.master.generation import Generation
from linepool.master.observer_handle import Call, ObserverHandle
from linepool.master.outcome import Outcome
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.scoreboard import WorkerState

log = logging.getLogger("linepool")

_MOST = 1000  # events that wait
_AT_ONCE = 1.0  # seconds for what is left, when the server stops at once
_SHORT_LIFE = 1.0  # seconds; an observer that dies sooner has a fault that the next may have too
_FIRST_PAUSE = 0.1  # seconds before the next one then ...
_LONGEST_PAUSE = 5.0  # ... twice as many each time, up to this


class Observing:
    """The events of a server, and its observer; what the master's loop watches.

    Args:
        generation: The one in force.
        selector: The master's.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock.
    """

    def __init__(self, generation: Generation, selector: selectors.BaseSelector) -> None:
        self.due_at = 0.0
        self._generation = generation
        self._selector = selector
        self._events: deque[tuple[str, dict[str, Any]]] = deque()
        self._number = 0  # of the function of the first event that is to run next
        self._lost = 0  # events
        self._observer: ObserverHandle | None = None
        self._leaving: list[ObserverHandle] = []
        self._start_at = 0.0
        self._pause = _FIRST_PAUSE
        self._longest_end = math.inf
        self._end_by = math.inf  # once nothing else is left of the server

    @property
    def pid(self) -> int | None:
        """The pid of the observer; None: there is none now."""
        process = self._observer.process if self._observer else None
        return process.pid if process else None

    @property
    def is_born(self) -> bool:
        """Whether no observer is being forked."""
        return self._observer is None or self._observer.process is not None

    @property
    def is_quiet(self) -> bool:
        """Whether ``handed_over`` would lose nothing."""
        observer, number = self._observer, self._generation.number
        is_of_now = observer is None or observer.generation.number == number
        return is_of_now and self.is_born and not self._leaving

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to go on, for JSON, and descriptors; they are kept."""
        observer: dict[str, Any] | None = None
        descriptors: list[int] = []
        if self._observer is not None and self._observer.process is not None:
            observer, descriptors = self._observer.handed_over()
        facts = {"events": list(self._events), "number": self._number, "lost": self._lost}
        return {**facts, "observer": observer}, descriptors

    def take_over(
        self,
        facts: Mapping[str, Any],
        descriptors: Sequence[int],
        generations: Mapping[int, Generation],
    ) -> None:
        """Go on with what another program has handed over.

        Raises:
            ValueError, OSError: As ``ObserverHandle.taken_over``.
        """
        self._events.extend((name, event) for name, event in facts["events"])
        self._number, self._lost = facts["number"], facts["lost"]
        if observer := facts["observer"]:
            generation = generations[observer["generation"]]
            self._observer = ObserverHandle.taken_over(
                observer, descriptors, generation, self._selector
            )

    def configure(self, generation: Generation) -> None:
        """Follow another generation; its observer takes the place of the present one."""
        self._generation = generation
        self._start_at, self._pause = 0.0, _FIRST_PAUSE
        self.due_at = 0.0

    def ready(self, workers: int, addresses: Sequence[str]) -> None:
        """Note that the first workers are up."""
        number = self._generation.number
        event = ServerReady(generation=number, workers=workers, addresses=tuple(addresses))
        self._note("when_ready", asdict(event))

    def reloaded(self, outcome: Outcome) -> None:
        """Note how a reload has ended."""
        self._note("on_reload", asdict(outcome))

    def worker_ended(
        self,
        worker: WorkerState,
        status: int,
        last: SlotSnapshot,
        handle: WorkerHandle,
        *,
        order: int,
        recycled: str,
    ) -> None:
        """Note that a worker has ended; see ``end_of``."""
        in_force = self._generation.number
        end = end_of(
            worker, status, last, handle, order=order, recycled=recycled, in_force=in_force
        )
        self._note("on_worker_end", asdict(end))
        unfinished.tell(self._generation, last, handle, end.command, end.pid)

    def stop(self, *, graceful: bool) -> None:
        """Note how the server is to stop."""
        if not graceful:
            self._longest_end = _AT_ONCE
            self._end_by = (
                min(self._end_by, time.monotonic() + _AT_ONCE) if self._is_ending else math.inf
            )

    def finish(self) -> bool:
        """Have the hooks run for the end of the server; return whether there is something to wait for.

        To be called again and again once nothing else is left of the server.
        """
        now = time.monotonic()
        if not self._is_ending:
            limit = self._generation.settings.observer_timeout
            self._end_by = now + min(limit, self._longest_end)
            self._note("on_stop", {})
            self.turn()
        if self._observer is None and not (self._is_wanted and now < self._end_by):
            self._lost += len(self._events)
            self._events.clear()
            self._tell_lost()
            return bool(self._leaving)
        return True

    def open(self, _selector: selectors.BaseSelector) -> None:
        """Do nothing: an observer is registered when it is ordered."""

    def turn(self) -> None:
        """Do what is due, and what has become possible."""
        now = time.monotonic()
        for one in self._all:
            if self._is_ending:
                one.end_by(self._end_by)
            one.turn(now)
        self._leaving = [one for one in self._leaving if not one.is_over]
        self._look_after(now)
        if self._observer is None and self._is_wanted and now >= self._start_at:
            self._start(now)
        if self._observer is not None and self._observer.is_free:
            self._run_next(self._observer)
        moments = [self._end_by, *(one.due_at for one in self._all)]
        if self._observer is None and self._is_wanted:
            moments.append(self._start_at)
        self.due_at = min(moments)

    def close(self) -> None:
        """End what is left, in the master."""
        for one in self._all:
            one.close()

    def abandon(self) -> None:
        """Close a new process's copies."""
        for one in self._all:
            one.abandon()

    @property
    def _all(self) -> list[ObserverHandle]:
        return [*self._leaving, *([self._observer] if self._observer else [])]

    @property
    def _is_ending(self) -> bool:
        return self._end_by < math.inf

    @property
    def _is_wanted(self) -> bool:
        """Whether there is to be an observer, and there can be one."""
        has_hooks = bool(self._generation.facts.observed) and self._generation.loader.is_open
        return has_hooks and (bool(self._events) or not self._is_ending)

    def _note(self, name: str, event: dict[str, Any]) -> None:
        """Queue an event, if there are hooks for it."""
        if name not in self._generation.facts.observed:
            return
        if len(self._events) < _MOST:
            self._events.append((name, event))
        else:
            self._lost += 1
        self.due_at = 0.0

    def _look_after(self, now: float) -> None:
        """Note that the observer has ended, or let it go if it is not needed any more."""
        observer = self._observer
        if observer is None:
            return
        if observer.is_over:
            self._observer = None
            self._note_death(observer, now)
        elif observer.is_free:
            is_old = observer.generation.number != self._generation.number
            if is_old or (self._is_ending and not self._events):
                observer.leave(self._generation.settings.observer_timeout)
                self._leaving.append(observer)
                self._observer = None

    def _note_death(self, observer: ObserverHandle, now: float) -> None:
        """Log how the observer has ended, and say when there is to be another one."""
        call = observer.running
        if not observer.is_killed:
            log.error(
                "observer died %s hook=%s function=%r",
                observer.how,
                call.name if call else "-",
                call.place if call else "-",
            )
        if now - observer.ordered_at >= _SHORT_LIFE:
            self._pause = _FIRST_PAUSE
        self._wait(now)

    def _start(self, now: float) -> None:
        """Have the loader of the generation in force fork an observer."""
        try:
            self._observer = ObserverHandle.order(self._generation, self._selector)
        except OSError as error:
            log.error("cannot fork the observer: %s", error.strerror or error)  # noqa: TRY400
            self._wait(now)

    def _wait(self, now: float) -> None:
        """Have the next observer wait, longer each time."""
        self._start_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _run_next(self, observer: ObserverHandle) -> None:
        """Have the observer run the next function that there is for an event."""
        while self._events:
            name, event = self._events[0]
            number, places = self._number, observer.generation.facts.observed.get(name, ())
            self._number += 1
            if self._number >= len(places):
                self._number = 0
                self._events.popleft()
                self._tell_lost()
            if number < len(places):
                call = Call(name, number, event, places[number])
                observer.run(call, self._generation.settings.observer_timeout)
                return

    def _tell_lost(self) -> None:
        """Log how many events there was no room or no observer for."""
        if self._lost:
            log.warning("events lost for hooks count=%d", self._lost)
            self._lost = 0
