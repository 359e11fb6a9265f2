"""What is checked of a function when it is registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from linepool.errors import SetupError
from linepool.handlers.inject import place_of
from linepool.protocols.base import Protocol
from linepool.signatures import signature_of
from linepool.values.sendable import problem_of


def check_plain_function(function: Any) -> None:
    """Raise SetupError if something is not a function that returns its result."""
    if not callable(function) or isinstance(function, type) or not hasattr(function, "__name__"):
        instead = ": define one that calls it" if callable(function) else ""
        raise SetupError(f"{function!r} is not a function{instead}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise SetupError(
            f"{function.__name__} at {place_of(function)} is async; linepool calls plain functions"
            " (each worker serves one request at a time)"
        )


def refuse_second_load(before: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Raise SetupError if two functions are one and the same of a file that was loaded twice."""
    if (
        place_of(before) == place_of(function)
        and before.__qualname__ == function.__qualname__
        and before.__module__ != function.__module__
    ):
        raise SetupError(
            f"{place_of(function)}: the file is loaded twice, as {before.__module__} and as"
            f" {function.__module__}: start the server from a file that no other module imports, and"
            " import this one there"
        )


def checked_protocol(protocol: Any) -> Protocol:
    """Return an app's protocol; raises SetupError if it is not one."""
    if isinstance(protocol, Protocol):
        return protocol
    if isinstance(protocol, type) and issubclass(protocol, Protocol):
        name = protocol.__name__
        raise SetupError(f"protocol must be an object, {name}(), not the class {name}")
    raise SetupError(f"protocol must be an object such as linepool.Resp(), not {protocol!r}")


def check_returns(returns: Any, protocol: Protocol) -> None:
    """Raise SetupError if a protocol cannot send what a handler's return annotation says.

    Args:
        returns: The annotation; None: there is none.
        protocol: One with an encoding of its own may send anything.
    """
    encodes = type(protocol).encode.__module__
    if returns is not None and encodes.startswith("linepool.") and (why := problem_of(returns)):
        raise SetupError(f"return annotation: {why}")


def check_call(function: Callable[..., Any], role: str, *arguments: str, instead: str = "") -> None:
    """Raise SetupError if a function cannot be called with these arguments, by position.

    Args:
        function: The function.
        role: Of the function, for the message.
        arguments: Their names.
        instead: What it might take instead, for the message.
    """
    try:
        signature = signature_of(function)
    except ValueError:  # of a builtin function, it may not be known
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise SetupError(
            f"{role} {function.__name__} at {place_of(function)} must take"
            f" {f'{instead} or ' * bool(instead)}({', '.join(arguments)}): {error}"
        ) from None
