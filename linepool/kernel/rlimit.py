"""The limit of open files: raised at the start as far as permitted, and shared out. Used by the master.

Each process has the same limit (getrlimit(2), RLIMIT_NOFILE), and its own use of it: the master for its
ends of the workers, a worker for the connections that it holds and for what the app opens, the parker
for all connections.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource

from attrs import evolve

from linepool.errors import SetupError
from linepool.settings import MAX_WORKERS, Settings, Workers

log = logging.getLogger("linepool")

_USUAL = 33  # of any process: standard streams, epoll, channels, control clients, a listener
_OWN = 26  # of these, those that a server opens after it has loaded the app
_PER_WORKER = 6  # of the master: process, pipe, channel, bell and stack; one more for a fork
_FOR_APP = 512  # in a worker, if the limit can be raised: what handlers and resources open
_SPARE_REGIONS = 8  # of the bus
_PER_REGION = 2  # in the master and in each worker; so many for the bridge too


def bounded_by_files(settings: Settings, *, publishes: bool, opened: int) -> Settings:
    """Raise the limit to what the settings need, and return what of them it allows; warn if that is less.

    The parker inherits the limit, and loaders are told of it.

    Args:
        settings: All of them.
        publishes: There is a bus between the workers.
        opened: How many descriptors a process has that has loaded the app.

    Raises:
        SetupError: The limit is too low for one worker and one connection.
    """
    needed = descriptors_needed(settings, publishes=publishes, opened=opened)
    limit = _raise_limit(needed + _FOR_APP)
    allowed = share_out(settings, limit, publishes=publishes, opened=opened)
    if allowed != settings:
        log.warning(
            "the limit of open files is low limit=%d needed=%d workers=%s max_connections=%d"
            " hot_connections=%d: raise it to what is needed (ulimit -n, LimitNOFILE=)",
            limit,
            needed,
            allowed.workers,
            allowed.max_connections,
            allowed.hot_connections,
        )
    return allowed


def open_files() -> int:
    """Return how many descriptors this process has; all but the usual ones are of the app, or inherited."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # one is of the listing
    except OSError:
        return 0


def open_files_limit() -> int:
    """Return how many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def bus_regions(workers: int) -> int:
    """Return how many slots of a pool may be in use at once, with some that are added later.

    A worker is replaced before it has left, so there may be twice as many as workers.
    """
    return min(MAX_WORKERS, 2 * workers + _SPARE_REGIONS)


def _bus_files(settings: Settings, workers: int) -> int:
    return _PER_REGION * (bus_regions(workers) + bool(settings.bridge))


def descriptors_needed(settings: Settings, *, publishes: bool, opened: int = 0) -> int:
    """Return how many descriptors the process needs that needs most.

    Args:
        settings: All of them.
        publishes: There is a bus between the workers.
        opened: How many are open already; all processes inherit them.
    """
    workers = settings.workers.max
    bus = _bus_files(settings, workers) if publishes else 0
    master = _PER_WORKER * workers + bus
    worker = bus + (settings.hot_connections if settings.has_parker else 1)
    parker = settings.max_connections + 2 * workers if settings.has_parker else 0
    return _usual(settings, opened) + max(master, worker, parker)


def limit_wanted(settings: Settings) -> int:
    """Return the limit that settings need, with what an app may open, before the app is known."""
    return descriptors_needed(settings, publishes=True) + _FOR_APP


def share_out(settings: Settings, limit: int, *, publishes: bool, opened: int = 0) -> Settings:
    """Return settings with at most as many workers and connections as a limit allows.

    For the arguments, see ``descriptors_needed``.

    Raises:
        SetupError: It is too low for one worker and one connection.
    """
    left = limit - _usual(settings, opened)
    if publishes:
        for_workers = (left - _PER_REGION * _SPARE_REGIONS) // (_PER_WORKER + 2 * _PER_REGION)
    else:
        for_workers = left // _PER_WORKER
    workers = min(settings.workers.max, for_workers)
    # Half of what a worker has left is for the app. For each worker the parker has a channel and a
    # connection that the worker has yet to begin to serve.
    bus = _bus_files(settings, workers) if publishes else 0
    hot = min(settings.hot_connections, (left - bus) // 2)
    connections = min(settings.max_connections, left - 2 * workers)
    if min(workers, hot, connections) < 1:
        needed = descriptors_needed(settings, publishes=publishes, opened=opened)
        raise SetupError(
            f"the limit of open files is {limit}, which is too low for a worker and a connection:"
            f" raise it to {needed} (ulimit -n)"
        )
    allowed = evolve(settings, workers=Workers(min(settings.workers.min, workers), workers))
    if settings.has_parker:
        allowed = evolve(allowed, hot_connections=hot, max_connections=connections)
    return allowed


def _usual(settings: Settings, opened: int) -> int:
    return max(_USUAL, opened + _OWN) + len(settings.bind)


def _raise_limit(wanted: int) -> int:
    """Raise the limit, as far as permitted, to at least this; return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
        # macOS has another limit that it does not tell.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
