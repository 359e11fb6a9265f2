"""The bus: messages from any worker to the subscribers in all of them, without a process between.

Made in the master before the first worker, and shared by all of them. Each slot has a region of a
shared page, where its worker keeps what its connections have subscribed to, and a pair of datagram
sockets, through which the others send it messages. To publish, a worker reads the regions and sends one
datagram to each slot with a subscriber. The master only clears the region of a dead worker.

A bus with a bridge has one more slot. Its process gets every message, for other machines, and no worker waits
for it: a worker counts in its own region what did not fit into the queue.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from linepool.errors import ClientError
from linepool.kernel import features
from linepool.kernel.memory_file import memory_file
from linepool.kernel.shared_memory import SharedMemory
from linepool.pubsub.glob import matches
from linepool.pubsub.messages import Message, PubSub

_REGION = 65536  # bytes of a slot; pages that are not touched cost nothing
_HEAD = 4  # words: the sequence (odd: being written), the length, overrun, lost for the bridge
_WORD = 8
_DATAGRAM_BYTES = 65536  # the longest message in a datagram; a longer one goes in a file
_SEND_WAIT = 1.0  # seconds for a worker that does not keep up
_READS = 1000  # of a region that is being written; its worker may have died in the middle
_SIZES = struct.Struct("<I?")
_SEQUENCE, _LENGTH, _OVERRUN, _LOST = range(4)
LAYOUT = f"{_REGION} {_HEAD} {_WORD} {_DATAGRAM_BYTES} {_SIZES.format}"
"""What processes must agree on."""


class Bus:
    """What all workers share: the regions and the sockets.

    Args:
        slots: How many workers can subscribe.
        move: Returns the descriptor that a socket is to have instead of the given one, which it closes; by
            default the given one.
        has_bridge: All messages go to a bridge too.
    """

    def __init__(
        self, slots: int, move: Callable[[int], int] = int, *, has_bridge: bool = False
    ) -> None:
        self._use(slots, SharedMemory(slots * _REGION, "bus"), has_bridge=has_bridge)
        for slot in range(slots + has_bridge):
            # The kernel bounds a queue of datagrams by their number too, often to ten; no worker waits for
            # the bridge, so its queue is one that is bounded by bytes alone.
            kind = socket.SOCK_DGRAM
            if slot == slots and features.SEQPACKET:
                kind = socket.SOCK_SEQPACKET
            ends = socket.socketpair(socket.AF_UNIX, kind)
            reader, writer = [socket.socket(fileno=move(end.detach())) for end in ends]
            reader.setblocking(False)
            writer.setblocking(False)
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _DATAGRAM_BYTES)
            self._pairs.append((reader, writer))

    def _use(self, slots: int, memory: SharedMemory, *, has_bridge: bool) -> None:
        self.slots = slots
        self.has_bridge = has_bridge
        self._memory = memory
        self.page = memory.map
        self._words = memoryview(self.page).cast("Q")
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another process needs to take it over, for JSON, and descriptors; it keeps them."""
        facts = {"slots": self.slots, "bridge": self.has_bridge, "layout": LAYOUT}
        return facts, self.descriptors()

    @classmethod
    def taken_over(
        cls, facts: dict[str, Any], descriptors: list[int], move: Callable[[int], int] = int
    ) -> Bus:
        """Return the bus that another process has handed over.

        Args:
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them. If this raises, some may be closed.
            move: As for a new bus.

        Raises:
            ValueError: It is of other code, or a descriptor is missing.
            OSError: The kernel has no memory for it.
        """
        if facts["layout"] != LAYOUT:
            raise ValueError(f"the bus's layout is another: {facts['layout']!r}, not {LAYOUT!r}")
        slots = facts["slots"]
        has_bridge = facts.get("bridge", False)  # older versions have none
        count = 1 + 2 * (slots + has_bridge)
        if len(descriptors) != count:
            raise ValueError(
                f"a bus of {slots} slots has {count} descriptors, not {len(descriptors)}"
            )
        bus = cls.__new__(cls)
        memory = SharedMemory.attach(descriptors[0], slots * _REGION)
        bus._use(slots, memory, has_bridge=has_bridge)
        ends = [socket.socket(fileno=move(number)) for number in descriptors[1:]]
        for end in ends:
            end.setblocking(False)
            end.set_inheritable(False)
        bus._pairs = list(zip(ends[::2], ends[1::2], strict=True))
        return bus

    def descriptors(self) -> list[int]:
        """Return the descriptors of the memory and of all sockets."""
        sockets = [sock.fileno() for pair in self._pairs for sock in pair]
        return [self._memory.descriptor, *sockets]

    def clear(self, slot: int) -> None:
        """Remove what a dead worker had subscribed to."""
        if slot >= self.slots:
            return
        at = slot * _REGION // _WORD
        for word in (_LENGTH, _OVERRUN, _SEQUENCE):
            self._words[at + word] = 0

    def endpoint(self, slot: int) -> BusEndpoint | None:
        """Return what the new worker in a slot uses, or None: there is no region for it."""
        if slot >= self.slots:
            return None
        self.clear(slot)
        endpoint = BusEndpoint(self, slot, self._pairs[slot][0])
        list(endpoint.messages())  # for the worker before it
        return endpoint

    def bridge_endpoint(self) -> BusEndpoint:
        """Return what the new bridge uses. Pre-condition: ``has_bridge``."""
        endpoint = BusEndpoint(self, self.slots, self._pairs[self.slots][0])
        list(endpoint.messages())  # for the bridge before it
        return endpoint

    def close(self) -> None:
        """Close everything."""
        for pair in self._pairs:
            for sock in pair:
                sock.close()
        self._words.release()
        self.page.close()
        self._memory.close()

    def write(self, slot: int, topics: list[tuple[bool, bytes]]) -> None:
        """Publish what the worker in a slot subscribes to.

        Raises:
            ClientError: It is too long.
        """
        names = [[pattern, name.decode("latin-1")] for pattern, name in topics]
        data = json.dumps(names).encode() if names else b""
        if len(data) > _REGION - _HEAD * _WORD:
            raise ClientError("the subscriptions of this worker's connections are too long")
        at = slot * _REGION // _WORD
        begin = slot * _REGION + _HEAD * _WORD
        self._words[at + _SEQUENCE] |= 1
        self.page[begin : begin + len(data)] = data
        self._words[at + _LENGTH] = len(data)
        self._words[at + _SEQUENCE] += 1

    def topics(self) -> Iterator[tuple[int, list[tuple[bool, bytes]]]]:
        """Yield each slot with subscribers, with their patterns and channels."""
        for slot in range(self.slots):
            if data := self._read(slot):
                try:
                    names = json.loads(data)
                    topics = [(bool(pattern), name.encode("latin-1")) for pattern, name in names]
                except (ValueError, TypeError, AttributeError):
                    continue  # its worker has overwritten it
                yield slot, topics

    def send(self, slot: int, channel: bytes, message: bytes) -> None:
        """Send a message to the worker in a slot; mark the slot if the worker does not keep up."""
        if not self._put(slot, channel, message):
            self._words[slot * _REGION // _WORD + _OVERRUN] = 1

    def _put(
        self, slot: int, channel: bytes, message: bytes, tries: int = 2, wait: float = _SEND_WAIT
    ) -> bool:
        """Put a message into the queue of a slot; return whether there was room for it."""
        is_long = len(message) > _DATAGRAM_BYTES
        datagram = _SIZES.pack(len(channel), is_long) + channel
        files = []
        try:
            if is_long:
                files.append(memory_file("message"))
                with open(files[0], "wb", closefd=False) as file:
                    file.write(message)
            else:
                datagram += message
            return self._sent(self._pairs[slot][1], datagram, files, tries, wait)
        finally:
            for file_number in files:
                os.close(file_number)

    def deliver(self, channel: bytes, message: bytes) -> int:
        """Send a message to all subscribers of this machine; return how many subscriptions it matches."""
        count = 0
        for slot, topics in self.topics():
            if found := len(matching(topics, channel)):
                self.send(slot, channel, message)
                count += found
        return count

    def send_abroad(self, slot: int, channel: bytes, message: bytes) -> None:
        """Send a message of the worker in a slot to the bridge, if there is one, without waiting for it."""
        if self.has_bridge and not self._put(self.slots, channel, message, tries=1, wait=0.0):
            self._words[slot * _REGION // _WORD + _LOST] += 1

    def lost_abroad(self) -> int:
        """Return how many messages the bridge's queue had no room for, since the bus was made."""
        return sum(self._words[slot * _REGION // _WORD + _LOST] for slot in range(self.slots))

    def is_overrun(self, slot: int) -> bool:
        """Whether messages for a slot were lost."""
        return bool(self._words[slot * _REGION // _WORD + _OVERRUN])

    def _sent(
        self, sock: socket.socket, datagram: bytes, files: list[int], tries: int, wait: float
    ) -> bool:
        for _ in range(tries):
            try:
                socket.send_fds(sock, [datagram], files)
            except BlockingIOError:
                if wait:
                    poller = select.poll()
                    poller.register(sock, select.POLLOUT)
                    poller.poll(wait * 1000)
            else:
                return True
        return False

    def _read(self, slot: int) -> bytes:
        """Return what a worker publishes, at a moment when it was not being changed."""
        at = slot * _REGION // _WORD
        begin = slot * _REGION + _HEAD * _WORD
        for _ in range(_READS):
            before = self._words[at + _SEQUENCE]
            length = min(self._words[at + _LENGTH], _REGION - _HEAD * _WORD)
            if not length:
                return b""
            data = self.page[begin : begin + length]
            if not before & 1 and self._words[at + _SEQUENCE] == before:
                return data
        return b""


class BusEndpoint(PubSub):
    """One worker's end of the bus, or the bridge's."""

    def __init__(self, bus: Bus, slot: int, reader: socket.socket) -> None:
        self._bus = bus
        self._slot = slot
        self._reader = reader

    def fileno(self) -> int:
        """Return the descriptor that is readable when messages wait."""
        return self._reader.fileno()

    def subscribe(self, topics: list[tuple[bool, bytes]]) -> None:
        """Publish what this worker's connections subscribe to."""
        self._bus.write(self._slot, topics)

    @property
    def overrun(self) -> bool:
        """Whether messages were lost because they were not fetched in time."""
        return self._bus.is_overrun(self._slot)

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the messages that wait: channel and data."""
        with contextlib.suppress(BlockingIOError):
            while True:
                size = _SIZES.size + 2 * _DATAGRAM_BYTES
                datagram, files, _, _ = socket.recv_fds(self._reader, size, 1)
                length, is_long = _SIZES.unpack_from(datagram)
                channel = datagram[_SIZES.size : _SIZES.size + length]
                data = datagram[_SIZES.size + length :]
                for number in files:
                    with open(number, "rb") as file:
                        file.seek(0)
                        data = file.read()
                if not is_long or files:  # else this process has no descriptors left
                    yield channel, data

    def reset(self) -> None:
        """Remove all subscriptions, and the messages that wait."""
        self._bus.clear(self._slot)
        for _ in self.messages():
            pass

    def deliver(self, channel: bytes, message: bytes) -> int:
        """Send a message to all subscribers of this machine; return how many subscriptions it matches."""
        return self._bus.deliver(channel, message)

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message to all subscribers; return how many subscriptions it matches."""
        count = self.deliver(channel, message)
        self._bus.send_abroad(self._slot, channel, message)
        return count

    def receivers(self, channel: bytes) -> int:
        """Return how many subscriptions a message would go to."""
        return sum(len(matching(topics, channel)) for _, topics in self._bus.topics())

    def channels(self, pattern: bytes = b"*") -> list[bytes]:
        """Return the channels that have subscribers."""
        names = {
            name
            for _, topics in self._bus.topics()
            for is_pattern, name in topics
            if not is_pattern
        }
        return sorted(name for name in names if matches(pattern, name))

    def subscribers(self, channel: bytes) -> int:
        """Return how many subscriptions there are to a channel by its name."""
        return sum(topics.count((False, channel)) for _, topics in self._bus.topics())

    def patterns(self) -> int:
        """Return how many patterns have subscribers."""
        return len(
            {name for _, topics in self._bus.topics() for is_pattern, name in topics if is_pattern}
        )


def matching(topics: list[tuple[bool, bytes]], channel: bytes) -> list[Message]:
    """Return a message without data for each topic that matches a channel."""
    return [
        Message(channel, b"", name if is_pattern else None)
        for is_pattern, name in topics
        if (matches(name, channel) if is_pattern else name == channel)
    ]
