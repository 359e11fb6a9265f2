"""One client's connection, in the worker that holds it: the bytes in, the bytes out, and the time.

Runs in workers. It waits in recv() for a moment and then in poll(), where it also hears the master,
so a quiet client holds up neither an order nor the end of an orphan.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import evolve, frozen

from linepool.conversation import Conversation, Service
from linepool.errors import ClientError
from linepool.process.alarm import Alarm
from linepool.process.board import (
    BEGUN,
    CLIENT_FD,
    COOKIE,
    ERRORS,
    HELD,
    TIMEOUTS,
    Slot,
)
from linepool.process.bus import Desk, fitting
from linepool.process.listeners import socket_cookie
from linepool.process.orders import Orders
from linepool.protocols.base import Bad
from linepool.session import Connection, Nowhere, PubSub, Session
from linepool.settings import Settings

log = logging.getLogger("linepool")

_CHUNK = 65536  # bytes of one recv(), and of replies that may wait for their send()
_SOON_NS = 5_000_000  # a reply does not wait longer than this for those behind it
_LINGER = 1.0  # seconds to go on reading after the last word was ours
_QUIET = 0.1  # seconds without input after which a client has stopped sending
_BREATH = 0.03  # seconds in which a client that has just read a reply sends its next request
_PATIENCE = 1.0  # seconds for clients that go on sending, or are new, when the worker leaves
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, forget what is unsent (socket(7))
_LONGEST = 2_000_000  # seconds that poll(2) can wait
_STEP = 0.005  # seconds between two looks whether all is sent
_SIOCOUTQNSD = 0x894B  # <linux/sockios.h>
_INT = struct.Struct("i")
T = TypeVar("T")


@frozen
class Station:
    """What a worker has that all its connections share."""

    service: Service
    settings: Settings
    resources: Mapping[str, Any]
    slot: Slot
    orders: Orders
    alarm: Alarm
    desk: Desk | None


class LiveConnection(Connection):
    """A connection and its conversation, from accept() to close()."""

    def __init__(self, sock: socket.socket, session: Session, station: Station) -> None:
        self._socket = sock
        self._settings = station.settings
        self._slot = station.slot
        self._orders = station.orders
        self._alarm = station.alarm
        self._desk = station.desk
        self._topics: list[tuple[bool, bytes]] = []  # subscribed to: patterns and channels
        self._limit_ns = int(station.settings.request_timeout * 1e9)
        self._conversation = Conversation(station.service, session, self, station.resources)
        self._protocol = self._conversation.protocol
        self._read_by = 0.0  # when an unfinished request must be complete; 0: none has begun
        self._replies: list[bytes] = []  # that go out together
        self._accepted_at = time.monotonic()
        self._served = False  # a request has come
        self._end_by = 0.0  # when the connection ends though the client goes on; 0: not yet
        self._lost = False  # the client sent what cannot be understood, and may go on sending

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
        self._flush()

    def extend(self, seconds: float) -> None:
        """Give the request in hand that much more time from now."""
        now_ns = time.monotonic_ns()
        self._slot.extend(now_ns, int(seconds * 1e9))

    def subscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Have messages sent to this connection."""
        if self._desk is None:
            raise ClientError("this server publishes nothing")
        if (pattern, topic) not in self._topics:
            self._desk.listen([*self._topics, (pattern, topic)])
            self._topics.append((pattern, topic))

    def unsubscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Take a subscription back."""
        if self._desk is not None and (pattern, topic) in self._topics:
            self._topics.remove((pattern, topic))
            self._desk.listen(self._topics)

    def subscriptions(self, *, pattern: bool = False) -> list[bytes]:
        """Return the channels, or the patterns, that this connection has subscribed to."""
        return [name for is_pattern, name in self._topics if is_pattern == pattern]

    @property
    def pubsub(self) -> PubSub:
        """Where messages are published."""
        return Nowhere() if self._desk is None else self._desk

    # What the worker does with it.

    def serve(self) -> None:
        """Serve the client until it or the server ends the connection, and close."""
        words = self._slot.words
        words[COOKIE] = socket_cookie(self._socket)
        words[CLIENT_FD] = self._socket.fileno() + 1
        words[HELD] = 1
        self._alarm.conversation = self._conversation
        try:
            self._send(self._hooked(self._conversation.greet))
            if self._talk():
                self._linger()
        except OSError:  # the client is gone, or does not read: what it has not got is of no use
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        finally:
            self._alarm.conversation = None
            self._slot.drop()
            self._count_errors()
            words[CLIENT_FD] = words[HELD] = 0
            self._socket.close()
            if self._desk is not None and self._topics:
                self._desk.reset()
            self._hooked(self._conversation.end)

    def _hooked(self, call: Callable[[], T]) -> T:
        """Call what runs hooks: they have a deadline too, though only the last step reaches them."""
        self._slot.begin_hook(time.monotonic_ns(), self._limit_ns)
        try:
            return call()
        finally:
            self._slot.drop()

    def _talk(self) -> bool:
        """Answer requests until one side ends it; return whether it was ours."""
        while not self._conversation.closing:
            data = self._receive()
            if data is None:
                return True
            if not data:
                self._send(self._conversation.ended())
                return False
            self._protocol.feed(data)
            self._answer()
        return True

    def _receive(self) -> bytes | None:
        """Return what the client sent; b"": it ended its stream; None: it is time to close."""
        if self._orders.hanging_up():
            return self._receive_last()
        if self._read_by:
            seconds = self._read_by - time.monotonic()
        elif self._topics:
            seconds = _LONGEST  # who listens is not idle
        else:
            try:
                return self._socket.recv(_CHUNK)
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
            self._send(self._protocol.encode_error(error, None))
        return None

    def _receive_last(self) -> bytes | None:
        """Return what the client still sends though it is time to end, or None: it is quiet.

        A client that has just connected, or has just read a reply, may have sent a request that is
        not here yet; to close now would lose it. One that goes on and on is cut off in the end.
        """
        now = time.monotonic()
        if not self._end_by:
            self._end_by = now + _PATIENCE
        if not self._served:
            wait_until = self._accepted_at + _PATIENCE
        elif self._protocol.at_boundary:
            wait_until = now + _BREATH
        else:
            wait_until = self._end_by
        seconds = min(wait_until, self._end_by) - now
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        if now < self._end_by and poller.poll(max(0.0, seconds) * 1000):
            return self._receive_now()
        return None

    def _receive_now(self) -> bytes | None:
        """Return what has arrived, or None: nothing."""
        try:
            return self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _wait(self, seconds: float) -> bool:
        """Wait for the client or an order; return whether one of them came in time."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._orders, select.POLLIN)
        if self._desk is not None and self._topics:
            poller.register(self._desk, select.POLLIN)
        ready = poller.poll(max(0, min(seconds, _LONGEST) * 1000))
        if any(fd == self._orders.fileno() for fd, _ in ready):
            self._orders.heed()
        if self._topics and self._desk is not None:
            self._deliver(self._desk)
        return bool(ready)

    def _deliver(self, desk: Desk) -> None:
        """Send the client the messages that have come for it.

        Raises:
            OSError: It does not keep up; messages are lost.
        """
        for channel, data in desk.messages():
            for message in fitting(self._topics, channel):
                self._replies.append(self._protocol.encode_message(evolve(message, data=data)))
            self._flush()
        if desk.overrun:
            log.warning("subscriber cut off peer=%s why=%r", self.peer, "it does not keep up")
            raise TimeoutError("the subscriber does not keep up")

    def _answer(self) -> None:
        """Answer every request that is complete; replies that are ready together go out together."""
        conversation = self._conversation
        slot = self._slot
        words = slot.words
        replies = self._replies
        waiting = 0  # bytes in replies
        began_ns = first_ns = sent_ns = time.monotonic_ns()
        while not conversation.closing and (request := self._protocol.next_request()) is not None:
            if isinstance(request, Bad):
                self._lost |= request.close
                replies.append(conversation.refuse(request))
                continue
            limit_ns = request.command.limit_ns if request.command else None
            slot.begin(request, began_ns, self._limit_ns if limit_ns is None else limit_ns)
            reply = conversation.answer(request)
            if isinstance(reply, bytes):
                replies.append(reply)
                waiting += len(reply)
            else:
                words[BEGUN] = 1
                self._flush()
                with contextlib.closing(reply):  # its handler ends even if the client has gone
                    for part in reply:
                        self._send(part)
            ended_ns = time.monotonic_ns()
            slot.finish(ended_ns - began_ns)
            began_ns = ended_ns
            if waiting > _CHUNK or ended_ns - sent_ns > _SOON_NS:
                self._flush()
                waiting = 0
                began_ns = sent_ns = time.monotonic_ns()
            words[BEGUN] = waiting
        self._flush()
        words[BEGUN] = 0
        self._count_errors()
        if began_ns != first_ns:
            self._served = True
            self._read_by = 0.0  # what is left belongs to another request
        if self._protocol.at_boundary:
            self._read_by = 0.0
        elif not self._read_by:
            self._read_by = time.monotonic() + self._settings.read_timeout

    def _count_errors(self) -> None:
        conversation = self._conversation
        if conversation.errors:
            self._slot.words[ERRORS] += conversation.errors
            self._slot.words[TIMEOUTS] += conversation.timeouts
            conversation.errors = conversation.timeouts = 0

    def _flush(self) -> None:
        """Send the replies that wait."""
        data = b"".join(self._replies)
        self._replies.clear()
        self._send(data)

    def _send(self, data: bytes) -> None:
        """Send it all.

        Raises:
            OSError: The client is gone, or has not read within ``write_timeout``.
        """
        if not data:
            return
        try:
            sent = self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            # A handler that streams or pushes is not to blame for a client that does not read.
            ran_ns = self._slot.pause(time.monotonic_ns())
            self._send_rest(memoryview(data)[sent:])
            self._slot.resume(time.monotonic_ns(), ran_ns)

    def _send_rest(self, rest: memoryview) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        give_up_at = time.monotonic() + self._settings.write_timeout
        while rest:
            seconds = give_up_at - time.monotonic()
            if seconds <= 0 or not poller.poll(min(seconds, _LONGEST) * 1000):
                raise TimeoutError("the client does not read")
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]

    def _linger(self) -> None:
        """End our side, and read on until the client has what we sent.

        Without that, input that nobody read would make the kernel reset the connection and throw
        away replies that are still on their way (tcp(7); RFC 2525, 2.17).
        """
        self._socket.shutdown(socket.SHUT_WR)
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        give_up_at = time.monotonic() + _LINGER
        while time.monotonic() < give_up_at:
            data = self._receive_now()
            if data == b"":
                return
            if data is None:
                patience = _QUIET if self._lost else _STEP
                if not poller.poll(patience * 1000) and not self._unsent():
                    return

    def _unsent(self) -> int:
        """Return how many bytes the kernel has yet to send; what has left will arrive."""
        if self._socket.family == socket.AF_UNIX:  # where what was sent is with the client already
            return 0
        size: int = _INT.unpack(fcntl.ioctl(self._socket, _SIOCOUTQNSD, bytes(_INT.size)))[0]
        return size
