"""How often the clients of one address may ask: the buckets, and what a client over its limit is told."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from linepool import App, Dialogue, JsonRpc, Line, Memcache, Resp
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.ipc.board import Board, WorkerView
from linepool.ipc.board.rates import Rates
from linepool.kernel.sockets import origin_of
from linepool.protocols.base import Limits, Protocol
from linepool.resources import Resources
from linepool.session import Session
from linepool.settings import Settings
from linepool.worker.rate_limit import limited


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr("time.monotonic_ns", lambda: round(self.seconds * 1e9))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give a clock."""
    return Clock(monkeypatch)


def _admitted(rates: Rates, origin: int, tries: int) -> int:
    return sum(rates.admits(origin) for _ in range(tries))


def test_a_burst_is_admitted_and_then_the_rate(clock):
    rates, origin = Rates(Board(), 10, 5), origin_of(("192.0.2.1", 1))

    assert _admitted(rates, origin, 20) == 5
    clock.seconds += 0.35
    assert _admitted(rates, origin, 20) == 3
    clock.seconds += 100
    assert _admitted(rates, origin, 20) == 5


def test_at_a_steady_pace_exactly_the_rate_is_admitted(clock):
    rates, admitted = Rates(Board(), 100, 1), 0
    for _ in range(10_000):
        admitted += rates.admits(7)
        clock.seconds += 0.001

    assert 999 <= admitted <= 1001


def test_workers_and_connections_of_one_address_share_its_bucket_and_others_do_not(clock):
    board = Board()
    one, other = Rates(board, 1, 2), Rates(board, 1, 2)

    assert one.admits(origin_of(("2001:db8::1", 1)))
    assert other.admits(origin_of(("2001:db8::2", 2)))
    assert not one.admits(origin_of(("2001:db8::3", 3)))
    assert one.admits(origin_of(("2001:db8:0:1::1", 1)))
    assert (
        sum(_admitted(one, origin_of((f"10.0.{n >> 8}.{n & 255}", 1)), 3) for n in range(2000))
        > 3900
    )


@given(st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=4))
def test_nonsense_in_the_table_ends_by_itself(words):
    board = Board()
    rates = Rates(board, 1000, 1)
    board.rates[28:32] = memoryview(b"".join(word.to_bytes(8, "little") for word in words)).cast(
        "Q"
    )
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        rates.admits(7)
        clock.seconds += 7200
        assert rates.admits(7)


@pytest.mark.parametrize(
    ("protocol", "request_", "reply"),
    [
        (Line(), b"PLUS 1 2\n", b"SERVER_ERROR busy: more than 0.01 requests"),
        (Resp(), b"PLUS 1 2\r\n", b"-ERR busy: more than 0.01 requests"),
        (Memcache(), b"plus 1 2\r\n", b"SERVER_ERROR busy: more than 0.01 requests"),
        (
            JsonRpc(),
            b'{"jsonrpc":"2.0","method":"plus","params":[1,2],"id":1}\n',
            b'{"jsonrpc":"2.0","error":{"code":-32603',
        ),
        (Dialogue(greeting="220 here"), b"PLUS 1 2\r\n", b"451 busy: more than 0.01 requests"),
    ],
)
def test_a_request_over_the_limit_is_answered_without_its_handler(
    protocol: Protocol, request_, reply
):
    app, calls = App("rates", protocol=protocol), []

    @app.handler
    def plus(a: int, b: int) -> int:
        calls.append(a + b)
        return a + b

    view = WorkerView(Board(), 0)
    settings = evolve(Settings(), max_requests_per_second=0.01, request_burst=2)
    service = limited(app.freeze(Limits()), settings, view)
    conversation = Conversation(service, Session("1", "192.0.2.1:1", ""), Resources())

    conversation.feed(request_ * 3)
    replies = b"".join(answers(conversation))

    assert calls == [3, 3]
    assert reply in replies
    assert replies.count(b"busy: more than") == 1
