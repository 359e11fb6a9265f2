"""Child processes without pidfds: those of this process, and those that a keeper has."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from linepool.kernel.keeper import become_keeper
from linepool.kernel.kept_process import KeptProcess
from linepool.kernel.signals import signals_blocked
from tests.servers import TIMEOUT, has_ended

Start = Callable[[Callable[[], int]], KeptProcess]


def as_child(work: Callable[[], int]) -> KeptProcess:
    """Fork a process that is a child of this one."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os._exit(work())
    return KeptProcess(pid)


def as_kept(work: Callable[[], int]) -> KeptProcess:
    """Fork a process that has a keeper, which is not a child of this one, as the loader does."""
    link, other = socket.socketpair(socket.AF_UNIX)
    with link, other:
        with signals_blocked():
            middle = os.fork()
            if middle == 0:
                _keep(other, work)
        os.waitpid(middle, 0)
        data, (handle,), _, _ = socket.recv_fds(link, 16, 1)
    return KeptProcess(int(data), handle)


def _keep(link: socket.socket, work: Callable[[], int]) -> None:
    if os.fork():
        os._exit(0)

    def tell(pid: int, handle: int) -> None:
        socket.send_fds(link, [b"%d" % pid], [handle])

    kept = become_keeper(signal.SIGKILL, tell)
    os.close(kept.handle)
    link.close()
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    os._exit(work())


@pytest.fixture(params=[as_child, as_kept])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Give what starts a process of either kind; what is left of them is killed."""
    started: list[KeptProcess] = []

    def begin(work: Callable[[], int]) -> KeptProcess:
        process: KeptProcess = request.param(work)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        assert process.is_dead(TIMEOUT)
        process.reap()
        process.close()


def sleep() -> int:
    """Do nothing until a signal ends the process."""
    while True:
        signal.pause()


def test_it_tells_how_the_process_ended(start: Start):
    process = start(lambda: 7)
    assert process.is_dead(TIMEOUT)
    assert process.reap() == 7
    assert process.reap() == 7
    process.send(signal.SIGKILL)  # does nothing: its pid may be that of another process


def test_signals_reach_it_and_its_end_is_readable(start: Start):
    process = start(sleep)
    assert process.reap() is None
    assert not process.is_dead()
    process.send(signal.SIGTERM)
    assert process.is_dead(TIMEOUT)
    process.look()
    assert has_ended(process.pidfd)
    assert process.reap() == -signal.SIGTERM


def test_a_kill_ends_what_the_process_has_started(start: Start):
    reader, writer = os.pipe()

    def fork_and_sleep() -> int:
        os.close(reader)
        if os.fork():
            os.write(writer, b"!")
        return sleep()

    process = start(fork_and_sleep)
    os.close(writer)
    assert os.read(reader, 10) == b"!"
    process.kill()
    assert process.is_dead(TIMEOUT)
    assert process.reap() == -signal.SIGKILL
    assert os.read(reader, 10) == b""  # both are gone
    os.close(reader)


def test_a_kept_process_ends_with_what_has_the_other_end_of_its_keeper():
    reader, writer = os.pipe()

    def sleep_with_pipe() -> int:
        os.close(reader)
        return sleep()

    process = as_kept(sleep_with_pipe)
    os.close(writer)
    process.close()  # as the end of the master does
    assert os.read(reader, 10) == b""
    os.close(reader)
