"""The header of the PROXY protocol, versions 1 and 2: what a proxy says of a client. Pure: no I/O, no clock.

The rules are those of haproxy.org, proxy-protocol.txt: which version it is follows from the first byte, and
whether there is a header at all is known beforehand, never guessed.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from attrs import fields, frozen

from linepool.digits import is_whole

MOST_BYTES = 2048
"""Of a header; the known parts of one of version 2 together are shorter than 1100."""

_MOST_BYTES_1 = 107  # with the end of the line
_BEGIN_1 = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_HEAD = struct.Struct("!12sBBH")  # signature, version and command, family and transport, length
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED = 0x00
_INET, _INET6, _UNIX = (0x11, 0x12), (0x21, 0x22), (0x31, 0x32)
_SIZES = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}  # of the two addresses
_UNIX_PATH_BYTES = 108
_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL = 0x01, 0x02, 0x03, 0x05, 0x20  # types of parts
_SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x21, 0x22, 0x23
_SSL_USED, _SSL_CERTIFICATES = (
    0x01,
    0x02 | 0x04,
)  # the latter: on this connection, or in its session
_MOST_TEXT_BYTES = 255
_MOST_ID_BYTES = 128

Address = tuple[str, int] | str
"""Host and port, or "" for a unix socket; as ``kernel.listeners.Listener.accept`` gives it."""


class HeaderError(ValueError):
    """The bytes are not a header; the text says why."""


@frozen
class Proxied:
    """What a proxy has said of a connection: ``session.proxy``.

    Attributes:
        via: The address of the proxy, as ``session.peer``.
        destination: The address that the client connected to, likewise; "": the proxy did not say.
        authority: The name that the client asked for: SNI, or the like; "" here and below: none.
        unique_id: The proxy's id of the connection.
        alpn: The application protocol that was agreed on by TLS.
        tls_version: ``TLSv1.3``; "": the client came to the proxy without TLS.
        tls_cipher: As OpenSSL names it.
        client_name: The common name in the client's certificate, which the proxy has verified.
    """

    via: str = ""
    destination: str = ""
    authority: str = ""
    unique_id: str = ""
    alpn: str = ""
    tls_version: str = ""
    tls_cipher: str = ""
    client_name: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        # asdict() would take longer than all the rest of what a new connection costs here.
        return {name: value for name in _FACTS if (value := getattr(self, name))}


_FACTS = [one.name for one in fields(Proxied)]


@frozen
class Header:
    """A header.

    Attributes:
        size: Its length in bytes; what follows is the client's.
        source: The client's address; None: it is the proxy's own connection, or the proxy does not know.
        proxied: What else the proxy has said; without ``via``.
    """

    size: int
    source: Address | None
    proxied: Proxied = Proxied()


def read_header(data: bytes) -> Header | None:
    """Return the header at the beginning of the bytes; None: more bytes are needed.

    Args:
        data: All that has come so far; what follows the header does not matter.

    Raises:
        HeaderError: It does not begin with a header.
    """
    if data[:1] == _SIGNATURE[:1]:
        return _read_2(data)
    if data[: len(_BEGIN_1)] != _BEGIN_1[: len(data)]:
        raise HeaderError("it does not begin with one")
    return _read_1(data)


def _read_1(data: bytes) -> Header | None:
    """Read a header of version 1: one line of text."""
    line, ending, _ = data[:_MOST_BYTES_1].partition(b"\r\n")
    if b"\n" in line or b"\r" in (line if ending else line[:-1]):
        raise HeaderError("its line does not end with CR LF")
    if not ending:
        if len(data) >= _MOST_BYTES_1:
            raise HeaderError(f"its line is longer than {_MOST_BYTES_1} bytes")
        return None
    size = len(line) + len(ending)
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return Header(size, None)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise HeaderError("it is not PROXY TCP4, TCP6 or UNKNOWN with two addresses and two ports")
    kind = ipaddress.IPv4Address if words[1] == b"TCP4" else ipaddress.IPv6Address
    source, destination = (
        (_host(kind, host), _port(port))
        for host, port in ((words[2], words[4]), (words[3], words[5]))
    )
    return Header(size, source, Proxied(destination=address_text(destination)))


def _host(kind: Any, text: bytes) -> str:
    try:
        return _shown(kind(text.decode("ascii")))
    except ValueError:
        raise HeaderError("an address in it is malformed") from None


def _shown(address: Any) -> str:
    """Return an address as text; one of IPv4 written as IPv6 is that of IPv4."""
    if getattr(address, "scope_id", None):
        raise ValueError("a scope")
    return str(getattr(address, "ipv4_mapped", None) or address)


def _port(text: bytes) -> int:
    number = int(text) if is_whole(text, 5) else -1
    if not 0 <= number <= 65535 or str(number).encode() != text:
        raise HeaderError("a port in it is malformed")
    return number


def address_text(address: Address) -> str:
    """Return an address as ``kernel.sockets.address_text`` does."""
    if isinstance(address, str):
        return "unix"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read_2(data: bytes) -> Header | None:
    """Read a header of version 2: binary."""
    if data[: len(_SIGNATURE)] != _SIGNATURE[: len(data)]:
        raise HeaderError("it does not begin with one")
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise HeaderError("its version or its command is unknown")
    if len(data) < _HEAD.size:
        return None
    _, command, family, length = _HEAD.unpack_from(data)
    size = _HEAD.size + length
    if size > MOST_BYTES:
        raise HeaderError(f"it is longer than {MOST_BYTES} bytes")
    if family != _UNSPECIFIED and family not in _SIZES:
        raise HeaderError("its family of addresses is unknown")
    if len(data) < size:
        return None
    if command == _LOCAL or family == _UNSPECIFIED:
        return Header(size, None)
    if length < _SIZES[family]:
        raise HeaderError("it is too short for its addresses")
    body = data[_HEAD.size : size]
    source, destination = _addresses(family, body)
    proxied = _proxied(data[:size], _HEAD.size + _SIZES[family], address_text(destination))
    return Header(size, source, proxied)


def _addresses(family: int, body: bytes) -> tuple[Address, Address]:
    if family in _UNIX:
        return "", ""
    is_v4 = family in _INET
    kind: Any = ipaddress.IPv4Address if is_v4 else ipaddress.IPv6Address
    width = 4 if is_v4 else 16
    source, destination = body[:width], body[width : 2 * width]
    from_port, to_port = struct.unpack_from("!HH", body, 2 * width)
    return (_shown(kind(source)), from_port), (_shown(kind(destination)), to_port)


def _proxied(header: bytes, begin: int, destination: str) -> Proxied:
    """Return what is said in the parts of a header that begin at a place."""
    facts: dict[str, str] = {}
    for kind, at, value in _parts(header, begin):
        if kind == _CRC32C:
            _check(header, at, value)
        elif kind == _AUTHORITY:
            facts["authority"] = _text(value)
        elif kind == _ALPN:
            facts["alpn"] = _text(value)
        elif kind == _UNIQUE_ID:
            if len(value) > _MOST_ID_BYTES:
                raise HeaderError(f"its unique id is longer than {_MOST_ID_BYTES} bytes")
            facts["unique_id"] = _text(value)
        elif kind == _SSL:
            facts |= _tls(value)
    return Proxied(destination=destination, **facts)


def _parts(data: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the parts from a place on: the type, where the value begins, the value."""
    while at < len(data):
        if at + 3 > len(data):
            raise HeaderError("a part of it is cut")
        kind, length = struct.unpack_from("!BH", data, at)
        at += 3
        if at + length > len(data):
            raise HeaderError("a part of it is longer than the header")
        yield kind, at, data[at : at + length]
        at += length


def _tls(value: bytes) -> dict[str, str]:
    if len(value) < 5:
        raise HeaderError("its part about TLS is cut")
    client, verify = struct.unpack_from("!BI", value)
    if not client & _SSL_USED:
        return {}
    facts = {"tls_version": "TLS"}
    for kind, _, text in _parts(value, 5):
        if kind == _SSL_VERSION:
            facts["tls_version"] = _text(text)
        elif kind == _SSL_CIPHER:
            facts["tls_cipher"] = _text(text)
        elif kind == _SSL_CN and client & _SSL_CERTIFICATES and not verify:
            facts["client_name"] = _text(text)
    return facts


def _text(value: bytes) -> str:
    """Return a text of a part; what cannot be printed is escaped."""
    if len(value) > _MOST_TEXT_BYTES:
        raise HeaderError(f"a text in it is longer than {_MOST_TEXT_BYTES} bytes")
    text = value.decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _check(header: bytes, at: int, value: bytes) -> None:
    """Check the checksum at a place, which counts as zeros itself."""
    if len(value) != 4:
        raise HeaderError("its checksum is cut")
    zeroed = header[:at] + bytes(4) + header[at + 4 :]
    if crc32c(zeroed) != int.from_bytes(value, "big"):
        raise HeaderError("its checksum is wrong")


@cache
def _table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)  # noqa: PLW2901
        table.append(number)
    return table


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes (RFC 3720, 12.1)."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
