"""Networks in settings and orders: an address, a network in CIDR notation, or ``unix``. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

UNIX = "unix"
"""Stands for all clients of unix sockets."""

WHAT = "addresses, networks such as 10.0.0.0/8 and 2001:db8::/32, or unix"
_MAPPED_BITS = 96
_ALL = {"*", "all", "any", "everyone"}


def parsed_network(text: str) -> IPv4Network | IPv6Network:
    """Return a network; one of IPv4 addresses written as IPv6 is that of IPv4 (RFC 4291, 2.5.5.2).

    Raises:
        ValueError: The text is not a network; the message says what is wrong.
    """
    from ipaddress import IPv4Network, IPv6Network, ip_network  # noqa: PLC0415 - most have no networks

    if text.lower() in _ALL:
        raise ValueError("all addresses are 0.0.0.0/0 and ::/0")
    if "%" in text:
        raise ValueError(f"a scope has no place here: leave out {text[text.index('%') :]}")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_mistake(text)) from None
    host = text.partition("/")[0]
    if ip_network(host).network_address != network.network_address:
        raise ValueError(f"{text} has bits set behind its prefix; it is {network} or {host}")
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _mistake(text: str) -> str:
    """Return what is wrong with a text that is not a network."""
    from ipaddress import ip_network  # noqa: PLC0415

    host, slash, prefix = text.partition("/")
    try:
        longest = ip_network(host).max_prefixlen
    except ValueError:
        pass
    else:
        return f"the prefix must be 0 to {longest}, not {prefix!r}" if slash else text
    if host.startswith("[") or (host.count(":") == 1 and "." in host):
        return f"{text} must be written without brackets and port"
    if difflib.get_close_matches(text.lower(), [UNIX], n=1) or text.startswith("unix:"):
        return f"{UNIX}, alone, stands for all unix sockets"
    if any(letter.isalpha() for letter in host) and ":" not in host:
        return f"{text} is a name: give its addresses"
    return f"{text or 'an empty text'} is not an address"


def parsed_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Return networks as they are written best; an address alone stays one.

    Raises:
        ValueError: One is wrong; the text says what they must be, and what is wrong.
    """
    try:
        return tuple(
            UNIX if text == UNIX else shown_network(parsed_network(text)) for text in texts
        )
    except ValueError as error:
        raise ValueError(f"{WHAT}; {error}") from None


def shown_network(network: IPv4Network | IPv6Network) -> str:
    """Return a network as text, without the prefix if it is one address."""
    is_address = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_address else network)
