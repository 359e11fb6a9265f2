"""Hooks: what an app has called when its server, its workers and its connections begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from linepool.errors import SetupError
from linepool.forked import contained
from linepool.handlers.checks import check_plain_function
from linepool.handlers.inject import Injector, hints, place_of
from linepool.handlers.signature import Signature, compile_signature
from linepool.resources import ResourceFunctions, Resources
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

    def compiled(self, name: str, injector: Injector, resources: ResourceFunctions) -> list[Hook]:
        """Return the functions of one hook, ready to be called.

        Raises:
            SetupError: One cannot be called with what there is.
        """
        return [
            Hook(function, _signature(name, function, injector, resources))
            for function in self.of(name)
        ]


def _signature(
    name: str, function: Callable[..., Any], injector: Injector, resources: ResourceFunctions
) -> Signature:
    place = f"{name} {function.__name__} at {place_of(function)}"
    per_worker = name.startswith("on_worker")
    try:
        signature = compile_signature(function, injector)
        if per_worker:
            resources.check_worker_hook(function, injector)
    except SetupError as error:
        raise SetupError(f"{place}: {error}") from None
    from_line = signature.words or signature.many or signature.options or signature.rest
    if from_line or (per_worker and {Session, Connection, Verb} & set(hints(function).values())):
        what = (
            "the app's resources" if per_worker else "Session, Connection and the app's resources"
        )
        raise SetupError(
            f"{place}: a hook may only annotate {what}; it gets nothing from a request"
        )
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
