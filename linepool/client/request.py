"""From a call to its request, and from the reply to the value that the called function is said to return."""

from __future__ import annotations

import collections.abc
import functools
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

from linepool.client.command import Command
from linepool.client.core import arguments_text
from linepool.client.errors import UnexpectedReply
from linepool.client.identity import id_of_call
from linepool.signatures import signature_of
from linepool.values.unset import UNSET

_Convert = Callable[[Any], Any]
_BARE = re.compile(r"[\w.:/+-]+", re.ASCII)
_WITHOUT_TYPE = (Any, object)
_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)
_COLLECTIONS: Mapping[Any, Callable[[Iterable[Any]], Any]] = {
    **dict.fromkeys(_ITERATORS, iter),
    **{kind: kind for kind in (list, tuple, set, frozenset)},
    collections.abc.Sequence: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
}


class Prepared(NamedTuple):
    """A request, but for its id.

    Attributes:
        line: The command, a blank, and its arguments.
        as_json: They are one JSON value.
        name: Its id in logs and errors.
        trace: The ``traceparent`` of the caller (W3C Trace Context); "": none.
    """

    line: bytes
    as_json: bool
    name: str = ""
    trace: str = ""


class Result(NamedTuple):
    """What becomes of a reply.

    Attributes:
        value: Makes the result of a reply of one value.
        several: Makes the result of the values of a reply of several.
        item: Makes one of the values of a stream.
    """

    value: _Convert
    several: Callable[[list[Any]], Any]
    item: _Convert


class Described(NamedTuple):
    """A handler's function.

    Attributes:
        name: Of its command.
        parameters: The names of those that take arguments by position.
        kinds: Their annotations.
        result: What becomes of its replies.
    """

    name: bytes
    parameters: tuple[str, ...]
    kinds: tuple[Any, ...]
    result: Result


def prepare(
    command: str | Command[Any] | Callable[..., Any],
    arguments: Sequence[Any],
    named: Mapping[str, Any],
) -> tuple[Prepared, Result]:
    """Return the request of a call, and what becomes of its reply.

    Args:
        command: The name of a command, or what has one: a Command, or the function of its handler.
        arguments: By position.
        named: By name.

    Raises:
        TypeError: The arguments do not fit the function, or JSON has no form for one.
        ValueError: The name cannot be one of a command, or JSON has no form for a value.
    """
    block = b""
    if isinstance(command, str):
        name, result = checked_name(command), UNCHANGED
    elif isinstance(command, Command):
        name, result = known(command)
        named = without_unset(named)
        if command.block:
            block = b"\n" + named.pop(command.block)
    else:
        name, parameters, kinds, result = described(command)
        if not named:
            line = _in_words(name, kinds, arguments)
            if line is not None:
                return Prepared(line, False, id_of_call()), result
        elif arguments:
            arguments, named = (), by_name(command, parameters, arguments, named)
    text = arguments_text(arguments, named)
    line = b"%b %b%b" % (name, text, block)
    return Prepared(line, True, id_of_call()), result


def without_unset(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a Command but for those that are left out."""
    return {key: value for key, value in named.items() if value is not UNSET}


def by_name(
    function: Callable[..., Any],
    parameters: Sequence[str],
    arguments: Sequence[Any],
    named: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Return all arguments by name; raises TypeError if those by position have no names."""
    if len(arguments) > len(parameters):
        raise TypeError(
            f"{function.__name__}() cannot take these arguments by position and by name"
        )
    return {**dict(zip(parameters, arguments, strict=False)), **named}


def _in_words(name: bytes, kinds: Sequence[Any], arguments: Sequence[Any]) -> bytes | None:
    """Return a request in words, which a server reads in a fraction of the time of JSON.

    None: JSON is needed to say of what types the arguments are.
    """
    if len(arguments) > len(kinds):
        return None
    words = [name]
    for kind, value in zip(kinds, arguments, strict=False):
        if type(value) is not kind:
            return None
        if kind is int:
            words.append(b"%d" % value)
        elif kind is str and _BARE.fullmatch(value):
            words.append(value.encode())
        else:
            return None
    return b" ".join(words)


def checked_name(command: str) -> bytes:
    """Return the name of a command as it is sent.

    Raises:
        ValueError: It cannot be one.
    """
    if not command.isalnum() and (
        not command
        or command.startswith("@")
        or len(command.split()) != 1
        or not command.isprintable()
    ):
        raise ValueError(f"{command!r} cannot be the name of a command: it must be one word")
    return command.encode()


@functools.lru_cache(maxsize=1024)
def known(command: Command[Any]) -> tuple[bytes, Result]:
    """Return the name of a command as it is sent, and what becomes of its replies."""
    return checked_name(command.name), result_of(command.returns)


@functools.lru_cache(maxsize=1024)
def described(function: Callable[..., Any]) -> Described:
    """Return what a request of a handler, and its reply, depend on."""
    import inspect  # noqa: PLC0415 - takes long to import

    name = function.__name__.removesuffix("_")
    fixed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature_of(function).parameters.values()
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # a name that is there for type checkers only
        hints = {}
    named = tuple(one.name for one in parameters if one.kind in fixed)
    kinds = tuple(hints.get(one) for one in named)
    return Described(name.encode(), named, kinds, result_of(hints.get("return", Any)))


def result_of(hint: Any) -> Result:
    """Return what becomes of the replies of a function with a return annotation."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    kind, inner = get_origin(hint) or hint, get_args(hint)
    value = _converter(hint)
    if kind is tuple and inner and inner[-1] is not ...:
        return Result(value, _tuple([_converter(one) for one in inner]), unchanged)
    if kind not in _COLLECTIONS:
        return Result(value, value, value)
    make = _COLLECTIONS[kind]
    item = _converter(inner[0]) if inner else unchanged
    return Result(value, lambda values: make(map(item, values)), item)


def _tuple(items: Sequence[_Convert]) -> Callable[[list[Any]], Any]:
    def make(values: list[Any]) -> Any:
        if len(values) != len(items):
            raise UnexpectedReply(f"the reply has {len(values)} values, not {len(items)}")
        return tuple(convert(value) for convert, value in zip(items, values, strict=True))

    return make


def unchanged(value: Any) -> Any:
    """Return a value as it is."""
    return value


def _converter(hint: Any) -> _Convert:
    """Return what makes a value of a type from one of a reply, where bytes are bytes already."""
    if hint in _WITHOUT_TYPE or isinstance(hint, TypeVar):
        return unchanged
    from linepool.handlers.from_json import json_converter  # noqa: PLC0415 - takes long to import
    from linepool.handlers.mistakes import Mistakes, found_in  # noqa: PLC0415

    try:
        convert, _ = json_converter(hint)
    except TypeError:  # not a type of values, such as Reply: what comes stays as it is
        return unchanged

    def checked(value: Any) -> Any:
        if type(value) is bytes:
            return value
        try:
            return convert(value)
        except ValueError as error:
            wrong = Mistakes(found_in(error, value))
            raise UnexpectedReply(wrong.described("reply")) from None

    return checked


UNCHANGED = Result(unchanged, unchanged, unchanged)
"""Of a call by name."""
