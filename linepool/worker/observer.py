"""Told of each request that is done: the one place behind what counts or logs them.

Runs in workers, in pure Python and behind the compiled core. A worker in which nothing listens has none:
the context's ``observer`` is None then. What is logged is collected, and written at the end of each turn,
after the replies have been sent.
"""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Protocol

from linepool.conversation import Conversation
from linepool.errors import ReplyError
from linepool.failures import DISCONNECTED, OK, SERVER_ERROR, TIMEOUT, result_of
from linepool.kernel.sockets import waited_ns
from linepool.protocols.base import Bad, Call, Request
from linepool.service import Entry
from linepool.worker.access_lines import AccessLines, Done

log = logging.getLogger("linepool")


class Output(Protocol):
    """Where lines go."""

    trouble: str

    def write(self, data: bytes) -> bytes:
        """Write whole lines without blocking; return what could not be written."""


class _Served(Protocol):
    """A connection, as far as it is observed; see there."""

    conversation: Conversation
    socket: socket.socket


class Observer:
    """Collects the requests that are done.

    Args:
        lines: Writes them as lines.
        output: Where these go.
    """

    def __init__(self, lines: AccessLines, output: Output) -> None:
        self._lines = lines
        self._output = output
        self._done: list[Done] = []
        self._conversation: Conversation | None = None  # of this turn
        self._unread = 0  # bytes that have arrived and belong to no request yet
        self._turn_ns = 0
        self._waited_ns: int | None = None  # before this turn
        self._parts = 0  # of the present request
        self._blank = 0  # bytes of lines without a word before it
        self._dropped = 0
        self._is_cut = False  # only a part of the last line was written

    def begin(self, connection: _Served) -> None:
        """Note that a turn begins; what has been received was fed."""
        conversation = connection.conversation
        self._conversation = conversation
        unread = conversation.protocol.unread_bytes
        self._unread = (unread or 0) + conversation.taken_bytes
        self._blank = 0
        self._turn_ns = monotonic_ns()
        self._waited_ns = waited_ns(connection.socket)

    def done(self, request: Request, began_ns: int, bytes_out: int) -> None:
        """Note that a request of this turn is done."""
        conversation = self._conversation
        assert conversation is not None
        command = self._command(request)
        size = self._taken(request)
        self._add(conversation, command, request.line, request, began_ns, size, bytes_out)

    def served(
        self,
        connection: _Served,
        entry: Entry,
        line: bytes,
        request: Request | None,
        began_ns: int,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Note that the compiled core has served a request."""
        conversation = connection.conversation
        self._add(conversation, entry.name, line, request, began_ns, bytes_in, bytes_out)

    def refused(self, bad: Bad, began_ns: int) -> None:
        """Note that bytes were not a request; an empty line is not worth it."""
        size = self._taken(None)
        assert self._conversation is not None
        if self._conversation.refusal:
            taken = None if bad.close else size  # what else it has received is dropped
            self._add(self._conversation, "-", None, None, began_ns, taken, len(bad.reply))
        else:
            self._blank += size

    def watch(self, conversation: Conversation) -> None:
        """Have a conversation tell of parts of requests, and of what a turn reads and retracts."""
        told: Any = conversation
        told.outcome = functools.partial(self._outcome, conversation, conversation.outcome)
        told.feed = functools.partial(self._feed, conversation.feed)
        told.retract = functools.partial(self._retract, conversation.retract)

    def _outcome(
        self, conversation: Conversation, call: Call, request: Request, *, whole: bool = False
    ) -> Any:
        """Call the handler of a request; if it is a part of another one, note that it is done."""
        if request is conversation.request:
            return call(request, whole=whole)
        command, began_ns, result = _name(request), monotonic_ns(), TIMEOUT
        self._parts += 1
        try:
            value = call(request, whole=whole)
            result = result_of(value) if isinstance(value, ReplyError) else OK
        finally:
            outer, conversation.result = conversation.result, result
            self._add(conversation, command, request.line, request, began_ns, None, None)
            conversation.result = outer
        return value

    def opened(
        self, request: Request, conversation: Conversation, began_ns: int, bytes_in: int
    ) -> Done:
        """Return a request whose reply is a stream; ``bytes_in`` below 0: it was taken in this turn."""
        size = self._taken(request) if bytes_in < 0 else bytes_in
        return Done(
            session=conversation.session,
            command=self._command(request),
            line=request.line,
            request=request,
            began_ns=began_ns,
            ended_ns=0,
            waited_ns=self._waited(began_ns),
            bytes_in=size,
            bytes_out=0,
            result=OK,
        )

    def ended(self, done: Done, conversation: Conversation, bytes_out: int, *, whole: bool) -> None:
        """Note that a stream has ended; ``whole``: as its handler or an error has ended it."""
        result, conversation.result = conversation.result, OK
        done.result = DISCONNECTED if result == OK and not whole else result
        done.bytes_out = bytes_out
        done.ended_ns = monotonic_ns()
        self._done.append(done)

    def _feed(self, feed: Callable[[bytes], None], data: bytes) -> None:
        """Feed a protocol in the middle of a turn, and note how much that is."""
        feed(data)
        self._unread += len(data)

    def _retract(self, retract: Callable[[bytes], None], reply: bytes) -> None:
        """Have an error sent in place of all replies of this turn, and note that."""
        retract(reply)
        for done in self._done:
            if done.result == OK:
                done.result = SERVER_ERROR

    def end(self, connection: _Served) -> None:
        """Write what a turn has collected, and what its connection ends with in place of a request."""
        if connection.conversation.refusal:
            self._waited_ns = None
            self._add(connection.conversation, "-", None, None, monotonic_ns(), None, None)
        self.write()

    def write(self) -> None:
        """Write what was collected."""
        conversation = self._conversation
        if conversation is not None:
            unread = conversation.protocol.unread_bytes
            conversation.taken_bytes = self._unread - unread if unread is not None else 0
            self._conversation = None
        if self._done:
            done, self._done = self._done, []
            self._write([self._lines.line(one) for one in done])

    def _add(
        self,
        conversation: Conversation,
        command: str,
        line: bytes | None,
        request: Request | None,
        began_ns: int,
        bytes_in: int | None,
        bytes_out: int | None,
    ) -> None:
        result = conversation.refusal or conversation.result
        conversation.result, conversation.refusal = OK, ""
        session, waited_ns = conversation.session, self._waited(began_ns)
        times = began_ns, monotonic_ns(), waited_ns
        self._done.append(
            Done(session, command, line, request, *times, bytes_in, bytes_out, result)
        )

    def _command(self, request: Request) -> str:
        """Return the name of a request's command; of one that has only parts, what it is."""
        parts, self._parts = self._parts, 0
        return "(batch)" if parts and request.command is None else _name(request)

    def _taken(self, request: Request | None) -> int:
        """Return how many bytes the protocol has taken since the last call: those of a request."""
        assert self._conversation is not None
        unread = self._conversation.protocol.unread_bytes
        if unread is None:  # a protocol that does not say it
            return 0 if request is None else _size(request)
        size, self._unread, self._blank = self._blank + self._unread - unread, unread, 0
        return size

    def _waited(self, began_ns: int) -> int | None:
        if self._waited_ns is None:
            return None
        return self._waited_ns + max(0, began_ns - self._turn_ns)

    def _write(self, lines: list[str]) -> None:
        data = b"\n" * self._is_cut + ("\n".join(lines) + "\n").encode("utf-8", "replace")
        left = self._output.write(data)
        if len(left) < len(data):
            self._is_cut = not data[: len(data) - len(left)].endswith(b"\n")
        if left:
            lost = left.count(b"\n")
            if not self._dropped:
                log.warning("access log lines dropped why=%r", self._output.trouble)
            self._dropped += lost
        elif self._dropped:
            log.warning("access log written again dropped=%d", self._dropped)
            self._dropped = 0


def _name(request: Request) -> str:
    name: str = request.command.name if request.command is not None else "(unknown)"
    return name


def _size(request: Request) -> int:
    return len(request.line) + len(request.eol) + len(request.body or b"")
