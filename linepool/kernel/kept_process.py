"""Child processes without pidfds: signals and death. Used by the master.

A child of the master itself is reaped by ``waitpid``, which only the master calls, so its pid is its own
until then. Of a process that the loader has forked the keeper is asked (``keeper``), which is its parent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from typing import ClassVar

from linepool.kernel import keeper
from linepool.kernel.pipes import quick_pipe

_KILL_WAIT = 0.01  # seconds to wait for a killed process
_LOOK_EVERY = 0.005  # seconds between two looks whether a child has ended


class KeptProcess:
    """As ``pidfd.ChildProcess``, and with its methods.

    Args:
        pid: Its pid.
        pidfd: The master's end of the socket to its keeper, taken over; -1: it is a child of this process.

    Attributes:
        pidfd: A descriptor that is readable when it has ended; of a child of this process once ``look`` has
            seen that.
        unreaped: The pids of all that there are.
    """

    unreaped: ClassVar[set[int]] = set()
    _children: ClassVar[dict[int, KeptProcess]] = {}

    def __init__(self, pid: int, pidfd: int = -1) -> None:
        self.pid = pid
        self._status: int | None = None
        self._keeper: socket.socket | None = None
        self._bell = -1  # written to when this process has seen that its child has ended
        if pidfd >= 0:
            self._keeper = socket.socket(fileno=pidfd)
            self._keeper.setblocking(False)
            self.pidfd = pidfd
        else:
            self.pidfd, self._bell = quick_pipe()
            self._children[pid] = self
        self.unreaped.add(pid)

    @classmethod
    def taken_over(cls, pid: int, pidfd: int) -> KeptProcess:
        """Return a process by the end of its keeper's socket; raises ValueError if it is something else."""
        try:
            return cls(pid, pidfd)
        except OSError as error:
            raise ValueError(f"process {pid} has no keeper: {error.strerror}") from None

    @classmethod
    def ended(cls, pid: int) -> KeptProcess:
        """Return a child that has ended, was reaped and closed."""
        process = cls.__new__(cls)
        process.pid, process.pidfd, process._bell, process._keeper = pid, -1, -1, None
        process._status = 0
        return process

    @classmethod
    def look(cls) -> None:
        """Note which children of this process have ended; called when SIGCHLD has come."""
        for process in list(cls._children.values()):
            process._look()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if the process has ended."""
        if self._keeper is not None:
            self._ask(int(number))
        elif not self._look():
            os.kill(self.pid, number)

    def kill(self) -> bool:
        """Kill it and the processes that it has started; return whether it has ended already."""
        if self._keeper is not None:
            self._ask(keeper.KILL_GROUP)
        self.send(signal.SIGKILL)
        if self._keeper is None and not self._look():
            _kill_group(self.pid)
        return self.is_dead(_KILL_WAIT)

    def is_dead(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does so within some seconds."""
        if self._keeper is not None:
            poller = select.poll()
            poller.register(self.pidfd, select.POLLIN)
            return self._status is not None or bool(poller.poll(seconds * 1000))
        give_up_at = time.monotonic() + seconds
        while not self._look():
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(_LOOK_EVERY)
        return True

    def is_stopped(self) -> bool:
        """Return False: that it is stopped is not noticed."""
        return False

    def reap(self) -> int | None:
        """Return how the process ended (exit status, or minus the signal), or None: it has not.

        The processes in its group, which it has left behind, are killed. If its keeper was killed, it
        counts as killed: it leaves by itself then.
        """
        if self._keeper is not None and self._status is None:
            with contextlib.suppress(BlockingIOError):
                self._status = _status(self._keeper)
        if not self._look():
            return None
        self.unreaped.discard(self.pid)
        return self._status

    def take_descriptor(self, _number: int) -> int:
        """Raise OSError: that is not possible."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def take_socket(self, _number: int, _cookie: int) -> socket.socket | None:
        """Return None: that is not possible."""
        return None

    def close(self) -> None:
        """Close the descriptors."""
        self._children.pop(self.pid, None)
        if self._keeper is not None:
            self._keeper.close()
            return
        for end in (self.pidfd, self._bell):
            os.close(end)
        self.pidfd = self._bell = -1

    def _look(self) -> bool:
        """Whether it has ended, as far as is known; a child is reaped then, and its group killed."""
        if self._keeper is not None or self._status is not None:
            return self._status is not None
        found, status = os.waitpid(self.pid, os.WNOHANG)
        if not found:
            return False
        # Its pid may be used again from now on, but hardly within this moment.
        _kill_group(self.pid)
        self._status = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            os.write(self._bell, b"!")
        return True

    def _ask(self, order: int) -> None:
        """Have the keeper do something, unless it has ended."""
        assert self._keeper is not None
        with contextlib.suppress(OSError):
            self._keeper.send(bytes([order]))


def _status(sock: socket.socket) -> int:
    """Return what a keeper has said at its end; raises BlockingIOError if it has not ended."""
    try:
        data = sock.recv(keeper.STATUS.size)
    except ConnectionResetError:
        data = b""
    whole = len(data) == keeper.STATUS.size
    return int(keeper.STATUS.unpack(data)[0]) if whole else -signal.SIGKILL


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
