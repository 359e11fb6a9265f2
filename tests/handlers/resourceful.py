"""Resources of each scope: a client of a TCP server, and things that note their lives in a journal."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from common import wait_at_gate

import linepool

PORT = int(os.environ.get("DATABASE", "0"))


def note(text: str) -> None:
    """Append a line to the journal."""
    with open(os.environ["JOURNAL"], "a") as journal:
        journal.write(f"{text}\n")


class Database:
    """A connection to the TCP server, which returns each line."""

    def __init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", PORT), 10)

    def query(self, text: str) -> str:
        """Return what the server sends back."""
        self.socket.sendall(f"{text}\n".encode())
        reply = self.socket.recv(100)
        if not reply:
            raise ConnectionResetError("the database is gone")
        return reply.decode().strip()


class Client:
    """What a connection keeps."""

    def __init__(self) -> None:
        self.count = 0


class Change:
    """What a request makes."""


def is_well(database: Database) -> bool:
    """Return whether the server answers."""
    return database.query("check") == "check"


if PORT:

    @linepool.resource(check=is_well, check_after=0)
    def database() -> Iterator[Database]:
        """Connect."""
        database = Database()
        yield database
        database.socket.close()

    @linepool.handler
    def query(text: str, database: Database) -> str:
        """Ask the database."""
        return database.query(text)


@linepool.resource(scope="connection")
def client(session: linepool.Session) -> Iterator[Client]:
    """Note when a connection begins and ends to have it."""
    note("client opened")
    yield Client()
    note("client closed")


@linepool.resource(scope="request")
def change() -> Iterator[Change]:
    """Note how a request ends."""
    try:
        yield Change()
    except BaseException as error:
        note(f"change {type(error).__name__}")
        raise
    note("change done")


@linepool.handler
def count(client: Client) -> int:
    """Count the requests of the connection."""
    client.count += 1
    return client.count


@linepool.handler
def apply(change: Change) -> None:
    """Succeed."""


@linepool.handler
def both(client: Client, change: Change) -> int:
    """Take one of each scope."""
    client.count += 1
    return client.count


@linepool.handler(timeout=0.2)
def late(change: Change) -> None:
    """Take too long."""
    wait_at_gate()


@linepool.handler
def flow(lines: int, size: int, change: Change) -> Iterator[bytes]:
    """Send lines."""
    for _ in range(lines):
        yield b"x" * size
