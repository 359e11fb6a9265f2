"""Hooks: what an app has called when its server, its workers and its connections begin and end."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from linepool.errors import SetupError
from linepool.forked import contained
from linepool.handlers.checks import check_plain_function
from linepool.handlers.inject import Injector, hints, place_of
from linepool.handlers.signature import Signature, compile_signature
from linepool.resources import Resources
from linepool.resources.graph import BATCH, CONNECTION, REQUEST
from linepool.service import Hook
from linepool.session import Connection, Session, Verb

F = TypeVar("F", bound=Callable[..., Any])


class HookFunctions:
    """The functions that an app has registered for its hooks."""

    def __init__(self) -> None:
        self._functions: dict[str, list[Callable[..., Any]]] = {}

    def add(self, name: str, function: F) -> F:
        """Register a function for a hook, and return it."""
        check_plain_function(function)
        self._functions.setdefault(name, []).append(function)
        return function

    def of(self, name: str) -> list[Callable[..., Any]]:
        """Return those of one hook, in the order of registration."""
        return self._functions.get(name, [])

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """All of them."""
        return [function for hook in self._functions.values() for function in hook]

    def compiled(self, name: str, injector: Injector) -> list[Hook]:
        """Return the functions of one hook, ready to be called.

        Raises:
            SetupError: One cannot be called with what there is.
        """
        return [Hook(function, _signature(name, function, injector)) for function in self.of(name)]


FOR_REQUESTS = "is made for requests only"
OF_WORKERS_ONLY = {
    CONNECTION: "is opened for connections only",
    BATCH: FOR_REQUESTS,
    REQUEST: FOR_REQUESTS,
}
"""What is said of resources that functions which serve no connection cannot take, by scope."""


def _signature(name: str, function: Callable[..., Any], injector: Injector) -> Signature:
    place = f"{name} {function.__name__} at {place_of(function)}"
    per_worker = name.startswith("on_worker")
    try:
        signature = compile_signature(function, injector, injector.convert_for)
        injector.refuse(function, OF_WORKERS_ONLY if per_worker else {REQUEST: FOR_REQUESTS})
    except SetupError as error:
        raise SetupError(f"{place}: {error}") from None
    from_line = signature.parameters
    if from_line or (per_worker and {Session, Connection, Verb} & set(hints(function).values())):
        what = (
            "the app's resources" if per_worker else "Session, Connection and the app's resources"
        )
        why = "it gets nothing from a request"
        if from_line:
            one = from_line[0]
            hint = hints(function).get(one.name, inspect.Parameter.empty)
            why = f"parameter {one.name}: {injector.unprovided(hint, one.name)}"
        raise SetupError(f"{place}: a hook may only annotate {what}; {why}")
    return signature


class _Holder:
    """Stands in for a conversation where a hook runs outside any."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources


def run_in_worker(hooks: Iterable[Hook], resources: Resources) -> None:
    """Call hooks of a worker."""
    holder = _Holder(resources)
    for hook in hooks:
        with contained():
            hook(holder)
