"""The resources of an app, and its own settings, as a user registers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar, overload

from linepool.app_table import AppTable, AppTableError
from linepool.errors import SetupError
from linepool.resources import WORKER, ResourceFunctions

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=type)

CHECK_AFTER = 10.0
"""Seconds from one check of a resource to the next."""


class AppResources:
    """Registers the resources of an app; a base of ``App``."""

    def __init__(self) -> None:
        super().__init__()
        self._resources = ResourceFunctions()
        self._table: AppTable | None = None

    @overload
    def resource(self, function: F, /) -> F: ...

    @overload
    def resource(
        self,
        *,
        scope: str = WORKER,
        check: Callable[[Any], object] | None = None,
        check_after: float = CHECK_AFTER,
    ) -> Callable[[F], F]: ...

    def resource(
        self,
        function: Any = None,
        *,
        scope: str = WORKER,
        check: Callable[[Any], object] | None = None,
        check_after: float = CHECK_AFTER,
    ) -> Any:
        """Make a resource for handlers, hooks and middleware that annotate a parameter with its type.

        The function is a generator that yields the resource once, annotated with its type
        (``-> Iterator[sqlite3.Connection]``), with or without ``contextlib.contextmanager``; or a class
        that is a context manager; or, if there is nothing to close, any function or class that returns
        the resource. Its parameters are other resources, by annotation. If several resources have one
        type, the parameter's name decides.

        Args:
            function: It makes the resource, and ends it behind its ``yield``.
            scope: ``worker``: opened once in each worker, after the fork, and closed when the worker
                exits. ``connection``: opened when the first handler or hook of a connection asks for it,
                and closed when the connection ends, which stays in its worker until then. ``batch``:
                made when the first of the requests that are answered together asks for it, and ended
                before any of their replies is sent. ``request``: around one request, a stream to its
                end. It may take resources of its own scope and of those that last longer; those of a
                connection or a request also the ``Session``.
            check: Given the resource, returns whether it is well; a false value but None, or an exception:
                it is broken. Then it is closed, and opened anew with those that take it, before its
                next use. For the scopes ``worker`` and ``connection``.
            check_after: Seconds from one check to the next; 0: it is checked only when a request has ended
                in SERVER_ERROR.

        Raises:
            SetupError: The scope is unknown, the function cannot make a resource, or its name is taken.
        """
        if function is None:
            return lambda function: self._resources.add(function, scope, check, check_after)
        return self._resources.add(function, scope)

    def override(self, what: Any, fake: Any) -> AbstractContextManager[None]:
        """Have handlers and hooks be given something else as a resource, until the block ends; for tests.

        ::

            with app.override(database, FakeDatabase()):
                assert app.ask(b"GET a") == ...

        It holds for ``ask``, and for servers that are started within the block.

        Args:
            what: The function or class of the resource, or the type that it provides.
            fake: What is given in its place. A generator function makes that, as one for ``resource``
                does; it need not be annotated with what it yields. Nothing checks it.

        Raises:
            SetupError: The app has no such resource, or several of the type.
        """
        return self._resources.replaced(what, fake)

    def config(self, kind: T) -> T:
        """Fill a class from the table ``[app]`` of the configuration; see docs/settings.md.

        Handlers, hooks and resources that annotate a parameter with the class get its one object. For
        ``ask`` and tests that is one of its defaults, unless ``configure`` gives others.

        Raises:
            SetupError: The class is not made with attrs or dataclasses, or the app has such a class already.
        """
        table = AppTable(kind)
        if self._table is not None and self._table.name != table.name:
            raise SetupError(f"config is given twice: {self._table.name} and {table.name}")
        self._table = table
        self._resources.add(table.resource(), WORKER)
        return kind

    def _include_resources(self, other: AppResources) -> None:
        """Have the resources of another app too.

        Raises:
            SetupError: One of that name is another function.
        """
        if other._table is not None and self._table not in (None, other._table):
            raise SetupError("include: both apps have a class for their own settings (config)")
        self._table = other._table or self._table
        self._resources.include(other._resources)

    @property
    def takes_table(self) -> bool:
        """Whether the app has settings of its own."""
        return self._table is not None

    def configure(self, table: Mapping[str, Any] | None, source: str = "[app]") -> None:
        """Give the app its own settings, as the table ``[app]`` of a file would.

        Args:
            table: Values by key; None: it keeps those that it has, or takes the defaults.
            source: Where they are from, for messages.

        Raises:
            SetupError: A key is unknown or missing, or a value is wrong; the text names it.
        """
        if self._table is not None:
            if table is not None or not self._table.is_filled:
                self._table.fill(table or {}, source)
        elif table:
            raise AppTableError(
                f"{source}: the app takes no settings of its own; give it a class for them with"
                " @linepool.config"
            )
