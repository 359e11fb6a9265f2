"""What a proxy has said of a connection, on the board: for the master, which trusts nothing that it reads."""

from __future__ import annotations

import pytest

from linepool.ipc.announced import announced, announcement
from linepool.ipc.board import Board, MasterView, WorkerView
from linepool.proxy_header import Proxied
from linepool.session import Session


def _session(peer: str, credentials: tuple[int, int, int] | None = None) -> Session:
    session = Session("7-1", peer, "127.0.0.1:7000", credentials)
    session.proxy = Proxied(via="10.0.0.2:4000", unique_id="7f-3a")
    return session


@pytest.mark.parametrize(
    "session",
    [_session("192.0.2.1:1000"), _session("[2001:db8::1]:1"), _session("unix", (5, 1000, 100))],
)
def test_the_client_is_read_as_it_was_written(session):
    found = announced(announcement(session))

    assert (found.peer, found.proxy) == (session.peer, session.proxy)
    assert (found.pid, found.uid, found.gid) == (session.pid, session.uid, session.gid)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 40,
        announcement(_session("192.0.2.1:1000"))[:-3],
        announcement(_session("192.0.2.1:x")),
        announcement(_session("shop.example:1")),
        announcement(_session("192.0.2.1:1\nworker killed")),
        announcement(_session("192.0.2.1:1")).replace(b"via", b"vias"),
        announcement(_session("192.0.2.1:1")).replace(b'{"via', b'["via'),
    ],
)
def test_nonsense_is_refused(data):
    with pytest.raises(ValueError, match="not what a proxy has said"):
        announced(data)


def test_an_announcement_belongs_to_a_place_and_a_cookie():
    board = Board(4)
    MasterView(board).new_worker(1)
    slot, worker = MasterView(board).slot(1), WorkerView(board, 1)

    assert worker.announce(2, 77, b"first")
    assert worker.announce(3, 78, b"second")
    worker.publish(3, 9, 78)
    assert not worker.announce(1, 79, b"x" * 500)

    (place,) = slot.movable()
    assert slot.announced_at(place, 78) == b"second"
    assert slot.announced_at(place, 77) == b""
    assert slot.announced(77) == b"first"
    assert slot.announced(79) == b""
