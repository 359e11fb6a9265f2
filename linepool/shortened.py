"""Texts that are too long to be shown: their middle is left out."""

from __future__ import annotations

LONGEST = 16384
"""Characters of an error's text, or of a record of the log."""


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text; of one that is too long, the beginning, how much is left out, and the end."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} ... {len(text) - longest} characters ... {text[-half:]}"
