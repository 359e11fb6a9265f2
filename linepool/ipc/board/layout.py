"""Whether two versions of the code agree on what processes share."""

from __future__ import annotations

import struct
import zlib

from linepool.ipc import channel
from linepool.ipc.board import words
from linepool.pool import status
from linepool.pubsub import bus
from linepool.settings import MAX_WORKERS


def layout_hash() -> int:
    """Return a number of 32 bits that another layout of the board, a record or a message changes.

    It covers the names and numbers of the board's words and orders, the sizes that place them, the status
    record, the connection that is passed, and the bus.
    """
    facts = [f"workers={MAX_WORKERS} bus={bus.LAYOUT}"]
    facts += [f"record={status.RECORD.format} passed={channel.PASSED.format}"]
    facts += [f"{one.name}={one.value}" for kind in (words.Order, status.State) for one in kind]
    for name, value in sorted(vars(words).items()):
        if isinstance(value, struct.Struct):
            facts.append(f"{name}={value.format}")
        elif isinstance(value, int):
            facts.append(f"{name}={value}")
    return zlib.crc32("\n".join(facts).encode())
