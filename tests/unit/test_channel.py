"""The channel: messages and connections arrive whole, and malformed messages do no harm."""

from __future__ import annotations

import array
import contextlib
import os
import resource
import socket
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linepool.ipc import channel as channels
from linepool.ipc.messages import (
    ConnectionState,
    Message,
    PassedConnection,
    Returned,
    Stop,
    WakeUp,
    WantsWork,
    WorkerDied,
    WorkerStarted,
)
from linepool.session import Session

LARGEST = 2**26  # bytes of a state

Channel = tuple[socket.socket, socket.socket]


@contextlib.contextmanager
def open_channel() -> Iterator[Channel]:
    """Give the two ends of a channel."""
    ours, theirs = channels.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def channel() -> Iterator[Channel]:
    """Give the two ends of a channel."""
    with open_channel() as ends:
        yield ends


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """Give something that can be passed."""
    with socket.socket() as sock:
        yield sock


@contextlib.contextmanager
def nothing_leaks() -> Iterator[None]:
    """Fail if there are more descriptors afterwards."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open so many descriptors more, and no other."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count + 1)]
    for number in free:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def is_same(one: int, other: int) -> bool:
    """Whether two descriptors are of the same socket."""
    return os.fstat(one).st_ino == os.fstat(other).st_ino


def all_from(channel: socket.socket) -> list[Message]:
    """Return all messages up to the end."""
    messages = []
    with contextlib.suppress(EOFError):
        while message := channels.receive(channel, LARGEST):
            messages.append(message)
    return messages


def connection_from(channel: socket.socket) -> PassedConnection:
    """Return the next message, which must be a connection."""
    message = channels.receive(channel, LARGEST)
    assert isinstance(message, PassedConnection)
    return message


def give(channel: socket.socket, sock: socket.socket, data: bytes = b"", number: int = 1) -> bool:
    """Send a connection with some state."""
    state = ConnectionState(channels.SERVED, 1.0, 2.0, data)
    return channels.send(channel, PassedConnection(state, sock.fileno(), number))


def send_raw(channel: socket.socket, data: bytes, descriptors: list[int]) -> None:
    """Send anything as a message."""
    rights = array.array("i", descriptors)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    channel.sendmsg([data], control, socket.MSG_DONTWAIT)


# -- round trips

moments = st.floats(allow_nan=False)
numbers = st.integers(0, 2**64 - 1)
contents = st.binary(max_size=300) | st.builds(
    bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(10_000, 20_000)
)
states = st.builds(ConnectionState, st.integers(0, 31), moments, moments, contents, numbers)
plain_messages = st.one_of(
    st.builds(WantsWork),
    st.builds(Returned, numbers),
    st.builds(WorkerDied, numbers, numbers),
    st.builds(Stop),
    st.builds(WakeUp),
)


@given(plain_messages)
def test_a_message_arrives_as_it_was_sent(sent):
    with open_channel() as (ours, theirs), nothing_leaks():
        assert channels.send(ours, sent)

        assert channels.receive(theirs) == sent
        assert channels.receive(theirs) is None


@given(state=states, number=numbers)
def test_a_connection_arrives_as_it_was_sent(state, number):
    with open_channel() as (ours, theirs), nothing_leaks():
        assert channels.send(ours, PassedConnection(state, ours.fileno(), number))

        message = connection_from(theirs)

        assert (message.state, message.number) == (state, number)
        assert is_same(message.descriptor, ours.fileno())
        os.close(message.descriptor)
        assert channels.receive(theirs) is None


@given(slot=numbers)
def test_the_channel_of_a_new_worker_arrives_with_its_slot(slot):
    with open_channel() as (ours, theirs), nothing_leaks():
        assert channels.send(ours, WorkerStarted(slot, ours.fileno()))

        message = channels.receive(theirs, LARGEST)

        assert isinstance(message, WorkerStarted)
        assert message.slot == slot
        assert is_same(message.channel, ours.fileno())
        channels.close_descriptor(message)


@given(session=st.binary(max_size=100), protocol=st.binary(max_size=100))
def test_session_and_protocol_are_joined_and_split(session, protocol):
    assert channels.split_state(channels.join_state(session, protocol)) == (session, protocol)


@pytest.mark.parametrize("size", [32_767, 32_768, 32_769, 212_992, 20_000_000])
def test_a_state_of_any_size_arrives_whole(channel, connection, size):
    ours, theirs = channel
    data = (b"0123456789" * (size // 10 + 1))[:size]
    with nothing_leaks():
        assert give(ours, connection, data)

        message = connection_from(theirs)

        assert message.state == ConnectionState(channels.SERVED, 1.0, 2.0, data)
        assert is_same(message.descriptor, connection.fileno())
        os.close(message.descriptor)


def test_messages_keep_their_order(channel, connection):
    ours, theirs = channel
    sizes = [1, 100_000, 3, 50_000, 0]
    for size in sizes:
        give(ours, connection, b"x" * size, number=size)

    for size in sizes:
        message = connection_from(theirs)
        assert (message.number, len(message.state.data)) == (size, size)
        os.close(message.descriptor)


def test_no_program_inherits_what_was_passed(channel, connection):
    ours, theirs = channel
    connection.set_inheritable(True)
    give(ours, connection)

    message = connection_from(theirs)

    assert not os.get_inheritable(message.descriptor)
    os.close(message.descriptor)


def test_the_sender_keeps_its_descriptor(channel, connection):
    ours, theirs = channel
    give(ours, connection)

    assert connection.getsockname() == ("0.0.0.0", 0)
    os.close(connection_from(theirs).descriptor)


# -- ends, and what looks like one


def test_an_empty_channel_gives_no_message_and_no_end(channel):
    assert channels.receive(channel[0]) is None


def test_an_empty_message_is_not_taken_for_the_end(channel):
    ours, theirs = channel
    ours.send(b"")
    channels.send(ours, WantsWork())

    assert [channels.receive(theirs), channels.receive(theirs)] == [WakeUp(), WantsWork()]
    assert channels.receive(theirs) is None


def test_an_empty_message_with_a_descriptor_is_not_taken_for_the_end(channel, connection):
    ours, theirs = channel
    send_raw(ours, b"", [connection.fileno()])

    with nothing_leaks():
        assert channels.receive(theirs) == WakeUp()
    assert channels.receive(theirs) is None


def test_what_was_sent_before_the_end_comes_first(channel):
    ours, theirs = channel
    for number in range(3):
        channels.send(ours, Returned(number))
    ours.close()

    assert all_from(theirs) == [Returned(0), Returned(1), Returned(2)]
    with pytest.raises(EOFError):
        channels.receive(theirs)


def test_an_empty_message_does_not_hide_those_that_were_sent_before_the_end(channel):
    ours, theirs = channel
    ours.send(b"")
    channels.send(ours, WantsWork())
    ours.close()

    assert all_from(theirs) == [WakeUp(), WantsWork()]


def test_an_end_that_left_messages_unread_is_an_end(channel):
    ours, theirs = channel
    channels.send(theirs, WantsWork())
    ours.close()

    with pytest.raises(EOFError):
        channels.receive(theirs)


def test_a_receiver_that_ends_its_side_still_reads_the_messages_before_that(channel):
    ours, theirs = channel
    channels.send(ours, WantsWork())
    theirs.shutdown(socket.SHUT_RD)

    assert channels.receive(theirs) == WantsWork()
    with pytest.raises(EOFError):
        channels.receive(theirs)


def test_a_message_to_a_closed_end_is_not_sent(channel, connection):
    ours, theirs = channel
    theirs.close()
    with nothing_leaks():
        assert not give(ours, connection, b"x" * 100_000)


@pytest.mark.parametrize("size", [10, 30_000, 100_000])
def test_a_full_channel_takes_no_more_and_loses_nothing(channel, connection, size):
    ours, theirs = channel
    sent = 0
    while give(ours, connection, b"x" * size, number=sent):
        sent += 1

    assert sent >= 5
    with nothing_leaks():
        numbers = []
        for message in all_from(theirs):
            assert isinstance(message, PassedConnection)
            assert message.state.data == b"x" * size
            numbers.append(message.number)
            os.close(message.descriptor)
    assert numbers == list(range(sent))
    assert channels.send(ours, WantsWork())


# -- no descriptor left


def test_a_connection_whose_descriptor_is_lost_arrives_without_it(channel, connection):
    ours, theirs = channel
    give(ours, connection, b"state", number=7)
    with nothing_leaks():
        with descriptors_left(0):
            message = connection_from(theirs)

        assert (message.number, message.descriptor) == (7, -1)


@pytest.mark.parametrize("left", [0, 1])
def test_a_connection_that_has_lost_a_part_of_its_descriptors_arrives_without_any(
    channel, connection, left
):
    ours, theirs = channel
    give(ours, connection, b"x" * 100_000, number=7)
    with nothing_leaks():
        with descriptors_left(left):
            message = connection_from(theirs)

        assert (message.number, message.descriptor) == (7, -1)


def test_the_channel_of_a_worker_that_is_lost_is_reported_as_such(channel, connection):
    ours, theirs = channel
    channels.send(ours, WorkerStarted(3, connection.fileno()))
    with nothing_leaks(), descriptors_left(0):
        assert channels.receive(theirs) == WorkerStarted(3, -1)


def test_a_large_state_for_which_there_is_no_descriptor_is_not_sent(channel, connection):
    ours, theirs = channel
    with nothing_leaks(), descriptors_left(0):
        assert not give(ours, connection, b"x" * 100_000)
        assert channels.receive(theirs) is None


# -- malformed messages

THINGS = ["socket", "pipe", "file", "directory", "event", "write only"]


def things() -> dict[str, int]:
    """Return a descriptor of each kind of thing that can be passed."""
    reader, writer = os.pipe()
    os.close(writer)
    with tempfile.TemporaryFile() as file:
        return {
            "socket": socket.socket().detach(),
            "pipe": reader,
            "file": os.dup(file.fileno()),
            "directory": os.open("/", os.O_RDONLY),
            "event": os.eventfd(0, os.EFD_NONBLOCK),
            "write only": os.open(os.devnull, os.O_WRONLY),
        }


heads = st.builds(
    lambda kind, version, flags, rest: bytes([kind, version, flags]) + rest,
    st.integers(1, 6) | st.integers(0, 255),
    st.just(1) | st.integers(0, 255),
    st.sampled_from([0, 32, 33, 63, 255]) | st.integers(0, 255),
    st.binary(max_size=60),
)


@example(data=bytes([1, 1, 32]) + bytes(32), names=["socket", "directory"])
@example(data=bytes([1, 1, 32]) + bytes(32), names=["socket", "write only"])
@example(data=bytes([1, 1, 32]) + bytes(32), names=["socket", "event"])
@given(data=st.binary(max_size=60) | heads, names=st.lists(st.sampled_from(THINGS), max_size=3))
def test_a_malformed_message_raises_nothing_and_leaks_nothing(data, names):
    with open_channel() as (ours, theirs), nothing_leaks():
        opened = things()
        send_raw(ours, data, [opened[name] for name in names])
        for descriptor in opened.values():
            os.close(descriptor)

        message = channels.receive(theirs, LARGEST)

        assert message is not None
        channels.close_descriptor(message)
        assert channels.receive(theirs) is None


def test_a_session_of_the_largest_size_fits_a_message_with_a_line(channel, connection):
    ours, theirs = channel
    session = Session("1-1", "peer", "listener")
    session["text"] = "x" * 8000
    give(ours, connection, channels.join_state(session.dump(), b"y" * 8192))

    message = connection_from(theirs)

    dumped, rest = channels.split_state(message.state.data)
    assert Session.load(dumped) == session
    assert rest == b"y" * 8192
    os.close(message.descriptor)


def test_what_was_sent_before_an_end_that_left_messages_unread_is_received(channel, connection):
    ours, theirs = channel
    channels.send(theirs, WantsWork())
    for number in range(3):
        give(ours, connection, number=number)
    ours.close()

    with nothing_leaks():
        messages = all_from(theirs)
        assert [one.number for one in messages if isinstance(one, PassedConnection)] == [0, 1, 2]
        for message in messages:
            channels.close_descriptor(message)
