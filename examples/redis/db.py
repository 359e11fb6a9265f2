"""What the commands of a batch do with the store, in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifications import SETTING, Event, wanted
from settings import get_setting
from topics import Woken, add_wake, element_topic
from transaction import Txn
from unblocking import Unblocking

from linepool import ClientError, Waited

if TYPE_CHECKING:
    from key_store import Store


class Db:
    """What the commands of one batch do, in one transaction, which ``end`` commits.

    It begins with the first command that reads, and is replaced by one that can write at the first
    command that writes. A command that fails when it has changed something takes the transaction along:
    if only its own changes are in it, they are undone, and otherwise the whole batch fails.

    Attributes:
        database: The number of the database that the connection has selected.
        client: The id of the connection's session.
        events: What was done to keys in the transactions that were committed, if notifications are wanted.
        notified: The letters of the setting for notifications, as of the last of these events.
        expired: Keys that commands have found expired, with the numbers of their databases.
        messages: What MULTIs and scripts that were committed have published: channels, and messages.
        woken: How many requests are to be woken, by topic, for what was committed; None: all.
    """

    database = 0
    client = ""
    notified = ""

    def __init__(self, store: Store) -> None:
        self.events: list[Event] = []
        self.expired: list[tuple[int, bytes]] = []
        self.messages: list[tuple[bytes, bytes]] = []
        self.woken: Woken = {}
        self._store = store
        self._open: Txn | None = None
        self._failure: Exception | None = None  # why earlier commands have not happened

    def unblocking(self, waited: Waited) -> Unblocking:
        """Return what lets another client end the wait of this one's command."""
        is_joint = self._open is not None and self._open.is_joint  # then nothing waits
        return Unblocking(None if is_joint else self._store.blocked, self.client, waited)

    def select(self, database: int) -> None:
        """Have the commands that follow use another database."""
        self.database = database
        if self._open is not None:
            self._open.select(database)

    def read(self) -> Txn:
        """Return the transaction for a command that only reads: ``with db.read() as t``."""
        txn = self._open
        if txn is None:
            txn = self._open = Txn(self._store, self, write=False)
        else:
            txn.begin_command()
        return txn

    def write(self) -> Txn:
        """Return the transaction for a command that is an atomic change: ``with db.write() as t``."""
        txn = self._open
        if txn is None or not txn.writes:
            self.undo()
            txn = self._open = Txn(self._store, self, write=True)
        txn.begin_command()
        return txn

    def publish(self, channel: bytes, message: bytes) -> bool:
        """Have a message of a MULTI or a script published when it has been committed.

        Returns whether this is part of one; otherwise nothing was done.
        """
        txn = self._open
        if txn is None or not txn.is_joint:
            return False
        txn.messages = (*txn.messages, (channel, message))
        return True

    @contextlib.contextmanager
    def together(self) -> Iterator[Txn]:
        """Run all reads and writes in the block in a transaction of its own, or in that of a MULTI.

        Raises:
            ClientError: The store is full; nothing was changed.
        """
        if self._open is not None and self._open.is_joint:
            yield self._open
            return
        try:
            self.commit()
        except Exception as error:
            self._failure = error
            raise
        txn = self.write()
        txn.is_joint = True
        try:
            yield txn
            self.commit()
        finally:
            self.undo()

    def end(self) -> None:
        """Commit at the end of the batch.

        Raises:
            ClientError: The store was full, and some of the commands have not happened.
            RuntimeError: One failed in the middle of its changes; likewise.
        """
        failure = self._failure
        if failure is not None:
            self.abort()
            raise failure
        self.commit()
        if self.expired:
            self._remove_expired()

    def _remove_expired(self) -> None:
        """Remove the keys that were found expired, if subscribers are to be told."""
        found, self.expired = self.expired, []
        is_wanted = "x" in wanted(get_setting(self.read(), SETTING))
        self.undo()
        if not is_wanted:
            return
        with contextlib.suppress(ClientError), self.write() as t:  # a full store
            for database, key in found:
                with t.within(database):
                    t.find(key)
            self.commit()

    def commit(self) -> None:
        """Commit what the commands so far have changed; raises as ``end``."""
        txn, self._open = self._open, None
        if txn is not None:
            if txn.writes:
                txn.end()
                if txn.events:
                    self.events += txn.events
                    self.notified = txn.notified or ""
                self.messages += txn.messages
                for topic, count in txn.woken.items() if txn.woken else ():
                    add_wake(self.woken, topic, count)
                for place, number in txn.arrived.items() if txn.arrived else ():
                    add_wake(self.woken, element_topic(*place), number)
            else:
                txn.abort()

    def abort(self) -> None:
        """End the batch without a commit."""
        self._failure = None
        self.expired.clear()
        self.undo()

    def undo(self) -> None:
        """Undo what has not been committed."""
        txn, self._open = self._open, None
        if txn is not None:
            txn.abort()
