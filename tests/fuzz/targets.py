"""The protocols that are fuzzed, each with an app, its limits and bytes that lead somewhere.

An app's handlers never fail, so an "internal error" in a reply is a fault of ours. The limits are small:
otherwise hardly any stream would reach them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal
from uuid import UUID

from attrs import define

from linepool import (
    Answers,
    App,
    Ask,
    Connection,
    Dialogue,
    JsonRpc,
    Limits,
    Line,
    Login,
    Memcache,
    Range,
    Reply,
    Resp,
    Rest,
    Session,
    body,
)
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.protocols.memcache import Flags, Meta, Value
from linepool.resources import Resources
from linepool.service import Service
from linepool.session import Session as SessionOfConnection

REFUSED = b"(refused)"
"""In place of the replies to a client of another protocol. Before it is known to be one, it may have had
replies to its empty lines, or to a line that is too long: these depend on the cuts."""
_LIMITS = Limits(max_line_bytes=200, max_body_bytes=400)


@define
class Target:
    """One protocol to be fuzzed.

    Attributes:
        service: Its app, made ready to serve.
        tokens: Bytes that its requests consist of.
    """

    service: Service
    tokens: Sequence[bytes]

    def replies(self, parts: Sequence[bytes], *, moving: bool = False) -> bytes:
        """Return all replies to a stream that arrives in these parts.

        Args:
            parts: The stream.
            moving: Dump the protocol after each part, and load it into a new one.

        Raises:
            Exception: Whatever the protocol raises, which must be none.
        """
        session = SessionOfConnection("t", "t", "t")
        conversation = Conversation(self.service, session, Resources())
        said = [conversation.greet()]
        for part in parts:
            if not conversation.admit(part):
                return REFUSED
            conversation.protocol.feed(part)
            said += answers(conversation)
            if conversation.closing:
                break
            if moving:
                blob = conversation.dump()
                conversation = Conversation(self.service, session, Resources())
                conversation.load(blob)
        said.append(conversation.eof_reply())
        return b"".join(said)


def cut(data: bytes, seed: object) -> list[bytes]:
    """Return the parts of a stream, cut at random; the same ones for the same stream and seed."""
    choose = random.Random(f"{seed}{data!r}")
    longest = choose.choice((1, 3, 16, 200))
    parts = []
    while data:
        size = choose.randint(1, longest)
        parts.append(data[:size])
        data = data[size:]
    return parts


def check(target: Target, data: bytes) -> None:
    """Check one stream.

    Raises:
        AssertionError: A cut or a move changes the replies, or one is an internal error.
        Exception: Out of the protocol.
    """
    whole = target.replies([data])
    assert b"internal error" not in whole, whole
    for seed in range(2 * (whole != REFUSED)):
        for moving in (False, True):
            got = target.replies(cut(data, seed), moving=moving)
            assert got == whole, f"cut {seed}, {moving=}:\n{got!r}\n{whole!r}"


def _line() -> App:
    app = App(protocol=Line())

    @app.handler
    def put(key: bytes, size: int, data: bytes = body("size")) -> bytes:
        return key + b"=" + repr(data).encode()

    @app.handler
    def say(text: Rest) -> str:
        return repr(text)

    @app.handler
    def words(*words: bytes) -> str:
        return repr(words)

    @app.handler
    def typed(
        a: int, *, b: Decimal = Decimal(1), c: Fraction = Fraction(1), d: bool = False
    ) -> str:
        return repr((a, b, c, d))

    @app.handler
    def more(a: UUID | None = None, b: Annotated[float, Range(0, 1)] = 0.5) -> str:
        return repr((a, b))

    @app.handler
    def lists(a: list[int], b: Literal["x", 1] = 1) -> list[int]:
        return a

    @app.handler
    def count(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    @app.handler
    def bye() -> Reply:
        return Reply("bye", close=True)

    return app


def _memcache() -> App:
    app = App(protocol=Memcache(max_multiget_bytes=3000))

    @app.handler("get", "gets")
    def get(*keys: bytes) -> list[Value]:
        return [Value(key, key, 1, 2) for key in keys if key.startswith(b"k")]

    @app.handler("gat", "gats")
    def gat(exptime: int, *keys: bytes) -> list[Value]:
        return get(*keys)

    @app.handler("set", "add", "replace", "append", "prepend")
    def set_(key: bytes, flags: int, exptime: int, size: int, data: bytes = body("size")) -> bool:
        return data != b"no"

    @app.handler
    def cas(
        key: bytes, flags: int, exptime: int, size: int, unique: int, data: bytes = body("size")
    ) -> bool:
        return True

    @app.handler("incr", "decr")
    def incr(key: bytes, delta: int) -> int:
        return delta

    @app.handler
    def delete(key: bytes) -> bool:
        return True

    @app.handler
    def touch(key: bytes, exptime: int) -> bool:
        return exptime > 0

    @app.handler
    def flush_all(delay: int = 0) -> None: ...

    _add_meta_commands(app)
    return app


def _add_meta_commands(app: App) -> None:
    @app.handler
    def mg(key: bytes, flags: Flags) -> Meta:
        return Meta("VA", key, {"t": -1, "s": len(key)})

    @app.handler
    def ms(key: bytes, size: int, flags: Flags, data: bytes = body("size")) -> Meta:
        return Meta("HD")

    @app.handler("md", "ma")
    def md(key: bytes, flags: Flags) -> Meta:
        return Meta("NF")


def _resp() -> App:
    app = App(protocol=Resp(password="p", transactions=True, max_queue=4, max_queue_bytes=60))

    @app.handler("ECHO")
    def echo(value: bytes) -> bytes:
        return value

    @app.handler("KEYS")
    def keys(*keys: bytes) -> dict[bytes, object]:
        return {key: [None, 1.5, True, {key}] for key in keys}

    @app.handler("TYPED")
    def typed(a: int, b: float = 0.0, *, c: Fraction = Fraction(1), d: bool = False) -> str:
        return repr((a, b, c, d))

    return app


def _jsonrpc(framing: str) -> App:
    app = App(protocol=JsonRpc(framing=framing, max_batch=5, max_batch_bytes=200))

    @app.handler("echo")
    def echo(value: object = None) -> str:
        return repr(value)

    @app.handler("typed")
    def typed(a: int, b: str = "", c: Fraction = Fraction(1), d: Decimal = Decimal(1)) -> str:
        return repr((a, b, c, d))

    @app.handler("lists")
    def lists(a: list[int], b: dict[str, float] | None = None) -> list[int]:
        return a

    return app


def _dialogue(protocol: Dialogue) -> App:
    app = App(protocol=protocol)

    @app.handler(to="greeted")
    def helo(name: str) -> str:
        return f"hello {name!r}"

    @app.handler(when="greeted", to="mail")
    def mail(path: Rest) -> None: ...

    @app.handler(when=("greeted", "mail"), to="start")
    def data(text: bytes = body()) -> str:
        return repr(text)

    @app.handler(to="mail")
    def ask(first: str, answers: Answers) -> str | Ask:
        if len(answers) < 2 or answers[-1] == "NOOP":
            return Ask(f"350 {len(answers)}")
        return repr([one.reveal() for one in answers])

    @app.handler
    def stat() -> tuple[str, list[str]] | list[str]:
        return ("2 messages", ["1", ".2"]) if protocol.dots else ["one", "two"]

    @app.handler
    def close(connection: Connection) -> None:
        connection.close()

    return app


def _target(app: App, *tokens: bytes) -> Callable[[], Target]:
    return lambda: Target(app.freeze(_LIMITS), tokens)


def _locked(app: App, *tokens: bytes) -> Callable[[], Target]:
    """Return a target whose clients have to log in."""

    @app.authenticate
    def check(user: str, password: str) -> bool:
        return password == "p"

    @app.handler("out", public=True)
    def log_out(session: Session) -> None:
        session.user = None

    @app.handler("enter", public=True)
    def enter(login: Login, session: Session) -> str:
        login("me", "p" if session.failed_logins else "x")
        return "in"

    return _target(app, *tokens)


_JSON = (
    *(b'{"jsonrpc":"2.0","method":"echo","params":[', b'],"id":', b"}", b"\n", b"\r\n", b" "),
    *(b'{"jsonrpc":"2.0","method":"typed","params":{"a":1,"c":"1e9"},"id":"x"}', b"[", b"]", b","),
    *(
        b'{"jsonrpc":"2.0","method":"lists","params":[[1,2]]}',
        b"1e999",
        b"null",
        b"true",
        b'"\\ud800"',
    ),
    *(b'{"jsonrpc":"2.0","method":"rpc.discover","id":1}', b"0" * 50, b"\xff", b"NaN", b'"a":'),
)
_DIALOGUE = (
    *(b"HELO me\r\n", b"MAIL x\r\n", b"DATA\r\n", b".\r\n", b"..a\r\n", b"\r\n.\r\n", b"\r", b"\n"),
    *(
        b"\n",
        b"a\n",
        b" ",
        b"STAT\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"x" * 201,
        b"DATA x\r\n",
        b"x" * 60,
        b"ASK x\r\n",
        b"*\r\n",
    ),
    *(b"CLOSE\r\n", b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"\x16\x03\x01", b"\0", b"\xe9", b"."),
)

TARGETS: dict[str, Callable[[], Target]] = {
    "line": _target(
        _line(),
        *(b"\n", b"\r\n", b"\r", b"\0", b" ", b'"', b"'", b"\\", b"\\x41", b"END", b"\xff\xfd\x01"),
        *(b"\xff\xfd\x06", b"\xff\xff", b"\xff\xfa", b"\xff\xf0", b"put k 3\r\nabc\r\n", b"put k "),
        *(b"put k 401\n", b"put 'k", b"say a  b\n", b'words "a b" c\r\n', b"count\n", b"help\n"),
        *(b"@ put k 3\nabc\n", b"@i=1 say a\n", b"@", b"@i=2,", b"x=", b"@ count\n", b"@Q put k "),
        *(b"typed 1 b 2.5 c 1/3 d\n", b"typed 1 c 1e99\n", b"more - 0.5\n", b"lists [1]\n", b"nan"),
        *(
            b"quit\n",
            b"bye\r\n",
            b"GET / HTTP/1.1\r\n",
            b"Host:",
            b"\x16\x03",
            b"x" * 201,
            b"9" * 20,
        ),
    ),
    "memcache": _target(
        _memcache(),
        *(
            b"get k1 k2\r\n",
            b"gat 1 k\r\n",
            b"set k 0 0 3\r\nabc\r\n",
            b"set k 0 0 ",
            b" noreply\r\n",
        ),
        *(
            b"cas k 0 0 1 1\r\na\r\n",
            b"incr k 1\r\n",
            b"delete k\r\n",
            b"touch k 1\r\n",
            b"flush_all\r\n",
        ),
        *(
            b"mg k v t s O1 k b\r\n",
            b"ms k 2 q\r\nab\r\n",
            b"md k q\r\n",
            b"ma k N0 D1\r\n",
            b"mn\r\n",
        ),
        *(
            b"me k\r\n",
            b"verbosity 1\r\n",
            b"version\r\n",
            b"quit\r\n",
            b"stats\r\n",
            b"\r\n",
            b"\n",
        ),
        *(
            b"\r",
            b"\0",
            b"\x80",
            b" ",
            b"\t",
            b"k" * 251,
            b"x" * 2049,
            b"get " + b"k " * 1400,
            b"401",
        ),
        *(b"\rx", b"+1", b"-1", b"4294967296", b"99999999999999999999", b"GET / HTTP/1.1\r\n"),
    ),
    "resp": _target(
        _resp(),
        *(
            b"*2\r\n$4\r\nAUTH\r\n$1\r\np\r\n",
            b"AUTH p\r\n",
            b"HELLO 3\r\n",
            b"PING\r\n",
            b"RESET\r\n",
        ),
        *(b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n", b"ECHO x\r\n", b"KEYS a b\r\n", b"TYPED 1 2.5\n"),
        *(
            b"MULTI\r\n",
            b"EXEC\r\n",
            b"DISCARD\r\n",
            b"WATCH x\r\n",
            b"SUBSCRIBE a\r\n",
            b"QUIT\r\n",
        ),
        *(
            b"COMMAND\r\n",
            b"COMMAND INFO ping\r\n",
            b"CLIENT SETNAME x\r\n",
            b"CLIENT INFO\r\n",
            b'"',
        ),
        *(
            b"*",
            b"$",
            b"*1\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"$-1\r\n",
            b"$401\r\n",
            b"*11\r\n",
            b"'",
            b"\\x",
        ),
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"*1048577\r\n",
            b"POST / HTTP/1.1\r\n",
            b"x" * 70000,
            b"9" * 20,
        ),
    ),
    "jsonrpc": _target(_jsonrpc("lines"), *_JSON, b"x" * 402),
    "jsonrpc-headers": _target(
        _jsonrpc("headers"),
        *(
            b"Content-Length: ",
            b"Content-Length: 2\r\n\r\n[]",
            b"\r\n\r\n",
            b"content-length:49\r\n\r\n",
        ),
        *_JSON,
        b"x" * 8192,
    ),
    "dialogue": _target(_dialogue(Dialogue()), *_DIALOGUE),
    "smtp": _target(_dialogue(Dialogue.smtp(max_errors=5)), *_DIALOGUE),
    "pop3": _target(_dialogue(Dialogue.pop3()), *_DIALOGUE),
    "line-login": _locked(
        _line(),
        *(b"auth a p\n", b"auth a x\r\n", b"AUTH a ", b"out\n", b"enter\n", b"nope\n", b"\n", b"'"),
        *(
            b"put k 3\r\nabc\r\n",
            b"put k 20\n",
            b"say a  b\n",
            b"count\n",
            b"@j auth ",
            b'["a","p"]',
        ),
        *(b"@i=1 count\n", b"GET / HTTP/1.1\r\n", b"quit\n", b"\0", b"\xff\xfd\x01", b"x" * 201),
    ),
    "memcache-login": _locked(
        _memcache(),
        *(
            b"set k 0 0 3\r\na p\r\n",
            b"set k 0 0 3\r\na x\r\n",
            b"set k 0 0 1\r\na\r\n",
            b"out\r\n",
        ),
        *(
            b"get k1 k2\r\n",
            b"set k 0 0 ",
            b"add k 0 0 24\r\n",
            b" noreply\r\n",
            b"ms k 2 q\r\nab\r\n",
        ),
        *(
            b"mg k v\r\n",
            b"get\r\n",
            b"\r\n",
            b"\r",
            b"enter\r\n",
            b"nope\r\n",
            b"version\r\n",
            b"401",
        ),
        *(b"get " + b"k " * 1400, b"x" * 2049, b"\x80", b"99999999999999999999", b"quit\r\n"),
    ),
    "jsonrpc-login": _locked(
        _jsonrpc("lines"),
        *(
            b'{"jsonrpc":"2.0","method":"rpc.authenticate","params":["a","p"],"id":1}',
            b"[",
            b"]",
            b",",
        ),
        *(
            b'{"jsonrpc":"2.0","method":"rpc.authenticate","params":["a","x"],"id":1}',
            b"\n",
            b"\r\n",
        ),
        *(b'{"jsonrpc":"2.0","method":"out","id":1}', b'{"jsonrpc":"2.0","method":"enter"}'),
        *(b'{"jsonrpc":"2.0","method":"echo","id":1}', b'{"jsonrpc":"2.0","method":"nope","id":1}'),
    ),
    "smtp-login": _locked(
        _dialogue(Dialogue.smtp(max_errors=12)), b"ENTER\r\n", b"OUT\r\n", *_DIALOGUE
    ),
}
