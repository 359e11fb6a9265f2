"""The incidents as they are read, from the memory alone."""

from __future__ import annotations

import json
import mmap
from typing import Any

from attrs import frozen

from linepool.ipc.incidents.memory import IncidentMemory
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

_TRIES = 3  # to read a record that is being written


@frozen
class Record:
    """A record as it is in the ring; see ``words``."""

    change: int
    number: int
    count: int
    first: float
    last: float
    facts: bytes


class Reader:
    """Reads incidents; any process that has the memory mapped may do so.

    Args:
        memory: The ring.
    """

    def __init__(self, memory: IncidentMemory) -> None:
        self._memory = memory

    def records(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the incidents that are there, in the order in which they have begun.

        Args:
            since: Leave out those that have not changed since the largest ``change`` of an earlier call. If
                it is larger than any, it was of an earlier server: all are returned.

        Returns:
            Of each its ``number``, ``change``, ``first``, ``last`` and ``count``, and the facts that the
            master has written. A record that is damaged is left out.
        """
        if not (self._memory.is_whole and self._memory.is_readable):
            return []
        page = self._memory.map
        places = [place_of(number) for number in range(1, RECORDS + 1)]
        # Most often nothing has changed, and all records together may have 1.6 MB.
        changes = [CHANGE.unpack_from(page, at + LAST_CHANGE_AT)[0] for at in places]
        if since > max(changes):
            since = 0
        changed = [at for at, change in zip(places, changes, strict=True) if change > since]
        records = [record for at in changed if (record := record_at(page, at)) is not None]
        found = [facts for record in records if (facts := _facts(record)) is not None]
        return sorted(found, key=lambda one: one["number"])


def record_at(page: mmap.mmap, at: int) -> Record | None:
    """Return the record that begins somewhere in the ring; None: there is none, or a damaged one."""
    for _ in range(_TRIES):
        (ended,) = CHANGE.unpack_from(page, at + LAST_CHANGE_AT)
        change, number, count, first, last, length, check = RECORD.unpack_from(page, at)
        if not (ended and number and length <= MOST_FACTS):
            continue
        facts = bytes(page[at + FACTS_AT : at + FACTS_AT + length])
        (begun,) = CHANGE.unpack_from(page, at)
        if begun == change == ended and check == checksum(
            change, number, count, first, last, facts
        ):
            return Record(change, number, count, first, last, facts)
    return None


def _facts(record: Record) -> dict[str, Any] | None:
    """Return a record as a dict; None: its facts are not such."""
    try:
        facts = json.loads(record.facts)
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    return {
        "number": record.number,
        "change": record.change,
        "first": record.first,
        "last": record.last,
        "count": record.count,
        **facts,
    }
