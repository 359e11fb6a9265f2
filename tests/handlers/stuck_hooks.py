"""A hook that takes as long as the test says."""

from __future__ import annotations

import os
import time

import common  # noqa: F401 - registers its handlers

import linepool


@linepool.on_connect
def greet() -> None:
    """Take some seconds."""
    time.sleep(float(os.environ["GREETING"]))
