"""Private notes: a dialogue that begins with a login.

    linepool run examples/services/notes.py --bind 127.0.0.1:7000

Who is logged in is remembered with the connection (the Session), also when that moves to another worker.
NOTES names the SQLite file that all workers share, by default notes.db in the working directory.
"""

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import linepool
from linepool import ClientError, Reply, Request, Rest, Secret, Session

app = linepool.App("notes")
PUBLIC = {b"REGISTER", b"LOGIN", b"HELP", b"QUIT"}
Database = sqlite3.Connection


def connect() -> Database:
    return sqlite3.connect(os.environ.get("NOTES", "notes.db"), isolation_level=None)


@app.on_start
def create() -> None:
    with closing(connect()) as database:
        database.execute("CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, salt, hash)")
        database.execute("CREATE TABLE IF NOT EXISTS note (name TEXT, text TEXT)")


@app.resource
def database() -> Iterator[Database]:
    with closing(connect()) as connection:
        yield connection


@app.on_connect
def greet() -> str:
    return "Notes. LOGIN name password, or REGISTER name password."


@app.middleware
def require_login(request: Request, session: Session, call_next: Any) -> object:
    if session.user is None and request.verb.upper() not in PUBLIC:
        raise ClientError("log in first")
    return call_next(request)


def hashed(password: Secret, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


@app.handler
def register(name: str, password: Secret, session: Session, database: Database) -> str:
    """Make an account, and log in."""
    salt = os.urandom(16)
    row = (name, salt, hashed(password, salt))
    try:
        database.execute("INSERT INTO account VALUES (?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise ClientError(f"the name {name} is taken") from None
    session.user = name
    return f"Welcome {name}."


@app.handler
def login(name: str, password: Secret, session: Session, database: Database) -> str | Reply:
    """Log in; after three wrong tries the connection ends."""
    found = database.execute("SELECT salt, hash FROM account WHERE name = ?", (name,)).fetchone()
    salt, right = found or (b"", b"")  # an unknown name takes as long as a wrong password
    if hmac.compare_digest(hashed(password, salt), right):
        session.user = name
        return f"Welcome back {name}."
    session["tries"] = session.get("tries", 0) + 1
    if session["tries"] == 3:
        return Reply("Goodbye.", close=True)
    raise ClientError("wrong name or password")


@app.handler
def note(text: Rest, session: Session, database: Database) -> None:
    """Keep a line."""
    database.execute("INSERT INTO note VALUES (?, ?)", (session.user, str(text)))


@app.handler
def notes(session: Session, database: Database) -> list[str]:
    """Show your notes."""
    rows = database.execute("SELECT text FROM note WHERE name = ?", (session.user,))
    return [text for (text,) in rows]


if __name__ == "__main__":
    linepool.run(app)
