"""Settings: the processes of a server, and what operators see of it. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.settings import syntax
from linepool.settings.field import setting


@frozen(kw_only=True, slots=False)
class OperationSettings:
    """How a server is run and observed."""

    graceful_timeout: float = setting(
        30.0,
        syntax.seconds(),
        "s",
        "how long a graceful stop waits for in-flight requests before it kills their workers",
    )
    spawn_timeout: float = setting(
        10.0, syntax.seconds(0.1), "s", "how long a new worker may take to become ready"
    )
    respawn_backoff: float = setting(
        0.1,
        syntax.seconds(0.001),
        "s",
        "delay before replacing a worker that died before it was ready; grows by half each time, up"
        " to 30 s, or 0.5 s if descriptors, memory or processes are short",
    )
    reload_batch: float = setting(
        0.25,
        syntax.number(0.001, 1, float, "a fraction"),
        "fraction",
        "how much of the pool a reload replaces at once; one worker at least",
    )
    reload: bool = setting(
        False,
        syntax.flag,
        "on or off",
        "for development: reload when a file of the app's code or the configuration changes; needs"
        " linepool[reload]; reload_batch is then 1 and log_limit 0 unless they are given",
    )
    reload_include: tuple[str, ...] = setting(
        (),
        syntax.patterns,
        "paths",
        "further files that reload watches, such as templates/**/*.html",
    )
    control: str = setting(
        "auto",
        syntax.control,
        "path",
        "path of the control socket; auto: PID.sock in $XDG_RUNTIME_DIR/linepool or /run/linepool;"
        " off: none",
    )
    http: str = setting(
        "",
        syntax.http,
        "address",
        "where metrics, probes and a page about the server are served over HTTP: HOST:PORT or"
        " unix:/PATH; off: nowhere",
    )
    http_hosts: tuple[str, ...] = setting(
        (),
        syntax.hosts,
        "names",
        "names by which browsers and programs may ask the HTTP server, beside localhost and addresses",
    )
    agent: str = setting(
        "",
        syntax.agent,
        "address",
        "where the agent-check of HAProxy is answered, with the share of workers that are idle: HOST:PORT;"
        " off: nowhere",
    )
    bridge: str = setting(
        "",
        syntax.bridge,
        "url",
        "Valkey or Redis through which published messages reach other machines, such as redis://HOST:6379/0,"
        " or rediss:// with TLS; needs linepool[bridge]; off: none",
    )
    incidents: str = setting(
        "",
        syntax.path,
        "path",
        "file for the last hundred incidents ('linepool events'), which then outlive the server; empty: none",
    )
    record: str = setting(
        "",
        syntax.path,
        "path",
        "file to write a trace of all connections to, for 'linepool simulate'; empty: none",
    )
