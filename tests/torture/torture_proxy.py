"""Garbled PROXY headers at a server that expects one: nothing behind them is run, and nothing else suffers.

The number is that of ``--requests``. Each header is a valid one with a few bytes changed, put in or left
out, and a request behind it; where the header is not valid any more, the client must get nothing.
"""

from __future__ import annotations

import random
import socket
import threading

import pytest

from linepool.proxy_header import HeaderError, read_header
from tests.conftest import Launch
from tests.servers import TIMEOUT
from tests.unit.test_proxy_header import VALID

_CLIENTS = 4


def _garbled(luck: random.Random) -> bytes:
    data = bytearray(luck.choice(VALID)[0])
    for _ in range(luck.randint(1, 4)):
        at = luck.randrange(len(data) + 1)
        data[at : at + luck.randint(0, 4)] = luck.randbytes(luck.randint(0, 4))
    return bytes(data)


def _is_header(data: bytes) -> bool:
    try:
        return read_header(data) is not None
    except HeaderError:
        return False


@pytest.mark.scheme("shared", "dispatch")
def test_nothing_behind_a_garbled_header_is_run(launch: Launch, scheme: str, requests: int) -> None:
    options = ("--workers", "4", "--proxy-from", "127.0.0.1", "--proxy-timeout", "60")
    server = launch("workshop.py", *options)
    failures: list[str] = []

    def attack(seed: int) -> None:
        luck = random.Random(seed)
        for _ in range(requests // _CLIENTS):
            data = _garbled(luck) + b"\nADD 20 3\n"
            served = b""
            try:
                with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    while chunk := sock.recv(100):
                        served += chunk
            except OSError:  # reset, perhaps before the end of what is sent
                pass
            if served and not _is_header(data):
                failures.append(f"{data!r}: {served!r}")

    clients = [threading.Thread(target=attack, args=[seed]) for seed in range(_CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()

    counters = server.status()["counters"]
    assert not failures, failures[:3]
    assert (counters["kills"], counters["crashes"], counters["errors"]) == (0, 0, 0)
    assert server.stop() == 0
    assert " ERROR " not in server.text
