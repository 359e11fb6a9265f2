"""TLS in the workers, as clients see it: Python's ssl, and openssl s_client."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import linepool
from tests.certificates import Authority
from tests.conftest import Launch
from tests.servers import TIMEOUT, ServerProcess


class Files:
    """The certificates of these tests."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.server = self.authority.certificate("server", "DNS:localhost", "IP:127.0.0.1")
        self.other = self.authority.certificate("other", "DNS:*.example.org")
        self.client = self.authority.certificate("alice", "email:alice@example.org")
        self.stranger = Authority(directory, "stranger").certificate("mallory")

    @property
    def options(self) -> tuple[str, ...]:
        """Options of a server with TLS."""
        return ("--tls-cert", str(self.server))

    def context(self, client: Path | None = None, **more: Any) -> ssl.SSLContext:
        """Return the context of a client."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if client is not None:
            context.load_cert_chain(client)
        for name, value in more.items():
            setattr(context, name, value)
        return context

    def connect(
        self, server: ServerProcess, context: ssl.SSLContext | None = None, name: str = "localhost"
    ) -> ssl.SSLSocket:
        """Return a connection of a client, after its handshake."""
        sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        return (context or self.context()).wrap_socket(sock, server_hostname=name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["shared", "dispatch", "accept"])
def server(
    files: Files, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ServerProcess]:
    """Run a server that asks for client certificates, in each scheme."""
    options = (
        *files.options,
        *("--tls-ca", str(files.authority.path), "--tls-verify", "optional"),
        *("--tls-alpn", "line,other", "--workers", "2", "--kill-grace", "0.1"),
    )
    with ServerProcess(
        tmp_path_factory.mktemp("server"), "encrypted.py", *options, scheme=request.param
    ) as server:
        yield server
        assert server.stop() == 0, server.text


def ask(client: ssl.SSLSocket, line: str) -> str:
    client.sendall(line.encode() + b"\n")
    return reply(client)


def ask_once(files: Files, server: ServerProcess, context: ssl.SSLContext) -> str:
    with files.connect(server, context) as client:
        return ask(client, "ADD 2 3")


def reply(client: ssl.SSLSocket, lines: int = 1) -> str:
    data = b""
    while data.count(b"\n") < lines:
        chunk = client.recv(65536)
        if not chunk:
            break
        data += chunk
    return data.decode().rstrip("\r\n")


def rest(client: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_each_version_is_served(server, files: Files, version):
    context = files.context(maximum_version=version)
    context.set_alpn_protocols(["unknown", "other"])
    with files.connect(server, context) as client:
        assert ask(client, "ADD 2 3") == "5"
        known = [ask(client, f"TLS {name}") for name in ("version", "server_name", "alpn")]
        assert known == [client.version(), "localhost", "other"]
        assert [ask(client, f"REMEMBER {word}") for word in ("a", "b")] == ["-", "a"]


def test_replies_of_every_kind_are_encrypted(server, files: Files):
    with files.connect(server) as client:
        client.sendall(b"ADD 1 1\n" * 1000)
        assert reply(client, 1000) == "\n".join(["2"] * 1000)
    with files.connect(server) as client:
        assert ask(client, "FILL 3000000") == "x" * 3_000_000
        client.sendall(b"PUT 200000\n" + b"y" * 200_000 + b"\n")
        assert reply(client) == "200000"
        client.sendall(b"COUNT 3\nPUSH hello\nQUIT\n")
        assert rest(client) == b"1\n2\n3\nEND\nhello\npushed\nOK\n"


def test_the_end_of_a_connection_is_not_a_cut(server, files: Files):
    with files.connect(server) as client:
        client.sendall(b"QUIT\n")
        assert rest(client) == b"OK\n"
        client.unwrap()  # else SSLEOFError


@pytest.mark.parametrize("says_so", [True, False])
def test_a_client_that_ends_its_side_gets_all_replies(server, files: Files, says_so):
    with server.connect() as peer:
        client = InMemory(files, peer.socket)
        client.tls.write(b"NAP 0.1\nADD 2 3\n")
        if says_so:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.unwrap()
            client.send()
        else:
            client.send()
            peer.socket.shutdown(socket.SHUT_WR)  # the end of TCP alone, as ncat sends it
        assert client.receive() == b"awake\n5\n"


class InMemory:
    """A client whose TLS works on memory, so that the test says what is sent when."""

    def __init__(self, files: Files, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = files.context()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send()
                self.incoming.write(sock.recv(65536))
            else:
                return  # its last bytes are not sent

    def send(self) -> None:
        self.sock.sendall(self.outgoing.read())

    def receive(self, lines: int = -1) -> bytes:
        """Return that many lines, or all to the end of the connection."""
        got = b""
        while got.count(b"\n") != lines:
            chunk = self.sock.recv(65536)
            self.incoming.write(chunk)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while part := self.tls.read(65536):
                    got += part
            if not chunk:
                break
        return got


def test_what_comes_with_the_end_of_the_handshake_is_served_at_once(server, files: Files):
    with server.connect() as peer:
        client = InMemory(files, peer.socket)
        for number in range(50):
            client.tls.write(b"ADD %d 1\n" % number)
        client.send()
        assert client.receive(50) == b"".join(b"%d\n" % (number + 1) for number in range(50))


def test_a_verified_client_certificate_is_told_to_the_handler(server, files: Files):
    with files.connect(server, files.context(files.client)) as client:
        told = [ask(client, f"TLS {name}") for name in ("common_name", "subject", "names")]
        assert told == ["alice", "CN=alice", "('email:alice@example.org',)"]
        assert len(ask(client, "TLS fingerprint")) == 64
    with files.connect(server) as client:
        assert ask(client, "TLS common_name") == ""


def test_a_client_certificate_of_a_stranger_is_refused(server, files: Files):
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        ask_once(files, server, files.context(files.stranger))  # TLS 1.3: it learns when it reads


def test_plain_text_on_a_port_with_tls_is_told_so(server, files: Files):
    before = server.status()["counters"]["handshakes_failed"]
    said = b"CLIENT_ERROR this port is for TLS: connect with TLS, as to tls://HOST:PORT\r\n"
    assert server.converse(b"ADD 2 3\nQUIT\n") == said
    assert server.status()["counters"]["handshakes_failed"] == before + 1
    for stranger in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"\x80\x01\x02",
    ):
        assert server.converse(stranger) == b""
    with (
        linepool.Client(f"127.0.0.1:{server.port}") as client,
        pytest.raises(linepool.ClientError, match="connect with TLS, as to tls://"),
    ):
        client.call("add", 2, 3)


def test_openssl_is_served_and_cannot_renegotiate(server, files: Files):
    command = ("openssl", "s_client", "-connect", server.address, "-tls1_2", "-verify_return_error")
    with subprocess.Popen(
        [*command, "-CAfile", str(files.authority.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"ADD 2 3\n")
        client.stdin.flush()
        output = b""
        while b"\n5\n" not in output:
            output += os.read(client.stdout.fileno(), 65536)
        rest, _ = client.communicate(b"R\n", TIMEOUT)  # such a line begins a renegotiation
    assert b"no renegotiation" in rest


def test_an_overdue_request_gets_its_error_encrypted(server, files: Files):
    with files.connect(server) as client:
        assert ask(client, "DOZE").startswith("SERVER_ERROR")
        assert ask(client, "ADD 2 3") == "5"


@pytest.mark.linux("its connection ends without a reset")
def test_the_client_of_a_killed_worker_is_reset_and_never_sent_plain_text(server, files: Files):
    with files.connect(server) as client:
        client.sendall(b"HANG\n")
        sock = socket.socket(fileno=client.detach())
    with sock:
        sock.settimeout(TIMEOUT)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := sock.recv(65536):
                received += chunk
            pytest.fail("the stream ended as if that were regular")
        assert received[:1] in (b"", b"\x16", b"\x17")  # tickets, if they were not read yet
    with files.connect(server) as client:
        assert ask(client, "ADD 2 3") == "5"


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_in_any_worker(launch: Launch, files: Files, scheme: str, version):
    server = launch("encrypted.py", *files.options, "--workers", "4")
    context = files.context(minimum_version=version, maximum_version=version)
    with files.connect(server, context) as client:
        assert ask(client, "ADD 2 3") == "5"  # ahead of it came the ticket
        session = client.session
    pids = set()
    with contextlib.ExitStack() as stack:
        for _ in range(4 if scheme == "accept" else 16):
            sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
            tls = context.wrap_socket(sock, server_hostname="localhost", session=session)
            client = stack.enter_context(tls)
            pids.add(ask(client, "PID"))
            assert client.session_reused
    assert len(pids) == 4
    assert server.stop() == 0


# -- handshakes that are slow, or never end


def test_slow_handshakes_hold_no_worker(launch: Launch, files: Files):
    options = ("--tls-handshake-timeout", "0.5", "--tls-max-handshakes", "10", "--workers", "1")
    server = launch("encrypted.py", *files.options, *options)
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
            for _ in range(30)
        ]
        for one in slow[10:]:
            one.sendall(b"\x16\x03\x01\x02\x00")  # the head of a record, and no more
        with files.connect(server) as client:
            assert ask(client, "ADD 2 3") == "5"
            for one in slow:  # of too many the oldest is closed, and each in time
                with contextlib.suppress(ConnectionResetError):
                    assert one.recv(1) == b""
            assert ask(client, "ADD 2 3") == "5"
    assert "TLS handshake failed" in server.wait_for("TLS handshake failed")
    assert server.status()["counters"]["handshakes_failed"] >= 20
    assert server.stop() == 0


@pytest.mark.scheme("shared", "dispatch")
def test_connections_are_spread_over_the_workers_where_they_will_stay(launch: Launch, files: Files):
    server = launch("encrypted.py", *files.options, "--workers", "4")
    context = files.context()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(files.connect(server, context)) for _ in range(32)]
        held = collections.Counter(ask(client, "PID") for client in clients)
    assert len(held) == 4
    assert max(held.values()) <= 16
    assert server.stop() == 0


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_starttls_begins_with_an_empty_session(launch: Launch, files: Files):
    server = launch("encrypted.py", *files.options, "--starttls", "on", "--workers", "2")
    with server.connect() as peer:
        assert [peer.ask(f"REMEMBER {word}") for word in ("a", "b")] == ["-", "a"]
        assert peer.ask("STARTTLS") == "go"
        sock = socket.socket(fileno=peer.socket.detach())
        sock.settimeout(TIMEOUT)
    with files.context().wrap_socket(sock, server_hostname="localhost") as client:
        assert ask(client, "REMEMBER c") == "-"
        assert ask(client, "TLS version") == "TLSv1.3"
        assert ask(client, "STARTTLS").startswith(
            "CLIENT_ERROR the connection is encrypted already"
        )
    # What an attacker puts behind the command is not run, and TLS does not begin.
    injected = server.converse(b"STARTTLS\nREMEMBER evil\n")
    refused = b"CLIENT_ERROR nothing may follow this command before TLS has begun\n"
    assert injected == refused
    assert server.converse(b"STARTTLS\n")[:3] == b"go\n"
    assert server.stop() == 0


# -- reload


def test_a_reload_takes_new_certificates_and_refuses_broken_ones(
    launch: Launch, files: Files, tmp_path
):
    path = tmp_path / "server.pem"
    path.write_bytes(files.server.read_bytes())
    server = launch("encrypted.py", "--tls-cert", str(path), "--workers", "2")

    def serial() -> object:
        with files.connect(server) as client:
            assert ask(client, "ADD 2 3") == "5"
            return (client.getpeercert() or {})["serialNumber"]

    first = serial()
    with files.connect(server) as old:
        renewed = files.authority.certificate("renewed", "DNS:localhost")
        path.write_bytes(renewed.read_bytes())
        assert server.order("RELOAD").startswith("generation 2")
        assert serial() != first
        assert ask(old, "ADD 2 3") == "5"
        second = serial()
        path.write_bytes(renewed.read_bytes()[:200])
        server.send(signal.SIGHUP)
        assert "tls_cert" in server.wait_for("reload failed")
        assert serial() == second
        assert ask(old, "ADD 2 3") == "5"
