"""What may happen in a world beside what its clients do: by name, at moments that the choices say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from linepool.ipc.board import Order
from linepool.settings import Workers
from tests.simulation.account import GRACEFUL_TIMEOUT
from tests.simulation.files import Counter
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

_MOMENTS_MS = (1, 5, 15, 40, 80, 150, 300, 700)
_MESSAGES = (0, 0, 0, 1, 2, 3, 5, 8)
_LOOKS, _LOOK_S = 20, 0.0001  # for a new worker
_BOOTED_S = 0.0022  # by then it is ready
_AWAITS_MESSAGES_S = 0.3
_LATE = ("", "", "parker", "master")
_LATER_MS = (0, 0, 0.02, 0.2, 1, 5, 30)


class Events:
    """The events of a world.

    Attributes:
        orders: Wakes the master.
        bounds: Those of the pool that were ordered last; None: none were.
    """

    def __init__(self, world: World) -> None:
        self._world, self._kernel = world, world.kernel
        self.orders = Counter(world.kernel)
        self.bounds: Workers | None = None
        self._harms = 0
        self._todo: deque[Callable[[], object]] = deque()
        below = world.kernel.choices.below
        self._at_ms = _MOMENTS_MS[below(len(_MOMENTS_MS))]
        self._kills_senders = below(3)
        self._late = _LATE[below(len(_LATE))]

    @property
    def are_over(self) -> bool:
        """Whether all have happened."""
        return not (self._harms or self._todo)

    def plan(self, name: str) -> None:
        """Have something happen at some moment."""
        kernel = self._kernel
        below = kernel.choices.below
        at_ms: float = _MOMENTS_MS[below(len(_MOMENTS_MS))]
        if below(3):  # at about the same time as others
            at_ms = self._at_ms + _LATER_MS[below(len(_LATER_MS))]
        messages = _MESSAGES[below(len(_MESSAGES))]
        detail = kernel.choices.below(4)
        self._harms += 1

        def run() -> None:
            if name != "kill_master" or not detail:
                self._world.await_ready()
                self._world.may_fail = self._world.fails
            kernel.sleep(at_ms / 1000)
            if messages:
                self._await_messages(messages)
            self._have_one_late()
            kernel.trace("-- %s %d", name, detail)
            getattr(self, f"_{name}")(detail)
            self._harms -= 1
            self._world.look_whether_done()

        kernel.start(kernel.processes[1], run, name)

    def _await_messages(self, count: int) -> None:
        """Have the thread wait until some messages have been sent: most hazards are near them."""
        kernel = self._kernel
        count += kernel.messages
        until_ns = kernel.now_ns + int(_AWAITS_MESSAGES_S * 1e9)
        kernel.wait(lambda: kernel.messages >= count, until_ns, (kernel.listening,))

    def _have_one_late(self) -> None:
        """Have a process come late that must notice what happens now, in some schedules."""
        below = self._kernel.choices.below
        if self._late and below(2):
            process = self._world.parker if self._late == "parker" else self._world.master
            if process is not None:
                process.frozen_ns = self._kernel.now_ns + (1, 5, 15, 40)[below(4)] * 1_000_000

    def _kill_worker(self, detail: int) -> None:
        if workers := self._world.workers:
            self._kill(workers[detail % len(workers)])

    def _kill_two(self, detail: int) -> None:
        """Kill a worker and the one after it, of which the parker hears just when that is replaced too."""
        kernel, workers = self._kernel, self._world.workers
        if not workers:
            return
        kernel.signal(workers[detail % len(workers)], 9)
        newborn: list[Process] = []
        for _ in range(_LOOKS):
            kernel.sleep(_LOOK_S)
            newborn = [one for one in self._world.workers if one not in workers]
            if newborn:
                break
        if newborn and self._world.parker is not None:
            late_s = (0.1, 0.2, 0.3, 0.5)[kernel.choices.below(4)] / 1000
            self._world.parker.frozen_ns = kernel.now_ns + int((_BOOTED_S + late_s) * 1e9)
            kernel.sleep(_BOOTED_S)
            kernel.signal(newborn[0], 9)

    def _kill_parker(self, _detail: int) -> None:
        if self._world.parker is not None:
            self._kill(self._world.parker)

    def _kill_master(self, _detail: int) -> None:
        self._kill(self._world.master)
        self._kernel.sleep(0.05)
        self._kernel.signal(self._world.master, 9)  # if that has not come to it yet

    def _kill(self, process: Process) -> None:
        """Kill a process: now, after some steps of it, or soon after it has sent something."""
        below = self._kernel.choices.below
        steps = below(300) - 100
        if self._kills_senders and below(3) < self._kills_senders:
            process.last_messages = 1 + below(3)
        elif steps > 0:
            process.doom = steps
        else:
            self._kernel.signal(process, 9)

    def _freeze(self, _detail: int) -> None:
        some = [self._world.parker or self._world.master, *self._world.workers, self._world.master]
        self._freeze_one(some[self._kernel.choices.below(len(some))])

    def _freeze_parker(self, _detail: int) -> None:
        if self._world.parker is not None:
            self._freeze_one(self._world.parker)

    def _freeze_one(self, process: Process) -> None:
        """Have a process not run for a while."""
        ms = (2, 15, 40, 300)[self._kernel.choices.below(4)]
        self._kernel.trace("%s is frozen for %d ms", process, ms)
        process.frozen_ns = self._kernel.now_ns + ms * 1_000_000

    def _term(self, detail: int) -> None:
        if workers := self._world.workers:
            self._kernel.signal(workers[detail % len(workers)], 15)

    def _retire(self, detail: int) -> None:
        self._order(lambda: self._world.server.pool.retire(1 + detail % 2))

    def _retire_and_kill(self, detail: int) -> None:
        """Retire a worker that is killed before it reads that."""
        workers = self._world.workers
        if not workers:
            return
        worker = workers[detail % len(workers)]

        def end() -> None:
            if worker.facts in self._world.server.pool.workers and worker.status is None:
                self._world.server.pool.order(worker.facts, Order.RETIRE)
                self._kernel.signal(worker, 9)

        self._order(end)

    def _reload(self, detail: int) -> None:
        """Reload: a part of the loads fails, or the workers die of what was loaded."""

        def begin() -> None:
            self._world.spoils_loads = detail > 1
            self._world.server.reload.begin()

        self._order(begin)

    def _upgrade(self, _detail: int) -> None:
        def begin() -> None:
            self._world.server.upgrade.begin()

        self._order(begin)

    def _kill_loader(self, detail: int) -> None:
        if loaders := self._world.loaders:
            self._kill(loaders[detail % len(loaders)])

    def _reload_and_kill(self, detail: int) -> None:
        """Reload, and have a loader die meanwhile."""
        self._reload(0)
        self._kernel.sleep((0.0, 0.03, 0.035, 0.2)[detail])
        self._kill_loader(self._kernel.choices.below(4))

    def _freeze_loader(self, detail: int) -> None:
        if loaders := self._world.loaders:
            self._freeze_one(loaders[detail % len(loaders)])

    def _scale(self, detail: int) -> None:
        workers = Workers(1 + detail % 3, 1 + detail % 3 + detail % 2)

        def scale() -> None:
            self.bounds = workers
            self._world.server.scale(workers)

        self._order(scale)

    def _stop(self, detail: int) -> None:
        def stop() -> None:
            account, now_ns = self._world.account, self._world.kernel.now_ns
            account.is_stopping = True
            account.patient_until_ns = min(
                account.patient_until_ns, now_ns + GRACEFUL_TIMEOUT * 1e9
            )
            account.stops_at_once |= detail == 3
            account.lost_parker |= detail == 3  # which is killed
            self._world.server.stop(graceful=detail < 3)

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
        self._world.look_whether_done()
