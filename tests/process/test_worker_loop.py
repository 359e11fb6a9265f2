"""A worker's loop in the process of the test: the way of a request, and what the board says meanwhile."""

import contextlib
import math
import os
import select
import socket
import sys
from pathlib import Path

import pytest

from linepool import App, Connection, Session, core
from linepool.ipc import channel
from linepool.ipc.board import Board, MasterSlot, MasterView, Order, WorkerView
from linepool.ipc.messages import ConnectionState, PassedConnection
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.binding import open_listeners
from linepool.kernel.listeners import Listener
from linepool.pubsub.subscriptions import Subscriptions
from linepool.resources import Resources
from linepool.settings import Settings
from linepool.worker.balance import share
from linepool.worker.context import WorkerContext
from linepool.worker.edges import Edges
from linepool.worker.interrupts import Interrupts
from linepool.worker.loop import Loop
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint
from tests.servers import ROOT, TIMEOUT

MOST_CROSSINGS = 28


class WorkerLoop(Loop):
    """A worker's loop in this process, with a listener and the master's view of its slot."""

    master: MasterView
    slot: MasterSlot
    address: tuple[str, int]
    parker: socket.socket  # the other end of its channel
    pipe: StatusPipe


@pytest.fixture
def seen():
    """What handlers and hooks have seen of the board: the snapshots of the master."""
    return []


@pytest.fixture
def loop(monkeypatch, seen):
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of this process stay
    monkeypatch.setattr(core, "compiled", False)  # it counts the files in Python
    app = App("sums")
    page = Board(64)
    master = MasterView(page)
    slot = master.slot(0)

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def flood(connection: Connection) -> str:
        try:
            connection.push("x" * 20_000_000)
        except OSError:
            seen.append(slot.snapshot())
        return "done"

    @app.on_disconnect
    def gone() -> None:
        seen.append(slot.snapshot())

    board = WorkerView(page, 0)
    context = WorkerContext(
        app.freeze(),
        Settings(push_timeout=0.05),
        Resources(),
        board,
        Orders(board, os.getppid()),
        Interrupts(board, 2),
        Subscriptions(None),
        SafePoint(),
    )
    ours, theirs = channel.pair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        pipe = StatusPipe()
        edges = Edges(board, pipe, 0, 1, context.orders.master_ended)
        loop = WorkerLoop(context, theirs, [Listener(sock)], edges, lambda: False)
        loop.slot, loop.address, loop.parker, loop.pipe = slot, sock.getsockname(), ours, pipe
        loop.master = master
        yield loop
        for connection in list(loop._table.connections.values()):
            loop._table.close(connection)
        pipe.close()


def round_of(loop: Loop) -> None:
    """Wait for an event and serve it."""
    loop._serve_events(loop._rounds.next_events(takes_work=True))


def files_visited(call) -> list[str]:
    """Return the files that a call runs through, one after the other, in linepool and the handler."""
    visited: list[str] = []

    def note(frame, event, _argument) -> None:
        if event == "return":
            frame = frame.f_back
        if event in ("call", "return") and frame is not None:
            name = frame.f_code.co_filename
            if name.startswith((str(ROOT / "linepool"), "<linepool call", __file__)):
                visited.append(name.removeprefix(f"{ROOT}/"))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return visited


def test_a_warm_request_crosses_few_files(loop):
    with socket.create_connection(loop.address, TIMEOUT) as client:
        round_of(loop)  # accepted
        for _ in range(2):
            client.sendall(b"ADD 2 3\r\n")
            while not select.select([client], [], [], 0)[0]:  # a timer ends a round too
                round_of(loop)
            assert client.recv(100) == b"5\r\n"
        client.sendall(b"ADD 2 3\r\n")
        events = loop._epoll.poll(TIMEOUT)

        visited = files_visited(lambda: loop._serve_events(events))

        assert client.recv(100) == b"5\r\n"
    way = [visited[0]]
    for name in visited:
        if name != way[-1]:
            way.append(name)
    way = way[1:-1]  # from the loop to the loop
    assert len(way) - 1 <= MOST_CROSSINGS, "\n".join(way)
    assert {Path(name).name for name in way if name.startswith("linepool")} == {
        "loop.py",
        "figures.py",
        "connection.py",
        "transport.py",
        "worker.py",  # of the board
        "line.py",
        "conversation.py",
    }


def test_a_worker_that_the_master_has_given_up_serves_no_client(loop):
    os.close(loop.pipe.reader)  # as it does if the loader dies before it has told of the worker
    with socket.create_connection(loop.address, TIMEOUT) as client:
        client.sendall(b"ADD 2 3\r\n")

        loop.run()

        assert not select.select([client], [], [], 0)[0]
    loop.pipe.reader = os.open(os.devnull, os.O_RDONLY)


def test_a_worker_ends_in_a_stop_though_no_master_says_that_the_parker_has_ended(loop):
    loop.master.parker_starts()
    loop.slot.command(Order.STOP)
    loop.parker.close()

    loop.run()

    assert loop._board.has_parker


def test_no_connection_is_taken_for_the_client_of_a_disconnect_hook(loop, seen):
    with socket.create_connection(loop.address, TIMEOUT) as client:
        round_of(loop)
        with socket.create_connection(loop.address, TIMEOUT):
            round_of(loop)
        client.sendall(b"ADD 2 3\r\n")
        while not seen:
            round_of(loop)

    (during_the_hook,) = seen
    assert during_the_hook.started_ns > 0
    assert during_the_hook.client_fd == -1


def test_a_request_whose_push_has_failed_still_has_its_deadline(loop, seen):
    with socket.create_connection(loop.address, TIMEOUT) as client:
        round_of(loop)
        client.sendall(b"FLOOD\r\n")
        while not seen:
            round_of(loop)

    assert seen[0].started_ns > 0
    assert seen[0].line == b"FLOOD"


def test_a_connection_that_was_passed_on_is_not_taken_for_the_client_of_this_worker(
    loop, monkeypatch
):
    passed = []
    loop.master.parker_starts()
    loop._gives_back = True
    send = channel.send

    def note(*arguments):
        passed.append(loop.slot.snapshot().client_fd)  # a kill may come at this moment
        return send(*arguments)

    monkeypatch.setattr(channel, "send", note)
    with socket.create_connection(loop.address, TIMEOUT) as client:
        client.sendall(b"ADD 2 3\r\n")
        while not passed:
            round_of(loop)
        assert client.recv(100) == b"5\r\n"

    assert passed == [-1]


def given(loop: WorkerLoop, data: bytes, version: int = 1) -> bytes:
    """Give the worker a connection, number 7, whose state is the data; return what its client reads."""
    client, served = socket.socketpair()
    with client, served:
        client.settimeout(TIMEOUT)
        files = [served.fileno()]
        state = ConnectionState(0, math.inf, 0.0, data)
        if version != 1:
            channel._send_with(loop.parker, [bytes([1, version]) + data], files)
        else:
            assert channel.send(loop.parker, PassedConnection(state, files[0], 7))
        round_of(loop)
        with client.makefile("rb") as replies:  # it ends though this process has a copy
            reply = replies.read()
    loop._table.close_lingered(math.inf)
    return reply


def test_a_connection_counts_before_its_worker_has_begun_with_it(loop, monkeypatch):
    held = []
    note = WorkerView.has_begun_with

    def noted(view: WorkerView, number: int) -> None:
        held.append(loop.slot.held)  # in a stop the parker may look at this moment
        note(view, number)

    monkeypatch.setattr(WorkerView, "has_begun_with", noted)
    given(loop, channel.join_state(Session("1-2", "peer", "here").dump(), b"nonsense"))

    assert held == [1]


def test_a_connection_whose_state_does_not_load_ends_with_a_clear_line(loop, seen, caplog):
    session = Session("1-2", "peer", "here").dump()
    too_large = Settings().max_state_bytes + 1
    for data, version, begun_with, why in (
        (b"", 1, 7, "error: unpack_from requires"),
        (b"\x09" + bytes(10), 1, 7, "version '9' of a connection's state is unknown"),
        (channel.join_state(b"nonsense", b""), 1, 7, "version 'nonsense' of a session"),
        (channel.join_state(session, b"\xff\x51"), 1, 7, "version '51' of the state of"),
        (bytes(too_large), 1, 7, f"its state is longer than {too_large - 1} bytes"),
        (bytes(40), 9, 0, "version '9' of a passed connection is unknown"),
    ):
        loop.slot.clear()
        caplog.clear()

        assert given(loop, data, version) == (
            b"SERVER_ERROR this connection cannot continue after a change of the server;"
            b" connect again\r\n"
        )

        peer = "peer" if session in data else "unix"  # as far as it is known
        assert f"connection ended: its state cannot be loaded peer={peer} why=" in caplog.text
        assert why in caplog.text
        assert loop.slot.begun_with == begun_with
        assert loop.slot.snapshot().dropped == 1
        assert not loop._table.connections
    assert len(seen) == 1  # the hook for the end of a connection has run for the one with a session


def test_a_saturated_worker_keeps_its_share_of_the_connections():
    held = 30
    for others in (0, 0, 0):
        held -= share(held, others)

    assert held == 4
    assert share(1, 5) == 1
    assert share(1000, 0) == 16


def test_the_first_connections_of_the_scheme_accept_have_a_receive_timeout_too():
    (listener,) = open_listeners(Settings(scheme="accept", bind=("127.0.0.1:0",)))
    with contextlib.closing(listener), socket.create_connection(listener.socket.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert any(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
