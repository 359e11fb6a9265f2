"""Telnet's commands inside a line (RFC 854): take them out, and refuse every option.

One option is granted, the timing mark (RFC 860): after ^C, telnet shows nothing until the server
answers it.
"""

from __future__ import annotations

import re

IAC_BYTE = 0xFF
_IAC = b"\xff"
# IAC SB .. IAC SE; IAC WILL/WONT/DO/DONT option; IAC IAC; IAC command. A line may cut one off.
_COMMAND = re.compile(rb"\xff(?:\xfa.*?(?:\xff\xf0|\Z)|[\xfb-\xfe](?:.|\Z)|.|\Z)", re.DOTALL)
_WILL, _WONT, _DO, _DONT = b"\xfb", b"\xfc", b"\xfd", b"\xfe"
_TIMING_MARK = b"\x06"
_MAX_ANSWER_BYTES = 255  # a client that sends no request needs no more answers


def strip(line: bytes, answers: bytes) -> tuple[bytes, bytes]:
    """Return a line without telnet's commands, and the answers with those to this line added."""

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal answers
        kind, option = match[0][1:2], match[0][2:3]
        if option and len(answers) < _MAX_ANSWER_BYTES:
            if kind == _DO:
                answers += _IAC + (_WILL if option == _TIMING_MARK else _WONT) + option
            elif kind == _WILL:
                answers += _IAC + _DONT + option
        return _IAC if kind == _IAC else b""

    return _COMMAND.sub(replace, line), answers
