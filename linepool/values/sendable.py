"""Whether a value of an annotated type can be a reply, known before any is made. Pure: no I/O, no clock."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

from linepool.values.annotations import is_foreign, is_union, name_of, unnamed
from linepool.values.records import fields_of, has_fields
from linepool.values.scalars import scalar

_NUMBERS_AND_TEXT = (numbers.Real, str, bytes, bytearray, memoryview)


def problem_of(returns: Any) -> str:
    """Return why values of a return annotation cannot be sent, with the path to the type; "": they can.

    A type that says too little, such as ``Any`` or an abstract class, is taken to be one that can.
    """
    try:
        return _known_problem_of(returns)
    except TypeError:  # not hashable
        return _problem_of(returns)


def _problem_of(returns: Any) -> str:
    path = _path_to_problem(returns, ())
    if path is None:
        return ""
    *outer, kind = path
    where = "".join(f"{one}: " for one in dict.fromkeys(outer))
    return (
        f"{where}no converter for {kind}; return text, numbers, lists and dicts of these, or a class made"
        " with attrs or dataclasses"
    )


_known_problem_of = functools.lru_cache(1024)(_problem_of)  # an app is made ready for each ask()


def _path_to_problem(hint: Any, seen: tuple[Any, ...]) -> list[str] | None:
    """Return the names of the types and fields that lead to one that cannot be sent; None: there is none."""
    hint = unnamed(hint)
    kind = get_origin(hint) or hint
    if _is_never_sent(kind):
        return [name_of(hint)]
    if any(hint is one for one in seen) or _is_vague(hint) or _row(hint):
        return None
    seen += (hint,)
    if kind is Annotated and hint is not Annotated:
        return _path_to_problem(get_args(hint)[0], seen)
    if is_union(hint):
        return _first(((name_of(hint), arm) for arm in get_args(hint)), seen)
    if has_fields(kind):
        return _path_in_fields(hint, kind, seen)
    if not _can_be_sent(kind):
        return [name_of(kind)]
    return _first(((name_of(hint), one) for one in get_args(hint)), seen)


def _path_in_fields(hint: Any, kind: Any, seen: tuple[Any, ...]) -> list[str] | None:
    try:
        fields = fields_of(hint)
    except TypeError:  # seen when the first reply is made
        return None
    return _first(((f"{kind.__name__}.{one.name}", one.hint) for one in fields), seen)


def _first(inner: Iterable[tuple[str, Any]], seen: tuple[Any, ...]) -> list[str] | None:
    for name, hint in inner:
        if (path := _path_to_problem(hint, seen)) is not None:
            return [name, *path]
    return None


def _row(hint: Any) -> bool:
    try:
        return scalar(hint) is not None
    except TypeError:  # an Enum without members
        return False


def _is_never_sent(kind: Any) -> bool:
    """Whether there is no reply for any value of a type, or this is not a type at all."""
    if inspect.isclass(kind):
        return kind in (Callable, type) or issubclass(kind, Awaitable | AsyncIterable)
    # None and ... are in list[None] and tuple[int, ...]; a text is the name of a type.
    is_of_python = type(kind).__module__ in ("typing", "typing_extensions")
    return not (is_of_python or kind is None or kind is ... or isinstance(kind, str))


def _is_vague(hint: Any) -> bool:
    """Whether nothing is known of the values of a type."""
    kind = get_origin(hint) or hint
    if kind is Annotated or is_union(hint):
        return False
    if kind in (Literal, Any, object) or not inspect.isclass(kind):
        return True
    is_abstract = inspect.isabstract(kind) or getattr(kind, "_is_protocol", False)
    return is_abstract and not issubclass(kind, Iterable)


def _can_be_sent(kind: type) -> bool:
    """Whether values of a class can be sent, or those of a class that derives from it."""
    return (
        kind.__module__.startswith("linepool.")  # such as Reply, and the values of protocols
        or issubclass(kind, _NUMBERS_AND_TEXT)
        or issubclass(kind, Iterable)
        or is_foreign(kind)
        or (
            hasattr(kind, "shape") and not issubclass(kind, numbers.Complex)
        )  # such as NumPy's arrays
        or any(_path_to_problem(one, ()) is None for one in type.__subclasses__(kind))
    )
