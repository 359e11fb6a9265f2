"""Redis' keys in LMDB, shared by all workers.

Two tables for each database: ``keys`` has a header for each key (and the value of a string), ``ids`` the
keys by their number, for SCAN. Three for all: ``elements`` has the elements of collections, by the key's
number; ``scores`` the members of sorted sets by score; ``expiries`` the keys by the time when they expire.
``scripts`` is that of ``script_table.py``.

The commands that are answered together share one transaction, see ``Db``. So a killed worker loses only
writes that it had not acknowledged.
"""

from __future__ import annotations

from functools import partial

import lmdb
from db import Db
from layout import DATABASES
from pausing import Pause
from unblocking import Blocked

READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
_ROOM = 8  # with less than this part of the store unused, each write is a transaction
_LOOK_EVERY = 8  # transactions that write, until the store's room is looked at again


class Store:
    """The LMDB environment of a worker, which must not cross a fork, and its tables.

    Attributes:
        db: For the commands of one batch after the other.
        pause: Holds transactions.
        blocked: Which clients wait.
    """

    def __init__(self, path: str, size_bytes: int) -> None:
        self._env = lmdb.open(
            path,
            map_size=size_bytes,
            max_readers=READERS,
            max_dbs=2 * DATABASES + 4,
            sync=False,
            metasync=False,
            writemap=True,
        )
        self._env.reader_check()  # frees the slots of killed workers
        self._page_bytes = int(self._env.stat()["psize"])
        self._writes = 0  # transactions that can write
        self._has_room = False
        with self._env.begin(write=True) as raw:
            opened = partial(self._env.open_db, txn=raw)
            numbers = [b"%d" % n if n else b"" for n in range(DATABASES)]
            self.keys = [opened(b"keys" + number) for number in numbers]
            self.ids = [opened(b"ids" + number) for number in numbers]
            self.elements = opened(b"elements")
            self.scores = opened(b"scores")
            self.expiries = opened(b"expiries")
            self.scripts = opened(b"scripts")
        self.pause = Pause(path)
        self.blocked = Blocked(path)
        self.db = Db(self)

    def close(self) -> None:
        """Close the store."""
        self.pause.close()
        self.blocked.close()
        self._env.close()

    def begin(self, *, write: bool) -> lmdb.Transaction:
        """Begin a transaction; one that only reads gives views of the store in place of copies."""
        if self.pause.words[0]:
            self.pause.hold(write=write)
        return self._env.begin(None, None, write, not write)  # by name takes twice as long

    def sync(self) -> None:
        """Have what has been committed written to the disk."""
        self._env.sync(True)

    def used_bytes(self) -> int:
        """Return how much of the store is used, or was and is free for use again."""
        return (int(self._env.info()["last_pgno"]) + 1) * self._page_bytes

    def has_room(self) -> bool:
        """Whether the writes of some commands will hardly fill the store; to look costs a little."""
        if self._writes % _LOOK_EVERY == 0:
            info = self._env.info()
            unused = info["map_size"] - (info["last_pgno"] + 1) * self._page_bytes
            self._has_room = unused > info["map_size"] // _ROOM
        self._writes += 1
        return self._has_room
