"""A command waits for its client's answer: its connection moves, its worker dies, its time runs out."""

from __future__ import annotations

import os
import signal
import socket
import ssl

import pytest

from linepool.testing import Peer
from tests.certificates import Authority
from tests.process.connections import PARKING_SCHEMES, until_parked
from tests.servers import TIMEOUT, ServerProcess


def greeted(server: ServerProcess) -> Peer:
    peer = server.connect()
    assert peer.line() == "220 ready"
    return peer


def say(peer: Peer, line: str) -> list[str]:
    peer.send(line.encode() + b"\r\n")
    return peer.line().split()


@pytest.mark.parametrize("scheme", PARKING_SCHEMES)
def test_the_connection_is_parked_between_two_steps_and_outlives_the_workers(tmp_path, scheme):
    options = ("--workers", "2", "--park-after", "0.005", "--read-timeout", "60")
    with (
        ServerProcess(tmp_path, "asking.py", *options, scheme=scheme) as server,
        greeted(server) as peer,
    ):
        code, first, count = say(peer, "SUM")
        assert (code, count) == ("350", "0")
        until_parked(server, 1)
        for pid in server.pids():
            os.kill(pid, signal.SIGKILL)
        code, second, count = say(peer, "3")
        assert (code, count) == ("350", "1")
        assert second != first
        until_parked(server, 1)
        code, _, total = say(peer, "4")
        assert (code, total) == ("250", "7")


def test_the_connection_is_handed_off_before_its_worker_is_killed_for_another_request(tmp_path):
    options = ("--workers", "1", "--park-after", "60", "--request-timeout", "0")
    with (
        ServerProcess(tmp_path, "asking.py", *options) as server,
        greeted(server) as peer,
        greeted(server) as other,
    ):
        code, first, _ = say(peer, "SUM")
        assert code == "350"
        other.send(b"SLEEP\r\n")
        until_parked(server, 1, hot=1)
        os.kill(int(first), signal.SIGKILL)
        code, second, count = say(peer, "3")
        assert (code, count) == ("350", "1")
        assert second != first
        assert say(peer, "4")[2] == "7"


def test_a_client_that_does_not_answer_is_disconnected_and_one_that_leaves_does_no_harm(tmp_path):
    options = ("--workers", "1", "--read-timeout", "0.3")
    with ServerProcess(tmp_path, "asking.py", *options) as server:
        with greeted(server) as peer:
            assert say(peer, "SUM")[0] == "350"
        with greeted(server) as peer:
            assert say(peer, "SUM")[0] == "350"
            assert peer.line().startswith("421 the request did not arrive within 0.3 s")
            assert peer.rest() == b""


def test_the_answer_of_a_killed_request_is_not_logged(tmp_path):
    options = ("--workers", "1", "--log-requests", "line", "--kill-grace", "0.1")
    with ServerProcess(tmp_path, "asking.py", *options) as server, greeted(server) as peer:
        assert say(peer, "HANG") == ["350", "what?"]
        assert say(peer, "hunter2")[0] == "451"
        server.wait_for("worker killed")
        assert "command=HANG" in "\n".join(server.log)
        assert "hunter2" not in "\n".join(server.log)


def test_tls_begins_behind_an_answer_and_never_before_what_follows_it(tmp_path):
    authority = Authority(tmp_path)
    pair = str(authority.certificate("localhost", "DNS:localhost"))
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    options = ("--workers", "1", "--tls-cert", pair, "--starttls", "on")
    with ServerProcess(tmp_path, "asking.py", *options) as server:
        with greeted(server) as peer:
            peer.send(b"STARTTLS\r\nyes\r\nSUM\r\n")
            assert peer.line() == "350 sure?"
            assert peer.line().startswith("554 nothing may follow this command")
        with greeted(server) as peer:
            assert say(peer, "STARTTLS") == ["350", "sure?"]
            assert say(peer, "yes") == ["220", "begin"]
            raw = peer.socket.dup()
            raw.settimeout(TIMEOUT)
            with context.wrap_socket(raw, server_hostname="localhost") as sealed:
                assert exchange(sealed, b"SUM") == b"350"
                assert exchange(sealed, b"1") == b"350"
                assert exchange(sealed, b"2") == b"250"


def exchange(sock: socket.socket, line: bytes) -> bytes:
    sock.sendall(line + b"\r\n")
    with sock.makefile("rb") as stream:
        return stream.readline().split()[0]
