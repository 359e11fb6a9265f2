"""What is left in memory after many requests and connections in the compiled core: nothing."""

import gc
import sys
from functools import partial

import pytest

from linepool import core

if not core.compiled:
    pytest.skip(f"there is no compiled core: {core.why_pure}", allow_module_level=True)

from tests.unit.core_cases import make_app
from tests.unit.core_twins import Twin

ROUNDS = 30  # of each kind, with this many requests each
REQUESTS = 100
KINDS = [
    *(
        b"ADD 1234567 1",
        b"ECHO some-text",
        b"RAW bytes",
        b"MUL 1.5 2.5",
        b"FLAG true",
        b"OPT 1000 x",
    ),
    *(b"COUNT", b"LOGIN me", b"MIXED 1000 x", b"NOTE text", b"WRITE text", b"MANY 1 2 3"),
    *(b"ADD +5 1", b"ADD x y", b"ADD 1", b"ECHO 'q'", b"NOSUCH", b"ECHO \xff\xf1x", b"PUT k 1\nx"),
    *(b"VALUE list", b"VALUE huge", b"VALUE surrogate", b"FAIL client", b"FAIL value", b"GEN 3"),
]


@pytest.fixture(scope="module")
def twin():
    twin = Twin(make_app("batches"), compiled=True)
    gc.collect()
    gc.freeze()  # what is there already is not looked at again and again
    yield twin
    gc.unfreeze()
    twin.close()


def blocks_left(call, rounds: int) -> int:
    """Return how many more blocks of memory are in use after so many calls."""
    for _ in range(5):  # caches, and buffers that grow
        call()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(rounds):
        call()
    gc.collect()
    return sys.getallocatedblocks() - before


@pytest.mark.parametrize("line", KINDS)
def test_requests_leave_nothing_behind(twin, line):
    twin.connect(b"COUNT\n")

    left = blocks_left(partial(twin.send, (line + b"\n") * REQUESTS), ROUNDS)

    assert left < REQUESTS
    assert twin.connection is not None


@pytest.mark.parametrize(
    "data", [b"", b"ADD 1 2\n", b"COUNT\n", b"ECHO 'x'\nADD", b"GET / HTTP/1.1\r\n"]
)
def test_connections_leave_nothing_behind(twin, data):
    def come_and_go() -> None:
        twin.connect(data)
        twin.end()

    assert blocks_left(come_and_go, 150) < 100
