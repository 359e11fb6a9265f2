"""What clients have said of themselves, by the numbers of their connections, for all workers.

The notes are rows of a file in the directory of the store, which each worker maps. Only clients that give
a name, say which library they use and the like have one. The worker that serves a client writes its row.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
import time
from collections.abc import Collection, Iterator
from typing import Any

_ROWS = 16384
_ROW_BYTES = 512
_HEAD = struct.Struct(
    "=QH"
)  # the connection's number (0: the row is free), and the length of the text
_MOST_TEXT = 64  # of a name
_LONGEST_SEARCH = 64  # for a free row
_NUMBER = struct.Struct("=Q")


class ClientNotes:
    """The notes about all clients.

    Args:
        directory: That of the store.
    """

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, "clients")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, _ROWS * _ROW_BYTES)
        self._rows = mmap.mmap(self._file, _ROWS * _ROW_BYTES)

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()
        os.close(self._file)

    def change(self, number: int, **facts: Any) -> None:
        """Note facts about a client; those of other names stay. If there is no room, they are not noted."""
        at = self._find(number)
        known = {} if at is None else self._read(at)[1]
        if at is None:
            at = self._claimed(number)
        if at is None:
            return
        known = {"at": int(time.time()), **known, **facts}
        short = {
            name: fact[:_MOST_TEXT] if isinstance(fact, str) else fact
            for name, fact in known.items()
        }
        text = json.dumps(short).encode()[: _ROW_BYTES - _HEAD.size]
        row = _HEAD.pack(number, len(text)) + text
        self._rows[at : at + len(row)] = row

    def of(self, number: int) -> dict[str, Any]:
        """Return the notes about a client."""
        at = self._find(number)
        return {} if at is None else self._read(at)[1]

    def all(self) -> dict[int, dict[str, Any]]:
        """Return all notes, by the numbers of the connections."""
        return {
            number: facts
            for number, facts in map(self._read, range(0, _ROWS * _ROW_BYTES, _ROW_BYTES))
            if number
        }

    def keep(self, alive: Collection[int]) -> None:
        """Forget the clients that are no more."""
        with self._locked():
            for at in range(0, _ROWS * _ROW_BYTES, _ROW_BYTES):
                number = _NUMBER.unpack_from(self._rows, at)[0]
                if number and number not in alive:
                    _NUMBER.pack_into(self._rows, at, 0)

    def _places(self, number: int) -> Iterator[int]:
        for step in range(_LONGEST_SEARCH):
            yield (number * 2654435761 + step) % _ROWS * _ROW_BYTES

    def _find(self, number: int) -> int | None:
        for at in self._places(number):
            if _NUMBER.unpack_from(self._rows, at)[0] == number:
                return at
        return None

    def _claimed(self, number: int) -> int | None:
        with self._locked():
            for at in self._places(number):
                if not _NUMBER.unpack_from(self._rows, at)[0]:
                    self._rows[at : at + _HEAD.size] = _HEAD.pack(number, 0)
                    return at
        return None

    def _read(self, at: int) -> tuple[int, dict[str, Any]]:
        number, size = _HEAD.unpack_from(self._rows, at)
        if not number:
            return 0, {}
        begin = at + _HEAD.size
        try:
            return number, json.loads(self._rows[begin : begin + size])
        except ValueError:  # it is being written
            return number, {}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude the other workers; a lock ends with its process."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
