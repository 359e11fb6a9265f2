"""Framed requests of the line protocol: a request that begins with @ gets a reply that says where it ends."""

import io
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import linepool
from linepool import App, ClientError, Connection, Line, Reply, Rest, SetupError
from linepool.asking import replies_to
from linepool.testing import assert_split_invariant


@attrs.frozen
class Point:
    x: int
    y: Decimal


VALUES: list[tuple[object, bytes]] = [
    (None, b"= null\n"),
    (5, b"= 5\n"),
    (True, b"= true\n"),
    (2.5, b"= 2.5\n"),
    ("", b'= ""\n'),
    ("tea", b'= "tea"\n'),
    ("two\r\nlines", b'= "two\\r\\nlines"\n'),
    (Decimal("1.50"), b'= "1.50"\n'),
    ({}, b"= {}\n"),
    ({"a": [1, {"b": None}]}, b'= {"a":[1,{"b":null}]}\n'),
    (Point(1, Decimal("2.5")), b'= {"x":1,"y":"2.5"}\n'),
    (b"", b"$ 0\n\n"),
    (b'ab"\n\0', b'$ 5\nab"\n\0\n'),
    (bytearray(b"x"), b"$ 1\nx\n"),
    ([], b"*\n.\n"),
    ((1, "a"), b'*\n= 1\n= "a"\n.\n'),
    ([Point(1, Decimal(2)), b"\xff", [1, [2]]], b'*\n= {"x":1,"y":"2"}\n$ 1\n\xff\n= [1,[2]]\n.\n'),
    ({7}, b"*\n= 7\n.\n"),
    (["END", "."], b'*\n= "END"\n= "."\n.\n'),
]


def app_of(value: Any = None, **options: Any) -> App:  # noqa: C901 - it is a list
    """Return an app with commands of every shape; F returns the value."""
    app = App(protocol=Line(**options))

    @app.handler
    def f() -> Any:
        return value

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def say(text: Rest) -> str:
        return text

    @app.handler
    def put(key: str, size: int, data: bytes = linepool.body("size")) -> bytes:
        return data

    @app.handler
    def items(count: int, *, fail: bool = False) -> Iterator[object]:
        yield from range(count)
        if fail:
            raise ValueError

    @app.handler
    def refuse() -> None:
        raise ClientError("no\nline \ud800", code=7, data={"left": 2})

    @app.handler
    def odd() -> None:
        raise ClientError("no", data=object())

    @app.handler
    def raw(data: bytes = b"") -> Reply:
        return Reply(raw=data)

    @app.handler
    def push(connection: Connection) -> str:
        connection.push({"half": True})
        return "whole"

    return app


APP = app_of()


def sent(data: bytes) -> bytes:
    """Return the reply to exactly these bytes: their last line is not completed."""
    return replies_to(APP.freeze(), APP.worker(), data)


def error_in(reply: bytes, head: bytes = b"") -> dict[str, Any]:
    """Return what a framed error says; its line is the whole reply."""
    assert reply.startswith(head + b"- {"), reply
    assert reply.count(b"\n") == 1
    found: dict[str, Any] = json.loads(reply.removeprefix(head + b"- "))
    return found


@pytest.mark.parametrize(("value", "reply"), VALUES, ids=lambda one: repr(one)[:40])
def test_a_reply_says_where_it_ends(value, reply):
    app = app_of(value)

    assert app.ask(b"@ f\n") == reply
    assert app.ask(b"@i=a.B_9- F\n") == b"@a.B_9- " + reply
    if b"\n" not in reply[:-1]:
        assert app.ask(b"@ f\r\n") == reply[:-1] + b"\r\n"


def values() -> st.SearchStrategy[Any]:
    """Return what a handler may return and JSON shows as it is."""
    one = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))
    inner = st.recursive(one, lambda of: st.lists(of) | st.dictionaries(st.text("aé\n"), of))
    return inner | st.binary() | st.lists(inner | st.binary())


@given(st.lists(values(), max_size=5), st.sampled_from(["", "i=7"]))
def test_any_value_comes_back(sent, attributes):
    left = [*sent]
    app = App()
    app.handler("F")(lambda: left.pop(0))
    stream = io.BytesIO(app.ask(f"@{attributes} f\n".encode() * len(sent)))

    assert [read(stream) for _ in sent] == sent
    assert stream.read() == b""


def read(stream: io.BytesIO) -> Any:
    """Return the value of a reply; StopIteration: several are over."""
    kind, _, rest = stream.readline().removeprefix(b"@7 ").rstrip(b"\n").partition(b" ")
    if kind == b"$":
        return stream.read(int(rest) + 1)[:-1]
    if kind == b"*":
        return list(iter(lambda: read(stream), StopIteration))
    return StopIteration if kind == b"." else json.loads(rest if kind == b"=" else b"")


def test_a_connection_has_framed_and_other_requests_in_any_order():
    assert APP.ask(b"add 1 2\n@i=1 add 3 4\r\n@ say  a  \"b\" \nadd 'x' 1\nadd 5 6\n") == (
        b'3\n@1 = 7\r\n= "a  \\"b\\" "\n'
        b"CLIENT_ERROR a must be int, not 'x'. Usage: ADD a:int b:int\n11\n"
    )


def test_a_stream_is_framed_item_by_item():
    assert APP.ask(b"@i=7 items 2\n@ items 0\n") == b"@7 *\n= 0\n= 1\n.\n*\n.\n"


def test_a_stream_that_fails_ends_with_an_error_in_place_of_its_end():
    begun = APP.ask(b"@i=7 items 2 fail\n").splitlines(keepends=True)

    assert begun[:3] == [b"@7 *\n", b"= 0\n", b"= 1\n"]
    assert error_in(b"".join(begun[3:]))["error"] == "SERVER_ERROR"
    assert "id" in error_in(APP.ask(b"@i=7 items 0 fail\n"), b"@7 ")  # it has not begun


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            b"add x 3",
            {
                "error": "CLIENT_ERROR",
                "why": "value",
                "text": "a must be int, not 'x'",
                "usage": "ADD a:int b:int",
            },
        ),
        (
            b"fro",
            {"error": "ERROR", "text": "unknown command 'fro'. HELP lists the commands."},
        ),
        (
            b"refuse",
            {
                "error": "CLIENT_ERROR",
                "code": 7,
                "text": "no\\x0aline \\xd800",
                "data": {"left": 2},
            },
        ),
        (b"odd", {"error": "CLIENT_ERROR", "text": "no"}),
        (b"", {"error": "CLIENT_ERROR", "text": "no command follows the @"}),
        (b"add 1\0 2", {"error": "CLIENT_ERROR", "text": "the line holds a NUL or a lone CR"}),
        (
            b"add 'x",
            {
                "error": "CLIENT_ERROR",
                "text": "unterminated quote, or text right after a closing quote",
            },
        ),
    ],
)
def test_an_error_is_one_framed_line(line, error):
    assert error_in(APP.ask(b"@ " + line + b"\n")) == error
    assert error_in(APP.ask(b"@q,i=8,x=1 " + line + b"\n"), b"@8 ") == error


def test_an_internal_error_has_the_id_of_the_log(caplog):
    error = error_in(APP.ask(b"@i=1 raw\n"), b"@1 ")  # what it returns could not be framed

    assert error["error"] == "SERVER_ERROR"
    assert error["text"] == f"internal error, id {error['id']}"
    assert f"id={error['id']} command=raw" in caplog.text
    assert "Reply(raw=...) cannot answer a framed request" in caplog.text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"@Q add 1 2", "attribute Q is unknown"),
        (b"@7 add 1 2", "'7' after @ is not an attribute such as i=7"),
        (b"@x,,y add 1 2", "'' after @ is not an attribute such as i=7"),
        (b"@x=\xe9, add 1 2", "'' after @ is not an attribute such as i=7"),
        (b"@joe add 1 2", "'joe' after @ is not an attribute such as i=7"),
        (b"@i add 1 2", "i must be 1 to 32 letters, digits, '.', '_' or '-'"),
        (b"@i= add 1 2", "i must be 1 to 32 letters, digits, '.', '_' or '-'"),
        (b"@i=" + b"x" * 33 + b" add 1 2", "i must be 1 to 32 letters, digits, '.', '_' or '-'"),
        *(
            (b"@t" + wrong + b" add 1 2", "t must be milliseconds, in up to 9 digits")
            for wrong in (b"", b"=", b"=-1", b"=1.5", b"=1234567890")
        ),
        (b"@j= add 1 2", "j takes no value"),
        (b"@x=" + b"x" * 125 + b" add 1 2", "the attributes after @ may hold 126 bytes at most"),
    ],
)
def test_a_wrong_attribute_refuses_the_request(line, text):
    error = {"error": "CLIENT_ERROR", "text": text}

    assert error_in(APP.ask(line + b"\n")) == error
    if b"i" not in line[:2] and len(line) < 127:
        assert error_in(APP.ask(line.replace(b" ", b",i=5 ", 1) + b"\n"), b"@5 ") == error


def test_attributes_in_small_letters_that_are_not_known_are_ignored():
    assert APP.ask(b"@x,y=\xe9,i=" + b"9" * 32 + b",z= add 1 2\n") == b"@" + b"9" * 32 + b" = 3\n"


def test_a_data_block_follows_a_framed_request():
    assert APP.ask(b"@i=1 put k 3\nabc\n@ put k 0\n\n") == b"@1 $ 3\nabc\n$ 0\n\n"
    assert "5 bytes" in error_in(APP.ask(b"@i=1 put k 5\nabcdef\nadd 1 2\n"), b"@1 ")["text"]
    assert "size" in error_in(APP.ask(b"@i=1 put k x\nadd 1 2\n"), b"@1 ")["text"]
    assert "incomplete" in error_in(sent(b"@i=1 put k 5\nab"), b"@1 ")["text"]


@pytest.mark.parametrize("line", [b"@ add 1 2", b"@i=1 put k", b"@" + b"x" * 9000 + b"\n"])
def test_what_is_no_request_yet_is_refused_without_a_frame(line):
    assert sent(b"@ add 1 2\n" + line).startswith(b"= 3\nCLIENT_ERROR ")


def test_quit_ends_the_connection_with_a_framed_reply():
    assert APP.ask(b"@i=5 quit\nadd 1 2\n") == b"@5 = null\n"


def test_help_is_framed():
    assert APP.ask(b"@ help add\n") == b'*\n= "ADD a:int b:int"\n= "Returns: int"\n.\n'


def test_what_is_pushed_is_told_from_the_reply():
    assert (
        APP.ask(b"@i=1 push\npush\n") == b'> {"half":true}\n@1 = "whole"\nhalf true\nEND\nwhole\n'
    )


def test_a_blank_before_the_at_sign_makes_no_framed_request():
    assert APP.ask(b" @ add 1 2\n") == b"ERROR unknown command '@'. HELP lists the commands.\n"


def test_telnet_commands_may_come_first():
    assert APP.ask(b"\xff\xfb\x01@ add 1 2\r\n") == b"\xff\xfe\x01= 3\r\n"


def test_framed_requests_can_be_turned_off():
    app = app_of(framed=False)
    app.handler("@")(lambda: "mine")

    assert app.ask(b"@\n@i=1 add 1 2\n") == (
        b"mine\nERROR unknown command '@i=1'. HELP lists the commands.\n"
    )


def test_a_command_that_looks_like_a_framed_request_is_refused():
    app = App()
    app.handler("@me")(lambda: "mine")

    with pytest.raises(SetupError, match=re.escape("command @ME: a line that begins with @")):
        app.freeze()


def test_middleware_sees_a_framed_request_as_any_other():
    app = app_of()

    @app.middleware
    def double(request: Any, session: Any, call_next: Any) -> Any:
        if request.verb == b"add":
            request = attrs.evolve(request, words=[word + b"0" for word in request.words])
        return call_next(request)

    assert app.ask(b"@i=1 add 1 2\n@ none\n@ say a\n").startswith(b"@1 = 30\n- {")


@attrs.frozen
class Spot:
    x: int
    y: int


def json_app() -> App:
    app = app_of()

    @app.handler
    def pay(to: str, amount: Decimal = Decimal(1), *, soon: bool = False) -> str:
        return f"{to} {amount} {soon}"

    @app.handler
    def log(points: list[Spot], *tags: bytes) -> str:
        return f"{points} {tags}"

    @app.handler
    def note(point: Spot, text: str | None = None) -> str:
        return f"{point} {text}"

    return app


JSON_APP = json_app()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'pay ["ann"]', "ann 1 False"),
        (b'pay {"to": "a  b", "amount": "12.50", "soon": true}', "a  b 12.50 True"),
        (b'note {"point": {"x": 1, "y": 2}}', "Spot(x=1, y=2) None"),
        (
            b'note [{"x": 1, "y": 3}, "it\'s \\n\\u00e9"]',
            "Spot(x=1, y=3) it's \né",
        ),
        (b'log {"points": [], "tags": []}', "[] ()"),
    ],
)
def test_the_arguments_may_be_one_json_value(line, value):
    assert (
        JSON_APP.ask(b"@j,i=1 " + line + b"\n")
        == b"@1 = " + json.dumps(value, ensure_ascii=False).encode() + b"\n"
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"pay", "the arguments must be a JSON list or object; Expecting value at character 1"),
        (b"pay [1 2]", "the arguments must be a JSON list or object; Expecting ',' at character 5"),
        (b"pay 3", "the arguments must be a JSON list or object; they are another value"),
        (b"pay [NaN]", "the arguments must be a JSON list or object; NaN is not JSON"),
        (b"pay [1]", "to must be str, not 1"),
        (b"pay []", "to is missing"),
        (b'pay {"to": "x", "x": 1}', "unknown parameter 'x'"),
        (b'pay ["a", 1, true]', "too many arguments: 3 given, at most 2"),
        (b'put ["k", "3"]', "size must be int, not '3'"),
        (b'put ["k", true]', "'True' is not the size of a data block in bytes"),
    ],
)
def test_wrong_json_arguments_are_refused_as_wrong_words_are(line, text):
    eol = b"\nabc\n" if b'"3"' in line else b"\n"

    assert error_in(JSON_APP.ask(b"@i=1,j " + line + eol), b"@1 ")["text"] == text


def test_a_data_block_follows_json_arguments():
    said = b'@j put ["k", 3]\nabc\n@j put {"size": 1, "key": "k"}\r\nx\r\n'

    assert JSON_APP.ask(said) == b"$ 3\nabc\n$ 1\r\nx\r\n"
    assert_split_invariant(JSON_APP, said)


SCRIPT = (
    b'@i=1 add 1 2\r\n@ say  a\nadd 1 2\n@i=2 put k 3\nabc\r\n@i=3 items 3 fail\n@x,Q put "k 1\n'
)


def test_no_cut_changes_framed_replies():
    assert_split_invariant(APP, SCRIPT)
