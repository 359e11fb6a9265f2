"""The sockets of the simulated kernel, as Python's module has them."""

from __future__ import annotations

import array
import errno
import socket as real_socket
import struct
from collections.abc import Iterable
from typing import Any, Self

from tests.simulation.files import Channel, ListenQueue, Stream
from tests.simulation.machine import file_of, here, machine
from tests.simulation.process import error

_SO_COOKIE = 57
_TCP_INFO = struct.Struct(
    "@B127xQ20xI"
)  # of linux/tcp.h: state, bytes received, segments with data sent
_ESTABLISHED, _CLOSED = 1, 7


class Socket:
    """A socket of the process that runs: as in all processes after a fork, its number is all it knows."""

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        self._number = -1 if fileno is None else fileno
        self.family = family if family != -1 else real_socket.AF_INET
        if fileno is not None and not isinstance(
            here().file(fileno), Channel | Stream | ListenQueue
        ):
            raise error(errno.ENOTSOCK)

    def fileno(self) -> int:
        return self._number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        machine.kernel.tick()
        number, self._number = self._number, -1
        if number >= 0:
            here().close(number)

    def detach(self) -> int:
        number, self._number = self._number, -1
        return number

    def settimeout(self, _seconds: float | None) -> None:
        pass

    def gettimeout(self) -> None:
        return None

    def set_inheritable(self, _inheritable: bool) -> None:
        pass

    def setblocking(self, _blocks: bool) -> None:
        pass

    def setsockopt(self, _level: int, option: int, value: object) -> None:
        file = file_of(self._number)
        if option == real_socket.SO_LINGER and isinstance(file, Stream):
            file.resets = True

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        file = here().file(self._number)
        if level == real_socket.SOL_SOCKET:
            if option == _SO_COOKIE:
                return file.cookie.to_bytes(8, "little")
            if option == real_socket.SO_TYPE:
                is_stream = isinstance(file, Stream | ListenQueue)
                return real_socket.SOCK_STREAM if is_stream else real_socket.SOCK_SEQPACKET
            if option == real_socket.SO_ACCEPTCONN:
                return int(isinstance(file, ListenQueue))
        if option == real_socket.TCP_INFO and size == _TCP_INFO.size and isinstance(file, Stream):
            is_open = file.peer is not None and not (file.is_shut or file.is_reset)
            state = _ESTABLISHED if is_open else _CLOSED
            return _TCP_INFO.pack(state, file.arrived, file.segments)
        raise error(errno.ENOPROTOOPT)

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", here().file(self._number).cookie)

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def send(self, data: Any, _flags: int = 0) -> int:
        file = file_of(self._number)
        if isinstance(file, Channel):
            return file.send(here(), bytes(data), [])
        assert isinstance(file, Stream)
        return file.send(data)

    def sendmsg(self, parts: Iterable[bytes], control: list[Any], _flags: int = 0) -> int:
        file = file_of(self._number)
        assert isinstance(file, Channel)
        files = [here().file(number) for _, _, rights in control for number in rights]
        return file.send(here(), b"".join(parts), files)

    def recv(self, size: int, flags: int = 0) -> bytes:
        file = file_of(self._number)
        if isinstance(file, Channel):
            data, files, _ = file.receive()
            for one in files:
                one.release(here(), "closed")
            return data[:size]
        assert isinstance(file, Stream)
        return file.receive(size, peek=bool(flags & real_socket.MSG_PEEK))

    def recvmsg(self, _size: int, _control: int, _flags: int) -> tuple[bytes, Any, int, None]:
        file = file_of(self._number)
        assert isinstance(file, Channel)
        data, files, sender = file.receive()
        process = here()
        machine.kernel.received(process, data, files, sender)
        numbers = array.array("i")
        for one in files:
            try:
                numbers.append(process.install(one))
                one.refs -= 1
            except OSError:
                one.release(process, "no descriptor")
        control = [(real_socket.SOL_SOCKET, real_socket.SCM_RIGHTS, numbers.tobytes())]
        return data, control if files else [], 0, None

    def shutdown(self, _how: int) -> None:
        file = file_of(self._number)
        if isinstance(file, ListenQueue):
            file.shut(here())
        else:
            assert isinstance(file, Stream)
            file.shut(here())

    def _accept(self) -> tuple[int, tuple[str, int]]:
        file = file_of(self._number)
        assert isinstance(file, ListenQueue)
        end = file.accept()
        try:
            number = here().install(end)
        except OSError:
            file.queue.appendleft(end)
            raise
        end.refs -= 1
        end.holder = here()
        return number, ("127.0.0.1", end.cookie)


def socketpair(*_: object) -> tuple[Socket, Socket]:
    machine.kernel.tick()
    ends = Channel(machine.kernel), Channel(machine.kernel)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    first, second = (Socket(fileno=here().install(end)) for end in ends)
    return first, second
