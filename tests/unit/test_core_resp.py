"""RESP in the compiled core does what it does in pure Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from linepool import App, ClientError, Reply, Resp, ServerError, Session, Verb, core
from linepool.errors import UnknownCommand, UsageError
from linepool.protocols.resp import OK, NullArray, PerVersion, Push, Status, Verbatim

if not core.compiled:
    pytest.skip(f"there is no compiled core: {core.why_pure}", allow_module_level=True)

from tests.unit.core_twins import cut, twins_of

CASES = 250  # of each app

VALUES: dict[str, Any] = {
    "none": None,
    "null array": NullArray(),
    "bytes": b"a\r\nb\0\xff",
    "empty": b"",
    "str": "text",
    "wide": "é\U0001f600",
    "surrogate": "\ud800",
    "true": True,
    "false": False,
    "zero": 0,
    "minus": -12,
    "min": -(2**63),
    "max": 2**63 - 1,
    "over": 2**63,
    "float": 1.5,
    "whole": 3.0,
    "-0": -0.0,
    "tiny": 1e-300,
    "inf": float("-inf"),
    "nan": float("nan"),
    "OK": OK,
    "status": Status("FINE"),
    "other ok": Status("OK"),
    "two lines": Status("a\r\nb"),
    "bad status": Status("\ud800"),
    "view": memoryview(b"view"),
    "part": memoryview(b"a view")[2:],
    "strided": memoryview(b"a view")[::2],
    "numbers": memoryview(b"12345678").cast("I"),
    "array": bytearray(b"array"),
    "list": [1, b"two", None, "three", [], (4.5, True, memoryview(b"x"))],
    "long": list(range(100)),
    "odd list": [1, {2}],
    "dict": {"a": 1, b"b": [None], 3: OK},
    "set": {7},
    "verbatim": Verbatim("text"),
    "push": Push([1, "x"]),
    "per version": [PerVersion([1, {2}], {1: NullArray()}), PerVersion([b"x"], {b"x": 1})],
    "reply": Reply(5),
    "raw": Reply(raw=b"+as it is\r\n"),
    "last": Reply("last", close=True),
    "object": object(),
    "error": ClientError("returned"),
    "unknown": UnknownCommand(),
    "usage": UsageError("", "missing"),
    "deep": [[[[[[[[[[[1]]]]]]]]]]],
}
FAILURES: dict[str, BaseException] = {
    "client": ClientError("your fault"),
    "lines": ClientError("two\r\nlines"),
    "code": ClientError("no", code="WRONGTYPE"),
    "server": ServerError("my fault"),
    "unknown": UnknownCommand(),
    "usage": UsageError("", "option"),
    "value": ValueError("bad"),
    "exit": SystemExit(3),
}
WORDS = [
    *(b"", b"0", b"1", b"-1", b"12", b"007", b"-0", b"+5", b"-", b" 3", b"3 ", b"1_0", b"9" * 18),
    *(b"9" * 19, b"-" + b"9" * 18, b"1.5", b"-1e3", b"nan", b"inf", b"1e999", b".5", b"5.", b"x"),
    *(b"true", b"false", b"YES", b"2", b"nx", b"EX", b"by", b"a\r\nb", b"\0\xff", b"\xc3\xa9"),
    *(b"key", b"k" * 63, b"k" * 64, b"k" * 65, b"k" * 300, b"bad"),
]
VERBS = [
    *(b"GET", b"SET", b"set", b"Get", b"ADD", b"MUL", b"FLAG", b"OPT", b"MANY", b"ALL", b"NAMED"),
    *(b"COUNT", b"WHICH", b"VERB", b"WRITE", b"READ", b"WRITEALL", b"PING", b"ECHO", b"CLIENT"),
    *(
        b"HELLO",
        b"AUTH",
        b"SELECT",
        b"MULTI",
        b"EXEC",
        b"DISCARD",
        b"WATCH",
        b"NOPE",
        b"",
        b"RESET",
    ),
    *(b"LOGIN", b"SUBSCRIBE", b"QUIT", b"G" * 70, b"COMMAND"),
]
RARE = {b"SUBSCRIBE", b"QUIT", b"COMMAND", b"AUTH", b"HELLO"}
RAW = [
    *(b"PING\r\n", b"GET k\r\n", b"\r\n", b"*0\r\n", b"*-1\r\n", b"*1\r\n$4\r\nPINGxx", b"*01\r\n"),
    *(
        b"*1\r\n$-1\r\n",
        b"*2\r\n+x\r\n",
        b"$3\r\nGET\r\n",
        b"*x\r\n",
        b"*1\rx$4\r\nPING\r\n",
        b"'\r\n",
    ),
    *(b"*2\r\n$03\r\nGET\r\n$1\r\nk\r\n", b"*99999999\r\n", b"*1\r\n$99999999999\r\n", b"*1\n"),
]
FIRST = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01xx",
    b"*",
    b"\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
]


class Shared(list[bytes]):
    """What the requests of a batch have in common."""


def make_app(**options: Any) -> App:  # noqa: C901 - many small handlers
    app = App(protocol=Resp(transactions=True, **options), max_body_bytes=12_000)
    kept: dict[bytes, bytes] = {}

    @app.resource(scope="batch")
    def shared() -> Iterator[Shared]:
        shared = Shared()
        yield shared
        if b"bad" in shared:
            raise ServerError("cannot commit")

    @app.handler
    def get(key: bytes) -> memoryview | None:
        value = kept.get(key)
        return None if value is None else memoryview(value)

    @app.handler
    def set_(key: bytes, value: bytes, *, ex: int | None = None, nx: bool = False) -> Status:
        kept[key] = value if ex is None else b"%b for %d" % (value, ex)
        return Status("new") if nx else OK

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def mul(a: float, b: float = 1.0) -> float:
        return a * b

    @app.handler
    def flag(yes: bool) -> bool:
        return not yes

    @app.handler
    def opt(a: int = 7, b: str = "b", c: bytes = b"", d: bool = True) -> str:
        return repr((a, b, c, d))

    @app.handler
    def many(first: int, *words: bytes) -> list[Any]:
        return [first, *words]

    @app.handler("ALL")
    def all_(*numbers: int) -> tuple[int, ...]:
        return numbers

    @app.handler
    def named(a: int, b: int = 5, *, by: int | None, nx: bool = False) -> str:
        return repr((a, b, by, nx))

    @app.handler
    def count(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    @app.handler
    def login(session: Session, name: str) -> None:
        session.user = name

    @app.handler("VERB", "WHICH")
    def which(verb: Verb) -> str:
        return verb

    @app.handler
    def write(word: bytes, shared: Shared) -> int:
        shared.append(word)
        return len(shared)

    @app.handler
    def read(shared: Shared) -> list[bytes]:
        return list(shared)

    @app.handler
    def writeall(shared: Shared, *words: bytes) -> int:
        shared.extend(words)
        return len(shared)

    @app.handler
    def value(name: str) -> Any:
        return VALUES[name]

    @app.handler
    def fail(name: str, shared: Shared) -> None:
        shared.append(b"failed")
        raise type(FAILURES[name])(*FAILURES[name].args)

    @app.handler
    def yields(count: int) -> Iterator[int]:
        yield from range(count)

    return app


def with_middleware() -> App:
    app = make_app()

    @app.middleware
    def around(request: Any, session: Session, call_next: Any) -> object:
        if request.words[:1] == [b"007"]:
            raise ClientError("unlucky")
        return call_next(request)

    return app


APPS = {
    "open": make_app,
    "password": lambda: make_app(password="pw"),
    "middleware": with_middleware,
}


def packed(*words: bytes) -> bytes:
    """Return a request."""
    bulk = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n" % len(words) + b"".join(bulk)


def request(choose: random.Random) -> bytes:
    """Return a request, or something like one."""
    kind = choose.random()
    if kind < 0.02:
        return choose.choice(RAW)
    if kind < 0.15:
        return packed(b"VALUE", choose.choice([*VALUES]).encode())
    if kind < 0.2:
        return packed(b"FAIL", choose.choice([*FAILURES]).encode())
    if kind < 0.22:
        return packed(b"YIELDS", b"%d" % choose.randrange(4))
    if kind < 0.25:
        return packed(b"HELLO", choose.choice([b"2", b"3"]))
    verb = choose.choice(VERBS)
    if verb in RARE and choose.random() < 0.8:
        verb = b"GET"
    return packed(
        verb, *choose.choices(WORDS, k=choose.choice((0, 1, 1, 1, 2, 2, 2, 3, 4, 9, 24, 25)))
    )


def case(choose: random.Random, *, password: bool) -> list[bytes]:
    """Return what a client sends, in pieces."""
    requests = [request(choose) for _ in range(choose.choice((1, 1, 2, 3, 5)))]
    if password and choose.random() < 0.8:
        requests.insert(0, packed(b"AUTH", b"pw"))
    if choose.random() < 0.05:
        requests.insert(0, choose.choice(FIRST))
    if choose.random() < 0.01:
        requests.append(packed(b"ECHO", b"v" * choose.choice((9_999, 10_000, 11_900, 12_001))))
    data = b"".join(requests)
    if choose.random() < 0.1:
        data = data[: -choose.randrange(1, 6)]
    return cut(data, choose.choices(range(len(data) + 1), k=choose.choice((0, 0, 1, 1, 2, 3, 6))))


@pytest.mark.parametrize("kind", APPS)
def test_random_requests_have_the_same_effect_in_both(kind):
    with twins_of(APPS[kind]) as twins:
        for number in range(CASES):
            choose = random.Random(f"{kind} {number}")
            pieces = case(choose, password=kind == "password")
            twins.run(pieces, accepts=choose.random() < 0.6, early=choose.random() < 0.5)


@pytest.mark.parametrize("version", [b"2", b"3"])
def test_each_reply_is_the_same_in_both(version):
    with twins_of(make_app) as twins:
        for name in VALUES:
            twins.run([packed(b"HELLO", version), packed(b"VALUE", name.encode())], accepts=True)
        for name in FAILURES:
            twins.run([packed(b"HELLO", version), packed(b"FAIL", name.encode())], accepts=True)


def test_a_long_pipeline_is_the_same_in_both():
    requests = [
        packed(b"SET", b"key", b"v" * 40),
        packed(b"GET", b"key"),
        packed(b"ADD", b"2", b"3"),
    ]
    data = b"".join(requests) * 2000
    with twins_of(make_app) as twins:
        for accepts in (False, True):
            seen = twins.run(cut(data, [16_384, 50_000, 50_005]), accepts=accepts)
            assert sum(one.replies.count(b":5\r\n") for one in seen) == 2000
