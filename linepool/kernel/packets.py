"""Messages with descriptors between two processes: whole, in their order, and with an end (unix(7)).

A pair of SOCK_SEQPACKET sockets has all of that. Where there is none, a pair of streams is used, and each
message follows its length. A byte that only ends a wait needs neither of these functions.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
from collections.abc import Sequence

from linepool.kernel import features

_LENGTH = struct.Struct("=I")
_BUFFER = 256 * 1024  # bytes; macOS has 8 KiB
_REST_WAIT = 5.0  # seconds for the rest of a message that has begun
_INT_BYTES = array.array("i").itemsize
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_LONGEST = 1024 * 1024  # bytes of a message


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    if features.SEQPACKET:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        with contextlib.suppress(OSError):  # it is more than the system allows
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends


def send_packet(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """Send a message; the sender keeps the descriptors.

    Raises:
        OSError: The other end is closed, or the socket is non-blocking and has no room.
    """
    rights = array.array("i", descriptors)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    if features.SEQPACKET:
        sock.sendmsg([data], control)
        return
    rest = memoryview(_LENGTH.pack(len(data)) + data)
    rest = rest[sock.sendmsg([rest], control) :]
    while rest:
        _await(sock, select.POLLOUT)
        with contextlib.suppress(BlockingIOError):
            rest = rest[sock.send(rest) :]


def receive_packet(
    sock: socket.socket, most: int, descriptors: int, flags: int
) -> tuple[bytes, list[int], bool]:
    """Return the next message: its bytes, its descriptors, and whether some of these are lost.

    Args:
        sock: This end.
        most: How many bytes a message has at most.
        descriptors: How many descriptors.
        flags: 0, or MSG_DONTWAIT.

    Returns:
        Without bytes: the other end is closed. The receiver owns the descriptors, which no program inherits.

    Raises:
        BlockingIOError: There is none, and it is not to wait.
        ConnectionResetError: The other end was closed with messages unread; its own come first.
        EOFError: The other end was closed in the middle of a message.
    """
    first = most if features.SEQPACKET else _LENGTH.size
    room = socket.CMSG_SPACE(descriptors * _INT_BYTES)
    data, control, flag, _ = sock.recvmsg(first, room, flags | _CLOEXEC)
    numbers = array.array("i")
    for _, _, rights in control:
        numbers.frombytes(rights[: len(rights) - len(rights) % _INT_BYTES])
    received = numbers.tolist()
    if not _CLOEXEC:
        for number in received:
            os.set_inheritable(number, False)
    if data and not features.SEQPACKET:
        data = _rest(sock, data, _LENGTH.size)
        length = min(_LENGTH.unpack(data)[0], _LONGEST)
        data = _rest(sock, b"", length)
    return data, received, bool(flag & socket.MSG_CTRUNC)


def _rest(sock: socket.socket, data: bytes, length: int) -> bytes:
    """Return data with what belongs to it up to a length."""
    while len(data) < length:
        _await(sock, select.POLLIN)
        with contextlib.suppress(BlockingIOError):
            more = sock.recv(length - len(data), socket.MSG_DONTWAIT)
            if not more:
                raise EOFError
            data += more
    return data


def _await(sock: socket.socket, event: int) -> None:
    """Wait until a message that has begun can go on.

    Raises:
        TimeoutError: The other process does not go on with it.
    """
    poller = select.poll()
    poller.register(sock, event)
    if not poller.poll(_REST_WAIT * 1000):
        raise TimeoutError("the other process does not go on with a message")
