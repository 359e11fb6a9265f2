"""The pool's acts: spawn, order, reap and account for workers. The master's loop decides when.

Runs in the master.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import time

from attrs import Factory, define

from linepool.ipc.board import MasterView, Order, SlotSnapshot
from linepool.kernel import features
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.shortage import EXIT_STATUS
from linepool.master.counters import Counters
from linepool.master.deaths import tell_death
from linepool.master.generation import Generation
from linepool.master.incidents import CANNOT_FORK, Incidents
from linepool.master.load import LoadMeter
from linepool.master.loader_handle import LoaderHandle
from linepool.master.lost_requests import LostRequests
from linepool.master.observing import Observing
from linepool.master.parker_handle import ParkerHandle
from linepool.master.recycler import Recycler
from linepool.master.spawner import Spawner
from linepool.master.status_reader import StatusReader
from linepool.master.stopped import StoppedChildren
from linepool.master.watchdog import WAS_NOT_READY, Watchdog
from linepool.master.worker_handle import Ends, WorkerHandle
from linepool.pool import policy
from linepool.pool.brake import Brake
from linepool.pool.deadline import DUMP_NS
from linepool.pool.scoreboard import Scoreboard, WorkerState
from linepool.pool.status import State
from linepool.settings import MAX_WORKERS, Settings

log = logging.getLogger("linepool")

_EARLY = 5.0  # seconds after which the death of a worker says nothing of its start
_MALFORMED_AT_MOST = 3  # records that are not the worker's own, before it is killed
_STOPPED = "did not end before the server stopped"


@define(eq=False, kw_only=True)
class Pool:
    """The workers, and what the master does with them.

    Attributes are read by the master and by what reports on the pool; only the methods change them.

    Attributes:
        workers: Those that are alive, by slot.
        births: Those that have been ordered and are not there yet, by slot.
        early_deaths: How many workers have died soon after their start, by the number of the generation.
        brake: Refuses commands that workers died of.
        retry_at: When another fork is to be tried after one has failed, on the monotonic clock.
    """

    board: MasterView
    scoreboard: Scoreboard
    workers: dict[int, WorkerHandle]
    counters: Counters = Factory(Counters)
    retry_at: float = 0.0
    births: dict[int, Ends] = Factory(dict)
    early_deaths: dict[int, int] = Factory(dict)
    _kill_at: float = 0.0
    _loader: LoaderHandle | None = None  # the one that may be stopped
    _selector: selectors.BaseSelector
    _spawner: Spawner
    _reader: StatusReader
    _load: LoadMeter
    _recycler: Recycler
    _lost: LostRequests
    _watchdog: Watchdog
    _parker: ParkerHandle | None
    _stopped: StoppedChildren
    _observing: Observing
    _incidents: Incidents
    brake: Brake

    @property
    def dropped_by_parker(self) -> int:
        """How many connections ended with a parker, or because a worker had passed it nonsense."""
        died = self._parker.dropped if self._parker else 0
        return died + self.board.dropped_by_parker

    def configure(self, settings: Settings) -> None:
        """Follow other settings from now on."""
        self.brake.configure(settings.poison_deaths, settings.poison_window, settings.poison_pause)
        self._stopped.configure(settings.stopped_timeout)

    def spawn(self, generation: Generation) -> bool:
        """Order one worker from the generation's loader; return whether that succeeded."""
        slot = self.scoreboard.free_slot(MAX_WORKERS)
        now_ns = time.monotonic_ns()
        try:
            self.births[slot] = self._spawner.order(slot, generation, self._recycler.spawned(slot))
        except OSError as error:
            self._fork_failed(generation, error.strerror or str(error))
            return False
        self.scoreboard.spawned(slot, 0, generation.number, now_ns)
        self._load.history.spawned(generation.settings, now_ns)
        return True

    def _fork_failed(self, generation: Generation, why: str) -> None:
        """Note that there is no process, or no descriptor, for another worker."""
        log.error("cannot fork: %s", why)
        self._incidents.note(CANNOT_FORK, generation=generation.number, why=why)
        history = self._load.history
        history.boot_failed(time.monotonic_ns(), shortage=True)
        backoff = generation.settings.respawn_backoff
        pause = policy.boot_delay(history.boot_failures, backoff, shortage=True)
        self.retry_at = time.monotonic() + pause  # nothing else would cause another try

    def born(self, slot: int, pid: int, pidfd: int) -> None:
        """Note that an ordered worker is there; its pidfd is taken over."""
        ends = self.births.pop(slot, None)
        if ends is None:
            os.close(pidfd)
            raise ValueError(f"no worker was ordered in slot {slot}")
        self.workers[slot] = worker = WorkerHandle(ChildProcess(pid, pidfd), ends)
        if self._kill_at:
            worker.kill_by(self._kill_at, _STOPPED)
        self._selector.register(pidfd, selectors.EVENT_READ, slot)
        self._reader.add(slot, worker)
        if self._parker is not None:
            self._parker.worker_started(slot)
        self.scoreboard.born(slot, pid, time.monotonic_ns())
        if self.scoreboard.workers[slot].retiring:
            worker.wake()  # it was ordered to leave before it was there
        self.counters.spawned += 1
        log.debug("worker spawned pid=%d slot=%d", pid, slot)

    def not_born(self, slot: int, why: str) -> None:
        """Note that an ordered worker does not come."""
        ends = self.births.pop(slot)
        ends.close()
        self.scoreboard.reaped(slot)
        self._spawner.reaped(slot)
        self._load.history.worker_changed(slot, None, time.monotonic_ns())
        self._fork_failed(ends.generation, why)

    def loader_ended(self, loader: LoaderHandle) -> None:
        """Give up the workers that were ordered from a loader that has ended."""
        if loader.facts is not None:
            log.error("loader died why=%r", loader.end)
        for slot, ends in list(self.births.items()):
            if ends.generation.loader is loader:
                self.not_born(slot, "the loader has ended")

    @property
    def staying(self) -> int:
        """How many workers are not leaving."""
        return self.scoreboard.tally().staying

    def of(self, generation: int) -> list[WorkerState]:
        """Return the workers of a generation that are not leaving."""
        workers = self.scoreboard.workers.values()
        return [one for one in workers if one.generation == generation and not one.leaving]

    def idle_besides(self, generation: int) -> bool:
        """Whether a worker of another generation is idle."""
        workers = self.scoreboard.workers.values()
        return any(
            one.generation != generation and one.state in (State.READY, State.IDLE)
            for one in workers
        )

    def has_workers_of(self, generation: int) -> bool:
        """Whether there are workers of a generation, or will be."""
        return any(one.generation == generation for one in self.scoreboard.workers.values())

    def retire(self, count: int, *, but: int = 0) -> None:
        """Order workers to leave: idle ones first, of these the one that the kernel wakes next.

        Where connections cannot be handed off, a busy one leaves when its client does.

        Args:
            count: How many; none if it is negative.
            but: The number of a generation whose workers stay.
        """
        order = Order.RETIRE if self._parker is not None else Order.RECYCLE
        workers = self.scoreboard.workers.values()
        staying = [one for one in workers if not one.leaving and one.generation != but]
        staying.sort(key=lambda worker: (worker.state is State.TAKEN, worker.since_ns))
        for worker in staying[: max(0, count)]:
            self.order(worker.slot, order)
            self.counters.retired += 1
            level = logging.DEBUG if but else logging.INFO  # a reload says itself how it ends
            log.log(level, "worker retired pid=%d requests=%d", worker.pid, worker.requests)

    def recycle(self) -> None:
        """Order workers that are too old or too large to leave."""
        for slot, order in self._recycler.turn(self.scoreboard.workers.values()):
            self.order(slot, order)
            if order is Order.RECYCLE:
                self.counters.recycled += 1
                log.info("worker recycled pid=%d", self.scoreboard.workers[slot].pid)

    def order(self, slot: int, order: Order) -> None:
        """Give a worker an order, and wake it."""
        self.board.slot(slot).command(order)
        self.scoreboard.mark_retiring(slot)
        self._load.history.worker_changed(slot, None, time.monotonic_ns())
        if slot in self.workers:
            self.workers[slot].wake()

    def stop(self, kill_at: float) -> None:
        """Order all workers to leave, and have those killed that do not by then."""
        self._kill_at = kill_at
        for worker in self.workers.values():
            worker.kill_by(kill_at, _STOPPED)
        for slot in (*self.workers, *self.births):
            self.order(slot, Order.STOP)

    def drain(self, kill_at: float) -> None:
        """Order all workers to leave, and have those killed that have not by then."""
        for worker in self.workers.values():
            worker.kill_by(kill_at, "did not end before the pool was drained")
        for slot in (*self.workers, *self.births):
            self.order(slot, Order.RETIRE)

    def kill(self, slot: int, why: str) -> None:
        """Have a worker killed once its stack has been written; ``why``: the request in it "..."."""
        self.workers[slot].kill_by(time.monotonic() + DUMP_NS / 1e9, why)

    def boot_by(self, slot: int, generation: Generation) -> float:
        """Return when a worker must be ready, on the monotonic clock."""
        spawned_ns = self.scoreboard.workers[slot].spawned_ns
        return spawned_ns / 1e9 + generation.settings.spawn_timeout

    def _fork_by(self, slot: int, generation: Generation) -> float:
        """Return when a loader must have forked a worker, or others that were ordered before."""
        idle_at = generation.loader.heard_at + generation.settings.spawn_timeout
        return max(self.boot_by(slot, generation), idle_at)

    @property
    def due_at(self) -> float:
        """When ``judge`` is due next, on the monotonic clock, requests left out."""
        booting = [
            self.boot_by(slot, worker.generation)
            for slot, worker in self.workers.items()
            if self.scoreboard.workers[slot].state is None and not worker.kill_at
        ]
        booting += [self._fork_by(slot, ends.generation) for slot, ends in self.births.items()]
        return min(self.brake.due_at, self._stopped.due_at, min(booting, default=math.inf))

    def look_for_stopped(self, loader: LoaderHandle) -> None:
        """Note which processes are stopped, because a child of the master has stopped or continued.

        ``loader``: that of the generation in force; one that still loads has a limit for that.
        """
        children = [worker.process for worker in self.workers.values() if not worker.is_killed]
        self._loader = loader
        if loader.is_open:
            children.append(loader.process)
        if self._parker is not None:
            children += self._parker.processes
        self._stopped.look(children)

    def judge(self) -> None:
        """Kill workers that missed their deadlines, or that write malformed records; release brakes."""
        now = time.monotonic()
        self._release_brakes(now)
        soon = now + DUMP_NS / 1e9
        stopped = self._stopped.take_overdue()
        for slot, worker in self.workers.items():
            state = self.scoreboard.workers[slot]
            if state.state is None and now >= self.boot_by(slot, worker.generation):
                worker.kill_by(soon, WAS_NOT_READY)
            elif worker.process in stopped:
                worker.kill_by(soon, "was in a worker that was stopped")
            elif state.malformed > _MALFORMED_AT_MOST:
                worker.kill_by(soon, "was in a worker that wrote malformed records")
        for slot, ends in list(self.births.items()):
            if now >= self._fork_by(slot, ends.generation):
                ends.generation.loader.kill("does not fork")  # which ends all its births
        if self._loader is not None and self._loader.process in stopped:
            self._loader.kill("stopped")
        if self._parker is not None:
            self._parker.kill_any(stopped)

    def judge_requests(self, *, unseen: bool) -> None:
        """Take the steps that are due about requests that run long, and kill workers that are to be killed.

        Args:
            unseen: A worker may have begun a request without telling.
        """
        workers = self.scoreboard.workers.values()
        busy = unseen or any(worker.state is State.TAKEN for worker in workers)
        for slot, why in self._watchdog.judge(self.workers, busy=busy):
            self._watchdog.kill(slot, self.workers[slot], why)
            self.counters.kills += 1

    def forget(self, slot: int, status: int) -> None:
        """Forget a worker that was reaped, and account for how it ended.

        Args:
            slot: The worker's.
            status: Its exit status, or minus the signal that ended it.
        """
        worker = self.workers.pop(slot)
        state = self.scoreboard.reaped(slot)
        self._selector.unregister(worker.process.pidfd)
        self._reader.remove(worker)
        worker.close()
        self._load.history.worker_changed(slot, None, time.monotonic_ns())
        board_slot = self.board.slot(slot)
        last = board_slot.snapshot()
        self._account(state, status, last, worker)
        self._blame(worker, last)
        self.counters.add(last)
        self._lost.count(last, worker)
        order, recycled = board_slot.order, self._recycler.reason(slot)
        self._observing.worker_ended(state, status, last, worker, order=order, recycled=recycled)
        self._spawner.reaped(slot)
        if self._parker is not None:
            busy = not board_slot.is_idle
            self._parker.worker_died(slot, board_slot.begun_with, was_busy=busy)
        self._save_connections(slot, state.pid, last.held)
        board_slot.vacate()  # not before: at every moment they count here, or are on their way to the parker

    def _save_connections(self, slot: int, pid: int, held: int) -> None:
        """Have other workers continue with the connections of a dead one, as far as possible."""
        saved = self._watchdog.save_connections(slot)
        lost = max(0, held - saved)
        self.counters.dropped += lost
        if held:
            log.warning("connections of a dead worker pid=%d saved=%d lost=%d", pid, saved, lost)

    def _account(
        self, worker: WorkerState, status: int, last: SlotSnapshot, handle: WorkerHandle
    ) -> None:
        """Log how a worker ended, if it was not ordered to, and learn from it."""
        if worker.state is None and not worker.retiring:
            # The kernel kills when memory is short.
            shortage = status in (EXIT_STATUS, -signal.SIGKILL) and not handle.is_killed
            self._load.history.boot_failed(time.monotonic_ns(), shortage=shortage)
        age = time.monotonic() - worker.spawned_ns / 1e9
        if not worker.retiring and not last.started_ns and age < _EARLY:
            number = worker.generation
            self.early_deaths[number] = self.early_deaths.get(number, 0) + (status != 0)
        if worker.retiring or handle.is_killed:
            log.debug("worker left pid=%d status=%d", worker.pid, status)
            return
        if status == 0 and not last.started_ns:
            recycled = self._recycler.was_recycled(worker.slot)
            self.counters.recycled += recycled
            log.info("worker %s pid=%d", "recycled" if recycled else "left", worker.pid)
            return
        self.counters.crashes += 1
        tell_death(self._incidents, worker, status, last, handle)

    def _blame(self, worker: WorkerHandle, last: SlotSnapshot) -> None:
        """Brake the command that a dead worker was running, if several have died of it.

        A kill counts if it was because of the request itself, not of a stop.
        """
        command = worker.generation.facts.numbered(last.command) if last.started_ns else None
        if command is None or (worker.is_killed and not worker.is_overdue(last.number)):
            return
        if self.brake.died(command.name, time.monotonic()):
            self.board.brake(self.brake.braked)
            log.error(
                "command refused for a while: workers died of it command=%s deaths=%d pause_s=%g",
                command.name,
                self.brake.deaths(command.name),
                worker.generation.settings.poison_pause,
            )

    def _release_brakes(self, now: float) -> None:
        """Have the commands served again whose pause is over."""
        if released := self.brake.release(now):
            self.board.brake(self.brake.braked)
            for command in released:
                log.info("command served again command=%s", command)

    def probe(self) -> None:
        """Warn if the kernel forbids to copy descriptors; tried on a worker's standard error."""
        for worker in self.workers.values() if features.PIDFD else ():
            try:
                os.close(worker.process.take_descriptor(2))
            except OSError as error:
                log.warning(
                    "pidfd_getfd is not permitted here (%s): the client of a killed worker gets no"
                    " error line, only the end of its connection",
                    error.strerror,
                )
            break
