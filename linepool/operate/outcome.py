"""What commands for a running server have in common: an outcome as JSON, and how often to look.

Light: the health check imports it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from linepool.errors import SetupError
from linepool.operate.parser import EXIT_FAILURE, EXIT_USAGE
from linepool.operate.terminal import printable


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for it."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, also for an error"
    )


def as_json(act: Callable[[], Mapping[str, Any]]) -> int:
    """Print what an act returns as one JSON object, or why it has failed; return the exit status."""
    status = 0
    try:
        found = {"ok": True, **act()}
    except SetupError as error:
        found = {"ok": False, "error": str(error)}
        status = EXIT_USAGE if error.is_usage else EXIT_FAILURE
    print(printable([json.dumps(found)], sys.stdout))
    return status


def interval(text: str) -> float:
    """Return how many seconds there are between two looks, for ``argparse``."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds from 0.1 to 3600, not {text!r}"
        )
    return seconds
