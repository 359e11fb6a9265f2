"""The apps that one server serves: each on its own listeners, all of them by the same workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from linepool.app import App
from linepool.app_table import AppTableError
from linepool.errors import SetupError
from linepool.protocols.base import Limits
from linepool.resources import Resources
from linepool.service import Service
from linepool.settings import Settings


class Apps:
    """One app or several, in the order in which they were given.

    Args:
        apps: Each has a name.
        addresses: Those that the command line gives an app, by its name.

    Raises:
        SetupError: An app is given twice, or two have one name.
    """

    def __init__(
        self, apps: Sequence[App], addresses: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.all = tuple(apps)
        self.addresses = dict(addresses or {})
        if len({id(app) for app in self.all}) < len(self.all):
            raise SetupError(
                "the same app is given twice; give it several addresses instead:"
                " TARGET@ADDRESS TARGET@ADDRESS, or App(bind=[...])"
            )
        names = [app.name for app in self.all]
        for name in names:
            if names.count(name) > 1:
                raise SetupError(f"two apps have the name {name!r}; give each its own: App('NAME')")

    def __iter__(self) -> Iterator[App]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def first(self) -> App:
        """The first app."""
        return self.all[0]

    @property
    def name(self) -> str:
        """Of the first app, for processes, status and logs; the others' follow it."""
        return "+".join(app.name for app in self.all)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """All functions that were registered."""
        return [function for app in self.all for function in app.functions]

    def configure(self, table: Mapping[str, Any] | None, source: str) -> None:
        """Give the app with settings of its own the table ``[app]``; several have ``[app.NAME]`` each.

        Raises:
            SetupError: A key is unknown or missing, or a value is wrong; the text names it.
        """
        takers = [app for app in self.all if app.takes_table]
        if len(takers) < 2:
            (takers or self.all)[0].configure(table, source)
            return
        names = [app.name for app in takers]
        for name, value in (table or {}).items():
            if name not in names or not isinstance(value, Mapping):
                raise AppTableError(
                    f"{source}: {name!r} does not say whose setting it is; several apps have settings of"
                    f" their own: write {', '.join(f'[app.{one}]' for one in names)}"
                )
        for app in takers:
            own = None if table is None else table.get(app.name)
            app.configure(own, f"{source.removesuffix(']')}.{app.name}]")

    def freeze(self, settings: Settings) -> dict[str, Service]:
        """Return the apps made ready to serve, by name; a command's number is its own in all of them.

        Raises:
            SetupError: A handler, hook or resource cannot be served; the text names it.
        """
        limits = Limits(settings.max_line_bytes, settings.max_body_bytes)
        services, before = dict[str, Service](), 0
        for app in self.all:
            service = evolve(app.freeze(limits), log_lines=settings.log_requests == "line")
            for entry in service.entries:
                entry.number += before
                entry.app = app.name if len(self.all) > 1 else ""
            before += len(service.entries)
            services[app.name] = service
        return services

    def start(self) -> None:
        """Run the ``on_start`` hooks, once."""
        for app in self.all:
            app.start()

    @contextlib.contextmanager
    def worker(self) -> Iterator[dict[str, Resources]]:
        """Open what a worker has: the resources of each app, by the app's name."""
        with contextlib.ExitStack() as opened:
            yield {app.name: opened.enter_context(app.worker()) for app in self.all}

    @property
    def observed(self) -> Mapping[str, tuple[str, ...]]:
        """As of an app: the functions of all, those of the first app first."""
        found: dict[str, tuple[str, ...]] = {}
        for app in self.all:
            for name, places in app.observed.items():
                found[name] = found.get(name, ()) + places
        return found

    def call_observing(self, name: str, number: int, event: Any) -> None:
        """As of an app; ``number`` counts the functions of all.

        Raises:
            LookupError: No function of that name is registered.
        """
        for app in self.all:
            own = len(app.observed.get(name, ()))
            if number < own:
                app.call_observing(name, number, event)
                return
            number -= own
        raise LookupError(name)


def as_apps(app: App | Apps) -> Apps:
    """Return one app as those of a server."""
    return app if isinstance(app, Apps) else Apps([app])
