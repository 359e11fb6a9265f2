"""New connections of a worker, from the accept until the first turn, or until they are refused.

Runs in workers, in the schemes ``shared`` and ``dispatch``. A connection from a proxy waits for its PROXY
header in between, and the worker serves others meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from linepool.kernel.acceptor import Accepted
from linepool.kernel.sockets import close_by_reset, origin_of, taken_bytes
from linepool.session import Session
from linepool.worker.admission import Admission
from linepool.worker.balance import Siblings
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.handoff import Handoff
from linepool.worker.heads import Head
from linepool.worker.table import Table


class Arrivals:
    """The new connections of one worker.

    Args:
        context: Of the worker.
        admission: Which of them are served.
        table: Holds them.
        handoff: Passes on those for which there is no room.
        siblings: The other workers.
        begin: Serves a connection for the first time.
    """

    def __init__(
        self,
        context: WorkerContext,
        admission: Admission,
        table: Table,
        handoff: Handoff,
        siblings: Siblings,
        begin: Callable[[Connection], None],
    ) -> None:
        self._context = context
        self._admission = admission
        self._table = table
        self._handoff = handoff
        self._siblings = siblings
        self._begin = begin

    def admit(self, accepted: Accepted, *, has_room: bool) -> None:
        """Serve a connection, wait for its header, pass it on if there is no room, or refuse it."""
        sock, address, listener = accepted
        if self._admission.denies(address, listener.name):
            close_by_reset(sock)
            return
        session, now = self._admission.session(address, listener), time.monotonic()
        context = self._context.of(listener.name)
        if not context.gate.has_proxies:
            self._welcome(sock, session, address, now, has_room=has_room)
        elif has_room or not self._handoff.give_head(sock, session, now):
            head = Head.of(sock, session, now, context.settings)
            has_come = (
                head.read_or_close()
            )  # as a proxy sends it at once, in most cases it is there
            if has_come:
                self._go_on(head, has_room=has_room)
            elif has_come is not None:
                self._table.add_head(head)

    def read_head(self, descriptor: int, has_room: Callable[[], bool]) -> None:
        """Read the PROXY header of a connection; if it is complete, go on as if the client had connected."""
        head = self._table.heads.read(descriptor)
        if head is not None:
            self._go_on(head, has_room=has_room())

    def _go_on(self, head: Head, *, has_room: bool) -> None:
        """Admit the client that a header names."""
        sock, session, address = head.sock, head.session, head.address
        if self._admission.denies(address, session.listener, is_announced=True):
            close_by_reset(sock)
            return
        self._welcome(sock, session, address, head.accepted_at, has_room=has_room)

    def _welcome(
        self,
        sock: socket.socket,
        session: Session,
        address: object,
        accepted_at: float,
        *,
        has_room: bool,
    ) -> None:
        origin = origin_of(address)
        begins_with_tls = self._context.of(session.listener).settings.begins_with_tls
        if reply := self._admission.refusal(address, origin, session.listener):
            self._table.refuse(sock, None if begins_with_tls else reply)
            return
        # With TLS it cannot leave later, and the kernel would wake the same worker for each.
        has_room = has_room and not (
            begins_with_tls and self._siblings.hold_fewer(self._table.held)
        )
        # Not left in the backlog: EPOLLEXCLUSIVE has woken no other worker for it.
        if not has_room and self._handoff.give_new(sock, session, origin):
            return
        if begins_with_tls:
            self._table.shake(sock, session, accepted_at, origin)
        else:
            taken = 0 if session.proxy is None else taken_bytes(sock) or 0
            self._begin(self._table.take(sock, session, accepted_at, origin, taken=taken))
