"""Telling the service manager, such as systemd, how the server is (sd_notify(3)).

Runs in the master, in its loop and never in a thread: a sign of life from a thread would tell nothing of the
loop. What cannot be sent is told later: no state is lost, and the server never waits.
"""

from __future__ import annotations

import logging
import math
import selectors
import time
from collections.abc import Callable, Sequence

from attrs import frozen

from linepool.kernel.notify_socket import NotifySocket
from linepool.master.master import Master
from linepool.operate.supervision import Supervision

log = logging.getLogger("linepool")

_STATUS_EVERY = 1.0  # seconds, at least, between two texts
_RETRY_AFTER = 0.1  # seconds after which a full queue is tried again
_MISSING_AFTER = 5.0  # seconds after which a receiver that is not there is tried again
_STOP_MARGIN = 10.0  # seconds beyond ``graceful_timeout`` in which workers are killed and reaped
_MOST_CHARACTERS = 300  # of an error


@frozen(kw_only=True)
class ServerState:
    """How the server is.

    Attributes:
        ready: At least as many workers as are wanted have come up and live.
        reloads: How many reloads have been asked for so far, those that were refused too.
        reloading: One is under way.
        drained: Its workers are told to leave, or have left, until it is filled again.
        stopping: The server stops.
        generation: The number of the current one.
        workers: Live worker processes.
        busy: Those of them with a request in flight.
        last_error: Why the last reload failed; "": it did not.
        graceful_timeout: Seconds that a stop may take before workers are killed.
    """

    ready: bool
    reloads: int = 0
    reloading: bool = False
    drained: bool = False
    stopping: bool = False
    generation: int
    workers: int
    busy: int
    last_error: str = ""
    graceful_timeout: float


def state_of(master: Master) -> ServerState:
    """Return how a server is."""
    tally = master.scoreboard.tally()
    return ServerState(
        reloads=master.reload.count,
        reloading=master.reload.is_running,
        last_error=master.reload.last_failure,
        ready=tally.total - tally.starting >= master.settings.workers.min,
        drained=master.is_drained,
        stopping=master.stopping,
        generation=master.generation.number,
        workers=tally.total,
        busy=tally.busy,
        graceful_timeout=master.settings.graceful_timeout
        + max(0.0, master.settings.observer_timeout - _STOP_MARGIN / 2),
    )


def notifier(
    master: Master, supervision: Supervision, unwanted: Sequence[str], *, was_ready: bool
) -> Notifier:
    """Return what tells the service manager how a server is; for the arguments, see ``Notifier``."""
    return Notifier(
        supervision.notify_socket,
        lambda: state_of(master),
        supervision.watchdog_s,
        unwanted,
        was_ready=was_ready,
    )


class Notifier:
    """What tells the service manager, as something that the master watches.

    Args:
        path: The manager's socket (NOTIFY_SOCKET): its path, or ``@NAME``.
        look: Returns how the server is.
        watchdog_s: Seconds within which the manager wants a sign of life; 0: it wants none.
        unwanted: Names of descriptors in the manager's store that are of no use.
        was_ready: It has been told by another program that the server is ready.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock.
    """

    def __init__(
        self,
        path: str,
        look: Callable[[], ServerState],
        watchdog_s: float = 0.0,
        unwanted: Sequence[str] = (),
        *,
        was_ready: bool = False,
    ) -> None:
        self.due_at = 0.0
        self._path = path
        self._look = look
        self._every = watchdog_s / 2
        self._alive_due_at = 0.0 if watchdog_s else math.inf
        self._unwanted = list(unwanted)
        self._has_come_up = was_ready  # the first generation
        # What the manager has been told.
        self._is_ready = was_ready
        self._reloads = 0
        self._is_stopping = False
        self._status = ""
        self._status_at = -math.inf
        self._retry_at = -math.inf
        self._is_missing = False

    def open(self, selector: selectors.BaseSelector) -> None:
        """Open the sending end; there is nothing to wait for."""
        del selector
        self._socket = NotifySocket(self._path)

    def close(self) -> None:
        """Close it, in the master."""
        self._socket.close()

    def abandon(self) -> None:
        """Close a new worker's copy."""
        self._socket.close()

    def turn(self) -> None:
        """Tell what has changed, and what is due."""
        now = time.monotonic()
        if now < self._retry_at:
            return
        state = self._look()
        self._has_come_up |= state.ready
        try:
            self._tell(state, now)
        except BlockingIOError:  # its queue is full
            self._retry_at = self.due_at = now + _RETRY_AFTER
        except OSError as error:
            self._retry_at = self.due_at = now + _MISSING_AFTER
            if not self._is_missing:
                log.warning("cannot notify the service manager: %s", error.strerror)
            self._is_missing = True
        else:
            self._is_missing = False

    def _tell(self, state: ServerState, now: float) -> None:
        """Send what is to be told.

        Raises:
            OSError: Some of it could not be sent; what was sent is known.
        """
        while self._unwanted:
            self._socket.send("FDSTOREREMOVE=1", f"FDNAME={self._unwanted[-1]}")
            self._unwanted.pop()
        self._tell_of_reloads(state, now)
        self._tell_of_start_and_end(state, now)
        status = self._text(state)
        may_tell_at = self._status_at + _STATUS_EVERY
        if status != self._status and now >= may_tell_at:
            self._send_status(status, now)
        if now >= self._alive_due_at:
            self._socket.send("WATCHDOG=1")
            self._alive_due_at = now + self._every
        self.due_at = self._alive_due_at
        if status != self._status:
            self.due_at = min(self.due_at, may_tell_at)

    def _tell_of_reloads(self, state: ServerState, now: float) -> None:
        """Tell that a reload has begun; also of one that has ended since the last turn."""
        if state.reloads == self._reloads or not self._is_ready or state.stopping:
            return
        microseconds = time.monotonic_ns() // 1000  # Type=notify-reload needs them in this message
        self._send_status(self._text(state), now, "RELOADING=1", f"MONOTONIC_USEC={microseconds}")
        self._reloads = state.reloads
        self._is_ready = False

    def _tell_of_start_and_end(self, state: ServerState, now: float) -> None:
        if state.stopping and not self._is_stopping:
            # The manager lets it go on beyond a shorter limit of its own (TimeoutStopSec), once.
            microseconds = int((state.graceful_timeout + _STOP_MARGIN) * 1e6)
            self._send_status(
                self._text(state), now, "STOPPING=1", f"EXTEND_TIMEOUT_USEC={microseconds}"
            )
            self._is_stopping = True
        elif self._has_come_up and not (self._is_ready or state.reloading or state.stopping):
            self._send_status(self._text(state), now, "READY=1")
            self._is_ready = True

    def _send_status(self, text: str, now: float, *more: str) -> None:
        self._socket.send(*more, f"STATUS={text}")
        self._status = text
        self._status_at = now

    def _text(self, state: ServerState) -> str:
        if state.stopping:
            prefix = "stopping; "
        elif state.drained:
            prefix = "drained; "
        elif state.reloading:
            prefix = "reloading; "
        else:
            prefix = "" if self._has_come_up else "starting; "
        workers = "1 worker" if state.workers == 1 else f"{state.workers} workers"
        error = " ".join(state.last_error.split())[:_MOST_CHARACTERS]
        suffix = f"; the last reload failed: {error}" if error else ""
        return f"{prefix}{workers}, {state.busy} busy, generation {state.generation}{suffix}"
