"""The default of what may be left out. Light: clients import it."""

from __future__ import annotations

from typing import Any


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()
"""Of an argument or a field: nothing is sent for it, so the server's own default is its value."""
