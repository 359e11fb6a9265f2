"""The same bytes to two connections, one in the compiled core, one in pure Python: what differs then?

Each twin is a worker in this process: a board, a table of connections, the loop that serves them. Only the
rounds differ. Nothing waits, and no other process is there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from operator import methodcaller
from typing import Any
from unittest import mock

from attrs import define, field

from linepool import App, core
from linepool.ipc import channel
from linepool.ipc.board import Board, WorkerView
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.listeners import Listener
from linepool.pubsub.subscriptions import Subscriptions
from linepool.session import Session
from linepool.settings import Settings
from linepool.worker import rounds
from linepool.worker.context import WorkerContext
from linepool.worker.core_connection import AcceptedConnection
from linepool.worker.edges import Edges
from linepool.worker.interrupts import Interrupts
from linepool.worker.loop import Loop
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint
from linepool.worker.transport import Transport

_COUNTS = [
    *("LINE_LENGTH", "EOL_LENGTH", "LIMIT_NS", "COMMAND", "SERIAL", "REQUESTS"),
    *("ERRORS", "TIMEOUTS", "BEGUN", "CONNECTIONS", "HELD"),
]
_OF_TURNS = ("BEGUN", "SERIAL")
_NUMBERS = re.compile(rb'\bid(?: |":")[0-9a-f]{8}')
_CLIENT_IDS = re.compile(rb"(\$2\r\nid\r\n):\d+")  # in the reply to HELLO of RESP
_PEER = Session("t", "t", "t")
_ROOM = 2**22  # bytes of replies that a client does not read at once
_NEVER_NS = 2**62


@define
class Seen:
    """What is seen of a connection and its worker after a step.

    Attributes:
        replies: What the client was sent; the ids of errors are left out.
        ended: The client has read the end of its stream.
        words: Of the board, by name.
        state: Of the connection, as far as it can be seen without changing it; empty: it has ended.
        logged: What was logged, without the values.
        again: How many turns have followed others: more if the machine was slow.
    """

    replies: bytes
    ended: bool
    words: dict[str, object]
    state: dict[str, object]
    logged: list[str]
    again: int = field(eq=False)


class Twin:
    """A worker in this process that has one client at a time.

    Args:
        app: What it serves.
        compiled: The rounds of the compiled core; otherwise those of pure Python.
        settings: Of the server.
    """

    def __init__(self, app: App, *, compiled: bool, settings: Settings | None = None) -> None:
        self._undo = contextlib.ExitStack()
        for where in ("linepool.core.rules", "linepool.worker.connection"):
            # Else a turn of one of the two ends where this process was kept waiting for a processor.
            self._undo.enter_context(mock.patch(f"{where}.BATCH_NS", _NEVER_NS))
        self._board = WorkerView(Board(64), 0)
        self._log: list[str] = []
        self._client: socket.socket | None = None
        self._again = 0
        self.compiled = compiled
        with mock.patch.object(signal, "signal"):  # the handlers of this process stay
            self.orders = Orders(self._board, os.getppid())
            self.interrupts = Interrupts(self._board, 2)
        self.context = WorkerContext(
            app.freeze(),
            settings or Settings(),
            self._undo.enter_context(app.worker()),
            self._board,
            self.orders,
            self.interrupts,
            Subscriptions(None),
            SafePoint(),
        )
        ours, theirs = channel.pair()
        listener = Listener(socket.socket(socket.AF_UNIX))
        listener.socket.setblocking(False)
        listener.socket.bind(b"")  # a name of the kernel's choice, not a file
        listener.socket.listen()
        self._address = listener.socket.getsockname()
        pipe = StatusPipe()
        edges = Edges(self._board, pipe, 0, 1)
        with mock.patch.object(core, "compiled", compiled):
            self._loop = Loop(self.context, theirs, [listener], edges, lambda: False)
        self.rounds: Any = self._loop._rounds
        self.table = self._loop._table
        for close in (pipe.close, ours.close, theirs.close, listener.close):
            self._undo.callback(close)
        self._undo.callback(listener.phase.close)
        self._undo.callback(self._loop._epoll.close)

    def close(self) -> None:
        """End all that it has opened."""
        self._drop()
        self._undo.close()

    @property
    def connection(self) -> Any:
        """The connection, as the core or Python has made it; None: it has ended."""
        return next(iter(self.table.connections.values()), None)

    @property
    def client(self) -> socket.socket:
        """The client's end."""
        assert self._client is not None
        return self._client

    def connect(self, data: bytes = b"", *, accepts: bool = True) -> Seen:
        """Serve a new client instead of the one before; the counts on the board begin again.

        Args:
            data: What it has sent before it is accepted.
            accepts: Through the listener. Otherwise the connection is one that Python has made.
        """
        self._drop()
        words, numbers = self._board.layout.words, self._board.layout.numbers
        for name in (*_COUNTS, "STARTED_NS"):
            words[numbers[name]] = 0
        self._again = 0
        if accepts:
            self._client = socket.socket(socket.AF_UNIX)
            self._client.connect(self._address)
        else:
            ours, self._client = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
            session = Session(_PEER.id, _PEER.peer, _PEER.listener)
            self.context.board.count_connection()
            self.table.take(ours, session, time.monotonic(), transport=self.transport(ours))
        self._client.setblocking(False)
        return self.send(data)

    def transport(self, ours: socket.socket) -> Transport | None:
        """Return the transport of a connection that Python has made; None: its bytes are plain."""
        return None

    def send(self, data: bytes) -> Seen:
        """Send bytes at once, serve what there is to serve, and return what is seen then."""
        replies = []
        with _noted(self._log):
            while True:
                with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                    while data:
                        data = data[self.client.send(data) :]
                served = self._round()
                replies.append(self._received())
                if not served:
                    break
        return self._seen(b"".join(replies))

    def end(self) -> Seen:
        """End the client's stream; as ``send``."""
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_WR)
        return self.send(b"")

    def complete(self) -> Seen:
        """Have Python's part of the connection made; what is seen then shows all of its state."""
        if self.connection is not None:
            assert self.connection.peer  # asked for something that is not of the core
        return self._seen(b"")

    def _round(self) -> bool:
        """Serve what can be served now; return whether there was anything."""
        loop, table = self._loop, self.table
        found = bool(table.again)
        if not found and not select.select([loop._epoll], [], [], 0)[0]:
            return False
        loop._serve_events(loop._rounds.next_events(takes_work=True, may_wait=False))
        if found:
            self._again += 1
            for connection in table.present(table.again):
                loop._serve(connection, loop._rounds.again)
        return True

    def _received(self) -> bytes:
        replies = []
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := self.client.recv(2**20):
                replies.append(data)
        return b"".join(replies)

    def _seen(self, replies: bytes) -> Seen:
        ended = True
        with contextlib.suppress(ConnectionResetError):
            try:
                ended = not self.client.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                ended = False
        logged, self._log = self._log, []
        state = self._state()
        return Seen(_without_ids(replies), ended, self._words(), state, logged, self._again)

    def _words(self) -> dict[str, object]:
        layout, connection = self._board.layout, self.connection
        words, numbers = layout.words, layout.numbers
        found: dict[str, object] = {name: words[numbers[name]] for name in _COUNTS}
        size = min(words[numbers["LINE_LENGTH"]], layout.line_bytes)
        found["line"] = bytes(layout.line[:size])
        found["in flight"] = words[numbers["STARTED_NS"]] != 0
        if connection is not None:
            found["served"] = words[numbers["COOKIE"]] == connection.cookie
            served = words[numbers["CLIENT_FD"]]
            found["client"] = served - connection.descriptor if served and found["served"] else 0
            begin, size = connection.place * numbers["PLACE_WORDS"], numbers["PLACE_WORDS"]
            shown, cookie, found["taken"] = layout.published[begin : begin + size]
            found["published"] = (
                shown - connection.descriptor if shown else 0,
                cookie == connection.cookie,
            )
        return found

    def _state(self) -> dict[str, object]:
        connection = self.connection
        if connection is None:
            return {}
        state: dict[str, object] = {
            name: getattr(connection, name)
            for name in ("served", "more", "needs", "is_replaceable")
        }
        state["read_by"] = connection.read_by != 0
        if type(connection) is not AcceptedConnection:
            conversation = connection.conversation
            state["dump"] = conversation.dump()
            state["session"] = dict(conversation.session), conversation.session.user
            state["closing"] = conversation.closing, conversation.pinned
        return state

    def _drop(self) -> None:
        """End the connection at once."""
        if self._client is not None:
            self._client.close()
            self._client = None
        for connection in list(self.table.connections.values()):
            connection.abort(was_reset=True)
            self.table.close(connection)
        self.table.close_lingered(float("inf"))


@define
class Twins:
    """Two workers of the same app."""

    pure: Twin
    core: Twin

    def run(self, pieces: Sequence[bytes], *, accepts: bool, early: bool = False) -> list[Seen]:
        """Send both the same pieces, and return what is seen after each, and at the end of the stream.

        Args:
            pieces: At least one.
            accepts: The client comes through a listener, so that the core makes the connection.
            early: Then the first piece is there before it is accepted.

        Raises:
            AssertionError: The two differ.
        """
        first = pieces[0] if early else b""
        steps: list[Callable[[Twin], Seen]] = [lambda twin: twin.connect(first, accepts=accepts)]
        steps += [methodcaller("send", piece) for piece in pieces[early:]]
        steps += [Twin.complete, Twin.end]
        seen, difference = self._run(steps)
        # A turn ends after 2 ms, and what it has shared then too: it may be another one next time.
        for _ in range(5):
            if difference and any(_depends_on_time(one) for pair in seen for one in pair):
                seen, difference = self._run(steps)
        if difference:
            shown = [piece if len(piece) < 1000 else (piece[:1000], len(piece)) for piece in pieces]
            where = f"after step {len(seen)} of {len(steps)}, {accepts=}, {early=}"
            raise AssertionError(f"{where}:\n{difference}\npieces = {shown!r}")
        return [compiled for _, compiled in seen]

    def _run(self, steps: Sequence[Callable[[Twin], Seen]]) -> tuple[list[tuple[Seen, Seen]], str]:
        """Return what is seen of both after each step, up to the first that differs, and how it does."""
        seen: list[tuple[Seen, Seen]] = []
        for step in steps:
            seen.append((step(self.pure), step(self.core)))
            if difference := differences(*seen[-1]):
                return seen, difference
        return seen, ""


def _depends_on_time(seen: Seen) -> bool:
    """Whether a turn may have ended because 2 ms were over; a batch that fails leaves no further turn."""
    return bool(seen.again or any(line.startswith("batch failed") for line in seen.logged))


def differences(pure: Seen, compiled: Seen) -> str:
    """Return what differs, a line for each; what only one of them can show is not compared."""
    lines = []
    for name in ("replies", "ended", "logged"):
        a, b = getattr(pure, name), getattr(compiled, name)
        if a != b:
            lines.append(f"  {name}: pure {a!r}, core {b!r}")
    for a, b in ((pure.words, compiled.words), (pure.state, compiled.state)):
        for name in a.keys() & b.keys() if a and b else a.keys() | b.keys():
            if name in _OF_TURNS and (pure.again or compiled.again):
                continue  # a turn may have ended at another request, or in the middle of a stream
            if a.get(name) != b.get(name):
                lines.append(_difference(name, a.get(name), b.get(name)))
    return "\n".join(lines)


def _difference(name: str, a: object, b: object) -> str:
    begin = 0
    if isinstance(a, bytes) and isinstance(b, bytes):
        same = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
        begin = max(0, same - 20)
        a, b = a[begin : begin + 200], b[begin : begin + 200]
    return f"  {name}, from {begin}: pure {a!r}, core {b!r}"


@contextlib.contextmanager
def twins_of(
    make: Callable[[], App], settings: Settings | None = None, kind: type[Twin] = Twin
) -> Iterator[Twins]:
    """Give two workers, each with an app of its own. Pre-condition: ``core.compiled``."""
    assert core.compiled
    pure = kind(make(), compiled=False, settings=settings)
    try:
        compiled = kind(make(), compiled=True, settings=settings)
        assert type(pure.rounds) is rounds.Rounds
        assert type(compiled.rounds) is not rounds.Rounds
        try:
            yield Twins(pure, compiled)
        finally:
            compiled.close()
    finally:
        pure.close()


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the pieces of bytes that are cut at these places; at least one."""
    ends = sorted({place % (len(data) + 1) for place in places} - {0, len(data)})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def _without_ids(replies: bytes) -> bytes:
    """Leave out the ids of errors, which are random."""
    return _CLIENT_IDS.sub(rb"\1:0", _NUMBERS.sub(b"id ########", replies))


class _Noting(logging.Handler):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.append(record.msg)


@contextlib.contextmanager
def _noted(log: list[str]) -> Iterator[None]:
    """Note what is logged, and log nothing."""
    logger, handler = logging.getLogger("linepool"), _Noting(log)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
