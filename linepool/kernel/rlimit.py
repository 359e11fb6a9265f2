"""The limit of open files: raised at the start, as far as it may be. Used by the master alone."""

from __future__ import annotations

import logging
import resource

from attrs import evolve

from linepool.settings import Settings

log = logging.getLogger("linepool")

_OTHER_FILES = 512  # descriptors for all else than connections and the bus


def raise_file_limit(wanted: int) -> int:
    """Have the limit allow so many descriptors beside the usual ones; return how many it allows.

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
    """Return settings with no more connections than there may be descriptors; say so if they are fewer.

    The parker may hold all of them, and for each worker a channel and a connection that the worker
    has yet to begin with.
    """
    if not settings.parks:
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
