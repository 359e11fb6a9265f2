"""Replies in parts and pushed values: how a worker is not held by a client that does not read them.

Runs in workers. The generator behind a stream is suspended until its client reads, and after each turn;
meanwhile the worker serves others, and the request is not in flight. A push happens in the middle of a
handler, which cannot be suspended: it waits, but only for what is more than a few replies, and not for
long.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from time import monotonic_ns

from linepool.conversation import Conversation
from linepool.protocols.base import Request
from linepool.service import NO_ENTRY
from linepool.worker.access_lines import Done
from linepool.worker.context import WorkerContext
from linepool.worker.interrupts import overdue
from linepool.worker.transport import UNSENT_BYTES, Transport

# How long before its worker is killed a stream ends: the worker takes up to half of that for its exit.
_LAST_SHARE = 0.25  # of graceful_timeout ...
_LAST_SECONDS = 1.0  # ... but not more than this
_TURN_NS = 2_000_000  # of one stream, before other connections get theirs
_PUSHED_BYTES = 1024 * 1024  # that may be unsent before a push waits


class Stream:
    """A reply that is sent in parts.

    Args:
        parts: Its parts; to ask for the next one runs the handler.
        request: What it replies to.
        conversation: The connection's.
        transport: Likewise.
        context: Of the worker.
        bytes_in: Of the request, if the compiled core has taken it; below 0: the protocol has.
    """

    def __init__(
        self,
        parts: Generator[bytes, None, None],
        request: Request,
        conversation: Conversation,
        transport: Transport,
        context: WorkerContext,
        bytes_in: int,
    ) -> None:
        self._held_back: list[bytes] = []  # messages for the client, which follow the reply
        self._held_bytes = 0
        self._parts = parts
        self._request = request
        self._conversation = conversation
        self._transport = transport
        self._context = context
        self._sent_bytes = 0
        self._observed: Done | None = None
        self._ran_ns = 0  # how long the request had been in flight when it was suspended ...
        self._limit_ns = 0  # ... and its limit, which the handler may have moved
        if context.observer is not None:
            now_ns = monotonic_ns()
            began_ns = now_ns - context.board.running_ns(now_ns)
            self._observed = context.observer.opened(request, conversation, began_ns, bytes_in)

    def proceed(self) -> bool:
        """Send parts for one turn, or until the client does not read; return whether that was all.

        If it was not, the request is suspended: its time does not run. Pre-condition: it is in flight.

        Raises:
            OSError: The client is gone.
        """
        board, transport = self._context.board, self._transport
        board.reply_begins()
        turn_ends_ns = monotonic_ns() + _TURN_NS
        while transport.flush():
            if monotonic_ns() > turn_ends_ns:
                break
            part = next(self._parts, None)
            if part is None:
                now_ns = monotonic_ns()
                self._tell(now_ns - board.running_ns(now_ns), whole=True)
                return True
            transport.replies.append(part)
            self._sent_bytes += len(part)
        self._ran_ns, self._limit_ns = board.suspend(monotonic_ns())
        return False

    def resume(self) -> bool:
        """Continue what was suspended; as ``proceed``."""
        context, request = self._context, self._request
        board = context.board
        began_ns = monotonic_ns() - self._ran_ns
        line, eol = request.line, request.eol
        number = (request.command or NO_ENTRY).number
        serial = board.serial() + 1
        board.begin(line, len(line), len(eol), self._limit_ns, number, 1, serial, began_ns)
        context.interrupts.conversation = self._conversation
        if 0 < self._limit_ns < self._ran_ns:
            self._conversation.overdue = overdue(self._limit_ns)  # the next part is an error
        if not context.safe_point.run(self.proceed):
            return False
        board.finish(1, monotonic_ns() - began_ns)
        self._transport.replies += self._held_back
        return True

    def hold_back(self, message: bytes) -> None:
        """Keep a message until the reply is complete.

        Raises:
            TimeoutError: These are too many.
        """
        self._held_back.append(message)
        self._held_bytes += len(message)
        if self._held_bytes > UNSENT_BYTES:
            raise TimeoutError("the client does not keep up")

    def has_overstayed(self, now: float, left_at: float) -> bool:
        """Whether it is to end, because its worker began to leave at ``left_at``."""
        patience = self._context.settings.graceful_timeout
        return now >= left_at + patience - min(_LAST_SECONDS, patience * _LAST_SHARE)

    def close(self) -> None:
        """End the handler, though the reply is not complete."""
        self._context.board.serving(0, 0)
        self._context.run_hooks(self._parts.close)
        self._tell(monotonic_ns() - self._ran_ns, whole=False)

    def _tell(self, began_ns: int, *, whole: bool) -> None:
        """Count the request, and tell the observer that the reply has ended; ``whole``: it is complete."""
        conversation, observer = self._conversation, self._context.observer
        figures = self._context.figures
        (figures.ended if whole else figures.cut)(self._request, conversation, began_ns)
        if observer is not None and self._observed is not None:
            observer.ended(self._observed, conversation, self._sent_bytes, whole=whole)
            if not whole:
                observer.write()


class Pushes:
    """What handlers push to one client. Those of a request wait for ``push_timeout`` altogether.

    Args:
        conversation: The connection's.
        transport: Likewise.
        context: Of the worker.
    """

    def __init__(
        self, conversation: Conversation, transport: Transport, context: WorkerContext
    ) -> None:
        self._conversation = conversation
        self._transport = transport
        self._context = context
        self._request: Request | None = None  # the last that waited ...
        self._left = 0.0  # ... and for how long it may do so, in seconds

    def push(self, value: object) -> None:
        """Send a value now, after the replies to earlier requests; raises as ``Handle.push``.

        While too much is unsent it waits, and the other connections are evacuated; the time of the
        request does not run then.
        """
        transport, context = self._transport, self._context
        self._conversation.end_batch_early()
        transport.replies.append(self._conversation.encode(value))
        if transport.flush() or transport.unsent_bytes <= _PUSHED_BYTES:
            return
        if self._request is not self._conversation.request:
            self._request = self._conversation.request
            self._left = context.settings.push_timeout
        began = time.monotonic()
        ran_ns = context.board.pause(monotonic_ns())
        try:
            with self._conversation.disarmed():
                transport.wait_sent(context.safe_point.evacuate_here, self._left)
        finally:
            context.board.resume(monotonic_ns(), ran_ns)
            self._left -= time.monotonic() - began
