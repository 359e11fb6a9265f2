"""Clients of another protocol: HTTP, TLS, and a PROXY header. Every protocol refuses them alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import (
    App,
    Bad,
    Dialogue,
    JsonRpc,
    Line,
    Memcache,
    Protocol,
    ReplyError,
    Request,
    Resp,
    Rest,
    Session,
)
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.protocols.strangers import MOST_KEPT_BYTES, FirstBytes
from linepool.resources import Resources
from linepool.service import Service
from linepool.testing import assert_split_invariant


class Fields(Protocol):
    """A user's protocol: each request is one field, and a semicolon ends it."""

    def start(self) -> None:
        self.unread = b""

    def feed(self, data: bytes) -> None:
        self.unread += data

    def next_request(self) -> Request | Bad | None:
        verb, ending, unread = self.unread.partition(b";")
        if not ending:
            return None
        self.unread = unread
        return Request(verb, [], self.commands.get(verb.strip().upper()), line=verb)

    def eof(self) -> Bad | None:
        return None

    @property
    def at_boundary(self) -> bool:
        return not self.unread

    def encode(self, value: object, request: Request) -> bytes:
        return f"{value};".encode()

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        return b"!;"

    def dump(self) -> bytes:
        return self.unread

    def load(self, blob: bytes) -> None:
        self.start()
        self.unread = blob


MESSAGE = b'{"jsonrpc":"2.0","id":1,"method":"RUN"}'
PROTOCOLS: dict[str, tuple[Protocol, bytes]] = {  # with a request for the command RUN
    "line": (Line(), b"RUN\r\n"),
    "memcache": (Memcache(), b"RUN\r\n"),
    "resp": (Resp(), b"RUN\r\n"),
    "resp, binary": (Resp(), b"*1\r\n$3\r\nRUN\r\n"),
    "json": (JsonRpc(), MESSAGE + b"\r\n"),
    "json, headers": (JsonRpc(framing="headers"), b"Content-Length: 39\r\n\r\n" + MESSAGE),
    "smtp": (Dialogue.smtp(), b"RUN\r\n"),
    "pop3": (Dialogue.pop3(), b"RUN\r\n"),
    "a user's": (Fields(), b"RUN;"),
}
HTTP = [
    b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    b"GET / HTTP/1.0\n",
    b"GET /a?b=c HTTP/0.9\r\n\r\n",
    b"GET /\r\n",
    b"POST /add HTTP/1.1\r\nHost: here\r\nContent-Type: text/plain\r\nContent-Length: 39\r\n\r\n",
    b"post / http/1.1\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"VERSION-CONTROL /x HTTP/1.1\r\n",
    b"GET http://127.0.0.1:7000/ HTTP/1.1\r\n\r\n",
    b"CONNECT here:7000 HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/3\r\n",
    b"GET\t/  HTTP/1.1 \r\n",
    b"GET /a b c HTTP/1.1\r\n",
    b"GET /" + b"x" * 300 + b" HTTP/1.1\r\n\r\n",
    b"\r\n\r\nPOST / HTTP/1.1\r\n\r\n",
    b"\n \t\nPOST / HTTP/1.1\n\n",
    b"Host: 127.0.0.1:7000\r\n\r\n",
    b"host:here\n\n",
]
TLS = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(11, 200)),
    b"\x16\x03\x00\x00\x05\n",
    b"\x16\x03\x03\n\x01\n",
    b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\n",
    b"\x80\x4c\x01\x03\x01\x00\x33\x00\x00\x00\x10\n",
]
PROXY = [
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 7000\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 7000\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\3\xe8\x1b\x58",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
]
REASONS = [
    *itertools.product(HTTP, ["HTTP"]),
    *itertools.product(TLS, ["TLS hello"]),
    *itertools.product(PROXY, ["PROXY header"]),
]


calls: list[str] = []


def served(protocol: Protocol, *, guard: bool = True) -> Service:
    app = App(protocol=protocol, guard=guard)
    app.handler("RUN", "SM")(lambda: calls.append("run"))
    app.handler("QUIT")(lambda: calls.append("quit"))
    return app.freeze()


class Client:
    """What a client does to an app, without a socket."""

    def __init__(self, service: Service) -> None:
        calls.clear()
        self.service = service
        self.conversation = self.connected()
        self.replies = [self.conversation.greet()]

    def connected(self) -> Conversation:
        return Conversation(self.service, Session("t", "t", "t"), Resources())

    def send(self, *parts: bytes, moving: bool = False) -> None:
        for part in parts:
            self.conversation.feed(part)
            self.replies += answers(self.conversation)
            if self.conversation.closing:
                return
            if moving:
                blob = self.conversation.dump()
                self.conversation = self.connected()
                self.conversation.load(blob)


def cuts(data: bytes, stop: int) -> Iterable[tuple[list[bytes], bool]]:
    """All in one, byte by byte, and in two parts at each place up to ``stop``; with and without a move."""
    for moving in (False, True):
        yield [data], moving
        yield [data[at : at + 1] for at in range(len(data))], moving
    for at in range(1, stop):
        yield [data[:at], data[at:]], at % 2 == 0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_client_of_another_protocol_is_refused_however_its_bytes_are_cut(name, caplog):
    protocol, run = PROTOCOLS[name]
    service = served(protocol)
    for beginning, reason in REASONS:
        # Cut off before that, these bytes are wrong in the protocol itself, so it ends the connection.
        own_error = (name == "memcache" and beginning.startswith(b"\x80")) or (
            name == "json, headers" and beginning.startswith((b"\r\n", b"\n"))
        )
        data = beginning + run * 3 + b"QUIT\r\n"
        for parts, moving in cuts(data, min(len(beginning), 40)):
            caplog.clear()
            client = Client(service)
            client.send(*parts, moving=moving)

            told = (beginning, len(parts[0]), moving)
            assert calls == [], told
            assert client.conversation.closing, told
            assert own_error or len(caplog.messages) == 1, told
            assert own_error or f"reason={reason}" in caplog.text, told


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_reads_nothing_beyond_the_greeting(name):
    for beginning, _ in REASONS:
        client = Client(served(PROTOCOLS[name][0]))
        greeting = list(client.replies)
        client.send(beginning + PROTOCOLS[name][1])
        assert client.replies == greeting


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_app_may_serve_them(name, caplog):
    protocol, run = PROTOCOLS[name]
    client = Client(served(protocol, guard=False))
    client.send(run, b"BREW / HTTP/1.1\r\n\r\n")

    assert calls == ["run"]
    assert "rejected" not in caplog.text


@pytest.mark.parametrize(
    "line", [b"BREW / HTTP/1.1\r\n", b"GET /\r\n", b"Host: here\r\n", b"host:here\r\n"]
)
@pytest.mark.parametrize("name", ["line", "memcache", "resp", "json", "smtp", "pop3"])
def test_a_later_line_of_http_that_is_not_a_command_ends_the_connection(name, line, caplog):
    protocol, run = PROTOCOLS[name]
    client = Client(served(protocol))
    client.send(run + b"FRO 1\r\n" + line + run)

    assert calls == ["run"]
    assert client.conversation.closing
    assert "reason=HTTP" in caplog.text


def test_middleware_is_not_called_for_a_later_line_of_http():
    seen: list[bytes] = []
    app = App()

    @app.middleware
    def note(request: Request, session: Session, call_next: Callable[[Request], object]) -> object:
        seen.append(request.verb)
        return call_next(request)

    assert app.ask(b"help quit\nHost: here\nquit\n").startswith(b"QUIT\n")
    assert seen == [b"help"]


def test_a_request_line_with_a_path_is_refused_before_its_end(caplog):
    client = Client(served(Line()))
    client.send(b"POST /" + b"x" * 10_000)
    assert b"".join(client.replies) == b""
    assert "reason=HTTP" in caplog.text


# -- clients that are not refused


def test_commands_with_the_names_of_http_are_served():
    app = App()

    @app.handler("GET", "POST", "PUT", "DELETE", "HOST", "PROXY", "HOST:")
    def get(words: Rest) -> str:
        return words

    for verb in (b"GET", b"post", b"Put", b"DELETE", b"HOST", b"PROXY", b"host:"):
        for words in (b"key", b"/", b"/a/b c", b"http://here/ 1", b"* 1.1", b"TCP 4"):
            assert_split_invariant(app, verb + b" " + words + b"\n")
            assert app.ask(verb + b" " + words + b"\n") == words + b"\n"
    assert app.ask(b"get a\nGET / HTTP/1.1\n") == b"a\n/ HTTP/1.1\n"
    assert app.ask(b"get a\n\x16\x03\nget b\n") == (
        b"a\nERROR unknown command '\\x16\\x03'. HELP lists the commands.\nb\n"
    )


@pytest.mark.parametrize(
    ("protocol", "script", "reply"),
    [
        (Line(), b"\xff\xfb\x01\xff\xfd\x03RUN\r\n", b"\xff\xfe\x01\xff\xfc\x03OK\r\n"),
        (Line(), b"\r\n\r\nRUN\n", b"OK\n"),
        (Line(), b"\r\n\r\n", b""),
        (Resp(), b"*1\r\n$3\r\nRUN\r\n", b"$-1\r\n"),
        (
            Resp(),
            b"*2\r\n$4\r\nECHO\r\n$15\r\nGET / HTTP/1.1\n\r\n",
            b"$15\r\nGET / HTTP/1.1\n\r\n",
        ),
        (Dialogue.smtp(), b"\r\nRUN\r\n", b"220 ready\r\n500 Command not recognized\r\n250 OK\r\n"),
        (Dialogue.smtp(), b"EHLO here\r\n", b"220 ready\r\n500 Command not recognized\r\n"),
        (Memcache(), b"get a b\r\n", b"ERROR\r\n"),
        (
            JsonRpc(framing="headers"),
            b"Content-Type: text/plain; x=HTTP/1.1\r\nContent-Length: 39\r\n\r\n" + MESSAGE,
            b'Content-Length: 38\r\n\r\n{"jsonrpc":"2.0","result":null,"id":1}',
        ),
    ],
)
def test_a_client_of_the_protocol_is_served_however_its_bytes_are_cut(protocol, script, reply):
    service = served(protocol)
    for parts, moving in cuts(script, len(script)):
        client = Client(service)
        client.send(*parts, moving=moving)
        assert b"".join(client.replies) == reply


def test_no_reply_waits_for_the_end_of_the_first_line():
    client = Client(served(Fields()))
    client.send(b"RUN;")
    assert calls == ["run"]
    client.send(b" RUN;")
    assert calls == ["run", "run"]


@given(st.lists(st.binary(max_size=600), max_size=10))
def test_what_is_kept_of_a_first_line_has_a_bound(parts):
    first = FirstBytes()
    for part in parts:
        if first.reason(part, lambda _: False) is not None:
            break
        assert len(first.kept) <= MOST_KEPT_BYTES


@pytest.mark.parametrize("size", [1, 7, 100, 128, 255, 1000])
@pytest.mark.parametrize(
    "middle",
    [b"x" * 300, b"x " * 300, b" " * 300, b"x" * 140 + b" x " + b"x" * 140],
    ids=["one word", "words", "blanks", "a word that is not kept"],
)
@pytest.mark.parametrize("start", [b"get ", b"GET /", b"9 ", b"Host:", b"GET a://"])
@pytest.mark.parametrize("end", [b"HTTP/1.1", b" HTTP/1.1\r", b"/", b" :"])
def test_a_long_first_line_is_judged_alike_however_it_is_cut(start, middle, end, size):
    line = start + middle + end + b"\n"
    first = FirstBytes()
    parts = [line[at : at + size] for at in range(0, len(line), size)]
    said = [first.reason(part, lambda name: name == b"get") for part in parts]

    whole = FirstBytes().reason(line, lambda name: name == b"get")
    assert next(one for one in said if one is not None) == whole
