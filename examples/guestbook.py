"""A guest book: a dialogue with state.

Each connection remembers its user and how far that user has read (the Session). Entries are stored in
an SQLite file that all workers share and that survives a restart.

    linepool run examples/guestbook.py --bind 127.0.0.1:7000

The environment variable GUESTBOOK names the file (default: guestbook.db in the working directory).
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import linepool

MAX_ENTRY_CHARS = 200
PAGE_ENTRIES = 5


def open_book() -> sqlite3.Connection:
    # Autocommit: each statement is its own transaction, so an error leaves none open.
    return sqlite3.connect(os.environ.get("GUESTBOOK", "guestbook.db"), isolation_level=None)


@linepool.on_start
def create_book() -> None:
    """Create the table in the master; close it before the fork, because SQLite must not cross one."""
    with closing(open_book()) as book:
        book.execute("PRAGMA journal_mode = WAL")  # readers do not wait for a writer
        book.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, name, text)")


@linepool.resource
def book() -> Iterator[sqlite3.Connection]:
    """Open the book in each worker; handlers request it by its type."""
    with closing(open_book()) as connection:
        yield connection


def check_printable(text: str) -> None:
    # It is shown on other people's terminals: no escape sequences, no line breaks.
    if not text.isprintable():
        raise linepool.ClientError("only printable characters are allowed.")


def count(book: sqlite3.Connection) -> int:
    return int(book.execute("SELECT count(*) FROM entry").fetchone()[0])


@linepool.on_connect
def greet(book: sqlite3.Connection) -> str:
    return f"Welcome. The book has {count(book)} entries. Say HELLO and your name."


@linepool.handler
def hello(name: str, session: linepool.Session) -> str:
    """Set your name."""
    check_printable(name)
    session.user = name
    return f"Hello {name}. SIGN the book, or READ it."


@linepool.handler
def sign(text: linepool.Rest, session: linepool.Session, book: sqlite3.Connection) -> str:
    """Write an entry under your name."""
    if session.user is None:
        raise linepool.ClientError("say HELLO and your name first.")
    check_printable(text)
    if len(text) > MAX_ENTRY_CHARS:
        raise linepool.ClientError(f"an entry has at most {MAX_ENTRY_CHARS} characters.")
    entry = (session.user, str(text))
    number = book.execute("INSERT INTO entry (name, text) VALUES (?, ?)", entry).lastrowid
    session["signed"] = session.get("signed", 0) + 1
    return f"Thank you {session.user}, this is entry {number}."


@linepool.handler
def read(session: linepool.Session, book: sqlite3.Connection) -> list[str]:
    """Show the next entries, from where you stopped reading."""
    # A list is sent as one line per item, then END. (An item "END" is sent in quotes.)
    rows = book.execute(
        "SELECT id, name, text FROM entry WHERE id > ? ORDER BY id LIMIT ?",
        (session.get("read", 0), PAGE_ENTRIES),
    ).fetchall()
    if rows:
        session["read"] = rows[-1][0]
    return [f"{number} {name}: {text}" for number, name, text in rows]


@linepool.handler
def rewind(session: linepool.Session) -> None:
    """Start reading from the first entry again."""
    session.pop("read", None)


@linepool.handler
def quit_(session: linepool.Session) -> linepool.Reply:
    """Say goodbye."""
    signed = session.get("signed", 0)
    return linepool.Reply(
        f"Goodbye {session.user or 'stranger'}. You signed {signed} times.", close=True
    )


if __name__ == "__main__":
    linepool.run()
