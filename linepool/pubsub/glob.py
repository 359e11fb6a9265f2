r"""Redis' glob patterns: ``*``, ``?``, ``[abc]``, ``[^a-z]``, and ``\`` before an ordinary character."""

from __future__ import annotations


def matches(pattern: bytes, text: bytes) -> bool:
    """Whether a pattern fits the whole of a text.

    The time is at most the product of both lengths, whatever the pattern.
    """
    at = place = 0
    star = mark = -1  # where to go on if what follows the last star does not fit
    while place < len(text):
        if at < len(pattern) and pattern[at] == _STAR:
            star, mark = at, place
            at += 1
            continue
        behind = _one(pattern, at, text[place]) if at < len(pattern) else 0
        if behind:
            at = behind
            place += 1
        elif star >= 0:
            mark += 1
            at, place = star + 1, mark
        else:
            return False
    return not pattern[at:].strip(b"*")


_STAR, _ANY, _OPEN, _CLOSE, _NOT, _QUOTE, _RANGE = b"*?[]^\\-"


def _one(pattern: bytes, at: int, char: int) -> int:
    """Return where the pattern goes on if its next part fits one character, or 0: it does not."""
    kind = pattern[at]
    if kind == _ANY:
        return at + 1
    if kind == _OPEN:
        return _class(pattern, at + 1, char)
    if kind == _QUOTE and at + 1 < len(pattern):
        at += 1
    return at + 1 if pattern[at] == char else 0


def _class(pattern: bytes, at: int, char: int) -> int:
    """As ``_one``, behind an opening bracket. A class without its end goes to the pattern's end."""
    wanted = not pattern.startswith(b"^", at)
    at += not wanted
    found = False
    while at < len(pattern) and pattern[at] != _CLOSE:
        if pattern[at] == _QUOTE and at + 1 < len(pattern):
            at += 1
            found |= pattern[at] == char
        elif at + 2 < len(pattern) and pattern[at + 1] == _RANGE:
            low, high = sorted((pattern[at], pattern[at + 2]))
            found |= low <= char <= high
            at += 2
        else:
            found |= pattern[at] == char
        at += 1
    return min(at + 1, len(pattern)) if found == wanted else 0
