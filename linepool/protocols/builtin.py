"""The built-in commands of a protocol of lines: AUTH, HELP and QUIT for people, SCHEMA for programs."""

from __future__ import annotations

from typing import Any

from linepool.errors import ClientError
from linepool.login import Login
from linepool.protocols.base import Builtin, Command, Protocol
from linepool.protocols.document import Document, for_one
from linepool.session import Reply, Secret

_FOR_PROGRAMS = {"SCHEMA"}  # which HELP does not list
_HELP_COLUMN = 40  # characters; a longer usage text pushes its description to the right


def help_(protocol: Protocol, command: str | None = None) -> list[str]:
    """List the commands, or explain one."""
    if command is not None:
        entry = _entry(protocol, command)
        returns = protocol.shape(entry).text
        said = [f"Returns: {returns}"] if returns else []
        return [entry.usage, *_aliases(entry), *said, *entry.doc.splitlines()]
    entries = [
        entry
        for entry in {id(entry): entry for entry in protocol.commands.values()}.values()
        if not (entry.is_builtin and entry.names[0] in _FOR_PROGRAMS)
    ]
    width = min(_HELP_COLUMN, max(len(entry.usage) for entry in entries))
    firsts = [(entry.usage, *entry.doc.splitlines()[:1]) for entry in entries]
    return ["  ".join([first[0].ljust(width), *first[1:]]).rstrip() for first in firsts]


def schema(protocol: Protocol, whole: Document, command: str | None = None) -> dict[str, Any]:
    """Describe the commands for programs: parameters, replies and types, as JSON."""
    return whole if command is None else for_one(whole, protocol, _entry(protocol, command))


def auth(login: Login, user: str, password: Secret) -> None:
    """Log in."""
    login(user, password)


def quit_() -> Reply:
    """Close the connection."""
    return Reply(close=True)


def _entry(protocol: Protocol, command: str) -> Command:
    entry = protocol.commands.get(command.encode().upper())
    if entry is None:
        raise ClientError(f"unknown command {command!r}. HELP lists the commands.")
    return entry


def _aliases(entry: Command) -> list[str]:
    return [f"Also: {' '.join(entry.names[1:])}"] if entry.names[1:] else []


HELP: Builtin = (("HELP",), help_)
AUTH: Builtin = (("AUTH",), auth)
QUIT: Builtin = (("QUIT",), quit_)
SCHEMA: Builtin = (("SCHEMA",), schema, {"records": "json"})
