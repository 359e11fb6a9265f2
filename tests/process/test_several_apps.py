"""Several apps that one pool serves, each on its own listeners."""

from __future__ import annotations

import contextlib
import os
import ssl

import pytest

from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.servers import HANDLERS, ServerProcess

pytestmark = pytest.mark.both
SHOP = f"{HANDLERS / 'shop.py'}:main"
ADMIN = f"{HANDLERS / 'shop.py'}:admin"


def _resp(server: ServerProcess, line: str) -> str:
    with server.connect(1) as peer:
        return peer.ask(f"{line}\r")


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_each_app_has_its_listeners_and_all_have_the_same_workers(launch: Launch, scheme, tmp_path):
    log = tmp_path / "access.log"
    form = "{listener} {app} {command} {result}"
    options = ("--workers", "1", "--access-log", str(log), "--access-log-format", form)
    server = launch(SHOP, ADMIN, *options, bind=())
    main, admin = server.addresses

    assert server.ask("PUT shoes 3") == "1"
    assert _resp(server, "PUT shoes") == ":1"
    assert server.ask("PID").startswith("ERROR unknown command")
    assert _resp(server, "WHERE").startswith("-ERR unknown command")
    assert _resp(server, "PID").removeprefix(":") == server.ask("WHERE").split()[0]
    assert server.ask("WHERE").split()[1] == main
    with server.connect(0) as peer:
        peer.send(b"HELP\n")
        commands = [line.split()[0] for line in iter(peer.line, "END")]
    assert {"PUT", "WHERE"} <= set(commands)
    assert "PID" not in commands
    assert _resp(server, "PING " + "x" * 100) == "$100"
    assert "64 bytes" in server.ask("PUT " + "x" * 100 + " 1")  # max_line_bytes of that app only
    shown = [(one["address"], one["app"], one["name"]) for one in server.status()["listeners"]]
    assert shown == [(main, "main", "main"), (admin, "admin", "admin")]
    assert f"{main} main PUT ok" in log.read_text().splitlines()
    assert f"{admin} admin PUT ok" in log.read_text().splitlines()


@pytest.mark.scheme("shared")
def test_what_ends_a_worker_is_named_with_its_app_and_told_in_its_protocol(launch: Launch, scheme):
    options = ("--workers", "1", "--kill-grace", "0.05", "--poison-deaths", "1")
    server = launch(SHOP, ADMIN, *options, bind=())

    assert _resp(server, "HANG").startswith("-ERR the request was ended")
    server.wait_for("worker killed")
    assert "command=admin:HANG" in server.log[-1]
    assert [one["command"] for one in server.status()["brakes"]] == ["admin:HANG"]
    assert "admin:HANG" not in _resp(server, "HANG")
    assert _resp(server, "HANG").startswith("-ERR HANG is refused")
    assert server.ask("HANG").startswith("SERVER_ERROR the request was ended")
    server.wait_for("command=main:HANG")


@pytest.mark.scheme("shared", "dispatch")
def test_a_moved_connection_keeps_its_app(launch: Launch, scheme):
    server = launch(SHOP, ADMIN, "--workers", "2", bind=())

    with server.connect(0) as one, server.connect(1) as other:
        for number in (2, 3):
            assert one.ask("WHERE").endswith(server.addresses[0])
            assert other.ask("PID\r").startswith(":")
            server.until(lambda status: status["connections"]["parked"] == 2)
            server.order("RELOAD")
            assert server.status()["generation"] == number


def test_tables_of_the_file_say_what_is_served_where(launch: Launch, tmp_path, implementation):
    file = tmp_path / "linepool.toml"
    table = "[[listener]]\nbind = '{}'\napp = '{}'\n{}\n"
    admin = table.format("unix:admin", ADMIN, "name = 'office'\nunix-mode = '660'")
    public = table.format("127.0.0.1:0", SHOP, "idle_timeout = 60")
    file.write_text(public + admin)
    server = launch(SHOP, "--workers", "1", bind=())

    assert [one["name"] for one in server.status()["listeners"]] == ["main", "office"]
    assert (tmp_path / "admin").stat().st_mode & 0o777 == 0o660
    kept = server.connect(1)
    assert kept.ask("PID\r").startswith(":")

    more = table.format("unix:more", "admin", "")
    file.write_text(public + admin + more)
    assert server.order("RELOAD").startswith("generation")
    with Peer(f"unix:{tmp_path}/more") as peer:
        assert peer.ask("PUT a\r") == ":1"
    assert kept.ask("PID\r").startswith(":")

    file.write_text(public)
    assert server.order("RELOAD").startswith("generation")
    assert server.ask("PUT a 1") == "1"
    with pytest.raises(ConnectionResetError):  # nothing serves its app any more
        kept.ask("PID\r")
    server.wait_for("connection ended: its state cannot be loaded")
    kept.close()


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("without SO_PEERCRED it is not")
def test_the_user_of_a_unix_client_is_known_and_may_be_refused(launch: Launch, tmp_path, scheme):
    file = tmp_path / "linepool.toml"
    table = "[[listener]]\nbind = '{}'\napp = 'main'\n{}\n"
    ours, theirs = (f"allow_uids = [{os.geteuid() + more}]" for more in (0, 1))
    file.write_text(table.format(f"unix:@{tmp_path}", ours) + table.format("unix:b", theirs))
    server = launch(SHOP, "--workers", "1", bind=())

    with server.connect(0) as peer:
        assert peer.ask("WHOAMI") == f"{os.getpid()} {os.geteuid()} {os.getegid()}"
        server.until(lambda status: scheme == "accept" or status["connections"]["parked"] == 1)
        assert peer.ask("WHOAMI") == f"{os.getpid()} {os.geteuid()} {os.getegid()}"
    reply = ""
    with server.connect(1) as peer, contextlib.suppress(ConnectionError):
        reply = peer.ask("WHOAMI")
    assert reply == ""
    assert server.status()["counters"]["denied"] == 1


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_one_listener_has_tls_beside_another_in_plain_text(launch: Launch, tmp_path, scheme):
    authority = Authority(tmp_path)
    certificate = authority.certificate("server", "DNS:localhost")
    table = "[[listener]]\nbind = '127.0.0.1:0'\napp = 'main'\n"
    (tmp_path / "linepool.toml").write_text(f"{table}\n{table}tls_cert = '{certificate}'\n")
    server = launch(SHOP, "--workers", "1", bind=())
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT

    assert server.ask("WHERE").endswith(server.addresses[0])
    with server.connect(1) as peer:
        secure = context.wrap_socket(peer.socket, server_hostname="localhost")
        secure.sendall(b"WHERE\n")
        assert secure.recv(100).decode().strip().endswith(server.addresses[1])
        secure.close()
