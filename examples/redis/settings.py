"""Settings that all workers share: texts by name, kept in the store beside the keys.

A change holds from the next transaction of each worker. To read one costs a look-up in the store, for the
worker keeps the settings that it has read last.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txn_base import BaseTxn

_NOTE = b"settings"


class _Kept:
    """What this worker has read last."""

    blob: bytes | None = None
    values: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed


def settings(t: BaseTxn) -> dict[str, str]:
    """Return all settings that have been set; the dict must not be changed."""
    blob = t.note(_NOTE)
    if blob != _Kept.blob:
        _Kept.values = json.loads(blob) if blob else {}
        _Kept.blob = blob
    return _Kept.values


def get_setting(t: BaseTxn, name: str, default: str = "") -> str:
    """Return a setting."""
    return settings(t).get(name, default)


def set_settings(t: BaseTxn, values: dict[str, str]) -> None:
    """Change settings, in a transaction that can write."""
    t.set_note(_NOTE, json.dumps({**settings(t), **values}).encode())
