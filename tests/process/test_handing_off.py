"""Handing off: connections move between workers by way of the parker, and no client notices."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import (
    PARKING_SCHEMES,
    Counting,
    Flood,
    all_of,
    ask_all,
    clients,
    reset_on_close,
    until_parked,
    until_read,
)
from tests.servers import Gate, ServerProcess

in_both_schemes = pytest.mark.scheme(*PARKING_SCHEMES)


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def parking_server(
    tmp_path_factory: pytest.TempPathFactory, implementation: None, request: pytest.FixtureRequest
):
    """Give a server that parks connections after 5 ms; each test leaves it as it was."""
    place = tmp_path_factory.mktemp("parking")
    options = ("--workers", "2", "--park-after", "0.005")
    more = {"bind": ("127.0.0.1:0", "unix:sock"), "scheme": request.param}
    with ServerProcess(place, "moving.py", *options, **more) as server:
        yield server


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def recycling_server(
    tmp_path_factory: pytest.TempPathFactory, implementation: None, request: pytest.FixtureRequest
):
    """Give a server that recycles its workers after 100 requests."""
    place = tmp_path_factory.mktemp("recycling")
    options = ("--workers", "3", "--max-requests", "100")
    with ServerProcess(place, "moving.py", *options, scheme=request.param) as server:
        yield server


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def single_worker(
    tmp_path_factory: pytest.TempPathFactory,
    implementation: None,
    module_gate: Gate,
    request: pytest.FixtureRequest,
):
    """Give a server with one worker that parks connections after 5 ms."""
    place = tmp_path_factory.mktemp("single")
    options = ("--workers", "1", "--park-after", "0.005")
    more = {"gate": module_gate, "scheme": request.param}
    with ServerProcess(place, "moving.py", *options, **more) as server:
        yield server


# -- more clients than workers


def test_many_clients_of_few_workers_are_served_parked_and_served_again(
    parking_server: ServerProcess,
):
    with clients(parking_server, 300) as peers:
        for count in (1, 2):
            assert ask_all(peers, "NEXT_NUMBER") == [str(count)] * 300
            until_parked(parking_server, 300)


def test_one_client_after_the_other_is_parked_too(parking_server: ServerProcess):
    with clients(parking_server, 20) as peers:
        for number, peer in enumerate(peers, 1):
            assert peer.ask("ADD 2 3") == "5"
            until_parked(parking_server, number + len(peers[number:]))


# -- a state that this code does not read


@pytest.mark.both
def test_a_connection_that_cannot_continue_ends_with_a_clear_line_and_no_other_does(
    single_worker: ServerProcess,
):
    for number, (what, why) in enumerate(
        [
            ("session", "version '9' of a session is unknown; this code reads version '1'"),
            ("protocol", "version '51' of the state of the line protocol is unknown"),
        ],
        1,
    ):
        with clients(single_worker, 2) as (good, bad):
            assert good.ask("REMEMBER this") == "OK"
            until_parked(single_worker, 2)
            (worker,) = single_worker.pids()
            assert bad.ask(f"CHANGE_CODE {what}") == "OK"
            until_parked(single_worker, 2)

            bad.send(b"ADD 2 3\n" + b"x" * 50_000)

            assert all_of(bad) == (
                b"SERVER_ERROR this connection cannot continue after a change of the server;"
                b" connect again\r\n"
            )
            line = single_worker.wait_for("connection ended: its state cannot be loaded")
            assert f'peer={bad.socket.getsockname()[0]}:{bad.socket.getsockname()[1]} why="' in line
            assert why in line
            single_worker.until(lambda state: state["counters"]["dropped"] == number)  # noqa: B023
            assert good.ask("CHANGE_CODE -") == "OK"
            assert good.ask("RECALL") == "this"
            assert single_worker.pids() == [worker]


# -- what moves along


def test_a_connection_keeps_its_session(parking_server: ServerProcess):
    with parking_server.connect() as peer:
        assert peer.ask("REMEMBER text") == "OK"
        for _ in range(3):
            until_parked(parking_server, 1)
            assert peer.ask("RECALL") == "text"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_connection_keeps_its_id_peer_listener_and_user(parking_server: ServerProcess, kind):
    listener = ["tcp", "unix"].index(kind)
    with parking_server.connect(listener) as peer:
        name = "{}:{}".format(*peer.socket.getsockname()) if kind == "tcp" else "unix"
        assert peer.ask("LOG_IN ann") == "OK"
        known = peer.ask("WHO")
        assert known.split()[1:] == [name, parking_server.addresses[listener], "ann"]
        for _ in range(3):
            until_parked(parking_server, 1)
            assert peer.ask("WHO") == known


def test_half_a_line_moves_along(parking_server: ServerProcess):
    with parking_server.connect() as peer:
        assert peer.ask("ADD 1 1") == "2"
        for part in (b"A", b"DD", b" 2"):
            peer.send(part)
            until_read(parking_server, [peer])
            until_parked(parking_server, 1)

        peer.send(b" 3\r\n")

        assert peer.line() == "5"


@pytest.mark.parametrize("size", [100, 300_000])
def test_half_a_data_block_moves_along(parking_server: ServerProcess, size):
    block = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with parking_server.connect() as peer:
        peer.send(b"PUT %d\n" % size)
        for begin in range(0, size, size // 3):
            peer.send(block[begin : begin + size // 3])
            until_read(parking_server, [peer])
            until_parked(parking_server, 1)

        peer.send(b"\nADD 2 3\n")

        assert peer.line() == f"{size} {sum(block)}"
        assert peer.line() == "5"


def test_pipelined_requests_may_be_cut_anywhere(parking_server: ServerProcess):
    burst = b'REMEMBER a\nADD 1 1\r\nPUT 5\nhello\nSAY  b c\nFRO\n\nRECALL\nADD "2" 3\n'
    with parking_server.connect() as peer:
        peer.send(burst)
        whole = peer.rest()
    assert whole.endswith(b"\na\n5\n")
    with clients(parking_server, len(burst) - 1) as peers:
        for cut, peer in enumerate(peers, 1):
            peer.send(burst[:cut])
        until_read(parking_server, peers)
        until_parked(parking_server, len(peers))
        for cut, peer in enumerate(peers, 1):
            peer.send(burst[cut:])

        for cut, peer in enumerate(peers, 1):
            assert peer.rest() == whole, f"cut at {burst[:cut]!r}"


def test_a_state_too_large_for_a_message_moves_along(parking_server: ServerProcess):
    with parking_server.connect() as peer:
        assert peer.ask("HOARD 50000") == "OK"
        for _ in range(2):
            until_parked(parking_server, 1)
            assert peer.ask("BAG") == f"50000 {sum(range(50_000))}"


# -- what pins a connection to its worker


def test_a_connection_that_was_injected_into_a_handler_stays_in_its_worker(
    parking_server: ServerProcess,
):
    with parking_server.connect() as pinned, clients(parking_server, 20) as others:
        worker = pinned.ask("PIN")
        for _ in range(3):
            ask_all(others, "ADD 2 3")
            until_parked(parking_server, 20, hot=1)

            assert pinned.ask("PID") == worker


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("object", "TypeError: session value 'bag' is a object"),
        ("much", "ValueError: with 'bag' the session would hold 10024 bytes of JSON"),
    ],
)
def test_a_value_that_a_session_refuses_costs_one_request(parking_server: ServerProcess, what, why):
    with parking_server.connect() as peer:
        assert peer.ask("REMEMBER a") == "OK"

        reply = peer.ask(f"ASSIGN {what}")

        assert reply.startswith("SERVER_ERROR internal error, id ")
        parking_server.wait_for(
            f"handler failed {reply.split()[-2]}={reply.split()[-1]} command=ASSIGN"
        )
        parking_server.wait_for(why)
        until_parked(parking_server, 1)
        assert peer.ask("RECALL") == "a"


def test_a_session_that_cannot_be_serialised_pins_its_connection(parking_server: ServerProcess):
    with parking_server.connect() as peer, clients(parking_server, 10) as others:
        worker = peer.ask("SPOIL")
        for _ in range(3):
            ask_all(others, "ADD 2 3")
            until_parked(parking_server, 10, hot=1)
            assert peer.ask("PID") == worker
        name = "{}:{}".format(*peer.socket.getsockname())
        others[0].ask("ASSIGN object")
    parking_server.wait_for("handler failed")

    (warning,) = [line for line in parking_server.log if "cannot be handed off" in line]
    assert f"peer={name} why=\"session value 'bag[0]' is a object;" in warning


# -- slow clients and slow requests


def test_a_client_that_sends_without_end_does_not_starve_the_others(single_worker: ServerProcess):
    server = single_worker
    with server.connect() as neighbour, contextlib.closing(Flood(server)):
        begun = server.status()["counters"]["requests"]
        server.until(lambda state: state["counters"]["requests"] > begun + 1000)
        for _ in range(20):
            assert neighbour.ask("ADD 2 3") == "5"
            assert server.ask("ADD 2 3") == "5"

        assert server.status()["counters"]["requests"] > begun + 2000


def test_a_client_that_does_not_read_a_long_reply_holds_up_no_other(single_worker: ServerProcess):
    hold_up(single_worker, "BIG 20000000", lines=1)


def test_a_client_that_does_not_read_a_stream_holds_up_no_other(parking_server: ServerProcess):
    hold_up(parking_server, "STREAM 20 1000000", lines=20)


def hold_up(server: ServerProcess, command: str, lines: int) -> None:
    """Read a reply of 20 MB only after other clients have got theirs."""
    with server.connect() as slow, clients(server, 20) as others:
        assert ask_all(others, "NEXT_NUMBER") == ["1"] * 20
        slow.send(f"{command}\nADD 2 3\n".encode())
        until_parked(server, 20, hot=1)
        for count in (2, 3, 4):
            assert ask_all(others, "NEXT_NUMBER") == [str(count)] * 20
            assert server.ask("ADD 2 3") == "5"

        assert sum(len(slow.line()) for _ in range(lines)) == 20_000_000
        assert slow.line() == ("END" if lines > 1 else "5")


@pytest.mark.parametrize(
    ("scheme", "way"),
    [("shared", "SPIN"), ("shared", "DRIVE"), ("dispatch", "DRIVE")],
    indirect=["scheme"],
)
def test_other_connections_of_a_worker_with_a_long_request_are_served_elsewhere(
    launch: Launch, gate: Gate, way
):
    server = launch("moving.py", "--workers", "2", "--park-after", "60")
    with clients(server, 16) as peers:
        homes = [peer.ask("PID") for peer in peers]
        home = max(homes, key=homes.count)
        slow, *others = [peer for peer, pid in zip(peers, homes, strict=True) if pid == home]
        assert len(others) >= 7
        assert ask_all(others, "NEXT_NUMBER") == ["1"] * len(others)

        slow.send(f"{way}\n".encode())
        (busy,) = gate.wait()

        assert set(ask_all(others, "PID")) == {str(pid) for pid in server.pids() if pid != busy}
        assert ask_all(others, "NEXT_NUMBER") == ["2"] * len(others)
        gate.open()
        assert slow.line() == "let go"


def test_connections_that_a_worker_was_given_and_cannot_serve_go_to_another(
    single_worker: ServerProcess, module_gate: Gate
):
    server, gate = single_worker, module_gate
    with clients(server, 8) as peers:
        first, second, *others = peers
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 8
        until_parked(server, 8)
        first.send(b"HOLD\n")
        (busy,) = gate.wait()
        second.send(b"HOLD\n")
        for peer in others:
            peer.send(b"PID\nNEXT_NUMBER\n")
        server.status()  # by then they wait

        # Its worker takes the second connection, and is given others with it.
        gate.open()
        assert first.line() == "let go"
        assert gate.wait() == [busy]
        server.order("SCALE 2")

        replies = [(peer.line(), peer.line()) for peer in others]
        assert {pid for pid, _ in replies}.isdisjoint({str(busy)})
        assert {number for _, number in replies} == {"2"}
        gate.open()
        assert second.line() == "let go"
    server.order("SCALE 1")
    server.until(lambda state: state["tally"]["total"] == 1)


# -- workers that leave


def recycle(server: ServerProcess, counting: Counting) -> None:
    recycled = server.status()["counters"]["recycled"]
    server.until(lambda state: state["counters"]["recycled"] >= recycled + 6)


def scale(server: ServerProcess, counting: Counting) -> None:
    for _ in range(3):
        server.order("SCALE 1")
        server.until(lambda state: state["tally"]["total"] == 1)
        served = counting.asked
        server.order("SCALE 3")
        server.until(lambda state: state["tally"]["total"] == 3)
        server.until(lambda _: counting.asked > served + 20)  # noqa: B023 - called at once


def term(server: ServerProcess, counting: Counting) -> None:
    for _ in range(5):
        leaving = server.pids()[0]
        served = counting.asked
        with contextlib.suppress(ProcessLookupError):  # it may have been recycled
            os.kill(leaving, signal.SIGTERM)
        server.until_gone(leaving)
        server.until(lambda _: counting.asked > served + 20)  # noqa: B023


@pytest.mark.parametrize("replace_workers", [recycle, scale, term])
def test_workers_that_leave_gracefully_drop_no_connection(
    recycling_server: ServerProcess, replace_workers: Callable[[ServerProcess, Counting], None]
):
    with clients(recycling_server, 30) as quiet:
        assert ask_all(quiet, "NEXT_NUMBER") == ["1"] * 30
        with contextlib.closing(Counting(recycling_server, 8)) as counting:
            replace_workers(recycling_server, counting)

        assert counting.wrong == []
        assert ask_all(quiet, "NEXT_NUMBER") == ["2"] * 30
        counters = recycling_server.status()["counters"]
        assert (counters["dropped"], counters["kills"]) == (0, 0)


def test_parked_connections_outlive_all_workers(recycling_server: ServerProcess):
    with clients(recycling_server, 30) as quiet:
        assert ask_all(quiet, "NEXT_NUMBER") == ["1"] * 30
        until_parked(recycling_server, 30)

        for pid in recycling_server.pids():
            with contextlib.suppress(ProcessLookupError):  # it has been recycled meanwhile
                os.kill(pid, signal.SIGKILL)

        assert ask_all(quiet, "NEXT_NUMBER") == ["2"] * 30
        assert recycling_server.status()["counters"]["dropped"] == 0


# -- hooks


class RecordingServer(ServerProcess):
    """A server with hooks, and what they have recorded."""

    def __init__(self, place: Path, gate: Gate, scheme: str, *options: str) -> None:
        self._journal = place / "journal"
        environment = {"JOURNAL": str(self._journal)}
        options = ("--workers", "2", "--park-after", "0.005", *options)
        super().__init__(
            place, "moving.py", *options, gate=gate, environment=environment, scheme=scheme
        )

    @contextlib.contextmanager
    def greeted(self) -> Iterator[tuple[Peer, str]]:
        """Give a connection and its id, from the greeting."""
        with self.connect() as peer:
            hello, name = peer.line().split()
            assert hello == "hello"
            yield peer, name

    def recorded(self, what: str, name: str) -> int:
        """Return how often a hook has run for a connection."""
        lines = self._journal.read_text().splitlines()
        return sum(line.startswith(f"{what} {name} ") for line in lines)

    def assert_recorded_once(self, name: str) -> None:
        """Wait for the end of a connection, and assert that each hook has run for it once."""
        self.until(lambda _: self.recorded("disconnect", name))
        with self.greeted() as (later, other):
            later.send(b"QUIT\n")
        self.until(lambda _: self.recorded("disconnect", other))
        assert (self.recorded("connect", name), self.recorded("disconnect", name)) == (1, 1)


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def recording_server(
    tmp_path_factory: pytest.TempPathFactory,
    implementation: None,
    module_gate: Gate,
    request: pytest.FixtureRequest,
):
    """Give a server with hooks and short timeouts."""
    place = tmp_path_factory.mktemp("recording")
    # A busy machine serves a client that is not to be idle within two seconds.
    limits = ("--idle-timeout", "2", "--read-timeout", "0.3")
    with RecordingServer(place, module_gate, request.param, *limits) as server:
        yield server


def test_on_disconnect_runs_once_for_a_client_that_closes_while_it_is_parked(recording_server):
    with recording_server.greeted() as (_, name):
        until_parked(recording_server, 1)
    recording_server.assert_recorded_once(name)


def test_on_disconnect_runs_once_for_a_client_that_closes_while_a_worker_holds_it(recording_server):
    with recording_server.greeted() as (peer, name):
        assert peer.ask("PIN")
        until_parked(recording_server, 0, hot=1)
    recording_server.assert_recorded_once(name)


def test_on_disconnect_runs_once_for_a_client_that_closes_while_its_request_is_in_flight(
    recording_server, module_gate: Gate
):
    with recording_server.greeted() as (peer, name):
        peer.send(b"HOLD\n")
        module_gate.wait()
    module_gate.open()
    recording_server.assert_recorded_once(name)


def test_on_disconnect_runs_once_for_a_client_that_resets_its_connection(recording_server):
    with recording_server.greeted() as (peer, name):
        until_parked(recording_server, 1)
        reset_on_close(peer)
    recording_server.assert_recorded_once(name)


def test_on_disconnect_runs_once_for_a_client_that_is_idle_while_it_is_parked(recording_server):
    with recording_server.greeted() as (peer, name):
        recording_server.until(lambda state: state["connections"]["hot"] == 0)
        assert all_of(peer) == b""
        recording_server.assert_recorded_once(name)


def test_on_disconnect_runs_once_for_half_a_line_that_is_never_completed(recording_server):
    with recording_server.greeted() as (peer, name):
        peer.send(b"ADD 1 1\nADD 2")
        assert peer.line() == "2"
        until_read(recording_server, [peer])
        recording_server.until(lambda state: state["connections"]["hot"] == 0)
        error = b"CLIENT_ERROR the request did not arrive within 0.3 s; it was not run\n"
        assert all_of(peer) == error
        recording_server.assert_recorded_once(name)


def test_on_disconnect_does_not_run_when_only_the_worker_ends(recording_server):
    with recording_server.greeted() as (peer, name):
        for leaving in recording_server.pids():
            assert peer.ask("ADD 2 3") == "5"
            os.kill(leaving, signal.SIGTERM)
            recording_server.until_gone(leaving)
        assert peer.ask("ADD 2 3") == "5"
        assert recording_server.recorded("disconnect", name) == 0
    recording_server.assert_recorded_once(name)


@in_both_schemes
def test_on_disconnect_runs_once_for_every_client_when_the_server_stops(
    tmp_path, gate: Gate, scheme
):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RecordingServer(tmp_path, gate, scheme))
        greeted = [stack.enter_context(server.greeted()) for _ in range(20)]
        peers = [peer for peer, _ in greeted]
        assert ask_all(peers, "ADD 2 3") == ["5"] * 20
        peers[0].ask("PIN")
        peers[1].send(b"HOLD\n")
        gate.wait()
        server.send(signal.SIGTERM)
        server.wait_for("stopping")
        gate.open()

        assert [all_of(peer) for peer in peers] == [b"", b"let go\n"] + [b""] * 18
        assert server.ended() == 0
        assert [server.recorded("disconnect", name) for _, name in greeted] == [1] * 20
