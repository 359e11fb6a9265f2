"""Descriptors that run out, leak, or stay in an epoll set; torn reads, and processes that are stopped."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linepool.ipc.board import Board, WorkerView
from tests.conftest import Launch
from tests.process.connections import (
    PARKING_SCHEMES,
    ask_all,
    clients,
    lowest_free_descriptor,
    open_files,
    parker_of,
    sockets_of,
    until_parked,
)
from tests.servers import Gate, ServerProcess, freeze, library_files


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def server(
    tmp_path_factory: pytest.TempPathFactory, module_gate: Gate, request: pytest.FixtureRequest
):
    """Give a server that each test leaves as it was."""
    place = tmp_path_factory.mktemp("traps")
    options = ("--workers", "2")
    more = {"gate": module_gate, "scheme": request.param}
    with ServerProcess(place, "moving.py", *options, **more) as server:
        yield server


@contextlib.contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """Keep a process from opening any more descriptors until the block ends."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = lowest_free_descriptor(pid)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have been replaced
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def launch_with_small_parker(launch: Launch, *options: str) -> ServerProcess:
    """Start a server whose parker may have 80 descriptors, of which it reserves 32."""
    server = launch("moving.py", "--workers", "2", *options)
    parker = parker_of(server)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (80, 20_000))
    os.kill(parker, signal.SIGKILL)
    parker_of(server, besides=parker)
    return server


def switches(pid: int) -> int:
    """Return the number of context switches of a process (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


# -- no descriptor left


def test_connections_for_which_a_worker_has_no_descriptor_go_to_another(server: ServerProcess):
    with clients(server, 20) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 20
        until_parked(server, 20)
        preferred = int(peers[0].ask("PID"))  # of the idle workers the one that was busy last
        until_parked(server, 20)

        with no_descriptor_left(preferred):
            assert peers[0].ask("PID") != str(preferred)
            assert ask_all(peers, "NEXT_NUMBER") == ["2"] * 20

        until_parked(server, 20)
        assert ask_all(peers, "NEXT_NUMBER") == ["3"] * 20
        counters = server.status()["counters"]
    assert (counters["dropped"], counters["crashes"]) == (0, 0)


@pytest.mark.scheme("dispatch")
def test_a_connection_for_which_the_only_worker_has_no_descriptor_waits_quietly(launch: Launch):
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
def test_a_worker_that_cannot_accept_any_more_is_replaced_and_drops_no_connection(launch: Launch):
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
    server = launch_with_small_parker(launch, "--park-after", "0.005")
    with clients(server, 64) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 64
        server.until(lambda state: state["connections"]["parked"] > 30)
        for count in ("2", "3"):
            for peer in peers:
                peer.socket.settimeout(2)  # or until another one leaves
                assert peer.ask("NEXT_NUMBER") == count
                server.status()  # time passes, and idle connections become due for parking
    until_parked(server, 0)
    assert server.stop() == 0
    assert "is lost" not in server.text


@pytest.mark.scheme("dispatch")
def test_clients_for_which_the_parker_has_no_descriptor_are_served_when_others_leave(
    launch: Launch,
):
    server = launch_with_small_parker(launch)
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


def test_a_parker_whose_limit_is_lowered_loses_no_connection(server: ServerProcess):
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


# -- a low limit


def limited(limit: int) -> Callable[[], None]:
    """Return a function that sets the limit of open files in a new process."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


@pytest.mark.scheme("shared", "dispatch")
def test_few_descriptors_are_shared_out(launch: Launch):
    server = launch("workshop.py", "--workers", "2", preexec_fn=limited(512))

    (warning,) = [line for line in server.log if "limit of open files" in line]
    own = library_files()
    assert f"limit=512 needed={10038 + own} workers=2 max_connections={474 - own} hot_" in warning
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(300)]
        for number, peer in enumerate(peers):
            assert peer.ask(f"ADD {number} 1") == str(number + 1)
        assert all(peer.ask("ADD 2 3") == "5" for peer in peers)
        assert server.status()["counters"]["refused"] == 0


@pytest.mark.scheme("shared", "dispatch")
def test_files_that_the_app_has_opened_before_the_fork_count(tmp_path, launch: Launch):
    (tmp_path / "app.py").write_text(
        "import linepool, os\n[os.open('/dev/null', os.O_RDONLY) for _ in range(300)]\n"
        "@linepool.handler\ndef add(a: int, b: int): return a + b\n"
    )
    server = launch("app.py", "--workers", "2", preexec_fn=limited(512))

    (warning,) = [line for line in server.log if "limit of open files" in line]
    most = int(warning.partition("max_connections=")[2].split()[0])
    assert 150 < most < 200
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(most)]
        assert [peer.ask("ADD 2 3") for peer in peers] == ["5"] * most
    assert [line for line in server.log if "no descriptor" in line or "cannot" in line] == []


def test_a_bus_fits_into_few_descriptors(tmp_path, launch: Launch):
    (tmp_path / "app.py").write_text(
        "import linepool\napp = linepool.App(protocol=linepool.Resp())\n"
        "@app.handler\ndef ok(): return 1\n"
    )
    server = launch("app.py", "--workers", "2:50", preexec_fn=limited(256))

    with server.connect() as subscriber, server.connect() as publisher:
        subscriber.send(b"SUBSCRIBE c\r\n")
        assert [subscriber.line() for _ in range(6)][-1] == ":1"
        publisher.send(b"PUBLISH c x\r\n")
        assert publisher.line() == ":1"
        assert subscriber.line() == "*3"
    assert "cannot fork" not in server.text


def test_a_limit_that_leaves_nothing_is_refused_in_one_line(launch: Launch):
    server = launch("workshop.py", preexec_fn=limited(30), ready=False)

    assert server.ended() == 1
    assert len(server.log) == 1
    assert "the limit of open files is 30, which is too low" in server.log[0]


# -- descriptors that leak


def test_a_program_that_a_handler_starts_inherits_no_connection(server: ServerProcess):
    with clients(server, 5) as peers, clients(server, 2) as pinned:
        assert ask_all(peers, "ADD 2 3") == ["5"] * 5
        assert ask_all(pinned, "PIN")
        until_parked(server, 5, hot=2)

        for peer in (*peers, *pinned):
            targets = peer.ask_lines("PROGRAM")
            assert len(targets) >= 3
            assert not any(target.startswith("socket:") for target in targets)


def test_a_connection_that_was_handed_off_is_open_in_one_process_only(server: ServerProcess):
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


# -- descriptors that stay in an epoll set


def test_an_idle_server_never_wakes_up(server: ServerProcess, module_gate: Gate):
    with clients(server, 200) as peers:
        for _ in range(3):
            assert ask_all(peers, "ADD 2 3") == ["5"] * 200
            until_parked(server, 200)
        # While a handler is slow, the evacuation thread hands off some of them.
        assert ask_all(peers, "ADD 2 3") == ["5"] * 200
        peers[0].send(b"HOLD\n")
        module_gate.wait()
        assert ask_all(peers[1:], "ADD 2 3") == ["5"] * 199
        module_gate.open()
        assert peers[0].line() == "let go"
        until_parked(server, 200)
        processes = [parker_of(server), *server.pids()]

        # Pending timers run out; a closed descriptor in an epoll set would never stop to wake its process.
        server.until(lambda _: are_asleep(server, processes))


def are_asleep(server: ServerProcess, processes: list[int]) -> bool:
    """Whether none of the processes runs while the master answers 30 requests for its status."""
    before = [switches(pid) for pid in processes]
    for _ in range(30):
        server.status()
    return [switches(pid) for pid in processes] == before


# -- words that one process reads while another writes them


def test_counters_on_the_board_never_go_back():
    board = WorkerView(Board(), 0)
    writer = os.fork()
    if writer == 0:
        try:
            for _ in range(100_000):
                board.begin(b"ADD 2 3", 7, 1, 2, 0, 0, 1, 3)
                board.finish(1, 3)
        finally:
            os._exit(0)
    seen = []
    while os.waitpid(writer, os.WNOHANG) == (0, 0):
        seen += [board.work for _ in range(1000)]

    requests, spent = zip(*seen, strict=True)
    assert board.work[0] == 100_000
    assert list(requests) == sorted(requests)
    assert list(spent) == sorted(spent)


# -- processes that are stopped, and processes that write garbage


@pytest.mark.parametrize("process", ["worker", "parker"])
def test_stopped_processes_only_delay_the_requests_that_they_are_given(
    server: ServerProcess, process
):
    with clients(server, 20) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 20
        until_parked(server, 20)
        stopped = [parker_of(server)] if process == "parker" else server.pids()
        for pid in stopped:
            freeze(pid)
        for peer in peers:
            peer.send(b"NEXT_NUMBER\n")
        server.status()

        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

        assert [peer.line() for peer in peers] == ["2"] * 20


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_a_file_in_the_place_of_a_connection_costs_no_other_connection(launch: Launch):
    server = launch("moving.py", "--workers", "2")
    with clients(server, 20) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 20
        until_parked(server, 20)
        parker = parker_of(server)

        with server.connect() as culprit:
            assert culprit.ask("PASS_A_FILE") == "OK"
        server.wait_for("dropped what a worker passed slot=")

        assert ask_all(peers, "NEXT_NUMBER") == ["2"] * 20
        assert parker_of(server) == parker


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_garbage_in_the_channel_of_a_worker_does_no_harm(launch: Launch):
    server = launch("moving.py", "--workers", "2")
    with clients(server, 20) as peers:
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 20
        until_parked(server, 20)
        parker = parker_of(server)

        with server.connect() as culprit:
            assert culprit.ask("BABBLE 1 100") == "OK"
        until_parked(server, 20)

        for count in ("2", "3"):
            assert ask_all(peers, "NEXT_NUMBER") == [count] * 20
        assert parker_of(server) == parker
        assert server.status()["counters"]["crashes"] == 0
