"""A memcached server from a store that you write: ``linepool.cache.server(store)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from linepool.app import App
from linepool.cache import admin, classic, meta
from linepool.cache.store import Change, Item, OutOfMemory, Store
from linepool.protocols.memcache import Memcache

__all__ = ["Change", "Item", "OutOfMemory", "Store", "server"]


def server(
    open_store: Callable[[], Iterator[Store]],
    name: str = "memcached",
    *,
    batch: Callable[..., Iterator[Store]] | None = None,
    protocol: Memcache | None = None,
    **settings: Any,
) -> App:
    """Return an app that serves every command of memcached's text protocol from a store.

    Handlers, hooks and middleware can be added to it; a parameter annotated with ``Store`` gets
    the worker's store.

    Args:
        open_store: A generator function that yields the store; each worker calls it after the fork
            and closes the generator when it exits, as for any resource.
        name: The app's name.
        batch: A resource of the scope ``batch``, ``def batch(store: Store) -> Iterator[Store]``: the store
            as it is given to the commands that always write, so that those that are answered together
            can share a transaction. The others read from the store itself meanwhile.
        protocol: The protocol with its options; the default is ``Memcache()``.
        settings: Any setting by name.
    """
    app = App(name, protocol=protocol or Memcache(), **settings)

    @app.resource
    def store() -> Iterator[Store]:
        yield from open_store()

    if batch is not None:
        app.resource(scope="batch")(batch)
    handlers: dict[tuple[str, ...], Callable[..., Any]] = {
        **classic.HANDLERS,
        **meta.HANDLERS,
        **admin.HANDLERS,
    }
    for names, function in handlers.items():
        app.handler(*names)(function)
    return app
