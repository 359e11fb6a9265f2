"""The connections of a dead worker that it was not serving: other workers continue with them.

Runs in the master.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from attrs import frozen

from linepool.ipc.announced import announced
from linepool.ipc.board import MasterSlot, Movable
from linepool.kernel.pidfd import OpenFiles
from linepool.kernel.sockets import is_untouched, taken_bytes
from linepool.session import Session


@frozen
class Saved:
    """A connection that is saved; its taker owns the socket.

    Attributes:
        is_new: The worker has neither read nor sent anything; it may have been about to accept it.
        known: What a proxy has said of it; None: it came through none.
    """

    sock: socket.socket
    is_new: bool = False
    known: Session | None = None


class SavedSockets:
    """Copies of the connections that a worker holds beside the one that it serves.

    They are given to others once it is dead. Of one that is to be killed they are taken before: it may
    recover at the last moment and serve them. Of one that has died they are taken from its holder.

    Args:
        owner: Has the descriptors.
        slot: The worker's.
        has_died: It is dead already. The client that it was serving is saved too, if nothing was read of it.
    """

    def __init__(self, owner: OpenFiles, slot: MasterSlot, *, has_died: bool) -> None:
        self._slot = slot
        self._sockets: dict[int, tuple[socket.socket, Movable]] = {}
        for place, one in slot.movable().items():
            if one.is_served and not has_died:
                continue
            if sock := owner.take_socket(one.descriptor, one.cookie):
                self._sockets[place] = sock, one
        self._new = list(_untouched(owner, slot.descriptors()))

    def take(self) -> list[Saved]:
        """Return those that it has not served since; the others are closed.

        Pre-condition: the worker is dead, and its slot has not been used again.
        """
        movable = self._slot.movable()
        saved = []
        for place, (sock, before) in self._sockets.items():
            if not _is_at_rest(sock, before, movable.get(place)):
                sock.close()
                continue
            try:
                data = self._slot.announced_at(place, before.cookie)
                saved.append(Saved(sock, known=announced(data) if data else None))
            except ValueError:  # a handler has written nonsense there
                sock.close()
        for sock in self._new:
            if is_untouched(sock):
                saved.append(Saved(sock, is_new=True))
            else:
                sock.close()
        return saved

    def close(self) -> None:
        """Close the copies."""
        for sock, _ in self._sockets.values():
            sock.close()
        for sock in self._new:
            sock.close()


def _is_at_rest(sock: socket.socket, before: Movable, after: Movable | None) -> bool:
    """Whether a connection is still published, and no byte of it was read since its last turn was over."""
    if after is None or (before.descriptor, before.cookie) != (after.descriptor, after.cookie):
        return False
    taken = taken_bytes(sock)
    return not after.is_served if taken is None else taken == after.taken


def _untouched(owner: OpenFiles, known: set[int]) -> Iterable[socket.socket]:
    """Yield copies of the sockets of which nothing was read or sent, besides some descriptors."""
    for number in owner.sockets():
        if number in known or (sock := owner.take_socket(number)) is None:
            continue
        if is_untouched(sock):
            yield sock
        else:
            sock.close()
