"""The master's ends of its workers, and what it counts about them. Used by the master alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket

from attrs import asdict, define

from linepool.ipc.board import Sight
from linepool.ipc.channel import BELL
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.pidfd import Process
from linepool.pool.deadline import Escalation
from linepool.worker.interrupts import DUMP

_STACK_BYTES = 65536


class Child:
    """The master's ends of one worker.

    Attributes:
        case: The request in hand, as far as it is watched.
        kill_at: When it is killed if it is still there; 0: no such moment is set; infinite: it has
            been killed.
        why: The reason, for its client and the log: it "..."
        asked: Whether it has been asked for its stack.
        nudged: The serial number of the request for which it was last told to make way.
    """

    def __init__(
        self, pid: int, pipe: StatusPipe, channel: socket.socket, bell: int, dump: int
    ) -> None:
        self.process = Process(pid)
        self.pipe = pipe
        self.channel = channel
        self.case = Escalation()
        self.kill_at = 0.0
        self.why = ""
        self.asked = False
        self.nudged = 0
        self._bell = bell
        self._dump = dump

    def doom(self, kill_at: float, why: str) -> None:
        """Have it killed at a moment, unless it is to be killed earlier."""
        if not self.kill_at or kill_at < self.kill_at:
            self.kill_at = kill_at
            self.why = why
            self.asked = False  # what it was asked for earlier is out of date by then

    def ask_for_stack(self) -> None:
        """Have the worker write its stack; that takes a moment."""
        os.ftruncate(self._dump, 0)
        self.process.send(DUMP)
        self.asked = True

    def has_stack(self) -> bool:
        """Whether the worker has written the stack of its main thread, which comes last."""
        return "Current thread" in self.stack()

    def stack(self) -> str:
        """Return what the worker wrote when it was asked last; "": nothing."""
        return os.pread(self._dump, _STACK_BYTES, 0).decode("utf-8", "replace")

    def ring(self) -> None:
        """Ring the worker's bell: an order stands on the board."""
        with contextlib.suppress(OSError):  # it is leaving, or has been rung already
            self.channel.send(BELL, socket.MSG_DONTWAIT)

    def nudge(self, number: int) -> None:
        """Have its second thread hand on the other connections while this request is in hand."""
        self.nudged = number
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Give all descriptors back; also done by each new worker, with those of its siblings."""
        self.close_but_channel()
        self.channel.close()

    def close_but_channel(self) -> None:
        """Give back what a new parker does not need."""
        self.process.close()
        os.close(self.pipe.reader)
        os.close(self._bell)


class Dumps:
    """One memory file for each slot, where the worker's stack is written; kept for the next worker."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def of(self, slot: int) -> int:
        """Return the descriptor of a slot's file, empty."""
        if slot not in self._files:
            self._files[slot] = os.memfd_create(f"linepool-stack-{slot}")
            # Appending, so that a worker writes at the start again once the file was emptied.
            fcntl.fcntl(self._files[slot], fcntl.F_SETFL, os.O_APPEND)
        os.ftruncate(self._files[slot], 0)
        return self._files[slot]

    def keep(self, slot: int | None) -> None:
        """Close all but that of one slot."""
        for other, descriptor in self._files.items():
            if other != slot:
                os.close(descriptor)


@define
class Counters:
    """What has happened since the start."""

    requests: int = 0
    errors: int = 0
    connections: int = 0
    timeouts: int = 0
    kills: int = 0
    crashes: int = 0
    recycled: int = 0
    spawned: int = 0
    retired: int = 0
    refused: int = 0
    dropped: int = 0

    def add(self, sight: Sight) -> None:
        """Add the work of one worker."""
        self.requests += sight.requests
        self.errors += sight.errors
        self.timeouts += sight.timeouts
        self.connections += sight.connections
        self.refused += sight.refused

    def plus(self, sights: list[Sight]) -> dict[str, int]:
        """Return all counts, with the work of the workers that are alive."""
        total = Counters(**asdict(self))
        for sight in sights:
            total.add(sight)
        return asdict(total)
