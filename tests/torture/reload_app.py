"""The app of torture_reload.py: that of torture_churn.py, with sessions, and the version of its code.

The test writes the file ``version.py`` beside it, and changes it before each reload.
"""

from __future__ import annotations

import journal_app  # noqa: F401 - registers its handler
import version

import linepool


@linepool.handler
def next_(session: linepool.Session) -> str:
    """Count the requests of this connection; return the count and the version of the code."""
    count = session["count"] = session.get("count", 0) + 1
    return f"{count} {version.NUMBER}"


@linepool.handler("VERSION")
def version_() -> int:
    """Return the version of the code."""
    number: int = version.NUMBER
    return number
