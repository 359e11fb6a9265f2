"""Status records: how a worker tells the master who is free.

A record carries the worker's whole state, so a lost or a doubled one does no harm. It is far shorter
than PIPE_BUF (4096 bytes on Linux), so the kernel never mixes or cuts two of them (pipe(7)).
"""

from __future__ import annotations

import struct
from enum import IntEnum

from attrs import frozen


class State(IntEnum):
    """What a worker says of itself, at each edge that the pool policy must know.

    ::

        fork ──► (nothing said: starting) ──► READY ──► TAKEN ◄──► IDLE ──► LEAVING ──► reaped
    """

    READY = 1  # has booted and waits for its first client
    TAKEN = 2  # has a client, or finds the next one without waiting
    IDLE = 3  # is about to wait
    LEAVING = 4  # takes no further client


# slot, state, pid, generation, connections, requests, at_ns
_RECORD = struct.Struct("=HHIIIQQ")
SIZE = _RECORD.size
"""Bytes of a record: 32."""
_MOST = 0xFFFFFFFF


@frozen
class Record:
    """One status record.

    Attributes:
        slot: The worker's slot on the board.
        generation: Counts the loads of the app's code.
        connections: Connections taken so far, modulo 2**32.
        requests: Requests done so far.
        at_ns: When it was written, on the monotonic clock.
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
    """Return the 32 bytes of a record with these attributes; any number of connections will do."""
    return _RECORD.pack(slot, state, pid, generation, connections & _MOST, requests, at_ns)


def unpack(data: bytes) -> tuple[list[Record], int]:
    """Return the records in what was read from a status pipe, and how many pieces made no sense.

    A worker writes whole records, so a length that is no multiple of ``SIZE`` is malformed at its end.
    """
    records = []
    malformed = 1 if len(data) % SIZE else 0
    whole = len(data) - len(data) % SIZE
    for slot, state, pid, generation, connections, requests, at_ns in _RECORD.iter_unpack(
        data[:whole]
    ):
        try:
            known = State(state)
        except ValueError:
            malformed += 1
            continue
        records.append(Record(slot, known, pid, generation, connections, requests, at_ns))
    return records, malformed
