"""Settings: the number of workers. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.settings import syntax
from linepool.settings.field import setting

MAX_WORKERS = 1000  # slots of the board


@frozen
class Workers:
    """The bounds of the pool size: ``N`` is fixed, ``MIN:MAX`` scales with the load; 0: there is no pool."""

    min: int
    max: int

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}:{self.max}"


IN_FOREGROUND = Workers(0, 0)
"""The process that is started serves by itself."""


def default_workers(cpus: int) -> Workers:
    """Return the default bounds on a machine with that number of CPUs."""
    return Workers(1, min(max(4, 4 * cpus), MAX_WORKERS))


def _parse_workers(value: object) -> Workers:
    if isinstance(value, Workers):
        return value
    try:
        low, colon, high = syntax.plain_number(value).partition(":")
        workers = Workers(int(low), int(high if colon else low))
    except ValueError:
        raise ValueError("N or MIN:MAX, such as 4 or 2:32") from None
    if workers != IN_FOREGROUND and not 1 <= workers.min <= workers.max <= MAX_WORKERS:
        raise ValueError(f"N or MIN:MAX with 1 <= MIN <= MAX <= {MAX_WORKERS}, or 0")
    return workers


_WORKERS = syntax.Syntax(
    _parse_workers,
    {
        "type": ["integer", "string"],
        "minimum": 0,
        "maximum": MAX_WORKERS,
        "pattern": "^[0-9]+(:[0-9]+)?$",
    },
)


@frozen(kw_only=True, slots=False)
class PoolSettings:
    """How many workers there are."""

    workers: Workers = setting(
        Workers(1, 4),
        _WORKERS,
        "N or MIN:MAX",
        "pool size, fixed or between two bounds; 0: serve in the foreground, without other processes and"
        " limits of time, for a debugger",
    )
    min_spare: int = setting(
        1,
        syntax.whole(0, MAX_WORKERS),
        "workers",
        "idle workers to keep ready, within the maximum pool size",
    )
    max_spare: int = setting(
        3,
        syntax.whole(0, MAX_WORKERS),
        "workers",
        "spare workers to keep above recent peak demand; the rest are retired",
    )
    grow_delay: float = setting(
        0.1,
        syntax.seconds(),
        "s",
        "once no worker has been idle for this long, spawn one per waiting connection",
    )
    max_spawn_rate: float = setting(
        32.0,
        syntax.number(0.1, 1000, float, "a number of workers per second"),
        "workers/s",
        "maximum spawn rate; a burst may be one second's worth or the minimum pool size",
    )
    shrink_window: float = setting(
        60.0,
        syntax.seconds(0.1),
        "s",
        "retire workers that were not needed at any time during this period",
    )
    min_worker_age: float = setting(
        10.0, syntax.seconds(), "s", "do not retire workers for this long after the last spawn"
    )
    grow_on_cpu: bool = setting(
        False,
        syntax.flag,
        "on or off",
        "grow the pool even if its workers already saturate all CPUs",
    )
