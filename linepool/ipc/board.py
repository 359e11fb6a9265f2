"""The board: a shared page that tells who is late.

Each worker has a slot that it alone writes, as aligned 64-bit words, without a system call; the
master reads it on its own clock. The master has a few words in each slot, such as the order to the
worker, and the head of the board, where it announces its wake-up connections. The parker says in the
head how many connections it has, and in each slot which it has given to the worker. What the master
reads here is checked before use, and never used as an index or a pid.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from enum import IntEnum

from attrs import frozen

from linepool.pool.scoreboard import WorkerState
from linepool.pool.status import State, packed
from linepool.protocols.base import Request
from linepool.settings import MAX_WORKERS

_WAKEUP_WORDS = 64
_HEAD_WORDS = 72
_SLOT_WORDS = 48

BOUND = 1 << 32
"""Marks a connection that has left something with its worker."""


class Order(IntEnum):
    """What the master wants of a worker; a level, not an event, so it cannot be missed."""

    NONE = 0
    RETIRE = 1  # finish with the client in hand, then leave
    STOP = 2  # the same, but first take the clients that the kernel has queued already
    RECYCLE = 3  # leave when the client in hand has ended its connection


# The words of the head, behind those of the wake-up connections.
PARKED = 0  # connections that the parker holds; written by the parker
WAITING = 1  # how many of them have sent something, but nobody is free; written by the parker
WAITS_SINCE_NS = 2  # since when the first of them waits; written by the parker
PARKER = 3  # whether there is a parker; written by the master, and by a parker that leaves
PARKER_FULL = 6  # whether it had better not be handed more connections; written by the parker
TURNED_AWAY = 4  # connections refused, for there were too many; written by the parker
SLOTS = 5  # slots from here on have never been used; written by the master

# The words of a slot, behind the line. What is written together at the beginning of a request stands
# together: one call writes it, at half of what single words cost. That call clears it all first, so
# nothing that counts may be among it, and STARTED_NS, without which the others mean nothing, is the last.
LINE_LENGTH = 0  # bytes of the request's line that stand at the slot's beginning
EOL_LENGTH = 1  # of the line's ending, for the reply that the master may have to write
LIMIT_NS = 2  # after so long it is overdue; 0: never
BEGUN = 3  # bytes of a reply may have gone out, or wait to: nobody else may write to the client
SERIAL = 4  # the number of the request or hook that STARTED_NS belongs to
STARTED_NS = 5  # of the request in hand, on the monotonic clock; 0: none
REQUESTS = 6  # done
HANDLER_NS = 7  # spent in handlers
COOKIE = 8  # of the client's socket (SO_COOKIE): the descriptor's number may have been used again
CLIENT_FD = 9  # descriptor of the client, plus one; 0: none
HELD = 10  # connections held
STATE = 11  # as in the last status record
SINCE_NS = 12  # as in the last status record
ERRORS = 13  # requests that ended in SERVER_ERROR
TIMEOUTS = 14  # requests in which RequestTimeout was raised
CONNECTIONS = 15  # taken
REFUSED = 16  # connections refused, for there were too many
FREE_NS = 17  # since when it waits for work; 0: it works. Told at once, unlike the status record
BEGUN_WITH = 18  # the number of the last connection given by the parker that it has begun to serve
WAITED_NS = 19  # for how long it has waited for work so far
# Written by the master:
ORDER = 20
OVERDUE = 21  # the serial number of what RequestTimeout is to be raised in
PERMIT = 22  # the worker may leave once it has served its number of requests
# Written by the parker:
GIVEN = 23  # the number of the last connection given to this worker
UNSTARTED = 24  # how many it has given that were not begun when it looked last

_LINE_BYTES = 128
# In the machine's own order of bytes, and aligned: each word is written in one piece.
_BEGIN = struct.Struct(f"@{_LINE_BYTES}s6Q")


@frozen
class Sight:
    """What the master saw in a worker's slot; ``number`` is the serial number of what is in hand."""

    number: int
    started_ns: int
    limit_ns: int
    requests: int
    handler_ns: int
    client_fd: int
    begun: bool
    held: int
    errors: int
    timeouts: int
    connections: int
    refused: int
    cookie: int
    line: bytes
    eol: bytes


class Slot:
    """One worker's slot. The worker writes it through ``words``, at the places named above.

    Attributes:
        held: Two words for each connection that the worker holds: its descriptor plus one, or 0, plus
            ``BOUND`` if it could not go on without this worker; and its cookie.
    """

    def __init__(self, view: memoryview, held: memoryview) -> None:
        self._view = view
        self.words = view[_LINE_BYTES:].cast("Q")
        self.held = held.cast("Q")
        self._serial = self._requests = self._handler_ns = 0  # the worker's own memory of them

    def clear(self) -> None:
        """Make it ready for a new worker, in the master, before the fork."""
        for place in range(len(self.words)):
            self.words[place] = 0
        for place in range(0, len(self.held), 2):
            self.held[place] = 0
        self._serial = self._requests = self._handler_ns = 0

    def neighbours(self) -> dict[int, tuple[int, int]]:
        """Return the connections that could go on elsewhere as they are: descriptors and cookies.

        By their places. Not the one whose request is in hand.
        """
        held, mine = self.held, self.words[CLIENT_FD]
        return {
            place: (held[place] - 1, held[place + 1])
            for place in range(0, len(held), 2)
            if 0 < held[place] < BOUND and held[place] != mine
        }

    def begin(self, request: Request, now_ns: int, limit_ns: int, begun: int) -> None:
        """Note the request that goes to its handler; one that was in hand before is done."""
        line = request.line
        self._serial = serial = self._serial + 1
        _BEGIN.pack_into(
            self._view, 0, line, len(line), len(request.eol), limit_ns, begun, serial, now_ns
        )

    def begin_hook(self, now_ns: int, limit_ns: int) -> None:
        """Note that a hook is called; it has no line, and does not count among the requests."""
        self._serial = serial = self._serial + 1
        _BEGIN.pack_into(self._view, 0, b"", 0, 0, limit_ns, 0, serial, now_ns)

    def drop(self) -> None:
        """Note that what was in hand is over, however it ended."""
        self.words[STARTED_NS] = 0

    def pause(self, now_ns: int) -> int:
        """Stop the clock of the request in hand; return what ``resume`` wants."""
        ran_ns = now_ns - self.words[STARTED_NS] if self.words[STARTED_NS] else -1
        self.words[STARTED_NS] = 0
        return ran_ns

    def resume(self, now_ns: int, ran_ns: int) -> None:
        """Let the clock of the request in hand go on."""
        if ran_ns >= 0:
            self.words[STARTED_NS] = now_ns - ran_ns

    def extend(self, now_ns: int, more_ns: int) -> None:
        """Move the limit of the request in hand to so long from now."""
        self.words[LIMIT_NS] = now_ns - self.words[STARTED_NS] + more_ns

    def finish(self, requests: int, spent_ns: int) -> None:
        """Note that so many requests are done, all since the last call, and what they took."""
        words = self.words
        words[STARTED_NS] = 0
        words[REQUESTS] = self._requests = self._requests + requests
        words[HANDLER_NS] = self._handler_ns = self._handler_ns + spent_ns

    def record(self, worker: WorkerState) -> bytes:
        """Return what stands in the slot as a status record, b"" if it makes no sense; in the master."""
        words = self.words
        with contextlib.suppress(ValueError, struct.error):
            state = State(words[STATE])
            return packed(
                worker.slot,
                state,
                worker.pid,
                worker.generation,
                words[CONNECTIONS],
                words[REQUESTS],
                words[SINCE_NS],
            )
        return b""

    def is_of(self, sight: Sight) -> bool:
        """Whether what was seen is still in hand: else the worker has finished meanwhile."""
        return bool(self.words[STARTED_NS]) and self.words[SERIAL] == sight.number

    def look(self) -> Sight:
        """Return what stands in the slot, in the master."""
        words = self.words
        return Sight(
            words[SERIAL],
            words[STARTED_NS],
            words[LIMIT_NS],
            words[REQUESTS],
            words[HANDLER_NS],
            words[CLIENT_FD] - 1,
            bool(words[BEGUN]),
            words[HELD],
            words[ERRORS],
            words[TIMEOUTS],
            words[CONNECTIONS],
            words[REFUSED],
            words[COOKIE],
            bytes(self._view[: min(words[LINE_LENGTH], _LINE_BYTES)]),
            b"\n" if words[EOL_LENGTH] == 1 else b"\r\n",
        )


class Board:
    """The page with its head and one slot for each worker there may be.

    Args:
        held: How many connections a worker may show in its slot.
    """

    def __init__(self, held: int = 0) -> None:
        head = _HEAD_WORDS * 8
        size = (_SLOT_WORDS + 2 * held) * 8
        self._page = mmap.mmap(-1, head + MAX_WORKERS * size)
        view = memoryview(self._page)
        words = view[:head].cast("Q")
        self.wakeups = words[:_WAKEUP_WORDS]
        self.head = words[_WAKEUP_WORDS:]
        self.slots = _Slots(view[head:], size)


class _Slots(dict[int, Slot]):
    """The slots by number, made when they are first asked for."""

    def __init__(self, view: memoryview, size: int) -> None:
        super().__init__()
        self._view = view
        self._size = size

    def __missing__(self, number: int) -> Slot:
        slot = self._view[number * self._size : (number + 1) * self._size]
        self[number] = Slot(slot[: _SLOT_WORDS * 8], slot[_SLOT_WORDS * 8 :])
        return self[number]
