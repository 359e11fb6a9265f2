"""The messages, in one SQLite file that all workers of both servers share."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator

from attrs import frozen

from linepool import SetupError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, data BLOB NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_user ON messages (user, id);
"""
_WRITE_LOCK_TIMEOUT_S = 10.0


@frozen
class Message:
    """A message in the list of a maildrop.

    Attributes:
        id: Never used again for another message.
        size: In bytes, with CR LF at the end of each line.
    """

    id: int
    size: int


class Store:
    """The mailboxes; open it after the fork, once in each process.

    Args:
        path: The SQLite file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._db = sqlite3.connect(path, timeout=_WRITE_LOCK_TIMEOUT_S, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # acknowledged mail survives a power failure
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def deliver(self, users: Iterable[str], data: bytes) -> None:
        """Put a message into mailboxes: all of them or none."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO messages (user, data, size) VALUES (?, ?, ?)",
                [(user, data, len(data)) for user in users],
            )

    def messages(self, user: str) -> list[Message]:
        """Return the messages of a mailbox, oldest first."""
        rows = self._db.execute("SELECT id, size FROM messages WHERE user = ? ORDER BY id", (user,))
        return [Message(*row) for row in rows]

    def data(self, number: int) -> bytes:
        """Return a message, with CR LF at the end of each line."""
        row = self._db.execute("SELECT data FROM messages WHERE id = ?", (number,)).fetchone()
        return bytes(row[0])

    def delete(self, numbers: Iterable[int]) -> None:
        """Delete messages: all of them or none."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM messages WHERE id = ?", [(n,) for n in numbers])


class Maildrop:
    """The messages of one user, for one POP3 session that has them alone (RFC 1939, 4).

    Args:
        store: The mailboxes.

    Attributes:
        messages: As they were when the maildrop was opened; their numbers begin at 1.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock: int | None = None
        self.messages: list[Message] = []
        self._deleted: set[int] = set()

    def open(self, user: str) -> bool:
        """Lock a mailbox and list its messages; return False if another session has it.

        The kernel unlocks the mailbox of a worker that dies (flock(2)).
        """
        lock = os.open(f"{self._store.path}.{user}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self.messages = self._store.messages(user)
        return True

    def close(self) -> None:
        """Unlock the mailbox, if it is open."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def listed(self) -> list[tuple[int, Message]]:
        """Return the messages that are not marked as deleted, with their numbers."""
        rows = enumerate(self.messages, 1)
        return [(number, message) for number, message in rows if number not in self._deleted]

    def message(self, number: int) -> Message | None:
        """Return the message with a number, or None if there is none, or it is marked as deleted."""
        if number in self._deleted or not 0 < number <= len(self.messages):
            return None
        return self.messages[number - 1]

    def data(self, message: Message) -> bytes:
        """Return the bytes of a message."""
        return self._store.data(message.id)

    def mark(self, number: int) -> None:
        """Mark a message as deleted."""
        self._deleted.add(number)

    def unmark(self) -> None:
        """Remove all marks."""
        self._deleted.clear()

    def delete_marked(self) -> None:
        """Delete the marked messages: all of them or none."""
        self._store.delete(self.messages[number - 1].id for number in self._deleted)


def opened() -> Iterator[Store]:
    """Yield the store that MAIL_FILE names."""
    store = Store(os.environ.get("MAIL_FILE", "mail.db"))
    yield store
    store.close()


def check() -> None:
    """Check MAIL_FILE, before anything is served.

    Raises:
        SetupError: There can be no such file.
    """
    directory = os.path.dirname(os.path.abspath(os.environ.get("MAIL_FILE", "mail.db")))
    if not os.access(directory, os.W_OK):
        raise SetupError(f"MAIL_FILE: directory {directory} does not exist or is not writable")
