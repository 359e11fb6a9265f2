"""The open files of the simulated kernel: channels, connections, listeners and the small ones."""

from __future__ import annotations

import errno
from collections import deque
from typing import Any

from tests.simulation.epolls import ERR, EXCLUSIVE, HUP, IN, OUT, RDHUP, File
from tests.simulation.kernel import Kernel
from tests.simulation.process import Process, error


class Channel(File):
    """One end of a pair of SOCK_SEQPACKET sockets."""

    kind = "channel"
    room = 278
    """Messages that the other end may have unread: measured on Linux."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.peer: Channel | None = None
        self.queue: deque[tuple[bytes, list[File], Process]] = deque()
        self.is_reset = self.has_ended = False

    def events(self) -> int:
        mask = OUT if self.peer is not None and len(self.peer.queue) < self.room else 0
        if self.queue or self.has_ended:
            mask |= IN
        if self.has_ended:
            mask |= HUP | RDHUP | (ERR if self.is_reset else 0)
        return mask

    def send(self, process: Process, data: bytes, files: list[File]) -> int:
        """Send a message with files."""
        if self.peer is None:
            raise error(errno.EPIPE)
        if len(self.peer.queue) >= self.room:
            raise BlockingIOError(errno.EAGAIN, "full")
        for file in files:
            file.refs += 1
        self.peer.queue.append((data, files, process))
        self.peer.changed()
        self.kernel.sent()
        return len(data)

    def receive(self) -> tuple[bytes, list[File], Process | None]:
        """Return the next message, without closing its files."""
        if self.is_reset:  # reported once, ahead of what the other end had sent
            self.is_reset = False
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if self.queue:
            if self.peer is not None:
                self.peer.changed()
            return self.queue.popleft()
        if self.has_ended:
            return b"", [], None
        raise BlockingIOError(errno.EAGAIN, "nothing there")

    def on_last(self, process: Process, how: str) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.peer, peer.has_ended = None, True
            peer.is_reset = bool(self.queue)
            peer.changed()
        queue, self.queue = self.queue, deque()
        for _, files, _ in queue:
            for file in files:
                file.release(process, "unread")


class Stream(File):
    """One end of a connection of a client."""

    kind = "connection"
    is_server = False
    client: Any = None
    holder: Process | None = None
    number = 0
    may_be_lost = False
    room = 1 << 20

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.peer: Stream | None = None
        self.data = bytearray()
        self.has_ended = self.is_reset = self.is_shut = self.resets = False
        self.arrived = self.segments = 0

    def events(self) -> int:
        mask = 0
        if self.peer is None or self.is_shut or len(self.peer.data) < self.room:
            mask |= OUT
        if self.data or self.has_ended or self.is_reset:
            mask |= IN
        if self.has_ended or self.is_reset:
            mask |= RDHUP
        if self.is_reset or (self.has_ended and self.is_shut):
            mask |= HUP | (ERR if self.is_reset else 0)
        return mask

    def send(self, data: bytes) -> int:
        """Send bytes, as far as there is room."""
        if self.is_reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if self.is_shut or self.peer is None:
            raise BrokenPipeError(errno.EPIPE, "closed")
        part = bytes(data[: self.room - len(self.peer.data)])
        if not part:
            raise BlockingIOError(errno.EAGAIN, "full")
        self.peer.data += part
        self.peer.arrived += len(part)
        self.segments += 1
        self.peer.changed()
        return len(part)

    def receive(self, size: int, *, peek: bool = False) -> bytes:
        """Return bytes that have come; b"": the other end has ended its side."""
        if self.is_reset:
            self.is_reset, self.has_ended = False, True
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if self.data:
            part = bytes(self.data[:size])
            if not peek:
                del self.data[:size]
                if self.peer is not None:
                    self.peer.changed()
            return part
        if self.has_ended:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing there")

    @property
    def peer_has_left(self) -> bool:
        """Whether the other end has ended its side."""
        return self.peer is None or self.peer.is_shut

    def shut(self, process: Process) -> None:
        """End this side."""
        if self.peer is None and not self.has_ended:
            raise error(errno.ENOTCONN)
        if self.is_server and not self.is_shut:
            self.kernel.shut(self, process)
        self.is_shut = True
        if self.peer is not None:
            self.peer.has_ended = True
            self.peer.changed()
        self.changed()

    def on_last(self, process: Process, how: str) -> None:
        if self.is_server:
            self.kernel.lost(self, process, how)
        peer, self.peer = self.peer, None
        if peer is None:
            return
        peer.peer = None
        if self.data or self.resets:  # RFC 2525, 2.17
            peer.is_reset = True
            peer.data.clear()
        peer.has_ended = True
        peer.changed()


class ListenQueue(File):
    """A listener."""

    kind = "listener"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.queue: deque[Stream] = deque()
        self.is_shut = self.turns_away = False

    def events(self) -> int:
        if self.is_shut:
            return IN | HUP | RDHUP
        return IN if self.queue else 0

    def connect(self, end: Stream) -> None:
        """Put the server's end of a new connection into the backlog; one thread is woken for it."""
        end.refs += 1
        self.queue.append(end)
        self.changes += 1
        exclusive = []
        for epoll, entries in list(self.sets.items()):
            if any(wanted & EXCLUSIVE for wanted, _ in entries.values()):
                epoll.hot.update(entries)
                exclusive += [one for one in epoll.sleepers if one.sleeps and not one.dead]
            else:
                epoll.happened(entries, IN)
        if exclusive:
            at = self.kernel.choices.below(len(exclusive)) if self.kernel.mean else 0
            self.kernel.wake(exclusive[at])

    def accept(self) -> Stream:
        """Return the first connection of the backlog, with its reference."""
        if self.is_shut:
            raise error(errno.EINVAL)
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        return self.queue.popleft()

    def shut(self, process: Process) -> None:
        """End it, in all processes."""
        self.is_shut = True
        queue, self.queue = self.queue, deque()
        for end in queue:
            end.resets = True
            end.release(process, "shut")
        self.changed()

    def on_last(self, process: Process, how: str) -> None:
        self.shut(process)


class Counter(File):
    """An eventfd."""

    kind = "eventfd"

    def __init__(self, kernel: Kernel, value: int = 0) -> None:
        super().__init__(kernel)
        self.value = value

    def events(self) -> int:
        return OUT | (IN if self.value else 0)


class Pipe(File):
    """One end of a pipe; the bytes are the reader's."""

    kind = "pipe"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.data = bytearray()
        self.reader: Pipe | None = None
        self.has_writer = True

    def events(self) -> int:
        return (IN if self.data else 0) | (0 if self.has_writer else HUP)

    def on_last(self, process: Process, how: str) -> None:
        if self.reader is not None:
            self.reader.has_writer = False
            self.reader.changed()


class Memory(File):
    """A file in memory."""

    kind = "memory"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.data = b""
        self.seals = 0


class ProcessFile(File):
    """What a pidfd refers to."""

    kind = "pidfd"

    def __init__(self, process: Process) -> None:
        super().__init__(process.kernel)
        self.process = process
        self.refs = 1  # the kernel's

    def events(self) -> int:
        return IN if self.process.status is not None else 0
