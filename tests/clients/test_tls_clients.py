"""Clients over TLS: those of Redis and memcached with the examples, openssl s_client, ncat and socat."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from pymemcache.client.base import Client

import linepool
from tests.certificates import Authority
from tests.clients.harness import TIMEOUT, output, redis_client
from tests.servers import EXAMPLES, HANDLERS, run_server


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ca")
    authority = Authority(directory)
    server = authority.certificate("localhost", "DNS:localhost", "IP:127.0.0.1")
    return str(authority.path), str(server), str(authority.certificate("client"))


@pytest.fixture(scope="module")
def encrypted(files, tmp_path_factory):
    """Run a server in one worker that asks for a client certificate."""
    ca, server, _ = files
    options = ("--workers", "1", "--tls-cert", server, "--tls-ca", ca, "--tls-verify", "optional")
    directory = tmp_path_factory.mktemp("server")
    with run_server(HANDLERS / "encrypted.py", directory, *options) as running:
        yield running


def test_redis_clients_over_tls(files, tmp_path):
    ca, server, client = files
    options = ("--workers", "2", "--tls-cert", server, "--tls-ca", ca)
    with run_server(EXAMPLES / "redis" / "redis_server.py", tmp_path, *options) as running:
        tls = ("--tls", "--cacert", ca, "--cert", client, "--key", client.replace(".pem", ".key"))
        where = ("-h", "127.0.0.1", "-p", running.port)
        assert output("redis-cli", *where, *tls, "SET", "a", "b").strip() == "OK"
        said = output(
            "redis-benchmark", *where, *tls, *["-t", "get,lpush", "-n", "2000", "-c", "20", "-q"]
        )
        assert said.count("requests per second") == 2
        more = {"ssl": True, "ssl_ca_certs": ca, "ssl_certfile": client, "ssl_keyfile": client}
        with redis_client(running, **more) as redis:
            assert redis.get("a") == "b"
            with redis.pipeline() as pipe:
                for number in range(100):
                    pipe.set(f"k{number}", "v" * 10_000)
                assert pipe.execute() == [True] * 100
            with redis.pubsub() as pubsub:
                pubsub.subscribe("news")
                assert pubsub.get_message(timeout=20)["type"] == "subscribe"
                assert redis.publish("news", "hello") == 1
                assert pubsub.get_message(timeout=20)["data"] == "hello"


def test_a_memcached_client_over_tls(files, tmp_path):
    ca, server, _ = files
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    target = EXAMPLES / "memcached" / "memcached.py"
    with run_server(target, tmp_path, "--workers", "2", "--tls-cert", server) as running:
        client = Client(("localhost", running.port), tls_context=context, timeout=20)
        client.set("a", b"x" * 500_000, noreply=False)
        assert client.get("a") == b"x" * 500_000
        client.close()


def test_linepools_own_client_over_tls(files, tmp_path):
    ca, server, client = files
    options = ("--workers", "2", "--tls-cert", server, "--tls-ca", ca)
    with run_server(EXAMPLES / "sums.py", tmp_path, *options) as running:
        where = f"tls://localhost:{running.port}"
        more = ("--tls-ca", ca, "--tls-cert", client)
        program = str(Path(sys.executable).parent / "linepool")
        assert output(program, "call", where, *more, "add", "2", "3").strip() == "5"


# -- programs that know TLS and no protocol


def said(lines: bytes, *command: str) -> bytes:
    """Return what a program prints that sends some lines, and then ends its side."""
    done = subprocess.run(
        command,
        input=lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT,
        check=False,
    )
    return done.stdout


def s_client(server, files, *more: str) -> tuple[str, ...]:
    """Return the command of openssl's client, which verifies the server."""
    command = ("openssl", "s_client", "-connect", server.address, "-CAfile", files[0])
    return (*command, "-verify_return_error", *more)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_served_with_and_without_a_certificate(encrypted, files, version):
    quiet = s_client(encrypted, files, "-quiet", version)
    lines = b"ADD 2 3\nTLS common_name\nTLS version\nQUIT\n"
    told = f"TLSv1.{version[-1]}".encode()
    assert said(lines, *quiet).endswith(b"5\n\n%b\nOK\n" % told)
    assert said(lines, *quiet, "-cert", files[2]).endswith(b"5\nclient\n%b\nOK\n" % told)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_with_a_certificate_of_a_stranger_is_refused(encrypted, files, version, tmp_path):
    stranger = str(Authority(tmp_path, "stranger").certificate("mallory"))
    output = said(
        b"ADD 2 3\nQUIT\n", *s_client(encrypted, files, "-ign_eof", version, "-cert", stranger)
    )
    assert b"alert unknown ca" in output
    assert b"\n5\n" not in output


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes_a_session_from_a_file(encrypted, files, version, tmp_path):
    file = str(tmp_path / "session")
    command = s_client(encrypted, files, version, "-ign_eof")
    assert b"\nNew, TLS" in said(b"ADD 2 3\nQUIT\n", *command, "-sess_out", file)
    assert b"\nReused, TLS" in said(b"ADD 2 3\nQUIT\n", *command, "-sess_in", file)


@pytest.mark.parametrize(
    "unwanted",
    [
        ("-tls1_3", "-groups", "ffdhe2048"),
        ("-tls1_3", "-groups", "ffdhe8192"),
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"),
        ("-tls1_1", "-cipher", "ALL@SECLEVEL=0"),
    ],
    ids=" ".join,
)
def test_what_is_costly_or_obsolete_is_not_agreed_on(encrypted, files, unwanted):
    output = said(b"ADD 2 3\nQUIT\n", *s_client(encrypted, files, "-ign_eof", *unwanted))
    assert b"alert" in output
    assert b"\n5\n" not in output


@pytest.mark.parametrize("program", ["ncat", "socat"])
def test_a_program_that_ends_its_side_gets_all_replies(encrypted, files, program):
    """The one by the end of TCP alone, the other by the message of TLS."""
    where = f"OPENSSL:{encrypted.address},cafile={files[0]},commonname=localhost"
    command = {
        "ncat": ("ncat", "--ssl", "127.0.0.1", str(encrypted.port)),
        "socat": ("socat", f"-t{TIMEOUT:.0f}", "-", where),
    }
    assert said(b"NAP 0.2\nADD 2 3\n", *command[program]) == b"awake\n5\n"


class KeyUpdates:
    """A client that has the keys updated again and again, which Python's ssl cannot."""

    def __init__(self, port: int) -> None:
        openssl = ctypes.CDLL(_ssl.__file__)  # what it is linked with
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(openssl, name).restype = ctypes.c_void_p
        method = ctypes.c_void_p(openssl.TLS_client_method())
        context = ctypes.c_void_p(openssl.SSL_CTX_new(method))
        self._ssl = ctypes.c_void_p(openssl.SSL_new(context))
        self._socket = socket.create_connection(("127.0.0.1", port))  # OpenSSL waits by itself
        openssl.SSL_set_fd(self._ssl, self._socket.fileno())
        assert openssl.SSL_connect(self._ssl) == 1
        self._openssl = openssl

    def send(self) -> bool:
        """Send an update that wants one in return; return whether the connection is still there."""
        update, shake = self._openssl.SSL_key_update, self._openssl.SSL_do_handshake
        return bool(update(self._ssl, 1) == 1 and shake(self._ssl) == 1)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def test_updates_of_keys_without_end_hold_up_nobody_else(encrypted, files):
    served = 0
    with (
        contextlib.closing(KeyUpdates(encrypted.port)) as flood,
        linepool.Client(f"tls://localhost:{encrypted.port}", tls_ca=files[0]) as client,
    ):
        while flood.send():  # until the server has had enough
            assert client.call("add", served, 1) == served + 1
            served += 1
            for _ in range(100):
                flood.send()
        assert client.call("add", 2, 3) == 5
    assert served
