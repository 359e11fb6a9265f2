"""The board as the master uses it. What it reads is checked before use, never an index or a pid."""

from __future__ import annotations

import contextlib
import math
import struct
import time
from collections.abc import Mapping
from typing import NamedTuple

from attrs import frozen

from linepool.ipc.board.awaited import AwaitedTable
from linepool.ipc.board.page import Board
from linepool.ipc.board.words import (
    ANNOUNCED,
    BAN,
    BANS,
    BEGUN,
    BEGUN_WITH,
    BOUND,
    BRAKE,
    BRAKED,
    BRAKES,
    CLIENT_FD,
    COMMAND,
    CONNECTIONS,
    COOKIE,
    DENIED,
    DENIED_BY_PARKER,
    DROPPED,
    DROPPED_BY_PARKER,
    EDGES_FROM_NS,
    EOL_LENGTH,
    ERRORS,
    GOING,
    HANDLER_NS,
    HANDSHAKES_FAILED,
    HEARD,
    HELD,
    IDLE_FLOOR,
    IDLE_SINCE_NS,
    LIMIT_NS,
    LIMITED,
    LINE_BYTES,
    LINE_LENGTH,
    MAX_BRAKES,
    MAY_WAIT,
    ORDER,
    OVERDUE,
    PARKED,
    PARKER,
    PERMIT,
    PLACE_WORDS,
    READY,
    REFUSED,
    REFUSED_BY_PARKER,
    REQUESTS,
    SEALED,
    SERIAL,
    SHOWN,
    SHOWN_COOKIE,
    SINCE_NS,
    SLOTS,
    STARTED_NS,
    STATE,
    TAKEN,
    TIMEOUTS,
    UNSTARTED,
    Order,
    brake_name,
    count_in,
)
from linepool.pool.scoreboard import WorkerState
from linepool.pool.status import State, packed

_OF_OLDER_PARKER = 1
_NEVER = 2**64 - 1  # when a ban without a limit ends


@frozen
class SlotSnapshot:
    """A copy of a slot in the master.

    Attributes:
        number: The serial number of what is in flight.
        is_sealed: The connection of the client is encrypted.
        command: The number of its command in the service; 0: none.
        braked: Requests that were refused because workers died of their command.
    """

    number: int
    started_ns: int
    limit_ns: int
    requests: int
    handler_ns: int
    client_fd: int
    is_sealed: bool
    begun: bool
    held: int
    errors: int
    timeouts: int
    connections: int
    refused: int
    dropped: int
    cookie: int
    line: bytes
    eol: bytes
    command: int
    braked: int
    denied: int
    limited: int
    handshakes_failed: int


class Movable(NamedTuple):
    """A connection that could continue in another worker.

    Attributes:
        taken: How many bytes had been read of it when its last turn was over.
        is_served: It is being served; that it could continue was so before.
    """

    descriptor: int
    cookie: int
    taken: int
    is_served: bool


class MasterSlot:
    """A worker's slot as the master uses it."""

    def __init__(self, board: Board, number: int) -> None:
        self._view, self._words, self._published = board.slot(number)
        self._announced = board.announced(number)
        self._origins = board.origins(number)

    def clear(self) -> None:
        """Set everything to 0."""
        for word in range(len(self._words)):
            if word != MAY_WAIT:
                self._words[word] = 0
        for at in range(SHOWN, len(self._published), PLACE_WORDS):
            self._published[at] = 0

    def vacate(self) -> None:
        """Publish that its worker is dead: it holds no connection, and is not idle."""
        self._words[IDLE_SINCE_NS] = self._words[HELD] = self._words[STATE] = 0
        self._origins[:] = memoryview(bytes(self._origins.nbytes)).cast("H")

    def movable(self) -> dict[int, Movable]:
        """Return the connections that could continue in another worker as they are, by their places.

        The parker may have one of them already.
        """
        published, served = self._published, self._words[CLIENT_FD]
        found = {}
        for place in range(len(published) // PLACE_WORDS):
            at = place * PLACE_WORDS
            shown = published[at + SHOWN]
            if shown > GOING:
                shown -= GOING
            if 0 < shown < BOUND:
                cookie, taken = published[at + SHOWN_COOKIE], published[at + TAKEN]
                found[place] = Movable(shown - 1, cookie, taken, shown == served)
        return found

    def descriptors(self) -> set[int]:
        """Return those of all published connections, and of the one that is being served."""
        shown = [*self._published[SHOWN::PLACE_WORDS], self._words[CLIENT_FD] & ~SEALED]
        return {(one & (BOUND - 1)) - 1 for one in shown}

    def announced(self, cookie: int) -> bytes:
        """Return what a proxy has said of a connection, by the cookie of its socket; b"": nothing.

        The connection may be published, or is being served.
        """
        for place in range(0, len(self._announced), ANNOUNCED.size):
            if data := self._announced_at(place, cookie):
                return data
        return b""

    def announced_at(self, place: int, cookie: int) -> bytes:
        """Return the same of a connection at a place, as ``movable`` has it."""
        return self._announced_at(place * ANNOUNCED.size, cookie)

    def _announced_at(self, at: int, cookie: int) -> bytes:
        known, length, data = ANNOUNCED.unpack_from(self._announced, at)
        return data[:length] if known == cookie else b""

    def command(self, order: Order) -> None:
        """Give the worker an order."""
        self._words[ORDER] = order

    @property
    def order(self) -> int:
        """The order that was given."""
        return self._words[ORDER]

    def raise_timeout(self, number: int) -> None:
        """Say in which request, by its serial number, RequestTimeout is to be raised."""
        self._words[OVERDUE] = number

    @property
    def permit(self) -> bool:
        """Whether the worker may leave once it has served its number of requests."""
        return self._words[PERMIT] != 0

    @permit.setter
    def permit(self, granted: bool) -> None:
        self._words[PERMIT] = granted

    @property
    def started_ns(self) -> int:
        """When the request in flight began; 0: there is none."""
        return self._words[STARTED_NS]

    @property
    def number(self) -> int:
        """The serial number of what is in flight."""
        return self._words[SERIAL]

    @property
    def requests(self) -> int:
        """Requests done."""
        return self._words[REQUESTS]

    @property
    def connections(self) -> int:
        """Connections taken."""
        return self._words[CONNECTIONS]

    @property
    def held(self) -> int:
        """Connections held."""
        return count_in(self._words, HELD)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for work."""
        return bool(self._words[IDLE_SINCE_NS])

    @property
    def begun_with(self) -> int:
        """The number of the last connection from the parker that it has begun to serve."""
        return self._words[BEGUN_WITH]

    def is_heard(self, channel: int) -> bool:
        """Whether the parker has the worker's channel, by the cookie of its socket.

        Not of any worker in this slot: the parker may only now hear of the one before.
        """
        return self._words[HEARD] in (channel, _OF_OLDER_PARKER)

    @property
    def unstarted(self) -> int:
        """How many connections from the parker it had not begun to serve, as the parker saw it."""
        return self._words[UNSTARTED]

    def serves(self, descriptor: int, cookie: int) -> bool:
        """Whether the worker is serving a connection, by its descriptor and the cookie of its socket."""
        words = self._words
        return bool(words[CLIENT_FD] & ~SEALED == descriptor + 1 and words[COOKIE] == cookie)

    def is_current(self, snapshot: SlotSnapshot) -> bool:
        """Whether what was seen is still in flight: else the worker has finished it meanwhile."""
        return bool(self._words[STARTED_NS]) and self._words[SERIAL] == snapshot.number

    @property
    def since_ns(self) -> int:
        """Since when its worker has the state that ``record`` returns."""
        return self._words[SINCE_NS]

    def record(self, worker: WorkerState) -> bytes:
        """Return what the slot says as a status record; b"": it is not valid."""
        words = self._words
        with contextlib.suppress(ValueError, struct.error):
            # Read first, for the worker writes it last: an old state with the time of the next one would
            # hide that one.
            since_ns = words[SINCE_NS]
            return packed(
                worker.slot,
                State(words[STATE]),
                worker.pid,
                worker.generation,
                words[CONNECTIONS],
                words[REQUESTS],
                since_ns,
            )
        return b""

    def snapshot(self) -> SlotSnapshot:
        """Return a copy of what the slot says."""
        words = self._words
        return SlotSnapshot(
            words[SERIAL],
            words[STARTED_NS],
            words[LIMIT_NS],
            count_in(words, REQUESTS),
            words[HANDLER_NS],
            (words[CLIENT_FD] & ~SEALED) - 1,
            bool(words[CLIENT_FD] & SEALED),
            bool(words[BEGUN]),
            count_in(words, HELD),
            count_in(words, ERRORS),
            count_in(words, TIMEOUTS),
            count_in(words, CONNECTIONS),
            count_in(words, REFUSED),
            count_in(words, DROPPED),
            words[COOKIE],
            bytes(self._view[: min(words[LINE_LENGTH], LINE_BYTES)]),
            b"\n" if words[EOL_LENGTH] == 1 else b"\r\n",
            words[COMMAND],
            count_in(words, BRAKED),
            count_in(words, DENIED),
            count_in(words, LIMITED),
            count_in(words, HANDSHAKES_FAILED),
        )


class MasterView:
    """The board as the master uses it.

    Attributes:
        page: The board itself, for new processes.
        awaited: The topics for which most requests wait.
        used: Slots from here on have never been used.
    """

    def __init__(self, page: Board, used: int = 0) -> None:
        self.page = page
        self.awaited = AwaitedTable(page)
        self._head = page.head
        self._slots: dict[int, MasterSlot] = {}
        self.used = used

    def slot(self, number: int) -> MasterSlot:
        """Return a worker's slot."""
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = MasterSlot(self.page, number)
        return slot

    def new_worker(self, number: int) -> None:
        """Make a slot ready for a new worker, before the fork."""
        self.slot(number).clear()
        self.used = max(self.used, number + 1)
        self._head[SLOTS] = self.used

    def parker_starts(self) -> None:
        """Publish that there is a parker."""
        self._head[PARKER] = 1

    def parker_ended(self) -> int:
        """Publish that there is no parker; return how many connections it held."""
        lost = self._head[PARKED]
        self._head[PARKER] = self._head[PARKED] = self._head[READY] = 0
        self.awaited.clear()
        origins = self.page.parker_origins
        origins[:] = memoryview(bytes(origins.nbytes)).cast("I")
        return lost

    def brake(self, commands: Mapping[str, float]) -> None:
        """Publish which commands are refused, and until when on the monotonic clock, in seconds."""
        table = self.page.brakes
        table[:] = bytes(len(table))
        for place, (name, until) in zip(range(MAX_BRAKES), commands.items(), strict=False):
            BRAKE.pack_into(table, place * BRAKE.size, brake_name(name), int(until * 1e9))
        self._head[BRAKES] += 1

    def ban(self, networks: Mapping[str, float]) -> None:
        """Publish which networks may not connect, and until when on the monotonic clock, in seconds.

        Pre-condition: there are ``MAX_BANS`` at most.
        """
        table = self.page.bans
        table[:] = bytes(len(table))
        for place, (network, until) in enumerate(networks.items()):
            ends_ns = _NEVER if until == math.inf else int(until * 1e9)
            BAN.pack_into(table, place * BAN.size, network.encode(), ends_ns)
        # After the table: a process that has read half of a change reads it again.
        self._head[BANS] = time.monotonic_ns() if networks else 0

    @property
    def bans(self) -> dict[str, float]:
        """The networks that may not connect, and until when on the monotonic clock, in seconds."""
        return {
            network.rstrip(b"\0").decode(): math.inf if ends_ns == _NEVER else ends_ns / 1e9
            for network, ends_ns in BAN.iter_unpack(self.page.bans)
            if ends_ns
        }

    def withhold_edges(self, until_ns: int, floor: int) -> None:
        """Publish until when workers need not tell their edges at once; 0: from now on they tell them all.

        Args:
            until_ns: On the monotonic clock.
            floor: An edge is told all the same if fewer workers than this are idle beside the one that
                tells.
        """
        self._head[IDLE_FLOOR] = floor
        self._head[EDGES_FROM_NS] = until_ns

    @property
    def parked(self) -> int:
        """How many connections the parker holds."""
        return self._head[PARKED]

    @property
    def ready_connections(self) -> int:
        """How many of them have sent something and wait for an idle worker."""
        return self._head[READY]

    @property
    def refused_by_parker(self) -> int:
        """How many connections the parker has refused."""
        return self._head[REFUSED_BY_PARKER]

    @property
    def denied_by_parker(self) -> int:
        """How many connections the parker has closed because of the rules of access."""
        return self._head[DENIED_BY_PARKER]

    @property
    def dropped_by_parker(self) -> int:
        """How many connections the parker has closed because a worker had passed nonsense."""
        return self._head[DROPPED_BY_PARKER]
