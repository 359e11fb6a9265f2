"""The connection of the scheme ``accept``: its worker stays with it from accept() to the end.

Runs in workers. It waits in recv() for a moment and then in poll(), where it also hears the master,
so a quiet client holds up neither an order nor the end of an orphan.
"""

from __future__ import annotations

import select
import socket
import time

from linepool.errors import ClientError
from linepool.ipc.board import HELD
from linepool.kernel.lingering import CHUNK, LONGEST, PATIENCE, unsent_bytes
from linepool.worker.live import LiveConnection

_LINGER = 1.0  # seconds to go on reading after the last word was ours
_QUIET = 0.1  # seconds without input after which a client has stopped sending
_STEP = 0.005  # seconds between two looks whether all is sent


class StayingConnection(LiveConnection):
    """A connection that has its worker to itself."""

    _end_by = 0.0  # when it ends though the client goes on; 0: not yet

    def serve(self) -> None:
        """Serve the client until it or the server ends the connection, and close."""
        words = self._slot.words
        self._take_in_hand()
        words[HELD] = 1
        try:
            self._send_now(self._greet())
            if self._talk():
                self._linger()
        except OSError:  # the client is gone, or does not read
            self._forget_unsent()
        finally:
            self._slot.drop()
            self._count_errors()
            self._put_down()
            words[HELD] = 0
            self.socket.close()
            self._audience.drop(self)
            self._say_goodbye()

    def give_up(self) -> None:
        """End the connection at once.

        Raises:
            OSError: Always.
        """
        raise TimeoutError("the subscriber does not keep up")

    def _talk(self) -> bool:
        """Answer requests until one side ends it; return whether it was ours."""
        while not self._conversation.closing:
            data = self._receive()
            if data is None:
                return True
            if not data:
                self._send_now(self._conversation.ended())
                return False
            self._protocol.feed(data if len(data) < CHUNK else self._with_more(data))
            while self._answer():
                pass
        return True

    def _flush(self) -> bool:
        self._flush_now()
        return True

    def _receive(self) -> bytes | None:
        """Return what the client sent; b"": it ended its stream; None: it is time to close."""
        if self._orders.hanging_up():
            return self._receive_last()
        if self._read_by:
            seconds = self._read_by - time.monotonic()
        elif self._audience.topics(self):
            seconds = LONGEST  # who listens is not idle
        else:
            try:
                return self.socket.recv(CHUNK)
            except BlockingIOError:  # quiet for a tick
                seconds = self._settings.idle_timeout
        give_up_at = time.monotonic() + seconds
        while self._wait(give_up_at - time.monotonic()):
            if (data := self._receive_now()) is not None:
                return data
            if self._orders.hanging_up():
                return self._receive_last()
        if self._read_by:
            limit = f"{self._settings.read_timeout:g} s"
            error = ClientError(f"the request did not arrive within {limit}; it was not run")
            self._send_now(self._protocol.encode_error(error, None))
        return None

    def _receive_last(self) -> bytes | None:
        """Return what the client still sends though it is time to end, or None: it is quiet."""
        now = time.monotonic()
        if not self._end_by:
            self._end_by = now + PATIENCE
        seconds = self._last_call(now, self._end_by) - now
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        if now < self._end_by and poller.poll(max(0.0, seconds) * 1000):
            return self._receive_now()
        return None

    def _wait(self, seconds: float) -> bool:
        """Wait for the client or an order; return whether one of them came in time."""
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        poller.register(self._orders, select.POLLIN)
        listens = bool(self._audience.topics(self))
        if listens:
            poller.register(self._audience, select.POLLIN)
        ready = poller.poll(max(0, min(seconds, LONGEST) * 1000))
        if any(fd == self._orders.fileno() for fd, _ in ready):
            self._orders.heed()
        if listens:
            self._audience.deliver()
        return bool(ready)

    def _linger(self) -> None:
        """End our side, and read on until the client has what we sent.

        Without that, input that nobody read would make the kernel reset the connection and throw
        away replies that are still on their way (tcp(7); RFC 2525, 2.17).
        """
        self.socket.shutdown(socket.SHUT_WR)
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        give_up_at = time.monotonic() + _LINGER
        while time.monotonic() < give_up_at:
            data = self._receive_now()
            if data == b"":
                return
            if data is None:
                patience = _QUIET if self._lost else _STEP
                if not poller.poll(patience * 1000) and not unsent_bytes(self.socket):
                    return
