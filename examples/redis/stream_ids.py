"""The IDs of stream entries: ``1526919030474-55``, milliseconds and a number among those of the same one.

An ID is an int here, ``ms * 2**64 + sequence``: so IDs are compared, and the next one is one more.
"""

from __future__ import annotations

import re

from linepool import ClientError

SEQUENCES = 2**64  # of one millisecond
LAST_SEQUENCE = SEQUENCES - 1
MAX_ID = 2**128 - 1
_INVALID = "Invalid stream ID specified as stream command argument"
_MAX_BYTES = 127
# As C's strtoull() reads numbers: blanks and a plus sign are skipped.
_FORM = re.compile(rb"[ \t-\r]*\+?(\d+)(?:-(?:[ \t-\r]*\+?(\d+)|(\*)))?")


def shown(number: int) -> bytes:
    """Return an ID as clients read it."""
    return b"%d-%d" % divmod(number, SEQUENCES)


def parse_partial(word: bytes, sequence: int = 0) -> tuple[int, bool]:
    """Return an ID, and whether its sequence is left to the server: ``5-*``, which is then 0.

    Args:
        word: As the client sent it.
        sequence: What an ID without one has.

    Raises:
        ClientError: It is not an ID.
    """
    found = _FORM.fullmatch(word) if len(word) <= _MAX_BYTES else None
    if found is None:
        raise ClientError(_INVALID)
    ms, given, star = found.groups()
    parts = int(ms), sequence if given is None else int(given)
    if max(parts) > LAST_SEQUENCE:
        raise ClientError(_INVALID)
    return parts[0] * SEQUENCES + (0 if star else parts[1]), star is not None


def parse_id(word: bytes, sequence: int = 0) -> int:
    """Return an ID; raises as ``parse_partial``, also for ``-``, ``+`` and ``5-*``."""
    number, is_partial = parse_partial(word, sequence)
    if is_partial:
        raise ClientError(_INVALID)
    return number


def parse_bound(word: bytes, *, upper: bool) -> int:
    """Return the first ID of an interval, or with ``upper`` its last: ``-``, ``+``, ``5-1`` or ``(5-1``.

    Raises:
        ClientError: It is none of these.
    """
    if word in (b"-", b"+"):
        return 0 if word == b"-" else MAX_ID
    sequence = LAST_SEQUENCE if upper else 0
    if word[:1] != b"(" or len(word) == 1:
        return parse_id(word, sequence)
    number = parse_id(word[1:], sequence) + (-1 if upper else 1)
    if not 0 <= number <= MAX_ID:
        raise ClientError(f"invalid {'end' if upper else 'start'} ID for the interval")
    return number
