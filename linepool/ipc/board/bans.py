"""The bans as workers and the parker see them: networks that may not connect for a while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from linepool.ipc.board.page import Board
from linepool.ipc.board.words import BAN, BANS
from linepool.kernel.address_set import AddressSet
from linepool.kernel.sockets import address_of_text
from linepool.settings.networks import parsed_networks


class Bans:
    """The table of bans, read again when it has changed.

    Attributes:
        serial: Returns a number that changes with the table; 0: it is empty, and no address is in it.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self.serial: Callable[[], int] = partial(board.head.__getitem__, BANS)
        self._seen = 0
        self._ends_ns = math.inf  # when the next ban ends, on the monotonic clock
        self._networks = AddressSet(())

    def __contains__(self, address: object) -> bool:
        """Whether a client's address is banned, as ``Listener.accept`` returns it."""
        serial = self.serial()
        if not serial:
            return False
        now_ns = time.monotonic_ns()
        if serial != self._seen or now_ns >= self._ends_ns:
            self._read(serial, now_ns)
        return address in self._networks

    def has_peer(self, peer: str) -> bool:
        """Whether a client is banned, given its address as text: as ``Session.peer``."""
        if not self.serial():
            return False
        try:
            return address_of_text(peer) in self
        except (OSError, ValueError):  # a handler has changed it
            return False

    def _read(self, serial: int, now_ns: int) -> None:
        self._seen = serial  # if the master is writing meanwhile, it changes once more
        table = bytes(self._board.bans)
        found = [(text, ends_ns) for text, ends_ns in BAN.iter_unpack(table) if ends_ns > now_ns]
        self._ends_ns = min((ends_ns for _, ends_ns in found), default=math.inf)
        texts: list[str] = []
        for text, _ in found:
            try:
                texts += parsed_networks([text.rstrip(b"\0").decode()])
            except ValueError:  # it is being written
                continue
        self._networks = AddressSet(texts)
