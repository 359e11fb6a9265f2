"""What an app registers around its requests: middleware, and functions for exceptions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from linepool.around import layer_of
from linepool.errors import SetupError
from linepool.handlers.checks import check_call, check_plain_function
from linepool.handlers.inject import Injector, hints, place_of
from linepool.resources import ResourceFunctions
from linepool.service import ErrorHook, Middleware

F = TypeVar("F", bound=Callable[..., Any])

_GIVEN = ("exception", "request", "session")


class RequestHooks:
    """What an app has registered around its requests; the base of ``App``."""

    def __init__(self) -> None:
        self._middleware: list[Callable[..., Any]] = []
        self._error_hooks: list[Callable[..., Any]] = []

    def middleware(self, function: F) -> F:
        """Put a function around every handler; the first one registered is the outermost.

        ``function(request, session, call_next)`` returns what ``call_next(request)`` returns, or another
        value to encode. A generator function with the parameters ``(request, session)`` yields once: the
        rest of it runs when the reply is complete, a stream too; what has ended the request otherwise
        is raised at the ``yield``.

        Raises:
            SetupError: It cannot be called like this.
        """
        check_plain_function(function)
        if not _is_around(function):
            is_generator = inspect.isgeneratorfunction(function)
            check_call(
                function,
                f"{'generator ' * is_generator}middleware",
                *("request", "session", "call_next"),
                instead="(request, session)" if is_generator else "",
            )
        self._middleware.append(function)
        return function

    def on_error(self, function: F) -> F:
        """Call ``function(exception, request, session)`` for each exception that is not a reply.

        That is what a handler, middleware, a stream or a hook of a connection raises beside the errors
        that are replies (``ClientError``, ``ServerError`` and so on), and RequestTimeout. The request is
        None if there is none: in a hook, and at the end of a batch. Further parameters are resources of
        the worker, by annotation. What the function itself raises is logged, and changes no reply.

        Raises:
            SetupError: It cannot be called like this.
        """
        check_plain_function(function)
        if inspect.isgeneratorfunction(function):
            raise SetupError(
                f"on_error {function.__name__} at {place_of(function)} must not be a generator function"
            )
        try:
            inspect.signature(function).bind_partial(*_GIVEN)
        except TypeError as error:
            raise _refused(function, error) from None
        self._error_hooks.append(function)
        return function

    def _layers(self) -> tuple[Middleware, ...]:
        """Return the middleware, ready to be called, from the outermost to the innermost."""
        return tuple(layer_of(one) if _is_around(one) else one for one in self._middleware)

    def _compiled_error_hooks(
        self, injector: Injector, resources: ResourceFunctions
    ) -> tuple[ErrorHook, ...]:
        """Return the functions for exceptions, ready to be called.

        Raises:
            SetupError: One cannot be called with what there is.
        """
        return tuple(_error_hook(one, injector, resources) for one in self._error_hooks)


def _is_around(function: Callable[..., Any]) -> bool:
    """Whether middleware is a generator function that is not given ``call_next``."""
    if not inspect.isgeneratorfunction(function):
        return False
    try:
        inspect.signature(function).bind("request", "session")
    except TypeError:
        return False
    return True


def _error_hook(
    function: Callable[..., Any], injector: Injector, resources: ResourceFunctions
) -> ErrorHook:
    annotated = hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    takes = {}
    for parameter in parameters[len(_GIVEN) :]:
        name = injector.resource_name(annotated.get(parameter.name, str), parameter.name)
        if name is not None and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            takes[parameter.name] = name
    try:
        resources.check_worker_hook(function, injector)
        inspect.signature(function).bind(*_GIVEN, **takes)
    except (SetupError, TypeError) as error:
        raise _refused(function, error) from None
    return ErrorHook(function, takes)


def _refused(function: Callable[..., Any], error: Exception) -> SetupError:
    return SetupError(
        f"on_error {function.__name__} at {place_of(function)} must take ({', '.join(_GIVEN)}), and"
        f" resources of the worker by annotation: {error}"
    )
