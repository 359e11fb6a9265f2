r"""Text that several protocols read or write in the same way.

Not shared, by intention: how a line is cut into words. In a Redis inline command a quote may begin
inside a word and NUL is a blank; in the line protocol a quote inside a bare word is an ordinary
character, and a command may take the rest of its line unsplit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, time
from typing import Any

import attrs

# Known by their module, so that linepool imports none of them before the user does.
_MODULES_SENT_AS_STR = {"decimal", "uuid", "pathlib", "ipaddress", "fractions"}
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


def one_line(text: str) -> bytes:
    r"""Return an error text as one line of UTF-8: ``\xHH`` for each character that does not print."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
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


def library_text(value: object) -> bytes | None:
    """Return a date, a time, a Decimal, a UUID, a path ... as text, or None for any other type."""
    if isinstance(value, (date, time)):
        return value.isoformat().encode()
    if type(value).__module__.partition(".")[0] in _MODULES_SENT_AS_STR:
        return str(value).encode()
    return None


def record_fields(value: object) -> list[tuple[str, Any]] | None:
    """Return the names and values of an attrs instance or a dataclass, or None for any other type."""
    kind: type = type(value)
    if attrs.has(kind):
        return [(field.name, getattr(value, field.name)) for field in attrs.fields(kind)]
    if fields := getattr(kind, "__dataclass_fields__", None):
        return [(name, getattr(value, name)) for name in fields]
    return None


def dump_with_head(version: int, state: Mapping[str, Any], unread: bytes) -> bytes:
    """Return a dump: a version byte, a line of JSON, and the bytes not yet read.

    Empty values are left out, but not an empty list: a transaction that has queued nothing is open.
    """
    head = json.dumps({name: value for name, value in state.items() if value or value == []})
    return b"%c%b\n%b" % (version, head.encode(), unread)


def load_with_head(blob: bytes, version: int, protocol: str) -> tuple[dict[str, Any], bytes]:
    """Return the state and the unread bytes of a dump that ``dump_with_head`` made.

    Raises:
        ValueError: The blob is from another protocol or version.
    """
    check_version(blob, version, 1, protocol)
    head, _, unread = blob[1:].partition(b"\n")
    return json.loads(head), unread


def check_version(blob: bytes, version: int, least_bytes: int, protocol: str) -> None:
    """Raise ValueError unless a dump begins with this version and is not too short."""
    if len(blob) < least_bytes or blob[0] != version:
        raise ValueError(f"not a dump of this version of {protocol}")
