"""The keywords of ``App`` and ``run``: each setting that an app may have. For type checkers and editors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from linepool.settings.pool import Workers


class AppSettings(TypedDict, total=False):
    """The settings; docs/settings.md says what each one does."""

    bind: str | Sequence[str]
    backlog: int
    unix_mode: int | str
    reuseport: bool
    scheme: Literal["shared", "dispatch", "accept"]
    park_after: float
    hot_connections: int
    hand_off_after: float
    max_connections: int
    max_connections_per_address: int
    allow: str | Sequence[str]
    deny: str | Sequence[str]
    allow_uids: str | int | Sequence[int]
    proxy_from: str | Sequence[str]
    proxy_timeout: float
    max_requests_per_second: float
    request_burst: int
    tls_cert: str | Sequence[str]
    tls_key: str | Sequence[str]
    tls_ca: str
    tls_verify: Literal["auto", "off", "optional", "required"]
    tls_min_version: Literal["1.2", "1.3"]
    tls_ciphers: str
    tls_alpn: str | Sequence[str]
    tls_handshake_timeout: float
    tls_max_handshakes: int
    starttls: bool
    workers: int | str | Workers
    min_spare: int
    max_spare: int
    grow_delay: float
    max_spawn_rate: float
    shrink_window: float
    min_worker_age: float
    grow_on_cpu: bool
    request_timeout: float
    kill_grace: float
    slow_request: float
    stopped_timeout: float
    observer_timeout: float
    max_requests: int
    max_requests_jitter: float
    max_rss_mb: int
    max_age: float
    idle_timeout: float
    connection_max_age: float
    read_timeout: float
    write_timeout: float
    push_timeout: float
    max_line_bytes: int
    max_body_bytes: int
    max_unfinished_mb: int
    poison_deaths: int
    poison_window: float
    poison_pause: float
    graceful_timeout: float
    spawn_timeout: float
    respawn_backoff: float
    reload_batch: float
    reload: bool
    reload_include: str | Sequence[str]
    control: str
    http: str | int
    http_hosts: str | Sequence[str]
    agent: str | int
    bridge: str
    incidents: str
    record: str
    log_file: str
    log_format: Literal["text", "json"]
    log_level: Literal["debug", "info", "warning", "error"]
    log_limit: int
    log_requests: Literal["command", "line"]
    access_log: str
    access_log_format: str
