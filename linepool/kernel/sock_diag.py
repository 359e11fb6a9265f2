"""The accept backlog of a unix listener, by sock_diag(7), which needs no privilege.

Used by the master and by workers that leave. A TCP listener reports its own by TCP_INFO.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_MESSAGE_BYTES = 16  # struct unix_diag_msg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_LENGTHS = struct.Struct("=II")  # struct unix_diag_rqlen: of a listener, queue and limit


def unix_queue(listener: socket.socket) -> tuple[int, int]:
    """Return how many connections are queued, and the limit.

    If the kernel cannot be asked, or no descriptor is left to do it: (1, 0) if connections are waiting.
    """
    inode = os.fstat(listener.fileno()).st_ino
    request = _REQUEST.pack(
        socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, _UDIAG_SHOW_RQLEN, 0xFFFFFFFF, 0xFFFFFFFF
    )
    length = _HEADER.size + len(request)
    header = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with (
        contextlib.suppress(OSError, struct.error),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink,
    ):
        netlink.send(header + request)
        return _parsed(netlink.recv(4096, socket.MSG_DONTWAIT))
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    return len(poller.poll(0)), 0


def _parsed(answer: bytes) -> tuple[int, int]:
    at = _HEADER.size + _MESSAGE_BYTES
    while at + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        if kind == _UNIX_DIAG_RQLEN:
            queued, limit = _LENGTHS.unpack_from(answer, at + _ATTRIBUTE.size)
            return queued, limit
        at += max(4, (length + 3) & ~3)
    return 0, 0
