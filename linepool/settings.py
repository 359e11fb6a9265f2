"""Every setting: its unit, default, limits and how it is written. Pure: nothing is read here.

A setting is an option of ``linepool run`` (``--idle-timeout 60``), an environment variable
(``LINEPOOL_IDLE_TIMEOUT``), a key of the file, and a keyword of ``App``. All of them are made from
the one class below, and ``docs/settings.md`` is tested against it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from attrs import frozen

from linepool.address import parse_address
from linepool.errors import SetupError

MAX_WORKERS = 1000  # the slots of the board


@frozen
class Workers:
    """The bounds of the pool: ``N`` is a fixed size, ``MIN:MAX`` a pool that sizes itself."""

    min: int
    max: int

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}:{self.max}"


def default_workers(cpus: int) -> Workers:
    """Return the bounds of the pool on a machine with so many processors."""
    return Workers(1, min(max(4, 4 * cpus), MAX_WORKERS))


# -- how a value is written: from text, or from a value of the file, to the setting's value


def _workers(value: object) -> Workers:
    if isinstance(value, Workers):
        return value
    low, colon, high = str(value).partition(":")
    try:
        workers = Workers(int(low), int(high if colon else low))
    except ValueError:
        raise ValueError("N or MIN:MAX, such as 4 or 2:32") from None
    if not 1 <= workers.min <= workers.max <= MAX_WORKERS:
        raise ValueError(f"N or MIN:MAX with 1 <= MIN <= MAX <= {MAX_WORKERS}")
    return workers


def _number(
    low: float, high: float, kind: Callable[[Any], Any], what: str
) -> Callable[[object], Any]:
    def parse(value: object) -> Any:
        try:
            number = kind(str(value))
        except ValueError:
            raise ValueError(what) from None
        if isinstance(value, bool) or not low <= number <= high:
            most = f" and at most {_exact(high)}" if high < math.inf else ""
            raise ValueError(f"{what}, at least {_exact(low)}{most}")
        return number

    return parse


def _exact(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def _seconds(low: float = 0.0) -> Callable[[object], Any]:
    return _number(low, 1e9, float, "a number of seconds")


def _whole(low: int, high: float = math.inf) -> Callable[[object], Any]:
    return _number(low, high, int, "a whole number")


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if str(value).lower() in choices:
            return str(value).lower()
        raise ValueError(" or ".join(choices))

    return parse


def _flag(value: object) -> bool:
    if str(value).lower() in ("on", "true", "yes", "1"):
        return True
    if str(value).lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError("on or off")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    if isinstance(value, Iterable) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("a text or a list of texts")


def _addresses(value: object) -> tuple[str, ...]:
    texts = _texts(value)
    if not texts:
        raise ValueError("one address at least")
    for text in texts:
        parse_address(text)
        if texts.count(text) > 1 and not text.endswith(":0"):
            raise ValueError(f"addresses that differ; {text} is given twice")
    return texts


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("a text")


def _mode(value: object) -> int:
    try:
        # A number, as 0o660 in a file, is the mode itself; only a text is read as octal digits.
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError("a file mode in octal, such as 660")
    return mode


def _setting(default: Any, parse: Callable[[object], Any], unit: str, doc: str) -> Any:
    return attrs.field(default=default, metadata={"parse": parse, "unit": unit, "doc": doc})


@frozen(kw_only=True)
class Settings:
    """All settings, each with a value."""

    bind: tuple[str, ...] = _setting(
        ("127.0.0.1:7000",),
        _addresses,
        "address",
        "where to listen; may be given several times: HOST:PORT (port 0: any free one),"
        " [::1]:PORT, unix:/PATH, fd://N",
    )
    backlog: int = _setting(
        1024,
        _whole(1, 65535),
        "connections",
        "how many connections the kernel queues for a listener",
    )
    unix_mode: int = _setting(
        0o600, _mode, "octal", "file mode of unix sockets that are listened on"
    )
    scheme: str = _setting(
        "shared",
        _one_of("shared", "dispatch", "accept"),
        "",
        "how connections reach workers; shared: workers accept, hold those that are busy and hand on"
        " the others; dispatch: the parker accepts and passes on who has sent something; accept: each"
        " worker accepts and stays with its connection to the end",
    )
    park_after: float = _setting(
        0.05,
        _seconds(0.001),
        "s",
        "scheme shared: hand a connection that has been quiet for so long to the parker",
    )
    hot_connections: int = _setting(
        64,
        _whole(1, 1000),
        "connections",
        "scheme shared: how many connections a worker may hold",
    )
    hand_off_after: float = _setting(
        0.02,
        _seconds(0.001),
        "s",
        "hand on the other connections of a worker whose request takes longer",
    )
    max_connections: int = _setting(
        10000,
        _whole(1, 1_000_000),
        "connections",
        "schemes shared and dispatch: refuse a client when there are so many; the limit of open files"
        " may allow fewer",
    )
    workers: Workers = _setting(
        Workers(1, 4), _workers, "N or MIN:MAX", "size of the pool, fixed or between bounds"
    )
    min_spare: int = _setting(
        1,
        _whole(0, MAX_WORKERS),
        "workers",
        "how many idle workers to keep ready, up to the maximum",
    )
    max_spare: int = _setting(
        3,
        _whole(0, MAX_WORKERS),
        "workers",
        "how many workers may be more than were needed; what is beyond is retired",
    )
    grow_delay: float = _setting(
        0.1,
        _seconds(),
        "s",
        "spawn a worker for each connection that waits once nobody has been idle for so long",
    )
    max_spawn_rate: float = _setting(
        32.0,
        _number(0.1, 1000, float, "a number of workers per second"),
        "workers/s",
        "how fast workers may be spawned; the workers of one second, or the minimum, at once",
    )
    shrink_window: float = _setting(
        60.0,
        _seconds(0.1),
        "s",
        "retire the workers that were not needed at any moment of the last so many seconds",
    )
    min_worker_age: float = _setting(
        10.0, _seconds(), "s", "retire nobody so soon after a worker was spawned"
    )
    grow_on_cpu: bool = _setting(
        False,
        _flag,
        "on or off",
        "grow even while the workers already keep all processors busy",
    )
    request_timeout: float = _setting(
        30.0,
        _seconds(),
        "s",
        "how long a handler may take before RequestTimeout is raised in it; 0: for ever",
    )
    kill_grace: float = _setting(
        2.0,
        _seconds(),
        "s",
        "how much longer until a worker that goes on all the same is killed",
    )
    slow_request: float = _setting(
        0.0,
        _seconds(),
        "s",
        "log the stack of a request that runs longer, without stopping it; 0: off",
    )
    max_requests: int = _setting(
        0, _whole(0), "requests", "replace a worker that has served so many; 0: off"
    )
    max_requests_jitter: float = _setting(
        0.1,
        _number(0, 1, float, "a share"),
        "share",
        "how much of max_requests is added at random, so that workers do not leave together",
    )
    max_rss_mb: int = _setting(
        0, _whole(0), "MiB", "replace a worker whose resident memory is larger; 0: off"
    )
    max_age: float = _setting(
        0.0, _seconds(), "s", "replace a worker that is older, plus the jitter; 0: off"
    )
    idle_timeout: float = _setting(
        300.0, _seconds(0.01), "s", "close a connection that is quiet between two requests"
    )
    read_timeout: float = _setting(
        30.0, _seconds(0.01), "s", "how long a request may take to arrive, from its first byte on"
    )
    write_timeout: float = _setting(
        30.0, _seconds(0.01), "s", "how long a client may take to read its replies"
    )
    max_line_bytes: int = _setting(
        8192, _whole(16, 2**30), "bytes", "longest line, without its ending"
    )
    max_body_bytes: int = _setting(1024 * 1024, _whole(0, 2**30), "bytes", "largest data block")
    graceful_timeout: float = _setting(
        30.0, _seconds(), "s", "how long a stop waits for requests in hand before it kills"
    )
    spawn_timeout: float = _setting(
        10.0, _seconds(0.1), "s", "how long a new worker may take until it is ready"
    )
    respawn_backoff: float = _setting(
        0.1,
        _seconds(0.001),
        "s",
        "pause after a worker that died before it was ready; grows by half each time, up to 30 s",
    )
    control: str = _setting(
        "auto",
        _text,
        "path",
        "the control socket; auto: a file named after the process in $XDG_RUNTIME_DIR/linepool"
        " or /run/linepool; off: none",
    )
    record: str = _setting(
        "", _text, "path", "write a trace of all connections for 'linepool simulate'; empty: none"
    )
    log_level: str = _setting(
        "info", _one_of("debug", "info", "warning", "error"), "", "the least level that is logged"
    )

    def __attrs_post_init__(self) -> None:
        """Raise SetupError if two settings contradict each other."""
        if self.max_spare < self.min_spare:
            raise SetupError(
                f"max_spare ({self.max_spare}) must not be below min_spare ({self.min_spare})"
            )

    @property
    def has_parker(self) -> bool:
        """Whether connections may leave their worker; in the scheme ``accept`` they cannot."""
        return self.scheme != "accept"

    @property
    def parker_accepts(self) -> bool:
        """Whether the parker accepts the connections, not the workers."""
        return self.scheme == "dispatch"

    @property
    def blocks_in_accept(self) -> bool:
        """Whether an idle worker waits in accept() itself, where nothing else wakes it."""
        return not self.has_parker and len(self.bind) == 1


FIELDS: Mapping[str, Any] = {field.name: field for field in attrs.fields(Settings)}


def check_names(names: Iterable[str]) -> None:
    """Raise SetupError for the first name that is no setting, with the nearest one that is."""
    for name in names:
        if name not in FIELDS:
            near = difflib.get_close_matches(name.lower(), FIELDS, n=1, cutoff=0)[0]
            raise SetupError(f"there is no setting {name!r}; did you mean {near!r}?")


def parse_setting(name: str, value: object, source: str) -> Any:
    """Return the value of one setting from how it was written.

    Args:
        name: The setting.
        value: Text, or a value of a TOML file or of a keyword argument.
        source: Where it was written, for the message.

    Raises:
        SetupError: The value is wrong; the text says what would be right.
    """
    try:
        return FIELDS[name].metadata["parse"](value)
    except ValueError as error:
        raise SetupError(f"{source}: {name} must be {error}, not {value!r}") from None


def written(name: str, value: object) -> str:
    """Return the value of a setting as a user would write it."""
    if FIELDS[name].metadata["unit"] == "octal":
        return f"{value:o}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(value)
    return _exact(value) if isinstance(value, float) else str(value)
