"""A memcached server on a store of your own: ``linepool.memcache.server(store)``."""

from linepool.memcache.store import Change, Item, OutOfMemory, Store

__all__ = ["Change", "Item", "OutOfMemory", "Store"]
