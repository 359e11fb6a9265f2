"""The master: keeps the pool as large as it should be, and its listeners open.

Runs in the process that the user started. It never interprets a client's bytes, runs no handler or
hook after the start, and never waits for a worker or for a client of its control socket.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import selectors
import signal
import time

from linepool.ipc.board import Board, MasterView
from linepool.ipc.figures import Figures
from linepool.kernel.draining import Draining
from linepool.kernel.listeners import Listener
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.signals import SignalPipe
from linepool.master.announcing import announce, announce_listeners
from linepool.master.generation import Generation
from linepool.master.incidents import Incidents
from linepool.master.loader_handle import LoaderHandle
from linepool.master.obeying import SIGNALS, has_terminal, obey
from linepool.master.office import Office
from linepool.master.orphans import Orphans
from linepool.master.parts import Parts
from linepool.master.planned_drain import PlannedDrain
from linepool.master.reload import Reload
from linepool.master.reopening import Reopening
from linepool.master.status_reader import LONGEST_PAUSE
from linepool.master.takeover import Inherited
from linepool.master.trace import TraceWriter
from linepool.master.upgrade import Upgrade
from linepool.master.watched import Kept, Watched
from linepool.pool import policy
from linepool.pool.status import State
from linepool.pubsub.bus import Bus
from linepool.settings import Settings, Workers

log = logging.getLogger("linepool")

_PLAN_EVERY = 0.25  # seconds after which the pool's size is looked at even if nothing else happens
_QUIT_GRACE = 1.0  # seconds that a worker has to unwind in an immediate stop
_LONGEST_SLEEP = 86400.0  # seconds; what is due later is looked at again


class Master:
    """The master and its pool.

    Attributes are read by what reports on the server; only the methods change them.
    """

    def __init__(
        self,
        generations: list[Generation],
        listeners: list[Listener],
        office: Office,
        inherited: Inherited | None = None,
    ) -> None:
        self.generation = generations[-1]
        self.generations = generations  # that have workers or a loader
        self._office = office
        self.listeners = listeners
        # As many connections again may wait until their clients read.
        held = 2 * self.settings.hot_connections
        self.board = inherited.board() if inherited else MasterView(Board(held))
        self.pid = os.getpid()
        # From now on a signal to stop waits for the loop.
        self._signals = SignalPipe((*SIGNALS, signal.SIGCHLD), unblock=inherited is None)
        self.started_at = time.monotonic()
        self.had_terminal = has_terminal()
        self.stopping = False
        self.is_drained = False  # the pool is to be empty
        self.planned_drain = PlannedDrain(self.empty)
        self._status = 0
        self._watched: list[Watched] = [self.planned_drain]
        self._was_signalled = True
        self._dead: set[int] = set()  # slots whose process has ended but is not reaped
        self._exits: dict[int, int] = {}  # how those that were reaped in this turn ended
        self._acted_at = 0.0  # when it looked at the pool's size last
        self._awake_at = 0.0  # when the loop last came out of its sleep
        self._plan_at = 0.0  # when the policy wants to be asked again; 0: when something happens
        self._watching = False  # the loop wakes when a connection waits
        self.reopening = Reopening()
        self.exporter: Kept | None = None
        self.bridge: Kept | None = None
        self._trace: TraceWriter | None = None
        self.draining = Draining(listeners)
        self.orphans = Orphans()
        self._has_orphans = False  # perhaps
        self._has_come_up = False  # some worker has; if it died since, the app is not to blame
        self.was_ready = False  # the first generation, all of it

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.generation.settings

    @property
    def figures(self) -> Figures:
        """Those of each command."""
        return self._parts.figures

    @property
    def incidents(self) -> Incidents:
        """Those of late."""
        return self._parts.incidents

    @property
    def helpers(self) -> dict[str, int | None]:
        """The pids of the processes beside loader and workers; None: there is none now."""
        exporter = self.exporter.pid if self.exporter else None
        bridge = self.bridge.pid if self.bridge else None
        return {**self._parts.helpers, "exporter": exporter, "bridge": bridge}

    @property
    def has_bus(self) -> bool:
        """Whether workers publish messages."""
        return self._parts.spawner.has_bus

    def watch(self, watched: Watched) -> None:
        """Have the loop serve something else too. Pre-condition: ``open`` has not been called."""
        self._watched.append(watched)

    def record(self, trace: TraceWriter) -> None:
        """Write a trace for ``linepool simulate``. Pre-condition: ``open`` has not been called."""
        self._trace = trace
        self.reopening.add(trace.reopen)

    def run(self) -> int:
        """Run the pool until it is stopped and the last worker is gone; return the exit status.

        Pre-condition: ``open`` has been called.
        """
        try:
            self._act()
            while not self.stopping or self._has_work() or self._parts.observing.finish():
                if self._wait():
                    self._reap()
                    self.drain()
                    self._forget()
                    self._obey()
                    self.pool.judge()
                    self._judge()
                    self._act()
                else:  # it was only time to look at the requests in flight
                    self._judge()
        finally:
            self._close()
        return self._status

    def _has_work(self) -> bool:
        """Whether there is something to wait for before the master ends."""
        parts = self._parts
        return bool(parts.workers or parts.pool.births or parts.watchdog.is_replying)

    def scale(self, workers: Workers) -> None:
        """Set the bounds of the pool, and fill it if it was drained."""
        self._wants_workers()
        log.info("pool bounds changed from=%s to=%s", self.settings.workers, workers)
        # Of all generations: a reload may put another one in force, or have an old one come back.
        self.generations[:] = [one.with_workers(workers) for one in self.generations]
        number = self.generation.number
        self.generation = next(one for one in self.generations if one.number == number)
        self.reload.scaled(workers)

    def _wants_workers(self) -> None:
        self.is_drained = False
        self.planned_drain.cancel()

    def empty(self, after_s: float = 0.0) -> str:
        """Drain: have all workers leave within ``graceful_timeout``; clients wait until ``scale``.

        With ``after_s``, the drain is announced, and begins after so many seconds. Returns why that cannot be
        now; "": it can.
        """
        if self.stopping:
            return "the server is stopping"
        if self.reload.is_running:
            return "a reload is under way; drain when it has ended"
        if self.is_drained:
            return ""
        if after_s:
            self.planned_drain.begin(after_s)
            return ""
        self.planned_drain.cancel()
        log.info("draining: workers finish their requests and leave, listeners stay open")
        self.is_drained = True
        self.load.rest()
        self.pool.drain(time.monotonic() + self.settings.graceful_timeout)
        return ""

    def stop(self, graceful: bool = True) -> None:
        """Stop: let in-flight requests finish within ``graceful_timeout``, or end them at once."""
        if not self.stopping:
            log.info("stopping: %s", "waiting for in-flight requests" if graceful else "now")
        self.stopping = True
        self.planned_drain.cancel()
        self.reload.stop()
        self._watch_listeners(False)
        (self.draining.begin if graceful else self.draining.end)()
        self._parts.observing.stop(graceful=graceful)
        grace = self.settings.graceful_timeout if graceful else _QUIT_GRACE
        self.pool.stop(time.monotonic() + grace)
        if not graceful:
            for worker in self._parts.workers.values():
                worker.process.send(signal.SIGQUIT)
        if self._parts.parker is not None:  # after the orders: from then on no worker hands off
            self._parts.parker.stop(graceful=graceful)

    def start_loader(self) -> LoaderHandle:
        """Start a loader for the code as it is now; raises OSError."""
        loader = self._office.start_loader(self._parts.close_in_loader)
        loader.watch(self._parts.selector, self.pool)
        return loader

    def close_inherited(self) -> None:
        """Close the copies of a new helper process."""
        self._parts.close_in_loader()

    def keep_bus(self) -> Bus | None:
        """Return the bus, which a new helper process keeps; call it before ``close_inherited``."""
        return self._parts.spawner.keep_bus()

    def switch_to(self, generation: Generation, listeners: list[Listener]) -> None:
        """Put a generation in force: its settings, its listeners, and its app for the parker."""
        is_watching = self._watching
        self._watch_listeners(False)
        leaving = [one for one in self.listeners if one not in listeners]
        opened = [one for one in listeners if one not in self.listeners]
        announce_listeners(opened, generation.settings)
        self.listeners[:] = listeners
        self._watch_listeners(is_watching)
        self.draining.replace(listeners, leaving)
        self.generation = generation
        self._wants_workers()
        self._office.configure_log(generation.settings)
        self._parts.configure(generation, opened)

    # The turns of the loop. Their order is an argument: what a dead worker wrote is in its pipe by
    # the time that it is reaped, so after the drain its last record is known; and a worker that has
    # just finished is known to have before any is judged.

    def _wait(self) -> bool:
        """Sleep until something happens or is due; return whether it is more than a look at requests."""
        now = time.monotonic()
        read_at = self._parts.reader.on_timer(now)
        self._parts.watchdog.stalled(self._awake_at, now)
        act_at = self._act_at()
        due = min(act_at, self._parts.watchdog.due_at, read_at)
        pause = None if due == math.inf else max(0.0, min(due - now, _LONGEST_SLEEP))
        ready = self._parts.selector.select(pause)
        self._awake_at = time.monotonic()
        if due != math.inf:
            self._parts.watchdog.stalled(max(due, now), self._awake_at)
        watched = self._parts.selector.get_map()
        for key, _ in ready:
            if watched.get(key.fd) is not key:
                continue  # it was closed meanwhile; its number may be another file's by now
            if isinstance(key.data, int):
                self._dead.add(key.data)
            else:
                key.data()
        waiting = self.pool.board.ready_connections
        return bool(ready or waiting or self._awake_at >= min(act_at, self._acted_at + _PLAN_EVERY))

    def _reap(self) -> None:
        self._exits.clear()
        for slot in self._dead:
            worker = self._parts.workers[slot]
            if worker.process.is_dead():
                self._parts.watchdog.take_connections(slot, worker)
            status = worker.process.reap()
            if status is not None:
                self._exits[slot] = status
        self._dead.clear()

    def drain(self) -> None:
        """Bring the scoreboard up to date."""
        records = self._parts.reader.drain()
        for record in records:
            if not self.scoreboard.workers[record.slot].retiring:
                self.load.history.worker_changed(record.slot, record.state, record.at_ns)
            if record.state is State.LEAVING:
                leave_by = time.monotonic() + self.settings.graceful_timeout
                self._parts.workers[record.slot].kill_by(leave_by, "did not leave in time")
            if self._trace is not None:
                self._trace.note(record)
        if records:
            self._has_come_up = True
            self._parts.watchdog.stalled(records[0].at_ns / 1e9 + LONGEST_PAUSE, time.monotonic())
        self._parts.withheld.catch_up(len(records), time.monotonic_ns())

    def _forget(self) -> None:
        for slot, status in self._exits.items():
            self.pool.forget(slot, status)
        if self._exits and self.is_drained and not (self._parts.workers or self.stopping):
            log.info("drained: clients wait until the pool is filled again")

    def _obey(self) -> None:
        if not self._was_signalled:
            return
        self._was_signalled = False
        for number in self._signals.drain():
            if number == signal.SIGCHLD:
                ChildProcess.look()
                self.pool.look_for_stopped(self.generation.loader)
                self._has_orphans = True
            else:
                obey(self, number)

    def _judge(self) -> None:
        self.pool.judge_requests(unseen=self._parts.withheld.due_at < math.inf)

    def _act(self) -> None:
        """Change the pool as the policy wants it."""
        self._acted_at = time.monotonic()
        if self._has_orphans and not self.pool.births and self._parts.observing.is_born:
            self._has_orphans = False
            self.orphans.reap()
        if self._parts.parker is not None:
            self._parts.parker.turn()
        self.draining.turn()
        self.reload.turn()
        for watched in self._watched:
            watched.turn()
        if not (self.was_ready or self.stopping or self.is_drained):
            self._look_for_first_generation()
        if self._plans:
            snapshot = self.load.snapshot(self.scoreboard, self.settings)
            self.load.warn(snapshot, self.scoreboard, self.settings)
            self._carry_out(policy.plan(snapshot, self.settings))
            self.pool.recycle()
            if self._trace is None:
                now_ns = time.monotonic_ns()
                self._parts.withheld.plan(self.scoreboard.tally(), self.settings, now_ns)
        else:
            self._watch_listeners(False)

    @property
    def _plans(self) -> bool:
        """Whether it keeps the pool as the policy wants it."""
        return not (self.stopping or self.is_drained or self.upgrade.is_near)

    def open(self, inherited: Inherited | None = None) -> None:
        """Make the parts. Workers are not ordered yet, nor signals obeyed."""
        parts = self._parts = Parts(
            generations=self.generations,
            listeners=self.listeners,
            board=self.board,
            signals=self._signals,
            watched=self._watched,
            trace=self._trace,
            office=self._office,
        )
        self.scoreboard, self.load, self.pool = parts.scoreboard, parts.load, parts.pool
        parts.selector.register(self._signals, selectors.EVENT_READ, self._note_signal)
        self.reload = Reload(self, parts.spawner, parts.reloaded)
        self.upgrade = Upgrade(self, parts, self._office)
        self._watched += [self.upgrade, parts.observing]
        parts.open()
        if inherited:
            inherited.install(self, parts)
        else:
            parts.spawner.start(self.generation, self.listeners)
        # What is loaded stays out of the parker's collections, and so stays shared.
        gc.collect()
        gc.freeze()
        self._awake_at = time.monotonic()

    def _close(self) -> None:
        self._parts.close()
        gc.unfreeze()

    def _note_signal(self) -> None:
        self._was_signalled = True

    def _act_at(self) -> float:
        """Return the next moment at which there is something to do even if nothing happens."""
        moments = [self.pool.due_at, self.draining.due_at]
        moments += [watched.due_at for watched in self._watched]
        moments.append(self.reload.due_at)
        if self._parts.parker is not None:
            moments.append(self._parts.parker.due_at)
        if self._plans:
            moments += [
                self._parts.recycler.due_at,
                self._parts.withheld.due_at,
                self._plan_at or math.inf,
            ]
        return min(moments)

    def _carry_out(self, plan: policy.Plan) -> None:
        self._plan_at = time.monotonic() + plan.again_in if plan.again_in else 0.0
        retire = 0 if self.reload.is_running else plan.retire  # the old ones leave anyway
        self._watch_listeners(plan.watch and retire == plan.retire)  # else idle ones stay
        if (plan.spawn or retire) and self.was_ready:
            change = plan.spawn - retire
            log.info("scaling pool: %+d %s (%s)", change, _counted("worker", abs(change)), plan.why)
        self.pool.retire(retire)
        for _ in range(plan.spawn):
            if not self.pool.spawn(self.generation):
                self._plan_at = self.pool.retry_at
                break

    def _watch_listeners(self, wanted: bool) -> None:
        """Have the loop wake when a connection waits; wanted only while no worker is idle to take it."""
        if wanted == self._watching:
            return
        self._watching = wanted
        for listener in self.listeners:
            if wanted:
                self._parts.selector.register(listener.socket, selectors.EVENT_READ, _nothing)
            else:
                self._parts.selector.unregister(listener.socket)

    def _look_for_first_generation(self) -> None:
        """Announce the first generation once it is up; give up if all of it failed."""
        ready = sum(worker.state is not None for worker in self.scoreboard.workers.values())
        has_hope = self._has_come_up or self._parts.workers or self.pool.births
        if ready >= self.settings.workers.min:
            self.was_ready = True
            self.pool.probe()
            announce(f"ready: {ready} {_counted('worker', ready)}", "ready", workers=ready)
            self._parts.observing.ready(
                ready, [name for one in self.listeners for name in one.names]
            )
        elif self.load.history.boot_failures and not has_hope:
            log.error("no worker came up; giving up")
            self._status = 1
            self.was_ready = True
            self.stop()


def _counted(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _nothing() -> None:
    """Do nothing; what woke the loop is dealt with in its turn."""
