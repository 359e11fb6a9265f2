"""The system calls of the simulated kernel, under the names of Python's modules.

A call that is not here raises AttributeError: nothing of a simulation reaches the real kernel.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl as real_fcntl
import math
import os as real_os
import resource as real_resource
import select as real_select
import selectors as real_selectors
import signal as real_signal
import socket as real_socket
import struct
import termios
import threading as real_threading
import time as real_time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from linepool.kernel.pidfd import OpenFiles
from tests.simulation.epolls import EpollSet, File
from tests.simulation.files import (
    Channel,
    Counter,
    Memory,
    Pipe,
    ProcessFile,
    Stream,
)
from tests.simulation.machine import file_of, here, machine
from tests.simulation.process import Process, error
from tests.simulation.sockets import Socket, socketpair

_PIPE_BYTES = 65536
_INT = struct.Struct("i")


def _number(file: Any) -> int:
    return file if isinstance(file, int) else int(file.fileno())


# -- time


def monotonic() -> float:
    return machine.kernel.now_ns / 1e9


def monotonic_ns() -> int:
    return machine.kernel.now_ns


def _sleep(seconds: float) -> None:
    machine.kernel.sleep(seconds)


# -- waiting


class Epoll:
    """As ``select.epoll``."""

    def __init__(self, *_: object, **__: object) -> None:
        self._number = here().install(EpollSet(machine.kernel))

    @property
    def _set(self) -> EpollSet:
        file = file_of(self._number)
        assert isinstance(file, EpollSet)
        return file

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            here().close(number)

    def register(self, file: Any, events: int = 0) -> None:
        self._set.control(here(), _number(file), events, new=True)

    def modify(self, file: Any, events: int) -> None:
        self._set.control(here(), _number(file), events, new=False)

    def unregister(self, file: Any) -> None:
        self._set.control(here(), _number(file), None, new=False)

    def poll(self, seconds: float | None = None, most: int = -1) -> list[tuple[int, int]]:
        epoll, kernel = self._set, machine.kernel
        if seconds is None or seconds < 0:
            until_ns = math.inf
        else:
            until_ns = kernel.now_ns + math.ceil(seconds * 1e3) * 1_000_000
        found: list[tuple[int, int]] = kernel.wait(epoll.ready, until_ns, (epoll.sleepers,)) or []
        return found if most <= 0 else found[:most]


class Poll:
    """As ``select.poll``."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, file: Any, events: int) -> None:
        self._wanted[_number(file)] = events

    def poll(self, ms: float | None = None) -> list[tuple[int, int]]:
        kernel, process = machine.kernel, here()
        files = {number: process.file(number) for number in self._wanted}

        def ready() -> list[tuple[int, int]]:
            found = []
            for number, file in files.items():
                if event := file.events() & (self._wanted[number] | 0x18):
                    found.append((number, event))
            return found

        until_ns = math.inf if ms is None else kernel.now_ns + int(ms * 1e6)
        sleepers = tuple(file.sleepers for file in files.values())
        return kernel.wait(ready, until_ns, sleepers) or []


class Selector(real_selectors.EpollSelector):
    """As ``selectors.DefaultSelector``."""

    _selector_cls = Epoll


class Lock:
    """As ``threading.Lock``."""

    def __init__(self) -> None:
        self._is_taken = False
        self._sleepers: dict[Any, None] = {}

    def __enter__(self) -> None:
        machine.kernel.wait(lambda: not self._is_taken, math.inf, (self._sleepers,))
        self._is_taken = True

    def __exit__(self, *_: object) -> None:
        self._is_taken = False
        for task in list(self._sleepers):
            machine.kernel.wake(task)


class Thread:
    """As ``threading.Thread``."""

    def __init__(self, target: Callable[[], object], name: str, daemon: bool) -> None:
        self._target, self._name = target, name

    def start(self) -> None:
        machine.kernel.start(here(), self._target, self._name.rpartition("-")[2])


# -- os


def _install(file: File, lowest: int = 3) -> int:
    machine.kernel.tick()
    return here().install(file, lowest)


def _close(number: int) -> None:
    machine.kernel.tick()
    here().close(number)


def _pipe2(_flags: int) -> tuple[int, int]:
    reader, writer = Pipe(machine.kernel), Pipe(machine.kernel)
    writer.reader = reader
    return here().install(reader), here().install(writer)


def _read(number: int, size: int) -> bytes:
    file = file_of(number)
    assert isinstance(file, Pipe)
    if not file.data and file.has_writer:
        raise BlockingIOError(errno.EAGAIN, "nothing there")
    part = bytes(file.data[:size])
    del file.data[:size]
    return part


def _write(number: int, data: Any) -> int:
    file = file_of(number)
    if isinstance(file, Memory):
        file.data += bytes(data)
    else:
        assert isinstance(file, Pipe)
        assert file.reader is not None
        if not file.reader.refs:
            raise BrokenPipeError(errno.EPIPE, "closed")
        if len(file.reader.data) + len(data) > _PIPE_BYTES:
            raise BlockingIOError(errno.EAGAIN, "full")
        file.reader.data += data
        file.reader.changed()
        machine.kernel.told()
    return len(data)


def _pread(number: int, size: int, offset: int) -> bytes:
    file = file_of(number)
    assert isinstance(file, Memory)
    return file.data[offset : offset + size]


def _ftruncate(number: int, size: int) -> None:
    file = file_of(number)
    assert isinstance(file, Memory)
    file.data = file.data[:size].ljust(size, b"\0")


def _eventfd_write(number: int, value: int) -> None:
    file = file_of(number)
    assert isinstance(file, Counter)
    file.value += value
    file.changed()
    machine.kernel.told()


def _eventfd_read(number: int) -> int:
    file = file_of(number)
    assert isinstance(file, Counter)
    value, file.value = file.value, 0
    return value


def _pidfd_open(pid: int, _flags: int = 0) -> int:
    machine.kernel.tick()
    process = machine.kernel.processes.get(pid)
    if process is None or process.reaped:
        raise ProcessLookupError(errno.ESRCH, "gone")
    return here().install(process.entry)


def _process(number: int) -> Process:
    file = file_of(number)
    assert isinstance(file, ProcessFile)
    return file.process


def _waitid(_kind: int, number: int, options: int) -> Any:
    process = _process(number)
    if process.reaped:
        raise ChildProcessError(errno.ECHILD, "reaped")
    if process.status is None or not options & real_os.WEXITED:
        return None
    if not options & real_os.WNOWAIT:
        process.reaped = True
    has_left = process.status >= 0
    code = real_os.CLD_EXITED if has_left else real_os.CLD_KILLED
    return SimpleNamespace(si_status=abs(process.status), si_code=code)


def _killpg(pid: int, _number: int) -> None:
    process = machine.kernel.processes[pid]
    if not process.left_behind:
        raise ProcessLookupError(errno.ESRCH, "no process in the group")
    machine.kernel.tick()
    machine.kernel.end_holder(process)


def _pidfd_send_signal(number: int, signum: int) -> None:
    process = _process(number)
    if process.reaped:
        raise ProcessLookupError(errno.ESRCH, "gone")
    machine.kernel.signal(process, int(signum))


def _fcntl(number: int, command: int, argument: int = 0) -> int:
    file = file_of(number)
    if command == real_fcntl.F_DUPFD_CLOEXEC:
        return here().install(file, argument)
    if command == real_fcntl.F_GETPIPE_SZ:
        return _PIPE_BYTES
    if command == real_fcntl.F_ADD_SEALS and isinstance(file, Memory):
        file.seals |= argument
    if command == real_fcntl.F_GET_SEALS:
        if not isinstance(file, Memory):
            raise error(errno.EINVAL)
        return file.seals
    return 0


def _ioctl(number: Any, request: int, _argument: bytes) -> bytes:
    file = file_of(_number(number))
    value = 0
    if request == termios.FIONREAD:
        if isinstance(file, Stream):
            value = len(file.data)
        elif isinstance(file, Channel):
            value = len(file.queue[0][0]) if file.queue else 0
        else:
            raise error(errno.ENOTTY)
    return _INT.pack(value)


def _sched_yield() -> None:
    machine.kernel.tick()


def _fstat(number: int) -> Any:
    file = file_of(number)
    return SimpleNamespace(st_size=len(file.data) if isinstance(file, Memory) else 0)


def take_descriptor(self: Any, number: int) -> int:
    """Return a copy of a descriptor of another process, or of its holder, as pidfd_getfd(2)."""
    machine.kernel.tick()
    process = _process(self.pidfd)
    files = process.fds if process.status is None else process.left_behind
    if number not in files:
        raise error(errno.EBADF)
    return here().install(files[number])


def sockets(self: Any) -> list[int]:
    """Return the descriptors of the connections of a process, or of its holder."""
    process = _process(self.pidfd)
    files = process.left_behind or process.fds
    return [number for number, file in files.items() if isinstance(file, Stream)]


class holder_of:  # noqa: N801 - no generator, which would go on when it is collected after its world
    """Has the holder of a dead process, if it has one."""

    def __init__(self, pid: int) -> None:
        self._pid, self._pidfd = pid, -1

    def __enter__(self) -> OpenFiles | None:
        if machine.kernel.processes[self._pid].left_behind:
            with contextlib.suppress(OSError):
                self._pidfd = _pidfd_open(self._pid)
        return OpenFiles(self._pid, self._pidfd) if self._pidfd >= 0 else None

    def __exit__(self, *_: object) -> None:
        if self._pidfd >= 0:
            _close(self._pidfd)


# -- the modules


def _module(real: Any, **calls: Any) -> SimpleNamespace:
    constants = {
        name: value
        for name, value in vars(real).items()
        if isinstance(value, int | str | frozenset)
        or (isinstance(value, type) and issubclass(value, BaseException | int))
    }
    return SimpleNamespace(**{**constants, **calls})


time = _module(
    real_time,
    monotonic=monotonic,
    monotonic_ns=monotonic_ns,
    time_ns=monotonic_ns,
    sleep=_sleep,
)
socket = _module(
    real_socket,
    socket=Socket,
    socketpair=socketpair,
    CMSG_SPACE=real_socket.CMSG_SPACE,
    inet_pton=real_socket.inet_pton,
)
select = _module(real_select, epoll=Epoll, poll=Poll)
selectors = _module(
    real_selectors, DefaultSelector=Selector, BaseSelector=real_selectors.BaseSelector
)
threading = _module(
    real_threading,
    Thread=Thread,
    Lock=Lock,
    get_ident=lambda: machine.kernel.current.number if machine.kernel.current else 0,
)
os = _module(
    real_os,
    close=_close,
    dup=lambda number: _install(file_of(number)),
    pipe2=_pipe2,
    read=_read,
    write=_write,
    pread=_pread,
    ftruncate=_ftruncate,
    fstat=_fstat,
    memfd_create=lambda *_: _install(Memory(machine.kernel)),
    eventfd=lambda value, _flags=0: _install(Counter(machine.kernel, value)),
    eventfd_write=_eventfd_write,
    eventfd_read=_eventfd_read,
    pidfd_open=_pidfd_open,
    waitid=_waitid,
    killpg=_killpg,
    getpid=lambda: here().pid,
    getppid=lambda: here().parent,
    set_inheritable=lambda *_: None,
    sched_yield=_sched_yield,
    sysconf=real_os.sysconf,
    fsdecode=real_os.fsdecode,
)
signal = _module(
    real_signal,
    signal=lambda number, handler: here().handlers.__setitem__(int(number), handler),
    getsignal=lambda _number: real_signal.SIG_DFL,
    pidfd_send_signal=_pidfd_send_signal,
    pthread_sigmask=lambda *_: (),
)
fcntl = _module(real_fcntl, fcntl=_fcntl, ioctl=_ioctl)
resource = _module(
    real_resource,
    getrlimit=lambda _kind: (here().files, here().files),
    setrlimit=lambda *_: None,
)

SUBSTITUTES: dict[Any, Any] = {
    real_time: time,
    real_socket: socket,
    real_select: select,
    real_selectors: selectors,
    real_threading: threading,
    real_os: os,
    real_signal: signal,
    real_fcntl: fcntl,
    real_resource: resource,
}
"""What stands for each module of Python."""
FUNCTIONS: dict[Any, Any] = {
    real_time.monotonic: monotonic,
    real_time.monotonic_ns: monotonic_ns,
}
"""What stands for functions that modules import by their names."""
