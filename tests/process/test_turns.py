"""A turn of a connection ends, whatever its client sends; a large state stays where it is for a while."""

import contextlib
import os
import select
import socket
from collections.abc import Iterator

import pytest

from linepool import App, Bad, Dialogue, JsonRpc, Line, Memcache, Protocol, Request, Resp, body
from linepool.core.rules import AGAIN, READ
from linepool.ipc import channel
from linepool.ipc.board import Board, WorkerView
from linepool.kernel.sockets import CHUNK, unread_bytes
from linepool.pubsub.subscriptions import Subscriptions
from linepool.resources import Resources
from linepool.session import Session
from linepool.settings import Settings
from linepool.worker import connection as connections
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.handoff import Handoff, dump
from linepool.worker.interrupts import Interrupts
from linepool.worker.moving import seconds_to_stay
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint
from linepool.worker.table import Table
from linepool.worker.transport import Transport

NOT_REQUESTS = [
    (Line(), b"\n"),
    (Line(), b"\xff\xf1\r\n"),
    (Line(), b"a\rb\n"),
    (Line(), b'HELP "\n'),
    (Memcache(), b"\r\n"),
    (Memcache(), b"set k 0 0 x\r\n"),
    (Resp(), b"\r\n"),
    (Resp(), b"*0\r\n"),
    (Resp(), b"*-1\r\n"),
    (JsonRpc(), b"\n"),
    (JsonRpc(), b" \r\n"),
    (Dialogue(), b"\r\n"),
    (Dialogue.smtp(max_errors=10**9), b"\r\n"),
    (Dialogue.smtp(max_errors=10**9), b"a\nb\r\n"),
]
IDS = [f"{type(protocol).__name__}-{number}" for number, (protocol, _) in enumerate(NOT_REQUESTS)]


@pytest.fixture
def context_of(monkeypatch):
    """Give what returns the context of a worker of an app."""
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of this process stay

    def make(app: App) -> WorkerContext:
        board = WorkerView(Board(64), 0)
        orders, interrupts = Orders(board, os.getppid()), Interrupts(board, 2)
        settings, subscriptions = Settings(), Subscriptions(None)
        return WorkerContext(
            app.freeze(),
            settings,
            Resources(),
            board,
            orders,
            interrupts,
            subscriptions,
            SafePoint(),
        )

    return make


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        yield ours, theirs


def connected(sock: socket.socket, context: WorkerContext) -> Connection:
    return Connection(Transport(sock, 1.0), Session("t", "t", "t"), context, 0.0)


def hold_clock(monkeypatch: pytest.MonkeyPatch, step_ns: int) -> None:
    """Let each look at the clock find it advanced by this much."""
    now = iter(range(0, 10**18, step_ns))
    monkeypatch.setattr(connections, "monotonic_ns", lambda: next(now))


@pytest.mark.parametrize(("protocol", "line"), NOT_REQUESTS, ids=IDS)
def test_lines_that_are_not_requests_count_for_the_turn(
    context_of, pair, monkeypatch, protocol, line
):
    ours, theirs = pair
    connection = connected(ours, context_of(App(protocol=protocol)))
    theirs.sendall(line * (8 * CHUNK // len(line)))
    hold_clock(monkeypatch, 250_000)  # so that a turn is eight lines, or eight hundred blank ones

    connection.on_readable()

    assert connection.needs == AGAIN
    assert unread_bytes(ours) > 6 * CHUNK


def test_a_turn_ends_although_the_protocol_skips_all_blank_lines_at_once(
    context_of, pair, monkeypatch
):
    class Skipping(Line):
        def next_request(self) -> Request | Bad | None:
            self._buffer = self._unread().lstrip(b"\n")
            self._at, self._plain = 0, []
            return super().next_request()

    ours, theirs = pair
    connection = connected(ours, context_of(App(protocol=Skipping())))
    theirs.sendall(b"\n" * 8 * CHUNK)
    hold_clock(monkeypatch, 900_000)

    connection.on_readable()

    assert connection.needs == AGAIN
    assert unread_bytes(ours) == 4 * CHUNK


@pytest.mark.parametrize(("protocol", "line"), NOT_REQUESTS, ids=IDS)
def test_a_request_behind_many_lines_that_are_not_is_answered(context_of, pair, protocol, line):
    ours, theirs = pair
    app = App(protocol=protocol)
    name = "xx" if isinstance(protocol, Memcache | JsonRpc) else "XX"

    @app.handler(name)
    def answer() -> str:
        return "found"

    call = name.encode() + b"\r\n"
    if isinstance(protocol, JsonRpc):
        call = b'{"jsonrpc":"2.0","method":"xx","id":1}\n'
    sent = line * (3 * CHUNK // len(line)) + call
    connection = connected(ours, context_of(app))
    theirs.settimeout(0)
    replies = b""
    theirs.sendall(sent)
    while b"found" not in replies:
        if connection.needs == READ:
            connection.on_readable()
        else:
            connection.take_turn()
        with contextlib.suppress(BlockingIOError):
            replies = replies[-16:] + theirs.recv(2**20)


def upload_app(protocol: Protocol) -> App:
    app = App(protocol=protocol)

    @app.handler
    def put(key: str, size: int, data: bytes = body("size")) -> int:
        return len(data)

    return app


@pytest.mark.parametrize(("size", "stays"), [(1000, False), (2**20, True)])
def test_a_large_state_that_was_just_moved_moves_again_only_if_it_must(
    context_of, pair, monkeypatch, size, stays
):
    monkeypatch.setattr(WorkerView, "parker_has_room", True)
    context = context_of(upload_app(Line()))
    connection = connected(pair[0], context)
    connection.protocol.feed(b"PUT k 9000000\n" + b"x" * size)
    state = dump(connection, 2**21)
    assert state is not None
    ours, theirs = channel.pair()
    with ours, theirs, select.epoll() as epoll:
        table = Table(context, epoll, 1.0)
        handoff = Handoff(context, table, ours)
        moved = table.take(socket.socket(fileno=pair[0].detach()), Session("t", "t", "t"), 0.0)
        moved.load(state, channel.split_state(state.data)[1])

        assert handoff.give(moved) != stays
        assert not stays or handoff.give(moved, at_once=True)
        assert not table.connections


def test_the_time_that_a_state_stays_is_in_proportion_to_its_size():
    assert seconds_to_stay(32768) == 0
    assert seconds_to_stay(2**22) == 4 * seconds_to_stay(2**20) > 1
