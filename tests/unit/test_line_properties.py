"""Properties of the line protocol: any bytes, any cut, any value."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import linepool
from linepool import App, Bad, Limits, Line, Range, Reply, Request, Rest, Session, Verb
from linepool.asking import replies_to
from linepool.protocols.base import Protocol
from linepool.testing import assert_split_invariant
from tests.fuzz.targets import Target
from tests.unit.test_arguments import Colour, Level, Point

SMALL = Limits(max_line_bytes=24, max_body_bytes=8)


def store_app() -> App:
    app = App()

    @app.handler
    def put(key: bytes, size: int, data: bytes = linepool.body("size")) -> bytes:
        return key + b"=" + repr(data).encode()

    @app.handler
    def say(text: Rest) -> str:
        return repr(text)

    @app.handler
    def words(*words: bytes) -> str:
        return repr(words)

    @app.handler
    def count(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    @app.handler
    def fail(text: str = "no") -> None:
        raise linepool.ServerError(text)

    @app.handler
    def lines(n: int):
        yield from range(min(n, 3))

    @app.handler
    def bye() -> Reply:
        return Reply("bye", close=True)

    return app


APP = store_app()
TABLE = APP.freeze().table

# Complete requests, and fragments that are likely to cause errors.
PIECES = [
    *(
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b'"',
        b"'",
        b"\\",
        b"\\x41",
        b"END",
        b"a",
        b"\xe9",
    ),
    *(
        b"\xff\xfd\x01",
        b"\xff\xfd\x06",
        b"\xff",
        b"\xff\xff",
        b"\xff\xfb",
        b"\xff\xfb\x01",
        b"\xff\xfa",
        b"\xff\xf0",
        b"\xff\xfa\n",
    ),
    *(
        b"put k 3\r\nabc\r\n",
        b"put k 2\n\r\n\n",
        b"put k 0\n\n",
        b"put k ",
        b"put k 9\n",
        b"put 'k",
    ),
    *(b"say a  b\n", b"say ", b'words "a b" c\r\n', b"words ", b"count\n", b"lines 2\n", b"fail\n"),
    *(b"quit\n", b"bye\r\n", b"help\n", b"help put\n", b"fro\n", b"words " + b"x" * 20 + b"\n"),
    *(b"3", b"8", b"x" * 25),
    *(
        b"@",
        b"@ ",
        b"@i=7 ",
        b"@i=7,",
        b"@t=9 ",
        b"@j ",
        b"@Q ",
        b'@j put ["k",2]\nab\n',
        b"@ lines 2\n",
    ),
]
STREAMS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=12).map(b"".join),
    st.binary(max_size=60),
)
CUTS = st.lists(st.integers(0, 200), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(marks)]


def replies(parts: list[bytes], *, moving: bool = False) -> list[bytes]:
    """Return a protocol's replies to a stream that arrives in these parts; each request is echoed."""
    protocol: Protocol = Line().open(TABLE, SMALL)
    sent: list[bytes] = []
    for part in parts:
        protocol.feed(part)
        while (request := protocol.next_request()) is not None:
            if isinstance(request, Bad):
                sent.append(request.reply)
                if request.close:
                    return sent
            else:
                sent.append(protocol.encode(repr(request), request))
        if moving:
            blob = protocol.dump()
            protocol = Line().open(TABLE, SMALL)
            protocol.load(blob)
    bad = protocol.eof()
    return [*sent, bad.reply] if bad else sent


def parse(
    parts: list[bytes], limits: Limits = SMALL, *, moving: bool = False
) -> list[Request | Bad]:
    """Return the requests and errors that a parser finds in a stream that arrives in these parts."""
    protocol: Protocol = Line().open(TABLE, limits)
    found: list[Request | Bad] = []
    for part in parts:
        protocol.feed(part)
        while (request := protocol.next_request()) is not None:
            found.append(request)
            if isinstance(request, Bad) and request.close:
                return found
        if moving:
            blob = protocol.dump()
            protocol = Line().open(TABLE, limits)
            protocol.load(blob)
    at_boundary = protocol.at_boundary
    bad = protocol.eof()
    assert at_boundary == (bad is None)
    return [*found, bad] if bad else found


# -- cuts


@pytest.mark.parametrize(
    "script",
    [
        b"words a b\r\nwords c\nsay  x \r\nlines 3\ncount\ncount\n",
        b"\n \r\nwords\r\n\r\ncount\n\n",
        b'words "a \\x0a\\" b" \'c d\'\r\nwords "open\nsay "kept\'\n',
        b"put k 5\r\nhello\r\nput k 0\n\nput k 4\n\r\n\r\n\r\ncount\r\n",
        b"put k 4\nab\r\n\r\nput x\nput k 3 4\nabc\ncount\n",
        b"put k x\nabc\ncount\n",
        b"put k 3\nabcd\ncount\n",
        b"put k 99\nabc\ncount\n",
        b"put k 6\r\nhel",
        b"put k 3\r\nabc\r",
        b"count\nput k 3",
        b"\xff\xfb\x01count\r\nwords a\xff\xffb\xff\xf1\r\nwords \xff\xfa\n\xff\xf0b\n\xff\r\n",
        b"put k 3\n\xff\xfb\x01\nwo\xff\xfb\x01rds\n",
        b"\xff\xfd\x01put k 3\nabc\ncount\n",
        b"fro\r\ncount x\nfail\r\nlines x\nfail 'a\nb'\nfail \"a\\nb\"\n\0\na\rb\r\ncount\n",
        b"count\nquit\ncount\n",
        b"bye\r\ncount\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\ncount\r\n",
        b"count\r\nHost: here\r\ncount\r\n",
        b"\x16\x03\x01\n\ncount\n",
        b"\r\n\x16\x03\x01",
        b"words 789012345678901234\r\ncount\n",
        b"words 7890123456789012345\r\ncount\n",
        b"words 789012345678901234\r5\n",
        b"help\nhelp put\nhelp fro\n",
        b"coun",
        b"",
    ],
    ids=lambda script: repr(script)[2:42],
)
def test_no_cut_changes_the_replies_to_a_script(script):
    assert_split_invariant(APP, script, SMALL)


def test_no_cut_changes_the_reply_of_a_handler_that_fails():
    app = App()

    @app.handler
    def divide(a: int, b: int) -> float:
        return a / b

    assert_split_invariant(app, b"divide 1 0\ndivide 1 2\n")


@pytest.mark.parametrize("protocol", ["greedy", "forgetful"])
def test_a_protocol_that_depends_on_the_cut_is_detected(protocol):
    class Greedy(Line):
        def next_request(self) -> Request | Bad | None:
            request = super().next_request()
            if request is not None and not self.at_boundary:
                self._forget()
            return request

    class Forgetful(Line):
        def load(self, blob: bytes) -> None:
            super().load(blob)
            self._forget()

    app = App(protocol=Greedy() if protocol == "greedy" else Forgetful())

    @app.handler
    def one() -> int:
        return 1

    with pytest.raises(AssertionError, match="cut at"):
        assert_split_invariant(app, b"one\none\n")


@given(STREAMS, CUTS)
@example(b"\x16\x03" + b"x" * 30 + b"\n", [2])
def test_no_cut_changes_what_is_parsed(data, places):
    whole = parse([data])

    assert parse(cut(data, places)) == whole
    assert parse([data[at : at + 1] for at in range(len(data))]) == whole


@given(STREAMS, CUTS)
@example(b"put k 3\nab", [8])
@example(b"put k 3\nabc\ncount\n", [8, 10])
def test_no_move_between_processes_changes_what_is_parsed(data, places):
    assert parse(cut(data, places), moving=True) == parse([data])


@given(STREAMS, CUTS, st.booleans())
@example(b"\xff\xfd\x01put k 3\nabc\n", [14], False)
def test_no_cut_and_no_move_changes_the_replies(data, places, moving):
    assert replies(cut(data, places), moving=moving) == replies([data])


# -- any bytes


@given(STREAMS)
def test_no_bytes_make_ask_raise_and_every_reply_ends_its_line(data):
    reply = replies_to(APP.freeze(), APP.worker(), data)

    assert reply == b"" or reply.endswith(b"\n")


@given(STREAMS, STREAMS)
def test_nothing_that_follows_changes_the_replies_before_it(first, second):
    before = [found for found in parse([first]) if isinstance(found, Request)]
    after = [found for found in parse([first + second]) if isinstance(found, Request)]

    assert after[: len(before)] == before


@given(st.binary(max_size=60))
def test_no_blob_makes_load_raise_anything_but_value_error(blob):
    protocol = Line().open(TABLE, SMALL)
    try:
        protocol.load(blob)
    except ValueError:
        return
    while (request := protocol.next_request()) and not (isinstance(request, Bad) and request.close):
        pass
    protocol.dump()


WORDS = st.one_of(
    st.sampled_from(
        [
            b"nan",
            b"inf",
            b"-inf",
            b"snan",
            b"1e999999",
            b"1/0",
            b"-1",
            b"0",
            b"1",
            b"9" * 4400,
            b"true",
        ]
    ),
    st.sampled_from(
        [b"[", b"{}", b"[1]", b'{"x":1}', b'{"x":NaN}', b"null", b'"\\ud800"', b"1e400"]
    ),
    st.sampled_from(
        [b"red", b"2026-01-31", b"9999-12-31T23:59:59+23:59", b"../..", b"a\0b", b"\xe9"]
    ),
    st.binary(max_size=6),
    st.text(max_size=6).map(lambda text: text.encode("utf-8", "replace")),
)


def quoted(word: bytes) -> bytes:
    return b'"' + b"".join(b"\\x%02x" % byte for byte in word) + b'"'


def typed_app() -> App:
    from datetime import date, datetime
    from decimal import Decimal
    from fractions import Fraction
    from pathlib import Path
    from typing import Annotated, Literal
    from uuid import UUID

    app = App()
    hints: list[object] = [
        *(str, bytes, int, float, bool, Decimal, Fraction, UUID, Path, date, datetime),
        *(Colour, Level, Literal["a", 1], int | None, int | Colour | date, Point, list[int]),
        *(dict[str, Point], Annotated[int, Range(1, 3)], Annotated[float, Range(0, 1)]),
        *(Annotated[Decimal, Range(0, 1)], Annotated[Fraction, Range(0, 1)]),
    ]
    for number, hint in enumerate(hints):

        def take(word: object, *, option: object = None) -> None: ...

        take.__annotations__.update(word=hint, option=hint)
        app.handler(f"T{number}")(take)

    @app.handler
    def say(text: Rest) -> None: ...

    app.unknown(take_unknown)
    return app


def take_unknown(verb: Verb, *words: bytes) -> str:
    return "unknown"


TARGET = Target(typed_app().freeze(), ())
COMMANDS = [name.decode() for name in TARGET.service.table]


@given(st.sampled_from(COMMANDS), st.lists(WORDS, max_size=4), st.booleans())
@example("T19", [b"nan"], True)
@example("T21", [b"nan"], True)
@example("\udce9", [], True)
def test_no_request_causes_a_server_error_if_no_handler_fails(command, words, option):
    verb = command.encode("utf-8", "surrogateescape")
    if option:
        words = [*words[:1], b"option", *words[1:]]

    assert b"SERVER_ERROR" not in TARGET.replies([b" ".join([verb, *map(quoted, words)]) + b"\n"])


# -- a naive model

TEXTS = st.lists(
    st.sampled_from([b"a", b"B", b" ", b"\t", b"\n", b"\r\n", b"\r", b"\0", b"\xe9", b"'", b"12"]),
    max_size=40,
).map(b"".join)


def model(stream: bytes) -> list[tuple[list[bytes], bytes] | None]:
    """Return the words and the ending of each line that has words, or None for a refused line."""
    lines: list[tuple[list[bytes], bytes] | None] = []
    for line in stream.split(b"\n")[:-1]:
        text, eol = (line[:-1], b"\r\n") if line[-1:] == b"\r" else (line, b"\n")
        if text.replace(b"\r", b" ").split():
            wrong = b"\r" in text or b"\0" in text
            lines.append(None if wrong else (text.split(), eol))
    return lines


@given(TEXTS)
def test_lines_are_split_as_a_naive_model_splits_them(stream):
    found: list[tuple[list[bytes], bytes] | None] = []
    for request in parse([stream], Limits()):
        if isinstance(request, Request):
            found.append(([request.verb, *request.words], request.eol))
        elif not request.close:
            found.append(None)

    assert found == model(stream)


@given(st.lists(st.binary(max_size=12), max_size=5))
def test_quoted_words_arrive_unchanged(words):
    given: list[tuple[bytes, ...]] = []
    app = App()

    @app.handler
    def take(*words: bytes) -> None:
        given.append(words)

    app.ask(b"take " + b" ".join(map(quoted, words)) + b"\n")

    assert given == [tuple(words)]


@given(st.binary(max_size=40), st.sampled_from([b"\n", b"\r\n"]), st.sampled_from([b"\n", b"\r\n"]))
def test_data_blocks_arrive_unchanged(data, line_end, block_end):
    found = parse([b"put k %d" % len(data) + line_end + data + block_end], Limits())

    assert len(found) == 1
    assert isinstance(found[0], Request)
    assert found[0].body == data
    assert found[0].eol == line_end


# -- replies

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(["END", b"END", "a\nEND", "\r", "OK\r\nOK"]),
)
ROWS = st.one_of(SCALARS, st.tuples(SCALARS), st.tuples(SCALARS, SCALARS), st.just(()))


def answer_of(value: object, eol: bytes) -> bytes:
    app = App()

    @app.handler
    def f() -> object:
        return value

    return app.ask(b"f" + eol)


@given(SCALARS, st.sampled_from([b"\n", b"\r\n"]))
def test_a_scalar_is_never_more_than_one_line(value, eol):
    reply = answer_of(value, eol)

    assert reply.endswith(eol)
    body = reply[: -len(eol)]
    assert b"\n" not in body
    assert b"\r" not in body


@given(
    st.one_of(
        st.lists(ROWS, max_size=4), st.dictionaries(st.text(max_size=4), SCALARS, max_size=4)
    ),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_a_reply_of_several_lines_has_one_end_line_and_it_is_the_last(value, eol):
    lines = answer_of(value, eol).split(eol)

    assert lines.pop() == b""
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    if lines[0].startswith(b"SERVER_ERROR"):
        assert len(lines) == 1
    else:
        assert len(lines) == len(value) + 1
        assert lines.index(b"END") == len(value)


@given(st.lists(ROWS, max_size=4))
def test_a_stream_is_sent_as_the_lines_of_the_list(items):
    whole = answer_of(items, b"\n")
    streamed = answer_of(iter(items), b"\n")

    if whole.startswith(b"SERVER_ERROR"):
        assert b"SERVER_ERROR" in streamed.splitlines()[-1]
    else:
        assert streamed == whole


@given(st.text(max_size=30))
def test_an_error_text_is_one_printable_line(text):
    reply = Line().open({}, SMALL).encode_error(linepool.ClientError(text), None)

    assert reply.startswith(b"CLIENT_ERROR ")
    assert reply.endswith(b"\r\n")
    assert reply[:-2].decode().isprintable()
