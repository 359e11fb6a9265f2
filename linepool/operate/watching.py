"""Reloading what has changed: the master's end of the watcher.

Runs in the master, and in each new watcher until that begins its work.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import selectors
import socket
import time
from collections.abc import Callable, Sequence

from linepool.errors import SetupError
from linepool.ipc.letters import LetterBox
from linepool.kernel.title import set_title
from linepool.master.helper import Helper
from linepool.master.loader_handle import LoaderHandle
from linepool.master.master import Master
from linepool.watcher.watcher import watch

log = logging.getLogger("linepool")

_LOAD_EVERY = 0.5  # seconds, at least, between two loads


class Watching:
    """Has changed files reloaded; what the master's loop watches.

    Args:
        master: The master.
        files: Files that matter beside those of the app's code, such as the configuration.
        become_user: Has a new watcher become the user that serves.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock.
    """

    def __init__(
        self, master: Master, files: Sequence[str], become_user: Callable[[], None]
    ) -> None:
        self.due_at = 0.0
        self._master = master
        self._files = files
        self._become_user = become_user
        self._changed: set[str] = set()  # and not loaded yet
        self._may_load_at = 0.0
        self._told: LoaderHandle | None = None  # the watcher knows what this one has loaded

    def open(self, selector: selectors.BaseSelector) -> None:
        """Prepare the watcher; ``turn`` starts it."""
        self._helper = Helper(
            "watcher",
            selector,
            self._master.close_inherited,
            self._watch,
            self._on_start,
            self._on_end,
            self._hear,
        )

    def turn(self) -> None:
        """Tell the watcher what there is to watch, and reload what has changed."""
        now = time.monotonic()
        if not self._master.stopping:
            self._helper.turn()
            self._tell()
            if self._changed and now >= self._may_load_at:
                changed, self._changed = self._changed, set()
                self._may_load_at = now + _LOAD_EVERY
                self._master.reload.begin_changed(changed)
        self.due_at = self._may_load_at if self._changed else math.inf
        if self._helper.channel is None:
            self.due_at = min(self.due_at, self._helper.start_at)

    def close(self) -> None:
        """End the watcher, in the master."""
        self._helper.close()

    def abandon(self) -> None:
        """Close a new process's copies."""
        self._helper.abandon()

    def _tell(self) -> None:
        """Tell the watcher what has been loaded last, or what could not be, beside what is served."""
        loader, channel = self._master.reload.latest, self._helper.channel
        if channel is None or self._told is loader or not loader.has_tried:
            return
        wanted = {
            "modules": [*self._master.generation.facts.files, *loader.files],
            "files": self._files,
            "patterns": self._master.settings.reload_include,
            "since_ns": loader.started_ns,
        }
        with contextlib.suppress(OSError):  # then in the next turn, or the next watcher
            LetterBox(channel).send("WANTED", wanted)
            self._told = loader

    def _hear(self, channel: socket.socket) -> None:
        """Note what the watcher reports."""
        with contextlib.suppress(EOFError, ValueError, OSError):
            box = LetterBox(channel)
            while letter := box.receive(wait=False):
                self._changed.update(letter.facts["files"])

    def _watch(self, channel: socket.socket) -> None:
        """Be the watcher, to its end."""
        self._become_user()
        set_title("watcher", self._master.generation.facts.name)
        watch(channel)

    def _on_start(self) -> None:
        assert self._helper.channel is not None
        self._helper.channel.setblocking(False)
        self._told = None

    def _on_end(self, how: str) -> bool:
        log.error("watcher died %s", how)
        return not self._master.stopping


def check_watchfiles() -> None:
    """Raise SetupError if the package that the watcher needs is missing."""
    if importlib.util.find_spec("watchfiles") is None:
        error = SetupError("--reload needs watchfiles: pip install 'linepool[reload]'")
        error.is_usage = True
        raise error
