"""Settings: limits of requests, workers and connections. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.settings import syntax
from linepool.settings.field import setting


@frozen(kw_only=True, slots=False)
class LimitSettings:
    """What requests, workers and connections may take."""

    request_timeout: float = setting(
        30.0,
        syntax.seconds(),
        "s",
        "time limit for a handler, after which RequestTimeout is raised in it; 0: no limit",
        per_listener=True,
    )
    kill_grace: float = setting(
        2.0,
        syntax.seconds(),
        "s",
        "kill the worker if its handler is still running this long after RequestTimeout",
    )
    slow_request: float = setting(
        0.0,
        syntax.seconds(),
        "s",
        "log the stack of a request that runs longer than this, without stopping it; 0: off",
    )
    stopped_timeout: float = setting(
        5.0,
        syntax.seconds(),
        "s",
        "kill a worker, parker or loader stopped (SIGSTOP) for this long; 0: never",
    )
    observer_timeout: float = setting(
        5.0,
        syntax.seconds(0.1),
        "s",
        "time limit for a function of when_ready, on_reload, on_worker_end or on_stop; at a stop, for all of"
        " those that are left",
    )
    max_requests: int = setting(
        0, syntax.whole(0), "requests", "replace a worker after this many requests; 0: off"
    )
    max_requests_jitter: float = setting(
        0.1,
        syntax.number(0, 1, float, "a fraction"),
        "fraction",
        "random addition to max_requests and max_age, so that workers are not replaced all at once",
    )
    max_rss_mb: int = setting(
        0, syntax.whole(0), "MiB", "replace a worker whose resident memory exceeds this; 0: off"
    )
    max_age: float = setting(
        0.0, syntax.seconds(), "s", "replace a worker older than this, plus jitter; 0: off"
    )
    idle_timeout: float = setting(
        300.0,
        syntax.seconds(0.01),
        "s",
        "close a connection that is idle between requests for this long",
        per_listener=True,
    )
    connection_max_age: float = setting(
        0.0,
        syntax.seconds(),
        "s",
        "end a connection older than this, minus up to a tenth, between two requests; 0: off",
        per_listener=True,
    )
    read_timeout: float = setting(
        30.0,
        syntax.seconds(0.01),
        "s",
        "time limit for receiving a request, from its first byte",
        per_listener=True,
    )
    write_timeout: float = setting(
        30.0,
        syntax.seconds(0.01),
        "s",
        "time limit for a client to read its replies",
        per_listener=True,
    )
    push_timeout: float = setting(
        1.0,
        syntax.seconds(0.01),
        "s",
        "how long the pushes of one request may wait for a client that does not read",
        per_listener=True,
    )
    max_line_bytes: int = setting(
        8192,
        syntax.whole(16, 2**30),
        "bytes",
        "maximum line length, without the line ending",
        per_listener=True,
    )
    max_body_bytes: int = setting(
        1024 * 1024,
        syntax.whole(0, 2**30),
        "bytes",
        "maximum size of a data block",
        per_listener=True,
    )
    max_unfinished_mb: int = setting(
        64,
        syntax.whole(1),
        "MiB",
        "schemes shared and dispatch: how much of unfinished requests the parker holds, for all clients"
        " together; beyond it a connection with more than 4 KiB is refused",
    )
    poison_deaths: int = setting(
        5,
        syntax.whole(0),
        "workers",
        "refuse a command that has ended this many workers within poison_window; 0: never",
    )
    poison_window: float = setting(
        30.0, syntax.seconds(0.1), "s", "the period in which poison_deaths are counted"
    )
    poison_pause: float = setting(
        10.0,
        syntax.seconds(0.1),
        "s",
        "how long a command is refused that has ended too many workers",
    )
