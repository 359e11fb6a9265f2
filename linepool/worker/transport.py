"""The bytes of one connection, in and out. This one is plain; another may encrypt, or read a head first.

Runs in workers. Nothing here waits for the client except ``wait_sent``.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable

from linepool.kernel.sockets import DONTWAIT, reset_on_close

_LARGE_CHUNK = 262144  # bytes of the next recv() after a full one
_UNSENT_BYTES = 8 * 1024 * 1024  # that may wait for a client; one with more does not keep up
_LOOK_EVERY = 0.25  # seconds between two calls of ``on_blocked`` while a client does not read


class Transport:
    """A client's socket without encryption.

    Args:
        sock: It blocks; the transport never does.
        write_timeout: For how long a client may not read what is sent to it, in seconds.

    Attributes:
        recv: ``recv(size, flags)`` as of a socket: b"" at the end of the stream; raises
            BlockingIOError if nothing has arrived, another OSError if the connection has failed.
        socket: The one that an epoll set watches, and that is passed to another process.
        replies: What ``flush`` sends next, as one piece.
        unsent: What was flushed and the kernel has not taken; b"": everything was taken.
        write_by: When what is unsent must have been taken; monotonic, in seconds.
    """

    __slots__ = ("_write_timeout", "recv", "replies", "socket", "unsent", "write_by")

    may_move = True
    """Whether another process can continue with the socket as it is."""

    def __init__(self, sock: socket.socket, write_timeout: float) -> None:
        self.socket = sock
        self.recv: Callable[[int, int], bytes] = sock.recv
        self.replies: list[bytes] = []
        self.unsent: bytes | memoryview = b""
        self._write_timeout = write_timeout

    def recv_more(self, data: bytes) -> bytes:
        """Return a full chunk and what has arrived after it."""
        with contextlib.suppress(OSError):  # what came before a reset is served all the same
            data += self.recv(_LARGE_CHUNK, DONTWAIT)
        return data

    def flush(self) -> bool:
        """Send the replies as far as that is possible without waiting; return whether all are sent.

        Raises:
            TimeoutError: Too much is unsent.
            OSError: The connection has failed.
        """
        replies = self.replies
        data = replies[0] if len(replies) == 1 else b"".join(replies)
        replies.clear()
        if self.unsent:
            self.unsent = b"".join((self.unsent, data))
            if len(self.unsent) > _UNSENT_BYTES:
                raise TimeoutError("the client does not keep up")
            return False
        if not data:
            return True
        try:
            sent = self.socket.send(data, DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self.unsent = memoryview(data)[sent:]
        self.write_by = time.monotonic() + self._write_timeout
        return False

    def send_unsent(self) -> bool:
        """Send more of what is unsent, without waiting; return whether all is sent.

        Raises:
            OSError: The connection has failed.
        """
        # A view, because a copy at each step would make a long reply quadratic; b"" at the end.
        with contextlib.suppress(BlockingIOError):
            sent = self.socket.send(self.unsent, DONTWAIT)
            self.unsent = memoryview(self.unsent)[sent:] or b""
        return not self.unsent

    def wait_sent(self, on_blocked: Callable[[], None]) -> None:
        """Wait until what is unsent is sent.

        Args:
            on_blocked: Called from time to time while the client does not read.

        Raises:
            TimeoutError: The client has not read it within ``write_timeout`` from now.
            OSError: The connection has failed.
        """
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        give_up_at = time.monotonic() + self._write_timeout
        while not self.send_unsent():
            on_blocked()
            seconds = give_up_at - time.monotonic()
            if seconds <= 0:
                raise TimeoutError("the client does not read")
            poller.poll(min(seconds, _LOOK_EVERY) * 1000)

    def abort(self, *, was_reset: bool = False) -> None:
        """Discard what is unsent, and have the connection reset when it is closed, unless it was already."""
        self.replies.clear()
        self.unsent = b""
        if not was_reset:
            reset_on_close(self.socket)
