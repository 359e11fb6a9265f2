"""A transaction: begun, used by commands, committed or undone."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import lmdb
from layout import pack_number
from txn_databases import DatabasesTxn
from txn_lists import ListsTxn
from txn_sorted_sets import SortedSetsTxn
from txn_streams import StreamsTxn

from linepool import ClientError

if TYPE_CHECKING:
    from db import Db
    from key_store import Store

_EXPIRED_PER_WRITE = 2  # expired keys that one write removes
_FULL_ERRORS = (lmdb.MapFullError, lmdb.BadTxnError)
_FULL = "command not allowed when used memory > 'maxmemory'."


class Txn(DatabasesTxn, ListsTxn, SortedSetsTxn, StreamsTxn):
    """A transaction: reads and changes of keys and their elements; the block of each command.

    Attributes:
        is_joint: The commands in it are those of a MULTI or of a script.
        messages: What is to be published when it has been committed.
    """

    # Most commands do not change these either.
    is_joint = False
    messages: tuple[tuple[bytes, bytes], ...] = ()
    _commands = 0
    _is_shared = True  # further commands may follow; otherwise each is committed at once
    _holds_changes = False  # of earlier commands
    _failure = ""  # why it cannot be committed; "": it can

    def __init__(self, store: Store, db: Db, *, write: bool) -> None:
        self._db = store
        self._owner = db
        self.writes = write
        self._raw = raw = store.begin(write=write)
        self._get = raw.get
        self.database = database = db.database
        self._keys = store.keys[database]
        if write:
            self._is_shared = store.has_room()
            self._sweep(_EXPIRED_PER_WRITE)

    def begin_command(self) -> None:
        """Have a command of its own time; those of a MULTI have the same."""
        if not self.is_joint:
            self._now_ms = 0
            self._commands += 1

    def __enter__(self) -> Txn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_full = kind is not None and issubclass(kind, _FULL_ERRORS)
        if is_full:
            self._failure = _FULL
        if self.is_joint:
            pass  # the MULTI is committed or aborted as a whole
        elif kind is None:
            self._holds_changes |= self._is_changed
            self._is_changed = False
            if not self._is_shared:
                self._owner.commit()
        elif self._is_changed or is_full:
            if self._holds_changes:
                self._failure = self._failure or f"a command failed in its changes: {error!r}"
            else:
                self._owner.undo()
        if is_full:
            raise ClientError(_FULL, code="OOM") from None

    def end(self) -> None:
        """Commit; raises as ``Db.end``."""
        if self._failure:
            self.abort()
            if self._failure == _FULL:
                raise ClientError(_FULL, code="OOM")
            raise RuntimeError(self._failure)
        try:
            if self._commands > 1:
                self._sweep(_EXPIRED_PER_WRITE * (self._commands - 1))
            if self._number:
                self._raw.put(b"number", pack_number(self._number))
            self._raw.commit()
        except _FULL_ERRORS:  # full now, or earlier in a MULTI
            self.abort()
            raise ClientError(_FULL, code="OOM") from None

    def abort(self) -> None:
        """Undo all changes."""
        self._raw.abort()

    @property
    def has_room(self) -> bool:
        """Whether a few changes will hardly fill the store; known of a transaction that can write."""
        return self._is_shared
