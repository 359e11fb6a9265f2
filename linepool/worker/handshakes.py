"""The connections of a worker whose TLS handshake is not finished; they hold up nothing else.

Runs in workers. A handshake is no request: no clock of one runs, and the worker counts as idle meanwhile.
One step takes 0.3 ms with a key of P-256, so in each round of the worker they get a share of its time only,
at least one step; the kernel reports the others again.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import time
from collections.abc import Callable

from attrs import define

from linepool.core.rules import BATCH_NS
from linepool.ipc.board import WorkerView
from linepool.kernel.lingering import PATIENCE
from linepool.pubsub.subscriptions import Subscriptions
from linepool.session import Session
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.tls import CLIENT_LEFT, Handshake, HandshakeError, TlsTransport

log = logging.getLogger("linepool")

_TOO_LONG = "the client took too long"
_SILENT = 1.0  # seconds after which a client that has not begun is parked
_TICK = 0.25  # seconds between two looks whether the worker is to leave
_LOG_EVERY = 60.0  # seconds between two lines about handshakes that have failed


@define(eq=False)
class Beginning:
    """A connection that is to be encrypted.

    Attributes:
        sock: The client's.
        session: What it will remember.
        accepted_at: When it was accepted, as all times here on the monotonic clock, in seconds.
        held_since: Since when this worker has it.
        origin: Where the client comes from.
        give_up_at: When it is closed.
        handshake: Its handshake.
        before: The connection in plain text that it was so far; None: it begins with TLS.
    """

    sock: socket.socket
    session: Session
    accepted_at: float
    held_since: float
    origin: int
    give_up_at: float
    handshake: Handshake
    before: Connection | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it must stay in this worker."""
        return self.before is not None or self.handshake.has_begun


def empty(session: Session) -> None:
    """Forget what a session says that was said in plain text (RFC 3207, section 4.2)."""
    session.clear()
    session.user, session.starttls = None, False


def replace(before: Connection, connection: Connection, subscriptions: Subscriptions) -> None:
    """Have an encrypted connection take the place of that in plain text, whose resources it keeps."""
    connection.conversation.held = before.conversation.held
    before.conversation.release()
    subscriptions.drop(before)


def _park_at(one: Beginning) -> float:
    """Return when a client that sends nothing is parked; infinite: it has begun."""
    return math.inf if one.has_begun else one.held_since + _SILENT


class Handshakes:
    """The unfinished handshakes of one worker.

    Args:
        context: Of the worker.
        epoll: Where their sockets are registered.

    Attributes:
        due: When ``expired`` is to be asked.
    """

    def __init__(self, context: WorkerContext, epoll: select.epoll) -> None:
        self.due = math.inf
        self._context = context
        self._epoll = epoll
        self._beginnings: dict[int, Beginning] = {}  # the oldest first
        self._round_ns = self._spent_ns = 0  # of the present round: its begin, the time in steps
        self._failures = Failures(context.board)

    def __len__(self) -> int:
        return len(self._beginnings)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._beginnings

    def add(
        self,
        sock: socket.socket,
        session: Session,
        accepted_at: float,
        origin: int,
        before: Connection | None = None,
    ) -> Beginning | None:
        """Wait for a client to begin its handshake; return the one that has to go for it, if any has.

        For the arguments see ``Beginning``.
        """
        context = self._context.of(session.listener)
        assert context.tls is not None
        now = time.monotonic()
        give_up_at = accepted_at + context.settings.tls_handshake_timeout
        service = context.service if before is None else None
        if before is not None:
            empty(session)
            give_up_at = now + context.settings.tls_handshake_timeout
        handshake = Handshake(sock, context.tls, context.settings.write_timeout, service)
        one = Beginning(sock, session, accepted_at, now, origin, give_up_at, handshake, before)
        self.put_back(one)
        if len(self._beginnings) <= context.settings.tls_max_handshakes:
            return None
        oldest = next(iter(self._beginnings.values()))
        self._fail(oldest, "too many unfinished handshakes")
        return oldest

    def step(self, descriptor: int, round_ns: int) -> tuple[Beginning, TlsTransport | None] | None:
        """Go on with a handshake whose client has sent something.

        Args:
            descriptor: Of its socket.
            round_ns: When the present round of the worker began.

        Returns:
            None if it is to go on; else the connection, which is not in the epoll set any more, with its
            transport, or None: the handshake has failed.
        """
        now_ns = time.monotonic_ns()
        if round_ns != self._round_ns:
            self._round_ns, self._spent_ns = round_ns, 0
        if self._spent_ns > BATCH_NS:
            return None
        one = self._beginnings[descriptor]
        try:
            transport = one.handshake.step()
        except HandshakeError as error:
            self._fail(one, str(error))
            return one, None
        finally:
            self._spent_ns += time.monotonic_ns() - now_ns
        if transport is None:
            return None
        self.remove(one)
        return one, transport

    def silent(self, now: float = math.inf) -> list[Beginning]:
        """Return those whose clients have sent nothing for a while: they may begin in another worker."""
        return [
            one for one in self._beginnings.values() if _park_at(one) <= now and not one.has_begun
        ]

    def remove(self, one: Beginning) -> None:
        """No longer wait for a client; its socket stays open."""
        del self._beginnings[one.sock.fileno()]
        self._epoll.unregister(one.sock)

    def put_back(self, one: Beginning) -> None:
        """Wait for a client after all."""
        one.held_since = time.monotonic()
        self._beginnings[one.sock.fileno()] = one
        self._epoll.register(one.sock, select.EPOLLIN)
        self.due = min(self.due, one.give_up_at, _park_at(one))

    replace = staticmethod(replace)

    def hurry(self, since: float) -> None:
        """Have all handshakes end soon, for the worker has been leaving since a moment."""
        for one in self._beginnings.values():
            one.give_up_at = min(one.give_up_at, max(since, one.accepted_at) + PATIENCE)
        self.due = 0.0

    def expired(self, now: float) -> list[Beginning]:
        """Return those whose time is up, which are not in the epoll set any more, and work out ``due``."""
        over = [one for one in self._beginnings.values() if one.give_up_at <= now]
        for one in over:
            self._fail(one, _TOO_LONG)
        self._failures.log_if_due(now)
        self.due = self._failures.due
        for one in self._beginnings.values():
            self.due = min(self.due, one.give_up_at, _park_at(one))
        return over

    def _fail(self, one: Beginning, why: str) -> None:
        self.remove(one)
        self._failures.note(one.session, why, is_silent=not one.has_begun)
        self.due = min(self.due, self._failures.due)


class WaitingHandshakes:
    """Handshakes for which a worker waits, one at a time: in the scheme ``accept``; counted on its board."""

    def __init__(self, board: WorkerView) -> None:
        self._failures = Failures(board)

    empty = staticmethod(empty)
    replace = staticmethod(replace)

    def wait(
        self,
        sock: socket.socket,
        session: Session,
        context: WorkerContext,
        is_leaving: Callable[[], bool],
    ) -> TlsTransport | None:
        """Wait for a client's handshake; return the transport of its connection, or None: it has failed.

        Args:
            sock: The client's.
            session: What the connection will remember.
            context: Of its listener.
            is_leaving: Whether the worker is to leave, which ends the wait soon.
        """
        assert context.tls is not None
        settings, why = context.settings, _TOO_LONG
        service = None if settings.starttls else context.service
        handshake = Handshake(sock, context.tls, settings.write_timeout, service)
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        now = time.monotonic()
        give_up_at, left_at = now + settings.tls_handshake_timeout, 0.0
        while now < give_up_at:
            poller.poll(1000 * min(_TICK, give_up_at - now))
            try:
                transport = handshake.step()
            except HandshakeError as error:
                why = str(error)
                break
            if transport is not None:
                session.tls = transport.tls
                return transport
            now = time.monotonic()
            if not left_at and is_leaving():
                left_at = now
                give_up_at = min(give_up_at, now + PATIENCE)
        self._failures.note(session, why, is_silent=not handshake.has_begun)
        return None


class Failures:
    """Handshakes that have failed: counted, and one line a minute in the log, for strangers cause them.

    Attributes:
        due: When ``log_if_due`` has something to say.
    """

    def __init__(self, board: WorkerView) -> None:
        self.due = math.inf
        self._board = board
        self._count = 0
        self._last = ("", "", "")
        self._next_at = 0.0

    def note(self, session: Session, why: str, *, is_silent: bool) -> None:
        """Note a failure; a client that has sent nothing is a health check, or has gone."""
        if is_silent and why == CLIENT_LEFT:
            return
        self._board.count_failed_handshake()
        self._count += 1
        self._last = session.peer, session.listener, why
        self.log_if_due(time.monotonic())

    def log_if_due(self, now: float) -> None:
        """Write the line about what has failed since the last one, if it is time to."""
        if not self._count:
            self.due = math.inf
        elif now < self._next_at:
            self.due = self._next_at
        else:
            text = "TLS handshake failed peer=%s listener=%s why=%r failures=%d"
            log.warning(text, *self._last, self._count)
            self._count, self._next_at, self.due = 0, now + _LOG_EVERY, math.inf
