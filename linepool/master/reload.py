"""Reload: a new generation of workers takes the place of the old one, a few workers at a time.

Runs in the master. A new loader loads configuration and app; nothing of the old generation is touched before
one worker of the new one is ready. If that fails, the old generation stays. Afterwards the old loader is
kept for a while: if workers of the new generation die as soon as they are ready, the old one comes back.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from linepool.errors import SetupError
from linepool.ipc.board import Order
from linepool.master import changes
from linepool.master.generation import Generation
from linepool.master.outcome import Answer, Outcome
from linepool.master.reload_run import Phase, Run
from linepool.master.reloadable import Reloadable
from linepool.master.spawner import Spawner
from linepool.settings import MAX_WORKERS, Workers

log = logging.getLogger("linepool")

_LAST_CLIENT = 1.0  # seconds in which an idle worker leaves that was told to
_SETTLED_AFTER = 5.0  # seconds for which the old loader is kept
_MOST_DEATHS = 3  # of new workers, soon after they were ready
_MOST_GENERATIONS = 3  # that have workers or a loader, the new one included
_FIRST_RETRY = 1.0  # seconds after which a lost loader is replaced again if that fails ...
_LONGEST_RETRY = 30.0  # ... twice as many each time, up to this


class Reload:
    """The reloads of one server, one at a time.

    Args:
        server: The master.
        spawner: Gives a new loader what its workers share.
        on_end: Called with how each has ended.

    Attributes:
        count: How many were asked for.
        last_failure: Why the last one failed; "": it did not.
        latest: The loader that was started last.
        due_at: When to call ``turn``, on the monotonic clock.
    """

    def __init__(self, server: Reloadable, spawner: Spawner, on_end: Answer) -> None:
        self.count = 0
        self.last_failure = ""
        self.latest = server.generation.loader
        self.due_at = math.inf
        self._server = server
        self._spawner = spawner
        self._on_end = on_end
        self._phase = Phase.IDLE
        self._run: Run | None = None
        self._again: list[Answer] | None = None  # of those that want another one after this one
        self._settles_at = math.inf  # until then the old generation can come back
        self._hang_ups: dict[int, float] = {}  # when old workers end connections, by generation
        self._retry_at = 0.0  # when a lost loader is to be replaced
        self._pause = _FIRST_RETRY
        self._changed: set[str] = set()  # files to be named when their reload ends
        self._next_number = server.generation.number + 1

    @property
    def is_running(self) -> bool:
        """Whether one is under way."""
        return self._phase is not Phase.IDLE

    @property
    def is_possible(self) -> bool:
        """Whether one would begin at once."""
        return self._has_room and not (self.is_running or self._again is not None)

    @property
    def _has_room(self) -> bool:
        """Whether there may be one generation more: one without a loader takes no room beside its workers."""
        return len(self._server.generations) < _MOST_GENERATIONS or self._is_loader_lost

    def as_json(self) -> dict[str, Any]:
        """Return what another program needs to go on with."""
        return {"next_number": self._next_number, "hang_ups": list(self._hang_ups.items())}

    def load(self, facts: Mapping[str, Any]) -> None:
        """Go on with what another program has known: the numbers grow, and old workers leave in time."""
        self._next_number = facts["next_number"]
        self._hang_ups = dict(facts["hang_ups"])
        self.due_at = 0.0

    def begin(self, answer: Answer | None = None) -> None:
        """Begin a reload, or note that another one is wanted after the present one.

        Args:
            answer: Called with how it ended.
        """
        self._begin([answer] if answer else [])

    def _begin(self, answers: list[Answer]) -> None:
        self.count += 1
        if not self.is_running:
            self._forget_old()
            self._close_unused()
        if self._server.stopping:
            self._end(answers, time.monotonic(), "the server is stopping")
        elif self.is_running or not self._has_room:
            self._again = [*(self._again or []), *answers]
        else:
            self._start(answers)

    def begin_changed(self, files: Iterable[str]) -> None:
        """Reload because files have changed: as soon as possible, for a developer waits for it.

        A load that is under way begins anew: it may have read some files before and some after the change.
        If requests are stuck in workers of two older generations, those of the oldest are killed.
        """
        self._changed.update(files)
        answers: list[Answer] = []
        if self._run is not None and self._phase in (Phase.LOADING, Phase.TRYING):
            answers = self._run.answers
            self._changed |= self._run.changed
            if self._run.new is None:
                self._run.loader.process.kill()  # it may take long, and has touched nothing
            self._undo(self._run)
        self._begin(answers)
        if self._again is not None and not self.is_running:
            self._kill_oldest()

    def _kill_oldest(self) -> None:
        """Kill the workers of the oldest generation, so that there is room for another one."""
        server = self._server
        old = {one.number for one in server.generations} - {server.generation.number}
        for slot, worker in server.pool.workers.items():
            if worker.generation.number == min(old) and not worker.is_killed:
                server.pool.kill(slot, "was in a worker of old code")

    @property
    def _is_loader_lost(self) -> bool:
        """Whether the generation in force has none: without one, no worker can be replaced."""
        server = self._server
        is_needed = not (server.stopping or server.is_drained or self.is_running)
        return is_needed and not server.generation.loader.is_open

    def turn(self) -> None:
        """Do what is due, and what has become possible."""
        now = time.monotonic()
        if self._run is not None:
            self._go_on(self._run, now)
        self._hang_up(now)
        self._close_unused()
        if self._is_loader_lost and now >= self._retry_at and self._again is None:
            self.count += 1
            self._again = []
        if self._again is not None and not self.is_running and self._has_room:
            answers, self._again = self._again, None
            if not self._server.stopping:
                self._start(answers)
            else:
                self._end(answers, now, "the server is stopping")
        retry_at = self._retry_at if self._is_loader_lost else math.inf
        finish_by = self._finish_by(self._run) if self.is_running else math.inf
        hang_up_at = min(self._hang_ups.values(), default=math.inf)
        self.due_at = min(self._load_by(), finish_by, self._settles_at, hang_up_at, retry_at)

    def scaled(self, workers: Workers) -> None:
        """Follow other bounds of the pool, with which the master has replaced its generations."""
        if (run := self._run) is not None:
            run.old = run.old.with_workers(workers)
            run.new = run.new.with_workers(workers) if run.new is not None else None
            run.size = min(max(run.size, workers.min), workers.max)

    def stop(self) -> None:
        """Give up what is under way: the server stops."""
        if self._run is not None and self.is_running:
            self._fail(self._run, "the server is stopping")

    def _start(self, answers: list[Answer]) -> None:
        self._forget_old()
        server, now = self._server, time.monotonic()
        log.log(self._level, "reloading generation=%d", server.generation.number)
        try:
            loader = server.start_loader()
        except OSError as error:
            self._end(answers, now, f"cannot start a loader: {error.strerror or error}")
            return
        self.latest = loader
        old = server.generation
        changed, self._changed = self._changed, set()
        self._run = Run(now, answers, loader, old, list(server.listeners), changed)
        self._phase = Phase.LOADING
        self.due_at = self._load_by()

    def _load_by(self) -> float:
        if self._run is None or self._phase is not Phase.LOADING:
            return math.inf
        return self._run.began_at + self._run.old.settings.load_timeout

    def _go_on(self, run: Run, now: float) -> None:
        """Take the next steps of a reload."""
        if self._phase is Phase.LOADING:
            if run.loader.failure is not None:
                self._fail(run, str(run.loader.failure))
            elif run.loader.facts is not None:
                self._try(run)
            elif now >= self._load_by():
                run.loader.give_up(run.old.settings.load_timeout)
                self._fail(run, str(run.loader.failure))
        if self._phase is Phase.TRYING:
            self._look_at_first(run)
        if self._phase is Phase.ROLLING:
            self._roll(run)
        if run.new is not None and run is self._run:
            self._look_for_deaths(run, now)

    def _try(self, run: Run) -> None:
        """Have the new loader fork one worker."""
        server, facts, configured = self._server, run.loader.facts, run.loader.settings
        assert facts is not None
        assert configured is not None
        try:
            settings = changes.effective(configured, facts, run.old)
            run.listeners = changes.listeners(settings, server.generation.settings, run.before)
            generation = Generation(self._next_number, facts, settings, run.loader)
            self._next_number += 1
            leaving = [one for one in run.before if one not in run.listeners]
            own = changes.with_leaving(settings, run.old.settings)
            self._spawner.start(generation, [*run.listeners, *leaving], own)
        except SetupError as error:
            self._fail(run, f"reload refused: {error}")
            return
        except OSError as error:
            self._fail(run, f"cannot hand over to the loader: {error.strerror or error}")
            return
        run.new = generation
        server.generations.append(generation)
        workers = settings.workers
        run.size = min(max(server.pool.staying, workers.min), workers.max)
        self._phase = Phase.TRYING
        if not server.pool.spawn(generation):
            self._fail(run, "cannot fork the first worker")

    def _look_at_first(self, run: Run) -> None:
        """Go on if the first worker of the new generation is ready, give up if it is not there."""
        assert run.new is not None
        workers = self._server.pool.of(run.new.number)
        if not workers:
            self._fail(
                run, "the first worker of the new generation did not become ready; see the log"
            )
        elif any(worker.state is not None for worker in workers):
            self._server.switch_to(run.new, run.listeners)
            self._phase = Phase.ROLLING
            at = time.monotonic() + run.old.settings.graceful_timeout
            for one in self._server.generations:
                if one.number != run.new.number:
                    self._hang_ups.setdefault(one.number, at)

    def _roll(self, run: Run) -> None:
        """Replace the workers of other generations by those of the one in force, some at a time."""
        pool, current = self._server.pool, self._server.generation
        new = pool.of(current.number)
        ready = [worker for worker in new if worker.state is not None]
        if len(ready) < run.size and not current.loader.is_open:
            self._break_off(run)
            return
        old = pool.staying - len(new)
        pool.retire(old - max(0, run.size - len(ready)), but=current.number)
        if len(ready) >= run.size:
            run.told_at = run.told_at or time.monotonic()
            if not pool.idle_besides(current.number) or time.monotonic() >= self._finish_by(run):
                self._finish(run)
            return
        batch = max(1, math.ceil(current.settings.reload_batch * run.size))
        for _ in range(min(run.size - len(new), batch - (len(new) - len(ready)))):
            if not pool.spawn(current):
                break

    def _break_off(self, run: Run) -> None:
        """End a reload that cannot go on, because no process forks workers; ``turn`` begins another one.

        Until that one is ready, no old worker need leave: it could not be replaced.
        """
        self._phase = Phase.IDLE
        self._hang_ups.clear()
        self._forget_old()
        self._end(run.answers, run.began_at, run.failure or "the loader has ended", run.changed)

    def _finish_by(self, run: Run | None) -> float:
        """Return when not to wait any more for idle workers that leave: one may take a last new client."""
        return run.told_at + _LAST_CLIENT if run is not None and run.told_at else math.inf

    def _finish(self, run: Run) -> None:
        """Note that all workers of the old generation have been told to leave."""
        now = time.monotonic()
        self._phase = Phase.IDLE
        self._pause = _FIRST_RETRY
        self._settles_at = math.inf if run.failure else now + _SETTLED_AFTER
        self._end(run.answers, run.began_at, run.failure, run.changed)
        if run.failure:
            self._run = None

    def _look_for_deaths(self, run: Run, now: float) -> None:
        """Have the old generation back if workers of the new one die; forget it after a while."""
        assert run.new is not None
        if run.failure or self._phase is Phase.TRYING:
            return
        if self._server.pool.early_deaths.get(run.new.number, 0) >= _MOST_DEATHS:
            run.failure = f"workers of the new generation die; generation {run.old.number} is back"
            log.error("reload rolled back why=%r", run.failure)
            self.last_failure = run.failure
            self._server.switch_to(run.old, run.before)
            self._hang_ups = {run.new.number: now + run.new.settings.graceful_timeout}
            self._settles_at = math.inf
            self._phase = Phase.ROLLING
        elif now >= self._settles_at:
            self._forget_old()

    def _forget_old(self) -> None:
        """Do without what the old generation could come back from."""
        self._run = None
        self._settles_at = math.inf

    def _fail(self, run: Run, why: str) -> None:
        """Stay with the old generation."""
        self._undo(run)
        self._end(run.answers, run.began_at, why, run.changed)

    def _undo(self, run: Run) -> None:
        """Give up what has been begun."""
        server = self._server
        for listener in run.listeners:
            if listener not in run.before:
                listener.remove()
        if run.new is None:
            run.loader.release()
        else:
            server.pool.retire(MAX_WORKERS, but=run.old.number)
            if server.generation.number == run.new.number:
                server.switch_to(run.old, run.before)
        self._phase = Phase.IDLE
        self._forget_old()

    @property
    def _level(self) -> int:
        """The level of what need not be read during development."""
        return logging.DEBUG if self._server.generation.settings.reload else logging.INFO

    def _end(
        self, answers: list[Answer], began_at: float, failure: str, changed: Collection[str] = ()
    ) -> None:
        """Log how a reload has ended, and answer those that wait for it."""
        self.last_failure, server = failure, self._server
        number = server.generation.number
        workers, seconds = len(server.pool.of(number)), time.monotonic() - began_at
        outcome = Outcome(number, workers, seconds, failure)
        outcome.log(changed)
        self._on_end(outcome)
        if failure:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_RETRY)
        while answers:  # each is answered once, though a generation may come back later
            answers.pop(0)(outcome)

    def _hang_up(self, now: float) -> None:
        """Have old workers end connections that keep them, and be killed if they do not."""
        current, pool = self._server.generation, self._server.pool
        for number in [number for number, at in self._hang_ups.items() if now >= at]:
            del self._hang_ups[number]
            for slot, worker in pool.workers.items():
                if worker.generation.number == number != current.number:
                    pool.order(slot, Order.RETIRE)
                    patience = worker.generation.settings.graceful_timeout
                    worker.kill_by(now + patience, "did not leave in time")

    def _close_unused(self) -> None:
        """Close the loaders of generations that have no workers any more, and cannot come back."""
        server, run = self._server, self._run
        kept = {server.generation.number}
        if run is not None:
            kept |= {run.old.number, run.new.number if run.new else 0}
        for generation in list(server.generations):
            is_used = server.pool.has_workers_of(generation.number) or generation.loader.is_asked
            if generation.number not in kept and not is_used:
                server.generations.remove(generation)
                generation.loader.release()
                log.log(self._level, "generation has ended number=%d", generation.number)
