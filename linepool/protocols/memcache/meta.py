"""memcached's meta commands: their flags, and the replies that echo them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen

KNOWN_FLAGS = frozenset("bcfhklstvuqNTRFCMJDIOELPxS")
_TOKEN = b"CLIENT_ERROR bad token in command line format"
_INT = re.compile(rb"[+-]?[0-9]{1,20}\Z")
# The numbers that the token of a flag may be, and the error for others.
NUMBERS = {
    **dict.fromkeys("NTR", (-(2**31), 2**31 - 1, _TOKEN)),
    "F": (0, 2**32 - 1, _TOKEN),
    **dict.fromkeys("CE", (0, 2**64 - 1, _TOKEN)),
    "J": (0, 2**64 - 1, b"CLIENT_ERROR invalid numeric initial value"),
    "D": (0, 2**64 - 1, b"CLIENT_ERROR invalid numeric delta value"),
}
MAX_OPAQUE_BYTES = 31  # of the token of O
MODES = {b"ms": b"eEaApPrRsS", b"ma": b"iI+dD-"}
# The replies that the flag q hides, by command: those that the client expects.
HIDDEN_CODES = {b"mg": ("EN",), b"ms": ("HD",), b"md": ("HD",), b"ma": ("HD", "VA")}


class Flags(dict[str, bytes]):
    """The flags of a meta command: each letter with its token, in the client's order.

    ``{"v": b"", "T": b"30"}`` for ``v T30``. Numbers in tokens have been checked.

    Attributes:
        key: The key as the client wrote it, in base64 if there is a flag ``b``.
    """

    key: bytes = b""


@frozen
class Meta:
    """The reply to a meta command.

    Attributes:
        code: ``HD``, ``VA``, ``EN``, ``NF``, ``NS``, ``EX`` or ``MN``.
        data: The value after ``VA``.
        answers: The numbers for the flags that ask for one: ``{"c": 17, "t": -1}``. The protocol
            itself answers the flags O, k and b.
        marks: ``Z``, ``X`` and ``W``, as they apply; they come after the answers.
    """

    code: str
    data: bytes | None = None
    answers: Mapping[str, int] = field(factory=dict)
    marks: str = ""


def parse_flags(
    verb: bytes, key: bytes, words: Sequence[bytes]
) -> tuple[bytes, Flags, bytes | None]:
    """Return the key (decoded if it was in base64), the flags, and the error, or None: no error."""
    flags = Flags()
    flags.key = key
    error: bytes | None = None
    for word in words:
        letter = chr(word[0])
        if letter in flags or letter not in KNOWN_FLAGS:
            what = b"duplicate" if letter in flags else b"invalid"
            error = b"CLIENT_ERROR %b flag" % what
            break
        flags[letter] = word[1:]
        if letter == "b":
            key = _decoded(key)
            error = error or (None if key else b"CLIENT_ERROR error decoding key")
        error = error or _token_error(verb, letter, word[1:])
    if error and verb in (b"md", b"ma") and not error.endswith(b" M token"):
        error = b"CLIENT_ERROR invalid or duplicate flag"
    return key, flags, error


def _decoded(key: bytes) -> bytes:
    """Return a key decoded from base64, or b"" if it is not base64."""
    try:
        return base64.b64decode(key, validate=True)
    except binascii.Error:
        return b""


def _token_error(verb: bytes, letter: str, token: bytes) -> bytes | None:
    """Return the error for the token of a flag, or None."""
    if letter in NUMBERS:
        low, high, text = NUMBERS[letter]
        return None if _INT.match(token) and low <= int(token) <= high else text
    if letter == "M" and (len(token) != 1 or token not in MODES.get(verb, token)):
        return b"CLIENT_ERROR invalid mode for %b M token" % verb
    if letter == "O" and len(token) > MAX_OPAQUE_BYTES:
        return b"CLIENT_ERROR opaque token too long"
    return None


def encode_meta(reply: Meta, verb: bytes, flags: Flags, quiet: bool) -> bytes:
    """Return the reply with the answers to its flags, in their order."""
    if quiet and reply.code in HIDDEN_CODES.get(verb, ()):
        return b""
    parts = [reply.code.encode()]
    if reply.data is not None:
        parts.append(b"%d" % len(reply.data))
    for letter, token in flags.items():
        if letter == "O":
            parts.append(b"O" + token)
        elif letter == "k":
            parts += (b"k" + flags.key, b"b") if "b" in flags else (b"k" + flags.key,)
        elif letter in reply.answers:
            parts.append(b"%b%d" % (letter.encode(), reply.answers[letter]))
    parts += [mark.encode() for mark in reply.marks]
    line = b" ".join(parts) + b"\r\n"
    return line if reply.data is None else line + reply.data + b"\r\n"
