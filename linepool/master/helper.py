"""A helper: a process that the master keeps alive beside its workers, such as the parker.

Runs in the master, and in each new helper process until that begins its work.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linepool.ipc import channel as channels
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.signals import signal_at_parents_end, signal_name, signals_blocked

log = logging.getLogger("linepool")

_IGNORED = (
    signal.SIGTERM,  # a supervisor may send it to every process of the server
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_SHORT_LIFE = 1.0  # seconds; a process that ended sooner has a fault that the next may have too
_FIRST_PAUSE = 0.1  # seconds before the next one then; half as long again each time ...
_LONGEST_PAUSE = 0.5  # ... up to this: the cause may be a shortage, which may end at any moment
_WAKE_UPS = 512  # more than a channel has room for
_END_WAIT = 1.0  # seconds for a killed process to end


class Helper:
    """A helper process: forked, restarted with a growing pause if it ends, stopped with the server.

    Args:
        name: For the log.
        selector: The master's; it wakes when the process ends, or sends something.
        close_inherited: Called in the new process first: closes its copies of what is the master's.
        work: What the process does, with its end of the channel; it ends when this returns.
        on_start: Called in the master when the process has been forked.
        on_end: Called in the master when it has ended, with how it did; returns whether another one
            is to be started.
        hear: Called in the master with its end of the channel when the process has sent something; None: that
            is read away, for it only ends the master's sleep.

    Attributes:
        process: None: there is none now.
        channel: The master's end of the channel; None: there is no process.
        start_at: When the next process is forked, on the monotonic clock; infinite: there is one, or
            none is wanted.
    """

    def __init__(
        self,
        name: str,
        selector: selectors.BaseSelector,
        close_inherited: Callable[[], None],
        work: Callable[[socket.socket], None],
        on_start: Callable[[], None],
        on_end: Callable[[str], bool],
        hear: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self.channel: socket.socket | None = None
        self.start_at = 0.0
        self._name = name
        self._selector = selector
        self._close_inherited = close_inherited
        self._work = work
        self._on_start = on_start
        self._on_end = on_end
        self._heard = hear or _read_away
        self._master = os.getpid()
        self.process: ChildProcess | None = None
        self._started_at = 0.0
        self._pause = _FIRST_PAUSE

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them."""
        if self.process is None or self.channel is None:
            return {"pid": 0}, []
        facts = {"pid": self.process.pid, "started_at": self._started_at}
        return facts, [self.process.pidfd, self.channel.fileno()]

    def take_over(self, facts: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Go on with the process that another program has handed over, if it had one.

        Raises:
            ValueError: It is not a child of this process.
            OSError: A descriptor is of something else.
        """
        if not facts["pid"]:
            return
        pidfd, channel = descriptors
        self.process = ChildProcess.taken_over(facts["pid"], pidfd)
        os.set_inheritable(channel, False)
        self._started_at = facts["started_at"]
        self.start_at = math.inf
        self._watch(channels.end_of(channel))

    def turn(self) -> None:
        """Fork the process if it is time to."""
        if time.monotonic() >= self.start_at:
            self.start_at = math.inf
            try:
                self._start()
            except OSError as error:
                log.error("cannot fork the %s: %s", self._name, error.strerror)  # noqa: TRY400
                self.start_at = time.monotonic() + self._next_pause()

    def keep_no_more(self) -> None:
        """Do not restart the process when it ends."""
        self.start_at = math.inf

    def kill(self) -> None:
        """Kill the process, if there is one."""
        if self.process is not None:
            self.process.send(signal.SIGKILL)

    def close(self) -> None:
        """Kill the process, reap it and close everything, in the master."""
        if self.process is not None:
            self.process.send(signal.SIGKILL)
            self.process.is_dead(_END_WAIT)
            self.process.reap()
        self.abandon()

    def abandon(self) -> None:
        """Close this process's copies of everything, also in a new worker."""
        if self.process is not None:
            self.process.close()
        if self.channel is not None:
            self.channel.close()

    def _start(self) -> None:
        ours, theirs = channels.pair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with signals_blocked():
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    self._become_helper(theirs)
            undo.callback(os.waitpid, pid, 0)
            undo.callback(os.kill, pid, signal.SIGKILL)
            self.process = ChildProcess(pid)
            undo.pop_all()
        self._started_at = time.monotonic()
        self._watch(ours)
        self._on_start()

    def _watch(self, channel: socket.socket) -> None:
        assert self.process is not None
        self.channel = channel
        self._selector.register(self.process.pidfd, selectors.EVENT_READ, self._ended)
        self._selector.register(channel, selectors.EVENT_READ, self._hear)

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(1.5 * self._pause, _LONGEST_PAUSE)
        return pause

    def _hear(self) -> None:
        if self.channel is not None:  # else its end was noted in the same turn
            self._heard(self.channel)

    def _ended(self) -> None:
        """Note the end of the process; have another one started, if one is wanted."""
        assert self.process is not None
        assert self.channel is not None
        status = self.process.reap()
        if status is None:
            return
        self._selector.unregister(self.process.pidfd)
        self._selector.unregister(self.channel)
        self.process.close()
        self.channel.close()
        self.process = self.channel = None
        how = f"status={status}" if status >= 0 else f"signal={signal_name(-status)}"
        if not self._on_end(how):
            return
        now = time.monotonic()
        if now - self._started_at < _SHORT_LIFE:
            self.start_at = now + self._next_pause()
        else:
            self._pause = _FIRST_PAUSE
            self.start_at = now

    def _become_helper(self, channel: socket.socket) -> None:
        """Turn the new process into the helper, to its end."""
        status = 1
        try:
            self._close_inherited()
            os.setpgid(0, 0)  # ^C at the terminal is meant for the master
            for number in _IGNORED:  # the master says when it is time to end, or its end does
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            signal_at_parents_end(signal.SIGCONT)  # in case it is stopped
            if os.getppid() == self._master:
                self._work(channel)
            status = 0
        except BaseException:
            log.exception("%s failed pid=%d", self._name, os.getpid())
        finally:
            os._exit(status)


def _read_away(channel: socket.socket) -> None:
    """Read wake-ups away: one turn of the master is enough for all that have come meanwhile."""
    with contextlib.suppress(OSError):
        for _ in range(_WAKE_UPS):
            if not channel.recv(64, socket.MSG_DONTWAIT):
                return
