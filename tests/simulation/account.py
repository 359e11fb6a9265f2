"""The account of a world: what its clients asked for, what became of it, and what must never be.

An invariant that does not hold is noted with the kernel; the first of them ends the schedule.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field

from linepool.ipc import channel
from linepool.ipc.board.words import BEGUN_WITH, STARTED_NS
from tests.simulation.board import SimulatedBoard
from tests.simulation.epolls import File
from tests.simulation.files import Stream

if TYPE_CHECKING:
    from linepool import Waited
    from tests.simulation.kernel import Kernel
    from tests.simulation.process import Process, Task

_LONG_NS = 10_000_000_000
"""For so long no item lies there for which a request waits."""
_CONNECTION = 1


@define(eq=False)
class Request:
    """A request of a client.

    Attributes:
        line: As it was sent.
        may_wait: Its handler may run several times.
        runs: How often its handler was begun.
        worker: Which began it last.
        began_ns: When that was last.
        ended_ns: When it returned; 0: it has not.
        reply: b"": none has come.
    """

    number: int
    line: bytes
    may_wait: bool = False
    runs: int = 0
    worker: Process | None = None
    began_ns: int = 0
    ended_ns: int = 0
    reply: bytes = b""


RAISE, KILL = "raise", "kill"
"""What the master is about to do about a request: raise RequestTimeout, or kill its worker."""
GRACEFUL_TIMEOUT = 5.0


@define(eq=False)
class Account:
    """What is known of all requests and connections.

    Attributes:
        limit_ns: After so long a request is overdue.
        is_stopping: The server was told to stop.
        stops_at_once: Handlers are interrupted for that.
        is_orphaned: The master was killed.
        lost_parker: A parker has died.
        patient_until_ns: When a graceful stop ends what is left.
    """

    kernel: Kernel
    board: SimulatedBoard
    limit_ns: int
    is_stopping: bool = False
    stops_at_once: bool = False
    is_orphaned: bool = False
    lost_parker: bool = False
    patient_until_ns: float = math.inf
    requests: dict[int, Request] = field(factory=dict)
    _items: list[tuple[str, int, int]] = field(factory=list)
    _ran: dict[Process, list[Request]] = field(factory=dict)
    _met_by: set[tuple[Process, str]] = field(factory=set)
    _awaiting: dict[Task, None] = field(factory=dict)

    @property
    def is_ending(self) -> bool:
        """Whether all processes are to end."""
        return self.is_stopping or self.is_orphaned

    # -- what handlers do

    def begins(self, number: int, process: Process) -> None:
        """Note that the handler of a request begins."""
        request = self.requests[number]
        request.runs += 1
        if request.runs > 1 and not request.may_wait:
            self.kernel.fail(f"request {number} is begun twice")
        self._runs(request, process)

    def looks(self, number: int, process: Process) -> None:
        """Note that the handler of a request that may wait begins."""
        request = self.requests[number]
        request.may_wait = True
        request.runs += 1
        if request.reply:
            self.kernel.fail(f"request {number} is run after its reply")
        self._runs(request, process)

    def _runs(self, request: Request, process: Process) -> None:
        # When the worker says so: it may have been kept waiting since.
        request.began_ns, request.ended_ns = self._word(process, STARTED_NS), 0
        request.worker = process
        self._ran[process] = [*self._ran.get(process, [])[-2:], request]
        self.kernel.trace("begins with request %d", request.number)

    def ends(self, number: int) -> None:
        """Note that the handler of a request has ended."""
        self.requests[number].ended_ns = self.kernel.now_ns

    def times_out(self, number: int) -> None:
        """Note that RequestTimeout was raised in a request."""
        self.kernel.trace("RequestTimeout in request %d", number)
        if self.kernel.now_ns - self.requests[number].began_ns < self.limit_ns:
            self.kernel.fail(f"RequestTimeout in request {number}, which is not overdue")

    def judged(self, process: Process, since_ns: int, seen_ns: int) -> None:
        """Note that a worker is to be killed for its request.

        Args:
            process: The worker.
            since_ns: Since when the master has looked at it.
            seen_ns: When its request had begun, as the worker said then; 0: it had none.
        """
        self._met(process, KILL)
        now_ns = self.kernel.now_ns
        if any(
            one and now_ns - one >= self.limit_ns
            for one in (seen_ns, self._word(process, STARTED_NS))
        ):
            return  # the handler may have ended, but the worker has not come to reply
        for request in self._ran.get(process, ()):
            until_ns = request.ended_ns or now_ns
            if until_ns >= since_ns and until_ns - request.began_ns >= self.limit_ns:
                return
        self.kernel.fail(f"{process.name} is killed, and its request is not overdue")

    def looked_at(self, process: Process) -> int:
        """Note that the master looks at the request of a worker; return when it has begun, 0: it has none."""
        started_ns = self._word(process, STARTED_NS)
        if self.kernel.now_ns - started_ns >= self.limit_ns:
            self._met(process, RAISE)
        return started_ns

    def _met(self, process: Process, what: str) -> None:
        self._met_by.add((process, what))
        for task in list(self._awaiting):
            self.kernel.wake(task)

    def await_end(self, process: Process, what: str, until_ns: int) -> None:
        """Have the thread wait until something is to be done about a worker's request, or until a moment."""
        met = (process, what)
        self._met_by.discard(met)
        self.kernel.wait(lambda: met in self._met_by, until_ns, (self._awaiting,))

    def put(self, queue: str, number: int) -> None:
        """Add an item to a queue."""
        self._items.append((queue, number, self.kernel.now_ns))

    def take(self, queues: tuple[str, ...], waited: Waited) -> int:
        """Return an item of a queue, which is taken; 0: there is none."""
        for queue in queues:
            for item in self._items:
                if item[0] == queue:
                    self._items.remove(item)
                    if waited.expired and self.kernel.now_ns - item[2] > _LONG_NS:
                        self.kernel.fail(f"nothing was woken for item {item[1]}")
                    return item[1]
        return 0

    # -- what becomes of connections

    def received(
        self, process: Process, data: bytes, files: list[File], sender: Process | None
    ) -> None:
        """Note which process has a connection now, and under which number the parker gave it."""
        for file in files:
            if isinstance(file, Stream) and data[0] == _CONNECTION:
                has_holder = file.holder is not None and file.holder.status is None
                if sender is not None and sender.name == "master" and has_holder:
                    continue  # saved from a dead worker that had passed it already
                file.number = channel.PASSED.unpack_from(data)[3]
                file.holder = process

    def dies(self, process: Process) -> None:
        """Note what a process had begun with before its files are closed."""
        if process.name == "master":
            self.is_orphaned = process.status == -9
        elif process.name == "parker":
            self.lost_parker = self.lost_parker or not self.is_stopping
            for file in process.fds.values():
                if isinstance(file, Stream):
                    file.may_be_lost = True
        elif isinstance(process.facts, int):
            process.begun_with = self._word(process, BEGUN_WITH)

    def _word(self, worker: Process, number: int) -> int:
        return self.board.peek(worker.facts, number)

    def leaves(self, worker: Process) -> None:
        """Note that a worker has left its loop."""
        files = worker.fds.values()
        held = [one for one in files if isinstance(one, Stream) and not one.is_shut]
        if held and not self.is_stopping:
            self.kernel.fail(f"{worker.name} leaves with {len(held)} connections")

    def shut(self, file: Stream, process: Process) -> None:
        """Note that a process ends the server's side of a connection."""
        self._ends(file, process, "ended")

    def lost(self, some: File, process: Process, how: str) -> None:
        """Note that no process has a connection any more."""
        assert isinstance(some, Stream)
        if some.is_shut:
            return  # it was ended before
        if how == "closed":
            self._ends(some, process, how)
        elif how == "left":
            self._ends(some, process, "closed at exit")
        elif how == "unread":
            is_late = self.kernel.now_ns >= self.patient_until_ns
            may_be_lost = some.may_be_lost or self.lost_parker or self.is_orphaned
            if not (may_be_lost or some.peer_has_left or is_late):
                self.kernel.fail(f"a connection is lost on its way: {_of(some)}")
        elif how == "shut":
            if not self.is_ending:
                self.kernel.fail("the listener is shut")
        elif self.is_orphaned or some.may_be_lost or some.peer_has_left:
            pass
        elif some.number > process.begun_with:
            self.kernel.fail(f"{process.name} dies, and {_of(some)} is lost unstarted")

    def _ends(self, file: Stream, process: Process, how: str) -> None:
        holder = file.holder
        if file.peer_has_left or file.may_be_lost or self.is_ending:
            return
        if holder is not None and holder.status is not None and file.number <= holder.begun_with:
            return  # it was served by a worker that has died
        self.kernel.fail(f"{process.name} has {how} {_of(file)} without a cause")

    # -- what clients see

    def replied(self, request: Request, line: bytes) -> None:
        """Note the reply to a request."""
        request.reply = line
        wanted = (b"DONE %d" % request.number, b"NONE %d" % request.number)
        if line in wanted or line.startswith(b"SERVER_ERROR "):
            return
        self.kernel.fail(f"request {request.number} has the reply {line!r}")

    def unanswered(self, request: Request) -> None:
        """Note that a connection has ended without the reply to a request."""
        worker = request.worker
        if worker is None or request.may_wait or self.stops_at_once:
            return
        if not worker.status and self.kernel.now_ns < self.patient_until_ns:
            self.kernel.fail(f"request {request.number} was begun, and has no reply")


def _of(file: Stream) -> str:
    return f"the connection of client {file.client}"
