"""The kernel's traps: descriptors that run out, leak, or are heard of for ever; and stray messages."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.ipc.board import HANDLER_NS, REQUESTS, Board
from linepool.protocols.base import Request
from tests.conftest import Launch
from tests.process.connections import (
    PARKING_SCHEMES,
    ask_all,
    clients,
    open_files,
    parker_of,
    serving,
    sockets_of,
    until_parked,
)
from tests.servers import Gate, ServerProcess


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory):
    """Give the gate of the server's handlers."""
    with contextlib.closing(Gate(tmp_path_factory.mktemp("gate") / "gate")) as gate:
        yield gate


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def server(tmp_path_factory: pytest.TempPathFactory, gate: Gate, request: pytest.FixtureRequest):
    """Give a server that every test leaves as it was."""
    environment = {"GATE": str(gate.path)}
    place = tmp_path_factory.mktemp("traps")
    with serving(place, request.param, "--workers", "2", environment=environment) as running:
        yield running


@contextlib.contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """Let a process open nothing more, for a while."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    free = min(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have been replaced
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def with_a_small_parker(launch: Launch, *options: str) -> ServerProcess:
    """Start a server whose parker has 80 descriptors, of which it keeps 32 for other things."""
    server = launch("moving.py", "--workers", "2", *options)
    parker = parker_of(server)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (80, 20_000))
    os.kill(parker, signal.SIGKILL)
    parker_of(server, besides=parker)
    return server


def switches(pid: int) -> int:
    """Return how often a process has been put on and off a processor (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


# -- no descriptor left


def test_what_a_worker_has_no_descriptor_for_is_served_by_another(server: ServerProcess):
    with clients(server, 20) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 20
        until_parked(server, 20)
        preferred = int(peers[0].ask("PID"))  # of those who are free, the one that was busy last
        until_parked(server, 20)

        with no_descriptor_left(preferred):
            assert peers[0].ask("PID") != str(preferred)
            assert ask_all(peers, "NEXT_NUMBER") == ["2"] * 20

        until_parked(server, 20)
        assert ask_all(peers, "NEXT_NUMBER") == ["3"] * 20
        counters = server.status()["counters"]
    assert (counters["dropped"], counters["crashes"]) == (0, 0)


@pytest.mark.scheme("dispatch")
def test_what_the_only_worker_has_no_descriptor_for_waits_without_a_frenzy(launch: Launch):
    server = launch("moving.py", "--workers", "1")
    with clients(server, 10) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 10
        until_parked(server, 10)
        with no_descriptor_left(server.pids()[0]):
            peers[0].send(b"NEXT_NUMBER\n")
            server.wait_for("no descriptor left for a connection")
            for _ in range(100):
                server.status()

        assert peers[0].line() == "2"
        assert ask_all(peers[1:], "NEXT_NUMBER") == ["2"] * 9
    assert server.stop() == 0
    assert sum("no descriptor left" in line for line in server.log) < 10


@pytest.mark.scheme("shared")
def test_a_worker_that_cannot_accept_any_more_is_replaced_and_drops_nobody(launch: Launch):
    server = launch("moving.py", "--workers", "1")
    with clients(server, 10) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 10
        until_parked(server, 10)
        (worker,) = server.pids()
        with no_descriptor_left(worker), server.connect() as newcomer:
            assert newcomer.ask("PID") != str(worker)

        assert ask_all(peers, "NEXT_NUMBER") == ["2"] * 10
    assert server.status()["counters"]["dropped"] == 0


@pytest.mark.scheme("shared")
def test_connections_for_which_the_parker_has_no_descriptor_stay_with_their_workers(
    launch: Launch,
):
    server = with_a_small_parker(launch, "--park-after", "0.005")
    with clients(server, 64) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 64
        server.until(lambda state: state["connections"]["parked"] > 30)
        for count in ("2", "3"):
            for peer in peers:
                peer.socket.settimeout(2)  # or until another one leaves
                assert peer.ask("NEXT_NUMBER") == count
                server.status()  # time passes, and they become cold
    until_parked(server, 0)
    assert server.stop() == 0
    assert "is lost" not in server.text


@pytest.mark.scheme("dispatch")
def test_clients_for_which_the_parker_has_no_descriptor_are_served_when_others_leave(
    launch: Launch,
):
    server = with_a_small_parker(launch)
    with clients(server, 30) as first, clients(server, 30) as second:
        assert ask_all(first, "NEXT_NUMBER") == ["1"] * 30
        for peer in second:
            peer.send(b"NEXT_NUMBER\n")
        server.until(lambda state: state["connections"]["parked"] > 30)
        assert ask_all(first, "NEXT_NUMBER") == ["2"] * 30

        for peer in first:
            peer.close()

        assert [peer.line() for peer in second] == ["1"] * 30
        until_parked(server, 30)
        assert ask_all(second, "NEXT_NUMBER") == ["2"] * 30


def test_a_parker_whose_limit_is_lowered_loses_nobody(server: ServerProcess):
    with clients(server, 10) as peers, clients(server, 3) as pinned:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 10
        pids = [peer.ask("PIN") for peer in pinned]
        until_parked(server, 10, hot=3)

        with no_descriptor_left(parker_of(server)):
            for count in ("2", "3"):
                assert ask_all(peers, "NEXT_NUMBER") == [count] * 10
            assert [peer.ask("PID") for peer in pinned] == pids

        until_parked(server, 10, hot=3)
        assert ask_all(peers, "NEXT_NUMBER") == ["4"] * 10


# -- descriptors that leak


def test_a_program_that_a_handler_starts_has_no_clients_connection(server: ServerProcess):
    with clients(server, 5) as peers, clients(server, 2) as pinned:
        assert ask_all(peers, "ADD 2 3") == ["5"] * 5
        assert ask_all(pinned, "PIN")
        until_parked(server, 5, hot=2)

        for peer in (*peers, *pinned):
            leads = peer.ask_lines("PROGRAM")
            assert len(leads) >= 3
            assert not any(lead.startswith("socket:") for lead in leads)


def test_a_connection_that_was_handed_on_is_open_in_one_process_only(server: ServerProcess):
    parker, *_ = processes = [parker_of(server), *server.pids()]

    def holders() -> set[int]:
        return {pid for pid in processes for name in open_files(pid) if name in names}

    with clients(server, 50) as peers:
        assert ask_all(peers, "ADD 2 3") == ["5"] * 50
        names = sockets_of(peers)
        for _ in range(3):
            assert ask_all(peers, "ADD 2 3") == ["5"] * 50
            until_parked(server, 50)
            server.until(lambda _: holders() == {parker})
        assert names <= set(open_files(parker))
    server.until(lambda _: holders() == set())


# -- descriptors that are heard of for ever


def test_an_idle_server_does_nothing_at_all(server: ServerProcess, gate: Gate):
    with clients(server, 200) as peers:
        for _ in range(3):
            assert ask_all(peers, "ADD 2 3") == ["5"] * 200
            until_parked(server, 200)
        # Some are handed on by the second thread, for a handler is slow.
        assert ask_all(peers, "ADD 2 3") == ["5"] * 200
        peers[0].send(b"HOLD\n")
        gate.wait()
        assert ask_all(peers[1:], "ADD 2 3") == ["5"] * 199
        gate.open()
        assert peers[0].line() == "let go"
        until_parked(server, 200)
        processes = [parker_of(server), *server.pids()]

        # Who still had something to look at has done so by then; a ghost never rests.
        server.until(lambda _: are_at_rest(server, processes))


def are_at_rest(server: ServerProcess, processes: list[int]) -> bool:
    """Whether none of the processes runs while the server tells its status some times."""
    before = [switches(pid) for pid in processes]
    for _ in range(30):
        server.status()
    return [switches(pid) for pid in processes] == before


# -- words that others read while they are written


def test_no_count_on_the_board_is_ever_seen_to_go_back():
    slot = Board().slots[0]
    request = Request(b"ADD", [], line=b"ADD 2 3")
    writer = os.fork()
    if writer == 0:
        try:
            for _ in range(100_000):
                slot.begin(request, 1, 2, 0)
                slot.finish(1, 3)
        finally:
            os._exit(0)
    seen = []
    while os.waitpid(writer, os.WNOHANG) == (0, 0):
        seen += [(slot.words[HANDLER_NS], slot.words[REQUESTS]) for _ in range(1000)]

    spent, requests = zip(*seen, strict=True)
    assert slot.words[REQUESTS] == 100_000
    assert list(requests) == sorted(requests)
    assert list(spent) == sorted(spent)


# -- processes that are stopped, and such as have lost their mind


@pytest.mark.parametrize("who", ["worker", "parker"])
def test_processes_that_are_stopped_only_delay_what_they_are_given(server: ServerProcess, who):
    with clients(server, 20) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 20
        until_parked(server, 20)
        stopped = [parker_of(server)] if who == "parker" else server.pids()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        for peer in peers:
            peer.send(b"NEXT_NUMBER\n")
        server.status()

        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

        assert [peer.line() for peer in peers] == ["2"] * 20


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_nonsense_in_the_channel_of_a_worker_harms_nobody(launch: Launch):
    server = launch("moving.py", "--workers", "2")
    with clients(server, 20) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 20
        until_parked(server, 20)
        parker = parker_of(server)

        with server.connect() as mad:
            assert mad.ask("BABBLE 1 100") == "OK"
        until_parked(server, 20)

        for count in ("2", "3"):
            assert ask_all(peers, "NEXT_NUMBER") == [count] * 20
        assert parker_of(server) == parker
        assert server.status()["counters"]["crashes"] == 0
