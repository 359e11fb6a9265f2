"""The header of the PROXY protocol: what real proxies send, what the specification forbids, garbled ones."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.proxy_header import MOST_BYTES, Header, HeaderError, Proxied, crc32c, read_header

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PORTS = struct.pack("!HH", 1000, 7000)
_V4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + _PORTS
_V6 = (
    bytes.fromhex("20010db8" + "00" * 11 + "01")
    + bytes.fromhex("20010db8" + "00" * 11 + "02")
    + _PORTS
)
_MAPPED = bytes(10) + b"\xff\xff" + _V4[:4]


def header_2(addresses: bytes, *parts: bytes, command: int = 0x21, family: int = 0x11) -> bytes:
    """Return a header of version 2."""
    body = addresses + b"".join(parts)
    return _SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def part(kind: int, value: bytes) -> bytes:
    """Return a part of a header of version 2."""
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(*parts: bytes) -> bytes:
    """Return a header of version 2 with a checksum, the last of its parts."""
    header = header_2(_V4, *parts, part(3, bytes(4)))
    return header[:-4] + crc32c(header).to_bytes(4, "big")


_TLS = part(
    0x20,
    b"\x07\0\0\0\0" + part(0x21, b"TLSv1.3") + part(0x22, b"alice") + part(0x23, b"AES256-SHA"),
)
_TO = "198.51.100.2:7000"
VALID = [
    (
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 7000\r\n",
        ("192.0.2.1", 1000),
        Proxied(destination=_TO),
    ),
    (
        b"PROXY TCP6 2001:DB8::1 2001:db8::2 1000 7000\r\n",
        ("2001:db8::1", 1000),
        Proxied(destination="[2001:db8::2]:7000"),
    ),
    (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 65535\r\n",
        ("192.0.2.1", 0),
        Proxied(destination="[::1]:65535"),
    ),
    (b"PROXY UNKNOWN\r\n", None, Proxied()),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, Proxied()),
    (header_2(_V4), ("192.0.2.1", 1000), Proxied(destination=_TO)),
    (header_2(_V4, family=0x12), ("192.0.2.1", 1000), Proxied(destination=_TO)),
    (header_2(_V6, family=0x21), ("2001:db8::1", 1000), Proxied(destination="[2001:db8::2]:7000")),
    (
        header_2(_MAPPED * 2 + _PORTS, family=0x21),
        ("192.0.2.1", 1000),
        Proxied(destination="192.0.2.1:7000"),
    ),
    (header_2(b"/run/a".ljust(216, b"\0"), family=0x31), "", Proxied(destination="unix")),
    (header_2(b"", command=0x20, family=0), None, Proxied()),
    (header_2(_V4, b"anything", command=0x20), None, Proxied()),
    (header_2(b"anything", family=0), None, Proxied()),
    (
        header_2(
            _V4, part(1, b"line"), part(2, b"shop.example"), part(4, b"\0"), part(5, b"id-1"), _TLS
        ),
        ("192.0.2.1", 1000),
        Proxied("", _TO, "shop.example", "id-1", "line", "TLSv1.3", "AES256-SHA", "alice"),
    ),
    (
        with_checksum(part(5, b"\xff\n")),
        ("192.0.2.1", 1000),
        Proxied("", _TO, unique_id="\\xff\\n"),
    ),
    (header_2(_V4, part(0xEA, b"\1vpce-1")), ("192.0.2.1", 1000), Proxied(destination=_TO)),
]


@pytest.mark.parametrize(("header", "source", "proxied"), VALID)
def test_a_header_says_who_the_client_is(header, source, proxied):
    expected = Header(len(header), source, proxied)

    assert read_header(header) == expected
    assert read_header(header + header) == expected
    assert [read_header(header[:end]) for end in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize("client", [b"\x01\0\0\0\0", b"\x07\0\0\0\1"], ids=["none", "not verified"])
def test_the_name_in_a_certificate_counts_only_if_the_proxy_has_verified_it(client):
    header = read_header(header_2(_V4, part(0x20, client + part(0x22, b"mallory"))))

    assert header is not None
    assert (header.proxied.client_name, header.proxied.tls_version) == ("", "TLS")


_BAD_CHECKSUM = with_checksum()[:-1] + b"\0"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1", "it does not begin with one"),
        (b"proxy TCP4", "it does not begin with one"),
        (b"PROXY\r\n", "it does not begin with one"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "its line does not end with CR LF"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX", "its line does not end with CR LF"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n", "its line does not end with CR LF"),
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "its line is longer than 107 bytes"),
        (b"PROXY \r\n", "it is not PROXY TCP4, TCP6 or UNKNOWN with"),
        (b"PROXY UNKNOWNX\r\n", "it is not PROXY TCP4, TCP6 or UNKNOWN with"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "it is not PROXY TCP4, TCP6 or UNKNOWN with"),
        (b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "it is not PROXY TCP4, TCP6 or UNKNOWN with"),
        (b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "an address in it is malformed"),
        (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "an address in it is malformed"),
        (b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "an address in it is malformed"),
        (b"PROXY TCP4 192.0.2.\xff 192.0.2.2 1 2\r\n", "an address in it is malformed"),
        (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "an address in it is malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "a port in it is malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "a port in it is malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "a port in it is malformed"),
        (_SIGNATURE[:5] + b"QUIT", "it does not begin with one"),
        (header_2(_V4, command=0x22), "its version or its command is unknown"),
        (header_2(_V4, command=0x11), "its version or its command is unknown"),
        (header_2(_V4, family=0x41), "its family of addresses is unknown"),
        (header_2(_V4, family=0x10), "its family of addresses is unknown"),
        (header_2(_V4[:-1]), "it is too short for its addresses"),
        (header_2(_V4, family=0x21), "it is too short for its addresses"),
        (_SIGNATURE + b"\x21\x11\xff\xff", "it is longer than 2048 bytes"),
        (header_2(_V4, b"\1\0"), "a part of it is cut"),
        (header_2(_V4, b"\1\0\5line"), "a part of it is longer than the header"),
        (header_2(_V4, part(0x20, b"\1\0")), "its part about TLS is cut"),
        (
            header_2(_V4, part(0x20, b"\1\0\0\0\0\x21\0\7TLS")),
            "a part of it is longer than the header",
        ),
        (header_2(_V4, part(5, b"x" * 129)), "its unique id is longer than 128 bytes"),
        (header_2(_V4, part(2, b"x" * 256)), "a text in it is longer than 255 bytes"),
        (header_2(_V4, part(3, b"\0\0\0")), "its checksum is cut"),
        (_BAD_CHECKSUM, "its checksum is wrong"),
    ],
)
def test_what_is_not_a_header_is_refused_with_the_reason(data, why):
    with pytest.raises(HeaderError) as error:
        read_header(data)
    assert str(error.value).startswith(why)


def test_the_checksum_is_crc_32c():
    assert crc32c(b"123456789") == 0xE3069283


@st.composite
def _garbled(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from([header for header, _, _ in VALID])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=4))
        data[at : at + draw(st.integers(0, 8))] = new
    return bytes(data)


@given(_garbled())
def test_garbled_headers_are_read_alike_however_they_arrive(data):
    whole: object = None
    with contextlib.suppress(HeaderError):
        whole = read_header(data)
    for end in range(len(data)):
        try:
            found = read_header(data[:end])
        except HeaderError:
            assert whole is None
            return
        if found is not None:
            assert found == whole
            return
    assert whole is None or (isinstance(whole, Header) and whole.size == len(data) <= MOST_BYTES)
