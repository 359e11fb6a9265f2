"""The fields that the compiled core shares with Python's classes, as plain attributes, for pure Python.

Each is a base of the class that uses it. In the core the same fields are those of a C struct, so both
have one home for each piece of state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linepool.conversation import Conversation
    from linepool.protocols.base import Protocol


class ConnectionFields:
    """The fields of ``worker.connection.Connection``.

    Attributes:
        descriptor: Of the client's socket.
        place: Where it is published on the board; -1: it is not.
        cookie: The socket's (SO_COOKIE).
        origin: Where the client comes from; 0: it counts for no address.
        shown: What is published of it on the board.
        taken: How many bytes have been read of it in its life; with TLS, after it was decrypted.
        needs: What its holder must arrange next: READ, WRITE, AGAIN or CLOSED.
        served: A request has come.
        is_replaceable: As the protocol said last.
        is_plain: The compiled core may serve what comes next: nothing is pending in Python's objects.
        more: There may be further requests in what has arrived.
        quiet_since: When the client was served last; monotonic, in seconds.
        accepted_at: When it was accepted; likewise.
        read_by: When an unfinished request must be complete; 0.0: none has begun.
        conversation: Its requests and replies, with its ``protocol``.
        encrypted: Its transport if that encrypts; None: the socket has the bytes as they are.
    """

    descriptor: int
    place: int
    cookie: int
    origin: int
    shown: int
    taken: int
    needs: int
    served: bool
    is_replaceable: bool
    is_plain: bool
    more: bool
    quiet_since: float
    accepted_at: float
    read_by: float
    conversation: Conversation
    protocol: Protocol
    encrypted: Any

    def make(self) -> None:
        """Make all else of a connection that the compiled core has accepted."""


class TableFields:
    """The fields of ``worker.table.Table``."""

    connections: dict[int, Any]
    again: dict[int, Any]
    places: list[int]
    due: float


class SafePointFields:
    """The fields of ``worker.safe_point.SafePoint``."""

    is_open: bool
    is_wanted: bool


class FigureFields:
    """The fields of ``worker.figures.RequestFigures``."""

    since_ns: int


class InterruptFields:
    """The fields of ``worker.interrupts.Interrupts``."""

    conversation: Any
    armed = False
