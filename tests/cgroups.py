"""Control groups of the kernel's, for tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

JOIN = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"')
"""What starts a program in a group: its folder and the program's words follow."""


@contextlib.contextmanager
def limited(controller: str, file: str, value: int) -> Iterator[Path]:
    """Give a group of version 1 with a limit; skip the test if it cannot be made.

    Args:
        controller: The controller.
        file: Of the limit, such as ``memory.limit_in_bytes``.
        value: The limit.
    """
    folder = Path(f"/sys/fs/cgroup/{controller}/linepool-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / file).write_text(str(value))
    except OSError as error:
        pytest.skip(f"no cgroup of its own: {error}")
    try:
        yield folder
    finally:
        folder.rmdir()
