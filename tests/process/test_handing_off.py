"""Connections go from worker to worker by way of the parker, and no client notices."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import Gate, ServerProcess
from tests.process.connections import (
    Counting,
    Flood,
    all_of,
    ask_all,
    PARKING_SCHEMES,
    clients,
    serving,
    until_parked,
    until_read,
)

in_both_schemes = pytest.mark.scheme(*PARKING_SCHEMES)


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def house(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """Give a server that parks soon, for tests that leave it as it was."""
    place = tmp_path_factory.mktemp("house")
    options = ("--workers", "2", "--park-after", "0.005")
    with serving(place, request.param, *options, bind=("127.0.0.1:0", "unix:sock")) as server:
        yield server


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def crowd(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """Give a server whose workers come and go."""
    options = ("--workers", "3", "--max-requests", "100")
    with serving(tmp_path_factory.mktemp("crowd"), request.param, *options) as server:
        yield server


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def desk(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """Give a server with one worker, and the gate of its handlers."""
    place = tmp_path_factory.mktemp("desk")
    options = ("--workers", "1", "--park-after", "0.005")
    with contextlib.closing(Gate(place / "gate")) as gate:
        environment = {"GATE": str(gate.path)}
        with serving(place, request.param, *options, environment=environment) as server:
            yield server, gate


# -- more clients than workers


def test_many_clients_of_few_workers_are_served_parked_and_served_again(house: ServerProcess):
    with clients(house, 300) as peers:
        for count in (1, 2):
            assert ask_all(peers, "NEXT_NUMBER") == [str(count)] * 300
            until_parked(house, 300)


def test_one_client_after_the_other_is_parked_too(house: ServerProcess):
    with clients(house, 20) as peers:
        for number, peer in enumerate(peers, 1):
            assert peer.ask("ADD 2 3") == "5"
            until_parked(house, number + len(peers[number:]))


# -- what survives


def test_a_connection_keeps_its_session_and_its_names(house: ServerProcess):
    with house.connect(0) as tcp, house.connect(1) as unix:
        for peer, name in ((tcp, "{}:{}".format(*tcp.socket.getsockname())), (unix, "unix")):
            assert peer.ask("REMEMBER text") == "OK"
            assert peer.ask("LOG_IN ann") == "OK"
            known = peer.ask("WHO")
            _, peer_name, listener, user = known.split()
            assert (peer_name, user) == (name, "ann")
            assert listener == house.addresses[peer is unix]
            for _ in range(3):
                until_parked(house, 2)
                assert peer.ask("WHO") == known
                assert peer.ask("RECALL") == "text"


def test_half_a_line_survives(house: ServerProcess):
    with house.connect() as peer:
        assert peer.ask("ADD 1 1") == "2"
        for part in (b"A", b"DD", b" 2"):
            peer.send(part)
            until_read(house, [peer])
            until_parked(house, 1)

        peer.send(b" 3\r\n")

        assert peer.line() == "5"


@pytest.mark.parametrize("size", [100, 300_000])
def test_half_a_data_block_survives(house: ServerProcess, size):
    block = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with house.connect() as peer:
        peer.send(b"PUT %d\n" % size)
        for begin in range(0, size, size // 3):
            peer.send(block[begin : begin + size // 3])
            until_read(house, [peer])
            until_parked(house, 1)

        peer.send(b"\nADD 2 3\n")

        assert peer.line() == f"{size} {sum(block)}"
        assert peer.line() == "5"


def test_a_burst_may_be_cut_anywhere(house: ServerProcess):
    burst = b'REMEMBER a\nADD 1 1\r\nPUT 5\nhello\nSAY  b c\nFRO\n\nRECALL\nADD "2" 3\n'
    with house.connect() as peer:
        peer.send(burst)
        whole = peer.rest()
    assert whole.endswith(b"\na\n5\n")
    with clients(house, len(burst) - 1) as peers:
        for cut, peer in enumerate(peers, 1):
            peer.send(burst[:cut])
        until_read(house, peers)
        until_parked(house, len(peers))
        for cut, peer in enumerate(peers, 1):
            peer.send(burst[cut:])

        for cut, peer in enumerate(peers, 1):
            assert peer.rest() == whole, f"cut at {burst[:cut]!r}"


def test_a_state_too_large_for_a_message_travels_too(house: ServerProcess):
    with house.connect() as peer:
        assert peer.ask("HOARD 50000") == "OK"
        for _ in range(2):
            until_parked(house, 1)
            assert peer.ask("BAG") == f"50000 {sum(range(50_000))}"


# -- what keeps a connection where it is


def test_a_connection_that_a_handler_has_asked_for_stays_in_its_worker(house: ServerProcess):
    with house.connect() as pinned, clients(house, 20) as others:
        worker = pinned.ask("PIN")
        for _ in range(3):
            ask_all(others, "ADD 2 3")
            until_parked(house, 20, hot=1)

            assert pinned.ask("PID") == worker


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("object", "TypeError: session value 'bag' is a object"),
        ("much", "ValueError: with 'bag' the session would hold 10024 bytes of JSON"),
    ],
)
def test_what_a_session_does_not_take_costs_one_request(house: ServerProcess, what, why):
    with house.connect() as peer:
        assert peer.ask("REMEMBER a") == "OK"

        reply = peer.ask(f"ASSIGN {what}")

        assert reply.startswith("SERVER_ERROR internal error, id ")
        house.wait_for(f"handler failed {reply.split()[-2]}={reply.split()[-1]} command=ASSIGN")
        house.wait_for(why)
        until_parked(house, 1)
        assert peer.ask("RECALL") == "a"


def test_a_session_that_cannot_travel_keeps_its_connection_where_it_is(house: ServerProcess):
    with house.connect() as peer, clients(house, 10) as others:
        worker = peer.ask("SPOIL")
        for _ in range(3):
            ask_all(others, "ADD 2 3")
            until_parked(house, 10, hot=1)
            assert peer.ask("PID") == worker
        name = "{}:{}".format(*peer.socket.getsockname())
        others[0].ask("ASSIGN object")
    house.wait_for("handler failed")

    (said,) = [line for line in house.log if "cannot be handed on" in line]
    assert f"peer={name} why=\"session value 'bag[0]' is a object;" in said


# -- who holds up whom


def test_a_client_that_sends_without_end_does_not_starve_its_neighbours(desk):
    server, _ = desk
    with server.connect() as neighbour, contextlib.closing(Flood(server)):
        begun = server.status()["counters"]["requests"]
        server.until(lambda state: state["counters"]["requests"] > begun + 1000)
        for _ in range(20):
            assert neighbour.ask("ADD 2 3") == "5"
            assert server.ask("ADD 2 3") == "5"

        assert server.status()["counters"]["requests"] > begun + 2000


def test_a_client_that_does_not_read_a_long_reply_holds_up_nobody(desk):
    server, _ = desk
    hold_up(server, "BIG 20000000", lines=1)


def test_a_client_that_does_not_read_a_stream_holds_up_nobody(house: ServerProcess):
    hold_up(house, "STREAM 20 1000000", lines=20)


def hold_up(server: ServerProcess, command: str, lines: int) -> None:
    """Do not read a reply of 20 MB until others have got theirs."""
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
def test_while_a_request_takes_long_the_others_of_its_worker_are_served_elsewhere(
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


def test_what_a_worker_was_given_and_cannot_begin_goes_to_another(desk):
    server, gate = desk
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

        # Its worker takes the second client, and is given others with it.
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


# -- workers come and go


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
        server.until(lambda state: leaving not in [one["pid"] for one in state["workers"]])  # noqa: B023
        server.until(lambda _: counting.asked > served + 20)  # noqa: B023


@pytest.mark.parametrize("upheaval", [recycle, scale, term])
def test_workers_that_leave_in_order_drop_no_connection(
    crowd: ServerProcess, upheaval: Callable[[ServerProcess, Counting], None]
):
    with clients(crowd, 30) as quiet:
        assert ask_all(quiet, "NEXT_NUMBER") == ["1"] * 30
        with contextlib.closing(Counting(crowd, 8)) as counting:
            upheaval(crowd, counting)

        assert counting.wrong == []
        assert ask_all(quiet, "NEXT_NUMBER") == ["2"] * 30
        counters = crowd.status()["counters"]
        assert (counters["dropped"], counters["kills"]) == (0, 0)


def test_the_death_of_all_workers_costs_no_quiet_client_anything(crowd: ServerProcess):
    with clients(crowd, 30) as quiet:
        assert ask_all(quiet, "NEXT_NUMBER") == ["1"] * 30
        until_parked(crowd, 30)

        for pid in crowd.pids():
            os.kill(pid, signal.SIGKILL)

        assert ask_all(quiet, "NEXT_NUMBER") == ["2"] * 30
        assert crowd.status()["counters"]["dropped"] == 0


# -- hooks


class Reception:
    """A server whose hooks note whom they meet, and the gate of its handlers."""

    def __init__(self, place: Path, gate: Gate, scheme: str, *options: str) -> None:
        self.gate = gate
        self._journal = place / "journal"
        environment = {"GATE": str(gate.path), "JOURNAL": str(self._journal)}
        options = ("--workers", "2", "--park-after", "0.005", *options)
        self.server = ServerProcess(
            place, "moving.py", *options, environment=environment, scheme=scheme
        )

    @contextlib.contextmanager
    def guest(self) -> Iterator[tuple[Peer, str]]:
        """Give a connection and its id, as it was greeted."""
        with self.server.connect() as peer:
            hello, name = peer.line().split()
            assert hello == "hello"
            yield peer, name

    def noted(self, what: str, name: str) -> int:
        """Return how often a hook has noted a connection."""
        lines = self._journal.read_text().splitlines()
        return sum(line.startswith(f"{what} {name} ") for line in lines)

    def assert_met_once(self, name: str) -> None:
        """Wait until a connection is known to have ended, and make sure that it is so only once."""
        self.server.until(lambda _: self.noted("disconnect", name))
        with self.guest() as (later, other):
            later.send(b"QUIT\n")
        self.server.until(lambda _: self.noted("disconnect", other))
        assert (self.noted("connect", name), self.noted("disconnect", name)) == (1, 1)


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def reception(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """Give a server with hooks."""
    place = tmp_path_factory.mktemp("reception")
    with contextlib.closing(Gate(place / "gate")) as gate:
        limits = ("--idle-timeout", "0.5", "--read-timeout", "0.3")
        reception = Reception(place, gate, request.param, *limits)
        yield reception
        reception.server.end()


def test_on_disconnect_runs_once_for_a_client_that_closes_while_it_is_parked(reception):
    with reception.guest() as (_, name):
        until_parked(reception.server, 1)
    reception.assert_met_once(name)


def test_on_disconnect_runs_once_for_a_client_that_closes_while_a_worker_holds_it(reception):
    with reception.guest() as (peer, name):
        assert peer.ask("PIN")
        until_parked(reception.server, 0, hot=1)
    reception.assert_met_once(name)


def test_on_disconnect_runs_once_for_a_client_that_closes_while_its_request_is_in_hand(reception):
    with reception.guest() as (peer, name):
        peer.send(b"HOLD\n")
        reception.gate.wait()
    reception.gate.open()
    reception.assert_met_once(name)


def test_on_disconnect_runs_once_for_a_client_that_resets_its_connection(reception):
    with reception.guest() as (peer, name):
        until_parked(reception.server, 1)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    reception.assert_met_once(name)


def test_on_disconnect_runs_once_for_a_client_that_is_idle_while_it_is_parked(reception):
    with reception.guest() as (peer, name):
        reception.server.until(lambda state: state["connections"]["hot"] == 0)
        assert all_of(peer) == b""
        reception.assert_met_once(name)


def test_on_disconnect_runs_once_for_half_a_line_that_is_never_completed(reception):
    with reception.guest() as (peer, name):
        peer.send(b"ADD 1 1\nADD 2")
        assert peer.line() == "2"
        until_read(reception.server, [peer])
        reception.server.until(lambda state: state["connections"]["hot"] == 0)
        error = b"CLIENT_ERROR the request did not arrive within 0.3 s; it was not run\n"
        assert all_of(peer) == error
        reception.assert_met_once(name)


def test_on_disconnect_does_not_run_when_only_the_worker_ends(reception):
    server = reception.server
    with reception.guest() as (peer, name):
        for leaving in server.pids():
            assert peer.ask("ADD 2 3") == "5"
            os.kill(leaving, signal.SIGTERM)
            server.until(lambda state: leaving not in [one["pid"] for one in state["workers"]])  # noqa: B023
        assert peer.ask("ADD 2 3") == "5"
        assert reception.noted("disconnect", name) == 0
    reception.assert_met_once(name)


@in_both_schemes
def test_on_disconnect_runs_once_for_everybody_when_the_server_stops(tmp_path, gate: Gate, scheme):
    reception = Reception(tmp_path, gate, scheme)
    with contextlib.ExitStack() as stack:
        stack.callback(reception.server.end)
        guests = [stack.enter_context(reception.guest()) for _ in range(20)]
        peers = [peer for peer, _ in guests]
        assert ask_all(peers, "ADD 2 3") == ["5"] * 20
        peers[0].ask("PIN")
        peers[1].send(b"HOLD\n")
        gate.wait()
        reception.server.send(signal.SIGTERM)
        reception.server.wait_for("stopping")
        gate.open()

        assert [all_of(peer) for peer in peers] == [b"", b"let go\n"] + [b""] * 18
        assert reception.server.ended() == 0
        assert [reception.noted("disconnect", name) for _, name in guests] == [1] * 20
