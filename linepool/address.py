"""Addresses to listen on, in the syntax of ``bind``. Pure: nothing is opened or resolved here."""

from __future__ import annotations

from typing import NamedTuple

from linepool.digits import is_whole

LOCAL = "127.0.0.1"
"""The host of ``PORT``."""
ALL = "0.0.0.0"  # noqa: S104 - where the user asks for it
"""The host of ``:PORT``: every IPv4 address of the machine."""
FORMS = "HOST:PORT, PORT, :PORT, [::1]:PORT, unix:/PATH, unix:@NAME, fd://N or systemd:NAME"


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        host: With a port.
        path: Of a unix socket; ``@NAME``: abstract.
        descriptor: Of a socket that is already open.
        name: Of sockets that systemd has opened; their descriptors take its place before they are served.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    descriptor: int = -1
    name: str = ""


def parse_address(text: str) -> Address:
    """Return an address from its text.

    Raises:
        ValueError: The text is not an address; the message lists the forms.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest not in ("", "@") and "\0" not in rest:
        return Address(path=rest)
    if kind == "fd" and rest.startswith("//") and is_whole(rest[2:], 9):
        return Address(descriptor=int(rest[2:]))
    if kind == "systemd" and rest and rest.isprintable():
        return Address(name=rest)
    host, colon, port = text.rpartition(":")
    if is_whole(port) and int(port) < 65536:
        if not host:
            return Address(host=ALL if colon else LOCAL, port=int(port))
        if host.startswith("[") and host.endswith("]"):
            return Address(host=host[1:-1], port=int(port))
        if ":" not in host:
            return Address(host=host, port=int(port))
    raise ValueError(_meant(text) + FORMS)


def _meant(text: str) -> str:
    """Return how an address would be right that is nearly one, for the message; "": it is not."""
    bare = text.partition("://")[2].rstrip("/")
    host, _, port = text.rpartition(":")
    if "://" in text and bare and not text.startswith("fd:"):
        return f"without a scheme: {bare}; it is "
    if port.isdecimal() and not (is_whole(port) and int(port) < 65536):
        return "with a port up to 65535; it is "
    if host.count(":") > 1 and port.isdecimal() and not host.startswith("["):
        return f"with brackets around an IPv6 address: [{host}]:{port}; it is "
    if text and ":" not in text and "/" not in text and text.isprintable():
        return f"with a port: {text}:7000; it is "
    if text.startswith("/"):
        return f"with unix: before a path: unix:{text}; it is "
    return ""


def overlap(one: Address, other: Address) -> bool:
    """Whether one of two addresses includes the other: it is that of all addresses, at the same port."""
    if one.port != other.port or not one.port or (":" in one.host) != (":" in other.host):
        return False
    return bool({one.host, other.host} & {ALL, "::"})


def unix_address(path: str) -> str:
    """Return what bind() and connect() take for a path; ``@NAME`` is an abstract name (unix(7))."""
    return f"\0{path[1:]}" if path.startswith("@") else path
