"""Annotations, taken apart and named. Pure: no I/O, no clock."""

from __future__ import annotations

import inspect
import types
import typing
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_WRAPPERS = {typing.Required, typing.NotRequired, typing.ClassVar, typing.Final}


def is_alias(hint: Any) -> bool:
    """Whether an annotation was named by ``type X = ...``, which may refer to itself."""
    return hasattr(hint, "__value__") and not inspect.isclass(hint)


def unnamed(hint: Any) -> Any:
    """Return the type that a NewType, or a name of a type, is for."""
    while True:
        if hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif is_alias(hint):
            hint = hint.__value__
        else:
            return hint


def unwrapped(hint: Any) -> Any:
    """Return a type without what a class says of the field that has it, such as NotRequired."""
    while get_origin(hint) in _WRAPPERS:
        hint = get_args(hint)[0]
    return hint


def bare(hint: Any) -> Any:
    """Return the type that an annotation is about, without its names and without Annotated."""
    while get_origin(hint := unnamed(unwrapped(hint))) is Annotated:
        hint = get_args(hint)[0]
    return hint


def arms(hint: Any) -> list[Any]:
    """Return the types of a union, bare; those of another type are it alone."""
    hint = bare(hint)
    if is_union(hint):
        return [one for arm in get_args(hint) for one in arms(arm)]
    return [hint]


def is_union(hint: Any) -> bool:
    """Whether a type is a union."""
    return get_origin(hint) in (Union, types.UnionType)


def is_foreign(kind: Any) -> bool:
    """Whether a class is a model of pydantic or a struct of msgspec, which are not imported for it."""
    return hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__struct_fields__")


def _argument_name(argument: Any) -> str:
    if argument is ...:
        return "..."
    if isinstance(argument, list):  # of Callable
        return f"[{', '.join(map(name_of, argument))}]"
    return name_of(argument)


def name_of(hint: Any) -> str:
    """Return how texts name a type: ``int``, ``red|green``, ``list[Receipt]``."""
    if is_alias(hint):
        return str(hint.__name__)
    hint = bare(hint)
    if hint in (Any, object):
        return "any"
    if hint is type(None):
        return "None"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(str(getattr(one, "value", one)) for one in arguments)
    if is_union(hint):
        return "|".join(map(name_of, arms(hint)))
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return "|".join(str(member.value) for member in hint) or hint.__name__
    if arguments:
        inner = ", ".join(map(_argument_name, arguments))
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return str(getattr(hint, "__name__", hint))
