"""The mark of a function whose command may be run twice for one call; light, for clients import it."""

from __future__ import annotations

import contextlib

_MARK = "__linepool_idempotent__"


def mark(function: object) -> None:
    """Mark a function, or a command of a stub; one without attributes of its own stays as it is."""
    with contextlib.suppress(AttributeError, TypeError):
        setattr(function, _MARK, True)


def is_marked(function: object) -> bool:
    """Whether a function is marked; False for anything else."""
    return getattr(function, _MARK, False)
