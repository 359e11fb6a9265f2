"""The ways to write a resource, each turned into a generator function, and the type that it provides."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, get_args, get_origin

import attrs
from attrs import frozen

from linepool.errors import SetupError
from linepool.handlers.inject import hints, place_of
from linepool.signatures import signature_of

Make = Callable[..., Generator[Any, None, None]]
"""Returns the generator of a resource: it yields the resource once, and is resumed to end it."""

_CONTEXT_MANAGER = contextlib.contextmanager(lambda: iter(())).__code__
_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)


@frozen
class Shape:
    """How the function or class of a resource is called.

    Attributes:
        make: The generator function.
        provides: The type of what it yields; None: it is not annotated.
        parameters: Its parameters.
        annotated: Their annotations, by name.
    """

    make: Make
    provides: Any
    parameters: tuple[inspect.Parameter, ...]
    annotated: dict[str, Any]


def check_shape(name: str, function: Any) -> None:
    """Raise SetupError if something cannot be a resource."""
    if not callable(function):
        raise SetupError(f"{function!r} is not a function")
    inner = _generator_function(function) or inspect.unwrap(function)
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        raise SetupError(
            f"resource {name} at {place_of(function)} is async; linepool calls plain functions"
        )


def shape_of(name: str, function: Any) -> Shape:
    """Return the shape of the function or class of a resource.

    Raises:
        SetupError: An annotation cannot be resolved, or the function returns an iterator.
    """
    try:
        parameters = tuple(signature_of(function).parameters.values())
    except ValueError as error:
        raise SetupError(f"resource {name}: {error}") from None
    try:
        if isinstance(function, type):
            return _of_class(function, parameters)
        generator_function = _generator_function(function)
        annotated = hints(generator_function or function)
    except NameError as error:
        raise SetupError(f"resource {name}: annotation: {error}") from None
    returned = annotated.get("return")
    origin, inner = get_origin(returned), (*get_args(returned), None)[0]
    if generator_function is not None:
        provided = inner if origin in _ITERATORS else None
        return Shape(generator_function, provided, parameters, annotated)
    if origin in _ITERATORS or returned in _ITERATORS:
        raise SetupError(
            f"resource {name} at {place_of(function)} must be a generator function (yield it)"
        )
    if origin is contextlib.AbstractContextManager:
        return Shape(partial(_entered, function), inner, parameters, annotated)
    return Shape(partial(_returned, function), returned, parameters, annotated)


def given_shape(value: object) -> Shape:
    """Return the shape of a resource that is a value."""
    return Shape(partial(_returned, lambda: value), None, (), {})


def is_maker(fake: object) -> bool:
    """Whether what replaces a resource is a function that makes it; otherwise it is the resource."""
    return _generator_function(fake) is not None


def _of_class(kind: type, parameters: tuple[inspect.Parameter, ...]) -> Shape:
    if attrs.has(kind) or dataclasses.is_dataclass(kind):
        annotated = {name.lstrip("_"): hint for name, hint in hints(kind).items()}
    else:
        annotated = {} if kind.__init__ is object.__init__ else hints(kind.__init__)  # type: ignore[misc]
    enter = getattr(kind, "__enter__", None)
    if enter is None:
        return Shape(partial(_returned, kind), kind, parameters, annotated)
    provided: Any = kind
    with contextlib.suppress(NameError):
        entered = hints(enter).get("return")
        provided = entered if isinstance(entered, type) and entered is not type(None) else kind
    return Shape(partial(_entered, kind), provided, parameters, annotated)


def _generator_function(function: Any) -> Make | None:
    """Return a generator function, also of one with ``contextlib.contextmanager``; None: it is another."""
    if getattr(function, "__code__", None) is _CONTEXT_MANAGER:
        function = function.__wrapped__
    return function if inspect.isgeneratorfunction(function) else None


def _entered(function: Any, **taken: Any) -> Generator[Any, None, None]:
    with function(**taken) as value:
        yield value


def _returned(function: Any, **taken: Any) -> Generator[Any, None, None]:
    yield function(**taken)
