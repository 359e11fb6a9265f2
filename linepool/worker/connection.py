"""The connection of the schemes ``shared`` and ``dispatch``: one of several that a worker holds.

Runs in workers. It never waits for its client, but for one that does not read what a handler streams
or pushes. Between two requests all that it is can be packed and go on in another process.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable

from linepool.errors import ClientError
from linepool.ipc import channel as passing
from linepool.ipc.board import BOUND, CLIENT_FD, COOKIE
from linepool.ipc.channel import Baggage
from linepool.kernel.lingering import CHUNK, PATIENCE
from linepool.session import Session
from linepool.worker.context import Station
from linepool.worker.live import DONTWAIT, LiveConnection

log = logging.getLogger("linepool")

INPUT = 0  # it waits until the client sends something
OUTPUT = 1  # it waits until the client has read what it was sent
TURN = 2  # there is more to do for it, when the others have had their turn
END = 3  # it has ended

_MOST_UNSENT = 8 * 1024 * 1024  # bytes that wait for a subscriber; who lets more come is cut off


class HotConnection(LiveConnection):
    """A connection that its worker serves when the client has sent something.

    Attributes:
        descriptor: The socket's.
        place: Where it stands on the board; -1: nowhere.
        unfinished: There may be more requests in what has arrived.
        waits_for: How it goes on: one of the constants above.
        arranged: What its holder has arranged for.
        was_quiet: For how long it had been quiet, in seconds, when it came back from the parker.
        lingers: It has ended by our side, and the client may not have read all.
    """

    was_quiet = 0.0
    lingers = False
    _write_by = 0.0  # when what is unsent must be gone
    _end_by = 0.0  # when it ends though the client goes on; 0: not yet

    def __init__(
        self,
        sock: socket.socket,
        session: Session,
        station: Station,
        accepted_at: float,
        cookie: int,
        is_held_up: Callable[[], None],
    ) -> None:
        super().__init__(sock, session, station, accepted_at, cookie)
        self.descriptor = sock.fileno()
        self.place = -1
        self.quiet_since = time.monotonic()
        self.unfinished = False
        self.waits_for = self.arranged = INPUT
        self._unsent: bytes | memoryview = b""
        self._shown = 0  # what stands on the board
        self._held_up = is_held_up

    # Its way from process to process.

    def pack(self) -> Baggage | None:
        """Return what travels with it, or None: it must stay."""
        if self.is_bound:
            return None
        conversation = self._conversation
        try:
            session = conversation.session.dump()
        except (TypeError, ValueError, RecursionError) as error:
            log.warning("connection cannot be handed on peer=%s why=%r", self.peer, str(error))
            conversation.pinned = True
            return None
        protocol = self._protocol
        traits = passing.SERVED * self._served + passing.MORE * self.unfinished
        if not protocol.at_boundary:
            traits += passing.PARTIAL
        state = passing.packed(session, protocol.dump())
        return Baggage(traits, self.deadline, self._accepted_at, state, self._cookie)

    def unpack(self, baggage: Baggage, protocol: bytes) -> None:
        """Take over what ``pack`` gave in another process."""
        if protocol:
            self._protocol.load(protocol)
        self._served = bool(baggage.traits & passing.SERVED)
        if baggage.traits & passing.MORE:
            self.unfinished = True
            self.waits_for = TURN
        if baggage.traits & passing.PARTIAL:
            self._read_by = baggage.deadline
        else:
            was_quiet_since = baggage.deadline - self._settings.idle_timeout
            self.was_quiet = self.quiet_since - was_quiet_since

    @property
    def is_bound(self) -> bool:
        """Whether it must stay in this worker, at least for now."""
        return bool(self._conversation.pinned or self._unsent)

    def _show(self) -> None:
        """Show on the board whether it could go on elsewhere as it is, without what is kept here."""
        conversation = self._conversation
        session = conversation.session
        shown = self._number
        if (
            not self._is_replaceable
            or conversation.pinned
            or session
            or session.user
            or self._unsent
        ):
            shown += BOUND
        if shown != self._shown and self.place >= 0:
            held = self._slot.held
            held[self.place + 1] = self._cookie
            held[self.place] = self._shown = shown

    # Serving it. After each of these ``waits_for`` says how it goes on.

    def begin(self) -> None:
        """Say what a new client is told first, and hear what it says."""
        if self._conversation.service.greets:
            self._take_in_hand()
            try:
                self._replies.append(self._greet())
                self._flush()
            except OSError:
                self._is_gone()
            self._put_down()
            self._settle()
        if self.waits_for == INPUT:
            self.turn()

    def turn(self) -> None:
        """Do what it waits for: read what the client has sent, once, and answer it."""
        if self.waits_for != INPUT:
            self._turn_otherwise()
            return
        words = (
            self._words
        )  # as _take_in_hand() and _put_down() do it; each call is 0.05 microseconds
        words[COOKIE] = self._cookie
        words[CLIENT_FD] = self._number  # before it is read: what was read is lost with this worker
        self._alarm.conversation = self._conversation
        try:
            data = self.socket.recv(CHUNK, DONTWAIT)
            if data:
                self._protocol.feed(data if len(data) < CHUNK else self._with_more(data))
                self.unfinished = self._answer()
            else:
                self._has_ended()
        except BlockingIOError:  # a new client that has not said anything yet
            self._is_replaceable = self._protocol.is_replaceable
        except OSError:
            self._is_gone()
        words[CLIENT_FD] = 0
        if self.unfinished or self._unsent or self._conversation.closing:
            self._settle()
        self._show()

    def _turn_otherwise(self) -> None:
        """Send more of what the client has not read, or answer more of what has arrived."""
        self._take_in_hand()
        try:
            if self._unsent:
                # A view, for a copy at each step would make a long reply quadratic; b"" at the end.
                self._unsent = memoryview(self._unsent)[self._send_some(self._unsent) :] or b""
            if self.unfinished and not self._unsent:
                self.unfinished = self._answer()
        except OSError:
            self._is_gone()
        self._put_down()
        self.quiet_since = time.monotonic()
        self._settle()
        self._show()

    def look_at_the_clock(self, now: float) -> None:
        """End it if its time is up."""
        if now >= self.deadline:
            if self._unsent:  # the client does not read
                self._is_gone()
            else:
                self.expire()

    def expire(self) -> None:
        """End it, for the client has not sent what it should have."""
        if self._read_by:
            limit = f"{self._settings.read_timeout:g} s"
            error = ClientError(f"the request did not arrive within {limit}; it was not run")
            with contextlib.suppress(OSError):
                self._replies.append(self._protocol.encode_error(error, None))
                self._flush()
        self._end_lingering()

    def hang_up(self, now: float, since: float) -> None:
        """End it if the client is quiet, for the worker leaves, and has been told to at ``since``."""
        if not self._end_by:
            self._end_by = max(since, now) + PATIENCE
        quiet_until = self._last_call(max(self.quiet_since, since), self._end_by)
        if now >= quiet_until and not self._unsent:
            self._end_lingering()

    def give_up(self) -> None:
        """End it at once, for the client does not keep up."""
        self._is_gone()

    @property
    def deadline(self) -> float:
        """When its time is up, if nothing comes and nothing goes; monotonic, in seconds."""
        if self._unsent:
            return self._write_by
        if self._read_by:
            return self._read_by
        if self._audience.topics(self):
            return float("inf")  # who listens is not idle
        return self.quiet_since + self._settings.idle_timeout

    def end(self) -> None:
        """Run the hooks for its end."""
        self._audience.drop(self)
        self._say_goodbye()
        del self._conversation.connection  # a circle, which would wait for a collection

    def let_go(self) -> None:
        """Close this process's descriptor: another process goes on with the connection."""
        self.socket.close()
        del self._conversation.connection  # a circle, which would wait for a collection

    @property
    def was_lost(self) -> bool:
        """Whether the client sent what cannot be understood, and may go on sending."""
        return self._lost

    # Inside.

    def _settle(self) -> None:
        """Work out what it waits for."""
        if self.waits_for == END:
            return
        if self._unsent:
            self.waits_for = OUTPUT
        elif self._conversation.closing:
            self._end_lingering()
        else:
            self.waits_for = TURN if self.unfinished else INPUT

    def _has_ended(self) -> None:
        """Answer the end of the client's stream."""
        self.waits_for = END
        self._replies.append(self._conversation.ended())
        self._flush()

    def _end_lingering(self) -> None:
        """End it by our side; the client may not have read all."""
        self.lingers = True
        self.waits_for = END

    def _is_gone(self) -> None:
        """Have the connection reset when it is closed."""
        self._slot.drop()
        self._forget_unsent()
        self._count_errors()
        self.waits_for = END

    def _flush(self) -> bool:
        replies = self._replies
        data = replies[0] if len(replies) == 1 else b"".join(replies)
        replies.clear()
        if not data:
            return not self._unsent
        if self._unsent:
            self._unsent = b"".join((self._unsent, data))
            if len(self._unsent) > _MOST_UNSENT:
                raise TimeoutError("the client does not keep up")
            return False
        sent = self._send_some(data)
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        self._write_by = time.monotonic() + self._settings.write_timeout
        self._settle()
        return False

    def _flush_now(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._replies.insert(0, unsent)
        super()._flush_now()

    def _is_held_up(self) -> None:
        self._held_up()
