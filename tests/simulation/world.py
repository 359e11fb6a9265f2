"""A world: a server and its clients over the simulated kernel, for one schedule; and the kinds of worlds."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable

from attrs import field, frozen

from linepool import faults
from linepool.ipc.board import Order
from linepool.kernel.pidfd import ChildProcess
from linepool.master.watchdog import Watchdog
from linepool.settings import Settings, Workers
from tests.simulation import app as apps
from tests.simulation.account import Account
from tests.simulation.board import SimulatedBoard
from tests.simulation.choices import Choices
from tests.simulation.clients import Client
from tests.simulation.files import Channel, Counter, ListenQueue, ProcessFile, Stream
from tests.simulation.kernel import Kernel, Process
from tests.simulation.machine import machine
from tests.simulation.processes import SimulatedMaster

_LONGEST_NS = 900_000_000_000
_SETTLES_NS = 3_000_000_000
_MEANS = (0, 400, 60, 15, 5)
_STALLS = (0.0, 0.0, 0.02, 0.1)
_SLOW = ("", "", "", "parker", "parker", "master", "worker")
_MOMENTS_MS = (1, 5, 15, 40, 80, 150, 300, 700)
_LATER_MS = (0, 0, 0.02, 0.2, 1, 5, 30)
_REQUEST_TIMEOUT = 0.5


@frozen
class Kind:
    """What happens in a world.

    Attributes:
        clients: At most.
        bursts: Of each client, at most.
        slow: Some requests take long, some longer than their limit.
        is_late: All requests end at about the moment when their workers are to be killed.
        is_rough: Processes give way often, and are kept waiting then.
        first: What happens in any case; "": nothing.
        waits: Some requests wait for others.
        clients_leave: Some clients do not wait for their replies.
        events: How many of those below at most.
        harm: What may happen besides, by name; see ``World``.
    """

    clients: int = 4
    bursts: int = 3
    slow: bool = False
    is_late: bool = False
    is_rough: bool = False
    first: str = ""
    waits: bool = False
    clients_leave: bool = False
    events: int = 2
    harm: tuple[str, ...] = field(default=())


KINDS = {
    "moves": Kind(harm=("retire", "retire", "kill_worker", "freeze"), events=5),
    "deaths": Kind(
        clients_leave=True,
        harm=("kill_worker", "retire_and_kill", "retire_and_kill", "kill_parker", "retire")
        + ("freeze_parker",) * 3,
        events=6,
    ),
    "limits": Kind(slow=True, harm=("kill_worker", "retire", "freeze"), events=4),
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
    "all": Kind(
        clients=6,
        bursts=4,
        slow=True,
        waits=True,
        clients_leave=True,
        harm=("kill_worker", "kill_parker", "retire", "scale", "term", "freeze"),
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
        graceful_timeout=5.0,
        shrink_window=1.0,
        min_worker_age=0.5,
        respawn_backoff=0.05,
    )


class World:
    """A world.

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
        Channel.room = (278, 278, 3)[below(3)]
        self.shared = below(3) < (1 if kind.is_late else 2)
        self._fails = below(4) == 1
        self.may_fail = False
        self.settings = _settings(
            "shared" if self.shared else "dispatch",
            *(1 + below(3), (0.05, 0.001, 0.01)[below(3)], (0, 0, 3)[below(3)]),
        )
        self.board = SimulatedBoard(kernel)
        self.account = Account(kernel, self.board, int(_REQUEST_TIMEOUT * 1e9))
        apps.account[:] = [self.account]
        kernel.ended, kernel.lost = self.account.dies, self.account.lost
        kernel.shut, kernel.received = self.account.shut, self.account.received
        self.listener = ListenQueue(kernel)
        self.orders = Counter(kernel)
        self.parker: Process | None = None
        self._todo: deque[Callable[[], object]] = deque()
        ChildProcess.unreaped.clear()
        self.master = kernel.fork("master")
        self._is_open = True
        self._master: SimulatedMaster | None = None
        kernel.start(self.master, self._run_master)
        self.clients = [Client(self, number) for number in range(1, 2 + below(kind.clients))]
        clients = kernel.processes[1]
        kernel.start(clients, lambda: kernel.sleep(1e6))
        for client in self.clients:
            kernel.start(clients, client.run, f"client{client.number}")
        self._harms = 0
        self._at_ms = _MOMENTS_MS[below(len(_MOMENTS_MS))]
        if kind.first:
            self._plan(kind.first)
        for _ in range(below(kind.events + 1) if kind.harm else 0):
            self._plan(kind.harm[below(len(kind.harm))])

    def run(self) -> list[str]:
        """Run the schedule to its end; return the invariants that do not hold."""
        kernel = self.kernel
        try:
            begin_ns = kernel.now_ns
            for _ in kernel.turns(begin_ns + _LONGEST_NS):
                if kernel.failures or self._is_done():
                    break
            if not kernel.failures and not self.account.is_stopping:
                for _ in kernel.turns(kernel.now_ns + _SETTLES_NS):
                    if kernel.failures:
                        break
            if not kernel.failures:
                self._look()
            return kernel.failures
        finally:
            kernel.close()

    def _run_master(self) -> None:
        self._master = master = SimulatedMaster(self)
        self._watch_kills(master._parts.watchdog)
        master.run()
        self._is_open = False

    def _watch_kills(self, watchdog: Watchdog) -> None:
        """Have the account learn of each request for which a worker is to be killed."""
        look = watchdog._look_at_request

        def looked(slot, worker, watch, now_ns):
            look_ns, why = look(slot, worker, watch, now_ns)
            if why:
                self.account.judged(self.kernel.processes[worker.process.pid], now_ns)
            return look_ns, why

        watchdog._look_at_request = looked  # type: ignore[method-assign]

    def _is_done(self) -> bool:
        if self._harms or not all(client.is_done for client in self.clients):
            return False
        return not (self.account.is_stopping and self._is_open)

    # -- what may happen besides

    def _plan(self, name: str) -> None:
        """Have something happen at some moment."""
        kernel = self.kernel
        below = kernel.choices.below
        at_ms: float = _MOMENTS_MS[below(len(_MOMENTS_MS))]
        if below(3):  # at about the same time as others
            at_ms = self._at_ms + _LATER_MS[below(len(_LATER_MS))]
        detail = kernel.choices.below(4)
        self._harms += 1

        def run() -> None:
            while not (self._is_open and self._master and self._master.was_ready):
                kernel.sleep(0.005)  # a server that does not come up gives up
            self.may_fail = self._fails
            kernel.sleep(at_ms / 1000)
            kernel.trace("-- %s %d", name, detail)
            getattr(self, f"_{name}")(detail)
            self._harms -= 1

        kernel.start(kernel.processes[1], run, name)

    @property
    def _server(self) -> SimulatedMaster:
        assert self._master is not None
        return self._master

    @property
    def workers(self) -> list[Process]:
        """Those that are alive."""
        processes = self.kernel.processes.values()
        return [one for one in processes if isinstance(one.facts, int) and one.status is None]

    def _kill_worker(self, detail: int) -> None:
        if workers := self.workers:
            self._kill(workers[detail % len(workers)])

    def _kill_parker(self, _detail: int) -> None:
        if self.parker is not None:
            self._kill(self.parker)

    def _kill(self, process: Process) -> None:
        """Kill a process: now, or after some steps of it."""
        steps = self.kernel.choices.below(300) - 100
        if steps > 0:
            process.doom = steps
        else:
            self.kernel.signal(process, 9)

    def _freeze(self, _detail: int) -> None:
        some = [self.parker or self.master, *self.workers, self.master]
        self._freeze_one(some[self.kernel.choices.below(len(some))])

    def _freeze_parker(self, _detail: int) -> None:
        if self.parker is not None:
            self._freeze_one(self.parker)

    def _freeze_one(self, process: Process) -> None:
        """Have a process not run for a while."""
        ms = (2, 15, 40, 300)[self.kernel.choices.below(4)]
        self.kernel.trace("%s is frozen for %d ms", process, ms)
        process.frozen_ns = self.kernel.now_ns + ms * 1_000_000

    def _term(self, detail: int) -> None:
        if workers := self.workers:
            self.kernel.signal(workers[detail % len(workers)], 15)

    def _retire(self, detail: int) -> None:
        self._order(lambda: self._server.pool.retire(1 + detail % 2))

    def _retire_and_kill(self, detail: int) -> None:
        """Retire a worker that is killed before it reads that."""
        workers = self.workers
        if not workers:
            return
        worker = workers[detail % len(workers)]

        def end() -> None:
            if worker.facts in self._server.pool.workers and worker.status is None:
                self._server.pool.order(worker.facts, Order.RETIRE)
                self.kernel.signal(worker, 9)

        self._order(end)

    def _scale(self, detail: int) -> None:
        workers = Workers(1 + detail % 3, 1 + detail % 3 + detail % 2)
        self._order(lambda: self._server.scale(workers))

    def _stop(self, detail: int) -> None:
        def stop() -> None:
            self.account.is_stopping = True
            self.account.stops_at_once = detail == 3
            self.account.lost_parker |= detail == 3  # which is killed
            self._server.stop(graceful=detail < 3)

        self._order(stop)

    def _order(self, call: Callable[[], object]) -> None:
        """Have the master do something, as if by its control socket."""
        self._todo.append(call)
        self.orders.value += 1
        self.orders.changed()

    def obey(self) -> None:
        """Do what was ordered; called in the master."""
        self.orders.value = 0
        while self._todo:
            self._todo.popleft()()

    # -- what must be at the end

    def _look(self) -> None:
        """Look whether every client is content and nothing is left."""
        fail = self.kernel.fail
        for client in self.clients:
            if not client.is_done:
                fail(f"client {client.number} waits for ever")
        if self.account.is_stopping:
            if self._is_open:
                fail("the server does not stop")
        elif self.parker is None or self.parker.status is not None:
            fail("there is no parker")
        elif not self.kernel.failures:
            self._look_at(self.parker, self.workers)

    def _look_at(self, parker: Process, workers: list[Process]) -> None:
        """Look whether the pool has its size, and no process has a descriptor too many."""
        fail, bounds = self.kernel.fail, self._server.settings.workers
        if not bounds.min <= len(workers) <= bounds.max:
            fail(f"there are {len(workers)} workers, not {bounds}")
        for process in (self.master, parker, *workers):
            left = [file for file in process.fds.values() if isinstance(file, Stream)]
            if left:
                fail(f"{process.name} still has {len(left)} connections")
        counts = [
            (parker, 3 + len(workers)),
            (self.master, 7 + 4 * len(workers) + self._server.board.used),
        ]
        for process, most in counts:
            if len(process.fds) > most:
                kinds = sorted(file.kind for file in process.fds.values())
                fail(f"{process.name} has {len(kinds)} descriptors, not {most}: {kinds}")
