"""Which system calls there are. What does without one of them asks here, and nowhere else.

Looked at once, when a process starts. Linux has them all. On other POSIX systems, such as macOS and the BSDs,
none of them is used, even where there is one of the same name: it may take or return something else, as
TCP_INFO and SO_PEERCRED do. They run the scheme ``accept``. With ``LINEPOOL_PORTABLE=1`` Linux does the same,
so that what other systems run can be tested there.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys

VARIABLE = "LINEPOOL_PORTABLE"
"""1: none of these system calls is used, in this process and in those that it starts."""

IS_FORCED = os.environ.get(VARIABLE, "").strip() not in ("", "0")
"""They are not used, though this is Linux."""

_LINUX = sys.platform == "linux" and not IS_FORCED


def _has(module: object, *names: str) -> bool:
    return _LINUX and all(hasattr(module, name) for name in names)


PIDFD = _has(os, "pidfd_open", "waitid", "P_PIDFD")
PRCTL = _LINUX
TIMER = _LINUX  # timerfd_create(2)
EPOLL = _has(select, "epoll", "EPOLLEXCLUSIVE")
EVENTFD = _has(os, "eventfd")
POLLRDHUP: int = select.POLLRDHUP if _has(select, "POLLRDHUP") else 0
AFFINITY = _has(os, "sched_getaffinity")
O_PATH: int = os.O_PATH if _has(os, "O_PATH") else os.O_RDONLY
FALLOCATE = _has(os, "posix_fallocate")
PIPE2 = _has(os, "pipe2")
PIPE_SIZE = _has(fcntl, "F_GETPIPE_SZ")
MORE_SIGNALS = _has(signal, "SIGPWR", "SIGRTMIN")
SEALS = _has(os, "memfd_create")
SEQPACKET = _has(socket, "SOCK_SEQPACKET")
TCP_INFO = _has(socket, "TCP_INFO", "AF_NETLINK")
CORK = _has(socket, "TCP_CORK")
COOKIE = _has(socket, "SO_PEERCRED", "AF_NETLINK")
PEERCRED = _has(socket, "SO_PEERCRED")
TCP_KEEPIDLE = int(getattr(socket, "TCP_KEEPIDLE", 0) or getattr(socket, "TCP_KEEPALIVE", 0))
"""The option for the first of these times; macOS has another name for it."""
SHUTDOWN = _LINUX
"""accept() gives up after SO_RCVTIMEO, and shutdown() of a listener ends it in all processes: Linux only."""
INHERITED = _LINUX
"""A TCP connection inherits SO_RCVTIMEO of its listener, and not that it does not block; its client has an
address, though it may be gone."""

_COSTS = (
    (
        PIDFD,
        "pidfd",
        "each worker has a process beside it that passes signals on; the client of a killed worker gets no"
        " error line, only the end of its connection; a stopped process (SIGSTOP) is not noticed; no upgrade"
        " (USR2)",
    ),
    (
        PRCTL,
        "prctl",
        "processes that the app leaves behind go to init, not to the master; no settings user and"
        " no_new_privileges",
    ),
    (
        EPOLL,
        "epoll",
        "an idle worker is woken for each new client, and the quickest one accepts it",
    ),
    (
        SEALS,
        "sealed memory",
        "what processes share is in a deleted file in the directory for temporary files",
    ),
    (SEQPACKET, "SOCK_SEQPACKET", "messages between master and loader are streams with lengths"),
    (
        TCP_INFO,
        "TCP_INFO",
        "the backlog counts as 1 while a client waits, so the pool grows one worker at a time; what a request"
        " has waited in the kernel is not known",
    ),
    (
        PEERCRED,
        "SO_PEERCRED",
        "the pid of a unix socket's client is not known; its uid only with getpeereid",
    ),
    (
        SHUTDOWN,
        "shutdown of listeners",
        "a worker looks for the end of its listeners four times a second; clients that connect during a stop"
        " while the last requests run are reset at its end",
    ),
)


def missing() -> list[tuple[str, str]]:
    """Return what this system does not have, each with what that costs."""
    return [(name, cost) for is_there, name, cost in _COSTS if not is_there]


def why_accept_only() -> str:
    """Return which system calls are missing that the schemes shared and dispatch need; "": none."""
    needed = ((PIDFD, "pidfd"), (EPOLL, "epoll"), (SEALS, "memfd"), (SEQPACKET, "SOCK_SEQPACKET"))
    names = [name for is_there, name in (*needed, (EVENTFD, "eventfd")) if not is_there]
    return ", ".join(names)
