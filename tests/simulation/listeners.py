"""The listeners of the simulated server, and their end in a stop: models."""

from __future__ import annotations

import math
from typing import Any

from tests.simulation.files import ListenQueue
from tests.simulation.machine import here
from tests.simulation.sockets import Socket


class SimulatedListener:
    """A listener as one process has it."""

    name = key = "127.0.0.1:1"
    is_unix = False
    owned = True

    def __init__(self, queue: ListenQueue, number: int = -1) -> None:
        self.names = [self.name]
        self._queue = queue
        self.socket = Socket(fileno=here().install(queue) if number < 0 else number)

    def accept(self) -> tuple[Socket, object]:
        """Return a new connection and its client's address."""
        number, address = self.socket._accept()
        return Socket(fileno=number), address

    def queue(self) -> tuple[int, int]:
        """Return how many connections wait, and how many may."""
        return len(self._queue.queue), 128

    @property
    def is_shut(self) -> bool:
        """Whether it has ended."""
        return self._queue.is_shut

    is_ending = is_shut

    def shut(self) -> None:
        """End it in all processes."""
        self._queue.shut(here())

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another process needs to have it too."""
        return {}, [self.socket.fileno()]

    def close(self) -> None:
        """Close this process's copy."""
        self.socket.close()


class SimulatedDraining:
    """The end of the listeners in a stop: newcomers are refused, and it ends when none waits."""

    def __init__(self, listeners: list[SimulatedListener]) -> None:
        self.due_at = math.inf
        self._listeners = listeners

    def replace(self, _listeners: object, leaving: list[SimulatedListener]) -> None:
        assert not leaving

    def begin(self) -> None:
        for one in self._listeners:
            one._queue.turns_away = True
        self.due_at = 0.0

    end = begin

    def turn(self) -> None:
        now = here().kernel.now_ns / 1e9
        if now < self.due_at:
            return
        self.due_at = now + 0.01
        if not any(one.queue()[0] for one in self._listeners):
            self.due_at = math.inf
            for one in self._listeners:
                one.shut()
