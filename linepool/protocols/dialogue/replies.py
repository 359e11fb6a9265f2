"""Replies of a dialogue: lines with a code, and lines that end with a dot."""

from __future__ import annotations

from collections.abc import Iterable

from linepool.protocols.text import scalar_text

CODED_ERRORS = {
    "usage": "501",
    "unknown": "500 Command not recognized",
    "login": "530 Authentication required",
    "password": "535 authentication failed",
    "state": "503 Bad sequence of commands",
    "client": "554",
    "server": "451",
    "line": "500 Line too long",
    "large": "552 Message too large",
    "newline": "554 A line ends with CR LF, and nothing else does",
    "cancel": "501 Cancelled",
    "answer": "501 An answer must be UTF-8 text",
    "closing": "421",
    "errors": "421 Too many errors",
}
ENHANCED_ERRORS = {
    "usage": "501 5.5.4",
    "unknown": "500 5.5.1 Command not recognized",
    "login": "530 5.7.0 Authentication required",
    "password": "535 5.7.8 authentication failed",
    "state": "503 5.5.1 Bad sequence of commands",
    "client": "554 5.0.0",
    "server": "451 4.3.0",
    "line": "500 5.5.2 Line too long",
    "large": "552 5.3.4 Message too large",
    "newline": "554 5.5.2 A line ends with CR LF, and nothing else does",
    "cancel": "501 5.7.0 Cancelled",
    "answer": "501 5.5.2 An answer must be UTF-8 text",
    "closing": "421 4.3.0",
    "errors": "421 4.7.0 Too many errors",
}
"""With enhanced status codes (RFC 3463)."""
ENHANCED_OPTIONS = {"ok": "250 2.0.0 OK", "goodbye": "221 2.0.0 Bye"}
POP3_ERRORS = {
    "usage": "-ERR",
    "unknown": "-ERR Command not recognized",
    "login": "-ERR log in first",
    "password": "-ERR authentication failed",
    "state": "-ERR not now",
    "client": "-ERR",
    "server": "-ERR",
    "line": "-ERR line too long",
    "large": "-ERR too large",
    "newline": "-ERR a line ends with CR LF",
    "cancel": "-ERR cancelled",
    "answer": "-ERR an answer must be UTF-8 text",
    "closing": "-ERR",
    "errors": "-ERR too many errors",
}


def line(text: str) -> bytes:
    """Return one line of a reply.

    Raises:
        ValueError: The text holds a line break or a NUL.
    """
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError("a line of a reply holds a line break or a NUL")
    return text.encode("utf-8", "surrogateescape") + b"\r\n"


def text(item: object) -> str:
    """Return what a line of a reply shows for a value; bytes that are not UTF-8 as surrogates.

    Raises:
        TypeError: The value cannot be sent.
    """
    return _as_bytes(item).decode("utf-8", "surrogateescape")


def is_code(code: object) -> bool:
    """Whether a value can be a reply's code: three digits, or words, such as ``550 5.1.1`` (RFC 3463)."""
    if isinstance(code, str):
        return code.isprintable() and bool(code.strip())
    shown = scalar_text(code)
    return shown is not None and shown.isdigit() and 100 <= int(shown) <= 999


def coded(code: str, rows: Iterable[object]) -> bytes:
    """Return the lines of a reply, ``250-`` before each but the last, ``250 `` before that.

    Raises:
        TypeError: A row cannot be sent.
    """
    *earlier, last = [text(row) for row in rows] or [""]
    return b"".join(line(f"{code}-{row}") for row in earlier) + line(f"{code} {last}")


def dotted(value: object) -> bytes:
    """Return the lines that follow a first one, and the dot that ends them.

    Raises:
        TypeError: The value, or an item of it, cannot be sent.
    """
    if isinstance(value, bytes):
        return stuffed(value) + b".\r\n"
    if not isinstance(value, Iterable):
        raise TypeError(f"cannot send a {type(value).__name__} as lines of a dialogue's reply")
    return b"".join(stuffed(item) for item in value) + b".\r\n"


def stuffed(item: object) -> bytes:
    """Return lines with CR LF, and a dot before each dot that begins one (RFC 5321, 4.5.2)."""
    rows = _as_bytes(item).replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    return b"".join((b"." if row.startswith(b".") else b"") + row + b"\r\n" for row in rows)


def _as_bytes(item: object) -> bytes:
    if (found := scalar_text(item)) is None:
        raise TypeError(f"cannot send a {type(item).__name__} as a line of a dialogue's reply")
    return found
