"""A world: a server and its clients over the simulated kernel, for one schedule; and the kinds of worlds."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

from attrs import field, frozen

from linepool import faults
from linepool.kernel.pidfd import ChildProcess
from linepool.master.outcome import Outcome
from linepool.master.takeover import Inherited
from linepool.master.watchdog import Watchdog
from linepool.settings import Settings, Workers
from tests.simulation import app as apps
from tests.simulation.account import GRACEFUL_TIMEOUT, Account
from tests.simulation.board import SimulatedBoard
from tests.simulation.choices import Choices
from tests.simulation.clients import Client
from tests.simulation.events import Events
from tests.simulation.files import Channel, ListenQueue, ProcessFile, Stream
from tests.simulation.kernel import Kernel
from tests.simulation.loaders import LOAD_TIMEOUT, SimulatedOffice, told
from tests.simulation.machine import machine
from tests.simulation.process import Process, Task
from tests.simulation.processes import SimulatedMaster
from tests.simulation.upgrades import Executed, inherited_by, settle

_LONGEST_NS = 300_000_000_000
_SETTLES_NS = 3_000_000_000
_ORPHANED_NS = 10_000_000_000
"""How long the other processes may live on when the master was killed."""
_MOST_WAITS = 30
"""How often a thread may wait for something in that time when nothing happens."""
_LATECOMERS = 2
"""Clients that come when all else is over: what has happened must not harm them."""
_LOOKS_NS = 100_000_000
_RELOAD_NS = 30_000_000_000
"""How much longer it takes after a reload: an old loader is kept for a while, a lost one replaced."""
_MEANS = (0, 400, 60, 15, 5)
_STALLS = (0.0, 0.0, 0.02, 0.1)
_HASTE = (0.0, 0.0, 0.1, 0.5)
_SLOW = ("", "", "", "parker", "parker", "master", "worker", "loader")
_REQUEST_TIMEOUT = 0.5


@frozen
class Kind:
    """What happens in a world.

    Attributes:
        clients: At most.
        bursts: Of each client, at most.
        slow: Some requests take long, some longer than their limit.
        is_timely: Some requests end just when RequestTimeout is to be raised in them.
        is_late: All requests end at about the moment when their workers are to be killed.
        is_rough: Processes give way often, and are kept waiting then.
        first: What happens in any case; "": nothing.
        waits: Some requests wait for others.
        clients_leave: Some clients do not wait for their replies.
        events: How many of those below at most.
        odds_of_latecomers: In one of so many schedules, clients come when all else is over.
        upgrades: The server can be upgraded in place.
        harm: What may happen besides, by name; see ``World``.
    """

    clients: int = 4
    bursts: int = 3
    slow: bool = False
    is_timely: bool = False
    is_late: bool = False
    is_rough: bool = False
    first: str = ""
    waits: bool = False
    clients_leave: bool = False
    events: int = 2
    odds_of_latecomers: int = 8
    upgrades: bool = False
    harm: tuple[str, ...] = field(default=())


KINDS = {
    "moves": Kind(
        harm=("retire", "retire", "kill_worker", "kill_two", "freeze"),
        events=5,
        odds_of_latecomers=3,
    ),
    "deaths": Kind(
        clients_leave=True,
        harm=("kill_worker", "retire_and_kill", "retire_and_kill", "kill_parker", "retire")
        + ("freeze_parker",) * 3,
        events=6,
    ),
    "limits": Kind(
        slow=True, is_timely=True, is_rough=True, harm=("kill_worker", "retire", "freeze"), events=2
    ),
    "kills": Kind(clients=3, bursts=2, slow=True, is_late=True, is_rough=True, events=0),
    "waits": Kind(
        clients=5,
        waits=True,
        clients_leave=True,
        harm=("kill_worker", "retire", "freeze"),
        events=4,
    ),
    "pool": Kind(slow=True, harm=("scale", "retire", "term", "kill_worker"), events=5),
    "stop": Kind(
        slow=True,
        waits=True,
        is_rough=True,
        first="stop",
        harm=("stop", "kill_worker", "freeze"),
        events=2,
    ),
    "reloads": Kind(
        slow=True,
        waits=True,
        harm=(
            *("reload", "reload", "reload", "reload", "reload_and_kill", "kill_loader"),
            *("freeze_loader", "kill_worker", "retire", "scale"),
        ),
        events=5,
    ),
    "upgrades": Kind(
        slow=True,
        waits=True,
        first="upgrade",
        upgrades=True,
        harm=(
            *("upgrade", "upgrade", "kill_worker", "kill_parker", "kill_loader", "retire"),
            *("scale", "freeze", "reload", "term"),
        ),
        events=5,
    ),
    "orphans": Kind(
        slow=True,
        waits=True,
        first="kill_master",
        harm=("kill_master", "kill_worker", "kill_parker", "retire", "reload", "stop", "freeze"),
        events=3,
    ),
    "all": Kind(
        clients=6,
        bursts=4,
        slow=True,
        waits=True,
        clients_leave=True,
        harm=(
            *("kill_worker", "kill_parker", "retire", "scale", "term", "freeze"),
            *("reload", "kill_loader"),
        ),
        events=7,
    ),
}
"""The worlds, by name."""


@functools.cache
def _settings(scheme: str, least: int, park_after: float, max_requests: int) -> Settings:
    return Settings(
        scheme=scheme,
        workers=Workers(least, least + 1),
        park_after=park_after,
        max_requests=max_requests,
        request_timeout=_REQUEST_TIMEOUT,
        kill_grace=0.2,
        slow_request=0.3,
        hand_off_after=0.05,
        graceful_timeout=GRACEFUL_TIMEOUT,
        shrink_window=1.0,
        min_worker_age=0.5,
        respawn_backoff=0.05,
        load_timeout=LOAD_TIMEOUT,
    )


class World:
    """A world.

    In some schedules most requests and events are of one kind, so that the same ones come together more often
    than if all were as likely everywhere (Groce and others, "Swarm Testing", 2012).

    Attributes:
        room: How many bytes of replies a client may have unread.
        favoured: Of what kind most requests are, and how long they take; 0: all are as likely.

    Args:
        kind: What happens in it.
        choices: All others follow from these.
        traced: Called with what happens; None: nothing listens.
    """

    def __init__(
        self, kind: Kind, choices: Choices, traced: Callable[[str], None] | None = None
    ) -> None:
        self.kind = kind
        self.kernel = kernel = Kernel(choices, ProcessFile)
        machine.kernel = kernel
        faults._ids = itertools.count(1)  # of requests, in the log
        kernel.traced = traced
        kernel.fork("world")
        below = choices.below
        kernel.mean = _MEANS[below(len(_MEANS))]
        kernel.stalls = _STALLS[below(len(_STALLS))] if kernel.mean else 0.0
        if kind.is_rough and below(3):
            kernel.mean, kernel.stalls = (5, 10)[below(2)], 0.2
        slow = _SLOW[below(len(_SLOW))]
        kernel.slow = (slow,) if slow else ()
        kernel.slow_ns = (1, 12, 60)[below(3)] * 1_000_000
        kernel.haste = _HASTE[below(len(_HASTE))] if kernel.mean else 0.0
        Channel.room = (278, 278, 3)[below(3)]
        self.room = (1 << 20, 1 << 20, 5)[below(3)]
        self.shared = below(3) < (1 if kind.is_late else 2)
        self.fails = below(4) == 1
        self.may_fail = False
        self.settings = _settings(
            "shared" if self.shared else "dispatch",
            *(1 + below(3), (0.05, 0.001, 0.01)[below(3)], (0, 0, 3)[below(3)]),
        )
        self.board = SimulatedBoard(kernel)
        self.account = Account(kernel, self.board, int(_REQUEST_TIMEOUT * 1e9))
        apps.account[:] = [self.account]
        kernel.ended, kernel.lost = self._ended, self.account.lost
        kernel.shut, kernel.received = self.account.shut, self.account.received
        self.listener = ListenQueue(kernel)
        self.events = Events(self)
        self.parker: Process | None = None
        self.spoils_loads = False
        ChildProcess.unreaped.clear()
        told.clear()
        self.master = kernel.fork("master")
        self._listener = self.master.install(self.listener)
        self._is_open = True
        self._ready_sleepers: dict[Task, None] = {}
        self.running: SimulatedMaster | None = None
        self.office: SimulatedOffice
        kernel.start(self.master, self._run_master)
        self.favoured = below(1 << 16) if below(2) else 0
        self.clients: list[Client] = []
        kernel.start(kernel.processes[1], lambda: kernel.sleep(1e6))
        self._start_clients(1 + below(kind.clients))
        if kind.first:
            self.events.plan(kind.first)
        favoured = kind.harm[below(len(kind.harm))] if kind.harm and below(2) else ""
        for _ in range(below(kind.events + 1) if kind.harm else 0):
            self.events.plan(
                favoured if favoured and below(3) else kind.harm[below(len(kind.harm))]
            )

    def _start_clients(self, count: int) -> None:
        """Have more clients come."""
        kernel, number = self.kernel, len(self.clients) + 1
        more = [Client(self, one) for one in range(number, number + count)]
        self.clients += more
        for client in more:
            kernel.start(kernel.processes[1], client.run, f"client{client.number}")

    def run(self) -> list[str]:
        """Run the schedule to its end; return the invariants that do not hold."""
        kernel = self.kernel
        try:
            kernel.run(kernel.now_ns + _LONGEST_NS)
            if kernel.choices.below(self.kind.odds_of_latecomers) == 1 and not (
                kernel.failures or self.account.is_ending
            ):
                self._start_clients(_LATECOMERS)
                kernel.run(kernel.now_ns + _LONGEST_NS)
            if not kernel.failures:
                self._settle()
            return kernel.failures
        finally:
            kernel.close()

    def _run_master(self) -> None:
        self.office = SimulatedOffice(self)
        inherited: Inherited | None = None
        while self._is_open:
            self.running = master = SimulatedMaster(self, self._listener, inherited)
            self._watch_kills(master._parts.watchdog)
            if inherited is not None:
                settle(inherited, master)
            try:
                master.run()
                self._is_open = False
            except Executed as executed:
                inherited = inherited_by(self, executed)
        self.look_whether_done()

    def _watch_kills(self, watchdog: Watchdog) -> None:
        """Have the account learn of each request for which a worker is to be killed."""
        look = watchdog._look_at_request

        def looked(slot, worker, watch, now_ns):
            process = self.kernel.processes[worker.process.pid]
            started_ns = self.account.looked_at(process)
            look_ns, why = look(slot, worker, watch, now_ns)
            if why:
                self.account.judged(process, now_ns, started_ns)
            return look_ns, why

        watchdog._look_at_request = looked  # type: ignore[method-assign]

    def _ended(self, process: Process) -> None:
        self.account.dies(process)
        if process is self.master and self.account.is_orphaned:
            self.master.reaped = self.kernel.choices.below(2) == 1
            self.kernel.halts = True

    def await_ready(self) -> None:
        """Have the thread wait until the server has come up; one that does not gives up."""
        self.kernel.wait(
            lambda: self.running is not None and self.running.was_ready,
            math.inf,
            (self._ready_sleepers,),
        )

    def wake_awaiting(self) -> None:
        """Wake what waits for the server to come up."""
        for task in list(self._ready_sleepers):
            self.kernel.wake(task)

    def reloaded(self, outcome: Outcome) -> None:
        """Note how a reload has ended."""
        self.kernel.trace("reload: %s", outcome)

    def look_whether_done(self) -> None:
        """Halt if all has happened that was to."""
        if not self.events.are_over or not all(client.is_done for client in self.clients):
            return
        if not self.account.is_orphaned:  # else it takes as long as it may
            self.kernel.halts = not (self.account.is_stopping and self._is_open)

    @property
    def server(self) -> SimulatedMaster:
        """The master."""
        assert self.running is not None
        return self.running

    @property
    def workers(self) -> list[Process]:
        """Those that are alive."""
        processes = self.kernel.processes.values()
        return [one for one in processes if isinstance(one.facts, int) and one.status is None]

    @property
    def loaders(self) -> list[Process]:
        """Those that are alive."""
        return [one for one in self.office.loaders if one.status is None]

    # -- what must be at the end

    def _settle(self) -> None:
        """Let some time pass until every client is content and nothing is left.

        Most schedules end as soon as that is so; some go on, for it must stay so.
        """
        kernel = self.kernel
        if not self.account.is_ending:
            begin_ns = kernel.now_ns
            goes_on = kernel.choices.below(8) == 1
            while kernel.now_ns < begin_ns + self._settles_ns and not kernel.failures:
                kernel.run(kernel.now_ns + _LOOKS_NS)
                if self.account.is_orphaned or not self._left():
                    break
            has_cause = (
                self.account.is_orphaned or self.spoils_loads
            )  # its workers may die all the time
            if goes_on and not (has_cause or kernel.failures):
                self._rest()
        if self.account.is_orphaned:
            kernel.run(kernel.now_ns + _ORPHANED_NS)
        for why in self._left():
            kernel.fail(why)

    def _rest(self) -> None:
        """Let time pass in which nothing happens: no process may do much then."""
        kernel = self.kernel
        kernel.run(kernel.now_ns + _SETTLES_NS)  # connections linger, the pool shrinks
        tasks = [task for process in kernel.processes.values() for task in process.tasks]
        before = {task: task.waits for task in tasks}
        kernel.run(kernel.now_ns + _SETTLES_NS)
        for task, count in before.items():
            if task.waits > count + _MOST_WAITS:
                kernel.fail(f"{task.process.name} does not rest")

    @property
    def _settles_ns(self) -> int:
        reloads = self.running.reload.count if self.running else 0  # it may not have come up yet
        return _SETTLES_NS + _RELOAD_NS * reloads

    def _left(self) -> list[str]:
        """Return what is not as it must be at the end."""
        left = [
            f"client {client.number} waits for ever"
            for client in self.clients
            if not client.is_done
        ]
        if self.account.is_orphaned:
            left += [
                f"{one} is left"
                for one in self.kernel.processes.values()
                if one.status is None and one.pid != 1
            ]
            if not self.listener.is_shut:
                left.append("the listener is not shut")
        elif self.account.is_stopping:
            if self._is_open:
                left.append("the server does not stop")
        elif self.parker is None or self.parker.status is not None:
            left.append("there is no parker")
        elif self.server.upgrade.is_running:
            left.append("an upgrade does not end")
        elif self.server.reload.is_running:
            left.append("a reload does not end")
        else:
            left += self._left_in(self.parker, self.workers)
        return left

    def _left_in(self, parker: Process, workers: list[Process]) -> list[str]:
        """Return whether the pool has another size, or a process has a descriptor too many."""
        left, bounds = [], self.server.settings.workers
        if bounds != (self.events.bounds or bounds):
            left.append(f"the bounds are {bounds}, and {self.events.bounds} was ordered")
        number = self.server.generation.number
        old = [worker.name for worker in workers if worker.generation != number]
        if old or len(self.server.generations) > 1:
            left.append(f"{old} are not of generation {number}")
        if len(self.loaders) != 1 or not self.server.generation.loader.is_open:
            left.append(f"there are {len(self.loaders)} loaders")
        if len(workers) != len(self.server.pool.workers):
            left.append("the master does not know all workers")
        least = 0 if self.spoils_loads else bounds.min  # the workers may die all the time
        if not least <= len(workers) <= bounds.max:
            left.append(f"there are {len(workers)} workers, not {bounds}")
        for process in (self.master, parker, *workers):
            held = sum(isinstance(file, Stream) for file in process.fds.values())
            if held:
                left.append(f"{process.name} still has {held} connections")
        counts = [
            (parker, 3 + len(workers)),
            (self.master, 8 + 4 * len(workers) + self.server.board.used),
        ]
        for process, most in counts:
            if len(process.fds) > most:
                kinds = sorted(file.kind for file in process.fds.values())
                left.append(f"{process.name} has {len(kinds)} descriptors, not {most}: {kinds}")
        return left
