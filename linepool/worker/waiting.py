"""Requests that wait, in the worker that has run their handlers. Runs in workers.

Most of them leave the worker with their connections, for the parker. One whose connection must stay, as all
with TLS must, waits here, and the parker only knows of it.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections import deque
from collections.abc import Generator, Mapping
from typing import Any
from typing import Protocol as Interface

from linepool.batch import end_batch
from linepool.conversation import Conversation
from linepool.failures import OK
from linepool.ipc import channel as channels
from linepool.ipc.board import WorkerView
from linepool.ipc.messages import Waits
from linepool.ipc.waiting import (
    MOST_BESIDE_BYTES,
    MOST_REPLY_BYTES,
    Waiting,
    Wakes,
    Why,
    parts_of,
)
from linepool.protocols.base import Request
from linepool.waiting import Wait, Waited

_TOGETHER = 64  # wake-ups that were used, of which the parker is told at once
_TELL_WITHIN = 0.05  # seconds, of fewer; if this worker dies before, others look for nothing
_RETRY = 0.005  # seconds, where the channel is full
_STAYS = 1 << 63  # added to the numbers of those that wait here: others number gifts of the parker


class Connection(Interface):
    """A connection whose request may wait; see there."""

    conversation: Conversation
    socket: socket.socket
    encrypted: Any
    waiting: Waiting | None
    beside: list[Waiting] | None

    @property
    def waits(self) -> WaitingRequests | None:
        """The requests that wait in this worker; None: they cannot."""

    @property
    def is_bound(self) -> bool:
        """Whether it must stay in this worker."""

    def resume(self, waiting: Waiting, number: int) -> None:
        """Have the request that waits run again in the next turn."""


class WaitingRequests:
    """What a worker tells the parker of requests that wait, and those that wait here.

    Args:
        board: Where the parker publishes the number of the last wake-up.
        channel: To the parker.

    Attributes:
        woken: What the parker has said of those that wait here, until it is read.
        tell_at: When ``tell`` is to be called; monotonic, in seconds.
        has_parker: There is one, which the connections of others may go to.
    """

    has_parker = True

    def __init__(self, board: WorkerView, channel: socket.socket) -> None:
        self.woken: deque[Waits] = deque()
        self._board = board
        self._channel = channel
        self._here: dict[int, Connection] = {}
        self._last = _STAYS
        self._unsent: list[int] = []  # of these, those of which the parker does not know yet
        self._settled: list[int] = []
        self._left: list[int] = []
        self._may_wait = False
        self.tell_at = math.inf

    @property
    def version(self) -> int:
        """The number of the last wake-up, before a handler looks for what it may wait for."""
        if not self._may_wait:
            self._may_wait = True
            if self._board.may_wait():
                os.sched_yield()  # from here on the others tell of what they wake
        return self._board.wakes

    def wake(self, topics: Mapping[bytes, int]) -> None:
        """Wake requests by topic. May be called by: any thread."""
        if not self._board.anybody_waits():
            return
        for part in parts_of(Wakes(topics)):
            if not channels.send(self._channel, part):
                # There are messages that the parker has not read; behind them it looks at this.
                self._board.missed_wakes()
                if channels.send(self._channel, Wakes()):
                    return

    def settle(self, number: int) -> None:
        """Tell the parker that what it has woken a request for was used: with others, for it can wait."""
        self._settled.append(number)
        if len(self._settled) >= _TOGETHER:
            self.tell_at = 0.0
        elif self.tell_at == math.inf:
            self.tell_at = time.monotonic() + _TELL_WITHIN

    def pass_on(self, topic: bytes) -> None:
        """Wake another request: this one has not used what it was woken for, or not that alone."""
        self.wake({topic: 1})

    def tell(self) -> None:
        """Tell the parker what it does not know yet; what finds no room, soon."""
        self.tell_at = math.inf if self._tell() else time.monotonic() + _RETRY

    def _tell(self) -> bool:
        while self._settled or self._left:
            if not channels.send(self._channel, Wakes({}, self._settled[:512], self._left[:512])):
                return False
            del self._settled[:512], self._left[:512]
        while self._unsent:
            connection = self._here.get(self._unsent[0])
            if connection is not None and connection.waiting is not None:
                waits = Waits(self._unsent[0], connection.waiting.packed())
                if not channels.send(self._channel, waits):
                    return False
            del self._unsent[0]
        return True

    def stay(self, connection: Connection) -> None:
        """Have a request wait whose connection stays here."""
        assert connection.waiting is not None
        self._last += 1
        connection.waiting.stays_as = self._last
        self._here[self._last] = connection
        self._unsent.append(self._last)
        self.tell_at = 0.0

    def forget(self, connection: Connection) -> None:
        """Have the request of a connection that has ended wait no more."""
        self.moved(connection)
        for waiting in (connection.waiting, *(connection.beside or ())):
            if waiting is not None:
                self._unused(waiting)
        connection.waiting = connection.beside = None

    def drop(self, connection: Connection) -> None:
        """Forget what a request has waited for that was not run again: its command waits no more."""
        waiting, connection.waiting = connection.waiting, None
        if waiting is not None:
            self._unused(waiting)

    def _unused(self, waiting: Waiting) -> None:
        if waiting.topic and waiting.why == Why.WOKEN:
            self.pass_on(waiting.topic)
        if waiting.gift:
            self.settle(waiting.gift)

    def take_woken(self) -> list[Any]:
        """Return the connections whose requests are to be run again."""
        found = []
        while self.woken:
            message = self.woken.popleft()
            if not message.number:  # a new parker, which knows of none
                self._unsent = [*self._here]
                self.tell_at = 0.0
                continue
            waiting = channels.waiting_of(message)
            connection = self._here.pop(message.number, None)
            if connection is not None:
                connection.resume(waiting, message.number)
                found.append(connection)
            elif waiting.topic:
                self.pass_on(waiting.topic)
                self.settle(message.number)
        return found

    def moved(self, connection: Connection) -> None:
        """Have a request wait here no more: its connection is not here any more, or it is run again."""
        waiting = connection.waiting
        if waiting is not None and waiting.stays_as:
            self._left.append(waiting.stays_as)
            self.tell_at = 0.0
            self._here.pop(waiting.stays_as, None)
            waiting.stays_as = 0

    def end(self) -> list[Any]:
        """Return the connections that must stay and whose requests wait here: these run a last time."""
        ended = [connection for connection in self._here.values() if connection.is_bound]
        for connection in ended:
            self.moved(connection)
            assert connection.waiting is not None
            connection.waiting.why = Why.STOPPING
            connection.resume(connection.waiting, 0)
        return ended


def answer(connection: Connection, request: Request) -> bytes | Generator[bytes, None, None] | None:
    """Return the reply to a request that may wait, or None: it waits, and was given back to its protocol.

    Its handler is alone in its batch: what others have committed is seen, and what it has done is committed
    before it waits.
    """
    conversation, waits = connection.conversation, connection.waits
    if conversation.resources.is_open and not end_batch(conversation):
        return b""
    before = connection.waiting
    if before is not None and waits is not None and _has_left(connection):
        waits.drop(connection)
        conversation.closing = True
        return before.reply
    now = time.monotonic()
    if before is not None:
        request.waited = _waited(before, now)
    beside = _beside(connection, request)
    is_over = before is not None and before.why > Why.WOKEN
    conversation.may_wait = waits is not None and beside != b"" and not is_over
    version = waits.version if waits is not None else 0
    try:
        reply = conversation.answer(request)
        wait, conversation.wait = conversation.wait, None
    finally:
        conversation.may_wait = False
    stands = not conversation.resources.is_open or end_batch(conversation)
    connection.waiting = None
    if wait is not None and waits is not None and stands:
        waiting = _waiting(wait, request, before, now)
        waiting.reply = _farewell(conversation, wait, request)
        waiting.version = version
        if beside is None:
            conversation.protocol.take_back(request)
            connection.waiting = waiting
        else:
            waiting.request = beside
            connection.beside = [*(connection.beside or ()), waiting]
        return None
    if before is not None and waits is not None:
        is_used = stands and conversation.result is OK and len(before.topics) == 1
        if before.topic and not is_used:
            waits.pass_on(before.topic)
        if before.gift:
            waits.settle(before.gift)
    return reply


def _has_left(connection: Connection) -> bool:
    """Whether the client has ended its side while its request waited: what it brings would be lost."""
    if connection.encrypted is not None:
        return False  # what comes at the end of TLS looks like data
    try:
        return not connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _beside(connection: Connection, request: Request) -> bytes | None:
    """Return a request that others may overtake while it waits, as bytes; None: they may not.

    b"": there is no room for it beside those that wait.
    """
    protocol, waits = connection.conversation.protocol, connection.waits
    if not protocol.overtakes or waits is None or not waits.has_parker or connection.is_bound:
        return None
    data = protocol.raw(request)
    taken = sum(len(one.packed()) for one in connection.beside or ())
    return data if taken + len(data) + 2 * MOST_REPLY_BYTES < MOST_BESIDE_BYTES else b""


def end_beside(connection: Connection) -> None:
    """Have all requests that others may overtake run a last time: their connection stays in its worker."""
    for waiting in connection.beside or ():
        waiting.why = Why.EXPIRED


def run_beside(connection: Connection) -> None:
    """Put the next request that is to be run again in front of what has arrived. Pre-condition: some wait."""
    beside = connection.beside
    assert beside
    if beside[0].why == Why.WAITS:
        return
    connection.waiting = beside.pop(0)
    connection.conversation.protocol.put_back(connection.waiting.request)
    connection.waiting.request = b""


def _farewell(conversation: Conversation, wait: Wait, request: Request) -> bytes:
    """Return the reply to a client that leaves while its request waits; b"": there is none."""
    with contextlib.suppress(TypeError, ValueError):  # the handler will meet it when its time is up
        reply = conversation.protocol.encode(wait.then, request)
        if len(reply) <= MOST_REPLY_BYTES:
            return reply
    return b""


def _waited(waiting: Waiting, now: float) -> Waited:
    return Waited(
        waiting.times,
        max(0.0, now - waiting.since),
        waiting.topic,
        waiting.why in (Why.EXPIRED, Why.STOPPING),
        waiting.why == Why.STOPPING,
        waiting.kept,
    )


def _waiting(wait: Wait, request: Request, before: Waiting | None, now: float) -> Waiting:
    """Return what is known of a request that waits: since when, and until when, its first wait has said."""
    if before is None:
        seconds = math.inf if wait.timeout is None else wait.timeout
        if request.most_ns:
            seconds = min(seconds, request.most_ns / 1e9)
        before = Waiting([], since=now, deadline=now + seconds, times=0)
    name = request.command.name if request.command is not None else ""
    return Waiting(
        list(wait.topics),
        since=before.since,
        deadline=before.deadline,
        times=before.times + 1,
        ticket=before.ticket,
        settles=before.gift,
        command=name.encode()[:48],
        kept=wait.keep,
    )
