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
from linepool.process import passing
from linepool.process.board import BOUND
from linepool.process.connection import CHUNK, PATIENCE, LiveConnection, Station
from linepool.process.passing import Baggage
from linepool.session import Session

log = logging.getLogger("linepool")

_MOST_UNSENT = 8 * 1024 * 1024  # bytes that wait for a subscriber; who lets more come is cut off


class HotConnection(LiveConnection):
    """A connection that its worker serves when the client has sent something.

    Attributes:
        socket: Its owner is who holds the connection.
        descriptor: The socket's.
        place: Where it stands on the board; -1: nowhere.
        quiet_since: When the client was served last; monotonic, in seconds.
        unfinished: There may be more requests in what has arrived.
        lingers: It has ended by our side, and the client may not have read all.
    """

    def __init__(
        self,
        sock: socket.socket,
        session: Session,
        station: Station,
        accepted_at: float,
        is_held_up: Callable[[], None],
    ) -> None:
        super().__init__(sock, session, station, accepted_at)
        self.socket = sock
        self.descriptor = sock.fileno()
        self.place = -1
        self.quiet_since = time.monotonic()
        self.unfinished = False
        self.lingers = False
        self._unsent = b""
        self._write_by = 0.0  # when what is unsent must be gone
        self._end_by = 0.0  # when it ends though the client goes on; 0: not yet
        self._given_up = False
        self._homebound = False  # its session holds what cannot travel
        self._held_up = is_held_up
        self._shown = 0  # what stands on the board

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
            self._homebound = True
            return None
        protocol = self._protocol
        traits = passing.SERVED * self._served + passing.MORE * self.unfinished
        if not protocol.at_boundary:
            traits += passing.PARTIAL
        state = passing.packed(session, protocol.dump())
        return Baggage(traits, self.deadline, self._accepted_at, state)

    def unpack(self, baggage: Baggage, protocol: bytes) -> None:
        """Take over what ``pack`` gave in another process."""
        if protocol:
            self._protocol.load(protocol)
        self._served = bool(baggage.traits & passing.SERVED)
        self.unfinished = bool(baggage.traits & passing.MORE)
        if baggage.traits & passing.PARTIAL:
            self._read_by = baggage.deadline

    @property
    def is_bound(self) -> bool:
        """Whether it must stay in this worker, at least for now."""
        return bool(
            self._conversation.pinned
            or self._unsent
            or self._homebound
            or self._audience.topics(self)
        )

    def show(self, held: memoryview) -> None:
        """Show on the board whether it could go on elsewhere as it is, without what is kept here."""
        if self.place < 0:
            return
        session = self._conversation.session
        shown = self.descriptor + 1
        if session or session.user or not self._protocol.is_replaceable or self.is_bound:
            shown += BOUND
        if shown != self._shown:
            held[self.place + 1] = self._cookie
            held[self.place] = self._shown = shown

    # Serving it. Each of these returns whether it goes on.

    def greet(self) -> bool:
        """Say what a new client is told first."""
        self._take_in_hand()
        try:
            said = self._greet()
            if said:
                self._replies.append(said)
                self._flush()
        except OSError:
            return self._is_gone()
        finally:
            self._put_down()
        return self._goes_on()

    def turn(self) -> bool:
        """Read what the client has sent, once, and answer it; or write, if it is slow to read."""
        if self.is_blocked:
            return self._write_on()
        if self.unfinished:  # its end may be here already, but it is not its turn yet
            return self.go_on()
        self._take_in_hand()  # before it is read: what was read is lost with this worker
        try:
            data = self.socket.recv(CHUNK, socket.MSG_DONTWAIT)
            if not data:
                return self._has_ended()
            self._protocol.feed(data)
            self.unfinished = self._answer()
        except BlockingIOError:
            return True
        except OSError:
            self._slot.drop()
            return self._is_gone()
        finally:
            self._put_down()
            self.quiet_since = time.monotonic()
        return self._goes_on()

    def go_on(self) -> bool:
        """Answer what has arrived."""
        self._take_in_hand()
        try:
            self.unfinished = self._answer()
        except OSError:
            self._slot.drop()
            return self._is_gone()
        finally:
            self._put_down()
            self.quiet_since = time.monotonic()
        return self._goes_on()

    def _write_on(self) -> bool:
        """Send more of what the client has not read yet."""
        try:
            self._unsent = self._unsent[self._send_some(self._unsent) :]
        except OSError:
            return self._is_gone()
        if self._unsent:
            return True
        self.quiet_since = time.monotonic()
        return self.go_on() if self.unfinished else self._goes_on()

    def look_at_the_clock(self, now: float) -> bool:
        """End it if its time is up."""
        if now < self.deadline:
            return True
        return self._is_gone() if self.is_blocked else self.expire()

    def expire(self) -> bool:
        """End it, for the client has not sent what it should have."""
        if self._read_by:
            limit = f"{self._settings.read_timeout:g} s"
            error = ClientError(f"the request did not arrive within {limit}; it was not run")
            with contextlib.suppress(OSError):
                self._replies.append(self._protocol.encode_error(error, None))
                self._flush()
        self.lingers = True
        return False

    def hang_up(self, now: float, since: float) -> bool:
        """End it if the client is quiet, for the worker leaves, and has been told to at ``since``."""
        if not self._end_by:
            self._end_by = max(since, now) + PATIENCE
        if self._unsent or now < self._last_call(max(self.quiet_since, since), self._end_by):
            return True
        self.lingers = True
        return False

    def give_up(self) -> None:
        """End it at once: the next look at the clock does it."""
        self._given_up = True

    @property
    def is_blocked(self) -> bool:
        """Whether it waits until the client reads; nothing is read from it meanwhile."""
        return bool(self._unsent or self._given_up)

    @property
    def deadline(self) -> float:
        """When its time is up, if nothing comes and nothing goes; monotonic, in seconds."""
        if self._given_up:
            return 0.0
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

    @property
    def was_lost(self) -> bool:
        """Whether the client sent what cannot be understood, and may go on sending."""
        return self._lost

    # Inside.

    def _goes_on(self) -> bool:
        if self._conversation.closing and not self._unsent:
            self.lingers = True
            return False
        return True

    def _has_ended(self) -> bool:
        """Answer the end of the client's stream."""
        with contextlib.suppress(OSError):
            self._replies.append(self._conversation.ended())
            self._flush()
        return False

    def _is_gone(self) -> bool:
        """Have the connection reset when it is closed."""
        self._forget_unsent()
        self._count_errors()
        return False

    def _flush(self) -> bool:
        data = b"".join(self._replies)
        self._replies.clear()
        if not data:
            return not self._unsent
        if self._unsent:
            self._unsent += data
            if len(self._unsent) > _MOST_UNSENT:
                raise TimeoutError("the client does not keep up")
            return False
        sent = self._send_some(data)
        if sent == len(data):
            return True
        self._unsent = data[sent:]
        self._write_by = time.monotonic() + self._settings.write_timeout
        return False

    def _flush_now(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._replies.insert(0, unsent)
        super()._flush_now()

    def _is_held_up(self) -> None:
        self._held_up()
