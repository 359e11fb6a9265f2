"""Settings: addresses, and how connections reach workers. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.settings import syntax
from linepool.settings.field import setting


@frozen(kw_only=True, slots=False)
class ListeningSettings:
    """Where a server listens, and which connections it keeps."""

    bind: tuple[str, ...] = setting(
        ("127.0.0.1:7000",),
        syntax.addresses,
        "address",
        "address to listen on, repeatable: HOST:PORT (port 0: any free port), PORT (on 127.0.0.1), :PORT (on"
        " all IPv4 addresses), [::1]:PORT,"
        " [::]:PORT (IPv4 too, unless the same port is also given for IPv4), unix:/PATH, unix:@NAME"
        " (abstract: every local user may connect), fd://N (open already), systemd:NAME"
        " (opened by systemd under that name)",
    )
    backlog: int = setting(
        1024,
        syntax.whole(1, 65535),
        "connections",
        "maximum length of a listener's accept queue in the kernel",
        per_listener=True,
    )
    unix_mode: int = setting(
        0o600,
        syntax.mode,
        "octal",
        "file mode of the unix sockets in bind; abstract ones have none",
        per_listener=True,
    )
    reuseport: bool = setting(
        False,
        syntax.flag,
        "on or off",
        "let other servers of the same user listen on the same TCP ports (SO_REUSEPORT); the kernel then"
        " divides new connections between the servers",
        per_listener=True,
    )
    scheme: str = setting(
        "shared",
        syntax.one_of("shared", "dispatch", "accept"),
        "",
        "how connections reach workers; shared: workers accept connections, keep the active ones"
        " and hand off the others; dispatch: the parker accepts connections and passes each on when"
        " it has sent data; accept: each worker accepts one connection at a time and serves it until"
        " it closes",
    )
    park_after: float = setting(
        0.05,
        syntax.seconds(0.001),
        "s",
        "scheme shared: hand a connection to the parker after this much idle time",
    )
    hot_connections: int = setting(
        64,
        syntax.whole(1, 1000),
        "connections",
        "scheme shared: maximum number of connections that a worker holds; shared and dispatch: as many"
        " again may wait in it for clients that do not read",
    )
    hand_off_after: float = setting(
        0.02,
        syntax.seconds(0.001),
        "s",
        "hand off the other connections of a worker when its request takes longer than this",
    )
    max_connections: int = setting(
        10000,
        syntax.whole(1, 1_000_000),
        "connections",
        "schemes shared and dispatch: refuse new connections beyond this number; the limit on open"
        " files may lower it",
    )
    max_connections_per_address: int = setting(
        0,
        syntax.whole(0, 1_000_000),
        "connections",
        "refuse new connections from an IPv4 address or an IPv6 /64 network beyond this number; 0: nine"
        " tenths of max_connections; no limit if that is below 1000, or in the scheme accept",
    )
