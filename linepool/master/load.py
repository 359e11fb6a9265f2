"""What the master measures for the policy: the queue, and whether the CPUs are the bottleneck.

Runs in the master.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable

from attrs import evolve

from linepool.ipc.board import MasterView
from linepool.kernel.cgroups import times_throttled
from linepool.kernel.cpus import available_cpus
from linepool.kernel.listeners import Listener
from linepool.master.incidents import Incidents
from linepool.pool.history import History, Saturation
from linepool.pool.policy import Snapshot, is_saturated
from linepool.pool.scoreboard import Scoreboard, Tally
from linepool.settings import Settings

log = logging.getLogger("linepool")

_SAMPLE = 0.05  # seconds between two looks at the CPU clocks while connections wait
_SAMPLE_QUIET = 0.25  # otherwise: a look costs as much as ten requests
_FRESH = 0.5  # seconds that a sample may cover
_REMEMBER = 1.0  # seconds for which what one sample said holds; they are noisy
_QUEUE_STANDS = 0.5  # seconds without progress after which the queue is not moving
_ALL = 0.8  # of the CPU time, used by the workers alone: no other worker can help
_LARGE = 0.3  # of the CPU time, used by the workers of a machine that has none left
_NO_TIME_LEFT = 0.1  # share of the CPU time that is idle


class LoadMeter:
    """The measurements of one pool.

    Attributes:
        history: Fed by the master with every change of a worker's state.
        saturated_s: Seconds at the maximum while connections waited.
    """

    def __init__(
        self,
        settings: Settings,
        board: MasterView,
        listeners: list[Listener],
        incidents: Incidents,
    ) -> None:
        self.history = History(settings, time.monotonic_ns())
        self._board = board
        self._listeners = listeners
        self._incidents = incidents
        self._by_requests = settings.has_parker  # how progress shows
        self._processors = Processors()
        self._saturation = Saturation()
        self._taken = 0  # requests served, or connections taken ...
        self._taken_at = 0.0  # ... and when that changed last
        self._done = -1  # requests done when saturation began or was logged; -1: there is none
        self._throttled = times_throttled()

    def configure(self, settings: Settings) -> None:
        """Follow other settings from now on."""
        self.history.configure(settings)

    @property
    def saturated_s(self) -> float:
        """Seconds for which connections waited while the pool was at its maximum."""
        return self._saturation.seconds

    def resume(self, scoreboard: Scoreboard, saturated_s: float, now_ns: int) -> None:
        """Go on with what another program knew: the workers, and for how long the pool was saturated."""
        self._saturation.seconds = saturated_s
        for worker in scoreboard.workers.values():
            if not worker.retiring:
                self.history.worker_changed(worker.slot, worker.state, now_ns)
        self.history.restart(now_ns)

    def snapshot(self, scoreboard: Scoreboard, settings: Settings) -> Snapshot:
        """Return what the policy looks at."""
        tally = scoreboard.tally()
        snapshot = self.history.snapshot(
            tally,
            settings,
            time.monotonic_ns(),
            backlog=self.waiting(tally),
        )
        pids = [worker.pid for worker in scoreboard.workers.values() if worker.pid]
        bottleneck = tally.busy > 0 and self._processors.are_bottleneck(
            pids, _SAMPLE if snapshot.backlog else _SAMPLE_QUIET
        )
        moves = self._queue_moves(scoreboard)
        return evolve(snapshot, cpu_bound=True) if bottleneck and moves else snapshot

    def warn(self, snapshot: Snapshot, scoreboard: Scoreboard, settings: Settings) -> None:
        """Count the time of saturation; warn when it begins and then once a minute."""
        saturated = is_saturated(snapshot, settings)
        now_ns = time.monotonic_ns()
        due = self._saturation.look(saturated, now_ns)
        if not saturated:
            self._done = -1
            return
        if lasting_ns := self._saturation.lasting_ns(now_ns):
            total = snapshot.tally.total
            why = f"{snapshot.backlog} connections wait, and there are {total} of {total} workers"
            self._incidents.saturated(lasting_ns / 1e9, why)
        board = self._board
        done = sum(board.slot(slot).requests for slot in scoreboard.workers)
        stuck = done == self._done
        if due or self._done < 0:
            self._done = done
        if due:
            before, self._throttled = self._throttled, times_throttled()
            throttled = self._throttled - before
            stuck = stuck and not throttled
            log.warning(
                "saturated: %d connections wait, all %d workers are %s; saturated for %.1f s so far; %s",
                snapshot.backlog,
                snapshot.tally.total,
                "stuck, none has finished a request meanwhile" if stuck else "busy",
                self.saturated_s,
                _hint(snapshot.tally, settings, stuck=stuck, throttled=throttled),
            )

    def rest(self) -> None:
        """Count no saturation until ``warn`` is called again."""
        self._saturation.look(False, time.monotonic_ns())

    def _queue_moves(self, scoreboard: Scoreboard) -> bool:
        """Whether the queue is moving. If not, waiting clients need a new worker however busy the CPUs are.

        In the scheme ``accept`` a worker stays with its client, so busy clients that never leave need
        one worker each. Elsewhere waiting connections are served by turns.
        """
        now = time.monotonic()
        slots = [self._board.slot(slot) for slot in scoreboard.workers]
        taken = sum(one.requests if self._by_requests else one.connections for one in slots)
        if taken != self._taken:
            self._taken = taken
            self._taken_at = now
        return now - self._taken_at < _QUEUE_STANDS

    def waiting(self, tally: Tally) -> int:
        """Return how many connections wait for a worker: in the kernel, or parked; none while one is idle."""
        if tally.idle:
            return 0
        queued = sum(listener.queue()[0] for listener in self._listeners)
        return queued + self._board.ready_connections


def _hint(tally: Tally, settings: Settings, *, stuck: bool, throttled: int) -> str:
    if throttled:
        return f"the CPU quota ({available_cpus():g} CPUs) was used up in {throttled} periods meanwhile"
    if stuck and settings.request_timeout:
        limit = f"lower request_timeout (now {settings.request_timeout:g} s)"
        return f"{limit} or raise workers (now {settings.workers})"
    return f"raise workers (now {settings.workers})" if tally.busy else "workers are still starting"


class Processors:
    """Whether the workers already use all the CPU time that there is."""

    def __init__(self) -> None:
        self._count = available_cpus()
        self._sampled_at = 0.0
        self._clocks: dict[int, int] = {}
        self._machine = (0, 0)
        self._bottleneck_until = 0.0

    def are_bottleneck(self, pids: Iterable[int], every: float = _SAMPLE) -> bool:
        """Return whether another worker would get no CPU time; measured at most once in ``every`` seconds."""
        now = time.monotonic()
        elapsed = now - self._sampled_at
        if elapsed < every:
            return now < self._bottleneck_until
        clocks = {pid: _clock(pid) for pid in pids}
        spent_ns = sum(clock - self._clocks.get(pid, clock) for pid, clock in clocks.items())
        used = spent_ns / 1e9 / elapsed / self._count
        idle = self._idle_share()
        self._sampled_at, self._clocks = now, clocks
        # A sample over a longer pause does not describe the present.
        fresh = elapsed < _FRESH
        if fresh and (used >= _ALL or (used >= _LARGE and idle < _NO_TIME_LEFT)):
            self._bottleneck_until = now + _REMEMBER
        return now < self._bottleneck_until

    def _idle_share(self) -> float:
        """Return how much of the machine's time was idle since the last call (proc(5), stat)."""
        with contextlib.suppress(OSError, ValueError), open("/proc/stat", "rb") as file:
            times = [int(word) for word in file.readline().split()[1:9]]
            before, self._machine = self._machine, (times[3] + times[4], sum(times))
            total = self._machine[1] - before[1]
            return (self._machine[0] - before[0]) / total if total else 1.0
        return 1.0


def _clock(pid: int) -> int:
    """Return the CPU time that a process has used, in ns; 0: it is gone (clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0
