"""The master's ends of its workers, and what it counts about them. Used by the master alone."""

from __future__ import annotations

import contextlib
import os
import socket

from attrs import asdict, define

from linepool.process.board import Sight
from linepool.process.killing import Process
from linepool.process.status_pipe import StatusPipe


class Child:
    """The master's ends of one worker.

    Attributes:
        kill_at: The moment at which it is killed if it is still there; 0: none is set.
    """

    def __init__(self, pid: int, pipe: StatusPipe, channel: socket.socket) -> None:
        self.process = Process(pid)
        self.pipe = pipe
        self.channel = channel
        self.kill_at = 0.0

    def ring(self) -> None:
        """Ring the worker's bell: an order stands on the board."""
        with contextlib.suppress(OSError):  # it is leaving, or has been rung already
            self.channel.send(b"!", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Give all descriptors back; also done by each new worker, with those of its siblings."""
        self.process.close()
        os.close(self.pipe.reader)
        self.channel.close()


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

    def add(self, sight: Sight) -> None:
        """Add the work of one worker."""
        self.requests += sight.requests
        self.errors += sight.errors
        self.connections += sight.connections

    def plus(self, sights: list[Sight]) -> dict[str, int]:
        """Return all counts, with the work of the workers that are alive."""
        total = Counters(**asdict(self))
        for sight in sights:
            total.add(sight)
        return asdict(total)
