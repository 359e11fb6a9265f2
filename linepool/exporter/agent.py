"""The agent-check of HAProxy: one line for each connection, which says how much of the load to send here.

Runs in the exporter. The line is that of HAProxy's documentation, "agent-check". Only the agent can take
back what it has said: a server that was told to drain takes new clients again at ``ready``, not at ``up``.
"""

from __future__ import annotations

import contextlib
import math
import random
import selectors
import socket
import time
from collections.abc import Callable, Mapping

from linepool.exporter.probes import why_not_alive
from linepool.exporter.source import Snapshot
from linepool.kernel.lingering import LingeringClose

_EVERY = 0.1  # seconds between two looks at the workers, on average
_SMOOTH_S = 1.5  # a moment counts for so long: requests of less would make the weight jump
_MOST_CLIENTS = 64  # that have their answer and are not closed yet


class IdleShare:
    """The share of the workers that are idle, smoothed. Pure: no I/O.

    Attributes:
        value: 0 to 1.
    """

    def __init__(self) -> None:
        self.value = 1.0
        self._at: float | None = None

    def add(self, tally: Mapping[str, int], busy: int, now: float) -> None:
        """Take the workers of this moment into account.

        A worker that may still be forked counts as idle, else a small pool would look full; but if no worker
        is up, nothing is idle.

        Args:
            tally: The workers by state, and ``max``, as of the last second.
            busy: How many have a client now.
            now: On the monotonic clock, in seconds.
        """
        most = max(1, tally["max"])
        is_up = tally["idle"] + tally["busy"] > 0
        share = max(0.0, 1 - busy / most) if is_up else 0.0
        kept = math.exp((self._at - now) / _SMOOTH_S) if self._at is not None else 0.0
        self.value = share + (self.value - share) * kept
        self._at = now


def agent_line(snapshot: Snapshot, idle: float, now: float) -> bytes:
    """Return the answer to an agent-check. Pure.

    The weight is never 0 %: that would take the server out of the farm, and at a peak all of them at once.

    Args:
        snapshot: The last one.
        idle: The share of the workers that are idle.
        now: On the monotonic clock, in seconds.
    """
    state = snapshot.state["state"]
    if state in ("draining", "drained", "stopping"):
        return b"drain\n"
    if state != "ready":
        return b"down #starting\n"
    if why_not_alive(snapshot, now, snapshot.at):
        return b"down #the master does not answer\n"
    return b"up ready %d%%\n" % max(1, round(100 * idle))


class AgentServer:
    """Answers agent-checks, to the end of the process.

    What a client sends (``agent-send``) is read and ignored.

    Args:
        sock: Listens.
        answer: Returns the line.
        look: Called several times a second.
    """

    def __init__(
        self, sock: socket.socket, answer: Callable[[], bytes], look: Callable[[], None]
    ) -> None:
        self._socket = sock
        self._answer = answer
        self._look = look
        self._lingering = LingeringClose()

    def run(self) -> None:
        """Serve clients."""
        self._socket.setblocking(False)
        look_at = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                if now >= look_at:
                    self._look()
                    # Not in step with the checks of a load balancer, which workers accept.
                    look_at = now + _EVERY * random.uniform(0.5, 1.5)  # noqa: S311
                self._end(selector, self._lingering.expired(now))
                due = min(look_at, self._lingering.due)
                for key, _ in selector.select(max(0.0, due - time.monotonic())):
                    if key.fileobj is self._socket:
                        self._accept(selector)
                    elif self._lingering.drain(key.fd):
                        self._end(selector, [key.fd])

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            client, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        client.setblocking(False)
        if not self._lingering.refuse(client, self._answer()):
            return
        if len(selector.get_map()) > _MOST_CLIENTS:
            self._lingering.close(client.fileno())
        else:
            selector.register(client, selectors.EVENT_READ)

    def _end(self, selector: selectors.BaseSelector, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            with contextlib.suppress(KeyError):
                selector.unregister(descriptor)
            self._lingering.close(descriptor)
