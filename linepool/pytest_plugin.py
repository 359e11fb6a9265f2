"""The pytest plugin: fixtures that ask apps and start servers, available once linepool is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, AnyStr, Protocol

import pytest

if TYPE_CHECKING:
    from linepool.app import App
    from linepool.client import Client
    from linepool.testing import Server


class Ask(Protocol):
    """Asks an app, as ``App.ask`` does; an exception that is not a reply is raised unless told otherwise."""

    def __call__(self, data: AnyStr, *, raise_errors: bool = True) -> AnyStr:
        """Return all that a client would read that sends this and ends its stream."""


@pytest.fixture
def linepool_ask() -> Iterator[Callable[..., Ask]]:
    """Ask apps some of whose resources are replaced until the end of the test, as by ``App.override``.

    ::

        def test_get(linepool_ask):
            ask = linepool_ask(app, {database: FakeDatabase()})
            assert ask("GET a") == "1"
    """
    with contextlib.ExitStack() as stack:

        def prepared(app: App, overrides: Mapping[Any, Any] | None = None) -> Ask:
            for resource, fake in (overrides or {}).items():
                stack.enter_context(app.override(resource, fake))

            def ask(data: AnyStr, *, raise_errors: bool = True) -> AnyStr:
                return app.ask(data, raise_errors=raise_errors)

            return ask

        yield prepared


@pytest.fixture
def linepool_client() -> Iterator[Callable[[App], Client]]:
    """Give clients as of ``linepool.testing.client``, which call an app in the test's process; close them."""
    from linepool.testing import client  # noqa: PLC0415 - the plugin is loaded by every pytest run

    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(client(app))


@pytest.fixture
def linepool_server() -> Iterator[Callable[..., Server]]:
    """Start servers as ``serve`` does; stop them all after the test."""
    with _servers() as start:
        yield start


@pytest.fixture(scope="session")
def linepool_shared_server() -> Iterator[Callable[..., Server]]:
    """Give the server of some apps with some settings, the same for all tests; stop it after the last one.

    It is started, as by ``serve``, when a test first asks for it with these apps and settings, or
    when it was stopped. What the app is given later, it does not serve.
    """
    started: dict[object, Server] = {}
    with _servers() as start:

        def shared(*apps: App, **settings: Any) -> Server:
            key = apps, repr(sorted(settings.items()))
            server = started.get(key)
            if server is None or server.is_stopped:
                server = started[key] = start(*apps, **settings)
            return server

        yield shared


@contextlib.contextmanager
def _servers() -> Iterator[Callable[..., Server]]:
    from linepool.testing import serve  # noqa: PLC0415 - the plugin is loaded by every pytest run

    with contextlib.ExitStack() as stack:

        def start(*apps: App, **settings: Any) -> Server:
            return stack.enter_context(serve(*apps, **settings))

        yield start
