"""Where the parts of the ring are. It may be in a file, so its form does not depend on the machine."""

from __future__ import annotations

import struct
import zlib

RECORDS = 100
RECORD_BYTES = 20480
HEAD_BYTES = 4096
TOTAL_BYTES = HEAD_BYTES + RECORDS * RECORD_BYTES

# At the beginning: what it is, the version of the form of a record, how many there are, and their size.
HEAD = struct.Struct("<8sIII")
MAGIC = b"LPEVENTS"
VERSION = 1

# A record: the number of the change that wrote it; the number of the incident (0: there is none); how often
# it has happened; when it did so first and last, in seconds since 1970; the length of the facts, which are
# JSON; and a checksum of all that. The number of the change is there once more at its end.
RECORD = struct.Struct("<QQQddII")
CHANGE = struct.Struct("<Q")
FACTS_AT = RECORD.size
LAST_CHANGE_AT = RECORD_BYTES - CHANGE.size
MOST_FACTS = LAST_CHANGE_AT - FACTS_AT
"""Bytes."""


def head_of() -> bytes:
    """Return the head of a ring that this code reads."""
    return HEAD.pack(MAGIC, VERSION, RECORDS, RECORD_BYTES)


def place_of(number: int) -> int:
    """Return where the record of an incident begins."""
    return HEAD_BYTES + (number - 1) % RECORDS * RECORD_BYTES


def checksum(
    change: int, number: int, count: int, first: float, last: float, facts: bytes | memoryview
) -> int:
    """Return the checksum of a record."""
    fields = RECORD.pack(change, number, count, first, last, len(facts), 0)
    return zlib.crc32(facts, zlib.crc32(fields))
