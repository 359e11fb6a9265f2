"""The keeper of a process: its parent, where the master cannot be that and has no pidfd of it.

Runs between the loader and each worker, and the observer, on systems without pidfd and subreapers. It sends
the process the signals that the master asks for, never after it was reaped, and tells the master how it has
ended. When the master has ended, it closes the life line of the process, which so learns of it. It ends with
the process, whose group it kills then. All its other descriptors are closed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from attrs import frozen

from linepool.kernel.pipes import quick_pipe

KILL_GROUP = 255
"""What the master writes to have the process group killed; a smaller number is that of a signal."""

STATUS = struct.Struct("@i")
"""What the keeper writes when the process has ended: its exit status, or minus the signal that ended it."""

_MOST_FILES = 4096  # descriptors that are closed, for this system may not list the open ones
_STANDARD = 3


@frozen
class Kept:
    """What a process has of its keeper.

    Attributes:
        keeper: Its pid.
        handle: The master's end of the socket to the keeper; to be passed on or closed.
        life: Readable when the master has ended, or the keeper.
    """

    keeper: int
    handle: int
    life: int


def become_keeper(at_masters_end: signal.Signals, tell: Callable[[int, int], None]) -> Kept:
    """Fork a process, and keep it to its end; return in the new process only.

    Pre-condition: all signals are blocked; they are still in the new process.

    Args:
        at_masters_end: The signal that it gets when the master has ended.
        tell: Called in the keeper with its pid and the handle, or with 0 and the number of an error.
    """
    os.setpgid(0, 0)  # it is not killed with the loader
    wake, waker = quick_pipe()
    life, lifeline = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.settimeout(None)
    signal.signal(signal.SIGCHLD, _noted)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    keeper = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        tell(0, error.errno or 0)
        os._exit(0)
    if pid:
        tell(pid, theirs.fileno())
        _close_all_but({ours.fileno(), wake, waker, lifeline})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        _keep(pid, ours, wake, lifeline, at_masters_end)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for end in (wake, waker, lifeline):
        os.close(end)
    ours.close()
    return Kept(keeper, theirs.detach(), life)


def _keep(
    pid: int, master: socket.socket, wake: int, lifeline: int, at_masters_end: signal.Signals
) -> NoReturn:
    """Do what the master asks until the process has ended."""
    try:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(master, select.POLLIN)
        orders = b""
        while (status := _ended(pid)) is None:
            for order in orders:
                _carry_out(order, pid)
            ready = {descriptor for descriptor, _ in poller.poll()}
            if wake in ready:
                os.read(wake, 512)
            orders = _received(master) if master.fileno() in ready else b""
            if master.fileno() in ready and not orders:  # it has ended
                poller.unregister(master)
                os.close(lifeline)
                orders = bytes([at_masters_end])
        # Its pid may be used again from now on, but hardly within this moment.
        _kill_group(pid)
        with contextlib.suppress(OSError):  # the master has ended
            master.sendall(STATUS.pack(status))
    finally:
        os._exit(0)


def _received(master: socket.socket) -> bytes:
    try:
        return master.recv(64)
    except ConnectionResetError:
        return b""


def _carry_out(order: int, pid: int) -> None:
    """Send a signal. Pre-condition: the process is not reaped, so its pid is its own."""
    with contextlib.suppress(OSError, ValueError):
        if order == KILL_GROUP:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, order)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _ended(pid: int) -> int | None:
    """Reap a process if it has ended; return how, or None: it has not."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _close_all_but(kept: set[int]) -> None:
    """Close all descriptors but the standard ones and some others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    begin = _STANDARD
    for number in sorted(kept):
        os.closerange(begin, number)
        begin = number + 1
    os.closerange(begin, max(begin, min(soft, _MOST_FILES)) if soft > 0 else _MOST_FILES)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the byte in the pipe is the message."""
