"""RESP, the protocol of Redis: from a call to its words, and from the reply to what the function returns."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from linepool.client.command import Command
from linepool.client.core import shown
from linepool.client.errors import UnexpectedReply
from linepool.client.request import (
    UNCHANGED,
    Prepared,
    Result,
    checked_name,
    result_of,
    without_unset,
)
from linepool.signatures import signature_of

_ANY = (Any, object)


class _Words(NamedTuple):
    """How a function's arguments become words.

    Attributes:
        name: Of its command.
        positional: The parameters that take words by position, with their defaults, if they have any.
        options: Those that take an option word, with True: the word alone is the value True.
        takes_more: Any number of further words.
        result: What becomes of its replies.
    """

    name: bytes
    positional: Mapping[str, Any]
    options: Mapping[str, bool]
    takes_more: bool
    result: Result


def prepare(
    command: str | Command[Any] | Callable[..., Any],
    arguments: Sequence[Any],
    named: Mapping[str, Any],
) -> tuple[Prepared, Result]:
    """Return the request of a call, and what becomes of its reply.

    Arguments by name are option words, but for those that a function takes by position.

    Raises:
        TypeError: The arguments do not fit the function, or a word has no form for one.
        ValueError: The name cannot be one of a command, or JSON has no form for a value.
    """
    if isinstance(command, str | Command):
        name, result = (
            (checked_name(command), UNCHANGED) if isinstance(command, str) else _known(command)
        )
        words = [name, *map(_word, arguments)]
        for option, value in without_unset(named).items():
            _add_option(words, option, value, is_flag=type(value) is bool)
        return _prepared(words), result
    about = _words_of(command)
    words = [about.name, *map(_word, _by_position(command, about, arguments, named))]
    for option, is_flag in about.options.items():
        if option in named:
            _add_option(words, option, named[option], is_flag=is_flag)
    return _prepared(words), about.result


def _prepared(words: Sequence[bytes]) -> Prepared:
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return Prepared(b"".join(parts), as_json=False)


def _by_position(
    function: Callable[..., Any],
    about: _Words,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
) -> list[Any]:
    """Return the arguments that are words by their position; the defaults of those left out between."""
    title = f"{function.__name__}()"
    if len(arguments) > len(about.positional) and not about.takes_more:
        raise TypeError(f"{title} takes {len(about.positional)} arguments, not {len(arguments)}")
    for name in named:
        if name not in about.positional and name not in about.options:
            raise TypeError(f"{title} has no parameter {name!r}")
    found = list(arguments)
    skipped: list[str] = []
    for number, (name, default) in enumerate(about.positional.items()):
        if number < len(arguments):
            if name in named:
                raise TypeError(f"{title} is given {name!r} twice")
        elif name not in named:
            skipped.append(name)
            found.append(default)
        else:
            for gap in skipped:
                if about.positional[gap] in (_NO_DEFAULT, None):
                    raise TypeError(f"{title} needs {gap!r} too, as {name!r} is the word after it")
            skipped.clear()
            found.append(named[name])
    return found[: len(found) - len(skipped)]


def _add_option(words: list[bytes], name: str, value: Any, *, is_flag: bool) -> None:
    if value is None or (is_flag and not value):
        return
    words.append(name.upper().encode())
    if not is_flag:
        words.append(_word(value))


def _word(value: Any) -> bytes:
    """Return an argument as a word; a value that is made of others is JSON."""
    kind = type(value)
    if kind is bytes:
        return value  # type: ignore[no-any-return]
    if kind is str:
        return value.encode()  # type: ignore[no-any-return]
    if kind is bool:
        return b"true" if value else b"false"
    if kind is int:
        return b"%d" % value
    if kind is float:
        return float.__repr__(value).encode()
    if value is None:
        raise TypeError("RESP has no word for None: leave the argument out")
    from linepool.values.json_text import dumps  # noqa: PLC0415 - takes long to import
    from linepool.values.plain import plain  # noqa: PLC0415

    made = plain(value)
    return dumps(made) if isinstance(made, (list, dict)) else _word(made)


@functools.lru_cache(maxsize=1024)
def _words_of(function: Callable[..., Any]) -> _Words:
    import inspect  # noqa: PLC0415 - takes long to import

    parameters = signature_of(function).parameters.values()
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # a name that is there for type checkers only
        hints = {}
    fixed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = {
        one.name: _NO_DEFAULT if one.default is one.empty else one.default
        for one in parameters
        if one.kind in fixed
    }
    options = {
        one.name: hints.get(one.name) is bool and one.default is False
        for one in parameters
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    takes_more = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    name = function.__name__.removesuffix("_").encode()
    return _Words(name, positional, options, takes_more, _typed(hints.get("return", Any)))


@functools.lru_cache(maxsize=1024)
def _known(command: Command[Any]) -> tuple[bytes, Result]:
    return checked_name(command.name), _typed(command.returns)


class _NoDefault:
    pass


_NO_DEFAULT = _NoDefault()


def _typed(hint: Any) -> Result:
    """Return what becomes of the replies of a function: its annotation says which bytes are text."""
    if hint in _ANY:
        return UNCHANGED
    result = result_of(hint)
    inner = _inner(hint)
    return Result(
        lambda value: result.value(_top(value, hint)),
        lambda values: result.several([_top(one, inner(at)) for at, one in enumerate(values)]),
        lambda value: result.item(_top(value, inner(0))),
    )


def _top(value: Any, hint: Any) -> Any:
    """Return a value as it would come in the line protocol: bytes as they are, or as text."""
    if type(value) is bytes:
        return value if hint in _ANY or _may_be_bytes(hint) else _text(value)
    return _within(value, hint)


def _within(value: Any, hint: Any) -> Any:
    """Return a value as it would be in JSON."""
    if type(value) is bytes:
        if hint in _ANY:
            return value
        if _may_be_bytes(hint):
            import base64  # noqa: PLC0415 - few need it

            return base64.b64encode(value).decode()
        return _text(value)
    if type(value) is list:
        inner = _inner(hint)
        return [_within(one, inner(at)) for at, one in enumerate(value)]
    if type(value) is dict:
        fields = _fields(hint)
        return {
            name: _within(one, fields(name))
            for name, one in ((_within(key, str), one) for key, one in value.items())
        }
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UnexpectedReply(f"the reply must be UTF-8, not {shown(value)}") from None


def _bare(hint: Any, kinds: tuple[type, ...]) -> Any:
    """Return a hint without its notes; of a union, the first member of some kinds, if there is one."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0], kinds)
    if get_origin(hint) in (Union, types.UnionType):
        arms = [_bare(arm, kinds) for arm in get_args(hint) if arm is not type(None)]
        return next((arm for arm in arms if (get_origin(arm) or arm) in kinds), arms[0])
    return hint


def _may_be_bytes(hint: Any) -> bool:
    return _bare(hint, (bytes,)) is bytes


def _inner(hint: Any) -> Callable[[int], Any]:
    """Return from a position in a list to the annotation of the value there."""
    hint = _bare(hint, (list, tuple, set, frozenset))
    inner = get_args(hint)
    if (get_origin(hint) or hint) is tuple and inner and inner[-1] is not ...:
        return lambda at: inner[at] if at < len(inner) else Any
    return lambda _: inner[0] if inner else Any


def _fields(hint: Any) -> Callable[[str], Any]:
    """Return from a key to the annotation of its value."""
    hint = _bare(hint, (dict,))
    if get_origin(hint) is not None:
        value_hint = get_args(hint)[-1]
        return lambda _: value_hint
    try:
        hints = typing.get_type_hints(hint, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    return lambda name: hints.get(name, Any)
