"""Every setting: its unit, default, limits and syntax. Pure: nothing is read here.

A setting is an option of ``linepool run`` (``--idle-timeout 60``), an environment variable
(``LINEPOOL_IDLE_TIMEOUT``), a key of the file, and a keyword of ``App``. All of them, and
``docs/settings.md``, are generated from the class below.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from attrs import frozen

from linepool import setting_syntax as syntax
from linepool.errors import SetupError

MAX_WORKERS = 1000  # slots of the board
_LARGE = 1000  # connections of a server that keeps some for other addresses


@frozen
class Workers:
    """The bounds of the pool size: ``N`` is fixed, ``MIN:MAX`` scales with the load."""

    min: int
    max: int

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}:{self.max}"


def default_workers(cpus: int) -> Workers:
    """Return the default bounds on a machine with that number of CPUs."""
    return Workers(1, min(max(4, 4 * cpus), MAX_WORKERS))


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


def _setting(default: Any, parse: Callable[[object], Any], unit: str, doc: str) -> Any:
    return attrs.field(default=default, metadata={"parse": parse, "unit": unit, "doc": doc})


@frozen(kw_only=True)
class Settings:
    """All settings, each with a value."""

    bind: tuple[str, ...] = _setting(
        ("127.0.0.1:7000",),
        syntax.addresses,
        "address",
        "address to listen on, repeatable: HOST:PORT (port 0: any free port), [::1]:PORT,"
        " [::]:PORT (IPv4 too, unless the same port is also given for IPv4), unix:/PATH, unix:@NAME"
        " (abstract: every local user may connect), fd://N",
    )
    backlog: int = _setting(
        1024,
        syntax.whole(1, 65535),
        "connections",
        "maximum length of a listener's accept queue in the kernel",
    )
    unix_mode: int = _setting(
        0o600,
        syntax.mode,
        "octal",
        "file mode of the unix sockets in bind; abstract ones have none",
    )
    scheme: str = _setting(
        "shared",
        syntax.one_of("shared", "dispatch", "accept"),
        "",
        "how connections reach workers; shared: workers accept connections, keep the active ones"
        " and hand off the others; dispatch: the parker accepts connections and passes each on when"
        " it has sent data; accept: each worker accepts one connection at a time and serves it until"
        " it closes",
    )
    park_after: float = _setting(
        0.05,
        syntax.seconds(0.001),
        "s",
        "scheme shared: hand a connection to the parker after this much idle time",
    )
    hot_connections: int = _setting(
        64,
        syntax.whole(1, 1000),
        "connections",
        "scheme shared: maximum number of connections that a worker holds; shared and dispatch: as many"
        " again may wait in it for clients that do not read",
    )
    hand_off_after: float = _setting(
        0.02,
        syntax.seconds(0.001),
        "s",
        "hand off the other connections of a worker when its request takes longer than this",
    )
    max_connections: int = _setting(
        10000,
        syntax.whole(1, 1_000_000),
        "connections",
        "schemes shared and dispatch: refuse new connections beyond this number; the limit on open"
        " files may lower it",
    )
    max_connections_per_address: int = _setting(
        0,
        syntax.whole(0, 1_000_000),
        "connections",
        "refuse new connections from an IPv4 address or an IPv6 /64 network beyond this number; 0: nine"
        " tenths of max_connections; no limit if that is below 1000, or in the scheme accept",
    )
    workers: Workers = _setting(
        Workers(1, 4), _workers, "N or MIN:MAX", "pool size, fixed or between two bounds"
    )
    min_spare: int = _setting(
        1,
        syntax.whole(0, MAX_WORKERS),
        "workers",
        "idle workers to keep ready, within the maximum pool size",
    )
    max_spare: int = _setting(
        3,
        syntax.whole(0, MAX_WORKERS),
        "workers",
        "spare workers to keep above recent peak demand; the rest are retired",
    )
    grow_delay: float = _setting(
        0.1,
        syntax.seconds(),
        "s",
        "once no worker has been idle for this long, spawn one per waiting connection",
    )
    max_spawn_rate: float = _setting(
        32.0,
        syntax.number(0.1, 1000, float, "a number of workers per second"),
        "workers/s",
        "maximum spawn rate; a burst may be one second's worth or the minimum pool size",
    )
    shrink_window: float = _setting(
        60.0,
        syntax.seconds(0.1),
        "s",
        "retire workers that were not needed at any time during this period",
    )
    min_worker_age: float = _setting(
        10.0, syntax.seconds(), "s", "do not retire workers for this long after the last spawn"
    )
    grow_on_cpu: bool = _setting(
        False,
        syntax.flag,
        "on or off",
        "grow the pool even if its workers already saturate all CPUs",
    )
    request_timeout: float = _setting(
        30.0,
        syntax.seconds(),
        "s",
        "time limit for a handler, after which RequestTimeout is raised in it; 0: no limit",
    )
    kill_grace: float = _setting(
        2.0,
        syntax.seconds(),
        "s",
        "kill the worker if its handler is still running this long after RequestTimeout",
    )
    slow_request: float = _setting(
        0.0,
        syntax.seconds(),
        "s",
        "log the stack of a request that runs longer than this, without stopping it; 0: off",
    )
    stopped_timeout: float = _setting(
        5.0,
        syntax.seconds(),
        "s",
        "kill a worker or parker stopped (SIGSTOP) for this long; 0: never",
    )
    max_requests: int = _setting(
        0, syntax.whole(0), "requests", "replace a worker after this many requests; 0: off"
    )
    max_requests_jitter: float = _setting(
        0.1,
        syntax.number(0, 1, float, "a fraction"),
        "fraction",
        "random addition to max_requests and max_age, so that workers are not replaced all at once",
    )
    max_rss_mb: int = _setting(
        0, syntax.whole(0), "MiB", "replace a worker whose resident memory exceeds this; 0: off"
    )
    max_age: float = _setting(
        0.0, syntax.seconds(), "s", "replace a worker older than this, plus jitter; 0: off"
    )
    idle_timeout: float = _setting(
        300.0,
        syntax.seconds(0.01),
        "s",
        "close a connection that is idle between requests for this long",
    )
    read_timeout: float = _setting(
        30.0, syntax.seconds(0.01), "s", "time limit for receiving a request, from its first byte"
    )
    write_timeout: float = _setting(
        30.0, syntax.seconds(0.01), "s", "time limit for a client to read its replies"
    )
    push_timeout: float = _setting(
        1.0,
        syntax.seconds(0.01),
        "s",
        "how long the pushes of one request may wait for a client that does not read",
    )
    max_line_bytes: int = _setting(
        8192, syntax.whole(16, 2**30), "bytes", "maximum line length, without the line ending"
    )
    max_body_bytes: int = _setting(
        1024 * 1024, syntax.whole(0, 2**30), "bytes", "maximum size of a data block"
    )
    max_unfinished_mb: int = _setting(
        64,
        syntax.whole(1),
        "MiB",
        "schemes shared and dispatch: how much of unfinished requests the parker holds, for all clients"
        " together; beyond it a connection with more than 4 KiB is refused",
    )
    poison_deaths: int = _setting(
        5,
        syntax.whole(0),
        "workers",
        "refuse a command that has ended this many workers within poison_window; 0: never",
    )
    poison_window: float = _setting(
        30.0, syntax.seconds(0.1), "s", "the period in which poison_deaths are counted"
    )
    poison_pause: float = _setting(
        10.0,
        syntax.seconds(0.1),
        "s",
        "how long a command is refused that has ended too many workers",
    )
    graceful_timeout: float = _setting(
        30.0,
        syntax.seconds(),
        "s",
        "how long a graceful stop waits for in-flight requests before it kills their workers",
    )
    spawn_timeout: float = _setting(
        10.0, syntax.seconds(0.1), "s", "how long a new worker may take to become ready"
    )
    respawn_backoff: float = _setting(
        0.1,
        syntax.seconds(0.001),
        "s",
        "delay before replacing a worker that died before it was ready; grows by half each time, up"
        " to 30 s, or 0.5 s if descriptors, memory or processes are short",
    )
    control: str = _setting(
        "auto",
        syntax.control,
        "path",
        "path of the control socket; auto: PID.sock in $XDG_RUNTIME_DIR/linepool or /run/linepool;"
        " off: none",
    )
    record: str = _setting(
        "",
        syntax.text,
        "path",
        "file to write a trace of all connections to, for 'linepool simulate'; empty: none",
    )
    log_level: str = _setting(
        "info", syntax.one_of("debug", "info", "warning", "error"), "", "minimum log level"
    )
    log_limit: int = _setting(
        6,
        syntax.whole(0, 10000),
        "lines/min",
        "maximum lines of one kind of warning or error, on the whole server, and a tenth of those of other"
        " events; what is left out is counted; 0: no limit",
    )
    log_requests: str = _setting(
        "command", syntax.one_of("command", "line"), "", "what the log shows of a request"
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
    def max_state_bytes(self) -> int:
        """How long the state of a connection may be that is passed between processes.

        An unfinished request, a byte of it as up to 6 in JSON; what a worker has read beyond it; the session.
        """
        return 6 * (self.max_line_bytes + self.max_body_bytes) + 524_288

    @property
    def max_unfinished_bytes(self) -> int:
        """The setting max_unfinished_mb in bytes, or one request if that is more."""
        return max(self.max_unfinished_mb * 2**20, self.max_line_bytes + self.max_body_bytes)

    @property
    def address_limit(self) -> int:
        """How many connections one address may have."""
        if self.max_connections_per_address:
            return self.max_connections_per_address
        is_large = self.has_parker and self.max_connections >= _LARGE
        return self.max_connections - (self.max_connections // 10 if is_large else 0)

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
    """Raise SetupError for the first unknown setting; the message suggests the nearest known one."""
    for name in names:
        if name not in FIELDS:
            near = difflib.get_close_matches(name.lower(), FIELDS, n=1, cutoff=0)[0]
            raise SetupError(f"unknown setting {name!r}; did you mean {near!r}?")


def parse_setting(name: str, value: object, source: str) -> Any:
    """Return the value of one setting.

    Args:
        name: The setting.
        value: A string, or a value of a TOML file or of a keyword argument.
        source: Where it was given, for the message.

    Raises:
        SetupError: The value is wrong; the message says what would be right.
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
    return syntax.exact(value) if isinstance(value, float) else str(value)
