"""The built-in commands of a protocol that people type: HELP and QUIT."""

from __future__ import annotations

from linepool.errors import ClientError
from linepool.protocols.base import Builtin, Command, Protocol
from linepool.session import Reply

_HELP_COLUMN = 40  # characters; a longer usage text pushes its description to the right


def help_(protocol: Protocol, command: str | None = None) -> list[str]:
    """List the commands, or explain one."""
    if command is not None:
        entry = protocol.commands.get(command.encode().upper())
        if entry is None:
            raise ClientError(f"unknown command {command!r}. HELP lists the commands.")
        returns = protocol.shape(entry).text
        said = [f"Returns: {returns}"] if returns else []
        return [entry.usage, *_aliases(entry), *said, *entry.doc.splitlines()]
    entries = {id(entry): entry for entry in protocol.commands.values()}.values()
    width = min(_HELP_COLUMN, max(len(entry.usage) for entry in entries))
    firsts = [(entry.usage, *entry.doc.splitlines()[:1]) for entry in entries]
    return ["  ".join([first[0].ljust(width), *first[1:]]).rstrip() for first in firsts]


def quit_() -> Reply:
    """Close the connection."""
    return Reply(close=True)


def _aliases(entry: Command) -> list[str]:
    return [f"Also: {' '.join(entry.names[1:])}"] if entry.names[1:] else []


HELP: Builtin = (("HELP",), help_)
QUIT: Builtin = (("QUIT",), quit_)
