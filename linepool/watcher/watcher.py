"""The watcher: tells the master which files of the app have changed.

Runs in a helper process of the master. It loads no code of the app; the package watchfiles is imported here
only. It ends when the master closes the channel, or has ended.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time

from linepool.ipc.letters import LetterBox
from linepool.watcher.files import Files, Wanted, remove_compiled

log = logging.getLogger("linepool")

_SETTLED_MS = 20  # without another event: an editor may write a file in several steps
_LONGEST_MS = 50  # after the first event
_LOOK_EVERY = (
    1.0  # seconds; not every file system tells of changes, and a new directory is not yet watched
)


def watch(channel: socket.socket) -> None:
    """Watch what the master wants to be watched, until it closes the channel."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _Watcher(channel).run()


class _Watcher:
    """The watcher, with its end of the channel to the master."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._box = LetterBox(channel)
        self._files = Files()
        self._can_watch = True
        # Here, because the master does without it.
        from watchfiles import watch as changes_in  # noqa: PLC0415

        self._changes_in = changes_in
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs each change

    def run(self) -> None:
        """Serve the master to its end.

        Raises:
            EOFError, OSError: It has closed the channel.
        """
        while letter := self._box.receive(wait=True):
            self._files.want(Wanted.from_json(letter.facts))
            self._look()
            while not self.is_set():
                self._watch(self._files.directories())

    def is_set(self) -> bool:
        """Whether there is a letter, or the end of the channel; ends the wait of watchfiles."""
        return bool(select.select([self._channel], [], [], 0)[0])

    def _watch(self, directories: set[str]) -> None:
        """Report changes until there is a letter, or there are other directories to watch."""
        if not self._can_watch:
            select.select([self._channel], [], [], _LOOK_EVERY)
            self._look()
            return
        looked_at = 0.0
        try:
            for changes in self._changes_in(
                *sorted(directories),
                watch_filter=None,
                debounce=_LONGEST_MS,
                step=_SETTLED_MS,
                stop_event=self,
                rust_timeout=int(1000 * _LOOK_EVERY),
                yield_on_timeout=True,
                recursive=False,
                ignore_permission_denied=True,
            ):
                now = time.monotonic()
                matters = any(self._files.may_matter(path) for _, path in changes)
                if not matters and now < looked_at + _LOOK_EVERY:
                    continue
                looked_at = now
                self._look()
                if self._files.directories() != directories:
                    return
        except (OSError, RuntimeError) as error:
            if not isinstance(error, FileNotFoundError):  # a directory has just gone
                self._can_watch = False
                log.warning(
                    "the system does not tell of changed files, so they are looked at each %g s: %s",
                    _LOOK_EVERY,
                    error,
                )

    def _look(self) -> None:
        """Report what has changed."""
        if changed := self._files.changed():
            remove_compiled(changed)
            self._box.send("CHANGED", {"files": changed})
