"""The bytes of one connection, in and out. This one is plain; the one of ``tls`` encrypts.

Runs in workers. Nothing here waits for the client except ``wait_sent``.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable

from linepool.encryption import Tls
from linepool.kernel.sockets import CHUNK, DONTWAIT, reset_on_close

UNSENT_BYTES = 8 * 1024 * 1024
"""That may wait for a client; one with more does not keep up."""
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
        unsent: The beginning of what was flushed and the kernel has not taken; b"": everything was taken.
        write_by: When what is unsent must have been taken; monotonic, in seconds.
    """

    __slots__ = (
        "_later",
        "_later_bytes",
        "_write_timeout",
        "recv",
        "replies",
        "socket",
        "unsent",
        "write_by",
    )

    _later: list[bytes | memoryview]  # what follows what is unsent
    _later_bytes: int

    may_move = True
    """Whether another process can continue with the socket as it is."""
    tls: Tls | None = None
    """What is known of its encryption; None: there is none."""
    mark = 0
    """Added to the descriptor's number on the board."""

    def __init__(self, sock: socket.socket, write_timeout: float) -> None:
        self.socket = sock
        self.recv: Callable[[int, int], bytes] = sock.recv
        self.replies: list[bytes] = []
        self.unsent: bytes | memoryview = b""
        self._write_timeout = write_timeout

    def recv_more(self) -> bytes:
        """Return another chunk, or b"" if there is none now: the next ``recv`` says why."""
        with contextlib.suppress(OSError):
            return self.recv(CHUNK, DONTWAIT)
        return b""

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
            self._later.append(data)  # not joined each time: that would be quadratic
            self._later_bytes += len(data)
            if self.unsent_bytes > UNSENT_BYTES:
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
        self._later = []
        self._later_bytes = 0
        self.write_by = time.monotonic() + self._write_timeout
        return False

    @property
    def unsent_bytes(self) -> int:
        """How many bytes are unsent. Pre-condition: there are some."""
        return len(self.unsent) + self._later_bytes

    def send_unsent(self) -> bool:
        """Send more of what is unsent, if anything is, without waiting; return whether all is sent.

        Raises:
            OSError: The connection has failed.
        """
        # A view, because a copy at each step would make a long reply quadratic; b"" at the end.
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                sent = self.socket.send(self.unsent, DONTWAIT)
                self.unsent = memoryview(self.unsent)[sent:] or self._take_later()
        return not self.unsent

    def _take_later(self) -> bytes:
        later, self._later, self._later_bytes = self._later, [], 0
        return b"".join(later)

    def wait_sent(self, on_blocked: Callable[[], None], seconds: float) -> None:
        """Wait until what is unsent is sent.

        Args:
            on_blocked: Called from time to time while the client does not read.
            seconds: For how long to wait at most.

        Raises:
            TimeoutError: The client has not read it by then.
            OSError: The connection has failed.
        """
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        give_up_at = time.monotonic() + seconds
        while not self.send_unsent():
            on_blocked()
            left = give_up_at - time.monotonic()
            if left <= 0:
                raise TimeoutError("the client does not read")
            poller.poll(min(left, _LOOK_EVERY) * 1000)

    def end(self) -> None:
        """Say that the connection ends, before its socket is closed; in plain text nothing says so."""

    def abort(self, *, was_reset: bool = False) -> None:
        """Discard what is unsent, and have the connection reset when it is closed, unless it was already."""
        self.replies.clear()
        self.unsent = b""
        if not was_reset:
            reset_on_close(self.socket)
