"""How many lines each kind of event may write into the log, counted for all processes of a server.

The counts are in memory that the processes share. It has a lock, but no process
waits long for it: one that was stopped may have it. Nothing in the page is trusted: a process that writes
nonsense can only cause lines that are missing, or lines too many.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from linepool.kernel.shared_memory import SharedMemory
from linepool.kernel.timer import Timer

WINDOW = 60.0
"""Seconds for which a kind of event is counted."""
REPORTS = 2
"""Lines of each kind within that time that may say how many were left out."""
FIRST_REPORT = 5.0
"""Seconds after which it is said how many were left out; then again at the end of the window."""

_PLACES = 256
_LOCK_TRIES = 50
_LOCK_PAUSE = 0.0001  # seconds
_TRIES = 8  # places looked at for a kind; if all are taken, it is counted with the other such kinds
_OTHERS = "events of further kinds"
_TEXT_BYTES = 88
# The kind, when its window began, when to report; lines written and left out, level, text.
_PLACE = struct.Struct(f"@QddIIII{_TEXT_BYTES}s")
_EPOCH = struct.Struct("@Q")
_EPOCH_AT = (_PLACES + 1) * _PLACE.size
_BYTES = _EPOCH_AT + _EPOCH.size
LAYOUT = f"{_PLACES} {_PLACE.format} {_EPOCH.format}"
_MAX = 2**32 - 1


@frozen
class LeftOut:
    """Some lines that were left out: how many, of which level and kind, within how many seconds."""

    count: int
    level: int
    text: str
    seconds: float


class LogLimit:
    """The counts of all kinds.

    Attributes:
        timer: Ends when ``ended`` has something to yield, or may have.

    Args:
        most: Lines of one kind within the window, for warnings and errors, with the reports; ten times as
            many for events of the level info. 0: no limit. Events of the level debug have none.
    """

    def __init__(self, most: int) -> None:
        self._use(most, SharedMemory(_BYTES, "log"), Timer())

    def _use(self, most: int, memory: SharedMemory, timer: Timer) -> None:
        self._most = most
        self._memory = memory
        self._page = memory.map
        self._look_at = 0.0
        self.timer = timer

    def configure(self, most: int) -> None:
        """Follow another limit from now on; for the argument, see the class."""
        self._most = most

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another process needs to take it over, for JSON, and descriptors; it keeps them."""
        timer = self.timer.fileno()
        descriptors = [self._memory.descriptor, *([timer] if timer >= 0 else [])]
        return {"most": self._most, "layout": LAYOUT}, descriptors

    @classmethod
    def taken_over(cls, facts: dict[str, Any], descriptors: list[int]) -> LogLimit:
        """Return the counts that another process has handed over.

        Args:
            facts: As returned by ``handed_over``; ``most`` may be another.
            descriptors: Likewise; the new object owns them. If this raises, some may be closed.

        Raises:
            ValueError: They are of other code.
            OSError: The kernel has no memory for them.
        """
        if facts["layout"] != LAYOUT:
            raise ValueError(
                f"the layout of the log's counts is another: {facts['layout']!r}, not {LAYOUT!r}"
            )
        limit = cls.__new__(cls)
        limit._use(
            facts["most"], SharedMemory.attach(descriptors[0], _BYTES), Timer(*descriptors[1:])
        )
        return limit

    @property
    def epoch(self) -> int:
        """How often the master has opened the log file anew; it alone sets this."""
        epoch: int = _EPOCH.unpack_from(self._page, _EPOCH_AT)[0]
        return epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        _EPOCH.pack_into(self._page, _EPOCH_AT, epoch)

    def admits(self, level: int, text: str, now: float) -> bool:
        """Count a line; return whether it may be written.

        Args:
            level: Of the event; one of logging's.
            text: What the lines of this kind have in common.
            now: The monotonic clock, in seconds.
        """
        if level < logging.INFO or not self._most:
            return True
        with self._locked():
            return self._count(level, text, now)

    def _count(self, level: int, text: str, now: float) -> bool:
        most = self._most if level > logging.INFO else 10 * self._most
        key = _key(level, text)
        at = self._find(key, now)
        if at is None:
            at, key, text = _PLACES * _PLACE.size, _key(0, _OTHERS), _OTHERS
        kind, since, report_at, written, left_out, _, _, _ = _PLACE.unpack_from(self._page, at)
        if kind != key:
            since = report_at = left_out = 0
        if not now - WINDOW < since <= now:
            since, written = now, 0
        admitted: bool = written < max(1, most - REPORTS)
        if admitted:
            written += 1
        else:
            left_out = min(left_out + 1, _MAX)
            if report_at <= since:  # the first of this window
                report_at = min(now + FIRST_REPORT, since + WINDOW)
            if left_out == 1:
                self.timer.set(FIRST_REPORT)
        data = text.encode("utf-8", "replace")
        _PLACE.pack_into(
            self._page, at, key, since, report_at, written, left_out, level & _MAX, 0, data
        )
        return admitted

    def ended(self, now: float, *, all_kinds: bool = False) -> list[LeftOut]:
        """Return what was left out and is to be reported by now, each once.

        ``all_kinds``: what need not be reported yet too.
        """
        if now < self._look_at and not all_kinds:
            return []  # soon enough, at the next event
        self._look_at = now + 1.0
        next_at, found = math.inf, []
        with self._locked():
            for at in range(0, _EPOCH_AT, _PLACE.size):
                key, since, report_at, written, left_out, level, _, data = _PLACE.unpack_from(
                    self._page, at
                )
                if left_out and (all_kinds or report_at <= now):
                    _PLACE.pack_into(
                        self._page, at, key, since, since + WINDOW, written, 0, level, 0, data
                    )
                    text = data.rstrip(b"\0").decode("utf-8", "replace")
                    found.append(LeftOut(left_out, level, text, max(0.0, now - since)))
                elif left_out:
                    next_at = min(next_at, report_at)
        if next_at < now + WINDOW:
            self.timer.set(next_at - now)
        return found

    def on_timer(self) -> None:
        """Note that the timer has ended: ``ended`` is to look now."""
        self.timer.clear()
        self._look_at = 0.0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from the page, unless one has kept this one from it for some time."""
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.lockf(self._memory.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
            except OSError:  # a handler has closed the descriptor
                break
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._memory.descriptor, fcntl.LOCK_UN)

    def _find(self, key: int, now: float) -> int | None:
        """Return the place of a kind: its own, else the first one that is free, or None."""
        size, free = _PLACE.size, None
        places = [(key + step) % _PLACES * size for step in range(_TRIES)]
        for at in places:
            kind, since, _, _, left_out, _, _, _ = _PLACE.unpack_from(self._page, at)
            if kind == key:
                return at
            if free is None and not left_out and not now - WINDOW < since <= now:
                free = at
        return free


def _key(level: int, text: str) -> int:
    """Return the number of a kind; all processes find the same, which ``hash`` does not do."""
    return zlib.crc32(f"{level} {text}".encode("utf-8", "replace"))
