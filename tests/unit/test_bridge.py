"""The bridge's parts: its envelope, the numbers of machines, its queue on the bus, and what it needs."""

from __future__ import annotations

import importlib.util

import pytest

from linepool.bridge.envelope import Numbers, engine_pattern, unwrapped, wrapped
from linepool.errors import SetupError
from linepool.operate import bridging
from linepool.pubsub.bus import Bus
from linepool.settings import Settings, as_texts, from_texts, written

MACHINE = bytes(range(16))


def test_an_envelope_keeps_any_bytes_and_what_is_none_is_not_read():
    assert unwrapped(wrapped(MACHINE, 7, b"\0\xff\r\n")) == (MACHINE, 7, b"\0\xff\r\n")
    assert unwrapped(wrapped(MACHINE, 7, b"")) == (MACHINE, 7, b"")
    assert unwrapped(b"hello") is None
    assert unwrapped(b"\x02" + wrapped(MACHINE, 7, b"x")[1:]) is None


def test_a_hole_in_the_numbers_of_one_machine_is_seen():
    numbers = Numbers()
    found = [numbers.missed(b"a", number) for number in (5, 6, 9, 10)]
    assert found == [0, 0, 2, 0]
    assert numbers.missed(b"b", 100) == 0
    assert numbers.missed(b"a", 12) == 1


def test_the_pattern_matches_the_name_of_an_app_literally():
    assert engine_pattern(b"linepool:a*[b]:") == rb"linepool:a\*\[b\]:*"


def test_what_does_not_fit_into_the_bridges_queue_is_counted_and_nobody_waits():
    bus = Bus(2, has_bridge=True)
    try:
        end, worker = bus.bridge_endpoint(), bus.endpoint(1)
        assert worker is not None
        for _ in range(5000):
            assert worker.publish(b"c", b"x" * 100) == 0
        got = list(end.messages())
        assert got[0] == (b"c", b"x" * 100)
        assert len(got) > 50  # more than the number to which the kernel bounds datagrams
        assert bus.lost_abroad() == 5000 - len(got) > 0
        worker.publish(b"d", b"again")
        assert list(end.messages()) == [(b"d", b"again")]
    finally:
        bus.close()


def test_without_redis_py_the_start_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'linepool\[bridge\]'"):
        bridging.Bridging(None, lambda: None)  # type: ignore[arg-type]


def test_the_password_reaches_other_processes_but_is_not_written():
    settings = Settings(bridge="rediss://me:hush@[::1]:1/2")
    assert from_texts(as_texts(settings)).bridge == settings.bridge
    assert written("bridge", settings.bridge) == "rediss://***@[::1]:1/2"
