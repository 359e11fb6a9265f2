"""The contexts of a worker's listeners: app and settings of their connections. Runs in workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from linepool.kernel.listeners import Listener
from linepool.protocols.base import Limits
from linepool.resources import Resources
from linepool.service import Service
from linepool.settings import Settings
from linepool.worker.brakes import Brakes
from linepool.worker.context import WorkerContext

if TYPE_CHECKING:
    import ssl


def services_at(
    listeners: Sequence[Listener], settings: Settings, services: Mapping[str, Service]
) -> dict[str, Service]:
    """Return the apps of the listeners that have a table of their own, by the listeners' names.

    A listener is not among them if its app is gone. If no listener has a table, there are none.

    Args:
        listeners: All of them.
        settings: Those of the server.
        services: The apps, by name; a table without one means the first.
    """
    first = next(iter(services))
    found = {}
    for listener in listeners:
        table = settings.table_of(listener.key)
        if table is not None and (table.app or first) in services:
            own = settings.of_listener(listener.key)
            limits = Limits(own.max_line_bytes, own.max_body_bytes)
            found[listener.name] = evolve(services[table.app or first], limits=limits)
    return found


def with_listeners(
    context: WorkerContext,
    listeners: Sequence[Listener],
    services: Mapping[str, Service],
    resources: Mapping[str, Resources],
    tls: Mapping[str, ssl.SSLContext],
) -> WorkerContext:
    """Return the context of a worker, with those of the listeners that have a table of their own.

    Listeners with the same app and the same settings share one.

    Args:
        context: The worker's.
        listeners: All of them.
        services: The apps, by name.
        resources: Theirs, by the app's name.
        tls: With which handshakes begin, by the listener's key.
    """
    own = services_at(listeners, context.settings, services)
    if not own:
        return context
    entries = [entry for service in services.values() for entry in service.entries]
    brakes = Brakes(entries, context.board, context.settings.poison_pause)
    context = evolve(context, brakes=brakes)
    found = dict[str, WorkerContext]()
    for listener in listeners:
        if listener.name not in own:
            continue
        service = own[listener.name]
        settings = evolve(context.settings.of_listener(listener.key), bind=())
        if settings.tls_cert and listener.key not in tls:
            continue  # the listener leaves, and its certificate is not among those that were loaded
        alike = (one for one in found.values() if one.settings == settings)
        found[listener.name] = next(
            (one for one in alike if one.service.name == service.name), None
        ) or evolve(
            context,
            service=service,
            settings=settings,
            tls=tls.get(listener.key),
            resources=resources[service.name],
        )
    return evolve(context, by_listener=found)
