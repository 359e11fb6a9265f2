"""Helpers for the tests of an app: a real server in a few lines, and a check for protocols."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import weakref
from collections.abc import Iterator
from typing import Any

from linepool.address import unix_address
from linepool.app import App
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.errors import SetupError
from linepool.kernel.listeners import Listener
from linepool.kernel.signals import signal_at_parents_end
from linepool.operate import logs
from linepool.operate.config import configure
from linepool.operate.loading import Source
from linepool.operate.serve import serve as serve_app
from linepool.protocols.base import Limits
from linepool.service import Service
from linepool.session import Session
from linepool.settings import IN_FOREGROUND, ProcessSettings, Settings

_TIMEOUT = 10.0  # seconds; only there to fail
_DEFAULTS = {"bind": "127.0.0.1:0", "control": "off", "workers": 2, "reload": False}
_FAILURE = re.compile(rb'(?:"id":"[0-9a-f]{8}","text":")?internal error, id [0-9a-f]{8}')
_ERRORS = ("ERROR ", "CLIENT_ERROR ", "SERVER_ERROR ")


_peers: weakref.WeakSet[Peer] = weakref.WeakSet()


class Peer:
    """A client: one connection to a server under test."""

    def __init__(self, address: str) -> None:
        if address.startswith("unix:"):
            with contextlib.ExitStack() as undo:
                self.socket = undo.enter_context(socket.socket(socket.AF_UNIX))
                self.socket.settimeout(_TIMEOUT)
                self.socket.connect(unix_address(address.removeprefix("unix:")))
                undo.pop_all()
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT)
        self._stream = self.socket.makefile("rb")
        _peers.add(self)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def line(self) -> str:
        """Return the next line without its ending; "" at the end of the stream."""
        return self._stream.readline().decode().rstrip("\r\n")

    def ask(self, command: str) -> str:
        """Send a line and return the one line of its reply, without its ending."""
        self.send(command.encode() + b"\n")
        return self.line()

    def ask_lines(self, command: str) -> list[str]:
        """Send a line and return the lines of its reply before END; an error line ends a reply too.

        For a reply of one line, which nothing ends, there is ``ask``.
        """
        self.send(command.encode() + b"\n")
        lines = []
        while (line := self.line()) not in ("END", ""):
            lines.append(line)
            if line.startswith(_ERRORS):
                break
        return lines

    def rest(self) -> bytes:
        """End our side and return all that still comes until the server ends its own."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        return self._stream.read()

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self.socket.close()


class Server:
    """A server under test, in processes of its own.

    Attributes:
        pid: The master's.
        addresses: What it listens on, as its log says it; ``address`` is the first.
    """

    def __init__(self, pid: int, addresses: list[str]) -> None:
        self.pid = pid
        self.addresses = addresses
        self.address = addresses[0]
        self._status: int | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._status is not None

    def connect(self) -> Peer:
        """Return a new connection."""
        return Peer(self.address)

    def ask(self, command: str) -> str:
        """Return the whole reply to one line on a connection of its own, without the last ending."""
        with self.connect() as peer:
            peer.send(command.encode() + b"\n")
            return peer.rest().decode().rstrip("\r\n")

    def stop(self) -> int:
        """Stop it gracefully and return the exit status of its master."""
        if self._status is None:
            os.kill(self.pid, signal.SIGTERM)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


@contextlib.contextmanager
def serve(app: App, **settings: Any) -> Iterator[Server]:
    """Serve an app in processes of its own, on a free port of 127.0.0.1, until the block ends.

    ::

        with serve(app) as server:
            assert server.ask("ADD 2 3") == "5"

    Args:
        app: What to serve.
        settings: Any setting by name; without ``bind`` a free port is taken.

    Raises:
        SetupError: It cannot start; the text says why.
    """
    given: dict[str, Any] = {**_DEFAULTS, **settings}
    configuration = configure(app, given, {}, os.devnull)
    if configuration.settings.reload:
        raise SetupError("linepool.testing serves the app that it is given: leave out reload=True")
    reader, writer = os.pipe()
    sys.stdout.flush()  # what waits in the buffer would be written by the server again
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            for peer in _peers:
                peer.close()  # the server must not keep the test's own connections open
            signal.set_wakeup_fd(-1)
            # What the master puts back at its end: a late order to stop must not change its status.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal_at_parents_end(signal.SIGTERM)  # a test that dies takes its servers along
            _release_log()
            logs.set_up(configuration.settings)

            in_foreground = configuration.settings.workers == IN_FOREGROUND
            unclosed = [writer]

            def tell(listeners: list[Listener]) -> None:
                os.write(writer, "\n".join(listener.name for listener in listeners).encode())
                os.close(unclosed.pop())

            def load() -> tuple[App, Settings]:
                while (
                    unclosed and not in_foreground
                ):  # in the first loader; it is the server's alone
                    os.close(unclosed.pop())
                return app, configuration.settings

            source = Source(
                app.name,
                load,
                ProcessSettings(load_timeout=_TIMEOUT),
                in_foreground=in_foreground,
            )
            status = serve_app(source, tell)
        except SetupError as error:
            os.write(writer, f"! {error}".encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    if not said or said.startswith("!"):
        os.waitpid(pid, 0)
        raise SetupError(said.removeprefix("! ") or "the server did not start; see its log")
    server = Server(pid, said.split("\n"))
    try:
        yield server
    finally:
        server.stop()


def _release_log() -> None:
    """Remove the handlers with which pytest captures the log: in the server that log would be lost."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler).__module__.startswith("_pytest."):
            root.removeHandler(handler)


def assert_split_invariant(app: App, script: bytes, limits: Limits | None = None) -> None:
    """Assert that a client's bytes get the same replies however they are cut.

    The script is replayed whole, byte by byte, and in two parts at every place, each also with
    the protocol's state dumped and loaded into a fresh object between the parts.

    Raises:
        AssertionError: A cut changed the replies; the text says which.
    """
    service = app.freeze(limits)
    whole = _replay(app, service, [script], moving=False)
    cuts = [[script[:at], script[at:]] for at in range(1, len(script))]
    cuts.append([script[at : at + 1] for at in range(len(script))])
    for parts in cuts:
        for moving in (False, True):
            got = _replay(app, service, parts, moving=moving)
            how = "with dump and load" if moving else "without dump and load"
            assert got == whole, f"cut at {len(parts[0])} of {len(parts)} parts, {how}: {got!r}"


def _replay(app: App, service: Service, parts: list[bytes], *, moving: bool) -> bytes:
    with app.worker() as resources:
        conversation = Conversation(service, Session("t", "t", "t"), resources)
        replies = [conversation.greet()]
        for part in parts:
            if conversation.closing:
                break
            conversation.feed(part)
            replies.extend(answers(conversation))
            if moving:
                blob = conversation.dump()
                conversation.protocol = service.open_protocol()
                conversation.load(blob)
        replies.append(conversation.eof_reply())
        # The id of a failure is different each time.
        return _FAILURE.sub(b"internal error", b"".join(replies))
