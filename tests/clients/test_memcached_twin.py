"""Random commands for memcached and the example beside it: their replies must be the same.

Debian's memcached is older than what the example follows: what is new since then, and the texts of errors,
are in ``tests/unit/memcached_dialogues.txt``.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.servers import EXAMPLES, TIMEOUT, run_server

MEMCACHED = os.environ.get("MEMCACHED", "memcached")
ROUNDS, COMMANDS = 20, 60
KEYS = ["a", "b", "c", "YmluAA== b"]
DATA = [b"", b"5", b"41", b"text", b"x\r\ny", b"z" * 5000]
FLAGS = [
    "v",
    "s",
    "f",
    "k",
    "h",
    "u",
    "q",
    "t",
    "Oopaque",
    "T0",
    "T500",
    "N0",
    "N300",
    "R550",
    "R10",
]
SET_FLAGS = ["k", "q", "F7", "Oopaque", "T0", "T500", "I", "C999999", "MS", "ME", "MA", "MP", "MR"]
DELETE_FLAGS = ["k", "q", "Oopaque", "I", "T300", "C999999"]
COUNT_FLAGS = ["v", "k", "t", "Oopaque", "N0", "J13", "D4", "MI", "MD", "M+", "M-"]


def command(dice: random.Random) -> bytes:
    """Return a command without an error in its form."""
    key, data = dice.choice(KEYS), dice.choice(DATA)
    plain = dice.choice(KEYS[:3])
    noreply = dice.choice(["", "", " noreply"])
    block = b"\r\n" + data + b"\r\n"

    def meta(verb: str, flags: list[str], size: str = "") -> bytes:
        name, _, base64 = key.partition(" ")
        some = [*dice.sample(flags, dice.randrange(5)), *([base64] if base64 else [])]
        some = list({one[0]: one for one in some}.values())  # each flag once
        if base64:  # memcached 1.6.18 returns some of these keys as they are
            some = [one for one in some if one != "k"]
        return " ".join([verb, name, *([size] if size else []), *some]).encode()

    kind = dice.randrange(12)
    if kind < 2:
        verb = dice.choice(["set", "add", "replace", "append", "prepend"])
        return f"{verb} {plain} {dice.choice([0, 7])} 0 {len(data)}{noreply}".encode() + block
    if kind < 4:
        return meta("ms", SET_FLAGS, str(len(data))) + block
    if kind < 7:
        return meta("mg", FLAGS) + b"\r\n"
    if kind == 7:
        return meta("md", DELETE_FLAGS) + b"\r\n"
    if kind == 8:
        return meta("ma", COUNT_FLAGS) + b"\r\n"
    verbs = [
        f"get {plain} {dice.choice(KEYS[:3])}",
        f"gat 400 {plain}",
        f"incr {plain} {dice.choice([1, 2**63])}{noreply}",
        f"decr {plain} 3{noreply}",
        f"delete {plain}{noreply}",
        f"touch {plain} 600{noreply}",
    ]
    return dice.choice(verbs).encode() + b"\r\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory) -> Iterator[str]:
    assert shutil.which(MEMCACHED), f"{MEMCACHED} is not installed (Debian: memcached)"
    path = str(tmp_path_factory.mktemp("memcached") / "socket")
    options = ["-s", path, "-u", "root"] if os.geteuid() == 0 else ["-s", path]
    # Its own threads hold items at times, which are then not changed in place.
    options += ["-o", "no_lru_maintainer,no_lru_crawler"]
    process = subprocess.Popen([MEMCACHED, "-v", *options], stderr=subprocess.PIPE)
    try:
        while not os.path.exists(path):
            assert process.poll() is None
        yield path
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)


def asked(connection: socket.socket, sent: bytes) -> bytes:
    """Return the replies to a command; they end with that to ``mn``."""
    connection.sendall(sent + b"mn\r\n")
    said = b""
    while not said.endswith(b"MN\r\n"):
        part = connection.recv(65536)
        assert part, said
        said += part
    # A second may pass between the two servers.
    return re.sub(rb" t[0-9]+", b" t#", said.removesuffix(b"MN\r\n"))


def test_memcached_and_the_example_answer_alike(daemon, tmp_path):
    with (
        run_server(EXAMPLES / "memcached" / "memcached.py", tmp_path, "--workers", "2") as server,
        socket.socket(socket.AF_UNIX) as theirs,
        socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as ours,
    ):
        theirs.connect(daemon)
        for seed in range(ROUNDS):
            dice = random.Random(seed)
            trail = []
            for sent in [b"flush_all\r\n", *(command(dice) for _ in range(COMMANDS))]:
                trail.append(sent[:80])
                said = asked(theirs, sent)
                assert asked(ours, sent) == said, f"seed={seed} {trail[-12:]}"
