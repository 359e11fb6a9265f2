"""Lines of the line protocol as text: cut into words, and made of values. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from linepool.protocols.text import record_fields, scalar_text, unquote
from linepool.values.json_text import dumps

_LF, _CR = b"\n\r"
_WORD = re.compile(
    rb"""[ \t\v\f]*(?:("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|([^"' \t\v\f][^ \t\v\f]*))(?=[ \t\v\f]|\Z)"""
)
_BLANKS = b" \t\v\f"


def split(text: bytes, rest_after: int | None) -> list[bytes]:
    """Return the words of a text, unquoted; after ``rest_after`` words, the rest of the text as it is.

    Raises:
        ValueError: A quote does not close, or text follows the closing quote without a blank.
    """
    words: list[bytes] = []
    at = 0
    while rest_after is None or len(words) < rest_after:
        match = _WORD.match(text, at)
        if match is None:
            if text[at:].strip(_BLANKS):
                raise ValueError("unterminated quote, or text right after a closing quote")
            return words
        quoted, bare = match.groups()
        words.append(bare if quoted is None else unquote(quoted))
        at = match.end()
    if rest := text[at:].lstrip(_BLANKS):
        words.append(rest)
    return words


def row(item: object) -> bytes:
    """Return one line of a reply of several lines.

    Raises:
        TypeError, ValueError: As for ``Line.encode``.
    """
    row = item if isinstance(item, (list, tuple)) else (item,)
    text = b" ".join(_word(part) for part in row)
    return text if text != b"END" else b'"END"'


def _word(value: object) -> bytes:
    text = b"-" if value is None else scalar_text(value)
    if text is None:
        return dumps(value)
    if _LF in text or _CR in text:
        raise ValueError("a line of a reply holds a line break")
    return text


def fields(value: object) -> Iterable[tuple[Any, Any]] | None:
    """Return the names and values of a dict, an attrs instance or a dataclass; None: it is none."""
    return value.items() if isinstance(value, Mapping) else record_fields(value)
