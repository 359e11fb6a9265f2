"""The connections of this server as the kernel knows them, whichever process holds them.

sock_diag(7) needs no privilege. So a connection costs nothing to be listed: nothing is written down when
it begins or ends, and those of a killed worker are gone at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Iterator

from attrs import frozen

_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_REQUEST, _DUMP = 1, 0x300
_ERROR, _DONE = 2, 3
_HEAD = struct.Struct("=LHHLL")
_TCP_REQUEST = struct.Struct("=BBBxLHH16s16sL8s")
_TCP_ANSWER = struct.Struct("=BBBBHH16s16sLQLLLLL")
_UNIX_REQUEST = struct.Struct("=BBxxLLL8s")
_UNIX_ANSWER = struct.Struct("=BBBxLQ")
_ATTRIBUTE = struct.Struct("=HH")
_OPEN = 1 << 1 | 1 << 8  # established, and closed by the client only
_WANT_INFO = 2  # INET_DIAG_INFO
_UDIAG_SHOW_NAME = 1
_LAST_RECEIVED = struct.Struct("=52xL")  # of struct tcp_info, in ms
_SO_COOKIE = 57
_PIDFD_GETFD = 438
_SOCKET = re.compile(r"socket:\[(\d+)\]\Z")
_INT64_MASK = 2**63 - 1
_TRIES = 4
_PAUSE_S = 0.005


@frozen
class Socket:
    """The server's end of a connection.

    Attributes:
        number: Its number, as in CLIENT ID.
        inode: By which its descriptors are found.
        addr: The client's address.
        laddr: The address that it has connected to.
        unread_bytes: What the client has sent that was not read.
        unsent_bytes: What the client has not acknowledged.
        idle_s: Since when the client has sent nothing.
    """

    number: int
    inode: int
    addr: str
    laddr: str
    unread_bytes: int = 0
    unsent_bytes: int = 0
    idle_s: int = 0


def connections(addresses: Iterable[str]) -> list[Socket]:
    """Return all connections to these addresses (``HOST:PORT``, ``unix:PATH``), the oldest first.

    None are found where the kernel, or a sandbox, does not tell.
    """
    found: list[Socket] = []
    for address in set(addresses):
        port = address.rpartition(":")[2]
        try:
            if "/" in address:
                found += _of_path(address.removeprefix("unix:"))
            elif port.isdigit():
                for family in (socket.AF_INET, socket.AF_INET6):
                    found += _of_port(family, int(port))
        except OSError:
            continue
    return sorted({one.number: one for one in found}.values(), key=lambda one: one.number)


def _of_port(family: int, port: int) -> Iterator[Socket]:
    request = _TCP_REQUEST.pack(
        family,
        socket.IPPROTO_TCP,
        _WANT_INFO,
        _OPEN,
        socket.htons(port),
        0,
        b"",
        b"",
        0,
        b"\xff" * 8,
    )
    for blob in _dump(request):
        _, _, _, _, own_port, port_, own, peer, _, cookie, _, unread, unsent, _, inode = (
            _TCP_ANSWER.unpack_from(blob)
        )
        if inode and socket.ntohs(own_port) == port:  # without an inode, no worker has accepted it
            info = dict(_attributes(blob[_TCP_ANSWER.size :])).get(_WANT_INFO, b"")
            idle_ms = _LAST_RECEIVED.unpack_from(info)[0] if len(info) >= _LAST_RECEIVED.size else 0
            yield Socket(
                cookie & _INT64_MASK,
                inode,
                _shown(family, peer, port_),
                _shown(family, own, own_port),
                unread,
                unsent,
                idle_ms // 1000,
            )


def _of_path(path: str) -> Iterator[Socket]:
    request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 1 << 1, 0, _UDIAG_SHOW_NAME, b"\xff" * 8)
    for blob in _dump(request):
        _, _, _, inode, cookie = _UNIX_ANSWER.unpack_from(blob)
        name = dict(_attributes(blob[_UNIX_ANSWER.size :])).get(0, b"")
        if inode and name.rstrip(b"\0").decode("utf-8", "replace") == path:
            yield Socket(cookie & _INT64_MASK, inode, f"{path}:0", f"{path}:0")


def _dump(request: bytes) -> Iterator[bytes]:
    """Yield the answers to a request for many sockets."""
    head = _HEAD.pack(_HEAD.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1.0)
        netlink.sendall(head + request)
        while True:
            data = netlink.recv(1 << 18)
            while len(data) >= _HEAD.size:
                size, kind, *_ = _HEAD.unpack_from(data)
                if kind in (_DONE, _ERROR) or size < _HEAD.size:
                    return
                yield data[_HEAD.size : size]
                data = data[(size + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : size]
        data = data[(size + 3) & ~3 :]


def _shown(family: int, host: bytes, port: int) -> str:
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(family, host[:4])}:{socket.ntohs(port)}"
    text = socket.inet_ntop(family, host)
    if text.startswith("::ffff:") and "." in text:
        return f"{text.removeprefix('::ffff:')}:{socket.ntohs(port)}"
    return f"[{text}]:{socket.ntohs(port)}"


def end(sockets: Iterable[Socket]) -> int:
    """End connections, whichever of the server's processes holds each; return how many.

    Each holder then reads the end of the stream, and closes. That needs the right to trace processes of
    the same user, which a container or ``kernel.yama.ptrace_scope`` may take away.

    Raises:
        PermissionError: The right is missing.
    """
    wanted = {one.inode: one for one in sockets}
    count = len(wanted)
    for _ in range(_TRIES):  # one that is on its way from process to process is in none of them
        for pid in _processes() if wanted else ():
            for descriptor, inode in _sockets_of(pid):
                one = wanted.get(inode)
                if one is not None and _shut(pid, descriptor, one.number):
                    del wanted[inode]
        if not wanted:
            break
        time.sleep(_PAUSE_S)
    return count - len(wanted)


def _processes() -> list[int]:
    """Return the pids of the processes that may hold connections: all children of the master."""
    master = os.getppid()
    try:
        with open(f"/proc/{master}/task/{master}/children", encoding="ascii") as file:
            return list(map(int, file.read().split()))
    except OSError:
        return [os.getpid()]


def _sockets_of(pid: int) -> Iterator[tuple[int, int]]:
    """Yield the descriptors of a process that are sockets, with their inodes."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            match = _SOCKET.match(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
        if match:
            yield int(name), int(match[1])


def _shut(pid: int, descriptor: int, number: int) -> bool:
    """Shut a connection that a process holds; return whether it was that one."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        own = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, descriptor, 0)
        failure = ctypes.get_errno()
    finally:
        os.close(process)
    if own < 0 and failure in (errno.EPERM, errno.ENOSYS):
        raise PermissionError(failure, os.strerror(failure))
    if own < 0:  # the process has just closed it
        return False
    with socket.socket(fileno=own) as sock:
        cookie = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0]
        if cookie & _INT64_MASK != number:
            return False
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # the client was faster
            return False
    return True
