"""Shortages of descriptors and memory: nothing spins, and once they are over, all is as before."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.kernel.shortage import exit_status, is_shortage
from linepool.kernel.sock_diag import unix_queue
from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.booting import launch_booting
from tests.process.connections import lowest_free_descriptor, parker_of, until_parked
from tests.servers import TIMEOUT

NONE = 3  # descriptors: every process has more open already


@contextlib.contextmanager
def limited(pid: int, descriptors: int) -> Iterator[None]:
    """Let a process open no descriptor beyond a number until the block ends."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("poll(2) refuses more descriptors than the limit")
def test_a_worker_that_cannot_be_forked_is_forked_later(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1")
    (worker,) = server.pids()
    with limited(server.process.pid, NONE):
        os.kill(worker, signal.SIGKILL)
        server.wait_for("cannot fork")

    assert server.ask("ADD 2 3") == "5"


def test_a_parker_that_cannot_be_forked_is_forked_later(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    parker = parker_of(server)
    with limited(server.process.pid, NONE):
        os.kill(parker, signal.SIGKILL)
        server.wait_for("cannot fork the parker")

    assert parker_of(server, besides=parker)
    with server.connect() as peer:
        assert peer.ask("ADD 2 3") == "5"
        until_parked(server, 1)


def test_a_parker_hears_of_workers_that_start_while_it_has_no_descriptor(launch: Launch):
    server = launch("workshop.py", "--workers", "2")
    with server.connect() as peer:
        assert peer.ask("ADD 2 3") == "5"
        until_parked(server, 1)
        before = server.pids()
        with limited(parker_of(server), NONE):
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            server.until(
                lambda state: (
                    state["tally"]["idle"] == 2
                    and not {worker["pid"] for worker in state["workers"]} & set(before)
                )
            )

        assert peer.ask("ADD 2 3") == "5"


def test_a_worker_that_cannot_boot_for_want_of_descriptors_says_so(launch: Launch, tmp_path):
    server = launch_booting(launch, tmp_path, "--workers", "1", how="", ready=True)
    (tmp_path / "boot").write_text("no descriptor")
    os.kill(server.pids()[0], signal.SIGKILL)
    server.wait_for(f"status={os.EX_TEMPFAIL}")

    (tmp_path / "boot").write_text("")
    assert server.ask("ADD 2 3") == "5"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, ""),
        OSError(errno.EAGAIN, ""),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_shortage_is_recognised_behind_other_errors(error):
    wrapped = ValueError("no database")
    wrapped.__cause__ = error

    assert is_shortage(error)
    assert is_shortage(wrapped)
    assert exit_status(wrapped) == os.EX_TEMPFAIL


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, ""), RuntimeError("no database"), KeyError()]
)
def test_a_fault_of_the_app_is_no_shortage(error):
    assert not is_shortage(error)
    assert exit_status(error) == 1


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:sock"])
def test_a_worker_without_descriptors_does_not_hold_up_a_stop(launch: Launch, scheme, bind):
    server = launch("workshop.py", "--workers", "1", bind=(bind,))
    assert server.ask("ADD 2 3") == "5"
    resource.prlimit(server.pids()[0], resource.RLIMIT_NOFILE, (NONE, NONE))

    assert server.stop() == 0
    assert "killed" not in server.text


# -- the control socket


def test_the_control_socket_answers_without_a_descriptor_left(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with limited(server.process.pid, lowest_free_descriptor(server.process.pid)):
        for _ in range(3):
            assert server.status()["tally"]["idle"] == 1
        with Peer(f"unix:{server.control}") as quiet, Peer(f"unix:{server.control}") as other:
            assert other.ask("STATUS").startswith("name")
            assert quiet.rest() == b""
        assert server.status()["tally"]["idle"] == 1


@pytest.mark.linux("poll(2) refuses more descriptors than the limit")
def test_a_master_that_cannot_accept_sleeps_meanwhile(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    pid = server.process.pid
    clock = (~pid << 3) | 2  # clock_getcpuclockid(3)
    with limited(pid, NONE), Peer(f"unix:{server.control}") as client:
        client.send(b"STATUS\n")
        begun, slept = time.clock_gettime(clock), _sleeps(pid)
        give_up_at = time.monotonic() + TIMEOUT
        while _sleeps(pid) < slept + 5:
            assert time.monotonic() < give_up_at
        used = time.clock_gettime(clock) - begun
    assert used < 0.25  # five pauses are 0.5 s
    assert server.status()["tally"]["idle"] == 1


def test_a_queue_that_the_kernel_does_not_tell_is_one_if_there_is_any(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        with limited(os.getpid(), NONE):
            assert unix_queue(listener) == (0, 0)
            client.connect(f"{tmp_path}/s")
            assert unix_queue(listener) == (1, 0)


def _sleeps(pid: int) -> int:
    """Return how often a process has gone to sleep (proc(5), status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("no such line")
