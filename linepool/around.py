"""Middleware that is a generator function: it runs around a whole reply, a stream to its end.

Such a function takes the request and the session, and yields once: the rest of it runs when the reply is
complete. What ends the request otherwise is raised at its ``yield``: what the handler has raised,
RequestTimeout, and GeneratorExit when the connection ends before a stream does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any

from attrs import evolve

from linepool.protocols.base import Request
from linepool.session import Reply, Session


class Next(functools.partial[Any]):
    """What middleware calls to have the rest done: a method of the conversation, with its first argument."""

    @property
    def conversation(self) -> Any:
        """The conversation of the request."""
        return self.func.__self__  # type: ignore[attr-defined]


Around = Callable[..., Generator[None, None, None]]


def layer_of(function: Around) -> Callable[..., Any]:
    """Return the middleware that runs a generator function around what it calls.

    It takes further arguments of the function by name.
    """

    @functools.wraps(function)
    def layer(
        request: Request, session: Session, call_next: Callable[[Request], Any], **more: Any
    ) -> Any:
        around = function(request, session, **more)
        if next(around, around) is around:
            raise RuntimeError(f"middleware {function.__name__} has not yielded")
        return run_around(around, functools.partial(call_next, request))

    return layer


def run_around(around: Generator[None, None, None], call: Callable[[], Any]) -> Any:
    """Return the value of a request, a stream with a generator function around it.

    Args:
        around: The function's generator, at its ``yield``.
        call: Returns the value.

    Raises:
        BaseException: What ``call`` raises, or the generator in its place.
    """
    try:
        value = call()
    except BaseException as error:
        failure = _told(around, error)
        if failure is not error:
            raise failure  # noqa: B904 - it has its context
        raise
    if hasattr(value, "__next__"):
        return Watched(value, around)
    if isinstance(value, Reply) and hasattr(value.value, "__next__"):
        return evolve(value, value=Watched(value.value, around))
    _complete(around)
    return value


class Watched(Generator[Any, Any, None]):
    """A stream with a generator function around it.

    Args:
        items: What the handler yields.
        around: The function's generator, at its ``yield``.
    """

    def __init__(self, items: Any, around: Generator[None, None, None]) -> None:
        self._items: Iterator[Any] = items
        self._around: Generator[None, None, None] | None = around

    def __next__(self) -> Any:
        """Return the next item."""
        try:
            return next(self._items)
        except StopIteration:
            if around := self._taken():
                _complete(around)
            raise
        except BaseException as error:
            failure = self.tell(error)
            if failure is not error:
                raise failure  # noqa: B904 - as above
            raise

    def send(self, value: Any, /) -> Any:
        """Return the next item; the handler is sent nothing."""
        del value
        return next(self)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None, /) -> Any:
        """End the stream with an exception."""
        del traceback
        raise self.tell(kind if isinstance(kind, BaseException) else value or kind())

    def close(self) -> None:
        """End the stream before its end."""
        try:
            if isinstance(self._items, Generator):
                self._items.close()
        finally:
            if around := self._taken():
                around.close()

    def tell(self, error: BaseException) -> BaseException:
        """Raise what has ended the stream at the ``yield``; return it, or what was raised instead."""
        if isinstance(self._items, Watched):
            error = self._items.tell(error)
        around = self._taken()
        return _told(around, error) if around else error

    def _taken(self) -> Generator[None, None, None] | None:
        """Return the function's generator the first time, then None."""
        around, self._around = self._around, None
        return around


def _complete(around: Generator[None, None, None]) -> None:
    """Run the rest of a function: the reply is complete."""
    if next(around, around) is not around:
        around.close()
        raise RuntimeError("generator middleware must yield once")


def _told(around: Generator[None, None, None], error: BaseException) -> BaseException:
    """Raise an error at the ``yield`` of a function; return it, or what the function raises instead.

    A function that catches the error does not undo it: nothing else could be sent as the reply.
    """
    try:
        around.throw(error)
    except StopIteration:
        return error
    except BaseException as failure:  # noqa: BLE001 - the caller raises it
        return failure
    around.close()
    return error
