"""Passing a connection: what travels comes whole, and what makes no sense does no harm."""

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

from linepool.ipc import channel as passing
from linepool.ipc.channel import BELL, Baggage, Kind
from linepool.session import Session

Channel = tuple[socket.socket, socket.socket]


@contextlib.contextmanager
def open_channel() -> Iterator[Channel]:
    """Give the two ends of a channel."""
    ours, theirs = passing.pair()
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


def all_from(channel: socket.socket) -> list[passing.Message]:
    """Return all messages up to the end."""
    messages = []
    with contextlib.suppress(EOFError):
        while message := passing.receive(channel):
            messages.append(message)
    return messages


def send_raw(channel: socket.socket, data: bytes, descriptors: list[int]) -> None:
    """Send anything as a message."""
    rights = array.array("i", descriptors)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    channel.sendmsg([data], control, socket.MSG_DONTWAIT)


# -- round trips

moments = st.floats(allow_nan=False)
traits = st.integers(0, 31)
states = st.binary(max_size=300) | st.builds(
    bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(10_000, 20_000)
)


@given(
    kind=st.sampled_from(Kind),
    number=st.integers(0, 2**64 - 1),
    baggage=st.builds(Baggage, traits, moments, moments, state=states),
)
def test_a_message_comes_as_it_was_sent(kind, number, baggage):
    with open_channel() as (ours, theirs), nothing_leaks():
        assert passing.send(ours, kind, number, baggage, (ours.fileno(),))

        message = passing.receive(theirs)

        assert message is not None
        assert (message.kind, message.number, message.baggage) == (kind, number, baggage)
        (copy,) = message.descriptors
        assert is_same(copy, ours.fileno())
        passing.close(message.descriptors)
        assert passing.receive(theirs) is None


@given(session=st.binary(max_size=100), protocol=st.binary(max_size=100))
def test_session_and_protocol_are_packed_as_one(session, protocol):
    assert passing.unpacked(passing.packed(session, protocol)) == (session, protocol)


@pytest.mark.parametrize("size", [32_767, 32_768, 32_769, 212_992, 20_000_000])
def test_a_state_of_any_size_comes_whole(channel, connection, size):
    ours, theirs = channel
    state = (b"0123456789" * (size // 10 + 1))[:size]
    with nothing_leaks():
        baggage = Baggage(passing.SERVED, 1.0, 2.0, state=state)
        assert passing.send(ours, Kind.CONNECTION, 3, baggage, (connection.fileno(),))

        message = passing.receive(theirs)

        assert message is not None
        assert message.baggage == baggage
        assert is_same(message.descriptors[0], connection.fileno())
        passing.close(message.descriptors)


def test_messages_keep_their_order(channel, connection):
    ours, theirs = channel
    sizes = [1, 100_000, 3, 50_000, 0]
    for size in sizes:
        baggage = Baggage(0, 0.0, 0.0, state=b"x" * size)
        passing.send(ours, Kind.CONNECTION, size, baggage, (connection.fileno(),))

    for size in sizes:
        message = passing.receive(theirs)
        assert message is not None
        assert (message.number, len(message.baggage.state)) == (size, size)
        passing.close(message.descriptors)


def test_no_program_inherits_what_was_passed(channel, connection):
    ours, theirs = channel
    connection.set_inheritable(True)
    passing.send(ours, Kind.CONNECTION, 1, descriptors=(connection.fileno(),))

    message = passing.receive(theirs)

    assert message is not None
    assert not os.get_inheritable(message.descriptors[0])
    passing.close(message.descriptors)


def test_the_sender_keeps_its_descriptor(channel, connection):
    ours, theirs = channel
    passing.send(ours, Kind.CONNECTION, 1, descriptors=(connection.fileno(),))

    assert connection.getsockname() == ("0.0.0.0", 0)
    message = passing.receive(theirs)
    assert message is not None
    passing.close(message.descriptors)


# -- ends, and what looks like one


def test_nothing_there_is_no_message_and_no_end(channel):
    assert passing.receive(channel[0]) is None


def test_an_empty_message_is_not_taken_for_the_end(channel):
    ours, theirs = channel
    ours.send(b"")
    passing.send(ours, Kind.FREE)

    kinds = [
        message.kind for message in (passing.receive(theirs), passing.receive(theirs)) if message
    ]

    assert kinds == [None, Kind.FREE]
    assert passing.receive(theirs) is None


def test_an_empty_message_with_a_descriptor_is_not_taken_for_the_end(channel, connection):
    ours, theirs = channel
    send_raw(ours, b"", [connection.fileno()])

    with nothing_leaks():
        message = passing.receive(theirs)

    assert message is not None
    assert (message.kind, message.descriptors) == (None, [])
    assert passing.receive(theirs) is None


def test_what_was_sent_before_the_end_comes_first(channel):
    ours, theirs = channel
    for number in range(3):
        passing.send(ours, Kind.FREE, number)
    ours.close()

    assert [message.number for message in all_from(theirs)] == [0, 1, 2]
    with pytest.raises(EOFError):
        passing.receive(theirs)


def test_an_empty_message_does_not_hide_those_that_were_sent_before_the_end(channel):
    ours, theirs = channel
    ours.send(b"")
    passing.send(ours, Kind.FREE)
    ours.close()

    assert [message.kind for message in all_from(theirs)] == [None, Kind.FREE]


def test_an_end_that_left_messages_unread_is_an_end(channel):
    ours, theirs = channel
    passing.send(theirs, Kind.FREE)
    ours.close()

    with pytest.raises(EOFError):
        passing.receive(theirs)


def test_the_end_that_a_signal_makes_for_itself_comes_behind_the_messages(channel):
    ours, theirs = channel
    passing.send(ours, Kind.FREE)
    theirs.shutdown(socket.SHUT_RD)

    message = passing.receive(theirs)

    assert message is not None
    assert message.kind is Kind.FREE
    with pytest.raises(EOFError):
        passing.receive(theirs)


def test_a_message_to_nobody_is_not_sent(channel, connection):
    ours, theirs = channel
    theirs.close()
    with nothing_leaks():
        baggage = Baggage(0, 0.0, 0.0, state=b"x" * 100_000)
        assert not passing.send(ours, Kind.CONNECTION, 1, baggage, (connection.fileno(),))


@pytest.mark.parametrize("size", [10, 30_000, 100_000])
def test_a_full_channel_takes_no_more_and_loses_nothing(channel, connection, size):
    ours, theirs = channel
    baggage = Baggage(0, 0.0, 0.0, state=b"x" * size)
    sent = 0
    while passing.send(ours, Kind.CONNECTION, sent, baggage, (connection.fileno(),)):
        sent += 1

    assert sent >= 5
    with nothing_leaks():
        numbers = []
        while message := passing.receive(theirs):
            assert message.baggage == baggage
            numbers.append(message.number)
            passing.close(message.descriptors)
    assert numbers == list(range(sent))
    assert passing.send(ours, Kind.FREE)


# -- no descriptor left


def test_a_message_whose_descriptor_is_lost_comes_without_it(channel, connection):
    ours, theirs = channel
    baggage = Baggage(passing.SERVED, 1.0, 2.0, state=b"state")
    passing.send(ours, Kind.CONNECTION, 7, baggage, (connection.fileno(),))
    with nothing_leaks():
        with descriptors_left(0):
            message = passing.receive(theirs)

        assert message is not None
        assert (message.kind, message.number) == (Kind.CONNECTION, 7)
        assert message.descriptors == []


@pytest.mark.parametrize("left", [0, 1])
def test_a_message_that_has_lost_a_part_of_its_descriptors_comes_without_any(
    channel, connection, left
):
    ours, theirs = channel
    baggage = Baggage(passing.SERVED, 1.0, 2.0, state=b"x" * 100_000)
    passing.send(ours, Kind.CONNECTION, 7, baggage, (connection.fileno(),))
    with nothing_leaks():
        with descriptors_left(left):
            message = passing.receive(theirs)

        assert message is not None
        assert (message.kind, message.number) == (Kind.CONNECTION, 7)
        assert message.descriptors == []


def test_a_large_state_for_which_there_is_no_descriptor_is_not_sent(channel, connection):
    ours, theirs = channel
    baggage = Baggage(0, 0.0, 0.0, state=b"x" * 100_000)
    with nothing_leaks(), descriptors_left(0):
        assert not passing.send(ours, Kind.CONNECTION, 1, baggage, (connection.fileno(),))
        assert passing.receive(theirs) is None


# -- nonsense


def test_a_bell_is_a_message_without_a_kind(channel):
    ours, theirs = channel
    ours.send(BELL)

    message = passing.receive(theirs)

    assert message is not None
    assert (message.kind, message.descriptors) == (None, [])


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
    lambda kind, traits, rest: bytes([kind, traits]) + rest,
    st.sampled_from(Kind) | st.integers(0, 255),
    st.sampled_from([0, 32, 33, 63, 255]) | st.integers(0, 255),
    st.binary(min_size=23, max_size=60),
)


@example(data=bytes([Kind.CONNECTION, 32]) + bytes(24), names=["socket", "directory"])
@example(data=bytes([Kind.CONNECTION, 32]) + bytes(24), names=["socket", "write only"])
@example(data=bytes([Kind.CONNECTION, 32]) + bytes(24), names=["socket", "event"])
@given(data=st.binary(max_size=60) | heads, names=st.lists(st.sampled_from(THINGS), max_size=3))
def test_nonsense_makes_no_exception_and_leaks_nothing(data, names):
    with open_channel() as (ours, theirs), nothing_leaks():
        opened = things()
        send_raw(ours, data, [opened[name] for name in names])
        passing.close(list(opened.values()))

        message = passing.receive(theirs)

        assert message is not None
        assert message.kind is not None or not message.descriptors
        passing.close(message.descriptors)
        assert passing.receive(theirs) is None


def test_a_session_of_the_largest_size_fits_a_message_with_a_line(channel, connection):
    ours, theirs = channel
    session = Session("1-1", "peer", "listener")
    session["text"] = "x" * 8000
    state = passing.packed(session.dump(), b"y" * 8192)
    passing.send(
        ours, Kind.CONNECTION, 1, Baggage(0, 0.0, 0.0, state=state), (connection.fileno(),)
    )

    message = passing.receive(theirs)

    assert message is not None
    dumped, rest = passing.unpacked(message.baggage.state)
    assert Session.load(dumped) == session
    assert rest == b"y" * 8192
    passing.close(message.descriptors)
