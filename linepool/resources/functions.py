"""The resources that an app has registered, and what replaces them in tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from attrs import evolve, frozen

from linepool.errors import SetupError
from linepool.handlers.checks import check_call, check_plain_function, refuse_second_load
from linepool.handlers.inject import (
    Injector,
    LiveResourceOf,
    Offer,
    RequestResourceOf,
    ResourceOf,
    place_of,
    shown_type,
)
from linepool.handlers.signature import Supply
from linepool.near import nearest
from linepool.protocols.base import Protocol
from linepool.resources.graph import (
    CONNECTION,
    REQUEST,
    SCOPES,
    WORKER,
    Recipe,
    Registered,
    recipes_of,
)
from linepool.resources.held import Resources
from linepool.resources.shapes import Shape, check_shape, given_shape, is_maker, shape_of
from linepool.resources.waking import WAITERS, waiters

F = TypeVar("F", bound=Callable[..., Any])

_LONGEST = 1e9  # seconds


class ResourceFunctions:
    """The functions that an app has registered for resources."""

    def __init__(self) -> None:
        self._resources: dict[str, Registered] = {}

    @property
    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """All of them, by name."""
        return {name: one.function for name, one in self._resources.items()}

    def add(
        self,
        function: F,
        scope: str,
        check: Callable[[Any], object] | None = None,
        check_after: float = 0.0,
    ) -> F:
        """Register a function or class, and return it.

        Raises:
            SetupError: The scope is unknown, or the function cannot make a resource.
        """
        name = getattr(function, "__name__", repr(function))
        if scope not in SCOPES:
            raise SetupError(
                f"resource {name}: scope must be one of {', '.join(SCOPES)}, not {scope!r}"
            )
        check_shape(name, function)
        _check_check(name, scope, check, check_after)
        one = Registered(name, scope, function, check, check_after)
        before = self._resources.setdefault(name, one).function
        if before is not function:
            refuse_second_load(before, function)
            places = f"{place_of(before)} and {place_of(function)}"
            raise SetupError(f"resource {name} is registered twice: at {places}")
        return function

    def include(self, other: ResourceFunctions) -> None:
        """Have those of another app too; raises SetupError as ``add``."""
        for one in other._resources.values():
            self.add(one.function, one.scope, one.check, one.check_after)

    def state(self) -> object:
        """Return what is another value when a resource was added or replaced."""
        return tuple(self._resources.items())

    @contextlib.contextmanager
    def replaced(self, what: Any, fake: Any) -> Iterator[None]:
        """Have a resource be another one, until the block ends.

        Args:
            what: Its function, or the type that it provides.
            fake: What is given in its place; a generator function makes that.

        Raises:
            SetupError: There is no such resource, or several are of the type.
        """
        name = self._named(what)
        before = self._resources[name]
        shape = shape_of(name, fake) if is_maker(fake) else given_shape(fake)
        self._resources[name] = evolve(before, fake=shape)
        try:
            yield
        finally:
            self._resources[name] = before

    def resolved(self, protocol: Protocol) -> Resolved:
        """Return which resource is made how, and what injects them.

        Raises:
            SetupError: One has no type, takes what nothing provides, or takes itself through others.
        """
        resources = {WAITERS: Registered(WAITERS, WORKER, waiters), **self._resources}
        shapes = {name: shape_of(name, one.function) for name, one in resources.items()}
        kinds = {
            name: _provided(name, one.function, shapes[name]) for name, one in resources.items()
        }
        shapes |= {name: one.fake for name, one in resources.items() if one.fake is not None}
        offers = {
            name: Offer(
                kinds[name], place_of(one.function), one.scope, frozenset(), ResourceOf(name)
            )
            for name, one in resources.items()
        }
        recipes = recipes_of(resources, shapes, Injector(offers, protocol))
        for name, recipe in recipes.items():
            offers[name] = evolve(offers[name], scopes=recipe.scopes, supply=_supply(recipe))
        return Resolved(recipes, Injector(offers, protocol))

    def _named(self, what: Any) -> str:
        """Return the name of the resource of a function, or of a type."""
        for name, one in self._resources.items():
            if one.function is what:
                return name
        kinds = {
            name: shape_of(name, one.function).provides for name, one in self._resources.items()
        }
        found = [name for name, kind in kinds.items() if kind == what]
        if len(found) == 1:
            return found[0]
        if found:
            raise SetupError(
                f"several resources provide {shown_type(what)}: {', '.join(found)}; name one by its"
                " function"
            )
        name = getattr(what, "__name__", str(what))
        near = nearest(name, [*kinds, *map(shown_type, kinds.values())])
        hint = (
            f"did you mean {near}?" if near else f"the resources are {', '.join(kinds) or '(none)'}"
        )
        raise SetupError(f"{name} is neither a resource of this app nor the type of one; {hint}")


@frozen
class Resolved:
    """The resources of an app, resolved.

    Attributes:
        recipes: How each is made, by name; those that one takes come before it.
        injector: What injects them.
    """

    recipes: Mapping[str, Recipe]
    injector: Injector

    @contextlib.contextmanager
    def opened(self) -> Iterator[Resources]:
        """Open those of the worker, each after those that it takes, and close them in the end."""
        resources = Resources(self.recipes)
        try:
            resources.open()
            yield resources
        except BaseException as error:
            resources.close(error)
            raise
        resources.close()


def _supply(recipe: Recipe) -> Supply:
    of_request = recipe.scope == REQUEST
    if CONNECTION in recipe.scopes:
        return LiveResourceOf(recipe.name, is_of_request=of_request)
    return RequestResourceOf(recipe.name) if of_request else ResourceOf(recipe.name)


def _provided(name: str, function: Callable[..., Any], shape: Shape) -> Any:
    if shape.provides in (None, type(None), Any):
        raise SetupError(
            f"resource {name} at {place_of(function)} must be annotated with what it yields,"
            " for example '-> Iterator[sqlite3.Connection]'"
        )
    return shape.provides


def _check_check(
    name: str, scope: str, check: Callable[[Any], object] | None, check_after: float
) -> None:
    if check is None:
        return
    if scope not in (WORKER, CONNECTION):
        raise SetupError(
            f"resource {name}: check is for the scopes {WORKER} and {CONNECTION}: one of the scope"
            f" {scope} is made anew each time"
        )
    check_plain_function(check)
    check_call(check, "check", "value")
    if not 0 <= check_after <= _LONGEST:
        raise SetupError(
            f"resource {name}: check_after must be seconds, 0 or more, not {check_after!r}"
        )
