"""Which new clients the parker takes, what it keeps of them, what it tells others. Runs in the parker."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterable

from linepool.facts import Answers, AppFacts
from linepool.ipc import channel as channels
from linepool.ipc.board import ParkerView
from linepool.ipc.gate import Gate
from linepool.ipc.messages import ConnectionState
from linepool.kernel.listeners import Listener
from linepool.kernel.sockets import UnixPeer, address_text, origin_of
from linepool.session import Session
from linepool.settings import Settings

log = logging.getLogger("linepool")


class _Rules:
    """What holds for the new clients of a listener."""

    def __init__(self, board: ParkerView, settings: Settings, answers: Answers) -> None:
        self.gate = Gate(settings, board.bans)
        has_tls = settings.begins_with_tls  # then nothing can be said before its handshake
        self.timeout = settings.first_timeout
        self.flags = channels.NEW | (channels.MORE if answers.greets and not has_tls else 0)
        self.refusals = {} if has_tls else answers.refusals
        if self.gate.has_proxies:
            self.flags = channels.NEW | channels.HEAD
            self.timeout = settings.proxy_timeout


class Admission:
    """The admission of new clients, as the settings of one generation want it.

    Args:
        board: Has the bans.
        settings: All of them.
        app: What is known of the app, or of all apps.
        listeners: Those that are accepted from.

    Attributes:
        longest: How long a client may wait at most, in seconds, whichever its listener is.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        board: ParkerView,
        settings: Settings,
        app: AppFacts,
        listeners: Iterable[Listener],
    ) -> None:
        self._board = board
        self._rules = _Rules(board, settings, app.answers)
        self._own: dict[str, _Rules] = {}
        for listener in listeners:
            if table := settings.table_of(listener.key):
                answers = app.answers_of.get(table.app, app.answers)
                own = settings.of_listener(listener.key)
                self._own[listener.name] = _Rules(board, own, answers)
        self.longest = max(max(one.idle_timeout, one.read_timeout) for one in settings.each)

    def denies(self, address: object, listener: Listener) -> bool:
        """Whether a new client may not connect, which is counted; then it is sent nothing."""
        if not self._of(listener.name).gate.denies_peer(address):
            return False
        log.warning("denied a client peer=%s listener=%s", address_text(address), listener.name)
        self._board.count_denied()
        return True

    def refusal(self, listener: str, why: str) -> bytes | None:
        """Return what a client is sent that is refused, given the name of its listener; None: nothing."""
        return self._of(listener).refusals.get(why)

    def origin(self, address: object, listener: Listener) -> int:
        """Return what counts as the origin of a new connection; 0: nothing yet, for it is a proxy's."""
        return 0 if self._of(listener.name).gate.has_proxies else origin_of(address)

    def first_state(self, address: object, listener: Listener, origin: int) -> ConnectionState:
        """Return the state of a new connection."""
        id = f"{os.getpid()}-{next(self._numbers)}"
        credentials = (
            address.credentials if isinstance(address, UnixPeer) and address.is_known else None
        )
        session = Session(id, address_text(address), listener.name, credentials)
        rules, now = self._of(listener.name), time.monotonic()
        return channels.first_state(session, rules.flags, now, rules.timeout, origin)

    def _of(self, listener: str) -> _Rules:
        return self._own.get(listener, self._rules)
