"""What the service manager is told, and when."""

import contextlib
import logging
import math
import os
import selectors
import socket
import subprocess

import attrs
import pytest

from linepool.operate import notify
from linepool.operate.notify import Notifier, ServerState
from tests.service_manager import NotifyReceiver

STARTING = ServerState(ready=False, generation=1, workers=2, busy=0, graceful_timeout=30.0)
READY = attrs.evolve(STARTING, ready=True)


class Clock:
    """A clock that stands still."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def monotonic_ns(self):
        return int(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(notify, "time", clock)
    return clock


@pytest.fixture
def receiver(tmp_path):
    with NotifyReceiver(tmp_path / "notify") as receiver:
        yield receiver


class Server:
    """A notifier, and the state that it looks at."""

    def __init__(self, path, **options):
        self.state = STARTING
        self.notifier = Notifier(path, lambda: self.state, **options)
        with selectors.DefaultSelector() as selector:
            self.notifier.open(selector)

    def turn(self, **changes):
        self.state = attrs.evolve(self.state, **changes)
        self.notifier.turn()
        return self.notifier.due_at


@pytest.fixture
def serve(clock):
    servers = []

    def start(path, **options):
        servers.append(Server(path, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.notifier.close()


def test_ready_is_told_when_the_first_generation_is_up_and_only_once(serve, receiver, clock):
    server = serve(receiver.path)

    assert server.turn() == math.inf
    assert receiver.waiting() == [{"STATUS": "starting; 2 workers, 0 busy, generation 1"}]
    server.turn(ready=True)
    assert receiver.waiting() == [
        {"READY": "1", "STATUS": "2 workers, 0 busy, generation 1"},
    ]
    clock.now += 10
    assert server.turn(ready=False) == math.inf  # a worker has died meanwhile
    assert server.turn(ready=True) == math.inf
    assert receiver.waiting() == []


def test_the_text_is_told_when_it_changes_and_at_most_once_a_second(serve, receiver, clock):
    server = serve(receiver.path)
    server.turn(ready=True)
    receiver.waiting()
    told_at = clock.now

    clock.now += 0.4
    assert server.turn(busy=1, workers=1) == told_at + 1
    clock.now += 0.4
    assert server.turn(busy=2) == told_at + 1
    assert receiver.waiting() == []
    clock.now = told_at + 1
    assert server.turn() == math.inf
    assert receiver.waiting() == [{"STATUS": "1 worker, 2 busy, generation 1"}]


def test_a_reload_is_told_with_its_time_and_its_end_with_the_reason_of_a_failure(
    serve, receiver, clock
):
    server = serve(receiver.path)
    server.turn(ready=True)
    receiver.waiting()

    server.turn(reloads=1, reloading=True)
    server.turn()
    assert receiver.waiting() == [
        {
            "RELOADING": "1",
            "MONOTONIC_USEC": "1000000000",
            "STATUS": "reloading; 2 workers, 0 busy, generation 1",
        }
    ]
    server.turn(reloading=False, last_error="SyntaxError: invalid syntax\n  line 3")
    assert receiver.waiting() == [
        {
            "READY": "1",
            "STATUS": "2 workers, 0 busy, generation 1; the last reload failed: SyntaxError: invalid"
            " syntax line 3",
        }
    ]
    server.turn(reloads=2, reloading=False, last_error="", generation=2)  # it was over at once
    assert [list(notice) for notice in receiver.waiting()] == [
        ["RELOADING", "MONOTONIC_USEC", "STATUS"],
        ["READY", "STATUS"],
    ]


def test_a_server_without_workers_is_drained_or_starts(serve, receiver, clock):
    server = serve(receiver.path)
    server.turn(ready=True)
    clock.now += 1
    server.turn(ready=False, drained=True, workers=0)

    assert receiver.waiting()[-1] == {"STATUS": "drained; 0 workers, 0 busy, generation 1"}


def test_a_stop_is_told_once_with_the_time_that_it_may_take(serve, receiver):
    server = serve(receiver.path)
    server.turn(ready=True)
    receiver.waiting()

    server.turn(stopping=True, busy=1)
    server.turn(reloads=1)

    assert receiver.waiting() == [
        {
            "STOPPING": "1",
            "EXTEND_TIMEOUT_USEC": "40000000",
            "STATUS": "stopping; 2 workers, 1 busy, generation 1",
        }
    ]


def test_a_sign_of_life_comes_twice_in_the_time_of_the_watchdog(serve, receiver, clock):
    server = serve(receiver.path, watchdog_s=3.0)

    assert server.turn(ready=True) == clock.now + 1.5
    clock.now += 1.4
    server.turn()
    assert [notice for notice in receiver.waiting() if "WATCHDOG" in notice] == [{"WATCHDOG": "1"}]
    clock.now += 0.1
    assert server.turn() == clock.now + 1.5
    assert receiver.waiting() == [{"WATCHDOG": "1"}]


def test_what_does_not_fit_into_a_full_queue_is_told_later(serve, receiver, clock):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while other.sendto(b"X=1", receiver.path):
                pass
    server = serve(receiver.path, watchdog_s=30.0)

    due_at = server.turn(ready=True)
    assert clock.now < due_at < clock.now + 1
    receiver.waiting()
    server.turn()
    assert receiver.waiting() == []  # not before it is due
    clock.now = due_at
    server.turn()

    assert [next(iter(notice)) for notice in receiver.waiting()] == ["READY", "WATCHDOG"]


def test_a_receiver_that_is_gone_is_logged_once_and_told_all_when_it_is_back(
    serve, receiver, clock, caplog
):
    server = serve(receiver.path)
    os.rename(receiver.path, f"{receiver.path}.old")

    with caplog.at_level(logging.WARNING, logger="linepool"):
        for _ in range(3):
            clock.now = server.turn(ready=True)
    os.rename(f"{receiver.path}.old", receiver.path)
    server.turn()

    assert [record.getMessage() for record in caplog.records] == [
        "cannot notify the service manager: No such file or directory"
    ]
    assert [next(iter(notice)) for notice in receiver.waiting()] == ["READY"]


def test_an_abstract_socket_is_told_too(serve, tmp_path):
    with NotifyReceiver(f"@{tmp_path}") as receiver:
        serve(receiver.path).turn()

        assert list(receiver.waiting()[0]) == ["STATUS"]


def test_descriptors_of_no_use_are_removed_from_the_store(serve, receiver):
    server = serve(receiver.path, unwanted=["board", "old"])

    server.turn()

    assert {notice["FDNAME"] for notice in receiver.waiting() if "FDSTOREREMOVE" in notice} == {
        "board",
        "old",
    }


@pytest.mark.skipif(
    subprocess.run(["which", "systemd-notify"], capture_output=True, check=False).returncode != 0,
    reason="no systemd-notify",
)
def test_the_receiver_of_these_tests_is_one_to_a_program_of_systemd(receiver):
    """It waits until the receiver has closed the descriptor of BARRIER=1."""
    environment = {**os.environ, "NOTIFY_SOCKET": receiver.path}
    with subprocess.Popen(["systemd-notify", "--ready", "--status=up"], env=environment) as process:
        receiver.until("READY", "1")
        receiver.until("BARRIER", "1")
        assert process.wait(10) == 0
