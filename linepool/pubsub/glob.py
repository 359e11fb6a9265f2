r"""Redis' glob patterns: ``*``, ``?``, ``[abc]``, ``[^a-z]``, and ``\`` before an ordinary character."""

from __future__ import annotations


def matches(pattern: bytes, text: bytes) -> bool:
    """Whether a pattern matches the whole of a text.

    The time is at most proportional to the product of both lengths, whatever the pattern.
    """
    at = text_at = 0
    star = star_end = -1  # the last star, and where the text that it matches ends so far
    while text_at < len(text):
        if at < len(pattern) and pattern[at] == _STAR:
            star, star_end = at, text_at
            at += 1
            continue
        after = _match_one(pattern, at, text[text_at]) if at < len(pattern) else 0
        if after:
            at = after
            text_at += 1
        elif star >= 0:  # let the star match one character more
            star_end += 1
            at, text_at = star + 1, star_end
        else:
            return False
    return not pattern[at:].strip(b"*")


_STAR, _ANY, _OPEN, _CLOSE, _NOT, _ESCAPE, _RANGE = b"*?[]^\\-"


def _match_one(pattern: bytes, at: int, char: int) -> int:
    """Match the next part of the pattern with one character; return the place after it, or 0."""
    kind = pattern[at]
    if kind == _ANY:
        return at + 1
    if kind == _OPEN:
        return _match_class(pattern, at + 1, char)
    if kind == _ESCAPE and at + 1 < len(pattern):
        at += 1
    return at + 1 if pattern[at] == char else 0


def _match_class(pattern: bytes, at: int, char: int) -> int:
    """Match a class whose bracket is before ``at``; one that does not close ends with the pattern."""
    wanted = not pattern.startswith(b"^", at)
    at += not wanted
    found = False
    while at < len(pattern) and pattern[at] != _CLOSE:
        if pattern[at] == _ESCAPE and at + 1 < len(pattern):
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
