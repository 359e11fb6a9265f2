"""What a reload may change, and what not. Runs in the master."""

from __future__ import annotations

import logging

from attrs import evolve

from linepool.errors import SetupError
from linepool.facts import AppFacts
from linepool.kernel.binding import open_listeners
from linepool.kernel.listeners import Listener
from linepool.kernel.rlimit import bounded_by_files
from linepool.master.generation import Generation
from linepool.settings import Settings, written
from linepool.settings.listeners import ListenerTable

log = logging.getLogger("linepool")

FIXED = (
    *(
        "scheme",
        "hot_connections",
        "control",
        "incidents",
        "record",
        "http",
        "http_hosts",
        "agent",
        "bridge",
        "unix_mode",
        "reuseport",
        "reload",
    ),
    *("log_file", "log_config"),
    *("user", "group", "no_new_privileges", "umask", "chdir", "pid_file", "max_core_mb"),
)
"""Settings that no reload changes: processes that stay are made with them."""

FIXED_OF_LISTENER = ("unix_mode", "reuseport")
"""Settings that an open listener keeps, also where it has a value of its own."""

FIXED_FOR_ANOTHER_USER = ("access_log",)
"""Further ones if root serves as another user: names of files that root makes for that user."""


def effective(configured: Settings, facts: AppFacts, old: Generation) -> Settings:
    """Return the settings of a new generation.

    The size of the pool stays as it was ordered, unless the configuration of it has changed.

    Args:
        configured: As the configuration says now.
        facts: Of the new generation's app.
        old: The generation in force.

    Raises:
        SetupError: A setting is another that cannot be changed.
    """
    before = old.loader.settings
    assert before is not None
    fixed = FIXED + (FIXED_FOR_ANOTHER_USER if before.user or before.group else ())
    changed = [name for name in fixed if getattr(configured, name) != getattr(before, name)]
    if changed:
        texts = [
            f"{name} cannot change (from {written(name, getattr(before, name))}"
            f" to {written(name, getattr(configured, name))})"
            for name in changed
        ]
        raise SetupError(f"{'; '.join(texts)}; restart the server for that")
    if configured.workers == before.workers:
        configured = evolve(configured, workers=old.settings.workers)
    if old.settings.listeners and not configured.listeners:
        # Connections of another app are parked perhaps: they must not come to the only one that is left.
        configured = evolve(configured, listeners=(ListenerTable(configured.bind),))
    bounded = bounded_by_files(configured, publishes=facts.publishes, opened=facts.opened)
    return evolve(bounded, hot_connections=old.settings.hot_connections)


def listeners(settings: Settings, before: Settings, open_now: list[Listener]) -> list[Listener]:
    """Return the listeners of a new generation: those that stay, and those that are opened for it.

    Args:
        settings: Of the new generation.
        before: Of the generation in force.
        open_now: Its listeners, in the order of its setting ``bind``.

    Raises:
        SetupError: An address cannot be listened on; then none is opened.
    """
    kept = dict(zip(before.keys, open_now, strict=False))
    for key in settings.keys:
        if key in kept:
            _refuse_changes(key, before.of_listener(key), settings.of_listener(key))
    places = [kept.get(key) for key in settings.keys]
    wanted = [number for number, one in enumerate(places) if one is None]
    opened = open_listeners(settings, wanted) if wanted else []
    found = [one or opened.pop(0) for one in places]
    for key, one in zip(settings.keys, found, strict=True):
        one.key = key  # an older version has handed it over without one
    return found


def with_leaving(settings: Settings, before: Settings) -> Settings:
    """Return the settings of a new generation's workers: they take the last clients of listeners that leave.

    Such a listener keeps its app; if that is gone, nothing is served there any more.
    """
    if not settings.listeners:
        return settings
    left = [key for key in before.keys if key not in settings.keys]
    tables = [before.table_of(key) or ListenerTable(()) for key in left]
    binds = [before.bind[before.keys.index(key)] for key in left]
    leaving = [evolve(table, bind=(bind,)) for table, bind in zip(tables, binds, strict=True)]
    return evolve(
        settings, bind=(*settings.bind, *binds), listeners=(*settings.listeners, *leaving)
    )


def _refuse_changes(key: str, before: Settings, after: Settings) -> None:
    """Raise SetupError if an open listener would have to be another one."""
    for name in FIXED_OF_LISTENER:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            raise SetupError(
                f"listener {key}: {name} cannot change (from {written(name, old)} to {written(name, new)});"
                " restart the server for that"
            )
