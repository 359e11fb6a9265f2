"""TLS in both clients: what they trust, what they say of a server that they do not, and its end."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading

import pytest

from linepool import App, AsyncClient, Client
from linepool.cli import main
from linepool.client import ConnectionFailed
from tests.certificates import Authority

_HELLO_BYTES = 16 * 1024
LARGE = "x" * 300_000
app = App(max_line_bytes=1_000_000)


@app.handler
def add(a: int, b: int) -> int:
    return a + b


@app.handler
def count(to: int):
    yield from range(to)


@app.handler
def echo(text: str) -> str:
    return text


class TlsServer:
    """Serves the app, each connection in a thread, with TLS.

    Attributes:
        port: Where, on 127.0.0.1.
        endings: One of each connection that has ended: whether its client has said so before.
    """

    def __init__(self, context, refuses=0):
        self._context = context
        self._refuses = refuses  # so many connections, once they have begun
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.endings = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if self._refuses:
                    self._refuses -= 1
                    connection.recv(_HELLO_BYTES)
                    connection.close()
                    continue
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection):
        with (
            contextlib.suppress(OSError),
            connection,
            self._context.wrap_socket(
                connection, server_side=True, suppress_ragged_eofs=False
            ) as secure,
        ):
            try:
                for line in secure.makefile("rb"):
                    secure.sendall(app.ask(line))
            except ssl.SSLEOFError:
                self.endings.append(False)
            else:
                self.endings.append(True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.certificate("local", "DNS:localhost", "IP:127.0.0.1")


def context_with(certificate, **attributes):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


@pytest.fixture(scope="module", params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def server(certificate, request):
    with TlsServer(context_with(certificate, maximum_version=request.param)) as server:
        yield server


def blocking(address, work, **options):
    with Client(address, **options) as client:
        made = work(client)
        return list(made) if hasattr(made, "__next__") else made


def asynchronous(address, work, **options):
    async def run():
        async with AsyncClient(address, **options) as client:
            made = work(client)
            if hasattr(made, "__aiter__"):
                return [value async for value in made]
            return await made

    return asyncio.run(run())


@pytest.fixture(params=[blocking, asynchronous])
def with_client(request):
    return request.param


def test_calls_streams_and_large_values_are_as_without_tls(with_client, server, authority):
    address = f"tls://localhost:{server.port}"
    assert with_client(address, lambda client: client.call(add, 2, 3), tls_ca=authority.path) == 5
    stream = with_client(address, lambda client: client.stream("count", 3), tls_ca=authority.path)
    assert stream == [0, 1, 2]
    echoed = with_client(address, lambda client: client.call(echo, LARGE), tls_ca=authority.path)
    assert echoed == LARGE


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_one_connection_is_used_again_and_its_end_is_said(certificate, authority, version):
    with TlsServer(context_with(certificate, maximum_version=version)) as server:
        address = f"127.0.0.1:{server.port}"
        with Client(address, tls_ca=authority.path, max_connections=1) as client:
            assert [client.call("add", 1, number) for number in range(5)] == [1, 2, 3, 4, 5]
            with client.pipeline() as pipeline:
                pending = [pipeline.call(echo, LARGE) for _ in range(5)]
            assert [one.result() for one in pending] == [LARGE] * 5
            assert server.endings == []
    assert server.endings == [True]  # which its threads have seen


def test_parent_and_child_have_connections_of_their_own(server, authority):
    with Client(f"tls://127.0.0.1:{server.port}", tls_ca=authority.path) as client:
        client.call("add", 1, 2)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = int([client.call("add", 1, number) for number in range(3)] != [1, 2, 3])
            finally:
                os._exit(status)
        assert [client.call("add", 2, number) for number in range(50)] == list(range(2, 52))
        assert os.waitpid(pid, 0)[1] == 0


def test_a_context_of_ones_own_is_used(with_client, server, authority):
    context = ssl.create_default_context(cafile=authority.path)
    address = f"localhost:{server.port}"
    assert with_client(address, lambda client: client.call("add", 2, 3), tls=context) == 5


def failure_of(with_client, address, **options):
    with pytest.raises(ConnectionFailed) as caught:
        with_client(address, lambda client: client.call("add", 2, 3), **options)
    return str(caught.value)


def test_a_certificate_that_is_not_trusted_is_refused_at_once(with_client, server):
    address = f"tls://localhost:{server.port}"
    assert failure_of(with_client, address) == (
        f"cannot connect to {address}: the server's certificate is not trusted (unable to get local issuer"
        " certificate): give the certificate of the CA that has signed it with tls_ca"
    )


def test_a_certificate_for_another_host_is_refused(with_client, authority):
    context = context_with(authority.certificate("other", "DNS:other.example"))
    with TlsServer(context) as server:
        for host in ("localhost", "127.0.0.1"):
            text = failure_of(with_client, f"{host}:{server.port}", tls_ca=authority.path)
            assert text.endswith(
                f"the server's certificate is not for {host}: connect by a name that the certificate has"
            )


def test_a_server_without_tls_is_named(with_client, authority):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"ERROR unknown command\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        text = failure_of(with_client, f"tls://localhost:{port}", tls_ca=authority.path)
        thread.join()
    assert text.endswith(
        "the server does not speak TLS on this port; connect without TLS, or to its port for TLS"
    )


def test_a_server_that_closes_during_the_handshake_is_tried_again(
    with_client, authority, certificate
):
    with TlsServer(context_with(certificate), refuses=2) as server:
        address, options = f"tls://localhost:{server.port}", {"tls_ca": authority.path}
        text = failure_of(with_client, address, **options, retries=False)
        assert text.endswith(
            "the server closed the connection during the TLS handshake: does it speak TLS on this port?"
        )
        assert with_client(address, lambda client: client.call("add", 2, 3), **options) == 5


def test_a_client_without_a_certificate_learns_that_it_needs_one(
    with_client, authority, certificate
):
    context = context_with(certificate, verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(authority.path)
    mine = authority.certificate("client")
    with TlsServer(context) as server:
        address = f"tls://localhost:{server.port}"
        text = failure_of(with_client, address, tls_ca=authority.path)
        assert "the server requires a client certificate: give tls_cert and tls_key" in text
        options = {"tls_ca": authority.path, "tls_cert": mine}
        assert with_client(address, lambda client: client.call("add", 2, 3), **options) == 5


@pytest.mark.parametrize(
    ("address", "options", "text"),
    [
        ("7000", {"tls_ca": "none.pem"}, "tls_ca: cannot read 'none.pem': No such file"),
        ("7000", {"tls_ca": __file__}, "tls_ca: '.*' must hold certificates of CAs, as PEM"),
        ("7000", {"tls_cert": __file__}, "tls_cert: '.*' must hold a certificate and its key"),
        ("7000", {"tls_key": __file__}, "tls_key is the key of tls_cert: give both"),
        ("7000", {"tls": "yes"}, "tls must be True, False or an ssl.SSLContext, not 'yes'"),
        ("7000", {"tls": False, "tls_ca": "x"}, "which tls=False turns off"),
        ("unix:/x", {"tls": True}, "TLS is for HOST:PORT, not for unix:/x"),
        ("tls://unix:/x", {}, "TLS is for HOST:PORT, not for tls://unix:/x"),
        ("tls://host", {}, "address must be with a port: host:7000"),
        (
            "7000",
            {"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "tls_ca": "x"},
            "give an SSLContext or tls_ca",
        ),
    ],
)
def test_options_that_are_wrong_are_refused(address, options, text):
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=text):
            kind(address, **options)


def test_the_command_call_uses_tls(server, authority, capsys):
    address = f"localhost:{server.port}"
    assert main(["call", "--tls-ca", str(authority.path), address, "add", "2", "3"]) == 0
    assert main(["call", "--tls", address, "add", "2", "3"]) == 1
    assert main(["call", "--tls-ca", "none.pem", address, "add", "2", "3"]) == 2
    said = capsys.readouterr()
    assert said.out == "5\n"
    assert "the server's certificate is not trusted" in said.err
    assert "tls_ca: cannot read 'none.pem'" in said.err
