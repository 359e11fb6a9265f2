"""Long streams of requests: each gets its reply, in order."""

from __future__ import annotations

import random
import subprocess
import threading

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import TIMEOUT


def test_a_file_of_requests_is_answered_in_order(launch: Launch, tmp_path):
    server = launch("workshop.py", "--workers", "2")
    count = 100_000
    script = tmp_path / "script"
    script.write_bytes(b"".join(b"ADD %d 1\n" % number for number in range(count)))

    with script.open("rb") as commands, (tmp_path / "replies").open("wb") as replies:
        subprocess.run(
            ["nc", "-N", "127.0.0.1", str(server.port)],
            stdin=commands,
            stdout=replies,
            timeout=60,
            check=True,
        )

    wanted = b"".join(b"%d\n" % (number + 1) for number in range(count))
    assert (tmp_path / "replies").read_bytes() == wanted
    assert server.status()["counters"]["requests"] == count


def test_requests_of_every_kind_mix_in_one_stream(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    source = random.Random(7)
    said: list[bytes] = []
    wanted: list[bytes] = []
    for number in range(3000):
        kind = source.choice(["add", "say", "put", "count", "big", "wrong", "unknown", "blank"])
        size = source.randrange(200)
        text = "x" * size
        said_here, answered = {
            "add": (f"ADD {number} {size}\n", f"{number + size}\n"),
            "say": (f"SAY  {number}  {text}\r\n", f"{number}  {text}".rstrip("\0") + "\r\n"),
            "put": (f"put {size}\n{text}\n", f"{size}\n"),
            "count": (
                f"COUNT {size % 5}\n",
                "".join(f"{n + 1}\n" for n in range(size % 5)) + "END\n",
            ),
            "big": (f"BIG {size * 100}\n", "x" * size * 100 + "\n"),
            "wrong": ("ADD 1\n", "CLIENT_ERROR b is missing. Usage: ADD a:int b:int\n"),
            "unknown": (
                f"F{number}\n",
                f"ERROR unknown command 'F{number}'. HELP lists the commands.\n",
            ),
            "blank": ("\n", ""),
        }[kind]
        said.append(said_here.encode())
        wanted.append(answered.encode())
    stream = b"".join(said)

    with server.connect() as peer:
        sender = threading.Thread(target=_send_in_pieces, args=[peer, stream, source])
        sender.start()
        with peer.socket.makefile("rb") as replies:
            got = replies.read(sum(map(len, wanted)))
        sender.join()
        assert peer.rest() == b""

    assert got == b"".join(wanted)


def test_many_clients_can_pipeline_at_once(launch: Launch):
    server = launch("workshop.py", "--workers", "3")
    wrong: list[int] = []

    def pipeline(first: int) -> None:
        numbers = range(first, first + 3000)
        with server.connect() as peer:
            peer.socket.settimeout(TIMEOUT)
            peer.send(b"".join(b"ADD %d 0\n" % number for number in numbers))
            wrong.extend(number for number in numbers if peer.line() != str(number))

    threads = [threading.Thread(target=pipeline, args=[10_000 * n]) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert server.status()["counters"]["requests"] == 27_000


def test_a_master_that_looks_often_does_not_take_quick_requests_for_overdue_ones(
    launch: Launch, tmp_path
):
    (tmp_path / "app.py").write_text(
        "import linepool, time\n"
        "@linepool.handler(timeout=0.0001)\n"  # makes the master look all the time
        "def never_called() -> None: ...\n"
        "@linepool.handler\n"
        "def add(a: int, b: int) -> int:\n"
        "    end = time.perf_counter() + 0.00005\n"
        "    while time.perf_counter() < end:\n"
        "        pass\n"
        "    return a + b\n"
    )
    server = launch("app.py", "--workers", "4", "--request-timeout", "1000")
    wrong: list[str] = []

    def play() -> None:
        with server.connect() as peer:
            replies = ((n, peer.ask(f"ADD {n} 0")) for n in range(12_000))
            wrong.extend(reply for n, reply in replies if reply != str(n))

    clients = [threading.Thread(target=play) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()

    assert wrong == []


def _send_in_pieces(peer: Peer, stream: bytes, source: random.Random) -> None:
    at = 0
    while at < len(stream):
        size = source.choice([1, 2, 10, 1000, 100_000])
        peer.send(stream[at : at + size])
        at += size
