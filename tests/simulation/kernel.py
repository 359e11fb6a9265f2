"""The simulated kernel: processes, their threads, and a clock that runs when all of them wait.

One operating system thread runs everything. Each simulated thread is a greenlet; it gives way at a system
call or where it reads or writes the board, as the choices say, and any other one may run then.
"""

from __future__ import annotations

import heapq
import math
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent

from tests.simulation.choices import Choices
from tests.simulation.process import Process, Task

if TYPE_CHECKING:
    from tests.simulation.epolls import File

STEP_NS = 500
"""What a step takes: a system call, or a look at the board."""
_STALLS_NS = (0, 0, 50_000, 500_000, 2_000_000, 5_000_000, 20_000_000, 400_000_000)
"""For how long a thread that gives way may be kept waiting for a processor besides."""
_STALLED = -1
_MOST_STEPS = 2000
"""After so many a thread gives way in any case: else one that always finds something keeps all waiting."""
_SOON = 12
"""At most so many steps after its last message a process dies that is to die of one."""
_PACE, _PERIOD_NS = 300, 20_000_000
"""A thread that waits so often within such a time spins."""
_BEGIN_NS = 1_000_000_000_000


class Kernel:
    """The kernel.

    Args:
        choices: Decide which thread runs next, and for how long.
        entry_of: Returns what the pidfds of a process refer to.

    Attributes:
        now_ns: The monotonic clock.
        mean: After how many steps a thread gives way, in the mean; 0: not before it waits.
        stalls: How likely one is kept waiting then.
        haste: How likely a thread gives way soon after it has told another process something.
        slow: The processes, by the beginnings of their names, that often begin their turns ...
        slow_ns: ... so much later.
        current: The thread that runs; None: the world itself.
        messages: How many have been sent.
        listening: The threads that are woken by each.
        left: How many steps the turn of that thread has left.
        halts: The world has seen enough: no thread has another turn.
        ended: Called with each process that ends, before its files are closed.
        shut: Called with a connection whose server's side a process ends.
        received: Called with each message that a process receives: its bytes, files and sender.
        lost: Called with a connection that no process has any more: file, process, and how that came.
        traced: Called with what happens; None: nothing listens.
    """

    def __init__(self, choices: Choices, entry_of: Callable[[Process], File]) -> None:
        self.choices = choices
        self._entry_of = entry_of
        self.now_ns = _BEGIN_NS
        self.mean = 0
        self.stalls = self.haste = 0.0
        self.slow: tuple[str, ...] = ()
        self.slow_ns = 0
        self.current: Task | None = None
        self.processes: dict[int, Process] = {}
        self.is_over = False
        self.failures: list[str] = []
        self.ended: Callable[[Process], None] = lambda _process: None
        self.lost: Callable[[File, Process, str], None] = lambda *_: None
        self.shut: Callable[[Any, Process], None] = lambda *_: None
        self.received: Callable[[Process, bytes, list[File], Process | None], None] = lambda *_: (
            None
        )
        self.traced: Callable[[str], None] | None = None
        self.switches = 0
        self.cookies = self.messages = 0
        self.listening: dict[Task, None] = {}
        self.left = self._slice = math.inf
        self.halts = False
        self._until_ns = math.inf
        self._runnable: list[Task] = []
        self._timers: list[tuple[int, int, Task, int]] = []
        self._numbers = 0
        self.hub = getcurrent()
        self._pids = 100

    # -- what happens

    def trace(self, text: str, *values: Any) -> None:
        """Note what happens, for people."""
        if self.traced is not None:
            where = f"{self.current}" if self.current else "-"
            self.traced(f"{(self.now_ns - _BEGIN_NS) / 1e6:12.4f} ms  {where:16}  {text % values}")

    def fail(self, why: str) -> None:
        """Note that an invariant does not hold."""
        if not self.is_over:
            self.trace("VIOLATION: %s", why)
            self.failures.append(why)

    def bad_close(self, process: Process, number: int) -> None:
        """Note that a descriptor was closed twice."""
        self.fail(f"{process.name} closes a descriptor that it does not have")

    # -- processes and threads

    def fork(self, name: str, parent: int = 1) -> Process:
        """Return a new process, without threads and files."""
        pid = self._pids if self.processes else 1
        self._pids += 1
        process = self.processes[pid] = Process(self, pid, name, parent)
        process.entry = self._entry_of(process)
        return process

    def start(self, process: Process, call: Callable[[], object], name: str = "main") -> Task:
        """Have a new thread of a process run; the process ends with its first one."""
        is_main = not process.tasks

        def run() -> None:
            status = 0
            try:
                call()
            except GreenletExit:
                return
            except SystemExit as exit_:
                status = int(exit_.code or 0)
            except BaseException as error:  # noqa: BLE001 - of any kind
                status = 1
                self.fail(f"{process.name} fails: {type(error).__name__}: {error}")
                self.trace("%s", traceback.format_exc())
            task.dead = True
            if is_main:
                self.end(process, status)

        self._numbers += 1
        task = Task(process, name, self._numbers, run)
        process.tasks.append(task)
        self._runnable.append(task)
        return task

    def end(self, process: Process, status: int) -> None:
        """End a process; its parent has yet to reap it."""
        if process.status is not None:
            return
        self.trace("%s ends status=%d", process, status)
        process.status = status
        self.ended(process)
        for task in process.tasks:
            task.dead = True
        fds, process.fds = process.fds, {}
        has_died = status < 0 or status == 1
        for one in self.processes.values():
            if one.parent == process.pid:
                self.end_holder(one)  # as it does itself a little later
        if has_died and process.has_holder and self.processes[process.parent].name == "master":
            process.left_behind = fds
        else:
            for file in fds.values():
                file.release(process, "ended" if has_died else "left")
        process.entry.changed()
        for one in [one for one in self.processes.values() if one.parent == process.pid]:
            one.parent = 1
            if one.at_parents_end:
                self.signal(one, one.at_parents_end)
        if self.current is not None and self.current.process is process:
            self.hub.switch()

    def end_holder(self, process: Process) -> None:
        """Close what a dead process has left behind."""
        fds, process.left_behind = process.left_behind, {}
        for file in fds.values():
            file.release(process, "ended")

    def signal(self, process: Process, number: int) -> None:
        """Send a signal."""
        if process.status is not None:
            return
        self.trace("signal %d for %s", number, process)
        self.told()
        if number == 9:
            self.end(process, -9)
        elif number in process.handlers:
            process.pending.append(number)
            if process.tasks and process.tasks[0].sleeps:
                self.wake(process.tasks[0])

    def sent(self) -> None:
        """Note that the thread that runs has sent a message."""
        self.messages += 1
        for task in list(self.listening):
            self.wake(task)
        process = self.current.process if self.current else None
        if process is not None and process.last_messages:
            process.last_messages -= 1
            if not process.last_messages:
                process.doom = self._slice = self.left = self.choices.below(_SOON)
                return
        self.told()

    def told(self) -> None:
        """Note that the thread that runs has told another process something: it may give way now."""
        if self.haste and self.choices.chance(self.haste):
            self.left = 0

    # -- time and turns

    def tick(self) -> None:
        """Take a step: the thread may give way."""
        self.now_ns += STEP_NS
        self.left -= 1
        if self.left < 0:
            self.give_way()

    def give_way(self) -> None:
        """Have other threads run; called when a thread has taken the steps of its turn."""
        task = self.current
        if self.is_over:
            raise GreenletExit
        if task is None:
            return
        process = task.process
        if process.doom is not None and self._slice >= process.doom:
            self.end(process, -9)
        stall_ns = 0
        if self.stalls and self.choices.chance(self.stalls):
            stall_ns = _STALLS_NS[self.choices.below(len(_STALLS_NS))]
        if stall_ns:
            self._stall(task, stall_ns)
        else:
            self._runnable.append(task)
        self._switch(task)

    def _stall(self, task: Task, ns: int) -> None:
        """Keep a thread waiting for a processor."""
        self.trace("%s is kept waiting for %g ms", task, ns / 1e6)
        self._numbers += 1
        heapq.heappush(self._timers, (self.now_ns + ns, self._numbers, task, _STALLED))

    def _sleep(self, task: Task, until_ns: float) -> None:
        task.sleeps = True
        if until_ns < math.inf:
            task.since = int(until_ns)
            self._numbers += 1
            heapq.heappush(self._timers, (int(until_ns), self._numbers, task, task.since))

    def _switch(self, task: Task) -> None:
        """End the turn of a thread; return when it has another one."""
        process = task.process
        if process.doom is not None:
            process.doom = max(0, process.doom - int(self._slice - self.left))
        following = self._next()
        if following is not task:
            (self.hub if following is None else following.greenlet).switch()
            if self.is_over:
                raise GreenletExit
        if process.pending and task is process.tasks[0]:
            while process.pending:
                number = process.pending.pop(0)
                process.handlers[number](number, None)

    def wait(
        self, ready: Callable[[], Any], until_ns: float, on: tuple[dict[Task, None], ...]
    ) -> Any:
        """Have the thread wait until something is the case; return that, or None: the time is up.

        Args:
            ready: Returns it, or something that is false.
            until_ns: When the time is up.
            on: The sets of threads that are woken when that may have changed.
        """
        self.tick()
        task = self.current
        assert task is not None
        task.waits += 1
        if task.waits > task.most_waits:
            self._look_at_pace(task)
        while not (value := ready()):
            if self.now_ns >= until_ns:
                return None
            for sleepers in on:
                sleepers[task] = None
            self._sleep(task, until_ns)
            try:
                self._switch(task)
            finally:
                for sleepers in on:
                    sleepers.pop(task, None)
        return value

    def _look_at_pace(self, task: Task) -> None:
        """Note whether a thread has waited often within a short time: it was woken at once each time."""
        if self.now_ns - task.paced_ns < _PERIOD_NS:
            self.fail(f"{task.process.name} spins")
        task.paced_ns, task.most_waits = self.now_ns, task.waits + _PACE

    def sleep(self, seconds: float) -> None:
        """Have the thread wait."""
        until_ns = self.now_ns + max(0, int(seconds * 1e9))
        self.tick()
        task = self.current
        assert task is not None
        while self.now_ns < until_ns:
            self._sleep(task, until_ns)
            self._switch(task)

    def wake(self, task: Task) -> None:
        """Have a thread look whether what it waits for is there."""
        if task.sleeps and not task.dead:
            task.sleeps = False
            self._runnable.append(task)

    def run(self, until_ns: float) -> None:
        """Run threads until a moment, until something fails or ``halts``, or until all wait for ever."""
        self._until_ns, self.halts = until_ns, False
        while task := self._next():
            task.greenlet.switch()  # comes back if a thread has ended, or if nothing is to run
            if self.current is None:
                break

    def _next(self) -> Task | None:
        """Return the thread that has the next turn; None: none has."""
        runnable, choices = self._runnable, self.choices
        self.current, self.left = None, math.inf
        until_ns, mean = self._until_ns, self.mean
        while not (self.halts or self.failures):
            if not runnable and not self._run_timers(until_ns):
                return None
            if self.now_ns >= until_ns:
                return None
            task = runnable.pop(choices.below(len(runnable)) if mean and len(runnable) > 1 else 0)
            if task.dead:
                continue
            process = task.process
            if process.frozen_ns > self.now_ns:
                self._stall(task, process.frozen_ns - self.now_ns)
                continue
            if self.slow and process.name.startswith(self.slow):
                task.is_late = not task.is_late and choices.chance(0.3)
                if task.is_late:
                    self._stall(task, self.slow_ns)
                    continue
            steps = (choices.steps(mean) or _MOST_STEPS) if mean else _MOST_STEPS
            if process.doom is not None:
                steps = min(steps, process.doom)
            self.left = self._slice = steps
            self.current = task
            self.switches += 1
            return task
        return None

    def _run_timers(self, until_ns: float) -> bool:
        """Let time pass until a thread runs; return whether one does."""
        timers = self._timers
        while timers:
            at_ns, _, task, since = timers[0]
            if task.dead or (since != _STALLED and (not task.sleeps or task.since != since)):
                heapq.heappop(timers)
                continue
            if at_ns >= until_ns:
                break
            heapq.heappop(timers)
            self.now_ns = max(self.now_ns, at_ns)
            if since == _STALLED:
                self._runnable.append(task)
            else:
                self.wake(task)
            return True
        if until_ns < math.inf:
            self.now_ns = max(self.now_ns, int(until_ns))
        return False

    def close(self) -> None:
        """End everything."""
        self.is_over, self.left, self.traced = True, -1, None
        for process in self.processes.values():
            for task in process.tasks:
                if task.greenlet and not task.greenlet.dead:
                    task.greenlet.throw(GreenletExit)
        self.processes.clear()
