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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

from linepool import in_process
from linepool.address import unix_address
from linepool.app import App
from linepool.apps import Apps
from linepool.batch import answers
from linepool.client.asynchronous import AsyncClient
from linepool.client.blocking import Client
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

_TIMEOUT = 40.0  # seconds; only there to fail
_DEFAULTS = {"bind": "127.0.0.1:0", "control": "off", "workers": 2, "reload": False}
_FAILURE = re.compile(rb'(?:"id":"[\w.-]+","text":")?internal error, id [\w.-]+')
_ERRORS = ("ERROR ", "CLIENT_ERROR ", "SERVER_ERROR ")


C = TypeVar("C", bound=Client)
A = TypeVar("A", bound=AsyncClient)
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


@overload
def client(app: App, *, user: str | None = None, password: str | None = None) -> Client: ...


@overload
def client(
    app: App, kind: type[C], *, user: str | None = None, password: str | None = None
) -> C: ...


def client(
    app: App, kind: Any = Client, *, user: str | None = None, password: str | None = None
) -> Any:
    """Return a client that calls an app in this process: no socket and no server, otherwise as a real one.

    ::

        with client(app) as calls:
            assert calls.call(add, 2, 3) == 5

    Requests and replies are the bytes of the app's protocol. Handlers run in the calling thread, one at a
    time and without time limits; the resources of the worker are opened at the first call, and closed
    with the client. Nothing is tried again.

    Args:
        app: The app.
        kind: A class of clients, such as ``linepool stub`` writes.
        user: Who logs in on each connection, if the app wants that ...
        password: ... with this password.

    Raises:
        SetupError: The app's protocol is none that the client speaks.
    """
    return in_process.client_of(app, kind, user, password)


@overload
def async_client(
    app: App, *, user: str | None = None, password: str | None = None
) -> AsyncClient: ...


@overload
def async_client(
    app: App, kind: type[A], *, user: str | None = None, password: str | None = None
) -> A: ...


def async_client(
    app: App, kind: Any = AsyncClient, *, user: str | None = None, password: str | None = None
) -> Any:
    """Return the same for asyncio; handlers run in the event loop.

    Raises:
        SetupError: As ``client``.
    """
    return in_process.client_of(app, kind, user, password)


class Server:
    """A server under test, in processes of its own.

    Attributes:
        pid: The master's.
        addresses: What it listens on, as its log says it; ``address`` is the first.
    """

    def __init__(
        self, pid: int, addresses: list[str], apps: Sequence[App], served: Sequence[str] = ()
    ) -> None:
        self.pid = pid
        self._apps = apps
        self._served = served  # the name of the app at each address, if there are several
        self._clients: list[Client] = []
        self.addresses = addresses
        self.address = addresses[0]
        self._status: int | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._status is not None

    def address_of(self, app: App | None = None) -> str:
        """Return the first address of an app; None: of the first app.

        Raises:
            SetupError: The server does not serve that app.
        """
        if app is None or [*self._apps] == [app]:
            return self.address
        if app not in self._apps:
            names = ", ".join(one.name for one in self._apps)
            raise SetupError(f"the server does not serve the app {app.name!r}; it serves {names}")
        return self.addresses[self._served.index(app.name)]

    def connect(self, app: App | None = None) -> Peer:
        """Return a new connection, to the first address of an app; None: of the first app."""
        return Peer(self.address_of(app))

    @overload
    def client(self, /, **options: Any) -> Client: ...

    @overload
    def client(self, app: App, /, **options: Any) -> Client: ...

    @overload
    def client(self, kind: type[C], app: App = ..., /, **options: Any) -> C: ...

    def client(self, kind: Any = Client, app: App | None = None, /, **options: Any) -> Any:
        """Return a client of the server, which is closed when the server stops.

        Args:
            kind: A class of clients, such as ``linepool stub`` writes; it may be left out.
            app: The one that it calls; without it the first.
            options: Those of ``linepool.Client``.

        Raises:
            SetupError: The app's protocol is none that the client speaks.
        """
        if isinstance(kind, App):
            kind, app = Client, kind
        address, protocol = self.address_of(app), in_process.protocol_of(app or self._apps[0])
        made = kind(address, **{"protocol": protocol, **options})
        self._clients.append(made)
        return made

    def ask(self, command: str, app: App | None = None) -> str:
        """Return the whole reply to one line on a connection of its own, without the last ending.

        ``app``: The one that is asked; None: the first.
        """
        with self.connect(app) as peer:
            peer.send(command.encode() + b"\n")
            return peer.rest().decode().rstrip("\r\n")

    def stop(self) -> int:
        """Stop it gracefully and return the exit status of its master."""
        if self._status is None:
            for one in self._clients:
                one.close()
            os.kill(self.pid, signal.SIGTERM)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


@contextlib.contextmanager
def serve(*apps: App, **settings: Any) -> Iterator[Server]:
    """Serve an app, or several, in processes of their own, on free ports of 127.0.0.1, until the block ends.

    ::

        with serve(app) as server:
            assert server.ask("ADD 2 3") == "5"

    Args:
        apps: What to serve; each has a port.
        settings: Any setting by name; without ``bind`` free ports are taken, whatever ``App(bind=...)``
            says. With several apps, ``bind`` is a dict with the addresses by the names of apps.

    Raises:
        SetupError: It cannot start; the text says why.
    """
    given: dict[str, Any] = {**_DEFAULTS, **settings}
    served = _placed(apps, given)
    configuration = configure(served, given, {}, os.devnull)
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
                lines = [f"{one.name}\t{_app_at(one, configuration.settings)}" for one in listeners]
                os.write(writer, "\n".join(lines).encode())
                os.close(unclosed.pop())

            def load() -> tuple[Apps, Settings]:
                while (
                    unclosed and not in_foreground
                ):  # in the first loader; it is the server's alone
                    os.close(unclosed.pop())
                return served, configuration.settings

            source = Source(
                served.name,
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
    names, at = zip(*(line.split("\t") for line in said.split("\n")), strict=True)
    server = Server(pid, [*names], apps, at)
    try:
        yield server
    finally:
        server.stop()


def _placed(apps: Sequence[App], given: dict[str, Any]) -> Apps:
    """Return apps with their addresses, and take those of several out of the settings."""
    if not apps:
        raise SetupError("give an app: serve(app)")
    if len(apps) == 1:
        return Apps(apps)
    for number, app in enumerate(apps, 1):
        app.name = app.name or f"app{number}"
    bind, names = given.pop("bind"), [app.name for app in apps]
    if bind == _DEFAULTS["bind"]:
        bind = {}
    if not isinstance(bind, Mapping) or not {*bind} <= {*names}:
        raise SetupError(
            f"bind must be a dict with the addresses by the names of the apps ({', '.join(names)}),"
            f" such as {{{names[-1]!r}: 'unix:/tmp/test'}}, not {bind!r}"
        )
    addresses = {name: bind.get(name, _DEFAULTS["bind"]) for name in names}
    texts = {name: [one] if isinstance(one, str) else one for name, one in addresses.items()}
    return Apps(apps, texts)


def _app_at(listener: Listener, settings: Settings) -> str:
    """Return the name of the app that is served at a listener; "": it is the only one."""
    table = settings.table_of(listener.key)
    return table.app if table is not None else ""


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
