"""One client's connection, in the worker that holds it: requests in, replies out.

Runs in workers. How it waits for its client is the scheme's affair: see ``staying`` and ``hot``.
"""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import struct
import time
from abc import abstractmethod
from collections.abc import Callable, Generator
from time import monotonic_ns
from typing import TypeVar

from linepool.conversation import Conversation
from linepool.ipc.board import BEGUN, CLIENT_FD, COOKIE, ERRORS, TIMEOUTS
from linepool.kernel.lingering import CHUNK, last_call
from linepool.kernel.listeners import socket_cookie
from linepool.protocols.base import Bad
from linepool.pubsub.messages import Message, PubSub
from linepool.session import Connection, Session
from linepool.worker.context import Station

_MUCH = 262144  # bytes of the next one, if so many have come
_MOST_WAITING = 65536  # bytes of replies that may wait for their send()
DONTWAIT = int(socket.MSG_DONTWAIT)
_SOON_NS = (
    2_000_000  # a reply does not wait longer than this for those behind it, nor do the others
)
_GLANCE = 0.25  # seconds between two looks at the others while a client does not read
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, forget what is unsent (socket(7))
T = TypeVar("T")


class LiveConnection(Connection):
    """A connection and its conversation.

    Attributes:
        socket: Its owner is who holds the connection.
        quiet_since: When the client was served last; monotonic, in seconds.
    """

    # What is rarely looked at stands here, so that a new one need not set it; to read it from here
    # takes three times as long.
    _served = False  # a request has come
    _lost = False  # the client sent what cannot be understood, and may go on sending

    def __init__(
        self,
        sock: socket.socket,
        session: Session,
        station: Station,
        accepted_at: float,
        cookie: int = 0,
    ) -> None:
        self.socket = sock
        self._settings = station.settings
        self._slot = station.slot
        self._words = station.slot.words
        self._number = sock.fileno() + 1  # as it stands on the board
        self._orders = station.orders
        self._alarm = station.alarm
        self._audience = station.audience
        self._rest = station.rest
        self._limit_ns = station.limit_ns
        self._conversation = Conversation(station.service, session, self, station.resources)
        self._protocol = self._conversation.protocol
        self._cookie = cookie or socket_cookie(sock)
        self._accepted_at = accepted_at
        self.quiet_since = accepted_at
        self._replies: list[bytes | memoryview] = []  # that go out together
        self._read_by = 0.0  # when an unfinished request must be complete; 0: none has begun
        self._is_replaceable = False  # as the protocol said last

    # What a handler may do with it.

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        return self._conversation.session.peer

    def close(self) -> None:
        """Close after the reply of this request; nothing behind it is executed."""
        self._conversation.closing = True

    def push(self, value: object) -> None:
        """Send a value now, encoded as a reply, behind those to earlier requests."""
        self._replies.append(self._conversation.encode(value))
        self._flush_now()

    def extend(self, seconds: float) -> None:
        """Give the request in hand that much more time from now."""
        now_ns = time.monotonic_ns()
        self._slot.extend(now_ns, int(seconds * 1e9))

    def subscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Have messages sent to this connection."""
        self._audience.add(self, (pattern, topic))
        self._conversation.pinned = True

    def unsubscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Take a subscription back."""
        self._audience.remove(self, (pattern, topic))

    def subscriptions(self, *, pattern: bool = False) -> list[bytes]:
        """Return the channels, or the patterns, that this connection has subscribed to."""
        return [name for is_pattern, name in self._audience.topics(self) if is_pattern == pattern]

    @property
    def pubsub(self) -> PubSub:
        """Where messages are published."""
        return self._audience.pubsub

    # What the audience does with it.

    def deliver(self, message: Message) -> None:
        """Send the client what somebody has published."""
        self._replies.append(self._protocol.encode_message(message))
        self._flush()

    @abstractmethod
    def give_up(self) -> None:
        """End the connection at once."""

    # What the schemes do with it.

    def _take_in_hand(self) -> None:
        """Show on the board whose requests are answered from now on."""
        words = self._words
        words[COOKIE] = self._cookie
        words[CLIENT_FD] = self._number
        self._alarm.conversation = self._conversation

    def _put_down(self) -> None:
        """Show that nobody's are."""
        self._words[CLIENT_FD] = 0

    def _greet(self) -> bytes:
        """Run the hooks for a new connection; return what the server says first."""
        if self._conversation.service.on_connect:
            return self._hooked(self._conversation.greet)
        return self._conversation.greet()

    def _say_goodbye(self) -> None:
        """Run the hooks for a connection that has ended."""
        if self._conversation.service.on_disconnect:
            self._hooked(self._conversation.end)

    def _hooked(self, call: Callable[[], T]) -> T:
        """Call what runs hooks: they have a deadline too, though only the last step reaches them."""
        self._slot.begin_hook(time.monotonic_ns(), self._limit_ns)
        try:
            return self._in_handler(call)
        finally:
            self._slot.drop()

    def _in_handler(self, call: Callable[[], T]) -> T:
        """Call what runs code of the app's: the worker's tables are at rest meanwhile."""
        rest = self._rest
        rest.is_now = True
        try:
            return call()
        finally:
            rest.is_now = False
            if rest.is_wanted:
                rest.wait()

    def _answer(self) -> bool:
        """Answer the requests that are complete; replies that are ready together go out together.

        Returns whether to go on when the others have had their turn: there may be more of them.
        """
        conversation, protocol = self._conversation, self._protocol
        slot, rest, replies = self._slot, self._rest, self._replies
        waiting = done = 0  # bytes in replies; requests
        more = False
        began_ns = first_ns = monotonic_ns()
        try:
            while not conversation.closing and (request := protocol.next_request()) is not None:
                if isinstance(request, Bad):
                    self._lost |= request.close
                    replies.append(conversation.refuse(request))
                    continue
                limit_ns = request.command.limit_ns if request.command else None
                slot.begin(
                    request, began_ns, self._limit_ns if limit_ns is None else limit_ns, waiting
                )
                rest.is_now = (
                    True  # as _in_handler() does it; its call would take 0.05 microseconds
                )
                try:
                    reply = conversation.answer(request)
                finally:
                    rest.is_now = False
                    if rest.is_wanted:
                        rest.wait()
                if isinstance(reply, bytes):
                    replies.append(reply)
                    waiting += len(reply)
                else:
                    self._stream(reply)
                done += 1
                began_ns = monotonic_ns()
                if waiting > _MOST_WAITING or began_ns - first_ns > _SOON_NS:
                    more = not conversation.closing
                    break  # the others have waited long enough
        finally:
            if done:
                slot.finish(done, began_ns - first_ns)
                self._served = True
        self._flush()
        if conversation.errors:
            self._count_errors()
        self.quiet_since = began_ns / 1e9
        self._is_replaceable = protocol.is_replaceable
        if self._is_replaceable or protocol.at_boundary:
            self._read_by = 0.0
        elif done or not self._read_by:  # what is left belongs to another request
            self._read_by = time.monotonic() + self._settings.read_timeout
        return more

    def _stream(self, reply: Generator[bytes, None, None]) -> None:
        """Send the parts of a reply as they come."""
        self._words[BEGUN] = 1
        next_part = functools.partial(next, reply, None)
        try:
            self._flush_now()
            while (part := self._in_handler(next_part)) is not None:
                self._send_now(part)
        finally:
            self._in_handler(reply.close)  # its handler ends even if the client has gone

    def _count_errors(self) -> None:
        conversation, words = self._conversation, self._words
        words[ERRORS] += conversation.errors
        words[TIMEOUTS] += conversation.timeouts
        conversation.errors = conversation.timeouts = 0

    @abstractmethod
    def _flush(self) -> bool:
        """Send the replies that wait; return whether they have all gone out.

        Raises:
            OSError: The client is gone or does not read.
        """

    def _flush_now(self) -> None:
        """Send the replies that wait, all of them."""
        data = b"".join(self._replies)
        self._replies.clear()
        self._send_now(data)

    def _send_now(self, data: bytes) -> None:
        """Send it all.

        Raises:
            OSError: The client is gone, or has not read within ``write_timeout``.
        """
        if not data:
            return
        sent = self._send_some(data)
        if sent < len(data):
            # A handler that streams or pushes is not to blame for a client that does not read.
            ran_ns = self._slot.pause(time.monotonic_ns())
            self._send_rest(memoryview(data)[sent:])
            self._slot.resume(time.monotonic_ns(), ran_ns)

    def _send_some(self, data: bytes | memoryview) -> int:
        """Send what goes out without waiting; return how many bytes that are."""
        try:
            return self.socket.send(data, DONTWAIT)
        except BlockingIOError:
            return 0

    def _send_rest(self, rest: memoryview) -> None:
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        give_up_at = time.monotonic() + self._settings.write_timeout
        while rest:
            self._is_held_up()
            seconds = give_up_at - time.monotonic()
            if seconds <= 0:
                raise TimeoutError("the client does not read")
            if poller.poll(min(seconds, _GLANCE) * 1000):
                rest = rest[self._send_some(rest) :]

    def _is_held_up(self) -> None:
        """Do what can be done for others while this client does not read."""

    def _receive_now(self, most: int = CHUNK) -> bytes | None:
        """Return what has arrived, or None: nothing."""
        try:
            return self.socket.recv(most, DONTWAIT)
        except BlockingIOError:
            return None

    def _with_more(self, data: bytes) -> bytes:
        """Return a full chunk and what has arrived behind it."""
        with contextlib.suppress(OSError):  # what has come before a reset is served all the same
            data += self._receive_now(_MUCH) or b""
        return data

    def _forget_unsent(self) -> None:
        """Have the connection reset when it is closed: what the client has not got is of no use."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _last_call(self, now: float, end_by: float) -> float:
        """Return until when to wait for the client though it is time to end.

        A client that has just connected, or has just read a reply, may have sent a request that is
        not here yet; to close now would lose it. One that goes on and on is cut off at ``end_by``.
        """
        return last_call(
            now,
            end_by,
            self._accepted_at,
            served=self._served,
            at_boundary=self._protocol.at_boundary,
        )
