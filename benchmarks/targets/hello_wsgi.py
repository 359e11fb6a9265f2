"""The smallest WSGI app: what footprint.py has gunicorn serve, and pool_burst.py uWSGI."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

_BLOCK = float(os.environ.get("BLOCK_SECONDS", "0"))


def application(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Block for $BLOCK_SECONDS, then say OK."""
    if _BLOCK:
        time.sleep(_BLOCK)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"OK\n"]
