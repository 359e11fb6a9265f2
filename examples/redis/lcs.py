"""LCS: the longest common subsequence of two strings."""

from __future__ import annotations

from typing import Any

from application import app
from attrs import define, field
from db import Db
from layout import STRING, parse_int

from linepool import ClientError

_SYNTAX = "syntax error"


@define
class Common:
    """What two strings have in common.

    Attributes:
        text: The longest common subsequence.
        ranges: Where its parts are in the strings, the last one first: first and last index in one,
            first and last in the other.
    """

    text: bytes = b""
    ranges: list[tuple[int, int, int, int]] = field(factory=list)


def rows_of(one: bytes, other: bytes) -> list[int]:
    """Return for each beginning of a string which bytes of the other one lengthen the subsequence.

    A row is a number with a bit for each byte of ``other``; one that is 0 means: the longest common
    subsequence is longer with this byte than without it. Each row is made from the one before it.
    """
    places: dict[int, int] = {}
    for index, byte in enumerate(other):
        places[byte] = places.get(byte, 0) | 1 << index
    mask = (1 << len(other)) - 1
    row = mask
    rows = [row]
    for byte in one:
        equal = row & places.get(byte, 0)
        row = (row + equal | row - equal) & mask
        rows.append(row)
    return rows


def common_to(one: bytes, other: bytes) -> Common:
    """Return the longest common subsequence: of several, the one that Redis finds, from the end."""
    rows = rows_of(one, other)
    found = Common()
    text = bytearray()
    i, j = len(one), len(other)
    size = j // 8 + 1
    row = rows[i].to_bytes(size, "little")
    run = 0  # bytes in the present range
    while i and j:
        if one[i - 1] == other[j - 1]:
            text.append(one[i - 1])
            run += 1
            i, j = i - 1, j - 1
            row = rows[i].to_bytes(size, "little")
            continue
        if run:
            found.ranges.append((i, i + run - 1, j, j + run - 1))
            run = 0
        if row[(j - 1) // 8] >> (j - 1) % 8 & 1:
            j -= 1
        else:
            i -= 1
            row = rows[i].to_bytes(size, "little")
    if run:
        found.ranges.append((i, i + run - 1, j, j + run - 1))
    found.text = bytes(reversed(text))
    return found


@app.handler("LCS", flags="readonly", keys=(1, 2, 1))
def lcs(key: bytes, other: bytes, *words: bytes, db: Db) -> Any:
    """Compare two strings: LCS key key [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]."""
    options: set[bytes] = set()
    least = 0
    left = list(words)
    with db.read() as t:
        headers = [t.find(one) for one in (key, other)]
    if any(header is not None and header.kind != STRING for header in headers):
        raise ClientError("The specified keys must contain string values")
    while left:
        option = left.pop(0).upper()
        if option == b"MINMATCHLEN" and left:
            number = parse_int(left.pop(0))
            if number is None:
                raise ClientError("value is not an integer or out of range")
            least = max(0, number)
        elif option in (b"LEN", b"IDX", b"WITHMATCHLEN"):
            options.add(option)
        else:
            raise ClientError(_SYNTAX)
    if {b"LEN", b"IDX"} <= options:
        raise ClientError("If you want both the length and indexes, please just use IDX.")
    common = common_to(*[header.value if header else b"" for header in headers])
    if b"LEN" in options:
        return len(common.text)
    if b"IDX" not in options:
        return common.text
    matches = [
        [[a, b], [c, d], *([b - a + 1] if b"WITHMATCHLEN" in options else ())]
        for a, b, c, d in common.ranges
        if b - a + 1 >= least
    ]
    return {"matches": matches, "len": len(common.text)}
