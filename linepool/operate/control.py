"""The control socket: the master answers commands in the line protocol (``nc -U``).

Served by the master's loop without ever waiting for a client: one request per turn; what cannot be
sent at once waits in a buffer, and nothing more is read from a client that has not read its reply.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import selectors
import socket
import time
from typing import Literal

from linepool.app import App
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.errors import ClientError, SetupError
from linepool.kernel.listeners import Listener, bind_unix
from linepool.kernel.shortage import CAPACITY_ERRORS, CAPACITY_PAUSE
from linepool.master.master import Master
from linepool.operate.report import as_lines, status
from linepool.protocols.base import Limits
from linepool.resources import Resources
from linepool.service import Service
from linepool.session import Session
from linepool.settings import Workers, parse_setting

_MOST_CLIENTS = 16
_LINE_BYTES = 1024


def commands(master: Master) -> App:
    """Return the app that the control socket serves."""
    app = App("control")

    @app.handler("STATUS")
    def status_(form: Literal["text", "json"] = "text") -> str | list[str]:
        """Show the state of the server; as JSON on one line if asked."""
        state = status(master)
        return json.dumps(state) if form == "json" else as_lines(state)

    @app.handler
    def scale(workers: str) -> str:
        """Set the size of the pool: N or MIN:MAX, or +N or -N to move both bounds."""
        bounds = _scaled(master.settings.workers, workers)
        master.scale(bounds)
        return f"workers {bounds}"

    @app.handler
    def stop(how: Literal["graceful", "now"] = "graceful") -> str:
        """Stop the server: gracefully, waiting for in-flight requests, or now."""
        master.stop(graceful=how == "graceful")
        return "stopping gracefully" if how == "graceful" else "stopping now"

    return app


def _scaled(bounds: Workers, wanted: str) -> Workers:
    if wanted[:1] in ("+", "-") and wanted[1:].isdigit():
        step = int(wanted)
        wanted = f"{bounds.min + step}:{bounds.max + step}"
    try:
        scaled: Workers = parse_setting("workers", wanted, "SCALE")
    except SetupError as error:
        raise ClientError(str(error)) from None
    return scaled


class Control:
    """The control socket, as something that the master watches."""

    def __init__(self, master: Master, path: str) -> None:
        self._service = commands(master).freeze(Limits(_LINE_BYTES, 0))
        sock = bind_unix(path, 0o600)
        sock.listen(_MOST_CLIENTS)
        sock.setblocking(False)
        self._listener = Listener(sock, path)
        self._clients: dict[_Client, None] = {}  # in the order of their last requests
        # A descriptor for the client that asks what is wrong when there is none.
        self._spare = _spare()
        self.due_at = math.inf

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register with the master's loop."""
        self._selector = selector
        selector.register(self._listener.socket, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close it, in the master: replies are sent as far as clients read them."""
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
        call = functools.partial(self._serve, client)
        self._selector.register(sock, selectors.EVENT_READ, call)

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
        self._drop(next(iter(self._clients)))

    def _serve(self, client: _Client) -> None:
        try:
            is_open = client.turn()
        except OSError:
            is_open = False
        if not is_open:
            self._drop(client)
            return
        del self._clients[client]
        self._clients[client] = None
        key = self._selector.get_key(client.socket)
        if key.events != client.events:
            self._selector.modify(client.socket, client.events, key.data)

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        self._selector.unregister(client.socket)
        client.socket.close()
        if self._spare < 0:
            self._spare = _spare()


def _spare() -> int:
    """Return a descriptor of no use; -1: there is none."""
    with contextlib.suppress(OSError):
        return os.eventfd(0, os.EFD_CLOEXEC)
    return -1


class _Client:
    """One client of the control socket."""

    def __init__(self, sock: socket.socket, service: Service) -> None:
        self.socket = sock
        self.unsent = b""
        self._ended = False
        self._pending = False  # more requests may have arrived than were answered
        self._conversation = Conversation(service, Session("", "control", ""), Resources())

    @property
    def events(self) -> int:
        """The events to wait for: no more is read while a reply is unsent."""
        unsent = self.unsent or self._pending
        reading = 0 if unsent or self._ended else selectors.EVENT_READ
        return reading | (selectors.EVENT_WRITE if unsent else 0)

    def turn(self) -> bool:
        """Read, answer one request and write what can be sent now; return whether the client stays.

        Raises:
            OSError: The client is gone.
        """
        if not self.unsent:
            if not self._pending and not self._ended:
                with contextlib.suppress(BlockingIOError):
                    data = self.socket.recv(4 * _LINE_BYTES)
                    self._ended = not data
                    self._conversation.feed(data)
            reply = next(answers(self._conversation), None)
            self._pending = reply is not None
            self.unsent += reply or b""
        if self.unsent:
            with contextlib.suppress(BlockingIOError):
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        done = self._conversation.closing or (self._ended and not self._pending)
        return bool(self.unsent) or not done
