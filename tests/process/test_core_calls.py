"""How many system calls a request costs in the compiled core."""

import collections
import re
import shutil
import socket
import subprocess

import pytest

from linepool import core
from tests.servers import ROOT, TIMEOUT, run_server

pytestmark = [
    pytest.mark.skipif(not core.compiled, reason=core.why_pure),
    pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace"),
]
ROUNDS = 50


@pytest.fixture
def server(tmp_path):
    with run_server(ROOT / "examples" / "sums.py", tmp_path, "--workers", "1") as server:
        yield server


def calls_during(pid: int, call, file) -> collections.Counter[str]:
    """Return how often a process has made each system call while another call ran, by name."""
    tracer = subprocess.Popen(
        ["strace", "-p", str(pid), "-o", str(file)], stderr=subprocess.PIPE, text=True
    )
    with tracer:
        assert tracer.stderr is not None
        if "attached" not in (said := tracer.stderr.readline()):
            tracer.wait(TIMEOUT)
            pytest.skip(f"strace may not: {said}")
        call()
        tracer.terminate()
        tracer.wait(TIMEOUT)
    return collections.Counter(re.findall(r"^(\w+)\(", file.read_text(), re.MULTILINE))


@pytest.fixture
def client(server):
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as client:
        yield client


def ask(client: socket.socket, lines: int) -> None:
    """Send so many requests at once, and read the replies."""
    client.sendall(b"ADD 1 2\n" * lines)
    missing = 2 * lines
    while missing:
        missing -= len(client.recv(missing))


@pytest.mark.parametrize("lines", [1, 128])
def test_a_turn_is_one_read_and_one_write(server, client, tmp_path, lines):
    ask(client, lines)

    def work() -> None:
        for _ in range(ROUNDS):
            ask(client, lines)

    calls = calls_during(server.pids()[0], work, tmp_path / "calls")

    # A busy worker also says a word to the master now and then.
    assert ROUNDS <= calls["recvfrom"] <= ROUNDS + 3
    assert ROUNDS <= calls["sendto"] <= ROUNDS + 3
    assert calls["epoll_wait"] <= 3 * ROUNDS  # at once, within a moment, however long it takes
