"""Child processes by pidfd: signals, death, and copies of their descriptors. Used by the master.

A pid can belong to another process a moment after its process was reaped; a pidfd cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, ClassVar

from linepool.kernel import features
from linepool.kernel.sockets import socket_cookie

_PIDFD_GETFD = 438  # number of the system call, on every architecture (pidfd_getfd(2))
_KILL_WAIT = 0.01  # seconds to wait for a killed process; it takes about 1 ms if a CPU is free

_libc = ctypes.CDLL(None, use_errno=True)


class OpenFiles:
    """The open files of another process, as long as that exists.

    Args:
        pid: Its pid.
        pidfd: Its pidfd.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    def take_descriptor(self, number: int) -> int:
        """Return a copy of one of its descriptors.

        Raises:
            OSError: It has no such descriptor, or the kernel forbids it (EPERM).
        """
        copy: int = _libc.syscall(_PIDFD_GETFD, self.pidfd, number, 0)
        if copy < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return copy

    def sockets(self) -> list[int]:
        """Return the descriptors of its sockets; none, if the kernel does not show them (proc(5), fd)."""
        place, found = f"/proc/{self.pid}/fd", []
        with contextlib.suppress(OSError):
            for name in os.listdir(place):
                with contextlib.suppress(OSError):  # it was closed meanwhile
                    if os.readlink(f"{place}/{name}").startswith("socket:"):
                        found.append(int(name))
        return found

    def take_socket(self, number: int, cookie: int = 0) -> socket.socket | None:
        """Return a copy of one of its sockets, or None: it cannot be copied, or is another by now.

        Args:
            number: Of the descriptor.
            cookie: The socket's; 0: any.
        """
        try:
            copy = self.take_descriptor(number)
        except OSError:
            return None
        try:
            sock = socket.socket(fileno=copy)
        except OSError:  # it is a file by now
            os.close(copy)
            return None
        if not cookie or socket_cookie(sock) == cookie:
            return sock
        sock.close()
        return None


class ChildProcess(OpenFiles):
    """A child process that leads a process group, until it is reaped.

    Args:
        pid: Its pid.
        pidfd: Its pidfd, taken over, if another process has forked it; -1: this one has.

    Attributes:
        unreaped: The pids of all that there are.
    """

    unreaped: ClassVar[set[int]] = set()

    def __init__(self, pid: int, pidfd: int = -1) -> None:
        # Safe from reuse of the pid: the child is not reaped before this object reaps it.
        super().__init__(pid, pidfd if pidfd >= 0 else os.pidfd_open(pid))
        self._reaped = False
        self.unreaped.add(pid)

    @classmethod
    def taken_over(cls, pid: int, pidfd: int) -> ChildProcess:
        """Return a child of this process from before an exec; it may have ended meanwhile.

        Args:
            pid: Its pid.
            pidfd: Taken over.

        Raises:
            ValueError: It is not a child, or was reaped.
        """
        try:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError as error:
            raise ValueError(f"process {pid} is not a child: {error.strerror}") from None
        os.set_inheritable(pidfd, False)
        return cls(pid, pidfd)

    @classmethod
    def ended(cls, pid: int) -> ChildProcess:
        """Return a child that has ended, was reaped and closed."""
        process = cls.__new__(cls)
        process.pid, process.pidfd, process._reaped = pid, -1, True
        return process

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> bool:
        """Kill it and the processes that it has started; return whether it has ended already."""
        self.send(signal.SIGKILL)
        self._kill_group()
        return self.is_dead(_KILL_WAIT)

    def is_dead(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does so within some seconds."""
        if self._reaped:
            return True
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def is_stopped(self) -> bool:
        """Whether it is stopped, by SIGSTOP or a signal like it."""
        if self._reaped:
            return False
        how = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PIDFD, self.pidfd, how) is not None
        except ChildProcessError:  # it has ended
            return False

    def reap(self) -> int | None:
        """Return how the process ended (exit status, or minus the signal), or None: it has not.

        The processes in its group, which it has left behind, are killed. After that only ``is_dead``,
        ``is_stopped`` and ``close`` may be called.
        """
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return None
        self._kill_group()  # before it is reaped: until then its pid cannot be reused
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self._reaped = True
        self.unreaped.discard(self.pid)
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self.pidfd)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    @classmethod
    def look(cls) -> None:
        """Do nothing when SIGCHLD has come: each pidfd tells of its own process."""


if not (TYPE_CHECKING or features.PIDFD):
    from linepool.kernel.kept_process import KeptProcess as ChildProcess
