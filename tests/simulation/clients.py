"""The clients of a world: models, each with a script that the choices make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define

from tests.simulation.account import KILL, RAISE, Request
from tests.simulation.files import Stream

if TYPE_CHECKING:
    from tests.simulation.world import World

_PAUSES_MS = (0, 0, 1, 15, 70, 400)
_READS_AFTER_MS = (0, 0, 0, 20)
_WAITS_S = 20
_SLOW_MS = (1, 60, 499, 500, 500, 501, 502, 900)  # some end at about the time limit
_STUBBORN_MS = (60, 721, 724, 730, 745, 900, 3000)  # or when their worker is to be killed


@define
class Burst:
    """What a client sends at once.

    Attributes:
        pause_ms: Before that.
        requests: What it asks for.
        cut: After so many bytes it pauses again; 0: it does not.
        leaves: What it does without waiting for the replies: 1: it ends its side; 2: it is gone.
    """

    pause_ms: int
    requests: list[Request]
    cut: int = 0
    leaves: int = 0


class Client:
    """A client."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self._kernel = world, world.kernel
        self.number = number
        below = world.kernel.choices.below
        self._starts_ms = _PAUSES_MS[below(len(_PAUSES_MS))]
        self._bursts = [self._burst() for _ in range(1 + below(world.kind.bursts))]
        self._reads_after_ms = _READS_AFTER_MS[below(len(_READS_AFTER_MS))]
        self.is_done = False

    def _burst(self) -> Burst:
        below, kind = self._kernel.choices.below, self._world.kind
        requests = [self._request() for _ in range(1 + below(3) * (kind.is_rough or below(2)))]
        burst = Burst(_PAUSES_MS[below(len(_PAUSES_MS))], requests)
        if below(6) == 1:
            burst.cut = 1 + below(12)
        if kind.clients_leave and below(8) == 1:
            burst.leaves = 1 + below(2)
        return burst

    def _request(self) -> Request:
        world, below = self._world, self._kernel.choices.below
        number = len(world.account.requests) + 1
        kinds: list[Callable[[int], str]] = [lambda number: f"DO {number}"]
        if world.kind.slow:
            kinds += [
                lambda number: f"SLOW {number} {self._one_of(_SLOW_MS)}",
                lambda number: f"SLOW {number} {self._one_of(_STUBBORN_MS)} {below(3)}",
            ]
        if world.kind.is_timely:
            kinds.append(lambda number: f"LAST {number} {RAISE}")
        if world.kind.is_late:
            kinds = [
                lambda number: f"SLOW {number} {self._one_of(_STUBBORN_MS[:5])} {1 + below(2)}",
                lambda number: f"LAST {number} {KILL}",
            ]
        if world.kind.waits:
            names = "ab"
            kinds += [
                lambda number: f"PUT {number} {names[below(2)]}",
                lambda number: f"TAKE {number} {names[below(2)]} {names[below(2)]} {_WAITS_S}",
            ] * 2
        kind = world.favoured % len(kinds)
        line = kinds[kind if world.favoured and below(3) else below(len(kinds))](number)
        request = world.account.requests[number] = Request(number, line.encode() + b"\r\n")
        request.may_wait = line.startswith("TAKE")
        return request

    def _one_of(self, values: tuple[int, ...]) -> int:
        below, favoured = self._kernel.choices.below, self._world.favoured
        return values[favoured % len(values) if favoured and below(2) else below(len(values))]

    def run(self) -> None:
        """Connect, and follow the script."""
        kernel, listener = self._kernel, self._world.listener
        kernel.sleep(self._starts_ms / 1000)
        if listener.is_shut or listener.turns_away:
            self._end()
            return
        mine, theirs = Stream(kernel), Stream(kernel)
        mine.peer, theirs.peer = theirs, mine
        theirs.is_server, theirs.client = True, self.number
        theirs.room = self._world.room
        mine.refs = 1
        kernel.trace("client %d connects", self.number)
        listener.connect(theirs)
        try:
            for burst in self._bursts:
                self._send(mine, burst)
                if burst.leaves == 2:
                    break
                for request in burst.requests:
                    self._await_reply(mine, request)
                if burst.leaves:
                    break
        except (OSError, EOFError) as error:
            kernel.trace("client %d: %s", self.number, str(error) or "end of stream")
        kernel.trace("client %d leaves", self.number)
        mine.release(kernel.processes[1], "closed")
        self._end()

    def _end(self) -> None:
        self.is_done = True
        self._world.look_whether_done()

    def _send(self, end: Stream, burst: Burst) -> None:
        kernel = self._kernel
        if burst.pause_ms:
            kernel.sleep(burst.pause_ms / 1000)
        data = b"".join(request.line for request in burst.requests)
        kernel.trace("client %d sends %r", self.number, data)
        if 0 < burst.cut < len(data):
            end.send(data[: burst.cut])
            kernel.sleep(0.02)
            data = data[burst.cut :]
        kernel.tick()
        end.send(data)
        if burst.leaves == 1:
            end.shut(kernel.processes[1])

    def _await_reply(self, end: Stream, request: Request) -> None:
        kernel, data = self._kernel, bytearray()
        while not data.endswith(b"\r\n"):
            if self._reads_after_ms:
                kernel.sleep(self._reads_after_ms / 1000)
            kernel.wait(lambda: end.events() & 1, math.inf, (end.sleepers,))
            here = end.data.find(b"\n") + 1  # of the replies to come, none is read yet
            part = end.receive(here or max(1, len(end.data)))
            if not part:
                self._world.account.unanswered(request)
                raise EOFError
            data += part
        kernel.trace("client %d reads %r", self.number, bytes(data))
        self._world.account.replied(request, bytes(data[:-2]))
