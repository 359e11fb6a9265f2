"""memcached's protocol in the compiled core does what it does in pure Python."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from linepool import (
    App,
    ClientError,
    Memcache,
    Reply,
    ServerError,
    Session,
    Verb,
    body,
    cache,
    core,
)
from linepool.cache import Store
from linepool.protocols.memcache import Flags, Meta, Value
from tests.unit.memory_store import MemoryStore

if not core.compiled:
    pytest.skip(f"there is no compiled core: {core.why_pure}", allow_module_level=True)

from tests.unit.core_twins import Twins, cut, twins_of

CASES = 300
KEYS = [b"a", b"b", b"user:1/x", b"k" * 250, b"k" * 251, b"\xc3\xa9\xff", b"1", b"noreply", b"a\tb"]
KEYS += [b"a", b"b", b"a\r", b"HTTP/1.1"]
NUMBERS = [b"0", b"1", b"7", b"-1", b"007", b"+5", b"100", b"4294967295", b"4294967296", b"2592001"]
NUMBERS += [b"1900000100", b"9" * 18, b"1" + b"0" * 18, b"18446744073709551615", b"x", b"1x", b"-0"]
FLAGS = [b"v", b"t", b"c", b"f", b"s", b"k", b"q", b"h", b"l", b"u", b"I", b"x", b"T30", b"N10"]
FLAGS += [
    b"Oab12",
    b"O" + b"x" * 32,
    b"F12",
    b"C1",
    b"E99",
    b"D2",
    b"J5",
    b"MS",
    b"MA",
    b"Mx",
    b"b",
]
FLAGS += [b"T", b"T-1", b"T-0", b"Tx", b"C-1", b"S5", b"P", b"L", b"?", b"\xe9", b"v1", b"D", b"R5"]
FLAGS += [b"F" + b"9" * 12, b"C" + b"9" * 18, b"C" + b"9" * 19, b"M", b"O", b"MI", b"N-2147483649"]
STORAGE = [b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas"]
OTHERS = [
    b"stats",
    b"version",
    b"verbosity 1",
    b"flush_all",
    b"GET a",
    b"nothing",
    b"own a noreply",
]
OTHERS += [
    b"",
    b"x",
    b"mn",
    b"mn mn",
    b"me a",
    b"quit",
    b"set",
    b"get",
    b"get ",
    b"mg",
    b"gat 1",
    b"a\0b",
]
OTHERS += [
    b"get " + b"x" * 2044,
    b"get" + b" kkk" * 23,
    b"get" + b" kkk" * 600,
    b"set a 0 0 2000000",
]
WRONG: list[Any] = [memoryview(b"view"), "k", bytearray(b"x")]


def chosen(rng: random.Random) -> bytes:
    """Return a request, often one with an error."""
    key = rng.choice(KEYS) if rng.random() < 0.5 else b"v%d" % rng.randrange(50)
    number = rng.choice(NUMBERS) if rng.random() < 0.4 else b"1"
    end = b"\r\n" if rng.random() < 0.9 else b"\n"
    quiet = rng.choice([b"", b"", b" noreply", b" noreplx", b" 0", b" 0 noreply"])
    kind = rng.randrange(10)
    if kind < 3:
        verb, keys = (
            rng.choice([b"get", b"gets"]),
            [rng.choice(KEYS) for _ in range(rng.randrange(3))],
        )
        return b" ".join([verb, key, *keys]) + rng.choice([b"", b"", b" "]) + end
    if kind < 5:
        verb, data = rng.choice(STORAGE), rng.choice([b"", b"7", b"41", b"x\r\ny", b"x" * 5000])
        size = rng.choice(NUMBERS) if rng.random() < 0.1 else b"%d" % len(data)
        unique = b" %b" % rng.choice(NUMBERS) if verb == b"cas" else b""
        line = b"%b %b %b %b %b%b%b" % (verb, key, number, rng.choice(NUMBERS), size, unique, quiet)
        return line + end + data + (b"\r\n" if rng.random() < 0.95 else b"")
    if kind < 8:
        verb = rng.choice([b"mg", b"mg", b"ms", b"md", b"ma"])
        flags = b"".join(b" " + rng.choice(FLAGS) for _ in range(rng.randrange(5)))
        if rng.random() < 0.5:  # without most of the errors
            flags = b"".join(b" " + flag for flag in rng.sample(FLAGS[:15], rng.randrange(6)))
        if verb == b"ms":
            return b"ms %b 3%b%bxyz\r\n" % (key, flags, end)
        return verb + b" " + key + flags + end
    if kind < 9:
        verb = rng.choice([b"incr", b"decr", b"touch", b"delete", b"gat", b"gats"])
        words = [verb, number, key] if verb.startswith(b"gat") else [verb, key, number]
        return b" ".join(words[:2] if verb == b"delete" else words) + quiet + end
    return rng.choice(OTHERS) + end


def changed(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one of them replaced, removed or doubled."""
    at = rng.randrange(len(data))
    return (
        data[:at]
        + rng.choice([b"", b" ", b"\n", b"\0", b"\x80", data[at : at + 1] * 2])
        + data[at + 1 :]
    )


def cases(seed: int) -> Iterator[tuple[list[bytes], bool, bool]]:
    rng = random.Random(seed)
    for _ in range(CASES):
        data = b"".join(chosen(rng) for _ in range(rng.randrange(1, 8)))
        if rng.random() < 0.2:
            data = changed(data, rng)
        places = [rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 1, 2, 5]))]
        yield cut(data, places) or [data], rng.random() < 0.7, rng.random() < 0.5


def of_store(*, in_batches: bool = False) -> App:
    def memory() -> Iterator[Store]:
        yield MemoryStore(time.time)

    def batch(store: Store) -> Iterator[Store]:
        yield store

    app = cache.server(memory, batch=batch if in_batches else None)

    @app.handler
    def own(key: str) -> str:
        return key

    return app


def of_store_in_batches() -> App:
    return of_store(in_batches=True)


def items(key: bytes) -> Iterator[Value]:
    yield Value(key, b"1")
    yield Value(key, b"2", 3, 4)


def answer(key: bytes, *flags: Flags) -> Any:
    """Return the value, or raise the error, that belongs to a key; it may be any."""
    values: list[Any] = [
        None,
        True,
        False,
        7,
        -(2**63),
        2**64,
        1.5,
        "text",
        "\xe9",
        "\ud800",
        "a\nb",
    ]
    values += [
        b"bytes",
        b"a\r",
        bytearray(b"x"),
        [],
        {},
        {"a": b"x", b"b": None},
        {"a": 1, "b": "c"},
    ]
    values += [Value(b"k", b"d"), Value(b"k", b"d", 2**32, 2**63), Value(b"k", b"d", True), (7,)]
    values += [
        [Value(b"k", b"d", 1, 2), Value(b"l", b"")],
        [Value(b"k", b""), 7],
        (Value(b"", b""),),
    ]
    values += [
        Value(b"k", WRONG[0]),
        [Value(WRONG[1], b"")],
        Value(b"k", b"", 0, True),
        object(),
    ]
    values += [Reply(raw=b"raw\r\n"), Reply("x", close=True), Reply(b"y"), Meta("HD"), Meta("EN")]
    values += [
        Meta("VA", b"data", {"t": -1, "c": 5, "f": 2**70}, "ZW"),
        Meta("VA", b"", {"t": 0, "k": 1}),
    ]
    values += [
        Meta("NS", answers={"t": True}),
        Meta("HD", marks="\xe9"),
        Meta("VA", WRONG[2]),
    ]
    values += [Meta("VA", b"", {"s": 4, "v": 9})]
    if not key.startswith(b"v"):
        return "STORED"
    number = int(key[1:]) if key[1:].isdigit() else 0
    if number < len(values):
        return values[number]
    if number == 49:
        return items(key)
    if number == 48:
        return (value for value in [Value(key, b""), 7])
    for given in flags:
        given.pop("t", None)
        given.update([("O", b"new"), ("f", b"")] if number == 47 else [("b", b"")] * (number == 46))
        given.key = b"other"
    if number < 46:
        raise [ClientError("no"), ServerError("bad"), ValueError("x")][number % 3]
    return Meta("VA", b"data", {"t": -1, "c": 5, "f": 1})


def of_odd_answers() -> App:
    app = App(protocol=Memcache())

    @app.handler("get", "gets")
    def get(verb: Verb, key: bytes, *keys: bytes) -> Any:
        return answer(key)

    @app.handler("gat", "gats")
    def gat(session: Session, exptime: float, *keys: bytes) -> Any:
        session["n"] = len(keys)
        return answer(keys[0])

    @app.handler("set", "add", "cas")
    def store(key: bytes, flags: int, exptime: str, size: int, data: bytes = body("size")) -> Any:
        return answer(key) if data else len(data)

    @app.handler("append")
    def append(key: bytes, flags: bool, exptime: int, size: int, unique: int = 0) -> Any:
        return answer(key)

    @app.handler("incr", "decr", "touch", "delete")
    def other(key: bytes, number: int = 3) -> Any:
        return answer(key)

    @app.handler("mg", "md", "ma")
    def meta(key: bytes, flags: Flags, verb: Verb) -> Any:
        return answer(key, flags)

    @app.handler("ms")
    def ms(key: str, size: int, data: bytes = body("size")) -> Any:
        return answer(key.encode())

    @app.handler("mn")
    def mn(flags: Flags) -> Any:
        return Meta("MN", None, {"t": 1}) if not flags and not flags.key else 7

    return app


def with_middleware() -> App:
    app = of_odd_answers()
    app.middleware(lambda request, _session, call_next: call_next(request))
    return app


def same(twins: Twins, seed: int) -> None:
    for number, (pieces, accepts, early) in enumerate(cases(seed)):
        try:
            twins.run(pieces, accepts=accepts, early=early)
        except AssertionError as error:
            error.add_note(f"case {number} of seed {seed}")
            raise


@pytest.mark.parametrize("app", [of_store, of_store_in_batches, of_odd_answers, with_middleware])
def test_random_requests_are_answered_alike(app, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_900_000_000.0)
    with twins_of(app) as twins:
        same(twins, 15)
