"""Hooks and resources that record in a journal when and where they are called."""

from __future__ import annotations

import os
from collections.abc import Iterator

import linepool
from linepool import Connection, Session


class Tool:
    """The value of the resource."""

    opened_by = 0


def note(*words: object) -> None:
    """Append a line to the journal, with one system call."""
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, (" ".join(map(str, [os.getpid(), *words])) + "\n").encode())
    os.close(journal)


note("loaded")


@linepool.resource
def tool() -> Iterator[Tool]:
    """Open one per worker."""
    note("opened")
    opened = Tool()
    opened.opened_by = os.getpid()
    yield opened
    note("closed")


@linepool.on_start
def start() -> None:
    """Run in the master."""
    note("start")


@linepool.on_worker_start
def worker_start(tool: Tool) -> None:
    """Run in each worker."""
    note("worker-start", tool.opened_by == os.getpid())


@linepool.on_worker_exit
def worker_exit(tool: Tool) -> None:
    """Run in each worker."""
    note("worker-exit", tool.opened_by == os.getpid())


@linepool.on_connect
def greet(session: Session) -> str:
    """Greet a client, or refuse it."""
    note("connect", session.id)
    if os.path.exists(os.environ["JOURNAL"] + ".full"):
        raise linepool.ClientError("no room")
    return f"hello {session.id}"


@linepool.on_disconnect
def part(session: Session, tool: Tool) -> None:
    """Record the end of a connection."""
    note("disconnect", session.id)


@linepool.handler
def who(session: Session, tool: Tool) -> str:
    """Return what was injected."""
    return f"{session.id} {session.peer} {session.listener} {tool.opened_by}"


@linepool.handler
def hang_up(connection: Connection) -> str:
    """Close the connection."""
    connection.close()
    return "bye"
