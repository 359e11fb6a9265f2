"""What can be typed in ``linepool shell``, and help, from the description of the app. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from linepool.near import nearest
from linepool.stubs.said import said_of

_NAMED = ("option", "flag")
_IN_TYPE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")  # which usage texts show


class Candidate(NamedTuple):
    """A word that may come next.

    Attributes:
        word: The word.
        about: What it is, in a few words.
    """

    word: str
    about: str


class Commands:
    """The commands of an app.

    Args:
        document: The description of the app; empty: it is not known.
        own: The shell's own words, with what they do.
    """

    def __init__(self, document: Mapping[str, Any], own: Mapping[str, str]) -> None:
        self._commands: dict[str, Mapping[str, Any]] = {}
        for command in document.get("commands", ()):
            for name in (command["name"], *command["aliases"]):
                self._commands[name.upper()] = command
        self._own = {word: about for word, about in own.items() if not self.has(word)}
        self.is_known = bool(document)

    def has(self, name: str) -> bool:
        """Whether the app has a command of this name."""
        return name.upper() in self._commands

    def is_secret(self, line: str) -> bool:
        """Whether a line may hold what nobody else should read."""
        is_login = line.upper().split(None, 1)[:1] == ["AUTH"]  # it is built in, so not described
        return is_login or any(param["secret"] for param in self._params(line))

    def block_of(self, line: str) -> str:
        """Return the data block that the command of a line takes; "": none."""
        return next((one["name"] for one in self._params(line) if one["kind"] == "body"), "")

    def about(self, line: str) -> str:
        """Return how the command of a line is used; "": it is not known."""
        command = self._command(line)
        return str(command["usage"]) if command else ""

    def candidates(self, line: str) -> list[Candidate]:
        """Return the words that may stand where a line ends, in place of its last word."""
        words, typed = line.split(), last_word(line)
        if typed:
            words.pop()
        found = self._first() if not words else self._next(words)
        return [one for one in found if one.word.upper().startswith(typed.upper())]

    def _first(self) -> Iterator[Candidate]:
        for name, command in self._commands.items():
            yield Candidate(name.lower(), first_line(command))
        yield from (Candidate(word, about) for word, about in self._own.items())

    def _next(self, words: Sequence[str]) -> Iterator[Candidate]:
        if words[0].lower() in self._own:
            if words[0].lower() == "help" and len(words) == 1:
                yield from self._first()
            return
        params = self._params(words[0])
        given = words[1:]
        named = {one["name"].upper(): one for one in params if one["kind"] in _NAMED}
        last = named.get(given[-1].upper()) if given else None
        if last is not None and last["kind"] == "option":
            yield from values_of(last)
            return
        places = [one for one in params if one["kind"] == "word"]
        if len(given) < len(places):
            yield from values_of(places[len(given)])
        elif many := [one for one in params if one["kind"] == "many"]:
            yield from values_of(many[0])
        used = {word.upper() for word in given}
        if len(given) >= sum(one["required"] for one in places):
            for name, param in named.items():
                if name not in used:
                    yield Candidate(name, _described(param))

    def help(self, name: str = "") -> list[str]:
        """Return what there is to know of a command, or of all: lines."""
        if not name:
            usages = {id(one): one for one in self._commands.values()}.values()
            lines = [(str(one["usage"]), first_line(one)) for one in usages]
            return _in_columns([*lines, *self._own.items()])
        command = self._commands.get(name.upper())
        if command is None:
            near = nearest(name.upper(), self._commands)
            return [f"unknown command {name!r}" + (f"; did you mean {near}?" if near else "")]
        also = [f"Also: {' '.join(command['aliases'])}"] if command["aliases"] else []
        params = [(f"  {one['name']}", _described(one)) for one in command["params"]]
        returns = command["reply"]["text"]
        return [
            command["usage"],
            *also,
            *command["description"].splitlines(),
            *_in_columns(params),
            *([f"Returns: {returns}"] if returns else []),
        ]

    def _command(self, line: str) -> Mapping[str, Any] | None:
        words = line.split(None, 1)
        return self._commands.get(words[0].upper()) if words else None

    def _params(self, line: str) -> Sequence[Mapping[str, Any]]:
        command = self._command(line)
        return command["params"] if command else ()


def last_line(text: str) -> str:
    """Return the last line of a text."""
    return text.rpartition("\n")[2]


def last_word(line: str) -> str:
    """Return the word at the end of a line; "": a blank is there."""
    words = line.split()
    return words[-1] if words and not line[-1].isspace() else ""


def common(candidates: Sequence[Candidate]) -> str:
    """Return what candidates begin with, all of them; of a single one, the word and a blank."""
    words = [one.word for one in candidates]
    if len(words) < 2:
        return "".join(f"{word} " for word in words)
    at = next(
        (at for at, letters in enumerate(zip(*words, strict=False)) if len({*letters}) > 1), None
    )
    return words[0][:at] if at is not None else min(words, key=len)


def first_line(command: Mapping[str, Any]) -> str:
    """Return the first line of a command's description."""
    return str(command["description"]).partition("\n")[0]


def values_of(param: Mapping[str, Any]) -> Iterator[Candidate]:
    """Yield the words that a parameter takes, if they are few."""
    schema = param["schema"]
    arms = schema.get("anyOf", [schema])
    about = f"{param['name']}: {param['type']}"
    for arm in arms:
        if arm.get("type") == "boolean":
            yield from (Candidate(word, about) for word in ("true", "false"))
        for one in arm.get("enum", ()):
            if isinstance(one, str | int) and not isinstance(one, bool) and " " not in str(one):
                yield Candidate(str(one), about)


def _described(param: Mapping[str, Any]) -> str:
    """Return what a parameter is: its type, its default, what is said of it."""
    parts = [param["type"] or param["kind"]]
    if param["kind"] == "many":
        parts.append("any number")
    elif not param["required"]:
        known = param.get("default")
        parts.append("optional" if known is None else f"default {known}")
    schema = {key: one for key, one in param["schema"].items() if key not in _IN_TYPE}
    if said := said_of(schema):
        parts.append(said.rstrip("."))
    return "; ".join(parts)


def _in_columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(40, max((len(left) for left, _ in rows), default=0))
    return [f"{left.ljust(width)}  {right}".rstrip() for left, right in rows]
