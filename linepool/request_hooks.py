"""What an app registers around its requests: middleware, and functions for exceptions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from linepool.around import layer_of
from linepool.errors import SetupError
from linepool.handlers.checks import check_call, check_plain_function, refuse_second_load
from linepool.handlers.inject import Injector, described, hints, place_of
from linepool.handlers.signature import Supply
from linepool.hooks import OF_WORKERS_ONLY
from linepool.protocols.base import Protocol, Request
from linepool.resources import in_request_scope, is_of_request
from linepool.service import Authenticate, ErrorHook, Middleware
from linepool.session import Secret, Session
from linepool.signatures import signature_of

F = TypeVar("F", bound=Callable[..., Any])

_AROUND = ("request", "session")
_GIVEN = ("exception", "request", "session")
_LOGIN = ("user", "password")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class RequestHooks:
    """What an app has registered around its requests; the base of ``App``."""

    def __init__(self) -> None:
        super().__init__()
        self._middleware: list[Callable[..., Any]] = []
        self._error_hooks: list[Callable[..., Any]] = []
        self._authenticate: Callable[..., Any] | None = None

    def middleware(self, function: F) -> F:
        """Put a function around every handler; the first one registered is the outermost.

        ``function(request, session, call_next)`` returns what ``call_next(request)`` returns, or another
        value to encode. A generator function with the parameters ``(request, session)`` yields once: the
        rest of it runs when the reply is complete, a stream too; what has ended the request otherwise
        is raised at the ``yield``. Further parameters are resources and the like, by annotation, as in
        hooks of a connection.

        Raises:
            SetupError: It cannot be called like this.
        """
        check_plain_function(function)
        given = [*_AROUND, "call_next"]
        if not _can_be_called(function, given) and not (
            inspect.isgeneratorfunction(function) and _can_be_called(function, _AROUND)
        ):
            is_generator = inspect.isgeneratorfunction(function)
            check_call(
                function,
                f"{'generator ' * is_generator}middleware",
                *given,
                instead="(request, session)" if is_generator else "",
            )
        names = list(signature_of(function).parameters)[: len(given)]
        if any(name in given and name != given[at] for at, name in enumerate(names)):
            shown = f"({', '.join(names)})"
            raise SetupError(
                f"middleware {described(function)} is given ({', '.join(given)}) in this order, not {shown}"
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
            signature_of(function).bind_partial(*_GIVEN)
        except TypeError as error:
            raise _refused(function, error) from None
        self._error_hooks.append(function)
        return function

    def authenticate(self, function: F) -> F:
        """Have clients log in: ``function(user, password)`` says whether a password is right.

        Before it has logged in, a client gets an error for all but the protocol's own log-in command, the
        like of QUIT, and handlers with ``public=True``. The function returns True, or the name of the user,
        for ``session.user``; False and None refuse the log-in, and so does ClientError, with its own text.
        The password is a ``Secret``. Further parameters are injected as into handlers.

        Raises:
            SetupError: There is one already, or it cannot be called like this.
        """
        check_plain_function(function)
        role = f"authenticate {described(function)}"
        if self._authenticate is not None:
            refuse_second_load(self._authenticate, function)
            raise SetupError(f"{role}: there is one already: {described(self._authenticate)}")
        if inspect.isgeneratorfunction(function):
            raise SetupError(f"{role} must not be a generator function")
        if not _can_be_called(function, _LOGIN):
            check_call(function, "authenticate", *_LOGIN)
        self._authenticate = function
        return function

    def _authentication(self, injector: Injector, protocol: Protocol) -> Authenticate | None:
        """Return what clients log in by, ready to be called, or None: they need not.

        Raises:
            SetupError: It cannot be called with what there is, or the protocol has been given another.
        """
        function, given = self._authenticate, protocol.authenticator
        if function is None:
            return None if given is None else _revealed(given)
        role = f"authenticate {described(function)}"
        if given is not None:
            name = type(protocol).__name__
            raise SetupError(
                f"{role}: {name}() has been given a password or a function for it too; leave one of them out"
            )
        try:
            for name, hint in zip(_LOGIN, _given_hints(function), strict=False):
                if hint not in (inspect.Parameter.empty, str, Secret):
                    kind = "str or linepool.Secret" if name == _LOGIN[1] else "str"
                    raise SetupError(f"the {name} is a {kind}")
            supplies = _supplies(function, len(_LOGIN), injector)
        except SetupError as error:
            raise SetupError(f"{role}: {error}") from None
        return _authenticate(function, supplies)

    def _layers(self, injector: Injector) -> tuple[tuple[Middleware, ...], tuple[Supply, ...]]:
        """Return the middleware, ready to be called, from the outermost to the innermost, and its supplies.

        Raises:
            SetupError: One cannot be called with what there is.
        """
        layers, supplies = [], list[Supply]()
        for function in self._middleware:
            layer, takes = _layer(function, injector)
            layers.append(layer)
            supplies += takes
        return tuple(layers), tuple(supplies)

    def _compiled_error_hooks(self, injector: Injector) -> tuple[ErrorHook, ...]:
        """Return the functions for exceptions, ready to be called.

        Raises:
            SetupError: One cannot be called with what there is.
        """
        return tuple(_error_hook(one, injector) for one in self._error_hooks)


def _can_be_called(function: Callable[..., Any], given: Sequence[str]) -> bool:
    """Whether middleware can be called with these, and what is annotated beside them."""
    signature = signature_of(function)
    further = [
        one.name
        for one in list(signature.parameters.values())[len(given) :]
        if one.annotation is not one.empty and one.kind in _BY_NAME
    ]
    try:
        signature.bind(*given, **dict.fromkeys(further))
    except TypeError:
        return False
    return True


def _given_hints(function: Callable[..., Any]) -> list[Any]:
    """Return the annotations of the parameters of a function, in their order."""
    annotated = _resolved(function)
    return [
        annotated.get(name, one.empty) for name, one in signature_of(function).parameters.items()
    ]


def _authenticate(function: Callable[..., Any], supplies: Mapping[str, Supply]) -> Authenticate:
    """Return what calls a function for log-ins with all that it takes."""

    def authenticate(user: str, password: str, conversation: Any) -> Any:
        request = conversation.request
        more = {name: supply(request, conversation) for name, supply in supplies.items()}
        return function(user, Secret(password), **more)

    if any(map(is_of_request, supplies.values())):
        return in_request_scope(authenticate)
    return authenticate


def _revealed(check: Callable[[str, str], bool]) -> Authenticate:
    """Return what calls the function for log-ins that a protocol was given."""
    return lambda user, password, _conversation: bool(check(user, password))


def _layer(function: Callable[..., Any], injector: Injector) -> tuple[Middleware, list[Supply]]:
    """Return one function as middleware, and what it is given."""
    try:
        given = _number_given(function, injector)
        supplies = _supplies(function, given, injector)
    except SetupError as error:
        raise SetupError(f"middleware {described(function)}: {error}") from None
    layer: Middleware = layer_of(function) if given == len(_AROUND) else function
    if supplies:
        layer = _injected(layer, supplies)
    if any(map(is_of_request, supplies.values())):
        layer = in_request_scope(layer)
    return layer, list(supplies.values())


def _number_given(function: Callable[..., Any], injector: Injector) -> int:
    """Return how many arguments middleware is given by position: whether ``call_next`` is among them."""
    third = [*signature_of(function).parameters.values()][len(_AROUND) :][:1]
    if inspect.isgeneratorfunction(function) and _can_be_called(function, _AROUND):
        return len(_AROUND) + any(one.name == "call_next" for one in third)
    for one in third:
        if injector(_resolved(function).get(one.name), one.name) is not None:
            raise SetupError(f"the third parameter is call_next, not {one.name}")
    return len(_AROUND) + 1


def _supplies(function: Callable[..., Any], given: int, injector: Injector) -> dict[str, Supply]:
    """Return what supplies the parameters of middleware beyond those that it is given by position."""
    annotated = _resolved(function)
    supplies: dict[str, Supply] = {}
    for parameter in [*signature_of(function).parameters.values()][given:]:
        hint = annotated.get(parameter.name, parameter.empty)
        supply = injector(hint, parameter.name)
        if supply is not None:
            supplies[parameter.name] = supply
        elif parameter.default is parameter.empty and parameter.kind in _BY_NAME:
            why = injector.unprovided(hint, parameter.name)
            raise SetupError(f"parameter {parameter.name}: {why}")
    return supplies


def _resolved(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return hints(function)
    except NameError as error:
        raise SetupError(f"annotation: {error}") from None


def _injected(function: Callable[..., Any], supplies: Mapping[str, Supply]) -> Middleware:
    """Return middleware that gives a function further arguments, by name."""

    @functools.wraps(function)
    def layer(request: Request, session: Session, call_next: Any) -> Any:
        conversation = call_next.conversation
        more = {name: supply(request, conversation) for name, supply in supplies.items()}
        return function(request, session, call_next, **more)

    return layer


def _error_hook(function: Callable[..., Any], injector: Injector) -> ErrorHook:
    parameters = list(signature_of(function).parameters.values())
    takes = {}
    try:
        annotated = _resolved(function)
        for parameter in parameters[len(_GIVEN) :]:
            hint = annotated.get(parameter.name, parameter.empty)
            name = injector.resource_name(hint, parameter.name)
            if name is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
                takes[parameter.name] = name
            elif parameter.default is parameter.empty and parameter.kind in _BY_NAME:
                why = injector.unprovided(hint, parameter.name)
                raise SetupError(f"parameter {parameter.name}: {why}")
        injector.refuse(function, OF_WORKERS_ONLY)
        signature_of(function).bind(*_GIVEN, **takes)
    except (SetupError, TypeError) as error:
        raise _refused(function, error) from None
    return ErrorHook(function, takes)


def _refused(function: Callable[..., Any], error: Exception) -> SetupError:
    return SetupError(
        f"on_error {function.__name__} at {place_of(function)} must take ({', '.join(_GIVEN)}), and"
        f" resources of the worker by annotation: {error}"
    )
