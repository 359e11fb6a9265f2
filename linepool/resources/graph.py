"""Which resource takes which: resolved and checked when the app is frozen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from linepool.errors import SetupError
from linepool.handlers.inject import Injector, described
from linepool.pubsub.messages import PubSub
from linepool.resources.shapes import Make, Shape
from linepool.session import Session

WORKER, CONNECTION, BATCH, REQUEST = "worker", "connection", "batch", "request"
SCOPES = (WORKER, CONNECTION, BATCH, REQUEST)
"""For how long a resource is used, the longest first: until the worker exits; until the connection ends;
until a batch of requests is answered; until the reply to a request is complete."""

SESSION, PUBSUB = "(session)", "(pubsub)"
"""Among the names of what a resource takes: the session of the connection; what publishes messages."""

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@frozen(eq=False)
class Registered:
    """A resource as it was registered.

    Attributes:
        function: The function or class; ``fake``: what replaces it in a test, or None.
        check: Whether it is well, given its value; None: nothing checks it.
        check_after: Seconds from one check to the next.
    """

    name: str
    scope: str
    function: Callable[..., Any]
    check: Callable[[Any], object] | None = None
    check_after: float = 0.0
    fake: Shape | None = None


@frozen(eq=False)
class Recipe:
    """How a resource is made.

    Attributes:
        takes: The resources that it takes, by parameter.
        needs: The names of these, and of those that they take in turn.
        scopes: The scopes of these, and its own.
        check: As in ``Registered``.
        check_after_ns: Likewise, in ns.
    """

    name: str
    scope: str
    make: Make
    takes: Mapping[str, str]
    needs: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    check: Callable[[Any], object] | None = None
    check_after_ns: int = 0
    place: str = field(default="", kw_only=True)


def recipes_of(
    resources: Mapping[str, Registered], shapes: Mapping[str, Shape], injector: Injector
) -> dict[str, Recipe]:
    """Return how each resource is made, by name: those that one takes come before it.

    Raises:
        SetupError: One takes what nothing provides, or what ends before it; or some take each other.
    """
    found: dict[str, Recipe] = {}
    for name in resources:
        _find(name, (), found, resources, shapes, injector)
    return found


def _find(
    name: str,
    path: tuple[str, ...],
    found: dict[str, Recipe],
    resources: Mapping[str, Registered],
    shapes: Mapping[str, Shape],
    injector: Injector,
) -> Recipe:
    """Return a recipe, after those that it takes; ``path``: the resources that are being resolved."""
    if name in found:
        return found[name]
    one = resources[name]
    if name in path:
        cycle = [*path[path.index(name) :], name]
        places = ", ".join(described(resources[each].function) for each in cycle[:-1])
        raise SetupError(f"resources take each other: {' -> '.join(cycle)} ({places})")
    takes = _taken_by(one, shapes[name], injector)
    taken = [
        _find(other, (*path, name), found, resources, shapes, injector)
        for other in takes.values()
        if other in resources
    ]
    for parameter, other in takes.items():
        if other in resources and SCOPES.index(resources[other].scope) > SCOPES.index(one.scope):
            raise SetupError(
                f"resource {described(one.function)}: parameter {parameter}: resource {other} of the scope"
                f" {resources[other].scope} ends before those of the scope {one.scope}"
            )
    recipe = found[name] = Recipe(
        name,
        one.scope,
        shapes[name].make,
        takes,
        frozenset().union(*(other.needs | {other.name} for other in taken)),
        frozenset({one.scope}).union(*(other.scopes for other in taken)),
        None if one.fake else one.check,
        int(one.check_after * 1e9),
        place=described(one.function),
    )
    return recipe


def _given(hint: Any, scope: str) -> str | None:
    """Return the name of what a resource may take that is not a resource, or None."""
    if hint is Session and scope != WORKER:
        return SESSION
    return PUBSUB if hint is PubSub and scope == BATCH else None


def _taken_by(one: Registered, shape: Shape, injector: Injector) -> dict[str, str]:
    """Return the resource for each parameter of the function of a resource."""
    takes = {}
    for parameter in shape.parameters:
        where = f"resource {described(one.function)}: parameter {parameter.name}"
        hint = shape.annotated.get(parameter.name, inspect.Parameter.empty)
        try:
            name = injector.resource_name(hint, parameter.name, but=one.name)
        except SetupError as error:
            raise SetupError(f"resource {described(one.function)}: {error}") from None
        if name is None:
            name = _given(hint, one.scope)
        if name is None and parameter.default is not parameter.empty:
            continue
        if name is None:
            raise SetupError(f"{where}: {injector.unprovided(hint, parameter.name, but=one.name)}")
        if parameter.kind not in _BY_NAME:
            raise SetupError(f"{where} must be one that is given by name")
        takes[parameter.name] = name
    return takes
