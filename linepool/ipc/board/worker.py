"""The board as one worker uses it: its own slot, which it alone writes, and what others publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from linepool.ipc.board import words
from linepool.ipc.board.bans import Bans
from linepool.ipc.board.page import Board
from linepool.ipc.board.rates import Rates
from linepool.ipc.board.words import (
    ANNOUNCED,
    ANNOUNCED_BYTES,
    BEGIN,
    BEGUN,
    BEGUN_WITH,
    BRAKE,
    BRAKED,
    BRAKES,
    CLIENT_FD,
    COMMAND,
    CONNECTIONS,
    DENIED,
    DROPPED,
    EDGES_FROM_NS,
    ERRORS,
    GIVEN,
    GOING,
    HANDLER_NS,
    HANDSHAKES_FAILED,
    HELD,
    IDLE_AT,
    IDLE_FLOOR,
    IDLE_SINCE_NS,
    LIMIT_NS,
    LIMITED,
    LINE_BYTES,
    LINE_LENGTH,
    MAY_WAIT,
    MISSED_WAKES,
    ORDER,
    ORIGINS,
    OVERDUE,
    PAIR,
    PARKED,
    PARKER,
    PARKER_FULL,
    PERMIT,
    PLACE_WORDS,
    READY,
    READY_SINCE_NS,
    REFUSED,
    REQUESTS,
    SEALED,
    SERIAL,
    SERVING_AT,
    SHOWN,
    SHOWN_COOKIE,
    SINCE_NS,
    STARTED_NS,
    STATE,
    TAKEN,
    TIMEOUTS,
    WAITED_NS,
    WAITERS,
    WAKES,
    brake_name,
    count_in,
)
from linepool.pool.status import State

_IDLE = (State.READY.value, State.IDLE.value)


class Layout(NamedTuple):
    """Where a worker's words are, for the compiled core.

    Attributes:
        line: The bytes of the slot, which begin with ``line_bytes`` of the request's line.
        words: The slot's words.
        published: The words of its published connections.
        head: The words of the head.
        origins: Counts of its connections by their origins.
        numbers: Of the words of the slot and of the head, by name.
    """

    line: memoryview
    words: memoryview
    published: memoryview
    head: memoryview
    origins: memoryview
    numbers: dict[str, int]
    line_bytes: int


class Sibling(NamedTuple):
    """What a worker sees of another one: two times in ns, and how many connections it holds."""

    idle_since_ns: int
    waited_ns: int
    held: int
    is_leaving: bool


class WorkerView:
    """The board as one worker uses it: its own slot, which it alone writes, and what others publish.

    Attributes:
        places: How many of its connections it may publish.
        idle: ``idle(0, since_ns)`` publishes that no connection is being served, and since when the worker
            waits for work; 0: it takes none, or works.
        waited: ``waited(total_ns)`` publishes for how long it has waited altogether.
        ready_connections: Returns how many parked connections have sent something and wait for an idle
            worker.
        order: Returns the master's order, one of ``Order``; any other value is an order to leave too.
        serving: ``serving(cookie, descriptor + 1)`` publishes the connection that is read and answered
            from now on; SEALED is added if it is encrypted.
        begin: ``begin(line, its length, length of its ending, limit_ns, command, unsent, serial, now_ns)``
            publishes the request that goes to its handler; the one before it is done. It is overdue
            after ``limit_ns`` (0: never); ``command`` is the number of its command in the service;
            ``unsent`` bytes of replies are to be sent ahead of its own.
        serial: Returns the number of the last request or hook.
        runs: ``runs(command)`` publishes that the request in flight has come to another command, by
            its number: the next one of a batch.
        bans: The networks that may not connect for a while.
        brakes: Returns a number that changes when a result of ``braked_until`` does.
    """

    def __init__(self, board: Board, number: int) -> None:
        self._board = board
        self._number = number
        self._is_awaited = False
        self._head = board.head
        self._view, self._words, self._published = board.slot(number)
        self._announced = board.announced(number)
        self._origins = board.origins(number)
        self.bans = Bans(board)
        self.places = len(self._published) // PLACE_WORDS
        # Not methods: a method would cost as much again as what it does, at each request or round.
        self.ready_connections: Callable[[], int] = partial(self._head.__getitem__, READY)
        self.order: Callable[[], int] = partial(self._words.__getitem__, ORDER)
        self.serving: Callable[..., None] = partial(PAIR.pack_into, self._view, SERVING_AT)
        self.idle: Callable[..., None] = partial(PAIR.pack_into, self._view, IDLE_AT)
        self.waited: Callable[[int], None] = partial(self._words.__setitem__, WAITED_NS)
        self.begin: Callable[..., None] = partial(BEGIN.pack_into, self._view, 0)
        self.serial: Callable[[], int] = partial(self._words.__getitem__, SERIAL)
        self.runs: Callable[[int], None] = partial(self._words.__setitem__, COMMAND)
        self.brakes: Callable[[], int] = partial(self._head.__getitem__, BRAKES)

    @property
    def layout(self) -> Layout:
        """Where its words are."""
        numbers = {name: n for name, n in vars(words).items() if isinstance(n, int)}
        view, published = self._view, self._published
        return Layout(view, self._words, published, self._head, self._origins, numbers, LINE_BYTES)

    @property
    def served_descriptor(self) -> int:
        """The descriptor of the connection that is being served; -1: none is."""
        return (self._words[CLIENT_FD] & ~SEALED) - 1

    def begin_hook(self, now_ns: int, limit_ns: int) -> None:
        """Publish that a hook runs; it has no line, and is not counted as a request."""
        self.begin(b"", 0, 0, limit_ns, 0, 0, self.serial() + 1, now_ns)

    def finish(self, requests: int, spent_ns: int) -> None:
        """Publish that some requests are done, all since the last call, and the time they took."""
        words = self._words
        words[STARTED_NS] = 0
        words[REQUESTS] += requests
        words[HANDLER_NS] += spent_ns

    def drop(self) -> None:
        """Publish that what was in flight is over, however it ended."""
        self._words[STARTED_NS] = 0

    def reply_begins(self) -> None:
        """Publish that bytes of the reply are being sent: no other process may write to the client."""
        self._words[BEGUN] = 1

    def pause(self, now_ns: int) -> int:
        """Stop the clock of the request in flight; return what ``resume`` wants."""
        started_ns = self._words[STARTED_NS]
        self._words[STARTED_NS] = 0
        return now_ns - started_ns if started_ns else -1

    def resume(self, now_ns: int, ran_ns: int) -> None:
        """Let the clock of the request in flight continue."""
        if ran_ns >= 0:
            self._words[STARTED_NS] = now_ns - ran_ns

    def suspend(self, now_ns: int) -> tuple[int, int]:
        """Publish that the request in flight waits outside; return how long it ran, and its limit."""
        return self.pause(now_ns), self._words[LIMIT_NS]

    def extend(self, now_ns: int, more_ns: int) -> None:
        """Move the limit of the request in flight to this long from now."""
        self._words[LIMIT_NS] = now_ns - self._words[STARTED_NS] + more_ns

    def running_ns(self, now_ns: int) -> int:
        """Return how long the request in flight has run; 0: there is none."""
        started_ns = self._words[STARTED_NS]
        return now_ns - started_ns if started_ns else 0

    @property
    def overdue_ns(self) -> int:
        """When the request or hook in flight is overdue, on the monotonic clock; 0: never, or none is."""
        started_ns, limit_ns = self._words[STARTED_NS], self._words[LIMIT_NS]
        return started_ns + limit_ns if started_ns and limit_ns else 0

    @property
    def line(self) -> bytes:
        """The beginning of the line of the request in flight; b"": there is none."""
        words = self._words
        if not words[STARTED_NS]:
            return b""
        return bytes(self._view[: min(words[LINE_LENGTH], LINE_BYTES)])

    @property
    def overdue_limit_ns(self) -> int | None:
        """The limit of the request in flight if the master says that it is overdue, else None."""
        words = self._words
        return words[LIMIT_NS] if words[OVERDUE] == words[SERIAL] else None

    def count_errors(self, errors: int, timeouts: int) -> None:
        """Add to the requests that ended in SERVER_ERROR, and to those that ran past their limit."""
        self._words[ERRORS] += errors
        self._words[TIMEOUTS] += timeouts

    def braked_until(self, command: str) -> int:
        """Return until when a command is refused, in ns on the monotonic clock; 0: it is served."""
        table: dict[bytes, int] = dict(BRAKE.iter_unpack(self._board.brakes))
        return table.get(brake_name(command), 0)

    def count_braked(self) -> None:
        """Count a request that was refused because workers died of its command."""
        self._words[BRAKED] += 1

    def count_connection(self) -> None:
        """Count a connection that was taken."""
        self._words[CONNECTIONS] += 1

    def count_limited(self) -> None:
        """Count a request that was refused because there were too many from one address."""
        self._words[LIMITED] += 1

    def rates(self, rate: float, burst: int) -> Rates:
        """Return the buckets of the addresses; for the arguments, see ``Rates``."""
        return Rates(self._board, rate, burst)

    def count_refused(self) -> None:
        """Count a connection that was refused because there were too many."""
        self._words[REFUSED] += 1

    def count_denied(self) -> None:
        """Count a connection that the rules of access do not allow."""
        self._words[DENIED] += 1

    def count_failed_handshake(self) -> None:
        """Count a TLS handshake that has failed."""
        self._words[HANDSHAKES_FAILED] += 1

    def count_dropped(self) -> None:
        """Count a connection that was closed because another worker had passed nonsense."""
        self._words[DROPPED] += 1

    @property
    def work(self) -> tuple[int, int]:
        """The requests done, and the ns spent in handlers."""
        return self._words[REQUESTS], self._words[HANDLER_NS]

    def changed(self, state: State, now_ns: int) -> tuple[int, int]:
        """Publish the worker's state; return its connections and requests, for the status record."""
        words = self._words
        words[STATE] = state
        words[SINCE_NS] = now_ns
        return words[CONNECTIONS], words[REQUESTS]

    def must_tell(self, now_ns: int) -> bool:
        """Whether the master must be told of an edge at once; otherwise it reads this board later.

        Pre-condition: the worker's new state is published, so that of two workers that change at the same
        time at least one sees the other.
        """
        if now_ns >= self._head[EDGES_FROM_NS]:
            return True
        floor = self._head[IDLE_FLOOR]
        if not floor:
            return False
        for number in self._board.used_slots:
            words = self._board.words(number)
            if words[STATE] in _IDLE and not words[ORDER] and number != self._number:
                floor -= 1
                if not floor:
                    return False
        return True

    def holds(self, count: int) -> None:
        """Publish how many connections it holds."""
        self._words[HELD] = count

    def publish(self, place: int, connection: int, cookie: int) -> None:
        """Publish a connection, so that the master can save it if this worker is killed.

        Args:
            place: Below ``places``.
            connection: Its descriptor plus one, plus ``BOUND`` if it has to stay here.
            cookie: Its SO_COOKIE.
        """
        self._published[PLACE_WORDS * place + SHOWN_COOKIE] = cookie
        self._published[PLACE_WORDS * place + SHOWN] = connection

    def rests(self, place: int, taken: int) -> None:
        """Publish that a connection's turn is over: how many bytes have been read of it in its life."""
        self._published[PLACE_WORDS * place + TAKEN] = taken

    def announce(self, place: int, cookie: int, data: bytes) -> bool:
        """Note what a proxy has said of a connection that is to be published; return whether there is room.

        Args:
            place: Below ``places``.
            cookie: Its SO_COOKIE.
            data: As ``ipc.announced`` has it.
        """
        if len(data) > ANNOUNCED_BYTES:
            return False
        ANNOUNCED.pack_into(self._announced, place * ANNOUNCED.size, cookie, len(data), data)
        return True

    def goes(self, place: int) -> int:
        """Publish that a connection is being passed to the parker; return what ``restore`` wants."""
        shown: int = self._published[PLACE_WORDS * place + SHOWN]
        self._published[PLACE_WORDS * place + SHOWN] = shown and shown + GOING
        return shown

    def hide(self, place: int) -> None:
        """No longer publish a connection."""
        self._published[PLACE_WORDS * place + SHOWN] = 0

    def restore(self, place: int, shown: int) -> None:
        """Publish a connection again as it was before it was to be passed."""
        self._published[PLACE_WORDS * place + SHOWN] = shown

    def may_recycle(self, requests: int) -> bool:
        """Whether it has served this number of requests and is permitted to leave."""
        return bool(self._words[REQUESTS] >= requests and self._words[PERMIT])

    @property
    def has_parker(self) -> bool:
        """Whether there is a parker."""
        return self._head[PARKER] != 0

    @property
    def parker_has_room(self) -> bool:
        """Whether there is a parker that takes connections."""
        return bool(self._head[PARKER] and not self._head[PARKER_FULL])

    @property
    def ready_since_ns(self) -> int:
        """When the first of these began to wait."""
        return self._head[READY_SINCE_NS]

    def has_begun_with(self, number: int) -> None:
        """Confirm to the parker that the connection of this number is being served."""
        self._words[BEGUN_WITH] = number

    @property
    def wakes(self) -> int:
        """The number of the last wake-up of requests that wait."""
        return self._head[WAKES]

    @property
    def waiters(self) -> int:
        """How many requests wait."""
        return self._head[WAITERS]

    def may_wait(self) -> bool:
        """Publish that requests that may wait are run here; return whether that is new."""
        if self._words[MAY_WAIT]:
            return False
        self._words[MAY_WAIT] = 1
        return True

    def anybody_waits(self) -> bool:
        """Whether a request waits, or may be about to, in any worker: once it is true, it stays so."""
        if not self._is_awaited:
            slots = self._board.used_slots
            waits = self._head[WAITERS] or any(self._board.words(one)[MAY_WAIT] for one in slots)
            self._is_awaited = bool(waits)
        return self._is_awaited

    def missed_wakes(self) -> None:
        """Publish that wake-ups found no room in the channel: the parker is to wake all that wait."""
        self._words[MISSED_WAKES] += 1

    @property
    def has_gifts(self) -> bool:
        """Whether the parker has given connections that it has not begun to serve."""
        return self._words[GIVEN] != self._words[BEGUN_WITH]

    def has_room_for(self, held: int, most: int) -> bool:
        """Whether there are fewer connections than ``most`` even if each worker holds ``held``."""
        return self._head[PARKED] + len(self._board.used_slots) * held < most

    def connections(self) -> int:
        """Return how many connections the parker and all workers hold, this one included."""
        return self._head[PARKED] + self._board.held_by_workers()

    def count_origin(self, origin: int, change: int) -> None:
        """Publish that it holds one connection more or less that comes from there; 0: from nowhere."""
        if origin:
            self._origins[origin % ORIGINS] += change

    def connections_from(self, origin: int) -> int:
        """Return how many connections that come from there the parker and all workers hold."""
        return self._board.connections_from(origin)

    def siblings(self) -> Iterator[tuple[int, Sibling]]:
        """Yield the other workers, by slot."""
        for number in self._board.used_slots:
            if number != self._number:
                words = self._board.words(number)
                yield (
                    number,
                    Sibling(
                        words[IDLE_SINCE_NS],
                        words[WAITED_NS],
                        count_in(words, HELD),
                        bool(words[ORDER]),
                    ),
                )

    @property
    def waited_ns(self) -> int:
        """How long this worker has waited for work altogether."""
        return self._words[WAITED_NS]
