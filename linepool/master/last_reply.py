"""What the master does for the client that a worker served which it kills: a last reply.

Runs in the master.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable

from linepool.kernel.lingering import LingeringClose
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.sockets import reset_on_close, unacknowledged_bytes

_DEATH_WAIT = 1.0  # seconds for a killed worker to end; then its client gets no reply
_REPLY_WAIT = 1.0  # seconds for the loader to encode it
_RESET_WAIT = 2.0  # seconds for that, and for a client with TLS to receive what was sent
_LOOK_EVERY = 0.01  # seconds between two looks whether it has


class LastReply:
    """The reply to the client that a killed worker was serving, and the end of its connection.

    It is sent once the worker is dead, so that no other process can write any more; then the loader is
    asked for it. On a busy machine both may take a while, and the master does not wait for them.

    Args:
        client: A copy of the client's socket.
        process: The worker.
        is_served: Returns whether the worker, once it is dead, still had the connection in hand. If not, it
            has replied at the last moment, and another worker may have the connection: then only the copy is
            closed.
        ask: Calls what it is given with the bytes to send, now or later; called once the worker is dead.
        selector: The master's.
        is_sealed: The connection is encrypted, with keys that died with the worker. Plain text would only
            confuse the client, and an end of the stream may look like a regular end: it is reset, once it has
            received what was sent.

    Attributes:
        is_over: The connection is closed.
        is_sent: So is the reply, or there is none.
    """

    def __init__(
        self,
        client: socket.socket,
        process: ChildProcess,
        is_served: Callable[[], bool],
        ask: Callable[[Callable[[bytes], None]], None],
        selector: selectors.BaseSelector,
        is_sealed: bool = False,
    ) -> None:
        self.is_over = self.is_sent = False
        self._client = client
        self._process = process
        self._is_served = is_served
        self._ask = ask
        self._is_asked = False
        self._selector = selector
        self._is_sealed = is_sealed
        self._lingering = LingeringClose()
        self._wait_until = time.monotonic() + _DEATH_WAIT
        self._reset_by = time.monotonic() + _RESET_WAIT

    @property
    def due(self) -> float:
        """When ``turn`` is to be called, on the monotonic clock."""
        return self._lingering.due if self._lingering else self._wait_until

    def turn(self) -> None:
        """Send the reply if the worker is dead by now; close the connection if it is time to."""
        if self.is_over:
            return
        if self._lingering:
            if self._lingering.expired(time.monotonic()):
                self._close()
        elif self._is_sealed:
            self._reset_if_received()
        elif not self._is_asked and self._process.is_dead():
            self._is_asked = True
            self._wait_until = time.monotonic() + _REPLY_WAIT
            if self._is_served():
                self._ask(self._end)
            else:
                self._client.close()
                self.is_sent = self.is_over = True
        elif time.monotonic() >= self._wait_until:
            self._end(b"")

    def _reset_if_received(self) -> None:
        now = time.monotonic()
        is_received = self._process.is_dead() and not unacknowledged_bytes(self._client)
        if is_received or now >= self._reset_by:
            reset_on_close(self._client)
            self._client.close()
            self.is_sent = self.is_over = True
        self._wait_until = now + _LOOK_EVERY

    def close(self) -> None:
        """Close this process's copy, also in a new worker."""
        self._client.close()

    def _end(self, reply: bytes) -> None:
        """Send the reply, and end the connection."""
        if self.is_over or self._lingering:
            return  # it comes too late
        self.is_sent = True
        with contextlib.suppress(OSError):  # the client is gone
            self._client.send(reply, socket.MSG_DONTWAIT)
        # The shutdown acts on the socket itself, so it reaches the client even if a process that the
        # handler started still holds it.
        if self._lingering.add(self._client, patient=True):
            self._selector.register(self._client, selectors.EVENT_READ, self._drain)
        else:
            self.is_over = True

    def _drain(self) -> None:
        if self._lingering.drain(self._client.fileno()):
            self._close()

    def _close(self) -> None:
        self._selector.unregister(self._client)
        self._lingering.close(self._client.fileno())
        self.is_over = True
