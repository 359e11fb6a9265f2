"""A generation: all that a worker is forked from. Used by the master; a reload makes a new one."""

from __future__ import annotations

from attrs import evolve, frozen

from linepool.facts import AppFacts, CommandFacts
from linepool.master.loader_handle import LoaderHandle
from linepool.protocols.base import printable
from linepool.protocols.framing import given_id
from linepool.settings import Settings, Workers


@frozen
class Logged:
    """What the log says of a request.

    Attributes:
        name: The command's name; ``(unknown)`` if the app has no such command.
        words: The same, or the request's line, if that is to be logged.
        command: What is known of the command, or None.
        id: As the client has given it; "-": it has given none.
    """

    name: str
    words: str
    command: CommandFacts | None
    id: str

    @property
    def given_id(self) -> str:
        """The id, if the client has given it."""
        return "" if self.id == "-" else self.id


@frozen
class Generation:
    """One load of the app, and the settings in force.

    Attributes:
        number: Counts the loads; the first is 1.
        facts: What the master knows of the app.
        loader: Forks its workers.
    """

    number: int
    facts: AppFacts
    settings: Settings
    loader: LoaderHandle

    def with_workers(self, workers: Workers) -> Generation:
        """Return it with other bounds of the pool."""
        return evolve(self, settings=evolve(self.settings, workers=workers))

    def logged(self, number: int, line: bytes) -> Logged:
        """Return what the log says of a request, given its command's number and its line."""
        command = self.facts.numbered(number)
        name = command.name if command else "(unknown)"
        shows_line = self.facts.log_lines and not (command and command.is_secret)
        words = printable(line) if shows_line else name
        return Logged(name, words, command, given_id(line) or "-")
