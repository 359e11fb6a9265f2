"""Resources: what a worker keeps for its handlers, and what the requests of one batch share.

A batch is what one turn of a connection answers together. A resource of the scope ``batch`` is made
when the first of its requests asks for it, and ended after the last one, before any of their replies is
sent: what the replies say has been committed when a client reads them.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from linepool import forked
from linepool.errors import LeaveNow, SetupError
from linepool.handlers.checks import refuse_second_load
from linepool.handlers.inject import Injector, described, hints, place_of
from linepool.protocols.base import Protocol

log = logging.getLogger("linepool")

WORKER, BATCH = "worker", "batch"
SCOPES = (WORKER, BATCH)
"""For how long a resource is used: until the worker exits; until a batch of requests is answered."""

F = TypeVar("F", bound=Callable[..., Any])

Make = Callable[[], Generator[Any, None, None]]
"""Returns the generator of a resource: it yields the resource once, and is resumed to end it."""


_ENDED = object()


class Resources(dict[str, Any]):
    """The resources that are open, by name; one of the scope ``batch`` is made when it is looked up.

    Attributes:
        per_batch: What makes those of a batch, by name.
        is_open: Some of a batch may have been made: they must be ended before a reply is sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.per_batch: Mapping[str, Make] = {}
        self.is_open = False
        self._made: dict[str, Generator[Any, None, None]] = {}

    def __missing__(self, name: str) -> Any:
        """Make a resource of the present batch.

        RequestTimeout may be raised here between any two instructions. A generator that was kept without
        its value is unused, and is closed before there is a second one.
        """
        make = self.per_batch[name]
        if name in self._made:
            self._made.pop(name).close()
        self.is_open = True
        self._made[name] = generator = make()
        try:
            self[name] = next(generator)
        except StopIteration:
            raise RuntimeError(f"resource {name} yields nothing") from None
        return self[name]

    def end_batch(self) -> None:
        """Resume the resources of the batch behind their ``yield``, the last one first.

        What one raises is thrown into those that were made before it, so that they can roll back.

        Raises:
            BaseException: What the first of them raised; no reply of the batch may be sent.
        """
        failure: BaseException | None = None
        depth = forked.depth
        for name, generator in self._taken():
            try:
                _finish(name, generator, failure)
            except LeaveNow:
                raise
            except BaseException as error:  # noqa: BLE001 - raised below
                failure = failure or error
            finally:
                if forked.depth != depth:
                    forked.end()
        if failure is not None:
            raise failure

    def discard_batch(self) -> None:
        """Close the resources of the batch at their ``yield``: its replies are not sent."""
        for name, generator in self._taken():
            try:
                with forked.contained():
                    generator.close()
            except Exception:
                log.exception("resource failed to close resource=%s", name)

    def _taken(self) -> Iterable[tuple[str, Generator[Any, None, None]]]:
        """Forget the resources of the batch; return them, the last one first."""
        self.is_open = False
        if len(self._made) == 1:  # there is rarely more than one
            taken = self._made.popitem()
            self.pop(taken[0], None)
            return (taken,)
        made, self._made = self._made, {}
        for name in made:
            self.pop(name, None)
        return reversed(made.items())


def _finish(
    name: str, generator: Generator[Any, None, None], failure: BaseException | None
) -> None:
    """Resume a resource's generator, or throw the failure of another one into it."""
    if not generator.gi_suspended:  # type: ignore[attr-defined]
        return  # it failed before its yield
    try:
        if failure is not None:
            generator.throw(failure)
        elif next(generator, _ENDED) is _ENDED:
            return
    except StopIteration:
        return
    raise RuntimeError(f"resource {name} yields more than once")


class ResourceFunctions:
    """The functions that an app has registered for resources.

    Attributes:
        functions: All of them, by name.
    """

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}
        self._scopes: dict[str, str] = {}

    def add(self, function: F, scope: str) -> F:
        """Register a function, and return it.

        Raises:
            SetupError: The scope is unknown, or the function cannot make a resource.
        """
        name = getattr(function, "__name__", repr(function))
        if scope not in SCOPES:
            raise SetupError(
                f"resource {name}: scope must be one of {', '.join(SCOPES)}, not {scope!r}"
            )
        if not inspect.isgeneratorfunction(function):
            raise SetupError(f"resource {name} must be a generator function (yield it)")
        before = self.functions.setdefault(name, function)
        if before is not function:
            refuse_second_load(before, function)
            places = f"{place_of(before)} and {place_of(function)}"
            raise SetupError(f"resource {name} is registered twice: at {places}")
        self._scopes[name] = scope
        return function

    def injector(self, protocol: Protocol) -> Injector:
        """Return what injects them."""
        return Injector(self.functions, protocol)

    def check(self, protocol: Protocol) -> None:
        """Raise SetupError if one asks for what it cannot be given."""
        self._takes(protocol)
        self._makers(protocol, Resources())

    def check_handler(self, function: Callable[..., Any], injector: Injector) -> None:
        """Raise SetupError if a handler asks for a resource that ends before the handler does."""
        if inspect.isgeneratorfunction(function):
            self._refuse_batch(
                function,
                injector,
                "ends before the first part of a reply is sent, so a generator handler cannot use it;"
                " take a resource of the scope worker",
            )

    def check_worker_hook(self, function: Callable[..., Any], injector: Injector) -> None:
        """Raise SetupError if a hook of a worker asks for a resource of a batch."""
        self._refuse_batch(function, injector, "is made for requests only")

    def _refuse_batch(self, function: Callable[..., Any], injector: Injector, why: str) -> None:
        for parameter, hint in hints(function).items():
            name = injector.resource_name(hint, parameter)
            if name in self._of(BATCH):
                raise SetupError(f"parameter {parameter}: resource {name} of the scope batch {why}")

    @contextlib.contextmanager
    def opened(self, protocol: Protocol) -> Iterator[Resources]:
        """Open those of the worker, in the order of their registration."""
        resources = Resources()
        takes = self._takes(protocol)
        with contextlib.ExitStack() as stack:
            for name, function in self._of(WORKER).items():
                taken = {parameter: resources[one] for parameter, one in takes[name].items()}
                manager = contextlib.contextmanager(function)
                resources[name] = stack.enter_context(forked.Contained(manager(**taken)))
            resources.per_batch = self._makers(protocol, resources)
            yield resources

    def _of(self, scope: str) -> dict[str, Callable[..., Any]]:
        return {name: f for name, f in self.functions.items() if self._scopes[name] == scope}

    def _takes(self, protocol: Protocol) -> dict[str, dict[str, str]]:
        """Return the resources that those of the worker take, by parameter; each by its name."""
        functions, before = self._of(WORKER), dict[str, Callable[..., Any]]()
        takes = {}
        for name, function in functions.items():
            takes[name] = _taken_by(function, Injector(before, protocol), _OF_WORKER)
            before[name] = function
        return takes

    def _makers(self, protocol: Protocol, resources: Resources) -> dict[str, Make]:
        """Return what makes those of a batch, given the resources of the worker."""
        injector = Injector(self._of(WORKER), protocol)
        makers: dict[str, Make] = {}
        for name, function in self._of(BATCH).items():
            taken = _taken_by(function, injector, _OF_BATCH)
            makers[name] = partial(
                function, **{parameter: resources.get(one) for parameter, one in taken.items()}
            )
        return makers


_OF_WORKER = (
    "a resource of the scope worker may only take resources of that scope, registered before it"
)
_OF_BATCH = "a resource of the scope batch may only take resources of the scope worker"


def _taken_by(function: Callable[..., Any], injector: Injector, rule: str) -> dict[str, str]:
    """Return the resource for each parameter of the function of a resource.

    Args:
        function: It makes the resource.
        injector: Knows those that it may take.
        rule: Which these are, for the message.

    Raises:
        SetupError: No resource fits one of the parameters.
    """
    annotated = hints(function)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = {}
    for parameter in inspect.signature(function).parameters.values():
        name = injector.resource_name(annotated.get(parameter.name, str), parameter.name)
        if name is None or parameter.kind not in by_name:
            raise SetupError(
                f"resource {described(function)}: parameter {parameter.name}: {rule}, by an annotation and"
                " by name"
            )
        taken[parameter.name] = name
    return taken
