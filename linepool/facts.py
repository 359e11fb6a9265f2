"""What processes that do not have the app know of it: plain data, sent by the loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen
class CommandFacts:
    """What is known of one command.

    Attributes:
        name: Its first name; ``(unknown)`` for what serves unknown commands.
        timeout: Seconds after which a request is overdue; None: the setting ``request_timeout``.
        place: ``function at file:line`` of its handler.
        is_secret: The log does not show the words of its requests.
    """

    name: str
    timeout: float | None
    place: str
    is_secret: bool


@frozen
class Answers:
    """What an app has for clients before a worker has served them.

    Attributes:
        refusals: What a client is sent that is refused, by the reason.
        greets: A new client is greeted before it has sent anything.
    """

    refusals: Mapping[str, bytes]
    greets: bool

    def as_json(self) -> dict[str, Any]:
        """Return them as a JSON object."""
        texts = {why: reply.decode("latin-1") for why, reply in self.refusals.items()}
        return {"refusals": texts, "greets": self.greets}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Answers:
        """Return those in a JSON object.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is not one of ``as_json``.
        """
        texts = facts["refusals"].items()
        return cls({str(why): text.encode("latin-1") for why, text in texts}, bool(facts["greets"]))


@frozen
class AppFacts:
    """What is known of an app, or of all apps that one server serves.

    Attributes:
        name: Its name.
        commands: By their numbers less 1, those of all apps.
        log_lines: The log shows the lines of requests, not only their commands.
        publishes: A protocol has publish/subscribe, or workers wake requests of one another.
        answers: Those of the first app.
        answers_of: Those of each app, by its name.
        has_disconnect_hook: There are hooks for the end of a connection, which a worker runs.
        files: The files of its own code, as far as they were loaded.
        opened: How many descriptors the process has that has loaded it.
        observed: The functions that the observer runs, for messages, by the name of their hook.
    """

    name: str
    commands: tuple[CommandFacts, ...]
    log_lines: bool
    publishes: bool
    answers: Answers
    has_disconnect_hook: bool
    answers_of: Mapping[str, Answers] = field(factory=dict)
    files: tuple[str, ...] = ()
    opened: int = 0
    observed: Mapping[str, tuple[str, ...]] = field(factory=dict)

    def numbered(self, number: int) -> CommandFacts | None:
        """Return the command of a number, or None: there is none."""
        return self.commands[number - 1] if 0 < number <= len(self.commands) else None

    def as_json(self) -> dict[str, Any]:
        """Return the facts as a JSON object."""
        return {
            "name": self.name,
            "commands": [
                [one.name, one.timeout, one.place, one.is_secret] for one in self.commands
            ],
            "log_lines": self.log_lines,
            "publishes": self.publishes,
            **self.answers.as_json(),
            "answers_of": {name: one.as_json() for name, one in self.answers_of.items()},
            "has_disconnect_hook": self.has_disconnect_hook,
            "files": list(self.files),
            "opened": self.opened,
            "observed": {name: list(places) for name, places in self.observed.items()},
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> AppFacts:
        """Return the facts in a JSON object.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is not one of ``as_json``.
        """
        return cls(
            name=str(facts["name"]),
            commands=tuple(
                CommandFacts(
                    str(name), None if timeout is None else float(timeout), str(place), bool(secret)
                )
                for name, timeout, place, secret in facts["commands"]
            ),
            log_lines=bool(facts["log_lines"]),
            publishes=bool(facts["publishes"]),
            answers=Answers.from_json(facts),
            answers_of={
                str(name): Answers.from_json(one)
                for name, one in facts.get("answers_of", {}).items()  # older loaders have none
            },
            has_disconnect_hook=bool(facts["has_disconnect_hook"]),
            files=tuple(map(str, facts["files"])),
            opened=int(facts["opened"]),
            observed={
                str(name): tuple(map(str, places))
                for name, places in facts.get("observed", {}).items()  # older loaders have none
            },
        )
