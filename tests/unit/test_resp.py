"""RESP: requests, replies, and the built-in commands."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from enum import Enum

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from linepool import App, Bad, ClientError, Limits, Reply, Request, Resp, SetupError, body
from linepool.protocols.resp import (
    OK,
    Commands,
    NullArray,
    PerVersion,
    Push,
    Queued,
    Status,
    Verbatim,
)
from linepool.pubsub.glob import matches
from linepool.testing import assert_split_invariant
from tests.unit.tiny_redis import recorded, tiny_redis

OPEN = recorded(password=False)
WITH_PASSWORD = recorded(password=True)


@pytest.mark.parametrize(("sent", "received"), OPEN, ids=range(len(OPEN)))
def test_replies_equal_those_of_redis(sent, received):
    assert tiny_redis().ask(sent) == received


@pytest.mark.parametrize(("sent", "received"), WITH_PASSWORD, ids=range(len(WITH_PASSWORD)))
def test_replies_equal_those_of_redis_with_a_password(sent, received):
    assert tiny_redis(password="pw").ask(sent) == received


@pytest.mark.parametrize("number", range(0, len(OPEN), 4))
def test_cuts_change_nothing(number):
    assert_split_invariant(tiny_redis(), OPEN[number][0])


def test_an_open_transaction_can_move_to_another_process():
    script = b"HELLO 3 SETNAME me\r\nMULTI\r\nSET a 1\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nEXEC\r\n"
    script += b"CLIENT GETNAME\r\n"
    assert_split_invariant(tiny_redis(), script)


@pytest.mark.parametrize(
    ("value", "two", "three"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (NullArray(), b"*-1\r\n", b"_\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (5, b":5\r\n", b":5\r\n"),
        (2**63, b"$19\r\n9223372036854775808\r\n", b"(9223372036854775808\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (3.0, b"$1\r\n3\r\n", b",3\r\n"),
        (float("-inf"), b"$4\r\n-inf\r\n", b",-inf\r\n"),
        ("é", b"$2\r\n\xc3\xa9\r\n", b"$2\r\n\xc3\xa9\r\n"),
        (b"\r\n", b"$2\r\n\r\n\r\n", b"$2\r\n\r\n\r\n"),
        (Status("a\r\nb"), b"+a  b\r\n", b"+a  b\r\n"),
        ([1, [None]], b"*2\r\n:1\r\n*1\r\n$-1\r\n", b"*2\r\n:1\r\n*1\r\n_\r\n"),
        ({"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        ({"a"}, b"*1\r\n$1\r\na\r\n", b"~1\r\n$1\r\na\r\n"),
        (Push(["m", 1]), b"*2\r\n$1\r\nm\r\n:1\r\n", b">2\r\n$1\r\nm\r\n:1\r\n"),
        (PerVersion([1], {1: 2}), b"*1\r\n:1\r\n", b"%1\r\n:1\r\n:2\r\n"),
        (Verbatim("hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
        (Decimal("1.10"), b"$4\r\n1.10\r\n", b"$4\r\n1.10\r\n"),
        ([ClientError("x", code="BAD")], b"*1\r\n-BAD x\r\n", b"*1\r\n-BAD x\r\n"),
        (Reply(OK), b"+OK\r\n", b"+OK\r\n"),
    ],
)
def test_values_are_encoded_in_both_versions(value, two, three):
    app = App(protocol=Resp())
    app.handler("GET")(lambda: value)
    assert app.ask(b"GET\r\n") == two
    assert app.ask(b"HELLO 3\r\nGET\r\n").endswith(b"*0\r\n" + three)


def test_records_enums_and_streams_are_encoded():
    @frozen
    class Point:
        x: int
        y: int

    class Colour(Enum):
        RED = "red"

    app = App(protocol=Resp())
    app.handler("POINT")(lambda: Point(1, 2))
    app.handler("COLOUR")(lambda: Colour.RED)

    @app.handler
    def count() -> Iterator[int]:
        yield from range(3)

    assert app.ask(b"POINT\r\nCOLOUR\r\nCOUNT\r\n") == (
        b"*4\r\n$1\r\nx\r\n:1\r\n$1\r\ny\r\n:2\r\n$3\r\nred\r\n*3\r\n:0\r\n:1\r\n:2\r\n"
    )


def test_errors_have_codes_and_one_line():
    app = App(protocol=Resp())

    @app.handler
    def fail() -> None:
        raise ClientError("no\r\n+OK", code="NOPE")

    @app.handler
    def crash() -> None:
        raise KeyError

    said = app.ask(b"FAIL\r\nCRASH\r\n").split(b"\r\n")
    assert said[0] == b"-NOPE no  +OK"
    assert said[1].startswith(b"-ERR internal error, id ")


def test_option_words_may_come_in_any_order():
    app = App(protocol=Resp())

    @app.handler
    def set_(key: str, value: str, *, ex: int | None = None, nx: bool = False) -> str:
        return f"{key}={value} {ex} {nx}"

    said = app.ask(
        b"SET a b\r\nset a b NX ex 5\r\nSET a b ex 5 ex\r\nSET a b px\r\nSET a b EX 5.0\r\n"
    )
    assert said.split(b"\r\n") == [
        *(b"$14", b"a=b None False", b"$10", b"a=b 5 True"),
        *(b"-ERR syntax error", b"-ERR syntax error"),
        *(b"-ERR value is not an integer or out of range", b""),
    ]


def test_a_word_longer_than_the_setting_closes_the_connection():
    sent = b"*2\r\n$4\r\nECHO\r\n$101\r\n%b\r\nPING\r\n" % (b"x" * 101)
    assert tiny_redis(max_request_bytes=1000).ask(b"ECHO a\r\n") == b"$1\r\na\r\n"
    protocol = tiny_redis().freeze(Limits(max_body_bytes=100)).open_protocol()
    protocol.feed(sent)
    bad = protocol.next_request()
    assert isinstance(bad, Bad)
    assert bad.close
    assert bad.reply == b"-ERR Protocol error: invalid bulk length\r\n"
    assert protocol.next_request() is None


def test_a_request_longer_than_its_limit_closes_the_connection():
    words = [b"MGET", *[b"x" * 100] * 20]
    sent = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)
    assert (
        tiny_redis(max_request_bytes=1000).ask(sent) == b"-ERR Protocol error: too big request\r\n"
    )


def test_a_hundred_thousand_words_in_small_pieces_take_linear_time():
    protocol = tiny_redis().freeze().open_protocol()
    protocol.feed(b"*100001\r\n$4\r\nMGET\r\n")
    request = None
    for _ in range(100_000):
        protocol.feed(b"$1\r\nk\r\n")
        if (request := protocol.next_request()) is not None:
            break
    assert isinstance(request, Request)
    assert len(request.words) == 100_000


def test_passwords_are_not_logged():
    protocol = tiny_redis(password="pw").freeze().open_protocol()
    protocol.feed(b"AUTH secret\r\nHELLO 3 AUTH default secret\r\n")
    for _ in range(2):
        request = protocol.next_request()
        assert isinstance(request, Request)
        assert b"secret" not in request.line


def test_a_function_can_check_passwords():
    app = tiny_redis(authenticate=lambda user, password: (user, password) == ("ann", "x"))
    assert app.ask(b"AUTH ann y\r\nGET a\r\nAUTH ann x\r\nGET a\r\n").split(b"\r\n")[:4] == [
        b"-WRONGPASS invalid username-password pair or user is disabled.",
        b"-NOAUTH Authentication required.",
        b"+OK",
        b"$-1",
    ]


def test_config_info_and_client_list_are_not_built_in():
    app = App(protocol=Resp())
    assert app.ask(
        b"CONFIG GET save\r\nINFO server\r\nCLIENT INFO\r\nCLIENT LIST\r\n"
    ).splitlines() == [
        b"-ERR unknown command 'CONFIG', with args beginning with: 'GET' 'save' ",
        b"-ERR unknown command 'INFO', with args beginning with: 'server' ",
        b"-ERR unknown subcommand 'INFO'. Try CLIENT HELP.",
        b"-ERR unknown subcommand 'LIST'. Try CLIENT HELP.",
    ]


def test_an_exec_handler_can_control_the_transaction():
    app = tiny_redis()
    seen = []

    @app.handler("EXEC")
    def execute(queued: Queued) -> list[object] | NullArray:
        seen.append(len(queued))
        return queued() if len(queued) < 2 else NullArray()

    assert app.ask(b"MULTI\r\nPING\r\nEXEC\r\n").endswith(b"*1\r\n+PONG\r\n")
    assert app.ask(b"MULTI\r\nPING\r\nPING\r\nEXEC\r\n").endswith(b"*-1\r\n")
    assert seen == [1, 2]


def test_a_command_with_the_flag_no_multi_is_refused_in_a_transaction():
    app = tiny_redis()

    @app.handler(flags="admin no_multi")
    def save() -> None:
        pass

    said = app.ask(b"SAVE\r\nMULTI\r\nSAVE\r\nPING\r\nEXEC\r\nSAVE\r\n").split(b"\r\n")
    refused = b"-ERR Command not allowed inside a transaction"
    assert said[:4] == [b"$-1", b"+OK", refused, b"+QUEUED"]
    assert said[4].startswith(b"-EXECABORT")
    assert said[5] == b"$-1"


@pytest.mark.parametrize("limits", [(2, 1000), (1000, 8)])
def test_a_transaction_beyond_its_limit_fails_and_the_next_one_does_not(limits):
    app = tiny_redis(max_queue=limits[0], max_queue_bytes=limits[1])

    said = app.ask(b"MULTI\r\n" + b"PING\r\n" * 4 + b"EXEC\r\nMULTI\r\nPING\r\nEXEC\r\n")

    assert said.decode().split("\r\n") == [
        *("+OK", "+QUEUED", "+QUEUED"),
        f"-ERR a transaction may have {limits[0]} commands and {limits[1]} bytes at most",
        "+QUEUED",
        "-EXECABORT Transaction discarded because of previous errors.",
        *("+OK", "+QUEUED", "*1", "+PONG", ""),
    ]


def test_a_handler_can_run_other_commands():
    app = tiny_redis()
    seen = []

    @app.middleware
    def note(request, session, call_next):
        seen.append(request.verb)
        return call_next(request)

    @app.handler(flags="noscript")
    def run(commands: Commands, *words: bytes) -> object:
        request = commands.request([*words])
        return commands.run(request) if request.command else "none"

    @app.handler
    def flags(commands: Commands, *words: bytes) -> list[str]:
        return [*commands.facts(commands.request([*words])).flags]

    @app.handler
    def count() -> Iterator[int]:
        yield from range(3)

    said = app.ask(
        b"RUN set a 1\r\nRUN GET a\r\nRUN get\r\nRUN nosuch\r\nRUN count\r\nRUN quit\r\n"
        b"FLAGS run\r\n"
    )

    assert said.decode().split("\r\n") == [
        *("+OK", "$1", "1", "-ERR wrong number of arguments for 'get' command"),
        *("$4", "none", "*3", ":0", ":1", ":2", "+OK", "*1", "$8", "noscript", ""),
    ]
    assert seen[:4] == [b"RUN", b"set", b"RUN", b"GET"]


def test_a_handler_with_a_data_block_is_refused_at_the_start():
    app = App(protocol=Resp())
    app.handler("PUT")(_put)
    with pytest.raises(SetupError, match="RESP has no data blocks"):
        app.freeze()


def _put(key: str, size: int, data: bytes = body("size")) -> None: ...


@given(st.binary(max_size=300))
def test_no_bytes_cause_an_internal_error(data):
    said = tiny_redis().ask(data + b"\r\n*1\r\n$4\r\nPING\r\n")
    assert b"internal error" not in said


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=5))
def test_words_arrive_unchanged(requests):
    app = App(protocol=Resp())
    app.unknown(lambda: None)
    protocol = app.freeze().open_protocol()
    for words in requests:
        protocol.feed(b"*%d\r\n" % len(words))
        for word in words:
            protocol.feed(b"$%d\r\n" % len(word))
            protocol.feed(word + b"\r")
            protocol.feed(b"\n")
    for words in requests:
        found = protocol.next_request()
        assert isinstance(found, Request)
        assert [found.verb, *found.words] == words


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (b"*", b"", True),
        (b"h?llo", b"hello", True),
        (b"h?llo", b"hllo", False),
        (b"h*llo", b"heeeello", True),
        (b"h[ae]llo", b"hallo", True),
        (b"h[^e]llo", b"hello", False),
        (b"h[a-c]llo", b"hbllo", True),
        (b"h[c-a]llo", b"hbllo", True),
        (b"\\*a", b"*a", True),
        (b"\\*a", b"ba", False),
        (b"a[", b"a", False),
        (b"*a*b", b"xaxxb", True),
        (b"*a*b", b"xaxxbc", False),
        (b"[\\]]", b"]", True),
        (b"a*" * 50 + b"b", b"a" * 200, False),
    ],
)
def test_glob_patterns_match_as_in_redis(pattern, text, fits):
    assert matches(pattern, text) is fits


@pytest.mark.parametrize("version", [b"9" * 5000, b"03", b"-", "\N{SUPERSCRIPT TWO}".encode()])
def test_a_version_that_is_no_number_is_refused_in_words(version):
    app = App(protocol=Resp())
    refused = b"-ERR Protocol version is not an integer or out of range\r\n"
    assert app.ask(b"HELLO " + version + b"\r\n") == refused
