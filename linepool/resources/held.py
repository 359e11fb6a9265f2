"""The resources of a worker: opened at its start, checked, and made anew when they are broken.

One with ``check=`` is checked before its next use when ``check_after`` seconds have passed since the last
check, and when a request has ended in SERVER_ERROR. Until then its value lies in the dict, and to take it
costs one look-up; to have it checked, it is taken out of the dict together with those that depend on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from linepool import forked
from linepool.resources.at_end import PublishedAtEnd
from linepool.resources.graph import BATCH, CONNECTION, PUBSUB, REQUEST, SESSION, WORKER, Recipe
from linepool.resources.of_request import current
from linepool.resources.opened import Made, Opened
from linepool.resources.waking import WAITERS, WorkerWaiters

log = logging.getLogger("linepool")

NEVER = 2**63 - 1

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds after a failure to open a resource before the next try; doubled with each failure."""


class ResourceUnavailable(Exception):  # noqa: N818 - what the client meets
    """A resource could not be opened a moment ago, and it is too early to try again."""


@frozen
class _Failure:
    """The last failure to open a resource anew, after ``count`` in a row."""

    count: int
    retry_at: float
    why: str


class Resources(dict[str, Any]):
    """The resources of the worker and of the present batch that can be used, by name.

    One that is not there is made, or checked, when it is looked up.

    Args:
        recipes: How each is made, those that one takes before it.

    Attributes:
        has_checks: Some are to be checked now and then.
        is_open: Some of a batch may have been made: they must be ended before a reply is sent.
        waiters: What was woken by the present batch; None: the resources are not open.
        check_at_ns: When ``look`` is to be called before a turn, on the monotonic clock.
    """

    def __init__(self, recipes: Mapping[str, Recipe] | None = None) -> None:
        super().__init__()
        self._recipes = recipes or {}
        self.has_checks = any(recipe.check for recipe in self._recipes.values())
        self.is_open = False
        self.check_at_ns = NEVER
        self.waiters: WorkerWaiters | None = None
        self._worker = Opened(self)
        self._batch = Opened(self)
        self._failures: dict[str, _Failure] = {}

    def __missing__(self, name: str) -> Any:
        """Return a resource of the worker or the batch that has to be made or checked first."""
        return self.take(name, None)

    def take(self, name: str, conversation: Any) -> Any:
        """Return a resource of any scope, which is made or checked first if need be.

        Args:
            name: The resource's.
            conversation: Whose request, connection or batch it is of; None: it is known to need none.
        """
        recipe = self._recipes[name]
        scope = recipe.scope
        if scope == REQUEST:
            opened: Opened = current()
        elif scope == CONNECTION:
            opened = _held_by(conversation)
        else:
            opened = self._worker if scope == WORKER else self._batch
            if name in self:
                return self[name]
            self.is_open |= scope == BATCH
        made = opened.made.get(name)
        if made is not None and made.is_open and scope in (REQUEST, BATCH):
            opened.values[name] = made.value
            return made.value
        taken = {p: self._value(one, conversation) for p, one in recipe.takes.items()}
        if scope in (REQUEST, BATCH):
            return opened.make(recipe, taken)
        return self._kept(recipe, opened, taken)

    def open(self) -> None:
        """Open those of the worker, each after those that it takes.

        Raises:
            BaseException: What the function of one raises, after those before it have been closed.
        """
        for recipe in self._recipes.values():
            if recipe.scope != WORKER:
                continue
            try:
                with forked.contained():
                    self._make(recipe, self._worker, {p: self[n] for p, n in recipe.takes.items()})
            except Exception as error:
                log.error("resource failed to open resource=%s why=%r", recipe.place, _text(error))  # noqa: TRY400 - the worker logs the traceback
                raise
        self.waiters = self.get(WAITERS)
        if self.waiters is not None:
            self.waiters.batch_has_begun = self._begin_batch

    def _begin_batch(self) -> None:
        self.is_open = True

    def close(self, failure: BaseException | None = None) -> None:
        """Close those of the worker; ``failure`` is raised in them. Raises what the last of them raises."""
        self._worker.end(failure)

    def end_batch(self) -> None:
        """Resume the resources of the batch behind their ``yield``, the last first; then wake requests.

        Raises:
            BaseException: What one of them raised; no reply of the batch may be sent.
        """
        self.is_open = False
        try:
            self._batch.end()
        finally:
            if self.waiters is not None and self.waiters.pending:
                self.waiters.flush()
            self.is_open = False  # what a resource has woken behind its yield is no further batch
        if not self.check_at_ns:  # a request of it has failed
            self.look(0)

    def discard_batch(self) -> None:
        """Close the resources of the batch at their ``yield``: its replies are not sent."""
        self.is_open = False
        self._batch.discard()

    def suspect(self, held: Opened | None) -> None:
        """Have each resource checked before its next use: a request has failed.

        Args:
            held: The resources of its connection, if there are any.
        """
        if self.has_checks:
            for made in [*self._worker.made.values(), *(held.made.values() if held else ())]:
                made.check_at_ns = 0
            self.check_at_ns = 0
            self.look(0)

    def look(self, now_ns: int) -> None:
        """Take those out whose check is due, and all that depend on them; they are still open.

        While resources of a batch are open, which may depend on them, nothing is done.
        """
        if self.is_open:
            return
        self.check_at_ns = NEVER
        due = set()
        for name, made in self._worker.made.items():
            if made.recipe.check is not None and name in self:
                if made.check_at_ns <= now_ns:
                    due.add(name)
                else:
                    self.check_at_ns = min(self.check_at_ns, made.check_at_ns)
        for name, made in self._worker.made.items():
            if name in due or made.recipe.needs & due:
                self.pop(name, None)

    def look_if_due(self) -> None:
        """Have those checked before their next use whose check is due."""
        if self.has_checks and (now_ns := time.monotonic_ns()) >= self.check_at_ns:
            self.look(now_ns)

    def _value(self, name: str, conversation: Any) -> Any:
        if name in self:
            return self[name]
        if name is SESSION:
            return conversation.session
        if name is PUBSUB:
            return PublishedAtEnd(conversation)
        return self.take(name, conversation)

    def _kept(self, recipe: Recipe, opened: Opened, taken: dict[str, Any]) -> Any:
        """Return a resource of the worker or a connection: as it is, if it is well, or made anew."""
        made = opened.made.get(recipe.name)
        if made is not None and made.is_open:
            is_current = all(made.taken[name] is value for name, value in taken.items())
            if is_current and self._is_well(made):
                opened.values[recipe.name] = made.value
                return made.value
            opened.close([recipe.name])
        return self._make_anew(recipe, opened, taken)

    def _is_well(self, made: Made) -> bool:
        """Check a resource, if that is due."""
        recipe = made.recipe
        if made.is_broken:
            return False
        if recipe.check is None or (made.check_at_ns and time.monotonic_ns() < made.check_at_ns):
            return True
        made.is_broken = True  # also if the check is interrupted
        try:
            said = recipe.check(made.value)
            why = "" if said is None or said else f"the check returned {said!r}"
        except Exception as error:  # noqa: BLE001 - its text is logged
            why = _text(error)
        if why:
            log.warning("resource is broken: closed resource=%s why=%r", recipe.name, why)
            return False
        made.is_broken = False
        self._checked(made)
        return True

    def _make_anew(self, recipe: Recipe, opened: Opened, taken: dict[str, Any]) -> Any:
        """Make a resource, unless that has just failed.

        Raises:
            ResourceUnavailable: It has.
            BaseException: What its function raises.
        """
        failure = self._failures.get(recipe.name)
        if failure is not None and (left := failure.retry_at - time.monotonic()) > 0:
            raise ResourceUnavailable(
                f"resource {recipe.name} could not be opened: {failure.why}; next try in {left:.1f} s"
            )
        try:
            value = self._make(recipe, opened, taken)
        except Exception as error:
            count = failure.count + 1 if failure else 1
            pause = min(_FIRST_PAUSE * 2 ** min(count - 1, 10), _LONGEST_PAUSE)
            self._failures[recipe.name] = _Failure(count, time.monotonic() + pause, _text(error))
            raise
        if failure is not None:
            del self._failures[recipe.name]
            log.info("resource opened again resource=%s failures=%d", recipe.name, failure.count)
        return value

    def _make(self, recipe: Recipe, opened: Opened, taken: dict[str, Any]) -> Any:
        value = opened.make(recipe, taken)
        if recipe.check is not None:
            self._checked(opened.made[recipe.name])
        return value

    def _checked(self, made: Made) -> None:
        """Note that a resource is well, and when it is to be checked again."""
        after_ns = made.recipe.check_after_ns
        made.check_at_ns = time.monotonic_ns() + after_ns if after_ns else NEVER
        if made.recipe.scope == WORKER:
            self.check_at_ns = min(self.check_at_ns, made.check_at_ns)


def _held_by(conversation: Any) -> Opened:
    """Return the resources of a connection, which stays in this worker from now on."""
    if conversation.held is None:
        conversation.held = Opened()
    conversation.pinned = True
    opened: Opened = conversation.held
    return opened


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
