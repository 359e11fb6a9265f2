"""The line protocol without a socket: a client's bytes in, the bytes of the replies out."""

import dataclasses
import logging
import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import attrs
import pytest

import linepool
from linepool import App, Limits, Line, Reply, Rest, Verb
from linepool.asking import replies_to
from linepool.protocols.base import Bad

MAX_LINE = Limits().max_line_bytes
MAX_BODY = Limits().max_body_bytes
FAILED = re.compile(rb"SERVER_ERROR internal error, id ([0-9a-f]{8})\r?\n")


@pytest.fixture
def app() -> App:
    app = App()

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def words(*words: bytes) -> list[bytes]:
        return [b"<" + word + b">" for word in words]

    @app.handler
    def say(text: Rest) -> str:
        return f"<{text}>"

    @app.handler
    def tell(name: str, text: Rest) -> str:
        return f"<{name}><{text}>"

    @app.handler
    def put(key: str, size: int, data: bytes = linepool.body("size")) -> str:
        return f"{key}={data!r}"

    @app.handler("GET")
    def get(key: str) -> str:
        return key

    return app


def sent(app: App, data: bytes) -> bytes:
    """Return the reply to exactly these bytes: their last line is not completed."""
    return replies_to(app.freeze(), app.worker(), data)


def replying(value: Any, **options: Any) -> App:
    """Return an app whose command F returns that value."""
    app = App(**options)

    @app.handler
    def f() -> Any:
        return value

    return app


# -- lines and their endings


def test_a_reply_uses_the_line_ending_of_its_request(app):
    assert app.ask(b"ADD 2 3\r\n") == b"5\r\n"
    assert app.ask(b"ADD 2 3\n") == b"5\n"
    assert app.ask(b"ADD 2 3\r\nADD 2 3\nADD x 3\r\nFRO\nWORDS a b\r\n") == (
        b"5\r\n5\n"
        b"CLIENT_ERROR a must be int, not 'x'. Usage: ADD a:int b:int\r\n"
        b"ERROR unknown command 'FRO'. HELP lists the commands.\n"
        b"<a>\r\n<b>\r\nEND\r\n"
    )


def test_a_reply_without_a_request_uses_the_last_ending_seen(app):
    text = b"CLIENT_ERROR the last line has no line ending; it was not run"

    assert sent(app, b"ADD 2 3") == text + b"\r\n"
    assert sent(app, b"ADD 2 3\nADD") == b"5\n" + text + b"\n"
    assert sent(app, b"ADD 2 3\r\nADD") == b"5\r\n" + text + b"\r\n"


def test_pipelined_requests_are_answered_in_order(app):
    script = b"".join(b"ADD %d 1\n" % n for n in range(1000))

    assert app.ask(script) == b"".join(b"%d\n" % (n + 1) for n in range(1000))


def test_commands_ignore_case(app):
    assert app.ask(b"add 1 2\nAdd 1 2\nADD 1 2\n") == b"3\n3\n3\n"


def test_blanks_around_words_do_not_count(app):
    assert app.ask(b"  add \t 1   2 \v\f \n") == b"3\n"


def test_blank_lines_are_ignored(app):
    assert app.ask(b"\n\r\n  \t \r\nadd 1 2\n\n") == b"3\n"


def test_an_unfinished_line_at_the_end_is_never_executed():
    calls: list[str] = []
    app = App()
    app.handler("RUN")(lambda: calls.append("run"))

    for script in (b"RUN", b"RUN ", b"RUN\r", b"\nRUN"):
        reply = sent(app, script)
        assert reply.startswith(b"CLIENT_ERROR the last line has no line ending; it was not run")
    assert calls == []


def test_an_empty_stream_gets_no_reply(app):
    assert app.ask(b"") == b""


# -- special bytes


@pytest.mark.parametrize(
    "line", [b"add 1\0 2", b"\0", b"add\0 1 2", b"add 1\r2", b"add 1\r 2", b"\radd 1 2", b"f\rro"]
)
def test_a_nul_or_a_lone_cr_refuses_only_its_own_line(app, line):
    for eol in (b"\n", b"\r\n"):
        assert app.ask(line + eol + b"add 1 2" + eol) == (
            b"CLIENT_ERROR the line holds a NUL or a lone CR" + eol + b"3" + eol
        )


def test_a_nul_before_a_data_block_closes_the_connection(app):
    assert app.ask(b"put k\0 3\nabc\nadd 1 2\n") == (
        b"CLIENT_ERROR the line holds a NUL or a lone CR,"
        b" so the size of the data block is not known\n"
    )


def test_non_utf_8_bytes_are_refused_for_a_text_parameter(app):
    assert app.ask(b"tell \xe9 x\n").startswith(
        rb"CLIENT_ERROR name must be UTF-8 text, not '\xe9'."
    )
    assert app.ask(b"say \xe9\n").startswith(rb"CLIENT_ERROR text must be UTF-8 text, not '\xe9'.")
    assert app.ask(b"words \xe9\n") == b"<\xe9>\nEND\n"


def test_an_unknown_command_is_shown_escaped_and_shortened(app):
    assert app.ask(b"\xc3\xa9\x1b\\x\n") == (
        b"ERROR unknown command '\\xc3\\xa9\\x1b\\\\x'. HELP lists the commands.\n"
    )
    assert len(app.ask(b"x" * 5000 + b"\n")) < 200


@pytest.mark.parametrize(
    ("line", "same_as"),
    [
        (b"\xff\xfb\x01\xff\xfd\x03add 1 2", b"add 1 2"),
        (b"ad\xff\xf1d 1 2", b"add 1 2"),
        (b"words \xff\xfa\x18\x00VT100\xff\xf0a", b"words a"),
        (b"words a\xff\xffb", b"words a\xffb"),
        (b"words a\xff\xff\xff\xfb\x01b", b"words a\xffb"),
        (b"words a\xff", b"words a"),
        (b"words a\xff\xfb", b"words a"),
        (b"words a\xff\xfa\x18\x00VT", b"words a"),
        (b"say \xff\xfe\x22a  b", b"say a  b"),
    ],
)
def test_telnet_commands_are_removed_from_lines(line, same_as):
    app = App()

    @app.handler
    def words(*words: bytes) -> str:
        return repr(words)

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def say(text: Rest) -> str:
        return text

    expected = b"(b'a\\xffb',)\r\n" if b"\xff" in same_as else app.ask(same_as + b"\r\n")
    assert app.ask(line + b"\r\n").endswith(expected)  # after the answers to telnet's options


def test_a_line_of_only_telnet_commands_is_a_blank_line(app):
    assert app.ask(b"\xff\xfb\x01\xff\xfd\x03\r\nadd 1 2\r\n") == (b"\xff\xfe\x01\xff\xfc\x033\r\n")


def test_answers_to_telnet_do_not_accumulate_without_requests(app):
    reply = app.ask(b"\xff\xfd\x01\n" * 10_000 + b"add 1 2\n")

    assert reply.endswith(b"3\n")
    assert len(reply) < 1000


def test_telnet_bytes_in_a_data_block_are_data(app):
    assert app.ask(b"put k 3\r\n\xff\xfb\x01\r\n") == b"k=b'\\xff\\xfb\\x01'\r\n"


# -- quoting


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'"a b" c', [b"a b", b"c"]),
        (b"'a b' c", [b"a b", b"c"]),
        (b'""', [b""]),
        (b"''  x", [b"", b"x"]),
        (rb'"\x41\x00\xff"', [b"A\x00\xff"]),
        (rb'"\n\r\t\a\b"', [b"\n\r\t\a\b"]),
        (rb'"\"\\"', [b'"\\']),
        (rb'"\q\x4"', [b"qx4"]),
        (rb"'\n\''", [rb"\n'"]),
        (rb"'\\'", [rb"\\"]),
        (b"it's", [b"it's"]),
        (b'a"b" c', [b'a"b"', b"c"]),
        (b"\"it's\" '\"'", [b"it's", b'"']),
        (b'a\\ b "c"', [b"a\\", b"b", b"c"]),
        (b'\t"a"\v"b"\f', [b"a", b"b"]),
        (b'"' + b"x" * 8000 + b'"', [b"x" * 8000]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_quotes_make_one_word(line, words):
    given: list[tuple[bytes, ...]] = []
    app = App()

    @app.handler
    def take(*words: bytes) -> None:
        given.append(words)

    assert app.ask(b"take " + line + b"\n") == b"OK\n"
    assert given == [tuple(words)]


@pytest.mark.parametrize(
    "line", [b'"a', b"'a", b'"a"b', b"'a'b", b'"a""b"', rb'"a\"', rb"'a\'", b'x "', b'"' * 3]
)
def test_an_unterminated_quote_refuses_the_line(app, line):
    assert app.ask(b"words " + line + b"\nadd 1 2\n") == (
        b"CLIENT_ERROR unterminated quote, or text right after a closing quote\n3\n"
    )


def test_an_unterminated_quote_before_a_data_block_closes_the_connection(app):
    assert app.ask(b'put "k 3\nabc\nadd 1 2\n').startswith(b"CLIENT_ERROR unterminated quote")
    assert app.ask(b'put "k 3\nabc\nadd 1 2\n').count(b"\n") == 1


def test_a_quoted_argument_is_converted_like_any_other(app):
    assert app.ask(b"add \"2\" '3'\n") == b"5\n"


def test_the_rest_of_the_line_keeps_its_blanks_and_quotes(app):
    assert app.ask(b"say  a   \"b  c' \n") == b"<a   \"b  c' >\n"
    assert app.ask(b'tell "a b"  c "d"\n') == b'<a b><c "d">\n'
    assert app.ask(b"tell a say a\n") == b"<a><say a>\n"
    assert app.ask(b"say say\n") == b"<say>\n"


def test_a_missing_rest_is_a_usage_error(app):
    assert app.ask(b"say\nsay  \n") == b"CLIENT_ERROR text is missing. Usage: SAY text...\n" * 2
    assert app.ask(b"tell a\n") == b"CLIENT_ERROR text is missing. Usage: TELL name:str text...\n"


@attrs.frozen
class Note:
    text: str
    marks: list[int] = attrs.Factory(list)


def paying() -> App:
    app = App()

    @app.handler
    def pay(to: str, note: Note) -> str:
        return f"{to} {note.text} {note.marks}"

    @app.handler
    def may(count: int = 1, note: Note | None = None) -> str:
        return f"{count} {note and note.text}"

    @app.handler
    def ids(ids: list[int]) -> str:
        return repr(ids)

    @app.handler
    def word(ids: list[int], *, twice: bool = False) -> str:
        return repr(ids * (1 + twice))

    @app.handler
    def block(size: int, note: Note, data: bytes = linepool.body("size")) -> str:
        return f"{note.text} {data!r}"

    return app


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b'pay ann {"text": "two  blanks"}', b"ann two  blanks []"),
        (b'pay "a b"  {"text": "it\'s \\"x\\"", "marks": [1, 2]} ', b'a b it\'s "x" [1, 2]'),
        (b'pay ann \'{"text": "it\\\'s"}\'', b"ann it's []"),
        (b"may", b"1 None"),
        (b"may 2", b"2 None"),
        (b'may 2 {"text": "x"}', b"2 x"),
        (b"ids [1, 2]", b"[1, 2]"),
        (b"ids '[1, 2]'", b"[1, 2]"),
        (b"word '[1, 2]' twice", b"[1, 2, 1, 2]"),
        (b'block 3 {"text": "x y"}\nabc', b"x y b'abc'"),
    ],
)
def test_a_last_structured_parameter_takes_the_rest_of_the_line_as_json(line, reply):
    assert paying().ask(line + b"\n") == reply + b"\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'pay ann {"text": "x" "y"}', "note must be JSON of Note; Expecting ',' at character 14."),
        (b"pay ann {", "note must be JSON of Note; "),
        (
            b"pay ann '{\"text\": 'x'}'",
            "note must be JSON of Note; Expecting value at character 1.",
        ),
        (b'pay ann "{\\"text\\": \\"x\\"}"', 'note must be a JSON object, not \'{"text": "x"}\'.'),
        (b'pay ann {"text": "x"} y', "note must be JSON of Note; Extra data at character 15."),
        (b"pay ann \xe9", "note must be JSON of Note; byte 1 is not UTF-8."),
        (b"pay ann", "note is missing."),
        (b"pay", "to is missing."),
        (b"ids it's", "ids must be JSON of list[int]; Expecting value at character 1."),
    ],
)
def test_wrong_json_is_refused_with_the_place_where_it_is_wrong(line, error):
    reply = paying().ask(line + b"\n").decode()

    assert reply.startswith(f"CLIENT_ERROR {error}")
    assert reply.count("\n") == 1


def test_usage_texts_say_which_parameter_is_json():
    usages = paying().ask(b"help\n").decode().split("\n")[:5]

    assert usages == [
        "PAY to:str note:Note(JSON)...",
        "MAY [count:int] [note:Note(JSON)...]",
        "IDS ids:list[int](JSON)...",
        "WORD ids:list[int] [TWICE]",
        "BLOCK size:int note:Note(JSON)... (then size bytes of data)",
    ]


def test_json_of_a_secret_is_not_quoted():
    app = App()

    @app.handler
    def f(x: Annotated[list[int], linepool.Secret]) -> None: ...

    assert (
        app.ask(b'f ["hidden"]\nf [hidden]\n').splitlines()
        == [b"CLIENT_ERROR x must be JSON of list[int]. Usage: F x:list[int](JSON)..."] * 2
    )


# -- limits


def test_a_line_at_the_limit_is_served_and_a_longer_one_closes(app):
    text = b"x" * (MAX_LINE - len(b"say "))

    for eol in (b"\n", b"\r\n"):
        too_long = b"CLIENT_ERROR a line may hold 8192 bytes at most\r\n"
        assert app.ask(b"say " + text + eol) == b"<" + text + b">" + eol
        assert app.ask(b"say " + text + b"x" + eol + b"add 1 2\n") == too_long


def test_a_line_without_end_closes(app):
    assert (
        sent(app, b"x" * (MAX_LINE + 2)) == b"CLIENT_ERROR a line may hold 8192 bytes at most\r\n"
    )


def test_requests_before_a_line_that_is_too_long_are_answered(app):
    assert app.ask(b"add 1 2\n" + b"x" * 10000 + b"\nadd 1 2\n") == (
        b"3\nCLIENT_ERROR a line may hold 8192 bytes at most\n"
    )


def test_ask_applies_the_limits_of_the_app():
    app = App(max_line_bytes=20, max_body_bytes=2)

    @app.handler
    def put(size: int, data: bytes = linepool.body("size")) -> bytes:
        return data

    assert app.ask(b"put 0000000000000000000\n") == (
        b"CLIENT_ERROR a line may hold 20 bytes at most\r\n"
    )
    assert app.ask(b"put 3\n") == b"CLIENT_ERROR a data block may hold 2 bytes at most\n"


# -- data blocks


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        (b"put k 5\r\nhello\r\n", b"k=b'hello'\r\n"),
        (b"put k 5\nhello\n", b"k=b'hello'\n"),
        (b"put k 5\r\nhello\n", b"k=b'hello'\r\n"),
        (b"put k 5\nhello\r\n", b"k=b'hello'\n"),
        (b"put k 0\r\n\r\n", b"k=b''\r\n"),
        (b"put k 0\n\n", b"k=b''\n"),
        (b"put k 4\r\n\r\n\r\n\r\n", b"k=b'\\r\\n\\r\\n'\r\n"),
        (b"put k 8\nadd 1 2\n\n", b"k=b'add 1 2\\n'\n"),
        (b"put k 3\n\0\r\xff\n", b"k=b'\\x00\\r\\xff'\n"),
        (b"put k 1\n\r\n", b"k=b'\\r'\n"),
        (b'put "a b" "2"\nhi\n', b"a b=b'hi'\n"),
        (b"put k 0002\nhi\n", b"k=b'hi'\n"),
    ],
)
def test_a_data_block_is_as_long_as_announced(app, script, reply):
    eol = b"\r\n" if reply.endswith(b"\r\n") else b"\n"

    assert app.ask(script + b"add 1 2" + eol) == reply + b"3" + eol


def test_a_data_block_at_the_limit_is_served_and_a_larger_one_closes(app):
    data = b"x" * MAX_BODY
    reply = app.ask(b"put k %d\n%s\nadd 1 2\n" % (MAX_BODY, data))

    assert reply == b"k=b'" + data + b"'\n3\n"
    for size in (b"%d" % (MAX_BODY + 1), b"9" * 19, b"9" * 30, b"9" * 5000):
        assert app.ask(b"put k " + size + b"\n" + data + b"\nadd 1 2\n") == (
            b"CLIENT_ERROR a data block may hold 1048576 bytes at most\n"
        )


@pytest.mark.parametrize("size", [b"x", b"-1", b"+5", b"5.0", b"0x5", b"1_0", b'""', b'" 5"'])
def test_a_size_that_is_not_a_number_of_bytes_closes(app, size):
    reply = app.ask(b"put k " + size + b"\nhello\nadd 1 2\n")

    assert reply.startswith(b"CLIENT_ERROR '")
    assert reply.endswith(b"' is not the size of a data block in bytes\n")
    assert reply.count(b"\n") == 1


@pytest.mark.parametrize("data", [b"hello!\n", b"hell\n", b"hello\r!", b"hello \r\n"])
def test_a_data_block_without_its_line_ending_closes(app, data):
    assert app.ask(b"put k 5\n" + data + b"add 1 2\n") == (
        b"CLIENT_ERROR the data block does not end after 5 bytes with a line ending\n"
    )


def test_an_incomplete_data_block_at_the_end_never_reaches_the_handler():
    calls: list[bytes] = []
    app = App()

    @app.handler
    def put(size: int, data: bytes = linepool.body("size")) -> None:
        calls.append(data)

    for script in (b"put 5\n", b"put 5\nhell", b"put 5\nhello", b"put 5\nhello\r", b"put 0\n"):
        assert sent(app, script) == (
            b"CLIENT_ERROR the data block is incomplete; the request was not run\n"
        )
    assert calls == []


def test_a_missing_size_is_a_usage_error_and_no_block_is_read(app):
    usage = b" Usage: PUT key:str size:int (then size bytes of data)\n"

    assert app.ask(b"put k\nadd 1 2\n") == b"CLIENT_ERROR size is missing." + usage + b"3\n"


def test_a_usage_error_after_the_size_still_consumes_the_block(app):
    reply = app.ask(b"put k 7 extra\nadd 1 2\nadd 3 4\n")

    assert reply.startswith(b"CLIENT_ERROR too many arguments: 3 given")
    assert reply.endswith(b"\n7\n")
    assert reply.count(b"\n") == 2


def test_a_host_command_of_the_app_is_served():
    app = App()
    app.handler("HOST:")(lambda: "mine")

    assert app.ask(b"host:\n") == b"mine\n"


# -- replies


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


@attrs.frozen
class Point:
    x: int
    y: str


@attrs.frozen
class Row:
    x: int
    y: list[str]


@dataclasses.dataclass
class Size:
    width: int
    height: float


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        (None, b"OK"),
        ("tea", b"tea"),
        ("", b""),
        ("größe", "größe".encode()),
        (b"\xe9\0", b"\xe9\0"),
        (5, b"5"),
        (-(10**30), b"-1000000000000000000000000000000"),
        (2.5, b"2.5"),
        (1e300, b"1e+300"),
        (True, b"true"),
        (False, b"false"),
        (Decimal("1.10"), b"1.10"),
        (UUID(int=1), b"00000000-0000-0000-0000-000000000001"),
        (Path("/etc"), b"/etc"),
        (date(2026, 1, 31), b"2026-01-31"),
        (datetime(2026, 1, 31, 12), b"2026-01-31T12:00:00"),
        (Colour.RED, b"red"),
        (Level.LOW, b"1"),
        (Text("x"), b"x"),
        (Verb("X"), b"X"),
        ("END", b"END"),
    ],
    ids=repr,
)
def test_a_scalar_is_one_line(value, reply):
    assert replying(value).ask(b"f\n") == reply + b"\n"
    assert replying(value).ask(b"f\r\n") == reply + b"\r\n"


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ([], []),
        ((), []),
        (["a", 2, True, b"\xe9"], [b"a", b"2", b"true", b"\xe9"]),
        (("a", 2.5), [b"a", b"2.5"]),
        ([("a", 1), ["b", 2]], [b"a 1", b"b 2"]),
        ({"a": 1, "b": "x y"}, [b"a 1", b"b x y"]),
        ({}, []),
        (Point(1, "two"), [b"x 1", b"y two"]),
        (Size(3, 0.5), [b"width 3", b"height 0.5"]),
        ({7}, [b"7"]),
        (range(3), [b"0", b"1", b"2"]),
        ([""], [b""]),
        (["END"], [b'"END"']),
        (
            ["a", b"END", ("END",), "ENDE", "end", " END"],
            [b"a", b'"END"', b'"END"', b"ENDE", b"end", b" END"],
        ),
    ],
    ids=repr,
)
def test_a_collection_is_one_line_per_item_and_end(value, lines):
    for eol in (b"\n", b"\r\n"):
        reply = b"".join(line + eol for line in [*lines, b"END"])
        assert replying(value).ask(b"f" + eol) == reply


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ([Point(1, "two"), {"a": None}], [b'{"x":1,"y":"two"}', b'{"a":null}']),
        ([("a", [1, 2]), (Size(3, 0.5), {})], [b"a [1,2]", b'{"width":3,"height":0.5} {}']),
        (
            {"a": {"b": [1, "x\r\ny"]}, "c": Point(1, "")},
            [b'a {"b":[1,"x\\r\\ny"]}', b'c {"x":1,"y":""}'],
        ),
        ([[["deep"]]], [b'["deep"]']),
    ],
    ids=repr,
)
def test_a_value_inside_a_line_is_json_if_it_is_no_scalar(value, lines):
    reply = b"".join(line + b"\n" for line in [*lines, b"END"])

    assert replying(value).ask(b"f\n") == reply
    assert replying(iter(value.items() if isinstance(value, dict) else value)).ask(b"f\n") == reply


@pytest.mark.parametrize("value", [{"x": 1, "y": ["a b"]}, Row(1, ["a b"])], ids=repr)
def test_the_app_or_a_command_may_send_records_as_one_line_of_json(value):
    app = replying(value, protocol=Line(records="json"))
    app.handler("G", records="lines")(lambda: value)
    app.handler("H", records="json")(lambda: value)
    app.handler("LIST")(lambda: [value, 5])
    as_json, as_lines = b'{"x":1,"y":["a b"]}\n', b'x 1\ny ["a b"]\nEND\n'

    assert app.ask(b"f\ng\nh\n") == as_json + as_lines + as_json
    assert app.ask(b"list\nf\r\n") == as_json + b"5\nEND\n" + as_json[:-1] + b"\r\n"


def test_records_are_lines_or_json():
    with pytest.raises(linepool.SetupError, match="records must be 'lines' or 'json', not 'xml'"):
        Line(records="xml")
    app = App()
    app.handler("F", records=True)(lambda: None)
    with pytest.raises(linepool.SetupError, match="command F: records must be 'lines' or 'json'"):
        app.freeze()


def test_a_generator_streams_one_line_per_item_and_end():
    app = App()

    @app.handler
    def countdown(start: int) -> Iterator[int]:
        yield from range(start, 0, -1)

    @app.handler
    def rows() -> Iterator[object]:
        yield "END"
        yield ("a", 1)

    @app.handler
    def pairs() -> Iterator[object]:
        return zip("ab", "cd", strict=True)

    assert app.ask(b"countdown 3\r\ncountdown 0\r\n") == b"3\r\n2\r\n1\r\nEND\r\nEND\r\n"
    assert app.ask(b"rows\n") == b'"END"\na 1\nEND\n'
    assert app.ask(b"pairs\n") == b"a c\nb d\nEND\n"


def test_a_raw_reply_is_sent_unchanged():
    assert replying(Reply(raw=b"a\r\nb")).ask(b"f\n") == b"a\r\nb"
    assert replying(Reply(raw=b"")).ask(b"f\nf\n") == b""
    assert replying(Reply(5)).ask(b"f\n") == b"5\n"
    assert replying(Reply([1, 2])).ask(b"f\n") == b"1\n2\nEND\n"
    assert replying(Reply()).ask(b"f\n") == b"OK\n"


def test_nothing_after_a_reply_that_closes_is_executed():
    calls: list[str] = []
    app = App()
    app.handler("RUN")(lambda: calls.append("run"))
    app.handler("VALUE")(lambda: Reply("bye", close=True))
    app.handler("RAW")(lambda: Reply(raw=b"", close=True))
    app.handler("STREAM")(lambda: Reply(iter("ab"), close=True))

    assert sent(app, b"value\nrun\nru") == b"bye\n"
    assert app.ask(b"raw\nrun\n") == b""
    assert app.ask(b"stream\nrun\n") == b"a\nb\nEND\n"
    assert calls == []


@pytest.mark.parametrize(
    "value",
    [
        "a\nSECRET",
        "a\rSECRET",
        "SECRET\r\n",
        b"a\nSECRET",
        Text("b\nSECRET"),
        Path("a\nSECRET"),
        ["a\nSECRET"],
        ["fine", "a\nSECRET"],
        [("a", "b\rSECRET")],
        {"a": "b\nSECRET"},
        {"a\nSECRET": 1},
        Point(1, "a\nSECRET"),
        Reply("a\nSECRET"),
    ],
    ids=repr,
)
def test_a_line_break_in_a_reply_is_the_handlers_error_and_never_sent(value, caplog):
    reply = replying(value).ask(b"f\n")
    failure = FAILED.fullmatch(reply)

    assert failure
    assert f"handler failed id={failure[1].decode()} command=f peer=ask" in caplog.text
    assert "line break" in caplog.text


def test_a_line_break_in_a_streamed_item_ends_the_stream_with_an_error():
    app = replying(None)

    @app.handler
    def stream() -> Iterator[str]:
        yield "fine"
        yield "a\nSECRET"
        yield "never"

    lines = app.ask(b"stream\nf\n").splitlines(keepends=True)

    assert lines[0] == b"fine\n"
    assert FAILED.fullmatch(lines[1])
    assert lines[2:] == [b"OK\n"]


@pytest.mark.parametrize(
    "value",
    [object(), 1j, [[[object()]]], [{"a": 1j}], {"a": [object()]}, [None, object()], "\ud800"],
    ids=lambda value: re.sub(" at 0x[0-9a-f]*", "", repr(value)),
)
def test_a_value_that_cannot_be_sent_is_the_handlers_error(value):
    assert FAILED.fullmatch(replying(value).ask(b"f\n"))


# -- errors


def test_errors_have_memcacheds_prefixes():
    app = App()

    @app.handler
    def fail(how: str) -> None:
        if how == "client":
            raise linepool.ClientError("your fault")
        if how == "server":
            raise linepool.ServerError("my fault")
        if how == "unknown":
            raise linepool.UnknownCommand("what?")
        raise linepool.ReplyError("neither")

    assert app.ask(b"fail client\nfail server\nfail unknown\r\nfail x\n") == (
        b"CLIENT_ERROR your fault\nSERVER_ERROR my fault\nERROR what?\r\nERROR neither\n"
    )


def test_an_error_text_cannot_forge_a_second_line():
    app = App()

    @app.handler
    def fail() -> None:
        raise linepool.ClientError("a\r\nOK\0\x1b[m é \ud800")

    assert app.ask(b"fail\n") == "CLIENT_ERROR a\\x0d\\x0aOK\\x00\\x1b[m é \\xd800\n".encode()


def test_an_exception_gives_the_client_an_id_and_the_log_a_traceback(caplog):
    app = App()

    @app.handler
    def divide(a: int, b: int) -> float:
        return a / b

    lines = app.ask(b"divide 1 0\ndivide 1 0\ndivide 1 2\n").splitlines(keepends=True)
    failures = [FAILED.fullmatch(line) for line in lines[:2]]

    assert lines[2:] == [b"0.5\n"]
    for failure in failures:
        assert failure
        assert f"id={failure[1].decode()} command=divide peer=ask" in caplog.text
    assert lines[0] != lines[1]
    assert caplog.text.count("ZeroDivisionError: division by zero") == 2
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


@pytest.mark.parametrize(
    "error", [SystemExit(3), RecursionError(), MemoryError(), AssertionError()]
)
def test_the_connection_outlives_whatever_a_handler_raises(error, caplog):
    app = replying(None)

    @app.handler
    def fail() -> None:
        raise error

    lines = app.ask(b"fail\nf\n").splitlines(keepends=True)

    assert FAILED.fullmatch(lines[0])
    assert lines[1:] == [b"OK\n"]
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("error", [linepool.ClientError("no more"), ValueError(), SystemExit(3)])
def test_an_error_inside_a_stream_replaces_its_end(error):
    closed: list[bool] = []
    app = replying(None)

    @app.handler
    def stream(n: int) -> Iterator[int]:
        try:
            yield from range(n)
            raise error
        finally:
            closed.append(True)

    first, second = (app.ask(b"stream %d\nf\n" % n).splitlines(keepends=True) for n in (0, 2))

    assert len(first) == 2
    assert first[0] == b"CLIENT_ERROR no more\n" or FAILED.fullmatch(first[0])
    assert first[1] == b"OK\n"
    assert second[:2] == [b"0\n", b"1\n"]
    assert b"ERROR" in second[2]
    assert second[3:] == [b"OK\n"]
    assert closed == [True, True]


def test_a_stream_whose_cleanup_fails_costs_one_error_and_no_connection():
    app = replying(None)

    @app.handler
    def stream() -> Iterator[object]:
        try:
            yield "a"
            yield object()
        finally:
            raise RuntimeError

    lines = app.ask(b"stream\nf\n").splitlines(keepends=True)

    assert lines[0] == b"a\n"
    assert FAILED.fullmatch(lines[1])
    assert lines[2:] == [b"OK\n"]


# -- the parser alone


def test_at_boundary_is_false_while_a_request_is_incomplete():
    protocol = Line().open({}, Limits())
    seen = [protocol.at_boundary]
    for part in (b"a", b"\nb", b"\n", b"\xff"):
        protocol.feed(part)
        while protocol.next_request():
            pass
        seen.append(protocol.at_boundary)

    assert seen == [True, False, False, True, False]


@pytest.mark.parametrize(
    "lost",
    [
        *(b"x" * 9000 + b"\n", b"put k x\n", b"put k 3\nabcd\n", b'put "k 3\n'),
    ],
    ids=lambda lost: repr(lost[:20]),
)
def test_nothing_after_an_error_that_closes_is_a_request(app, lost):
    protocol = Line().open(app.freeze().table, Limits())
    protocol.feed(lost + b"\nadd 1 2\n")
    bad = protocol.next_request()

    assert isinstance(bad, Bad)
    assert bad.close
    assert protocol.next_request() is None
    assert protocol.at_boundary
    assert protocol.eof() is None


def test_two_connections_share_nothing():
    pattern = Line()
    one, two = pattern.open({}, Limits()), pattern.open({}, Limits(max_line_bytes=16))
    one.feed(b"x" * 20 + b"\n")
    two.feed(b"x" * 20 + b"\n")

    assert not isinstance(one.next_request(), Bad)
    assert isinstance(two.next_request(), Bad)


def test_a_request_carries_its_line_and_its_parts(app):
    protocol = Line().open(app.freeze().table, Limits())
    protocol.feed(b'put "a b" 2\r\nhi\r\n')
    request = protocol.next_request()

    assert isinstance(request, linepool.Request)
    assert (request.verb, request.words, request.body) == (b"put", [b"a b", b"2"], b"hi")
    assert (request.line, request.eol) == (b'put "a b" 2', b"\r\n")
    assert request.command.names == ("PUT",)


def test_a_dump_of_another_version_is_refused():
    protocol = Line().open({}, Limits())

    for blob in (b"", b"\x01", b"\x12\x01\r\n", b"\xff" * 50):
        with pytest.raises(ValueError, match=r"the line protocol is (unknown|cut off)"):
            protocol.load(blob)


def test_dump_and_load_keep_an_incomplete_request(app):
    table = app.freeze().table
    one = Line().open(table, Limits())
    one.feed(b"add 1 2\nput k 5\nhel")
    assert one.next_request()
    assert one.next_request() is None
    two = Line().open(table, Limits())
    two.load(one.dump())

    assert not two.at_boundary
    assert two.eof() == one.eof()
