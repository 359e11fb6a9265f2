"""Settings: those that have no effect where the process that is started serves by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from linepool.settings.pool import PoolSettings

_OF_THE_POOL = {field.name for field in attrs.fields(PoolSettings)} - {"workers"}
_OF_OTHER_PROCESSES = {
    *("scheme", "park_after", "hot_connections", "hand_off_after", "max_unfinished_mb"),
    *("kill_grace", "slow_request", "stopped_timeout", "observer_timeout", "load_timeout"),
    *("max_requests", "max_requests_jitter", "max_rss_mb", "max_age"),
    *("poison_deaths", "poison_window", "poison_pause"),
    *("spawn_timeout", "respawn_backoff", "reload_batch", "reload", "reload_include"),
    *("control", "http", "http_hosts", "agent", "bridge", "incidents", "record"),
}
_LIMITS_OF_TIME = {
    *(
        "request_timeout",
        "idle_timeout",
        "connection_max_age",
        "read_timeout",
        "write_timeout",
        "graceful_timeout",
    ),
}
WITHOUT_EFFECT = _OF_THE_POOL | _OF_OTHER_PROCESSES | _LIMITS_OF_TIME


def without_effect(names: Iterable[str]) -> list[str]:
    """Return those of the settings that have no effect with ``workers = 0``."""
    return [name for name in names if name in WITHOUT_EFFECT]
