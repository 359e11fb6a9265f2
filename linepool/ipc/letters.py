"""Letters between the master and a loader: a kind, facts as JSON, and descriptors.

A letter is one or more messages of a SOCK_SEQPACKET channel (unix(7)). Many descriptors go ahead in messages
of their own, and long facts as a sealed file, because each message has its limits. What a loader sends is
checked where it is used: the app's code runs there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define

from linepool.kernel.packets import receive_packet, send_packet
from linepool.kernel.sealed_file import sealed_file, sealed_size

_MOST_DESCRIPTORS = 200  # in one message; the kernel's limit is 253 (unix(7), SCM_RIGHTS)
_INLINE_BYTES = 16384
_MESSAGE_BYTES = _INLINE_BYTES + 1
_LONGEST = 64 * 1024 * 1024  # bytes of facts
_PART, _WHOLE, _FILE = (
    b"+",
    b".",
    b"f",
)  # the first byte: more follows; the facts; they are in a file


@define
class Letter:
    """A letter.

    Attributes:
        kind: What it is about.
        facts: What it says.
        descriptors: They come with it. The receiver owns them.
        is_cut: Some of them are lost, because this process has no descriptor left; then none is given.
    """

    kind: str
    facts: dict[str, Any] = Factory(dict)
    descriptors: list[int] = Factory(list)
    is_cut: bool = False

    def close(self) -> None:
        """Close its descriptors."""
        _close(self.descriptors)
        self.descriptors = []


class LetterBox:
    """One end of a channel for letters.

    Args:
        sock: Taken over.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._received: list[int] = []  # descriptors of a letter that is not complete
        self._is_cut = False

    def fileno(self) -> int:
        """Return the descriptor of this end."""
        return self.socket.fileno()

    def send(self, kind: str, facts: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a letter; the sender keeps the descriptors.

        Raises:
            OSError: The other end is closed, or this one is non-blocking and the channel is full.
        """
        data = json.dumps([kind, facts]).encode()
        left = list(descriptors)
        while len(left) >= _MOST_DESCRIPTORS:
            self._send(_PART, left[:_MOST_DESCRIPTORS])
            del left[:_MOST_DESCRIPTORS]
        if len(data) <= _INLINE_BYTES:
            self._send(_WHOLE + data, left)
            return
        file = sealed_file(data)
        try:
            self._send(_FILE, [*left, file])
        finally:
            os.close(file)

    def receive(self, *, wait: bool) -> Letter | None:
        """Return the next letter, or None: it has not come, or not all of it.

        Args:
            wait: For a letter.

        Raises:
            EOFError: The other end is closed.
            ValueError: A message is not part of a letter.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        while True:
            try:
                data, descriptors, is_cut = receive_packet(
                    self.socket, _MESSAGE_BYTES, _MOST_DESCRIPTORS + 1, flags
                )
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # the other end was closed with letters unread; its own come first
            self._received += descriptors
            self._is_cut = self._is_cut or is_cut
            if not data:
                self._drop()
                raise EOFError
            if data != _PART:
                return self._letter(data)

    def close(self) -> None:
        """Close this end."""
        self._drop()
        self.socket.close()

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        send_packet(self.socket, data, descriptors)

    def _letter(self, data: bytes) -> Letter:
        try:
            text = data[1:]
            if data[:1] == _FILE:
                file = self._received.pop()
                try:
                    size = sealed_size(file)
                    if size > _LONGEST:
                        raise ValueError(f"the letter is longer than {_LONGEST} bytes")
                    text = os.pread(file, size, 0)
                finally:
                    os.close(file)
            kind, facts = json.loads(text)
            if not isinstance(kind, str) or not isinstance(facts, dict):
                raise TypeError("a message is not part of a letter")
        except (ValueError, TypeError, IndexError, RecursionError) as error:
            self._drop()
            raise ValueError(str(error)) from None
        descriptors, self._received = self._received, []
        is_cut, self._is_cut = self._is_cut, False
        if is_cut:
            _close(descriptors)
        return Letter(kind, facts, [] if is_cut else descriptors, is_cut)

    def _drop(self) -> None:
        _close(self._received)
        self._received = []


def packed(
    parts: Mapping[str, tuple[dict[str, Any], list[int]]],
) -> tuple[dict[str, Any], list[int]]:
    """Return several objects as facts and descriptors, each being facts and descriptors of its own."""
    facts = {name: [one, len(numbers)] for name, (one, numbers) in parts.items()}
    return facts, [number for _, numbers in parts.values() for number in numbers]


def unpacked(
    facts: Mapping[str, Any], descriptors: Sequence[int]
) -> dict[str, tuple[dict[str, Any], list[int]]]:
    """Return the objects that were packed."""
    left = list(descriptors)
    parts = {}
    for name, (one, count) in facts.items():
        parts[name] = one, left[:count]
        del left[:count]
    return parts


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
