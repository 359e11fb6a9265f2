"""What comes through TLS is served by the compiled core, as pure Python does it."""

import contextlib
import socket
import ssl
from unittest import mock

import pytest

from linepool import App, Line, Memcache, Reply, Resp, Session, core

if not core.compiled:
    pytest.skip(f"there is no compiled core: {core.why_pure}", allow_module_level=True)

from linepool.ipc.board import SEALED
from linepool.worker.connection import Connection
from linepool.worker.tls import Handshake
from tests.certificates import Authority
from tests.unit.core_cases import make_app
from tests.unit.core_twins import Twin, Twins, twins_of

DIALOGUES = [
    [b"ADD 1 2\n"],
    [b"ADD 1 2\n", b"ADD 3 4\nECHO x\r\nFAIL value\nCOUNT\n", b"COUNT\n"],
    [b'ECHO "a b"\nADD', b" 4 5\n", b"COUNT\nCOUNT"],
    [b"ADD 1 2\n", b"ADD 1 2\nQUIT\nADD 1 2\n"],
    [b"ADD 1 2\n", b"ADD 1 2\n" * 20_000],
    [b"ADD 1 2\n", b"ECHO " + b"x" * 8000 + b"\n"] * 20,
    [b"ADD 1 2\n", b"BIG 70000\nCOUNT\nBIG 70000\n" * 20],
    [b"ADD 1 2\n", b"GEN 300\r\nCOUNT\nGEN 2\nCOUNT\n" * 5],
    [b"ADD 1 2\n", b"BIG 3000000\nCOUNT\n", b"COUNT\n"],
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca")).certificate("localhost")


@pytest.fixture
def encrypted(certificate):
    """Return the class of a twin whose client speaks TLS."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    server.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    class TlsTwin(Twin):
        def transport(self, ours: socket.socket):
            self._incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls, self._outgoing = context.wrap_bio(self._incoming, outgoing), outgoing
            handshake, transport = Handshake(ours, server, 10.0), None
            while transport is None:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self._tls.do_handshake()
                self.client.send(self._outgoing.read())
                transport = handshake.step()
                self._incoming.write(self.client.recv(65536))
            return transport

        def send(self, data: bytes):
            if data:
                self._tls.write(data)
            return super().send(self._outgoing.read())

        def _received(self) -> bytes:
            self._incoming.write(super()._received())
            got = b""
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while part := self._tls.read(65536):
                    got += part
            return got

    return TlsTwin


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda pieces: repr(b"".join(pieces)[:40]))
def test_dialogues_are_as_in_pure_python(encrypted, dialogue):
    with twins_of(make_app, kind=encrypted) as twins:
        seen = twins.run(dialogue, accepts=False)
        assert seen[1].replies


def test_the_core_serves_it(encrypted):
    served: list[int] = []

    def app_that_looks() -> App:
        app = make_app()

        @app.handler
        def look() -> None:
            layout = twins.core._board.layout
            served.append(layout.words[layout.numbers["CLIENT_FD"]])

        return app

    with twins_of(app_that_looks, kind=encrypted) as twins:
        twin = twins.core
        twin.connect(b"ADD 1 2\n", accepts=False)
        assert twin.connection.is_plain
        with mock.patch.object(Connection, "on_readable", side_effect=AssertionError):
            seen = twin.send(b"ADD 3 4\n" * 3 + b"LOOK\n")
        assert seen.replies == b"7\n" * 3 + b"OK\n"
        assert served == [twin.connection.descriptor + 1 + SEALED]
        assert seen.words["client"] == 0
        assert twin.connection.is_bound


# -- STARTTLS


@pytest.mark.parametrize(
    ("protocol", "command", "refused"),
    [
        (Line(), b"STARTTLS\n%b\n", b"CLIENT_ERROR nothing may follow"),
        (Resp(), b"*1\r\n$8\r\nSTARTTLS\r\n*1\r\n$4\r\n%b\r\n", b"-ERR nothing may follow"),
        (Memcache(), b"starttls\r\n%b\r\n", b"CLIENT_ERROR nothing may follow"),
    ],
    ids=["line", "resp", "memcache"],
)
def test_what_follows_the_command_that_begins_tls_is_refused(protocol, command, refused):
    ran = []

    def make() -> App:
        app = App(protocol=protocol)

        @app.handler
        def starttls(session: Session) -> Reply:
            session.starttls = True  # as of a listener with the setting
            return Reply("go", start_tls=True)

        @app.handler
        def evil() -> None:
            ran.append("evil")

        return app

    with twins_of(make) as twins:
        assert_refused(twins, command % b"EVIL", refused)
        assert ran == []


def assert_refused(twins: Twins, data: bytes, refused: bytes) -> None:
    for accepts in (True, False):
        seen = twins.run([data], accepts=accepts)
        assert seen[1].replies.startswith(refused)
        assert seen[1].ended
