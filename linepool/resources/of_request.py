"""The scope of a request.

It begins with the first handler or middleware that takes a resource of it, and ends with what that
returns, a stream too.

The scope is kept in the request's ``contextvars`` context, so that what runs later for the same request, such
as the next part of a stream, finds it; it ends with that context.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import ContextVar
from functools import partial
from typing import Any

from linepool.around import run_around
from linepool.resources.opened import Opened


class RequestScope(Opened):
    """The resources of one request.

    Attributes:
        is_over: It has ended: what takes one of them then begins another scope.
    """

    is_over = False

    def around(self) -> Generator[None, None, None]:
        """Yield once, while the request is served; what is raised there, the resources learn."""
        try:
            yield
        except BaseException as error:
            self.is_over = True
            self.end(error)
            raise
        self.is_over = True
        self.end()


_current: ContextVar[RequestScope] = ContextVar("linepool_request_scope")


def current() -> RequestScope:
    """Return the scope of the present request. Pre-condition: it has begun."""
    return _current.get()


def is_of_request(supply: object) -> bool:
    """Whether what supplies a parameter needs the scope of the request."""
    return getattr(supply, "is_of_request", False)


def in_request_scope(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls another in the scope of the request, begun and ended if need be."""

    def scoped(*arguments: Any) -> Any:
        scope = _current.get(None)
        if scope is not None and not scope.is_over:
            return call(*arguments)
        scope = RequestScope()
        _current.set(scope)
        around = scope.around()
        next(around)
        return run_around(around, partial(call, *arguments))

    return scoped
