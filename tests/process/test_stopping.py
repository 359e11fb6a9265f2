"""Stopping: gracefully, at once, and when the master is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.conftest import Launch
from tests.process.booting import launch_booting
from tests.servers import TIMEOUT, Gate, Load, ServerProcess, has_ended

LISTENERS = {
    "tcp": ("127.0.0.1:0",),
    "unix": ("unix:sock",),
    "several": ("127.0.0.1:0", "unix:sock", "[::1]:0"),
}
every_kind_of_listener = pytest.mark.parametrize("kind", LISTENERS)


@pytest.fixture
def serve(launch: Launch) -> Callable[..., ServerProcess]:
    """Start the workshop on a kind of listener."""

    def start(kind: str, *options: str) -> ServerProcess:
        return launch("workshop.py", *options, bind=LISTENERS[kind])

    return start


# -- gracefully


@every_kind_of_listener
def test_a_server_with_nothing_to_do_stops_at_once(serve, kind):
    server = serve(kind, "--workers", "3")
    assert server.ask("ADD 2 3") == "5"

    server.send(signal.SIGTERM)

    assert server.ended() == 0
    assert "killed" not in server.text


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("tcp", signal.SIGTERM),
        ("unix", signal.SIGTERM),
        ("several", signal.SIGTERM),
    ],
)
def test_a_graceful_stop_finishes_in_flight_requests_and_closes_idle_connections(
    serve, gate: Gate, kind, number
):
    server = serve(kind, "--workers", "3")
    with server.connect() as idle, server.connect() as fresh, server.connect() as busy:
        assert idle.ask("ADD 2 3") == "5"
        assert fresh.ask("ADD 2 3") == "5"
        busy.send(b"HOLD in flight\nADD 1 1\n")
        gate.wait()

        server.send(number)

        assert idle.line() == ""
        assert fresh.line() == ""
        gate.open()
        assert busy.line() == "in flight"
        assert busy.line() == "2"
        assert busy.line() == ""
    assert server.ended() == 0
    assert "Traceback" not in server.text


@every_kind_of_listener
def test_clients_in_the_backlog_are_served_before_the_server_stops(serve, gate: Gate, kind):
    server = serve(kind, "--workers", "2")
    holders = [server.connect() for _ in range(2)]
    for holder in holders:
        holder.send(b"HOLD x\n")
    gate.wait(2)
    queued = [server.connect() for _ in range(40)]
    for number, peer in enumerate(queued):
        peer.send(b"ADD %d 1\n" % number)

    server.send(signal.SIGTERM)
    server.wait_for("stopping")
    gate.open(2)

    assert [peer.line() for peer in holders] == ["x", "x"]
    for peer in holders:
        peer.close()
    for number, peer in enumerate(queued):
        with peer:
            assert (peer.line(), peer.line()) == (str(number + 1), "")
    assert server.ended() == 0


def test_a_request_that_outlasts_the_graceful_timeout_is_killed(serve, gate: Gate):
    server = serve("tcp", "--workers", "2", "--graceful-timeout", "0.3")
    with server.connect() as peer:
        peer.send(b"CLING\n")
        (worker,) = gate.wait()

        stopped_at = time.monotonic()
        server.send(signal.SIGTERM)

        assert server.ended() == 0
        assert time.monotonic() - stopped_at >= 0.3
        assert peer.line() != "let go"
    assert f"killed pid={worker}" in server.text


@pytest.mark.both
def test_a_client_that_never_stops_sending_does_not_hold_up_a_stop(serve):
    server = serve("tcp", "--workers", "1")
    with server.connect() as peer:
        over = threading.Event()

        def send() -> None:
            try:
                while not over.is_set():
                    peer.socket.sendall(b"ADD 2 3\n" * 1000)
            except OSError:
                over.set()

        def read() -> None:
            try:
                while peer.socket.recv(65536):
                    pass
            except OSError:
                pass

        threads = [threading.Thread(target=send), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        server.until(lambda state: state["counters"]["requests"] > 10_000)

        server.send(signal.SIGTERM)
        try:
            assert server.ended() == 0
        finally:
            over.set()
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


# -- at once


@pytest.mark.parametrize(
    "order",
    [
        lambda server: server.send(signal.SIGINT),
        lambda server: server.send(signal.SIGQUIT),
        lambda server: server.order("STOP now"),
    ],
    ids=["INT", "QUIT", "STOP now"],
)
def test_an_immediate_stop_ends_a_busy_worker_at_once(serve, gate: Gate, order):
    server = serve("tcp", "--workers", "2")
    with server.connect() as peer:
        peer.send(b"HOLD x\n")
        gate.wait()

        order(server)

        assert server.ended() == 0
        assert peer.line() != "x"
    assert "Traceback" not in server.text


def test_an_immediate_stop_ends_a_handler_that_catches_everything(serve, gate: Gate):
    server = serve("tcp", "--workers", "2")
    with server.connect() as peer:
        peer.send(b"CLING\n")
        gate.wait()

        server.send(signal.SIGINT)

        assert server.ended() == 0
        assert peer.line() != "let go"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(serve, gate: Gate, second):
    server = serve("tcp", "--workers", "1")
    with server.connect() as peer:
        peer.send(b"HOLD x\n")
        gate.wait()
        server.send(signal.SIGTERM)
        server.wait_for("stopping: waiting")

        server.send(second)

        assert server.ended() == 0
        assert peer.line() != "x"
    assert "Traceback" not in server.text


def test_a_server_can_be_stopped_while_it_boots(launch: Launch, tmp_path):
    server = launch_booting(launch, tmp_path, "--workers", "2", how="wait")
    server.wait_for("listening on")
    server.until(lambda state: state["tally"]["starting"] == 2)

    server.send(signal.SIGINT)

    assert server.ended() == 0
    assert "Traceback" not in server.text


# -- when the master is killed


@every_kind_of_listener
def test_orphans_with_nothing_to_do_exit_at_once(serve, kind):
    server = serve(kind, "--workers", "3")
    workers = server.watch()
    with server.connect() as idle:
        assert idle.ask("ADD 2 3") == "5"

        server.send(signal.SIGKILL)

        assert idle.line() == ""
        assert len(workers) == 5  # and loader and parker
        assert all(has_ended(pidfd) for pidfd in workers.values())
    assert server.ended() == -signal.SIGKILL


@every_kind_of_listener
def test_an_orphan_finishes_its_request_while_its_address_is_free_again(
    serve, launch: Launch, gate: Gate, kind
):
    server = serve(kind, "--workers", "2")
    with server.connect() as peer:
        peer.send(b"HOLD in flight\n")
        (worker,) = gate.wait()

        server.send(signal.SIGKILL)
        killed_at = time.monotonic()
        while not _is_free(server.reachable[0]):
            assert time.monotonic() - killed_at < TIMEOUT

        gate.open()
        assert peer.line() == "in flight"
        assert peer.line() == ""
        assert has_ended(server.watch()[worker], 1)


def test_a_new_server_can_replace_one_whose_master_was_killed(serve, launch: Launch, gate: Gate):
    first = serve("tcp", "--workers", "2")
    with first.connect() as peer:
        peer.send(b"HOLD in flight\n")
        gate.wait()
        first.send(signal.SIGKILL)
        first.process.wait(TIMEOUT)

        second = launch("workshop.py", "--workers", "1", bind=(first.addresses[0],))

        assert second.ask("ADD 2 3") == "5"
        gate.open()
        assert peer.line() == "in flight"


@pytest.mark.both
@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_reply_that_a_client_reads_late_outlives_the_master(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1")
    with server.connect() as peer:
        peer.send(b"BIG 20000000\n")
        assert peer.socket.recv(1) == b"x"
        server.send(signal.SIGKILL)
        server.process.wait(TIMEOUT)

        assert sum(len(part) for part in iter(lambda: peer.socket.recv(1 << 20), b"")) == 20_000_000


def test_an_orphan_that_is_still_booting_exits(launch: Launch, tmp_path):
    server = launch_booting(launch, tmp_path, "--workers", "1", how="wait")
    server.wait_for("listening on")
    server.until(lambda state: len(state["workers"]) == 1)  # born, that is
    worker = os.pidfd_open(server.pids()[0])
    server.send(signal.SIGKILL)
    server.process.wait(TIMEOUT)

    # "r+" does not wait for a worker that reads.
    with open(tmp_path / "boot.fifo", "r+b", buffering=0):
        assert has_ended(worker, 1)
    os.close(worker)


# -- under load


@pytest.mark.parametrize("gap", [False, True], ids=["at once", "a moment later"])
@every_kind_of_listener
def test_retiring_workers_under_load_loses_no_connection(serve, kind, gap):
    server = serve(kind, "--workers", "4")
    load = Load(server, clients=3, gap=gap)
    try:
        for _ in range(6):
            server.order("SCALE 1")
            server.until(lambda state: state["tally"]["total"] == 1)
            server.order("SCALE 4")
            served = load.served
            server.until(lambda state: state["tally"]["total"] == 4)
            server.until(lambda _: load.served >= served + 30)  # noqa: B023 - called at once
    finally:
        load.join()

    assert load.failures == []
    assert server.status()["counters"]["retired"] == 18
    assert server.stop() == 0


@pytest.mark.both
@every_kind_of_listener
def test_clients_that_were_connected_before_the_stop_get_a_reply(serve, kind):
    server = serve(kind, "--workers", "3")
    loads = [Load(server, clients=5), Load(server, clients=4, gap=True)]
    try:
        server.until(lambda _: all(load.served >= 50 for load in loads))
        stopped_at = time.monotonic()
        assert server.stop() == 0
    finally:
        for load in loads:
            load.join()

    assert [got for load in loads for at, got in load.failures if at < stopped_at] == []
    assert "killed" not in server.text


def _is_free(address: str) -> bool:
    """Whether an address can be listened on."""
    if address.startswith("unix:"):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(address.removeprefix("unix:")) != 0
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, int(port)))
            sock.listen()
        except OSError:
            return False
        return True


@pytest.mark.scheme("accept", "shared")
@pytest.mark.parametrize("after", [False, True], ids=["at once", "after a while"])
def test_a_quiet_client_does_not_hold_up_a_stop(launch: Launch, scheme: str, after):
    server = launch("workshop.py", "--workers", "1", "--idle-timeout", "300")
    with server.connect() as quiet:
        assert quiet.ask("ADD 2 3") == "5"
        if after:  # the worker waits in another way then
            uptime = server.status()["uptime_s"]
            server.until(lambda state: state["uptime_s"] > uptime + 0.6)
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(TIMEOUT) == 0
    assert "worker killed" not in server.text


@pytest.mark.parametrize(
    "number",
    [signal.SIGALRM, signal.SIGPROF, signal.SIGXCPU, signal.SIGSTKFLT, signal.SIGRTMIN + 3],
)
def test_a_signal_without_a_meaning_is_ignored_and_logged(launch: Launch, number):
    server = launch("workshop.py", "--workers", "1")
    server.process.send_signal(number)

    name = signal.Signals(number).name if number < signal.SIGRTMIN else str(int(number))
    server.wait_for(f"signal without a meaning ignored signal={name}")
    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(launch: Launch, number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        server = launch("workshop.py", "--workers", "1", warm=False)
    finally:
        signal.signal(number, before)
    server.process.send_signal(number)

    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert "stopping: now" not in server.text
