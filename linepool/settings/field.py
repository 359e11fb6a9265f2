"""How a setting is declared. Pure."""

from __future__ import annotations

from typing import Any

import attrs

from linepool.settings.syntax import Syntax


def setting(
    default: Any,
    parse: Syntax,
    unit: str,
    doc: str,
    *,
    is_early: bool = False,
    per_listener: bool = False,
) -> Any:
    """Return a field of a group of settings.

    Args:
        default: Its value if none is given.
        parse: From text, or a value of the file, to the setting's value; see ``syntax``.
        unit: Of the value, for the documentation.
        doc: What the setting does: a phrase without a full stop.
        is_early: It counts before the app is loaded, so the app cannot set it.
        per_listener: A table ``[[listener]]`` may give it another value for its connections.
    """
    metadata = {
        "parse": parse,
        "unit": unit,
        "doc": doc,
        "is_early": is_early,
        "per_listener": per_listener,
    }
    return attrs.field(default=default, metadata=metadata)
