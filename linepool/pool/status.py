"""Status records: how a worker reports its state to the master.

A record holds the worker's whole state, so a lost or duplicated record does no harm. It is far
shorter than PIPE_BUF (4096 bytes on Linux), so the kernel neither interleaves nor splits records
(pipe(7)).
"""

from __future__ import annotations

import struct
from enum import IntEnum

from attrs import frozen


class State(IntEnum):
    """The state of a worker; it is reported at each change that matters to the pool policy.

    ::

        fork ──► (no record: starting) ──► READY ──► TAKEN ◄──► IDLE ──► LEAVING ──► reaped
    """

    READY = 1  # booted, waits for its first client
    TAKEN = 2  # serves a client, or takes the next one without waiting
    IDLE = 3  # is about to wait for a client
    LEAVING = 4  # has no connection any more, and closes its resources


# slot, state, pid, generation, connections, requests, at_ns
RECORD = struct.Struct("=HHIIIQQ")
SIZE = RECORD.size
"""Size of a record in bytes: 32."""
_UINT32_MASK = 0xFFFFFFFF


@frozen
class Record:
    """One status record.

    Attributes:
        slot: The worker's slot on the board.
        generation: Counts the loads of the app's code.
        connections: Connections accepted so far, modulo 2**32.
        requests: Requests completed so far.
        at_ns: When the record was written, on the monotonic clock.
    """

    slot: int
    state: State
    pid: int
    generation: int
    connections: int
    requests: int
    at_ns: int


def packed(
    slot: int,
    state: State,
    pid: int,
    generation: int,
    connections: int,
    requests: int,
    at_ns: int,
) -> bytes:
    """Return the 32 bytes of a record; ``connections`` may exceed 32 bits."""
    return RECORD.pack(slot, state, pid, generation, connections & _UINT32_MASK, requests, at_ns)


def unpack(data: bytes) -> tuple[list[Record], int]:
    """Return the records in data from a status pipe, and the number of malformed ones.

    A worker writes whole records, so an incomplete one at the end is malformed.
    """
    records = []
    malformed = 1 if len(data) % SIZE else 0
    whole = len(data) - len(data) % SIZE
    for slot, state, pid, generation, connections, requests, at_ns in RECORD.iter_unpack(
        data[:whole]
    ):
        try:
            known = State(state)
        except ValueError:
            malformed += 1
            continue
        records.append(Record(slot, known, pid, generation, connections, requests, at_ns))
    return records, malformed
