"""Certificates, contexts and the transport of TLS, without a server."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from linepool import cli
from linepool.errors import SetupError
from linepool.kernel.sockets import CHUNK, DONTWAIT
from linepool.settings import Settings, Workers
from linepool.tls.certificates import examined, warnings
from linepool.tls.contexts import Contexts
from linepool.worker.tls import Handshake, HandshakeError, TlsTransport
from tests.certificates import Authority

SETTINGS = Settings(workers=Workers(1, 1))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> str:
    return str(authority.certificate("server", "DNS:localhost", "IP:127.0.0.1"))


@pytest.fixture(scope="module")
def other(authority: Authority) -> str:
    return str(authority.certificate("other", "DNS:*.example.org"))


def client_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.path)
    return context


# -- files


def refused(**wanted: Any) -> str:
    """Return why TLS settings are refused."""
    with pytest.raises(SetupError) as error:
        Contexts().of(evolve(SETTINGS, **wanted))
    return str(error.value)


def test_each_mistake_with_a_file_is_one_sentence(pair, other, tmp_path):
    whole = Path(pair).read_text()
    certificate, key = tmp_path / "cert", tmp_path / "key"
    end = whole.index("-----BEGIN PRIVATE KEY")
    certificate.write_text(whole[:end])
    key.write_text(whole[end:])
    cert, tls_key = (str(certificate),), (str(key),)
    assert "cannot read /nowhere: No such file" in refused(tls_cert=("/nowhere",))
    assert "holds a private key and no certificate" in refused(tls_cert=tls_key)
    assert "give the file of the key as tls_key" in refused(tls_cert=cert)
    assert "holds a certificate and no private key" in refused(tls_cert=cert, tls_key=cert)
    assert "is not that of the certificate in" in refused(tls_cert=cert, tls_key=(other,))
    key.write_text(whole[end : end + 100] + "-----END PRIVATE KEY-----\n")
    assert "is the file complete?" in refused(tls_cert=cert, tls_key=tls_key)
    key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert "is encrypted, and nobody is asked" in refused(tls_cert=cert, tls_key=tls_key)
    key.write_bytes(ssl.PEM_cert_to_DER_cert(whole[:end]))
    assert "is in the format DER" in refused(tls_cert=tls_key)
    key.write_text("")
    assert "is empty" in refused(tls_cert=cert, tls_key=tls_key)
    assert "holds no certificate" in refused(tls_cert=(pair,), tls_ca="/etc/hostname")


def test_values_that_cannot_work_are_refused(pair):
    assert "OpenSSL refuses 'bogus'" in refused(tls_cert=(pair,), tls_ciphers="bogus")
    wrong = "ECDHE-RSA-AES128-GCM-SHA256"  # the key is not one of RSA
    assert "does tls_ciphers fit the key?" in refused(tls_cert=(pair,), tls_ciphers=wrong)
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"tls_key": (pair,)}, "tls_key has no effect without tls_cert"),
        ({"tls_cert": (pair, pair), "tls_key": (pair,)}, "tls_key names 1 files, tls_cert 2"),
        ({"tls_cert": (pair,), "tls_verify": "required"}, "needs tls_ca"),
        ({"tls_verify": "required"}, "tls_verify has no effect without tls_cert"),
    )
    for values, what in mistakes:
        with pytest.raises(SetupError, match=what):
            evolve(SETTINGS, **values)


def test_what_is_wrong_with_a_certificate_is_a_warning(authority, tmp_path, pair):
    tls = Contexts().of(evolve(SETTINGS, tls_cert=(pair,)))
    assert tls is not None
    (certificate,) = tls.certificates
    assert certificate.names == ("localhost", "127.0.0.1")
    days_left = 86400.0 * 2
    assert 0 < certificate.ends - time.time() < days_left + 60
    found = "\n".join(warnings(certificate, pair))
    assert "in 2 days" in found
    assert "chmod 600" in found  # as openssl has made the file here, everybody can read it
    (expired,) = warnings(certificate, "/nowhere", certificate.ends + 1)
    assert "expired on" in expired
    (early,) = [one for one in warnings(certificate, "/nowhere", 0.0) if "before" in one]
    assert "is not valid before" in early
    slow = "".join(warnings(evolve(certificate, rsa_bits=4096), "/nowhere", certificate.begins + 1))
    assert "RSA key of 4096 bits" in slow


def test_the_server_name_selects_the_certificate(authority, pair, other):
    tls = Contexts().of(evolve(SETTINGS, tls_cert=(pair, other), tls_alpn=("line",)))
    assert tls is not None
    context = client_context(authority)
    context.check_hostname = False
    context.set_alpn_protocols(["line"])
    for name, common_name in (
        ("localhost", "server"),
        ("a.example.org", "other"),
        ("A.EXAMPLE.ORG", "other"),
        ("a.b.example.org", "server"),
        ("unknown", "server"),
        (None, "server"),
    ):
        with Pair(tls.context, context, name) as found:
            subject = (found.client.getpeercert() or {})["subject"]
            assert subject == ((("commonName", common_name),),)
            assert found.transport.tls.server_name == (name or "").lower()
            assert found.transport.tls.alpn == "line"


def test_contexts_are_made_once(pair):
    contexts = Contexts()
    settings = evolve(SETTINGS, tls_cert=(pair,))
    assert contexts.of(settings) is contexts.of(evolve(settings, backlog=7))
    assert contexts.of(SETTINGS) is None


def test_the_command_check_names_the_certificates(pair, capsys):
    assert cli.main(["check", "--settings", "--tls-cert", pair]) == 0
    printed = capsys.readouterr()
    assert f"certificate {pair}: localhost 127.0.0.1, valid until" in printed.out
    assert "in 2 days" in printed.err
    assert cli.main(["check", "--settings", "--tls-cert", pair, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["certificates"]
    assert found["names"] == ["localhost", "127.0.0.1"]


# -- transport


class Pair:
    """A client in memory and the transport of the server, joined by sockets."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "localhost"
    ) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        handshake = Handshake(self.ours, server, 10.0)
        transport = None
        while transport is None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.send()
            transport = handshake.step()
            self.take()
        self.transport: TlsTransport = transport
        self.client.do_handshake()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.theirs.close()

    def send(self) -> None:
        self.theirs.send(self.outgoing.read())

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self.theirs.recv(65536, DONTWAIT):
                self.incoming.write(data)

    def said(self) -> bytes:
        """Return what the client has received."""
        self.take()
        got = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self.client.read(65536):
                got += part
        return got

    def read(self) -> bytes:
        return self.transport.recv(CHUNK, DONTWAIT)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def pair_of_sockets(authority, pair, request) -> Iterator[Pair]:
    tls = Contexts().of(evolve(SETTINGS, tls_cert=(pair,)))
    assert tls is not None
    client = client_context(authority)
    client.maximum_version = request.param
    with Pair(tls.context, client) as found:
        yield found


def test_bytes_cut_anywhere_are_the_same(pair_of_sockets: Pair):
    both = pair_of_sockets
    both.client.write(b"ADD 2 3\n")
    both.client.write(b"ADD 4 5\n")
    sealed, got = both.outgoing.read(), b""
    for byte in sealed:
        both.theirs.send(bytes([byte]))
        with contextlib.suppress(BlockingIOError):
            got += both.read()
    assert got == b"ADD 2 3\nADD 4 5\n"


def test_many_records_are_read_at_once(pair_of_sockets: Pair):
    both = pair_of_sockets
    for number in range(50):
        both.client.write(b"%d\n" % number)
    both.send()
    assert both.read() == b"".join(b"%d\n" % number for number in range(50))


def test_a_long_reply_waits_for_a_slow_client(pair_of_sockets: Pair):
    both = pair_of_sockets
    transport, long = both.transport, bytes(range(256)) * 16384
    transport.replies += [b"first", long]
    assert not transport.flush()
    transport.replies.append(b"last")
    assert not transport.flush()
    assert transport.unsent_bytes > len(long) // 2
    got = b""
    while not transport.send_unsent():
        got += both.said()
    got += both.said()
    assert got == b"first" + long + b"last"
    assert transport.unsent == b""


def test_the_end_is_seen_with_and_without_a_word(pair_of_sockets: Pair):
    both = pair_of_sockets
    both.client.write(b"last\n")
    with contextlib.suppress(ssl.SSLWantReadError):
        both.client.unwrap()
    both.send()
    assert both.read() == b"last\n"
    assert select.select([both.ours], [], [], 0)[0]  # so that epoll reports the end
    assert both.read() == b""
    both.transport.replies.append(b"bye")
    assert both.transport.flush()
    assert both.said() == b"bye"


def test_an_end_without_a_word_still_lets_replies_through(pair_of_sockets: Pair):
    both = pair_of_sockets
    both.theirs.shutdown(socket.SHUT_WR)
    assert both.read() == b""
    both.transport.replies.append(b"bye")
    assert both.transport.flush()
    assert both.said() == b"bye"


def test_nothing_says_the_end_of_a_connection_that_is_cut(pair_of_sockets: Pair):
    both = pair_of_sockets
    both.transport.abort()
    both.transport.end()
    with pytest.raises(BlockingIOError):
        both.theirs.recv(100, DONTWAIT)
    both.transport._is_cut = False
    both.transport.end()
    assert both.theirs.recv(100, DONTWAIT)


def test_bytes_that_are_not_tls_end_the_connection(pair_of_sockets: Pair):
    both = pair_of_sockets
    both.theirs.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        both.read()


def test_records_without_data_are_bounded(authority, pair):
    tls = Contexts().of(evolve(SETTINGS, tls_cert=(pair,)))
    assert tls is not None
    client = client_context(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with Pair(tls.context, client) as both:
        refused = 0
        for _ in range(10):
            both.theirs.send(b"\x17\x03\x03\x40\x10" + bytes(10_000))  # a record that does not end
            try:
                both.read()
            except BlockingIOError:
                refused += 1
            except ssl.SSLError:
                break
        assert refused < 10


def test_plain_text_is_no_handshake(pair):
    tls = Contexts().of(evolve(SETTINGS, tls_cert=(pair,)))
    assert tls is not None
    for data, why in ((b"GET / HTTP/1.1\r\n", "plain text"), (b"", "the client left")):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            handshake = Handshake(ours, tls.context, 10.0)
            assert handshake.step() is None
            theirs.send(data)
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(HandshakeError, match=why):
                handshake.step()


def test_a_certificate_is_examined_by_a_handshake(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(SetupError, match=r"a client of TLS 1\.\d cannot connect"):
        examined(context, pair, ssl.TLSVersion.TLSv1_2)
