"""The known name that is nearest to a wrong one, for "did you mean". Pure."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the known name that is nearest to another one; "": none is.

    Args:
        name: What was written.
        known: The names that would be right.
        cutoff: The least similarity, from 0 to 1.
    """
    import difflib  # noqa: PLC0415 - only for an error

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), "")
