"""The messages, in one SQLite file that all workers of both servers share."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator

from attrs import frozen

from linepool import SetupError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, data BLOB NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_user ON messages (user, id);
CREATE TABLE IF NOT EXISTS locks (user TEXT PRIMARY KEY, owner TEXT NOT NULL, pid INTEGER NOT NULL);
"""
_WRITE_LOCK_TIMEOUT_S = 10.0


@frozen
class Message:
    """A message in the list of a mailbox."""

    id: int
    size: int


class Store:
    """The mailboxes; open it after the fork, once in each process."""

    def __init__(self, path: str) -> None:
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

    def data(self, number: int) -> bytes | None:
        """Return a message, with CR LF at the end of each line."""
        row = self._db.execute("SELECT data FROM messages WHERE id = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def delete(self, numbers: Iterable[int]) -> None:
        """Delete messages."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM messages WHERE id = ?", [(n,) for n in numbers])

    def lock(self, user: str, owner: str) -> bool:
        """Lock a mailbox for one connection; return False if a live process holds the lock."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            row = self._db.execute("SELECT pid FROM locks WHERE user = ?", (user,)).fetchone()
            if row is not None and os.path.exists(f"/proc/{row[0]}"):
                return False
            self._db.execute(
                "INSERT OR REPLACE INTO locks VALUES (?, ?, ?)", (user, owner, os.getpid())
            )
            return True

    def unlock(self, owner: str) -> None:
        """Release the lock of a connection."""
        self._db.execute("DELETE FROM locks WHERE owner = ?", (owner,))


def opened() -> Iterator[Store]:
    """Yield the store that MAIL_FILE names."""
    store = Store(os.environ.get("MAIL_FILE", "mail.db"))
    yield store
    store.close()


def check() -> None:
    """Check the environment variables, before anything is served.

    Raises:
        SetupError: A variable is wrong.
    """
    directory = os.path.dirname(os.path.abspath(os.environ.get("MAIL_FILE", "mail.db")))
    if not os.access(directory, os.W_OK):
        raise SetupError(f"MAIL_FILE: directory {directory} does not exist or is not writable")
    if not users():
        raise SetupError("MAIL_USERS must be a list such as ann:secret,bob:other")


def users() -> dict[str, str]:
    """Return the passwords of the users: MAIL_USERS, such as ``ann:secret,bob:other``."""
    text = os.environ.get("MAIL_USERS", "ann:secret,bob:secret")
    return dict(pair.split(":", 1) for pair in text.split(",") if ":" in pair)


def stamp() -> str:
    """Return the current time in the format of mail (RFC 5322)."""
    return time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())
