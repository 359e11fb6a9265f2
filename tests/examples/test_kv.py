import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers import EXAMPLES, TIMEOUT, run_server

KV = EXAMPLES / "kv.py"
ODD_VALUES = [
    b"",
    bytes(range(256)),
    b"\r\n",
    b"one\nOK\nVALUE 3\nEND\nNOT_FOUND\n",
    b"\n" * 1000,
    b"GET other\r\nDELETE other\r\n",
    os.urandom(1024 * 1024),
]


@pytest.fixture
def kv(tmp_path):
    with run_server(KV, tmp_path, "--workers", "8") as server:
        yield server


def put(key, value):
    return b"PUT %s %d\n%s\n" % (key, len(value), value)


def shown(value):
    return b"VALUE %d\n%s\n" % (len(value), value)


def test_a_line_is_stored_and_shown(kv):
    script = b"SET color deep  blue \nGET color\nDELETE color\nDELETE color\nGET color\nCOUNT\n"
    assert kv.converse(script) == b"OK\nVALUE 11\ndeep  blue \nOK\nNOT_FOUND\nNOT_FOUND\n0\n"


def test_any_bytes_come_back_and_cannot_forge_a_reply(kv):
    for value in ODD_VALUES:
        script = put(b"odd", value) + b"GET odd\nCOUNT\n"
        assert kv.converse(script) == b"OK\n" + shown(value) + b"1\n"


def test_many_odd_values_in_one_pipeline_keep_their_order(kv):
    small = [value for value in ODD_VALUES if len(value) < 10_000]
    script = b"".join(put(b"k%d" % n, value) for n, value in enumerate(small))
    script += b"".join(b"GET k%d\n" % n for n in range(len(small)))
    assert kv.converse(script) == b"OK\n" * len(small) + b"".join(map(shown, small))


def test_a_key_that_could_not_be_listed_is_refused(kv):
    for line, reply in (
        ('SET "a b" 1', "CLIENT_ERROR a key is printable text without spaces or quotes."),
        ('SET "a\\nb" 1', "CLIENT_ERROR a key is printable text without spaces or quotes."),
        ("GET it's", "CLIENT_ERROR a key is printable text without spaces or quotes."),
        ("SET " + "k" * 511 + " 1", "OK"),
        ("SET " + "k" * 512 + " 1", "CLIENT_ERROR a key has 1 to 511 bytes."),
        ("SET " + "\N{SNOWMAN}" * 171 + " 1", "CLIENT_ERROR a key has 1 to 511 bytes."),
        ('GET ""', "CLIENT_ERROR a key has 1 to 511 bytes."),
        ("KEYS " + "k" * 512, "CLIENT_ERROR a key has 1 to 511 bytes."),
    ):
        assert kv.ask(line) == reply, line


def test_counters_stay_within_64_bits(kv):
    with kv.connect() as peer:
        assert peer.ask("INCR n") == "1"
        assert peer.ask("INCR n 41") == "42"
        assert peer.ask("DECR n 43") == "-1"
        assert peer.ask("DECR n 9223372036854775807") == "-9223372036854775808"
        assert peer.ask("DECR n") == "CLIENT_ERROR the result does not fit into 64 bits."
        assert peer.ask("INCR n 0") == "-9223372036854775808"
        for text in ("blue", "1_0", " 1", "1.5", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 20):
            with kv.connect() as other:
                other.send(put(b"text", text.encode()))
                assert other.line() == "OK"
            assert peer.ask("INCR text") == "CLIENT_ERROR the value is not a whole number."


def test_keys_come_in_order_however_many_there_are(kv):
    names = [f"{n:0511d}" for n in range(1001)] + ["END", "zebra"]
    kv.converse("".join(f"SET {name} x\n" for name in reversed(names)).encode())
    with kv.connect() as peer:
        assert peer.ask("COUNT") == "1003"
        assert peer.ask_lines("KEYS") == [*names[:1001], '"END"', "zebra"]
        assert peer.ask_lines("KEYS 0") == names[:1001]
        assert peer.ask_lines(f"KEYS {'0' * 508}") == names[:1000]
        assert peer.ask_lines("KEYS z") == ["zebra"]
        assert peer.ask_lines("KEYS zz") == []


def test_eight_workers_count_one_key_to_the_exact_sum(kv):
    # Eight connections at once keep up to eight workers busy with the same key.
    together = threading.Barrier(8)

    def count_up(_):
        with kv.connect() as peer:
            assert peer.ask("COUNT") in ("0", "1")
            together.wait(TIMEOUT)
            return [int(peer.ask("INCR total")) for _ in range(200)]

    with ThreadPoolExecutor(8) as pool:
        seen = [number for numbers in pool.map(count_up, range(8)) for number in numbers]
    assert sorted(seen) == list(range(1, 1601))
    assert kv.converse(b"GET total\n") == b"VALUE 4\n1600\n"


class Writer:
    """Sets one key after the other and counts them, on a new connection whenever one is lost."""

    def __init__(self, server, number, progress):
        self.server = server
        self.number = number
        self.progress = progress  # a condition, notified of each acknowledgement
        self.acknowledged = []
        self.counted = 0
        self.lost = 0  # increments without a reply, which may have happened or not

    def write(self, is_done):
        n = 0
        while not is_done():
            try:
                with self.server.connect() as peer:
                    while not is_done():
                        n += 1
                        self.write_one(peer, f"writer{self.number}-{n}")
            except ConnectionError:
                pass  # the worker was killed; the next connection gets another one

    def write_one(self, peer, key):
        if peer.ask(f"SET {key} value of {key}") != "OK":
            raise ConnectionError
        with self.progress:
            self.acknowledged.append(key)
            self.progress.notify()
        self.lost += 1
        if not peer.ask("INCR total").isdigit():
            raise ConnectionError
        self.lost -= 1
        self.counted += 1


def test_killed_workers_lose_no_acknowledged_write(tmp_path):
    dead: list[int] = []
    # All workers die in the same two commands, which is no fault of these.
    with run_server(KV, tmp_path, "--workers", "4", "--poison-deaths", "0") as server:
        progress = threading.Condition()
        writers = [Writer(server, number, progress) for number in range(4)]
        done = threading.Event()
        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(writer.write, done.is_set) for writer in writers]
            try:
                for _ in range(25):
                    wait_until_all_have_written(writers, progress)
                    dead.append(random.choice(busy_workers(server, but=dead)))
                    os.kill(dead[-1], signal.SIGKILL)
            finally:
                done.set()
            for end in ends:
                end.result()

        with server.connect() as peer:
            for key in (key for writer in writers for key in writer.acknowledged):
                text = f"value of {key}"
                assert (peer.ask(f"GET {key}"), peer.line()) == (f"VALUE {len(text)}", text)
            counted = sum(writer.counted for writer in writers)
            lost = sum(writer.lost for writer in writers)
            assert counted <= int(peer.ask("INCR total 0")) <= counted + lost
        # A worker that dies takes all its connections with it; each writer has one.
        assert all(writer.lost <= len(dead) for writer in writers)
        assert server.status()["counters"]["crashes"] == len(dead)


def wait_until_all_have_written(writers, progress):
    before = [len(writer.acknowledged) for writer in writers]
    with progress:
        assert progress.wait_for(
            lambda: all(
                len(writer.acknowledged) > n for writer, n in zip(writers, before, strict=True)
            ),
            timeout=TIMEOUT,
        )


def busy_workers(server, but):
    busy: list[int] = []

    def is_busy(state):
        busy[:] = [
            w["pid"] for w in state["workers"] if w["state"] == "busy" and w["pid"] not in but
        ]
        return busy

    server.until(is_busy)
    return busy


def test_what_was_stored_survives_a_restart(tmp_path):
    with run_server(KV, tmp_path) as server:
        assert server.converse(b"SET color blue\nINCR n\n") == b"OK\n1\n"
    with run_server(KV, tmp_path) as server:
        assert server.converse(b"GET color\nINCR n\n") == b"VALUE 4\nblue\n2\n"


def test_a_full_store_says_so_and_has_room_again_after_deletions(tmp_path):
    value = bytes(100_000)
    with run_server(KV, tmp_path, KV_SIZE_MB="1", KV_DIR=str(tmp_path / "small")) as server:
        script = b"".join(put(b"k%d" % n, value) for n in range(12))
        replies = server.converse(script).splitlines()
        full = replies.index(b"SERVER_ERROR the store is full (1 MiB)")
        assert 5 < full < 12
        # LMDB reuses freed space from the second change after it.
        freed = b"DELETE k0\nDELETE k1\nSET small x\n" + put(b"new", value)
        assert server.converse(freed + b"GET k2\n") == b"OK\n" * 4 + shown(value)
