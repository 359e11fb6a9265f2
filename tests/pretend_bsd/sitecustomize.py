"""Makes the Python that finds this file on its path one of a pretended macOS, or OpenBSD.

Python imports it before anything else. Names that Python does not have on macOS are deleted from its modules;
system calls that are there by other names, files in /proc and abstract sockets fail; a listener behaves as on
macOS, and so does what is accepted from it. With PRETENDED=openbsd8, names stay that a BSD has with another
meaning, others are deleted that OpenBSD lacks, and an IPv6 socket serves IPv6 only. It cannot show what else
differs on a real one.
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

_OF_BSDS = {
    "TCP_INFO",
    "SO_PEERCRED",
    "AF_NETLINK",
    "pipe2",
    "POLLRDHUP",
    "waitid",
    "posix_fallocate",
}
"""Names that some BSD has; what is behind TCP_INFO and SO_PEERCRED there has another layout."""

_SYSTEM = os.environ.get("PRETENDED", "darwin")
_MOST_FILES = 4096  # kern.maxfilesperproc
_LONGEST_PATH = 103  # of a unix socket
_V6ONLY = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
_LIBC = {"prctl", "syscall", "timerfd_create", "timerfd_settime", "getpeereid"}
_KEEP_ALIVE = socket.TCP_KEEPIDLE


def _delete() -> None:
    for module, beginnings in _GONE.items():
        for name in [name for name in vars(module) if name.startswith(beginnings)]:
            if _SYSTEM == "darwin" or name not in _OF_BSDS:
                delattr(module, name)
    vars(selectors)["DefaultSelector"] = selectors.PollSelector
    if _SYSTEM == "darwin":
        vars(socket)["TCP_KEEPALIVE"] = _KEEP_ALIVE  # its name on macOS
    else:
        del socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
    sys.platform = _SYSTEM


class _Library(ctypes.CDLL):
    """The C library without functions of Linux."""

    def __getattr__(self, name: str) -> Any:
        if name in _LIBC:
            raise AttributeError(name)
        return super().__getattr__(name)


def _fail(event: str, arguments: tuple[Any, ...]) -> None:
    """Let system calls fail; an audit hook."""
    if event in ("open", "os.listdir", "os.scandir"):
        path = arguments[0]
        path = os.fsdecode(path) if isinstance(path, bytes | os.PathLike) else path
        if isinstance(path, str) and (path + "/").startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    elif event == "socket.__new__":
        if arguments[1] == socket.AF_UNIX and arguments[2] == socket.SOCK_SEQPACKET:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    elif event in ("socket.bind", "socket.connect") and isinstance(arguments[1], str):
        if arguments[1].startswith("\0"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if len(arguments[1].encode()) > _LONGEST_PATH:
            raise OSError("AF_UNIX path too long")
    elif event == "resource.setrlimit":
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if arguments[0] == resource.RLIMIT_NOFILE and arguments[1][0] > max(soft, _MOST_FILES):
            raise ValueError("current limit exceeds maximum limit")


class _Socket(socket.socket):
    """A socket whose listener is that of macOS."""

    def _accept(self) -> tuple[int, Any]:
        """Accept a connection, which inherits that the listener does not block, but not its timeout.

        Its client has no address if it has left.
        """
        descriptor, address = super()._accept()  # type: ignore[misc]
        os.set_blocking(descriptor, os.get_blocking(self.fileno()))
        sock = socket.socket(fileno=descriptor)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(16))
            sock.getpeername()
        except OSError:
            address = None
        finally:
            sock.detach()
        return descriptor, address

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """Fail where the IPv6 socket is to serve IPv4 too, on OpenBSD."""
        if _SYSTEM != "darwin" and (level, option) == _V6ONLY and not value[0]:
            super().setsockopt(level, option, 1)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().setsockopt(level, option, *value)

    def shutdown(self, how: int) -> None:
        """Fail for a listener, which is not connected."""
        if self.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        super().shutdown(how)


def _listed(path: Any = ".", listdir: Any = os.listdir) -> list[Any]:
    """List what is in a directory; /dev/fd is always the same on FreeBSD and OpenBSD (there up to 63)."""
    is_fixed = path == "/dev/fd" and _SYSTEM != "darwin"
    return ["0", "1", "2"] if is_fixed else listdir(path)


_delete()
vars(os)["listdir"] = _listed
vars(ctypes)["CDLL"] = _Library
vars(socket)["socket"] = _Socket
sys.addaudithook(_fail)
