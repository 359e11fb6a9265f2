"""Cases for the line protocol in the compiled core: an app with handlers of every kind, and lines for it.

A case is made from a seed and a number alone, so a failure can be repeated.
"""

from __future__ import annotations

import contextvars
import random
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal

from attrs import define

from linepool import (
    App,
    ClientError,
    Connection,
    Range,
    Reply,
    Rest,
    ServerError,
    Session,
    Verb,
    body,
)

VARIANTS = ("plain", "middleware", "batches", "hooks", "unguarded", "login")
LOG_IN = b"AUTH ann 1\n"
LONG_VERB = "L" * 70

_seen = contextvars.ContextVar("_seen", default=0)


class Color(Enum):
    RED = "r"
    BLUE = "b"


class Level(IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


class Broken(str):
    """A str whose methods fail."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise RuntimeError("not this one")


class Journal(list[str]):
    """A resource of a worker."""


class Batch(list[str]):
    """What the requests of a batch share."""


@define
class Case:
    """What a client sends, and how it connects."""

    pieces: list[bytes]
    accepts: bool
    early: bool


def make_app(variant: str = "plain") -> App:  # noqa: C901 - it is a list
    """Return an app with handlers of every kind."""
    app = App(guard=variant != "unguarded")
    _add_words(app)
    _add_injected(app)
    _add_replies(app)
    _add_failures(app)
    if variant == "middleware":

        @app.middleware
        def around(request: Any, session: Session, call_next: Any) -> object:
            if request.words[:1] == [b"13"]:
                raise ClientError("unlucky")
            value = call_next(request)
            return f"<{value}>" if type(value) is str else value

    if variant in ("batches", "unguarded", "login"):
        _add_batches(app)
    if variant == "login":
        _add_login(app)
    if variant == "hooks":

        @app.on_connect
        def hello(session: Session) -> str:
            session["hello"] = True
            return "hello"

        @app.on_disconnect
        def bye(session: Session) -> None: ...

    if variant == "unguarded":

        @app.unknown
        def unknown(verb: Verb, *words: bytes) -> str:
            return f"{verb!r} {words!r}"

    return app


def _add_words(app: App) -> None:  # noqa: C901 - it is a list
    @app.handler("ADD", "sum")
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def echo(text: str) -> str:
        return text

    @app.handler
    def raw(data: bytes) -> bytes:
        return data

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
    def maybe(a: int | None = None) -> str:
        return repr(a)

    @app.handler
    def many(first: int, *words: bytes) -> int:
        return first + len(words)

    @app.handler
    def named(a: int, *, b: int = 1, c: bool = False) -> str:
        return repr((a, b, c))

    @app.handler
    def say(text: Rest) -> str:
        return repr(text)

    @app.handler
    def put(key: bytes, size: int, data: bytes = body("size")) -> bytes:
        return key + b"=" + repr(data).encode()

    @app.handler
    def odd(color: Color, kind: Literal["x", "y"] = "x", n: Annotated[int, Range(0, 9)] = 0) -> str:
        return repr((color, kind, n))

    @app.handler("é", LONG_VERB)
    def other() -> str:
        return "other"

    parameters = ", ".join(f"w{number}: int" for number in range(26))
    names: dict[str, Any] = {}
    exec(f"def wide({parameters}): return w25", names)
    app.handler(names["wide"])


def _add_injected(app: App) -> None:
    @app.handler
    def count(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    @app.handler
    def login(session: Session, name: str) -> None:
        session.user = name

    @app.handler
    def mixed(a: int, session: Session, b: str = "x") -> str:
        return f"{a} {b} {session.get('n')} {session.user}"

    @app.handler("VERB", "WHICH")
    def which(verb: Verb) -> str:
        return verb

    @app.handler
    def push(text: str, connection: Connection) -> str:
        connection.push(f"pushed {text}")
        return "done"

    @app.handler
    def bye(connection: Connection) -> str:
        connection.close()
        return "bye"

    @app.handler
    def pinned(connection: Connection) -> None: ...

    @app.handler
    def context(n: int) -> int:
        before = _seen.get()
        _seen.set(n)
        return before


def _add_replies(app: App) -> None:
    values: dict[str, object] = {
        "none": None,
        "list": ["a", 1, None, "END", (1, 2.5), b"x"],
        "empty": [],
        "dict": {"a": 1, "b": True},
        "tuple": (1, "x"),
        "raw": Reply(raw=b"as it is\r\n"),
        "rawend": Reply(raw=b"closed\r\n", close=True),
        "close": Reply("last", close=True),
        "reply": Reply(5),
        "breaks": b"a\nb",
        "cr": "a\rb",
        "surrogate": "\ud800",
        "broken": Broken("x"),
        "text": Text("subclass"),
        "level": Level.LOW,
        "color": Color.RED,
        "decimal": Decimal("1.50"),
        "array": bytearray(b"array"),
        "nan": float("nan"),
        "tiny": 1e-300,
        "max": 2**63 - 1,
        "min": -(2**63),
        "over": 2**63,
        "huge": 10**5000,
        "object": object(),
        "nested": [[[1]]],
        "lines": ["a\nb"],
    }

    @app.handler
    def value(name: str) -> object:
        return values[name]

    @app.handler
    def big(size: int) -> str:
        return "x" * min(size, 200_000)

    @app.handler
    def gen(n: int) -> Iterator[object]:
        yield from range(min(n, 300))

    @app.handler
    def genfail(n: int) -> Iterator[object]:
        yield n
        raise ServerError("in the middle")

    @app.handler
    def gensession(session: Session) -> Iterator[object]:
        yield session.get("n")
        session["n"] = 100


class _Base(BaseException):
    pass


def _add_failures(app: App) -> None:
    errors: dict[str, BaseException | type[BaseException]] = {
        "client": ClientError("your fault"),
        "breaks": ClientError("two\nlines \ud800 é"),
        "server": ServerError("my fault"),
        "value": ValueError("bad"),
        "type": TypeError,
        "exit": SystemExit,
        "exit3": SystemExit(3),
        "interrupt": KeyboardInterrupt,
        "generator": GeneratorExit,
        "stop": StopIteration,
        "base": _Base("base"),
        "memory": MemoryError,
        "assert": AssertionError(),
    }

    @app.handler
    def fail(name: str) -> None:
        error = errors[name]
        raise error if isinstance(error, type) else type(error)(*error.args)

    @app.handler
    def failsession(session: Session) -> None:
        session["n"] = 50
        raise ClientError("after a change")

    @app.handler
    def deep() -> None:
        deep()


def _add_batches(app: App) -> None:
    @app.resource
    def journal() -> Iterator[Journal]:
        yield Journal()

    @app.resource(scope="batch")
    def batch(journal: Journal) -> Iterator[Batch]:
        shared = Batch()
        yield shared
        if "bad" in shared:
            raise ServerError("cannot commit")
        if "worse" in shared:
            raise ValueError("cannot commit")
        journal[:] = shared

    @app.handler
    def write(text: str, batch: Batch) -> int:
        batch.append(text)
        return len(text)

    @app.handler
    def writeall(batch: Batch, *texts: str) -> int:
        batch.extend(texts)
        return len(texts)

    @app.handler
    def note(text: str, journal: Journal, session: Session) -> str:
        journal[:] = [text]
        return f"{text} {len(session)}"


def _add_login(app: App) -> None:
    @app.authenticate
    def check(user: str, password: str) -> bool:
        return password == "1"

    @app.handler
    def logout(session: Session) -> int:
        session.user = None
        return 0

    @app.handler(public=True)
    def hello(name: str) -> str:
        return name


_GOOD = [b"1", b"2", b"-7", b"12", b"0", b"x"]
WORDS = [
    *_GOOD,
    *(b"+5", b"1_0", b"9" * 18, b"9" * 19, b"-" + b"9" * 18, b"-" + b"9" * 19, b"9" * 40, b"-"),
    *(
        b"0x1",
        b"1.5",
        b"-1e3",
        b"nan",
        b"inf",
        b"-inf",
        b"1e999",
        b"-1e400",
        b"1e-999",
        b".5",
        b"5.",
    ),
    *(b".", b"e5", b"1e", b"1e+5", b"--5", b"0007", b"-0", b"-0.0", b"1e5", b"0." + b"3" * 60),
    *(b"true", b"false", b"TRUE", b"YES", b"off", b"maybe", b"10", b"r", b"RED", b"blue"),
    *(b'"a b"', b"'q'", b'"bad', b'a"b', b'"x"y', b"it's", b'"\\x41\\n"', b"\\", b"END"),
    *(
        b"\xc3\xa9",
        b"\xff",
        b"\xff\xf4",
        b"\xff\xff",
        b"\xff\xfd\x01",
        b"\xff\xfa",
        b"\xff\xfd\x06",
    ),
    *(b"\0", b"a\rb", b"\r", b"", b"\xf0\x9f\x98\x80", b"\xc3", b"\xed\xa0\x80", b"\xd9\xa3"),
    *(b" 3", b"\v4", b"\f", b"\x1c5", b"\x85", b"\xa0", b"A" * 200, b"a/b", b"http://x", b"13"),
    *(b"bad", b"worse", b"b", b"c", b"\x7f", b"\x1b[A"),
]
VALUES = (
    b"none list empty dict tuple raw rawend close reply breaks cr surrogate broken text level color"
    b" decimal array nan tiny max min over huge object nested lines nothing"
).split()
FAILURES = (
    b"client breaks server value type exit exit3 interrupt generator stop base memory assert nothing"
).split()
_VERBS = [
    *(b"ADD", b"add", b"Add", b"sum", b"ECHO", b"echo", b"RAW", b"MUL", b"FLAG", b"OPT", b"MAYBE"),
    *(b"MANY", b"NAMED", b"SAY", b"ODD", b"\xc3\xa9", b"\xc3\x89", LONG_VERB.encode(), b"WIDE"),
    *(b"COUNT", b"count", b"LOGIN", b"MIXED", b"VERB", b"which", b"PUSH", b"PINNED", b"CONTEXT"),
    *(b"GEN", b"GENFAIL", b"GENSESSION", b"BIG", b"FAILSESSION", b"HELP", b"FOO", b""),
    *(b"WRITE", b"WRITEALL", b"NOTE", b"GET", b"Host:", b"l" * 64, b"l" * 71, b"BYE", b"QUIT"),
]
BEFORE_WORD = (
    *(
        b"ADD ",
        b"ADD 1 ",
        b"ECHO ",
        b"RAW ",
        b"MUL ",
        b"FLAG ",
        b"OPT ",
        b"OPT 1 2 3 ",
        b"MAYBE ",
        b"MANY ",
    ),
    *(b"NAMED 1 b ", b"MIXED ", b"MIXED 1 ", b"ODD ", b"SAY ", b"CONTEXT ", b"LOGIN ", b"VERB "),
)
_HEADS = [
    *(
        b"@ ",
        b"@ ",
        b"@ ",
        b"@i=7 ",
        b"@i=a-1 ",
        b"@i=_,i=2 ",
        b"@i=" + b"x" * 33 + b" ",
        b"@x,i=a.b ",
    ),
    *(b"@Q ", b"@i ", b"@\t", b" @ ", b"@", b"@, "),
]
_ENDING = {b"BYE", b"QUIT", b"PINNED", b"BIG", b"GEN"}  # rarely, for little would follow
_FIRST = [
    *(
        b"GET / HTTP/1.1\r\n",
        b"POST /x HTTP/1.0\nADD 1 2\n",
        b"\x16\x03\x01xx",
        b"\x80\x2e\x01\x00\x02",
    ),
    *(
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY x\n",
        b"\r\n\r\n\0\r\nQUIT\n",
    ),
    *(b"\n\n", b"  \r\n", b"\t", b"Host: x\r\n", b"GET /", b"PUT k 1\nx\n", b"PR", b"\x16", b"\r"),
    *(
        b"ADD 1 2",
        b"/x\n",
        b"add http://x 1\n",
        b"GET x HTTP/1.1\n",
        b"echo a:b\n",
        b"get\n",
        b"7 x\n",
    ),
]
_LINES = [b"   ", b"\t", b"A" * 9000, b"ADD 1 " + b"2" * 8184, b"ECHO " + b"y" * 8187]
_LINES += [b"ECHO " + b"y" * 8188, b" " * 8192, b"RAW " + b"z" * 5000, b"\xff\xf1", b" ADD 1  2 "]


def line(choose: random.Random) -> bytes:
    """Return a line, or something like one, with its ending; some of them framed requests."""
    made = _line(choose)
    return made if choose.random() < 0.8 else choose.choice(_HEADS) + made


def _line(choose: random.Random) -> bytes:
    eol = choose.choice((b"\n", b"\n", b"\r\n"))
    kind = choose.random()
    if kind < 0.02:
        return choose.choice(_LINES) + eol
    if kind < 0.15:  # one odd word
        return choose.choice(BEFORE_WORD) + choose.choice(WORDS) + eol
    if kind < 0.4:  # what the core takes
        verb, count = choose.choice(
            [
                (b"ADD", 2),
                (b"add", 2),
                (b"MUL", 2),
                (b"ECHO", 1),
                (b"RAW", 1),
                (b"COUNT", 0),
                (b"MIXED", 2),
                (b"OPT", 1),
            ]
        )
        return b" ".join([verb, *choose.choices(_GOOD, k=count)]) + eol
    if kind < 0.52:
        verb, names = choose.choice([(b"VALUE", VALUES), (b"FAIL", FAILURES)])
        return verb + b" " + choose.choice(names) + eol
    if kind < 0.58:
        data = bytes(choose.choices(b"ab\n\r\"'\xff\0", k=choose.randrange(9)))
        size = len(data) + (choose.random() < 0.1)
        return b"PUT k %d%b%b%b" % (size, eol, data, choose.choice((b"\n", b"\r\n")))
    verb = choose.choice(_VERBS)
    if verb in _ENDING and choose.random() < 0.8:
        verb = b"ADD"
    words = choose.choices(WORDS, k=choose.choice((0, 1, 1, 1, 2, 2, 2, 3, 4, 9, 24, 25, 26)))
    if verb == b"BIG":
        words = [b"%d" % choose.choice((0, 10, 5000, 70_000))]
    return choose.choice((b" ", b" ", b" ", b"  ", b"\t", b"\v")).join([verb, *words]) + eol


def case(seed: object, number: int, variant: str = "plain") -> Case:
    """Return one case; the same one for the same arguments."""
    choose = random.Random(f"{seed} {number}")
    lines = [line(choose) for _ in range(choose.choice((1, 1, 2, 3, 5, 8, 30)))]
    if variant == "login":
        others = (b"AUTH ann 2\n", b"LOGOUT\n", b"HELLO x\n", b"LOGIN\n")
        lines = [choose.choice(others) if choose.random() < 0.1 else one for one in lines]
        lines = [one for each in lines for one in ([LOG_IN] * (choose.random() < 0.3) + [each])]
    if choose.random() < 0.1:
        lines.insert(0, choose.choice(_FIRST))
    if choose.random() < 0.02:  # more than one chunk, and more than one batch
        lines = lines[:8] * choose.choice((50, 400))
    # A batch that fails would be another one if it took longer than 2 ms, as a traceback in the log may do.
    if len(lines) > 8 or any(b"FAIL" in one.upper() for one in lines):
        lines = [one for one in lines if b"bad" not in one and b"worse" not in one]
    data = b"".join(lines)
    if choose.random() < 0.2:
        data = data[: -choose.randrange(1, 4)]
    places = choose.choices(range(len(data) + 1), k=choose.choice((0, 0, 1, 1, 3, 6)))
    if choose.random() < 0.3:  # between lines
        places = [data.find(b"\n", place) + 1 for place in places]
    ends = sorted({*places} - {0, len(data)})
    pieces = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    return Case(pieces, choose.random() < 0.6, choose.random() < 0.5)
