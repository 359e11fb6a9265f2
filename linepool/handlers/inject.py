"""Injection: which values handlers receive by type annotation."""

from __future__ import annotations

import contextlib
import inspect
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from attrs import frozen

from linepool.errors import SetupError
from linepool.handlers.converters import Converter
from linepool.handlers.from_json import json_converter
from linepool.handlers.from_words import word_converter
from linepool.handlers.signature import Supply
from linepool.handlers.structured import DEFAULT
from linepool.login import Login
from linepool.near import nearest
from linepool.protocols.base import Protocol, Request
from linepool.pubsub.messages import PubSub
from linepool.session import Connection, Session, Verb
from linepool.values.records import has_fields, is_plain_data
from linepool.waiting import Waited


@frozen
class Offer:
    """A resource that can be injected.

    Attributes:
        kind: The type that it provides.
        place: ``file:line`` of its function.
        scope: For how long it is used.
        scopes: Its scope, and those of all that it takes.
        supply: Returns it.
    """

    kind: Any
    place: str
    scope: str
    scopes: frozenset[str]
    supply: Supply


class Injector:
    """Maps a parameter's annotation to the function that returns the value to inject.

    Args:
        offers: The app's resources, by name.
        protocol: The app's protocol.

    Attributes:
        structures: Makes the values of parameters that are not injected.
    """

    def __init__(self, offers: Mapping[str, Offer], protocol: Protocol) -> None:
        self.protocol = protocol
        self.structures = DEFAULT
        self._offers = offers

    def __call__(self, hint: Any, name: str) -> Supply | None:
        """Return what gives an injected parameter its value; None: its value is in the request."""
        hint = _required(hint)
        for kind, supply in (*self.protocol.supplies.items(), *_SUPPLIES.items()):
            if hint is kind:
                return supply
        if inspect.isclass(hint) and issubclass(hint, Protocol) and isinstance(self.protocol, hint):
            return lambda _request, conversation: conversation.protocol
        if (chosen := self.resource_name(hint, name)) is not None:
            return self._offers[chosen].supply
        if any(_is_derived(hint, offer.kind) for offer in self._offers.values()):
            raise SetupError(
                f"parameter {name}: {self.unprovided(hint, name)} If clients are to give it:"
                f" Annotated[{shown_type(hint)}, linepool.Argument]"
            )
        return None

    def convert_for(self, hint: Any) -> Converter:
        """Return the converter for a parameter that is not injected.

        Raises:
            TypeError: The type has no converter; the text says if only a resource could provide it.
        """
        try:
            hash(hint)
        except TypeError:  # [int] in place of list[int]
            raise TypeError(f"unsupported type {hint!r}") from None
        kind = _required(hint)
        if has_fields(kind) and not is_plain_data(kind) and not self.structures.has_own(kind):
            shown = shown_type(kind)
            raise TypeError(
                f"{self.unprovided(kind, shown.lower())} ({shown} is not plain data: it has methods, private"
                f" fields or fields that it makes itself; if clients are to give it:"
                f" Annotated[{shown}, linepool.Argument])"
            )
        try:
            return self._converter(hint)
        except TypeError as error:
            if not _is_own_class(kind) or has_fields(kind):
                raise
            name = kind.__name__.lower()
            raise TypeError(f"{self.unprovided(kind, name)} (from a client: {error})") from None

    def _converter(self, hint: Any) -> Converter:
        if self.protocol.typed:
            return json_converter(hint, self.structures)
        return word_converter(hint, self.protocol.converters, self.structures)

    def resource_name(self, hint: Any, name: str, but: str = "") -> str | None:
        """Return which resource a parameter is given; None: none.

        It is one that provides the parameter's type, or else a class that is derived from that.

        Args:
            hint: The parameter's annotation.
            name: The parameter's name, which decides between resources of one type.
            but: A resource that is not meant: the one that has the parameter.

        Raises:
            SetupError: Several are of its type, and none has its name.
        """
        hint = _required(hint)
        others = {one: offer.kind for one, offer in self._offers.items() if one != but}
        found = [one for one, kind in others.items() if kind == hint]
        if not found and _is_own_class(hint):
            found = [one for one, kind in others.items() if _is_derived(kind, hint)]
        if len(found) > 1 and name not in found:
            raise SetupError(
                f"parameter {name} matches several resources: {', '.join(found)};"
                " name it after one of them"
            )
        return name if name in found else next(iter(found), None)

    def refuse(self, function: Callable[..., Any], scopes: Mapping[str, str]) -> None:
        """Raise SetupError if a function takes a resource of one of these scopes.

        Args:
            function: A handler or hook.
            scopes: What the message says of a resource of a scope, or of one that takes such a resource.
        """
        for parameter, hint in typing.get_type_hints(function, include_extras=True).items():
            name = None if parameter == "return" else self.resource_name(hint, parameter)
            if name is None:
                continue
            offer = self._offers[name]
            for scope in (offer.scope, *offer.scopes):
                if scope in scopes:
                    of = f"of the scope {offer.scope}"
                    if scope != offer.scope:
                        of += f", which takes one of the scope {scope},"
                    raise SetupError(f"parameter {parameter}: resource {name} {of} {scopes[scope]}")

    def unprovided(self, hint: Any, name: str, but: str = "") -> str:
        """Return what is wrong with a parameter that nothing provides, and what would be right."""
        if hint is inspect.Parameter.empty:
            return f"annotate it with the type of a resource, for example {name}: Database"
        shown = shown_type(_required(hint))
        kinds = {one: offer.kind for one, offer in self._offers.items() if one != but}
        near = [one for one, kind in kinds.items() if _is_derived(hint, kind)]
        near += [name] if name in kinds else []
        by_type = {shown_type(kind): one for one, kind in kinds.items()}
        near += [by_type.get(nearest(shown, by_type), "")]
        if near[0]:
            offer = self._offers[near[0]]
            return (
                f"nothing provides {shown}; resource {near[0]} at {offer.place} provides"
                f" {shown_type(offer.kind)}: did you mean that?"
            )
        return (
            f"nothing provides {shown}; register a resource: @app.resource def {name}() ->"
            f" Iterator[{shown}]"
        )


def shown_type(hint: Any) -> str:
    """Return a type as the source has it, without its module."""
    return str(getattr(hint, "__name__", hint)) if inspect.isclass(hint) else str(hint)


def _is_own_class(hint: Any) -> bool:
    """Whether an annotation is a class of which a resource may provide a derived one."""
    return inspect.isclass(hint) and hint.__module__ != "builtins"


def _is_derived(kind: Any, base: Any) -> bool:
    kind = get_origin(kind) or kind
    return inspect.isclass(kind) and base in kind.__mro__


def _required(hint: Any) -> Any:
    """Return X for X | None, which is injected like X."""
    arms = [arm for arm in get_args(hint) if arm is not type(None)]
    return arms[0] if len(arms) == 1 and type(None) in get_args(hint) else hint


class ResourceOf:
    """Supplies a resource that the dict of the worker's has, or makes.

    Args:
        name: The resource's.
    """

    is_of_request = False

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, _request: Request, conversation: Any) -> object:
        """Return it; one of the scope ``batch`` is made first, if it has to be."""
        resources, name = conversation.resources, self.name
        return resources[name] if name in resources else resources.take(name, conversation)


class RequestResourceOf(ResourceOf):
    """Supplies a resource of the scope ``request``."""

    is_of_request = True

    def __call__(self, _request: Request, conversation: Any) -> object:
        """Return it; it is made first, if it has to be."""
        return conversation.resources.take(self.name, conversation)


class LiveResourceOf:
    """Supplies a resource that is the connection's, or takes one of the connection.

    Args:
        name: The resource's.
        is_of_request: It is of the scope ``request``.
    """

    def __init__(self, name: str, *, is_of_request: bool) -> None:
        self.name = name
        self.is_of_request = is_of_request

    def __call__(self, _request: Request, conversation: Any) -> object:
        """Return it; it is made first, if it has to be. The connection stays in its worker from now on."""
        return conversation.resources.take(self.name, conversation)


def session_of(_request: Request, conversation: Any) -> Session:
    """Supply the connection's session."""
    session: Session = conversation.session
    return session


def verb_of(request: Request, conversation: Any) -> Verb:
    """Supply the name by which the client called the command."""
    verb = Verb(request.verb.decode("utf-8", "replace"))
    return Verb(verb.upper()) if conversation.protocol.ignores_case else verb


def connection_of(_request: Request, conversation: Any) -> Connection:
    """Supply the live connection, which stays in this worker from now on."""
    conversation.pinned = True
    connection: Connection = conversation.connection
    return connection


def login_of(_request: Request, conversation: Any) -> Login:
    """Supply what logs the connection's client in."""
    login: Login = conversation.login
    return login


def waited_of(request: Request, _conversation: Any) -> Waited:
    """Supply what is known of earlier runs of the handler."""
    return request.waited


def _pubsub(_request: Request, conversation: Any) -> PubSub:
    pubsub: PubSub = conversation.connection.pubsub
    return pubsub


_SUPPLIES: Mapping[Any, Supply] = {
    Session: session_of,
    Verb: verb_of,
    Connection: connection_of,
    Login: login_of,
    PubSub: _pubsub,
    Waited: waited_of,
}
"""What every app can inject, by annotation."""


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function, resolved."""
    return typing.get_type_hints(function)


def place_of(function: Callable[..., Any]) -> str:
    """Return ``file:line`` of a function or class, for messages."""
    try:
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None:
            path, line = code.co_filename, code.co_firstlineno
        else:
            path, line = inspect.getfile(function), inspect.findsource(function)[1] + 1
    except (OSError, TypeError, ValueError):  # the last: it wraps itself
        return "an unknown location"
    with contextlib.suppress(OSError):  # the working directory may have been deleted
        path = os.path.relpath(path)
    return f"{path}:{line}"


def described(function: Callable[..., Any]) -> str:
    """Return ``name at file:line`` of a function, for messages."""
    return f"{getattr(function, '__name__', function)} at {place_of(function)}"
