"""A memcached server on a store of your own: ``linepool.cache.server(store)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from linepool.app import App
from linepool.cache import classic, meta
from linepool.cache.store import Change, Item, OutOfMemory, Store
from linepool.protocols.memcache import Memcache

__all__ = ["Change", "Item", "OutOfMemory", "Store", "server"]


def server(
    open_store: Callable[[], Iterator[Store]],
    name: str = "memcached",
    *,
    protocol: Memcache | None = None,
    **settings: Any,
) -> App:
    """Return an app that serves every command of memcached's text protocol from a store.

    More handlers, hooks and middleware can be added to it; a handler that annotates a parameter
    with ``Store`` is handed the worker's store.

    Args:
        open_store: A generator function that yields the store; called in each worker, after the
            fork, and ended with the worker, as a resource.
        name: The app's name.
        protocol: Options of the protocol.
        settings: Any setting by name.
    """
    app = App(name, protocol=protocol or Memcache(), **settings)

    @app.resource
    def store() -> Iterator[Store]:
        yield from open_store()

    handlers: dict[tuple[str, ...], Callable[..., Any]] = {**classic.HANDLERS, **meta.HANDLERS}
    for names, function in handlers.items():
        app.handler(*names)(function)
    return app
