"""The control socket: the master answers commands in the line protocol (``nc -U``).

Served by the master's loop without ever waiting for a client: few requests per turn; what cannot be
sent at once waits in a buffer, and nothing more is read from a client that has not read its reply.

A handler of the control socket may return a ``Future``: its result is the reply once it is there, or its
exception. Until then nothing more is read from that client, and others are served.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from attrs import evolve

from linepool.app import App
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.errors import ServerError
from linepool.failures import error_reply
from linepool.kernel.binding import bind_unix
from linepool.kernel.listeners import Listener
from linepool.kernel.shortage import CAPACITY_ERRORS, CAPACITY_PAUSE
from linepool.operate.upgrading import UpgradeReply
from linepool.protocols.base import Limits, Request
from linepool.resources import Resources
from linepool.service import Service
from linepool.session import Reply, Session

_MOST_CLIENTS = 16
_LINE_BYTES = 1024
_STEPS = 3  # to answer one request, and to see that it was the last one


class Control:
    """The control socket, as something that the master watches.

    Args:
        app: Its commands.
        path: Of the socket.
    """

    def __init__(self, app: App, path: str) -> None:
        sock = bind_unix(path, 0o600)
        sock.listen(_MOST_CLIENTS)
        sock.setblocking(False)
        self._use(app, Listener(sock, path))

    def _use(self, app: App, listener: Listener) -> None:
        self._service = app.freeze(Limits(_LINE_BYTES, 0))
        self._listener = listener
        self._clients: dict[_Client, None] = {}  # in the order of their last requests
        # A descriptor for the client that asks what is wrong when there is none.
        self._spare = _spare()
        self.due_at = math.inf

    @property
    def path(self) -> str:
        """Of the socket."""
        return self._listener.name.removeprefix("unix:")

    @property
    def is_quiet(self) -> bool:
        """Whether no client waits for a reply, but that to an upgrade."""
        return all(
            client.later is None or isinstance(client.later, UpgradeReply)
            for client in self._clients
        )

    @property
    def upgrades(self) -> list[UpgradeReply]:
        """The replies to those that wait for an upgrade."""
        replies = [client.later for client in self._clients]
        return [reply for reply in replies if isinstance(reply, UpgradeReply)]

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them.

        Pre-condition: ``is_quiet``.
        """
        facts, descriptors = self._listener.handed_over()
        clients = [client.as_json() for client in self._clients]
        sockets = [client.socket.fileno() for client in self._clients]
        return {"listener": facts, "clients": clients}, [*descriptors, *sockets]

    @classmethod
    def taken_over(cls, app: App, facts: Mapping[str, Any], descriptors: Sequence[int]) -> Control:
        """Return the control socket that another program has handed over, with its clients.

        Args:
            app: Its commands.
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them.

        Raises:
            ValueError, OSError: As ``Listener.taken_over``.
        """
        control = cls.__new__(cls)
        control._use(app, Listener.taken_over(facts["listener"], list(descriptors[:2])))
        for client, descriptor in zip(facts["clients"], descriptors[2:], strict=True):
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            sock.set_inheritable(False)
            control._clients[_Client.from_json(sock, control._service, client)] = None
        return control

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register with the master's loop."""
        self._selector = selector
        selector.register(self._listener.socket, selectors.EVENT_READ, self._accept)
        for client in self._clients:  # that were handed over
            self._wait_for(client)

    def close(self) -> None:
        """Close it, in the master: replies are sent as far as clients read them."""
        for client in list(self._clients):
            if client.later is not None and not client.later.done():
                client.later.set_exception(ServerError("the server has stopped"))  # and is sent
        for client in list(self._clients):
            self._drop(client)
        self._listener.remove()
        self._use_spare()

    def abandon(self) -> None:
        """Close a new worker's copies."""
        self._listener.close()
        self._use_spare()
        for client in self._clients:
            client.socket.close()

    def turn(self) -> None:
        """Accept again after a pause."""
        if time.monotonic() >= self.due_at:
            self.due_at = math.inf
            self._selector.register(self._listener.socket, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.socket.accept()
        except OSError as error:
            if error.errno in CAPACITY_ERRORS:
                self._make_room()
            return
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop_quietest()
        sock.setblocking(False)
        client = _Client(sock, self._service)
        self._clients[client] = None
        self._serve(client)

    def _make_room(self) -> None:
        """Free a descriptor, so that the next turn accepts the waiting client; if none can be, pause."""
        if self._clients:
            self._drop_quietest()
        elif not self._use_spare():
            self._selector.unregister(self._listener.socket)
            self.due_at = time.monotonic() + CAPACITY_PAUSE

    def _use_spare(self) -> bool:
        """Close the spare descriptor; return whether there was one."""
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)
        return spare >= 0

    def _drop_quietest(self) -> None:
        """Drop the client that has asked nothing for the longest time; one that waits for a reply last."""
        self._drop(min(self._clients, key=lambda client: client.later is not None))

    def _serve(self, client: _Client, _done: object = None) -> None:
        if client not in self._clients:
            return  # it was dropped before its reply was there
        try:
            is_open = client.turn()
        except OSError:
            is_open = False
        if not is_open:
            self._drop(client)
            return
        del self._clients[client]
        self._clients[client] = None
        self._wait_for(client)

    def _wait_for(self, client: _Client) -> None:
        """Have a client served once there is something to do for it."""
        self._select(client)
        if client.later is not None:
            client.later.add_done_callback(functools.partial(self._serve, client))

    def _select(self, client: _Client) -> None:
        """Have the loop wait for what a client waits for."""
        key = self._selector.get_map().get(client.socket)
        if key is None:
            if client.events:
                call = functools.partial(self._serve, client)
                self._selector.register(client.socket, client.events, call)
        elif not client.events:
            self._selector.unregister(client.socket)
        elif key.events != client.events:
            self._selector.modify(client.socket, client.events, key.data)

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        if client.socket in self._selector.get_map():
            self._selector.unregister(client.socket)
        client.socket.close()
        if self._spare < 0:
            self._spare = _spare()


def _spare() -> int:
    """Return a descriptor of no use; -1: there is none."""
    with contextlib.suppress(OSError):
        return os.open(os.devnull, os.O_RDONLY)
    return -1


class _Client:
    """One client of the control socket.

    Attributes:
        later: The reply that it waits for; None: it waits for none.
    """

    def __init__(self, sock: socket.socket, service: Service) -> None:
        self.socket = sock
        self.unsent = b""
        self.later: Future[object] | None = None
        self._ended = False
        self._pending = False  # more requests may have arrived than were answered
        service = evolve(service, middleware=[self._hold])
        self._conversation = Conversation(service, Session("", "control", ""), Resources())

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object, without its socket."""
        return {
            "unsent": self.unsent.decode("latin-1"),
            "ended": self._ended,
            "pending": self._pending,
            "conversation": self._conversation.dump().decode("latin-1"),
            "awaits": self.later.form if isinstance(self.later, UpgradeReply) else "",
        }

    @classmethod
    def from_json(cls, sock: socket.socket, service: Service, facts: Mapping[str, Any]) -> _Client:
        """Return a client from a JSON object."""
        client = cls(sock, service)
        client.unsent = facts["unsent"].encode("latin-1")
        client._ended, client._pending = facts["ended"], facts["pending"]
        client._conversation.load(facts["conversation"].encode("latin-1"))
        client.later = UpgradeReply(facts["awaits"]) if facts["awaits"] else None
        return client

    @property
    def events(self) -> int:
        """The events to wait for: no more is read while a reply is unsent; 0: none."""
        if self.later is not None:
            return 0
        unsent = self.unsent or self._pending
        reading = 0 if unsent or self._ended else selectors.EVENT_READ
        return reading | (selectors.EVENT_WRITE if unsent else 0)

    def turn(self) -> bool:
        """Read, answer a few requests and write what can be sent now; return whether the client stays.

        A client that asks one question and ends its side is done with in one turn: on a machine that is
        busy, each turn is a wait for a processor.

        Raises:
            OSError: The client is gone.
        """
        if self.later is not None:
            self.unsent += self._outcome(self.later)
            self.later = None
        with contextlib.suppress(BlockingIOError):
            self._send()
            for _ in range(_STEPS):
                if not self._is_asking():
                    break
                self._answer()
                self._send()
        return bool(self.unsent) or self._waits() or self._is_asking()

    def _waits(self) -> bool:
        return self.later is not None

    def _is_asking(self) -> bool:
        """Whether another request may come, or be there."""
        done = self._conversation.closing or (self._ended and not self._pending)
        return not (done or self._waits())

    def _send(self) -> None:
        """Send what is unsent.

        Raises:
            BlockingIOError: Some of it cannot be sent now.
        """
        while self.unsent:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]

    def _answer(self) -> None:
        """Answer a request, if there is one. Pre-condition: nothing is unsent.

        Raises:
            BlockingIOError: All is answered that has arrived.
        """
        if not self._pending and not self._ended:
            data = self.socket.recv(4 * _LINE_BYTES)
            self._ended = not data
            self._conversation.feed(data)
        reply = next(answers(self._conversation), None)
        self._pending = reply is not None
        self.unsent += reply or b""

    def _hold(
        self, request: Request, _session: Session, call_next: Callable[[Request], Any]
    ) -> object:
        """Send nothing yet if the reply comes later."""
        value: object = call_next(request)
        if not isinstance(value, Future):
            return value
        self.later = value
        return Reply(raw=b"")

    def _outcome(self, later: Future[object]) -> bytes:
        """Return the reply that has come. Pre-condition: it has, and no other request was answered since."""
        request = self._conversation.request
        try:
            return self._conversation.encode(later.result(timeout=0))
        except Exception as error:  # noqa: BLE001 - logged with its id, as that of a handler
            return error_reply(self._conversation, error, request)
