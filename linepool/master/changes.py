"""What a reload may change, and what not. Runs in the master."""

from __future__ import annotations

import logging

from attrs import evolve

from linepool.errors import SetupError
from linepool.facts import AppFacts
from linepool.kernel.listeners import Listener, open_listeners
from linepool.kernel.rlimit import bounded_by_files
from linepool.master.generation import Generation
from linepool.settings import Settings, written

log = logging.getLogger("linepool")

FIXED = (
    *("scheme", "hot_connections", "control", "record", "unix_mode", "reload"),
    *("log_file", "log_config"),
    *("user", "group", "no_new_privileges", "umask", "chdir", "pid_file", "max_core_mb"),
)
"""Settings that no reload changes: processes that stay are made with them."""

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
    left = list(zip(before.bind, open_now, strict=False))
    places: list[Listener | None] = []
    for address in settings.bind:
        kept = next((pair for pair in left if pair[0] == address), None)
        if kept is not None:
            left.remove(kept)
        places.append(kept[1] if kept else None)
    wanted = tuple(
        address for address, one in zip(settings.bind, places, strict=True) if one is None
    )
    opened = open_listeners(evolve(settings, bind=wanted)) if wanted else []
    return [one or opened.pop(0) for one in places]
