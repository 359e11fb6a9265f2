"""The commands of memcached that concern the server: stats, flush_all, cache_memlimit, lru_crawler and so on.

There are no slabs and no LRU lists here: all items are of class 1. What tunes those is checked as memcached
checks it, answered with OK, and changes nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from linepool.cache import dumps
from linepool.cache.classic import expiry
from linepool.cache.store import Store
from linepool.protocols.memcache import Memcache
from linepool.session import Reply, Session

_ERROR = "ERROR"
_FORMAT = "CLIENT_ERROR bad command line format"
_CRAWLER_OFF = "CLIENT_ERROR lru crawler disabled"
_MIB = 1024 * 1024
_LEAST_MEMORY, _MOST_MEMORY = 8, 1_000_000_000  # MiB
_CLASSES = 64  # of slabs, in memcached
_MOST_HOT_AND_WARM = 80  # percent
_MOST_AUTOMOVE, _AUTOMOVE_WINDOW = 2, range(3, 1801)
_MOST_SLEEP_US = 1_000_000
_UNSIGNED = re.compile(rb"[0-9]{1,10}\Z")
_DECIMAL = re.compile(rb"-?[0-9]{1,20}(\.[0-9]{0,20})?\Z")


def flush_all(store: Store, delay: int = 0) -> None:
    """Drop every item, now or after ``delay`` seconds."""
    now = time.time()
    store.count("cmd_flush")
    store.flush(expiry(delay, now) if delay > 0 else int(now))


def stats(
    store: Store, session: Session, protocol: Memcache, what: bytes = b"", *more: bytes
) -> dict[str, object] | str | Reply:
    """Return the server's counters, settings or items; ``reset`` sets the counters to 0."""
    if what == b"reset":
        store.reset_statistics()
        return "RESET"
    if what == b"detail":
        return _detail(store, *more)
    if what == b"cachedump":
        return _cachedump(store, *more)
    if what in (b"sizes", b"sizes_enable", b"sizes_disable"):
        return _sizes(store, what)
    found = store.statistics(what)
    if found is None:
        return _ERROR
    if what == b"settings":
        size_max = protocol.limits.max_body_bytes
        return {**found, **_listener(session), "item_size_max": size_max}
    return dict(found) if what else {**found, "version": protocol.version}


def _listener(session: Session) -> dict[str, object]:
    """Return the address of the listener in memcached's words."""
    host, _, port = session.listener.rpartition(":")
    if not port.isdigit():
        return {"tcpport": 0, "domain_socket": session.listener.removeprefix("unix:")}
    return {"tcpport": int(port), "inter": host.strip("[]")}


def _detail(store: Store, what: bytes = b"", *_more: bytes) -> str | Reply:
    """Switch the counts by prefix of the key on or off, or return them."""
    if what in (b"on", b"off"):
        store.settings["detail_enabled"] = int(what == b"on")
        return "OK"
    if what != b"dump":
        return "CLIENT_ERROR usage: stats detail on|off|dump"
    lines = [
        b"PREFIX %b get %d hit %d set %d del %d\r\n" % (prefix, *counts)
        for prefix, counts in sorted(store.prefixes().items())
    ]
    return Reply(raw=b"".join([*lines, b"END\r\n"]))


def _cachedump(store: Store, *words: bytes) -> str | Reply:
    """Return the items of a slab class: all items are in class 1."""
    if len(words) < 2:
        return "CLIENT_ERROR bad command line"
    if not (_UNSIGNED.match(words[0]) and _UNSIGNED.match(words[1])):
        return _FORMAT
    if int(words[0]) >= _CLASSES:
        return "CLIENT_ERROR Illegal slab id"
    if int(words[0]) != 1:
        return Reply(raw=b"END\r\n")
    return Reply(raw=dumps.cachedump(store, int(words[1])))


def _sizes(store: Store, what: bytes) -> dict[str, object]:
    """Return the histogram of sizes, or switch it on or off."""
    if what != b"sizes":
        store.settings["track_sizes"] = int(what == b"sizes_enable")
        return {"sizes_status": "enabled" if what == b"sizes_enable" else "disabled"}
    if not store.settings["track_sizes"]:
        return {"sizes_status": "disabled"}
    return dumps.sizes(store)


def verbosity(store: Store, level: int) -> None:
    """Set the level that ``stats settings`` shows; the server's settings control what is logged."""
    store.settings["verbosity"] = min(level, 3)


def cache_memlimit(store: Store, size: bytes = b"", *_more: bytes) -> str:
    """Change the maximum size of all items, in MiB."""
    if not _UNSIGNED.match(size) or int(size) >= 2**32:
        return _ERROR
    if int(size) < _LEAST_MEMORY:
        return "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m"
    if int(size) > _MOST_MEMORY:
        return "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes"
    if not store.limit_memory(int(size) * _MIB):
        return "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust"
    return "OK"


def shutdown(*_how: bytes) -> str:
    """Refuse to stop the server: its control socket does that."""
    return "SERVER_ERROR: shutdown not enabled"


def watch(*_what: bytes) -> str:
    """Refuse to send events."""
    return "CLIENT_ERROR watch commands not allowed"


def lru(what: bytes = b"", *words: bytes) -> str:
    """Check what would tune the LRU lists."""
    if what == b"tune" and len(words) >= 4:
        numbers = [_UNSIGNED.match(word) for word in words[:2]]
        factors = [_DECIMAL.match(word) for word in words[2:4]]
        if not all(numbers) or not all(factors):
            return _ERROR
        if int(words[0]) + int(words[1]) > _MOST_HOT_AND_WARM:
            return "ERROR hot and warm pcts must not exceed 80"
        if float(words[2]) <= 0 or float(words[3]) <= 0:
            return "ERROR hot/warm age factors must be greater than 0"
        return "OK"
    if what == b"mode" and words:
        return "OK" if words[0] in (b"flat", b"segmented") else _ERROR
    if what == b"temp_ttl" and words:
        return "OK" if _UNSIGNED.match(words[0].removeprefix(b"-")) else _ERROR
    return _ERROR


def slabs(what: bytes = b"", *words: bytes) -> str:
    """Check what would move memory between the classes of slabs."""
    if what == b"automove" and words:
        return _automove(*words)
    if what != b"reassign" or len(words) != 2:
        return _ERROR
    if not all(_UNSIGNED.match(word.removeprefix(b"-")) for word in words):
        return _FORMAT
    source, target = map(int, words)
    if source == target:
        return "SAME src and dst class are identical"
    if not (-1 <= source < _CLASSES and 0 <= target < _CLASSES):
        return "BADCLASS invalid src or dst class id"
    return "NOSPARE source class has no spare pages"


def _automove(what: bytes, number: bytes = b"", *_more: bytes) -> str:
    if what in (b"ratio", b"freeratio"):
        return "OK" if _DECIMAL.match(number) else _ERROR
    if what == b"window":
        if not _UNSIGNED.match(number):
            return _FORMAT
        in_range = int(number) in _AUTOMOVE_WINDOW
        return "OK" if in_range else "CLIENT_ERROR automove window too low or too high"
    if not _UNSIGNED.match(what):
        return _FORMAT
    return "OK" if int(what) <= _MOST_AUTOMOVE else _ERROR


def lru_crawler(
    store: Store, what: bytes = b"", argument: bytes = b"", *more: bytes
) -> str | Iterator[bytes]:
    """List all items (metadump, mgdump), or answer what would tune the crawler."""
    if what in (b"enable", b"disable") and not argument:
        return _crawl_or_not(store, what == b"enable")
    if not argument or more:
        return _ERROR
    if what in (b"sleep", b"tocrawl"):
        if not _UNSIGNED.match(argument):
            return _FORMAT
        is_long = what == b"sleep" and int(argument) > _MOST_SLEEP_US
        return "CLIENT_ERROR sleep must be one second or less" if is_long else "OK"
    if what not in (b"crawl", b"metadump", b"mgdump"):
        return _ERROR
    if not store.settings["lru_crawler"] or store.scan(b"", 1) is None:
        return _CRAWLER_OFF
    return _crawl(store, what, argument)


def _crawl(store: Store, what: bytes, argument: bytes) -> str | Iterator[bytes]:
    """Return a list of the items in some classes: all items are in class 1."""
    everything = argument in (b"all", b"hash")
    classes = [] if everything else argument.split(b",")
    if not all(_UNSIGNED.match(one) and 0 < int(one) < _CLASSES for one in classes):
        return "BADCLASS invalid class id"
    if what == b"crawl":
        return "OK"
    if not everything and b"1" not in classes:
        return iter([b"OK\r\n", b"EN\r\n" if what == b"mgdump" else b"END\r\n"])
    return dumps.metadump(store) if what == b"metadump" else dumps.mgdump(store)


def _crawl_or_not(store: Store, enable: bool) -> str:
    if enable and store.settings["lru_crawler"]:
        return "ERROR failed to start lru crawler thread"
    store.settings["lru_crawler"] = int(enable)
    return "OK"


HANDLERS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("flush_all",): flush_all,
    ("stats",): stats,
    ("verbosity",): verbosity,
    ("cache_memlimit",): cache_memlimit,
    ("shutdown",): shutdown,
    ("watch",): watch,
    ("lru",): lru,
    ("slabs",): slabs,
    ("lru_crawler",): lru_crawler,
}
