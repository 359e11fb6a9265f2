"""One client's connection in the worker that holds it: read, answer, write happen here, in three steps.

Runs in workers. A connection does not know its holder, and its holder never writes into it: every
assignment to ``needs`` and to the rest of its state is in this file. ``needs`` says what the holder
must arrange after each turn::

    READ ── data ──► (answer) ── all sent ──► READ       wait until the client sends something
                       │  └── more requests ─► AGAIN     take the next turn; one is 2 ms or 64 KiB
                       └── client is slow ───► WRITE     wait until the client reads
    AGAIN ── turn ──► (answer)          WRITE ── all sent ──► READ or AGAIN
    (answer) ── the request waits ──► WAIT      for the parker, or until the client leaves
    any ── end of stream, failure, deadline, close() ──► CLOSED     (answer) ── start_tls ──► HANDSHAKE
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Sequence
from time import monotonic, monotonic_ns

from attrs import frozen

from linepool import core
from linepool.batch import end_batch
from linepool.conversation import Conversation
from linepool.core.rules import AGAIN, BATCH_BYTES, BATCH_NS, CLOSED, HANDSHAKE, READ, WAIT, WRITE
from linepool.errors import IncompleteError
from linepool.ipc import channel
from linepool.ipc.board import BOUND
from linepool.ipc.messages import ConnectionState
from linepool.ipc.waiting import Waiting, Why
from linepool.kernel.lingering import PATIENCE, last_call
from linepool.kernel.sockets import CHUNK, DONTWAIT, send_with_end, socket_cookie, unread_bytes
from linepool.protocols.base import Bad, Request
from linepool.pubsub.messages import Message
from linepool.service import NO_ENTRY
from linepool.session import Session
from linepool.worker.age import QUIET_S, old_at
from linepool.worker.client_limit import client_limit_ns
from linepool.worker.context import WorkerContext
from linepool.worker.handle import Handle
from linepool.worker.moving import seconds_to_stay
from linepool.worker.streaming import Stream
from linepool.worker.transport import Transport
from linepool.worker.waiting import WaitingRequests, end_beside, run_beside
from linepool.worker.waiting import answer as answer_waiting

log = logging.getLogger("linepool")


@frozen
class Arrival:
    """How a connection has come to its worker.

    Attributes:
        stays_until: When it may be handed off again without need, because its state is large; monotonic.
        was_quiet: For how long it had been quiet, in seconds, when it came back from the parker.
    """

    stays_until: float = 0.0
    was_quiet: float = 0.0


class Connection(core.ConnectionFields):
    """A connection, its conversation and its deadlines; ``core_connection`` has what the core needs besides.

    The fields that the core uses too are described where they are declared, in ``core.plain``.

    Attributes:
        socket: The client's, with its ``descriptor``.
        arrival: How it has come from another process.
        lingers: It was ended by the server, and the client may not have read everything.
        lost_framing: The client sent what cannot be understood, and may keep sending.
        waiting: What its request waits for, or has waited for until now; None: none does.
        beside: Requests that wait and are overtaken by others, first those that are to be run again.
    """

    # Rarely read attributes are set here, so that a new connection need not set them.
    arrival = Arrival()
    lingers = lost_framing = False
    waiting: Waiting | None = None
    beside: list[Waiting] | None = None
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
        self.descriptor = transport.socket.fileno()
        self.place = place
        self.cookie = cookie or socket_cookie(transport.socket)
        self.needs, self.read_by = READ, 0.0
        self.quiet_since, self.accepted_at = monotonic(), accepted_at
        self.origin = self.shown = self.taken = 0
        self.served = self.is_replaceable = self.is_plain = self.more = False
        self._set_up(transport, session, context)

    def _set_up(self, transport: Transport, session: Session, context: WorkerContext) -> None:
        """Make what the compiled core can do without."""
        self.socket = transport.socket
        self._transport = transport
        self._recv = transport.recv
        self._replies = transport.replies
        self._context = context
        self._board = context.board
        self.conversation = Conversation(context.service, session, context.resources, self)
        self.encrypted = None if transport.may_move else transport
        self.conversation.runs = context.board.runs
        self.protocol = self.conversation.protocol
        context.watch(self.conversation)
        self._stream: Stream | None = None  # the reply that is being sent in parts

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self.conversation.session.peer

    @property
    def _number(self) -> int:
        """Its number as the board has it while it is served."""
        return self.descriptor + 1 + self._transport.mark

    def begin(self, flags: int = DONTWAIT) -> None:
        """Greet a new client, and serve it if it has sent something; ``flags`` as ``on_readable``."""
        if self._context.service.greets:
            self._board.serving(self.cookie, self._number)
            try:
                self._replies.append(self._context.run_hooks(self.conversation.greet))
                self._transport.flush()
            except OSError:
                self.abort()
            self._board.count_errors(*self.conversation.take_errors())
            self._settle()
        if self.needs == READ:
            self.on_readable(flags)

    def on_readable(self, flags: int = DONTWAIT) -> None:
        """Read what has arrived, answer every complete request in it, and send the replies.

        ``flags`` are those of recv(); 0: wait for the client, as long as its socket does.
        """
        # Published before the read: bytes that were read are lost with this worker.
        self._board.serving(self.cookie, self._number)
        all_sent = True
        try:
            data = self._recv(CHUNK, flags)
            self.taken += len(data)
            if not data:
                self.needs = CLOSED
                self._replies += [one.reply for one in self.beside or ()]
                self._replies.append(self.conversation.eof_reply())
            elif self.served or self.conversation.admit(data):
                self._context.figures.arrived(self.socket, monotonic_ns())
                self.protocol.feed(data)
                self._answer(len(data))
            else:
                self.lost_framing = True
            all_sent = self._transport.flush()
        except BlockingIOError:  # a new client that has not sent anything yet
            self.is_replaceable = self.protocol.is_replaceable
        except OSError as error:
            self.abort(was_reset=isinstance(error, ConnectionResetError))
        if self.more or not all_sent or self.conversation.closing or self.waiting or self.beside:
            self._settle()
        self._publish()

    def take_turn(self) -> None:
        """Send more of what is unsent, continue a stream, or answer more of what has arrived."""
        self._board.serving(self.cookie, self._number)
        try:
            if self._transport.send_unsent() and self._finish_stream() and self.more:
                self._answer()
                self._transport.flush()
        except OSError:
            self.abort()
        self._end_turn()

    def deliver(self, message: Message) -> None:
        """Send the client a message; raises OSError if it is gone, or does not keep up."""
        if self.needs == CLOSED:
            return  # it was aborted, and its subscriptions are dropped soon
        data = self.protocol.encode_message(message)
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
        if self.read_by:
            return self.read_by
        if self.waiting is not None or self.beside:
            return float("inf")  # the parker knows when its time is up
        if self._context.subscriptions.topics(self):
            return float("inf")  # a subscriber is not idle
        idle_by = self.quiet_since + self._context.settings.idle_timeout
        if not self._context.may_age or self.protocol.in_transaction:
            return idle_by
        return min(idle_by, max(self.ends_at, self.quiet_since + QUIET_S))

    @property
    def ends_at(self) -> float:
        """When it is old: it ends at the next moment between two requests; infinite: never."""
        return old_at(self._context.settings.connection_max_age, self.accepted_at, self.cookie)

    @property
    def _is_old(self) -> bool:
        # Without a look at the clock, for this is asked at each turn.
        return self.quiet_since >= self.ends_at

    def look_at_age(self, now: float) -> None:
        """Have its next turn end it if it is old by now, right behind the replies."""
        if self._context.may_age and now >= self.ends_at:
            self.is_plain = False  # that turn is not the core's

    def expire(self) -> None:
        """End it, because the client has not sent or read what it should have."""
        if self._transport.unsent:
            self.abort()
            return
        if self.read_by:
            limit = f"{self._context.settings.read_timeout:g} s"
            error = IncompleteError(f"the request did not arrive within {limit}; it was not run")
            with contextlib.suppress(OSError):
                self._replies.append(self.protocol.encode_error(error, None))
                self._transport.flush()
        elif self._context.may_age and unread_bytes(self.descriptor):
            return  # it is not quiet any more: that is answered first
        self._close_lingering()

    def hang_up(self, now: float, since: float) -> None:
        """End it if the client is quiet, because the worker has been leaving since ``since``."""
        first = self.waiting or next(iter(self.beside or ()), None)
        if first is not None and (first.why or first is not self.waiting):
            if not first.why:  # the parker could not take it
                end_beside(self)
                self.more, self.needs = True, AGAIN
            return  # it is to be run a last time
        self._end_by = end_by = self._end_by or max(since, now) + PATIENCE
        quiet, at_boundary = max(self.quiet_since, since), self.protocol.at_boundary
        quiet_until = last_call(
            quiet, end_by, self.accepted_at, served=self.served, at_boundary=at_boundary
        )
        if self._stream is not None and self._stream.has_overstayed(now, since):
            self.abort()
        elif now >= quiet_until and not self._transport.unsent:
            self._close_lingering()

    @property
    def is_bound(self) -> bool:
        """Whether it must stay in this worker, at least for now."""
        pinned = self.encrypted or self.conversation.pinned
        return bool(pinned or self._transport.unsent or self._stream)

    @property
    def waits(self) -> WaitingRequests | None:
        """The requests that wait in this worker; None: they cannot."""
        return self._context.waits

    def resume(self, waiting: Waiting, number: int) -> None:
        """Have the request that waits run again in the next turn.

        Args:
            waiting: What is known of it.
            number: Under which the parker has woken it; 0: it has not.
        """
        waiting.gift, waiting.stays_as = number, 0
        self.waiting = waiting
        self.is_plain = False  # that turn is not the core's
        self.more, self.needs = True, AGAIN

    def rest(self) -> None:
        """Go on though requests wait beside it, and it cannot be handed off, for now or for good."""
        self.needs = READ
        if self.is_bound:
            end_beside(self)
            self.more, self.needs = True, AGAIN

    def _load_waits(self, some: Sequence[Waiting], number: int) -> None:
        """Take over the requests that wait; for the arguments, see ``resume``."""
        if not some[0].request:
            self.resume(some[0], number)
            return
        self.beside = sorted(some, key=lambda one: one.why == Why.WAITS)
        due = [one for one in some if one.why != Why.WAITS]
        self.is_plain = False
        if due:
            due[-1].gift = number
            self.more, self.needs = True, AGAIN

    def leave(self) -> None:
        """End it, for the client has ended its side while its request waits."""
        assert self.waiting is not None
        with contextlib.suppress(OSError):
            self._replies.append(self.waiting.reply)
            self._transport.flush()
        self._close_lingering()

    def load(self, state: ConnectionState, protocol: bytes, number: int = 0) -> None:
        """Continue what ``handoff.dump`` gave in another process; raises any Exception if it is invalid.

        ``number``: that of the connection among those that the parker has given.
        """
        if protocol:
            self.conversation.load(protocol)
            self.arrival = Arrival(self.quiet_since + seconds_to_stay(len(protocol)))
        self.served = bool(state.flags & channel.SERVED)
        self.is_replaceable = self.served and self.protocol.is_replaceable
        self.is_plain = self.served and not self.protocol.is_locked
        if state.waiting:
            self._load_waits(state.waiting, number)
            return
        self.look_at_age(self.quiet_since)
        if state.flags & channel.MORE:
            self.more, self.needs = True, AGAIN
        if state.flags & channel.PARTIAL:
            self.read_by = state.deadline
        elif state.deadline < self.ends_at:  # else it does not say since when it was quiet
            was_quiet = self.quiet_since + self._context.settings.idle_timeout - state.deadline
            self.arrival = Arrival(self.arrival.stays_until, was_quiet)

    def abort(self, *, was_reset: bool = False) -> None:
        """End it at once: the connection is reset when it is closed, unless the client has done so."""
        self._board.drop()
        self._transport.abort(was_reset=was_reset)
        self._board.count_errors(*self.conversation.take_errors())
        self.needs = CLOSED

    def fail(self) -> None:
        """End it because of an exception out of its protocol, which is logged."""
        log.exception("connection closed: its protocol failed peer=%s", self.peer)
        self.lost_framing = True
        self._context.run_hooks(lambda: end_batch(self.conversation))
        self._board.count_errors(*self.conversation.take_errors())
        with contextlib.suppress(OSError):
            self._transport.flush()  # the replies to the requests before
        self._close_lingering()

    def on_closed(self) -> None:
        """End its stream, drop its subscriptions and run the hooks for its end."""
        if self.waits is not None and (self.waiting or self.beside):
            self.waits.forget(self)
        if self._stream is not None:
            self._stream.close()
        self._context.subscriptions.drop(self)
        if self._context.service.on_disconnect or self.conversation.held is not None:
            self._board.serving(0, 0)  # if it hangs, no other connection is taken for its client
            self._context.run_hooks(self.conversation.run_disconnect_hooks)
        self.conversation.release()

    def moved(self) -> None:
        """Close this descriptor, for another process has one. May be called by: both threads."""
        self.socket.close()
        self.conversation.release()

    def open_handle(self) -> Handle:
        """Return the live connection for handlers."""
        return Handle(self, self.conversation, self._context, self._transport)

    def retract(self, reply: bytes) -> None:
        """Send a reply in place of all those that have not been sent."""
        self._replies[:] = [reply]

    def _answer(self, received: int = 0) -> None:  # noqa: C901, PLR0912, PLR0915 - calls cost
        """Answer the requests that are complete; their replies go out together.

        Stops when other connections have waited long enough; ``more`` says so then. So that this
        holds whatever the bytes are, not more than a chunk is fed at once. ``received`` bytes were fed;
        after a full chunk, more are read.
        """
        context, conversation, protocol = self._context, self.conversation, self.protocol
        if (observer := context.observer) is not None:
            observer.begin(self)
        board, replies, safe_point = self._board, self._replies, context.safe_point
        begin, last_serial = board.begin, board.serial
        figures, resources = context.figures, context.resources
        if board.brakes() != context.brakes.seen:
            context.brakes.apply()
        context.interrupts.conversation = conversation
        self.more, done, waiting = False, 0, sum(map(len, replies))  # requests; bytes in replies
        began_ns = first_ns = monotonic_ns()
        if resources.has_checks:
            resources.look_if_due()
        safe_point.is_open = True  # until the end of the batch the worker's tables are at rest
        try:
            while not conversation.closing:
                if self.beside and self.waiting is None:
                    run_beside(self)
                request = protocol.next_request()
                if request is None:
                    data = self._transport.recv_more() if received >= CHUNK else b""
                    if not data:
                        break
                    self.taken += len(data)
                    conversation.feed(data)
                    self.lost_framing |= conversation.closing
                    received = len(data)
                elif isinstance(request, Bad):
                    self.lost_framing |= request.close
                    replies.append(conversation.refuse(request))
                    waiting += len(request.reply)
                    figures.malformed(request)
                    if observer is not None:
                        observer.refused(request, began_ns)
                else:
                    line, eol, entry = request.line, request.eol, request.command or NO_ENTRY
                    limit_ns = context.limit_ns if entry.limit_ns is None else entry.limit_ns
                    if request.most_ns and self.waiting is None:
                        limit_ns = client_limit_ns(request, limit_ns, self.socket, first_ns)
                    serial, number = last_serial() + 1, entry.number
                    begin(line, len(line), len(eol), limit_ns, number, waiting, serial, began_ns)
                    if entry.waits:
                        if (answered := answer_waiting(self, request)) is None:
                            board.drop()
                            if self.waiting is None:  # others may overtake it
                                continue
                            break
                        reply = answered
                    else:
                        reply = conversation.answer(request)
                    if isinstance(reply, bytes):
                        replies.append(reply)
                        waiting += len(reply)
                        figures.ended(request, conversation, began_ns)
                        if observer is not None:
                            observer.done(request, began_ns, len(reply))
                    elif not self._begin_stream(reply, request):
                        return
                    else:
                        waiting = 0  # all of it has been sent
                    done += 1
                began_ns = monotonic_ns()
                if waiting > BATCH_BYTES or began_ns - first_ns > BATCH_NS:
                    self.more = not conversation.closing
                    break
            if resources.is_open:
                end_batch(conversation)
            if self.waiting is not None and self.waiting.why and self.waits is not None:
                self.waits.drop(self)
        finally:
            safe_point.is_open = False
            if safe_point.is_wanted:
                safe_point.wait()
            if done:
                board.finish(done, began_ns - first_ns)
                self.served = True
        if conversation.errors:
            board.count_errors(*conversation.take_errors())
        self.quiet_since = began_ns / 1e9
        self.is_replaceable = protocol.is_replaceable
        if self.is_replaceable or protocol.at_boundary or self.waiting is not None:
            self.read_by = 0.0
        elif done or not self.read_by:  # what is left belongs to another request
            self.read_by = monotonic() + context.settings.read_timeout
        if context.may_age and self._is_old:
            self._end_of_age()

    def _end_of_age(self) -> None:
        """End it behind the replies, if the client waits for nothing else and has sent nothing more."""
        if self.more or self.read_by or self.protocol.in_transaction or self._stream is not None:
            return
        if self._context.subscriptions.topics(self) or unread_bytes(self.descriptor):
            return
        send_with_end(self.socket)
        self.conversation.closing = True

    def _begin_stream(self, parts: object, request: Request, bytes_in: int = -1) -> bool:
        """Send a reply in parts; return whether all are sent, or else the rest follows later."""
        if not isinstance(parts, Generator):
            name = type(self.protocol).__name__
            raise TypeError(f"{name} must encode replies as bytes, not {type(parts).__name__}")
        if self._context.resources.is_open and not end_batch(self.conversation):
            return True
        talk, transport = self.conversation, self._transport
        self._stream = Stream(parts, request, talk, transport, self._context, bytes_in)
        if self._stream.proceed():
            self._stream = None
            return True
        self.more, self.read_by = True, 0.0  # what comes after it is read later
        return False

    def _finish_stream(self) -> bool:
        """Continue the stream, if there is one; return whether there is none any more."""
        if self._stream is not None:
            if not self._stream.resume():
                return False
            self._stream = None
            self.served = True
        return True

    def _close_lingering(self) -> None:
        self._transport.end()
        self.lingers, self.needs = True, CLOSED

    def _end_turn(self) -> None:
        """Note that the client was served, and work out what its connection needs."""
        self.quiet_since = monotonic()
        self._settle()
        self._publish()

    def _settle(self) -> None:
        """Work out what it needs."""
        if self.needs == CLOSED:
            return
        if self._transport.unsent:
            self.needs = WRITE
        elif self.conversation.starts_tls:
            self.needs = HANDSHAKE
        elif self.conversation.closing:
            self._close_lingering()
        elif (self.waiting is not None or self.beside) and not self.more:
            self.needs = WAIT
        else:
            self.needs = AGAIN if self.more else READ

    def _publish(self) -> None:
        """Publish that its turn is over, and whether it could continue in another worker by itself."""
        if self._context.observer is not None:
            self._context.observer.end(self)
        is_open = self.served and not self.protocol.is_locked and not self.beside
        self.is_plain = is_open and not self._stays and self.needs in (READ, AGAIN)
        if self._context.may_age and self._is_old:
            self.is_plain = False  # its turns may end it
        self.show()
        if self.needs != CLOSED:
            self._board.serving(0, 0)

    def show(self) -> None:
        """Publish whether it could continue in another worker without what is kept here."""
        session, shown = self.conversation.session, self.descriptor + 1
        waits = self.waiting is not None or self.beside
        if (
            self._stays
            or self.encrypted
            or waits
            or session
            or session.user
            or not self.is_replaceable
        ):
            shown += BOUND
        if self.place < 0:
            return
        if shown != self.shown:
            self.shown = shown
            self._board.publish(self.place, shown, self.cookie)
        self._board.rests(self.place, self.taken)

    @property
    def _stays(self) -> bool:
        return bool(self.conversation.pinned or self._transport.unsent or self._stream)
