"""Files that are opened anew on order, because something else renames them: the log, and the trace.

Runs in the master.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("linepool")


class Reopening:
    """The files of one server."""

    def __init__(self) -> None:
        self._files: list[Callable[[], str]] = []

    def add(self, reopen: Callable[[], str]) -> None:
        """Add a file.

        Args:
            reopen: Opens it anew and returns its path, "" if there is no file; raises OSError if it cannot be
                opened, and the server goes on in the old one.
        """
        self._files.append(reopen)

    def run(self) -> tuple[list[str], list[str]]:
        """Open all files anew, and log it; return their paths, and what went wrong, a line for each."""
        paths, errors = [], []
        for reopen in self._files:
            try:
                path = reopen()
            except OSError as error:
                errors.append(f"cannot open {error.filename} anew: {error.strerror}")
                log.error("%s", errors[-1])  # noqa: TRY400 - one line says everything
            else:
                paths += [path] if path else []
        for path in paths:
            log.info("file opened anew path=%s", path)
        if not (paths or errors):
            log.warning("no file to open anew: the log goes to standard error")
        return paths, errors
