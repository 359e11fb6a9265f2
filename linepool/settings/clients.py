"""Settings: which clients may connect, which proxies say who they are, how often they may ask. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.settings import syntax
from linepool.settings.field import setting


@frozen(kw_only=True, slots=False)
class ClientSettings:
    """Which clients may connect, which proxies say who they are, and how often they may ask."""

    allow: tuple[str, ...] = setting(
        (),
        syntax.networks,
        "networks",
        "the clients that may connect, all others are refused: addresses, networks such as 10.0.0.0/8, and"
        " unix for those of unix sockets; empty: all may",
        per_listener=True,
    )
    deny: tuple[str, ...] = setting(
        (),
        syntax.networks,
        "networks",
        "clients that are refused even if allow names them; written likewise",
        per_listener=True,
    )
    allow_uids: tuple[int, ...] = setting(
        (),
        syntax.uids,
        "users",
        "the users that may connect to unix sockets, by their numbers, such as 0 1000; empty: all that can;"
        " clients of TCP are not concerned",
        per_listener=True,
    )
    proxy_from: tuple[str, ...] = setting(
        (),
        syntax.networks,
        "networks",
        "the proxies that send a PROXY header, version 1 or 2, ahead of each connection: then each must"
        " begin with one, the client is the one that it names, and all other peers are refused",
        per_listener=True,
    )
    proxy_timeout: float = setting(
        5.0,
        syntax.seconds(0.01),
        "s",
        "time limit for the PROXY header, from the connect",
        per_listener=True,
    )
    max_requests_per_second: float = setting(
        0.0,
        syntax.number(0, 1_000_000, float, "a number of requests"),
        "requests/s",
        "refuse further requests of an IPv4 address, an IPv6 /64 network or a user of unix sockets beyond"
        " this rate; 0: no limit",
        per_listener=True,
    )
    request_burst: int = setting(
        0,
        syntax.whole(0, 1_000_000),
        "requests",
        "how many of them may come at once; 0: those of one second",
        per_listener=True,
    )
