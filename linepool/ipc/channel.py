"""The channel between two processes: typed messages, and the descriptors that come with them.

Used by workers, the parker and the master. A channel is a pair of SOCK_SEQPACKET sockets (unix(7)):
messages stay whole and in order. Nothing here ever waits.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import math
import os
import select
import socket
import struct
import termios

from linepool.ipc.messages import (
    Configured,
    ConnectionState,
    Message,
    PassedConnection,
    Rejected,
    Returned,
    Stop,
    Waits,
    WakeUp,
    WantsWork,
    WorkerDied,
    WorkerStarted,
)
from linepool.ipc.waiting import MOST_BYTES as MOST_WAITING_BYTES
from linepool.ipc.waiting import Waiting, Wakes, packed_all, unpacked, unpacked_all, unpacked_wakes
from linepool.kernel.features import POLLRDHUP
from linepool.kernel.packets import packet_pair
from linepool.kernel.sealed_file import sealed_file, sealed_size
from linepool.kernel.standard import LAST_STANDARD, moved_away
from linepool.session import Session, unknown_version

WAKE_UP = b"!"
"""The bytes of a message that only ends the receiver's wait: what is new is on the board."""

# What is known of a connection that is passed: its flags.
PARTIAL = 1  # a part of a request has arrived; the deadline is that of the whole one
MORE = 2  # what has arrived has not all been looked at: serve it even if nothing more comes
SERVED = 4  # a request has been answered
NEW = 8  # it has not been greeted
EXPIRED = 16  # its deadline has passed
HEAD = 64  # NEW too, and its PROXY header is yet to come
_AS_FILE = 32  # its state comes as a file; known in this file only


class _Kind:
    """The first byte of a message."""

    CONNECTION, WANTS_WORK, RETURNED, WORKER_STARTED, WORKER_DIED, STOP, CONFIGURED = range(1, 8)
    WAITS, WAKES = 8, 9


# kind, version, flags, number, deadline, accepted_at, cookie, origin
PASSED = struct.Struct("=BBBQddQI")
_VERSION = 1
_VERSION_WAITING = 2  # behind that come the length of the requests that wait, and these
_LENGTH = struct.Struct("=H")
_KIND = struct.Struct("=B")
_KIND_AND_NUMBER = struct.Struct("=BQ")
_KIND_DEAD_WORKER = struct.Struct("=BQQ?")
_INT = struct.Struct("i")
_STATE = struct.Struct("<BI")  # version, length of the session
_STATE_VERSION = 1
# Of state; more goes as a file, because a message must fit the socket's buffer.
_INLINE_BYTES = 32768
_MESSAGE_BYTES = PASSED.size + _LENGTH.size + MOST_WAITING_BYTES + _INLINE_BYTES
_DESCRIPTORS = 2  # of a connection whose state is in a file
MOST_DESCRIPTORS = 64
"""In one message."""
_CONTROL_BYTES = socket.CMSG_SPACE(MOST_DESCRIPTORS * _INT.size)
_FLAGS = socket.MSG_DONTWAIT | int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
"""Without the latter, every program that a handler starts would inherit the client's connection."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    ends = packet_pair()
    for end in ends:
        end.settimeout(None)  # whatever default the app has set for sockets of its own
    return ends


def end_of(descriptor: int) -> socket.socket:
    """Return the end of a channel that has come as a descriptor."""
    channel = socket.socket(fileno=descriptor)
    channel.settimeout(None)
    return channel


def join_state(session: bytes, protocol: bytes) -> bytes:
    """Return session and protocol of a connection as one piece."""
    return _STATE.pack(_STATE_VERSION, len(session)) + session + protocol


def split_state(data: bytes) -> tuple[bytes, bytes]:
    """Return the session and the protocol that were joined.

    Raises:
        struct.error: The data is not of that form.
        ValueError: It is of an unknown version.
    """
    version, length = _STATE.unpack_from(data)
    if version != _STATE_VERSION:
        raise ValueError(unknown_version(version, _STATE_VERSION, "a connection's state"))
    begin = _STATE.size
    return data[begin : begin + length], data[begin + length :]


def session_of(state: ConnectionState) -> Session:
    """Return the session of a connection; an empty one, if the state is malformed."""
    try:
        return Session.load(split_state(state.data)[0])
    except (struct.error, ValueError, TypeError, RecursionError):
        return Session()


def first_state(
    session: Session, flags: int, since: float, idle_timeout: float, origin: int
) -> ConnectionState:
    """Return the state of a connection that has not been served by this process.

    Args:
        session: What it remembers.
        flags: A sum of the constants above.
        since: When it was accepted or last served; monotonic, in seconds.
        idle_timeout: The setting; in seconds.
        origin: Where the client comes from.
    """
    data = join_state(session.dump(), b"")
    return ConnectionState(flags, since + idle_timeout, since, data, origin=origin)


def waiting_of(message: Waits) -> Waiting:
    """Return what a message says of a request that waits. Pre-condition: it says something."""
    return unpacked(message.waiting)


def send(channel: socket.socket, message: Message) -> bool:
    """Send a message; the sender keeps its descriptor. Return whether it is on its way.

    If it is not, the channel or the kernel is full, or the other end is closed.
    """
    try:
        if isinstance(message, PassedConnection):
            _send_connection(channel, message)
        elif isinstance(message, WorkerStarted):
            head = _KIND_AND_NUMBER.pack(_Kind.WORKER_STARTED, message.slot)
            _send_with(channel, [head], [message.channel])
        elif isinstance(message, Configured):
            _send_with(channel, [_KIND.pack(_Kind.CONFIGURED)], message.descriptors)
        else:
            channel.send(_encoded(message), socket.MSG_DONTWAIT)
    except OSError:  # EAGAIN; ETOOMANYREFS and EMFILE, at a limit; EPIPE
        return False
    return True


def receive(channel: socket.socket, max_state_bytes: int = _INLINE_BYTES) -> Message | None:
    """Return the next message, or None: there is none.

    Args:
        channel: This process's end.
        max_state_bytes: A connection with a longer state is rejected unread.

    Raises:
        EOFError: The other end is closed.
    """
    try:
        data, control = _next_message(channel)
    except BlockingIOError:
        return None
    if not data and not control:
        if _is_closed(channel):
            raise EOFError
        return WakeUp()  # an empty message, which looks like an end
    descriptors = array.array("i")
    for _, _, rights in control:
        descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
    received = descriptors.tolist()
    if received and min(received) <= LAST_STANDARD:
        received = _moved_away(received)
    return _parsed(data, received, max_state_bytes)


def _moved_away(descriptors: list[int]) -> list[int]:
    """Return descriptors of which none is a standard one; if there are too few, none, as at a shortage."""
    moved = []
    for number in descriptors:
        with contextlib.suppress(OSError):
            moved.append(moved_away(number) if number <= LAST_STANDARD else number)
    if len(moved) < len(descriptors):
        _close(moved)
        return []
    return moved


def _next_message(channel: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """Return the bytes and the control data of a message; raises BlockingIOError if there is none."""
    try:
        data, control, _, _ = channel.recvmsg(_MESSAGE_BYTES, _CONTROL_BYTES, _FLAGS)
    except ConnectionResetError:
        # The other end was closed with messages of ours unread. The kernel reports that once, ahead of
        # the messages that the other end had sent.
        data, control, _, _ = channel.recvmsg(_MESSAGE_BYTES, _CONTROL_BYTES, _FLAGS)
    return data, control


def close_descriptor(message: Message) -> None:
    """Close the descriptor of a message that is not wanted."""
    if isinstance(message, PassedConnection | Rejected):
        _close([message.descriptor])
    elif isinstance(message, WorkerStarted):
        _close([message.channel])
    elif isinstance(message, Configured):
        _close(message.descriptors)


def _encoded(
    message: WantsWork | Returned | WorkerDied | Stop | Rejected | WakeUp | Waits | Wakes,
) -> bytes:
    match message:
        case WantsWork():
            return _KIND.pack(_Kind.WANTS_WORK)
        case Returned(number):
            return _KIND_AND_NUMBER.pack(_Kind.RETURNED, number)
        case WorkerDied(slot, begun_with, was_busy):
            return _KIND_DEAD_WORKER.pack(_Kind.WORKER_DIED, slot, begun_with, was_busy)
        case Waits(number, waiting):
            return _KIND_AND_NUMBER.pack(_Kind.WAITS, number) + waiting
        case Wakes():
            return _KIND.pack(_Kind.WAKES) + message.packed()
        case Stop():
            return _KIND.pack(_Kind.STOP)
        case _:
            return WAKE_UP


def _send_connection(channel: socket.socket, message: PassedConnection) -> None:
    state, descriptors = message.state, [message.descriptor]
    flags, data = state.flags, state.data
    file = -1
    if len(data) > _INLINE_BYTES:
        file = sealed_file(data)
        flags, data = flags | _AS_FILE, b""
        descriptors.append(file)
    head = PASSED.pack(
        _Kind.CONNECTION,
        _VERSION_WAITING if state.waiting else _VERSION,
        flags,
        message.number,
        state.deadline,
        state.accepted_at,
        state.cookie,
        state.origin,
    )
    if state.waiting:
        waiting = packed_all(state.waiting)
        head += _LENGTH.pack(len(waiting)) + waiting
    try:
        _send_with(channel, [head, data], descriptors)
    finally:
        if file >= 0:
            os.close(file)


def _send_with(channel: socket.socket, parts: list[bytes], descriptors: list[int]) -> None:
    rights = array.array("i", descriptors)
    channel.sendmsg(parts, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT)


def _is_closed(channel: socket.socket) -> bool:
    """Whether the other end is closed, and only empty messages are left."""
    if _INT.unpack(fcntl.ioctl(channel, termios.FIONREAD, bytes(_INT.size)))[0]:
        return False
    poller = select.poll()
    poller.register(channel, select.POLLIN | POLLRDHUP)
    return any(event & (select.POLLHUP | POLLRDHUP) for _, event in poller.poll(0))


def _parsed(data: bytes, descriptors: list[int], max_state_bytes: int) -> Message:
    """Return a message; it takes over the descriptor that belongs to it, the others are closed."""
    message: Message = WakeUp()
    try:
        match data[0]:
            case _Kind.CONNECTION:
                message = Rejected("malformed")
                message = _passed(data, descriptors, max_state_bytes)
            case _Kind.WANTS_WORK:
                message = WantsWork()
            case _Kind.RETURNED:
                message = Returned(_KIND_AND_NUMBER.unpack(data)[1])
            case _Kind.WORKER_STARTED:
                slot = _KIND_AND_NUMBER.unpack(data)[1]
                message = WorkerStarted(slot, descriptors.pop(0) if descriptors else -1)
            case _Kind.WORKER_DIED:
                message = WorkerDied(*_KIND_DEAD_WORKER.unpack(data)[1:])
            case _Kind.WAITS | _Kind.WAKES:
                message = _waits_or_wakes(data)
            case _Kind.STOP:
                message = Stop()
            case _Kind.CONFIGURED:
                message, descriptors = Configured(descriptors), []
            case _:
                pass
    except (struct.error, ValueError, OSError, IndexError):
        pass  # malformed
    _close(descriptors)
    return message


def _waits_or_wakes(data: bytes) -> Waits | Wakes:
    """Return a message about requests that wait; raises as ``_passed``."""
    if data[0] == _Kind.WAKES:
        return unpacked_wakes(data[_KIND.size :])
    number, waiting = _KIND_AND_NUMBER.unpack_from(data)[1], data[_KIND_AND_NUMBER.size :]
    if waiting:
        unpacked(waiting)
    return Waits(number, waiting)


def _passed(
    data: bytes, descriptors: list[int], max_state_bytes: int
) -> PassedConnection | Rejected:
    """Return a connection; takes its descriptor out of the list.

    Raises:
        struct.error, ValueError, OSError, IndexError: The message is malformed.
    """
    if data[1] not in (_VERSION, _VERSION_WAITING):
        why = unknown_version(data[1], _VERSION, "a passed connection")
        return Rejected(why, descriptors.pop(0) if descriptors else -1)
    _, version, flags, number, deadline, accepted_at, cookie, origin = PASSED.unpack_from(data)
    content = data[PASSED.size :]
    waiting: list[Waiting] = []
    if version == _VERSION_WAITING:
        begin = _LENGTH.size
        end = begin + _LENGTH.unpack_from(content)[0]
        waiting, content = unpacked_all(content[begin:end]), content[end:]
    if math.isnan(deadline) or math.isnan(accepted_at):  # which would spoil every order of time
        raise ValueError
    is_whole = True
    if flags & _AS_FILE:
        flags -= _AS_FILE
        is_whole = len(descriptors) == _DESCRIPTORS
        if is_whole:
            size = sealed_size(descriptors[-1])
            if size > max_state_bytes:
                why = f"its state is longer than {max_state_bytes} bytes"
                return Rejected(why, descriptors.pop(0), number)
            content = os.pread(descriptors[-1], size, 0)
    state = ConnectionState(flags, deadline, accepted_at, content, cookie, origin, waiting)
    return PassedConnection(state, descriptors.pop(0) if descriptors and is_whole else -1, number)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
