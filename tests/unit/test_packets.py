"""Messages with descriptors between processes: a pair of SOCK_SEQPACKET sockets, or streams with lengths."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from linepool.kernel import features, packets

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["packets", "streams"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """Give the two ends of a channel."""
    monkeypatch.setattr(features, "SEQPACKET", request.param == "packets")
    ours, theirs = packets.packet_pair()
    with ours, theirs:
        yield ours, theirs


def receive(sock: socket.socket, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """Return the next message."""
    return packets.receive_packet(sock, 16384, 4, flags)


def test_messages_stay_apart_and_keep_their_descriptors(ends: Ends):
    ours, theirs = ends
    reader, writer = os.pipe()
    packets.send_packet(ours, b"one", [])
    packets.send_packet(ours, b"two" * 1000, [writer])
    packets.send_packet(ours, b"three", [])
    assert receive(theirs) == (b"one", [], False)
    data, (copy,), is_cut = receive(theirs)
    assert (data, is_cut) == (b"two" * 1000, False)
    assert not os.get_inheritable(copy)
    assert receive(theirs) == (b"three", [], False)
    os.write(copy, b"through it")
    assert os.read(reader, 100) == b"through it"
    for number in (reader, writer, copy):
        os.close(number)


def test_no_message_is_not_the_end(ends: Ends):
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        receive(theirs, socket.MSG_DONTWAIT)
    packets.send_packet(ours, b"last", [])
    ours.close()
    assert receive(theirs)[0] == b"last"
    assert receive(theirs)[0] == b""


def test_a_stream_waits_for_the_rest_of_a_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(features, "SEQPACKET", False)
    ours, theirs = packets.packet_pair()
    ours.setblocking(False)
    data = bytes(range(256)) * 4000  # more than the socket's buffer
    with ours, theirs:
        sender = threading.Thread(target=packets.send_packet, args=(ours, data, []))
        sender.start()
        assert packets.receive_packet(theirs, len(data), 0, 0) == (data, [], False)
        sender.join()


def test_a_message_that_ends_in_its_middle_is_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(features, "SEQPACKET", False)
    ours, theirs = packets.packet_pair()
    with ours, theirs:
        ours.send(b"\x10\0\0\0half")
        ours.close()
        with pytest.raises(EOFError):
            receive(theirs)
