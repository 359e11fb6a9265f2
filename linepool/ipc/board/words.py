"""The words of the board: which one means what, and which process writes it.

Imported by the views of this folder only; an import contract keeps it so.
"""

from __future__ import annotations

import struct
from enum import IntEnum

BOUND = 1 << 32
"""Added to what is published of a connection that cannot continue in another worker as it is."""

GOING = 1 << 33
"""Added to what is published of a connection that is being passed to the parker: it may be there already."""

SEALED = 1 << 33
"""Added to the descriptor of a client whose connection is encrypted: nobody can send it plain text."""


class Order(IntEnum):
    """What the master wants of a worker; a level, not an event, so it cannot be missed."""

    NONE = 0
    RETIRE = 1  # finish the requests in flight, then leave
    STOP = 2  # take the clients in the accept backlog, then end each connection when it is quiet
    RECYCLE = 3  # leave as soon as no connection has to stay in this worker


# The words of the head, with their writer.
PARKED = 0  # connections that the parker holds; parker
READY = 1  # how many of them have sent something and wait for an idle worker; parker
READY_SINCE_NS = 2  # when the first of these began to wait; parker
PARKER = 3  # 1 while there is a parker; master, and a parker that leaves
REFUSED_BY_PARKER = 4  # connections refused because there were too many; parker
SLOTS = 5  # slots from here on have never been used; master
PARKER_FULL = 6  # 1 while the parker has little room for more connections; parker
DROPPED_BY_PARKER = 7  # connections that it closed because a worker had passed nonsense; parker
BRAKES = 8  # how often the table of braked commands has changed; master
EDGES_FROM_NS = 9  # edges before this moment, on the monotonic clock, are told only if ...; master
IDLE_FLOOR = 10  # ... fewer workers than this are idle beside the one that tells; master
MAGIC = 11  # says that this is a board; the process that makes it
LAYOUT = 12  # the ``layout_hash`` of the code of the process that makes it
PLACES = 13  # how many connections a worker may publish in its slot; the process that makes it
BANS = 14  # another number after each change of the table of bans; 0: it is empty; master
DENIED_BY_PARKER = 15  # connections that the rules of access do not allow; parker
WAKES = 16  # how often requests that wait have been woken: the number of the last time; parker
WAITERS = 17  # requests that wait; parker
AWAITED_SUM = 18  # CRC-32 of the table of awaited topics; another one: it is incomplete; parker
HEAD_WORDS = 24

MAGIC_NUMBER = int.from_bytes(b"linepool", "little")

# The table of braked commands, between the head and the slots; written by the master.
# Of each: its ``brake_name``, and until when it is refused, in ns; 0: free.
BRAKE = struct.Struct("@56sQ")
MAX_BRAKES = 61  # they fill the page of the head

# The table of bans, behind the parker's origins; written by the master.
# Of each: its network as text, and until when it holds, in ns on the monotonic clock; 0: free.
BAN = struct.Struct("@56sQ")
MAX_BANS = 1024

# Of the topics for which most requests wait, behind the bans; written by the parker: how many, since when
# the first of these, in ns on the monotonic clock, its command, and the topic with its length.
AWAITED = struct.Struct("@QQ48sQ160s")
MOST_AWAITED = 10

# Of a published connection that came through a proxy, behind the words of the slot; written by the worker:
# SO_COOKIE of its socket, length of what follows, and what the proxy has said, see ``ipc.announced``.
ANNOUNCED = struct.Struct("@QQ496s")
ANNOUNCED_BYTES = 496

# The words of a slot, after the line. Those that are written together are adjacent: one call writes
# them, at half of what single words cost. That call clears them all first, so nothing that counts may
# be among them; STARTED_NS and CLIENT_FD, which make the others valid, are the last.
LINE_LENGTH = 0  # bytes of the request's line that are at the start of the slot
EOL_LENGTH = 1  # bytes of the line's ending, for the reply that the master may have to write
LIMIT_NS = 2  # the request is overdue after this long; 0: never
COMMAND = 3  # the number of its command in the service; 0: none, or an unknown one
BEGUN = 4  # not 0: bytes of a reply may have been sent, or are about to be
SERIAL = 5  # number of the request or hook that STARTED_NS belongs to
STARTED_NS = 6  # when the request in flight began, on the monotonic clock; 0: there is none
REQUESTS = 7  # requests done
HANDLER_NS = 8  # time spent in handlers
COOKIE = 9  # SO_COOKIE of the client's socket: its descriptor may have been reused
CLIENT_FD = 10  # descriptor of the client that is being served, plus one, perhaps SEALED; 0: none
IDLE_SINCE_NS = 11  # when it began to wait for work; 0: it works. Immediate, unlike status records
HELD = 12  # connections held
STATE = 13  # as in the last status record
SINCE_NS = 14  # as in the last status record
ERRORS = 15  # requests that ended in SERVER_ERROR
TIMEOUTS = 16  # requests in which RequestTimeout was raised
CONNECTIONS = 17  # connections taken
REFUSED = 18  # connections refused because there were too many
BEGUN_WITH = 19  # number of the last connection from the parker that it has begun to serve
WAITED_NS = 20  # how long it has waited for work altogether
BRAKED = 21  # requests refused because workers died of their command
# Written by the master:
ORDER = 22
OVERDUE = 23  # serial number of the request in which RequestTimeout is to be raised
PERMIT = 24  # 1: the worker may leave once it has served its number of requests
# Written by the parker:
GIVEN = 25  # number of the last connection given to this worker
UNSTARTED = 26  # connections given to it that it had not begun to serve when the parker looked last
DROPPED = 27  # connections closed because another worker had passed nonsense; the worker
HEARD = 28  # SO_COOKIE of the channel that the parker has; 1: of an older parker; the parker
DENIED = 29  # connections that the rules of access do not allow; the worker
LIMITED = 30  # requests refused because there were too many from one address; the worker
HANDSHAKES_FAILED = 31  # TLS handshakes that have failed; the worker
MISSED_WAKES = 32  # how often a message with wake-ups found no room; the worker
MAY_WAIT = 33  # 1: in this slot requests have been run that may wait; the worker, for good
SLOT_WORDS = 40

# The words of each published connection, behind those of the slot.
SHOWN = 0  # its descriptor plus one, perhaps with BOUND or GOING; 0: none is published here
SHOWN_COOKIE = 1  # SO_COOKIE of its socket
TAKEN = 2  # bytes that had been read of it in its life when its last turn was over
PLACE_WORDS = 3

ORIGINS = 16384
"""Counts of connections by where their clients come from: two origins of one number share a count."""

RATE_BUCKETS = 65536
"""Words behind all slots, of which workers write any: see ``rates``."""

WORD = 8  # bytes
_MOST_COUNTED = 1 << 48
LINE_BYTES = 128
# In the machine's byte order, and aligned: each word is written in one piece.
BEGIN = struct.Struct(f"@{LINE_BYTES}s7Q")  # at the start of the slot
PAIR = struct.Struct("@2Q")
SERVING_AT = LINE_BYTES + COOKIE * WORD  # and CLIENT_FD
IDLE_AT = LINE_BYTES + CLIENT_FD * WORD  # and IDLE_SINCE_NS


def brake_name(command: str) -> bytes:
    """Return a command's name as it is in the table of braked commands."""
    return command.encode()[:56].ljust(56, b"\0")


def count_in(words: memoryview, number: int) -> int:
    """Return a word of a slot that counts; 0 if its worker has overwritten it with nonsense."""
    count: int = words[number]
    return count if count < _MOST_COUNTED else 0
