"""A set of networks that says quickly whether an address is in it.

Networks that overlap or adjoin are merged into ranges, so a look-up is one binary search, however many
networks there are.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from linepool.settings.networks import UNIX, parsed_network


class AddressSet:
    """Networks, and perhaps the clients of unix sockets.

    Args:
        texts: As ``settings.networks.parsed_networks`` returns them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        from ipaddress import collapse_addresses  # noqa: PLC0415 - most servers have no networks

        texts = list(texts)
        networks = [parsed_network(text) for text in texts if text != UNIX]
        self._has_unix = UNIX in texts
        self._ranges: dict[int, tuple[list[bytes], list[bytes]]] = {}  # by the family's version
        for version in 4, 6:
            family: Any = [one for one in networks if one.version == version]
            merged = list(collapse_addresses(family))  # they are sorted
            first = [one.network_address.packed for one in merged]
            self._ranges[version] = first, [one.broadcast_address.packed for one in merged]

    def __bool__(self) -> bool:
        """Whether anything is in it."""
        return self._has_unix or any(first for first, _ in self._ranges.values())

    def __contains__(self, address: object) -> bool:
        """Whether a client's address is in it, as ``Listener.accept`` returns it."""
        if not isinstance(address, tuple):
            return self._has_unix
        host = address[0]
        if ":" in host:  # only IPv6 has scopes, and an interface does not matter here
            packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
            first, last = self._ranges[6]
        else:
            packed = socket.inet_aton(host)
            first, last = self._ranges[4]
        number = bisect_right(first, packed) - 1
        return number >= 0 and packed <= last[number]
