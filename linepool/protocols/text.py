r"""Text that several protocols read or write in the same way.

Not shared, by intention: how a line is cut into words. In a Redis inline command a quote may begin
inside a word and NUL is a blank; in the line protocol a quote inside a bare word is an ordinary
character, and a command may take the rest of its line unsplit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from linepool.session import unknown_version
from linepool.shortened import shortened
from linepool.values.plain import as_own, fields_of
from linepool.values.scalars import scalar

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


def one_line(text: str) -> bytes:
    r"""Return an error text as one line of UTF-8: ``\xHH`` for each character that does not print.

    It is cut if it is too long.
    """
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shortened(text))
    return shown.encode("utf-8", "replace")


def unquote(quoted: bytes) -> bytes:
    r"""Return the text between quotes, escapes replaced.

    Between double quotes: \n \r \t \a \b \xHH, and a backslash before any other character is
    dropped. Between single quotes: only \'.
    """
    if quoted.startswith(b"'"):
        return quoted[1:-1].replace(b"\\'", b"'")
    return _ESCAPE.sub(_unescaped, quoted[1:-1])


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes([int(match[1], 16)])
    return _ESCAPED.get(match[2], match[2])


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    str: str.encode,
    bytes: bytes,
    int: b"%d".__mod__,
    bool: lambda value: b"true" if value else b"false",
    float: lambda value: float.__repr__(value).encode(),  # a subclass may have its own repr()
}


def scalar_text(value: object) -> bytes | None:
    """Return the text of a value that is one word or one line, or None for other values."""
    encode = _SCALARS.get(type(value))
    if encode is not None:
        return encode(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Enum):
        text = scalar_text(value.value)
        return value.name.encode() if text is None else text
    row = scalar(type(value))
    own = as_own(value) if row is None else row.show(value)
    return None if own is value else scalar_text(own)


def library_text(value: object) -> bytes | None:
    """Return a date, a time, a Decimal, a UUID, a path ... as text, or None for any other type."""
    if isinstance(value, (str, int, float, bytes, Enum)) or (row := scalar(type(value))) is None:
        return None
    shown = row.show(value)
    return shown.encode() if isinstance(shown, str) else None


def record_fields(value: Any) -> list[tuple[str, Any]] | None:
    """Return the names and values of an object of a class with fields, or None for any other type."""
    kind: Any = type(value)
    if (fields := fields_of(kind)) is not None:
        return [(key, getattr(value, name)) for name, key in fields]
    if hasattr(kind, "__struct_fields__"):  # a msgspec Struct
        names = zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)
        return [(key, getattr(value, name)) for key, name in names]
    if hasattr(kind, "__pydantic_fields__"):
        models = kind.__pydantic_fields__.items()
        return [(one.serialization_alias or name, getattr(value, name)) for name, one in models]
    return None


def dump_with_head(version: int, state: Mapping[str, Any], *rest: bytes) -> bytes:
    """Return a dump: a version byte, a line of JSON, and bytes whose lengths the state knows.

    Empty values are left out, but not an empty list: a transaction that has queued nothing is open.
    """
    head = json.dumps({name: value for name, value in state.items() if value or value == []})
    return b"".join((b"%c%b\n" % (version, head.encode()), *rest))


def load_with_head(blob: bytes, version: int, protocol: str) -> tuple[dict[str, Any], bytes]:
    """Return the state and the bytes behind it of a dump that ``dump_with_head`` made.

    Raises:
        ValueError: The blob is from another protocol or version.
    """
    check_version(blob, version, 1, protocol)
    head, _, rest = blob.partition(b"\n")
    return json.loads(head[1:]), rest


def check_version(blob: bytes, version: int, least_bytes: int, protocol: str) -> None:
    """Raise ValueError unless a dump begins with this version and is not too short.

    Args:
        blob: The dump.
        version: A byte that no dump of another protocol begins with.
        least_bytes: The least length of a dump.
        protocol: Its name, for the error.
    """
    if not blob or blob[0] != version:
        raise ValueError(
            unknown_version(blob[:1].hex(), f"{version:02x}", f"the state of {protocol}")
        )
    if len(blob) < least_bytes:
        raise ValueError(f"the state of {protocol} is cut off after {len(blob)} bytes")
