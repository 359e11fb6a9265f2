"""Writes the ring. Used by the master alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from linepool.ipc.incidents.memory import IncidentMemory
from linepool.ipc.incidents.reader import Reader, record_at
from linepool.ipc.incidents.words import (
    CHANGE,
    FACTS_AT,
    LAST_CHANGE_AT,
    MOST_FACTS,
    RECORD,
    RECORDS,
    checksum,
    place_of,
)

MOST_STACK = 16384
"""Bytes of a stack, as JSON; the calls that are the furthest from the place are left out."""


class Writer:
    """Writes incidents, each in the place of the oldest one.

    Args:
        memory: The ring; what it has already is kept.
    """

    def __init__(self, memory: IncidentMemory) -> None:
        self._memory = memory
        records = Reader(memory).records()
        self._number = max((one["number"] for one in records), default=0)
        self._change = max((one["change"] for one in records), default=0)

    def add(self, facts: Mapping[str, Any], first: float, last: float) -> int:
        """Write an incident; return its number.

        Args:
            facts: What is to be known of it, for JSON; ``stack`` has its calls, the most recent one first.
            first: When it began, in seconds since 1970.
            last: When it ended.
        """
        self._number += 1
        self._write(self._number, 1, first, last, _packed(facts))
        return self._number

    def extend(self, number: int, last: float, more: int = 1) -> bool:
        """Note that an incident has happened again, or lasts; return whether it is still there.

        Args:
            number: The incident's.
            last: When it happened last.
            more: How many more times it has happened.
        """
        if number <= self._number - RECORDS:
            return False
        found = record_at(self._memory.map, place_of(number))
        if found is None or found.number != number:
            return False
        self._write(number, found.count + more, found.first, last, found.facts)
        return True

    def _write(self, number: int, count: int, first: float, last: float, facts: bytes) -> None:
        at, page = place_of(number), self._memory.map
        self._change += 1
        change = self._change
        CHANGE.pack_into(page, at, change)  # from now on it differs from that at the end
        page[at + FACTS_AT : at + FACTS_AT + len(facts)] = facts
        check = checksum(change, number, count, first, last, facts)
        RECORD.pack_into(page, at, change, number, count, first, last, len(facts), check)
        CHANGE.pack_into(page, at + LAST_CHANGE_AT, change)


def _packed(facts: Mapping[str, Any]) -> bytes:
    """Return facts as JSON that has room in a record; the stack is cut if need be, the reason left out."""
    stack = list(facts["stack"])
    size = 0
    for at, call in enumerate(stack):
        size += len(json.dumps(call)) + 2
        if size > MOST_STACK:
            del stack[at:]
            break
    kept = {**facts, "stack": stack}
    while len(data := json.dumps(kept).encode()) > MOST_FACTS:
        if stack:
            del stack[len(stack) // 2 :]
        else:
            kept["why"] = None
    return data
