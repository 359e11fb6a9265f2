"""HAProxy in front of a server: both versions of its PROXY header, checks, and TLS on either side of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.servers import TIMEOUT

_PROGRAM = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
_DEFAULTS = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
_PLAIN = """
listen one
    bind 127.0.0.1:{one}
    server pool 127.0.0.1:{port} send-proxy check inter 100
listen two
    bind 127.0.0.1:{two}
    unique-id-format %ci-shop
    option tcp-check
    server pool 127.0.0.1:{port} send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 100
"""
_TLS = """
listen one
    bind 127.0.0.1:{one}
    server pool 127.0.0.1:{sealed} send-proxy-v2
listen two
    bind 127.0.0.1:{two} ssl crt {directory}/proxy.pem ca-file {directory}/ca.pem verify optional alpn lines
    unique-id-format %ci-shop
    server pool 127.0.0.1:{port} send-proxy-v2-ssl-cn proxy-v2-options unique-id,authority,ssl-cipher,crc32c
"""


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def _haproxy(directory: Path, listeners: str, **ports: int) -> Iterator[tuple[int, int]]:
    """Run HAProxy in front of some ports; give the ports of its two listeners."""
    assert _PROGRAM, "haproxy is not installed"
    one, two = _free_port(), _free_port()
    config = directory / "haproxy.cfg"
    text = _DEFAULTS + listeners.format(one=one, two=two, directory=directory, **ports)
    config.write_text(text)
    with subprocess.Popen([_PROGRAM, "-q", "-db", "-f", str(config)]) as process:
        try:
            yield one, two
        finally:
            process.terminate()


def _connect(port: int) -> Peer:
    give_up_at = time.monotonic() + TIMEOUT
    while True:
        try:
            return Peer(f"127.0.0.1:{port}")
        except ConnectionRefusedError:  # it is starting
            assert time.monotonic() < give_up_at
            time.sleep(0.01)


@pytest.mark.scheme("shared", "dispatch")
def test_clients_behind_haproxy_are_known_by_their_addresses(tmp_path, launch: Launch, scheme):
    server = launch("proxied.py", "--workers", "2", "--proxy-from", "127.0.0.1")
    with _haproxy(tmp_path, _PLAIN, port=server.port) as ports:
        for port, unique_id in zip(ports, ["-", "127.0.0.1-shop"], strict=True):
            with _connect(port) as peer:
                client = f"127.0.0.1:{peer.socket.getsockname()[1]}"
                found, via, destination, unique = peer.ask("WHO").split()
                assert (found, destination) == (client, f"127.0.0.1:{port}")
                assert via != client
                assert unique == unique_id
    assert server.stop() == 0
    assert "rejected" not in server.text


@pytest.mark.scheme("shared")
def test_tls_may_end_here_or_at_haproxy(tmp_path, launch: Launch, scheme):
    authority = Authority(tmp_path)
    for name in "server", "proxy":
        authority.certificate(name, "DNS:shop.example")
    alice = authority.certificate("alice")
    (tmp_path / "linepool.toml").write_text(
        'proxy_from = "127.0.0.1"\n'
        '[[listener]]\nbind = "127.0.0.1:0"\n'
        f'[[listener]]\nbind = "127.0.0.1:0"\nname = "sealed"\ntls_cert = "{tmp_path}/server.pem"\n'
    )
    server = launch("proxied.py", "--workers", "2", bind=())
    port, sealed = (int(one.partition(" ")[0].rpartition(":")[2]) for one in server.addresses)

    with _haproxy(tmp_path, _TLS, port=port, sealed=sealed) as (through, offloads):
        client, facts = _facts_over_tls(through, authority)
        assert facts["peer"] == client
        assert facts["listener"] == f"127.0.0.1:{sealed}"
        assert facts["tls.version"] == "TLSv1.3"
        assert facts["tls.server_name"] == "shop.example"
        assert facts["proxy.destination"] == f"127.0.0.1:{through}"
        assert "proxy.tls_version" not in facts

        client, facts = _facts_over_tls(offloads, authority)
        assert facts["peer"] == client
        assert facts["listener"] == f"127.0.0.1:{port}"
        assert facts["proxy.destination"] == f"127.0.0.1:{offloads}"
        assert facts["proxy.unique_id"] == "127.0.0.1-shop"
        assert facts["proxy.authority"] == "shop.example"
        assert facts["proxy.alpn"] == "lines"
        assert facts["proxy.tls_version"] == "TLSv1.3"
        assert facts["proxy.tls_cipher"].startswith("TLS_")
        assert "proxy.client_name" not in facts
        assert "tls.version" not in facts

        _, facts = _facts_over_tls(offloads, authority, alice)
        assert facts["proxy.client_name"] == "alice"
    assert server.stop() == 0
    assert "rejected" not in server.text


def _facts_over_tls(
    port: int, authority: Authority, certificate: Path | None = None
) -> tuple[str, dict[str, str]]:
    """Return a client's own address, and what the app knows of it."""
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["lines"])
    if certificate is not None:
        context.load_cert_chain(certificate)
    with _connect(port) as peer, peer.socket.dup() as sock:
        client = f"127.0.0.1:{sock.getsockname()[1]}"
        with context.wrap_socket(sock, server_hostname="shop.example") as tls:
            tls.sendall(b"FACTS\n")
            data = chunk = tls.recv(4096)
            while chunk and not data.endswith((b"END\r\n", b"END\n")):
                chunk = tls.recv(4096)
                data += chunk
    lines = data.decode().splitlines()[:-1]
    return client, dict(line.split("=", 1) for line in lines)
