"""memcached's replies: from what a handler returns to lines and blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define

from linepool.protocols.base import Request
from linepool.protocols.text import scalar_text

# memcached's words for True and False, by command.
BOOLS = {
    **dict.fromkeys(
        (b"set", b"add", b"replace", b"append", b"prepend"), (b"STORED", b"NOT_STORED")
    ),
    b"cas": (b"STORED", b"EXISTS"),
    b"delete": (b"DELETED", b"NOT_FOUND"),
    b"touch": (b"TOUCHED", b"NOT_FOUND"),
}
GETS = {b"get", b"gets", b"gat", b"gats"}


@define
class Value:
    """One item in the reply to a get.

    Attributes:
        key: As the client wrote it.
        data: The value, without its line ending.
        flags: 32 bits that the client chose.
        cas: The item's unique number, for ``gets`` and ``gats``; None: left out.
    """

    key: bytes
    data: bytes
    flags: int = 0
    cas: int | None = None


def encode_reply(value: object, request: Request) -> bytes:
    """Return the reply to a classic command; see ``Memcache.encode``."""
    if request.verb in GETS:
        parts: list[bytes] = []
        for one in _values(value, request):
            parts += _parts(one)
        parts.append(b"END\r\n")
        return b"".join(parts)
    if isinstance(value, Mapping):
        lines = [_line(b"STAT " + _text(k) + b" " + _text(v)) for k, v in value.items()]
        return b"".join([*lines, b"END\r\n"])
    if isinstance(value, bool) and request.verb in BOOLS:
        value = BOOLS[request.verb][0 if value else 1]
    return _line(b"OK" if value is None else _text(value))


def _values(value: object, request: Request) -> Iterable[Value]:
    """Return what the handler of a get returned as Values."""
    if isinstance(value, (list, tuple)):
        for item in value:
            if not isinstance(item, Value):
                raise TypeError(
                    f"a list that answers a get holds Values, not {type(item).__name__}"
                )
        return value
    if value is None:
        return ()
    if isinstance(value, Value):
        return (value,)
    wants_cas = 0 if request.verb in (b"gets", b"gats") else None
    if isinstance(value, Mapping):
        pairs = [(_text(key), data) for key, data in value.items() if data is not None]
        return [
            data if isinstance(data, Value) else Value(key, _text(data), 0, wants_cas)
            for key, data in pairs
        ]
    if len(request.words) != 1:
        raise TypeError(
            f"{type(value).__name__} cannot answer a get of several keys; return a dict"
        )
    return (Value(request.words[0], _text(value), 0, wants_cas),)


def encode_value(value: Value) -> bytes:
    """Return the block of one item."""
    return b"".join(_parts(value))


def _parts(value: Value) -> tuple[bytes, bytes, bytes]:
    """Return the block of one item in parts, to copy a long value only once."""
    if value.cas is None:
        head = b"VALUE %b %d %d\r\n" % (value.key, value.flags, len(value.data))
    else:
        head = b"VALUE %b %d %d %d\r\n" % (value.key, value.flags, len(value.data), value.cas)
    return head, value.data, b"\r\n"


def _text(value: object) -> bytes:
    if (text := scalar_text(value)) is None:
        raise TypeError(f"cannot send a {type(value).__name__} in a memcached reply")
    return text


def _line(text: bytes) -> bytes:
    """Return one line of a reply.

    Raises:
        ValueError: The text holds a line break.
    """
    if 0x0A in text or 0x0D in text:  # numbers are five times as fast as b"\n"
        raise ValueError("a one-line reply holds a line break")
    return text + b"\r\n"
