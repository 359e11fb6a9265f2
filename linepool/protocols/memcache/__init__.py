"""The memcached protocol, and the values that its handlers take and return."""

from linepool.protocols.memcache.meta import Flags, Meta
from linepool.protocols.memcache.protocol import Memcache
from linepool.protocols.memcache.replies import Value

__all__ = ["Flags", "Memcache", "Meta", "Value"]
