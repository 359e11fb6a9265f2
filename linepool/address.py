"""Addresses to listen on, as ``bind`` writes them. Pure: nothing is opened or looked up here."""

from __future__ import annotations

from attrs import frozen


@frozen
class Address:
    """A host and port, a path, or a descriptor that is open already."""

    host: str = ""
    port: int = 0
    path: str = ""
    descriptor: int = -1


def parse_address(text: str) -> Address:
    """Return the address that a text names.

    Raises:
        ValueError: It is none of the forms; the text says what they are.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest:
        return Address(path=rest)
    if kind == "fd" and rest.startswith("//") and rest[2:].isdecimal():
        return Address(descriptor=int(rest[2:]))
    host, colon, port = text.rpartition(":")
    if colon and host and port.isascii() and port.isdigit() and int(port) < 65536:
        if host.startswith("[") and host.endswith("]"):
            return Address(host=host[1:-1], port=int(port))
        if ":" not in host:
            return Address(host=host, port=int(port))
    raise ValueError("HOST:PORT, [::1]:PORT, unix:/PATH or fd://N")
