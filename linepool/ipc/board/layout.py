"""Whether two versions of the code agree on what processes share."""

from __future__ import annotations

import struct
import zlib

from linepool.ipc import channel, waiting
from linepool.ipc.board import words
from linepool.ipc.figures import words as figures
from linepool.pool import status
from linepool.pubsub import bus
from linepool.settings import MAX_WORKERS


def layout_hash() -> int:
    """Return a number of 32 bits that another layout of the board, a record or a message changes.

    It covers the names and numbers of the board's words and orders, the sizes that place them, the status
    record, the connection that is passed, the request that waits, the bus, and the figures.
    """
    facts = [f"workers={MAX_WORKERS} bus={bus.LAYOUT}"]
    facts.append(f"waiting={waiting.HEAD.format}")
    facts += [f"record={status.RECORD.format} passed={channel.PASSED.format}"]
    facts += [f"figures={figures.TOTAL_BYTES}/{figures.BLOCK_WORDS} slow={figures.SLOW.format}"]
    facts += [f"{one.name}={one.value}" for kind in (words.Order, status.State) for one in kind]
    for name, value in sorted(vars(words).items()):
        if isinstance(value, struct.Struct):
            facts.append(f"{name}={value.format}")
        elif isinstance(value, int):
            facts.append(f"{name}={value}")
    return zlib.crc32("\n".join(facts).encode())
