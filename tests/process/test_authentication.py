"""Clients that have to log in, at real servers: in all schemes, with and without the compiled core."""

from __future__ import annotations

import signal
import socket
import ssl

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from linepool import App, JsonRpc, Memcache, Resp, Secret, Session, body
from linepool.testing import Peer, serve
from tests.certificates import Authority
from tests.conftest import Launch
from tests.process.connections import PARKING_SCHEMES, clients, until_parked
from tests.servers import TIMEOUT

REQUIRED = "CLIENT_ERROR authentication required: AUTH USER PASSWORD"
FAILED = "CLIENT_ERROR authentication failed"
both = pytest.mark.both
in_all_schemes = pytest.mark.scheme("shared", "dispatch", "accept")


def ask(peer: Peer, *lines: str) -> list[str]:
    """Send lines in one piece, and return as many lines of replies."""
    peer.send("".join(f"{line}\n" for line in lines).encode())
    return [peer.line() for _ in lines]


@both
@in_all_schemes
def test_only_a_client_that_has_logged_in_is_served(launch: Launch):
    server = launch("vault.py", "--workers", "2")
    with server.connect() as peer:
        assert ask(peer, "ADD 1 2", "NOPE", "AUTH ann wrong", "ADD 1 2") == [
            *(REQUIRED, REQUIRED, FAILED, REQUIRED),
        ]
        assert ask(peer, "PID", "AUTH ann right", "ADD 1 2", "WHOAMI")[1:] == ["OK", "3", "ann"]
        for _ in range(3):  # by now the compiled core serves it
            assert ask(peer, "ADD 1 2", "WHOAMI", "ADD 3 4") == ["3", "ann", "7"]
        assert ask(peer, "ADD 1 2", "LOG_OUT", "ADD 1 2", "AUTH ann right", "ADD 1 2") == [
            *("3", "OK", REQUIRED, "OK", "3"),
        ]
        assert ask(peer, "ADD 1 2", "LOG_OUT") == ["3", "OK"]
        assert ask(peer, "ADD 1 2", "WHOAMI") == [REQUIRED, REQUIRED]
        assert ask(peer, "AUTH bob right", "WHOAMI") == ["OK", "bob"]
        with server.connect() as other:
            assert ask(other, "ADD 1 2", "QUIT") == [REQUIRED, "OK"]
            assert other.line() == ""
        assert ask(peer, "WHOAMI") == ["bob"]


@both
@in_all_schemes
def test_ten_wrong_passwords_end_a_connection_wherever_it_is_served(launch: Launch):
    server = launch("vault.py", "--workers", "2")
    with server.connect() as peer:
        assert [ask(peer, f"AUTH ann {number}") for number in range(10)] == [[FAILED]] * 10
        assert peer.line() == ""
    server.wait_for("log-in refused peer=127.0.0.1")
    server.wait_for("user='ann' failures=10")


@both
@pytest.mark.scheme(*PARKING_SCHEMES)
def test_a_connection_that_moves_stays_as_it_is(launch: Launch):
    server = launch("vault.py", "--workers", "2", "--park-after", "0.005")
    with clients(server, 20) as peers:
        for number, peer in enumerate(peers[:10]):
            assert ask(peer, f"AUTH u{number} right", "ADD 1 2") == ["OK", "3"]
        assert [
            ask(peer, "ADD 1 2", f"AUTH x {number}") for number, peer in enumerate(peers[10:])
        ] == [[REQUIRED, FAILED]] * 10
        until_parked(server, 20)
        before = set(server.pids())
        server.send(signal.SIGHUP)
        server.until(lambda _: not before & set(server.pids()))
        for number, peer in enumerate(peers[:10]):
            assert ask(peer, "ADD 1 2", "WHOAMI") == ["3", f"u{number}"]
        for peer in peers[10:]:
            assert ask(peer, "ADD 1 2") == [REQUIRED]


@both
@pytest.mark.usefixtures("implementation")
def test_a_kill_logs_nobody_else_out(launch: Launch):
    server = launch("vault.py", "--workers", "1", "--request-timeout", "0.3", "--kill-grace", "0.1")
    with server.connect() as peer, server.connect() as other, server.connect() as stranger:
        worker = ask(peer, "PID", "AUTH ann right")[0]
        assert ask(other, "AUTH bob right", "ADD 1 2") == ["OK", "3"]
        assert ask(stranger, "ADD 1 2") == [REQUIRED]
        peer.send(b"HANG\n")
        assert peer.line().startswith("SERVER_ERROR the request was ended")
        assert ask(other, "PID", "WHOAMI")[1] == "bob"
        assert ask(other, "PID") != [worker]
        assert ask(stranger, "WHOAMI") == [REQUIRED]


def test_a_log_in_that_takes_too_long_is_ended_as_a_request(launch: Launch):
    server = launch(
        "vault.py", "--workers", "1", "--request-timeout", "0.3", "--log-requests", "line"
    )
    with server.connect() as peer:
        assert ask(peer, "AUTH hang hush")[0].startswith("SERVER_ERROR the request took longer")
        assert ask(peer, "WHOAMI") == [REQUIRED]
    assert "hush" not in server.wait_for("request overdue command=AUTH")
    assert server.stop() == 0
    assert "hush" not in server.text


def vault(protocol) -> App:
    app = App("vault", protocol=protocol)

    @app.authenticate
    def check(user: str, password: Secret) -> bool:
        return (user, password) == ("ann", "right")

    @app.handler
    def whoami(session: Session) -> str:
        return str(session.user)

    return app


@both
@pytest.mark.usefixtures("implementation")
def test_a_client_of_redis_logs_in():
    app = vault(Resp())
    app.handler("GET")(lambda key: key.upper())
    with serve(app, workers=1) as server:
        host, _, port = server.address.rpartition(":")

        def client(**options) -> redis.Redis:
            once = Retry(NoBackoff(), 0)  # else a failed login is tried again, after seconds
            return redis.Redis(host, int(port), decode_responses=True, retry=once, **options)

        for protocol in (2, 3):
            with client(username="ann", password="right", protocol=protocol) as good:
                assert [good.get("a") for _ in range(3)] == ["A"] * 3
                assert good.execute_command("WHOAMI") == "ann"
            for options in ({"username": "ann", "password": "wrong"}, {}):
                with (
                    client(protocol=protocol, **options) as bad,
                    pytest.raises(redis.AuthenticationError),
                ):
                    bad.get("a")


@both
@pytest.mark.usefixtures("implementation")
def test_clients_of_memcached_and_json_rpc_log_in():
    memcache = vault(Memcache())

    @memcache.handler("set")
    def set_(key: str, flags: int, exptime: int, size: int, data: bytes = body("size")) -> bool:
        return key != "x"

    with serve(memcache, workers=1) as server, server.connect() as peer:
        store = "set x 0 0 9\r\nann %s"
        assert ask(peer, "whoami", "get a") == ["CLIENT_ERROR unauthenticated"] * 2
        peer.send((store % "wrong" + "\r\n" + store % "right" + "\r\n").encode())
        assert [peer.line(), peer.line()] == ["CLIENT_ERROR authentication failure", "STORED"]
        for _ in range(3):
            assert peer.ask("whoami") == "ann"
            peer.send((store % "right" + "\r\n").encode())
            assert peer.line() == "NOT_STORED"
    with serve(vault(JsonRpc()), workers=1) as server, server.connect() as peer:
        call = '{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}'
        assert '"code":-32001' in peer.ask(call % ("whoami", "[]"))
        assert '"result":true' in peer.ask(call % ("rpc.authenticate", '["ann","right"]'))
        assert '"result":"ann"' in peer.ask(call % ("whoami", "[]"))


@both
def test_a_log_in_before_tls_is_forgotten_and_one_with_tls_is_served(launch: Launch, tmp_path):
    authority = Authority(tmp_path)
    certificate = authority.certificate("server", "DNS:localhost")
    server = launch(
        "vault.py", "--tls-cert", str(certificate), "--starttls", "on", "--workers", "1"
    )
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with server.connect() as peer:
        assert ask(peer, "AUTH ann right", "WHOAMI") == ["OK", "ann"]
        assert ask(peer, "STARTTLS") == ["go"]
        sock = socket.socket(fileno=peer.socket.detach())
        sock.settimeout(TIMEOUT)
    with (
        context.wrap_socket(sock, server_hostname="localhost") as tls,
        tls.makefile("rb") as stream,
    ):
        for line, reply in [
            ("WHOAMI", REQUIRED),
            ("AUTH bob right", "OK"),
            *[("ADD 1 2", "3"), ("WHOAMI", "bob")] * 2,
            ("LOG_OUT", "OK"),
            ("ADD 1 2", REQUIRED),
        ]:
            tls.sendall(line.encode() + b"\r\n")
            assert stream.readline().decode().rstrip() == reply


@both
@pytest.mark.usefixtures("implementation")
def test_of_two_apps_one_may_want_a_log_in():
    apps = [App("open"), vault(None)]
    for app in apps:
        app.handler("ADD")(add)
    for together in (apps, apps[::-1]):
        with serve(*together, workers=1) as server:
            at = {
                app.name: address for app, address in zip(together, server.addresses, strict=True)
            }
            with Peer(at["open"]) as free, Peer(at["vault"]) as locked:
                for _ in range(3):
                    assert ask(free, "ADD 1 2", "ADD 3 4") == ["3", "7"]
                    assert ask(locked, "ADD 1 2", "ADD 3 4") == [REQUIRED] * 2
                assert ask(locked, "AUTH ann right") == ["OK"]
                for _ in range(3):
                    assert ask(locked, "ADD 1 2", "WHOAMI") == ["3", "ann"]
                    assert ask(free, "ADD 1 2", "AUTH a b") == [
                        *("3", "ERROR unknown command 'AUTH'. HELP lists the commands."),
                    ]


def add(a: int, b: int) -> int:
    return a + b
