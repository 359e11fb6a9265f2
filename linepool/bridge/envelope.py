"""What goes through the engine: the envelope around a message, and the numbers of other machines. Pure."""

from __future__ import annotations

import struct
from collections import OrderedDict

_VERSION = 1
_HEAD = struct.Struct("!B16sQ")
_MOST_MACHINES = 1000  # each start of a bridge is another one
ID_BYTES = 16


def wrapped(machine: bytes, number: int, message: bytes) -> bytes:
    """Return a message in its envelope."""
    return _HEAD.pack(_VERSION, machine, number) + message


def unwrapped(data: bytes) -> tuple[bytes, int, bytes] | None:
    """Return machine, number and message; None: it is not of a bridge."""
    if len(data) < _HEAD.size or data[0] != _VERSION:
        return None
    _, machine, number = _HEAD.unpack_from(data)
    return machine, number, data[_HEAD.size :]


def engine_pattern(prefix: bytes) -> bytes:
    """Return the pattern of all channels that begin with a prefix."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]^\\-" else bytes([c]) for c in prefix) + b"*"


class Numbers:
    """The last number of each machine, to see which messages were missed."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, int] = OrderedDict()

    def missed(self, machine: bytes, number: int) -> int:
        """Note a number; return how many messages of that machine were missed just before it."""
        last = self._last.pop(machine, number - 1)
        self._last[machine] = max(last, number)
        if len(self._last) > _MOST_MACHINES:
            self._last.popitem(last=False)
        return max(0, number - last - 1)
