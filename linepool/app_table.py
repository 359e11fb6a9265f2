"""The app's own settings: the table ``[app]`` of the file, as an object of a class of the app's."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from linepool.errors import SetupError
from linepool.handlers.converters import Converter
from linepool.handlers.from_json import json_converter
from linepool.handlers.inject import hints
from linepool.near import nearest
from linepool.settings import FIELDS
from linepool.signatures import signature_of


class AppTableError(SetupError):
    """The table is wrong; the text names the key."""

    is_usage = True


@frozen
class _Key:
    """A key of the table.

    Attributes:
        argument: The parameter of the class that it gives.
        is_required: The class has no default for it.
    """

    argument: str
    converter: Converter
    is_required: bool
    hint: Any


class AppTable:
    """What fills the class of an app's own settings.

    Args:
        kind: A class of attrs, or a dataclass.

    Raises:
        SetupError: The class is made with neither, or a field has a type that a file cannot give.
    """

    def __init__(self, kind: type) -> None:
        if not (inspect.isclass(kind) and (attrs.has(kind) or dataclasses.is_dataclass(kind))):
            raise SetupError(
                f"config takes a class made with attrs or dataclasses, not {kind!r}; for example"
                " @linepool.config above @attrs.frozen"
            )
        self._kind = kind
        self._value: object = None
        self._keys: dict[str, _Key] | None = None

    @property
    def name(self) -> str:
        """The name of the class."""
        return self._kind.__name__

    def fill(self, table: Mapping[str, Any], source: str = "[app]") -> None:
        """Make the object; keys may use dashes.

        Args:
            table: From the file.
            source: Where it is from, for messages.

        Raises:
            AppTableError: A key is unknown or missing, or a value is wrong.
        """
        keys = self._known()
        values: dict[str, Any] = {}
        for written, value in table.items():
            name = written if written in keys else written.replace("-", "_")
            if name not in keys:
                raise AppTableError(f"{source}: unknown key {written!r}; {_hint(name, keys)}")
            values[keys[name].argument] = _converted(keys[name], value, f"{source} {name}")
        for name, key in keys.items():
            if key.is_required and key.argument not in values:
                raise AppTableError(f"{source}: {name} is missing; it must be {key.converter[1]}")
        try:
            self._value = self._kind(**values)
        except Exception as error:  # noqa: BLE001 - the class's own checks
            text = " ".join(str(error.args[0] if error.args else error).split())
            raise AppTableError(f"{source}: {text or type(error).__name__}") from None

    @property
    def is_filled(self) -> bool:
        """Whether there is an object."""
        return self._value is not None

    @property
    def value(self) -> object:
        """The object; one without a table, if there was none so far."""
        if self._value is None:
            self.fill({})
        return self._value

    def resource(self) -> Any:
        """Return the function of the resource that gives handlers, hooks and resources the object."""

        def config() -> Iterator[Any]:
            yield self.value

        config.__annotations__["return"] = Iterator[self._kind]  # type: ignore[name-defined]
        config.__name__ = config.__qualname__ = self._kind.__name__
        return config

    def _known(self) -> dict[str, _Key]:
        if self._keys is None:
            annotated = hints(self._kind)
            kind: Any = self._kind
            fields = (
                [(f.name, f.alias, f.init) for f in attrs.fields(kind)]
                if attrs.has(kind)
                else [(f.name, f.name, f.init) for f in dataclasses.fields(kind)]
            )
            parameters = signature_of(self._kind).parameters
            self._keys = {
                argument: _Key(
                    argument,
                    self._converter(name, annotated.get(name, Any)),
                    parameters[argument].default is inspect.Parameter.empty,
                    annotated.get(name, Any),
                )
                for name, argument, is_given in fields
                if is_given
            }
        return self._keys

    def _converter(self, name: str, hint: Any) -> Converter:
        try:
            return json_converter(hint)
        except TypeError as error:
            raise SetupError(f"config {self._kind.__name__}: {name}: {error}") from None


def _hint(name: str, keys: Mapping[str, object]) -> str:
    if near := nearest(name.lower(), keys):
        return f"did you mean {near!r}?"
    if name in FIELDS:
        return "it is a setting of the server: write it above the table"
    return f"the keys are {', '.join(keys) or '(none)'}"


def _converted(key: _Key, value: object, what: str) -> object:
    convert, _ = key.converter
    if isinstance(key.hint, type) and type(value) is key.hint:  # such as a date, which TOML has
        return value
    try:
        return convert(value)
    except ValueError as error:
        raise AppTableError(f"{what} must be {error}, not {value!r}") from None
