"""Injection: which values handlers receive by type annotation."""

from __future__ import annotations

import contextlib
import inspect
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_origin

from linepool.errors import SetupError
from linepool.handlers.from_json import json_converter
from linepool.handlers.from_words import word_converter
from linepool.handlers.signature import Supply
from linepool.protocols.base import Protocol, Request
from linepool.pubsub.messages import PubSub
from linepool.session import Connection, Session, Verb


class Injector:
    """Maps a parameter's annotation to the function that returns the value to inject.

    Attributes:
        convert_for: From an annotation to its converter, for parameters that are not injected.
    """

    def __init__(
        self, resources: Mapping[str, Callable[..., Iterator[Any]]], protocol: Protocol
    ) -> None:
        self.protocol = protocol
        own = protocol.converters
        self.convert_for = (
            json_converter if protocol.typed else lambda hint: word_converter(hint, own)
        )
        self._types = {name: _provided_type(name, f) for name, f in resources.items()}

    def __call__(self, hint: Any, name: str) -> Supply | None:
        """Return what gives an injected parameter its value; None: its value is in the request."""
        hint = _required(hint)
        for kind, supply in self.protocol.supplies.items():
            if hint is kind:
                return supply
        if inspect.isclass(hint) and issubclass(hint, Protocol) and isinstance(self.protocol, hint):
            return lambda _request, conversation: conversation.protocol
        if hint is Session:
            return session_of
        if hint is Verb:
            return verb_of
        if hint is Connection:
            return _connection
        if hint is PubSub:
            return lambda _request, conversation: conversation.connection.pubsub
        if (chosen := self.resource_name(hint, name)) is None:
            return None
        return ResourceOf(chosen)

    def resource_name(self, hint: Any, name: str) -> str | None:
        """Return which resource a parameter is given; None: none.

        Raises:
            SetupError: Several are of its type, and none has its name.
        """
        hint = _required(hint)
        offers = [resource for resource, kind in self._types.items() if kind == hint]
        if len(offers) > 1 and name not in offers:
            raise SetupError(
                f"parameter {name} matches several resources: {', '.join(offers)};"
                " name it after one of them"
            )
        return name if name in offers else next(iter(offers), None)


def _required(hint: Any) -> Any:
    """Return X for X | None, which is injected like X."""
    arms = [arm for arm in get_args(hint) if arm is not type(None)]
    return arms[0] if len(arms) == 1 and type(None) in get_args(hint) else hint


class ResourceOf:
    """Supplies a resource.

    Args:
        name: The resource's.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, _request: Request, conversation: Any) -> object:
        """Return it; one of the scope ``batch`` is made first, if it has to be."""
        return conversation.resources[self.name]


def session_of(_request: Request, conversation: Any) -> Session:
    """Supply the connection's session."""
    session: Session = conversation.session
    return session


def verb_of(request: Request, conversation: Any) -> Verb:
    """Supply the name by which the client called the command."""
    verb = Verb(request.verb.decode("utf-8", "replace"))
    return Verb(verb.upper()) if conversation.protocol.ignores_case else verb


def _connection(_request: Request, conversation: Any) -> Connection:
    conversation.pinned = True
    connection: Connection = conversation.connection
    return connection


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function, resolved."""
    return typing.get_type_hints(function)


def _provided_type(name: str, function: Callable[..., Any]) -> Any:
    """Return T for a resource that is annotated ``-> Iterator[T]``."""
    try:
        hint = hints(function).get("return")
    except NameError as error:
        raise SetupError(f"resource {name}: annotation: {error}") from None
    provided = get_args(hint)[:1]
    if get_origin(hint) is None or not provided:
        raise SetupError(
            f"resource {name} at {place_of(function)} must be annotated with what it yields,"
            " for example '-> Iterator[sqlite3.Connection]'"
        )
    return provided[0]


def place_of(function: Callable[..., Any]) -> str:
    """Return ``file:line`` of a function, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return "an unknown location"
    path = code.co_filename
    with contextlib.suppress(OSError):  # the working directory may have been deleted
        path = os.path.relpath(path)
    return f"{path}:{code.co_firstlineno}"


def described(function: Callable[..., Any]) -> str:
    """Return ``name at file:line`` of a function, for messages."""
    return f"{getattr(function, '__name__', function)} at {place_of(function)}"
