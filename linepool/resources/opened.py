"""Resources that are open, in the order in which they were opened: those of one scope."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from linepool import forked
from linepool.errors import LeaveNow, RequestTimeout
from linepool.resources.graph import Recipe

log = logging.getLogger("linepool")

_ENDED = object()
_UNMADE = object()


class Made:
    """A resource that is open, or being opened.

    Attributes:
        taken: What it was given, by parameter.
        check_at_ns: When its check is due, on the monotonic clock; 0: before its next use.
        is_broken: Its check has failed, or was interrupted.
    """

    __slots__ = ("check_at_ns", "generator", "is_broken", "recipe", "taken", "value")

    def __init__(self, recipe: Recipe, taken: dict[str, Any]) -> None:
        self.recipe = recipe
        self.taken = taken
        self.generator: Generator[Any, None, None] = recipe.make(**taken)
        self.value: Any = _UNMADE
        self.check_at_ns = 0
        self.is_broken = False

    @property
    def is_open(self) -> bool:
        """Whether its value can be used."""
        return self.value is not _UNMADE

    def open(self) -> Any:
        """Run the function to its ``yield``, and return the value."""
        try:
            self.value = value = next(self.generator)
        except StopIteration:
            raise RuntimeError(f"resource {self.recipe.name} yields nothing") from None
        return value

    def finish(self, failure: BaseException | None) -> None:
        """Resume the function behind its ``yield``, or raise there what has failed."""
        generator = self.generator
        if not generator.gi_suspended:  # type: ignore[attr-defined]
            return  # it failed before its yield
        try:
            if failure is not None:
                generator.throw(failure)
            elif next(generator, _ENDED) is _ENDED:
                return
        except StopIteration:
            return
        raise RuntimeError(f"resource {self.recipe.name} yields more than once")


class Opened:
    """The resources of one batch, connection or request, or of the worker.

    Args:
        values: Where their values are kept, by name.

    Attributes:
        made: Those that are open or being opened, by name.
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = {} if values is None else values
        self.made: dict[str, Made] = {}

    def make(self, recipe: Recipe, taken: dict[str, Any]) -> Any:
        """Open a resource, and return its value.

        RequestTimeout may be raised here between any two instructions. One that was kept without
        its value is unused, and is closed before there is a second one.
        """
        if recipe.name in self.made:
            self.made.pop(recipe.name).generator.close()
        self.made[recipe.name] = made = Made(recipe, taken)
        self.values[recipe.name] = value = made.open()
        return value

    def end(self, failure: BaseException | None = None) -> None:
        """Resume all of them behind their ``yield``, the last one first.

        A failure, or what one raises, is raised at the ``yield`` of those that were opened before,
        so that they can roll back.

        Raises:
            BaseException: What the last of them raised, if not the failure that was given.
        """
        raised = failure
        depth = forked.depth  # as ``forked.contained`` does it, without its cost
        for made in self._taken():
            try:
                made.finish(raised)
            except BaseException as error:  # noqa: BLE001 - raised below
                if forked.depth != depth:
                    forked.end()
                raised = error
            if forked.depth != depth:
                forked.end()
        if raised is not failure and raised is not None:
            raise raised

    def discard(self) -> None:
        """Close all of them at their ``yield``; what one raises is logged."""
        for made in self._taken():
            with _logged(made):
                made.generator.close()

    def close(self, names: Iterable[str] | None = None) -> None:
        """Resume resources behind their ``yield``, the last one first; what one raises is logged.

        Args:
            names: Which; those that take them are closed too. None: all.
        """
        if names is None:
            closed = self._taken()
        else:
            wanted = set(names)
            closed = [
                made
                for made in reversed(self.made.values())
                if made.recipe.name in wanted or made.recipe.needs & wanted
            ]
        for made in closed:
            self.made.pop(made.recipe.name, None)
            self.values.pop(made.recipe.name, None)
            with _logged(made):
                made.finish(None)

    def _taken(self) -> Iterable[Made]:
        """Forget all of them; return them, the last one first."""
        if len(self.made) == 1:  # there is rarely more than one
            name, made = self.made.popitem()
            self.values.pop(name, None)
            return (made,)
        taken, self.made = self.made, {}
        for name in taken:
            self.values.pop(name, None)
        return reversed(taken.values())


@contextlib.contextmanager
def _logged(made: Made) -> Iterator[None]:
    try:
        with forked.contained():
            yield
    except (LeaveNow, RequestTimeout):
        raise
    except BaseException:
        log.exception("resource failed to close resource=%s", made.recipe.name)
