"""Makes the Python that finds this file on its path one of a pretended macOS.

Python imports it before anything else. Names that Python does not have on macOS are deleted from its modules;
system calls that are there by other names, files in /proc and abstract sockets fail; a listener behaves as on
the BSDs. It cannot show what else differs on a real one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import selectors
import signal
import socket
import sys
import time
from typing import Any

_GONE: dict[Any, tuple[str, ...]] = {
    os: (
        *(
            "EFD_",
            "MFD_",
            "P_PIDFD",
            "RWF_",
            "SCHED_BATCH",
            "SCHED_IDLE",
            "SCHED_RESET",
            "SPLICE_F",
        ),
        *("GRND_", "O_DIRECT", "O_LARGEFILE", "O_NOATIME", "O_PATH", "O_RSYNC", "O_TMPFILE"),
        *(
            "POSIX_FADV_",
            "copy_file_range",
            "eventfd",
            "fdatasync",
            "getrandom",
            "getres",
            "getxattr",
        ),
        *("listxattr", "memfd_create", "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate"),
        *(
            "removexattr",
            "sched_get",
            "sched_rr",
            "sched_set",
            "setres",
            "setxattr",
            "splice",
            "waitid",
        ),
    ),
    select: ("EPOLL", "epoll", "POLLMSG", "POLLRDHUP"),
    socket: (
        *("AF_ALG", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "MSG_CMSG_CLOEXEC", "MSG_CONFIRM"),
        *(
            "MSG_ERRQUEUE",
            "MSG_FASTOPEN",
            "MSG_MORE",
            "NETLINK_",
            "SCM_CREDENTIALS",
            "SOCK_CLOEXEC",
        ),
        *(
            "SOCK_NONBLOCK",
            "SO_BINDTODEVICE",
            "SO_DOMAIN",
            "SO_INCOMING_CPU",
            "SO_MARK",
            "SO_PASSCRED",
        ),
        *("SO_PEERCRED", "SO_PEERSEC", "SO_PRIORITY", "SO_PROTOCOL", "TCP_CONGESTION", "TCP_CORK"),
        *(
            "TCP_DEFER_ACCEPT",
            "TCP_INFO",
            "TCP_KEEPIDLE",
            "TCP_LINGER2",
            "TCP_QUICKACK",
            "TCP_SYNCNT",
        ),
        *("TCP_USER_TIMEOUT", "TCP_WINDOW_CLAMP"),
    ),
    signal: (
        "SIGCLD",
        "SIGPOLL",
        "SIGPWR",
        "SIGRT",
        "SIGSTKFLT",
        "pidfd_",
        "sigtimedwait",
        "sigwaitinfo",
    ),
    fcntl: (
        "F_ADD_SEALS",
        "F_GET_SEALS",
        "F_SEAL_",
        "F_GETPIPE",
        "F_SETPIPE",
        "F_SETSIG",
        "F_NOTIFY",
    ),
    mmap: ("MADV_DO", "MADV_DONT", "MADV_HUGE", "MADV_REMOVE", "MAP_POPULATE", "MAP_STACK"),
    resource: ("RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RT", "RLIMIT_SIGPENDING", "prlimit"),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI", "pthread_getcpuclockid"),
}
"""What the names begin with, by module."""

_LIBC = {"prctl", "syscall", "timerfd_create", "timerfd_settime", "getpeereid"}
_KEEP_ALIVE = socket.TCP_KEEPIDLE


def _delete() -> None:
    for module, beginnings in _GONE.items():
        for name in [name for name in vars(module) if name.startswith(beginnings)]:
            delattr(module, name)
    vars(selectors)["DefaultSelector"] = selectors.PollSelector
    vars(socket)["TCP_KEEPALIVE"] = _KEEP_ALIVE  # its name on macOS
    sys.platform = "darwin"


class _Library(ctypes.CDLL):
    """The C library without functions of Linux."""

    def __getattr__(self, name: str) -> Any:
        if name in _LIBC:
            raise AttributeError(name)
        return super().__getattr__(name)


def _fail(event: str, arguments: tuple[Any, ...]) -> None:
    """Let system calls fail; an audit hook."""
    if event in ("open", "os.listdir"):
        path = arguments[0]
        path = os.fsdecode(path) if isinstance(path, bytes | os.PathLike) else path
        if isinstance(path, str) and (path + "/").startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    elif event == "socket.__new__":
        if arguments[1] == socket.AF_UNIX and arguments[2] == socket.SOCK_SEQPACKET:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    elif event in ("socket.bind", "socket.connect") and str(arguments[1]).startswith("\0"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


class _Socket(socket.socket):
    """A socket whose listener is that of the BSDs."""

    def _accept(self) -> tuple[int, Any]:
        """Accept a connection, which inherits that the listener does not block."""
        descriptor, address = super()._accept()  # type: ignore[misc]
        os.set_blocking(descriptor, os.get_blocking(self.fileno()))
        return descriptor, address

    def shutdown(self, how: int) -> None:
        """Fail for a listener, which is not connected."""
        if self.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        super().shutdown(how)


_delete()
vars(ctypes)["CDLL"] = _Library
vars(socket)["socket"] = _Socket
sys.addaudithook(_fail)
