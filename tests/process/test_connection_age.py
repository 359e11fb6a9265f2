"""Connections that end because they are old, between two requests."""

from __future__ import annotations

import select
import ssl
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.haproxy import Clients
from tests.servers import TIMEOUT

AGED = ("--workers", "2", "--park-after", "0.01", "--connection-max-age", "0.3")


def is_readable(peer: Peer) -> bool:
    """Whether something, or the end, comes within a moment."""
    return bool(select.select([peer.socket], [], [], 0.02)[0])


@pytest.mark.both
@pytest.mark.scheme("shared", "dispatch", "accept")
def test_clients_that_keep_theirs_busy_lose_no_request(
    launch: Launch, tmp_path: Path, scheme: str, implementation: None
):
    journal = tmp_path / "journal"
    server = launch("balanced.py", *AGED, environment={"JOURNAL": str(journal)})
    with Clients(server.port, short=0, kept=2, pause=0.001) as clients:
        server.until(lambda state: state["counters"]["connections"] > 8)
    noted = journal.read_text().split()
    assert len(noted) == len(set(noted))
    assert set(noted) == clients.answered
    assert not clients.unanswered  # for they look whether the end has come before they send
    assert len(noted) > 20
    assert server.stop() == 0


@pytest.mark.both
@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("without TCP_CORK the end comes after the reply")
def test_the_end_comes_with_a_reply(launch: Launch, scheme: str, implementation: None):
    server = launch("workshop.py", *AGED)
    with server.connect() as peer:
        for number in range(10_000):
            assert peer.ask(f"ADD {number} 1") == str(number + 1)
            if select.select([peer.socket], [], [], 0)[0]:  # no moment later than the reply
                break
        assert peer.rest() == b""


@pytest.mark.both
@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_request_of_which_a_part_has_arrived_is_completed(
    launch: Launch, scheme: str, implementation: None
):
    server = launch("workshop.py", *AGED)
    with server.connect() as peer, server.connect() as other:
        peer.send(b"ADD 1 1\nADD 2")
        assert peer.line() == "2"
        assert other.ask("ADD 1 2") == "3"
        assert other.rest() == b""  # as old, and quiet
        assert not is_readable(peer)

        peer.send(b" 2\n")

        assert peer.line() == "4"
        assert peer.rest() == b""


@pytest.mark.scheme("shared", "dispatch")
def test_one_that_is_parked_ends_when_it_is_old(launch: Launch, scheme: str):
    server = launch("workshop.py", *AGED)
    with server.connect() as peer:
        assert peer.ask("ADD 1 2") == "3"
        server.until(lambda state: state["connections"] == {"hot": 0, "parked": 1})
        assert peer.rest() == b""
    assert server.status()["counters"]["dropped"] == 0


@pytest.mark.both
@pytest.mark.scheme("shared", "accept")
def test_tls_announces_the_end(launch: Launch, tmp_path: Path, scheme: str, implementation: None):
    authority = Authority(tmp_path)
    authority.certificate("server", "DNS:shop.example")
    server = launch("workshop.py", *AGED, "--tls-cert", str(tmp_path / "server.pem"))
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with (
        server.connect() as peer,
        context.wrap_socket(
            peer.socket.dup(), server_hostname="shop.example", suppress_ragged_eofs=False
        ) as tls,
    ):
        tls.settimeout(TIMEOUT)
        tls.sendall(b"ADD 1 2\n")
        assert tls.recv(100) == b"3\n"
        assert tls.recv(100) == b""  # else it raises


@pytest.mark.both
def test_a_transaction_is_not_ended(launch: Launch, tmp_path: Path, implementation: None):
    (tmp_path / "app.py").write_text(
        "import linepool\n"
        'app = linepool.App("a", protocol=linepool.Resp(transactions=True))\n'
        "@app.handler\n"
        "def add(a: int, b: int) -> int:\n"
        '    """Add."""\n'
        "    return a + b\n"
    )
    server = launch(tmp_path / "app.py", *AGED)
    with server.connect() as peer:
        peer.send(b"MULTI\r\n")
        assert peer.line() == "+OK"
        for _ in range(2):
            with server.connect() as other:
                other.send(b"PING\r\n")
                assert other.line() == "+PONG"
                while other.socket.recv(100):  # to its end
                    pass
        peer.send(b"ADD 1 2\r\n")
        assert peer.line() == "+QUEUED"
        peer.send(b"EXEC\r\n")
        assert [peer.line() for _ in range(2)] == ["*1", ":3"]
        assert peer.rest() == b""


@pytest.mark.both
def test_a_subscriber_is_not_ended(launch: Launch, tmp_path: Path, implementation: None):
    (tmp_path / "app.py").write_text(
        'import linepool\napp = linepool.App("a", protocol=linepool.Resp())\n'
    )
    server = launch(tmp_path / "app.py", *AGED)
    with server.connect() as peer, server.connect() as other:
        peer.send(b"SUBSCRIBE news\r\n")
        assert [peer.line() for _ in range(6)][-1] == ":1"
        other.send(b"PING\r\n")
        assert other.line() == "+PONG"
        while other.socket.recv(100):  # to its end
            pass
        with server.connect() as publisher:
            publisher.send(b"PUBLISH news x\r\n")
            assert publisher.line() == ":1"
        assert [peer.line() for _ in range(7)][-1] == "x"


def test_each_listener_may_have_its_own(launch: Launch, tmp_path: Path):
    (tmp_path / "linepool.toml").write_text(
        '[[listener]]\nbind = "127.0.0.1:0"\nconnection_max_age = 0.3\n'
        '[[listener]]\nbind = "127.0.0.1:0"\nname = "kept"\n'
    )
    server = launch("workshop.py", "--workers", "2", bind=())
    with server.connect() as aged, server.connect(1) as kept:
        assert aged.ask("ADD 1 2") == kept.ask("ADD 1 2") == "3"
        assert aged.rest() == b""
        assert kept.ask("ADD 1 2") == "3"
