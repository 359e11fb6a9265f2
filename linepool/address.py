"""Addresses to listen on, in the syntax of ``bind``. Pure: nothing is opened or resolved here."""

from __future__ import annotations

from attrs import frozen


@frozen
class Address:
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
    if kind == "fd" and rest.startswith("//") and rest[2:].isdecimal() and len(rest) < 12:
        return Address(descriptor=int(rest[2:]))
    if kind == "systemd" and rest and rest.isprintable():
        return Address(name=rest)
    host, colon, port = text.rpartition(":")
    if colon and host and port.isascii() and port.isdigit() and int(port) < 65536:
        if host.startswith("[") and host.endswith("]"):
            return Address(host=host[1:-1], port=int(port))
        if ":" not in host:
            return Address(host=host, port=int(port))
    raise ValueError("HOST:PORT, [::1]:PORT, unix:/PATH, unix:@NAME, fd://N or systemd:NAME")


def unix_address(path: str) -> str:
    """Return what bind() and connect() take for a path; ``@NAME`` is an abstract name (unix(7))."""
    return f"\0{path[1:]}" if path.startswith("@") else path
