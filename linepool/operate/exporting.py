"""The exporter, as the master keeps it: a helper process that serves HTTP and answers agent-checks.

Runs in the master, and in each new exporter until that begins its work.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import socket
from collections.abc import Callable, Mapping

from linepool.address import parse_address
from linepool.errors import SetupError
from linepool.kernel.binding import bind_tcp, bind_unix
from linepool.kernel.listeners import Listener
from linepool.kernel.title import set_title
from linepool.master.helper import Helper
from linepool.master.master import Master
from linepool.master.spawner import Part
from linepool.settings import Settings

log = logging.getLogger("linepool")

_PLACES = ("http", "agent")  # the settings that say where it serves
_BACKLOG = 64
_UNIX_MODE = 0o660
_NICENESS = 5


def open_places(settings: Settings) -> dict[str, Listener]:
    """Open the sockets on which the exporter serves, by the names of their settings.

    Raises:
        SetupError: It cannot; the text names the setting and the address, and says why.
    """
    found: dict[str, Listener] = {}
    try:
        for name in _PLACES:
            if address := getattr(settings, name):
                found[name] = _open(name, address)
    except SetupError:
        for listener in found.values():
            listener.remove()
        raise
    if "http" in found:
        _announce_http(found["http"])
    if "agent" in found:
        log.info("agent-check on %s", found["agent"].name)
    return found


def listeners_of(piece: Callable[[str], Part | None]) -> dict[str, Listener]:
    """Return the listeners that another program has handed over; raises as ``Listener.taken_over``."""
    parts = {name: part for name in _PLACES if (part := piece(name))}
    return {
        name: Listener.taken_over(dict(facts), list(descriptors))
        for name, (facts, descriptors) in parts.items()
    }


def _open(name: str, address: str) -> Listener:
    parsed = parse_address(address)
    try:
        sock = bind_unix(parsed.path, _UNIX_MODE) if parsed.path else bind_tcp(parsed)
        sock.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"{name}: cannot listen on {address}: {reason}") from None
    return Listener(sock, parsed.path)


def _announce_http(listener: Listener) -> None:
    host = listener.socket.getsockname()[0] if not listener.is_unix else ""
    shown = f"http://{listener.name}/" if host else listener.name
    log.info("http on %s", shown)
    if host and not (host.startswith("127.") or host == "::1"):
        log.warning(
            "http on %s: whoever can connect sees the names of commands, clients' addresses, and stacks",
            shown,
        )


class Exporting:
    """Keeps an exporter alive; what the master's loop watches.

    Args:
        master: The master.
        listeners: Where the exporter serves, by the names of the settings.
        control: The path of the control socket, which it asks.
        become_user: Has a new exporter become the user that serves.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock.
    """

    def __init__(
        self,
        master: Master,
        listeners: Mapping[str, Listener],
        control: str,
        become_user: Callable[[], None],
    ) -> None:
        self.due_at = 0.0
        self._master = master
        self._listeners = listeners
        self._control = control
        self._become_user = become_user

    def handed_over(self) -> dict[str, Part]:
        """Return what another program needs to serve there, for ``listeners_of``."""
        return {name: listener.handed_over() for name, listener in self._listeners.items()}

    @property
    def pid(self) -> int | None:
        """The pid of the exporter; None: there is none now."""
        process = self._helper.process
        return process.pid if process else None

    def open(self, selector: selectors.BaseSelector) -> None:
        """Prepare the exporter; ``turn`` starts it."""
        self._helper = Helper(
            "exporter",
            selector,
            self._leave_master,
            self._work,
            lambda: None,
            self._on_end,
        )

    def turn(self) -> None:
        """Start the exporter if there is none."""
        self._helper.turn()
        self.due_at = self._helper.start_at if self._helper.channel is None else math.inf

    def close(self) -> None:
        """End the exporter, in the master."""
        self._helper.close()
        for listener in self._listeners.values():
            listener.remove()

    def abandon(self) -> None:
        """Close a new process's copies."""
        self._helper.abandon()
        if not self._is_leaving:
            for listener in self._listeners.values():
                listener.close()

    _is_leaving = False  # this process becomes the exporter

    def _leave_master(self) -> None:
        self._is_leaving = True
        self._master.close_inherited()

    def _work(self, channel: socket.socket) -> None:
        """Be the exporter, to its end."""
        # It takes time and memory that no other process needs.
        from linepool.exporter.exporter import Exporter  # noqa: PLC0415
        from linepool.exporter.source import Source  # noqa: PLC0415

        set_title("exporter", self._master.generation.facts.name)
        board, settings = self._master.board, self._master.settings
        source = Source(self._control, self._master.figures, lambda: len(board.page.used_slots))
        self._become_user()
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
        with channel, contextlib.closing(source):
            exporter = Exporter(source)
            if http := self._listeners.get("http"):
                exporter.serve_http(http.socket, settings.http_hosts)
            if agent := self._listeners.get("agent"):
                exporter.answer_agents(agent.socket, board.page.busy_workers)
            exporter.run(channel)

    def _on_end(self, how: str) -> bool:
        log.error("exporter died %s", how)
        self.due_at = 0.0
        return not self._master.stopping
