"""What a worker counts of each request, in its row of the figures. Runs in workers.

It costs no system call, but where a request can have waited for so long that the kernel knows it.
"""

from __future__ import annotations

import functools
import socket
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from time import monotonic_ns
from typing import Any

from linepool import core
from linepool.conversation import Conversation
from linepool.errors import ReplyError
from linepool.failures import DISCONNECTED, OK, TIMEOUT, result_of
from linepool.ipc.figures import BOUNDS_NS, Figures, Row
from linepool.ipc.figures.row import SLOW_NS
from linepool.ipc.figures.words import (
    BLOCK_WORDS,
    CLIENT_ERRORS,
    FIRST_BUCKET,
    MALFORMED,
    OTHER,
    QUEUE_OFFSET,
)
from linepool.kernel.sockets import LEAST_WAIT_NS, waited_ns
from linepool.protocols.base import Bad, Call, Request
from linepool.service import Service


class RequestFigures(core.FigureFields, Row):
    """Counts the requests of one worker.

    Attributes:
        since_ns: What a client has sent was not there before this moment on the monotonic clock; 0: it may
            have been there for longer; below 0: it is not counted.
        is_alone: Nothing else is told how a request has ended.
    """

    def __init__(self, view: memoryview | None, blocks: Sequence[int]) -> None:
        Row.__init__(self, view, blocks)
        self.is_alone = True
        self.since_ns = 0
        self._whole: Request | None = None  # of which parts were counted

    @classmethod
    def of(cls, figures: Figures | None, slot: int, services: Iterable[Service]) -> RequestFigures:
        """Return those of the worker of a slot; without figures they are for nobody else.

        Args:
            figures: Those of the server.
            slot: The worker's.
            services: All apps, in their order.
        """
        names = [entry.shown for service in services for entry in service.entries]
        if figures is None:
            return cls(None, [OTHER] * len(names))
        return cls(figures.row(slot + 1), figures.blocks(names))

    def arrived(self, sock: socket.socket, now_ns: int) -> None:
        """Count how long what a client has sent has waited for this worker."""
        since_ns = self.since_ns
        if since_ns < 0:
            return
        longest_ns = now_ns - since_ns
        if longest_ns >= LEAST_WAIT_NS:
            known_ns = waited_ns(sock)
            longest_ns = known_ns if known_ns is not None else (longest_ns if since_ns else 0)
        self.words[QUEUE_OFFSET] += longest_ns
        self.words[QUEUE_OFFSET + FIRST_BUCKET + bisect_left(BOUNDS_NS, longest_ns)] += 1

    def ended(self, request: Request, conversation: Conversation, began_ns: int) -> None:
        """Count a request that is done; one that has only parts is not counted besides these."""
        # As ``done`` does it, for the most frequent case without its call.
        took_ns, command = monotonic_ns() - began_ns, request.command
        if command is None and request is self._whole:
            self._whole = None
            return
        words, at = self.words, self.offsets[0 if command is None else command.number]
        words[at] += took_ns
        words[at + FIRST_BUCKET + bisect_left(BOUNDS_NS, took_ns)] += 1
        if took_ns > SLOW_NS or conversation.result is not OK:
            self._ended_badly(at, conversation, began_ns, began_ns + took_ns)

    def cut(self, request: Request, conversation: Conversation, began_ns: int) -> None:
        """Count a request whose reply in parts has ended before its last part."""
        if conversation.result == OK:
            conversation.result = DISCONNECTED
        self.ended(request, conversation, began_ns)

    def _ended_badly(
        self, offset: int, conversation: Conversation, began_ns: int, ended_ns: int
    ) -> None:
        """Count that a request has failed or taken long, given the first word of its block."""
        result = conversation.result
        if result is not OK:
            self.failed(offset, result)
            if self.is_alone:
                conversation.result = OK
        if ended_ns - began_ns > SLOW_NS:
            self.slow(offset, began_ns, ended_ns, result, conversation.session.peer)

    def malformed(self, bad: Bad) -> None:
        """Count bytes that are no request; an empty line is not worth it."""
        if bad.reply or bad.close:
            at = MALFORMED * BLOCK_WORDS
            self.words[at + CLIENT_ERRORS] += 1
            self.words[at + FIRST_BUCKET] += 1

    def watch(self, conversation: Conversation) -> None:
        """Have the parts of a conversation's requests counted too, each with its own command."""
        if conversation.service.has_around:
            told: Any = conversation
            told.outcome = functools.partial(self._outcome, conversation, conversation.outcome)

    def _outcome(
        self, conversation: Conversation, call: Call, request: Request, *, whole: bool = False
    ) -> Any:
        """Call the handler of a request; if it is a part of another one, count it."""
        if request is conversation.request:
            return call(request, whole=whole)
        began_ns, result = monotonic_ns(), TIMEOUT
        self._whole = conversation.request
        try:
            value = call(request, whole=whole)
            result = result_of(value) if isinstance(value, ReplyError) else OK
        finally:
            number = 0 if request.command is None else request.command.number
            self.done(number, began_ns, monotonic_ns(), result, conversation.session)
        return value
