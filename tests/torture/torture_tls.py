"""TLS under load: certificates are renewed, and hundreds of clients do not finish their handshakes.

Prints how many handshakes failed, how many connections were dropped, and how long requests of other clients
took meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.conftest import Launch
from tests.servers import TIMEOUT, ServerProcess
from tests.torture.table import show_table

_CLIENTS = 8  # that come and go
_KEPT = 40  # connections that are kept over two reloads
_REQUESTS = 5  # of a client that comes and goes
_SLOW = 500  # handshakes that do not end
_PINGS = 2000
_MOST_P99 = 0.1  # seconds
_HARMLESS = (
    "OK",
    "INFO",
    "DEBUG",
    "WARN",
)  # of what testssl.sh finds; it warns of what it could not look at


class Load:
    """Clients that shake hands, send some requests and leave, until the block ends.

    Attributes:
        served: How many got all replies.
        handshakes: What went wrong with handshakes.
        dropped: What went wrong afterwards.
    """

    def __init__(self, server: ServerProcess, context: ssl.SSLContext) -> None:
        self.served = 0
        self.handshakes: list[str] = []
        self.dropped: list[str] = []
        self._server = server
        self._context = context
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(_CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                client = connect(self._server, self._context)
            except OSError as error:
                self.handshakes.append(repr(error))
                continue
            try:
                with client:
                    for number in range(_REQUESTS):
                        assert ask(client, f"ADD {number} 1") == f"{number + 1}"
                self.served += 1
            except (OSError, AssertionError) as error:
                self.dropped.append(repr(error))


def connect(server: ServerProcess, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
    return context.wrap_socket(sock, server_hostname="localhost")


def ask(client: ssl.SSLSocket, line: str) -> str:
    client.sendall(line.encode() + b"\n")
    data = b""
    while not data.endswith(b"\n"):
        chunk = client.recv(65536)
        assert chunk, "the connection has ended"
        data += chunk
    return data.decode().rstrip()


def context_of(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.scheme("shared", "dispatch")
def test_certificates_are_renewed_under_load(
    launch: Launch, tmp_path: Path, reloads: int, scheme: str
) -> None:
    authority, path = Authority(tmp_path), tmp_path / "live.pem"
    context = context_of(authority)

    def renew(number: int) -> None:
        new = authority.certificate(f"number-{number}", "DNS:localhost")
        new.rename(path)

    renew(0)
    options = ("--tls-cert", str(path), "--workers", "4")
    server = launch("encrypted.py", *options, "--graceful-timeout", "120")
    count = max(2, reloads // 2)
    with Load(server, context) as load:
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(connect(server, context)) for _ in range(_KEPT)]
            for number in (1, 2):
                renew(number)
                assert server.order("RELOAD").startswith("generation")
                assert [ask(one, "ADD 2 3") for one in kept] == ["5"] * _KEPT
        for number in range(3, count + 1):
            renew(number)
            assert server.order("RELOAD").startswith("generation")
        with connect(server, context) as client:
            subject = (client.getpeercert() or {})["subject"]
            assert subject == ((("commonName", f"number-{count}"),),)
    rows = [
        ("certificates renewed", str(count)),
        ("clients that came and went", str(load.served)),
        ("handshakes failed", str(len(load.handshakes))),
        ("connections dropped", str(len(load.dropped))),
    ]
    show_table(("certificates renewed under load", scheme), rows)
    assert (load.handshakes, load.dropped) == ([], [])


def test_slow_handshakes_beside_a_client(launch: Launch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.certificate("server", "DNS:localhost")
    context = context_of(authority)
    server = launch("encrypted.py", "--tls-cert", str(pair), "--workers", "2")
    over = threading.Event()

    def begin_slowly() -> None:
        """Keep handshakes open, a third of them silent, and begin anew when they are closed."""
        clients: list[socket.socket] = []
        with contextlib.ExitStack() as stack:
            while not over.is_set():
                while len(clients) < _SLOW:
                    one = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
                    clients.append(stack.enter_context(one))
                    if len(clients) % 3:
                        one.sendall(b"\x16\x03\x01\x02\x00\x01")
                for one in list(clients):
                    with contextlib.suppress(BlockingIOError, ConnectionResetError):
                        if one.recv(1, socket.MSG_DONTWAIT):
                            continue
                        clients.remove(one)
                        one.close()
                over.wait(0.05)

    thread = threading.Thread(target=begin_slowly)
    thread.start()
    try:
        times = []
        with connect(server, context) as client:
            for number in range(_PINGS):
                began = time.perf_counter()
                assert ask(client, f"ADD {number} 1") == f"{number + 1}"
                times.append(time.perf_counter() - began)
        began = time.perf_counter()
        with connect(server, context) as client:
            assert ask(client, "ADD 2 3") == "5"
        fresh = time.perf_counter() - began
    finally:
        over.set()
        thread.join()
    p99 = statistics.quantiles(times, n=100)[98]
    rows = [
        ("slow handshakes", str(_SLOW)),
        ("p50 of a request beside them", f"{1e3 * statistics.median(times):.2f} ms"),
        ("p99", f"{1e3 * p99:.2f} ms"),
        ("a new client, with its handshake", f"{1e3 * fresh:.1f} ms"),
    ]
    show_table(("slow handshakes", ""), rows)
    assert p99 < _MOST_P99


def test_testssl_finds_nothing(launch: Launch, tmp_path: Path) -> None:
    pair = Authority(tmp_path).certificate("server", "DNS:localhost")
    server = launch("encrypted.py", "--tls-cert", str(pair), "--workers", "2")
    report = tmp_path / "report.json"
    command = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--jsonfile", str(report)]
    command += ["--protocols", "--std", "--fs", "--server-preference", "--vulnerable"]
    subprocess.run([*command, server.address], check=False, stdout=subprocess.DEVNULL, timeout=900)
    found = json.loads(report.read_text())
    rows = [(one["id"], one["finding"]) for one in found if one["severity"] not in _HARMLESS]
    show_table(("testssl.sh", "what is not harmless"), rows or [("nothing", "")])
    assert len(found) > 40
    assert rows == []
