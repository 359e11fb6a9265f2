"""The master: keeps the pool as large as it should be, and its listeners open.

Runs in the process that the user started. It never reads a client's bytes, never runs the user's
code after the start, and never waits for a worker or for who speaks to its control socket.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import selectors
import signal
import time
from typing import Protocol as Interface

from attrs import evolve

from linepool.app import App
from linepool.conversation import Service
from linepool.ipc.board import (
    BEGUN_WITH,
    FREE_NS,
    HELD,
    ORDER,
    SLOTS,
    TURNED_AWAY,
    Board,
    Order,
)
from linepool.kernel.listeners import Listener, Waker
from linepool.kernel.pidfd import signal_name
from linepool.kernel.signals import Inbox
from linepool.master.load import Gauge
from linepool.master.parker_handle import Parking
from linepool.master.recycler import Recycler
from linepool.master.spawner import Spawner
from linepool.master.status_reader import LONGEST_PAUSE, Reports
from linepool.master.trace import Recording
from linepool.master.watchdog import Overdue
from linepool.master.worker_handle import Child, Counters
from linepool.pool import policy
from linepool.pool.deadline import DUMP_NS
from linepool.pool.scoreboard import Scoreboard, WorkerState
from linepool.pool.status import State
from linepool.protocols.base import printable
from linepool.settings import MAX_WORKERS, Settings, Workers

log = logging.getLogger("linepool")

_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
_SELDOM = 0.25
"""Seconds after which the loop looks at the pool's size even if it wakes for nothing else."""
_WAKE_PAUSE = 0.05
"""Seconds after which sleepers that were told to leave and have not are woken again; it doubles."""
_QUIT_GRACE = 1.0
"""Seconds that a worker has to unwind when the server stops at once."""
_LONGEST = 86400.0
"""Seconds of one sleep; what is due later is looked at again."""
_MALFORMED_LIMIT = 3
"""A worker that wrote so often what is no record of its own has lost its mind."""


class Watched(Interface):
    """Something else that the loop waits for: the control socket."""

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register descriptors; their ``data`` is called without arguments when one is ready."""

    def close(self) -> None:
        """End it, in the master."""

    def abandon(self) -> None:
        """Close a new worker's copies of its descriptors."""


class Master:
    """The master and its pool.

    Attributes are read by what reports on the pool; only the methods change them.
    """

    def __init__(
        self, app: App, service: Service, settings: Settings, listeners: list[Listener]
    ) -> None:
        self.app = app
        self.service = service
        self.settings = settings
        self.listeners = listeners
        self.board = Board(settings.hot_connections if settings.parks else 0)
        self.scoreboard = Scoreboard()
        self.counters = Counters()
        self.children: dict[int, Child] = {}
        self.generation = 1
        self.pid = os.getpid()
        self._inbox = Inbox(_SIGNALS)  # from now on a signal to stop waits until the loop runs
        self.started_at = time.monotonic()
        self.stopping = False
        self._status = 0
        self._watched: list[Watched] = []
        self._waker = Waker(self.board)
        self._wake_at = 0.0  # when sleepers that were told to leave are woken (again)
        self._wake_pause = _WAKE_PAUSE
        self._was_signalled = True
        self._dead: set[int] = set()  # slots whose process has ended but is not reaped
        self._acted_at = 0.0  # when it looked at the pool's size last
        self._awake_at = self.started_at  # when the loop last came out of its sleep
        self._plan_at = 0.0  # when the policy wants to be asked again; 0: when something happens
        self._exits: dict[int, int] = {}  # how those that were reaped in this turn ended
        self._watching = False  # the loop wakes when a connection waits
        self._recording: Recording | None = None
        self._has_come_up = False  # some worker has; that it died since says nothing of the app
        self._was_ready = False  # the first generation, all of it
        self._parking: Parking | None = None  # only in schemes with a parker

    @property
    def parked(self) -> int:
        """How many connections no worker holds."""
        return self._parking.parked if self._parking else 0

    @property
    def refused(self) -> int:
        """How many connections the parker has refused."""
        return int(self.board.head[TURNED_AWAY])

    @property
    def dropped(self) -> int:
        """How many connections ended with the process that held them."""
        return self.counters.dropped + (self._parking.dropped if self._parking else 0)

    def watch(self, watched: Watched) -> None:
        """Have the loop serve something else too; to be called before ``run``."""
        self._watched.append(watched)

    def record(self, path: str) -> None:
        """Write a trace for ``linepool simulate``; to be called before ``run``.

        Raises:
            SetupError: The file cannot be written.
        """
        self._recording = Recording(path)

    def run(self) -> int:
        """Run the pool until it is told to stop and the last worker is gone; return the exit status."""
        self._open()
        try:
            self._act()
            while not self.stopping or self.children:
                if self._wait():
                    self._reap()
                    self._drain()
                    self._forget()
                    self._obey()
                    self._judge()
                    self._act()
                else:  # it was only time to look at the requests in hand
                    self._judge()
        finally:
            self._close()
        return self._status

    # What others ask of it.

    def scale(self, workers: Workers) -> None:
        """Set the bounds of the pool."""
        log.info("pool bounds changed from=%s to=%s", self.settings.workers, workers)
        self.settings = evolve(self.settings, workers=workers)

    def stop(self, graceful: bool = True) -> None:
        """Stop: let requests in hand finish within ``graceful_timeout``, or end them at once."""
        now = time.monotonic()
        if not self.stopping:
            log.info("stopping %s", "when requests in hand are done" if graceful else "at once")
        self.stopping = True
        self._watch_listeners(False)
        self._wake_now()
        grace = self.settings.graceful_timeout if graceful else _QUIT_GRACE
        for slot, child in self.children.items():
            child.doom(now + grace, "did not end before the server stopped")
            self._tell(slot, Order.STOP)
            if not graceful:
                child.process.send(signal.SIGQUIT)
        if self._parking is not None:  # after the orders: from then on no worker hands on
            self._parking.stop(graceful=graceful)

    # The turns of the loop. Their order is an argument: what a dead worker wrote is in its pipe by
    # the time that it is reaped, so after the drain the last of it is known; and who has just
    # finished is known before anybody is judged.

    def _wait(self) -> bool:
        """Sleep until something happens or is due; return whether it is more than a look at requests."""
        now = time.monotonic()
        listen_at = self._reports.look_at_the_clock(now)
        self._overdue.absent(self._awake_at, now)
        act_at = self._act_at()
        due = min(act_at, self._overdue.due_at, listen_at)
        pause = None if due == math.inf else max(0.0, min(due - now, _LONGEST))
        ready = self._selector.select(pause)
        self._awake_at = time.monotonic()
        if due != math.inf:
            self._overdue.absent(max(due, now), self._awake_at)
        for key, _ in ready:
            if isinstance(key.data, int):
                self._dead.add(key.data)
            else:
                key.data()
        waiting = self._parking.waiting if self._parking else 0
        return bool(ready or waiting or self._awake_at >= min(act_at, self._acted_at + _SELDOM))

    def _reap(self) -> None:
        self._exits.clear()
        for slot in self._dead:
            status = self.children[slot].process.reap()
            if status is not None:
                self._exits[slot] = status
        self._dead.clear()

    def _drain(self) -> None:
        records = self._reports.drain()
        for record in records:
            if not self.scoreboard.workers[record.slot].retiring:
                self.gauge.history.worker_changed(record.slot, record.state, record.at_ns)
            if record.state is State.LEAVING:
                leave_by = time.monotonic() + self.settings.graceful_timeout
                self.children[record.slot].doom(leave_by, "did not leave in time")
            if self._recording is not None:
                self._recording.note(record)
        if records:
            self._has_come_up = True
            self._overdue.absent(records[0].at_ns / 1e9 + LONGEST_PAUSE, time.monotonic())

    def _forget(self) -> None:
        for slot, status in self._exits.items():
            child = self.children.pop(slot)
            worker = self.scoreboard.reaped(slot)
            self._selector.unregister(child.process.pidfd)
            self._reports.remove(child)
            child.close()
            self.gauge.history.worker_changed(slot, None, time.monotonic_ns())
            self._account(worker, status, killed=child.kill_at == math.inf)
            words = self.board.slots[slot].words
            self.counters.add(self.board.slots[slot].look())
            self._save_neighbours(slot, worker)
            words[FREE_NS] = words[HELD] = 0  # which others look at
            self._spawner.reaped(slot)
            if self._parking is not None:
                self._parking.died(slot, words[BEGUN_WITH])

    def _save_neighbours(self, slot: int, worker: WorkerState) -> None:
        """Have others go on with the connections of a dead worker, as far as that can be."""
        held = self.board.slots[slot].words[HELD]
        saved = self._overdue.save_neighbours(slot)
        lost = max(0, held - saved)
        self.counters.dropped += lost
        if held:
            log.warning(
                "connections of a dead worker pid=%d saved=%d lost=%d", worker.pid, saved, lost
            )

    def _note_signal(self) -> None:
        self._was_signalled = True

    def _obey(self) -> None:
        if not self._was_signalled:
            return
        self._was_signalled = False
        workers = self.settings.workers
        for number in self._inbox.drain():
            if number in (signal.SIGINT, signal.SIGQUIT):
                self.stop(graceful=False)
            elif number in (signal.SIGTERM, signal.SIGHUP):
                self.stop(graceful=not self.stopping)
            elif number == signal.SIGTTIN and workers.max < MAX_WORKERS:
                self.scale(Workers(workers.min + 1, workers.max + 1))
            elif number == signal.SIGTTOU and workers.min > 1:
                self.scale(Workers(workers.min - 1, workers.max - 1))

    def _judge(self) -> None:
        """Kill who had its time to leave, to boot, or writes nonsense."""
        now = time.monotonic()
        for slot, child in self.children.items():
            worker = self.scoreboard.workers[slot]
            if worker.state is None and now >= self._boot_by(worker):
                child.doom(now + DUMP_NS / 1e9, "was not ready in time")
            elif worker.malformed > _MALFORMED_LIMIT:
                child.doom(now + DUMP_NS / 1e9, "was in a worker that went mad")
        busy = any(worker.state is State.TAKEN for worker in self.scoreboard.workers.values())
        for slot, why in self._overdue.judge(self.children, busy=busy):
            self._overdue.kill(slot, self.children[slot], why)
            self.counters.kills += 1

    def _act(self) -> None:
        """Change the pool as the policy wants it."""
        self._acted_at = time.monotonic()
        if self._parking is not None:
            self._parking.turn()
        if not self._was_ready:
            self._look_for_first_generation()
        if not self.stopping:
            snapshot = self.gauge.snapshot(self.scoreboard, self.settings)
            self.gauge.warn(snapshot, self.scoreboard, self.settings)
            self._carry_out(policy.plan(snapshot, self.settings))
            for slot, order in self._recycler.turn(self.scoreboard.workers.values()):
                self._tell(slot, order)
                self._wake_now()
                if order is Order.RECYCLE:
                    self.counters.recycled += 1
                    log.info("worker recycled pid=%d", self.scoreboard.workers[slot].pid)
        now = time.monotonic()
        told = self.scoreboard.told_asleep()
        if told and self.settings.sleeps_in_accept and now >= self._wake_at:
            self._waker.wake(self.listeners[0], told + self.scoreboard.tally().idle)
            self._wake_at = now + self._wake_pause
            self._wake_pause *= 2

    # Inside.

    def _open(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inbox, selectors.EVENT_READ, self._note_signal)
        for watched in self._watched:
            watched.open(self._selector)
        self.gauge = Gauge(self.settings, self.board, self.listeners)
        self._reports = Reports(
            self.board,
            self.scoreboard,
            self._selector,
            lambda: self.gauge.history.restart(time.monotonic_ns()),
        )
        self._recycler = Recycler(self.settings, self.board)
        if self.settings.parks:
            self._parking = Parking(
                self.board,
                self.service,
                self.settings,
                self.listeners,
                self.children,
                self._selector,
                self._leave_to_park,
            )
        self._overdue = Overdue(
            self.board,
            self.service,
            self.settings,
            self._selector,
            self._parking.adopt if self._parking else None,
        )
        self._spawner = Spawner(
            self.app,
            self.service,
            self.settings,
            self.listeners,
            self.board,
            self._waker,
            self._leave,
        )
        # What the app has loaded stays out of the workers' collections, and so stays shared.
        gc.collect()
        gc.freeze()
        self._awake_at = time.monotonic()

    def _close(self) -> None:
        for watched in self._watched:
            watched.close()
        for child in self.children.values():
            child.process.send(signal.SIGKILL)
            child.close()
        self._overdue.close()
        if self._parking is not None:
            self._parking.close()
        self._spawner.close()
        if self._recording is not None:
            self._recording.close()
        self._waker.close()
        for listener in self.listeners:
            listener.remove()
        self._reports.close()
        self._selector.close()
        self._inbox.close()
        gc.unfreeze()

    def _act_at(self) -> float:
        """Return the next moment at which there is something to do even if nothing happens."""
        moments = [math.inf]
        if self._parking is not None:
            moments.append(self._parking.due_at)
        if not self.stopping:
            moments.append(self._recycler.due_at)
            if self._plan_at:
                moments.append(self._plan_at)
        moments += [
            self._boot_by(worker)
            for slot, worker in self.scoreboard.workers.items()
            if worker.state is None and not self.children[slot].kill_at
        ]
        if self.settings.sleeps_in_accept and self.scoreboard.told_asleep():
            moments.append(self._wake_at)
        return min(moments)

    def _boot_by(self, worker: WorkerState) -> float:
        return worker.spawned_ns / 1e9 + self.settings.spawn_timeout

    def _carry_out(self, plan: policy.Plan) -> None:
        self._plan_at = time.monotonic() + plan.again_in if plan.again_in else 0.0
        self._watch_listeners(plan.watch)
        if (plan.spawn or plan.retire) and self._was_ready:
            log.info("pool plan spawn=%d retire=%d why=%r", plan.spawn, plan.retire, plan.why)
        self._retire(plan.retire)
        for _ in range(plan.spawn):
            if not self._spawn():
                break

    def _watch_listeners(self, wanted: bool) -> None:
        """Have the loop wake when a connection waits; wanted only while nobody is idle to take it."""
        if wanted == self._watching:
            return
        self._watching = wanted
        for listener in self.listeners:
            if wanted:
                self._selector.register(listener.socket, selectors.EVENT_READ, _nothing)
            else:
                self._selector.unregister(listener.socket)

    def _spawn(self) -> bool:
        """Fork one worker; return whether it worked."""
        slot = self.scoreboard.free_slot(MAX_WORKERS)
        self.board.head[SLOTS] = max(self.board.head[SLOTS], slot + 1)
        now_ns = time.monotonic_ns()  # before the fork: the child may be quicker than we
        try:
            child = self._spawner.spawn(slot, self.generation, self._recycler.spawned(slot))
        except OSError as error:
            log.error("cannot fork: %s", error.strerror)  # noqa: TRY400 - one line says it all
            self.gauge.history.boot_failed(now_ns)
            failures = self.gauge.history.boot_failures
            pause = policy.boot_delay(failures, self.settings.respawn_backoff)
            self._plan_at = time.monotonic() + pause  # nothing else would make us try again
            return False
        self.children[slot] = child
        self._selector.register(child.process.pidfd, selectors.EVENT_READ, slot)
        self._reports.add(slot, child)
        if self._parking is not None:
            self._parking.hired(slot, child)
        self.scoreboard.spawned(slot, child.process.pid, self.generation, now_ns)
        self.gauge.history.spawned(self.settings, now_ns)
        self.counters.spawned += 1
        log.debug("worker spawned pid=%d slot=%d", child.process.pid, slot)
        return True

    def _leave(self) -> None:
        """Close a new worker's copies of what is the master's."""
        self._leave_office()
        for sibling in self.children.values():
            sibling.close()
        if self._parking is not None:
            self._parking.abandon()

    def _leave_to_park(self) -> None:
        """Close a new parker's copies, but for the channels of the workers."""
        self._leave_office()
        self._spawner.close()
        self._waker.close()
        for child in self.children.values():
            child.close_but_channel()

    def _leave_office(self) -> None:
        self._inbox.abandon()
        self._selector.close()
        self._reports.close()
        self._overdue.close()
        if self._recording is not None:
            self._recording.close()
        for watched in self._watched:
            watched.abandon()

    def _retire(self, count: int) -> None:
        """Tell workers to leave: those that are idle first, of them the one that the kernel wakes next."""
        staying = [worker for worker in self.scoreboard.workers.values() if not worker.leaving]
        staying.sort(key=lambda worker: (worker.state is State.TAKEN, worker.since_ns))
        for worker in staying[:count]:
            self._tell(worker.slot, Order.RETIRE)
            self._wake_now()
            self.counters.retired += 1
            log.info("worker retired pid=%d requests=%d", worker.pid, worker.requests)

    def _wake_now(self) -> None:
        """Have the sleepers that were told to leave woken in this turn."""
        self._wake_at = 0.0
        self._wake_pause = _WAKE_PAUSE

    def _tell(self, slot: int, order: Order) -> None:
        self.board.slots[slot].words[ORDER] = order
        self.scoreboard.mark_retiring(slot)
        self.gauge.history.worker_changed(slot, None, time.monotonic_ns())
        self.children[slot].ring()

    def _account(self, worker: WorkerState, status: int, killed: bool) -> None:
        """Say how a worker ended, if it was not in order, and learn from it."""
        if worker.state is None and not worker.retiring:
            self.gauge.history.boot_failed(time.monotonic_ns())
        if worker.retiring or killed:
            log.debug("worker left pid=%d status=%d", worker.pid, status)
            return
        sight = self.board.slots[worker.slot].look()
        how = f"status={status}" if status >= 0 else f"signal={signal_name(-status)}"
        command = printable(sight.line) if sight.started_ns else "-"
        if status == 0:
            recycled = self._recycler.was_recycled(worker.slot)
            self.counters.recycled += recycled
            log.info("worker %s pid=%d", "recycled" if recycled else "left", worker.pid)
            return
        self.counters.crashes += 1
        log.error(
            "worker died pid=%d %s command=%s requests=%d", worker.pid, how, command, sight.requests
        )

    def _look_for_first_generation(self) -> None:
        """Announce the first generation once it is up; give up if all of it failed."""
        if self.stopping:
            return
        ready = sum(worker.state is not None for worker in self.scoreboard.workers.values())
        if ready >= self.settings.workers.min:
            self._was_ready = True
            self._probe()
            announce(f"ready: {ready} workers")
        elif self.gauge.history.boot_failures and not self.children and not self._has_come_up:
            log.error("no worker came up; giving up")
            self._status = 1
            self._was_ready = True
            self.stop()

    def _probe(self) -> None:
        """Say what the kernel does not let us do; tried on a worker's standard error."""
        for child in self.children.values():
            try:
                os.close(child.process.take_descriptor(2))
            except OSError as error:
                log.warning(
                    "pidfd_getfd is not allowed here (%s): the client of a killed worker gets no"
                    " error line, only the end of its connection",
                    error.strerror,
                )
            break


def announce(line: str) -> None:
    """Write a line that other programs may wait for, plain, whatever the log's form or level."""
    with contextlib.suppress(OSError):
        os.write(2, line.encode() + b"\n")


def _nothing() -> None:
    """Do nothing; what woke the loop is dealt with in its turn."""
