"""memcached's meta commands: their flags, and the replies that echo them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen

_LETTERS = {
    b"mg": "bcfhklOqstvuENRTLPx",
    b"ms": "bckfOqstFITMNCELPx",
    b"md": "bCIkOqTExLPstcf",
    b"ma": "bctkvqNJDTMOCELPf",
    b"me": "bOkq",
}
_KNOWN = frozenset("bcfhklstvuqNTRFCMJDIOELPxS")
_TOKEN = b"CLIENT_ERROR bad token in command line format"
_TOO_LONG = b"CLIENT_ERROR bad command line format"
_MOST_KEY_BYTES = 250
_INT = re.compile(rb"[+-]?[0-9]{1,20}\Z")
# What a letter's token must be, and what is said if it is not.
_NUMBERS = {
    **dict.fromkeys("NTR", (-(2**31), 2**31 - 1, _TOKEN)),
    "F": (0, 2**32 - 1, _TOKEN),
    **dict.fromkeys("CE", (0, 2**64 - 1, _TOKEN)),
    "J": (0, 2**64 - 1, b"CLIENT_ERROR invalid numeric initial value"),
    "D": (0, 2**64 - 1, b"CLIENT_ERROR invalid numeric delta value"),
}
_MODES = {b"ms": "eEaApPrRsS", b"ma": "iI+dD-"}
# The replies that the flag q hides: what the client expects.
_QUIET = {
    b"mg": ("EN",),
    b"me": ("EN",),
    b"ms": ("HD",),
    b"md": ("HD", "NF"),
    b"ma": ("HD", "NF"),
}


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
        data: The value that stands behind ``VA``.
        answers: What the flags that ask for something get: ``{"c": 17, "t": -1}``. The flags O, k
            and b are answered without.
        marks: ``W``, ``X`` and ``Z``, as they apply.
    """

    code: str
    data: bytes | None = None
    answers: Mapping[str, int] = field(factory=dict)
    marks: str = ""


def parse_flags(
    verb: bytes, key: bytes, words: Sequence[bytes]
) -> tuple[bytes, Flags, bytes | None]:
    """Return the key (decoded, if it is in base64), the flags, and what is wrong with them."""
    flags = Flags()
    flags.key = key
    problem: bytes | None = None
    for word in words:
        letter = chr(word[0])
        if letter in flags:
            return key, flags, b"CLIENT_ERROR duplicate flag"
        flags[letter] = token = word[1:]
        if letter not in _KNOWN:
            return key, flags, b"CLIENT_ERROR invalid flag"
        if letter == "b":
            try:
                key = base64.b64decode(key, validate=True)
            except binascii.Error:
                return key, flags, b"CLIENT_ERROR error decoding key"
            if not key:
                return key, flags, b"CLIENT_ERROR error decoding key"
        elif letter in _NUMBERS:
            low, high, text = _NUMBERS[letter]
            if not (_INT.match(token) and low <= int(token) <= high):
                problem = problem or text
        elif letter == "M" and len(token) != 1:
            problem = problem or b"CLIENT_ERROR incorrect length for M token"
    mode = flags.get("M", b"").decode("latin-1")
    if not problem and mode and mode not in _MODES.get(verb, mode):
        problem = b"CLIENT_ERROR invalid mode for " + verb
    return key, flags, problem


def encode_meta(reply: Meta, verb: bytes, flags: Flags, quiet: bool) -> bytes:
    """Return the reply with what its flags ask for, in their order."""
    if quiet and reply.code in _QUIET.get(verb, ()):
        return b""
    parts = [reply.code.encode()]
    if reply.data is not None:
        parts.append(b"%d" % len(reply.data))
    for letter, token in flags.items():
        if letter == "O":
            parts.append(b"O" + token)
        elif letter == "k":
            parts.append(b"k" + flags.key)
        elif letter == "b":
            parts.append(b"b")
        elif letter in reply.answers:
            parts.append(b"%b%d" % (letter.encode(), reply.answers[letter]))
    parts += [mark.encode() for mark in reply.marks]
    line = b" ".join(parts) + b"\r\n"
    return line if reply.data is None else line + reply.data + b"\r\n"
