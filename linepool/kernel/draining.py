"""The end of listeners without a client that is connected and then reset.

Used by the master. To close a listener resets what is in its backlog, and clients whose handshake is under
way: they are connected as they see it, half a round trip before the server is. So newcomers are turned
away first; the listener is shut when its backlog is empty and no handshake is under way. Workers and the
parker accept until then.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import time
from pathlib import Path

from linepool.kernel.listeners import Listener

log = logging.getLogger("linepool")

_HANDSHAKES = 1.0  # seconds; a client that has not answered by then may never do so
_LOOK_EVERY = 0.01  # seconds


class Draining:
    """The listeners of a server that stops; those that another program owns are not touched.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock; infinite: there is nothing to do.
    """

    def __init__(self, listeners: list[Listener]) -> None:
        self.due_at = math.inf
        self._listeners = [one for one in listeners if one.owned]  # those that are not shut
        self._leaving: list[tuple[Listener, float]] = []
        self._handshakes_until = 0.0

    def begin(self) -> None:
        """Turn newcomers away, unless that has begun."""
        if not self._listeners or self._handshakes_until:
            return
        for listener in self._listeners:
            listener.turn_away()
        self._handshakes_until = time.monotonic() + _HANDSHAKES
        self.due_at = 0.0

    def replace(self, listeners: list[Listener], leaving: list[Listener]) -> None:
        """Note other listeners of the server, which goes on; those that leave are drained alone."""
        for listener in leaving:
            if listener.owned:
                listener.turn_away()
        self._leaving += [(one, time.monotonic() + _HANDSHAKES) for one in leaving]
        self._listeners = [one for one in listeners if one.owned]
        if self._leaving:
            self.due_at = 0.0

    def _drain_leaving(self, now: float) -> None:
        """Shut and close each listener that the server does without, once no client needs it."""
        for leaving in list(self._leaving):
            listener, until = leaving
            if not _is_needed(listener, handshakes_count=now < until):
                listener.shut()
                listener.remove()
                self._leaving.remove(leaving)
                log.info("listener closed address=%s", listener.name)

    def turn(self) -> None:
        """Shut each listener that no client needs any more."""
        now = time.monotonic()
        if now < self.due_at:
            return
        self._drain_leaving(now)
        if not self._handshakes_until:
            self.due_at = now + _LOOK_EVERY if self._leaving else math.inf
            return
        handshakes_count = now < self._handshakes_until
        for listener in list(self._listeners):
            if not _is_needed(listener, handshakes_count=handshakes_count):
                listener.shut()
                self._listeners.remove(listener)
        self.due_at = now + _LOOK_EVERY
        if not self._listeners:
            self.due_at = math.inf
            log.info("listeners closed")

    def end(self) -> None:
        """Shut all of them at once."""
        for listener in self._listeners:
            listener.shut()
        self._listeners.clear()
        self.due_at = math.inf


def _is_needed(listener: Listener, *, handshakes_count: bool) -> bool:
    """Whether clients are in the backlog, or would be if the handshakes under way counted."""
    if listener.is_unix:  # the end keeps its backlog
        return False
    if listener.queue()[0] or (handshakes_count and _has_handshakes(listener)):
        return True
    return bool(listener.queue()[0])  # where a handshake may have ended meanwhile


def _has_handshakes(listener: Listener) -> bool:
    """Whether the handshake of a TCP client is under way (proc(5), net/tcp: state 03)."""
    port = listener.socket.getsockname()[1]
    under_way = re.compile(rb":%04X [0-9A-F]+:[0-9A-F]{4} 03 " % port)
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            if under_way.search(Path("/proc/net", name).read_bytes()):
                return True
    return False
