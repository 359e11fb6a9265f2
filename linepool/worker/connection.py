"""One client's connection in the worker that holds it: read, answer, write happen here, in three steps.

Runs in workers. A connection does not know its holder, and its holder never writes into it: every
assignment to ``needs`` and to the rest of its state is in this file. ``needs`` says what the holder
must arrange after each turn::

    READ ── data ──► (answer) ── all sent ──► READ       wait until the client sends something
                       │  └── more requests ─► AGAIN     take the next turn; one is 2 ms or 64 KiB
                       └── client is slow ───► WRITE     wait until the client reads
    AGAIN ── turn ──► (answer)          WRITE ── all sent ──► READ or AGAIN
    any ── end of stream, failure, deadline, close() ──► CLOSED
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from time import monotonic, monotonic_ns

from linepool.batch import end_batch
from linepool.conversation import Conversation
from linepool.errors import ClientError
from linepool.ipc import channel
from linepool.ipc.board import BOUND
from linepool.kernel.lingering import PATIENCE, last_call
from linepool.kernel.sockets import CHUNK, DONTWAIT, socket_cookie
from linepool.protocols.base import Bad, Request
from linepool.pubsub.messages import Message
from linepool.service import NO_ENTRY
from linepool.session import Session
from linepool.worker.context import WorkerContext
from linepool.worker.handle import Handle
from linepool.worker.moving import portable_state, seconds_to_stay
from linepool.worker.streaming import Stream
from linepool.worker.transport import Transport

log = logging.getLogger("linepool")

READ, WRITE, AGAIN, CLOSED = range(4)

_BATCH_BYTES = 65536  # of replies that wait for those behind them
_BATCH_NS = 2_000_000  # a reply does not wait longer for those behind it, nor do other connections


class Connection:
    """A connection, its conversation and its deadlines.

    Attributes:
        socket: The client's, with its ``descriptor``.
        place: Where it is published on the board; -1: it is not.
        needs: What its holder must arrange next: READ, WRITE, AGAIN or CLOSED.
        quiet_since: When the client was served last; monotonic, in seconds.
        was_quiet: For how long it had been quiet, in seconds, when it came back from the parker.
        stays_until: When it may be handed off again without need, because its state is large; monotonic.
        lingers: It was ended by the server, and the client may not have read everything.
        lost_framing: The client sent what cannot be understood, and may keep sending.
    """

    # Rarely read attributes are set here, so that a new connection need not set them.
    was_quiet = 0.0
    stays_until = 0.0
    lingers = False
    lost_framing = False
    _end_by = 0.0  # when it ends even if the client keeps sending; 0: not set

    def __init__(
        self,
        transport: Transport,
        session: Session,
        context: WorkerContext,
        accepted_at: float,
        place: int = -1,
        cookie: int = 0,
    ) -> None:
        self.socket = transport.socket
        self.descriptor = self.socket.fileno()
        self.place = place
        self.needs = READ
        self.quiet_since = monotonic()
        self._transport = transport
        self._recv = transport.recv
        self._replies = transport.replies
        self._context = context
        self._board = context.board
        self._conversation = Conversation(context.service, session, context.resources, self)
        self._conversation.pinned = not transport.may_move
        self._conversation.runs = context.board.runs
        self._protocol = self._conversation.protocol
        self._cookie = cookie or socket_cookie(self.socket)
        self._accepted_at = accepted_at
        self._stream: Stream | None = None  # the reply that is being sent in parts
        self._more = False  # there may be further requests in what has arrived
        self._served = False  # a request has come
        self._is_replaceable = False  # as the protocol said last
        self._shown = 0  # as published on the board
        self._read_by = 0.0  # when an unfinished request must be complete; 0: none has begun

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self._conversation.session.peer

    def begin(self, flags: int = DONTWAIT) -> None:
        """Greet a new client, and serve it if it has sent something; ``flags`` as ``on_readable``."""
        if self._context.service.greets:
            self._board.serving(self._cookie, self.descriptor + 1)
            try:
                self._replies.append(self._context.run_hooks(self._conversation.greet))
                self._transport.flush()
            except OSError:
                self.abort()
            self._board.count_errors(*self._conversation.take_errors())
            self._settle()
        if self.needs == READ:
            self.on_readable(flags)

    def on_readable(self, flags: int = DONTWAIT) -> None:
        """Read what has arrived, answer every complete request in it, and send the replies.

        ``flags`` are those of recv(); 0: wait for the client, as long as its socket does.
        """
        # Published before the read: bytes that were read are lost with this worker.
        self._board.serving(self._cookie, self.descriptor + 1)
        all_sent = True
        try:
            data = self._recv(CHUNK, flags)
            if not data:
                self.needs = CLOSED
                self._replies.append(self._conversation.eof_reply())
            elif self._served or self._conversation.admit(data):
                self._protocol.feed(data)
                self._answer(len(data))
            else:
                self.lost_framing = True
            all_sent = self._transport.flush()
        except BlockingIOError:  # a new client that has not sent anything yet
            self._is_replaceable = self._protocol.is_replaceable
        except OSError as error:
            self.abort(was_reset=isinstance(error, ConnectionResetError))
        if self._more or not all_sent or self._conversation.closing:
            self._settle()
        self._publish()

    def take_turn(self) -> None:
        """Send more of what is unsent, continue a stream, or answer more of what has arrived."""
        self._board.serving(self._cookie, self.descriptor + 1)
        try:
            if self._transport.send_unsent() and self._finish_stream() and self._more:
                self._answer()
                self._transport.flush()
        except OSError:
            self.abort()
        self.quiet_since = monotonic()
        self._settle()
        self._publish()

    def deliver(self, message: Message) -> None:
        """Send the client a message; raises OSError if it is gone, or does not keep up."""
        if self.needs == CLOSED:
            return  # it was aborted, and its subscriptions are dropped soon
        data = self._protocol.encode_message(message)
        if self._stream is not None:
            self._stream.hold_back(data)
            return
        self._replies.append(data)
        self._transport.flush()
        self._settle()

    @property
    def deadline(self) -> float:
        """When ``expire`` is due if nothing is received or sent; monotonic, in seconds."""
        if self._transport.unsent:
            return self._transport.write_by
        if self._read_by:
            return self._read_by
        if self._context.subscriptions.topics(self):
            return float("inf")  # a subscriber is not idle
        return self.quiet_since + self._context.settings.idle_timeout

    def expire(self) -> None:
        """End it, because the client has not sent or read what it should have."""
        if self._transport.unsent:
            self.abort()
            return
        if self._read_by:
            limit = f"{self._context.settings.read_timeout:g} s"
            error = ClientError(f"the request did not arrive within {limit}; it was not run")
            with contextlib.suppress(OSError):
                self._replies.append(self._protocol.encode_error(error, None))
                self._transport.flush()
        self._close_lingering()

    def hang_up(self, now: float, since: float) -> None:
        """End it if the client is quiet, because the worker has been leaving since ``since``."""
        self._end_by = end_by = self._end_by or max(since, now) + PATIENCE
        quiet, at_boundary = max(self.quiet_since, since), self._protocol.at_boundary
        quiet_until = last_call(
            quiet, end_by, self._accepted_at, served=self._served, at_boundary=at_boundary
        )
        if self._stream is not None and self._stream.has_overstayed(now, since):
            self.abort()
        elif now >= quiet_until and not self._transport.unsent:
            self._close_lingering()

    @property
    def is_partial(self) -> bool:
        """Whether a part of a request has arrived."""
        return self._read_by != 0.0

    @property
    def is_bound(self) -> bool:
        """Whether it must stay in this worker, at least for now."""
        return bool(self._conversation.pinned or self._transport.unsent or self._stream)

    def dump(self, *, has_input: bool = False) -> channel.ConnectionState | None:
        """Return what ``load`` wants in another process, or None: it must stay in this worker.

        May be called by: both threads; by the evacuation thread if it is not being served.
        ``has_input`` says that the client has sent something that was not read.
        """
        most = self._context.settings.max_state_bytes
        state = None if self.is_bound else portable_state(self._conversation, most)
        if state is None:
            return None
        data, at_boundary = state
        flags = channel.SERVED * self._served + channel.PARTIAL * (not at_boundary)
        flags += channel.MORE * (self._more or has_input)
        return channel.ConnectionState(flags, self.deadline, self._accepted_at, data, self._cookie)

    def load(self, state: channel.ConnectionState, protocol: bytes) -> None:
        """Continue what was dumped in another process; raises any Exception if that is invalid."""
        if protocol:
            self._conversation.load(protocol)
            self.stays_until = self.quiet_since + seconds_to_stay(len(protocol))
        self._served = bool(state.flags & channel.SERVED)
        if state.flags & channel.MORE:
            self._more = True
            self.needs = AGAIN
        if state.flags & channel.PARTIAL:
            self._read_by = state.deadline
        else:
            self.was_quiet = self.quiet_since + self._context.settings.idle_timeout - state.deadline

    def abort(self, *, was_reset: bool = False) -> None:
        """End it at once: the connection is reset when it is closed, unless the client has done so."""
        self._board.drop()
        self._transport.abort(was_reset=was_reset)
        self._board.count_errors(*self._conversation.take_errors())
        self.needs = CLOSED

    def fail(self) -> None:
        """End it because of an exception out of its protocol, which is logged."""
        log.exception("connection closed: its protocol failed peer=%s", self.peer)
        self.lost_framing = True
        self._context.run_hooks(lambda: end_batch(self._conversation))
        self._board.count_errors(*self._conversation.take_errors())
        with contextlib.suppress(OSError):
            self._transport.flush()  # the replies to the requests before
        self._close_lingering()

    def on_closed(self) -> None:
        """End its stream, drop its subscriptions and run the hooks for its end."""
        if self._stream is not None:
            self._stream.close()
        self._context.subscriptions.drop(self)
        if self._context.service.on_disconnect:
            self._board.serving(0, 0)  # if it hangs, no other connection is taken for its client
            self._context.run_hooks(self._conversation.run_disconnect_hooks)
        self._conversation.release()

    def moved(self) -> None:
        """Close this descriptor, for another process has one. May be called by: both threads."""
        self.socket.close()
        self._conversation.release()

    def open_handle(self) -> Handle:
        """Return the live connection for handlers."""
        return Handle(self, self._conversation, self._context, self._transport)

    def retract(self, reply: bytes) -> None:
        """Send a reply in place of all those that have not been sent."""
        self._replies[:] = [reply]

    def _answer(self, received: int = 0) -> None:  # noqa: C901, PLR0912, PLR0915 - calls cost
        """Answer the requests that are complete; their replies go out together.

        Stops when other connections have waited long enough; ``_more`` says so then. So that this
        holds whatever the bytes are, not more than a chunk is fed at once. ``received`` bytes were fed;
        after a full chunk, more are read.
        """
        context, conversation, protocol = self._context, self._conversation, self._protocol
        board, replies, safe_point = self._board, self._replies, context.safe_point
        begin, default_ns, resources = board.begin, context.limit_ns, context.resources
        if board.brakes() != context.brakes.seen:
            context.brakes.apply()
        context.interrupts.conversation = conversation
        self._more = False
        waiting = done = 0  # bytes in replies; requests
        began_ns = first_ns = monotonic_ns()
        safe_point.is_open = True  # until the end of the batch the worker's tables are at rest
        try:
            while not conversation.closing:
                request = protocol.next_request()
                if request is None:
                    data = self._transport.recv_more() if received >= CHUNK else b""
                    if not data:
                        break
                    conversation.feed(data)
                    self.lost_framing |= conversation.closing
                    received = len(data)
                elif isinstance(request, Bad):
                    self.lost_framing |= request.close
                    replies.append(conversation.refuse(request))
                    waiting += len(request.reply)
                else:
                    line, eol, entry = request.line, request.eol, request.command or NO_ENTRY
                    limit_ns, number = entry.limit_ns, entry.number
                    if limit_ns is None:
                        limit_ns = default_ns
                    board.serial = serial = board.serial + 1
                    begin(line, len(line), len(eol), limit_ns, number, waiting, serial, began_ns)
                    reply = conversation.answer(request)
                    if isinstance(reply, bytes):
                        replies.append(reply)
                        waiting += len(reply)
                    elif not self._begin_stream(reply, request):
                        return
                    done += 1
                began_ns = monotonic_ns()
                if waiting > _BATCH_BYTES or began_ns - first_ns > _BATCH_NS:
                    self._more = not conversation.closing
                    break
            if resources.is_open:
                end_batch(conversation)
        finally:
            safe_point.is_open = False
            if safe_point.is_wanted:
                safe_point.wait()
            if done:
                board.finish(done, began_ns - first_ns)
                self._served = True
        if conversation.errors:
            board.count_errors(*conversation.take_errors())
        self.quiet_since = began_ns / 1e9
        self._is_replaceable = protocol.is_replaceable
        if self._is_replaceable or protocol.at_boundary:
            self._read_by = 0.0
        elif done or not self._read_by:  # what is left belongs to another request
            self._read_by = monotonic() + context.settings.read_timeout

    def _begin_stream(self, parts: Generator[bytes, None, None], request: Request) -> bool:
        """Send a reply in parts; return whether all are sent, or else the rest follows later."""
        if self._context.resources.is_open and not end_batch(self._conversation):
            return True
        self._stream = Stream(parts, request, self._conversation, self._transport, self._context)
        if self._stream.proceed():
            self._stream = None
            return True
        self._more, self._read_by = True, 0.0  # what comes after it is read later
        return False

    def _finish_stream(self) -> bool:
        """Continue the stream, if there is one; return whether there is none any more."""
        if self._stream is not None:
            if not self._stream.resume():
                return False
            self._replies += self._stream.held_back
            self._stream = None
            self._served = True
        return True

    def _close_lingering(self) -> None:
        self.lingers = True
        self.needs = CLOSED

    def _settle(self) -> None:
        """Work out what it needs."""
        if self.needs == CLOSED:
            return
        if self._transport.unsent:
            self.needs = WRITE
        elif self._conversation.closing:
            self._close_lingering()
        else:
            self.needs = AGAIN if self._more else READ

    def _publish(self) -> None:
        """Publish whether it could continue in another worker without what is kept here."""
        if self.place < 0:
            return
        shown = self.descriptor + 1
        conversation, transport = self._conversation, self._transport
        session = conversation.session
        stays = conversation.pinned or session or session.user or transport.unsent or self._stream
        if stays or not self._is_replaceable:
            shown += BOUND
        if shown != self._shown:
            self._shown = shown
            self._board.publish(self.place, shown, self._cookie)
