"""Two network namespaces, joined by a link that takes its time; on loopback no handshake takes any."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_PACKET = 65536
_libc = ctypes.CDLL(None, use_errno=True)


class SlowLink:
    """A server's and a client's network namespace; each packet between them takes some time.

    Attributes:
        address: The server's.
    """

    address = "10.83.0.1"

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._home = _namespace()
        self._over = os.eventfd(0)
        self._tuns: list[int] = []
        self._namespaces: list[int] = []
        try:
            for own in (self.address, "10.83.0.2"):
                self._open(own)
        finally:
            _enter(self._home)
        self._pump = threading.Thread(target=self._carry)
        self._pump.start()

    @contextlib.contextmanager
    def server_side(self) -> Iterator[None]:
        """Make what this thread opens and starts belong to the server's side."""
        with self._inside(0):
            yield

    @contextlib.contextmanager
    def client_side(self) -> Iterator[None]:
        """Make what this thread opens and starts belong to the client's side."""
        with self._inside(1):
            yield

    def close(self) -> None:
        """Take it down."""
        os.eventfd_write(self._over, 1)
        self._pump.join()
        for descriptor in (*self._tuns, *self._namespaces, self._over, self._home):
            os.close(descriptor)

    @contextlib.contextmanager
    def _inside(self, side: int) -> Iterator[None]:
        _enter(self._namespaces[side])
        try:
            yield
        finally:
            _enter(self._home)

    def _open(self, own: str) -> None:
        _call(_libc.unshare, _CLONE_NEWNET)
        self._namespaces.append(_namespace())
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._tuns.append(tun)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"slow", _IFF_TUN_NO_PI))
        for words in (
            ["address", "add", f"{own}/24", "dev", "slow"],
            ["link", "set", "slow", "up"],
        ):
            subprocess.run(["ip", *words], check=True, capture_output=True)

    def _carry(self) -> None:
        """Carry packets from each side to the other."""
        under_way: list[tuple[float, int, bytes]] = []
        other = dict(zip(self._tuns, reversed(self._tuns), strict=True))
        pause = None
        while True:
            ready = select.select([*self._tuns, self._over], [], [], pause)[0]
            if self._over in ready:
                return
            now = time.monotonic()
            for tun in ready:
                with contextlib.suppress(BlockingIOError):
                    while packet := os.read(tun, _PACKET):
                        heapq.heappush(under_way, (now + self._delay, other[tun], packet))
            while under_way and under_way[0][0] <= now:
                _, tun, packet = heapq.heappop(under_way)
                os.write(tun, packet)
            pause = max(0.0, under_way[0][0] - now) if under_way else None


@contextlib.contextmanager
def slow_link(delay: float) -> Iterator[SlowLink]:
    """Give a link, or skip the test where that is not permitted.

    Args:
        delay: Seconds that a packet takes, in each direction.
    """
    try:
        link = SlowLink(delay)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"network namespaces and tun devices are not permitted: {error}")
    try:
        yield link
    finally:
        link.close()


def _namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(namespace: int) -> None:
    _call(_libc.setns, namespace, _CLONE_NEWNET)


def _call(function: ctypes._NamedFuncPointer, *arguments: int) -> None:
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
