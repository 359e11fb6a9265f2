"""Passing a connection to another process: its descriptor, and what travels with it.

Used by workers, the parker and the master. The channel is a pair of SOCK_SEQPACKET sockets
(unix(7)): messages stay whole and in order. Nothing here ever waits.
"""

from __future__ import annotations

import array
import fcntl
import math
import os
import select
import socket
import stat
import struct
import termios
from enum import IntEnum

from attrs import define

BELL = b"!"
"""A message that says: look at the board."""

_HEAD = struct.Struct("=BBQddQ")  # kind, traits, number, deadline, since, cookie
_INT = struct.Struct("i")
_LARGE = 32768  # bytes of state; more goes as a file, for a message must fit the socket's buffer
_LARGEST = 2**31 - 4096  # bytes of such a file, and of one read(2)
_MOST = _HEAD.size + _LARGE
_DESCRIPTORS = 2
_ROOM = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
"""Without the latter, every program that a handler starts would inherit the client's connection."""


class Kind(IntEnum):
    """What a message is about."""

    CONNECTION = 1  # a connection comes with it
    FREE = 2  # from a worker: it would take connections that wait
    BACK = 3  # from a worker: it cannot begin with the given connection of that number
    HIRED = 4  # from the master: the worker in the slot ``number``; its channel comes with it
    DEAD = 5  # from the master: the worker in the slot ``number`` is dead; see ``Parker``
    STOP = 6  # from the master: end when no client has anything more to say


# What is known of a connection that is passed: its traits.
PARTIAL = 1  # a part of a request has arrived; the deadline is that of the whole one
MORE = 2  # what has arrived is not all looked at: serve it even if nothing more comes
SERVED = 4  # a request has been answered
NEW = 8  # nobody has greeted it
EXPIRED = 16  # its time is up
_AS_FILE = 32  # its state comes as a file


@define
class Baggage:
    """What travels with a connection.

    Attributes:
        traits: What is known of it: a sum of the constants above.
        deadline: When it is closed if nothing comes from the client; monotonic, in seconds.
        since: When it was accepted; monotonic, in seconds.
        state: Its session and its protocol, see ``packed``; nobody but a worker looks into it.
        cookie: The socket's (SO_COOKIE); 0: not known yet.
    """

    traits: int
    deadline: float
    since: float
    state: bytes = b""
    cookie: int = 0


@define
class Message:
    """A message that has come.

    Attributes:
        kind: What it is about; None: it is a bell, or makes no sense.
        descriptors: Those that came with it; the receiver owns them. If there are none though the
            message speaks of one, they are lost: this process may have no more (recvmsg(2),
            MSG_CTRUNC).
    """

    kind: Kind | None
    number: int
    baggage: Baggage
    descriptors: list[int]


_NOTHING = Baggage(0, 0.0, 0.0)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(None)  # whatever default the app has set for sockets of its own
    return ends


def end_of(descriptor: int) -> socket.socket:
    """Return the end of a channel that has come as a descriptor."""
    channel = socket.socket(fileno=descriptor)
    channel.settimeout(None)
    return channel


def packed(session: bytes, protocol: bytes) -> bytes:
    """Return the state of a connection as one piece."""
    return struct.pack("=I", len(session)) + session + protocol


def unpacked(state: bytes) -> tuple[bytes, bytes]:
    """Return session and protocol as they were packed."""
    (length,) = struct.unpack_from("=I", state)
    return state[4 : 4 + length], state[4 + length :]


def send(
    channel: socket.socket,
    kind: Kind,
    number: int = 0,
    baggage: Baggage = _NOTHING,
    descriptors: tuple[int, ...] = (),
) -> bool:
    """Send a message; the sender keeps its descriptors. Return whether it is on its way.

    If not, the channel or the kernel is full, or nobody is at the other end.
    """
    traits, state = baggage.traits, baggage.state
    file = -1
    try:
        if len(state) > _LARGE:
            file = _as_file(state)
            traits, state, descriptors = traits | _AS_FILE, b"", (*descriptors, file)
        head = _HEAD.pack(kind, traits, number, baggage.deadline, baggage.since, baggage.cookie)
        rights = array.array("i", descriptors)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        channel.sendmsg([head, state], control, socket.MSG_DONTWAIT)
    except OSError:  # EAGAIN; ETOOMANYREFS and EMFILE, at a limit; EPIPE
        return False
    finally:
        if file >= 0:
            os.close(file)
    return True


def receive(channel: socket.socket) -> Message | None:
    """Return the next message, or None: there is none.

    Raises:
        EOFError: The other end is closed.
    """
    try:
        data, control, _, _ = channel.recvmsg(_MOST, _ROOM, _FLAGS)
    except BlockingIOError:
        return None
    except ConnectionResetError:  # it was closed with messages of ours unread
        raise EOFError from None
    if not data and not control:
        if _is_closed(channel):
            raise EOFError
        return Message(None, 0, _NOTHING, [])  # an empty message, which looks like an end
    descriptors = array.array("i")
    for _, _, rights in control:
        descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
    return _parsed(data, descriptors.tolist())


def _is_closed(channel: socket.socket) -> bool:
    """Whether the other end is closed, and nothing but empty messages is left."""
    if _INT.unpack(fcntl.ioctl(channel, termios.FIONREAD, bytes(_INT.size)))[0]:
        return False
    poller = select.poll()
    poller.register(channel, select.POLLIN | select.POLLRDHUP)
    return any(event & (select.POLLHUP | select.POLLRDHUP) for _, event in poller.poll(0))


def _parsed(data: bytes, descriptors: list[int]) -> Message:
    try:
        kind, traits, number, deadline, since, cookie = _HEAD.unpack_from(data)
        state = data[_HEAD.size :]
        if math.isnan(deadline) or math.isnan(since):  # which would spoil every order of time
            raise ValueError
        if traits & _AS_FILE:
            traits -= _AS_FILE
            if len(descriptors) == _DESCRIPTORS:
                state = _from_file(descriptors[-1])
                os.close(descriptors.pop())
            else:
                close(descriptors)
                descriptors = []
        baggage = Baggage(traits, deadline, since, state, cookie)
        return Message(Kind(kind), number, baggage, descriptors)
    except (struct.error, ValueError, OSError):  # a bell; else who wrote it has lost its mind
        close(descriptors)
        return Message(None, 0, _NOTHING, [])


def _as_file(state: bytes) -> int:
    """Return the descriptor of a file in memory (memfd_create(2))."""
    number = os.memfd_create("linepool-connection", os.MFD_CLOEXEC)
    with open(number, "wb", buffering=0, closefd=False) as file:
        view = memoryview(state)
        while view:
            view = view[file.write(view) :]
    return number


def _from_file(number: int) -> bytes:
    """Return the content of a file in memory.

    Raises:
        OSError, ValueError: It is something else, which might keep a reader waiting for ever.
    """
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        raise ValueError
    return os.pread(number, status.st_size, 0)


def close(descriptors: list[int]) -> None:
    """Close descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)
