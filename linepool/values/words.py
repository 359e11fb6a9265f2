"""Words of the plain types as values. Pure: no I/O, no clock.

The compiled calls and the compiled core know these functions.
"""

from __future__ import annotations

_UNDERSCORE = ord("_")
_TRUE = {b"1", b"true", b"yes", b"on"}
_FALSE = {b"0", b"false", b"no", b"off"}


class Expected(ValueError):  # noqa: N818 - its text is what was expected
    """A value is wrong; the text is what it must be."""


def word_to_str(word: bytes) -> str:
    """Return a word as text."""
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise Expected("UTF-8 text") from None


def word_to_bytes(word: bytes) -> bytes:
    """Return a word as it is."""
    return word


def word_to_int(word: bytes) -> int:
    """Return a word as an int."""
    try:
        if _UNDERSCORE not in word:
            return int(word)
    except ValueError:
        pass
    raise Expected("int")


def word_to_float(word: bytes) -> float:
    """Return a word as a float."""
    try:
        if _UNDERSCORE not in word:
            return float(word)
    except ValueError:
        pass
    raise Expected("float")


def word_to_bool(word: bytes) -> bool:
    """Return a truth value, written as 1 or 0, true or false, yes or no, on or off."""
    lower = word.lower()
    if lower in _TRUE:
        return True
    if lower in _FALSE:
        return False
    raise Expected("bool (true or false)")


def word_to_none(word: bytes) -> None:
    """Return None for the word ``null``."""
    if word.lower() != b"null":
        raise Expected("null")
