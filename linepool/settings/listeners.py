"""The tables ``[[listener]]`` of the file: an address, its app, and the settings that hold there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from linepool.address import parse_address
from linepool.errors import SetupError
from linepool.near import nearest

_OWN = ("bind", "app", "name")
_ALIAS = {"address": "bind"}


@frozen
class ListenerTable:
    """What holds for the connections of one listener, or of several alike.

    Attributes:
        bind: Its addresses, as in the setting ``bind``.
        app: The name of the app that it serves, or, in the file, its TARGET; "": the only one.
        name: Shown in status; "": that of the app.
        options: Settings with their values, in place of those of the server.
    """

    bind: tuple[str, ...]
    app: str = ""
    name: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    def with_defaults(self, options: Mapping[str, Any]) -> ListenerTable:
        """Return it with further options, as far as it does not have them."""
        return evolve(self, options=tuple({**options, **dict(self.options)}.items()))

    def with_options(self, options: Mapping[str, Any]) -> ListenerTable:
        """Return it with options in place of its own."""
        return evolve(self, options=tuple({**dict(self.options), **options}.items()))


def parse_tables(
    value: object, source: str, fields: Mapping[str, Any], parse: Callable[[str, object, str], Any]
) -> tuple[ListenerTable, ...]:
    """Return the tables of a file.

    Args:
        value: What the file has under the key ``listener``.
        source: The file, for messages.
        fields: All settings, by name.
        parse: Returns the value of a setting, given its name, what was written, and the source.

    Raises:
        SetupError: A key or a value is wrong; the text names the table.
    """
    if not isinstance(value, Sequence) or not all(isinstance(one, Mapping) for one in value):
        raise SetupError(
            f"{source}: listener must be tables, each headed by [[listener]], not {value!r}"
        )
    return tuple(
        _table(one, f"{source}: [[listener]] {number}", fields, parse)
        for number, one in enumerate(value, 1)
    )


def _table(
    table: Mapping[str, object],
    where: str,
    fields: Mapping[str, Any],
    parse: Callable[[str, object, str], Any],
) -> ListenerTable:
    found: dict[str, object] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        name = _ALIAS.get(name, name)
        if name not in _OWN:
            _check_key(key, name, where, fields)
        if name in found:
            raise SetupError(f"{where}: {name} is given twice")
        if name in fields and fields[name].metadata["unit"] == "octal" and isinstance(value, int):
            raise SetupError(f"{where}: {name} must be a string of octal digits, such as '660'")
        found[name] = value
    if "bind" not in found:
        raise SetupError(f"{where} has no address: write bind = 'HOST:PORT' or 'unix:/PATH'")
    for name in ("app", "name"):
        text = found.get(name, "")
        if not isinstance(text, str) or not text.isprintable():
            raise SetupError(f"{where}: {name} must be a string, not {text!r}")
    options = {name: parse(name, value, where) for name, value in found.items() if name in fields}
    bind = options.pop("bind")
    app, name = str(found.get("app", "")), str(found.get("name", ""))
    return ListenerTable(bind, app, name, tuple(options.items()))


def _check_key(key: str, name: str, where: str, fields: Mapping[str, Any]) -> None:
    """Raise SetupError for a key that a table cannot have."""
    known = [*_OWN, "address", *(one for one in fields if fields[one].metadata["per_listener"])]
    if name in fields and name not in known:
        raise SetupError(
            f"{where}: {name} holds for the whole server, so it cannot be set for one listener; write it"
            " above the tables"
        )
    if name not in known:
        near = nearest(name.lower(), known)
        hint = f"did you mean {near!r}?" if near else f"the keys are {', '.join(known)}"
        raise SetupError(f"{where}: unknown key {key!r}; {hint}")


def schema(properties: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return what the tables look like: JSON Schema, draft 7.

    Args:
        properties: The schema of each setting, by name.
        names: The settings that a table can have.
    """
    text = {"type": "string"}
    table = {
        "bind": properties["bind"],
        "address": properties["bind"],
        "app": {**text, "description": "TARGET or name of the app that is served there"},
        "name": {**text, "description": "shown in status; without it the app's"},
        **{name: properties[name] for name in names},
    }
    without_defaults = {
        name: {key: value for key, value in one.items() if key != "default"}
        for name, one in table.items()
    }
    return {
        "type": "array",
        "description": "listeners with an app or settings of their own",
        "items": {
            "type": "object",
            "properties": {
                **without_defaults,
                **{
                    name.replace("_", "-"): one
                    for name, one in without_defaults.items()
                    if "_" in name
                },
            },
            "anyOf": [{"required": ["bind"]}, {"required": ["address"]}],
            "additionalProperties": False,
        },
    }


def keys_of(bind: Sequence[str]) -> list[str]:
    """Return a key for each address: itself; ``ADDRESS#2`` for the second of the same text, as of port 0."""
    return [
        text if (count := list(bind[:number]).count(text)) == 0 else f"{text}#{count + 1}"
        for number, text in enumerate(bind)
    ]


def refuse_doubles(tables: Sequence[ListenerTable]) -> None:
    """Raise SetupError if two listeners have one address; port 0 is another port each time."""
    seen: dict[object, str] = {}
    for table in tables:
        for text in table.bind:
            address = parse_address(text)
            described = f"{text}{f' for {table.app}' if table.app else ''}"
            if address.host and not address.port:
                continue
            if address in seen:
                raise SetupError(f"two listeners have one address: {seen[address]} and {described}")
            seen[address] = described
