"""The limit of open files: raised at the start, as far as permitted. Used by the master."""

from __future__ import annotations

import logging
import resource

from attrs import evolve

from linepool.settings import Settings

log = logging.getLogger("linepool")

_OTHER_FILES = 512  # descriptors for everything except connections and the bus


def raise_file_limit(wanted: int) -> int:
    """Raise the limit to allow this many descriptors beside the usual ones; return how many it allows.

    Workers and the parker inherit it (getrlimit(2), RLIMIT_NOFILE).
    """
    wanted += _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted - _OTHER_FILES
    return max(0, min(wanted, soft) - _OTHER_FILES)


def bounded_by_files(settings: Settings) -> Settings:
    """Return settings with at most as many connections as descriptors; warn if that is fewer.

    The parker may hold all of them, and for each worker a channel and a connection that the worker
    has yet to begin to serve.
    """
    if not settings.has_parker:
        return settings
    more = 2 * settings.workers.max
    allowed = max(1, raise_file_limit(settings.max_connections + more) - more)
    if allowed >= settings.max_connections:
        return settings
    log.warning(
        "max_connections is %d, but the limit of open files allows %d: raise it (ulimit -n)",
        settings.max_connections,
        allowed,
    )
    return evolve(settings, max_connections=allowed)
